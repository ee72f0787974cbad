//! Pictures of any size through a tiny model: translate, inpaint, outpaint, generate.

use burn::tensor::Device;
use earthmapper::config::Forcing;
use earthmapper::guidance::Guidance;
use earthmapper::sampler::{SamplerConfig, derive_seed};
use earthmapper::scene::{Scene, SceneRows, Seam, Translated, WindowOptions};
use earthmapper::translator::{Condition, GenerationError, GenerationOptions};
use earthmapper::weights::{Missing, apply, collect};
use earthmapper::windows::{Margins, Setting};
use earthmapper::{
    EarthMapper, EarthMapperConfig, LonLat, Modality, Place, TokenizerConfig, TransformerConfig, Translator,
};
use earthmapper_geo::{Mask, Picture};

const SIDE: u32 = 16;

fn tiny() -> EarthMapper {
    tiny_with(Forcing::default())
}

fn tiny_with(forcing: Forcing) -> EarthMapper {
    let tokenizer = TokenizerConfig {
        picture_side: SIDE as usize,
        sides: vec![1, 2, 4],
        vocabulary: 24,
        latent_width: 6,
        channels: 8,
        multipliers: vec![1, 2, 2],
        residual_blocks: 1,
        ..Default::default()
    };
    let transformer = TransformerConfig { depth: 2, width: 32, heads: 4, forcing, ..Default::default() };
    let config = EarthMapperConfig { format: 1, name: "tiny".into(), transformer, ..Default::default() };
    EarthMapper::new(config, tokenizer, 3, &Device::flex())
}

fn drawn(width: u32, height: u32) -> Picture {
    Picture::drawn(width, height, |x, y| {
        [(x * 23 % 256) as u8, (y * 31 % 256) as u8, ((x * y * 7) % 256) as u8]
    })
}

fn options() -> GenerationOptions {
    GenerationOptions {
        guidance: Guidance::Constant(1.5),
        sampler: SamplerConfig { top_k: 0, top_p: 0.0, temperature: 1.0 },
        ..Default::default()
    }
}

fn place(metres: Option<f64>) -> Option<Place> {
    Some(Place::new(LonLat::new(32.5, 0.3).unwrap(), metres).unwrap())
}

fn setting(options: &GenerationOptions, seed: u64) -> Setting<'_> {
    Setting { place: place(Some(0.6)), seed, options }
}

fn translate(model: &EarthMapper, picture: &Picture, seed: u64, windows: &WindowOptions) -> Vec<Translated> {
    let options = options();
    let mut told = Vec::new();
    let results = Translator::new(model)
        .translate(picture, Modality::Map, &setting(&options, seed), windows, &mut |done, all| {
            told.push((done, all));
        })
        .unwrap();
    let &(done, all) = told.last().unwrap();
    assert_eq!(done, all);
    assert!(told.is_sorted());
    results
}

#[test]
fn every_size_is_translated_and_batches_do_not_matter() {
    let model = tiny();
    let translator = Translator::new(&model);
    for (width, height, windows) in
        [(1, 1, 1), (7, 13, 1), (16, 16, 1), (17, 5, 2), (37, 29, 12), (40, 16, 4)]
    {
        assert_eq!(translator.window_count(width, height), windows, "{width} × {height}");
        let picture = drawn(width, height);
        for seam in [Seam::Blend, Seam::Outpaint, Seam::Crop] {
            let joined = |batch_size| WindowOptions { batch_size, seam, ..Default::default() };
            let one = translate(&model, &picture, 5, &joined(1));
            assert_eq!((one[0].picture.width(), one[0].picture.height()), (width, height));
            assert_eq!(one[0].uncertainty.len(), (width * height) as usize);
            assert!(one[0].uncertainty.iter().any(|&value| value > 0));
            for batch_size in [0, 4] {
                let many = translate(&model, &picture, 5, &joined(batch_size));
                assert_eq!(many[0].picture, one[0].picture, "{width} × {height}, {seam}");
                assert_eq!(many[0].uncertainty, one[0].uncertainty, "{width} × {height}, {seam}");
            }
        }
    }
}

#[test]
fn a_picture_of_the_models_side_is_one_plain_run() {
    let model = tiny();
    let translator = Translator::new(&model);
    let picture = drawn(SIDE, SIDE);
    let made = translate(&model, &picture, 9, &WindowOptions::default()).remove(0);
    let tokens = translator.encode(std::slice::from_ref(&picture)).remove(0);
    let condition = Condition::translation(&model, tokens, Modality::Map, place(Some(0.6)));
    let run = translator.run(&[condition], &[derive_seed(9, &[0, 0])], &options(), &mut |_| {}).unwrap();
    let decoded = model.tokenizer.decode_features(run[0].reconstruction.clone());
    assert_eq!(earthmapper::pictures::from_tensor(decoded)[0], made.picture);
}

#[test]
fn outpainted_windows_keep_what_their_neighbours_made() {
    for forcing in [Forcing::Sequence, Forcing::Aligned] {
        let model = tiny_with(forcing);
        let picture = drawn(40, 28);
        let joined = |seam| WindowOptions { seam, ..Default::default() };
        let first = translate(&model, &picture.crop(0, 0, 16, 16), 5, &WindowOptions::default()).remove(0);
        let outpainted = translate(&model, &picture, 5, &joined(Seam::Outpaint)).remove(0);
        let blended = translate(&model, &picture, 5, &joined(Seam::Blend)).remove(0);
        // Where only the first window lies, nobody was there before it.
        assert_eq!(outpainted.picture.crop(0, 0, 6, 4), first.picture.crop(0, 0, 6, 4));
        assert_eq!(blended.picture.crop(0, 0, 6, 4), first.picture.crop(0, 0, 6, 4));
        assert_ne!(outpainted.picture, blended.picture, "{forcing:?}");
    }
}

/// A scene that watches how far reading runs ahead of writing.
struct Watched {
    picture: Picture,
    written: u32,
    /// The most rows of the scene that were read and not yet written.
    ahead: u32,
}

impl Scene for Watched {
    type Error = GenerationError;

    fn size(&self) -> (u32, u32) {
        (self.picture.width(), self.picture.height())
    }

    fn read(
        &mut self,
        corner: (u32, u32),
        width: u32,
        height: u32,
    ) -> Result<(Picture, Option<Mask>), GenerationError> {
        self.ahead = self.ahead.max(corner.1 + height - self.written);
        Ok((self.picture.crop(corner.0, corner.1, width, height), None))
    }

    fn place(&self, _: f64, _: f64) -> Result<Option<Place>, GenerationError> {
        Ok(None)
    }

    fn write(&mut self, rows: SceneRows) -> Result<(), GenerationError> {
        assert_eq!((rows.top, rows.picture.width()), (self.written, self.picture.width()));
        self.written += rows.picture.height();
        Ok(())
    }

    fn progress(&mut self, _: usize, _: usize) -> Result<(), GenerationError> {
        Ok(())
    }
}

#[test]
fn a_scene_is_held_a_few_rows_at_a_time() {
    let model = tiny();
    let options = options();
    for (scale, most) in [(1.0, SIDE), (0.5, 2 * SIDE + 12), (2.0, SIDE / 2 + 8)] {
        for seam in [Seam::Blend, Seam::Outpaint, Seam::Crop] {
            let mut scene = Watched { picture: drawn(21, 230), written: 0, ahead: 0 };
            let windows = WindowOptions { scale, seam, ..Default::default() };
            let setting = setting(&options, 5);
            Translator::new(&model).translate_scene(&mut scene, Modality::Map, &setting, &windows).unwrap();
            assert_eq!(scene.written, 230);
            assert!(scene.ahead <= most, "{} rows at scale {scale}, {seam}", scene.ahead);
        }
    }
}

#[test]
fn samples_differ_and_the_first_is_the_one_made_alone() {
    let model = tiny();
    let picture = drawn(20, 20);
    let alone = translate(&model, &picture, 5, &WindowOptions::default());
    // Three windows at once: a batch holds the end of one sample and the start of the next.
    let windows = WindowOptions { samples: 3, batch_size: 3, ..Default::default() };
    let three = translate(&model, &picture, 5, &windows);
    assert_eq!(three.len(), 3);
    assert_eq!(three[0].picture, alone[0].picture);
    assert_ne!(three[1].picture, three[0].picture);
    assert_ne!(three[2].picture, three[1].picture);
    let second = translate(&model, &picture, derive_seed(5, &[1]), &WindowOptions::default());
    assert_eq!(three[1].picture, second[0].picture, "a sample can be made alone, from its seed");
    assert_eq!(translate(&model, &picture, 5, &windows)[2].picture, three[2].picture);
}

#[test]
fn scale_changes_what_the_model_sees_and_not_the_size() {
    let model = tiny();
    let picture = drawn(40, 40);
    let windows = WindowOptions { scale: 0.4, ..Default::default() };
    let scaled = translate(&model, &picture, 5, &windows).remove(0);
    assert_eq!((scaled.picture.width(), scaled.picture.height()), (40, 40));
    assert_eq!(scaled.uncertainty.len(), 1600);
    // The same as resampling outside, with the metres per pixel of the small picture.
    let options = options();
    let outside = Setting { place: place(Some(1.5)), seed: 5, options: &options };
    let small = Translator::new(&model)
        .translate(
            &picture.resized(16, 16),
            Modality::Map,
            &outside,
            &WindowOptions::default(),
            &mut |_, _| {},
        )
        .unwrap()
        .remove(0);
    assert_eq!(small.picture.resized(40, 40), scaled.picture);
    let tiny_scale = WindowOptions { scale: 0.001, ..Default::default() };
    assert_eq!(translate(&model, &picture, 5, &tiny_scale)[0].picture.width(), 40);
}

/// How many pixels differ inside the mask; none may outside.
fn changed(before: &Picture, after: &Picture, mask: &Mask) -> usize {
    assert_eq!((before.width(), before.height()), (after.width(), after.height()));
    let mut inside = 0;
    for y in 0..before.height() {
        for x in 0..before.width() {
            match mask.is_hole(x, y) {
                true => inside += usize::from(before.pixel(x, y) != after.pixel(x, y)),
                false => assert_eq!(before.pixel(x, y), after.pixel(x, y), "({x}, {y}) is outside the hole"),
            }
        }
    }
    inside
}

#[test]
fn inpainting_changes_the_hole_only() {
    let model = tiny();
    let translator = Translator::new(&model);
    let options = options();
    for (width, height) in [(1, 1), (9, 14), (16, 16), (40, 27)] {
        let picture = drawn(width, height);
        let other = drawn(height, width).quarter_turned(1);
        let masks = [
            Mask::drawn(width, height, |x, y| x >= width / 3 && y >= height / 4),
            Mask::drawn(width, height, |x, y| x == 0 && y == 0),
            Mask::drawn(width, height, |x, y| (x + y) % 5 == 0),
            Mask::filled(width, height, true),
        ];
        for mask in masks {
            for other in [None, Some(&other)] {
                let fill = |picture: &Picture| {
                    let mut last = (0, 1);
                    let made = translator
                        .inpaint(
                            picture,
                            Modality::Map,
                            &mask,
                            other,
                            &setting(&options, 4),
                            &mut |done, all| {
                                last = (done, all);
                            },
                        )
                        .unwrap();
                    assert_eq!(last.0, last.1);
                    made
                };
                let made = fill(&picture);
                let inside = changed(&picture, &made, &mask);
                assert!(inside * 2 >= mask.hole_count(), "{width} × {height}: {inside} of {mask:?} changed");
                // What lies under the mask must not matter.
                let spoiled = Picture::drawn(width, height, |x, y| match mask.is_hole(x, y) {
                    true => [255, 0, 255],
                    false => picture.pixel(x, y),
                });
                assert_eq!(fill(&spoiled), made);
            }
        }
        let nothing = Mask::filled(width, height, false);
        let made = translator.inpaint(
            &picture,
            Modality::Map,
            &nothing,
            None,
            &setting(&options, 4),
            &mut |_, _| {},
        );
        assert_eq!(made.unwrap(), picture);
    }
}

#[test]
fn the_other_picture_matters_to_a_hole() {
    for forcing in [Forcing::Sequence, Forcing::Aligned] {
        // Fresh weights hardly listen to anything, and the same seed then draws the same codes; larger ones do.
        let mut model = tiny_with(forcing);
        let mut tensors = collect(&model.transformer);
        tensors.values_mut().flat_map(|tensor| &mut tensor.values).for_each(|value| *value *= 4.0);
        model.transformer = apply(model.transformer, tensors, Missing::Refuse).unwrap();
        let translator = Translator::new(&model);
        let options = options();
        let picture = drawn(SIDE, SIDE);
        let mask = Mask::filled(SIDE, SIDE, true);
        let others = [drawn(SIDE, SIDE), Picture::filled(SIDE, SIDE, [0; 3])];
        let encoded = translator.encode(&others);
        assert_ne!(encoded[0].tokens, encoded[1].tokens, "the two pictures have different tokens");
        for modality in Modality::ALL {
            let fill = |other: &Picture, seed: u64| {
                translator
                    .inpaint(&picture, modality, &mask, Some(other), &setting(&options, seed), &mut |_, _| {})
                    .unwrap()
            };
            let differ = (0..20).filter(|&seed| fill(&others[0], seed) != fill(&others[1], seed)).count();
            println!("{forcing:?}, a {modality} hole: {differ} of 20 seeds differ");
            // Were the other picture ignored, not a single one would.
            assert!(differ > 0, "{forcing:?}: the other picture says nothing to a {modality} hole");
        }
    }
}

#[test]
fn outpainting_keeps_the_picture() {
    let model = tiny();
    let translator = Translator::new(&model);
    let options = options();
    let cases = [
        (16, 16, Margins { left: 16, right: 3, top: 0, bottom: 20 }),
        (5, 4, Margins { left: 1, right: 1, top: 1, bottom: 1 }),
        (30, 18, Margins { right: 7, ..Margins::default() }),
        (16, 16, Margins::default()),
    ];
    for (width, height, margins) in cases {
        let picture = drawn(width, height);
        let made = translator
            .outpaint(&picture, Modality::Satellite, margins, &setting(&options, 4), &mut |_, _| {})
            .unwrap();
        assert_eq!(made.width(), width + margins.left + margins.right);
        assert_eq!(made.height(), height + margins.top + margins.bottom);
        assert_eq!(made.crop(margins.left, margins.top, width, height), picture);
        let again = translator
            .outpaint(&picture, Modality::Satellite, margins, &setting(&options, 4), &mut |_, _| {})
            .unwrap();
        assert_eq!(again, made);
    }
}

#[test]
fn a_pair_is_generated_from_its_seed() {
    let model = tiny();
    let translator = Translator::new(&model);
    let options = options();
    let pair = translator.generate(&setting(&options, 7)).unwrap();
    let modalities: Vec<Modality> = pair.iter().map(|(modality, _)| *modality).collect();
    assert_eq!(modalities, [Modality::Satellite, Modality::Map]);
    assert!(pair.iter().all(|(_, picture)| (picture.width(), picture.height()) == (SIDE, SIDE)));
    assert_eq!(translator.generate(&setting(&options, 7)).unwrap(), pair);
    assert_ne!(translator.generate(&setting(&options, 8)).unwrap(), pair);
}

#[test]
fn views_do_not_depend_on_batches_and_matter_to_translations_only() {
    let model = tiny();
    let translator = Translator::new(&model);
    let picture = drawn(37, 21);
    let viewed = |views| GenerationOptions { views, ..options() };
    let made = |views: usize, to: Modality, windows: &WindowOptions| {
        translator.translate(&picture, to, &setting(&viewed(views), 5), windows, &mut |_, _| {})
    };
    for seam in [Seam::Blend, Seam::Outpaint, Seam::Crop] {
        let joined = |batch_size| WindowOptions { batch_size, seam, samples: 2, ..Default::default() };
        let one = made(4, Modality::Map, &joined(1)).unwrap();
        for batch_size in [0, 3, 32] {
            let many = made(4, Modality::Map, &joined(batch_size)).unwrap();
            for (one, many) in one.iter().zip(&many) {
                assert_eq!(one.picture, many.picture, "{seam}, {batch_size} at once");
                assert_eq!(one.uncertainty, many.uncertainty, "{seam}, {batch_size} at once");
            }
        }
        let plain = made(1, Modality::Map, &joined(3)).unwrap();
        assert_ne!(one[0].picture, plain[0].picture);
    }
    let windows = WindowOptions::default();
    for views in [0, 3, 32] {
        let error = made(views, Modality::Map, &windows).unwrap_err();
        assert_eq!(error, GenerationError::Views(views));
        assert!(error.to_string().starts_with("views: "));
    }
    let to = Modality::Satellite;
    assert_eq!(made(4, to, &windows).unwrap_err(), GenerationError::OneView { views: 4, to });
    made(1, to, &windows).unwrap();
    let mask = Mask::drawn(37, 21, |x, y| x > 30 && y < 9);
    let filled = |views: usize| {
        let (options, mut progress) = (viewed(views), |_: usize, _: usize| {});
        let setting = setting(&options, 4);
        translator.inpaint(&picture, Modality::Map, &mask, None, &setting, &mut progress).unwrap()
    };
    assert_eq!(filled(8), filled(1));
}
