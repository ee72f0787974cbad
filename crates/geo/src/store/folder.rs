//! Tiles as files: `zoom/column/row.png`.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::metadata::is_vector;
use super::{
    EncodedTile, Existing, MAX_TILE_BYTES, StoreError, TileFormat, TileMetadata, TileReader, TileWriter,
    check_tile, listed, name_of, unread,
};
use crate::files::{WriteError, atomic_write};
use crate::tile::{MAX_ZOOM, Tile};

/// The file with the metadata in a folder of tiles.
pub const TILE_JSON: &str = "tilejson.json";

/// More than any sensible TileJSON.
const MAX_TILE_JSON_BYTES: u64 = 16 << 20;

/// Endings of pictures, in the order in which they are tried.
const ENDINGS: [&str; 4] = ["png", "jpg", "jpeg", "webp"];

/// A folder of tiles, `zoom/column/row` with an ending `.png`, `.jpg`, `.jpeg` or `.webp`.
///
/// `tilejson.json` is read when it is there. Rows count from the north unless it says `"scheme": "tms"`. Files that
/// are no tiles are not looked at.
#[derive(Debug)]
pub struct FolderReader {
    path: PathBuf,
    metadata: TileMetadata,
    layout: Layout,
}

impl FolderReader {
    /// Opens a folder.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotFound`], [`StoreError::NoTiles`] without tiles and `tilejson.json`,
    /// [`StoreError::VectorTiles`], [`StoreError::Damaged`] for a `tilejson.json` that is none, [`StoreError::Io`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref();
        let document = tile_json(path)?;
        let mut layout = Layout::new(path);
        layout.is_tms =
            document.as_ref().is_some_and(|document| document.get("scheme") == Some(&"tms".into()));

        let first = layout.first_file()?;
        if let Some(ending) = &first {
            layout.endings.retain(|known| known != ending);
            layout.endings.insert(0, ending.clone());
        }
        let declared = document.as_ref().and_then(declared_format);
        let no_tiles = || StoreError::NoTiles { path: path.to_owned() };
        let format = first.as_deref().or(declared.as_deref()).ok_or_else(no_tiles)?;
        if is_vector(format) {
            return Err(StoreError::VectorTiles { path: path.to_owned(), format: format.to_owned() });
        }
        let format = TileFormat::from_name(format).ok_or_else(no_tiles)?;

        let fields = document.as_ref().and_then(Value::as_object).cloned().unwrap_or_default();
        let mut metadata = TileMetadata::from_fields(&fields, name_of(path), format);
        let zooms: Vec<u8> = layout.zooms()?.into_iter().map(|(zoom, _)| zoom).collect();
        metadata.min_zoom = metadata.min_zoom.or(zooms.iter().min().copied());
        metadata.max_zoom = metadata.max_zoom.or(zooms.iter().max().copied());
        Ok(Self { path: path.to_owned(), metadata, layout })
    }
}

impl TileReader for FolderReader {
    fn path(&self) -> &Path {
        &self.path
    }

    fn metadata(&self) -> &TileMetadata {
        &self.metadata
    }

    fn read(&self, tile: Tile) -> Result<Option<EncodedTile>, StoreError> {
        self.layout.read(tile)
    }

    fn contains(&self, tile: Tile) -> Result<bool, StoreError> {
        Ok(self.layout.file(tile).is_some())
    }

    fn visit(&self, visitor: &mut dyn FnMut(Tile) -> ControlFlow<()>) -> Result<(), StoreError> {
        self.layout.visit(visitor)
    }
}

/// Where the files of tiles are.
#[derive(Debug)]
struct Layout {
    path: PathBuf,
    /// Endings of files as they are spelt here, the likeliest first.
    endings: Vec<String>,
    is_tms: bool,
}

impl Layout {
    /// The picture of a tile, if there is one.
    fn read(&self, tile: Tile) -> Result<Option<EncodedTile>, StoreError> {
        let Some(file) = self.file(tile) else { return Ok(None) };
        let failed = |cause| unread(&file, cause);
        let mut bytes = Vec::new();
        let opened = File::open(&file).map_err(failed)?;
        opened.take(MAX_TILE_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > MAX_TILE_BYTES {
            return Err(StoreError::TileTooBig { path: self.path.clone(), tile, limit: MAX_TILE_BYTES });
        }
        EncodedTile::from_store(&self.path, tile, bytes).map(Some)
    }

    fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), endings: ENDINGS.map(str::to_owned).to_vec(), is_tms: false }
    }

    fn file_with(&self, tile: Tile, ending: &str) -> PathBuf {
        let row = if self.is_tms { tile.tms_row() } else { tile.y() };
        let mut file = self.path.join(tile.z().to_string());
        file.push(tile.x().to_string());
        file.push(format!("{row}.{ending}"));
        file
    }

    /// The file of a tile, if there is one.
    fn file(&self, tile: Tile) -> Option<PathBuf> {
        self.endings.iter().map(|ending| self.file_with(tile, ending)).find(|file| file.is_file())
    }

    fn zooms(&self) -> Result<Vec<(u8, PathBuf)>, StoreError> {
        let folders = numbered(&self.path, u32::from(MAX_ZOOM))?;
        Ok(folders.into_iter().map(|(zoom, folder)| (zoom as u8, folder)).collect())
    }

    /// The ending of the first file that may be a tile, pictures before others.
    fn first_file(&self) -> Result<Option<String>, StoreError> {
        let mut vector = None;
        for (zoom, folder) in self.zooms()? {
            for (_, column) in numbered(&folder, side(zoom) - 1)? {
                for entry in entries(&column)? {
                    let Some((_, ending)) = row_and_ending(&entry.file_name(), zoom) else { continue };
                    if TileFormat::from_name(&ending).is_some() {
                        return Ok(Some(ending));
                    }
                    vector = vector.or_else(|| is_vector(&ending).then_some(ending));
                }
            }
            if vector.is_some() {
                break;
            }
        }
        Ok(vector)
    }

    fn visit(&self, visitor: &mut dyn FnMut(Tile) -> ControlFlow<()>) -> Result<(), StoreError> {
        for (zoom, folder) in self.zooms()? {
            for (x, column) in numbered(&folder, side(zoom) - 1)? {
                for entry in entries(&column)? {
                    let Some((row, _)) = row_and_ending(&entry.file_name(), zoom) else { continue };
                    let tile =
                        if self.is_tms { Tile::from_tms(zoom, x, row) } else { Tile::new(zoom, x, row) };
                    let tile = tile.expect("numbers are within the zoom");
                    // When a tile is there with two endings, only the one that is read counts.
                    let is_read =
                        self.file(tile).is_some_and(|file| file.file_name() == Some(&entry.file_name()));
                    if is_read && visitor(tile).is_break() {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }
}

fn side(zoom: u8) -> u32 {
    1 << zoom
}

/// The format that a TileJSON document gives, in words or by the ending in its addresses.
fn declared_format(document: &Value) -> Option<String> {
    if let Some(format) = document.get("format").and_then(Value::as_str) {
        return Some(format.to_owned());
    }
    let address = document.get("tiles")?.get(0)?.as_str()?;
    let file = address.split(['?', '#']).next()?;
    Some(file.rsplit_once('.')?.1.to_owned())
}

fn tile_json(folder: &Path) -> Result<Option<Value>, StoreError> {
    let path = folder.join(TILE_JSON);
    let mut text = Vec::new();
    match File::open(&path) {
        Ok(file) => {
            let mut file = file.take(MAX_TILE_JSON_BYTES + 1);
            file.read_to_end(&mut text).map_err(|cause| unread(&path, cause))?;
        }
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(unread(&path, cause)),
    }
    let damaged = |detail: String| StoreError::Damaged { path: path.clone(), detail };
    if text.len() as u64 > MAX_TILE_JSON_BYTES {
        return Err(damaged(format!("it has more than {MAX_TILE_JSON_BYTES} bytes")));
    }
    match serde_json::from_slice(&text) {
        Ok(document @ Value::Object(_)) => Ok(Some(document)),
        Ok(_) => Err(damaged("it is no JSON object".to_owned())),
        Err(error) => Err(damaged(format!("it is no JSON: {error}"))),
    }
}

/// The entries of a folder, in any order; none when it is gone.
fn entries(folder: &Path) -> Result<impl Iterator<Item = fs::DirEntry> + use<>, StoreError> {
    let listed = fs::read_dir(folder).map_err(|cause| unread(folder, cause))?;
    Ok(listed.filter_map(Result::ok))
}

/// The folders inside a folder whose names are whole numbers up to `last`, in ascending order.
fn numbered(folder: &Path, last: u32) -> Result<Vec<(u32, PathBuf)>, StoreError> {
    let number = |entry: fs::DirEntry| {
        let number = whole_number(entry.file_name().to_str()?).filter(|number| *number <= last)?;
        entry.path().is_dir().then(|| (number, entry.path()))
    };
    let mut folders: Vec<_> = entries(folder)?.filter_map(number).collect();
    folders.sort_unstable();
    Ok(folders)
}

/// "17" and "png" of "17.png", when there may be such a row.
fn row_and_ending(name: &OsStr, zoom: u8) -> Option<(u32, String)> {
    let (row, ending) = name.to_str()?.split_once('.')?;
    let row = whole_number(row).filter(|row| *row < side(zoom))?;
    Some((row, ending.to_owned()))
}

/// A number as we write it: "07" or "+7" would be found under no tile's name.
fn whole_number(text: &str) -> Option<u32> {
    let number: u32 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

/// Writes a folder of tiles. Each tile is written beside its place, flushed to the disk and renamed: it is there whole
/// or not at all, and what is there survives a stop. (A stop may leave a hidden `.earthmapper-….part`, which no reader
/// looks at.)
#[derive(Debug)]
pub struct FolderWriter {
    path: PathBuf,
    metadata: TileMetadata,
    layout: Layout,
}

impl FolderWriter {
    /// Starts or continues a folder; its parent must be there. `tilejson.json` is written at once and again at the
    /// end.
    ///
    /// # Errors
    ///
    /// [`StoreError::Exists`] when the folder has contents, unless it is continued; [`StoreError::NotContinued`] when
    /// it should be replaced, or counts rows from the south; [`StoreError::OtherFormat`]; [`StoreError::Write`].
    pub fn create(
        path: impl AsRef<Path>,
        metadata: TileMetadata,
        existing: Existing,
    ) -> Result<Self, StoreError> {
        let path = path.as_ref();
        let failed = |cause| WriteError::Io { path: path.to_owned(), cause };
        let has_contents = match fs::read_dir(path) {
            Ok(mut entries) => entries.next().is_some(),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                fs::create_dir(path).map_err(|cause| no_folder(path, cause))?;
                false
            }
            Err(cause) => return Err(failed(cause).into()),
        };
        match existing {
            Existing::Refuse if has_contents => {
                return Err(StoreError::Exists { path: path.to_owned(), can_be_replaced: false });
            }
            Existing::Replace if has_contents => {
                return Err(StoreError::NotContinued {
                    path: path.to_owned(),
                    reason: "a folder of tiles is not replaced as a whole",
                    cure: "remove it first, or choose another folder",
                });
            }
            _ => {}
        }
        let layout = if has_contents { continued(path, metadata.format)? } else { Layout::new(path) };
        let writer = Self { path: path.to_owned(), metadata, layout };
        writer.write_tile_json()?;
        Ok(writer)
    }

    fn write_tile_json(&self) -> Result<(), StoreError> {
        let document = self.metadata.tile_json(&format!("{{z}}/{{x}}/{{y}}.{}", self.metadata.format));
        let mut text = serde_json::to_string_pretty(&document).expect("a JSON value is JSON");
        text.push('\n');
        Ok(atomic_write(&self.path.join(TILE_JSON), text.as_bytes(), true)?)
    }
}

fn no_folder(path: &Path, cause: io::Error) -> WriteError {
    match path.parent() {
        Some(parent) if cause.kind() == io::ErrorKind::NotFound => {
            WriteError::NoFolder { path: path.to_owned(), folder: parent.to_owned() }
        }
        _ => WriteError::Io { path: path.to_owned(), cause },
    }
}

/// How the files lie in a folder that has contents, if tiles of a format can be added to them.
fn continued(path: &Path, wanted: TileFormat) -> Result<Layout, StoreError> {
    let found = match FolderReader::open(path) {
        Ok(reader) => reader,
        Err(StoreError::NoTiles { .. }) => return Ok(Layout::new(path)),
        Err(error) => return Err(error),
    };
    if found.layout.is_tms {
        return Err(StoreError::NotContinued {
            path: path.to_owned(),
            reason: "it counts rows from the south (scheme tms)",
            cure: "write to another folder",
        });
    }
    if found.metadata.format != wanted {
        let found = found.metadata.format;
        return Err(StoreError::OtherFormat { path: path.to_owned(), found, wanted });
    }
    Ok(found.layout)
}

impl TileWriter for FolderWriter {
    fn read(&self, tile: Tile) -> Result<Option<EncodedTile>, StoreError> {
        self.layout.read(tile)
    }

    fn path(&self) -> &Path {
        &self.path
    }

    fn metadata(&self) -> &TileMetadata {
        &self.metadata
    }

    fn contains(&self, tile: Tile) -> Result<bool, StoreError> {
        Ok(self.layout.file(tile).is_some())
    }

    fn tiles(&self) -> Result<Vec<Tile>, StoreError> {
        listed(&self.path, |visitor| self.layout.visit(visitor))
    }

    fn write(&mut self, tile: Tile, bytes: &[u8]) -> Result<(), StoreError> {
        check_tile(&self.path, tile, bytes)?;
        let file = self.layout.file_with(tile, self.metadata.format.extension());
        let column = file.parent().expect("a tile is in a column");
        fs::create_dir_all(column).map_err(|cause| WriteError::Io { path: column.to_owned(), cause })?;
        atomic_write(&file, bytes, false).map_err(|error| match error {
            WriteError::Exists { .. } => StoreError::TileExists { path: self.path.clone(), tile },
            other => other.into(),
        })
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<TileMetadata, StoreError> {
        self.metadata.complete(&self.tiles()?);
        self.write_tile_json()?;
        Ok(self.metadata)
    }
}
