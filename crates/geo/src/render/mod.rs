//! Maps drawn from vector data: [`Renderer`], and [`render_pyramid`] for many tiles.
//!
//! | part | holds |
//! |---|---|
//! | [`VectorSource`] | where features come from: [`VectorTiles`], [`GeoJson`], [`OpenStreetMap`]; [`open_vectors`] goes by the ending |
//! | [`Class`], [`Level`] | what a feature is, whatever the words of its source |
//! | [`Style`] | how classes look and in which order they are drawn; a TOML file |
//! | [`Renderer`] | pictures of tiles, windows and boxes |
//! | [`render_pyramid`] | tiles of many zooms into any store |
//!
//! There are no labels. A tile drawn by itself equals, to the last bit, the same pixels of a larger picture: tiles fit
//! together without seams, and windows cut for training equal the tiles of a pyramid.
//!
//! # Example
//!
//! ```
//! use earthmapper_geo::Tile;
//! use earthmapper_geo::render::{Class, Renderer, Style, open_vectors};
//!
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("pond.geojson");
//! std::fs::write(&path, r#"{"type": "Polygon", "coordinates": [[[-90, -45], [90, -45], [90, 45], [-90, 45], [-90, -45]]]}"#)?;
//!
//! let renderer = Renderer::new(Style::clean(), open_vectors(&path, Some(Class::Water))?);
//! let world = renderer.render("0/0/0".parse::<Tile>()?, 256)?;
//! assert_eq!(world.pixel(128, 128), [0xA3, 0xCB, 0xE3]);
//! assert_eq!(world.pixel(10, 10), renderer.style().land());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod canvas;
mod class;
mod clip;
mod draw;
mod error;
mod feature;
mod pyramid;
mod schema;
mod source;
mod stroke;
mod style;
mod tags;

pub use class::{Class, Level};
pub use error::RenderError;
pub use feature::{Feature, Point, Shape, WorldBox, mercator};
pub use pyramid::{Pyramid, PyramidProgress, render_pyramid};
pub use source::{GeoJson, OpenStreetMap, VectorSource, VectorTiles, open_vectors};
pub use style::Style;

use crate::picture::Picture;
use crate::store::{TileFormat, TileMetadata};
use crate::tile::{BoundingBox, MAX_ZOOM, Tile, TileError, row_fraction};
use canvas::Frame;

/// The longest side of a picture in pixels.
pub const MAX_MAP_SIDE: u32 = 4096;

/// The longest side of a tile in pixels. A picture is drawn in whole tiles, and the rasteriser counts to 8191.
pub const MAX_TILE_SIDE: u32 = 2048;

/// A rectangle of pixels of the whole world, which is 2^zoom tiles wide and high.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MapWindow {
    /// The zoom.
    pub zoom: u8,
    /// The side of a tile in pixels; widths of lines grow with it.
    pub tile_side: u32,
    /// Pixels from 180° west; the world goes on beyond both its sides.
    pub x: i64,
    /// Pixels from the northern edge.
    pub y: u64,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
}

/// Draws maps of a source in a style.
pub struct Renderer {
    style: Style,
    source: Box<dyn VectorSource>,
}

impl Renderer {
    /// A renderer from its two parts.
    pub fn new(style: Style, source: Box<dyn VectorSource>) -> Self {
        Self { style, source }
    }

    /// How it is drawn.
    pub fn style(&self) -> &Style {
        &self.style
    }

    /// What is drawn.
    pub fn source(&self) -> &dyn VectorSource {
        self.source.as_ref()
    }

    /// Metadata for tiles of this source: its attribution, and the name and format given.
    pub fn metadata(&self, name: impl Into<String>, format: TileFormat) -> TileMetadata {
        let attribution = self.source.attribution().map(str::to_owned);
        TileMetadata { attribution, ..TileMetadata::new(name, format) }
    }

    /// A tile as a picture of `side × side` pixels. Twice the side gives the same map twice as sharp.
    ///
    /// # Errors
    ///
    /// [`RenderError::Size`] unless the side is 1 … [`MAX_TILE_SIDE`], and of the source.
    pub fn render(&self, tile: Tile, side: u32) -> Result<Picture, RenderError> {
        let (x, y) = (i64::from(tile.x()) * i64::from(side), u64::from(tile.y()) * u64::from(side));
        self.render_window(MapWindow { zoom: tile.z(), tile_side: side, x, y, width: side, height: side })
    }

    /// A part of the map that need not be a tile.
    ///
    /// # Errors
    ///
    /// [`RenderError::Size`] unless the sides are 1 … [`MAX_MAP_SIDE`] and that of a tile 1 … [`MAX_TILE_SIDE`];
    /// [`RenderError::OutsideWorld`] for rows that do not exist; and of the source.
    pub fn render_window(&self, window: MapWindow) -> Result<Picture, RenderError> {
        let (frame, left, top) = window.frame()?;
        let picture = draw::draw(&self.style, self.source.as_ref(), window.zoom, frame)?;
        if frame.size == [window.width, window.height] {
            return Ok(picture);
        }
        Ok(picture.crop(left, top, window.width, window.height))
    }

    /// The smallest picture that holds a box, at a zoom with tiles of a side.
    ///
    /// # Errors
    ///
    /// As [`Renderer::render_window`].
    pub fn render_box(&self, bounds: BoundingBox, zoom: u8, tile_side: u32) -> Result<Picture, RenderError> {
        self.render_window(MapWindow::around(bounds, zoom, tile_side)?)
    }
}

impl MapWindow {
    /// The pixels that a box touches with more than a border; at least one.
    ///
    /// # Errors
    ///
    /// [`RenderError::Size`] when that is more than [`MAX_MAP_SIDE`]; [`TileError::Zoom`].
    pub fn around(bounds: BoundingBox, zoom: u8, tile_side: u32) -> Result<Self, RenderError> {
        Tile::new(zoom, 0, 0)?;
        let side = f64::from(tile_side) * f64::from(1_u32 << zoom);
        // A thousandth of a pixel of rounding is no pixel.
        let first = |fraction: f64| (fraction * side + 1e-3).floor();
        let length = |first: f64, end: f64| ((end * side - 1e-3).ceil() - first).max(1.0);
        let (west, row) =
            ((bounds.west() + 180.0) / 360.0, |latitude| row_fraction(latitude).clamp(0.0, 1.0));
        let (x, y) = (first(west), first(row(bounds.north())).min(side - 1.0));
        let width = length(x, west + bounds.width() / 360.0);
        let height = length(y, row(bounds.south()));
        if width.max(height) > f64::from(MAX_MAP_SIDE) {
            return Err(RenderError::Size {
                width: width as u64,
                height: height as u64,
                limit: MAX_MAP_SIDE,
            });
        }
        let (width, height) = (width as u32, height as u32);
        Ok(Self { zoom, tile_side, x: x as i64, y: y as u64, width, height })
    }

    /// The whole tiles that hold the window, and where it lies in them.
    fn frame(&self) -> Result<(Frame, u32, u32), RenderError> {
        let size = |width: u32, height: u32, limit| {
            Err(RenderError::Size { width: width.into(), height: height.into(), limit })
        };
        if self.zoom > MAX_ZOOM {
            return Err(TileError::Zoom(self.zoom).into());
        }
        if !(1..=MAX_TILE_SIDE).contains(&self.tile_side) {
            return size(self.tile_side, self.tile_side, MAX_TILE_SIDE);
        }
        if ![self.width, self.height].iter().all(|side| (1..=MAX_MAP_SIDE).contains(side)) {
            return size(self.width, self.height, MAX_MAP_SIDE);
        }
        let side = i64::from(self.tile_side);
        let world = side << self.zoom;
        let (first, end) = (self.y, self.y.saturating_add(self.height.into()));
        if end > world as u64 {
            let (last, end) = (end - 1, world as u64 - 1);
            return Err(RenderError::OutsideWorld { first, last, zoom: self.zoom, end });
        }
        // Any window is the same as one that begins in the world.
        let x = self.x.rem_euclid(world);
        let tiles = |start: i64, length: u32| {
            let first = start.div_euclid(side) * side;
            let end = (start + i64::from(length) + side - 1).div_euclid(side) * side;
            (first, (end - first) as u32)
        };
        let y = self.y as i64;
        let ((left, width), (top, height)) = (tiles(x, self.width), tiles(y, self.height));
        let frame = Frame { corner: [left, top], size: [width, height], tile_side: self.tile_side };
        Ok((frame, (x - left) as u32, (y - top) as u32))
    }
}
