//! Numbers over a set of pictures: a record of sums per picture, and a statistic over the records added up.
//!
//! An intersection over union of a whole set is not the mean of those of its pictures, and neither is its bootstrap
//! interval. Every metric is therefore kept as *sums* of each picture (intersection and union; matched and all road
//! pixels; a value and a one), and read off by a [`Statistic`] of the sums of any pictures: of one for the table of
//! pictures, of all for the table, of drawn ones for the interval.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::metrics::RoadMatches;

/// Which way a metric is good.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Better {
    /// Higher is better.
    Higher,
    /// Lower is better.
    Lower,
    /// One value is right, such as 1 for a ratio, or none is.
    Neither,
}

/// What a metric is called and how it is written.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Metric {
    /// Its name, with the unit when it has one, such as `PSNR (dB)`.
    pub name: String,
    /// Digits after the point in tables.
    pub digits: usize,
    /// Which way it is good.
    pub better: Better,
}

impl Metric {
    /// A metric of this name, with three digits.
    pub fn new(name: impl Into<String>, better: Better) -> Self {
        Self { name: name.into(), digits: 3, better }
    }

    /// The same with other digits.
    pub fn with_digits(self, digits: usize) -> Self {
        Self { digits, ..self }
    }
}

/// How a number is read off sums.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Statistic {
    /// Of `[part, whole]`: part ÷ whole, none without a whole. A mean is the ratio of values to their number.
    Ratio,
    /// Of `[predicted and right, predicted, true and found, true]`: the harmonic mean of precision and recall; 0 when
    /// one side has none, none when neither has.
    HarmonicMean,
    /// Of `[part, whole, part, whole, …]`: the mean of the ratios that there are.
    MeanOfRatios,
}

impl Statistic {
    /// The number, or none when these sums say nothing.
    pub fn of(self, sums: &[f64]) -> Option<f64> {
        let ratio = |part: f64, whole: f64| (whole > 0.0).then(|| part / whole);
        match self {
            Self::Ratio => ratio(sums[0], sums[1]),
            Self::HarmonicMean => match (ratio(sums[0], sums[1]), ratio(sums[2], sums[3])) {
                (None, None) => None,
                (Some(precision), Some(recall)) if precision + recall > 0.0 => {
                    Some(2.0 * precision * recall / (precision + recall))
                }
                _ => Some(0.0),
            },
            Self::MeanOfRatios => {
                let ratios = || sums.chunks_exact(2).filter_map(|sums| ratio(sums[0], sums[1]));
                ratio(ratios().sum(), ratios().count() as f64)
            }
        }
    }
}

/// A metric of one picture.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Score {
    /// Which metric.
    pub metric: Metric,
    /// How sums of pictures become a number.
    pub statistic: Statistic,
    /// This picture's sums.
    pub sums: Vec<f64>,
}

impl Score {
    /// A value whose mean over pictures is asked for; a picture without one does not count.
    pub fn mean(metric: Metric, value: Option<f64>) -> Self {
        Self::ratio(metric, value.unwrap_or(0.0), f64::from(u8::from(value.is_some())))
    }

    /// A share: of the sums over pictures, not the mean of the pictures' shares.
    pub fn ratio(metric: Metric, part: f64, whole: f64) -> Self {
        Self { metric, statistic: Statistic::Ratio, sums: vec![part, whole] }
    }

    /// The harmonic mean of precision and recall of matches within a tolerance.
    pub fn harmonic_mean(metric: Metric, matches: &RoadMatches) -> Self {
        let counts =
            [matches.predicted_near_truth, matches.predicted, matches.truth_near_prediction, matches.truth];
        let sums = counts.map(|count| count as f64).to_vec();
        Self { metric, statistic: Statistic::HarmonicMean, sums }
    }

    /// The picture's own value.
    pub fn value(&self) -> Option<f64> {
        self.statistic.of(&self.sums)
    }
}

/// A number over a set of pictures.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Number {
    /// The number; none when the pictures do not say, such as the road F1 of a set without roads.
    pub value: Option<f64>,
    /// 95 % bootstrap interval over pictures, lower and upper end; none for a single picture and for metrics of sets.
    pub interval: Option<[f64; 2]>,
    /// Standard deviation over the metric's own subsets, where it draws some.
    pub deviation: Option<f64>,
}

impl Number {
    /// As a table shows it: `23.19 [22.28, 24.11]`, `0.021 ± 0.003`, or a dash.
    pub fn text(&self, digits: usize) -> String {
        let Some(value) = self.value else { return "–".into() };
        match (self.interval, self.deviation) {
            (Some([low, high]), _) => format!("{value:.digits$} [{low:.digits$}, {high:.digits$}]"),
            (None, Some(deviation)) => format!("{value:.digits$} ± {deviation:.digits$}"),
            (None, None) => format!("{value:.digits$}"),
        }
    }
}

/// Resamples of a bootstrap.
pub const RESAMPLES: usize = 2000;

/// Draws of pictures with replacement, the same for every metric and every candidate: two candidates are then
/// resampled together, as they should be, being measured on the same pictures.
#[derive(Clone, Debug)]
pub struct Bootstrap {
    /// `[resamples, pictures]`, positions of pictures.
    draws: Vec<Vec<u32>>,
}

impl Bootstrap {
    /// Draws of this many pictures.
    pub fn new(pictures: usize, seed: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut draw = || (0..pictures).map(|_| random.random_range(0..pictures as u32)).collect();
        Self { draws: (0..if pictures < 2 { 0 } else { RESAMPLES }).map(|_| draw()).collect() }
    }

    /// The number of all pictures and its 95 % percentile interval. `records` holds each picture's sums. Resamples that
    /// say nothing (none of their pictures has the class) are left out; when they are most, there is no interval.
    pub fn number(&self, statistic: Statistic, records: &[&[f64]]) -> Number {
        let Some(length) = records.first().map(|sums| sums.len()) else { return Number::default() };
        let value = statistic.of(&sum(records.iter().copied(), length));
        let drawn = |draw: &Vec<u32>| statistic.of(&drawn_sum(draw, records, length));
        self.with_interval(value, self.draws.par_iter().filter_map(drawn).collect())
    }

    /// By how much the number of `records` exceeds that of `others`, which are the same pictures made otherwise. Both are
    /// resampled together, so the interval is that of the difference: far narrower than the two intervals, since what is
    /// hard for one is hard for the other.
    pub fn difference(&self, statistic: Statistic, records: &[&[f64]], others: &[&[f64]]) -> Number {
        let Some(length) = records.first().map(|sums| sums.len()) else { return Number::default() };
        let all = |records: &[&[f64]]| statistic.of(&sum(records.iter().copied(), length));
        let value = all(records).zip(all(others)).map(|(one, other)| one - other);
        let drawn = |draw: &Vec<u32>| {
            let of = |records: &[&[f64]]| statistic.of(&drawn_sum(draw, records, length));
            Some(of(records)? - of(others)?)
        };
        self.with_interval(value, self.draws.par_iter().filter_map(drawn).collect())
    }

    fn with_interval(&self, value: Option<f64>, mut values: Vec<f64>) -> Number {
        values.sort_by(f64::total_cmp);
        let at = |share: f64| values[(share * (values.len() - 1) as f64).round() as usize];
        let is_enough = !values.is_empty() && 2 * values.len() > self.draws.len();
        Number { value, interval: is_enough.then(|| [at(0.025), at(0.975)]), deviation: None }
    }
}

fn drawn_sum(draw: &[u32], records: &[&[f64]], length: usize) -> Vec<f64> {
    sum(draw.iter().map(|&picture| records[picture as usize]), length)
}

fn sum<'a>(records: impl Iterator<Item = &'a [f64]>, length: usize) -> Vec<f64> {
    let mut sums = vec![0.0; length];
    for record in records {
        sums.iter_mut().zip(record).for_each(|(sum, value)| *sum += value);
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(statistic: Statistic, records: &[&[f64]]) -> Number {
        Bootstrap::new(records.len(), 0).number(statistic, records)
    }

    #[test]
    fn sums_come_before_ratios() {
        // 1 of 2 and 6 of 8: 7 of 10, not the mean of 0.5 and 0.75.
        assert_eq!(number(Statistic::Ratio, &[&[1.0, 2.0], &[6.0, 8.0]]).value, Some(0.7));
        // A picture that says nothing takes no part.
        assert_eq!(number(Statistic::Ratio, &[&[3.0, 1.0], &[0.0, 0.0], &[4.0, 1.0]]).value, Some(3.5));
        assert_eq!(Statistic::Ratio.of(&[0.0, 0.0]), None);
    }

    #[test]
    fn harmonic_means_are_those_of_all_pixels() {
        // Precision (1 + 2) ÷ (4 + 2) = 1/2, recall (1 + 2) ÷ (1 + 3) = 3/4: 2 · 3/8 ÷ 5/4 = 0.6.
        let records: [&[f64]; 2] = [&[1.0, 4.0, 1.0, 1.0], &[2.0, 2.0, 2.0, 3.0]];
        assert!((number(Statistic::HarmonicMean, &records).value.unwrap() - 0.6).abs() < 1e-12);
        assert_eq!(Statistic::HarmonicMean.of(&[0.0, 0.0, 0.0, 5.0]), Some(0.0));
        assert_eq!(Statistic::HarmonicMean.of(&[0.0, 3.0, 0.0, 5.0]), Some(0.0));
        assert_eq!(Statistic::HarmonicMean.of(&[0.0; 4]), None);
    }

    #[test]
    fn a_mean_of_ratios_leaves_out_what_is_not_there() {
        assert_eq!(Statistic::MeanOfRatios.of(&[1.0, 2.0, 0.0, 0.0, 3.0, 3.0]), Some(0.75));
        assert_eq!(Statistic::MeanOfRatios.of(&[0.0; 4]), None);
    }

    #[test]
    fn intervals_repeat_and_have_the_width_that_theory_says() {
        let values: Vec<[f64; 2]> = (0..50).map(|index| [f64::from(index * 37 % 50), 1.0]).collect();
        let records: Vec<&[f64]> = values.iter().map(|record| &record[..]).collect();
        let number = number(Statistic::Ratio, &records);
        let [low, high] = number.interval.unwrap();
        // Standard error of the mean of 0 … 49: 14.43 ÷ √50 = 2.04; 1.96 of them are 4.0.
        assert!((24.5 - low - 4.0).abs() < 0.4 && (high - 24.5 - 4.0).abs() < 0.4, "[{low}, {high}]");
        assert_eq!(Bootstrap::new(50, 0).number(Statistic::Ratio, &records), number);
        assert_ne!(Bootstrap::new(50, 1).number(Statistic::Ratio, &records), number);
        assert_eq!(Bootstrap::new(1, 0).number(Statistic::Ratio, &records[..1]).interval, None);
    }

    #[test]
    fn two_pictures_give_the_three_means_that_there_are() {
        // Draws of two of {0, 1}: mean 0 with chance 1/4, 1/2 with 1/2, 1 with 1/4. Both ends are beyond 2.5 %.
        let number = number(Statistic::Ratio, &[&[0.0, 1.0], &[1.0, 1.0]]);
        assert_eq!((number.value, number.interval), (Some(0.5), Some([0.0, 1.0])));
        // A class of one picture in two: a quarter of the draws lack it and are left out.
        let rare = Bootstrap::new(2, 0).number(Statistic::Ratio, &[&[1.0, 4.0], &[0.0, 0.0]]);
        assert_eq!((rare.value, rare.interval), (Some(0.25), Some([0.25, 0.25])));
    }

    #[test]
    fn a_constant_difference_has_no_width() {
        let values: Vec<[f64; 2]> = (0..20).map(|index| [f64::from(index * 7 % 20), 1.0]).collect();
        let more: Vec<[f64; 2]> = values.iter().map(|[value, one]| [value + 0.5, *one]).collect();
        let [records, others] = [&more, &values].map(|all| all.iter().map(|r| &r[..]).collect::<Vec<_>>());
        let found = Bootstrap::new(20, 0).difference(Statistic::Ratio, &records, &others);
        let ends = found.interval.unwrap();
        assert!((found.value.unwrap() - 0.5).abs() < 1e-12);
        assert!(ends.iter().all(|end| (end - 0.5).abs() < 1e-12), "{ends:?}");
        let back = Bootstrap::new(20, 0).difference(Statistic::Ratio, &others, &records);
        assert!((back.value.unwrap() + 0.5).abs() < 1e-12);
    }

    #[test]
    fn numbers_are_written_with_what_is_known_of_them() {
        let number = Number { value: Some(0.12345), interval: Some([0.1, 0.2]), deviation: None };
        assert_eq!(number.text(3), "0.123 [0.100, 0.200]");
        assert_eq!(Number { interval: None, deviation: Some(0.01), ..number }.text(2), "0.12 ± 0.01");
        assert_eq!(Number::default().text(2), "–");
    }
}
