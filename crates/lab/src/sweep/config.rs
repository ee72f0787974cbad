//! The file of a sweep: a base and axes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::columns::Column;
use super::error::SweepError;

/// A sweep. Unknown keys are errors; `docs/formats.md` has them all.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SweepConfig {
    /// Heading of the results.
    pub title: String,
    /// What the sweep asks, in a sentence or two.
    #[serde(default)]
    pub about: String,
    /// What is trained; nothing when absent.
    #[serde(default)]
    pub train: TrainFiles,
    /// How points are measured, before overrides: [`EvaluateSettings`](super::settings::EvaluateSettings).
    pub evaluate: serde_json::Map<String, Value>,
    /// Overrides of every point, before those of the axes.
    #[serde(default)]
    pub set: Overrides,
    /// The axes, whose product is the grid; keys of a later one may lie inside what an earlier one sets.
    #[serde(default, rename = "axis")]
    pub axes: Vec<Axis>,
    /// Points beside the grid.
    #[serde(default, rename = "point")]
    pub points: Vec<NamedPoint>,
    /// What the tables and plots show.
    #[serde(default)]
    pub report: ReportConfig,
    /// More points than this are refused, since a grid grows faster than one thinks.
    #[serde(default = "default_max_points")]
    pub max_points: usize,
}

fn default_max_points() -> usize {
    256
}

/// Values by dotted key, such as `"evaluate.generation.to_map.sampler.top_k"`. A `*` in a key stands for the only key of
/// its table.
pub type Overrides = BTreeMap<String, Value>;

/// Training configurations that points start from.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TrainFiles {
    /// A file for `train tokenizer`.
    #[serde(default)]
    pub tokenizer: Option<PathBuf>,
    /// A file for `train transformer`; its tokenizer is the one trained here, if one is.
    #[serde(default)]
    pub transformer: Option<PathBuf>,
}

/// An axis of the grid: one or several keys that take the same value (`key` or `keys`, with `values`), or named values
/// that set keys of their own (`[[axis.value]]`).
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Axis {
    /// Heading of its column, label of its axis in plots.
    pub name: String,
    /// The key that takes the values.
    #[serde(default)]
    pub key: Option<String>,
    /// The keys that take the values.
    #[serde(default)]
    pub keys: Vec<String>,
    /// The values.
    #[serde(default)]
    pub values: Vec<Value>,
    /// Values with names.
    #[serde(default, rename = "value")]
    pub named: Vec<AxisValue>,
}

/// A value of an axis.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AxisValue {
    /// Its name in tables.
    pub label: String,
    /// Where it stands on a numeric axis, when its name is no number.
    #[serde(default)]
    pub number: Option<f64>,
    /// Keys that it sets.
    #[serde(default)]
    pub set: Overrides,
    /// Keys that it takes away, so that their defaults hold.
    #[serde(default)]
    pub unset: Vec<String>,
}

/// A point beside the grid.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct NamedPoint {
    /// Its name in tables.
    pub label: String,
    /// Keys that it sets.
    #[serde(default)]
    pub set: Overrides,
    /// Keys that it takes away.
    #[serde(default)]
    pub unset: Vec<String>,
}

/// What tables and plots show; the files for machines hold everything.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ReportConfig {
    /// Numbers of the tables and plots; when empty, the usual ones of what is measured.
    #[serde(default)]
    pub columns: Vec<Column>,
    /// Whether there are tables and plots by urban density.
    #[serde(default)]
    pub density: bool,
    /// Label of the point that the others are compared with, pair by pair; no comparison when not given.
    #[serde(default)]
    pub reference: Option<String>,
    /// Classes of the maps that count as urban; when empty, roads of all kinds and those called building.
    #[serde(default)]
    pub urban: Vec<String>,
    /// The fronts that are drawn; when empty, the first number against the diversity.
    #[serde(default)]
    pub fronts: Vec<Front>,
}

/// A Pareto front of two numbers.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Front {
    /// Along the horizontal axis.
    pub x: Column,
    /// Along the vertical axis.
    pub y: Column,
}

impl SweepConfig {
    /// Reads a file and checks what can be checked without its base.
    ///
    /// # Errors
    /// [`SweepError::Config`] with the line or the axis.
    pub fn read(file: &Path) -> Result<Self, SweepError> {
        let config: Self = read_toml(file)?;
        config.check().map_err(|(at, problem)| SweepError::Config { file: file.into(), at, problem })?;
        Ok(config)
    }

    fn check(&self) -> Result<(), (String, String)> {
        let wrong = |at: String, problem: &str| Err((at, problem.to_owned()));
        if self.axes.is_empty() && self.points.is_empty() {
            return wrong("axis".into(), "there are no points; give an [[axis]] or a [[point]]");
        }
        let mut names = BTreeSet::new();
        for axis in &self.axes {
            let at = format!("axis {}", axis.name);
            if axis.name.trim().is_empty() || !names.insert(&axis.name) {
                return wrong(at, "needs a name that no other axis has");
            }
            let has_keys = axis.key.is_some() || !axis.keys.is_empty();
            match (has_keys, axis.named.is_empty()) {
                (true, false) => return wrong(at, "has keys with values or [[axis.value]], not both"),
                (true, true) if axis.values.is_empty() => {
                    return wrong(at, "has no values; give values = [...] with at least one");
                }
                (false, _) if !axis.values.is_empty() => {
                    return wrong(at, "has values but no key that takes them; give key = \"...\"");
                }
                (false, true) => {
                    return wrong(
                        at,
                        "has no values; give key = \"...\" and values = [...], or an [[axis.value]]",
                    );
                }
                _ => {}
            }
            if axis.key.is_some() && !axis.keys.is_empty() {
                return wrong(at, "has key and keys; give one of them");
            }
        }
        let grid = self
            .axes
            .iter()
            .try_fold(1usize, |all, axis| all.checked_mul(axis.values.len().max(axis.named.len())));
        let grid = if self.axes.is_empty() { Some(0) } else { grid };
        match grid.and_then(|grid| grid.checked_add(self.points.len())) {
            Some(count) if count <= self.max_points => Ok(()),
            count => {
                let count = count.map_or_else(|| "far too many".into(), |count| count.to_string());
                Err((
                    "axis".into(),
                    format!(
                        "the grid has {count} points, more than {}; shorten an axis or raise max_points",
                        self.max_points
                    ),
                ))
            }
        }
    }
}

/// Reads a TOML file; an error says the line.
pub(super) fn read_toml<T: for<'de> Deserialize<'de>>(file: &Path) -> Result<T, SweepError> {
    let text = read_text(file)?;
    toml::from_str(&text).map_err(|error| SweepError::Config {
        file: file.into(),
        at: match error.span() {
            Some(span) => format!("line {}", text[..span.start.min(text.len())].matches('\n').count() + 1),
            None => "the file".into(),
        },
        problem: error.message().trim().replace('\n', " "),
    })
}

pub(super) fn read_text(path: &Path) -> Result<String, SweepError> {
    std::fs::read_to_string(path)
        .map_err(|error| SweepError::Input { path: path.into(), problem: format!("{error}; check the name") })
}
