//! Convolutions over maps with channels last.

use std::cell::Cell;

use rayon::prelude::*;

use crate::linear::Linear;
use crate::map::Map;
use crate::precision::Precision;
use crate::winograd::{self, Winograd};

/// Positions that one thread takes at a time.
const POSITIONS: usize = 66;

/// Which positions a convolution sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Side of the kernel.
    pub side: usize,
    /// Positions from one window to the next.
    pub stride: usize,
    /// Rows and columns of zeros before the first ones.
    pub before: usize,
    /// Rows and columns of zeros after the last ones.
    pub after: usize,
    /// Whether the map is doubled first, each value to 2 × 2 equal ones.
    pub double: bool,
}

impl Window {
    /// A window of an odd side that keeps the side of the map.
    pub fn same(side: usize) -> Self {
        Self { side, stride: 1, before: side / 2, after: side / 2, double: false }
    }

    /// The same window over the doubled map.
    pub fn doubled(self) -> Self {
        Self { double: true, ..self }
    }

    fn outputs(&self, length: usize) -> usize {
        let length = self.input(length) + self.before + self.after;
        if length < self.side { 0 } else { (length - self.side) / self.stride + 1 }
    }

    /// A side as the window sees it.
    fn input(&self, length: usize) -> usize {
        if self.double { 2 * length } else { length }
    }
}

/// A convolution with packed weights.
#[derive(Debug)]
pub struct Convolution {
    inputs: usize,
    outputs: usize,
    window: Window,
    method: Method,
}

#[derive(Debug)]
enum Method {
    /// The values under each window are gathered into a row.
    Gather(Linear),
    Winograd(Winograd),
}

impl Convolution {
    /// Packs `weight` `[outputs, inputs, side, side]` with one `bias` per output. `side` is the usual side of what comes
    /// out: it decides which method pays, and any other side works as well.
    ///
    /// # Panics
    /// When the sizes of weight and bias do not fit, there is no input or output, or the window has no side or stride.
    pub fn new(weight: &[f32], bias: &[f32], window: Window, precision: Precision, side: usize) -> Self {
        let (outputs, taps) = (bias.len(), window.side * window.side);
        assert!(window.stride > 0 && taps > 0, "a window with a side and a stride");
        assert!(!weight.is_empty() && outputs > 0, "inputs and outputs");
        let inputs = weight.len() / (outputs * taps);
        assert_eq!(weight.len(), outputs * inputs * taps, "a kernel per input and output");
        // One matrix [inputs, outputs] per tap.
        let mut by_tap = vec![0.0; weight.len()];
        for (output, weight) in weight.chunks(inputs * taps).enumerate() {
            for (input, weight) in weight.chunks(taps).enumerate() {
                for (tap, &w) in weight.iter().enumerate() {
                    by_tap[(tap * inputs + input) * outputs + output] = w;
                }
            }
        }
        let plain = window.side == 3 && window.stride == 1 && window.before == 1 && window.after == 1;
        let method = match winograd::tile(inputs, outputs, side) {
            Some(tile) if plain && precision == Precision::F32 => {
                Method::Winograd(Winograd::new(&by_tap, inputs, bias, tile))
            }
            _ => Method::Gather(Linear::new(&by_tap, taps * inputs, bias, precision)),
        };
        Self { inputs, outputs, window, method }
    }

    /// The convolution of `map`, plus `add` of the same shape as what comes out.
    ///
    /// # Panics
    /// When the shapes do not fit.
    pub fn apply(&self, map: &Map, add: Option<&Map>) -> Map {
        assert_eq!(map.channels, self.inputs, "channels that go in");
        let (height, width) = (self.window.outputs(map.height), self.window.outputs(map.width));
        let mut out = Map::unfilled(map.batch, height, width, self.outputs);
        assert!(add.is_none_or(|add| add.values.len() == out.values.len()), "shapes to add");
        if out.values.is_empty() {
            return out;
        }
        let add = add.map(|add| &add.values[..]);
        match &self.method {
            Method::Winograd(method) => method.apply(map, self.window.double, add, &mut out),
            Method::Gather(linear) if self.window == Window::same(1) => {
                linear
                    .apply_to(&map.values, &mut out.values, |row, out| add_rows(add, row, self.outputs, out));
            }
            Method::Gather(linear) => self.gather(linear, map, add, &mut out),
        }
        out
    }

    fn gather(&self, linear: &Linear, map: &Map, add: Option<&[f32]>, out: &mut Map) {
        let (height, width) = (out.height, out.width);
        let pieces = out.values.par_chunks_mut(POSITIONS * self.outputs).enumerate();
        pieces.for_each(|(piece, out)| {
            let first = piece * POSITIONS;
            let count = out.len() / self.outputs;
            with_scratch(linear.inputs() * count, |rows| {
                for (i, row) in rows.chunks_mut(linear.inputs()).enumerate() {
                    let at = first + i;
                    let (picture, y, x) = (at / (height * width), at / width % height, at % width);
                    self.gather_row(map, picture, y, x, row);
                }
                linear.apply_to(rows, out, |_, _| {});
            });
            add_rows(add, first, self.outputs, out);
        });
    }

    /// The values under the window at row `y` and column `x` of what comes out, tap by tap.
    fn gather_row(&self, map: &Map, picture: usize, y: usize, x: usize, row: &mut [f32]) {
        let Window { side, stride, before, double, .. } = self.window;
        let (height, width) = (self.window.input(map.height), self.window.input(map.width));
        for (tap, part) in row.chunks_mut(self.inputs).enumerate() {
            let (y, x) = (y * stride + tap / side, x * stride + tap % side);
            let inside = y >= before && y - before < height && x >= before && x - before < width;
            if !inside {
                part.fill(0.0);
                continue;
            }
            let (y, x) = (y - before, x - before);
            let (y, x) = if double { (y / 2, x / 2) } else { (y, x) };
            let start = ((picture * map.height + y) * map.width + x) * self.inputs;
            part.copy_from_slice(&map.values[start..start + self.inputs]);
        }
    }
}

/// Adds rows of `add` from row `first` on.
pub(crate) fn add_rows(add: Option<&[f32]>, first: usize, width: usize, out: &mut [f32]) {
    if let Some(add) = add {
        out.iter_mut().zip(&add[first * width..]).for_each(|(out, add)| *out += add);
    }
}

/// Lends this thread's room for `size` values, whatever they are. It is taken out meanwhile: while a product waits for
/// other threads, this one may begin another piece.
pub(crate) fn with_scratch(size: usize, work: impl FnOnce(&mut [f32])) {
    thread_local!(static SCRATCH: Cell<Vec<f32>> = Cell::default());
    let mut scratch = SCRATCH.take();
    if scratch.len() < size {
        scratch.resize(size, 0.0);
    }
    work(&mut scratch[..size]);
    SCRATCH.set(scratch);
}
