//! Back from the model's scale to the scene's, rows by rows.

use earthmapper_geo::picture::{Picture, PixelArea};

/// Resamples a result that comes in rows. Rows that a filter still reaches are kept.
pub(crate) struct RowResampler {
    /// Size at the model's scale and size wanted.
    from: (u32, u32),
    to: (u32, u32),
    /// The first row that is kept.
    top: u32,
    /// Rows kept, as a picture and its uncertainty.
    kept: Option<(Picture, Picture)>,
    /// Rows given out.
    given: u32,
}

impl RowResampler {
    /// From one size to another.
    pub fn new(from: (u32, u32), to: (u32, u32)) -> Self {
        Self { from, to, top: 0, kept: None, given: 0 }
    }

    /// Takes the next rows; gives the first new row's number and the rows that can be finished, if any.
    pub fn push(
        &mut self,
        picture: &Picture,
        uncertainty: &Picture,
        last: bool,
    ) -> Option<(u32, Picture, Picture)> {
        if self.from == self.to {
            let top = self.given;
            self.given += picture.height();
            return Some((top, picture.clone(), uncertainty.clone()));
        }
        let (picture, uncertainty) = match self.kept.take() {
            None => (picture.clone(), uncertainty.clone()),
            Some((above, above_uncertainty)) => {
                (Picture::vconcat(&[&above, picture]), Picture::vconcat(&[&above_uncertainty, uncertainty]))
            }
        };
        let down = f64::from(self.from.1) / f64::from(self.to.1);
        let reach = 2.0 * down.max(1.0) + 1.0;
        let bottom = self.top + picture.height();
        let end = match last {
            true => self.to.1,
            false => (((f64::from(bottom) - reach) / down).floor().max(0.0) as u32).max(self.given),
        };
        let rows = (end > self.given).then(|| {
            let area = PixelArea {
                x: 0.0,
                y: f64::from(self.given) * down - f64::from(self.top),
                width: f64::from(self.from.0),
                height: f64::from(end - self.given) * down,
            };
            let resampled = |picture: &Picture| picture.resampled(area, self.to.0, end - self.given);
            (self.given, resampled(&picture), resampled(&uncertainty))
        });
        self.given = end;
        let needed = ((f64::from(end) * down - reach).floor().max(0.0) as u32).clamp(self.top, bottom);
        if needed < bottom {
            let rest = |picture: &Picture| picture.crop(0, needed - self.top, self.from.0, bottom - needed);
            self.kept = Some((rest(&picture), rest(&uncertainty)));
        }
        self.top = needed;
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_by_rows_is_as_at_once() {
        let whole =
            Picture::drawn(90, 200, |x, y| [(x * 2) as u8, (y as f32 * 1.2) as u8, ((x ^ y) & 255) as u8]);
        for to in [(37, 83), (90, 200), (201, 450), (1, 1)] {
            let at_once = whole.resized(to.0, to.1);
            for step in [13, 64, 200] {
                let mut resampler = RowResampler::new((90, 200), to);
                let mut made = Vec::new();
                for top in (0..200).step_by(step) {
                    let rows = whole.crop(0, top, 90, (200 - top).min(step as u32));
                    let done = resampler.push(&rows, &rows, top + step as u32 >= 200);
                    if let Some((first, picture, uncertainty)) = done {
                        assert_eq!(first as usize * to.0 as usize * 3, made.len());
                        assert_eq!(picture, uncertainty);
                        made.extend_from_slice(picture.rgb());
                    }
                }
                let worst = made.iter().zip(at_once.rgb()).map(|(a, b)| a.abs_diff(*b)).max();
                assert_eq!(made.len(), at_once.rgb().len());
                assert!(worst <= Some(1), "{to:?}, {step} rows at a time: {worst:?}");
            }
        }
    }
}
