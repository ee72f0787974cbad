//! Windows of GeoTIFFs in every common compression and layout, and the writing of COGs.
//!
//! ```text
//! cargo bench -p earthmapper-geo --bench rasters
//! ```
//!
//! Every read opens the file anew, so nothing decoded is left over from the one before. Throughput counts pixels.
//! `tools/geo_bench_peer.py` compares with GDAL.

use std::fs::{self, File};
use std::hint::black_box;
use std::path::{Path, PathBuf};

use criterion::{BenchmarkId, Criterion, Throughput};
use earthmapper_geo::picture::encode_picture;
use earthmapper_geo::raster::{
    PixelWindow, RasterLimits, RasterOptions, RasterReader, RasterWriter, Stretch, Validity,
};
use earthmapper_geo::{Picture, WriteOptions};
use tiff_reader::PhotometricInterpretation;
use tiff_reader::constants::{Compression, Predictor};
use tiff_writer::{ImageBuilder, TiffWriter, WriteOptions as TiffOptions};

const SIDE: u32 = 2048;
const TILE: u32 = 256;
const ROWS: u32 = 16;

/// Smooth ground with edges and noise.
fn scene(left: u32, top: u32, width: u32, height: u32) -> Picture {
    Picture::drawn(width, height, |x, y| {
        let (x, y) = (x + left, y + top);
        let mixed = (x ^ y.wrapping_mul(40_503)).wrapping_mul(2_654_435_761);
        let noise = (mixed ^ mixed >> 15).wrapping_mul(2_246_822_519) >> 28;
        let field = if (x / 100 + y / 140) % 2 == 0 { 40 } else { 0 };
        [x / 16 + noise, y / 16 + noise + field, (x + y) / 32 + noise].map(|value| value as u8)
    })
}

/// A file as other programs write it.
fn foreign(folder: &Path, compression: Compression, is_tiled: bool) -> PathBuf {
    let path = folder.join(format!("{compression:?}-{is_tiled}.tif"));
    let is_jpeg = compression == Compression::Jpeg;
    let builder = ImageBuilder::new(SIDE, SIDE).samples_per_pixel(3).sample_type::<u8>();
    let builder = builder.photometric(PhotometricInterpretation::Rgb);
    let builder = match compression {
        Compression::None | Compression::Jpeg => builder,
        _ => builder.compression(compression).predictor(Predictor::Horizontal),
    };
    let builder = if is_tiled { builder.tiles(TILE, TILE) } else { builder.strips(ROWS) };
    let mut sink = TiffWriter::new(File::create(&path).unwrap(), TiffOptions::default()).unwrap();
    let handle = sink.add_image(builder).unwrap();
    let (width, height) = if is_tiled { (TILE, TILE) } else { (SIDE, ROWS) };
    let across = SIDE / width;
    for index in 0..across * (SIDE / height) {
        let block = scene(index % across * width, index / across * height, width, height);
        if is_jpeg {
            let jpeg = encode_picture("jpg", &block, &WriteOptions::default()).unwrap();
            sink.write_block_raw(&handle, index as usize, &jpeg).unwrap();
        } else {
            sink.write_block(&handle, index as usize, block.rgb()).unwrap();
        }
    }
    sink.finish().unwrap();
    if is_jpeg {
        // The writer knows no JPEG, so the tags learn of it afterwards.
        let mut bytes = fs::read(&path).unwrap();
        for (code, value) in [(259_u16, 7), (262, 6)] {
            let tag = [code.to_le_bytes(), 3_u16.to_le_bytes()].concat();
            let at = bytes.windows(4).rposition(|window| window == tag).expect("the tag is there");
            bytes[at + 8] = value;
        }
        fs::write(&path, bytes).unwrap();
    }
    path
}

fn read(path: &Path, window: PixelWindow) -> Picture {
    let reader = RasterReader::open(path, &RasterLimits::default()).unwrap();
    let rendering = reader.rendering(None, Stretch::Whole).unwrap();
    reader.read_window(0, window, &rendering).unwrap().picture
}

fn windows(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let mut group = criterion.benchmark_group("window");
    group.sample_size(20);
    for compression in
        [Compression::None, Compression::Deflate, Compression::Lzw, Compression::Zstd, Compression::Jpeg]
    {
        for is_tiled in [true, false] {
            let path = foreign(folder.path(), compression, is_tiled);
            for side in [256, 1024] {
                let layout = if is_tiled { "tiles" } else { "strips" };
                group.throughput(Throughput::Elements(u64::from(side) * u64::from(side)));
                let name = BenchmarkId::new(format!("{compression:?} {layout}"), side);
                // Beside the borders of tiles, as most windows are.
                let window = PixelWindow::new(391, 517, side, side);
                group.bench_function(name, |bencher| bencher.iter(|| black_box(read(&path, window))));
            }
        }
    }
    group.finish();
}

fn cogs(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.tif");
    let picture = scene(0, 0, SIDE, SIDE);
    let mut group = criterion.benchmark_group("cog");
    group.sample_size(10).throughput(Throughput::Elements(u64::from(SIDE) * u64::from(SIDE)));
    for (name, validity) in [("rgb", Validity::Everywhere), ("rgba", Validity::Alpha)] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let options = RasterOptions { validity, overwrite: true, ..RasterOptions::new(SIDE, SIDE) };
                let mut writer = RasterWriter::create(&path, options).unwrap();
                writer.write_rows(&picture, None).unwrap();
                writer.finish().unwrap();
            });
        });
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    windows(&mut criterion);
    cogs(&mut criterion);
    criterion.final_summary();
}
