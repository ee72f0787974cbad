//! Layers on a CPU, without a tensor library: rows of 32-bit floats go in, rows come out.
//!
//! Weights are packed once, when a layer is made, in the order that the matrix product reads them. Products come from
//! `rten-gemm`, which finds out at run time what the processor can do (AVX2, AVX-512, VNNI, NEON, …); everything else is
//! plain loops, compiled several times for the same reason (`simd.rs`). Work is spread over rayon's threads.
//!
//! - [`Linear`]: x·W + b in 32-bit floats or with 8-bit weights and activations
//! - [`Convolution`] over a [`Map`], channels last: 1 × 1, 3 × 3 by gathering or by Winograd's method
//! - [`layer_norm`], [`group_norm`], [`gelu`], [`gelu_tanh`], [`softmax`]
//! - [`KeyValues`]: attention over keys and values that grow in place
//! - `…_backward`: derivatives of the layers; [`group_norm_silu`] and [`scale_attention`] as Burn's modules lay out their values
//!
//! Every function is compared with plain loops in `tests/naive.rs`, every derivative with differences in `tests/gradients.rs`.

mod activation;
mod attention;
mod convolution;
mod gemm;
mod gradients;
mod linear;
mod map;
mod norm;
mod pages;
mod precision;
mod quantize;
mod simd;
mod winograd;

pub use activation::{entropy, gelu, gelu_tanh, silu, softmax};
pub use attention::{KeyValues, Scores};
pub use convolution::{Convolution, Window};
pub use gradients::{
    convolution_backward, gelu_backward, gelu_tanh_backward, group_norm_silu, group_norm_silu_backward,
    layer_norm_backward, scale_attention, scale_attention_backward, softmax_backward,
};
pub use linear::Linear;
pub use map::{Map, release_maps};
pub use norm::{group_norm, layer_norm};
pub use precision::{Precision, UnknownPrecision};
