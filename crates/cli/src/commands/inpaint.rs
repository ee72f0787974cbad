//! `inpaint`: fill a hole.

use std::path::PathBuf;

use anyhow::Result;
use earthmapper::translator::Translator;
use earthmapper::windows::Setting;
use earthmapper_geo::Modality;
use earthmapper_geo::picture::{read_mask, read_picture};
use earthmapper_lab::progress::Progress;
use serde_json::json;

use crate::exit::BadInput;
use crate::settings::{
    Content, FileArgs, GenerationArgs, ModelArgs, Output, PlaceArgs, Written, check_modality, provenance,
    usable_place,
};

/// Fill the hole of a picture; everything outside it stays as it is
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The picture.
    input: PathBuf,
    /// Where the result goes; the rest of the picture stays the same to the byte in .png and .webp.
    output: PathBuf,
    /// The hole: a picture of the same size, white where to fill.
    #[arg(long, value_name = "FILE", env = "EARTHMAPPER_MASK")]
    mask: PathBuf,
    /// What the picture is: map or satellite.
    #[arg(long = "as", value_name = "map|satellite", env = "EARTHMAPPER_AS")]
    modality: Modality,
    /// The other picture of the same place, when it is known whole.
    #[arg(long, value_name = "FILE", env = "EARTHMAPPER_GIVEN")]
    given: Option<PathBuf>,
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
    let paths = [args.output];
    args.files.check_outputs(&paths)?;
    let place = args.place.place()?;
    let limits = args.files.limits();
    let picture = read_picture(&args.input, &limits)?;
    let mask = read_mask(&args.mask, &limits)?;
    let given = args.given.as_ref().map(|path| read_picture(path, &limits)).transpose()?;
    let (width, height) = (picture.width(), picture.height());
    let mut sizes = vec![(&args.mask, mask.width(), mask.height())];
    sizes.extend(args.given.iter().zip(&given).map(|(path, given)| (path, given.width(), given.height())));
    if let Some((path, w, h)) = sizes.into_iter().find(|&(_, w, h)| (w, h) != (width, height)) {
        let text =
            format!("{}: is {w} × {h}, the picture is {width} × {height}; make them equal", path.display());
        return Err(BadInput(text).into());
    }
    if mask.hole_count() == 0 {
        let text = format!("{}: has no white pixel, so there is nothing to fill", args.mask.display());
        return Err(BadInput(text).into());
    }
    let model = args.model.load()?;
    check_modality(&model, args.modality)?;
    if given.is_some() {
        check_modality(&model, args.modality.other())?;
    }
    let place = usable_place(&model, place);
    args.files.check_size(&model, (width.into(), height.into()), &paths)?;
    let options = args.generation.options(model.generation.towards(args.modality))?.in_one_view();
    let facts = json!({ "seed": args.generation.seed, "pixels": mask.hole_count() });
    if args.files.dry_run {
        return output.outputs(&paths, true, facts);
    }

    let setting = Setting { place, seed: args.generation.seed, options: &options };
    let translator = Translator::new(&model);
    // The most windows there can be: a hole seldom touches them all.
    let windows = translator.window_count(width, height) as u64;
    let mut progress = Progress::start(output.progress(), "windows", 0, windows);
    let result =
        translator.inpaint(&picture, args.modality, &mask, given.as_ref(), &setting, &mut |done, all| {
            progress.update(windows - (all - done) as u64, 1, None);
        })?;
    progress.finish();
    let provenance =
        provenance(&model, "inpainted", args.generation.seed, Some(&args.input), place, &options);
    args.files.write(&[Written { path: &paths[0], content: Content::Colour(&result) }], &provenance)?;
    output.outputs(&paths, false, facts)
}
