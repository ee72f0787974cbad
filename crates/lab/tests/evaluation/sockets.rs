//! Metrics of sets and of networks plug in.

use std::sync::Arc;

use earthmapper::Modality;
use earthmapper_geo::Picture;
use earthmapper_lab::evaluate::score::{Better, Metric, Number};
use earthmapper_lab::evaluate::sockets::{PictureMetric, SetMetric};
use earthmapper_lab::evaluate::{Candidate, EvaluateOptions};

use super::{model, pairs, quick, run};

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
        Ok(made
            .iter()
            .zip(real)
            .map(|(a, b)| f64::from(a.pixel(0, 0)[0].abs_diff(b.pixel(0, 0)[0])))
            .collect())
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
