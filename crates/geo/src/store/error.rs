use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::TileFormat;
use crate::files::{WriteError, reason};
use crate::tile::Tile;

/// Why tiles were not read or written. Each message starts with the path and ends with the cure.
///
/// The messages carry their cause in words, so printing the error alone is enough.
#[derive(Debug, Error)]
pub enum StoreError {
    /// There is no such file or folder.
    #[error("{}: not found; check the name", path.display())]
    NotFound {
        /// What was to be read.
        path: PathBuf,
    },
    /// The name does not say what kind of store it is.
    #[error("{}: the ending says no known kind of tile store; name a folder, or a file ending in .mbtiles or .pmtiles", path.display())]
    UnknownKind {
        /// The file.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("{}: cannot be read: {}; check that it may be read", path.display(), reason(cause))]
    Io {
        /// The file or folder that was to be read.
        path: PathBuf,
        /// What the operating system said.
        cause: io::Error,
    },
    /// The file has no bytes.
    #[error("{}: is empty; copy or download it again", path.display())]
    EmptyFile {
        /// The file.
        path: PathBuf,
    },
    /// The file is something else than its ending says.
    #[error("{}: is not {expected} but {found}; {cure}", path.display())]
    OtherKind {
        /// The file.
        path: PathBuf,
        /// What the ending promises.
        expected: &'static str,
        /// What it is.
        found: String,
        /// What to do.
        cure: &'static str,
    },
    /// The tiles hold no pictures.
    #[error("{}: holds vector tiles ({format}), not pictures; render them to PNG, JPEG or WebP first", path.display())]
    VectorTiles {
        /// The store.
        path: PathBuf,
        /// What kind.
        format: String,
    },
    /// The tiles, or the way they are packed, are of a kind that is not read.
    #[error("{}: uses {feature}, which is not supported; {cure}", path.display())]
    Unsupported {
        /// The store.
        path: PathBuf,
        /// What is not supported.
        feature: String,
        /// What to do.
        cure: &'static str,
    },
    /// The store breaks off or contradicts itself.
    #[error("{}: is damaged or cut short ({detail}); copy or download it again", path.display())]
    Damaged {
        /// The store.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// There is nothing that looks like a tile.
    #[error("{}: holds no tiles; looked for zoom/column/row.png, .jpg or .webp: check the folder", path.display())]
    NoTiles {
        /// The store.
        path: PathBuf,
    },
    /// No file is named as the pattern says.
    #[error("{}: holds no tiles named {pattern} (.png, .jpg or .webp); check the folder and the pattern", path.display())]
    NoNamedTiles {
        /// The folder.
        path: PathBuf,
        /// How names were expected to look.
        pattern: String,
    },
    /// There are more tiles than fit a list.
    #[error("{}: says that it holds more than {limit} tiles; split it", path.display())]
    TooManyTiles {
        /// The store.
        path: PathBuf,
        /// The most tiles that are listed.
        limit: usize,
    },
    /// One tile is no picture.
    #[error("{}: tile {tile} {detail}; make the tile again or remove it", path.display())]
    BadTile {
        /// The store.
        path: PathBuf,
        /// The tile.
        tile: Tile,
        /// What is wrong.
        detail: String,
    },
    /// One tile is larger than allowed.
    #[error("{}: tile {tile} is larger than the limit of {limit} bytes for a tile; make it again or remove it", path.display())]
    TileTooBig {
        /// The store.
        path: PathBuf,
        /// The tile.
        tile: Tile,
        /// The most bytes a tile may have.
        limit: u64,
    },
    /// Another program has locked the file.
    #[error("{}: is in use by another program; wait for it or close it", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The output is there already.
    #[error("{}: already exists; pass --resume to go on with it{}", path.display(), replacing(*can_be_replaced))]
    Exists {
        /// The store that was to be written.
        path: PathBuf,
        /// Whether this kind of store can be replaced as a whole.
        can_be_replaced: bool,
    },
    /// The output is there already and of a kind that is not added to.
    #[error("{}: already exists, and {reason}; {cure}", path.display())]
    NotContinued {
        /// The store that was to be written.
        path: PathBuf,
        /// Why.
        reason: &'static str,
        /// What to do.
        cure: &'static str,
    },
    /// The output holds tiles of another format.
    #[error("{}: holds {found} tiles, so {wanted} tiles do not fit; choose {found} or another output", path.display())]
    OtherFormat {
        /// The store that was to be written.
        path: PathBuf,
        /// What it holds.
        found: TileFormat,
        /// What was to be added.
        wanted: TileFormat,
    },
    /// A tile to be written is no picture.
    #[error("{}: tile {tile} {found}; give it as PNG, JPEG or WebP", path.display())]
    NotAPicture {
        /// The store that was to be written.
        path: PathBuf,
        /// The tile.
        tile: Tile,
        /// What the bytes are, such as "has no bytes".
        found: String,
    },
    /// A tile to be written is there already.
    #[error("{}: tile {tile} is there already; leave it out or write to another output", path.display())]
    TileExists {
        /// The store that was to be written.
        path: PathBuf,
        /// The tile.
        tile: Tile,
    },
    /// The store could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

fn replacing(can_be_replaced: bool) -> &'static str {
    if can_be_replaced { " or --overwrite to replace it" } else { ", or choose another folder" }
}

impl StoreError {
    /// Whether the tiles or their files are at fault, as opposed to the system or the output's name.
    pub fn is_bad_input(&self) -> bool {
        match self {
            Self::NotFound { .. }
            | Self::UnknownKind { .. }
            | Self::EmptyFile { .. }
            | Self::OtherKind { .. }
            | Self::VectorTiles { .. }
            | Self::Unsupported { .. }
            | Self::Damaged { .. }
            | Self::NoTiles { .. }
            | Self::NoNamedTiles { .. }
            | Self::TooManyTiles { .. }
            | Self::BadTile { .. }
            | Self::TileTooBig { .. } => true,
            Self::Io { .. }
            | Self::InUse { .. }
            | Self::Exists { .. }
            | Self::NotContinued { .. }
            | Self::OtherFormat { .. }
            | Self::NotAPicture { .. }
            | Self::TileExists { .. }
            | Self::Write(_) => false,
        }
    }
}
