//! Key point force, KPF (Eq. 16–19): holding the generated picture to the condition where it matters most.

use serde::{Deserialize, Serialize};

/// How the condition's key points act on the generated tokens.
///
/// τ is between 0 and 1; the higher, the fewer key points.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum KeyPointForce {
    /// No force.
    #[default]
    Off,
    /// The paper's equations to the letter: where the condition's index over V − 1 exceeds τ, the sampled index becomes
    /// clamp(q_G + q_C, 0, V − 1). It adds two *indices*, which means something only where neighbouring indices look
    /// alike; a trained codebook has no such order.
    IndexAdd {
        /// Threshold τ.
        tau: f32,
    },
    /// At key points, chosen by local contrast, logits are biased toward the codes near the expected embedding of the
    /// predicted distribution: logit_i −= strength · ‖C[i] − Σ_j p_j C[j]‖² ÷ mean squared code length.
    Attract {
        /// Threshold τ on the contrast's rank.
        tau: f32,
        /// Strength of the bias.
        strength: f32,
    },
    /// At key points, chosen by local contrast, the distribution is sharpened: logits ÷ temperature.
    Sharpen {
        /// Threshold τ on the contrast's rank.
        tau: f32,
        /// Temperature below 1.
        temperature: f32,
    },
}

/// The key points of one picture's condition at one scale.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPoints {
    selected: Vec<bool>,
}

impl KeyPoints {
    /// Positions whose normalised index q̂ = q ÷ (V − 1) exceeds τ (Eq. 16–17). With several codes per position the
    /// first counts.
    pub fn by_index(codes: &[u32], depth: usize, vocabulary: usize, tau: f32) -> Self {
        let top = (vocabulary - 1).max(1) as f32;
        Self { selected: codes.chunks(depth).map(|codes| codes[0] as f32 / top > tau).collect() }
    }

    /// Positions where the condition changes most: the rank of the mean squared distance of a position's vector to its
    /// neighbours', from 0 (flat) to 1 (strongest edge), exceeds τ.
    ///
    /// `vectors` are the condition's looked-up codes `[side², latent]`.
    pub fn by_contrast(vectors: &[f32], side: usize, latent: usize, tau: f32) -> Self {
        let at = |y: usize, x: usize| &vectors[(y * side + x) * latent..][..latent];
        let mut contrast = Vec::with_capacity(side * side);
        for y in 0..side {
            for x in 0..side {
                let (mut sum, mut count) = (0.0, 0);
                for ny in y.saturating_sub(1)..(y + 2).min(side) {
                    for nx in x.saturating_sub(1)..(x + 2).min(side) {
                        if (ny, nx) != (y, x) {
                            sum += squared_distance(at(y, x), at(ny, nx));
                            count += 1;
                        }
                    }
                }
                contrast.push(if count == 0 { 0.0 } else { sum / count as f32 });
            }
        }
        let mut order: Vec<usize> = (0..contrast.len()).collect();
        order.sort_by(|&a, &b| contrast[a].total_cmp(&contrast[b]).then(a.cmp(&b)));
        let mut selected = vec![false; contrast.len()];
        for (rank, &position) in order.iter().enumerate() {
            let relative = (rank + 1) as f32 / contrast.len() as f32;
            selected[position] = relative > tau && contrast[position] > 0.0;
        }
        Self { selected }
    }

    /// Whether `position` is a key point.
    pub fn contains(&self, position: usize) -> bool {
        self.selected[position]
    }

    /// How many key points there are.
    pub fn count(&self) -> usize {
        self.selected.iter().filter(|selected| **selected).count()
    }
}

/// The sampled index after the literal force: clamp(q_G + q_C, 0, V − 1) (Eq. 19).
pub fn index_add(generated: u32, condition: u32, vocabulary: usize) -> u32 {
    (generated + condition).min(vocabulary as u32 - 1)
}

/// Biases one row of logits toward codes near the expected embedding. `codebook` is `[vocabulary, latent]`.
pub fn attract(logits: &mut [f32], probabilities: &[f32], codebook: &[f32], latent: usize, strength: f32) {
    let mut expected = vec![0.0; latent];
    for (p, code) in probabilities.iter().zip(codebook.chunks(latent)) {
        if *p > 0.0 {
            expected.iter_mut().zip(code).for_each(|(sum, value)| *sum += p * value);
        }
    }
    let mean_length = codebook.iter().map(|v| v * v).sum::<f32>() / logits.len() as f32;
    let factor = strength / mean_length.max(f32::MIN_POSITIVE);
    for (logit, code) in logits.iter_mut().zip(codebook.chunks(latent)) {
        *logit -= factor * squared_distance(code, &expected);
    }
}

fn squared_distance(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_literal_force_follows_the_equations() {
        let points = KeyPoints::by_index(&[0, 5, 6, 9], 1, 10, 0.6);
        assert_eq!(points.selected, vec![false, false, true, true]);
        assert_eq!(index_add(3, 6, 10), 9);
        assert_eq!(index_add(8, 6, 10), 9);
        assert_eq!(index_add(1, 6, 10), 7);
    }

    #[test]
    fn contrast_finds_the_edge_and_nothing_on_a_flat_map() {
        // Left half 0, right half 1: the two middle columns are the edge.
        let vectors: Vec<f32> = (0..16).map(|i| if i % 4 < 2 { 0.0 } else { 1.0 }).collect();
        let points = KeyPoints::by_contrast(&vectors, 4, 1, 0.3);
        assert!((0..16).all(|i| points.contains(i) == matches!(i % 4, 1 | 2)), "{points:?}");
        assert_eq!(KeyPoints::by_contrast(&[2.0; 16], 4, 1, 0.0).count(), 0);
    }

    #[test]
    fn attraction_prefers_codes_near_the_expected_one() {
        let codebook = [0.0, 1.0, 10.0];
        let mut logits = vec![0.0; 3];
        attract(&mut logits, &[0.5, 0.5, 0.0], &codebook, 1, 1.0);
        assert!((logits[0] - logits[1]).abs() < 1e-6 && logits[2] < logits[0]);
    }
}
