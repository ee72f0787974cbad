//! `translate`: a photograph into a map or a map into a photograph.

use std::path::{Path, PathBuf};

use anyhow::Result;
use earthmapper::translator::Translator;
use earthmapper::windows::{Setting, WindowOptions};
use earthmapper_geo::Modality;
use earthmapper_geo::picture::{check_picture_output, read_picture, write_grey, write_picture};
use earthmapper_lab::progress::Progress;
use serde_json::json;

use crate::exit::BadInput;
use crate::settings::{FileArgs, GenerationArgs, ModelArgs, Output, PlaceArgs, check_modality, provenance};

/// Translate a picture: PNG, JPEG or WebP, of any size
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The picture.
    input: PathBuf,
    /// Where the result goes (.png, .jpg or .webp).
    output: PathBuf,
    /// What to make: map or satellite.
    #[arg(long, value_name = "map|satellite", env = "EARTHMAPPER_TO")]
    to: Modality,
    /// Results to make; they are numbered before the ending.
    #[arg(long, default_value_t = 1, env = "EARTHMAPPER_SAMPLES")]
    samples: usize,
    /// Resample the picture by this factor first, and the result back after.
    #[arg(long, default_value_t = 1.0, env = "EARTHMAPPER_SCALE")]
    scale: f64,
    /// Also write how undecided the model was, as a grey picture.
    #[arg(long, value_name = "FILE", env = "EARTHMAPPER_ENTROPY")]
    entropy: Option<PathBuf>,
    /// Windows of a large picture at once.
    #[arg(long, default_value_t = 4, env = "EARTHMAPPER_BATCH_SIZE")]
    batch_size: usize,
    #[command(flatten)]
    place: PlaceArgs,
    #[command(flatten)]
    generation: GenerationArgs,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    files: FileArgs,
}

pub fn run(args: Args, output: &Output) -> Result<()> {
    if args.samples == 0 || args.samples > 1000 {
        return Err(BadInput("--samples must be between 1 and 1000".into()).into());
    }
    if !(0.01..=100.0).contains(&args.scale) {
        return Err(BadInput("--scale must be between 0.01 and 100".into()).into());
    }
    let outputs: Vec<PathBuf> =
        (0..args.samples).map(|sample| numbered(&args.output, sample, args.samples)).collect();
    for path in outputs.iter().chain(&args.entropy) {
        check_picture_output(path, args.files.overwrite)?;
    }
    let place = args.place.place()?;
    let picture = read_picture(&args.input, &args.files.limits())?;
    let scaled = f64::from(picture.width()) * f64::from(picture.height()) * args.scale * args.scale;
    if scaled > args.files.max_pixels as f64 {
        return Err(BadInput(format!(
            "--scale {} makes more than --max-pixels {}",
            args.scale, args.files.max_pixels
        ))
        .into());
    }
    let model = args.model.load()?;
    check_modality(&model, args.to)?;
    check_modality(&model, args.to.other())?;
    let options = args.generation.options(model.generation.towards(args.to))?;
    let setting = Setting { place, seed: args.generation.seed, options: &options };
    let windows = WindowOptions { batch_size: args.batch_size, scale: args.scale, samples: args.samples };
    let mut progress = Progress::start(output.progress(), "windows", 0, 0);
    let mut before = 0;
    let results =
        Translator::new(&model).translate(&picture, args.to, &setting, &windows, &mut |done, of| {
            if before == 0 {
                progress = Progress::start(output.progress(), "windows", 0, of as u64);
            }
            progress.update(done as u64, (done - before) as u64, None);
            before = done;
        })?;
    progress.finish();
    let task = format!("{} → {}", args.to.other(), args.to);
    let provenance = provenance(&model, &task, args.generation.seed, Some(&args.input), &options);
    for (path, result) in outputs.iter().zip(&results) {
        write_picture(path, &result.picture, &args.files.write(provenance.clone()))?;
    }
    if let Some(path) = &args.entropy {
        let write = args.files.write(provenance.clone());
        write_grey(path, picture.width(), picture.height(), &results[0].uncertainty, &write)?;
    }
    let names: Vec<String> = outputs.iter().map(|path| path.display().to_string()).collect();
    output.result(
        &names.join("\n"),
        json!({ "outputs": names, "entropy": args.entropy, "seed": args.generation.seed }),
    );
    Ok(())
}

/// `name.png` for a single result, else `name-1.png`, `name-2.png` …
fn numbered(path: &Path, sample: usize, samples: usize) -> PathBuf {
    if samples == 1 {
        return path.to_path_buf();
    }
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let ending = path.extension().map(|e| format!(".{}", e.to_string_lossy())).unwrap_or_default();
    path.with_file_name(format!("{stem}-{}{ending}", sample + 1))
}
