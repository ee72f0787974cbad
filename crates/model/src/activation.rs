//! Activations and normalisations of inference on the CPU.
//!
//! Burn's `flex` back end takes these one value at a time, on one thread and through the C library's `exp` and `tanh`,
//! which costs several seconds of a translation with a large model. Where no gradients are wanted and the values lie in
//! ordinary memory, the functions here take them on all threads, in loops that the compiler turns into vector
//! instructions; the results differ in the last bits. Where gradients are wanted there, the layers of `learned.rs` run. On
//! every other device they are Burn's own.

use burn::nn::GroupNorm;
use burn::tensor::{DType, Device, Tensor, activation};
use rayon::prelude::*;

use crate::learned::{self, is_learned};

/// Values that one thread takes at a time: they stay in its cache.
const CHUNK: usize = 16 * 1024;

/// The exact GELU.
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    match is_learned(&x) {
        true => learned::gelu(x, false),
        false => activation::gelu(x),
    }
}

/// GELU in its tanh form.
pub fn gelu_tanh<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    // ½·(1 + tanh(y)) = σ(2y) with y = √(2/π) · (x + 0.044715·x³).
    const TWICE: f32 = 1.595_769;
    match is_plain(&x) {
        true => map(x, |x| x * sigmoid(TWICE * (x + 0.044715 * x * x * x))),
        false if is_learned(&x) => learned::gelu(x, true),
        false => activation::gelu_approximate(x),
    }
}

/// Softmax over the last dimension.
pub fn softmax_last<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if is_learned(&x) {
        return learned::softmax(x);
    }
    if !is_plain(&x) {
        return activation::softmax(x, D - 1);
    }
    let (device, width) = (x.device(), x.dims()[D - 1]);
    let mut data = x.into_data();
    let values = data.as_mut_slice::<f32>().expect("32-bit floats");
    let softmax = |row: &mut [f32]| {
        let higher = |a: f32, b: f32| if a > b { a } else { b };
        let highest = fold(row, f32::NEG_INFINITY, higher, higher);
        row.iter_mut().for_each(|x| *x = exp(*x - highest));
        let factor = 1.0 / sum(row, |x| x) as f32;
        row.iter_mut().for_each(|x| *x *= factor);
    };
    let rows = (CHUNK / width).max(1);
    values.par_chunks_mut(rows * width).for_each(|rows| rows.chunks_mut(width).for_each(softmax));
    Tensor::from_data(data, &device)
}

/// SiLU of a group norm of `[batch, channels, h, w]`.
pub fn group_norm_silu(norm: &GroupNorm, x: Tensor<4>) -> Tensor<4> {
    let (Some(gain), Some(shift)) = (&norm.gamma, &norm.beta) else {
        return activation::silu(norm.forward(x));
    };
    if is_learned(&x) {
        return learned::group_norm_silu(x, gain.val(), shift.val(), norm.num_groups, norm.epsilon as f32);
    }
    if !is_plain(&x) {
        return activation::silu(norm.forward(x));
    }
    let [_, channels, height, width] = x.dims();
    let (plane, members) = (height * width, channels / norm.num_groups);
    let gain: Vec<f32> = gain.val().try_into_vec_as().expect("32-bit floats");
    let shift: Vec<f32> = shift.val().try_into_vec_as().expect("32-bit floats");
    let device = x.device();
    let mut data = x.into_data();
    let values = data.as_mut_slice::<f32>().expect("32-bit floats");
    values.par_chunks_mut(members * plane).enumerate().for_each(|(index, group)| {
        let first = index % norm.num_groups * members;
        let count = group.len() as f64;
        let mean = (sum(group, |x| x) / count) as f32;
        let variance = sum(group, |x| (x - mean) * (x - mean)) / count;
        let scale = 1.0 / (variance + norm.epsilon).sqrt() as f32;
        for (member, plane) in group.chunks_mut(plane).enumerate() {
            let (gain, shift) = (gain[first + member] * scale, shift[first + member]);
            for x in plane {
                let y = (*x - mean) * gain + shift;
                *x = y * sigmoid(y);
            }
        }
    });
    Tensor::from_data(data, &device)
}

/// Whether the values lie in ordinary memory as 32-bit floats and need no gradient.
pub(crate) fn is_plain<const D: usize>(x: &Tensor<D>) -> bool {
    !x.is_autodiff() && x.dtype() == DType::F32 && x.device() == Device::flex()
}

/// Applies `f` to every value; in place, when nobody else holds the tensor.
fn map<const D: usize>(x: Tensor<D>, f: impl Fn(f32) -> f32 + Sync) -> Tensor<D> {
    let device = x.device();
    let mut data = x.into_data();
    let values = data.as_mut_slice::<f32>().expect("32-bit floats");
    let each = |chunk: &mut [f32]| chunk.iter_mut().for_each(|x| *x = f(*x));
    // Waking the other threads takes longer than a small chunk.
    match values.len() <= CHUNK {
        true => each(values),
        false => values.par_chunks_mut(CHUNK).for_each(each),
    }
    Tensor::from_data(data, &device)
}

/// Sum of `f` over all values, in chunks so that it stays exact.
fn sum(values: &[f32], f: impl Fn(f32) -> f32) -> f64 {
    let chunk_sum = |chunk| f64::from(fold(chunk, 0.0, |sum, x| sum + f(x), |a, b| a + b));
    values.chunks(1024).map(chunk_sum).sum()
}

/// A fold in 16 lanes, which are joined at the end: the compiler may not reorder a plain one into vectors.
fn fold(values: &[f32], start: f32, step: impl Fn(f32, f32) -> f32, join: impl Fn(f32, f32) -> f32) -> f32 {
    let (blocks, rest) = values.as_chunks::<16>();
    let mut lanes = [start; 16];
    for block in blocks {
        lanes.iter_mut().zip(block).for_each(|(lane, &x)| *lane = step(*lane, x));
    }
    let rest = rest.iter().fold(start, |state, &x| step(state, x));
    lanes.into_iter().fold(rest, join)
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// eˣ to two units in the last place, in plain arithmetic: x = n·ln 2 + r, and a polynomial of eʳ (Cephes' `expf`).
#[inline(always)]
fn exp(x: f32) -> f32 {
    // Adding 1.5 · 2²³ rounds to a whole number, which then stands in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let polynomial = ((((1.987_569_2e-4 * r + 1.398_2e-3) * r + 8.333_452e-3) * r + 4.166_579_6e-2) * r
        + 1.666_666_5e-1)
        * r
        + 0.5;
    let power = f32::from_bits((shifted.to_bits().wrapping_add(127)) << 23);
    (polynomial * r * r + r + 1.0) * power
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::nn::GroupNormConfig;
    use burn::tensor::Distribution;

    fn worst<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> f32 {
        (a - b).abs().max().into_scalar()
    }

    #[test]
    fn exp_is_that_of_the_library() {
        let error = |x: f32| ((f64::from(exp(x)) - f64::from(x).exp()) / f64::from(x).exp()).abs();
        let worst = (-8000..8000).map(|i| error(i as f32 * 0.01)).fold(0.0, f64::max);
        assert!(worst < 3e-7, "{worst}");
        assert!(exp(f32::NAN).is_nan() && exp(1000.0) > 1e38 && exp(-1000.0) < 1e-37);
    }

    #[test]
    fn everything_is_as_in_burn() {
        let x = Tensor::<4>::random([2, 12, 41, 43], Distribution::Uniform(-9.0, 9.0), &Device::flex());
        assert!(worst(gelu_tanh(x.clone()), activation::gelu_approximate(x.clone())) < 4e-6);
        let rows = x.clone().mul_scalar(5.0);
        assert!(worst(softmax_last(rows.clone()), activation::softmax(rows, 3)) < 1e-6);
        let mut norm = GroupNormConfig::new(4, 12).init(&Device::flex());
        norm.gamma = norm.gamma.map(|gain| gain.map(|x| x.add_scalar(0.5)));
        norm.beta = norm.beta.map(|shift| shift.map(|x| x.add_scalar(-0.2)));
        let shifted = x.add_scalar(30.0);
        assert!(
            worst(group_norm_silu(&norm, shifted.clone()), activation::silu(norm.forward(shifted))) < 1e-5
        );
    }

    #[test]
    fn a_shared_tensor_is_left_alone() {
        let x = Tensor::<1>::from_data([1.0f32, -2.0], &Device::flex());
        let _ = gelu_tanh(x.clone());
        assert_eq!(x.try_into_vec_as::<f32>().unwrap(), vec![1.0, -2.0]);
    }
}
