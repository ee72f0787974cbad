//! From run folders to models.

use std::path::Path;

use burn::tensor::Device;
use earthmapper::init::Init;
use earthmapper::model::load_tokenizer;
use earthmapper::tokenizer::MultiScaleTokenizer;
use earthmapper::weights::collect;
use earthmapper::{EarthMapper, TokenizerConfig};

use crate::optimiser::load_module;
use crate::run::{Checkpoint, RunError};
use crate::session::{TrainError, checkpoint_error};
use crate::train::{Learner, TransformerTraining, assemble};
use crate::train_tokenizer::{TokenizerTraining, other_keys};

/// Opens a tokenizer: its own folder, a model folder, or the run that trained it (its best checkpoint's averaged
/// weights).
///
/// # Errors
/// When the folder is none of these or something in it is damaged.
pub fn open_tokenizer(
    folder: &Path,
    device: &Device,
) -> Result<(TokenizerConfig, MultiScaleTokenizer), TrainError> {
    if folder.join("config.toml").is_file() {
        let config: TokenizerTraining = run_config(folder)?;
        let fresh = MultiScaleTokenizer::new(&config.tokenizer, &mut Init::new(0, device));
        let checkpoint = best_or_newest(folder)?;
        let path = checkpoint.folder.join("average.bpk");
        let tokenizer = load_module(fresh, &path).map_err(checkpoint_error(&path))?;
        return Ok((config.tokenizer, tokenizer));
    }
    let inner = folder.join("tokenizer");
    Ok(load_tokenizer(if inner.is_dir() { &inner } else { folder }, device)?)
}

/// Makes a model of the best checkpoint's averaged weights of a transformer's run, with the tokenizer that the run used.
///
/// # Errors
/// When the folder is no such run, or the run, its tokenizer or a checkpoint is damaged.
pub fn export_model(folder: &Path, device: &Device) -> Result<EarthMapper, TrainError> {
    let config: TransformerTraining = run_config(folder)?;
    let (tokenizer_config, tokenizer) = open_tokenizer(&config.tokenizer, device)?;
    let features = match &config.semantic_infusion {
        Some(infusion) => Some(crate::nets::dinov2::DinoV2::load(&infusion.weights, device)?.config().width),
        None => None,
    };
    let fresh = Learner::fresh(&config, &tokenizer_config, features, device);
    let checkpoint = best_or_newest(folder)?;
    let path = checkpoint.folder.join("average.bpk");
    let learner = load_module(fresh, &path).map_err(checkpoint_error(&path))?;
    Ok(assemble(&config, tokenizer_config, tokenizer, learner.transformer().clone()))
}

/// The same model with another tokenizer's decoder, from whatever [`open_tokenizer`] opens.
///
/// # Errors
/// When that tokenizer makes other tokens, for which the transformer would be a stranger.
pub fn with_decoder_of(
    model: EarthMapper,
    folder: &Path,
    device: &Device,
) -> Result<EarthMapper, TrainError> {
    let (config, tokenizer) = open_tokenizer(folder, device)?;
    let mut other = other_keys(&config, &model.tokenizer_config);
    let theirs = collect(&tokenizer);
    // Files may keep 16 bits.
    let same = |(a, b): (&f32, &f32)| (a - b).abs() <= a.abs() / 1024.0 + 1e-7;
    for (name, own) in collect(&model.tokenizer) {
        let found = theirs.get(&name).is_some_and(|tensor| tensor.values.iter().zip(&own.values).all(same));
        if !found && !after_the_quantizer(&name) {
            other.push(name);
        }
    }
    if let Some(first) = other.first() {
        let problem = format!(
            "{} makes other tokens than the transformer was trained on (another {first}); take a tokenizer that was \
             trained with learn = \"decoder\" from that one",
            folder.display()
        );
        return Err(TrainError::Config { key: "decoder", problem });
    }
    let tokenizer = model.tokenizer.with_decoder_of(&tokenizer);
    let mut changed = EarthMapper::from_parts(model.config, config, tokenizer, model.transformer);
    changed.generation = model.generation;
    Ok(changed)
}

/// Whether a weight of a tokenizer changes no token.
fn after_the_quantizer(name: &str) -> bool {
    ["decoder.", "after_quantizer.", "linear.out."].iter().any(|start| name.starts_with(start))
}

pub(crate) fn run_config<T: for<'de> serde::Deserialize<'de>>(folder: &Path) -> Result<T, TrainError> {
    let path = folder.join("config.toml");
    let text = std::fs::read_to_string(&path).map_err(RunError::io(&path))?;
    toml::from_str(&text).map_err(|error| checkpoint_error(&path)(error.to_string()))
}

fn best_or_newest(folder: &Path) -> Result<Checkpoint, RunError> {
    Checkpoint::best(folder).or_else(|_| Checkpoint::newest(folder))
}

/// A plain model card for a run: what is known without an evaluation.
pub fn card(model: &EarthMapper, run: &Path) -> String {
    let trained = &model.config.trained_on;
    let seconds = Checkpoint::newest(run).map(|checkpoint| (checkpoint.step, checkpoint.seconds));
    let trained_for = match seconds {
        Ok((step, seconds)) => format!("{step} steps, {:.1} hours", seconds / 3600.0),
        Err(_) => "unknown".into(),
    };
    format!(
        "# {}\n\nTranslates satellite pictures into maps and back.\n\n- Region: {}\n- Map style: {}\n- Places known: \
         {}\n- Training: {trained_for}\n\nNot evaluated. Say here what the data is, under which licence, what the \
         model is for and where it fails.\n",
        model.config.name, trained.region, trained.map_style, trained.places_known
    )
}
