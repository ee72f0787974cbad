//! `evaluate`: measure a model on pairs, or pictures made elsewhere.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use clap::builder::BoolishValueParser;
use earthmapper::{EarthMapper, Modality, Precision};
use earthmapper_geo::dataset::{MANIFEST, Split};
use earthmapper_geo::files::{atomic_write, check_output};
use earthmapper_geo::pairs::{PairFolder, PairOrder, PairSelection, PairSource};
use earthmapper_lab::evaluate::card::{CardFacts, describe_data, model_card};
use earthmapper_lab::evaluate::networks::{InceptionMetrics, LpipsMetric};
use earthmapper_lab::evaluate::report::{FILES, sheets::file_names};
use earthmapper_lab::evaluate::{
    Directions, EvaluateOptions, Evaluated, evaluate, evaluate_given, weights_digest,
};
use earthmapper_lab::metrics::Palette;
use earthmapper_lab::nets::{Inception, Lpips};

use crate::exit::{BadInput, Usage};
use crate::settings::{GenerationArgs, ModelArgs, Output, PlaceArgs, ViewsArgs, interrupt, usable_place};

/// Measure a model, or pictures made elsewhere, on pairs, beside baselines
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Folder of side-by-side pairs, or a dataset with a manifest.
    #[arg(long, value_name = "DIR", env = "EARTHMAPPER_DATA_FOLDER")]
    data: PathBuf,
    /// Folder of the maps, when --data holds the photographs alone.
    #[arg(long, value_name = "DIR", conflicts_with = "map_left", env = "EARTHMAPPER_MAPS")]
    maps: Option<PathBuf>,
    /// The map is the left half.
    #[arg(long, value_parser = BoolishValueParser::new(), env = "EARTHMAPPER_MAP_LEFT")]
    map_left: bool,
    /// Which pairs by number, such as 1001..1096.
    #[arg(long, value_name = "RANGE", env = "EARTHMAPPER_PAIRS")]
    pairs: Option<PairSelection>,
    /// Which split of a dataset: train, validation or test.
    #[arg(long, env = "EARTHMAPPER_SPLIT")]
    split: Option<Split>,
    /// At most so many pairs.
    #[arg(long, env = "EARTHMAPPER_LIMIT")]
    limit: Option<usize>,
    /// Pairs that were learned from, laid out like --data: enables the nearest training pair, and takes the colour of the blank
    /// map from them.
    #[arg(long, value_name = "DIR", env = "EARTHMAPPER_TRAINING")]
    training: Option<PathBuf>,
    /// Which training pairs by number, such as 1..1000; of a dataset, those of its split train.
    #[arg(long, value_name = "RANGE", requires = "training", env = "EARTHMAPPER_TRAINING_PAIRS")]
    training_pairs: Option<PairSelection>,
    /// Classes of the maps as JSON, a list of name, is_road and colours [default: those of the New York maps].
    #[arg(long, value_name = "FILE", env = "EARTHMAPPER_PALETTE")]
    palette: Option<PathBuf>,
    /// Folder for evaluation.json, table.md, pictures.csv, report.html, contact sheets and the predictions; sheets and report
    /// show the pairs themselves.
    #[arg(long, value_name = "DIR", env = "EARTHMAPPER_OUT")]
    out: PathBuf,
    /// Replace tables and reports that are there; predictions are taken up as they are.
    #[arg(long, value_parser = BoolishValueParser::new(), env = "EARTHMAPPER_OVERWRITE")]
    overwrite: bool,
    /// Measure one direction only; with --predictions, what they are.
    #[arg(long, value_name = "map|satellite", env = "EARTHMAPPER_TO")]
    to: Option<Modality>,
    /// Measure the pictures in this folder, called like the pairs, instead of a model.
    #[arg(
        long,
        value_name = "DIR",
        requires = "to",
        conflicts_with = "from_run",
        env = "EARTHMAPPER_PREDICTIONS"
    )]
    predictions: Option<PathBuf>,
    /// Weights of Inception-v3 under pytorch-fid's names (.pth or .safetensors), for FID, KID, precision and recall.
    #[arg(long, value_name = "FILE", env = "EARTHMAPPER_INCEPTION")]
    inception: Option<PathBuf>,
    /// Weights for LPIPS: a classifier of torchvision's (AlexNet, VGG-16 or SqueezeNet 1.1) and, behind a comma, the heads; or one file that holds both. May be given once for each classifier.
    #[arg(long, value_name = "FILE[,HEADS]", env = "EARTHMAPPER_LPIPS")]
    lpips: Vec<String>,
    /// Pictures at once.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=4096), env = "EARTHMAPPER_BATCH_SIZE")]
    batch_size: u32,
    /// Also write a model card, README.md, with what this run folder says about the training.
    #[arg(long, value_name = "DIR", env = "EARTHMAPPER_FROM_RUN")]
    from_run: Option<PathBuf>,
    /// Markdown about the training pictures and their licence for the model card.
    #[arg(long, value_name = "FILE", requires = "from_run", env = "EARTHMAPPER_DATA_TEXT")]
    data_text: Option<PathBuf>,
    #[command(flatten)]
    place: PlaceArgs,
    /// Acts on both directions.
    #[command(flatten)]
    generation: GenerationArgs,
    #[command(flatten)]
    views: ViewsArgs,
    #[command(flatten)]
    model: ModelArgs,
}

/// The model card, with `--from-run`.
const CARD: &str = "README.md";

/// Folder of a model's predictions in the output folder.
const PREDICTIONS: &str = "predictions";

pub fn run(args: Args, output: &Output) -> Result<()> {
    let data_text = args.data_text.as_deref().map(read).transpose()?;
    let selection = PairSelection { limit: args.limit, split: args.split, ..args.pairs.unwrap_or_default() };
    let pairs = PairFolder::open(&source(&args, &args.data, args.maps.as_ref()), &selection)?;
    let mut options = EvaluateOptions::without_model();
    if let Some(path) = &args.palette {
        options.palette = read_palette(path)?;
    }
    options.training = args.training.as_ref().map(|folder| training(&args, folder)).transpose()?;
    options.batch_size = args.batch_size as usize;
    let device = args.model.device()?;
    if let Some(path) = &args.inception {
        let network = Inception::load(path, &device)?;
        options.set_metrics = vec![Arc::new(InceptionMetrics::new(Some(network)))];
    }
    let lpips = args.lpips.iter().map(|files| Lpips::load_named(files, &device));
    options.picture_metrics = LpipsMetric::all(lpips.collect::<Result<_, _>>()?);
    if let Some(folder) = &args.predictions {
        return run_given(&args, folder, &pairs, &options, output);
    }
    // The digest and the card are about the weights themselves, which a packed model has let go.
    let whole = EarthMapper::load(&args.model.folder()?, &args.model.device()?)?;
    options.weights = Some(match args.model.precision {
        Precision::F32 => weights_digest(&whole),
        precision => format!("{} {precision}", weights_digest(&whole)),
    });
    let model = whole.clone().pack(args.model.precision);
    let data_text = data_text.unwrap_or_else(|| describe_data(&model).into());
    let facts_of = |folder| CardFacts::of_run(folder, data_text).map_err(|error| BadInput(error.to_string()));
    let facts = args.from_run.as_deref().map(facts_of).transpose()?;
    set_options(&mut options, &args, &model)?;
    let mut files = report_files(&options.directions.targets());
    files.extend(facts.iter().map(|_| CARD.into()));
    prepare(&args, &files)?;
    options.predictions = Some(args.out.join(PREDICTIONS));
    let evaluated = evaluate(&model, &pairs, &options, output.progress(), &interrupt()?)?;
    report(&evaluated, &args, output)?;
    if let Some(facts) = facts {
        let card = model_card(&whole, &evaluated.evaluation, &facts);
        atomic_write(&args.out.join(CARD), card.as_bytes(), args.overwrite)?;
    }
    Ok(())
}

/// Where pairs lie: two folders, a dataset, or side by side.
fn source(args: &Args, folder: &Path, maps: Option<&PathBuf>) -> PairSource {
    let order = if args.map_left { PairOrder::MapSatellite } else { PairOrder::SatelliteMap };
    match maps {
        Some(map) => PairSource::TwoFolders { satellite: folder.into(), map: map.clone() },
        None if is_dataset(folder) => PairSource::Manifest { manifest: folder.into() },
        None => PairSource::SideBySide { folder: folder.into(), order },
    }
}

fn is_dataset(path: &Path) -> bool {
    path.join(MANIFEST).is_file() || path.extension().is_some_and(|ending| ending == "jsonl")
}

fn training(args: &Args, folder: &Path) -> Result<PairFolder> {
    let split = is_dataset(folder).then_some(Split::Train);
    let selection = PairSelection { split, ..args.training_pairs.unwrap_or_default() };
    Ok(PairFolder::open(&source(args, folder, None), &selection)?)
}

/// What the flags say about a model.
fn set_options(options: &mut EvaluateOptions, args: &Args, model: &EarthMapper) -> Result<()> {
    let to_map = args.generation.options(&model.generation.to_map)?;
    options.generation.to_map = args.views.applied(to_map, Modality::Map)?;
    options.generation.to_satellite = args.generation.options(&model.generation.to_satellite)?;
    options.seed = args.generation.seed;
    options.place = usable_place(model, args.place.place()?);
    options.directions = match args.to {
        None => Directions::Both,
        Some(Modality::Map) => Directions::ToMap,
        Some(Modality::Satellite) => Directions::ToSatellite,
    };
    Ok(())
}

fn report_files(targets: &[Modality]) -> Vec<String> {
    let sheets = targets.iter().flat_map(|&target| file_names(target));
    FILES.iter().map(ToString::to_string).chain(sheets).collect()
}

/// Creates the folder and checks that nothing would be replaced unasked: before the work rather than after it, but after
/// everything that can be refused.
fn prepare(args: &Args, files: &[String]) -> Result<()> {
    std::fs::create_dir_all(&args.out).map_err(|error| anyhow::anyhow!("{}: {error}", args.out.display()))?;
    for name in files {
        check_output(&args.out.join(name), args.overwrite)?;
    }
    Ok(())
}

/// Writes an evaluation and says what came out.
fn report(evaluated: &Evaluated, args: &Args, output: &Output) -> Result<()> {
    evaluated.write(&args.out, args.overwrite)?;
    let evaluation = &evaluated.evaluation;
    let text = format!("{}\n{}", evaluation.table(), evaluation.notes().trim_end());
    // By way of the text, which writes 32-bit options as 0.55 rather than 0.550000011920929.
    output.result(&text, serde_json::from_str(&evaluation.to_json())?)
}

fn run_given(
    args: &Args,
    folder: &Path,
    pairs: &PairFolder,
    options: &EvaluateOptions,
    output: &Output,
) -> Result<()> {
    let Some(target) = args.to else {
        return Err(Usage("--predictions needs --to map or --to satellite".into()).into());
    };
    // Measured first and the folder made after, since so much about foreign pictures can be refused.
    let files = report_files(&[target]);
    if args.out.is_dir() {
        prepare(args, &files)?;
    }
    let evaluated = evaluate_given(folder, target, pairs, options, output.progress(), &interrupt()?)?;
    prepare(args, &files)?;
    report(&evaluated, args, output)
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|error| BadInput(format!("{}: {error}", path.display())).into())
}

fn read_palette(path: &Path) -> Result<Palette> {
    let palette = serde_json::from_str(&read(path)?);
    palette.map_err(|error| BadInput(format!("{}: {error}", path.display())).into())
}
