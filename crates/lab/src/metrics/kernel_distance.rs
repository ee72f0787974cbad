//! The kernel distance between two sets of features (KID, Bińkowski et al. 2018).

use faer::{Mat, MatRef};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::{Features, MetricsError};

/// Mean and scatter of the kernel distance over subsets.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct KernelDistance {
    /// Mean over the subsets. It is unbiased, so it may fall a little below zero.
    pub mean: f64,
    /// Standard deviation over the subsets (divided by their number). It says how much one subset scatters, not how
    /// sure the mean is.
    pub deviation: f64,
}

/// Which pictures make the subsets.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct KernelSubsets {
    /// Number of subsets.
    pub count: usize,
    /// Pictures of each set in a subset, drawn without putting back.
    pub size: usize,
    /// The same seed draws the same subsets.
    pub seed: u64,
}

impl KernelSubsets {
    /// The usual 100 subsets of 1000 pictures, or of half the smaller set where there are fewer than 2000.
    pub fn usual(real: &Features, made: &Features) -> Self {
        let half = real.count().min(made.count()) / 2;
        Self { count: 100, size: half.clamp(2, 1000), seed: 0 }
    }

    /// The pictures of each subset, real and made ones.
    fn draw(self, real: usize, made: usize) -> Vec<[Vec<usize>; 2]> {
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        let mut draw = |from: usize| {
            let mut indices: Vec<usize> = (0..from).collect();
            for place in 0..self.size {
                indices.swap(place, random.random_range(place..from));
            }
            indices.truncate(self.size);
            indices
        };
        (0..self.count).map(|_| [draw(real), draw(made)]).collect()
    }
}

/// Kernel distance between two sets over random subsets; of Inception's features it is the KID.
///
/// # Errors
///
/// [`MetricsError::FeatureMismatch`], [`MetricsError::NotFinite`], and [`MetricsError::TooFewPictures`] when a set has fewer
/// pictures than a subset, a subset fewer than two, or there is no subset.
pub fn kernel_distance(
    real: &Features,
    made: &Features,
    subsets: KernelSubsets,
) -> Result<KernelDistance, MetricsError> {
    Features::check_pair(real, made, subsets.size)?;
    kernel_distance_of(real, made, &subsets.draw(real.count(), made.count()))
}

/// [`kernel_distance`] over given subsets: the indices of the real and of the made pictures of each.
///
/// # Errors
///
/// As [`kernel_distance`].
///
/// # Panics
///
/// When there is no picture of an index.
pub fn kernel_distance_of(
    real: &Features,
    made: &Features,
    subsets: &[[Vec<usize>; 2]],
) -> Result<KernelDistance, MetricsError> {
    Features::check_pair(real, made, 2)?;
    let smallest = subsets.iter().flatten().map(Vec::len).min().unwrap_or(0);
    if smallest < 2 {
        return Err(MetricsError::TooFewPictures { found: smallest, needed: 2 });
    }
    let width = real.width();
    let distances: Vec<f64> = subsets
        .iter()
        .map(|[left, right]| {
            let left_values = real.wide(left.iter().copied());
            let right_values = made.wide(right.iter().copied());
            let left = MatRef::from_row_major_slice(&left_values, left.len(), width);
            let right = MatRef::from_row_major_slice(&right_values, right.len(), width);
            within(left) + within(right)
                - 2.0 * kernel_sum(&(left * right.transpose()), width) / pairs(left, right)
        })
        .collect();
    let mean = distances.iter().sum::<f64>() / distances.len() as f64;
    let variance =
        distances.iter().map(|distance| (distance - mean).powi(2)).sum::<f64>() / distances.len() as f64;
    Ok(KernelDistance { mean, deviation: variance.sqrt() })
}

/// Mean kernel of all pairs of two different pictures of one set.
fn within(set: MatRef<f64>) -> f64 {
    let (count, width) = (set.nrows(), set.ncols());
    let products = set * set.transpose();
    let own: f64 = (0..count).map(|index| kernel(products[(index, index)], width)).sum();
    (kernel_sum(&products, width) - own) / (count * (count - 1)) as f64
}

fn pairs(left: MatRef<f64>, right: MatRef<f64>) -> f64 {
    (left.nrows() * right.nrows()) as f64
}

fn kernel_sum(products: &Mat<f64>, width: usize) -> f64 {
    products.col_iter().flat_map(|column| column.iter()).map(|&product| kernel(product, width)).sum()
}

/// The cubic kernel `(x · y / width + 1)³`.
fn kernel(product: f64, width: usize) -> f64 {
    (product / width as f64 + 1.0).powi(3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(values: &[f32]) -> Features {
        Features::new(1, values.to_vec())
    }

    #[test]
    fn hand_made_numbers() {
        // k(1, 2) = 27; k(0, 3) = 1; k(1, 0), k(1, 3), k(2, 0), k(2, 3) = 1, 64, 1, 343.
        let all = [[vec![0, 1], vec![0, 1]]];
        let found = kernel_distance_of(&set(&[1.0, 2.0]), &set(&[0.0, 3.0]), &all).unwrap();
        assert!((found.mean - (27.0 + 1.0 - 2.0 * 409.0 / 4.0)).abs() < 1e-12);
        assert_eq!(found.deviation, 0.0);
    }

    #[test]
    fn subsets_repeat_and_hold_no_picture_twice() {
        let subsets = KernelSubsets { count: 20, size: 5, seed: 3 };
        let drawn = subsets.draw(9, 5);
        assert_eq!(drawn, subsets.draw(9, 5));
        assert_ne!(drawn, KernelSubsets { seed: 4, ..subsets }.draw(9, 5));
        for [real, made] in &drawn {
            let mut sorted = real.clone();
            sorted.sort_unstable();
            sorted.dedup();
            assert!(sorted.len() == 5 && sorted[4] < 9, "{real:?}");
            let mut sorted = made.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2, 3, 4]);
        }
        // Every picture gets its turn.
        assert!((0..9).all(|index| drawn.iter().any(|[real, _]| real.contains(&index))));
    }

    #[test]
    fn the_mean_over_subsets_nears_the_distance_of_the_sets() {
        let real = set(&(0..40).map(|index| (index % 8) as f32 / 4.0).collect::<Vec<_>>());
        let made = set(&(0..30).map(|index| (index % 6) as f32 / 2.0).collect::<Vec<_>>());
        let whole = [[(0..40).collect(), (0..30).collect()]];
        let whole = kernel_distance_of(&real, &made, &whole).unwrap().mean;
        let subsets = KernelSubsets { count: 400, size: 15, seed: 1 };
        let found = kernel_distance(&real, &made, subsets).unwrap();
        let error = found.deviation / (subsets.count as f64).sqrt();
        assert!((found.mean - whole).abs() < 4.0 * error, "{found:?}, {whole}");
        assert_eq!(kernel_distance(&real, &made, subsets), Ok(found));
    }

    #[test]
    fn too_few_pictures_are_an_error() {
        let (real, made) = (set(&[0.0; 5]), set(&[0.0; 4]));
        let subsets = |count, size| KernelSubsets { count, size, seed: 0 };
        let error = |found, needed| Err(MetricsError::TooFewPictures { found, needed });
        assert_eq!(kernel_distance(&real, &made, subsets(3, 5)), error(4, 5));
        assert_eq!(kernel_distance(&real, &made, subsets(3, 1)), error(1, 2));
        assert_eq!(kernel_distance(&real, &made, subsets(0, 3)), error(0, 2));
        assert_eq!(KernelSubsets::usual(&real, &made), subsets(100, 2));
    }
}
