//! Where metrics plug in that need more than one pair of pictures at a time: metrics of whole sets, and metrics that a
//! network computes.
//!
//! A new metric of plain pixels is one more [`Score`](super::score::Score) in [`measure`](super::measure::measure). The
//! others implement a trait of this file and are listed in [`set_metrics`] or [`picture_metrics`]. One whose weights are
//! missing says so, and is shown as not computed, with the flag that would change that.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use earthmapper::Modality;
use earthmapper_geo::picture::Picture;
use rayon::prelude::*;

use super::EvaluateError;
use super::bench::{of_modality, square};
use super::evaluation::{Candidate, NotComputed, Row};
use super::measure::{Measured, Setting};
use super::networks::{InceptionMetrics, LpipsMetric};
use super::score::{Better, Metric, Number, Score};
use crate::progress::Interrupt;

/// A metric of a set of pictures against another, such as the FID: there is no value of one picture.
pub trait SetMetric: Debug + Send + Sync {
    /// What [`compute`](Self::compute) gives, in its order; several, where one pass over the pictures gives several.
    fn metrics(&self) -> Vec<Metric>;

    /// What to do when it cannot be computed, such as `give the weights by --inception FILE`.
    fn missing(&self) -> Option<String> {
        None
    }

    /// Whether it is computed for pictures of this kind.
    fn measures(&self, _target: Modality) -> bool {
        true
    }

    /// The numbers, one per metric: a value and, where it is a mean over subsets, its deviation.
    ///
    /// # Errors
    /// What is wrong, such as too few pictures.
    fn compute(&self, real: &[Picture], made: &[Picture]) -> Result<Vec<Number>, String>;
}

/// A metric that a network computes for each picture, such as LPIPS.
pub trait PictureMetric: Debug + Send + Sync {
    /// Its name.
    fn metric(&self) -> Metric;

    /// What to do when it cannot be computed, such as `give the weights by --lpips FILE`.
    fn missing(&self) -> Option<String> {
        None
    }

    /// Whether it is computed for pictures of this kind.
    fn measures(&self, _target: Modality) -> bool {
        true
    }

    /// Whether samples of one input are compared by it as well, as a measure of diversity.
    fn measures_diversity(&self) -> bool {
        false
    }

    /// One value per picture; pictures come in batches of equal size.
    ///
    /// # Errors
    /// What is wrong.
    fn compute(&self, made: &[Picture], real: &[Picture]) -> Result<Vec<f64>, String>;
}

/// The metrics of sets that an evaluation computes unless told otherwise.
pub fn set_metrics() -> Vec<Arc<dyn SetMetric>> {
    vec![Arc::new(InceptionMetrics::default())]
}

/// The metrics of pictures by networks that an evaluation computes unless told otherwise.
pub fn picture_metrics() -> Vec<Arc<dyn PictureMetric>> {
    LpipsMetric::all(Vec::new())
}

/// Adds the networks' scores of every picture. Returns what could not be computed.
pub(super) fn add_picture_metrics(
    setting: &Setting,
    measured: &mut Measured,
    interrupt: &Interrupt,
) -> Result<Vec<(Modality, NotComputed)>, EvaluateError> {
    let mut not_computed = Vec::new();
    let Measured { names, sections, .. } = measured;
    for metric in &setting.options.picture_metrics {
        let name = metric.metric().name;
        for section in sections.iter_mut().filter(|section| metric.measures(section.target)) {
            let target = section.target;
            if let Some(cure) = metric.missing() {
                not_computed.push((target, NotComputed { what: name.clone(), cure }));
                continue;
            }
            for (candidate, pictures) in &mut section.columns {
                let batch_size = setting.options.batch_size.max(1);
                for start in (0..pictures.len()).step_by(batch_size) {
                    if interrupt.requested() {
                        return Err(setting.interrupted(start, "pictures"));
                    }
                    let indices = start..(start + batch_size).min(pictures.len());
                    let (real, made) = load(setting, indices, target, *candidate)?;
                    let values = compute(metric.as_ref(), &made, &real)?;
                    for (picture, value) in pictures[start..].iter_mut().zip(values) {
                        picture.scores.push(Score::mean(metric.metric(), value));
                    }
                }
                if *candidate == Candidate::Model && metric.measures_diversity() {
                    for (picture, pair) in pictures.iter_mut().zip(names.iter()) {
                        let samples = setting.source.samples(pair, target)?;
                        let diversity = Metric { name: format!("diversity, {name}"), ..metric.metric() };
                        let diversity = Metric { better: Better::Neither, ..diversity };
                        let value = mean_pairwise(metric.as_ref(), &samples)?;
                        picture.scores.push(Score::mean(diversity, value));
                    }
                }
            }
        }
    }
    Ok(not_computed)
}

/// The numbers of the metrics of sets for pictures of one kind, and what could not be computed.
pub(super) fn set_numbers(
    setting: &Setting,
    target: Modality,
    candidates: &[Candidate],
    interrupt: &Interrupt,
) -> Result<(Vec<Row>, Vec<NotComputed>), EvaluateError> {
    let (mut rows, mut not_computed) = (Vec::<Row>::new(), Vec::new());
    let metrics = setting.options.set_metrics.iter().filter(|metric| metric.measures(target));
    let (missing, present): (Vec<_>, Vec<_>) = metrics.partition(|metric| metric.missing().is_some());
    for metric in missing {
        let cure = metric.missing().expect("those that are missing were chosen");
        let named = metric.metrics().into_iter().map(|Metric { name, .. }| name);
        not_computed.extend(named.map(|what| NotComputed { what, cure: cure.clone() }));
    }
    if present.is_empty() {
        return Ok((rows, not_computed));
    }
    for metric in &present {
        rows.extend(metric.metrics().into_iter().map(|metric| Row { metric, numbers: BTreeMap::new() }));
    }
    for &candidate in candidates {
        let (real, made) = load(setting, 0..setting.pairs.len(), target, candidate)?;
        let mut free = rows.iter_mut();
        for metric in &present {
            if interrupt.requested() {
                return Err(setting.interrupted(0, "metrics of sets"));
            }
            let names: Vec<String> = metric.metrics().into_iter().map(|metric| metric.name).collect();
            let fail = |problem| EvaluateError::Metric { metric: names.join(", "), problem };
            let numbers = metric.compute(&real, &made).map_err(fail)?;
            if numbers.len() != names.len() {
                return Err(fail(format!("gave {} numbers, not {}", numbers.len(), names.len())));
            }
            // In this order, or `zip` would take a row too many.
            for (number, row) in numbers.into_iter().zip(free.by_ref()) {
                row.numbers.insert(candidate, number);
            }
        }
    }
    Ok((rows, not_computed))
}

/// True pictures and those of a candidate.
fn load(
    setting: &Setting,
    indices: Range<usize>,
    target: Modality,
    candidate: Candidate,
) -> Result<(Vec<Picture>, Vec<Picture>), EvaluateError> {
    let both = |index: usize| {
        let (pair, _) = square(setting.pairs, index, setting.side)?;
        let made = setting.picture(index, &pair, target, candidate)?;
        Ok((of_modality(&pair, target).clone(), made))
    };
    let both: Result<Vec<_>, EvaluateError> = indices.into_par_iter().map(both).collect();
    Ok(both?.into_iter().unzip())
}

/// Values that are no numbers are none.
fn compute(
    metric: &dyn PictureMetric,
    made: &[Picture],
    real: &[Picture],
) -> Result<Vec<Option<f64>>, EvaluateError> {
    let fail = |problem| EvaluateError::Metric { metric: metric.metric().name, problem };
    let values = metric.compute(made, real).map_err(fail)?;
    if values.len() != made.len() {
        return Err(fail(format!("gave {} values of {} pictures", values.len(), made.len())));
    }
    Ok(values.into_iter().map(|value| Some(value).filter(|value| value.is_finite())).collect())
}

/// Mean over all pairs of samples; none without samples.
fn mean_pairwise(metric: &dyn PictureMetric, samples: &[Picture]) -> Result<Option<f64>, EvaluateError> {
    let pairs = |first: usize| (first + 1..samples.len()).map(move |second| (first, second));
    let (left, right): (Vec<Picture>, Vec<Picture>) = (0..samples.len())
        .flat_map(pairs)
        .map(|(first, second)| (samples[first].clone(), samples[second].clone()))
        .unzip();
    if left.is_empty() {
        return Ok(None);
    }
    let values: Option<Vec<f64>> = compute(metric, &left, &right)?.into_iter().collect();
    Ok(values.map(|values| values.iter().sum::<f64>() / values.len() as f64))
}
