//! Predictions are the same in any company, are kept, and are not mistaken for others.

use std::sync::Arc;

use earthmapper::Modality;
use earthmapper::guidance::Guidance;
use earthmapper_geo::pairs::{PairFolder, PairSource};
use earthmapper_geo::{Picture, WriteOptions, write_picture};
use earthmapper_lab::data::read_square;
use earthmapper_lab::evaluate::score::{Better, Metric};
use earthmapper_lab::evaluate::sockets::PictureMetric;
use earthmapper_lab::evaluate::{Candidate, Directions, EvaluateOptions, Evaluated, Evaluation, evaluate};
use earthmapper_lab::progress::{Interrupt, ProgressMode};

use super::{EarthMapper, SIDE, failure, model, pairs, quick, run};

/// The lines of `pictures.csv` about a pair.
fn lines_about(evaluated: &Evaluated, name: &str) -> Vec<String> {
    let start = format!("{name},");
    evaluated.pictures().lines().filter(|line| line.starts_with(&start)).map(str::to_owned).collect()
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
    assert!(
        error.to_string().contains("interrupted after 0 of 14 predictions; nothing was written"),
        "{error}"
    );
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
    for lost in
        ["map/2.png", "map-uncertainty/4.png", "satellite/1.png", "map-cycle/3.png", "map-ceiling/2.png"]
    {
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
    let label = earthmapper_geo::read_provenance(folder.join("map/2.png")).unwrap().unwrap();
    assert!(label.contains("trainedAlgorithmicMedia"), "{label}");
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
