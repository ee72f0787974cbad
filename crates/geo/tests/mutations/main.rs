//! Damaged files of every kind that is read: an error or an answer, never a panic, and no unbounded memory.
//!
//! Each test mutates small valid files for a second, always in the same way; `EARTHMAPPER_FUZZ_SECONDS` sets another time
//! and `EARTHMAPPER_FUZZ_SEED` another beginning, for long runs. A file that panics is left in the temporary folder.

mod seeds;
#[path = "../support/wire.rs"]
mod wire;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use earthmapper_geo::dataset::{MakeOptions, Manifest};
use earthmapper_geo::picture::{WriteOptions, encode_picture};
use earthmapper_geo::raster::{PixelWindow, RasterLimits, RasterReader, Stretch};
use earthmapper_geo::render::{Class, Renderer, Style, open_vectors};
use earthmapper_geo::store::{TILE_JSON, open_tiles};
use earthmapper_geo::{PictureLimits, Tile, decode_mask, decode_picture, read_provenance};
use pmtiles::TileType;
use seeds::drawn;

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
    let keep = |count: usize, bytes: &[u8]| {
        let kept = std::env::temp_dir().join(format!("earthmapper-{name}-{count}.{ending}"));
        std::fs::write(&kept, bytes).unwrap();
        kept
    };
    let start = Instant::now();
    let (mut count, mut slowest) = (0, (Duration::ZERO, 0, Vec::new()));
    while start.elapsed() < time {
        let bytes = mutated(&files[count % files.len()], &mut random);
        std::fs::write(&path, &bytes).unwrap();
        let begun = Instant::now();
        if catch_unwind(AssertUnwindSafe(|| read(&path))).is_err() {
            panic!("{name}: file {count} panics, kept as {}", keep(count, &bytes).display());
        }
        if begun.elapsed() > slowest.0 {
            slowest = (begun.elapsed(), count, bytes);
        }
        count += 1;
    }
    let (longest, number, bytes) = slowest;
    println!("{name}: {count} damaged files in {:.0} s", start.elapsed().as_secs_f64());
    if longest > Duration::from_secs(1) {
        let kept = keep(number, &bytes);
        println!("{name}: file {number} took {:.1} s, kept as {}", longest.as_secs_f64(), kept.display());
    }
}

#[test]
fn rasters() {
    let files = [seeds::written_rasters(), seeds::foreign_rasters()].concat();
    let limits = RasterLimits { max_block_bytes: 1 << 22, max_table_bytes: 1 << 20, ..Default::default() };
    let read = |path: &Path| {
        let reader = RasterReader::open(path, &limits).ok()?;
        let _ = reader.place(3.0, 4.0);
        let rendering = reader.rendering(None, Stretch::Percentiles { low: 2.0, high: 98.0 }).ok()?;
        let windows = reader.levels().into_iter().enumerate().map(|(level, (width, height))| {
            let window = PixelWindow::new(0, 0, width.min(256), height.min(256));
            reader.read_window(level, window, &rendering)
        });
        Some(windows.filter(Result::is_ok).count())
    };
    for file in &files {
        let folder = tempfile::tempdir().unwrap();
        let whole = folder.path().join("whole.tif");
        std::fs::write(&whole, file).unwrap();
        assert!(read(&whole).is_some_and(|levels| levels > 0), "an undamaged file is read");
    }
    torment("raster", &files, "tif", |path| {
        read(path);
    });
}

/// Reads all that a store lists.
fn read_store(path: &Path) {
    let Ok(reader) = open_tiles(path) else { return };
    for tile in reader.tiles().unwrap_or_default().into_iter().take(64) {
        let _ = reader.contains(tile);
        if let Ok(Some(encoded)) = reader.read(tile) {
            let _ = decode_picture(&encoded.bytes, path, &small());
        }
    }
}

fn small() -> PictureLimits {
    PictureLimits { max_pixels: 1 << 20, ..Default::default() }
}

/// Draws two tiles of vector data. How many could be drawn.
fn draw(path: &Path) -> usize {
    let Ok(source) = open_vectors(path, Some(Class::Building)) else { return 0 };
    let renderer = Renderer::new(Style::clean(), source);
    let tiles = ["0/0/0", "1/1/1", "12/2176/1505"].map(|tile| tile.parse::<Tile>().unwrap());
    tiles.into_iter().filter(|tile| renderer.render(*tile, 64).is_ok()).count()
}

/// Undamaged vector data must be something to see, else nothing is tested.
fn assert_drawn(files: &[Vec<u8>], ending: &str) {
    for file in files {
        let folder = tempfile::tempdir().unwrap();
        let whole = folder.path().join(format!("whole.{ending}"));
        std::fs::write(&whole, file).unwrap();
        assert!(draw(&whole) > 1, "an undamaged {ending} is drawn");
    }
}

#[test]
fn pmtiles() {
    let png = encode_picture("png", &drawn(20, 20), &WriteOptions::default()).unwrap();
    let files = [seeds::store("pmtiles"), seeds::plain_archive(TileType::Png, &png)];
    torment("pmtiles", &files, "pmtiles", |path| {
        read_store(path);
        let _ = open_vectors(path, None);
    });
}

#[test]
fn vector_tiles() {
    let files = [seeds::plain_archive(TileType::Mvt, &seeds::vector_tile())];
    assert_drawn(&files, "pmtiles");
    torment("vector-tiles", &files, "pmtiles", |path| {
        draw(path);
    });
}

#[test]
fn mbtiles() {
    let files = [seeds::store("mbtiles"), seeds::vector_mbtiles()];
    assert_drawn(&files[1..], "mbtiles");
    torment("mbtiles", &files, "mbtiles", |path| {
        read_store(path);
        draw(path);
    });
}

#[test]
fn pictures() {
    let encoded = |ending| encode_picture(ending, &drawn(40, 30), &WriteOptions::default()).unwrap();
    let files: Vec<Vec<u8>> = ["png", "jpg", "webp"].into_iter().map(encoded).collect();
    torment("picture", &files, "png", |path| {
        let bytes = std::fs::read(path).unwrap();
        let _ = decode_picture(&bytes, path, &small());
        let _ = decode_mask(&bytes, path, &small());
        let _ = read_provenance(path);
    });
}

#[test]
fn texts() {
    let style = include_bytes!("../../src/render/styles/clean.toml").to_vec();
    let options = b"skip_limit = 0.1\n[[sources]]\nname = \"a\"\nimagery = { path = \"b\", datum = \"gcj02\" }\n\
        map = { path = \"c.tif\", crs = \"EPSG:4326\", bands = [1, 2, 3] }\ngrid = { cut = \"own\", side = 64 }\n\
        [filters]\nholes = 0.1\ncloud = \"off\"\n[split]\nseed = 3\nhold_out = [{ region = [1, 2, 3, 4], split = \"test\" }]\n";
    torment("text", &[style, options.to_vec()], "toml", |path| {
        let _ = Style::read(path);
        if let Ok(text) = std::fs::read_to_string(path) {
            let _ = toml::from_str::<MakeOptions>(&text);
        }
    });
    let manifest = b"{\"format\":1,\"sources\":[{\"name\":\"a\",\"imagery\":{},\"map\":{}}],\
        \"split\":null,\"options\":null,\"report\":null}\n{\"name\":\"a-1\",\"file\":\"pairs/00000/a-1.png\",\"source\":\"a\",\
        \"tile\":\"3/1/2\",\"bounds\":[1,2,3,4],\"place\":[2,3],\"metres_per_pixel\":1.5,\"side\":256,\"split\":\"train\"}\n";
    let tile_json = b"{\"tilejson\":\"3.0.0\",\"tiles\":[\"{z}/{x}/{y}.png\"],\"format\":\"png\",\"minzoom\":3,\"maxzoom\":4,\
        \"bounds\":[-180,-85,180,85],\"center\":[0,0,3],\"scheme\":\"tms\",\"attribution\":\"someone\"}";
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("manifest.jsonl");
    std::fs::write(&whole, manifest).unwrap();
    assert_eq!(Manifest::read(&whole).unwrap().pairs.len(), 1);
    torment("json", &[manifest.to_vec(), tile_json.to_vec()], "jsonl", |path| {
        let _ = Manifest::read(path);
        std::fs::copy(path, folder.path().join(TILE_JSON)).unwrap();
        read_store(folder.path());
    });
}

#[test]
fn geojson() {
    let file = br#"{"type": "FeatureCollection", "features": [{"type": "Feature", "properties": {"class": "building"},
        "geometry": {"type": "Polygon", "coordinates": [[[1, 2], [3, 2], [3, 4], [1, 2]]]}}, {"type": "Feature", "properties":
        {"railway": "rail", "tunnel": "yes"}, "geometry": {"type": "MultiLineString", "coordinates": [[[170, 2.5], [-170, 80]],
        [[0, 0, 7], [1e1, -85.06]]]}}]}"#;
    let files = [file.to_vec()];
    assert_drawn(&files, "geojson");
    torment("geojson", &files, "geojson", |path| {
        draw(path);
    });
}

#[test]
fn openstreetmap() {
    let files = [seeds::extract()];
    assert_drawn(&files, "osm.pbf");
    torment("openstreetmap", &files, "osm.pbf", |path| {
        draw(path);
    });
}
