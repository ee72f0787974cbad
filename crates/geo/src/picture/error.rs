use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::files::{WriteError, reason};

/// Why a picture was not read or written. Each message starts with the path and ends with the cure.
///
/// The messages carry their cause in words, so printing the error alone is enough.
#[derive(Debug, Error)]
pub enum PictureError {
    /// There is no such file.
    #[error("{}: not found; check the name", path.display())]
    NotFound {
        /// The file that was to be read.
        path: PathBuf,
    },
    /// The path is a folder.
    #[error("{}: is a folder; name a picture inside it", path.display())]
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
    /// The file is larger than allowed.
    #[error("{}: is larger than the limit of {} bytes for a file; crop it or save it compressed", path.display(), limit)]
    FileTooBig {
        /// The file.
        path: PathBuf,
        /// The most bytes a file may have.
        limit: u64,
    },
    /// The bytes do not begin like any picture.
    #[error("{}: is not a picture; give a PNG, JPEG or WebP file", path.display())]
    NotAPicture {
        /// The file.
        path: PathBuf,
    },
    /// The file is a picture of a kind that is not read.
    #[error("{}: is a {format} picture, which is not supported; convert it to PNG, JPEG or WebP", path.display())]
    UnsupportedFormat {
        /// The file.
        path: PathBuf,
        /// What it is.
        format: String,
    },
    /// The picture breaks off or contradicts itself.
    #[error("{}: is damaged or cut short ({detail}); copy or download it again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What the decoder stumbled over.
        detail: String,
    },
    /// A side of the picture is zero.
    #[error("{}: has no pixels ({width} × {height}); give a picture of at least 1 × 1", path.display())]
    NoPixels {
        /// The file.
        path: PathBuf,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// The picture has more pixels than allowed.
    #[error(
        "{}: {width} × {height} is {} pixels, over the limit of {}; \
         if you trust the file, raise the limit with --max-pixels {}",
        path.display(), counted(pixels(*width, *height)), counted(*limit), pixels(*width, *height)
    )]
    TooManyPixels {
        /// The file.
        path: PathBuf,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// The most pixels allowed.
        limit: u64,
    },
    /// The name of the output does not say how to write it.
    #[error("{}: the ending says no known format; use .png, .jpg or .webp", path.display())]
    UnsupportedExtension {
        /// The file that was to be written.
        path: PathBuf,
    },
    /// The picture has more pixels a side than the format can hold.
    #[error("{}: {width} × {height} is too large for {format} ({limit} pixels a side); use .png", path.display())]
    TooLargeForFormat {
        /// The file that was to be written.
        path: PathBuf,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// The format asked for.
        format: &'static str,
        /// The most pixels a side in that format.
        limit: u32,
    },
    /// The picture could not be turned into bytes.
    #[error("{}: cannot be encoded ({detail}); use .png", path.display())]
    Encoding {
        /// The file that was to be written.
        path: PathBuf,
        /// What the encoder said.
        detail: String,
    },
    /// The bytes could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl PictureError {
    /// Whether the file itself is at fault, as opposed to the system or the output's name.
    pub fn is_bad_input(&self) -> bool {
        match self {
            Self::NotFound { .. }
            | Self::Folder { .. }
            | Self::EmptyFile { .. }
            | Self::FileTooBig { .. }
            | Self::NotAPicture { .. }
            | Self::UnsupportedFormat { .. }
            | Self::Damaged { .. }
            | Self::NoPixels { .. }
            | Self::TooManyPixels { .. } => true,
            Self::Io { .. }
            | Self::UnsupportedExtension { .. }
            | Self::TooLargeForFormat { .. }
            | Self::Encoding { .. }
            | Self::Write(_) => false,
        }
    }
}

fn pixels(width: u32, height: u32) -> u64 {
    u64::from(width) * u64::from(height)
}

/// 900000000 as "900 million": counts of pixels are hard to compare digit by digit.
fn counted(number: u64) -> String {
    if number < 1_000_000 {
        return number.to_string();
    }
    let millions = format!("{:.1}", number as f64 / 1e6);
    format!("{} million", millions.trim_end_matches(".0"))
}
