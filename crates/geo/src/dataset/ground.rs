//! Imagery and maps of every kind, cut into squares.

use std::ops::ControlFlow;

use super::cell::{Cell, Frame, around, crs_error, nearest_zoom};
use super::error::DatasetError;
use super::manifest::Credit;
use super::map::{Draw, MapSource};
use super::options::SourceOptions;
use super::resample::{Mapping, Patch, resample};
use crate::lonlat::LonLat;
use crate::picture::{Mask, Picture, PictureLimits, decode_with_holes};
use crate::raster::{Locator, PixelWindow, RasterLimits, RasterReader, Rendering, Stretch};
use crate::store::{NamedReader, TileReader, open_tiles};
use crate::tile::{BoundingBox, MAX_ZOOM, Tile, in_world};

/// The most pixels of a source that one square is made of.
const MAX_PIXELS: u64 = 1 << 24;

/// Tiles that are looked at to find out how many pixels they have.
const TRIED: usize = 16;

/// Sides that tiles may have.
const TILE_SIDES: std::ops::RangeInclusive<u32> = 16..=4096;

/// An open source of pictures of the ground.
pub(super) struct Ground {
    pub options: SourceOptions,
    pub kind: Kind,
}

// There are two of these per source; a box would buy nothing.
#[allow(clippy::large_enum_variant)]
pub(super) enum Kind {
    Tiles { reader: Box<dyn TileReader>, side: u32 },
    Raster { reader: RasterReader, rendering: Rendering, locator: Locator },
    Drawn(Box<dyn MapSource>),
}

/// A position on a plane of pixels of a source, from its top left corner.
type Position = (f64, f64);

impl Ground {
    pub fn open(options: &SourceOptions, draw: Draw<'_>) -> Result<Self, DatasetError> {
        let path = &options.path;
        let drawn = draw(options).map_err(|cause| DatasetError::MapInput { path: path.clone(), cause })?;
        let kind = match drawn {
            Some(drawn) => Kind::Drawn(drawn),
            None if options.is_raster() => {
                let reader = open_raster(options)?;
                let rendering = reader.rendering(options.bands.as_deref(), Stretch::Auto)?;
                let locator =
                    Locator::new(reader.georeference()?).map_err(|cause| crs_error(&reader, cause))?;
                Kind::Raster { reader, rendering, locator }
            }
            None => {
                let reader: Box<dyn TileReader> = match &options.pattern {
                    Some(pattern) => Box::new(NamedReader::open(path, pattern)?),
                    None => open_tiles(path)?,
                };
                let side = usual_side(reader.as_ref())?;
                Kind::Tiles { reader, side }
            }
        };
        Ok(Self { options: options.clone(), kind })
    }

    pub fn credit(&self) -> Credit {
        let stored = match &self.kind {
            Kind::Tiles { reader, .. } => reader.metadata().attribution.clone(),
            _ => None,
        };
        Credit {
            attribution: self.options.attribution.clone().or(stored),
            licence: self.options.licence.clone(),
        }
    }

    /// The box around a raster, in its datum; none of other kinds.
    pub fn bounds(&self) -> Result<Option<BoundingBox>, DatasetError> {
        let Kind::Raster { reader, locator, .. } = &self.kind else { return Ok(None) };
        let lonlat = |x: f64, y: f64| Ok(locator.lonlat(x, y).map_err(|cause| crs_error(reader, cause))?);
        around(f64::from(reader.width()), f64::from(reader.height()), lonlat).map(Some)
    }

    /// The square as this source shows it, `moved` pixels to the right and down; none where it shows nothing.
    pub fn patch(&self, frame: &Frame, cell: Cell, moved: [i32; 2]) -> Result<Option<Patch>, DatasetError> {
        let [right, down] = [0, 1].map(|axis| self.options.offset[axis] + f64::from(moved[axis]));
        let point = |x: f64, y: f64| {
            let point = frame.lonlat(cell, x + right, y + down)?;
            Ok(frame.datum.convert(point, self.options.datum))
        };
        match &self.kind {
            Kind::Tiles { reader, side } => {
                let zoom = self.zoom(frame, cell)?;
                let tile = |tile| stored_tile(reader.as_ref(), tile, *side);
                self.of_tiles(frame.side, zoom, *side, point, tile)
            }
            Kind::Drawn(source) => {
                let zoom = self.zoom(frame, cell)?;
                self.of_tiles(frame.side, zoom, frame.side, point, |tile| {
                    self.drawn_tile(source.as_ref(), tile, frame.side)
                })
            }
            Kind::Raster { reader, rendering, locator } => {
                let mapping = Mapping::new(frame.side, |x, y| {
                    let found = locator.pixel(point(x, y)?);
                    found.map_err(|cause| DatasetError::from(crs_error(reader, cause)))
                })?;
                self.of_raster(frame.side, mapping, reader, rendering)
            }
        }
    }

    /// The zoom whose tiles make the square.
    fn zoom(&self, frame: &Frame, cell: Cell) -> Result<u8, DatasetError> {
        if let Cell::Tile(tile) = cell {
            return Ok(tile.z());
        }
        let place = frame.place(cell)?;
        let metres = place.metres_per_pixel().expect("squares know their size");
        let latitude = place.position().latitude();
        Ok(match &self.kind {
            Kind::Tiles { reader, side } => {
                let (least, most) = (reader.metadata().min_zoom, reader.metadata().max_zoom);
                // A little less than the square's own, so that enlarging is the exception.
                let zoom = nearest_zoom(metres / 1.3, latitude, *side);
                zoom.clamp(least.unwrap_or(0), most.unwrap_or(MAX_ZOOM).max(least.unwrap_or(0)))
            }
            _ => nearest_zoom(metres, latitude, frame.side),
        })
    }

    fn of_tiles(
        &self,
        side: u32,
        zoom: u8,
        tile_side: u32,
        point: impl Fn(f64, f64) -> Result<LonLat, DatasetError>,
        fetch: impl Fn(Tile) -> Result<Option<Patch>, DatasetError>,
    ) -> Result<Option<Patch>, DatasetError> {
        let columns = 1_i64 << zoom;
        let world = columns as f64 * f64::from(tile_side);
        let mut first = None;
        let mapping = Mapping::new(side, |x, y| {
            let (x, y) = in_world(point(x, y)?);
            // The square may reach over the antimeridian: positions go on beyond the edge of the world.
            let start = *first.get_or_insert(x);
            let beside = (x - start + 1.5).rem_euclid(1.0) - 0.5;
            Ok::<Position, DatasetError>(((start + beside) * world, y * world))
        })?;
        let (left, top, right, bottom) = self.whole_pixels(&mapping)?;
        let tile_side = i64::from(tile_side);
        let (first_column, first_row) = (left.div_euclid(tile_side), top.div_euclid(tile_side));
        let (last_column, last_row) = ((right - 1).div_euclid(tile_side), (bottom - 1).div_euclid(tile_side));
        let size = |first: i64, last: i64| (last - first + 1) * tile_side;
        let (width, height) = (size(first_column, last_column), size(first_row, last_row));
        if (width * height) as u64 > MAX_PIXELS {
            return Err(self.too_fine(width as u64, height as u64));
        }
        let mut picture = Picture::filled(width as u32, height as u32, [255; 3]);
        let mut holes = vec![true; (width * height) as usize];
        let mut is_empty = true;
        for row in first_row.max(0)..=last_row.min(columns - 1) {
            for column in first_column..=last_column {
                let tile = Tile::new(zoom, column.rem_euclid(columns) as u32, row as u32);
                let Some(part) = fetch(tile.expect("numbers are within the zoom"))? else { continue };
                is_empty = false;
                let (x, y) = ((column - first_column) * tile_side, (row - first_row) * tile_side);
                picture.paste(&part.picture, x as u32, y as u32);
                for (line, values) in part.holes.holes().chunks_exact(tile_side as usize).enumerate() {
                    let start = (y as usize + line) * width as usize + x as usize;
                    holes[start..start + values.len()].copy_from_slice(values);
                }
            }
        }
        if is_empty {
            return Ok(None);
        }
        let holes = Mask::new(width as u32, height as u32, holes).expect("one value per pixel");
        let corner = (first_column * tile_side, first_row * tile_side);
        Ok(Some(resample(&Patch { picture, holes }, corner, &mapping, side)))
    }

    fn of_raster(
        &self,
        side: u32,
        mapping: Mapping,
        reader: &RasterReader,
        rendering: &Rendering,
    ) -> Result<Option<Patch>, DatasetError> {
        let levels = reader.levels();
        let shrunk = |(width, height): (u32, u32)| {
            (f64::from(levels[0].0) / f64::from(width), f64::from(levels[0].1) / f64::from(height))
        };
        // The smallest overview that still has a pixel for each of the square.
        let fits = |size: &(u32, u32)| shrunk(*size).0.max(shrunk(*size).1) <= mapping.scale() * 1.01;
        let level = levels.iter().rposition(fits).unwrap_or(0);
        let (width, height) = levels[level];
        let (across, along) = shrunk(levels[level]);
        let mapping = mapping.mapped(|(x, y)| (x / across, y / along));
        let (left, top, right, bottom) = self.whole_pixels(&mapping)?;
        let (left, top) = (left.max(0), top.max(0));
        let (right, bottom) = (right.min(i64::from(width)), bottom.min(i64::from(height)));
        if left >= right || top >= bottom {
            return Ok(None);
        }
        let window = PixelWindow::new(left as u32, top as u32, (right - left) as u32, (bottom - top) as u32);
        let read = reader.read_window(level, window, rendering)?;
        if read.nodata.hole_count() == read.nodata.holes().len() {
            return Ok(None);
        }
        let part = Patch { picture: read.picture, holes: read.nodata };
        Ok(Some(resample(&part, (left, top), &mapping, side)))
    }

    /// The pixels that the square and its neighbours take in: left, top, and the first ones beyond right and bottom.
    fn whole_pixels(&self, mapping: &Mapping) -> Result<(i64, i64, i64, i64), DatasetError> {
        // Positions of whole pixels come with errors of a millionth, which must not take in another tile.
        const NEARLY: f64 = 1e-4;
        let (left, top, right, bottom) = mapping.extent();
        let (width, height) = (right - left, bottom - top);
        if width * height > MAX_PIXELS as f64 || (width * height).is_nan() {
            return Err(self.too_fine(width as u64, height as u64));
        }
        // Half a pixel around, for what lies between the middles of pixels of either side of the border.
        let half = |position: f64| if (position - position.round()).abs() < NEARLY { 0.0 } else { 0.5 };
        Ok((
            (left - half(left) + NEARLY).floor() as i64,
            (top - half(top) + NEARLY).floor() as i64,
            (right + half(right) - NEARLY).ceil() as i64,
            (bottom + half(bottom) - NEARLY).ceil() as i64,
        ))
    }

    fn too_fine(&self, width: u64, height: u64) -> DatasetError {
        DatasetError::TooFine { path: self.options.path.clone(), width, height }
    }

    fn drawn_tile(
        &self,
        source: &dyn MapSource,
        tile: Tile,
        side: u32,
    ) -> Result<Option<Patch>, DatasetError> {
        let path = || self.options.path.clone();
        let drawn =
            source.map(tile, side).map_err(|cause| DatasetError::Map { path: path(), tile, cause })?;
        let Some(picture) = drawn else { return Ok(None) };
        let (width, height) = (picture.width(), picture.height());
        if (width, height) != (side, side) {
            return Err(DatasetError::OddTile { path: path(), tile, width, height });
        }
        Ok(Some(Patch { holes: Mask::filled(side, side, false), picture }))
    }
}

pub(super) fn open_raster(options: &SourceOptions) -> Result<RasterReader, DatasetError> {
    let reader = RasterReader::open(&options.path, &RasterLimits::default())?;
    Ok(match options.crs {
        Some(crs) => reader.with_crs(crs)?,
        None => reader,
    })
}

/// The side of the first tile that is a square picture.
fn usual_side(reader: &dyn TileReader) -> Result<u32, DatasetError> {
    let mut first = Vec::new();
    reader.visit(&mut |tile| {
        first.push(tile);
        if first.len() < TRIED { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    let side = |tile: &Tile| {
        let encoded = reader.read(*tile).ok()??;
        let (picture, _) = decode_with_holes(&encoded.bytes, reader.path(), &tile_limits()).ok()?;
        let side = picture.width();
        (side == picture.height() && TILE_SIDES.contains(&side)).then_some(side)
    };
    Ok(first.iter().find_map(side).unwrap_or(256))
}

/// A tile of a store as a picture of `side` pixels; tiles of other sizes occur in real stores and are resized.
fn stored_tile(reader: &dyn TileReader, tile: Tile, side: u32) -> Result<Option<Patch>, DatasetError> {
    let Some(encoded) = reader.read(tile)? else { return Ok(None) };
    let name = reader.path().join(format!("tile {tile}"));
    let (picture, holes) = decode_with_holes(&encoded.bytes, &name, &tile_limits())?;
    let (width, height) = (picture.width(), picture.height());
    if width != height || !TILE_SIDES.contains(&width) {
        return Err(DatasetError::OddTile { path: reader.path().to_owned(), tile, width, height });
    }
    if width == side {
        return Ok(Some(Patch { picture, holes }));
    }
    Ok(Some(Patch { picture: picture.resized(side, side), holes: holes.resized(side, side) }))
}

fn tile_limits() -> PictureLimits {
    PictureLimits { max_pixels: MAX_PIXELS, ..PictureLimits::default() }
}
