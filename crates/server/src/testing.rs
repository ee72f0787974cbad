//! A tiny model and tiny sources for tests.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use earthmapper::config::TrainedOn;
use earthmapper::{EarthMapper, EarthMapperConfig, TokenizerConfig, TransformerConfig};
use earthmapper_geo::dataset::SourceOptions;
use earthmapper_geo::store::{Existing, TileFormat, TileMetadata, create_tiles};
use earthmapper_geo::{Picture, Tile, WriteOptions};

use crate::config::{SeamName, SourceConfig};

/// Side of the model's pictures, and of the tiles of tests.
pub const SIDE: u32 = 16;

/// The same random weights every time; its pixels are 38 m, those of tiles of 16 pixels at zoom 16.
pub fn model() -> EarthMapper {
    let transformer = TransformerConfig { depth: 2, width: 32, heads: 4, ..Default::default() };
    let trained_on = TrainedOn { places_known: true, metres_per_pixel: Some(38.2), ..Default::default() };
    let config = EarthMapperConfig { format: 1, name: "tiny".into(), transformer, trained_on };
    let tokenizer = TokenizerConfig {
        picture_side: SIDE as usize,
        sides: vec![1, 2, 4],
        vocabulary: 24,
        latent_width: 6,
        fold: 2,
        channels: 8,
        multipliers: vec![1, 2],
        residual_blocks: 1,
        linear_path: true,
        ..Default::default()
    };
    EarthMapper::new(config, tokenizer, 11, &Device::flex())
}

/// A source of these files.
pub fn source(id: &str, satellite: Option<PathBuf>, map: Option<PathBuf>) -> SourceConfig {
    SourceConfig {
        id: id.into(),
        name: None,
        satellite: satellite.map(SourceOptions::new),
        map: map.map(SourceOptions::new),
        tile_side: 256,
        seam: SeamName::Blend,
        min_zoom: None,
        max_zoom: None,
        bounds: None,
        force: false,
        version: String::new(),
    }
}

/// A picture of a tile that no other tile has.
pub fn drawn(tile: Tile) -> Picture {
    let (x, y) = (tile.x() * 37, tile.y() * 53);
    Picture::drawn(SIDE, SIDE, |i, j| [(x + i * 9) as u8, (y + j * 11) as u8, (i ^ j) as u8 * 13])
}

/// Writes tiles into a folder below this one.
pub fn tiles(folder: &Path, tiles: &[Tile]) -> PathBuf {
    let path = folder.join("tiles");
    let mut writer =
        create_tiles(&path, TileMetadata::new("tiles", TileFormat::Png), Existing::Refuse).unwrap();
    for tile in tiles {
        let bytes = earthmapper_geo::picture::encode_picture("png", &drawn(*tile), &WriteOptions::default());
        writer.write(*tile, &bytes.unwrap()).unwrap();
    }
    writer.finish().unwrap();
    path
}

/// Writes tiles named by their numbers.
pub fn grey_tiles(folder: &Path, names: &[&str]) -> PathBuf {
    let all: Vec<Tile> = names.iter().map(|name| name.parse().unwrap()).collect();
    tiles(folder, &all)
}
