//! Flags that several commands share, and what they mean.

mod files;
mod generation;
pub mod resolution;

use std::io::{ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use burn::tensor::Device;
use clap::Args;
use clap::builder::BoolishValueParser;
use earthmapper::translator::GenerationOptions;
use earthmapper::{EarthMapper, LonLat, Modality, Place, Precision};
use earthmapper_geo::Provenance;
use earthmapper_lab::progress::{Interrupt, ProgressMode};
use serde_json::json;

pub use files::{Content, FileArgs, Written, one_by_one};
pub use generation::{GenerationArgs, ViewsArgs};

use crate::exit::NoModel;

/// What is said, and where.
#[derive(Args, Debug, Clone)]
pub struct Output {
    /// Print results as JSON.
    #[arg(long, global = true, value_parser = BoolishValueParser::new(), env = "EARTHMAPPER_JSON")]
    pub json: bool,
    /// Say less (errors only).
    #[arg(short, long, global = true, value_parser = BoolishValueParser::new(), env = "EARTHMAPPER_QUIET")]
    pub quiet: bool,
    /// Say more, and where an error came from; twice for everything.
    #[arg(short, long, global = true, action = clap::ArgAction::Count, env = "EARTHMAPPER_VERBOSE")]
    pub verbose: u8,
    /// Show no progress.
    #[arg(long, global = true, value_parser = BoolishValueParser::new(), env = "EARTHMAPPER_NO_PROGRESS")]
    pub no_progress: bool,
}

impl Output {
    /// Sends logs to stderr.
    pub fn start_logging(&self) {
        // Only our own crates speak unasked (all their names begin with earthmapper).
        let level = match (self.quiet, self.verbose) {
            (true, _) => "error",
            (false, 0) => "warn,earthmapper=info",
            (false, 1) => "info,earthmapper=debug",
            (false, _) => "trace",
        };
        let filter = tracing_subscriber::EnvFilter::try_from_default_env()
            .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
        let _ = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_target(false)
            .without_time()
            .with_ansi(std::io::stderr().is_terminal())
            .try_init();
    }

    /// How progress is shown.
    pub fn progress(&self) -> ProgressMode {
        if self.quiet || self.no_progress { ProgressMode::Silent } else { ProgressMode::Automatic }
    }

    /// Prints a result: JSON when asked for, else the text.
    pub fn result(&self, text: &str, json: serde_json::Value) -> Result<()> {
        match (self.json, self.quiet) {
            (true, _) => say(&json.to_string()),
            (false, false) => say(text),
            (false, true) => Ok(()),
        }
    }

    /// Prints the outputs that are written, one a line, or what a dry run would do.
    pub fn outputs(&self, paths: &[PathBuf], dry_run: bool, mut more: serde_json::Value) -> Result<()> {
        let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        let text = match dry_run {
            true => format!("would write {}; {more}", names.join(", ")),
            false => names.join("\n"),
        };
        more["outputs"] = json!(names);
        more["dry_run"] = json!(dry_run);
        self.result(&text, more)
    }
}

/// Prints a line. A reader that has seen enough is no error.
pub fn say(text: &str) -> Result<()> {
    print(&format!("{text}\n"))
}

/// Prints text as it is.
pub fn print(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("cannot write to stdout"),
        _ => Ok(()),
    }
}

/// A number above 0.
pub fn positive<T: std::str::FromStr + Into<f64> + Copy>(text: &str) -> Result<T, String> {
    match text.trim().parse::<T>() {
        Ok(value) if value.into().is_finite() && value.into() > 0.0 => Ok(value),
        _ => Err("must be a number above 0".into()),
    }
}

/// A number between 0 and 1.
pub fn share(text: &str) -> Result<f32, String> {
    match text.trim().parse() {
        Ok(value) if (0.0..=1.0).contains(&value) => Ok(value),
        _ => Err("must be a number between 0 and 1".into()),
    }
}

/// Which model, where.
#[derive(Args, Debug, Clone)]
pub struct ModelArgs {
    /// Model folder [default: the bundled earthmapper-mini].
    #[arg(long, value_name = "DIR", env = "EARTHMAPPER_MODEL")]
    pub model: Option<PathBuf>,
    /// cpu, cuda, cuda:N, vulkan, metal or auto.
    #[arg(long, default_value = "cpu", env = "EARTHMAPPER_DEVICE")]
    pub device: String,
    /// Numbers of the transformer's layers on the CPU: int8 is faster and nearly the same.
    #[arg(long, value_name = "f32|int8", default_value = "f32", env = "EARTHMAPPER_PRECISION")]
    pub precision: Precision,
}

/// The model that commands use when none is named.
const BUNDLED: &str = "models/earthmapper-mini";

impl ModelArgs {
    /// The device.
    pub fn device(&self) -> Result<Device> {
        Ok(earthmapper::device::device(&self.device)?)
    }

    /// Reads the model and, on the CPU, packs its weights.
    pub fn load(&self) -> Result<EarthMapper> {
        Ok(EarthMapper::load(&self.folder()?, &self.device()?)?.pack(self.precision))
    }

    /// The model's folder: the one named, else the bundled one beside the program, in its prefix's share folder, in the
    /// current folder or one above it, or in the checkout that the program was built from.
    pub fn folder(&self) -> Result<PathBuf> {
        if let Some(folder) = &self.model {
            return Ok(folder.clone());
        }
        let mut looked = Vec::new();
        let mut consider = |folder: PathBuf| {
            let found = folder.join("config.json").is_file();
            looked.push(folder.clone());
            found.then_some(folder)
        };
        let program = std::env::current_exe().ok().and_then(|path| path.canonicalize().ok());
        let program = program.iter().flat_map(|path| path.ancestors().skip(1));
        let here = std::env::current_dir().ok();
        let here = here.iter().flat_map(|path| path.ancestors());
        let mut candidates: Vec<PathBuf> = Vec::new();
        for ancestor in program {
            candidates.push(ancestor.join(BUNDLED));
            candidates.push(ancestor.join("share/earthmapper").join(BUNDLED));
        }
        candidates.extend(here.map(|ancestor| ancestor.join(BUNDLED)));
        candidates.push(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(BUNDLED));
        for candidate in candidates {
            if let Some(folder) = consider(candidate) {
                return Ok(folder);
            }
        }
        let list: Vec<String> = looked.iter().map(|path| path.display().to_string()).collect();
        let text = format!("no model found; name one with --model DIR (looked for {})", list.join(", "));
        Err(NoModel(text).into())
    }
}

/// Where the picture lies, and how large its pixels are.
#[derive(Args, Debug, Clone)]
pub struct PlaceArgs {
    /// Latitude of the picture's centre in degrees.
    #[arg(long, requires = "lon", allow_hyphen_values = true, env = "EARTHMAPPER_LAT")]
    pub lat: Option<f64>,
    /// Longitude of the picture's centre in degrees.
    #[arg(long, requires = "lat", allow_hyphen_values = true, env = "EARTHMAPPER_LON")]
    pub lon: Option<f64>,
    /// Ground size of a pixel in metres.
    #[arg(long, requires = "lat", env = "EARTHMAPPER_METRES_PER_PIXEL")]
    pub metres_per_pixel: Option<f64>,
}

impl PlaceArgs {
    /// The place, when one is given.
    pub fn place(&self) -> Result<Option<Place>> {
        let (Some(latitude), Some(longitude)) = (self.lat, self.lon) else { return Ok(None) };
        Ok(Some(Place::new(LonLat::new(longitude, latitude)?, self.metres_per_pixel)?))
    }
}

/// The label of an output: everything needed to make it again.
pub fn provenance(
    model: &EarthMapper,
    task: &str,
    seed: u64,
    source: Option<&Path>,
    place: Option<Place>,
    options: &GenerationOptions,
) -> Provenance {
    // The name only: where a file lay on somebody's machine is nobody's business.
    let source = source.and_then(|path| path.file_name()).map(|name| name.to_string_lossy().into_owned());
    model.config.label(task, seed, source, place, options)
}

/// The place as this model may be told it. One that was trained without places takes a coordinate for noise, which
/// ruins the picture, so it is left out and that is said.
pub fn usable_place(model: &EarthMapper, place: Option<Place>) -> Option<Place> {
    if place.is_some() && !model.config.trained_on.places_known {
        tracing::warn!("the model {} was trained without places; the place is not used", model.config.name);
        return None;
    }
    place
}

/// Asks for a stop at the first Ctrl-C and ends the program at the second.
pub fn interrupt() -> Result<Interrupt> {
    let interrupt = Interrupt::new();
    let handler = interrupt.clone();
    ctrlc::set_handler(move || {
        if handler.requested() {
            std::process::exit(crate::exit::INTERRUPTED);
        }
        let text = "stopping after this step; press Ctrl-C again to stop at once";
        let _ = writeln!(std::io::stderr(), "{text}");
        handler.request();
    })
    .context("cannot listen for Ctrl-C")?;
    Ok(interrupt)
}

/// Checks that the model has a modality.
pub fn check_modality(model: &EarthMapper, modality: Modality) -> Result<()> {
    match model.transformer.index_of(modality) {
        Some(_) => Ok(()),
        None => Err(NoModel(format!("the model {} knows no {modality} pictures", model.config.name)).into()),
    }
}
