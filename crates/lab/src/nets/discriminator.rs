//! The adversary of the tokenizer's decoder: a patch discriminator, hinge losses, feature matching, and the adaptive weight
//! by which VQGAN (arXiv 2012.09841) balances adversarial against reconstruction loss.

use burn::module::{Module, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{GroupNorm, GroupNormConfig, PaddingConfig2d};
use burn::tensor::module::conv2d_weight_backward;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Tensor, TensorData, activation};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// Shape of a [`PatchDiscriminator`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PatchDiscriminatorConfig {
    /// Channels after the first convolution; they double per layer up to eight times as many.
    pub width: usize,
    /// Number of convolutions of stride 2. Three make every output judge a patch of 70 × 70 pixels.
    pub layers: usize,
    /// Seed of the initial weights.
    pub seed: u64,
}

impl Default for PatchDiscriminatorConfig {
    fn default() -> Self {
        Self { width: 64, layers: 3, seed: 0 }
    }
}

impl PatchDiscriminatorConfig {
    /// Patches per side that a picture of `side` pixels is judged by; `None` when nothing is left to judge or the shape
    /// is no network.
    pub fn patches(&self, side: usize) -> Option<usize> {
        if self.width == 0 || self.layers == 0 {
            return None;
        }
        // Kernels of 4 with one pixel of padding: `layers` convolutions halve the side, two take off a pixel.
        let halved = (0..self.layers).try_fold(side, |side, _| Some(side / 2).filter(|side| *side > 0))?;
        halved.checked_sub(2).filter(|side| *side > 0)
    }

    /// Initialises the network: the same seed gives the same weights on every device.
    ///
    /// # Panics
    /// Where `width` or `layers` is zero.
    pub fn init(&self, device: &Device) -> PatchDiscriminator {
        assert!(self.width > 0 && self.layers > 0, "a discriminator needs a width and layers");
        let channels = |layer: usize| self.width << layer.min(3);
        // Our own generator: Burn's device seed is reproducible from one thread only.
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        let mut convolution =
            |from, to, stride, bias| convolution(from, to, stride, bias, &mut random, device);

        let first = convolution(3, channels(0), 2, true);
        let mut stages = Vec::with_capacity(self.layers);
        for layer in 1..=self.layers {
            // The last of the normalised convolutions does not halve the sides.
            let stride = if layer < self.layers { 2 } else { 1 };
            stages.push(Stage {
                convolution: convolution(channels(layer - 1), channels(layer), stride, false),
                norm: GroupNormConfig::new(groups(channels(layer)), channels(layer)).init(device),
            });
        }
        let last = convolution(channels(self.layers), 1, 1, true);
        PatchDiscriminator { first, stages, last }
    }
}

/// PatchGAN: judges every patch of a picture by itself, high for real and low for generated.
///
/// Unlike pix2pix' it normalises over groups of channels and not over the batch, so that a picture's judgement
/// does not depend on the pictures beside it, and real and generated pictures may go through separately.
#[derive(Module, Debug)]
pub struct PatchDiscriminator {
    first: Conv2d,
    stages: Vec<Stage>,
    last: Conv2d,
}

#[derive(Module, Debug)]
struct Stage {
    convolution: Conv2d,
    norm: GroupNorm,
}

impl PatchDiscriminator {
    /// One logit per patch.
    ///
    /// # Shapes
    /// - pictures: `[batch, 3, height, width]` in [-1, 1]
    /// - result: `[batch, 1, height', width']`; 256 pixels become 30 with three layers
    pub fn forward(&self, pictures: Tensor<4>) -> Tensor<4> {
        self.judge(pictures).logits
    }

    /// The logits of [`forward`](Self::forward), and what every layer saw on the way.
    pub fn judge(&self, pictures: Tensor<4>) -> Judgement {
        let mut features = vec![leaky(self.first.forward(pictures))];
        for stage in &self.stages {
            let before = features[features.len() - 1].clone();
            features.push(leaky(stage.norm.forward(stage.convolution.forward(before))));
        }
        Judgement { logits: self.last.forward(features[features.len() - 1].clone()), features }
    }
}

/// What a [`PatchDiscriminator`] says of pictures.
#[derive(Clone, Debug)]
pub struct Judgement {
    /// One logit per patch, `[batch, 1, height, width]`.
    pub logits: Tensor<4>,
    /// What comes out of every layer but the last, `[batch, channels, height, width]` each.
    pub features: Vec<Tensor<4>>,
}

/// How differently the discriminator sees generated and real pictures (pix2pixHD's feature matching, arXiv 1711.11585): the
/// mean absolute difference of each layer's features, as a share of the real ones' mean magnitude, averaged over the layers.
/// No gradient goes to the real ones.
///
/// # Shapes
/// - features: as in [`Judgement`]
/// - result: `[1]`
///
/// # Panics
/// When there are not as many layers.
pub fn feature_matching(generated: &[Tensor<4>], real: &[Tensor<4>]) -> Tensor<1> {
    assert_eq!(generated.len(), real.len(), "features of the same discriminator");
    let layer = |(generated, real): (&Tensor<4>, &Tensor<4>)| {
        let real = real.clone().detach();
        let magnitude = real.clone().abs().mean().clamp_min(1e-3);
        (generated.clone() - real).abs().mean() / magnitude
    };
    let sum = generated.iter().zip(real).map(layer).reduce(|a, b| a + b).expect("at least one layer");
    sum.div_scalar(generated.len() as f64)
}

fn leaky(features: Tensor<4>) -> Tensor<4> {
    activation::leaky_relu(features, 0.2)
}

/// Hinge loss of the discriminator: half of mean(max(0, 1 - real)) + mean(max(0, 1 + generated)). Pass the
/// logits of *detached* generated pictures.
///
/// # Shapes
/// - real_logits, generated_logits: `[batch, 1, height, width]`
/// - result: `[1]`
pub fn discriminator_loss(real_logits: Tensor<4>, generated_logits: Tensor<4>) -> Tensor<1> {
    let real = activation::relu(real_logits.neg().add_scalar(1.0)).mean();
    let generated = activation::relu(generated_logits.add_scalar(1.0)).mean();
    (real + generated).mul_scalar(0.5)
}

/// Hinge loss of the generator: -mean(generated).
///
/// # Shapes
/// - generated_logits: `[batch, 1, height, width]`
/// - result: `[1]`
pub fn generator_loss(generated_logits: Tensor<4>) -> Tensor<1> {
    generated_logits.mean().neg()
}

/// How much the adversarial loss counts: ‖∇reconstruction‖ ÷ (‖∇adversarial‖ + 10⁻⁴), from 0 to 10⁴, so that
/// both pull equally on the decoder's last convolution. The gradients are those of
/// [`last_convolution_gradient`]; the reconstruction's includes the perceptual loss.
///
/// # Shapes
/// - both: equal, any
pub fn adaptive_weight<const D: usize>(
    reconstruction_gradient: Tensor<D>,
    adversarial_gradient: Tensor<D>,
) -> f32 {
    let norm = |gradient: Tensor<D>| gradient.without_autodiff().square().sum().into_scalar::<f32>().sqrt();
    (norm(reconstruction_gradient) / (norm(adversarial_gradient) + 1e-4)).clamp(0.0, 1e4)
}

/// Gradient of a loss with respect to the weight of the decoder's last convolution (stride 1, symmetric
/// padding), from the loss's gradient with respect to the picture that convolution made.
///
/// Burn walks a recorded graph backwards only once, so one cannot ask for the gradient of each loss at the last
/// layer and then train on their sum. Instead cut the picture from the graph (`detach().require_grad()`), take
/// each loss's gradient with respect to it, weigh them with this function and [`adaptive_weight`], and walk
/// through the decoder once, from `(picture * combined_gradient).sum()`.
///
/// # Shapes
/// - input: `[batch, channels, height, width]`, what the convolution received
/// - weight: `[3, channels, kernel, kernel]`
/// - picture_gradient: `[batch, 3, height, width]`
/// - result: as `weight`
pub fn last_convolution_gradient(
    input: Tensor<4>,
    weight: Tensor<4>,
    picture_gradient: Tensor<4>,
    padding: usize,
) -> Tensor<4> {
    conv2d_weight_backward(
        input.without_autodiff(),
        weight.without_autodiff(),
        picture_gradient.without_autodiff(),
        ConvOptions::new([1, 1], [padding, padding], [1, 1], 1),
    )
}

/// As many groups as divide the channels, 32 at most: the number usual in VQGAN's own norms.
fn groups(channels: usize) -> usize {
    (1..=channels.min(32)).rev().find(|count| channels.is_multiple_of(*count)).unwrap_or(1)
}

/// A 4 × 4 convolution with weights from a normal distribution of deviation 0.02 (as in pix2pix), bias zero.
fn convolution(
    channels_in: usize,
    channels_out: usize,
    stride: usize,
    bias: bool,
    random: &mut ChaCha8Rng,
    device: &Device,
) -> Conv2d {
    let mut convolution = Conv2dConfig::new([channels_in, channels_out], [4, 4])
        .with_stride([stride, stride])
        .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
        .with_bias(bias)
        .init(device);
    let count = channels_out * channels_in * 16;
    let weight: Vec<f32> = (0..count).map(|_| 0.02 * normal(random)).collect();
    let weight = TensorData::new(weight, [channels_out, channels_in, 4, 4]);
    convolution.weight = Param::from_data(weight, device);
    if bias {
        convolution.bias =
            Some(Param::from_data(TensorData::new(vec![0f32; channels_out], [channels_out]), device));
    }
    convolution
}

/// A sample of the standard normal distribution (Box–Muller).
fn normal(random: &mut ChaCha8Rng) -> f32 {
    // 1 - u lies in (0, 1], where the logarithm is finite.
    let radius = (-2.0 * (1.0 - random.random::<f64>()).ln()).sqrt();
    let angle = std::f64::consts::TAU * random.random::<f64>();
    (radius * angle.cos()) as f32
}
