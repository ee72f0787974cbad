//! The Fréchet distance between two sets of features (FID, Heusel et al. 2017).

use faer::{Mat, MatRef};

use super::{Features, MetricsError};

/// Mean and covariance of a set of features, all that the Fréchet distance needs of it.
#[derive(Clone, Debug)]
pub struct Statistics {
    mean: Vec<f64>,
    /// `[at most width, width]`: the covariance is the product of its transpose and itself.
    factor: Mat<f64>,
}

impl Statistics {
    /// Mean and sample covariance (divided by the number of pictures − 1).
    ///
    /// # Errors
    ///
    /// [`MetricsError::TooFewPictures`] for fewer than two pictures, [`MetricsError::NotFinite`].
    pub fn of(features: &Features) -> Result<Self, MetricsError> {
        features.check(2)?;
        let (count, width) = (features.count(), features.width());
        let mut mean = vec![0.0; width];
        for row in features.rows() {
            mean.iter_mut().zip(row).for_each(|(sum, &value)| *sum += f64::from(value));
        }
        mean.iter_mut().for_each(|sum| *sum /= count as f64);
        let scale = 1.0 / ((count - 1) as f64).sqrt();
        let centred: Vec<f64> = features
            .rows()
            .flat_map(|row| row.iter().zip(&mean).map(|(&value, mean)| (f64::from(value) - mean) * scale))
            .collect();
        let centred = MatRef::from_row_major_slice(&centred, count, width);
        // Of many pictures the triangle of a QR decomposition keeps the same product in fewer rows.
        let factor = if count > width { centred.qr().thin_R().to_owned() } else { centred.to_owned() };
        Ok(Self { mean, factor })
    }
}

/// Fréchet distance `|μ₁ − μ₂|² + tr Σ₁ + tr Σ₂ − 2 tr (Σ₁ Σ₂)^½` between normal distributions of these means and
/// covariances; 0 is identical. Of Inception's features it is the FID.
///
/// With `Σᵢ = Fᵢᵀ Fᵢ` the eigenvalues of `Σ₁ Σ₂` are those of `(F₁ F₂ᵀ)(F₁ F₂ᵀ)ᵀ` and zeros, so that the last trace is the
/// sum of the singular values of `F₁ F₂ᵀ`. No root of a matrix is taken, and nothing is added to singular covariances:
/// the distance is exact for fewer pictures than features too. It is biased there all the same: the fewer pictures, the
/// larger. Compare distances of equally many pictures only.
///
/// # Errors
///
/// [`MetricsError::FeatureMismatch`] when the sets have other numbers of features.
pub fn frechet_distance(real: &Statistics, made: &Statistics) -> Result<f64, MetricsError> {
    let (left, right) = (real.mean.len(), made.mean.len());
    if left != right {
        return Err(MetricsError::FeatureMismatch { left, right });
    }
    let means: f64 = real.mean.iter().zip(&made.mean).map(|(a, b)| (a - b) * (a - b)).sum();
    let traces = real.factor.squared_norm_l2() + made.factor.squared_norm_l2();
    let product = &real.factor * made.factor.transpose();
    let singular = product.singular_values().map_err(|_| MetricsError::NotFinite)?;
    // Rounding may leave identical sets a little below zero.
    Ok((means + traces - 2.0 * singular.iter().sum::<f64>()).max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(width: usize, values: &[f32]) -> Statistics {
        Statistics::of(&Features::new(width, values.to_vec())).unwrap()
    }

    #[test]
    fn one_feature_is_the_distance_of_means_and_deviations() {
        // Means 1 and 4, sample deviations √2 and 3√2.
        let (first, second) = (of(1, &[0.0, 2.0]), of(1, &[1.0, 7.0]));
        let expected = 9.0 + (3.0 * 2f64.sqrt() - 2f64.sqrt()).powi(2);
        assert!((frechet_distance(&first, &second).unwrap() - expected).abs() < 1e-12);
    }

    #[test]
    fn independent_features_add_up_and_a_set_is_itself() {
        // Covariances diag(4/3, 16/3) and diag(16/3, 4/3) around the same mean.
        let (a, b) = (1.0, 2.0);
        let first = of(2, &[a, b, a, -b, -a, b, -a, -b]);
        let second = of(2, &[b, a, b, -a, -b, a, -b, -a]);
        let one = ((16f64 / 3.0).sqrt() - (4f64 / 3.0).sqrt()).powi(2);
        assert!((frechet_distance(&first, &second).unwrap() - 2.0 * one).abs() < 1e-12);
        assert!(frechet_distance(&first, &first).unwrap() < 1e-12);
    }

    #[test]
    fn more_features_than_pictures_is_as_exact_as_fewer() {
        // Constant features add nothing to the distance, and make five pictures fewer than features.
        let rows = |padding: usize, factor: f32, shift: f32| -> Vec<f32> {
            let value = |index: usize| ((index * 7) % 11) as f32 * factor + shift;
            let row =
                |row: usize| [vec![0.0; padding], (0..3).map(|i| value(row * 3 + i)).collect()].concat();
            (0..5).flat_map(row).collect()
        };
        let distance = |padding: usize| {
            let (first, second) = (rows(padding, 1.0, 0.0), rows(padding, 0.5, 1.0));
            frechet_distance(&of(3 + padding, &first), &of(3 + padding, &second)).unwrap()
        };
        assert!(distance(0) > 0.1 && (distance(0) - distance(4)).abs() < 1e-9);
    }

    #[test]
    fn what_cannot_be_measured_is_an_error() {
        let one = Features::new(2, vec![1.0, 2.0]);
        assert_eq!(Statistics::of(&one).unwrap_err(), MetricsError::TooFewPictures { found: 1, needed: 2 });
        let broken = Features::new(1, vec![1.0, f32::NAN]);
        assert_eq!(Statistics::of(&broken).unwrap_err(), MetricsError::NotFinite);
        let error = MetricsError::FeatureMismatch { left: 1, right: 2 };
        assert_eq!(frechet_distance(&of(1, &[0.0, 1.0]), &of(2, &[0.0; 4])), Err(error));
    }
}
