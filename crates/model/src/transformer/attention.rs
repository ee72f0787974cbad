//! Multi-head attention with a cache that grows by a whole scale at a time.

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::module::attention as fused_attention;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Device, Tensor};

use crate::activation::softmax_last;
use crate::config::{AttentionKind, TransformerConfig};
use crate::init::Init;
use crate::learned::{self, is_learned};

/// What one block keeps from step to step.
#[derive(Clone, Debug, Default)]
pub struct BlockCache {
    /// Keys and values of all scales so far, `[batch, heads, tokens, head width]`.
    stored: Option<(Tensor<4>, Tensor<4>)>,
    /// The vectors of the adaptive norms, `[batch, 6 · width]`.
    vectors: Option<Tensor<2>>,
}

impl BlockCache {
    /// The vectors of the adaptive norms, which the condition alone decides: made once, because reading the weights
    /// for them takes as long as a whole step of a coarse scale.
    pub(super) fn vectors(&mut self, make: impl FnOnce() -> Tensor<2>) -> Tensor<2> {
        self.vectors.get_or_insert_with(make).clone()
    }

    /// Adds the keys and values of a scale and gives back all of them.
    fn append(&mut self, key: Tensor<4>, value: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
        let both = match self.stored.take() {
            Some((keys, values)) => (Tensor::cat(vec![keys, key], 2), Tensor::cat(vec![values, value], 2)),
            None => (key, value),
        };
        self.stored = Some(both.clone());
        both
    }
}

/// Attention of a block (Eq. 9–11): a token attends to every token of its own and of all coarser scales.
#[derive(Module, Debug)]
pub struct Attention {
    pub(super) qkv: Linear,
    pub(super) out: Linear,
    /// Logarithm of the learned scale per head, `[1, heads, 1, 1]`; only with l2-normalised attention.
    pub(super) log_scale: Option<Param<Tensor<4>>>,
    #[module(skip)]
    pub(super) heads: usize,
}

impl Attention {
    pub(super) fn new(config: &TransformerConfig, init: &mut Init) -> Self {
        let (width, heads) = (config.width(), config.heads());
        let deviation = (1.0 / (3.0 * width as f32)).sqrt();
        Self {
            qkv: init.linear(width, 3 * width, deviation),
            out: init.linear(width, width, deviation / (2.0 * config.depth as f32).sqrt()),
            log_scale: (config.attention == AttentionKind::L2)
                .then(|| init.constant([1, heads, 1, 1], 4.0f32.ln())),
            heads,
        }
    }

    /// Attention over a whole sequence, `[batch, tokens, width]`; `ends` are the ends of the scales in it.
    ///
    /// The block-causal mask needs no mask: the queries of a scale simply see the keys up to the scale's end.
    pub fn forward(&self, x: Tensor<3>, ends: &[usize]) -> Tensor<3> {
        let (query, key, value) = self.project(x);
        if is_learned(&query) {
            return self.merge(learned::scale_attention(query, key, value, ends));
        }
        let mut start = 0;
        let mut mixed = Vec::with_capacity(ends.len());
        for &end in ends {
            let query = query.clone().narrow(2, start, end - start);
            mixed.push(self.attend(query, key.clone().narrow(2, 0, end), value.clone().narrow(2, 0, end)));
            start = end;
        }
        self.merge(Tensor::cat(mixed, 2))
    }

    /// Attention of the tokens of one more scale, `[batch, tokens, width]`, to themselves and to the cache.
    pub fn step(&self, x: Tensor<3>, cache: &mut BlockCache) -> Tensor<3> {
        let (query, key, value) = self.project(x);
        let (key, value) = cache.append(key, value);
        self.merge(self.attend(query, key, value))
    }

    /// Queries, keys and values `[batch, heads, tokens, head width]`, with every scale factor in the queries.
    fn project(&self, x: Tensor<3>) -> (Tensor<4>, Tensor<4>, Tensor<4>) {
        let [batch, tokens, width] = x.dims();
        let head = width / self.heads;
        let qkv = self.qkv.forward(x).reshape([batch, tokens, 3, self.heads, head]).permute([2, 0, 3, 1, 4]);
        let part = |i: usize| qkv.clone().narrow(0, i, 1).reshape([batch, self.heads, tokens, head]);
        let (query, key, value) = (part(0), part(1), part(2));
        match &self.log_scale {
            // The learned scale is capped at 100, as in the reference.
            Some(log) => {
                let scale = log.val().clamp_max(100.0f32.ln()).exp();
                (unit(query) * scale, unit(key), value)
            }
            None => (query.mul_scalar(0.25 / (head as f64).sqrt()), key, value),
        }
    }

    fn attend(&self, query: Tensor<4>, key: Tensor<4>, value: Tensor<4>) -> Tensor<4> {
        // Burn's fused attention has no backward pass, and on the CPU it takes one exponential at a time.
        if query.is_autodiff() || query.device() == Device::flex() {
            return softmax_last(query.matmul(key.transpose())).matmul(value);
        }
        let options = AttentionModuleOptions { scale: Some(1.0), ..Default::default() };
        fused_attention(query, key, value, None, None, options)
    }

    fn merge(&self, mixed: Tensor<4>) -> Tensor<3> {
        let [batch, heads, tokens, head] = mixed.dims();
        self.out.forward(mixed.swap_dims(1, 2).reshape([batch, tokens, heads * head]))
    }
}

/// Vectors of length one along the last dimension.
fn unit(x: Tensor<4>) -> Tensor<4> {
    let length = x.clone().square().sum_dim(3).sqrt().clamp_min(1e-12);
    x / length
}
