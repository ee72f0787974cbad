//! Exit codes, decided in one place from the chain of an error.

use earthmapper::model::ModelError;
use earthmapper::translator::GenerationError;
use earthmapper_geo::{PairError, PictureError, PlaceError, WriteError};
use earthmapper_lab::evaluate::EvaluateError;
use earthmapper_lab::import::ImportError;
use earthmapper_lab::session::TrainError;

/// Bad input: 3.
pub const BAD_INPUT: i32 = 3;
/// The model is missing, damaged or does not fit: 4.
pub const MODEL: i32 = 4;
/// Interrupted and resumable: 130.
pub const INTERRUPTED: i32 = 130;

/// An input that cannot be used, in one sentence that names it and the cure.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadInput(pub String);

/// A training stopped on request.
#[derive(Debug, thiserror::Error)]
#[error("interrupted; a checkpoint is written, go on with --resume")]
pub struct Interrupted;

/// No model was found.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NoModel(pub String);

/// The exit code of an error.
pub fn code(error: &anyhow::Error) -> i32 {
    for cause in error.chain() {
        let evaluation = cause.downcast_ref::<EvaluateError>();
        if cause.is::<Interrupted>() || evaluation.is_some_and(EvaluateError::is_interruption) {
            return INTERRUPTED;
        }
        if cause.is::<NoModel>() || cause.is::<ModelError>() || cause.is::<GenerationError>() {
            return MODEL;
        }
        if cause.is::<BadInput>()
            || cause.is::<PlaceError>()
            || cause.is::<PairError>()
            || cause.is::<ImportError>()
        {
            return BAD_INPUT;
        }
        if let Some(picture) = cause.downcast_ref::<PictureError>() {
            return if picture.is_bad_input() { BAD_INPUT } else { 1 };
        }
        match cause.downcast_ref::<TrainError>() {
            Some(TrainError::Model(_)) => return MODEL,
            Some(
                TrainError::Config { .. }
                | TrainError::Pairs(_)
                | TrainError::Data(_)
                | TrainError::Weights(_),
            ) => {
                return BAD_INPUT;
            }
            Some(_) => return 1,
            None => {}
        }
        match evaluation {
            Some(EvaluateError::Pair(_)) => return BAD_INPUT,
            Some(EvaluateError::Modalities { .. } | EvaluateError::Generation(_)) => return MODEL,
            _ => {}
        }
        if cause.is::<WriteError>() {
            return 1;
        }
    }
    1
}
