//! The model card: README.md of a model folder, out of the model, its evaluation and the runs that trained it.

use std::path::Path;

use earthmapper::config::Forcing;
use earthmapper::weights::{HostTensors, collect};
use earthmapper::{EarthMapper, Modality};
use earthmapper_geo::pairs::PairSelection;
use serde::{Deserialize, Serialize};

use super::{Candidate, Evaluation};
use crate::export::run_config;
use crate::metrics::ROAD_TOLERANCE;
use crate::run::{Checkpoint, Environment, RunError};
use crate::session::{TrainError, checkpoint_error};
use crate::train::TransformerTraining;
use crate::train_tokenizer::TokenizerTraining;

/// What there is to say about the New York pairs of the pix2pix "maps" benchmark.
pub const NEW_YORK_DATA: &str = "\
The pairs are those of the pix2pix \"maps\" benchmark (Isola et al., 2017): satellite photographs and map \
tiles of the New York area, taken from Google Maps, 600 × 600 pixels each.

**Licence: research only.** The imagery belongs to Google and its suppliers. The benchmark hands it out \
for research; it is not open data, and it is not redistributed with this model: no picture of it is in \
this folder. Weights learn from pictures, so these weights are for research too, whatever the licence of \
the program. For anything else, train on pictures whose licence allows it.

**Ground resolution: not stated by the benchmark, but measurable.** In pairs 1001 and 1008 Manhattan's street \
grid, about 80 m from street to street, repeats every 91 pixels: 0.88 m per pixel. Of web map zoom levels only \
17 fits (1.194 m · cos 40.75° = 0.905 m; 16 and 18 are twice and half that). The 600 pixels of a pair then cover \
543 m, and shown at 256 pixels the model sees about 2.1 m per pixel. The places of the pairs and the dates of the \
photographs are unknown.";

/// What is known about the pictures that a model was trained on, from its configuration; a model of other pictures needs
/// a text of its own.
pub fn describe_data(model: &EarthMapper) -> &'static str {
    match model.config.trained_on.map_style.contains("pix2pix") {
        true => NEW_YORK_DATA,
        false => {
            "Not described. Say here what the pictures are, whose they are and what may be done with weights that \
             learned from them."
        }
    }
}

/// How a selection of everything is written.
const ALL_PAIRS: &str = "all";

/// Facts about a model that neither its weights nor its evaluation hold.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CardFacts {
    /// What the pictures are, whose they are and what may be done with them, in Markdown.
    pub data: String,
    /// The trainings, in the order they were done.
    pub trainings: Vec<TrainingFacts>,
}

/// Facts about one training.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingFacts {
    /// What was trained.
    pub what: String,
    /// Pairs learned from, such as `1..1000`.
    pub training_pairs: String,
    /// Pairs that chose the checkpoint.
    pub validation_pairs: String,
    /// Step of the checkpoint that the weights are of.
    pub step: u64,
    /// Steps done in all.
    pub steps: u64,
    /// Wall-clock hours in all.
    pub hours: f64,
    /// Hardware, one entry per kind that the run was started on.
    pub hardware: Vec<String>,
    /// Version of the program at the last start.
    pub version: String,
    /// What else matters, in a few words each.
    pub notes: Vec<String>,
}

impl CardFacts {
    /// What the run folder of a transformer says, and that of its tokenizer where the configuration names one.
    ///
    /// # Errors
    /// When a folder is no run or something in it is damaged.
    pub fn of_run(folder: &Path, data: impl Into<String>) -> Result<Self, TrainError> {
        let config: TransformerTraining = run_config(folder)?;
        let mut trainings = Vec::new();
        if config.tokenizer.join("config.toml").is_file() {
            let tokenizer: TokenizerTraining = run_config(&config.tokenizer)?;
            let on = |name: &str, on: bool| format!("{name} loss {}", if on { "on" } else { "off" });
            let losses = &tokenizer.losses;
            let notes = vec![
                on("perceptual", losses.perceptual.is_some()),
                on("adversarial", losses.adversarial.is_some()),
            ];
            let pairs = [&tokenizer.training, &tokenizer.validation];
            trainings.push(TrainingFacts::of_run("tokenizer", &config.tokenizer, pairs, notes)?);
        }
        let infusion = match &config.semantic_infusion {
            Some(infusion) => format!("semantic infusion on, σ = {}", infusion.sigma),
            None => "semantic infusion off".into(),
        };
        let place = format!("places {}", if config.trained_on.places_known { "known" } else { "unknown" });
        let mut notes = vec![infusion, place];
        if config.from.is_some() {
            notes.push(
                "started from the weights of an earlier model, whose own training is not counted here".into(),
            );
        }
        let pairs = [&config.training, &config.validation];
        trainings.push(TrainingFacts::of_run("transformer", folder, pairs, notes)?);
        Ok(Self { data: data.into(), trainings })
    }
}

impl TrainingFacts {
    fn of_run(
        what: &str,
        folder: &Path,
        [training, validation]: [&PairSelection; 2],
        notes: Vec<String>,
    ) -> Result<Self, TrainError> {
        let newest = Checkpoint::newest(folder)?;
        let path = folder.join("env.json");
        let text = std::fs::read_to_string(&path).map_err(RunError::io(&path))?;
        let starts: Vec<Environment> =
            serde_json::from_str(&text).map_err(|error| checkpoint_error(&path)(error.to_string()))?;
        let mut hardware: Vec<String> = Vec::new();
        for start in &starts {
            let kind = format!(
                "device {} on {}, {} threads, {}",
                start.device, start.host_cpu, start.threads, start.system
            );
            if !hardware.contains(&kind) {
                hardware.push(kind);
            }
        }
        Ok(Self {
            what: what.into(),
            training_pairs: selection(training),
            validation_pairs: selection(validation),
            step: Checkpoint::best(folder)?.step,
            steps: newest.step,
            hours: newest.seconds / 3600.0,
            hardware,
            version: starts.last().map_or_else(String::new, |start| start.version.clone()),
            notes,
        })
    }

    fn says(&self) -> String {
        format!(
            "- **{}**: {} steps in {:.2} hours ({}); the weights are those of step {}. Learned from pairs \
             {}, the checkpoint chosen on pairs {}. Program version {}; {}.\n",
            self.what,
            self.steps,
            self.hours,
            self.hardware.join("; then "),
            self.step,
            self.training_pairs,
            self.validation_pairs,
            self.version,
            self.notes.join(", ")
        )
    }
}

fn selection(selection: &PairSelection) -> String {
    match (selection.first, selection.last) {
        (None, None) => ALL_PAIRS.into(),
        _ => selection.to_string(),
    }
}

/// The README.md of a model folder.
pub fn model_card(model: &EarthMapper, evaluation: &Evaluation, facts: &CardFacts) -> String {
    [
        what_it_is(model),
        format!("## Data and licence\n\n{}\n", facts.data.trim()),
        limits(model),
        training(facts),
        measured(evaluation, facts),
        pixel_scores(evaluation),
        reproduce(model, evaluation),
        SYNTHETIC.into(),
    ]
    .join("\n")
}

fn what_it_is(model: &EarthMapper) -> String {
    let name = &model.config.name;
    let count =
        |tensors: HostTensors| tensors.values().map(|tensor| tensor.values.len()).sum::<usize>() as f64 / 1e6;
    let (transformer, tokenizer) = (&model.config.transformer, &model.tokenizer_config);
    let forcing = match transformer.forcing {
        Forcing::Sequence => "sequence",
        Forcing::Aligned => "aligned",
    };
    format!(
        "# {name}\n\n\
         Translates satellite photographs into maps and maps into satellite photographs, fills holes and \
         invents pairs. One autoregressive transformer over the tokens of both pictures, scale by scale; a \
         clean-room implementation of EarthMapper (arXiv 2504.19432) in Rust.\n\n\
         | | |\n|---|---|\n\
         | transformer | {} blocks of width {}, {:.2} M parameters; a known picture enters by {} forcing |\n\
         | tokenizer | scales {:?}, {} codes of width {}, depth {}, {:.2} M parameters |\n\
         | pictures | {side} × {side} pixels; larger ones by overlapping windows |\n\
         | region | {} |\n| map style | {} |\n\n\
         ```\nearthmapper translate photograph.png map.png --to map\n\
         earthmapper translate map.png photograph.png --to satellite\n```\n",
        transformer.depth,
        transformer.width(),
        count(collect(&model.transformer)),
        forcing,
        tokenizer.sides,
        tokenizer.vocabulary,
        tokenizer.latent_width,
        tokenizer.quantizer_depth,
        count(collect(&model.tokenizer)),
        or_unknown(&model.config.trained_on.region),
        or_unknown(&model.config.trained_on.map_style),
        side = tokenizer.picture_side,
    )
}

fn limits(model: &EarthMapper) -> String {
    let trained = &model.config.trained_on;
    let scale = match trained.metres_per_pixel {
        Some(metres) => format!(
            "It was trained at {metres} m per pixel. Resample other pictures to that first (`--scale`), or \
             roads become too wide or too narrow for it."
        ),
        None => "The ground size of its pixels is not known for certain (see above). A picture at a \
        clearly different scale must be resampled first (`--scale`)."
            .into(),
    };
    let places = match trained.places_known {
        true => "It knows the places of its training pictures; elsewhere a place means little to it.",
        false => {
            "It has seen no place, so the program does not tell it one: `--lat` and `--lon` change nothing."
        }
    };
    format!(
        "## Intended use and limits\n\n\
         For research on image translation, for trying the program, and as a start for training on pictures of one's own.\n\n\
         - It knows one look only: {}, {}. Other cities, climates, seasons and map styles are outside what it has learned.\n\
         - {scale}\n\
         - {places}\n\
         - It writes no readable labels and has no notion of them.\n\
         - A map that it makes is a guess from one photograph: never navigate by it, and never put it into \
         a map that people rely on without checking. A photograph that it makes shows no real ground.\n",
        or_unknown(&trained.region),
        or_unknown(&trained.map_style),
    )
}

fn training(facts: &CardFacts) -> String {
    let lines: String = facts.trainings.iter().map(TrainingFacts::says).collect();
    let hours: f64 = facts.trainings.iter().map(|training| training.hours).sum();
    format!("## Training\n\n{lines}\n{hours:.2} hours in all, by the clock on the wall.\n")
}

fn measured(evaluation: &Evaluation, facts: &CardFacts) -> String {
    let [first, last] = &evaluation.names;
    let touched = |pairs: fn(&TrainingFacts) -> &str| -> Option<bool> {
        let touched: Option<Vec<bool>> =
            facts.trainings.iter().map(|training| touches(&evaluation.names, pairs(training))).collect();
        touched.filter(|touched| !touched.is_empty()).map(|touched| touched.contains(&true))
    };
    let trained_on = match touched(|training| &training.training_pairs) {
        Some(false) => " that were not trained on",
        Some(true) => ", **some of which were trained on, which makes the numbers too good**",
        None => "; whether they were trained on is not known",
    };
    let chosen_on = match touched(|training| &training.validation_pairs) {
        Some(true) => " The checkpoint was chosen on them, which flatters the numbers a little.",
        _ => "",
    };
    format!(
        "## Measured\n\n\
         On {} pairs ({first} to {last}){trained_on}, seed {}.{chosen_on} Intervals are 95 % bootstrap \
         intervals over the pairs. If they come out of the same collection as the training pairs, some may \
         show ground next to theirs.\n\n{}\n{}\n\
         How to read it: *blank map* is the training maps' median colour everywhere. *Tokenizer* is the \
         true map encoded and decoded, which no prediction can be expected to beat. *Map → satellite → \
         map* is the cycle check: a photograph is made from the true map and translated back; compare it \
         with *satellite → map*, which reads the real photograph.\n",
        evaluation.pairs,
        evaluation.subject.settings().1,
        evaluation.table(),
        evaluation.notes(),
    )
}

/// Whether a range of numbered pairs may hold one of those from the first to the last name; none when that cannot be
/// told from the names.
fn touches([first, last]: &[String; 2], range: &str) -> Option<bool> {
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    if range == ALL_PAIRS {
        return Some(true);
    }
    let range: PairSelection = range.parse().ok()?;
    Some(range.first.is_none_or(|start| start <= last) && range.last.is_none_or(|end| end >= first))
}

fn pixel_scores(evaluation: &Evaluation) -> String {
    let number = |candidate, metric: &str, digits: usize| {
        let number = evaluation.number(Modality::Map, candidate, metric);
        number.map_or_else(|| "none".to_owned(), |number| format!("{number:.digits$}"))
    };
    let road = format!("road F1, {ROAD_TOLERANCE} px");
    let of = |candidate| {
        (number(candidate, "PSNR (dB)", 1), number(candidate, "SSIM", 2), number(candidate, &road, 2))
    };
    let (blank, own) = (of(Candidate::Blank), of(Candidate::Model));
    format!(
        "## Why pixel scores prove little here\n\n\
         Most of a map is one pale colour. A blank map, which shows nothing at all, reaches PSNR {} dB \
         and SSIM {} here; this model reaches {} dB and {}. The road F1 tells them apart: {} for \
         the blank map, {} for this model. Judge by the class overlaps and the roads, and by looking.\n",
        blank.0, blank.1, own.0, own.1, blank.2, own.2,
    )
}

fn reproduce(model: &EarthMapper, evaluation: &Evaluation) -> String {
    let name = &model.config.name;
    let [first, last] = &evaluation.names;
    let numbered = |name: &String| name.parse::<u64>().is_ok();
    let pairs = match numbered(first) && numbered(last) {
        true => format!(" --pairs {first}..{last}"),
        false => String::new(),
    };
    let (generation, seed) = evaluation.subject.settings();
    let options = serde_json::to_string_pretty(&generation).expect("plain data");
    format!(
        "## Reproduce\n\n```\n\
         earthmapper train tokenizer -c configs/{name}/tokenizer.toml --run runs/{name}-tokenizer\n\
         earthmapper train transformer -c configs/{name}/transformer.toml --run runs/{name}\n\
         earthmapper model export models/{name} --from-run runs/{name}\n\
         earthmapper evaluate --model models/{name} --data PAIRS{pairs} --seed {seed} --out evaluation --from-run runs/{name}\n\
         ```\n\nOptions of generation that the numbers were measured with:\n\n```json\n{options}\n```\n"
    )
}

const SYNTHETIC: &str = "\
## Synthetic content\n
What this model makes is synthetic. The program marks its pictures as such in their metadata \
(`trainedAlgorithmicMedia`); keep the mark, and say it where people see the picture.
";

fn or_unknown(text: &str) -> &str {
    if text.is_empty() { "unknown" } else { text }
}
