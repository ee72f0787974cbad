//! Road skeletons: completeness, correctness and quality of a road network (Wiedemann et al. 1998).
//!
//! Road pixels count wide roads more than narrow ones. Here each side is thinned to lines one pixel wide first, so that a
//! metre of highway counts as much as a metre of street.

use super::matches::within;
use super::roads::road_pixels;
use super::{ClassMap, MetricsError, Palette, TolerantMatches};

/// How far the middle of a road may be off, in pixels, in a straight line.
pub const SKELETON_TOLERANCE: usize = 3;

/// Compares the skeletons of all road classes together.
///
/// With S and S′ the skeletons of truth and prediction and lengths counted in pixels, the recall is the completeness
/// `|{p ∈ S: d(p, S′) ≤ tolerance}| / |S|`, the precision the correctness `|{p ∈ S′: d(p, S) ≤ tolerance}| / |S′|`, and
/// [`TolerantMatches::quality`] the matched prediction ÷ (prediction + unmatched truth). What matches is decided by the
/// distance alone, not by the direction of the road. A diagonal step counts as one pixel, as a straight one does.
///
/// # Errors
///
/// [`MetricsError::SizeMismatch`].
pub fn road_skeleton_matches(
    palette: &Palette,
    prediction: &ClassMap,
    truth: &ClassMap,
    tolerance: usize,
) -> Result<TolerantMatches, MetricsError> {
    prediction.check_size(truth)?;
    let size = (truth.width() as usize, truth.height() as usize);
    let skeleton = |map: &ClassMap| thinned(road_pixels(palette, map), size);
    let (prediction, truth) = (skeleton(prediction), skeleton(truth));
    Ok(TolerantMatches::of(&prediction, &truth, |pixels| within(pixels, size, tolerance)))
}

/// Lines one pixel wide in the middle of the marked areas, by the algorithm of Guo and Hall (1989, A1): pixels are taken off
/// the west and the east in turn as long as that leaves areas connected, even by corners, and ends in place. Thin
/// diagonal lines and small squares do not vanish, as they can by that of Zhang and Suen. Nothing is marked beyond the
/// picture.
///
/// # Panics
///
/// When there are not `width · height` pixels.
pub fn thinned(mut pixels: Vec<bool>, (width, height): (usize, usize)) -> Vec<bool> {
    assert_eq!(pixels.len(), width * height, "{width} × {height} pixels");
    let mut changed = true;
    while changed {
        changed = false;
        for pass in [Pass::West, Pass::East] {
            // All of a pass are judged before any is taken.
            let taken: Vec<usize> = (0..pixels.len())
                .filter(|&at| pixels[at] && is_peelable(neighbours(&pixels, at, width), pass))
                .collect();
            changed |= !taken.is_empty();
            taken.into_iter().for_each(|at| pixels[at] = false);
        }
    }
    pixels
}

#[derive(Clone, Copy)]
enum Pass {
    West,
    East,
}

/// The eight neighbours clockwise from the north.
fn neighbours(pixels: &[bool], at: usize, width: usize) -> [bool; 8] {
    let (x, y) = (at % width, at / width);
    [(0, -1), (1, -1), (1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1)].map(
        |(right, down): (isize, isize)| match (
            x.checked_add_signed(right).filter(|x| *x < width),
            y.checked_add_signed(down),
        ) {
            (Some(x), Some(y)) => pixels.get(y * width + x).copied().unwrap_or(false),
            _ => false,
        },
    )
}

/// Whether a pixel with these neighbours goes in this pass.
fn is_peelable([n, ne, e, se, s, sw, w, nw]: [bool; 8], pass: Pass) -> bool {
    let count = |places: [bool; 4]| places.into_iter().filter(|&place| place).count();
    // How many parts the neighbours fall into without the pixel, where corners connect.
    let parts = count([!n && (ne || e), !e && (se || s), !s && (sw || w), !w && (nw || n)]);
    // Two neighbours side by side count once, so that the corner at the end of a thick line is no end.
    let marked = count([nw || n, ne || e, se || s, sw || w]).min(count([n || ne, e || se, s || sw, w || nw]));
    let covered = match pass {
        Pass::West => w && (s || sw || !nw),
        Pass::East => e && (n || ne || !se),
    };
    parts == 1 && (2..=3).contains(&marked) && !covered
}

#[cfg(test)]
mod tests {
    use earthmapper_geo::picture::Picture;

    use super::*;

    fn drawn(rows: &[&str]) -> (Vec<bool>, (usize, usize)) {
        (
            rows.iter().flat_map(|row| row.bytes().map(|byte| byte == b'#')).collect(),
            (rows[0].len(), rows.len()),
        )
    }

    fn count(pixels: &[bool]) -> usize {
        pixels.iter().filter(|&&marked| marked).count()
    }

    #[test]
    fn a_bar_becomes_its_middle_line() {
        let (pixels, size) = drawn(&[
            "..............",
            ".############.",
            ".############.",
            ".############.",
            "..............",
        ]);
        let found = thinned(pixels, size);
        assert!(found.iter().enumerate().all(|(at, &marked)| !marked || at / 14 == 2), "off the middle");
        assert!((9..=11).contains(&count(&found)));
        assert_eq!(thinned(found.clone(), size), found);
    }

    #[test]
    fn a_crossing_and_a_ring_stay_connected() {
        let cross: Vec<bool> =
            (0..41 * 41).map(|at: usize| (at % 41).abs_diff(20) < 3 || (at / 41).abs_diff(20) < 3).collect();
        let ring: Vec<bool> = (0..41 * 41)
            .map(|at: usize| {
                let square = (at % 41).abs_diff(20).pow(2) + (at / 41).abs_diff(20).pow(2);
                (100..225).contains(&square)
            })
            .collect();
        for (name, pixels) in [("cross", &cross), ("ring", &ring)] {
            let found = thinned(pixels.clone(), (41, 41));
            assert!(count(&found) < count(pixels) / 3, "{name}");
            assert_eq!(parts(&found, 41), 1, "{name}");
        }
        // What a ring encloses stays enclosed.
        let background: Vec<bool> = thinned(ring, (41, 41)).iter().map(|&marked| !marked).collect();
        assert_eq!(cross_parts(&background, 41), 2);
    }

    #[test]
    fn thin_diagonals_and_small_squares_remain() {
        let diagonal: Vec<bool> =
            (0..30 * 30).map(|at: usize| matches!(at % 30 + 30 - at / 30, 30 | 31)).collect();
        let found = thinned(diagonal.clone(), (30, 30));
        assert!(count(&found) >= 28, "{} of {}", count(&found), count(&diagonal));
        assert_eq!(parts(&found, 30), 1);
        let (square, size) = drawn(&["....", ".##.", ".##.", "...."]);
        assert!(count(&thinned(square, size)) >= 1);
    }

    /// Number of parts connected by eight neighbours.
    fn parts(pixels: &[bool], width: usize) -> usize {
        count_parts(pixels, width, &[(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1)])
    }

    /// Number of parts connected by four neighbours.
    fn cross_parts(pixels: &[bool], width: usize) -> usize {
        count_parts(pixels, width, &[(1, 0), (-1, 0), (0, 1), (0, -1)])
    }

    fn count_parts(pixels: &[bool], width: usize, steps: &[(isize, isize)]) -> usize {
        let mut left = pixels.to_vec();
        let mut parts = 0;
        while let Some(start) = left.iter().position(|&marked| marked) {
            parts += 1;
            let mut open = vec![start];
            left[start] = false;
            while let Some(at) = open.pop() {
                for &(right, down) in steps {
                    let x = (at % width).checked_add_signed(right).filter(|x| *x < width);
                    let y = (at / width).checked_add_signed(down).filter(|y| *y < pixels.len() / width);
                    if let (Some(x), Some(y)) = (x, y)
                        && std::mem::take(&mut left[y * width + x])
                    {
                        open.push(y * width + x);
                    }
                }
            }
        }
        parts
    }

    fn matches(prediction: &Picture, truth: &Picture) -> TolerantMatches {
        let palette = Palette::new_york();
        let (prediction, truth) = (palette.classify(prediction), palette.classify(truth));
        road_skeleton_matches(&palette, &prediction, &truth, SKELETON_TOLERANCE).unwrap()
    }

    #[test]
    fn the_width_of_a_road_does_not_count_and_its_place_does() {
        let road = |middle: u32, half: u32| {
            Picture::drawn(60, 40, |_, y| if y.abs_diff(middle) <= half { [255; 3] } else { [233, 229, 220] })
        };
        let wide = matches(&road(20, 3), &road(20, 1));
        assert_eq!((wide.precision(), wide.recall(), wide.quality()), (Some(1.0), Some(1.0), Some(1.0)));
        assert_eq!(matches(&road(23, 1), &road(20, 1)).f1(), Some(1.0));
        assert_eq!(matches(&road(24, 1), &road(20, 1)).f1(), Some(0.0));
        assert_eq!(matches(&Picture::filled(60, 40, [233, 229, 220]), &road(20, 1)).quality(), Some(0.0));
    }
}
