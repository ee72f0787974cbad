//! The metrics against the field's own packages, on the same pictures and the same networks.
//!
//! `metrics_reference.json` was computed by `tools/metrics_reference.py` (pytorch-fid, torch-fidelity, prdc, scikit-image,
//! lpips and OpenCV). Networks have their full size and random weights, which both languages make out of names; see
//! `seeded/mod.rs`. `$EARTHMAPPER_METRICS_REFERENCE` may name a file that was computed anew. 48 pictures pass through Inception twice, which takes half a minute of two cores.

mod seeded;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use burn::tensor::{Device, Tensor, TensorData};
use earthmapper::weights::{Storage, to_bytes_with};
use earthmapper_geo::Picture;
use earthmapper_lab::data::to_unit;
use earthmapper_lab::metrics::skeleton::thinned;
use earthmapper_lab::metrics::{
    Features, MetricsError, NEIGHBOURS, PrecisionRecall, Statistics, frechet_distance, kernel_distance_of,
    mean_pairwise_distance, peak_signal_to_noise_ratio, precision_recall, root_mean_square_error,
    structural_similarity,
};
use earthmapper_lab::nets::{
    INCEPTION_FEATURES, ImportedNetwork, Inception, InceptionInput, Lpips, WeightsError,
};
use seeded::{Kind, SIZE};
use serde::Deserialize;

/// Largest relative errors: of distances between sets, and of all else.
const OF_SETS: f64 = 1e-3;
const OF_PICTURES: f64 = 1e-4;

#[derive(Deserialize)]
struct Reference {
    inception: InceptionNumbers,
    synthetic: Synthetic,
    pixels: Vec<PixelNumbers>,
    lpips: BTreeMap<String, LpipsNumbers>,
    skeleton: SkeletonNumbers,
}

type Shapes = BTreeMap<String, Vec<usize>>;

#[derive(Deserialize)]
struct InceptionNumbers {
    shapes: Shapes,
    pictures: usize,
    large: (u32, u32),
    half_pixel: NetworkNumbers,
    corner: NetworkNumbers,
}

/// Numbers of one way of resizing.
#[derive(Deserialize)]
struct NetworkNumbers {
    /// Every 64th feature of the first real picture, and of a large one.
    first: Vec<f64>,
    large: Vec<f64>,
    #[serde(flatten)]
    sets: SetNumbers,
}

#[derive(Deserialize)]
struct SetNumbers {
    frechet: f64,
    kernel_whole: f64,
    kernel_subsets: Vec<[Vec<usize>; 2]>,
    kernel_mean: f64,
    kernel_deviation: f64,
    prdc: PrecisionRecall,
}

#[derive(Deserialize)]
struct Synthetic {
    real: usize,
    made: usize,
    width: usize,
    #[serde(flatten)]
    sets: SetNumbers,
}

#[derive(Deserialize)]
struct PixelNumbers {
    rmse: f64,
    psnr: f64,
    ssim: f64,
}

#[derive(Deserialize)]
struct LpipsNumbers {
    shapes: Shapes,
    distances: Vec<f64>,
}

#[derive(Deserialize)]
struct SkeletonNumbers {
    size: (usize, usize),
    rows: Vec<String>,
}

fn reference() -> &'static Reference {
    static REFERENCE: OnceLock<Reference> = OnceLock::new();
    REFERENCE.get_or_init(|| {
        let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/metrics_reference.json");
        let path = std::env::var_os("EARTHMAPPER_METRICS_REFERENCE").map_or(committed, PathBuf::from);
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    })
}

#[track_caller]
fn assert_near(what: &str, found: f64, expected: f64, tolerance: f64) {
    let error = (found - expected).abs() / expected.abs();
    println!("{what}: {found:.9}, reference {expected:.9}, relative error {error:.1e}");
    assert!(error <= tolerance, "{what}: {found}, not {expected}");
}

/// Compares features with every 64th of the reference's, relative to the largest.
#[track_caller]
fn assert_features(what: &str, found: &[f32], expected: &[f64]) {
    let largest = expected.iter().fold(0f64, |largest, value| largest.max(value.abs()));
    let found = found.iter().step_by(64).map(|&value| f64::from(value));
    let error =
        found.zip(expected).map(|(found, expected)| (found - expected).abs()).fold(0.0, f64::max) / largest;
    println!("{what}: relative error {error:.1e}");
    assert!(error <= OF_PICTURES, "{what}: relative error {error}");
}

fn assert_sets(what: &str, real: &Features, made: &Features, expected: &SetNumbers) {
    let statistics = |features| Statistics::of(features).unwrap();
    let frechet = frechet_distance(&statistics(real), &statistics(made)).unwrap();
    assert_near(&format!("{what}, FID"), frechet, expected.frechet, OF_SETS);
    let count = real.count().min(made.count());
    let whole = [[(0..count).collect(), (0..count).collect()]];
    let whole = kernel_distance_of(real, made, &whole).unwrap();
    assert_near(&format!("{what}, KID of all"), whole.mean, expected.kernel_whole, OF_SETS);
    let subsets = kernel_distance_of(real, made, &expected.kernel_subsets).unwrap();
    assert_near(&format!("{what}, KID over subsets"), subsets.mean, expected.kernel_mean, OF_SETS);
    assert_near(&format!("{what}, KID's deviation"), subsets.deviation, expected.kernel_deviation, OF_SETS);
    let (found, expected) = (precision_recall(real, made, NEIGHBOURS).unwrap(), &expected.prdc);
    for (name, found, expected) in [
        ("precision", found.precision, expected.precision),
        ("recall", found.recall, expected.recall),
        ("density", found.density, expected.density),
        ("coverage", found.coverage, expected.coverage),
    ] {
        assert_near(&format!("{what}, {name}"), found, expected, OF_PICTURES);
    }
}

#[test]
fn inception_and_distances_of_sets_agree_with_pytorch_fid_torch_fidelity_and_prdc() {
    let numbers = &reference().inception;
    let mut network = Inception::from_weights(seeded::network(&numbers.shapes), &Device::flex()).unwrap();
    let [real, made] = [Kind::Real, Kind::Made].map(|kind| seeded::pictures(kind, numbers.pictures, SIZE));
    let large = [seeded::picture(Kind::Real, 0, numbers.large)];
    for (name, input, expected) in [
        ("as pytorch-fid", InceptionInput::HalfPixel, &numbers.half_pixel),
        ("as torch-fidelity", InceptionInput::Corner, &numbers.corner),
    ] {
        network = network.with_input(input);
        let [real, made] = [&real, &made].map(|pictures| network.features(pictures, 8));
        assert_features(&format!("{name}, first picture"), real.rows().next().unwrap(), &expected.first);
        assert_features(
            &format!("{name}, large picture"),
            network.features(&large, 8).values(),
            &expected.large,
        );
        assert_sets(name, &real, &made, &expected.sets);
    }
}

#[test]
fn distances_of_larger_sets_agree_with_the_references() {
    let numbers = &reference().synthetic;
    let real = seeded::features(Kind::Real, numbers.real, numbers.width);
    let made = seeded::features(Kind::Made, numbers.made, numbers.width);
    assert_sets("synthetic features", &real, &made, &numbers.sets);
}

/// The pictures that are compared one by one.
fn pairs(count: usize) -> [Vec<Picture>; 2] {
    [Kind::Real, Kind::Made].map(|kind| seeded::pictures(kind, count, SIZE))
}

#[test]
fn pixel_scores_agree_with_scikit_image() {
    let [real, made] = pairs(reference().pixels.len());
    for ((real, made), expected) in real.iter().zip(&made).zip(&reference().pixels) {
        assert_near("RMSE", root_mean_square_error(made, real).unwrap(), expected.rmse, OF_PICTURES);
        assert_near("PSNR", peak_signal_to_noise_ratio(made, real).unwrap(), expected.psnr, OF_PICTURES);
        assert_near("SSIM", structural_similarity(made, real).unwrap(), expected.ssim, OF_PICTURES);
    }
}

#[test]
fn lpips_agrees_with_the_lpips_package_on_all_backbones() {
    for (name, numbers) in &reference().lpips {
        let network = Lpips::from_weights(seeded::network(&numbers.shapes), None, &Device::flex()).unwrap();
        assert_eq!(network.backbone().to_string(), *name);
        let [real, made] = pairs(numbers.distances.len());
        let on_the_host = network.distances(&real, &made).unwrap();
        // The way that gradients flow, and that other devices go.
        let tensor = |pictures: &[Picture]| {
            let shape = [pictures.len(), 3, SIZE.1 as usize, SIZE.0 as usize];
            Tensor::<4>::from_data(TensorData::new(to_unit(pictures), shape), &Device::flex())
        };
        let on_the_device: Vec<f32> =
            network.forward(tensor(&real), tensor(&made)).try_into_vec_as().unwrap();
        for ((host, device), expected) in on_the_host.iter().zip(on_the_device).zip(&numbers.distances) {
            assert_near(&format!("LPIPS {name}"), *host, *expected, OF_PICTURES);
            assert_near(&format!("LPIPS {name}, tensors"), f64::from(device), *expected, OF_PICTURES);
        }
    }
}

#[test]
fn lpips_of_samples_and_of_pictures_that_do_not_fit() {
    let shapes = &reference().lpips["alex"].shapes;
    let network = Lpips::from_weights(seeded::network(shapes), None, &Device::flex()).unwrap();
    let samples = seeded::pictures(Kind::Made, 3, SIZE);
    let [first, second, third] = [(0, 1), (0, 2), (1, 2)]
        .map(|(left, right)| network.distances(&samples[left..=left], &samples[right..=right]).unwrap()[0]);
    let found = mean_pairwise_distance(&samples, &network).unwrap();
    assert!((found - (first + second + third) / 3.0).abs() < 1e-9);
    assert_eq!(network.distances(&samples, &samples), Ok(vec![0.0; 3]));

    let error = MetricsError::CountMismatch { left: 3, right: 2 };
    assert_eq!(network.distances(&samples, &samples[1..]), Err(error));
    let small = [Picture::filled(40, 31, [0; 3])];
    let error = MetricsError::TooSmall { size: (40, 31), needed: 32 };
    assert_eq!(network.distances(&small, &small), Err(error));
    assert!(network.distances(&small, &samples[..1]).is_err());
}

#[test]
fn skeletons_are_those_of_opencv() {
    let SkeletonNumbers { size, rows } = &reference().skeleton;
    let found = thinned(seeded::mask(size.0, size.1), *size);
    for (y, (found, expected)) in found.chunks(size.0).zip(rows).enumerate() {
        let found: String = found.iter().map(|&marked| if marked { '#' } else { '.' }).collect();
        assert_eq!(found, *expected, "row {y}");
    }
}

#[test]
fn inception_refuses_weights_that_are_not_its_own() {
    let shapes = &reference().inception.shapes;
    let load = |shapes: &Shapes| Inception::from_weights(seeded::network(shapes), &Device::flex());
    let name = "Mixed_6c.branch7x7_2.bn.running_var".to_string();

    let mut missing = shapes.clone();
    missing.remove(&name);
    assert!(matches!(load(&missing), Err(WeightsError::MissingTensor { name: found, .. }) if found == name));

    let mut other = shapes.clone();
    other.insert(name.clone(), vec![128]);
    assert!(matches!(load(&other), Err(WeightsError::Shape { name: found, .. }) if found == name));

    // torchvision's own network has a second classifier.
    let mut foreign = shapes.clone();
    foreign.insert("AuxLogits.conv0.conv.weight".to_string(), vec![1, 1, 1, 1]);
    let error = load(&foreign).unwrap_err().to_string();
    assert!(error.contains("AuxLogits.conv0.conv.weight"), "{error}");

    // The classifier and counters are no part of it.
    let mut whole = shapes.clone();
    whole.insert("fc.bias".to_string(), vec![1008]);
    whole.insert("Conv2d_1a_3x3.bn.num_batches_tracked".to_string(), vec![]);
    assert_eq!(load(&whole).unwrap().features(&[], 1), Features::new(INCEPTION_FEATURES, vec![]));
}

#[test]
fn an_imported_inception_gives_the_same_features() {
    let shapes = &reference().inception.shapes;
    let mut whole = shapes.clone();
    whole.insert("fc.bias".to_string(), vec![1008]);
    let (tensors, metadata) = seeded::network(&whole).into_parts();
    let folder = tempfile::tempdir().unwrap();
    let [source, imported] = ["source", "imported"].map(|name| folder.path().join(name));
    std::fs::write(&source, to_bytes_with(&tensors, Storage::F32, metadata)).unwrap();

    let device = Device::flex();
    let network = ImportedNetwork::inception(&source, &device).unwrap();
    assert_eq!(network.tensors.len(), shapes.len(), "the classifier is left behind");
    std::fs::write(&imported, network.to_bytes(Storage::F32)).unwrap();
    let pictures = [seeded::picture(Kind::Real, 0, SIZE)];
    let features = |file| Inception::load(file, &device).unwrap().features(&pictures, 1);
    assert_eq!(features(&source), features(&imported));
}
