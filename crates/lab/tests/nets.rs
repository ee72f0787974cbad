//! The frozen networks against reference numbers, the discriminator and its losses, and bad weights files.
//!
//! `nets_lpips.safetensors` was computed by the lpips package on a VGG-16 of fewer channels,
//! `nets_dinov2_registers.safetensors` by transformers (registers, SwiGLU, positions resized with antialiasing),
//! both on random weights; `nets_weights.pth` was written by `torch.save`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Tensor, TensorData};
use earthmapper::weights::{HostTensor, Storage, to_bytes_with};
use earthmapper_lab::nets::discriminator::{
    adaptive_weight, discriminator_loss, feature_matching, generator_loss, last_convolution_gradient,
};
use earthmapper_lab::nets::resize::{Bicubic, resize};
use earthmapper_lab::nets::{
    DinoV2, ImportedNetwork, Lpips, NamedTensors, PatchDiscriminatorConfig, WeightsError,
};

type Tensors = BTreeMap<String, HostTensor>;

/// The folder of reference numbers that are not part of the repository, if it is there.
fn parity_folder() -> Option<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let named = std::env::var_os("EARTHMAPPER_PARITY").map(PathBuf::from);
    named.into_iter().chain([workspace.join("../shared/parity")]).find(|folder| folder.is_dir())
}

fn own_reference(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

fn read_all(path: &Path) -> Tensors {
    NamedTensors::read(path).unwrap().into_parts().0
}

fn write(path: &Path, tensors: &Tensors, config: &str) {
    let metadata = [("config".to_string(), config.to_string())].into();
    std::fs::write(path, to_bytes_with(tensors, Storage::F32, metadata)).unwrap();
}

fn tensor<const D: usize>(host: &HostTensor, device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(host.values.clone(), host.shape.clone()), device)
}

fn floats<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

/// Largest difference ÷ largest expected value.
fn relative_difference(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    let difference = found.iter().zip(expected).fold(0f32, |most, (a, b)| {
        assert!(a.is_finite(), "not finite");
        most.max((a - b).abs())
    });
    difference / largest
}

fn assert_close<const D: usize>(found: Tensor<D>, expected: &HostTensor, tolerance: f32) {
    assert_eq!(found.dims().to_vec(), expected.shape);
    let difference = relative_difference(&floats(found), &expected.values);
    println!("relative difference {difference:.1e}");
    assert!(difference < tolerance, "relative difference {difference}");
}

#[test]
fn dinov2_agrees_with_transformers() {
    let Some(folder) = parity_folder() else {
        println!("skipped: no reference numbers");
        return;
    };
    let device = Device::flex();
    let path = folder.join("dinov2.safetensors");
    let network = DinoV2::load(&path, &device).unwrap();
    let case = read_all(&path);
    for name in ["native", "larger"] {
        let pixels = tensor::<4>(&case[&format!("case.pixels_{name}")], &device);
        assert_close(network.forward(pixels), &case[&format!("case.tokens_{name}")], 1e-4);
    }
}

#[test]
fn dinov2_with_registers_and_gated_layers_agrees_with_transformers() {
    let device = Device::flex();
    let path = own_reference("nets_dinov2_registers.safetensors");
    let network = DinoV2::load(&path, &device).unwrap();
    assert_eq!((network.config().registers, network.config().swiglu), (2, true));
    let case = read_all(&path);
    assert_close(network.forward(tensor(&case["case.pixels"], &device)), &case["case.tokens"], 1e-4);
}

/// Replaces the first `from` that occurs in a name.
fn renamed(tensors: &Tensors, table: &[(&str, &str)]) -> Tensors {
    let new_name =
        |name: &str| table.iter().fold(name.to_string(), |name, (from, to)| name.replacen(from, to, 1));
    tensors.iter().map(|(name, tensor)| (new_name(name), tensor.clone())).collect()
}

/// Lays tensors that are stored apart one below the other, as the authors store them.
fn joined(tensors: &mut Tensors, parts: &[String], whole: &str) {
    let parts: Vec<HostTensor> = parts.iter().map(|name| tensors.remove(name).unwrap()).collect();
    let mut shape = parts[0].shape.clone();
    shape[0] *= parts.len();
    let values = parts.into_iter().flat_map(|part| part.values).collect();
    tensors.insert(whole.to_string(), HostTensor { shape, values });
}

/// transformers 5's names → those of earlier versions.
fn to_earlier(mut tensors: Tensors, layers: usize) -> Tensors {
    for layer in 0..layers {
        for kind in ["weight", "bias"] {
            let name = |part: &str| format!("encoder.layer.{layer}.mlp.{part}.{kind}");
            if tensors.contains_key(&name("gate_proj")) {
                joined(&mut tensors, &["gate_proj", "up_proj"].map(name), &name("weights_in"));
            }
        }
    }
    renamed(
        &tensors,
        &[
            ("attention.q_proj", "attention.attention.query"),
            ("attention.k_proj", "attention.attention.key"),
            ("attention.v_proj", "attention.attention.value"),
            ("attention.o_proj", "attention.output.dense"),
            ("mlp.down_proj", "mlp.weights_out"),
        ],
    )
}

/// transformers 5's names → the authors'.
fn to_authors(mut tensors: Tensors, layers: usize) -> Tensors {
    for layer in 0..layers {
        for kind in ["weight", "bias"] {
            let name = |part: &str| format!("encoder.layer.{layer}.{part}.{kind}");
            let parts = ["attention.q_proj", "attention.k_proj", "attention.v_proj"].map(name);
            joined(&mut tensors, &parts, &name("attn.qkv"));
            if tensors.contains_key(&name("mlp.gate_proj")) {
                joined(&mut tensors, &["mlp.gate_proj", "mlp.up_proj"].map(name), &name("mlp.w12"));
            }
        }
    }
    renamed(
        &tensors,
        &[
            ("embeddings.patch_embeddings.projection", "patch_embed.proj"),
            ("embeddings.position_embeddings", "pos_embed"),
            ("embeddings.", ""),
            ("encoder.layer.", "blocks."),
            ("attention.o_proj", "attn.proj"),
            ("layer_scale1.lambda1", "ls1.gamma"),
            ("layer_scale2.lambda1", "ls2.gamma"),
            ("mlp.down_proj", "mlp.w3"),
            ("layernorm.", "norm."),
        ],
    )
}

#[test]
fn dinov2_loads_three_name_schemes_with_one_result() {
    let device = Device::flex();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    let mut networks = vec![
        (gelu_network(), 2, r#"{"num_attention_heads": 3, "layer_norm_eps": 1e-6}"#),
        (
            read_all(&own_reference("nets_dinov2_registers.safetensors")),
            2,
            r#"{"num_attention_heads": 2, "layer_norm_eps": 1e-6}"#,
        ),
    ];
    if let Some(parity) = parity_folder() {
        let config = r#"{"num_attention_heads": 3, "layer_norm_eps": 1e-6}"#;
        networks.push((read_all(&parity.join("dinov2.safetensors")), 3, config));
    }
    for (current, layers, config) in networks {
        let result = |tensors: &Tensors| {
            write(&path, tensors, config);
            let pixels = TensorData::new(numbers(2 * 3 * 28 * 42, 9), [2, 3, 28, 42]);
            let tokens = DinoV2::load(&path, &device).unwrap().forward(Tensor::from_data(pixels, &device));
            HostTensor { shape: tokens.dims().to_vec(), values: floats(tokens) }
        };
        let expected = result(&current);
        let earlier = to_earlier(current.clone(), layers);
        assert_eq!(result(&earlier), expected);
        assert_eq!(result(&to_authors(current, layers)), expected);
        // Wrapped in a classifier, whose head is not ours.
        let wrapped = earlier.into_iter().map(|(name, tensor)| (format!("dinov2.{name}"), tensor));
        let head = ("classifier.weight".to_string(), HostTensor { shape: vec![1], values: vec![1.0] });
        assert_eq!(result(&wrapped.chain([head]).collect()), expected);
    }
}

#[test]
fn dinov2_features_of_pictures_have_the_grid_of_the_nearest_multiple() {
    let device = Device::flex();
    let network = DinoV2::load(own_reference("nets_dinov2_registers.safetensors"), &device).unwrap();
    let pictures = Tensor::<4>::zeros([2, 3, 17, 23], &device);
    assert_eq!(network.patch_features(pictures).dims(), [2, 16, 4, 6]);
}

#[test]
fn resizing_agrees_with_pytorch() {
    let device = Device::flex();
    let squares = [0.0f32, 1.0, 4.0, 9.0, 16.0, 25.0, 36.0];
    let cases: [(Bicubic, &[f32]); 4] = [
        (Bicubic::Plain, &[0.35185, 9.0, 29.46296]),
        (Bicubic::Antialiased, &[0.67742, 9.36386, 28.06451]),
        (
            Bicubic::Plain,
            &[-0.08128, 0.24991, 1.60938, 3.71462, 6.73813, 11.34762, 16.57113, 22.04688, 30.80078, 36.89411],
        ),
        (
            Bicubic::Antialiased,
            &[-0.06057, 0.33929, 1.5625, 3.8025, 7.0225, 11.2225, 16.40249, 22.5625, 30.72044, 36.66627],
        ),
    ];
    for (kind, expected) in cases {
        let across = Tensor::<4>::from_data(TensorData::new(squares.to_vec(), [1, 1, 1, 7]), &device);
        let down = across.clone().swap_dims(2, 3);
        assert!(relative_difference(&floats(resize(across, [1, expected.len()], kind)), expected) < 1e-6);
        assert!(relative_difference(&floats(resize(down, [expected.len(), 1], kind)), expected) < 1e-6);
    }
}

/// Numbers in [-1, 1) from a small linear congruential generator.
fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// A DINOv2 of width 12, 2 blocks, patches of 4 and a 3 × 3 grid under transformers 5's names.
fn gelu_network() -> Tensors {
    let mut shapes: Vec<(String, Vec<usize>)> = vec![
        ("embeddings.cls_token".into(), vec![1, 1, 12]),
        ("embeddings.mask_token".into(), vec![1, 12]),
        ("embeddings.position_embeddings".into(), vec![1, 10, 12]),
        ("embeddings.patch_embeddings.projection.weight".into(), vec![12, 3, 4, 4]),
        ("embeddings.patch_embeddings.projection.bias".into(), vec![12]),
        ("layernorm.weight".into(), vec![12]),
        ("layernorm.bias".into(), vec![12]),
    ];
    for layer in 0..2 {
        let mut add = |name: &str, shape: &[usize]| {
            shapes.push((format!("encoder.layer.{layer}.{name}"), shape.to_vec()));
        };
        for name in ["norm1", "norm2"] {
            add(&format!("{name}.weight"), &[12]);
            add(&format!("{name}.bias"), &[12]);
        }
        let linear = [("q_proj", 12, 12), ("k_proj", 12, 12), ("v_proj", 12, 12), ("o_proj", 12, 12)];
        let linear = linear.map(|(name, to, from)| (format!("attention.{name}"), to, from));
        for (name, to, from) in
            linear.into_iter().chain([("mlp.fc1".into(), 24, 12), ("mlp.fc2".into(), 12, 24)])
        {
            add(&format!("{name}.weight"), &[to, from]);
            add(&format!("{name}.bias"), &[to]);
        }
        add("layer_scale1.lambda1", &[12]);
        add("layer_scale2.lambda1", &[12]);
    }
    let filled = |(seed, (name, shape)): (usize, (String, Vec<usize>))| {
        let values = numbers(shape.iter().product(), seed as u64);
        (name, HostTensor { shape, values })
    };
    shapes.into_iter().enumerate().map(filled).collect()
}

#[test]
fn lpips_and_its_gradient_agree_with_the_lpips_package() {
    // A larger reference may be named, for instance one of the full width.
    let path = std::env::var_os("EARTHMAPPER_LPIPS_REFERENCE")
        .map_or_else(|| own_reference("nets_lpips.safetensors"), PathBuf::from);
    let case = read_all(&path);
    let device = Device::flex().autodiff();
    let network = Lpips::load(&path, None, &device).unwrap();
    let first = tensor::<4>(&case["case.first"], &device).require_grad();
    let second = tensor::<4>(&case["case.second"], &device);
    let distance = network.forward(first.clone(), second);
    assert_close(distance.clone(), &case["case.distance"], 1e-4);

    let gradient = first.grad(&distance.sum().backward()).unwrap();
    assert_close(gradient, &case["case.first_gradient"], 1e-3);
}

#[test]
fn lpips_is_zero_for_equal_pictures_and_symmetric() {
    let device = Device::flex();
    let path = own_reference("nets_lpips.safetensors");
    // Two files, as the package ships them: the same file serves as both here.
    let network = Lpips::load(&path, Some(&path), &device).unwrap();
    let case = read_all(&path);
    let [first, second] = ["case.first", "case.second"].map(|name| tensor::<4>(&case[name], &device));
    assert!(floats(network.forward(first.clone(), first.clone())).iter().all(|distance| *distance == 0.0));
    let there = floats(network.forward(first.clone(), second.clone()));
    let back = floats(network.forward(second, first));
    assert!(relative_difference(&there, &back) < 1e-6);
}

#[test]
fn lpips_loads_from_a_whole_state() {
    let device = Device::flex();
    let case = read_all(&own_reference("nets_lpips.safetensors"));
    let slice = |number: &str| match number.parse::<usize>().unwrap() {
        0..=3 => 1,
        4..=8 => 2,
        9..=15 => 3,
        16..=22 => 4,
        _ => 5,
    };
    // The package's state holds the heads twice and the shift and scale of the colours.
    let mut state = Tensors::new();
    for (name, tensor) in &case {
        if let Some((number, kind)) = name.strip_prefix("features.").and_then(|rest| rest.split_once('.')) {
            state.insert(format!("net.slice{}.{number}.{kind}", slice(number)), tensor.clone());
        } else if let Some(rest) = name.strip_prefix("lin") {
            state.insert(name.clone(), tensor.clone());
            state.insert(format!("lins.{rest}"), tensor.clone());
        }
    }
    state.insert("scaling_layer.shift".to_string(), HostTensor { shape: vec![1], values: vec![0.0] });
    let network = Lpips::from_weights(NamedTensors::from_tensors("lpips", state), None, &device).unwrap();
    let [first, second] = ["case.first", "case.second"].map(|name| tensor::<4>(&case[name], &device));
    assert_close(network.forward(first, second), &case["case.distance"], 1e-4);
}

#[test]
fn lpips_has_a_finite_gradient_at_equal_and_at_black_pictures() {
    let device = Device::flex().autodiff();
    let network = Lpips::load(own_reference("nets_lpips.safetensors"), None, &device).unwrap();
    for value in [-1.0, 0.3] {
        let first = Tensor::<4>::full([1, 3, 16, 16], value, &device).require_grad();
        let distance = network.forward(first.clone(), first.clone().detach()).sum();
        let gradient = first.grad(&distance.backward()).unwrap();
        assert!(floats(gradient).iter().all(|slope| slope.is_finite()));
    }
}

#[test]
fn discriminator_judges_patches_one_picture_at_a_time() {
    let device = Device::flex();
    let config = PatchDiscriminatorConfig { width: 8, layers: 3, seed: 5 };
    let network = config.init(&device);
    let pictures =
        Tensor::<4>::from_data(TensorData::new(numbers(2 * 3 * 64 * 64, 1), [2, 3, 64, 64]), &device);
    let together = network.forward(pictures.clone());
    assert_eq!(together.dims(), [2, 1, 6, 6]);
    let alone = network.forward(pictures.clone().narrow(0, 1, 1));
    assert!(relative_difference(&floats(alone), &floats(together.clone().narrow(0, 1, 1))) < 1e-5);

    // The same seed gives the same network, another seed another one.
    assert_eq!(floats(config.init(&device).forward(pictures.clone())), floats(together.clone()));
    let other = PatchDiscriminatorConfig { seed: 6, ..config }.init(&device);
    assert_ne!(floats(other.forward(pictures)), floats(together));
}

#[test]
fn adversarial_gradients_reach_the_discriminator_and_the_picture() {
    let device = Device::flex().autodiff();
    let network = PatchDiscriminatorConfig { width: 4, layers: 2, seed: 0 }.init(&device);
    let real = Tensor::<4>::from_data(TensorData::new(numbers(3 * 32 * 32, 1), [1, 3, 32, 32]), &device);
    let generated = Tensor::<4>::from_data(TensorData::new(numbers(3 * 32 * 32, 2), [1, 3, 32, 32]), &device);
    let generated = generated.require_grad();

    let loss = discriminator_loss(network.forward(real.clone()), network.forward(generated.clone().detach()));
    let gradients = loss.backward();
    let mut counter = GradientCounter { gradients: &gradients, with: 0, without: 0 };
    network.visit(&mut counter);
    // Two end convolutions with bias, two stages of a weight and a norm's gain and bias.
    assert_eq!((counter.with, counter.without), (10, 0));

    let loss = generator_loss(network.forward(generated.clone()));
    let gradient = generated.grad(&loss.backward()).unwrap();
    assert!(floats(gradient).iter().any(|slope| *slope != 0.0));

    let (made, seen) = (network.judge(generated.clone()), network.judge(real));
    assert_eq!(floats(made.logits.clone()), floats(network.forward(generated.clone())));
    // 32 pixels, halved twice, then less one: channels and sides of what the layers see.
    let shapes: Vec<[usize; 4]> = made.features.iter().map(|features| features.dims()).collect();
    assert_eq!(shapes, [[1, 4, 16, 16], [1, 8, 8, 8], [1, 16, 7, 7]]);
    let gradient = generated.grad(&feature_matching(&made.features, &seen.features).backward()).unwrap();
    assert!(floats(gradient).iter().any(|slope| *slope != 0.0));
}

struct GradientCounter<'a> {
    gradients: &'a burn::tensor::Gradients,
    with: usize,
    without: usize,
}

impl burn::module::ModuleVisitor for GradientCounter<'_> {
    fn visit_float<const D: usize>(&mut self, parameter: &burn::module::Param<Tensor<D>>) {
        match parameter.val().grad(self.gradients) {
            Some(_) => self.with += 1,
            None => self.without += 1,
        }
    }
}

#[test]
fn feature_matching_by_hand() {
    let features = |values: &[f32]| {
        let data = TensorData::new(values.to_vec(), [1, 1, 1, values.len()]);
        Tensor::<4>::from_data(data, &Device::flex())
    };
    let real = [features(&[1.0, -3.0]), features(&[0.0, 0.0, 0.0])];
    let generated = [features(&[2.0, -3.0]), features(&[0.001, -0.002, 0.0])];
    // (1 + 0) ÷ 2 of a mean magnitude of 2; 0.001 of one that is taken for 0.001.
    let loss = feature_matching(&generated, &real).into_scalar::<f32>();
    assert!((loss - (0.25 + 1.0) / 2.0).abs() < 1e-6, "{loss}");
    assert_eq!(feature_matching(&real, &real).into_scalar::<f32>(), 0.0);
}

#[test]
fn hinge_losses_by_hand() {
    let device = Device::flex();
    let logits =
        |values: [f32; 2]| Tensor::<4>::from_data(TensorData::new(values.to_vec(), [1, 1, 1, 2]), &device);
    // real: max(0, 1 - 2) = 0 and max(0, 1 - 0) = 1; generated: max(0, 1 - 3) = 0 and max(0, 1 + 1) = 2.
    let loss = discriminator_loss(logits([2.0, 0.0]), logits([-3.0, 1.0]));
    assert!((loss.into_scalar::<f32>() - 0.75).abs() < 1e-6);
    assert!((generator_loss(logits([-3.0, 1.0])).into_scalar::<f32>() - 1.0).abs() < 1e-6);
}

#[test]
fn adaptive_weight_is_the_clamped_ratio_of_norms() {
    let device = Device::flex();
    let gradient = |values: [f32; 2]| Tensor::<1>::from_floats(values, &device);
    let weight = adaptive_weight(gradient([3.0, 4.0]), gradient([0.0, 2.0]));
    assert!((weight - 5.0 / 2.0001).abs() < 1e-5);
    assert_eq!(adaptive_weight(gradient([3.0, 4.0]), gradient([0.0, 0.0])), 1e4);
    assert_eq!(adaptive_weight(gradient([0.0, 0.0]), gradient([1.0, 0.0])), 0.0);
}

#[test]
fn gradient_of_the_last_convolution_equals_autodiff() {
    let device = Device::flex().autodiff();
    let input = Tensor::<4>::from_data(TensorData::new(numbers(2 * 5 * 6 * 6, 1), [2, 5, 6, 6]), &device);
    let weight = Tensor::<4>::from_data(TensorData::new(numbers(3 * 5 * 9, 2), [3, 5, 3, 3]), &device);
    let weight = weight.require_grad();
    let options = ConvOptions::new([1, 1], [1, 1], [1, 1], 1);
    let picture = conv2d(input.clone(), weight.clone(), None, options);

    let leaf = picture.clone().detach().require_grad();
    let picture_gradient = leaf.grad(&leaf.clone().square().sum().backward()).unwrap();
    let found = last_convolution_gradient(input, weight.clone(), picture_gradient, 1);
    let expected = weight.grad(&picture.square().sum().backward()).unwrap();
    assert!(relative_difference(&floats(found), &floats(expected)) < 1e-5);
}

#[test]
fn pytorch_checkpoints_are_read_in_every_float_type() {
    let mut file = NamedTensors::read(own_reference("nets_weights.pth")).unwrap();
    file.rename(|name| name.strip_prefix("state_dict.").map(str::to_string));
    assert_eq!(file.take("half", &[1, 3]).unwrap(), [1.5, -2.0, 0.25]);
    assert_eq!(file.take("brain", &[2]).unwrap(), [1.5, -2.0]);
    assert_eq!(file.take("double", &[1]).unwrap(), [0.125]);
    // A transposed view is stored with strides and must come out in row-major order.
    assert_eq!(file.take("turned", &[3, 2]).unwrap(), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    assert_eq!(file.take("steps", &[]).unwrap(), [7.0]);
    file.finish().unwrap();
}

#[test]
fn bad_weights_files_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights");
    let read = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        NamedTensors::read(&path).unwrap_err()
    };
    assert!(matches!(NamedTensors::read(&path), Err(WeightsError::Missing { .. })));
    assert!(matches!(read(b""), WeightsError::Truncated { .. }));
    assert!(matches!(read(b"a text that holds no weights"), WeightsError::NotWeights { .. }));
    assert!(matches!(read(b"<!doctype html>"), WeightsError::NotWeights { .. }));
    assert!(read(b"version https://git-lfs.github.com/spec/v1").to_string().contains("Git LFS"));

    let safetensors = std::fs::read(own_reference("nets_lpips.safetensors")).unwrap();
    for length in [8, 100, safetensors.len() - 1] {
        assert!(matches!(read(&safetensors[..length]), WeightsError::Truncated { .. }), "{length} bytes");
    }
    let checkpoint = std::fs::read(own_reference("nets_weights.pth")).unwrap();
    for length in [100, checkpoint.len() / 2, checkpoint.len() - 30] {
        let error = read(&checkpoint[..length]);
        assert!(matches!(error, WeightsError::Truncated { .. }), "{length} bytes: {error}");
    }
}

#[test]
fn imported_networks_are_one_file_each_that_gives_the_same_numbers() {
    let device = Device::flex();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("imported.safetensors");

    let source = own_reference("nets_lpips.safetensors");
    let case = read_all(&source);
    let imported = ImportedNetwork::lpips(&source, Some(&source), &device).unwrap();
    assert!(imported.description.starts_with("LPIPS, vgg: 31 tensors"), "{}", imported.description);
    std::fs::write(&path, imported.to_bytes(Storage::F32)).unwrap();
    // The pictures and numbers of the reference lie beside the network and are left behind.
    assert!(NamedTensors::read(&path).unwrap().names().all(|name| !name.starts_with("case.")));
    let network = Lpips::load_named(path.to_str().unwrap(), &device).unwrap();
    let [first, second] = ["case.first", "case.second"].map(|name| tensor::<4>(&case[name], &device));
    assert_close(network.forward(first, second), &case["case.distance"], 1e-4);

    let source = own_reference("nets_dinov2_registers.safetensors");
    let case = read_all(&source);
    let imported = ImportedNetwork::dinov2(&source, &device).unwrap();
    assert!(imported.description.contains("2 registers"), "{}", imported.description);
    std::fs::write(&path, imported.to_bytes(Storage::F32)).unwrap();
    let network = DinoV2::load(&path, &device).unwrap();
    assert_close(network.forward(tensor(&case["case.pixels"], &device)), &case["case.tokens"], 1e-4);

    assert!(matches!(ImportedNetwork::inception(&source, &device), Err(WeightsError::MissingTensor { .. })));
    assert!(matches!(ImportedNetwork::lpips(&source, None, &device), Err(WeightsError::OtherNetwork { .. })));
}

#[test]
fn weights_that_do_not_fit_name_the_tensor() {
    let device = Device::flex();
    let load = |tensors: Tensors| {
        DinoV2::from_weights(NamedTensors::from_tensors("weights.pth", tensors), &device)
            .unwrap_err()
            .to_string()
    };
    // Without metadata a width of 12 has no heads of 64.
    assert!(load(gelu_network()).contains("attention heads"));
    assert!(load(Tensors::new()).contains("not DINOv2 weights"));

    let lpips = read_all(&own_reference("nets_lpips.safetensors"));
    let load = |tensors: Tensors| {
        let file = NamedTensors::from_tensors("vgg.pth", tensors);
        Lpips::from_weights(file, None, &device).unwrap_err().to_string()
    };
    let mut missing = lpips.clone();
    missing.remove("features.7.bias");
    assert!(load(missing).starts_with("vgg.pth: tensor `features.7.bias` is missing"));
    let mut other_shape = lpips.clone();
    other_shape.insert("features.7.bias".to_string(), HostTensor { shape: vec![5], values: vec![0.0; 5] });
    assert!(load(other_shape).contains("has shape [5] and the network needs [4]"));
    let mut damaged = lpips.clone();
    damaged.get_mut("features.7.bias").unwrap().values[0] = f32::NAN;
    assert!(load(damaged).contains("`features.7.bias` holds numbers that are not finite"));
    let mut leftover = lpips;
    leftover.insert("features.40.bias".to_string(), HostTensor { shape: vec![1], values: vec![0.0] });
    assert!(load(leftover).contains("1 unexpected tensors (`features.40.bias`)"));
}
