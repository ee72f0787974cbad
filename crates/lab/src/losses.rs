//! The transformer's loss (Eq. 11) and the pixel losses of the tokenizer.

use burn::tensor::activation::log_softmax;
use burn::tensor::module::avg_pool2d;
use burn::tensor::ops::AvgPoolOptions;
use burn::tensor::{Int, Tensor};

use crate::metrics::pixels::{SSIM_CONSTANTS, ssim_window};

/// Cross-entropy of each row, `[rows, vocabulary]` and targets `[rows]` → `[rows]`, in nats.
///
/// With label smoothing ε the target is 1 − ε of the right code and ε spread evenly over all codes.
pub fn cross_entropy(logits: Tensor<2>, targets: Tensor<1, Int>, smoothing: f64) -> Tensor<1> {
    let [rows, _] = logits.dims();
    let log_probabilities = log_softmax(logits, 1);
    let right = log_probabilities.clone().gather(1, targets.reshape([rows, 1])).reshape([rows]).neg();
    if smoothing == 0.0 {
        return right;
    }
    let even = log_probabilities.mean_dim(1).reshape([rows]).neg();
    right.mul_scalar(1.0 - smoothing) + even.mul_scalar(smoothing)
}

/// Mean absolute difference of the horizontal and vertical steps between neighbouring pixels: a cheap term that keeps
/// thin roads and outlines sharp where absolute differences alone would blur them.
pub fn edge_loss(a: Tensor<4>, b: Tensor<4>) -> Tensor<1> {
    let difference = a - b;
    let [_, _, height, width] = difference.dims();
    let across = difference.clone().narrow(3, 1, width - 1) - difference.clone().narrow(3, 0, width - 1);
    let down = difference.clone().narrow(2, 1, height - 1) - difference.narrow(2, 0, height - 1);
    across.abs().mean() + down.abs().mean()
}

/// 1 − SSIM of each picture, `[batch, channels, h, w]` in [−1, 1] → `[batch]`: the variant that is measured
/// ([`structural_similarity`](crate::metrics::pixels::structural_similarity)), with its window and its constants.
pub fn structural_dissimilarity(a: Tensor<4>, b: Tensor<4>) -> Tensor<1> {
    let [batch, channels, height, width] = a.dims();
    let window = ssim_window(width, height);
    let count = (window * window) as f64;
    let sample = if count > 1.0 { count / (count - 1.0) } else { 1.0 };
    // From [−1, 1] to [0, 1].
    let (a, b) = (a.add_scalar(1.0).mul_scalar(0.5), b.add_scalar(1.0).mul_scalar(0.5));
    let products = [a.clone().square(), b.clone().square(), a.clone() * b.clone()];
    let maps = Tensor::cat([a, b].into_iter().chain(products).collect(), 0);
    // A square window is a row's and a column's.
    let rows = avg_pool2d(maps, AvgPoolOptions::new([1, window]).with_stride([1, 1]));
    let means = avg_pool2d(rows, AvgPoolOptions::new([window, 1]).with_stride([1, 1]));
    let [a, b, aa, bb, ab] = means.chunk(5, 0).try_into().expect("five chunks");
    let [stabilise_means, stabilise_variances] = SSIM_CONSTANTS.map(|constant| constant * constant);
    let (squares, product) = (a.clone().square() + b.clone().square(), a * b);
    let variances = (aa + bb - squares.clone()).mul_scalar(sample).add_scalar(stabilise_variances);
    let covariance = (ab - product.clone()).mul_scalar(2.0 * sample).add_scalar(stabilise_variances);
    let similarity = product.mul_scalar(2.0).add_scalar(stabilise_means) * covariance
        / (squares.add_scalar(stabilise_means) * variances);
    let positions = channels * (height - window + 1) * (width - window + 1);
    similarity.reshape([batch, positions]).mean_dim(1).reshape([batch]).neg().add_scalar(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::pixels::structural_similarity;
    use burn::tensor::Device;
    use earthmapper::pictures::to_tensor;
    use earthmapper_geo::picture::Picture;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn structural_dissimilarity_is_what_is_measured() {
        let mut random = ChaCha8Rng::seed_from_u64(5);
        for (width, height) in [(64, 48), (7, 7), (31, 100), (5, 9), (1, 1)] {
            let mut noise = |base: &Picture, by: u8| {
                let mut picture = base.clone();
                for value in picture.rgb_mut() {
                    *value = value.saturating_add(random.random_range(0..=by));
                }
                picture
            };
            let plain = Picture::filled(width, height, [0, 10, 20]);
            let truth = [noise(&plain, 255), noise(&plain, 40), plain.clone()];
            let made = [noise(&truth[0], 60), noise(&truth[1], 3), noise(&plain, 5)];
            let loss = structural_dissimilarity(
                to_tensor(&made, &Device::flex()),
                to_tensor(&truth, &Device::flex()),
            );
            let loss = loss.try_into_vec_as::<f32>().unwrap();
            assert_eq!(loss.len(), 3);
            for ((made, truth), loss) in made.iter().zip(&truth).zip(loss) {
                let measured = 1.0 - structural_similarity(made, truth).unwrap();
                assert!(
                    (f64::from(loss) - measured).abs() < 1e-4,
                    "{width} × {height}: {loss}, not {measured}"
                );
            }
        }
    }

    #[test]
    fn structural_dissimilarity_has_a_gradient_everywhere() {
        let device = Device::flex().autodiff();
        let of = |value: f32| Tensor::<4>::full([2, 3, 16, 12], value, &device);
        for (made, truth) in [(0.3, 0.3), (-1.0, -1.0), (1.0, -1.0), (0.0, 0.7), (1.5, 1.0)] {
            let made = of(made).require_grad();
            let loss = structural_dissimilarity(made.clone(), of(truth));
            let gradients = loss.clone().sum().backward();
            let gradient = made.grad(&gradients).unwrap().try_into_vec_as::<f32>().unwrap();
            assert!(gradient.iter().all(|value| value.is_finite()), "{truth}");
            assert!(loss.try_into_vec_as::<f32>().unwrap().iter().all(|loss| (-1e-4..=2.0).contains(loss)));
        }
        // Down the gradient pictures become more alike.
        let texture = |shift: usize| {
            let values: Vec<f32> = (0..432).map(|i| (((i + shift) * 37 % 19) as f32 / 19.0) - 0.5).collect();
            Tensor::<4>::from_data(burn::tensor::TensorData::new(values, [1, 3, 12, 12]), &device)
        };
        let (made, truth) = (texture(3).require_grad(), texture(0));
        let loss = structural_dissimilarity(made.clone(), truth.clone());
        let gradient = Tensor::from_inner(made.grad(&loss.clone().backward()).unwrap());
        let after = structural_dissimilarity(made - gradient.mul_scalar(0.1), truth);
        assert!(after.into_scalar::<f32>() < loss.into_scalar::<f32>());
    }

    #[test]
    fn cross_entropy_by_hand() {
        let device = Device::flex();
        let logits = Tensor::<2>::from_floats([[0.0, 0.0], [2.0, 0.0]], &device);
        let targets = Tensor::<1, Int>::from_ints([1, 0], &device);
        let plain = cross_entropy(logits.clone(), targets.clone(), 0.0).try_into_vec_as::<f32>().unwrap();
        assert!((plain[0] - 2f32.ln()).abs() < 1e-6 && (plain[1] - (1.0 + (-2f32).exp()).ln()).abs() < 1e-6);
        let smooth = cross_entropy(logits, targets, 0.5).try_into_vec_as::<f32>().unwrap();
        assert!((smooth[0] - 2f32.ln()).abs() < 1e-6 && smooth[1] > plain[1]);
    }

    #[test]
    fn a_constant_shift_has_no_edges() {
        let device = Device::flex();
        let a = Tensor::<4>::zeros([1, 3, 4, 4], &device);
        assert_eq!(edge_loss(a.clone(), a.clone().add_scalar(0.5)).into_scalar::<f32>(), 0.0);
        let mut values = vec![0.0f32; 48];
        values[5] = 1.0;
        let b = Tensor::from_data(burn::tensor::TensorData::new(values, [1, 3, 4, 4]), &device);
        assert!(edge_loss(a, b).into_scalar::<f32>() > 0.0);
    }
}
