//! The uses of a [`Translator`] that fill holes or invent: inpaint, outpaint, generate. Translation is in `scene.rs`.

use burn::tensor::Tensor;
use earthmapper_geo::picture::{Mask, Picture};
use earthmapper_geo::{Modality, Place};

use crate::pictures::{from_tensor, to_tensor};
use crate::sampler::derive_seed;
use crate::seam;
use crate::tokenizer::Encoding;
use crate::translator::{Condition, Generated, GenerationError, GenerationOptions, Known, Translator};

/// Pixels that a picture grows by at each side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Margins {
    /// At the left.
    pub left: u32,
    /// At the right.
    pub right: u32,
    /// At the top.
    pub top: u32,
    /// At the bottom.
    pub bottom: u32,
}

/// What stays the same over the windows of one picture.
#[derive(Clone, Debug)]
pub struct Setting<'a> {
    /// Where; `None` is nowhere in particular.
    pub place: Option<Place>,
    /// Seed of the whole picture.
    pub seed: u64,
    /// How tokens are drawn.
    pub options: &'a GenerationOptions,
}

impl Translator<'_> {
    /// Side of the model's pictures in pixels.
    pub(crate) fn side(&self) -> u32 {
        self.model().tokenizer_config.picture_side as u32
    }

    /// How many windows a picture of this size is cut into.
    pub fn window_count(&self, width: u32, height: u32) -> usize {
        self.starts(width).len() * self.starts(height).len()
    }

    /// Pixels that a token of the finest scale covers.
    fn cell(&self) -> u32 {
        (self.side() / self.model().transformer.scales().finest() as u32).max(1)
    }

    /// Starts of the windows along a side of `length` pixels.
    pub(crate) fn starts(&self, length: u32) -> Vec<u32> {
        starts(length.max(self.side()), self.side(), self.cell())
    }

    /// Pixels from window to window on a plane without end.
    pub(crate) fn step(&self) -> u32 {
        step(self.side(), self.cell())
    }

    /// Pictures of the model's side → their tokens and features, one by one.
    pub fn encode(&self, pictures: &[Picture]) -> Vec<Encoding> {
        let encoding = self.model().encode(to_tensor(pictures, &self.model().device()));
        (0..encoding.batch()).map(|i| encoding.picture(i)).collect()
    }

    /// Fills the hole of a picture; pixels outside the hole stay as they are, to the byte.
    ///
    /// `other` is the other modality of the same place and size, when it is known: it is forced whole. A hole that fits
    /// into one window is filled at once from the window around it; larger ones window by window, from what is best
    /// known inward, each using what was made before. What is left of a border is evened out inside the hole (`seam.rs`).
    /// `progress` is told windows done and windows in all.
    ///
    /// # Errors
    /// As [`Translator::run`].
    ///
    /// # Panics
    /// When the sizes of picture, mask and `other` differ: callers check them to name the files.
    pub fn inpaint(
        &self,
        picture: &Picture,
        modality: Modality,
        mask: &Mask,
        other: Option<&Picture>,
        setting: &Setting,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Picture, GenerationError> {
        let size = (picture.width(), picture.height());
        assert_eq!((mask.width(), mask.height()), size, "picture and mask differ in size");
        let fits = |other: &Picture| (other.width(), other.height()) == size;
        assert!(other.is_none_or(fits), "the two pictures differ in size");
        let side = self.side();
        let mut result = padded(&filled_with_mean(picture, mask), side);
        let other = other.map(|other| padded(other, side));
        let mut hole = Hole::new(mask, result.width(), result.height());
        let mut places = hole.windows(side);
        let all = places.len();
        while let Some(next) = (0..places.len()).min_by_key(|&i| places[i].open) {
            let (x, y) = places[next].corner;
            let open = hole.window((x, y), side);
            let window = result.crop(x, y, side, side);
            let other = other.as_ref().map(|other| other.crop(x, y, side, side));
            let made = self.fill(&window, modality, &open, other, setting, (x, y))?;
            result.paste(&seam::filled(&window, &made, &open), x, y);
            hole.close((x, y), side);
            for place in places.iter_mut().filter(|place| place.overlaps((x, y), side)) {
                place.open = hole.count(place.corner, side);
            }
            places.retain(|place| place.open > 0);
            progress(all - places.len(), all);
        }
        Ok(composed(picture, &result.crop(0, 0, size.0, size.1), mask))
    }

    /// Extends a picture beyond its borders: a hole all around it, filled from shifted windows. The picture itself stays
    /// as it is, to the byte.
    ///
    /// # Errors
    /// As [`Translator::run`].
    pub fn outpaint(
        &self,
        picture: &Picture,
        modality: Modality,
        margins: Margins,
        setting: &Setting,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Picture, GenerationError> {
        let width = picture.width() + margins.left + margins.right;
        let height = picture.height() + margins.top + margins.bottom;
        let inside = |x: u32, y: u32| {
            x >= margins.left
                && y >= margins.top
                && x < margins.left + picture.width()
                && y < margins.top + picture.height()
        };
        let mut canvas = Picture::filled(width, height, [0; 3]);
        canvas.paste(picture, margins.left, margins.top);
        let mask = Mask::drawn(width, height, |x, y| !inside(x, y));
        self.inpaint(&canvas, modality, &mask, None, setting, progress)
    }

    /// Invents a pair for a place: one picture per modality of the model, in the model's order.
    ///
    /// # Errors
    /// As [`Translator::run`].
    pub fn generate(&self, setting: &Setting) -> Result<Vec<(Modality, Picture)>, GenerationError> {
        let known = self.model().transformer.modalities().iter().map(|_| Known::Nothing).collect();
        let condition = Condition { place: setting.place, known };
        let made = self.run(&[condition], &[setting.seed], setting.options, &mut |_| {})?;
        let picture = |made: Generated| (made.modality, self.decode(made.reconstruction).remove(0));
        Ok(made.into_iter().map(picture).collect())
    }

    /// Reconstructions → pictures.
    pub(crate) fn decode(&self, reconstruction: Tensor<4>) -> Vec<Picture> {
        from_tensor(self.model().decode_features(reconstruction))
    }

    /// Generates the hole of one window.
    fn fill(
        &self,
        window: &Picture,
        modality: Modality,
        hole: &Mask,
        other: Option<Picture>,
        setting: &Setting,
        corner: (u32, u32),
    ) -> Result<Picture, GenerationError> {
        let model = self.model();
        let features = model.features(to_tensor(std::slice::from_ref(window), &model.device()));
        let mut part = Some(Known::Part { features, hole: hole.clone() });
        let mut other = other.map(|other| Known::All(self.encode(&[other]).remove(0)));
        let known = model.transformer.modalities().iter().map(|&m| match m == modality {
            true => part.take().unwrap_or(Known::Nothing),
            false => other.take().unwrap_or(Known::Nothing),
        });
        let condition = Condition { place: setting.place, known: known.collect() };
        let seed = window_seed(setting.seed, corner);
        let made = self.run(&[condition], &[seed], setting.options, &mut |_| {})?;
        let made = made
            .into_iter()
            .find(|made| made.modality == modality)
            .expect("the hole's modality is generated");
        Ok(self.decode(made.reconstruction).remove(0))
    }
}

/// Seed of the window at `corner`.
pub(crate) fn window_seed(seed: u64, corner: (u32, u32)) -> u64 {
    derive_seed(seed, &[u64::from(corner.0), u64::from(corner.1)])
}

/// How far windows of `side` may be apart: a quarter overlaps, and half a token, so that the edges of the tokens of
/// two neighbours lie as far as can be from each other.
fn step(side: u32, cell: u32) -> u32 {
    (side * 3 / 4).saturating_sub(cell / 2).max(1)
}

/// Starts of windows of `side` that cover `length` ≥ `side`, a quarter overlapping or at most half a token less.
///
/// They are evenly spread, so that no two nearly coincide, but shifted by up to half a token, which covers `cell`
/// pixels: the edges of the tokens of two neighbours then do not lie on each other, and cross-fading hides them too.
pub(crate) fn starts(length: u32, side: u32, cell: u32) -> Vec<u32> {
    let last = length - side;
    let count = last.div_ceil(step(side, cell));
    if count < 2 {
        return (0..=count).map(|i| i * last).collect();
    }
    // How far the phase inside a token moves from window to window, near half a token, so that it comes out at the last.
    let near = u64::from(count) * u64::from(cell) / 2;
    let turns = (near + u64::from(cell / 2)).saturating_sub(u64::from(last % cell)) / u64::from(cell);
    let phases = turns * u64::from(cell) + u64::from(last % cell);
    let start = |i: u32| {
        let even = u64::from(last) * u64::from(i) / u64::from(count);
        let phase = phases * u64::from(i) / u64::from(count) % u64::from(cell);
        let below = even - even % u64::from(cell) + phase;
        let at = if below + u64::from(cell) / 2 < even { below + u64::from(cell) } else { below };
        at.min(u64::from(last)) as u32
    };
    (0..=count).map(|i| if i == count { last } else { start(i) }).collect()
}

/// Position `i` of a row of `length` that goes on mirrored for ever.
fn mirrored(i: u32, length: u32) -> u32 {
    let i = i % (2 * length);
    if i < length { i } else { 2 * length - 1 - i }
}

/// A picture continued by mirroring at its right and bottom edges until both sides reach `side`.
pub(crate) fn padded(picture: &Picture, side: u32) -> Picture {
    let (width, height) = (picture.width(), picture.height());
    if width >= side && height >= side {
        return picture.clone();
    }
    let pixel = |x: u32, y: u32| picture.pixel(mirrored(x, width), mirrored(y, height));
    Picture::drawn(width.max(side), height.max(side), pixel)
}

/// The hole filled with the mean colour outside it, so that whatever is there does not leak into the features.
pub(crate) fn filled_with_mean(picture: &Picture, mask: &Mask) -> Picture {
    let mut sums = [0u64; 3];
    let mut count = 0u64;
    for (pixel, hole) in picture.rgb().as_chunks::<3>().0.iter().zip(mask.holes()) {
        if !hole {
            sums.iter_mut().zip(pixel).for_each(|(sum, value)| *sum += u64::from(*value));
            count += 1;
        }
    }
    let mean = sums.map(|sum| (sum + count / 2).checked_div(count).map_or(127, |mean| mean as u8));
    composed(picture, &Picture::filled(picture.width(), picture.height(), mean), mask)
}

/// `made` inside the hole, `kept` elsewhere.
fn composed(kept: &Picture, made: &Picture, mask: &Mask) -> Picture {
    let mut result = kept.clone();
    let pixels = result.rgb_mut().as_chunks_mut::<3>().0.iter_mut().zip(made.rgb().as_chunks::<3>().0);
    for ((pixel, made), _) in pixels.zip(mask.holes()).filter(|(_, hole)| **hole) {
        *pixel = *made;
    }
    result
}

/// What is still to be filled of a picture.
struct Hole {
    width: usize,
    height: usize,
    open: Vec<bool>,
}

/// A window over a hole.
struct HoleWindow {
    corner: (u32, u32),
    /// Pixels of the hole in it that are still to be filled.
    open: usize,
}

impl HoleWindow {
    fn overlaps(&self, corner: (u32, u32), side: u32) -> bool {
        self.corner.0.abs_diff(corner.0) < side && self.corner.1.abs_diff(corner.1) < side
    }
}

impl Hole {
    /// The hole of a picture that was [`padded`] to this size: what mirrors the hole is as unknown as the hole.
    fn new(mask: &Mask, width: u32, height: u32) -> Self {
        let pixel = |x: u32, y: u32| mask.is_hole(mirrored(x, mask.width()), mirrored(y, mask.height()));
        let open = (0..height).flat_map(|y| (0..width).map(move |x| pixel(x, y))).collect();
        Self { width: width as usize, height: height as usize, open }
    }

    /// The windows that touch the hole; one around it when it fits into one.
    fn windows(&self, side: u32) -> Vec<HoleWindow> {
        let Some([left, right, top, bottom]) = self.bounds() else { return Vec::new() };
        let (width, height) = (self.width as u32, self.height as u32);
        let corners = match right - left < side && bottom - top < side {
            true => {
                let start = |low: u32, high: u32, length: u32| {
                    ((low + high + 1).saturating_sub(side) / 2).min(length - side)
                };
                vec![(start(left, right, width), start(top, bottom, height))]
            }
            false => {
                let columns = starts(width, side, 1);
                let rows = starts(height, side, 1);
                rows.into_iter().flat_map(|y| columns.iter().map(move |&x| (x, y))).collect()
            }
        };
        let window = |corner| HoleWindow { corner, open: self.count(corner, side) };
        corners.into_iter().map(window).filter(|window| window.open > 0).collect()
    }

    /// First and last column, first and last row that the hole touches.
    fn bounds(&self) -> Option<[u32; 4]> {
        let mut bounds: Option<[usize; 4]> = None;
        for (i, _) in self.open.iter().enumerate().filter(|(_, open)| **open) {
            let (x, y) = (i % self.width, i / self.width);
            let [left, right, top, bottom] = bounds.unwrap_or([x, x, y, y]);
            bounds = Some([left.min(x), right.max(x), top.min(y), bottom.max(y)]);
        }
        bounds.map(|bounds| bounds.map(|i| i as u32))
    }

    fn row(&self, corner: (u32, u32), row: u32, side: u32) -> std::ops::Range<usize> {
        let start = (corner.1 + row) as usize * self.width + corner.0 as usize;
        start..start + side as usize
    }

    fn count(&self, corner: (u32, u32), side: u32) -> usize {
        let in_row = |row| self.open[self.row(corner, row, side)].iter().filter(|open| **open).count();
        (0..side).map(in_row).sum()
    }

    fn window(&self, corner: (u32, u32), side: u32) -> Mask {
        let rows = (0..side).flat_map(|row| self.open[self.row(corner, row, side)].iter().copied());
        Mask::new(side, side, rows.collect()).expect("a square")
    }

    fn close(&mut self, corner: (u32, u32), side: u32) {
        for row in 0..side {
            let row = self.row(corner, row, side);
            self.open[row].fill(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_cover_everything_and_overlap() {
        for length in [256, 257, 300, 511, 512, 600, 1000, 1024, 8192] {
            for cell in [1, 4, 16] {
                let starts = starts(length, 256, cell);
                assert_eq!((starts[0], starts[starts.len() - 1] + 256), (0, length));
                assert!(
                    starts.windows(2).all(|pair| pair[1] - pair[0] <= 192 + cell / 2 && pair[1] > pair[0]),
                    "{starts:?}"
                );
            }
        }
    }

    #[test]
    fn edges_of_tokens_of_two_neighbours_do_not_coincide() {
        for length in 600..1100 {
            let starts = starts(length, 256, 16);
            let apart = |pair: &[u32]| (4..=12).contains(&((pair[1] - pair[0]) % 16));
            assert!(starts.windows(2).all(apart), "{length}: {starts:?}");
        }
    }

    #[test]
    fn small_pictures_are_mirrored() {
        let picture = Picture::drawn(2, 1, |x, _| [x as u8; 3]);
        let big = padded(&picture, 4);
        assert_eq!((0..4).map(|x| big.pixel(x, 3)[0]).collect::<Vec<_>>(), [0, 1, 1, 0]);
    }

    #[test]
    fn a_hole_that_fits_into_a_window_gets_one_around_it() {
        let mask = Mask::drawn(40, 30, |x, y| (20..26).contains(&x) && (1..4).contains(&y));
        let windows = Hole::new(&mask, 40, 30).windows(16);
        assert_eq!(windows.len(), 1);
        assert_eq!((windows[0].corner, windows[0].open), ((15, 0), 18));
        assert!(Hole::new(&Mask::filled(40, 30, false), 40, 30).windows(16).is_empty());
        let all = Hole::new(&Mask::filled(40, 30, true), 40, 30).windows(16);
        assert_eq!(all.len(), starts(40, 16, 1).len() * starts(30, 16, 1).len());
    }
}
