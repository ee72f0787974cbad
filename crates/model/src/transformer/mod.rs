//! The geo-conditioned joint scale autoregression, GJSA (Eq. 9–11).
//!
//! The sequence holds, per scale, the tokens of each visible modality in turn. Inside a scale all tokens see each
//! other; no token sees a later scale. [`JointTransformer::forward`] takes a whole sequence (teacher forcing),
//! [`JointTransformer::step`] one more scale with a cache; both give the same hidden states.
//!
//! A modality may be left out: hiding the condition half (for guidance) means that its tokens are not in the sequence,
//! which is the same as masking them out of attention and costs half.

mod attention;
mod block;
mod guide;
mod packed;

pub use attention::{Attention, BlockCache};
pub use block::{Block, DropPath};
pub use guide::Guide;
pub use packed::{PackedTransformer, Sequence, SequenceInput};

use block::{View, modulate, modulation, split};
use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::activation::silu;
use burn::tensor::{Device, Tensor, TensorData};
use earthmapper_geo::Modality;

use crate::activation::gelu;
use crate::config::{AdaptiveNorm, Forcing, TokenizerConfig, TransformerConfig};
use crate::geo_embedding::GeoEmbedding;
use crate::init::Init;
use crate::scales::Scales;

/// Keys and values of all blocks: the state of a generation.
#[derive(Clone, Debug)]
pub struct KvCache {
    blocks: Vec<BlockCache>,
    /// Scales already stepped over.
    scales: usize,
}

/// Predicts the codes of one position one after another when the quantizer is deeper than one: hidden state plus the
/// sum of the codes already chosen → hidden state for the next code (RQ-transformer's idea).
#[derive(Module, Debug)]
pub struct DepthHead {
    chosen: Linear,
    level: Param<Tensor<2>>,
    up: Linear,
    down: Linear,
}

impl DepthHead {
    fn new(width: usize, latent: usize, depth: usize, init: &mut Init) -> Self {
        let deviation = (1.0 / (3.0 * width as f32)).sqrt();
        Self {
            chosen: init.linear(latent, width, (1.0 / latent as f32).sqrt()),
            level: init.normal([depth, width], deviation),
            up: init.linear(width, 2 * width, deviation),
            down: init.linear(2 * width, width, deviation),
        }
    }

    fn forward(&self, hidden: Tensor<2>, chosen: Tensor<2>, level: usize) -> Tensor<2> {
        let level = self.level.val().narrow(0, level, 1);
        let mixed = hidden.clone() + self.chosen.forward(chosen) + level;
        hidden + self.down.forward(gelu(self.up.forward(mixed)))
    }
}

/// Mean and standard deviation of each latent channel.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    /// Means.
    pub means: Vec<f32>,
    /// Standard deviations.
    pub deviations: Vec<f32>,
}

/// The joint transformer.
#[derive(Module, Debug)]
pub struct JointTransformer {
    /// The coordinate encoder, which gives the condition.
    pub geo_embedding: GeoEmbedding,
    word_embedding: Linear,
    /// How a known picture is seen, per modality; only when forcing is aligned.
    guides: Vec<Guide>,
    /// `[tokens of one picture, width]`; every modality uses the same positions.
    position: Param<Tensor<2>>,
    /// `[tokens of the first scale, width]`.
    start_position: Param<Tensor<2>>,
    /// `[scales, width]`.
    level: Param<Tensor<2>>,
    /// `[modalities, width]`.
    modality: Param<Tensor<2>>,
    shared_modulation: Option<Linear>,
    blocks: Vec<Block>,
    head_modulation: Linear,
    /// Hidden state → a vector in the codebook's space; only with a tied head.
    to_code: Option<Linear>,
    head: Linear,
    depth_head: Option<DepthHead>,
    #[module(skip)]
    scales: Scales,
    #[module(skip)]
    modalities: Vec<Modality>,
    #[module(skip)]
    epsilon: f64,
}

impl JointTransformer {
    /// Fresh weights for pictures cut into tokens by a tokenizer of the given shape.
    ///
    /// # Panics
    /// When a configuration does not pass its `check`.
    pub fn new(config: &TransformerConfig, tokenizer: &TokenizerConfig, init: &mut Init) -> Self {
        config.check().expect("a checked configuration");
        let scales = tokenizer.scales();
        let width = config.width();
        let deviation = (1.0 / (3.0 * width as f32)).sqrt();
        let latent = tokenizer.latent_width;
        let depth = tokenizer.quantizer_depth;
        Self {
            geo_embedding: GeoEmbedding::new(width, config.place_octaves, init),
            word_embedding: init.linear(latent, width, deviation),
            guides: match config.forcing {
                Forcing::Sequence => Vec::new(),
                Forcing::Aligned => {
                    let guide = |_| Guide::new(latent, width, config.guide_blocks, init);
                    config.modalities.iter().map(guide).collect()
                }
            },
            position: init.normal([scales.total(), width], deviation),
            start_position: init.normal([scales.tokens(0), width], deviation),
            level: init.normal([scales.len(), width], deviation),
            modality: init.normal([config.modalities.len(), width], deviation),
            shared_modulation: (config.adaptive_norm == AdaptiveNorm::Shared)
                .then(|| modulation(width, 6, init)),
            blocks: (0..config.depth).map(|index| Block::new(config, index, init)).collect(),
            head_modulation: modulation(width, 2, init),
            to_code: config.tied_head.then(|| init.linear(width, latent, 0.2 * deviation)),
            head: match config.tied_head {
                true => init.linear(latent, tokenizer.vocabulary, (1.0 / latent as f32).sqrt()),
                false => init.linear(width, tokenizer.vocabulary, 0.02 * deviation),
            },
            depth_head: (depth > 1).then(|| DepthHead::new(width, latent, depth, init)),
            scales,
            modalities: config.modalities.clone(),
            epsilon: config.norm_epsilon,
        }
    }

    /// The scales of one picture.
    pub fn scales(&self) -> &Scales {
        &self.scales
    }

    /// The modalities, in the order they stand in the sequence.
    pub fn modalities(&self) -> &[Modality] {
        &self.modalities
    }

    /// Index of a modality in [`modalities`](Self::modalities).
    pub fn index_of(&self, modality: Modality) -> Option<usize> {
        self.modalities.iter().position(|&m| m == modality)
    }

    /// Hidden states of a whole sequence, before the head.
    ///
    /// # Shapes
    /// - `visible`: indices of the modalities in the sequence, rising
    /// - `inputs`: per visible modality, the inputs of scales 1 … K − 1 `[batch, tokens, latent]`
    /// - `guide`: what [`guide`](Self::guide) gives for the wholly known modalities that are not in the sequence
    /// - `condition`: `[batch, width]`
    /// - output: `[batch, visible · tokens, width]`, per scale the tokens of each visible modality
    pub fn forward(
        &self,
        visible: &[usize],
        inputs: &[Vec<Tensor<3>>],
        guide: Option<&[Tensor<3>]>,
        condition: Tensor<2>,
        mut drop_path: Option<&mut DropPath>,
    ) -> Tensor<3> {
        assert!(!self.blocks.is_empty(), "the blocks of a packed model are run by its translator");
        let mut parts = Vec::new();
        let mut ends = Vec::new();
        for k in 0..self.scales.len() {
            for (slot, &modality) in visible.iter().enumerate() {
                let input = (k > 0).then(|| inputs[slot][k - 1].clone());
                parts.push(self.embed(k, modality, input, guide.map(|guide| &guide[k]), &condition));
            }
            ends.push(self.scales.range(k).end * visible.len());
        }
        let shared = self.shared(&condition);
        let mut x = Tensor::cat(parts, 1);
        for block in &self.blocks {
            let view = View::Whole(&ends, drop_path.as_deref_mut());
            x = block.forward(x, condition.clone(), shared.clone(), view);
        }
        x
    }

    /// An empty cache.
    pub fn cache(&self) -> KvCache {
        KvCache { blocks: vec![BlockCache::default(); self.blocks.len()], scales: 0 }
    }

    /// Hidden states of the next scale, before the head: `[batch, visible · tokens, width]`.
    ///
    /// `inputs` holds, per visible modality, `[batch, tokens, latent]`; it is empty for scale 0. `guide` is what
    /// [`guide`](Self::guide) gives for this scale. The cache moves on by one scale; `visible`, the batch and the condition must stay the same from step to step.
    pub fn step(
        &self,
        visible: &[usize],
        inputs: &[Tensor<3>],
        guide: Option<&Tensor<3>>,
        condition: Tensor<2>,
        cache: &mut KvCache,
    ) -> Tensor<3> {
        assert!(!self.blocks.is_empty(), "the blocks of a packed model are run by its translator");
        let k = cache.scales;
        let parts = visible.iter().enumerate().map(|(slot, &modality)| {
            let input = (k > 0).then(|| inputs[slot].clone());
            self.embed(k, modality, input, guide, &condition)
        });
        let mut x = Tensor::cat(parts.collect(), 1);
        let shared = self.shared(&condition);
        for (block, cache) in self.blocks.iter().zip(&mut cache.blocks) {
            x = block.forward(x, condition.clone(), shared.clone(), View::Next(cache));
        }
        cache.scales += 1;
        x
    }

    /// Adaptive norm before the head: `[batch, tokens, width]` → the same shape.
    pub fn head_norm(&self, hidden: Tensor<3>, condition: Tensor<2>) -> Tensor<3> {
        let [scale, shift] = split(self.head_modulation.forward(silu(condition)));
        modulate(hidden, scale, shift, self.epsilon)
    }

    /// Logits of code `level` of each position from normed hidden states `[n, width]` → `[n, vocabulary]`.
    ///
    /// `chosen` is the sum of the codes already chosen at the position, `[n, latent]`; level 0 ignores it.
    pub fn logits(&self, normed: Tensor<2>, chosen: Option<Tensor<2>>, level: usize) -> Tensor<2> {
        let hidden = match (&self.depth_head, level) {
            (_, 0) => normed,
            (Some(depth_head), _) => {
                let chosen = chosen.expect("codes above the first depend on those chosen before");
                depth_head.forward(normed, chosen, level)
            }
            (None, _) => panic!("this model predicts one code per position"),
        };
        self.head.forward(match &self.to_code {
            Some(to_code) => to_code.forward(hidden),
            None => hidden,
        })
    }

    /// Folds a standardisation, (x − mean) ÷ deviation per latent channel, into the word embedding (`words`) and into
    /// how each modality is seen when it is known (`guides`, one per modality; unused when forcing is in the sequence).
    ///
    /// A tokenizer's channels can differ in size a hundredfold; without this, positions and small channels are drowned
    /// at the start of training.
    ///
    /// # Panics
    /// When there are not as many means and deviations as latent channels, or fewer `guides` than modalities.
    pub fn standardise_inputs(mut self, words: &Moments, guides: &[Moments]) -> Self {
        assert!(guides.len() >= self.guides.len(), "moments of every modality");
        self.word_embedding = standardised(self.word_embedding, words);
        let guided = self.guides.into_iter().zip(guides);
        self.guides = guided.map(|(guide, moments)| guide.standardised(moments)).collect();
        self
    }

    /// Starts a tied head from the codebook `[vocabulary, latent]`, centred and with each channel's spread evened out by
    /// half (divided by the root of its deviation), so that detail counts beside colour; the mean length becomes one.
    /// Does nothing when the head is not tied.
    ///
    /// # Panics
    /// When the codebook has another shape than the head.
    pub fn start_head_from(mut self, codebook: Tensor<2>) -> Self {
        if self.to_code.is_none() {
            return self;
        }
        let (variance, mean) = codebook.clone().var_mean_bias(0);
        let codes = (codebook - mean) / variance.sqrt().sqrt().clamp_min(1e-6);
        let length = codes.clone().square().sum_dim(1).mean().sqrt().into_scalar::<f32>();
        let weight = codes.transpose().div_scalar(length.max(1e-6));
        let old = self.head.weight.val();
        assert_eq!(weight.dims(), old.dims(), "the codebook of this model's tokenizer");
        self.head.weight = Param::from_tensor(Tensor::from_data(weight.into_data(), &old.device()));
        self
    }

    /// The sum of wholly known pictures, given by modality and features `[batch, latent, side, side]`, as every scale
    /// sees it: `[batch, tokens, width]` each. None when nothing is known.
    ///
    /// # Panics
    /// When there is one but forcing is not aligned.
    pub fn guide(&self, known: &[(usize, Tensor<4>)]) -> Option<Vec<Tensor<3>>> {
        let seen = known.iter().map(|(modality, features)| {
            let guide = self.guides.get(*modality).expect("forcing is aligned");
            guide.forward(features.clone(), &self.scales)
        });
        seen.reduce(|a, b| a.into_iter().zip(b).map(|(a, b)| a + b).collect())
    }

    /// Input embeddings of one modality at scale `k`: the start token from the condition, or the word embedding of the
    /// running reconstruction; plus known pictures, position, level and modality.
    fn embed(
        &self,
        k: usize,
        modality: usize,
        input: Option<Tensor<3>>,
        guide: Option<&Tensor<3>>,
        condition: &Tensor<2>,
    ) -> Tensor<3> {
        let range = self.scales.range(k);
        let width = self.level.dims()[1];
        let place = self.position.val().narrow(0, range.start, range.len())
            + self.level.val().narrow(0, k, 1)
            + self.modality.val().narrow(0, modality, 1);
        let words = match input {
            Some(input) => self.word_embedding.forward(input),
            None => {
                let [batch, _] = condition.dims();
                let start = self.start_position.val().unsqueeze::<3>();
                condition.clone().reshape([batch, 1, width]) + start
            }
        };
        let words = words + place.unsqueeze::<3>();
        match guide {
            Some(guide) => words + guide.clone(),
            None => words,
        }
    }

    fn shared(&self, condition: &Tensor<2>) -> Option<Tensor<2>> {
        self.shared_modulation.as_ref().map(|linear| linear.forward(silu(condition.clone())))
    }
}

/// A linear layer that does to x what the given one does to (x − mean) ÷ deviation.
fn standardised(mut linear: Linear, moments: &Moments) -> Linear {
    let [inputs, outputs] = linear.weight.dims();
    let Moments { means, deviations } = moments;
    assert!(means.len() == inputs && deviations.len() == inputs, "one mean and deviation per latent channel");
    let old = linear.weight.val().detach();
    let column = |values: Vec<f32>, device: &Device| {
        Tensor::<2>::from_data(TensorData::new(values, [inputs, 1]), device)
    };
    let device = old.device();
    let weight = old * column(deviations.iter().map(|d| 1.0 / d.max(1e-6)).collect(), &device);
    let shift = (weight.clone() * column(means.clone(), &device)).sum_dim(0).reshape([outputs]);
    let bias = linear.bias.as_ref().map(|bias| bias.val().detach() - shift);
    linear.weight = Param::from_tensor(weight.detach());
    linear.bias = bias.map(|bias| Param::from_tensor(bias.detach()));
    linear
}
