//! Hierarchical residual quantization, HRQ (Eq. 2–3 and 5–7).

use burn::module::{Module, Param};
use burn::nn::conv::Conv2d;
use burn::tensor::{Int, Tensor, TensorData};
use rand::Rng;

use crate::config::TokenizerConfig;
use crate::init::Init;
use crate::resample::{Resize, area_tokens, resize};
use crate::scales::Scales;

use super::pyramid::TokenPyramid;

/// One codebook for all scales, all depths and all modalities, with the convolutions φ.
#[derive(Module, Debug)]
pub struct ResidualQuantizer {
    /// `[vocabulary, latent]`.
    pub codebook: Param<Tensor<2>>,
    phi: Vec<Conv2d>,
    #[module(skip)]
    scales: Scales,
    #[module(skip)]
    depth: usize,
    #[module(skip)]
    phi_ratio: f64,
}

/// What quantizing features in training gives.
pub struct Quantized {
    /// The reconstruction with gradients passed straight through to the features, `[batch, latent, side, side]`.
    pub features: Tensor<4>,
    /// Codebook plus β · commitment, mean over the scales (VQ-VAE's two terms), `[1]`.
    pub loss: Tensor<1>,
    /// The tokens.
    pub tokens: TokenPyramid,
}

impl ResidualQuantizer {
    pub(super) fn new(config: &TokenizerConfig, init: &mut Init) -> Self {
        let width = config.latent_width;
        Self {
            codebook: init.normal([config.vocabulary, width], (width as f32).powf(-0.5)),
            phi: (0..config.phi_count).map(|_| init.identity_conv(width)).collect(),
            scales: config.scales(),
            depth: config.quantizer_depth,
            phi_ratio: config.phi_ratio,
        }
    }

    /// The scales.
    pub fn scales(&self) -> &Scales {
        &self.scales
    }

    /// Codes per position, D.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// Size V of the codebook.
    pub fn vocabulary(&self) -> usize {
        self.codebook.dims()[0]
    }

    /// Nearest codes of vectors, D deep (Eq. 6): `[n, latent]` → `[n, depth]`.
    ///
    /// k_d = argmin_i ‖r_{d−1} − C[i]‖ with r_d = r_{d−1} − C[k_d].
    pub fn nearest(&self, vectors: Tensor<2>) -> Tensor<2, Int> {
        let codebook = self.codebook.val().detach();
        let lengths = codebook.clone().square().sum_dim(1).transpose();
        let mut rest = vectors.detach();
        let mut codes = Vec::with_capacity(self.depth);
        for _ in 0..self.depth {
            // ‖r − c‖² without ‖r‖², which does not change the order.
            let distances =
                lengths.clone() - rest.clone().matmul(codebook.clone().transpose()).mul_scalar(2.0);
            let code = distances.argmin(1);
            rest = rest - codebook.clone().select(0, code.clone().squeeze_dim::<1>(1));
            codes.push(code);
        }
        Tensor::cat(codes, 1)
    }

    /// Sum of the codes of each position (ẑ = Σ_d C[k_d]): `[n, depth]` → `[n, latent]`.
    pub fn look_up(&self, codes: Tensor<2, Int>) -> Tensor<2> {
        let [count, depth] = codes.dims();
        let width = self.codebook.dims()[1];
        let rows = self.codebook.val().select(0, codes.reshape([count * depth]));
        match depth {
            1 => rows,
            _ => rows.reshape([count, depth, width]).sum_dim(1).reshape([count, width]),
        }
    }

    /// What is left to explain at scale `k`: the residual, area-resized, one row per position `[batch · tokens, latent]`.
    pub fn residual_at(&self, k: usize, features: Tensor<4>, reconstruction: Tensor<4>) -> Tensor<2> {
        map_to_rows(resize(features - reconstruction, self.scales.side(k), Resize::Area))
    }

    /// Adds the quantized vectors of scale `k` to the running reconstruction: f̂ ← f̂ + φ_k(up(ẑ)) (Eq. 2–3).
    ///
    /// `reconstruction` is `[batch, latent, side, side]`, `vectors` `[batch · tokens, latent]`. Encoding, teacher
    /// inputs, training and generation all go through here.
    pub fn accumulate(&self, k: usize, reconstruction: Tensor<4>, vectors: Tensor<2>) -> Tensor<4> {
        let [batch, ..] = reconstruction.dims();
        let map = rows_to_map(vectors, batch, self.scales.side(k));
        let up = resize(map, self.scales.finest(), Resize::Bicubic);
        let refined = self.phi[self.phi_index(k)].forward(up.clone());
        reconstruction + up.mul_scalar(1.0 - self.phi_ratio) + refined.mul_scalar(self.phi_ratio)
    }

    /// Features → tokens, with the reconstruction they give.
    pub fn encode(&self, features: Tensor<4>) -> (TokenPyramid, Tensor<4>) {
        let (tokens, mut reconstructions) = self.encode_taking(features, |codes| codes);
        (tokens, reconstructions.pop().expect("at least one scale"))
    }

    /// Tokens of features, and the reconstruction after each scale, when `take` decides which codes are taken for the
    /// nearest ones, `[batch · tokens, depth]`.
    fn encode_taking(
        &self,
        features: Tensor<4>,
        mut take: impl FnMut(Tensor<2, Int>) -> Tensor<2, Int>,
    ) -> (TokenPyramid, Vec<Tensor<4>>) {
        let [batch, ..] = features.dims();
        let mut reconstruction = features.zeros_like();
        let (mut scales, mut reconstructions) = (Vec::new(), Vec::new());
        for k in 0..self.scales.len() {
            let codes = self.nearest(self.residual_at(k, features.clone(), reconstruction.clone()));
            let vectors = self.look_up(take(codes.clone()));
            reconstruction = self.accumulate(k, reconstruction, vectors);
            scales.push(codes);
            reconstructions.push(reconstruction.clone());
        }
        (TokenPyramid::from_tensors(scales, batch, self.depth), reconstructions)
    }

    /// Tokens → the reconstruction after each scale, `[batch, latent, side, side]` each.
    pub fn reconstructions(&self, tokens: &TokenPyramid) -> Vec<Tensor<4>> {
        let device = self.codebook.val().device();
        let (width, side) = (self.codebook.dims()[1], self.scales.finest());
        let mut reconstruction = Tensor::zeros([tokens.batch(), width, side, side], &device);
        (0..self.scales.len())
            .map(|k| {
                let vectors = self.look_up(tokens.tensor(k, &device));
                reconstruction = self.accumulate(k, reconstruction.clone(), vectors);
                reconstruction.clone()
            })
            .collect()
    }

    /// Input of the transformer for scale `k` ≥ 1 from the reconstruction after scale k − 1: area-resized,
    /// `[batch, tokens, latent]`.
    pub fn next_input(&self, k: usize, reconstruction: Tensor<4>) -> Tensor<3> {
        area_tokens(reconstruction, self.scales.side(k))
    }

    /// Inputs of scales 1 … K − 1 for teacher forcing (scale 0 starts from the place).
    pub fn teacher_inputs(&self, tokens: &TokenPyramid) -> Vec<Tensor<3>> {
        self.inputs_from(&self.reconstructions(tokens))
    }

    /// Inputs of scales 1 … K − 1 from the reconstructions after each scale.
    fn inputs_from(&self, reconstructions: &[Tensor<4>]) -> Vec<Tensor<3>> {
        (1..self.scales.len()).map(|k| self.next_input(k, reconstructions[k - 1].clone())).collect()
    }

    /// Tokens of features when coarser scales went wrong, for teaching the transformer to put its own mistakes right: at
    /// every scale the codes of a `share` of the positions are exchanged for those of other positions in the
    /// batch, and the finer scales' tokens are what then leads back to the features. Also gives the inputs of scales
    /// 1 … K − 1, which show the mistakes.
    pub fn encode_with_mistakes(
        &self,
        features: Tensor<4>,
        share: f64,
        random: &mut impl Rng,
    ) -> (TokenPyramid, Vec<Tensor<3>>) {
        let (tokens, reconstructions) = self.encode_mistaken(features, share, random);
        (tokens, self.inputs_from(&reconstructions))
    }

    /// The same mistakes for teaching the decoder to live with them: also gives the reconstruction that they end in.
    pub fn reconstruct_with_mistakes(
        &self,
        features: Tensor<4>,
        share: f64,
        random: &mut impl Rng,
    ) -> (TokenPyramid, Tensor<4>) {
        let (tokens, mut reconstructions) = self.encode_mistaken(features, share, random);
        (tokens, reconstructions.pop().expect("at least one scale"))
    }

    fn encode_mistaken(
        &self,
        features: Tensor<4>,
        share: f64,
        random: &mut impl Rng,
    ) -> (TokenPyramid, Vec<Tensor<4>>) {
        let device = features.device();
        self.encode_taking(features, |codes| {
            let right: Vec<u32> = codes.into_data_as::<i64>().iter::<i64>().map(|code| code as u32).collect();
            let mut taken = right.clone();
            for position in taken.chunks_mut(self.depth) {
                // Two draws each, so that the share does not change where a mistake comes from.
                let (luck, other) =
                    (random.random::<f64>(), random.random_range(0..right.len() / self.depth));
                if luck < share {
                    position.copy_from_slice(&right[other * self.depth..][..self.depth]);
                }
            }
            codes_tensor(&taken, self.depth, &device)
        })
    }

    /// Quantizes with gradients, for training the tokenizer: VQ-VAE's codebook and commitment terms, weighted 1 and
    /// `beta`, mean over the scales; gradients pass straight through to the features.
    pub fn quantize(&self, features: Tensor<4>, beta: f64) -> Quantized {
        let [batch, ..] = features.dims();
        let target = features.clone().detach();
        let mut reconstruction = target.zeros_like();
        let mut loss = Tensor::zeros([1], &target.device());
        let mut scales = Vec::with_capacity(self.scales.len());
        for k in 0..self.scales.len() {
            let codes = self.nearest(self.residual_at(k, target.clone(), reconstruction.clone().detach()));
            reconstruction = self.accumulate(k, reconstruction, self.look_up(codes.clone()));
            let commitment = (reconstruction.clone().detach() - features.clone()).square().mean();
            let codebook = (reconstruction.clone() - target.clone()).square().mean();
            loss = loss + commitment.mul_scalar(beta) + codebook;
            scales.push(codes);
        }
        Quantized {
            features: features + (reconstruction.detach() - target),
            loss: loss.div_scalar(self.scales.len() as f64),
            tokens: TokenPyramid::from_tensors(scales, batch, self.depth),
        }
    }

    /// Which φ scale `k` uses.
    fn phi_index(&self, k: usize) -> usize {
        nearest_tick(k, self.scales.len(), self.phi.len())
    }
}

/// The one of `count` evenly spaced ticks that is nearest to the relative position of scale `k` of `scales`.
///
/// Scales often stand exactly between two ticks (scales 2 and 7 of the published ten), so that rounding decides: the
/// order of operations is that of the reference's `numpy.linspace` and `argmin`.
fn nearest_tick(k: usize, scales: usize, count: usize) -> usize {
    let start = if count == 4 { 1.0 / 3.0 } else { 0.5 } / count as f64;
    let stop = 1.0 - start;
    let step = (stop - start) / (count - 1).max(1) as f64;
    let tick = |i: usize| if i > 0 && i == count - 1 { stop } else { i as f64 * step + start };
    let position = k as f64 / (scales - 1).max(1) as f64;
    (0..count)
        .min_by(|&a, &b| (tick(a) - position).abs().total_cmp(&(tick(b) - position).abs()))
        .expect("at least one φ")
}

/// `[batch, latent, side, side]` → `[batch · side², latent]`.
fn map_to_rows(map: Tensor<4>) -> Tensor<2> {
    let [batch, width, height, side] = map.dims();
    map.permute([0, 2, 3, 1]).reshape([batch * height * side, width])
}

/// The inverse of [`map_to_rows`].
fn rows_to_map(rows: Tensor<2>, batch: usize, side: usize) -> Tensor<4> {
    let width = rows.dims()[1];
    rows.reshape([batch, side, side, width]).permute([0, 3, 1, 2])
}

/// Turns codes on the host into a tensor `[n, depth]`.
pub(crate) fn codes_tensor(codes: &[u32], depth: usize, device: &burn::tensor::Device) -> Tensor<2, Int> {
    let values: Vec<i64> = codes.iter().map(|&code| i64::from(code)).collect();
    Tensor::from_data(TensorData::new(values, [codes.len() / depth, depth]), device)
}

#[cfg(test)]
mod tests {
    use super::nearest_tick;

    #[test]
    fn scales_between_two_ticks_go_where_the_reference_puts_them() {
        let ticks = |scales, count| (0..scales).map(|k| nearest_tick(k, scales, count)).collect::<Vec<_>>();
        assert_eq!(ticks(10, 4), [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]);
        assert_eq!(ticks(5, 4), [0, 1, 2, 2, 3]);
        assert_eq!(ticks(1, 4), [0]);
        assert_eq!(ticks(3, 1), [0, 0, 0]);
    }
}
