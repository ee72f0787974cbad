//! How fast each kernel is at the sizes of VAR-d16 and its tokenizer: `cargo bench -p earthmapper-kernels`, with
//! `-- WORDS` only those whose names have these words.

use std::time::Instant;

use earthmapper_kernels::*;

fn main() {
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("nothing is timed outside `cargo bench`");
        return;
    }
    println!("{:44} {:>9} {:>9} {:>9} {:>9}", "", "ms", "GFLOP/s", "CPU ms", "GFLOP/s");
    time(
        "multiply-add in registers, all threads",
        2.0 * 16.0 * 8.0 * 1e6 * rayon::current_num_threads() as f64,
        || {
            rayon::broadcast(|_| std::hint::black_box(pulp::Arch::new().dispatch(MultiplyAdd)));
        },
    );
    for (rows, inputs, outputs) in [
        (768, 1024, 4096),
        (768, 4096, 1024),
        (192, 1024, 3072),
        (27, 1024, 4096),
        (3, 1024, 4096),
        (512, 192, 768),
    ] {
        let weight = numbers(inputs * outputs);
        let x = numbers(rows * inputs);
        let mut out = vec![0.0; rows * outputs];
        for precision in [Precision::F32, Precision::Int8] {
            let layer = Linear::new(&weight, inputs, &[], precision);
            let flops = 2.0 * (rows * inputs * outputs) as f64;
            time(&format!("linear {rows} × {inputs} × {outputs} {precision:?}"), flops, || {
                layer.apply_to(&x, &mut out, |_, _| {});
            });
        }
    }
    for (side, channels) in [(256, 160), (128, 160), (64, 320), (32, 640), (16, 640), (16, 192)] {
        let weight = numbers(channels * channels * 9);
        let bias = numbers(channels);
        let map =
            Map { batch: 1, height: side, width: side, channels, values: numbers(side * side * channels) };
        let flops = 2.0 * (side * side * channels * channels * 9) as f64;
        for (name, precision, usual) in [
            ("gathered", Precision::F32, 1),
            ("Winograd 2", Precision::F32, 16),
            ("Winograd 4", Precision::F32, 64),
            ("gathered", Precision::Int8, 1),
        ] {
            let convolution = Convolution::new(&weight, &bias, Window::same(3), precision, usual);
            time(&format!("convolution {side}² × {channels} {name} {precision:?}"), flops, || {
                convolution.apply(&map, None);
            });
        }
        let gain = numbers(channels);
        time(&format!("group norm, SiLU {side}² × {channels}"), 0.0, || {
            group_norm(&map, 32, &gain, &gain, 1e-6, true);
        });
    }
    let mut cache = KeyValues::new(16, 64, 1360);
    cache.step(&numbers(3 * 1024 * 848), &Scores::Product(0.1));
    let tokens = numbers(3 * 1024 * 512);
    time("attention 512 queries, 1360 keys, 16 × 64", 4.0 * 1024.0 * 512.0 * 1360.0, || {
        cache.clone().step(&tokens, &Scores::Product(0.1));
    });
    let mut values = numbers(512 * 4096);
    time("gelu 512 × 4096", 0.0, || gelu(&mut values));
}

/// 128 million multiply-adds in twelve independent vectors: the most that the processor can do.
struct MultiplyAdd;

impl pulp::WithSimd for MultiplyAdd {
    type Output = f32;
    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, simd: S) -> f32 {
        let [a, b] = std::hint::black_box([0.999, 0.001]).map(|x| simd.splat_f32s(x));
        let mut sums =
            std::hint::black_box([1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0])
                .map(|x| simd.splat_f32s(x));
        let lanes = size_of::<S::f32s>() / 4;
        for _ in 0..1_000_000 * 16 * 8 / (12 * lanes) {
            for sum in &mut sums {
                *sum = simd.mul_add_f32s(*sum, a, b);
            }
        }
        sums.iter().map(|&sum| simd.reduce_sum_f32s(sum)).sum()
    }
}

fn numbers(count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 7919) % 1013) as f32 / 506.5 - 1.0).collect()
}

/// Prints the best time of a few runs, because other work on the machine only ever adds to it, and the processor time per
/// run, which on one thread (RAYON_NUM_THREADS=1) is nearly what the best time would be on a machine at rest.
fn time(name: &str, flops: f64, mut work: impl FnMut()) {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    if !words.iter().all(|word| name.contains(word)) {
        return;
    }
    work();
    let mut best = f64::INFINITY;
    let (begin, processor, mut runs) = (Instant::now(), processor_seconds(), 0.0);
    while begin.elapsed().as_secs_f64() < 0.5 || processor_seconds() - processor < 0.3 {
        let start = Instant::now();
        work();
        best = best.min(start.elapsed().as_secs_f64());
        runs += 1.0;
    }
    let processor = (processor_seconds() - processor) / runs;
    let rate =
        |seconds: f64| if flops > 0.0 { format!("{:.0}", flops / seconds / 1e9) } else { String::new() };
    println!(
        "{name:44} {:>9.2} {:>9} {:>9.2} {:>9}",
        best * 1e3,
        rate(best),
        processor * 1e3,
        rate(processor)
    );
}

/// Processor time of this process so far; Linux only, elsewhere 1 s per call so that loops end.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<f64> = stat.split_whitespace().filter_map(|field| field.parse().ok()).collect();
    // The program's name and state are no numbers: user and system time come 12th and 13th, in hundredths.
    match fields.get(11..13) {
        Some([user, system]) => (user + system) / 100.0,
        _ => Instant::now().elapsed().as_secs_f64() + 1.0,
    }
}
