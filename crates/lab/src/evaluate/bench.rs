//! A model on the bench: reading, encoding and translating batches of pairs.

use std::time::Instant;

use earthmapper::pictures::{from_tensor, to_tensor};
use earthmapper::sampler::derive_seed;
use earthmapper::scene::MadeWindow;
use earthmapper::translator::{GenerationOptions, Translator};
use earthmapper::views::WindowTask;
use earthmapper::{EarthMapper, Modality, Place};
use earthmapper_geo::pairs::{Pair, PairError, PairFolder};
use earthmapper_geo::picture::{Picture, PictureLimits};
use sha2::{Digest, Sha256};

use super::{EvaluateError, EvaluateOptions};
use crate::data::Augmentation;

/// What a seed is for. Numbers, since pictures depend on them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Purpose {
    /// The picture that is measured; the way back of a generated photograph takes the same seed as the translation of the
    /// real one, so that the two differ in the photograph only.
    Made(Modality),
    /// One of several samples, for the diversity.
    Sample(u64),
}

/// A model and how it is measured.
pub(super) struct Bench<'a> {
    pub model: &'a EarthMapper,
    pub options: &'a EvaluateOptions,
    /// Side of the model's pictures, in pixels.
    pub side: u32,
}

/// Pictures that were generated.
pub(super) struct Made {
    pub pictures: Vec<Picture>,
    /// Entropy of the finest tokens, in [0, 1], as grey pictures of one pixel per token.
    pub uncertainty: Vec<Picture>,
    pub seconds: f64,
}

impl<'a> Bench<'a> {
    pub fn new(model: &'a EarthMapper, options: &'a EvaluateOptions) -> Result<Self, EvaluateError> {
        let modalities = model.transformer.modalities();
        let fits = modalities.len() == 2
            && [Modality::Satellite, Modality::Map].iter().all(|m| modalities.contains(m));
        if !fits {
            let known: Vec<String> = modalities.iter().map(ToString::to_string).collect();
            let (model, known) = (model.config.name.clone(), known.join(", "));
            return Err(EvaluateError::Modalities { model, known });
        }
        Ok(Self { model, options, side: model.tokenizer_config.picture_side as u32 })
    }

    /// The tokenizer's own reconstruction.
    pub fn reconstruct(&self, pictures: &[Picture]) -> Vec<Picture> {
        let encoding = self.model.encode(to_tensor(pictures, &self.model.device()));
        from_tensor(self.model.decode(&encoding.tokens))
    }

    /// The seed of a picture: of its pair's name rather than its position, so that it comes out the same among any others.
    pub fn seed(&self, purpose: Purpose, name: &str) -> u64 {
        let purpose = match purpose {
            Purpose::Made(Modality::Map) => 0,
            Purpose::Made(Modality::Satellite) => 1,
            Purpose::Sample(number) => 2 + number,
        };
        derive_seed(self.options.seed, &[purpose, name_hash(name)])
    }

    /// The place that the model is told for pair `index`, whose pixels show `zoom` pixels of the file: that of the options, else
    /// the pair's own if the model was trained with places.
    pub fn place(&self, pairs: &PairFolder, index: usize, zoom: f64) -> Option<Place> {
        let own = || {
            let place = pairs.place(index).filter(|_| self.model.config.trained_on.places_known)?;
            let metres = place.metres_per_pixel().map(|metres| metres * zoom);
            Some(Place::new(place.position(), metres).unwrap_or(place))
        };
        self.options.place.or_else(own)
    }

    /// Translates pictures toward `target`.
    pub fn make(
        &self,
        sources: &[Picture],
        target: Modality,
        generation: &GenerationOptions,
        seeds: &[u64],
        places: &[Option<Place>],
    ) -> Result<Made, EvaluateError> {
        let began = Instant::now();
        let (translator, batch_size) = (Translator::new(self.model), self.options.batch_size);
        let views = generation.views_toward(target)?;
        let sources = translator.encode_views(sources, views, batch_size);
        let task = |(i, source)| WindowTask { source, place: places[i], seed: seeds[i], before: None };
        let tasks: Vec<WindowTask> = sources.iter().enumerate().map(task).collect();
        let made = translator.translate_views(&tasks, target, generation, batch_size)?;
        let both = |MadeWindow { picture, uncertainty }| (picture, grey(&uncertainty));
        let (pictures, uncertainty) = made.into_iter().map(both).unzip();
        Ok(Made { pictures, uncertainty, seconds: began.elapsed().as_secs_f64() })
    }
}

/// One pair as the largest square from its middle at a side in pixels, and pixels of the file per pixel of the square.
pub(super) fn square(pairs: &PairFolder, index: usize, side: u32) -> Result<(Pair, f64), PairError> {
    let Pair { name, satellite, map } = pairs.read(index, &PictureLimits::default())?;
    let centred = Augmentation::centred(satellite.width(), satellite.height());
    let (satellite, map) = (centred.apply(&satellite, side), centred.apply(&map, side));
    Ok((Pair { name, satellite, map }, f64::from(centred.side) / f64::from(side)))
}

/// The picture of one kind of a pair.
pub(super) fn of_modality(pair: &Pair, modality: Modality) -> &Picture {
    match modality {
        Modality::Satellite => &pair.satellite,
        Modality::Map => &pair.map,
    }
}

/// A number for a name, the same everywhere.
pub(super) fn name_hash(name: &str) -> u64 {
    let digest = Sha256::digest(name.as_bytes());
    u64::from_le_bytes(digest[..8].try_into().expect("eight bytes"))
}

/// Token uncertainties as a grey picture of one pixel per token, white = undecided.
fn grey(uncertainty: &[f32]) -> Picture {
    let side = uncertainty.len().isqrt() as u32;
    Picture::drawn(side, side, |x, y| {
        [(255.0 * uncertainty[(y * side + x) as usize].clamp(0.0, 1.0)).round() as u8; 3]
    })
}
