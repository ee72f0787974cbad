//! Why a sweep, or one of its points, failed.

use std::path::PathBuf;

use earthmapper::ModelError;
use earthmapper_geo::files::WriteError;
use earthmapper_geo::pairs::PairError;

use crate::evaluate::EvaluateError;
use crate::nets::WeightsError;
use crate::run::RunError;
use crate::session::TrainError;

/// Why a sweep failed.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// The file says something that cannot be done.
    #[error("{}: {at}: {problem}", file.display())]
    Config {
        /// The file.
        file: PathBuf,
        /// Where in it, such as `axis depth`.
        at: String,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A file that the sweep names cannot be read.
    #[error("{}: {problem}", path.display())]
    Input {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A model is missing.
    #[error("{}: evaluate.model: {}: holds no model (no config.json); check the name, paths begin where the program is started", file.display(), model.display())]
    NoModel {
        /// The sweep's file.
        file: PathBuf,
        /// The model's folder.
        model: PathBuf,
    },
    /// The folder of results holds something else.
    #[error("{}: holds other files; give a new folder, or that of a sweep, with --out", folder.display())]
    Foreign {
        /// The folder.
        folder: PathBuf,
    },
    /// Another process sweeps into this folder.
    #[error(transparent)]
    Run(#[from] RunError),
    /// Pairs are missing.
    #[error(transparent)]
    Pairs(#[from] PairError),
    /// Weights of a metric's network.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// Results cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// It was asked to stop; what is done is kept.
    #[error("interrupted after {done} of {of} points, which are written; the same command goes on")]
    Interrupted {
        /// Points done.
        done: usize,
        /// Points wanted.
        of: usize,
    },
    /// The nearest training pair failed; the points are written.
    #[error("nearest training pair: {problem}; all points are written; the same command tries this again")]
    Baselines {
        /// What went wrong.
        problem: String,
    },
    /// Some points failed; the others are written.
    #[error("{} of {of} points failed, the others are written; the same command tries these again: {}", failed.len(), failed.join("; "))]
    SomeFailed {
        /// What failed, and why.
        failed: Vec<String>,
        /// Points wanted.
        of: usize,
    },
}

/// Why one point failed.
#[derive(Debug, thiserror::Error)]
pub enum PointError {
    /// Its training.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// Its evaluation.
    #[error(transparent)]
    Evaluate(#[from] EvaluateError),
    /// Its model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Weights of a metric's network.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// Pairs.
    #[error(transparent)]
    Pairs(#[from] PairError),
    /// A file that it names.
    #[error(transparent)]
    Input(#[from] Box<SweepError>),
    /// Its result cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// It was asked to stop.
    #[error("interrupted")]
    Interrupted,
}

impl PointError {
    /// Whether somebody asked for it, rather than something going wrong.
    pub(super) fn is_interruption(&self) -> bool {
        match self {
            Self::Interrupted => true,
            Self::Evaluate(error) => error.is_interruption(),
            _ => false,
        }
    }
}
