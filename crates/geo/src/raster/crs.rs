//! Coordinate reference systems by their EPSG number, and the way from their coordinates to longitude and latitude.

use std::fmt;
use std::str::FromStr;

use proj4rs::Proj;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::lonlat::LonLat;

/// Semi-major axis of the WGS 84 ellipsoid, in metres.
const SEMI_MAJOR: f64 = 6_378_137.0;

/// Squared eccentricity of the WGS 84 ellipsoid.
const ECCENTRICITY_SQUARED: f64 = 0.006_694_379_990_141_317;

/// Why coordinates cannot be turned into longitude and latitude. Each message ends with the cure.
///
/// A coordinate reference system (CRS) says what the coordinates of a raster mean.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum CrsError {
    /// The file does not say what its coordinates mean.
    #[error("has no coordinate reference system; name it with --crs EPSG:…")]
    Missing,
    /// The file describes a CRS of its own, without an EPSG number.
    #[error("has a coordinate reference system without an EPSG number ({name}); name it with --crs EPSG:…")]
    UserDefined {
        /// What the file calls it.
        name: String,
    },
    /// The number is not in the register that this program carries.
    #[error("{0} is not a coordinate reference system that is known here; name another with --crs EPSG:…")]
    Unknown(Epsg),
    /// The CRS is known, but its projection or datum cannot be computed.
    #[error(
        "{epsg} is not supported ({detail}); reproject the raster and name its new one with --crs EPSG:…"
    )]
    Unsupported {
        /// The CRS.
        epsg: Epsg,
        /// What is missing.
        detail: String,
    },
    /// The coordinates mean no point on Earth.
    #[error("{epsg} has no place at ({x}, {y}): {detail}; name the right one with --crs EPSG:…")]
    Outside {
        /// The CRS.
        epsg: Epsg,
        /// First coordinate, eastwards for most systems.
        x: f64,
        /// Second coordinate, northwards for most systems.
        y: f64,
        /// What went wrong.
        detail: String,
    },
}

/// A text that is no EPSG number.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("`{0}` is not an EPSG number; write it as EPSG:32614")]
pub struct NoEpsg(String);

/// The number of a coordinate reference system in the EPSG register, for example EPSG:26914.
///
/// ```
/// use earthmapper_geo::raster::Epsg;
///
/// let utm: Epsg = "EPSG:26914".parse()?;
/// assert_eq!(utm.to_string(), "EPSG:26914");
/// # Ok::<(), earthmapper_geo::raster::NoEpsg>(())
/// ```
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Epsg(pub u16);

impl fmt::Display for Epsg {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "EPSG:{}", self.0)
    }
}

impl FromStr for Epsg {
    type Err = NoEpsg;

    /// Reads `EPSG:26914`, in any case, or the bare number.
    fn from_str(text: &str) -> Result<Self, NoEpsg> {
        let wrong = || NoEpsg(text.to_owned());
        let number = match text.trim().split_once(':') {
            Some((authority, number)) if authority.eq_ignore_ascii_case("epsg") => number,
            Some(_) => return Err(wrong()),
            None => text.trim(),
        };
        match number.parse() {
            Ok(0) | Err(_) => Err(wrong()),
            Ok(number) => Ok(Self(number)),
        }
    }
}

impl TryFrom<String> for Epsg {
    type Error = NoEpsg;

    fn try_from(text: String) -> Result<Self, NoEpsg> {
        text.parse()
    }
}

impl From<Epsg> for String {
    fn from(epsg: Epsg) -> Self {
        epsg.to_string()
    }
}

/// What the two coordinates of a CRS are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CrsKind {
    /// Degrees east and north.
    Geographic,
    /// Lengths on a plane.
    Projected,
}

/// A CRS ready to compute with.
pub(super) struct Projection {
    epsg: Epsg,
    source: Proj,
    wgs84: Proj,
}

impl Projection {
    /// Looks the number up and prepares its formulas.
    pub fn new(epsg: Epsg) -> Result<Self, CrsError> {
        let definition = crs_definitions::from_code(epsg.0).ok_or(CrsError::Unknown(epsg))?;
        let unsupported = |detail: String| CrsError::Unsupported { epsg, detail };
        let source =
            Proj::from_proj_string(definition.proj4).map_err(|error| unsupported(error.to_string()))?;
        if source.is_geocent() {
            return Err(unsupported("its coordinates are geocentric".to_owned()));
        }
        if !source.is_latlong() && !source.has_inverse() {
            return Err(unsupported("its projection has no inverse".to_owned()));
        }
        let wgs84 = Proj::from_proj_string("+proj=longlat +datum=WGS84 +no_defs")
            .expect("the definition of WGS 84 is right");
        Ok(Self { epsg, source, wgs84 })
    }

    /// Degrees or lengths.
    pub fn kind(&self) -> CrsKind {
        if self.source.is_latlong() { CrsKind::Geographic } else { CrsKind::Projected }
    }

    /// The point with these coordinates.
    pub fn lonlat(&self, x: f64, y: f64) -> Result<LonLat, CrsError> {
        let outside = |detail: String| CrsError::Outside { epsg: self.epsg, x, y, detail };
        // The formulas would wrap such a latitude around the pole without a word.
        if self.kind() == CrsKind::Geographic && !(-90.0..=90.0).contains(&y) {
            return Err(outside(format!("latitude {y} is outside -90 … 90")));
        }
        let mut point = match self.kind() {
            CrsKind::Geographic => (x.to_radians(), y.to_radians()),
            CrsKind::Projected => (x, y),
        };
        proj4rs::transform::transform(&self.source, &self.wgs84, &mut point)
            .map_err(|error| outside(error.to_string()))?;
        LonLat::new(point.0.to_degrees(), point.1.to_degrees()).map_err(|error| outside(error.to_string()))
    }
}

impl Projection {
    /// The coordinates of a point; the inverse of [`Projection::lonlat`].
    pub fn coordinates(&self, point: LonLat) -> Result<(f64, f64), CrsError> {
        let (longitude, latitude) = (point.longitude(), point.latitude());
        let mut coordinates = (longitude.to_radians(), latitude.to_radians());
        let outside = |detail: String| CrsError::Outside {
            epsg: self.epsg,
            x: longitude,
            y: latitude,
            detail: format!("degrees cannot be projected ({detail})"),
        };
        proj4rs::transform::transform(&self.wgs84, &self.source, &mut coordinates)
            .map_err(|error| outside(error.to_string()))?;
        let (x, y) = match self.kind() {
            CrsKind::Geographic => (coordinates.0.to_degrees(), coordinates.1.to_degrees()),
            CrsKind::Projected => coordinates,
        };
        if x.is_finite() && y.is_finite() { Ok((x, y)) } else { Err(outside("no number".to_owned())) }
    }
}

/// A point of the WGS 84 ellipsoid in space, in metres from the centre of the Earth.
///
/// Distances are measured between such points: they know no edge of the map at a pole or at 180°.
pub(super) fn in_space(point: LonLat) -> [f64; 3] {
    let (sin_latitude, cos_latitude) = point.latitude().to_radians().sin_cos();
    let (sin_longitude, cos_longitude) = point.longitude().to_radians().sin_cos();
    let radius = SEMI_MAJOR / (1.0 - ECCENTRICITY_SQUARED * sin_latitude.powi(2)).sqrt();
    [
        radius * cos_latitude * cos_longitude,
        radius * cos_latitude * sin_longitude,
        radius * (1.0 - ECCENTRICITY_SQUARED) * sin_latitude,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lonlat(epsg: u16, x: f64, y: f64) -> (f64, f64) {
        let point = Projection::new(Epsg(epsg)).unwrap().lonlat(x, y).unwrap();
        (point.longitude(), point.latitude())
    }

    /// About 0.1 m on the ground.
    fn near(found: (f64, f64), expected: (f64, f64)) {
        assert!(
            (found.0 - expected.0).abs() < 1e-6 && (found.1 - expected.1).abs() < 1e-6,
            "{found:?} is not {expected:?}"
        );
    }

    #[test]
    fn numbers_are_read_and_written() {
        for text in ["EPSG:26914", "epsg:26914", " 26914 "] {
            assert_eq!(text.parse(), Ok(Epsg(26914)), "{text}");
        }
        for text in ["", "EPSG:", "EPSG:0", "EPSG:70000", "ESRI:102100", "utm", "-4326"] {
            let error = text.parse::<Epsg>().unwrap_err();
            assert!(error.to_string().ends_with("write it as EPSG:32614"), "{error}");
        }
    }

    #[test]
    fn coordinates_become_degrees() {
        near(lonlat(4326, -97.5, 46.25), (-97.5, 46.25));
        // The corner of the web mercator square, and half the way to its side.
        near(lonlat(3857, 10_018_754.171_394, 20_037_508.342_789), (90.0, 85.051_128_78));
        // The false origin of a UTM zone is its central meridian on the equator.
        near(lonlat(26914, 500_000.0, 0.0), (-99.0, 0.0));
        near(lonlat(32733, 500_000.0, 10_000_000.0), (15.0, 0.0));
    }

    #[test]
    fn degrees_become_coordinates_again() {
        for (epsg, x, y) in
            [(4326, -97.5, 46.25), (3857, 1_252_344.27, 5_430_000.0), (26914, 612_345.6, 5_223_456.7)]
        {
            let projection = Projection::new(Epsg(epsg)).unwrap();
            let (again_x, again_y) = projection.coordinates(projection.lonlat(x, y).unwrap()).unwrap();
            assert!((again_x - x).abs() < 1e-3 && (again_y - y).abs() < 1e-3, "{epsg}: {again_x}, {again_y}");
        }
    }

    #[test]
    fn what_cannot_be_computed_is_said() {
        let error = |epsg| Projection::new(Epsg(epsg)).err().unwrap();
        assert_eq!(error(9), CrsError::Unknown(Epsg(9)));
        assert!(matches!(error(4978), CrsError::Unsupported { .. }));
        let geographic = Projection::new(Epsg(4326)).unwrap();
        assert!(matches!(geographic.lonlat(0.0, 91.0), Err(CrsError::Outside { .. })));
        assert!(matches!(geographic.lonlat(0.0, f64::NAN), Err(CrsError::Outside { .. })));
        let utm = Projection::new(Epsg(26914)).unwrap();
        assert!(utm.lonlat(f64::NAN, 0.0).is_err());
        for error in [error(9), error(4978), geographic.lonlat(0.0, 91.0).unwrap_err()] {
            assert!(error.to_string().ends_with("--crs EPSG:…"), "{error}");
        }
    }

    #[test]
    fn distances_are_metres() {
        let distance = |from: (f64, f64), to: (f64, f64)| {
            let point = |(longitude, latitude)| in_space(LonLat::new(longitude, latitude).unwrap());
            let (from, to) = (point(from), point(to));
            from.iter().zip(to).map(|(from, to)| (to - from).powi(2)).sum::<f64>().sqrt()
        };
        let near = |found: f64, expected: f64| assert!((found - expected).abs() < 0.1, "{found}");
        // One minute of latitude is a nautical mile, shorter at the equator and longer at the poles.
        near(distance((10.0, 0.0), (10.0, 1.0 / 60.0)), 1842.9);
        near(distance((10.0, 90.0), (10.0, 90.0 - 1.0 / 60.0)), 1861.6);
        near(distance((179.995, 0.0), (-179.995, 0.0)), 1113.2);
        near(distance((0.0, 60.0), (0.01, 60.0)), 558.0);
    }
}
