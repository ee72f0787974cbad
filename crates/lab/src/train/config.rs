//! The settings of a training of the transformer.

use std::path::PathBuf;

use burn::tensor::{DType, Device};
use earthmapper::config::TrainedOn;
use earthmapper::{Modality, Place, TransformerConfig};
use earthmapper_geo::pairs::{PairSelection, PairSource};
use serde::{Deserialize, Serialize};

use crate::data::{AugmentConfig, Places};
use crate::optimiser::OptimiserConfig;
use crate::semantic_infusion::SemanticInfusionConfig;
use crate::session::TrainError;

/// Numbers of the forward and backward pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floats.
    #[default]
    F32,
    /// 16-bit brain floats, with 32-bit master weights; an error on a device without them.
    Bf16,
}

/// A training of the transformer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransformerTraining {
    /// Name of the model that comes out.
    pub name: String,
    /// Seed of weights, order, augmentation and hiding.
    #[serde(default)]
    pub seed: u64,
    /// Steps in all.
    pub steps: u64,
    /// Pairs per micro-batch.
    pub batch_size: usize,
    /// Micro-batches per step.
    #[serde(default = "one")]
    pub accumulate: usize,
    /// Micro-batches that run at once, each on a thread of its own: with as many as cores, none of them waits while
    /// another is between two products. Takes as much more memory.
    #[serde(default = "one")]
    pub workers: usize,
    /// The frozen tokenizer: its folder, a model folder, or the run that trained it.
    pub tokenizer: PathBuf,
    /// A model folder whose transformer the weights start from.
    #[serde(default)]
    pub from: Option<PathBuf>,
    /// Where the pairs are.
    pub data: PairSource,
    /// Pairs to learn from.
    #[serde(default)]
    pub training: PairSelection,
    /// Pairs to measure on.
    #[serde(default)]
    pub validation: PairSelection,
    /// Share of the pairs that may be unreadable.
    #[serde(default = "one_percent")]
    pub skip_limit: f64,
    /// Augmentation; its side is the tokenizer's.
    #[serde(default)]
    pub augment: AugmentConfig,
    /// Draws of the augmentation that are kept as tokens.
    #[serde(default = "four")]
    pub variants: u64,
    /// The transformer.
    pub transformer: TransformerConfig,
    /// Optimiser.
    #[serde(default)]
    pub optimiser: OptimiserConfig,
    /// Probability that one half of a pair is hidden, so that the model also learns the other half alone.
    #[serde(default = "tenth")]
    pub hide_condition: f64,
    /// Probability that the place is hidden.
    #[serde(default = "tenth")]
    pub hide_place: f64,
    /// With aligned forcing: probability that a pair is seen whole, as for inventing pairs; else one half is made from
    /// the other.
    #[serde(default = "tenth")]
    pub joint_share: f64,
    /// With aligned forcing: of the pairs that are translated, the share that goes from photograph to map.
    #[serde(default = "half")]
    pub to_map_share: f64,
    /// Label smoothing ε.
    #[serde(default)]
    pub label_smoothing: f64,
    /// How much more the map's tokens count than the photograph's.
    #[serde(default = "unit")]
    pub map_weight: f64,
    /// Share of each coarser scale's positions that go wrong in training, so that the finer ones learn to put it right;
    /// see [`ResidualQuantizer::encode_with_mistakes`](earthmapper::tokenizer::ResidualQuantizer::encode_with_mistakes).
    #[serde(default)]
    pub token_noise: f64,
    /// With aligned forcing: share of the known picture's positions that are blotted out (given the mean feature) in
    /// training, so that a street is also learned from where it went on next door, and few pairs are not learned by heart.
    #[serde(default)]
    pub blotted: f64,
    /// Weight of each scale in the loss, coarse to fine, adding up to one; when empty, every token counts the same. The
    /// coarse scales decide what a picture shows, but have few tokens.
    #[serde(default)]
    pub scale_weights: Vec<f64>,
    /// Numbers of the passes.
    #[serde(default)]
    pub precision: Precision,
    /// Semantic infusion; off when absent.
    #[serde(default)]
    pub semantic_infusion: Option<SemanticInfusionConfig>,
    /// One place for all pairs, when the data set has one but does not say so picture by picture.
    #[serde(default)]
    pub place: Option<Place>,
    /// What is told of the places of the training pairs; `hidden` and `shuffled` are for finding out what places are worth.
    #[serde(default)]
    pub places: Places,
    /// Facts for the model folder.
    #[serde(default)]
    pub trained_on: TrainedOn,
    /// Steps between lines of the log.
    #[serde(default = "ten")]
    pub log_every: u64,
    /// Steps between validations.
    #[serde(default = "five_hundred")]
    pub validate_every: u64,
    /// Steps between checkpoints.
    #[serde(default = "five_hundred")]
    pub checkpoint_every: u64,
}

fn one() -> usize {
    1
}

fn one_percent() -> f64 {
    0.01
}

fn four() -> u64 {
    4
}

fn tenth() -> f64 {
    0.1
}

fn half() -> f64 {
    0.5
}

fn unit() -> f64 {
    1.0
}

fn ten() -> u64 {
    10
}

fn five_hundred() -> u64 {
    500
}

impl TransformerTraining {
    pub(super) fn check(&self, device: &Device) -> Result<(), TrainError> {
        let wrong = |key, problem: String| Err(TrainError::Config { key, problem });
        if let Err(error) = self.transformer.check() {
            return wrong("transformer", error.to_string());
        }
        if self.transformer.modalities != [Modality::Satellite, Modality::Map] {
            return wrong(
                "transformer.modalities",
                "training on pairs needs [\"satellite\", \"map\"]".into(),
            );
        }
        let counts = [self.steps, self.log_every, self.validate_every, self.checkpoint_every, self.variants];
        if [self.batch_size, self.accumulate, self.workers].contains(&0) || counts.contains(&0) {
            return wrong(
                "steps, batch_size, accumulate, workers, variants, *_every",
                "must be above zero".into(),
            );
        }
        let shares = [
            ("hide_condition", self.hide_condition),
            ("hide_place", self.hide_place),
            ("joint_share", self.joint_share),
            ("to_map_share", self.to_map_share),
            ("token_noise", self.token_noise),
            ("blotted", self.blotted),
        ];
        for (key, share) in shares {
            if !(0.0..=1.0).contains(&share) {
                return wrong(key, format!("{share} is not between 0 and 1"));
            }
        }
        let weights: f64 = self.scale_weights.iter().sum();
        let wrong_weight = self.scale_weights.iter().any(|weight| weight.is_nan() || *weight < 0.0);
        if !self.scale_weights.is_empty() && (wrong_weight || (weights - 1.0).abs() > 1e-6) {
            return wrong("scale_weights", format!("must be at least 0 and add up to 1, not {weights}"));
        }
        if let Some(problem) = self.optimiser.problem() {
            return wrong("optimiser", problem);
        }
        if !(0.0..1.0).contains(&self.label_smoothing) || self.map_weight.is_nan() || self.map_weight < 0.0 {
            return wrong("label_smoothing, map_weight", "must be in [0, 1) and at least 0".into());
        }
        if self.precision == Precision::Bf16 && !device.supports_dtype(DType::BF16) {
            return wrong("precision", "this device has no 16-bit brain floats; use \"f32\"".into());
        }
        Ok(())
    }
}
