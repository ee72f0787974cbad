//! Ground resolutions: those of an input against that of the model.

use std::ops::RangeInclusive;
use std::path::Path;

use earthmapper::EarthMapper;

use crate::exit::NoModel;

/// Between these ratios an input is resampled for the model; beyond, too little is left of what the model learned to
/// see.
const WITHIN_REASON: RangeInclusive<f64> = 0.25..=4.0;

/// How many times as large as the model's pixels are those of `metres`; 1 when the model's are not known.
pub fn ratio(model: &EarthMapper, metres: f64) -> f64 {
    model.config.trained_on.metres_per_pixel.map_or(1.0, |trained| metres / trained)
}

/// Whether an input of this ratio is resampled.
pub fn is_within_reason(ratio: f64) -> bool {
    WITHIN_REASON.contains(&ratio)
}

/// That an input is too coarse or too fine; `cure` says what to do.
pub fn refusal(model: &EarthMapper, input: &Path, metres: f64, cure: &str) -> NoModel {
    NoModel(format!(
        "{}: a pixel is {metres:.2} m, and the model {} was trained at {:.2} m; {cure}",
        input.display(),
        model.config.name,
        model.config.trained_on.metres_per_pixel.unwrap_or_default()
    ))
}
