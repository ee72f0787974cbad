//! Configuration of the tokenizer, the transformer and a whole model folder. Unknown keys are errors.

use earthmapper_geo::Modality;
use serde::{Deserialize, Serialize};

use crate::scales::Scales;

/// What is wrong with a configuration, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct ConfigError {
    /// The offending key.
    pub key: &'static str,
    /// What is wrong and what would be right.
    pub problem: String,
}

fn wrong(key: &'static str, problem: impl Into<String>) -> ConfigError {
    ConfigError { key, problem: problem.into() }
}

/// The multi-scale tokenizer (Eq. 2–3, 5–7). The defaults are VAR's published tokenizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TokenizerConfig {
    /// Side of a picture in pixels.
    pub picture_side: usize,
    /// Sides of the token maps from coarse to fine; the last equals `picture_side` / stride.
    pub sides: Vec<usize>,
    /// Entries V of the one codebook.
    pub vocabulary: usize,
    /// Width d of a code and of the features.
    pub latent_width: usize,
    /// Depth D of the hierarchical residual quantization; 1 is VAR's tokenizer.
    pub quantizer_depth: usize,
    /// Pixels folded into channels before the first convolution (1 = none). With 4 the costly full-resolution
    /// convolutions are saved; the stride is `fold` · 2^(levels − 1).
    pub fold: usize,
    /// Channels at the first level.
    pub channels: usize,
    /// Channel multiplier of each level; every level but the last halves the side.
    pub multipliers: Vec<usize>,
    /// Residual blocks per level in the encoder (the decoder has one more).
    pub residual_blocks: usize,
    /// Whether the last level and the middle use self-attention.
    pub attention: bool,
    /// Whether a linear map of each `stride` × `stride` patch runs beside the convolutions, in both directions. It can
    /// be set from the data (principal components), so that training starts from a working codec.
    pub linear_path: bool,
    /// How many convolutions φ are shared over the scales.
    pub phi_count: usize,
    /// Mixing ratio of φ: h ← (1 − ratio)·h + ratio·φ(h).
    pub phi_ratio: f64,
    /// The decoder's shape, when it is not the encoder's mirrored. What is decoded costs little of a generation, and
    /// its shape does not change the tokens. Stays the last key: in TOML it is a table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decoder: Option<DecoderConfig>,
}

/// The convolutions of a decoder. Self-attention and the linear path are as [`TokenizerConfig`] says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecoderConfig {
    /// Side of the square of pixels that the last convolution makes per position; `fold` · 2^(levels − 1) is the
    /// encoder's stride.
    pub fold: usize,
    /// Channels at the finest level.
    pub channels: usize,
    /// Channel multiplier of each level from the finest to the coarsest; every level but the finest doubles the side.
    pub multipliers: Vec<usize>,
    /// Residual blocks per level less one, as the encoder's mirrored.
    pub residual_blocks: usize,
}

impl Default for TokenizerConfig {
    fn default() -> Self {
        Self {
            picture_side: 256,
            sides: vec![1, 2, 3, 4, 5, 6, 8, 10, 13, 16],
            vocabulary: 4096,
            latent_width: 32,
            quantizer_depth: 1,
            fold: 1,
            channels: 160,
            multipliers: vec![1, 1, 2, 2, 4],
            residual_blocks: 2,
            attention: true,
            linear_path: false,
            phi_count: 4,
            phi_ratio: 0.5,
            decoder: None,
        }
    }
}

impl TokenizerConfig {
    /// Pixels per side of one token of the finest scale.
    pub fn stride(&self) -> usize {
        stride(self.fold, &self.multipliers)
    }

    /// The decoder's shape: its own, or the encoder's.
    pub fn decoder_shape(&self) -> DecoderConfig {
        self.decoder.clone().unwrap_or_else(|| DecoderConfig {
            fold: self.fold,
            channels: self.channels,
            multipliers: self.multipliers.clone(),
            residual_blocks: self.residual_blocks,
        })
    }

    /// The scales of the pyramid.
    pub fn scales(&self) -> Scales {
        Scales::new(&self.sides)
    }

    /// Checks every key.
    ///
    /// # Errors
    /// The first key whose value cannot work, with what would.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.multipliers.is_empty() || self.multipliers.len() > 8 || self.multipliers.contains(&0) {
            return Err(wrong("multipliers", "needs one to eight multipliers above zero"));
        }
        if self.fold == 0 || self.channels == 0 || self.latent_width == 0 || self.residual_blocks == 0 {
            return Err(wrong("fold, channels, latent_width, residual_blocks", "must be above zero"));
        }
        if let Some(decoder) = &self.decoder {
            decoder.check(self.stride())?;
        }
        if self.vocabulary < 2 {
            return Err(wrong("vocabulary", "needs at least two codes"));
        }
        if self.quantizer_depth == 0 || self.quantizer_depth > 64 {
            return Err(wrong("quantizer_depth", "must be between 1 and 64"));
        }
        if self.phi_count == 0 || !(0.0..=1.0).contains(&self.phi_ratio) {
            return Err(wrong("phi_count, phi_ratio", "needs at least one φ and a ratio between 0 and 1"));
        }
        if self.sides.is_empty() || self.sides[0] == 0 || self.sides.windows(2).any(|w| w[0] > w[1]) {
            return Err(wrong("sides", "needs sides above zero that do not decrease"));
        }
        let finest = *self.sides.last().expect("not empty");
        if self.picture_side != finest * self.stride() {
            let want = finest * self.stride();
            return Err(wrong(
                "picture_side",
                format!(
                    "is {} but {finest} tokens of {} px make {want} px",
                    self.picture_side,
                    self.stride()
                ),
            ));
        }
        Ok(())
    }
}

impl DecoderConfig {
    fn check(&self, encoder_stride: usize) -> Result<(), ConfigError> {
        if self.multipliers.is_empty() || self.multipliers.len() > 8 || self.multipliers.contains(&0) {
            return Err(wrong("decoder.multipliers", "needs one to eight multipliers above zero"));
        }
        if self.fold == 0 || self.channels == 0 || self.residual_blocks == 0 {
            return Err(wrong("decoder.fold, channels, residual_blocks", "must be above zero"));
        }
        let (levels, own) = (self.multipliers.len(), stride(self.fold, &self.multipliers));
        if own != encoder_stride {
            let fold = self.fold;
            return Err(wrong(
                "decoder",
                format!(
                    "fold {fold} and {levels} multipliers make {own} px per token (fold · 2^(multipliers − 1)), but the \
                     encoder's make {encoder_stride} px; change decoder.fold or the number of decoder.multipliers"
                ),
            ));
        }
        Ok(())
    }
}

/// Pixels per side of one token.
fn stride(fold: usize, multipliers: &[usize]) -> usize {
    fold << (multipliers.len().max(1) - 1)
}

/// How attention scores are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttentionKind {
    /// q·k scaled by 0.25/√head width, as VAR's plain attention does.
    Dot,
    /// q and k of unit length times a learned scale per head.
    L2,
}

/// Where the six adaptive-norm vectors of a block come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AdaptiveNorm {
    /// Every block has its own projection of the condition.
    PerBlock,
    /// One projection for all blocks plus a learned offset per block.
    Shared,
}

/// The form of the GELU in the feed-forward layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// The exact form.
    Gelu,
    /// The tanh approximation, which VAR's weights were trained with.
    GeluTanh,
}

/// How a wholly known picture conditions the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Forcing {
    /// The paper's (Eq. 15): its tokens stand in the sequence and replace the model's own, scale by scale. The tokens of
    /// a scale see the known picture up to the scale before; those of the first scale do not see it at all.
    #[default]
    Sequence,
    /// Its features before quantization, at every scale's side, are added to the other pictures' tokens at the same
    /// place, and it is not in the sequence: every scale sees all of it, at half the tokens. For pictures that lie on
    /// each other, as these do.
    Aligned,
}

/// The joint transformer (Eq. 8–11). One dial, `depth`: width and heads follow unless they are given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TransformerConfig {
    /// Number of blocks.
    pub depth: usize,
    /// Width; 0 means 64 · depth.
    pub width: usize,
    /// Attention heads; 0 means depth.
    pub heads: usize,
    /// Hidden width of the feed-forward layer ÷ width.
    pub mlp_ratio: f64,
    /// Kind of attention scores.
    pub attention: AttentionKind,
    /// Kind of adaptive normalisation.
    pub adaptive_norm: AdaptiveNorm,
    /// Kind of activation.
    pub activation: Activation,
    /// Stochastic depth of the last block (rises linearly from 0); negative means 0.1 · depth / 24.
    pub drop_path: f64,
    /// ε of the layer norms.
    pub norm_epsilon: f64,
    /// The pictures modelled jointly, in the order they stand in the sequence.
    pub modalities: Vec<Modality>,
    /// How a wholly known picture conditions the others.
    pub forcing: Forcing,
    /// With aligned forcing: residual blocks of 3 × 3 convolutions that a known picture's features go through first.
    pub guide_blocks: usize,
    /// Whether the head predicts a vector in the codebook's space and scores every code by its likeness to it. Codes that
    /// look alike are then learned together, which a few pairs need; without it each code learns by itself.
    pub tied_head: bool,
    /// Octaves of the coordinate encoding: angles times 2^0 … 2^(octaves − 1).
    pub place_octaves: usize,
}

impl Default for TransformerConfig {
    fn default() -> Self {
        Self {
            depth: 16,
            width: 0,
            heads: 0,
            mlp_ratio: 4.0,
            attention: AttentionKind::L2,
            adaptive_norm: AdaptiveNorm::PerBlock,
            activation: Activation::GeluTanh,
            drop_path: -1.0,
            norm_epsilon: 1e-6,
            modalities: vec![Modality::Satellite, Modality::Map],
            forcing: Forcing::Sequence,
            guide_blocks: 0,
            tied_head: false,
            place_octaves: 17,
        }
    }
}

impl TransformerConfig {
    /// Width of the hidden states.
    pub fn width(&self) -> usize {
        if self.width == 0 { 64 * self.depth } else { self.width }
    }

    /// Number of attention heads.
    pub fn heads(&self) -> usize {
        if self.heads == 0 { self.depth } else { self.heads }
    }

    /// Stochastic depth of block `index`.
    pub fn drop_path(&self, index: usize) -> f64 {
        let last = if self.drop_path < 0.0 { 0.1 * self.depth as f64 / 24.0 } else { self.drop_path };
        if self.depth < 2 { last } else { last * index as f64 / (self.depth - 1) as f64 }
    }

    /// Checks every key.
    ///
    /// # Errors
    /// The first key whose value cannot work, with what would.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.depth == 0 {
            return Err(wrong("depth", "must be above zero"));
        }
        if !self.width().is_multiple_of(self.heads()) {
            return Err(wrong("heads", format!("{} must divide the width {}", self.heads(), self.width())));
        }
        if !(self.mlp_ratio > 0.0 && self.mlp_ratio <= 64.0) {
            return Err(wrong("mlp_ratio", "must be between 0 and 64"));
        }
        if self.drop_path.is_nan() || self.drop_path >= 1.0 {
            return Err(wrong("drop_path", "must be below 1"));
        }
        let twice = |(i, modality)| self.modalities[..i].contains(modality);
        if self.modalities.is_empty() || self.modalities.iter().enumerate().any(twice) {
            return Err(wrong("modalities", "needs at least one modality and none twice"));
        }
        if self.forcing == Forcing::Sequence && self.guide_blocks > 0 {
            return Err(wrong("guide_blocks", "needs forcing = \"aligned\""));
        }
        if !(1..=40).contains(&self.place_octaves) {
            return Err(wrong("place_octaves", "must be between 1 and 40"));
        }
        Ok(())
    }
}

/// What the weights were trained on: facts that a user of the model needs and that commands check.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainedOn {
    /// Ground size of one pixel in metres, when known.
    pub metres_per_pixel: Option<f64>,
    /// Web-map zoom level of the training tiles, when known.
    pub zoom: Option<u8>,
    /// Where on Earth.
    pub region: String,
    /// Look of the maps.
    pub map_style: String,
    /// Datum of the coordinates (`wgs84`, `gcj02`, `bd09`).
    pub datum: String,
    /// Whether the places of the training pictures were known to the model.
    pub places_known: bool,
}

/// `config.json` of a model folder (the tokenizer has a file of its own beside it).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EarthMapperConfig {
    /// Version of this format.
    pub format: u32,
    /// Name of the model.
    pub name: String,
    /// The transformer.
    pub transformer: TransformerConfig,
    /// What the weights were trained on.
    #[serde(default)]
    pub trained_on: TrainedOn,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_the_published_shapes() {
        let tokenizer = TokenizerConfig::default();
        tokenizer.check().unwrap();
        assert_eq!(tokenizer.stride(), 16);
        let transformer = TransformerConfig::default();
        transformer.check().unwrap();
        assert_eq!((transformer.width(), transformer.heads()), (1024, 16));
    }

    #[test]
    fn a_side_that_does_not_fit_names_the_key() {
        let config = TokenizerConfig { picture_side: 250, ..Default::default() };
        assert_eq!(config.check().unwrap_err().key, "picture_side");
        let unknown: Result<TokenizerConfig, _> = serde_json::from_str(r#"{"chanels": 3}"#);
        assert!(unknown.unwrap_err().to_string().contains("chanels"));
    }

    #[test]
    fn a_decoder_may_have_a_shape_of_its_own() {
        let text = r#"{"picture_side":256,"sides":[1,4,16],"vocabulary":1024,"latent_width":96,"quantizer_depth":2,
            "fold":8,"channels":64,"multipliers":[1,2],"residual_blocks":1,"attention":true,"linear_path":true,
            "phi_count":4,"phi_ratio":0.5,
            "decoder":{"fold":2,"channels":32,"multipliers":[1,1,2,4],"residual_blocks":1}}"#;
        let config: TokenizerConfig = serde_json::from_str(text).unwrap();
        config.check().unwrap();
        assert_eq!(config.decoder_shape(), config.decoder.clone().unwrap());
        let back: TokenizerConfig = toml::from_str(&toml::to_string(&config).unwrap()).unwrap();
        assert_eq!(back, config);

        let problem = |change: &dyn Fn(&mut DecoderConfig)| {
            let mut wrong = config.clone();
            change(wrong.decoder.as_mut().unwrap());
            wrong.check().unwrap_err()
        };
        let error = problem(&|decoder| decoder.fold = 4);
        assert_eq!(error.key, "decoder");
        assert!(error.problem.contains("32 px") && error.problem.contains("16 px"), "{error}");
        assert_eq!(problem(&|decoder| decoder.multipliers = vec![1, 2]).key, "decoder");
        for multipliers in [vec![], vec![1, 0, 2, 4], vec![1; 9]] {
            assert_eq!(
                problem(&|decoder| decoder.multipliers.clone_from(&multipliers)).key,
                "decoder.multipliers"
            );
        }
        assert!(problem(&|decoder| decoder.fold = 0).key.contains("fold"));
        assert!(problem(&|decoder| decoder.channels = 0).key.contains("channels"));
        assert!(problem(&|decoder| decoder.residual_blocks = 0).key.contains("residual_blocks"));
        for text in
            [text.replace(r#"{"fold":2,"#, r#"{"folds":2,"fold":2,"#), text.replace(r#"{"fold":2,"#, "{")]
        {
            let error = serde_json::from_str::<TokenizerConfig>(&text).unwrap_err().to_string();
            assert!(error.contains("fold"), "{error}");
        }
    }

    #[test]
    fn the_shape_of_the_encoder_is_the_decoders_unless_it_is_given() {
        let config = TokenizerConfig::default();
        let shape = config.decoder_shape();
        assert_eq!((shape.fold, shape.channels, shape.residual_blocks), (1, 160, 2));
        assert_eq!(shape.multipliers, config.multipliers);
        // Folders from before the key are written as they were.
        assert!(!serde_json::to_string(&config).unwrap().contains("decoder"));
        let bundled = include_str!("../../../models/earthmapper-mini/tokenizer/config.json");
        let read: TokenizerConfig = serde_json::from_str(bundled).unwrap();
        assert_eq!(serde_json::to_string_pretty(&read).unwrap().trim(), bundled.trim());
    }
}
