//! The multi-scale tokenizer: picture ↔ token pyramid (Eq. 2–3, 5–7).

mod autoencoder;
mod convolution;
mod encoding;
mod packed;
mod pyramid;
mod quantizer;

pub(crate) use autoencoder::ResidualBlock;
pub use autoencoder::{Decoder, Encoder, LinearPath};
pub use encoding::Encoding;
pub(crate) use packed::PackedResidual;
pub use packed::PackedTokenizer;
pub use pyramid::TokenPyramid;
pub(crate) use quantizer::codes_tensor;
pub use quantizer::{Quantized, ResidualQuantizer};

use burn::module::Module;
use burn::nn::conv::Conv2d;
use burn::tensor::Tensor;

use crate::config::TokenizerConfig;
use crate::init::Init;
use crate::scales::Scales;

/// Encoder, quantizer and decoder. One tokenizer, with one codebook, serves all modalities.
#[derive(Module, Debug)]
pub struct MultiScaleTokenizer {
    encoder: Encoder,
    before_quantizer: Conv2d,
    /// The quantizer.
    pub quantizer: ResidualQuantizer,
    after_quantizer: Conv2d,
    decoder: Decoder,
    /// The linear path, when the configuration has one.
    pub linear: Option<LinearPath>,
}

impl MultiScaleTokenizer {
    /// Fresh weights from `init`.
    ///
    /// # Panics
    /// When `config` does not pass [`TokenizerConfig::check`].
    pub fn new(config: &TokenizerConfig, init: &mut Init) -> Self {
        config.check().expect("a checked configuration");
        let width = config.latent_width;
        Self {
            encoder: Encoder::new(config, init),
            before_quantizer: match config.linear_path {
                true => init.silent_conv(width, width, 3),
                false => init.conv(width, width, 3),
            },
            quantizer: ResidualQuantizer::new(config, init),
            after_quantizer: init.conv(width, width, 3),
            decoder: Decoder::new(config, init),
            linear: config.linear_path.then(|| LinearPath::new(config, init)),
        }
    }

    /// The scales of the pyramid.
    pub fn scales(&self) -> &Scales {
        self.quantizer.scales()
    }

    /// Pictures `[batch, 3, side, side]` in [−1, 1] → features `[batch, latent, side/stride, side/stride]`.
    pub fn features(&self, pictures: Tensor<4>) -> Tensor<4> {
        let features = self.before_quantizer.forward(self.encoder.forward(pictures.clone()));
        match &self.linear {
            Some(linear) => features + linear.encode(pictures),
            None => features,
        }
    }

    /// Pictures → tokens and features.
    pub fn encode(&self, pictures: Tensor<4>) -> Encoding {
        let features = self.features(pictures);
        Encoding { tokens: self.quantizer.encode(features.clone()).0, features }
    }

    /// A reconstruction f̂ → pictures in [−1, 1].
    pub fn decode_features(&self, reconstruction: Tensor<4>) -> Tensor<4> {
        self.decode_unclamped(reconstruction).clamp(-1.0, 1.0)
    }

    /// A reconstruction f̂ → pictures, not clamped: what losses are measured on.
    pub fn decode_unclamped(&self, reconstruction: Tensor<4>) -> Tensor<4> {
        let hidden = self.decode_before_last(reconstruction.clone());
        self.decode_last(hidden, reconstruction)
    }

    /// The decoder up to its last convolution: with [`decode_last`](Self::decode_last) it is
    /// [`decode_unclamped`](Self::decode_unclamped). The adaptive adversarial weight is measured between the two.
    pub fn decode_before_last(&self, reconstruction: Tensor<4>) -> Tensor<4> {
        self.decoder.before_last(self.after_quantizer.forward(reconstruction))
    }

    /// The decoder's last convolution, plus the linear path from f̂ itself.
    pub fn decode_last(&self, hidden: Tensor<4>, reconstruction: Tensor<4>) -> Tensor<4> {
        let picture = self.decoder.last(hidden);
        match &self.linear {
            Some(linear) => picture + linear.decode(reconstruction),
            None => picture,
        }
    }

    /// Tokens → pictures in [−1, 1].
    pub fn decode(&self, tokens: &TokenPyramid) -> Tensor<4> {
        let last = self.quantizer.reconstructions(tokens).pop().expect("at least one scale");
        self.decode_features(last)
    }

    /// This tokenizer's way to the tokens, and another's from them to the picture: its decoder, the convolution before
    /// it and the linear path's way out.
    ///
    /// # Panics
    /// When only one of the two has a linear path.
    pub fn with_decoder_of(self, other: &Self) -> Self {
        let linear = match (self.linear, &other.linear) {
            (Some(own), Some(other)) => Some(LinearPath { out: other.out.clone(), ..own }),
            (None, None) => None,
            _ => panic!("only one of the tokenizers has a linear path"),
        };
        Self {
            after_quantizer: other.after_quantizer.clone(),
            decoder: other.decoder.clone(),
            linear,
            ..self
        }
    }

    /// Weight of the decoder's last convolution, which the adaptive adversarial weight is measured at.
    pub fn last_weight(&self) -> Tensor<4> {
        self.decoder.last_weight()
    }
}
