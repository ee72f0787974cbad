//! Where a tokenizer's training starts: principal components in the linear path and k-means in the codebook.
//!
//! Learning both by gradient from noise takes thousands of steps; from here the very first step is a working codec.

use burn::module::Param;
use burn::tensor::{Int, Tensor, TensorData};
use earthmapper::pictures::to_tensor;
use earthmapper::sampler::derive_seed;
use earthmapper::tokenizer::{LinearPath, MultiScaleTokenizer};
use earthmapper_geo::picture::Picture;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// Settings of the start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StartFromData {
    /// Pairs that are looked at; 0 starts from noise.
    pub pairs: usize,
    /// Passes of k-means.
    pub passes: usize,
    /// How much more a map's patch counts than a photograph's in both.
    pub map_weight: f32,
}

impl Default for StartFromData {
    fn default() -> Self {
        Self { pairs: 64, passes: 12, map_weight: 1.0 }
    }
}

/// Pictures encoded at once.
const BATCH: usize = 8;

impl StartFromData {
    /// Sets the linear path, when there is one, and the codebook of a tokenizer without autodiff; `pictures` are
    /// photograph, map, photograph, map …
    pub fn apply(
        &self,
        mut tokenizer: MultiScaleTokenizer,
        pictures: &[Picture],
        seed: u64,
    ) -> MultiScaleTokenizer {
        let device = tokenizer.quantizer.codebook.val().device();
        let batches: Vec<Tensor<4>> =
            pictures.chunks(BATCH).map(|pictures| to_tensor(pictures, &device)).collect();
        if let Some(linear) = tokenizer.linear.take() {
            tokenizer.linear = Some(self.principal_components(linear, &batches));
        }
        self.k_means(tokenizer, &batches, seed)
    }

    /// Weight of picture `index` of a batch.
    fn weight(&self, index: usize) -> f32 {
        if index % 2 == 1 { self.map_weight } else { 1.0 }
    }

    /// The linear path becomes the projection onto the first principal components of the patches, and back.
    fn principal_components(&self, linear: LinearPath, batches: &[Tensor<4>]) -> LinearPath {
        let device = batches[0].device();
        let [latent, size, ..] = linear.into.weight.dims();
        let rows: Vec<Tensor<2>> = batches
            .iter()
            .map(|pictures| {
                let patches = linear.patches(pictures.clone());
                let [batch, _, height, width] = patches.dims();
                let weights: Vec<f32> = (0..batch).map(|i| self.weight(i).sqrt()).collect();
                let weights = Tensor::<4>::from_data(TensorData::new(weights, [batch, 1, 1, 1]), &device);
                // A column of weights beside the weighted patches gives the weighted mean as well.
                let ones = Tensor::ones([batch, 1, height, width], &device) * weights.clone();
                let both = Tensor::cat(vec![patches * weights, ones], 1);
                both.permute([0, 2, 3, 1]).reshape([batch * height * width, size + 1])
            })
            .collect();
        let moments = rows.into_iter().map(|rows| rows.clone().transpose().matmul(rows)).reduce(|a, b| a + b);
        let moments = moments.expect("at least one batch");
        let total = moments.clone().slice([size..size + 1, size..size + 1]).into_scalar::<f32>();
        let mean = moments.clone().slice([0..size, size..size + 1]).div_scalar(total);
        let covariance = moments.slice([0..size, 0..size]).div_scalar(total)
            - mean.clone().matmul(mean.clone().transpose());
        let axes = leading_eigenvectors(covariance, latent);
        let into = axes.clone().transpose();
        let shift = into.clone().matmul(mean.clone()).neg().reshape([latent]);
        let set = |conv: &burn::nn::conv::Conv2d, weight: Tensor<2>, bias: Tensor<1>| {
            let mut conv = conv.clone();
            let dims = conv.weight.dims();
            conv.weight = conv.weight.map(|_| weight.reshape(dims));
            conv.bias = conv.bias.map(|old: Param<Tensor<1>>| old.map(|_| bias));
            conv
        };
        let mut linear = linear;
        linear.into = set(&linear.into, into, shift);
        linear.out = set(&linear.out, axes, mean.reshape([size]));
        linear
    }

    /// Lloyd's passes over what the quantizer will meet. For rows that do not move with the codebook, the rows of each
    /// scale are what the coarser scales leave when nothing is lost to quantization; with several codes per position,
    /// half of the codebook then learns what the other half leaves of the same rows.
    fn k_means(
        &self,
        mut tokenizer: MultiScaleTokenizer,
        batches: &[Tensor<4>],
        seed: u64,
    ) -> MultiScaleTokenizer {
        let mut random = ChaCha8Rng::seed_from_u64(derive_seed(seed, &[3]));
        let mut rows = Rows::default();
        for pictures in batches {
            self.unquantized_rows(&tokenizer, pictures.clone(), &mut rows);
        }
        let [vocabulary, latent] = tokenizer.quantizer.codebook.dims();
        let deep = tokenizer.quantizer.depth() > 1;
        let first = if deep { vocabulary / 2 } else { vocabulary };
        let mut codebook = rows.draw(first, latent, &mut random);
        for _ in 0..self.passes {
            codebook = rows.lloyd(&tokenizer, codebook, latent, &mut random);
        }
        if deep {
            let left = rows.less(&rows.nearest(&tokenizer, &codebook, latent), &codebook, latent);
            codebook.extend(left.draw(vocabulary - first, latent, &mut random));
            rows.append(left);
            for _ in 0..self.passes {
                codebook = rows.lloyd(&tokenizer, codebook, latent, &mut random);
            }
        }
        tokenizer.quantizer.codebook = tokenizer
            .quantizer
            .codebook
            .map(|old| Tensor::from_data(TensorData::new(codebook, [vocabulary, latent]), &old.device()));
        tokenizer
    }

    fn unquantized_rows(&self, tokenizer: &MultiScaleTokenizer, pictures: Tensor<4>, rows: &mut Rows) {
        let quantizer = &tokenizer.quantizer;
        let features = tokenizer.features(pictures);
        let [batch, ..] = features.dims();
        let mut reconstruction = features.zeros_like();
        for k in 0..quantizer.scales().len() {
            let residual = quantizer.residual_at(k, features.clone(), reconstruction.clone());
            reconstruction = quantizer.accumulate(k, reconstruction, residual.clone());
            rows.values.extend(residual.try_into_vec_as::<f32>().expect("32-bit floats"));
            let count = quantizer.scales().tokens(k);
            rows.weights.extend((0..batch * count).map(|row| self.weight(row / count)));
        }
    }
}

/// Weighted vectors, row by row.
#[derive(Default)]
struct Rows {
    values: Vec<f32>,
    weights: Vec<f32>,
}

impl Rows {
    /// Rows compared with the codebook at once.
    const AT_ONCE: usize = 8192;

    /// `count` rows, drawn in proportion to their weight.
    fn draw(&self, count: usize, latent: usize, random: &mut ChaCha8Rng) -> Vec<f32> {
        let highest = self.weights.iter().copied().fold(0.0, f32::max);
        let mut drawn = Vec::with_capacity(count * latent);
        while drawn.len() < count * latent {
            let row = random.random_range(0..self.weights.len());
            if random.random::<f32>() * highest <= self.weights[row] {
                drawn.extend_from_slice(&self.values[row * latent..(row + 1) * latent]);
            }
        }
        drawn
    }

    /// The nearest code of each row.
    fn nearest(&self, tokenizer: &MultiScaleTokenizer, codebook: &[f32], latent: usize) -> Vec<usize> {
        let device = tokenizer.quantizer.codebook.val().device();
        let codes = Tensor::<2>::from_data(
            TensorData::new(codebook.to_vec(), [codebook.len() / latent, latent]),
            &device,
        );
        let lengths = codes.clone().square().sum_dim(1).transpose();
        let chunks = self.values.chunks(Self::AT_ONCE * latent);
        chunks
            .flat_map(|chunk| {
                let rows = TensorData::new(chunk.to_vec(), [chunk.len() / latent, latent]);
                let rows = Tensor::<2>::from_data(rows, &device);
                let distances = lengths.clone() - rows.matmul(codes.clone().transpose()).mul_scalar(2.0);
                let nearest = distances.argmin(1).into_data_as::<i64>();
                nearest.iter::<i64>().map(|code| code as usize).collect::<Vec<_>>()
            })
            .collect()
    }

    /// One pass: every code moves to the weighted mean of its rows; a code without rows is drawn anew.
    fn lloyd(
        &self,
        tokenizer: &MultiScaleTokenizer,
        codebook: Vec<f32>,
        latent: usize,
        random: &mut ChaCha8Rng,
    ) -> Vec<f32> {
        let mut sums = vec![0.0f32; codebook.len()];
        let mut totals = vec![0.0f32; codebook.len() / latent];
        for (row, code) in self.nearest(tokenizer, &codebook, latent).into_iter().enumerate() {
            let weight = self.weights[row];
            totals[code] += weight;
            let sums = &mut sums[code * latent..(code + 1) * latent];
            let values = &self.values[row * latent..(row + 1) * latent];
            sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += weight * value);
        }
        for (sums, total) in sums.chunks_mut(latent).zip(totals) {
            match total > 0.0 {
                true => sums.iter_mut().for_each(|sum| *sum /= total),
                false => sums.copy_from_slice(&self.draw(1, latent, random)),
            }
        }
        sums
    }

    /// What is left of each row when its code is taken off.
    fn less(&self, codes: &[usize], codebook: &[f32], latent: usize) -> Self {
        let values = self.values.chunks(latent).zip(codes);
        let values = values.flat_map(|(row, &code)| {
            row.iter().zip(&codebook[code * latent..(code + 1) * latent]).map(|(value, code)| value - code)
        });
        Self { values: values.collect(), weights: self.weights.clone() }
    }

    fn append(&mut self, other: Self) {
        self.values.extend(other.values);
        self.weights.extend(other.weights);
    }
}

/// What the quantizer meets: per scale and depth the residual rows, the codes they go to, and the number of pictures.
pub fn assignments(
    tokenizer: &MultiScaleTokenizer,
    features: Tensor<4>,
) -> Vec<(Vec<f32>, Vec<usize>, usize)> {
    let quantizer = &tokenizer.quantizer;
    let [pictures, ..] = features.dims();
    let mut reconstruction = features.zeros_like();
    let mut all = Vec::new();
    for k in 0..quantizer.scales().len() {
        let mut residual = quantizer.residual_at(k, features.clone(), reconstruction.clone());
        let codes = quantizer.nearest(residual.clone());
        for depth in 0..quantizer.depth() {
            let column: Tensor<2, Int> = codes.clone().narrow(1, depth, 1);
            let rows = residual.clone().try_into_vec_as::<f32>().expect("32-bit floats");
            let data = column.clone().into_data_as::<i64>();
            all.push((rows, data.iter::<i64>().map(|code| code as usize).collect(), pictures));
            residual = residual - quantizer.look_up(column);
        }
        reconstruction = quantizer.accumulate(k, reconstruction, quantizer.look_up(codes));
    }
    all
}

/// The `count` leading eigenvectors of a symmetric matrix `[n, n]` as columns `[n, count]`, by orthogonal iteration.
fn leading_eigenvectors(matrix: Tensor<2>, count: usize) -> Tensor<2> {
    let [size, _] = matrix.dims();
    let device = matrix.device();
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let start: Vec<f32> = (0..size * count).map(|_| random.random_range(-1.0..1.0)).collect();
    let mut axes = Tensor::<2>::from_data(TensorData::new(start, [size, count]), &device);
    for _ in 0..60 {
        let columns =
            matrix.clone().matmul(axes).transpose().try_into_vec_as::<f32>().expect("32-bit floats");
        axes = Tensor::<2>::from_data(TensorData::new(orthonormal(columns, size), [count, size]), &device)
            .transpose();
    }
    axes
}

/// Gram–Schmidt on the rows of length `size`.
fn orthonormal(mut rows: Vec<f32>, size: usize) -> Vec<f32> {
    for i in 0..rows.len() / size {
        let (before, rest) = rows.split_at_mut(i * size);
        let row = &mut rest[..size];
        for other in before.chunks(size) {
            let dot: f32 = row.iter().zip(other).map(|(a, b)| a * b).sum();
            row.iter_mut().zip(other).for_each(|(a, b)| *a -= dot * b);
        }
        let length = row.iter().map(|v| v * v).sum::<f32>().sqrt().max(1e-12);
        row.iter_mut().for_each(|v| *v /= length);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn the_leading_axes_of_a_diagonal_matrix_are_its_largest_entries() {
        let device = Device::flex();
        let diagonal = [1.0f32, 9.0, 2.0, 5.0];
        let values = (0..16).map(|i| if i / 4 == i % 4 { diagonal[i / 4] } else { 0.0 }).collect();
        let matrix = Tensor::<2>::from_data(TensorData::new(values, [4, 4]), &device);
        let axes = leading_eigenvectors(matrix, 2).transpose().try_into_vec_as::<f32>().unwrap();
        assert!((axes[1].abs() - 1.0).abs() < 1e-4 && (axes[7].abs() - 1.0).abs() < 1e-4, "{axes:?}");
    }
}
