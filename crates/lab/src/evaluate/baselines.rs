//! What a model must beat: a picture of one colour, and the nearest training pair.

use std::path::PathBuf;

use earthmapper::Modality;
use earthmapper_geo::pairs::{Pair, PairError, PairFolder};
use earthmapper_geo::picture::Picture;
use earthmapper_geo::provenance::Provenance;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::bench::{of_modality, square};
use super::measure::Source;
use super::report::Evaluated;
use super::{Candidate, Directions, EvaluateError, EvaluateOptions, Subject, measure_and_gather};
use crate::progress::{Interrupt, Progress, ProgressMode};

/// The median colour of each kind of picture.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct BlankColours {
    /// Of the training maps.
    pub map: [u8; 3],
    /// Of the training photographs.
    pub satellite: [u8; 3],
}

impl BlankColours {
    /// Those of training pairs 1 … 1000 of pix2pix.
    pub fn new_york() -> Self {
        Self { map: [232, 228, 224], satellite: [50, 52, 45] }
    }

    /// The colour of one kind.
    pub fn of(&self, modality: Modality) -> [u8; 3] {
        match modality {
            Modality::Map => self.map,
            Modality::Satellite => self.satellite,
        }
    }
}

/// Side of the thumbnails that inputs are compared by.
const THUMBNAIL: u32 = 16;

/// Pairs read before asking whether to go on.
const CHUNK: usize = 64;

/// The pairs that a model learned from, by what they look like: for each picture the training pair whose input has the
/// smallest L2 distance, both shrunk to 16 × 16 pixels.
#[derive(Clone, Debug)]
pub struct Training {
    pairs: PairFolder,
    side: u32,
    files: Vec<PathBuf>,
    /// Thumbnails of photograph and map, `[16, 16, 3]` each.
    thumbnails: Vec<[Vec<u8>; 2]>,
    blank: BlankColours,
}

impl Training {
    /// Reads all training pairs, at the side in pixels that pictures are compared at.
    ///
    /// # Errors
    /// When a pair cannot be read, or on interruption.
    pub fn read(
        pairs: PairFolder,
        side: u32,
        progress: ProgressMode,
        interrupt: &Interrupt,
    ) -> Result<Self, EvaluateError> {
        let mut bar = Progress::start(progress, "training pairs", 0, pairs.len() as u64);
        let mut thumbnails = Vec::with_capacity(pairs.len());
        let mut counts = [[[0u64; 256]; 3]; 2];
        for start in (0..pairs.len()).step_by(CHUNK) {
            if interrupt.requested() {
                bar.finish();
                let (done, of, unit) = (start, pairs.len(), "training pairs");
                return Err(EvaluateError::Interrupted { done, of, unit, kept: false });
            }
            let end = (start + CHUNK).min(pairs.len());
            let read = |index: usize| square(&pairs, index, side).map(|(pair, _)| pair);
            let read: Vec<Pair> = (start..end).into_par_iter().map(read).collect::<Result<_, PairError>>()?;
            for pair in &read {
                let pictures = Modality::ALL.map(|modality| of_modality(pair, modality));
                pictures.iter().zip(&mut counts).for_each(|(picture, counts)| count(picture, counts));
                thumbnails.push(pictures.map(thumbnail));
            }
            bar.update(end as u64, read.len() as u64, None);
        }
        bar.finish();
        let colour = |modality: Modality| counts[modality.index()].map(|counts| median(&counts));
        let blank = BlankColours { map: colour(Modality::Map), satellite: colour(Modality::Satellite) };
        let files = (0..pairs.len()).map(|index| canonical(&pairs, index)).collect();
        Ok(Self { pairs, side, files, thumbnails, blank })
    }

    /// Median colours, for the blank pictures.
    pub fn blank(&self) -> BlankColours {
        self.blank
    }

    /// Position of the pair whose input looks most like `input` when making `target`; the first of equals. A pair is never
    /// its own nearest: `file` is left out. None when nothing else is there.
    pub fn nearest(&self, target: Modality, input: &Picture, file: Option<&PathBuf>) -> Option<usize> {
        let wanted = thumbnail(input);
        let distance = |index: &usize| -> u64 {
            let found = &self.thumbnails[*index][target.other().index()];
            wanted.iter().zip(found).map(|(&a, &b)| u64::from(a.abs_diff(b)).pow(2)).sum()
        };
        (0..self.thumbnails.len()).filter(|&index| Some(&self.files[index]) != file).min_by_key(distance)
    }

    /// The picture that retrieval gives for pair `index` of `pairs`.
    pub(super) fn picture(
        &self,
        target: Modality,
        pairs: &PairFolder,
        index: usize,
        input: &Picture,
    ) -> Result<Picture, EvaluateError> {
        let Some(nearest) = self.nearest(target, input, Some(&canonical(pairs, index))) else {
            let problem =
                "is the only training pair and measured itself; give other pairs by --training".into();
            return Err(EvaluateError::Given { path: self.pairs.path(0).to_owned(), problem });
        };
        let (pair, _) = square(&self.pairs, nearest, self.side)?;
        Ok(of_modality(&pair, target).clone())
    }
}

/// Nothing but what needs no model.
struct Retrieval(Directions);

impl Source for Retrieval {
    fn candidates(&self, target: Modality) -> Vec<Candidate> {
        // With photographs comes the way back, so maps are always there.
        let is_there = target == Modality::Map || self.0.include(target);
        if is_there { vec![Candidate::Nearest] } else { Vec::new() }
    }

    fn picture(&self, _: &str, _: Modality, _: Candidate) -> Result<Picture, EvaluateError> {
        unreachable!("both baselines are made without a source")
    }
}

/// Measures the blank picture and the nearest pair of `options.training`, at a side in pixels, without a model: the same
/// numbers that [`evaluate`](super::evaluate) has for them. Options of generation do not matter.
///
/// # Errors
/// See [`EvaluateError`].
pub fn evaluate_baselines(
    side: u32,
    pairs: &PairFolder,
    options: &EvaluateOptions,
    progress: ProgressMode,
    interrupt: &Interrupt,
) -> Result<Evaluated, EvaluateError> {
    let name = "baselines".to_owned();
    let provenance = Provenance::new(name.clone(), "evaluation of baselines");
    let (subject, source) = (Subject::Predictions { name }, Retrieval(options.directions));
    measure_and_gather(subject, &source, side, pairs, options, provenance, progress, interrupt)
}

/// The file of a pair under the one name that it has for all.
fn canonical(pairs: &PairFolder, index: usize) -> PathBuf {
    let path = pairs.path(index);
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

fn thumbnail(picture: &Picture) -> Vec<u8> {
    picture.resized(THUMBNAIL, THUMBNAIL).into_rgb()
}

fn count(picture: &Picture, counts: &mut [[u64; 256]; 3]) {
    for pixel in picture.rgb().as_chunks::<3>().0 {
        counts.iter_mut().zip(pixel).for_each(|(counts, &value)| counts[usize::from(value)] += 1);
    }
}

/// The lower one of two middle values.
fn median(counts: &[u64; 256]) -> u8 {
    let all: u64 = counts.iter().sum();
    let mut below = 0;
    let is_middle = |count: &u64| {
        below += count;
        2 * below >= all
    };
    counts.iter().position(is_middle).expect("the counts add up to all") as u8
}
