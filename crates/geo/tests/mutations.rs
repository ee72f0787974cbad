//! Damaged files of every kind that is read: an error or an answer, never a panic, and no unbounded memory.
//!
//! Each test mutates small valid files for a second, always in the same way; `EARTHMAPPER_FUZZ_SECONDS` sets another time
//! and `EARTHMAPPER_FUZZ_SEED` another beginning, for long runs. A file that panics is left in the temporary folder.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use earthmapper_geo::dataset::{MakeOptions, Manifest};
use earthmapper_geo::picture::{WriteOptions, decode_picture, encode_picture};
use earthmapper_geo::raster::{
    AffineTransform, Epsg, GeoReference, PixelWindow, RasterLimits, RasterOptions, RasterReader,
    RasterWriter, Stretch, Validity,
};
use earthmapper_geo::render::{Style, open_vectors};
use earthmapper_geo::store::{Existing, TileFormat, TileMetadata, create_tiles, open_tiles};
use earthmapper_geo::{Mask, Picture, PictureLimits, Tile};

/// Numbers that break careless arithmetic.
const NASTY: [u64; 8] = [0, 1, 0x7f, 0xff, 0x7fff_ffff, 0xffff_ffff, 0x7fff_ffff_ffff_ffff, u64::MAX];

/// A small generator (xorshift64*): the tests need no better one.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

/// A file with one to four things wrong. Most mistakes go into the beginning, where tables are.
fn mutated(bytes: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..=random.below(4) {
        let length = bytes.len();
        let reach = if random.below(3) > 0 { length.min(512) } else { length };
        let at = random.below(reach);
        match random.below(6) {
            0 => bytes.truncate(at),
            1 if length > 0 => bytes[at] ^= 1 << random.below(8),
            2 if length > 0 => bytes[at] = random.next() as u8,
            3 => {
                let number = NASTY[random.below(NASTY.len())].to_le_bytes();
                let count = [1, 2, 4, 8][random.below(4)];
                let end = (at + count).min(length);
                bytes[at..end].copy_from_slice(&number[..end - at]);
            }
            4 => {
                let end = (at + random.below(64)).min(length);
                let part = bytes[at..end].to_vec();
                let to = random.below(length + 1);
                bytes.splice(to..to, part);
            }
            _ => {
                let end = (at + random.below(64)).min(length);
                bytes.drain(at..end);
            }
        }
    }
    bytes
}

/// Mutates files in turn and reads each, for the time that is given.
fn torment(name: &str, files: &[Vec<u8>], ending: &str, read: impl Fn(&Path)) {
    let setting = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let time = Duration::from_secs(setting("EARTHMAPPER_FUZZ_SECONDS").unwrap_or(1));
    let mut random = Random(setting("EARTHMAPPER_FUZZ_SEED").unwrap_or(0x9e37_79b9_7f4a_7c15));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(format!("damaged.{ending}"));
    let start = Instant::now();
    let mut count = 0;
    while start.elapsed() < time {
        let bytes = mutated(&files[count % files.len()], &mut random);
        std::fs::write(&path, &bytes).unwrap();
        if catch_unwind(AssertUnwindSafe(|| read(&path))).is_err() {
            let kept = std::env::temp_dir().join(format!("earthmapper-{name}-{count}.{ending}"));
            std::fs::write(&kept, &bytes).unwrap();
            panic!("{name}: file {count} panics, kept as {}", kept.display());
        }
        count += 1;
    }
    println!("{name}: {count} damaged files in {:.0} s", start.elapsed().as_secs_f64());
}

fn drawn(width: u32, height: u32) -> Picture {
    Picture::drawn(width, height, |x, y| [(x * 5) as u8, (y * 3) as u8, (x ^ y) as u8])
}

#[test]
fn rasters() {
    let folder = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    for (index, validity) in
        [Validity::Everywhere, Validity::Alpha, Validity::Nodata(0)].into_iter().enumerate()
    {
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
        files.push(std::fs::read(path).unwrap());
    }
    let limits = RasterLimits { max_block_bytes: 1 << 22, max_table_bytes: 1 << 20, ..Default::default() };
    torment("raster", &files, "tif", |path| {
        let Ok(reader) = RasterReader::open(path, &limits) else { return };
        let _ = reader.place(3.0, 4.0);
        let Ok(rendering) = reader.rendering(None, Stretch::Percentiles { low: 2.0, high: 98.0 }) else {
            return;
        };
        for (level, (width, height)) in reader.levels().into_iter().enumerate() {
            let window = PixelWindow::new(0, 0, width.min(256), height.min(256));
            let _ = reader.read_window(level, window, &rendering);
        }
    });
}

/// A store of a few tiles as a file.
fn store(ending: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(format!("tiles.{ending}"));
    let mut writer =
        create_tiles(&path, TileMetadata::new("tiles", TileFormat::Png), Existing::Refuse).unwrap();
    for (z, x, y) in [(3, 1, 2), (3, 2, 2), (4, 7, 7), (5, 9, 30)] {
        let png = encode_picture("png", &drawn(16 + x, 16), &WriteOptions::default()).unwrap();
        writer.write(Tile::new(z, x, y).unwrap(), &png).unwrap();
    }
    writer.finish().unwrap();
    std::fs::read(path).unwrap()
}

/// Reads all that a store lists.
fn read_store(path: &Path) {
    let Ok(reader) = open_tiles(path) else { return };
    for tile in reader.tiles().unwrap_or_default().into_iter().take(64) {
        let _ = reader.contains(tile);
        if let Ok(Some(encoded)) = reader.read(tile) {
            let _ = decode_picture(
                &encoded.bytes,
                path,
                &PictureLimits { max_pixels: 1 << 20, ..Default::default() },
            );
        }
    }
}

#[test]
fn pmtiles() {
    torment("pmtiles", &[store("pmtiles")], "pmtiles", |path| {
        read_store(path);
        let _ = open_vectors(path, None);
    });
}

#[test]
fn mbtiles() {
    torment("mbtiles", &[store("mbtiles")], "mbtiles", read_store);
}

#[test]
fn pictures() {
    let encoded = |ending| encode_picture(ending, &drawn(40, 30), &WriteOptions::default()).unwrap();
    let files: Vec<Vec<u8>> = ["png", "jpg", "webp"].into_iter().map(encoded).collect();
    let limits = PictureLimits { max_pixels: 1 << 20, ..Default::default() };
    torment("picture", &files, "png", |path| {
        let _ = decode_picture(&std::fs::read(path).unwrap(), path, &limits);
    });
}

#[test]
fn texts() {
    let style = include_bytes!("../src/render/styles/clean.toml").to_vec();
    let options = b"skip_limit = 0.1\n[[sources]]\nname = \"a\"\nimagery = { path = \"b\", datum = \"gcj02\" }\n\
        map = { path = \"c.tif\", crs = \"EPSG:4326\", bands = [1, 2, 3] }\ngrid = { cut = \"own\", side = 64 }\n\
        [filters]\nholes = 0.1\ncloud = \"off\"\n[split]\nseed = 3\nhold_out = [{ region = [1, 2, 3, 4], split = \"test\" }]\n";
    torment("text", &[style, options.to_vec()], "toml", |path| {
        let _ = Style::read(path);
        if let Ok(text) = std::fs::read_to_string(path) {
            let _ = toml::from_str::<MakeOptions>(&text);
        }
    });
    let house = br#"{"type": "FeatureCollection", "features": [{"type": "Feature", "properties": {"class": "building"},
        "geometry": {"type": "Polygon", "coordinates": [[[1, 2], [3, 2], [3, 4], [1, 2]]]}}]}"#;
    torment("geojson", &[house.to_vec()], "geojson", |path| {
        let _ = open_vectors(path, None);
        let _ = Manifest::read(path);
    });
}
