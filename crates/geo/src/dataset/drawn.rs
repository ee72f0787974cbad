//! Maps of a dataset drawn by our own renderer.

use crate::picture::Picture;
use crate::render::{RenderError, Renderer, Style, open_vectors};
use crate::store::StoreError;
use crate::tile::Tile;

use super::map::{MapError, MapSource};
use super::options::SourceOptions;

/// Endings of vector data, and of stores that hold vectors or pictures.
const VECTORS: [&str; 5] = ["geojson", "json", "pbf", "pmtiles", "mbtiles"];

/// Draws maps from vector data: GeoJSON, OpenStreetMap's .pbf, and PMTiles and MBTiles that hold vectors. For the `draw` argument of
/// [`make`](fn@super::make); gives none for rasters and stores of pictures.
///
/// # Errors
///
/// [`RenderError`], in a box.
pub fn drawn_maps(options: &SourceOptions) -> Result<Option<Box<dyn MapSource>>, MapError> {
    let ending = options.path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    if !options.path.is_file() || !VECTORS.contains(&ending.as_str()) {
        return Ok(None);
    }
    let source = match open_vectors(&options.path, options.class) {
        Ok(source) => source,
        // A store of pictures, which are taken as they are.
        Err(RenderError::Store(StoreError::Unsupported { .. })) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let style = match &options.style {
        Some(path) => Style::read(path)?,
        None => Style::clean(),
    };
    Ok(Some(Box::new(Renderer::new(style, source))))
}

impl MapSource for Renderer {
    fn map(&self, tile: Tile, side: u32) -> Result<Option<Picture>, MapError> {
        if let Some(bounds) = self.source().bounds()
            && !bounds.tiles(tile.z())?.contains(tile)
        {
            return Ok(None);
        }
        Ok(Some(self.render(tile, side)?))
    }
}
