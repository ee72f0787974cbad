//! From the numbers of a raster to the 8 bits of a picture.

use super::samples::SampleType;

/// Which numbers become black and which become white.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Stretch {
    /// 8-bit rasters stay as they are; others are stretched between their percentiles 2 and 98.
    #[default]
    Auto,
    /// The whole range of the type; 0 … 1 for fractions.
    Whole,
    /// Between two percentiles of each band, 0 … 100, estimated from an overview or a sample of windows.
    Percentiles {
        /// Percentile that becomes black.
        low: f64,
        /// Percentile that becomes white.
        high: f64,
    },
    /// Between two numbers, the same for every band.
    Range {
        /// What becomes black.
        low: f64,
        /// What becomes white.
        high: f64,
    },
}

/// Which bands make the picture and how their numbers become bytes; made by
/// [`RasterReader::rendering`](super::RasterReader::rendering), the same for all windows so that they fit together.
#[derive(Clone, Debug, PartialEq)]
pub struct Rendering {
    /// One band (grey) or three, counted from 0, each with what becomes black and white.
    pub(super) bands: Vec<(usize, ByteScale)>,
}

impl Rendering {
    /// The bands shown, counted from 1.
    pub fn bands(&self) -> Vec<usize> {
        self.bands.iter().map(|(band, _)| band + 1).collect()
    }

    /// What becomes black and what becomes white, per band shown.
    pub fn ranges(&self) -> Vec<(f64, f64)> {
        self.bands.iter().map(|(_, scale)| (scale.low, scale.high)).collect()
    }
}

/// A linear way from numbers to bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct ByteScale {
    low: f64,
    high: f64,
    factor: f64,
}

impl ByteScale {
    /// From `low` (0) to `high` (255). A range of nothing is widened, so that a flat raster becomes mid-grey.
    pub fn new(low: f64, high: f64) -> Self {
        let (low, high) = if high > low {
            (low, high)
        } else {
            let around = 0.5 * low.abs().max(1.0);
            (low - around, low + around)
        };
        Self { low, high, factor: 255.0 / (high - low) }
    }

    /// Everything a type can hold; bytes stay bytes.
    pub fn whole(kind: SampleType) -> Self {
        let (low, high) = kind.range();
        Self::new(low, high)
    }

    /// A byte, cut off at black and white; what is no number is black.
    pub fn byte(self, value: f64) -> u8 {
        // `as` saturates and turns NaN to 0.
        ((value - self.low) * self.factor).round() as u8
    }
}

/// The values at two percentiles (0 … 100), of numbers in any order; `None` when there are none.
pub(super) fn percentiles(values: &mut [f64], low: f64, high: f64) -> Option<(f64, f64)> {
    let last = values.len().checked_sub(1)?;
    let mut at = |percentile: f64| {
        let index = (percentile.clamp(0.0, 100.0) / 100.0 * last as f64).round() as usize;
        *values.select_nth_unstable_by(index, f64::total_cmp).1
    };
    Some((at(low), at(high)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_stay_bytes() {
        let scale = ByteScale::whole(SampleType::U8);
        assert!((0..=255).all(|byte| scale.byte(f64::from(byte)) == byte as u8));
        assert_eq!(ByteScale::whole(SampleType::U16).byte(65_535.0), 255);
        assert_eq!(ByteScale::whole(SampleType::I16).byte(-32_768.0), 0);
    }

    #[test]
    fn numbers_are_cut_off() {
        let scale = ByteScale::new(100.0, 300.0);
        let bytes =
            [f64::NEG_INFINITY, 0.0, 100.0, 201.0, 300.0, 1e9, f64::NAN].map(|value| scale.byte(value));
        assert_eq!(bytes, [0, 0, 0, 129, 255, 255, 0]);
        assert_eq!(ByteScale::new(5.0, 5.0).byte(5.0), 128);
    }

    #[test]
    fn percentiles_are_values() {
        let mut values: Vec<f64> = (0..=100).rev().map(f64::from).collect();
        assert_eq!(percentiles(&mut values, 2.0, 98.0), Some((2.0, 98.0)));
        assert_eq!(percentiles(&mut values, -5.0, 200.0), Some((0.0, 100.0)));
        assert_eq!(percentiles(&mut [7.0], 2.0, 98.0), Some((7.0, 7.0)));
        assert_eq!(percentiles(&mut [], 2.0, 98.0), None);
    }
}
