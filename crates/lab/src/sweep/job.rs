//! One point: its trainings, its evaluation, its record. Each of them goes on where it was stopped.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use burn::tensor::Device;
use earthmapper::{EarthMapper, Precision, TokenizerConfig};
use earthmapper_geo::files::WriteError;
use earthmapper_geo::pairs::PairFolder;

use super::baselines::Baselines;
use super::cache::{Keys, short};
use super::columns::{BITS, CODES_USED, STEPS, TRAINING_SECONDS};
use super::error::PointError;
use super::record::{FORMAT, Record};
use super::settings::{EvaluateSettings, Measures, Settings};
use crate::data::Places;
use crate::evaluate::networks::{InceptionMetrics, LpipsMetric};
use crate::evaluate::{EvaluateOptions, Evaluated, evaluate, evaluate_baselines, evaluate_tokenizer};
use crate::export::{export_model, open_tokenizer};
use crate::nets::{Inception, Lpips};
use crate::progress::{Interrupt, ProgressMode};
use crate::run::Checkpoint;
use crate::session::{Outcome, Session, Start, TrainError};

/// Name of the folder of points in that of a sweep.
const POINTS: &str = "points";
/// Name of the folder of baselines.
const BASELINES: &str = "baselines";
/// Name of the folder of trainings.
const TRAININGS: &str = "trainings";
/// Name of a point's folder of predictions, while it is measured.
const PREDICTIONS: &str = "predictions";
/// A file in a training's folder that says that it is done.
const FINISHED: &str = "finished";
/// A file in a point's folder with the seconds of earlier starts.
const SECONDS: &str = "seconds";

/// Where and how points are computed.
#[derive(Clone, Debug)]
pub struct SweepOptions {
    /// The sweep's folder.
    pub out: PathBuf,
    /// The device.
    pub device: Device,
    /// What the device is called in run folders.
    pub device_name: String,
    /// How progress is shown.
    pub progress: ProgressMode,
    /// Asks to stop.
    pub interrupt: Interrupt,
}

impl SweepOptions {
    /// The folder of all points.
    pub(super) fn points(&self) -> PathBuf {
        self.out.join(POINTS)
    }

    /// The folder of a point.
    pub fn point(&self, keys: &Keys) -> PathBuf {
        self.points().join(short(&keys.point))
    }

    /// The run folder of a training.
    pub(super) fn training(&self, what: &str, key: &str) -> PathBuf {
        self.out.join(TRAININGS).join(format!("{what}-{}", short(key)))
    }

    /// Whether a training is done.
    pub(super) fn is_trained(&self, what: &str, key: &str) -> bool {
        self.training(what, key).join(FINISHED).is_file()
    }
}

/// Computes points, keeping what several of them use.
pub(super) struct Worker<'a> {
    options: &'a SweepOptions,
    /// The model used last: points of one model follow each other.
    model: Option<(String, EarthMapper)>,
    inception: HashMap<PathBuf, Arc<InceptionMetrics>>,
}

impl<'a> Worker<'a> {
    pub fn new(options: &'a SweepOptions) -> Self {
        Self { options, model: None, inception: HashMap::new() }
    }

    /// Computes a point and writes its record.
    pub fn run(&mut self, settings: &Settings, keys: &Keys) -> Result<Record, PointError> {
        let tokenizer = match (&settings.tokenizer, &keys.tokenizer) {
            (Some(config), Some(key)) => {
                let train = |session: &Session| crate::train_tokenizer::train(config, session);
                Some(self.train("tokenizer", key, train)?)
            }
            _ => None,
        };
        let transformer = match (&settings.transformer, &keys.transformer) {
            (Some(config), Some(key)) => {
                let mut config = config.clone();
                config.tokenizer = tokenizer.clone().unwrap_or(config.tokenizer);
                let train = |session: &Session| crate::train::train(&config, session);
                Some(self.train("transformer", key, train)?)
            }
            _ => None,
        };
        let folder = self.options.point(keys);
        fs::create_dir_all(&folder).map_err(|cause| WriteError::Io { path: folder.clone(), cause })?;
        let began = Instant::now();
        let result = match (settings.measures(), &tokenizer) {
            (Measures::Tokenizer, Some(run)) => self.reconstruct(settings, run),
            _ => self.translate(settings, keys, transformer.as_deref(), &folder),
        };
        let path = folder.join(SECONDS);
        let before: f64 = fs::read_to_string(&path).ok().and_then(|text| text.parse().ok()).unwrap_or(0.0);
        let seconds = before + began.elapsed().as_secs_f64();
        let (evaluated, mut facts) = match result {
            Ok(result) => result,
            Err(error) => {
                // Only for the estimate of what is left; a failure to note it is no failure.
                let _ = fs::write(&path, seconds.to_string());
                return Err(error);
            }
        };
        let runs: Vec<&PathBuf> = tokenizer.iter().chain(&transformer).collect();
        let checkpoints = runs.iter().map(|run| Checkpoint::newest(run)).collect::<Result<Vec<_>, _>>();
        let checkpoints = checkpoints.map_err(TrainError::from)?;
        if let Some(last) = checkpoints.last() {
            let seconds = checkpoints.iter().map(|checkpoint| checkpoint.seconds).sum();
            facts.extend([(TRAINING_SECONDS.to_owned(), seconds), (STEPS.to_owned(), last.step as f64)]);
        }
        evaluated.write(&folder, true)?;
        let Evaluated { evaluation, measured, .. } = evaluated;
        let settings = settings.clone();
        let key = keys.point.clone();
        let record = Record { format: FORMAT, key, settings, seconds, facts, evaluation, measured };
        record.write(&folder)?;
        // All that they were for is in the record and the report now.
        let _ = fs::remove_dir_all(folder.join(PREDICTIONS));
        let _ = fs::remove_file(path);
        Ok(record)
    }

    /// The baselines of a point's pairs at a side in pixels: those that are kept, or measured now. None without training
    /// pairs.
    pub fn baselines(
        &mut self,
        settings: &Settings,
        key: String,
        side: u32,
    ) -> Result<Option<Baselines>, PointError> {
        let Some((data, chosen)) = settings.evaluate.training() else { return Ok(None) };
        let folder = self.options.out.join(BASELINES).join(short(&key));
        if let Some(found) = Baselines::read(&folder, &key) {
            return Ok(Some(found));
        }
        let mut options = self.evaluation(&settings.evaluate)?;
        options.directions = settings.directions();
        options.training = Some(PairFolder::open(data, chosen)?);
        let pairs = PairFolder::open(&settings.evaluate.data, &settings.evaluate.pairs)?;
        let (progress, interrupt) = (self.options.progress, &self.options.interrupt);
        let Evaluated { evaluation, measured, .. } =
            evaluate_baselines(side, &pairs, &options, progress, interrupt)?;
        let found = Baselines { format: FORMAT, key, evaluation, measured };
        found.write(&folder)?;
        Ok(Some(found))
    }

    /// Measures one pair of a point that trains nothing, without more samples and networks; keeps nothing. Returns the
    /// seconds, without those of loading the model.
    pub fn time_of_a_pair(&mut self, settings: &Settings, keys: &Keys) -> Result<f64, PointError> {
        let (_, model) = self.model(settings, keys, None)?;
        let mut settings = settings.evaluate.clone();
        settings.pairs.limit = Some(1);
        settings.places = Places::default();
        settings.diversity_pictures = 0;
        settings.inception = None;
        settings.lpips.clear();
        let pairs = open_pairs(&settings)?;
        let options = self.evaluation(&settings)?;
        let began = Instant::now();
        evaluate(&model, &pairs, &options, ProgressMode::Silent, &self.options.interrupt)?;
        Ok(began.elapsed().as_secs_f64())
    }

    /// Trains, or goes on, unless it is done; returns the run's folder.
    fn train(
        &self,
        what: &str,
        key: &str,
        train: impl FnOnce(&Session) -> Result<Outcome, TrainError>,
    ) -> Result<PathBuf, PointError> {
        let folder = self.options.training(what, key);
        if self.options.is_trained(what, key) {
            return Ok(folder);
        }
        let start = if folder.join("config.toml").is_file() { Start::Resume } else { Start::Fresh };
        let session = Session {
            folder: folder.clone(),
            device: self.options.device.clone(),
            device_name: self.options.device_name.clone(),
            start,
            progress: self.options.progress,
            interrupt: self.options.interrupt.clone(),
        };
        match train(&session)? {
            Outcome::Interrupted => Err(PointError::Interrupted),
            Outcome::Finished => {
                let path = folder.join(FINISHED);
                fs::write(&path, "").map_err(|cause| WriteError::Io { path, cause })?;
                Ok(folder)
            }
        }
    }

    fn reconstruct(&mut self, settings: &Settings, run: &Path) -> Result<Measured, PointError> {
        let (config, tokenizer) = open_tokenizer(run, &self.options.device)?;
        let pairs = open_pairs(&settings.evaluate)?;
        let options = self.evaluation(&settings.evaluate)?;
        let (evaluated, usage) = evaluate_tokenizer(
            "tokenizer",
            &config,
            &tokenizer,
            &pairs,
            &options,
            self.options.progress,
            &self.options.interrupt,
        )?;
        let mut facts = facts(&config);
        let used = usage.iter().filter(|&&count| count > 0).count() as f64 / usage.len() as f64;
        facts.insert(CODES_USED.into(), used);
        Ok((evaluated, facts))
    }

    fn translate(
        &mut self,
        settings: &Settings,
        keys: &Keys,
        trained: Option<&Path>,
        folder: &Path,
    ) -> Result<Measured, PointError> {
        let (weights, model) = self.model(settings, keys, trained)?;
        let pairs = open_pairs(&settings.evaluate)?;
        let mut options = self.evaluation(&settings.evaluate)?;
        options.weights = Some(weights);
        options.predictions = Some(folder.join(PREDICTIONS));
        let evaluated = evaluate(&model, &pairs, &options, self.options.progress, &self.options.interrupt)?;
        Ok((evaluated, facts(&model.tokenizer_config)))
    }

    /// The model of a point, and what its weights are known by.
    fn model(
        &mut self,
        settings: &Settings,
        keys: &Keys,
        trained: Option<&Path>,
    ) -> Result<(String, EarthMapper), PointError> {
        let precision = settings.evaluate.precision;
        // The digest of the weights, which a packed model has let go.
        let weights = match precision {
            Precision::F32 => keys.weights.clone(),
            precision => format!("{} {precision}", keys.weights),
        };
        let model = match &self.model {
            Some((loaded, model)) if *loaded == weights => model.clone(),
            _ => {
                let device = &self.options.device;
                let model = match (trained, &settings.evaluate.model) {
                    (Some(run), _) => export_model(run, device)?,
                    (None, Some(folder)) => EarthMapper::load(folder, device)?,
                    (None, None) => unreachable!("checked when the settings were read"),
                };
                model.pack(precision)
            }
        };
        self.model = Some((weights.clone(), model.clone()));
        Ok((weights, model))
    }

    /// The options of an evaluation.
    fn evaluation(&mut self, settings: &EvaluateSettings) -> Result<EvaluateOptions, PointError> {
        let mut options = EvaluateOptions::without_model();
        options.generation = settings.generation.clone();
        options.directions = settings.to.directions();
        options.seed = settings.seed;
        options.batch_size = settings.batch_size;
        options.diversity_pictures = settings.diversity_pictures;
        options.place = settings.place;
        if let Some(path) = &settings.palette {
            options.palette = super::palette(path)?;
        }
        let device = &self.options.device;
        if let Some(path) = &settings.inception {
            if !self.inception.contains_key(path) {
                let metrics = InceptionMetrics::new(Some(Inception::load(path, device)?));
                self.inception.insert(path.clone(), Arc::new(metrics));
            }
            options.set_metrics = vec![self.inception[path].clone()];
        }
        let lpips = settings.lpips.iter().map(|files| Lpips::load_named(files, device));
        options.picture_metrics = LpipsMetric::all(lpips.collect::<Result<_, _>>()?);
        Ok(options)
    }
}

/// An evaluation and what else is known of the point.
type Measured = (Evaluated, BTreeMap<String, f64>);

fn facts(config: &TokenizerConfig) -> BTreeMap<String, f64> {
    let codes = config.scales().total() * config.quantizer_depth;
    BTreeMap::from([(BITS.to_owned(), codes as f64 * (config.vocabulary as f64).log2())])
}

/// The pairs that are measured on, at the places that the model is told.
fn open_pairs(settings: &EvaluateSettings) -> Result<PairFolder, PointError> {
    let pairs = PairFolder::open(&settings.data, &settings.pairs)?;
    Ok(settings.places.told(pairs, settings.seed))
}
