//! Guidance: how conditional and unconditional predictions become the distribution that is sampled from
//! (Eq. 15–23).

mod complexity;
mod key_points;

pub use complexity::{Complexity, ComplexityGuidance};
pub use key_points::{KeyPointForce, KeyPoints, attract, index_add};

use earthmapper_kernels::entropy;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// How strong classifier-free guidance is at each scale.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Guidance {
    /// Plain conditional sampling; there is no unconditional stream.
    Off,
    /// The same strength at every scale.
    Constant(f32),
    /// VAR's ramp: 1 + t with t = scale · k / (K − 1).
    Ramp(f32),
    /// Complexity guidance (Eq. 20–23).
    Complexity(ComplexityGuidance),
}

impl Guidance {
    /// Whether the unconditional stream is needed at all.
    pub fn needs_unconditional(&self) -> bool {
        match self {
            Self::Off => false,
            Self::Constant(strength) => *strength != 1.0,
            Self::Ramp(scale) => *scale != 0.0,
            Self::Complexity(guidance) => !guidance.is_plain(),
        }
    }

    /// Strength at relative resolution `resolution` for one picture, whose conditional and unconditional logits are
    /// given row by row, `[rows, vocabulary]`. `grey_entropy` is the grey-level entropy of what has been generated so
    /// far, over 8 bits, in [0, 1]; only complexity guidance by grey levels asks for it.
    pub fn strength(
        &self,
        resolution: f32,
        conditional: &[f32],
        unconditional: &[f32],
        vocabulary: usize,
        grey_entropy: Option<f32>,
    ) -> f32 {
        match self {
            Self::Off => 1.0,
            Self::Constant(strength) => *strength,
            Self::Ramp(scale) => 1.0 + scale * resolution,
            Self::Complexity(guidance) => {
                let complexity = match (guidance.complexity, grey_entropy) {
                    (Complexity::GreyLevels, Some(grey)) => grey,
                    (Complexity::GreyLevels, None) => 0.0,
                    (Complexity::TokenEntropy, _) => {
                        // The guided distribution depends on the strength, so a first pass takes the strength
                        // of a picture without any complexity.
                        let first = guidance.strength(resolution, 0.0);
                        mean_entropy(conditional, unconditional, vocabulary, first)
                    }
                };
                guidance.strength(resolution, complexity)
            }
        }
    }
}

impl std::str::FromStr for Guidance {
    type Err = String;

    /// `off`, a complexity triple `A,B,G`, `constant:S` or `ramp:S`.
    fn from_str(text: &str) -> Result<Self, String> {
        let finite = |text: &str| {
            let value: f32 = text.trim().parse().map_err(|_| format!("{text:?} is not a number"))?;
            if value.is_finite() { Ok(value) } else { Err(format!("{text} is not finite")) }
        };
        if text == "off" {
            return Ok(Self::Off);
        }
        if let Some(strength) = text.strip_prefix("constant:") {
            return Ok(Self::Constant(finite(strength)?));
        }
        if let Some(scale) = text.strip_prefix("ramp:") {
            return Ok(Self::Ramp(finite(scale)?));
        }
        let triple: Option<Vec<f32>> = text.split(',').map(|part| finite(part).ok()).collect();
        match triple.as_deref() {
            Some(&[alpha, beta, gamma]) => Ok(Self::Complexity(ComplexityGuidance::new(alpha, beta, gamma))),
            _ => Err("use off, A,B,G, constant:S or ramp:S".into()),
        }
    }
}

/// logits = uncond + s · (cond − uncond), in place of the conditional logits.
pub fn guide(conditional: &mut [f32], unconditional: &[f32], strength: f32) {
    for (conditional, unconditional) in conditional.iter_mut().zip(unconditional) {
        *conditional = unconditional + strength * (*conditional - unconditional);
    }
}

/// Mean token entropy of the guided distribution ÷ ln V, in [0, 1].
fn mean_entropy(conditional: &[f32], unconditional: &[f32], vocabulary: usize, strength: f32) -> f32 {
    let rows = conditional.len() / vocabulary;
    let each: Vec<f32> = conditional
        .par_chunks(vocabulary)
        .zip(unconditional.par_chunks(vocabulary))
        .map(|(conditional, unconditional)| {
            let mut guided = conditional.to_vec();
            guide(&mut guided, unconditional, strength);
            entropy(&guided)
        })
        .collect();
    // Added in order, so that the sum does not depend on the threads.
    let total: f32 = each.iter().sum();
    total / rows.max(1) as f32 / (vocabulary as f32).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strength_one_leaves_the_conditional_logits() {
        let mut conditional = vec![1.0, -2.0, 0.5];
        guide(&mut conditional, &[0.0, 3.0, 1.0], 1.0);
        assert_eq!(conditional, vec![1.0, -2.0, 0.5]);
        guide(&mut conditional, &[0.0, 3.0, 1.0], 0.0);
        assert_eq!(conditional, vec![0.0, 3.0, 1.0]);
    }

    #[test]
    fn a_flat_distribution_has_entropy_one_and_a_peaked_one_none() {
        assert!((mean_entropy(&[0.0; 8], &[0.0; 8], 4, 3.0) - 1.0).abs() < 1e-6);
        assert!(mean_entropy(&[50.0, 0.0, 0.0, 0.0], &[0.0; 4], 4, 3.0) < 1e-6);
    }

    #[test]
    fn only_plain_sampling_does_without_the_unconditional_stream() {
        assert!(!Guidance::Complexity(ComplexityGuidance::new(1.0, 1.0, 1.0)).needs_unconditional());
        assert!(Guidance::Complexity(ComplexityGuidance::new(2.0, 2.0, 2.0)).needs_unconditional());
        assert!(!Guidance::Off.needs_unconditional());
    }
}
