//! The squares that pairs are cut from.

use super::error::DatasetError;
use crate::datum::Datum;
use crate::lonlat::{LonLat, Place};
use crate::raster::{CrsError, Locator, RasterError, RasterReader};
use crate::tile::{BoundingBox, MAX_ZOOM, Tile, metres_per_pixel};

/// One square of ground.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Cell {
    /// A tile in the datum of the imagery.
    Tile(Tile),
    /// The square of a raster whose top left corner is at a pixel position.
    Window { x: f64, y: f64 },
}

/// How all squares of a source lie.
pub(super) struct Frame {
    /// Pixels a side.
    pub side: u32,
    /// What the tiles, or the places of the raster, are in.
    pub datum: Datum,
    pub raster: Option<RasterFrame>,
}

/// A raster along whose rows and columns squares are cut.
pub(super) struct RasterFrame {
    pub locator: Locator,
    /// Pixels of the raster per pixel of a pair.
    pub step: f64,
    pub reader: RasterReader,
}

impl Frame {
    /// The point at a pixel position of a square, in the frame's datum.
    pub fn lonlat(&self, cell: Cell, x: f64, y: f64) -> Result<LonLat, DatasetError> {
        match (cell, &self.raster) {
            (Cell::Tile(tile), _) => Ok(tile.point_at(x, y, self.side)),
            (Cell::Window { x: left, y: top }, Some(raster)) => {
                let point = raster.locator.lonlat(left + x * raster.step, top + y * raster.step);
                Ok(point.map_err(|cause| crs_error(&raster.reader, cause))?)
            }
            (Cell::Window { .. }, None) => unreachable!("windows are of a raster"),
        }
    }

    /// The point in the middle of a square, WGS 84, and the metres of ground per pixel.
    pub fn place(&self, cell: Cell) -> Result<Place, DatasetError> {
        let half = f64::from(self.side) / 2.0;
        let middle = self.datum.convert(self.lonlat(cell, half, half)?, Datum::Wgs84);
        let metres = match (cell, &self.raster) {
            (Cell::Window { x, y }, Some(raster)) => {
                let place = raster.reader.place(x + half * raster.step, y + half * raster.step)?;
                place.metres_per_pixel().map(|metres| metres * raster.step)
            }
            (Cell::Tile(tile), _) => Some(tile.metres_per_pixel(self.side)),
            (Cell::Window { .. }, None) => unreachable!("windows are of a raster"),
        };
        Ok(Place::new(middle, metres).expect("sizes on the ground are above 0"))
    }

    /// The ground of a square, WGS 84.
    pub fn bounds(&self, cell: Cell) -> Result<BoundingBox, DatasetError> {
        match cell {
            Cell::Tile(tile) if self.datum == Datum::Wgs84 => Ok(tile.bounds()),
            _ => around(f64::from(self.side), f64::from(self.side), |x, y| {
                Ok(self.datum.convert(self.lonlat(cell, x, y)?, Datum::Wgs84))
            }),
        }
    }

    /// What the square is called among those of its source.
    pub fn name(&self, cell: Cell) -> String {
        match cell {
            Cell::Tile(tile) => format!("{}-{}-{}", tile.z(), tile.x(), tile.y()),
            Cell::Window { x, y } => format!("{}-{}", x.round(), y.round()),
        }
    }
}

pub(super) fn crs_error(reader: &RasterReader, cause: CrsError) -> RasterError {
    RasterError::Crs { path: reader.path().to_owned(), cause }
}

/// The box around a square or raster, from points along its border.
pub(super) fn around(
    width: f64,
    height: f64,
    lonlat: impl Fn(f64, f64) -> Result<LonLat, DatasetError>,
) -> Result<BoundingBox, DatasetError> {
    const STEPS: u32 = 16;
    let middle = lonlat(width / 2.0, height / 2.0)?;
    let (mut west, mut south, mut east, mut north) = (0.0_f64, middle.latitude(), 0.0_f64, middle.latitude());
    for step in 0..=STEPS {
        let share = f64::from(step) / f64::from(STEPS);
        for (x, y) in [(share, 0.0), (share, 1.0), (0.0, share), (1.0, share)] {
            let point = lonlat(x * width, y * height)?;
            // Degrees from the middle, so that the antimeridian is no border.
            let beside = (point.longitude() - middle.longitude() + 540.0).rem_euclid(360.0) - 180.0;
            (west, east) = (west.min(beside), east.max(beside));
            (south, north) = (south.min(point.latitude()), north.max(point.latitude()));
        }
    }
    let longitude = middle.longitude();
    Ok(BoundingBox::new(longitude + west, south, longitude + east, north).expect("points lie on Earth"))
}

/// The zoom at which a pixel of tiles of `side` pixels is nearest to so many metres.
pub(super) fn nearest_zoom(metres: f64, latitude: f64, side: u32) -> u8 {
    let zoom = (metres_per_pixel(latitude, 0, side) / metres).log2().round();
    // `as` saturates.
    (zoom as u8).min(MAX_ZOOM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn squares_lie_where_they_should() {
        let tile: Tile = "19/319293/270961".parse().unwrap();
        let frame = Frame { side: 512, datum: Datum::Wgs84, raster: None };
        let place = frame.place(Cell::Tile(tile)).unwrap();
        assert_eq!(place.position(), tile.centre());
        assert_eq!(place.metres_per_pixel(), Some(tile.metres_per_pixel(512)));
        assert_eq!(frame.bounds(Cell::Tile(tile)).unwrap(), tile.bounds());
        assert_eq!(frame.name(Cell::Tile(tile)), "19-319293-270961");

        let beijing = Tile::at(LonLat::new(116.404, 39.915).unwrap(), 17).unwrap();
        let shifted = Frame { datum: Datum::Gcj02, ..frame };
        let place = shifted.place(Cell::Tile(beijing)).unwrap().position();
        assert!((beijing.centre().longitude() - place.longitude() - 0.0062).abs() < 2e-4, "{place:?}");
        assert!(shifted.bounds(Cell::Tile(beijing)).unwrap().contains(place));
        assert!(!beijing.bounds().contains(place));
    }

    #[test]
    fn boxes_go_over_the_antimeridian() {
        let point = |x: f64, y: f64| Ok(LonLat::new(179.0 + x, y).unwrap());
        let bounds = around(2.0, 1.0, point).unwrap();
        assert_eq!((bounds.west(), bounds.east()), (179.0, -179.0));
    }

    #[test]
    fn zooms_are_near() {
        assert_eq!(nearest_zoom(0.5972, 0.0, 256), 18);
        assert_eq!(nearest_zoom(0.5972, 0.0, 512), 17);
        assert_eq!(nearest_zoom(5.0, 46.0, 256), 14);
        assert_eq!((nearest_zoom(1e9, 0.0, 256), nearest_zoom(1e-9, 0.0, 256)), (0, 30));
    }
}
