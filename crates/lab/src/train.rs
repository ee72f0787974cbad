//! Training the transformer: cross-entropy over both pictures (Eq. 11), semantic infusion (Eq. 12–14), and hiding of
//! the condition half and of the place for guidance (PAPER sections 4–6).

use std::collections::BTreeMap;
use std::path::PathBuf;

use burn::module::Module;
use burn::optim::GradientsAccumulator;
use burn::tensor::{DType, Device, FloatDType, Int, Tensor, TensorData};
use earthmapper::config::{Forcing, TrainedOn};
use earthmapper::init::Init;
use earthmapper::model::{FORMAT, GenerationDefaults};
use earthmapper::pictures::from_tensor;
use earthmapper::sampler::derive_seed;
use earthmapper::tokenizer::{MultiScaleTokenizer, TokenPyramid};
use earthmapper::transformer::{DropPath, Moments};
use earthmapper::translator::{Condition, Translator};
use earthmapper::{
    EarthMapper, EarthMapperConfig, JointTransformer, Modality, Place, TokenizerConfig, TransformerConfig,
};
use earthmapper_geo::pairs::{PairFolder, PairSelection, PairSource};
use earthmapper_geo::picture::Picture;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::data::{AugmentConfig, contact_sheet, epoch_order};
use crate::export::open_tokenizer;
use crate::losses::cross_entropy;
use crate::nets::dinov2::DinoV2;
use crate::optimiser::{Average, Optimiser, OptimiserConfig, gradients_of, load_module, save_module};
use crate::progress::Progress;
use crate::run::{Checkpoint, Run};
use crate::semantic_infusion::{Alignment, SemanticInfusionConfig, semantic_loss, targets};
use crate::session::{Outcome, Session, TrainError, checkpoint_error, not_a_number, warn_about_overlap};
use crate::token_cache::{Cut, PairTokens, TokenCache};

/// Numbers of the forward and backward pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floats.
    #[default]
    F32,
    /// 16-bit brain floats, with 32-bit master weights; an error on a device without them.
    Bf16,
}

/// A training of the transformer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransformerTraining {
    /// Name of the model that comes out.
    pub name: String,
    /// Seed of weights, order, augmentation and hiding.
    #[serde(default)]
    pub seed: u64,
    /// Steps in all.
    pub steps: u64,
    /// Pairs per micro-batch.
    pub batch_size: usize,
    /// Micro-batches per step.
    #[serde(default = "one")]
    pub accumulate: usize,
    /// The frozen tokenizer: its folder, a model folder, or the run that trained it.
    pub tokenizer: PathBuf,
    /// A model folder whose transformer the weights start from.
    #[serde(default)]
    pub from: Option<PathBuf>,
    /// Where the pairs are.
    pub data: PairSource,
    /// Pairs to learn from.
    #[serde(default)]
    pub training: PairSelection,
    /// Pairs to measure on.
    #[serde(default)]
    pub validation: PairSelection,
    /// Share of the pairs that may be unreadable.
    #[serde(default = "one_percent")]
    pub skip_limit: f64,
    /// Augmentation; its side is the tokenizer's.
    #[serde(default)]
    pub augment: AugmentConfig,
    /// Draws of the augmentation that are kept as tokens.
    #[serde(default = "four")]
    pub variants: u64,
    /// The transformer.
    pub transformer: TransformerConfig,
    /// Optimiser.
    #[serde(default)]
    pub optimiser: OptimiserConfig,
    /// Probability that one half of a pair is hidden, so that the model also learns the other half alone.
    #[serde(default = "tenth")]
    pub hide_condition: f64,
    /// Probability that the place is hidden.
    #[serde(default = "tenth")]
    pub hide_place: f64,
    /// With aligned forcing: probability that a pair is seen whole, as for inventing pairs; else one half is made from
    /// the other.
    #[serde(default = "tenth")]
    pub joint_share: f64,
    /// With aligned forcing: of the pairs that are translated, the share that goes from photograph to map.
    #[serde(default = "half")]
    pub to_map_share: f64,
    /// Label smoothing ε.
    #[serde(default)]
    pub label_smoothing: f64,
    /// How much more the map's tokens count than the photograph's.
    #[serde(default = "unit")]
    pub map_weight: f64,
    /// Share of each coarser scale's positions that go wrong in training, so that the finer ones learn to put it right;
    /// see [`ResidualQuantizer::encode_with_mistakes`](earthmapper::tokenizer::ResidualQuantizer::encode_with_mistakes).
    #[serde(default)]
    pub token_noise: f64,
    /// Weight of each scale in the loss, coarse to fine, adding up to one; when empty, every token counts the same. The
    /// coarse scales decide what a picture shows, but have few tokens.
    #[serde(default)]
    pub scale_weights: Vec<f64>,
    /// Numbers of the passes.
    #[serde(default)]
    pub precision: Precision,
    /// Semantic infusion; off when absent.
    #[serde(default)]
    pub semantic_infusion: Option<SemanticInfusionConfig>,
    /// One place for all pairs, when the data set has one but does not say so picture by picture.
    #[serde(default)]
    pub place: Option<Place>,
    /// Facts for the model folder.
    #[serde(default)]
    pub trained_on: TrainedOn,
    /// Steps between lines of the log.
    #[serde(default = "ten")]
    pub log_every: u64,
    /// Steps between validations.
    #[serde(default = "five_hundred")]
    pub validate_every: u64,
    /// Steps between checkpoints.
    #[serde(default = "five_hundred")]
    pub checkpoint_every: u64,
}

fn one() -> usize {
    1
}

fn one_percent() -> f64 {
    0.01
}

fn four() -> u64 {
    4
}

fn tenth() -> f64 {
    0.1
}

fn half() -> f64 {
    0.5
}

fn unit() -> f64 {
    1.0
}

fn ten() -> u64 {
    10
}

fn five_hundred() -> u64 {
    500
}

impl TransformerTraining {
    fn check(&self, device: &Device) -> Result<(), TrainError> {
        let wrong = |key, problem: String| Err(TrainError::Config { key, problem });
        if let Err(error) = self.transformer.check() {
            return wrong("transformer", error.to_string());
        }
        if self.transformer.modalities != [Modality::Satellite, Modality::Map] {
            return wrong(
                "transformer.modalities",
                "training on pairs needs [\"satellite\", \"map\"]".into(),
            );
        }
        let counts = [self.steps, self.log_every, self.validate_every, self.checkpoint_every, self.variants];
        if counts.contains(&0) || self.batch_size == 0 || self.accumulate == 0 {
            return wrong("steps, batch_size, accumulate, variants, *_every", "must be above zero".into());
        }
        let shares = [
            ("hide_condition", self.hide_condition),
            ("hide_place", self.hide_place),
            ("joint_share", self.joint_share),
            ("to_map_share", self.to_map_share),
            ("token_noise", self.token_noise),
        ];
        for (key, share) in shares {
            if !(0.0..=1.0).contains(&share) {
                return wrong(key, format!("{share} is not between 0 and 1"));
            }
        }
        let weights: f64 = self.scale_weights.iter().sum();
        let wrong_weight = self.scale_weights.iter().any(|weight| weight.is_nan() || *weight < 0.0);
        if !self.scale_weights.is_empty() && (wrong_weight || (weights - 1.0).abs() > 1e-6) {
            return wrong("scale_weights", format!("must be at least 0 and add up to 1, not {weights}"));
        }
        if let Some(problem) = self.optimiser.problem() {
            return wrong("optimiser", problem);
        }
        if !(0.0..1.0).contains(&self.label_smoothing) || self.map_weight.is_nan() || self.map_weight < 0.0 {
            return wrong("label_smoothing, map_weight", "must be in [0, 1) and at least 0".into());
        }
        if self.precision == Precision::Bf16 && !device.supports_dtype(DType::BF16) {
            return wrong("precision", "this device has no 16-bit brain floats; use \"f32\"".into());
        }
        Ok(())
    }
}

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

/// The frozen parts and settings of a step.
struct Teacher<'a> {
    config: &'a TransformerTraining,
    tokenizer: &'a MultiScaleTokenizer,
    tokenizer_config: &'a TokenizerConfig,
    dinov2: Option<DinoV2>,
    device: Device,
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
    let open = |pairs| {
        TokenCache::new(&cache, pairs, &tokenizer, &tokenizer_config, &session.device, config.skip_limit)
    };
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

        let mut numbers = BTreeMap::new();
        let mut gradients = GradientsAccumulator::new();
        let parts: Vec<&[&PairTokens]> = batch.chunks(config.batch_size).collect();
        let mut random = ChaCha8Rng::seed_from_u64(derive_seed(config.seed, &[1, step]));
        let mut drop_path = DropPath::new(derive_seed(config.seed, &[2, step]));
        let view = teacher.view(&mut random);
        for part in &parts {
            let share = part.len() as f64 / batch.len() as f64;
            let loss = teacher.loss(&learner, &view, part, &mut random, &mut drop_path, share, &mut numbers);
            if numbers["loss"].is_finite() {
                // The last part of a small folder may be smaller than the others, and then counts for less.
                let loss = match part.len() * parts.len() == batch.len() {
                    true => loss,
                    false => loss.mul_scalar(share * parts.len() as f64),
                };
                gradients.accumulate(&learner, gradients_of(loss.backward(), &learner));
            }
        }
        let epoch = state.epoch;
        step += 1;
        let loss = numbers["loss"];
        if !loss.is_finite() {
            return Err(not_a_number(&mut run, step, "loss", loss));
        }
        let rate = config.optimiser.rate(step - 1, config.steps);
        let (updated, norm) = optimiser.step(learner, gradients.grads(), parts.len(), rate);
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
            run.sample(step, "translations", &sheet(&model, &known, config.place))?;
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

/// Mean and standard deviation of each column of `[rows, latent]`.
fn moments(rows: Tensor<2>) -> Moments {
    let (variance, mean) = rows.var_mean_bias(0);
    let host = |row: Tensor<2>| row.try_into_vec_as::<f32>().expect("32-bit floats");
    Moments { means: host(mean), deviations: host(variance.sqrt()) }
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

impl Teacher<'_> {
    /// What is on and off, for the log.
    fn says(&self) -> String {
        match &self.config.semantic_infusion {
            Some(infusion) => {
                format!("semantic infusion: on, {:?} targets, σ = {}", infusion.targets, infusion.sigma)
            }
            None => {
                "semantic infusion: off (no [semantic_infusion] with DINOv2 weights in the configuration)"
                    .into()
            }
        }
    }

    /// Variant `variant` of the augmentation.
    fn cut(&self, variant: u64) -> Cut {
        Cut::Augmented { config: self.config.augment, seed: self.config.seed, variant }
    }

    /// Moments of the transformer's inputs over both modalities, and of the features of each.
    fn input_moments(&self, pairs: &[PairTokens]) -> (Moments, [Moments; 2]) {
        let pairs: Vec<&PairTokens> = pairs.iter().take(32).collect();
        let device = self.device.clone().without_autodiff();
        let known = [0, 1].map(|m| PairTokens::batch(&pairs, m, self.tokenizer_config, &device));
        let latent = self.tokenizer_config.latent_width;
        let rows = |x: Tensor<3>| {
            let [batch, tokens, _] = x.dims();
            x.reshape([batch * tokens, latent])
        };
        let inputs = known.iter().flat_map(|known| self.tokenizer.quantizer.teacher_inputs(&known.tokens));
        let words = moments(Tensor::cat(inputs.map(rows).collect(), 0));
        (words, known.map(|known| moments(rows(known.features.flatten::<3>(2, 3).swap_dims(1, 2)))))
    }

    /// The loss of a micro-batch, which is `batch_share` of the batch; adds that share of its numbers to
    /// `numbers`.
    #[allow(clippy::too_many_arguments)]
    fn loss(
        &self,
        learner: &Learner,
        view: &View,
        pairs: &[&PairTokens],
        random: &mut ChaCha8Rng,
        drop_path: &mut DropPath,
        batch_share: f64,
        numbers: &mut BTreeMap<String, f64>,
    ) -> Tensor<1> {
        let hidden = |_: &&PairTokens| random.random::<f64>() < self.config.hide_place;
        let places: Vec<Option<Place>> =
            pairs.iter().map(hidden).map(|hidden| if hidden { None } else { self.config.place }).collect();
        // The alignment stays in 32 bits, as do the hidden states and targets that it meets.
        let transformer = match self.config.precision {
            Precision::F32 => learner.transformer.clone(),
            Precision::Bf16 => learner.transformer.clone().map(&mut ToBf16),
        };
        let seen = self.see(&transformer, pairs, &places, view, Some((drop_path, random)));
        let mut total = self.weighted(&seen);
        add(numbers, "cross_entropy", &total, batch_share);
        let infusion = self.config.semantic_infusion.as_ref().zip(self.dinov2.as_ref());
        if let (Some(((infusion, dinov2), alignment)), 2) =
            (infusion.zip(learner.alignment.as_ref()), view.visible.len())
        {
            let targets: Vec<Vec<Tensor<3>>> = seen
                .tokens
                .iter()
                .map(|tokens| targets(dinov2, self.tokenizer, tokens, infusion.targets))
                .collect();
            let loss = semantic_loss(alignment, seen.hidden.clone(), &targets).mul_scalar(infusion.sigma);
            add(numbers, "semantic", &loss, batch_share);
            total = total + loss;
        }
        add(numbers, "loss", &total, batch_share);
        total
    }

    /// How the pairs of a step are seen. They are seen alike, because a few large products are faster than many small
    /// ones.
    fn view(&self, random: &mut ChaCha8Rng) -> View {
        // Always four draws, so that one setting does not change what the others see.
        let [hide, half, joint, to_map]: [f64; 4] = std::array::from_fn(|_| random.random());
        let aligned = self.config.transformer.forcing == Forcing::Aligned;
        if hide < self.config.hide_condition {
            View { visible: vec![usize::from(half < 0.5)], guide: None }
        } else if !aligned || joint < self.config.joint_share {
            View { visible: vec![0, 1], guide: None }
        } else {
            View::towards(usize::from(to_map < self.config.to_map_share))
        }
    }

    /// Mean cross-entropy with the weights of modalities and scales, `[1]`.
    fn weighted(&self, seen: &Seen) -> Tensor<1> {
        let weight = |modality: usize| if modality == 1 { self.config.map_weight } else { 1.0 };
        let total: f64 = seen.visible.iter().map(|&modality| weight(modality)).sum();
        let losses = seen.per_modality().into_iter().zip(&seen.visible);
        losses
            .map(|(loss, &modality)| {
                self.over_scales(loss, &seen.counts).mul_scalar(weight(modality) / total)
            })
            .reduce(|a, b| a + b)
            .expect("at least one modality is visible")
    }

    /// Mean of the losses of one modality, `[batch, tokens]`, with the scales' weights; `[1]`.
    fn over_scales(&self, loss: Tensor<2>, counts: &[usize]) -> Tensor<1> {
        let mut start = 0;
        let parts = self.config.scale_weights.iter().zip(counts).map(|(weight, &count)| {
            let part = loss.clone().narrow(1, start, count).mean().mul_scalar(*weight);
            start += count;
            part
        });
        parts.reduce(|a, b| a + b).unwrap_or_else(|| loss.mean())
    }

    /// Runs the transformer over some pairs with teacher forcing.
    fn see(
        &self,
        transformer: &JointTransformer,
        pairs: &[&PairTokens],
        places: &[Option<Place>],
        view: &View,
        learning: Option<(&mut DropPath, &mut ChaCha8Rng)>,
    ) -> Seen {
        let visible = &view.visible;
        let quantizer = &self.tokenizer.quantizer;
        let scales = quantizer.scales();
        let depth = quantizer.depth();
        let host = self.device.clone().without_autodiff();
        let known = |modality: usize| PairTokens::batch(pairs, modality, self.tokenizer_config, &host);
        let (drop_path, mut random) = learning.unzip();
        let share = self.config.token_noise;
        let taught = |&modality: &usize| {
            let known = known(modality);
            match &mut random {
                Some(random) if share > 0.0 => {
                    quantizer.encode_with_mistakes(known.features, share, &mut **random)
                }
                _ => {
                    let inputs = quantizer.teacher_inputs(&known.tokens);
                    (known.tokens, inputs)
                }
            }
        };
        let (tokens, inputs): (Vec<TokenPyramid>, Vec<Vec<Tensor<3>>>) = visible.iter().map(taught).unzip();
        let condition = transformer.geo_embedding.forward(places);
        let (device, dtype) = (condition.device(), condition.dtype());
        let like = |x: Tensor<3>| Tensor::<3>::from_data(x.into_data(), &device).cast(float(dtype));
        let inputs: Vec<Vec<Tensor<3>>> =
            inputs.into_iter().map(|inputs| inputs.into_iter().map(like).collect()).collect();
        let guides: Vec<(usize, Tensor<4>)> = view
            .guide
            .iter()
            .map(|&modality| {
                let features = known(modality).features.into_data();
                (modality, Tensor::<4>::from_data(features, &device).cast(float(dtype)))
            })
            .collect();
        let guide = transformer.guide(&guides);
        let hidden = transformer.forward(visible, &inputs, guide.as_deref(), condition.clone(), drop_path);
        let normed = transformer.head_norm(hidden.clone(), condition);
        let [batch, length, width] = normed.dims();
        let rows = normed.reshape([batch * length, width]);
        // Codes in the order of the sequence, `[batch, length, depth]`.
        let mut codes = Vec::with_capacity(batch * length * depth);
        for picture in 0..batch {
            for k in 0..scales.len() {
                tokens.iter().for_each(|tokens| codes.extend_from_slice(tokens.picture_scale(picture, k)));
            }
        }
        let mut loss = Tensor::<1>::zeros([batch * length], &device);
        for level in 0..depth {
            let column = |level: usize| -> Vec<i64> {
                codes.iter().skip(level).step_by(depth).map(|&code| i64::from(code)).collect()
            };
            let chosen = (level > 0).then(|| {
                let before: Vec<i64> =
                    codes.chunks(depth).flat_map(|codes| &codes[..level]).map(|&c| i64::from(c)).collect();
                let before = TensorData::new(before, [batch * length, level]);
                let sum = quantizer
                    .look_up(Tensor::<2, Int>::from_data(before, &device.clone().without_autodiff()));
                Tensor::<2>::from_data(sum.into_data(), &device).cast(float(dtype))
            });
            let logits = transformer.logits(rows.clone(), chosen, level).cast(FloatDType::F32);
            let target =
                Tensor::<1, Int>::from_data(TensorData::new(column(level), [batch * length]), &device);
            loss = loss + cross_entropy(logits, target, self.config.label_smoothing).div_scalar(depth as f64);
        }
        Seen {
            visible: visible.to_vec(),
            tokens,
            hidden: hidden.cast(FloatDType::F32),
            loss: loss.reshape([batch, length]),
            counts: (0..scales.len()).map(|k| scales.tokens(k)).collect(),
        }
    }

    /// Cross-entropy on pairs that were not learned from: in all, per modality, per scale, and of each half alone.
    fn validate(
        &self,
        transformer: &JointTransformer,
        pairs: &[PairTokens],
        device: Device,
    ) -> BTreeMap<String, f64> {
        let plain = Teacher { dinov2: None, device, ..*self };
        let mut numbers = BTreeMap::new();
        let batches: Vec<Vec<&PairTokens>> = pairs.chunks(8).map(|pairs| pairs.iter().collect()).collect();
        for batch in &batches {
            let share = batch.len() as f64 / pairs.len() as f64;
            let places = vec![self.config.place; batch.len()];
            let mut put = |name: String, loss: Tensor<2>| {
                *numbers.entry(name).or_insert(0.0) += share * f64::from(loss.mean().into_scalar::<f32>());
            };
            let aligned = self.config.transformer.forcing == Forcing::Aligned;
            let (losses, counts) = match aligned {
                true => {
                    let seen =
                        [0, 1].map(|m| plain.see(transformer, batch, &places, &View::towards(m), None));
                    (vec![seen[0].loss.clone(), seen[1].loss.clone()], seen[0].counts.clone())
                }
                false => {
                    let whole = View { visible: vec![0, 1], guide: None };
                    let seen = plain.see(transformer, batch, &places, &whole, None);
                    (seen.per_modality(), seen.counts)
                }
            };
            let weight = self.config.map_weight;
            let loss = losses[0].clone().mean() + losses[1].clone().mean().mul_scalar(weight);
            put("validation/loss".into(), loss.div_scalar(1.0 + weight).unsqueeze());
            for (modality, loss) in [Modality::Satellite, Modality::Map].into_iter().zip(losses) {
                let mut start = 0;
                for (k, &count) in counts.iter().enumerate() {
                    put(format!("validation/loss_{modality}/{k}"), loss.clone().narrow(1, start, count));
                    start += count;
                }
                put(format!("validation/loss_{modality}"), loss);
            }
            for (index, modality) in [Modality::Satellite, Modality::Map].into_iter().enumerate() {
                let alone =
                    plain.see(transformer, batch, &places, &View { visible: vec![index], guide: None }, None);
                put(format!("validation/loss_{modality}_alone"), alone.loss);
            }
        }
        numbers
    }

    /// A model out of the parts, for sample sheets.
    fn model(&self, transformer: &JointTransformer, tokenizer_config: &TokenizerConfig) -> EarthMapper {
        assemble(self.config, tokenizer_config.clone(), self.tokenizer.clone(), transformer.clone())
    }
}

/// A model out of its parts.
pub fn assemble(
    config: &TransformerTraining,
    tokenizer_config: TokenizerConfig,
    tokenizer: MultiScaleTokenizer,
    transformer: JointTransformer,
) -> EarthMapper {
    EarthMapper {
        config: EarthMapperConfig {
            format: FORMAT,
            name: config.name.clone(),
            transformer: config.transformer.clone(),
            trained_on: config.trained_on.clone(),
        },
        tokenizer_config,
        generation: GenerationDefaults::default(),
        tokenizer,
        transformer,
    }
}

/// How a pair is seen: which of its pictures stand in the sequence, and which one is known beside it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct View {
    visible: Vec<usize>,
    guide: Option<usize>,
}

impl View {
    /// One picture made from the other.
    fn towards(target: usize) -> Self {
        Self { visible: vec![target], guide: Some(1 - target) }
    }
}

/// What the transformer made of some pairs.
struct Seen {
    visible: Vec<usize>,
    tokens: Vec<TokenPyramid>,
    hidden: Tensor<3>,
    /// Cross-entropy of each token in the order of the sequence, `[batch, length]`.
    loss: Tensor<2>,
    /// Tokens of one picture per scale.
    counts: Vec<usize>,
}

impl Seen {
    /// The losses of each visible modality alone, coarse to fine, `[batch, tokens]`.
    fn per_modality(&self) -> Vec<Tensor<2>> {
        let modalities = self.visible.len();
        let part = |slot: usize| {
            let mut start = 0;
            let parts = self.counts.iter().map(|&count| {
                let part = self.loss.clone().narrow(1, start + slot * count, count);
                start += modalities * count;
                part
            });
            Tensor::cat(parts.collect(), 1)
        };
        (0..modalities).map(part).collect()
    }
}

fn add(numbers: &mut BTreeMap<String, f64>, name: &str, loss: &Tensor<1>, batch_share: f64) {
    let value = f64::from(loss.clone().into_scalar::<f32>()) * batch_share;
    *numbers.entry(name.into()).or_insert(0.0) += value;
}

fn float(dtype: DType) -> FloatDType {
    if dtype == DType::BF16 { FloatDType::BF16 } else { FloatDType::F32 }
}

/// Casts a module for one pass; gradients flow back to the 32-bit weights that it was cast from.
struct ToBf16;

impl burn::module::ModuleMapper for ToBf16 {
    fn map_float<const D: usize>(
        &mut self,
        param: burn::module::Param<Tensor<D>>,
    ) -> burn::module::Param<Tensor<D>> {
        let (id, tensor, _) = param.consume();
        burn::module::Param::initialized(id, tensor.cast(FloatDType::BF16))
    }
}

/// Four validation pairs: photograph, map, map from photograph, photograph from map.
fn sheet(model: &EarthMapper, known: &[PairTokens], place: Option<Place>) -> Picture {
    let pairs: Vec<&PairTokens> = known.iter().step_by((known.len() / 4).max(1)).take(4).collect();
    let translator = Translator::new(model);
    let seeds: Vec<u64> = (0..pairs.len() as u64).collect();
    let known = |modality| PairTokens::batch(&pairs, modality, &model.tokenizer_config, &model.device());
    let truth = |modality| from_tensor(model.tokenizer.decode(&known(modality).tokens));
    let made = |source: usize| {
        let target = if source == 0 { Modality::Map } else { Modality::Satellite };
        let encoded = known(source);
        let condition = |i| Condition::translation(model, encoded.picture(i), target, place);
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
