//! Where predictions are kept: in memory, or as PNG files in a folder, so that an interrupted evaluation goes on.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use earthmapper::model::GenerationDefaults;
use earthmapper::{EarthMapper, Modality, Place, weights};
use earthmapper_geo::files::{WriteError, atomic_write};
use earthmapper_geo::pairs::{PairFiles, PairFolder};
use earthmapper_geo::picture::{Picture, PictureLimits, WriteOptions, read_picture, write_picture};
use earthmapper_geo::provenance::Provenance;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{EvaluateError, EvaluateOptions};

/// Name of the file that says what made the predictions of a folder.
const KEY: &str = "key.json";

/// Number of the layout of such a folder.
const FORMAT: u32 = 1;

/// What a kept picture is.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) enum Kind {
    /// The model's picture.
    Made(Modality),
    /// How undecided it was, one grey pixel per token.
    Uncertainty(Modality),
    /// One of several other samples.
    Sample(Modality, u64),
    /// The tokenizer's reconstruction of the true picture.
    Ceiling(Modality),
    /// The map made back from the model's photograph.
    Cycle,
}

impl Kind {
    fn folder(self) -> String {
        match self {
            Self::Made(modality) => modality.to_string(),
            Self::Uncertainty(modality) => format!("{modality}-uncertainty"),
            Self::Sample(modality, number) => format!("{modality}-sample-{}", number + 1),
            Self::Ceiling(modality) => format!("{modality}-ceiling"),
            Self::Cycle => "map-cycle".into(),
        }
    }
}

/// What predictions depend on.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Key {
    format: u32,
    model: String,
    /// SHA-256 of configurations and weights.
    weights: String,
    generation: GenerationDefaults,
    seed: u64,
    place: Option<Place>,
    /// SHA-256 of the files of each pair, by its name.
    pairs: BTreeMap<String, String>,
}

impl Key {
    pub fn new(
        model: &EarthMapper,
        pairs: &PairFolder,
        options: &EvaluateOptions,
    ) -> Result<Self, EvaluateError> {
        let mut digests = BTreeMap::new();
        for index in 0..pairs.len() {
            let mut digest = Sha256::new();
            let files = match pairs.files(index) {
                PairFiles::One { path, order } => {
                    digest.update(format!("{order:?}"));
                    vec![path]
                }
                PairFiles::Two { satellite, map } => vec![satellite, map],
            };
            digest.update(serde_json::to_vec(&pairs.place(index)).expect("plain data"));
            for path in files {
                let bytes = std::fs::read(path).map_err(|error| EvaluateError::Given {
                    path: path.clone(),
                    problem: error.to_string(),
                })?;
                digest.update(bytes);
            }
            digests.insert(pairs.name(index).to_owned(), hex(digest));
        }
        Ok(Self {
            format: FORMAT,
            model: model.config.name.clone(),
            weights: options.weights.clone().unwrap_or_else(|| weights_digest(model)),
            generation: options.generation.clone(),
            seed: options.seed,
            place: options.place,
            pairs: digests,
        })
    }

    /// SHA-256 of configurations and weights.
    pub fn weights(&self) -> &str {
        &self.weights
    }

    /// Why pictures made under `self` are not those that `other` asks for. Other pairs do not matter: a picture depends on its
    /// own pair only.
    fn differs(&self, other: &Self) -> Option<String> {
        let changed = |(name, digest): (&String, &String)| {
            other.pairs.get(name).is_some_and(|wanted| wanted != digest).then(|| name.clone())
        };
        if self.format != other.format {
            Some("holds predictions of another version of this program".into())
        } else if self.weights != other.weights {
            Some(format!("holds predictions of another model ({})", self.model))
        } else if self.seed != other.seed {
            Some(format!("holds predictions made with the seed {}, not {}", self.seed, other.seed))
        } else if self.generation != other.generation {
            Some("holds predictions made with other options of generation".into())
        } else if self.place != other.place {
            Some("holds predictions made for another place".into())
        } else {
            let name = self.pairs.iter().find_map(changed)?;
            Some(format!("the pair {name} has changed since its predictions were made"))
        }
    }
}

/// SHA-256 of a model that is not packed: of what its name stands for, whatever its files are called.
pub fn weights_digest(model: &EarthMapper) -> String {
    let mut digest = Sha256::new();
    digest.update(serde_json::to_vec(&(&model.config, &model.tokenizer_config)).expect("plain data"));
    for tensors in [weights::collect(&model.transformer), weights::collect(&model.tokenizer)] {
        for (name, tensor) in tensors {
            digest.update(name.as_bytes());
            tensor.values.iter().for_each(|value| digest.update(value.to_le_bytes()));
        }
    }
    hex(digest)
}

fn hex(digest: Sha256) -> String {
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Pictures by kind and name of the pair.
pub(super) struct Predictions {
    /// None keeps them in memory.
    folder: Option<PathBuf>,
    held: HashMap<(Kind, String), Picture>,
    provenance: Provenance,
}

impl Predictions {
    pub fn in_memory(provenance: Provenance) -> Self {
        Self { folder: None, held: HashMap::new(), provenance }
    }

    /// Opens or creates a folder for what `key` says, and notes its pairs there.
    pub fn in_folder(folder: &Path, mut key: Key, provenance: Provenance) -> Result<Self, EvaluateError> {
        let io = |cause| WriteError::Io { path: folder.into(), cause };
        std::fs::create_dir_all(folder).map_err(io)?;
        let other = |problem: String| EvaluateError::OtherPredictions { folder: folder.into(), problem };
        let path = folder.join(KEY);
        if path.is_file() {
            let text = std::fs::read_to_string(&path).map_err(io)?;
            let found: Key =
                serde_json::from_str(&text).map_err(|error| other(format!("{KEY} is damaged ({error})")))?;
            if let Some(problem) = found.differs(&key) {
                return Err(other(problem));
            }
            key.pairs.extend(found.pairs);
        } else if std::fs::read_dir(folder).map_err(io)?.next().is_some() {
            return Err(other(format!("holds files but no {KEY}, so nobody knows what made them")));
        }
        let text = serde_json::to_string_pretty(&key).expect("plain data") + "\n";
        atomic_write(&path, text.as_bytes(), true)?;
        Ok(Self { folder: Some(folder.into()), held: HashMap::new(), provenance })
    }

    /// Whether what is put here outlives an interruption.
    pub fn are_kept(&self) -> bool {
        self.folder.is_some()
    }

    pub fn has(&self, kind: Kind, name: &str) -> bool {
        match &self.folder {
            Some(folder) => path(folder, kind, name).is_file(),
            None => self.held.contains_key(&(kind, name.to_owned())),
        }
    }

    pub fn put(&mut self, kind: Kind, name: &str, picture: Picture) -> Result<(), EvaluateError> {
        let Some(folder) = &self.folder else {
            self.held.insert((kind, name.to_owned()), picture);
            return Ok(());
        };
        let path = path(folder, kind, name);
        let parent = path.parent().expect("a file in a folder");
        std::fs::create_dir_all(parent).map_err(|cause| WriteError::Io { path: parent.into(), cause })?;
        let provenance = Some(self.provenance.clone());
        Ok(write_picture(
            &path,
            &picture,
            &WriteOptions { overwrite: true, provenance, ..Default::default() },
        )?)
    }

    /// # Panics
    /// When it was never put there.
    pub fn get(&self, kind: Kind, name: &str) -> Result<Picture, EvaluateError> {
        match &self.folder {
            Some(folder) => Ok(read_picture(path(folder, kind, name), &PictureLimits::default())?),
            None => Ok(self.held[&(kind, name.to_owned())].clone()),
        }
    }
}

fn path(folder: &Path, kind: Kind, name: &str) -> PathBuf {
    folder.join(kind.folder()).join(format!("{}.png", file_name(name)))
}

/// The name of a pair as the name of a file: what may not stand there is written as `%` and its bytes in hexadecimal.
pub(super) fn file_name(name: &str) -> String {
    let mut safe = String::new();
    for (position, character) in name.char_indices() {
        let is_plain = !matches!(character, '/' | '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|' | '%')
            && !character.is_control()
            && (character != '.' || position > 0);
        match is_plain {
            true => safe.push(character),
            false => {
                character.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| safe += &format!("%{byte:02X}"))
            }
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_files_that_differ() {
        assert_eq!(file_name("florence-17-1-2"), "florence-17-1-2");
        assert_eq!(file_name("straße 1.5"), "straße 1.5");
        assert_eq!(file_name("../a"), "%2E.%2Fa");
        assert_eq!(file_name("100%"), "100%25");
    }
}
