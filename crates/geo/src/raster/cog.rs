//! The bytes of a cloud-optimised GeoTIFF: all tables first, then the tiles, the smallest overview first.

use std::fs::File;
use std::io::{self, BufWriter, Seek, Write};

use super::geokeys::PixelIs;
use super::georeference::GeoReference;
use super::tag;
use super::writer::Validity;
use crate::provenance::Provenance;

/// Pixels a side of a tile.
pub(super) const TILE: u32 = 256;

/// How many of a tile's last bytes are repeated after it.
pub(super) const TRAILER: usize = 4;

/// Bytes before a tile, which tell its size.
const LEADER: u64 = 4;

/// GDAL's note on how the file is laid out, which lets readers get a tile in one request. The space at its end is room
/// for a later YES.
const LAYOUT: &str = "LAYOUT=IFDS_BEFORE_DATA\nBLOCK_ORDER=ROW_MAJOR\nBLOCK_LEADER=SIZE_AS_UINT4\n\
    BLOCK_TRAILER=LAST_4_BYTES_REPEATED\nKNOWN_INCOMPATIBLE_EDITION=NO\n ";

/// The tiles of the raster or an overview, row by row, in a file of their own.
pub(super) struct LevelTiles {
    pub width: u32,
    pub height: u32,
    /// Bytes of each tile, without leader and trailer.
    pub sizes: Vec<u32>,
    pub file: File,
}

impl LevelTiles {
    /// Bytes of all tiles with their leaders and trailers.
    fn bytes(&self) -> u64 {
        self.sizes.iter().map(|size| stored_bytes(*size)).sum()
    }
}

fn stored_bytes(size: u32) -> u64 {
    LEADER + u64::from(size) + TRAILER as u64
}

/// What the tables say beside sizes.
pub(super) struct Contents<'a> {
    pub validity: Validity,
    pub georeference: Option<&'a GeoReference>,
    pub provenance: Option<&'a Provenance>,
}

/// Values in a pixel.
pub(super) fn channels(validity: Validity) -> usize {
    if validity == Validity::Alpha { 4 } else { 3 }
}

/// Writes the file; the first level is the raster itself.
pub(super) fn write(file: &mut File, mut levels: Vec<LevelTiles>, contents: &Contents<'_>) -> io::Result<()> {
    let tiles: u64 = levels.iter().map(LevelTiles::bytes).sum();
    let tables = |format: Format| tables(&levels, &vec![0; levels.len()], contents, format).len() as u64;
    let format =
        if tables(Format::Classic) + tiles <= u64::from(u32::MAX) { Format::Classic } else { Format::Big };

    let mut starts = vec![0; levels.len()];
    let mut end = tables(format);
    for (start, level) in starts.iter_mut().zip(&levels).rev() {
        *start = end;
        end += level.bytes();
    }
    let mut file = BufWriter::new(file);
    file.write_all(&self::tables(&levels, &starts, contents, format))?;
    for level in levels.iter_mut().rev() {
        level.file.rewind()?;
        io::copy(&mut level.file, &mut file)?;
    }
    file.flush()
}

/// Whether positions have 4 or 8 bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Format {
    Classic,
    Big,
}

impl Format {
    /// A position or a count, in as many bytes as the format has for it.
    fn position(self, value: u64) -> Vec<u8> {
        match self {
            // Checked before: the whole file is smaller than 4 GiB.
            Self::Classic => (value as u32).to_le_bytes().to_vec(),
            Self::Big => value.to_le_bytes().to_vec(),
        }
    }

    /// Bytes of a position, which is also how large a value may be to stand in the table itself.
    fn width(self) -> usize {
        match self {
            Self::Classic => 4,
            Self::Big => 8,
        }
    }
}

/// Everything before the tiles. `starts` says where the tiles of each level begin.
fn tables(levels: &[LevelTiles], starts: &[u64], contents: &Contents<'_>, format: Format) -> Vec<u8> {
    let note = format!("GDAL_STRUCTURAL_METADATA_SIZE={:06} bytes\n{LAYOUT}", LAYOUT.len());
    let head: &[u8] = match format {
        Format::Classic => b"II\x2a\0",
        Format::Big => b"II\x2b\0\x08\0\0\0",
    };
    let first = (head.len() + format.width() + note.len()).next_multiple_of(8);
    let mut bytes = head.to_vec();
    bytes.extend(format.position(first as u64));
    bytes.extend(note.as_bytes());
    bytes.resize(first, 0);

    for (index, (level, start)) in levels.iter().zip(starts).enumerate() {
        let entries = entries(level, *start, (index == 0).then_some(contents), contents.validity, format);
        append_table(&mut bytes, entries, index + 1 == levels.len(), format);
    }
    bytes
}

/// One tag.
struct Entry {
    code: u16,
    kind: u16,
    count: usize,
    value: Vec<u8>,
}

impl Entry {
    fn bytes(code: u16, value: &[u8]) -> Self {
        Self { code, kind: 1, count: value.len(), value: value.to_vec() }
    }

    fn text(code: u16, text: &str) -> Self {
        let mut value = text.replace('\0', " ").into_bytes();
        value.push(0);
        Self { code, kind: 2, count: value.len(), value }
    }

    fn shorts(code: u16, values: &[u16]) -> Self {
        let value = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self { code, kind: 3, count: values.len(), value }
    }

    fn longs(code: u16, values: &[u32]) -> Self {
        let value = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self { code, kind: 4, count: values.len(), value }
    }

    fn doubles(code: u16, values: &[f64]) -> Self {
        let value = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self { code, kind: 12, count: values.len(), value }
    }

    fn positions(code: u16, values: impl ExactSizeIterator<Item = u64>, format: Format) -> Self {
        let kind = match format {
            Format::Classic => 4,
            Format::Big => 16,
        };
        let count = values.len();
        Self { code, kind, count, value: values.flat_map(|value| format.position(value)).collect() }
    }
}

/// The tags of one level; what is said once only (place, provenance) stands with the raster itself.
fn entries(
    level: &LevelTiles,
    start: u64,
    once: Option<&Contents<'_>>,
    validity: Validity,
    format: Format,
) -> Vec<Entry> {
    let channels = channels(validity);
    let mut at = start + LEADER;
    let positions = level.sizes.iter().map(|size| {
        let position = at;
        at += stored_bytes(*size);
        position
    });
    let mut entries = vec![
        Entry::longs(tag::SUBFILE, &[u32::from(once.is_none())]),
        Entry::longs(256, &[level.width]),
        Entry::longs(257, &[level.height]),
        Entry::shorts(258, &vec![8; channels]),
        // Deflate, RGB, values of a pixel side by side, differences from the left.
        Entry::shorts(259, &[8]),
        Entry::shorts(262, &[2]),
        Entry::shorts(277, &[channels as u16]),
        Entry::shorts(284, &[1]),
        Entry::shorts(317, &[2]),
        Entry::longs(322, &[TILE]),
        Entry::longs(323, &[TILE]),
        Entry::positions(324, positions, format),
        Entry::longs(325, &level.sizes),
    ];
    match validity {
        // The fourth value is alpha that the colours were not multiplied with.
        Validity::Alpha => entries.push(Entry::shorts(338, &[2])),
        Validity::Nodata(value) => entries.push(Entry::text(tag::NODATA, &value.to_string())),
        Validity::Everywhere => {}
    }
    if let Some(reference) = once.and_then(|contents| contents.georeference) {
        entries.extend(place_entries(reference));
    }
    if let Some(provenance) = once.and_then(|contents| contents.provenance) {
        entries.push(Entry::text(270, &provenance.description()));
        entries.push(Entry::text(305, &provenance.software));
        entries.push(Entry::bytes(700, provenance.xmp().as_bytes()));
    }
    // TIFF wants them in order.
    entries.sort_by_key(|entry| entry.code);
    entries
}

/// The tags of the place.
fn place_entries(reference: &GeoReference) -> Vec<Entry> {
    let transform = match reference.pixel_is() {
        PixelIs::Area => *reference.transform(),
        PixelIs::Point => reference.transform().moved(0.5, 0.5),
    };
    let (x, y) = transform.origin;
    let mut entries = if transform.is_north_up() {
        vec![
            Entry::doubles(tag::PIXEL_SCALE, &[transform.right.0, -transform.down.1, 0.0]),
            Entry::doubles(tag::TIE_POINTS, &[0.0, 0.0, 0.0, x, y, 0.0]),
        ]
    } else {
        let (right, down) = (transform.right, transform.down);
        let rows = [
            [right.0, down.0, 0.0, x],
            [right.1, down.1, 0.0, y],
            [0.0, 0.0, 0.0, 0.0],
            [0.0, 0.0, 0.0, 1.0],
        ];
        vec![Entry::doubles(tag::TRANSFORMATION, rows.as_flattened())]
    };
    if let Some(keys) = reference.keys() {
        entries.push(Entry::shorts(tag::GEO_KEYS, &keys.directory));
        if !keys.doubles.is_empty() {
            entries.push(Entry::doubles(tag::GEO_DOUBLES, &keys.doubles));
        }
        if !keys.text.is_empty() {
            entries.push(Entry::text(tag::GEO_ASCII, &keys.text));
        }
    }
    entries
}

/// Appends a table of tags, and after it the values that do not fit into it.
fn append_table(bytes: &mut Vec<u8>, entries: Vec<Entry>, is_last: bool, format: Format) {
    let width = format.width();
    let (count_bytes, entry_bytes) = match format {
        Format::Classic => (2, 12),
        Format::Big => (8, 20),
    };
    let table_end = bytes.len() + count_bytes + entries.len() * entry_bytes + width;
    let mut values = Vec::new();
    bytes.extend(&(entries.len() as u64).to_le_bytes()[..count_bytes]);
    for Entry { code, kind, count, mut value } in entries {
        bytes.extend(code.to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        bytes.extend(format.position(count as u64));
        if value.len() <= width {
            value.resize(width, 0);
            bytes.extend(value);
        } else {
            values.resize((table_end + values.len()).next_multiple_of(8) - table_end, 0);
            bytes.extend(format.position((table_end + values.len()) as u64));
            values.extend(value);
        }
    }
    let end = (table_end + values.len()).next_multiple_of(8);
    bytes.extend(format.position(if is_last { 0 } else { end as u64 }));
    bytes.extend(values);
    bytes.resize(end, 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_note_has_the_length_that_gdal_writes() {
        assert_eq!(LAYOUT.len(), 140);
    }

    #[test]
    fn tables_of_both_formats_have_the_size_they_are_counted_with() {
        let level = |width: u32, height: u32| LevelTiles {
            width,
            height,
            sizes: vec![1000; (width.div_ceil(TILE) * height.div_ceil(TILE)) as usize],
            file: tempfile::tempfile().unwrap(),
        };
        let levels = [level(600, 300), level(300, 150), level(150, 75)];
        let contents = Contents { validity: Validity::Alpha, georeference: None, provenance: None };
        for (format, magic) in [(Format::Classic, 42), (Format::Big, 43)] {
            let counted = tables(&levels, &[0; 3], &contents, format);
            let placed = tables(&levels, &[5000, 3000, 2000], &contents, format);
            assert_eq!((counted.len(), counted[2]), (placed.len(), magic));
        }
    }
}
