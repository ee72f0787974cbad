//! Features as they are drawn: a class, a level and points in the square of web Mercator.

use super::class::{Class, Level};
use crate::tile::row_fraction;

/// A point in web Mercator: fractions of the world from 180° west and from the northern edge. Beyond 0 … 1 to the
/// left and right lie copies of the world.
pub type Point = [f64; 2];

/// The point of a longitude and a latitude in degrees; what lies beyond the square, up to the poles, is on its edge.
pub fn mercator(longitude: f64, latitude: f64) -> Point {
    [(longitude + 180.0) / 360.0, row_fraction(latitude.clamp(-90.0, 90.0)).clamp(0.0, 1.0)]
}

/// A box in web Mercator, in the units of [`Point`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WorldBox {
    /// The left and upper edges.
    pub min: Point,
    /// The right and lower edges.
    pub max: Point,
}

impl WorldBox {
    /// A box that holds nothing, to be extended.
    const NOTHING: Self = Self { min: [f64::INFINITY; 2], max: [f64::NEG_INFINITY; 2] };

    /// The smallest box that holds all points.
    pub fn of<'a>(points: impl IntoIterator<Item = &'a Point>) -> Self {
        points.into_iter().fold(Self::NOTHING, |bounds, point| Self {
            min: [bounds.min[0].min(point[0]), bounds.min[1].min(point[1])],
            max: [bounds.max[0].max(point[0]), bounds.max[1].max(point[1])],
        })
    }

    /// Whether two boxes have a point in common.
    pub fn touches(&self, other: &Self) -> bool {
        (0..2).all(|axis| self.min[axis] <= other.max[axis] && other.min[axis] <= self.max[axis])
    }

    /// Whether all of another box lies inside.
    pub fn holds(&self, other: &Self) -> bool {
        (0..2).all(|axis| self.min[axis] <= other.min[axis] && other.max[axis] <= self.max[axis])
    }

    /// The box with every edge moved outwards.
    pub fn grown(&self, by: f64) -> Self {
        Self { min: self.min.map(|edge| edge - by), max: self.max.map(|edge| edge + by) }
    }

    /// The box moved to the right by whole worlds.
    pub fn moved(&self, worlds: f64) -> Self {
        Self { min: [self.min[0] + worlds, self.min[1]], max: [self.max[0] + worlds, self.max[1]] }
    }
}

/// The geometry of a feature.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// Lines of two or more points each.
    Lines(Vec<Vec<Point>>),
    /// Areas.
    Area {
        /// Closed rings, the first point not repeated: outer ones turn one way, holes the other.
        rings: Vec<Vec<Point>>,
        /// What is drawn as their outline, where that is not the rings: of an area that was cut, the cuts are left out.
        outline: Option<Vec<Vec<Point>>>,
    },
}

/// One thing on the map.
#[derive(Clone, Debug, PartialEq)]
pub struct Feature {
    /// What it is.
    pub class: Class,
    /// Below, on or above the ground.
    pub level: Level,
    /// Where it is.
    pub shape: Shape,
    /// The box around its points.
    pub bounds: WorldBox,
    /// The ground of the vector tile that it comes from, which may hold a part of it only.
    pub tile: Option<WorldBox>,
}

impl Feature {
    /// A feature of lines; none without a line of two points.
    pub fn lines(class: Class, level: Level, mut lines: Vec<Vec<Point>>) -> Option<Self> {
        lines.retain(|line| line.len() > 1);
        let bounds = WorldBox::of(lines.iter().flatten());
        (!lines.is_empty()).then_some(Self { class, level, shape: Shape::Lines(lines), bounds, tile: None })
    }

    /// An area; none without a ring of three points.
    pub fn area(
        class: Class,
        level: Level,
        mut rings: Vec<Vec<Point>>,
        outline: Option<Vec<Vec<Point>>>,
    ) -> Option<Self> {
        rings.retain(|ring| ring.len() > 2);
        let bounds = WorldBox::of(rings.iter().flatten());
        (!rings.is_empty()).then_some(Self {
            class,
            level,
            shape: Shape::Area { rings, outline },
            bounds,
            tile: None,
        })
    }

    /// How many points it has, for budgets of memory.
    pub fn points(&self) -> usize {
        let count = |lines: &[Vec<Point>]| lines.iter().map(Vec::len).sum::<usize>();
        match &self.shape {
            Shape::Lines(lines) => count(lines),
            Shape::Area { rings, outline } => count(rings) + outline.as_deref().map_or(0, count),
        }
    }
}

/// Which part of an area a ring is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ring {
    /// Around it.
    Outer,
    /// Around what is left out.
    Hole,
}

/// Turns a ring the way that [`Shape::Area`] wants, and leaves out a repetition of its first point at the end. With
/// all rings of a class turned so, they can be filled together: shared borders vanish, and holes stay.
pub fn turned(mut ring: Vec<Point>, part: Ring) -> Vec<Point> {
    if ring.len() > 1 && ring.first() == ring.last() {
        ring.pop();
    }
    let outer = signed_area(&ring) >= 0.0;
    if outer != (part == Ring::Outer) {
        ring.reverse();
    }
    ring
}

/// Twice the area, positive when the points go round as the x axis goes to the y axis.
pub fn signed_area(ring: &[Point]) -> f64 {
    let Some(origin) = ring.first() else { return 0.0 };
    // From the first point, so that small rings far from zero keep their digits.
    let from = |point: &Point| [point[0] - origin[0], point[1] - origin[1]];
    let edges = ring.iter().zip(ring.iter().cycle().skip(1));
    edges.map(|(a, b)| (from(a), from(b))).map(|(a, b)| a[0] * b[1] - b[0] * a[1]).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn poles_lie_on_the_edge() {
        assert_eq!(mercator(-180.0, 90.0), [0.0, 0.0]);
        assert_eq!(mercator(180.0, -90.0), [1.0, 1.0]);
        assert_eq!(mercator(0.0, 0.0), [0.5, 0.5]);
    }

    #[test]
    fn rings_are_turned() {
        let square = vec![[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.0, 0.0]];
        let outer = turned(square.clone(), Ring::Outer);
        assert_eq!((outer.len(), signed_area(&outer)), (4, 2.0));
        assert_eq!(signed_area(&turned(outer.clone(), Ring::Hole)), -2.0);
        assert_eq!(turned(turned(outer.clone(), Ring::Hole), Ring::Outer), outer);
        assert_eq!(signed_area(&[]), 0.0);
    }

    #[test]
    fn features_without_geometry_are_none() {
        assert_eq!(Feature::lines(Class::Rail, Level::Ground, vec![vec![[0.0; 2]], vec![]]), None);
        assert_eq!(Feature::area(Class::Water, Level::Ground, vec![vec![[0.0; 2]; 2]], None), None);
    }
}
