//! Derivatives of the layers, for training on a CPU. Each function takes what went into a layer and the gradient of what
//! came out of it, and gives the gradients of what went in.

use rayon::prelude::*;

use crate::activation::softmax;
use crate::attention::{QUERIES, attend};
use crate::convolution::{Convolution, Window, with_scratch};
use crate::gemm::{self, Packed, Rows};
use crate::map::Map;
use crate::precision::Precision;
use crate::simd::{erf, exp, fold, sigmoid, vectorised};

vectorised! {
    /// Of [`gelu`](crate::gelu): multiplies `gradient` by Φ(x) + x·φ(x).
    pub fn gelu_backward(x: &'a [f32], gradient: &'a mut [f32]) {
        const ROOT: f32 = 0.398_942_3; // 1 ÷ √(2π)
        for (gradient, &x) in gradient.iter_mut().zip(x) {
            let distribution = 0.5 * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2));
            *gradient *= distribution + x * ROOT * exp(-0.5 * x * x);
        }
    }
}

vectorised! {
    /// Of [`gelu_tanh`](crate::gelu_tanh), x·σ(u) with u = 2·√(2/π) · (x + 0.044715·x³): multiplies `gradient` by
    /// σ(u) + x·σ(u)·(1 − σ(u))·u′.
    pub fn gelu_tanh_backward(x: &'a [f32], gradient: &'a mut [f32]) {
        const TWICE: f32 = 1.595_769;
        for (gradient, &x) in gradient.iter_mut().zip(x) {
            let s = sigmoid(TWICE * (x + 0.044715 * x * x * x));
            *gradient *= s + x * s * (1.0 - s) * TWICE * (1.0 + 3.0 * 0.044715 * x * x);
        }
    }
}

vectorised! {
    /// Of [`softmax`](crate::softmax), from the probabilities that came out: `gradient` becomes
    /// p · (gradient − Σ p·gradient) of each row.
    ///
    /// # Panics
    /// When `width` is 0.
    pub fn softmax_backward(probabilities: &'a [f32], gradient: &'a mut [f32], width: usize) {
        for (p, gradient) in probabilities.chunks(width).zip(gradient.chunks_mut(width)) {
            for (gradient, p) in gradient.iter_mut().zip(p) {
                *gradient *= p;
            }
            let total = fold(gradient, 0.0, |sum, x| sum + x, |a, b| a + b);
            for (gradient, p) in gradient.iter_mut().zip(p) {
                *gradient -= p * total;
            }
        }
    }
}

vectorised! {
    /// Of [`layer_norm`](crate::layer_norm): `gradient` becomes that of `rows`; those of gain and shift are added to
    /// `gains` and `shifts`.
    pub fn layer_norm_backward(
        rows: &'a [f32],
        gain: &'a [f32],
        epsilon: f32,
        gradient: &'a mut [f32],
        gains: &'a mut [f32],
        shifts: &'a mut [f32],
    ) {
        let width = gain.len().max(1);
        let mut normed = vec![0.0f32; width];
        let mut products = vec![0.0f32; width];
        for (row, gradient) in rows.chunks(width).zip(gradient.chunks_mut(width)) {
            let count = row.len() as f32;
            let mean = fold(row, 0.0, |sum, x| sum + x, |a, b| a + b) / count;
            let square = |sum: f32, x: f32| sum + (x - mean) * (x - mean);
            let scale = 1.0 / (fold(row, 0.0, square, |a, b| a + b) / count + epsilon).sqrt();
            for (normed, x) in normed.iter_mut().zip(row) {
                *normed = (x - mean) * scale;
            }
            let vectors = gains.iter_mut().zip(shifts.iter_mut()).zip(gradient.iter().zip(&normed));
            for ((gains, shifts), (gradient, normed)) in vectors {
                *gains += gradient * normed;
                *shifts += gradient;
            }
            let vectors = gradient.iter_mut().zip(gain).zip(products.iter_mut().zip(&normed));
            for ((gradient, gain), (product, normed)) in vectors {
                *gradient *= 1.0 + gain;
                *product = *gradient * normed;
            }
            let sum = fold(gradient, 0.0, |sum, x| sum + x, |a, b| a + b) / count;
            let along = fold(&products, 0.0, |sum, x| sum + x, |a, b| a + b) / count;
            for (gradient, normed) in gradient.iter_mut().zip(&normed) {
                *gradient = scale * (*gradient - sum - normed * along);
            }
        }
    }
}

/// SiLU of a group norm of channels-first maps, `[batch, channels, plane]`, in place.
///
/// # Panics
/// When the sizes do not fit.
pub fn group_norm_silu(
    values: &mut [f32],
    plane: usize,
    groups: usize,
    gain: &[f32],
    shift: &[f32],
    epsilon: f32,
) {
    let members = members(values, plane, groups, gain, shift);
    if values.is_empty() {
        return;
    }
    values.par_chunks_mut(members * plane).enumerate().for_each(|(index, group)| {
        let first = index % groups * members;
        let (mean, scale) = moments(group, epsilon);
        for (member, plane) in group.chunks_mut(plane).enumerate() {
            norm_silu(plane, mean, scale * gain[first + member], shift[first + member]);
        }
    });
}

/// Of [`group_norm_silu`]: the gradients of x, gain and shift.
///
/// # Panics
/// When the sizes do not fit.
pub fn group_norm_silu_backward(
    x: &[f32],
    plane: usize,
    groups: usize,
    gain: &[f32],
    shift: &[f32],
    epsilon: f32,
    gradient: &[f32],
) -> [Vec<f32>; 3] {
    let members = members(x, plane, groups, gain, shift);
    assert_eq!(x.len(), gradient.len(), "a gradient for each value");
    let mut out = gradient.to_vec();
    let (mut gains, mut shifts) = (vec![0.0; gain.len()], vec![0.0; gain.len()]);
    if x.is_empty() {
        return [out, gains, shifts];
    }
    let size = members * plane;
    let sums: Vec<Vec<(f64, f64)>> = out
        .par_chunks_mut(size)
        .zip(x.par_chunks(size))
        .enumerate()
        .map(|(index, (gradient, x))| {
            let first = index % groups * members;
            let (mean, scale) = moments(x, epsilon);
            let mut sums = Vec::with_capacity(members);
            let (mut sum, mut along) = (0.0, 0.0);
            for (member, (gradient, x)) in gradient.chunks_mut(plane).zip(x.chunks(plane)).enumerate() {
                let (gain, shift) = (gain[first + member], shift[first + member]);
                let (mut own, mut own_along) = (0.0, 0.0);
                for (gradient, x) in gradient.chunks_mut(PIECE).zip(x.chunks(PIECE)) {
                    let piece = silu_backward(x, mean, scale, gain, shift, gradient);
                    own += f64::from(piece.0);
                    own_along += f64::from(piece.1);
                }
                sum += own * f64::from(gain);
                along += own_along * f64::from(gain);
                sums.push((own_along, own));
            }
            let count = x.len() as f64;
            let (sum, along) = ((sum / count) as f32, (along / count) as f32);
            for (member, (gradient, x)) in gradient.chunks_mut(plane).zip(x.chunks(plane)).enumerate() {
                norm_backward(x, mean, scale, gain[first + member], sum, along, gradient);
            }
            sums
        })
        .collect();
    // In the order of the pictures, whoever was first.
    for (index, sums) in sums.iter().enumerate() {
        let first = index % groups * members;
        for (member, sums) in sums.iter().enumerate() {
            gains[first + member] += sums.0 as f32;
            shifts[first + member] += sums.1 as f32;
        }
    }
    [out, gains, shifts]
}

/// Channels of a group.
fn members(x: &[f32], plane: usize, groups: usize, gain: &[f32], shift: &[f32]) -> usize {
    let channels = gain.len();
    assert!(groups > 0 && channels.is_multiple_of(groups), "{groups} groups of {channels} channels");
    assert!(shift.len() == channels && x.len().is_multiple_of((channels * plane).max(1)), "whole maps");
    channels / groups
}

/// Values that are summed in 32 bits before the sums are added in 64.
const PIECE: usize = 1024;

/// Mean and 1 ÷ deviation.
fn moments(values: &[f32], epsilon: f32) -> (f32, f32) {
    let count = values.len() as f64;
    let total = |pivot: f32, squared: bool| -> f64 {
        values.chunks(PIECE).map(|values| f64::from(differences(values, pivot, squared))).sum()
    };
    let mean = (total(0.0, false) / count) as f32;
    let variance = total(mean, true) / count;
    (mean, (1.0 / (variance + f64::from(epsilon)).sqrt()) as f32)
}

vectorised! {
    fn differences(values: &'a [f32], pivot: f32, squared: bool) -> f32 {
        match squared {
            true => fold(values, 0.0, |sum, x| sum + (x - pivot) * (x - pivot), |a, b| a + b),
            false => fold(values, 0.0, |sum, x| sum + (x - pivot), |a, b| a + b),
        }
    }
}

vectorised! {
    fn norm_silu(values: &'a mut [f32], mean: f32, gain: f32, shift: f32) {
        for x in values {
            let y = (*x - mean) * gain + shift;
            *x = y * sigmoid(y);
        }
    }
}

vectorised! {
    /// Takes a gradient back through SiLU; gives its sum, and its sum along the normed values.
    fn silu_backward(
        x: &'a [f32],
        mean: f32,
        scale: f32,
        gain: f32,
        shift: f32,
        gradient: &'a mut [f32],
    ) -> (f32, f32) {
        let mut products = [0.0f32; PIECE];
        for ((gradient, product), x) in gradient.iter_mut().zip(&mut products).zip(x) {
            let normed = (x - mean) * scale;
            let y = normed * gain + shift;
            let s = sigmoid(y);
            *gradient *= s + y * s * (1.0 - s);
            *product = *gradient * normed;
        }
        let sum = fold(gradient, 0.0, |sum, x| sum + x, |a, b| a + b);
        (sum, fold(&products[..x.len()], 0.0, |sum, x| sum + x, |a, b| a + b))
    }
}

vectorised! {
    fn norm_backward(
        x: &'a [f32],
        mean: f32,
        scale: f32,
        gain: f32,
        sum: f32,
        along: f32,
        gradient: &'a mut [f32],
    ) {
        for (gradient, x) in gradient.iter_mut().zip(x) {
            *gradient = scale * (*gradient * gain - sum - (x - mean) * scale * along);
        }
    }
}

/// softmax(q·kᵀ)·v of sequences whose tokens come in scales: a token sees those of its own and of all earlier scales.
///
/// Scaled queries, keys and values `[n, tokens, width]` → the same shape; `ends` are the ends of the scales.
///
/// # Panics
/// When the sizes do not fit.
pub fn scale_attention(query: &[f32], key: &[f32], value: &[f32], ends: &[usize], width: usize) -> Vec<f32> {
    let size = ends.last().copied().unwrap_or(0) * width;
    if size == 0 {
        return Vec::new();
    }
    assert!(
        query.len() == key.len() && key.len() == value.len() && key.len().is_multiple_of(size),
        "whole sequences"
    );
    let mut out = vec![0.0; query.len()];
    let sequences = query.par_chunks(size).zip(key.par_chunks(size)).zip(value.par_chunks(size));
    out.par_chunks_mut(size).zip(sequences).for_each(|(out, ((query, key), value))| {
        let mut start = 0;
        for end in ends.iter().map(|end| end * width) {
            out[start..end].copy_from_slice(&attend(&query[start..end], &key[..end], &value[..end], width));
            start = end;
        }
    });
    out
}

/// Of [`scale_attention`]: the gradients of queries, keys and values.
///
/// # Panics
/// When the sizes do not fit.
pub fn scale_attention_backward(
    query: &[f32],
    key: &[f32],
    value: &[f32],
    ends: &[usize],
    width: usize,
    gradient: &[f32],
) -> [Vec<f32>; 3] {
    let mut out: [Vec<f32>; 3] = std::array::from_fn(|_| vec![0.0; query.len()]);
    let size = ends.last().copied().unwrap_or(0) * width;
    if size == 0 {
        return out;
    }
    assert!(gradient.len() == query.len() && query.len().is_multiple_of(size), "whole sequences");
    let [queries, keys, values] = &mut out;
    let inputs = query.par_chunks(size).zip(key.par_chunks(size)).zip(value.par_chunks(size));
    let outputs =
        queries.par_chunks_mut(size).zip(keys.par_chunks_mut(size)).zip(values.par_chunks_mut(size));
    let sequences = inputs.zip(gradient.par_chunks(size)).zip(outputs);
    sequences.for_each(|((((query, key), value), gradient), ((queries, keys), values))| {
        let mut start = 0;
        for end in ends.iter().map(|end| end * width) {
            let (keys, values) = (&mut keys[..end], &mut values[..end]);
            let range = start..end;
            attend_backward(
                [&query[range.clone()], &key[..end], &value[..end], &gradient[range.clone()]],
                width,
                [&mut queries[range], keys, values],
            );
            start = end;
        }
    });
    out
}

/// Of [`attend`], from queries, keys, values and gradient: fills the queries' gradient and adds to the others.
fn attend_backward(
    [query, key, value, gradient]: [&[f32]; 4],
    width: usize,
    [queries, keys, values]: [&mut [f32]; 3],
) {
    let tokens = key.len() / width;
    let keys_across = gemm::pack_transposed(Rows::dense(key, width));
    let keys_along = gemm::pack(Rows::dense(key, width));
    let values_across = gemm::pack_transposed(Rows::dense(value, width));
    let size = QUERIES * width;
    let rows = query.chunks(size).zip(gradient.chunks(size)).zip(queries.chunks_mut(size));
    let mut both = vec![0.0; 2 * QUERIES.min(query.len() / width) * tokens];
    for ((query, gradient), queries) in rows {
        let count = query.len() / width * tokens;
        let (probabilities, scores) = both[..2 * count].split_at_mut(count);
        gemm::product(probabilities, Rows::dense(query, width), &keys_across, None, false);
        softmax(probabilities, tokens);
        gemm::product_transposed(
            values,
            Rows::dense(probabilities, tokens),
            &gemm::pack(Rows::dense(gradient, width)),
        );
        gemm::product(scores, Rows::dense(gradient, width), &values_across, None, false);
        softmax_backward(probabilities, scores, tokens);
        gemm::product(queries, Rows::dense(scores, tokens), &keys_along, None, false);
        gemm::product_transposed(keys, Rows::dense(scores, tokens), &gemm::pack(Rows::dense(query, width)));
    }
}

/// Positions of a map whose products are taken together.
const POSITIONS: usize = 512;

/// Of a 3 × 3 [`Convolution`] that keeps the side, with `weight` `[outputs, inputs, 3, 3]`: the gradients of the map (if
/// `map_too`), the weight and the bias.
///
/// # Panics
/// When the shapes do not fit.
pub fn convolution_backward(
    map: &Map,
    weight: &[f32],
    gradient: &Map,
    map_too: bool,
) -> (Option<Map>, Vec<f32>, Vec<f32>) {
    let (inputs, outputs) = (map.channels, gradient.channels);
    assert_eq!(weight.len(), 9 * inputs * outputs, "a 3 × 3 kernel per input and output");
    assert_eq!(
        (map.batch, map.height, map.width),
        (gradient.batch, gradient.height, gradient.width),
        "a gradient for each position"
    );
    let back = map_too.then(|| {
        // The gradient goes back along the same paths: inputs and outputs change places, and the window is turned.
        let mut turned = vec![0.0; weight.len()];
        for (output, weight) in weight.chunks(9 * inputs).enumerate() {
            for (input, weight) in weight.chunks(9).enumerate() {
                let turned = &mut turned[(input * outputs + output) * 9..][..9];
                turned.iter_mut().zip(weight.iter().rev()).for_each(|(turned, w)| *turned = *w);
            }
        }
        let side = map.height.min(map.width);
        let bias = vec![0.0; inputs];
        Convolution::new(&turned, &bias, Window::same(3), Precision::F32, side).apply(gradient, None)
    });
    let mut bias = vec![0.0f64; outputs];
    for values in gradient.values.chunks(outputs.max(1)) {
        bias.iter_mut().zip(values).for_each(|(sum, x)| *sum += f64::from(*x));
    }
    (back, weight_gradient(map, gradient), bias.iter().map(|&sum| sum as f32).collect())
}

/// Per tap the sum over all positions of what lay under it times the gradient there: `[outputs, inputs, 3, 3]`.
fn weight_gradient(map: &Map, gradient: &Map) -> Vec<f32> {
    let (inputs, outputs) = (map.channels, gradient.channels);
    let pieces: Vec<Packed<f32>> = gradient
        .values
        .par_chunks(POSITIONS * outputs)
        .map(|values| gemm::pack(Rows::dense(values, outputs)))
        .collect();
    let taps: Vec<Vec<f32>> = (0..9)
        .into_par_iter()
        .map(|tap| {
            let mut sum = vec![0.0; inputs * outputs];
            for (piece, packed) in pieces.iter().enumerate() {
                let first = piece * POSITIONS;
                let count = POSITIONS.min(map.batch * map.height * map.width - first);
                with_scratch(count * inputs, |rows| {
                    under_tap(map, tap, first, rows);
                    gemm::product_transposed(&mut sum, Rows::dense(rows, inputs), packed);
                });
            }
            sum
        })
        .collect();
    let mut weight = vec![0.0; 9 * inputs * outputs];
    for (tap, sum) in taps.iter().enumerate() {
        for (input, sum) in sum.chunks(outputs).enumerate() {
            for (output, &value) in sum.iter().enumerate() {
                weight[(output * inputs + input) * 9 + tap] = value;
            }
        }
    }
    weight
}

/// What lies under a tap of a 3 × 3 window at each position from `first` on, `[positions, channels]`.
fn under_tap(map: &Map, tap: usize, first: usize, rows: &mut [f32]) {
    let (height, width, channels) = (map.height, map.width, map.channels);
    for (i, row) in rows.chunks_mut(channels).enumerate() {
        let at = first + i;
        let (picture, y, x) = (at / (height * width), at / width % height, at % width);
        let (y, x) = (y + tap / 3, x + tap % 3);
        match (1..=height).contains(&y) && (1..=width).contains(&x) {
            true => {
                let start = ((picture * height + y - 1) * width + x - 1) * channels;
                row.copy_from_slice(&map.values[start..start + channels]);
            }
            false => row.fill(0.0),
        }
    }
}
