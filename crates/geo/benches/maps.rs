//! Tiles drawn from vector data, and tiles written to and read from each kind of store.
//!
//! ```text
//! EARTHMAPPER_DATA=… cargo bench -p earthmapper-geo --bench maps
//! ```
//!
//! Throughput counts tiles. Florence is drawn where its vector tiles are at hand.

use std::fmt::Write;
use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};

use criterion::{BenchmarkId, Criterion, Throughput};
use earthmapper_geo::picture::{WriteOptions, encode_picture};
use earthmapper_geo::render::{Class, Renderer, Style, open_vectors};
use earthmapper_geo::store::{Existing, TileFormat, TileMetadata, create_tiles, open_tiles};
use earthmapper_geo::{BoundingBox, LonLat, Picture, Tile};

/// Corners of a coast that goes round much more than a tile.
const CORNERS: u32 = 200_000;

fn renderer(path: &Path) -> Renderer {
    Renderer::new(Style::clean(), open_vectors(path, Some(Class::Water)).unwrap())
}

/// A lake of a degree with a rugged shore.
fn lake(folder: &Path) -> PathBuf {
    let path = folder.join("lake.geojson");
    let mut text = String::from(r#"{"type": "Polygon", "coordinates": [["#);
    for corner in (0..CORNERS).chain([0]) {
        let turn = f64::from(corner) / f64::from(CORNERS) * std::f64::consts::TAU;
        let away = 0.5 + 0.01 * (turn * 997.0).sin() + 0.002 * (turn * 20_011.0).sin();
        let comma = if corner == 0 && text.len() < 60 { "" } else { "," };
        write!(text, "{comma}[{},{}]", 11.0 + away * turn.cos(), 43.0 + away * turn.sin()).unwrap();
    }
    text += "]]}";
    fs::write(&path, text).unwrap();
    path
}

fn drawing(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let mut group = criterion.benchmark_group("render");
    group.sample_size(20).throughput(Throughput::Elements(1));
    let shore = renderer(&lake(folder.path()));
    for zoom in [8, 14] {
        let tile = Tile::at(LonLat::new(11.5, 43.0).unwrap(), zoom).unwrap();
        let name = BenchmarkId::new("lake of 200,000 corners", zoom);
        group.bench_function(name, |bencher| bencher.iter(|| black_box(shore.render(tile, 256).unwrap())));
    }

    let data = std::env::var_os("EARTHMAPPER_DATA").map(PathBuf::from).unwrap_or_default();
    let path = data.join("vector/protomaps_firenze.pmtiles");
    if path.is_file() {
        let florence = renderer(&path);
        let city: BoundingBox = "11.23,43.76,11.28,43.79".parse().unwrap();
        for zoom in [12, 14, 16] {
            let tiles: Vec<Tile> = city.tiles(zoom).unwrap().iter().take(16).collect();
            group.throughput(Throughput::Elements(tiles.len() as u64));
            group.bench_function(BenchmarkId::new("Florence", zoom), |bencher| {
                bencher.iter(|| {
                    tiles.iter().for_each(|tile| drop(black_box(florence.render(*tile, 256).unwrap())));
                });
            });
        }
    }
    group.finish();
}

fn stores(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let tiles: Vec<Tile> =
        (0..256).map(|index| Tile::new(12, 2000 + index % 16, 1000 + index / 16).unwrap()).collect();
    let picture = |tile: &Tile| {
        Picture::drawn(256, 256, |x, y| [(x * y / 64 + tile.x()) as u8, (x ^ y) as u8, (y + tile.y()) as u8])
    };
    let encode = |tile: &Tile| encode_picture("png", &picture(tile), &WriteOptions::default()).unwrap();
    let encoded: Vec<Vec<u8>> = tiles.iter().map(encode).collect();
    let write = |path: &Path| {
        let metadata = TileMetadata::new("tiles", TileFormat::Png);
        let mut writer = create_tiles(path, metadata, Existing::Refuse).unwrap();
        tiles.iter().zip(&encoded).for_each(|(tile, bytes)| writer.write(*tile, bytes).unwrap());
        writer.finish().unwrap();
    };
    let remove = |path: &Path| match path.is_dir() {
        true => fs::remove_dir_all(path).unwrap(),
        false => fs::remove_file(path).unwrap(),
    };
    let mut group = criterion.benchmark_group("store");
    group.sample_size(10).throughput(Throughput::Elements(tiles.len() as u64));
    for name in ["folder", "tiles.mbtiles", "tiles.pmtiles"] {
        let path = folder.path().join(name);
        group.bench_function(BenchmarkId::new("write", name), |bencher| {
            bencher.iter(|| {
                write(&path);
                remove(&path);
            });
        });
        write(&path);
        let reader = open_tiles(&path).unwrap();
        group.bench_function(BenchmarkId::new("read", name), |bencher| {
            bencher.iter(|| {
                tiles.iter().for_each(|tile| drop(black_box(reader.read(*tile).unwrap().unwrap())));
            });
        });
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    drawing(&mut criterion);
    stores(&mut criterion);
    criterion.final_summary();
}
