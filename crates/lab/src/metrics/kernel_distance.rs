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
    let entries = |left: usize, right: usize| left * left + right * right + left * right;
    let (whole, parts) = (
        entries(real.count(), made.count()),
        subsets.iter().map(|[left, right]| entries(left.len(), right.len())).sum::<usize>(),
    );
    let all = |count: usize| (0..count).collect::<Vec<usize>>();
    let distances: Vec<f64> = if whole <= parts.min(MOST_KERNELS) {
        let (left, right) = (all(real.count()), all(made.count()));
        let kernels = Kernels::of([real, made], [&left, &right]);
        subsets.iter().map(|[left, right]| kernels.distance(left, right)).collect()
    } else {
        let distance = |[left, right]: &[Vec<usize>; 2]| {
            Kernels::of([real, made], [left, right]).distance(&all(left.len()), &all(right.len()))
        };
        subsets.iter().map(distance).collect()
    };
    let mean = distances.iter().sum::<f64>() / distances.len() as f64;
    let variance =
        distances.iter().map(|distance| (distance - mean).powi(2)).sum::<f64>() / distances.len() as f64;
    Ok(KernelDistance { mean, deviation: variance.sqrt() })
}

/// Most kernels that are kept for all subsets together: 256 MB of them.
const MOST_KERNELS: usize = 32 << 20;

/// The kernels of all pairs of some pictures.
struct Kernels {
    real: Mat<f64>,
    made: Mat<f64>,
    across: Mat<f64>,
}

impl Kernels {
    fn of([real, made]: [&Features; 2], [left, right]: [&[usize]; 2]) -> Self {
        let width = real.width();
        let (left_values, right_values) = (real.wide(left.iter().copied()), made.wide(right.iter().copied()));
        let left = MatRef::from_row_major_slice(&left_values, left.len(), width);
        let right = MatRef::from_row_major_slice(&right_values, right.len(), width);
        let kernels = |a: MatRef<f64>, b: MatRef<f64>| {
            let mut products = a * b.transpose();
            for column in products.col_iter_mut() {
                column.iter_mut().for_each(|product| *product = kernel(*product, width));
            }
            products
        };
        Self { real: kernels(left, left), made: kernels(right, right), across: kernels(left, right) }
    }

    /// The distance between two subsets, by their rows in the matrices.
    fn distance(&self, left: &[usize], right: &[usize]) -> f64 {
        let sum = |kernels: &Mat<f64>, rows: &[usize], columns: &[usize]| -> f64 {
            columns.iter().map(|&column| rows.iter().map(|&row| kernels[(row, column)]).sum::<f64>()).sum()
        };
        // The mean over all pairs of two different pictures.
        let within = |kernels: &Mat<f64>, set: &[usize]| {
            let own: f64 = set.iter().map(|&index| kernels[(index, index)]).sum();
            (sum(kernels, set, set) - own) / (set.len() * (set.len() - 1)) as f64
        };
        let pairs = (left.len() * right.len()) as f64;
        within(&self.real, left) + within(&self.made, right) - 2.0 * sum(&self.across, left, right) / pairs
    }
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
    fn one_subset_alone_and_among_many_are_the_same() {
        let values =
            |count: usize, step: f32| (0..count).map(|i| (i as f32 * step).sin()).collect::<Vec<_>>();
        let (real, made) = (set(&values(12, 0.7)), set(&values(10, 1.3)));
        let one = [vec![3, 1, 8, 11], vec![0, 9, 4]];
        // Alone the kernels of its own pictures are cheaper, among many those of all pictures.
        let alone = kernel_distance_of(&real, &made, std::slice::from_ref(&one)).unwrap();
        let many = kernel_distance_of(&real, &made, &vec![one; 40]).unwrap();
        assert!((alone.mean - many.mean).abs() < 1e-12 && many.deviation < 1e-12, "{alone:?}, {many:?}");
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
