//! 3 × 3 convolutions by Winograd's method: a tile of M × M results from (M + 2) × (M + 2) products per pair of channels
//! instead of 9·M².
//!
//! Y = Aᵀ·[(G·g·Gᵀ) ⊙ (Bᵀ·d·B)]·A with the matrices of Lavin and Gray (2016). The products of one place in the tile over
//! all tiles and channels are one matrix product.

use rayon::prelude::*;

use crate::convolution::{add_rows, with_scratch};
use crate::gemm::{self, Packed, Rows};
use crate::map::Map;
use crate::simd::{LANES, vectorised};

/// Tiles that one thread takes at a time: enough for the products, few enough for its cache.
const TILES: usize = 48;

/// Results per tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tile {
    /// 2 × 2 results: 2.25 times fewer products, nearly as exact as the plain way.
    Two,
    /// 4 × 4 results: 4 times fewer products.
    Four,
}

/// The tile that pays for these channels and side, if any.
pub(crate) fn tile(inputs: usize, outputs: usize, side: usize) -> Option<Tile> {
    let even = inputs.is_multiple_of(LANES) && outputs.is_multiple_of(LANES);
    match inputs.min(outputs) {
        // A few channels are gathered faster than they are transformed.
        _ if !even => None,
        32.. if side >= 64 => Some(Tile::Four),
        32.. if side >= 8 => Some(Tile::Two),
        _ => None,
    }
}

/// A 3 × 3 convolution with transformed weights.
pub(crate) struct Winograd {
    tile: Tile,
    inputs: usize,
    outputs: usize,
    /// One matrix `[inputs, outputs]` per place in the tile.
    weights: Vec<Packed<f32>>,
    bias: Vec<f32>,
}

impl std::fmt::Debug for Winograd {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.debug_struct("Winograd").field("tile", &self.tile).field("inputs", &self.inputs).finish()
    }
}

const G2: &[[f32; 3]] = &[[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]];

const G4: &[[f32; 3]] = &[
    [1.0 / 4.0, 0.0, 0.0],
    [-1.0 / 6.0, -1.0 / 6.0, -1.0 / 6.0],
    [-1.0 / 6.0, 1.0 / 6.0, -1.0 / 6.0],
    [1.0 / 24.0, 1.0 / 12.0, 1.0 / 6.0],
    [1.0 / 24.0, -1.0 / 12.0, 1.0 / 6.0],
    [0.0, 0.0, 1.0],
];

impl Winograd {
    /// Transforms and packs one matrix `[inputs, outputs]` per tap.
    pub fn new(by_tap: &[f32], inputs: usize, bias: &[f32], tile: Tile) -> Self {
        let outputs = bias.len();
        let g = match tile {
            Tile::Two => G2,
            Tile::Four => G4,
        };
        let places = g.len() * g.len();
        let weights = (0..places).into_par_iter().map(|place| {
            let (rows, columns) = (g[place / g.len()], g[place % g.len()]);
            let mut weight = vec![0.0f32; inputs * outputs];
            for (tap, kernel) in by_tap.chunks(inputs * outputs).enumerate() {
                let factor = rows[tap / 3] * columns[tap % 3];
                if factor != 0.0 {
                    add_scaled(&mut weight, kernel, factor);
                }
            }
            gemm::pack(Rows::dense(&weight, outputs))
        });
        Self { tile, inputs, outputs, weights: weights.collect(), bias: bias.to_vec() }
    }

    /// Results per side of a tile.
    fn side(&self) -> usize {
        match self.tile {
            Tile::Two => 2,
            Tile::Four => 4,
        }
    }

    /// Fills `out`, plus `add`.
    pub fn apply(&self, map: &Map, double: bool, add: Option<&[f32]>, out: &mut Map) {
        let (height, width, side) = (out.height, out.width, self.side());
        let (down, across) = (height.div_ceil(side), width.div_ceil(side));
        let plane = height * width * self.outputs;
        // At least two pieces for each thread, unless they get too small for the product.
        let wanted = (down * across * out.batch).div_ceil(2 * rayon::current_num_threads());
        let rows = wanted.clamp(12, TILES).div_ceil(across).min(down);
        let size = rows * side * width * self.outputs;
        let pieces = out.values.par_chunks_mut(plane).enumerate().flat_map(|(picture, out)| {
            out.par_chunks_mut(size).enumerate().map(move |(piece, out)| (picture, piece, out))
        });
        pieces.for_each(|(picture, piece, out)| {
            let top = piece * rows;
            let tiles = Tiles { map, double, picture, top, down: rows.min(down - top), across };
            self.piece(&tiles, width, out);
            add_rows(add, picture * height * width + top * side * width, self.outputs, out);
        });
    }

    fn piece(&self, tiles: &Tiles, width: usize, out: &mut [f32]) {
        let (count, places) = (tiles.down * tiles.across, self.weights.len());
        with_scratch(places * count * (self.inputs + self.outputs), |room| {
            let (seen, products) = room.split_at_mut(places * count * self.inputs);
            match self.tile {
                Tile::Two => input_2(tiles, seen),
                Tile::Four => input_4(tiles, seen),
            }
            let pairs = seen.chunks(count * self.inputs).zip(products.chunks_mut(count * self.outputs));
            for ((seen, products), weight) in pairs.zip(&self.weights) {
                gemm::product(products, Rows::dense(seen, self.inputs), weight, None, false);
            }
            match self.tile {
                Tile::Two => output_2(products, tiles.across, width, &self.bias, out),
                Tile::Four => output_4(products, tiles.across, width, &self.bias, out),
            }
        });
    }
}

/// Whole rows of tiles of one picture.
struct Tiles<'m> {
    map: &'m Map,
    double: bool,
    picture: usize,
    /// The first row of tiles.
    top: usize,
    /// Rows of tiles.
    down: usize,
    /// Tiles in a row.
    across: usize,
}

impl Tiles<'_> {
    /// Where in the map the values at row `y` and column `x` begin, counted from one before the first; None outside.
    #[inline(always)]
    fn start(&self, y: usize, x: usize) -> Option<usize> {
        let shift = usize::from(self.double);
        let (y, x) = (y.checked_sub(1)? >> shift, x.checked_sub(1)? >> shift);
        let inside = y < self.map.height && x < self.map.width;
        inside.then(|| ((self.picture * self.map.height + y) * self.map.width + x) * self.map.channels)
    }
}

/// Values of neighbouring channels.
#[derive(Clone, Copy)]
struct Lanes([f32; LANES]);

impl Lanes {
    const ZERO: Self = Self([0.0; LANES]);

    #[inline(always)]
    fn load(values: &[f32], start: usize) -> Self {
        let mut lanes = [0.0; LANES];
        lanes.copy_from_slice(&values[start..start + LANES]);
        Self(lanes)
    }

    #[inline(always)]
    fn store(self, values: &mut [f32], start: usize) {
        values[start..start + LANES].copy_from_slice(&self.0);
    }
}

impl std::ops::Add for Lanes {
    type Output = Self;
    #[inline(always)]
    fn add(mut self, other: Self) -> Self {
        for (a, b) in self.0.iter_mut().zip(other.0) {
            *a += b;
        }
        self
    }
}

impl std::ops::Sub for Lanes {
    type Output = Self;
    #[inline(always)]
    fn sub(mut self, other: Self) -> Self {
        for (a, b) in self.0.iter_mut().zip(other.0) {
            *a -= b;
        }
        self
    }
}

impl std::ops::Mul<f32> for Lanes {
    type Output = Self;
    #[inline(always)]
    fn mul(mut self, factor: f32) -> Self {
        for a in &mut self.0 {
            *a *= factor;
        }
        self
    }
}

/// Bᵀ·d for 2 × 2 results.
#[inline(always)]
fn before_2(d: [Lanes; 4]) -> [Lanes; 4] {
    [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]]
}

/// Aᵀ·m for 2 × 2 results.
#[inline(always)]
fn after_2(m: [Lanes; 4]) -> [Lanes; 2] {
    [m[0] + m[1] + m[2], m[1] - m[2] - m[3]]
}

/// Bᵀ·d for 4 × 4 results.
#[inline(always)]
fn before_4(d: [Lanes; 6]) -> [Lanes; 6] {
    let (even, odd) = (d[4] - d[2] * 4.0, d[3] - d[1] * 4.0);
    let (near, far) = (d[4] - d[2], (d[3] - d[1]) * 2.0);
    [
        d[0] * 4.0 - d[2] * 5.0 + d[4],
        even + odd,
        even - odd,
        near + far,
        near - far,
        d[1] * 4.0 - d[3] * 5.0 + d[5],
    ]
}

/// Aᵀ·m for 4 × 4 results.
#[inline(always)]
fn after_4(m: [Lanes; 6]) -> [Lanes; 4] {
    let (sum, difference) = (m[1] + m[2], m[1] - m[2]);
    let (far_sum, far_difference) = (m[3] + m[4], m[3] - m[4]);
    [
        m[0] + sum + far_sum,
        difference + far_difference * 2.0,
        sum + far_sum * 4.0,
        difference + far_difference * 8.0 + m[5],
    ]
}

/// Bᵀ·d·B of every tile: `[places, tiles, channels]`.
#[inline(always)]
fn transform_input<const N: usize>(
    tiles: &Tiles,
    out: &mut [f32],
    results: usize,
    before: impl Fn([Lanes; N]) -> [Lanes; N],
) {
    let (channels, values) = (tiles.map.channels, &tiles.map.values[..]);
    let count = tiles.down * tiles.across;
    for tile in 0..count {
        let (top, left) = ((tiles.top + tile / tiles.across) * results, tile % tiles.across * results);
        let mut starts = [[None; N]; N];
        for (i, row) in starts.iter_mut().enumerate() {
            for (j, start) in row.iter_mut().enumerate() {
                *start = tiles.start(top + i, left + j);
            }
        }
        for channel in (0..channels).step_by(LANES) {
            let mut half = [[Lanes::ZERO; N]; N];
            for j in 0..N {
                let mut column = [Lanes::ZERO; N];
                for i in 0..N {
                    if let Some(start) = starts[i][j] {
                        column[i] = Lanes::load(values, start + channel);
                    }
                }
                let column = before(column);
                for i in 0..N {
                    half[i][j] = column[i];
                }
            }
            for (i, row) in half.into_iter().enumerate() {
                for (j, value) in before(row).into_iter().enumerate() {
                    value.store(out, ((i * N + j) * count + tile) * channels + channel);
                }
            }
        }
    }
}

/// Aᵀ·m·A of every tile plus the bias, into rows of `width` positions.
#[inline(always)]
fn transform_output<const N: usize, const M: usize>(
    products: &[f32],
    across: usize,
    width: usize,
    bias: &[f32],
    out: &mut [f32],
    after: impl Fn([Lanes; N]) -> [Lanes; M],
) {
    let channels = bias.len();
    let (count, height) = (products.len() / (N * N * channels), out.len() / (width * channels));
    for tile in 0..count {
        let (top, left) = (tile / across * M, tile % across * M);
        for channel in (0..channels).step_by(LANES) {
            let bias = Lanes::load(bias, channel);
            // By columns first, then by rows of what they give.
            let columns: [[Lanes; M]; N] = std::array::from_fn(|j| {
                after(std::array::from_fn(|i| {
                    Lanes::load(products, ((i * N + j) * count + tile) * channels + channel)
                }))
            });
            let half: [[Lanes; N]; M] = std::array::from_fn(|i| std::array::from_fn(|j| columns[j][i]));
            for (i, row) in half.into_iter().enumerate().take(height - top.min(height)) {
                for (j, value) in after(row).into_iter().enumerate().take(width - left.min(width)) {
                    (value + bias).store(out, ((top + i) * width + left + j) * channels + channel);
                }
            }
        }
    }
}

vectorised! {
    fn add_scaled(sum: &'a mut [f32], values: &'a [f32], factor: f32) {
        for (sum, &value) in sum.iter_mut().zip(values) {
            *sum += factor * value;
        }
    }
}

vectorised! {
    fn input_2(tiles: &'a Tiles<'a>, out: &'a mut [f32]) {
        transform_input(tiles, out, 2, before_2);
    }
}

vectorised! {
    fn input_4(tiles: &'a Tiles<'a>, out: &'a mut [f32]) {
        transform_input(tiles, out, 4, before_4);
    }
}

vectorised! {
    fn output_2(products: &'a [f32], across: usize, width: usize, bias: &'a [f32], out: &'a mut [f32]) {
        transform_output(products, across, width, bias, out, after_2);
    }
}

vectorised! {
    fn output_4(products: &'a [f32], across: usize, width: usize, bias: &'a [f32], out: &'a mut [f32]) {
        transform_output(products, across, width, bias, out, after_4);
    }
}
