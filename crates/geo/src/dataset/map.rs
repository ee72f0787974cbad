use std::error::Error;

use crate::picture::Picture;
use crate::tile::Tile;

use super::options::SourceOptions;

/// Why a map was not drawn; its message names the file and ends with the cure.
pub type MapError = Box<dyn Error + Send + Sync>;

/// Maps that are drawn on demand, for example from vector data.
pub trait MapSource: Send + Sync {
    /// The map of a tile as a picture of `side × side` pixels, or none where nothing is known of the ground.
    ///
    /// The tile is one of WGS 84 (or of the datum that the options name), and the same tile always gives the same
    /// picture. Neighbouring tiles fit together: pairs that are not cut along tiles are put together from several.
    ///
    /// # Errors
    ///
    /// Whatever keeps the map from being drawn.
    fn map(&self, tile: Tile, side: u32) -> Result<Option<Picture>, MapError>;
}

/// Draws maps from what some options name; none when they name a raster or a tile store.
pub type Draw<'a> = &'a dyn Fn(&SourceOptions) -> Result<Option<Box<dyn MapSource>>, MapError>;

/// Draws no maps: every map is read from a raster or a tile store. For the `draw` argument of
/// [`make`](fn@super::make).
///
/// # Errors
///
/// None.
pub fn no_drawn_maps(_: &SourceOptions) -> Result<Option<Box<dyn MapSource>>, MapError> {
    Ok(None)
}
