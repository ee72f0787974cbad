//! Area-down and bicubic-up as matrices: `R_h · x · R_wᵀ`.
//!
//! Burn's `interpolate` has no backward pass for these modes on GPUs and aligns corners where the reference does
//! not; two small matrix products give the same numbers on every device and are differentiable everywhere.

use burn::tensor::{Device, Tensor, TensorData};

/// Weights of a one-dimensional resize, row-major `[to, from]`.
pub type Weights = Vec<f32>;

/// Area averaging from `from` to `to` samples, as adaptive average pooling does: output i is the mean of inputs
/// ⌊i·from/to⌋ … ⌈(i+1)·from/to⌉ − 1.
pub fn area_weights(from: usize, to: usize) -> Weights {
    let mut weights = vec![0.0; to * from];
    for i in 0..to {
        let start = i * from / to;
        let end = ((i + 1) * from).div_ceil(to);
        for j in start..end {
            weights[i * from + j] = 1.0 / (end - start) as f32;
        }
    }
    weights
}

/// Bicubic interpolation (a = −0.75, corners not aligned, borders clamped): PyTorch's `bicubic` without antialias.
pub fn bicubic_weights(from: usize, to: usize) -> Weights {
    const A: f64 = -0.75;
    let near = |x: f64| ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
    let far = |x: f64| ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A;
    let mut weights = vec![0.0; to * from];
    let scale = from as f64 / to as f64;
    for i in 0..to {
        let position = (i as f64 + 0.5) * scale - 0.5;
        let base = position.floor();
        let t = position - base;
        let taps = [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)];
        for (tap, weight) in taps.into_iter().enumerate() {
            let j = (base as i64 + tap as i64 - 1).clamp(0, from as i64 - 1) as usize;
            weights[i * from + j] += weight as f32;
        }
    }
    weights
}

/// How a map of features changes size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resize {
    /// Mean over the covered area, for going down.
    Area,
    /// Bicubic interpolation, for going up.
    Bicubic,
}

/// Square maps `[batch, channels, from, from]`, area-averaged to `side` → one row per position
/// `[batch, side², channels]`.
pub fn area_tokens(x: Tensor<4>, side: usize) -> Tensor<3> {
    let [batch, channels, ..] = x.dims();
    resize(x, side, Resize::Area).reshape([batch, channels, side * side]).swap_dims(1, 2)
}

/// Resizes square maps `[batch, channels, from, from]` to `[batch, channels, to, to]`.
pub fn resize(x: Tensor<4>, to: usize, how: Resize) -> Tensor<4> {
    let [_, _, from, _] = x.dims();
    if from == to {
        return x;
    }
    let weights = match how {
        Resize::Area => area_weights(from, to),
        Resize::Bicubic => bicubic_weights(from, to),
    };
    let rows = matrix(weights, from, to, &x.device());
    // The right factor first: it is one tall matrix product over batch × channels × rows.
    let [batch, channels, ..] = x.dims();
    let narrow = x.reshape([batch * channels * from, from]).matmul(rows.clone().transpose());
    let narrow = narrow.reshape([batch * channels, from, to]);
    rows.unsqueeze::<3>()
        .expand([batch * channels, to, from])
        .matmul(narrow)
        .reshape([batch, channels, to, to])
}

fn matrix(weights: Weights, from: usize, to: usize, device: &Device) -> Tensor<2> {
    Tensor::from_data(TensorData::new(weights, [to, from]), device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_sum_to_one_and_same_size_is_identity() {
        for (from, to) in [(16, 1), (16, 13), (5, 16), (1, 16), (3, 7)] {
            for weights in [area_weights(from, to), bicubic_weights(from, to)] {
                for row in weights.chunks(from) {
                    assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5, "{from} -> {to}");
                }
            }
        }
        let identity = bicubic_weights(4, 4);
        assert!((0..4).all(|i| (0..4).all(|j| (identity[i * 4 + j] - f32::from(i == j)).abs() < 1e-6)));
    }

    #[test]
    fn area_of_a_ramp_is_its_local_mean() {
        let device = Device::flex();
        let ramp = Tensor::<4>::from_data(
            TensorData::new((0..16).map(|v| v as f32).collect(), [1, 1, 4, 4]),
            &device,
        );
        let small: Vec<f32> = resize(ramp, 2, Resize::Area).try_into_vec_as::<f32>().unwrap();
        assert_eq!(small, vec![2.5, 4.5, 10.5, 12.5]);
    }
}
