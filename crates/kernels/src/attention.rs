//! Attention over keys and values that grow in place.

use rayon::prelude::*;

use crate::activation::softmax;
use crate::gemm::{self, Rows};
use crate::pages::Pages;

/// Queries taken at a time: their scores stay in the cache.
pub(crate) const QUERIES: usize = 60;

/// How scores are made of queries and keys.
#[derive(Clone, Debug, PartialEq)]
pub enum Scores {
    /// The product, times a factor.
    Product(f32),
    /// The product of vectors of length one, times a factor per head.
    Cosine(Vec<f32>),
}

/// The keys and values of one sequence in one block: room for its tokens is made at the start, and more are written
/// behind those that are there. More than there is room for are taken as well, after a move.
#[derive(Clone, Debug, Default)]
pub struct KeyValues {
    heads: usize,
    head_width: usize,
    /// Tokens that are there.
    tokens: usize,
    /// Tokens that there is room for.
    room: usize,
    /// `[heads, room, head width]`.
    keys: Pages,
    /// `[heads, room, head width]`.
    values: Pages,
}

impl KeyValues {
    /// Room for `room` tokens of `heads` heads. It takes no memory before tokens are there.
    pub fn new(heads: usize, head_width: usize, room: usize) -> Self {
        let pages = || Pages::new(heads * head_width * room);
        Self { heads, head_width, tokens: 0, room, keys: pages(), values: pages() }
    }

    /// Tokens that are there.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Adds tokens and lets each of them attend to all that are there.
    ///
    /// Queries, keys and values `[n, 3, heads, head width]` → softmax(q·kᵀ)·v per head, `[n, heads, head width]`.
    ///
    /// # Panics
    /// When there are not whole tokens.
    pub fn step(&mut self, tokens: &[f32], scores: &Scores) -> Vec<f32> {
        let (heads, head_width) = (self.heads, self.head_width);
        let width = heads * head_width;
        if width == 0 || tokens.is_empty() {
            return Vec::new();
        }
        assert!(tokens.len().is_multiple_of(3 * width), "whole tokens");
        let before = self.tokens;
        self.tokens += tokens.len() / 3 / width;
        if self.tokens > self.room {
            self.make_room(before);
        }
        let size = self.room * head_width;
        let heads =
            self.keys.values_mut().par_chunks_mut(size).zip(self.values.values_mut().par_chunks_mut(size));
        let mixed: Vec<Vec<f32>> = heads
            .enumerate()
            .map(|(index, (keys, values))| {
                let factor = match scores {
                    Scores::Product(factor) => *factor,
                    Scores::Cosine(factors) => factors[index],
                };
                let unit = matches!(scores, Scores::Cosine(_));
                let part = |i: usize| {
                    let start = i * width + index * head_width;
                    tokens.chunks(3 * width).map(move |token| &token[start..start + head_width])
                };
                let there = self.tokens * head_width;
                let (keys, values) = (&mut keys[..there], &mut values[..there]);
                let new = before * head_width;
                let mut queries = vec![0.0; there - new];
                for (to, query) in queries.chunks_mut(head_width).zip(part(0)) {
                    scaled(query, factor, unit, to);
                }
                for (to, key) in keys[new..].chunks_mut(head_width).zip(part(1)) {
                    scaled(key, 1.0, unit, to);
                }
                for (to, value) in values[new..].chunks_mut(head_width).zip(part(2)) {
                    to.copy_from_slice(value);
                }
                attend(&queries, keys, values, head_width)
            })
            .collect();
        let mut out = vec![0.0; tokens.len() / 3];
        for (index, mixed) in mixed.iter().enumerate() {
            let rows = out.chunks_mut(width).zip(mixed.chunks(head_width));
            rows.for_each(|(row, mixed)| row[index * head_width..][..head_width].copy_from_slice(mixed));
        }
        out
    }

    /// Room for as many tokens as are to be there, of which `before` are.
    fn make_room(&mut self, before: usize) {
        let mut larger = Self::new(self.heads, self.head_width, self.tokens);
        let (old, new) = (self.room * self.head_width, self.tokens * self.head_width);
        let pairs = [(&self.keys, &mut larger.keys), (&self.values, &mut larger.values)];
        for (from, to) in pairs {
            let heads = to.values_mut().chunks_mut(new).zip(from.values().chunks(old.max(1)));
            heads.for_each(|(to, from)| {
                let there = before * self.head_width;
                to[..there].copy_from_slice(&from[..there]);
            });
        }
        *self = Self { tokens: self.tokens, ..larger };
    }
}

/// softmax(q·kᵀ)·v for scaled queries `[n, width]` → `[n, width]`.
pub(crate) fn attend(queries: &[f32], keys: &[f32], values: &[f32], width: usize) -> Vec<f32> {
    let mut mixed = vec![0.0; queries.len()];
    let tokens = keys.len() / width;
    let keys = gemm::pack_transposed(Rows::dense(keys, width));
    let values = gemm::pack(Rows::dense(values, width));
    let mut scores = vec![0.0; QUERIES.min(queries.len() / width) * tokens];
    for (queries, mixed) in queries.chunks(QUERIES * width).zip(mixed.chunks_mut(QUERIES * width)) {
        let scores = &mut scores[..queries.len() / width * tokens];
        gemm::product(scores, Rows::dense(queries, width), &keys, None, false);
        softmax(scores, tokens);
        gemm::product(mixed, Rows::dense(scores, tokens), &values, None, false);
    }
    mixed
}

/// A vector times a factor; scaled to length one before, when `unit`.
fn scaled(vector: &[f32], factor: f32, unit: bool, to: &mut [f32]) {
    let factor = match unit {
        true => factor / vector.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-12),
        false => factor,
    };
    to.iter_mut().zip(vector).for_each(|(to, x)| *to = factor * x);
}
