//! How a wholly known picture is seen when forcing is aligned.

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::Tensor;

use crate::init::Init;
use crate::resample::area_tokens;
use crate::scales::Scales;
use crate::tokenizer::ResidualBlock;

use super::{Moments, standardised};

/// Embeds the features of a known picture of one modality.
///
/// The features are the encoder's, before quantization: the known picture is known exactly, so nothing of it need be
/// lost to codes. Residual blocks let each token see its neighbourhood before attention mixes all of them; few pairs
/// are then enough to learn that a street goes on where it went on next door.
#[derive(Module, Debug)]
pub struct Guide {
    pub(super) embed: Linear,
    pub(super) blocks: Vec<ResidualBlock>,
}

impl Guide {
    pub(super) fn new(latent: usize, width: usize, blocks: usize, init: &mut Init) -> Self {
        Self {
            embed: init.linear(latent, width, (1.0 / (3.0 * width as f32)).sqrt()),
            blocks: (0..blocks).map(|_| ResidualBlock::new(width, width, init)).collect(),
        }
    }

    /// `[batch, latent, side, side]` → `[batch, tokens, width]` at every scale's side.
    pub(super) fn forward(&self, features: Tensor<4>, scales: &Scales) -> Vec<Tensor<3>> {
        let [batch, _, height, width] = features.dims();
        let rows = self.embed.forward(features.permute([0, 2, 3, 1]));
        let hidden = rows.dims()[3];
        let mut map = rows.reshape([batch, height, width, hidden]).permute([0, 3, 1, 2]);
        for block in &self.blocks {
            map = block.forward(map);
        }
        (0..scales.len()).map(|k| area_tokens(map.clone(), scales.side(k))).collect()
    }

    pub(super) fn standardised(mut self, moments: &Moments) -> Self {
        self.embed = standardised(self.embed, moments);
        self
    }
}
