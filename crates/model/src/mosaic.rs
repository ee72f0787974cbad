//! The tiles of one zoom as a plane of pixels.

use std::collections::{HashMap, HashSet};

use earthmapper_geo::picture::decode_picture;
use earthmapper_geo::store::TileReader;
use earthmapper_geo::{Picture, PictureLimits, Place, Tile};

use crate::lattice::Plane;
use crate::pyramid::PyramidError;

/// Decoded tiles that are remembered.
const REMEMBERED: usize = 64;

/// The tiles of one zoom, (0, 0) at the top left corner of the world. East of the last tile comes the first.
pub(crate) struct Mosaic<'a> {
    reader: &'a dyn TileReader,
    limits: PictureLimits,
    zoom: u8,
    /// Side of a tile in pixels.
    side: u32,
    /// Whether the model is told where windows lie.
    told: bool,
    decoded: HashMap<Tile, Option<Picture>>,
    /// Tiles that are there but cannot be used.
    broken: HashSet<Tile>,
}

impl<'a> Mosaic<'a> {
    /// The tiles of a zoom, all of `side` pixels.
    pub fn new(reader: &'a dyn TileReader, limits: PictureLimits, zoom: u8, side: u32, told: bool) -> Self {
        Self { reader, limits, zoom, side, told, decoded: HashMap::new(), broken: HashSet::new() }
    }

    /// Whether a tile was found to be there but of no use.
    pub fn is_broken(&self, tile: Tile) -> bool {
        self.broken.contains(&tile)
    }

    /// A tile, or none where there is none or one that cannot be used.
    fn tile(&mut self, tile: Tile) -> Option<&Picture> {
        if !self.decoded.contains_key(&tile) {
            if self.decoded.len() >= REMEMBERED {
                self.decoded.clear();
            }
            let picture = load(self.reader, tile, &self.limits, Some(self.side)).unwrap_or_else(|_| {
                self.broken.insert(tile);
                None
            });
            self.decoded.insert(tile, picture);
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
) -> Result<Option<Picture>, PyramidError> {
    let Some(encoded) = reader.read(tile)? else { return Ok(None) };
    let name = reader.path().join(format!("{tile}.{}", encoded.format.extension()));
    let picture = decode_picture(&encoded.bytes, &name, limits)?;
    match side {
        Some(side) if (picture.width(), picture.height()) != (side, side) => {
            let (width, height) = (picture.width(), picture.height());
            Err(PyramidError::Side { name, width, height, side })
        }
        _ => Ok(Some(picture)),
    }
}

impl Plane for Mosaic<'_> {
    type Error = PyramidError;

    fn read(&mut self, x: i64, y: i64, side: u32) -> Result<Option<Picture>, PyramidError> {
        let (length, world) = (i64::from(self.side), 1i64 << self.zoom);
        let mut whole: Option<Picture> = None;
        let mut holes = Vec::new();
        for row in y.div_euclid(length)..=(y + i64::from(side) - 1).div_euclid(length) {
            for column in x.div_euclid(length)..=(x + i64::from(side) - 1).div_euclid(length) {
                // What of the tile lies in the window, from the tile's and from the window's corner.
                let overlap = |at: i64, start: i64| {
                    let (low, high) =
                        ((at * length).max(start), ((at + 1) * length).min(start + i64::from(side)));
                    ((low - at * length) as u32, (low - start) as u32, (high - low) as u32)
                };
                let (inside_x, to_x, width) = overlap(column, x);
                let (inside_y, to_y, height) = overlap(row, y);
                let picture = match (0..world).contains(&row) {
                    true => {
                        let tile = Tile::new(self.zoom, column.rem_euclid(world) as u32, row as u32)?;
                        self.tile(tile).map(|picture| picture.crop(inside_x, inside_y, width, height))
                    }
                    false => None,
                };
                match picture {
                    Some(part) => whole
                        .get_or_insert_with(|| Picture::filled(side, side, [0; 3]))
                        .paste(&part, to_x, to_y),
                    None => holes.push((to_x, to_y, width, height)),
                }
            }
        }
        let Some(mut whole) = whole else { return Ok(None) };
        // Where tiles are missing, the mean colour of the others says least.
        let missing: u64 =
            holes.iter().map(|&(_, _, width, height)| u64::from(width) * u64::from(height)).sum();
        let there = u64::from(side) * u64::from(side) - missing;
        let sum =
            |channel| -> u64 { whole.rgb().iter().skip(channel).step_by(3).map(|&v| u64::from(v)).sum() };
        let mean = [0, 1, 2].map(|channel| (sum(channel) / there) as u8);
        for (x, y, width, height) in holes {
            whole.paste(&Picture::filled(width, height, mean), x, y);
        }
        Ok(Some(whole))
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
