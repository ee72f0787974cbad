//! The uses of a [`Translator`] on pictures of any size: translate, inpaint, outpaint, generate.

use std::ops::Range;

use burn::tensor::Tensor;
use earthmapper_geo::picture::{Mask, Picture};
use earthmapper_geo::{Modality, Place};

use crate::pictures::{from_tensor, to_tensor};
use crate::sampler::derive_seed;
use crate::tokenizer::TokenPyramid;
use crate::translator::{Condition, Generated, GenerationError, GenerationOptions, Known, Translator};

/// How a picture is cut into windows.
#[derive(Clone, Copy, Debug)]
pub struct WindowOptions {
    /// Windows at once.
    pub batch_size: usize,
    /// The picture is resampled by this factor before, and the result back after: for pictures at another ground
    /// resolution than the model's.
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

    /// Pictures of the model's side → their tokens.
    pub fn encode(&self, pictures: &[Picture]) -> Vec<TokenPyramid> {
        let tokens = self.model().tokenizer.encode(to_tensor(pictures, &self.model().device()));
        (0..tokens.batch()).map(|i| tokens.picture(i)).collect()
    }

    /// Translates a picture of any size toward `to`.
    ///
    /// A picture of the model's side is one window; a larger one is cut into overlapping windows whose results are
    /// cross-faded; a smaller one is continued at its edges and cut back. Window (x, y) of sample s depends on the seed,
    /// x, y and s only. `progress` is told windows done and windows in all.
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
        let scaled = |length: u32| ((f64::from(length) * windows.scale).round() as u32).max(1);
        let source = match windows.scale == 1.0 {
            true => picture.clone(),
            false => picture.resized(scaled(picture.width()), scaled(picture.height())),
        };
        let padded = padded(&source, side);
        let places: Vec<(u32, u32)> = starts(padded.height(), side)
            .into_iter()
            .flat_map(|y| starts(padded.width(), side).into_iter().map(move |x| (x, y)))
            .collect();
        let mut canvases: Vec<Canvas> =
            (0..windows.samples).map(|_| Canvas::new(padded.width(), padded.height())).collect();
        let mut done = 0;
        for batch in places.chunks(windows.batch_size.max(1)) {
            let cut: Vec<Picture> = batch.iter().map(|&(x, y)| padded.crop(x, y, side, side)).collect();
            let tokens = self.encode(&cut);
            for (sample, canvas) in canvases.iter_mut().enumerate() {
                let conditions: Vec<Condition> = tokens
                    .iter()
                    .map(|tokens| Condition::translation(self.model(), tokens.clone(), to, setting.place))
                    .collect();
                let base = sample_seed(setting.seed, sample);
                let seeds: Vec<u64> =
                    batch.iter().map(|&(x, y)| derive_seed(base, &[u64::from(x), u64::from(y)])).collect();
                let made = self.run(&conditions, &seeds, setting.options, &mut |_| {})?.remove(0);
                let pictures = self.decode(made.reconstruction);
                for ((&(x, y), picture), uncertainty) in batch.iter().zip(&pictures).zip(&made.uncertainty) {
                    canvas.add(x, y, picture, uncertainty);
                }
            }
            done += batch.len();
            progress(done, places.len());
        }
        let finish = |canvas: Canvas| {
            let (made, uncertainty) = canvas.finish();
            let made = made.crop(0, 0, source.width(), source.height());
            let uncertainty = uncertainty.crop(0, 0, source.width(), source.height());
            let back = |p: Picture| match windows.scale == 1.0 {
                true => p,
                false => p.resized(picture.width(), picture.height()),
            };
            let uncertainty = back(uncertainty).rgb().iter().step_by(3).copied().collect();
            Translated { picture: back(made), uncertainty }
        };
        Ok(canvases.into_iter().map(finish).collect())
    }

    /// Fills the hole of a picture; pixels outside the hole stay as they are, to the byte.
    ///
    /// `other` is the other modality of the same place and size, when it is known: it is forced whole. Larger pictures
    /// are filled window by window, each using what was made before.
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
        assert!(
            other.is_none_or(|other| (other.width(), other.height()) == size),
            "the two pictures differ in size"
        );
        let side = self.side();
        let mut result = padded(&filled_with_mean(picture, mask), side);
        let (width, height) = (result.width(), result.height());
        let other = other.map(|other| padded(other, side));
        let mut hole = Mask::drawn(width, height, |x, y| x < size.0 && y < size.1 && mask.is_hole(x, y));
        let places: Vec<(u32, u32)> = starts(height, side)
            .into_iter()
            .flat_map(|y| starts(width, side).into_iter().map(move |x| (x, y)))
            .filter(|&(x, y)| hole.crop(x, y, side, side).hole_count() > 0)
            .collect();
        for (done, &(x, y)) in places.iter().enumerate() {
            let open = hole.crop(x, y, side, side);
            // An earlier window may have filled it already.
            if open.hole_count() > 0 {
                let window = result.crop(x, y, side, side);
                let other = other.as_ref().map(|other| other.crop(x, y, side, side));
                let made = self.fill(&window, modality, &open, other, setting, (x, y))?;
                let kept = Picture::drawn(side, side, |px, py| match open.is_hole(px, py) {
                    true => made.pixel(px, py),
                    false => window.pixel(px, py),
                });
                result.paste(&kept, x, y);
                let before = hole;
                hole = Mask::drawn(width, height, |px, py| {
                    before.is_hole(px, py) && !(px >= x && py >= y && px < x + side && py < y + side)
                });
            }
            progress(done + 1, places.len());
        }
        let result = result.crop(0, 0, size.0, size.1);
        Ok(Picture::drawn(size.0, size.1, |x, y| match mask.is_hole(x, y) {
            true => result.pixel(x, y),
            false => picture.pixel(x, y),
        }))
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
        (x, y): (u32, u32),
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
        let seed = derive_seed(setting.seed, &[u64::from(x), u64::from(y)]);
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

/// Starts of windows of `side` that cover `length` ≥ `side`, a quarter overlapping.
fn starts(length: u32, side: u32) -> Vec<u32> {
    let step = (side * 3 / 4).max(1);
    let last = length - side;
    let count = last.div_ceil(step);
    // Evenly spread, so that no two windows nearly coincide.
    (0..=count)
        .map(|i| if count == 0 { 0 } else { (u64::from(last) * u64::from(i) / u64::from(count)) as u32 })
        .collect()
}

/// A picture continued by mirroring at its right and bottom edges until both sides reach `side`.
fn padded(picture: &Picture, side: u32) -> Picture {
    let (width, height) = (picture.width(), picture.height());
    if width >= side && height >= side {
        return picture.clone();
    }
    let mirror = |i: u32, length: u32| {
        let period = 2 * length;
        let i = i % period;
        if i < length { i } else { period - 1 - i }
    };
    Picture::drawn(width.max(side), height.max(side), |x, y| {
        picture.pixel(mirror(x, width), mirror(y, height))
    })
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
    let mean = sums.map(|sum| (sum / count.max(1)) as u8);
    Picture::drawn(picture.width(), picture.height(), |x, y| match mask.is_hole(x, y) {
        true => mean,
        false => picture.pixel(x, y),
    })
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

    fn add(&mut self, x: u32, y: u32, picture: &Picture, uncertainty: &[f32]) {
        let side = picture.width() as usize;
        let tokens = (uncertainty.len() as f64).sqrt() as usize;
        // A raised cosine that is never zero, so that borders of the whole picture are covered by one window alone.
        let fade: Vec<f32> = (0..side)
            .map(|i| (std::f32::consts::PI * (i as f32 + 0.5) / side as f32).sin().powi(2) + 1e-3)
            .collect();
        let rows: Range<usize> = 0..side;
        for py in rows {
            for px in 0..side {
                let weight = fade[py] * fade[px];
                let undecided = uncertainty[py * tokens / side * tokens + px * tokens / side];
                let rgb = picture.pixel(px as u32, py as u32).map(f32::from);
                let sums = &mut self.sums[(y as usize + py) * self.width + x as usize + px];
                let values = [rgb[0], rgb[1], rgb[2], 255.0 * undecided, 1.0];
                sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += weight * value);
            }
        }
    }

    /// The picture, and the uncertainty as a grey one.
    fn finish(self) -> (Picture, Picture) {
        let at = |x: u32, y: u32, channel: usize| {
            let sums = self.sums[y as usize * self.width + x as usize];
            (sums[channel] / sums[4]).round().clamp(0.0, 255.0) as u8
        };
        let (width, height) = (self.width as u32, self.height as u32);
        (
            Picture::drawn(width, height, |x, y| [at(x, y, 0), at(x, y, 1), at(x, y, 2)]),
            Picture::drawn(width, height, |x, y| [at(x, y, 3); 3]),
        )
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
    fn cross_fading_equal_windows_changes_nothing() {
        let mut canvas = Canvas::new(12, 8);
        let picture = Picture::filled(8, 8, [10, 200, 90]);
        canvas.add(0, 0, &picture, &[0.5; 4]);
        canvas.add(4, 0, &picture, &[0.5; 4]);
        let (made, uncertainty) = canvas.finish();
        assert_eq!(made, Picture::filled(12, 8, [10, 200, 90]));
        assert_eq!(uncertainty, Picture::filled(12, 8, [128; 3]));
    }

    #[test]
    fn small_pictures_are_mirrored() {
        let picture = Picture::drawn(2, 1, |x, _| [x as u8; 3]);
        let big = padded(&picture, 4);
        assert_eq!((0..4).map(|x| big.pixel(x, 3)[0]).collect::<Vec<_>>(), [0, 1, 1, 0]);
    }
}
