//! All scores of satellite → map over a whole set: gather them with [`MapScores`], read them from [`MapSummary`].

use std::fmt;

use earthmapper_geo::picture::Picture;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::{
    Confusion, MetricsError, Palette, ROAD_TOLERANCE, RoadMatches, peak_signal_to_noise_ratio,
    root_mean_square_error, structural_similarity,
};

/// Resamples of a bootstrap interval.
const RESAMPLES: usize = 2000;

/// Seed of the intervals in a summary: the same scores give the same interval.
const SUMMARY_SEED: u64 = 0;

/// The blank map that every model must beat: one colour everywhere.
///
/// # Panics
///
/// When a side is zero.
pub fn blank_map(width: u32, height: u32, colour: [u8; 3]) -> Picture {
    Picture::filled(width, height, colour)
}

/// Median of each channel over all pixels of all maps (the lower one of two middle values); none without a map.
pub fn median_colour(maps: impl IntoIterator<Item = Picture>) -> Option<[u8; 3]> {
    let mut counts = [[0u64; 256]; 3];
    for map in maps {
        for pixel in map.rgb().chunks_exact(3) {
            counts.iter_mut().zip(pixel).for_each(|(counts, &value)| counts[usize::from(value)] += 1);
        }
    }
    let pixels: u64 = counts[0].iter().sum();
    (pixels > 0).then(|| {
        counts.map(|counts| {
            let mut below = 0;
            let median = counts.iter().position(|count| {
                below += count;
                below * 2 >= pixels
            });
            median.expect("the counts add up to all pixels") as u8
        })
    })
}

/// 95 % interval of the mean of `values`, by a seeded percentile bootstrap; none for fewer than two values.
pub fn bootstrap_interval(values: &[f64], seed: u64) -> Option<[f64; 2]> {
    if values.len() < 2 {
        return None;
    }
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut means: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let sum: f64 = values.iter().map(|_| values[random.random_range(0..values.len())]).sum();
            sum / values.len() as f64
        })
        .collect();
    means.sort_by(f64::total_cmp);
    let at = |share: f64| means[(share * (RESAMPLES - 1) as f64).round() as usize];
    Some([at(0.025), at(0.975)])
}

/// The scores of one predicted map.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PictureScores {
    /// Peak signal-to-noise ratio in dB, in [0, 100].
    pub psnr: f64,
    /// Structural similarity, in [−1, 1].
    pub ssim: f64,
    /// Root mean square error, in [0, 1].
    pub rmse: f64,
    /// Pixels by true and predicted class.
    pub confusion: Confusion,
    /// Road pixels within [`ROAD_TOLERANCE`].
    pub roads: RoadMatches,
}

impl PictureScores {
    /// Compares a predicted map with the true one.
    ///
    /// # Errors
    ///
    /// [`MetricsError::SizeMismatch`].
    pub fn measure(palette: &Palette, prediction: &Picture, truth: &Picture) -> Result<Self, MetricsError> {
        let (psnr, ssim) =
            (peak_signal_to_noise_ratio(prediction, truth)?, structural_similarity(prediction, truth)?);
        let rmse = root_mean_square_error(prediction, truth)?;
        let (prediction, truth) = (palette.classify(prediction), palette.classify(truth));
        Ok(Self {
            psnr,
            ssim,
            rmse,
            confusion: Confusion::between(palette, &prediction, &truth)?,
            roads: RoadMatches::between(palette, &prediction, &truth, ROAD_TOLERANCE)?,
        })
    }
}

/// The scores of a set of predicted maps, picture by picture, in the order they came.
///
/// Worker threads may fill one each; [`MapScores::merge`] joins them.
#[derive(Clone, Debug, PartialEq)]
pub struct MapScores {
    palette: Palette,
    pictures: Vec<PictureScores>,
}

impl MapScores {
    /// No picture yet.
    pub fn new(palette: Palette) -> Self {
        Self { palette, pictures: Vec::new() }
    }

    /// Measures one predicted map and returns its own scores.
    ///
    /// # Errors
    ///
    /// [`MetricsError::SizeMismatch`]; the pair is not counted then.
    pub fn add(&mut self, prediction: &Picture, truth: &Picture) -> Result<PictureScores, MetricsError> {
        let scores = PictureScores::measure(&self.palette, prediction, truth)?;
        self.pictures.push(scores.clone());
        Ok(scores)
    }

    /// Appends the pictures of another set.
    ///
    /// # Errors
    ///
    /// [`MetricsError::PaletteMismatch`].
    pub fn merge(&mut self, other: Self) -> Result<(), MetricsError> {
        if self.palette != other.palette {
            return Err(MetricsError::PaletteMismatch);
        }
        self.pictures.extend(other.pictures);
        Ok(())
    }

    /// The palette that tells the classes apart.
    pub fn palette(&self) -> &Palette {
        &self.palette
    }

    /// The scores of each picture.
    pub fn pictures(&self) -> &[PictureScores] {
        &self.pictures
    }

    /// Sums everything up.
    ///
    /// # Errors
    ///
    /// [`MetricsError::TooFewPictures`] without a picture.
    pub fn summary(&self) -> Result<MapSummary, MetricsError> {
        if self.pictures.is_empty() {
            return Err(MetricsError::TooFewPictures { found: 0, needed: 1 });
        }
        let mean_of =
            |score: fn(&PictureScores) -> f64| Mean::of(&self.pictures.iter().map(score).collect::<Vec<_>>());
        let mut confusion = Confusion::new(self.palette.classes().len());
        let mut roads = RoadMatches::default();
        for picture in &self.pictures {
            confusion.add(&picture.confusion)?;
            roads.add(&picture.roads);
        }
        let classes: Vec<ClassSummary> =
            (0..self.palette.classes().len()).map(|class| self.class_summary(class, &confusion)).collect();
        Ok(MapSummary {
            pictures: self.pictures.len(),
            psnr: mean_of(|picture| picture.psnr),
            ssim: mean_of(|picture| picture.ssim),
            rmse: mean_of(|picture| picture.rmse),
            class_accuracy: confusion.accuracy(),
            mean_intersection_over_union: mean(
                classes.iter().filter_map(|class| class.intersection_over_union),
            ),
            classes,
            roads: RoadSummary {
                precision: roads.precision(),
                recall: roads.recall(),
                f1: roads.f1(),
                tolerance: ROAD_TOLERANCE,
            },
            confusion,
        })
    }

    fn class_summary(&self, class: usize, confusion: &Confusion) -> ClassSummary {
        let pixels = confusion.pixels() as f64;
        let of_pictures =
            self.pictures.iter().filter_map(|picture| picture.confusion.intersection_over_union(class));
        ClassSummary {
            name: self.palette.classes()[class].name.clone(),
            intersection_over_union: confusion.intersection_over_union(class),
            mean_of_pictures: mean(of_pictures),
            truth_share: confusion.truth(class) as f64 / pixels,
            predicted_share: confusion.predicted(class) as f64 / pixels,
        }
    }
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0u32);
    for value in values {
        sum += value;
        count += 1;
    }
    (count > 0).then(|| sum / f64::from(count))
}

/// A mean over pictures and how far to trust it.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Mean {
    /// The mean.
    pub mean: f64,
    /// 95 % bootstrap interval of the mean, lower and upper end; none for a single picture.
    pub interval: Option<[f64; 2]>,
}

impl Mean {
    /// Mean and interval of at least one value.
    pub(crate) fn of(values: &[f64]) -> Self {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        Self { mean, interval: bootstrap_interval(values, SUMMARY_SEED) }
    }
}

/// One map class over a set.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ClassSummary {
    /// Name in the palette.
    pub name: String,
    /// Intersection over union of all pixels of the set, in [0, 1]; none when neither side has the class.
    pub intersection_over_union: Option<f64>,
    /// Mean of the pictures' own intersections over unions, over the pictures where either side has the class.
    pub mean_of_pictures: Option<f64>,
    /// Share of the true pixels, in [0, 1].
    pub truth_share: f64,
    /// Share of the predicted pixels, in [0, 1].
    pub predicted_share: f64,
}

/// Road pixels over a set.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RoadSummary {
    /// Share of the predicted road pixels near a true one, in [0, 1]; none without predicted roads.
    pub precision: Option<f64>,
    /// Share of the true road pixels near a predicted one, in [0, 1]; none without true roads.
    pub recall: Option<f64>,
    /// Harmonic mean of the two, in [0, 1]; none without any road.
    pub f1: Option<f64>,
    /// What near means, in pixels.
    pub tolerance: usize,
}

/// All scores of a set of predicted maps. `Display` writes the table, serde the JSON.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct MapSummary {
    /// How many pictures.
    pub pictures: usize,
    /// Peak signal-to-noise ratio in dB: the mean of the pictures' own, not that of the mean error.
    pub psnr: Mean,
    /// Structural similarity, in [−1, 1].
    pub ssim: Mean,
    /// Root mean square error, in [0, 1].
    pub rmse: Mean,
    /// Share of the pixels whose class is right, in [0, 1].
    pub class_accuracy: Option<f64>,
    /// Mean over the classes that occur, in [0, 1].
    pub mean_intersection_over_union: Option<f64>,
    /// Each class of the palette.
    pub classes: Vec<ClassSummary>,
    /// Roads within the tolerance.
    pub roads: RoadSummary,
    /// Pixels of the whole set, `[true class, predicted class]`.
    pub confusion: Confusion,
}

impl MapSummary {
    /// The class of this name.
    pub fn class(&self, name: &str) -> Option<&ClassSummary> {
        self.classes.iter().find(|class| class.name == name)
    }

    /// Label and value of each row of the table.
    fn rows(&self) -> Vec<(String, String)> {
        let interval = |score: &Mean, digits: usize| match score.interval {
            Some([low, high]) => format!("{:.digits$} [{low:.digits$}, {high:.digits$}]", score.mean),
            None => format!("{:.digits$}", score.mean),
        };
        let number = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| format!("{value:.3}"));
        let mut rows = vec![
            ("pictures".to_owned(), self.pictures.to_string()),
            ("PSNR (dB)".to_owned(), interval(&self.psnr, 2)),
            ("SSIM".to_owned(), interval(&self.ssim, 3)),
            ("RMSE".to_owned(), interval(&self.rmse, 4)),
        ];
        for class in &self.classes {
            rows.push((format!("IoU {}", class.name), number(class.intersection_over_union)));
        }
        let roads = &self.roads;
        rows.push(("IoU mean".to_owned(), number(self.mean_intersection_over_union)));
        rows.push(("class accuracy".to_owned(), number(self.class_accuracy)));
        rows.push((format!("road precision, {} px", roads.tolerance), number(roads.precision)));
        rows.push((format!("road recall, {} px", roads.tolerance), number(roads.recall)));
        rows.push((format!("road F1, {} px", roads.tolerance), number(roads.f1)));
        rows
    }
}

impl fmt::Display for MapSummary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.rows();
        let width = rows.iter().map(|(label, _)| label.chars().count()).max().unwrap_or(0);
        for (label, value) in rows {
            writeln!(formatter, "{label:width$}  {value}")?;
        }
        Ok(())
    }
}

/// The summaries side by side, one column each, as a Markdown table that also reads as plain text. All of them must
/// have been measured with one palette: the first one's labels stand for all.
pub fn comparison_table(summaries: &[(&str, &MapSummary)]) -> String {
    let mut columns: Vec<Vec<String>> = Vec::new();
    for (name, summary) in summaries {
        let (labels, values): (Vec<_>, Vec<_>) = summary.rows().into_iter().unzip();
        if columns.is_empty() {
            columns.push(std::iter::once(String::new()).chain(labels).collect());
        }
        columns.push(std::iter::once((*name).to_owned()).chain(values).collect());
    }
    let width_of = |column: &Vec<String>| column.iter().map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = columns.iter().map(width_of).collect();
    let rows = columns.iter().map(Vec::len).min().unwrap_or(0);
    let mut table = String::new();
    for row in 0..rows {
        for (column, width) in columns.iter().zip(&widths) {
            table += &format!("| {:width$} ", column[row]);
        }
        table += "|\n";
        if row == 0 {
            for width in &widths {
                table += &format!("|{}", "-".repeat(width + 2));
            }
            table += "|\n";
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAND: [u8; 3] = [233, 229, 220];
    const WATER: [u8; 3] = [179, 209, 254];

    fn shore(column: u32) -> Picture {
        Picture::drawn(16, 16, |x, _| if x < column { WATER } else { LAND })
    }

    #[test]
    fn sums_pixels_of_the_set_and_averages_pictures() {
        let mut scores = MapScores::new(Palette::new_york());
        scores.add(&shore(4), &shore(8)).unwrap();
        scores.add(&shore(2), &shore(2)).unwrap();
        let summary = scores.summary().unwrap();
        let water = summary.class("water").unwrap();
        assert_eq!(water.intersection_over_union, Some(6.0 / 10.0));
        assert_eq!(water.mean_of_pictures, Some(0.75));
        assert!((water.truth_share - 10.0 / 32.0).abs() < 1e-12);
        assert!((water.predicted_share - 6.0 / 32.0).abs() < 1e-12);
        assert_eq!(summary.class("park").unwrap().intersection_over_union, None);
        assert_eq!(summary.roads.f1, None);
        assert_eq!(summary.pictures, 2);
        assert!(summary.psnr.mean > 50.0 && summary.psnr.mean.is_finite());
        let table = summary.to_string();
        assert!(table.contains("IoU water             0.600\n"), "{table}");
        assert!(table.contains("road F1, 2 px         –\n"), "{table}");
    }

    #[test]
    fn merging_equals_adding() {
        let pairs = [(shore(4), shore(8)), (shore(2), shore(2)), (shore(9), shore(3))];
        let mut together = MapScores::new(Palette::new_york());
        let mut parts = [MapScores::new(Palette::new_york()), MapScores::new(Palette::new_york())];
        for (index, (prediction, truth)) in pairs.iter().enumerate() {
            together.add(prediction, truth).unwrap();
            parts[index / 2].add(prediction, truth).unwrap();
        }
        let [mut first, second] = parts;
        first.merge(second).unwrap();
        assert_eq!(first.summary(), together.summary());
        let other = MapScores::new(Palette::measure([shore(8)]).unwrap());
        assert_eq!(first.merge(other), Err(MetricsError::PaletteMismatch));
    }

    #[test]
    fn bad_pairs_are_not_counted() {
        let mut scores = MapScores::new(Palette::new_york());
        assert!(scores.add(&shore(4), &Picture::filled(16, 15, LAND)).is_err());
        assert_eq!(scores.summary(), Err(MetricsError::TooFewPictures { found: 0, needed: 1 }));
        let pixel = Picture::filled(1, 1, LAND);
        scores.add(&pixel, &pixel).unwrap();
        let summary = scores.summary().unwrap();
        assert_eq!((summary.psnr.mean, summary.psnr.interval), (100.0, None));
    }

    #[test]
    fn a_summary_survives_json() {
        let mut scores = MapScores::new(Palette::new_york());
        scores.add(&shore(4), &shore(8)).unwrap();
        scores.add(&shore(8), &shore(8)).unwrap();
        let summary = scores.summary().unwrap();
        let text = serde_json::to_string_pretty(&summary).unwrap();
        let again: MapSummary = serde_json::from_str(&text).unwrap();
        assert_eq!(again.confusion, summary.confusion);
        assert_eq!(again.to_string(), summary.to_string());
        let table = comparison_table(&[("model", &summary), ("blank map", &again)]);
        assert!(table.lines().all(|line| line.starts_with('|') && line.ends_with('|')), "{table}");
        assert!(table.lines().next().unwrap().contains("blank map"));
        assert_eq!(comparison_table(&[]), "");
    }

    #[test]
    fn the_interval_holds_the_mean_and_repeats() {
        let values: Vec<f64> = (0..50).map(|index| f64::from(index * 37 % 50)).collect();
        let [low, high] = bootstrap_interval(&values, 7).unwrap();
        // Standard error of the mean: 14.43 / √50 = 2.04.
        assert!((24.5 - low - 4.0).abs() < 0.8 && (high - 24.5 - 4.0).abs() < 0.8, "[{low}, {high}]");
        assert_eq!(bootstrap_interval(&values, 7), Some([low, high]));
        assert_eq!(bootstrap_interval(&[1.0], 7), None);
    }

    #[test]
    fn the_median_colour_ignores_the_few() {
        assert_eq!(median_colour([shore(3), shore(7)]), Some(LAND));
        assert_eq!(median_colour([]), None);
        assert_eq!(blank_map(2, 1, LAND).rgb(), [233, 229, 220, 233, 229, 220]);
    }
}
