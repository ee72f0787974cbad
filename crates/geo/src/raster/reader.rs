//! Windows of a GeoTIFF as pictures.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use tiff_reader::{OpenOptions, ParseBudgets, TiffFile};

use super::crs::{CrsError, Epsg};
use super::error::RasterError;
use super::georeference::GeoReference;
use super::header::{self, Channels, Decoding, Level};
use super::samples::{SampleType, Samples};
use super::stretch::{ByteScale, Rendering, Stretch, percentiles};
use super::writer::Validity;
use super::{PixelWindow, RasterLimits};
use crate::lonlat::Place;
use crate::picture::{Mask, Picture};

/// A raster with at most so many channels is decoded for all of them at once.
const CHANNELS_AT_ONCE: usize = 4;

/// Percentiles are estimated from the smallest overview with at least so many pixels.
const ENOUGH_PIXELS: u64 = 1 << 16;

/// From a larger raster than this, percentiles take windows here and there.
const MANY_PIXELS: u64 = 1 << 21;

/// Windows a side and pixels a side of these windows, for percentiles.
const SAMPLED: (u32, u32) = (8, 128);

/// A window of a raster.
#[derive(Clone, Debug, PartialEq)]
pub struct RasterWindow {
    /// The picture; black where there is no data.
    pub picture: Picture,
    /// Where there is no data.
    pub nodata: Mask,
}

/// An open GeoTIFF. Nothing but its tables is in memory; pixels are decoded window by window.
///
/// Without data are pixels whose alpha or mask is 0, whose tile was left out, that are not a number, or that are the
/// file's nodata value: for integers in every band shown, because one band of a colour may well have that value; for
/// fractions in any.
///
/// Of a file with several pages the first is read. World files and other companions are not looked at.
pub struct RasterReader {
    path: PathBuf,
    tiff: TiffFile,
    limits: RasterLimits,
    levels: Vec<Level>,
    channels: Channels,
    nodata: Option<f64>,
    georeference: Result<GeoReference, NoReference>,
}

/// Why there is no reference; raised when it is asked for, because pixels can be read without.
#[derive(Clone, Debug)]
enum NoReference {
    Nothing(String),
    GroundControlPoints,
}

impl RasterReader {
    /// Opens a TIFF, GeoTIFF or COG and checks its tables.
    ///
    /// # Errors
    ///
    /// Every [`RasterError`] about files; none about the place, which [`RasterReader::georeference`] raises.
    pub fn open(path: impl AsRef<Path>, limits: &RasterLimits) -> Result<Self, RasterError> {
        let path = path.as_ref();
        check_file(path)?;
        let options = OpenOptions {
            block_cache_bytes: limits.cache_bytes,
            parse_budgets: ParseBudgets {
                max_ifds: 1000,
                max_ifd_entries: 4096,
                max_tag_value_bytes: limits.max_table_bytes,
                max_metadata_value_bytes: limits.max_table_bytes.saturating_mul(2),
            },
            // A window of the widest pixels that are decoded at once, or a block.
            decode_output_bytes: usize::try_from(limits.max_block_bytes.max(limits.max_window_pixels * 32))
                .unwrap_or(usize::MAX),
            ..OpenOptions::default()
        };
        let tiff = TiffFile::open_with_options(path, options)
            .map_err(|error| RasterError::from_tiff(path, error, limits.max_block_bytes))?;
        let levels = header::levels(path, &tiff, limits)?;
        let whole = &tiff.ifds()[levels[0].ifd];
        let channels = header::channels(path, whole, limits)?;
        for level in &levels[1..] {
            let other = header::channels(path, &tiff.ifds()[level.ifd], limits)?;
            if (other.count, other.kind) != (channels.count, channels.kind) {
                let detail = "an overview has other bands than the raster".to_owned();
                return Err(RasterError::Damaged { path: path.to_owned(), detail });
            }
        }
        let georeference = header::georeference(path, whole).map_err(|error| match error {
            RasterError::GroundControlPoints { .. } => NoReference::GroundControlPoints,
            RasterError::NoGeoReference { detail, .. } => NoReference::Nothing(detail),
            other => NoReference::Nothing(other.to_string()),
        });
        let nodata = header::nodata(whole);
        Ok(Self { path: path.to_owned(), limits: *limits, levels, channels, nodata, georeference, tiff })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Pixels from left to right.
    pub fn width(&self) -> u32 {
        self.levels[0].width
    }

    /// Pixels from top to bottom.
    pub fn height(&self) -> u32 {
        self.levels[0].height
    }

    /// Width and height of the raster (level 0) and of its overviews, the largest first.
    pub fn levels(&self) -> Vec<(u32, u32)> {
        self.levels.iter().map(|level| (level.width, level.height)).collect()
    }

    /// How many bands there are, without the alpha band.
    pub fn band_count(&self) -> usize {
        self.channels.count - usize::from(self.channels.alpha.is_some())
    }

    /// The type of the numbers.
    pub fn sample_type(&self) -> SampleType {
        self.channels.kind
    }

    /// The value that means "no data", as the file says it.
    pub fn nodata(&self) -> Option<f64> {
        self.nodata
    }

    /// How a raster written from this one should say where it has no data.
    ///
    /// A nodata value that is a byte is kept. Any other way becomes an alpha band.
    pub fn validity(&self) -> Validity {
        let byte = self.nodata.filter(|value| (0.0..=255.0).contains(value) && value.fract() == 0.0);
        let masked = self.channels.alpha.is_some() || self.levels[0].mask.is_some();
        match (byte, masked) {
            (Some(value), false) => Validity::Nodata(value as u8),
            (None, false)
                if self.nodata.is_none() && !self.channels.kind.is_float() && !self.levels[0].sparse =>
            {
                Validity::Everywhere
            }
            _ => Validity::Alpha,
        }
    }

    /// Where the raster lies.
    ///
    /// # Errors
    ///
    /// [`RasterError::NoGeoReference`] and [`RasterError::GroundControlPoints`].
    pub fn georeference(&self) -> Result<&GeoReference, RasterError> {
        let path = || self.path.clone();
        self.georeference.as_ref().map_err(|reason| match reason {
            NoReference::GroundControlPoints => RasterError::GroundControlPoints { path: path() },
            NoReference::Nothing(detail) => {
                RasterError::NoGeoReference { path: path(), detail: detail.clone() }
            }
        })
    }

    /// The same raster with coordinates in a CRS that the user names, instead of what the file says.
    ///
    /// # Errors
    ///
    /// As [`RasterReader::georeference`], and [`RasterError::Crs`] when the CRS is not known.
    pub fn with_crs(mut self, epsg: Epsg) -> Result<Self, RasterError> {
        let named = self.georeference()?.clone().with_crs(epsg).map_err(|cause| self.crs_error(cause))?;
        self.georeference = Ok(named);
        Ok(self)
    }

    /// The place of a pixel position, as [`GeoReference::place`] says.
    ///
    /// # Errors
    ///
    /// As [`RasterReader::georeference`], and [`RasterError::Crs`].
    pub fn place(&self, x: f64, y: f64) -> Result<Place, RasterError> {
        self.georeference()?.place(x, y).map_err(|cause| self.crs_error(cause))
    }

    fn crs_error(&self, cause: CrsError) -> RasterError {
        RasterError::Crs { path: self.path.clone(), cause }
    }

    /// Decides once for all windows which bands are shown and how their numbers become bytes.
    ///
    /// `bands` counts from 1 and names one band (grey) or three (red, green, blue). Without it, the first three are
    /// taken, or the first if there are fewer.
    ///
    /// # Errors
    ///
    /// [`RasterError::NoSuchBands`], [`RasterError::EmptyStretch`], and those of [`RasterReader::read_window`].
    pub fn rendering(&self, bands: Option<&[usize]>, stretch: Stretch) -> Result<Rendering, RasterError> {
        let bands = self.chosen(bands)?;
        let kind = self.channels.kind;
        let in_order = |low: f64, high: f64| {
            if low.is_finite() && high.is_finite() && low < high {
                return Ok(());
            }
            Err(RasterError::EmptyStretch { path: self.path.clone(), low, high })
        };
        let scales = match stretch {
            // Colours that were decoded are finished.
            Stretch::Auto if kind == SampleType::U8 || self.channels.decoding == Decoding::Coloured => {
                vec![ByteScale::whole(kind); bands.len()]
            }
            Stretch::Auto => self.percentile_scales(&bands, 2.0, 98.0)?,
            Stretch::Whole => vec![ByteScale::whole(kind); bands.len()],
            Stretch::Percentiles { low, high } => {
                in_order(low, high)?;
                self.percentile_scales(&bands, low, high)?
            }
            Stretch::Range { low, high } => {
                in_order(low, high)?;
                vec![ByteScale::new(low, high); bands.len()]
            }
        };
        Ok(Rendering { bands: bands.into_iter().zip(scales).collect() })
    }

    /// Reads a window as an 8-bit picture. Level 0 is the raster itself, 1 its largest overview.
    ///
    /// # Panics
    ///
    /// When there is no such level, or the rendering is another raster's and has bands that this one lacks.
    ///
    /// # Errors
    ///
    /// [`RasterError::WindowOutside`], [`RasterError::WindowTooBig`], and those about damaged files.
    pub fn read_window(
        &self,
        level: usize,
        window: PixelWindow,
        rendering: &Rendering,
    ) -> Result<RasterWindow, RasterError> {
        let bands: Vec<usize> = rendering.bands.iter().map(|(band, _)| *band).collect();
        let mut loaded = self.load(level, window, &bands)?;
        let rgb = loaded.rgb(rendering);
        let picture = Picture::new(window.width, window.height, rgb).expect("three bytes per pixel");
        let nodata = Mask::new(window.width, window.height, loaded.holes).expect("one value per pixel");
        Ok(RasterWindow { picture, nodata })
    }

    /// The channels of the bands asked for, counted from 0.
    fn chosen(&self, bands: Option<&[usize]>) -> Result<Vec<usize>, RasterError> {
        let count = self.band_count();
        let default: &[usize] = if count >= 3 { &[1, 2, 3] } else { &[1] };
        let asked = bands.unwrap_or(default);
        if !matches!(asked.len(), 1 | 3) || asked.iter().any(|band| !(1..=count).contains(band)) {
            return Err(RasterError::NoSuchBands { path: self.path.clone(), asked: asked.to_vec(), count });
        }
        // Bands are counted without alpha, which may lie between them.
        let before = |index: usize| self.channels.alpha.is_some_and(|alpha| alpha <= index);
        Ok(asked.iter().map(|band| band - 1).map(|index| index + usize::from(before(index))).collect())
    }

    /// Estimates percentiles from a small overview, or from windows here and there.
    fn percentile_scales(&self, bands: &[usize], low: f64, high: f64) -> Result<Vec<ByteScale>, RasterError> {
        let pixels = |level: &Level| u64::from(level.width) * u64::from(level.height);
        let level = self.levels.iter().rposition(|level| pixels(level) >= ENOUGH_PIXELS).unwrap_or(0);
        let size = &self.levels[level];
        let windows = if pixels(size) <= MANY_PIXELS.min(self.limits.max_window_pixels) {
            vec![PixelWindow::new(0, 0, size.width, size.height)]
        } else {
            spread_windows(size.width, size.height)
        };
        let mut values = vec![Vec::new(); bands.len()];
        for window in windows {
            let loaded = self.load(level, window, bands)?;
            for (slot, values) in values.iter_mut().enumerate() {
                loaded.each(slot, |index, value| {
                    if !loaded.holes[index] && value.is_finite() {
                        values.push(value);
                    }
                });
            }
        }
        let scale = |values: &mut Vec<f64>| match percentiles(values, low, high) {
            Some((low, high)) => ByteScale::new(low, high),
            None => ByteScale::whole(self.channels.kind),
        };
        Ok(values.iter_mut().map(scale).collect())
    }

    /// Decodes some channels of a window and finds out where there is no data.
    fn load(&self, level: usize, window: PixelWindow, bands: &[usize]) -> Result<Loaded, RasterError> {
        let level = &self.levels[level];
        self.check_window(level, &window)?;
        let mut wanted = bands.to_vec();
        wanted.extend(self.channels.alpha);
        let mut loaded = self.decode(level, &window, &wanted)?;

        if self.channels.alpha.is_some() {
            loaded.mark_where(bands.len(), |alpha| alpha == 0.0);
        }
        self.mark_nodata(level, &window, bands.len(), &mut loaded)?;
        if let Some(mask) = level.mask {
            let samples = self.stored_band(mask, &window, 0)?;
            samples.each(0, |index, value| loaded.holes[index] |= value == 0.0);
        }
        if level.sparse {
            for part in header::missing_parts(level, &self.tiff.ifds()[level.ifd], &window) {
                for y in part.y..part.y + part.height {
                    let start =
                        (y - window.y) as usize * window.width as usize + (part.x - window.x) as usize;
                    loaded.holes[start..start + part.width as usize].fill(true);
                }
            }
        }
        Ok(loaded)
    }

    /// Marks pixels that are no number or the nodata value.
    fn mark_nodata(
        &self,
        level: &Level,
        window: &PixelWindow,
        bands: usize,
        loaded: &mut Loaded,
    ) -> Result<(), RasterError> {
        let kind = self.channels.kind;
        let nodata = self.nodata.map(|value| kind.rounded(value));
        if kind.is_float() {
            for slot in 0..bands {
                loaded.mark_where(slot, |value| !value.is_finite() || Some(value) == nodata);
            }
        } else if let Some(nodata) = nodata {
            if self.channels.palette {
                let indices = self.stored_band(level.ifd, window, 0)?;
                indices.each(0, |index, value| loaded.holes[index] |= value == nodata);
                return Ok(());
            }
            let mut alike = vec![0_u8; window.pixels()];
            for slot in 0..bands {
                loaded.each(slot, |index, value| alike[index] += u8::from(value == nodata));
            }
            for (hole, alike) in loaded.holes.iter_mut().zip(alike) {
                *hole |= usize::from(alike) == bands;
            }
        }
        Ok(())
    }

    /// Decodes some channels of a window; no holes are known yet.
    fn decode(&self, level: &Level, window: &PixelWindow, channels: &[usize]) -> Result<Loaded, RasterError> {
        let Channels { decoding, kind, count, .. } = self.channels;
        let (row, column) = (window.y as usize, window.x as usize);
        let (rows, columns) = (window.height as usize, window.width as usize);
        let together = match decoding {
            Decoding::Coloured => {
                Some(self.tiff.read_decoded_window_bytes(level.ifd, row, column, rows, columns))
            }
            Decoding::Stored if count <= CHANNELS_AT_ONCE => {
                Some(self.tiff.read_window_bytes(level.ifd, row, column, rows, columns))
            }
            Decoding::Stored => None,
        };
        let (samples, found) = match together {
            Some(bytes) => {
                let bytes = bytes.map_err(|error| self.tiff_error(error))?;
                let found = channels.iter().map(|channel| (0, *channel)).collect();
                (vec![self.checked(bytes, kind, count, window)?], found)
            }
            None => {
                let bands = channels.iter().map(|channel| self.stored_band(level.ifd, window, *channel));
                let samples = bands.collect::<Result<_, _>>()?;
                (samples, (0..channels.len()).map(|slot| (slot, 0)).collect())
            }
        };
        Ok(Loaded { samples, found, holes: vec![false; window.pixels()] })
    }

    /// One channel exactly as the file has it.
    fn stored_band(&self, ifd: usize, window: &PixelWindow, channel: usize) -> Result<Samples, RasterError> {
        let (row, column) = (window.y as usize, window.x as usize);
        let (rows, columns) = (window.height as usize, window.width as usize);
        let layout = self.tiff.ifds()[ifd].raster_layout().map_err(|error| self.tiff_error(error))?;
        let kind = SampleType::of(&layout).ok_or_else(|| RasterError::Unsupported {
            path: self.path.clone(),
            detail: format!("{}-bit samples of format {}", layout.bits_per_sample, layout.sample_format),
        })?;
        let bytes = self
            .tiff
            .read_band_window_bytes(ifd, channel, row, column, rows, columns)
            .map_err(|error| self.tiff_error(error))?;
        self.checked(bytes, kind, 1, window)
    }

    fn checked(
        &self,
        bytes: Vec<u8>,
        kind: SampleType,
        channels: usize,
        window: &PixelWindow,
    ) -> Result<Samples, RasterError> {
        if bytes.len() != window.pixels() * channels * kind.bytes() {
            let detail = format!("{window} decodes to {} bytes", bytes.len());
            return Err(RasterError::Damaged { path: self.path.clone(), detail });
        }
        Ok(Samples { bytes, kind, channels })
    }

    fn check_window(&self, level: &Level, window: &PixelWindow) -> Result<(), RasterError> {
        let path = || self.path.clone();
        let PixelWindow { width, height, .. } = *window;
        if !window.is_inside(level.width, level.height) {
            let (width, height) = (level.width, level.height);
            return Err(RasterError::WindowOutside { path: path(), window: *window, width, height });
        }
        let limit = self.limits.max_window_pixels;
        if u64::from(width) * u64::from(height) > limit {
            return Err(RasterError::WindowTooBig { path: path(), width, height, limit });
        }
        Ok(())
    }

    fn tiff_error(&self, error: tiff_reader::TiffError) -> RasterError {
        RasterError::from_tiff(&self.path, error, self.limits.max_block_bytes)
    }
}

/// Decoded channels of a window.
struct Loaded {
    samples: Vec<Samples>,
    /// Of each channel asked for: which samples, and which channel of them.
    found: Vec<(usize, usize)>,
    /// Where there is no data.
    holes: Vec<bool>,
}

impl Loaded {
    /// The bands as red, green and blue, `[height, width, 3]`, black in holes. One band is all three alike.
    fn rgb(&mut self, rendering: &Rendering) -> Vec<u8> {
        let bands = &rendering.bands;
        let is_stored = |(slot, (_, scale)): (usize, &(usize, ByteScale))| {
            self.found[slot] == (0, slot) && *scale == ByteScale::whole(SampleType::U8)
        };
        let first = &self.samples[0];
        let mut rgb = if first.kind == SampleType::U8
            && (first.channels, bands.len()) == (3, 3)
            && bands.iter().enumerate().all(is_stored)
        {
            // The most common rasters are pictures already.
            std::mem::take(&mut self.samples[0].bytes)
        } else {
            let mut rgb = vec![0; self.holes.len() * 3];
            for (slot, (_, scale)) in bands.iter().enumerate() {
                let (samples, channel) = self.found[slot];
                let samples = &self.samples[samples];
                match bands.len() {
                    1 => samples.each_byte(channel, *scale, |index, byte| rgb[index * 3..][..3].fill(byte)),
                    _ => samples.each_byte(channel, *scale, |index, byte| rgb[index * 3 + slot] = byte),
                }
            }
            rgb
        };
        for (pixel, is_hole) in rgb.chunks_exact_mut(3).zip(&self.holes) {
            if *is_hole {
                pixel.fill(0);
            }
        }
        rgb
    }

    fn each(&self, slot: usize, see: impl FnMut(usize, f64)) {
        let (samples, channel) = self.found[slot];
        self.samples[samples].each(channel, see);
    }

    fn mark_where(&mut self, slot: usize, is_hole: impl Fn(f64) -> bool) {
        let (samples, channel) = self.found[slot];
        let holes = &mut self.holes;
        self.samples[samples].each(channel, |index, value| holes[index] |= is_hole(value));
    }
}

/// Says in our words what is wrong with a file before the library sees it.
fn check_file(path: &Path) -> Result<(), RasterError> {
    let failed = |cause: io::Error| match cause.kind() {
        io::ErrorKind::NotFound => RasterError::NotFound { path: path.to_owned() },
        io::ErrorKind::IsADirectory => RasterError::Folder { path: path.to_owned() },
        _ => RasterError::Io { path: path.to_owned(), cause },
    };
    let found = fs::metadata(path).map_err(failed)?;
    if found.is_dir() {
        return Err(RasterError::Folder { path: path.to_owned() });
    }
    if !found.is_file() {
        // A pipe cannot be read in windows, and opening it would wait for ever.
        return Err(RasterError::NotATiff { path: path.to_owned() });
    }
    let mut head = Vec::new();
    File::open(path).and_then(|file| file.take(4).read_to_end(&mut head)).map_err(failed)?;
    if head.is_empty() {
        return Err(RasterError::EmptyFile { path: path.to_owned() });
    }
    match head.as_slice() {
        b"II\x2a\0" | b"MM\0\x2a" | b"II\x2b\0" | b"MM\0\x2b" => Ok(()),
        _ => Err(RasterError::NotATiff { path: path.to_owned() }),
    }
}

/// Windows spread evenly over a raster.
fn spread_windows(width: u32, height: u32) -> Vec<PixelWindow> {
    let (count, side) = SAMPLED;
    let starts = |length: u32| -> Vec<(u32, u32)> {
        let side = side.min(length);
        let span = u64::from(length - side);
        let mut starts: Vec<u32> =
            (0..count).map(|i| (span * u64::from(i) / u64::from(count - 1)) as u32).collect();
        starts.dedup();
        starts.into_iter().map(|start| (start, side)).collect()
    };
    let columns = starts(width);
    let rows = starts(height);
    let windows = rows.iter().flat_map(|&(y, height)| {
        columns.iter().map(move |&(x, width)| PixelWindow::new(x, y, width, height))
    });
    windows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_spread_to_the_borders() {
        let windows = spread_windows(10_000, 100);
        assert_eq!(windows.len(), 8);
        assert_eq!(windows[0], PixelWindow::new(0, 0, 128, 100));
        assert_eq!(windows[7], PixelWindow::new(9872, 0, 128, 100));
        assert!(spread_windows(4000, 3000).iter().all(|window| window.is_inside(4000, 3000)));
        assert_eq!(spread_windows(128, 1).len(), 1);
    }
}
