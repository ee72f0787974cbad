//! Encoded tiles on disk: folders, MBTiles and PMTiles behind one trait for reading ([`TileReader`]) and one for
//! writing ([`TileWriter`]).
//!
//! | kind | named by | a tile appears | after a stop |
//! |---|---|---|---|
//! | folder `z/x/y.png`, with `tilejson.json` | a folder | at once; written beside and renamed | all tiles are there; go on with [`Existing::Continue`] |
//! | MBTiles 1.3 (SQLite) | `.mbtiles` | with others of the same second, in a transaction | all are there but those of a last second; go on with [`Existing::Continue`] |
//! | PMTiles 3 | `.pmtiles` | with all others, by [`TileWriter::finish`] | nothing is there; write a folder or MBTiles and copy |
//!
//! Folders whose file names hold the numbers, such as `OAM-{x}-{y}-{z}.png`, are read by [`NamedReader`].
//!
//! Whatever stops a program, a tile is there whole or not at all. An MBTiles file that replaces another
//! ([`Existing::Replace`]) is written beside it and takes its name at the end, as PMTiles always are.
//!
//! Bytes are stored as they come; nothing is decoded. Foreign files are read with limits: [`MAX_TILE_BYTES`] for a
//! tile, [`MAX_LISTED_TILES`] for a list.
//!
//! # Example
//!
//! ```
//! use earthmapper_geo::store::{Existing, TileFormat, TileMetadata, copy_tiles, create_tiles, open_tiles};
//! use earthmapper_geo::{LonLat, Tile};
//!
//! let folder = tempfile::tempdir()?;
//! let (pyramid, archive) = (folder.path().join("florence"), folder.path().join("florence.pmtiles"));
//! let metadata = TileMetadata::new("Florence", TileFormat::Png);
//!
//! let mut writer = create_tiles(&pyramid, metadata.clone(), Existing::Refuse)?;
//! let tile = Tile::at(LonLat::new(11.25, 43.77)?, 14)?;
//! let png = b"\x89PNG\r\n\x1A\n and so on";
//! writer.write(tile, png)?;
//! writer.finish()?;
//!
//! let mut writer = create_tiles(&archive, metadata, Existing::Refuse)?;
//! copy_tiles(open_tiles(&pyramid)?.as_ref(), writer.as_mut())?;
//! writer.finish()?;
//!
//! let reader = open_tiles(&archive)?;
//! assert_eq!(reader.read(tile)?.unwrap().bytes, png);
//! assert_eq!(reader.read(tile.parent().unwrap())?, None);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod error;
mod folder;
mod mbtiles;
mod metadata;
mod named;
mod pmtiles;

use std::fs::File;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::path::Path;

use ::pmtiles::{TileCoord, TileId};

pub use error::StoreError;
pub use folder::{FolderReader, FolderWriter, TILE_JSON};
pub use mbtiles::{MbtilesReader, MbtilesWriter};
use metadata::Content;
pub use metadata::{TileFormat, TileMetadata};
pub use named::{NamedReader, TilePattern, UnclearPattern};
pub use pmtiles::{PmtilesReader, PmtilesWriter};

use crate::tile::Tile;

/// The most bytes of one tile that are read.
pub const MAX_TILE_BYTES: u64 = 64 << 20;

/// The most tiles that are listed at once; a list of so many takes 120 MB, and some more while it is sorted.
pub const MAX_LISTED_TILES: usize = 10_000_000;

/// A tile as it is stored.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EncodedTile {
    /// What the bytes begin like, whatever the store says.
    pub format: TileFormat,
    /// The file of the picture.
    pub bytes: Vec<u8>,
}

impl EncodedTile {
    /// Bytes from a store, which must look like a picture.
    fn from_store(path: &Path, tile: Tile, bytes: Vec<u8>) -> Result<Self, StoreError> {
        match Content::of(&bytes) {
            Content::Picture(format) => Ok(Self { format, bytes }),
            other => Err(StoreError::BadTile { path: path.to_owned(), tile, detail: other.described() }),
        }
    }
}

/// Tiles to be read, from several threads if need be.
pub trait TileReader: Send + Sync {
    /// The file or folder.
    fn path(&self) -> &Path;

    /// What the store says about its tiles.
    fn metadata(&self) -> &TileMetadata;

    /// One tile, or none when the store does not have it.
    ///
    /// # Errors
    ///
    /// [`StoreError::BadTile`] for bytes that are no picture, [`StoreError::TileTooBig`], [`StoreError::Damaged`],
    /// [`StoreError::InUse`], [`StoreError::Io`].
    fn read(&self, tile: Tile) -> Result<Option<EncodedTile>, StoreError>;

    /// Whether the store has a tile. Its bytes are not looked at.
    ///
    /// # Errors
    ///
    /// [`StoreError::Damaged`], [`StoreError::InUse`], [`StoreError::Io`].
    fn contains(&self, tile: Tile) -> Result<bool, StoreError>;

    /// Shows every tile there is, in any order, until the visitor breaks. Takes no memory for a list.
    ///
    /// # Errors
    ///
    /// As [`TileReader::contains`].
    fn visit(&self, visitor: &mut dyn FnMut(Tile) -> ControlFlow<()>) -> Result<(), StoreError>;

    /// All tiles in the order of PMTiles: zoom by zoom, along a Hilbert curve, so that neighbours are close.
    ///
    /// # Errors
    ///
    /// As [`TileReader::visit`], and [`StoreError::TooManyTiles`].
    fn tiles(&self) -> Result<Vec<Tile>, StoreError> {
        listed(self.path(), |visitor| self.visit(visitor))
    }
}

/// Tiles to be written.
pub trait TileWriter: Send {
    /// The file or folder.
    fn path(&self) -> &Path;

    /// What will be said about the tiles.
    fn metadata(&self) -> &TileMetadata;

    /// Whether a tile is there, from now or from before.
    ///
    /// # Errors
    ///
    /// As [`TileReader::contains`].
    fn contains(&self, tile: Tile) -> Result<bool, StoreError>;

    /// All tiles that are there, from now or from before, in the order of [`TileReader::tiles`].
    ///
    /// # Errors
    ///
    /// As [`TileReader::tiles`].
    fn tiles(&self) -> Result<Vec<Tile>, StoreError>;

    /// A tile that is there, from now or from before; none when it is not, and always none for PMTiles, which cannot be
    /// read before they are finished.
    ///
    /// # Errors
    ///
    /// As [`TileReader::read`].
    fn read(&self, tile: Tile) -> Result<Option<EncodedTile>, StoreError>;

    /// Adds a tile. The order does not matter, but for PMTiles that of [`TileReader::tiles`] is best.
    ///
    /// A picture of another format than the store's is taken as it is: real pyramids hold JPEG under names in `.png`,
    /// and readers look at the bytes.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotAPicture`] when the bytes begin like no picture, [`StoreError::TileExists`] when
    /// [`TileWriter::contains`] says so, [`StoreError::Write`], [`StoreError::InUse`].
    fn write(&mut self, tile: Tile, bytes: &[u8]) -> Result<(), StoreError>;

    /// Makes sure that the tiles written so far outlast a stop, where the kind of store can (not PMTiles).
    ///
    /// # Errors
    ///
    /// [`StoreError::Write`], [`StoreError::InUse`].
    fn flush(&mut self) -> Result<(), StoreError>;

    /// Writes the metadata, with bounds and zooms found from the tiles unless they were set, and closes the store.
    ///
    /// # Errors
    ///
    /// As [`TileWriter::tiles`] and [`TileWriter::flush`].
    fn finish(self: Box<Self>) -> Result<TileMetadata, StoreError>;
}

/// What happens when the output is there already. A folder without contents counts as not there.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Existing {
    /// An error.
    #[default]
    Refuse,
    /// Its tiles stay, and more are added. PMTiles cannot.
    Continue,
    /// A new file takes its place when it is finished. Folders cannot.
    Replace,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Folder,
    Mbtiles,
    Pmtiles,
}

impl Kind {
    fn of_ending(path: &Path) -> Option<Self> {
        let ending = path.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase());
        match ending.as_deref() {
            Some("mbtiles") => Some(Self::Mbtiles),
            Some("pmtiles") => Some(Self::Pmtiles),
            _ => None,
        }
    }
}

/// Opens the tiles of a folder, an `.mbtiles` or a `.pmtiles` file.
///
/// # Errors
///
/// Every [`StoreError`] about reading.
pub fn open_tiles(path: impl AsRef<Path>) -> Result<Box<dyn TileReader>, StoreError> {
    let path = path.as_ref();
    let kind = if path.is_dir() { Some(Kind::Folder) } else { Kind::of_ending(path) };
    match kind {
        _ if !path.exists() => Err(StoreError::NotFound { path: path.to_owned() }),
        Some(Kind::Folder) => Ok(Box::new(FolderReader::open(path)?)),
        Some(Kind::Mbtiles) => Ok(Box::new(MbtilesReader::open(path)?)),
        Some(Kind::Pmtiles) => Ok(Box::new(PmtilesReader::open(path)?)),
        None => Err(StoreError::UnknownKind { path: path.to_owned() }),
    }
}

/// Starts writing tiles to an `.mbtiles` or a `.pmtiles` file, or to a folder when the name ends in neither and has no
/// ending of a file.
///
/// # Errors
///
/// [`StoreError::Exists`], [`StoreError::NotContinued`], [`StoreError::OtherFormat`], [`StoreError::UnknownKind`],
/// [`StoreError::Write`], and when continuing, every [`StoreError`] about reading.
pub fn create_tiles(
    path: impl AsRef<Path>,
    metadata: TileMetadata,
    existing: Existing,
) -> Result<Box<dyn TileWriter>, StoreError> {
    let path = path.as_ref();
    let kind = if path.is_dir() { Some(Kind::Folder) } else { Kind::of_ending(path) };
    match kind {
        Some(Kind::Mbtiles) => Ok(Box::new(MbtilesWriter::create(path, metadata, existing)?)),
        Some(Kind::Pmtiles) => Ok(Box::new(PmtilesWriter::create(path, metadata, existing)?)),
        Some(Kind::Folder) => Ok(Box::new(FolderWriter::create(path, metadata, existing)?)),
        // "tiles.zip" is hardly meant to become a folder; "florence-1.5m" may be.
        None if path.is_file() || has_file_ending(path) => {
            Err(StoreError::UnknownKind { path: path.to_owned() })
        }
        None => Ok(Box::new(FolderWriter::create(path, metadata, existing)?)),
    }
}

fn has_file_ending(path: &Path) -> bool {
    const ENDINGS: [&str; 14] = [
        "zip", "tar", "gz", "png", "jpg", "jpeg", "webp", "tif", "tiff", "json", "geojson", "db", "sqlite",
        "gpkg",
    ];
    path.extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending.eq_ignore_ascii_case(known)))
}

/// What [`copy_tiles`] did.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Copied {
    /// Tiles that were written.
    pub written: u64,
    /// Tiles that were there already.
    pub skipped: u64,
}

/// Copies the tiles that a writer does not have yet, byte by byte. The metadata are the writer's; it is not finished.
///
/// # Errors
///
/// Of the reader or the writer; tiles written until then stay.
pub fn copy_tiles(from: &dyn TileReader, to: &mut dyn TileWriter) -> Result<Copied, StoreError> {
    let mut copied = Copied::default();
    for tile in from.tiles()? {
        if to.contains(tile)? {
            copied.skipped += 1;
        } else if let Some(encoded) = from.read(tile)? {
            to.write(tile, &encoded.bytes)?;
            copied.written += 1;
        }
    }
    Ok(copied)
}

type Visit<'a> = &'a mut dyn FnMut(Tile) -> ControlFlow<()>;

/// Collects what is visited, within the limit and in the order of PMTiles.
fn listed(
    path: &Path,
    visit: impl FnOnce(Visit<'_>) -> Result<(), StoreError>,
) -> Result<Vec<Tile>, StoreError> {
    let mut tiles = Vec::new();
    let mut is_full = false;
    visit(&mut |tile| {
        is_full = tiles.len() == MAX_LISTED_TILES;
        if is_full {
            return ControlFlow::Break(());
        }
        tiles.push(tile);
        ControlFlow::Continue(())
    })?;
    if is_full {
        return Err(StoreError::TooManyTiles { path: path.to_owned(), limit: MAX_LISTED_TILES });
    }
    Ok(in_store_order(tiles))
}

/// Sorts tiles as [`TileReader::tiles`] does; equal ones are left out.
pub(crate) fn in_store_order(mut tiles: Vec<Tile>) -> Vec<Tile> {
    tiles.sort_by_cached_key(|tile| hilbert(*tile).value());
    tiles.dedup();
    tiles
}

fn coordinates(tile: Tile) -> TileCoord {
    TileCoord::new(tile.z(), tile.x(), tile.y()).expect("PMTiles have all our zooms")
}

/// The number of a tile in PMTiles.
fn hilbert(tile: Tile) -> TileId {
    coordinates(tile).into()
}

/// Refuses bytes that do not begin like a picture.
fn check_tile(path: &Path, tile: Tile, bytes: &[u8]) -> Result<(), StoreError> {
    match Content::of(bytes) {
        Content::Picture(_) => Ok(()),
        other => Err(StoreError::NotAPicture { path: path.to_owned(), tile, found: other.described() }),
    }
}

/// An error of the system about a path that was to be read.
fn unread(path: &Path, cause: io::Error) -> StoreError {
    match cause.kind() {
        io::ErrorKind::NotFound => StoreError::NotFound { path: path.to_owned() },
        _ => StoreError::Io { path: path.to_owned(), cause },
    }
}

/// The beginning of a file, as far as it goes.
fn beginning(path: &Path, bytes: u64) -> Result<Vec<u8>, StoreError> {
    let mut found = Vec::new();
    let file = File::open(path).map_err(|cause| unread(path, cause))?;
    file.take(bytes).read_to_end(&mut found).map_err(|cause| unread(path, cause))?;
    if found.is_empty() {
        return Err(StoreError::EmptyFile { path: path.to_owned() });
    }
    Ok(found)
}

/// A file that does not begin as its ending promises: what it may be instead.
fn other_kind(path: &Path, expected: &'static str, beginning: &[u8]) -> StoreError {
    let (found, cure) = if beginning.starts_with(mbtiles::MAGIC) {
        ("an SQLite database".to_owned(), "rename it to .mbtiles if it holds tiles")
    } else if beginning.starts_with(b"PMTiles") {
        ("PMTiles".to_owned(), "rename it to .pmtiles")
    } else if let Some(format) = TileFormat::of_bytes(beginning) {
        (format!("a {format} picture"), "give a file of tiles")
    } else if beginning.starts_with(b"\x1F\x8B") {
        ("a file packed by gzip".to_owned(), "unpack it first")
    } else if beginning.starts_with(b"PK\x03\x04") {
        ("a ZIP archive".to_owned(), "unpack it first")
    } else if beginning.trim_ascii_start().starts_with(b"<") {
        ("a page of HTML or XML".to_owned(), "download the file itself")
    } else {
        ("something else".to_owned(), "check the name, or download it again")
    };
    StoreError::OtherKind { path: path.to_owned(), expected, found, cure }
}

/// The name of a store that gives none: that of its file or folder.
fn name_of(path: &Path) -> String {
    let name = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    name.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_else(|| "tiles".to_owned())
}
