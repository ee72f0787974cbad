//! Times every part of a translation, for the bundled model and for a model of VAR-d16's shape, and measures the memory
//! each part needs: with Burn's modules and with packed layers in 32 and in 8 bits. A plain program instead of a statistics
//! harness: one translation takes seconds, and what is wanted is a table.
//!
//! ```text
//! cargo bench --workspace --bench translation                             # both models, all three ways
//! cargo bench --workspace --bench translation -- d16 int8 --samples 1     # one of each, one sample of each part
//! cargo bench --workspace --bench translation -- d16 f32 --serve          # one translation per line on stdin
//! cargo bench --workspace --bench translation -- d16 --save FOLDER        # a model folder, to look at loading
//! cargo bench --workspace --bench translation -- int8 --load FOLDER       # memory from the process's start on
//! ```

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use burn::tensor::{Device, Distribution, Tensor};
use earthmapper::config::Forcing;
use earthmapper::guidance::{ComplexityGuidance, Guidance};
use earthmapper::weights::Storage;
use earthmapper::{
    Condition, EarthMapper, EarthMapperConfig, GenerationOptions, LonLat, Modality, Place, Precision,
    TokenizerConfig, TransformerConfig, Translator,
};
use serde::Deserialize;

/// The program's allocator; with the C library's every large tensor is made of fresh pages.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if !arguments.iter().any(|argument| argument == "--bench") {
        println!("nothing is timed outside `cargo bench`");
        return;
    }
    let samples = arguments.iter().position(|argument| argument == "--samples");
    let samples = samples.map(|at| arguments[at + 1].parse::<usize>().expect("--samples takes a number"));
    // Of each group of names those that were given, or all of them.
    let wanted = |name: &str, group: &[&str]| {
        let all = !arguments.iter().any(|argument| group.contains(&argument.as_str()));
        all || arguments.iter().any(|argument| argument == name)
    };
    let folder = |flag: &str| {
        let at = arguments.iter().position(|argument| argument == flag)?;
        Some(PathBuf::from(arguments.get(at + 1).expect("a folder after the flag")))
    };
    if let Some(folder) = folder("--load") {
        return load(&folder, if wanted("f32", &["f32", "int8"]) { Precision::F32 } else { Precision::Int8 });
    }
    type Make = fn(&Device) -> EarthMapper;
    let models: [(&str, Make, usize); 2] = [("mini", mini, 9), ("d16", d16, 3)];
    for (name, make, usual) in models {
        if !wanted(name, &["mini", "d16"]) {
            continue;
        }
        if let Some(folder) = folder("--save") {
            return make(&Device::flex())
                .save(&folder, Storage::F16, "Random weights.\n")
                .expect("a new folder");
        }
        let ways = [("burn", None), ("f32", Some(Precision::F32)), ("int8", Some(Precision::Int8))];
        for (way, precision) in ways {
            if !wanted(way, &["burn", "f32", "int8"]) {
                continue;
            }
            let model = make(&Device::flex());
            let model = match precision {
                Some(precision) => model.pack(precision),
                None => model,
            };
            match arguments.iter().any(|argument| argument == "--serve") {
                true => serve(&model),
                false => report(&model, way, samples.unwrap_or(usual)),
            }
        }
    }
}

/// Makes one translation for each line on stdin and answers with its times in seconds, so that another program can take
/// turns with this one.
fn serve(model: &EarthMapper) {
    println!("ready");
    for _ in std::io::stdin().lines() {
        let [encode, generate, decode, whole] =
            translate(model, &noise(model), 0).map(|time| time.as_secs_f64());
        println!(r#"{{"encode": {encode}, "generate": {generate}, "decode": {decode}, "whole": {whole}}}"#);
    }
}

/// Loads a folder, packs it and makes one translation; prints how long each took and the most memory so far.
fn load(folder: &Path, precision: Precision) {
    let memory = Memory;
    let megabytes = || memory.peak().map_or("unknown".into(), |bytes| (bytes / 1_000_000).to_string());
    let (start, before) = (Instant::now(), megabytes());
    let model = EarthMapper::load(folder, &Device::flex()).expect("a model folder").pack(precision);
    let (loaded, packed) = (start.elapsed().as_secs_f64(), megabytes());
    let now = Memory::now().map_or("unknown".into(), |bytes| (bytes / 1_000_000).to_string());
    let [.., whole] = translate(&model, &noise(&model), 0);
    println!(
        "{precision:?}: {before} MB before, loaded and packed in {loaded:.2} s with {packed} MB at most and {now} MB after"
    );
    println!("translated in {:.2} s with {} MB at most", whole.as_secs_f64(), megabytes());
}

/// A picture.
fn noise(model: &EarthMapper) -> Tensor<4> {
    let side = model.tokenizer_config.picture_side;
    Tensor::random([1, 3, side, side], Distribution::Uniform(-1.0, 1.0), &model.device())
}

/// What the program does: encode, two streams of guidance, decode. The times of the three and of the whole.
fn translate(model: &EarthMapper, picture: &Tensor<4>, seed: u64) -> [Duration; 4] {
    let start = Instant::now();
    let source = model.encode(picture.clone());
    let encoded = start.elapsed();
    let condition = Condition::translation(model, source, Modality::Map, Some(place()));
    let options = GenerationOptions {
        guidance: Guidance::Complexity(ComplexityGuidance::new(2.0, 2.0, 2.0)),
        ..Default::default()
    };
    let generation =
        Translator::new(model).run(&[condition], &[seed], &options, &mut |_| {}).expect("a translation");
    let generated = start.elapsed();
    for picture in generation {
        model.decode_features(picture.reconstruction).into_data();
    }
    let whole = start.elapsed();
    [encoded, generated - encoded, whole - generated, whole]
}

/// The bundled model when it is there, else its shape with random weights.
fn mini(device: &Device) -> EarthMapper {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder = root.join("models/earthmapper-mini");
    if folder.is_dir() {
        return EarthMapper::load(&folder, device).expect("the bundled model");
    }
    #[derive(Deserialize)]
    struct TokenizerFile {
        tokenizer: TokenizerConfig,
    }
    #[derive(Deserialize)]
    struct TransformerFile {
        transformer: TransformerConfig,
    }
    let read = |name: &str| {
        let path: PathBuf = root.join("configs/earthmapper-mini").join(name);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let tokenizer: TokenizerFile = toml::from_str(&read("tokenizer.toml")).expect("the tokenizer's shape");
    let transformer: TransformerFile =
        toml::from_str(&read("transformer.toml")).expect("the transformer's shape");
    random("earthmapper-mini's shape", transformer.transformer, tokenizer.tokenizer, device)
}

/// The published VAR-d16: 310 million parameters, and VAR's tokenizer.
fn d16(device: &Device) -> EarthMapper {
    random("VAR-d16's shape", TransformerConfig::default(), TokenizerConfig::default(), device)
}

fn random(
    name: &str,
    transformer: TransformerConfig,
    tokenizer: TokenizerConfig,
    device: &Device,
) -> EarthMapper {
    let config = EarthMapperConfig { format: 1, name: name.into(), transformer, ..Default::default() };
    EarthMapper::new(config, tokenizer, 1, device)
}

fn report(model: &EarthMapper, way: &str, samples: usize) {
    let scales = model.transformer.scales();
    let side = model.tokenizer_config.picture_side;
    println!(
        "\n{}, {way}: {side} × {side} px, median of {samples}, two streams of guidance",
        model.config.name
    );
    println!("{:34} {:>10} {:>10} {:>12}", "", "seconds", "tokens/s", "peak memory");
    let total = scales.total();
    let picture = noise(model);
    let encoding = model.encode(picture.clone());
    row("encode", Some(total), samples, || drop(model.encode(picture.clone())));
    row("decode", Some(total), samples, || model.decode(&encoding.tokens).into_data().num_elements());
    if way == "burn" {
        steps(model, samples);
    }
    let mut parts = [const { Vec::new() }; 4];
    let memory = Memory::reset();
    for seed in 0..samples as u64 {
        for (part, time) in parts.iter_mut().zip(translate(model, &picture, seed)) {
            part.push(time);
        }
    }
    let peak = memory.peak();
    let names =
        ["translation: encode", "translation: generation", "translation: decode", "translation, whole"];
    for (i, (name, times)) in names.into_iter().zip(parts).enumerate() {
        line(name, (i % 2 == 1).then_some(total), median(times), (i == 3).then_some(peak).flatten());
    }
}

/// One step per scale with the cache filled by the scales before, without head and sampling: of the conditional stream
/// and of the unconditional one, which is the target alone.
fn steps(model: &EarthMapper, samples: usize) {
    let transformer = &model.transformer;
    let scales = transformer.scales();
    let condition = transformer.geo_embedding.forward(&[Some(place())]);
    let known = [(
        0,
        Tensor::random(
            [1, model.tokenizer_config.latent_width, scales.finest(), scales.finest()],
            Distribution::Default,
            &model.device(),
        ),
    )];
    let aligned = model.config.transformer.forcing == Forcing::Aligned;
    let conditional = if aligned { vec![1] } else { vec![0, 1] };
    for (name, visible, guided) in [("conditional", conditional, aligned), ("unconditional", vec![1], false)]
    {
        let mut times = vec![Vec::new(); scales.len()];
        let memory = Memory::reset();
        for _ in 0..samples {
            let mut cache = transformer.cache();
            let guide = if guided { transformer.guide(&known) } else { None };
            for (k, times) in times.iter_mut().enumerate() {
                let shape = [1, scales.tokens(k), model.tokenizer_config.latent_width];
                let features = || Tensor::random(shape, Distribution::Default, &model.device());
                let inputs: Vec<Tensor<3>> = visible.iter().filter(|_| k > 0).map(|_| features()).collect();
                let start = Instant::now();
                transformer
                    .step(
                        &visible,
                        &inputs,
                        guide.as_ref().map(|guide| &guide[k]),
                        condition.clone(),
                        &mut cache,
                    )
                    .into_data();
                times.push(start.elapsed());
            }
        }
        let peak = memory.peak();
        let mut sum = Duration::ZERO;
        for (k, times) in times.into_iter().enumerate() {
            let (side, time) = (scales.side(k), median(times));
            sum += time;
            line(
                &format!("step {side} × {side}, {name}"),
                Some(visible.len() * scales.tokens(k)),
                time,
                None,
            );
        }
        line(&format!("all steps, {name}"), Some(visible.len() * scales.total()), sum, peak);
    }
}

fn place() -> Place {
    Place::new(LonLat::new(-73.97, 40.78).expect("on Earth"), Some(1.0)).expect("a ground size")
}

/// Times one part, after one run to warm up, and prints its line.
fn row<T>(name: &str, tokens: Option<usize>, samples: usize, mut part: impl FnMut() -> T) {
    let memory = Memory::reset();
    let times = (0..samples).map(|_| {
        let start = Instant::now();
        part();
        start.elapsed()
    });
    let time = median(times.collect());
    line(name, tokens, time, memory.peak());
}

fn line(name: &str, tokens: Option<usize>, time: Duration, peak: Option<u64>) {
    let seconds = time.as_secs_f64();
    let speed = tokens.map_or(String::new(), |tokens| format!("{:.0}", tokens as f64 / seconds));
    let peak = peak.map_or(String::new(), |bytes| format!("{} MB", bytes / 1_000_000));
    println!("{name:34} {seconds:>10.4} {speed:>10} {peak:>12}");
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// The highest resident memory of this process (weights included) since the last reset, where the system tells.
struct Memory;

impl Memory {
    fn reset() -> Self {
        // Where this is not permitted the peak is that of the whole run, which is still a true bound.
        let _ = std::fs::write("/proc/self/clear_refs", "5");
        Self
    }

    fn peak(&self) -> Option<u64> {
        Self::status("VmHWM:")
    }

    /// The resident memory.
    fn now() -> Option<u64> {
        Self::status("VmRSS:")
    }

    fn status(name: &str) -> Option<u64> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let line = status.lines().find(|line| line.starts_with(name))?;
        let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
        Some(kibibytes * 1024)
    }
}
