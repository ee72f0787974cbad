//! Many tiles into a store: [`render_pyramid`].

use std::ops::{ControlFlow, RangeInclusive};

use rayon::prelude::*;

use super::Renderer;
use super::error::RenderError;
use crate::picture::{WriteOptions, encode_picture};
use crate::store::{MAX_LISTED_TILES, StoreError, TileWriter, in_store_order};
use crate::tile::{BoundingBox, Tile, TileCover};

/// Tiles drawn at once per thread; more would only delay the news of progress.
const TILES_PER_THREAD: usize = 8;

/// Which tiles to draw.
#[derive(Clone, Debug, PartialEq)]
pub struct Pyramid {
    /// The ground that the tiles of every zoom touch.
    pub bounds: BoundingBox,
    /// The zooms.
    pub zooms: RangeInclusive<u8>,
    /// The side of a tile in pixels.
    pub tile_side: u32,
}

impl Pyramid {
    /// The tiles of each zoom.
    ///
    /// # Errors
    ///
    /// [`RenderError::Tile`] for a zoom that does not exist.
    pub fn covers(&self) -> Result<Vec<TileCover>, RenderError> {
        self.zooms.clone().map(|zoom| Ok(self.bounds.tiles(zoom)?)).collect()
    }
}

/// How far [`render_pyramid`] has come.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct PyramidProgress {
    /// All tiles there are to be.
    pub total: u64,
    /// Tiles drawn and written now.
    pub written: u64,
    /// Tiles that were there already.
    pub skipped: u64,
}

impl PyramidProgress {
    /// Whether every tile is there.
    pub fn is_complete(&self) -> bool {
        self.written + self.skipped == self.total
    }
}

/// Draws the tiles that a writer does not have yet, on all threads of rayon, and writes them in the store's order, so
/// that the same store comes out whatever the number of threads. They are encoded in the format of the writer's
/// metadata, for which there is [`Renderer::metadata`]; the writer is not finished.
///
/// `progress` is told after every few tiles. When it breaks, the work ends there: tiles written stay, and what is given
/// back is not complete. Another call with a writer that continues does the rest.
///
/// # Errors
///
/// Of the source or the writer; [`StoreError::TooManyTiles`] when a zoom has more tiles than can be listed. Tiles
/// written until then stay.
pub fn render_pyramid(
    renderer: &Renderer,
    pyramid: &Pyramid,
    writer: &mut dyn TileWriter,
    progress: &mut dyn FnMut(PyramidProgress) -> ControlFlow<()>,
) -> Result<PyramidProgress, RenderError> {
    let covers = pyramid.covers()?;
    if covers.iter().any(|cover| cover.len() > MAX_LISTED_TILES as u64) {
        let path = writer.path().to_owned();
        return Err(StoreError::TooManyTiles { path, limit: MAX_LISTED_TILES }.into());
    }
    let total = covers.iter().map(TileCover::len).sum();
    let mut done = PyramidProgress { total, ..PyramidProgress::default() };
    let ending = writer.metadata().format.extension();
    let options = WriteOptions::default();
    let encoded = |tile: &Tile| -> Result<Vec<u8>, RenderError> {
        Ok(encode_picture(ending, &renderer.render(*tile, pyramid.tile_side)?, &options)?)
    };
    for cover in covers {
        let tiles = in_store_order(cover.iter().collect());
        for tiles in tiles.chunks(TILES_PER_THREAD * rayon::current_num_threads()) {
            let mut missing = Vec::new();
            for tile in tiles {
                if writer.contains(*tile)? {
                    done.skipped += 1;
                } else {
                    missing.push(*tile);
                }
            }
            let pictures: Vec<_> = missing.par_iter().map(encoded).collect();
            for (tile, picture) in missing.into_iter().zip(pictures) {
                writer.write(tile, &picture?)?;
                done.written += 1;
            }
            if progress(done).is_break() {
                return Ok(done);
            }
        }
    }
    Ok(done)
}
