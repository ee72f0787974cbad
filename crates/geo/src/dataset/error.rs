use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::map::MapError;
use super::split::SplitError;
use crate::files::{WriteError, reason};
use crate::pairs::PairError;
use crate::picture::PictureError;
use crate::raster::RasterError;
use crate::store::StoreError;
use crate::tile::Tile;

/// Why a dataset was not made or read. Each message starts with the path (or the option) and ends with the cure.
#[derive(Debug, Error)]
pub enum DatasetError {
    /// An option that cannot be meant; `problem` ends with the cure.
    #[error("{key}: {problem}")]
    Options {
        /// The option.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The two sources of a pair have no ground in common.
    #[error("{}: shows nothing of the ground of {}; check that both are of one place, zoom and datum", map.display(), imagery.display())]
    NothingInCommon {
        /// The imagery.
        imagery: PathBuf,
        /// The map.
        map: PathBuf,
    },
    /// The grid gives no pair at all.
    #[error("{}: gives no pairs ({detail}); check the grid and the region", imagery.display())]
    NoPairs {
        /// The imagery.
        imagery: PathBuf,
        /// Why.
        detail: String,
    },
    /// The grid gives more pairs than fit a list.
    #[error("{}: the grid gives more than {limit} pairs; choose a lower zoom or a region", imagery.display())]
    TooManyPairs {
        /// The imagery.
        imagery: PathBuf,
        /// The most pairs.
        limit: usize,
    },
    /// One tile has an odd size.
    #[error("{}: tile {tile} has {width} × {height} pixels, not a square of 16 to 4096; make it again or remove it", path.display())]
    OddTile {
        /// The store.
        path: PathBuf,
        /// The tile.
        tile: Tile,
        /// Its width in pixels.
        width: u32,
        /// Its height in pixels.
        height: u32,
    },
    /// A pair takes in too much of a source.
    #[error("{}: a pair would be made of {width} × {height} of its pixels; choose a grid nearer to its resolution", path.display())]
    TooFine {
        /// The source.
        path: PathBuf,
        /// Pixels of the source from left to right.
        width: u64,
        /// Pixels of the source from top to bottom.
        height: u64,
    },
    /// A map was not drawn.
    #[error("{}: tile {tile} was not drawn: {cause}", path.display())]
    Map {
        /// What the map is drawn from.
        path: PathBuf,
        /// The tile.
        tile: Tile,
        /// What the map source said.
        cause: MapError,
    },
    /// What a map should be drawn from was not opened.
    #[error("{}: no maps can be drawn from it: {cause}", path.display())]
    MapInput {
        /// What the map should be drawn from.
        path: PathBuf,
        /// What the map source said.
        cause: MapError,
    },
    /// Too many pairs were unreadable.
    #[error("{}: {count} pairs could not be read, more than the limit of {limit}; the first: {first}", folder.display())]
    TooManyUnreadable {
        /// The dataset.
        folder: PathBuf,
        /// How many.
        count: usize,
        /// How many would have been passed over.
        limit: usize,
        /// What was wrong with the first.
        first: String,
    },
    /// The output is there already.
    #[error("{}: already exists; pass --resume to go on with it, or choose another folder", folder.display())]
    Exists {
        /// The folder.
        folder: PathBuf,
    },
    /// The output is there already and is not what would be continued.
    #[error("{}: already exists, and {reason}; {cure}", folder.display())]
    NotContinued {
        /// The folder.
        folder: PathBuf,
        /// Why.
        reason: &'static str,
        /// What to do.
        cure: &'static str,
    },
    /// Another program makes this dataset just now.
    #[error("{}: is being made by another program; wait for it or stop it", folder.display())]
    InUse {
        /// The folder.
        folder: PathBuf,
    },
    /// Making was asked to stop. Nothing is lost.
    #[error("{}: interrupted after {done} of {total} pairs; pass --resume to go on", folder.display())]
    Interrupted {
        /// The folder.
        folder: PathBuf,
        /// Pairs looked at.
        done: usize,
        /// Pairs to look at.
        total: usize,
    },
    /// A manifest does not hold what it should.
    #[error("{}: line {line}: {problem}", path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// Which line, counted from 1.
        line: usize,
        /// What is wrong with it, with the cure.
        problem: String,
    },
    /// The system refused to read.
    #[error("{}: cannot be read: {}; check that it is there and may be read", path.display(), reason(cause))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        cause: io::Error,
    },
    /// The pairs could not be split.
    #[error(transparent)]
    Split(#[from] SplitError),
    /// A pair could not be read.
    #[error(transparent)]
    Pair(#[from] PairError),
    /// A raster could not be read.
    #[error(transparent)]
    Raster(#[from] RasterError),
    /// A tile store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A picture could not be read.
    #[error(transparent)]
    Picture(#[from] PictureError),
    /// The output could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl DatasetError {
    /// Whether one picture is at fault, which may be passed over, as opposed to a whole source or the system.
    pub(super) fn is_of_one_pair(&self) -> bool {
        match self {
            Self::OddTile { .. } | Self::Map { .. } | Self::Picture(_) => true,
            Self::Store(error) => matches!(error, StoreError::BadTile { .. } | StoreError::TileTooBig { .. }),
            Self::Raster(error) => matches!(error, RasterError::Damaged { .. }),
            _ => false,
        }
    }

    /// Whether the input or the options are at fault, as opposed to the system or the output's name.
    pub fn is_bad_input(&self) -> bool {
        match self {
            Self::Options { .. }
            | Self::NothingInCommon { .. }
            | Self::NoPairs { .. }
            | Self::TooManyPairs { .. }
            | Self::OddTile { .. }
            | Self::TooFine { .. }
            | Self::Map { .. }
            | Self::MapInput { .. }
            | Self::TooManyUnreadable { .. }
            | Self::Manifest { .. }
            | Self::Pair(_)
            | Self::Split(_) => true,
            Self::Store(error) => error.is_bad_input(),
            Self::Picture(error) => error.is_bad_input(),
            Self::Raster(error) => !matches!(error, RasterError::Io { .. } | RasterError::Write(_)),
            Self::Exists { .. }
            | Self::NotContinued { .. }
            | Self::InUse { .. }
            | Self::Interrupted { .. }
            | Self::Io { .. }
            | Self::Write(_) => false,
        }
    }
}
