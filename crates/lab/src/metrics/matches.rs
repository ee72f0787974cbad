//! Thin things, give or take a few pixels: what of a prediction is near the truth, and the other way round.

use serde::{Deserialize, Serialize};

/// Counts of marked pixels, of one picture or of many added up.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TolerantMatches {
    /// Marked pixels of the predictions.
    pub predicted: u64,
    /// Those of them that have a true one within the tolerance.
    pub predicted_near_truth: u64,
    /// Marked pixels of the truths.
    pub truth: u64,
    /// Those of them that have a predicted one within the tolerance.
    pub truth_near_prediction: u64,
}

impl TolerantMatches {
    /// Counts marked pixels; `near` marks all that is near a marked one.
    pub(super) fn of(prediction: &[bool], truth: &[bool], near: impl Fn(&[bool]) -> Vec<bool>) -> Self {
        let count = |pixels: &[bool]| pixels.iter().map(|&marked| u64::from(marked)).sum::<u64>();
        let both = |pixels: &[bool], near: &[bool]| {
            pixels.iter().zip(near).map(|(&marked, &near)| u64::from(marked && near)).sum::<u64>()
        };
        Self {
            predicted: count(prediction),
            predicted_near_truth: both(prediction, &near(truth)),
            truth: count(truth),
            truth_near_prediction: both(truth, &near(prediction)),
        }
    }

    /// Adds the counts of other pictures.
    pub fn add(&mut self, other: &Self) {
        self.predicted += other.predicted;
        self.predicted_near_truth += other.predicted_near_truth;
        self.truth += other.truth;
        self.truth_near_prediction += other.truth_near_prediction;
    }

    /// Share of what is predicted that is right, in [0, 1]; none without anything predicted.
    pub fn precision(&self) -> Option<f64> {
        (self.predicted > 0).then(|| self.predicted_near_truth as f64 / self.predicted as f64)
    }

    /// Share of the truth that is found, in [0, 1]; none without any truth.
    pub fn recall(&self) -> Option<f64> {
        (self.truth > 0).then(|| self.truth_near_prediction as f64 / self.truth as f64)
    }

    /// Harmonic mean of precision and recall, in [0, 1]: 0 when only one side has anything, none when neither has.
    pub fn f1(&self) -> Option<f64> {
        match (self.precision(), self.recall()) {
            (None, None) => None,
            (Some(precision), Some(recall)) if precision + recall > 0.0 => {
                Some(2.0 * precision * recall / (precision + recall))
            }
            _ => Some(0.0),
        }
    }

    /// What is right ÷ (what is predicted + the truth that was missed), in [0, 1]; none when neither side has anything.
    pub fn quality(&self) -> Option<f64> {
        let all = self.predicted + self.truth - self.truth_near_prediction;
        (all > 0).then(|| self.predicted_near_truth as f64 / all as f64)
    }
}

/// Marks what lies within `tolerance` pixels of a marked one, in a straight line between pixel centres.
pub(super) fn within(pixels: &[bool], (width, height): (usize, usize), tolerance: usize) -> Vec<bool> {
    // Half the width of the disc at each distance from its middle row.
    let reach: Vec<usize> =
        (0..=tolerance).map(|down| (tolerance * tolerance - down * down).isqrt()).collect();
    let mut near = vec![false; pixels.len()];
    for at in (0..pixels.len()).filter(|&at| pixels[at]) {
        let (x, y) = (at % width, at / width);
        for row in y.saturating_sub(tolerance)..(y + tolerance + 1).min(height) {
            let reach = reach[row.abs_diff(y)];
            near[row * width..][x.saturating_sub(reach)..(x + reach + 1).min(width)].fill(true);
        }
    }
    near
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_is_a_disc() {
        let mut one = vec![false; 9 * 7];
        one[3 * 9 + 4] = true;
        for tolerance in 0..=4 {
            let near = within(&one, (9, 7), tolerance);
            for (at, &near) in near.iter().enumerate() {
                let (x, y) = ((at % 9).abs_diff(4), (at / 9).abs_diff(3));
                assert_eq!(near, x * x + y * y <= tolerance * tolerance, "{tolerance}: {x}, {y}");
            }
        }
    }

    #[test]
    fn quality_counts_what_is_wrong_and_what_is_missed() {
        let found =
            TolerantMatches { predicted: 10, predicted_near_truth: 8, truth: 20, truth_near_prediction: 14 };
        assert_eq!(found.quality(), Some(8.0 / 16.0));
        assert_eq!(TolerantMatches::default().quality(), None);
        let mut twice = found;
        twice.add(&found);
        assert_eq!((twice.quality(), twice.precision(), twice.recall()), (Some(0.5), Some(0.8), Some(0.7)));
    }
}
