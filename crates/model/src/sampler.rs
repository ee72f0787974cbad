//! Sampling of codes: temperature, top-k, then top-p, from a seeded generator of our own.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// What is kept of a distribution before a code is drawn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SamplerConfig {
    /// Divides the logits; above 0.
    pub temperature: f32,
    /// Keeps the `top_k` likeliest codes (and those tied with the last of them); 0 keeps all, 1 is greedy.
    pub top_k: usize,
    /// Keeps the likeliest codes until their probabilities reach `top_p`; 0 or 1 keeps all.
    pub top_p: f32,
}

impl Default for SamplerConfig {
    /// The paper's values.
    fn default() -> Self {
        Self { temperature: 1.0, top_k: 100, top_p: 0.55 }
    }
}

impl SamplerConfig {
    /// Always the likeliest code.
    pub fn greedy() -> Self {
        Self { temperature: 1.0, top_k: 1, top_p: 0.0 }
    }

    /// Turns logits into the probabilities that are sampled from: filtered codes get 0, the others sum to 1.
    pub fn probabilities(&self, logits: &[f32]) -> Vec<f32> {
        let mut logits: Vec<f32> = logits.iter().map(|logit| logit / self.temperature).collect();
        if self.top_k > 0 && self.top_k < logits.len() {
            let mut sorted = logits.clone();
            let (_, threshold, _) = sorted.select_nth_unstable_by(self.top_k - 1, |a, b| b.total_cmp(a));
            let threshold = *threshold;
            logits
                .iter_mut()
                .filter(|logit| **logit < threshold)
                .for_each(|logit| *logit = f32::NEG_INFINITY);
        }
        let mut probabilities = softmax(&logits);
        if self.top_p > 0.0 && self.top_p < 1.0 {
            let mut order: Vec<usize> = (0..logits.len()).filter(|&i| probabilities[i] > 0.0).collect();
            order.sort_by(|&a, &b| probabilities[a].total_cmp(&probabilities[b]).then(b.cmp(&a)));
            // From the unlikeliest up: what together stays within 1 − p goes; the likeliest always stays.
            let mut dropped = 0.0;
            for &i in &order[..order.len() - 1] {
                dropped += probabilities[i];
                if dropped > 1.0 - self.top_p {
                    break;
                }
                probabilities[i] = 0.0;
            }
            let total: f32 = probabilities.iter().sum();
            probabilities.iter_mut().for_each(|p| *p /= total);
        }
        probabilities
    }
}

/// Softmax of one row; −∞ gives 0.
pub fn softmax(logits: &[f32]) -> Vec<f32> {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut values: Vec<f32> = logits.iter().map(|logit| (logit - highest).exp()).collect();
    let total: f32 = values.iter().sum();
    values.iter_mut().for_each(|value| *value /= total);
    values
}

/// Entropy of a distribution in nats.
pub fn entropy(probabilities: &[f32]) -> f32 {
    -probabilities.iter().filter(|p| **p > 0.0).map(|p| p * p.ln()).sum::<f32>()
}

/// Draws codes for one picture. A seed gives the same draws whatever else is in the batch.
#[derive(Clone, Debug)]
pub struct Sampler {
    random: ChaCha8Rng,
}

impl Sampler {
    /// Draws that depend on `seed` alone.
    pub fn new(seed: u64) -> Self {
        Self { random: ChaCha8Rng::seed_from_u64(seed) }
    }

    /// Draws one code. Exactly one random number is used per draw, so that forced tokens can be skipped over without
    /// changing those that are drawn.
    pub fn draw(&mut self, probabilities: &[f32]) -> u32 {
        let target: f32 = self.random.random();
        let mut sum = 0.0;
        let mut last = 0;
        for (code, &p) in probabilities.iter().enumerate() {
            if p > 0.0 {
                sum += p;
                last = code;
                if sum > target {
                    break;
                }
            }
        }
        last as u32
    }
}

/// A seed for one part of a larger work (a tile, a window, a sample), from the seed of the whole and the part's
/// coordinates; any part can be made alone and in any order (SplitMix64 steps).
pub fn derive_seed(seed: u64, parts: &[u64]) -> u64 {
    parts.iter().fold(mix(seed), |state, part| mix(state ^ mix(*part)))
}

fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greedy_takes_the_likeliest() {
        let probabilities = SamplerConfig::greedy().probabilities(&[0.1, 2.0, -1.0]);
        assert_eq!(probabilities, vec![0.0, 1.0, 0.0]);
        assert_eq!(Sampler::new(1).draw(&probabilities), 1);
    }

    #[test]
    fn draws_follow_the_distribution_and_the_seed() {
        let probabilities = [0.5, 0.0, 0.3, 0.2];
        let draws = |seed| -> Vec<u32> {
            let mut sampler = Sampler::new(seed);
            (0..20_000).map(|_| sampler.draw(&probabilities)).collect()
        };
        let first = draws(7);
        assert_eq!(first, draws(7));
        assert_ne!(first, draws(8));
        for (code, p) in probabilities.iter().enumerate() {
            let share = first.iter().filter(|&&c| c as usize == code).count() as f32 / 20_000.0;
            assert!((share - p).abs() < 0.015, "code {code}: {share} instead of {p}");
        }
    }

    #[test]
    fn derived_seeds_differ_by_part_and_by_order() {
        assert_ne!(derive_seed(1, &[2, 3]), derive_seed(1, &[3, 2]));
        assert_ne!(derive_seed(1, &[2, 3]), derive_seed(2, &[2, 3]));
        assert_eq!(derive_seed(1, &[2, 3]), derive_seed(1, &[2, 3]));
    }
}
