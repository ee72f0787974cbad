//! A model and its folder: `config.json`, `model.safetensors`, `tokenizer/`, `README.md` and `SHA256SUMS`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use earthmapper_geo::Modality;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::config::{ConfigError, EarthMapperConfig, TokenizerConfig};
use crate::init::Init;
use crate::packed::{Packed, Precision};
use crate::tokenizer::{Encoding, MultiScaleTokenizer, TokenPyramid};
use crate::transformer::JointTransformer;
use crate::translator::GenerationOptions;
use crate::weights::{self, Missing, Storage, WeightsError, WeightsFile};

/// Version of the folder format that this program writes and reads.
pub const FORMAT: u32 = 1;

/// What can be wrong with a model folder.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// There is no such folder.
    #[error("{0}: no such model folder; name one with --model DIR")]
    NoFolder(PathBuf),
    /// A file of the folder is missing.
    #[error("{0}: missing from the model folder; fetch or export the model again")]
    MissingFile(PathBuf),
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A configuration does not parse.
    #[error("{path}: {source}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and what.
        source: serde_json::Error,
    },
    /// A configuration's values cannot work.
    #[error("{path}: {source}")]
    Config {
        /// The file.
        path: PathBuf,
        /// Which key.
        source: ConfigError,
    },
    /// A newer program wrote the folder.
    #[error("{path}: format {found} is not known to this program (it knows {FORMAT}); update the program")]
    Format {
        /// The file.
        path: PathBuf,
        /// The format found.
        found: u32,
    },
    /// A file is not the one the folder was made with.
    #[error(
        "{path}: does not match SHA256SUMS; the file is damaged or foreign, fetch or export the model again"
    )]
    Checksum {
        /// The file.
        path: PathBuf,
    },
    /// A weights file cannot be read; the message names it.
    #[error(transparent)]
    Unreadable(WeightsError),
    /// The weights do not fit.
    #[error("{path}: {source}")]
    Weights {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        source: WeightsError,
    },
}

/// Options of generation that were found best for a model, per direction.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GenerationDefaults {
    /// For satellite → map.
    pub to_map: GenerationOptions,
    /// For map → satellite.
    pub to_satellite: GenerationOptions,
}

impl GenerationDefaults {
    /// The options for making `target`.
    pub fn towards(&self, target: Modality) -> &GenerationOptions {
        match target {
            Modality::Map => &self.to_map,
            Modality::Satellite => &self.to_satellite,
        }
    }
}

/// A whole model.
#[derive(Clone, Debug)]
pub struct EarthMapper {
    /// The transformer's configuration and what it was trained on.
    pub config: EarthMapperConfig,
    /// The tokenizer's configuration.
    pub tokenizer_config: TokenizerConfig,
    /// Options that suit this model.
    pub generation: GenerationDefaults,
    /// The tokenizer.
    pub tokenizer: MultiScaleTokenizer,
    /// The transformer.
    pub transformer: JointTransformer,
    /// The same two with packed weights, when inference on a CPU asked for them.
    packed: Option<Arc<Packed>>,
}

impl EarthMapper {
    /// A model with fresh weights.
    ///
    /// # Panics
    /// When a configuration does not pass its `check`.
    pub fn new(
        config: EarthMapperConfig,
        tokenizer_config: TokenizerConfig,
        seed: u64,
        device: &Device,
    ) -> Self {
        let mut init = Init::new(seed, device);
        let tokenizer = MultiScaleTokenizer::new(&tokenizer_config, &mut init);
        let transformer = JointTransformer::new(&config.transformer, &tokenizer_config, &mut init);
        Self::from_parts(config, tokenizer_config, tokenizer, transformer)
    }

    /// A model out of its parts.
    pub fn from_parts(
        config: EarthMapperConfig,
        tokenizer_config: TokenizerConfig,
        tokenizer: MultiScaleTokenizer,
        transformer: JointTransformer,
    ) -> Self {
        let generation = GenerationDefaults::default();
        Self { config, tokenizer_config, generation, tokenizer, transformer, packed: None }
    }

    /// Packs the weights for inference on the CPU; on another device nothing is done.
    ///
    /// The packed layers take the place of the modules', whose weights are let go as they are packed: from now on the
    /// model is run through its own methods and [`Translator`](crate::Translator), and cannot be trained or saved.
    pub fn pack(mut self, precision: Precision) -> Self {
        if self.device() == Device::flex() {
            let side = self.tokenizer_config.picture_side;
            let packed = Packed::new(&mut self.tokenizer, side, &mut self.transformer, precision);
            self.packed = Some(Arc::new(packed));
        }
        self
    }

    /// The packed layers, if there are any.
    pub(crate) fn packed(&self) -> Option<&Packed> {
        self.packed.as_deref()
    }

    /// Pictures `[batch, 3, side, side]` in [−1, 1] → features `[batch, latent, side/stride, side/stride]`.
    pub fn features(&self, pictures: Tensor<4>) -> Tensor<4> {
        match self.packed() {
            Some(packed) => packed.tokenizer.features(pictures),
            None => self.tokenizer.features(pictures),
        }
    }

    /// Pictures → tokens and features.
    pub fn encode(&self, pictures: Tensor<4>) -> Encoding {
        let features = self.features(pictures);
        Encoding { tokens: self.tokenizer.quantizer.encode(features.clone()).0, features }
    }

    /// A reconstruction f̂ → pictures in [−1, 1].
    pub fn decode_features(&self, reconstruction: Tensor<4>) -> Tensor<4> {
        match self.packed() {
            Some(packed) => packed.tokenizer.decode_features(reconstruction),
            None => self.tokenizer.decode_features(reconstruction),
        }
    }

    /// Tokens → pictures in [−1, 1].
    pub fn decode(&self, tokens: &TokenPyramid) -> Tensor<4> {
        let last = self.tokenizer.quantizer.reconstructions(tokens).pop().expect("at least one scale");
        self.decode_features(last)
    }

    /// Reads a model folder. Every file is checked against `SHA256SUMS` when the folder has one.
    ///
    /// Weights are read from the files when they are first used: [`pack`](Self::pack) them at once, or keep the folder.
    ///
    /// # Errors
    /// One that names the file and the cure when a file is missing, damaged, foreign or does not fit.
    pub fn load(folder: &Path, device: &Device) -> Result<Self, ModelError> {
        if !folder.is_dir() {
            return Err(ModelError::NoFolder(folder.into()));
        }
        let config_path = folder.join("config.json");
        let config: EarthMapperConfig = read_json(&config_path)?;
        if config.format != FORMAT {
            return Err(ModelError::Format { path: config_path, found: config.format });
        }
        config.transformer.check().map_err(|source| ModelError::Config { path: config_path, source })?;
        verify_checksums(folder)?;
        let generation_path = folder.join("generation.json");
        let generation = if generation_path.exists() {
            read_json(&generation_path)?
        } else {
            GenerationDefaults::default()
        };
        let (tokenizer_config, tokenizer) = load_tokenizer(&folder.join("tokenizer"), device)?;
        let path = folder.join("model.safetensors");
        let file = open_weights(&path)?;
        let fresh = JointTransformer::new(&config.transformer, &tokenizer_config, &mut Init::zeros(device));
        let transformer = weights::apply_file(fresh, file, Missing::Refuse)
            .map_err(|source| ModelError::Weights { path, source })?;
        Ok(Self { config, tokenizer_config, generation, tokenizer, transformer, packed: None })
    }

    /// Writes a model folder beside its place and renames it; `card` becomes its README.
    ///
    /// # Errors
    /// When the folder exists already or cannot be written; nothing is left behind then.
    ///
    /// # Panics
    /// When the model is packed.
    pub fn save(&self, folder: &Path, storage: Storage, card: &str) -> Result<(), ModelError> {
        assert!(self.packed.is_none(), "a packed model has let go of its weights");
        let files = [
            ("README.md", card.as_bytes().to_vec()),
            ("config.json", pretty(&self.config)),
            ("generation.json", pretty(&self.generation)),
            ("model.safetensors", weights::to_bytes(&weights::collect(&self.transformer), storage)),
            ("tokenizer/config.json", pretty(&self.tokenizer_config)),
            ("tokenizer/model.safetensors", weights::to_bytes(&weights::collect(&self.tokenizer), storage)),
        ];
        let mut sums = String::new();
        // The card may be edited by hand without making the model invalid.
        for (name, bytes) in files.iter().filter(|(name, _)| *name != "README.md") {
            sums.push_str(&format!("{}  {name}\n", hex(&Sha256::digest(bytes))));
        }
        let sums = ("SHA256SUMS", sums.into_bytes());
        write_folder(folder, &files.into_iter().chain([sums]).collect::<Vec<_>>())
    }

    /// The device the weights are on.
    pub fn device(&self) -> Device {
        self.tokenizer.quantizer.codebook.val().device()
    }
}

/// Reads a tokenizer folder (`config.json`, `model.safetensors`).
///
/// # Errors
/// As [`EarthMapper::load`].
pub fn load_tokenizer(
    folder: &Path,
    device: &Device,
) -> Result<(TokenizerConfig, MultiScaleTokenizer), ModelError> {
    if !folder.is_dir() {
        return Err(ModelError::NoFolder(folder.into()));
    }
    let config_path = folder.join("config.json");
    let config: TokenizerConfig = read_json(&config_path)?;
    config.check().map_err(|source| ModelError::Config { path: config_path, source })?;
    let path = folder.join("model.safetensors");
    let file = open_weights(&path)?;
    let fresh = MultiScaleTokenizer::new(&config, &mut Init::zeros(device));
    let tokenizer = weights::apply_file(fresh, file, Missing::Refuse)
        .map_err(|source| ModelError::Weights { path, source })?;
    Ok((config, tokenizer))
}

/// Writes a tokenizer folder, as [`load_tokenizer`] reads it.
///
/// # Errors
/// When the folder exists already or cannot be written; nothing is left behind then.
pub fn save_tokenizer(
    config: &TokenizerConfig,
    tokenizer: &MultiScaleTokenizer,
    folder: &Path,
    storage: Storage,
) -> Result<(), ModelError> {
    let weights = weights::to_bytes(&weights::collect(tokenizer), storage);
    write_folder(folder, &[("config.json", pretty(config)), ("model.safetensors", weights)])
}

/// Writes files into a folder beside its place and renames it, so that it is there whole or not at all.
fn write_folder(folder: &Path, files: &[(&str, Vec<u8>)]) -> Result<(), ModelError> {
    let io = |path: &Path| {
        let path = path.to_path_buf();
        move |source| ModelError::Io { path, source }
    };
    if folder.exists() {
        return Err(io(folder)(std::io::Error::new(std::io::ErrorKind::AlreadyExists, "exists already")));
    }
    let parent = folder.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).map_err(io(parent))?;
    let staging = tempfile::Builder::new().prefix(".model-").tempdir_in(parent).map_err(io(parent))?;
    for (name, bytes) in files {
        // Errors name the file that was wanted, not the one beside it.
        let (path, wanted) = (staging.path().join(name), folder.join(name));
        let inside = path.parent().expect("inside the staging folder");
        std::fs::create_dir_all(inside).map_err(io(&wanted))?;
        std::fs::write(&path, bytes).map_err(io(&wanted))?;
    }
    // A temporary folder is for its owner only; a model is for everybody who may read its parent.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(staging.path(), open).map_err(io(folder))?;
    }
    std::fs::rename(staging.path(), folder).map_err(io(folder))?;
    // The staging folder has moved; there is nothing left to remove.
    let _ = staging.keep();
    Ok(())
}

/// Checks the files named in `SHA256SUMS`, when there is one.
fn verify_checksums(folder: &Path) -> Result<(), ModelError> {
    let sums_path = folder.join("SHA256SUMS");
    let Ok(sums) = std::fs::read_to_string(&sums_path) else { return Ok(()) };
    for line in sums.lines() {
        let Some((sum, name)) = line.split_once("  ") else { continue };
        // Only names inside the folder are looked at.
        if name.starts_with('/') || name.split('/').any(|part| part == "..") {
            continue;
        }
        let path = folder.join(name);
        if !path.exists() {
            return Err(ModelError::MissingFile(path));
        }
        let mut hash = Sha256::new();
        std::fs::File::open(&path)
            .and_then(|mut file| std::io::copy(&mut file, &mut hash))
            .map_err(|source| ModelError::Io { path: path.clone(), source })?;
        if hex(&hash.finalize()) != sum {
            return Err(ModelError::Checksum { path });
        }
    }
    Ok(())
}

fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T, ModelError> {
    if !path.exists() {
        return Err(ModelError::MissingFile(path.into()));
    }
    let text =
        std::fs::read_to_string(path).map_err(|source| ModelError::Io { path: path.into(), source })?;
    serde_json::from_str(&text).map_err(|source| ModelError::Parse { path: path.into(), source })
}

fn open_weights(path: &Path) -> Result<WeightsFile, ModelError> {
    if !path.exists() {
        return Err(ModelError::MissingFile(path.into()));
    }
    WeightsFile::open(path).map_err(ModelError::Unreadable)
}

fn pretty<T: Serialize>(value: &T) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(value).expect("plain data");
    text.push(b'\n');
    text
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
