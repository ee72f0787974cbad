//! Tiles in an SQLite database: MBTiles 1.3.

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::limits::Limit;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, params};
use serde_json::{Map, Value};

use super::metadata::{Content, is_vector};
use super::pmtiles::unpacked_tile;
use super::{
    EncodedTile, Existing, MAX_TILE_BYTES, StoreError, TileFormat, TileMetadata, TileReader, TileWriter,
    beginning, check_tile, listed, name_of, other_kind,
};
use crate::files::{Beside, WriteError, check_output};
use crate::tile::Tile;

/// How every SQLite database begins.
pub(super) const MAGIC: &[u8] = b"SQLite format 3\0";

const EXPECTED: &str = "MBTiles";

/// How what gzip packed begins.
const GZIP: [u8; 2] = [0x1F, 0x8B];

/// "MPBX", by which `file` and others know MBTiles.
const APPLICATION_ID: i32 = 0x4D50_4258;

/// How long a lock of another program is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// When what was written is committed: after so many tiles, so many bytes or so long since the last time, whichever
/// comes first.
const BATCH_TILES: usize = 256;
const BATCH_BYTES: usize = 8 << 20;
const BATCH_TIME: Duration = Duration::from_secs(1);

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS metadata (name TEXT, value TEXT);
    CREATE TABLE IF NOT EXISTS tiles
        (zoom_level INTEGER, tile_column INTEGER, tile_row INTEGER, tile_data BLOB);
    CREATE UNIQUE INDEX IF NOT EXISTS tile_index ON tiles (zoom_level, tile_column, tile_row);
";

const FIND: &str = "FROM tiles WHERE zoom_level = ?1 AND tile_column = ?2 AND tile_row = ?3 LIMIT 1";

/// An MBTiles file. Rows count from the south inside and from the north outside.
#[derive(Debug)]
pub struct MbtilesReader {
    path: PathBuf,
    metadata: TileMetadata,
    connection: Mutex<Connection>,
}

impl MbtilesReader {
    /// Opens a file, read-only. (After a writer was killed, the file is first set back to its last whole state; this
    /// needs the right to write to it.)
    ///
    /// # Errors
    ///
    /// [`StoreError::NotFound`], [`StoreError::EmptyFile`], [`StoreError::OtherKind`], [`StoreError::Damaged`],
    /// [`StoreError::VectorTiles`], [`StoreError::Unsupported`], [`StoreError::NoTiles`] when there is neither a tile
    /// nor a format, [`StoreError::InUse`], [`StoreError::Io`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref();
        let connection = open_to_read(path)?;
        let metadata = read_metadata(path, &connection)?;
        Ok(Self { path: path.to_owned(), metadata, connection: Mutex::new(connection) })
    }

    /// Opens a file of Mapbox vector tiles, which are read with [`MbtilesReader::unpacked_tile`] only; the format in its
    /// metadata means nothing.
    pub(crate) fn open_vector(path: &Path) -> Result<Self, StoreError> {
        let connection = open_to_read(path)?;
        let fields = fields(&connection).map_err(|error| from_sqlite(path, error))?;
        let declared = fields.get("format").and_then(Value::as_str).unwrap_or_default();
        let content = first_content(path, &connection)?;
        let is_readable = match content {
            Some(content) => content == Content::Vector && !declared.eq_ignore_ascii_case("mlt"),
            None => is_vector(declared),
        };
        if !is_readable {
            return Err(StoreError::Unsupported {
                path: path.to_owned(),
                feature: "tiles that are no Mapbox vector tiles".to_owned(),
                cure: "give a file of Mapbox vector tiles (MVT)",
            });
        }
        let metadata = metadata(path, &connection, &fields, TileFormat::Png)?;
        Ok(Self { path: path.to_owned(), metadata, connection: Mutex::new(connection) })
    }

    /// The bytes of a tile, unpacked when they are packed by gzip.
    pub(crate) fn unpacked_tile(&self, tile: Tile) -> Result<Option<Vec<u8>>, StoreError> {
        let bytes = tile_data(&self.path, &self.connection(), tile)?;
        match bytes {
            Some(packed) if packed.starts_with(&GZIP) => unpacked_tile(&self.path, tile, &packed).map(Some),
            bytes => Ok(bytes),
        }
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        // No state of ours can be left half changed by a panic.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TileReader for MbtilesReader {
    fn path(&self) -> &Path {
        &self.path
    }

    fn metadata(&self) -> &TileMetadata {
        &self.metadata
    }

    fn read(&self, tile: Tile) -> Result<Option<EncodedTile>, StoreError> {
        match tile_data(&self.path, &self.connection(), tile)? {
            None => Ok(None),
            Some(bytes) => EncodedTile::from_store(&self.path, tile, bytes).map(Some),
        }
    }

    fn contains(&self, tile: Tile) -> Result<bool, StoreError> {
        contains(&self.path, &self.connection(), tile)
    }

    fn visit(&self, visitor: &mut dyn FnMut(Tile) -> ControlFlow<()>) -> Result<(), StoreError> {
        // A connection of its own, so that the visitor may read tiles.
        visit(&self.path, &open_to_read(&self.path)?, visitor)
    }
}

/// A path that SQLite cannot take for an address: "file:a.mbtiles" is a name like others.
fn plain(path: &Path) -> PathBuf {
    if path.is_absolute() { path.to_owned() } else { Path::new(".").join(path) }
}

fn open_to_read(path: &Path) -> Result<Connection, StoreError> {
    let beginning = beginning(path, 512)?;
    if !beginning.starts_with(MAGIC) {
        return Err(other_kind(path, EXPECTED, &beginning));
    }
    match open_and_look(path, OpenFlags::SQLITE_OPEN_READ_ONLY) {
        Ok(connection) => Ok(connection),
        // A journal that a killed writer left can only be played back by a connection that may write.
        Err(error) if is_hot(&error) => {
            open_and_look(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(|error| from_sqlite(path, error))
        }
        Err(error) => Err(from_sqlite(path, error)),
    }
    .and_then(|connection| {
        let count = "SELECT count(*) FROM sqlite_master WHERE name = 'tiles' AND type IN ('table', 'view')";
        match connection.query_row(count, [], |row| row.get::<_, i64>(0)) {
            Ok(1..) => Ok(connection),
            Ok(_) => Err(StoreError::OtherKind {
                path: path.to_owned(),
                expected: EXPECTED,
                found: "an SQLite database without tiles".to_owned(),
                cure: "give a file of tiles",
            }),
            Err(error) => Err(from_sqlite(path, error)),
        }
    })
}

fn is_hot(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen))
}

fn open_and_look(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(plain(path), flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(PATIENCE)?;
    // Longer values are refused before they are loaded. The rest of a row is small.
    connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, MAX_TILE_BYTES as i32)?;
    // Views and triggers of a foreign file get no functions that could do anything but compute.
    connection.execute_batch("PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON;")?;
    connection.query_row("SELECT count(*) FROM sqlite_master", [], |_| Ok(()))?;
    Ok(connection)
}

/// What SQLite says about a file, in our words.
fn from_sqlite(path: &Path, error: rusqlite::Error) -> StoreError {
    let path = path.to_owned();
    let said = |error: &rusqlite::Error| match error {
        rusqlite::Error::SqliteFailure(_, Some(text)) => text.clone(),
        other => other.to_string(),
    };
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::InUse { path },
        Some(ErrorCode::DiskFull) => {
            WriteError::Io { path, cause: io::Error::from(io::ErrorKind::StorageFull) }.into()
        }
        Some(ErrorCode::ReadOnly) => {
            WriteError::Io { path, cause: io::Error::from(io::ErrorKind::PermissionDenied) }.into()
        }
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::SystemIoFailure) => {
            StoreError::Io { path, cause: io::Error::other(said(&error)) }
        }
        _ => StoreError::Damaged { path, detail: said(&error) },
    }
}

fn read_metadata(path: &Path, connection: &Connection) -> Result<TileMetadata, StoreError> {
    let fields = fields(connection).map_err(|error| from_sqlite(path, error))?;
    let declared = fields.get("format").and_then(Value::as_str).unwrap_or_default();
    let vector = |format: &str| StoreError::VectorTiles { path: path.to_owned(), format: format.to_owned() };
    if is_vector(declared) {
        return Err(vector(declared));
    }
    let format = match (TileFormat::from_name(declared), first_content(path, connection)?) {
        (_, Some(Content::Vector)) => return Err(vector("pbf")),
        (Some(format), _) => format,
        (None, Some(Content::Picture(format))) => format,
        (None, None) if declared.is_empty() => {
            return Err(StoreError::NoTiles { path: path.to_owned() });
        }
        (None, _) => {
            return Err(StoreError::Unsupported {
                path: path.to_owned(),
                feature: format!("tiles of the format {declared:?}"),
                cure: "convert them to PNG, JPEG or WebP",
            });
        }
    };
    metadata(path, connection, &fields, format)
}

/// What the first tile begins like; none without tiles.
fn first_content(path: &Path, connection: &Connection) -> Result<Option<Content>, StoreError> {
    let first = "SELECT tile_data FROM tiles LIMIT 1";
    let content = connection.query_row(first, [], |row| {
        Ok(row.get_ref(0)?.as_bytes().map(Content::of).unwrap_or(Content::Unknown))
    });
    content.optional().map_err(|error| from_sqlite(path, error))
}

/// Metadata from the table, with zooms from the tiles where it says none.
fn metadata(
    path: &Path,
    connection: &Connection,
    fields: &Map<String, Value>,
    format: TileFormat,
) -> Result<TileMetadata, StoreError> {
    let mut metadata = TileMetadata::from_fields(fields, name_of(path), format);
    if metadata.min_zoom.is_none() || metadata.max_zoom.is_none() {
        let zooms = "SELECT min(zoom_level), max(zoom_level) FROM tiles WHERE zoom_level BETWEEN 0 AND 30";
        let found = connection.query_row(zooms, [], |row| Ok((row.get(0)?, row.get(1)?)));
        let (low, deep): (Option<u8>, Option<u8>) = found.map_err(|error| from_sqlite(path, error))?;
        metadata.min_zoom = metadata.min_zoom.or(low);
        metadata.max_zoom = metadata.max_zoom.or(deep);
    }
    Ok(metadata)
}

/// The rows of the table of metadata; none when there is no such table.
fn fields(connection: &Connection) -> rusqlite::Result<Map<String, Value>> {
    let table = "SELECT count(*) FROM sqlite_master WHERE name = 'metadata' AND type IN ('table', 'view')";
    let mut fields = Map::new();
    if connection.query_row(table, [], |row| row.get::<_, i64>(0))? == 0 {
        return Ok(fields);
    }
    let mut statement = connection.prepare("SELECT name, value FROM metadata LIMIT 1000")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let text = |column| match row.get_ref(column) {
            Ok(ValueRef::Text(text)) => Some(String::from_utf8_lossy(text).into_owned()),
            Ok(ValueRef::Integer(number)) => Some(number.to_string()),
            Ok(ValueRef::Real(number)) => Some(number.to_string()),
            _ => None,
        };
        if let (Some(name), Some(value)) = (text(0), text(1)) {
            fields.insert(name, value.into());
        }
    }
    Ok(fields)
}

fn tile_data(path: &Path, connection: &Connection, tile: Tile) -> Result<Option<Vec<u8>>, StoreError> {
    let data = connection.query_row(
        &format!("SELECT tile_data {FIND}"),
        params![tile.z(), tile.x(), tile.tms_row()],
        |row| {
            Ok(match row.get_ref(0)? {
                ValueRef::Blob(bytes) | ValueRef::Text(bytes) => Some(bytes.to_vec()),
                ValueRef::Null => Some(Vec::new()),
                ValueRef::Integer(_) | ValueRef::Real(_) => None,
            })
        },
    );
    match data.optional() {
        Ok(None) => Ok(None),
        Ok(Some(Some(bytes))) => Ok(Some(bytes)),
        Ok(Some(None)) => {
            let detail = "is a number, not a picture".to_owned();
            Err(StoreError::BadTile { path: path.to_owned(), tile, detail })
        }
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::TooBig) => {
            Err(StoreError::TileTooBig { path: path.to_owned(), tile, limit: MAX_TILE_BYTES })
        }
        Err(error) => Err(from_sqlite(path, error)),
    }
}

fn contains(path: &Path, connection: &Connection, tile: Tile) -> Result<bool, StoreError> {
    let parameters = params![tile.z(), tile.x(), tile.tms_row()];
    let found = connection.query_row(&format!("SELECT 1 {FIND}"), parameters, |_| Ok(())).optional();
    Ok(found.map_err(|error| from_sqlite(path, error))?.is_some())
}

fn visit(
    path: &Path,
    connection: &Connection,
    visitor: &mut dyn FnMut(Tile) -> ControlFlow<()>,
) -> Result<(), StoreError> {
    let failed = |error| from_sqlite(path, error);
    let mut statement =
        connection.prepare("SELECT zoom_level, tile_column, tile_row FROM tiles").map_err(failed)?;
    let mut rows = statement.query([]).map_err(failed)?;
    while let Some(row) = rows.next().map_err(failed)? {
        let number = |column| row.get::<_, i64>(column).map_err(failed);
        let (z, x, row) = (number(0)?, number(1)?, number(2)?);
        let tile = u8::try_from(z).ok().zip(u32::try_from(x).ok()).zip(u32::try_from(row).ok());
        let tile = tile.and_then(|((z, x), row)| Tile::from_tms(z, x, row).ok());
        let Some(tile) = tile else {
            let detail = format!("it lists a tile of zoom {z}, column {x} and row {row}, which cannot be");
            return Err(StoreError::Damaged { path: path.to_owned(), detail });
        };
        if visitor(tile).is_break() {
            break;
        }
    }
    Ok(())
}

/// Writes an MBTiles file, by transactions. A tile is committed at once when the last commit is more than a second ago,
/// otherwise with those that follow: a kill or a power cut loses at most the tiles of such a second, and each that is
/// there is whole. Before a pause call [`TileWriter::flush`], which also lets other programs write. A file that
/// replaces another is written beside it instead.
pub struct MbtilesWriter {
    path: PathBuf,
    metadata: TileMetadata,
    connection: Connection,
    /// The file that will take the place of an older one.
    beside: Option<Beside>,
    /// What is not committed yet.
    batch: Option<Batch>,
    committed: Instant,
}

#[derive(Default)]
struct Batch {
    tiles: usize,
    bytes: usize,
}

impl MbtilesWriter {
    /// Starts or continues a file.
    ///
    /// # Errors
    ///
    /// [`StoreError::Exists`], unless it is continued or replaced; [`StoreError::NotContinued`] when its tiles are a
    /// view; [`StoreError::OtherFormat`]; [`StoreError::Write`]; when continuing, those of [`MbtilesReader::open`].
    pub fn create(
        path: impl AsRef<Path>,
        metadata: TileMetadata,
        existing: Existing,
    ) -> Result<Self, StoreError> {
        let path = path.as_ref();
        check_output(path, true)?;
        let is_there = path.exists();
        if is_there && existing == Existing::Refuse {
            return Err(StoreError::Exists { path: path.to_owned(), can_be_replaced: true });
        }
        // A writer that was killed at once leaves a file without bytes or tables.
        let is_continued = is_there && existing == Existing::Continue && has_tiles(path)?;
        if is_continued {
            check_continued(path, metadata.format)?;
        }
        let beside =
            (is_there && existing == Existing::Replace).then(|| Beside::create(path, true)).transpose()?;
        let place = beside.as_ref().map_or(path, Beside::temporary_path);
        let connection = open_to_write(place, is_continued).map_err(|error| from_sqlite(path, error))?;
        let mut writer = Self {
            path: path.to_owned(),
            metadata,
            connection,
            beside,
            batch: None,
            committed: Instant::now(),
        };
        writer.write_metadata()?;
        writer.flush()?;
        Ok(writer)
    }

    fn execute(&self, sql: &str) -> Result<(), StoreError> {
        self.connection.execute_batch(sql).map_err(|error| from_sqlite(&self.path, error))
    }

    fn begin(&mut self) -> Result<&mut Batch, StoreError> {
        if self.batch.is_none() {
            self.execute("BEGIN IMMEDIATE")?;
        }
        Ok(self.batch.get_or_insert_default())
    }

    fn write_metadata(&mut self) -> Result<(), StoreError> {
        self.begin()?;
        let joined = |numbers: &[f64]| numbers.iter().map(f64::to_string).collect::<Vec<_>>().join(",");
        let metadata = &self.metadata;
        let center = metadata.center();
        let rows = [
            ("name", Some(metadata.name.clone())),
            ("format", Some(metadata.format.extension().to_owned())),
            ("type", Some("baselayer".to_owned())),
            ("description", metadata.description.clone()),
            ("attribution", metadata.attribution.clone()),
            ("bounds", metadata.edges().map(|edges| joined(&edges))),
            ("center", center.map(|(longitude, latitude, zoom)| joined(&[longitude, latitude, zoom.into()]))),
            ("minzoom", metadata.min_zoom.map(|zoom| zoom.to_string())),
            ("maxzoom", metadata.max_zoom.map(|zoom| zoom.to_string())),
        ];
        for (name, value) in rows {
            let failed = |error| from_sqlite(&self.path, error);
            self.connection.execute("DELETE FROM metadata WHERE name = ?1", [name]).map_err(failed)?;
            if let Some(value) = value {
                let insert = "INSERT INTO metadata (name, value) VALUES (?1, ?2)";
                self.connection.execute(insert, [name, &value]).map_err(failed)?;
            }
        }
        Ok(())
    }
}

/// Whether a file has come as far as a table of tiles.
fn has_tiles(path: &Path) -> Result<bool, StoreError> {
    match open_to_read(path) {
        Ok(_) => Ok(true),
        Err(StoreError::EmptyFile { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

fn check_continued(path: &Path, wanted: TileFormat) -> Result<(), StoreError> {
    let found = match MbtilesReader::open(path) {
        Ok(reader) => reader,
        Err(StoreError::NoTiles { .. }) => return Ok(()),
        Err(error) => return Err(error),
    };
    let views = "SELECT count(*) FROM sqlite_master WHERE name IN ('tiles', 'metadata') AND type = 'view'";
    let views: i64 = found
        .connection()
        .query_row(views, [], |row| row.get(0))
        .map_err(|error| from_sqlite(path, error))?;
    if views > 0 {
        return Err(StoreError::NotContinued {
            path: path.to_owned(),
            reason: "its tiles are a view, which cannot be added to",
            cure: "copy it to a new file first",
        });
    }
    let found = found.metadata.format;
    if found == wanted {
        Ok(())
    } else {
        Err(StoreError::OtherFormat { path: path.to_owned(), found, wanted })
    }
}

fn open_to_write(path: &Path, is_continued: bool) -> rusqlite::Result<Connection> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(plain(path), flags)?;
    connection.busy_timeout(PATIENCE)?;
    if !is_continued {
        connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    }
    connection.execute_batch(&format!("PRAGMA trusted_schema = OFF; BEGIN IMMEDIATE; {SCHEMA} COMMIT;"))?;
    Ok(connection)
}

impl TileWriter for MbtilesWriter {
    fn read(&self, tile: Tile) -> Result<Option<EncodedTile>, StoreError> {
        let bytes = tile_data(&self.path, &self.connection, tile)?;
        bytes.map(|bytes| EncodedTile::from_store(&self.path, tile, bytes)).transpose()
    }

    fn path(&self) -> &Path {
        &self.path
    }

    fn metadata(&self) -> &TileMetadata {
        &self.metadata
    }

    fn contains(&self, tile: Tile) -> Result<bool, StoreError> {
        contains(&self.path, &self.connection, tile)
    }

    fn tiles(&self) -> Result<Vec<Tile>, StoreError> {
        listed(&self.path, |visitor| visit(&self.path, &self.connection, visitor))
    }

    fn write(&mut self, tile: Tile, bytes: &[u8]) -> Result<(), StoreError> {
        check_tile(&self.path, tile, bytes)?;
        if self.contains(tile)? {
            return Err(StoreError::TileExists { path: self.path.clone(), tile });
        }
        self.begin()?;
        let insert =
            "INSERT INTO tiles (zoom_level, tile_column, tile_row, tile_data) VALUES (?1, ?2, ?3, ?4)";
        self.connection
            .execute(insert, params![tile.z(), tile.x(), tile.tms_row(), bytes])
            .map_err(|error| from_sqlite(&self.path, error))?;
        let batch = self.begin()?;
        batch.tiles += 1;
        batch.bytes += bytes.len();
        let is_full = batch.tiles >= BATCH_TILES || batch.bytes >= BATCH_BYTES;
        if is_full || self.committed.elapsed() >= BATCH_TIME {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        if self.batch.is_some() {
            self.execute("COMMIT")?;
            self.batch = None;
            self.committed = Instant::now();
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<TileMetadata, StoreError> {
        let tiles = self.tiles()?;
        self.metadata.complete(&tiles);
        self.write_metadata()?;
        self.flush()?;
        let (metadata, beside) = (self.metadata.clone(), self.beside.take());
        // Closes the database before it is renamed.
        drop(self);
        if let Some(beside) = beside {
            beside.finish()?;
        }
        Ok(metadata)
    }
}

/// What was written is kept, also when the work stops with an error.
impl Drop for MbtilesWriter {
    fn drop(&mut self) {
        if self.beside.is_none() {
            let _ = self.flush();
        }
    }
}
