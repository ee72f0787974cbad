use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::Path;

use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader};
use serde::{Deserialize, Serialize};

use super::{Mask, Picture, PictureError};

/// How large a picture may be before it is refused, so that a small hostile file cannot fill the memory.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct PictureLimits {
    /// The most pixels (width × height) that are decoded.
    pub max_pixels: u64,
    /// The most bytes that are read from a file.
    pub max_file_bytes: u64,
}

impl Default for PictureLimits {
    /// 100 million pixels, 1 GiB of file.
    fn default() -> Self {
        Self { max_pixels: 100_000_000, max_file_bytes: 1 << 30 }
    }
}

impl PictureLimits {
    /// What a decoder may allocate: 8 bytes is the widest pixel (16-bit RGBA), and some room for its own tables.
    fn max_alloc(&self) -> u64 {
        self.max_pixels.saturating_mul(8).saturating_add(64 << 20)
    }
}

/// Reads a PNG, JPEG or WebP file, whatever its name says.
///
/// Grey becomes RGB, 16 bits become 8, transparency is laid over white, and the orientation that a camera noted is
/// applied. Of an animation, the first picture is taken.
///
/// # Errors
///
/// Every [`PictureError`] about reading.
pub fn read_picture(path: impl AsRef<Path>, limits: &PictureLimits) -> Result<Picture, PictureError> {
    let path = path.as_ref();
    decode_picture(&read_bounded(path, limits)?, path, limits)
}

/// Reads a mask: white (luma of at least 128) is a hole; what is transparent counts as black.
///
/// # Errors
///
/// As [`read_picture`].
pub fn read_mask(path: impl AsRef<Path>, limits: &PictureLimits) -> Result<Mask, PictureError> {
    let path = path.as_ref();
    decode_mask(&read_bounded(path, limits)?, path, limits)
}

/// Decodes the bytes of a picture as [`read_picture`] does; `name` stands for the path in errors.
///
/// # Errors
///
/// As [`read_picture`].
pub fn decode_picture(
    bytes: &[u8],
    name: impl AsRef<Path>,
    limits: &PictureLimits,
) -> Result<Picture, PictureError> {
    let decoded = decode(bytes, name.as_ref(), limits)?;
    let (width, height) = (decoded.width(), decoded.height());
    let rgb = if decoded.color().has_alpha() { over_white(decoded) } else { decoded.into_rgb8().into_raw() };
    Ok(Picture { width, height, rgb })
}

/// Decodes the bytes of a picture as [`decode_picture`] does, and says where it is more than half transparent: there is
/// no data in a tile or any other picture of the ground.
///
/// # Errors
///
/// As [`read_picture`].
pub fn decode_with_holes(
    bytes: &[u8],
    name: impl AsRef<Path>,
    limits: &PictureLimits,
) -> Result<(Picture, Mask), PictureError> {
    let decoded = decode(bytes, name.as_ref(), limits)?;
    let (width, height) = (decoded.width(), decoded.height());
    if !decoded.color().has_alpha() {
        let picture = Picture { width, height, rgb: decoded.into_rgb8().into_raw() };
        return Ok((picture, Mask::filled(width, height, false)));
    }
    let decoded = DynamicImage::from(decoded.into_rgba8());
    let holes = decoded.as_bytes().chunks_exact(4).map(|pixel| pixel[3] < 128).collect();
    let mask = Mask::new(width, height, holes).expect("one value per pixel");
    Ok((Picture { width, height, rgb: over_white(decoded) }, mask))
}

/// Decodes the bytes of a mask as [`read_mask`] does; `name` stands for the path in errors.
///
/// # Errors
///
/// As [`read_picture`].
pub fn decode_mask(
    bytes: &[u8],
    name: impl AsRef<Path>,
    limits: &PictureLimits,
) -> Result<Mask, PictureError> {
    let decoded = decode(bytes, name.as_ref(), limits)?;
    let (width, height) = (decoded.width(), decoded.height());
    let luma = decoded.into_luma_alpha8().into_raw();
    // Transparent means that nothing was painted there, so it counts as black.
    let holes = luma.chunks_exact(2).map(|pixel| u16::from(pixel[0]) * u16::from(pixel[1]) >= 128 * 255);
    Ok(Mask::new(width, height, holes.collect()).expect("one value per pixel"))
}

fn over_white(decoded: DynamicImage) -> Vec<u8> {
    let rgba = decoded.into_rgba8().into_raw();
    let mut rgb = Vec::with_capacity(rgba.len() / 4 * 3);
    for pixel in rgba.chunks_exact(4) {
        let alpha = u16::from(pixel[3]);
        let composed = |value: u8| ((u16::from(value) * alpha + 255 * (255 - alpha) + 127) / 255) as u8;
        rgb.extend([composed(pixel[0]), composed(pixel[1]), composed(pixel[2])]);
    }
    rgb
}

/// The bytes of a file, but never more than the limit: a pipe or a growing file does not tell its size beforehand.
pub(crate) fn read_bounded(path: &Path, limits: &PictureLimits) -> Result<Vec<u8>, PictureError> {
    let failed = |cause: io::Error| match cause.kind() {
        io::ErrorKind::NotFound => PictureError::NotFound { path: path.to_owned() },
        io::ErrorKind::IsADirectory => PictureError::Folder { path: path.to_owned() },
        _ => PictureError::Io { path: path.to_owned(), cause },
    };
    if path.is_dir() {
        return Err(PictureError::Folder { path: path.to_owned() });
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(limits.max_file_bytes.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > limits.max_file_bytes {
        return Err(PictureError::FileTooBig { path: path.to_owned(), limit: limits.max_file_bytes });
    }
    Ok(bytes)
}

fn decode(bytes: &[u8], path: &Path, limits: &PictureLimits) -> Result<DynamicImage, PictureError> {
    let mut decoder = decoder(bytes, path, limits)?;
    let damaged = |error| damaged(path, error);
    let orientation = decoder.orientation().map_err(damaged)?;
    let mut decoded = DynamicImage::from_decoder(decoder).map_err(damaged)?;
    decoded.apply_orientation(orientation);
    Ok(decoded)
}

/// A decoder that has read the header and found it within the limits; no pixel is decoded yet.
pub(crate) fn decoder<'a>(
    bytes: &'a [u8],
    path: &Path,
    limits: &PictureLimits,
) -> Result<impl ImageDecoder + 'a, PictureError> {
    if bytes.is_empty() {
        return Err(PictureError::EmptyFile { path: path.to_owned() });
    }
    let format =
        image::guess_format(bytes).map_err(|_| PictureError::NotAPicture { path: path.to_owned() })?;
    check_container(bytes, format, path, limits)?;

    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut decoder_limits = image::Limits::default();
    decoder_limits.max_alloc = Some(limits.max_alloc());
    reader.limits(decoder_limits);
    let decoder = reader.into_decoder().map_err(|error| damaged(path, error))?;
    let (width, height) = decoder.dimensions();
    check_size(path, width, height, limits)?;
    Ok(decoder)
}

fn check_size(path: &Path, width: u32, height: u32, limits: &PictureLimits) -> Result<(), PictureError> {
    let path = path.to_owned();
    match u64::from(width) * u64::from(height) {
        0 => Err(PictureError::NoPixels { path, width, height }),
        pixels if pixels > limits.max_pixels => {
            Err(PictureError::TooManyPixels { path, width, height, limit: limits.max_pixels })
        }
        _ => Ok(()),
    }
}

/// Finds what the decoders let pass or name badly: other formats, sizes of nothing or too much, files cut short.
fn check_container(
    bytes: &[u8],
    format: ImageFormat,
    path: &Path,
    limits: &PictureLimits,
) -> Result<(), PictureError> {
    let cut_short =
        || PictureError::Damaged { path: path.to_owned(), detail: "the file ends too early".to_owned() };
    match format {
        ImageFormat::Png => {
            let side = |at: usize| {
                bytes.get(at..at + 4).map(|side| u32::from_be_bytes([side[0], side[1], side[2], side[3]]))
            };
            let (width, height) = side(16).zip(side(20)).ok_or_else(cut_short)?;
            // Here already, because the decoder would call a huge row a want of memory.
            check_size(path, width, height, limits)?;
        }
        ImageFormat::Jpeg => match walk_jpeg(bytes) {
            JpegEnd::NoPixels { width, height } => {
                return Err(PictureError::NoPixels { path: path.to_owned(), width, height });
            }
            // The decoder would paint the missing part grey without a word.
            JpegEnd::Missing => return Err(cut_short()),
            JpegEnd::Present => {}
        },
        ImageFormat::WebP => {
            let length = bytes.get(4..8).ok_or_else(cut_short)?;
            let length = u32::from_le_bytes([length[0], length[1], length[2], length[3]]);
            if (bytes.len() as u64) < u64::from(length) + 8 {
                return Err(cut_short());
            }
        }
        other => {
            let format = format!("{other:?}").to_uppercase();
            return Err(PictureError::UnsupportedFormat { path: path.to_owned(), format });
        }
    }
    Ok(())
}

enum JpegEnd {
    Present,
    Missing,
    NoPixels { width: u32, height: u32 },
}

/// Steps over a JPEG's segments to its compressed data and looks for the end marker there.
fn walk_jpeg(bytes: &[u8]) -> JpegEnd {
    let two_bytes = |at: usize| bytes.get(at..at + 2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
    let mut at = 2;
    while let Some(&[first, marker]) = bytes.get(at..at + 2) {
        match (first, marker) {
            // Fill bytes and stray bytes between segments are allowed.
            (0xFF, 0xFF) | (0x00..=0xFE, _) => at += 1,
            (0xFF, 0x00 | 0x01 | 0xD0..=0xD8) => at += 2,
            (0xFF, 0xD9) => return JpegEnd::Present,
            (0xFF, marker) => {
                let is_frame = matches!(marker, 0xC0..=0xCF) && !matches!(marker, 0xC4 | 0xC8 | 0xCC);
                if let (true, Some(height), Some(width)) = (is_frame, two_bytes(at + 5), two_bytes(at + 7))
                    && (width == 0 || height == 0)
                {
                    return JpegEnd::NoPixels { width: width.into(), height: height.into() };
                }
                let Some(length) = two_bytes(at + 2) else { return JpegEnd::Missing };
                at += 2 + usize::from(length);
                if marker == 0xDA {
                    break;
                }
            }
        }
    }
    // Inside the compressed data FF is always followed by 00 or a restart marker; FF D9 is the end and nothing else.
    let data = bytes.get(at..).unwrap_or_default();
    if data.windows(2).rev().any(|pair| pair == [0xFF, 0xD9]) { JpegEnd::Present } else { JpegEnd::Missing }
}

fn damaged(path: &Path, error: ImageError) -> PictureError {
    let detail = match error {
        ImageError::IoError(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the file ends too early".to_owned()
        }
        other => other.to_string(),
    };
    PictureError::Damaged { path: path.to_owned(), detail }
}
