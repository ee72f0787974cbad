//! The demo: an invented harbour town, drawn by our own renderer, and a photograph of it that our own model made.

mod town;

use std::path::Path;

use earthmapper::EarthMapperConfig;
use earthmapper_geo::dataset::SourceTiles;
use earthmapper_geo::render::{GeoJson, Renderer, Style};
use earthmapper_geo::store::{PmtilesReader, TileReader};
use earthmapper_geo::tile::BoundingBox;

use crate::config::{SeamName, SourceConfig};
use crate::sources::{Layer, Source, SourceError};

/// The id of the demo.
pub const ID: &str = "town";

/// Colours and widths of the maps that the bundled model learned from.
const STYLE: &str = include_str!("../../../../examples/town.toml");

/// Zooms at which the town is drawn.
const ZOOMS: std::ops::RangeInclusive<u8> = 15..=18;

/// Tiles of the photograph: the middle of the town at zooms 15 and 16, made by a job with seed 1, as JPEG.
const PHOTOGRAPH: &[u8] = include_bytes!("photograph.pmtiles");

/// Opens the demo. `folder` takes the file of the photograph and must live as long as the source.
///
/// # Errors
/// When the file cannot be written.
pub fn open(folder: &Path, model: &EarthMapperConfig) -> Result<Source, SourceError> {
    let options = SourceConfig {
        id: ID.into(),
        name: Some("An invented town".into()),
        satellite: None,
        map: None,
        tile_side: 256,
        seam: SeamName::Blend,
        min_zoom: None,
        max_zoom: None,
        bounds: None,
        force: false,
        version: String::new(),
    };
    let failed = |problem: &dyn ToString| SourceError::new(ID, problem.to_string());
    let map = map().map_err(|error| failed(&error))?;
    let stamp = concat!("demo ", env!("CARGO_PKG_VERSION"));
    let mut map = Layer::new(map, stamp.into()).map_err(|error| failed(&error))?;
    map.metadata.attribution = Some("an invented town, by EarthMapper".into());
    let path = folder.join("photograph.pmtiles");
    std::fs::write(&path, PHOTOGRAPH).map_err(|error| failed(&error))?;
    let satellite = PmtilesReader::open(&path).map_err(|error| failed(&error))?;
    let mut satellite = Layer::new(Box::new(satellite), stamp.into()).map_err(|error| failed(&error))?;
    satellite.metadata.attribution =
        Some("a synthetic photograph of an invented town, by EarthMapper".into());
    Ok(Source::of_layers(&options, [Some(satellite), Some(map)], model))
}

fn map() -> Result<Box<dyn TileReader>, Box<dyn std::error::Error>> {
    let style = Style::parse("town.toml", STYLE)?;
    let town = GeoJson::from_text("town", &town::geojson(), None)?;
    let half = town::HALF / town::METRES_PER_DEGREE;
    let bounds = BoundingBox::new(-half, -half, half, half)?;
    let renderer = Renderer::new(style, Box::new(town));
    Ok(Box::new(SourceTiles::drawn("town", Box::new(renderer), 256, bounds, ZOOMS)?))
}

#[cfg(test)]
mod tests {
    use earthmapper_geo::{LonLat, PictureLimits, Tile, decode_picture};

    use super::*;

    #[test]
    fn the_town_is_drawn_and_always_the_same() {
        assert_eq!(town::geojson(), town::geojson());
        let map = map().unwrap();
        let tile = Tile::at(LonLat::new(0.001, 0.001).unwrap(), 16).unwrap();
        let encoded = map.read(tile).unwrap().unwrap();
        let picture = decode_picture(&encoded.bytes, "tile", &PictureLimits::default()).unwrap();
        let colours: std::collections::HashSet<&[u8; 3]> = picture.rgb().as_chunks::<3>().0.iter().collect();
        assert!(colours.len() > 8, "streets, ground and more: {}", colours.len());
    }
}
