//! The transformer's loss (Eq. 11) and the pixel losses of the tokenizer.

use burn::tensor::activation::log_softmax;
use burn::tensor::{Int, Tensor};

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

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

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
