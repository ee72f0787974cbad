//! Cutting lines and rings at a box.

use super::feature::{Point, WorldBox};

/// The parts of a line inside a box. What runs exactly along an edge of the box counts as outside: vector tiles that
/// are cut at their edges have such lines, and they are no borders of anything.
pub(super) fn clip_line(points: &[Point], bounds: &WorldBox) -> Vec<Vec<Point>> {
    let mut parts: Vec<Vec<Point>> = Vec::new();
    let mut is_open = false;
    for ends in points.windows(2) {
        let (from, to) = (ends[0], ends[1]);
        let Some((start, end)) = inside(from, to, bounds) else {
            is_open = false;
            continue;
        };
        if !(is_open && start == 0.0) {
            parts.push(vec![at(from, to, start)]);
        }
        parts.last_mut().expect("one was pushed").push(at(from, to, end));
        is_open = end == 1.0;
    }
    parts
}

/// A ring cut at a box: where it leaves, it follows the edge of the box.
pub(super) fn clip_ring(ring: Vec<Point>, bounds: &WorldBox) -> Vec<Point> {
    let around = WorldBox::of(&ring);
    if (0..2).all(|axis| around.min[axis] >= bounds.min[axis] && around.max[axis] <= bounds.max[axis]) {
        return ring;
    }
    let edges = [
        (0, 1.0, bounds.min[0]),
        (0, -1.0, -bounds.max[0]),
        (1, 1.0, bounds.min[1]),
        (1, -1.0, -bounds.max[1]),
    ];
    edges.into_iter().fold(ring, |ring, (axis, sign, least)| {
        let depth = |point: &Point| point[axis] * sign - least;
        let mut kept = Vec::with_capacity(ring.len());
        for (index, &point) in ring.iter().enumerate() {
            let next = ring[(index + 1) % ring.len()];
            if depth(&point) >= 0.0 {
                kept.push(point);
            }
            if (depth(&point) >= 0.0) != (depth(&next) >= 0.0) {
                let mut crossing = at(point, next, depth(&point) / (depth(&point) - depth(&next)));
                crossing[axis] = least * sign;
                kept.push(crossing);
            }
        }
        kept
    })
}

/// A ring without the points that change nothing inside a box: of a run of points beyond the same edge, only the first
/// and the last are kept. A long coast costs a tile little more than what is seen of it.
pub(super) fn near_ring(ring: &[Point], bounds: &WorldBox) -> Vec<Point> {
    let Some((first, rest)) = ring.split_first() else { return Vec::new() };
    let mut kept = vec![*first];
    // The edges that all points since the last one kept lie beyond.
    let mut common = beyond(first, bounds);
    for (point, next) in rest.iter().zip(rest.iter().skip(1).chain([first])) {
        let edges = beyond(point, bounds);
        if common & edges & beyond(next, bounds) == 0 {
            kept.push(*point);
            common = edges;
        } else {
            common &= edges;
        }
    }
    kept
}

/// The parts of a line that may be seen in a box: without the straight pieces that lie beyond one of its edges.
pub(super) fn near_line(line: &[Point], bounds: &WorldBox) -> Vec<Vec<Point>> {
    let mut parts: Vec<Vec<Point>> = Vec::new();
    let mut is_open = false;
    for ends in line.windows(2) {
        let is_far = beyond(&ends[0], bounds) & beyond(&ends[1], bounds) != 0;
        match parts.last_mut() {
            _ if is_far => {}
            Some(part) if is_open => part.push(ends[1]),
            _ => parts.push(ends.to_vec()),
        }
        is_open = !is_far;
    }
    parts
}

/// Which edges of a box a point lies beyond, a bit for each.
fn beyond(point: &Point, bounds: &WorldBox) -> u8 {
    let before = |axis: usize| u8::from(point[axis] < bounds.min[axis]);
    let behind = |axis: usize| u8::from(point[axis] > bounds.max[axis]);
    before(0) | behind(0) << 1 | before(1) << 2 | behind(1) << 3
}

/// From which share of a straight line to which it is inside; none when it is outside or along an edge.
pub(super) fn inside(from: Point, to: Point, bounds: &WorldBox) -> Option<(f64, f64)> {
    let (mut start, mut end) = (0.0_f64, 1.0_f64);
    for axis in 0..2 {
        let step = to[axis] - from[axis];
        let (near, far) = (bounds.min[axis] - from[axis], bounds.max[axis] - from[axis]);
        if step == 0.0 {
            if near >= 0.0 || far <= 0.0 {
                return None;
            }
            continue;
        }
        let (enters, leaves) = if step > 0.0 { (near / step, far / step) } else { (far / step, near / step) };
        start = start.max(enters);
        end = end.min(leaves);
    }
    (start < end).then_some((start, end))
}

fn at(from: Point, to: Point, share: f64) -> Point {
    match share {
        0.0 => from,
        1.0 => to,
        _ => [0, 1].map(|axis| from[axis] + (to[axis] - from[axis]) * share),
    }
}

#[cfg(test)]
mod tests {
    use super::super::feature::signed_area;
    use super::*;

    const UNIT: WorldBox = WorldBox { min: [0.0; 2], max: [1.0; 2] };

    #[test]
    fn lines_are_cut_into_parts() {
        let zigzag = [[-1.0, 0.5], [0.5, 0.5], [0.5, 2.0], [0.75, 2.0], [0.75, 0.25]];
        let parts = clip_line(&zigzag, &UNIT);
        assert_eq!(parts, [vec![[0.0, 0.5], [0.5, 0.5], [0.5, 1.0]], vec![[0.75, 1.0], [0.75, 0.25]]]);
        assert!(clip_line(&[[2.0, -1.0], [3.0, 5.0]], &UNIT).is_empty());
    }

    #[test]
    fn what_runs_along_an_edge_is_left_out() {
        let ring = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.0, 0.0]];
        assert!(clip_line(&ring, &UNIT).is_empty());
        let corner = [[0.0, 0.5], [0.5, 0.5], [0.5, 0.0], [0.0, 0.0], [0.0, 0.5]];
        assert_eq!(clip_line(&corner, &UNIT), [vec![[0.0, 0.5], [0.5, 0.5], [0.5, 0.0]]]);
    }

    #[test]
    fn runs_beyond_an_edge_are_left_out() {
        let coast = [
            [0.5, 0.5],
            [3.0, 0.5],
            [4.0, 0.7],
            [3.0, 0.9],
            [5.0, 2.0],
            [0.5, 3.0],
            [-2.0, 4.0],
            [-2.0, 0.5],
        ];
        let near = near_ring(&coast, &UNIT);
        assert_eq!(near, [[0.5, 0.5], [3.0, 0.5], [5.0, 2.0], [-2.0, 4.0], [-2.0, 0.5]]);
        assert!(near_ring(&[], &UNIT).is_empty());
        let parts = near_line(&coast, &UNIT);
        assert_eq!(parts, [vec![[0.5, 0.5], [3.0, 0.5]]]);
        // A corner is passed without being near: both of its edges count.
        let around = [[-1.0, 0.5], [-1.0, -1.0], [-2.0, -1.0], [0.5, -1.0]];
        assert_eq!(near_ring(&around, &UNIT), [[-1.0, 0.5], [-2.0, -1.0], [0.5, -1.0]]);
    }

    #[test]
    fn rings_are_cut_and_keep_their_turn() {
        let large = vec![[-5.0, -5.0], [5.0, -5.0], [5.0, 5.0], [-5.0, 5.0]];
        assert_eq!(signed_area(&clip_ring(large, &UNIT)), 2.0);
        let triangle = vec![[0.0, -0.5], [1.5, 1.0], [0.0, 1.0]];
        assert!((signed_area(&clip_ring(triangle, &UNIT)) - 1.75).abs() < 1e-12);
        assert!(clip_ring(vec![[2.0, 2.0], [3.0, 2.0], [3.0, 3.0]], &UNIT).is_empty());
    }
}
