//! Instead of stage one: a tokenizer by itself, measured by what it makes of the truth.

use std::collections::HashMap;

use earthmapper::pictures::{from_tensor, to_tensor};
use earthmapper::tokenizer::MultiScaleTokenizer;
use earthmapper::{Modality, TokenizerConfig};
use earthmapper_geo::pairs::{Pair, PairFolder};
use earthmapper_geo::picture::Picture;
use earthmapper_geo::provenance::Provenance;

use super::bench::{of_modality, square};
use super::measure::Source;
use super::report::Evaluated;
use super::{Candidate, EvaluateError, EvaluateOptions, Subject, measure_and_gather};
use crate::progress::{Interrupt, Progress, ProgressMode};

/// Reconstructions of all pairs.
struct Reconstructions(HashMap<(Modality, String), Picture>);

impl Source for Reconstructions {
    fn candidates(&self, _target: Modality) -> Vec<Candidate> {
        vec![Candidate::Ceiling]
    }

    fn picture(&self, name: &str, target: Modality, _: Candidate) -> Result<Picture, EvaluateError> {
        Ok(self.0[&(target, name.to_owned())].clone())
    }
}

/// Measures a tokenizer's reconstructions of both kinds of pictures, as [`Candidate::Ceiling`], and counts how often each of
/// its codes occurs in them. Options of generation do not matter.
///
/// # Errors
/// See [`EvaluateError`].
pub fn evaluate_tokenizer(
    name: &str,
    config: &TokenizerConfig,
    tokenizer: &MultiScaleTokenizer,
    pairs: &PairFolder,
    options: &EvaluateOptions,
    progress: ProgressMode,
    interrupt: &Interrupt,
) -> Result<(Evaluated, Vec<u64>), EvaluateError> {
    let side = config.picture_side as u32;
    let device = tokenizer.quantizer.codebook.val().device();
    let mut usage = vec![0; config.vocabulary];
    let mut made = HashMap::new();
    let mut bar = Progress::start(progress, "reconstructions", 0, pairs.len() as u64);
    let indices: Vec<usize> = (0..pairs.len()).collect();
    for (number, batch) in indices.chunks(options.batch_size.max(1)).enumerate() {
        if interrupt.requested() {
            bar.finish();
            let (done, of) = (number * options.batch_size.max(1), pairs.len());
            return Err(EvaluateError::Interrupted { done, of, unit: "reconstructions", kept: false });
        }
        let read: Vec<Pair> = batch
            .iter()
            .map(|&index| square(pairs, index, side).map(|(pair, _)| pair))
            .collect::<Result<_, _>>()?;
        for modality in Modality::ALL {
            let pictures: Vec<Picture> =
                read.iter().map(|pair| of_modality(pair, modality).clone()).collect();
            let tokens = tokenizer.encode(to_tensor(&pictures, &device)).tokens;
            for k in 0..tokens.len() {
                let counts = tokens.usage(k, config.vocabulary);
                usage.iter_mut().zip(counts).for_each(|(all, count)| *all += count);
            }
            for (pair, picture) in read.iter().zip(from_tensor(tokenizer.decode(&tokens))) {
                made.insert((modality, pair.name.clone()), picture);
            }
        }
        bar.update((number * options.batch_size.max(1) + batch.len()) as u64, batch.len() as u64, None);
    }
    bar.finish();
    let provenance = Provenance::new(name, "reconstruction by a tokenizer");
    let subject = Subject::Tokenizer { name: name.to_owned() };
    let source = Reconstructions(made);
    let evaluated =
        measure_and_gather(subject, &source, side, pairs, options, provenance, progress, interrupt)?;
    Ok((evaluated, usage))
}
