//! Layers of training on the CPU, with derivatives of their own.
//!
//! Burn's modules define the model; where gradients are wanted and the values lie in ordinary memory, the functions that
//! they call come here instead of to Burn's operations: a layer is then one step of the graph instead of five to ten, and
//! runs on the kernels of inference and their derivatives (`earthmapper_kernels`). On every other device, and in 16 bits,
//! training runs on Burn's own operations. Both give the same gradients up to rounding.

use std::fmt::Debug;
use std::sync::Arc;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::{DType, Device, Tensor, TensorData};
use earthmapper_kernels::{self as kernels, Map};
use rayon::prelude::*;

/// Whether a layer of `x` is learned here.
pub(crate) fn is_learned<const D: usize>(x: &Tensor<D>) -> bool {
    x.is_autodiff() && x.dtype() == DType::F32 && x.device().without_autodiff() == Device::flex()
}

/// GELU, exact or in its tanh form.
pub(crate) fn gelu<const D: usize>(x: Tensor<D>, tanh: bool) -> Tensor<D> {
    of_one(x, Gelu { tanh })
}

/// Softmax over the last dimension.
pub(crate) fn softmax<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    of_one(x, Softmax)
}

/// Layer norm of `[batch, tokens, width]`, then (1 + scale) · x + shift with vectors `[batch, 1, width]`.
pub(crate) fn modulated_norm(x: Tensor<3>, scale: Tensor<3>, shift: Tensor<3>, epsilon: f32) -> Tensor<3> {
    of_three(x, scale, shift, ModulatedNorm { epsilon })
}

/// SiLU of a group norm of `[batch, channels, h, w]`.
pub(crate) fn group_norm_silu(
    x: Tensor<4>,
    gain: Tensor<1>,
    shift: Tensor<1>,
    groups: usize,
    epsilon: f32,
) -> Tensor<4> {
    of_three(x, gain, shift, GroupNormSilu { groups, epsilon })
}

/// A 3 × 3 convolution of `[batch, inputs, h, w]` with zeros around the maps, `weight` `[outputs, inputs, 3, 3]`.
pub(crate) fn convolution(x: Tensor<4>, weight: Tensor<4>, bias: Tensor<1>) -> Tensor<4> {
    of_three(x, weight, bias, Convolution)
}

/// softmax(q·kᵀ)·v of `[batch, heads, tokens, head width]`, where a token sees those of its own and of all earlier scales.
pub(crate) fn scale_attention(
    query: Tensor<4>,
    key: Tensor<4>,
    value: Tensor<4>,
    ends: &[usize],
) -> Tensor<4> {
    of_three(query, key, value, ScaleAttention { ends: ends.to_vec() })
}

/// A layer of N inputs on the host.
trait Layer<const N: usize>: Debug + Send + Sync + 'static {
    /// What comes out, of the first input's rank.
    fn forward(&self, inputs: [Host; N]) -> (Vec<usize>, Vec<f32>);

    /// The gradients of the inputs, at least of those that are `wanted`.
    fn backward(
        &self,
        inputs: [Host; N],
        output: Host,
        gradient: Host,
        wanted: [bool; N],
    ) -> [Option<Vec<f32>>; N];
}

/// Values in ordinary memory, row-major.
#[derive(Clone, Copy)]
struct Host<'a> {
    shape: &'a [usize],
    values: &'a [f32],
}

/// Goes through the values in pieces of whole rows of `width`, on all threads.
fn in_pieces(values: &mut [f32], others: &[f32], width: usize, work: impl Fn(&mut [f32], &[f32]) + Sync) {
    let size = (PIECE / width.max(1)).max(1) * width.max(1);
    values
        .par_chunks_mut(size)
        .zip(others.par_chunks(size))
        .for_each(|(values, others)| work(values, others));
}

/// Values that one thread takes at a time: they stay in its cache.
const PIECE: usize = 16 * 1024;

#[derive(Debug)]
struct Gelu {
    tanh: bool,
}

impl Layer<1> for Gelu {
    fn forward(&self, [x]: [Host; 1]) -> (Vec<usize>, Vec<f32>) {
        let mut out = x.values.to_vec();
        let gelu = if self.tanh { kernels::gelu_tanh } else { kernels::gelu };
        out.par_chunks_mut(PIECE).for_each(gelu);
        (x.shape.to_vec(), out)
    }

    fn backward(&self, [x]: [Host; 1], _: Host, gradient: Host, _: [bool; 1]) -> [Option<Vec<f32>>; 1] {
        let mut out = gradient.values.to_vec();
        let backward = if self.tanh { kernels::gelu_tanh_backward } else { kernels::gelu_backward };
        in_pieces(&mut out, x.values, 1, |out, x| backward(x, out));
        [Some(out)]
    }
}

#[derive(Debug)]
struct Softmax;

impl Layer<1> for Softmax {
    fn forward(&self, [x]: [Host; 1]) -> (Vec<usize>, Vec<f32>) {
        let mut out = x.values.to_vec();
        let width = x.shape[x.shape.len() - 1];
        in_pieces(&mut out, x.values, width, |out, _| kernels::softmax(out, width));
        (x.shape.to_vec(), out)
    }

    fn backward(&self, [x]: [Host; 1], output: Host, gradient: Host, _: [bool; 1]) -> [Option<Vec<f32>>; 1] {
        let mut out = gradient.values.to_vec();
        let width = x.shape[x.shape.len() - 1];
        in_pieces(&mut out, output.values, width, |out, p| kernels::softmax_backward(p, out, width));
        [Some(out)]
    }
}

#[derive(Debug)]
struct ModulatedNorm {
    epsilon: f32,
}

impl Layer<3> for ModulatedNorm {
    fn forward(&self, [x, scale, shift]: [Host; 3]) -> (Vec<usize>, Vec<f32>) {
        let (mut out, width) = (vec![0.0; x.values.len()], x.shape[2]);
        let size = x.shape[1] * width;
        let vectors = scale.values.par_chunks(width).zip(shift.values.par_chunks(width));
        let pictures = out.par_chunks_mut(size.max(1)).zip(x.values.par_chunks(size.max(1))).zip(vectors);
        pictures
            .for_each(|((out, x), (scale, shift))| kernels::layer_norm(x, scale, shift, self.epsilon, out));
        (x.shape.to_vec(), out)
    }

    fn backward(
        &self,
        [x, scale, _]: [Host; 3],
        _: Host,
        gradient: Host,
        _: [bool; 3],
    ) -> [Option<Vec<f32>>; 3] {
        let (mut out, width) = (gradient.values.to_vec(), x.shape[2]);
        let (mut scales, mut shifts) = (vec![0.0; scale.values.len()], vec![0.0; scale.values.len()]);
        let size = x.shape[1] * width;
        let vectors = scale
            .values
            .par_chunks(width)
            .zip(scales.par_chunks_mut(width))
            .zip(shifts.par_chunks_mut(width));
        let pictures = out.par_chunks_mut(size.max(1)).zip(x.values.par_chunks(size.max(1))).zip(vectors);
        pictures.for_each(|((out, x), ((scale, scales), shifts))| {
            kernels::layer_norm_backward(x, scale, self.epsilon, out, scales, shifts);
        });
        [Some(out), Some(scales), Some(shifts)]
    }
}

#[derive(Debug)]
struct GroupNormSilu {
    groups: usize,
    epsilon: f32,
}

impl Layer<3> for GroupNormSilu {
    fn forward(&self, [x, gain, shift]: [Host; 3]) -> (Vec<usize>, Vec<f32>) {
        let (mut out, plane) = (x.values.to_vec(), x.shape[2] * x.shape[3]);
        kernels::group_norm_silu(&mut out, plane, self.groups, gain.values, shift.values, self.epsilon);
        (x.shape.to_vec(), out)
    }

    fn backward(
        &self,
        [x, gain, shift]: [Host; 3],
        _: Host,
        gradient: Host,
        _: [bool; 3],
    ) -> [Option<Vec<f32>>; 3] {
        let plane = x.shape[2] * x.shape[3];
        kernels::group_norm_silu_backward(
            x.values,
            plane,
            self.groups,
            gain.values,
            shift.values,
            self.epsilon,
            gradient.values,
        )
        .map(Some)
    }
}

#[derive(Debug)]
struct Convolution;

fn to_map(host: Host) -> Map {
    Map::from_channels_first(host.shape.try_into().expect("four dimensions"), host.values)
}

impl Layer<3> for Convolution {
    fn forward(&self, [x, weight, bias]: [Host; 3]) -> (Vec<usize>, Vec<f32>) {
        let &[batch, _, height, width] = x.shape else { unreachable!("four dimensions") };
        let window = kernels::Window::same(3);
        let side = height.min(width);
        let layer =
            kernels::Convolution::new(weight.values, bias.values, window, kernels::Precision::F32, side);
        let out = layer.apply(&to_map(x), None);
        (vec![batch, bias.values.len(), height, width], out.to_channels_first())
    }

    fn backward(
        &self,
        [x, weight, _]: [Host; 3],
        _: Host,
        gradient: Host,
        wanted: [bool; 3],
    ) -> [Option<Vec<f32>>; 3] {
        let (back, weight, bias) =
            kernels::convolution_backward(&to_map(x), weight.values, &to_map(gradient), wanted[0]);
        [back.map(|map| map.to_channels_first()), Some(weight), Some(bias)]
    }
}

#[derive(Debug)]
struct ScaleAttention {
    ends: Vec<usize>,
}

impl Layer<3> for ScaleAttention {
    fn forward(&self, [query, key, value]: [Host; 3]) -> (Vec<usize>, Vec<f32>) {
        let width = query.shape[3];
        let out = kernels::scale_attention(query.values, key.values, value.values, &self.ends, width);
        (query.shape.to_vec(), out)
    }

    fn backward(
        &self,
        [query, key, value]: [Host; 3],
        _: Host,
        gradient: Host,
        _: [bool; 3],
    ) -> [Option<Vec<f32>>; 3] {
        let (width, gradient) = (query.shape[3], gradient.values);
        kernels::scale_attention_backward(query.values, key.values, value.values, &self.ends, width, gradient)
            .map(Some)
    }
}

fn of_one<const D: usize>(x: Tensor<D>, layer: impl Layer<1>) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as Layers>::of_one(x.into_dispatch(), Arc::new(layer)))
}

fn of_three<const A: usize, const B: usize, const C: usize>(
    a: Tensor<A>,
    b: Tensor<B>,
    c: Tensor<C>,
    layer: impl Layer<3>,
) -> Tensor<A> {
    let [a, b, c] = [a.into_dispatch(), b.into_dispatch(), c.into_dispatch()];
    Tensor::from_dispatch(<Dispatch as Layers>::of_three(a, b, c, Arc::new(layer)))
}

type SharedLayer<const N: usize> = Arc<dyn Layer<N>>;

/// The layers as operations of a back end.
#[backend_extension(Flex, Autodiff)]
trait Layers: Backend {
    fn of_one(x: FloatTensor<Self>, layer: SharedLayer<1>) -> FloatTensor<Self>;
    fn of_three(
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        c: FloatTensor<Self>,
        layer: SharedLayer<3>,
    ) -> FloatTensor<Self>;
}

impl Layers for Flex {
    fn of_one(x: FlexTensor, layer: SharedLayer<1>) -> FlexTensor {
        run(&*layer, &[x.to_contiguous()])
    }

    fn of_three(a: FlexTensor, b: FlexTensor, c: FlexTensor, layer: SharedLayer<3>) -> FlexTensor {
        run(&*layer, &[a, b, c].map(|x| x.to_contiguous()))
    }
}

impl<C: CheckpointStrategy> Layers for Autodiff<Flex, C> {
    fn of_one(x: FloatTensor<Self>, layer: SharedLayer<1>) -> FloatTensor<Self> {
        tracked::<1, C>([x], layer)
    }

    fn of_three(
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        c: FloatTensor<Self>,
        layer: SharedLayer<3>,
    ) -> FloatTensor<Self> {
        tracked::<3, C>([a, b, c], layer)
    }
}

/// The values of contiguous tensors.
fn host<'a>(tensor: &'a FlexTensor) -> Host<'a> {
    let (start, end) = tensor.layout().contiguous_offsets().expect("a contiguous tensor");
    Host { shape: &tensor.layout().shape()[..], values: &tensor.storage::<f32>()[start..end] }
}

fn run<const N: usize>(layer: &dyn Layer<N>, inputs: &[FlexTensor; N]) -> FlexTensor {
    let (shape, values) = layer.forward(inputs.each_ref().map(host));
    FlexTensor::from_data(TensorData::new(values, shape))
}

/// A layer as a step of the graph.
fn tracked<const N: usize, C: CheckpointStrategy>(
    inputs: [FloatTensor<Autodiff<Flex, C>>; N],
    layer: SharedLayer<N>,
) -> FloatTensor<Autodiff<Flex, C>> {
    let nodes = inputs.each_ref().map(|input| input.node());
    let inputs = inputs.map(|input| input.into_primitive().to_contiguous());
    let output = run(&*layer, &inputs);
    match (Step { layer }).prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(step) => step.finish((inputs, output.clone()), output),
        OpsKind::UnTracked(step) => step.finish(output),
    }
}

#[derive(Debug)]
struct Step<const N: usize> {
    layer: SharedLayer<N>,
}

impl<const N: usize> Backward<Flex, N> for Step<N> {
    /// What went in and what came out.
    type State = ([FlexTensor; N], FlexTensor);

    fn backward(self, ops: Ops<Self::State, N>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<Flex>(&ops.node).to_contiguous();
        let (inputs, output) = &ops.state;
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let found = self.layer.backward(inputs.each_ref().map(host), host(output), host(&gradient), wanted);
        for ((parent, values), input) in ops.parents.into_iter().zip(found).zip(inputs) {
            if let (Some(parent), Some(values)) = (parent, values) {
                let data = TensorData::new(values, input.shape());
                gradients.register::<Flex>(parent.id, FlexTensor::from_data(data));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::module::conv2d;
    use burn::tensor::ops::ConvOptions;
    use burn::tensor::{Distribution, activation, module};

    use super::*;

    fn device() -> Device {
        Device::flex().autodiff()
    }

    fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
        Tensor::random(shape, Distribution::Uniform(-2.0, 2.0), &device()).require_grad()
    }

    fn worst<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> f32 {
        (a - b).abs().max().into_scalar()
    }

    /// Holds when two ways from three inputs give the same values and the same gradients.
    fn compare<const A: usize, const B: usize, const C: usize>(
        shapes: ([usize; A], [usize; B], [usize; C]),
        ours: impl Fn(Tensor<A>, Tensor<B>, Tensor<C>) -> Tensor<A>,
        burns: impl Fn(Tensor<A>, Tensor<B>, Tensor<C>) -> Tensor<A>,
    ) {
        let (a, b, c) = (random(shapes.0), random(shapes.1), random(shapes.2));
        let mut upstream = None;
        let [ours, burns] = [&ours as &dyn Fn(_, _, _) -> Tensor<A>, &burns].map(|way| {
            let out = way(a.clone(), b.clone(), c.clone());
            let upstream = upstream.get_or_insert_with(|| random(out.dims()).detach()).clone();
            let gradients = (out.clone() * upstream).sum().backward();
            let of_c = c.grad(&gradients);
            (out.inner(), a.grad(&gradients).unwrap(), b.grad(&gradients), of_c)
        });
        assert!(worst(ours.0, burns.0) < 2e-5);
        assert!(worst(ours.1, burns.1) < 2e-4);
        if let Some(expected) = burns.2 {
            assert!(worst(ours.2.unwrap(), expected) < 1e-3);
        }
        if let Some(expected) = burns.3 {
            assert!(worst(ours.3.unwrap(), expected) < 1e-3);
        }
    }

    #[test]
    fn layers_and_their_derivatives_are_as_in_burn() {
        let none = ([1], [1]);
        for tanh in [false, true] {
            let burns = |x, _, _| if tanh { activation::gelu_approximate(x) } else { activation::gelu(x) };
            compare(([3, 5, 700], none.0, none.1), |x, _, _| gelu(x, tanh), burns);
        }
        compare(([2, 3, 5, 37], none.0, none.1), |x, _, _| softmax(x), |x, _, _| activation::softmax(x, 3));
        compare(
            ([3, 7, 24], [3, 1, 24], [3, 1, 24]),
            |x, scale, shift| modulated_norm(x, scale, shift, 1e-6),
            |x, scale, shift| {
                let ones = Tensor::ones([24], &x.device());
                module::layer_norm(x, ones, None, 1e-6) * scale.add_scalar(1.0) + shift
            },
        );
        compare(
            ([2, 12, 9, 7], [12], [12]),
            |x, gain, shift| group_norm_silu(x, gain, shift, 3, 1e-6),
            |x, gain, shift| {
                let grouped = x.reshape([6, 4 * 63]);
                let (variance, mean) = grouped.clone().var_mean_bias(1);
                let normed = ((grouped - mean) / variance.add_scalar(1e-6).sqrt()).reshape([2, 12, 9, 7]);
                activation::silu(normed * gain.reshape([1, 12, 1, 1]) + shift.reshape([1, 12, 1, 1]))
            },
        );
        compare(([2, 5, 11, 6], [4, 5, 3, 3], [4]), convolution, |x, weight, bias| {
            conv2d(x, weight, Some(bias), ConvOptions::new([1, 1], [1, 1], [1, 1], 1))
        });
        compare(
            ([2, 3, 21, 8], [2, 3, 21, 8], [2, 3, 21, 8]),
            |q, k, v| scale_attention(q, k, v, &[1, 5, 21]),
            |q, k, v| {
                let part = |start: usize, end: usize| {
                    let (k, v) = (k.clone().narrow(2, 0, end), v.clone().narrow(2, 0, end));
                    let scores = q.clone().narrow(2, start, end - start).matmul(k.transpose());
                    activation::softmax(scores, 3).matmul(v)
                };
                Tensor::cat(vec![part(0, 1), part(1, 5), part(5, 21)], 2)
            },
        );
    }

    #[test]
    fn only_what_is_asked_for_has_a_gradient() {
        let x = Tensor::<4>::ones([1, 2, 4, 4], &device());
        let (weight, bias) = (random([3, 2, 3, 3]), random([3]));
        let gradients = convolution(x.clone(), weight.clone(), bias.clone()).sum().backward();
        assert!(x.grad(&gradients).is_none());
        assert!(weight.grad(&gradients).is_some() && bias.grad(&gradients).is_some());
        // A view that does not lie row by row.
        let x = random([4, 6]);
        let gradients = gelu(x.clone().swap_dims(0, 1), false).sum().backward();
        let expected = activation::gelu(x.clone()).sum().backward();
        assert!(worst(x.grad(&gradients).unwrap(), x.grad(&expected).unwrap()) < 1e-5);
    }

    #[test]
    fn only_host_floats_with_gradients_are_learned_here() {
        let x = Tensor::<1>::zeros([2], &Device::flex());
        assert!(is_learned(&x.clone().autodiff()) && !is_learned(&x));
        assert!(!is_learned(&x.autodiff().cast(DType::BF16)));
    }
}
