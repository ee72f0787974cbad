//! The windows of a scene: where they lie, and what each needs of the source.

use std::ops::Range;

use earthmapper_geo::Place;
use earthmapper_geo::picture::{Picture, PixelArea};

use super::{Scene, Seam};
use crate::canvas::Fade;
use crate::windows::{filled_with_mean, padded};

/// The windows of a scene, in pixels at the model's scale.
pub(super) struct Grid {
    pub side: u32,
    pub scene: (u32, u32),
    pub working: (u32, u32),
    pub columns: Vec<u32>,
    pub rows: Vec<u32>,
}

impl Grid {
    /// In how many passes a row is made so that no two windows of a pass overlap: then neither waits for the other.
    pub fn passes(&self) -> usize {
        let apart = |passes: &usize| {
            let pairs = self.columns.iter().zip(self.columns.iter().skip(*passes));
            pairs.into_iter().all(|(a, b)| b - a >= self.side)
        };
        (1..).find(apart).expect("in as many passes as windows")
    }

    /// How much each pixel of a window counts.
    pub fn fade(&self, column: usize, row: usize, seam: Seam) -> Fade {
        let side = self.side;
        match seam {
            Seam::Blend | Seam::Outpaint => Fade::even(side),
            Seam::Crop => Fade::cropped(side, &own(&self.columns, column, side), &own(&self.rows, row, side)),
        }
    }

    /// Pixels of the scene per pixel of the model's.
    fn factors(&self) -> (f64, f64) {
        let factor = |scene: u32, working: u32| f64::from(scene) / f64::from(working);
        (factor(self.scene.0, self.working.0), factor(self.scene.1, self.working.1))
    }

    /// A window of the source at the model's scale; `None` where there is no data at all.
    pub fn read<S: Scene>(&self, scene: &mut S, corner: (u32, u32)) -> Result<Option<Picture>, S::Error> {
        let (width, height) = (self.working.0.min(self.side), self.working.1.min(self.side));
        let (across, down) = self.factors();
        let (x, left, covered_x) = covered(corner.0, width, across, self.scene.0);
        let (y, top, covered_y) = covered(corner.1, height, down, self.scene.1);
        let (picture, mask) = scene.read((x, y), covered_x, covered_y)?;
        let picture = match &mask {
            Some(mask) if !mask.holes().contains(&false) => return Ok(None),
            Some(mask) if mask.holes().contains(&true) => filled_with_mean(&picture, mask),
            _ => picture,
        };
        let area =
            PixelArea { x: left, y: top, width: f64::from(width) * across, height: f64::from(height) * down };
        let picture = picture.resampled(area, width, height);
        Ok(Some(padded(&picture, self.side)))
    }

    /// The place of a window's middle, with metres per pixel at the model's scale.
    pub fn place<S: Scene>(&self, scene: &S, corner: (u32, u32)) -> Result<Option<Place>, S::Error> {
        let (across, down) = self.factors();
        let middle = |start: u32, length: u32, factor: f64| {
            (f64::from(start) + f64::from(length.min(self.side)) / 2.0) * factor
        };
        let place =
            scene.place(middle(corner.0, self.working.0, across), middle(corner.1, self.working.1, down))?;
        Ok(place.map(|place| {
            let metres = place.metres_per_pixel().map(|metres| metres * (across * down).sqrt());
            Place::new(place.position(), metres).unwrap_or(place)
        }))
    }
}

/// The pixels of the scene that `length` pixels of the model's from `start` on need: the first, how far inside them the
/// first of the model's begins, and how many. One more at each side than covered, and as many as a filter reaches.
fn covered(start: u32, length: u32, factor: f64, whole: u32) -> (u32, f64, u32) {
    let reach = match factor == 1.0 {
        true => 0.0,
        false => 2.0 * factor.max(1.0) + 1.0,
    };
    let (low, high) = (f64::from(start) * factor, f64::from(start + length) * factor);
    let first = (low - reach).floor().max(0.0) as u32;
    let end = ((high + reach).ceil() as u32).min(whole);
    (first, low - f64::from(first), end - first)
}

/// The part of window `index` that is nearer to its middle than to its neighbours' middles.
fn own(starts: &[u32], index: usize, side: u32) -> Range<u32> {
    let start = starts[index];
    let from = match index {
        0 => 0,
        _ => middle(starts[index - 1], start, side) - start,
    };
    let to = starts.get(index + 1).map_or(side, |&next| middle(start, next, side) - start);
    from..to
}

/// The middle of the overlap of two windows.
pub(super) fn middle(start: u32, next: u32, side: u32) -> u32 {
    (start + side + next) / 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::windows::starts;

    #[test]
    fn cropped_windows_own_every_pixel_once() {
        for length in [256, 300, 600, 1000] {
            let starts = starts(length, 256, 16);
            let mut at = 0;
            for (index, start) in starts.iter().enumerate() {
                let own = own(&starts, index, 256);
                assert_eq!(start + own.start, at);
                at = start + own.end;
            }
            assert_eq!(at, length);
        }
    }

    #[test]
    fn what_a_window_needs_is_inside_the_scene() {
        assert_eq!(covered(100, 256, 1.0, 400), (100, 0.0, 256));
        let (first, inside, count) = covered(0, 256, 0.4, 200);
        assert_eq!((first, inside, count), (0, 0.0, 106));
        let (first, inside, count) = covered(44, 256, 2.0, 600);
        assert_eq!((first, inside, count), (83, 5.0, 517));
    }
}
