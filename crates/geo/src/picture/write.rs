use std::path::Path;

use image::codecs::jpeg::JpegEncoder;
use image::codecs::webp::WebPEncoder;
use image::{ExtendedColorType, ImageEncoder};

use super::{Mask, Picture, PictureError, area};
use crate::files::{atomic_write, check_output};
use crate::provenance::{self, Provenance};

/// How a picture is written.
#[derive(Clone, Debug, PartialEq)]
pub struct WriteOptions {
    /// Whether a file that is there already may be replaced.
    pub overwrite: bool,
    /// Where the picture comes from, written into the file.
    pub provenance: Option<Provenance>,
    /// Quality of a JPEG, 1 to 100; PNG and WebP are lossless.
    pub quality: u8,
}

impl Default for WriteOptions {
    /// Replaces nothing, writes no provenance, quality 92.
    fn default() -> Self {
        Self { overwrite: false, provenance: None, quality: 92 }
    }
}

/// Checks, before the work, that a picture could be written under this name.
///
/// # Errors
///
/// [`PictureError::UnsupportedExtension`], and [`PictureError::Write`] as [`check_output`] says.
pub fn check_picture_output(path: impl AsRef<Path>, overwrite: bool) -> Result<(), PictureError> {
    OutputFormat::of(path.as_ref())?;
    Ok(check_output(path.as_ref(), overwrite)?)
}

/// Writes a picture as PNG, JPEG or WebP, as the ending of the name says, whole or not at all.
///
/// # Errors
///
/// Every [`PictureError`] about writing. On any error the folder is left as it was.
pub fn write_picture(
    path: impl AsRef<Path>,
    picture: &Picture,
    options: &WriteOptions,
) -> Result<(), PictureError> {
    write(path.as_ref(), &picture.pixels(), options)
}

/// Writes an 8-bit grey picture of `[height, width]` values, for example how unsure a model is at every pixel.
///
/// # Panics
///
/// When a side is zero or there are not `width · height` values.
///
/// # Errors
///
/// As [`write_picture`].
pub fn write_grey(
    path: impl AsRef<Path>,
    width: u32,
    height: u32,
    values: &[u8],
    options: &WriteOptions,
) -> Result<(), PictureError> {
    assert!(width > 0 && height > 0 && values.len() == area(width, height), "one value per pixel");
    write(path.as_ref(), &Pixels { width, height, values, colour: ExtendedColorType::L8 }, options)
}

/// Encodes a picture in memory, as [`write_picture`] would into a file with this ending (`png`, `jpg`, `webp`).
///
/// # Errors
///
/// [`PictureError::UnsupportedExtension`], [`PictureError::TooLargeForFormat`] and [`PictureError::Encoding`]; they name
/// the file `picture`.
pub fn encode_picture(
    ending: &str,
    picture: &Picture,
    options: &WriteOptions,
) -> Result<Vec<u8>, PictureError> {
    encode(Path::new("picture").with_extension(ending).as_path(), &picture.pixels(), options)
}

/// Encodes a picture as [`encode_picture`] does, transparent and black in the holes. Without holes it has no alpha.
///
/// # Panics
///
/// When the mask is of another size.
///
/// # Errors
///
/// As [`encode_picture`]; [`PictureError::Encoding`] for holes in a JPEG, which knows no transparency.
pub fn encode_with_holes(
    ending: &str,
    picture: &Picture,
    holes: &Mask,
    options: &WriteOptions,
) -> Result<Vec<u8>, PictureError> {
    let (width, height) = (picture.width(), picture.height());
    assert_eq!((holes.width(), holes.height()), (width, height), "one value per pixel");
    if holes.hole_count() == 0 {
        return encode_picture(ending, picture, options);
    }
    let pixels = picture.rgb().as_chunks::<3>().0.iter().zip(holes.holes());
    let values: Vec<u8> = pixels
        .flat_map(
            |(&[red, green, blue], is_hole)| if *is_hole { [0; 4] } else { [red, green, blue, u8::MAX] },
        )
        .collect();
    let pixels = Pixels { width, height, values: &values, colour: ExtendedColorType::Rgba8 };
    encode(Path::new("picture").with_extension(ending).as_path(), &pixels, options)
}

/// Encodes grey values in memory, as [`write_grey`] would into a file with this ending.
///
/// # Panics
///
/// As [`write_grey`].
///
/// # Errors
///
/// As [`encode_picture`].
pub fn encode_grey(
    ending: &str,
    width: u32,
    height: u32,
    values: &[u8],
    options: &WriteOptions,
) -> Result<Vec<u8>, PictureError> {
    assert!(width > 0 && height > 0 && values.len() == area(width, height), "one value per pixel");
    let pixels = Pixels { width, height, values, colour: ExtendedColorType::L8 };
    encode(Path::new("picture").with_extension(ending).as_path(), &pixels, options)
}

/// Checks, before any work, that a picture of this size fits into the format that the name says.
///
/// # Errors
/// [`PictureError::UnsupportedExtension`] and [`PictureError::TooLargeForFormat`].
pub fn check_picture_size(path: &Path, width: u32, height: u32) -> Result<(), PictureError> {
    let format = OutputFormat::of(path)?;
    let limit = format.max_side();
    if width.max(height) > limit {
        let (path, format) = (path.to_owned(), format.name());
        return Err(PictureError::TooLargeForFormat { path, width, height, format, limit });
    }
    Ok(())
}

impl Picture {
    fn pixels(&self) -> Pixels<'_> {
        let colour = ExtendedColorType::Rgb8;
        Pixels { width: self.width, height: self.height, values: &self.rgb, colour }
    }
}

struct Pixels<'a> {
    width: u32,
    height: u32,
    values: &'a [u8],
    colour: ExtendedColorType,
}

fn write(path: &Path, pixels: &Pixels<'_>, options: &WriteOptions) -> Result<(), PictureError> {
    check_picture_output(path, options.overwrite)?;
    let bytes = encode(path, pixels, options)?;
    Ok(atomic_write(path, &bytes, options.overwrite)?)
}

fn encode(path: &Path, pixels: &Pixels<'_>, options: &WriteOptions) -> Result<Vec<u8>, PictureError> {
    check_picture_size(path, pixels.width, pixels.height)?;
    OutputFormat::of(path)?
        .encode(pixels, options)
        .map_err(|detail| PictureError::Encoding { path: path.to_owned(), detail })
}

#[derive(Clone, Copy)]
enum OutputFormat {
    Png,
    Jpeg,
    WebP,
}

impl OutputFormat {
    fn of(path: &Path) -> Result<Self, PictureError> {
        let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
        match extension.as_deref() {
            Some("png") => Ok(Self::Png),
            Some("jpg" | "jpeg") => Ok(Self::Jpeg),
            Some("webp") => Ok(Self::WebP),
            _ => Err(PictureError::UnsupportedExtension { path: path.to_owned() }),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Png => "PNG",
            Self::Jpeg => "JPEG",
            Self::WebP => "WebP",
        }
    }

    /// The most pixels a side that the file format can express.
    fn max_side(self) -> u32 {
        match self {
            Self::Png => i32::MAX as u32,
            Self::Jpeg => 65_535,
            Self::WebP => 16_383,
        }
    }

    fn encode(self, pixels: &Pixels<'_>, options: &WriteOptions) -> Result<Vec<u8>, String> {
        let provenance = options.provenance.as_ref();
        let &Pixels { width, height, values, colour } = pixels;
        let mut bytes = Vec::new();
        match self {
            Self::Png => encode_png(&mut bytes, pixels, provenance).map_err(|error| error.to_string())?,
            Self::Jpeg => {
                JpegEncoder::new_with_quality(&mut bytes, options.quality.clamp(1, 100))
                    .write_image(values, width, height, colour)
                    .map_err(|error| error.to_string())?;
                if let Some(provenance) = provenance {
                    bytes = provenance::insert_into_jpeg(bytes, provenance)?;
                }
            }
            Self::WebP => {
                WebPEncoder::new_lossless(&mut bytes)
                    .write_image(values, width, height, colour)
                    .map_err(|error| error.to_string())?;
                if let Some(provenance) = provenance {
                    let has_alpha = colour == ExtendedColorType::Rgba8;
                    bytes = provenance::insert_into_webp(bytes, (width, height), has_alpha, provenance)?;
                }
            }
        }
        Ok(bytes)
    }
}

fn encode_png(
    bytes: &mut Vec<u8>,
    pixels: &Pixels<'_>,
    provenance: Option<&Provenance>,
) -> Result<(), png::EncodingError> {
    let mut encoder = png::Encoder::new(bytes, pixels.width, pixels.height);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_color(match pixels.colour {
        ExtendedColorType::L8 => png::ColorType::Grayscale,
        ExtendedColorType::Rgba8 => png::ColorType::Rgba,
        _ => png::ColorType::Rgb,
    });
    if let Some(provenance) = provenance {
        provenance::add_to_png(&mut encoder, provenance)?;
    }
    let mut writer = encoder.write_header()?;
    writer.write_image_data(pixels.values)?;
    writer.finish()
}
