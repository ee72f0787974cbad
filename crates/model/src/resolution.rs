//! Ground resolutions: those of an input against that of the model.

use std::ops::RangeInclusive;

use crate::model::EarthMapper;

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
