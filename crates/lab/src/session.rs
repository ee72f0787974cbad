//! What every training needs from outside, and how it can end.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use earthmapper_geo::pairs::PairFolder;

use crate::data::DataError;
use crate::nets::WeightsError;
use crate::progress::{Interrupt, ProgressMode};
use crate::run::{Checkpoint, Environment, Existing, Run, RunError};

/// How a run begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// In a new folder.
    Fresh,
    /// In a new folder, replacing a run that is there.
    Overwrite,
    /// From the last checkpoint of the folder.
    Resume,
}

/// Where and how a training runs.
#[derive(Clone, Debug)]
pub struct Session {
    /// The run folder.
    pub folder: PathBuf,
    /// The device, without autodiff.
    pub device: Device,
    /// What the device is called in `env.json`.
    pub device_name: String,
    /// How the run begins.
    pub start: Start,
    /// How progress is shown.
    pub progress: ProgressMode,
    /// Asks the training to write a checkpoint and stop.
    pub interrupt: Interrupt,
}

/// How a training ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All steps are done.
    Finished,
    /// It was asked to stop; a checkpoint is written and the run can be resumed.
    Interrupted,
}

/// Why a training failed.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The configuration's values cannot work.
    #[error("{key}: {problem}")]
    Config {
        /// The key.
        key: &'static str,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// A pair folder is missing or holds no pairs.
    #[error(transparent)]
    Pairs(#[from] earthmapper_geo::pairs::PairError),
    /// Too many pictures cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The run folder.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The weights of a frozen network.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A model or tokenizer folder.
    #[error(transparent)]
    Model(#[from] earthmapper::ModelError),
    /// A checkpoint's file cannot be read or written.
    #[error("{path}: {problem}")]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        problem: String,
    },
    /// The loss, or the length of its gradient, is not a number any more.
    #[error(
        "the {what} is {value} at step {step}; {}. Resume with a lower learning_rate or a smaller clip_norm",
        kept(*last)
    )]
    NotANumber {
        /// At which step.
        step: u64,
        /// What it is: the loss or the gradient.
        what: &'static str,
        /// Its value.
        value: f64,
        /// Step of the last good checkpoint; `None` when the run would begin again.
        last: Option<u64>,
    },
}

impl Session {
    /// Opens the run folder, and the checkpoint to go on from.
    ///
    /// `shape` is the table of the configuration that weights depend on: a run resumes with the one that it began with.
    /// Other settings may change (a lower learning rate after a bad step, more steps); what does is said, and the run
    /// folder keeps both.
    ///
    /// # Errors
    /// When the folder cannot be used the way `start` says; see [`Run`].
    pub fn open(&self, config: &str, shape: &str) -> Result<(Run, Option<Checkpoint>), RunError> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let environment = Environment::current(&self.device_name, threads);
        match self.start {
            Start::Fresh => Ok((Run::create(&self.folder, config, &environment, Existing::Keep)?, None)),
            Start::Overwrite => {
                Ok((Run::create(&self.folder, config, &environment, Existing::Overwrite)?, None))
            }
            Start::Resume => {
                // Looked at before anything is written; when there is no run, resuming says so.
                let began = std::fs::read_to_string(self.folder.join("config.toml"));
                let changes = began.map_or(Vec::new(), |began| changes(&began, config));
                let shapes = |key: &&String| *key == shape || key.starts_with(&format!("{shape}."));
                let keys: Vec<String> = changes.iter().filter(shapes).cloned().collect();
                if !keys.is_empty() {
                    return Err(RunError::OtherShape { folder: self.folder.clone(), keys });
                }
                let (mut run, checkpoint) = Run::resume(&self.folder, &environment)?;
                if !changes.is_empty() {
                    tracing::warn!("resumed with other settings than before: {}", changes.join(", "));
                    run.reconfigure(checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.step), config)?;
                }
                Ok((run, checkpoint))
            }
        }
    }
}

/// The keys, with dots between tables, whose values differ between two configurations.
fn changes(old: &str, new: &str) -> Vec<String> {
    let leaves = |text: &str| -> BTreeMap<String, toml::Value> {
        let mut leaves = BTreeMap::new();
        let table: toml::Table = text.parse().unwrap_or_default();
        let mut open: Vec<(String, toml::Value)> = table.into_iter().collect();
        while let Some((key, value)) = open.pop() {
            match value {
                toml::Value::Table(table) => {
                    open.extend(table.into_iter().map(|(inner, value)| (format!("{key}.{inner}"), value)));
                }
                value => drop(leaves.insert(key, value)),
            }
        }
        leaves
    };
    let (old, new) = (leaves(old), leaves(new));
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    keys.into_iter().filter(|key| old.get(*key) != new.get(*key)).cloned().collect()
}

/// Says so when pairs that are measured on are learned from as well.
pub(crate) fn warn_about_overlap(training: &PairFolder, validation: &PairFolder) {
    let learned: BTreeSet<&Path> = (0..training.len()).map(|index| training.path(index)).collect();
    let both = (0..validation.len()).filter(|&index| learned.contains(validation.path(index))).count();
    if both > 0 {
        tracing::warn!(
            "{both} of the {} validation pairs are trained on too; validation says nothing about new pairs then",
            validation.len()
        );
    }
}

/// What a run that went wrong goes on from.
fn kept(last: Option<u64>) -> String {
    match last {
        Some(step) => format!("the checkpoint of step {step} is kept"),
        None => "there is no good checkpoint yet".into(),
    }
}

/// Stops a run at `step`, the first whose loss or gradient is not a number. A checkpoint of the step before holds the
/// very weights that led here, so it is set aside: resuming from it could only fail again.
pub(crate) fn not_a_number(run: &mut Run, step: u64, what: &'static str, value: f64) -> TrainError {
    match run.set_aside(step - 1) {
        Ok(last) => TrainError::NotANumber { step, what, value, last },
        Err(error) => error.into(),
    }
}

/// An error about one file of a checkpoint.
pub(crate) fn checkpoint_error(path: &Path) -> impl Fn(String) -> TrainError + '_ {
    move |problem| TrainError::Checkpoint { path: path.into(), problem }
}

#[cfg(test)]
mod tests {
    use super::changes;

    #[test]
    fn changed_keys_are_named_with_their_tables() {
        let old = "steps = 1\nname = \"a\"\n[transformer]\ndepth = 2\nwidth = 8\n";
        let new = "steps = 2\nname = \"a\"\nseed = 0\n[transformer]\ndepth = 3\nwidth = 8\n";
        assert_eq!(changes(old, new), ["seed", "steps", "transformer.depth"]);
        assert!(changes(old, old).is_empty());
    }
}
