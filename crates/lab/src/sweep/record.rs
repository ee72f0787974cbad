//! What is known of a point that is done, kept so that it need not be done again.

use std::collections::BTreeMap;
use std::path::Path;

use earthmapper_geo::files::{WriteError, atomic_write};
use serde::{Deserialize, Serialize};

use super::columns::Column;
use super::groups::Group;
use super::settings::Settings;
use crate::evaluate::evaluation::Evaluation;
use crate::evaluate::measure::Measured;
use crate::evaluate::score::{Better, Bootstrap, Number};

/// Number of the layout of a record and of everything else that a point's numbers depend on in this program: points of
/// another one are computed anew.
pub const FORMAT: u32 = 1;

/// Name of the file in a point's folder.
pub const FILE: &str = "result.json";

/// Seed of the intervals of groups.
const BOOTSTRAP_SEED: u64 = 0;

/// A point that is done.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// [`FORMAT`].
    pub format: u32,
    /// Digest of all that it depends on.
    pub key: String,
    /// Its settings.
    pub settings: Settings,
    /// Seconds that its evaluation took, over all starts.
    pub seconds: f64,
    /// Facts by name, such as [`BITS`](super::columns::BITS).
    pub facts: BTreeMap<String, f64>,
    /// The numbers over all pairs.
    pub evaluation: Evaluation,
    /// The scores of every picture.
    pub measured: Measured,
}

impl Record {
    /// The record in a point's folder, if it is whole, of this format and of this key.
    pub fn read(folder: &Path, key: &str) -> Option<Self> {
        let text = std::fs::read_to_string(folder.join(FILE)).ok()?;
        let record: Self = match serde_json::from_str(&text) {
            Ok(record) => record,
            Err(error) => {
                tracing::warn!("{}: {error}; the point is computed anew", folder.join(FILE).display());
                return None;
            }
        };
        (record.format == FORMAT && record.key == key).then_some(record)
    }

    /// Writes it; its presence says that the point is done.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), WriteError> {
        let text = serde_json::to_string(self).expect("plain data") + "\n";
        atomic_write(&folder.join(FILE), text.as_bytes(), true)
    }

    /// A number over all pairs; none when there is no such metric or it says nothing.
    pub fn number(&self, column: &Column) -> Number {
        let number = match column.of {
            Some(target) => {
                self.evaluation.section(target).and_then(|found| found.number(column.candidate, &column.metric))
            }
            None => self.facts.get(&column.metric).map(|&value| Number { value: Some(value), ..Number::default() }),
        };
        number.unwrap_or_default()
    }

    /// Which way a column is good, as the evaluation says.
    pub fn better(&self, column: &Column) -> Option<Better> {
        let rows = &self.evaluation.section(column.of?)?.rows;
        rows.iter().find(|row| row.metric.name == column.metric).map(|row| row.metric.better)
    }

    /// A number over the pairs of a group, with its interval over them. None of metrics that have no value of one picture.
    pub fn number_of_group(&self, column: &Column, group: &Group) -> Number {
        let pictures = column.of.and_then(|target| self.measured.section(target)?.column(column.candidate));
        let Some(pictures) = pictures else { return Number::default() };
        let score = |index: usize| {
            pictures[index].scores.iter().find(|score| score.metric.name == column.metric)
        };
        let chosen: Vec<usize> = (0..self.measured.names.len())
            .filter(|&index| group.names.contains(&self.measured.names[index]))
            .collect();
        let scores: Option<Vec<_>> = chosen.into_iter().map(score).collect();
        let Some(scores) = scores.filter(|scores| !scores.is_empty()) else { return Number::default() };
        let records: Vec<&[f64]> = scores.iter().map(|score| &score.sums[..]).collect();
        Bootstrap::new(records.len(), BOOTSTRAP_SEED).number(scores[0].statistic, &records)
    }
}
