//! What a GeoTIFF says about itself before any pixel is decoded.

use std::path::Path;

use tiff_reader::{ColorModel, ExtraSample, Ifd, TiffFile};

use super::error::RasterError;
use super::geokeys::{GeoKeys, PixelIs};
use super::georeference::{AffineTransform, GeoReference};
use super::samples::SampleType;
use super::{PixelWindow, RasterLimits, tag};

/// Bits of the tag of subfiles: a smaller copy, a mask.
const REDUCED: u32 = 1;
const MASK: u32 = 4;

/// The raster itself or one of its overviews.
#[derive(Clone, Debug)]
pub(super) struct Level {
    /// Its number in the file.
    pub ifd: usize,
    /// The number of its mask in the file.
    pub mask: Option<usize>,
    pub width: u32,
    pub height: u32,
    /// Pixels of a tile or strip.
    pub block: (u32, u32),
    /// Whether tiles that hold nothing were left out of the file.
    pub sparse: bool,
}

/// How the numbers of a pixel come out of the decoder.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Decoding {
    /// As they are stored.
    Stored,
    /// Turned into grey or RGB: palettes, YCbCr, CMYK, inverted grey, less than a byte.
    Coloured,
}

/// The channels of a pixel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Channels {
    pub decoding: Decoding,
    pub kind: SampleType,
    /// All of them, alpha included.
    pub count: usize,
    pub alpha: Option<usize>,
    /// Whether the stored numbers point into a table of colours, so that nodata is meant of these.
    pub palette: bool,
}

/// Sorts a file's pictures into the raster, its overviews (the largest first) and their masks.
pub(super) fn levels(path: &Path, tiff: &TiffFile, limits: &RasterLimits) -> Result<Vec<Level>, RasterError> {
    let subfile = |ifd: &Ifd| ifd.tag(tag::SUBFILE).and_then(|tag| tag.value.as_u32()).unwrap_or(0);
    let mask_of = |base: &Ifd| {
        let is_mask = |ifd: &Ifd| {
            subfile(ifd) & MASK != 0 && (ifd.width(), ifd.height()) == (base.width(), base.height())
        };
        tiff.ifds().iter().position(is_mask)
    };
    let ifds = || tiff.ifds().iter().enumerate().filter(|(_, ifd)| subfile(ifd) & MASK == 0);

    let damaged = |detail: &str| RasterError::Damaged { path: path.to_owned(), detail: detail.to_owned() };
    let (base, whole) = ifds()
        .find(|(_, ifd)| subfile(ifd) & REDUCED == 0)
        .ok_or_else(|| damaged("it holds no picture of full size"))?;
    let mut levels = vec![level(path, base, whole, mask_of(whole), limits)?];
    for (index, ifd) in ifds().filter(|(index, ifd)| *index != base && subfile(ifd) & REDUCED != 0) {
        if ifd.width() < whole.width() || ifd.height() < whole.height() {
            levels.push(level(path, index, ifd, mask_of(ifd), limits)?);
        }
    }
    levels[1..].sort_by_key(|level| std::cmp::Reverse(u64::from(level.width) * u64::from(level.height)));
    // A mask is decoded as well, so it must keep the limits too.
    for mask in levels.iter().filter_map(|level| level.mask) {
        level(path, mask, &tiff.ifds()[mask], None, limits)?;
    }
    Ok(levels)
}

fn level(
    path: &Path,
    index: usize,
    ifd: &Ifd,
    mask: Option<usize>,
    limits: &RasterLimits,
) -> Result<Level, RasterError> {
    let (width, height) = (ifd.width(), ifd.height());
    if width == 0 || height == 0 {
        return Err(RasterError::NoPixels { path: path.to_owned(), width, height });
    }
    let failed = |error| RasterError::from_tiff(path, error, limits.max_block_bytes);
    let damaged = |detail: String| RasterError::Damaged { path: path.to_owned(), detail };
    let layout = ifd.raster_layout().map_err(failed)?;
    let block = match (ifd.tile_width(), ifd.tile_height()) {
        (Some(width), Some(height)) if ifd.is_tiled() => (width, height),
        // Rows of a strip may be said as "all", which is 2³² − 1.
        _ => (width, ifd.rows_per_strip().min(height)),
    };
    if block.0 == 0 || block.1 == 0 {
        return Err(damaged(format!("tiles of {} × {} pixels", block.0, block.1)));
    }
    let planes = if layout.planar_configuration == 1 { 1 } else { layout.samples_per_pixel as u64 };
    let samples = layout.samples_per_pixel as u64 / planes;
    let bytes =
        (u64::from(block.0) * u64::from(block.1)).saturating_mul(samples * layout.bytes_per_sample as u64);
    if bytes > limits.max_block_bytes {
        return Err(RasterError::BlockTooBig { path: path.to_owned(), bytes, limit: limits.max_block_bytes });
    }

    // A size that the file made up shows here: it cannot list the tiles for it.
    let blocks = u64::from(width.div_ceil(block.0)) * u64::from(height.div_ceil(block.1));
    let blocks = blocks.saturating_mul(planes);
    let codes = if ifd.is_tiled() { [324, 325] } else { [273, 279] };
    let mut sparse = false;
    for code in codes {
        let found = ifd.tag(code).map(|tag| tag.count).unwrap_or(0);
        if found != blocks {
            let detail = format!("{width} × {height} pixels need {blocks} tiles or strips, it lists {found}");
            return Err(damaged(detail));
        }
        let places = ifd.tag(code).and_then(|tag| tag.value.as_u64_vec());
        sparse |= places.is_some_and(|places| places.contains(&0));
    }
    Ok(Level { ifd: index, mask, width, height, block, sparse })
}

/// Finds the parts of a window whose tiles were left out of the file.
pub(super) fn missing_parts(level: &Level, ifd: &Ifd, window: &PixelWindow) -> Vec<PixelWindow> {
    let codes = if ifd.is_tiled() { [324, 325] } else { [273, 279] };
    let lists = codes.map(|code| ifd.tag(code).and_then(|tag| tag.value.as_u64_vec()).unwrap_or_default());
    let (width, height) = level.block;
    let across = level.width.div_ceil(width) as usize;
    let mut parts = Vec::new();
    for row in window.y / height..(window.y + window.height).div_ceil(height) {
        for column in window.x / width..(window.x + window.width).div_ceil(width) {
            let index = row as usize * across + column as usize;
            if lists.iter().any(|list| list.get(index) == Some(&0)) {
                let (left, top) = ((column * width).max(window.x), (row * height).max(window.y));
                let right = column.saturating_add(1).saturating_mul(width).min(window.x + window.width);
                let bottom = row.saturating_add(1).saturating_mul(height).min(window.y + window.height);
                parts.push(PixelWindow::new(left, top, right - left, bottom - top));
            }
        }
    }
    parts
}

/// The channels of a raster's pixels as they will be read.
pub(super) fn channels(path: &Path, ifd: &Ifd, limits: &RasterLimits) -> Result<Channels, RasterError> {
    let failed = |error| RasterError::from_tiff(path, error, limits.max_block_bytes);
    let model = ifd.color_model().map_err(failed)?;
    let stored = ifd.raster_layout().map_err(failed)?;
    let colours = match &model {
        ColorModel::Grayscale { .. } | ColorModel::TransparencyMask => 1,
        ColorModel::Separated { color_channels, .. } => usize::from(*color_channels),
        _ => 3,
    };
    let as_stored = match &model {
        ColorModel::Grayscale { white_is_zero, .. } => !white_is_zero,
        ColorModel::Rgb { .. } | ColorModel::Separated { .. } => true,
        _ => false,
    };
    let decoding = if as_stored && !stored.is_bit_packed() { Decoding::Stored } else { Decoding::Coloured };
    let layout = match decoding {
        Decoding::Stored => stored,
        Decoding::Coloured => ifd.decoded_raster_layout().map_err(failed)?,
    };
    let kind = SampleType::of(&layout).ok_or_else(|| RasterError::Unsupported {
        path: path.to_owned(),
        detail: format!("{}-bit samples of format {}", layout.bits_per_sample, layout.sample_format),
    })?;
    let extra = ifd.extra_samples().map_err(failed)?;
    let count = layout.samples_per_pixel;
    let tagged =
        |extra: &ExtraSample| matches!(extra, ExtraSample::AssociatedAlpha | ExtraSample::UnassociatedAlpha);
    let is_alpha = |index: &usize| match role(ifd, *index) {
        // Near infrared is often tagged as alpha, and GDAL notes that it is not.
        Some(role) => role.eq_ignore_ascii_case("alpha"),
        None => index.checked_sub(colours).and_then(|index| extra.get(index)).is_some_and(tagged),
    };
    let alpha = (0..count).find(is_alpha).filter(|_| count > 1);
    Ok(Channels { decoding, kind, count, alpha, palette: matches!(model, ColorModel::Palette { .. }) })
}

/// What GDAL's notes say a band is, for example "Alpha" or "Undefined".
fn role(ifd: &Ifd, band: usize) -> Option<&str> {
    let notes = ifd.tag(tag::GDAL_METADATA)?.value.as_str()?;
    let band = format!("sample=\"{band}\"");
    let mut items = notes.split("<Item ").filter_map(|item| item.split_once('>'));
    let (_, value) = items.find(|(attributes, _)| {
        attributes.contains("name=\"COLORINTERP\"") && attributes.split_whitespace().any(|part| part == band)
    })?;
    Some(value.split('<').next()?.trim())
}

/// The number that GDAL's tag names as "no data here".
pub(super) fn nodata(ifd: &Ifd) -> Option<f64> {
    let text = ifd.tag(tag::NODATA)?.value.as_str()?;
    // Spaces and what follows the end of the text are padding.
    text.split('\0').next()?.trim().parse().ok()
}

/// Where the raster lies.
pub(super) fn georeference(path: &Path, ifd: &Ifd) -> Result<GeoReference, RasterError> {
    let doubles = |code| ifd.tag(code).and_then(|tag| tag.value.as_f64_vec()).unwrap_or_default();
    let keys = ifd.tag(tag::GEO_KEYS).and_then(|tag| tag.value.as_u16_slice()).and_then(|directory| {
        let text = ifd.tag(tag::GEO_ASCII).and_then(|tag| tag.value.as_str()).unwrap_or_default();
        // The texts of keys are found by their position in bytes; a letter that was no UTF-8 became three.
        let text = text.replace(char::REPLACEMENT_CHARACTER, "?");
        GeoKeys::new(directory.to_vec(), doubles(tag::GEO_DOUBLES), text)
    });
    let pixel_is = keys.as_ref().map_or(PixelIs::Area, GeoKeys::pixel_is);

    let (scale, tie, matrix) =
        (doubles(tag::PIXEL_SCALE), doubles(tag::TIE_POINTS), doubles(tag::TRANSFORMATION));
    let transform = match (scale.as_slice(), tie.as_slice(), matrix.as_slice()) {
        (&[width, height, ..], &[column, row, _, x, y, _, ..], _) => {
            let (width, height) = (width.abs(), height.abs());
            AffineTransform::north_up((x - column * width, y + row * height), (width, height))
        }
        (_, _, matrix) if matrix.len() == 16 => AffineTransform {
            origin: (matrix[3], matrix[7]),
            right: (matrix[0], matrix[4]),
            down: (matrix[1], matrix[5]),
        },
        (_, tie, _) if tie.len() >= 18 => {
            return Err(RasterError::GroundControlPoints { path: path.to_owned() });
        }
        _ => {
            let detail = "it has no transform".to_owned();
            return Err(RasterError::NoGeoReference { path: path.to_owned(), detail });
        }
    };
    if !transform.is_invertible() {
        let detail = "its transform gives pixels no area".to_owned();
        return Err(RasterError::NoGeoReference { path: path.to_owned(), detail });
    }
    let transform = match pixel_is {
        PixelIs::Area => transform,
        PixelIs::Point => transform.moved(-0.5, -0.5),
    };
    Ok(GeoReference::new(transform, keys))
}
