//! Every kernel against plain loops, over odd sizes, single rows and nothing at all.

mod common;

use common::numbers;
use earthmapper_kernels::*;
use proptest::prelude::*;

/// The largest difference relative to the largest value.
fn difference(found: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(1e-3f64, |most, x| most.max(x.abs()));
    let worst = found.iter().zip(expected).map(|(a, b)| (f64::from(*a) - b).abs());
    worst.fold(0.0f64, |most, x| if x.is_nan() { f64::INFINITY } else { most.max(x) }) / largest
}

fn naive_linear(x: &[f32], weight: &[f32], bias: &[f32], inputs: usize, outputs: usize) -> Vec<f64> {
    let rows = x.len().checked_div(inputs).unwrap_or(0);
    let value = |row: usize, output: usize| {
        let products =
            (0..inputs).map(|i| f64::from(x[row * inputs + i]) * f64::from(weight[i * outputs + output]));
        products.sum::<f64>() + f64::from(bias[output])
    };
    (0..rows * outputs).map(|i| value(i / outputs, i % outputs)).collect()
}

fn naive_convolution(
    map: &Map,
    weight: &[f32],
    bias: &[f32],
    window: Window,
    height: usize,
    width: usize,
) -> Vec<f64> {
    let (inputs, side) = (map.channels, window.side);
    let shrink = if window.double { 2 } else { 1 };
    let mut out = Vec::new();
    for picture in 0..map.batch {
        for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
            for (output, bias) in bias.iter().enumerate() {
                let mut sum = f64::from(*bias);
                for (i, j) in (0..side).flat_map(|i| (0..side).map(move |j| (i, j))) {
                    let (y, x) = (y * window.stride + i, x * window.stride + j);
                    let (Some(y), Some(x)) = (y.checked_sub(window.before), x.checked_sub(window.before))
                    else {
                        continue;
                    };
                    if y >= map.height * shrink || x >= map.width * shrink {
                        continue;
                    }
                    let at = ((picture * map.height + y / shrink) * map.width + x / shrink) * inputs;
                    for input in 0..inputs {
                        let w = weight[((output * inputs + input) * side + i) * side + j];
                        sum += f64::from(map.values[at + input]) * f64::from(w);
                    }
                }
                out.push(sum);
            }
        }
    }
    out
}

fn map(batch: usize, height: usize, width: usize, channels: usize, seed: u64) -> Map {
    Map { batch, height, width, channels, values: numbers(batch * height * width * channels, seed) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn linear(rows in 0usize..150, inputs in 1usize..300, outputs in 1usize..200, seed: u64) {
        let (x, weight) = (numbers(rows * inputs, seed), numbers(inputs * outputs, seed ^ 1));
        let bias = numbers(outputs, seed ^ 2);
        let expected = naive_linear(&x, &weight, &bias, inputs, outputs);
        let layer = Linear::new(&weight, inputs, &bias, Precision::F32);
        prop_assert!(difference(&layer.apply(&x), &expected) < 1e-5);
        // Every row is finished exactly once and knows its number.
        let mut out = vec![0.0; rows * outputs];
        layer.apply_to(&x, &mut out, |first, rows| {
            rows.chunks_mut(outputs).enumerate().for_each(|(i, row)| row[0] = (first + i) as f32);
        });
        prop_assert!(out.chunks(outputs).enumerate().all(|(i, row)| row[0] == i as f32));
        let layer = Linear::new(&weight, inputs, &bias, Precision::Int8);
        let error = difference(&layer.apply(&x), &expected);
        prop_assert!(error < 0.03, "{error}");
    }

    #[test]
    fn convolution(
        (batch, height, width) in (1usize..3, 1usize..19, 1usize..23),
        (inputs, outputs) in (1usize..9, 1usize..9),
        (side, stride, before, after) in (1usize..4, 1usize..3, 0usize..2, 0usize..2),
        double: bool,
        seed: u64,
    ) {
        let window = Window { side, stride, before, after, double };
        compare_convolution(map(batch, height, width, inputs, seed), outputs, window, 4, 1e-5, seed)?;
    }

    #[test]
    fn winograd(
        (batch, height, width) in (1usize..3, 1usize..19, 1usize..23),
        (inputs, outputs) in (4usize..7, 4usize..7),
        double: bool,
        seed: u64,
    ) {
        let window = Window { double, ..Window::same(3) };
        let map = map(batch, height, width, 8 * inputs, seed);
        compare_convolution(map.clone(), 8 * outputs, window, 16, 1e-5, seed)?;
        compare_convolution(map, 8 * outputs, window, 256, 3e-5, seed)?;
    }

    #[test]
    fn attention(
        (heads, width) in (1usize..5, 1usize..40),
        steps in prop::collection::vec(1usize..90, 1..4),
        cosine: bool,
        seed: u64,
    ) {
        let mut cache = KeyValues::new(heads, width, 10);
        let factors: Vec<f32> = (0..heads).map(|head| 0.5 + head as f32).collect();
        let scores = if cosine { Scores::Cosine(factors.clone()) } else { Scores::Product(0.7) };
        let mut all = Vec::new();
        for (i, count) in steps.into_iter().enumerate() {
            let tokens = numbers(count * 3 * heads * width, seed ^ i as u64);
            all.extend_from_slice(&tokens);
            let found = cache.step(&tokens, &scores);
            let part = |token: &[f32], i: usize, head: usize| -> Vec<f64> {
                let part = &token[(i * heads + head) * width..][..width];
                let length = match cosine && i < 2 {
                    true => part.iter().map(|x| f64::from(x * x)).sum::<f64>().sqrt(),
                    false => 1.0,
                };
                part.iter().map(|x| f64::from(*x) / length).collect()
            };
            let mut expected = Vec::new();
            for token in tokens.chunks(3 * heads * width) {
                for (head, &own) in factors.iter().enumerate() {
                    let factor = f64::from(if cosine { own } else { 0.7 });
                    let query = part(token, 0, head);
                    let mut total = 0.0;
                    let mut sum = vec![0.0; width];
                    for other in all.chunks(3 * heads * width) {
                        let key = part(other, 1, head);
                        let score: f64 = key.iter().zip(&query).map(|(k, q)| k * q).sum();
                        let weight = (factor * score).exp();
                        total += weight;
                        sum.iter_mut().zip(part(other, 2, head)).for_each(|(sum, v)| *sum += weight * v);
                    }
                    expected.extend(sum.iter().map(|sum| sum / total));
                }
            }
            prop_assert!(difference(&found, &expected) < 1e-5);
        }
        prop_assert_eq!(cache.tokens(), all.len() / (3 * heads * width));
    }

    #[test]
    fn norms(rows in 0usize..30, width in 1usize..200, offset in -30.0f32..30.0, seed: u64) {
        let x: Vec<f32> = numbers(rows * width, seed).iter().map(|x| x + offset).collect();
        let (gain, shift) = (numbers(width, seed ^ 1), numbers(width, seed ^ 2));
        let mut out = vec![0.0; x.len()];
        layer_norm(&x, &gain, &shift, 1e-6, &mut out);
        let expected = x.chunks(width).flat_map(|row| {
            let (mean, deviation) = moments(row.iter().copied(), 1e-6);
            let normed = |(i, x): (usize, &f32)| {
                (f64::from(*x) - mean) / deviation * (1.0 + f64::from(gain[i])) + f64::from(shift[i])
            };
            row.iter().enumerate().map(normed).collect::<Vec<_>>()
        });
        // A row of one value is its own mean; what is left is rounding.
        if width > 1 {
            prop_assert!(difference(&out, &expected.collect::<Vec<_>>()) < 1e-4);
        }
    }

    #[test]
    fn group_norms(
        (batch, height, width) in (1usize..3, 1usize..40, 1usize..40),
        (groups, members) in (1usize..5, 1usize..6),
        offset in -30.0f32..30.0,
        silu: bool,
        seed: u64,
    ) {
        let channels = groups * members;
        let mut map = map(batch, height, width, channels, seed);
        map.values.iter_mut().for_each(|x| *x += offset);
        let (gain, shift) = (numbers(channels, seed ^ 1), numbers(channels, seed ^ 2));
        let out = group_norm(&map, groups, &gain, &shift, 1e-3, silu);
        let plane = height * width * channels;
        let mut expected = vec![0.0f64; map.values.len()];
        for picture in 0..batch {
            for group in 0..groups {
                let inside = |i: &usize| i % channels / members == group;
                let places: Vec<usize> = (picture * plane..(picture + 1) * plane).filter(inside).collect();
                let (mean, deviation) = moments(places.iter().map(|&i| map.values[i]), 1e-3);
                for i in places {
                    let c = i % channels;
                    let y = (f64::from(map.values[i]) - mean) / deviation * f64::from(gain[c]) + f64::from(shift[c]);
                    expected[i] = if silu { y / (1.0 + (-y).exp()) } else { y };
                }
            }
        }
        prop_assert!(difference(&out.values, &expected) < 1e-4);
    }

    #[test]
    fn activations(count in 0usize..200, width in 1usize..50, seed: u64) {
        let x: Vec<f32> = numbers(count * width, seed).iter().map(|x| 8.0 * x).collect();
        let each = |function: fn(&mut [f32]), plain: fn(f64) -> f64| {
            let mut found = x.clone();
            function(&mut found);
            difference(&found, &x.iter().map(|x| plain(f64::from(*x))).collect::<Vec<_>>())
        };
        prop_assert!(each(silu, |x| x / (1.0 + (-x).exp())) < 1e-6);
        let tanh = |x: f64| 0.5 * x * (1.0 + (0.797_884_560_802_865_4 * (x + 0.044715 * x * x * x)).tanh());
        prop_assert!(each(gelu_tanh, tanh) < 1e-6);
        prop_assert!(each(gelu, |x| x * normal_distribution(x)) < 1e-6);
        let mut found = x.clone();
        softmax(&mut found, width);
        let expected: Vec<f64> = x.chunks(width).flat_map(|row| {
            let total: f64 = row.iter().map(|x| f64::from(*x).exp()).sum();
            row.iter().map(move |x| f64::from(*x).exp() / total).collect::<Vec<_>>()
        }).collect();
        prop_assert!(difference(&found, &expected) < 1e-5);
    }

    #[test]
    fn entropies(count in 0usize..100, hidden in 0usize..3, spread in 0.0f32..60.0, seed: u64) {
        let mut logits: Vec<f32> = numbers(count, seed).iter().map(|x| x * spread).collect();
        let highest = logits.iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b));
        let weights: Vec<f64> = logits.iter().map(|x| f64::from(x - highest).exp()).collect();
        let total: f64 = weights.iter().sum();
        let expected: f64 = weights.iter().map(|w| w / total).map(|p| -p * p.max(1e-300).ln()).sum();
        logits.extend(vec![f32::NEG_INFINITY; hidden]);
        prop_assert!((f64::from(entropy(&logits)) - expected).abs() < 1e-4);
    }

    #[test]
    fn channels_go_last_and_back(shape in prop::array::uniform4(0usize..20), seed: u64) {
        let values = numbers(shape.iter().product(), seed);
        let map = Map::from_channels_first(shape, &values);
        if let Some(last) = map.values.last() {
            prop_assert_eq!(last, values.last().unwrap());
        }
        prop_assert_eq!(map.to_channels_first(), values);
    }
}

#[test]
fn nothing_gives_nothing() {
    let layer = Linear::new(&[1.0, 2.0], 1, &[], Precision::Int8);
    assert_eq!((layer.apply(&[]), layer.outputs()), (vec![], 2));
    let convolution = Convolution::new(&[0.5; 9], &[1.0], Window::same(3), Precision::F32, 8);
    assert!(convolution.apply(&Map::zeros(1, 0, 5, 1), None).values.is_empty());
    assert_eq!(convolution.apply(&Map::zeros(1, 1, 1, 1), None).values, [1.0]);
    assert!(group_norm(&Map::zeros(0, 3, 3, 2), 1, &[1.0; 2], &[0.0; 2], 1e-6, true).values.is_empty());
    assert!(KeyValues::new(2, 3, 0).step(&[], &Scores::Product(1.0)).is_empty());
}

fn compare_convolution(
    map: Map,
    outputs: usize,
    window: Window,
    usual_side: usize,
    limit: f64,
    seed: u64,
) -> Result<(), TestCaseError> {
    let weight = numbers(outputs * map.channels * window.side * window.side, seed ^ 1);
    let bias = numbers(outputs, seed ^ 2);
    let convolution = Convolution::new(&weight, &bias, window, Precision::F32, usual_side);
    let out = convolution.apply(&map, None);
    let expected = naive_convolution(&map, &weight, &bias, window, out.height, out.width);
    let error = difference(&out.values, &expected);
    prop_assert!(error < limit, "{error}");
    let sum = convolution.apply(&map, Some(&out));
    let twice: Vec<f64> = expected.iter().map(|x| 2.0 * x).collect();
    prop_assert!(difference(&sum.values, &twice) < limit);
    let bytes = Convolution::new(&weight, &bias, window, Precision::Int8, usual_side).apply(&map, None);
    prop_assert!(difference(&bytes.values, &expected) < 0.05);
    Ok(())
}

fn moments(values: impl Iterator<Item = f32> + Clone, epsilon: f64) -> (f64, f64) {
    let count = values.clone().count() as f64;
    let mean = values.clone().map(f64::from).sum::<f64>() / count;
    let variance = values.map(|x| (f64::from(x) - mean).powi(2)).sum::<f64>() / count;
    (mean, (variance + epsilon).sqrt())
}

/// Φ(x), by Simpson's rule.
fn normal_distribution(x: f64) -> f64 {
    let steps = 400;
    let width = x / f64::from(steps);
    let density = |t: f64| (-0.5 * t * t).exp() / std::f64::consts::TAU.sqrt();
    let weight = |i: i32| {
        if i == 0 || i == steps {
            1.0
        } else if i % 2 == 1 {
            4.0
        } else {
            2.0
        }
    };
    0.5 + (0..=steps).map(|i| weight(i) * density(f64::from(i) * width)).sum::<f64>() * width / 3.0
}
