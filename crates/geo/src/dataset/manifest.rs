//! The file that says what a dataset holds: JSON, one object per line, the first about the whole.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::DatasetError;
use super::filter::{Measures, Rule};
use super::options::MakeOptions;
use super::split::{Split, SplitOptions};
use crate::files::atomic_write;
use crate::lonlat::{LonLat, Place};
use crate::tile::{BoundingBox, Tile};

/// Name of the manifest in the folder of a dataset.
pub const MANIFEST: &str = "manifest.jsonl";

/// Name of the list of pairs that were left out, in the folder of a dataset: a JSON object per line.
pub const REJECTED: &str = "rejected.jsonl";

/// The number of the format that is written and read.
const FORMAT: u32 = 1;

/// The most bytes of one line; a hostile file cannot fill the memory.
const MAX_LINE_BYTES: u64 = 16 << 20;

/// What a dataset holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// The folder that paths of pairs start from.
    pub folder: PathBuf,
    /// About the whole.
    pub header: ManifestHeader,
    /// The pairs, in the order of the file.
    pub pairs: Vec<PairRecord>,
}

/// The first line of a manifest.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestHeader {
    /// The number of the format, 1.
    pub format: u32,
    /// Whom to name, by source.
    pub sources: Vec<SourceCredit>,
    /// How the pairs were split.
    #[serde(default)]
    pub split: Option<SplitOptions>,
    /// How the dataset was made.
    #[serde(default)]
    pub options: Option<MakeOptions>,
    /// What was counted while it was made.
    #[serde(default)]
    pub report: Option<Report>,
}

impl ManifestHeader {
    /// A header of this format, with nothing but the sources.
    pub fn new(sources: Vec<SourceCredit>) -> Self {
        Self { format: FORMAT, sources, split: None, options: None, report: None }
    }
}

/// Where the pictures of a source come from.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SourceCredit {
    /// Name of the source, as its pairs say it.
    pub name: String,
    /// Of the photographs.
    pub imagery: Credit,
    /// Of the maps.
    pub map: Credit,
}

/// Whom to name for pictures, and what may be done with them.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Credit {
    /// Whom to name; may be HTML, as it came.
    pub attribution: Option<String>,
    /// The licence.
    pub licence: Option<String>,
}

/// What was counted while a dataset was made.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// Squares of the grid where both imagery and map have something.
    pub candidates: usize,
    /// Pairs of the dataset.
    pub kept: usize,
    /// Candidates that a rule left out.
    pub rejected: usize,
    /// How many candidates each rule would have left out; one candidate may fall under several.
    pub rules: BTreeMap<Rule, usize>,
    /// Candidates that could not be read.
    pub unreadable: usize,
    /// Photographs that were cut anew because they lay beside their map.
    pub corrected: usize,
    /// Median of the shifts that were found with confidence, by source: pixels right and down, and their number.
    pub shifts: BTreeMap<String, (f64, f64, usize)>,
    /// Pairs by split.
    pub splits: BTreeMap<Split, usize>,
    /// Pairs of no split, because they lie too near to another's.
    pub between_splits: usize,
}

/// One pair: a line of a manifest.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PairRecord {
    /// Its name, once per manifest.
    pub name: String,
    /// Its file, relative to the manifest, with `/`: photograph left, map right, each `side × side` pixels.
    pub file: String,
    /// The source it is from.
    pub source: String,
    /// The tile that it is, in the datum of the imagery; none when cut along a raster.
    #[serde(default)]
    pub tile: Option<Tile>,
    /// The ground that it shows, WGS 84.
    pub bounds: BoundingBox,
    /// The point in its middle, WGS 84.
    pub place: LonLat,
    /// Metres of ground per pixel in its middle.
    pub metres_per_pixel: f64,
    /// Pixels a side of each of the two pictures.
    pub side: u32,
    /// What it is for; none when it lies too near to a pair of another split.
    pub split: Option<Split>,
    /// What the filters measured.
    #[serde(default)]
    pub measures: Measures,
}

impl PairRecord {
    /// Where it lies, when its metres per pixel are a number above 0.
    pub fn place(&self) -> Option<Place> {
        Place::new(self.place, Some(self.metres_per_pixel)).ok()
    }

    /// Its file.
    pub fn path(&self, folder: &Path) -> PathBuf {
        folder.join(&self.file)
    }

    /// What is wrong with the record itself, in words with the cure.
    pub(super) fn problem(&self) -> Option<String> {
        let inside = |path: &Path| path.components().all(|part| matches!(part, Component::Normal(_)));
        if self.file.is_empty() || self.file.contains('\\') || !inside(Path::new(&self.file)) {
            return Some(format!(
                "file {:?} is no path inside the dataset; write it like pairs/00000/a.png",
                self.file
            ));
        }
        if self.place().is_none() {
            let metres = self.metres_per_pixel;
            return Some(format!("metres_per_pixel is {metres}; give a finite number above 0"));
        }
        if !self.bounds.contains(self.place) {
            return Some(format!(
                "place is outside the bounds {}; give the point in the middle",
                self.bounds
            ));
        }
        None
    }
}

impl Manifest {
    /// Reads a manifest; `path` is the file, or the folder of a dataset.
    ///
    /// # Errors
    ///
    /// [`DatasetError::Io`], and [`DatasetError::Manifest`] for the first line that is wrong.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, DatasetError> {
        let mut first = None;
        let manifest =
            Self::read_leniently(path.as_ref(), &mut |error| first = first.take().or(Some(error)))?;
        match (first, manifest) {
            (None, Some(manifest)) => Ok(manifest),
            (error, _) => Err(error.expect("a manifest without a header is an error")),
        }
    }

    /// Reads what can be read, and hands every wrong line to `problem`. None without a header.
    pub(super) fn read_leniently(
        path: &Path,
        problem: &mut dyn FnMut(DatasetError),
    ) -> Result<Option<Self>, DatasetError> {
        let path = if path.is_dir() { path.join(MANIFEST) } else { path.to_owned() };
        let io = |cause| DatasetError::Io { path: path.clone(), cause };
        let mut wrong = |line: usize, what: String| {
            problem(DatasetError::Manifest { path: path.clone(), line, problem: what })
        };
        let mut reader = BufReader::new(fs::File::open(&path).map_err(io)?);
        let (mut header, mut pairs) = (None, Vec::<PairRecord>::new());
        let mut names = BTreeSet::new();
        for line in 1.. {
            let mut text = String::new();
            match reader.by_ref().take(MAX_LINE_BYTES).read_line(&mut text) {
                Ok(0) => break,
                Ok(_) => {}
                Err(cause) if cause.kind() == std::io::ErrorKind::InvalidData => {
                    wrong(line, "is no UTF-8 text; make the dataset again".to_owned());
                    break;
                }
                Err(cause) => return Err(io(cause)),
            }
            if line == 1 {
                match read_header(&text) {
                    Ok(found) => header = Some(found),
                    Err(what) => {
                        wrong(line, what);
                        return Ok(None);
                    }
                }
            } else if !text.trim().is_empty() {
                match serde_json::from_str::<PairRecord>(&text) {
                    Ok(record) if names.contains(&record.name) => {
                        wrong(
                            line,
                            format!("the name {:?} is there twice; remove one of the lines", record.name),
                        );
                    }
                    Ok(record) => {
                        if let Some(what) = record.problem() {
                            wrong(line, what);
                        } else {
                            names.insert(record.name.clone());
                            pairs.push(record);
                        }
                    }
                    Err(error) => wrong(line, format!("is no pair ({error}); correct or remove it")),
                }
            }
        }
        let folder = path.parent().map(Path::to_owned).unwrap_or_default();
        match header {
            Some(header) => Ok(Some(Self { folder, header, pairs })),
            None => {
                wrong(1, "is missing; a manifest begins with a line about the dataset".to_owned());
                Ok(None)
            }
        }
    }

    /// Writes the manifest into its folder, whole or not at all.
    ///
    /// # Errors
    ///
    /// [`DatasetError::Write`].
    pub fn write(&self, overwrite: bool) -> Result<(), DatasetError> {
        let mut text = json_line(&self.header);
        self.pairs.iter().for_each(|pair| text += &json_line(pair));
        Ok(atomic_write(&self.folder.join(MANIFEST), text.as_bytes(), overwrite)?)
    }
}

fn read_header(text: &str) -> Result<ManifestHeader, String> {
    // The number is looked at first: of another format, the rest would not be understood.
    let value: Value = serde_json::from_str(text)
        .map_err(|error| format!("is no JSON ({error}); name the {MANIFEST} of a dataset"))?;
    match value.get("format").and_then(Value::as_u64) {
        Some(format) if format == u64::from(FORMAT) => {}
        Some(format) => {
            return Err(format!("format {format} is not read here; use the version that wrote it"));
        }
        None => return Err("says no \"format\"; a manifest begins with a line about the dataset".to_owned()),
    }
    serde_json::from_value(value).map_err(|error| format!("is no header ({error}); correct it"))
}

/// A value as one line of JSON.
pub(super) fn json_line(value: &impl Serialize) -> String {
    let mut line = serde_json::to_string(value).expect("plain data is JSON");
    line.push('\n');
    line
}
