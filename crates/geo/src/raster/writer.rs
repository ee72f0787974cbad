//! A COG written from the top row to the bottom one.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::ZlibEncoder;
use rayon::prelude::*;

use super::cog::{self, Contents, LevelTiles, TILE};
use super::error::RasterError;
use super::georeference::GeoReference;
use crate::files::{WriteError, atomic_write_with, check_output};
use crate::picture::{Mask, Picture};
use crate::provenance::Provenance;

/// Tiles that are compressed at once, on all threads of rayon.
const TILES_AT_ONCE: usize = 64;

/// How a raster says where it has no data.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Validity {
    /// It has data everywhere; masks handed over are not looked at.
    #[default]
    Everywhere,
    /// By an alpha band: 0 is no data, 255 is data.
    Alpha,
    /// By this value in all three bands. Data of just this colour is moved by one in blue, so that it stays data.
    Nodata(u8),
}

/// What a raster to be written is like.
#[derive(Clone, Debug, PartialEq)]
pub struct RasterOptions {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// How it says where it has no data.
    pub validity: Validity,
    /// Where it lies; its CRS is written exactly as it was read.
    pub georeference: Option<GeoReference>,
    /// Where the picture comes from, written into the file.
    pub provenance: Option<Provenance>,
    /// Whether a file that is there already may be replaced.
    pub overwrite: bool,
}

impl RasterOptions {
    /// A raster of this size with data everywhere; replaces nothing, lies nowhere, comes from nowhere.
    pub fn new(width: u32, height: u32) -> Self {
        let validity = Validity::Everywhere;
        Self { width, height, validity, georeference: None, provenance: None, overwrite: false }
    }
}

/// Writes an 8-bit RGB or RGBA raster as a cloud-optimised GeoTIFF: tiles of 256 × 256, overviews down to one tile,
/// deflate, BigTIFF when it needs to be.
///
/// Rows come from top to bottom, as many at a time as one likes. Compressed tiles wait in nameless files in the
/// output's folder and become the output in [`RasterWriter::finish`]: until then, and whenever something fails, there
/// is no output. In memory are about `2 · 256 · width` pixels.
///
/// ```
/// use earthmapper_geo::raster::{RasterLimits, RasterOptions, RasterReader, RasterWriter};
/// use earthmapper_geo::Picture;
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("grass.tif");
/// let mut writer = RasterWriter::create(&path, RasterOptions::new(600, 300))?;
/// for _ in 0..3 {
///     writer.write_rows(&Picture::filled(600, 100, [96, 128, 64]), None)?;
/// }
/// writer.finish()?;
///
/// let reader = RasterReader::open(&path, &RasterLimits::default())?;
/// assert_eq!(reader.levels(), [(600, 300), (300, 150), (150, 75)]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct RasterWriter {
    path: PathBuf,
    options: RasterOptions,
    levels: Vec<Level>,
    rows: u32,
}

impl RasterWriter {
    /// Checks that the output could be written and prepares it.
    ///
    /// # Errors
    ///
    /// [`RasterError::NoPixels`], and [`RasterError::Write`] as [`check_output`] says.
    pub fn create(path: impl AsRef<Path>, options: RasterOptions) -> Result<Self, RasterError> {
        let path = path.as_ref().to_owned();
        let RasterOptions { width, height, validity, overwrite, .. } = options;
        if width == 0 || height == 0 {
            return Err(RasterError::NoPixels { path, width, height });
        }
        check_output(&path, overwrite)?;
        let folder = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let mut sizes = vec![(width, height)];
        while let Some(&(width, height)) = sizes.last()
            && width.max(height) > TILE
        {
            sizes.push((width.div_ceil(2), height.div_ceil(2)));
        }
        let levels = sizes.into_iter().map(|size| Level::new(size, validity, folder));
        let levels = levels.collect::<io::Result<_>>().map_err(|cause| failed(&path, cause))?;
        Ok(Self { path, options, levels, rows: 0 })
    }

    /// How many rows were handed over.
    pub fn rows(&self) -> u32 {
        self.rows
    }

    /// Hands over the next rows, `[rows, width]` pixels; holes of `nodata` are where there is no data.
    ///
    /// # Errors
    ///
    /// [`RasterError::RowsDoNotFit`], and [`RasterError::Write`] when the system refuses.
    pub fn write_rows(&mut self, picture: &Picture, nodata: Option<&Mask>) -> Result<(), RasterError> {
        let (width, rows) = (picture.width(), picture.height());
        self.check_rows(width, rows)?;
        if let Some(mask) = nodata {
            self.check_rows(mask.width(), mask.height())?;
            if mask.height() != rows {
                return Err(self.rows_do_not_fit(mask.width(), mask.height()));
            }
        }
        for y in 0..rows as usize {
            let start = y * width as usize;
            let rgb = &picture.rgb()[start * 3..][..width as usize * 3];
            let holes = nodata.map(|mask| &mask.holes()[start..][..width as usize]);
            let row = stored_row(rgb, holes, self.options.validity);
            push_row(&mut self.levels, &row).map_err(|cause| failed(&self.path, cause))?;
        }
        self.rows += rows;
        Ok(())
    }

    /// Puts the file together and gives it its name.
    ///
    /// # Errors
    ///
    /// [`RasterError::Unfinished`] when rows are missing; [`RasterError::Write`]. On any error there is no output.
    pub fn finish(self) -> Result<(), RasterError> {
        let Self { path, options, levels, rows } = self;
        if rows != options.height {
            return Err(RasterError::Unfinished { path, rows, height: options.height });
        }
        let tiles = levels.into_iter().map(Level::into_tiles).collect::<io::Result<Vec<_>>>();
        let tiles = tiles.map_err(|cause| failed(&path, cause))?;
        let contents = Contents {
            validity: options.validity,
            georeference: options.georeference.as_ref(),
            provenance: options.provenance.as_ref(),
        };
        atomic_write_with(&path, options.overwrite, |file| cog::write(file, tiles, &contents))?;
        Ok(())
    }

    fn check_rows(&self, width: u32, rows: u32) -> Result<(), RasterError> {
        let fits = width == self.options.width && rows <= self.options.height - self.rows;
        if fits { Ok(()) } else { Err(self.rows_do_not_fit(width, rows)) }
    }

    fn rows_do_not_fit(&self, width: u32, rows: u32) -> RasterError {
        let (raster_width, raster_height) = (self.options.width, self.options.height);
        RasterError::RowsDoNotFit {
            path: self.path.clone(),
            width,
            rows,
            at: self.rows,
            raster_width,
            raster_height,
        }
    }
}

fn failed(path: &Path, cause: io::Error) -> RasterError {
    RasterError::Write(WriteError::Io { path: path.to_owned(), cause })
}

/// A row as it is stored: holes marked, data that looks like a hole moved.
fn stored_row(rgb: &[u8], holes: Option<&[bool]>, validity: Validity) -> Vec<u8> {
    let is_hole = |index: usize| holes.is_some_and(|holes| holes[index]);
    let pixels = rgb.chunks_exact(3).enumerate();
    match validity {
        Validity::Everywhere => rgb.to_vec(),
        Validity::Alpha => pixels
            .flat_map(
                |(index, pixel)| {
                    if is_hole(index) { [0; 4] } else { [pixel[0], pixel[1], pixel[2], 255] }
                },
            )
            .collect(),
        Validity::Nodata(value) => {
            pixels
                .flat_map(|(index, pixel)| {
                    if is_hole(index) { [value; 3] } else { kept([pixel[0], pixel[1], pixel[2]], value) }
                })
                .collect()
        }
    }
}

/// Data that is not the nodata value.
fn kept(pixel: [u8; 3], nodata: u8) -> [u8; 3] {
    if pixel != [nodata; 3] {
        return pixel;
    }
    [nodata, nodata, if nodata == u8::MAX { nodata - 1 } else { nodata + 1 }]
}

/// The raster or one of its overviews, as far as it has come.
struct Level {
    width: u32,
    height: u32,
    validity: Validity,
    /// Rows pushed.
    rows: u32,
    /// The rows that are no tiles yet.
    waiting: Vec<u8>,
    /// The row above, while the overview waits for its partner.
    partner: Option<Vec<u8>>,
    tiles: BufWriter<File>,
    /// Bytes of each tile.
    sizes: Vec<u32>,
}

impl Level {
    fn new((width, height): (u32, u32), validity: Validity, folder: &Path) -> io::Result<Self> {
        let tiles = BufWriter::new(tempfile::tempfile_in(folder)?);
        let (waiting, partner, sizes) = (Vec::new(), None, Vec::new());
        Ok(Self { width, height, validity, rows: 0, waiting, partner, tiles, sizes })
    }

    /// Adds a row, and the tiles that it completes.
    fn push(&mut self, row: &[u8]) -> io::Result<()> {
        self.waiting.extend_from_slice(row);
        self.rows += 1;
        if self.rows.is_multiple_of(TILE) || self.rows == self.height {
            let rows = std::mem::take(&mut self.waiting);
            let columns: Vec<usize> = (0..self.width.div_ceil(TILE) as usize).collect();
            for columns in columns.chunks(TILES_AT_ONCE) {
                let tiles = columns.par_iter().map(|column| compressed(&self.tile(&rows, *column)));
                for tile in tiles.collect::<Vec<_>>() {
                    self.store(&tile?)?;
                }
            }
            // The same room serves the next rows.
            self.waiting = rows;
            self.waiting.clear();
        }
        Ok(())
    }

    /// Cuts a tile out of rows, filled up with zeros, each value as the difference from the one at its left.
    fn tile(&self, rows: &[u8], column: usize) -> Vec<u8> {
        let channels = self.channels();
        let (row_bytes, tile_bytes) = (self.width as usize * channels, TILE as usize * channels);
        let mut tile = vec![0; tile_bytes * TILE as usize];
        for (row, into) in rows.chunks_exact(row_bytes).zip(tile.chunks_exact_mut(tile_bytes)) {
            let part = &row[column * tile_bytes..row_bytes.min((column + 1) * tile_bytes)];
            into[..part.len()].copy_from_slice(part);
            for at in (channels..tile_bytes).rev() {
                into[at] = into[at].wrapping_sub(into[at - channels]);
            }
        }
        tile
    }

    /// Puts a compressed tile into the waiting file, with GDAL's marks around it: its size before, its last bytes again
    /// after.
    fn store(&mut self, compressed: &[u8]) -> io::Result<()> {
        let size = u32::try_from(compressed.len()).expect("a tile is smaller than 4 GiB");
        self.tiles.write_all(&size.to_le_bytes())?;
        self.tiles.write_all(compressed)?;
        self.tiles.write_all(&compressed[compressed.len() - cog::TRAILER..])?;
        self.sizes.push(size);
        Ok(())
    }

    fn channels(&self) -> usize {
        cog::channels(self.validity)
    }

    fn into_tiles(self) -> io::Result<LevelTiles> {
        let file = self.tiles.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok(LevelTiles { width: self.width, height: self.height, sizes: self.sizes, file })
    }
}

fn compressed(tile: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(tile)?;
    encoder.finish()
}

/// Adds a row to the first level and, when it completes a pair, their mean to the next.
fn push_row(levels: &mut [Level], row: &[u8]) -> io::Result<()> {
    let Some((level, overviews)) = levels.split_first_mut() else { return Ok(()) };
    level.push(row)?;
    if overviews.is_empty() {
        return Ok(());
    }
    match level.partner.take() {
        Some(above) => push_row(overviews, &halved(&above, row, level.validity)),
        // The last of an odd number of rows is alone.
        None if level.rows == level.height => push_row(overviews, &halved(row, row, level.validity)),
        None => {
            level.partner = Some(row.to_vec());
            Ok(())
        }
    }
}

/// Two rows at half the size: each pixel the mean of the data in two by two.
fn halved(above: &[u8], below: &[u8], validity: Validity) -> Vec<u8> {
    let channels = cog::channels(validity);
    let pairs = above.chunks(2 * channels).zip(below.chunks(2 * channels));
    let mut row = Vec::with_capacity(above.len().div_ceil(2));
    for (above, below) in pairs {
        let pixels = || above.chunks_exact(channels).chain(below.chunks_exact(channels));
        let weight = |pixel: &[u8]| match validity {
            Validity::Everywhere => 1,
            Validity::Alpha => u32::from(pixel[3]),
            Validity::Nodata(value) => u32::from(pixel != [value; 3]),
        };
        let weights: u32 = pixels().map(weight).sum();
        let mean = |channel: usize| {
            let sum: u32 = pixels().map(|pixel| weight(pixel) * u32::from(pixel[channel])).sum();
            ((sum + weights / 2) / weights) as u8
        };
        match validity {
            Validity::Nodata(value) if weights == 0 => row.extend([value; 3]),
            Validity::Nodata(value) => row.extend(kept([mean(0), mean(1), mean(2)], value)),
            Validity::Alpha if weights == 0 => row.extend([0; 4]),
            Validity::Alpha => {
                let count = pixels().count() as u32;
                row.extend([mean(0), mean(1), mean(2), ((weights + count / 2) / count) as u8]);
            }
            Validity::Everywhere => row.extend([mean(0), mean(1), mean(2)]),
        }
    }
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_of_data_only() {
        let everywhere =
            halved(&[0, 0, 0, 10, 20, 30, 7, 8, 9], &[0, 0, 0, 10, 20, 30, 9, 8, 7], Validity::Everywhere);
        assert_eq!(everywhere, [5, 10, 15, 8, 8, 8]);
        let nodata = Validity::Nodata(0);
        assert_eq!(halved(&[0, 0, 0, 10, 20, 30], &[0; 6], nodata), [10, 20, 30]);
        assert_eq!(halved(&[0; 6], &[0; 6], nodata), [0; 3]);
        assert_eq!(halved(&[0, 0, 1, 0, 0, 0], &[1, 0, 0, 0, 1, 0], nodata), [0, 0, 1], "data stays data");
        let alpha = halved(&[9, 9, 9, 0, 10, 20, 30, 255], &[9, 9, 9, 0, 20, 30, 40, 255], Validity::Alpha);
        assert_eq!(alpha, [15, 25, 35, 128]);
    }

    #[test]
    fn data_does_not_become_nodata() {
        assert_eq!(
            stored_row(&[0, 0, 0, 5, 5, 5], Some(&[false, true]), Validity::Nodata(0)),
            [0, 0, 1, 0, 0, 0]
        );
        assert_eq!(stored_row(&[255; 3], None, Validity::Nodata(255)), [255, 255, 254]);
        assert_eq!(
            stored_row(&[1, 2, 3, 4, 5, 6], Some(&[true, false]), Validity::Alpha),
            [0, 0, 0, 0, 4, 5, 6, 255]
        );
    }
}
