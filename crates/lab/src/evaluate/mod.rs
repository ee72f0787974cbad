//! Measuring a model on pairs it has not seen, beside baselines that keep the numbers honest.
//!
//! | file | holds |
//! |---|---|
//! | `mod` | [`evaluate`], [`evaluate_given`]: the three stages, one after another |
//! | `predict`, `bench`, `predictions` | stage one: every picture that is measured is made, in any order, and kept |
//! | [`given`], `reconstruct` | instead of stage one: pictures made elsewhere; a tokenizer by itself |
//! | [`measure`](mod@measure), [`baselines`] | stage two: scores of each picture, of the model's and of what it must beat |
//! | [`sockets`] | metrics of whole sets and of networks |
//! | [`networks`] | [`networks::InceptionMetrics`] (FID, KID, precision, recall) and [`networks::LpipsMetric`] |
//! | [`score`] | from sums of pictures to numbers of sets, with bootstrap intervals |
//! | [`evaluation`] | the numbers, as JSON |
//! | [`report`] | stage three: tables, contact sheets, plots, one page of HTML |
//! | [`card`] | [`card::model_card`]: the README of a model folder, out of the numbers and the run that trained it |
//!
//! Satellite → map: pixel scores, class overlap and roads against the true map. Map → satellite: the same map fits many
//! photographs, so pixel scores say little; the generated photograph is translated back and its map compared with the
//! map it came from, beside what the real photograph's translation scores.

pub mod baselines;
mod bench;
pub mod card;
mod error;
pub mod evaluation;
pub mod given;
pub mod measure;
pub mod networks;
mod predict;
mod predictions;
mod reconstruct;
pub mod report;
pub mod score;
pub mod sockets;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use earthmapper::model::GenerationDefaults;
use earthmapper::{EarthMapper, Modality, Place};
use earthmapper_geo::pairs::PairFolder;
use earthmapper_geo::picture::Picture;
use earthmapper_geo::provenance::Provenance;

pub use baselines::{BlankColours, Training, evaluate_baselines};
pub use error::EvaluateError;
pub use evaluation::{Candidate, Evaluation, NotComputed, Section, Subject};
pub use reconstruct::evaluate_tokenizer;
pub use report::Evaluated;

use crate::metrics::{Confusion, Palette};
use crate::progress::{Interrupt, ProgressMode};
use bench::Bench;
use evaluation::{FORMAT, Row};
use given::Given;
use measure::{MeasuredSection, Setting, Source};
pub use predictions::weights_digest;
use predictions::{Key, Kind, Predictions};
use report::sheets::sheets;
use score::Bootstrap;
use sockets::{PictureMetric, SetMetric, add_picture_metrics, picture_metrics, set_metrics, set_numbers};

/// Seed of the bootstrap intervals: the same scores give the same interval.
const BOOTSTRAP_SEED: u64 = 0;

/// Which translations are measured.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Directions {
    /// Satellite → map, and map → satellite with the way back.
    #[default]
    Both,
    /// Satellite → map only, which takes a third of the time.
    ToMap,
    /// Map → satellite only, with the way back.
    ToSatellite,
}

impl Directions {
    /// What is made.
    pub fn targets(self) -> Vec<Modality> {
        [Modality::Map, Modality::Satellite].into_iter().filter(|&target| self.include(target)).collect()
    }

    /// Whether pictures of this kind are made.
    pub fn include(self, target: Modality) -> bool {
        match self {
            Self::Both => true,
            Self::ToMap => target == Modality::Map,
            Self::ToSatellite => target == Modality::Satellite,
        }
    }
}

/// How a model is evaluated.
#[derive(Clone, Debug)]
pub struct EvaluateOptions {
    /// Options of generation, per direction.
    pub generation: GenerationDefaults,
    /// Which translations are measured.
    pub directions: Directions,
    /// What the predictions are said to be made with; by default [`weights_digest`] of the model. A packed model has let
    /// go of its weights, so for it the digest has to be taken before, and its precision belongs to it.
    pub weights: Option<String>,
    /// Seed; each picture uses one derived from it and the pair's name.
    pub seed: u64,
    /// Pictures at once; 0 counts as 1. It does not change what is drawn.
    pub batch_size: usize,
    /// Place of all pictures, when known; else each pair's own, if the model was trained with places.
    pub place: Option<Place>,
    /// Folder that predictions are kept in as they are made, so that an interrupted evaluation goes on; none keeps them in
    /// memory.
    pub predictions: Option<PathBuf>,
    /// Pairs that the model learned from, for the nearest of them; none leaves that baseline out.
    pub training: Option<PairFolder>,
    /// Classes of the maps.
    pub palette: Palette,
    /// Colours of the blank pictures, where no training pairs are given to take them from.
    pub blank: BlankColours,
    /// Pictures of which three samples are drawn to measure diversity.
    pub diversity_pictures: usize,
    /// Most rows of each contact sheet.
    pub sheet_rows: usize,
    /// Side of a picture on a contact sheet, in pixels.
    pub tile_side: u32,
    /// Metrics of sets of pictures.
    pub set_metrics: Vec<Arc<dyn SetMetric>>,
    /// Metrics that a network computes for each picture.
    pub picture_metrics: Vec<Arc<dyn PictureMetric>>,
}

impl EvaluateOptions {
    /// The model's own options of generation, both directions, and the palette and median colours of the New York pairs.
    pub fn new(model: &EarthMapper) -> Self {
        Self::with_generation(model.generation.clone())
    }

    /// The same without a model, for pictures made elsewhere.
    pub fn without_model() -> Self {
        Self::with_generation(GenerationDefaults::default())
    }

    fn with_generation(generation: GenerationDefaults) -> Self {
        Self {
            generation,
            directions: Directions::Both,
            weights: None,
            seed: 0,
            batch_size: 8,
            place: None,
            predictions: None,
            training: None,
            palette: Palette::new_york(),
            blank: BlankColours::new_york(),
            diversity_pictures: 8,
            sheet_rows: 4,
            tile_side: 192,
            set_metrics: set_metrics(),
            picture_metrics: picture_metrics(),
        }
    }
}

/// Measures a model on pairs, each seen as the largest square from its middle at the model's side. Nothing is written but
/// the predictions, if the options name a folder for them.
///
/// # Errors
/// See [`EvaluateError`]. A pair that cannot be read is an error, since numbers over other pairs do not compare.
pub fn evaluate(
    model: &EarthMapper,
    pairs: &PairFolder,
    options: &EvaluateOptions,
    progress: ProgressMode,
    interrupt: &Interrupt,
) -> Result<Evaluated, EvaluateError> {
    let bench = Bench::new(model, options)?;
    let name = model.config.name.clone();
    let mut provenance = Provenance::new(name.clone(), "evaluation");
    provenance.seed = Some(options.seed);
    let generation = serde_json::to_string(&options.generation).expect("plain data");
    provenance.extra.insert("options".into(), generation);
    let (mut predictions, weights) = match &options.predictions {
        Some(folder) => {
            let key = Key::new(model, pairs, options)?;
            let weights = key.weights().to_owned();
            (Predictions::in_folder(folder, key, provenance.clone())?, Some(weights))
        }
        None => (Predictions::in_memory(provenance.clone()), None),
    };
    let seconds = predict::predict(&bench, pairs, &mut predictions, progress, interrupt)?;
    let subject = Subject::Model {
        name,
        weights,
        generation: options.generation.clone(),
        seed: options.seed,
        place: options.place,
    };
    let sampled = predict::sampled(pairs, options.diversity_pictures);
    let source = Made { directions: options.directions, predictions, sampled };
    let mut evaluated =
        measure_and_gather(subject, &source, bench.side, pairs, options, provenance, progress, interrupt)?;
    evaluated.evaluation.seconds_per_translation = seconds;
    Ok(evaluated)
}

/// Measures pictures that were made elsewhere: a file for each pair, called like the pair, in `folder`. The truth is compared
/// at their side. Options of generation do not matter.
///
/// # Errors
/// See [`EvaluateError`]; predictions that are missing or of different sizes are errors.
pub fn evaluate_given(
    folder: &Path,
    target: Modality,
    pairs: &PairFolder,
    options: &EvaluateOptions,
    progress: ProgressMode,
    interrupt: &Interrupt,
) -> Result<Evaluated, EvaluateError> {
    let given = Given::open(folder, target, pairs)?;
    let whole = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let name = whole.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let provenance = Provenance::new(name.clone(), "evaluation of given predictions");
    let (subject, side) = (Subject::Predictions { name }, given.side());
    measure_and_gather(subject, &given, side, pairs, options, provenance, progress, interrupt)
}

/// A model's predictions as a source of pictures.
struct Made {
    directions: Directions,
    predictions: Predictions,
    sampled: Vec<String>,
}

impl Source for Made {
    fn candidates(&self, target: Modality) -> Vec<Candidate> {
        let mut candidates = Vec::new();
        if self.directions.include(target) {
            candidates.extend([Candidate::Model, Candidate::Ceiling]);
        }
        if target == Modality::Map && self.directions.include(Modality::Satellite) {
            candidates.extend([Candidate::Ceiling, Candidate::Cycle]);
        }
        candidates
    }

    fn picture(&self, name: &str, target: Modality, candidate: Candidate) -> Result<Picture, EvaluateError> {
        let kind = match candidate {
            Candidate::Ceiling => Kind::Ceiling(target),
            Candidate::Cycle => Kind::Cycle,
            _ => Kind::Made(target),
        };
        self.predictions.get(kind, name)
    }

    fn uncertainty(&self, name: &str, target: Modality) -> Result<Option<Picture>, EvaluateError> {
        self.predictions.get(Kind::Uncertainty(target), name).map(Some)
    }

    fn samples(&self, name: &str, target: Modality) -> Result<Vec<Picture>, EvaluateError> {
        if !self.sampled.iter().any(|sampled| sampled == name) {
            return Ok(Vec::new());
        }
        (0..predict::SAMPLES).map(|number| self.predictions.get(Kind::Sample(target, number), name)).collect()
    }
}

/// Stages two and three.
#[allow(clippy::too_many_arguments)]
fn measure_and_gather(
    subject: Subject,
    source: &dyn Source,
    side: u32,
    pairs: &PairFolder,
    options: &EvaluateOptions,
    provenance: Provenance,
    progress: ProgressMode,
    interrupt: &Interrupt,
) -> Result<Evaluated, EvaluateError> {
    let mut options = options.clone();
    let read = |training| Training::read(training, side, progress, interrupt);
    let training = options.training.clone().map(read).transpose()?;
    options.blank = training.as_ref().map_or(options.blank, Training::blank);
    let setting = Setting { pairs, side, options: &options, source, training: training.as_ref() };
    let mut measured = setting.measure(progress, interrupt)?;
    let missing_networks = add_picture_metrics(&setting, &mut measured, interrupt)?;
    let bootstrap = Bootstrap::new(pairs.len(), BOOTSTRAP_SEED);
    let mut sections = Vec::new();
    for section in &measured.sections {
        let mut gathered = gather(section, &bootstrap);
        gathered.not_computed = left_out(&setting, section);
        let of_target = missing_networks.iter().filter(|(target, _)| *target == section.target);
        gathered.not_computed.extend(of_target.map(|(_, missing)| missing.clone()));
        let (rows, missing) = set_numbers(&setting, section.target, &gathered.candidates, interrupt)?;
        gathered.rows.extend(rows);
        gathered.not_computed.extend(missing);
        sections.push(gathered);
    }
    let sheets = sheets(&setting, &measured)?;
    let evaluation = Evaluation {
        format: FORMAT,
        subject,
        pairs: pairs.len(),
        names: [pairs.name(0).to_owned(), pairs.name(pairs.len() - 1).to_owned()],
        side,
        palette: options.palette.clone(),
        blank: options.blank,
        sections,
        seconds_per_translation: None,
    };
    Ok(Evaluated { evaluation, measured, sheets, provenance })
}

/// The baselines that a section lacks.
fn left_out(setting: &Setting, section: &MeasuredSection) -> Vec<NotComputed> {
    let mut left_out = Vec::new();
    let mut without = |candidate: Candidate, cure: &str| {
        if section.column(candidate).is_none() {
            let what = candidate.heading(section.target).into();
            left_out.push(NotComputed { what, cure: cure.into() });
        }
    };
    if setting.training.is_none() {
        without(Candidate::Nearest, "give the pairs that were learned from by --training DIR");
    }
    without(Candidate::Ceiling, "evaluate a model, by --model DIR, instead of given predictions");
    left_out
}

/// The numbers of a section out of the scores of its pictures.
fn gather(section: &MeasuredSection, bootstrap: &Bootstrap) -> Section {
    let mut rows: Vec<Row> = Vec::new();
    // The model first: it has all the metrics, in the order that the table should have.
    let mut columns: Vec<_> = section.columns.iter().collect();
    columns.sort_by_key(|(candidate, _)| *candidate != Candidate::Model);
    for (candidate, pictures) in columns {
        for (position, score) in pictures[0].scores.iter().enumerate() {
            let records: Vec<&[f64]> =
                pictures.iter().map(|picture| &picture.scores[position].sums[..]).collect();
            let number = bootstrap.number(score.statistic, &records);
            match rows.iter_mut().find(|row| row.metric.name == score.metric.name) {
                Some(row) => drop(row.numbers.insert(*candidate, number)),
                None => {
                    let numbers = BTreeMap::from([(*candidate, number)]);
                    rows.push(Row { metric: score.metric.clone(), numbers });
                }
            }
        }
    }
    let confusion = section.column(Candidate::Model).and_then(|pictures| {
        let first = pictures[0].confusion.as_ref()?;
        let mut sum = Confusion::new(first.counts().len());
        let counts = pictures.iter().filter_map(|picture| picture.confusion.as_ref());
        counts.for_each(|counts| sum.add(counts).expect("one palette"));
        Some(sum)
    });
    Section {
        target: section.target,
        candidates: section.columns.iter().map(|(candidate, _)| *candidate).collect(),
        rows,
        not_computed: Vec::new(),
        confusion,
    }
}
