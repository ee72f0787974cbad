//! How long what is left of a sweep may take, from what similar points took.

use earthmapper::Modality;
use earthmapper_geo::pairs::PairFolder;

use super::error::PointError;
use super::job::{SweepOptions, Worker};
use super::record::Record;
use super::settings::{Measures, Settings};
use super::{Plan, Planned};
use crate::run::Checkpoint;

/// Samples of a pair whose diversity is measured.
const SAMPLES: f64 = 3.0;
/// How much longer a translation takes that is guided, having two streams.
const GUIDED: f64 = 1.8;
/// Reading, scoring and reconstructing a pair, in translations.
const REST: f64 = 1.0;

/// What is known of the time that is left.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Estimate {
    /// Seconds of all evaluations that are left; none when no point is done.
    pub evaluations: Option<f64>,
    /// What they are judged by.
    pub basis: Option<Basis>,
    /// The evaluations that are left, in plain translations.
    left: f64,
    /// Trainings that are left.
    pub trainings: usize,
    /// Seconds of them, from steps like theirs; none when no similar training is done.
    pub training: Option<f64>,
}

/// What the time of evaluations is judged by.
#[derive(Clone, Debug, PartialEq)]
pub enum Basis {
    /// This many points that are done.
    Points(usize),
    /// One pair, measured for the purpose.
    Pair {
        /// Name of the point that it was measured as.
        point: String,
        /// Seconds that it took.
        seconds: f64,
    },
}

impl Plan {
    /// Where an estimate knows no time to measure, because no point is done, measures one pair of the first point and judges by
    /// it; keeps nothing. A sweep that trains stays unknown: its models are not there yet.
    ///
    /// # Errors
    /// When the pair cannot be measured.
    pub fn try_a_pair(&self, estimate: &mut Estimate, options: &SweepOptions) -> Result<(), PointError> {
        let mut missing = self.points.iter().filter(|planned| planned.record.is_none());
        let Some(Planned { point, keys, .. }) = missing.next().filter(|_| estimate.evaluations.is_none())
        else {
            return Ok(());
        };
        if self.points.iter().any(|planned| planned.point.settings.trains()) {
            return Ok(());
        }
        let seconds = Worker::new(options).time_of_a_pair(&point.settings, keys)?;
        let mut alone = point.settings.clone();
        alone.evaluate.diversity_pictures = 0;
        estimate.evaluations = Some(seconds / work(&alone, 1) * estimate.left);
        estimate.basis = Some(Basis::Pair { point: point.label.clone(), seconds });
        Ok(())
    }

    /// The time that is left, judged by all points that are done in the sweep's folder.
    pub fn estimate(&self, options: &SweepOptions) -> Estimate {
        let (mut seconds, mut done, mut points) = (0.0, 0.0, 0);
        let folders = std::fs::read_dir(options.points()).into_iter().flatten().flatten();
        for record in folders.filter_map(|folder| Record::read_any(&folder.path())) {
            points += 1;
            seconds += record.seconds;
            done += work(&record.settings, record.measured.names.len());
        }
        let count = |settings: &Settings| {
            let opened = PairFolder::open(&settings.evaluate.data, &settings.evaluate.pairs);
            opened.map_or(0, |pairs| pairs.len())
        };
        let missing = self.points.iter().filter(|planned| planned.record.is_none());
        let left: f64 =
            missing.map(|Planned { point, .. }| work(&point.settings, count(&point.settings))).sum();
        let mut trainings: Vec<(&str, &str, u64)> = Vec::new();
        let (mut trained_seconds, mut trained_steps) = (0.0, 0.0);
        for planned in &self.points {
            let (keys, settings) = (&planned.keys, &planned.point.settings);
            let of_tokenizer = keys.tokenizer.as_deref().zip(settings.tokenizer.as_ref().map(|c| c.steps));
            let of_transformer =
                keys.transformer.as_deref().zip(settings.transformer.as_ref().map(|c| c.steps));
            for (what, of) in [("tokenizer", of_tokenizer), ("transformer", of_transformer)] {
                let Some((key, steps)) = of else { continue };
                if !options.is_trained(what, key) {
                    if !trainings.contains(&(what, key, steps)) {
                        trainings.push((what, key, steps));
                    }
                } else if let Ok(last) = Checkpoint::newest(&options.training(what, key)) {
                    trained_seconds += last.seconds;
                    trained_steps += last.step as f64;
                }
            }
        }
        let steps: f64 = trainings.iter().map(|(.., steps)| *steps as f64).sum();
        Estimate {
            evaluations: (done > 0.0).then(|| seconds / done * left).or((left == 0.0).then_some(0.0)),
            basis: (done > 0.0 && left > 0.0).then_some(Basis::Points(points)),
            left,
            trainings: trainings.len(),
            training: (trained_steps > 0.0).then(|| trained_seconds / trained_steps * steps),
        }
    }
}

/// Work of an evaluation, in plain translations.
fn work(settings: &Settings, pairs: usize) -> f64 {
    let (evaluate, pairs) = (&settings.evaluate, pairs as f64);
    if settings.measures() == Measures::Tokenizer {
        return REST * pairs;
    }
    let directions = evaluate.to.directions();
    let one = |target: Modality| {
        let generation = evaluate.generation.towards(target);
        let guided = generation.guidance.needs_unconditional();
        generation.views as f64 * if guided { GUIDED } else { 1.0 }
    };
    let sampled = pairs.min(evaluate.diversity_pictures as f64);
    let mut work = REST * pairs;
    for target in directions.targets() {
        work += one(target) * (pairs + SAMPLES * sampled);
    }
    if directions.include(Modality::Satellite) {
        work += (one(Modality::Map) + REST) * pairs;
    }
    work
}
