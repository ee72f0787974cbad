//! Activations, in place.

use crate::simd::{erf, exp, fold, higher, sigmoid, vectorised};

vectorised! {
    /// The exact GELU, x·Φ(x).
    pub fn gelu(values: &'a mut [f32]) {
        for x in values {
            *x = 0.5 * *x * (1.0 + erf(*x * std::f32::consts::FRAC_1_SQRT_2));
        }
    }
}

vectorised! {
    /// The GELU in its tanh form.
    pub fn gelu_tanh(values: &'a mut [f32]) {
        // ½·(1 + tanh(y)) = σ(2y) with y = √(2/π) · (x + 0.044715·x³).
        const TWICE: f32 = 1.595_769;
        for x in values {
            *x *= sigmoid(TWICE * (*x + 0.044715 * *x * *x * *x));
        }
    }
}

vectorised! {
    /// SiLU, x·σ(x).
    pub fn silu(values: &'a mut [f32]) {
        for x in values {
            *x *= sigmoid(*x);
        }
    }
}

vectorised! {
    /// Softmax of each row of `width` values.
    ///
    /// # Panics
    /// When `width` is 0.
    pub fn softmax(values: &'a mut [f32], width: usize) {
        for row in values.chunks_mut(width) {
            let highest = fold(row, f32::NEG_INFINITY, higher, higher);
            for x in row.iter_mut() {
                *x = exp(*x - highest);
            }
            let factor = 1.0 / fold(row, 0.0, |sum, x| sum + x, |a, b| a + b);
            for x in row.iter_mut() {
                *x *= factor;
            }
        }
    }
}

vectorised! {
    /// Entropy in nats of the softmax of one row of logits; −∞ is a probability of 0. Nothing has no entropy.
    pub fn entropy(logits: &'a [f32]) -> f32 {
        let highest = fold(logits, f32::NEG_INFINITY, higher, higher);
        if highest == f32::NEG_INFINITY {
            return 0.0;
        }
        // −Σ p·ln p = ln Z − Σ eˡ·l / Z with l counted from the highest.
        let total = fold(logits, 0.0, |sum, x| sum + exp(x - highest), |a, b| a + b);
        let weighted = |sum: f32, x: f32| {
            // Further down eˡ·l is nothing, and −∞ would make it NaN.
            let x = higher(x - highest, -80.0);
            sum + exp(x) * x
        };
        total.ln() - fold(logits, 0.0, weighted, |a, b| a + b) / total
    }
}
