use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;
use tiff_reader::TiffError;

use super::crs::CrsError;
use crate::files::{WriteError, reason};

/// Why a raster was not read or written. Each message starts with the path and ends with the cure.
///
/// The messages carry their cause in words, so printing the error alone is enough.
#[derive(Debug, Error)]
pub enum RasterError {
    /// There is no such file.
    #[error("{}: not found; check the name", path.display())]
    NotFound {
        /// The file that was to be read.
        path: PathBuf,
    },
    /// The path is a folder.
    #[error("{}: is a folder; name a GeoTIFF inside it", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("{}: cannot be read: {}; check that the file may be read", path.display(), reason(cause))]
    Io {
        /// The file that was to be read.
        path: PathBuf,
        /// What the operating system said.
        cause: io::Error,
    },
    /// The file has no bytes.
    #[error("{}: is empty; copy or download it again", path.display())]
    EmptyFile {
        /// The file.
        path: PathBuf,
    },
    /// The bytes do not begin like a TIFF.
    #[error("{}: is not a TIFF; give a GeoTIFF, or convert it: gdal_translate IN OUT.tif", path.display())]
    NotATiff {
        /// The file.
        path: PathBuf,
    },
    /// The file breaks off or contradicts itself.
    #[error("{}: is damaged or cut short ({detail}); copy or download it again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What the decoder stumbled over.
        detail: String,
    },
    /// The file is a TIFF of a kind that is not read.
    #[error(
        "{}: is not supported ({detail}); convert it: gdal_translate -co COMPRESS=DEFLATE -co TILED=YES IN OUT.tif",
        path.display()
    )]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What is not known about it.
        detail: String,
    },
    /// A side of the raster is zero.
    #[error("{}: has no pixels ({width} × {height}); give a raster of at least 1 × 1", path.display())]
    NoPixels {
        /// The file.
        path: PathBuf,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// One tile or strip has more bytes than allowed.
    #[error(
        "{}: one of its tiles or strips has {bytes} bytes, over the limit of {limit}; \
         cut it into tiles: gdal_translate -co COMPRESS=DEFLATE -co TILED=YES IN OUT.tif",
        path.display()
    )]
    BlockTooBig {
        /// The file.
        path: PathBuf,
        /// Decoded bytes of one tile or strip.
        bytes: u64,
        /// The most bytes allowed.
        limit: u64,
    },
    /// A window has more pixels than allowed.
    #[error("{}: a window of {width} × {height} has more than {limit} pixels; read smaller windows", path.display())]
    WindowTooBig {
        /// The file.
        path: PathBuf,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// The most pixels allowed.
        limit: u64,
    },
    /// A window is empty or reaches outside the raster.
    #[error("{}: {window} is not inside its {width} × {height} pixels; choose a window inside", path.display())]
    WindowOutside {
        /// The file.
        path: PathBuf,
        /// The window asked for.
        window: super::PixelWindow,
        /// Width of the raster (or of its overview) in pixels.
        width: u32,
        /// Height of the raster (or of its overview) in pixels.
        height: u32,
    },
    /// A band that the raster lacks, or a wrong number of bands.
    #[error(
        "{}: cannot show bands {asked:?} of {count}; give one band or three, counted from 1: --bands 1,2,3",
        path.display()
    )]
    NoSuchBands {
        /// The file.
        path: PathBuf,
        /// The bands asked for, counted from 1.
        asked: Vec<usize>,
        /// How many bands there are, without the alpha band.
        count: usize,
    },
    /// A stretch whose ends are in the wrong order or no numbers.
    #[error("{}: cannot stretch from {low} to {high}; give two finite numbers, the lower one first", path.display())]
    EmptyStretch {
        /// The file.
        path: PathBuf,
        /// What was to become black.
        low: f64,
        /// What was to become white.
        high: f64,
    },
    /// The file does not say where its pixels lie.
    #[error(
        "{}: is not georeferenced ({detail}); give it a place: \
         gdal_translate -a_srs EPSG:… -a_ullr LEFT TOP RIGHT BOTTOM IN OUT.tif",
        path.display()
    )]
    NoGeoReference {
        /// The file.
        path: PathBuf,
        /// What is missing or unusable.
        detail: String,
    },
    /// The file gives the places of some points only.
    #[error("{}: is placed by ground control points, which are not read; warp it first: gdalwarp IN OUT.tif", path.display())]
    GroundControlPoints {
        /// The file.
        path: PathBuf,
    },
    /// The place of a pixel is not known.
    #[error("{}: {cause}", path.display())]
    Crs {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: CrsError,
    },
    /// The pixels handed over are not as wide as the raster or reach below it.
    #[error(
        "{}: {width} × {rows} pixels do not fit under row {at} of {raster_width} × {raster_height}; \
         hand over whole rows from the top",
        path.display()
    )]
    RowsDoNotFit {
        /// The file that was to be written.
        path: PathBuf,
        /// Width of the rows handed over, or of their mask.
        width: u32,
        /// How many rows were handed over, or their mask has.
        rows: u32,
        /// How many rows were there already.
        at: u32,
        /// Width of the raster.
        raster_width: u32,
        /// Height of the raster.
        raster_height: u32,
    },
    /// The raster was finished before its last row.
    #[error("{}: has {rows} of {height} rows only; hand over the others before finishing", path.display())]
    Unfinished {
        /// The file that was to be written.
        path: PathBuf,
        /// How many rows were handed over.
        rows: u32,
        /// How many rows there should be.
        height: u32,
    },
    /// The file was not written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl RasterError {
    /// Whether the input is to blame, not the system or the disk.
    pub fn is_bad_input(&self) -> bool {
        !matches!(self, Self::Io { .. } | Self::Write(_))
    }

    /// What the TIFF library says about a file, in our words.
    pub(super) fn from_tiff(path: &Path, error: TiffError, limit: u64) -> Self {
        let path = path.to_owned();
        match error {
            TiffError::Io(cause, _) if cause.kind() != io::ErrorKind::UnexpectedEof => {
                Self::Io { path, cause }
            }
            TiffError::InvalidMagic => Self::NotATiff { path },
            TiffError::UnsupportedCompression(_)
            | TiffError::UnsupportedPredictor(_)
            | TiffError::UnsupportedPlanarConfiguration(_)
            | TiffError::UnsupportedBitsPerSample(_)
            | TiffError::UnsupportedSampleFormat(_)
            | TiffError::UnsupportedVersion(_)
            | TiffError::TypeMismatch { .. } => Self::Unsupported { path, detail: error.to_string() },
            TiffError::DecodeOutputTooLarge { requested, .. } => {
                Self::BlockTooBig { path, bytes: requested as u64, limit }
            }
            other => Self::Damaged { path, detail: other.to_string() },
        }
    }
}
