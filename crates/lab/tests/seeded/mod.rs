//! Weights, pictures and features out of names and numbers, the same as `tools/seeded.py` makes them.
//!
//! A stream is a name; its values are hashes of the name and a counter, so that both languages make the same ones and
//! only the results of the comparison have to be kept.

#![allow(dead_code, reason = "tests and benchmarks use different parts")]

use earthmapper::weights::HostTensor;
use earthmapper_geo::Picture;
use earthmapper_lab::metrics::Features;
use earthmapper_lab::nets::NamedTensors;

/// Size of the pictures that are made when nothing else is asked for.
pub const SIZE: (u32, u32) = (80, 64);

/// The two kinds of pictures and features.
#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    Real,
    Made,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Real => "real",
            Self::Made => "made",
        }
    }
}

/// The hash of a counter in the stream `name`: FNV-1a of the name, mixed with the counter by the finaliser of SplitMix64.
struct Stream(u64);

impl Stream {
    fn new(name: &str) -> Self {
        let fold = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        Self(name.bytes().fold(0xcbf2_9ce4_8422_2325, fold))
    }

    fn hash(&self, counter: u64) -> u64 {
        let mut z = self.0.wrapping_add(counter).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In [-1, 1), without rounding.
    fn uniform(&self, counter: usize) -> f64 {
        (self.hash(counter as u64) >> 40) as f64 / f64::from(1 << 23) - 1.0
    }
}

/// The tensor `name` of a network, of sizes that keep its features within bounds.
pub fn weights(name: &str, shape: &[usize]) -> HostTensor {
    let stream = Stream::new(name);
    let fan: usize = shape.iter().skip(1).product();
    let value = |counter: usize| -> f64 {
        let value = stream.uniform(counter);
        match shape {
            // A head of LPIPS: no weight is negative.
            [1, _, 1, 1] => (value + 1.0) / 2.0,
            [_, _, _, _] => value * (6.0 / fan as f64).sqrt(),
            _ if name.ends_with(".bn.weight") || name.ends_with(".running_var") => 1.0 + 0.2 * value,
            _ => 0.2 * value,
        }
    };
    let values = (0..shape.iter().product()).map(|counter| value(counter) as f32).collect();
    HostTensor { shape: shape.to_vec(), values }
}

/// All tensors of a network.
pub fn network<'a>(shapes: impl IntoIterator<Item = (&'a String, &'a Vec<usize>)>) -> NamedTensors {
    let tensors = shapes.into_iter().map(|(name, shape)| (name.clone(), weights(name, shape)));
    NamedTensors::from_tensors("seeded", tensors)
}

/// A picture of coloured squares under noise; the two kinds differ in both.
pub fn picture(kind: Kind, index: usize, (width, height): (u32, u32)) -> Picture {
    let (cell, coarse_weight, fine_weight, offset) = match kind {
        Kind::Real => (16, 6, 2, 0),
        Kind::Made => (8, 5, 1, 192),
    };
    let coarse = Stream::new(&format!("{}/{index}/coarse", kind.name()));
    let fine = Stream::new(&format!("{}/{index}/fine", kind.name()));
    let byte = |stream: &Stream, x: u32, y: u32, channel: u64| {
        stream.hash((u64::from(y) * 1024 + u64::from(x)) * 3 + channel) >> 56
    };
    Picture::drawn(width, height, |x, y| {
        [0, 1, 2].map(|channel| {
            let coarse = byte(&coarse, x / cell, y / cell, channel);
            ((coarse * coarse_weight + byte(&fine, x, y, channel) * fine_weight + offset) / 8) as u8
        })
    })
}

/// The first `count` pictures of a kind.
pub fn pictures(kind: Kind, count: usize, size: (u32, u32)) -> Vec<Picture> {
    (0..count).map(|index| picture(kind, index, size)).collect()
}

/// Features of no picture, for measures on more of them than a network makes in a test.
pub fn features(kind: Kind, count: usize, width: usize) -> Features {
    let stream = Stream::new(&format!("{}/features", kind.name()));
    let value = |index: usize| {
        let (row, column) = (index / width, index % width);
        let mut value = stream.uniform(index);
        if column < width / 2 {
            value += stream.uniform(row * width + column + width / 2);
        }
        if kind == Kind::Made { (value * 0.95 + 0.35) as f32 } else { value as f32 }
    };
    Features::new(width, (0..count * width).map(value).collect())
}

/// Two bands of roads across patches.
pub fn mask(width: usize, height: usize) -> Vec<bool> {
    let stream = Stream::new("mask");
    let marked = |at: usize| {
        let (x, y) = (at % width, at / width);
        let patch = stream.hash(((y / 3) * 1024 + x / 3) as u64) >> 61 == 0;
        ((x * 3 + y * 2) % 37 < 14 && y % 40 > 5) || (x + 200 - 2 * y) % 29 < 5 || patch
    };
    (0..width * height).map(marked).collect()
}
