//! What is known of a point that is done, kept so that it need not be done again.

use std::collections::BTreeMap;
use std::path::Path;

use earthmapper_geo::files::{WriteError, atomic_write};
use serde::{Deserialize, Serialize};

use super::columns::Column;
use super::groups::Group;
use super::settings::Settings;
use crate::evaluate::evaluation::Evaluation;
use crate::evaluate::measure::{Measured, PictureScores};
use crate::evaluate::score::{Better, Bootstrap, Number, Statistic};

/// Number of the layout of a record and of everything else that a point's numbers depend on in this program: points of
/// another one are computed anew.
pub const FORMAT: u32 = 1;

/// Name of the file in a point's folder.
pub const FILE: &str = "result.json";

/// Seed of the intervals of groups and differences.
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
        Self::read_any(folder).filter(|record| record.key == key)
    }

    /// The record in a point's folder, if it is whole and of this format.
    pub fn read_any(folder: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(folder.join(FILE)).ok()?;
        let record: Self = match serde_json::from_str(&text) {
            Ok(record) => record,
            Err(error) => {
                tracing::warn!("{}: {error}; the point is computed anew", folder.join(FILE).display());
                return None;
            }
        };
        (record.format == FORMAT).then_some(record)
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
            Some(target) => self
                .evaluation
                .section(target)
                .and_then(|found| found.number(column.candidate, &column.metric)),
            None => self
                .facts
                .get(&column.metric)
                .map(|&value| Number { value: Some(value), ..Number::default() }),
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
        let Some((statistic, records)) = self.sums(column, &|name| group.names.iter().any(|n| n == name))
        else {
            return Number::default();
        };
        Bootstrap::new(records.len(), BOOTSTRAP_SEED).number(statistic, &records)
    }

    /// By how much a number exceeds that of another point on the same pairs, with the interval of the difference. None on
    /// other pairs, and of metrics that have no value of one picture.
    pub fn difference(&self, other: &Self, column: &Column) -> Number {
        self.difference_of(column, other, column)
    }

    /// The same for a number that is another candidate's here than there.
    pub fn difference_of(&self, own: &Column, other: &Self, column: &Column) -> Number {
        if self.measured.names != other.measured.names {
            return Number::default();
        }
        match self.sums(own, &|_| true).zip(other.sums(column, &|_| true)) {
            Some(((statistic, records), (_, others))) if records.len() == others.len() => {
                Bootstrap::new(records.len(), BOOTSTRAP_SEED).difference(statistic, &records, &others)
            }
            _ => Number::default(),
        }
    }

    /// The sums of the pictures of some pairs, and how a number is read off them.
    fn sums(&self, column: &Column, is_wanted: &dyn Fn(&str) -> bool) -> Option<(Statistic, Vec<&[f64]>)> {
        let pictures = self.measured.section(column.of?)?.column(column.candidate)?;
        let names = self.measured.names.iter().zip(pictures);
        let wanted = names.filter(|(name, _)| is_wanted(name));
        let score = |(_, picture): (_, &'_ PictureScores)| {
            picture.scores.iter().position(|score| score.metric.name == column.metric)
        };
        let places: Vec<(&PictureScores, usize)> =
            wanted.map(|pair| Some((pair.1, score(pair)?))).collect::<Option<_>>()?;
        let (first, place) = *places.first()?;
        let records = places.iter().map(|(picture, place)| &picture.scores[*place].sums[..]).collect();
        Some((first.scores[place].statistic, records))
    }
}
