//! Georeferenced rasters: GeoTIFF and COG, read window by window and written row by row, never whole in memory.
//!
//! | part | holds |
//! |---|---|
//! | [`GeoReference`] | the transform from pixels to coordinates, and the CRS exactly as a file says it |
//! | [`Epsg`] | a CRS by its number; [`CrsError`] says why a place cannot be computed |
//! | [`RasterReader`] | windows of a file as 8-bit pictures, with a mask of where there is no data |
//! | [`Stretch`], [`Rendering`] | which bands are shown, and how numbers become bytes |
//! | [`RasterWriter`] | a COG: tiles, overviews, deflate, the same CRS and transform |

mod cog;
mod crs;
mod error;
mod geokeys;
mod georeference;
mod header;
mod reader;
mod samples;
mod stretch;
mod writer;

use std::fmt;

pub use crs::{CrsError, CrsKind, Epsg, NoEpsg};
pub use error::RasterError;
pub use geokeys::{GeoKeys, PixelIs};
pub(crate) use georeference::Locator;
pub use georeference::{AffineTransform, GeoReference};
pub use reader::{RasterReader, RasterWindow};
pub use samples::SampleType;
pub use stretch::{Rendering, Stretch};
pub use writer::{RasterOptions, RasterWriter, Validity};

/// Tags of TIFF files that both reading and writing know.
mod tag {
    pub const SUBFILE: u16 = 254;
    pub const PIXEL_SCALE: u16 = 33550;
    pub const TIE_POINTS: u16 = 33922;
    pub const TRANSFORMATION: u16 = 34264;
    pub const GEO_KEYS: u16 = 34735;
    pub const GEO_DOUBLES: u16 = 34736;
    pub const GEO_ASCII: u16 = 34737;
    pub const GDAL_METADATA: u16 = 42112;
    pub const NODATA: u16 = 42113;
}

/// A rectangle of pixels, counted from the top left corner of a raster.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PixelWindow {
    /// Column of its first pixel.
    pub x: u32,
    /// Row of its first pixel.
    pub y: u32,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
}

impl PixelWindow {
    /// A window from its top left corner and size.
    pub fn new(x: u32, y: u32, width: u32, height: u32) -> Self {
        Self { x, y, width, height }
    }

    /// Whether it has pixels and all of them lie inside a raster of this size.
    pub fn is_inside(&self, width: u32, height: u32) -> bool {
        let fits = |start: u32, length: u32, whole: u32| {
            length > 0 && start.checked_add(length).is_some_and(|end| end <= whole)
        };
        fits(self.x, self.width, width) && fits(self.y, self.height, height)
    }

    /// How many pixels it has.
    fn pixels(&self) -> usize {
        self.width as usize * self.height as usize
    }
}

impl fmt::Display for PixelWindow {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "the window of {} × {} at ({}, {})", self.width, self.height, self.x, self.y)
    }
}

/// How much memory reading may take, so that a small hostile file cannot fill it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RasterLimits {
    /// The most pixels of one window.
    pub max_window_pixels: u64,
    /// The most bytes of one decoded tile or strip.
    pub max_block_bytes: u64,
    /// The most bytes of one table in the header.
    pub max_table_bytes: usize,
    /// Bytes of decoded tiles that are kept for the next window.
    pub cache_bytes: usize,
}

impl Default for RasterLimits {
    /// 16 million pixels, 256 MiB, 64 MiB, 64 MiB.
    fn default() -> Self {
        Self {
            max_window_pixels: 1 << 24,
            max_block_bytes: 256 << 20,
            max_table_bytes: 64 << 20,
            cache_bytes: 64 << 20,
        }
    }
}
