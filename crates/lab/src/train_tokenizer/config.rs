//! What a training of the tokenizer is told.

use std::path::PathBuf;

use burn::tensor::Tensor;
use earthmapper::TokenizerConfig;
use earthmapper_geo::pairs::{PairSelection, PairSource};
use serde::{Deserialize, Serialize};

use crate::data::{AugmentConfig, LoaderConfig};
use crate::nets::discriminator::PatchDiscriminatorConfig;
use crate::optimiser::OptimiserConfig;
use crate::session::TrainError;
use crate::start_from_data::StartFromData;

/// Weights of the losses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TokenizerLosses {
    /// Mean absolute difference.
    pub absolute: f64,
    /// Mean squared difference.
    pub squared: f64,
    /// Difference of neighbouring pixels' steps.
    pub edges: f64,
    /// 1 − SSIM, as it is measured.
    pub ssim: f64,
    /// How much more a map's pixels count than a photograph's: its white roads differ from its land by a few grey
    /// levels only.
    pub map_weight: f64,
    /// Weight of the codebook and commitment terms together.
    pub quantizer: f64,
    /// β of the commitment term.
    pub beta: f64,
    /// LPIPS; off without weights.
    pub perceptual: Option<PerceptualLoss>,
    /// Patch discriminator; off when absent.
    pub adversarial: Option<AdversarialLoss>,
}

impl Default for TokenizerLosses {
    fn default() -> Self {
        Self {
            absolute: 1.0,
            squared: 1.0,
            edges: 0.0,
            ssim: 0.0,
            map_weight: 1.0,
            quantizer: 1.0,
            beta: 0.25,
            perceptual: None,
            adversarial: None,
        }
    }
}

/// LPIPS as a loss.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PerceptualLoss {
    /// Weight.
    pub weight: f64,
    /// VGG-16 in torchvision's names.
    pub vgg: PathBuf,
    /// LPIPS heads, when they are not in the same file.
    pub heads: Option<PathBuf>,
}

/// A patch discriminator as a loss.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdversarialLoss {
    /// Weight, multiplied by the adaptive weight.
    pub weight: f64,
    /// First step at which it counts: the reconstruction must be worth judging.
    pub start: u64,
    /// The discriminator.
    #[serde(default)]
    pub discriminator: PatchDiscriminatorConfig,
    /// Its learning rate.
    pub learning_rate: f64,
    /// Which pictures it judges.
    #[serde(default)]
    pub pictures: Judged,
    /// Weight of feature matching, in the terms of a photograph's reconstruction; 0 leaves it out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub features: f64,
}

/// Configurations that were written before there was such a weight stay what they are.
// Serde passes a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(weight: &f64) -> bool {
    *weight == 0.0
}

/// Which pictures the discriminator judges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Judged {
    /// Photographs and maps.
    #[default]
    Both,
    /// Photographs: a map's plain areas are right or wrong, and what looks like a map is not enough.
    Satellite,
}

impl Judged {
    /// Those of a batch of photographs and as many maps.
    pub(super) fn of(self, batch: Tensor<4>) -> Tensor<4> {
        match self {
            Self::Both => batch,
            Self::Satellite => {
                let photographs = batch.dims()[0] / 2;
                batch.narrow(0, 0, photographs)
            }
        }
    }
}

/// What a training changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Learn {
    /// The whole tokenizer.
    #[default]
    All,
    /// What comes after the quantizer. Tokens stay what they are, and so does a transformer that was trained on them.
    Decoder,
}

/// Revival of codes that are never chosen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Revival {
    /// Codes unused for this many steps are replaced by residuals of the current pictures; 0 is never.
    pub every: u64,
    /// No revival after this share of the steps, so that the codebook can settle.
    pub until: f64,
}

impl Default for Revival {
    fn default() -> Self {
        Self { every: 50, until: 0.8 }
    }
}

/// A training of the tokenizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerTraining {
    /// Seed of weights, order and augmentation.
    #[serde(default)]
    pub seed: u64,
    /// Steps in all.
    pub steps: u64,
    /// Where the pairs are.
    pub data: PairSource,
    /// Pairs to learn from.
    #[serde(default)]
    pub training: PairSelection,
    /// Pairs to measure on.
    #[serde(default)]
    pub validation: PairSelection,
    /// Loading.
    #[serde(default)]
    pub loader: LoaderConfig,
    /// Augmentation; its side is the tokenizer's.
    #[serde(default)]
    pub augment: AugmentConfig,
    /// A tokenizer folder, a model folder or a tokenizer's run whose weights training starts from. A decoder of another
    /// shape starts from noise.
    #[serde(default)]
    pub from: Option<PathBuf>,
    /// What learns.
    #[serde(default)]
    pub learn: Learn,
    /// When the decoder learns alone: share of the positions whose codes are exchanged for another position's, so that
    /// it learns to make the best of a transformer's mistakes.
    #[serde(default)]
    pub token_noise: f64,
    /// The tokenizer.
    pub tokenizer: TokenizerConfig,
    /// Losses.
    #[serde(default)]
    pub losses: TokenizerLosses,
    /// Optimiser.
    #[serde(default)]
    pub optimiser: OptimiserConfig,
    /// Where the codec starts.
    #[serde(default)]
    pub start: StartFromData,
    /// Revival of dead codes.
    #[serde(default)]
    pub revival: Revival,
    /// Steps between lines of the log.
    #[serde(default = "every_10")]
    pub log_every: u64,
    /// Steps between validations, with a sample sheet.
    #[serde(default = "every_500")]
    pub validate_every: u64,
    /// Steps between checkpoints.
    #[serde(default = "every_500")]
    pub checkpoint_every: u64,
}

fn every_10() -> u64 {
    10
}

fn every_500() -> u64 {
    500
}

impl TokenizerTraining {
    pub(super) fn check(&self) -> Result<(), TrainError> {
        let wrong = |key, problem: String| Err(TrainError::Config { key, problem });
        if let Err(error) = self.tokenizer.check() {
            return wrong("tokenizer", error.to_string());
        }
        if self.augment.picture_side as usize != self.tokenizer.picture_side {
            let (have, want) = (self.augment.picture_side, self.tokenizer.picture_side);
            return wrong("augment.picture_side", format!("is {have}, the tokenizer's is {want}"));
        }
        if let Some(problem) = self.optimiser.problem() {
            return wrong("optimiser", problem);
        }
        if self.learn == Learn::Decoder && self.from.is_none() {
            let problem = "learn = \"decoder\" needs the tokenizer whose tokens stay; name its folder".into();
            return wrong("from", problem);
        }
        if !(0.0..=1.0).contains(&self.token_noise) {
            return wrong("token_noise", format!("is {}; give a share between 0 and 1", self.token_noise));
        }
        if self.learn == Learn::All && self.token_noise > 0.0 {
            return wrong("token_noise", "needs learn = \"decoder\"; leave it out".into());
        }
        let side = self.tokenizer.picture_side;
        if let Some(loss) = &self.losses.adversarial
            && loss.discriminator.patches(side).is_none()
        {
            let problem = format!(
                "needs a width and layers above zero, and so few layers that something is left of {side} px"
            );
            return wrong("losses.adversarial.discriminator", problem);
        }
        if let Some(loss) = &self.losses.adversarial
            && !(loss.features >= 0.0 && loss.features.is_finite())
        {
            return wrong("losses.adversarial.features", format!("is {}; give 0 or more", loss.features));
        }
        if self.steps == 0 || self.log_every == 0 || self.validate_every == 0 || self.checkpoint_every == 0 {
            return wrong("steps, log_every, validate_every, checkpoint_every", "must be above zero".into());
        }
        Ok(())
    }
}
