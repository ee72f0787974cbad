//! Whether one sees where windows were joined.

use earthmapper_geo::Picture;

/// Mean absolute step between neighbouring pixels across borders of windows, over the mean elsewhere: 1 when borders do
/// not show, more when they do.
///
/// A border in `columns` lies between the pixels before and at that position; likewise in `rows`. The three channels
/// count alike. `None` when there is no border or the picture is flat elsewhere.
pub fn seam_ratio(picture: &Picture, columns: &[u32], rows: &[u32]) -> Option<f64> {
    let (mut across, mut inside) = (Mean::default(), Mean::default());
    let step =
        |a: [u8; 3], b: [u8; 3]| -> f64 { a.iter().zip(b).map(|(a, b)| f64::from(a.abs_diff(b))).sum() };
    for y in 0..picture.height() {
        for x in 0..picture.width() {
            if x > 0 {
                let mean = if columns.contains(&x) { &mut across } else { &mut inside };
                mean.add(step(picture.pixel(x - 1, y), picture.pixel(x, y)));
            }
            if y > 0 {
                let mean = if rows.contains(&y) { &mut across } else { &mut inside };
                mean.add(step(picture.pixel(x, y - 1), picture.pixel(x, y)));
            }
        }
    }
    (across.count > 0 && inside.sum > 0.0).then(|| across.value() / inside.value())
}

#[derive(Default)]
struct Mean {
    sum: f64,
    count: u64,
}

impl Mean {
    fn add(&mut self, value: f64) {
        self.sum += value;
        self.count += 1;
    }

    fn value(&self) -> f64 {
        self.sum / self.count as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_at_a_border_shows_and_one_elsewhere_hides() {
        let even = Picture::drawn(64, 64, |x, y| [(x + y) as u8; 3]);
        assert_eq!(seam_ratio(&even, &[32], &[16, 48]), Some(1.0));
        let cut = Picture::drawn(64, 64, |x, y| [(x + y) as u8 + if x < 32 { 0 } else { 9 }; 3]);
        assert_eq!(seam_ratio(&cut, &[32], &[]), Some(10.0));
        assert!(seam_ratio(&cut, &[20], &[]).unwrap() < 1.0);
        assert_eq!(seam_ratio(&cut, &[], &[]), None);
        assert_eq!(seam_ratio(&Picture::filled(8, 8, [3; 3]), &[4], &[]), None);
    }
}
