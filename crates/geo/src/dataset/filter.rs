//! Which pairs are left out: one rule, one number that it measures, one threshold.

use std::collections::{BTreeSet, HashMap};
use std::fmt;

use image_hasher::{HashAlg, HasherConfig};
use serde::{Deserialize, Serialize};

use super::error::DatasetError;
use super::shift::{Shift, find_shift};
use crate::picture::{Mask, Picture};

/// Squares a side in which clouds, haze and blanks are looked for.
const SQUARES: u32 = 16;

/// A rule by which pairs are left out.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// Photograph or map has holes: nodata, transparency, missing tiles.
    Holes,
    /// Parts of the photograph are of a single colour: black or white fillings, "no imagery" tiles.
    Blank,
    /// Parts of the photograph are bright, grey and soft.
    Cloud,
    /// The photograph is dark nowhere.
    Haze,
    /// The map is nearly of one colour.
    PlainMap,
    /// The photograph lies beside its map.
    Misregistered,
    /// The photograph looks like that of an earlier pair.
    NearDuplicate,
}

impl Rule {
    /// The name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Holes => "holes",
            Self::Blank => "blank",
            Self::Cloud => "cloud",
            Self::Haze => "haze",
            Self::PlainMap => "plain-map",
            Self::Misregistered => "misregistered",
            Self::NearDuplicate => "near-duplicate",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

/// The threshold of a rule: a number, or `"off"`.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(from = "Written", into = "Written")]
pub enum Limit {
    /// The rule leaves nothing out.
    Off,
    /// What [`Filters`] says of the rule.
    At(f64),
}

#[derive(Deserialize, Serialize)]
#[serde(untagged)]
enum Written {
    Number(f64),
    Word(Word),
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Off,
}

impl From<Written> for Limit {
    fn from(written: Written) -> Self {
        match written {
            Written::Number(number) => Self::At(number),
            Written::Word(Word::Off) => Self::Off,
        }
    }
}

impl From<Limit> for Written {
    fn from(limit: Limit) -> Self {
        match limit {
            Limit::At(number) => Self::Number(number),
            Limit::Off => Self::Word(Word::Off),
        }
    }
}

impl Limit {
    fn is_below(self, measured: f64) -> bool {
        matches!(self, Self::At(limit) if limit < measured)
    }

    fn is_above(self, measured: f64) -> bool {
        matches!(self, Self::At(limit) if limit > measured)
    }
}

/// Which pairs are left out.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filters {
    /// [`Rule::Holes`]: the largest share of pixels without data, in either picture. 0.01 by default.
    pub holes: Limit,
    /// [`Rule::Blank`]: the largest share of the photograph in squares of a single colour. 0.25 by default.
    pub blank: Limit,
    /// [`Rule::Cloud`]: the largest share of the photograph under cloud. 0.3 by default.
    pub cloud: Limit,
    /// [`Rule::Haze`]: the brightest that the dark of the photograph may be, 0 … 1. 0.5 by default.
    pub haze: Limit,
    /// [`Rule::PlainMap`]: the lowest standard deviation of the map's colours, of 255. 10 by default.
    pub map_deviation: Limit,
    /// [`Rule::NearDuplicate`]: pairs that differ in so many of 64 bits, or fewer, are one. 3 by default.
    pub near_duplicate: Limit,
    /// [`Rule::Misregistered`]: the largest shift in pixels, when it is found with confidence. 16 by default.
    pub shift: Limit,
    /// The confidence from which a shift is believed, in standard deviations ([`Shift::confidence`]). 7 by default.
    pub confidence: f64,
}

impl Default for Filters {
    fn default() -> Self {
        Self {
            holes: Limit::At(0.01),
            blank: Limit::At(0.25),
            cloud: Limit::At(0.3),
            haze: Limit::At(0.5),
            map_deviation: Limit::At(10.0),
            near_duplicate: Limit::At(3.0),
            shift: Limit::At(16.0),
            confidence: 7.0,
        }
    }
}

impl Filters {
    /// No rule leaves anything out.
    pub const OFF: Self = Self {
        holes: Limit::Off,
        blank: Limit::Off,
        cloud: Limit::Off,
        haze: Limit::Off,
        map_deviation: Limit::Off,
        near_duplicate: Limit::Off,
        shift: Limit::Off,
        confidence: 7.0,
    };

    /// The rules that leave a pair out, by what was measured of it alone; [`Rule::NearDuplicate`] needs the others.
    pub fn broken(&self, measures: &Measures) -> BTreeSet<Rule> {
        let shift = self.believed(measures.shift).map_or(0.0, |shift| shift.length());
        let rules = [
            (Rule::Holes, self.holes.is_below(measures.holes)),
            (Rule::Blank, self.blank.is_below(measures.blank)),
            (Rule::Cloud, self.cloud.is_below(measures.cloud)),
            (Rule::Haze, self.haze.is_below(measures.haze)),
            (Rule::PlainMap, self.map_deviation.is_above(measures.map_deviation)),
            (Rule::Misregistered, self.shift.is_below(shift)),
        ];
        rules.into_iter().filter(|(_, broken)| *broken).map(|(rule, _)| rule).collect()
    }

    /// The shift, when it is found with enough confidence.
    pub(super) fn believed(&self, shift: Option<Shift>) -> Option<Shift> {
        shift.filter(|shift| shift.confidence >= self.confidence)
    }

    pub(super) fn check(&self) -> Result<(), DatasetError> {
        let limits = [
            ("holes", self.holes),
            ("blank", self.blank),
            ("cloud", self.cloud),
            ("haze", self.haze),
            ("map_deviation", self.map_deviation),
            ("near_duplicate", self.near_duplicate),
            ("shift", self.shift),
            ("confidence", Limit::At(self.confidence)),
        ];
        for (key, limit) in limits {
            if let Limit::At(number) = limit
                && !(number.is_finite() && number >= 0.0)
            {
                let problem = format!("is {number}; give a number of at least 0, or \"off\"");
                return Err(DatasetError::Options { key: format!("filters.{key}"), problem });
            }
        }
        if self.near_duplicate.is_above(32.0) {
            let problem =
                "is beyond 32: half of the bits differ by chance; give fewer, or \"off\"".to_owned();
            return Err(DatasetError::Options { key: "filters.near_duplicate".to_owned(), problem });
        }
        Ok(())
    }

    /// For each picture, by its hash and in order: whether it looks like an earlier one that is kept.
    pub(super) fn duplicates(&self, hashes: &[Option<u64>]) -> Vec<bool> {
        let Limit::At(limit) = self.near_duplicate else { return vec![false; hashes.len()] };
        // Hashes that differ in at most n bits agree in one of n + 1 bands of bits at least.
        let limit = limit as u32;
        let bands = limit + 1;
        let band = |hash: u64, index: u32| {
            let (start, end) = (index * 64 / bands, (index + 1) * 64 / bands);
            (index, hash >> start & (u64::MAX >> (64 - (end - start))))
        };
        let mut kept: HashMap<(u32, u64), Vec<u64>> = HashMap::new();
        let mut is_duplicate = |hash: u64| {
            let near = |other: &u64| (hash ^ other).count_ones() <= limit;
            if (0..bands)
                .any(|index| kept.get(&band(hash, index)).is_some_and(|others| others.iter().any(near)))
            {
                return true;
            }
            (0..bands).for_each(|index| kept.entry(band(hash, index)).or_default().push(hash));
            false
        };
        hashes.iter().map(|hash| hash.is_some_and(&mut is_duplicate)).collect()
    }
}

/// What was measured of a pair.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Measures {
    /// Share of pixels without data, in either picture.
    pub holes: f64,
    /// Share of the photograph in squares (a 32nd of its side) of a single colour.
    pub blank: f64,
    /// Share of the photograph in squares (a 16th of its side) that are bright, grey and soft.
    pub cloud: f64,
    /// How bright the dark is, 0 … 1: the median over squares of the darkest channel of their darkest pixels.
    pub haze: f64,
    /// Standard deviation of the map's colours, of 255: the root mean square of the three channels' deviations.
    pub map_deviation: f64,
    /// What the photograph looks like, 16 hexadecimal digits; photographs that look alike differ in few bits.
    pub hash: Option<String>,
    /// Where the photograph lies relative to its map. Not measured of pairs that another rule leaves out.
    pub shift: Option<Shift>,
    /// Pixels right and down by which the photograph was cut beside its place, so that it fits the map.
    pub moved: Option<[i32; 2]>,
}

impl Measures {
    pub(super) fn hash_bits(&self) -> Option<u64> {
        u64::from_str_radix(self.hash.as_deref()?, 16).ok()
    }
}

/// Measures a pair; `holes` are the pixels where either picture has no data. The shift is looked for only if no other
/// rule of `filters` leaves the pair out.
///
/// # Panics
///
/// When the sizes differ.
pub fn measure(photograph: &Picture, map: &Picture, holes: &Mask, filters: &Filters) -> Measures {
    let (cloud, haze) = cloud_and_haze(photograph);
    let pixels = f64::from(holes.width()) * f64::from(holes.height());
    let mut measures = Measures {
        holes: holes.hole_count() as f64 / pixels,
        blank: blank(photograph),
        cloud,
        haze,
        map_deviation: colour_deviation(map),
        hash: Some(format!("{:016x}", perceptual_hash(photograph))),
        ..Measures::default()
    };
    if filters.broken(&measures).is_empty() {
        measures.shift = find_shift(photograph, map);
    }
    measures
}

/// The corners of squares, a number of them a side (fewer when there are fewer pixels).
fn squares(
    picture: &Picture,
    count: u32,
) -> impl Iterator<Item = (std::ops::Range<u32>, std::ops::Range<u32>)> + use<> {
    let (width, height) = (picture.width(), picture.height());
    let cut = move |length: u32, index: u32| index * length / count..(index + 1) * length / count;
    (0..count)
        .flat_map(move |row| (0..count).map(move |column| (cut(width, column), cut(height, row))))
        .filter(|(columns, rows)| !columns.is_empty() && !rows.is_empty())
}

fn pixels_of(
    picture: &Picture,
    (columns, rows): &(std::ops::Range<u32>, std::ops::Range<u32>),
) -> impl Iterator<Item = [u8; 3]> {
    let columns = columns.clone();
    rows.clone().flat_map(move |y| columns.clone().map(move |x| picture.pixel(x, y)))
}

fn blank(photograph: &Picture) -> f64 {
    let (mut blank, mut total) = (0, 0);
    for square in squares(photograph, 2 * SQUARES) {
        let mut pixels = pixels_of(photograph, &square);
        let first = pixels.next().expect("a square has pixels");
        total += 1;
        // One step is what JPEG makes of a flat filling.
        blank += usize::from(
            pixels.all(|pixel| (0..3).all(|channel| pixel[channel].abs_diff(first[channel]) <= 1)),
        );
    }
    blank as f64 / f64::from(total)
}

/// Share of bright, grey, soft squares, and the median darkness of all squares.
fn cloud_and_haze(photograph: &Picture) -> (f64, f64) {
    const BRIGHT: f64 = 190.0;
    const COLOURFUL: f64 = 24.0;
    const ROUGH: f64 = 14.0;
    /// Share of a square's pixels that may be darker than its dark: grain is not.
    const DARKEST: f64 = 0.05;
    let (mut clouds, mut darks) = (0, Vec::new());
    for square in squares(photograph, SQUARES) {
        let (mut sum, mut squared, mut colour, mut dark) = (0.0, 0.0, 0.0, Vec::new());
        for pixel in pixels_of(photograph, &square) {
            let (low, high) = (pixel.into_iter().min().unwrap_or(0), pixel.into_iter().max().unwrap_or(0));
            let grey = pixel.into_iter().map(f64::from).sum::<f64>() / 3.0;
            (sum, squared, colour) = (sum + grey, squared + grey * grey, colour + f64::from(high - low));
            dark.push(low);
        }
        let count = dark.len() as f64;
        let mean = sum / count;
        let rough = (squared / count - mean * mean).max(0.0).sqrt();
        clouds += usize::from(mean >= BRIGHT && colour / count <= COLOURFUL && rough <= ROUGH);
        let rank = (count * DARKEST) as usize;
        darks.push(*dark.select_nth_unstable(rank).1);
    }
    let middle = darks.len() / 2;
    let cloud = clouds as f64 / darks.len() as f64;
    (cloud, f64::from(*darks.select_nth_unstable(middle).1) / 255.0)
}

/// Root mean square over the channels of their standard deviations.
pub(super) fn colour_deviation(picture: &Picture) -> f64 {
    let count = picture.rgb().len() as f64 / 3.0;
    let mut variance = 0.0;
    for channel in 0..3 {
        let values = || picture.rgb().iter().skip(channel).step_by(3).map(|value| f64::from(*value));
        let mean = values().sum::<f64>() / count;
        variance += values().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
    }
    (variance / 3.0).sqrt()
}

/// 64 bits of the coarse frequencies of a picture's grey.
fn perceptual_hash(picture: &Picture) -> u64 {
    let hasher = HasherConfig::new().hash_size(8, 8).hash_alg(HashAlg::Median).preproc_dct().to_hasher();
    let small = picture.resized(picture.width().min(64), picture.height().min(64));
    let (width, height) = (small.width(), small.height());
    let buffer = image::RgbImage::from_raw(width, height, small.into_rgb()).expect("three bytes per pixel");
    let hash = hasher.hash_image(&buffer);
    hash.as_bytes().iter().take(8).fold(0, |bits, byte| bits << 8 | u64::from(*byte))
}

#[cfg(test)]
#[path = "filter_tests.rs"]
mod tests;
