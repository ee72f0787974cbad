//! 3 × 3 convolutions on the CPU.
//!
//! Burn's `flex` back end first turns the whole map so that channels come last, on one thread, and gathers each tile
//! value by value; at 256 × 256 pixels that takes as long as the products. Here a tile is gathered row by row from the map
//! as it lies, and multiplied with the weights as they lie. Where gradients are wanted, the layer of `learned.rs` runs.

use burn::nn::PaddingConfig2d;
use burn::nn::conv::Conv2d;
use burn::tensor::{Tensor, TensorData};
use rayon::prelude::*;

use crate::activation::is_plain;
use crate::learned::{self, is_learned};

/// Positions per tile: the gathered tile (9 · channels · positions values) then stays in the cache.
const TILE: usize = 512;

/// What `conv` gives for `[batch, channels, h, w]`.
pub(super) fn convolve(conv: &Conv2d, x: Tensor<4>) -> Tensor<4> {
    let same = matches!(conv.padding, PaddingConfig2d::Explicit(1, 1, 1, 1)) && conv.kernel_size == [3, 3];
    let dense = conv.stride == [1, 1] && conv.dilation == [1, 1] && conv.groups == 1;
    match &conv.bias {
        Some(bias) if same && dense && is_learned(&x) => {
            learned::convolution(x, conv.weight.val(), bias.val())
        }
        Some(bias) if same && dense && is_plain(&x) => {
            let bias: Vec<f32> = bias.val().try_into_vec_as().expect("32-bit floats");
            same_3x3(x, conv.weight.val(), &bias)
        }
        _ => conv.forward(x),
    }
}

/// A 3 × 3 convolution that keeps the side, with zeros around the map.
fn same_3x3(x: Tensor<4>, weight: Tensor<4>, bias: &[f32]) -> Tensor<4> {
    let [batch, inputs, height, width] = x.dims();
    let (device, outputs, plane) = (x.device(), bias.len(), height * width);
    let weight = weight.reshape([outputs, inputs * 9]);
    let data = x.into_data();
    let maps = data.as_slice::<f32>().expect("32-bit floats");
    let mut result = vec![0.0f32; batch * outputs * plane];
    let rows_per_tile = (TILE / width).clamp(1, height);
    for (map, result) in maps.chunks(inputs * plane).zip(result.chunks_mut(outputs * plane)) {
        for top in (0..height).step_by(rows_per_tile) {
            let rows = rows_per_tile.min(height - top);
            let count = rows * width;
            let mut tile = vec![0.0f32; inputs * 9 * count];
            let gather = |(tile, map): (&mut [f32], &[f32])| gather(tile, map, top, rows, width);
            tile.par_chunks_mut(9 * count).zip(map.par_chunks(plane)).for_each(gather);
            let tile = Tensor::<2>::from_data(TensorData::new(tile, [inputs * 9, count]), &device);
            let products = weight.clone().matmul(tile).into_data();
            let products = products.as_slice::<f32>().expect("32-bit floats").par_chunks(count);
            result.par_chunks_mut(plane).zip(products).zip(bias).for_each(|((result, products), bias)| {
                let result = &mut result[top * width..][..count];
                result.iter_mut().zip(products).for_each(|(result, product)| *result = product + bias);
            });
        }
    }
    Tensor::from_data(TensorData::new(result, [batch, outputs, height, width]), &device)
}

/// Gathers the nine neighbours of `rows` rows of one channel from row `top` on, neighbour by neighbour. The tile comes
/// zeroed; what lies outside the map stays so.
fn gather(tile: &mut [f32], map: &[f32], top: usize, rows: usize, width: usize) {
    for (neighbour, tile) in tile.chunks_mut(rows * width).enumerate() {
        let (down, right) = (neighbour / 3, neighbour % 3);
        for (row, tile) in tile.chunks_mut(width).enumerate() {
            let Some(source) = (top + row + down).checked_sub(1) else { continue };
            let Some(source) = map.get(source * width..(source + 1) * width) else { continue };
            match right {
                0 => tile[1..].copy_from_slice(&source[..width - 1]),
                1 => tile.copy_from_slice(source),
                _ => tile[..width - 1].copy_from_slice(&source[1..]),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::init::Init;
    use burn::tensor::{Device, Distribution};

    #[test]
    fn a_convolution_is_as_in_burn() {
        let device = Device::flex();
        let mut init = Init::new(3, &device);
        for (inputs, outputs, height, width) in [(3, 5, 33, 40), (7, 4, 1, 1), (2, 2, 3, 600)] {
            let conv = init.conv(inputs, outputs, 3);
            let x = Tensor::random([2, inputs, height, width], Distribution::Uniform(-1.0, 1.0), &device);
            let worst: f32 = (convolve(&conv, x.clone()) - conv.forward(x)).abs().max().into_scalar();
            assert!(worst < 1e-5, "{worst}");
        }
    }
}
