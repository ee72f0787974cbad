//! Stage two: scores of every picture of every candidate, on all cores.

use earthmapper::Modality;
use earthmapper_geo::lonlat::LonLat;
use earthmapper_geo::pairs::{Pair, PairFolder};
use earthmapper_geo::picture::Picture;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::baselines::Training;
use super::bench::{of_modality, square};
use super::evaluation::Candidate;
use super::score::{Better, Metric, Score};
use super::{EvaluateError, EvaluateOptions};
use crate::metrics::{
    BOUNDARY_TOLERANCE, ClassMap, Confusion, MetricsError, Palette, ROAD_TOLERANCE, RoadMatches,
    SKELETON_TOLERANCE, blank_map, boundary_matches, mean_pairwise_difference, peak_signal_to_noise_ratio,
    road_skeleton_matches, root_mean_square_error, structural_similarity,
};
use crate::progress::{Interrupt, Progress, ProgressMode};

/// Pictures measured before asking whether to go on.
const CHUNK: usize = 32;

/// Where candidates' pictures come from, but for the baselines that need no model.
pub(super) trait Source: Sync {
    /// Which candidates there are for pictures of this kind.
    fn candidates(&self, target: Modality) -> Vec<Candidate>;

    /// The picture of a candidate for a pair.
    fn picture(&self, name: &str, target: Modality, candidate: Candidate) -> Result<Picture, EvaluateError>;

    /// How undecided the model was, one grey pixel per token.
    fn uncertainty(&self, _name: &str, _target: Modality) -> Result<Option<Picture>, EvaluateError> {
        Ok(None)
    }

    /// Other samples of the model's picture; empty for most pairs.
    fn samples(&self, _name: &str, _target: Modality) -> Result<Vec<Picture>, EvaluateError> {
        Ok(Vec::new())
    }
}

/// Everything that measuring needs.
pub(super) struct Setting<'a> {
    pub pairs: &'a PairFolder,
    pub side: u32,
    pub options: &'a EvaluateOptions,
    pub source: &'a dyn Source,
    pub training: Option<&'a Training>,
}

/// What one picture scores.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct PictureScores {
    /// The same metrics in the same order for every picture of a candidate.
    pub scores: Vec<Score>,
    /// Pixels by class; for maps.
    pub confusion: Option<Confusion>,
}

impl PictureScores {
    /// The picture's own value of a metric.
    pub fn value(&self, metric: &str) -> Option<f64> {
        self.scores.iter().find(|score| score.metric.name == metric)?.value()
    }
}

/// The scores of pictures of one kind.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct MeasuredSection {
    /// What was made.
    pub target: Modality,
    /// Each candidate and its pictures, in the order of the pairs.
    pub columns: Vec<(Candidate, Vec<PictureScores>)>,
}

impl MeasuredSection {
    /// The pictures of a candidate.
    pub fn column(&self, candidate: Candidate) -> Option<&[PictureScores]> {
        self.columns.iter().find(|(found, _)| *found == candidate).map(|(_, pictures)| &pictures[..])
    }
}

/// The scores of every picture.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Measured {
    /// Names of the pairs.
    pub names: Vec<String>,
    /// Where they lie, where that is known.
    pub positions: Vec<Option<LonLat>>,
    /// Maps first.
    pub sections: Vec<MeasuredSection>,
}

impl Measured {
    /// The section of a kind of pictures.
    pub fn section(&self, target: Modality) -> Option<&MeasuredSection> {
        self.sections.iter().find(|section| section.target == target)
    }

    /// What pictures of a kind are ordered by, one value per pair in [0, 1], and what it is. A map is worth the mean of
    /// its class accuracy and its road F1 (the class overlap of one picture hangs on a few pixels of a rare class); a photograph as much as the map made back from it, since many photographs fit
    /// one map; where there is none, its SSIM.
    pub fn worth(&self, target: Modality) -> Option<(&'static str, Vec<f64>)> {
        let of_map = |scores: &PictureScores| {
            let values = [ACCURACY, &road_name("F1")].map(|metric| scores.value(metric));
            let known: Vec<f64> = values.into_iter().flatten().collect();
            known.iter().sum::<f64>() / known.len().max(1) as f64
        };
        let column = |target, candidate| self.section(target)?.column(candidate);
        let values = |pictures: &[PictureScores], of: &dyn Fn(&PictureScores) -> f64| {
            pictures.iter().map(of).collect::<Vec<f64>>()
        };
        match target {
            Modality::Map => {
                let pictures = column(Modality::Map, Candidate::Model)?;
                Some(("mean of class accuracy and road F1", values(pictures, &of_map)))
            }
            Modality::Satellite => {
                let pictures = column(Modality::Satellite, Candidate::Model)?;
                match column(Modality::Map, Candidate::Cycle) {
                    Some(cycle) => {
                        Some(("class accuracy and road F1 of the map made back", values(cycle, &of_map)))
                    }
                    None => {
                        let similarity = |scores: &PictureScores| scores.value(SSIM).unwrap_or(0.0);
                        Some((SSIM, values(pictures, &similarity)))
                    }
                }
            }
        }
    }
}

const SSIM: &str = "SSIM";
const ACCURACY: &str = "class accuracy";

fn road_name(what: &str) -> String {
    format!("road {what}, {ROAD_TOLERANCE} px")
}

/// Scores one picture against the truth. A new metric of plain pixels is one more line here.
///
/// # Errors
/// [`MetricsError::SizeMismatch`].
pub fn measure(
    target: Modality,
    palette: &Palette,
    made: &Picture,
    truth: &Picture,
) -> Result<PictureScores, MetricsError> {
    let higher = |name: &str| Metric::new(name, Better::Higher);
    let mut scores = vec![
        Score::mean(higher("PSNR (dB)").with_digits(2), Some(peak_signal_to_noise_ratio(made, truth)?)),
        Score::mean(higher(SSIM), Some(structural_similarity(made, truth)?)),
        Score::mean(
            Metric::new("RMSE", Better::Lower).with_digits(4),
            Some(root_mean_square_error(made, truth)?),
        ),
    ];
    let mut confusion = None;
    if target == Modality::Map {
        let (made, truth) = (palette.classify(made), palette.classify(truth));
        let counts = Confusion::between(palette, &made, &truth)?;
        scores.extend(overlaps(palette, &counts));
        scores.extend(roads(palette, &made, &truth)?);
        scores.extend(boundaries(palette, &made, &truth)?);
        confusion = Some(counts);
    }
    let detail = Metric::new("detail", Better::Neither);
    scores.push(Score::ratio(detail, edge_content(made), edge_content(truth)));
    Ok(PictureScores { scores, confusion })
}

/// Intersection over union of each class and on average, and the share of pixels whose class is right.
fn overlaps(palette: &Palette, counts: &Confusion) -> Vec<Score> {
    let classes = palette.classes();
    let of_class = |class: usize| {
        let intersection = counts.counts()[class][class];
        let union = counts.truth(class) + counts.predicted(class) - intersection;
        [intersection as f64, union as f64]
    };
    let sums: Vec<[f64; 2]> = (0..classes.len()).map(of_class).collect();
    let higher = |name: String| Metric::new(name, Better::Higher);
    let mut scores: Vec<Score> = classes
        .iter()
        .zip(&sums)
        .map(|(class, sums)| Score::ratio(higher(format!("IoU {}", class.name)), sums[0], sums[1]))
        .collect();
    scores.push(Score {
        metric: higher("IoU mean".into()),
        statistic: super::score::Statistic::MeanOfRatios,
        sums: sums.concat(),
    });
    let right: f64 = sums.iter().map(|sums| sums[0]).sum();
    scores.push(Score::ratio(higher(ACCURACY.into()), right, counts.pixels() as f64));
    scores
}

/// Precision, recall and F1 of road pixels within the tolerance.
fn roads(palette: &Palette, made: &ClassMap, truth: &ClassMap) -> Result<Vec<Score>, MetricsError> {
    let matches = RoadMatches::between(palette, made, truth, ROAD_TOLERANCE)?;
    let higher = |what: &str| Metric::new(road_name(what), Better::Higher);
    Ok(vec![
        Score::ratio(higher("precision"), matches.predicted_near_truth as f64, matches.predicted as f64),
        Score::ratio(higher("recall"), matches.truth_near_prediction as f64, matches.truth as f64),
        Score::harmonic_mean(higher("F1"), &matches),
    ])
}

/// Boundary F1 of each class, and how complete and correct the skeleton of the roads is.
fn boundaries(palette: &Palette, made: &ClassMap, truth: &ClassMap) -> Result<Vec<Score>, MetricsError> {
    let higher = |name: String| Metric::new(name, Better::Higher);
    let mut scores = Vec::new();
    for (index, class) in palette.classes().iter().enumerate() {
        let matches = boundary_matches(made, truth, index, BOUNDARY_TOLERANCE)?;
        let name = format!("boundary F1 {}, {BOUNDARY_TOLERANCE} px", class.name);
        scores.push(Score::harmonic_mean(higher(name), &matches));
    }
    let roads = road_skeleton_matches(palette, made, truth, SKELETON_TOLERANCE)?;
    let name = |what: &str| format!("road {what}, {SKELETON_TOLERANCE} px");
    let (found, right) = (roads.truth_near_prediction as f64, roads.predicted_near_truth as f64);
    scores.push(Score::ratio(higher(name("completeness")), found, roads.truth as f64));
    scores.push(Score::ratio(higher(name("correctness")), right, roads.predicted as f64));
    Ok(scores)
}

/// The sum of absolute differences between neighbours. Its ratio to that of the truth tells a blurred picture, which pixel
/// scores like, from a sharp one: below 1 is smoother, above 1 is rougher.
fn edge_content(picture: &Picture) -> f64 {
    let row = 3 * picture.width() as usize;
    let samples = picture.rgb();
    let differences = |earlier: &[u8], later: &[u8]| -> u64 {
        earlier.iter().zip(later).map(|(&a, &b)| u64::from(a.abs_diff(b))).sum()
    };
    let across: u64 = samples.chunks(row).map(|row| differences(row, &row[3..])).sum();
    (across + differences(samples, &samples[row..])) as f64
}

impl Setting<'_> {
    /// What kinds of pictures there is something to say about, maps first, and whose.
    pub fn columns(&self) -> Vec<(Modality, Vec<Candidate>)> {
        let of = |target| {
            let own = self.source.candidates(target);
            let is_there = |candidate: &Candidate| match candidate {
                Candidate::Blank => true,
                Candidate::Nearest => self.training.is_some(),
                other => own.contains(other),
            };
            let candidates = Candidate::ALL.into_iter().filter(is_there).collect();
            (!own.is_empty()).then_some((target, candidates))
        };
        [Modality::Map, Modality::Satellite].into_iter().filter_map(of).collect()
    }

    /// The picture of a candidate for pair `index`.
    pub fn picture(
        &self,
        index: usize,
        pair: &Pair,
        target: Modality,
        candidate: Candidate,
    ) -> Result<Picture, EvaluateError> {
        match (candidate, self.training) {
            (Candidate::Blank, _) => Ok(blank_map(self.side, self.side, self.options.blank.of(target))),
            (Candidate::Nearest, Some(training)) => {
                training.picture(target, self.pairs, index, of_modality(pair, target.other()))
            }
            _ => self.source.picture(&pair.name, target, candidate),
        }
    }

    /// Scores everything but the metrics of [`sockets`](super::sockets).
    pub fn measure(&self, progress: ProgressMode, interrupt: &Interrupt) -> Result<Measured, EvaluateError> {
        let count = self.pairs.len();
        let mut sections: Vec<MeasuredSection> = self
            .columns()
            .into_iter()
            .map(|(target, candidates)| {
                let empty = |candidate| (candidate, Vec::with_capacity(count));
                MeasuredSection { target, columns: candidates.into_iter().map(empty).collect() }
            })
            .collect();
        // Where the scores of a pair go, in the order that they come.
        let places: Vec<(usize, usize)> = sections
            .iter()
            .enumerate()
            .flat_map(|(section, of)| (0..of.columns.len()).map(move |column| (section, column)))
            .collect();
        let mut bar = Progress::start(progress, "measured", 0, count as u64);
        for start in (0..count).step_by(CHUNK) {
            if interrupt.requested() {
                bar.finish();
                return Err(self.interrupted(start, "pictures"));
            }
            let end = (start + CHUNK).min(count);
            let one = |index: usize| self.pair(index, &sections);
            let scored: Vec<_> = (start..end).into_par_iter().map(one).collect::<Result<_, _>>()?;
            for scores in scored {
                for (&(section, column), scores) in places.iter().zip(scores) {
                    sections[section].columns[column].1.push(scores);
                }
            }
            bar.update(end as u64, (end - start) as u64, None);
        }
        bar.finish();
        let names = (0..count).map(|index| self.pairs.name(index).to_owned()).collect();
        let position = |index| self.pairs.place(index).map(|place| place.position());
        Ok(Measured { names, positions: (0..count).map(position).collect(), sections })
    }

    /// The error of an interruption after the predictions: they are as safe as before.
    pub fn interrupted(&self, done: usize, unit: &'static str) -> EvaluateError {
        let kept = self.options.predictions.is_some();
        EvaluateError::Interrupted { done, of: self.pairs.len(), unit, kept }
    }

    /// The scores of one pair, in the order of the columns of all sections.
    fn pair(&self, index: usize, sections: &[MeasuredSection]) -> Result<Vec<PictureScores>, EvaluateError> {
        let (pair, _) = square(self.pairs, index, self.side)?;
        let mut scored = Vec::new();
        for MeasuredSection { target, columns } in sections {
            let truth = of_modality(&pair, *target);
            for (candidate, _) in columns {
                let made = self.picture(index, &pair, *target, *candidate)?;
                let mut scores = measure(*target, &self.options.palette, &made, truth)?;
                if *candidate == Candidate::Model {
                    scores.scores.extend(self.of_model(&pair.name, *target)?);
                }
                scored.push(scores);
            }
        }
        Ok(scored)
    }

    /// What only a model has: samples that differ, and doubts.
    fn of_model(&self, name: &str, target: Modality) -> Result<Vec<Score>, EvaluateError> {
        let mut scores = Vec::new();
        if self.options.diversity_pictures > 0 {
            let samples = self.source.samples(name, target)?;
            let difference =
                if samples.is_empty() { None } else { Some(mean_pairwise_difference(&samples)?) };
            scores.push(Score::mean(Metric::new("diversity, RMSE", Better::Neither), difference));
        }
        let mean = |grey: Picture| {
            let sum: u64 = grey.rgb().iter().map(|&value| u64::from(value)).sum();
            sum as f64 / 255.0 / grey.rgb().len() as f64
        };
        let uncertainty = self.source.uncertainty(name, target)?.map(mean);
        scores.push(Score::mean(Metric::new("mean entropy", Better::Neither), uncertainty));
        Ok(scores)
    }
}
