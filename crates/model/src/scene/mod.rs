//! Translation of pictures of any size, window by window, from the top row to the bottom one (PAPER section 8).
//!
//! [`Translator::translate_scene`] holds one row of windows in memory, whatever the height; where the pixels come from
//! and go to is a [`Scene`]. [`Translator::translate`] is the same for pictures that are in memory anyway.

mod grid;

use std::collections::HashMap;

use earthmapper_geo::picture::{Mask, Picture};
use earthmapper_geo::window_journal::WindowId;
use earthmapper_geo::{Modality, Place};

use crate::canvas::Canvas;
use crate::rows::RowResampler;
use crate::sampler::derive_seed;
use crate::translator::{GenerationError, Translator};
use crate::views::{View, Viewed, WindowTask};
use crate::windows::{Setting, window_seed};
use grid::{Grid, middle};

/// How windows are joined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Seam {
    /// Windows are cross-faded where they overlap: no edge, but what differs between them shows double.
    #[default]
    Blend,
    /// Tokens of the neighbours that are made already are forced in the overlap, so that structure goes on and nothing
    /// shows double; then cross-faded. A row of windows is made in two or three passes, each window of a pass
    /// knowing those above and those of the passes before.
    Outpaint,
    /// Windows are made apart and cut in the middle of the overlap: fast, and edges show.
    Crop,
}

impl std::str::FromStr for Seam {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "blend" => Ok(Self::Blend),
            "outpaint" => Ok(Self::Outpaint),
            "crop" => Ok(Self::Crop),
            _ => Err("must be outpaint, blend or crop".into()),
        }
    }
}

impl std::fmt::Display for Seam {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Blend => "blend",
            Self::Outpaint => "outpaint",
            Self::Crop => "crop",
        })
    }
}

/// How a picture is cut into windows.
#[derive(Clone, Copy, Debug)]
pub struct WindowOptions {
    /// Windows at once; in several views, views of windows.
    pub batch_size: usize,
    /// The picture is resampled by this factor (above 0) before, and the result back after: for pictures at another
    /// ground resolution than the model's. The metres per pixel of the place are those before resampling.
    pub scale: f64,
    /// Results per picture.
    pub samples: usize,
    /// How windows are joined.
    pub seam: Seam,
}

impl Default for WindowOptions {
    fn default() -> Self {
        Self { batch_size: 4, scale: 1.0, samples: 1, seam: Seam::default() }
    }
}

/// Rows of a result, from the left border to the right one.
pub struct SceneRows {
    /// Which sample of the scene.
    pub sample: usize,
    /// The first row.
    pub top: u32,
    /// The rows.
    pub picture: Picture,
    /// How undecided the model was: 0 certain … 255 no idea (token entropy over ln V), as a grey picture.
    pub uncertainty: Picture,
}

/// A window that was made.
#[derive(Clone, Debug, PartialEq)]
pub struct MadeWindow {
    /// The picture, a square of the model's side.
    pub picture: Picture,
    /// How undecided the model was in each finest token, in [0, 1].
    pub uncertainty: Vec<f32>,
}

/// Where the pixels of a large picture come from and where those of the results go.
pub trait Scene {
    /// What can go wrong with them.
    type Error: From<GenerationError>;

    /// Width and height in pixels, both above zero.
    fn size(&self) -> (u32, u32);

    /// A part of the source, all inside; with a mask of where there is no data, if there is such.
    ///
    /// # Errors
    /// When it cannot be read.
    fn read(
        &mut self,
        corner: (u32, u32),
        width: u32,
        height: u32,
    ) -> Result<(Picture, Option<Mask>), Self::Error>;

    /// The place of a position in pixels, told to the model; `None` when it is not to be told.
    ///
    /// # Errors
    /// When it should be known and cannot be computed.
    fn place(&self, x: f64, y: f64) -> Result<Option<Place>, Self::Error>;

    /// Takes finished rows; those of one sample come from the top to the bottom without gaps.
    ///
    /// # Errors
    /// When they cannot be written.
    fn write(&mut self, rows: SceneRows) -> Result<(), Self::Error>;

    /// Is told windows done and windows in all.
    ///
    /// # Errors
    /// To stop.
    fn progress(&mut self, done: usize, all: usize) -> Result<(), Self::Error>;

    /// A window, by sample, column and row, that an interrupted run made; by default there are none. The result is
    /// the same as if it had been made now.
    ///
    /// # Errors
    /// When it cannot be read.
    fn recall(&mut self, _window: WindowId) -> Result<Option<MadeWindow>, Self::Error> {
        Ok(None)
    }

    /// Is given every window that was made now, in case the run does not come to its end.
    ///
    /// # Errors
    /// When it cannot be kept.
    fn keep(&mut self, _window: WindowId, _made: &MadeWindow) -> Result<(), Self::Error> {
        Ok(())
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

impl Translator<'_> {
    /// Translates a scene of any size toward `to`.
    ///
    /// A scene of the model's side is one window; a larger one is cut into overlapping windows, joined as
    /// [`WindowOptions::seam`] says; a smaller one is continued at its edges and cut back. Window (x, y) of sample s
    /// depends on the seed, x, y, s and, with [`Seam::Outpaint`], on its neighbours; not on the batch size. Every window
    /// is encoded once per view, however many samples there are. `setting.place` is not looked at: the scene knows. Windows without
    /// any data are left black.
    ///
    /// In memory are about `2 · side` rows of the scene at the model's scale, per sample.
    ///
    /// # Errors
    /// The scene's, and as [`Translator::run`].
    pub fn translate_scene<S: Scene>(
        &self,
        scene: &mut S,
        to: Modality,
        setting: &Setting,
        windows: &WindowOptions,
    ) -> Result<(), S::Error> {
        let views = setting.options.views_toward(to)?;
        let grid = self.grid(scene.size(), windows.scale);
        let mut canvases: Vec<Canvas> =
            (0..windows.samples).map(|_| Canvas::new(grid.working.0.max(grid.side), grid.side)).collect();
        let mut resamplers: Vec<RowResampler> =
            (0..windows.samples).map(|_| RowResampler::new(grid.working, grid.scene)).collect();
        let all = grid.columns.len() * grid.rows.len() * windows.samples;
        let mut done = 0;
        for (row, &y) in grid.rows.iter().enumerate() {
            let mut recalled = HashMap::new();
            for (sample, column) in
                (0..windows.samples).flat_map(|s| (0..grid.columns.len()).map(move |c| (s, c)))
            {
                if let Some(made) = scene.recall([sample as u32, column as u32, row as u32])? {
                    recalled.insert((sample, column), made);
                }
            }
            let wanted =
                |column: usize| (0..windows.samples).any(|sample| !recalled.contains_key(&(sample, column)));
            let sources = self.sources(scene, &grid, y, (views, windows.batch_size.max(1)), &wanted)?;
            let passes = match windows.seam {
                Seam::Outpaint => grid.passes(),
                Seam::Blend | Seam::Crop => 1,
            };
            for pass in 0..passes {
                let columns = || (pass..grid.columns.len()).step_by(passes);
                let jobs: Vec<(usize, usize)> = (0..windows.samples)
                    .flat_map(|sample| columns().map(move |column| (sample, column)))
                    .collect();
                for jobs in jobs.chunks(windows.batch_size.max(1)) {
                    let open: Vec<Job> = jobs
                        .iter()
                        .filter(|job| !recalled.contains_key(job))
                        .filter_map(|&(sample, column)| {
                            let source = sources[column].as_ref()?;
                            Some(Job { sample, column, row, source })
                        })
                        .collect();
                    let made = self.make(&grid, &open, &canvases, to, setting, windows)?;
                    for (job, made) in open.iter().zip(&made) {
                        scene.keep([job.sample as u32, job.column as u32, row as u32], made)?;
                    }
                    let places: Vec<(usize, usize)> =
                        open.iter().map(|job| (job.sample, job.column)).collect();
                    recalled.extend(places.into_iter().zip(made));
                    // In the order of the jobs, whichever of them were recalled: sums depend on it in the last bit.
                    for job in jobs {
                        if let Some(made) = recalled.remove(job) {
                            let corner = (grid.columns[job.1], y);
                            let fade = grid.fade(job.1, row, windows.seam);
                            canvases[job.0].add(corner, &made.picture, &made.uncertainty, &fade);
                        }
                    }
                    done += jobs.len();
                    scene.progress(done, all)?;
                }
            }
            let next = grid.rows.get(row + 1).copied();
            let finished = next.unwrap_or(grid.working.1) - y;
            for (sample, (canvas, resampler)) in canvases.iter_mut().zip(&mut resamplers).enumerate() {
                let (picture, uncertainty) = canvas.take(finished);
                let width = grid.working.0;
                let cut = |picture: Picture| picture.crop(0, 0, width, finished);
                let rows = resampler.push(&cut(picture), &cut(uncertainty), next.is_none());
                if let Some((top, picture, uncertainty)) = rows {
                    scene.write(SceneRows { sample, top, picture, uncertainty })?;
                }
            }
        }
        Ok(())
    }

    /// Translates a picture of any size toward `to`; see [`Translator::translate_scene`]. `progress` is told windows
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
        let (width, height) = (picture.width(), picture.height());
        let blank = Translated { picture: Picture::filled(width, height, [0; 3]), uncertainty: Vec::new() };
        let results = vec![blank; windows.samples];
        let mut scene = InMemory { source: picture, place: setting.place, results, progress };
        self.translate_scene(&mut scene, to, setting, windows)?;
        Ok(scene.results)
    }

    /// Where joins could show along a side of `length` pixels: the middles of the overlaps, the first pixels of windows,
    /// and those behind their ends.
    pub fn borders(&self, length: u32) -> [Vec<u32>; 3] {
        let starts = self.starts(length);
        let of = |border: &dyn Fn(u32, u32) -> u32| -> Vec<u32> {
            starts.windows(2).map(|pair| border(pair[0], pair[1])).collect()
        };
        let side = self.side();
        [of(&|start, next| middle(start, next, side)), of(&|_, next| next), of(&|start, _| start + side)]
    }

    fn grid(&self, scene: (u32, u32), scale: f64) -> Grid {
        let scaled = |length: u32| ((f64::from(length) * scale).round() as u32).max(1);
        let working = (scaled(scene.0), scaled(scene.1));
        let (columns, rows) = (self.starts(working.0), self.starts(working.1));
        Grid { side: self.side(), scene, working, columns, rows }
    }

    /// Reads and encodes the wanted windows of a row in all views; `None` for the others and where there is no data at all.
    fn sources<S: Scene>(
        &self,
        scene: &mut S,
        grid: &Grid,
        y: u32,
        (views, batch_size): (&'static [View], usize),
        wanted: &dyn Fn(usize) -> bool,
    ) -> Result<Vec<Option<Source>>, S::Error> {
        let mut sources = Vec::with_capacity(grid.columns.len());
        let columns: Vec<(usize, u32)> = grid.columns.iter().copied().enumerate().collect();
        for columns in columns.chunks(batch_size) {
            let mut pictures = Vec::new();
            let mut places = Vec::new();
            for &(column, x) in columns {
                let picture = if wanted(column) { grid.read(scene, (x, y))? } else { None };
                places.push(match &picture {
                    Some(_) => Some(grid.place(scene, (x, y))?),
                    None => None,
                });
                pictures.extend(picture);
            }
            let mut encoded = match pictures.is_empty() {
                true => Vec::new(),
                false => self.encode_views(&pictures, views, batch_size),
            }
            .into_iter();
            let source = |place: Option<Option<Place>>| {
                place.map(|place| Source { place, picture: encoded.next().expect("one per picture") })
            };
            sources.extend(places.into_iter().map(source));
        }
        Ok(sources)
    }

    /// Makes some windows, none of which needs another of them.
    fn make(
        &self,
        grid: &Grid,
        jobs: &[Job],
        canvases: &[Canvas],
        to: Modality,
        setting: &Setting,
        windows: &WindowOptions,
    ) -> Result<Vec<MadeWindow>, GenerationError> {
        let before = windows.seam == Seam::Outpaint;
        let tasks: Vec<WindowTask> = jobs
            .iter()
            .map(|job| {
                let corner = (grid.columns[job.column], grid.rows[job.row]);
                WindowTask {
                    source: &job.source.picture,
                    place: job.source.place,
                    seed: window_seed(sample_seed(setting.seed, job.sample), corner),
                    before: before.then(|| canvases[job.sample].window(corner, grid.side)),
                }
            })
            .collect();
        self.translate_views(&tasks, to, setting.options, windows.batch_size)
    }
}

/// Seed of sample `sample` of a picture: the picture's own for the first.
fn sample_seed(seed: u64, sample: usize) -> u64 {
    if sample == 0 { seed } else { derive_seed(seed, &[sample as u64]) }
}

/// A window of the source.
struct Source {
    place: Option<Place>,
    picture: Viewed,
}

/// A window to be made.
struct Job<'a> {
    sample: usize,
    column: usize,
    row: usize,
    source: &'a Source,
}

/// A scene that is in memory anyway.
struct InMemory<'a> {
    source: &'a Picture,
    place: Option<Place>,
    results: Vec<Translated>,
    progress: &'a mut dyn FnMut(usize, usize),
}

impl Scene for InMemory<'_> {
    type Error = GenerationError;

    fn size(&self) -> (u32, u32) {
        (self.source.width(), self.source.height())
    }

    fn read(
        &mut self,
        corner: (u32, u32),
        width: u32,
        height: u32,
    ) -> Result<(Picture, Option<Mask>), GenerationError> {
        Ok((self.source.crop(corner.0, corner.1, width, height), None))
    }

    fn place(&self, _: f64, _: f64) -> Result<Option<Place>, GenerationError> {
        Ok(self.place)
    }

    fn write(&mut self, rows: SceneRows) -> Result<(), GenerationError> {
        let result = &mut self.results[rows.sample];
        result.picture.paste(&rows.picture, 0, rows.top);
        result.uncertainty.extend(rows.uncertainty.rgb().iter().step_by(3));
        Ok(())
    }

    fn progress(&mut self, done: usize, all: usize) -> Result<(), GenerationError> {
        (self.progress)(done, all);
        Ok(())
    }
}
