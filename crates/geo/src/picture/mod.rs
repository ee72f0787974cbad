//! Pictures as plain pixels: 8-bit RGB ([`Picture`]) and one bit per pixel ([`Mask`]), and their files.

mod error;
mod mask;
mod read;
mod write;

use std::fmt;

use fast_image_resize as resize;
use thiserror::Error;

pub use error::PictureError;
pub use mask::Mask;
pub use read::{PictureLimits, decode_mask, decode_picture, decode_with_holes, read_mask, read_picture};
pub(crate) use read::{decoder, read_bounded};
pub use write::{
    WriteOptions, check_picture_output, check_picture_size, encode_grey, encode_picture, encode_with_holes,
    write_grey, write_picture,
};

/// Pixels that do not fit the size they are said to have.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum PictureSizeError {
    /// Width or height is zero.
    #[error("a picture of {width} × {height} pixels has no pixels")]
    Empty {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// The buffer is too short or too long.
    #[error("{width} × {height} pixels need {expected} values, not {found}")]
    Length {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// Values that such a picture has.
        expected: u64,
        /// Values that were given.
        found: u64,
    },
}

impl PictureSizeError {
    /// Checks that `found` values are `channels` for each of `width × height` pixels, and that there are any.
    fn check(width: u32, height: u32, channels: u64, found: usize) -> Result<(), Self> {
        if width == 0 || height == 0 {
            return Err(Self::Empty { width, height });
        }
        let (expected, found) = (u64::from(width) * u64::from(height) * channels, found as u64);
        if expected == found { Ok(()) } else { Err(Self::Length { width, height, expected, found }) }
    }
}

/// An 8-bit RGB picture, rows from the top, pixels from the left, never empty.
#[derive(Clone, Eq, PartialEq)]
pub struct Picture {
    width: u32,
    height: u32,
    rgb: Vec<u8>,
}

impl Picture {
    /// A picture from `[height, width, 3]` bytes.
    ///
    /// # Errors
    ///
    /// [`PictureSizeError`] when a side is zero or the bytes are not `3 · width · height`.
    pub fn new(width: u32, height: u32, rgb: Vec<u8>) -> Result<Self, PictureSizeError> {
        PictureSizeError::check(width, height, 3, rgb.len())?;
        Ok(Self { width, height, rgb })
    }

    /// A picture of one colour.
    ///
    /// # Panics
    ///
    /// When a side is zero.
    pub fn filled(width: u32, height: u32, colour: [u8; 3]) -> Self {
        Self::drawn(width, height, |_, _| colour)
    }

    /// A picture whose every pixel is computed from its position (x, y).
    ///
    /// # Panics
    ///
    /// When a side is zero.
    pub fn drawn(width: u32, height: u32, mut colour: impl FnMut(u32, u32) -> [u8; 3]) -> Self {
        assert!(width > 0 && height > 0, "a picture of {width} × {height} pixels has no pixels");
        let mut rgb = Vec::with_capacity(area(width, height) * 3);
        for y in 0..height {
            for x in 0..width {
                rgb.extend_from_slice(&colour(x, y));
            }
        }
        Self { width, height, rgb }
    }

    /// Pixels from left to right.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Pixels from top to bottom.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// The bytes, `[height, width, 3]`.
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }

    /// The bytes to change in place, `[height, width, 3]`.
    pub fn rgb_mut(&mut self) -> &mut [u8] {
        &mut self.rgb
    }

    /// The bytes, `[height, width, 3]`, without a copy.
    pub fn into_rgb(self) -> Vec<u8> {
        self.rgb
    }

    /// One pixel.
    ///
    /// # Panics
    ///
    /// Outside the picture.
    pub fn pixel(&self, x: u32, y: u32) -> [u8; 3] {
        let start = self.offset(x, y);
        [self.rgb[start], self.rgb[start + 1], self.rgb[start + 2]]
    }

    /// Changes one pixel.
    ///
    /// # Panics
    ///
    /// Outside the picture.
    pub fn set_pixel(&mut self, x: u32, y: u32, colour: [u8; 3]) {
        let start = self.offset(x, y);
        self.rgb[start..start + 3].copy_from_slice(&colour);
    }

    fn offset(&self, x: u32, y: u32) -> usize {
        assert!(x < self.width && y < self.height, "pixel ({x}, {y}) is outside {self:?}");
        (area(self.width, y) + x as usize) * 3
    }

    /// One row of bytes, `[width, 3]`, from column `x` on.
    fn row(&self, x: u32, y: u32, width: u32) -> &[u8] {
        let start = self.offset(x, y);
        &self.rgb[start..start + width as usize * 3]
    }

    /// The part `width × height` whose top left corner is (`x`, `y`).
    ///
    /// # Panics
    ///
    /// When the part is empty or reaches outside the picture.
    pub fn crop(&self, x: u32, y: u32, width: u32, height: u32) -> Self {
        assert_inside((x, y), (width, height), (self.width, self.height));
        let rows = (y..y + height).flat_map(|row| self.row(x, row, width));
        Self { width, height, rgb: rows.copied().collect() }
    }

    /// Covers the part whose top left corner is (`x`, `y`) with `other`.
    ///
    /// # Panics
    ///
    /// When `other` reaches outside the picture.
    pub fn paste(&mut self, other: &Self, x: u32, y: u32) {
        assert_inside((x, y), (other.width, other.height), (self.width, self.height));
        for row in 0..other.height {
            let start = self.offset(x, y + row);
            let pixels = other.row(0, row, other.width);
            self.rgb[start..start + pixels.len()].copy_from_slice(pixels);
        }
    }

    /// The picture at another size, anti-aliased.
    ///
    /// The filters have no negative lobes (Hamming to shrink, bilinear to enlarge): sharper ones ring along edges,
    /// and the flat colours of a map would no longer be flat.
    ///
    /// # Panics
    ///
    /// When a side is zero.
    pub fn resized(&self, width: u32, height: u32) -> Self {
        let area = PixelArea { x: 0.0, y: 0.0, width: f64::from(self.width), height: f64::from(self.height) };
        self.resampled(area, width, height)
    }

    /// A part of the picture, between pixels if need be, at another size; anti-aliased as
    /// [`resized`](Self::resized). At the part's borders the pixels beyond count too, so that parts fit together.
    ///
    /// # Panics
    ///
    /// When a side is zero or the part reaches outside.
    pub fn resampled(&self, area: PixelArea, width: u32, height: u32) -> Self {
        assert!(width > 0 && height > 0, "a picture of {width} × {height} pixels has no pixels");
        let PixelArea { x, y, width: across, height: down } = area;
        if [x, y, across, down].iter().all(|side| side.fract() == 0.0)
            && (across, down) == (f64::from(width), f64::from(height))
        {
            return self.crop(x as u32, y as u32, width, height);
        }
        // Sums of fractions may reach a hair outside.
        let (x, y) = (x.max(0.0), y.max(0.0));
        let (across, down) = (across.min(f64::from(self.width) - x), down.min(f64::from(self.height) - y));
        let shrinks = f64::from(width) < across || f64::from(height) < down;
        let filter = if shrinks { resize::FilterType::Hamming } else { resize::FilterType::Bilinear };
        let options = resize::ResizeOptions::new()
            .resize_alg(resize::ResizeAlg::Convolution(filter))
            .crop(x, y, across, down);
        let format = resize::PixelType::U8x3;
        let source = resize::images::ImageRef::new(self.width, self.height, &self.rgb, format)
            .expect("the buffer fits the size");
        let mut target = resize::images::Image::new(width, height, format);
        resize::Resizer::new()
            .resize(&source, &mut target, &options)
            .expect("a part of an 8-bit RGB picture");
        Self { width, height, rgb: target.into_vec() }
    }

    /// The mirror image, left and right swapped.
    pub fn flipped(&self) -> Self {
        Self::drawn(self.width, self.height, |x, y| self.pixel(self.width - 1 - x, y))
    }

    /// The picture turned clockwise by `turns` right angles.
    pub fn quarter_turned(&self, turns: u32) -> Self {
        let (right, bottom) = (self.width - 1, self.height - 1);
        match turns % 4 {
            1 => Self::drawn(self.height, self.width, |x, y| self.pixel(y, bottom - x)),
            2 => Self::drawn(self.width, self.height, |x, y| self.pixel(right - x, bottom - y)),
            3 => Self::drawn(self.height, self.width, |x, y| self.pixel(right - y, x)),
            _ => self.clone(),
        }
    }

    /// Pictures side by side, the first at the left.
    ///
    /// # Panics
    ///
    /// When there are none or their heights differ.
    pub fn hconcat(pictures: &[&Self]) -> Self {
        let height = pictures.first().expect("at least one picture").height;
        let width = pictures.iter().map(|picture| picture.width).sum();
        let mut whole = Self::filled(width, height, [0; 3]);
        let mut x = 0;
        for picture in pictures {
            assert_eq!(picture.height, height, "pictures side by side are equally high");
            whole.paste(picture, x, 0);
            x += picture.width;
        }
        whole
    }

    /// Pictures below each other, the first at the top.
    ///
    /// # Panics
    ///
    /// When there are none or their widths differ.
    pub fn vconcat(pictures: &[&Self]) -> Self {
        let width = pictures.first().expect("at least one picture").width;
        let height = pictures.iter().map(|picture| picture.height).sum();
        let mut rgb = Vec::with_capacity(area(width, height) * 3);
        for picture in pictures {
            assert_eq!(picture.width, width, "pictures below each other are equally wide");
            rgb.extend_from_slice(&picture.rgb);
        }
        Self { width, height, rgb }
    }
}

/// A part of a picture, whose borders may lie between pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PixelArea {
    /// Its left border, in pixels from the picture's.
    pub x: f64,
    /// Its top border.
    pub y: f64,
    /// Its width.
    pub width: f64,
    /// Its height.
    pub height: f64,
}

impl fmt::Debug for Picture {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Picture({} × {})", self.width, self.height)
    }
}

fn area(width: u32, height: u32) -> usize {
    width as usize * height as usize
}

fn assert_inside(corner: (u32, u32), size: (u32, u32), whole: (u32, u32)) {
    let fits = |start: u32, length: u32, whole: u32| {
        length > 0 && start.checked_add(length).is_some_and(|end| end <= whole)
    };
    assert!(
        fits(corner.0, size.0, whole.0) && fits(corner.1, size.1, whole.1),
        "{} × {} pixels at ({}, {}) are not inside {} × {}",
        size.0,
        size.1,
        corner.0,
        corner.1,
        whole.0,
        whole.1
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every pixel tells its position.
    fn numbered(width: u32, height: u32) -> Picture {
        Picture::drawn(width, height, |x, y| [x as u8, y as u8, (x * 7 + y * 13) as u8])
    }

    #[test]
    fn sizes_are_checked() {
        assert!(Picture::new(2, 1, vec![0; 6]).is_ok());
        let error = Picture::new(2, 1, vec![0; 5]).unwrap_err();
        assert_eq!(error.to_string(), "2 × 1 pixels need 6 values, not 5");
        let error = Picture::new(0, 7, vec![]).unwrap_err();
        assert_eq!(error, PictureSizeError::Empty { width: 0, height: 7 });
        assert!(Picture::new(u32::MAX, u32::MAX, vec![]).is_err());
    }

    #[test]
    fn crop_and_paste_undo_each_other() {
        let picture = numbered(9, 7);
        let part = picture.crop(3, 2, 4, 5);
        assert_eq!((part.width(), part.height()), (4, 5));
        assert_eq!(part.pixel(0, 0), picture.pixel(3, 2));
        assert_eq!(part.pixel(3, 4), picture.pixel(6, 6));
        let mut blank = Picture::filled(9, 7, [255; 3]);
        blank.paste(&part, 3, 2);
        assert_eq!(blank.crop(3, 2, 4, 5), part);
        assert_eq!(blank.pixel(2, 2), [255; 3]);
        blank.set_pixel(0, 6, [1, 2, 3]);
        assert_eq!(blank.pixel(0, 6), [1, 2, 3]);
    }

    #[test]
    #[should_panic(expected = "4 × 5 pixels at (6, 2) are not inside 9 × 7")]
    fn crop_outside_panics() {
        numbered(9, 7).crop(6, 2, 4, 5);
    }

    #[test]
    #[should_panic(expected = "are not inside")]
    fn crop_does_not_wrap_around() {
        numbered(9, 7).crop(u32::MAX, 2, 4, 5);
    }

    #[test]
    fn turns_and_flips_land_where_they_should() {
        let picture = numbered(5, 3);
        let turned = picture.quarter_turned(1);
        assert_eq!((turned.width(), turned.height()), (3, 5));
        // Clockwise: the top left corner goes to the top right, the bottom left to the top left.
        assert_eq!(turned.pixel(2, 0), picture.pixel(0, 0));
        assert_eq!(turned.pixel(0, 0), picture.pixel(0, 2));
        assert_eq!(turned.pixel(2, 4), picture.pixel(4, 0));
        for turns in 0..8 {
            let repeated = (0..turns).fold(picture.clone(), |picture, _| picture.quarter_turned(1));
            assert_eq!(picture.quarter_turned(turns), repeated, "{turns} turns");
        }
        assert_eq!(picture.quarter_turned(4), picture);
        assert_eq!(picture.flipped().pixel(0, 1), picture.pixel(4, 1));
        assert_eq!(picture.flipped().flipped(), picture);
    }

    #[test]
    fn concatenation_keeps_the_parts() {
        let (left, right) = (numbered(4, 3), Picture::filled(2, 3, [9; 3]));
        let whole = Picture::hconcat(&[&left, &right]);
        assert_eq!((whole.width(), whole.height()), (6, 3));
        assert_eq!(whole.crop(0, 0, 4, 3), left);
        assert_eq!(whole.crop(4, 0, 2, 3), right);
        let tall = Picture::vconcat(&[&left, &left]);
        assert_eq!((tall.width(), tall.height()), (4, 6));
        assert_eq!(tall.crop(0, 3, 4, 3), left);
    }

    #[test]
    fn resizing_keeps_flat_colours_and_averages_detail() {
        let flat = Picture::filled(37, 23, [12, 200, 77]);
        assert_eq!(flat.resized(8, 8), Picture::filled(8, 8, [12, 200, 77]));
        assert_eq!(flat.resized(100, 90), Picture::filled(100, 90, [12, 200, 77]));
        // A fine checkerboard must become grey, not a coarser checkerboard.
        let checkerboard = Picture::drawn(64, 64, |x, y| if (x + y) % 2 == 0 { [255; 3] } else { [0; 3] });
        let small = checkerboard.resized(8, 8);
        assert!(small.rgb().iter().all(|value| (118..=138).contains(value)), "{:?}", small.rgb());
        // A sharp edge does not ring.
        let edge = Picture::drawn(64, 4, |x, _| if x < 30 { [80; 3] } else { [160; 3] });
        for width in [17, 150] {
            assert!(edge.resized(width, 4).rgb().iter().all(|value| (80..=160).contains(value)));
        }
        assert_eq!(numbered(5, 5).resized(5, 5), numbered(5, 5));
        assert_eq!(numbered(5, 5).resized(1, 1).width(), 1);
    }
}
