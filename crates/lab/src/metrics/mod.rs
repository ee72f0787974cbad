//! What a translation is worth, in numbers: pixels, map classes, roads, and how much samples differ.
//!
//! | file | answers |
//! |---|---|
//! | [`pixels`] | how close are the pixels? RMSE, PSNR, SSIM |
//! | [`map_classes`] | is water where water is? palette, class of each pixel, intersection over union |
//! | [`roads`] | are roads where roads are, give or take two pixels? precision, recall, F1 |
//! | [`seams`] | does one see where windows were joined? |
//! | [`diversity`] | how different are several samples of one input? |
//! | [`summary`] | all of it over a whole set, as a table and as JSON, beside a blank map |
//!
//! Pixel scores alone prove nothing on maps: most of a map is one pale grey, so a blank picture of the median colour
//! already scores PSNR 21.9 dB and SSIM 0.69 on the New York validation pairs, while its road F1 is 0. Report every
//! model beside that baseline ([`median_colour`], [`blank_map`], [`comparison_table`]).
//!
//! ```
//! use earthmapper_geo::Picture;
//! use earthmapper_lab::metrics::{MapScores, Palette, comparison_table};
//!
//! // Land with one white road across it, and a prediction that sees the road one pixel too far down.
//! let map = |road: u32| {
//!     Picture::drawn(32, 32, |_, y| if y == road { [255, 255, 255] } else { [233, 229, 220] })
//! };
//! let mut scores = MapScores::new(Palette::new_york());
//! scores.add(&map(16), &map(15))?;
//! let summary = scores.summary()?;
//! assert_eq!(summary.class("road").unwrap().intersection_over_union, Some(0.0));
//! assert_eq!(summary.roads.f1, Some(1.0));
//! println!("{}", comparison_table(&[("one pixel off", &summary)]));
//! # Ok::<(), earthmapper_lab::metrics::MetricsError>(())
//! ```

pub mod diversity;
pub mod map_classes;
pub mod pixels;
pub mod roads;
pub mod seams;
pub mod summary;

#[cfg(test)]
mod new_york_tests;

use earthmapper_geo::picture::Picture;
use thiserror::Error;

pub use diversity::mean_pairwise_difference;
pub use map_classes::{ClassMap, Confusion, MapClass, Palette};
pub use pixels::{peak_signal_to_noise_ratio, root_mean_square_error, structural_similarity};
pub use roads::{ROAD_TOLERANCE, RoadMatches};
pub use seams::seam_ratio;
pub use summary::{
    ClassSummary, MapScores, MapSummary, Mean, PictureScores, RoadSummary, blank_map, bootstrap_interval,
    comparison_table, median_colour,
};

/// Why something cannot be measured.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum MetricsError {
    /// The two pictures of a comparison have different sizes. Resizing one of them would be part of the score,
    /// so it is left to the caller.
    #[error("cannot compare a picture of {} × {} pixels with one of {} × {}", .left.0, .left.1, .right.0, .right.1)]
    SizeMismatch {
        /// Width and height of the first picture, in pixels.
        left: (u32, u32),
        /// Width and height of the second picture, in pixels.
        right: (u32, u32),
    },
    /// There is nothing to measure: no picture, or too few of them.
    #[error("{found} pictures are too few to measure, at least {needed} are needed")]
    TooFewPictures {
        /// Pictures that were given.
        found: usize,
        /// Pictures that the measure needs.
        needed: usize,
    },
    /// A palette without classes, with more than 255 of them, or with a class that has no colour or a second
    /// class's name.
    #[error("not a palette: {0}")]
    Palette(String),
    /// Scores or classes that were measured with different palettes do not add up.
    #[error("scores measured with different palettes cannot be merged")]
    PaletteMismatch,
}

/// Checks that two pictures have the same size.
fn check_sizes(left: &Picture, right: &Picture) -> Result<(), MetricsError> {
    let (left, right) = ((left.width(), left.height()), (right.width(), right.height()));
    if left == right { Ok(()) } else { Err(MetricsError::SizeMismatch { left, right }) }
}
