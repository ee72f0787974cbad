//! The model against numbers of the public reference implementation (VAR), through the weights import.
//!
//! The files of reference numbers are not part of the repository; without them the tests say that they are skipped.
//! `import_var_tokenizer.pth` is part of it: a tiny tokenizer of VAR's names inside a trainer's checkpoint, written by
//! `torch.save` in 16 bits; element i of the tensor `name` is ((i + name's length) mod 17 − 8) / 16.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use earthmapper::config::{TokenizerConfig, TransformerConfig};
use earthmapper::guidance::{Guidance, guide};
use earthmapper::init::Init;
use earthmapper::weights::{self, HostTensor, HostTensors, Missing};
use earthmapper::{
    EarthMapper, JointTransformer, Modality, MultiScaleTokenizer, Sampler, SamplerConfig, TokenPyramid,
};
use earthmapper_lab::import::{ImportError, import_tokenizer, import_var, var_tokenizer, var_transformer};
use earthmapper_lab::nets::{NamedTensors, WeightsError};

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
fn read_all(path: &Path) -> HostTensors {
    NamedTensors::read(path).unwrap().into_parts().0
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
        let hidden =
            plain.transformer.forward(&[0], std::slice::from_ref(&inputs), None, condition.clone(), None);
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
            let hidden = plain.transformer.step(&[0], &inputs, None, here.clone(), &mut cache);
            let mut logits = floats(plain.logits(hidden, here.clone()));
            let hidden = plain.transformer.step(&[0], &inputs, None, none.clone(), &mut free_cache);
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

#[test]
fn a_pytorch_checkpoint_gives_the_tokenizer_inside_it() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/import_var_tokenizer.pth");
    let (config, tensors) = var_tokenizer(NamedTensors::read(&path).unwrap(), &[1, 3]).unwrap();
    let shape = (config.channels, config.multipliers.as_slice(), config.vocabulary, config.latent_width);
    assert_eq!(shape, (2, [1, 2].as_slice(), 8, 2));
    assert_eq!((config.picture_side, config.residual_blocks, config.phi_count), (6, 1, 1));
    assert!(!config.attention);
    for (ours, theirs) in [
        ("encoder.levels.1.blocks.0.shortcut.weight", "encoder.down.1.block.0.nin_shortcut.weight"),
        ("encoder.levels.0.resample.bias", "encoder.down.0.downsample.conv.bias"),
        ("decoder.levels.0.blocks.1.norm2.gamma", "decoder.up.0.block.1.norm2.weight"),
        ("decoder.middle.block2.norm1.beta", "decoder.mid.block_2.norm1.bias"),
        ("quantizer.codebook", "quantize.embedding.weight"),
        ("quantizer.phi.0.weight", "quantize.quant_resi.qresi.weight"),
        ("after_quantizer.bias", "post_quant_conv.bias"),
    ] {
        let values = (0..tensors[ours].values.len()).map(|i| ((i + theirs.len()) % 17) as f32 / 16.0 - 0.5);
        assert_eq!(tensors[ours].values, values.collect::<Vec<_>>(), "{ours}");
    }

    // The same tensors without the checkpoint around them, as safetensors.
    let folder = tempfile::tempdir().unwrap();
    let bare = folder.path().join("bare.safetensors");
    let mut inside = read_all(&path);
    inside.retain(|name, _| name.starts_with("trainer.vae_local."));
    let inside =
        inside.into_iter().map(|(name, tensor)| (name["trainer.vae_local.".len()..].to_string(), tensor));
    write(&bare, &inside.collect());
    assert_eq!(var_tokenizer(NamedTensors::read(&bare).unwrap(), &[1, 3]).unwrap(), (config, tensors));
    let pictures = Tensor::<4>::ones([1, 3, 6, 6], &Device::flex());
    let codes = |path: &Path| {
        let (_, tokenizer) = import_tokenizer(path, &[1, 3], &Device::flex()).unwrap();
        tokenizer.encode(pictures.clone()).tokens
    };
    assert_eq!(codes(&path), codes(&bare));
}

#[test]
fn the_joint_model_starts_from_var_and_says_with_what() {
    let Some(folder) = parity_folder() else { return };
    let device = Device::flex();
    let tokenizer = folder.join("var_tokenizer.safetensors");
    for name in TRANSFORMERS {
        let path = folder.join(name);
        let (model, report) = import_var(&tokenizer, &path, &SIDES, Some(4), "from-var", &device).unwrap();
        assert_eq!(model.config.name, "from-var");
        assert_eq!(model.transformer.modalities(), [Modality::Satellite, Modality::Map]);
        assert_eq!((model.config.transformer.depth, model.config.transformer.heads()), (3, 4));

        let text = report.to_string();
        for part in ["taken over:", "3 blocks of width 64, 4 heads", "11 class embeddings"] {
            assert!(text.contains(part), "{text}");
        }
        for part in ["starts fresh:", "coordinate encoder", "modality embedding of 2", "lvl_1L"] {
            assert!(text.contains(part), "{text}");
        }

        // What the report calls fresh is all that a model without the import would have too.
        let imported = weights::collect(&model.transformer);
        let (_, tensors, _) =
            var_transformer(NamedTensors::read(&path).unwrap(), &model.tokenizer_config, Some(4)).unwrap();
        let fresh: Vec<&str> =
            imported.keys().filter(|name| !tensors.contains_key(*name)).map(String::as_str).collect();
        assert!(
            fresh.iter().all(|name| *name == "modality" || name.starts_with("geo_embedding.")),
            "fresh: {fresh:?}"
        );
        assert!(tensors.iter().all(|(name, tensor)| imported[name] == *tensor));

        let temporary = tempfile::tempdir().unwrap();
        let saved = temporary.path().join("model");
        model.save(&saved, weights::Storage::F32, &text).unwrap();
        let back = EarthMapper::load(&saved, &device).unwrap();
        assert_eq!((&back.config, &back.tokenizer_config), (&model.config, &model.tokenizer_config));
        assert_eq!(weights::collect(&back.transformer), imported);
        assert_eq!(weights::collect(&back.tokenizer), weights::collect(&model.tokenizer));

        let classes = NamedTensors::read(&path).unwrap().take("class_emb.weight", &[11, 64]).unwrap();
        let nowhere = model.transformer.geo_embedding.forward(&[None]);
        for (i, value) in floats(nowhere).iter().enumerate() {
            let mean = classes.iter().skip(i).step_by(64).sum::<f32>() / 11.0;
            assert!((value - mean).abs() < 1e-5, "{value} instead of {mean}");
        }
    }
}

#[test]
fn files_that_do_not_fit_are_refused_with_the_reason() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/import_var_tokenizer.pth");
    let folder = tempfile::tempdir().unwrap();
    let device = Device::flex();
    let refused = |path: &Path, sides: &[usize]| import_tokenizer(path, sides, &device).unwrap_err();

    let cut = folder.path().join("cut.pth");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    assert!(matches!(refused(&cut, &[1, 3]), ImportError::Weights(WeightsError::Truncated { .. })));
    let absent = refused(&folder.path().join("absent.pth"), &[1, 3]);
    assert!(matches!(absent, ImportError::Weights(WeightsError::Missing { .. })));
    assert!(matches!(refused(&path, &[1, 2, 3]), ImportError::Scales { found: 2, given: 3, .. }));
    assert!(matches!(refused(&path, &[3, 1]), ImportError::Config { .. }));

    let whole = read_all(&path);
    let cut = folder.path().join("cut.safetensors");
    write(&cut, &whole);
    let bytes = std::fs::read(&cut).unwrap();
    std::fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    assert!(matches!(refused(&cut, &[1, 3]), ImportError::Weights(WeightsError::Truncated { .. })));

    let changed = folder.path().join("changed.safetensors");
    let refused_after = |change: &dyn Fn(&mut HostTensors)| {
        let mut tensors = whole.clone();
        change(&mut tensors);
        write(&changed, &tensors);
        refused(&changed, &[1, 3]).to_string()
    };
    let one = HostTensor { shape: vec![1], values: vec![0.0] };
    let leftover = refused_after(&|tensors| {
        tensors.insert("trainer.vae_local.encoder.extra.weight".into(), one.clone());
    });
    assert!(leftover.contains("encoder.extra.weight"), "{leftover}");
    let missing = refused_after(&|tensors| {
        tensors.remove("trainer.vae_local.decoder.conv_out.bias");
    });
    assert!(missing.contains("`decoder.conv_out.bias` is missing"), "{missing}");
    let shape = refused_after(&|tensors| {
        tensors.insert("trainer.vae_local.quant_conv.bias".into(), one.clone());
    });
    assert!(shape.contains("quant_conv.bias") && shape.contains("[1]"), "{shape}");
    // A scalar where a table belongs: the statistic is not needed and the rest is whole, but the table would tell how
    // many scales there are; nothing may be read beyond its shape.
    let scalar = HostTensor { shape: vec![], values: vec![0.0] };
    let mut tensors = whole.clone();
    tensors.insert("trainer.vae_local.quantize.ema_vocab_hit_SV".into(), scalar);
    write(&changed, &tensors);
    assert!(import_tokenizer(&changed, &[1, 3], &device).is_ok());

    // A header of 128 bytes begins like a pickle; what the file is shows in its ninth byte.
    let like_a_pickle = folder.path().join("like-a-pickle.safetensors");
    let header = format!("{:<128}", r#"{"weight":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#);
    let bytes = [&128u64.to_le_bytes(), header.as_bytes(), &[0; 4]].concat();
    std::fs::write(&like_a_pickle, bytes).unwrap();
    assert_eq!(NamedTensors::read(&like_a_pickle).unwrap().shape("weight").unwrap(), [1]);

    // A tokenizer is no transformer, and another network is neither.
    let (config, _) = import_tokenizer(&path, &[1, 3], &device).unwrap();
    let error = var_transformer(NamedTensors::read(&path).unwrap(), &config, None).unwrap_err();
    assert!(matches!(error, ImportError::Weights(WeightsError::OtherNetwork { .. })), "{error}");
    let foreign = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nets_weights.pth");
    let error = refused(&foreign, &[1, 3]);
    assert!(matches!(error, ImportError::Weights(WeightsError::OtherNetwork { .. })), "{error}");
}

/// Writes tensors as safetensors.
fn write(path: &Path, tensors: &HostTensors) {
    std::fs::write(path, weights::to_bytes(tensors, weights::Storage::F32)).unwrap();
}
