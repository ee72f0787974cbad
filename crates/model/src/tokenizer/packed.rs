//! The tokenizer's encoder and decoder with packed weights, for inference on a CPU.

use burn::tensor::Tensor;
use earthmapper_kernels::{Convolution, KeyValues, Map, Scores, Window};

use crate::packed::{Norm, convolution, from_map, to_map};

use super::MultiScaleTokenizer;
use super::autoencoder::{Decoder, Encoder, Level, Middle, ResidualBlock, SpatialAttention};

const SAME: fn(usize) -> Window = Window::same;

/// [`ResidualBlock`].
#[derive(Debug)]
pub(crate) struct PackedResidual {
    norm1: Norm,
    conv1: Convolution,
    norm2: Norm,
    conv2: Convolution,
    shortcut: Option<Convolution>,
}

impl PackedResidual {
    /// For maps of about the given `side`.
    pub(crate) fn new(block: &ResidualBlock, side: usize) -> Self {
        Self {
            norm1: Norm::new(&block.norm1),
            conv1: convolution(&block.conv1, SAME(3), side),
            norm2: Norm::new(&block.norm2),
            conv2: convolution(&block.conv2, SAME(3), side),
            shortcut: block.shortcut.as_ref().map(|conv| convolution(conv, SAME(1), side)),
        }
    }

    pub(crate) fn apply(&self, x: &Map) -> Map {
        // Each map goes as soon as the next one is there.
        let h = self.norm2.apply_silu(&self.conv1.apply(&self.norm1.apply_silu(x), None));
        match &self.shortcut {
            Some(shortcut) => self.conv2.apply(&h, Some(&shortcut.apply(x, None))),
            None => self.conv2.apply(&h, Some(x)),
        }
    }
}

/// [`SpatialAttention`].
#[derive(Debug)]
struct PackedAttention {
    norm: Norm,
    qkv: Convolution,
    out: Convolution,
}

impl PackedAttention {
    fn new(attention: &SpatialAttention, side: usize) -> Self {
        Self {
            norm: Norm::new(&attention.norm),
            qkv: convolution(&attention.qkv, SAME(1), side),
            out: convolution(&attention.out, SAME(1), side),
        }
    }

    fn apply(&self, x: &Map) -> Map {
        let qkv = self.qkv.apply(&self.norm.apply(x), None);
        let positions = x.height * x.width;
        let scores = Scores::Product((x.channels as f32).powf(-0.5));
        let pictures = qkv.values.chunks((3 * positions * x.channels).max(1));
        let mixed =
            pictures.flat_map(|tokens| KeyValues::new(1, x.channels, positions).step(tokens, &scores));
        let mixed = Map { values: mixed.collect(), ..x.shape() };
        self.out.apply(&mixed, Some(x))
    }
}

/// [`Level`].
#[derive(Debug)]
struct PackedLevel {
    blocks: Vec<PackedResidual>,
    attentions: Vec<PackedAttention>,
    resample: Option<Convolution>,
}

impl PackedLevel {
    /// For maps of the given side; `resample` is how the level's last convolution sees them, and the side it gives.
    fn new(level: Level, side: usize, resample: (Window, usize)) -> Self {
        Self {
            blocks: level.blocks.into_iter().map(|block| PackedResidual::new(&block, side)).collect(),
            attentions: level.attentions.iter().map(|each| PackedAttention::new(each, side)).collect(),
            resample: level.resample.as_ref().map(|conv| convolution(conv, resample.0, resample.1)),
        }
    }

    fn apply(&self, mut x: Map) -> Map {
        for (i, block) in self.blocks.iter().enumerate() {
            x = block.apply(&x);
            if let Some(attention) = self.attentions.get(i) {
                x = attention.apply(&x);
            }
        }
        match &self.resample {
            Some(resample) => resample.apply(&x, None),
            None => x,
        }
    }
}

/// [`Middle`].
#[derive(Debug)]
struct PackedMiddle {
    block1: PackedResidual,
    attention: Option<PackedAttention>,
    block2: PackedResidual,
}

impl PackedMiddle {
    fn new(middle: &Middle, side: usize) -> Self {
        Self {
            block1: PackedResidual::new(&middle.block1, side),
            attention: middle.attention.as_ref().map(|attention| PackedAttention::new(attention, side)),
            block2: PackedResidual::new(&middle.block2, side),
        }
    }

    fn apply(&self, x: Map) -> Map {
        let mut x = self.block1.apply(&x);
        if let Some(attention) = &self.attention {
            x = attention.apply(&x);
        }
        self.block2.apply(&x)
    }
}

#[derive(Debug)]
struct PackedEncoder {
    conv_in: Convolution,
    levels: Vec<PackedLevel>,
    middle: PackedMiddle,
    norm_out: Norm,
    conv_out: Convolution,
    fold: usize,
}

impl PackedEncoder {
    fn take(encoder: &mut Encoder, picture_side: usize) -> Self {
        let finest = picture_side / encoder.fold;
        // The reference pads right and bottom only.
        let down = Window { side: 3, stride: 2, before: 0, after: 1, double: false };
        let smallest = finest >> (encoder.levels.len() - 1);
        let levels = std::mem::take(&mut encoder.levels).into_iter().enumerate();
        let level = |(i, level)| PackedLevel::new(level, finest >> i, (down, finest >> (i + 1)));
        Self {
            conv_in: convolution(&encoder.conv_in, SAME(3), finest),
            levels: levels.map(level).collect(),
            middle: PackedMiddle::new(&encoder.middle, smallest),
            norm_out: Norm::new(&encoder.norm_out),
            conv_out: convolution(&encoder.conv_out, SAME(3), smallest),
            fold: encoder.fold,
        }
    }

    fn apply(&self, picture: &Map) -> Map {
        let mut x = self.conv_in.apply(&folded(picture, self.fold), None);
        for level in &self.levels {
            x = level.apply(x);
        }
        self.conv_out.apply(&self.norm_out.apply_silu(&self.middle.apply(x)), None)
    }
}

#[derive(Debug)]
struct PackedDecoder {
    conv_in: Convolution,
    middle: PackedMiddle,
    /// From the finest level to the coarsest; run in reverse.
    levels: Vec<PackedLevel>,
    norm_out: Norm,
    conv_out: Convolution,
    fold: usize,
}

impl PackedDecoder {
    fn take(decoder: &mut Decoder, picture_side: usize) -> Self {
        let finest = picture_side / decoder.fold;
        let smallest = finest >> (decoder.levels.len() - 1);
        let levels = std::mem::take(&mut decoder.levels).into_iter().enumerate();
        let up = |i: usize| (SAME(3).doubled(), finest >> i.saturating_sub(1));
        Self {
            conv_in: convolution(&decoder.conv_in, SAME(3), smallest),
            middle: PackedMiddle::new(&decoder.middle, smallest),
            levels: levels.map(|(i, level)| PackedLevel::new(level, finest >> i, up(i))).collect(),
            norm_out: Norm::new(&decoder.norm_out),
            conv_out: convolution(&decoder.conv_out, SAME(3), finest),
            fold: decoder.fold,
        }
    }

    fn apply(&self, features: &Map) -> Map {
        let mut x = self.middle.apply(self.conv_in.apply(features, None));
        for level in self.levels.iter().rev() {
            x = level.apply(x);
        }
        unfolded(&self.conv_out.apply(&self.norm_out.apply_silu(&x), None), self.fold)
    }
}

/// The linear path beside the convolutions.
#[derive(Debug)]
struct PackedPath {
    into: Convolution,
    out: Convolution,
    stride: usize,
}

/// The encoder and the decoder of a [`MultiScaleTokenizer`] with packed weights.
#[derive(Debug)]
pub struct PackedTokenizer {
    encoder: PackedEncoder,
    before_quantizer: Convolution,
    after_quantizer: Convolution,
    decoder: PackedDecoder,
    linear: Option<PackedPath>,
}

impl PackedTokenizer {
    /// Packs a tokenizer whose weights lie in ordinary memory; it is left as it is.
    pub fn new(tokenizer: &MultiScaleTokenizer, picture_side: usize) -> Self {
        Self::take(&mut tokenizer.clone(), picture_side)
    }

    /// Packs the weights of a tokenizer for pictures of about the given side. Its levels are taken out of it.
    pub(crate) fn take(tokenizer: &mut MultiScaleTokenizer, picture_side: usize) -> Self {
        let side = tokenizer.scales().finest();
        Self {
            encoder: PackedEncoder::take(&mut tokenizer.encoder, picture_side),
            before_quantizer: convolution(&tokenizer.before_quantizer, SAME(3), side),
            after_quantizer: convolution(&tokenizer.after_quantizer, SAME(3), side),
            decoder: PackedDecoder::take(&mut tokenizer.decoder, picture_side),
            linear: tokenizer.linear.as_ref().map(|path| PackedPath {
                into: convolution(&path.into, SAME(1), side),
                out: convolution(&path.out, SAME(1), side),
                stride: path.stride,
            }),
        }
    }

    /// As [`MultiScaleTokenizer::features`].
    pub fn features(&self, pictures: Tensor<4>) -> Tensor<4> {
        let device = pictures.device();
        let pictures = to_map(pictures);
        let linear = self.linear.as_ref().map(|path| path.into.apply(&folded(&pictures, path.stride), None));
        let features = self.before_quantizer.apply(&self.encoder.apply(&pictures), linear.as_ref());
        from_map(&features, &device)
    }

    /// As [`MultiScaleTokenizer::decode_features`].
    pub fn decode_features(&self, reconstruction: Tensor<4>) -> Tensor<4> {
        let device = reconstruction.device();
        let reconstruction = to_map(reconstruction);
        let mut picture = self.decoder.apply(&self.after_quantizer.apply(&reconstruction, None));
        if let Some(path) = &self.linear {
            let linear = unfolded(&path.out.apply(&reconstruction, None), path.stride);
            picture.values.iter_mut().zip(&linear.values).for_each(|(x, y)| *x += y);
        }
        picture.values.iter_mut().for_each(|x| *x = x.clamp(-1.0, 1.0));
        from_map(&picture, &device)
    }
}

/// `[batch, h, w, c]` → `[batch, h/fold, w/fold, c·fold²]`, channel by channel, as Burn's side orders them.
fn folded(map: &Map, fold: usize) -> Map {
    if fold == 1 {
        return map.clone();
    }
    let mut out = Map::zeros(map.batch, map.height / fold, map.width / fold, map.channels * fold * fold);
    each_folded(out.shape(), map, fold, |small, large| out.values[small] = map.values[large]);
    out
}

/// The inverse of [`folded`].
fn unfolded(map: &Map, fold: usize) -> Map {
    if fold == 1 {
        return map.clone();
    }
    let mut out = Map::zeros(map.batch, map.height * fold, map.width * fold, map.channels / (fold * fold));
    let large = out.shape();
    each_folded(map.shape(), &large, fold, |small, large| out.values[large] = map.values[small]);
    out
}

/// Calls `pair` with the place of each value in the folded map and in the other one.
fn each_folded(small: Map, large: &Map, fold: usize, mut pair: impl FnMut(usize, usize)) {
    let mut at = 0;
    for picture in 0..small.batch {
        for (y, x) in (0..small.height).flat_map(|y| (0..small.width).map(move |x| (y, x))) {
            for channel in 0..large.channels {
                for (i, j) in (0..fold).flat_map(|i| (0..fold).map(move |j| (i, j))) {
                    let row = (picture * large.height + y * fold + i) * large.width + x * fold + j;
                    pair(at, row * large.channels + channel);
                    at += 1;
                }
            }
        }
    }
}
