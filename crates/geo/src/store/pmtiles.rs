//! Tiles in one file made to be read in parts: PMTiles 3.
//!
//! The numbering of tiles, the header and the writer are those of the crate `pmtiles`. Its reader is asynchronous and
//! unpacks directories without a limit, so directories are read here: in the caller's thread, and never larger than
//! [`MAX_UNPACKED_BYTES`].

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use flate2::read::GzDecoder;
use pmtiles::{
    Compression, Header, PmTilesStreamWriter, PmTilesWriter, PmtError, TileCoord, TileId, TileType,
};
use serde_json::{Map, Value, json};

use super::metadata::Content;
use super::{
    EncodedTile, Existing, MAX_TILE_BYTES, StoreError, TileFormat, TileMetadata, TileReader, TileWriter,
    beginning, check_tile, coordinates, hilbert, listed, name_of, other_kind, unread,
};
use crate::files::{Beside, WriteError};
use crate::tile::{BoundingBox, MAX_ZOOM, Tile};

const EXPECTED: &str = "PMTiles";
const HEADER_BYTES: u64 = 127;

/// The most bytes of a directory or of the metadata, unpacked. Those of a planet are a tenth of it.
const MAX_UNPACKED_BYTES: u64 = 8 << 20;

/// How many directories may lie below each other; writers make two.
const MAX_DEPTH: u32 = 4;

/// Leaf directories that are kept in memory.
const KEPT_LEAVES: usize = 8;

/// A PMTiles file.
#[derive(Debug)]
pub struct PmtilesReader {
    metadata: TileMetadata,
    archive: Archive,
    root: Arc<Directory>,
    leaves: Mutex<Vec<(u64, Arc<Directory>)>>,
}

impl PmtilesReader {
    /// Opens a file.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotFound`], [`StoreError::EmptyFile`], [`StoreError::OtherKind`], [`StoreError::Damaged`],
    /// [`StoreError::VectorTiles`], [`StoreError::Unsupported`] for older versions and other packing,
    /// [`StoreError::Io`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let (mut reader, tile_type) = Self::open_any(path.as_ref())?;
        reader.metadata.format = reader.format(tile_type)?;
        Ok(reader)
    }

    /// Opens a file of Mapbox vector tiles, which are read with [`PmtilesReader::unpacked_tile`] only; the format in
    /// its metadata means nothing.
    pub(crate) fn open_vector(path: &Path) -> Result<Self, StoreError> {
        let (reader, tile_type) = Self::open_any(path)?;
        let holds = match tile_type {
            TileType::Mvt | TileType::Unknown => return Ok(reader),
            TileType::Mlt => "MapLibre vector tiles",
            _ => "pictures, not vector tiles",
        };
        Err(StoreError::Unsupported {
            path: path.to_owned(),
            feature: format!("tiles that are {holds}"),
            cure: "give an archive of Mapbox vector tiles (MVT)",
        })
    }

    fn open_any(path: &Path) -> Result<(Self, TileType), StoreError> {
        let (archive, header) = Archive::open(path)?;
        let root = Arc::new(archive.directory(archive.root.clone())?);
        let fields = archive.metadata()?;
        let format = TileFormat::Png;
        let metadata = TileMetadata::from_fields(&fields, name_of(&archive.path), format);
        let mut reader = Self { metadata, archive, root, leaves: Mutex::default() };
        reader.metadata.min_zoom = Some(header.min_zoom).filter(|zoom| *zoom <= MAX_ZOOM);
        reader.metadata.max_zoom = Some(header.max_zoom).filter(|zoom| *zoom <= MAX_ZOOM);
        // Exact where our metadata repeat them, else of the header, which rounds.
        reader.metadata.bounds = reader.metadata.bounds.or_else(|| bounds(&header));
        Ok((reader, header.tile_type))
    }

    /// What the header calls the tiles; where it says nothing, what the first of them is.
    fn format(&self, tile_type: TileType) -> Result<TileFormat, StoreError> {
        let path = || self.archive.path.clone();
        let vector = |format: &str| StoreError::VectorTiles { path: path(), format: format.to_owned() };
        let unsupported = |format: &str| StoreError::Unsupported {
            path: path(),
            feature: format!("tiles of {format} format"),
            cure: "convert them to PNG, JPEG or WebP",
        };
        match tile_type {
            TileType::Png => Ok(TileFormat::Png),
            TileType::Jpeg => Ok(TileFormat::Jpeg),
            TileType::Webp => Ok(TileFormat::WebP),
            TileType::Mvt => Err(vector("mvt")),
            TileType::Mlt => Err(vector("mlt")),
            TileType::Avif => Err(unsupported("AVIF")),
            TileType::Unknown => {
                let mut first = None;
                self.visit(&mut |tile| {
                    first = Some(tile);
                    ControlFlow::Break(())
                })?;
                let bytes =
                    first.map(|tile| self.unpacked_tile(tile)).transpose()?.flatten().unwrap_or_default();
                match Content::of(&bytes) {
                    Content::Picture(format) => Ok(format),
                    Content::Vector => Err(vector("mvt")),
                    Content::Empty | Content::Unknown => Err(unsupported("an unknown")),
                }
            }
        }
    }

    fn find(&self, tile: Tile) -> Result<Option<Entry>, StoreError> {
        let id = hilbert(tile).value();
        let mut directory = self.root.clone();
        for _ in 0..MAX_DEPTH {
            match directory.find(id) {
                Some(entry) if entry.is_leaf() => directory = self.leaf(&entry)?,
                found => return Ok(found),
            }
        }
        Err(self.archive.damaged("its directories lie too deep"))
    }

    fn leaf(&self, entry: &Entry) -> Result<Arc<Directory>, StoreError> {
        let place = self.archive.leaf_place(entry)?;
        let mut leaves = self.leaves.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = leaves.iter().position(|(offset, _)| *offset == place.start) {
            // The last used is the last to go.
            leaves[at..].rotate_left(1);
        } else {
            let leaf = Arc::new(self.archive.directory(place.clone())?);
            if leaves.len() == KEPT_LEAVES {
                leaves.remove(0);
            }
            leaves.push((place.start, leaf));
        }
        Ok(leaves.last().expect("one was just put there").1.clone())
    }

    /// The bytes of a tile, whatever they are.
    pub(crate) fn unpacked_tile(&self, tile: Tile) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(entry) = self.find(tile)? else { return Ok(None) };
        let archive = &self.archive;
        let too_big = || StoreError::TileTooBig { path: archive.path.clone(), tile, limit: MAX_TILE_BYTES };
        if u64::from(entry.length) > MAX_TILE_BYTES {
            return Err(too_big());
        }
        let packed = archive.read(archive.inside(&archive.data, &entry)?)?;
        if archive.tile_packing == Packing::Plain {
            return Ok(Some(packed));
        }
        unpacked_tile(&archive.path, tile, &packed).map(Some)
    }

    /// Shows the tiles of a directory and those below it. Its numbers must lie in `allowed`, which makes every step
    /// go forward, whatever the file says.
    fn visit_directory(
        &self,
        directory: &Directory,
        allowed: Range<u64>,
        depth: u32,
        visitor: &mut dyn FnMut(Tile) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, StoreError> {
        let entries = &directory.entries;
        for (index, entry) in entries.iter().enumerate() {
            let next = entries.get(index + 1).map_or(allowed.end, |next| next.tile_id);
            let end = if entry.is_leaf() { next } else { entry.end() };
            if !(allowed.start..allowed.end).contains(&entry.tile_id) || end > next {
                return Err(self.archive.damaged("its directories contradict each other"));
            }
            let flow = if entry.is_leaf() {
                if depth == MAX_DEPTH {
                    return Err(self.archive.damaged("its directories lie too deep"));
                }
                // Not by way of the kept leaves: each is needed once.
                let leaf = self.archive.directory(self.archive.leaf_place(entry)?)?;
                self.visit_directory(&leaf, entry.tile_id..next, depth + 1, visitor)?
            } else {
                self.visit_run(entry, visitor)?
            };
            if flow.is_break() {
                return Ok(flow);
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn visit_run(
        &self,
        entry: &Entry,
        visitor: &mut dyn FnMut(Tile) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, StoreError> {
        for id in entry.tile_id..entry.end() {
            let tile = TileId::new(id).ok().map(TileCoord::from);
            let tile = tile.and_then(|tile| Tile::new(tile.z(), tile.x(), tile.y()).ok());
            let tile = tile.ok_or_else(|| self.archive.damaged("it lists a tile that is too deep"))?;
            if visitor(tile).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

impl TileReader for PmtilesReader {
    fn path(&self) -> &Path {
        &self.archive.path
    }

    fn metadata(&self) -> &TileMetadata {
        &self.metadata
    }

    fn read(&self, tile: Tile) -> Result<Option<EncodedTile>, StoreError> {
        match self.unpacked_tile(tile)? {
            None => Ok(None),
            Some(bytes) => EncodedTile::from_store(&self.archive.path, tile, bytes).map(Some),
        }
    }

    fn contains(&self, tile: Tile) -> Result<bool, StoreError> {
        Ok(self.find(tile)?.is_some())
    }

    fn visit(&self, visitor: &mut dyn FnMut(Tile) -> ControlFlow<()>) -> Result<(), StoreError> {
        self.visit_directory(&self.root, 0..u64::MAX, 1, visitor).map(|_| ())
    }
}

fn bounds(header: &Header) -> Option<BoundingBox> {
    let edges = [header.min_longitude, header.min_latitude, header.max_longitude, header.max_latitude];
    BoundingBox::try_from(edges).ok().filter(|_| edges != [0.0; 4])
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Packing {
    Plain,
    Gzip,
}

/// The file and where its parts are: ranges of bytes, all known to lie inside the file.
#[derive(Debug)]
struct Archive {
    path: PathBuf,
    file: Mutex<File>,
    root: Range<u64>,
    description: Range<u64>,
    leaves: Range<u64>,
    data: Range<u64>,
    packing: Packing,
    tile_packing: Packing,
}

impl Archive {
    fn open(path: &Path) -> Result<(Self, Header), StoreError> {
        let beginning = beginning(path, HEADER_BYTES)?;
        let damaged = |detail: &str| StoreError::Damaged { path: path.to_owned(), detail: detail.to_owned() };
        let header = match Header::try_from_bytes(Bytes::copy_from_slice(&beginning)) {
            Ok(header) => header,
            Err(PmtError::UnsupportedPmTilesVersion) => return Err(old_version(path)),
            Err(PmtError::InvalidMagicNumber) => return Err(other_kind(path, EXPECTED, &beginning)),
            Err(PmtError::InvalidHeader) => return Err(damaged("the file ends too early")),
            Err(other) => return Err(damaged(&other.to_string().to_lowercase())),
        };
        // Some early files have the digit 3 in place of the number.
        if ![3, b'3'].contains(&header.spec_version()) {
            return Err(old_version(path));
        }
        let file = File::open(path).map_err(|cause| unread(path, cause))?;
        let length = file.metadata().map_err(|cause| unread(path, cause))?.len();
        // The crate keeps the places to itself. Four pairs of offset and length follow the magic and the version.
        let place = |index: usize| {
            let number = |at: usize| {
                let bytes = beginning[at..at + 8].try_into().expect("eight bytes");
                u64::from_le_bytes(bytes)
            };
            let (offset, bytes) = (number(8 + 16 * index), number(16 + 16 * index));
            match offset.checked_add(bytes) {
                _ if bytes == 0 => Ok(0..0),
                Some(end) if end <= length => Ok(offset..end),
                _ => Err(damaged("the file ends before its contents do")),
            }
        };
        let archive = Self {
            path: path.to_owned(),
            root: place(0)?,
            description: place(1)?,
            leaves: place(2)?,
            data: place(3)?,
            packing: packing(path, header.internal_compression())?,
            tile_packing: packing(path, header.tile_compression)?,
            file: Mutex::new(file),
        };
        if archive.root.is_empty() {
            return Err(damaged("it has no directory"));
        }
        Ok((archive, header))
    }

    fn damaged(&self, detail: &str) -> StoreError {
        StoreError::Damaged { path: self.path.clone(), detail: detail.to_owned() }
    }

    /// Bytes of the file; the caller has checked that they are there and not too many.
    fn read(&self, place: Range<u64>) -> Result<Vec<u8>, StoreError> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = vec![0; (place.end - place.start) as usize];
        let read = file.seek(SeekFrom::Start(place.start)).and_then(|_| file.read_exact(&mut bytes));
        match read {
            Ok(()) => Ok(bytes),
            Err(cause) if cause.kind() == io::ErrorKind::UnexpectedEof => {
                Err(self.damaged("the file became shorter while it was read"))
            }
            Err(cause) => Err(unread(&self.path, cause)),
        }
    }

    /// Bytes of a directory or of the metadata.
    fn read_internal(&self, place: Range<u64>, what: &str) -> Result<Vec<u8>, StoreError> {
        let too_large = || self.damaged(&format!("{what} is larger than {MAX_UNPACKED_BYTES} bytes"));
        if place.end - place.start > MAX_UNPACKED_BYTES {
            return Err(too_large());
        }
        let bytes = self.read(place)?;
        if self.packing == Packing::Plain {
            return Ok(bytes);
        }
        match unpacked(&bytes, MAX_UNPACKED_BYTES) {
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) => Err(too_large()),
            Err(cause) => Err(self.damaged(&format!("{what} cannot be unpacked: {cause}"))),
        }
    }

    fn directory(&self, place: Range<u64>) -> Result<Directory, StoreError> {
        let bytes = self.read_internal(place, "a directory")?;
        Directory::parse(&bytes).ok_or_else(|| self.damaged("a directory makes no sense"))
    }

    fn metadata(&self) -> Result<Map<String, Value>, StoreError> {
        if self.description.is_empty() {
            return Ok(Map::new());
        }
        let bytes = self.read_internal(self.description.clone(), "its metadata")?;
        match serde_json::from_slice(&bytes) {
            Ok(Value::Object(fields)) => Ok(fields),
            Ok(_) => Err(self.damaged("its metadata are no JSON object")),
            Err(error) => Err(self.damaged(&format!("its metadata are no JSON: {error}"))),
        }
    }

    fn leaf_place(&self, entry: &Entry) -> Result<Range<u64>, StoreError> {
        self.inside(&self.leaves, entry)
    }

    /// Where an entry points to, when that is inside the part of the file it belongs to.
    fn inside(&self, part: &Range<u64>, entry: &Entry) -> Result<Range<u64>, StoreError> {
        let start = part.start.checked_add(entry.offset);
        let end = start.and_then(|start| start.checked_add(entry.length.into()));
        match start.zip(end) {
            Some((start, end)) if end <= part.end => Ok(start..end),
            _ => Err(self.damaged("a directory points outside its part of the file")),
        }
    }
}

fn old_version(path: &Path) -> StoreError {
    StoreError::Unsupported {
        path: path.to_owned(),
        feature: "another version of PMTiles than 3".to_owned(),
        cure: "convert it with `pmtiles convert`",
    }
}

fn packing(path: &Path, compression: Compression) -> Result<Packing, StoreError> {
    let name = match compression {
        Compression::None | Compression::Unknown => return Ok(Packing::Plain),
        Compression::Gzip => return Ok(Packing::Gzip),
        Compression::Brotli => "Brotli",
        Compression::Zstd => "Zstandard",
    };
    Err(StoreError::Unsupported {
        path: path.to_owned(),
        feature: format!("{name} compression"),
        cure: "write it again with gzip or none",
    })
}

/// Unpacks a tile that gzip packed.
pub(super) fn unpacked_tile(path: &Path, tile: Tile, packed: &[u8]) -> Result<Vec<u8>, StoreError> {
    match unpacked(packed, MAX_TILE_BYTES) {
        Ok(Some(bytes)) => Ok(bytes),
        Ok(None) => Err(StoreError::TileTooBig { path: path.to_owned(), tile, limit: MAX_TILE_BYTES }),
        Err(cause) => {
            let detail = format!("cannot be unpacked ({cause})");
            Err(StoreError::BadTile { path: path.to_owned(), tile, detail })
        }
    }
}

/// Unpacks gzip; nothing when that would be more than `limit` bytes.
fn unpacked(packed: &[u8], limit: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    GzDecoder::new(packed).take(limit + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= limit).then_some(bytes))
}

/// Tiles `tile_id` and the `run_length − 1` after it, or (when that is 0) a leaf directory from `tile_id` on.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    tile_id: u64,
    run_length: u32,
    length: u32,
    offset: u64,
}

impl Entry {
    fn is_leaf(&self) -> bool {
        self.run_length == 0
    }

    /// One beyond the last tile of a run.
    fn end(&self) -> u64 {
        self.tile_id.saturating_add(self.run_length.into())
    }
}

#[derive(Debug)]
struct Directory {
    entries: Vec<Entry>,
}

impl Directory {
    /// Columns of numbers, seven bits a byte: how many; steps of the ids; runs; lengths; offsets, where 0 stands for
    /// "behind the one before". Nothing when the bytes are anything else.
    fn parse(mut bytes: &[u8]) -> Option<Self> {
        let number = &mut || {
            let mut value = 0_u64;
            for shift in (0..64).step_by(7) {
                let (byte, rest) = bytes.split_first()?;
                bytes = rest;
                let bits = u64::from(byte & 0x7F);
                if bits << shift >> shift != bits {
                    return None;
                }
                value |= bits << shift;
                if byte & 0x80 == 0 {
                    return Some((value, bytes.len()));
                }
            }
            None
        };
        let (count, left) = number()?;
        // Each entry takes four bytes at least, so a lying number allocates nothing.
        if count > left as u64 / 4 {
            return None;
        }
        let mut number = || number().map(|(value, _)| value);
        let mut entries = vec![Entry::default(); count as usize];
        let mut id = 0_u64;
        for (index, entry) in entries.iter_mut().enumerate() {
            let step = number()?;
            if index > 0 && step == 0 {
                return None;
            }
            id = id.checked_add(step)?;
            entry.tile_id = id;
        }
        for entry in &mut entries {
            entry.run_length = number()?.try_into().ok()?;
        }
        for entry in &mut entries {
            entry.length = number()?.try_into().ok().filter(|length| *length > 0)?;
        }
        let mut behind = None;
        for entry in &mut entries {
            entry.offset = match number()? {
                0 => behind?,
                offset => offset - 1,
            };
            behind = entry.offset.checked_add(entry.length.into());
        }
        Some(Self { entries })
    }

    /// The run that holds a tile, or the leaf that may.
    fn find(&self, id: u64) -> Option<Entry> {
        let after = self.entries.partition_point(|entry| entry.tile_id <= id);
        let entry = *self.entries.get(after.checked_sub(1)?)?;
        (entry.is_leaf() || id < entry.end()).then_some(entry)
    }
}

/// Writes a PMTiles file beside its place; it takes its name when it is finished. Equal tiles are stored once.
pub struct PmtilesWriter {
    path: PathBuf,
    metadata: TileMetadata,
    beside: Beside,
    stream: PmTilesStreamWriter<File>,
    written: HashSet<u64>,
}

impl PmtilesWriter {
    /// Starts a file.
    ///
    /// # Errors
    ///
    /// [`StoreError::Write`] with `Exists` unless it is replaced; [`StoreError::NotContinued`] when a file that is
    /// there should be continued.
    pub fn create(
        path: impl AsRef<Path>,
        metadata: TileMetadata,
        existing: Existing,
    ) -> Result<Self, StoreError> {
        let path = path.as_ref();
        if existing == Existing::Continue && path.exists() {
            return Err(StoreError::NotContinued {
                path: path.to_owned(),
                reason: "PMTiles cannot be added to",
                cure: "pass --overwrite to replace it, or write to .mbtiles or a folder and copy that",
            });
        }
        let mut beside = Beside::create(path, existing == Existing::Replace)?;
        let failed = |cause| WriteError::Io { path: path.to_owned(), cause };
        let tile_type = match metadata.format {
            TileFormat::Png => TileType::Png,
            TileFormat::Jpeg => TileType::Jpeg,
            TileFormat::WebP => TileType::Webp,
        };
        let file = beside.file_mut().try_clone().map_err(failed)?;
        let stream = PmTilesWriter::new(tile_type).create(file).map_err(|error| from_pmtiles(path, error))?;
        Ok(Self { path: path.to_owned(), metadata, beside, stream, written: HashSet::new() })
    }
}

fn from_pmtiles(path: &Path, error: PmtError) -> StoreError {
    let cause = match error {
        PmtError::Reading(cause) => cause,
        other => io::Error::other(other.to_string()),
    };
    WriteError::Io { path: path.to_owned(), cause }.into()
}

impl TileWriter for PmtilesWriter {
    fn read(&self, _: Tile) -> Result<Option<EncodedTile>, StoreError> {
        Ok(None)
    }

    fn path(&self) -> &Path {
        &self.path
    }

    fn metadata(&self) -> &TileMetadata {
        &self.metadata
    }

    fn contains(&self, tile: Tile) -> Result<bool, StoreError> {
        Ok(self.written.contains(&hilbert(tile).value()))
    }

    fn tiles(&self) -> Result<Vec<Tile>, StoreError> {
        listed(&self.path, |visitor| {
            let tiles = self.written.iter().map(|id| {
                let tile = TileCoord::from(TileId::new(*id).expect("it was the id of a tile"));
                Tile::new(tile.z(), tile.x(), tile.y()).expect("it was a tile")
            });
            let _ = tiles.map(visitor).find(ControlFlow::is_break);
            Ok(())
        })
    }

    fn write(&mut self, tile: Tile, bytes: &[u8]) -> Result<(), StoreError> {
        check_tile(&self.path, tile, bytes)?;
        if !self.written.insert(hilbert(tile).value()) {
            return Err(StoreError::TileExists { path: self.path.clone(), tile });
        }
        self.stream.add_tile(coordinates(tile), bytes).map_err(|error| from_pmtiles(&self.path, error))
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<TileMetadata, StoreError> {
        let tiles = self.tiles()?;
        self.metadata.complete(&tiles);
        let Self { path, metadata, beside, mut stream, .. } = *self;
        stream.set_zoom_range(metadata.min_zoom.unwrap_or(0), metadata.max_zoom.unwrap_or(0));
        let mut fields = json!({ "name": metadata.name, "format": metadata.format.extension() });
        let mut set = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                fields[key] = value;
            }
        };
        set("description", metadata.description.clone().map(Value::from));
        set("attribution", metadata.attribution.clone().map(Value::from));
        if let Some(edges) = metadata.edges() {
            let [west, south, east, north] = edges;
            stream.set_bounds(west, south, east, north);
            set("bounds", Some(json!(edges)));
        }
        if let Some((longitude, latitude, zoom)) = metadata.center() {
            stream.set_center(longitude, latitude, zoom);
        }
        stream.set_metadata(fields.to_string());
        stream.finalize().map_err(|error| from_pmtiles(&path, error))?;
        beside.finish()?;
        Ok(metadata)
    }
}
