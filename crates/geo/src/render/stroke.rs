//! Lines as areas: every line is covered with convex pieces that all turn the same way, so that any number of lines
//! can be filled together ([`Outlines`]) and crossings, joints and the copies of a line in two vector tiles show no
//! seams.

use super::canvas::Outlines;
use super::clip::inside;
use super::feature::{Point, WorldBox};

/// Points nearer to each other than this, in pixels, are one.
const NEAR: f64 = 1.0 / 512.0;

/// How far the corners of a round cap or joint may miss the circle, in pixels.
const FLATNESS: f64 = 0.05;

/// How a line ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Cap {
    /// With a half circle.
    Round,
    /// At its last point.
    Butt,
}

/// Adds a line to outlines. `points` and `width` are in pixels of the world. Joints are round.
pub(super) fn add_line(outlines: &mut Outlines, points: &[Point], width: f64, cap: Cap) {
    let radius = width / 2.0;
    let mut segments = segments(points);
    let Some(first) = segments.next() else { return };
    if cap == Cap::Round {
        first.add_fan(outlines, first.from, first.normal, first.reversed_normal(), radius);
    }
    first.add_body(outlines, radius);
    let mut last = first;
    for segment in segments {
        segment.add_body(outlines, radius);
        add_joint(outlines, &last, &segment, radius);
        last = segment;
    }
    if cap == Cap::Round {
        last.add_fan(outlines, last.to, last.reversed_normal(), last.normal, radius);
    }
}

/// Adds a broken line: pieces of `dash[0]` pixels with gaps of `dash[1]`, where they may be seen in `window`. The
/// pattern begins with the line, wherever the window is.
pub(super) fn add_dashes(
    outlines: &mut Outlines,
    points: &[Point],
    width: f64,
    dash: [f64; 2],
    window: &WorldBox,
) {
    let radius = width / 2.0;
    let (window, period) = (window.grown(radius), dash[0] + dash[1]);
    let mut start = 0.0;
    for segment in segments(points) {
        let seen = inside(segment.from, segment.to, &window).map(|(from, to)| {
            let number = |share: f64| (start + share * segment.length) / period;
            (number(from).floor() as i64, number(to).ceil() as i64)
        });
        for number in seen.map_or(0..0, |(first, end)| first..end) {
            let begin = number as f64 * period - start;
            let (from, to) = (begin.max(0.0), (begin + dash[0]).min(segment.length));
            if to > from {
                segment.part(from, to).add_body(outlines, radius);
            }
        }
        start += segment.length;
    }
}

/// A straight part of a line.
#[derive(Clone, Copy)]
struct Segment {
    from: Point,
    to: Point,
    length: f64,
    /// The direction turned by a quarter, of length 1.
    normal: Point,
}

fn segments(points: &[Point]) -> impl Iterator<Item = Segment> {
    let mut rest = points.iter().copied();
    let mut from = rest.next();
    std::iter::from_fn(move || {
        let start = from?;
        for to in rest.by_ref() {
            let (x, y) = (to[0] - start[0], to[1] - start[1]);
            let length = x.hypot(y);
            if length > NEAR {
                from = Some(to);
                return Some(Segment { from: start, to, length, normal: [-y / length, x / length] });
            }
        }
        None
    })
}

impl Segment {
    /// The part between two lengths along it.
    fn part(&self, start: f64, end: f64) -> Self {
        let at = |length: f64| {
            let share = length / self.length;
            [0, 1].map(|axis| self.from[axis] + (self.to[axis] - self.from[axis]) * share)
        };
        Self { from: at(start), to: at(end), length: end - start, ..*self }
    }

    fn reversed_normal(&self) -> Point {
        self.normal.map(|value| -value)
    }

    /// The rectangle. Its ends have the points of the line in their middle, so that the pieces beside it share whole
    /// edges with it.
    fn add_body(&self, outlines: &mut Outlines, radius: f64) {
        let (right, left) = (self.normal, self.reversed_normal());
        let beside = |point: Point, normal: Point| beside(point, normal, radius);
        outlines.add([
            beside(self.from, right),
            self.from,
            beside(self.from, left),
            beside(self.to, left),
            self.to,
            beside(self.to, right),
        ]);
    }

    fn add_fan(&self, outlines: &mut Outlines, centre: Point, start: Point, end: Point, radius: f64) {
        add_fan(outlines, centre, start, end, std::f64::consts::PI, radius);
    }
}

/// Fills the wedge on the outer side of a turn.
fn add_joint(outlines: &mut Outlines, before: &Segment, after: &Segment, radius: f64) {
    let (a, b) = (before.normal, after.normal);
    let turn = (a[0] * b[1] - a[1] * b[0]).atan2(a[0] * b[0] + a[1] * b[1]);
    if turn > 0.0 {
        let (start, end) = (before.reversed_normal(), after.reversed_normal());
        add_fan(outlines, after.from, start, end, turn, radius);
    } else if turn < 0.0 {
        add_fan(outlines, after.from, b, a, -turn, radius);
    }
}

/// A piece of a disc from one direction to another by an angle in radians, the way all pieces turn.
fn add_fan(outlines: &mut Outlines, centre: Point, start: Point, end: Point, angle: f64, radius: f64) {
    let widest = 2.0 * (1.0 - FLATNESS / radius.max(2.0 * FLATNESS)).acos();
    let parts = (angle / widest).ceil().clamp(1.0, 64.0) as u32;
    let (sine, cosine) = (angle / f64::from(parts)).sin_cos();
    let mut direction = start;
    let between = (1..parts).map(|_| {
        direction =
            [direction[0] * cosine - direction[1] * sine, direction[0] * sine + direction[1] * cosine];
        beside(centre, direction, radius)
    });
    let arc = std::iter::once(beside(centre, start, radius)).chain(between);
    outlines.add(std::iter::once(centre).chain(arc).chain([beside(centre, end, radius)]));
}

fn beside(point: Point, direction: Point, radius: f64) -> Point {
    [point[0] + direction[0] * radius, point[1] + direction[1] * radius]
}

#[cfg(test)]
mod tests {
    use super::super::canvas::{Canvas, Frame};
    use super::*;
    use crate::picture::Picture;

    fn drawn(lines: &[&[Point]], width: f64, cap: Cap) -> Picture {
        painted(|outlines| lines.iter().for_each(|line| add_line(outlines, line, width, cap)))
    }

    fn painted(add: impl FnOnce(&mut Outlines)) -> Picture {
        let frame = Frame { corner: [0, 0], size: [32, 32], tile_side: 32 };
        let mut outlines = Outlines::new(frame);
        add(&mut outlines);
        let mut canvas = Canvas::new(frame, [255; 3]);
        canvas.fill([0; 3], outlines);
        canvas.into_picture()
    }

    fn ink(picture: &Picture) -> f64 {
        picture.rgb().iter().map(|value| f64::from(255 - value) / (3.0 * 255.0)).sum()
    }

    #[test]
    fn lines_have_the_width_and_the_ends_they_should() {
        let butt = drawn(&[&[[8.0, 16.0], [24.0, 16.0]]], 4.0, Cap::Butt);
        assert!((ink(&butt) - 64.0).abs() < 0.1, "{}", ink(&butt));
        assert_eq!((butt.pixel(7, 16), butt.pixel(8, 14), butt.pixel(8, 13)), ([255; 3], [0; 3], [255; 3]));
        let slanted = drawn(&[&[[8.0, 9.3], [24.0, 22.0]]], 3.0, Cap::Butt);
        assert!((ink(&slanted) - 3.0 * 16.0_f64.hypot(12.7)).abs() < 1.0, "{}", ink(&slanted));
        let round = drawn(&[&[[8.0, 16.0], [24.0, 16.0]]], 8.0, Cap::Round);
        assert!((ink(&round) - 128.0 - 50.0).abs() < 1.5, "{}", ink(&round));
    }

    #[test]
    fn crossings_joints_and_repeated_lines_are_whole() {
        let (there, back) = ([[4.0, 4.0], [28.0, 28.0]], [[28.0, 28.0], [4.0, 4.0]]);
        let once = drawn(&[&there], 3.0, Cap::Round);
        assert!((ink(&drawn(&[&there, &back], 3.0, Cap::Round)) - ink(&once)).abs() < 0.5);
        // A line in many bits, bent both ways and back on itself, has no holes in its middle.
        let bent: Vec<Point> =
            (0..60).map(|i| [16.0 + 9.0 * f64::from(i).sin(), 16.0 + 0.1 * f64::from(i)]).collect();
        let picture = drawn(&[&bent, &there, &back], 6.0, Cap::Round);
        for point in &bent {
            assert_eq!(picture.pixel(point[0] as u32, point[1] as u32), [0; 3]);
        }
        assert_eq!(
            drawn(&[&[[5.0, 5.0]], &[], &[[5.0, 5.0]; 3]], 6.0, Cap::Round),
            Picture::filled(32, 32, [255; 3])
        );
    }

    fn dashed(points: &[Point], window: &WorldBox) -> Picture {
        painted(|outlines| add_dashes(outlines, points, 2.0, [4.0, 3.0], window))
    }

    #[test]
    fn dashes_begin_with_the_line() {
        let window = WorldBox { min: [0.0; 2], max: [32.0; 2] };
        let corner = [[2.0, 4.0], [12.0, 4.0], [12.0, 14.0]];
        let picture = dashed(&corner, &window);
        // 4 + 3 pixels before the corner, 1 + 4 after it; one square pixel of the corner is covered twice.
        assert!((ink(&picture) - 2.0 * 12.0 + 1.0).abs() < 0.1, "{}", ink(&picture));
        assert_eq!((picture.pixel(5, 4), picture.pixel(6, 4)), ([0; 3], [255; 3]));
        // A line from far away takes no time for what is not seen.
        let long = [[-7e9, 4.0], [7e9, 4.0]];
        assert!((ink(&dashed(&long, &window)) - 2.0 * 5.0 * 4.0).abs() < 0.5);
        assert_eq!(dashed(&corner[..1], &window), Picture::filled(32, 32, [255; 3]));
    }
}
