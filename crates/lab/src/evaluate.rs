//! Measuring a model on pairs it has not seen, beside baselines that keep the numbers honest.
//!
//! Satellite → map: pixel scores, class overlap and roads against the true map, beside a blank map and beside the
//! tokenizer's own reconstruction of the true map, which no prediction can be expected to beat. Map → satellite: the
//! generated photograph is translated back and its map compared with the map it came from, beside what the real
//! photograph's translation scores.

use std::path::Path;
use std::time::Instant;

use earthmapper::pictures::{from_tensor, to_tensor};
use earthmapper::sampler::derive_seed;
use earthmapper::tokenizer::TokenPyramid;
use earthmapper::translator::{Condition, Generated, GenerationError, GenerationOptions, Translator};
use earthmapper::{EarthMapper, Modality, Place};
use earthmapper_geo::files::WriteError;
use earthmapper_geo::pairs::{PairError, PairFolder};
use earthmapper_geo::picture::{Picture, PictureError, WriteOptions, write_picture};
use earthmapper_geo::provenance::Provenance;
use serde::{Deserialize, Serialize};

use crate::data::{contact_sheet, read_square};
use crate::metrics::{
    MapScores, MapSummary, MetricsError, Palette, blank_map, comparison_table, mean_pairwise_difference,
};
use crate::progress::{Interrupt, Progress, ProgressMode};

/// How a model is evaluated.
#[derive(Clone, Debug)]
pub struct EvaluateOptions {
    /// Options for satellite → map.
    pub to_map: GenerationOptions,
    /// Options for map → satellite.
    pub to_satellite: GenerationOptions,
    /// Seed; picture i uses a seed derived from it and i.
    pub seed: u64,
    /// Pictures at once.
    pub batch_size: usize,
    /// Place of all pictures, when known.
    pub place: Option<Place>,
    /// Classes of the maps.
    pub palette: Palette,
    /// Colour of the blank map: the median colour of the training maps.
    pub blank: [u8; 3],
    /// Whether map → satellite is measured too.
    pub both_directions: bool,
    /// Pictures of which three samples are drawn to measure diversity.
    pub diversity_pictures: usize,
    /// Rows of a contact sheet.
    pub sheet_rows: usize,
}

impl EvaluateOptions {
    /// The model's own options, the New York palette and both directions.
    pub fn new(model: &EarthMapper) -> Self {
        Self {
            to_map: model.generation.to_map.clone(),
            to_satellite: model.generation.to_satellite.clone(),
            seed: 0,
            batch_size: 8,
            place: None,
            palette: Palette::new_york(),
            blank: [232, 228, 224],
            both_directions: true,
            diversity_pictures: 8,
            sheet_rows: 8,
        }
    }
}

/// What came out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Evaluation {
    /// Name of the model.
    pub model: String,
    /// Pairs measured.
    pub pairs: usize,
    /// The blank map against the truth.
    pub blank: MapSummary,
    /// The tokenizer's reconstruction of the true map against the truth: the ceiling.
    pub ceiling: MapSummary,
    /// The model's map against the truth.
    pub to_map: MapSummary,
    /// The map made back from the generated photograph, against the map that it was generated from.
    pub cycle: Option<MapSummary>,
    /// Mean RMSE between samples of one photograph's map, in [0, 1].
    pub diversity_map: Option<f64>,
    /// Mean RMSE between samples of one map's photograph, in [0, 1].
    pub diversity_satellite: Option<f64>,
    /// Seconds per satellite → map translation, encoding and decoding included.
    pub seconds_per_translation: f64,
}

/// An evaluation with its pictures.
#[derive(Clone, Debug)]
pub struct Evaluated {
    /// The numbers.
    pub evaluation: Evaluation,
    /// Photograph, true map, made map, ceiling, uncertainty.
    pub to_map_sheet: Picture,
    /// Map, made photograph, true photograph, map made back.
    pub to_satellite_sheet: Option<Picture>,
    /// One line per pair.
    pub table: String,
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
    /// A score cannot be computed.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// A sheet cannot be written.
    #[error(transparent)]
    Picture(#[from] PictureError),
    /// A table cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// It was asked to stop; nothing is kept.
    #[error("interrupted after {done} of {of} pairs; nothing was written")]
    Interrupted {
        /// Pairs done.
        done: usize,
        /// Pairs wanted.
        of: usize,
    },
}

/// Measures a model on pairs.
///
/// # Errors
/// See [`EvaluateError`].
pub fn evaluate(
    model: &EarthMapper,
    pairs: &PairFolder,
    options: &EvaluateOptions,
    progress: ProgressMode,
    interrupt: &Interrupt,
) -> Result<Evaluated, EvaluateError> {
    let side = model.tokenizer_config.picture_side as u32;
    let device = model.device();
    let scores = || MapScores::new(options.palette.clone());
    let (mut blank, mut ceiling, mut to_map, mut cycle) = (scores(), scores(), scores(), scores());
    let (mut map_rows, mut satellite_rows) = (Vec::new(), Vec::new());
    let mut table = String::from("pair,psnr,ssim,rmse,cycle_road_f1\n");
    let (mut seconds, mut differences) = (0.0, [Vec::new(), Vec::new()]);
    let mut bar = Progress::start(progress, "pairs", 0, pairs.len() as u64);
    let every = (pairs.len() / options.sheet_rows.max(1)).max(1);
    for start in (0..pairs.len()).step_by(options.batch_size) {
        if interrupt.requested() {
            return Err(EvaluateError::Interrupted { done: start, of: pairs.len() });
        }
        let indices: Vec<usize> = (start..(start + options.batch_size).min(pairs.len())).collect();
        let read: Vec<_> =
            indices.iter().map(|&index| read_square(pairs, index, side)).collect::<Result<_, _>>()?;
        let photographs: Vec<Picture> = read.iter().map(|pair| pair.satellite.clone()).collect();
        let maps: Vec<Picture> = read.iter().map(|pair| pair.map.clone()).collect();
        let seeds: Vec<u64> =
            indices.iter().map(|&index| derive_seed(options.seed, &[index as u64])).collect();

        let began = Instant::now();
        let photograph_tokens = model.tokenizer.encode(to_tensor(&photographs, &device));
        let made = run(model, &photograph_tokens, Modality::Map, options, &seeds)?;
        let made_maps = from_tensor(model.tokenizer.decode_features(made.reconstruction.clone()));
        seconds += began.elapsed().as_secs_f64();

        let map_tokens = model.tokenizer.encode(to_tensor(&maps, &device));
        let reconstructed = from_tensor(model.tokenizer.decode(&map_tokens));
        let back = match options.both_directions {
            true => {
                let photographs = run(model, &map_tokens, Modality::Satellite, options, &seeds)?;
                let photographs = from_tensor(model.tokenizer.decode_features(photographs.reconstruction));
                let tokens = model.tokenizer.encode(to_tensor(&photographs, &device));
                let maps = run(model, &tokens, Modality::Map, options, &seeds)?;
                Some((photographs, from_tensor(model.tokenizer.decode_features(maps.reconstruction))))
            }
            false => None,
        };
        for (i, &index) in indices.iter().enumerate() {
            blank.add(&blank_map(side, side, options.blank), &maps[i])?;
            ceiling.add(&reconstructed[i], &maps[i])?;
            let own = to_map.add(&made_maps[i], &maps[i])?;
            let mut road = String::new();
            if let Some((_, back)) = &back {
                let scores = cycle.add(&back[i], &maps[i])?;
                road = scores.roads.f1().map_or(String::new(), |f1| format!("{f1:.4}"));
            }
            table.push_str(&format!(
                "{},{:.3},{:.4},{:.4},{road}\n",
                pairs.name(index),
                own.psnr,
                own.ssim,
                own.rmse
            ));
            if index % every == 0 && map_rows.len() < options.sheet_rows {
                let uncertainty = grey(&made.uncertainty[i], side);
                map_rows.push(vec![
                    photographs[i].clone(),
                    maps[i].clone(),
                    made_maps[i].clone(),
                    reconstructed[i].clone(),
                    uncertainty,
                ]);
                if let Some((made, back)) = &back {
                    satellite_rows.push(vec![
                        maps[i].clone(),
                        made[i].clone(),
                        photographs[i].clone(),
                        back[i].clone(),
                    ]);
                }
            }
            if index < options.diversity_pictures {
                differences[0].push(diversity(model, &photograph_tokens.picture(i), Modality::Map, options)?);
                if options.both_directions {
                    differences[1].push(diversity(
                        model,
                        &map_tokens.picture(i),
                        Modality::Satellite,
                        options,
                    )?);
                }
            }
        }
        bar.update((start + indices.len()) as u64, indices.len() as u64, None);
    }
    bar.finish();
    let mean =
        |values: &[f64]| (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64);
    Ok(Evaluated {
        evaluation: Evaluation {
            model: model.config.name.clone(),
            pairs: pairs.len(),
            blank: blank.summary()?,
            ceiling: ceiling.summary()?,
            to_map: to_map.summary()?,
            cycle: if options.both_directions { Some(cycle.summary()?) } else { None },
            diversity_map: mean(&differences[0]),
            diversity_satellite: mean(&differences[1]),
            seconds_per_translation: seconds / pairs.len() as f64,
        },
        to_map_sheet: contact_sheet(&map_rows, 4),
        to_satellite_sheet: (!satellite_rows.is_empty()).then(|| contact_sheet(&satellite_rows, 4)),
        table,
    })
}

impl Evaluation {
    /// The table of the model card.
    pub fn table(&self) -> String {
        let mut columns = vec![("blank map", &self.blank), ("satellite → map", &self.to_map)];
        columns.push(("ceiling (tokenizer)", &self.ceiling));
        if let Some(cycle) = &self.cycle {
            columns.push(("map → satellite → map", cycle));
        }
        comparison_table(&columns)
    }
}

impl Evaluated {
    /// Writes `evaluation.json`, `table.md`, `pictures.csv` and the sheets into a folder.
    ///
    /// # Errors
    /// When a file exists and `overwrite` is off, or cannot be written.
    pub fn write(&self, folder: &Path, overwrite: bool) -> Result<(), EvaluateError> {
        std::fs::create_dir_all(folder).map_err(|cause| WriteError::Io { path: folder.into(), cause })?;
        let write = |name: &str, text: String| {
            earthmapper_geo::files::atomic_write(&folder.join(name), text.as_bytes(), overwrite)
        };
        write("evaluation.json", serde_json::to_string_pretty(&self.evaluation).expect("plain data") + "\n")?;
        write("table.md", self.evaluation.table())?;
        write("pictures.csv", self.table.clone())?;
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

/// Translates tokens of a batch toward `target`.
fn run(
    model: &EarthMapper,
    tokens: &TokenPyramid,
    target: Modality,
    options: &EvaluateOptions,
    seeds: &[u64],
) -> Result<Generated, GenerationError> {
    let conditions: Vec<Condition> = (0..tokens.batch())
        .map(|i| Condition::translation(model, tokens.picture(i), target, options.place))
        .collect();
    let generation = if target == Modality::Map { &options.to_map } else { &options.to_satellite };
    let mut made = Translator::new(model).run(&conditions, seeds, generation, &mut |_| {})?;
    Ok(made.remove(0))
}

/// Mean pairwise RMSE of three samples.
fn diversity(
    model: &EarthMapper,
    tokens: &TokenPyramid,
    target: Modality,
    options: &EvaluateOptions,
) -> Result<f64, EvaluateError> {
    let copies = TokenPyramid::stack(&[tokens, tokens, tokens]);
    let made = run(model, &copies, target, options, &[1, 2, 3].map(|s| derive_seed(options.seed, &[s, 7])))?;
    let pictures = from_tensor(model.tokenizer.decode_features(made.reconstruction));
    Ok(mean_pairwise_difference(&pictures)?)
}

/// Token uncertainties as a grey picture, white = undecided.
fn grey(uncertainty: &[f32], side: u32) -> Picture {
    let tokens = (uncertainty.len() as f64).sqrt() as u32;
    let cell = side / tokens;
    Picture::drawn(side, side, |x, y| {
        let (x, y) = ((x / cell).min(tokens - 1), (y / cell).min(tokens - 1));
        [(255.0 * uncertainty[(y * tokens + x) as usize]) as u8; 3]
    })
}
