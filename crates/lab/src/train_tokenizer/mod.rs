//! Training the tokenizer: reconstruction, codebook and commitment terms, and optionally perceptual and adversarial
//! ones (PAPER section 2).

mod config;
mod validation;

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use earthmapper::TokenizerConfig;
use earthmapper::init::Init;
use earthmapper::pictures::to_tensor;
use earthmapper::sampler::derive_seed;
use earthmapper::tokenizer::{MultiScaleTokenizer, TokenPyramid};
use earthmapper::weights::{self, Missing};
use earthmapper_geo::pairs::PairFolder;
use earthmapper_geo::picture::Picture;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::data::{PairLoader, Position, read_squares};
use crate::export::open_tokenizer;
use crate::losses::{edge_loss, structural_dissimilarity};
use crate::nets::discriminator::{
    Judgement, PatchDiscriminator, adaptive_weight, discriminator_loss, feature_matching, generator_loss,
};
use crate::nets::lpips::Lpips;
use crate::optimiser::{Average, Optimiser, OptimiserConfig, gradients_of, load_module, save_module};
use crate::progress::Progress;
use crate::run::{Checkpoint, Run};
use crate::session::{Outcome, Session, TrainError, checkpoint_error, not_a_number, warn_about_overlap};
use crate::start_from_data::assignments;

pub use config::{
    AdversarialLoss, Judged, Learn, PerceptualLoss, Revival, TokenizerLosses, TokenizerTraining,
};
use validation::{VALIDATED, validate};

/// Everything that changes from step to step.
struct Trainer {
    tokenizer: MultiScaleTokenizer,
    average: Average<MultiScaleTokenizer>,
    optimiser: Optimiser,
    adversary: Option<Adversary>,
    /// Steps since each code was chosen last.
    idle: Vec<u64>,
}

struct Adversary {
    discriminator: PatchDiscriminator,
    optimiser: Optimiser,
}

/// What is written beside the weights: `state` of a checkpoint.
#[derive(Serialize, Deserialize)]
struct State {
    position: Position,
    idle: Vec<u64>,
    /// Highest validation PSNR so far; in 32 bits, because a 64-bit number may come back from the file one bit off.
    best: Option<f32>,
}

/// Trains a tokenizer.
///
/// # Errors
/// See [`TrainError`]; the last good checkpoint is always kept.
pub fn train(config: &TokenizerTraining, session: &Session) -> Result<Outcome, TrainError> {
    config.check()?;
    let folder = PairFolder::open(&config.data, &config.training)?;
    let validation = PairFolder::open(&config.data, &config.validation)?;
    warn_about_overlap(&folder, &validation);
    // Read before anything is made: a validation that cannot work should not surprise hours later.
    let indices: Vec<usize> = (0..validation.len().min(VALIDATED)).collect();
    let side = config.tokenizer.picture_side as u32;
    let known = read_squares(&validation, &indices, side, config.loader.skip_limit)?;
    let device = session.device.clone().autodiff();
    let perceptual = match &config.losses.perceptual {
        Some(loss) => Some(Lpips::load(&loss.vgg, loss.heads.as_deref(), &session.device)?),
        None => None,
    };
    let fresh = MultiScaleTokenizer::new(&config.tokenizer, &mut Init::new(config.seed, &device));
    let tokenizer = match &config.from {
        Some(folder) => adopt(fresh, config, folder, &session.device)?,
        None => fresh,
    };
    let text = toml::to_string_pretty(config).expect("a plain configuration");
    let (mut run, checkpoint) = session.open(&text, "tokenizer")?;
    let (mut trainer, mut step, mut state) = Trainer::start(config, tokenizer, &device, checkpoint.as_ref())?;
    if step == 0 && config.start.pairs > 0 && config.from.is_none() {
        trainer.start_from_data(config, &folder, &device)?;
    }
    let mut loader = PairLoader::start(folder, config.augment, config.loader, config.seed, state.position)?;
    let mut progress = Progress::start(session.progress, "pairs", step, config.steps);
    for (name, used) in
        [("perceptual", perceptual.is_some()), ("adversarial", config.losses.adversarial.is_some())]
    {
        tracing::info!("{name} loss: {}", if used { "on" } else { "off" });
    }
    if config.learn == Learn::Decoder {
        tracing::info!("only the decoder learns; tokens stay what they are");
    }
    while step < config.steps {
        let batch = loader.next_batch()?;
        state.position = batch.position;
        let pictures: Vec<Picture> = batch.satellite.iter().chain(&batch.map).cloned().collect();
        let pictures = to_tensor(&pictures, &session.device);
        trainer.revive(config, step, pictures.clone());
        let numbers = trainer.step(config, step, pictures, &device, perceptual.as_ref());
        step += 1;
        let loss = numbers["loss"];
        for (what, name) in [
            ("loss", "loss"),
            ("gradient", "gradient_norm"),
            ("discriminator's gradient", "discriminator_norm"),
        ] {
            if let Some(value) = numbers.get(name).filter(|value| !value.is_finite()) {
                return Err(not_a_number(&mut run, step, what, *value));
            }
        }
        progress.update(step, batch.len() as u64, Some(loss));
        let interrupted = session.interrupt.requested();
        let done = step == config.steps;
        if step.is_multiple_of(config.log_every) || done {
            let numbers: Vec<(&str, f64)> = numbers.iter().map(|(name, value)| (*name, *value)).collect();
            run.log(step, batch.epoch, &numbers)?;
        }
        let mut improved = false;
        if step.is_multiple_of(config.validate_every) || done {
            let report = validate(trainer.average.module(), &known, config, &session.device);
            run.log(step, batch.epoch, &report.numbers())?;
            run.sample(step, "reconstructions", &report.sheet)?;
            progress.message(&report.line(step));
            let psnr = report.psnr() as f32;
            improved = state.best.is_none_or(|best| psnr > best);
            if improved {
                state.best = Some(psnr);
            }
        }
        if step.is_multiple_of(config.checkpoint_every) || done || interrupted || improved {
            trainer.save(&mut run, step, batch.epoch, &mut state)?;
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

impl Trainer {
    fn start(
        config: &TokenizerTraining,
        tokenizer: MultiScaleTokenizer,
        device: &Device,
        checkpoint: Option<&Checkpoint>,
    ) -> Result<(Self, u64, State), TrainError> {
        let optimiser = Optimiser::new(&config.optimiser, &tokenizer);
        let average = Average::new(config.optimiser.average_decay, &tokenizer);
        let adversary = config.losses.adversarial.as_ref().map(|loss| {
            let discriminator = loss.discriminator.init(device);
            let optimiser = OptimiserConfig { weight_decay: 0.0, ..config.optimiser.clone() };
            Adversary { optimiser: Optimiser::new(&optimiser, &discriminator), discriminator }
        });
        let idle = vec![0; config.tokenizer.vocabulary];
        let state = State { position: Position::default(), idle: Vec::new(), best: None };
        let mut trainer = Self { tokenizer, average, optimiser, adversary, idle };
        let Some(checkpoint) = checkpoint else { return Ok((trainer, 0, state)) };
        let state: State = serde_json::from_value(checkpoint.state.clone())
            .map_err(|error| checkpoint_error(&checkpoint.folder)(error.to_string()))?;
        trainer.load(checkpoint)?;
        trainer.idle.clone_from(&state.idle);
        Ok((trainer, checkpoint.step, state))
    }

    /// Sets the linear path and the codebook from the data.
    fn start_from_data(
        &mut self,
        config: &TokenizerTraining,
        folder: &PairFolder,
        device: &Device,
    ) -> Result<(), TrainError> {
        let count = config.start.pairs.min(folder.len());
        let indices: Vec<usize> = (0..count).map(|i| i * folder.len() / count).collect();
        let side = config.tokenizer.picture_side as u32;
        let pairs = read_squares(folder, &indices, side, config.loader.skip_limit)?;
        let pictures: Vec<Picture> = pairs.into_iter().flat_map(|pair| [pair.satellite, pair.map]).collect();
        let plain = config.start.apply(self.tokenizer.valid(), &pictures, config.seed);
        let tensors = weights::collect(&plain);
        let fresh = MultiScaleTokenizer::new(&config.tokenizer, &mut Init::new(config.seed, device));
        self.tokenizer = weights::apply(fresh, tensors, Missing::Refuse).expect("the same architecture");
        self.optimiser = Optimiser::new(&config.optimiser, &self.tokenizer);
        self.average = Average::new(config.optimiser.average_decay, &self.tokenizer);
        Ok(())
    }

    fn load(&mut self, checkpoint: &Checkpoint) -> Result<(), TrainError> {
        let file = |name: &str| checkpoint.folder.join(name);
        let fail = checkpoint_error(&checkpoint.folder);
        self.tokenizer = load_module(self.tokenizer.clone(), &file("tokenizer.bpk")).map_err(&fail)?;
        let average = load_module(self.average.module().clone(), &file("average.bpk")).map_err(&fail)?;
        self.average.set(average);
        // The history refers to the identities of the weights just read.
        let optimiser = Optimiser::new(self.optimiser.config(), &self.tokenizer);
        self.optimiser = optimiser.load(&file("optimiser.bpk")).map_err(&fail)?;
        if let Some(adversary) = &mut self.adversary {
            adversary.discriminator =
                load_module(adversary.discriminator.clone(), &file("discriminator.bpk")).map_err(&fail)?;
            let optimiser = Optimiser::new(adversary.optimiser.config(), &adversary.discriminator);
            adversary.optimiser = optimiser.load(&file("discriminator-optimiser.bpk")).map_err(&fail)?;
        }
        Ok(())
    }

    fn save(&self, run: &mut Run, step: u64, epoch: u64, state: &mut State) -> Result<(), TrainError> {
        state.idle.clone_from(&self.idle);
        let state = serde_json::to_value(state).expect("plain data");
        run.save_checkpoint(step, epoch, state, |folder| -> Result<(), String> {
            save_module(&self.tokenizer, &folder.join("tokenizer.bpk"))?;
            save_module(self.average.module(), &folder.join("average.bpk"))?;
            self.optimiser.save(&folder.join("optimiser.bpk"))?;
            if let Some(adversary) = &self.adversary {
                save_module(&adversary.discriminator, &folder.join("discriminator.bpk"))?;
                adversary.optimiser.save(&folder.join("discriminator-optimiser.bpk"))?;
            }
            Ok(())
        })?;
        Ok(())
    }

    /// Replaces codes that have not been chosen for a while by residuals of these pictures.
    fn revive(&mut self, config: &TokenizerTraining, step: u64, pictures: Tensor<4>) {
        let every = config.revival.every;
        let last = (config.steps as f64 * config.revival.until) as u64;
        if every == 0 || step == 0 || step > last || !step.is_multiple_of(every) {
            return;
        }
        if config.learn == Learn::Decoder {
            return;
        }
        let dead: Vec<usize> = (0..self.idle.len()).filter(|&code| self.idle[code] >= every).collect();
        if dead.is_empty() {
            return;
        }
        let plain = self.tokenizer.valid();
        let met = assignments(&plain, plain.features(pictures));
        let residuals: Vec<f32> = met.into_iter().flat_map(|(rows, ..)| rows).collect();
        let latent = config.tokenizer.latent_width;
        let rows = residuals.len() / latent;
        let mut random = ChaCha8Rng::seed_from_u64(derive_seed(config.seed, &[2, step]));
        let mut codebook = plain.quantizer.codebook.val().try_into_vec_as::<f32>().expect("32-bit floats");
        for &code in &dead {
            let row = random.random_range(0..rows) * latent;
            codebook[code * latent..(code + 1) * latent].copy_from_slice(&residuals[row..row + latent]);
            self.idle[code] = 0;
        }
        // The average would blend the old code with the new one into one that is neither.
        let averaged = with_codes(self.average.module(), &dead, &codebook);
        self.average.set(averaged);
        let quantizer = &mut self.tokenizer.quantizer;
        quantizer.codebook = quantizer.codebook.clone().map(|old| {
            let data = TensorData::new(codebook, old.dims());
            Tensor::from_data(data, &old.device()).require_grad()
        });
    }

    /// One step on `pictures`: photographs first, then as many maps.
    fn step(
        &mut self,
        config: &TokenizerTraining,
        step: u64,
        pictures: Tensor<4>,
        device: &Device,
        perceptual: Option<&Lpips>,
    ) -> BTreeMap<&'static str, f64> {
        let losses = &config.losses;
        let target = Tensor::<4>::from_data(pictures.clone().into_data(), device);
        // What is decoded, the quantizer's loss if it learns, and the tokens.
        let (seen, quantizer, tokens) = match config.learn {
            Learn::All => {
                let features = self.tokenizer.features(target.clone());
                let quantized = self.tokenizer.quantizer.quantize(features, losses.beta);
                (quantized.features, Some(quantized.loss), quantized.tokens)
            }
            Learn::Decoder => {
                let (seen, tokens) = self.tokenize(config, step, pictures);
                (Tensor::from_data(seen.into_data(), device), None, tokens)
            }
        };
        let hidden = self.tokenizer.decode_before_last(seen.clone());
        let picture = self.tokenizer.decode_last(hidden.clone(), seen.clone());
        let reconstruct = |picture: Tensor<4>, of: Judged| {
            reconstruction_loss(losses, perceptual, picture, of.of(target.clone()), of)
        };
        let reconstruction = reconstruct(picture.clone(), Judged::Both);
        let mut numbers = BTreeMap::new();
        let mut loss = reconstruction.clone();
        if let Some(quantizer) = quantizer {
            numbers.insert("quantizer", scalar(&quantizer));
            loss = loss + quantizer.mul_scalar(losses.quantizer);
        }
        let adversarial = losses.adversarial.as_ref().filter(|adversarial| step >= adversarial.start);
        if let (Some(adversarial), Some(adversary)) = (adversarial, &self.adversary) {
            let of = adversarial.pictures;
            // Both gradients at the last convolution, from graphs of their own: a graph is walked once.
            let (hidden, seen) = (of.of(hidden.detach()), of.of(seen.detach()));
            let last = || self.tokenizer.decode_last(hidden.clone(), seen.clone());
            let gradient = |loss: Tensor<1>| {
                let weight = self.tokenizer.last_weight();
                weight.grad(&loss.backward()).expect("the last convolution is part of both losses")
            };
            let judge = |picture: Tensor<4>| adversary.discriminator.judge(picture);
            let real = (adversarial.features > 0.0).then(|| judge(of.of(target.clone())).features);
            // Counts as a photograph's reconstruction does.
            let share = adversarial.features / (1.0 + losses.map_weight);
            let matched = |judged: &Judgement, real: &[Tensor<4>]| {
                feature_matching(&judged.features, real).mul_scalar(share)
            };
            let mut pull = reconstruct(last(), of);
            if let Some(real) = &real {
                pull = pull + matched(&judge(last()), real);
            }
            let weight = adaptive_weight(gradient(pull), gradient(generator_loss(judge(last()).logits)));
            let weight = f64::from(weight) * adversarial.weight;
            let judged = judge(of.of(picture.clone()));
            if let Some(real) = &real {
                let matched = matched(&judged, real);
                numbers.insert("features", scalar(&matched));
                loss = loss + matched;
            }
            let fooled = generator_loss(judged.logits);
            numbers.insert("adversarial", scalar(&fooled));
            numbers.insert("adaptive_weight", weight);
            loss = loss + fooled.mul_scalar(weight);
        }
        numbers.insert("loss", scalar(&loss));
        numbers.insert("reconstruction", scalar(&reconstruction));
        let rate = config.optimiser.rate(step, config.steps);
        numbers.insert("learning_rate", rate);
        if !numbers["loss"].is_finite() {
            return numbers;
        }
        let gradients = gradients_of(loss.backward(), &self.tokenizer);
        let (tokenizer, norm) = self.optimiser.step(self.tokenizer.clone(), gradients, 1, rate);
        self.tokenizer = tokenizer;
        numbers.insert("gradient_norm", norm);
        if let (Some(adversarial), Some(adversary)) = (adversarial, &mut self.adversary) {
            let of = adversarial.pictures;
            let (real, made) = (of.of(target.clone()), of.of(picture.detach()));
            let judge = |picture| adversary.discriminator.forward(picture);
            let loss = discriminator_loss(judge(real), judge(made));
            numbers.insert("discriminator", scalar(&loss));
            let gradients = gradients_of(loss.backward(), &adversary.discriminator);
            let discriminator = adversary.discriminator.clone();
            let own =
                OptimiserConfig { learning_rate: adversarial.learning_rate, ..config.optimiser.clone() };
            let rate = own.rate(step, config.steps);
            let (discriminator, norm) = adversary.optimiser.step(discriminator, gradients, 1, rate);
            adversary.discriminator = discriminator;
            numbers.insert("discriminator_norm", norm);
        }
        self.count_usage(&tokens);
        self.average.update(&self.tokenizer, step);
        if config.learn == Learn::Decoder {
            // An average of equal numbers is not always that number.
            self.average.set(self.tokenizer.valid().with_decoder_of(self.average.module()));
        }
        numbers
    }

    /// What a decoder that learns alone is shown of pictures, and their tokens.
    fn tokenize(
        &self,
        config: &TokenizerTraining,
        step: u64,
        pictures: Tensor<4>,
    ) -> (Tensor<4>, TokenPyramid) {
        let plain = self.tokenizer.valid();
        let features = plain.features(pictures);
        let (tokens, seen) = match config.token_noise {
            0.0 => plain.quantizer.encode(features),
            share => {
                let mut random = ChaCha8Rng::seed_from_u64(derive_seed(config.seed, &[4, step]));
                plain.quantizer.reconstruct_with_mistakes(features, share, &mut random)
            }
        };
        (seen, tokens)
    }

    fn count_usage(&mut self, tokens: &TokenPyramid) {
        self.idle.iter_mut().for_each(|idle| *idle += 1);
        for k in 0..tokens.len() {
            tokens.scale(k).iter().for_each(|&code| self.idle[code as usize] = 0);
        }
    }
}

/// A tokenizer whose codes that were just revived are those of `codebook`.
fn with_codes(tokenizer: &MultiScaleTokenizer, revived: &[usize], codebook: &[f32]) -> MultiScaleTokenizer {
    let mut tokenizer = tokenizer.clone();
    tokenizer.quantizer.codebook = tokenizer.quantizer.codebook.map(|old| {
        let dims = old.dims();
        let device = old.device();
        let mut values = old.try_into_vec_as::<f32>().expect("32-bit floats");
        for code in revived {
            let row = code * dims[1]..(code + 1) * dims[1];
            values[row.clone()].copy_from_slice(&codebook[row]);
        }
        Tensor::from_data(TensorData::new(values, dims), &device)
    });
    tokenizer
}

/// A fresh tokenizer with the weights of another one.
fn adopt(
    fresh: MultiScaleTokenizer,
    config: &TokenizerTraining,
    folder: &Path,
    device: &Device,
) -> Result<MultiScaleTokenizer, TrainError> {
    let wrong = |problem: String| TrainError::Config { key: "from", problem };
    let (theirs, tokenizer) = open_tokenizer(folder, device)?;
    let ours = &config.tokenizer;
    let mut tensors = weights::collect(&tokenizer);
    if (theirs.decoder_shape(), theirs.attention) != (ours.decoder_shape(), ours.attention) {
        // The same name does not mean the same layer in another shape.
        tensors.retain(|name, _| !of_decoder(name));
    }
    let keys = other_keys(&theirs, ours);
    if config.learn == Learn::Decoder && !keys.is_empty() {
        return Err(wrong(format!(
            "the tokenizer in {} has another {}; with learn = \"decoder\" give [tokenizer] its values, only \
             [tokenizer.decoder] may differ",
            folder.display(),
            keys.join(", ")
        )));
    }
    // Anything else that is not there would silently start from noise.
    let missing = |name: &String| !tensors.contains_key(name) && !of_decoder(name);
    if let Some(name) = weights::collect(&fresh).into_keys().find(missing) {
        let folder = folder.display();
        return Err(wrong(format!("{folder} has no {name}; give [tokenizer] the shape of that tokenizer")));
    }
    weights::apply(fresh, tensors, Missing::Keep)
        .map_err(|error| wrong(format!("{}: {error}; give [tokenizer] its shape", folder.display())))
}

/// Whether a weight belongs to the decoder's own convolutions.
fn of_decoder(name: &str) -> bool {
    name.starts_with("decoder.")
}

/// The keys, but for the decoder's, whose values differ.
pub(crate) fn other_keys(a: &TokenizerConfig, b: &TokenizerConfig) -> Vec<String> {
    let table = |config: &TokenizerConfig| {
        let config = TokenizerConfig { decoder: None, ..config.clone() };
        toml::Table::try_from(config).expect("a plain configuration")
    };
    let (a, b) = (table(a), table(b));
    a.into_iter().filter(|(key, value)| b.get(key) != Some(value)).map(|(key, _)| key).collect()
}

/// Pixel losses of photographs (first half of the batch) and maps (second half), and the perceptual loss; or the part
/// of it all that is due to the photographs, when there are no maps.
fn reconstruction_loss(
    losses: &TokenizerLosses,
    perceptual: Option<&Lpips>,
    picture: Tensor<4>,
    target: Tensor<4>,
    of: Judged,
) -> Tensor<1> {
    let kinds = match of {
        Judged::Both => 2,
        Judged::Satellite => 1,
    };
    let size = picture.dims()[0] / kinds;
    let pixels = |kind: usize, weight: f64| {
        let part = |batch: &Tensor<4>| batch.clone().narrow(0, kind * size, size);
        let (a, b) = (part(&picture), part(&target));
        let difference = a.clone() - b.clone();
        let mut loss = difference.clone().abs().mean().mul_scalar(losses.absolute)
            + difference.square().mean().mul_scalar(losses.squared);
        if losses.edges > 0.0 {
            loss = loss + edge_loss(a.clone(), b.clone()).mul_scalar(losses.edges);
        }
        if losses.ssim > 0.0 {
            loss = loss + structural_dissimilarity(a, b).mean().mul_scalar(losses.ssim);
        }
        loss.mul_scalar(weight / (1.0 + losses.map_weight))
    };
    let weights = [1.0, losses.map_weight];
    let loss = (0..kinds).map(|kind| pixels(kind, weights[kind])).reduce(|a, b| a + b).expect("photographs");
    match (perceptual, &losses.perceptual) {
        (Some(lpips), Some(config)) => {
            let share = kinds as f64 / 2.0;
            loss + lpips.forward(picture, target).mean().mul_scalar(config.weight * share)
        }
        _ => loss,
    }
}

fn scalar(tensor: &Tensor<1>) -> f64 {
    f64::from(tensor.clone().into_scalar::<f32>())
}
