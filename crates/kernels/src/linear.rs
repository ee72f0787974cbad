//! Linear layers with packed weights.

use std::cell::Cell;

use rayon::prelude::*;

use crate::gemm::{self, Packed, Rows};
use crate::precision::Precision;
use crate::quantize::{dequantize, quantize, quantize_weight};

/// The most rows that one thread takes at a time: what is done to them after the product still finds them in the cache.
const ROWS: usize = 66;

/// The fewest rows that are worth a piece of their own, because each piece reads all weights.
const FEW: usize = 33;

/// Rows that the product's kernels take together: 6 of 32-bit numbers with AVX2, of which pieces should be multiples.
const TILE: usize = 6;

/// x·W + b with packed weights.
pub struct Linear {
    inputs: usize,
    outputs: usize,
    weight: Weight,
    bias: Vec<f32>,
}

enum Weight {
    Floats(Packed<f32>),
    Bytes {
        packed: Packed<i8>,
        /// Scale of each output.
        scales: Vec<f32>,
        /// Sum of each output's weights, scaled.
        sums: Vec<f32>,
    },
}

impl std::fmt::Debug for Linear {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.debug_struct("Linear").field("inputs", &self.inputs).field("outputs", &self.outputs).finish()
    }
}

impl Linear {
    /// Packs `weight`, `[inputs, outputs]` row-major; an empty `bias` is none.
    ///
    /// # Panics
    /// When the sizes of weight and bias do not fit, or there is no input or no output.
    pub fn new(weight: &[f32], inputs: usize, bias: &[f32], precision: Precision) -> Self {
        assert!(inputs > 0 && !weight.is_empty(), "inputs and outputs");
        let outputs = weight.len() / inputs;
        assert_eq!(weight.len(), inputs * outputs, "whole rows of weights");
        let bias = if bias.is_empty() { vec![0.0; outputs] } else { bias.to_vec() };
        assert_eq!(bias.len(), outputs, "a bias for each output");
        let weight = match precision {
            Precision::F32 => Weight::Floats(gemm::pack(Rows {
                data: weight,
                count: inputs,
                width: outputs,
                stride: outputs,
            })),
            Precision::Int8 => {
                let (bytes, scales) = quantize_weight(weight, outputs, gemm::largest_byte());
                let mut sums = vec![0.0f32; outputs];
                for row in bytes.chunks(outputs) {
                    sums.iter_mut().zip(row).for_each(|(sum, &byte)| *sum += f32::from(byte));
                }
                sums.iter_mut().zip(&scales).for_each(|(sum, scale)| *sum *= scale);
                let rows = Rows { data: &bytes[..], count: inputs, width: outputs, stride: outputs };
                Weight::Bytes { packed: gemm::pack_bytes(rows), scales, sums }
            }
        };
        Self { inputs, outputs, weight, bias }
    }

    /// Values in a row that goes in.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Values in a row that comes out.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Rows `[n, inputs]` → `[n, outputs]`.
    pub fn apply(&self, x: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; x.len() / self.inputs * self.outputs];
        self.apply_to(x, &mut out, |_, _| {});
        out
    }

    /// Rows `[n, inputs]` → `out` `[n, outputs]`; then calls `finish` with runs of whole rows and the number of the first
    /// of them, while they are still in the cache.
    ///
    /// # Panics
    /// When the numbers of rows differ.
    pub fn apply_to(&self, x: &[f32], out: &mut [f32], finish: impl Fn(usize, &mut [f32]) + Sync) {
        if out.is_empty() {
            return;
        }
        let rows = out.len() / self.outputs;
        assert_eq!(x.len(), rows * self.inputs, "as many rows out as in");
        let Some(size) = piece(rows, rayon::current_num_threads()) else {
            self.rows(x, out);
            return finish(0, out);
        };
        let pieces = out.par_chunks_mut(size * self.outputs).zip(x.par_chunks(size * self.inputs));
        pieces.enumerate().for_each(|(i, (out, x))| {
            self.rows(x, out);
            finish(i * size, out);
        });
    }

    fn rows(&self, x: &[f32], out: &mut [f32]) {
        match &self.weight {
            Weight::Floats(packed) => {
                let count = out.len() / self.outputs;
                let x = Rows { data: x, count, width: self.inputs, stride: self.inputs };
                gemm::product(out, x, packed, Some(&self.bias), false);
            }
            Weight::Bytes { packed, scales, sums } => with_scratch(|scratch| {
                let count = out.len() / self.outputs;
                scratch.bytes.resize(x.len(), 0);
                scratch.sums.resize(out.len(), 0);
                let rows = x.chunks(self.inputs).zip(scratch.bytes.chunks_mut(self.inputs));
                let grids: Vec<_> = rows.map(|(row, bytes)| quantize(row, bytes)).collect();
                let bytes = Rows { data: &scratch.bytes[..], count, width: self.inputs, stride: self.inputs };
                gemm::product_bytes(&mut scratch.sums, bytes, packed);
                let rows = out.chunks_mut(self.outputs).zip(scratch.sums.chunks(self.outputs));
                for ((out, row), grid) in rows.zip(grids) {
                    dequantize(row, grid, scales, sums, &self.bias, out);
                }
            }),
        }
    }
}

/// Rows of a piece, at most [`ROWS`]: as many pieces as give every thread the same number of them, unless they get too
/// small. None when all are one piece, whose columns all threads share, which the product itself arranges; the pieces
/// of a gathered convolution are such.
fn piece(rows: usize, threads: usize) -> Option<usize> {
    if rows <= ROWS {
        return None;
    }
    let least = rows.div_ceil(ROWS);
    let pieces = least.next_multiple_of(threads).min(rows / FEW).max(least);
    Some(rows.div_ceil(pieces).next_multiple_of(TILE))
}

/// Room for the bytes of a piece of work, kept from piece to piece.
#[derive(Default)]
struct Scratch {
    bytes: Vec<u8>,
    sums: Vec<i32>,
}

/// Lends this thread's room. It is taken out meanwhile: while a product waits for other threads, this one may begin
/// another piece, which then gets room of its own.
fn with_scratch(work: impl FnOnce(&mut Scratch)) {
    thread_local!(static SCRATCH: Cell<Scratch> = Cell::default());
    let mut scratch = SCRATCH.take();
    work(&mut scratch);
    SCRATCH.set(scratch);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_shared_out_evenly() {
        for threads in [1, 2, 3, 8, 64] {
            for rows in 1..2000 {
                let size = piece(rows, threads);
                assert_eq!(size.is_none(), rows <= ROWS, "{rows} rows");
                let Some(size) = size else { continue };
                assert!(size <= ROWS && size.is_multiple_of(TILE), "{rows} rows: {size}");
                // With two threads, nobody has more to do than a piece above the mean.
                let busiest = rows.div_ceil(size).div_ceil(threads) * size;
                assert!(threads > 2 || busiest <= rows.div_ceil(threads) + size, "{rows} rows: {busiest}");
            }
        }
        // The steps of d16 on two threads: both are busy to the end.
        let busiest =
            |rows: usize| rows.div_ceil(piece(rows, 2).unwrap()).div_ceil(2) * piece(rows, 2).unwrap();
        assert_eq!([75, 108, 192, 300, 507, 768].map(busiest), [42, 54, 96, 162, 264, 396]);
    }
}
