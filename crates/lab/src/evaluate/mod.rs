//! Measuring a model on pairs it has not seen, beside baselines that keep the numbers honest.
//!
//! | file | holds |
//! |---|---|
//! | `mod` | [`evaluate`]: both directions, the baselines, contact sheets, a table and JSON |
//! | [`grid`] | [`grid::search`]: many generation options on a few pairs, to choose a model's defaults |
//! | [`card`] | [`card::model_card`]: the README of a model folder, out of the numbers and the run that trained it |
//!
//! Satellite → map: pixel scores, class overlap and roads against the true map, beside a blank map and beside the
//! tokenizer's own reconstruction of the true map, which no prediction can be expected to beat. Map → satellite: the
//! generated photograph is translated back and its map compared with the map it came from, beside what the real
//! photograph's translation scores. Pixel scores of a generated photograph are kept as a footnote: the same map fits
//! many photographs.

pub mod card;
pub mod grid;

use std::path::Path;
use std::time::Instant;

use earthmapper::model::GenerationDefaults;
use earthmapper::pictures::{from_tensor, to_tensor};
use earthmapper::sampler::derive_seed;
use earthmapper::tokenizer::Encoding;
use earthmapper::translator::{Condition, Generated, GenerationError, GenerationOptions, Translator};
use earthmapper::{EarthMapper, Modality, Place};
use earthmapper_geo::files::{WriteError, atomic_write};
use earthmapper_geo::pairs::{PairError, PairFolder};
use earthmapper_geo::picture::{Picture, PictureError, WriteOptions, write_picture};
use earthmapper_geo::provenance::Provenance;
use serde::{Deserialize, Serialize};

use crate::data::{contact_sheet, read_square};
use crate::metrics::{
    MapScores, MapSummary, Mean, MetricsError, Palette, PictureScores, blank_map, comparison_table,
    mean_pairwise_difference, peak_signal_to_noise_ratio, structural_similarity,
};
use crate::progress::{Interrupt, Progress, ProgressMode};

/// Which translations are measured.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Directions {
    /// Satellite → map, and map → satellite through the way back.
    #[default]
    Both,
    /// Satellite → map only, which takes a third of the time.
    ToMap,
}

/// How a model is evaluated.
#[derive(Clone, Debug)]
pub struct EvaluateOptions {
    /// Options of generation, per direction.
    pub generation: GenerationDefaults,
    /// Which translations are measured.
    pub directions: Directions,
    /// Seed; picture i uses seeds derived from it and i.
    pub seed: u64,
    /// Pictures at once; 0 counts as 1. It does not change what is drawn.
    pub batch_size: usize,
    /// Place of all pictures, when known.
    pub place: Option<Place>,
    /// Classes of the maps.
    pub palette: Palette,
    /// Colour of the blank map: the median colour of the training maps.
    pub blank: [u8; 3],
    /// Pictures of which three samples are drawn to measure diversity.
    pub diversity_pictures: usize,
    /// Most rows of a contact sheet: every n-th pair.
    pub sheet_rows: usize,
    /// Side of a picture on a contact sheet, in pixels.
    pub tile_side: u32,
}

impl EvaluateOptions {
    /// The model's own options of generation, both directions, and the palette and median colour of the New York
    /// maps' training pairs.
    pub fn new(model: &EarthMapper) -> Self {
        Self {
            generation: model.generation.clone(),
            directions: Directions::Both,
            seed: 0,
            batch_size: 8,
            place: None,
            palette: Palette::new_york(),
            blank: [232, 228, 224],
            diversity_pictures: 8,
            sheet_rows: 12,
            tile_side: 192,
        }
    }
}

/// What came out, and what it was measured with.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Evaluation {
    /// Name of the model.
    pub model: String,
    /// Pairs measured.
    pub pairs: usize,
    /// Names of the first and the last pair.
    pub names: [String; 2],
    /// Seed of the samples.
    pub seed: u64,
    /// Options of generation, per direction.
    pub generation: GenerationDefaults,
    /// The blank map against the truth.
    pub blank: MapSummary,
    /// The tokenizer's reconstruction of the true map against the truth: the ceiling.
    pub ceiling: MapSummary,
    /// The model's map against the truth.
    pub to_map: MapSummary,
    /// Edge content of the model's maps ÷ that of the true maps: below 1 is smoother, above 1 is rougher; none when the
    /// true maps have no edge.
    pub map_detail: Option<f64>,
    /// Map → satellite; none when it was not measured.
    pub to_satellite: Option<PhotographSummary>,
    /// Mean RMSE between samples of one photograph's map, in [0, 1].
    pub map_diversity: Option<f64>,
    /// Seconds per satellite → map translation in batches, encoding and decoding included.
    pub seconds_per_translation: f64,
}

/// What map → satellite is worth.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PhotographSummary {
    /// The map made back from the generated photograph, against the map that it was generated from. Compare it with
    /// [`Evaluation::to_map`]: what the same model reads out of the real photograph.
    pub cycle: MapSummary,
    /// Edge content of the generated photographs ÷ that of the real ones.
    pub detail: Option<f64>,
    /// Mean RMSE between samples of one map's photograph, in [0, 1].
    pub diversity: Option<f64>,
    /// PSNR against the real photograph, in dB. Many photographs fit one map: a high value is not the aim.
    pub psnr: Mean,
    /// SSIM against the real photograph, in [−1, 1]; as little telling as the PSNR.
    pub ssim: Mean,
}

/// An evaluation with its pictures.
#[derive(Clone, Debug)]
pub struct Evaluated {
    /// The numbers.
    pub evaluation: Evaluation,
    /// Photograph, true map, made map, the tokenizer's reconstruction of the true map, uncertainty (white: undecided).
    pub to_map_sheet: Picture,
    /// Map, made photograph, true photograph, map made back.
    pub to_satellite_sheet: Option<Picture>,
    /// One line per pair, comma-separated.
    pub pictures: String,
}

/// Why an evaluation failed.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    /// A pair cannot be read.
    #[error(transparent)]
    Pair(#[from] PairError),
    /// The pictures do not fit the model.
    #[error(transparent)]
    Generation(#[from] GenerationError),
    /// The model does not translate between photographs and maps.
    #[error("the model {model} knows {known}; an evaluation needs one of satellite pictures and maps")]
    Modalities {
        /// Name of the model.
        model: String,
        /// What it knows.
        known: String,
    },
    /// A score cannot be computed.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// A sheet cannot be written.
    #[error(transparent)]
    Picture(#[from] PictureError),
    /// A table cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// It was asked to stop. Numbers over a part of the pairs would look like those over all, so none are given.
    #[error("interrupted after {done} of {of} pairs; nothing was written")]
    Interrupted {
        /// Pairs done.
        done: usize,
        /// Pairs wanted.
        of: usize,
    },
    /// A search was asked to stop; what it has done counts.
    #[error("interrupted after {done} of {of} combinations; those are written")]
    SearchInterrupted {
        /// Combinations done.
        done: usize,
        /// Combinations wanted.
        of: usize,
    },
}

impl EvaluateError {
    /// Whether somebody asked for it, rather than something going wrong.
    pub fn is_interruption(&self) -> bool {
        matches!(self, Self::Interrupted { .. } | Self::SearchInterrupted { .. })
    }
}

/// Measures a model on pairs, each seen as the largest square from its middle at the model's side.
///
/// # Errors
/// See [`EvaluateError`]. A pair that cannot be read is an error, since numbers over other pairs do not compare.
pub fn evaluate(
    model: &EarthMapper,
    pairs: &PairFolder,
    options: &EvaluateOptions,
    progress: ProgressMode,
    interrupt: &Interrupt,
) -> Result<Evaluated, EvaluateError> {
    let bench = Bench::new(model, options)?;
    let mut tally = Tally::new(options);
    let mut bar = Progress::start(progress, "pairs", 0, pairs.len() as u64);
    let every = pairs.len().div_ceil(options.sheet_rows.max(1));
    let batch_size = options.batch_size.max(1);
    for start in (0..pairs.len()).step_by(batch_size) {
        let go_on = || match interrupt.requested() {
            true => Err(EvaluateError::Interrupted { done: start, of: pairs.len() }),
            false => Ok(()),
        };
        go_on()?;
        let batch = bench.read(pairs, start..(start + batch_size).min(pairs.len()))?;
        let made = bench.make(
            &batch.encoded_photographs,
            Modality::Map,
            &options.generation.to_map,
            &batch.seeds(options, 0),
        )?;
        let seconds = batch.encoding_seconds + made.seconds;
        go_on()?;
        let ceiling = from_tensor(model.decode(&batch.encoded_maps.tokens));
        let photographs = match options.directions {
            Directions::Both => Some(bench.there_and_back(&batch, &options.generation)?),
            Directions::ToMap => None,
        };
        go_on()?;
        for (i, index) in batch.indices.clone().enumerate() {
            tally.add(&batch, i, &made, &ceiling[i], photographs.as_ref(), pairs.name(index))?;
            if index % every == 0 {
                tally.show(&batch, i, &made, &ceiling[i], photographs.as_ref());
            }
            if index < options.diversity_pictures {
                tally.map_diversity.push(bench.diversity(
                    &batch.encoded_photographs.picture(i),
                    Modality::Map,
                    index,
                )?);
                if options.directions == Directions::Both {
                    let tokens = batch.encoded_maps.picture(i);
                    tally.diversity.push(bench.diversity(&tokens, Modality::Satellite, index)?);
                }
            }
        }
        tally.seconds += seconds;
        bar.update(batch.indices.end as u64, batch.indices.len() as u64, None);
    }
    bar.finish();
    tally.finish(model, pairs)
}

impl Evaluation {
    /// The columns of the table: the blank map, the model, its ceiling and the way back.
    pub fn table(&self) -> String {
        let mut columns = vec![
            ("blank map", &self.blank),
            ("satellite → map", &self.to_map),
            ("tokenizer (ceiling)", &self.ceiling),
        ];
        if let Some(photographs) = &self.to_satellite {
            columns.push(("map → satellite → map", &photographs.cycle));
        }
        comparison_table(&columns)
    }

    /// What the table does not hold, one line each.
    pub fn notes(&self) -> String {
        let share = |value: Option<f64>| value.map_or_else(|| "none".into(), |value| format!("{value:.3}"));
        let mut text = format!(
            "- Detail of the maps (edge content ÷ that of the true maps): {}\n\
             - Diversity of maps (mean RMSE between samples of one photograph): {}\n",
            share(self.map_detail),
            share(self.map_diversity)
        );
        if let Some(photographs) = &self.to_satellite {
            text += &format!(
                "- Detail of the photographs (edge content ÷ that of the real ones): {}\n\
                 - Diversity of photographs (mean RMSE between samples of one map): {}\n\
                 - Generated against real photograph, as a footnote, since many photographs fit one map: PSNR {:.2} dB, \
                 SSIM {:.3}\n",
                share(photographs.detail),
                share(photographs.diversity),
                photographs.psnr.mean,
                photographs.ssim.mean
            );
        }
        text + &format!("- {:.2} s per satellite → map translation\n", self.seconds_per_translation)
    }
}

impl Evaluated {
    /// Writes `evaluation.json`, `table.md`, `pictures.csv` and the sheets into a folder. The sheets show the pairs
    /// themselves: whoever may not pass on the pairs may not pass on the sheets.
    ///
    /// # Errors
    /// When a file exists and `overwrite` is off, or cannot be written.
    pub fn write(&self, folder: &Path, overwrite: bool) -> Result<(), EvaluateError> {
        std::fs::create_dir_all(folder).map_err(|cause| WriteError::Io { path: folder.into(), cause })?;
        let write = |name: &str, text: String| atomic_write(&folder.join(name), text.as_bytes(), overwrite);
        write("evaluation.json", serde_json::to_string_pretty(&self.evaluation).expect("plain data") + "\n")?;
        write("table.md", format!("{}\n{}", self.evaluation.table(), self.evaluation.notes()))?;
        write("pictures.csv", self.pictures.clone())?;
        let options = WriteOptions {
            overwrite,
            provenance: Some(Provenance::new(self.evaluation.model.clone(), "evaluation")),
            ..Default::default()
        };
        write_picture(folder.join("satellite-to-map.png"), &self.to_map_sheet, &options)?;
        if let Some(sheet) = &self.to_satellite_sheet {
            write_picture(folder.join("map-to-satellite.png"), sheet, &options)?;
        }
        Ok(())
    }
}

/// A model on the bench, and how it is measured.
struct Bench<'a> {
    model: &'a EarthMapper,
    options: &'a EvaluateOptions,
    side: u32,
}

/// Some pairs, read and encoded once for everything that is done with them.
struct Batch {
    indices: std::ops::Range<usize>,
    photographs: Vec<Picture>,
    maps: Vec<Picture>,
    encoded_photographs: Encoding,
    encoded_maps: Encoding,
    /// Time that encoding the photographs took.
    encoding_seconds: f64,
}

/// Pictures that were generated.
struct Made {
    pictures: Vec<Picture>,
    uncertainty: Vec<Vec<f32>>,
    seconds: f64,
}

/// Photographs generated from maps, and the maps made back from them.
struct ThereAndBack {
    photographs: Vec<Picture>,
    maps: Vec<Picture>,
    seconds: f64,
}

impl Batch {
    /// One seed per picture, different for each `purpose`.
    fn seeds(&self, options: &EvaluateOptions, purpose: u64) -> Vec<u64> {
        self.indices.clone().map(|index| derive_seed(options.seed, &[purpose, index as u64])).collect()
    }
}

impl<'a> Bench<'a> {
    fn new(model: &'a EarthMapper, options: &'a EvaluateOptions) -> Result<Self, EvaluateError> {
        let modalities = model.transformer.modalities();
        let fits = modalities.len() == 2
            && [Modality::Satellite, Modality::Map].iter().all(|m| modalities.contains(m));
        if !fits {
            let known: Vec<String> = modalities.iter().map(ToString::to_string).collect();
            return Err(EvaluateError::Modalities {
                model: model.config.name.clone(),
                known: known.join(", "),
            });
        }
        Ok(Self { model, options, side: model.tokenizer_config.picture_side as u32 })
    }

    fn read(&self, pairs: &PairFolder, indices: std::ops::Range<usize>) -> Result<Batch, EvaluateError> {
        let (mut photographs, mut maps) = (Vec::new(), Vec::new());
        for index in indices.clone() {
            let pair = read_square(pairs, index, self.side)?;
            photographs.push(pair.satellite);
            maps.push(pair.map);
        }
        let began = Instant::now();
        let encoded_photographs = self.encode(&photographs);
        let encoding_seconds = began.elapsed().as_secs_f64();
        let encoded_maps = self.encode(&maps);
        Ok(Batch { indices, photographs, maps, encoded_photographs, encoded_maps, encoding_seconds })
    }

    fn encode(&self, pictures: &[Picture]) -> Encoding {
        self.model.encode(to_tensor(pictures, &self.model.device()))
    }

    /// Translates a batch of tokens toward `target`.
    fn make(
        &self,
        encoded: &Encoding,
        target: Modality,
        generation: &GenerationOptions,
        seeds: &[u64],
    ) -> Result<Made, EvaluateError> {
        let began = Instant::now();
        let condition =
            |i| Condition::translation(self.model, encoded.picture(i), target, self.options.place);
        let conditions: Vec<Condition> = (0..encoded.batch()).map(condition).collect();
        let mut made = Translator::new(self.model).run(&conditions, seeds, generation, &mut |_| {})?;
        let Generated { reconstruction, uncertainty, .. } = made.remove(0);
        let pictures = from_tensor(self.model.decode_features(reconstruction));
        Ok(Made { pictures, uncertainty, seconds: began.elapsed().as_secs_f64() })
    }

    /// Map → photograph → map. The way back uses the same seeds as the real photographs' translation, so that the two
    /// differ in the photograph only.
    fn there_and_back(
        &self,
        batch: &Batch,
        generation: &GenerationDefaults,
    ) -> Result<ThereAndBack, EvaluateError> {
        let seeds = batch.seeds(self.options, 1);
        let there = self.make(&batch.encoded_maps, Modality::Satellite, &generation.to_satellite, &seeds)?;
        let encoded = self.encode(&there.pictures);
        let back = self.make(&encoded, Modality::Map, &generation.to_map, &batch.seeds(self.options, 0))?;
        Ok(ThereAndBack { photographs: there.pictures, maps: back.pictures, seconds: there.seconds })
    }

    /// Mean pairwise RMSE of three samples of picture `index`.
    fn diversity(&self, encoded: &Encoding, target: Modality, index: usize) -> Result<f64, EvaluateError> {
        let copies = Encoding::stack(&[encoded, encoded, encoded]);
        let seeds = [2, 3, 4].map(|purpose| derive_seed(self.options.seed, &[purpose, index as u64]));
        let made = self.make(&copies, target, self.options.generation.towards(target), &seeds)?;
        Ok(mean_pairwise_difference(&made.pictures)?)
    }
}

/// What is gathered picture by picture.
struct Tally<'a> {
    options: &'a EvaluateOptions,
    blank: MapScores,
    ceiling: MapScores,
    to_map: MapScores,
    cycle: MapScores,
    map_detail: Detail,
    photograph_detail: Detail,
    psnr: Vec<f64>,
    ssim: Vec<f64>,
    map_diversity: Vec<f64>,
    diversity: Vec<f64>,
    seconds: f64,
    map_rows: Vec<Vec<Picture>>,
    photograph_rows: Vec<Vec<Picture>>,
    lines: String,
}

impl<'a> Tally<'a> {
    fn new(options: &'a EvaluateOptions) -> Self {
        let scores = || MapScores::new(options.palette.clone());
        let classes: Vec<String> =
            options.palette.classes().iter().map(|class| quoted(&format!("iou {}", class.name))).collect();
        let lines = format!(
            "pair,psnr,ssim,rmse,{},road f1,blank psnr,ceiling psnr,ceiling road f1,cycle accuracy,cycle road f1\n",
            classes.join(",")
        );
        Self {
            options,
            blank: scores(),
            ceiling: scores(),
            to_map: scores(),
            cycle: scores(),
            map_detail: Detail::default(),
            photograph_detail: Detail::default(),
            psnr: Vec::new(),
            ssim: Vec::new(),
            map_diversity: Vec::new(),
            diversity: Vec::new(),
            seconds: 0.0,
            map_rows: Vec::new(),
            photograph_rows: Vec::new(),
            lines,
        }
    }

    /// Measures picture `i` of a batch.
    fn add(
        &mut self,
        batch: &Batch,
        i: usize,
        made: &Made,
        ceiling: &Picture,
        photographs: Option<&ThereAndBack>,
        name: &str,
    ) -> Result<(), EvaluateError> {
        let truth = &batch.maps[i];
        let blank = self.blank.add(&blank_map(truth.width(), truth.height(), self.options.blank), truth)?;
        let ceiling = self.ceiling.add(ceiling, truth)?;
        let own = self.to_map.add(&made.pictures[i], truth)?;
        self.map_detail.add(&made.pictures[i], truth);
        let mut cycle = None;
        if let Some(there) = photographs {
            let (photograph, real) = (&there.photographs[i], &batch.photographs[i]);
            self.photograph_detail.add(photograph, real);
            self.psnr.push(peak_signal_to_noise_ratio(photograph, real)?);
            self.ssim.push(structural_similarity(photograph, real)?);
            cycle = Some(self.cycle.add(&there.maps[i], truth)?);
        }
        let number = |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:.4}"));
        let mut cells = vec![quoted(name)];
        cells.extend([own.psnr, own.ssim, own.rmse].map(|value| number(Some(value))));
        let classes = 0..self.options.palette.classes().len();
        cells.extend(classes.map(|class| number(own.confusion.intersection_over_union(class))));
        let road = |scores: &PictureScores| number(scores.roads.f1());
        cells.extend([road(&own), number(Some(blank.psnr)), number(Some(ceiling.psnr)), road(&ceiling)]);
        cells.push(number(cycle.as_ref().and_then(|scores| scores.confusion.accuracy())));
        cells.push(cycle.as_ref().map_or_else(String::new, road));
        self.lines += &(cells.join(",") + "\n");
        Ok(())
    }

    /// Adds picture `i` of a batch to the contact sheets.
    fn show(
        &mut self,
        batch: &Batch,
        i: usize,
        made: &Made,
        ceiling: &Picture,
        photographs: Option<&ThereAndBack>,
    ) {
        let side = self.options.tile_side.max(1);
        let tile = |picture: &Picture| match picture.width() == side {
            true => picture.clone(),
            false => picture.resized(side, side),
        };
        let (photograph, map) = (tile(&batch.photographs[i]), tile(&batch.maps[i]));
        if let Some(there) = photographs {
            let row =
                vec![map.clone(), tile(&there.photographs[i]), photograph.clone(), tile(&there.maps[i])];
            self.photograph_rows.push(row);
        }
        let uncertainty = grey(&made.uncertainty[i], side);
        self.map_rows.push(vec![photograph, map, tile(&made.pictures[i]), tile(ceiling), uncertainty]);
    }

    fn finish(self, model: &EarthMapper, pairs: &PairFolder) -> Result<Evaluated, EvaluateError> {
        let mean =
            |values: &[f64]| (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64);
        let to_satellite = match self.options.directions {
            Directions::Both => Some(PhotographSummary {
                cycle: self.cycle.summary()?,
                detail: self.photograph_detail.ratio(),
                diversity: mean(&self.diversity),
                psnr: Mean::of(&self.psnr),
                ssim: Mean::of(&self.ssim),
            }),
            Directions::ToMap => None,
        };
        Ok(Evaluated {
            evaluation: Evaluation {
                model: model.config.name.clone(),
                pairs: pairs.len(),
                names: [pairs.name(0).to_owned(), pairs.name(pairs.len() - 1).to_owned()],
                seed: self.options.seed,
                generation: self.options.generation.clone(),
                blank: self.blank.summary()?,
                ceiling: self.ceiling.summary()?,
                to_map: self.to_map.summary()?,
                map_detail: self.map_detail.ratio(),
                to_satellite,
                map_diversity: mean(&self.map_diversity),
                seconds_per_translation: self.seconds / pairs.len() as f64,
            },
            to_map_sheet: contact_sheet(&self.map_rows, 4),
            to_satellite_sheet: (!self.photograph_rows.is_empty())
                .then(|| contact_sheet(&self.photograph_rows, 4)),
            pictures: self.lines,
        })
    }
}

/// Edge content of predictions beside that of the truth: the sums of absolute differences between neighbours. It tells
/// a blurred picture, which pixel scores like, from a sharp one.
#[derive(Clone, Copy, Debug, Default)]
struct Detail {
    prediction: f64,
    truth: f64,
}

impl Detail {
    fn add(&mut self, prediction: &Picture, truth: &Picture) {
        self.prediction += edges(prediction);
        self.truth += edges(truth);
    }

    /// The ratio; none when the truth has no edge.
    fn ratio(&self) -> Option<f64> {
        (self.truth > 0.0).then(|| self.prediction / self.truth)
    }
}

fn edges(picture: &Picture) -> f64 {
    let row = 3 * picture.width() as usize;
    let samples = picture.rgb();
    let differences = |earlier: &[u8], later: &[u8]| -> u64 {
        earlier.iter().zip(later).map(|(&a, &b)| u64::from(a.abs_diff(b))).sum()
    };
    let across: u64 = samples.chunks(row).map(|row| differences(row, &row[3..])).sum();
    (across + differences(samples, &samples[row..])) as f64
}

/// Token uncertainties as a grey picture, white = undecided.
fn grey(uncertainty: &[f32], side: u32) -> Picture {
    let tokens = uncertainty.len().isqrt() as u32;
    let at = |x: u32| (u64::from(x) * u64::from(tokens) / u64::from(side)) as u32;
    Picture::drawn(side, side, |x, y| {
        [(255.0 * uncertainty[(at(y) * tokens + at(x)) as usize]).round() as u8; 3]
    })
}

/// A cell of a comma-separated line.
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.into()
    }
}
