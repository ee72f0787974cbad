//! Windows put together: the rows of a scene that are not finished yet.

use earthmapper_geo::picture::{Mask, Picture};

/// A band of a scene that windows are laid on; it moves down as rows are finished.
pub(crate) struct Canvas {
    width: usize,
    height: usize,
    /// Row of the scene that is the band's first.
    top: u32,
    /// Weighted sums of red, green, blue and uncertainty, and of the weights.
    sums: Vec<[f32; 5]>,
}

/// How much each pixel of a window counts, from 0; one entry per column and one per row.
pub(crate) struct Fade {
    /// Of the columns.
    pub columns: Vec<f32>,
    /// Of the rows.
    pub rows: Vec<f32>,
}

impl Fade {
    /// Rises evenly to the middle, so that two windows cross-fade along a straight line: where they differ, the step from pixel
    /// to pixel is then as small as their overlap allows. Never zero, because one window alone covers the borders of the
    /// whole picture.
    pub fn even(side: u32) -> Self {
        let weights: Vec<f32> = (0..side).map(|i| i.min(side - 1 - i) as f32 + 0.5).collect();
        Self { columns: weights.clone(), rows: weights }
    }

    /// Only these columns and rows of the window count.
    pub fn cropped(side: u32, columns: &std::ops::Range<u32>, rows: &std::ops::Range<u32>) -> Self {
        let inside = |range: &std::ops::Range<u32>| -> Vec<f32> {
            (0..side).map(|i| f32::from(u8::from(range.contains(&i)))).collect()
        };
        Self { columns: inside(columns), rows: inside(rows) }
    }
}

impl Canvas {
    /// An empty band at the top of a scene.
    pub fn new(width: u32, height: u32) -> Self {
        let (width, height) = (width as usize, height as usize);
        Self { width, height, top: 0, sums: vec![[0.0; 5]; width * height] }
    }

    /// Adds a window whose top left corner lies at `corner` of the scene. `uncertainty` has one value per token.
    pub fn add(&mut self, corner: (u32, u32), picture: &Picture, uncertainty: &[f32], fade: &Fade) {
        let side = picture.width() as usize;
        let tokens = uncertainty.len().isqrt();
        let pixels = picture.rgb().as_chunks::<3>().0;
        let top = (corner.1 - self.top) as usize;
        for y in 0..side {
            let start = (top + y) * self.width + corner.0 as usize;
            for (x, sums) in self.sums[start..start + side].iter_mut().enumerate() {
                let weight = fade.columns[x] * fade.rows[y];
                let undecided = uncertainty[y * tokens / side * tokens + x * tokens / side];
                let [r, g, b] = pixels[y * side + x].map(f32::from);
                let values = [r, g, b, 255.0 * undecided, 1.0];
                sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += weight * value);
            }
        }
    }

    /// What lies in a window so far, and where it is still empty.
    pub fn window(&self, corner: (u32, u32), side: u32) -> (Picture, Mask) {
        let top = (corner.1 - self.top) as usize;
        let mut rgb = Vec::with_capacity((side * side) as usize * 3);
        let mut open = Vec::with_capacity((side * side) as usize);
        for y in 0..side as usize {
            let start = (top + y) * self.width + corner.0 as usize;
            for sums in &self.sums[start..start + side as usize] {
                rgb.extend(colour(sums));
                open.push(sums[4] == 0.0);
            }
        }
        let picture = Picture::new(side, side, rgb).expect("three bytes a pixel");
        (picture, Mask::new(side, side, open).expect("a square"))
    }

    /// Takes the first `rows` rows off, as a picture and the uncertainty as a grey one; the band moves down by them.
    pub fn take(&mut self, rows: u32) -> (Picture, Picture) {
        let count = rows as usize * self.width;
        let done = &self.sums[..count];
        let whole =
            |bytes: Vec<u8>| Picture::new(self.width as u32, rows, bytes).expect("three bytes a pixel");
        let taken = (
            whole(done.iter().flat_map(colour).collect()),
            whole(done.iter().flat_map(|sums| [mean_byte(sums[3], sums[4]); 3]).collect()),
        );
        self.sums.copy_within(count.., 0);
        let kept = (self.height - rows as usize) * self.width;
        self.sums[kept..].fill([0.0; 5]);
        self.top += rows;
        taken
    }
}

fn colour(&[r, g, b, _, weight]: &[f32; 5]) -> [u8; 3] {
    [r, g, b].map(|sum| mean_byte(sum, weight))
}

/// A weighted mean; 0 where nothing lies.
pub(crate) fn mean_byte(sum: f32, weight: f32) -> u8 {
    (sum / weight.max(f32::MIN_POSITIVE)).round().clamp(0.0, 255.0) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cross_fading_equal_windows_changes_nothing() {
        let mut canvas = Canvas::new(12, 8);
        let picture = Picture::filled(8, 8, [10, 200, 90]);
        canvas.add((0, 0), &picture, &[0.4; 4], &Fade::even(8));
        canvas.add((4, 0), &picture, &[0.4; 4], &Fade::even(8));
        let (made, uncertainty) = canvas.take(8);
        assert_eq!(made, Picture::filled(12, 8, [10, 200, 90]));
        assert_eq!(uncertainty, Picture::filled(12, 8, [102; 3]));
    }

    #[test]
    fn a_band_moves_down_and_keeps_what_is_not_finished() {
        let mut canvas = Canvas::new(4, 4);
        let striped = Picture::drawn(4, 4, |_, y| [10 + y as u8; 3]);
        canvas.add((0, 0), &striped, &[0.0], &Fade::even(4));
        assert_eq!(canvas.take(3).0, striped.crop(0, 0, 4, 3));
        let (seen, open) = canvas.window((0, 3), 4);
        assert_eq!(seen.pixel(1, 0), [13; 3]);
        assert!((0..4).all(|x| !open.is_hole(x, 0) && open.is_hole(x, 1)));
        canvas.add((0, 3), &Picture::filled(4, 4, [99; 3]), &[1.0], &Fade::cropped(4, &(0..4), &(1..4)));
        let (made, uncertainty) = canvas.take(4);
        assert_eq!((made.pixel(0, 0), made.pixel(0, 1)), ([13; 3], [99; 3]));
        assert_eq!((uncertainty.pixel(0, 0), uncertainty.pixel(0, 3)), ([0; 3], [255; 3]));
    }

    #[test]
    fn cropped_windows_do_not_mix() {
        let mut canvas = Canvas::new(6, 4);
        canvas.add((0, 0), &Picture::filled(4, 4, [1; 3]), &[0.0], &Fade::cropped(4, &(0..3), &(0..4)));
        canvas.add((2, 0), &Picture::filled(4, 4, [5; 3]), &[0.0], &Fade::cropped(4, &(1..4), &(0..4)));
        let (made, _) = canvas.take(4);
        assert_eq!((0..6).map(|x| made.pixel(x, 2)[0]).collect::<Vec<_>>(), [1, 1, 1, 5, 5, 5]);
    }
}
