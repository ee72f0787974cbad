//! Bicubic resizing of feature maps and pictures, computed as `rows · x · columnsᵀ` with matrices made on the
//! host. Burn's own `interpolate` aligns corners by default and has no backward pass on GPUs; frozen networks
//! need PyTorch's numbers.

use burn::tensor::{Device, Tensor, TensorData};

/// How PyTorch's bicubic `interpolate(align_corners=False)` treats a shrinking side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bicubic {
    /// Four neighbours of each point whatever the scale, cubic with a = −0.75 (`antialias=False`).
    Plain,
    /// The kernel widens with the scale, cubic with a = −0.5 (`antialias=True`, as image libraries do).
    Antialiased,
}

/// Resizes `[batch, channels, height, width]` to `[batch, channels, size[0], size[1]]`. Differentiable.
pub fn resize(input: Tensor<4>, size: [usize; 2], kind: Bicubic) -> Tensor<4> {
    let [_, _, height, width] = input.dims();
    if [height, width] == size {
        return input;
    }
    let device = input.device().without_autodiff();
    let rows = resize_matrix(height, size[0], kind, &device).unsqueeze::<4>();
    let columns = resize_matrix(width, size[1], kind, &device).transpose().unsqueeze::<4>();
    rows.matmul(input).matmul(columns)
}

/// The matrix `[to, from]` that resizes one axis.
fn resize_matrix(from: usize, to: usize, kind: Bicubic, device: &Device) -> Tensor<2> {
    let mut weights = vec![0f32; to * from];
    for (target, row) in weights.chunks_exact_mut(from).enumerate() {
        match kind {
            Bicubic::Plain => plain_row(row, target, to),
            Bicubic::Antialiased => antialiased_row(row, target, to),
        }
    }
    Tensor::from_data(TensorData::new(weights, [to, from]), device)
}

fn plain_row(row: &mut [f32], target: usize, to: usize) {
    let from = row.len();
    let centre = (target as f64 + 0.5) * from as f64 / to as f64 - 0.5;
    for step in -1..=2 {
        let source = centre.floor() + f64::from(step);
        // Neighbours beyond the border repeat the border.
        let inside = source.clamp(0.0, from as f64 - 1.0) as usize;
        row[inside] += cubic(centre - source, -0.75) as f32;
    }
}

fn antialiased_row(row: &mut [f32], target: usize, to: usize) {
    let from = row.len();
    let scale = from as f64 / to as f64;
    let stretch = scale.max(1.0);
    let centre = (target as f64 + 0.5) * scale;
    // Neighbours beyond the border are left out and the rest share their weight.
    let first = (centre - 2.0 * stretch + 0.5).max(0.0) as usize;
    let last = ((centre + 2.0 * stretch + 0.5) as usize).min(from);
    let weight = |source: usize| cubic((source as f64 + 0.5 - centre) / stretch, -0.5);
    let total: f64 = (first..last).map(weight).sum();
    for (offset, value) in row[first..last].iter_mut().enumerate() {
        *value = (weight(first + offset) / total) as f32;
    }
}

/// The cubic convolution kernel of Keys with parameter `a`.
fn cubic(distance: f64, a: f64) -> f64 {
    let x = distance.abs();
    if x <= 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a
    } else {
        0.0
    }
}
