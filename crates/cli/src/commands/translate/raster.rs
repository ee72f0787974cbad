//! A GeoTIFF scene into a GeoTIFF scene, window by window.

use std::path::{Path, PathBuf};

use anyhow::Result;
use earthmapper::EarthMapper;
use earthmapper::scene::{MadeWindow, Scene, SceneRows, WindowOptions};
use earthmapper::translator::{GenerationOptions, Translator};
use earthmapper::windows::Setting;
use earthmapper_geo::picture::{Mask, Picture};
use earthmapper_geo::raster::{
    Epsg, PixelWindow, RasterError, RasterLimits, RasterOptions, RasterReader, RasterWriter, Rendering,
    Stretch, Validity,
};
use earthmapper_geo::window_journal::{Earlier, WindowId, WindowJournal};
use earthmapper_geo::{Place, Provenance};
use earthmapper_lab::progress::{Interrupt, Progress};
use serde_json::json;

use super::{Args, numbered};
use crate::exit::{BadInput, Interrupted, Usage};
use crate::settings::{Output, check_modality, interrupt, one_by_one, provenance, resolution};

/// Between these ratios of ground resolutions a scene is taken as it is.
const ALIKE: std::ops::RangeInclusive<f64> = 0.8..=1.25;

/// Rows whose mask is read at once when the result is written.
const MASK_ROWS: u32 = 64;

/// What a GeoTIFF needs to be told.
#[derive(clap::Args, Debug)]
pub struct RasterArgs {
    /// GeoTIFF: the bands to show, one (grey) or three, counted from 1 [default: the first three].
    #[arg(long, value_name = "R,G,B", value_delimiter = ',', env = "EARTHMAPPER_BANDS")]
    bands: Option<Vec<usize>>,
    /// GeoTIFF: how numbers become colours: auto, whole, two percentiles (2%-98%) or two values (0..3000).
    #[arg(long, default_value = "auto", value_parser = stretch, env = "EARTHMAPPER_STRETCH")]
    stretch: Stretch,
    /// GeoTIFF: the CRS of its coordinates, instead of what the file says.
    #[arg(long, value_name = "EPSG:N", env = "EARTHMAPPER_CRS")]
    crs: Option<Epsg>,
    /// GeoTIFF: translate it even when its ground resolution is far from the model's, or when it has no georeference.
    #[arg(long, value_parser = clap::builder::BoolishValueParser::new(), env = "EARTHMAPPER_FORCE")]
    force: bool,
    /// GeoTIFF: go on where an interrupted run stopped; windows that are made are kept beside the output until it is whole.
    #[arg(long, conflicts_with = "overwrite", value_parser = clap::builder::BoolishValueParser::new(), env = "EARTHMAPPER_RESUME")]
    resume: bool,
}

impl RasterArgs {
    /// Refuses flags that mean nothing for a picture.
    pub fn check_unused(&self, input: &Path) -> Result<()> {
        let flag = match self {
            Self { bands: Some(_), .. } => "--bands",
            Self { crs: Some(_), .. } => "--crs",
            Self { resume: true, .. } => "--resume",
            Self { stretch, .. } if *stretch != Stretch::Auto => "--stretch",
            _ => return Ok(()),
        };
        Err(Usage(format!("{flag} is for GeoTIFF, and {} is none", input.display())).into())
    }
}

/// `auto`, `whole`, `2%-98%` or `0..3000`.
fn stretch(text: &str) -> Result<Stretch, String> {
    let wrong = || "must be auto, whole, two percentiles like 2%-98% or two values like 0..3000".to_owned();
    let number = |text: &str| text.trim().parse::<f64>().map_err(|_| wrong());
    if let Some((low, high)) = text.split_once("..") {
        return Ok(Stretch::Range { low: number(low)?, high: number(high)? });
    }
    if let Some((low, high)) = text.split_once("%-") {
        return Ok(Stretch::Percentiles { low: number(low)?, high: number(high.trim_end_matches('%'))? });
    }
    match text {
        "auto" => Ok(Stretch::Auto),
        "whole" => Ok(Stretch::Whole),
        _ => Err(wrong()),
    }
}

/// Whether a file is handled here, by its name.
pub fn is_raster(path: &Path) -> bool {
    let ending = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    matches!(ending.as_str(), "tif" | "tiff")
}

pub fn run(args: Args, output: &Output) -> Result<()> {
    let names = |path: &PathBuf| -> Vec<PathBuf> {
        (0..args.samples).map(|sample| numbered(path, sample, args.samples)).collect()
    };
    let mut paths = names(&args.output);
    paths.extend(args.entropy.iter().flat_map(names));
    if let Some(path) = paths.iter().find(|path| !is_raster(path)) {
        let text = format!("{}: a GeoTIFF becomes a GeoTIFF; name a .tif file", path.display());
        return Err(Usage(text).into());
    }
    if args.place.lat.is_some() {
        return Err(Usage("a GeoTIFF says itself where it lies; leave out --lat and --lon".into()).into());
    }
    args.files.check_names(&paths)?;
    let earlier = match (args.raster.resume, args.files.overwrite) {
        (true, _) => Earlier::Continue,
        (false, true) => Earlier::Discard,
        (false, false) => Earlier::Refuse,
    };
    WindowJournal::check(&paths[0], earlier)?;
    let mut reader = RasterReader::open(&args.input, &RasterLimits::default())?;
    if let Some(epsg) = args.raster.crs {
        reader = reader.with_crs(epsg)?;
    }
    let model = args.model.load()?;
    check_modality(&model, args.to)?;
    check_modality(&model, args.to.other())?;
    let rendering = reader.rendering(args.raster.bands.as_deref(), args.raster.stretch)?;
    let (width, height) = (reader.width(), reader.height());
    let middle = match reader.place(f64::from(width) / 2.0, f64::from(height) / 2.0) {
        Ok(place) => Some(place),
        Err(RasterError::NoGeoReference { .. }) if args.raster.force => None,
        Err(error) => return Err(error.into()),
    };
    let scale = match args.scale {
        Some(scale) => scale,
        None => scale_of(&args, &model, middle)?,
    };
    let options = args.options(&model)?;
    let translator = Translator::new(&model);
    let scaled = |length: u32| (f64::from(length) * scale).round().max(1.0);
    let (working_width, working_height) = (scaled(width), scaled(height));
    if working_width.max(working_height) > f64::from(u32::MAX / 4) {
        let text =
            format!("{}: too large at the model's scale; give a smaller --scale", args.input.display());
        return Err(BadInput(text).into());
    }
    let windows = translator.window_count(working_width as u32, working_height as u32) as u64;
    let facts = json!({
        "seed": args.generation.seed, "windows": windows, "width": width, "height": height, "scale": scale,
        "metres_per_pixel": middle.and_then(|place| place.metres_per_pixel()),
    });
    if args.files.dry_run {
        return output.outputs(&paths, true, facts);
    }

    let task = format!("{} → {}", args.to.other(), args.to);
    let known = middle.filter(|_| model.config.trained_on.places_known);
    let mut provenance = provenance(&model, &task, args.generation.seed, Some(&args.input), known, &options);
    args.note(&mut provenance, scale);
    let writer = |path: &PathBuf| RasterWriter::create(path, contents(&args, &reader, provenance.clone()));
    let mut writers = paths.iter().map(writer).collect::<Result<Vec<_>, _>>()?;
    let uncertainties = writers.split_off(args.samples as usize);
    let journal = WindowJournal::open(&paths[0], &task_line(&args, &model, scale, &options)?, earlier)?;
    let kept = journal.count() as u64;
    let mut scene = RasterScene {
        reader: &reader,
        rendering,
        told: known.is_some(),
        writers,
        uncertainties,
        progress: Progress::start(output.progress(), "windows", kept, windows * u64::from(args.samples)),
        journal,
        done: kept,
        made: 0,
        side: model.tokenizer_config.picture_side as u32,
        interrupt: interrupt()?,
    };
    let setting = Setting { place: None, seed: args.generation.seed, options: &options };
    let windows = WindowOptions {
        batch_size: args.batch_size as usize,
        scale,
        samples: args.samples as usize,
        seam: args.seam,
    };
    translator.translate_scene(&mut scene, args.to, &setting, &windows)?;
    scene.progress.finish();
    let journal = scene.journal;
    let writers: Vec<RasterWriter> = scene.writers.into_iter().chain(scene.uncertainties).collect();
    let finished = paths.iter().zip(writers).map(|(path, writer)| (path.as_path(), || writer.finish()));
    one_by_one(finished)?;
    journal.remove()?;
    output.outputs(&paths, false, facts)
}

/// Everything that a window depends on, in one line.
fn task_line(args: &Args, model: &EarthMapper, scale: f64, options: &GenerationOptions) -> Result<String> {
    let state = |path: &Path| -> Result<serde_json::Value> {
        let facts = std::fs::metadata(path)?;
        let changed = facts.modified()?.duration_since(std::time::UNIX_EPOCH)?.as_nanos() as u64;
        Ok(json!({ "path": path.canonicalize()?, "length": facts.len(), "changed": changed }))
    };
    let folder = args.model.folder()?;
    let task = json!({
        "input": state(&args.input)?, "model": [state(&folder.join("model.safetensors"))?, state(&folder.join("tokenizer/model.safetensors"))?],
        "name": model.config.name, "to": args.to, "seed": args.generation.seed, "scale": scale, "seam": args.seam.to_string(),
        "bands": args.raster.bands, "stretch": format!("{:?}", args.raster.stretch), "crs": args.raster.crs.map(|crs| crs.to_string()),
        "options": options, "device": args.model.device,
    });
    Ok(task.to_string())
}

/// What the results have in common with the scene.
fn contents(args: &Args, reader: &RasterReader, provenance: Provenance) -> RasterOptions {
    RasterOptions {
        validity: reader.validity(),
        georeference: reader.georeference().ok().cloned(),
        provenance: Some(provenance),
        overwrite: args.files.overwrite,
        ..RasterOptions::new(reader.width(), reader.height())
    }
}

/// The factor that brings a scene to the model's ground resolution.
fn scale_of(args: &Args, model: &EarthMapper, middle: Option<Place>) -> Result<f64> {
    let Some(found) = middle.and_then(|place| place.metres_per_pixel()) else { return Ok(1.0) };
    let ratio = resolution::ratio(model, found);
    if ALIKE.contains(&ratio) {
        return Ok(1.0);
    }
    if resolution::is_within_reason(ratio) || args.raster.force {
        return Ok(ratio);
    }
    let cure = "use a model trained near that, or pass --force to resample all the same";
    Err(resolution::refusal(model, &args.input, found, cure).into())
}

/// A GeoTIFF that is read and written window by window.
struct RasterScene<'a> {
    reader: &'a RasterReader,
    rendering: Rendering,
    /// Whether the model is told where windows lie.
    told: bool,
    /// One per sample.
    writers: Vec<RasterWriter>,
    /// One per sample, or none.
    uncertainties: Vec<RasterWriter>,
    progress: Progress,
    journal: WindowJournal,
    /// Windows that the progress counts.
    done: u64,
    /// Windows made by this run.
    made: u64,
    /// Of a window, in pixels.
    side: u32,
    interrupt: Interrupt,
}

impl RasterScene<'_> {
    fn window(&self, corner: (u32, u32), width: u32, height: u32) -> Result<(Picture, Option<Mask>)> {
        let window = PixelWindow::new(corner.0, corner.1, width, height);
        let window = self.reader.read_window(0, window, &self.rendering)?;
        let mask = (self.reader.validity() != Validity::Everywhere).then_some(window.nodata);
        Ok((window.picture, mask))
    }
}

impl Scene for RasterScene<'_> {
    type Error = anyhow::Error;

    fn size(&self) -> (u32, u32) {
        (self.reader.width(), self.reader.height())
    }

    fn read(&mut self, corner: (u32, u32), width: u32, height: u32) -> Result<(Picture, Option<Mask>)> {
        self.window(corner, width, height)
    }

    fn place(&self, x: f64, y: f64) -> Result<Option<Place>> {
        Ok(if self.told { Some(self.reader.place(x, y)?) } else { None })
    }

    fn write(&mut self, rows: SceneRows) -> Result<()> {
        let SceneRows { sample, top, picture, uncertainty } = rows;
        let width = picture.width();
        for start in (0..picture.height()).step_by(MASK_ROWS as usize) {
            let count = MASK_ROWS.min(picture.height() - start);
            let mask = match self.reader.validity() {
                Validity::Everywhere => None,
                _ => self.window((0, top + start), width, count)?.1,
            };
            let part = |picture: &Picture| picture.crop(0, start, width, count);
            self.writers[sample].write_rows(&part(&picture), mask.as_ref())?;
            if let Some(writer) = self.uncertainties.get_mut(sample) {
                writer.write_rows(&part(&uncertainty), mask.as_ref())?;
            }
        }
        Ok(())
    }

    fn progress(&mut self, done: usize, _: usize) -> Result<()> {
        // Windows of an earlier run count from the start, so that the time left is that of the others.
        let done = (done as u64).max(self.done);
        self.progress.update(done, self.made, None);
        (self.done, self.made) = (done, 0);
        match self.interrupt.requested() {
            true => Err(Interrupted("pass --resume to go on from here").into()),
            false => Ok(()),
        }
    }

    fn recall(&mut self, window: WindowId) -> Result<Option<MadeWindow>> {
        let pixels = (self.side * self.side) as usize * 3;
        let Some(bytes) = self.journal.find(window)? else { return Ok(None) };
        let Some((rgb, rest)) = bytes.split_at_checked(pixels) else { return Ok(None) };
        let picture = Picture::new(self.side, self.side, rgb.to_vec())?;
        let uncertainty = rest.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        Ok(Some(MadeWindow { picture, uncertainty }))
    }

    fn keep(&mut self, window: WindowId, made: &MadeWindow) -> Result<()> {
        let mut bytes = made.picture.rgb().to_vec();
        made.uncertainty.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
        self.journal.note(window, &bytes)?;
        self.made += 1;
        Ok(())
    }
}
