//! Semantic infusion, SI (Eq. 12–14): training only.
//!
//! A light network A maps the transformer's hidden states at scale k to the width of a frozen DINOv2. The target is
//! DINOv2's features of the picture decoded from the tokens up to scale k, resized to h_k × w_k, for both modalities.
//! L_sem is the mean over the scales of the squared distance; L = L_jot + σ · L_sem.

use std::path::PathBuf;

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::Tensor;
use burn::tensor::activation::gelu;
use earthmapper::init::Init;
use earthmapper::resample::{Resize, resize};
use earthmapper::tokenizer::{MultiScaleTokenizer, TokenPyramid};
use serde::{Deserialize, Serialize};

use crate::nets::dinov2::DinoV2;

/// Where the targets come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Targets {
    /// The paper's: for each scale the picture decoded from the tokens up to that scale; K decodings and K passes
    /// through DINOv2 per picture.
    Exact,
    /// One decoding of all tokens per picture; every scale's target is area-resized from its features.
    #[default]
    Cheap,
}

/// Settings of semantic infusion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SemanticInfusionConfig {
    /// DINOv2 weights in any of the three name schemes.
    pub weights: PathBuf,
    /// σ.
    #[serde(default = "half")]
    pub sigma: f64,
    /// Where the targets come from.
    #[serde(default)]
    pub targets: Targets,
}

fn half() -> f64 {
    0.5
}

/// The alignment network A.
#[derive(Module, Debug)]
pub struct Alignment {
    up: Linear,
    down: Linear,
}

impl Alignment {
    /// From hidden states of `width` to DINOv2 features of `features`.
    pub fn new(width: usize, features: usize, init: &mut Init) -> Self {
        let deviation = (1.0 / width as f32).sqrt();
        Self { up: init.linear(width, width, deviation), down: init.linear(width, features, deviation) }
    }

    /// `[batch, tokens, width]` → `[batch, tokens, features]`.
    pub fn forward(&self, hidden: Tensor<3>) -> Tensor<3> {
        self.down.forward(gelu(self.up.forward(hidden)))
    }
}

/// Targets of one modality for each scale, `[batch, tokens, features]`; without gradients.
pub fn targets(
    dinov2: &DinoV2,
    tokenizer: &MultiScaleTokenizer,
    tokens: &TokenPyramid,
    form: Targets,
) -> Vec<Tensor<3>> {
    let scales = tokenizer.scales();
    let mut reconstructions = tokenizer.quantizer.reconstructions(tokens);
    if form == Targets::Cheap {
        reconstructions.drain(..scales.len() - 1);
    }
    let features: Vec<Tensor<4>> = reconstructions
        .into_iter()
        .map(|reconstruction| dinov2.patch_features(tokenizer.decode_features(reconstruction)))
        .collect();
    (0..scales.len())
        .map(|k| {
            let features = features.get(k).unwrap_or(&features[features.len() - 1]).clone();
            let [batch, width, ..] = features.dims();
            let small = resize(features, scales.side(k), Resize::Area);
            small.reshape([batch, width, scales.tokens(k)]).swap_dims(1, 2)
        })
        .collect()
}

/// L_sem (Eq. 13): the mean over scales of the mean squared distance between A's output and the targets.
///
/// `hidden` is `[batch, 2 · tokens, width]` as [`earthmapper::JointTransformer::forward`] gives it with both
/// modalities visible; `targets` holds one list of scales per modality.
pub fn semantic_loss(alignment: &Alignment, hidden: Tensor<3>, targets: &[Vec<Tensor<3>>]) -> Tensor<1> {
    let aligned = alignment.forward(hidden);
    let scales = targets[0].len();
    let mut start = 0;
    let mut sum = Tensor::zeros([1], &aligned.device());
    for k in 0..scales {
        for modality in targets {
            let target = modality[k].clone();
            let [_, count, _] = target.dims();
            sum = sum + (aligned.clone().narrow(1, start, count) - target).square().mean();
            start += count;
        }
    }
    sum.div_scalar((scales * targets.len()) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, Distribution};

    #[test]
    fn the_loss_is_zero_on_target_and_pulls_toward_it() {
        let device = Device::flex().autodiff();
        let alignment = Alignment::new(8, 6, &mut Init::new(1, &device));
        let hidden = Tensor::<3>::random([2, 10, 8], Distribution::Default, &device).require_grad();
        let aligned = alignment.forward(hidden.clone()).detach();
        let part = |start, count| aligned.clone().narrow(1, start, count);
        // Two modalities, scales of 1 and 4 tokens.
        let exact = [vec![part(0, 1), part(2, 4)], vec![part(1, 1), part(6, 4)]];
        assert!(semantic_loss(&alignment, hidden.clone(), &exact).into_scalar::<f32>() < 1e-10);
        let off = [vec![part(0, 1).add_scalar(1.0), part(2, 4)], vec![part(1, 1), part(6, 4)]];
        let loss = semantic_loss(&alignment, hidden.clone(), &off);
        assert!((loss.clone().into_scalar::<f32>() - 0.25).abs() < 1e-5);
        let gradient = hidden.grad(&loss.backward()).unwrap();
        let moved = gradient.clone().narrow(1, 0, 1).abs().sum().into_scalar::<f32>();
        let still = gradient.narrow(1, 1, 9).abs().sum().into_scalar::<f32>();
        assert!(moved > 0.0 && still < 1e-6, "only the token that is off its target is pulled");
    }
}
