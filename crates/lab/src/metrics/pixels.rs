//! Pixel scores: root mean square error, peak signal-to-noise ratio and structural similarity.
//!
//! Pictures are read as values in [0, 1], and the three colour channels count alike.

use earthmapper_geo::picture::Picture;

use super::{MetricsError, check_sizes};

/// The score of two identical pictures, in dB, and the highest there is.
///
/// Their true PSNR is infinite, which no mean and no JSON file survives. One 8-bit step in one channel of one pixel
/// of a 256 × 256 picture is 101 dB, so the cap changes nothing else that matters.
pub const MAXIMUM_PSNR: f64 = 100.0;

/// Side of the SSIM window, in pixels.
const SSIM_WINDOW: usize = 7;

/// K₁ and K₂ of the paper.
pub(crate) const SSIM_CONSTANTS: [f64; 2] = [0.01, 0.03];

/// Side of the SSIM window in a picture of this size.
pub(crate) fn ssim_window(width: usize, height: usize) -> usize {
    let fits = SSIM_WINDOW.min(width).min(height);
    if fits % 2 == 1 { fits } else { fits - 1 }
}

fn mean_square_error(prediction: &Picture, truth: &Picture) -> Result<f64, MetricsError> {
    check_sizes(prediction, truth)?;
    // Runs short enough for sums of 32 bits, of which a processor adds many at a time.
    const RUN: usize = 1 << 14;
    let square = |(&left, &right): (&u8, &u8)| u32::from(left.abs_diff(right)).pow(2);
    let runs = prediction.rgb().chunks(RUN).zip(truth.rgb().chunks(RUN));
    let squares: u64 =
        runs.map(|(left, right)| u64::from(left.iter().zip(right).map(square).sum::<u32>())).sum();
    Ok(squares as f64 / (255.0 * 255.0) / truth.rgb().len() as f64)
}

/// Root mean square error of the pixel values, in [0, 1]; 0 is identical.
///
/// # Errors
///
/// [`MetricsError::SizeMismatch`].
pub fn root_mean_square_error(prediction: &Picture, truth: &Picture) -> Result<f64, MetricsError> {
    Ok(mean_square_error(prediction, truth)?.sqrt())
}

/// Peak signal-to-noise ratio `−10 · log₁₀(mean square error)`, in dB, in [0, [`MAXIMUM_PSNR`]]; higher is closer.
///
/// # Errors
///
/// [`MetricsError::SizeMismatch`].
pub fn peak_signal_to_noise_ratio(prediction: &Picture, truth: &Picture) -> Result<f64, MetricsError> {
    let error = mean_square_error(prediction, truth)?;
    Ok(if error == 0.0 { MAXIMUM_PSNR } else { (-10.0 * error.log10()).clamp(0.0, MAXIMUM_PSNR) })
}

/// Structural similarity (Wang et al. 2004), in [−1, 1]; 1 is identical.
///
/// The variant is scikit-image's default, `structural_similarity(…, channel_axis=2, data_range=1)`: a uniform window of
/// 7 × 7 pixels, sample covariance, windows that lie wholly inside the picture, mean of the three channels. The
/// Gaussian window (σ = 1.5) of the original paper scores a blank map 0.04 higher on the New York pairs, so numbers
/// of the two variants must not be compared.
///
/// In a picture narrower or lower than 7 pixels, where scikit-image refuses, the window is the largest odd square
/// that fits.
///
/// # Errors
///
/// [`MetricsError::SizeMismatch`].
pub fn structural_similarity(prediction: &Picture, truth: &Picture) -> Result<f64, MetricsError> {
    check_sizes(prediction, truth)?;
    let (width, height) = (truth.width() as usize, truth.height() as usize);
    let window = ssim_window(width, height);
    let sum: f64 = (0..3)
        .map(|channel| channel_similarity(prediction.rgb(), truth.rgb(), channel, (width, height), window))
        .sum();
    Ok(sum / 3.0)
}

/// Sums of x, y, x², y² and xy. Whole numbers: adding a pixel and taking it away again leaves no rounding behind.
#[derive(Clone, Copy, Default)]
struct Moments([i64; 5]);

impl Moments {
    fn of(x: u8, y: u8) -> Self {
        let (x, y) = (i64::from(x), i64::from(y));
        Self([x, y, x * x, y * y, x * y])
    }

    fn add(&mut self, other: Self) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, value)| *sum += value);
    }

    fn subtract(&mut self, other: Self) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, value)| *sum -= value);
    }

    /// SSIM of a window of `count` pixels with values 0 … 255.
    fn similarity(self, count: f64) -> f64 {
        const STABILISE_MEANS: f64 = (SSIM_CONSTANTS[0] * 255.0) * (SSIM_CONSTANTS[0] * 255.0);
        const STABILISE_VARIANCES: f64 = (SSIM_CONSTANTS[1] * 255.0) * (SSIM_CONSTANTS[1] * 255.0);
        let [x, y, xx, yy, xy] = self.0.map(|sum| sum as f64 / count);
        let sample = if count > 1.0 { count / (count - 1.0) } else { 1.0 };
        let (variance_x, variance_y) = (sample * (xx - x * x), sample * (yy - y * y));
        let covariance = sample * (xy - x * y);
        ((2.0 * x * y + STABILISE_MEANS) * (2.0 * covariance + STABILISE_VARIANCES))
            / ((x * x + y * y + STABILISE_MEANS) * (variance_x + variance_y + STABILISE_VARIANCES))
    }
}

/// Mean SSIM of one channel. A window slides over sums of columns, so its size costs nothing.
fn channel_similarity(
    left: &[u8],
    right: &[u8],
    channel: usize,
    (width, height): (usize, usize),
    window: usize,
) -> f64 {
    let moments = |x: usize, y: usize| {
        let index = (y * width + x) * 3 + channel;
        Moments::of(left[index], right[index])
    };
    let mut columns = vec![Moments::default(); width];
    let mut total = 0.0;
    for y in 0..height {
        for (x, column) in columns.iter_mut().enumerate() {
            column.add(moments(x, y));
            if y >= window {
                column.subtract(moments(x, y - window));
            }
        }
        if y + 1 < window {
            continue;
        }
        let mut sums = Moments::default();
        for x in 0..width {
            sums.add(columns[x]);
            if x >= window {
                sums.subtract(columns[x - window]);
            }
            if x + 1 >= window {
                total += sums.similarity((window * window) as f64);
            }
        }
    }
    total / ((width - window + 1) * (height - window + 1)) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A picture with structure and colour that another language draws alike.
    fn waves(width: u32, height: u32) -> Picture {
        Picture::drawn(width, height, |x, y| {
            [(x * 7 + y * 3) % 256, (x * x + y * 5) % 256, (x * y + 40) % 256].map(|value| value as u8)
        })
    }

    /// The same, disturbed by up to 30 steps.
    fn disturbed(width: u32, height: u32) -> Picture {
        let mut picture = waves(width, height);
        for (index, value) in picture.rgb_mut().iter_mut().enumerate() {
            *value = value.saturating_add((index * 37 % 31) as u8);
        }
        picture
    }

    #[test]
    fn agrees_with_scikit_image() {
        // scikit-image 0.26 on the same formulas: (width, height, RMSE, PSNR, SSIM).
        for (width, height, rmse, psnr, ssim) in REFERENCE {
            let (left, right) = (disturbed(width, height), waves(width, height));
            assert!((root_mean_square_error(&left, &right).unwrap() - rmse).abs() < 1e-9);
            assert!((peak_signal_to_noise_ratio(&left, &right).unwrap() - psnr).abs() < 1e-7);
            let found = structural_similarity(&left, &right).unwrap();
            assert!((found - ssim).abs() < 1e-9, "{width} × {height}: {found}, not {ssim}");
        }
    }

    const REFERENCE: [(u32, u32, f64, f64, f64); 3] = [
        (64, 48, 0.0666302875159, 23.5265662541, 0.948549828456),
        (7, 7, 0.0684589864303, 23.291390702, 0.768341616588),
        (31, 100, 0.0666190501032, 23.528031281, 0.946228913619),
    ];

    #[test]
    fn identical_pictures_score_the_cap() {
        for (width, height) in [(1, 1), (2, 5), (7, 7), (33, 20)] {
            let picture = waves(width, height);
            assert_eq!(root_mean_square_error(&picture, &picture), Ok(0.0));
            assert_eq!(peak_signal_to_noise_ratio(&picture, &picture), Ok(MAXIMUM_PSNR));
            assert!((structural_similarity(&picture, &picture).unwrap() - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn black_against_white_scores_nothing() {
        let (black, white) = (Picture::filled(1, 1, [0; 3]), Picture::filled(1, 1, [255; 3]));
        assert_eq!(root_mean_square_error(&black, &white), Ok(1.0));
        assert_eq!(peak_signal_to_noise_ratio(&black, &white), Ok(0.0));
        assert!(structural_similarity(&black, &white).unwrap() < 1e-3);
    }

    #[test]
    fn other_sizes_are_an_error() {
        let (left, right) = (waves(8, 9), waves(9, 8));
        let error = MetricsError::SizeMismatch { left: (8, 9), right: (9, 8) };
        assert_eq!(root_mean_square_error(&left, &right), Err(error.clone()));
        assert_eq!(structural_similarity(&left, &right), Err(error.clone()));
        assert_eq!(error.to_string(), "cannot compare a picture of 8 × 9 pixels with one of 9 × 8");
    }
}
