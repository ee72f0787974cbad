//! Folders and datasets of aligned pictures: the same ground as a satellite photograph and as a map.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::dataset::{DatasetError, Manifest, PairRecord, Split};
use crate::files::reason;
use crate::lonlat::Place;
use crate::picture::{Picture, PictureError, PictureLimits, read_picture};
use crate::tile::BoundingBox;

/// Endings of the files that are looked at.
const EXTENSIONS: [&str; 4] = ["png", "jpg", "jpeg", "webp"];

/// How pairs lie on disk.
///
/// In a TOML file: `layout = "side-by-side"`, `folder = "…"`, `order = "satellite-map"`; or
/// `layout = "two-folders"`, `satellite = "…"`, `map = "…"`; or `layout = "manifest"`, `manifest = "…"`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "layout", rename_all = "kebab-case", deny_unknown_fields)]
pub enum PairSource {
    /// One file per pair, its two halves side by side.
    SideBySide {
        /// The folder that holds the files.
        folder: PathBuf,
        /// Which half is which.
        #[serde(default)]
        order: PairOrder,
    },
    /// Two files per pair with the same name (up to the ending) in two folders.
    TwoFolders {
        /// The folder of satellite photographs.
        satellite: PathBuf,
        /// The folder of maps.
        map: PathBuf,
    },
    /// A dataset with a manifest, which knows the place of each pair and what it is for.
    Manifest {
        /// The manifest, or the folder of the dataset.
        manifest: PathBuf,
    },
}

/// Which half of a side-by-side picture is which.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PairOrder {
    /// The satellite photograph at the left, the map at the right.
    #[default]
    SatelliteMap,
    /// The map at the left, the satellite photograph at the right.
    MapSatellite,
}

/// Which pairs of a folder are used; everything by default.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct PairSelection {
    /// The lowest number a pair may have as its name. Pairs whose name is no number are then left out.
    pub first: Option<u64>,
    /// The highest number a pair may have as its name, itself included.
    pub last: Option<u64>,
    /// The most pairs, counted in natural order (of a manifest: in its own).
    pub limit: Option<usize>,
    /// The split that a pair must be of; for manifests only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split: Option<Split>,
    /// The region that a pair must lie in as a whole, `[west, south, east, north]`; for manifests only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inside: Option<BoundingBox>,
    /// The region that a pair must not touch; for manifests only. A pair across its edge is neither inside nor outside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outside: Option<BoundingBox>,
}

impl PairSelection {
    /// Whether it asks for what manifests know only: a split or a region.
    fn needs_manifest(&self) -> Option<String> {
        let split = self.split.map(|split| format!("splits, so {split}"));
        let region = self.inside.or(self.outside).map(|_| "places, so a region".to_owned());
        split.or(region)
    }

    fn includes(&self, name: &str) -> bool {
        if self.first.is_none() && self.last.is_none() {
            return true;
        }
        let digits_only = name.bytes().all(|byte| byte.is_ascii_digit());
        name.parse().is_ok_and(|number: u64| {
            digits_only
                && self.first.is_none_or(|first| number >= first)
                && self.last.is_none_or(|last| number <= last)
        })
    }
}

/// Writes "1..1000"; both ends belong to the range and either may be missing.
impl fmt::Display for PairSelection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |end: Option<u64>| end.map(|number| number.to_string()).unwrap_or_default();
        write!(formatter, "{}..{}", number(self.first), number(self.last))
    }
}

/// Reads "1..1000", "1001.." or "..96"; both ends belong to the range.
impl FromStr for PairSelection {
    type Err = PairError;

    fn from_str(text: &str) -> Result<Self, PairError> {
        let unclear = || PairError::UnclearSelection { text: text.to_owned() };
        let (first, last) = text.split_once("..").ok_or_else(unclear)?;
        let end = |digits: &str| match digits.trim() {
            "" => Ok(None),
            digits => digits.parse().map(Some).map_err(|_| unclear()),
        };
        let (first, last) = (end(first)?, end(last)?);
        match first.zip(last) {
            Some((first, last)) if first > last => Err(unclear()),
            _ => Ok(Self { first, last, ..Self::default() }),
        }
    }
}

/// Why pairs were not found or not read. Each message starts with the path and ends with the cure.
#[derive(Debug, Error)]
pub enum PairError {
    /// The folder does not exist.
    #[error("{}: is not a folder; check the name", folder.display())]
    FolderMissing {
        /// The folder that was to be read.
        folder: PathBuf,
    },
    /// The operating system refused to list the folder.
    #[error("{}: cannot be listed: {}; check that the folder may be read", folder.display(), reason(cause))]
    Io {
        /// The folder.
        folder: PathBuf,
        /// What the operating system said.
        cause: io::Error,
    },
    /// The folder holds nothing that fits.
    #[error("{}: no pairs; looked for {looked_for} and found {found}; check the folder, the layout and the selection", folder.display())]
    NoPairs {
        /// The folder, or the first of two.
        folder: PathBuf,
        /// What would have been a pair.
        looked_for: String,
        /// What was there instead.
        found: String,
    },
    /// Two files have the same name up to the ending, so the name says no longer which is meant.
    #[error("{}: has the same name as {} up to the ending; keep one of them", second.display(), first.display())]
    SameName {
        /// One of the files.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// A side-by-side picture cannot be halved.
    #[error("{}: {width} pixels wide, which is no two equal halves; give a picture of even width", path.display())]
    OddWidth {
        /// The file.
        path: PathBuf,
        /// Its width in pixels.
        width: u32,
    },
    /// The two pictures of a pair differ in size.
    #[error(
        "{}: {} × {} pixels but {} has {} × {}; make both the same size",
        satellite.display(), satellite_size.0, satellite_size.1, map.display(), map_size.0, map_size.1
    )]
    SizeMismatch {
        /// The satellite photograph.
        satellite: PathBuf,
        /// Its width and height.
        satellite_size: (u32, u32),
        /// The map.
        map: PathBuf,
        /// Its width and height.
        map_size: (u32, u32),
    },
    /// A manifest could not be read.
    #[error(transparent)]
    Manifest(Box<DatasetError>),
    /// A split or a region was asked of pairs that know none.
    #[error("{}: knows no {wanted} cannot be chosen; select by first and last, or give a manifest", folder.display())]
    NoManifest {
        /// The folder, or the first of two.
        folder: PathBuf,
        /// What was asked for, such as `splits, so test`.
        wanted: String,
    },
    /// A range of pairs that cannot be understood.
    #[error("{text:?}: is no range of pairs; write it like 1..1000 (both ends included), 1001.. or ..96")]
    UnclearSelection {
        /// What was given.
        text: String,
    },
    /// A picture could not be read.
    #[error(transparent)]
    Picture(#[from] PictureError),
}

/// The same ground twice, in two pictures of the same size.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pair {
    /// Name of the file or files, without ending.
    pub name: String,
    /// The satellite photograph.
    pub satellite: Picture,
    /// The map.
    pub map: Picture,
}

/// The file or files of one pair.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PairFiles {
    /// Both halves in one file.
    One {
        /// The file.
        path: PathBuf,
        /// Which half is which.
        order: PairOrder,
    },
    /// One file each.
    Two {
        /// The satellite photograph.
        satellite: PathBuf,
        /// The map.
        map: PathBuf,
    },
}

/// The pairs of a folder in natural order (1, 2, 10), so that position `i` means the same pair on every machine.
///
/// Opening lists names only; pictures are decoded when read. It may be shared between threads.
#[derive(Clone, Debug)]
pub struct PairFolder {
    pairs: Vec<(String, PairFiles)>,
    /// Of each pair of a manifest; empty without one.
    places: Vec<Option<Place>>,
    unmatched: Vec<PathBuf>,
}

impl PairFolder {
    /// Lists the pairs that `selection` includes.
    ///
    /// # Errors
    ///
    /// [`PairError::FolderMissing`], [`PairError::Io`], [`PairError::SameName`], [`PairError::NoManifest`],
    /// [`PairError::Manifest`], or [`PairError::NoPairs`] when nothing is left.
    pub fn open(source: &PairSource, selection: &PairSelection) -> Result<Self, PairError> {
        let mut opened = match source {
            PairSource::Manifest { manifest } => {
                let found = Manifest::read(manifest).map_err(|error| PairError::Manifest(Box::new(error)))?;
                let opened = Self::of_manifest(&found.folder, &found.pairs, selection);
                return if opened.pairs.is_empty() { Err(no_pairs(source, selection)?) } else { Ok(opened) };
            }
            PairSource::SideBySide { folder, .. } | PairSource::TwoFolders { satellite: folder, .. }
                if selection.needs_manifest().is_some() =>
            {
                let wanted = selection.needs_manifest().expect("it was looked at");
                return Err(PairError::NoManifest { folder: folder.clone(), wanted });
            }
            PairSource::SideBySide { folder, order } => Self::side_by_side(folder, *order, selection)?,
            PairSource::TwoFolders { satellite, map } => Self::two_folders(satellite, map, selection)?,
        };
        opened.pairs.sort_by(|(left, _), (right, _)| natural_order(left, right));
        opened
            .unmatched
            .sort_by(|left, right| natural_order(&left.to_string_lossy(), &right.to_string_lossy()));
        opened.pairs.truncate(selection.limit.unwrap_or(usize::MAX));
        if opened.pairs.is_empty() { Err(no_pairs(source, selection)?) } else { Ok(opened) }
    }

    /// The pairs of a manifest in its order. There may be none.
    pub(crate) fn of_manifest(folder: &Path, records: &[PairRecord], selection: &PairSelection) -> Self {
        let chosen = |record: &&PairRecord| {
            selection.includes(&record.name)
                && selection.split.is_none_or(|split| record.split == Some(split))
                && selection.inside.is_none_or(|region| region.holds(record.bounds))
                && selection.outside.is_none_or(|region| !region.touches(record.bounds))
        };
        let chosen = records.iter().filter(chosen).take(selection.limit.unwrap_or(usize::MAX));
        let pair = |record: &PairRecord| {
            let files = PairFiles::One { path: record.path(folder), order: PairOrder::SatelliteMap };
            ((record.name.clone(), files), record.place())
        };
        let (pairs, places) = chosen.map(pair).unzip();
        Self { pairs, places, unmatched: Vec::new() }
    }

    fn side_by_side(folder: &Path, order: PairOrder, selection: &PairSelection) -> Result<Self, PairError> {
        let pictures = pictures_in(folder)?.into_iter().filter(|(name, _)| selection.includes(name));
        let pairs = pictures.map(|(name, path)| (name, PairFiles::One { path, order })).collect();
        Ok(Self { pairs, places: Vec::new(), unmatched: Vec::new() })
    }

    fn two_folders(satellite: &Path, map: &Path, selection: &PairSelection) -> Result<Self, PairError> {
        let satellites = pictures_in(satellite)?;
        let mut maps = pictures_in(map)?;
        let (mut pairs, mut unmatched) = (Vec::new(), Vec::new());
        for (name, satellite) in satellites {
            match maps.remove(&name) {
                Some(map) if selection.includes(&name) => {
                    pairs.push((name, PairFiles::Two { satellite, map }));
                }
                Some(_) => {}
                None => unmatched.push(satellite),
            }
        }
        unmatched.extend(maps.into_values());
        Ok(Self { pairs, places: Vec::new(), unmatched })
    }

    /// How many pairs there are; never 0.
    #[expect(clippy::len_without_is_empty, reason = "a folder without pairs is an error of `open`")]
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Name of pair `index`: its file's name without ending.
    ///
    /// # Panics
    ///
    /// When `index` is not below [`len`](Self::len).
    pub fn name(&self, index: usize) -> &str {
        &self.pairs[index].0
    }

    /// The file or files of pair `index`.
    ///
    /// # Panics
    ///
    /// When `index` is not below [`len`](Self::len).
    pub fn files(&self, index: usize) -> &PairFiles {
        &self.pairs[index].1
    }

    /// The file of pair `index`; with two folders, that of the satellite photograph.
    ///
    /// # Panics
    ///
    /// When `index` is not below [`len`](Self::len).
    pub fn path(&self, index: usize) -> &Path {
        match self.files(index) {
            PairFiles::One { path, .. } => path,
            PairFiles::Two { satellite, .. } => satellite,
        }
    }

    /// Where pair `index` lies and how many metres a pixel of its file covers; known of manifests only.
    ///
    /// # Panics
    ///
    /// When `index` is not below [`len`](Self::len).
    pub fn place(&self, index: usize) -> Option<Place> {
        assert!(index < self.len(), "there are {} pairs", self.len());
        self.places.get(index).copied().flatten()
    }

    /// The same pairs at other places, one per pair.
    ///
    /// # Panics
    ///
    /// When there are more or fewer places than pairs.
    pub fn with_places(self, places: Vec<Option<Place>>) -> Self {
        assert_eq!(places.len(), self.len(), "a place per pair");
        Self { places, ..self }
    }

    /// Pictures of two folders that have no partner, selected or not; worth a warning.
    pub fn unmatched(&self) -> &[PathBuf] {
        &self.unmatched
    }

    /// Reads pair `index`.
    ///
    /// # Errors
    ///
    /// [`PairError::Picture`], [`PairError::OddWidth`] or [`PairError::SizeMismatch`].
    ///
    /// # Panics
    ///
    /// When `index` is not below [`len`](Self::len).
    pub fn read(&self, index: usize, limits: &PictureLimits) -> Result<Pair, PairError> {
        let name = self.name(index).to_owned();
        let (satellite, map) = match self.files(index) {
            PairFiles::One { path, order } => read_halves(path, *order, limits)?,
            PairFiles::Two { satellite, map } => read_both(satellite, map, limits)?,
        };
        Ok(Pair { name, satellite, map })
    }
}

fn read_halves(
    path: &Path,
    order: PairOrder,
    limits: &PictureLimits,
) -> Result<(Picture, Picture), PairError> {
    let both = read_picture(path, limits)?;
    let (width, height) = (both.width(), both.height());
    if width % 2 != 0 {
        return Err(PairError::OddWidth { path: path.to_owned(), width });
    }
    let (left, right) = (both.crop(0, 0, width / 2, height), both.crop(width / 2, 0, width / 2, height));
    Ok(match order {
        PairOrder::SatelliteMap => (left, right),
        PairOrder::MapSatellite => (right, left),
    })
}

fn read_both(
    satellite_path: &Path,
    map_path: &Path,
    limits: &PictureLimits,
) -> Result<(Picture, Picture), PairError> {
    let satellite = read_picture(satellite_path, limits)?;
    let map = read_picture(map_path, limits)?;
    let satellite_size = (satellite.width(), satellite.height());
    let map_size = (map.width(), map.height());
    if satellite_size != map_size {
        let (satellite, map) = (satellite_path.to_owned(), map_path.to_owned());
        return Err(PairError::SizeMismatch { satellite, satellite_size, map, map_size });
    }
    Ok((satellite, map))
}

/// The pictures directly in a folder, by name without ending. Hidden files are passed over.
fn pictures_in(folder: &Path) -> Result<BTreeMap<String, PathBuf>, PairError> {
    if !folder.is_dir() {
        return Err(PairError::FolderMissing { folder: folder.to_owned() });
    }
    let failed = |cause| PairError::Io { folder: folder.to_owned(), cause };
    let mut pictures = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with('.') || !EXTENSIONS.contains(&extension.as_str()) || path.is_dir() {
            continue;
        }
        if let Some(first) = pictures.insert(name, path.clone()) {
            // The folder is listed in any order; the message should not depend on it.
            let (first, second) = if first < path { (first, path) } else { (path, first) };
            return Err(PairError::SameName { first, second });
        }
    }
    Ok(pictures)
}

/// The error that says what was looked for and what was there.
fn no_pairs(source: &PairSource, selection: &PairSelection) -> Result<PairError, PairError> {
    let mut looked_for = match source {
        PairSource::Manifest { .. } => "pairs".to_owned(),
        PairSource::SideBySide { .. } => "side-by-side pictures".to_owned(),
        PairSource::TwoFolders { map, .. } => {
            format!("pictures with a partner of the same name in {}", map.display())
        }
    };
    if let Some(split) = selection.split {
        looked_for += &format!(" of split {split}");
    }
    if selection.inside.or(selection.outside).is_some() {
        looked_for += " in the region";
    }
    looked_for += &format!(" ({})", EXTENSIONS.map(|extension| format!(".{extension}")).join(", "));
    if selection.first.is_some() || selection.last.is_some() {
        looked_for += &format!(" named {selection}");
    }
    if let Some(limit) = selection.limit {
        looked_for += &format!(", at most {limit}");
    }
    let (folder, found) = match source {
        PairSource::SideBySide { folder, .. } => (folder, format!("pictures: {}", listed(folder)?)),
        PairSource::TwoFolders { satellite, map } => {
            (satellite, format!("satellite pictures: {}, map pictures: {}", listed(satellite)?, listed(map)?))
        }
        PairSource::Manifest { manifest } => {
            let found = Manifest::read(manifest).map_err(|error| PairError::Manifest(Box::new(error)))?;
            (manifest, format!("pairs: {}", found.pairs.len()))
        }
    };
    Ok(PairError::NoPairs { folder: folder.clone(), looked_for, found })
}

/// How many pictures a folder holds and what the first few are called.
fn listed(folder: &Path) -> Result<String, PairError> {
    const SHOWN: usize = 3;
    let mut names: Vec<_> = pictures_in(folder)?.into_keys().collect();
    names.sort_by(|left, right| natural_order(left, right));
    let shown = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    Ok(match names.len() {
        0 => "none".to_owned(),
        count if count > SHOWN => format!("{count} ({shown}, …)"),
        count => format!("{count} ({shown})"),
    })
}

/// Compares names as people do: runs of digits by their value, so that 2 comes before 10.
fn natural_order(left: &str, right: &str) -> Ordering {
    let (mut left_rest, mut right_rest) = (left, right);
    while !left_rest.is_empty() && !right_rest.is_empty() {
        let (left_run, left_after) = split_run(left_rest);
        let (right_run, right_after) = split_run(right_rest);
        let ordering = match (is_number(left_run), is_number(right_run)) {
            (true, true) => {
                // Without leading zeros the longer number is the larger one, however many digits it has.
                let (left, right) = (left_run.trim_start_matches('0'), right_run.trim_start_matches('0'));
                left.len().cmp(&right.len()).then_with(|| left.cmp(right))
            }
            _ => left_run.cmp(right_run),
        };
        if ordering != Ordering::Equal {
            return ordering;
        }
        (left_rest, right_rest) = (left_after, right_after);
    }
    left_rest.len().cmp(&right_rest.len()).then_with(|| left.cmp(right))
}

fn is_number(run: &str) -> bool {
    run.starts_with(|character: char| character.is_ascii_digit())
}

/// Splits off the leading run of digits or of other characters.
fn split_run(text: &str) -> (&str, &str) {
    let digits = is_number(text);
    text.split_at(text.find(|character: char| character.is_ascii_digit() != digits).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_as_people_count() {
        let expected =
            ["1", "01", "2", "9", "10", "100", "1096", "99999999999999999999999", "a", "a1b2", "a1b10", "a2"];
        let mut names = expected;
        names.reverse();
        names.sort_by(|left, right| natural_order(left, right));
        // Equal numbers fall back to the text itself, so that the order is total.
        assert_eq!(names[..2], ["01", "1"]);
        assert_eq!(names[2..], expected[2..]);
    }

    #[test]
    fn selections_include_both_ends() {
        let selection: PairSelection = "1..1000".parse().unwrap();
        let expected = PairSelection { first: Some(1), last: Some(1000), ..PairSelection::default() };
        assert_eq!(selection, expected);
        assert_eq!(selection.to_string(), "1..1000");
        for (name, included) in [
            ("1", true),
            ("1000", true),
            ("0007", true),
            ("0", false),
            ("1001", false),
            ("a7", false),
            ("+7", false),
        ] {
            assert_eq!(selection.includes(name), included, "{name}");
        }
        assert!("1001..".parse::<PairSelection>().unwrap().includes("99999"));
        assert!(PairSelection::default().includes("anything"));
        for text in ["", "7", "a..b", "9..1", "1...4"] {
            let error = text.parse::<PairSelection>().unwrap_err();
            assert!(error.to_string().starts_with(&format!("{text:?}: is no range")), "{error}");
        }
    }

    #[test]
    fn configuration_is_strict() {
        let source: PairSource =
            toml::from_str("layout = \"side-by-side\"\nfolder = \"pairs\"\norder = \"map-satellite\"")
                .unwrap();
        let folder = PathBuf::from("pairs");
        assert_eq!(source, PairSource::SideBySide { folder, order: PairOrder::MapSatellite });
        let source: PairSource =
            toml::from_str("layout = \"two-folders\"\nsatellite = \"a\"\nmap = \"b\"").unwrap();
        assert_eq!(source, PairSource::TwoFolders { satellite: "a".into(), map: "b".into() });
        assert_eq!(toml::from_str::<PairSource>(&toml::to_string(&source).unwrap()).unwrap(), source);
        let source: PairSource = toml::from_str("layout = \"manifest\"\nmanifest = \"a\"").unwrap();
        assert_eq!(source, PairSource::Manifest { manifest: "a".into() });
        let selection: PairSelection = toml::from_str("split = \"test\"").unwrap();
        assert_eq!(selection.split, Some(Split::Test));
        for wrong in [
            "layout = \"side-by-side\"\nfolder = \"a\"\nmap = \"b\"",
            "layout = \"two-folders\"\nsatellite = \"a\"\nmap = \"b\"\ncolour = 1",
            "layout = \"zip\"",
        ] {
            assert!(toml::from_str::<PairSource>(wrong).is_err(), "{wrong}");
        }
        assert!(toml::from_str::<PairSelection>("firts = 1").is_err());
    }
}
