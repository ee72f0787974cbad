//! `translate`: a photograph into a map or a map into a photograph. Pictures are handled here, GeoTIFF in `raster.rs`.

mod raster;

use std::path::{Path, PathBuf};

use anyhow::Result;
use earthmapper::EarthMapper;
use earthmapper::scene::{Seam, WindowOptions};
use earthmapper::translator::{GenerationOptions, Translator};
use earthmapper::windows::Setting;
use earthmapper_geo::picture::read_picture;
use earthmapper_geo::{Modality, Provenance};
use earthmapper_lab::progress::Progress;
use serde_json::json;

use crate::settings::{
    Content, FileArgs, GenerationArgs, ModelArgs, Output, PlaceArgs, ViewsArgs, Written, check_modality,
    positive, provenance, usable_place,
};

/// Translate a picture (PNG, JPEG or WebP) or a GeoTIFF, of any size
///
/// A GeoTIFF becomes a GeoTIFF (COG) of the same size, transform, CRS and no-data areas. Its place and ground resolution are taken from it; a scene at another resolution than the model's is resampled for the model and the result back.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The picture.
    input: PathBuf,
    /// Where the result goes (.png, .jpg or .webp; .tif for a GeoTIFF).
    output: PathBuf,
    /// What to make: map or satellite.
    #[arg(long, value_name = "map|satellite", env = "EARTHMAPPER_TO")]
    to: Modality,
    /// Results to make, 1 … 1000; several are numbered before the ending.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000), env = "EARTHMAPPER_SAMPLES")]
    samples: u32,
    /// Resample the picture by this factor first, and the result back after [default: 1; for a GeoTIFF its ground resolution over the model's].
    #[arg(long, value_parser = positive::<f64>, env = "EARTHMAPPER_SCALE")]
    scale: Option<f64>,
    /// How windows of a large picture are joined: outpaint, blend or crop.
    #[arg(long, default_value_t, value_name = "outpaint|blend|crop", env = "EARTHMAPPER_SEAM")]
    seam: Seam,
    /// Also write how undecided the model was, as a grey picture; numbered like the results.
    #[arg(long, value_name = "FILE", env = "EARTHMAPPER_ENTROPY")]
    entropy: Option<PathBuf>,
    /// Windows of a large picture at once.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=4096), env = "EARTHMAPPER_BATCH_SIZE")]
    batch_size: u32,
    #[command(flatten)]
    raster: raster::RasterArgs,
    #[command(flatten)]
    place: PlaceArgs,
    #[command(flatten)]
    generation: GenerationArgs,
    #[command(flatten)]
    views: ViewsArgs,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    files: FileArgs,
}

pub fn run(args: Args, output: &Output) -> Result<()> {
    if raster::is_raster(&args.input) {
        return raster::run(args, output);
    }
    args.raster.check_unused(&args.input)?;
    let scale = args.scale.unwrap_or(1.0);
    let names = |path: &PathBuf| -> Vec<PathBuf> {
        (0..args.samples).map(|sample| numbered(path, sample, args.samples)).collect()
    };
    let mut paths = names(&args.output);
    paths.extend(args.entropy.iter().flat_map(names));
    args.files.check_outputs(&paths)?;
    let place = args.place.place()?;
    let picture = read_picture(&args.input, &args.files.limits())?;
    let (width, height) = (picture.width(), picture.height());
    let model = args.model.load()?;
    check_modality(&model, args.to)?;
    check_modality(&model, args.to.other())?;
    let place = usable_place(&model, place);
    let scaled = |length: u32| (f64::from(length) * scale).round().max(1.0) as u64;
    args.files.check_size(&model, (scaled(width), scaled(height)), [])?;
    args.files.check_size(&model, (width.into(), height.into()), &paths)?;
    let options = args.options(&model)?;
    let translator = Translator::new(&model);
    let count = translator.window_count(scaled(width) as u32, scaled(height) as u32);
    let facts = json!({ "seed": args.generation.seed, "windows": count, "width": width, "height": height });
    if args.files.dry_run {
        return output.outputs(&paths, true, facts);
    }

    let setting = Setting { place, seed: args.generation.seed, options: &options };
    let windows = WindowOptions {
        batch_size: args.batch_size as usize,
        scale,
        samples: args.samples as usize,
        seam: args.seam,
    };
    let mut progress =
        Progress::start(output.progress(), "windows", 0, count as u64 * u64::from(args.samples));
    let mut before = 0;
    let results = translator.translate(&picture, args.to, &setting, &windows, &mut |done, _| {
        progress.update(done as u64, (done - before) as u64, None);
        before = done;
    })?;
    progress.finish();

    let task = format!("{} → {}", args.to.other(), args.to);
    let mut provenance = provenance(&model, &task, args.generation.seed, Some(&args.input), place, &options);
    args.note(&mut provenance, scale);
    let pictures = results.iter().map(|result| Content::Colour(&result.picture));
    let greys = results.iter().map(|result| Content::Grey(width, height, &result.uncertainty));
    let written = paths.iter().zip(pictures.chain(greys));
    let written: Vec<Written> = written.map(|(path, content)| Written { path, content }).collect();
    args.files.write(&written, &provenance)?;
    output.outputs(&paths, false, facts)
}

impl Args {
    /// How tokens are drawn, and in how many views.
    fn options(&self, model: &EarthMapper) -> Result<GenerationOptions> {
        self.views.applied(self.generation.options(model.generation.towards(self.to))?, self.to)
    }

    /// Puts how the picture was cut into windows into its label.
    fn note(&self, provenance: &mut Provenance, scale: f64) {
        provenance.extra.insert("seam".into(), self.seam.to_string());
        if scale != 1.0 {
            provenance.extra.insert("scale".into(), scale.to_string());
        }
    }
}

/// `name.png` for a single result, else `name-1.png`, `name-2.png` …
fn numbered(path: &Path, sample: u32, samples: u32) -> PathBuf {
    if samples == 1 {
        return path.to_path_buf();
    }
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let ending = path.extension().map(|e| format!(".{}", e.to_string_lossy())).unwrap_or_default();
    path.with_file_name(format!("{stem}-{}{ending}", sample + 1))
}
