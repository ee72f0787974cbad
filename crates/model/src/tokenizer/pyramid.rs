//! The tokens of a batch of pictures.

use burn::tensor::{Device, Int, Tensor};

use super::quantizer::codes_tensor;

/// Token maps s_k ∈ Z^{side × side × D} of a batch of pictures, held on the host: sampling, forcing and the token
/// cache of training all work there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenPyramid {
    batch: usize,
    depth: usize,
    /// Per scale `[batch, tokens, depth]`, row-major.
    scales: Vec<Vec<u32>>,
}

impl TokenPyramid {
    /// Takes codes per scale, `[batch, tokens, depth]` row-major each.
    ///
    /// # Panics
    /// When a scale's length is not a multiple of batch · depth.
    pub fn new(scales: Vec<Vec<u32>>, batch: usize, depth: usize) -> Self {
        assert!(batch > 0 && depth > 0, "a pyramid holds at least one picture and one code");
        assert!(scales.iter().all(|codes| codes.len().is_multiple_of(batch * depth)), "uneven token maps");
        Self { batch, depth, scales }
    }

    pub(super) fn from_tensors(scales: Vec<Tensor<2, Int>>, batch: usize, depth: usize) -> Self {
        let host = |codes: Tensor<2, Int>| -> Vec<u32> {
            let data = codes.into_data_as::<i64>();
            data.iter::<i64>().map(|code| code as u32).collect()
        };
        Self::new(scales.into_iter().map(host).collect(), batch, depth)
    }

    /// Pictures in the batch.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Codes per position.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// Number of scales.
    pub fn len(&self) -> usize {
        self.scales.len()
    }

    /// Whether there is no scale.
    pub fn is_empty(&self) -> bool {
        self.scales.is_empty()
    }

    /// All codes of scale `k`, `[batch, tokens, depth]`.
    pub fn scale(&self, k: usize) -> &[u32] {
        &self.scales[k]
    }

    /// The codes of picture `index` at scale `k`, `[tokens, depth]`.
    pub fn picture_scale(&self, index: usize, k: usize) -> &[u32] {
        let size = self.scales[k].len() / self.batch;
        &self.scales[k][index * size..(index + 1) * size]
    }

    /// Picture `index` alone.
    pub fn picture(&self, index: usize) -> Self {
        let scales = (0..self.len()).map(|k| self.picture_scale(index, k).to_vec()).collect();
        Self { batch: 1, depth: self.depth, scales }
    }

    /// Several pyramids as one batch.
    ///
    /// # Panics
    /// When there is none or their shapes differ.
    pub fn stack(pyramids: &[&Self]) -> Self {
        let first = pyramids.first().expect("at least one pyramid");
        let scales = (0..first.len())
            .map(|k| pyramids.iter().flat_map(|pyramid| pyramid.scale(k).iter().copied()).collect())
            .collect();
        Self::new(scales, pyramids.iter().map(|pyramid| pyramid.batch).sum(), first.depth)
    }

    /// Codes of scale `k` as `[batch · tokens, depth]`.
    pub fn tensor(&self, k: usize, device: &Device) -> Tensor<2, Int> {
        codes_tensor(&self.scales[k], self.depth, device)
    }

    /// How often each of `vocabulary` codes occurs at scale `k`.
    pub fn usage(&self, k: usize, vocabulary: usize) -> Vec<u64> {
        let mut counts = vec![0; vocabulary];
        for &code in &self.scales[k] {
            counts[code as usize] += 1;
        }
        counts
    }
}
