//! The model against numbers of the public reference implementation (VAR), through the weights import.
//!
//! The files of reference numbers are not part of the repository; without them the tests say that they are skipped.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use earthmapper::config::{TokenizerConfig, TransformerConfig};
use earthmapper::guidance::{Guidance, guide};
use earthmapper::init::Init;
use earthmapper::weights::{self, HostTensor, HostTensors, Missing};
use earthmapper::{JointTransformer, Modality, MultiScaleTokenizer, Sampler, SamplerConfig, TokenPyramid};
use earthmapper_lab::import::{ImportError, import_tokenizer, import_var, var_tokenizer, var_transformer};
use earthmapper_lab::nets::{NamedTensors, WeightsError, weights as named};

const SIDES: [usize; 5] = [1, 2, 3, 5, 8];

const TRANSFORMERS: [&str; 4] = [
    "var_transformer_dot.safetensors",
    "var_transformer_dot_shared.safetensors",
    "var_transformer_l2.safetensors",
    "var_transformer_l2_shared.safetensors",
];

/// The folder of reference numbers, if it is there.
fn parity_folder() -> Option<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let named = std::env::var_os("EARTHMAPPER_PARITY").map(PathBuf::from);
    let folder = named.into_iter().chain([workspace.join("../shared/parity")]).find(|folder| folder.is_dir());
    if folder.is_none() {
        println!("skipped: no folder of reference numbers; EARTHMAPPER_PARITY can name it");
    }
    folder
}

/// Inputs and expected outputs of a file, without the `case.` before their names.
struct Case(NamedTensors);

impl Case {
    fn read(path: &Path) -> Self {
        let mut tensors = NamedTensors::read(path).unwrap();
        tensors.rename(|name| name.strip_prefix("case.").map(str::to_string));
        Self(tensors)
    }

    fn values(&mut self, name: &str) -> (Vec<f32>, Vec<usize>) {
        let shape = self.0.shape(name).unwrap().to_vec();
        (self.0.take(name, &shape).unwrap(), shape)
    }

    fn tensor<const D: usize>(&mut self, name: &str, device: &Device) -> Tensor<D> {
        let (values, shape) = self.values(name);
        Tensor::from_data(TensorData::new(values, shape), device)
    }

    fn pyramid(&mut self, name: &str) -> TokenPyramid {
        let codes =
            |k: usize| self.values(&format!("{name}.{k}")).0.iter().map(|&code| code as u32).collect();
        TokenPyramid::new((0..SIDES.len()).map(codes).collect(), 2, 1)
    }
}

fn floats<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

/// Checks the largest difference ÷ largest expected value.
fn assert_close<const D: usize>(
    what: &str,
    found: Tensor<D>,
    expected: (Vec<f32>, Vec<usize>),
    tolerance: f32,
) {
    let (expected, shape) = expected;
    assert_eq!(found.dims().to_vec(), shape, "{what}");
    let largest = expected.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    let difference = floats(found).iter().zip(&expected).fold(0f32, |most, (a, b)| {
        assert!(a.is_finite(), "{what} is not finite");
        most.max((a - b).abs())
    });
    println!("{what}: relative difference {:.1e} (largest value {largest:.3})", difference / largest);
    assert!(difference <= tolerance * largest, "{what}: relative difference {}", difference / largest);
}

/// All tensors of a file, cases too.
fn read_all(path: &Path) -> BTreeMap<String, named::HostTensor> {
    let mut file = NamedTensors::read(path).unwrap();
    let names: Vec<String> = file.names().map(str::to_string).collect();
    let take = |name: String| {
        let shape = file.shape(&name).unwrap().to_vec();
        let values = file.take(&name, &shape).unwrap();
        (name, named::HostTensor { shape, values })
    };
    names.into_iter().map(take).collect()
}

fn tokenizer(folder: &Path, device: &Device) -> (TokenizerConfig, MultiScaleTokenizer) {
    import_tokenizer(&folder.join("var_tokenizer.safetensors"), &SIDES, device).unwrap()
}

#[test]
fn tokenizer_agrees_with_the_reference() {
    let Some(folder) = parity_folder() else { return };
    let device = Device::flex();
    let mut case = Case::read(&folder.join("var_tokenizer.safetensors"));
    let (config, tokenizer) = tokenizer(&folder, &device);
    let expected = TokenizerConfig {
        picture_side: 16,
        sides: SIDES.to_vec(),
        vocabulary: 64,
        latent_width: 8,
        channels: 32,
        multipliers: vec![1, 2],
        residual_blocks: 1,
        phi_count: 4,
        ..Default::default()
    };
    assert_eq!(config, expected);

    let features = tokenizer.features(case.tensor("image", &device));
    assert_close("features", features.clone(), case.values("features"), 1e-4);
    let quantized = tokenizer.quantizer.quantize(features.clone(), 0.25);
    assert_close("vq_loss", quantized.loss, case.values("vq_loss"), 1e-4);
    let (tokens, reconstruction) = tokenizer.quantizer.encode(features);
    assert_eq!(tokens, case.pyramid("tokens"));
    assert_eq!(quantized.tokens, tokens, "training quantizes as encoding does");

    let running = tokenizer.quantizer.reconstructions(&tokens);
    let (first, last) = (running[0].clone(), running[SIDES.len() - 1].clone());
    assert_close("f_hat after the first scale", first, case.values("f_hat_after_first_scale"), 1e-4);
    let f_hat = case.values("f_hat");
    assert_close("f_hat of encoding", reconstruction, f_hat.clone(), 1e-4);
    assert_close("f_hat of the tokens", last.clone(), f_hat.clone(), 1e-4);
    assert_close("f_hat of training", quantized.features, f_hat, 1e-4);
    let inputs = Tensor::cat(tokenizer.quantizer.teacher_inputs(&tokens), 1);
    assert_close("teacher input", inputs, case.values("teacher_input"), 1e-4);
    let expected = case.values("reconstruction");
    // The reference gives pictures within [−1, 1] here or not; ours are clamped after the same numbers.
    let clamped = expected.0.iter().all(|value| value.abs() <= 1.0);
    let picture = if clamped { tokenizer.decode(&tokens) } else { tokenizer.decode_unclamped(last) };
    assert_close("reconstruction", picture, expected, 1e-4);
}

/// A VAR transformer in the joint modules: one modality without an embedding of its own, and a row of the class
/// embedding as the condition.
struct Plain {
    transformer: JointTransformer,
    classes: Tensor<2>,
}

impl Plain {
    fn read(path: &Path, tokenizer: &TokenizerConfig, device: &Device) -> Self {
        let (config, mut tensors, _) =
            var_transformer(NamedTensors::read(path).unwrap(), tokenizer, Some(4)).unwrap();
        let config = TransformerConfig { modalities: vec![Modality::Map], ..config };
        let width = config.width();
        tensors.insert("modality".into(), HostTensor { shape: vec![1, width], values: vec![0.0; width] });
        let fresh = JointTransformer::new(&config, tokenizer, &mut Init::new(0, device));
        let transformer = weights::apply(fresh, tensors, Missing::Keep).unwrap();
        let classes = NamedTensors::read(path).unwrap().take("class_emb.weight", &[11, width]).unwrap();
        Self { transformer, classes: Tensor::from_data(TensorData::new(classes, [11, width]), device) }
    }

    fn condition(&self, labels: &[i64]) -> Tensor<2> {
        self.classes.clone().select(0, Tensor::from_data(labels, &self.classes.device()))
    }

    fn logits(&self, hidden: Tensor<3>, condition: Tensor<2>) -> Tensor<2> {
        let [batch, tokens, width] = hidden.dims();
        let normed = self.transformer.head_norm(hidden, condition);
        self.transformer.logits(normed.reshape([batch * tokens, width]), None, 0)
    }
}

#[test]
fn transformer_logits_agree_with_the_reference() {
    let Some(folder) = parity_folder() else { return };
    let device = Device::flex();
    let mut case = Case::read(&folder.join("var_tokenizer.safetensors"));
    let (config, tokenizer) = tokenizer(&folder, &device);
    let inputs = tokenizer.quantizer.teacher_inputs(&case.pyramid("tokens"));
    for name in TRANSFORMERS {
        let path = folder.join(name);
        let plain = Plain::read(&path, &config, &device);
        let mut case = Case::read(&path);
        let labels: Vec<i64> = case.values("label").0.iter().map(|&label| label as i64).collect();
        let condition = plain.condition(&labels);
        let hidden = plain.transformer.forward(&[0], std::slice::from_ref(&inputs), condition.clone(), None);
        let [batch, tokens, _] = hidden.dims();
        let logits = plain.logits(hidden, condition).reshape([batch, tokens, config.vocabulary]);
        assert_close(name, logits, case.values("logits"), 1e-3);
    }
}

#[test]
fn greedy_generation_agrees_with_the_reference() {
    let Some(folder) = parity_folder() else { return };
    let device = Device::flex();
    let (config, tokenizer) = tokenizer(&folder, &device);
    let (quantizer, scales, vocabulary) = (&tokenizer.quantizer, config.scales(), config.vocabulary);
    for name in TRANSFORMERS {
        let path = folder.join(name);
        let plain = Plain::read(&path, &config, &device);
        let mut case = Case::read(&path);
        let labels: Vec<i64> = case.values("label").0.iter().map(|&label| label as i64).collect();
        let batch = labels.len();
        let (here, none) = (plain.condition(&labels), plain.condition(&vec![10; batch]));
        let (mut cache, mut free_cache) = (plain.transformer.cache(), plain.transformer.cache());
        let guidance = Guidance::Ramp(1.5);
        let mut sampler = Sampler::new(0);
        let mut reconstruction =
            Tensor::zeros([batch, config.latent_width, scales.finest(), scales.finest()], &device);
        let mut codes = Vec::new();
        for k in 0..scales.len() {
            let inputs =
                if k > 0 { vec![quantizer.next_input(k, reconstruction.clone())] } else { Vec::new() };
            let hidden = plain.transformer.step(&[0], &inputs, here.clone(), &mut cache);
            let mut logits = floats(plain.logits(hidden, here.clone()));
            let hidden = plain.transformer.step(&[0], &inputs, none.clone(), &mut free_cache);
            let free = floats(plain.logits(hidden, none.clone()));
            let strength = guidance.strength(scales.resolution(k), &logits, &free, vocabulary, None);
            guide(&mut logits, &free, strength);
            let greedy = SamplerConfig::greedy();
            let drawn: Vec<u32> =
                logits.chunks(vocabulary).map(|row| sampler.draw(&greedy.probabilities(row))).collect();
            let indices: Vec<i64> = drawn.iter().map(|&code| i64::from(code)).collect();
            let indices = Tensor::from_data(TensorData::new(indices, [drawn.len(), 1]), &device);
            reconstruction = quantizer.accumulate(k, reconstruction, quantizer.look_up(indices));
            codes.push(drawn);
        }
        assert_eq!(TokenPyramid::new(codes, batch, 1), case.pyramid("greedy_tokens"), "{name}");
        let picture = tokenizer.decode_features(reconstruction).add_scalar(1.0).div_scalar(2.0);
        assert_close(&format!("{name}, greedy picture"), picture, case.values("greedy_image"), 1e-4);
    }
}

#[test]
fn sampling_filters_keep_what_the_reference_keeps() {
    let Some(folder) = parity_folder() else { return };
    let mut case = Case::read(&folder.join("sampling_filters.safetensors"));
    let logits = case.values("logits").0;
    for (name, top_k, top_p) in
        [("keep_topk10", 10, 0.0), ("keep_topp055", 0, 0.55), ("keep_topk20_topp055", 20, 0.55)]
    {
        let sampler = SamplerConfig { temperature: 1.0, top_k, top_p };
        let kept: Vec<f32> = logits
            .chunks(64)
            .flat_map(|row| sampler.probabilities(row))
            .map(|probability| f32::from(u8::from(probability > 0.0)))
            .collect();
        assert_eq!(kept, case.values(name).0, "{name}");
    }
}
