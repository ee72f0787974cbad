//! Ground resolutions: those of an input against that of the model.

use std::path::Path;

use earthmapper::EarthMapper;
pub use earthmapper::resolution::{is_within_reason, ratio};

use crate::exit::NoModel;

/// That an input is too coarse or too fine; `cure` says what to do.
pub fn refusal(model: &EarthMapper, input: &Path, metres: f64, cure: &str) -> NoModel {
    NoModel(format!(
        "{}: a pixel is {metres:.2} m, and the model {} was trained at {:.2} m; {cure}",
        input.display(),
        model.config.name,
        model.config.trained_on.metres_per_pixel.unwrap_or_default()
    ))
}
