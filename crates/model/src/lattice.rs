//! Translation of a plane without end, such as the tiles of a web map, in any order.
//!
//! Windows lie on a fixed lattice and each depends on its source, the seed and its position only; a part of the plane is
//! the cross-fade of the windows that touch it. So it comes out the same whichever parts were made before.

use std::collections::HashMap;

use earthmapper_geo::Modality;
use earthmapper_geo::Place;
use earthmapper_geo::picture::Picture;

use crate::canvas::{Fade, mean_byte};
use crate::scene::MadeWindow;
use crate::translator::{GenerationError, GenerationOptions, Translator};
use crate::views::WindowTask;
use crate::windows::window_seed;

/// Windows that are remembered beyond those needed right now.
const REMEMBERED: usize = 256;

/// Where the pixels of a plane come from.
pub trait Plane {
    /// What can go wrong with them.
    type Error: From<GenerationError>;

    /// The square of `side` pixels whose top left corner lies at (x, y); `None` where there is nothing at all.
    ///
    /// # Errors
    /// When it cannot be read.
    fn read(&mut self, x: i64, y: i64, side: u32) -> Result<Option<Picture>, Self::Error>;

    /// The place of a position in pixels, told to the model; `None` when it is not to be told.
    fn place(&self, x: f64, y: f64) -> Option<Place>;
}

/// A rectangle of a plane, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlaneArea {
    /// Its first column.
    pub x: i64,
    /// Its first row.
    pub y: i64,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

/// The windows of a plane.
pub struct Lattice<'a> {
    translator: Translator<'a>,
    to: Modality,
    seed: u64,
    options: &'a GenerationOptions,
    batch_size: usize,
    /// Pixels of the plane that a window covers.
    span: u32,
    /// Pixels of the plane from window to window.
    step: i64,
    fade: Vec<f32>,
    /// How many windows are remembered beyond those needed right now.
    remembered: usize,
    made: HashMap<(i64, i64), Window>,
    /// Counts calls, to know which windows were not needed for long.
    now: u64,
}

struct Window {
    /// None where the source has nothing.
    made: Option<MadeWindow>,
    needed: u64,
}

impl<'a> Lattice<'a> {
    /// A lattice for a plane whose pixels are `2^doublings` times as large as the model's: each is resampled by that for
    /// the model and the result back. `seed` is that of the plane.
    pub fn new(
        translator: Translator<'a>,
        to: Modality,
        (seed, options): (u64, &'a GenerationOptions),
        doublings: i32,
        batch_size: usize,
    ) -> Self {
        let side = f64::from(translator.side());
        let across = |pixels: f64| ((pixels / 2f64.powi(doublings)).floor() as u32).max(1);
        let (span, step) = (across(side), across(f64::from(translator.step())));
        let fade = Fade::even(span).columns;
        let batch_size = batch_size.max(1);
        let (made, remembered) = (HashMap::new(), REMEMBERED);
        let step = i64::from(step);
        Self { translator, to, seed, options, batch_size, span, step, fade, remembered, made, now: 0 }
    }

    /// Remembers so many windows beyond those needed right now, instead of 256. One takes `3 · span²` bytes.
    pub fn with_remembered(self, remembered: usize) -> Self {
        Self { remembered, ..self }
    }

    /// Makes the windows that some parts need and are not remembered.
    ///
    /// # Errors
    /// The plane's, and as [`Translator::run`].
    pub fn prepare<P: Plane>(&mut self, plane: &mut P, areas: &[PlaneArea]) -> Result<(), P::Error> {
        self.now += 1;
        let mut open = Vec::new();
        let needed: Vec<(i64, i64)> = areas.iter().flat_map(|area| self.corners(*area)).collect();
        for corner in needed {
            match self.made.get_mut(&corner) {
                Some(window) => window.needed = self.now,
                None if open.contains(&corner) => {}
                None => open.push(corner),
            }
        }
        for corners in open.chunks(self.batch_size) {
            self.make(plane, corners)?;
        }
        if self.made.len() > open.len() + self.remembered {
            let mut ages: Vec<u64> = self.made.values().map(|window| window.needed).collect();
            ages.sort_unstable();
            let oldest = ages.get(ages.len() - self.remembered).copied().unwrap_or(self.now).min(self.now);
            self.made.retain(|_, window| window.needed >= oldest);
        }
        Ok(())
    }

    /// A part of the plane, black where the source has nothing.
    ///
    /// # Panics
    /// When it was not among those [prepared](Self::prepare) last.
    pub fn picture(&self, area: PlaneArea) -> Picture {
        let span = self.span as usize;
        let sums = self.sums(area, |made, column, row| {
            let start = (row * span + column) * 3;
            let rgb = &made.picture.rgb()[start..start + 3];
            [f32::from(rgb[0]), f32::from(rgb[1]), f32::from(rgb[2]), 1.0]
        });
        let rgb = sums.iter().flat_map(|&[r, g, b, weight]| [r, g, b].map(|sum| mean_byte(sum, weight)));
        Picture::new(area.width, area.height, rgb.collect()).expect("three bytes a pixel")
    }

    /// How undecided the model was about each pixel of a part, `[height, width]`: 0 certain … 255 no idea (token entropy
    /// over ln V); 0 where the source has nothing.
    ///
    /// # Panics
    /// As [`Lattice::picture`].
    pub fn uncertainty(&self, area: PlaneArea) -> Vec<u8> {
        let span = self.span as usize;
        let sums = self.sums(area, |made, column, row| {
            let tokens = made.uncertainty.len().isqrt();
            [255.0 * made.uncertainty[row * tokens / span * tokens + column * tokens / span], 1.0]
        });
        sums.iter().map(|&[sum, weight]| mean_byte(sum, weight)).collect()
    }

    /// Cross-faded sums of what windows have at each pixel (their column and row), `[height, width]`.
    fn sums<const N: usize>(
        &self,
        area: PlaneArea,
        values: impl Fn(&MadeWindow, usize, usize) -> [f32; N],
    ) -> Vec<[f32; N]> {
        let (width, height) = (area.width as usize, area.height as usize);
        let mut sums = vec![[0.0f32; N]; width * height];
        for corner in self.corners(area) {
            let window = self.made.get(&corner).expect("a prepared part");
            let Some(made) = &window.made else { continue };
            let span = i64::from(self.span);
            for y in area.y.max(corner.1)..(area.y + i64::from(area.height)).min(corner.1 + span) {
                for x in area.x.max(corner.0)..(area.x + i64::from(area.width)).min(corner.0 + span) {
                    let (column, row) = ((x - corner.0) as usize, (y - corner.1) as usize);
                    let weight = self.fade[column] * self.fade[row];
                    let sum = &mut sums[(y - area.y) as usize * width + (x - area.x) as usize];
                    let values = values(made, column, row);
                    sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += weight * value);
                }
            }
        }
        sums
    }

    /// Top left corners of the windows that touch a part, row by row.
    fn corners(&self, area: PlaneArea) -> Vec<(i64, i64)> {
        let along = |start: i64, length: u32| {
            let first = (start - i64::from(self.span)).div_euclid(self.step) + 1;
            let last = (start + i64::from(length) - 1).div_euclid(self.step);
            first..=last
        };
        let columns = along(area.x, area.width);
        along(area.y, area.height)
            .flat_map(|row| columns.clone().map(move |column| (column, row)))
            .map(|(column, row)| (column * self.step, row * self.step))
            .collect()
    }

    fn make<P: Plane>(&mut self, plane: &mut P, corners: &[(i64, i64)]) -> Result<(), P::Error> {
        let side = self.translator.side();
        let mut seen = Vec::new();
        let mut pictures = Vec::new();
        for &corner in corners {
            match plane.read(corner.0, corner.1, self.span)? {
                Some(picture) => {
                    seen.push(corner);
                    pictures.push(picture.resized(side, side));
                }
                None => {
                    self.made.insert(corner, Window { made: None, needed: self.now });
                }
            }
        }
        if seen.is_empty() {
            return Ok(());
        }
        let half = f64::from(self.span) / 2.0;
        let views = self.options.views_toward(self.to)?;
        let sources = self.translator.encode_views(&pictures, views, self.batch_size);
        let tasks: Vec<WindowTask> = sources
            .iter()
            .zip(&seen)
            .map(|(source, &(x, y))| WindowTask {
                source,
                place: plane.place(x as f64 + half, y as f64 + half),
                seed: window_seed(self.seed, (x as u32, y as u32)),
                before: None,
            })
            .collect();
        let made = self.translator.translate_views(&tasks, self.to, self.options, self.batch_size)?;
        for (corner, made) in seen.into_iter().zip(made) {
            let picture = made.picture.resized(self.span, self.span);
            let made = Some(MadeWindow { picture, ..made });
            self.made.insert(corner, Window { made, needed: self.now });
        }
        Ok(())
    }
}
