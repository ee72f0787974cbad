//! `generate`: a matching photograph and map for a place.

use std::path::PathBuf;

use anyhow::Result;
use earthmapper::translator::Translator;
use earthmapper::windows::Setting;
use earthmapper_geo::Modality;
use serde_json::json;

use crate::settings::{
    Content, FileArgs, GenerationArgs, ModelArgs, Output, PlaceArgs, Written, check_modality, provenance,
    usable_place,
};

/// Invent a matching photograph and map, for a coordinate or for nowhere in particular
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Where the photograph goes.
    satellite: PathBuf,
    /// Where the map goes.
    map: PathBuf,
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
    let paths = [args.satellite, args.map];
    args.files.check_outputs(&paths)?;
    let place = args.place.place()?;
    let model = args.model.load()?;
    Modality::ALL.into_iter().try_for_each(|modality| check_modality(&model, modality))?;
    let place = usable_place(&model, place);
    let options = args.generation.options(&model.generation.to_satellite)?.in_one_view();
    let side = model.tokenizer_config.picture_side;
    let facts = json!({ "seed": args.generation.seed, "width": side, "height": side });
    if args.files.dry_run {
        return output.outputs(&paths, true, facts);
    }
    let setting = Setting { place, seed: args.generation.seed, options: &options };
    let pair = Translator::new(&model).generate(&setting)?;
    let provenance = provenance(&model, "generated pair", args.generation.seed, None, place, &options);
    let written = pair.iter().map(|(modality, picture)| Written {
        path: &paths[modality.index()],
        content: Content::Colour(picture),
    });
    args.files.write(&written.collect::<Vec<_>>(), &provenance)?;
    output.outputs(&paths, false, facts)
}
