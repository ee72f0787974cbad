//! The model's code against numbers of the public reference implementations.
//!
//! The files are looked for in `$EARTHMAPPER_PARITY`, then in `../shared/parity` beside the checkout; without them the
//! tests say that they were skipped.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use earthmapper::guidance::{Guidance, guide};
use earthmapper::init::Init;
use earthmapper::sampler::SamplerConfig;
use earthmapper::tokenizer::MultiScaleTokenizer;
use earthmapper::weights::{HostTensor, Missing, apply};
use earthmapper::{JointTransformer, Modality, TokenPyramid, TokenizerConfig};
use earthmapper_lab::import::{ImportError, import_tokenizer, import_var, var_transformer};
use earthmapper_lab::nets::NamedTensors;
use safetensors::SafeTensors;

const SIDES: [usize; 5] = [1, 2, 3, 5, 8];

fn folder() -> Option<PathBuf> {
    let named = std::env::var_os("EARTHMAPPER_PARITY").map(PathBuf::from);
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/parity");
    let found = named.into_iter().chain([beside]).find(|folder| folder.is_dir());
    if found.is_none() {
        println!("skipped: no reference numbers; set EARTHMAPPER_PARITY");
    }
    found
}

/// A file of reference numbers.
struct Case(Vec<u8>);

impl Case {
    fn open(path: &Path) -> Self {
        Self(std::fs::read(path).unwrap())
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        let view = file.tensor(&format!("case.{name}")).unwrap();
        view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }

    fn integers(&self, name: &str) -> Vec<u32> {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        let view = file.tensor(&format!("case.{name}")).unwrap();
        view.data().as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b) as u32).collect()
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        file.tensor(&format!("case.{name}")).unwrap().data().to_vec()
    }
}

fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values, shape), &Device::flex())
}

/// Largest difference over the largest reference value.
fn relative<const D: usize>(found: Tensor<D>, expected: &[f32]) -> f32 {
    let found = found.try_into_vec_as::<f32>().unwrap();
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    let worst = found.iter().zip(expected).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
    assert!(found.iter().all(|v| v.is_finite()));
    worst / largest
}

fn check<const D: usize>(what: &str, found: Tensor<D>, expected: &[f32], limit: f32) {
    let difference = relative(found, expected);
    println!("{what}: {difference:.1e}");
    assert!(difference <= limit, "{what}: {difference}");
}

fn tokenizer(folder: &Path) -> (TokenizerConfig, MultiScaleTokenizer) {
    import_tokenizer(&folder.join("var_tokenizer.safetensors"), &SIDES, &Device::flex()).unwrap()
}

#[test]
fn the_tokenizer_is_the_references() {
    let Some(folder) = folder() else { return };
    let case = Case::open(&folder.join("var_tokenizer.safetensors"));
    let (config, tokenizer) = tokenizer(&folder);
    assert_eq!((config.picture_side, config.vocabulary, config.latent_width), (16, 64, 8));
    let image = tensor(case.floats("image"), [2, 3, 16, 16]);
    let features = tokenizer.features(image);
    check("features", features.clone(), &case.floats("features"), 1e-4);
    let (tokens, f_hat) = tokenizer.quantizer.encode(features.clone());
    for k in 0..SIDES.len() {
        assert_eq!(tokens.scale(k), case.integers(&format!("tokens.{k}")), "tokens of scale {k}");
    }
    check("f_hat", f_hat.clone(), &case.floats("f_hat"), 1e-4);
    let all = tokenizer.quantizer.reconstructions(&tokens);
    check("f_hat after the first scale", all[0].clone(), &case.floats("f_hat_after_first_scale"), 1e-4);
    let inputs = Tensor::cat(tokenizer.quantizer.teacher_inputs(&tokens), 1);
    check("teacher input", inputs, &case.floats("teacher_input"), 1e-4);
    check("reconstruction", tokenizer.decode(&tokens), &case.floats("reconstruction"), 1e-4);
    let quantized = tokenizer.quantizer.quantize(features, 0.25);
    check("vq loss", quantized.loss, &case.floats("vq_loss"), 1e-4);
    check("straight-through features", quantized.features, &case.floats("f_hat"), 1e-4);
}

/// VAR's transformer as a model of one modality, and its class embeddings.
fn transformer(path: &Path, tokenizer: &TokenizerConfig) -> (JointTransformer, HostTensor) {
    let tensors = NamedTensors::read(path).unwrap();
    let (mut config, mut tensors, classes) = var_transformer(tensors, tokenizer, Some(4)).unwrap();
    config.modalities = vec![Modality::Map];
    // A single modality needs no embedding of its own.
    let width = config.width();
    tensors.insert("modality".into(), HostTensor { shape: vec![1, width], values: vec![0.0; width] });
    let fresh = JointTransformer::new(&config, tokenizer, &mut Init::new(0, &Device::flex()));
    (apply(fresh, tensors, Missing::Keep).unwrap(), classes)
}

fn condition(classes: &HostTensor, labels: &[u32]) -> Tensor<2> {
    let width = classes.shape[1];
    let rows = labels.iter().flat_map(|&label| &classes.values[label as usize * width..(label as usize + 1) * width]);
    tensor(rows.copied().collect(), [labels.len(), width])
}

#[test]
fn the_transformer_is_the_references() {
    let Some(folder) = folder() else { return };
    let (config, tokenizer) = tokenizer(&folder);
    let teacher = Case::open(&folder.join("var_tokenizer.safetensors")).floats("teacher_input");
    let teacher = tensor(teacher, [2, 102, 8]);
    for kind in ["dot", "dot_shared", "l2", "l2_shared"] {
        let path = folder.join(format!("var_transformer_{kind}.safetensors"));
        let case = Case::open(&path);
        let (transformer, classes) = transformer(&path, &config);
        let labels = case.integers("label");
        let here = condition(&classes, &labels);
        let scales = transformer.scales().clone();
        let inputs: Vec<Tensor<3>> = (1..scales.len())
            .map(|k| teacher.clone().narrow(1, scales.range(k).start - 1, scales.tokens(k)))
            .collect();
        let hidden = transformer.forward(&[0], &[inputs], &[], here.clone(), None);
        let normed = transformer.head_norm(hidden, here.clone()).reshape([2 * 103, 64]);
        check(&format!("{kind}: logits"), transformer.logits(normed, None, 0), &case.floats("logits"), 1e-3);

        let nowhere = condition(&classes, &[10, 10]);
        let (tokens, picture) = greedy(&tokenizer, &transformer, here, nowhere);
        for (k, tokens) in tokens.iter().enumerate() {
            assert_eq!(tokens, &case.integers(&format!("greedy_tokens.{k}")), "{kind}: greedy tokens of scale {k}");
        }
        let picture = picture.add_scalar(1.0).mul_scalar(0.5);
        check(&format!("{kind}: greedy image"), picture, &case.floats("greedy_image"), 1e-3);
    }
}

/// Greedy generation with VAR's ramp of 1.5.
fn greedy(
    tokenizer: &MultiScaleTokenizer,
    transformer: &JointTransformer,
    here: Tensor<2>,
    nowhere: Tensor<2>,
) -> (Vec<Vec<u32>>, Tensor<4>) {
    let quantizer = &tokenizer.quantizer;
    let scales = transformer.scales();
    let mut reconstruction = Tensor::<4>::zeros([2, 8, 8, 8], &Device::flex());
    let (mut cache, mut free) = (transformer.cache(), transformer.cache());
    let mut all = Vec::new();
    for k in 0..scales.len() {
        let input = if k == 0 { vec![] } else { vec![quantizer.next_input(k, reconstruction.clone())] };
        let rows = 2 * scales.tokens(k);
        let logits = |condition: &Tensor<2>, cache: &mut earthmapper::KvCache| {
            let hidden = transformer.step(&[0], &input, &[], condition.clone(), cache);
            let normed = transformer.head_norm(hidden, condition.clone()).reshape([rows, 64]);
            transformer.logits(normed, None, 0).try_into_vec_as::<f32>().unwrap()
        };
        let mut guided = logits(&here, &mut cache);
        let unconditional = logits(&nowhere, &mut free);
        let strength = Guidance::Ramp(1.5).strength(scales.resolution(k), &guided, &unconditional, 64, None);
        guide(&mut guided, &unconditional, strength);
        let pick = |row: &[f32]| {
            let probabilities = SamplerConfig::greedy().probabilities(row);
            probabilities.iter().position(|p| *p > 0.0).unwrap() as u32
        };
        let codes: Vec<u32> = guided.chunks(64).map(pick).collect();
        let scale = TokenPyramid::new(vec![codes.clone()], 2, 1);
        let vectors = quantizer.look_up(scale.tensor(0, &Device::flex()));
        reconstruction = quantizer.accumulate(k, reconstruction, vectors);
        all.push(codes);
    }
    (all, tokenizer.decode_features(reconstruction))
}

#[test]
fn the_filters_keep_what_the_reference_keeps() {
    let Some(folder) = folder() else { return };
    let case = Case::open(&folder.join("sampling_filters.safetensors"));
    let logits = case.floats("logits");
    for (name, top_k, top_p) in [("topk10", 10, 0.0), ("topp055", 0, 0.55), ("topk20_topp055", 20, 0.55)] {
        let config = SamplerConfig { temperature: 1.0, top_k, top_p };
        let kept: Vec<u8> = logits
            .chunks(64)
            .flat_map(|row| config.probabilities(row).into_iter().map(|p| u8::from(p > 0.0)).collect::<Vec<_>>())
            .collect();
        assert_eq!(kept, case.bytes(&format!("keep_{name}")), "{name}");
    }
}

#[test]
fn an_imported_model_is_a_joint_one_and_says_what_maps() {
    let Some(folder) = folder() else { return };
    let device = Device::flex();
    let vae = folder.join("var_tokenizer.safetensors");
    let var = folder.join("var_transformer_l2_shared.safetensors");
    let (model, report) = import_var(&vae, &var, &SIDES, None, &device).unwrap();
    assert!(report.contains("fresh: the coordinate encoder"));
    assert_eq!(model.config.transformer.heads(), 4);
    assert_eq!(model.transformer.modalities(), [Modality::Satellite, Modality::Map]);
    let temporary = tempfile::tempdir().unwrap();
    let saved = temporary.path().join("model");
    model.save(&saved, earthmapper::weights::Storage::F32, "card").unwrap();
    let back = earthmapper::EarthMapper::load(&saved, &device).unwrap();
    let level = |model: &earthmapper::EarthMapper| earthmapper::weights::collect(&model.transformer)["level"].clone();
    assert_eq!(level(&back), level(&model));
}

#[test]
fn other_networks_and_damaged_files_are_refused() {
    let Some(folder) = folder() else { return };
    let device = Device::flex();
    let error = |path: &Path| import_tokenizer(path, &SIDES, &device).map(|_| ()).unwrap_err();
    let message = error(&folder.join("dinov2.safetensors")).to_string();
    assert!(message.contains("dinov2.safetensors"), "{message}");
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("cut.safetensors");
    let bytes = std::fs::read(folder.join("var_tokenizer.safetensors")).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    assert!(matches!(error(&path), ImportError::Weights(_)));
    assert!(matches!(
        import_tokenizer(&folder.join("var_tokenizer.safetensors"), &[1, 2, 3, 5, 7], &device).map(|_| ()),
        Ok(()),
    ));
    assert!(matches!(
        import_tokenizer(&folder.join("var_tokenizer.safetensors"), &[], &device).map(|_| ()),
        Err(ImportError::Config(_))
    ));
}
