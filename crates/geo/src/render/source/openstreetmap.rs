//! Extracts of OpenStreetMap.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::super::class::{Class, Level};
use super::super::error::RenderError;
use super::super::feature::{Feature, Point, Ring, WorldBox, turned};
use super::super::tags::{self, Kind};
use super::VectorSource;
use super::blocks::{Block, Relation, WAY, Way, visit_blocks};
use super::index::{DegreeBox, FeatureIndex, unwrapped};
use super::rings::join;
use crate::tile::BoundingBox;

/// The most nodes that are kept: about 5 GB. A country has fewer that belong to something drawn.
const MAX_NODES: u64 = 100_000_000;

/// What the licence of the data asks for.
const ATTRIBUTION: &str = "© OpenStreetMap contributors";

/// An extract of OpenStreetMap, `.osm.pbf`, read into memory: ways, and multipolygons.
///
/// The file is read three times, for relations, ways and nodes, so that only what is drawn is kept. Parts of ways
/// whose nodes are not in the extract are left out, and so are areas that do not close.
pub struct OpenStreetMap {
    path: PathBuf,
    index: FeatureIndex,
}

impl OpenStreetMap {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// [`RenderError::Io`], [`RenderError::Damaged`], [`RenderError::Unsupported`] for history files and other
    /// compression than zlib, [`RenderError::TooLarge`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, RenderError> {
        let path = path.as_ref();
        let mut extract = Extract::default();
        visit_blocks(path, |block| {
            let relations = block.groups.iter().flat_map(|group| &group.relations);
            relations.for_each(|relation| extract.take_relation(block, relation));
            Ok(())
        })?;
        let mut wanted = HashSet::new();
        visit_blocks(path, |block| {
            let ways = block.groups.iter().flat_map(|group| &group.ways);
            ways.for_each(|way| extract.take_way(block, way, &mut wanted));
            if wanted.len() as u64 > MAX_NODES {
                let cure = "cut out a smaller region (`osmium extract`)";
                return Err(RenderError::TooLarge {
                    path: path.to_owned(),
                    limit: MAX_NODES,
                    what: "nodes",
                    cure,
                });
            }
            Ok(())
        })?;
        let mut nodes = Nodes::default();
        visit_blocks(path, |block| {
            for group in &block.groups {
                block.nodes(group, |id, longitude, latitude| {
                    if wanted.contains(&id) {
                        nodes.take(id, longitude, latitude);
                    }
                });
            }
            Ok(())
        })?;
        drop(wanted);
        let index = FeatureIndex::new(extract.features(&nodes), nodes.bounds.finish());
        Ok(Self { path: path.to_owned(), index })
    }
}

impl VectorSource for OpenStreetMap {
    fn path(&self) -> &Path {
        &self.path
    }

    fn attribution(&self) -> Option<&str> {
        Some(ATTRIBUTION)
    }

    fn bounds(&self) -> Option<BoundingBox> {
        self.index.bounds()
    }

    fn visit(
        &self,
        window: &WorldBox,
        _zoom: u8,
        visitor: &mut dyn FnMut(&Feature, f64),
    ) -> Result<(), RenderError> {
        self.index.visit(window, visitor);
        Ok(())
    }
}

/// Places of nodes. A node that is no place is left out.
#[derive(Default)]
struct Nodes {
    points: HashMap<i64, Point>,
    bounds: DegreeBox,
}

impl Nodes {
    fn take(&mut self, id: i64, longitude: f64, latitude: f64) {
        if let Some(point) = self.bounds.point(longitude, latitude) {
            self.points.insert(id, point);
        }
    }

    fn points(&self, nodes: &[i64]) -> Vec<Point> {
        nodes.iter().filter_map(|id| self.points.get(id).copied()).collect()
    }
}

struct DrawnWay {
    class: Class,
    level: Level,
    kind: Kind,
    nodes: Vec<i64>,
}

struct Multipolygon {
    class: Class,
    members: Vec<(i64, Ring)>,
}

/// What is drawn of an extract.
#[derive(Default)]
struct Extract {
    ways: Vec<DrawnWay>,
    multipolygons: Vec<Multipolygon>,
    /// Nodes of the ways that multipolygons need; empty until they are found.
    borders: HashMap<i64, Vec<i64>>,
}

impl Extract {
    fn take_relation(&mut self, block: &Block, relation: &Relation) {
        let tags = block.tags(&relation.keys, &relation.values);
        let is_area =
            tags.iter().any(|(key, value)| *key == "type" && matches!(*value, "multipolygon" | "boundary"));
        let class = if is_area { tags::class(tags.iter().copied(), Kind::Area) } else { None };
        let Some(class) = class else { return };
        let mut members = Vec::new();
        let mut id = 0_i64;
        for ((step, kind), role) in relation.members.iter().zip(&relation.kinds).zip(&relation.roles) {
            id = id.wrapping_add(*step);
            if *kind == WAY {
                members.push((id, if block.is_inner(*role) { Ring::Hole } else { Ring::Outer }));
                self.borders.insert(id, Vec::new());
            }
        }
        self.multipolygons.push(Multipolygon { class, members });
    }

    fn take_way(&mut self, block: &Block, way: &Way, wanted: &mut HashSet<i64>) {
        let tags = block.tags(&way.keys, &way.values);
        let tags = || tags.iter().copied();
        let mut id = 0_i64;
        let nodes = way.nodes.iter().map(|step| {
            id = id.wrapping_add(*step);
            id
        });
        let nodes: Vec<i64> = nodes.collect();
        let is_closed = nodes.len() > 3 && nodes.first() == nodes.last();
        let found = if is_closed {
            tags::of_closed(tags())
        } else {
            tags::class(tags(), Kind::Line).map(|class| (class, Kind::Line))
        };
        let border = self.borders.get_mut(&way.id);
        if found.is_some() || border.is_some() {
            wanted.extend(&nodes);
        }
        if let Some(border) = border {
            border.clone_from(&nodes);
        }
        if let Some((class, kind)) = found {
            self.ways.push(DrawnWay { class, level: tags::level(tags()), kind, nodes });
        }
    }

    fn features(&self, places: &Nodes) -> Vec<Feature> {
        let way = |way: &DrawnWay| {
            let points = places.points(&way.nodes);
            match way.kind {
                Kind::Line => Feature::lines(way.class, way.level, vec![unwrapped(points)]),
                Kind::Area => Feature::area(way.class, way.level, vec![turned(points, Ring::Outer)], None),
            }
        };
        let multipolygon = |area: &Multipolygon| {
            let rings = [Ring::Outer, Ring::Hole].into_iter().flat_map(|part| {
                let members = area.members.iter().filter(move |(_, of)| *of == part);
                let ways = members.filter_map(|(id, _)| self.borders.get(id).map(Vec::as_slice));
                let rings = join(ways.collect());
                rings.into_iter().map(move |ring| turned(places.points(&ring), part))
            });
            Feature::area(area.class, Level::Ground, rings.collect(), None)
        };
        let ways = self.ways.iter().filter_map(way);
        ways.chain(self.multipolygons.iter().filter_map(multipolygon)).collect()
    }
}

#[cfg(test)]
#[path = "openstreetmap_tests.rs"]
mod tests;
