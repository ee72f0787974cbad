//! Stage one: every picture that is measured is made, unless it is there already.

use earthmapper::Modality;
use earthmapper_geo::pairs::PairFolder;
use earthmapper_geo::picture::Picture;

use super::bench::{Bench, Purpose, name_hash, of_modality, square};
use super::predictions::{Kind, Predictions};
use super::{Directions, EvaluateError};
use crate::progress::{Interrupt, Progress, ProgressMode};

/// Samples of one input that diversity is measured on.
pub(super) const SAMPLES: u64 = 3;

/// What is made of each pair.
#[derive(Clone, Copy, Debug)]
enum Job {
    Translate(Modality),
    /// From the model's photograph, which an earlier job made.
    Cycle,
    Ceiling(Modality),
    Samples(Modality),
}

impl Job {
    fn kinds(self) -> Vec<Kind> {
        match self {
            Self::Translate(target) => vec![Kind::Made(target), Kind::Uncertainty(target)],
            Self::Cycle => vec![Kind::Cycle],
            Self::Ceiling(modality) => vec![Kind::Ceiling(modality)],
            Self::Samples(target) => (0..SAMPLES).map(|number| Kind::Sample(target, number)).collect(),
        }
    }
}

/// The jobs for some directions, each after those that it needs.
fn jobs(directions: Directions) -> Vec<Job> {
    let mut jobs = Vec::new();
    for target in directions.targets() {
        jobs.extend([Job::Translate(target), Job::Samples(target), Job::Ceiling(target)]);
    }
    if directions.include(Modality::Satellite) {
        jobs.push(Job::Cycle);
        if !directions.include(Modality::Map) {
            // The table of the way back has its ceiling too.
            jobs.push(Job::Ceiling(Modality::Map));
        }
    }
    jobs
}

/// The names of the pairs whose diversity is measured: some by their names, whatever the others' order.
pub(super) fn sampled(pairs: &PairFolder, most: usize) -> Vec<String> {
    let mut names: Vec<String> = (0..pairs.len()).map(|index| pairs.name(index).to_owned()).collect();
    names.sort_by_key(|name| (name_hash(name), name.clone()));
    names.truncate(most);
    names
}

/// Makes what is missing. Returns the seconds per satellite → map translation, encoding and decoding included, over those
/// made now.
pub(super) fn predict(
    bench: &Bench,
    pairs: &PairFolder,
    predictions: &mut Predictions,
    progress: ProgressMode,
    interrupt: &Interrupt,
) -> Result<Option<f64>, EvaluateError> {
    let sampled = sampled(pairs, bench.options.diversity_pictures);
    let todo = |job: Job, predictions: &Predictions| -> (usize, Vec<usize>) {
        let wanted = |&index: &usize| {
            !matches!(job, Job::Samples(_)) || sampled.iter().any(|name| name == pairs.name(index))
        };
        let is_missing =
            |&index: &usize| job.kinds().iter().any(|&kind| !predictions.has(kind, pairs.name(index)));
        let wanted: Vec<usize> = (0..pairs.len()).filter(wanted).collect();
        (wanted.len(), wanted.into_iter().filter(is_missing).collect())
    };
    let work: Vec<(Job, usize, Vec<usize>)> = jobs(bench.options.directions)
        .into_iter()
        .map(|job| {
            let (wanted, missing) = todo(job, predictions);
            (job, wanted, missing)
        })
        .collect();
    let total: usize = work.iter().map(|(_, wanted, _)| wanted).sum();
    let mut done = total - work.iter().map(|(_, _, missing)| missing.len()).sum::<usize>();
    let mut bar = Progress::start(progress, "predictions", done as u64, total as u64);
    let (mut seconds, mut translations) = (0.0, 0usize);
    for (job, _, missing) in &work {
        let at_once = match job {
            Job::Samples(_) => bench.options.batch_size / SAMPLES as usize,
            _ => bench.options.batch_size,
        };
        for indices in missing.chunks(at_once.max(1)) {
            if interrupt.requested() {
                bar.finish();
                let (unit, kept) = ("predictions", predictions.are_kept());
                return Err(EvaluateError::Interrupted { done, of: total, unit, kept });
            }
            let took = run(*job, bench, pairs, indices, predictions)?;
            if matches!(job, Job::Translate(Modality::Map)) {
                seconds += took;
                translations += indices.len();
            }
            done += indices.len();
            bar.update(done as u64, indices.len() as u64, None);
        }
    }
    bar.finish();
    Ok((translations > 0).then(|| seconds / translations as f64))
}

/// Does a job for some pairs; returns the seconds that encoding, generation and decoding took.
fn run(
    job: Job,
    bench: &Bench,
    pairs: &PairFolder,
    indices: &[usize],
    predictions: &mut Predictions,
) -> Result<f64, EvaluateError> {
    let mut read = Vec::with_capacity(indices.len());
    let mut places = Vec::with_capacity(indices.len());
    for &index in indices {
        let (pair, zoom) = square(pairs, index, bench.side)?;
        places.push(bench.place(pairs, index, zoom));
        read.push(pair);
    }
    let pictures =
        |modality| -> Vec<Picture> { read.iter().map(|pair| of_modality(pair, modality).clone()).collect() };
    let (target, purposes) = match job {
        Job::Ceiling(modality) => {
            for (pair, ceiling) in read.iter().zip(bench.reconstruct(&pictures(modality))) {
                predictions.put(Kind::Ceiling(modality), &pair.name, ceiling)?;
            }
            return Ok(0.0);
        }
        Job::Translate(target) => (target, vec![Purpose::Made(target)]),
        Job::Cycle => (Modality::Map, vec![Purpose::Made(Modality::Map)]),
        Job::Samples(target) => (target, (0..SAMPLES).map(Purpose::Sample).collect()),
    };
    let sources = match job {
        Job::Cycle => read
            .iter()
            .map(|pair| predictions.get(Kind::Made(Modality::Satellite), &pair.name))
            .collect::<Result<Vec<_>, _>>()?,
        _ => pictures(target.other()),
    };
    // Each picture once per purpose, side by side.
    let repeated = |i: usize| i / purposes.len();
    let all = 0..sources.len() * purposes.len();
    let sources: Vec<Picture> = all.clone().map(|i| sources[repeated(i)].clone()).collect();
    let places: Vec<_> = all.clone().map(|i| places[repeated(i)]).collect();
    let seeds: Vec<u64> =
        all.map(|i| bench.seed(purposes[i % purposes.len()], &read[repeated(i)].name)).collect();
    let made = bench.make(&sources, target, bench.options.generation.towards(target), &seeds, &places)?;
    let kinds = job.kinds();
    for (i, (picture, uncertainty)) in made.pictures.into_iter().zip(made.uncertainty).enumerate() {
        let name = &read[repeated(i)].name;
        match job {
            Job::Translate(_) => {
                predictions.put(kinds[1], name, uncertainty)?;
                predictions.put(kinds[0], name, picture)?;
            }
            _ => predictions.put(kinds[i % purposes.len()], name, picture)?,
        }
    }
    Ok(made.seconds)
}
