//! The convolutional encoder and decoder of the tokenizer: VQGAN's, as VAR uses it.

use burn::module::Module;
use burn::nn::GroupNorm;
use burn::nn::conv::Conv2d;
use burn::tensor::Tensor;

use crate::activation::{group_norm_silu, softmax_last};
use crate::config::TokenizerConfig;
use crate::init::Init;

use super::convolution::convolve;

/// Two convolutions with a residual connection.
#[derive(Module, Debug)]
pub struct ResidualBlock {
    pub(super) norm1: GroupNorm,
    pub(super) conv1: Conv2d,
    pub(super) norm2: GroupNorm,
    pub(super) conv2: Conv2d,
    pub(super) shortcut: Option<Conv2d>,
}

impl ResidualBlock {
    pub(crate) fn new(input: usize, output: usize, init: &mut Init) -> Self {
        Self {
            norm1: init.group_norm(input),
            conv1: init.conv(input, output, 3),
            norm2: init.group_norm(output),
            conv2: init.conv(output, output, 3),
            shortcut: (input != output).then(|| init.conv(input, output, 1)),
        }
    }

    /// `[batch, input, h, w]` → `[batch, output, h, w]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let h = convolve(&self.conv1, group_norm_silu(&self.norm1, x.clone()));
        let h = convolve(&self.conv2, group_norm_silu(&self.norm2, h));
        match &self.shortcut {
            Some(shortcut) => shortcut.forward(x) + h,
            None => x + h,
        }
    }
}

/// Single-head self-attention over all positions of a feature map.
#[derive(Module, Debug)]
pub struct SpatialAttention {
    pub(super) norm: GroupNorm,
    pub(super) qkv: Conv2d,
    pub(super) out: Conv2d,
}

impl SpatialAttention {
    fn new(channels: usize, init: &mut Init) -> Self {
        Self {
            norm: init.group_norm(channels),
            qkv: init.conv(channels, 3 * channels, 1),
            out: init.conv(channels, channels, 1),
        }
    }

    /// `[batch, channels, h, w]` → the same shape.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [batch, channels, height, width] = x.dims();
        let qkv = self.qkv.forward(self.norm.forward(x.clone()));
        let parts = qkv.reshape([batch, 3 * channels, height * width]).chunk(3, 1);
        let [query, key, value] = parts.try_into().expect("three chunks");
        let scores = query.transpose().matmul(key).mul_scalar((channels as f64).powf(-0.5));
        let mixed = value.matmul(softmax_last(scores).transpose());
        x + self.out.forward(mixed.reshape([batch, channels, height, width]))
    }
}

/// One level of the encoder or the decoder: residual blocks, maybe each followed by attention, then a change of side.
#[derive(Module, Debug)]
pub struct Level {
    pub(super) blocks: Vec<ResidualBlock>,
    pub(super) attentions: Vec<SpatialAttention>,
    pub(super) resample: Option<Conv2d>,
}

impl Level {
    fn features(&self, mut x: Tensor<4>) -> Tensor<4> {
        for (i, block) in self.blocks.iter().enumerate() {
            x = block.forward(x);
            if let Some(attention) = self.attentions.get(i) {
                x = attention.forward(x);
            }
        }
        x
    }
}

/// Residual block, attention, residual block at the smallest side.
#[derive(Module, Debug)]
pub struct Middle {
    pub(super) block1: ResidualBlock,
    pub(super) attention: Option<SpatialAttention>,
    pub(super) block2: ResidualBlock,
}

impl Middle {
    fn new(channels: usize, attention: bool, init: &mut Init) -> Self {
        Self {
            block1: ResidualBlock::new(channels, channels, init),
            attention: attention.then(|| SpatialAttention::new(channels, init)),
            block2: ResidualBlock::new(channels, channels, init),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let mut x = self.block1.forward(x);
        if let Some(attention) = &self.attention {
            x = attention.forward(x);
        }
        self.block2.forward(x)
    }
}

/// Picture → features.
#[derive(Module, Debug)]
pub struct Encoder {
    pub(super) conv_in: Conv2d,
    pub(super) levels: Vec<Level>,
    pub(super) middle: Middle,
    pub(super) norm_out: GroupNorm,
    pub(super) conv_out: Conv2d,
    #[module(skip)]
    pub(super) fold: usize,
}

impl Encoder {
    pub(super) fn new(config: &TokenizerConfig, init: &mut Init) -> Self {
        let last = config.multipliers.len() - 1;
        let conv_in = init.conv(3 * config.fold * config.fold, config.channels, 3);
        let mut width = config.channels;
        let mut levels = Vec::new();
        for (i, multiplier) in config.multipliers.iter().enumerate() {
            let output = config.channels * multiplier;
            let mut level = Level { blocks: Vec::new(), attentions: Vec::new(), resample: None };
            for _ in 0..config.residual_blocks {
                level.blocks.push(ResidualBlock::new(width, output, init));
                width = output;
                if config.attention && i == last {
                    level.attentions.push(SpatialAttention::new(width, init));
                }
            }
            if i < last {
                level.resample = Some(init.conv_with(width, width, 3, 2, 0));
            }
            levels.push(level);
        }
        Self {
            conv_in,
            levels,
            middle: Middle::new(width, config.attention, init),
            norm_out: init.group_norm(width),
            conv_out: init.conv(width, config.latent_width, 3),
            fold: config.fold,
        }
    }

    /// `[batch, 3, side, side]` in [−1, 1] → `[batch, latent, side/stride, side/stride]`.
    pub fn forward(&self, picture: Tensor<4>) -> Tensor<4> {
        let mut x = convolve(&self.conv_in, fold_pixels(picture, self.fold));
        for level in &self.levels {
            x = level.features(x);
            if let Some(down) = &level.resample {
                // The reference pads right and bottom only.
                x = down.forward(x.pad((0, 1, 0, 1), 0.0f32));
            }
        }
        let x = self.middle.forward(x);
        convolve(&self.conv_out, group_norm_silu(&self.norm_out, x))
    }
}

/// Features → picture.
#[derive(Module, Debug)]
pub struct Decoder {
    pub(super) conv_in: Conv2d,
    pub(super) middle: Middle,
    /// From the finest level to the coarsest, as the reference numbers them; run in reverse.
    pub(super) levels: Vec<Level>,
    pub(super) norm_out: GroupNorm,
    pub(super) conv_out: Conv2d,
    #[module(skip)]
    pub(super) fold: usize,
}

impl Decoder {
    pub(super) fn new(config: &TokenizerConfig, init: &mut Init) -> Self {
        let shape = config.decoder_shape();
        let last = shape.multipliers.len() - 1;
        let mut width = shape.channels * shape.multipliers[last];
        let conv_in = init.conv(config.latent_width, width, 3);
        let middle = Middle::new(width, config.attention, init);
        let mut levels = Vec::new();
        for (i, multiplier) in shape.multipliers.iter().enumerate().rev() {
            let output = shape.channels * multiplier;
            let mut level = Level { blocks: Vec::new(), attentions: Vec::new(), resample: None };
            for _ in 0..=shape.residual_blocks {
                level.blocks.push(ResidualBlock::new(width, output, init));
                width = output;
                if config.attention && i == last {
                    level.attentions.push(SpatialAttention::new(width, init));
                }
            }
            if i > 0 {
                level.resample = Some(init.conv(width, width, 3));
            }
            levels.insert(0, level);
        }
        Self {
            conv_in,
            middle,
            levels,
            norm_out: init.group_norm(width),
            conv_out: match config.linear_path {
                true => init.silent_conv(width, 3 * shape.fold * shape.fold, 3),
                false => init.conv(width, 3 * shape.fold * shape.fold, 3),
            },
            fold: shape.fold,
        }
    }

    /// `[batch, latent, h, w]` → hidden maps before the last convolution.
    pub(super) fn before_last(&self, features: Tensor<4>) -> Tensor<4> {
        let mut x = self.middle.forward(convolve(&self.conv_in, features));
        for level in self.levels.iter().rev() {
            x = level.features(x);
            if let Some(up) = &level.resample {
                x = convolve(up, double(x));
            }
        }
        group_norm_silu(&self.norm_out, x)
    }

    /// The last convolution: hidden maps → `[batch, 3, h·stride, w·stride]`, not clamped.
    pub(super) fn last(&self, hidden: Tensor<4>) -> Tensor<4> {
        unfold_pixels(convolve(&self.conv_out, hidden), self.fold)
    }

    /// Weight of the last convolution, which the adaptive adversarial weight is measured at.
    pub fn last_weight(&self) -> Tensor<4> {
        self.conv_out.weight.val()
    }
}

/// The linear map of patches that runs beside the convolutions.
#[derive(Module, Debug)]
pub struct LinearPath {
    /// Patch → code space, a 1 × 1 convolution of folded pixels.
    pub into: Conv2d,
    /// Code space → patch.
    pub out: Conv2d,
    #[module(skip)]
    pub(super) stride: usize,
}

impl LinearPath {
    pub(super) fn new(config: &TokenizerConfig, init: &mut Init) -> Self {
        let patch = 3 * config.stride() * config.stride();
        Self {
            into: init.conv(patch, config.latent_width, 1),
            out: init.conv(config.latent_width, patch, 1),
            stride: config.stride(),
        }
    }

    /// `[batch, 3, h, w]` → `[batch, latent, h/stride, w/stride]`.
    pub fn encode(&self, pictures: Tensor<4>) -> Tensor<4> {
        self.into.forward(self.patches(pictures))
    }

    /// `[batch, latent, h, w]` → `[batch, 3, h·stride, w·stride]`.
    pub fn decode(&self, features: Tensor<4>) -> Tensor<4> {
        unfold_pixels(self.out.forward(features), self.stride)
    }

    /// Pictures as patches `[batch, 3·stride², h/stride, w/stride]`.
    pub fn patches(&self, pictures: Tensor<4>) -> Tensor<4> {
        fold_pixels(pictures, self.stride)
    }
}

/// Nearest-neighbour doubling of both sides.
fn double(x: Tensor<4>) -> Tensor<4> {
    let [batch, channels, height, width] = x.dims();
    let x = x.reshape([batch * channels, height, 1, width, 1]);
    let x = x.expand([batch * channels, height, 2, width, 2]);
    x.reshape([batch, channels, 2 * height, 2 * width])
}

/// `[batch, 3, h, w]` → `[batch, 3·fold², h/fold, w/fold]`.
fn fold_pixels(x: Tensor<4>, fold: usize) -> Tensor<4> {
    if fold == 1 {
        return x;
    }
    let [batch, channels, height, width] = x.dims();
    x.reshape([batch, channels, height / fold, fold, width / fold, fold])
        .permute([0, 1, 3, 5, 2, 4])
        .reshape([batch, channels * fold * fold, height / fold, width / fold])
}

/// The inverse of [`fold_pixels`].
fn unfold_pixels(x: Tensor<4>, fold: usize) -> Tensor<4> {
    if fold == 1 {
        return x;
    }
    let [batch, channels, height, width] = x.dims();
    x.reshape([batch, channels / (fold * fold), fold, fold, height, width])
        .permute([0, 1, 4, 2, 5, 3])
        .reshape([batch, channels / (fold * fold), height * fold, width * fold])
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, Distribution};

    #[test]
    fn folding_is_undone_by_unfolding() {
        let x = Tensor::<4>::random([2, 3, 8, 12], Distribution::Default, &Device::flex());
        let folded = fold_pixels(x.clone(), 4);
        assert_eq!(folded.dims(), [2, 48, 2, 3]);
        assert_eq!(unfold_pixels(folded, 4).into_data(), x.into_data());
    }
}
