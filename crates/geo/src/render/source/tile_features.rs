//! One Mapbox vector tile, decoded.
//!
//! The messages are those of the format's public description (version 2), unpacked with prost. Layers, features and
//! values stay packed until they are looked at, so a tile takes no more than a small multiple of its bytes.

use bytes::Bytes;
use prost::Message;

use super::super::clip::{clip_line, clip_ring};
use super::super::feature::{Feature, Point, Ring, WorldBox, signed_area, turned};
use super::super::schema::Schema;
use super::super::tags::Kind;
use crate::tile::Tile;

/// How much of the ground around a tile its features may cover, in sides of the tile. What reaches further is cut off,
/// so that a feature is always found by looking at the tiles near it.
pub(super) const REACH: f64 = 1.0 / 32.0;

#[derive(Clone, PartialEq, Message)]
pub(super) struct TileMessage {
    #[prost(bytes = "bytes", repeated, tag = "3")]
    pub(super) layers: Vec<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct LayerMessage {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub(super) features: Vec<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "3")]
    pub(super) keys: Vec<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "4")]
    pub(super) values: Vec<Bytes>,
    #[prost(uint32, optional, tag = "5")]
    pub(super) extent: Option<u32>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct FeatureMessage {
    #[prost(uint32, repeated, tag = "2")]
    pub(super) tags: Vec<u32>,
    #[prost(int32, tag = "3")]
    pub(super) kind: i32,
    #[prost(uint32, repeated, tag = "4")]
    pub(super) geometry: Vec<u32>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ValueMessage {
    #[prost(bytes = "bytes", optional, tag = "1")]
    pub(super) text: Option<Bytes>,
    #[prost(int64, optional, tag = "4")]
    pub(super) int: Option<i64>,
    #[prost(uint64, optional, tag = "5")]
    pub(super) uint: Option<u64>,
    #[prost(bool, optional, tag = "7")]
    pub(super) truth: Option<bool>,
}

const LINE: i32 = 2;
const POLYGON: i32 = 3;

/// The features of a tile that can be drawn. Errors are the end of a sentence that begins with the tile.
pub(super) fn decode(bytes: Bytes, tile: Tile) -> Result<Vec<Feature>, String> {
    let broken = |error| format!("is damaged ({error})");
    let mut features = Vec::new();
    for bytes in TileMessage::decode(bytes).map_err(broken)?.layers {
        let layer = LayerMessage::decode(bytes).map_err(broken)?;
        if let Some(schema) = Schema::of_layer(&layer.name) {
            let wrong = |detail| format!("is damaged (layer {}: {detail})", layer.name);
            add_layer(&layer, &schema, tile, &mut features).map_err(wrong)?;
        }
    }
    Ok(features)
}

fn add_layer(
    layer: &LayerMessage,
    schema: &Schema,
    tile: Tile,
    features: &mut Vec<Feature>,
) -> Result<(), String> {
    let grid = Grid::new(tile, layer.extent.unwrap_or(4096))?;
    let keys: Vec<&str> = layer.keys.iter().map(|key| str::from_utf8(key).unwrap_or_default()).collect();
    let values = layer.values.iter().map(|value| word(value.clone())).collect::<Result<Vec<_>, _>>()?;
    let mut attributes = Vec::new();
    for bytes in &layer.features {
        let feature = FeatureMessage::decode(bytes.clone()).map_err(|error| error.to_string())?;
        let kind = match feature.kind {
            LINE => Kind::Line,
            POLYGON => Kind::Area,
            _ => continue,
        };
        attributes.clear();
        for pair in feature.tags.chunks(2) {
            let key = keys.get(pair[0] as usize).ok_or("a feature names a key that is not there")?;
            let value = pair.get(1).and_then(|index| values.get(*index as usize));
            // Numbers mean nothing to the tables.
            if let Some(value) = value.ok_or("a feature names a value that is not there")? {
                attributes.push((*key, value.as_str()));
            }
        }
        let Some((class, level)) = schema.class(&attributes, kind) else { continue };
        let parts = grid.parts(&feature.geometry, kind)?;
        let feature = match kind {
            Kind::Line => {
                let parts = parts.iter().flat_map(|line| grid.cut_line(line));
                Feature::lines(class, level, parts.collect())
            }
            Kind::Area => {
                let (rings, outline) = grid.area(parts);
                Feature::area(class, level, rings, outline)
            }
        };
        features.extend(feature.map(|feature| Feature { tile: Some(grid.exact), ..feature }));
    }
    Ok(())
}

/// The text of a value, with truths as in tags; none for numbers but 0 and 1, which stand for truths in some tiles.
fn word(bytes: Bytes) -> Result<Option<String>, String> {
    let value = ValueMessage::decode(bytes).map_err(|error| error.to_string())?;
    let number = value.int.or(value.uint.and_then(|number| number.try_into().ok()));
    Ok(match (value.text, value.truth, number) {
        (Some(text), ..) => str::from_utf8(&text).ok().map(str::to_owned),
        (_, Some(truth), _) => Some(if truth { "yes" } else { "no" }.to_owned()),
        (.., Some(number @ 0..=1)) => Some(if number == 1 { "yes" } else { "no" }.to_owned()),
        _ => None,
    })
}

/// The squares that coordinates in a tile count.
struct Grid {
    corner: Point,
    side: f64,
    extent: f64,
    /// The ground of the tile, and with what its features may cover around it.
    exact: WorldBox,
    wide: WorldBox,
}

impl Grid {
    fn new(tile: Tile, extent: u32) -> Result<Self, String> {
        if extent == 0 {
            return Err("its extent is 0".to_owned());
        }
        let side = 0.5_f64.powi(tile.z().into());
        let (x, y) = (f64::from(tile.x()), f64::from(tile.y()));
        let exact = WorldBox { min: [x * side, y * side], max: [(x + 1.0) * side, (y + 1.0) * side] };
        let wide = exact.grown(side * REACH);
        Ok(Self { corner: [x, y], side, extent: f64::from(extent), exact, wide })
    }

    fn point(&self, cursor: [i64; 2]) -> Point {
        [0, 1].map(|axis| (self.corner[axis] + cursor[axis] as f64 / self.extent) * self.side)
    }

    /// Lines or rings from commands: three bits say what, the rest how often; then come steps in zigzag numbers.
    fn parts(&self, commands: &[u32], kind: Kind) -> Result<Vec<Vec<Point>>, String> {
        let (mut parts, mut part): (Vec<Vec<Point>>, Vec<Point>) = (Vec::new(), Vec::new());
        let mut cursor = [0_i64; 2];
        let mut rest = commands;
        while let Some((command, after)) = rest.split_first() {
            rest = after;
            let (what, count) = (command & 7, (command >> 3) as usize);
            match what {
                1 | 2 => {
                    let steps = count.checked_mul(2).and_then(|length| rest.split_at_checked(length));
                    let (steps, after) = steps.ok_or("a geometry ends too early")?;
                    rest = after;
                    for step in steps.chunks_exact(2) {
                        if what == 1 && !part.is_empty() {
                            parts.push(std::mem::take(&mut part));
                        }
                        cursor = [cursor[0] + zigzag(step[0]), cursor[1] + zigzag(step[1])];
                        part.push(self.point(cursor));
                    }
                }
                7 if kind == Kind::Area => {
                    parts.extend((!part.is_empty()).then(|| std::mem::take(&mut part)))
                }
                _ => return Err(format!("a geometry holds the unknown command {what}")),
            }
        }
        parts.extend((!part.is_empty()).then_some(part));
        Ok(parts)
    }

    fn cut_line(&self, line: &[Point]) -> Vec<Vec<Point>> {
        let bounds = WorldBox::of(line);
        let is_inside = (0..2)
            .all(|axis| bounds.min[axis] >= self.wide.min[axis] && bounds.max[axis] <= self.wide.max[axis]);
        if is_inside { vec![line.to_vec()] } else { clip_line(line, &self.wide) }
    }

    /// Rings turned and cut, and the outline where that is not the rings. Outer rings turn like the first one.
    fn area(&self, parts: Vec<Vec<Point>>) -> (Vec<Vec<Point>>, Option<Vec<Vec<Point>>>) {
        let first = parts.iter().map(|ring| signed_area(ring)).find(|area| *area != 0.0).unwrap_or(1.0);
        let part_of = |ring: &[Point]| if signed_area(ring) * first > 0.0 { Ring::Outer } else { Ring::Hole };
        let rings: Vec<_> = parts.into_iter().map(|ring| (part_of(&ring), ring)).collect();
        let bounds = WorldBox::of(rings.iter().flat_map(|(_, ring)| ring));
        let is_whole = (0..2)
            .all(|axis| bounds.min[axis] > self.exact.min[axis] && bounds.max[axis] < self.exact.max[axis]);
        let outline = (!is_whole).then(|| {
            let closed = |ring: &[Point]| ring.iter().chain(ring.first()).copied().collect::<Vec<_>>();
            rings.iter().flat_map(|(_, ring)| clip_line(&closed(ring), &self.exact)).collect()
        });
        let cut = |(part, ring)| clip_ring(turned(ring, part), &self.wide);
        (rings.into_iter().map(cut).collect(), outline)
    }
}

fn zigzag(number: u32) -> i64 {
    i64::from(number >> 1) ^ -i64::from(number & 1)
}

#[cfg(test)]
#[path = "tile_features_tests.rs"]
mod tests;
