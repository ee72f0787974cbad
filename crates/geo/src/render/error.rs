use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::files::reason;
use crate::picture::PictureError;
use crate::store::StoreError;
use crate::tile::{Tile, TileError};

/// Why a map was not drawn. Each message names the file or the key and ends with the cure.
///
/// The messages carry their cause in words, so printing the error alone is enough.
#[derive(Debug, Error)]
pub enum RenderError {
    /// The operating system refused.
    #[error("{}: cannot be read: {}; check the name and that it may be read", path.display(), reason(cause))]
    Io {
        /// The file that was to be read.
        path: PathBuf,
        /// What the operating system said.
        cause: io::Error,
    },
    /// The file breaks off or contradicts itself.
    #[error("{}: cannot be understood ({detail}); make or download it again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// One vector tile breaks off or contradicts itself.
    #[error("{}: vector tile {tile} {detail}; make or download the file again", path.display())]
    BadTile {
        /// The archive.
        path: PathBuf,
        /// The tile.
        tile: Tile,
        /// What is wrong.
        detail: String,
    },
    /// The file uses what is not read.
    #[error("{}: uses {feature}, which is not supported; {cure}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What is not supported.
        feature: String,
        /// What to do.
        cure: &'static str,
    },
    /// The file holds more than is taken into memory.
    #[error("{}: holds more than {limit} {what}; {cure}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The most that is read.
        limit: u64,
        /// Of what.
        what: &'static str,
        /// What to do.
        cure: &'static str,
    },
    /// The source has nothing to draw at so low a zoom.
    #[error("{}: has no data for zoom {zoom}; its first zoom is {first}", path.display())]
    BelowFirstZoom {
        /// The archive.
        path: PathBuf,
        /// What was asked for.
        zoom: u8,
        /// The lowest zoom there is.
        first: u8,
    },
    /// A style says something that makes no sense.
    #[error("{style}: {detail}")]
    Style {
        /// The file, or a word for the style that is built in.
        style: String,
        /// Which key, what is wrong with it, and what would be allowed.
        detail: String,
    },
    /// The picture would have no pixels or too many.
    #[error("a map of {width} × {height} pixels cannot be drawn at once; use 1 … {limit} for each side")]
    Size {
        /// Width in pixels.
        width: u64,
        /// Height in pixels.
        height: u64,
        /// The longest side.
        limit: u32,
    },
    /// A window reaches outside the world.
    #[error("rows {first} … {last} reach outside the map of zoom {zoom}; its rows are 0 … {end}")]
    OutsideWorld {
        /// The first row of pixels.
        first: u64,
        /// The last row of pixels.
        last: u64,
        /// The zoom.
        zoom: u8,
        /// The last row there is.
        end: u64,
    },
    /// A place or a zoom that does not exist.
    #[error(transparent)]
    Tile(#[from] TileError),
    /// Tiles could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A picture could not be encoded.
    #[error(transparent)]
    Picture(#[from] PictureError),
}

impl RenderError {
    /// Whether the source or the style is at fault, as opposed to the system or the output.
    pub fn is_bad_input(&self) -> bool {
        match self {
            Self::Damaged { .. }
            | Self::BadTile { .. }
            | Self::Unsupported { .. }
            | Self::TooLarge { .. }
            | Self::BelowFirstZoom { .. }
            | Self::Style { .. } => true,
            Self::Io { cause, .. } => cause.kind() == io::ErrorKind::NotFound,
            Self::Store(error) => error.is_bad_input(),
            Self::Size { .. } | Self::OutsideWorld { .. } | Self::Tile(_) | Self::Picture(_) => false,
        }
    }
}
