//! Filling outlines so that it does not matter which part of the map is drawn: [`Canvas`].
//!
//! Pixels are counted over the whole world at one zoom. Every corner is rounded to 1/256 of such a pixel, every edge is
//! cut where it crosses the border of a tile, and what lies outside the canvas is moved onto its border, which leaves
//! the inside as it is. All three depend on the map alone, never on the canvas. So a tile drawn by itself equals the
//! same pixels of a larger picture to the last bit; the rasteriser of tiny-skia, which would cut edges elsewhere and
//! round them again, never has to.

use tiny_skia::{Color, FillRule, Paint, Path, PathBuilder, Pixmap, Transform};

use super::feature::{Point, WorldBox};
use crate::picture::Picture;

/// Steps per pixel: those of the rasteriser, which computes in 1/64 of a quarter of a pixel.
const STEPS: i64 = 256;

/// How far from the corner of the world a point can lie, in steps: past it, points are moved nearer. It is 8 times the
/// world at zoom 30 with tiles of 512 pixels, and far from what 64 bits can hold.
const FARTHEST: f64 = (1_u64 << 50) as f64;

/// A rectangle of whole tiles, in pixels of the world.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Frame {
    /// Pixels from 180° west and from the northern edge to the upper left corner.
    pub(super) corner: [i64; 2],
    /// Width and height in pixels.
    pub(super) size: [u32; 2],
    /// The side of a tile in pixels; corner and size are multiples of it.
    pub(super) tile_side: u32,
}

impl Frame {
    fn edges(&self, axis: usize) -> (i64, i64) {
        let start = self.corner[axis] * STEPS;
        (start, start + i64::from(self.size[axis]) * STEPS)
    }
}

/// Outlines to be filled together: the area is that of all of them, and what lies in several is filled once.
pub(super) struct Outlines {
    frame: Frame,
    path: PathBuilder,
    corners: Vec<[i64; 2]>,
    cuts: Vec<[i64; 2]>,
}

impl Outlines {
    pub(super) fn new(frame: Frame) -> Self {
        Self { frame, path: PathBuilder::new(), corners: Vec::new(), cuts: Vec::new() }
    }

    /// Whether something inside a box, in pixels of the world, may be seen.
    pub(super) fn may_hold(&self, bounds: &WorldBox) -> bool {
        // A pixel for the rounding of corners.
        (0..2).all(|axis| {
            let (first, length) = (self.frame.corner[axis] as f64, f64::from(self.frame.size[axis]));
            bounds.max[axis] >= first - 1.0 && bounds.min[axis] <= first + length + 1.0
        })
    }

    /// Adds a closed ring of points in pixels of the world.
    pub(super) fn add(&mut self, ring: impl IntoIterator<Item = Point>) {
        self.corners.clear();
        self.corners.extend(ring.into_iter().map(|point| point.map(rounded)));
        self.corners.dedup();
        let misses = |axis: usize| {
            let (first, last) = self.frame.edges(axis);
            self.corners.iter().all(|corner| corner[axis] <= first)
                || self.corners.iter().all(|corner| corner[axis] >= last)
        };
        if self.corners.len() < 3 || misses(0) || misses(1) {
            return;
        }
        let mut pen = Pen { frame: self.frame, path: &mut self.path, last: None };
        for (index, corner) in self.corners.iter().enumerate() {
            let next = self.corners[(index + 1) % self.corners.len()];
            pen.draw_to(*corner);
            cut(*corner, next, &self.frame, &mut self.cuts);
            self.cuts.iter().for_each(|cut| pen.draw_to(*cut));
        }
        if pen.last.is_some() {
            self.path.close();
        }
    }

    fn finish(self) -> Option<Path> {
        self.path.finish()
    }
}

/// Draws lines to points that are moved into the frame.
struct Pen<'a> {
    frame: Frame,
    path: &'a mut PathBuilder,
    last: Option<[i64; 2]>,
}

impl Pen<'_> {
    fn draw_to(&mut self, point: [i64; 2]) {
        let inside = [0, 1].map(|axis| {
            let (first, last) = self.frame.edges(axis);
            point[axis].clamp(first, last) - first
        });
        let [x, y] = inside.map(|steps| steps as f32 / STEPS as f32);
        match self.last {
            None => self.path.move_to(x, y),
            Some(last) if last == inside => {}
            Some(_) => self.path.line_to(x, y),
        }
        self.last = Some(inside);
    }
}

/// Pixels as steps. What is no number (no source gives any) becomes 0.
fn rounded(pixels: f64) -> i64 {
    (pixels * STEPS as f64).clamp(-FARTHEST, FARTHEST).round() as i64
}

/// Where an edge crosses the borders of tiles inside the frame, in the order of the edge.
fn cut(from: [i64; 2], to: [i64; 2], frame: &Frame, cuts: &mut Vec<[i64; 2]>) {
    cuts.clear();
    // An edge and its reverse must be cut in the same points.
    let (a, b) = if from <= to { (from, to) } else { (to, from) };
    let step = i64::from(frame.tile_side) * STEPS;
    for axis in 0..2 {
        let (near, far) = (a[axis].min(b[axis]), a[axis].max(b[axis]));
        let (first, last) = frame.edges(axis);
        let mut line = first.max(near.div_euclid(step) * step + step);
        while line < far && line <= last {
            cuts.push(crossing(a, b, axis, line));
            line += step;
        }
    }
    let way = |point: &[i64; 2]| (point[0] - from[0]).abs() + (point[1] - from[1]).abs();
    cuts.sort_by_key(way);
}

/// The point of an edge whose coordinate on one axis is given.
fn crossing(a: [i64; 2], b: [i64; 2], axis: usize, line: i64) -> [i64; 2] {
    let other = 1 - axis;
    let along = i128::from(line - a[axis]) * i128::from(b[other] - a[other]);
    let length = i128::from(b[axis] - a[axis]);
    // Rounded to the nearest: floor((2 · along + length) / (2 · length)).
    let across = (2 * along + length).div_euclid(2 * length) as i64;
    let mut point = [line; 2];
    point[other] = a[other] + across;
    point
}

/// Pixels that are drawn on.
pub(super) struct Canvas {
    frame: Frame,
    pixels: Pixmap,
}

impl Canvas {
    /// A canvas of one colour.
    pub(super) fn new(frame: Frame, colour: [u8; 3]) -> Self {
        let [width, height] = frame.size;
        let mut pixels = Pixmap::new(width, height).expect("the size was checked");
        pixels.fill(opaque(colour));
        Self { frame, pixels }
    }

    /// Fills the area of outlines.
    pub(super) fn fill(&mut self, colour: [u8; 3], outlines: Outlines) {
        debug_assert_eq!(self.frame, outlines.frame);
        let Some(path) = outlines.finish() else { return };
        let mut paint = Paint::default();
        paint.set_color(opaque(colour));
        self.pixels.fill_path(&path, &paint, FillRule::Winding, Transform::identity(), None);
    }

    /// The pixels as a picture.
    pub(super) fn into_picture(self) -> Picture {
        let rgb = self.pixels.pixels().iter().flat_map(|pixel| [pixel.red(), pixel.green(), pixel.blue()]);
        Picture::new(self.pixels.width(), self.pixels.height(), rgb.collect()).expect("three bytes per pixel")
    }
}

fn opaque([red, green, blue]: [u8; 3]) -> Color {
    Color::from_rgba8(red, green, blue, u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIDE: u32 = 16;

    fn frame(column: i64, row: i64, columns: u32, rows: u32) -> Frame {
        let side = i64::from(SIDE);
        Frame { corner: [column * side, row * side], size: [columns * SIDE, rows * SIDE], tile_side: SIDE }
    }

    fn drawn(frame: Frame, rings: &[Vec<Point>]) -> Picture {
        let mut outlines = Outlines::new(frame);
        rings.iter().for_each(|ring| outlines.add(ring.iter().copied()));
        let mut canvas = Canvas::new(frame, [255; 3]);
        canvas.fill([0; 3], outlines);
        canvas.into_picture()
    }

    /// Triangles of all sizes about a block of 3 × 3 tiles, some far away.
    fn triangles() -> Vec<Vec<Point>> {
        let mut state = 7_u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1_u64 << 53) as f64
        };
        let mut point = |spread: f64| [(random() - 0.5) * spread + 24.0, (random() - 0.5) * spread + 24.0];
        let triangle = |spread| (0..3).map(|_| point(spread)).collect();
        [20.0, 40.0, 100.0, 1e4, 1e9].repeat(6).into_iter().map(triangle).collect()
    }

    #[test]
    fn a_block_equals_its_tiles() {
        for triangle in triangles() {
            let whole = drawn(frame(0, 0, 3, 3), std::slice::from_ref(&triangle));
            for (column, row) in (0..3).flat_map(|row| (0..3).map(move |column| (column, row))) {
                let tile = drawn(frame(column.into(), row.into(), 1, 1), std::slice::from_ref(&triangle));
                assert_eq!(tile, whole.crop(column * SIDE, row * SIDE, SIDE, SIDE), "{triangle:?}");
            }
        }
    }

    #[test]
    fn shared_borders_vanish_and_holes_stay() {
        let square = |min: f64, max: f64| vec![[min, 1.0], [max, 1.0], [max, 15.0], [min, 15.0]];
        let halves = [square(1.3, 7.6), square(7.6, 14.5)];
        let whole = drawn(frame(0, 0, 1, 1), &[square(1.3, 14.5)]);
        assert_eq!(drawn(frame(0, 0, 1, 1), &halves), whole);
        let hole = vec![[4.0, 4.0], [4.0, 8.0], [8.0, 8.0], [8.0, 4.0]];
        let pierced = drawn(frame(0, 0, 1, 1), &[square(1.0, 15.0), hole]);
        assert_eq!((pierced.pixel(5, 5), pierced.pixel(2, 5)), ([255; 3], [0; 3]));
    }

    #[test]
    fn what_is_no_number_or_too_far_draws_nothing_wrong() {
        let strange = vec![[f64::NAN, 0.0], [f64::INFINITY, f64::NEG_INFINITY], [3.0, f64::NAN]];
        drawn(frame(0, 0, 1, 1), &[strange]);
        let huge = vec![[-1e300, -1e300], [1e300, -1e300], [1e300, 1e300], [-1e300, 1e300]];
        assert_eq!(drawn(frame(0, 0, 1, 1), &[huge]), Picture::filled(SIDE, SIDE, [0; 3]));
    }
}
