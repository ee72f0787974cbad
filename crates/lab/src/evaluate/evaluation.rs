//! The numbers of an evaluation, as they are written to `evaluation.json` and read again.

use std::collections::BTreeMap;
use std::fmt;

use earthmapper::Modality;
use earthmapper::model::GenerationDefaults;
use earthmapper_geo::lonlat::Place;
use serde::{Deserialize, Serialize};

use super::BlankColours;
use super::score::{Metric, Number};
use crate::metrics::{Confusion, Palette};

/// Number of the layout of `evaluation.json`.
pub const FORMAT: u32 = 2;

/// Whose pictures are measured against the truth.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Candidate {
    /// One colour everywhere: what shows nothing at all.
    Blank,
    /// The picture of the training pair whose input looks most alike: what memory without understanding reaches.
    Nearest,
    /// The model's picture, or the one that was given.
    Model,
    /// The tokenizer's reconstruction of the truth, which no prediction can be expected to beat.
    Ceiling,
    /// The map made back from the model's photograph. Compare it with [`Candidate::Model`]: what the same model reads
    /// out of the real photograph.
    Cycle,
}

impl Candidate {
    /// All of them, in the order of the tables.
    pub const ALL: [Self; 5] = [Self::Blank, Self::Nearest, Self::Model, Self::Ceiling, Self::Cycle];

    /// Its heading in tables of pictures of this kind.
    pub fn heading(self, target: Modality) -> &'static str {
        match (self, target) {
            (Self::Blank, Modality::Map) => "blank map",
            (Self::Blank, Modality::Satellite) => "blank photograph",
            (Self::Nearest, _) => "nearest training pair",
            (Self::Model, Modality::Map) => "satellite → map",
            (Self::Model, Modality::Satellite) => "map → satellite",
            (Self::Ceiling, _) => "tokenizer (ceiling)",
            (Self::Cycle, _) => "map → satellite → map",
        }
    }
}

/// As in files: `model`, `blank` and so on.
impl fmt::Display for Candidate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Blank => "blank",
            Self::Nearest => "nearest",
            Self::Model => "model",
            Self::Ceiling => "ceiling",
            Self::Cycle => "cycle",
        })
    }
}

/// What was measured.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Subject {
    /// A model.
    Model {
        /// Its name.
        name: String,
        /// SHA-256 of its configurations and weights; none when nothing was written.
        weights: Option<String>,
        /// Options of generation, per direction.
        generation: GenerationDefaults,
        /// Seed of the samples.
        seed: u64,
        /// The place that it was told for every picture, if any.
        place: Option<Place>,
    },
    /// A tokenizer by itself: its reconstructions.
    Tokenizer {
        /// Its name.
        name: String,
    },
    /// Pictures made elsewhere.
    Predictions {
        /// Name of their folder.
        name: String,
    },
}

impl Subject {
    /// Name of the model, the tokenizer or the folder.
    pub fn name(&self) -> &str {
        match self {
            Self::Model { name, .. } | Self::Tokenizer { name } | Self::Predictions { name } => name,
        }
    }

    /// Options of generation and seed; the defaults for what was not generated here.
    pub fn settings(&self) -> (GenerationDefaults, u64) {
        match self {
            Self::Model { generation, seed, .. } => (generation.clone(), *seed),
            Self::Tokenizer { .. } | Self::Predictions { .. } => Default::default(),
        }
    }
}

/// Something that could not be measured, and what would change that.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct NotComputed {
    /// What: a metric, or a candidate's heading.
    pub what: String,
    /// What to do, such as `give training pairs by --training DIR`.
    pub cure: String,
}

/// One metric of all candidates.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// The metric.
    pub metric: Metric,
    /// Its numbers. A candidate for which it means nothing is not there.
    pub numbers: BTreeMap<Candidate, Number>,
}

/// All numbers of one kind of pictures.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Section {
    /// What was made.
    pub target: Modality,
    /// The candidates measured, in the order of the table.
    pub candidates: Vec<Candidate>,
    /// The metrics.
    pub rows: Vec<Row>,
    /// What is missing.
    pub not_computed: Vec<NotComputed>,
    /// Pixels of the set by class, `[true class, predicted class]`; for maps that a model or somebody made.
    pub confusion: Option<Confusion>,
}

impl Section {
    /// The number of a candidate.
    pub fn number(&self, candidate: Candidate, metric: &str) -> Option<Number> {
        self.rows.iter().find(|row| row.metric.name == metric)?.numbers.get(&candidate).copied()
    }
}

/// What came out, and what it was measured with.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Evaluation {
    /// [`FORMAT`].
    pub format: u32,
    /// What was measured.
    pub subject: Subject,
    /// Pairs measured.
    pub pairs: usize,
    /// Names of the first and the last pair.
    pub names: [String; 2],
    /// Side that pictures were compared at, in pixels.
    pub side: u32,
    /// Classes of the maps.
    pub palette: Palette,
    /// Colours of the blank pictures.
    pub blank: BlankColours,
    /// Maps first; what was not measured is not there.
    pub sections: Vec<Section>,
    /// Seconds per satellite → map translation in batches, encoding and decoding included; none when no picture was
    /// translated, because all were there already.
    pub seconds_per_translation: Option<f64>,
}

impl Evaluation {
    /// The section of a kind of pictures.
    pub fn section(&self, target: Modality) -> Option<&Section> {
        self.sections.iter().find(|section| section.target == target)
    }

    /// The value of a metric, such as `number(Modality::Map, Candidate::Model, "road F1, 2 px")`; none when it was not
    /// measured or says nothing.
    pub fn number(&self, target: Modality, candidate: Candidate, metric: &str) -> Option<f64> {
        self.section(target)?.number(candidate, metric)?.value
    }

    /// As JSON text. (Through a [`serde_json::Value`] the options, being of 32 bits, would become 0.550000011920929.)
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("plain data") + "\n"
    }

    /// Reads what [`to_json`](Self::to_json) wrote.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn from_json(text: &str) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Format {
            format: Option<u32>,
        }
        match serde_json::from_str::<Format>(text).map_err(|error| error.to_string())?.format {
            Some(FORMAT) => serde_json::from_str(text).map_err(|error| error.to_string()),
            Some(other) => Err(format!("is of format {other}, not {FORMAT}; evaluate again")),
            None => Err("is of an older format; evaluate again".into()),
        }
    }
}
