//! One picture: features are gathered, brought to pixels, and drawn layer by layer.

use super::canvas::{Canvas, Frame, Outlines};
use super::class::{Class, Level};
use super::clip::{near_line, near_ring};
use super::error::RenderError;
use super::feature::{Feature, Point, Shape, WorldBox};
use super::source::VectorSource;
use super::stroke::{Cap, Dashes, add_cut_dashes, add_dashes, add_line};
use super::style::{Layer, Look, Style};
use crate::picture::Picture;

/// The side of a tile that styles are made for.
const STYLE_SIDE: f64 = 256.0;

/// Draws the map inside a frame at a zoom.
pub(super) fn draw(
    style: &Style,
    source: &dyn VectorSource,
    zoom: u8,
    frame: Frame,
) -> Result<Picture, RenderError> {
    let scale = f64::from(frame.tile_side) / STYLE_SIDE;
    let world = 2.0_f64.powi(zoom.into()) * f64::from(frame.tile_side);
    let found = Found::gather(style, source, zoom, frame, world)?;
    let mut drawing = Drawing { style, zoom, scale, frame, found, canvas: Canvas::new(frame, style.land) };
    let is_line = |layer: &Layer| matches!(layer.look, Look::Line { .. });
    for layers in style.layers.chunk_by(|a, b| is_line(a) && is_line(b)) {
        let seen: Vec<_> = layers.iter().filter(|layer| layer.is_seen(zoom)).collect();
        match layers {
            [Layer { look: Look::Area { .. }, .. }] => seen.iter().for_each(|layer| drawing.area(layer)),
            _ => drawing.network(&seen),
        }
    }
    Ok(drawing.canvas.into_picture())
}

/// An area in pixels of the world.
struct FoundArea {
    rings: Vec<Vec<Point>>,
    outline: Option<Vec<Vec<Point>>>,
}

/// A line in pixels of the world.
struct FoundLine {
    level: Level,
    points: Vec<Point>,
    /// The tile that it was cut at.
    tile: Option<WorldBox>,
}

/// The features that may be seen, by class.
struct Found {
    areas: Vec<Vec<FoundArea>>,
    lines: Vec<Vec<FoundLine>>,
}

impl Found {
    fn gather(
        style: &Style,
        source: &dyn VectorSource,
        zoom: u8,
        frame: Frame,
        world: f64,
    ) -> Result<Self, RenderError> {
        let classes = Class::ALL.len();
        let mut found = Self {
            areas: (0..classes).map(|_| Vec::new()).collect(),
            lines: (0..classes).map(|_| Vec::new()).collect(),
        };
        let mut is_seen = vec![false; classes];
        let layers = style.layers.iter().filter(|layer| layer.is_seen(zoom));
        layers.flat_map(|layer| &layer.classes).for_each(|class| is_seen[*class as usize] = true);
        // Half the widest line, and a pixel for the rounding of places.
        let reach = style.widest(zoom) / 2.0 * f64::from(frame.tile_side) / STYLE_SIDE + 1.0;
        let edge = |axis: usize, pixels: f64| (frame.corner[axis] as f64 + pixels) / world;
        let window = WorldBox {
            min: [edge(0, -reach), edge(1, -reach)],
            max: [0, 1].map(|axis| edge(axis, f64::from(frame.size[axis]) + reach)),
        };
        source.visit(&window, zoom, &mut |feature, worlds| {
            if is_seen[feature.class as usize] {
                let window = window.moved(-worlds);
                found.take(feature, &window, |point| [(point[0] + worlds) * world, point[1] * world]);
            }
        })?;
        Ok(found)
    }

    /// Takes what a feature has near a window, which is as wide as the widest line reaches.
    fn take(&mut self, feature: &Feature, window: &WorldBox, pixel: impl Fn(&Point) -> Point) {
        let pixels = |points: &[Point]| -> Vec<Point> { points.iter().map(&pixel).collect() };
        let class = feature.class as usize;
        match &feature.shape {
            Shape::Lines(lines) => {
                // Whole, because dashes are counted along them.
                let tile = feature.tile.as_ref();
                let tile = tile.map(|tile| WorldBox { min: pixel(&tile.min), max: pixel(&tile.max) });
                let line = |line: &Vec<Point>| FoundLine { level: feature.level, points: pixels(line), tile };
                self.lines[class].extend(lines.iter().map(line));
            }
            Shape::Area { rings, outline } => {
                let near = |line: &Vec<Point>| {
                    near_line(line, window).iter().map(|part| pixels(part)).collect::<Vec<_>>()
                };
                let outline = outline.as_ref().map(|lines| lines.iter().flat_map(near).collect());
                let outline = outline.or_else(|| {
                    let is_whole = window.holds(&feature.bounds);
                    let closed = |ring: &Vec<Point>| ring.iter().chain(ring.first()).copied().collect();
                    (!is_whole)
                        .then(|| rings.iter().map(closed).collect::<Vec<_>>().iter().flat_map(near).collect())
                });
                let rings = rings.iter().map(|ring| pixels(&near_ring(ring, window))).collect();
                self.areas[class].push(FoundArea { rings, outline });
            }
        }
    }
}

/// Whether a line is whole, and how it ends, or broken into dashes.
#[derive(Clone, Copy)]
enum Ends {
    Cap(Cap),
    Dash([f64; 2]),
}

/// A picture in the making.
struct Drawing<'a> {
    style: &'a Style,
    zoom: u8,
    /// Pixels per pixel of the style.
    scale: f64,
    frame: Frame,
    found: Found,
    canvas: Canvas,
}

impl Drawing<'_> {
    fn area(&mut self, layer: &Layer) {
        let Look::Area { fill, outline } = &layer.look else { return };
        let areas = || layer.classes.iter().flat_map(|class| &self.found.areas[*class as usize]);
        let mut outlines = Outlines::new(self.frame);
        areas().flat_map(|area| &area.rings).for_each(|ring| outlines.add(ring.iter().copied()));
        self.canvas.fill(*fill, outlines);
        let Some((colour, width)) = outline else { return };
        let width = width.at(self.zoom) * self.scale;
        if width == 0.0 {
            return;
        }
        let mut outlines = Outlines::new(self.frame);
        for area in areas() {
            match &area.outline {
                Some(lines) => lines.iter().for_each(|line| add_line(&mut outlines, line, width, Cap::Round)),
                None => {
                    for ring in &area.rings {
                        let closed: Vec<_> = ring.iter().chain(ring.first()).copied().collect();
                        add_line(&mut outlines, &closed, width, Cap::Round);
                    }
                }
            }
        }
        self.canvas.fill(*colour, outlines);
    }

    /// Layers of lines: level by level from below, and on each the casings below the lines.
    fn network(&mut self, layers: &[&Layer]) {
        for level in Level::ALL {
            for layer in layers {
                if let Look::Line { width, casing: Some((colour, edge)), .. } = &layer.look {
                    let edge = edge.at(self.zoom);
                    if edge > 0.0 {
                        // The casing of a bridge ends where it does, else it would cross the road that goes on.
                        let cap = if level == Level::Bridge { Cap::Butt } else { Cap::Round };
                        self.lines(layer, level, *colour, width.at(self.zoom) + 2.0 * edge, Ends::Cap(cap));
                    }
                }
            }
            for layer in layers {
                if let Look::Line { colour, width, dash, .. } = &layer.look {
                    let ends = dash.map_or(Ends::Cap(Cap::Round), Ends::Dash);
                    self.lines(layer, level, *colour, width.at(self.zoom), ends);
                }
            }
        }
    }

    fn lines(&mut self, layer: &Layer, level: Level, colour: [u8; 3], width: f64, ends: Ends) {
        let width = width * self.scale;
        let colour = if level == Level::Tunnel { self.style.faded(colour) } else { colour };
        let window = WorldBox {
            min: self.frame.corner.map(|edge| edge as f64),
            max: [0, 1].map(|axis| self.frame.corner[axis] as f64 + f64::from(self.frame.size[axis])),
        };
        let mut outlines = Outlines::new(self.frame);
        let lines = layer.classes.iter().flat_map(|class| &self.found.lines[*class as usize]);
        for line in lines.filter(|line| line.level == level) {
            match ends {
                Ends::Cap(cap) => add_line(&mut outlines, &line.points, width, cap),
                Ends::Dash(dash) => {
                    let dash = dash.map(|length| length * self.scale);
                    match &line.tile {
                        Some(tile) => {
                            add_cut_dashes(&mut outlines, &line.points, width, dash, (tile, &window))
                        }
                        None => add_dashes(&mut outlines, &line.points, width, Dashes::new(dash), &window),
                    }
                }
            }
        }
        self.canvas.fill(colour, outlines);
    }
}
