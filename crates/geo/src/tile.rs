//! The squares of a web map: [`Tile`], [`BoundingBox`], and the tiles of a box ([`TileCover`]).
//!
//! Tiles are those of XYZ web maps (EPSG:3857, "web Mercator"): at zoom z the world is a square of 2^z × 2^z tiles,
//! columns counted from 180° west, rows from the north. The square ends at ±85.0511°; what lies beyond, up to the
//! poles, belongs to the first or last row.

use std::f64::consts::PI;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::lonlat::{LonLat, PlaceError};

/// The deepest zoom: a pixel of a 256-pixel tile is then a seventh of a millimetre at the equator.
pub const MAX_ZOOM: u8 = 30;

/// The latitude in degrees at which the square of web Mercator ends, north and south.
pub const MAX_LATITUDE: f64 = 85.051_128_779_806_59;

/// Length of the equator in metres, as web Mercator takes it: WGS 84's larger radius.
pub(crate) const EQUATOR_METRES: f64 = 2.0 * PI * 6_378_137.0;

/// How far, in widths of the world, an edge of a box may reach over an edge of a tile without meaning the next tile.
///
/// Degrees are rounded: the box of a tile reaches this far over its neighbours. It is less than a micrometre.
const ROUNDING: f64 = 4e-15;

/// Numbers or text that are no tile or no box. Each message ends with what would be allowed.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum TileError {
    /// There are no tiles at such a zoom.
    #[error("zoom {0} is too deep; use 0 … {MAX_ZOOM}")]
    Zoom(u8),
    /// The tile lies outside the world.
    #[error("there is no tile {z}/{x}/{y}: columns and rows of zoom {z} are 0 … {}", last(*z))]
    Outside {
        /// The zoom.
        z: u8,
        /// The column.
        x: u32,
        /// The row.
        y: u32,
    },
    /// The text is not three whole numbers.
    #[error("{text:?} is no tile; write zoom/column/row, such as 3/4/2")]
    Unclear {
        /// The text.
        text: String,
    },
    /// The south of a box is north of its north.
    #[error("south {south} is north of north {north}; write west,south,east,north in degrees")]
    UpsideDown {
        /// Degrees north of the lower edge.
        south: f64,
        /// Degrees north of the upper edge.
        north: f64,
    },
    /// The text is not four numbers.
    #[error("{text:?} is no box; write west,south,east,north in degrees, such as 11.1,43.7,11.4,43.9")]
    UnclearBox {
        /// The text.
        text: String,
    },
    /// A corner of a box is no place.
    #[error(transparent)]
    Place(#[from] PlaceError),
}

fn last(z: u8) -> u64 {
    (1_u64 << z.min(MAX_ZOOM)) - 1
}

/// One square of a web map: zoom, column from 180° west, row from the north.
///
/// The order is that of zoom, then column, then row. As text and in files a tile is `z/x/y`.
///
/// ```
/// use earthmapper_geo::{LonLat, Tile};
///
/// let florence = Tile::at(LonLat::new(11.25, 43.77)?, 10)?;
/// assert_eq!(florence.to_string(), "10/544/373");
/// assert_eq!(florence.parent(), Some("9/272/186".parse()?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Tile {
    z: u8,
    x: u32,
    y: u32,
}

impl Tile {
    /// A tile by its numbers.
    ///
    /// # Errors
    ///
    /// [`TileError::Zoom`] above [`MAX_ZOOM`]; [`TileError::Outside`] when column or row are 2^z or more.
    pub fn new(z: u8, x: u32, y: u32) -> Result<Self, TileError> {
        if z > MAX_ZOOM {
            return Err(TileError::Zoom(z));
        }
        let side = 1_u32 << z;
        if x >= side || y >= side { Err(TileError::Outside { z, x, y }) } else { Ok(Self { z, x, y }) }
    }

    /// A tile whose row is counted from the south, as TMS and MBTiles do.
    ///
    /// # Errors
    ///
    /// As [`Tile::new`].
    pub fn from_tms(z: u8, x: u32, row: u32) -> Result<Self, TileError> {
        let mut tile = Self::new(z, x, row)?;
        tile.y = tile.tms_row();
        Ok(tile)
    }

    /// The tile that holds a point. Its west and north edges belong to a tile, the other two to its neighbours; what
    /// is beyond ±[`MAX_LATITUDE`] belongs to the first or last row.
    ///
    /// # Errors
    ///
    /// [`TileError::Zoom`] above [`MAX_ZOOM`].
    pub fn at(point: LonLat, zoom: u8) -> Result<Self, TileError> {
        let (x, y) = in_world(point);
        Self::new(zoom, 0, 0)?;
        let side = f64::from(1_u32 << zoom);
        let index = |fraction: f64| (fraction * side).floor().clamp(0.0, side - 1.0) as u32;
        Ok(Self { z: zoom, x: index(x), y: index(y) })
    }

    /// The tile that holds a point, and where in it: pixels from its left and from its top, each in
    /// `[0, tile_size]`, where whole numbers are the corners of pixels.
    ///
    /// # Errors
    ///
    /// [`TileError::Zoom`] above [`MAX_ZOOM`].
    pub fn pixel_at(point: LonLat, zoom: u8, tile_size: u32) -> Result<(Self, f64, f64), TileError> {
        let tile = Self::at(point, zoom)?;
        let (x, y) = in_world(point);
        let pixel = |fraction: f64, index: u32| {
            let inside = fraction * f64::from(1_u32 << zoom) - f64::from(index);
            inside.clamp(0.0, 1.0) * f64::from(tile_size)
        };
        Ok((tile, pixel(x, tile.x), pixel(y, tile.y)))
    }

    /// The zoom, 0 … [`MAX_ZOOM`].
    pub fn z(self) -> u8 {
        self.z
    }

    /// The column, counted from 180° west.
    pub fn x(self) -> u32 {
        self.x
    }

    /// The row, counted from the north.
    pub fn y(self) -> u32 {
        self.y
    }

    /// The row, counted from the south, as TMS and MBTiles do.
    pub fn tms_row(self) -> u32 {
        (1_u32 << self.z) - 1 - self.y
    }

    /// The point `right` pixels from the tile's left edge and `down` from its top. Positions outside the tile are
    /// allowed: longitudes wrap around, latitudes approach the poles.
    ///
    /// # Panics
    ///
    /// When a number is not finite or the tile has no pixels.
    pub fn point_at(self, right: f64, down: f64, tile_size: u32) -> LonLat {
        assert!(right.is_finite() && down.is_finite() && tile_size > 0, "({right}, {down}) of {tile_size}");
        let side = f64::from(1_u32 << self.z);
        let fraction = |index: u32, pixels: f64| (f64::from(index) + pixels / f64::from(tile_size)) / side;
        let (longitude, latitude) = (longitude(fraction(self.x, right)), latitude(fraction(self.y, down)));
        LonLat::new(longitude, latitude).expect("inverse Mercator gives places")
    }

    /// The point in the middle of the tile's picture. That is a little nearer to the pole than the mean of its
    /// latitudes.
    pub fn centre(self) -> LonLat {
        self.point_at(0.5, 0.5, 1)
    }

    /// The edges in degrees.
    pub fn bounds(self) -> BoundingBox {
        let side = f64::from(1_u32 << self.z);
        let (x, y) = (f64::from(self.x), f64::from(self.y));
        BoundingBox {
            west: longitude(x / side),
            south: latitude((y + 1.0) / side),
            east: longitude((x + 1.0) / side),
            north: latitude(y / side),
        }
    }

    /// Metres of ground under one pixel in the middle of the tile.
    pub fn metres_per_pixel(self, tile_size: u32) -> f64 {
        metres_per_pixel(self.centre().latitude(), self.z, tile_size)
    }

    /// The tile of the zoom above that holds this one; none for the whole world.
    pub fn parent(self) -> Option<Self> {
        let z = self.z.checked_sub(1)?;
        Some(Self { z, x: self.x / 2, y: self.y / 2 })
    }

    /// The tile of a lower (or the same) zoom that holds this one; none when `zoom` is deeper.
    pub fn ancestor(self, zoom: u8) -> Option<Self> {
        let steps = self.z.checked_sub(zoom)?;
        Some(Self { z: zoom, x: self.x >> steps, y: self.y >> steps })
    }

    /// The four tiles of the next zoom inside this one: top left, top right, bottom left, bottom right. None at
    /// [`MAX_ZOOM`].
    pub fn children(self) -> Option<[Self; 4]> {
        if self.z == MAX_ZOOM {
            return None;
        }
        let child =
            |right: u32, down: u32| Self { z: self.z + 1, x: self.x * 2 + right, y: self.y * 2 + down };
        Some([child(0, 0), child(1, 0), child(0, 1), child(1, 1)])
    }
}

impl fmt::Display for Tile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}/{}", self.z, self.x, self.y)
    }
}

impl FromStr for Tile {
    type Err = TileError;

    fn from_str(text: &str) -> Result<Self, TileError> {
        let unclear = || TileError::Unclear { text: text.to_owned() };
        let mut numbers = text.split('/').map(|part| part.trim().parse::<u32>().map_err(|_| unclear()));
        let mut next = || numbers.next().unwrap_or_else(|| Err(unclear()));
        let (z, x, y) = (next()?, next()?, next()?);
        if text.split('/').count() != 3 {
            return Err(unclear());
        }
        Self::new(u8::try_from(z).unwrap_or(u8::MAX), x, y)
    }
}

impl TryFrom<String> for Tile {
    type Error = TileError;

    fn try_from(text: String) -> Result<Self, TileError> {
        text.parse()
    }
}

impl From<Tile> for String {
    fn from(tile: Tile) -> Self {
        tile.to_string()
    }
}

/// Metres of ground under one pixel at a latitude in degrees.
///
/// ```
/// # use earthmapper_geo::tile::metres_per_pixel;
/// assert!((metres_per_pixel(0.0, 0, 256) - 156_543.034).abs() < 0.001);
/// ```
pub fn metres_per_pixel(latitude: f64, zoom: u8, tile_size: u32) -> f64 {
    EQUATOR_METRES * latitude.to_radians().cos() / (f64::from(tile_size) * 2_f64.powi(i32::from(zoom)))
}

/// A point in web Mercator: fractions of the world from the west and from the north, the latter outside 0 … 1 near the
/// poles.
pub(crate) fn in_world(point: LonLat) -> (f64, f64) {
    let x = (point.longitude() + 180.0) / 360.0;
    (x, row_fraction(point.latitude()))
}

pub(crate) fn row_fraction(latitude: f64) -> f64 {
    (1.0 - latitude.to_radians().tan().asinh() / PI) / 2.0
}

fn longitude(fraction: f64) -> f64 {
    fraction * 360.0 - 180.0
}

fn latitude(fraction: f64) -> f64 {
    (PI * (1.0 - 2.0 * fraction)).sinh().atan().to_degrees()
}

/// A box in degrees, WGS 84. It may cross the antimeridian: `west` is then greater than `east`.
///
/// `west` lies in `[-180, 180)`, `east` in `[-180, 180]`; the whole way round is −180 … 180. A box may have no width
/// or height. As text it is `west,south,east,north`; in files it is a list of these four numbers.
///
/// ```
/// use earthmapper_geo::BoundingBox;
///
/// let fiji: BoundingBox = "177,-19,181,-16".parse()?;
/// assert_eq!((fiji.west(), fiji.east()), (177.0, -179.0));
/// assert!(fiji.crosses_antimeridian());
/// assert_eq!(fiji.tiles(8)?.len(), 12);
/// # Ok::<(), earthmapper_geo::TileError>(())
/// ```
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(try_from = "[f64; 4]", into = "[f64; 4]")]
pub struct BoundingBox {
    west: f64,
    south: f64,
    east: f64,
    north: f64,
}

impl BoundingBox {
    /// The whole globe, poles included.
    pub const WORLD: Self = Self { west: -180.0, south: -90.0, east: 180.0, north: 90.0 };

    /// A box from its edges in degrees. Longitudes wrap around: 170 … 190 is 170 … −170. When `east` is 360 degrees or
    /// more beyond `west`, the box goes the whole way round.
    ///
    /// # Errors
    ///
    /// [`TileError::Place`] for a latitude beyond a pole or a number that is not finite; [`TileError::UpsideDown`].
    pub fn new(west: f64, south: f64, east: f64, north: f64) -> Result<Self, TileError> {
        let (lower_left, upper_right) = (LonLat::new(west, south)?, LonLat::new(east, north)?);
        if south > north {
            return Err(TileError::UpsideDown { south, north });
        }
        if east - west >= 360.0 {
            return Ok(Self { west: -180.0, south, east: 180.0, north });
        }
        let (west, mut east) = (lower_left.longitude(), upper_right.longitude());
        // The antimeridian as an eastern edge is 180, unless the box is nothing but that line.
        if east == -180.0 && west != -180.0 {
            east = 180.0;
        }
        Ok(Self { west, south, east, north })
    }

    /// The smallest box that holds two tiles, the second neither above nor left of the first.
    pub(crate) fn of_tiles(first: Tile, last: Tile) -> Self {
        let (upper_left, lower_right) = (first.bounds(), last.bounds());
        Self {
            west: upper_left.west,
            south: lower_right.south,
            east: lower_right.east,
            north: upper_left.north,
        }
    }

    /// Degrees east of the left edge, in `[-180, 180)`.
    pub fn west(self) -> f64 {
        self.west
    }

    /// Degrees north of the lower edge, in `[-90, 90]`.
    pub fn south(self) -> f64 {
        self.south
    }

    /// Degrees east of the right edge, in `[-180, 180]`; less than `west` when the box crosses the antimeridian.
    pub fn east(self) -> f64 {
        self.east
    }

    /// Degrees north of the upper edge, in `[-90, 90]`.
    pub fn north(self) -> f64 {
        self.north
    }

    /// Whether the box reaches over 180° east.
    pub fn crosses_antimeridian(self) -> bool {
        self.west > self.east
    }

    /// Degrees from the left edge to the right, in `[0, 360]`.
    pub fn width(self) -> f64 {
        self.east - self.west + if self.crosses_antimeridian() { 360.0 } else { 0.0 }
    }

    /// The point midway between the edges, in degrees.
    pub fn centre(self) -> LonLat {
        let (longitude, latitude) = (self.west + self.width() / 2.0, (self.south + self.north) / 2.0);
        LonLat::new(longitude, latitude).expect("between two places is a place")
    }

    /// Whether a point lies in the box, its edges included.
    pub fn contains(self, point: LonLat) -> bool {
        self.spans(point.longitude()) && (self.south..=self.north).contains(&point.latitude())
    }

    /// Whether the whole of another box lies in this one, common edges included.
    pub fn holds(self, other: Self) -> bool {
        let ends = self.spans(other.west) && self.spans(other.east) && other.width() <= self.width();
        ends && self.south <= other.south && other.north <= self.north
    }

    /// Whether another box has a point in common with this one, be it on an edge.
    pub fn touches(self, other: Self) -> bool {
        let beside = self.spans(other.west) || other.spans(self.west);
        beside && self.south <= other.north && other.south <= self.north
    }

    /// Whether a longitude lies between the left and the right edge, or on one.
    fn spans(self, longitude: f64) -> bool {
        if self.crosses_antimeridian() {
            longitude >= self.west || longitude <= self.east
        } else {
            // A point on the antimeridian is written −180 and may lie on an eastern edge of 180.
            (self.west..=self.east).contains(&longitude) || (longitude == -180.0 && self.east == 180.0)
        }
    }

    /// The tiles of a zoom that the box touches with more than an edge; at least one.
    ///
    /// # Errors
    ///
    /// [`TileError::Zoom`] above [`MAX_ZOOM`].
    pub fn tiles(self, zoom: u8) -> Result<TileCover, TileError> {
        Tile::new(zoom, 0, 0)?;
        let side = f64::from(1_u32 << zoom);
        // First and number of the columns or rows between two fractions of the world; the far edge is not part of it.
        let span = |near: f64, far: f64| {
            let first = ((near + ROUNDING) * side).floor();
            let end = ((far - ROUNDING) * side).ceil();
            (first as u64, (end - first).clamp(1.0, side) as u64)
        };
        let west = (self.west + 180.0) / 360.0;
        let (first_column, columns) = span(west, west + self.width() / 360.0);
        let row = |latitude: f64| row_fraction(latitude).clamp(0.0, 1.0);
        let (first_row, rows) = span(row(self.north), row(self.south));
        let side = 1_u64 << zoom;
        let first_row = first_row.min(side - 1);
        Ok(TileCover { zoom, first_column: first_column % side, columns, first_row, rows })
    }
}

impl TryFrom<[f64; 4]> for BoundingBox {
    type Error = TileError;

    fn try_from([west, south, east, north]: [f64; 4]) -> Result<Self, TileError> {
        Self::new(west, south, east, north)
    }
}

impl From<BoundingBox> for [f64; 4] {
    fn from(bounds: BoundingBox) -> Self {
        [bounds.west, bounds.south, bounds.east, bounds.north]
    }
}

impl fmt::Display for BoundingBox {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{},{},{},{}", self.west, self.south, self.east, self.north)
    }
}

impl FromStr for BoundingBox {
    type Err = TileError;

    fn from_str(text: &str) -> Result<Self, TileError> {
        let unclear = || TileError::UnclearBox { text: text.to_owned() };
        let numbers: Result<Vec<f64>, _> = text.split(',').map(|number| number.trim().parse()).collect();
        let edges: [f64; 4] = numbers.map_err(|_| unclear())?.try_into().map_err(|_| unclear())?;
        Self::try_from(edges)
    }
}

/// The tiles of one zoom inside a box, row by row from the north, each row from the west. They are computed, not kept:
/// a cover of 10^18 tiles takes no more memory than one of four.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TileCover {
    zoom: u8,
    first_column: u64,
    columns: u64,
    first_row: u64,
    rows: u64,
}

impl TileCover {
    /// The zoom of all tiles.
    pub fn zoom(&self) -> u8 {
        self.zoom
    }

    /// The number of columns.
    pub fn columns(&self) -> u64 {
        self.columns
    }

    /// The number of rows.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The number of tiles.
    #[expect(clippy::len_without_is_empty, reason = "a cover holds at least one tile")]
    pub fn len(&self) -> u64 {
        self.columns * self.rows
    }

    /// The tile at a position, counted from 0 in the order of iteration; none from [`TileCover::len`] on.
    pub fn get(&self, index: u64) -> Option<Tile> {
        if index >= self.len() {
            return None;
        }
        let column = (self.first_column + index % self.columns) % (1_u64 << self.zoom);
        let row = self.first_row + index / self.columns;
        Some(Tile { z: self.zoom, x: column as u32, y: row as u32 })
    }

    /// Whether a tile is one of these.
    pub fn contains(&self, tile: Tile) -> bool {
        let side = 1_u64 << self.zoom;
        let column = (u64::from(tile.x) + side).wrapping_sub(self.first_column) % side;
        tile.z == self.zoom
            && column < self.columns
            && u64::from(tile.y).checked_sub(self.first_row).is_some_and(|row| row < self.rows)
    }

    /// All tiles, one after another.
    pub fn iter(&self) -> impl Iterator<Item = Tile> + use<> {
        let cover = *self;
        (0..cover.len()).filter_map(move |index| cover.get(index))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn point(longitude: f64, latitude: f64) -> LonLat {
        LonLat::new(longitude, latitude).unwrap()
    }

    fn tile(text: &str) -> Tile {
        text.parse().unwrap()
    }

    fn degrees(west: f64, south: f64, east: f64, north: f64) -> BoundingBox {
        BoundingBox::new(west, south, east, north).unwrap()
    }

    /// Any tile of any zoom, the borders of the world as likely as its middle.
    fn any_tile() -> impl Strategy<Value = Tile> {
        let index = |z: u8| prop_oneof![Just(0), Just(last(z) as u32), 0..=last(z) as u32];
        (0..=MAX_ZOOM).prop_flat_map(move |z| (Just(z), index(z), index(z))).prop_map(|(z, x, y)| Tile {
            z,
            x,
            y,
        })
    }

    #[test]
    fn known_tiles() {
        for (longitude, latitude, zoom, expected) in [
            (0.0, 0.0, 0, "0/0/0"),
            (0.0, 0.0, 1, "1/1/1"),
            (-0.000_001, 0.000_001, 1, "1/0/0"),
            // A corner that mercantile's documentation gives for 10/486/332, and a hair beside it.
            (-9.140_625 + 1e-9, 53.330_872_983_017_05 - 1e-9, 10, "10/486/332"),
            (-9.140_625 - 1e-9, 53.330_872_983_017_05 + 1e-9, 10, "10/485/331"),
            (-180.0, 85.06, 18, "18/0/0"),
            (180.0, 85.06, 18, "18/0/0"),
            (179.999_999_999_999_97, -85.06, 18, "18/262143/262143"),
            (179.999_999_999_999_97, -90.0, 30, "30/1073741823/1073741823"),
            (12.0, 90.0, 30, "30/572662306/0"),
        ] {
            assert_eq!(Tile::at(point(longitude, latitude), zoom).unwrap(), tile(expected));
        }
    }

    #[test]
    fn edges_of_the_world() {
        let world = tile("0/0/0").bounds();
        assert_eq!((world.west(), world.east()), (-180.0, 180.0));
        assert!((world.north() - MAX_LATITUDE).abs() < 1e-12 && (world.south() + MAX_LATITUDE).abs() < 1e-12);
        assert_eq!(tile("0/0/0").centre(), point(0.0, 0.0));
        assert_eq!(tile("2/3/0").bounds().east(), 180.0);
        let (pole, right, down) = Tile::pixel_at(point(0.0, -90.0), 3, 512).unwrap();
        assert_eq!((pole, right, down), (tile("3/4/7"), 0.0, 512.0));
        assert_eq!(Tile::pixel_at(point(0.0, 90.0), 3, 512).unwrap(), (tile("3/4/0"), 0.0, 0.0));
        // Beyond the right edge of the world comes its left.
        assert_eq!(tile("1/1/0").point_at(256.0 + 64.0, 256.0, 256), point(-135.0, 0.0));
    }

    #[test]
    fn wrong_numbers_are_refused() {
        assert_eq!(Tile::new(31, 0, 0).unwrap_err().to_string(), "zoom 31 is too deep; use 0 … 30");
        assert_eq!(
            Tile::new(2, 4, 0).unwrap_err().to_string(),
            "there is no tile 2/4/0: columns and rows of zoom 2 are 0 … 3"
        );
        assert!(Tile::new(0, 0, 1).is_err() && Tile::new(30, u32::MAX, 0).is_err());
        assert!(Tile::at(point(0.0, 0.0), 31).is_err() && BoundingBox::WORLD.tiles(31).is_err());
        for text in ["", "1/2", "1/2/3/4", "a/b/c", "-1/0/0", "1.0/0/0"] {
            assert!(matches!(text.parse::<Tile>(), Err(TileError::Unclear { .. })), "{text}");
        }
        assert_eq!("300/0/0".parse::<Tile>(), Err(TileError::Zoom(255)));
    }

    #[test]
    fn metres_match_published_values() {
        for (latitude, zoom, expected) in [(0.0, 0, 156_543.033_9), (0.0, 18, 0.597_2), (60.0, 10, 76.437_0)]
        {
            let metres = metres_per_pixel(latitude, zoom, 256);
            assert!((metres / expected - 1.0).abs() < 1e-4, "{metres} is not {expected}");
        }
        assert!((metres_per_pixel(40.0, 17, 512) - metres_per_pixel(40.0, 18, 256)).abs() < 1e-12);
        assert!((tile("1/0/0").metres_per_pixel(256) - metres_per_pixel(66.513_26, 1, 256)).abs() < 0.01);
    }

    #[test]
    fn boxes_wrap_around() {
        let edges = |bounds: BoundingBox| (bounds.west(), bounds.east(), bounds.width());
        assert_eq!(edges(degrees(170.0, 0.0, 190.0, 1.0)), (170.0, -170.0, 20.0));
        assert_eq!(edges(degrees(-190.0, 0.0, -170.0, 1.0)), (170.0, -170.0, 20.0));
        assert_eq!(edges(degrees(170.0, 0.0, 180.0, 1.0)), (170.0, 180.0, 10.0));
        assert_eq!(edges(degrees(170.0, 0.0, -180.0, 1.0)), (170.0, 180.0, 10.0));
        assert_eq!(edges(degrees(180.0, 0.0, -170.0, 1.0)), (-180.0, -170.0, 10.0));
        assert_eq!(edges(degrees(180.0, 0.0, 180.0, 1.0)), (-180.0, -180.0, 0.0));
        assert_eq!(edges(degrees(-180.0, 0.0, 180.0, 1.0)), (-180.0, 180.0, 360.0));
        assert_eq!(edges(degrees(-10.0, 0.0, 360.0, 1.0)), (-180.0, 180.0, 360.0));
        assert_eq!(degrees(170.0, 0.0, -170.0, 2.0).centre(), point(180.0, 1.0));
        assert!(degrees(170.0, 0.0, 180.0, 1.0).contains(point(180.0, 0.5)));
        let crossing = degrees(170.0, 0.0, -170.0, 1.0);
        assert!(crossing.contains(point(-175.0, 0.5)) && crossing.contains(point(180.0, 1.0)));
        assert!(!crossing.contains(point(0.0, 0.5)) && !crossing.contains(point(175.0, 1.5)));
    }

    #[test]
    fn boxes_are_checked_and_read_from_text() {
        let upside_down = BoundingBox::new(0.0, 2.0, 1.0, 1.0).unwrap_err().to_string();
        assert_eq!(upside_down, "south 2 is north of north 1; write west,south,east,north in degrees");
        for edges in [[0.0, -91.0, 1.0, 0.0], [f64::NAN, 0.0, 1.0, 1.0], [0.0, 0.0, f64::INFINITY, 1.0]] {
            assert!(matches!(BoundingBox::try_from(edges), Err(TileError::Place(_))), "{edges:?}");
        }
        for text in ["", "1,2,3", "1,2,3,4,5", "a,b,c,d"] {
            assert!(matches!(text.parse::<BoundingBox>(), Err(TileError::UnclearBox { .. })), "{text}");
        }
        let bounds: BoundingBox = " 177, -19,181,-16.5".parse().unwrap();
        assert_eq!(bounds.to_string(), "177,-19,-179,-16.5");
        let text = serde_json::to_string(&bounds).unwrap();
        assert_eq!(text, "[177.0,-19.0,-179.0,-16.5]");
        assert_eq!(serde_json::from_str::<BoundingBox>(&text).unwrap(), bounds);
        assert!(serde_json::from_str::<BoundingBox>("[0,5,1,4]").is_err());
    }

    #[test]
    fn covers_count_without_listing() {
        assert_eq!(BoundingBox::WORLD.tiles(0).unwrap().len(), 1);
        assert_eq!(BoundingBox::WORLD.tiles(30).unwrap().len(), 1 << 60);
        let crossing = degrees(179.0, -1.0, -179.0, 1.0).tiles(2).unwrap();
        let listed: Vec<_> = crossing.iter().map(|tile| tile.to_string()).collect();
        assert_eq!(listed, ["2/3/1", "2/0/1", "2/3/2", "2/0/2"]);
        // At zoom 0 both halves are the one tile there is.
        assert_eq!(degrees(1.0, -1.0, -1.0, 1.0).tiles(0).unwrap().len(), 1);
        assert_eq!(degrees(1.0, -1.0, 0.5, 1.0).tiles(3).unwrap().columns(), 8);
        // A point is inside one tile; so is a box beyond the last row.
        assert_eq!(degrees(0.0, 0.0, 0.0, 0.0).tiles(5).unwrap().get(0), Some(tile("5/16/16")));
        for (south, north, row) in [(-90.0, -89.0, 31), (89.0, 90.0, 0), (-90.0, -90.0, 31)] {
            let cover = degrees(3.0, south, 4.0, north).tiles(5).unwrap();
            assert_eq!((cover.len(), cover.get(0).unwrap().y()), (1, row), "{south}");
        }
        assert_eq!(degrees(180.0, 0.0, 180.0, 0.0).tiles(5).unwrap().get(0), Some(tile("5/0/16")));
    }

    proptest! {
        #[test]
        fn the_centre_of_a_tile_is_in_it(tile in any_tile()) {
            prop_assert_eq!(Tile::at(tile.centre(), tile.z()).unwrap(), tile);
            prop_assert!(tile.bounds().contains(tile.centre()));
        }

        #[test]
        fn the_box_of_a_tile_holds_that_tile_only(tile in any_tile()) {
            let cover = tile.bounds().tiles(tile.z()).unwrap();
            prop_assert_eq!(cover.iter().take(5).collect::<Vec<_>>(), vec![tile]);
            let again = BoundingBox::try_from(<[f64; 4]>::from(tile.bounds())).unwrap();
            prop_assert_eq!(again, tile.bounds());
        }

        #[test]
        fn rows_flip_and_flip_back(tile in any_tile()) {
            prop_assert_eq!(Tile::from_tms(tile.z(), tile.x(), tile.tms_row()).unwrap(), tile);
            prop_assert_eq!(tile.to_string().parse::<Tile>().unwrap(), tile);
        }

        #[test]
        fn children_have_their_parent(tile in any_tile()) {
            match tile.children() {
                None => prop_assert_eq!(tile.z(), MAX_ZOOM),
                Some(children) => {
                    for child in children {
                        prop_assert_eq!(child.parent(), Some(tile));
                        prop_assert_eq!(child.ancestor(tile.z()), Some(tile));
                    }
                    let cover = tile.bounds().tiles(tile.z() + 1).unwrap();
                    prop_assert_eq!(cover.iter().take(5).collect::<Vec<_>>(), children.to_vec());
                }
            }
            prop_assert_eq!(tile.ancestor(0), Some(Tile { z: 0, x: 0, y: 0 }));
            prop_assert_eq!(tile.ancestor(tile.z() + 1), None);
        }

        #[test]
        fn pixels_and_points_are_inverse(
            longitude in -180.0..180.0_f64, latitude in -85.05..85.05_f64, zoom in 0..=MAX_ZOOM,
        ) {
            let given = point(longitude, latitude);
            let (tile, right, down) = Tile::pixel_at(given, zoom, 256).unwrap();
            prop_assert_eq!(Tile::at(given, zoom).unwrap(), tile);
            let back = tile.point_at(right, down, 256);
            prop_assert!((back.longitude() - longitude).abs() < 1e-12, "{back:?}");
            prop_assert!((back.latitude() - latitude).abs() < 1e-12, "{back:?}");
        }

        #[test]
        fn every_place_is_in_a_tile(longitude in -1e4..1e4_f64, latitude in -90.0..=90.0_f64, zoom in 0..=MAX_ZOOM) {
            let tile = Tile::at(point(longitude, latitude), zoom).unwrap();
            prop_assert!(Tile::new(tile.z(), tile.x(), tile.y()).is_ok());
        }

        #[test]
        fn a_cover_holds_the_tiles_of_its_points(
            west in -180.0..180.0_f64, width in 0.001..360.0_f64, right in 0.0..1.0_f64,
            south in -90.0..89.0_f64, height in 0.001..90.0_f64, up in 0.0..1.0_f64,
            zoom in 0..=24_u8,
        ) {
            let north = (south + height).min(90.0);
            let bounds = degrees(west, south, west + width, north);
            let inside = point(west + right * width, south + up * (north - south));
            prop_assert!(bounds.contains(inside));
            let cover = bounds.tiles(zoom).unwrap();
            prop_assert!(cover.contains(Tile::at(inside, zoom).unwrap()));
        }

        #[test]
        fn covers_list_what_they_count(
            west in -180.0..180.0_f64, width in 0.0..360.0_f64, south in -90.0..90.0_f64, height in 0.0..90.0_f64,
            zoom in 0..=5_u8,
        ) {
            let cover = degrees(west, south, west + width, (south + height).min(90.0)).tiles(zoom).unwrap();
            let listed: std::collections::BTreeSet<_> = cover.iter().collect();
            prop_assert_eq!(listed.len() as u64, cover.len());
            for tile in BoundingBox::WORLD.tiles(zoom).unwrap().iter() {
                prop_assert_eq!(cover.contains(tile), listed.contains(&tile));
            }
        }
    }
}
