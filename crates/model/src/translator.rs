//! One generation loop behind translate, inpaint, outpaint and generate (Eq. 10, 15–23).

use burn::tensor::{Tensor, TensorData};
use earthmapper_geo::picture::Mask;
use earthmapper_geo::{Modality, Place};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::config::Forcing;
use crate::guidance::{self, Complexity, Guidance, KeyPointForce, KeyPoints};
use crate::model::EarthMapper;
use crate::sampler::{Sampler, SamplerConfig, entropy, softmax};
use crate::streams::{Plan, Streams};
use crate::tokenizer::{Encoding, TokenPyramid, codes_tensor};
use crate::views::View;

/// What is known of one picture before generation.
// There are a handful of these per picture; a box would buy nothing.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug)]
pub enum Known {
    /// Nothing: every token is generated.
    Nothing,
    /// Everything: its tokens are forced at every scale (Eq. 15), or its features guide the others (aligned forcing).
    All(Encoding),
    /// All but a hole. Tokens whose area touches the hole are generated; the others are forced to explain, at each
    /// scale, what the generated ones leave unexplained there.
    Part {
        /// Features of the picture, `[1, latent, side, side]`.
        features: Tensor<4>,
        /// The hole, in pixels.
        hole: Mask,
    },
}

/// What is known of a place: where it is and its pictures, in the order of the model's modalities.
#[derive(Clone, Debug)]
pub struct Condition {
    /// Where; `None` is nowhere in particular.
    pub place: Option<Place>,
    /// One entry per modality of the model.
    pub known: Vec<Known>,
}

impl Condition {
    /// For translating an encoded picture toward `target`; every other modality but the source is unknown.
    ///
    /// # Panics
    /// When the model has not two modalities with `target` among them.
    pub fn translation(
        model: &EarthMapper,
        source: Encoding,
        target: Modality,
        place: Option<Place>,
    ) -> Self {
        let modalities = model.transformer.modalities();
        assert!(
            modalities.len() == 2 && modalities.contains(&target),
            "a model of two modalities, {target} among them"
        );
        let mut source = Some(source);
        let known = modalities.iter().map(|&modality| match modality == target {
            true => Known::Nothing,
            false => Known::All(source.take().expect("one source")),
        });
        Self { place, known: known.collect() }
    }
}

/// Which embedding of a generated token goes into the picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decode {
    /// The drawn code's.
    #[default]
    Sampled,
    /// The drawn code's, but at the finest scale the mean over the distribution.
    ExpectedLast,
    /// The mean over the distribution at every scale: smooth, and usually closer in pixels.
    Expected,
}

/// How pictures are generated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GenerationOptions {
    /// Classifier-free guidance.
    pub guidance: Guidance,
    /// Key point force.
    pub key_points: KeyPointForce,
    /// Temperature, top-k and top-p.
    pub sampler: SamplerConfig,
    /// Which embeddings are decoded.
    pub decode: Decode,
    /// In how many views a translation toward the map is made, 1, 4, 8 or 16; see [`views`](crate::views). They cost as
    /// many times the work. Toward the satellite it is 1: many photographs fit one map, and what several inventions agree
    /// on is no photograph. Looked at by translations of pictures, scenes and tiles and by evaluations only; [`Translator::run`],
    /// in-painting, out-painting and the generation of pairs are always one view.
    #[serde(skip_serializing_if = "is_one")]
    pub views: usize,
}

/// Labels, keys and files that were written before there were views stay what they are.
// Serde passes a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_one(views: &usize) -> bool {
    *views == 1
}

impl GenerationOptions {
    /// The views that a translation toward `to` is made in.
    ///
    /// # Errors
    /// When there is no such number of views, or several toward the satellite.
    pub fn views_toward(&self, to: Modality) -> Result<&'static [View], GenerationError> {
        match View::some(self.views) {
            Some(views) if views.len() == 1 || to == Modality::Map => Ok(views),
            Some(_) => Err(GenerationError::OneView { views: self.views, to }),
            None => Err(GenerationError::Views(self.views)),
        }
    }

    /// The same in one view, as is all that is not a translation.
    pub fn in_one_view(self) -> Self {
        Self { views: 1, ..self }
    }
}

impl Default for GenerationOptions {
    fn default() -> Self {
        Self {
            guidance: Guidance::Off,
            key_points: KeyPointForce::Off,
            sampler: SamplerConfig::default(),
            decode: Decode::Sampled,
            views: 1,
        }
    }
}

/// What a generation gives for one modality.
#[derive(Clone, Debug)]
pub struct Generated {
    /// Which modality.
    pub modality: Modality,
    /// Its tokens.
    pub tokens: TokenPyramid,
    /// The reconstruction to decode, `[batch, latent, side, side]`.
    pub reconstruction: Tensor<4>,
    /// Entropy of the distribution that each finest token was drawn from (guided, before top-k and top-p), over ln V,
    /// in [0, 1]; `[batch, tokens]`.
    pub uncertainty: Vec<Vec<f32>>,
}

/// What a generation gives: one entry per modality that was not fully known.
pub type Generation = Vec<Generated>;

/// What can be wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GenerationError {
    /// The numbers of conditions and seeds differ, or there are none.
    #[error("needs as many seeds as conditions and at least one, not {conditions} and {seeds}")]
    Count {
        /// Conditions given.
        conditions: usize,
        /// Seeds given.
        seeds: usize,
    },
    /// A modality is wholly known for some pictures of a batch only.
    #[error("{0} is wholly known for some pictures of the batch and not for others; make two batches")]
    Mixed(Modality),
    /// The model has other modalities.
    #[error("the model has {expected} modalities and a condition has {found}")]
    Modalities {
        /// Of the model.
        expected: usize,
        /// In the condition.
        found: usize,
    },
    /// The option `views` is another number.
    #[error("views: is {0}; make it 1, 4, 8 or 16")]
    Views(usize),
    /// The option `views` is above 1 toward the satellite.
    #[error("views: is {views}; toward the {to} there is one view, make it 1")]
    OneView {
        /// What it is.
        views: usize,
        /// What is to be made.
        to: Modality,
    },
    /// Every picture is known: there is nothing to generate.
    #[error("every picture is known; there is nothing to generate")]
    NothingToDo,
    /// Tokens or masks are not those of this model's tokenizer.
    #[error("the known {modality} picture has {what}, which is not this model's shape")]
    Shape {
        /// Of which picture.
        modality: Modality,
        /// What differs.
        what: String,
    },
}

/// Runs a model.
#[derive(Clone, Copy, Debug)]
pub struct Translator<'a> {
    model: &'a EarthMapper,
}

/// One modality of a running generation.
struct Track<'a> {
    modality: usize,
    known: Vec<&'a Known>,
    /// Whether every picture of the batch is wholly known.
    source: bool,
    reconstruction: Tensor<4>,
    codes: Vec<Vec<u32>>,
    uncertainty: Vec<Vec<f32>>,
}

impl<'a> Translator<'a> {
    /// Runs `model`, on the device that its weights are on.
    pub fn new(model: &'a EarthMapper) -> Self {
        Self { model }
    }

    /// The model.
    pub fn model(&self) -> &'a EarthMapper {
        self.model
    }

    /// Generates what is not known of a batch of places.
    ///
    /// Picture i depends on condition i, `seeds[i]` and the options only, not on its neighbours in the batch.
    /// `progress` is told the number of scales done after each.
    ///
    /// # Errors
    /// When the batch is not of one kind or a known picture does not have this model's shape.
    pub fn run(
        &self,
        conditions: &[Condition],
        seeds: &[u64],
        options: &GenerationOptions,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Generation, GenerationError> {
        let mut tracks = self.tracks(conditions, seeds)?;
        let quantizer = &self.model.tokenizer.quantizer;
        let device = self.model.device();
        let targets: Vec<usize> = (0..tracks.len()).filter(|&m| !tracks[m].source).collect();
        let aligned = self.model.config.transformer.forcing == Forcing::Aligned;
        let places: Vec<Option<Place>> = conditions.iter().map(|condition| condition.place).collect();
        // Where nothing is known, both streams are one and guidance changes nothing.
        let known = tracks.iter().any(|track| track.source) || places.iter().any(Option::is_some);
        let plan = Plan {
            visible: if aligned { targets.clone() } else { (0..tracks.len()).collect() },
            targets,
            guides: if aligned { known_features(&tracks) } else { Vec::new() },
            places,
            guided: known && options.guidance.needs_unconditional(),
        };
        let mut streams = Streams::new(self.model, plan);
        let mut samplers: Vec<Sampler> = seeds.iter().map(|seed| Sampler::new(*seed)).collect();

        for k in 0..quantizer.scales().len() {
            streams.step(match k {
                0 => Vec::new(),
                _ => {
                    let input = |&m: &usize| quantizer.next_input(k, tracks[m].reconstruction.clone());
                    streams.visible().iter().map(input).collect()
                }
            });
            // Forced first: the key points of a scale need the condition's tokens of the same scale.
            for track in tracks.iter_mut().filter(|track| track.source) {
                let codes = forced(track, k);
                if !aligned {
                    let vectors = quantizer.look_up(codes_tensor(&codes, quantizer.depth(), &device));
                    track.reconstruction = quantizer.accumulate(k, track.reconstruction.clone(), vectors);
                }
                track.codes.push(codes);
            }
            for &m in streams.targets() {
                self.generate_scale(k, m, &streams, &mut tracks, &mut samplers, options);
            }
            progress(k + 1);
        }
        let batch = conditions.len();
        let finish = |track: Track| Generated {
            modality: self.model.transformer.modalities()[track.modality],
            tokens: TokenPyramid::new(track.codes, batch, quantizer.depth()),
            reconstruction: track.reconstruction,
            uncertainty: track.uncertainty,
        };
        Ok(tracks.into_iter().filter(|track| !track.source).map(finish).collect())
    }

    /// Checks a batch and sets up its tracks.
    fn tracks<'c>(
        &self,
        conditions: &'c [Condition],
        seeds: &[u64],
    ) -> Result<Vec<Track<'c>>, GenerationError> {
        if conditions.is_empty() || conditions.len() != seeds.len() {
            return Err(GenerationError::Count { conditions: conditions.len(), seeds: seeds.len() });
        }
        let modalities = self.model.transformer.modalities();
        let quantizer = &self.model.tokenizer.quantizer;
        let (width, side) = (quantizer.codebook.dims()[1], quantizer.scales().finest());
        let mut tracks = Vec::with_capacity(modalities.len());
        for (m, &modality) in modalities.iter().enumerate() {
            let mut known = Vec::with_capacity(conditions.len());
            for condition in conditions {
                if condition.known.len() != modalities.len() {
                    let (expected, found) = (modalities.len(), condition.known.len());
                    return Err(GenerationError::Modalities { expected, found });
                }
                self.check_known(modality, &condition.known[m])?;
                known.push(&condition.known[m]);
            }
            let whole = known.iter().filter(|known| matches!(known, Known::All(_))).count();
            if whole != 0 && whole != known.len() {
                return Err(GenerationError::Mixed(modality));
            }
            tracks.push(Track {
                modality: m,
                known,
                source: whole > 0,
                reconstruction: Tensor::zeros([conditions.len(), width, side, side], &self.model.device()),
                codes: Vec::new(),
                uncertainty: Vec::new(),
            });
        }
        if tracks.iter().all(|track| track.source) {
            return Err(GenerationError::NothingToDo);
        }
        Ok(tracks)
    }

    fn check_known(&self, modality: Modality, known: &Known) -> Result<(), GenerationError> {
        let quantizer = &self.model.tokenizer.quantizer;
        let scales = quantizer.scales();
        let wrong = |what: String| Err(GenerationError::Shape { modality, what });
        let check_features = |features: &Tensor<4>| {
            let expected = [1, quantizer.codebook.dims()[1], scales.finest(), scales.finest()];
            match features.dims() == expected {
                true => Ok(()),
                false => wrong(format!("features {:?}", features.dims())),
            }
        };
        match known {
            Known::Nothing => Ok(()),
            Known::All(Encoding { tokens, features }) => {
                let fits = tokens.batch() == 1
                    && tokens.depth() == quantizer.depth()
                    && tokens.len() == scales.len()
                    && (0..scales.len()).all(|k| {
                        let codes = tokens.scale(k);
                        codes.len() == scales.tokens(k) * quantizer.depth()
                            && codes.iter().all(|&code| (code as usize) < quantizer.vocabulary())
                    });
                if !fits {
                    return wrong("other token maps".into());
                }
                check_features(features)
            }
            Known::Part { features, hole } => {
                let side = self.model.tokenizer_config.picture_side as u32;
                if (hole.width(), hole.height()) != (side, side) {
                    return wrong(format!("a mask of {} × {} px", hole.width(), hole.height()));
                }
                check_features(features)
            }
        }
    }

    /// Draws (or forces) the tokens of one target at scale `k` and adds them to its reconstruction.
    fn generate_scale(
        &self,
        k: usize,
        target: usize,
        streams: &Streams,
        tracks: &mut [Track],
        samplers: &mut [Sampler],
        options: &GenerationOptions,
    ) {
        let quantizer = &self.model.tokenizer.quantizer;
        let device = self.model.device();
        let (batch, count) = (samplers.len(), quantizer.scales().tokens(k));
        let (depth, vocabulary) = (quantizer.depth(), quantizer.vocabulary());
        let latent = quantizer.codebook.dims()[1];
        let force = self.force(k, tracks, options, batch);
        let known = self.known_codes(k, &tracks[target]);
        let grey = self.grey_entropy(&tracks[target], options);

        let mut codes = vec![0u32; batch * count * depth];
        let mut chosen: Tensor<2> = Tensor::zeros([batch * count, latent], &device);
        let mut expected: Tensor<2> = chosen.clone();
        let mut uncertainty = vec![0.0f32; batch * count];
        for level in 0..depth {
            let (mut logits, free) = streams.logits(target, &chosen, level);
            if let Some(free) = &free {
                let resolution = quantizer.scales().resolution(k);
                let size = count * vocabulary;
                for (i, (logits, free)) in logits.chunks_mut(size).zip(free.chunks(size)).enumerate() {
                    let grey = grey.as_ref().map(|grey| grey[i]);
                    let strength = options.guidance.strength(resolution, logits, free, vocabulary, grey);
                    guidance::guide(logits, free, strength);
                }
            }
            let probabilities: Vec<Vec<f32>> = logits
                .par_chunks_mut(vocabulary)
                .zip(uncertainty.par_iter_mut())
                .enumerate()
                .map(|(row, (logits, uncertainty))| {
                    *uncertainty +=
                        earthmapper_kernels::entropy(logits) / (vocabulary as f32).ln() / depth as f32;
                    force.bias(row, logits);
                    options.sampler.probabilities(logits)
                })
                .collect();
            for (i, sampler) in samplers.iter_mut().enumerate() {
                for row in i * count..(i + 1) * count {
                    let drawn = force.index(row, sampler.draw(&probabilities[row]), vocabulary);
                    codes[row * depth + level] = known[row].as_ref().map_or(drawn, |known| known[level]);
                }
            }
            let level_codes: Vec<u32> = codes.iter().skip(level).step_by(depth).copied().collect();
            let vectors = quantizer.look_up(codes_tensor(&level_codes, 1, &device));
            chosen = chosen + vectors.clone();
            expected = expected
                + match self.mean_embedding(k, options.decode, probabilities, &known) {
                    Some(mean) => mean,
                    None => vectors,
                };
        }
        // With a mean embedding, forced tokens still go in as they are.
        let vectors = match options.decode {
            Decode::Sampled => chosen,
            _ => choose(&known, chosen, expected),
        };
        let track = &mut tracks[target];
        track.reconstruction = quantizer.accumulate(k, track.reconstruction.clone(), vectors);
        track.codes.push(codes);
        track.uncertainty = uncertainty.chunks(count).map(<[f32]>::to_vec).collect();
    }

    /// Mean embedding over the distribution, `[rows, latent]`, where the decode mode wants it at scale `k`.
    fn mean_embedding(
        &self,
        k: usize,
        decode: Decode,
        probabilities: Vec<Vec<f32>>,
        known: &[Option<Vec<u32>>],
    ) -> Option<Tensor<2>> {
        let wanted = match decode {
            Decode::Sampled => false,
            Decode::ExpectedLast => k + 1 == self.model.transformer.scales().len(),
            Decode::Expected => true,
        };
        (wanted && known.iter().any(Option::is_none)).then(|| {
            let shape = [probabilities.len(), probabilities[0].len()];
            let data = TensorData::new(probabilities.concat(), shape);
            let codebook = self.model.tokenizer.quantizer.codebook.val();
            Tensor::<2>::from_data(data, &self.model.device()).matmul(codebook)
        })
    }

    /// Codes that are forced at scale `k` of a target that is known in part: per row `None` where it is generated.
    fn known_codes(&self, k: usize, track: &Track) -> Vec<Option<Vec<u32>>> {
        let quantizer = &self.model.tokenizer.quantizer;
        let count = quantizer.scales().tokens(k);
        let mut all = Vec::with_capacity(track.known.len() * count);
        for (i, known) in track.known.iter().enumerate() {
            let Known::Part { features, hole } = known else {
                all.extend(std::iter::repeat_n(None, count));
                continue;
            };
            let reconstruction = track.reconstruction.clone().narrow(0, i, 1);
            let codes = quantizer.nearest(quantizer.residual_at(k, features.clone(), reconstruction));
            let codes: Vec<u32> = codes.into_data_as::<i64>().iter::<i64>().map(|code| code as u32).collect();
            let open = open_cells(hole, quantizer.scales().side(k));
            let forced = codes.chunks(quantizer.depth()).zip(open);
            all.extend(forced.map(|(codes, open)| (!open).then(|| codes.to_vec())));
        }
        all
    }

    /// The key point force of scale `k`, from the first wholly known picture of each condition.
    fn force(&self, k: usize, tracks: &[Track], options: &GenerationOptions, batch: usize) -> Force {
        let quantizer = &self.model.tokenizer.quantizer;
        let Some(source) = tracks.iter().find(|track| track.source) else { return Force::None };
        let codes = &source.codes[k];
        let (depth, side) = (quantizer.depth(), quantizer.scales().side(k));
        let latent = quantizer.codebook.dims()[1];
        let count = side * side;
        let by_contrast = |tau: f32| -> Vec<KeyPoints> {
            let vectors = quantizer.look_up(codes_tensor(codes, depth, &self.model.device()));
            let vectors: Vec<f32> = vectors.try_into_vec_as::<f32>().expect("converted to 32-bit floats");
            vectors.chunks(count * latent).map(|v| KeyPoints::by_contrast(v, side, latent, tau)).collect()
        };
        match options.key_points {
            KeyPointForce::Off => Force::None,
            KeyPointForce::IndexAdd { tau } => {
                let vocabulary = quantizer.vocabulary();
                let points = (0..batch)
                    .map(|i| &codes[i * count * depth..(i + 1) * count * depth])
                    .map(|codes| KeyPoints::by_index(codes, depth, vocabulary, tau))
                    .collect();
                let condition = codes.iter().step_by(depth).copied().collect();
                Force::IndexAdd { points, count, condition }
            }
            KeyPointForce::Attract { tau, strength } => {
                let codebook = quantizer.codebook.val().try_into_vec_as::<f32>().expect("floats");
                Force::Attract { points: by_contrast(tau), count, strength, codebook, latent }
            }
            KeyPointForce::Sharpen { tau, temperature } => {
                Force::Sharpen { points: by_contrast(tau), count, temperature }
            }
        }
    }

    /// Grey-level entropy ÷ 8 bits of each picture decoded so far, when complexity guidance asks for it.
    fn grey_entropy(&self, track: &Track, options: &GenerationOptions) -> Option<Vec<f32>> {
        match &options.guidance {
            Guidance::Complexity(guidance) if guidance.complexity == Complexity::GreyLevels => {}
            _ => return None,
        }
        let pictures = self.model.decode_features(track.reconstruction.clone());
        let bits = |picture: earthmapper_geo::picture::Picture| {
            let mut histogram = [0u32; 256];
            for rgb in picture.rgb().as_chunks::<3>().0 {
                let grey =
                    (299 * u32::from(rgb[0]) + 587 * u32::from(rgb[1]) + 114 * u32::from(rgb[2])) / 1000;
                histogram[grey as usize] += 1;
            }
            let total = histogram.iter().sum::<u32>() as f32;
            let shares: Vec<f32> = histogram.iter().map(|&n| n as f32 / total).collect();
            entropy(&shares) / 256f32.ln()
        };
        Some(crate::pictures::from_tensor(pictures).into_iter().map(bits).collect())
    }
}

/// The key point force of one scale, ready to apply row by row.
enum Force {
    None,
    IndexAdd { points: Vec<KeyPoints>, count: usize, condition: Vec<u32> },
    Attract { points: Vec<KeyPoints>, count: usize, strength: f32, codebook: Vec<f32>, latent: usize },
    Sharpen { points: Vec<KeyPoints>, count: usize, temperature: f32 },
}

impl Force {
    /// Changes the logits of a row before filtering.
    fn bias(&self, row: usize, logits: &mut [f32]) {
        match self {
            Self::Attract { points, count, strength, codebook, latent } if holds(points, *count, row) => {
                let probabilities = softmax(logits);
                guidance::attract(logits, &probabilities, codebook, *latent, *strength);
            }
            Self::Sharpen { points, count, temperature } if holds(points, *count, row) => {
                logits.iter_mut().for_each(|logit| *logit /= temperature);
            }
            _ => {}
        }
    }

    /// Changes the drawn index of a row.
    fn index(&self, row: usize, drawn: u32, vocabulary: usize) -> u32 {
        match self {
            Self::IndexAdd { points, count, condition } if holds(points, *count, row) => {
                guidance::index_add(drawn, condition[row], vocabulary)
            }
            _ => drawn,
        }
    }
}

fn holds(points: &[KeyPoints], count: usize, row: usize) -> bool {
    points[row / count].contains(row % count)
}

/// The wholly known modalities of a batch and their features.
fn known_features(tracks: &[Track]) -> Vec<(usize, Tensor<4>)> {
    let sources = tracks.iter().filter(|track| track.source);
    let features = sources.map(|track| {
        let features = track.known.iter().map(|known| match known {
            Known::All(known) => known.features.clone(),
            _ => unreachable!("a source is wholly known"),
        });
        (track.modality, Tensor::cat(features.collect(), 0))
    });
    features.collect()
}

/// The codes of scale `k` of a wholly known batch.
fn forced(track: &Track, k: usize) -> Vec<u32> {
    let codes = track.known.iter().flat_map(|known| match known {
        Known::All(known) => known.tokens.scale(k).iter().copied(),
        _ => unreachable!("a source is wholly known"),
    });
    codes.collect()
}

/// Rows of `sampled` where a code is forced, else of `expected`.
fn choose(known: &[Option<Vec<u32>>], sampled: Tensor<2>, expected: Tensor<2>) -> Tensor<2> {
    if known.iter().all(Option::is_none) {
        return expected;
    }
    let forced: Vec<f32> = known.iter().map(|known| f32::from(u8::from(known.is_some()))).collect();
    let forced = Tensor::<2>::from_data(TensorData::new(forced, [known.len(), 1]), &sampled.device());
    sampled * forced.clone() + expected * (forced.neg().add_scalar(1.0))
}

/// Which cells of a `side` × `side` grid touch the hole, row by row.
fn open_cells(hole: &Mask, side: usize) -> Vec<bool> {
    let (width, height) = (hole.width() as usize, hole.height() as usize);
    let span = |i: usize, size: usize| i * size / side..((i + 1) * size).div_ceil(side);
    (0..side * side)
        .map(|cell| {
            let (y, x) = (cell / side, cell % side);
            span(y, height).any(|py| span(x, width).any(|px| hole.is_hole(px as u32, py as u32)))
        })
        .collect()
}
