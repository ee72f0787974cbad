//! Pictures that were made elsewhere, to be measured like a model's.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use earthmapper::Modality;
use earthmapper_geo::pairs::PairFolder;
use earthmapper_geo::picture::{Picture, PictureLimits, read_picture};

use super::EvaluateError;
use super::evaluation::Candidate;
use super::measure::Source;
use super::predictions::file_name;

/// Endings that are looked for, in this order.
const ENDINGS: [&str; 4] = ["png", "webp", "jpg", "jpeg"];

/// Missing names that an error lists.
const NAMED: usize = 3;

/// Predictions of some pairs, found by name.
pub(super) struct Given {
    target: Modality,
    side: u32,
    files: BTreeMap<String, PathBuf>,
}

impl Given {
    /// Finds a prediction for every pair. Their side is that of the first.
    pub fn open(folder: &Path, target: Modality, pairs: &PairFolder) -> Result<Self, EvaluateError> {
        let wrong = |problem: String| EvaluateError::Given { path: folder.into(), problem };
        if !folder.is_dir() {
            return Err(wrong("is not a folder; check the name".into()));
        }
        let mut files = BTreeMap::new();
        let mut missing = Vec::new();
        for index in 0..pairs.len() {
            let name = pairs.name(index);
            let path = |ending: &&str| {
                Some(folder.join(format!("{}.{ending}", file_name(name)))).filter(|p| p.is_file())
            };
            match ENDINGS.iter().find_map(path) {
                Some(path) => drop(files.insert(name.to_owned(), path)),
                None => missing.push(name),
            }
        }
        if files.is_empty() {
            let example = file_name(pairs.name(0));
            return Err(wrong(format!(
                "holds no prediction of any of the {} pairs; name them like the pairs, such as {example}.png",
                pairs.len()
            )));
        }
        if !missing.is_empty() {
            let more = if missing.len() > NAMED { ", …" } else { "" };
            return Err(wrong(format!(
                "{} of {} pairs have no prediction ({}{more}); add them, or choose pairs with --pairs or --limit",
                missing.len(),
                pairs.len(),
                missing[..missing.len().min(NAMED)].join(", ")
            )));
        }
        let first = &files[pairs.name(0)];
        let picture = read_picture(first, &PictureLimits::default())?;
        if picture.width() != picture.height() {
            let (width, height) = (picture.width(), picture.height());
            let problem = format!(
                "is {width} × {height} pixels; predictions must be square, of the largest square in the middle of the pair"
            );
            return Err(EvaluateError::Given { path: first.clone(), problem });
        }
        Ok(Self { target, side: picture.width(), files })
    }

    /// Side of the predictions, in pixels.
    pub fn side(&self) -> u32 {
        self.side
    }
}

impl Source for Given {
    fn candidates(&self, target: Modality) -> Vec<Candidate> {
        if target == self.target { vec![Candidate::Model] } else { Vec::new() }
    }

    fn picture(&self, name: &str, _: Modality, _: Candidate) -> Result<Picture, EvaluateError> {
        let path = &self.files[name];
        let picture = read_picture(path, &PictureLimits::default())?;
        let (width, height, side) = (picture.width(), picture.height(), self.side);
        if (width, height) != (side, side) {
            let problem = format!(
                "is {width} × {height} pixels, but the first prediction is {side} × {side}; make all of one size"
            );
            return Err(EvaluateError::Given { path: path.clone(), problem });
        }
        Ok(picture)
    }
}
