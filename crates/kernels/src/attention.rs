//! Attention over keys and values that grow in place.

use rayon::prelude::*;

use crate::activation::softmax;
use crate::gemm::{self, Rows};

/// Queries taken at a time: their scores stay in the cache.
const QUERIES: usize = 60;

/// How scores are made of queries and keys.
#[derive(Clone, Debug, PartialEq)]
pub enum Scores {
    /// The product, times a factor.
    Product(f32),
    /// The product of vectors of length one, times a factor per head.
    Cosine(Vec<f32>),
}

/// The keys and values of one sequence in one block: room for all of its tokens is made at the start, and more are
/// written behind those that are there. More than there is room for are taken as well, after a move.
#[derive(Clone, Debug, Default)]
pub struct KeyValues {
    head_width: usize,
    heads: Vec<Head>,
}

#[derive(Clone, Debug, Default)]
struct Head {
    /// `[tokens, head width]`.
    keys: Vec<f32>,
    /// `[tokens, head width]`.
    values: Vec<f32>,
}

impl KeyValues {
    /// Room for `room` tokens of `heads` heads.
    pub fn new(heads: usize, head_width: usize, room: usize) -> Self {
        let size = head_width * room;
        let head = |_| Head { keys: Vec::with_capacity(size), values: Vec::with_capacity(size) };
        Self { head_width, heads: (0..heads).map(head).collect() }
    }

    /// Tokens that are there.
    pub fn tokens(&self) -> usize {
        self.heads.first().map_or(0, |head| head.keys.len().checked_div(self.head_width).unwrap_or(0))
    }

    /// Adds tokens and lets each of them attend to all that are there.
    ///
    /// Queries, keys and values `[n, 3, heads, head width]` → softmax(q·kᵀ)·v per head, `[n, heads, head width]`.
    ///
    /// # Panics
    /// When there are not whole tokens.
    pub fn step(&mut self, tokens: &[f32], scores: &Scores) -> Vec<f32> {
        let (heads, head_width) = (self.heads.len(), self.head_width);
        let width = heads * head_width;
        if width == 0 || tokens.is_empty() {
            return Vec::new();
        }
        assert!(tokens.len().is_multiple_of(3 * width), "whole tokens");
        let mixed: Vec<Vec<f32>> = self
            .heads
            .par_iter_mut()
            .enumerate()
            .map(|(index, head)| {
                let factor = match scores {
                    Scores::Product(factor) => *factor,
                    Scores::Cosine(factors) => factors[index],
                };
                let unit = matches!(scores, Scores::Cosine(_));
                let part = |i: usize| {
                    let start = i * width + index * head_width;
                    tokens.chunks(3 * width).map(move |token| &token[start..start + head_width])
                };
                let room = tokens.len() / 3 / heads;
                let mut queries = Vec::with_capacity(room);
                head.keys.reserve_exact(room);
                head.values.reserve_exact(room);
                part(0).for_each(|query| push_scaled(query, factor, unit, &mut queries));
                part(1).for_each(|key| push_scaled(key, 1.0, unit, &mut head.keys));
                part(2).for_each(|value| head.values.extend_from_slice(value));
                head.attend(&queries, head_width)
            })
            .collect();
        let mut out = vec![0.0; tokens.len() / 3];
        for (index, mixed) in mixed.iter().enumerate() {
            let rows = out.chunks_mut(width).zip(mixed.chunks(head_width));
            rows.for_each(|(row, mixed)| row[index * head_width..][..head_width].copy_from_slice(mixed));
        }
        out
    }
}

impl Head {
    /// softmax(q·kᵀ)·v for scaled queries `[n, width]` → `[n, width]`.
    fn attend(&self, queries: &[f32], width: usize) -> Vec<f32> {
        let mut mixed = vec![0.0; queries.len()];
        let tokens = self.keys.len() / width;
        let keys = gemm::pack_transposed(Rows::dense(&self.keys, width));
        let values = gemm::pack(Rows::dense(&self.values, width));
        let mut scores = vec![0.0; QUERIES.min(queries.len() / width) * tokens];
        for (queries, mixed) in queries.chunks(QUERIES * width).zip(mixed.chunks_mut(QUERIES * width)) {
            let scores = &mut scores[..queries.len() / width * tokens];
            gemm::product(scores, Rows::dense(queries, width), &keys, None, false);
            softmax(scores, tokens);
            gemm::product(mixed, Rows::dense(scores, tokens), &values, None, false);
        }
        mixed
    }
}

/// Adds a vector times a factor; scaled to length one before, when `unit`.
fn push_scaled(vector: &[f32], factor: f32, unit: bool, to: &mut Vec<f32>) {
    let factor = match unit {
        true => factor / vector.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-12),
        false => factor,
    };
    to.extend(vector.iter().map(|x| factor * x));
}
