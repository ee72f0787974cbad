//! `inpaint`: fill a hole.

use std::path::PathBuf;

use anyhow::Result;
use earthmapper::translator::Translator;
use earthmapper::windows::Setting;
use earthmapper_geo::Modality;
use earthmapper_geo::picture::{check_picture_output, read_mask, read_picture, write_picture};
use earthmapper_lab::progress::Progress;
use serde_json::json;

use crate::exit::BadInput;
use crate::settings::{FileArgs, GenerationArgs, ModelArgs, Output, PlaceArgs, check_modality, provenance};

/// Fill the hole of a picture; everything outside it stays as it is
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The picture.
    input: PathBuf,
    /// Where the result goes.
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
    check_picture_output(&args.output, args.files.overwrite)?;
    let place = args.place.place()?;
    let limits = args.files.limits();
    let picture = read_picture(&args.input, &limits)?;
    let mask = read_mask(&args.mask, &limits)?;
    let given = args.given.as_ref().map(|path| read_picture(path, &limits)).transpose()?;
    let size = (picture.width(), picture.height());
    let sizes = [(Some(&args.mask), (mask.width(), mask.height()))].into_iter();
    let sizes =
        sizes.chain(given.as_ref().map(|given| (args.given.as_ref(), (given.width(), given.height()))));
    for (path, other) in sizes {
        if other != size {
            let path = path.expect("a file that was read").display();
            let text = format!(
                "{path}: is {} × {}, the picture is {} × {}; make them equal",
                other.0, other.1, size.0, size.1
            );
            return Err(BadInput(text).into());
        }
    }
    if mask.hole_count() == 0 {
        return Err(BadInput(format!(
            "{}: has no white pixel, so there is nothing to fill",
            args.mask.display()
        ))
        .into());
    }
    let model = args.model.load()?;
    check_modality(&model, args.modality)?;
    let options = args.generation.options(model.generation.towards(args.modality))?;
    let setting = Setting { place, seed: args.generation.seed, options: &options };
    let mut progress = Progress::start(output.progress(), "windows", 0, 1);
    let translator = Translator::new(&model);
    let result =
        translator.inpaint(&picture, args.modality, &mask, given.as_ref(), &setting, &mut |done, _| {
            progress.update(done as u64, 1, None);
        })?;
    progress.finish();
    let provenance = provenance(&model, "inpainted", args.generation.seed, Some(&args.input), &options);
    write_picture(&args.output, &result, &args.files.write(provenance))?;
    output.result(
        &args.output.display().to_string(),
        json!({ "output": args.output, "pixels": mask.hole_count() }),
    );
    Ok(())
}
