//! Roads, give or take a few pixels: precision, recall and F1 of road pixels.
//!
//! A road on a map at 256 pixels is two to four pixels wide, so that a road moved by one pixel (or anti-aliased
//! differently) loses half its intersection over union though any reader would call it right. Here a predicted road
//! pixel is right when a true one lies within [`ROAD_TOLERANCE`], and a true one is found when a predicted one does.

use super::{ClassMap, MetricsError, Palette, TolerantMatches};

/// How far a road may be off, in pixels, counted along the worse of the two axes (a square of 5 × 5 pixels).
pub const ROAD_TOLERANCE: usize = 2;

/// Road pixels within a tolerance: precision, recall and F1.
pub type RoadMatches = TolerantMatches;

impl RoadMatches {
    /// Compares the pixels of all road classes together: a highway drawn as a road is still a road.
    ///
    /// # Errors
    ///
    /// [`MetricsError::SizeMismatch`].
    pub fn between(
        palette: &Palette,
        prediction: &ClassMap,
        truth: &ClassMap,
        tolerance: usize,
    ) -> Result<Self, MetricsError> {
        prediction.check_size(truth)?;
        let size = (truth.width() as usize, truth.height() as usize);
        let (prediction, truth) = (road_pixels(palette, prediction), road_pixels(palette, truth));
        let near = |pixels: &[bool]| dilated(pixels, size, tolerance);
        Ok(Self::of(&prediction, &truth, near))
    }
}

/// Which pixels belong to any road class.
pub(super) fn road_pixels(palette: &Palette, map: &ClassMap) -> Vec<bool> {
    map.classes().iter().map(|&class| palette.classes()[usize::from(class)].is_road).collect()
}

/// True where `pixels` holds a true one within `tolerance` along both axes.
fn dilated(pixels: &[bool], (width, height): (usize, usize), tolerance: usize) -> Vec<bool> {
    // A square is a row of columns: spread along the rows, then along the columns.
    let mut rows = vec![false; pixels.len()];
    for (source, target) in pixels.chunks_exact(width).zip(rows.chunks_exact_mut(width)) {
        for x in (0..width).filter(|&x| source[x]) {
            target[x.saturating_sub(tolerance)..(x + tolerance + 1).min(width)].fill(true);
        }
    }
    let mut square = vec![false; pixels.len()];
    for y in 0..height {
        for near in y.saturating_sub(tolerance)..(y + tolerance + 1).min(height) {
            let source = &rows[near * width..(near + 1) * width];
            let target = &mut square[y * width..(y + 1) * width];
            target.iter_mut().zip(source).for_each(|(target, &source)| *target |= source);
        }
    }
    square
}

#[cfg(test)]
mod tests {
    use super::*;
    use earthmapper_geo::picture::Picture;

    fn matches(prediction: &Picture, truth: &Picture) -> RoadMatches {
        let palette = Palette::new_york();
        let (prediction, truth) = (palette.classify(prediction), palette.classify(truth));
        RoadMatches::between(&palette, &prediction, &truth, ROAD_TOLERANCE).unwrap()
    }

    fn land_with_road(road: impl Fn(u32, u32) -> bool) -> Picture {
        Picture::drawn(20, 10, |x, y| if road(x, y) { [255; 3] } else { [233, 229, 220] })
    }

    #[test]
    fn two_pixels_off_is_right_and_three_is_wrong() {
        let truth = land_with_road(|_, y| y == 5);
        assert_eq!(matches(&land_with_road(|_, y| y == 7), &truth).f1(), Some(1.0));
        assert_eq!(matches(&land_with_road(|_, y| y == 3), &truth).f1(), Some(1.0));
        assert_eq!(matches(&land_with_road(|_, y| y == 8), &truth).f1(), Some(0.0));
    }

    #[test]
    fn diagonal_distance_counts_along_the_worse_axis() {
        let truth = land_with_road(|x, y| (x, y) == (10, 5));
        assert_eq!(matches(&land_with_road(|x, y| (x, y) == (12, 7)), &truth).f1(), Some(1.0));
        assert_eq!(matches(&land_with_road(|x, y| (x, y) == (13, 5)), &truth).f1(), Some(0.0));
    }

    #[test]
    fn half_a_road_has_full_precision_and_part_of_the_recall() {
        let found = matches(&land_with_road(|x, y| y == 5 && x < 10), &land_with_road(|_, y| y == 5));
        assert_eq!((found.precision(), found.recall()), (Some(1.0), Some(12.0 / 20.0)));
        assert!((found.f1().unwrap() - 0.75).abs() < 1e-12);
    }

    #[test]
    fn a_highway_is_a_road() {
        let highway = Picture::drawn(20, 10, |_, y| if y == 5 { [251, 158, 37] } else { [233, 229, 220] });
        assert_eq!(matches(&highway, &land_with_road(|_, y| y == 5)).f1(), Some(1.0));
    }

    #[test]
    fn no_roads_at_all_is_no_score() {
        let (land, road) = (land_with_road(|_, _| false), land_with_road(|_, y| y == 5));
        assert_eq!(matches(&land, &land).f1(), None);
        assert_eq!(matches(&land, &road).f1(), Some(0.0));
        assert_eq!(matches(&road, &land).f1(), Some(0.0));
        let one = Picture::filled(1, 1, [255; 3]);
        assert_eq!(matches(&one, &one).f1(), Some(1.0));
    }
}
