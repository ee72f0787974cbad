//! One transformer block with adaptive layer normalisation.

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::activation::silu;
use burn::tensor::module::layer_norm;
use burn::tensor::{Tensor, TensorData};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::activation::{gelu, gelu_tanh};
use crate::config::{Activation, AdaptiveNorm, TransformerConfig};
use crate::init::Init;
use crate::learned::{self, is_learned};

use super::attention::{Attention, BlockCache};

/// Stochastic depth: drops a block's branch for some pictures while training, from a seeded generator.
#[derive(Debug)]
pub struct DropPath {
    random: ChaCha8Rng,
}

impl DropPath {
    /// Decisions that depend on `seed` alone.
    pub fn new(seed: u64) -> Self {
        Self { random: ChaCha8Rng::seed_from_u64(seed) }
    }

    /// Multiplies the kept pictures' branches by 1 / (1 − probability) and the others' by 0.
    fn apply(&mut self, branch: Tensor<3>, probability: f64) -> Tensor<3> {
        if probability <= 0.0 {
            return branch;
        }
        let [batch, ..] = branch.dims();
        let kept = (1.0 / (1.0 - probability)) as f32;
        let factors: Vec<f32> =
            (0..batch).map(|_| if self.random.random::<f64>() < probability { 0.0 } else { kept }).collect();
        let options = (&branch.device(), branch.dtype());
        let factors = Tensor::<3>::from_data(TensorData::new(factors, [batch, 1, 1]), options);
        branch * factors
    }
}

/// How a block sees its neighbours: the whole sequence at once, or one more scale with a cache.
pub(super) enum View<'a> {
    /// Ends of the scales, and stochastic depth when training.
    Whole(&'a [usize], Option<&'a mut DropPath>),
    /// The cache of this block.
    Next(&'a mut BlockCache),
}

/// Adaptive norm, attention, adaptive norm, feed-forward.
#[derive(Module, Debug)]
pub struct Block {
    pub(super) attention: Attention,
    pub(super) up: Linear,
    pub(super) down: Linear,
    /// This block's own projection of the condition (per-block norm).
    pub(super) modulation: Option<Linear>,
    /// This block's offset to the shared projection `[1, 6 · width]` (shared norm).
    pub(super) offset: Option<Param<Tensor<2>>>,
    #[module(skip)]
    pub(super) activation: Activation,
    #[module(skip)]
    pub(super) epsilon: f64,
    #[module(skip)]
    drop_path: f64,
}

impl Block {
    pub(super) fn new(config: &TransformerConfig, index: usize, init: &mut Init) -> Self {
        let width = config.width();
        let hidden = (width as f64 * config.mlp_ratio).round() as usize;
        let deviation = (1.0 / (3.0 * width as f32)).sqrt();
        let residual = deviation / (2.0 * config.depth as f32).sqrt();
        let attention = Attention::new(config, init);
        let (modulation, offset) = match config.adaptive_norm {
            AdaptiveNorm::PerBlock => (Some(modulation(width, 6, init)), None),
            AdaptiveNorm::Shared => (None, Some(init.normal([1, 6 * width], 1.0 / (width as f32).sqrt()))),
        };
        Self {
            attention,
            up: init.linear(width, hidden, deviation),
            down: init.linear(hidden, width, residual),
            modulation,
            offset,
            activation: config.activation,
            epsilon: config.norm_epsilon,
            drop_path: config.drop_path(index),
        }
    }

    /// `x` `[batch, tokens, width]`; `condition` `[batch, width]`; `shared` is the shared projection
    /// `[batch, 6 · width]` when the norm is shared.
    pub(super) fn forward(
        &self,
        x: Tensor<3>,
        condition: Tensor<2>,
        shared: Option<Tensor<2>>,
        mut view: View,
    ) -> Tensor<3> {
        let vectors = match &mut view {
            View::Whole(..) => self.vectors(condition, shared),
            View::Next(cache) => cache.vectors(|| self.vectors(condition, shared)),
        };
        let [gain1, gain2, scale1, scale2, shift1, shift2] = split(vectors);

        let normed = modulate(x.clone(), scale1, shift1, self.epsilon);
        let branch = match &mut view {
            View::Whole(ends, _) => self.attention.forward(normed, ends),
            View::Next(cache) => self.attention.step(normed, cache),
        };
        let x = x + self.dropped(branch * gain1, &mut view);

        let normed = modulate(x.clone(), scale2, shift2, self.epsilon);
        let hidden = match self.activation {
            Activation::Gelu => gelu(self.up.forward(normed)),
            Activation::GeluTanh => gelu_tanh(self.up.forward(normed)),
        };
        x + self.dropped(self.down.forward(hidden) * gain2, &mut view)
    }

    /// The vectors of both adaptive norms, `[batch, 6 · width]`.
    fn vectors(&self, condition: Tensor<2>, shared: Option<Tensor<2>>) -> Tensor<2> {
        match (&self.modulation, &self.offset, shared) {
            (Some(modulation), ..) => modulation.forward(silu(condition)),
            (None, Some(offset), Some(shared)) => shared + offset.val(),
            _ => unreachable!("a block has its own norm or a shared one"),
        }
    }

    fn dropped(&self, branch: Tensor<3>, view: &mut View) -> Tensor<3> {
        match view {
            View::Whole(_, Some(drop)) => drop.apply(branch, self.drop_path),
            _ => branch,
        }
    }
}

/// A projection of the condition to `count` vectors of `width`. The first two of six are the gains of the
/// branches: they start small but not at zero, so that every block learns from the first step.
pub(super) fn modulation(width: usize, count: usize, init: &mut Init) -> Linear {
    let mut linear = init.linear(width, count * width, 0.02);
    if count == 6 {
        let bias = (0..6 * width).map(|i| if i < 2 * width { 0.2 } else { 0.0 }).collect::<Vec<f32>>();
        let bias = Tensor::<1>::from_data(TensorData::new(bias, [6 * width]), init.device());
        linear.bias = Some(Param::from_tensor(bias));
    }
    linear
}

/// `[batch, n · width]` → n tensors `[batch, 1, width]`.
pub(super) fn split<const N: usize>(vectors: Tensor<2>) -> [Tensor<3>; N] {
    let [batch, total] = vectors.dims();
    let chunks = vectors.reshape([batch, N, total / N]).chunk(N, 1);
    chunks.try_into().expect("as many chunks as vectors")
}

/// Layer norm without gain, then (1 + scale) · x + shift.
pub(super) fn modulate(x: Tensor<3>, scale: Tensor<3>, shift: Tensor<3>, epsilon: f64) -> Tensor<3> {
    if is_learned(&x) {
        return learned::modulated_norm(x, scale, shift, epsilon as f32);
    }
    let [batch, _, width] = x.dims();
    let gain = scale.add_scalar(1.0);
    if batch == 1 {
        // One picture has one gain and one shift, which the layer norm then applies itself.
        return layer_norm(x, gain.reshape([width]), Some(shift.reshape([width])), epsilon);
    }
    let ones = Tensor::ones([width], (&x.device(), x.dtype()));
    layer_norm(x, ones, None, epsilon) * gain + shift
}
