//! What stands on evaluations: the search for options, and the model card.

use earthmapper::Modality;
use earthmapper::guidance::{ComplexityGuidance, Guidance};
use earthmapper::translator::Decode;
use earthmapper_lab::evaluate::Candidate;
use earthmapper_lab::evaluate::card::{CardFacts, NEW_YORK_DATA, TrainingFacts, model_card};
use earthmapper_lab::evaluate::grid::{Grid, GridReport, search};
use earthmapper_lab::progress::{Interrupt, ProgressMode};

use super::{model, pairs, quick, run};

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
