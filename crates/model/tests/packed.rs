//! Packed layers do what Burn's modules do: the same tokens, the same pictures within rounding.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use earthmapper::config::{AdaptiveNorm, AttentionKind, DecoderConfig, Forcing};
use earthmapper::guidance::{ComplexityGuidance, Guidance};
use earthmapper::init::Init;
use earthmapper::model::{load_tokenizer, save_tokenizer};
use earthmapper::pictures::to_tensor;
use earthmapper::tokenizer::{Encoding, MultiScaleTokenizer, PackedTokenizer};
use earthmapper::weights::{Missing, Storage, apply, collect};
use earthmapper::{
    Condition, EarthMapper, EarthMapperConfig, GenerationOptions, Known, LonLat, Modality, Place, Precision,
    SamplerConfig, TokenizerConfig, TransformerConfig, Translator,
};
use earthmapper_geo::pairs::{PairFolder, PairOrder, PairSelection, PairSource};
use earthmapper_geo::picture::PictureLimits;
use earthmapper_geo::read_picture;

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

/// Noise, the same in every run.
fn pictures(count: usize) -> Tensor<4> {
    let value = |i: usize| {
        let mixed = (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        ((mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    let values: Vec<f32> = (0..count * 3 * 64 * 64).map(value).collect();
    Tensor::from_data(TensorData::new(values, [count, 3, 64, 64]), &Device::flex())
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

/// A tokenizer of random weights without layers that begin as zeros, which would hide what is wrong before them.
fn loud(config: &TokenizerConfig) -> MultiScaleTokenizer {
    let tokenizer = MultiScaleTokenizer::new(config, &mut Init::new(3, &Device::flex()));
    let mut tensors = collect(&tokenizer);
    for tensor in tensors.values_mut().filter(|tensor| tensor.values.iter().all(|value| *value == 0.0)) {
        let value = |i: usize| ((i * 7919 + 13) as f32).sin() * 0.05;
        tensor.values = (0..tensor.values.len()).map(value).collect();
    }
    apply(tokenizer, tensors, Missing::Refuse).unwrap()
}

#[test]
fn a_decoder_of_another_shape_than_the_encoders() {
    let decoder = |fold, multipliers: &[usize], residual_blocks| {
        Some(DecoderConfig { fold, channels: 12, multipliers: multipliers.into(), residual_blocks })
    };
    // Finer than the encoder (as many levels more as it folds less), coarser, of one level, and with none at all.
    for (decoder, attention, linear_path) in [
        (decoder(2, &[1, 1, 2], 2), true, true),
        (decoder(1, &[1, 1, 2, 3], 1), true, false),
        (decoder(8, &[2], 1), true, true),
        (decoder(4, &[3, 1], 1), false, true),
        (None, true, true),
    ] {
        let config = TokenizerConfig {
            picture_side: 64,
            sides: vec![1, 3, 8],
            vocabulary: 60,
            latent_width: 8,
            quantizer_depth: 2,
            fold: 4,
            channels: 32,
            multipliers: vec![1, 2],
            residual_blocks: 1,
            attention,
            linear_path,
            decoder: decoder.clone(),
            ..Default::default()
        };
        let tokenizer = loud(&config);
        let mirrored = loud(&TokenizerConfig { decoder: None, ..config.clone() });
        let packed = PackedTokenizer::new(&tokenizer, 64);
        for batch in [1, 2, 3] {
            let pictures = pictures(batch);
            let encoding = tokenizer.encode(pictures.clone());
            let made = tokenizer.decode(&encoding.tokens);
            assert_eq!(made.dims(), [batch, 3, 64, 64]);
            let reconstruction = tokenizer.quantizer.reconstructions(&encoding.tokens).pop().unwrap();
            assert!(difference(made.clone(), packed.decode_features(reconstruction.clone())) < 1e-4);
            // Not only the linear path and the clamp.
            let flat = tokenizer.decode(&encoding.tokens) - mirrored.decode_features(reconstruction);
            assert_eq!(flat.abs().max().into_scalar::<f32>() > 1e-3, decoder.is_some());
            for i in 0..batch {
                let alone = tokenizer.decode(&encoding.tokens.picture(i));
                assert!(difference(made.clone().narrow(0, i, 1), alone) < 1e-5);
            }
            assert!(difference(encoding.features, packed.features(pictures)) < 1e-4);
        }

        let shape = config.decoder_shape();
        let weights = collect(&tokenizer);
        let finest = shape.channels * shape.multipliers[0];
        assert_eq!(
            weights["decoder.conv_out.weight"].shape,
            [3 * shape.fold * shape.fold, finest, 3, 3],
            "the finest level is the one before the last convolution"
        );
        let last = shape.multipliers.len() - 1;
        let coarsest = shape.channels * shape.multipliers[last];
        assert_eq!(weights["decoder.conv_in.weight"].shape, [coarsest, 8, 3, 3]);
        assert!(
            weights.contains_key(&format!(
                "decoder.levels.{last}.blocks.{}.conv2.weight",
                shape.residual_blocks
            ))
        );
        let has = |start: String| weights.keys().any(|name| name.starts_with(&start));
        assert!(!has(format!("decoder.levels.{}.", last + 1)) && !has("decoder.levels.0.resample".into()));
        for level in 0..=last {
            assert_eq!(has(format!("decoder.levels.{level}.attentions")), attention && level == last);
        }
        assert_eq!(has("decoder.middle.attention".into()), attention);

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenizer");
        save_tokenizer(&config, &tokenizer, &path, Storage::F32).unwrap();
        let (back, loaded) = load_tokenizer(&path, &Device::flex()).unwrap();
        assert_eq!((back, collect(&loaded)), (config.clone(), weights));
        // Its weights are no other decoder's.
        if decoder.is_some() {
            let text = serde_json::to_string(&TokenizerConfig { decoder: None, ..config }).unwrap();
            std::fs::write(path.join("config.json"), text).unwrap();
            let error = load_tokenizer(&path, &Device::flex()).unwrap_err().to_string();
            assert!(error.contains("decoder."), "{error}");
        }
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

/// Encoded pictures for the bundled model: validation pairs where EARTHMAPPER_DATA names their folder, else our own example,
/// turned. Always the same ones, so that a near tie between two codes is not met by chance.
fn encoded(model: &EarthMapper, count: usize) -> Encoding {
    let Some(data) = std::env::var_os("EARTHMAPPER_DATA") else {
        println!("EARTHMAPPER_DATA is not set: the example instead of photographs");
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/satellite.png");
        let example = read_picture(example, &PictureLimits::default()).expect("the example");
        let turned: Vec<_> = (0..count as u32).map(|turns| example.quarter_turned(turns)).collect();
        return model.encode(to_tensor(&turned, &Device::flex()));
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
