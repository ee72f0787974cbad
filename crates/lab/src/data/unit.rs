//! Pictures as the numbers that networks take.

use earthmapper_geo::picture::Picture;

/// Pictures as `[batch, 3, height, width]` in -1 … 1.
///
/// # Panics
///
/// When the pictures differ in size.
pub fn to_unit(pictures: &[Picture]) -> Vec<f32> {
    let size = |picture: &Picture| (picture.width(), picture.height());
    let mut values = Vec::with_capacity(pictures.iter().map(|picture| picture.rgb().len()).sum());
    for picture in pictures {
        assert_eq!(size(picture), size(&pictures[0]), "the pictures of a batch have one size");
        for channel in 0..3 {
            values.extend(
                picture.rgb().iter().skip(channel).step_by(3).map(|&value| f32::from(value) / 127.5 - 1.0),
            );
        }
    }
    values
}

/// The way back from `[batch, 3, height, width]`: clamped to -1 … 1 and rounded to the nearest of 256 values.
///
/// # Panics
///
/// When there are not `batch · 3 · height · width` values, or a side is 0.
pub fn from_unit(values: &[f32], batch: usize, height: usize, width: usize) -> Vec<Picture> {
    let area = height * width;
    assert_eq!(values.len(), batch * 3 * area, "[{batch}, 3, {height}, {width}] is another number of values");
    // A number that is none becomes 0: `as` saturates.
    let byte = |value: f32| ((value + 1.0) * 127.5).round().clamp(0.0, 255.0) as u8;
    let picture = |planes: &[f32]| {
        let rgb =
            (0..area).flat_map(|at| [0, 1, 2].map(|channel| byte(planes[channel * area + at]))).collect();
        Picture::new(width as u32, height as u32, rgb).expect("three values per pixel")
    };
    values.chunks_exact(3 * area).map(picture).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_comes_back() {
        let first = Picture::drawn(16, 16, |x, y| [(16 * y + x) as u8, x as u8, y as u8]);
        let pictures = [first, Picture::filled(16, 16, [0, 128, 255])];
        let values = to_unit(&pictures);
        assert_eq!(values.len(), 2 * 3 * 256);
        // Channels are planes, rows are next to each other.
        assert_eq!(values[1], 1.0 / 127.5 - 1.0);
        assert_eq!(values[256 + 17], 1.0 / 127.5 - 1.0);
        assert_eq!(values[3 * 256], -1.0);
        assert_eq!(values[5 * 256], 1.0);
        assert_eq!(from_unit(&values, 2, 16, 16), pictures);
    }

    #[test]
    fn values_outside_are_clamped_and_between_are_rounded() {
        let values = [-7.0, 7.0, f32::NAN, 0.0, 1.0 / 127.5 * 0.4, f32::INFINITY];
        let picture = &from_unit(&values, 1, 1, 2)[0];
        assert_eq!(picture.rgb(), [0, 0, 128, 255, 128, 255]);
    }

    #[test]
    fn nothing_is_fine() {
        assert!(to_unit(&[]).is_empty());
        assert!(from_unit(&[], 0, 4, 4).is_empty());
    }
}
