//! Where the pixels of a raster lie.

use super::crs::{CrsError, Epsg, Projection, in_space};
use super::geokeys::{GeoKeys, PixelIs};
use crate::lonlat::{LonLat, Place};

/// From pixels to the coordinates of a CRS: shift, scale (of either sign), rotation and shear.
///
/// Pixel positions are counted in pixels from the top left corner of the raster to the right and down, so that
/// (0.5, 0.5) is the centre of the first pixel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AffineTransform {
    /// Coordinates of the raster's top left corner.
    pub origin: (f64, f64),
    /// What one pixel to the right adds to the coordinates.
    pub right: (f64, f64),
    /// What one pixel down adds to the coordinates.
    pub down: (f64, f64),
}

impl AffineTransform {
    /// The usual map, north up: `pixel` is width and height of a pixel, both above 0 in the CRS's unit.
    pub fn north_up(origin: (f64, f64), pixel: (f64, f64)) -> Self {
        Self { origin, right: (pixel.0, 0.0), down: (0.0, -pixel.1) }
    }

    /// The coordinates of a pixel position.
    pub fn apply(&self, x: f64, y: f64) -> (f64, f64) {
        (
            self.origin.0 + x * self.right.0 + y * self.down.0,
            self.origin.1 + x * self.right.1 + y * self.down.1,
        )
    }

    /// The pixel position of coordinates; the inverse of [`AffineTransform::apply`].
    ///
    /// Without meaning unless [`AffineTransform::is_invertible`].
    pub fn invert(&self, x: f64, y: f64) -> (f64, f64) {
        let determinant = self.right.0 * self.down.1 - self.right.1 * self.down.0;
        let (x, y) = (x - self.origin.0, y - self.origin.1);
        (
            (x * self.down.1 - y * self.down.0) / determinant,
            (y * self.right.0 - x * self.right.1) / determinant,
        )
    }

    /// Whether every pixel has an area: no number is infinite and the two steps are not parallel.
    pub fn is_invertible(&self) -> bool {
        let determinant = self.right.0 * self.down.1 - self.right.1 * self.down.0;
        self.origin.0.is_finite() && self.origin.1.is_finite() && determinant.is_normal()
    }

    /// Whether rows run east and columns run south, as pixel scale and tie point can say.
    pub(super) fn is_north_up(&self) -> bool {
        self.right.1 == 0.0 && self.down.0 == 0.0 && self.right.0 > 0.0 && self.down.1 < 0.0
    }

    /// The same transform with another pixel position as its origin.
    pub(super) fn moved(&self, x: f64, y: f64) -> Self {
        Self { origin: self.apply(x, y), ..*self }
    }
}

/// Where a raster lies: its transform, and the CRS of its coordinates exactly as the file says it.
#[derive(Clone, Debug, PartialEq)]
pub struct GeoReference {
    transform: AffineTransform,
    pixel_is: PixelIs,
    keys: Option<GeoKeys>,
}

impl GeoReference {
    /// A reference from its parts; `keys` is `None` when the CRS is not known.
    ///
    /// The transform counts from corners of pixels, whatever the keys say of pixels as points.
    pub fn new(transform: AffineTransform, keys: Option<GeoKeys>) -> Self {
        let pixel_is = keys.as_ref().map_or(PixelIs::Area, GeoKeys::pixel_is);
        Self { transform, pixel_is, keys }
    }

    /// A reference in a CRS known by its number, pixels as areas.
    ///
    /// # Errors
    ///
    /// [`CrsError::Unknown`] and [`CrsError::Unsupported`].
    pub fn from_epsg(transform: AffineTransform, epsg: Epsg) -> Result<Self, CrsError> {
        Self::new(transform, None).with_crs(epsg)
    }

    /// The same pixels with coordinates in another CRS: replaces what the file says, it does not reproject.
    ///
    /// # Errors
    ///
    /// [`CrsError::Unknown`] and [`CrsError::Unsupported`].
    pub fn with_crs(self, epsg: Epsg) -> Result<Self, CrsError> {
        let kind = Projection::new(epsg)?.kind();
        let keys = Some(GeoKeys::from_epsg(epsg, kind, self.pixel_is));
        Ok(Self { keys, ..self })
    }

    /// From pixel positions to coordinates.
    pub fn transform(&self) -> &AffineTransform {
        &self.transform
    }

    /// Whether the file's coordinates name corners or centres of pixels.
    pub fn pixel_is(&self) -> PixelIs {
        self.pixel_is
    }

    /// The keys of the CRS, verbatim.
    pub fn keys(&self) -> Option<&GeoKeys> {
        self.keys.as_ref()
    }

    /// The number of the CRS.
    ///
    /// # Errors
    ///
    /// [`CrsError::Missing`] and [`CrsError::UserDefined`].
    pub fn epsg(&self) -> Result<Epsg, CrsError> {
        let keys = self.keys.as_ref().ok_or(CrsError::Missing)?;
        keys.epsg().ok_or_else(|| CrsError::UserDefined { name: keys.name().to_owned() })
    }

    /// The reference of a part of the raster whose top left corner is the pixel position (`x`, `y`).
    pub fn cropped(&self, x: f64, y: f64) -> Self {
        Self { transform: self.transform.moved(x, y), ..self.clone() }
    }

    /// The reference of the raster resampled: a new pixel is `horizontal × vertical` old ones.
    pub fn scaled(&self, horizontal: f64, vertical: f64) -> Self {
        let AffineTransform { origin, right, down } = self.transform;
        let right = (right.0 * horizontal, right.1 * horizontal);
        let down = (down.0 * vertical, down.1 * vertical);
        Self { transform: AffineTransform { origin, right, down }, ..self.clone() }
    }

    /// The place of a pixel position: longitude and latitude on WGS 84, and the metres of ground that a pixel covers
    /// there.
    ///
    /// The centre of pixel (column, row) is (column + 0.5, row + 0.5). Metres are measured on the ellipsoid, so they are
    /// right in degrees and in Mercator too; of an oblong pixel, they are the side of a square of the same area.
    ///
    /// # Errors
    ///
    /// Every [`CrsError`].
    pub fn place(&self, x: f64, y: f64) -> Result<Place, CrsError> {
        let epsg = self.epsg()?;
        let projection = Projection::new(epsg)?;
        let lonlat = |x: f64, y: f64| {
            let (x, y) = self.transform.apply(x, y);
            projection.lonlat(x, y)
        };
        let position = lonlat(x, y)?;
        let right = step(&lonlat, position, (x, y), (0.5, 0.0))?;
        let down = step(&lonlat, position, (x, y), (0.0, 0.5))?;
        Place::new(position, Some(area(right, down).sqrt())).map_err(|error| {
            let (x, y) = self.transform.apply(x, y);
            CrsError::Outside { epsg, x, y, detail: error.to_string() }
        })
    }
}

/// A reference ready to compute many positions: the projection is looked up once.
pub(crate) struct Locator {
    transform: AffineTransform,
    projection: Projection,
}

impl Locator {
    /// # Errors
    ///
    /// Every [`CrsError`] but [`CrsError::Outside`].
    pub(crate) fn new(reference: &GeoReference) -> Result<Self, CrsError> {
        Ok(Self { transform: reference.transform, projection: Projection::new(reference.epsg()?)? })
    }

    /// The point under a pixel position.
    pub(crate) fn lonlat(&self, x: f64, y: f64) -> Result<LonLat, CrsError> {
        let (x, y) = self.transform.apply(x, y);
        self.projection.lonlat(x, y)
    }

    /// The pixel position of a point, which may lie outside the raster.
    pub(crate) fn pixel(&self, point: LonLat) -> Result<(f64, f64), CrsError> {
        let (x, y) = self.projection.coordinates(point)?;
        Ok(self.transform.invert(x, y))
    }
}

/// One pixel's width or height as a vector in space, in metres. Where the world ends within the pixel, twice the half
/// that is on it.
fn step(
    lonlat: &impl Fn(f64, f64) -> Result<LonLat, CrsError>,
    position: LonLat,
    (x, y): (f64, f64),
    (half_x, half_y): (f64, f64),
) -> Result<[f64; 3], CrsError> {
    let before = lonlat(x - half_x, y - half_y);
    let after = lonlat(x + half_x, y + half_y);
    let (before, after, factor) = match (before, after) {
        (Ok(before), Ok(after)) => (before, after, 1.0),
        (Ok(before), Err(_)) => (before, position, 2.0),
        (Err(_), Ok(after)) => (position, after, 2.0),
        (Err(error), Err(_)) => return Err(error),
    };
    let (before, after) = (in_space(before), in_space(after));
    Ok([0, 1, 2].map(|axis| factor * (after[axis] - before[axis])))
}

/// The area of the parallelogram between two vectors.
fn area(first: [f64; 3], second: [f64; 3]) -> f64 {
    let normal = [(1, 2), (2, 0), (0, 1)].map(|(a, b)| first[a] * second[b] - first[b] * second[a]);
    normal.iter().map(|part| part * part).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(transform: AffineTransform, epsg: u16) -> GeoReference {
        GeoReference::from_epsg(transform, Epsg(epsg)).unwrap()
    }

    fn metres(reference: &GeoReference, x: f64, y: f64) -> f64 {
        reference.place(x, y).unwrap().metres_per_pixel().unwrap()
    }

    #[test]
    fn metres_are_of_the_ground() {
        // UTM: true up to its scale factor of 0.9996 on the central meridian.
        let utm = reference(AffineTransform::north_up((500_000.0, 5_000_000.0), (5.0, 5.0)), 32614);
        assert!((metres(&utm, 0.0, 0.0) - 5.0 / 0.9996).abs() < 1e-4);
        // Web mercator at 60° is stretched to double (a little less north to south on the ellipsoid).
        let mercator = reference(AffineTransform::north_up((0.0, 8_399_737.889_8), (10.0, 10.0)), 3857);
        assert!((metres(&mercator, 0.0, 0.0) - 5.0).abs() < 0.01, "{}", metres(&mercator, 0.0, 0.0));
        // Degrees at 60°: 1″ is 30.9 m north and 15.5 m east.
        let second = 1.0 / 3600.0;
        let degrees = reference(AffineTransform::north_up((20.0, 60.0), (second, second)), 4326);
        let expected = (30.948_f64 * 15.500).sqrt();
        assert!((metres(&degrees, 0.5, 0.5) - expected).abs() < 0.01, "{}", metres(&degrees, 0.5, 0.5));
    }

    #[test]
    fn rotation_and_sign_change_no_size() {
        let (sin, cos) = 30_f64.to_radians().sin_cos();
        let straight = AffineTransform::north_up((500_000.0, 4_000_000.0), (2.0, 2.0));
        let rotated =
            AffineTransform { right: (2.0 * cos, 2.0 * sin), down: (2.0 * sin, -2.0 * cos), ..straight };
        let south_up = AffineTransform { down: (0.0, 2.0), ..straight };
        let expected = metres(&reference(straight, 32614), 0.0, 0.0);
        for transform in [rotated, south_up] {
            assert!(transform.is_invertible() && !transform.is_north_up());
            let (x, y) = transform.apply(12.5, 70.25);
            let (column, row) = transform.invert(x, y);
            assert!((column - 12.5).abs() < 1e-6 && (row - 70.25).abs() < 1e-6, "{column}, {row}");
            assert!((metres(&reference(transform, 32614), 0.0, 0.0) - expected).abs() < 1e-6);
        }
        let north = reference(south_up, 32614).place(0.0, 1000.0).unwrap().position().latitude();
        assert!(north > reference(straight, 32614).place(0.0, 1000.0).unwrap().position().latitude());
    }

    #[test]
    fn parts_and_copies_lie_where_the_whole_does() {
        let whole = reference(AffineTransform::north_up((-97.0, 46.0), (0.001, 0.001)), 4326);
        let part = whole.cropped(100.0, 50.0);
        let coarse = whole.scaled(4.0, 2.0);
        let position = |reference: &GeoReference, x, y| {
            let position = reference.place(x, y).unwrap().position();
            ((position.longitude() * 1e9).round(), (position.latitude() * 1e9).round())
        };
        assert_eq!(position(&part, 3.0, 4.0), position(&whole, 103.0, 54.0));
        assert_eq!(position(&coarse, 3.0, 4.0), position(&whole, 12.0, 8.0));
    }

    #[test]
    fn the_edge_of_the_world_has_a_size() {
        let world = reference(AffineTransform::north_up((-180.0, 90.0), (1.0, 1.0)), 4326);
        assert!((metres(&world, 0.0, 90.0) - 110_900.0).abs() < 300.0, "{}", metres(&world, 0.0, 90.0));
        assert!(matches!(world.place(0.0, 181.0), Err(CrsError::Outside { .. })));
    }

    #[test]
    fn what_is_not_known_is_said() {
        let transform = AffineTransform::north_up((0.0, 0.0), (1.0, 1.0));
        let nameless = GeoReference::new(transform, None);
        assert_eq!(nameless.place(0.0, 0.0), Err(CrsError::Missing));
        assert_eq!(nameless.clone().with_crs(Epsg(4)).unwrap_err(), CrsError::Unknown(Epsg(4)));
        assert!(nameless.with_crs(Epsg(4326)).unwrap().place(0.0, 0.0).is_ok());
        let flat = AffineTransform { down: (2.0, 0.0), ..transform };
        assert!(!flat.is_invertible());
    }
}
