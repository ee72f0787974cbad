//! Everything random about the data: the order of an epoch and what is done to each pair.
//!
//! Each choice comes from a generator of its own, seeded with (seed, purpose, epoch, index). So it depends
//! neither on threads nor on what was drawn before, and training may resume anywhere.

use earthmapper_geo::picture::Picture;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use serde::{Deserialize, Serialize};

/// How pairs are varied. The defaults change nothing but the size.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct AugmentConfig {
    /// Side of the square pictures that come out, in pixels.
    pub picture_side: u32,
    /// The smallest crop, as a fraction of the picture's shorter side. Crops are squares of random size
    /// between this and the whole shorter side, at a random place. 1 takes the largest square, from the
    /// middle.
    pub crop_min: f64,
    /// Whether half of the pairs are mirrored.
    pub flip: bool,
    /// Whether pairs are turned by a random number of right angles.
    pub quarter_turns: bool,
}

impl Default for AugmentConfig {
    fn default() -> Self {
        Self { picture_side: 256, crop_min: 1.0, flip: false, quarter_turns: false }
    }
}

impl AugmentConfig {
    /// Says what is wrong with the values, if anything.
    pub(super) fn problem(&self) -> Option<String> {
        if self.picture_side == 0 {
            return Some("picture_side is 0; give the side of the pictures in pixels".to_owned());
        }
        // Written so that NaN is wrong too.
        if !(self.crop_min > 0.0 && self.crop_min <= 1.0) {
            let value = self.crop_min;
            return Some(format!("crop_min is {value}; give a fraction above 0 and at most 1"));
        }
        None
    }
}

/// What is done to both pictures of one pair: crop, then resize, then mirror, then turn.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Augmentation {
    /// Left edge of the crop.
    pub x: u32,
    /// Upper edge of the crop.
    pub y: u32,
    /// Side of the crop.
    pub side: u32,
    /// Whether left and right are swapped.
    pub flip: bool,
    /// Clockwise right angles, 0 to 3.
    pub turns: u32,
}

impl Augmentation {
    /// The largest square from the middle, neither mirrored nor turned.
    pub fn centred(width: u32, height: u32) -> Self {
        let side = width.min(height);
        Self { x: (width - side) / 2, y: (height - side) / 2, side, flip: false, turns: 0 }
    }

    /// The picture cropped, resized to `picture_side`, mirrored and turned.
    ///
    /// # Panics
    ///
    /// When the crop is not inside the picture.
    pub fn apply(&self, picture: &Picture, picture_side: u32) -> Picture {
        let mut changed = picture.crop(self.x, self.y, self.side, self.side);
        if self.side != picture_side {
            changed = changed.resized(picture_side, picture_side);
        }
        if self.flip {
            changed = changed.flipped();
        }
        if self.turns != 0 {
            changed = changed.quarter_turned(self.turns);
        }
        changed
    }
}

/// What the generator is for, so that no two purposes share numbers.
#[derive(Clone, Copy)]
enum Purpose {
    Order = 1,
    Augmentation = 2,
}

/// The order of an epoch: a permutation of `0..len`.
pub fn epoch_order(seed: u64, epoch: u64, len: usize) -> Vec<usize> {
    let mut random = generator(seed, Purpose::Order, epoch, 0);
    let mut order: Vec<usize> = (0..len).collect();
    for last in (1..len).rev() {
        order.swap(last, below(&mut random, last as u64 + 1) as usize);
    }
    order
}

/// What happens in this epoch to pair `index`, whose pictures are `width × height`.
///
/// # Panics
///
/// When a side is 0.
pub fn augmentation(
    seed: u64,
    epoch: u64,
    index: usize,
    config: &AugmentConfig,
    width: u32,
    height: u32,
) -> Augmentation {
    assert!(width > 0 && height > 0, "a picture of {width} × {height} pixels has no pixels");
    let mut random = generator(seed, Purpose::Augmentation, epoch, index as u64);
    let mut chosen = Augmentation::centred(width, height);
    if config.crop_min < 1.0 {
        let largest = chosen.side;
        let smallest = ((f64::from(largest) * config.crop_min).round() as u32).clamp(1, largest);
        chosen.side = smallest + below(&mut random, u64::from(largest - smallest) + 1) as u32;
        chosen.x = below(&mut random, u64::from(width - chosen.side) + 1) as u32;
        chosen.y = below(&mut random, u64::from(height - chosen.side) + 1) as u32;
    }
    if config.flip {
        chosen.flip = below(&mut random, 2) == 1;
    }
    if config.quarter_turns {
        chosen.turns = below(&mut random, 4) as u32;
    }
    chosen
}

fn generator(seed: u64, purpose: Purpose, epoch: u64, index: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    for (bytes, number) in key.chunks_exact_mut(8).zip([seed, purpose as u64, epoch, index]) {
        bytes.copy_from_slice(&number.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

/// A number below `bound`. Written out, because the numbers that a library draws may change with its version;
/// the bias of this method is below `bound` / 2⁶⁴.
fn below(random: &mut impl RngCore, bound: u64) -> u64 {
    ((u128::from(random.next_u64()) * u128::from(bound)) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const EVERYTHING: AugmentConfig =
        AugmentConfig { picture_side: 8, crop_min: 0.5, flip: true, quarter_turns: true };

    #[test]
    fn orders_are_permutations_that_depend_on_seed_and_epoch() {
        let order = epoch_order(1, 0, 100);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..100).collect::<Vec<_>>());
        assert_eq!(order, epoch_order(1, 0, 100));
        assert_ne!(order, epoch_order(1, 1, 100));
        assert_ne!(order, epoch_order(2, 0, 100));
        assert_eq!(epoch_order(1, 0, 1), [0]);
        assert!(epoch_order(1, 0, 0).is_empty());
    }

    #[test]
    fn choices_are_pinned() {
        // A run resumed by a later version must see the same data, so these values never change.
        assert_eq!(epoch_order(42, 3, 8), PINNED_ORDER);
        assert_eq!(augmentation(42, 3, 7, &EVERYTHING, 300, 200), PINNED_AUGMENTATION);
    }

    const PINNED_ORDER: [usize; 8] = [7, 3, 1, 5, 2, 0, 6, 4];
    const PINNED_AUGMENTATION: Augmentation = Augmentation { x: 41, y: 85, side: 113, flip: true, turns: 2 };

    #[test]
    fn every_kind_of_change_occurs_and_stays_inside() {
        let chosen: Vec<_> = (0..500).map(|index| augmentation(7, 0, index, &EVERYTHING, 30, 20)).collect();
        for augmentation in &chosen {
            assert!((10..=20).contains(&augmentation.side), "{augmentation:?}");
            assert!(augmentation.x + augmentation.side <= 30 && augmentation.y + augmentation.side <= 20);
        }
        let count = |distinct: HashSet<u32>| distinct.len();
        assert_eq!(count(chosen.iter().map(|one| one.side).collect()), 11);
        assert_eq!(count(chosen.iter().map(|one| one.turns).collect()), 4);
        let flips = chosen.iter().filter(|one| one.flip).count();
        assert!((200..300).contains(&flips), "{flips} of 500");
        assert_ne!(
            chosen,
            (0..500).map(|index| augmentation(7, 1, index, &EVERYTHING, 30, 20)).collect::<Vec<_>>()
        );
    }

    #[test]
    fn the_defaults_change_nothing() {
        let config = AugmentConfig::default();
        assert_eq!(augmentation(1, 2, 3, &config, 256, 256), Augmentation::centred(256, 256));
        let wide = Augmentation { x: 22, y: 0, side: 256, flip: false, turns: 0 };
        assert_eq!(augmentation(1, 2, 3, &config, 300, 256), wide);
        let picture = Picture::drawn(256, 256, |x, y| [x as u8, y as u8, 0]);
        assert_eq!(Augmentation::centred(256, 256).apply(&picture, 256), picture);
    }

    #[test]
    fn configs_are_checked() {
        assert_eq!(toml::from_str::<AugmentConfig>("").unwrap(), AugmentConfig::default());
        assert!(toml::from_str::<AugmentConfig>("crop_minimum = 0.5").is_err());
        for crop_min in [0.0, -1.0, 1.5, f64::NAN] {
            assert!(AugmentConfig { crop_min, ..EVERYTHING }.problem().unwrap().starts_with("crop_min"));
        }
        assert!(AugmentConfig { picture_side: 0, ..EVERYTHING }.problem().is_some());
        assert_eq!(EVERYTHING.problem(), None);
    }

    #[test]
    fn changes_happen_in_their_order() {
        let picture = Picture::drawn(4, 4, |x, y| [x as u8, y as u8, 0]);
        let changed = Augmentation { x: 1, y: 2, side: 2, flip: true, turns: 1 }.apply(&picture, 2);
        // Cropped [1 2 / 1 2] over rows 2 and 3, mirrored to [2 1], then turned clockwise.
        assert_eq!(changed.pixel(0, 0), [2, 3, 0]);
        assert_eq!(changed.pixel(1, 0), [2, 2, 0]);
        assert_eq!(changed.pixel(0, 1), [1, 3, 0]);
        assert_eq!(changed.pixel(1, 1), [1, 2, 0]);
    }
}
