//! Tokens of the training pairs, made once by the frozen tokenizer, so that an epoch does not encode again.
//!
//! The cache holds a few *variants*: each is one draw of crop, flip and quarter turn for every pair. Epoch e uses
//! variant e mod count. A variant is a file named by a digest of everything that it depends on, so a stale one is
//! never taken up.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use earthmapper::pictures::to_tensor;
use earthmapper::tokenizer::{MultiScaleTokenizer, PackedTokenizer, TokenPyramid};
use earthmapper::{LonLat, Place, TokenizerConfig, weights};
use earthmapper_geo::files::atomic_write;
use earthmapper_geo::pairs::{Pair, PairFolder};
use earthmapper_geo::picture::{Picture, PictureLimits};
use half::f16;
use rayon::prelude::*;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use sha2::{Digest, Sha256};

use crate::data::{AugmentConfig, Skipped, augmentation};
use crate::progress::{Interrupt, Progress};
use crate::session::TrainError;

/// Pairs encoded at once.
const BATCH: usize = 32;

/// What the tokenizer made of one picture.
#[derive(Clone, Debug, PartialEq)]
pub struct KnownPicture {
    /// Its tokens, a batch of one.
    pub tokens: TokenPyramid,
    /// The features that they were quantized from, `[latent, side, side]`; in 16 bits, which is far finer than the
    /// codes, to save memory.
    pub features: Vec<f16>,
}

/// One pair: satellite, then map.
#[derive(Clone, Debug, PartialEq)]
pub struct PairTokens {
    /// One picture per modality, in the order satellite, map.
    pub pictures: [KnownPicture; 2],
    /// Where it lies, if its data set says so, and the metres per pixel of the cut.
    pub place: Option<Place>,
}

impl PairTokens {
    /// The tokens of one picture of several pairs as a batch.
    pub fn tokens(pairs: &[&Self], modality: usize) -> TokenPyramid {
        TokenPyramid::stack(&pairs.iter().map(|pair| &pair.pictures[modality].tokens).collect::<Vec<_>>())
    }

    /// The features of one picture of several pairs, `[batch, latent, side, side]`.
    pub fn features(
        pairs: &[&Self],
        modality: usize,
        config: &TokenizerConfig,
        device: &Device,
    ) -> Tensor<4> {
        let side = config.sides.last().expect("a checked configuration");
        let shape = [pairs.len(), config.latent_width, *side, *side];
        let mut values = vec![0.0; shape.iter().product()];
        // In parallel, because a device that takes hundreds of pairs a second would wait for it.
        values.par_chunks_mut(shape[1..].iter().product()).zip(pairs).for_each(|(row, pair)| {
            row.iter_mut().zip(&pair.pictures[modality].features).for_each(|(to, from)| *to = from.to_f32());
        });
        Tensor::from_data(TensorData::new(values, shape), device)
    }
}

/// How the pictures of a cache are cut.
#[derive(Clone, Copy, Debug)]
pub enum Cut {
    /// Variant number `variant` of the augmentation.
    Augmented {
        /// Settings.
        config: AugmentConfig,
        /// Seed of all variants.
        seed: u64,
        /// Which draw.
        variant: u64,
    },
    /// The centred square, for validation.
    Centred,
}

/// The cache of one folder of pairs.
pub struct TokenCache {
    folder: PathBuf,
    pairs: PairFolder,
    tokenizer: MultiScaleTokenizer,
    /// On a CPU the same weights packed, which encode faster.
    packed: Option<PackedTokenizer>,
    config: TokenizerConfig,
    digest: String,
    skip_limit: f64,
    loaded: HashMap<String, Vec<PairTokens>>,
}

impl TokenCache {
    /// A cache in `folder` for `pairs`. `skip_limit` is the share of pairs that may be unreadable.
    pub fn new(
        folder: &Path,
        pairs: PairFolder,
        tokenizer: &MultiScaleTokenizer,
        config: &TokenizerConfig,
        skip_limit: f64,
    ) -> Self {
        let tokenizer = tokenizer.valid();
        let mut digest = Sha256::new();
        digest.update(serde_json::to_vec(config).expect("plain data"));
        for (name, tensor) in weights::collect(&tokenizer) {
            digest.update(name.as_bytes());
            tensor.values.iter().for_each(|value| digest.update(value.to_le_bytes()));
        }
        for index in 0..pairs.len() {
            digest.update(pairs.path(index).as_os_str().as_encoded_bytes());
            digest.update(serde_json::to_vec(&pairs.place(index)).expect("plain data"));
        }
        let digest = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        let on_cpu = tokenizer.quantizer.codebook.val().device() == Device::flex();
        let packed = on_cpu.then(|| PackedTokenizer::new(&tokenizer, config.picture_side));
        Self {
            folder: folder.into(),
            pairs,
            tokenizer,
            packed,
            config: config.clone(),
            digest,
            skip_limit,
            loaded: HashMap::new(),
        }
    }

    /// The tokens of all readable pairs, cut as `cut` says: from memory, from the file, or made now (which shows its
    /// progress). `None` when it was interrupted.
    ///
    /// # Errors
    /// When too many pairs cannot be read or the file cannot be written.
    pub fn get(
        &mut self,
        cut: Cut,
        progress: &mut Progress,
        interrupt: &Interrupt,
    ) -> Result<Option<&[PairTokens]>, TrainError> {
        let name = self.file_name(cut);
        if !self.loaded.contains_key(&name) {
            let path = self.folder.join(&name);
            let tokens = match self.read(&path) {
                Some(tokens) => tokens,
                None => match self.make(cut, progress, interrupt)? {
                    Some(tokens) => {
                        self.write(&path, &tokens)?;
                        tokens
                    }
                    None => return Ok(None),
                },
            };
            self.loaded.insert(name.clone(), tokens);
        }
        Ok(Some(&self.loaded[&name]))
    }

    fn file_name(&self, cut: Cut) -> String {
        let mut digest = Sha256::new();
        digest.update(self.digest.as_bytes());
        let label = match cut {
            Cut::Augmented { config, seed, variant } => {
                digest.update(serde_json::to_vec(&config).expect("plain data"));
                digest.update(seed.to_le_bytes());
                format!("variant-{variant}")
            }
            Cut::Centred => "centred".to_string(),
        };
        digest.update(label.as_bytes());
        let short: String = digest.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        format!("{label}-{short}.safetensors")
    }

    /// Encodes all pairs.
    fn make(
        &self,
        cut: Cut,
        progress: &mut Progress,
        interrupt: &Interrupt,
    ) -> Result<Option<Vec<PairTokens>>, TrainError> {
        let mut skipped = Skipped::new(self.pairs.len(), self.skip_limit);
        let mut tokens = Vec::with_capacity(self.pairs.len());
        let indices: Vec<usize> = (0..self.pairs.len()).collect();
        for (i, batch) in indices.chunks(BATCH).enumerate() {
            if interrupt.requested() {
                return Ok(None);
            }
            if i.is_multiple_of(25) {
                progress.message(&format!("encoding pairs: {} of {}", i * BATCH, self.pairs.len()));
            }
            let read: Vec<_> = batch
                .par_iter()
                .map(|&index| {
                    let pair = self.pairs.read(index, &PictureLimits::default());
                    pair.map(|pair| (index, self.cut(cut, index, &pair)))
                })
                .collect();
            let (mut pictures, mut cuts) = (Vec::new(), Vec::new());
            for result in read {
                match result {
                    Ok((index, (pair, metres))) => {
                        pictures.extend(pair);
                        cuts.push((index, metres));
                    }
                    Err(error) => skipped.push(&error)?,
                }
            }
            if pictures.is_empty() {
                continue;
            }
            let batch = to_tensor(&pictures, &self.tokenizer.quantizer.codebook.val().device());
            let features = match &self.packed {
                Some(packed) => packed.features(batch),
                None => self.tokenizer.features(batch),
            };
            let encoded = self.tokenizer.quantizer.encode(features.clone()).0;
            let features = features.try_into_vec_as::<f32>().expect("32-bit floats");
            let size = features.len() / pictures.len();
            let picture = |index: usize| KnownPicture {
                tokens: encoded.picture(index),
                features: features[index * size..][..size].iter().map(|x| f16::from_f32(*x)).collect(),
            };
            tokens.extend(cuts.iter().enumerate().map(|(pair, &(index, zoom))| PairTokens {
                pictures: [picture(2 * pair), picture(2 * pair + 1)],
                place: self.place(index, zoom),
            }));
        }
        if tokens.is_empty() {
            return Err(skipped.nothing_readable().into());
        }
        Ok(Some(tokens))
    }

    /// Where a pair lies whose pixels were made `zoom` times as large as the file's.
    fn place(&self, index: usize, zoom: f64) -> Option<Place> {
        let place = self.pairs.place(index)?;
        let metres = place.metres_per_pixel().map(|metres| metres * zoom);
        Some(Place::new(place.position(), metres).unwrap_or(place))
    }

    /// The two pictures, and pixels of the file per pixel of theirs.
    fn cut(&self, cut: Cut, index: usize, pair: &Pair) -> ([Picture; 2], f64) {
        let side = self.config.picture_side as u32;
        let (width, height) = (pair.satellite.width(), pair.satellite.height());
        let augmentation = match cut {
            Cut::Augmented { config, seed, variant } => {
                augmentation(seed, variant, index, &config, width, height)
            }
            Cut::Centred => crate::data::Augmentation::centred(width, height),
        };
        let pictures = [augmentation.apply(&pair.satellite, side), augmentation.apply(&pair.map, side)];
        (pictures, f64::from(augmentation.side) / f64::from(side))
    }

    /// One tensor per scale, `[pairs, 2, tokens, depth]`, the features, `[pairs, 2, latent, side, side]`, and where pairs
    /// lie: longitude, latitude, metres per pixel, `[pairs, 3]`, NaN for what is not known.
    fn write(&self, path: &Path, tokens: &[PairTokens]) -> Result<(), TrainError> {
        let fail = |problem: String| TrainError::Checkpoint { path: path.into(), problem };
        std::fs::create_dir_all(&self.folder).map_err(|error| fail(error.to_string()))?;
        let scales = self.config.sides.len();
        let bytes: Vec<Vec<u8>> = (0..scales)
            .map(|k| {
                let codes =
                    tokens.iter().flat_map(|pair| &pair.pictures).flat_map(|known| known.tokens.scale(k));
                codes.flat_map(|code| code.to_le_bytes()).collect()
            })
            .collect();
        let views = bytes.iter().enumerate().map(|(k, bytes)| {
            let side = self.config.sides[k];
            let shape = vec![tokens.len(), 2, side * side, self.config.quantizer_depth];
            (format!("scale.{k}"), TensorView::new(Dtype::U32, shape, bytes).expect("shape and bytes agree"))
        });
        let pictures = tokens.iter().flat_map(|pair| &pair.pictures);
        let features: Vec<u8> =
            pictures.flat_map(|known| known.features.iter().flat_map(|x| x.to_le_bytes())).collect();
        let side = self.config.sides[scales - 1];
        let shape = vec![tokens.len(), 2, self.config.latent_width, side, side];
        let view = TensorView::new(Dtype::F16, shape, &features).expect("shape and bytes agree");
        let places = tokens.iter().flat_map(|pair| match pair.place {
            Some(place) => {
                let metres = place.metres_per_pixel().unwrap_or(f64::NAN);
                [place.position().longitude(), place.position().latitude(), metres]
            }
            None => [f64::NAN; 3],
        });
        let places: Vec<u8> = places.flat_map(f64::to_le_bytes).collect();
        let places = TensorView::new(Dtype::F64, vec![tokens.len(), 3], &places).expect("three per pair");
        let views = views.chain([("features".to_string(), view), ("places".to_string(), places)]);
        let file = safetensors::serialize(views, None).expect("sizes are known");
        atomic_write(path, &file, true).map_err(|error| fail(error.to_string()))
    }

    /// Reads a file that [`write`](Self::write) wrote; `None` when there is none or it is damaged, and it is made anew.
    fn read(&self, path: &Path) -> Option<Vec<PairTokens>> {
        let bytes = std::fs::read(path).ok()?;
        let file = SafeTensors::deserialize(&bytes).ok()?;
        let depth = self.config.quantizer_depth;
        let scales: Vec<Vec<u32>> = (0..self.config.sides.len())
            .map(|k| {
                let view = file.tensor(&format!("scale.{k}")).ok()?;
                Some(view.data().as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect())
            })
            .collect::<Option<_>>()?;
        let size = |k: usize| self.config.sides[k].pow(2) * depth;
        let count = scales[0].len() / (2 * size(0));
        let known = |code: &u32| (*code as usize) < self.config.vocabulary;
        let latents = self.config.latent_width * self.config.sides[scales.len() - 1].pow(2);
        let features = file.tensor("features").ok()?;
        let features: Vec<f16> =
            features.data().as_chunks::<2>().0.iter().map(|bytes| f16::from_le_bytes(*bytes)).collect();
        let places: Vec<f64> = file
            .tensor("places")
            .ok()?
            .data()
            .as_chunks::<8>()
            .0
            .iter()
            .map(|b| f64::from_le_bytes(*b))
            .collect();
        let place = |pair: usize| {
            let position = LonLat::new(places[3 * pair], places[3 * pair + 1]).ok()?;
            Place::new(position, Some(places[3 * pair + 2]).filter(|metres| metres.is_finite())).ok()
        };
        let whole = count > 0
            && places.len() == 3 * count
            && features.len() == count * 2 * latents
            && (0..scales.len())
                .all(|k| scales[k].len() == count * 2 * size(k) && scales[k].iter().all(known));
        let picture = |index: usize| {
            let codes = (0..scales.len()).map(|k| scales[k][index * size(k)..(index + 1) * size(k)].to_vec());
            KnownPicture {
                tokens: TokenPyramid::new(codes.collect(), 1, depth),
                features: features[index * latents..][..latents].to_vec(),
            }
        };
        whole.then(|| {
            (0..count)
                .map(|pair| PairTokens {
                    pictures: [picture(2 * pair), picture(2 * pair + 1)],
                    place: place(pair),
                })
                .collect()
        })
    }
}
