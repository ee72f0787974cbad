//! Times the reading of windows and the writing of a COG, for `tools/geo_bench_peer.py`, which does the same with GDAL.
//!
//! ```text
//! raster_speed read FILE SIDE COUNT       # opens FILE, reads COUNT windows of SIDE pixels
//! raster_speed write IN OUT               # IN, any GeoTIFF, as a COG
//! raster_speed stream SIDE OUT            # an invented scene of SIDE pixels through a COG into another
//! ```
//!
//! Prints the seconds it took, and for `stream` the highest resident memory in megabytes (Linux only).

use std::path::Path;
use std::time::Instant;

use earthmapper_geo::Picture;
use earthmapper_geo::raster::{
    PixelWindow, RasterError, RasterLimits, RasterOptions, RasterReader, RasterWriter, Stretch,
};

/// Rows that are read and written at once.
const ROWS: u32 = 256;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let begun = Instant::now();
    match arguments.as_slice() {
        ["read", file, side, count] => read(Path::new(file), side.parse()?, count.parse()?)?,
        ["write", from, to] => copy(Path::new(from), Path::new(to))?,
        ["stream", side, to] => {
            let (first, second) = (Path::new(to).with_extension("in.tif"), Path::new(to));
            invent(&first, side.parse()?)?;
            copy(&first, second)?;
            std::fs::remove_file(first)?;
        }
        _ => return Err("usage: raster_speed read FILE SIDE COUNT | write IN OUT | stream SIDE OUT".into()),
    }
    let seconds = begun.elapsed().as_secs_f64();
    match peak_megabytes() {
        Some(peak) if arguments[0] == "stream" => println!("{seconds:.4} {peak:.0}"),
        _ => println!("{seconds:.4}"),
    }
    Ok(())
}

/// The corners of windows, the same as in the other program: a Weyl sequence, which spreads evenly.
fn corners(width: u32, height: u32, side: u32, count: u32) -> impl Iterator<Item = (u32, u32)> {
    let span = move |length: u32| f64::from(length.saturating_sub(side));
    (1..=count).map(f64::from).map(move |n| {
        let share = |step: f64| (n * step).fract();
        ((share(0.754_877_67) * span(width)) as u32, (share(0.569_840_29) * span(height)) as u32)
    })
}

fn read(path: &Path, side: u32, count: u32) -> Result<(), RasterError> {
    let reader = RasterReader::open(path, &RasterLimits::default())?;
    let rendering = reader.rendering(None, Stretch::Whole)?;
    for (x, y) in corners(reader.width(), reader.height(), side, count) {
        let window = reader.read_window(0, PixelWindow::new(x, y, side, side), &rendering)?;
        std::hint::black_box(window.picture.rgb());
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<(), RasterError> {
    let reader = RasterReader::open(from, &RasterLimits::default())?;
    let rendering = reader.rendering(None, Stretch::Whole)?;
    let (width, height) = (reader.width(), reader.height());
    let options = RasterOptions {
        georeference: reader.georeference().ok().cloned(),
        overwrite: true,
        ..RasterOptions::new(width, height)
    };
    let mut writer = RasterWriter::create(to, options)?;
    while writer.rows() < height {
        let (y, rows) = (writer.rows(), ROWS.min(height - writer.rows()));
        let window = reader.read_window(0, PixelWindow::new(0, y, width, rows), &rendering)?;
        writer.write_rows(&window.picture, None)?;
    }
    writer.finish()
}

/// A scene that packs about as badly as a photograph.
fn invent(path: &Path, side: u32) -> Result<(), RasterError> {
    let options = RasterOptions { overwrite: true, ..RasterOptions::new(side, side) };
    let mut writer = RasterWriter::create(path, options)?;
    while writer.rows() < side {
        let top = writer.rows();
        let rows = Picture::drawn(side, ROWS.min(side - top), |x, y| {
            let y = y + top;
            let noise =
                (x.wrapping_mul(2_654_435_761) ^ y.wrapping_mul(40_503)).wrapping_mul(2_246_822_519) >> 28;
            [x / 16 + noise, y / 16 + noise, (x + y) / 32 + noise].map(|value| value as u8)
        });
        writer.write_rows(&rows, None)?;
    }
    writer.finish()
}

/// The most memory this process has had, in megabytes.
fn peak_megabytes() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? / 1000.0)
}
