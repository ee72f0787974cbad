//! Vector tiles in a PMTiles or MBTiles file.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::super::error::RenderError;
use super::super::feature::{Feature, WorldBox};
use super::VectorSource;
use super::tile_features::{REACH, decode};
use crate::store::{MbtilesReader, PmtilesReader, StoreError, TileMetadata, TileReader};
use crate::tile::{BoundingBox, MAX_ZOOM, Tile};

/// The most bytes of one vector tile, unpacked. Writers stay below one million or so.
const MAX_TILE_BYTES: usize = 16 << 20;

/// How many points of decoded tiles are kept; 16 bytes each.
const KEPT_POINTS: usize = 4_000_000;

/// A PMTiles or MBTiles file of Mapbox vector tiles in the schema of OpenMapTiles or Protomaps, or with the tags of OpenStreetMap.
///
/// Beyond its deepest zoom the tiles of that zoom are drawn larger. A tile that is not there has no features.
pub struct VectorTiles {
    archive: Archive,
    first_zoom: u8,
    last_zoom: u8,
    kept: Mutex<Kept>,
}

enum Archive {
    Pmtiles(PmtilesReader),
    Mbtiles(MbtilesReader),
}

impl Archive {
    fn reader(&self) -> &dyn TileReader {
        match self {
            Self::Pmtiles(reader) => reader,
            Self::Mbtiles(reader) => reader,
        }
    }

    fn metadata(&self) -> &TileMetadata {
        self.reader().metadata()
    }

    fn unpacked_tile(&self, tile: Tile) -> Result<Option<Vec<u8>>, StoreError> {
        match self {
            Self::Pmtiles(reader) => reader.unpacked_tile(tile),
            Self::Mbtiles(reader) => reader.unpacked_tile(tile),
        }
    }
}

#[derive(Default)]
struct Kept {
    /// The least recently used first.
    tiles: Vec<(Tile, Arc<Vec<Feature>>, usize)>,
    points: usize,
}

impl VectorTiles {
    /// Opens a file; one that ends in `.mbtiles` as MBTiles, any other as PMTiles.
    ///
    /// # Errors
    ///
    /// [`RenderError::Store`] with every [`StoreError`] about reading these files, and `Unsupported` for tiles that are
    /// pictures or MapLibre tiles.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, RenderError> {
        let path = path.as_ref();
        let is_mbtiles = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("mbtiles"));
        let archive = match is_mbtiles {
            true => Archive::Mbtiles(MbtilesReader::open_vector(path)?),
            false => Archive::Pmtiles(PmtilesReader::open_vector(path)?),
        };
        let (first_zoom, last_zoom) = (archive.metadata().min_zoom, archive.metadata().max_zoom);
        let last_zoom = last_zoom.unwrap_or(MAX_ZOOM);
        Ok(Self {
            archive,
            first_zoom: first_zoom.unwrap_or(0).min(last_zoom),
            last_zoom,
            kept: Mutex::default(),
        })
    }

    fn features(&self, tile: Tile) -> Result<Arc<Vec<Feature>>, RenderError> {
        if let Some(features) = self.kept().get(tile) {
            return Ok(features);
        }
        let bad = |detail: String| RenderError::BadTile { path: self.path().to_owned(), tile, detail };
        let bytes = self.archive.unpacked_tile(tile)?.unwrap_or_default();
        if bytes.len() > MAX_TILE_BYTES {
            return Err(bad(format!("is larger than {MAX_TILE_BYTES} bytes")));
        }
        let features = Arc::new(decode(Bytes::from(bytes), tile).map_err(bad)?);
        self.kept().put(tile, features.clone());
        Ok(features)
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn get(&mut self, tile: Tile) -> Option<Arc<Vec<Feature>>> {
        let at = self.tiles.iter().position(|(known, ..)| *known == tile)?;
        self.tiles[at..].rotate_left(1);
        self.tiles.last().map(|(_, features, _)| features.clone())
    }

    fn put(&mut self, tile: Tile, features: Arc<Vec<Feature>>) {
        // Another thread may have decoded it meanwhile.
        if self.get(tile).is_some() {
            return;
        }
        // A tile without features takes some memory too.
        let points = 1_000 + features.iter().map(Feature::points).sum::<usize>();
        self.points += points;
        self.tiles.push((tile, features, points));
        while self.points > KEPT_POINTS && self.tiles.len() > 1 {
            self.points -= self.tiles.remove(0).2;
        }
    }
}

impl VectorSource for VectorTiles {
    fn path(&self) -> &Path {
        self.archive.reader().path()
    }

    fn attribution(&self) -> Option<&str> {
        self.archive.metadata().attribution.as_deref()
    }

    fn bounds(&self) -> Option<BoundingBox> {
        self.archive.metadata().bounds
    }

    fn visit(
        &self,
        window: &WorldBox,
        zoom: u8,
        visitor: &mut dyn FnMut(&Feature, f64),
    ) -> Result<(), RenderError> {
        if zoom < self.first_zoom {
            let path = self.path().to_owned();
            return Err(RenderError::BelowFirstZoom { path, zoom, first: self.first_zoom });
        }
        let zoom = zoom.min(self.last_zoom);
        let side = i64::from(1_u32 << zoom);
        // Features reach over the borders of their tiles.
        let near = window.grown(REACH / side as f64);
        let tiles = |axis: usize| {
            let index = |edge: f64| (edge * side as f64).floor() as i64;
            (index(near.min[axis]), index(near.max[axis]))
        };
        let ((left, right), (top, bottom)) = (tiles(0), tiles(1));
        for row in top.max(0)..=bottom.min(side - 1) {
            for column in left..=right {
                let tile = Tile::new(zoom, column.rem_euclid(side) as u32, row as u32)?;
                let worlds = column.div_euclid(side) as f64;
                let window = window.moved(-worlds);
                for feature in self.features(tile)?.iter() {
                    if feature.bounds.touches(&window) {
                        visitor(feature, worlds);
                    }
                }
            }
        }
        Ok(())
    }
}
