//! A source of any kind as tiles of web Mercator.

use std::ops::{ControlFlow, RangeInclusive};
use std::path::{Path, PathBuf};

use super::cell::{Cell, Frame, nearest_zoom};
use super::error::DatasetError;
use super::ground::{Ground, Kind};
use super::map::{Draw, MapSource};
use super::options::SourceOptions;
use crate::datum::Datum;
use crate::picture::{WriteOptions, encode_picture};
use crate::store::{EncodedTile, StoreError, TileFormat, TileMetadata, TileReader, open_tiles};
use crate::tile::{BoundingBox, Tile};

/// The deepest zooms below the one nearest to a raster's own pixels that are offered.
const BELOW: u8 = 6;

/// The tiles of a raster, of drawn maps, or of a store whose tiles lie elsewhere than they say; each is put together
/// when it is read.
pub struct SourceTiles {
    path: PathBuf,
    ground: Ground,
    frame: Frame,
    metadata: TileMetadata,
    bounds: BoundingBox,
    zooms: RangeInclusive<u8>,
}

/// Opens what options name as tiles of `side` pixels: a store of tiles as it is, if its tiles lie where they say; else as
/// [`SourceTiles`].
///
/// # Errors
///
/// Every [`DatasetError`] about sources.
pub fn open_source(
    options: &SourceOptions,
    draw: Draw<'_>,
    side: u32,
) -> Result<Box<dyn TileReader>, DatasetError> {
    let ground = Ground::open(options, draw)?;
    let lies_right = options.datum == Datum::Wgs84 && options.offset == [0.0; 2] && options.pattern.is_none();
    match ground.kind {
        Kind::Tiles { .. } if lies_right => Ok(open_tiles(&options.path)?),
        _ => Ok(Box::new(SourceTiles::new(ground, side, None)?)),
    }
}

impl SourceTiles {
    /// Drawn maps of some ground at some zooms; `name` stands for the path.
    ///
    /// # Errors
    ///
    /// None that can be named; the ground is as given.
    pub fn drawn(
        name: &str,
        source: Box<dyn MapSource>,
        side: u32,
        bounds: BoundingBox,
        zooms: RangeInclusive<u8>,
    ) -> Result<Self, DatasetError> {
        let ground = Ground { options: SourceOptions::new(name), kind: Kind::Drawn(source) };
        Self::new(ground, side, Some((bounds, zooms)))
    }

    fn new(
        ground: Ground,
        side: u32,
        known: Option<(BoundingBox, RangeInclusive<u8>)>,
    ) -> Result<Self, DatasetError> {
        let path = ground.options.path.clone();
        let (bounds, zooms) = match known {
            Some(known) => known,
            None => (ground.bounds()?.unwrap_or(BoundingBox::WORLD), zooms(&ground, side)?),
        };
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let mut metadata = TileMetadata::new(name, TileFormat::Png);
        metadata.attribution = ground.credit().attribution;
        metadata.bounds = Some(bounds);
        (metadata.min_zoom, metadata.max_zoom) = (Some(*zooms.start()), Some(*zooms.end()));
        // Tiles are asked for in WGS 84, whatever the source's own coordinates are.
        let frame = Frame { side, datum: Datum::Wgs84, raster: None };
        Ok(Self { path, ground, frame, metadata, bounds, zooms })
    }

    fn patch(&self, tile: Tile) -> Result<Option<EncodedTile>, DatasetError> {
        if !self.zooms.contains(&tile.z()) || !self.bounds.tiles(tile.z()).is_ok_and(|all| all.contains(tile))
        {
            return Ok(None);
        }
        let Some(patch) = self.ground.patch(&self.frame, Cell::Tile(tile), [0, 0])? else { return Ok(None) };
        let bytes = encode_picture(TileFormat::Png.extension(), &patch.picture, &WriteOptions::default())?;
        Ok(Some(EncodedTile { format: TileFormat::Png, bytes }))
    }
}

/// The zooms of a source that says none: down to the one nearest to its own pixels.
fn zooms(ground: &Ground, side: u32) -> Result<RangeInclusive<u8>, DatasetError> {
    Ok(match &ground.kind {
        Kind::Tiles { reader, .. } => {
            let known = reader.metadata().clone().completed(&reader.tiles()?);
            known.min_zoom.unwrap_or(0)..=known.max_zoom.unwrap_or(0)
        }
        Kind::Raster { reader, .. } => {
            let (x, y) = (f64::from(reader.width()) / 2.0, f64::from(reader.height()) / 2.0);
            let place = reader.place(x, y)?;
            let metres = place.metres_per_pixel().expect("rasters know the size of their pixels");
            let deepest = nearest_zoom(metres, place.position().latitude(), side);
            deepest.saturating_sub(BELOW)..=deepest
        }
        Kind::Drawn(_) => 0..=20,
    })
}

impl TileReader for SourceTiles {
    fn path(&self) -> &Path {
        &self.path
    }

    fn metadata(&self) -> &TileMetadata {
        &self.metadata
    }

    fn read(&self, tile: Tile) -> Result<Option<EncodedTile>, StoreError> {
        self.patch(tile).map_err(|error| StoreError::BadTile {
            path: self.path.clone(),
            tile,
            detail: format!("cannot be put together ({error})"),
        })
    }

    fn contains(&self, tile: Tile) -> Result<bool, StoreError> {
        Ok(self.read(tile)?.is_some())
    }

    fn visit(&self, visitor: &mut dyn FnMut(Tile) -> ControlFlow<()>) -> Result<(), StoreError> {
        for zoom in self.zooms.clone() {
            let cover = self.bounds.tiles(zoom).expect("zooms of a source are zooms");
            for tile in cover.iter() {
                if visitor(tile).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::{MapError, no_drawn_maps};
    use crate::picture::{Picture, PictureLimits, decode_picture};
    use crate::raster::{AffineTransform, Epsg, GeoReference, RasterOptions, RasterWriter};

    /// Every pixel tells its column and row.
    struct Numbered;

    impl MapSource for Numbered {
        fn map(&self, tile: Tile, side: u32) -> Result<Option<Picture>, MapError> {
            Ok(Some(Picture::drawn(side, side, |x, y| [x as u8, y as u8, tile.x() as u8])))
        }
    }

    fn decoded(reader: &dyn TileReader, tile: Tile) -> Option<Picture> {
        let encoded = reader.read(tile).unwrap()?;
        Some(decode_picture(&encoded.bytes, "tile", &PictureLimits::default()).unwrap())
    }

    #[test]
    fn drawn_maps_are_tiles_within_their_ground_and_zooms() {
        let tile: Tile = "15/16384/16383".parse().unwrap();
        let drawn = SourceTiles::drawn("town", Box::new(Numbered), 64, tile.bounds(), 14..=16).unwrap();
        assert_eq!(decoded(&drawn, tile).unwrap().pixel(5, 9), [5, 9, 0]);
        assert!(decoded(&drawn, tile.parent().unwrap()).is_some());
        assert!(decoded(&drawn, "15/16386/16383".parse().unwrap()).is_none());
        assert!(decoded(&drawn, tile.ancestor(13).unwrap()).is_none());
        assert_eq!(drawn.metadata().min_zoom, Some(14));
        assert_eq!(drawn.tiles().unwrap().iter().filter(|tile| tile.z() == 16).count(), 4);
    }

    #[test]
    fn rasters_are_cut_into_tiles() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scene.tif");
        // Two tiles of zoom 14 side by side, in web Mercator, to the pixel.
        let metres = 2.0 * 20_037_508.342_789_244 / f64::from(1 << 14) / 64.0;
        let transform = AffineTransform::north_up((0.0, 64.0 * metres), (metres, metres));
        let mut options = RasterOptions::new(128, 64);
        options.georeference = Some(GeoReference::from_epsg(transform, Epsg(3857)).unwrap());
        let mut writer = RasterWriter::create(&path, options).unwrap();
        let scene = Picture::drawn(128, 64, |x, y| [x as u8, y as u8, 7]);
        writer.write_rows(&scene, None).unwrap();
        writer.finish().unwrap();
        let reader = open_source(&SourceOptions::new(&path), &no_drawn_maps, 64).unwrap();
        assert_eq!(reader.metadata().max_zoom, Some(14));
        let right: Tile = "14/8193/8191".parse().unwrap();
        assert_eq!(decoded(reader.as_ref(), right).unwrap(), scene.crop(64, 0, 64, 64));
        assert!(decoded(reader.as_ref(), "14/8195/8191".parse().unwrap()).is_none());
    }
}
