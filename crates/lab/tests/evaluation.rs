//! What an evaluation promises, on drawn pairs of 16 pixels and a model that has learned nothing but its codebook.

use std::path::Path;
use std::sync::Arc;

use burn::tensor::Device;
use earthmapper::guidance::{ComplexityGuidance, Guidance};
use earthmapper::translator::Decode;
use earthmapper::{EarthMapper, EarthMapperConfig, Modality, TokenizerConfig, TransformerConfig};
use earthmapper_geo::pairs::{PairFolder, PairSelection, PairSource};
use earthmapper_geo::{Picture, WriteOptions, write_picture};
use earthmapper_lab::data::read_square;
use earthmapper_lab::evaluate::card::{CardFacts, NEW_YORK_DATA, TrainingFacts, model_card};
use earthmapper_lab::evaluate::grid::{Grid, GridReport, search};
use earthmapper_lab::evaluate::score::{Better, Metric, Number};
use earthmapper_lab::evaluate::sockets::{PictureMetric, SetMetric};
use earthmapper_lab::evaluate::{
    Candidate, Directions, EvaluateError, EvaluateOptions, Evaluated, Evaluation, Subject, Training, evaluate,
    evaluate_given,
};
use earthmapper_lab::metrics::{MapScores, Palette, blank_map, root_mean_square_error};
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

/// Measures in silence.
fn run(model: &EarthMapper, pairs: &PairFolder, options: &EvaluateOptions) -> Evaluated {
    evaluate(model, pairs, options, ProgressMode::Silent, &Interrupt::new()).unwrap()
}

fn failure(model: &EarthMapper, pairs: &PairFolder, options: &EvaluateOptions) -> String {
    let result = evaluate(model, pairs, options, ProgressMode::Silent, &Interrupt::new());
    result.map(|_| ()).unwrap_err().to_string()
}

/// The lines of `pictures.csv` about a pair.
fn lines_about(evaluated: &Evaluated, name: &str) -> Vec<String> {
    let start = format!("{name},");
    evaluated.pictures().lines().filter(|line| line.starts_with(&start)).map(str::to_owned).collect()
}

#[test]
fn an_evaluation_holds_its_baselines_and_survives_writing() {
    let temporary = tempfile::tempdir().unwrap();
    let pairs = pairs(temporary.path(), 5);
    let model = model(&pairs);
    let options = quick(&model);
    let evaluated = run(&model, &pairs, &options);
    let evaluation = &evaluated.evaluation;

    // The blank map is exactly what its definition gives, by a second implementation.
    let mut blank = MapScores::new(Palette::new_york());
    for index in 0..pairs.len() {
        let truth = read_square(&pairs, index, SIDE).unwrap().map;
        blank.add(&blank_map(SIDE, SIDE, options.blank.map), &truth).unwrap();
    }
    let blank = blank.summary().unwrap();
    let of = |candidate, metric| evaluation.number(Modality::Map, candidate, metric);
    let close = |found: Option<f64>, expected: f64| (found.unwrap() - expected).abs() < 1e-12;
    assert!(close(of(Candidate::Blank, "PSNR (dB)"), blank.psnr.mean));
    assert!(close(of(Candidate::Blank, "SSIM"), blank.ssim.mean));
    assert!(close(of(Candidate::Blank, "RMSE"), blank.rmse.mean));
    for class in &blank.classes {
        let found = of(Candidate::Blank, &format!("IoU {}", class.name));
        assert_eq!(found, class.intersection_over_union, "{}", class.name);
    }
    assert!(close(of(Candidate::Blank, "IoU mean"), blank.mean_intersection_over_union.unwrap()));
    assert!(close(of(Candidate::Blank, "class accuracy"), blank.class_accuracy.unwrap()));
    assert_eq!(of(Candidate::Blank, "road F1, 2 px"), blank.roads.f1);
    assert_eq!(of(Candidate::Blank, "road precision, 2 px"), None);
    assert_eq!(of(Candidate::Blank, "road recall, 2 px"), Some(0.0));

    // A transformer that knows nothing does not beat the codec under it.
    assert!(of(Candidate::Ceiling, "RMSE") < of(Candidate::Model, "RMSE"), "{}", evaluation.table());
    for (target, candidate, metric) in [
        (Modality::Map, Candidate::Cycle, "class accuracy"),
        (Modality::Map, Candidate::Model, "mean entropy"),
        (Modality::Satellite, Candidate::Model, "PSNR (dB)"),
        (Modality::Satellite, Candidate::Model, "SSIM"),
        (Modality::Satellite, Candidate::Model, "detail"),
        (Modality::Satellite, Candidate::Ceiling, "detail"),
        (Modality::Satellite, Candidate::Blank, "RMSE"),
    ] {
        let found = evaluation.number(target, candidate, metric);
        assert!(found.is_some_and(f64::is_finite), "{target} {candidate} {metric}: {found:?}");
    }
    assert!(of(Candidate::Model, "diversity, RMSE").unwrap() > 0.0);
    assert!(evaluation.number(Modality::Satellite, Candidate::Model, "diversity, RMSE").unwrap() > 0.0);
    assert_eq!(evaluation.names, ["1", "5"]);
    assert_eq!(evaluation.section(Modality::Map).unwrap().confusion.as_ref().unwrap().pixels(), 5 * 256);
    assert!(evaluation.seconds_per_translation.unwrap() > 0.0);

    let out = temporary.path().join("out");
    evaluated.write(&out, false).unwrap();
    let refused = evaluated.write(&out, false);
    assert!(matches!(refused, Err(EvaluateError::Write(_))), "nothing is replaced unasked");
    evaluated.write(&out, true).unwrap();
    let text = std::fs::read_to_string(out.join("evaluation.json")).unwrap();
    let again = Evaluation::from_json(&text).unwrap();
    assert_eq!((again.table(), again.notes()), (evaluation.table(), evaluation.notes()));
    assert_eq!(again.subject, evaluation.subject);
    assert!(Evaluation::from_json("{\"model\": \"tiny\"}").unwrap_err().contains("older format"));
    assert!(Evaluation::from_json(&text.replacen("2", "9", 1)).unwrap_err().contains("format 9"));

    let mut reader = csv::Reader::from_path(out.join("pictures.csv")).unwrap();
    let head = reader.headers().unwrap().clone();
    let records: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    // Blank, model, ceiling, cycle of maps; blank, model, ceiling of photographs.
    assert_eq!(records.len(), 5 * 7);
    let column = |name: &str| head.iter().position(|found| found == name).unwrap();
    let made = |record: &&csv::StringRecord| &record[column("candidate")] == "model" && &record[column("target")] == "map";
    let psnr: Vec<f64> = records.iter().filter(made).map(|r| r[column("PSNR (dB)")].parse().unwrap()).collect();
    assert!((psnr.iter().sum::<f64>() / 5.0 - of(Candidate::Model, "PSNR (dB)").unwrap()).abs() < 1e-5);

    // Input, truth, made, difference, (map made back,) entropy; of five pairs each sheet shows one.
    let sheet = &evaluated.sheets[0];
    assert_eq!((sheet.picture.width(), sheet.picture.height()), (5 * 28 + 4, 28 + 4));
    assert_eq!(evaluated.sheets[3].picture.width(), 6 * 28 + 4);
    for sheet in &evaluated.sheets {
        assert!(out.join(sheet.file_name()).is_file(), "{}", sheet.file_name());
    }
    let html = std::fs::read_to_string(out.join("report.html")).unwrap();
    assert_eq!(html.matches("src=\"data:image/png;base64,").count(), 6);
    assert!(html.matches("<svg").count() >= 5 && html.contains("nearest training pair: not computed"));
    assert!(!html.contains("<script") && !html.contains("src=\"http") && !html.contains("href="));
}

#[test]
fn options_are_written_as_they_were_given() {
    let temporary = tempfile::tempdir().unwrap();
    let pairs = pairs(temporary.path(), 1);
    let model = model(&pairs);
    let mut options = EvaluateOptions { directions: Directions::ToMap, ..quick(&model) };
    options.generation.to_map.sampler.top_p = 0.55;
    let json = run(&model, &pairs, &options).evaluation.to_json();
    assert!(json.contains("\"top_p\": 0.55,") || json.contains("\"top_p\": 0.55\n"), "{json}");
}

#[test]
fn pictures_depend_on_their_own_pair_only() {
    let temporary = tempfile::tempdir().unwrap();
    let pairs = pairs(temporary.path(), 7);
    let model = model(&pairs);
    let all = EvaluateOptions { batch_size: 4, diversity_pictures: 7, ..quick(&model) };
    let whole = run(&model, &pairs, &all);
    // One at a time, in another direction alone.
    let each = EvaluateOptions { batch_size: 0, directions: Directions::ToMap, ..all.clone() };
    let each = run(&model, &pairs, &each);
    let counts = |evaluated: &Evaluated| {
        evaluated.evaluation.section(Modality::Map).unwrap().confusion.clone().unwrap()
    };
    assert_eq!(counts(&whole), counts(&each));
    assert_eq!(each.evaluation.section(Modality::Satellite), None);
    assert!(!each.evaluation.table().contains("map → satellite"));
    // Map → satellite alone has the way back, and the same photographs.
    let back = EvaluateOptions { batch_size: 2, directions: Directions::ToSatellite, ..all.clone() };
    let back = run(&model, &pairs, &back).evaluation;
    let number = |evaluation: &Evaluation, target, candidate| evaluation.number(target, candidate, "SSIM");
    for (target, candidate) in [(Modality::Satellite, Candidate::Model), (Modality::Map, Candidate::Cycle)] {
        assert_eq!(number(&back, target, candidate), number(&whole.evaluation, target, candidate));
    }
    assert_eq!(number(&back, Modality::Map, Candidate::Model), None);
    // Among others, at other positions.
    let source = PairSource::SideBySide { folder: temporary.path().into(), order: Default::default() };
    let part = PairFolder::open(&source, &"3..5".parse().unwrap()).unwrap();
    let part = run(&model, &part, &EvaluateOptions { batch_size: 2, ..all });
    for name in ["3", "4", "5"] {
        assert_eq!(lines_about(&part, name), lines_about(&whole, name));
        assert_eq!(lines_about(&part, name).len(), 7);
    }
}

#[test]
fn an_interrupted_evaluation_gives_no_numbers() {
    let temporary = tempfile::tempdir().unwrap();
    let pairs = pairs(temporary.path(), 2);
    let model = model(&pairs);
    let interrupt = Interrupt::new();
    interrupt.request();
    let error = evaluate(&model, &pairs, &quick(&model), ProgressMode::Silent, &interrupt).unwrap_err();
    assert!(error.is_interruption(), "{error}");
    assert!(error.to_string().contains("interrupted after 0 of 14 predictions; nothing was written"), "{error}");
    // A search keeps the combinations it has, and says that they are not all.
    let grid = Grid { top_k: vec![1, 2], ..Default::default() };
    let report =
        search(&model, &pairs, Modality::Map, &grid, &quick(&model), ProgressMode::Silent, &interrupt)
            .unwrap();
    assert!(!report.is_complete() && report.table().contains("Stopped after 0 of 2"), "{}", report.table());
}

/// A metric that asks for a stop when it is first computed.
#[derive(Debug)]
struct Stopping(Interrupt);

impl PictureMetric for Stopping {
    fn metric(&self) -> Metric {
        Metric::new("stopping", Better::Lower)
    }

    fn compute(&self, made: &[Picture], _: &[Picture]) -> Result<Vec<f64>, String> {
        self.0.request();
        Ok(vec![0.0; made.len()])
    }
}

#[test]
fn a_resumed_evaluation_equals_an_uninterrupted_one() {
    let temporary = tempfile::tempdir().unwrap();
    let pairs = pairs(temporary.path(), 4);
    let model = model(&pairs);
    let in_memory = run(&model, &pairs, &quick(&model));
    let folder = temporary.path().join("predictions");
    let kept = EvaluateOptions { predictions: Some(folder.clone()), ..quick(&model) };
    let interrupt = Interrupt::new();
    let stopping =
        EvaluateOptions { picture_metrics: vec![Arc::new(Stopping(interrupt.clone()))], ..kept.clone() };
    let error = evaluate(&model, &pairs, &stopping, ProgressMode::Silent, &interrupt).unwrap_err();
    assert!(error.is_interruption() && error.to_string().contains("the same command goes on"), "{error}");
    // As if it had been stopped earlier.
    for lost in ["map/2.png", "map-uncertainty/4.png", "satellite/1.png", "map-cycle/3.png", "map-ceiling/2.png"] {
        std::fs::remove_file(folder.join(lost)).unwrap();
    }
    let resumed = run(&model, &pairs, &kept);
    assert_eq!(resumed.measured, in_memory.measured);
    assert_eq!(resumed.sheets, in_memory.sheets);
    assert_eq!(resumed.evaluation.sections, in_memory.evaluation.sections);
    assert_eq!(resumed.evaluation.table(), in_memory.evaluation.table());

    // What is there is taken up rather than made again: a doctored prediction shows.
    let truth = read_square(&pairs, 0, SIDE).unwrap().map;
    let replace = WriteOptions { overwrite: true, ..Default::default() };
    write_picture(folder.join("map/1.png"), &truth, &replace).unwrap();
    let again = run(&model, &pairs, &kept);
    assert_eq!(again.evaluation.seconds_per_translation, None);
    let of_model = |evaluated: &Evaluated| {
        let section = evaluated.measured.section(Modality::Map).unwrap();
        section.column(Candidate::Model).unwrap()[0].value("RMSE")
    };
    assert_eq!(of_model(&again), Some(0.0));
    // Predictions say that they are synthetic.
    let made = std::fs::read(folder.join("map/2.png")).unwrap();
    assert!(earthmapper_geo::read_provenance(&made).is_some());
}

#[test]
fn predictions_of_something_else_are_not_taken_up() {
    let temporary = tempfile::tempdir().unwrap();
    let pairs = pairs(temporary.path(), 3);
    let mut model = model(&pairs);
    let folder = temporary.path().join("predictions");
    let maps = EvaluateOptions { directions: Directions::ToMap, diversity_pictures: 0, ..quick(&model) };
    let kept = EvaluateOptions { predictions: Some(folder.clone()), ..maps };
    let source = PairSource::SideBySide { folder: temporary.path().into(), order: Default::default() };
    let two = PairFolder::open(&source, &"1..2".parse().unwrap()).unwrap();
    run(&model, &two, &kept);
    // More pairs go on with the same folder, and less still fit.
    run(&model, &pairs, &kept);
    assert_eq!(run(&model, &two, &kept).evaluation.seconds_per_translation, None);

    let refuses = |model: &EarthMapper, options: &EvaluateOptions, words: &str| {
        let error = failure(model, &pairs, options);
        assert!(error.contains(words) && error.contains("give another folder with --out"), "{error}");
    };
    refuses(&model, &EvaluateOptions { seed: 5, ..kept.clone() }, "made with the seed 0, not 5");
    let mut other = kept.clone();
    other.generation.to_map.guidance = Guidance::Ramp(3.0);
    refuses(&model, &other, "other options of generation");
    let foreign = EvaluateOptions { predictions: Some(temporary.path().into()), ..kept.clone() };
    refuses(&model, &foreign, "holds files but no key.json");
    let changed = Picture::filled(2 * SIDE, SIDE, [9; 3]);
    let replace = WriteOptions { overwrite: true, ..Default::default() };
    write_picture(temporary.path().join("2.png"), &changed, &replace).unwrap();
    refuses(&model, &kept, "the pair 2 has changed");
    model.config.trained_on.region = "elsewhere".into();
    refuses(&model, &kept, "another model (tiny)");
    std::fs::write(folder.join("key.json"), "{").unwrap();
    refuses(&model, &kept, "key.json is damaged");
}

/// Writes true pictures of one kind as predictions.
fn write_truths(pairs: &PairFolder, target: Modality, folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    for index in 0..pairs.len() {
        let pair = read_square(pairs, index, SIDE).unwrap();
        let picture = if target == Modality::Map { pair.map } else { pair.satellite };
        write_picture(folder.join(format!("{}.png", pair.name)), &picture, &WriteOptions::default()).unwrap();
    }
}

#[test]
fn given_pictures_that_are_the_truth_are_perfect() {
    let temporary = tempfile::tempdir().unwrap();
    let pairs = pairs(temporary.path(), 4);
    let given = |folder: &Path, target| {
        let options = EvaluateOptions { tile_side: 24, ..EvaluateOptions::without_model() };
        evaluate_given(folder, target, &pairs, &options, ProgressMode::Silent, &Interrupt::new())
    };
    for target in Modality::ALL {
        let folder = temporary.path().join(target.to_string());
        write_truths(&pairs, target, &folder);
        let evaluated = given(&folder, target).unwrap();
        let evaluation = &evaluated.evaluation;
        let perfect: &[(&str, f64)] = match target {
            Modality::Map => &[
                ("PSNR (dB)", 100.0),
                ("RMSE", 0.0),
                ("IoU water", 1.0),
                ("IoU mean", 1.0),
                ("class accuracy", 1.0),
                ("road precision, 2 px", 1.0),
                ("road F1, 2 px", 1.0),
                ("detail", 1.0),
            ],
            Modality::Satellite => &[("PSNR (dB)", 100.0), ("RMSE", 0.0), ("detail", 1.0)],
        };
        for (metric, value) in perfect {
            let found = evaluation.section(target).unwrap().number(Candidate::Model, metric).unwrap();
            assert_eq!((found.value, found.interval), (Some(*value), Some([*value; 2])), "{metric}");
        }
        assert_eq!(evaluation.sections.len(), 1);
        assert_eq!(evaluation.subject, Subject::Predictions { name: target.to_string() });
        assert!(evaluation.table().contains("not computed") && evaluation.notes().contains("--model DIR"));
        evaluated.write(&temporary.path().join("out").join(target.to_string()), false).unwrap();
    }

    let folder = temporary.path().join("map");
    let refuses = |words: &str| {
        let error = given(&folder, Modality::Map).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    let replace = WriteOptions { overwrite: true, ..Default::default() };
    write_picture(folder.join("3.png"), &Picture::filled(8, 8, [0; 3]), &replace).unwrap();
    refuses("3.png: is 8 × 8 pixels, but the first prediction is 16 × 16; make all of one size");
    write_picture(folder.join("1.png"), &Picture::filled(16, 8, [0; 3]), &replace).unwrap();
    refuses("1.png: is 16 × 8 pixels; predictions must be square");
    std::fs::remove_file(folder.join("2.png")).unwrap();
    refuses("1 of 4 pairs have no prediction (2); add them");
    std::fs::write(folder.join("2.png"), "no picture").unwrap();
    std::fs::rename(folder.join("2.png"), folder.join("1.png")).unwrap();
    std::fs::rename(folder.join("3.png"), folder.join("2.png")).unwrap();
    std::fs::copy(folder.join("2.png"), folder.join("3.png")).unwrap();
    refuses("1.png");
    for name in ["1.png", "2.png", "3.png", "4.png"] {
        std::fs::remove_file(folder.join(name)).unwrap();
    }
    refuses("holds no prediction of any of the 4 pairs; name them like the pairs, such as 1.png");
    std::fs::remove_dir(&folder).unwrap();
    refuses("is not a folder");
}

#[test]
fn the_nearest_training_pair_is_found_by_its_input() {
    let temporary = tempfile::tempdir().unwrap();
    let pairs = pairs(temporary.path(), 4);
    // The same photographs a little brighter, with maps that say which they are.
    let folder = temporary.path().join("training");
    std::fs::create_dir(&folder).unwrap();
    let shade = |index: usize| [40 * (index as u8 + 1); 3];
    for index in 0..pairs.len() {
        let mut photograph = read_square(&pairs, index, SIDE).unwrap().satellite;
        photograph.rgb_mut().iter_mut().for_each(|value| *value += 1);
        let both = Picture::hconcat(&[&photograph, &Picture::filled(SIDE, SIDE, shade(index))]);
        write_picture(folder.join(format!("{}.png", 4 - index)), &both, &WriteOptions::default()).unwrap();
    }
    let source = PairSource::SideBySide { folder: folder.clone(), order: Default::default() };
    let opened = PairFolder::open(&source, &PairSelection::default()).unwrap();
    let read = || Training::read(opened.clone(), SIDE, ProgressMode::Silent, &Interrupt::new()).unwrap();
    for index in 0..pairs.len() {
        let photograph = read_square(&pairs, index, SIDE).unwrap().satellite;
        let found = read().nearest(Modality::Map, &photograph, None).unwrap();
        assert_eq!(opened.name(found), (4 - index).to_string());
    }
    // Maps of four shades, a quarter of the pixels each: the lower middle is the median.
    assert_eq!(read().blank().map, [80; 3]);

    let model = model(&pairs);
    let trained = EvaluateOptions { training: Some(opened), directions: Directions::ToMap, ..quick(&model) };
    let evaluation = run(&model, &pairs, &trained).evaluation;
    let mut expected = 0.0;
    for index in 0..pairs.len() {
        let truth = read_square(&pairs, index, SIDE).unwrap().map;
        let retrieved = Picture::filled(SIDE, SIDE, shade(index));
        expected += root_mean_square_error(&retrieved, &truth).unwrap() / 4.0;
    }
    let found = evaluation.number(Modality::Map, Candidate::Nearest, "RMSE").unwrap();
    assert!((found - expected).abs() < 1e-12, "{found} {expected}");
    assert_eq!(evaluation.blank.map, [80; 3]);

    // Measured on what it was trained on, a pair is not its own neighbour.
    let own = EvaluateOptions { training: Some(pairs.clone()), ..trained };
    let evaluation = run(&model, &pairs, &own).evaluation;
    assert!(evaluation.number(Modality::Map, Candidate::Nearest, "RMSE").unwrap() > 0.0);
    let one = PairSource::SideBySide { folder: temporary.path().into(), order: Default::default() };
    let one = PairFolder::open(&one, &"1..1".parse().unwrap()).unwrap();
    let alone = EvaluateOptions { training: Some(one.clone()), ..own };
    assert!(failure(&model, &one, &alone).contains("only training pair and measured itself"));
}

/// The mean red of a set, and how far apart the sets are.
#[derive(Debug)]
struct Redness;

impl SetMetric for Redness {
    fn metrics(&self) -> Vec<Metric> {
        vec![Metric::new("red", Better::Neither), Metric::new("red distance", Better::Lower)]
    }

    fn measures(&self, target: Modality) -> bool {
        target == Modality::Satellite
    }

    fn compute(&self, real: &[Picture], made: &[Picture]) -> Result<Vec<Number>, String> {
        let red = |pictures: &[Picture]| {
            let values: Vec<f64> = pictures.iter().map(|picture| f64::from(picture.pixel(0, 0)[0])).collect();
            values.iter().sum::<f64>() / values.len() as f64
        };
        let number = |value| Number { value: Some(value), interval: None, deviation: Some(0.5) };
        Ok(vec![number(red(made)), number((red(real) - red(made)).abs())])
    }
}

/// The difference of the first pixels; or weights that are not there.
#[derive(Debug)]
struct Corner {
    has_weights: bool,
}

impl PictureMetric for Corner {
    fn metric(&self) -> Metric {
        Metric::new(if self.has_weights { "corner" } else { "LPIPS" }, Better::Lower)
    }

    fn missing(&self) -> Option<String> {
        (!self.has_weights).then(|| "give the weights by --lpips FILE".into())
    }

    fn measures_diversity(&self) -> bool {
        true
    }

    fn compute(&self, made: &[Picture], real: &[Picture]) -> Result<Vec<f64>, String> {
        assert!(made.len() <= 3, "batches");
        Ok(made.iter().zip(real).map(|(a, b)| f64::from(a.pixel(0, 0)[0].abs_diff(b.pixel(0, 0)[0]))).collect())
    }
}

#[test]
fn metrics_of_sets_and_networks_plug_in() {
    let temporary = tempfile::tempdir().unwrap();
    let pairs = pairs(temporary.path(), 5);
    let model = model(&pairs);
    let options = EvaluateOptions {
        set_metrics: vec![Arc::new(Redness)],
        picture_metrics: vec![
            Arc::new(Corner { has_weights: true }),
            Arc::new(Corner { has_weights: false }),
        ],
        ..quick(&model)
    };
    let evaluated = run(&model, &pairs, &options);
    let evaluation = &evaluated.evaluation;
    let blank = |target, metric| evaluation.number(target, Candidate::Blank, metric);
    assert_eq!(blank(Modality::Satellite, "red"), Some(f64::from(options.blank.satellite[0])));
    assert_eq!(blank(Modality::Map, "red"), None);
    // Of the maps all first pixels are water.
    assert_eq!(blank(Modality::Map, "corner"), Some(f64::from(options.blank.map[0] - 179)));
    assert!(evaluation.number(Modality::Map, Candidate::Model, "diversity, corner").is_some());
    assert!(evaluation.table().contains("50.000 ± 0.500"), "{}", evaluation.table());
    let photographs = evaluation.section(Modality::Satellite).unwrap();
    assert_eq!(photographs.not_computed.iter().filter(|missing| missing.what == "LPIPS").count(), 1);
    let row = evaluation.table().lines().find(|line| line.starts_with("| LPIPS ")).unwrap().to_owned();
    assert_eq!(row.matches("not computed").count(), 5, "{row}");
    assert!(evaluation.notes().contains("LPIPS: not computed; give the weights by --lpips FILE"));
    // A value per picture for the one, none for the other.
    let pictures = evaluated.pictures();
    let head = pictures.lines().next().unwrap();
    assert!(head.contains(",corner,") && !head.contains("red") && !head.contains("LPIPS"), "{head}");
}

#[test]
fn places_make_a_map_of_errors() {
    let temporary = tempfile::tempdir().unwrap();
    pairs(temporary.path(), 3);
    let mut manifest = String::from("{\"format\":1,\"sources\":[]}\n");
    for i in 1..=3 {
        let (west, east) = (11.0 + 0.01 * f64::from(i), 11.01 + 0.01 * f64::from(i));
        let middle = f64::midpoint(west, east);
        manifest += &format!(
            "{{\"name\":\"{i}\",\"file\":\"{i}.png\",\"source\":\"s\",\"bounds\":[{west},43.0,{east},43.01],\
             \"place\":{{\"longitude\":{middle},\"latitude\":43.005}},\"metres_per_pixel\":2.0,\"side\":16,\
             \"split\":\"validation\"}}\n"
        );
    }
    std::fs::write(temporary.path().join("manifest.jsonl"), manifest).unwrap();
    let source = PairSource::Manifest { manifest: temporary.path().into() };
    let pairs = PairFolder::open(&source, &PairSelection::default()).unwrap();
    let model = model(&pairs);
    let evaluated = run(&model, &pairs, &quick(&model));
    assert!(evaluated.html().contains("Where they lie") && evaluated.html().contains(">longitude<") || evaluated.html().contains("longitude\n"));
    assert!(evaluated.pictures().contains("\n2,11.025000,43.005000,map,model,"), "{}", evaluated.pictures());
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
    let whole = run(&model, &pairs, &options).evaluation;
    let scores = &single.unwrap().rows[0].scores;
    assert_eq!(Some(&scores.confusion), whole.section(Modality::Map).unwrap().confusion.as_ref());
    assert_eq!(scores.roads.f1, whole.number(Modality::Map, Candidate::Model, "road F1, 2 px"));
}

#[test]
fn the_card_says_what_must_be_said() {
    let temporary = tempfile::tempdir().unwrap();
    let pairs = pairs(temporary.path(), 2);
    let mut model = model(&pairs);
    model.config.trained_on.region = "New York".into();
    let evaluated = run(&model, &pairs, &quick(&model));
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
