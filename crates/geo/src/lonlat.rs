//! Where on Earth a picture lies: [`LonLat`], and [`Place`] when the ground size of a pixel may be known too.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A number that is no place on Earth.
#[derive(Clone, Copy, Debug, Error, PartialEq)]
pub enum PlaceError {
    /// The latitude lies beyond a pole or is not a number.
    #[error("latitude {0} is outside -90 … 90")]
    Latitude(f64),
    /// The longitude is infinite or not a number; every finite value is allowed because it wraps around.
    #[error("longitude {0} is not a finite number of degrees (-180 … 180, other values wrap around)")]
    Longitude(f64),
    /// The ground size of a pixel is zero, negative or not finite.
    #[error("{0} metres per pixel is not a finite number above 0")]
    MetresPerPixel(f64),
}

/// A point on the globe in degrees, WGS 84.
///
/// The longitude is kept in `[-180, 180)`, so that two ways of writing the same point are equal.
///
/// ```
/// use earthmapper_geo::LonLat;
///
/// let fiji = LonLat::new(181.0, -17.0)?;
/// assert_eq!(fiji, LonLat::new(-179.0, -17.0)?);
/// assert_eq!(LonLat::new(0.0, 91.0).unwrap_err().to_string(), "latitude 91 is outside -90 … 90");
/// # Ok::<(), earthmapper_geo::PlaceError>(())
/// ```
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(try_from = "UncheckedLonLat", into = "UncheckedLonLat")]
pub struct LonLat {
    longitude: f64,
    latitude: f64,
}

impl LonLat {
    /// A point from degrees east and degrees north.
    ///
    /// # Errors
    ///
    /// [`PlaceError::Latitude`] outside `[-90, 90]`; [`PlaceError::Longitude`] when not finite.
    pub fn new(longitude: f64, latitude: f64) -> Result<Self, PlaceError> {
        if !(-90.0..=90.0).contains(&latitude) {
            return Err(PlaceError::Latitude(latitude));
        }
        if !longitude.is_finite() {
            return Err(PlaceError::Longitude(longitude));
        }
        Ok(Self { longitude: wrap_longitude(longitude), latitude })
    }

    /// Degrees east of Greenwich, in `[-180, 180)`.
    pub fn longitude(self) -> f64 {
        self.longitude
    }

    /// Degrees north of the equator, in `[-90, 90]`.
    pub fn latitude(self) -> f64 {
        self.latitude
    }
}

/// Moves a longitude into `[-180, 180)`.
fn wrap_longitude(longitude: f64) -> f64 {
    // A value already in range is left alone: adding and removing 180 would cost its last digits.
    if (-180.0..180.0).contains(&longitude) {
        return longitude;
    }
    let wrapped = (longitude + 180.0).rem_euclid(360.0) - 180.0;
    // `rem_euclid` of a tiny negative number rounds up to 360 itself.
    if wrapped >= 180.0 { -180.0 } else { wrapped }
}

/// A point and, where known, how many metres of ground one pixel covers.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(try_from = "UncheckedPlace", into = "UncheckedPlace")]
pub struct Place {
    position: LonLat,
    metres_per_pixel: Option<f64>,
}

impl Place {
    /// A place whose scale may be known.
    ///
    /// # Errors
    ///
    /// [`PlaceError::MetresPerPixel`] unless the value is finite and above 0.
    pub fn new(position: LonLat, metres_per_pixel: Option<f64>) -> Result<Self, PlaceError> {
        match metres_per_pixel {
            Some(metres) if !(metres.is_finite() && metres > 0.0) => Err(PlaceError::MetresPerPixel(metres)),
            _ => Ok(Self { position, metres_per_pixel }),
        }
    }

    /// The point.
    pub fn position(self) -> LonLat {
        self.position
    }

    /// Metres of ground under one pixel, where known.
    pub fn metres_per_pixel(self) -> Option<f64> {
        self.metres_per_pixel
    }
}

impl From<LonLat> for Place {
    fn from(position: LonLat) -> Self {
        Self { position, metres_per_pixel: None }
    }
}

/// What a file may say; the constructors decide whether it is a point.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct UncheckedLonLat {
    longitude: f64,
    latitude: f64,
}

impl TryFrom<UncheckedLonLat> for LonLat {
    type Error = PlaceError;

    fn try_from(unchecked: UncheckedLonLat) -> Result<Self, PlaceError> {
        Self::new(unchecked.longitude, unchecked.latitude)
    }
}

impl From<LonLat> for UncheckedLonLat {
    fn from(point: LonLat) -> Self {
        Self { longitude: point.longitude, latitude: point.latitude }
    }
}

/// A place in a file is flat: the scale stands beside the coordinates.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct UncheckedPlace {
    longitude: f64,
    latitude: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    metres_per_pixel: Option<f64>,
}

impl TryFrom<UncheckedPlace> for Place {
    type Error = PlaceError;

    fn try_from(unchecked: UncheckedPlace) -> Result<Self, PlaceError> {
        let position = LonLat::new(unchecked.longitude, unchecked.latitude)?;
        Self::new(position, unchecked.metres_per_pixel)
    }
}

impl From<Place> for UncheckedPlace {
    fn from(place: Place) -> Self {
        let LonLat { longitude, latitude } = place.position;
        Self { longitude, latitude, metres_per_pixel: place.metres_per_pixel }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longitude_wraps_into_range() {
        for (given, kept) in
            [(0.0, 0.0), (180.0, -180.0), (-180.0, -180.0), (190.0, -170.0), (-190.0, 170.0), (725.5, 5.5)]
        {
            assert_eq!(LonLat::new(given, 0.0).unwrap().longitude(), kept, "{given}");
        }
        assert_eq!(LonLat::new(-180.0 - 1e-14, 0.0).unwrap().longitude(), -180.0);
        for step in -4000..4000 {
            let longitude = LonLat::new(f64::from(step) * 0.37, 0.0).unwrap().longitude();
            assert!((-180.0..180.0).contains(&longitude), "{step}");
        }
        // In range, not one bit changes.
        assert_eq!(LonLat::new(-73.985_428_123_456_7, 0.0).unwrap().longitude(), -73.985_428_123_456_7);
    }

    #[test]
    fn poles_are_places_and_beyond_them_is_not() {
        assert!(LonLat::new(0.0, 90.0).is_ok() && LonLat::new(0.0, -90.0).is_ok());
        for latitude in [90.000_001, -91.0, f64::NAN, f64::INFINITY] {
            let error = LonLat::new(0.0, latitude).unwrap_err();
            assert_eq!(error.to_string(), format!("latitude {latitude} is outside -90 … 90"));
        }
        for longitude in [f64::NAN, f64::NEG_INFINITY] {
            let text = LonLat::new(longitude, 0.0).unwrap_err().to_string();
            assert!(text.starts_with(&format!("longitude {longitude} is not")), "{text}");
        }
    }

    #[test]
    fn metres_per_pixel_are_finite_and_positive() {
        let point = LonLat::new(1.0, 2.0).unwrap();
        assert_eq!(Place::new(point, Some(0.5)).unwrap().metres_per_pixel(), Some(0.5));
        assert_eq!(Place::new(point, None).unwrap(), Place::from(point));
        for metres in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let text = Place::new(point, Some(metres)).unwrap_err().to_string();
            assert!(text.starts_with(&format!("{metres} metres per pixel")), "{text}");
        }
    }

    #[test]
    fn files_are_checked_like_arguments() {
        let place: Place =
            serde_json::from_str(r#"{"longitude":181,"latitude":5,"metres_per_pixel":2}"#).unwrap();
        assert_eq!(place.position(), LonLat::new(-179.0, 5.0).unwrap());
        let text = serde_json::to_string(&place).unwrap();
        assert_eq!(serde_json::from_str::<Place>(&text).unwrap(), place);
        assert_eq!(
            serde_json::to_string(&place.position()).unwrap(),
            r#"{"longitude":-179.0,"latitude":5.0}"#
        );
        let error = serde_json::from_str::<LonLat>(r#"{"longitude":0,"latitude":91}"#).unwrap_err();
        assert!(error.to_string().contains("latitude 91 is outside -90 … 90"), "{error}");
        let error = serde_json::from_str::<LonLat>(r#"{"longitude":0,"latitude":1,"metres_per_pixel":3}"#);
        assert!(error.unwrap_err().to_string().contains("unknown field"), "a scale is not dropped silently");
        let error = serde_json::from_str::<Place>(r#"{"longitude":0,"latitude":1,"zoom":3}"#).unwrap_err();
        assert!(error.to_string().contains("zoom"), "{error}");
    }
}
