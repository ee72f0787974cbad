use std::fmt;

use super::{PictureSizeError, area, assert_inside};

/// One yes or no per pixel; yes marks a hole that is to be filled. Never empty.
#[derive(Clone, Eq, PartialEq)]
pub struct Mask {
    width: u32,
    height: u32,
    holes: Vec<bool>,
}

impl Mask {
    /// A mask from `[height, width]` values.
    ///
    /// # Errors
    ///
    /// [`PictureSizeError`] when a side is zero or there are not `width · height` values.
    pub fn new(width: u32, height: u32, holes: Vec<bool>) -> Result<Self, PictureSizeError> {
        PictureSizeError::check(width, height, 1, holes.len())?;
        Ok(Self { width, height, holes })
    }

    /// A mask that is all hole or all kept.
    ///
    /// # Panics
    ///
    /// When a side is zero.
    pub fn filled(width: u32, height: u32, hole: bool) -> Self {
        Self::drawn(width, height, |_, _| hole)
    }

    /// A mask whose every pixel is computed from its position (x, y).
    ///
    /// # Panics
    ///
    /// When a side is zero.
    pub fn drawn(width: u32, height: u32, hole: impl Fn(u32, u32) -> bool) -> Self {
        assert!(width > 0 && height > 0, "a mask of {width} × {height} pixels has no pixels");
        let holes = (0..height).flat_map(|y| (0..width).map(move |x| (x, y))).map(|(x, y)| hole(x, y));
        Self { width, height, holes: holes.collect() }
    }

    /// Pixels from left to right.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Pixels from top to bottom.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// The values, `[height, width]`.
    pub fn holes(&self) -> &[bool] {
        &self.holes
    }

    /// Whether one pixel is a hole.
    ///
    /// # Panics
    ///
    /// Outside the mask.
    pub fn is_hole(&self, x: u32, y: u32) -> bool {
        assert!(x < self.width && y < self.height, "pixel ({x}, {y}) is outside {self:?}");
        self.holes[area(self.width, y) + x as usize]
    }

    /// How many pixels are holes.
    pub fn hole_count(&self) -> usize {
        self.holes.iter().filter(|hole| **hole).count()
    }

    /// The part `width × height` whose top left corner is (`x`, `y`).
    ///
    /// # Panics
    ///
    /// When the part is empty or reaches outside the mask.
    pub fn crop(&self, x: u32, y: u32, width: u32, height: u32) -> Self {
        assert_inside((x, y), (width, height), (self.width, self.height));
        Self::drawn(width, height, |column, row| self.is_hole(x + column, y + row))
    }

    /// The mask at another size: a pixel is a hole when it touches any hole, so that thin holes survive shrinking.
    ///
    /// # Panics
    ///
    /// When a side is zero.
    pub fn resized(&self, width: u32, height: u32) -> Self {
        let columns = |x| footprint(x, width, self.width);
        Self::drawn(width, height, |x, y| {
            footprint(y, height, self.height).any(|row| columns(x).any(|column| self.is_hole(column, row)))
        })
    }
}

/// The source pixels that pixel `index` of `target` covers, a part of one counting as the whole.
fn footprint(index: u32, target: u32, source: u32) -> std::ops::Range<u32> {
    let (index, target, source) = (u64::from(index), u64::from(target), u64::from(source));
    let start = index * source / target;
    let end = ((index + 1) * source).div_ceil(target);
    start as u32..end as u32
}

impl fmt::Debug for Mask {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Mask({} × {}, {} holes)", self.width, self.height, self.hole_count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_checked() {
        assert!(Mask::new(2, 2, vec![true; 4]).is_ok());
        assert!(Mask::new(2, 2, vec![true; 3]).is_err());
        assert!(Mask::new(2, 0, vec![]).is_err());
    }

    #[test]
    fn crop_takes_the_part() {
        let mask = Mask::drawn(6, 4, |x, y| x == 3 && y == 2);
        assert_eq!(mask.hole_count(), 1);
        let part = mask.crop(2, 1, 3, 2);
        assert!(part.is_hole(1, 1));
        assert_eq!(part.hole_count(), 1);
    }

    #[test]
    fn a_thin_hole_survives_resizing() {
        let mask = Mask::drawn(600, 400, |x, _| x == 301);
        let small = mask.resized(16, 16);
        assert_eq!(small.hole_count(), 16);
        assert!(small.is_hole(8, 0) && small.is_hole(8, 15));
        let large = Mask::drawn(2, 2, |x, y| x == 0 && y == 1).resized(4, 4);
        assert_eq!(large, Mask::drawn(4, 4, |x, y| x < 2 && y >= 2));
        assert_eq!(mask.resized(600, 400), mask);
    }
}
