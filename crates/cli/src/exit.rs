//! Exit codes and error lines, decided in one place from the chain of an error.

use std::io::ErrorKind;

use earthmapper::device::DeviceError;
use earthmapper::model::ModelError;
use earthmapper::pyramid::PyramidError;
use earthmapper::translator::GenerationError;
use earthmapper_geo::dataset::{DatasetError, SplitError};
use earthmapper_geo::raster::RasterError;
use earthmapper_geo::render::RenderError;
use earthmapper_geo::store::StoreError;
use earthmapper_geo::{PairError, PictureError, PlaceError, TileError, WriteError};
use earthmapper_lab::evaluate::EvaluateError;
use earthmapper_lab::import::ImportError;
use earthmapper_lab::nets::WeightsError;
use earthmapper_lab::run::RunError;
use earthmapper_lab::session::TrainError;
use earthmapper_lab::sweep::SweepError;
use earthmapper_server::{ConfigError, StartError};

/// Something went wrong that no other code says: 1.
pub const FAILURE: i32 = 1;
/// Flags that do not go together: 2, as for flags that are not understood.
pub const USAGE: i32 = 2;
/// Bad input: 3.
pub const BAD_INPUT: i32 = 3;
/// The model is missing, damaged or does not fit: 4.
pub const MODEL: i32 = 4;
/// Some outputs are written and others are not: 5.
pub const PARTLY: i32 = 5;
/// Interrupted and resumable: 130.
pub const INTERRUPTED: i32 = 130;

/// Flags that do not go together.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// An input that cannot be used, in one sentence that names it and the cure.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadInput(pub String);

/// Stopped on request; the text says how to go on.
#[derive(Debug, thiserror::Error)]
#[error("interrupted; {0}")]
pub struct Interrupted(pub &'static str);

/// Some of many outputs could not be made; they are listed on stdout.
#[derive(Debug, thiserror::Error)]
#[error("{failed} of {of} tiles could not be made; the others are written")]
pub struct SomeFailed {
    /// How many.
    pub failed: usize,
    /// Of how many.
    pub of: usize,
}

/// No model was found, or it knows other pictures.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NoModel(pub String);

/// Some of several outputs could not be written; those that are done are listed on stdout.
#[derive(Debug, thiserror::Error)]
#[error("only {written} of {of} outputs are written: {cause}")]
pub struct Partly {
    /// Outputs that are there.
    pub written: usize,
    /// Outputs wanted.
    pub of: usize,
    /// Why the next one is not.
    pub cause: String,
}

/// The exit code of an error: that of the first cause in its chain that says one.
pub fn code(error: &anyhow::Error) -> i32 {
    error.chain().find_map(code_of).unwrap_or(FAILURE)
}

fn code_of(cause: &(dyn std::error::Error + 'static)) -> Option<i32> {
    if cause.is::<Usage>() {
        return Some(USAGE);
    }
    if cause.is::<Interrupted>() {
        return Some(INTERRUPTED);
    }
    if cause.is::<Partly>() || cause.is::<SomeFailed>() {
        return Some(PARTLY);
    }
    if cause.is::<NoModel>() || cause.is::<GenerationError>() {
        return Some(MODEL);
    }
    if let Some(error) = cause.downcast_ref::<PyramidError>() {
        return match error {
            PyramidError::Store(error) => code_of(error),
            PyramidError::Picture(error) => code_of(error),
            PyramidError::Tile(error) => code_of(error),
            PyramidError::Generation(error) => code_of(error),
            PyramidError::Side { .. } | PyramidError::Vanished(_) => Some(BAD_INPUT),
        };
    }
    if let Some(error) = cause.downcast_ref::<StoreError>() {
        return Some(if error.is_bad_input() { BAD_INPUT } else { FAILURE });
    }
    if let Some(error) = cause.downcast_ref::<RasterError>() {
        return Some(if error.is_bad_input() { BAD_INPUT } else { FAILURE });
    }
    if let Some(error) = cause.downcast_ref::<DatasetError>() {
        return Some(if error.is_bad_input() { BAD_INPUT } else { FAILURE });
    }
    if let Some(error) = cause.downcast_ref::<RenderError>() {
        return Some(if error.is_bad_input() { BAD_INPUT } else { FAILURE });
    }
    if cause.is::<SplitError>()
        || cause.is::<TileError>()
        || cause.is::<BadInput>()
        || cause.is::<PlaceError>()
        || cause.is::<ImportError>()
        || cause.is::<WeightsError>()
        || cause.is::<ConfigError>()
        || matches!(cause.downcast_ref(), Some(StartError::Source(_)))
    {
        return Some(BAD_INPUT);
    }
    if cause.is::<WriteError>() {
        return Some(FAILURE);
    }
    if let Some(error) = cause.downcast_ref::<DeviceError>() {
        return Some(match error {
            DeviceError::Unknown(_) => USAGE,
            DeviceError::NotBuilt(_) => FAILURE,
        });
    }
    if let Some(error) = cause.downcast_ref::<PictureError>() {
        return Some(if error.is_bad_input() { BAD_INPUT } else { FAILURE });
    }
    if let Some(error) = cause.downcast_ref::<PairError>() {
        return Some(pairs(error));
    }
    if let Some(error) = cause.downcast_ref::<ModelError>() {
        return Some(model(error));
    }
    if let Some(error) = cause.downcast_ref::<TrainError>() {
        return Some(match error {
            TrainError::Model(error) => model(error),
            TrainError::Pairs(error) => pairs(error),
            TrainError::Config { .. }
            | TrainError::Data(_)
            | TrainError::Weights(_)
            | TrainError::Run(RunError::OtherShape { .. }) => BAD_INPUT,
            _ => FAILURE,
        });
    }
    if let Some(error) = cause.downcast_ref::<SweepError>() {
        return crate::commands::sweep::code(error);
    }
    if let Some(error) = cause.downcast_ref::<EvaluateError>() {
        return match error {
            error if error.is_interruption() => Some(INTERRUPTED),
            EvaluateError::Pair(error) => Some(pairs(error)),
            EvaluateError::Picture(error) if error.is_bad_input() => Some(BAD_INPUT),
            EvaluateError::Given { .. } => Some(BAD_INPUT),
            EvaluateError::Modalities { .. } | EvaluateError::Generation(_) => Some(MODEL),
            _ => None,
        };
    }
    None
}

fn model(error: &ModelError) -> i32 {
    match error {
        // Text that is no text is a foreign file; everything else is the disk's doing (full, forbidden).
        ModelError::Io { source, .. } if source.kind() != ErrorKind::InvalidData => FAILURE,
        _ => MODEL,
    }
}

pub fn pairs(error: &PairError) -> i32 {
    match error {
        PairError::Io { .. } => FAILURE,
        PairError::Picture(error) if !error.is_bad_input() => FAILURE,
        _ => BAD_INPUT,
    }
}

/// An error in one line. Causes that the text above them repeats already are left out.
pub fn line(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn causes_are_said_once_and_in_one_line() {
        let source = io::Error::other("the disk\n  is on fire");
        let error = anyhow::Error::from(ModelError::Io { path: "a/b".into(), source }).context("saving");
        assert_eq!(line(&error), "saving: a/b: the disk is on fire");
    }

    #[test]
    fn the_disk_is_not_the_models_fault() {
        let io = |kind: ErrorKind| ModelError::Io { path: "a".into(), source: kind.into() };
        assert_eq!(code(&io(ErrorKind::StorageFull).into()), FAILURE);
        assert_eq!(code(&io(ErrorKind::InvalidData).into()), MODEL);
        assert_eq!(code(&ModelError::NoFolder("a".into()).into()), MODEL);
        assert_eq!(code(&anyhow::anyhow!("anything")), FAILURE);
        let wrapped = anyhow::Error::from(BadInput("a".into())).context("while reading");
        assert_eq!(code(&wrapped), BAD_INPUT);
    }
}
