//! Which options of generation suit a model: every combination of a few, on a few pairs.
//!
//! Choose on pairs that the final numbers are not measured on, or say that you did not: the best of many combinations
//! is a little luckier than it is good.

use earthmapper::guidance::{Guidance, KeyPointForce};
use earthmapper::sampler::SamplerConfig;
use earthmapper::tokenizer::Encoding;
use earthmapper::translator::{Decode, GenerationOptions};
use earthmapper::{EarthMapper, Modality};
use earthmapper_geo::pairs::PairFolder;
use serde::{Deserialize, Serialize};

use super::bench::{Batch, Bench, Made};
use super::measure::edge_content;
use super::{EvaluateError, EvaluateOptions};
use crate::metrics::{MapScores, MapSummary};
use crate::progress::{Interrupt, Progress, ProgressMode};

/// Values to combine. An empty list stands for the value that the options have anyway.
///
/// In TOML: `guidance = ["off", { ramp = 2.0 }, { complexity = { alpha = 2.0, beta = 2.0, gamma = 2.0 } }]`,
/// `temperature = [0.8, 1.0]`, `top_k = [0, 100]`, `top_p = [0.55]`, `key_points = ["off", { sharpen = { tau = 0.7,
/// temperature = 0.5 } }]`, `decode = ["sampled", "expected-last"]`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Grid {
    /// Classifier-free guidance.
    pub guidance: Vec<Guidance>,
    /// Temperatures of sampling.
    pub temperature: Vec<f32>,
    /// How many codes are kept.
    pub top_k: Vec<usize>,
    /// How much probability is kept.
    pub top_p: Vec<f32>,
    /// Key point force.
    pub key_points: Vec<KeyPointForce>,
    /// Which embeddings are decoded.
    pub decode: Vec<Decode>,
}

impl Grid {
    /// Every combination, the last list varying fastest.
    pub fn combinations(&self, base: &GenerationOptions) -> Vec<GenerationOptions> {
        let mut all = vec![base.clone()];
        vary(&mut all, &self.guidance, |options, value| options.guidance = value);
        vary(&mut all, &self.temperature, |options, value| options.sampler.temperature = value);
        vary(&mut all, &self.top_k, |options, value| options.sampler.top_k = value);
        vary(&mut all, &self.top_p, |options, value| options.sampler.top_p = value);
        vary(&mut all, &self.key_points, |options, value| options.key_points = value);
        vary(&mut all, &self.decode, |options, value| options.decode = value);
        all
    }

    /// Checks every value.
    ///
    /// # Errors
    /// What is wrong and what would be right.
    pub fn check(&self) -> Result<(), String> {
        let positive = |value: &f32| value.is_finite() && *value > 0.0;
        let share = |value: &f32| (0.0..=1.0).contains(value);
        let guidance = |guidance: &Guidance| match guidance {
            Guidance::Off => true,
            Guidance::Constant(strength) | Guidance::Ramp(strength) => strength.is_finite(),
            Guidance::Complexity(g) => [g.alpha, g.beta, g.gamma].iter().all(|value| value.is_finite()),
        };
        let key_points = |force: &KeyPointForce| match force {
            KeyPointForce::Off => true,
            KeyPointForce::IndexAdd { tau } => share(tau),
            KeyPointForce::Attract { tau, strength } => share(tau) && strength.is_finite(),
            KeyPointForce::Sharpen { tau, temperature } => share(tau) && positive(temperature),
        };
        let checks = [
            (self.guidance.iter().all(guidance), "guidance: values must be finite"),
            (self.temperature.iter().all(positive), "temperature: values must be above 0"),
            (self.top_p.iter().all(share), "top_p: values must be between 0 and 1"),
            (
                self.key_points.iter().all(key_points),
                "key_points: tau must be between 0 and 1, temperature above 0",
            ),
        ];
        checks.into_iter().find(|(good, _)| !good).map_or(Ok(()), |(_, problem)| Err(problem.into()))
    }
}

fn vary<T: Clone>(all: &mut Vec<GenerationOptions>, values: &[T], set: impl Fn(&mut GenerationOptions, T)) {
    if values.is_empty() {
        return;
    }
    let with = |options: &GenerationOptions, value: &T| {
        let mut options = options.clone();
        set(&mut options, value.clone());
        options
    };
    *all = all.iter().flat_map(|options| values.iter().map(move |value| with(options, value))).collect();
}

/// One combination and its worth.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct GridRow {
    /// The combination.
    pub options: GenerationOptions,
    /// For maps: against the true map. For photographs: of the map made back, against the map they were made from.
    pub scores: MapSummary,
    /// Edge content of what was made ÷ that of the true pictures; the way back alone would favour smooth photographs.
    pub detail: Option<f64>,
    /// Seconds per translation, encoding left out.
    pub seconds_per_translation: f64,
}

impl GridRow {
    /// What rows are ordered by: the mean of the mean class overlap and the road F1, in [0, 1].
    pub fn worth(&self) -> f64 {
        let overlap = self.scores.mean_intersection_over_union.unwrap_or(0.0);
        (overlap + self.scores.roads.f1.unwrap_or(0.0)) / 2.0
    }
}

/// The combinations that were tried, the best first.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct GridReport {
    /// What was made.
    pub target: Modality,
    /// Pairs per combination.
    pub pairs: usize,
    /// Combinations wanted. There are fewer rows when the search was stopped.
    pub combinations: usize,
    /// The combinations done.
    pub rows: Vec<GridRow>,
}

/// Tries every combination for making `target`. The other direction keeps its own options of `options`.
///
/// When it is asked to stop it returns the combinations done so far; see [`GridReport::is_complete`].
///
/// # Errors
/// As [`evaluate`](super::evaluate), but for the interruption.
pub fn search(
    model: &EarthMapper,
    pairs: &PairFolder,
    target: Modality,
    grid: &Grid,
    options: &EvaluateOptions,
    progress: ProgressMode,
    interrupt: &Interrupt,
) -> Result<GridReport, EvaluateError> {
    let bench = Bench::new(model, options)?;
    let step = options.batch_size.max(1);
    let starts = (0..pairs.len()).step_by(step);
    let batches: Vec<Batch> = starts
        .map(|start| Batch::read(&bench, pairs, start..(start + step).min(pairs.len())))
        .collect::<Result<_, _>>()?;
    let combinations = grid.combinations(options.generation.towards(target));
    let mut report =
        GridReport { target, pairs: pairs.len(), combinations: combinations.len(), rows: Vec::new() };
    let mut bar = Progress::start(progress, "translations", 0, (combinations.len() * pairs.len()) as u64);
    for (number, combination) in combinations.into_iter().enumerate() {
        let mut generation = options.generation.clone();
        match target {
            Modality::Map => generation.to_map = combination.clone(),
            Modality::Satellite => generation.to_satellite = combination.clone(),
        }
        let mut scores = MapScores::new(options.palette.clone());
        let (mut made_edges, mut true_edges, mut seconds) = (0.0, 0.0, 0.0);
        for batch in &batches {
            if interrupt.requested() {
                bar.finish();
                return Ok(report.sorted());
            }
            let make = |encoded: &Encoding, target: Modality| -> Result<Made, EvaluateError> {
                let seeds = batch.seeds(&bench, target);
                bench.make(encoded, target, generation.towards(target), &seeds, &batch.places)
            };
            let (made, true_pictures, maps) = match target {
                Modality::Map => {
                    let made = make(&batch.encoded_photographs, target)?;
                    seconds += made.seconds;
                    (made.pictures.clone(), &batch.maps, made.pictures)
                }
                Modality::Satellite => {
                    let there = make(&batch.encoded_maps, target)?;
                    seconds += there.seconds;
                    let back = make(&bench.encode(&there.pictures), Modality::Map)?;
                    (there.pictures, &batch.photographs, back.pictures)
                }
            };
            for (i, map) in maps.iter().enumerate() {
                scores.add(map, &batch.maps[i])?;
                made_edges += edge_content(&made[i]);
                true_edges += edge_content(&true_pictures[i]);
            }
            bar.update((number * pairs.len() + batch.indices.end) as u64, maps.len() as u64, None);
        }
        let row = GridRow {
            options: combination,
            scores: scores.summary()?,
            detail: (true_edges > 0.0).then(|| made_edges / true_edges),
            seconds_per_translation: seconds / pairs.len() as f64,
        };
        bar.message(&format!("{:.3} {}", row.worth(), brief(&row.options)));
        report.rows.push(row);
    }
    bar.finish();
    Ok(report.sorted())
}

impl GridReport {
    /// Whether every combination was tried.
    pub fn is_complete(&self) -> bool {
        self.rows.len() == self.combinations
    }

    fn sorted(mut self) -> Self {
        self.rows.sort_by(|left, right| right.worth().total_cmp(&left.worth()));
        self
    }

    /// A Markdown table, the best combination first.
    pub fn table(&self) -> String {
        let mut text = String::new();
        if !self.is_complete() {
            text += &format!("Stopped after {} of {} combinations.\n\n", self.rows.len(), self.combinations);
        }
        let Some(first) = self.rows.first() else { return text };
        let classes: Vec<&str> = first.scores.classes.iter().map(|class| class.name.as_str()).collect();
        let head =
            format!("| worth | road F1 | {} | PSNR | SSIM | detail | s | options |", classes.join(" | "));
        let columns = head.matches('|').count() - 1;
        text += &format!("{head}\n{}|\n", "|---".repeat(columns));
        let number = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| format!("{value:.3}"));
        for row in &self.rows {
            let scores = &row.scores;
            let overlaps: Vec<String> =
                scores.classes.iter().map(|class| number(class.intersection_over_union)).collect();
            text += &format!(
                "| {:.3} | {} | {} | {:.2} | {:.3} | {} | {:.2} | {} |\n",
                row.worth(),
                number(scores.roads.f1),
                overlaps.join(" | "),
                scores.psnr.mean,
                scores.ssim.mean,
                number(row.detail),
                row.seconds_per_translation,
                brief(&row.options)
            );
        }
        text
    }
}

/// Options in a few words.
fn brief(options: &GenerationOptions) -> String {
    let guidance = match &options.guidance {
        Guidance::Off => "off".into(),
        Guidance::Constant(strength) => format!("constant {strength}"),
        Guidance::Ramp(scale) => format!("ramp {scale}"),
        Guidance::Complexity(g) => format!("[{}, {}, {}]", g.alpha, g.beta, g.gamma),
    };
    let key_points = match &options.key_points {
        KeyPointForce::Off => "off".into(),
        KeyPointForce::IndexAdd { tau } => format!("index-add {tau}"),
        KeyPointForce::Attract { tau, strength } => format!("attract {tau} × {strength}"),
        KeyPointForce::Sharpen { tau, temperature } => format!("sharpen {tau} at {temperature}"),
    };
    let decode = match options.decode {
        Decode::Sampled => "sampled",
        Decode::ExpectedLast => "expected-last",
        Decode::Expected => "expected",
    };
    let SamplerConfig { temperature, top_k, top_p } = options.sampler;
    format!(
        "guidance {guidance}, temperature {temperature}, top-k {top_k}, top-p {top_p}, key points {key_points}, {decode}"
    )
}
