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
