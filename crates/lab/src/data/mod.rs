//! Pairs of pictures for training: decoded ahead on threads, augmented alike, the same on every machine.
//!
//! | file | holds |
//! |---|---|
//! | `augment` | [`AugmentConfig`], [`Augmentation`], [`epoch_order`]: everything random, from (seed, epoch, index) alone |
//! | `loader` | [`PairLoader`]: batches in order, from worker threads, resumable at any [`Position`] |
//! | `places` | [`Places`]: pairs without their places, or at those of others |
//! | `workers` | the threads that decode ahead for the loader |
//! | `unit` | pictures to and from numbers in -1 … 1 |
//! | `contact_sheet` | many pictures in one |

mod augment;
mod contact_sheet;
mod loader;
mod places;
mod unit;
mod workers;

pub use augment::{AugmentConfig, Augmentation, augmentation, epoch_order};
pub use contact_sheet::contact_sheet;
pub(crate) use loader::Skipped;
pub use loader::{Batch, DataError, LoaderConfig, PairLoader, Position, read_square, read_squares};
pub use places::Places;
pub use unit::{from_unit, to_unit};
