//! What one point of a sweep is, with nothing left open.

use std::path::PathBuf;

use earthmapper::guidance::{Guidance, KeyPointForce};
use earthmapper::model::GenerationDefaults;
use earthmapper::translator::GenerationOptions;
use earthmapper::{Modality, Place, Precision};
use earthmapper_geo::pairs::{PairSelection, PairSource};
use serde::{Deserialize, Serialize};

use crate::data::Places;
use crate::evaluate::Directions;
use crate::train::TransformerTraining;
use crate::train_tokenizer::TokenizerTraining;

/// Which translations are measured.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Toward {
    /// Satellite → map.
    Map,
    /// Map → satellite, with the way back.
    Satellite,
    /// Both.
    Both,
}

impl Toward {
    /// The same for an evaluation.
    pub fn directions(self) -> Directions {
        match self {
            Self::Map => Directions::ToMap,
            Self::Satellite => Directions::ToSatellite,
            Self::Both => Directions::Both,
        }
    }
}

/// How a point is measured: `[evaluate]` of a sweep.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluateSettings {
    /// The model's folder; none when the sweep trains what it measures.
    #[serde(default)]
    pub model: Option<PathBuf>,
    /// Numbers of the transformer's layers on the CPU.
    #[serde(default = "full_precision", with = "precision")]
    pub precision: Precision,
    /// Where the pairs lie.
    pub data: PairSource,
    /// Which of them are measured on.
    #[serde(default)]
    pub pairs: PairSelection,
    /// The pairs that were learned from, for the nearest of them as a baseline. It changes no number of the point.
    #[serde(default)]
    pub training: Option<TrainingPairs>,
    /// Which translations.
    #[serde(default = "both")]
    pub to: Toward,
    /// Options of generation; what is not given is the model's own.
    #[serde(default)]
    pub generation: GenerationDefaults,
    /// Seed of the samples.
    #[serde(default)]
    pub seed: u64,
    /// Pictures at once; it changes no number.
    #[serde(default = "eight")]
    pub batch_size: usize,
    /// Pairs of which three more samples are drawn for the diversity.
    #[serde(default = "eight")]
    pub diversity_pictures: usize,
    /// One place for all pairs.
    #[serde(default)]
    pub place: Option<Place>,
    /// What a model that was trained with places is told of the pairs'.
    #[serde(default)]
    pub places: Places,
    /// Classes of the maps as JSON; those of the New York maps when not given.
    #[serde(default)]
    pub palette: Option<PathBuf>,
    /// Weights of Inception-v3, for FID, KID, precision and recall.
    #[serde(default)]
    pub inception: Option<PathBuf>,
    /// Weights for LPIPS, `FILE` or `FILE,HEADS`.
    #[serde(default)]
    pub lpips: Vec<String>,
}

/// Pairs that were learned from: `[evaluate.training]`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingPairs {
    /// Where they lie; with the pairs that are measured when not given.
    #[serde(default)]
    pub data: Option<PairSource>,
    /// Which of them.
    #[serde(default)]
    pub pairs: PairSelection,
}

impl EvaluateSettings {
    /// Where the pairs that were learned from lie, and which they are.
    pub fn training(&self) -> Option<(&PairSource, &PairSelection)> {
        self.training.as_ref().map(|found| (found.data.as_ref().unwrap_or(&self.data), &found.pairs))
    }
}

fn full_precision() -> Precision {
    Precision::F32
}

fn both() -> Toward {
    Toward::Both
}

fn eight() -> usize {
    8
}

mod precision {
    use earthmapper::Precision;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(precision: &Precision, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&precision.to_string())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Precision, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// One point of a sweep, resolved.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// How it is measured.
    pub evaluate: EvaluateSettings,
    /// The tokenizer to train first.
    pub tokenizer: Option<TokenizerTraining>,
    /// The transformer to train, on that tokenizer if there is one.
    pub transformer: Option<TransformerTraining>,
}

/// What of a point is measured.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Measures {
    /// Translations.
    Model,
    /// Reconstructions, when nothing but a tokenizer is trained.
    Tokenizer,
}

impl Settings {
    /// What is measured.
    pub fn measures(&self) -> Measures {
        match (&self.tokenizer, &self.transformer) {
            (Some(_), None) => Measures::Tokenizer,
            _ => Measures::Model,
        }
    }

    /// Whether something has to be trained before anything can be measured.
    pub(super) fn trains(&self) -> bool {
        self.tokenizer.is_some() || self.transformer.is_some()
    }

    /// Which kinds of pictures are measured: of a tokenizer, both.
    pub(super) fn directions(&self) -> Directions {
        match self.measures() {
            Measures::Tokenizer => Directions::Both,
            Measures::Model => self.evaluate.to.directions(),
        }
    }

    /// Checks what the types cannot.
    ///
    /// # Errors
    /// The key and what is wrong with it.
    pub(super) fn check(&self) -> Result<(), (String, String)> {
        for target in [Modality::Map, Modality::Satellite] {
            if self.evaluate.to.directions().include(target) {
                check_generation(self.evaluate.generation.towards(target), target)
                    .map_err(|(key, problem)| (format!("evaluate.generation.to_{target}.{key}"), problem))?;
            }
        }
        match (self.trains(), &self.evaluate.model) {
            (true, Some(_)) => {
                let problem = "does not go with [train], which says what is measured; leave out one of them";
                Err(("evaluate.model".into(), problem.into()))
            }
            (false, None) => {
                let problem = "is missing; name a model's folder, or a training's configuration in [train]";
                Err(("evaluate.model".into(), problem.into()))
            }
            _ => Ok(()),
        }
    }
}

fn check_generation(options: &GenerationOptions, target: Modality) -> Result<(), (&'static str, String)> {
    let share = |value: f32| (0.0..=1.0).contains(&value);
    let positive = |value: f32| value.is_finite() && value > 0.0;
    let guidance = match &options.guidance {
        Guidance::Off => true,
        Guidance::Constant(strength) | Guidance::Ramp(strength) => strength.is_finite(),
        Guidance::Complexity(g) => [g.alpha, g.beta, g.gamma].iter().all(|value| value.is_finite()),
    };
    let key_points = match &options.key_points {
        KeyPointForce::Off => true,
        KeyPointForce::IndexAdd { tau } => share(*tau),
        KeyPointForce::Attract { tau, strength } => share(*tau) && strength.is_finite(),
        KeyPointForce::Sharpen { tau, temperature } => share(*tau) && positive(*temperature),
    };
    let checks = [
        (guidance, "guidance", "must be finite"),
        (key_points, "key_points", "needs tau between 0 and 1 and a temperature above 0"),
        (positive(options.sampler.temperature), "sampler.temperature", "must be above 0"),
        (share(options.sampler.top_p), "sampler.top_p", "must be between 0 and 1"),
        (options.views_toward(target).is_ok(), "views", "must be 1, or toward the map 1, 4, 8 or 16"),
    ];
    match checks.into_iter().find(|(good, ..)| !good) {
        Some((_, key, problem)) => Err((key, problem.into())),
        None => Ok(()),
    }
}
