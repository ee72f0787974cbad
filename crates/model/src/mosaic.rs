//! The tiles of one zoom as a plane of pixels.

use std::collections::HashMap;

use earthmapper_geo::picture::decode_with_holes;
use earthmapper_geo::store::TileReader;
use earthmapper_geo::{Mask, Picture, PictureLimits, Place, Tile};

use crate::lattice::Plane;
use crate::pyramid::PyramidError;

/// Decoded tiles that are remembered.
const REMEMBERED: usize = 64;

/// A tile's picture, and where it is transparent, which means that there is no data.
#[derive(Clone, Debug)]
pub struct TilePicture {
    /// The picture; what it shows in the holes means nothing.
    pub picture: Picture,
    /// Where there is no data, of the picture's size.
    pub holes: Mask,
}

impl TilePicture {
    /// Whether there is no data at all.
    pub fn is_empty(&self) -> bool {
        self.holes.hole_count() == self.holes.holes().len()
    }

    /// The square tile at another side, in pixels.
    #[must_use]
    pub fn resized(&self, side: u32) -> Self {
        Self { picture: self.picture.resized(side, side), holes: self.holes.resized(side, side) }
    }

    /// The picture on white, for formats that know no transparency.
    pub fn over_white(&self) -> Picture {
        let mut picture = self.picture.clone();
        let pixels = picture.rgb_mut().as_chunks_mut::<3>().0.iter_mut();
        pixels
            .zip(self.holes.holes())
            .filter(|(_, hole)| **hole)
            .for_each(|(pixel, _)| *pixel = [u8::MAX; 3]);
        picture
    }

    /// The picture with the mean colour of the data, which says least, in the holes.
    pub fn filled(&self) -> Picture {
        let mut picture = self.picture.clone();
        fill(&mut picture, self.holes.holes());
        picture
    }
}

/// Gives holes the mean colour of the rest; false where there is no rest.
fn fill(picture: &mut Picture, holes: &[bool]) -> bool {
    let pixels = picture.rgb_mut().as_chunks_mut::<3>().0;
    let (mut sums, mut count) = ([0_u64; 3], 0);
    for (pixel, _) in pixels.iter().zip(holes).filter(|(_, is_hole)| !**is_hole) {
        sums.iter_mut().zip(pixel).for_each(|(sum, value)| *sum += u64::from(*value));
        count += 1;
    }
    if count == 0 {
        return false;
    }
    let mean = sums.map(|sum| (sum / count) as u8);
    for (pixel, _) in pixels.iter_mut().zip(holes).filter(|(_, is_hole)| **is_hole) {
        *pixel = mean;
    }
    true
}

/// The tiles of one zoom, (0, 0) at the top left corner of the world. East of the last tile comes the first.
pub(crate) struct Mosaic<'a> {
    reader: &'a dyn TileReader,
    limits: PictureLimits,
    zoom: u8,
    /// Side of a tile in pixels.
    side: u32,
    /// Whether the model is told where windows lie.
    told: bool,
    decoded: HashMap<Tile, Option<TilePicture>>,
}

impl<'a> Mosaic<'a> {
    /// The tiles of a zoom, all of `side` pixels.
    pub fn new(reader: &'a dyn TileReader, limits: PictureLimits, zoom: u8, side: u32, told: bool) -> Self {
        Self { reader, limits, zoom, side, told, decoded: HashMap::new() }
    }

    /// A tile, or none where there is none or one that cannot be used.
    fn tile(&mut self, tile: Tile) -> Option<&TilePicture> {
        if !self.decoded.contains_key(&tile) {
            if self.decoded.len() >= REMEMBERED {
                self.decoded.clear();
            }
            // One that cannot be read is missing for its neighbours; whoever wants itself is told why.
            let read = load(self.reader, tile, &self.limits, Some(self.side)).unwrap_or(None);
            self.decoded.insert(tile, read);
        }
        self.decoded[&tile].as_ref()
    }
}

/// Reads and decodes a tile; it must have the given side, if one is given.
pub(crate) fn load(
    reader: &dyn TileReader,
    tile: Tile,
    limits: &PictureLimits,
    side: Option<u32>,
) -> Result<Option<TilePicture>, PyramidError> {
    let Some(encoded) = reader.read(tile)? else { return Ok(None) };
    let name = reader.path().join(format!("{tile}.{}", encoded.format.extension()));
    let (picture, holes) = decode_with_holes(&encoded.bytes, &name, limits)?;
    match side {
        Some(side) if (picture.width(), picture.height()) != (side, side) => {
            let (width, height) = (picture.width(), picture.height());
            Err(PyramidError::Side { name, width, height, side })
        }
        _ => Ok(Some(TilePicture { picture, holes })),
    }
}

impl Plane for Mosaic<'_> {
    type Error = PyramidError;

    fn read(&mut self, x: i64, y: i64, side: u32) -> Result<Option<Picture>, PyramidError> {
        let (length, world) = (i64::from(self.side), 1i64 << self.zoom);
        let mut whole = Picture::filled(side, side, [0; 3]);
        let mut holes = vec![true; side as usize * side as usize];
        for row in y.div_euclid(length)..=(y + i64::from(side) - 1).div_euclid(length) {
            for column in x.div_euclid(length)..=(x + i64::from(side) - 1).div_euclid(length) {
                if !(0..world).contains(&row) {
                    continue;
                }
                // What of the tile lies in the window, from the tile's and from the window's corner.
                let overlap = |at: i64, start: i64| {
                    let (low, high) =
                        ((at * length).max(start), ((at + 1) * length).min(start + i64::from(side)));
                    ((low - at * length) as u32, (low - start) as u32, (high - low) as u32)
                };
                let (inside_x, to_x, width) = overlap(column, x);
                let (inside_y, to_y, height) = overlap(row, y);
                let tile = Tile::new(self.zoom, column.rem_euclid(world) as u32, row as u32)?;
                let Some(read) = self.tile(tile) else { continue };
                whole.paste(&read.picture.crop(inside_x, inside_y, width, height), to_x, to_y);
                for line in 0..height {
                    for across in 0..width {
                        let at = (to_y + line) as usize * side as usize + (to_x + across) as usize;
                        holes[at] = read.holes.is_hole(inside_x + across, inside_y + line);
                    }
                }
            }
        }
        Ok(fill(&mut whole, &holes).then_some(whole))
    }

    fn place(&self, x: f64, y: f64) -> Option<Place> {
        if !self.told {
            return None;
        }
        let (length, world) = (f64::from(self.side), 1u32 << self.zoom);
        let at = |position: f64| (position / length).clamp(0.0, f64::from(world) - 1e-9);
        let (x, y) = (at(x.rem_euclid(length * f64::from(world))), at(y));
        let tile = Tile::new(self.zoom, x as u32, y as u32).ok()?;
        let point = tile.point_at(x.fract() * length, y.fract() * length, self.side);
        Place::new(
            point,
            Some(earthmapper_geo::tile::metres_per_pixel(point.latitude(), self.zoom, self.side)),
        )
        .ok()
    }
}
