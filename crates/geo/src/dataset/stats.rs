//! What a dataset looks like: numbers and sheets.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use rayon::prelude::*;

use super::error::DatasetError;
use super::make::Progress;
use super::manifest::{Manifest, PairRecord};
use super::split::{Split, mixed};
use super::{page, world};
use crate::pairs::{PairFolder, PairSelection};
use crate::picture::{Picture, PictureLimits};

/// The most pairs whose pixels are looked at.
const SAMPLED: usize = 600;

/// Pairs on each sheet, pairs a row, and pixels a side.
const SHEET: (usize, u32, u32) = (24, 4, 128);
const ALIGNMENT: (usize, u32, u32) = (12, 3, 192);

/// Colours of maps are counted in steps of this.
const STEP: u8 = 8;

/// The commonest colours of maps that are kept.
const COLOURS: usize = 12;

/// Mean and standard deviation of red, green and blue, of 255.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ChannelStats {
    /// Means.
    pub mean: [f64; 3],
    /// Standard deviations over all pixels.
    pub deviation: [f64; 3],
}

/// What a dataset looks like.
#[derive(Clone, Debug, PartialEq)]
pub struct DatasetStats {
    /// The manifest without its pairs.
    pub manifest: Manifest,
    /// Pairs by split; none are those between splits.
    pub splits: BTreeMap<Option<Split>, usize>,
    /// Pairs by source.
    pub sources: BTreeMap<String, usize>,
    /// Pairs by zoom; none are those cut along a raster.
    pub zooms: BTreeMap<Option<u8>, usize>,
    /// Least, median and greatest metres per pixel.
    pub metres_per_pixel: Option<(f64, f64, f64)>,
    /// Pairs whose pixels were looked at.
    pub sampled: usize,
    /// Colours of the photographs looked at.
    pub photographs: ChannelStats,
    /// Colours of the maps looked at.
    pub maps: ChannelStats,
    /// The commonest colours of the maps looked at, in steps of 8, with their share of the pixels.
    pub map_colours: Vec<([u8; 3], f64)>,
    /// The world, with a dot where there are pairs.
    pub world: Picture,
    /// The ground of each source: a frame for each pair in the colour of its split.
    pub grounds: Vec<(String, Picture)>,
    /// Pairs side by side, and their names.
    pub contact: Option<(Picture, Vec<String>)>,
    /// Photographs with the edges of their maps, and their names.
    pub alignment: Option<(Picture, Vec<String>)>,
}

impl DatasetStats {
    /// One page of HTML that needs nothing else: pictures are inside, no script, nothing from the net.
    pub fn html(&self) -> String {
        page::html(self)
    }
}

/// Looks at a dataset. Pixels are those of some pairs, always the same. `path` is the manifest or its folder.
///
/// # Errors
///
/// As [`Manifest::read`]; [`DatasetError::Pair`] for a pair that cannot be read ([`check`](fn@super::check) names all
/// of them); [`DatasetError::Interrupted`] when `progress` breaks.
pub fn stats(
    path: impl AsRef<Path>,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<DatasetStats, DatasetError> {
    let mut manifest = Manifest::read(path)?;
    let pairs = std::mem::take(&mut manifest.pairs);
    let chosen = chosen(&pairs, SAMPLED);
    let folder = (!pairs.is_empty())
        .then(|| PairFolder::of_manifest(&manifest.folder, &pairs, &PairSelection::default()));
    let mut colours = Colours::default();
    let (mut contact, mut alignment) = (Vec::new(), Vec::new());
    for (index, batch) in chosen.chunks(32).enumerate() {
        let (done, total) = (index * 32, chosen.len());
        if progress(Progress { done, total, kept: done }).is_break() {
            return Err(DatasetError::Interrupted { folder: manifest.folder, done, total });
        }
        let folder = folder.as_ref().expect("pairs were chosen");
        let read = |index: &usize| folder.read(*index, &PictureLimits::default());
        let read = batch.par_iter().map(read).collect::<Result<Vec<_>, _>>()?;
        for pair in read {
            colours.add(&pair.satellite, &pair.map);
            let both = (pair.satellite, pair.map);
            if alignment.len() < ALIGNMENT.0 {
                alignment.push((both.clone(), pair.name.clone()));
            }
            if contact.len() < SHEET.0 {
                contact.push((both, pair.name));
            }
        }
    }
    let count = |key: &dyn Fn(&PairRecord) -> Option<String>| {
        let mut counts = BTreeMap::new();
        pairs.iter().filter_map(key).for_each(|key| *counts.entry(key).or_insert(0) += 1);
        counts
    };
    let mut metres: Vec<f64> = pairs.iter().map(|pair| pair.metres_per_pixel).collect();
    metres.sort_by(f64::total_cmp);
    let sources = count(&|pair| Some(pair.source.clone()));
    let grounds = sources.keys().map(|source| {
        let of_source: Vec<&PairRecord> = pairs.iter().filter(|pair| pair.source == *source).collect();
        (source.clone(), world::ground(&of_source))
    });
    let mut splits = BTreeMap::new();
    pairs.iter().for_each(|pair| *splits.entry(pair.split).or_insert(0) += 1);
    let mut zooms = BTreeMap::new();
    pairs.iter().for_each(|pair| *zooms.entry(pair.tile.map(|tile| tile.z())).or_insert(0) += 1);
    type Sheet = fn(&[(Picture, Picture)], u32, u32) -> Picture;
    let sheet =
        |pairs: Vec<((Picture, Picture), String)>, draw: Sheet, (_, columns, side): (usize, u32, u32)| {
            let (pictures, names): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
            (!names.is_empty()).then(|| (draw(&pictures, columns, side), names))
        };
    Ok(DatasetStats {
        splits,
        zooms,
        metres_per_pixel: metres
            .first()
            .map(|least| (*least, metres[metres.len() / 2], metres[metres.len() - 1])),
        sampled: chosen.len(),
        photographs: colours.photographs.stats(),
        maps: colours.maps.stats(),
        map_colours: colours.commonest(),
        world: world::world(&pairs),
        grounds: grounds.collect(),
        contact: sheet(contact, super::contact_sheet, SHEET),
        alignment: sheet(alignment, super::alignment_sheet, ALIGNMENT),
        sources,
        manifest,
    })
}

/// Positions of some pairs, spread over all of them by their names: the same whatever the order.
fn chosen(pairs: &[PairRecord], most: usize) -> Vec<usize> {
    let hash = |name: &str| name.bytes().fold(0, |hash, byte| mixed(hash ^ u64::from(byte)));
    let mut order: Vec<(u64, usize)> =
        pairs.iter().enumerate().map(|(index, pair)| (hash(&pair.name), index)).collect();
    order.sort_unstable();
    order.into_iter().take(most).map(|(_, index)| index).collect()
}

#[derive(Default)]
struct Sums {
    count: f64,
    sum: [f64; 3],
    squares: [f64; 3],
}

impl Sums {
    fn add(&mut self, picture: &Picture) {
        for pixel in picture.rgb().chunks_exact(3) {
            self.count += 1.0;
            for (channel, &value) in pixel.iter().enumerate() {
                let value = f64::from(value);
                self.sum[channel] += value;
                self.squares[channel] += value * value;
            }
        }
    }

    fn stats(&self) -> ChannelStats {
        if self.count == 0.0 {
            return ChannelStats::default();
        }
        let mean = self.sum.map(|sum| sum / self.count);
        let variance = |channel: usize| self.squares[channel] / self.count - mean[channel] * mean[channel];
        ChannelStats { mean, deviation: [0, 1, 2].map(|channel| variance(channel).max(0.0).sqrt()) }
    }
}

#[derive(Default)]
struct Colours {
    photographs: Sums,
    maps: Sums,
    counts: BTreeMap<[u8; 3], u64>,
}

impl Colours {
    fn add(&mut self, photograph: &Picture, map: &Picture) {
        self.photographs.add(photograph);
        self.maps.add(map);
        for pixel in map.rgb().chunks_exact(3) {
            let colour = [pixel[0], pixel[1], pixel[2]].map(|value| value / STEP * STEP);
            *self.counts.entry(colour).or_default() += 1;
        }
    }

    fn commonest(&self) -> Vec<([u8; 3], f64)> {
        let total: u64 = self.counts.values().sum();
        let mut colours: Vec<_> = self.counts.iter().map(|(colour, count)| (*count, *colour)).collect();
        colours.sort_by(|left, right| right.cmp(left));
        let share = |(count, colour): (u64, [u8; 3])| {
            (colour.map(|value| value + STEP / 2), count as f64 / total as f64)
        };
        colours.into_iter().take(COLOURS).map(share).collect()
    }
}
