//! The derivatives against differences of plain loops in 64 bits.

mod common;

use common::numbers;
use earthmapper_kernels::{
    Map, convolution_backward, gelu_backward, gelu_tanh_backward, group_norm_silu, group_norm_silu_backward,
    layer_norm_backward, scale_attention, scale_attention_backward, softmax, softmax_backward,
};
use proptest::prelude::*;

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|x| f64::from(*x)).collect()
}

/// Holds when `found` is the derivative of Σ upstream · layer(x) by each x.
fn check(
    x: &[f32],
    upstream: &[f32],
    found: &[f32],
    layer: impl Fn(&[f64]) -> Vec<f64>,
) -> Result<(), TestCaseError> {
    prop_assert_eq!(found.len(), x.len());
    let mut x = wide(x);
    let upstream = wide(upstream);
    let total = |x: &[f64]| -> f64 { layer(x).iter().zip(&upstream).map(|(a, b)| a * b).sum() };
    let largest = found.iter().fold(1.0f64, |largest, g| largest.max(f64::from(g.abs())));
    for (i, &found) in found.iter().enumerate() {
        let (at, step) = (x[i], 1e-4);
        x[i] = at + step;
        let above = total(&x);
        x[i] = at - step;
        let below = total(&x);
        x[i] = at;
        let expected = (above - below) / (2.0 * step);
        prop_assert!(
            (f64::from(found) - expected).abs() < 2e-5 * largest,
            "{}: {} for {}",
            i,
            found,
            expected
        );
    }
    Ok(())
}

fn naive_softmax(row: &[f64]) -> Vec<f64> {
    let highest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = row.iter().map(|x| (x - highest).exp()).sum();
    row.iter().map(|x| (x - highest).exp() / total).collect()
}

fn naive_norm(values: &[f64], epsilon: f64) -> Vec<f64> {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / count;
    values.iter().map(|x| (x - mean) / (variance + epsilon).sqrt()).collect()
}

fn naive_attention(q: &[f64], k: &[f64], v: &[f64], ends: &[usize], width: usize) -> Vec<f64> {
    let size = ends.last().unwrap() * width;
    let mut out = vec![0.0; q.len()];
    for first in (0..q.len()).step_by(size) {
        let mut start = 0;
        for &end in ends {
            for token in start..end {
                let row = |all: &[f64], i: usize| all[first + i * width..first + (i + 1) * width].to_vec();
                let query = row(q, token);
                let scores: Vec<f64> =
                    (0..end).map(|i| row(k, i).iter().zip(&query).map(|(a, b)| a * b).sum()).collect();
                for (i, p) in naive_softmax(&scores).into_iter().enumerate() {
                    let out = &mut out[first + token * width..][..width];
                    out.iter_mut().zip(row(v, i)).for_each(|(out, v)| *out += p * v);
                }
            }
            start = end;
        }
    }
    out
}

/// A 3 × 3 convolution of a channels-last map with zeros around it.
fn naive_convolution(
    x: &[f64],
    [batch, height, width, inputs]: [usize; 4],
    weight: &[f64],
    bias: &[f64],
) -> Vec<f64> {
    let outputs = bias.len();
    let mut out = Vec::with_capacity(batch * height * width * outputs);
    for picture in 0..batch {
        for y in 0..height {
            for column in 0..width {
                for (output, bias) in bias.iter().enumerate() {
                    let mut sum = *bias;
                    for tap in 0..9 {
                        let (y, column) = (y + tap / 3, column + tap % 3);
                        if !(1..=height).contains(&y) || !(1..=width).contains(&column) {
                            continue;
                        }
                        for input in 0..inputs {
                            let at = ((picture * height + y - 1) * width + column - 1) * inputs + input;
                            sum += x[at] * weight[(output * inputs + input) * 9 + tap];
                        }
                    }
                    out.push(sum);
                }
            }
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn activations(count in 0usize..60, seed: u64) {
        let x: Vec<f32> = numbers(count, seed).iter().map(|x| 4.0 * x).collect();
        let upstream = numbers(count, seed ^ 1);
        let mut found = upstream.clone();
        gelu_backward(&x, &mut found);
        // The distribution of a normal number by Simpson's rule.
        let density = |t: f64| (-0.5 * t * t).exp() / (2.0 * std::f64::consts::PI).sqrt();
        let distribution = |x: f64| {
            let h = x / 400.0;
            let inner: f64 = (1..400).map(|i| density(h * f64::from(i)) * f64::from(2 + i % 2 * 2)).sum();
            0.5 + h / 3.0 * (density(0.0) + inner + density(x))
        };
        check(&x, &upstream, &found, |x| x.iter().map(|x| x * distribution(*x)).collect())?;
        let mut found = upstream.clone();
        gelu_tanh_backward(&x, &mut found);
        let root = (2.0 / std::f64::consts::PI).sqrt();
        let gelu = |x: &f64| 0.5 * x * (1.0 + (root * (x + 0.044715 * x * x * x)).tanh());
        check(&x, &upstream, &found, |x| x.iter().map(gelu).collect())?;
    }

    #[test]
    fn softmaxes(rows in 0usize..4, width in 1usize..40, seed: u64) {
        let x: Vec<f32> = numbers(rows * width, seed).iter().map(|x| 3.0 * x).collect();
        let upstream = numbers(rows * width, seed ^ 1);
        let (mut probabilities, mut found) = (x.clone(), upstream.clone());
        softmax(&mut probabilities, width);
        softmax_backward(&probabilities, &mut found, width);
        check(&x, &upstream, &found, |x| x.chunks(width).flat_map(naive_softmax).collect())?;
    }

    #[test]
    fn layer_norms(rows in 0usize..4, width in 2usize..40, seed: u64) {
        let (x, upstream) = (numbers(rows * width, seed), numbers(rows * width, seed ^ 1));
        let (gain, shift) = (numbers(width, seed ^ 2), numbers(width, seed ^ 3));
        let (mut found, mut gains, mut shifts) = (upstream.clone(), vec![0.0; width], vec![0.0; width]);
        layer_norm_backward(&x, &gain, 1e-3, &mut found, &mut gains, &mut shifts);
        let layer = |x: &[f64], gain: &[f64], shift: &[f64]| -> Vec<f64> {
            let row = |row: &[f64]| -> Vec<f64> {
                let vectors = gain.iter().zip(shift);
                naive_norm(row, 1e-3).iter().zip(vectors).map(|(x, (g, s))| x * (1.0 + g) + s).collect()
            };
            x.chunks(width).flat_map(row).collect()
        };
        check(&x, &upstream, &found, |x| layer(x, &wide(&gain), &wide(&shift)))?;
        check(&gain, &upstream, &gains, |gain| layer(&wide(&x), gain, &wide(&shift)))?;
        check(&shift, &upstream, &shifts, |shift| layer(&wide(&x), &wide(&gain), shift))?;
    }

    #[test]
    fn group_norms(
        (batch, groups, members, plane) in (0usize..3, 1usize..4, 1usize..3, 2usize..20),
        seed: u64,
    ) {
        let channels = groups * members;
        let x: Vec<f32> = numbers(batch * channels * plane, seed).iter().map(|x| x + 2.0).collect();
        let upstream = numbers(x.len(), seed ^ 1);
        let (gain, shift) = (numbers(channels, seed ^ 2), numbers(channels, seed ^ 3));
        let layer = |x: &[f64], gain: &[f64], shift: &[f64]| -> Vec<f64> {
            let group = |(index, group): (usize, &[f64])| -> Vec<f64> {
                let first = index % groups * members;
                let silu = |(i, x): (usize, &f64)| {
                    let y = x * gain[first + i / plane] + shift[first + i / plane];
                    y / (1.0 + (-y).exp())
                };
                naive_norm(group, 1e-3).iter().enumerate().map(silu).collect()
            };
            x.chunks(members * plane).enumerate().flat_map(group).collect()
        };
        let mut out = x.clone();
        group_norm_silu(&mut out, plane, groups, &gain, &shift, 1e-3);
        for (found, expected) in out.iter().zip(layer(&wide(&x), &wide(&gain), &wide(&shift))) {
            prop_assert!((f64::from(*found) - expected).abs() < 1e-5);
        }
        let found = group_norm_silu_backward(&x, plane, groups, &gain, &shift, 1e-3, &upstream);
        check(&x, &upstream, &found[0], |x| layer(x, &wide(&gain), &wide(&shift)))?;
        check(&gain, &upstream, &found[1], |gain| layer(&wide(&x), gain, &wide(&shift)))?;
        check(&shift, &upstream, &found[2], |shift| layer(&wide(&x), &wide(&gain), shift))?;
    }

    #[test]
    fn attention(
        (sequences, width) in (1usize..3, 1usize..6),
        scales in prop::collection::vec(1usize..5, 1..4),
        seed: u64,
    ) {
        let ends: Vec<usize> = scales.iter().scan(0, |end, scale| { *end += scale; Some(*end) }).collect();
        let count = sequences * ends.last().unwrap() * width;
        let [q, k, v, upstream] = std::array::from_fn(|i| numbers(count, seed ^ i as u64));
        let (q64, k64, v64) = (wide(&q), wide(&k), wide(&v));
        let out = scale_attention(&q, &k, &v, &ends, width);
        for (found, expected) in out.iter().zip(naive_attention(&q64, &k64, &v64, &ends, width)) {
            prop_assert!((f64::from(*found) - expected).abs() < 1e-5);
        }
        let [queries, keys, values] = scale_attention_backward(&q, &k, &v, &ends, width, &upstream);
        check(&q, &upstream, &queries, |q| naive_attention(q, &k64, &v64, &ends, width))?;
        check(&k, &upstream, &keys, |k| naive_attention(&q64, k, &v64, &ends, width))?;
        check(&v, &upstream, &values, |v| naive_attention(&q64, &k64, v, &ends, width))?;
    }

    #[test]
    fn convolutions(
        (batch, height, width) in (1usize..3, 1usize..5, 1usize..6),
        (inputs, outputs) in (1usize..4, 1usize..4),
        seed: u64,
    ) {
        convolution([batch, height, width], inputs, outputs, seed)?;
    }
}

fn convolution(
    [batch, height, width]: [usize; 3],
    inputs: usize,
    outputs: usize,
    seed: u64,
) -> Result<(), TestCaseError> {
    let map = |channels: usize, seed| Map {
        batch,
        height,
        width,
        channels,
        values: numbers(batch * height * width * channels, seed),
    };
    let (x, upstream) = (map(inputs, seed), map(outputs, seed ^ 1));
    let (weight, bias) = (numbers(9 * inputs * outputs, seed ^ 2), numbers(outputs, seed ^ 3));
    let shape = [batch, height, width, inputs];
    let (back, weights, biases) = convolution_backward(&x, &weight, &upstream, true);
    let layer = |x: &[f64], weight: &[f64], bias: &[f64]| naive_convolution(x, shape, weight, bias);
    let (x64, weight64, bias64) = (wide(&x.values), wide(&weight), wide(&bias));
    check(&x.values, &upstream.values, &back.unwrap().values, |x| layer(x, &weight64, &bias64))?;
    check(&weight, &upstream.values, &weights, |weight| layer(&x64, weight, &bias64))?;
    check(&bias, &upstream.values, &biases, |bias| layer(&x64, &weight64, bias))
}

#[test]
fn convolutions_in_several_pieces_and_by_winograd() {
    // 2 · 17 · 19 positions are two pieces. The sum is linear in each value, so that few of them say it all.
    let (batch, height, width, inputs, outputs) = (2, 17, 19, 32, 40);
    let map = |channels: usize, seed| Map {
        batch,
        height,
        width,
        channels,
        values: numbers(batch * height * width * channels, seed),
    };
    let (x, upstream) = (map(inputs, 1), map(outputs, 2));
    let weight = numbers(9 * inputs * outputs, 3);
    let (back, weights, biases) = convolution_backward(&x, &weight, &upstream, true);
    let dot = |a: &[f32], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| f64::from(*a) * b).sum() };
    let shape = [batch, height, width, inputs];
    let some = |count: usize, seed: u64| wide(&numbers(count, seed));
    let none = vec![0.0; outputs];
    // ⟨upstream, layer(direction)⟩ = ⟨gradient, direction⟩.
    let along_map = some(x.values.len(), 4);
    let expected = dot(&upstream.values, &naive_convolution(&along_map, shape, &wide(&weight), &none));
    assert!((dot(&back.unwrap().values, &along_map) - expected).abs() < 1e-4 * expected.abs().max(100.0));
    let along_weight = some(weight.len(), 5);
    let expected = dot(&upstream.values, &naive_convolution(&wide(&x.values), shape, &along_weight, &none));
    assert!((dot(&weights, &along_weight) - expected).abs() < 1e-4 * expected.abs().max(100.0));
    for (output, found) in biases.iter().enumerate() {
        let expected: f64 = upstream.values.iter().skip(output).step_by(outputs).map(|x| f64::from(*x)).sum();
        assert!((f64::from(*found) - expected).abs() < 1e-4);
    }
    assert!(convolution_backward(&x, &weight, &upstream, false).0.is_none());
}

#[test]
fn nothing_gives_nothing() {
    assert!(scale_attention(&[], &[], &[], &[], 4).is_empty());
    assert_eq!(scale_attention_backward(&[], &[], &[], &[], 4, &[]), [vec![], vec![], vec![]]);
    let [x, gain, shift] = group_norm_silu_backward(&[], 0, 1, &[1.0], &[0.0], 1e-6, &[]);
    assert_eq!((x, gain, shift), (vec![], vec![0.0], vec![0.0]));
    let empty = Map { batch: 0, height: 3, width: 3, channels: 2, values: vec![] };
    let (back, weight, bias) = convolution_backward(&empty, &[1.0; 36], &empty, true);
    assert_eq!((back.unwrap().values.len(), weight, bias), (0, vec![0.0; 36], vec![0.0; 2]));
}
