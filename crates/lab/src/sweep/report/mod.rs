//! What a sweep ends in: tables, plots, one page.
//!
//! | file | holds |
//! |---|---|
//! | `sweep.toml` | the sweep as it was run; marks the folder as a sweep's |
//! | `sweep.json` | every point with the numbers of the tables, over all pairs and by urban density |
//! | `sweep.csv` | every metric of every candidate, a line per number |
//! | `sweep.md` | the tables |
//! | `sweep.html` | tables and plots as one page that needs nothing else |
//! | `*.svg` | the plots |

mod figures;
mod html;
mod plots;
mod table;

use std::fs;
use std::path::Path;

use earthmapper_geo::files::{WriteError, atomic_write};

pub use figures::Figure;

use super::columns::{Column, usual};
use super::config::SweepConfig;
use super::error::SweepError;
use super::expand::Coordinate;
use super::groups::{Group, terciles};
use super::record::Record;
use super::{Known, Plan, Planned};
use crate::evaluate::score::{Better, Number};

/// The file that marks the folder of a sweep.
pub const CONFIG: &str = "sweep.toml";

/// A point of the tables.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its name.
    pub label: String,
    /// A value per axis; of a point beside the grid, none.
    pub coordinates: Vec<Option<Coordinate>>,
    /// Digest of all that it depends on.
    pub key: String,
    /// What is known of it; none when it failed or is not done.
    pub record: Option<Record>,
    /// Why it failed.
    pub failure: Option<String>,
}

impl Row {
    /// Whether it neither is done nor failed, as after an interruption.
    pub fn is_left(&self) -> bool {
        self.record.is_none() && self.failure.is_none()
    }

    /// Its number in a column; none when it is not done.
    pub fn number(&self, column: &Column) -> Number {
        self.record.as_ref().map_or_else(Number::default, |record| record.number(column))
    }
}

/// All points and how they are shown.
#[derive(Clone, Debug)]
pub struct Results {
    /// The file.
    pub config: SweepConfig,
    /// The numbers that are shown.
    pub columns: Vec<Column>,
    /// All points, in the order of the file.
    pub rows: Vec<Row>,
    /// Pairs by urban density, when that is asked for and all points are about the same pairs.
    pub groups: Option<Vec<Group>>,
    /// Why there is no nearest training pair, if there is none.
    pub without_nearest: Option<WithoutNearest>,
}

/// Why a sweep has no nearest training pair.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum WithoutNearest {
    /// Some points name no training pairs.
    NotNamed,
    /// It failed.
    Failed(String),
    /// It is not measured yet.
    NotDone,
}

impl Results {
    pub(super) fn new(mut plan: Plan, failures: Vec<Option<String>>, known: &Known) -> Self {
        let mut without_nearest = None;
        for Planned { keys, record, .. } in &mut plan.points {
            if keys.baselines.is_none() {
                without_nearest = Some(WithoutNearest::NotNamed);
            }
            let Some(record) = record else { continue };
            let Some(key) = keys.baselines_at(record.evaluation.side) else { continue };
            match known.get(&key) {
                Some(Ok(baselines)) => baselines.join(record),
                Some(Err(problem)) => without_nearest = Some(WithoutNearest::Failed(problem.clone())),
                None if without_nearest.is_none() => without_nearest = Some(WithoutNearest::NotDone),
                None => {}
            }
        }
        let Plan { config, points } = plan;
        let columns = match config.report.columns.is_empty() {
            false => config.report.columns.clone(),
            true => points.first().map_or_else(Vec::new, |first| usual(&first.point.settings)),
        };
        let row = |(Planned { point, keys, record }, failure)| Row {
            label: point.label,
            coordinates: point.coordinates,
            key: keys.point,
            record,
            failure,
        };
        let rows: Vec<Row> = points.into_iter().zip(failures).map(row).collect();
        let groups = groups(&config, &rows);
        Self { config, columns, rows, groups, without_nearest }
    }

    /// Whether some points failed, as an error with their list; or else the nearest training pair.
    pub fn failure(&self) -> Option<SweepError> {
        let failed: Vec<String> = self
            .rows
            .iter()
            .filter_map(|row| Some(format!("{}: {}", row.label, row.failure.as_ref()?)))
            .collect();
        match &self.without_nearest {
            _ if !failed.is_empty() => Some(SweepError::SomeFailed { failed, of: self.rows.len() }),
            Some(WithoutNearest::Failed(problem)) => Some(SweepError::Baselines { problem: problem.clone() }),
            _ => None,
        }
    }

    /// Which way a column is good.
    pub(super) fn better(&self, column: &Column) -> Better {
        let recorded = self.rows.iter().find_map(|row| row.record.as_ref()?.better(column));
        column.better(recorded)
    }

    /// Writes everything, in place of what an earlier run of the sweep wrote.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), SweepError> {
        let figures = self.figures();
        for (name, text) in [
            ("sweep.json", self.json()),
            ("sweep.csv", self.csv()),
            ("sweep.md", self.markdown()),
            ("sweep.html", self.html(&figures)),
        ] {
            atomic_write(&folder.join(name), text.as_bytes(), true)?;
        }
        let wanted: Vec<String> = figures.iter().map(Figure::file_name).collect();
        // Plots of axes and columns that are no longer there would be taken for new ones.
        let old = fs::read_dir(folder).map_err(|cause| WriteError::Io { path: folder.into(), cause })?;
        for path in old.flatten().map(|entry| entry.path()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.ends_with(".svg") && !wanted.contains(&name) {
                let _ = fs::remove_file(path);
            }
        }
        for (figure, name) in figures.iter().zip(wanted) {
            atomic_write(&folder.join(name), figure.svg.as_bytes(), true)?;
        }
        Ok(())
    }
}

/// The groups of all points' pairs; none unless they are the same for all.
fn groups(config: &SweepConfig, rows: &[Row]) -> Option<Vec<Group>> {
    if !config.report.density {
        return None;
    }
    let mut all = rows.iter().filter_map(|row| terciles(row.record.as_ref()?, &config.report.urban));
    let first = all.next()?;
    if all.any(|other| other != first) {
        tracing::warn!("the points are about different pairs, so they are not shown by urban density");
        return None;
    }
    Some(first)
}

/// Writes the file that marks a folder as a sweep's and says which.
pub(super) fn write_config(config: &SweepConfig, folder: &Path) -> Result<(), SweepError> {
    let text = toml::to_string_pretty(config).expect("what was read from TOML can be written as TOML");
    Ok(atomic_write(&folder.join(CONFIG), text.as_bytes(), true)?)
}
