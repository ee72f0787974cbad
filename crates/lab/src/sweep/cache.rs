//! What a point depends on, as a digest: points of the same digest have the same numbers.
//!
//! Names and places of files do not matter, only what is in them; neither do sizes of batches, which change no number.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use earthmapper_geo::pairs::{PairFiles, PairFolder, PairSelection, PairSource};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::error::SweepError;
use super::record::FORMAT;
use super::settings::Settings;
use crate::evaluate::evaluation;

/// Digests of a point and of the trainings that it needs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Keys {
    /// Of the tokenizer's training.
    pub tokenizer: Option<String>,
    /// Of the transformer's training.
    pub transformer: Option<String>,
    /// Of the weights that are measured.
    pub weights: String,
    /// Of the point.
    pub point: String,
    /// Of the baselines that need training pairs, but for the side in pixels; none without training pairs.
    pub baselines: Option<String>,
}

impl Keys {
    /// The digest of the baselines at a side in pixels.
    pub fn baselines_at(&self, side: u32) -> Option<String> {
        let found = self.baselines.as_ref()?;
        Some(hex(Sha256::new_with_prefix(json!([found, side]).to_string())))
    }
}

/// Digests of files, each computed once.
#[derive(Debug, Default)]
pub struct Digests {
    known: HashMap<String, String>,
}

/// So much of a digest names a folder: 64 bits.
pub fn short(digest: &str) -> &str {
    &digest[..16]
}

impl Digests {
    /// The digests of a point.
    ///
    /// # Errors
    /// When a file that it depends on cannot be read.
    pub fn keys(&mut self, settings: &Settings) -> Result<Keys, SweepError> {
        let tokenizer = settings.tokenizer.as_ref().map(|config| {
            let pairs = [&config.training, &config.validation].map(|chosen| self.pairs(&config.data, chosen));
            let mut files = Vec::new();
            if let Some(loss) = &config.losses.perceptual {
                files.push(self.file(&loss.vgg)?);
                files.extend(loss.heads.as_ref().map(|heads| self.file(heads)).transpose()?);
            }
            let from = config.from.as_ref().map(|folder| self.tokenizer(folder)).transpose()?;
            let config = without(config, &["data", "training", "validation", "from"]);
            of(&json!(["tokenizer", FORMAT, config, both(pairs)?, files, from]))
        });
        let tokenizer = tokenizer.transpose()?;
        let transformer = settings.transformer.as_ref().map(|config| {
            let pairs = [&config.training, &config.validation].map(|chosen| self.pairs(&config.data, chosen));
            let taught = match &tokenizer {
                Some(key) => key.clone(),
                None => self.tokenizer(&config.tokenizer)?,
            };
            let from = config.from.as_ref().map(|folder| self.folder(folder)).transpose()?;
            let dinov2 =
                config.semantic_infusion.as_ref().map(|found| self.file(&found.weights)).transpose()?;
            let config = without(config, &["data", "training", "validation", "tokenizer", "from", "workers"]);
            of(&json!(["transformer", FORMAT, config, both(pairs)?, taught, from, dinov2]))
        });
        let transformer = transformer.transpose()?;
        let evaluate = &settings.evaluate;
        let weights = match (&transformer, &tokenizer, &evaluate.model) {
            (Some(key), ..) | (None, Some(key), _) => key.clone(),
            (None, None, Some(folder)) => self.folder(folder)?,
            (None, None, None) => unreachable!("checked when the settings were read"),
        };
        let mut files = Vec::new();
        for path in evaluate.palette.iter().chain(&evaluate.inception) {
            files.push(self.file(path)?);
        }
        for path in evaluate.lpips.iter().flat_map(|files| files.split(',')) {
            files.push(self.file(Path::new(path))?);
        }
        let pairs = self.pairs(&evaluate.data, &evaluate.pairs)?;
        let named = ["model", "data", "pairs", "training", "batch_size", "palette", "inception", "lpips"];
        let plain = without(evaluate, &named);
        let point = of(&json!(["point", FORMAT, evaluation::FORMAT, plain, weights, pairs, files]))?;
        let training = evaluate.training().map(|(data, chosen)| self.pairs(data, chosen)).transpose()?;
        // Which kinds of pictures and which networks there are decides what is in them.
        let lpips: Vec<bool> = evaluate.lpips.iter().map(|files| files.contains(',')).collect();
        let targets = settings.directions().targets();
        let kinds = json!([targets, evaluate.palette.is_some(), evaluate.inception.is_some(), lpips]);
        let baselines = training.map(|training| {
            of(&json!(["baselines", FORMAT, evaluation::FORMAT, kinds, training, pairs, files]))
        });
        let baselines = baselines.transpose()?;
        Ok(Keys { tokenizer, transformer, weights, point, baselines })
    }

    fn known(
        &mut self,
        name: String,
        compute: impl FnOnce() -> Result<String, SweepError>,
    ) -> Result<String, SweepError> {
        if let Some(digest) = self.known.get(&name) {
            return Ok(digest.clone());
        }
        let digest = compute()?;
        self.known.insert(name, digest.clone());
        Ok(digest)
    }

    /// Of the pairs that are chosen: their names, pictures and places, in their order.
    fn pairs(&mut self, data: &PairSource, chosen: &PairSelection) -> Result<String, SweepError> {
        let name = format!("pairs {}", json!([data, chosen]));
        self.known(name, || {
            let pairs = PairFolder::open(data, chosen)?;
            let mut digest = Sha256::new();
            for index in 0..pairs.len() {
                digest.update(pairs.name(index));
                digest.update(serde_json::to_vec(&pairs.place(index)).expect("plain data"));
                let files: Vec<&PathBuf> = match pairs.files(index) {
                    PairFiles::One { path, order } => {
                        digest.update(format!("{order:?}"));
                        vec![path]
                    }
                    PairFiles::Two { satellite, map } => vec![satellite, map],
                };
                files.into_iter().try_for_each(|path| add_file(&mut digest, path))?;
            }
            Ok(hex(digest))
        })
    }

    fn file(&mut self, path: &Path) -> Result<String, SweepError> {
        self.known(format!("file {}", path.display()), || {
            let mut digest = Sha256::new();
            add_file(&mut digest, path)?;
            Ok(hex(digest))
        })
    }

    /// Of a model's or a tokenizer's folder, without what changes no weight.
    fn folder(&mut self, folder: &Path) -> Result<String, SweepError> {
        self.known(format!("folder {}", folder.display()), || {
            let mut digest = Sha256::new();
            let names =
                ["config.json", "model.safetensors", "tokenizer/config.json", "tokenizer/model.safetensors"];
            let present: Vec<&str> = names.into_iter().filter(|name| folder.join(name).is_file()).collect();
            if present.is_empty() {
                let problem = "holds no model and no tokenizer (no config.json); check the name".into();
                return Err(SweepError::Input { path: folder.into(), problem });
            }
            for name in present {
                digest.update(name);
                add_file(&mut digest, &folder.join(name))?;
            }
            Ok(hex(digest))
        })
    }

    /// Of whatever a transformer's training calls a tokenizer: a run is known by its best checkpoint.
    fn tokenizer(&mut self, folder: &Path) -> Result<String, SweepError> {
        if !folder.join("config.toml").is_file() {
            let inner = folder.join("tokenizer");
            return self.folder(if inner.is_dir() { &inner } else { folder });
        }
        let name =
            ["best", "last"].into_iter().find_map(|name| std::fs::read_to_string(folder.join(name)).ok());
        let checkpoint = folder.join("checkpoints").join(name.unwrap_or_default().trim());
        let parts = [self.file(&folder.join("config.toml"))?, self.file(&checkpoint.join("average.bpk"))?];
        of(&json!(parts))
    }
}

fn both(pairs: [Result<String, SweepError>; 2]) -> Result<[String; 2], SweepError> {
    let [training, validation] = pairs;
    Ok([training?, validation?])
}

/// Plain data without some keys. By way of text, so that 32-bit numbers are what they look like.
fn without(value: &impl serde::Serialize, keys: &[&str]) -> Value {
    let text = serde_json::to_string(value).expect("plain data");
    let mut value: Value = serde_json::from_str(&text).expect("what was just written");
    if let Value::Object(table) = &mut value {
        keys.iter().for_each(|key| drop(table.remove(*key)));
    }
    value
}

fn of(value: &Value) -> Result<String, SweepError> {
    Ok(hex(Sha256::new_with_prefix(value.to_string())))
}

fn add_file(digest: &mut Sha256, path: &Path) -> Result<(), SweepError> {
    let bytes = std::fs::read(path).map_err(|error| SweepError::Input {
        path: path.into(),
        problem: format!("{error}; check the name"),
    })?;
    digest.update(bytes.len().to_le_bytes());
    digest.update(bytes);
    Ok(())
}

fn hex(digest: Sha256) -> String {
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
