//! Translation of a window in several views, joined into one.
//!
//! A photograph that is mirrored or turned shows the same ground, and its map is the map mirrored or turned. So a window
//! can be translated in up to eight views ([`GenerationOptions::views`]), each result be turned back, and each pixel take
//! the colour that the views agree on best: the medoid, which is always a colour that some view has there. Everything
//! that goes from pictures to a translation's windows goes through [`Translator::encode_views`] and
//! [`Translator::translate_views`]; one view is a plain run.

use earthmapper_geo::picture::{Mask, Picture};
use earthmapper_geo::{Modality, Place};
use rayon::prelude::*;

use crate::pictures::to_tensor;
use crate::sampler::derive_seed;
use crate::scene::MadeWindow;
use crate::tokenizer::Encoding;
use crate::translator::{Condition, GenerationError, GenerationOptions, Known, Translator};
use crate::windows::filled_with_mean;

/// One of the eight ways to see a square: mirrored or not, then turned clockwise by some right angles.
///
/// It is 4 if mirrored, plus the right angles; seeds depend on that number. 0 is the square as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View(u32);

/// All views; the first four are not mirrored.
const ALL: &[View] = &[View(0), View(1), View(2), View(3), View(4), View(5), View(6), View(7)];

impl View {
    /// So many views, the first of them the square as it is: 1, 4 (quarter turns) or 8 (of the mirror image too); `None` for
    /// other numbers. Of two views neither would be nearer to the other, and the join would be the first.
    pub fn some(count: usize) -> Option<&'static [Self]> {
        match count {
            1 | 4 | 8 => Some(&ALL[..count]),
            _ => None,
        }
    }

    /// A square picture in this view.
    ///
    /// # Panics
    /// When it is not square.
    pub fn apply(self, picture: &Picture) -> Picture {
        let side = square(picture.width(), picture.height());
        Picture::drawn(side, side, |x, y| {
            let (x, y) = self.origin(x, y, side);
            picture.pixel(x, y)
        })
    }

    /// A square mask in this view.
    ///
    /// # Panics
    /// When it is not square.
    pub fn apply_mask(self, mask: &Mask) -> Mask {
        let side = square(mask.width(), mask.height());
        Mask::drawn(side, side, |x, y| {
            let (x, y) = self.origin(x, y, side);
            mask.is_hole(x, y)
        })
    }

    /// The square picture that looks like `picture` in this view.
    ///
    /// # Panics
    /// When it is not square.
    pub fn undo(self, picture: &Picture) -> Picture {
        let side = square(picture.width(), picture.height());
        Picture::drawn(side, side, |x, y| {
            let (x, y) = self.target(x, y, side);
            picture.pixel(x, y)
        })
    }

    /// The same for one value per token of a square grid, `[tokens]`.
    pub fn undo_tokens(self, values: &[f32]) -> Vec<f32> {
        let side = values.len().isqrt() as u32;
        let value = |x: u32, y: u32| {
            let (x, y) = self.target(x, y, side);
            values[(y * side + x) as usize]
        };
        (0..side).flat_map(|y| (0..side).map(move |x| value(x, y))).collect()
    }

    /// The seed of this view, where `seed` is the window's: its own for the window as it is.
    fn seed(self, seed: u64) -> u64 {
        if self.0 == 0 { seed } else { derive_seed(seed, &[u64::from(self.0)]) }
    }

    /// Where in the square a position of the view comes from.
    fn origin(self, x: u32, y: u32, side: u32) -> (u32, u32) {
        let last = side - 1;
        let (x, y) = match self.0 % 4 {
            0 => (x, y),
            1 => (y, last - x),
            2 => (last - x, last - y),
            _ => (last - y, x),
        };
        (if self.0 < 4 { x } else { last - x }, y)
    }

    /// Where in the view a position of the square comes to lie.
    fn target(self, x: u32, y: u32, side: u32) -> (u32, u32) {
        let last = side - 1;
        let x = if self.0 < 4 { x } else { last - x };
        match self.0 % 4 {
            0 => (x, y),
            1 => (last - y, x),
            2 => (last - x, last - y),
            _ => (y, last - x),
        }
    }
}

fn square(width: u32, height: u32) -> u32 {
    assert_eq!(width, height, "views are of squares");
    width
}

/// A picture of the model's side, encoded in some views.
#[derive(Clone, Debug)]
pub struct Viewed {
    views: &'static [View],
    /// One per view.
    encodings: Vec<Encoding>,
}

/// A window to be translated.
#[derive(Clone, Debug)]
pub struct WindowTask<'a> {
    /// The source.
    pub source: &'a Viewed,
    /// Where; `None` is nowhere in particular.
    pub place: Option<Place>,
    /// Seed of the window.
    pub seed: u64,
    /// What is there of the result already, with what is still open of it as a hole.
    pub before: Option<(Picture, Mask)>,
}

impl Translator<'_> {
    /// Encodes pictures of the model's side in each of `views`, `batch_size` at once.
    pub fn encode_views(
        &self,
        pictures: &[Picture],
        views: &'static [View],
        batch_size: usize,
    ) -> Vec<Viewed> {
        let all: Vec<(&Picture, View)> =
            pictures.iter().flat_map(|picture| views.iter().map(move |&view| (picture, view))).collect();
        let mut encodings = Vec::with_capacity(all.len());
        for some in all.chunks(batch_size.max(1)) {
            let seen: Vec<Picture> = some.iter().map(|(picture, view)| view.apply(picture)).collect();
            encodings.extend(self.encode(&seen));
        }
        let mut encodings = encodings.into_iter();
        let viewed = |_| Viewed { views, encodings: encodings.by_ref().take(views.len()).collect() };
        pictures.iter().map(viewed).collect()
    }

    /// Translates windows toward `to`, each in all views of its source, and joins the views: per pixel the medoid, per
    /// token the mean uncertainty. At once are `batch_size` runs, each of one view of one window; no result depends on
    /// that number.
    ///
    /// # Errors
    /// As [`Translator::run`], and for [`GenerationOptions::views`].
    pub fn translate_views(
        &self,
        tasks: &[WindowTask],
        to: Modality,
        options: &GenerationOptions,
        batch_size: usize,
    ) -> Result<Vec<MadeWindow>, GenerationError> {
        options.views_toward(to)?;
        let runs: Vec<(&WindowTask, usize)> =
            tasks.iter().flat_map(|task| (0..task.source.views.len()).map(move |i| (task, i))).collect();
        let mut made = Vec::with_capacity(runs.len());
        for runs in runs.chunks(batch_size.max(1)) {
            let conditions: Vec<Condition> =
                runs.iter().map(|&(task, i)| self.condition(task, i, to)).collect();
            let seeds: Vec<u64> =
                runs.iter().map(|&(task, i)| task.source.views[i].seed(task.seed)).collect();
            let result = self.run(&conditions, &seeds, options, &mut |_| {})?.remove(0);
            let pictures = self.decode(result.reconstruction);
            for ((&(task, i), picture), uncertainty) in runs.iter().zip(pictures).zip(result.uncertainty) {
                let view = task.source.views[i];
                made.push(match view {
                    View(0) => MadeWindow { picture, uncertainty },
                    _ => MadeWindow {
                        picture: view.undo(&picture),
                        uncertainty: view.undo_tokens(&uncertainty),
                    },
                });
            }
        }
        let mut made = made.into_iter();
        let join = |task: &WindowTask| joined(made.by_ref().take(task.source.views.len()).collect());
        Ok(tasks.iter().map(join).collect())
    }

    /// What is known of a window in its view `i`: its source and, if there is any, what is made of it already.
    fn condition(&self, task: &WindowTask, i: usize, to: Modality) -> Condition {
        let model = self.model();
        let mut condition = Condition::translation(model, task.source.encodings[i].clone(), to, task.place);
        if let Some((picture, open)) = &task.before
            && open.holes().contains(&false)
        {
            let view = task.source.views[i];
            let (picture, hole) = (view.apply(picture), view.apply_mask(open));
            let filled = filled_with_mean(&picture, &hole);
            let features = model.features(to_tensor(&[filled], &model.device()));
            let target = model.transformer.index_of(to).expect("a translation's target");
            condition.known[target] = Known::Part { features, hole };
        }
        condition
    }
}

/// The views of one window, turned back, as one window.
fn joined(mut views: Vec<MadeWindow>) -> MadeWindow {
    if views.len() == 1 {
        return views.remove(0);
    }
    let mut uncertainty = vec![0.0; views[0].uncertainty.len()];
    for view in &views {
        uncertainty.iter_mut().zip(&view.uncertainty).for_each(|(sum, value)| *sum += value);
    }
    uncertainty.iter_mut().for_each(|sum| *sum /= views.len() as f32);
    let pictures: Vec<&Picture> = views.iter().map(|view| &view.picture).collect();
    MadeWindow { picture: medoids(&pictures), uncertainty }
}

/// Per pixel the colour among equally large pictures whose summed absolute distance to all the others' is least, the first
/// of such. No new colour comes up, as it would in a mean. Two pictures are as far from each other as the other way
/// round, so that of two it is the first.
fn medoids(pictures: &[&Picture]) -> Picture {
    let (width, height) = (pictures[0].width(), pictures[0].height());
    let at = |i: usize| -> Vec<[u8; 3]> {
        pictures.iter().map(|picture| picture.rgb().as_chunks::<3>().0[i]).collect()
    };
    let rgb = (0..width as usize * height as usize).into_par_iter().flat_map_iter(|i| medoid(&at(i)));
    Picture::new(width, height, rgb.collect()).expect("three bytes a pixel")
}

fn medoid(colours: &[[u8; 3]]) -> [u8; 3] {
    let apart =
        |a: &[u8; 3], b: &[u8; 3]| -> u32 { a.iter().zip(b).map(|(a, b)| u32::from(a.abs_diff(*b))).sum() };
    let sum = |a: &&[u8; 3]| -> u32 { colours.iter().map(|b| apart(a, b)).sum() };
    // The first of equals.
    *colours.iter().min_by_key(sum).expect("at least one view")
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::{EarthMapper, EarthMapperConfig, TokenizerConfig, TransformerConfig};

    fn picture() -> Picture {
        Picture::drawn(5, 5, |x, y| [(x * 40) as u8, (y * 50) as u8, (x * x + 7 * y) as u8])
    }

    #[test]
    fn every_view_is_another_and_can_be_undone() {
        let picture = picture();
        let mask = Mask::drawn(5, 5, |x, y| x > 2 || y == 0);
        let values: Vec<f32> = (0..25).map(|i| i as f32).collect();
        let mut seen = Vec::new();
        for &view in View::some(8).unwrap() {
            let applied = view.apply(&picture);
            assert!(!seen.contains(&applied), "{view:?}");
            assert_eq!(view.undo(&applied), picture, "{view:?}");
            // A mask and a grid are turned like the picture that shows them.
            let shown =
                |mask: &Mask| Picture::drawn(5, 5, |x, y| if mask.is_hole(x, y) { [255; 3] } else { [0; 3] });
            assert_eq!(shown(&view.apply_mask(&mask)), view.apply(&shown(&mask)), "{view:?}");
            let grid = |values: &[f32]| Picture::drawn(5, 5, |x, y| [values[(y * 5 + x) as usize] as u8; 3]);
            assert_eq!(grid(&view.undo_tokens(&values)), view.undo(&grid(&values)), "{view:?}");
            seen.push(applied);
        }
    }

    #[test]
    fn views_are_mirror_images_and_quarter_turns() {
        let picture = picture();
        let as_seen = |count: usize| -> Vec<Picture> {
            View::some(count).unwrap().iter().map(|view| view.apply(&picture)).collect()
        };
        let mirrored = picture.flipped();
        assert_eq!(as_seen(1), std::slice::from_ref(&picture));
        assert_eq!(as_seen(4), [0, 1, 2, 3].map(|turns| picture.quarter_turned(turns)));
        assert_eq!(as_seen(8)[4..], [0, 1, 2, 3].map(|turns| mirrored.quarter_turned(turns)));
        assert_eq!(as_seen(8)[..4], as_seen(4));
        assert!([0, 2, 3, 5, 6, 7, 9, 16].iter().all(|&count| View::some(count).is_none()));
    }

    #[test]
    fn the_window_as_it_is_has_its_own_seed() {
        let seeds: Vec<u64> = ALL.iter().map(|view| view.seed(9)).collect();
        assert_eq!(seeds[0], 9);
        assert_eq!(seeds[5], derive_seed(9, &[5]));
        let different: std::collections::HashSet<&u64> = seeds.iter().collect();
        assert_eq!(different.len(), 8);
    }

    #[test]
    fn the_medoid_is_the_colour_nearest_to_the_others() {
        let (road, park, water) = ([255, 255, 255], [200, 230, 190], [170, 210, 250]);
        assert_eq!(medoid(&[road]), road);
        // Summed distances 145, 145: the first.
        assert_eq!(medoid(&[park, road]), park);
        assert_eq!(medoid(&[road, park]), road);
        assert_eq!(medoid(&[park, road, road]), road);
        // park–road 145, park–water 110, road–water 135: park 255, road 280, water 245.
        assert_eq!(medoid(&[park, road, water]), water);
        // Two against two: 290 each but for the one odd colour; park 2·145 = 290, road 2·145 = 290.
        assert_eq!(medoid(&[road, park, park, road]), road);
    }

    #[test]
    fn views_are_joined_per_pixel_and_their_uncertainty_averaged() {
        let window = |left: u8, right: u8, uncertainty: [f32; 4]| MadeWindow {
            picture: Picture::drawn(2, 2, |x, _| [if x == 0 { left } else { right }; 3]),
            uncertainty: uncertainty.to_vec(),
        };
        let first = window(10, 90, [0.0, 0.5, 1.0, 0.25]);
        assert_eq!(joined(vec![first.clone()]), first);
        let made = joined(vec![
            first,
            window(20, 80, [0.5, 0.5, 0.0, 0.25]),
            window(21, 0, [0.25, 0.5, 0.5, 0.25]),
            window(99, 81, [0.25, 0.5, 0.5, 0.25]),
        ]);
        // Per channel: left 10 → 110, 20 → 90, 21 → 90; right: 90 → 109, 80 → 91, 81 → 91.
        assert_eq!(made, window(20, 80, [0.25, 0.5, 0.5, 0.25]));
    }
    fn tiny() -> EarthMapper {
        let tokenizer = TokenizerConfig {
            picture_side: 16,
            sides: vec![1, 2, 4],
            vocabulary: 24,
            latent_width: 6,
            channels: 8,
            multipliers: vec![1, 2, 2],
            residual_blocks: 1,
            ..Default::default()
        };
        let transformer = TransformerConfig { depth: 2, width: 32, heads: 4, ..Default::default() };
        let config = EarthMapperConfig { transformer, ..Default::default() };
        EarthMapper::new(config, tokenizer, 3, &Device::flex())
    }

    /// Views of a window with neighbours, step by step and with the turns of [`Picture`].
    #[test]
    fn a_window_in_views_is_plain_runs_joined() {
        let model = tiny();
        let translator = Translator::new(&model);
        let options = GenerationOptions { views: 8, ..Default::default() };
        let source = Picture::drawn(16, 16, |x, y| [(x * 15) as u8, (y * 9) as u8, (x * y) as u8]);
        let neighbours = Picture::drawn(16, 16, |x, y| [(y * 15) as u8, (x * 3) as u8, (x * x) as u8]);
        let hole = Mask::drawn(16, 16, |x, y| x > 5 && y > 9);
        let shown = Picture::drawn(16, 16, |x, y| [if hole.is_hole(x, y) { 255 } else { 0 }; 3]);
        let turned = |picture: &Picture, view: u32| match view {
            0..4 => picture.quarter_turned(view),
            _ => picture.flipped().quarter_turned(view - 4),
        };
        let back = |picture: &Picture, view: u32| match view {
            0..4 => picture.quarter_turned(4 - view),
            _ => picture.quarter_turned(8 - view).flipped(),
        };
        let mut by_hand = Vec::new();
        for view in 0..8 {
            let encoding = translator.encode(&[turned(&source, view)]).remove(0);
            let mut condition = Condition::translation(&model, encoding, Modality::Map, None);
            let seen = turned(&shown, view);
            let hole = Mask::drawn(16, 16, |x, y| seen.pixel(x, y)[0] > 0);
            let filled = filled_with_mean(&turned(&neighbours, view), &hole);
            let features = model.features(to_tensor(&[filled], &model.device()));
            condition.known[1] = Known::Part { features, hole };
            let seed = if view == 0 { 7 } else { derive_seed(7, &[u64::from(view)]) };
            let made = translator.run(&[condition], &[seed], &options, &mut |_| {}).unwrap().remove(0);
            by_hand.push(MadeWindow {
                picture: back(&translator.decode(made.reconstruction)[0], view),
                uncertainty: View(view).undo_tokens(&made.uncertainty[0]),
            });
        }
        for count in [1, 4, 8] {
            let options = GenerationOptions { views: count, ..Default::default() };
            let views = options.views_toward(Modality::Map).unwrap();
            let sources = translator.encode_views(&[source.clone(), neighbours.clone()], views, 3);
            let task = |source| WindowTask {
                source,
                place: None,
                seed: 7,
                before: Some((neighbours.clone(), hole.clone())),
            };
            let tasks: Vec<WindowTask> = sources.iter().map(task).collect();
            let made = translator.translate_views(&tasks, Modality::Map, &options, 3).unwrap();
            let wanted = views.iter().map(|view| by_hand[view.0 as usize].clone()).collect();
            let wanted: MadeWindow = joined(wanted);
            assert_eq!(made[0].picture, wanted.picture, "{count} views");
            // Logits of another batch size may differ in their last bits.
            let pairs = || made[0].uncertainty.iter().zip(&wanted.uncertainty);
            assert!(pairs().all(|(made, wanted)| (made - wanted).abs() < 1e-5), "{count} views");
            assert_eq!(made.len(), 2);
        }
        assert_ne!(by_hand[0].picture, by_hand[5].picture);
    }

    #[test]
    fn the_option_is_written_only_when_it_is_not_one() {
        let plain = serde_json::to_string(&GenerationOptions::default()).unwrap();
        assert!(!plain.contains("views"), "{plain}");
        assert_eq!(serde_json::from_str::<GenerationOptions>(&plain).unwrap().views, 1);
        let options = GenerationOptions { views: 8, ..Default::default() };
        let text = serde_json::to_string(&options).unwrap();
        assert!(text.ends_with(",\"views\":8}"), "{text}");
        assert_eq!(serde_json::from_str::<GenerationOptions>(&text).unwrap(), options);
    }
}
