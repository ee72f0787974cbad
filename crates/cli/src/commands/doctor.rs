//! `doctor`: does this device compute what the CPU does, and does the cache?

use std::time::Instant;

use anyhow::{Result, bail};
use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use earthmapper::config::{AdaptiveNorm, AttentionKind};
use earthmapper::guidance::Guidance;
use earthmapper::sampler::SamplerConfig;
use earthmapper::translator::{Condition, GenerationOptions, Translator};
use earthmapper::{EarthMapper, EarthMapperConfig, Modality, Precision, TokenizerConfig, TransformerConfig};
use serde_json::json;

use crate::settings::{ModelArgs, Output};

/// Check that this device computes what the CPU reference does, and print a report to copy
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
}

/// One comparison.
struct Check {
    name: String,
    /// Largest difference ÷ largest reference value.
    difference: f64,
    limit: f64,
    milliseconds: f64,
}

pub fn run(args: Args, output: &Output) -> Result<()> {
    let reference = Device::flex();
    let device = args.model.device()?;
    let mut checks = Vec::new();
    for attention in [AttentionKind::L2, AttentionKind::Dot] {
        checks.extend(compare(&tiny(attention, &reference), &format!("tiny {attention:?}"), &device)?);
    }
    let bundled = match args.model.folder() {
        Ok(folder) => {
            let model = EarthMapper::load(&folder, &reference)?;
            checks.extend(compare(&model, &model.config.name, &device)?);
            model.config.name
        }
        Err(_) => "none found".into(),
    };
    let failed = checks.iter().filter(|check| !check.passes()).count();
    let facts = [
        ("earthmapper", env!("CARGO_PKG_VERSION").to_string()),
        ("system", format!("{} {}", std::env::consts::OS, std::env::consts::ARCH)),
        ("processor", processor()),
        ("threads", std::thread::available_parallelism().map_or(1, usize::from).to_string()),
        ("device", args.model.device.clone()),
        ("back ends", back_ends().join(", ")),
        ("model", bundled),
    ];
    let mut text: String = facts.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
    for check in &checks {
        let verdict = if check.passes() { "ok  " } else { "FAIL" };
        let Check { name, difference, limit, milliseconds } = check;
        text += &format!(
            "{verdict} {name}: difference {difference:.1e} (limit {limit:.0e}), {milliseconds:.1} ms\n"
        );
    }
    text += &format!("{} checks, {failed} failed", checks.len());
    let list: Vec<_> = checks
        .iter()
        .map(|c| json!({ "name": c.name, "difference": c.difference, "limit": c.limit, "milliseconds": c.milliseconds, "passes": c.passes() }))
        .collect();
    let facts: serde_json::Map<_, _> =
        facts.into_iter().map(|(name, value)| (name.to_string(), json!(value))).collect();
    output.result(&text, json!({ "facts": facts, "checks": list, "failed": failed }))?;
    if failed > 0 {
        bail!("{failed} of {} checks failed on {}; use --device cpu", checks.len(), args.model.device);
    }
    Ok(())
}

impl Check {
    fn passes(&self) -> bool {
        self.difference.is_finite() && self.difference <= self.limit
    }
}

/// Compares a model on the reference with the same weights on `device`.
fn compare(reference: &EarthMapper, name: &str, device: &Device) -> Result<Vec<Check>> {
    let mut other = reference.clone();
    other.tokenizer = other.tokenizer.fork(device);
    other.transformer = other.transformer.fork(device);
    let side = reference.tokenizer_config.picture_side;
    let values: Vec<f32> = (0..3 * side * side)
        .map(|i| ((i * 37 % 255) as f32 / 127.5 - 1.0) * ((i / side) as f32 * 0.1).sin())
        .collect();
    let pictures =
        |device: &Device| Tensor::<4>::from_data(TensorData::new(values.clone(), [1, 3, side, side]), device);
    let mut checks = Vec::new();
    let mut check = |what: &str, limit: f64, expected: Tensor<1>, run: &dyn Fn() -> Tensor<1>| {
        let _warm = run().into_data();
        let began = Instant::now();
        let found = run().try_into_vec_as::<f32>();
        let milliseconds = began.elapsed().as_secs_f64() * 1e3;
        let expected = expected.try_into_vec_as::<f32>().expect("32-bit floats");
        let difference = found.map_or(f64::INFINITY, |found| relative(&expected, &found));
        checks.push(Check { name: format!("{name}: {what}"), difference, limit, milliseconds });
    };
    let flat = |x: Tensor<4>| {
        let count = x.shape().num_elements();
        x.reshape([count])
    };
    let encoding = reference.tokenizer.encode(pictures(&reference.device()));
    let tokens = encoding.tokens.clone();
    check("encode", 1e-3, flat(encoding.features.clone()), &|| {
        flat(other.tokenizer.features(pictures(device)))
    });
    check("decode", 1e-3, flat(reference.tokenizer.decode(&tokens)), &|| {
        flat(other.tokenizer.decode(&tokens))
    });

    let whole = |model: &EarthMapper| {
        let inputs = model.tokenizer.quantizer.teacher_inputs(&tokens);
        let condition = model.transformer.geo_embedding.forward(&[None]);
        let hidden = model.transformer.forward(&[0, 1], &[inputs.clone(), inputs], None, condition, None);
        let count = hidden.shape().num_elements();
        hidden.reshape([count])
    };
    let steps = |model: &EarthMapper| {
        let inputs = model.tokenizer.quantizer.teacher_inputs(&tokens);
        let condition = model.transformer.geo_embedding.forward(&[None]);
        let mut cache = model.transformer.cache();
        let parts = (0..model.transformer.scales().len()).map(|k| {
            let now = if k == 0 { Vec::new() } else { vec![inputs[k - 1].clone(); 2] };
            model.transformer.step(&[0, 1], &now, None, condition.clone(), &mut cache)
        });
        let hidden = Tensor::cat(parts.collect(), 1);
        let count = hidden.shape().num_elements();
        hidden.reshape([count])
    };
    check("forward", 1e-3, whole(reference), &|| whole(&other));
    check("cached steps against the whole sequence", 1e-3, whole(&other), &|| steps(&other));

    let options = GenerationOptions {
        sampler: SamplerConfig::greedy(),
        guidance: Guidance::Constant(1.5),
        ..Default::default()
    };
    let greedy = |model: &EarthMapper| -> Tensor<1> {
        let condition = Condition::translation(model, encoding.clone(), Modality::Map, None);
        let made =
            Translator::new(model).run(&[condition], &[1], &options, &mut |_| {}).expect("a valid request");
        let made = &made[0].tokens;
        let codes: Vec<f32> = (0..made.len()).flat_map(|k| made.scale(k)).map(|&code| code as f32).collect();
        let count = codes.len();
        Tensor::from_data(TensorData::new(codes, [count]), &Device::flex())
    };
    check("greedy tokens", 0.0, greedy(reference), &|| greedy(&other));
    if *device == reference.device() {
        let packed = reference.clone().pack(Precision::F32);
        check("greedy tokens, packed", 0.0, greedy(reference), &|| greedy(&packed));
    }
    Ok(checks)
}

/// Largest difference over the largest reference value.
fn relative(expected: &[f32], found: &[f32]) -> f64 {
    let largest = expected.iter().fold(0.0f32, |m, v| m.max(v.abs())).max(1e-12);
    let differences = expected.iter().zip(found).map(|(a, b)| (a - b).abs());
    // A NaN must not be lost in a maximum.
    let worst = differences.fold(0.0f32, |m, d| if d.is_nan() { f32::INFINITY } else { m.max(d) });
    if expected.len() == found.len() { f64::from(worst / largest) } else { f64::INFINITY }
}

fn tiny(attention: AttentionKind, device: &Device) -> EarthMapper {
    let tokenizer = TokenizerConfig {
        picture_side: 32,
        sides: vec![1, 2, 4, 8],
        vocabulary: 64,
        latent_width: 8,
        quantizer_depth: 2,
        channels: 16,
        multipliers: vec![1, 2, 2],
        residual_blocks: 1,
        ..Default::default()
    };
    let adaptive_norm =
        if attention == AttentionKind::L2 { AdaptiveNorm::Shared } else { AdaptiveNorm::PerBlock };
    let transformer =
        TransformerConfig { depth: 2, width: 64, heads: 4, attention, adaptive_norm, ..Default::default() };
    let config = EarthMapperConfig { format: 1, name: "tiny".into(), transformer, ..Default::default() };
    EarthMapper::new(config, tokenizer, 5, device)
}

fn back_ends() -> Vec<&'static str> {
    let built = [
        ("cuda", cfg!(feature = "cuda")),
        ("vulkan", cfg!(feature = "vulkan")),
        ("metal", cfg!(feature = "metal")),
    ];
    std::iter::once("cpu")
        .chain(built.into_iter().filter(|(_, built)| *built).map(|(name, _)| name))
        .collect()
}

fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("model name"));
    line.map_or("unknown".into(), |line| line.trim_start_matches([' ', '\t', ':']).to_string())
}
