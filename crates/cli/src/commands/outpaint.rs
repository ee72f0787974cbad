//! `outpaint`: extend a picture beyond its borders.

use std::path::PathBuf;

use anyhow::Result;
use earthmapper::translator::Translator;
use earthmapper::windows::{Margins, Setting};
use earthmapper_geo::Modality;
use earthmapper_geo::picture::read_picture;
use earthmapper_lab::progress::Progress;
use serde_json::json;

use crate::exit::Usage;
use crate::settings::{
    Content, FileArgs, GenerationArgs, ModelArgs, Output, PlaceArgs, Written, check_modality, provenance,
    usable_place,
};

/// Extend a picture beyond its borders; the picture itself stays as it is
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The picture.
    input: PathBuf,
    /// Where the result goes; the picture inside it stays the same to the byte in .png and .webp.
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
    let margins = Margins { left: args.left, right: args.right, top: args.top, bottom: args.bottom };
    if margins == Margins::default() {
        return Err(Usage("nothing to add; give --left, --right, --top or --bottom".into()).into());
    }
    let paths = [args.output];
    args.files.check_outputs(&paths)?;
    let place = args.place.place()?;
    let picture = read_picture(&args.input, &args.files.limits())?;
    let grown = |length: u32, a: u32, b: u32| u64::from(length) + u64::from(a) + u64::from(b);
    let width = grown(picture.width(), args.left, args.right);
    let height = grown(picture.height(), args.top, args.bottom);
    let model = args.model.load()?;
    check_modality(&model, args.modality)?;
    let place = usable_place(&model, place);
    args.files.check_size(&model, (width, height), &paths)?;
    let options = args.generation.options(model.generation.towards(args.modality))?.in_one_view();
    let facts = json!({ "seed": args.generation.seed, "width": width, "height": height });
    if args.files.dry_run {
        return output.outputs(&paths, true, facts);
    }

    let setting = Setting { place, seed: args.generation.seed, options: &options };
    let translator = Translator::new(&model);
    // The most windows there can be: those wholly inside the picture have nothing to fill.
    let windows = translator.window_count(width as u32, height as u32) as u64;
    let mut progress = Progress::start(output.progress(), "windows", 0, windows);
    let result = translator.outpaint(&picture, args.modality, margins, &setting, &mut |done, all| {
        progress.update(windows - (all - done) as u64, 1, None);
    })?;
    progress.finish();
    let provenance =
        provenance(&model, "outpainted", args.generation.seed, Some(&args.input), place, &options);
    args.files.write(&[Written { path: &paths[0], content: Content::Colour(&result) }], &provenance)?;
    output.outputs(&paths, false, facts)
}
