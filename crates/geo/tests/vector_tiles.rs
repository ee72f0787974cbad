//! Vector tiles in both kinds of archives, and lines that go on from tile to tile.

#[path = "support/wire.rs"]
mod wire;

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use earthmapper_geo::dataset::{SourceOptions, drawn_maps};
use earthmapper_geo::render::{MapWindow, Renderer, Style, open_vectors};
use earthmapper_geo::store::{Existing, TileFormat, TileMetadata, create_tiles};
use earthmapper_geo::{Picture, Tile, WriteOptions, picture::encode_picture};
use flate2::Compression as Level;
use flate2::write::GzEncoder;
use pmtiles::{Compression, PmTilesWriter, TileCoord, TileType};
use wire::{command, field, number, packed, step};

const ZOOM: u8 = 16;

/// Two tiles side by side.
const TILES: [(u32, u32); 2] = [(34_815, 23_900), (34_816, 23_900)];

/// A vector tile with a railway along its middle, a little beyond its borders, falling by `fall` of 4096 in each tile.
fn railway(start: i64, fall: i64) -> Vec<u8> {
    let [right, down] = step(-64, start - fall / 64);
    let [far, deep] = step(4096 + 128, fall + fall / 32);
    let geometry = [command(1, 1), right, down, command(2, 1), far, deep];
    let feature = [packed(2, &[0, 0]), number(3, 2), packed(4, &geometry)].concat();
    let layer = [
        number(15, 2),
        field(1, b"transportation"),
        field(2, &feature),
        field(3, b"class"),
        field(4, &field(1, b"rail")),
        number(5, 4096),
    ];
    field(3, &layer.concat())
}

fn pmtiles(path: &Path, tiles: &[Vec<u8>]) {
    let writer = PmTilesWriter::new(TileType::Mvt).tile_compression(Compression::Gzip);
    let mut writer = writer.min_zoom(ZOOM).max_zoom(ZOOM).create(File::create(path).unwrap()).unwrap();
    for ((x, y), bytes) in TILES.into_iter().zip(tiles) {
        writer.add_tile(TileCoord::new(ZOOM, x, y).unwrap(), bytes).unwrap();
    }
    writer.finalize().unwrap();
}

fn mbtiles(path: &Path, tiles: &[Vec<u8>]) {
    let database = rusqlite::Connection::open(path).unwrap();
    let schema = "CREATE TABLE metadata (name TEXT, value TEXT);
        CREATE TABLE tiles (zoom_level INTEGER, tile_column INTEGER, tile_row INTEGER, tile_data BLOB);
        INSERT INTO metadata VALUES ('format', 'pbf'), ('attribution', 'someone');";
    database.execute_batch(schema).unwrap();
    for ((x, y), bytes) in TILES.into_iter().zip(tiles) {
        let mut packed = GzEncoder::new(Vec::new(), Level::fast());
        packed.write_all(bytes).unwrap();
        let row = Tile::new(ZOOM, x, y).unwrap().tms_row();
        let values = rusqlite::params![ZOOM, x, row, packed.finish().unwrap()];
        database.execute("INSERT INTO tiles VALUES (?1, ?2, ?3, ?4)", values).unwrap();
    }
}

fn renderer(path: &Path) -> Renderer {
    Renderer::new(Style::clean(), open_vectors(path, None).unwrap())
}

/// Both tiles as one picture, and the same from the tiles drawn alone.
fn both(renderer: &Renderer) -> Picture {
    let (x, y) = (i64::from(TILES[0].0) * 256, u64::from(TILES[0].1) * 256);
    let window = MapWindow { zoom: ZOOM, tile_side: 256, x, y, width: 512, height: 256 };
    let whole = renderer.render_window(window).unwrap();
    let alone = TILES.map(|(x, y)| renderer.render(Tile::new(ZOOM, x, y).unwrap(), 256).unwrap());
    assert_eq!(whole, Picture::hconcat(&[&alone[0], &alone[1]]));
    whole
}

#[test]
fn dashes_go_on_over_the_borders_of_tiles() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rail.pmtiles");
    pmtiles(&path, &[railway(2048, 0), railway(2048, 0)]);
    let picture = both(&renderer(&path));
    // Light pieces of five pixels on a dark line, with gaps of five.
    let row: Vec<bool> = (0..512).map(|x| picture.pixel(x, 127)[0] > 195).collect();
    let runs: Vec<usize> = row.chunk_by(|a, b| a == b).map(<[bool]>::len).collect();
    let inner = &runs[1..runs.len() - 1];
    assert!(inner.len() > 98, "{} pieces and gaps", inner.len());
    assert!(inner.iter().all(|length| (4..=6).contains(length)), "{runs:?}");
    assert!(row[254] && row[255] && row[256] && row[257], "the middle of a piece is on the border");
}

#[test]
fn mbtiles_are_drawn_as_pmtiles_are() {
    let folder = tempfile::tempdir().unwrap();
    let tiles = [railway(1000, 2000), railway(3000, -700)];
    let (first, second) = (folder.path().join("rail.pmtiles"), folder.path().join("rail.mbtiles"));
    pmtiles(&first, &tiles);
    mbtiles(&second, &tiles);
    let (first, second) = (renderer(&first), renderer(&second));
    let picture = both(&first);
    assert_eq!(both(&second), picture);
    assert_ne!(picture, Picture::filled(512, 256, first.style().land()));
    assert_eq!(second.source().attribution(), Some("someone"));
    let shallow = second.render(Tile::new(ZOOM - 1, 3, 3).unwrap(), 256).unwrap_err();
    assert!(shallow.to_string().contains("16"), "{shallow}");
}

#[test]
fn stores_of_pictures_are_no_vector_data_but_maps_of_data_sets() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["pictures.mbtiles", "pictures.pmtiles"] {
        let path = folder.path().join(name);
        let metadata = TileMetadata::new("pictures", TileFormat::Png);
        let mut writer = create_tiles(&path, metadata, Existing::Refuse).unwrap();
        let png = encode_picture("png", &Picture::filled(8, 8, [1; 3]), &WriteOptions::default()).unwrap();
        writer.write(Tile::new(3, 1, 2).unwrap(), &png).unwrap();
        writer.finish().unwrap();
        let error = open_vectors(&path, None).err().unwrap();
        assert!(error.is_bad_input() && error.to_string().contains("vector tiles"), "{error}");
        assert!(drawn_maps(&SourceOptions::new(&path)).unwrap().is_none(), "{name} is taken as it is");
    }
    let path = folder.path().join("broken.mbtiles");
    fs::write(&path, b"SQLite format 3\0").unwrap();
    assert!(open_vectors(&path, None).is_err() && drawn_maps(&SourceOptions::new(&path)).is_err());
}
