//! What an evaluation promises, on drawn pairs of 16 pixels and a model that has learned nothing but its codebook.

use std::path::Path;

use burn::tensor::Device;
use earthmapper::guidance::{ComplexityGuidance, Guidance};
use earthmapper::translator::Decode;
use earthmapper::{EarthMapper, EarthMapperConfig, Modality, TokenizerConfig, TransformerConfig};
use earthmapper_geo::pairs::{PairFolder, PairSelection, PairSource};
use earthmapper_geo::{Picture, WriteOptions, write_picture};
use earthmapper_lab::data::read_square;
use earthmapper_lab::evaluate::card::{CardFacts, NEW_YORK_DATA, TrainingFacts, model_card};
use earthmapper_lab::evaluate::grid::{Grid, GridReport, search};
use earthmapper_lab::evaluate::{Directions, EvaluateError, EvaluateOptions, Evaluation, evaluate};
use earthmapper_lab::metrics::{MapScores, Palette, blank_map};
use earthmapper_lab::progress::{Interrupt, ProgressMode};
use earthmapper_lab::start_from_data::StartFromData;

const SIDE: u32 = 16;

/// Land with a road and a shore, and a "photograph" of it in other colours.
fn pairs(folder: &Path, count: u32) -> PairFolder {
    for i in 0..count {
        let kind = |x: u32, y: u32| match (x, y) {
            (x, _) if x < 2 + i => 0,
            (_, y) if y / 2 == i % 8 => 1,
            _ => 2,
        };
        let map = Picture::drawn(SIDE, SIDE, |x, y| {
            [[179, 209, 254], [255, 255, 255], [233, 229, 220]][kind(x, y)]
        });
        let photograph = Picture::drawn(SIDE, SIDE, |x, y| {
            let [r, g, b] = [[20, 40, 60], [120, 120, 120], [60, 90, 40]][kind(x, y)];
            [r + (x * y % 7) as u8, g, b + (3 * i) as u8]
        });
        let both = Picture::hconcat(&[&photograph, &map]);
        write_picture(folder.join(format!("{}.png", i + 1)), &both, &WriteOptions::default()).unwrap();
    }
    let source = PairSource::SideBySide { folder: folder.into(), order: Default::default() };
    PairFolder::open(&source, &PairSelection::default()).unwrap()
}

fn model(pairs: &PairFolder) -> EarthMapper {
    let tokenizer = TokenizerConfig {
        picture_side: SIDE as usize,
        sides: vec![1, 2, 4],
        vocabulary: 24,
        latent_width: 6,
        quantizer_depth: 2,
        fold: 2,
        channels: 8,
        multipliers: vec![1, 2],
        residual_blocks: 1,
        linear_path: true,
        ..Default::default()
    };
    let transformer = TransformerConfig { depth: 2, width: 32, heads: 2, ..Default::default() };
    let config = EarthMapperConfig { format: 1, name: "tiny".into(), transformer, ..Default::default() };
    let mut model = EarthMapper::new(config, tokenizer, 7, &Device::flex());
    let pictures: Vec<Picture> = (0..pairs.len())
        .map(|index| read_square(pairs, index, SIDE).unwrap())
        .flat_map(|pair| [pair.satellite, pair.map])
        .collect();
    model.tokenizer = StartFromData::default().apply(model.tokenizer, &pictures, 3);
    model
}

fn quick(model: &EarthMapper) -> EvaluateOptions {
    EvaluateOptions {
        batch_size: 3,
        diversity_pictures: 2,
        sheet_rows: 2,
        tile_side: 24,
        ..EvaluateOptions::new(model)
    }
}

#[test]
fn an_evaluation_holds_its_baselines_and_survives_writing() {
    let temporary = tempfile::tempdir().unwrap();
    let pairs = pairs(temporary.path(), 5);
    let model = model(&pairs);
    let options = quick(&model);
    let evaluated = evaluate(&model, &pairs, &options, ProgressMode::Silent, &Interrupt::new()).unwrap();
    let evaluation = &evaluated.evaluation;

    // The blank map is exactly what its definition gives.
    let mut blank = MapScores::new(Palette::new_york());
    for index in 0..pairs.len() {
        let truth = read_square(&pairs, index, SIDE).unwrap().map;
        blank.add(&blank_map(SIDE, SIDE, options.blank), &truth).unwrap();
    }
    assert_eq!(evaluation.blank, blank.summary().unwrap());
    // A transformer that knows nothing does not beat the codec under it.
    assert!(evaluation.ceiling.rmse.mean < evaluation.to_map.rmse.mean, "{}", evaluation.table());
    let photographs = evaluation.to_satellite.as_ref().unwrap();
    let numbers = [
        evaluation.to_map.psnr.mean,
        evaluation.to_map.ssim.mean,
        photographs.cycle.rmse.mean,
        photographs.psnr.mean,
        photographs.ssim.mean,
        photographs.detail.unwrap(),
        evaluation.map_detail.unwrap(),
        evaluation.seconds_per_translation,
    ];
    assert!(numbers.iter().all(|number| number.is_finite()), "{numbers:?}");
    assert!(evaluation.map_diversity.unwrap() > 0.0 && photographs.diversity.unwrap() > 0.0);
    assert_eq!(evaluation.names, ["1", "5"]);
    // Two rows of five and of four tiles, every third pair.
    assert_eq!((evaluated.to_map_sheet.width(), evaluated.to_map_sheet.height()), (5 * 28 + 4, 2 * 28 + 4));
    assert_eq!(evaluated.to_satellite_sheet.as_ref().unwrap().width(), 4 * 28 + 4);

    let out = temporary.path().join("out");
    evaluated.write(&out, false).unwrap();
    assert!(
        matches!(evaluated.write(&out, false), Err(EvaluateError::Write(_))),
        "nothing is replaced unasked"
    );
    evaluated.write(&out, true).unwrap();
    let again: Evaluation =
        serde_json::from_slice(&std::fs::read(out.join("evaluation.json")).unwrap()).unwrap();
    assert_eq!(again.table(), evaluation.table());
    assert_eq!(again.generation, evaluation.generation);
    let lines = std::fs::read_to_string(out.join("pictures.csv")).unwrap();
    let columns: Vec<usize> = lines.lines().map(|line| line.split(',').count()).collect();
    assert_eq!(columns, [columns[0]; 6], "{lines}");
    for name in ["table.md", "satellite-to-map.png", "map-to-satellite.png"] {
        assert!(out.join(name).is_file(), "{name}");
    }
}

#[test]
fn the_batch_size_and_the_other_direction_change_nothing() {
    let temporary = tempfile::tempdir().unwrap();
    let pairs = pairs(temporary.path(), 4);
    let model = model(&pairs);
    let run = |batch_size, directions| {
        let options = EvaluateOptions { batch_size, directions, ..quick(&model) };
        evaluate(&model, &pairs, &options, ProgressMode::Silent, &Interrupt::new()).unwrap().evaluation
    };
    let (all, each) = (run(4, Directions::Both), run(0, Directions::ToMap));
    assert_eq!(all.to_map.confusion, each.to_map.confusion);
    assert_eq!(each.to_satellite, None);
    assert!(!each.table().contains("map → satellite"));
}

#[test]
fn an_interrupted_evaluation_gives_no_numbers() {
    let temporary = tempfile::tempdir().unwrap();
    let pairs = pairs(temporary.path(), 2);
    let model = model(&pairs);
    let interrupt = Interrupt::new();
    interrupt.request();
    let error = evaluate(&model, &pairs, &quick(&model), ProgressMode::Silent, &interrupt).unwrap_err();
    assert!(error.is_interruption() && error.to_string().contains("0 of 2 pairs"), "{error}");
    // A search keeps the combinations it has, and says that they are not all.
    let grid = Grid { top_k: vec![1, 2], ..Default::default() };
    let report =
        search(&model, &pairs, Modality::Map, &grid, &quick(&model), ProgressMode::Silent, &interrupt)
            .unwrap();
    assert!(!report.is_complete() && report.table().contains("Stopped after 0 of 2"), "{}", report.table());
}

#[test]
fn a_model_of_one_modality_is_refused() {
    let temporary = tempfile::tempdir().unwrap();
    let pairs = pairs(temporary.path(), 1);
    let two = model(&pairs);
    let mut config = two.config.clone();
    config.transformer.modalities = vec![Modality::Map];
    let one = EarthMapper::new(config, two.tokenizer_config.clone(), 1, &Device::flex());
    let error = evaluate(&one, &pairs, &quick(&one), ProgressMode::Silent, &Interrupt::new()).unwrap_err();
    assert!(error.to_string().contains("knows map"), "{error}");
}

#[test]
fn a_search_tries_every_combination() {
    let temporary = tempfile::tempdir().unwrap();
    let pairs = pairs(temporary.path(), 3);
    let model = model(&pairs);
    let text = "guidance = [\"off\", { complexity = { alpha = 2.0, beta = 2.0, gamma = 2.0 } }, { ramp = 1.5 }]\n\
                top_k = [1, 0]\ntop_p = []\nkey_points = [{ sharpen = { tau = 0.7, temperature = 0.5 } }]\n\
                decode = [\"expected-last\"]\n";
    let grid: Grid = toml::from_str(text).unwrap();
    grid.check().unwrap();
    assert_eq!(grid.guidance[1], Guidance::Complexity(ComplexityGuidance::new(2.0, 2.0, 2.0)));
    assert!(toml::from_str::<Grid>("topk = [1]").unwrap_err().to_string().contains("topk"));
    assert!(
        Grid { temperature: vec![0.0], ..Default::default() }.check().unwrap_err().starts_with("temperature")
    );
    let options = quick(&model);
    for target in [Modality::Map, Modality::Satellite] {
        let report =
            search(&model, &pairs, target, &grid, &options, ProgressMode::Silent, &Interrupt::new()).unwrap();
        assert_eq!((report.rows.len(), report.is_complete()), (6, true));
        assert!(report.rows.windows(2).all(|rows| rows[0].worth() >= rows[1].worth()));
        assert!(
            report.rows.iter().all(|row| row.options.decode == Decode::ExpectedLast && row.detail.is_some())
        );
        assert_eq!(report.table().lines().count(), 2 + 6, "{}", report.table());
        let columns: Vec<usize> = report.table().lines().map(|line| line.matches('|').count()).collect();
        assert_eq!(columns, [columns[0]; 8]);
        let again: GridReport = serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap();
        assert_eq!(again.table(), report.table());
    }
    // One combination is the evaluation with those options.
    let single = search(
        &model,
        &pairs,
        Modality::Map,
        &Grid::default(),
        &options,
        ProgressMode::Silent,
        &Interrupt::new(),
    );
    let whole = evaluate(&model, &pairs, &options, ProgressMode::Silent, &Interrupt::new()).unwrap();
    assert_eq!(single.unwrap().rows[0].scores, whole.evaluation.to_map);
}

#[test]
fn the_card_says_what_must_be_said() {
    let temporary = tempfile::tempdir().unwrap();
    let pairs = pairs(temporary.path(), 2);
    let mut model = model(&pairs);
    model.config.trained_on.region = "New York".into();
    let evaluated =
        evaluate(&model, &pairs, &quick(&model), ProgressMode::Silent, &Interrupt::new()).unwrap();
    let mut facts = CardFacts {
        data: NEW_YORK_DATA.into(),
        trainings: vec![TrainingFacts {
            what: "transformer".into(),
            training_pairs: "1..1000".into(),
            validation_pairs: "1001..1096".into(),
            step: 1600,
            steps: 1700,
            hours: 1.25,
            hardware: vec!["device cpu on a processor, 2 threads".into()],
            version: "0.1.0".into(),
            notes: vec!["semantic infusion off".into()],
        }],
    };
    let card = model_card(&model, &evaluated.evaluation, &facts);
    let must = [
        "# tiny\n",
        "research only",
        "not redistributed",
        "2.1 m per pixel",
        "1.25 hours in all",
        "step 1600",
        "blank map",
        "road F1",
        "--pairs 1..2",
        "synthetic",
    ];
    for text in must {
        assert!(card.contains(text), "{text}: {card}");
    }
    // Pairs 1 and 2 were trained on; it must not say otherwise, nor when it cannot know.
    assert!(card.contains("some of which were trained on"), "{card}");
    facts.trainings[0].training_pairs = "3..1000".into();
    assert!(model_card(&model, &evaluated.evaluation, &facts).contains("(1 to 2) that were not trained on"));
    facts.trainings.clear();
    assert!(model_card(&model, &evaluated.evaluation, &facts).contains("is not known"));
}
