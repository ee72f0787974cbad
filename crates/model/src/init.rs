//! Weight initialisation from one seeded generator on the host, so that a seed gives the same model on every
//! device and from any thread (Burn's own `Device::seed` is reproducible from one thread only).

use burn::module::{Param, ParamId};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{GroupNorm, GroupNormConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::{Device, Tensor, TensorData};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Source of initial weights.
pub struct Init<'a> {
    /// None gives zeros, which take no memory until somebody looks at them.
    random: Option<ChaCha8Rng>,
    device: &'a Device,
}

impl<'a> Init<'a> {
    /// A source whose weights depend on `seed` alone.
    pub fn new(seed: u64, device: &'a Device) -> Self {
        Self { random: Some(ChaCha8Rng::seed_from_u64(seed)), device }
    }

    /// Zeros everywhere, for modules whose weights are read from a file: drawing numbers for them would take longer than
    /// the reading, and they would lie in memory beside the file's.
    pub fn zeros(device: &'a Device) -> Self {
        Self { random: None, device }
    }

    /// The device the weights are put on.
    pub fn device(&self) -> &'a Device {
        self.device
    }

    /// Normal values with the given standard deviation, cut off at two deviations.
    pub fn normal<const D: usize>(&mut self, shape: [usize; D], deviation: f32) -> Param<Tensor<D>> {
        let count = shape.iter().product();
        match &mut self.random {
            Some(random) => {
                let values = (0..count).map(|_| deviation * truncated_normal(random)).collect();
                self.param(values, shape)
            }
            None => self.zero(shape),
        }
    }

    /// A constant.
    pub fn constant<const D: usize>(&mut self, shape: [usize; D], value: f32) -> Param<Tensor<D>> {
        if self.random.is_none() {
            return self.zero(shape);
        }
        let count = shape.iter().product();
        self.param(vec![value; count], shape)
    }

    /// A linear layer with normal weights and a zero bias.
    pub fn linear(&mut self, input: usize, output: usize, deviation: f32) -> Linear {
        let mut linear = LinearConfig::new(input, output).init(self.device);
        linear.weight = self.normal([input, output], deviation);
        linear.bias = Some(self.constant([output], 0.0));
        linear
    }

    /// A convolution with "same" padding for stride 1 and uniform weights ±1/√fan_in, which is PyTorch's default.
    pub fn conv(&mut self, input: usize, output: usize, kernel: usize) -> Conv2d {
        self.conv_with(input, output, kernel, 1, (kernel - 1) / 2)
    }

    /// A convolution with the given stride and symmetric padding.
    pub fn conv_with(
        &mut self,
        input: usize,
        output: usize,
        kernel: usize,
        stride: usize,
        pad: usize,
    ) -> Conv2d {
        let padding = PaddingConfig2d::Explicit(pad, pad, pad, pad);
        let config = Conv2dConfig::new([input, output], [kernel, kernel]).with_stride([stride, stride]);
        let mut conv = config.with_padding(padding).init(self.device);
        let bound = 1.0 / ((input * kernel * kernel) as f32).sqrt();
        conv.weight = self.uniform([output, input, kernel, kernel], bound);
        conv.bias = Some(self.uniform([output], bound));
        conv
    }

    /// A convolution that starts as nothing at all, at the end of a branch that is added to another.
    pub fn silent_conv(&mut self, input: usize, output: usize, kernel: usize) -> Conv2d {
        let mut conv = self.conv(input, output, kernel);
        conv.weight = self.constant([output, input, kernel, kernel], 0.0);
        conv.bias = Some(self.constant([output], 0.0));
        conv
    }

    /// A 3 × 3 convolution that starts as the identity.
    pub fn identity_conv(&mut self, channels: usize) -> Conv2d {
        let mut conv = self.silent_conv(channels, channels, 3);
        let mut weight = vec![0.0; channels * channels * 9];
        (0..channels).for_each(|c| weight[(c * channels + c) * 9 + 4] = 1.0);
        conv.weight = self.param(weight, [channels, channels, 3, 3]);
        conv
    }

    /// Group normalisation with 32 groups, or the most that divide `channels`.
    pub fn group_norm(&mut self, channels: usize) -> GroupNorm {
        GroupNormConfig::new(greatest_common_divisor(32, channels), channels)
            .with_epsilon(1e-6)
            .init(self.device)
    }

    fn uniform<const D: usize>(&mut self, shape: [usize; D], bound: f32) -> Param<Tensor<D>> {
        let count = shape.iter().product();
        match &mut self.random {
            Some(random) => {
                let values = (0..count).map(|_| random.random_range(-bound..=bound)).collect();
                self.param(values, shape)
            }
            None => self.zero(shape),
        }
    }

    fn zero<const D: usize>(&self, shape: [usize; D]) -> Param<Tensor<D>> {
        let zeros = move |device: &Device, grad: bool| {
            let zeros = Tensor::zeros(shape, device);
            if grad { zeros.require_grad() } else { zeros }
        };
        Param::uninitialized(ParamId::new(), zeros, self.device.clone(), true, shape.into())
    }

    fn param<const D: usize>(&self, values: Vec<f32>, shape: [usize; D]) -> Param<Tensor<D>> {
        let tensor = Tensor::from_data(TensorData::new(values, shape), self.device);
        Param::from_tensor(tensor)
    }
}

fn greatest_common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

/// A normal value cut off at two deviations.
fn truncated_normal(random: &mut ChaCha8Rng) -> f32 {
    loop {
        // Box–Muller; 1 − u keeps the logarithm away from zero.
        let (u, v): (f32, f32) = (random.random(), random.random());
        let normal = (-2.0 * (1.0 - u).ln()).sqrt() * (std::f32::consts::TAU * v).cos();
        if normal.abs() <= 2.0 {
            return normal;
        }
    }
}
