//! `evaluate`: measure a model on pairs, or search its options of generation.

use std::path::{Path, PathBuf};

use anyhow::Result;
use earthmapper::{EarthMapper, Modality};
use earthmapper_geo::files::{atomic_write, check_output};
use earthmapper_geo::pairs::{PairFolder, PairOrder, PairSelection, PairSource};
use earthmapper_lab::evaluate::card::{CardFacts, describe_data, model_card};
use earthmapper_lab::evaluate::grid::{Grid, search};
use earthmapper_lab::evaluate::{Directions, EvaluateError, EvaluateOptions, evaluate};

use crate::exit::BadInput;
use crate::settings::{GenerationArgs, ModelArgs, Output, PlaceArgs, interrupt, usable_place};

/// Measure a model on pairs, beside a blank map and the tokenizer's ceiling
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Folder of side-by-side pairs.
    #[arg(long, value_name = "DIR", env = "EARTHMAPPER_DATA_FOLDER")]
    data: PathBuf,
    /// The map is the left half.
    #[arg(long, env = "EARTHMAPPER_MAP_LEFT")]
    map_left: bool,
    /// Which pairs by number, such as 1001..1096.
    #[arg(long, value_name = "RANGE", env = "EARTHMAPPER_PAIRS")]
    pairs: Option<PairSelection>,
    /// At most so many pairs.
    #[arg(long, env = "EARTHMAPPER_LIMIT")]
    limit: Option<usize>,
    /// Folder for evaluation.json, table.md, pictures.csv and the contact sheets, which show the pairs themselves.
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
    /// Also write a model card, README.md, with what this run folder says about the training.
    #[arg(long, value_name = "DIR", conflicts_with = "grid", env = "EARTHMAPPER_FROM_RUN")]
    from_run: Option<PathBuf>,
    /// Markdown about the training pictures and their licence for the model card.
    #[arg(long, value_name = "FILE", requires = "from_run", env = "EARTHMAPPER_DATA_TEXT")]
    data_text: Option<PathBuf>,
    /// Instead, try every combination of the options in this TOML file; writes grid.json and grid.md.
    #[arg(long, value_name = "FILE", env = "EARTHMAPPER_GRID")]
    grid: Option<PathBuf>,
    /// What the combinations of --grid make.
    #[arg(long, value_name = "map|satellite", default_value = "map", env = "EARTHMAPPER_TO")]
    to: Modality,
    #[command(flatten)]
    place: PlaceArgs,
    /// Acts on both directions.
    #[command(flatten)]
    generation: GenerationArgs,
    #[command(flatten)]
    model: ModelArgs,
}

/// Files of an evaluation; the last ones are not always written.
const FILES: [&str; 6] = [
    "evaluation.json",
    "table.md",
    "pictures.csv",
    "satellite-to-map.png",
    "map-to-satellite.png",
    "README.md",
];

/// Files of a search.
const GRID_FILES: [&str; 2] = ["grid.json", "grid.md"];

pub fn run(args: Args, output: &Output) -> Result<()> {
    let grid: Option<Grid> = args.grid.as_deref().map(read_grid).transpose()?;
    let data_text = args.data_text.as_deref().map(read).transpose()?;
    let order = if args.map_left { PairOrder::MapSatellite } else { PairOrder::SatelliteMap };
    let source = PairSource::SideBySide { folder: args.data.clone(), order };
    let selection = PairSelection { limit: args.limit, ..args.pairs.unwrap_or_default() };
    let pairs = PairFolder::open(&source, &selection)?;
    let model = args.model.load()?;
    let data_text = data_text.unwrap_or_else(|| describe_data(&model).into());
    let facts_of = |folder| CardFacts::of_run(folder, data_text).map_err(|error| BadInput(error.to_string()));
    let facts = args.from_run.as_deref().map(facts_of).transpose()?;
    let options = options(&args, &model)?;
    // Before the work rather than after it, but after everything that can be refused.
    std::fs::create_dir_all(&args.out).map_err(|error| anyhow::anyhow!("{}: {error}", args.out.display()))?;
    let files = if args.grid.is_some() { &GRID_FILES[..] } else { &FILES[..] };
    for name in files {
        check_output(&args.out.join(name), args.overwrite)?;
    }
    if let Some(grid) = grid {
        return run_grid(&args, &model, &pairs, &grid, &options, output);
    }
    let evaluated = evaluate(&model, &pairs, &options, output.progress(), &interrupt()?)?;
    evaluated.write(&args.out, args.overwrite)?;
    let evaluation = &evaluated.evaluation;
    if let Some(facts) = facts {
        let card = model_card(&model, evaluation, &facts);
        atomic_write(&args.out.join("README.md"), card.as_bytes(), args.overwrite)?;
    }
    let text = format!("{}\n{}", evaluation.table(), evaluation.notes().trim_end());
    output.result(&text, serde_json::to_value(evaluation)?)?;
    Ok(())
}

fn options(args: &Args, model: &EarthMapper) -> Result<EvaluateOptions> {
    let mut options = EvaluateOptions::new(model);
    options.generation.to_map = args.generation.options(&model.generation.to_map)?;
    options.generation.to_satellite = args.generation.options(&model.generation.to_satellite)?;
    options.seed = args.generation.seed;
    options.batch_size = args.batch_size as usize;
    options.place = usable_place(model, args.place.place()?);
    options.directions = if args.maps_only { Directions::ToMap } else { Directions::Both };
    Ok(options)
}

fn run_grid(
    args: &Args,
    model: &EarthMapper,
    pairs: &PairFolder,
    grid: &Grid,
    options: &EvaluateOptions,
    output: &Output,
) -> Result<()> {
    let report = search(model, pairs, args.to, grid, options, output.progress(), &interrupt()?)?;
    let json = serde_json::to_string_pretty(&report)? + "\n";
    atomic_write(&args.out.join(GRID_FILES[0]), json.as_bytes(), args.overwrite)?;
    atomic_write(&args.out.join(GRID_FILES[1]), report.table().as_bytes(), args.overwrite)?;
    output.result(report.table().trim_end(), serde_json::to_value(&report)?)?;
    match report.is_complete() {
        true => Ok(()),
        false => {
            Err(EvaluateError::SearchInterrupted { done: report.rows.len(), of: report.combinations }.into())
        }
    }
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|error| BadInput(format!("{}: {error}", path.display())).into())
}

fn read_grid(path: &Path) -> Result<Grid> {
    let grid: Grid = toml::from_str(&read(path)?).map_err(|error| {
        let text = error.message().trim().replace('\n', " ");
        BadInput(format!("{}: {text}", path.display()))
    })?;
    grid.check().map_err(|problem| BadInput(format!("{}: {problem}", path.display())))?;
    Ok(grid)
}
