//! Where features come from: [`VectorSource`], and the kinds of it.
//!
//! | source | files |
//! |---|---|
//! | [`VectorTiles`] | vector PMTiles and MBTiles: Mapbox vector tiles in the schemas of OpenMapTiles and Protomaps |
//! | [`GeoJson`] | GeoJSON in WGS 84, with tags of OpenStreetMap as properties or one class for all |
//! | [`OpenStreetMap`] | extracts of OpenStreetMap, `.osm.pbf` |

mod blocks;
mod geojson;
mod index;
mod openstreetmap;
mod rings;
mod tile_features;
mod vector_tiles;

use std::fs::File;
use std::io::Read;
use std::path::Path;

pub use geojson::GeoJson;
pub use openstreetmap::OpenStreetMap;
pub use vector_tiles::VectorTiles;

use super::class::Class;
use super::error::RenderError;
use super::feature::{Feature, WorldBox};
use crate::tile::BoundingBox;

/// Features to be drawn, from several threads if need be.
pub trait VectorSource: Send + Sync {
    /// The file.
    fn path(&self) -> &Path;

    /// Whom to name beside the map; may be HTML, as it comes.
    fn attribution(&self) -> Option<&str>;

    /// The ground that is covered, where that is known.
    fn bounds(&self) -> Option<BoundingBox>;

    /// Shows every feature that may touch a box at a zoom, with the number of worlds that it must be moved to the right
    /// by to get there. Copies of a feature may come from several vector tiles. What is shown of the ground
    /// that two boxes share must be the same, else tiles would not fit together.
    ///
    /// # Errors
    ///
    /// [`RenderError::BelowFirstZoom`], [`RenderError::BadTile`], and of reading the file.
    fn visit(
        &self,
        window: &WorldBox,
        zoom: u8,
        visitor: &mut dyn FnMut(&Feature, f64),
    ) -> Result<(), RenderError>;
}

/// Opens a source by its ending: `.pmtiles`, `.mbtiles`, `.geojson` or `.json`, `.pbf`. `class` is that of the features of GeoJSON
/// whose properties say nothing.
///
/// # Errors
///
/// Every [`RenderError`] about reading; [`RenderError::Unsupported`] for other endings.
pub fn open_vectors(
    path: impl AsRef<Path>,
    class: Option<Class>,
) -> Result<Box<dyn VectorSource>, RenderError> {
    let path = path.as_ref();
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase());
    match ending.as_deref() {
        Some("pmtiles" | "mbtiles") => Ok(Box::new(VectorTiles::open(path)?)),
        Some("geojson" | "json") => Ok(Box::new(GeoJson::open(path, class)?)),
        Some("pbf") => Ok(Box::new(OpenStreetMap::open(path)?)),
        _ => Err(RenderError::Unsupported {
            path: path.to_owned(),
            feature: "an ending that says no known kind of vector data".to_owned(),
            cure: "give a file ending in .pmtiles, .mbtiles, .geojson or .osm.pbf",
        }),
    }
}

/// A file as a whole, within a limit.
fn read_bounded(path: &Path, limit: u64, cure: &'static str) -> Result<Vec<u8>, RenderError> {
    let unread = |cause| RenderError::Io { path: path.to_owned(), cause };
    let mut bytes = Vec::new();
    File::open(path).map_err(unread)?.take(limit + 1).read_to_end(&mut bytes).map_err(unread)?;
    if bytes.len() as u64 > limit {
        return Err(RenderError::TooLarge { path: path.to_owned(), limit, what: "bytes", cure });
    }
    Ok(bytes)
}
