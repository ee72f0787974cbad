//! `outpaint`: extend a picture beyond its borders.

use std::path::PathBuf;

use anyhow::Result;
use earthmapper::translator::Translator;
use earthmapper::windows::{Margins, Setting};
use earthmapper_geo::Modality;
use earthmapper_geo::picture::{check_picture_output, read_picture, write_picture};
use earthmapper_lab::progress::Progress;
use serde_json::json;

use crate::exit::BadInput;
use crate::settings::{FileArgs, GenerationArgs, ModelArgs, Output, PlaceArgs, check_modality, provenance};

/// Extend a picture beyond its borders; the picture itself stays as it is
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The picture.
    input: PathBuf,
    /// Where the result goes.
    output: PathBuf,
    /// What the picture is: map or satellite.
    #[arg(long = "as", value_name = "map|satellite", env = "EARTHMAPPER_AS")]
    modality: Modality,
    /// Pixels to add at the left.
    #[arg(long, default_value_t = 0, env = "EARTHMAPPER_LEFT")]
    left: u32,
    /// Pixels to add at the right.
    #[arg(long, default_value_t = 0, env = "EARTHMAPPER_RIGHT")]
    right: u32,
    /// Pixels to add at the top.
    #[arg(long, default_value_t = 0, env = "EARTHMAPPER_TOP")]
    top: u32,
    /// Pixels to add at the bottom.
    #[arg(long, default_value_t = 0, env = "EARTHMAPPER_BOTTOM")]
    bottom: u32,
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
    check_picture_output(&args.output, args.files.overwrite)?;
    let margins = Margins { left: args.left, right: args.right, top: args.top, bottom: args.bottom };
    if margins == Margins::default() {
        return Err(BadInput("nothing to add; give --left, --right, --top or --bottom".into()).into());
    }
    let place = args.place.place()?;
    let picture = read_picture(&args.input, &args.files.limits())?;
    let grown = |length: u32, a: u32, b: u32| u64::from(length) + u64::from(a) + u64::from(b);
    let (width, height) =
        (grown(picture.width(), args.left, args.right), grown(picture.height(), args.top, args.bottom));
    if width.saturating_mul(height) > args.files.max_pixels {
        let text =
            format!("{width} × {height} is more than --max-pixels {}; add less", args.files.max_pixels);
        return Err(BadInput(text).into());
    }
    let model = args.model.load()?;
    check_modality(&model, args.modality)?;
    let options = args.generation.options(model.generation.towards(args.modality))?;
    let setting = Setting { place, seed: args.generation.seed, options: &options };
    let mut progress = Progress::start(output.progress(), "windows", 0, 1);
    let translator = Translator::new(&model);
    let result = translator.outpaint(&picture, args.modality, margins, &setting, &mut |done, _| {
        progress.update(done as u64, 1, None);
    })?;
    progress.finish();
    let provenance = provenance(&model, "outpainted", args.generation.seed, Some(&args.input), &options);
    write_picture(&args.output, &result, &args.files.write(provenance))?;
    output.result(
        &args.output.display().to_string(),
        json!({ "output": args.output, "width": result.width(), "height": result.height() }),
    );
    Ok(())
}
