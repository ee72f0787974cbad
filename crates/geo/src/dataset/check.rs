//! Everything that is wrong with a dataset.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::error::DatasetError;
use super::journal::JOURNAL;
use super::make::Progress;
use super::manifest::{MANIFEST, Manifest, PairRecord};
use super::split::overlaps;
use crate::picture::{PictureLimits, read_picture};

/// Pairs that are read between two calls of `progress`.
const BATCH: usize = 64;

/// Something that is wrong with a dataset. As text it begins with the file and ends with the cure.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Problem {
    /// A line of the manifest.
    Line(String),
    /// A file that the manifest names is not there.
    Missing(PathBuf),
    /// A file is no picture, is damaged, or may not be read.
    Unreadable(String),
    /// A picture has another size than the manifest says.
    Size {
        /// The file.
        path: PathBuf,
        /// Its width and height.
        found: (u32, u32),
        /// What they should be.
        expected: (u32, u32),
    },
    /// A picture in the folder of the pairs that the manifest does not name.
    Unlisted(PathBuf),
    /// A pair is of a source that the header does not name.
    NoCredit {
        /// The pair.
        name: String,
        /// Its source.
        source: String,
    },
    /// The ground of a pair and its metres per pixel contradict each other.
    Scale {
        /// The pair.
        name: String,
        /// Metres per pixel by the bounds.
        by_bounds: String,
        /// What the manifest says.
        stated: String,
    },
    /// Two pairs of different splits lie within the buffer.
    Overlap {
        /// The manifest.
        manifest: PathBuf,
        /// One pair and its split.
        first: String,
        /// The other and its split.
        second: String,
        /// Metres that should lie between them.
        buffer_metres: String,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(text) | Self::Unreadable(text) => formatter.write_str(text),
            Self::Missing(path) => {
                write!(formatter, "{}: is missing; copy it again or remove its line", path.display())
            }
            Self::Size { path, found, expected } => write!(
                formatter,
                "{}: has {} × {} pixels, not {} × {}; copy it again or correct its line",
                path.display(),
                found.0,
                found.1,
                expected.0,
                expected.1
            ),
            Self::Unlisted(path) => {
                write!(formatter, "{}: is not in the manifest; remove it or add a line", path.display())
            }
            Self::NoCredit { name, source } => write!(
                formatter,
                "{name}: is of source {source:?}, which the header does not name; add who is to be named"
            ),
            Self::Scale { name, by_bounds, stated } => write!(
                formatter,
                "{name}: has {stated} metres per pixel but {by_bounds} by its bounds; correct its line"
            ),
            Self::Overlap { manifest, first, second, buffer_metres } => write!(
                formatter,
                "{}: {first} and {second} are less than {buffer_metres} m apart; split the dataset again",
                manifest.display()
            ),
        }
    }
}

/// Holds a manifest against its files: every line, every picture, every pair of splits. `path` is the manifest or its
/// folder. None of the problems stops it; a dataset without any gives an empty list.
///
/// # Errors
///
/// [`DatasetError::Io`] without a manifest, and [`DatasetError::Interrupted`] when `progress` breaks.
pub fn check(
    path: impl AsRef<Path>,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Vec<Problem>, DatasetError> {
    let path = path.as_ref();
    if path.is_dir() && path.join(JOURNAL).is_file() {
        return Err(DatasetError::NotContinued {
            folder: path.to_owned(),
            reason: "is not finished",
            cure: "make the rest first with --resume",
        });
    }
    let mut problems = Vec::new();
    let manifest =
        Manifest::read_leniently(path, &mut |error| problems.push(Problem::Line(error.to_string())))?;
    let Some(manifest) = manifest else { return Ok(problems) };
    let total = manifest.pairs.len();
    for (index, batch) in manifest.pairs.chunks(BATCH).enumerate() {
        let done = index * BATCH;
        if progress(Progress { done, total, kept: done }).is_break() {
            return Err(DatasetError::Interrupted { folder: manifest.folder, done, total });
        }
        let found: Vec<Option<Problem>> =
            batch.par_iter().map(|pair| picture_problem(&manifest.folder, pair)).collect();
        problems.extend(found.into_iter().flatten());
    }
    let sources: BTreeSet<&str> = manifest.header.sources.iter().map(|source| source.name.as_str()).collect();
    for pair in &manifest.pairs {
        if !sources.contains(pair.source.as_str()) {
            let (name, source) = (pair.name.clone(), pair.source.clone());
            problems.push(Problem::NoCredit { name, source });
        }
        problems.extend(scale_problem(pair));
    }
    problems.extend(unlisted(&manifest)?.into_iter().map(Problem::Unlisted));
    problems.extend(split_problems(&manifest));
    Ok(problems)
}

fn picture_problem(folder: &Path, pair: &PairRecord) -> Option<Problem> {
    let path = pair.path(folder);
    if matches!(fs::metadata(&path), Err(cause) if cause.kind() == io::ErrorKind::NotFound) {
        return Some(Problem::Missing(path));
    }
    match read_picture(&path, &PictureLimits::default()) {
        Err(error) => Some(Problem::Unreadable(error.to_string())),
        Ok(picture) => {
            let (found, side) = ((picture.width(), picture.height()), pair.side);
            let expected = (side.saturating_mul(2), side);
            (found != expected).then_some(Problem::Size { path, found, expected })
        }
    }
}

/// Compares the height of the bounds with the side in pixels; shapes that are not upright may differ by half.
fn scale_problem(pair: &PairRecord) -> Option<Problem> {
    const METRES_PER_DEGREE: f64 = 111_132.0;
    let height = (pair.bounds.north() - pair.bounds.south()) * METRES_PER_DEGREE;
    let by_bounds = height / f64::from(pair.side.max(1));
    let ratio = by_bounds / pair.metres_per_pixel;
    if (0.6..=1.6).contains(&ratio) {
        return None;
    }
    let number = |metres: f64| format!("{metres:.3}");
    Some(Problem::Scale {
        name: pair.name.clone(),
        by_bounds: number(by_bounds),
        stated: number(pair.metres_per_pixel),
    })
}

fn split_problems(manifest: &Manifest) -> Vec<Problem> {
    let buffer_metres = manifest.header.split.as_ref().map_or(0.0, |split| split.buffer_metres);
    let grounds: Vec<_> = manifest.pairs.iter().map(|pair| pair.bounds).collect();
    let splits: Vec<_> = manifest.pairs.iter().map(|pair| pair.split).collect();
    let named = |index: usize| {
        let pair = &manifest.pairs[index];
        format!("{} ({})", pair.name, pair.split.map_or("none", |split| split.name()))
    };
    let problem = |(first, second): (usize, usize)| Problem::Overlap {
        manifest: manifest.folder.join(MANIFEST),
        first: named(first),
        second: named(second),
        buffer_metres: buffer_metres.to_string(),
    };
    overlaps(&grounds, &splits, buffer_metres).into_iter().map(problem).collect()
}

/// Files in the folders of pairs that the manifest does not name.
fn unlisted(manifest: &Manifest) -> Result<Vec<PathBuf>, DatasetError> {
    let listed: BTreeSet<PathBuf> = manifest.pairs.iter().map(|pair| pair.path(&manifest.folder)).collect();
    let folders: BTreeSet<PathBuf> =
        listed.iter().filter_map(|path| path.parent().map(Path::to_owned)).collect();
    let mut found = Vec::new();
    for folder in folders {
        let failed = |cause| DatasetError::Io { path: folder.clone(), cause };
        let entries = match fs::read_dir(&folder) {
            // Each of its pairs is named as missing already.
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => continue,
            entries => entries.map_err(failed)?,
        };
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            let is_picture = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("png"));
            if is_picture && !listed.contains(&path) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}
