//! Lines as areas: every line is covered with convex pieces that all turn the same way, so that any number of lines
//! can be filled together ([`Outlines`]) and crossings, joints and the copies of a line in two vector tiles show no
//! seams.

use super::canvas::Outlines;
use super::clip::{clip_line, inside};
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
    let (mut last, mut was_near) = (first, first.is_near(outlines, radius));
    if was_near {
        first.add_body(outlines, radius);
    }
    for segment in segments {
        let is_near = segment.is_near(outlines, radius);
        if is_near {
            segment.add_body(outlines, radius);
        }
        if is_near || was_near {
            add_joint(outlines, &last, &segment, radius);
        }
        (last, was_near) = (segment, is_near);
    }
    if cap == Cap::Round {
        last.add_fan(outlines, last.to, last.reversed_normal(), last.normal, radius);
    }
}

/// Lengths of a broken line in pixels: pieces with gaps between them, of which one begins at `start` of the line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Dashes {
    pub(super) piece: f64,
    pub(super) gap: f64,
    pub(super) start: f64,
}

impl Dashes {
    /// A pattern that begins with the line.
    pub(super) fn new([piece, gap]: [f64; 2]) -> Self {
        Self { piece, gap, start: 0.0 }
    }

    /// A pattern for a line of some length of which one end or both were cut, with the middle of a piece at each cut.
    /// The line behind the cut, cut in the same place, has the other half of the piece: neither has to know where the
    /// whole line begins. Between two cuts the pattern is stretched or shrunk to fit.
    fn of_cut(dash: [f64; 2], length: f64, [at_start, at_end]: [bool; 2]) -> Self {
        let period = dash[0] + dash[1];
        match (at_start, at_end) {
            (false, false) => Self::new(dash),
            (true, false) => Self { start: -0.5 * dash[0], ..Self::new(dash) },
            (false, true) => {
                Self { start: (length - 0.5 * dash[0]).rem_euclid(period) - period, ..Self::new(dash) }
            }
            (true, true) => {
                let stretch = length / ((length / period).round().max(1.0) * period);
                let dash = dash.map(|length| length * stretch);
                Self { start: -0.5 * dash[0], ..Self::new(dash) }
            }
        }
    }
}

/// Adds a broken line where it may be seen in `window`. The pattern hangs on the line, wherever the window is.
pub(super) fn add_dashes(
    outlines: &mut Outlines,
    points: &[Point],
    width: f64,
    dashes: Dashes,
    window: &WorldBox,
) {
    let radius = width / 2.0;
    let (window, period) = (window.grown(radius), dashes.piece + dashes.gap);
    let mut start = -dashes.start;
    for segment in segments(points) {
        let seen = inside(segment.from, segment.to, &window).map(|(from, to)| {
            let number = |share: f64| (start + share * segment.length) / period;
            (number(from).floor() as i64, number(to).ceil() as i64)
        });
        for number in seen.map_or(0..0, |(first, end)| first..end) {
            let begin = number as f64 * period - start;
            let (from, to) = (begin.max(0.0), (begin + dashes.piece).min(segment.length));
            if to > from {
                segment.part(from, to).add_body(outlines, radius);
            }
        }
        start += segment.length;
    }
}

/// Adds the part of a broken line inside the vector tile that it comes from, so that it goes on in the next tile. Of
/// a line that ends within the tile the pattern begins or ends with it.
pub(super) fn add_cut_dashes(
    outlines: &mut Outlines,
    points: &[Point],
    width: f64,
    dash: [f64; 2],
    (tile, window): (&WorldBox, &WorldBox),
) {
    let is_cut = |point: &Point| {
        (0..2).any(|axis| [tile.min, tile.max].iter().any(|corner| (point[axis] - corner[axis]).abs() < NEAR))
    };
    for part in clip_line(points, tile) {
        let length = segments(&part).map(|segment| segment.length).sum();
        let cuts = [part.first(), part.last()].map(|end| end.is_some_and(is_cut));
        add_dashes(outlines, &part, width, Dashes::of_cut(dash, length, cuts), window);
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

    /// Whether the segment or what is added around its ends may be inside the frame.
    fn is_near(&self, outlines: &Outlines, radius: f64) -> bool {
        outlines.may_hold(&WorldBox::of([&self.from, &self.to]).grown(radius))
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
        painted(|outlines| add_dashes(outlines, points, 2.0, Dashes::new([4.0, 3.0]), window))
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

    #[test]
    fn dashes_go_on_behind_a_cut() {
        let whole = WorldBox { min: [0.0; 2], max: [32.0; 2] };
        let halves =
            [WorldBox { min: [0.0; 2], max: [16.0, 32.0] }, WorldBox { min: [16.0, 0.0], max: [32.0; 2] }];
        let cut = |line: &[Point], tiles: &[WorldBox]| {
            painted(|outlines| {
                tiles.iter().for_each(|tile| add_cut_dashes(outlines, line, 2.0, [4.0, 3.0], (tile, &whole)));
            })
        };
        // Both tiles have the line a little beyond their border, and the piece at the border has its full length.
        let line = [[1.0, 8.0], [31.0, 8.0]];
        let picture = cut(&line, &halves);
        let row: Vec<bool> = (0..32).map(|x| picture.pixel(x, 8) == [0; 3]).collect();
        let lengths = |row: &[bool]| row.chunk_by(|a, b| a == b).map(<[bool]>::len).collect::<Vec<_>>();
        // From the border outwards: half a piece, then gaps and pieces in turn.
        assert_eq!(lengths(&row[16..]), [2, 3, 4, 3, 3, 1]);
        assert_eq!(lengths(&row[..16]), [1, 3, 3, 4, 3, 2]);
        // The direction does not matter.
        assert_eq!(cut(&[line[1], line[0]], &halves), picture);
        // Between two cuts the pattern fits: 16 pixels hold two periods of 8 instead of 7.
        let through = cut(&[[-9.0, 8.0], [50.0, 8.0]], &halves);
        let ink = ink(&through);
        assert!((ink - 2.0 * 32.0 * 4.0 / 7.0).abs() < 1.0, "{ink}");
        // A line within the tile begins with a piece.
        let inner = [[2.0, 4.0], [12.0, 4.0], [12.0, 14.0]];
        assert_eq!(cut(&inner, &halves[..1]), dashed(&inner, &whole));
    }
}
