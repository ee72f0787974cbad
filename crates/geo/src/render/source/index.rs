//! Whole features in memory, found by their boxes.

use static_aabb2d_index::{StaticAABB2DIndex, StaticAABB2DIndexBuilder};

use super::super::feature::{Feature, WorldBox, mercator};
use crate::tile::{BoundingBox, MAX_LATITUDE};

/// Features and their places.
#[derive(Default)]
pub(super) struct FeatureIndex {
    features: Vec<Feature>,
    /// None without features.
    places: Option<StaticAABB2DIndex<f64>>,
    bounds: Option<BoundingBox>,
}

impl FeatureIndex {
    pub(super) fn new(features: Vec<Feature>, bounds: Option<BoundingBox>) -> Self {
        let mut builder = StaticAABB2DIndexBuilder::new(features.len());
        for WorldBox { min, max } in features.iter().map(|feature| &feature.bounds) {
            builder.add(min[0], min[1], max[0], max[1]);
        }
        // It fails only when it is given no box or more or fewer than it was told.
        Self { places: builder.build().ok(), features, bounds }
    }

    pub(super) fn bounds(&self) -> Option<BoundingBox> {
        self.bounds
    }

    pub(super) fn visit(&self, window: &WorldBox, visitor: &mut dyn FnMut(&Feature, f64)) {
        let Some(places) = &self.places else { return };
        // Features may reach a world beyond either side.
        for worlds in window.min[0].floor() as i64 - 1..=window.max[0].floor() as i64 + 1 {
            let worlds = worlds as f64;
            let WorldBox { min, max } = window.moved(-worlds);
            for found in places.query_iter(min[0], min[1], max[0], max[1]) {
                visitor(&self.features[found], worlds);
            }
        }
    }
}

/// The box around places in degrees, while they are read.
pub(super) struct DegreeBox {
    west: f64,
    south: f64,
    east: f64,
    north: f64,
}

impl Default for DegreeBox {
    fn default() -> Self {
        let (least, most) = (f64::NEG_INFINITY, f64::INFINITY);
        Self { west: most, south: most, east: least, north: least }
    }
}

impl DegreeBox {
    /// Takes a place in and gives it as a point; none when it is no place.
    pub(super) fn point(&mut self, longitude: f64, latitude: f64) -> Option<[f64; 2]> {
        // A little beyond the antimeridian is common; a number of metres is a mistake.
        if !((-540.0..=540.0).contains(&longitude) && (-90.0..=90.0).contains(&latitude)) {
            return None;
        }
        self.west = self.west.min(longitude);
        self.east = self.east.max(longitude);
        let latitude = latitude.clamp(-MAX_LATITUDE, MAX_LATITUDE);
        self.south = self.south.min(latitude);
        self.north = self.north.max(latitude);
        Some(mercator(longitude, latitude))
    }

    pub(super) fn finish(&self) -> Option<BoundingBox> {
        BoundingBox::new(self.west, self.south, self.east, self.north).ok()
    }
}

/// Moves the points of a line that goes over the antimeridian so that it is short: a step of more than half the world
/// was not meant. Areas are left as they are, because one that goes round the world has such steps too.
pub(super) fn unwrapped(mut line: Vec<[f64; 2]>) -> Vec<[f64; 2]> {
    let mut worlds = 0.0;
    for index in 1..line.len() {
        let step = line[index][0] + worlds - line[index - 1][0];
        if step.abs() > 0.5 && step.abs() < 1.0 {
            worlds -= step.signum();
        }
        line[index][0] += worlds;
    }
    line
}

#[cfg(test)]
mod tests {
    use super::super::super::class::{Class, Level};
    use super::*;

    #[test]
    fn features_are_found_on_both_sides_of_the_antimeridian() {
        let line = unwrapped(vec![[0.99, 0.5], [0.01, 0.5]]);
        assert!((line[1][0] - 1.01).abs() < 1e-12);
        let feature = Feature::lines(Class::Rail, Level::Ground, vec![line]).unwrap();
        let index = FeatureIndex::new(vec![feature], None);
        let found = |west: f64, east: f64| {
            let mut found = Vec::new();
            let window = WorldBox { min: [west, 0.4], max: [east, 0.6] };
            index.visit(&window, &mut |_, worlds| found.push(worlds));
            found
        };
        assert_eq!(found(0.0, 0.005), [-1.0]);
        assert_eq!(found(0.995, 1.0), [0.0]);
        assert_eq!(found(-0.005, 0.0), [-1.0]);
        assert_eq!(found(1.0, 3.0), [0.0, 1.0, 2.0]);
        assert!(found(0.4, 0.6).is_empty());
        FeatureIndex::new(vec![], None).visit(&WorldBox { min: [0.0; 2], max: [1.0; 2] }, &mut |_, _| {});
    }

    #[test]
    fn lines_over_the_antimeridian_and_back() {
        let there_and_back = unwrapped(vec![[0.01, 0.1], [0.99, 0.2], [0.02, 0.3]]);
        let columns: Vec<f64> = there_and_back.iter().map(|point| (point[0] * 100.0).round()).collect();
        assert_eq!(columns, [1.0, -1.0, 2.0]);
    }

    #[test]
    fn places_are_checked() {
        let mut bounds = DegreeBox::default();
        assert_eq!(bounds.finish(), None);
        assert_eq!(bounds.point(f64::NAN, 0.0), None);
        assert_eq!(bounds.point(620_000.0, 0.0), None);
        assert_eq!(bounds.point(0.0, f64::INFINITY), None);
        bounds.point(11.0, 43.0).unwrap();
        bounds.point(12.0, 90.0).unwrap();
        let found = bounds.finish().unwrap();
        assert_eq!((found.west(), found.east(), found.south()), (11.0, 12.0, 43.0));
    }
}
