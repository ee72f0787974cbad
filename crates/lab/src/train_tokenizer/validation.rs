//! What is looked at between steps: reconstructions of pictures that were not learned from.

use burn::tensor::Device;
use earthmapper::pictures::{from_tensor, to_tensor};
use earthmapper::tokenizer::MultiScaleTokenizer;
use earthmapper_geo::pairs::Pair;
use earthmapper_geo::picture::Picture;

use super::config::TokenizerTraining;
use crate::data::contact_sheet;

/// How well a tokenizer reconstructs pictures it has not seen.
pub(super) struct Report {
    psnr: [f64; 2],
    /// Share of codes used and perplexity ÷ V, per scale.
    usage: Vec<(f64, f64)>,
    dead: usize,
    pub sheet: Picture,
}

impl Report {
    pub fn psnr(&self) -> f64 {
        (self.psnr[0] + self.psnr[1]) / 2.0
    }

    pub fn numbers(&self) -> Vec<(&'static str, f64)> {
        // Names of per-scale numbers live as long as the program: there are a few dozen at most.
        let name = |what: &str, k: usize| -> &'static str { format!("{what}/{k}").leak() };
        let mut numbers = vec![
            ("validation/psnr_satellite", self.psnr[0]),
            ("validation/psnr_map", self.psnr[1]),
            ("validation/dead_codes", self.dead as f64),
        ];
        for (k, (used, perplexity)) in self.usage.iter().enumerate() {
            numbers.push((name("validation/code_use", k), *used));
            numbers.push((name("validation/code_perplexity", k), *perplexity));
        }
        numbers
    }

    pub fn line(&self, step: u64) -> String {
        let [satellite, map] = self.psnr;
        let finest = self.usage.last().map_or(0.0, |usage| usage.0);
        format!(
            "step {step}: reconstruction {satellite:.2} dB satellite, {map:.2} dB map; {} codes never used, {:.0} % \
             used at the finest scale",
            self.dead,
            100.0 * finest
        )
    }
}

/// Most validation pairs that are looked at.
pub(super) const VALIDATED: usize = 96;

/// Reconstructs validation pairs and measures PSNR and code use.
pub(super) fn validate(
    tokenizer: &MultiScaleTokenizer,
    pairs: &[Pair],
    config: &TokenizerTraining,
    device: &Device,
) -> Report {
    let vocabulary = config.tokenizer.vocabulary;
    let mut squares = [0.0f64; 2];
    let mut usage = vec![vec![0u64; vocabulary]; config.tokenizer.sides.len()];
    let mut rows = Vec::new();
    for pairs in pairs.chunks(4) {
        let pictures: Vec<Picture> =
            pairs.iter().flat_map(|pair| [pair.satellite.clone(), pair.map.clone()]).collect();
        let tokens = tokenizer.encode(to_tensor(&pictures, device)).tokens;
        let decoded = from_tensor(tokenizer.decode(&tokens));
        for (k, usage) in usage.iter_mut().enumerate() {
            tokens.usage(k, vocabulary).iter().zip(usage).for_each(|(new, sum)| *sum += new);
        }
        for (i, (before, after)) in pictures.iter().zip(&decoded).enumerate() {
            squares[i % 2] += psnr(before, after);
        }
        if rows.len() < 8 {
            let row = |i: usize| {
                vec![pictures[i].clone(), decoded[i].clone(), pictures[i + 1].clone(), decoded[i + 1].clone()]
            };
            rows.extend((0..pictures.len()).step_by(2).map(row));
        }
    }
    let never = |code: &usize| usage.iter().all(|counts| counts[*code] == 0);
    Report {
        psnr: squares.map(|sum| sum / pairs.len() as f64),
        dead: (0..vocabulary).filter(never).count(),
        usage: usage.iter().map(|counts| code_use(counts)).collect(),
        sheet: contact_sheet(&rows, 4),
    }
}

/// Share of codes that occur, and exp(entropy) ÷ V.
fn code_use(counts: &[u64]) -> (f64, f64) {
    let total: u64 = counts.iter().sum();
    let used = counts.iter().filter(|count| **count > 0).count();
    let entropy: f64 = counts
        .iter()
        .filter(|count| **count > 0)
        .map(|&count| count as f64 / total as f64)
        .map(|share| -share * share.ln())
        .sum();
    (used as f64 / counts.len() as f64, entropy.exp() / counts.len() as f64)
}

/// PSNR in dB of 8-bit pictures, at most 100.
fn psnr(a: &Picture, b: &Picture) -> f64 {
    let square: f64 = a.rgb().iter().zip(b.rgb()).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    let mean = square / a.rgb().len() as f64;
    if mean == 0.0 { 100.0 } else { (10.0 * (255.0f64.powi(2) / mean).log10()).min(100.0) }
}
