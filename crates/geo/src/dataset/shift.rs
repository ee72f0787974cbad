//! By how much a photograph lies beside its map, from the edges of both.

use rustfft::num_complex::Complex32;
use rustfft::{Fft, FftPlanner};
use serde::{Deserialize, Serialize};

use crate::picture::Picture;

/// Pictures are looked at with at most so many pixels a side.
const SIDE: u32 = 256;

/// Shifts of up to this share of the side are looked for.
const REACH: f64 = 0.125;

/// How much of its strength a frequency keeps: 0 counts all alike (phase correlation, which trusts noise), 1 leaves them
/// as they are (plain correlation, which has broad peaks).
const STRENGTH: f32 = 0.5;

/// Half the side of the square around the peak that does not count as background.
const PEAK: i32 = 4;

/// Where a photograph lies relative to its map.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Shift {
    /// Pixels by which the photograph lies to the right of its map.
    pub right: f64,
    /// Pixels by which it lies below its map.
    pub down: f64,
    /// How far the correlation at this shift stands out from that at all others, in standard deviations.
    pub confidence: f64,
}

impl Shift {
    /// Pixels from where it should lie.
    pub fn length(&self) -> f64 {
        self.right.hypot(self.down)
    }
}

/// Finds the shift of up to an eighth of the side at which the edges of both pictures agree best, to a fraction of a
/// pixel. None when one of them has no edges, or sides of less than 16 pixels.
///
/// A photograph of few edges agrees with its map everywhere a little: see [`Shift::confidence`].
///
/// # Panics
///
/// When the sizes differ.
pub fn find_shift(photograph: &Picture, map: &Picture) -> Option<Shift> {
    let size = (photograph.width(), photograph.height());
    assert_eq!(size, (map.width(), map.height()), "both pictures of a pair have one size");
    let scale = (f64::from(SIDE) / f64::from(size.0.max(size.1))).min(1.0);
    let shrunk = |side: u32| ((f64::from(side) * scale).round() as u32).max(1);
    let (width, height) = (shrunk(size.0), shrunk(size.1));
    if width.min(height) < 16 {
        return None;
    }
    let spectrum = Spectrum::new(width as usize, height as usize);
    let photograph = spectrum.of(edges(&photograph.resized(width, height))?);
    let map = spectrum.of(edges(&map.resized(width, height))?);
    let surface = spectrum.correlation(photograph, &map);
    let found = surface.peak((f64::from(width.min(height)) * REACH) as i32)?;
    Some(Shift { right: found.right / scale, down: found.down / scale, ..found })
}

/// How strongly the colour changes at each pixel, `[height, width]`, fading to nothing at the border and without its
/// mean. None when it changes nowhere.
fn edges(picture: &Picture) -> Option<Vec<f32>> {
    let (width, height) = (picture.width(), picture.height());
    let colour = |x: u32, y: u32| picture.pixel(x.min(width - 1), y.min(height - 1)).map(f32::from);
    let mut strengths = Vec::with_capacity((width * height) as usize);
    for y in 0..height {
        for x in 0..width {
            let before = (colour(x.saturating_sub(1), y), colour(x, y.saturating_sub(1)));
            let after = (colour(x + 1, y), colour(x, y + 1));
            let change = |before: [f32; 3], after: [f32; 3]| -> f32 {
                before.iter().zip(after).map(|(before, after)| (after - before).powi(2)).sum()
            };
            // The fourth root of the squares: a glaring edge counts more than a faint one, but not by its square.
            strengths.push((change(before.0, after.0) + change(before.1, after.1)).sqrt().sqrt());
        }
    }
    let fade = |index: u32, length: u32| {
        let angle = (index as f32 + 0.5) / length as f32 * std::f32::consts::PI;
        angle.sin().powi(2)
    };
    let weight = |index: usize| fade(index as u32 % width, width) * fade(index as u32 / width, height);
    let total: f32 = (0..strengths.len()).map(weight).sum();
    let mean = strengths.iter().enumerate().map(|(index, value)| value * weight(index)).sum::<f32>() / total;
    let faded: Vec<f32> =
        strengths.iter().enumerate().map(|(index, value)| (value - mean) * weight(index)).collect();
    let power: f32 = faded.iter().map(|value| value * value).sum();
    (power > 1e-3).then_some(faded)
}

/// Fourier transforms of pictures of one size.
struct Spectrum {
    width: usize,
    height: usize,
    /// Along rows and along columns, forward and back.
    plans: [std::sync::Arc<dyn Fft<f32>>; 4],
}

impl Spectrum {
    fn new(width: usize, height: usize) -> Self {
        let mut planner = FftPlanner::new();
        let plans = [
            planner.plan_fft_forward(width),
            planner.plan_fft_forward(height),
            planner.plan_fft_inverse(width),
            planner.plan_fft_inverse(height),
        ];
        Self { width, height, plans }
    }

    fn of(&self, values: Vec<f32>) -> Vec<Complex32> {
        let mut values = values.into_iter().map(Complex32::from).collect();
        self.transform(&mut values, 0);
        values
    }

    /// Rows, then columns by way of the transpose.
    fn transform(&self, values: &mut Vec<Complex32>, first: usize) {
        self.plans[first].process(values);
        let mut columns = transposed(values, self.width, self.height);
        self.plans[first + 1].process(&mut columns);
        *values = transposed(&columns, self.height, self.width);
    }

    fn correlation(&self, mut photograph: Vec<Complex32>, map: &[Complex32]) -> Surface {
        for (photograph, map) in photograph.iter_mut().zip(map) {
            let product = *photograph * map.conj();
            let norm = product.norm();
            *photograph = if norm > 0.0 { product * norm.powf(STRENGTH - 1.0) } else { product };
        }
        self.transform(&mut photograph, 2);
        let values = photograph.iter().map(|value| value.re).collect();
        Surface { width: self.width, height: self.height, values }
    }
}

fn transposed(values: &[Complex32], width: usize, height: usize) -> Vec<Complex32> {
    let positions = (0..width).flat_map(|x| (0..height).map(move |y| y * width + x));
    positions.map(|position| values[position]).collect()
}

/// How well both agree, by shift.
struct Surface {
    width: usize,
    height: usize,
    values: Vec<f32>,
}

impl Surface {
    fn at(&self, right: i32, down: i32) -> f64 {
        let x = right.rem_euclid(self.width as i32) as usize;
        let y = down.rem_euclid(self.height as i32) as usize;
        f64::from(self.values[y * self.width + x])
    }

    fn peak(&self, reach: i32) -> Option<Shift> {
        let shifts = || (-reach..=reach).flat_map(|down| (-reach..=reach).map(move |right| (right, down)));
        let value = |(right, down): (i32, i32)| self.at(right, down);
        let best = shifts().max_by(|left, right| value(*left).total_cmp(&value(*right)))?;
        let (mut count, mut sum, mut squares) = (0.0, 0.0, 0.0);
        for shift in shifts() {
            if (shift.0 - best.0).abs() > PEAK || (shift.1 - best.1).abs() > PEAK {
                let value = value(shift);
                (count, sum, squares) = (count + 1.0, sum + value, squares + value * value);
            }
        }
        let mean = sum / count;
        let deviation = (squares / count - mean * mean).max(0.0).sqrt();
        let confidence = (value(best) - mean) / deviation;
        let right = vertex(self.at(best.0 - 1, best.1), value(best), self.at(best.0 + 1, best.1));
        let down = vertex(self.at(best.0, best.1 - 1), value(best), self.at(best.0, best.1 + 1));
        let (right, down) = (f64::from(best.0) + right, f64::from(best.1) + down);
        confidence.is_finite().then_some(Shift { right, down, confidence })
    }
}

/// Where the parabola through three neighbours is highest, within half a step of the middle one.
fn vertex(before: f64, middle: f64, after: f64) -> f64 {
    let bend = before - 2.0 * middle + after;
    if bend < 0.0 { ((before - after) / (2.0 * bend)).clamp(-0.5, 0.5) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Houses on a photograph with grain and shadows, and on a map, `(right, down)` pixels apart.
    pub(crate) fn pair(side: u32, right: i32, down: i32) -> (Picture, Picture) {
        let house = |x: i32, y: i32| {
            let (column, row) = (x.div_euclid(23), y.div_euclid(19));
            let (inside_x, inside_y) = (x.rem_euclid(23), y.rem_euclid(19));
            let seed = (column * 7919 + row * 104_729).unsigned_abs();
            let (left, top) = (2 + (seed % 7) as i32, 2 + (seed / 7 % 5) as i32);
            let (wide, high) = (6 + (seed / 35 % 9) as i32, 5 + (seed / 315 % 8) as i32);
            seed % 3 != 0 && (left..left + wide).contains(&inside_x) && (top..top + high).contains(&inside_y)
        };
        let grain = |x: u32, y: u32| (x * 31 + y * 17 + (x * y) % 13 * 5) % 23;
        let photograph = Picture::drawn(side, side, |x, y| {
            let noise = grain(x, y) as u8;
            let (x, y) = (x as i32 - right, y as i32 - down);
            match (house(x, y), house(x - 2, y - 2)) {
                (true, _) => [150 + noise, 120 + noise, 110 + noise],
                (false, true) => [30 + noise, 35 + noise, 30 + noise],
                _ => [90 + noise, 105 + noise, 70 + noise],
            }
        });
        let map = Picture::drawn(side, side, |x, y| match house(x as i32, y as i32) {
            true => [217, 208, 201],
            false => [242, 239, 233],
        });
        (photograph, map)
    }

    #[test]
    fn shifts_are_found() {
        for (right, down) in [(0, 0), (5, -3), (-12, 9), (20, 20)] {
            let (photograph, map) = pair(256, right, down);
            let found = find_shift(&photograph, &map).unwrap();
            let off = (found.right - f64::from(right)).hypot(found.down - f64::from(down));
            assert!(off < 1.5 && found.confidence > 6.0, "{right}, {down}: {found:?}");
        }
    }

    #[test]
    fn large_pictures_are_measured_in_their_own_pixels() {
        let (photograph, map) = pair(512, 8, -6);
        let found = find_shift(&photograph, &map).unwrap();
        assert!((found.right - 8.0).abs() < 2.0 && (found.down + 6.0).abs() < 2.0, "{found:?}");
        let (photograph, map) = pair(250, 3, 0);
        assert!((find_shift(&photograph, &map).unwrap().right - 3.0).abs() < 1.5);
    }

    #[test]
    fn nothing_agrees_with_nothing() {
        let flat = Picture::filled(64, 64, [9; 3]);
        let (photograph, map) = pair(64, 0, 0);
        assert_eq!(find_shift(&flat, &map), None);
        assert_eq!(find_shift(&photograph, &flat), None);
        let tiny = Picture::filled(8, 8, [9; 3]);
        assert_eq!(find_shift(&tiny, &tiny), None);
        // A map of other houses is no map of these.
        let (photograph, _) = pair(256, 0, 0);
        let (_, elsewhere) = pair(1024, 0, 0);
        let found = find_shift(&photograph, &elsewhere.crop(601, 507, 256, 256)).unwrap();
        let right = find_shift(&photograph, &pair(256, 0, 0).1).unwrap();
        assert!(found.confidence < right.confidence / 1.5, "{found:?} {right:?}");
    }
}
