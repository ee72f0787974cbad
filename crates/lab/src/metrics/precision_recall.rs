//! Improved precision and recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020).
//!
//! Around each picture's features lies a ball that reaches to its k-th nearest neighbour of the same set; the balls of a
//! set stand for what is like it. Precision asks how many made pictures are like real ones, recall how many real ones the
//! model could have made.

use faer::{Mat, MatRef};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Features, MetricsError};

/// The usual number of neighbours.
pub const NEIGHBOURS: usize = 3;

/// Pictures whose distances to all others are held at a time.
const BLOCK: usize = 256;

/// Shares of pictures near those of another set.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PrecisionRecall {
    /// Share of the made pictures inside the ball of a real one, in [0, 1].
    pub precision: f64,
    /// Share of the real pictures inside the ball of a made one, in [0, 1].
    pub recall: f64,
    /// How many real pictures' balls a made picture lies in, on average, ÷ k; may exceed 1.
    pub density: f64,
    /// Share of the real pictures with a made one inside their ball, in [0, 1].
    pub coverage: f64,
}

/// Compares two sets by their `neighbours` nearest neighbours. Inside a ball means nearer than its radius.
///
/// # Errors
///
/// [`MetricsError::FeatureMismatch`], [`MetricsError::NotFinite`], and [`MetricsError::TooFewPictures`] when a set has no
/// picture with that many neighbours.
///
/// # Panics
///
/// When `neighbours` is zero.
pub fn precision_recall(
    real: &Features,
    made: &Features,
    neighbours: usize,
) -> Result<PrecisionRecall, MetricsError> {
    assert!(neighbours > 0, "at least one neighbour");
    Features::check_pair(real, made, neighbours + 1)?;
    let (real, made) = (Points::of(real), Points::of(made));
    let (real_radii, made_radii) = (real.radii(neighbours), made.radii(neighbours));
    let mut balls_around_made = vec![0u64; made.count()];
    let (mut recalled, mut covered) = (0u64, 0u64);
    real.distances_to(&made, |index, distances| {
        let radius = real_radii[index];
        for (balls, distance) in balls_around_made.iter_mut().zip(distances) {
            *balls += u64::from(*distance < radius);
        }
        recalled += u64::from(distances.iter().zip(&made_radii).any(|(distance, radius)| distance < radius));
        covered += u64::from(distances.iter().any(|distance| *distance < radius));
    });
    let (real_count, made_count) = (real.count() as f64, made.count() as f64);
    let inside = balls_around_made.iter().filter(|balls| **balls > 0).count();
    Ok(PrecisionRecall {
        precision: inside as f64 / made_count,
        recall: recalled as f64 / real_count,
        density: balls_around_made.iter().sum::<u64>() as f64 / made_count / neighbours as f64,
        coverage: covered as f64 / real_count,
    })
}

/// Features and their squared lengths.
struct Points {
    width: usize,
    values: Vec<f64>,
    squares: Vec<f64>,
}

impl Points {
    fn of(features: &Features) -> Self {
        let (width, values) = (features.width(), features.wide(0..features.count()));
        let squares =
            values.chunks_exact(width).map(|row| row.iter().map(|value| value * value).sum()).collect();
        Self { width, values, squares }
    }

    fn count(&self) -> usize {
        self.squares.len()
    }

    /// Calls `visit` with each of our pictures' index and its squared distances to all of `others`.
    fn distances_to(&self, others: &Self, mut visit: impl FnMut(usize, &[f64])) {
        let all = MatRef::from_row_major_slice(&others.values, others.count(), self.width);
        for (block, rows) in self.values.chunks(BLOCK * self.width).enumerate() {
            let rows = MatRef::from_row_major_slice(rows, rows.len() / self.width, self.width);
            // A column of the product for each of our pictures: |a − b|² = |a|² + |b|² − 2 a · b.
            let products: Mat<f64> = all * rows.transpose();
            let distances: Vec<Vec<f64>> = (0..rows.nrows())
                .into_par_iter()
                .map(|row| {
                    let square = self.squares[block * BLOCK + row];
                    let products = products.col(row);
                    let distance = |(product, other): (&f64, &f64)| (square + other - 2.0 * product).max(0.0);
                    products.iter().zip(&others.squares).map(distance).collect()
                })
                .collect();
            for (row, distances) in distances.iter().enumerate() {
                visit(block * BLOCK + row, distances);
            }
        }
    }

    /// Squared distance of each picture to its `neighbours`-th nearest other one.
    fn radii(&self, neighbours: usize) -> Vec<f64> {
        let mut radii = Vec::with_capacity(self.count());
        self.distances_to(self, |index, distances| {
            let mut others = distances.to_vec();
            others.swap_remove(index);
            let (_, radius, _) = others.select_nth_unstable_by(neighbours - 1, f64::total_cmp);
            radii.push(*radius);
        });
        radii
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(values: &[f32]) -> Features {
        Features::new(1, values.to_vec())
    }

    #[test]
    fn hand_made_neighbours() {
        // Balls of the real ones with k = 1: (-1, 1), (0, 2), (1, 3), (5, 15)… of the made ones: radii 1, 1 and 17.
        let (real, made) = (set(&[0.0, 1.0, 2.0, 10.0]), set(&[0.5, 1.5, 20.0]));
        let found = precision_recall(&real, &made, 1).unwrap();
        // 0.5 lies in the balls around 0 and 1, 1.5 in those around 1 and 2, 20 in none (10 reaches 8 far).
        assert_eq!(found.precision, 2.0 / 3.0);
        assert_eq!(found.density, 4.0 / 3.0);
        assert_eq!(found.coverage, 3.0 / 4.0);
        // The balls around 0.5 and 1.5 hold 0, 1 and 2, the one around 20 reaches 18.5 far and holds 2 and 10.
        assert_eq!(found.recall, 1.0);
    }

    #[test]
    fn sets_apart_share_nothing_and_a_set_is_itself() {
        let near: Vec<f32> = (0..600).map(|index| (index * 37 % 600) as f32).collect();
        let far: Vec<f32> = near.iter().map(|value| value + 10_000.0).collect();
        let apart = precision_recall(&set(&near), &set(&far), NEIGHBOURS).unwrap();
        assert_eq!(apart, PrecisionRecall { precision: 0.0, recall: 0.0, density: 0.0, coverage: 0.0 });
        let same = precision_recall(&set(&near), &set(&near), NEIGHBOURS).unwrap();
        assert_eq!((same.precision, same.recall, same.coverage), (1.0, 1.0, 1.0));
    }

    #[test]
    fn needs_one_picture_more_than_neighbours() {
        let error = MetricsError::TooFewPictures { found: 3, needed: 4 };
        assert_eq!(precision_recall(&set(&[0.0; 4]), &set(&[0.0; 3]), 3), Err(error));
    }
}
