//! Training, validation and test on different ground.

use std::collections::BTreeMap;
use std::f64::consts::{PI, TAU};
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use rstar::primitives::{GeomWithData, Rectangle};
use rstar::{AABB, RTree};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::error::DatasetError;
use super::manifest::Manifest;
use crate::lonlat::LonLat;
use crate::tile::{BoundingBox, EQUATOR_METRES, MAX_ZOOM, Tile, in_world};

/// Squares that are nearer than this, in widths of the world, touch (less than half a millimetre).
const TOUCH: f64 = 1e-11;

/// Web Mercator ends before the poles; so does what is computed with.
const LAST_LATITUDE: f64 = 89.9;

/// What pairs are for.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// To learn from.
    Train,
    /// To choose by while learning.
    Validation,
    /// To measure once, at the end.
    Test,
}

impl Split {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Train, Self::Validation, Self::Test];

    /// The name in files and flags.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Test => "test",
        }
    }
}

impl fmt::Display for Split {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

impl FromStr for Split {
    type Err = SplitError;

    fn from_str(text: &str) -> Result<Self, SplitError> {
        Self::ALL
            .into_iter()
            .find(|split| split.name() == text)
            .ok_or_else(|| SplitError::Name(text.to_owned()))
    }
}

/// Options that split nothing. Each message ends with the cure.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum SplitError {
    /// A name that is no split.
    #[error("{0:?} is no split; use train, validation or test")]
    Name(String),
    /// Shares that are no shares.
    #[error(
        "split: validation {validation} and test {test} are no shares of the pairs; give numbers from 0 to 1, together at most 1"
    )]
    Shares {
        /// Share of validation.
        validation: f64,
        /// Share of test.
        test: f64,
    },
    /// Blocks of no zoom.
    #[error("split.block_zoom: {0} is too deep; use 0 … {MAX_ZOOM}")]
    Zoom(u8),
    /// A buffer that is no distance on Earth.
    #[error("split.buffer_metres: {0} is no distance; give metres from 0 to 1000000")]
    Buffer(f64),
}

/// How pairs are split. The ground is cut into blocks, the tiles of one zoom, and each block that holds the middle of a
/// pair belongs to one split. Then pairs are taken out (they are of no split) so that no two splits come nearer to each
/// other than the buffer, whatever zooms the pairs are of:
///
/// 1. a pair over blocks of different splits is of none;
/// 2. of two pairs of different splits within the buffer, the one of validation gives way to that of test, the one of
///    training to both. Pairs that share an edge or a corner are within any buffer, also one of 0.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SplitOptions {
    /// Another seed gives other blocks.
    pub seed: u64,
    /// Share of the pairs for validation, 0.1 by default. As blocks are not cut, the share is met roughly.
    pub validation: f64,
    /// Share of the pairs for test, 0.1 by default.
    pub test: f64,
    /// Blocks are the tiles of this zoom, 15 by default (1.2 km at the equator).
    pub block_zoom: u8,
    /// Metres of ground that are kept between splits, 100 by default.
    pub buffer_metres: f64,
    /// Regions that are of one split as a whole, before the blocks; the first one counts. A pair over the edge of a
    /// region is of no split.
    pub hold_out: Vec<HoldOut>,
}

/// A region that is of one split.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct HoldOut {
    /// West, south, east, north in degrees, WGS 84.
    pub region: BoundingBox,
    /// The split.
    pub split: Split,
}

impl Default for SplitOptions {
    fn default() -> Self {
        Self {
            seed: 0,
            validation: 0.1,
            test: 0.1,
            block_zoom: 15,
            buffer_metres: 100.0,
            hold_out: Vec::new(),
        }
    }
}

impl SplitOptions {
    pub(super) fn check(&self) -> Result<(), SplitError> {
        let (validation, test) = (self.validation, self.test);
        if !(validation >= 0.0 && test >= 0.0 && validation + test <= 1.0 + 1e-9) {
            return Err(SplitError::Shares { validation, test });
        }
        if self.block_zoom > MAX_ZOOM {
            return Err(SplitError::Zoom(self.block_zoom));
        }
        if !(0.0..=1e6).contains(&self.buffer_metres) {
            return Err(SplitError::Buffer(self.buffer_metres));
        }
        Ok(())
    }
}

/// Which pair is of which split.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Assignment {
    /// Of each pair, in the order given; none of those that were taken out.
    pub splits: Vec<Option<Split>>,
    /// Pairs taken out because they lie over blocks of different splits, or over the edge of a region.
    pub straddling: usize,
    /// Pairs taken out because they lie within the buffer of a pair of another split.
    pub too_near: usize,
}

/// Assigns pairs to splits by the ground that they show, WGS 84. The same ground and options give the same splits.
///
/// # Errors
///
/// [`SplitError`] for options that cannot be meant.
pub fn assign(grounds: &[BoundingBox], options: &SplitOptions) -> Result<Assignment, SplitError> {
    options.check()?;
    let areas: Vec<Area> = grounds.iter().map(|bounds| Area::new(*bounds)).collect();
    let held_out: Vec<Option<HeldOut>> = areas.iter().map(|area| held_out(area, &options.hold_out)).collect();
    let blocks = blocks(grounds, &held_out, options);
    let trees = by_split(blocks.iter().map(|(tile, split)| (Area::new(tile.bounds()), *split)));

    let mut splits: Vec<Option<Split>> = Vec::with_capacity(areas.len());
    for (area, held_out) in areas.iter().zip(&held_out) {
        let mut of_blocks =
            Split::ALL.into_iter().filter(|split| area.meets(&trees[*split as usize], -TOUCH));
        splits.push(match held_out {
            Some(HeldOut::Inside(split)) => Some(*split),
            Some(HeldOut::Straddles) => None,
            // The first, if there is no second.
            None => of_blocks.next().filter(|_| of_blocks.next().is_none()),
        });
    }
    let straddling = splits.iter().filter(|split| split.is_none()).count();

    // The most precious first: what comes later gives way.
    let mut kept: Vec<RTree<Square>> = Vec::new();
    let mut too_near = 0;
    for split in Split::ALL.into_iter().rev() {
        let mut squares = Vec::new();
        for (index, area) in
            areas.iter().enumerate().filter(|(index, _)| splits[*index] == Some(split)).collect::<Vec<_>>()
        {
            let reach = area.reach(options.buffer_metres);
            if kept.iter().any(|others| area.meets(others, reach)) {
                splits[index] = None;
                too_near += 1;
            } else {
                squares.push(area.square(0));
            }
        }
        kept.push(RTree::bulk_load(squares));
    }
    Ok(Assignment { splits, straddling, too_near })
}

/// Splits a dataset anew and writes its manifest; `path` is the manifest or its folder. The pairs stay where they are.
///
/// # Errors
///
/// As [`Manifest::read`] and [`Manifest::write`], and [`DatasetError::Split`].
pub fn split_dataset(path: impl AsRef<Path>, options: &SplitOptions) -> Result<Assignment, DatasetError> {
    let mut manifest = Manifest::read(path)?;
    let assignment = manifest.split(options)?;
    manifest.write(true)?;
    Ok(assignment)
}

impl Manifest {
    /// Assigns the pairs to splits and notes it in the header.
    pub(super) fn split(&mut self, options: &SplitOptions) -> Result<Assignment, SplitError> {
        let grounds: Vec<BoundingBox> = self.pairs.iter().map(|pair| pair.bounds).collect();
        let assignment = assign(&grounds, options)?;
        for (pair, split) in self.pairs.iter_mut().zip(&assignment.splits) {
            pair.split = *split;
        }
        self.header.split = Some(options.clone());
        if let Some(report) = &mut self.header.report {
            let count = |split| assignment.splits.iter().filter(|found| **found == split).count();
            report.splits = Split::ALL.into_iter().map(|split| (split, count(Some(split)))).collect();
            report.between_splits = count(None);
        }
        Ok(assignment)
    }
}

/// Pairs of different splits that are nearer than the buffer: positions of both, each two once.
pub(super) fn overlaps(
    grounds: &[BoundingBox],
    splits: &[Option<Split>],
    buffer_metres: f64,
) -> Vec<(usize, usize)> {
    let areas: Vec<Area> = grounds.iter().map(|bounds| Area::new(*bounds)).collect();
    let squares = areas.iter().enumerate().filter(|(index, _)| splits[*index].is_some());
    let tree = RTree::bulk_load(squares.map(|(index, area)| area.square(index)).collect());
    let mut found = Vec::new();
    for (index, area) in areas.iter().enumerate().filter(|(index, _)| splits[*index].is_some()) {
        let reach = area.reach(buffer_metres);
        let near = area.envelopes(reach).into_iter().flat_map(|envelope| {
            tree.locate_in_envelope_intersecting(envelope).map(|square| square.data).collect::<Vec<_>>()
        });
        // Metres are longer on the plane the farther north: both must see it, as either does in `assign`.
        let sees = |other: usize| {
            let here = RTree::bulk_load(vec![area.square(index)]);
            areas[other].meets(&here, areas[other].reach(buffer_metres))
        };
        let apart = near.filter(|other| splits[*other] != splits[index] && sees(*other));
        found.extend(apart.map(|other| (index.min(other), index.max(other))));
    }
    found.sort_unstable();
    found.dedup();
    found
}

enum HeldOut {
    Inside(Split),
    Straddles,
}

fn held_out(area: &Area, regions: &[HoldOut]) -> Option<HeldOut> {
    regions.iter().find_map(|HoldOut { region, split }| {
        let region = RTree::bulk_load(vec![Area::new(*region).square(0)]);
        if !area.meets(&region, -TOUCH) {
            return None;
        }
        let inside = area.envelopes(-TOUCH).iter().any(|envelope| {
            region.locate_in_envelope_intersecting(*envelope).any(|square| {
                let (lower, upper) = (square.geom().lower(), square.geom().upper());
                (0..2).all(|axis| {
                    lower[axis] <= envelope.lower()[axis] && upper[axis] >= envelope.upper()[axis]
                })
            })
        });
        Some(if inside { HeldOut::Inside(*split) } else { HeldOut::Straddles })
    })
}

/// Which block is of which split: in a seeded order, each goes to the split that lacks most pairs.
fn blocks(
    grounds: &[BoundingBox],
    held_out: &[Option<HeldOut>],
    options: &SplitOptions,
) -> BTreeMap<Tile, Split> {
    let mut pairs: BTreeMap<Tile, f64> = BTreeMap::new();
    for (bounds, _) in grounds.iter().zip(held_out).filter(|(_, held_out)| held_out.is_none()) {
        let block = Tile::at(bounds.centre(), options.block_zoom).expect("the zoom was checked");
        *pairs.entry(block).or_default() += 1.0;
    }
    let total: f64 = pairs.values().sum();
    let shares = [1.0 - options.validation - options.test, options.validation, options.test];
    let mut lacking = shares.map(|share| share * total);
    let mut order: Vec<(u64, Tile)> = pairs.keys().map(|tile| (hashed(options.seed, *tile), *tile)).collect();
    order.sort_unstable();
    let mut blocks = BTreeMap::new();
    for (_, tile) in order {
        let most = Split::ALL.into_iter().max_by(|left, right| {
            lacking[*left as usize].total_cmp(&lacking[*right as usize]).then(right.cmp(left))
        });
        let split = most.expect("there are three splits");
        lacking[split as usize] -= pairs[&tile];
        blocks.insert(tile, split);
    }
    blocks
}

/// Numbers that differ for different numbers, and are spread evenly (SplitMix64).
pub(super) fn mixed(number: u64) -> u64 {
    let number = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let number = (number ^ number >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let number = (number ^ number >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ number >> 31
}

fn hashed(seed: u64, tile: Tile) -> u64 {
    mixed(mixed(mixed(seed) ^ u64::from(tile.x())) ^ u64::from(tile.y()) << 8 ^ u64::from(tile.z()))
}

type Square = GeomWithData<Rectangle<[f64; 2]>, usize>;

fn by_split(areas: impl Iterator<Item = (Area, Split)>) -> [RTree<Square>; 3] {
    let mut squares = [Vec::new(), Vec::new(), Vec::new()];
    areas.for_each(|(area, split)| squares[split as usize].push(area.square(0)));
    squares.map(RTree::bulk_load)
}

/// Ground on the plane of web Mercator, in widths of the world. It may reach over the right edge.
struct Area {
    lower: [f64; 2],
    upper: [f64; 2],
    /// The latitude farthest from the equator.
    far: f64,
}

impl Area {
    fn new(bounds: BoundingBox) -> Self {
        let row = |latitude: f64| {
            let latitude = latitude.clamp(-LAST_LATITUDE, LAST_LATITUDE);
            in_world(LonLat::new(0.0, latitude).expect("within the poles")).1
        };
        let left = (bounds.west() + 180.0) / 360.0;
        let lower = [left, row(bounds.north())];
        let upper = [left + bounds.width() / 360.0, row(bounds.south())];
        Self { lower, upper, far: bounds.north().abs().max(bounds.south().abs()) }
    }

    fn square(&self, index: usize) -> Square {
        GeomWithData::new(Rectangle::from_corners(self.lower, self.upper), index)
    }

    /// So many metres on the plane, as far as they reach in any direction; a little more, because the Earth is no sphere.
    fn reach(&self, metres: f64) -> f64 {
        let angle = metres * 1.01 / EQUATOR_METRES * TAU;
        let last = LAST_LATITUDE.to_radians();
        let far = self.far.to_radians().min(last);
        // Toward the pole the plane is stretched more and more.
        let along = angle / (far + angle).min(last).cos();
        // The farthest meridian that a circle around the farthest point touches; all of them when it holds the pole.
        let sine = angle.sin() / far.cos();
        let across = if sine < 1.0 { sine.asin() } else { PI };
        along.max(across) / TAU + TOUCH
    }

    /// The area grown by `reach`, and the same a world to the left and to the right.
    fn envelopes(&self, reach: f64) -> [AABB<[f64; 2]>; 3] {
        [-1.0, 0.0, 1.0].map(|world| {
            let lower = [self.lower[0] - reach + world, self.lower[1] - reach];
            AABB::from_corners(lower, [self.upper[0] + reach + world, self.upper[1] + reach])
        })
    }

    fn meets(&self, others: &RTree<Square>, reach: f64) -> bool {
        let is_met =
            |envelope: &AABB<[f64; 2]>| others.locate_in_envelope_intersecting(*envelope).next().is_some();
        self.envelopes(reach).iter().any(is_met)
    }
}

#[cfg(test)]
#[path = "split_tests.rs"]
mod tests;
