//! Maps of features with channels last.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A batch of maps, `[batch, height, width, channels]`.
///
/// The memory of large maps that are dropped is kept for later ones: getting fresh pages from the system takes about as
/// long as normalising what will stand in them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Map {
    /// Pictures in the batch.
    pub batch: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Values per position.
    pub channels: usize,
    /// The values, row-major.
    pub values: Vec<f32>,
}

impl Map {
    /// Nothing but zeros.
    pub fn zeros(batch: usize, height: usize, width: usize, channels: usize) -> Self {
        Self { batch, height, width, channels, values: vec![0.0; batch * height * width * channels] }
    }

    /// A map whose values may be anything, for those who write all of them.
    pub(crate) fn unfilled(batch: usize, height: usize, width: usize, channels: usize) -> Self {
        Self { batch, height, width, channels, values: take(batch * height * width * channels) }
    }

    /// The shape alone: the same map without values.
    pub fn shape(&self) -> Self {
        Self { values: Vec::new(), ..*self }
    }

    /// From maps with channels first, `[batch, channels, height, width]`.
    ///
    /// # Panics
    /// When there are not as many values as the shape says.
    pub fn from_channels_first(shape: [usize; 4], values: &[f32]) -> Self {
        let [batch, channels, height, width] = shape;
        assert_eq!(values.len(), batch * channels * height * width, "as many values as the shape says");
        let values = transposed(values, batch, channels, height * width);
        Self { batch, height, width, channels, values }
    }

    /// The values with channels first, `[batch, channels, height, width]`.
    pub fn to_channels_first(&self) -> Vec<f32> {
        transposed(&self.values, self.batch, self.height * self.width, self.channels)
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        keep(std::mem::take(&mut self.values));
    }
}

/// Memory below this number of values is left to the allocator.
const LARGE: usize = 1 << 16;

/// Pieces of memory that are kept.
const KEPT: usize = 2;

/// Gives the memory that is kept for later maps back, if it is large: for those who will need other memory next.
pub fn release_maps() {
    const MUCH: usize = 1 << 24;
    let mut kept = kept();
    if kept.iter().map(Vec::len).sum::<usize>() > MUCH {
        kept.clear();
    }
}

fn kept() -> MutexGuard<'static, Vec<Vec<f32>>> {
    static KEPT: Mutex<Vec<Vec<f32>>> = Mutex::new(Vec::new());
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Memory for `size` values: the smallest piece that is kept and large enough, but not much larger.
fn take(size: usize) -> Vec<f32> {
    let fits = |piece: &&(usize, usize)| (size..=2 * size).contains(&piece.1);
    let mut kept = kept();
    let sizes: Vec<(usize, usize)> = kept.iter().map(Vec::len).enumerate().collect();
    match sizes.iter().filter(fits).min_by_key(|piece| piece.1) {
        Some(&(index, _)) if size >= LARGE => {
            let mut values = kept.swap_remove(index);
            values.truncate(size);
            values
        }
        _ => vec![0.0; size],
    }
}

fn keep(values: Vec<f32>) {
    if values.len() >= LARGE {
        let mut kept = kept();
        if kept.len() == KEPT {
            kept.remove(0);
        }
        kept.push(values);
    }
}

/// `[batch, rows, columns]` → `[batch, columns, rows]`, in squares that fit the cache.
fn transposed(values: &[f32], batch: usize, rows: usize, columns: usize) -> Vec<f32> {
    const SIDE: usize = 16;
    let mut out = vec![0.0; values.len()];
    if out.is_empty() {
        return out;
    }
    for (values, out) in values.chunks(rows * columns).zip(out.chunks_mut(rows * columns)).take(batch) {
        for top in (0..rows).step_by(SIDE) {
            for left in (0..columns).step_by(SIDE) {
                for column in left..(left + SIDE).min(columns) {
                    for row in top..(top + SIDE).min(rows) {
                        out[column * rows + row] = values[row * columns + column];
                    }
                }
            }
        }
    }
    out
}
