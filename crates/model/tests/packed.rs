//! Packed layers do what Burn's modules do: the same tokens, the same pictures within rounding.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Distribution, Tensor};
use earthmapper::config::{AdaptiveNorm, AttentionKind, Forcing};
use earthmapper::guidance::{ComplexityGuidance, Guidance};
use earthmapper::pictures::to_tensor;
use earthmapper::tokenizer::Encoding;
use earthmapper::{
    Condition, EarthMapper, EarthMapperConfig, GenerationOptions, Known, LonLat, Modality, Place, Precision,
    SamplerConfig, TokenizerConfig, TransformerConfig, Translator,
};
use earthmapper_geo::pairs::{PairFolder, PairOrder, PairSelection, PairSource};
use earthmapper_geo::picture::PictureLimits;

/// A model with random weights whose layers are wide enough for every method of convolution.
fn random(
    attention: AttentionKind,
    adaptive_norm: AdaptiveNorm,
    forcing: Forcing,
    depth: usize,
) -> EarthMapper {
    let tokenizer = TokenizerConfig {
        picture_side: 64,
        sides: vec![1, 2, 3, 8],
        vocabulary: 60,
        latent_width: 8,
        quantizer_depth: depth,
        fold: if forcing == Forcing::Aligned { 4 } else { 1 },
        channels: 32,
        multipliers: if forcing == Forcing::Aligned { vec![1, 2] } else { vec![1, 1, 2, 2] },
        residual_blocks: 1,
        linear_path: forcing == Forcing::Aligned,
        ..Default::default()
    };
    let transformer = TransformerConfig {
        depth: 2,
        width: 64,
        heads: 4,
        attention,
        adaptive_norm,
        forcing,
        guide_blocks: usize::from(forcing == Forcing::Aligned),
        tied_head: depth > 1,
        ..Default::default()
    };
    let config = EarthMapperConfig { format: 1, name: "random".into(), transformer, ..Default::default() };
    EarthMapper::new(config, tokenizer, 3, &Device::flex())
}

fn all() -> Vec<EarthMapper> {
    let mut models = Vec::new();
    for attention in [AttentionKind::Dot, AttentionKind::L2] {
        for norm in [AdaptiveNorm::PerBlock, AdaptiveNorm::Shared] {
            for forcing in [Forcing::Sequence, Forcing::Aligned] {
                let depth = if norm == AdaptiveNorm::Shared { 2 } else { 1 };
                models.push(random(attention, norm, forcing, depth));
            }
        }
    }
    models
}

fn pictures(count: usize) -> Tensor<4> {
    Tensor::random([count, 3, 64, 64], Distribution::Uniform(-1.0, 1.0), &Device::flex())
}

fn difference(a: Tensor<4>, b: Tensor<4>) -> f32 {
    let largest: f32 = a.clone().abs().max().into_scalar();
    (a - b).abs().max().into_scalar::<f32>() / largest
}

fn tokens(model: &EarthMapper, conditions: &[Condition], options: &GenerationOptions) -> Vec<Vec<u32>> {
    let seeds: Vec<u64> = (0..conditions.len() as u64).collect();
    let made = Translator::new(model).run(conditions, &seeds, options, &mut |_| {}).unwrap();
    made.iter().flat_map(|made| (0..made.tokens.len()).map(|k| made.tokens.scale(k).to_vec())).collect()
}

#[test]
fn the_tokenizer_gives_the_same_within_rounding() {
    for model in all().into_iter().take(2) {
        let packed = model.clone().pack(Precision::F32);
        let features = model.features(pictures(2));
        let pictures = pictures(2);
        assert!(difference(model.features(pictures.clone()), packed.features(pictures)) < 1e-4);
        assert!(difference(model.decode_features(features.clone()), packed.decode_features(features)) < 1e-4);
    }
}

#[test]
fn every_kind_of_model_makes_the_same_tokens() {
    let place = Place::new(LonLat::new(32.5, 0.3).unwrap(), Some(0.6)).unwrap();
    for model in all() {
        let packed = model.clone().pack(Precision::F32);
        let encoding = model.encode(pictures(2));
        let translation =
            |i, place| Condition::translation(&model, encoding.picture(i), Modality::Map, place);
        let nothing = Condition { place: Some(place), known: vec![Known::Nothing, Known::Nothing] };
        for guidance in [Guidance::Off, Guidance::Complexity(ComplexityGuidance::new(2.0, 2.0, 2.0))] {
            let options =
                GenerationOptions { guidance, sampler: SamplerConfig::greedy(), ..Default::default() };
            for conditions in [vec![translation(0, None), translation(1, Some(place))], vec![nothing.clone()]]
            {
                assert_eq!(tokens(&model, &conditions, &options), tokens(&packed, &conditions, &options));
            }
        }
    }
}

#[test]
fn a_picture_does_not_depend_on_its_neighbours() {
    let model = random(AttentionKind::L2, AdaptiveNorm::Shared, Forcing::Sequence, 2);
    for precision in [Precision::F32, Precision::Int8] {
        let packed = model.clone().pack(precision);
        let encoding = packed.encode(pictures(2));
        let condition = |i| Condition::translation(&packed, encoding.picture(i), Modality::Map, None);
        let options = GenerationOptions { guidance: Guidance::Constant(2.0), ..Default::default() };
        let both = tokens(&packed, &[condition(0), condition(1)], &options);
        let first = tokens(&packed, &[condition(0)], &options);
        for (both, first) in both.iter().zip(first) {
            assert_eq!(both[..first.len()], first);
        }
    }
}

fn bundled() -> EarthMapper {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/earthmapper-mini");
    EarthMapper::load(&folder, &Device::flex()).expect("the bundled model")
}

/// Encoded pictures for the bundled model: validation pairs where EARTHMAPPER_DATA names their folder, else noise.
fn encoded(model: &EarthMapper, count: usize) -> Encoding {
    let Some(data) = std::env::var_os("EARTHMAPPER_DATA") else {
        println!("EARTHMAPPER_DATA is not set: noise instead of photographs");
        let side = model.tokenizer_config.picture_side;
        let noise = Tensor::random([count, 3, side, side], Distribution::Uniform(-1.0, 1.0), &Device::flex());
        return model.encode(noise);
    };
    let folder = PathBuf::from(data).join("new-york/train");
    let source = PairSource::SideBySide { folder, order: PairOrder::SatelliteMap };
    let selection =
        PairSelection { first: Some(1001), last: Some(1096), limit: Some(count), ..Default::default() };
    let pairs = PairFolder::open(&source, &selection).expect("validation pairs");
    let side = model.tokenizer_config.picture_side as u32;
    let photograph = |i| pairs.read(i, &PictureLimits::default()).unwrap().satellite.resized(side, side);
    let photographs: Vec<_> = (0..count).map(photograph).collect();
    model.encode(to_tensor(&photographs, &Device::flex()))
}

/// The share of equal codes.
fn agreement(a: &[Vec<u32>], b: &[Vec<u32>]) -> f64 {
    let pairs: Vec<_> = a.concat().into_iter().zip(b.concat()).collect();
    pairs.iter().filter(|(a, b)| a == b).count() as f64 / pairs.len() as f64
}

#[test]
fn the_bundled_model_makes_the_same_tokens_in_32_bits_and_nearly_the_same_in_8() {
    let model = bundled();
    let count = 4;
    let encoding = encoded(&model, count);
    let floats = model.clone().pack(Precision::F32);
    let bytes = model.clone().pack(Precision::Int8);
    for target in [Modality::Map, Modality::Satellite] {
        let conditions: Vec<_> =
            (0..count).map(|i| Condition::translation(&model, encoding.picture(i), target, None)).collect();
        let guidance = model.generation.towards(target).guidance.clone();
        let options = GenerationOptions { guidance, sampler: SamplerConfig::greedy(), ..Default::default() };
        let plain = tokens(&model, &conditions, &options);
        assert_eq!(plain, tokens(&floats, &conditions, &options));
        let share = agreement(&plain, &tokens(&bytes, &conditions, &options));
        println!("{target}: {:.1} % of the tokens are the same in 8 bits", 100.0 * share);
        assert!(share > 0.6, "{target}: {share}");
    }
}
