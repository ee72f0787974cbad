//! What the tokenizer makes of a batch of pictures.

use burn::tensor::Tensor;

use super::pyramid::TokenPyramid;

/// Tokens of a batch of pictures, and the features that they were quantized from.
#[derive(Clone, Debug)]
pub struct Encoding {
    /// The tokens.
    pub tokens: TokenPyramid,
    /// The encoder's features before quantization, `[batch, latent, side, side]`.
    pub features: Tensor<4>,
}

impl Encoding {
    /// Pictures in the batch.
    pub fn batch(&self) -> usize {
        self.tokens.batch()
    }

    /// Picture `index` alone.
    pub fn picture(&self, index: usize) -> Self {
        Self { tokens: self.tokens.picture(index), features: self.features.clone().narrow(0, index, 1) }
    }

    /// Several encodings as one batch.
    ///
    /// # Panics
    /// When there is none or their shapes differ.
    pub fn stack(encodings: &[&Self]) -> Self {
        Self {
            tokens: TokenPyramid::stack(&encodings.iter().map(|each| &each.tokens).collect::<Vec<_>>()),
            features: Tensor::cat(encodings.iter().map(|each| each.features.clone()).collect(), 0),
        }
    }
}
