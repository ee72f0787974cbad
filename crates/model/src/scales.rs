//! The scales of a token pyramid: sides, token ranges and the level of each token (PAPER section 1).

use std::ops::Range;

/// The sides of the token maps of one picture, from coarse to fine.
///
/// With several modalities the sequence holds, per scale, the tokens of each modality in turn (Eq. 9), so the
/// ranges here are multiplied by the number of modalities that are present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scales {
    sides: Vec<usize>,
}

impl Scales {
    /// Takes the sides from coarse to fine; the last one is the side of the feature map.
    ///
    /// # Panics
    ///
    /// When there is no side, a side is zero or the sides decrease: configurations are checked before
    /// ([`crate::config::TokenizerConfig::check`]).
    pub fn new(sides: &[usize]) -> Self {
        assert!(
            !sides.is_empty() && sides[0] > 0,
            "a pyramid needs at least one scale with a side above zero"
        );
        assert!(sides.windows(2).all(|pair| pair[0] <= pair[1]), "sides must not decrease: {sides:?}");
        Self { sides: sides.to_vec() }
    }

    /// Number of scales K.
    pub fn len(&self) -> usize {
        self.sides.len()
    }

    /// Never: a pyramid has at least one scale.
    pub fn is_empty(&self) -> bool {
        self.sides.is_empty()
    }

    /// Side of scale `k` in tokens.
    pub fn side(&self, k: usize) -> usize {
        self.sides[k]
    }

    /// All sides, coarse to fine.
    pub fn sides(&self) -> &[usize] {
        &self.sides
    }

    /// Side of the finest scale, which is the side of the feature map.
    pub fn finest(&self) -> usize {
        *self.sides.last().expect("checked in new")
    }

    /// Tokens of one picture at scale `k`.
    pub fn tokens(&self, k: usize) -> usize {
        self.sides[k] * self.sides[k]
    }

    /// Tokens of one picture over all scales.
    pub fn total(&self) -> usize {
        (0..self.len()).map(|k| self.tokens(k)).sum()
    }

    /// Where the tokens of scale `k` of one picture lie in the sequence of that picture alone.
    pub fn range(&self, k: usize) -> Range<usize> {
        let start = (0..k).map(|j| self.tokens(j)).sum();
        start..start + self.tokens(k)
    }

    /// Relative resolution ρ_k = k / (K − 1) in [0, 1] (1 when there is only one scale).
    pub fn resolution(&self, k: usize) -> f32 {
        match self.len() {
            1 => 1.0,
            n => k as f32 / (n - 1) as f32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_scales_have_680_tokens() {
        let scales = Scales::new(&[1, 2, 3, 4, 5, 6, 8, 10, 13, 16]);
        assert_eq!(scales.total(), 680);
        assert_eq!(scales.range(0), 0..1);
        assert_eq!(scales.range(9), 424..680);
        assert_eq!(scales.resolution(9), 1.0);
    }
}
