//! Activations and normalisations on the CPU.
//!
//! Burn's `flex` back end takes these one value at a time, on one thread and through the C library's `exp` and `tanh`,
//! which costs several seconds of a translation with a large model. Where no gradients are wanted and the values lie in
//! ordinary memory, the kernels take them on all threads, in vector instructions; the results differ in the last bits. Where
//! gradients are wanted there, the layers of `learned.rs` run. On every other device they are Burn's own.

use burn::nn::GroupNorm;
use burn::tensor::{DType, Device, Tensor, activation};
use earthmapper_kernels as kernels;
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
    if is_learned(&x) {
        return learned::gelu(x, true);
    }
    match is_plain(&x) {
        true => in_rows(x, 1, kernels::gelu_tanh),
        false => activation::gelu_approximate(x),
    }
}

/// Softmax over the last dimension.
pub fn softmax_last<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if is_learned(&x) {
        return learned::softmax(x);
    }
    let width = x.dims()[D - 1];
    match is_plain(&x) {
        true => in_rows(x, width, |rows| kernels::softmax(rows, width)),
        false => activation::softmax(x, D - 1),
    }
}

/// SiLU of a group norm of `[batch, channels, h, w]`.
pub fn group_norm_silu(norm: &GroupNorm, x: Tensor<4>) -> Tensor<4> {
    let (Some(gain), Some(shift)) = (&norm.gamma, &norm.beta) else {
        return activation::silu(norm.forward(x));
    };
    let (groups, epsilon) = (norm.num_groups, norm.epsilon as f32);
    if is_learned(&x) {
        return learned::group_norm_silu(x, gain.val(), shift.val(), groups, epsilon);
    }
    if !is_plain(&x) {
        return activation::silu(norm.forward(x));
    }
    let [_, _, height, width] = x.dims();
    let gain: Vec<f32> = gain.val().try_into_vec_as().expect("32-bit floats");
    let shift: Vec<f32> = shift.val().try_into_vec_as().expect("32-bit floats");
    let device = x.device();
    let mut data = x.into_data();
    let values = data.as_mut_slice::<f32>().expect("32-bit floats");
    kernels::group_norm_silu(values, height * width, groups, &gain, &shift, epsilon);
    Tensor::from_data(data, &device)
}

/// Whether the values lie in ordinary memory as 32-bit floats and need no gradient.
pub(crate) fn is_plain<const D: usize>(x: &Tensor<D>) -> bool {
    !x.is_autodiff() && x.dtype() == DType::F32 && x.device() == Device::flex()
}

/// Applies `work` to pieces of whole rows of `width` values; in place, when nobody else holds the tensor.
fn in_rows<const D: usize>(x: Tensor<D>, width: usize, work: impl Fn(&mut [f32]) + Send + Sync) -> Tensor<D> {
    let device = x.device();
    let mut data = x.into_data();
    let values = data.as_mut_slice::<f32>().expect("32-bit floats");
    // Waking the other threads takes longer than a small piece.
    match values.len() <= CHUNK {
        true => work(values),
        false => values.par_chunks_mut((CHUNK / width).max(1) * width).for_each(work),
    }
    Tensor::from_data(data, &device)
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
