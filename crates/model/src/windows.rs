//! The uses of a [`Translator`] on pictures of any size: translate, inpaint, outpaint, generate.

use burn::tensor::Tensor;
use earthmapper_geo::picture::{Mask, Picture};
use earthmapper_geo::{Modality, Place};

use crate::pictures::{from_tensor, to_tensor};
use crate::sampler::derive_seed;
use crate::seam;
use crate::tokenizer::Encoding;
use crate::translator::{Condition, Generated, GenerationError, GenerationOptions, Known, Translator};

/// How a picture is cut into windows.
#[derive(Clone, Copy, Debug)]
pub struct WindowOptions {
    /// Windows at once.
    pub batch_size: usize,
    /// The picture is resampled by this factor (above 0) before, and the result back after: for pictures at another
    /// ground resolution than the model's. The metres per pixel of the place are those before resampling.
    pub scale: f64,
    /// Results per picture.
    pub samples: usize,
}

impl Default for WindowOptions {
    fn default() -> Self {
        Self { batch_size: 4, scale: 1.0, samples: 1 }
    }
}

/// A translated picture.
#[derive(Clone, Debug)]
pub struct Translated {
    /// The picture, of the source's size.
    pub picture: Picture,
    /// How undecided the model was: 0 certain … 255 no idea (token entropy over ln V), of the same size.
    pub uncertainty: Vec<u8>,
}

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
    fn side(&self) -> u32 {
        self.model().tokenizer_config.picture_side as u32
    }

    /// How many windows a picture of this size is cut into.
    pub fn window_count(&self, width: u32, height: u32) -> usize {
        let side = self.side();
        starts(width.max(side), side).len() * starts(height.max(side), side).len()
    }

    /// Pictures of the model's side → their tokens and features, one by one.
    pub fn encode(&self, pictures: &[Picture]) -> Vec<Encoding> {
        let encoding = self.model().tokenizer.encode(to_tensor(pictures, &self.model().device()));
        (0..encoding.batch()).map(|i| encoding.picture(i)).collect()
    }

    /// Translates a picture of any size toward `to`.
    ///
    /// A picture of the model's side is one window; a larger one is cut into overlapping windows whose results are
    /// cross-faded; a smaller one is continued at its edges and cut back. Window (x, y) of sample s depends on the
    /// seed, x, y and s only. Every window is encoded once, however many samples there are. `progress` is told windows
    /// done and windows in all.
    ///
    /// # Errors
    /// As [`Translator::run`].
    pub fn translate(
        &self,
        picture: &Picture,
        to: Modality,
        setting: &Setting,
        windows: &WindowOptions,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Vec<Translated>, GenerationError> {
        let side = self.side();
        let source = match windows.scale == 1.0 {
            true => picture.clone(),
            false => picture
                .resized(scaled(picture.width(), windows.scale), scaled(picture.height(), windows.scale)),
        };
        let place = setting.place.map(|place| at_scale(place, windows.scale));
        let padded = padded(&source, side);
        let places = corners(padded.width(), padded.height(), side);
        let batch_size = windows.batch_size.max(1);
        let mut encoded = Vec::with_capacity(places.len());
        for batch in places.chunks(batch_size) {
            let cut: Vec<Picture> = batch.iter().map(|&(x, y)| padded.crop(x, y, side, side)).collect();
            encoded.extend(self.encode(&cut));
        }
        // Sample by sample, so that one canvas is enough; a batch may hold the end of one and the start of the next.
        let jobs: Vec<(usize, usize)> =
            (0..windows.samples).flat_map(|sample| (0..places.len()).map(move |w| (sample, w))).collect();
        let mut canvas = Canvas::new(padded.width(), padded.height());
        let mut results = Vec::with_capacity(windows.samples);
        for (batch, chunk) in jobs.chunks(batch_size).enumerate() {
            let conditions: Vec<Condition> = chunk
                .iter()
                .map(|&(_, window)| Condition::translation(self.model(), encoded[window].clone(), to, place))
                .collect();
            let seeds: Vec<u64> = chunk
                .iter()
                .map(|&(sample, window)| window_seed(sample_seed(setting.seed, sample), places[window]))
                .collect();
            let made = self.run(&conditions, &seeds, setting.options, &mut |_| {})?.remove(0);
            let pictures = self.decode(made.reconstruction);
            for (i, &(_, window)) in chunk.iter().enumerate() {
                canvas.add(places[window], &pictures[i], &made.uncertainty[i]);
                if window + 1 == places.len() {
                    let (made, uncertainty) = canvas.take();
                    // Back to the size of the picture: without the continuation, then without the scale.
                    let back = |made: Picture| {
                        let made = made.crop(0, 0, source.width(), source.height());
                        made.resized(picture.width(), picture.height())
                    };
                    let uncertainty = back(uncertainty).rgb().iter().step_by(3).copied().collect();
                    results.push(Translated { picture: back(made), uncertainty });
                }
            }
            progress(batch * batch_size + chunk.len(), jobs.len());
        }
        Ok(results)
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
    fn decode(&self, reconstruction: Tensor<4>) -> Vec<Picture> {
        from_tensor(self.model().tokenizer.decode_features(reconstruction))
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
        let features = model.tokenizer.features(to_tensor(std::slice::from_ref(window), &model.device()));
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

/// Seed of sample `sample` of a picture: the picture's own for the first.
fn sample_seed(seed: u64, sample: usize) -> u64 {
    if sample == 0 { seed } else { derive_seed(seed, &[sample as u64]) }
}

/// Seed of the window at `corner`.
fn window_seed(seed: u64, corner: (u32, u32)) -> u64 {
    derive_seed(seed, &[u64::from(corner.0), u64::from(corner.1)])
}

/// A length in pixels at another scale, at least one.
fn scaled(length: u32, scale: f64) -> u32 {
    ((f64::from(length) * scale).round() as u32).max(1)
}

/// The place as a model sees it whose pictures are resampled by `scale`.
fn at_scale(place: Place, scale: f64) -> Place {
    let metres = place.metres_per_pixel().map(|metres| metres / scale);
    Place::new(place.position(), metres).unwrap_or(place)
}

/// Top left corners of the windows of `side` that cover a picture, row by row.
fn corners(width: u32, height: u32, side: u32) -> Vec<(u32, u32)> {
    let columns = starts(width, side);
    starts(height, side).into_iter().flat_map(|y| columns.iter().map(move |&x| (x, y))).collect()
}

/// Starts of windows of `side` that cover `length` ≥ `side`, at least a quarter overlapping.
fn starts(length: u32, side: u32) -> Vec<u32> {
    let step = (side * 3 / 4).max(1);
    let last = length - side;
    let count = last.div_ceil(step);
    // Evenly spread, so that no two windows nearly coincide.
    let start = |i: u32| (u64::from(last) * u64::from(i) / u64::from(count.max(1))) as u32;
    (0..=count).map(start).collect()
}

/// Position `i` of a row of `length` that goes on mirrored for ever.
fn mirrored(i: u32, length: u32) -> u32 {
    let i = i % (2 * length);
    if i < length { i } else { 2 * length - 1 - i }
}

/// A picture continued by mirroring at its right and bottom edges until both sides reach `side`.
fn padded(picture: &Picture, side: u32) -> Picture {
    let (width, height) = (picture.width(), picture.height());
    if width >= side && height >= side {
        return picture.clone();
    }
    let pixel = |x: u32, y: u32| picture.pixel(mirrored(x, width), mirrored(y, height));
    Picture::drawn(width.max(side), height.max(side), pixel)
}

/// The hole filled with the mean colour outside it, so that whatever is there does not leak into the features.
fn filled_with_mean(picture: &Picture, mask: &Mask) -> Picture {
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
            false => corners(width, height, side),
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

/// Overlapping windows, cross-faded.
struct Canvas {
    width: usize,
    height: usize,
    /// Weighted sums of red, green, blue and uncertainty, and of the weights.
    sums: Vec<[f32; 5]>,
}

impl Canvas {
    fn new(width: u32, height: u32) -> Self {
        let (width, height) = (width as usize, height as usize);
        Self { width, height, sums: vec![[0.0; 5]; width * height] }
    }

    fn add(&mut self, corner: (u32, u32), picture: &Picture, uncertainty: &[f32]) {
        let side = picture.width() as usize;
        let tokens = uncertainty.len().isqrt();
        // A raised cosine that is never zero, because one window alone covers the borders of the whole picture.
        let fade: Vec<f32> = (0..side)
            .map(|i| (std::f32::consts::PI * (i as f32 + 0.5) / side as f32).sin().powi(2) + 1e-3)
            .collect();
        let pixels = picture.rgb().as_chunks::<3>().0;
        for y in 0..side {
            let start = (corner.1 as usize + y) * self.width + corner.0 as usize;
            for (x, sums) in self.sums[start..start + side].iter_mut().enumerate() {
                let weight = fade[y] * fade[x];
                let undecided = uncertainty[y * tokens / side * tokens + x * tokens / side];
                let [r, g, b] = pixels[y * side + x].map(f32::from);
                let values = [r, g, b, 255.0 * undecided, 1.0];
                sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += weight * value);
            }
        }
    }

    /// The picture, and the uncertainty as a grey one; the canvas is blank again after.
    fn take(&mut self) -> (Picture, Picture) {
        let byte = |sum: f32, weight: f32| (sum / weight).round().clamp(0.0, 255.0) as u8;
        let colours =
            self.sums.iter().flat_map(|&[r, g, b, _, weight]| [r, g, b].map(|sum| byte(sum, weight)));
        let greys = self.sums.iter().flat_map(|&[_, _, _, undecided, weight]| [byte(undecided, weight); 3]);
        let whole = |bytes: Vec<u8>| {
            Picture::new(self.width as u32, self.height as u32, bytes).expect("three bytes a pixel")
        };
        let taken = (whole(colours.collect()), whole(greys.collect()));
        self.sums.fill([0.0; 5]);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_cover_everything_and_overlap() {
        for length in [256, 257, 300, 511, 512, 600, 1000] {
            let starts = starts(length, 256);
            assert_eq!((starts[0], starts[starts.len() - 1] + 256), (0, length));
            assert!(
                starts.windows(2).all(|pair| pair[1] - pair[0] <= 192 && pair[1] > pair[0]),
                "{starts:?}"
            );
        }
    }

    #[test]
    fn every_pixel_is_covered() {
        for (width, height) in [(8, 8), (9, 8), (13, 21), (40, 11)] {
            let mut canvas = Canvas::new(width, height);
            for corner in corners(width, height, 8) {
                canvas.add(corner, &Picture::filled(8, 8, [7; 3]), &[1.0]);
            }
            let (made, uncertainty) = canvas.take();
            assert_eq!(made, Picture::filled(width, height, [7; 3]));
            assert_eq!(uncertainty, Picture::filled(width, height, [255; 3]));
        }
    }

    #[test]
    fn cross_fading_equal_windows_changes_nothing() {
        let mut canvas = Canvas::new(12, 8);
        let picture = Picture::filled(8, 8, [10, 200, 90]);
        canvas.add((0, 0), &picture, &[0.4; 4]);
        canvas.add((4, 0), &picture, &[0.4; 4]);
        let (made, uncertainty) = canvas.take();
        assert_eq!(made, Picture::filled(12, 8, [10, 200, 90]));
        assert_eq!(uncertainty, Picture::filled(12, 8, [102; 3]));
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
        assert_eq!(all.len(), corners(40, 30, 16).len());
    }
}
