//! Translation of a window in several views, joined into one.
//!
//! A photograph that is mirrored or turned shows the same ground, and its map is the map mirrored or turned; and a part of it,
//! magnified, is a photograph from nearer by. So a window can be translated in up to sixteen views
//! ([`GenerationOptions::views`]), each of them one of its four corners, a little larger than a quarter needs and turned in some
//! way, and each pixel take the colour that the views which show it agree on best: the medoid, which is always a colour that
//! some view has there. Everything that goes from pictures to a translation's windows goes through
//! [`Translator::encode_views`] and [`Translator::translate_views`]; one view is a plain run.

use earthmapper_geo::picture::{Mask, Picture, PixelArea};
use earthmapper_geo::{Modality, Place};
use rayon::prelude::*;

use crate::pictures::to_tensor;
use crate::sampler::derive_seed;
use crate::scene::MadeWindow;
use crate::tokenizer::Encoding;
use crate::translator::{Condition, GenerationError, GenerationOptions, Known, Translator};
use crate::windows::filled_with_mean;

/// A way to see a square window: the whole or one of its corners, mirrored or not, then turned clockwise by some right angles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// Which corner, row by row; `None` is the whole window.
    corner: Option<u32>,
    /// 4 if mirrored, plus the right angles.
    turn: u32,
}

/// The window as it is.
const WHOLE: &[View] = &[View { corner: None, turn: 0 }];

/// All four corners in turn, each time turned in other ways.
const CORNERS: &[View] = &{
    let mut all = [View { corner: None, turn: 0 }; 16];
    let mut i = 0;
    while i < 16 {
        let corner = i as u32 % 4;
        all[i] = View { corner: Some(corner), turn: (corner + i as u32 / 4 * 5) % 8 };
        i += 1;
    }
    all
};

impl View {
    /// So many views: 1 is the square as it is, 4, 8 and 16 are its corners, each turned in one, two or four ways; `None` for
    /// other numbers.
    pub fn some(count: usize) -> Option<&'static [Self]> {
        match count {
            1 => Some(WHOLE),
            4 | 8 | 16 => Some(&CORNERS[..count]),
            _ => None,
        }
    }

    /// A square picture in this view, as large as the picture.
    ///
    /// # Panics
    /// When it is not square.
    pub fn apply(self, picture: &Picture) -> Picture {
        let side = square(picture.width(), picture.height());
        let ([x, y], span) = self.area(side);
        let [x, y, width, height] = [x, y, span, span].map(f64::from);
        let part = picture.resampled(PixelArea { x, y, width, height }, side, side);
        Picture::drawn(side, side, |x, y| {
            let (x, y) = self.origin(x, y, side);
            part.pixel(x, y)
        })
    }

    /// A square mask in this view: a pixel is a hole where the mask has one in the middle of what it shows.
    ///
    /// # Panics
    /// When it is not square.
    pub fn apply_mask(self, mask: &Mask) -> Mask {
        let side = square(mask.width(), mask.height());
        let ([left, top], span) = self.area(side);
        Mask::drawn(side, side, |x, y| {
            let (x, y) = self.origin(x, y, side);
            let shown = |i: u32| (2 * i + 1) * span / (2 * side);
            mask.is_hole(left + shown(x), top + shown(y))
        })
    }

    /// Where in the view the middle of a cell of the window is seen, or `None` where it is not. Window and view are `side`
    /// pixels wide and have `count` cells a row, which may be those pixels.
    pub fn seen_at(self, x: u32, y: u32, count: u32, side: u32) -> Option<(u32, u32)> {
        let (from, span) = self.area(side);
        let place = |i: u32, from: u32| {
            let middle = (f64::from(i) + 0.5) / f64::from(count) * f64::from(side);
            let share = (middle - f64::from(from)) / f64::from(span);
            (0.0..1.0).contains(&share).then(|| (share * f64::from(count)) as u32)
        };
        Some(self.target(place(x, from[0])?, place(y, from[1])?, count))
    }

    /// The place of what the view shows of a window at `place`: its pixels show less ground. Its middle is taken for the
    /// window's, a tenth of a window away at most.
    fn place(self, place: Place, side: u32) -> Place {
        let share = f64::from(self.area(side).1) / f64::from(side);
        let ground = place.metres_per_pixel().map(|metres| metres * share);
        Place::new(place.position(), ground).expect("a part of a positive number")
    }

    /// Top left corner and side of what the view shows of a window. Corners leave out 15 % of the side: together they show
    /// all of it, and each is about as much larger as the cuts that models learn from.
    fn area(self, side: u32) -> ([u32; 2], u32) {
        let Some(corner) = self.corner else { return ([0, 0], side) };
        let rest = (side * 3 + 10) / 20;
        ([corner % 2 * rest, corner / 2 * rest], side - rest)
    }

    /// The seed of this view, where `seed` is the window's: its own for the window as it is.
    fn seed(self, seed: u64) -> u64 {
        match self.corner {
            None => seed,
            Some(corner) => derive_seed(seed, &[u64::from(corner), u64::from(self.turn)]),
        }
    }

    /// Where in what is shown a position of the view comes from.
    fn origin(self, x: u32, y: u32, side: u32) -> (u32, u32) {
        let last = side - 1;
        let (x, y) = match self.turn % 4 {
            0 => (x, y),
            1 => (y, last - x),
            2 => (last - x, last - y),
            _ => (last - y, x),
        };
        (if self.turn < 4 { x } else { last - x }, y)
    }

    /// Where in the view a position of what is shown comes to lie.
    fn target(self, x: u32, y: u32, side: u32) -> (u32, u32) {
        let last = side - 1;
        let x = if self.turn < 4 { x } else { last - x };
        match self.turn % 4 {
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
            let pictures = pictures.into_iter().zip(result.uncertainty);
            made.extend(pictures.map(|(picture, uncertainty)| MadeWindow { picture, uncertainty }));
        }
        let mut made = made.into_iter();
        let join = |task: &WindowTask| {
            let views = task.source.views;
            joined(views, made.by_ref().take(views.len()).collect())
        };
        Ok(tasks.iter().map(join).collect())
    }

    /// What is known of a window in its view `i`: its source and, if there is any, what is made of it already.
    fn condition(&self, task: &WindowTask, i: usize, to: Modality) -> Condition {
        let model = self.model();
        let view = task.source.views[i];
        let place = task.place.map(|place| view.place(place, model.tokenizer_config.picture_side as u32));
        let mut condition = Condition::translation(model, task.source.encodings[i].clone(), to, place);
        if let Some((picture, open)) = &task.before
            && open.holes().contains(&false)
        {
            let (picture, hole) = (view.apply(picture), view.apply_mask(open));
            let filled = filled_with_mean(&picture, &hole);
            let features = model.features(to_tensor(&[filled], &model.device()));
            let target = model.transformer.index_of(to).expect("a translation's target");
            condition.known[target] = Known::Part { features, hole };
        }
        condition
    }
}

/// What was made of one window in some views, each as it sees it, as one window.
fn joined(views: &[View], mut made: Vec<MadeWindow>) -> MadeWindow {
    if views == WHOLE {
        return made.remove(0);
    }
    let side = square(made[0].picture.width(), made[0].picture.height());
    let tokens = made[0].uncertainty.len().isqrt() as u32;
    let mean = |i: u32| {
        let seen = views.iter().zip(&made).filter_map(|(view, made)| {
            let (x, y) = view.seen_at(i % tokens, i / tokens, tokens, side)?;
            Some(made.uncertainty[(y * tokens + x) as usize])
        });
        let (sum, count) = seen.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
        sum / count
    };
    MadeWindow { picture: medoids(views, &made, side), uncertainty: (0..tokens * tokens).map(mean).collect() }
}

/// Per pixel the colour among the views that show it whose summed absolute distance to all the others' is least, the first of
/// such. No new colour comes up, as it would in a mean. Two colours are as far from each other as the other way round, so that
/// of two it is the first.
fn medoids(views: &[View], made: &[MadeWindow], side: u32) -> Picture {
    let row = |y: u32| {
        (0..side).flat_map(move |x| {
            let seen = views.iter().zip(made).filter_map(|(view, made)| {
                let (x, y) = view.seen_at(x, y, side, side)?;
                Some(made.picture.pixel(x, y))
            });
            medoid(&seen.collect::<Vec<_>>())
        })
    };
    let rgb = (0..side).into_par_iter().flat_map_iter(row).collect();
    Picture::new(side, side, rgb).expect("three bytes a pixel")
}

fn medoid(colours: &[[u8; 3]]) -> [u8; 3] {
    let apart =
        |a: &[u8; 3], b: &[u8; 3]| -> u32 { a.iter().zip(b).map(|(a, b)| u32::from(a.abs_diff(*b))).sum() };
    let sum = |a: &&[u8; 3]| -> u32 { colours.iter().map(|b| apart(a, b)).sum() };
    // The first of equals.
    *colours.iter().min_by_key(sum).expect("corners that show all of a window")
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::{EarthMapper, EarthMapperConfig, TokenizerConfig, TransformerConfig};

    /// Colours that grow evenly to the right and downward.
    fn picture() -> Picture {
        Picture::drawn(20, 20, |x, y| [(x * 12) as u8, (y * 12) as u8, 77])
    }

    fn all() -> impl Iterator<Item = View> {
        WHOLE.iter().chain(CORNERS).copied()
    }

    /// A picture as in a view's turn, by the turns of [`Picture`].
    fn turned(picture: &Picture, turn: u32) -> Picture {
        match turn {
            0..4 => picture.quarter_turned(turn),
            _ => picture.flipped().quarter_turned(turn - 4),
        }
    }

    fn turned_back(picture: &Picture, turn: u32) -> Picture {
        match turn {
            0..4 => picture.quarter_turned(4 - turn),
            _ => picture.quarter_turned(8 - turn).flipped(),
        }
    }

    #[test]
    fn views_are_magnified_corners_in_turns() {
        let picture = picture();
        assert_eq!(View::some(1).unwrap(), WHOLE);
        assert_eq!(WHOLE[0].apply(&picture), picture);
        for count in [4, 8, 16] {
            let views = View::some(count).unwrap();
            assert_eq!(views, &CORNERS[..count]);
            // 3 of 20 pixels are left out, so that corners start at 0 or at 3.
            for (i, &view) in views.iter().enumerate() {
                let [x, y] = [[0.0, 0.0], [3.0, 0.0], [0.0, 3.0], [3.0, 3.0]][i % 4];
                let corner = picture.resampled(PixelArea { x, y, width: 17.0, height: 17.0 }, 20, 20);
                assert_eq!(view.apply(&picture), turned(&corner, view.turn), "{view:?}");
            }
        }
        let different: std::collections::HashSet<Vec<u8>> =
            all().map(|view| view.apply(&picture).into_rgb()).collect();
        assert_eq!(different.len(), 17);
        assert!([0, 2, 3, 5, 7, 9, 15, 17, 32].iter().all(|&count| View::some(count).is_none()));
    }

    #[test]
    fn what_a_view_shows_is_found_in_it() {
        let picture = picture();
        // The lower right quarter, whose middle cells of two a row show the same as its pixels.
        let mask = Mask::drawn(20, 20, |x, y| x > 9 && y > 9);
        for view in all() {
            let (applied, seen_mask) = (view.apply(&picture), view.apply_mask(&mask));
            for (x, y) in (0..20).flat_map(|y| (0..20).map(move |x| (x, y))) {
                let shown = view.corner.is_none_or(|corner| {
                    let inside = |i: u32, far: bool| if far { i >= 3 } else { i < 17 };
                    inside(x, corner % 2 == 1) && inside(y, corner / 2 == 1)
                });
                let Some((seen_x, seen_y)) = view.seen_at(x, y, 20, 20) else {
                    assert!(!shown, "{view:?} at {x}, {y}");
                    continue;
                };
                assert!(shown, "{view:?} at {x}, {y}");
                // A pixel of the view shows 0.85 of a step, from at most half a step away.
                let (a, b) = (applied.pixel(seen_x, seen_y), picture.pixel(x, y));
                assert!(
                    a.iter().zip(b).all(|(a, b)| a.abs_diff(b) <= 7),
                    "{view:?} at {x}, {y}: {a:?}, {b:?}"
                );
                if !(8..12).contains(&x) && !(8..12).contains(&y) {
                    assert_eq!(seen_mask.is_hole(seen_x, seen_y), mask.is_hole(x, y), "{view:?} at {x}, {y}");
                }
            }
        }
        // Together the corners show everything, in cells of any size.
        for count in [1, 2, 5, 16, 20] {
            for (x, y) in (0..count).flat_map(|y| (0..count).map(move |x| (x, y))) {
                assert!(CORNERS[..4].iter().any(|view| view.seen_at(x, y, count, 20).is_some()));
            }
        }
    }

    #[test]
    fn the_window_as_it_is_has_its_own_seed_and_place() {
        assert_eq!(WHOLE[0].seed(9), 9);
        let different: std::collections::HashSet<u64> = all().map(|view| view.seed(9)).collect();
        assert_eq!(different.len(), 17);
        let place = Place::new(earthmapper_geo::LonLat::new(3.0, 4.0).unwrap(), Some(2.0)).unwrap();
        assert_eq!(WHOLE[0].place(place, 20), place);
        let nearer = CORNERS[5].place(place, 20);
        assert_eq!((nearer.position(), nearer.metres_per_pixel()), (place.position(), Some(1.7)));
        let anywhere = Place::new(place.position(), None).unwrap();
        assert_eq!(CORNERS[5].place(anywhere, 20), anywhere);
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
        assert_eq!(joined(WHOLE, vec![first.clone()]), first);
        let made = joined(
            &[WHOLE[0]; 4],
            vec![
                first,
                window(20, 80, [0.5, 0.5, 0.0, 0.25]),
                window(21, 0, [0.25, 0.5, 0.5, 0.25]),
                window(99, 81, [0.25, 0.5, 0.5, 0.25]),
            ],
        );
        // Per channel: left 10 → 110, 20 → 90, 21 → 90; right: 90 → 109, 80 → 91, 81 → 91.
        assert_eq!(made, window(20, 80, [0.25, 0.5, 0.5, 0.25]));
    }

    #[test]
    fn only_views_that_show_a_pixel_have_a_say() {
        // Of 7 pixels a corner leaves one out.
        let window = |corner: u8| MadeWindow {
            picture: Picture::filled(7, 7, [10 * corner; 3]),
            uncertainty: vec![f32::from(corner); 49],
        };
        let made = joined(&CORNERS[..4], (1..=4).map(window).collect());
        let at = |x: u32, y: u32| (made.picture.pixel(x, y)[0], made.uncertainty[(y * 7 + x) as usize]);
        assert_eq!([at(0, 0), at(6, 0), at(0, 6), at(6, 6)], [(10, 1.0), (20, 2.0), (30, 3.0), (40, 4.0)]);
        // Of two the first; of 10, 20, 30 and 40 either middle one is nearest to the others.
        assert_eq!([at(3, 0), at(0, 3), at(3, 3)], [(10, 1.5), (10, 2.0), (20, 2.5)]);
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
        let options = GenerationOptions { views: 16, ..Default::default() };
        let source = Picture::drawn(16, 16, |x, y| [(x * 15) as u8, (y * 9) as u8, (x * y) as u8]);
        let neighbours = Picture::drawn(16, 16, |x, y| [(y * 15) as u8, (x * 3) as u8, (x * x) as u8]);
        let hole = Mask::drawn(16, 16, |x, y| x > 5 && y > 9);
        // Two of 16 pixels are left out by each corner.
        let areas = [[0, 0], [2, 0], [0, 2], [2, 2]];
        let mut by_hand = Vec::new();
        for &view in WHOLE.iter().chain(CORNERS) {
            let magnified = |picture: &Picture| match view.corner {
                None => picture.clone(),
                Some(corner) => {
                    let [x, y] = areas[corner as usize].map(f64::from);
                    picture.resampled(PixelArea { x, y, width: 14.0, height: 14.0 }, 16, 16)
                }
            };
            let seen = |picture: &Picture| turned(&magnified(picture), view.turn);
            let encoding = translator.encode(&[seen(&source)]).remove(0);
            let mut condition = Condition::translation(&model, encoding, Modality::Map, None);
            let hole = view.apply_mask(&hole);
            let filled = filled_with_mean(&seen(&neighbours), &hole);
            let features = model.features(to_tensor(&[filled], &model.device()));
            condition.known[1] = Known::Part { features, hole };
            let made =
                translator.run(&[condition], &[view.seed(7)], &options, &mut |_| {}).unwrap().remove(0);
            let picture = turned_back(&translator.decode(made.reconstruction)[0], view.turn);
            by_hand.push((view, picture, made.uncertainty[0].clone()));
        }
        for count in [1, 4, 8, 16] {
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
            let ways: Vec<_> = match count {
                1 => vec![&by_hand[0]],
                _ => by_hand[1..=count].iter().collect(),
            };
            let wanted = Picture::drawn(16, 16, |x, y| {
                let colours = ways.iter().filter_map(|(view, picture, _)| {
                    let Some(corner) = view.corner else { return Some(picture.pixel(x, y)) };
                    let [left, top] = areas[corner as usize];
                    let at = |i: u32, from: u32| {
                        let inside = i.checked_sub(from).filter(|&i| i < 14)?;
                        Some(((f64::from(inside) + 0.5) * 16.0 / 14.0) as u32)
                    };
                    Some(picture.pixel(at(x, left)?, at(y, top)?))
                });
                medoid(&colours.collect::<Vec<_>>())
            });
            assert_eq!(made[0].picture, wanted, "{count} views");
            let uncertainty = &made[0].uncertainty;
            assert_eq!(uncertainty.len(), 16);
            for (i, &found) in (0..16).zip(uncertainty) {
                let seen = ways.iter().filter_map(|(view, _, values)| {
                    let (x, y) = view.seen_at(i % 4, i / 4, 4, 16)?;
                    Some(values[(y * 4 + x) as usize])
                });
                let seen: Vec<f32> = seen.collect();
                // Logits of another batch size may differ in their last bits.
                assert!((found - seen.iter().sum::<f32>() / seen.len() as f32).abs() < 1e-5, "{count} views");
            }
            assert_eq!(made.len(), 2);
        }
        assert_ne!(by_hand[0].1, by_hand[5].1);
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
