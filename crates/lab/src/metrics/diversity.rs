//! How different several samples of one input are: a model that ignores its random numbers scores 0.

use earthmapper_geo::picture::Picture;

use super::{MetricsError, root_mean_square_error};

/// Mean root mean square error over all pairs of samples, in [0, 1]; 0 means that all samples are the same picture.
///
/// # Errors
///
/// [`MetricsError::TooFewPictures`] for fewer than two samples, [`MetricsError::SizeMismatch`] when they differ in size.
pub fn mean_pairwise_difference(samples: &[Picture]) -> Result<f64, MetricsError> {
    if samples.len() < 2 {
        return Err(MetricsError::TooFewPictures { found: samples.len(), needed: 2 });
    }
    let mut sum = 0.0;
    for (index, left) in samples.iter().enumerate() {
        for right in &samples[index + 1..] {
            sum += root_mean_square_error(left, right)?;
        }
    }
    let pairs = samples.len() * (samples.len() - 1) / 2;
    Ok(sum / pairs as f64)
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
