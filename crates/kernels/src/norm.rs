//! Layer norm and group norm.

use rayon::prelude::*;

use crate::map::Map;
use crate::simd::{fold, sigmoid, vectorised};

vectorised! {
    /// Layer norm of each row of `gain.len()` values, then (1 + gain) · x + shift.
    pub fn layer_norm(rows: &'a [f32], gain: &'a [f32], shift: &'a [f32], epsilon: f32, out: &'a mut [f32]) {
        let width = gain.len().max(1);
        for (row, out) in rows.chunks(width).zip(out.chunks_mut(width)) {
            let count = row.len() as f32;
            let mean = fold(row, 0.0, |sum, x| sum + x, |a, b| a + b) / count;
            let square = |sum: f32, x: f32| sum + (x - mean) * (x - mean);
            let variance = fold(row, 0.0, square, |a, b| a + b) / count;
            let scale = 1.0 / (variance + epsilon).sqrt();
            for ((out, &x), (&gain, &shift)) in out.iter_mut().zip(row).zip(gain.iter().zip(shift)) {
                *out = (x - mean) * scale * (1.0 + gain) + shift;
            }
        }
    }
}

/// Positions of a map that one thread takes at a time.
const POSITIONS: usize = 512;

/// Group norm of each picture of a map with the given gain and shift per channel; then SiLU, when `silu`.
///
/// # Panics
/// When the groups do not divide the channels.
pub fn group_norm(map: &Map, groups: usize, gain: &[f32], shift: &[f32], epsilon: f32, silu: bool) -> Map {
    let channels = map.channels;
    assert!(groups > 0 && channels.is_multiple_of(groups), "{groups} groups of {channels} channels");
    assert!(gain.len() == channels && shift.len() == channels, "a gain and a shift per channel");
    let mut out = Map::unfilled(map.batch, map.height, map.width, channels);
    let plane = map.height * map.width * channels;
    if plane == 0 {
        return out;
    }
    for (values, out) in map.values.chunks(plane).zip(out.values.chunks_mut(plane)) {
        let (means, scales) = group_moments(values, channels, groups, epsilon);
        let gain: Vec<f32> = gain.iter().zip(&scales).map(|(gain, scale)| gain * scale).collect();
        let size = POSITIONS * channels;
        let work = |(values, out)| normalise(values, &means, &gain, shift, silu, out);
        match plane <= size {
            true => work((values, out)),
            false => values.par_chunks(size).zip(out.par_chunks_mut(size)).for_each(work),
        }
    }
    out
}

/// Per channel, mean and 1 ÷ deviation of its group.
fn group_moments(values: &[f32], channels: usize, groups: usize, epsilon: f32) -> (Vec<f32>, Vec<f32>) {
    // Sums of differences from one value near the mean do not lose the small differences; sums of a few positions at a
    // time stay exact enough in 32 bits.
    let pivot = &values[..channels];
    let piece = |values: &[f32]| {
        let mut sums = vec![0.0f64; 2 * channels];
        let mut few = vec![0.0f32; 2 * channels];
        for values in values.chunks(64 * channels) {
            few.fill(0.0);
            let (sum, squares) = few.split_at_mut(channels);
            add_differences(values, pivot, sum, squares);
            sums.iter_mut().zip(&few).for_each(|(sum, &few)| *sum += f64::from(few));
        }
        sums
    };
    let join = |mut a: Vec<f64>, b: Vec<f64>| {
        a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        a
    };
    let pieces: Vec<Vec<f64>> = values.par_chunks(POSITIONS * channels).map(piece).collect();
    let sums = pieces.into_iter().reduce(join).expect("at least one position");
    let (members, positions) = (channels / groups, (values.len() / channels) as f64);
    let (mut means, mut scales) = (vec![0.0; channels], vec![0.0; channels]);
    for group in 0..groups {
        let range = group * members..(group + 1) * members;
        let count = positions * members as f64;
        let mean =
            range.clone().map(|c| sums[c] / positions + f64::from(pivot[c])).sum::<f64>() / members as f64;
        // Σ(x − m)² from sums about the pivot p: Σ(x − p)² − 2(m − p)·Σ(x − p) + n·(m − p)².
        let around = |c: usize| {
            let off = mean - f64::from(pivot[c]);
            sums[channels + c] - 2.0 * off * sums[c] + positions * off * off
        };
        let variance = range.clone().map(around).sum::<f64>().max(0.0) / count;
        means[range.clone()].fill(mean as f32);
        scales[range].fill((1.0 / (variance + f64::from(epsilon)).sqrt()) as f32);
    }
    (means, scales)
}

vectorised! {
    fn add_differences(values: &'a [f32], pivot: &'a [f32], sums: &'a mut [f32], squares: &'a mut [f32]) {
        for position in values.chunks(pivot.len()) {
            let channels = sums.iter_mut().zip(squares.iter_mut()).zip(position.iter().zip(pivot));
            for ((sum, square), (&x, &pivot)) in channels {
                let difference = x - pivot;
                *sum += difference;
                *square += difference * difference;
            }
        }
    }
}

vectorised! {
    fn normalise(
        values: &'a [f32],
        means: &'a [f32],
        gain: &'a [f32],
        shift: &'a [f32],
        silu: bool,
        out: &'a mut [f32],
    ) {
        let channels = means.len();
        for (position, out) in values.chunks(channels).zip(out.chunks_mut(channels)) {
            let vectors = means.iter().zip(gain).zip(shift);
            for ((out, &x), ((&mean, &gain), &shift)) in out.iter_mut().zip(position).zip(vectors) {
                *out = (x - mean) * gain + shift;
            }
            if silu {
                for x in out {
                    *x *= sigmoid(*x);
                }
            }
        }
    }
}
