//! What a translation is worth, in numbers: pixels, map classes, roads, and how much samples differ.
//!
//! | file | answers |
//! |---|---|
//! | [`pixels`] | how close are the pixels? RMSE, PSNR, SSIM |
//! | [`map_classes`] | is water where water is? palette, class of each pixel, intersection over union |
//! | [`roads`] | are roads where roads are, give or take two pixels? precision, recall, F1 |
//! | [`skeleton`] | is the network of roads complete and correct, whatever their width? |
//! | [`boundaries`] | are outlines of classes where they are, give or take two pixels? boundary F1 |
//! | [`matches`](mod@matches) | the counts behind the three above |
//! | [`frechet`], [`kernel_distance`](mod@kernel_distance) | are made pictures distributed like real ones? FID, KID |
//! | [`precision_recall`](mod@precision_recall) | are made pictures like real ones, and the other way round? |
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

pub mod boundaries;
pub mod diversity;
pub mod features;
pub mod frechet;
pub mod kernel_distance;
pub mod map_classes;
pub mod matches;
pub mod pixels;
pub mod precision_recall;
pub mod roads;
pub mod seams;
pub mod skeleton;
pub mod summary;

#[cfg(test)]
mod new_york_tests;

use earthmapper_geo::picture::Picture;
use thiserror::Error;

pub use boundaries::{BOUNDARY_TOLERANCE, boundary_matches};
pub use diversity::{mean_pairwise_difference, mean_pairwise_distance};
pub use features::Features;
pub use frechet::{Statistics, frechet_distance};
pub use kernel_distance::{KernelDistance, KernelSubsets, kernel_distance, kernel_distance_of};
pub use map_classes::{ClassMap, Confusion, MapClass, Palette};
pub use matches::TolerantMatches;
pub use pixels::{peak_signal_to_noise_ratio, root_mean_square_error, structural_similarity};
pub use precision_recall::{NEIGHBOURS, PrecisionRecall, precision_recall};
pub use roads::{ROAD_TOLERANCE, RoadMatches};
pub use seams::seam_ratio;
pub use skeleton::{SKELETON_TOLERANCE, road_skeleton_matches};
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
    /// Pictures that are compared one by one, in lists of different lengths.
    #[error("cannot compare {left} pictures one by one with {right}")]
    CountMismatch {
        /// Pictures in the first list.
        left: usize,
        /// Pictures in the second list.
        right: usize,
    },
    /// A picture leaves nothing at the last depth of a network.
    #[error("a picture of {} × {} pixels is too small for the network, sides of at least {needed} are needed", .size.0, .size.1)]
    TooSmall {
        /// Width and height of the picture, in pixels.
        size: (u32, u32),
        /// The smallest side, in pixels.
        needed: u32,
    },
    /// Sets of features that come from different networks.
    #[error("cannot compare sets of {left} and {right} features; take both from one network")]
    FeatureMismatch {
        /// Features of a picture of the first set.
        left: usize,
        /// Features of a picture of the second set.
        right: usize,
    },
    /// Features that are infinite or no numbers.
    #[error("features that are not finite numbers cannot be compared; check the weights of the network")]
    NotFinite,
    /// A palette without classes, with more than 255 of them, or with a class that has no colour or a second
    /// class's name.
    #[error("not a palette: {0}")]
    Palette(String),
    /// Scores or classes that were measured with different palettes do not add up.
    #[error("scores measured with different palettes cannot be merged")]
    PaletteMismatch,
}

/// Checks that two pictures have the same size.
pub(crate) fn check_sizes(left: &Picture, right: &Picture) -> Result<(), MetricsError> {
    let (left, right) = ((left.width(), left.height()), (right.width(), right.height()));
    if left == right { Ok(()) } else { Err(MetricsError::SizeMismatch { left, right }) }
}
