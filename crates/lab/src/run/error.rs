//! Why a run's folder cannot be used.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use earthmapper_geo::files::WriteError;
use earthmapper_geo::picture::PictureError;
use thiserror::Error;

/// Why a run's folder cannot be used. Each message starts with the path and ends with the cure.
///
/// The messages carry their cause in words, so printing the error alone is enough.
#[derive(Debug, Error)]
pub enum RunError {
    /// The folder of a new run holds something.
    #[error("{}: is not empty; pass --resume to go on with its run, --overwrite to start it anew, or choose another folder", folder.display())]
    NotEmpty {
        /// The folder.
        folder: PathBuf,
    },
    /// The folder to overwrite holds what no run writes.
    #[error("{}: holds {name}, which no run writes; choose another folder", folder.display())]
    Foreign {
        /// The folder.
        folder: PathBuf,
        /// One of the names.
        name: String,
    },
    /// The folder to resume holds no run.
    #[error("{}: holds no run to resume (there is no config.toml); check the name, or leave out --resume to start one", folder.display())]
    NoRun {
        /// The folder.
        folder: PathBuf,
    },
    /// Another process trains in this folder.
    #[error("{}: in use by {process}; wait until it ends, or stop it", folder.display())]
    InUse {
        /// The folder.
        folder: PathBuf,
        /// Which process, as far as known.
        process: String,
    },
    /// The run to resume trains something of another shape.
    #[error("{}: was started with another {}; resume with the configuration in its config.toml, or start a new run", folder.display(), keys.join(", "))]
    OtherShape {
        /// The run's folder.
        folder: PathBuf,
        /// The keys that differ.
        keys: Vec<String>,
    },
    /// There is no checkpoint yet.
    #[error("{}: has no checkpoint yet; let the run go on until it saves one", folder.display())]
    NoCheckpoint {
        /// The run's folder.
        folder: PathBuf,
    },
    /// A checkpoint that was asked for is not whole.
    #[error("{}: damaged checkpoint: {reason}; use another one", folder.display())]
    Damaged {
        /// The checkpoint.
        folder: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// There are checkpoints, but none is whole.
    #[error("{}: every checkpoint is damaged ({reasons}); restore one from a copy, or pass --overwrite to start anew", folder.display())]
    AllDamaged {
        /// The folder of checkpoints.
        folder: PathBuf,
        /// What is wrong with each.
        reasons: String,
    },
    /// The trainer could not write its part of a checkpoint.
    #[error("{}: the checkpoint could not be written: {cause}; the previous one is kept, so free some space and --resume", folder.display())]
    CheckpointNotWritten {
        /// The checkpoint.
        folder: PathBuf,
        /// Why.
        cause: Box<dyn Error + Send + Sync>,
    },
    /// Numbers were logged out of order.
    #[error("{}: step {step} after step {last}; log every step in order", path.display())]
    StepWentBack {
        /// The log.
        path: PathBuf,
        /// The step that was to be logged.
        step: u64,
        /// The step logged before.
        last: u64,
    },
    /// The operating system refused.
    #[error("{}: {}; check that the disk has room and the folder may be changed", path.display(), reason(cause))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        cause: io::Error,
    },
    /// A file could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A sample could not be written.
    #[error(transparent)]
    Picture(#[from] PictureError),
}

impl RunError {
    pub(crate) fn io(path: &Path) -> impl Fn(io::Error) -> Self {
        move |cause| Self::Io { path: path.to_owned(), cause }
    }
}

fn reason(cause: &io::Error) -> String {
    match cause.kind() {
        io::ErrorKind::StorageFull => "the disk is full".to_owned(),
        _ => cause.to_string(),
    }
}
