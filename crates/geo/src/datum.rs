//! Map datums used in China: [`Datum`] converts between WGS 84, GCJ-02 and BD-09.
//!
//! Maps published in China are shifted by some hundred metres: by law to GCJ-02 (most web maps), and by Baidu further
//! to BD-09. A photograph in WGS 84 does not lie on such a map until one of them is moved. The formulas are not
//! official; they are the ones in public use, and agree with the published maps to about a metre.

use std::f64::consts::PI;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::lonlat::LonLat;

/// The larger radius of Krasovsky's ellipsoid in metres.
const RADIUS: f64 = 6_378_245.0;

/// Its squared eccentricity.
const ECCENTRICITY: f64 = 0.006_693_421_622_965_943;

/// Fixed-point steps of an inverse: each divides the error by some hundred, and eight reach the last digits.
const STEPS: usize = 8;

/// How coordinates relate to the ground.
///
/// ```
/// use earthmapper_geo::{Datum, LonLat};
///
/// let beijing = LonLat::new(116.404, 39.915)?;
/// let on_the_map = Datum::Wgs84.convert(beijing, Datum::Gcj02);
/// assert!((on_the_map.longitude() - 116.410_244).abs() < 1e-6);
/// // Elsewhere the three are one.
/// let florence = LonLat::new(11.25, 43.77)?;
/// assert_eq!(Datum::Wgs84.convert(florence, Datum::Bd09), florence);
/// # Ok::<(), earthmapper_geo::PlaceError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Datum {
    /// The datum of GPS, satellite pictures and nearly all maps.
    #[default]
    Wgs84,
    /// The shifted datum of Chinese web maps.
    Gcj02,
    /// Baidu's, shifted once more.
    Bd09,
}

/// A name that is no datum.
#[derive(Clone, Debug, Error, Eq, PartialEq)]
#[error("{0:?} is no datum; use wgs84, gcj02 or bd09")]
pub struct UnknownDatum(pub String);

impl Datum {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Wgs84, Self::Gcj02, Self::Bd09];

    /// The same ground in another datum: `self` says what `point` is in, `target` what the answer is in.
    ///
    /// Outside a box around China (72.004 … 137.8347° east, 0.8293 … 55.8271° north, in WGS 84) nothing changes. The
    /// shift ends abruptly there, so coordinates within some hundred metres of that border are ambiguous.
    pub fn convert(self, point: LonLat, target: Self) -> LonLat {
        let wgs84 = match self {
            Self::Wgs84 => point,
            Self::Gcj02 => unshifted(point, gcj02_from_wgs84),
            Self::Bd09 => unshifted(point, bd09_from_wgs84),
        };
        match target {
            // Not by way of WGS 84, which would change the last digits.
            _ if target == self => point,
            Self::Wgs84 => wgs84,
            Self::Gcj02 => shifted(wgs84, gcj02_from_wgs84),
            Self::Bd09 => shifted(wgs84, bd09_from_wgs84),
        }
    }
}

impl fmt::Display for Datum {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Wgs84 => "wgs84",
            Self::Gcj02 => "gcj02",
            Self::Bd09 => "bd09",
        })
    }
}

impl FromStr for Datum {
    type Err = UnknownDatum;

    fn from_str(text: &str) -> Result<Self, UnknownDatum> {
        Self::ALL
            .into_iter()
            .find(|datum| datum.to_string() == text)
            .ok_or_else(|| UnknownDatum(text.to_owned()))
    }
}

/// Longitude and latitude in degrees, before they are known to be a place.
type Degrees = (f64, f64);

fn is_in_china((longitude, latitude): Degrees) -> bool {
    (72.004..=137.8347).contains(&longitude) && (0.8293..=55.8271).contains(&latitude)
}

fn degrees(point: LonLat) -> Degrees {
    (point.longitude(), point.latitude())
}

fn shifted(point: LonLat, shift: fn(Degrees) -> Degrees) -> LonLat {
    if !is_in_china(degrees(point)) {
        return point;
    }
    let (longitude, latitude) = shift(degrees(point));
    LonLat::new(longitude, latitude).expect("a shift by less than a degree stays on Earth")
}

/// The point whose shifted place is `point`. There is no formula; a fixed point is found, since the shift changes
/// slowly.
fn unshifted(point: LonLat, shift: fn(Degrees) -> Degrees) -> LonLat {
    let target = degrees(point);
    // A degree is more than any shift: far from the box nothing needs to be tried.
    if !(71.0..=139.0).contains(&target.0) || !(0.0..=57.0).contains(&target.1) {
        return point;
    }
    let mut guess = target;
    for _ in 0..STEPS {
        let there = shift(guess);
        guess = (guess.0 + target.0 - there.0, guess.1 + target.1 - there.1);
    }
    if !is_in_china(guess) {
        return point;
    }
    LonLat::new(guess.0, guess.1).expect("a shift by less than a degree stays on Earth")
}

/// WGS 84 → GCJ-02 by the formula in public use.
fn gcj02_from_wgs84((longitude, latitude): Degrees) -> Degrees {
    let (x, y) = (longitude - 105.0, latitude - 35.0);
    let wave = |amplitude: f64, angle: f64| amplitude * (angle * PI).sin();
    let both = wave(20.0, 6.0 * x) + wave(20.0, 2.0 * x);
    let east = 300.0
        + x
        + 2.0 * y
        + 0.1 * x * x
        + 0.1 * x * y
        + 0.1 * x.abs().sqrt()
        + (both + wave(20.0, x) + wave(40.0, x / 3.0) + wave(150.0, x / 12.0) + wave(300.0, x / 30.0)) * 2.0
            / 3.0;
    let north = -100.0
        + 2.0 * x
        + 3.0 * y
        + 0.2 * y * y
        + 0.1 * x * y
        + 0.2 * x.abs().sqrt()
        + (both + wave(20.0, y) + wave(40.0, y / 3.0) + wave(160.0, y / 12.0) + wave(320.0, y / 30.0)) * 2.0
            / 3.0;

    // `east` and `north` are metres; here they become degrees on the ellipsoid.
    let (sin, cos) = latitude.to_radians().sin_cos();
    let squared = 1.0 - ECCENTRICITY * sin * sin;
    let meridian = RADIUS * (1.0 - ECCENTRICITY) / squared.powf(1.5);
    let parallel = RADIUS / squared.sqrt() * cos;
    (longitude + (east / parallel).to_degrees(), latitude + (north / meridian).to_degrees())
}

/// WGS 84 → BD-09: GCJ-02, moved and slightly twisted.
fn bd09_from_wgs84(point: Degrees) -> Degrees {
    const TURNS: f64 = PI * 3000.0 / 180.0;
    let (x, y) = gcj02_from_wgs84(point);
    let radius = x.hypot(y) + 0.000_02 * (y * TURNS).sin();
    let angle = y.atan2(x) + 0.000_003 * (x * TURNS).cos();
    (radius * angle.cos() + 0.0065, radius * angle.sin() + 0.006)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn point(longitude: f64, latitude: f64) -> LonLat {
        LonLat::new(longitude, latitude).unwrap()
    }

    /// Metres between two points close to each other.
    fn metres(a: LonLat, b: LonLat) -> f64 {
        let east = (a.longitude() - b.longitude()) * a.latitude().to_radians().cos();
        east.hypot(a.latitude() - b.latitude()) * 111_320.0
    }

    /// Values that other implementations publish as their tests.
    #[test]
    fn published_values() {
        for (from, given, to, expected) in [
            (Datum::Wgs84, (121.527_210_6, 31.177_427_6), Datum::Gcj02, (121.531_541_859, 31.175_303_984)),
            (Datum::Wgs84, (113.912_316, 22.543_847), Datum::Gcj02, (113.917_176_481, 22.540_796_132)),
            (Datum::Wgs84, (116.404, 39.915), Datum::Gcj02, (116.410_244_499, 39.916_404_282)),
            (Datum::Gcj02, (116.404, 39.915), Datum::Bd09, (116.410_369_494, 39.921_336_994)),
        ] {
            let converted = from.convert(point(given.0, given.1), to);
            assert!((converted.longitude() - expected.0).abs() < 1e-8, "{converted:?}");
            assert!((converted.latitude() - expected.1).abs() < 1e-8, "{converted:?}");
        }
        // The usual inverse of BD-09 is approximate, so it agrees to a metre only.
        let converted = Datum::Bd09.convert(point(116.404, 39.915), Datum::Gcj02);
        assert!(metres(converted, point(116.397_627_291, 39.908_656_740)) < 1.0, "{converted:?}");
    }

    #[test]
    fn names_are_read_and_written() {
        for datum in Datum::ALL {
            assert_eq!(datum.to_string().parse(), Ok(datum));
            assert_eq!(serde_json::to_string(&datum).unwrap(), format!("\"{datum}\""));
        }
        let error = "nad27".parse::<Datum>().unwrap_err();
        assert_eq!(error.to_string(), "\"nad27\" is no datum; use wgs84, gcj02 or bd09");
    }

    fn any_datum() -> impl Strategy<Value = Datum> {
        prop::sample::select(Datum::ALL.to_vec())
    }

    proptest! {
        #[test]
        fn back_and_forth_inside_china(
            longitude in 72.004..=137.8347_f64, latitude in 0.8293..=55.8271_f64,
            first in any_datum(), second in any_datum(),
        ) {
            let wgs84 = point(longitude, latitude);
            let start = Datum::Wgs84.convert(wgs84, first);
            let back = second.convert(first.convert(start, second), first);
            prop_assert!(metres(start, back) < 1e-3, "{} m", metres(start, back));
            prop_assert!(metres(first.convert(start, Datum::Wgs84), wgs84) < 1e-3);
            prop_assert!(metres(start, wgs84) < 3000.0);
        }

        #[test]
        fn nothing_changes_outside(
            longitude in -180.0..180.0_f64, latitude in -90.0..=90.0_f64,
            first in any_datum(), second in any_datum(),
        ) {
            let given = point(longitude, latitude);
            // A margin, because shifted coordinates reach over the border of the box.
            let is_near = (71.9..=138.0).contains(&longitude) && (0.7..=56.0).contains(&latitude);
            prop_assume!(!is_near);
            prop_assert_eq!(first.convert(given, second), given);
        }

        #[test]
        fn wgs84_just_outside_does_not_change(
            along in 0.0..1.0_f64, away in 1e-9..1.0_f64, border in 0..4, target in any_datum(),
        ) {
            let (longitude, latitude) = (72.004 + along * 65.83, 0.8293 + along * 54.99);
            let given = match border {
                0 => point(72.004 - away, latitude),
                1 => point(137.8347 + away, latitude),
                2 => point(longitude, 0.8293 - away),
                _ => point(longitude, 55.8271 + away),
            };
            prop_assert_eq!(Datum::Wgs84.convert(given, target), given);
        }
    }
}
