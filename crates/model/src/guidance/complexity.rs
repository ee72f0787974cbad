//! Complexity guidance, CG (Eq. 20–23): strength that grows with resolution and with how undecided the model is.

use serde::{Deserialize, Serialize};

/// What the complexity C is measured on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Complexity {
    /// Mean token entropy of the guided distribution ÷ ln V.
    #[default]
    TokenEntropy,
    /// Grey-level entropy of the picture decoded so far ÷ 8 bits.
    GreyLevels,
}

/// The triple [α, β, γ]: s_k = (γ · α(ρ_k) · β(c_k))^{1/3} with α(ρ) = 1 + (α − 1)·ρ and β(c) = 1 + (β − 1)·c.
///
/// The cube root is our reading: [s, s, s] then peaks at the ordinary guidance scale s, and [1, 1, 1] is plain
/// conditional sampling, as the paper says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ComplexityGuidance {
    /// Growth with resolution.
    pub alpha: f32,
    /// Growth with complexity.
    pub beta: f32,
    /// Overall strength.
    pub gamma: f32,
    /// What complexity is measured on.
    #[serde(default)]
    pub complexity: Complexity,
}

impl ComplexityGuidance {
    /// A triple, with complexity measured on token entropy.
    pub fn new(alpha: f32, beta: f32, gamma: f32) -> Self {
        Self { alpha, beta, gamma, complexity: Complexity::default() }
    }

    /// Whether this is plain conditional sampling.
    pub fn is_plain(&self) -> bool {
        [self.alpha, self.beta, self.gamma] == [1.0; 3]
    }

    /// Strength s at `resolution` ρ and `complexity` c, both in [0, 1].
    pub fn strength(&self, resolution: f32, complexity: f32) -> f32 {
        let alpha = 1.0 + (self.alpha - 1.0) * resolution;
        let beta = 1.0 + (self.beta - 1.0) * complexity;
        (self.gamma * alpha * beta).max(0.0).cbrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_equal_triple_peaks_at_its_own_value_and_ones_are_plain() {
        assert!((ComplexityGuidance::new(8.0, 8.0, 8.0).strength(1.0, 1.0) - 8.0).abs() < 1e-5);
        assert!((ComplexityGuidance::new(8.0, 8.0, 8.0).strength(0.0, 0.0) - 2.0).abs() < 1e-5);
        let plain = ComplexityGuidance::new(1.0, 1.0, 1.0);
        assert!((0..=10).all(|i| plain.strength(i as f32 / 10.0, 0.7) == 1.0));
    }
}
