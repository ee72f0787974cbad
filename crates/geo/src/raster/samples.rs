//! The numbers of a raster, whatever their type.

use tiff_reader::RasterLayout;

use super::stretch::ByteScale;

/// The type of a raster's numbers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SampleType {
    /// 8 bits, 0 … 255.
    U8,
    /// 8 bits with sign.
    I8,
    /// 16 bits.
    U16,
    /// 16 bits with sign.
    I16,
    /// 32 bits.
    U32,
    /// 32 bits with sign.
    I32,
    /// 32-bit floating point.
    F32,
    /// 64-bit floating point.
    F64,
}

impl SampleType {
    /// The type of a TIFF's samples, if it is one that is read here.
    pub(super) fn of(layout: &RasterLayout) -> Option<Self> {
        match (layout.sample_format, layout.bits_per_sample) {
            // Fewer bits than a byte arrive in a byte each.
            (1, 1..=8) => Some(Self::U8),
            (1, 9..=16) => Some(Self::U16),
            (1, 32) => Some(Self::U32),
            (2, 8) => Some(Self::I8),
            (2, 16) => Some(Self::I16),
            (2, 32) => Some(Self::I32),
            (3, 32) => Some(Self::F32),
            (3, 64) => Some(Self::F64),
            _ => None,
        }
    }

    /// Bytes of one number.
    pub fn bytes(self) -> usize {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    /// Whether the numbers may have fractions and be no number at all.
    pub fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F64)
    }

    /// What an unstretched picture shows as black and as white: the whole range of integers, 0 … 1 for fractions.
    pub fn range(self) -> (f64, f64) {
        match self {
            Self::U8 => (0.0, 255.0),
            Self::I8 => (-128.0, 127.0),
            Self::U16 => (0.0, 65_535.0),
            Self::I16 => (-32_768.0, 32_767.0),
            Self::U32 => (0.0, f64::from(u32::MAX)),
            Self::I32 => (f64::from(i32::MIN), f64::from(i32::MAX)),
            Self::F32 | Self::F64 => (0.0, 1.0),
        }
    }

    /// A number of the outside as this type would hold it.
    pub(super) fn rounded(self, value: f64) -> f64 {
        if self == Self::F32 { f64::from(value as f32) } else { value }
    }
}

/// Decoded pixels, one after another in `[height, width, channels]`, in the byte order of this machine.
pub(super) struct Samples {
    pub bytes: Vec<u8>,
    pub kind: SampleType,
    pub channels: usize,
}

impl Samples {
    /// Calls `see` with the index of each pixel and its value in one channel.
    pub fn each(&self, channel: usize, see: impl FnMut(usize, f64)) {
        match self.kind {
            SampleType::U8 => self.each_of(channel, |[a]: [u8; 1]| f64::from(a), see),
            SampleType::I8 => self.each_of(channel, |bytes| f64::from(i8::from_ne_bytes(bytes)), see),
            SampleType::U16 => self.each_of(channel, |bytes| f64::from(u16::from_ne_bytes(bytes)), see),
            SampleType::I16 => self.each_of(channel, |bytes| f64::from(i16::from_ne_bytes(bytes)), see),
            SampleType::U32 => self.each_of(channel, |bytes| f64::from(u32::from_ne_bytes(bytes)), see),
            SampleType::I32 => self.each_of(channel, |bytes| f64::from(i32::from_ne_bytes(bytes)), see),
            SampleType::F32 => self.each_of(channel, |bytes| f64::from(f32::from_ne_bytes(bytes)), see),
            SampleType::F64 => self.each_of(channel, f64::from_ne_bytes, see),
        }
    }

    /// Calls `see` with the index of each pixel and its value in one channel as a byte of a scale.
    pub fn each_byte(&self, channel: usize, scale: ByteScale, mut see: impl FnMut(usize, u8)) {
        if self.kind != SampleType::U8 {
            return self.each(channel, |index, value| see(index, scale.byte(value)));
        }
        // A table takes a fraction of the time of the arithmetic.
        let table: Vec<u8> = (0..=u8::MAX).map(|byte| scale.byte(f64::from(byte))).collect();
        for (index, pixel) in self.bytes.chunks_exact(self.channels).enumerate() {
            see(index, table[usize::from(pixel[channel])]);
        }
    }

    fn each_of<const BYTES: usize>(
        &self,
        channel: usize,
        number: impl Fn([u8; BYTES]) -> f64,
        mut see: impl FnMut(usize, f64),
    ) {
        let pixels = self.bytes.chunks_exact(BYTES * self.channels);
        for (index, pixel) in pixels.enumerate() {
            let bytes = &pixel[channel * BYTES..][..BYTES];
            see(index, number(bytes.try_into().expect("a slice of this length")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_taken_from_their_channel() {
        let bytes: Vec<u8> = [-1.5_f32, f32::NAN, 2.0, 7.0].iter().flat_map(|v| v.to_ne_bytes()).collect();
        let samples = Samples { bytes, kind: SampleType::F32, channels: 2 };
        let mut found = Vec::new();
        samples.each(0, |index, value| found.push((index, value)));
        assert_eq!(found, [(0, -1.5), (1, 2.0)]);
        samples.each(1, |index, value| assert_eq!(value.is_nan(), index == 0));
    }
}
