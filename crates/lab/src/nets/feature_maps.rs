//! The few operations that frozen convolutional networks are made of, and networks as lists of them.
//!
//! A network is a list of [`Step`]s, so that one description serves two kinds of maps: Burn's tensors on any device,
//! through which gradients flow, and [`HostMaps`](super::host_maps::HostMaps), which on a CPU are several times faster.

use burn::tensor::module::{avg_pool2d, conv2d, max_pool2d};
use burn::tensor::ops::{AvgPoolOptions, ConvOptions, MaxPoolOptions};
use burn::tensor::{Device, Tensor, TensorData, activation};

use super::weights::{NamedTensors, WeightsError};

/// Kernel, stride and padding of a convolution.
#[derive(Clone, Copy, Debug)]
pub(super) struct Geometry {
    /// Height and width of the kernel.
    pub kernel: [usize; 2],
    /// Step of the kernel along both axes.
    pub stride: usize,
    /// Zeros added above and below, and left and right.
    pub padding: [usize; 2],
}

impl Geometry {
    /// A kernel that moves by one pixel over the map alone.
    pub fn plain(height: usize, width: usize) -> Self {
        Self { kernel: [height, width], stride: 1, padding: [0, 0] }
    }

    /// A kernel with odd sides that keeps the size of the map.
    pub fn same(height: usize, width: usize) -> Self {
        Self { padding: [height / 2, width / 2], ..Self::plain(height, width) }
    }

    /// The same kernel with another stride.
    pub fn with_stride(self, stride: usize) -> Self {
        Self { stride, ..self }
    }

    /// Height and width of the result of a map of this size, where the kernel fits into it.
    pub fn result(&self, size: [usize; 2]) -> [usize; 2] {
        [0, 1].map(|axis| (size[axis] + 2 * self.padding[axis] - self.kernel[axis]) / self.stride + 1)
    }
}

/// A frozen convolution with its bias. A ReLU follows each one, so it is part of it.
#[derive(Clone, Debug)]
pub(super) struct Convolution {
    pub geometry: Geometry,
    /// `[outputs, inputs, kernel height, kernel width]`
    weight: Tensor<4>,
    /// `[outputs]`
    bias: Tensor<1>,
    /// The weights once more, `[kernel height, kernel width, inputs, outputs]` in ordinary memory.
    pub host_weight: Vec<f32>,
    /// `[outputs]`
    pub host_bias: Vec<f32>,
}

impl Convolution {
    /// From weights as PyTorch lays them out, `[outputs, inputs, kernel height, kernel width]`.
    pub fn new(
        weight: Vec<f32>,
        [outputs, inputs]: [usize; 2],
        bias: Vec<f32>,
        geometry: Geometry,
        device: &Device,
    ) -> Self {
        let [height, width] = geometry.kernel;
        let places = height * width;
        let mut host_weight = vec![0.0; weight.len()];
        for (output, kernels) in weight.chunks_exact(inputs * places).enumerate() {
            for (input, kernel) in kernels.chunks_exact(places).enumerate() {
                for (place, value) in kernel.iter().enumerate() {
                    host_weight[(place * inputs + input) * outputs + output] = *value;
                }
            }
        }
        // Frozen weights are constants: without autodiff they cost no bookkeeping in a training step.
        let device = &device.clone().without_autodiff();
        Self {
            geometry,
            weight: Tensor::from_data(TensorData::new(weight, [outputs, inputs, height, width]), device),
            bias: Tensor::from_data(TensorData::new(bias.clone(), [outputs]), device),
            host_weight,
            host_bias: bias,
        }
    }

    /// Takes `NAME.weight` of any number of outputs and `NAME.bias`.
    pub fn take(
        weights: &mut NamedTensors,
        name: &str,
        inputs: usize,
        geometry: Geometry,
        network: &'static str,
        device: &Device,
    ) -> Result<Self, WeightsError> {
        let [height, width] = geometry.kernel;
        let [outputs, ..] = weights.dims::<4>(&format!("{name}.weight"), network)?;
        let weight = weights.take(&format!("{name}.weight"), &[outputs, inputs, height, width])?;
        let bias = weights.take(&format!("{name}.bias"), &[outputs])?;
        Ok(Self::new(weight, [outputs, inputs], bias, geometry, device))
    }

    /// Number of channels that come out.
    pub fn outputs(&self) -> usize {
        self.host_bias.len()
    }
}

/// How many windows of a pooling fit where the stride does not divide the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rounding {
    /// Only whole windows count.
    Down,
    /// A last window may reach over the border.
    Up,
}

/// The maximum of each square window.
#[derive(Clone, Copy, Debug)]
pub(super) struct MaxPool {
    /// Side of the window.
    pub side: usize,
    /// Step of the window along both axes.
    pub stride: usize,
    /// By how much windows reach over the border.
    pub padding: usize,
    /// What happens to a rest at the end.
    pub rounding: Rounding,
}

impl MaxPool {
    /// Windows that lie inside the map.
    pub fn new(side: usize, stride: usize) -> Self {
        Self { side, stride, padding: 0, rounding: Rounding::Down }
    }

    /// Number of windows along a side of the map.
    pub fn result(&self, side: usize) -> usize {
        let free = (side + 2 * self.padding).saturating_sub(self.side);
        match self.rounding {
            Rounding::Down => free / self.stride + 1,
            Rounding::Up => free.div_ceil(self.stride) + 1,
        }
    }
}

/// Maps of features, of one picture or of a batch.
pub(super) trait FeatureMaps: Clone {
    /// Convolution, bias and ReLU.
    fn convolve(&self, convolution: &Convolution) -> Self;
    /// The maximum of each window; what lies outside does not count.
    fn max_pool(&self, pool: &MaxPool) -> Self;
    /// The mean of each pixel's 3 × 3 neighbours; what lies outside does not count.
    fn average_pool(&self) -> Self;
    /// The channels of all parts, one part after the other.
    fn concatenate(parts: Vec<Self>) -> Self;
}

/// One step of a network.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Convolution, bias and ReLU.
    Convolve(Box<Convolution>),
    /// Maximum of each window.
    MaxPool(MaxPool),
    /// Mean of each pixel's neighbours.
    AveragePool,
    /// Several lists of steps on the same maps, the results one after the other.
    Branch(Vec<Vec<Step>>),
}

/// Runs steps one after the other.
pub(super) fn run<M: FeatureMaps>(steps: &[Step], mut maps: M) -> M {
    for step in steps {
        maps = match step {
            Step::Convolve(convolution) => maps.convolve(convolution),
            Step::MaxPool(pool) => maps.max_pool(pool),
            Step::AveragePool => maps.average_pool(),
            Step::Branch(branches) => {
                M::concatenate(branches.iter().map(|branch| run(branch, maps.clone())).collect())
            }
        };
    }
    maps
}

/// `[batch, channels, height, width]` on a device.
impl FeatureMaps for Tensor<4> {
    fn convolve(&self, convolution: &Convolution) -> Self {
        let Geometry { stride, padding, .. } = convolution.geometry;
        let options = ConvOptions::new([stride, stride], padding, [1, 1], 1);
        let (weight, bias) = (convolution.weight.clone(), convolution.bias.clone());
        activation::relu(conv2d(self.clone(), weight, Some(bias), options))
    }

    fn max_pool(&self, pool: &MaxPool) -> Self {
        let options = MaxPoolOptions::new([pool.side; 2])
            .with_stride([pool.stride; 2])
            .with_padding([pool.padding; 2])
            .with_ceil_mode(pool.rounding == Rounding::Up);
        max_pool2d(self.clone(), options)
    }

    fn average_pool(&self) -> Self {
        let options = AvgPoolOptions::new([3, 3])
            .with_stride([1, 1])
            .with_padding([1, 1])
            .with_count_include_pad(false);
        avg_pool2d(self.clone(), options)
    }

    fn concatenate(parts: Vec<Self>) -> Self {
        Tensor::cat(parts, 1)
    }
}
