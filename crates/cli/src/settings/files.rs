//! Flags about reading and writing pictures, and the checks that come before the work.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use clap::builder::BoolishValueParser;
use earthmapper::EarthMapper;
use earthmapper_geo::picture::{check_picture_output, check_picture_size, write_grey, write_picture};
use earthmapper_geo::{Picture, PictureLimits, Provenance, WriteOptions, check_output};

use crate::exit::{BadInput, Partly, Usage};

/// Reading and writing pictures.
#[derive(Args, Debug, Clone)]
pub struct FileArgs {
    /// Replace an output that exists.
    #[arg(long, value_parser = BoolishValueParser::new(), env = "EARTHMAPPER_OVERWRITE")]
    pub overwrite: bool,
    /// Refuse pictures with more pixels than this.
    #[arg(long, default_value_t = 100_000_000, env = "EARTHMAPPER_MAX_PIXELS")]
    pub max_pixels: u64,
    /// Check everything and say what would be done; write nothing.
    #[arg(long, value_parser = BoolishValueParser::new(), env = "EARTHMAPPER_DRY_RUN")]
    pub dry_run: bool,
}

/// One picture to write.
pub struct Written<'a> {
    /// Where to.
    pub path: &'a Path,
    /// What.
    pub content: Content<'a>,
}

/// What is written.
pub enum Content<'a> {
    /// A colour picture.
    Colour(&'a Picture),
    /// Grey values, of width and height.
    Grey(u32, u32, &'a [u8]),
}

impl FileArgs {
    /// Limits for reading.
    pub fn limits(&self) -> PictureLimits {
        PictureLimits { max_pixels: self.max_pixels, ..Default::default() }
    }

    /// Checks, before the work, that these outputs could be written and do not replace each other.
    pub fn check_outputs<'a>(&self, paths: impl IntoIterator<Item = &'a PathBuf>) -> Result<()> {
        let paths: Vec<&PathBuf> = paths.into_iter().collect();
        paths.iter().try_for_each(|path| check_picture_output(path, self.overwrite))?;
        self.check_names(paths)
    }

    /// Checks that these outputs could be written, whatever their format, and do not replace each other.
    pub fn check_names<'a>(&self, paths: impl IntoIterator<Item = &'a PathBuf>) -> Result<()> {
        let mut seen: Vec<PathBuf> = Vec::new();
        for path in paths {
            check_output(path, self.overwrite)?;
            // The folder is there by now, so that two spellings of one file can be told.
            let folder = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
            let whole =
                folder.canonicalize().unwrap_or(folder.into()).join(path.file_name().unwrap_or_default());
            if seen.contains(&whole) {
                return Err(
                    Usage(format!("{}: is named for two outputs; name two files", path.display())).into()
                );
            }
            seen.push(whole);
        }
        Ok(())
    }

    /// Checks, before the work, that pictures of this size fit into the formats that the names say, and that the model
    /// can work on them within `--max-pixels`.
    pub fn check_size<'a>(
        &self,
        model: &EarthMapper,
        (width, height): (u64, u64),
        paths: impl IntoIterator<Item = &'a PathBuf>,
    ) -> Result<()> {
        let side = model.tokenizer_config.picture_side as u64;
        let most = self.max_pixels.max(side * side);
        // A thin picture is continued to the model's side.
        let pixels = width.max(side).saturating_mul(height.max(side));
        if pixels > most || width.max(height) > u64::from(u32::MAX / 2) {
            let text = format!(
                "working on {width} × {height} px takes {pixels} pixels, more than --max-pixels {}; crop the \
                 picture, or raise the limit",
                self.max_pixels
            );
            return Err(BadInput(text).into());
        }
        for path in paths {
            check_picture_size(path, width as u32, height as u32)?;
        }
        Ok(())
    }

    /// Writes outputs, each whole or not at all.
    ///
    /// # Errors
    /// The first one's own error when nothing is written, else [`Partly`] after listing on stdout what is.
    pub fn write(&self, outputs: &[Written], provenance: &Provenance) -> Result<()> {
        let options = WriteOptions {
            overwrite: self.overwrite,
            provenance: Some(provenance.clone()),
            ..Default::default()
        };
        let write = |output: &Written| match output.content {
            Content::Colour(picture) => write_picture(output.path, picture, &options),
            Content::Grey(width, height, values) => write_grey(output.path, width, height, values, &options),
        };
        one_by_one(outputs.iter().map(|output| (output.path, || write(output))))
    }
}

/// Finishes outputs one after another.
///
/// # Errors
/// The first one's own error when nothing is written, else [`Partly`] after listing on stdout what is.
pub fn one_by_one<'a, E: std::error::Error + Send + Sync + 'static>(
    outputs: impl ExactSizeIterator<Item = (&'a Path, impl FnOnce() -> Result<(), E>)>,
) -> Result<()> {
    let of = outputs.len();
    let mut done: Vec<&Path> = Vec::new();
    for (path, write) in outputs {
        match write() {
            Ok(()) => done.push(path),
            Err(cause) if done.is_empty() => return Err(cause.into()),
            Err(cause) => {
                done.iter().try_for_each(|path| super::say(&path.display().to_string()))?;
                return Err(Partly { written: done.len(), of, cause: cause.to_string() }.into());
            }
        }
    }
    Ok(())
}
