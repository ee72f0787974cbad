//! The joint transformer with packed weights, for inference on a CPU: [`JointTransformer::step`] for several sequences
//! at once.
//!
//! A sequence is one picture of one stream. The rows of all sequences go through each linear layer together, so that its
//! weights are read once a step for the conditional and the unconditional stream of all pictures; at the coarse
//! scales that reading is most of the work.

use burn::tensor::Tensor;
use earthmapper_kernels::{KeyValues, Linear, Map, Precision, Scores, gelu, gelu_tanh, layer_norm, silu};
use rayon::prelude::*;

use crate::config::Activation;
use crate::packed::{from_map, linear, values};
use crate::resample::area_tokens;
use crate::scales::Scales;
use crate::tokenizer::PackedResidual;

use super::{Block, Guide, JointTransformer};

/// Rows that a thread norms at a time.
const ROWS: usize = 32;

/// One sequence of a running generation.
#[derive(Clone, Debug)]
pub struct Sequence {
    /// The modalities in the sequence.
    visible: Vec<usize>,
    /// The place, `[width]`.
    condition: Vec<f32>,
    /// Per block, keys and values and the six vectors of the adaptive norms.
    blocks: Vec<(KeyValues, Vec<f32>)>,
    /// Scale and shift before the head.
    head: Vec<f32>,
}

/// What a sequence's next scale is made of.
#[derive(Clone, Copy, Debug)]
pub struct SequenceInput<'a> {
    /// Per visible modality `[tokens, latent]`; empty for scale 0.
    pub words: &'a [&'a [f32]],
    /// Known pictures as this scale sees them, `[tokens, width]`.
    pub guide: Option<&'a [f32]>,
}

/// A [`Block`].
#[derive(Debug)]
struct PackedBlock {
    qkv: Linear,
    scores: Scores,
    out: Linear,
    up: Linear,
    down: Linear,
    activation: fn(&mut [f32]),
    /// This block's own projection of the condition.
    modulation: Option<Linear>,
    /// This block's offset to the shared projection.
    offset: Vec<f32>,
}

/// A [`Guide`].
#[derive(Debug)]
struct PackedGuide {
    embed: Linear,
    blocks: Vec<PackedResidual>,
}

/// The [`DepthHead`](super::DepthHead).
#[derive(Debug)]
struct PackedDepthHead {
    chosen: Linear,
    /// `[depth, width]`.
    level: Vec<f32>,
    up: Linear,
    down: Linear,
}

/// A [`JointTransformer`] with packed weights.
#[derive(Debug)]
pub struct PackedTransformer {
    word_embedding: Linear,
    guides: Vec<PackedGuide>,
    position: Vec<f32>,
    start_position: Vec<f32>,
    level: Vec<f32>,
    modality: Vec<f32>,
    shared_modulation: Option<Linear>,
    blocks: Vec<PackedBlock>,
    head_modulation: Linear,
    to_code: Option<Linear>,
    head: Linear,
    depth_head: Option<PackedDepthHead>,
    scales: Scales,
    heads: usize,
    width: usize,
    epsilon: f32,
}

impl PackedBlock {
    fn new(block: &Block, precision: Precision) -> Self {
        let attention = &block.attention;
        let [width, _] = attention.out.weight.dims();
        let head = width / attention.heads;
        Self {
            qkv: linear(&attention.qkv, precision),
            scores: match &attention.log_scale {
                Some(log) => Scores::Cosine(
                    values(log.val()).into_iter().map(|log| log.min(100.0f32.ln()).exp()).collect(),
                ),
                None => Scores::Product(0.25 / (head as f32).sqrt()),
            },
            out: linear(&attention.out, precision),
            up: linear(&block.up, precision),
            down: linear(&block.down, precision),
            activation: match block.activation {
                Activation::Gelu => gelu,
                Activation::GeluTanh => gelu_tanh,
            },
            modulation: block.modulation.as_ref().map(|layer| linear(layer, Precision::F32)),
            offset: block.offset.as_ref().map_or(Vec::new(), |offset| values(offset.val())),
        }
    }
}

impl PackedTransformer {
    /// Packs the weights of a transformer; those of its blocks with the given precision. Blocks and guides are taken out
    /// of it.
    pub(crate) fn take(transformer: &mut JointTransformer, precision: Precision) -> Self {
        let heads = transformer.blocks.first().map_or(1, |block| block.attention.heads);
        let blocks = std::mem::take(&mut transformer.blocks).into_iter();
        let guides = std::mem::take(&mut transformer.guides).into_iter();
        let plain = |layer: &burn::nn::Linear| linear(layer, Precision::F32);
        let side = transformer.scales.finest();
        let guide = |guide: Guide| PackedGuide {
            embed: plain(&guide.embed),
            blocks: guide.blocks.iter().map(|block| PackedResidual::new(block, side)).collect(),
        };
        Self {
            word_embedding: plain(&transformer.word_embedding),
            guides: guides.map(guide).collect(),
            position: values(transformer.position.val()),
            start_position: values(transformer.start_position.val()),
            level: values(transformer.level.val()),
            modality: values(transformer.modality.val()),
            shared_modulation: transformer.shared_modulation.as_ref().map(plain),
            blocks: blocks.map(|block| PackedBlock::new(&block, precision)).collect(),
            head_modulation: plain(&transformer.head_modulation),
            to_code: transformer.to_code.as_ref().map(plain),
            head: plain(&transformer.head),
            depth_head: transformer.depth_head.as_ref().map(|depth_head| PackedDepthHead {
                chosen: plain(&depth_head.chosen),
                level: values(depth_head.level.val()),
                up: plain(&depth_head.up),
                down: plain(&depth_head.down),
            }),
            scales: transformer.scales.clone(),
            heads,
            width: transformer.level.dims()[1],
            epsilon: transformer.epsilon as f32,
        }
    }

    /// Sequences at their start, one per row of `conditions` `[n, width]`; each sees the modalities in its entry of
    /// `visible`.
    pub fn begin(&self, visible: &[&[usize]], conditions: &[f32]) -> Vec<Sequence> {
        let mut active = conditions.to_vec();
        silu(&mut active);
        let shared = self.shared_modulation.as_ref().map(|layer| layer.apply(&active));
        // All projections are made now: reading the weights for them takes as long as a step of a coarse scale.
        let per_block: Vec<Vec<f32>> = self
            .blocks
            .iter()
            .map(|block| match (&block.modulation, &shared) {
                (Some(modulation), _) => modulation.apply(&active),
                (None, Some(shared)) => {
                    let rows = shared.chunks(6 * self.width);
                    rows.flat_map(|row| row.iter().zip(&block.offset).map(|(a, b)| a + b)).collect()
                }
                (None, None) => unreachable!("a block has its own norm or a shared one"),
            })
            .collect();
        let head = self.head_modulation.apply(&active);
        let sequence = |(i, (visible, condition)): (usize, (&&[usize], &[f32]))| {
            let room = self.scales.total() * visible.len();
            let block = |vectors: &Vec<f32>| {
                let cache = KeyValues::new(self.heads, self.width / self.heads, room);
                (cache, vectors[i * 6 * self.width..(i + 1) * 6 * self.width].to_vec())
            };
            Sequence {
                visible: visible.to_vec(),
                condition: condition.to_vec(),
                blocks: per_block.iter().map(block).collect(),
                head: head[i * 2 * self.width..(i + 1) * 2 * self.width].to_vec(),
            }
        };
        visible.iter().zip(conditions.chunks(self.width)).enumerate().map(sequence).collect()
    }

    /// As [`JointTransformer::guide`], with the values of each scale, `[batch, tokens, width]`.
    pub fn guide(&self, known: &[(usize, Tensor<4>)]) -> Option<Vec<Vec<f32>>> {
        let mut sum: Option<Map> = None;
        for (modality, features) in known {
            let guide = self.guides.get(*modality).expect("forcing is aligned");
            let map = crate::packed::to_map(features.clone());
            let values = guide.embed.apply(&map.values);
            let mut map = Map { channels: self.width, values, ..map };
            for block in &guide.blocks {
                map = block.apply(&map);
            }
            match &mut sum {
                // What the scales see is linear in the maps, so the sum can be taken first.
                Some(sum) => sum.values.iter_mut().zip(&map.values).for_each(|(a, b)| *a += b),
                None => sum = Some(map),
            }
        }
        let map = from_map(&sum?, &known.first()?.1.device());
        Some((0..self.scales.len()).map(|k| values(area_tokens(map.clone(), self.scales.side(k)))).collect())
    }

    /// Hidden states of scale `k` of every sequence, before the head: per sequence `[visible · tokens, width]`, one
    /// after another.
    pub fn step(&self, k: usize, sequences: &mut [Sequence], inputs: &[SequenceInput]) -> Vec<f32> {
        let count = self.scales.tokens(k);
        let rows = Rows::new(sequences.iter().map(|sequence| sequence.visible.len() * count));
        let mut x = self.embed(k, sequences, inputs);
        for (index, block) in self.blocks.iter().enumerate() {
            x = self.block(index, block, x, &rows, sequences);
            if k + 1 == self.scales.len() {
                // Nobody looks back at the last scale. This is most of what a generation needs beside the weights: gone
                // before the next block's grows.
                sequences.iter_mut().for_each(|sequence| sequence.blocks[index].0 = KeyValues::default());
            }
        }
        x
    }

    /// The states of modality `target` normed for the head: per sequence `[tokens, width]`, one after another.
    pub fn head_norm(&self, k: usize, sequences: &[Sequence], hidden: &[f32], target: usize) -> Vec<f32> {
        let size = self.scales.tokens(k) * self.width;
        let mut normed = vec![0.0; sequences.len() * size];
        let mut start = 0;
        for (sequence, normed) in sequences.iter().zip(normed.chunks_mut(size)) {
            let slot = sequence.visible.iter().position(|&m| m == target).expect("a target is visible");
            let part = &hidden[start + slot * size..][..size];
            let (gain, shift) = sequence.head.split_at(self.width);
            layer_norm(part, gain, shift, self.epsilon, normed);
            start += sequence.visible.len() * size;
        }
        normed
    }

    /// As [`JointTransformer::logits`].
    pub fn logits(&self, normed: &[f32], chosen: Option<&[f32]>, level: usize) -> Vec<f32> {
        let deeper = match (&self.depth_head, level) {
            (_, 0) => None,
            (Some(depth_head), _) => {
                let chosen = chosen.expect("codes above the first depend on those chosen before");
                let own = &depth_head.level[level * self.width..][..self.width];
                let mut mixed = depth_head.chosen.apply(chosen);
                for (mixed, hidden) in mixed.chunks_mut(self.width).zip(normed.chunks(self.width)) {
                    let sum = mixed.iter_mut().zip(hidden.iter().zip(own));
                    sum.for_each(|(mixed, (hidden, own))| *mixed += hidden + own);
                }
                let mut wide = vec![0.0; mixed.len() / self.width * depth_head.up.outputs()];
                depth_head.up.apply_to(&mixed, &mut wide, |_, rows| gelu(rows));
                let mut deeper = depth_head.down.apply(&wide);
                deeper.iter_mut().zip(normed).for_each(|(x, hidden)| *x += hidden);
                Some(deeper)
            }
            (None, _) => panic!("this model predicts one code per position"),
        };
        let hidden = deeper.as_deref().unwrap_or(normed);
        match &self.to_code {
            Some(to_code) => self.head.apply(&to_code.apply(hidden)),
            None => self.head.apply(hidden),
        }
    }

    /// Input embeddings of scale `k` of every sequence.
    fn embed(&self, k: usize, sequences: &[Sequence], inputs: &[SequenceInput]) -> Vec<f32> {
        let (width, range) = (self.width, self.scales.range(k));
        let mut x = match k {
            0 => Vec::new(),
            _ => {
                let words: Vec<f32> = inputs
                    .iter()
                    .flat_map(|input| input.words.iter().flat_map(|words| words.iter().copied()))
                    .collect();
                self.word_embedding.apply(&words)
            }
        };
        if k == 0 {
            for sequence in sequences {
                for _ in &sequence.visible {
                    let start = self.start_position.chunks(width);
                    x.extend(
                        start.flat_map(|start| start.iter().zip(&sequence.condition).map(|(a, b)| a + b)),
                    );
                }
            }
        }
        let position = &self.position[range.start * width..range.end * width];
        let level = &self.level[k * width..(k + 1) * width];
        let mut parts = x.chunks_mut(range.len() * width);
        for (sequence, input) in sequences.iter().zip(inputs) {
            for &modality in &sequence.visible {
                let part = parts.next().expect("as many inputs as visible modalities");
                let own = &self.modality[modality * width..(modality + 1) * width];
                let place: Vec<f32> = level.iter().zip(own).map(|(a, b)| a + b).collect();
                for (row, position) in part.chunks_mut(width).zip(position.chunks(width)) {
                    let sum = row.iter_mut().zip(position.iter().zip(&place));
                    sum.for_each(|(x, (position, place))| *x += position + place);
                }
                if let Some(guide) = input.guide {
                    part.iter_mut().zip(guide).for_each(|(x, guide)| *x += guide);
                }
            }
        }
        x
    }

    fn block(
        &self,
        index: usize,
        block: &PackedBlock,
        x: Vec<f32>,
        rows: &Rows,
        sequences: &mut [Sequence],
    ) -> Vec<f32> {
        let width = self.width;
        // Gains of attention and feed-forward, scales of both norms, shifts of both norms.
        let vector = |sequences: &[Sequence], sequence: usize, i: usize| -> Vec<f32> {
            sequences[sequence].blocks[index].1[i * width..(i + 1) * width].to_vec()
        };
        let vectors = |sequences: &[Sequence], i: usize| -> Vec<Vec<f32>> {
            (0..sequences.len()).map(|sequence| vector(sequences, sequence, i)).collect()
        };
        let normed = self.norm(&x, rows, &vectors(sequences, 2), &vectors(sequences, 4));
        let qkv = block.qkv.apply(&normed);
        let mixed: Vec<Vec<f32>> = sequences
            .par_iter_mut()
            .enumerate()
            .map(|(i, sequence)| {
                let own = rows.range(i);
                sequence.blocks[index].0.step(&qkv[3 * width * own.start..3 * width * own.end], &block.scores)
            })
            .collect();
        let x = self.branch(&block.out, &mixed.concat(), &x, rows, &vectors(sequences, 0));

        let normed = self.norm(&x, rows, &vectors(sequences, 3), &vectors(sequences, 5));
        let mut wide = vec![0.0; normed.len() / width * block.up.outputs()];
        block.up.apply_to(&normed, &mut wide, |_, rows| (block.activation)(rows));
        self.branch(&block.down, &wide, &x, rows, &vectors(sequences, 1))
    }

    /// Layer norm, then (1 + gain) · x + shift of each row's sequence.
    fn norm(&self, x: &[f32], rows: &Rows, gains: &[Vec<f32>], shifts: &[Vec<f32>]) -> Vec<f32> {
        let mut out = vec![0.0; x.len()];
        let pieces = out.par_chunks_mut(ROWS * self.width).zip(x.par_chunks(ROWS * self.width)).enumerate();
        pieces.for_each(|(piece, (out, x))| {
            let each = out.chunks_mut(self.width).zip(x.chunks(self.width)).enumerate();
            for (i, (out, x)) in each {
                let sequence = rows.owner(piece * ROWS + i);
                layer_norm(x, &gains[sequence], &shifts[sequence], self.epsilon, out);
            }
        });
        out
    }

    /// x + gain · layer(branch).
    fn branch(&self, layer: &Linear, branch: &[f32], x: &[f32], rows: &Rows, gains: &[Vec<f32>]) -> Vec<f32> {
        let mut out = vec![0.0; x.len()];
        layer.apply_to(branch, &mut out, |first, out| {
            let x = x[first * self.width..].chunks(self.width);
            for (i, (out, x)) in out.chunks_mut(self.width).zip(x).enumerate() {
                let gain = &gains[rows.owner(first + i)];
                out.iter_mut().zip(x.iter().zip(gain)).for_each(|(out, (x, gain))| *out = x + gain * *out);
            }
        });
        out
    }
}

/// Which rows belong to which sequence.
struct Rows {
    /// The end of each sequence.
    ends: Vec<usize>,
}

impl Rows {
    fn new(counts: impl Iterator<Item = usize>) -> Self {
        let mut end = 0;
        let ends = counts.map(|count| {
            end += count;
            end
        });
        Self { ends: ends.collect() }
    }

    fn range(&self, sequence: usize) -> std::ops::Range<usize> {
        let start = if sequence == 0 { 0 } else { self.ends[sequence - 1] };
        start..self.ends[sequence]
    }

    fn owner(&self, row: usize) -> usize {
        self.ends.partition_point(|&end| end <= row)
    }
}
