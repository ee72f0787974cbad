//! Tiles as files of one folder whose names hold the numbers: `OAM-638595-541990-20.png`.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{
    EncodedTile, MAX_LISTED_TILES, MAX_TILE_BYTES, StoreError, TileFormat, TileMetadata, TileReader,
    beginning, name_of, unread,
};
use crate::tile::{BoundingBox, Tile};

/// A text that says nothing about tiles.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error(
    "{0:?} is no pattern of tile names; write {{z}}, {{x}} and {{y}} once each, such as OAM-{{x}}-{{y}}-{{z}}"
)]
pub struct UnclearPattern(pub String);

/// How file names say which tile they are: text with `{z}`, `{x}` and `{y}` once each, without the ending. `{-y}`
/// instead of `{y}` counts rows from the south.
///
/// ```
/// use earthmapper_geo::store::TilePattern;
///
/// let pattern: TilePattern = "OAM-{x}-{y}-{z}".parse()?;
/// let tile = pattern.tile("OAM-638595-541990-20").unwrap();
/// assert_eq!(tile.to_string(), "20/638595/541990");
/// assert_eq!(pattern.tile("OAM-638595-541990"), None);
/// # Ok::<(), earthmapper_geo::store::UnclearPattern>(())
/// ```
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct TilePattern {
    text: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Part {
    Text(String),
    Zoom,
    Column,
    Row,
    RowFromSouth,
}

impl TilePattern {
    /// The tile that a file name without its ending means, if it fits.
    pub fn tile(&self, name: &str) -> Option<Tile> {
        let (mut zoom, mut column, mut row, mut from_south) = (None, None, None, false);
        let mut rest = name;
        for part in &self.parts {
            if let Part::Text(text) = part {
                rest = rest.strip_prefix(text.as_str())?;
                continue;
            }
            let digits = rest.find(|character: char| !character.is_ascii_digit()).unwrap_or(rest.len());
            let number: u32 = rest[..digits].parse().ok()?;
            rest = &rest[digits..];
            match part {
                Part::Zoom => zoom = u8::try_from(number).ok(),
                Part::Column => column = Some(number),
                _ => (row, from_south) = (Some(number), *part == Part::RowFromSouth),
            }
        }
        let make = if from_south { Tile::from_tms } else { Tile::new };
        if rest.is_empty() { make(zoom?, column?, row?).ok() } else { None }
    }
}

impl FromStr for TilePattern {
    type Err = UnclearPattern;

    fn from_str(text: &str) -> Result<Self, UnclearPattern> {
        let unclear = || UnclearPattern(text.to_owned());
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').ok_or_else(unclear)?;
            let number = match name {
                "z" => Part::Zoom,
                "x" => Part::Column,
                "y" => Part::Row,
                "-y" => Part::RowFromSouth,
                _ => return Err(unclear()),
            };
            let touches = before.is_empty() && !parts.is_empty();
            if touches || before.contains(['/', '\\']) {
                return Err(unclear());
            }
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            parts.push(number);
            rest = after;
        }
        if rest.contains(['/', '\\']) {
            return Err(unclear());
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        let count = |wanted: &[Part]| parts.iter().filter(|part| wanted.contains(part)).count();
        let complete = count(&[Part::Zoom]) == 1
            && count(&[Part::Column]) == 1
            && count(&[Part::Row, Part::RowFromSouth]) == 1;
        if complete { Ok(Self { text: text.to_owned(), parts }) } else { Err(unclear()) }
    }
}

impl fmt::Display for TilePattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl TryFrom<String> for TilePattern {
    type Error = UnclearPattern;

    fn try_from(text: String) -> Result<Self, UnclearPattern> {
        text.parse()
    }
}

impl From<TilePattern> for String {
    fn from(pattern: TilePattern) -> Self {
        pattern.text
    }
}

/// A folder whose files are named by a [`TilePattern`]; the names are listed once, when it is opened. Files that do not
/// fit are not looked at.
#[derive(Debug)]
pub struct NamedReader {
    path: PathBuf,
    metadata: TileMetadata,
    files: BTreeMap<Tile, PathBuf>,
}

impl NamedReader {
    /// Lists a folder.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotFound`], [`StoreError::NoNamedTiles`] when no file fits, [`StoreError::TooManyTiles`],
    /// [`StoreError::Io`].
    pub fn open(path: impl AsRef<Path>, pattern: &TilePattern) -> Result<Self, StoreError> {
        let path = path.as_ref();
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(path).map_err(|cause| unread(path, cause))? {
            let file = entry.map_err(|cause| unread(path, cause))?.path();
            let ending = file.extension().unwrap_or_default().to_string_lossy();
            let name = file.file_stem().unwrap_or_default().to_string_lossy();
            if let (Some(_), Some(tile)) = (TileFormat::from_name(&ending), pattern.tile(&name)) {
                // The folder is listed in any order; which of two files counts should not depend on it.
                let kept = files.entry(tile).or_insert_with(|| file.clone());
                if file < *kept {
                    *kept = file;
                }
            }
            if files.len() > MAX_LISTED_TILES {
                return Err(StoreError::TooManyTiles { path: path.to_owned(), limit: MAX_LISTED_TILES });
            }
        }
        let (Some((first, file)), Some((last, _))) = (files.first_key_value(), files.last_key_value()) else {
            return Err(StoreError::NoNamedTiles { path: path.to_owned(), pattern: pattern.to_string() });
        };
        let format = TileFormat::of_bytes(&beginning(file, 16)?).unwrap_or(TileFormat::Png);
        let mut metadata = TileMetadata::new(name_of(path), format);
        (metadata.min_zoom, metadata.max_zoom) = (Some(first.z()), Some(last.z()));
        let deepest = || files.keys().filter(|tile| tile.z() == last.z());
        let (columns, rows) = (|| deepest().map(|tile| tile.x()), || deepest().map(|tile| tile.y()));
        let corner = |column: Option<u32>, row: Option<u32>| {
            Tile::new(last.z(), column.expect("there is one"), row.expect("there is one"))
                .expect("numbers of tiles of this zoom")
        };
        metadata.bounds = Some(BoundingBox::of_tiles(
            corner(columns().min(), rows().min()),
            corner(columns().max(), rows().max()),
        ));
        Ok(Self { path: path.to_owned(), metadata, files })
    }
}

impl TileReader for NamedReader {
    fn path(&self) -> &Path {
        &self.path
    }

    fn metadata(&self) -> &TileMetadata {
        &self.metadata
    }

    fn read(&self, tile: Tile) -> Result<Option<EncodedTile>, StoreError> {
        let Some(file) = self.files.get(&tile) else { return Ok(None) };
        let length = fs::metadata(file).map_err(|cause| unread(file, cause))?.len();
        if length > MAX_TILE_BYTES {
            return Err(StoreError::TileTooBig { path: self.path.clone(), tile, limit: MAX_TILE_BYTES });
        }
        let bytes = fs::read(file).map_err(|cause| unread(file, cause))?;
        EncodedTile::from_store(&self.path, tile, bytes).map(Some)
    }

    fn contains(&self, tile: Tile) -> Result<bool, StoreError> {
        Ok(self.files.contains_key(&tile))
    }

    fn visit(&self, visitor: &mut dyn FnMut(Tile) -> ControlFlow<()>) -> Result<(), StoreError> {
        let _ = self.files.keys().try_for_each(|tile| visitor(*tile));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_name_three_numbers() {
        for wrong in
            ["", "{z}", "{z}{x}-{y}", "{z}-{x}-{y}-{y}", "{z}/{x}/{y}", "{z}-{x}-{row}", "{z}-{x}-{y"]
        {
            let error = wrong.parse::<TilePattern>().unwrap_err();
            assert!(error.to_string().ends_with("such as OAM-{x}-{y}-{z}"), "{error}");
        }
        let south: TilePattern = "t{z}_{x}_{-y}b".parse().unwrap();
        assert_eq!(south.tile("t2_1_0b").unwrap().to_string(), "2/1/3");
        for name in ["t2_1_0", "t2_4_0b", "t99_1_0b", "t2_1_-1b", "2_1_0b", "t2_1_99999999999b"] {
            assert_eq!(south.tile(name), None, "{name}");
        }
        let text = serde_json::to_string(&south).unwrap();
        assert_eq!(serde_json::from_str::<TilePattern>(&text).unwrap(), south);
    }

    #[test]
    fn a_folder_of_named_tiles_is_a_store() {
        let folder = tempfile::tempdir().unwrap();
        let pattern: TilePattern = "OAM-{x}-{y}-{z}".parse().unwrap();
        let error = NamedReader::open(folder.path(), &pattern).unwrap_err();
        assert!(error.to_string().contains("OAM-{x}-{y}-{z}") && error.is_bad_input(), "{error}");
        for name in ["OAM-5-6-3.png", "OAM-2-3-2.jpg", "OAM-5-6-3.txt", "notes.png"] {
            fs::write(folder.path().join(name), b"\x89PNG\r\n\x1A\n and so on").unwrap();
        }
        let reader = NamedReader::open(folder.path(), &pattern).unwrap();
        let tiles: Vec<_> = reader.tiles().unwrap().iter().map(Tile::to_string).collect();
        assert_eq!(tiles, ["2/2/3", "3/5/6"]);
        assert_eq!((reader.metadata().min_zoom, reader.metadata().max_zoom), (Some(2), Some(3)));
        let tile = "3/5/6".parse().unwrap();
        assert_eq!(reader.metadata().bounds, Some(Tile::bounds(tile)));
        assert_eq!(reader.read(tile).unwrap().unwrap().format, TileFormat::Png);
        assert!(reader.read("3/5/5".parse().unwrap()).unwrap().is_none());
        fs::write(folder.path().join("OAM-5-6-3.png"), b"no picture").unwrap();
        assert!(matches!(reader.read(tile), Err(StoreError::BadTile { .. })));
    }
}
