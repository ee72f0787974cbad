//! Boundaries of map classes, give or take a few pixels (boundary F1, Csurka et al. 2013).
//!
//! Intersection over union is nearly blind to the outline of a large area: a shore that wanders by three pixels costs a
//! lake little. Boundaries are all that is compared here.

use super::matches::within;
use super::{ClassMap, MetricsError, TolerantMatches};

/// How far a boundary may be off, in pixels, in a straight line.
pub const BOUNDARY_TOLERANCE: usize = 2;

/// Compares the boundaries of one class, by its index in the palette.
///
/// A pixel of the class lies on its boundary when one of its four neighbours within the picture is of another class. The
/// picture's rim is no boundary. With B and B′ the boundaries of truth and prediction and d the distance of the nearest
/// pixel of the other: precision `|{p ∈ B′: d(p, B) ≤ tolerance}| / |B′|`, recall `|{p ∈ B: d(p, B′) ≤ tolerance}| / |B|`,
/// F1 their harmonic mean. The score of a picture is that of its counts, the score of a set that of the sum.
///
/// # Errors
///
/// [`MetricsError::SizeMismatch`].
pub fn boundary_matches(
    prediction: &ClassMap,
    truth: &ClassMap,
    class: usize,
    tolerance: usize,
) -> Result<TolerantMatches, MetricsError> {
    prediction.check_size(truth)?;
    let size = (truth.width() as usize, truth.height() as usize);
    let (prediction, truth) = (boundary(prediction, class), boundary(truth, class));
    Ok(TolerantMatches::of(&prediction, &truth, |pixels| within(pixels, size, tolerance)))
}

fn boundary(map: &ClassMap, class: usize) -> Vec<bool> {
    let (width, classes) = (map.width() as usize, map.classes());
    let is_class = |at: usize| usize::from(classes[at]) == class;
    let on_boundary = |at: usize| {
        let x = at % width;
        is_class(at)
            && ((x > 0 && !is_class(at - 1))
                || (x + 1 < width && !is_class(at + 1))
                || (at >= width && !is_class(at - width))
                || (at + width < classes.len() && !is_class(at + width)))
    };
    (0..classes.len()).map(on_boundary).collect()
}

#[cfg(test)]
mod tests {
    use earthmapper_geo::picture::Picture;

    use super::super::Palette;
    use super::*;

    const LAND: [u8; 3] = [233, 229, 220];
    const WATER: [u8; 3] = [179, 209, 254];

    fn lake(left: u32, right: u32) -> ClassMap {
        let map = Picture::drawn(30, 20, |x, y| {
            if (left..right).contains(&x) && (5..15).contains(&y) { WATER } else { LAND }
        });
        Palette::new_york().classify(&map)
    }

    fn water() -> usize {
        Palette::new_york().index("water").unwrap()
    }

    #[test]
    fn a_rectangle_has_its_outline() {
        let found = boundary(&lake(10, 20), water());
        assert_eq!(found.iter().filter(|&&marked| marked).count(), 4 * 10 - 4);
        assert!(found[5 * 30 + 10] && !found[6 * 30 + 11] && !found[4 * 30 + 10]);
        // Where the class meets the rim of the picture, there is none.
        let cut = boundary(&lake(0, 10), water());
        assert_eq!(cut.iter().filter(|&&marked| marked).count(), 10 + 10 + 8);
    }

    #[test]
    fn a_shore_two_pixels_off_is_right_and_three_is_wrong() {
        let score = |prediction: &ClassMap| {
            boundary_matches(prediction, &lake(10, 20), water(), BOUNDARY_TOLERANCE).unwrap()
        };
        assert_eq!(score(&lake(10, 22)).f1(), Some(1.0));
        let off = score(&lake(10, 23));
        // Of the 42 predicted pixels the right side of 10 is 3 px off, but two of its neighbours in each long side are near.
        assert_eq!((off.predicted, off.predicted_near_truth), (42, 32));
        // The true right side: its corners lie on the predicted long sides, two more pixels within two of those.
        assert_eq!((off.truth, off.truth_near_prediction), (36, 36 - 10 + 2 + 4));
    }

    #[test]
    fn a_class_on_one_side_only_scores_nothing_and_on_neither_has_no_score() {
        let (lake, land) = (lake(3, 9), lake(0, 0));
        assert_eq!(boundary_matches(&lake, &land, water(), 2).unwrap().f1(), Some(0.0));
        assert_eq!(boundary_matches(&land, &land, water(), 2).unwrap().f1(), None);
        let other = Palette::new_york().classify(&Picture::filled(2, 2, LAND));
        assert!(boundary_matches(&other, &lake, water(), 2).is_err());
    }
}
