//! `model`: look into, export and import model folders.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::ValueEnum;
use earthmapper::EarthMapper;
use earthmapper::weights::{self, Storage};
use earthmapper_geo::{atomic_write, check_output};
use earthmapper_lab::export::{card, export_model, with_decoder_of};
use earthmapper_lab::import::{import_tokenizer, import_var};
use earthmapper_lab::nets::ImportedNetwork;
use earthmapper_lab::nets::lpips::classifier_and_heads;
use serde_json::json;

use crate::exit::BadInput;
use crate::settings::{ModelArgs, Output};

/// Look into, export and import models
#[derive(clap::Subcommand, Debug)]
pub enum Command {
    /// Print what a model is and check its files
    Info(InfoArgs),
    /// Make a model folder from a training run
    Export(ExportArgs),
    /// Take in published weights (.pth or .safetensors): VAR's, or a network of a metric or a loss
    ///
    /// VAR's tokenizer, with its transformer or without, becomes a model or tokenizer folder. Inception-v3, LPIPS and
    /// DINOv2 become one file, for `evaluate --inception`, `evaluate --lpips` and `[semantic_infusion]`; a file whose
    /// names, shapes or numbers are not the network's is refused.
    Import(ImportArgs),
}

/// Which model.
#[derive(clap::Args, Debug)]
pub struct InfoArgs {
    #[command(flatten)]
    model: ModelArgs,
}

/// From where to where.
#[derive(clap::Args, Debug)]
pub struct ExportArgs {
    /// The new model folder.
    output: PathBuf,
    /// The transformer's run folder; its best checkpoint's averaged weights are taken.
    #[arg(long, value_name = "DIR", env = "EARTHMAPPER_FROM_RUN")]
    from_run: PathBuf,
    /// A tokenizer, or its run folder, whose decoder is taken: one of the same tokens, trained with learn = "decoder".
    #[arg(long, value_name = "DIR", env = "EARTHMAPPER_DECODER")]
    decoder: Option<PathBuf>,
    /// How weights are stored.
    #[arg(long, value_enum, default_value_t = StorageName::F16, env = "EARTHMAPPER_STORAGE")]
    storage: StorageName,
    /// JSON file with the generation defaults per direction.
    #[arg(long, value_name = "FILE", env = "EARTHMAPPER_GENERATION")]
    generation: Option<PathBuf>,
    /// Markdown file that becomes the model card, instead of a plain one.
    #[arg(long, value_name = "FILE", env = "EARTHMAPPER_CARD")]
    card: Option<PathBuf>,
}

/// From where to where.
#[derive(clap::Args, Debug)]
#[command(group = clap::ArgGroup::new("weights").required(true))]
pub struct ImportArgs {
    /// The new folder; of Inception, LPIPS and DINOv2 the new file (.safetensors).
    output: PathBuf,
    /// VAR's tokenizer.
    #[arg(long, value_name = "FILE", group = "weights", env = "EARTHMAPPER_VAE")]
    vae: Option<PathBuf>,
    /// VAR's transformer, as the start of a joint one; without it only the tokenizer is imported.
    #[arg(long, value_name = "FILE", requires = "vae", env = "EARTHMAPPER_VAR")]
    var: Option<PathBuf>,
    /// Inception-v3 under pytorch-fid's names, for FID, KID, precision and recall.
    #[arg(long, value_name = "FILE", group = "weights", env = "EARTHMAPPER_INCEPTION")]
    inception: Option<PathBuf>,
    /// A classifier of torchvision's (AlexNet, VGG-16 or SqueezeNet 1.1) and, behind a comma, the heads of LPIPS; or one
    /// file that holds both.
    #[arg(long, value_name = "FILE[,HEADS]", group = "weights", env = "EARTHMAPPER_LPIPS")]
    lpips: Option<String>,
    /// DINOv2 under the names of its authors or of transformers, for the semantic infusion.
    #[arg(long, value_name = "FILE", group = "weights", env = "EARTHMAPPER_DINOV2")]
    dinov2: Option<PathBuf>,
    /// Sides of the token maps, coarse to fine.
    #[arg(long, value_delimiter = ',', default_value = "1,2,3,4,5,6,8,10,13,16", env = "EARTHMAPPER_SIDES")]
    sides: Vec<usize>,
    /// Attention heads, where the weights do not tell [default: width / 64].
    #[arg(long, env = "EARTHMAPPER_HEADS")]
    heads: Option<usize>,
    /// How weights are stored.
    #[arg(long, value_enum, default_value_t = StorageName::F32, env = "EARTHMAPPER_STORAGE")]
    storage: StorageName,
}

/// Names of [`Storage`].
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum StorageName {
    /// 32-bit floats.
    F32,
    /// 16-bit IEEE floats.
    F16,
    /// 16-bit brain floats.
    Bf16,
}

impl StorageName {
    fn storage(self) -> Storage {
        match self {
            Self::F32 => Storage::F32,
            Self::F16 => Storage::F16,
            Self::Bf16 => Storage::Bf16,
        }
    }
}

pub fn run(command: Command, output: &Output) -> Result<()> {
    match command {
        Command::Info(args) => info(&args, output),
        Command::Export(args) => export(&args, output),
        Command::Import(args) => import(&args, output),
    }
}

fn info(args: &InfoArgs, output: &Output) -> Result<()> {
    let folder = args.model.folder()?;
    let model = EarthMapper::load(&folder, &args.model.device()?)?;
    let count = |tensors: &weights::HostTensors| tensors.values().map(|t| t.values.len()).sum::<usize>();
    let transformer = count(&weights::collect(&model.transformer));
    let tokenizer = count(&weights::collect(&model.tokenizer));
    let checked = folder.join("SHA256SUMS").is_file();
    let json = json!({
        "folder": folder,
        "config": model.config,
        "tokenizer": model.tokenizer_config,
        "generation": model.generation,
        "parameters": { "transformer": transformer, "tokenizer": tokenizer },
        "checksums": if checked { "verified" } else { "none" },
    });
    let t = &model.tokenizer_config;
    let text = format!(
        "{} ({})\ntransformer: {} blocks of width {}, {} heads, {:.2} M parameters\ntokenizer: {} px, scales {:?}, {} \
         codes of width {}, depth {}, {:.2} M parameters\ntrained on: {}\nchecksums: {}\n{}",
        model.config.name,
        folder.display(),
        model.config.transformer.depth,
        model.config.transformer.width(),
        model.config.transformer.heads(),
        transformer as f64 / 1e6,
        t.picture_side,
        t.sides,
        t.vocabulary,
        t.latent_width,
        t.quantizer_depth,
        tokenizer as f64 / 1e6,
        serde_json::to_string(&model.config.trained_on)?,
        if checked { "verified" } else { "none" },
        serde_json::to_string_pretty(&model.generation)?,
    );
    output.result(&text, json)
}

fn export(args: &ExportArgs, output: &Output) -> Result<()> {
    check_new(&args.output)?;
    let device = earthmapper::device::device("cpu")?;
    let mut model = export_model(&args.from_run, &device)?;
    if let Some(folder) = &args.decoder {
        model = with_decoder_of(model, folder, &device)?;
    }
    if let Some(path) = &args.generation {
        let text = read(path)?;
        model.generation =
            serde_json::from_str(&text).map_err(|error| BadInput(format!("{}: {error}", path.display())))?;
    }
    let text = match &args.card {
        Some(path) => read(path)?,
        None => card(&model, &args.from_run),
    };
    model.save(&args.output, args.storage.storage(), &text)?;
    output.result(&args.output.display().to_string(), json!({ "output": args.output }))
}

fn import(args: &ImportArgs, output: &Output) -> Result<()> {
    if let Some(vae) = &args.vae {
        return import_published(args, vae, output);
    }
    check_output(&args.output, false)?;
    let device = earthmapper::device::device("cpu")?;
    let network = if let Some(file) = &args.inception {
        ImportedNetwork::inception(file, &device)?
    } else if let Some(files) = &args.lpips {
        let (classifier, heads) = classifier_and_heads(files);
        ImportedNetwork::lpips(classifier, heads, &device)?
    } else {
        let file = args.dinov2.as_ref().expect("the parser asks for one of the four");
        ImportedNetwork::dinov2(file, &device)?
    };
    atomic_write(&args.output, &network.to_bytes(args.storage.storage()), false)?;
    output.result(
        &format!("{}\n{}", network.description, args.output.display()),
        json!({ "output": args.output, "report": network.description }),
    )
}

/// VAR's weights become a tokenizer or model folder.
fn import_published(args: &ImportArgs, vae: &Path, output: &Output) -> Result<()> {
    check_new(&args.output)?;
    let device = earthmapper::device::device("cpu")?;
    let storage = args.storage.storage();
    let report = match &args.var {
        Some(var) => {
            let name =
                args.output.file_name().map_or("imported".into(), |name| name.to_string_lossy().into_owned());
            let (model, report) = import_var(vae, var, &args.sides, args.heads, &name, &device)?;
            let text = format!(
                "# {}\n\nImported from VAR's weights; it must be trained on pairs.\n\n{report}\n",
                model.config.name
            );
            model.save(&args.output, storage, &text)?;
            report.to_string()
        }
        None => {
            let (config, tokenizer) = import_tokenizer(vae, &args.sides, &device)?;
            earthmapper::model::save_tokenizer(&config, &tokenizer, &args.output, storage)?;
            "the tokenizer maps exactly".to_string()
        }
    };
    output.result(
        &format!("{report}\n{}", args.output.display()),
        json!({ "output": args.output, "report": report }),
    )
}

fn check_new(path: &std::path::Path) -> Result<()> {
    anyhow::ensure!(!path.exists(), "{}: exists already; name a new folder", path.display());
    Ok(())
}

fn read(path: &std::path::Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|error| BadInput(format!("{}: {error}", path.display())).into())
}
