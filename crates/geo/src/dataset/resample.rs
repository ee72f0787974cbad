//! Pixels of a source on the grid of a pair.

use crate::picture::{Mask, Picture};

/// Pieces a side in which the way from a pair to its source is taken as straight.
const PIECES: u32 = 8;

/// The most samples a side that are averaged for one pixel.
const MOST_SAMPLES: u32 = 8;

/// A picture, and where it has no data; there it is white.
#[derive(Clone, Debug)]
pub(super) struct Patch {
    pub picture: Picture,
    pub holes: Mask,
}

/// Where the pixels of a square lie in a source: positions at the nodes of a coarse grid, straight between them.
pub(super) struct Mapping {
    side: f64,
    nodes: Vec<(f64, f64)>,
}

impl Mapping {
    /// `position` gives the source's position, in its pixels from its top left corner, for one of a square of `side`
    /// pixels.
    pub fn new<E>(side: u32, mut position: impl FnMut(f64, f64) -> Result<(f64, f64), E>) -> Result<Self, E> {
        let node = |index: u32| f64::from(index * side) / f64::from(PIECES);
        let nodes = (0..=PIECES).flat_map(|row| (0..=PIECES).map(move |column| (node(column), node(row))));
        let nodes = nodes.map(|(x, y)| position(x, y)).collect::<Result<_, _>>()?;
        Ok(Self { side: f64::from(side), nodes })
    }

    /// The same with other numbers for the source's positions, such as those of an overview.
    pub fn mapped(mut self, change: impl Fn((f64, f64)) -> (f64, f64)) -> Self {
        self.nodes.iter_mut().for_each(|node| *node = change(*node));
        self
    }

    fn at(&self, x: f64, y: f64) -> (f64, f64) {
        let piece = |position: f64| {
            let position = position / self.side * f64::from(PIECES);
            let index = position.floor().clamp(0.0, f64::from(PIECES - 1));
            (index as usize, position - index)
        };
        let ((column, right), (row, down)) = (piece(x), piece(y));
        let node = |column: usize, row: usize| self.nodes[row * (PIECES as usize + 1) + column];
        let blend = |from: (f64, f64), to: (f64, f64), share: f64| {
            (from.0 + (to.0 - from.0) * share, from.1 + (to.1 - from.1) * share)
        };
        let above = blend(node(column, row), node(column + 1, row), right);
        let below = blend(node(column, row + 1), node(column + 1, row + 1), right);
        blend(above, below, down)
    }

    /// Least and greatest position: left, top, right, bottom.
    pub fn extent(&self) -> (f64, f64, f64, f64) {
        let start = (f64::INFINITY, f64::INFINITY, f64::NEG_INFINITY, f64::NEG_INFINITY);
        self.nodes.iter().fold(start, |(left, top, right, bottom), (x, y)| {
            (left.min(*x), top.min(*y), right.max(*x), bottom.max(*y))
        })
    }

    /// Pixels of the source per pixel of the square, along the way that has more.
    pub fn scale(&self) -> f64 {
        let distance = |from: (f64, f64), to: (f64, f64)| (to.0 - from.0).hypot(to.1 - from.1);
        let (first, last) = (self.nodes[0], PIECES as usize);
        distance(first, self.nodes[last]).max(distance(first, self.nodes[(last + 1) * last])) / self.side
    }
}

/// The square, from a part of the source whose first pixel is at `corner`.
pub(super) fn resample(part: &Patch, corner: (i64, i64), mapping: &Mapping, side: u32) -> Patch {
    let samples = ((mapping.scale() - 0.01).ceil() as u32).clamp(1, MOST_SAMPLES);
    let step = 1.0 / f64::from(samples);
    let mut holes = Vec::with_capacity((side * side) as usize);
    let picture = Picture::drawn(side, side, |column, row| {
        let (mut sum, mut weight) = ([0.0; 3], 0.0);
        for index in 0..samples * samples {
            let x = f64::from(column) + (f64::from(index % samples) + 0.5) * step;
            let y = f64::from(row) + (f64::from(index / samples) + 0.5) * step;
            let (x, y) = mapping.at(x, y);
            add_sample(part, x - corner.0 as f64 - 0.5, y - corner.1 as f64 - 0.5, &mut sum, &mut weight);
        }
        // A pixel that is mostly of data is data; what holes hide is not mixed in.
        let is_hole = weight < 0.5 * f64::from(samples * samples);
        holes.push(is_hole);
        if is_hole { [255; 3] } else { sum.map(|value| (value / weight).round() as u8) }
    });
    Patch { picture, holes: Mask::new(side, side, holes).expect("one value per pixel") }
}

/// Adds the four pixels around a position (0 is the middle of the first pixel), as far as they have data.
fn add_sample(part: &Patch, x: f64, y: f64, sum: &mut [f64; 3], weight: &mut f64) {
    let (left, top) = (x.floor(), y.floor());
    for (column, row, share) in [
        (left, top, (1.0 - x + left) * (1.0 - y + top)),
        (left + 1.0, top, (x - left) * (1.0 - y + top)),
        (left, top + 1.0, (1.0 - x + left) * (y - top)),
        (left + 1.0, top + 1.0, (x - left) * (y - top)),
    ] {
        let inside = column >= 0.0
            && row >= 0.0
            && column < f64::from(part.picture.width())
            && row < f64::from(part.picture.height());
        if share > 0.0 && inside && !part.holes.is_hole(column as u32, row as u32) {
            let pixel = part.picture.pixel(column as u32, row as u32);
            (0..3).for_each(|channel| sum[channel] += share * f64::from(pixel[channel]));
            *weight += share;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(side: u32, right: f64, down: f64, scale: f64) -> Mapping {
        Mapping::new(side, |x, y| Ok::<_, ()>((x * scale + right, y * scale + down))).unwrap()
    }

    fn numbered(side: u32) -> Patch {
        let picture = Picture::drawn(side, side, |x, y| [x as u8, y as u8, (x * 7 + y * 5) as u8]);
        Patch { holes: Mask::drawn(side, side, |x, y| x == 9 && y < 4), picture }
    }

    #[test]
    fn whole_steps_copy() {
        let part = numbered(24);
        let cut = resample(&part, (100, 200), &mapping(16, 103.000_001, 202.0, 1.0), 16);
        assert_eq!(cut.holes, part.holes.crop(3, 2, 16, 16));
        for (x, y) in [(0, 0), (5, 9), (15, 15)] {
            assert_eq!(cut.picture.pixel(x, y), part.picture.pixel(x + 3, y + 2));
        }
        assert_eq!(cut.picture.pixel(6, 0), [255; 3]);
    }

    #[test]
    fn larger_pixels_are_means_without_holes() {
        let picture = Picture::drawn(32, 32, |x, y| if (x + y) % 2 == 0 { [200; 3] } else { [100; 3] });
        let holes = Mask::drawn(32, 32, |x, y| x < 2 && y < 2 || (x == 31 && y == 31));
        let half = resample(&Patch { picture, holes }, (0, 0), &mapping(16, 0.0, 0.0, 2.0), 16);
        assert_eq!(half.holes.hole_count(), 1);
        assert_eq!(half.picture.pixel(3, 3), [150; 3]);
        assert_eq!(half.picture.pixel(15, 15), [133; 3], "three of four pixels");
    }

    #[test]
    fn outside_are_holes() {
        let cut = resample(&numbered(24), (0, 0), &mapping(16, 16.0, 0.0, 1.0), 16);
        assert_eq!(cut.holes.hole_count(), 8 * 16);
        assert_eq!(mapping(16, 3.0, 4.0, 2.0).extent(), (3.0, 4.0, 35.0, 36.0));
    }
}
