//! A model made ready for inference on a CPU: the same layers, with weights packed once by `earthmapper-kernels`.
//!
//! There is one definition of the model, Burn's modules; what is here is made from their weights and follows their
//! functions step by step (`tokenizer/packed.rs`, `transformer/packed.rs`). `tests/packed.rs` holds both to the same tokens.

use burn::nn::conv::Conv2d;
use burn::nn::{GroupNorm, Linear};
use burn::tensor::{Device, Tensor, TensorData};
use earthmapper_kernels::{self as kernels, Convolution, Map, Window};

pub use earthmapper_kernels::Precision;

use crate::tokenizer::{MultiScaleTokenizer, PackedTokenizer};
use crate::transformer::{JointTransformer, PackedTransformer};

/// The packed layers of a whole model.
#[derive(Debug)]
pub struct Packed {
    /// The tokenizer; always in 32-bit floats, because what it finds decides everything that follows.
    pub tokenizer: PackedTokenizer,
    /// The transformer, whose linear layers have the precision asked for.
    pub transformer: PackedTransformer,
}

impl Packed {
    /// Packs a model whose weights lie in ordinary memory. The large layers are taken out of the modules, one by one, so
    /// that there is never more than one of them twice.
    pub(crate) fn new(
        tokenizer: &mut MultiScaleTokenizer,
        picture_side: usize,
        transformer: &mut JointTransformer,
        precision: Precision,
    ) -> Self {
        Self {
            tokenizer: PackedTokenizer::take(tokenizer, picture_side),
            transformer: PackedTransformer::take(transformer, precision),
        }
    }
}

/// The values of a tensor, row-major.
pub(crate) fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.try_into_vec_as::<f32>().expect("converted to 32-bit floats")
}

/// Packs a linear layer.
pub(crate) fn linear(linear: &Linear, precision: Precision) -> kernels::Linear {
    let [inputs, _] = linear.weight.dims();
    let bias = linear.bias.as_ref().map_or(Vec::new(), |bias| values(bias.val()));
    kernels::Linear::new(&values(linear.weight.val()), inputs, &bias, precision)
}

/// Packs a convolution with a bias, for maps of about the given `side`.
pub(crate) fn convolution(conv: &Conv2d, window: Window, side: usize) -> Convolution {
    let [outputs, ..] = conv.weight.dims();
    let bias = conv.bias.as_ref().map_or(vec![0.0; outputs], |bias| values(bias.val()));
    Convolution::new(&values(conv.weight.val()), &bias, window, Precision::F32, side)
}

/// A group norm.
#[derive(Debug)]
pub(crate) struct Norm {
    groups: usize,
    gain: Vec<f32>,
    shift: Vec<f32>,
    epsilon: f32,
}

impl Norm {
    pub(crate) fn new(norm: &GroupNorm) -> Self {
        let vector = |values_of: Option<Tensor<1>>, otherwise: f32| {
            values_of.map_or(vec![otherwise; norm.num_channels], values)
        };
        Self {
            groups: norm.num_groups,
            gain: vector(norm.gamma.as_ref().map(|gain| gain.val()), 1.0),
            shift: vector(norm.beta.as_ref().map(|shift| shift.val()), 0.0),
            epsilon: norm.epsilon as f32,
        }
    }

    pub(crate) fn apply(&self, map: &Map) -> Map {
        kernels::group_norm(map, self.groups, &self.gain, &self.shift, self.epsilon, false)
    }

    pub(crate) fn apply_silu(&self, map: &Map) -> Map {
        kernels::group_norm(map, self.groups, &self.gain, &self.shift, self.epsilon, true)
    }
}

/// `[batch, channels, h, w]` → the same with channels last.
pub(crate) fn to_map(tensor: Tensor<4>) -> Map {
    let shape = tensor.dims();
    Map::from_channels_first(shape, &values(tensor))
}

/// The inverse of [`to_map`].
pub(crate) fn from_map(map: &Map, device: &Device) -> Tensor<4> {
    let shape = [map.batch, map.channels, map.height, map.width];
    Tensor::from_data(TensorData::new(map.to_channels_first(), shape), device)
}
