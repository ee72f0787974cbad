//! How different several samples of one input are: a model that ignores its random numbers scores 0.

use earthmapper_geo::picture::Picture;

use super::{MetricsError, root_mean_square_error};
use crate::nets::Lpips;

/// Mean root mean square error over all pairs of samples, in [0, 1]; 0 means that all samples are the same picture.
///
/// # Errors
///
/// [`MetricsError::TooFewPictures`] for fewer than two samples, [`MetricsError::SizeMismatch`] when they differ in size.
pub fn mean_pairwise_difference(samples: &[Picture]) -> Result<f64, MetricsError> {
    let pairs = pairs(samples)?;
    let mut sum = 0.0;
    for (left, right) in &pairs {
        sum += root_mean_square_error(left, right)?;
    }
    Ok(sum / pairs.len() as f64)
}

/// Mean perceptual distance (LPIPS) over all pairs of samples; 0 means that all samples are the same picture.
///
/// # Errors
///
/// As [`mean_pairwise_difference`], and [`MetricsError::TooSmall`].
pub fn mean_pairwise_distance(samples: &[Picture], network: &Lpips) -> Result<f64, MetricsError> {
    let (left, right): (Vec<_>, Vec<_>) =
        pairs(samples)?.into_iter().map(|(left, right)| (left.clone(), right.clone())).unzip();
    let distances = network.distances(&left, &right)?;
    Ok(distances.iter().sum::<f64>() / distances.len() as f64)
}

/// All pairs of two different samples.
fn pairs(samples: &[Picture]) -> Result<Vec<(&Picture, &Picture)>, MetricsError> {
    if samples.len() < 2 {
        return Err(MetricsError::TooFewPictures { found: samples.len(), needed: 2 });
    }
    let with_later = |(index, left)| samples[index + 1..].iter().map(move |right| (left, right));
    Ok(samples.iter().enumerate().flat_map(with_later).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_over_all_pairs() {
        let grey = |value: u8| Picture::filled(4, 3, [value; 3]);
        // Distances 51, 102 and 51 of 255 steps.
        let difference = mean_pairwise_difference(&[grey(0), grey(51), grey(102)]).unwrap();
        assert!((difference - (0.2 + 0.4 + 0.2) / 3.0).abs() < 1e-12);
        assert_eq!(mean_pairwise_difference(&[grey(9), grey(9)]), Ok(0.0));
    }

    #[test]
    fn needs_two_samples_of_one_size() {
        let one = Picture::filled(2, 2, [0; 3]);
        let error = MetricsError::TooFewPictures { found: 1, needed: 2 };
        assert_eq!(mean_pairwise_difference(std::slice::from_ref(&one)), Err(error));
        let other = Picture::filled(2, 1, [0; 3]);
        assert!(mean_pairwise_difference(&[one, other]).is_err());
    }
}
