//! Small valid files to damage. Nothing in them is packed where that can be helped, so that a changed byte reaches the
//! code behind the unpacking.

use std::fs;
use std::path::Path;

use earthmapper_geo::picture::{WriteOptions, encode_picture};
use earthmapper_geo::raster::{AffineTransform, Epsg, GeoReference, RasterOptions, RasterWriter, Validity};
use earthmapper_geo::store::{Existing, TileFormat, TileMetadata, create_tiles};
use earthmapper_geo::{Mask, Picture, Tile};
use pmtiles::{Compression as Packing, PmTilesWriter, TileCoord, TileType};
use tiff_reader::PhotometricInterpretation;
use tiff_reader::constants::{Compression, PlanarConfiguration, Predictor};
use tiff_writer::{ImageBuilder, TiffWriteSample, TiffWriter, WriteOptions as TiffOptions};

use crate::wire::{command, field, number, packed, step, steps};

pub fn drawn(width: u32, height: u32) -> Picture {
    Picture::drawn(width, height, |x, y| [(x * 5) as u8, (y * 3) as u8, (x ^ y) as u8])
}

/// Rasters of our own writer: COGs with overviews, place and each kind of holes.
pub fn written_rasters() -> Vec<Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let file = |(index, validity): (usize, Validity)| {
        let transform = AffineTransform::north_up((500_000.0, 5_200_000.0), (2.0, -2.0));
        let options = RasterOptions {
            validity,
            georeference: Some(GeoReference::from_epsg(transform, Epsg(32632)).unwrap()),
            ..RasterOptions::new(300, 90)
        };
        let path = folder.path().join(format!("{index}.tif"));
        let mut writer = RasterWriter::create(&path, options).unwrap();
        writer.write_rows(&drawn(300, 90), Some(&Mask::drawn(300, 90, |x, _| x < 9))).unwrap();
        writer.finish().unwrap();
        fs::read(path).unwrap()
    };
    [Validity::Everywhere, Validity::Alpha, Validity::Nodata(0)].into_iter().enumerate().map(file).collect()
}

/// Rasters of other programs: every compression, strips and tiles, planes, wide numbers and fractions.
pub fn foreign_rasters() -> Vec<Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tif");
    let plain = || ImageBuilder::new(48, 40).samples_per_pixel(3).photometric(PhotometricInterpretation::Rgb);
    let grey = || ImageBuilder::new(48, 40).photometric(PhotometricInterpretation::MinIsBlack);
    let mut files = Vec::new();
    for compression in [Compression::None, Compression::Lzw, Compression::Deflate, Compression::Zstd] {
        let bytes = || plain().sample_type::<u8>().compression(compression);
        files.push(raster::<u8>(&path, bytes().strips(40), 48 * 40 * 3));
        let predictor =
            if compression == Compression::None { Predictor::None } else { Predictor::Horizontal };
        files.push(raster::<u8>(&path, bytes().predictor(predictor).tiles(48, 48), 48 * 48 * 3));
    }
    let planes = plain().sample_type::<u8>().planar_configuration(PlanarConfiguration::Planar);
    files.push(raster::<u8>(&path, planes.strips(40), 48 * 40));
    files.push(raster::<u16>(&path, grey().sample_type::<u16>().strips(40), 48 * 40));
    let fractions = grey().sample_type::<f32>().predictor(Predictor::FloatingPoint);
    files.push(raster::<f32>(&path, fractions.compression(Compression::Deflate).strips(40), 48 * 40));
    files.push(jpeg_raster(&path));
    files
}

fn raster<T: TiffWriteSample + From<u8>>(path: &Path, builder: ImageBuilder, length: usize) -> Vec<u8> {
    let planes = if builder.block_samples_per_pixel() == 1 && length == 48 * 40 { 3 } else { 1 };
    let mut sink = TiffWriter::new(fs::File::create(path).unwrap(), TiffOptions::default()).unwrap();
    let handle = sink.add_image(builder).unwrap();
    let block: Vec<T> = (0..length).map(|index| T::from((index % 251) as u8)).collect();
    for index in 0..planes {
        if sink.write_block(&handle, index, &block).is_err() {
            // One band has one plane.
            break;
        }
    }
    sink.finish().unwrap();
    fs::read(path).unwrap()
}

/// JPEG in a TIFF. The writer knows no JPEG, so the tags learn of it afterwards.
fn jpeg_raster(path: &Path) -> Vec<u8> {
    let builder = ImageBuilder::new(64, 64).samples_per_pixel(3).sample_type::<u8>();
    let builder = builder.photometric(PhotometricInterpretation::Rgb).tiles(64, 64);
    let mut sink = TiffWriter::new(fs::File::create(path).unwrap(), TiffOptions::default()).unwrap();
    let handle = sink.add_image(builder).unwrap();
    let jpeg = encode_picture("jpg", &drawn(64, 64), &WriteOptions::default()).unwrap();
    sink.write_block_raw(&handle, 0, &jpeg).unwrap();
    sink.finish().unwrap();
    let mut bytes = fs::read(path).unwrap();
    for (code, value) in [(259_u16, 7), (262, 6)] {
        let tag = [code.to_le_bytes(), 3_u16.to_le_bytes()].concat();
        let at = bytes.windows(4).position(|window| window == tag).expect("the tag is there");
        bytes[at + 8] = value;
    }
    bytes
}

/// A store of a few tiles as a file.
pub fn store(ending: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(format!("tiles.{ending}"));
    let mut writer =
        create_tiles(&path, TileMetadata::new("tiles", TileFormat::Png), Existing::Refuse).unwrap();
    for (z, x, y) in [(3, 1, 2), (3, 2, 2), (4, 7, 7), (5, 9, 30)] {
        let png = encode_picture("png", &drawn(16 + x, 16), &WriteOptions::default()).unwrap();
        writer.write(Tile::new(z, x, y).unwrap(), &png).unwrap();
    }
    writer.finish().unwrap();
    fs::read(path).unwrap()
}

/// An archive with plain directories and plain tiles.
pub fn plain_archive(tile_type: TileType, tile: &[u8]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiles.pmtiles");
    let writer = PmTilesWriter::new(tile_type)
        .internal_compression(Packing::None)
        .tile_compression(Packing::None)
        .min_zoom(0)
        .max_zoom(1);
    let mut writer = writer.create(fs::File::create(&path).unwrap()).unwrap();
    for (z, x, y) in [(0, 0, 0), (1, 0, 0), (1, 1, 1)] {
        writer.add_tile(TileCoord::new(z, x, y).unwrap(), tile).unwrap();
    }
    writer.finalize().unwrap();
    fs::read(path).unwrap()
}

/// An MBTiles file of vector tiles: what a writer of pictures makes, with other tiles in it.
pub fn vector_mbtiles() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiles.mbtiles");
    fs::write(&path, store("mbtiles")).unwrap();
    let database = rusqlite::Connection::open(&path).unwrap();
    database.execute("DELETE FROM tiles", []).unwrap();
    database.execute("UPDATE metadata SET value = 'pbf' WHERE name = 'format'", []).unwrap();
    database.execute("DELETE FROM metadata WHERE name IN ('minzoom', 'maxzoom')", []).unwrap();
    database.execute("INSERT INTO tiles VALUES (0, 0, 0, ?1), (1, 1, 0, ?1)", [vector_tile()]).unwrap();
    drop(database);
    fs::read(path).unwrap()
}

/// A Mapbox vector tile: a lake with an island, and a railway (drawn in dashes) and a road that leave the tile.
pub fn vector_tile() -> Vec<u8> {
    let ring = |corner: [u64; 2], side: i64| {
        let mut ring = vec![command(1, 1), corner[0], corner[1], command(2, 3)];
        ring.extend([step(side, 0), step(0, side), step(-side, 0)].concat());
        ring.push(command(7, 1));
        ring
    };
    let lake = [ring(step(100, 200), 3000), ring(step(500, -2500), 900)].concat();
    let line = |start: [u64; 2]| {
        [vec![command(1, 1), start[0], start[1], command(2, 3)]]
            .concat()
            .into_iter()
            .chain([step(1000, 500), step(2000, -700), step(4000, 100)].concat())
            .collect::<Vec<_>>()
    };
    let feature = |kind: u64, tags: &[u64], geometry: &[u64]| {
        [packed(2, tags), number(3, kind), packed(4, geometry)].concat()
    };
    let layer = |name: &str, features: &[Vec<u8>]| {
        let mut bytes = [number(15, 2), field(1, name.as_bytes())].concat();
        features.iter().for_each(|feature| bytes.extend(field(2, feature)));
        ["class", "brunnel"].iter().for_each(|key| bytes.extend(field(3, key.as_bytes())));
        ["rail", "primary", "bridge"]
            .iter()
            .for_each(|word| bytes.extend(field(4, &field(1, word.as_bytes()))));
        bytes.extend([field(4, &number(5, 1)), field(4, &number(7, 1)), number(5, 4096)].concat());
        bytes
    };
    let roads =
        [feature(2, &[0, 0], &line(step(-50, 700))), feature(2, &[0, 1, 1, 2], &line(step(-50, 1500)))];
    let layers = [layer("water", &[feature(3, &[], &lake)]), layer("transportation", &roads)];
    layers.iter().flat_map(|layer| field(3, layer)).collect()
}

/// An extract of OpenStreetMap: a lake of two ways with an island, a house and a bridge.
pub fn extract() -> Vec<u8> {
    const WORDS: [&str; 12] = [
        "",
        "highway",
        "primary",
        "type",
        "multipolygon",
        "natural",
        "water",
        "outer",
        "inner",
        "building",
        "yes",
        "bridge",
    ];
    let places = [(0, 0), (0, 100), (100, 100), (100, 0), (25, 25), (25, 75), (75, 75), (75, 25)];
    let column = |of: fn(&(i64, i64)) -> i64| {
        steps(&places.iter().map(|place| of(place) * 100_000).collect::<Vec<_>>())
    };
    let dense = [
        packed(1, &steps(&[1, 2, 3, 4, 5, 6, 7, 8])),
        packed(8, &column(|place| place.1)),
        packed(9, &column(|place| place.0)),
    ];
    let way = |id: u64, keys: &[u64], values: &[u64], nodes: &[i64]| {
        field(3, &[number(1, id), packed(2, keys), packed(3, values), packed(8, &steps(nodes))].concat())
    };
    let ways = [
        way(10, &[], &[], &[1, 2, 3]),
        way(11, &[], &[], &[1, 4, 3]),
        way(12, &[9], &[10], &[5, 6, 7, 8, 5]),
        way(13, &[1, 11], &[2, 10], &[1, 99, 3]),
    ];
    let lake = [
        number(1, 20),
        packed(2, &[3, 5]),
        packed(3, &[4, 6]),
        packed(8, &[7, 7, 8]),
        packed(9, &steps(&[10, 11, 12])),
        packed(10, &[1, 1, 1]),
    ];
    let words: Vec<u8> = WORDS.iter().flat_map(|word| field(1, word.as_bytes())).collect();
    let groups = [field(2, &dense.concat()), ways.concat(), field(4, &lake.concat())];
    let groups = groups.iter().flat_map(|group| field(2, group));
    let block: Vec<u8> = field(1, &words).into_iter().chain(groups).chain(number(17, 100)).collect();
    let features = ["OsmSchema-V0.6", "DenseNodes"];
    let header: Vec<u8> = features.iter().flat_map(|name| field(4, name.as_bytes())).collect();
    let blob = |kind: &str, bytes: &[u8]| {
        let blob = field(1, bytes);
        let header = [field(1, kind.as_bytes()), number(3, blob.len() as u64)].concat();
        [&(header.len() as u32).to_be_bytes()[..], &header, &blob].concat()
    };
    [blob("OSMHeader", &header), blob("OSMData", &block)].concat()
}
