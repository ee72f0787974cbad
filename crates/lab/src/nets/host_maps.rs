//! Feature maps of one picture in ordinary memory, channels last.
//!
//! Pictures are worked on side by side, each on one thread: no thread waits for another within a picture. With the
//! channels last, the pixels under one row of a kernel lie next to each other, so that gathering the operands of a
//! convolution is copying runs, and the product comes out in the layout that the next step reads.

use std::ops::Range;

use burn::tensor::Device;
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};

use super::feature_maps::{Convolution, FeatureMaps, Geometry, MaxPool};

/// Values gathered at a time, at least one row of the result: 2 MB stay in the cache.
const TILE: usize = 1 << 19;

/// `[height, width, channels]` of one picture.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct HostMaps {
    pub height: usize,
    pub width: usize,
    pub channels: usize,
    pub values: Vec<f32>,
}

impl HostMaps {
    fn zeros([height, width]: [usize; 2], channels: usize) -> Self {
        Self { height, width, channels, values: vec![0.0; height * width * channels] }
    }

    fn pixel(&self, y: usize, x: usize) -> &[f32] {
        &self.values[(y * self.width + x) * self.channels..][..self.channels]
    }

    /// Folds each window's pixels into one, channel by channel, from `start` on. `window` says which rows or columns of a
    /// side belong to a place of the result.
    fn pool(
        &self,
        size: [usize; 2],
        window: impl Fn(usize, usize) -> Range<usize>,
        start: f32,
        fold: impl Fn(f32, f32) -> f32,
    ) -> Self {
        let mut result = Self { values: Vec::new(), ..Self::zeros(size, self.channels) };
        result.values.resize(size[0] * size[1] * self.channels, start);
        for (index, target) in result.values.chunks_exact_mut(self.channels).enumerate() {
            for y in window(index / size[1], self.height) {
                for x in window(index % size[1], self.width) {
                    let source = self.pixel(y, x);
                    target.iter_mut().zip(source).for_each(|(target, value)| *target = fold(*target, *value));
                }
            }
        }
        result
    }

    /// Copies what lies under the kernel for row `y` of the result, place by place; zero outside the map.
    fn gather(&self, y: usize, geometry: &Geometry, places: &mut [f32]) {
        let Geometry { kernel: [kernel_height, kernel_width], stride, padding } = *geometry;
        let run = kernel_width * self.channels;
        for (x, place) in places.chunks_exact_mut(kernel_height * run).enumerate() {
            let left = (x * stride) as isize - padding[1] as isize;
            // The part of the kernel's row that lies inside the map.
            let before = left.min(0).unsigned_abs();
            let after = (left + kernel_width as isize - self.width as isize).max(0) as usize;
            for (down, target) in place.chunks_exact_mut(run).enumerate() {
                let row = (y * stride + down).checked_sub(padding[0]).filter(|row| *row < self.height);
                let Some(row) = row else {
                    target.fill(0.0);
                    continue;
                };
                let from = (row * self.width) as isize + left + before as isize;
                let inside = before * self.channels..run - after * self.channels;
                target[..inside.start].fill(0.0);
                target[inside.end..].fill(0.0);
                let source = &self.values[from as usize * self.channels..][..inside.len()];
                target[inside].copy_from_slice(source);
            }
        }
    }
}

impl FeatureMaps for HostMaps {
    fn convolve(&self, convolution: &Convolution) -> Self {
        let geometry = &convolution.geometry;
        let size = geometry.result([self.height, self.width]);
        let outputs = convolution.outputs();
        let mut result = Self::zeros(size, outputs);
        let [kernel_height, kernel_width] = geometry.kernel;
        let depth = kernel_height * kernel_width * self.channels;
        // A kernel of one pixel finds its operands in place.
        let in_place = geometry.kernel == [1, 1] && geometry.stride == 1 && geometry.padding == [0, 0];
        let rows = (TILE / (size[1] * depth)).clamp(1, size[0]);
        let mut tile = vec![0.0; if in_place { 0 } else { rows * size[1] * depth }];
        for (index, result) in result.values.chunks_mut(rows * size[1] * outputs).enumerate() {
            let places = result.len() / outputs;
            let operands = if in_place {
                &self.values[index * rows * size[1] * depth..][..places * depth]
            } else {
                for (row, places) in tile[..places * depth].chunks_exact_mut(size[1] * depth).enumerate() {
                    self.gather(index * rows + row, geometry, places);
                }
                &tile[..places * depth]
            };
            // Read as columns, the places lie side by side: result = weightᵀ · operands.
            matmul(
                MatMut::from_column_major_slice_mut(&mut *result, outputs, places),
                Accum::Replace,
                MatRef::from_column_major_slice(&convolution.host_weight, outputs, depth),
                MatRef::from_column_major_slice(operands, depth, places),
                1.0,
                Par::Seq,
            );
            for place in result.chunks_exact_mut(outputs) {
                for (value, bias) in place.iter_mut().zip(&convolution.host_bias) {
                    *value = (*value + bias).max(0.0);
                }
            }
        }
        result
    }

    fn max_pool(&self, pool: &MaxPool) -> Self {
        let size = [self.height, self.width].map(|side| pool.result(side));
        let window = |place: usize, side: usize| {
            let start = place * pool.stride;
            start.saturating_sub(pool.padding)..(start + pool.side - pool.padding).min(side)
        };
        self.pool(size, window, f32::NEG_INFINITY, f32::max)
    }

    fn average_pool(&self) -> Self {
        let window = |place: usize, side: usize| place.saturating_sub(1)..(place + 2).min(side);
        let mut result = self.pool([self.height, self.width], window, 0.0, |sum, value| sum + value);
        let width = self.width;
        for (index, pixel) in result.values.chunks_exact_mut(self.channels).enumerate() {
            let count = window(index / width, self.height).len() * window(index % width, width).len();
            pixel.iter_mut().for_each(|value| *value /= count as f32);
        }
        result
    }

    fn concatenate(parts: Vec<Self>) -> Self {
        let channels = parts.iter().map(|part| part.channels).sum();
        let mut result = Self::zeros([parts[0].height, parts[0].width], channels);
        for (index, target) in result.values.chunks_exact_mut(channels).enumerate() {
            let mut rest = target;
            for part in &parts {
                let (here, after) = rest.split_at_mut(part.channels);
                here.copy_from_slice(&part.values[index * part.channels..][..part.channels]);
                rest = after;
            }
        }
        result
    }
}

/// Whether a device's tensors lie in ordinary memory, so that maps there are faster than its own operations.
pub(super) fn is_host(device: &Device) -> bool {
    device.clone().without_autodiff() == Device::flex()
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Tensor, TensorData};

    use super::super::feature_maps::{Rounding, Step, run};
    use super::*;

    /// Numbers in [-1, 1) that follow no pattern.
    fn numbers(count: usize, seed: usize) -> Vec<f32> {
        let value = |index: usize| ((index + 7919 * seed) * 2_654_435_761 % 4096) as f32 / 2048.0 - 1.0;
        (0..count).map(value).collect()
    }

    /// The largest difference between the two kinds of maps after the same steps.
    fn difference(steps: &[Step], [channels, height, width]: [usize; 3]) -> f32 {
        let maps = HostMaps { height, width, channels, values: numbers(height * width * channels, 1) };
        let tensor = TensorData::new(maps.values.clone(), [1, height, width, channels]);
        let tensor = Tensor::<4>::from_data(tensor, &Device::flex()).permute([0, 3, 1, 2]);
        let (maps, tensor) = (run(steps, maps), run(steps, tensor).permute([0, 2, 3, 1]));
        assert_eq!([1, maps.height, maps.width, maps.channels], tensor.dims());
        let expected: Vec<f32> = tensor.into_data().iter::<f32>().collect();
        maps.values.iter().zip(expected).map(|(found, expected)| (found - expected).abs()).fold(0.0, f32::max)
    }

    fn convolution(inputs: usize, outputs: usize, geometry: Geometry) -> Step {
        let count = inputs * outputs * geometry.kernel[0] * geometry.kernel[1];
        let (weight, bias) = (numbers(count, 2), numbers(outputs, 3));
        let device = Device::flex();
        Step::Convolve(Box::new(Convolution::new(weight, [outputs, inputs], bias, geometry, &device)))
    }

    #[test]
    fn steps_give_what_tensors_give() {
        let padded = Geometry { kernel: [5, 5], stride: 4, padding: [2, 2] };
        for geometry in [
            Geometry::plain(1, 1),
            Geometry::plain(3, 3),
            Geometry::plain(3, 3).with_stride(2),
            Geometry::same(1, 7),
            Geometry::same(7, 1),
            padded,
        ] {
            let worst = difference(&[convolution(5, 6, geometry)], [5, 11, 14]);
            assert!(worst < 1e-4, "{geometry:?}: {worst}");
        }
        // Wider than what is gathered at a time.
        assert!(difference(&[convolution(40, 3, Geometry::same(3, 3))], [40, 30, 500]) < 1e-3);
        for pool in [
            MaxPool::new(2, 2),
            MaxPool::new(3, 2),
            MaxPool { padding: 1, ..MaxPool::new(3, 1) },
            MaxPool { rounding: Rounding::Up, ..MaxPool::new(3, 2) },
        ] {
            for size in [[3, 11, 14], [1, 8, 9]] {
                assert_eq!(difference(&[Step::MaxPool(pool)], size), 0.0, "{pool:?}");
            }
        }
        let branches = vec![vec![Step::AveragePool], vec![convolution(4, 2, Geometry::plain(1, 1))]];
        assert!(difference(&[Step::Branch(branches)], [4, 5, 6]) < 1e-5);
    }
}
