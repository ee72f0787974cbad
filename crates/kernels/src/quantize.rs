//! 32-bit floats ↔ 8-bit whole numbers.

use crate::simd::{fold, higher, lower, vectorised};

/// How a row of bytes stands for numbers: x ≈ scale · (byte − zero).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Grid {
    /// Step from one byte to the next.
    pub scale: f32,
    /// The byte that stands for 0.
    pub zero: f32,
}

vectorised! {
    /// Bytes of a row, over its own range, which always holds 0.
    pub(crate) fn quantize(row: &'a [f32], bytes: &'a mut [u8]) -> Grid {
        let most = fold(row, 0.0, higher, higher);
        let least = fold(row, 0.0, lower, lower);
        let scale = ((most - least) / 255.0).max(f32::MIN_POSITIVE);
        let inverse = 1.0 / scale;
        let zero = (-least * inverse + 0.5).floor();
        for (byte, &x) in bytes.iter_mut().zip(row) {
            // Truncation after adding one half rounds; the value is never below zero.
            *byte = higher(lower(x * inverse + zero + 0.5, 255.0), 0.0) as i32 as u8;
        }
        Grid { scale, zero }
    }
}

vectorised! {
    /// Sums of products of bytes → numbers: out = grid scale · (column scale · sum − zero · column sum) + bias. The column
    /// sums are those of the weights after scaling.
    pub(crate) fn dequantize(
        sums: &'a [i32],
        grid: Grid,
        scales: &'a [f32],
        column_sums: &'a [f32],
        bias: &'a [f32],
        out: &'a mut [f32],
    ) {
        let columns = scales.iter().zip(column_sums).zip(bias);
        for ((out, &sum), ((&scale, &column_sum), &bias)) in out.iter_mut().zip(sums).zip(columns) {
            *out = grid.scale * (scale * sum as f32 - grid.zero * column_sum) + bias;
        }
    }
}

/// Weights `[inputs, outputs]` as bytes with one scale per output: w ≈ scale · byte, |byte| ≤ `largest`.
pub(crate) fn quantize_weight(weight: &[f32], outputs: usize, largest: f32) -> (Vec<i8>, Vec<f32>) {
    let mut scales = vec![0.0f32; outputs];
    for row in weight.chunks(outputs) {
        scales.iter_mut().zip(row).for_each(|(most, w)| *most = most.max(w.abs()));
    }
    scales.iter_mut().for_each(|scale| *scale = (*scale / largest).max(f32::MIN_POSITIVE));
    let byte = |(w, scale): (&f32, &f32)| (w / scale).round().clamp(-largest, largest) as i8;
    let bytes = weight.chunks(outputs).flat_map(|row| row.iter().zip(&scales).map(byte)).collect();
    (bytes, scales)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_stand_for_the_numbers_they_came_from() {
        for row in [vec![-0.3, 0.0, 1.7, 0.9, -0.01], vec![2.0, 3.0], vec![-2.0, -3.0], vec![0.0; 40], vec![]]
        {
            let mut bytes = vec![0; row.len()];
            let grid = quantize(&row, &mut bytes);
            for (&byte, x) in bytes.iter().zip(&row) {
                let back = grid.scale * (f32::from(byte) - grid.zero);
                assert!((back - x).abs() <= 1.01 * grid.scale, "{x} became {back}");
            }
        }
    }

    #[test]
    fn weights_keep_their_size_per_output() {
        let weight = [0.5, 100.0, -1.0, 25.0, 0.0, -99.0];
        let (bytes, scales) = quantize_weight(&weight, 2, 64.0);
        for (i, w) in weight.iter().enumerate() {
            assert!((f32::from(bytes[i]) * scales[i % 2] - w).abs() <= 0.51 * scales[i % 2]);
        }
        assert!(bytes.iter().all(|byte| byte.unsigned_abs() <= 64));
    }
}
