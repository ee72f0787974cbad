//! Flags that several commands share, and what they mean.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use burn::tensor::Device;
use clap::{Args, ValueEnum};
use earthmapper::guidance::{Complexity, ComplexityGuidance, Guidance, KeyPointForce};
use earthmapper::sampler::SamplerConfig;
use earthmapper::translator::{Decode, GenerationOptions};
use earthmapper::{EarthMapper, LonLat, Modality, Place};
use earthmapper_geo::{PictureLimits, Provenance, WriteOptions};
use earthmapper_lab::progress::{Interrupt, ProgressMode};

use crate::exit::{BadInput, NoModel};

/// What is said, and where.
#[derive(Args, Debug, Clone)]
pub struct Output {
    /// Print results as JSON.
    #[arg(long, global = true, env = "EARTHMAPPER_JSON")]
    pub json: bool,
    /// Say less (errors only).
    #[arg(short, long, global = true, env = "EARTHMAPPER_QUIET")]
    pub quiet: bool,
    /// Say more; twice for everything.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Show no progress.
    #[arg(long, global = true, env = "EARTHMAPPER_NO_PROGRESS")]
    pub no_progress: bool,
}

impl Output {
    /// Sends logs to stderr.
    pub fn start_logging(&self) {
        let level = match (self.quiet, self.verbose) {
            (true, _) => "error",
            (false, 0) => "info",
            (false, 1) => "debug",
            (false, _) => "trace",
        };
        let filter = tracing_subscriber::EnvFilter::try_from_default_env()
            .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
        let _ = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_target(false)
            .with_ansi(std::io::stderr().is_terminal())
            .try_init();
    }

    /// How progress is shown.
    pub fn progress(&self) -> ProgressMode {
        if self.quiet || self.no_progress { ProgressMode::Silent } else { ProgressMode::Automatic }
    }

    /// Prints a result: JSON when asked for, else the text.
    pub fn result(&self, text: &str, json: serde_json::Value) {
        if self.json {
            println!("{json}");
        } else if !self.quiet {
            println!("{text}");
        }
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
}

/// The model that commands use when none is named.
const BUNDLED: &str = "models/earthmapper-mini";

impl ModelArgs {
    /// The device.
    pub fn device(&self) -> Result<Device> {
        earthmapper::device::device(&self.device).map_err(|error| BadInput(error.to_string()).into())
    }

    /// Reads the model.
    pub fn load(&self) -> Result<EarthMapper> {
        Ok(EarthMapper::load(&self.folder()?, &self.device()?)?)
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

/// Reading and writing pictures.
#[derive(Args, Debug, Clone)]
pub struct FileArgs {
    /// Replace an output that exists.
    #[arg(long, env = "EARTHMAPPER_OVERWRITE")]
    pub overwrite: bool,
    /// Refuse pictures with more pixels than this.
    #[arg(long, default_value_t = 100_000_000, env = "EARTHMAPPER_MAX_PIXELS")]
    pub max_pixels: u64,
}

impl FileArgs {
    /// Limits for reading.
    pub fn limits(&self) -> PictureLimits {
        PictureLimits { max_pixels: self.max_pixels, ..Default::default() }
    }

    /// How outputs are written.
    pub fn write(&self, provenance: Provenance) -> WriteOptions {
        WriteOptions { overwrite: self.overwrite, provenance: Some(provenance), ..Default::default() }
    }
}

/// How tokens are drawn; what is not given is the model's own choice for the direction.
#[derive(Args, Debug, Clone)]
pub struct GenerationArgs {
    /// Seed: the same seed gives the same picture.
    #[arg(long, default_value_t = 0, env = "EARTHMAPPER_SEED")]
    pub seed: u64,
    /// Guidance: off, a complexity triple A,B,G, constant:S or ramp:S.
    #[arg(long, value_parser = parse_guidance, env = "EARTHMAPPER_GUIDANCE")]
    pub guidance: Option<Guidance>,
    /// What complexity guidance measures.
    #[arg(long, value_enum, env = "EARTHMAPPER_COMPLEXITY")]
    pub complexity: Option<ComplexityName>,
    /// Key point force.
    #[arg(long, value_enum, env = "EARTHMAPPER_KEY_POINTS")]
    pub key_points: Option<KeyPointName>,
    /// Threshold of key points, 0 … 1.
    #[arg(long, default_value_t = 0.7, env = "EARTHMAPPER_TAU")]
    pub tau: f32,
    /// Strength of --key-points attract.
    #[arg(long, default_value_t = 1.0, env = "EARTHMAPPER_STRENGTH")]
    pub strength: f32,
    /// Temperature of --key-points sharpen.
    #[arg(long, default_value_t = 0.5, env = "EARTHMAPPER_SHARPNESS")]
    pub sharpness: f32,
    /// Temperature of sampling.
    #[arg(long, env = "EARTHMAPPER_TEMPERATURE")]
    pub temperature: Option<f32>,
    /// Keep the likeliest codes only; 0 keeps all.
    #[arg(long, env = "EARTHMAPPER_TOP_K")]
    pub top_k: Option<usize>,
    /// Keep the likeliest codes up to this probability; 0 keeps all.
    #[arg(long, env = "EARTHMAPPER_TOP_P")]
    pub top_p: Option<f32>,
    /// Always take the likeliest code.
    #[arg(long, conflicts_with_all = ["top_k", "top_p", "temperature"], env = "EARTHMAPPER_GREEDY")]
    pub greedy: bool,
    /// Which embeddings are decoded.
    #[arg(long, value_enum, env = "EARTHMAPPER_DECODE")]
    pub decode: Option<DecodeName>,
}

/// Names of [`Complexity`].
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum ComplexityName {
    /// Mean token entropy.
    TokenEntropy,
    /// Grey-level entropy of the picture so far.
    GreyLevels,
}

/// Names of [`KeyPointForce`].
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum KeyPointName {
    /// No force.
    Off,
    /// The paper's equations to the letter.
    IndexAdd,
    /// Toward the expected embedding.
    Attract,
    /// A sharper distribution.
    Sharpen,
}

/// Names of [`Decode`].
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum DecodeName {
    /// The drawn code's embedding.
    Sampled,
    /// The mean embedding at the finest scale.
    ExpectedLast,
    /// The mean embedding at every scale.
    Expected,
}

impl GenerationArgs {
    /// The options, on top of `defaults`.
    pub fn options(&self, defaults: &GenerationOptions) -> Result<GenerationOptions> {
        let mut options = defaults.clone();
        if let Some(guidance) = &self.guidance {
            options.guidance = guidance.clone();
        }
        if let (Some(name), Guidance::Complexity(guidance)) = (self.complexity, &mut options.guidance) {
            guidance.complexity = match name {
                ComplexityName::TokenEntropy => Complexity::TokenEntropy,
                ComplexityName::GreyLevels => Complexity::GreyLevels,
            };
        }
        if let Some(name) = self.key_points {
            options.key_points = match name {
                KeyPointName::Off => KeyPointForce::Off,
                KeyPointName::IndexAdd => KeyPointForce::IndexAdd { tau: self.tau },
                KeyPointName::Attract => KeyPointForce::Attract { tau: self.tau, strength: self.strength },
                KeyPointName::Sharpen => {
                    KeyPointForce::Sharpen { tau: self.tau, temperature: self.sharpness }
                }
            };
        }
        if self.greedy {
            options.sampler = SamplerConfig::greedy();
        }
        options.sampler.temperature = self.temperature.unwrap_or(options.sampler.temperature);
        options.sampler.top_k = self.top_k.unwrap_or(options.sampler.top_k);
        options.sampler.top_p = self.top_p.unwrap_or(options.sampler.top_p);
        options.decode = match self.decode {
            None => options.decode,
            Some(DecodeName::Sampled) => Decode::Sampled,
            Some(DecodeName::ExpectedLast) => Decode::ExpectedLast,
            Some(DecodeName::Expected) => Decode::Expected,
        };
        let positive = |value: f32| value.is_finite() && value > 0.0;
        let share = |value: f32| (0.0..=1.0).contains(&value);
        let checks = [
            (positive(options.sampler.temperature), "--temperature must be above 0"),
            (share(options.sampler.top_p), "--top-p must be between 0 and 1"),
            (share(self.tau), "--tau must be between 0 and 1"),
            (positive(self.sharpness), "--sharpness must be above 0"),
            (self.strength.is_finite(), "--strength must be a number"),
        ];
        match checks.into_iter().find(|(good, _)| !good) {
            Some((_, text)) => Err(BadInput(text.into()).into()),
            None => Ok(options),
        }
    }
}

fn parse_guidance(text: &str) -> Result<Guidance, String> {
    let number = |text: &str| -> Result<f32, String> {
        let value: f32 = text.trim().parse().map_err(|_| format!("{text:?} is not a number"))?;
        if value.is_finite() { Ok(value) } else { Err(format!("{text} is not finite")) }
    };
    if text == "off" {
        return Ok(Guidance::Off);
    }
    if let Some(strength) = text.strip_prefix("constant:") {
        return Ok(Guidance::Constant(number(strength)?));
    }
    if let Some(scale) = text.strip_prefix("ramp:") {
        return Ok(Guidance::Ramp(number(scale)?));
    }
    let triple: Vec<f32> = text.split(',').map(number).collect::<Result<_, _>>()?;
    match triple[..] {
        [alpha, beta, gamma] => Ok(Guidance::Complexity(ComplexityGuidance::new(alpha, beta, gamma))),
        _ => Err("use off, A,B,G, constant:S or ramp:S".into()),
    }
}

/// The label of an output.
pub fn provenance(
    model: &EarthMapper,
    task: &str,
    seed: u64,
    source: Option<&Path>,
    options: &GenerationOptions,
) -> Provenance {
    let mut provenance = Provenance::new(model.config.name.clone(), task);
    provenance.seed = Some(seed);
    // The name only: where a file lay on somebody's machine is nobody's business.
    provenance.source =
        source.and_then(|path| path.file_name()).map(|name| name.to_string_lossy().into_owned());
    let options = serde_json::to_string(options).expect("plain data");
    provenance.extra.insert("options".into(), options);
    provenance
}

/// Asks for a stop at the first Ctrl-C and ends the program at the second.
pub fn interrupt() -> Result<Interrupt> {
    let interrupt = Interrupt::new();
    let handler = interrupt.clone();
    ctrlc::set_handler(move || {
        if handler.requested() {
            std::process::exit(crate::exit::INTERRUPTED);
        }
        eprintln!("stopping after this step; press Ctrl-C again to stop at once");
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
