//! Training the transformer: cross-entropy over both pictures (Eq. 11), semantic infusion (Eq. 12–14), and hiding of
//! the condition half and of the place for guidance (PAPER sections 4–6).
//!
//! `config.rs` holds the settings, `teacher.rs` what a step teaches and measures, this file the run around the steps.

mod config;
mod teacher;

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::Device;
use earthmapper::init::Init;
use earthmapper::model::FORMAT;
use earthmapper::pictures::from_tensor;
use earthmapper::sampler::derive_seed;
use earthmapper::tokenizer::{Encoding, MultiScaleTokenizer};
use earthmapper::translator::{Condition, Translator};
use earthmapper::{EarthMapper, EarthMapperConfig, JointTransformer, Modality, TokenizerConfig};
use earthmapper_geo::pairs::PairFolder;
use earthmapper_geo::picture::Picture;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

pub use config::{Precision, TransformerTraining};

use crate::data::{Places, contact_sheet, epoch_order};
use crate::export::open_tokenizer;
use crate::nets::dinov2::DinoV2;
use crate::optimiser::{Average, Optimiser, load_module, save_module};
use crate::progress::Progress;
use crate::run::{Checkpoint, Run};
use crate::semantic_infusion::Alignment;
use crate::session::{Outcome, Session, TrainError, checkpoint_error, not_a_number, warn_about_overlap};
use crate::token_cache::{Cut, PairTokens, TokenCache};
use teacher::{Teacher, place_of};

/// What learns: the transformer, and A when semantic infusion is on.
#[derive(Module, Debug)]
pub struct Learner {
    transformer: JointTransformer,
    alignment: Option<Alignment>,
}

impl Learner {
    /// The transformer.
    pub fn transformer(&self) -> &JointTransformer {
        &self.transformer
    }

    /// Fresh weights, for a checkpoint to be read into.
    pub fn fresh(
        config: &TransformerTraining,
        tokenizer: &TokenizerConfig,
        features: Option<usize>,
        device: &Device,
    ) -> Self {
        let mut init = Init::new(config.seed, device);
        let transformer = JointTransformer::new(&config.transformer, tokenizer, &mut init);
        let width = config.transformer.width();
        Self { transformer, alignment: features.map(|features| Alignment::new(width, features, &mut init)) }
    }
}

/// What is written beside the weights.
#[derive(Serialize, Deserialize)]
struct State {
    epoch: u64,
    /// Pairs of the epoch already used.
    used: usize,
    /// Lowest validation loss so far; in 32 bits, because a 64-bit number may come back from the file one bit off.
    best: Option<f32>,
}

/// Trains a transformer.
///
/// # Errors
/// See [`TrainError`]; the last good checkpoint is always kept.
pub fn train(config: &TransformerTraining, session: &Session) -> Result<Outcome, TrainError> {
    config.check(&session.device)?;
    let training = PairFolder::open(&config.data, &config.training)?;
    let validation = PairFolder::open(&config.data, &config.validation)?;
    warn_about_overlap(&training, &validation);
    let training = config.places.told(training, config.seed);
    // Where the training's places are shuffled, the validation's are not: it asks what was learned about the real ones.
    let validation = match config.places {
        Places::Hidden => Places::Hidden.told(validation, config.seed),
        Places::Own | Places::Shuffled => validation,
    };
    let (tokenizer_config, tokenizer) = open_tokenizer(&config.tokenizer, &session.device)?;
    if config.augment.picture_side as usize != tokenizer_config.picture_side {
        let problem = format!(
            "is {}, the tokenizer's is {}",
            config.augment.picture_side, tokenizer_config.picture_side
        );
        return Err(TrainError::Config { key: "augment.picture_side", problem });
    }
    if !config.scale_weights.is_empty() && config.scale_weights.len() != tokenizer_config.sides.len() {
        let problem =
            format!("needs {} weights, one per scale of the tokenizer", tokenizer_config.sides.len());
        return Err(TrainError::Config { key: "scale_weights", problem });
    }
    let dinov2 = match &config.semantic_infusion {
        Some(infusion) => Some(DinoV2::load(&infusion.weights, &session.device)?),
        None => None,
    };
    let device = session.device.clone().autodiff();
    let features = dinov2.as_ref().map(|network| network.config().width);
    let mut learner = Learner::fresh(config, &tokenizer_config, features, &device);
    if let Some(folder) = &config.from {
        learner.transformer = adopt(learner.transformer, &EarthMapper::load(folder, &session.device)?)?;
    }
    let text = toml::to_string_pretty(config).expect("a plain configuration");
    let (mut run, checkpoint) = session.open(&text, "transformer")?;
    let teacher =
        Teacher { config, tokenizer: &tokenizer, tokenizer_config: &tokenizer_config, dinov2, device };
    tracing::info!("{}", teacher.says());
    let cache = run.folder().join("tokens");
    let open = |pairs| TokenCache::new(&cache, pairs, &tokenizer, &tokenizer_config, config.skip_limit);
    let (mut training, mut validation) = (open(training), open(validation));

    let mut optimiser = Optimiser::new(&config.optimiser, &learner);
    let mut average = Average::new(config.optimiser.average_decay, &learner);
    let mut state = State { epoch: 0, used: 0, best: None };
    let mut step = 0;
    if let Some(checkpoint) = &checkpoint {
        (learner, average, optimiser, state) = restore(checkpoint, config, learner, average)?;
        step = checkpoint.step;
    }
    let mut progress = Progress::start(session.progress, "pairs", step, config.steps);
    let Some(known) = validation.get(Cut::Centred, &mut progress, &session.interrupt)? else {
        return Ok(Outcome::Interrupted);
    };
    let known = known.to_vec();
    if step == 0 && config.from.is_none() {
        let Some(tokens) = training.get(teacher.cut(0), &mut progress, &session.interrupt)? else {
            return Ok(Outcome::Interrupted);
        };
        let (words, guides) = teacher.input_moments(tokens);
        let started = learner.transformer.standardise_inputs(&words, &guides);
        learner.transformer = started.start_head_from(tokenizer.quantizer.codebook.val());
        optimiser = Optimiser::new(&config.optimiser, &learner);
        average = Average::new(config.optimiser.average_decay, &learner);
    }
    while step < config.steps {
        let variant = state.epoch % config.variants;
        let Some(tokens) = training.get(teacher.cut(variant), &mut progress, &session.interrupt)? else {
            return stop_early(&mut run, step, &learner, &average, &optimiser, &state);
        };
        let order = epoch_order(config.seed, state.epoch, tokens.len());
        let size = (config.batch_size * config.accumulate).min(order.len());
        if state.used + size > order.len() {
            state = State { epoch: state.epoch + 1, used: 0, ..state };
            continue;
        }
        let batch: Vec<&PairTokens> =
            order[state.used..state.used + size].iter().map(|&i| &tokens[i]).collect();
        state.used += size;

        let mut random = ChaCha8Rng::seed_from_u64(derive_seed(config.seed, &[1, step]));
        let view = teacher.view(&mut random);
        let (gradients, mut numbers) = teacher.gradients(&learner, &view, &batch, step);
        let epoch = state.epoch;
        step += 1;
        let loss = numbers["loss"];
        if !loss.is_finite() {
            return Err(not_a_number(&mut run, step, "loss", loss));
        }
        let rate = config.optimiser.rate(step - 1, config.steps);
        let (updated, norm) =
            optimiser.step(learner, gradients, batch.len().div_ceil(config.batch_size), rate);
        if !norm.is_finite() {
            return Err(not_a_number(&mut run, step, "gradient", norm));
        }
        learner = updated;
        average.update(&learner, step);
        numbers.insert("learning_rate".into(), rate);
        numbers.insert("gradient_norm".into(), norm);
        progress.update(step, batch.len() as u64, Some(loss));

        let done = step == config.steps;
        let interrupted = session.interrupt.requested();
        if step.is_multiple_of(config.log_every) || done {
            log(&mut run, step, epoch, &numbers)?;
        }
        let mut improved = false;
        if step.is_multiple_of(config.validate_every) || done {
            let numbers = teacher.validate(average.module().transformer(), &known, session.device.clone());
            log(&mut run, step, epoch, &numbers)?;
            let model = teacher.model(average.module().transformer(), &tokenizer_config);
            run.sample(step, "translations", &sheet(&model, &known, config))?;
            let loss = numbers["validation/loss"];
            progress.message(&format!(
                "step {step}: validation loss {loss:.4} (satellite {:.4}, map {:.4})",
                numbers["validation/loss_satellite"], numbers["validation/loss_map"]
            ));
            improved = state.best.is_none_or(|best| (loss as f32) < best);
            if improved {
                state.best = Some(loss as f32);
            }
        }
        if step.is_multiple_of(config.checkpoint_every) || done || interrupted || improved {
            save(&mut run, step, &learner, &average, &optimiser, &state)?;
            if improved {
                run.mark_best(step)?;
            }
        }
        if interrupted && !done {
            return Ok(Outcome::Interrupted);
        }
    }
    progress.finish();
    Ok(Outcome::Finished)
}

/// Writes a checkpoint when the interrupt came while tokens were being made.
fn stop_early(
    run: &mut Run,
    step: u64,
    learner: &Learner,
    average: &Average<Learner>,
    optimiser: &Optimiser,
    state: &State,
) -> Result<Outcome, TrainError> {
    if step > 0 {
        save(run, step, learner, average, optimiser, state)?;
    }
    Ok(Outcome::Interrupted)
}

fn log(run: &mut Run, step: u64, epoch: u64, numbers: &BTreeMap<String, f64>) -> Result<(), TrainError> {
    let numbers: Vec<(&str, f64)> = numbers.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    Ok(run.log(step, epoch, &numbers)?)
}

fn save(
    run: &mut Run,
    step: u64,
    learner: &Learner,
    average: &Average<Learner>,
    optimiser: &Optimiser,
    state: &State,
) -> Result<(), TrainError> {
    let value = serde_json::to_value(state).expect("plain data");
    run.save_checkpoint(step, state.epoch, value, |folder| -> Result<(), String> {
        save_module(learner, &folder.join("learner.bpk"))?;
        save_module(average.module(), &folder.join("average.bpk"))?;
        optimiser.save(&folder.join("optimiser.bpk"))
    })?;
    Ok(())
}

fn restore(
    checkpoint: &Checkpoint,
    config: &TransformerTraining,
    learner: Learner,
    mut average: Average<Learner>,
) -> Result<(Learner, Average<Learner>, Optimiser, State), TrainError> {
    let fail = checkpoint_error(&checkpoint.folder);
    let file = |name: &str| checkpoint.folder.join(name);
    let state = serde_json::from_value(checkpoint.state.clone()).map_err(|error| fail(error.to_string()))?;
    let learner = load_module(learner, &file("learner.bpk")).map_err(&fail)?;
    average.set(load_module(average.module().clone(), &file("average.bpk")).map_err(&fail)?);
    // The history refers to the identities of the weights just read.
    let optimiser =
        Optimiser::new(&config.optimiser, &learner).load(&file("optimiser.bpk")).map_err(&fail)?;
    Ok((learner, average, optimiser, state))
}

/// A transformer with the weights of a model, for fine-tuning.
fn adopt(transformer: JointTransformer, model: &EarthMapper) -> Result<JointTransformer, TrainError> {
    let tensors = earthmapper::weights::collect(&model.transformer);
    // A model without aligned forcing can start one with it: only the embeddings of known pictures are fresh then. Any
    // other part that the model lacks would silently start from noise.
    let mut expected = earthmapper::weights::collect(&transformer).into_keys();
    if let Some(name) = expected.find(|name| !tensors.contains_key(name) && !name.starts_with("guides.")) {
        let problem = format!("the model has no {name}; give [transformer] the shape of the model");
        return Err(TrainError::Config { key: "from", problem });
    }
    earthmapper::weights::apply(transformer, tensors, earthmapper::weights::Missing::Keep)
        .map_err(|error| TrainError::Config { key: "from", problem: error.to_string() })
}

/// A model out of its parts.
pub fn assemble(
    config: &TransformerTraining,
    tokenizer_config: TokenizerConfig,
    tokenizer: MultiScaleTokenizer,
    transformer: JointTransformer,
) -> EarthMapper {
    let mut trained_on = config.trained_on.clone();
    trained_on.places_known &= config.places != Places::Hidden;
    let config = EarthMapperConfig {
        format: FORMAT,
        name: config.name.clone(),
        transformer: config.transformer.clone(),
        trained_on,
    };
    EarthMapper::from_parts(config, tokenizer_config, tokenizer, transformer)
}

/// Four validation pairs: photograph, map, map from photograph, photograph from map.
fn sheet(model: &EarthMapper, known: &[PairTokens], config: &TransformerTraining) -> Picture {
    let pairs: Vec<&PairTokens> = known.iter().step_by((known.len() / 4).max(1)).take(4).collect();
    let translator = Translator::new(model);
    let seeds: Vec<u64> = (0..pairs.len() as u64).collect();
    let truth = |modality| from_tensor(model.tokenizer.decode(&PairTokens::tokens(&pairs, modality)));
    let made = |source: usize| {
        let target = if source == 0 { Modality::Map } else { Modality::Satellite };
        let encoded = Encoding {
            tokens: PairTokens::tokens(&pairs, source),
            features: PairTokens::features(&pairs, source, &model.tokenizer_config, &model.device()),
        };
        let condition =
            |i| Condition::translation(model, encoded.picture(i), target, place_of(config, pairs[i]));
        let conditions: Vec<Condition> = (0..pairs.len()).map(condition).collect();
        let options = model.generation.towards(target);
        let mut out = translator.run(&conditions, &seeds, options, &mut |_| {}).expect("a batch of one kind");
        from_tensor(model.tokenizer.decode_features(out.remove(0).reconstruction))
    };
    let columns = [truth(0), truth(1), made(0), made(1)];
    let rows: Vec<Vec<Picture>> =
        (0..pairs.len()).map(|i| columns.iter().map(|column| column[i].clone()).collect()).collect();
    contact_sheet(&rows, 4)
}
