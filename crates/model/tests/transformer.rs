//! The promises of the transformer and of the generation loop, on a tiny model.

use burn::tensor::{Device, Distribution, Tensor};
use earthmapper::config::{AdaptiveNorm, AttentionKind, Forcing};
use earthmapper::guidance::{ComplexityGuidance, Guidance, KeyPointForce};
use earthmapper::sampler::SamplerConfig;
use earthmapper::tokenizer::Encoding;
use earthmapper::translator::{Decode, GenerationError};
use earthmapper::{
    Condition, EarthMapper, EarthMapperConfig, GenerationOptions, JointTransformer, Known, LonLat, Modality,
    Place, TokenPyramid, TokenizerConfig, TransformerConfig, Translator,
};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

fn tiny(depth: usize, attention: AttentionKind, adaptive_norm: AdaptiveNorm) -> EarthMapper {
    forced(depth, attention, adaptive_norm, Forcing::Sequence)
}

fn forced(
    depth: usize,
    attention: AttentionKind,
    adaptive_norm: AdaptiveNorm,
    forcing: Forcing,
) -> EarthMapper {
    let tokenizer = TokenizerConfig {
        picture_side: 16,
        sides: vec![1, 2, 3, 4],
        vocabulary: 24,
        latent_width: 6,
        quantizer_depth: depth,
        channels: 8,
        multipliers: vec![1, 2, 2],
        residual_blocks: 1,
        ..Default::default()
    };
    let transformer = TransformerConfig {
        depth: 3,
        width: 32,
        heads: 4,
        attention,
        adaptive_norm,
        forcing,
        guide_blocks: usize::from(forcing == Forcing::Aligned),
        ..Default::default()
    };
    let config = EarthMapperConfig { format: 1, name: "tiny".into(), transformer, ..Default::default() };
    EarthMapper::new(config, tokenizer, 11, &Device::flex())
}

fn pictures(count: usize) -> Tensor<4> {
    let device = Device::flex();
    let values = Tensor::<1>::random([count * 3 * 16 * 16], Distribution::Uniform(-1.0, 1.0), &device);
    values.reshape([count, 3, 16, 16])
}

fn difference(a: Tensor<3>, b: Tensor<3>) -> f32 {
    (a - b).abs().max().into_scalar::<f32>()
}

fn place() -> Option<Place> {
    Some(Place::new(LonLat::new(32.5, 0.3).unwrap(), Some(0.6)).unwrap())
}

#[test]
fn cached_steps_equal_the_whole_sequence() {
    for attention in [AttentionKind::Dot, AttentionKind::L2] {
        for norm in [AdaptiveNorm::PerBlock, AdaptiveNorm::Shared] {
            for visible in [vec![0, 1], vec![0], vec![1]] {
                let model = tiny(1, attention, norm);
                let transformer = &model.transformer;
                let inputs: Vec<Vec<Tensor<3>>> = visible
                    .iter()
                    .map(|_| {
                        let tokens = model.tokenizer.encode(pictures(2)).tokens;
                        model.tokenizer.quantizer.teacher_inputs(&tokens)
                    })
                    .collect();
                let condition = transformer.geo_embedding.forward(&[place(), None]);
                let whole = transformer.forward(&visible, &inputs, None, condition.clone(), None);
                let mut cache = transformer.cache();
                let steps: Vec<Tensor<3>> = (0..4)
                    .map(|k| {
                        let now: Vec<_> = match k {
                            0 => Vec::new(),
                            _ => inputs.iter().map(|inputs| inputs[k - 1].clone()).collect(),
                        };
                        transformer.step(&visible, &now, None, condition.clone(), &mut cache)
                    })
                    .collect();
                let worst = difference(whole, Tensor::cat(steps, 1));
                assert!(worst < 1e-4, "{attention:?} {norm:?} {visible:?}: {worst}");
            }
        }
    }
}

#[test]
fn cached_steps_equal_the_whole_sequence_beside_a_known_picture() {
    let model = forced(2, AttentionKind::L2, AdaptiveNorm::Shared, Forcing::Aligned);
    let transformer = &model.transformer;
    let encoding = model.tokenizer.encode(pictures(2));
    let inputs = model.tokenizer.quantizer.teacher_inputs(&encoding.tokens);
    let guide = transformer.guide(&[(0, encoding.features)]).unwrap();
    let condition = transformer.geo_embedding.forward(&[place(), None]);
    let whole =
        transformer.forward(&[1], std::slice::from_ref(&inputs), Some(&guide), condition.clone(), None);
    let mut cache = transformer.cache();
    let steps = (0..4).map(|k| {
        let now = if k == 0 { Vec::new() } else { vec![inputs[k - 1].clone()] };
        transformer.step(&[1], &now, Some(&guide[k]), condition.clone(), &mut cache)
    });
    let worst = difference(whole, Tensor::cat(steps.collect(), 1));
    assert!(worst < 1e-4, "{worst}");
}

#[test]
fn no_token_sees_a_later_scale_and_all_see_their_own() {
    let model = tiny(1, AttentionKind::L2, AdaptiveNorm::PerBlock);
    let transformer = &model.transformer;
    let scales = transformer.scales();
    let inputs = |pictures: Tensor<4>| -> Vec<Vec<Tensor<3>>> {
        let tokens = model.tokenizer.encode(pictures).tokens;
        vec![model.tokenizer.quantizer.teacher_inputs(&tokens); 2]
    };
    let condition = transformer.geo_embedding.forward(&[None]);
    let base = inputs(pictures(1));
    let before = transformer.forward(&[0, 1], &base, None, condition.clone(), None);
    for changed in 1..scales.len() {
        // Only the last map token of scale `changed` gets another input.
        let mut other = base.clone();
        let count = scales.tokens(changed);
        let old = other[1][changed - 1].clone();
        let last = old.clone().narrow(1, count - 1, 1).add_scalar(3.0);
        other[1][changed - 1] = match count {
            1 => last,
            _ => Tensor::cat(vec![old.narrow(1, 0, count - 1), last], 1),
        };
        let after = transformer.forward(&[0, 1], &other, None, condition.clone(), None);
        let start = scales.range(changed).start * 2;
        let coarser = difference(before.clone().narrow(1, 0, start), after.clone().narrow(1, 0, start));
        assert_eq!(coarser, 0.0, "scale {changed} leaks into coarser ones");
        for token in start..start + 2 * count {
            let own = difference(before.clone().narrow(1, token, 1), after.clone().narrow(1, token, 1));
            assert!(own > 0.0, "token {token} of scale {changed} does not see its scale");
        }
    }
}

fn source(model: &EarthMapper, pictures: &Tensor<4>) -> Vec<Encoding> {
    let encoding = model.tokenizer.encode(pictures.clone());
    (0..encoding.batch()).map(|i| encoding.picture(i)).collect()
}

fn to_map(source: &Encoding) -> Condition {
    Condition { place: place(), known: vec![Known::All(source.clone()), Known::Nothing] }
}

fn guided() -> GenerationOptions {
    GenerationOptions {
        guidance: Guidance::Complexity(ComplexityGuidance::new(2.0, 3.0, 2.0)),
        ..Default::default()
    }
}

#[test]
fn a_picture_does_not_depend_on_its_batch_or_its_order() {
    for depth in [1, 3] {
        let model = tiny(depth, AttentionKind::L2, AdaptiveNorm::PerBlock);
        let translator = Translator::new(&model);
        let sources = source(&model, &pictures(3));
        for options in [guided(), GenerationOptions { sampler: SamplerConfig::greedy(), ..guided() }] {
            let conditions: Vec<Condition> = sources.iter().map(to_map).collect();
            let together = translator.run(&conditions, &[5, 6, 7], &options, &mut |_| {}).unwrap();
            assert_eq!(together.len(), 1);
            assert_eq!(together[0].modality, Modality::Map);
            for i in [2, 0, 1] {
                let alone =
                    translator.run(&conditions[i..=i], &[5 + i as u64], &options, &mut |_| {}).unwrap();
                assert_eq!(alone[0].tokens, together[0].tokens.picture(i), "depth {depth}, picture {i}");
            }
        }
    }
}

#[test]
fn aligned_forcing_sees_the_known_picture_and_nothing_of_the_batch() {
    let model = forced(2, AttentionKind::L2, AdaptiveNorm::Shared, Forcing::Aligned);
    let translator = Translator::new(&model);
    let sources = source(&model, &pictures(3));
    let options = GenerationOptions { sampler: SamplerConfig::greedy(), ..guided() };
    let conditions: Vec<Condition> = sources.iter().map(to_map).collect();
    let together = translator.run(&conditions, &[1, 1, 1], &options, &mut |_| {}).unwrap();
    for (i, condition) in conditions.iter().enumerate() {
        let alone = translator.run(std::slice::from_ref(condition), &[1], &options, &mut |_| {}).unwrap();
        assert_eq!(alone[0].tokens, together[0].tokens.picture(i));
    }
    assert_ne!(together[0].tokens.picture(0), together[0].tokens.picture(1), "the picture matters");

    // Even the very first scale sees all of the known picture.
    let transformer = &model.transformer;
    let here = transformer.geo_embedding.forward(&[None]);
    let first = |source: &Encoding| {
        let guide = transformer.guide(&[(0, source.features.clone())]).unwrap();
        transformer.step(&[1], &[], Some(&guide[0]), here.clone(), &mut transformer.cache())
    };
    assert!(difference(first(&sources[0]), first(&sources[1])) > 1e-4);
}

#[test]
fn seeds_matter_and_repeat() {
    let model = tiny(1, AttentionKind::Dot, AdaptiveNorm::Shared);
    let translator = Translator::new(&model);
    let condition = to_map(&source(&model, &pictures(1))[0]);
    let options = GenerationOptions {
        sampler: SamplerConfig { top_k: 0, top_p: 0.0, temperature: 1.0 },
        ..Default::default()
    };
    let run =
        |seed| translator.run(std::slice::from_ref(&condition), &[seed], &options, &mut |_| {}).unwrap();
    assert_eq!(run(1)[0].tokens, run(1)[0].tokens);
    assert_ne!(run(1)[0].tokens, run(2)[0].tokens);
}

#[test]
fn everything_known_but_a_hole_keeps_the_tokens_outside() {
    let model = tiny(2, AttentionKind::L2, AdaptiveNorm::PerBlock);
    let translator = Translator::new(&model);
    let picture = pictures(1);
    let features = model.tokenizer.features(picture.clone());
    let hole = earthmapper_geo::Mask::drawn(16, 16, |x, y| x < 8 && y < 8);
    let known = vec![Known::Nothing, Known::Part { features, hole }];
    let condition = Condition { place: None, known };
    let out = translator.run(&[condition], &[3], &guided(), &mut |_| {}).unwrap();
    assert_eq!(out.len(), 2, "both pictures are generated");

    // Without a hole the forced tokens are exactly the encoder's.
    let features = model.tokenizer.features(picture.clone());
    let whole = earthmapper_geo::Mask::filled(16, 16, false);
    let known = vec![Known::Nothing, Known::Part { features, hole: whole }];
    let condition = Condition { place: None, known };
    let out = translator.run(&[condition], &[3], &guided(), &mut |_| {}).unwrap();
    assert_eq!(out[1].tokens, model.tokenizer.encode(picture).tokens);
}

#[test]
fn every_option_runs_and_uncertainty_is_a_share() {
    let model = tiny(2, AttentionKind::L2, AdaptiveNorm::PerBlock);
    let translator = Translator::new(&model);
    let condition = to_map(&source(&model, &pictures(1))[0]);
    let forces = [
        KeyPointForce::Off,
        KeyPointForce::IndexAdd { tau: 0.5 },
        KeyPointForce::Attract { tau: 0.5, strength: 2.0 },
        KeyPointForce::Sharpen { tau: 0.5, temperature: 0.5 },
    ];
    let mut all = Vec::new();
    for key_points in forces {
        for decode in [Decode::Sampled, Decode::ExpectedLast, Decode::Expected] {
            let options = GenerationOptions { key_points: key_points.clone(), decode, ..guided() };
            let out = translator.run(std::slice::from_ref(&condition), &[9], &options, &mut |_| {}).unwrap();
            assert!(out[0].uncertainty[0].iter().all(|u| (0.0..=1.0).contains(u)));
            assert_eq!(out[0].uncertainty[0].len(), 16);
            let pixels = model.tokenizer.decode_features(out[0].reconstruction.clone());
            assert!(!pixels.clone().contains_nan().into_scalar::<bool>());
            all.push(pixels.try_into_vec_as::<f32>().unwrap());
        }
    }
    all.dedup();
    assert!(all.len() >= 8, "the options change the picture");
}

#[test]
fn wrong_requests_are_named() {
    let model = tiny(1, AttentionKind::Dot, AdaptiveNorm::PerBlock);
    let translator = Translator::new(&model);
    let source = source(&model, &pictures(1)).remove(0);
    let run = |conditions: &[Condition], seeds: &[u64]| {
        translator.run(conditions, seeds, &GenerationOptions::default(), &mut |_| {}).map(|_| ()).unwrap_err()
    };
    assert!(matches!(run(&[], &[]), GenerationError::Count { .. }));
    let both = Condition { place: None, known: vec![Known::All(source.clone()), Known::All(source.clone())] };
    assert_eq!(run(&[both], &[1]), GenerationError::NothingToDo);
    let free = Condition { place: None, known: vec![Known::Nothing, Known::Nothing] };
    assert_eq!(run(&[to_map(&source), free], &[1, 2]), GenerationError::Mixed(Modality::Satellite));
    let short = Condition { place: None, known: vec![Known::Nothing] };
    assert_eq!(run(&[short], &[1]), GenerationError::Modalities { expected: 2, found: 1 });
    let tokens = TokenPyramid::new(vec![vec![0], vec![0; 4]], 1, 1);
    let foreign = Encoding { tokens, ..source.clone() };
    assert!(matches!(run(&[to_map(&foreign)], &[1]), GenerationError::Shape { .. }));
    let foreign = Encoding { features: source.features.clone().narrow(1, 0, 1), ..source };
    assert!(matches!(run(&[to_map(&foreign)], &[1]), GenerationError::Shape { .. }));
}

#[test]
fn mistakes_show_in_the_inputs_and_are_put_right_by_finer_scales() {
    let random = || ChaCha8Rng::seed_from_u64(5);
    for depth in [1, 2] {
        let model = tiny(depth, AttentionKind::Dot, AdaptiveNorm::Shared);
        let quantizer = &model.tokenizer.quantizer;
        let encoding = model.tokenizer.encode(pictures(3));
        // No mistakes: what the tokenizer does anyway.
        let (tokens, inputs) = quantizer.encode_with_mistakes(encoding.features.clone(), 0.0, &mut random());
        assert_eq!(tokens, encoding.tokens);
        for (a, b) in inputs.into_iter().zip(quantizer.teacher_inputs(&tokens)) {
            assert_eq!(difference(a, b), 0.0);
        }
        // Mistakes everywhere: the coarsest tokens are still the right ones, but the next scales see wrong ones taken, and
        // their own tokens are those nearest to what is then left.
        let (taught, inputs) = quantizer.encode_with_mistakes(encoding.features.clone(), 1.0, &mut random());
        assert_eq!(taught.scale(0), tokens.scale(0));
        assert_ne!(taught.scale(3), tokens.scale(3));
        assert!(difference(inputs[2].clone(), quantizer.teacher_inputs(&taught)[2].clone()) > 1e-3);
        let again = quantizer.encode_with_mistakes(encoding.features, 1.0, &mut random()).0;
        assert_eq!(again, taught, "the same draws, the same mistakes");
    }
}

#[test]
fn a_tied_head_takes_codes_that_look_alike_for_alike() {
    let free = tiny(1, AttentionKind::L2, AdaptiveNorm::Shared);
    let transformer = TransformerConfig { tied_head: true, ..free.config.transformer.clone() };
    let config = EarthMapperConfig { transformer, ..free.config.clone() };
    let model = EarthMapper::new(config, free.tokenizer_config.clone(), 11, &Device::flex());
    let hidden = Tensor::<2>::random([40, 32], Distribution::Normal(0.0, 1.0), &Device::flex());
    // Codes 0 and 1 are the same; code 2 lies opposite, seen from the mean of all.
    let drawn = Tensor::<2>::random([22, 6], Distribution::Normal(0.0, 1.0), &Device::flex());
    let (first, rest) = (drawn.clone().narrow(0, 0, 1), drawn.narrow(0, 1, 21));
    let opposite = rest.clone().mean_dim(0).mul_scalar(3.0) - first.clone().mul_scalar(2.0);
    let codebook = Tensor::cat(vec![first.clone(), first, opposite, rest], 0);
    let logits = |transformer: &JointTransformer| transformer.logits(hidden.clone(), None, 0);
    let column = |logits: &Tensor<2>, code: usize| logits.clone().narrow(1, code, 1).unsqueeze::<3>();
    let before = logits(&model.transformer);
    assert!(difference(column(&before, 0), column(&before, 1)) > 1e-3, "alike only by the codebook");
    let started = logits(&model.transformer.start_head_from(codebook));
    assert_eq!(difference(column(&started, 0), column(&started, 1)), 0.0);
    let product = (column(&started, 0) * column(&started, 2)).mean().into_scalar::<f32>();
    assert!(product < 0.0, "opposite codes are not likely together: {product}");
}
