//! Times the metrics on 256 × 256 pictures and networks of full size with random weights, which take as long as trained
//! ones. `tools/metrics_bench_peer.py` times the usual Python packages on the same pictures.
//!
//! ```text
//! cargo bench --workspace --bench metrics                # all, some minutes
//! cargo bench --workspace --bench metrics -- inception   # one of them
//! ```

#![allow(missing_docs, reason = "the macros of criterion make functions without any")]

#[path = "../tests/seeded/mod.rs"]
mod seeded;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use burn::tensor::Device;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use earthmapper_lab::metrics::{
    KernelSubsets, NEIGHBOURS, Statistics, frechet_distance, kernel_distance, peak_signal_to_noise_ratio,
    precision_recall, root_mean_square_error, structural_similarity,
};
use earthmapper_lab::nets::{INCEPTION_FEATURES, Inception, Lpips};
use seeded::Kind;
use serde::Deserialize;

/// The program's allocator; with the C library's every large buffer is made of fresh pages.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SIZE: (u32, u32) = (256, 256);

/// Pictures of a measurement of a network.
const PICTURES: usize = 8;

/// Sets of this many pictures are compared.
const SET: usize = 1000;

/// Names and shapes of the networks' tensors.
#[derive(Deserialize)]
struct Reference {
    inception: Network,
    lpips: BTreeMap<String, Network>,
}

#[derive(Deserialize)]
struct Network {
    shapes: BTreeMap<String, Vec<usize>>,
}

fn reference() -> Reference {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/metrics_reference.json");
    serde_json::from_str(&std::fs::read_to_string(path).expect("the reference")).expect("networks in it")
}

fn networks(criterion: &mut Criterion) {
    let reference = reference();
    let [real, made] = [Kind::Real, Kind::Made].map(|kind| seeded::pictures(kind, PICTURES, SIZE));
    let mut group = criterion.benchmark_group("networks");
    group
        .sample_size(10)
        .measurement_time(Duration::from_secs(20))
        .throughput(Throughput::Elements(PICTURES as u64));
    let device = Device::flex();
    let inception = Inception::from_weights(seeded::network(&reference.inception.shapes), &device);
    let inception = inception.expect("seeded weights fit");
    group.bench_function("inception", |bencher| {
        bencher.iter(|| inception.features(black_box(&real), PICTURES))
    });
    for (name, network) in &reference.lpips {
        let lpips = Lpips::from_weights(seeded::network(&network.shapes), None, &device);
        let lpips = lpips.expect("seeded weights fit");
        group.bench_function(format!("lpips {name}"), |bencher| {
            bencher.iter(|| lpips.distances(black_box(&real), &made));
        });
    }
    group.finish();
}

fn pixels(criterion: &mut Criterion) {
    let (real, made) = (seeded::picture(Kind::Real, 0, SIZE), seeded::picture(Kind::Made, 0, SIZE));
    let mut group = criterion.benchmark_group("pixels");
    group.throughput(Throughput::Elements(1));
    group.bench_function("rmse", |bencher| bencher.iter(|| root_mean_square_error(black_box(&made), &real)));
    group.bench_function("psnr", |bencher| {
        bencher.iter(|| peak_signal_to_noise_ratio(black_box(&made), &real))
    });
    group.bench_function("ssim", |bencher| bencher.iter(|| structural_similarity(black_box(&made), &real)));
    group.finish();
}

fn sets(criterion: &mut Criterion) {
    let real = seeded::features(Kind::Real, SET, INCEPTION_FEATURES);
    let made = seeded::features(Kind::Made, SET, INCEPTION_FEATURES);
    let mut group = criterion.benchmark_group("sets");
    group.sample_size(10).measurement_time(Duration::from_secs(10));
    group.bench_function("fid", |bencher| {
        bencher.iter(|| {
            let statistics = [&real, &made].map(|features| Statistics::of(features).expect("a set"));
            frechet_distance(&statistics[0], &statistics[1])
        });
    });
    let subsets = KernelSubsets { count: 10, size: SET / 2, seed: 0 };
    group.bench_function("kid", |bencher| bencher.iter(|| kernel_distance(black_box(&real), &made, subsets)));
    group.bench_function("precision and recall", |bencher| {
        bencher.iter(|| precision_recall(black_box(&real), &made, NEIGHBOURS));
    });
    group.finish();
}

criterion_group!(metrics, networks, pixels, sets);
criterion_main!(metrics);
