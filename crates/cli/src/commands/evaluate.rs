//! `evaluate`: measure a model on pairs.

use std::path::PathBuf;

use anyhow::Result;
use earthmapper_geo::pairs::{PairFolder, PairOrder, PairSelection, PairSource};
use earthmapper_lab::evaluate::{EvaluateOptions, evaluate};

use crate::settings::{GenerationArgs, ModelArgs, Output, PlaceArgs, interrupt};

/// Measure a model on pairs, beside a blank map and the tokenizer's ceiling
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Folder of side-by-side pairs.
    #[arg(long, value_name = "DIR", env = "EARTHMAPPER_DATA_FOLDER")]
    data: PathBuf,
    /// The map is the left half.
    #[arg(long, value_parser = clap::builder::BoolishValueParser::new(), env = "EARTHMAPPER_MAP_LEFT")]
    map_left: bool,
    /// Which pairs by number, such as 1001..1096.
    #[arg(long, value_name = "RANGE", env = "EARTHMAPPER_PAIRS")]
    pairs: Option<PairSelection>,
    /// At most so many pairs.
    #[arg(long, env = "EARTHMAPPER_LIMIT")]
    limit: Option<usize>,
    /// Folder for evaluation.json, table.md, pictures.csv and the contact sheets.
    #[arg(long, value_name = "DIR", env = "EARTHMAPPER_OUT")]
    out: PathBuf,
    /// Replace files that are there.
    #[arg(long, value_parser = clap::builder::BoolishValueParser::new(), env = "EARTHMAPPER_OVERWRITE")]
    overwrite: bool,
    /// Measure satellite → map only.
    #[arg(long, value_parser = clap::builder::BoolishValueParser::new(), env = "EARTHMAPPER_MAPS_ONLY")]
    maps_only: bool,
    /// Pictures at once.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=4096), env = "EARTHMAPPER_BATCH_SIZE")]
    batch_size: u32,
    #[command(flatten)]
    place: PlaceArgs,
    /// Acts on both directions.
    #[command(flatten)]
    generation: GenerationArgs,
    #[command(flatten)]
    model: ModelArgs,
}

pub fn run(args: Args, output: &Output) -> Result<()> {
    if args.out.join("evaluation.json").exists() && !args.overwrite {
        let text =
            format!("{}: holds an evaluation already; pass --overwrite to replace it", args.out.display());
        return Err(anyhow::anyhow!(text));
    }
    let order = if args.map_left { PairOrder::MapSatellite } else { PairOrder::SatelliteMap };
    let source = PairSource::SideBySide { folder: args.data, order };
    let selection = PairSelection { limit: args.limit, ..args.pairs.unwrap_or_default() };
    let pairs = PairFolder::open(&source, &selection)?;
    let model = args.model.load()?;
    let mut options = EvaluateOptions::new(&model);
    options.to_map = args.generation.options(&model.generation.to_map)?;
    options.to_satellite = args.generation.options(&model.generation.to_satellite)?;
    options.seed = args.generation.seed;
    options.batch_size = args.batch_size as usize;
    options.place = args.place.place()?;
    options.both_directions = !args.maps_only;
    let evaluated = evaluate(&model, &pairs, &options, output.progress(), &interrupt()?)?;
    evaluated.write(&args.out, args.overwrite)?;
    output.result(&evaluated.evaluation.table(), serde_json::to_value(&evaluated.evaluation)?)
}
