//! Which numbers of a point the tables and plots show.

use earthmapper::Modality;
use serde::{Deserialize, Serialize};

use super::settings::{Measures, Settings, Toward};
use crate::evaluate::Candidate;
use crate::evaluate::score::Better;

/// A number that every point has: a metric of an evaluation, or a fact about the point.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Column {
    /// Name of the metric, as in `evaluation.json`, such as `road F1, 2 px`; or of the fact.
    pub metric: String,
    /// Whose section it stands in; none for a fact.
    #[serde(default)]
    pub of: Option<Modality>,
    /// Whose number.
    #[serde(default = "model")]
    pub candidate: Candidate,
    /// Heading; the metric's name when not given.
    #[serde(default)]
    pub heading: Option<String>,
}

fn model() -> Candidate {
    Candidate::Model
}

/// Bits of one picture's tokens: their number times the depth times log₂ of the vocabulary.
pub const BITS: &str = "bits per picture";
/// Share of the codebook that occurs in the tokens of the measured pictures.
pub const CODES_USED: &str = "codes used";
/// Seconds that the trainings took.
pub const TRAINING_SECONDS: &str = "training (s)";
/// Steps of the last training.
pub const STEPS: &str = "steps";

impl Column {
    /// A metric.
    pub fn new(of: Modality, candidate: Candidate, metric: &str, heading: &str) -> Self {
        let heading = (heading != metric).then(|| heading.to_owned());
        Self { metric: metric.into(), of: Some(of), candidate, heading }
    }

    /// A fact about a point.
    pub fn fact(name: &str) -> Self {
        Self { metric: name.into(), of: None, candidate: Candidate::Model, heading: None }
    }

    /// Its heading.
    pub fn heading(&self) -> &str {
        self.heading.as_deref().unwrap_or(&self.metric)
    }

    /// Digits after the point.
    pub fn digits(&self) -> usize {
        match self.metric.as_str() {
            BITS | TRAINING_SECONDS | STEPS => 0,
            metric if metric.starts_with("PSNR") => 2,
            metric if metric.starts_with("FID") => 2,
            metric if metric.starts_with("RMSE") || metric.starts_with("diversity") => 4,
            _ => 3,
        }
    }

    /// Which way it is good on a front: of samples that differ, more is wanted.
    pub fn better(&self, recorded: Option<Better>) -> Better {
        match self.metric.as_str() {
            BITS | TRAINING_SECONDS => Better::Lower,
            metric if metric.starts_with("diversity") => Better::Higher,
            _ => recorded.unwrap_or(Better::Higher),
        }
    }
}

/// The usual numbers of what a sweep measures, the most telling first.
pub fn usual(settings: &Settings) -> Vec<Column> {
    use Candidate::{Ceiling, Cycle, Model};
    use Modality::{Map, Satellite};
    if settings.measures() == Measures::Tokenizer {
        return vec![
            Column::new(Map, Ceiling, "PSNR (dB)", "map PSNR (dB)"),
            Column::new(Map, Ceiling, "road F1, 2 px", "road F1, 2 px"),
            Column::new(Map, Ceiling, "IoU mean", "IoU mean"),
            Column::new(Satellite, Ceiling, "PSNR (dB)", "photo PSNR (dB)"),
            Column::new(Satellite, Ceiling, "SSIM", "photo SSIM"),
            Column::new(Satellite, Ceiling, "detail", "photo detail"),
            Column::fact(BITS),
            Column::fact(CODES_USED),
        ];
    }
    let mut columns = Vec::new();
    if settings.evaluate.to != Toward::Satellite {
        columns.extend([
            Column::new(Map, Model, "road F1, 2 px", "road F1, 2 px"),
            Column::new(Map, Model, "IoU mean", "IoU mean"),
            Column::new(Map, Model, "SSIM", "SSIM"),
            Column::new(Map, Model, "PSNR (dB)", "PSNR (dB)"),
            Column::new(Map, Model, "RMSE", "RMSE"),
            Column::new(Map, Model, "detail", "detail"),
            Column::new(Map, Model, "diversity, RMSE", "diversity, RMSE"),
        ]);
    }
    if settings.evaluate.to != Toward::Map {
        columns.extend([
            Column::new(Map, Cycle, "road F1, 2 px", "road F1 read back"),
            Column::new(Map, Cycle, "IoU mean", "IoU read back"),
            Column::new(Satellite, Model, "SSIM", "photo SSIM"),
            Column::new(Satellite, Model, "PSNR (dB)", "photo PSNR (dB)"),
            Column::new(Satellite, Model, "detail", "photo detail"),
            Column::new(Satellite, Model, "diversity, RMSE", "photo diversity, RMSE"),
        ]);
        if settings.evaluate.inception.is_some() {
            columns.extend(["FID", "KID"].map(|metric| Column::new(Satellite, Model, metric, metric)));
        }
    }
    columns
}
