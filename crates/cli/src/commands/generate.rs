//! `generate`: a matching photograph and map for a place.

use std::path::PathBuf;

use anyhow::Result;
use earthmapper::translator::Translator;
use earthmapper::windows::Setting;
use earthmapper_geo::Modality;
use earthmapper_geo::picture::{check_picture_output, write_picture};
use serde_json::json;

use crate::settings::{FileArgs, GenerationArgs, ModelArgs, Output, PlaceArgs, check_modality, provenance};

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
    for path in [&args.satellite, &args.map] {
        check_picture_output(path, args.files.overwrite)?;
    }
    let place = args.place.place()?;
    let model = args.model.load()?;
    Modality::ALL.into_iter().try_for_each(|modality| check_modality(&model, modality))?;
    if place.is_some() && !model.config.trained_on.places_known {
        tracing::warn!(
            "the model {} was trained without places; the coordinate says little to it",
            model.config.name
        );
    }
    let options = args.generation.options(&model.generation.to_satellite)?;
    let setting = Setting { place, seed: args.generation.seed, options: &options };
    let pair = Translator::new(&model).generate(&setting)?;
    let provenance = provenance(&model, "generated pair", args.generation.seed, None, &options);
    for (modality, picture) in pair {
        let path = if modality == Modality::Satellite { &args.satellite } else { &args.map };
        write_picture(path, &picture, &args.files.write(provenance.clone()))?;
    }
    let (satellite, map) = (args.satellite.display().to_string(), args.map.display().to_string());
    output.result(&format!("{satellite}\n{map}"), json!({ "satellite": satellite, "map": map }));
    Ok(())
}
