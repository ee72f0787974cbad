//! What a step teaches: how pairs are seen, the loss, and what validation measures.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::{DType, Device, FloatDType, Int, Tensor, TensorData};
use earthmapper::config::Forcing;
use earthmapper::sampler::derive_seed;
use earthmapper::tokenizer::{MultiScaleTokenizer, TokenPyramid};
use earthmapper::transformer::{DropPath, Moments};
use earthmapper::{EarthMapper, JointTransformer, Modality, Place, TokenizerConfig};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Learner, Precision, TransformerTraining, assemble};
use crate::losses::cross_entropy;
use crate::nets::dinov2::DinoV2;
use crate::optimiser::gradients_of;
use crate::semantic_infusion::{semantic_loss, targets};
use crate::token_cache::{Cut, PairTokens};

/// The frozen parts and settings of a step.
pub(super) struct Teacher<'a> {
    pub(super) config: &'a TransformerTraining,
    pub(super) tokenizer: &'a MultiScaleTokenizer,
    pub(super) tokenizer_config: &'a TokenizerConfig,
    pub(super) dinov2: Option<DinoV2>,
    pub(super) device: Device,
}

impl Teacher<'_> {
    /// What is on and off, for the log.
    pub(super) fn says(&self) -> String {
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
    pub(super) fn cut(&self, variant: u64) -> Cut {
        Cut::Augmented { config: self.config.augment, seed: self.config.seed, variant }
    }

    /// Moments of the transformer's inputs over both modalities, and of the features of each.
    pub(super) fn input_moments(&self, pairs: &[PairTokens]) -> (Moments, [Moments; 2]) {
        let pairs: Vec<&PairTokens> = pairs.iter().take(32).collect();
        let device = self.device.clone().without_autodiff();
        let latent = self.tokenizer_config.latent_width;
        let rows = |x: Tensor<3>| {
            let [batch, tokens, _] = x.dims();
            x.reshape([batch * tokens, latent])
        };
        let tokens = [0, 1].map(|modality| PairTokens::tokens(&pairs, modality));
        let inputs = tokens.iter().flat_map(|tokens| self.tokenizer.quantizer.teacher_inputs(tokens));
        let words = moments(Tensor::cat(inputs.map(rows).collect(), 0));
        let features = [0, 1].map(|m| PairTokens::features(&pairs, m, self.tokenizer_config, &device));
        (words, features.map(|features| moments(rows(features.flatten::<3>(2, 3).swap_dims(1, 2)))))
    }

    /// The gradients of a batch, its micro-batches added up, and its numbers. None of the gradients count when the loss is
    /// not finite.
    ///
    /// Micro-batches run `workers` at a time, each with its own copy of the weights' graph; their sum does not depend on
    /// which ends first.
    pub(super) fn gradients(
        &self,
        learner: &Learner,
        view: &View,
        batch: &[&PairTokens],
        step: u64,
    ) -> (GradientsParams, BTreeMap<String, f64>) {
        let parts: Vec<(u64, &[&PairTokens])> = (0..).zip(batch.chunks(self.config.batch_size)).collect();
        let gradients_of_part = |learner: Learner, index: u64, part: &[&PairTokens]| {
            let seed = |purpose| derive_seed(self.config.seed, &[purpose, step, index]);
            let mut random = ChaCha8Rng::seed_from_u64(seed(3));
            let mut drop_path = DropPath::new(seed(2));
            let mut numbers = BTreeMap::new();
            let share = part.len() as f64 / batch.len() as f64;
            let loss = self.loss(&learner, view, part, &mut random, &mut drop_path, share, &mut numbers);
            // The last part of a small folder may be smaller than the others, and then counts for less.
            let loss = match part.len() * parts.len() == batch.len() {
                true => loss,
                false => loss.mul_scalar(share * parts.len() as f64),
            };
            let finite = numbers["loss"].is_finite();
            (finite.then(|| gradients_of(loss.backward(), &learner)), numbers)
        };
        let mut total = GradientsAccumulator::new();
        let mut numbers = BTreeMap::new();
        for parts in parts.chunks(self.config.workers) {
            let done: Vec<_> = std::thread::scope(|scope| {
                let mut threads = Vec::new();
                for &(index, part) in parts {
                    let learner = learner.clone().fork(&self.device);
                    threads.push(scope.spawn(move || gradients_of_part(learner, index, part)));
                }
                threads.into_iter().map(|thread| thread.join().expect("a step does not panic")).collect()
            });
            for (gradients, part) in done {
                if let Some(gradients) = gradients {
                    total.accumulate(learner, gradients);
                }
                part.into_iter().for_each(|(name, value)| *numbers.entry(name).or_insert(0.0) += value);
            }
        }
        (total.grads(), numbers)
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
        let mut hidden = |_: &&PairTokens| random.random::<f64>() < self.config.hide_place;
        let places: Vec<Option<Place>> =
            pairs.iter().map(|pair| if hidden(pair) { None } else { place_of(self.config, pair) }).collect();
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
            // Of the pictures as they are, whatever mistakes the tokens were taught from.
            let of = |&modality: &usize| {
                targets(dinov2, self.tokenizer, &PairTokens::tokens(pairs, modality), infusion.targets)
            };
            let targets: Vec<Vec<Tensor<3>>> = view.visible.iter().map(of).collect();
            let loss = semantic_loss(alignment, seen.hidden.clone(), &targets).mul_scalar(infusion.sigma);
            add(numbers, "semantic", &loss, batch_share);
            total = total + loss;
        }
        add(numbers, "loss", &total, batch_share);
        total
    }

    /// How the pairs of a step are seen. They are seen alike, because a few large products are faster than many small
    /// ones.
    pub(super) fn view(&self, random: &mut ChaCha8Rng) -> View {
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
        let features = |modality| PairTokens::features(pairs, modality, self.tokenizer_config, &host);
        let (drop_path, mut random) = learning.unzip();
        let share = self.config.token_noise;
        // What is to be predicted, and what it is predicted from.
        let taught = |&modality: &usize| match &mut random {
            Some(random) if share > 0.0 => {
                quantizer.encode_with_mistakes(features(modality), share, &mut **random)
            }
            _ => {
                let tokens = PairTokens::tokens(pairs, modality);
                let inputs = quantizer.teacher_inputs(&tokens);
                (tokens, inputs)
            }
        };
        let (tokens, inputs): (Vec<TokenPyramid>, Vec<Vec<Tensor<3>>>) = visible.iter().map(taught).unzip();
        let condition = transformer.geo_embedding.forward(places);
        let (device, dtype) = (condition.device(), condition.dtype());
        let inputs: Vec<Vec<Tensor<3>>> = inputs
            .into_iter()
            .map(|inputs| inputs.into_iter().map(|input| on(&device, input).cast(float(dtype))).collect())
            .collect();
        let guides: Vec<(usize, Tensor<4>)> = view
            .guide
            .iter()
            .map(|&modality| {
                let features = match &mut random {
                    Some(random) => blot(features(modality), self.config.blotted, &mut **random),
                    None => features(modality),
                };
                (modality, on(&device, features).cast(float(dtype)))
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
                on(&device, sum).cast(float(dtype))
            });
            let logits = transformer.logits(rows.clone(), chosen, level).cast(FloatDType::F32);
            let target =
                Tensor::<1, Int>::from_data(TensorData::new(column(level), [batch * length]), &device);
            loss = loss + cross_entropy(logits, target, self.config.label_smoothing).div_scalar(depth as f64);
        }
        Seen {
            visible: visible.to_vec(),
            hidden: hidden.cast(FloatDType::F32),
            loss: loss.reshape([batch, length]),
            counts: (0..scales.len()).map(|k| scales.tokens(k)).collect(),
        }
    }

    /// Cross-entropy on pairs that were not learned from: in all, per modality, per scale, and of each half alone.
    pub(super) fn validate(
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
            let places: Vec<Option<Place>> = batch.iter().map(|pair| place_of(self.config, pair)).collect();
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
    pub(super) fn model(
        &self,
        transformer: &JointTransformer,
        tokenizer_config: &TokenizerConfig,
    ) -> EarthMapper {
        assemble(self.config, tokenizer_config.clone(), self.tokenizer.clone(), transformer.clone())
    }
}

/// The place that a pair is seen with: that of its data set when the model is to know places, else the one for all pairs.
pub(super) fn place_of(config: &TransformerTraining, pair: &PairTokens) -> Option<Place> {
    pair.place.filter(|_| config.trained_on.places_known).or(config.place)
}

/// Mean and standard deviation of each column of `[rows, latent]`.
fn moments(rows: Tensor<2>) -> Moments {
    let (variance, mean) = rows.var_mean_bias(0);
    let host = |row: Tensor<2>| row.try_into_vec_as::<f32>().expect("32-bit floats");
    Moments { means: host(mean), deviations: host(variance.sqrt()) }
}

/// How a pair is seen: which of its pictures stand in the sequence, and which one is known beside it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct View {
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

/// Features `[batch, latent, side, side]` with a share of the positions replaced by the batch's mean feature.
fn blot(features: Tensor<4>, share: f64, random: &mut ChaCha8Rng) -> Tensor<4> {
    if share <= 0.0 {
        return features;
    }
    let [batch, _, height, width] = features.dims();
    let kept = (0..batch * height * width).map(|_| if random.random::<f64>() < share { 0.0f32 } else { 1.0 });
    let kept = TensorData::new(kept.collect(), [batch, 1, height, width]);
    let kept = Tensor::<4>::from_data(kept, &features.device());
    let mean = features.clone().mean_dims(&[0, 2, 3]);
    (features - mean.clone()) * kept + mean
}

/// A tensor made outside the graph as one of the device that the transformer is on. Nothing is copied: the two differ only
/// in whether gradients are followed.
fn on<const D: usize>(device: &Device, x: Tensor<D>) -> Tensor<D> {
    if device.is_autodiff() { x.autodiff() } else { x }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blotted_positions_get_the_mean_and_the_others_stay() {
        let features = Tensor::<4>::from_data(
            TensorData::new((0..2 * 3 * 64).map(|v| v as f32).collect(), [2, 3, 8, 8]),
            &Device::flex(),
        );
        let random = || ChaCha8Rng::seed_from_u64(7);
        let values = |x: Tensor<4>| x.try_into_vec_as::<f32>().unwrap();
        let (before, after) =
            (values(features.clone()), values(blot(features.clone(), 0.25, &mut random())));
        let mean = |channel: usize| (channel * 64) as f32 + 31.5 + 96.0;
        let blotted = |i: usize| (after[i] - before[i]).abs() > 1e-3;
        for i in (0..before.len()).filter(|i| blotted(*i)) {
            assert!((after[i] - mean(i / 64 % 3)).abs() < 1e-3);
            // A position is blotted in all of its channels.
            let first = i / 192 * 192 + i % 64;
            assert!((0..3).all(|channel| blotted(first + 64 * channel)), "position {i}");
        }
        let count = (0..before.len()).filter(|i| blotted(*i)).count();
        assert!((60..140).contains(&count), "{count} of 384 values for a share of a quarter");
        assert_eq!(values(blot(features, 0.0, &mut random())), before);
    }
}
