//! Why an evaluation failed.

use std::path::PathBuf;

use earthmapper::translator::GenerationError;
use earthmapper_geo::files::WriteError;
use earthmapper_geo::pairs::PairError;
use earthmapper_geo::picture::PictureError;

use crate::metrics::MetricsError;

/// Why an evaluation failed.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    /// A pair cannot be read.
    #[error(transparent)]
    Pair(#[from] PairError),
    /// The pictures do not fit the model.
    #[error(transparent)]
    Generation(#[from] GenerationError),
    /// The model does not translate between photographs and maps.
    #[error("the model {model} knows {known}; an evaluation needs one of satellite pictures and maps")]
    Modalities {
        /// Name of the model.
        model: String,
        /// What it knows.
        known: String,
    },
    /// A score cannot be computed.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// A metric of a set, or one that a network computes, failed.
    #[error("{metric}: {problem}")]
    Metric {
        /// Name of the metric.
        metric: String,
        /// What went wrong.
        problem: String,
    },
    /// A picture cannot be read or written.
    #[error(transparent)]
    Picture(#[from] PictureError),
    /// A table cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The folder of predictions holds others.
    #[error("{}: {problem}; give another folder with --out, or remove this one", folder.display())]
    OtherPredictions {
        /// The folder.
        folder: PathBuf,
        /// What it holds.
        problem: String,
    },
    /// Predictions made elsewhere are not what is needed.
    #[error("{}: {problem}", path.display())]
    Given {
        /// The folder or the file.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// It was asked to stop. Numbers over a part of the pairs would look like those over all, so none are given.
    #[error("interrupted after {done} of {of} {unit}; {}", if *kept { "those are kept: the same command goes on" } else { "nothing was written" })]
    Interrupted {
        /// Done.
        done: usize,
        /// Wanted.
        of: usize,
        /// Of what.
        unit: &'static str,
        /// Whether what was done is on the disk.
        kept: bool,
    },
}

impl EvaluateError {
    /// Whether somebody asked for it, rather than something going wrong.
    pub fn is_interruption(&self) -> bool {
        matches!(self, Self::Interrupted { .. })
    }
}
