//! Sweeps: one file names a base and axes; every point is computed once, kept by what it depends on, and all of them end in
//! tables and plots.
//!
//! | file | holds |
//! |---|---|
//! | [`config`] | [`SweepConfig`]: the file |
//! | [`settings`] | [`settings::Settings`]: what one point is, with nothing left open |
//! | `expand` | from base and axes to [`Point`]s |
//! | [`cache`] | digests of all that a point depends on |
//! | `job` | one point: trainings, evaluation, record |
//! | [`record`] | what is kept of a point |
//! | [`baselines`] | the blank picture and the nearest training pair, measured once |
//! | `estimate` | how long what is left may take |
//! | [`columns`] | which numbers are shown |
//! | [`groups`] | pairs by urban density |
//! | [`report`] | tables, plots, one page |

pub mod baselines;
pub mod cache;
pub mod columns;
pub mod config;
mod error;
mod estimate;
mod expand;
pub mod groups;
mod job;
pub mod record;
pub mod report;
pub mod settings;

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use earthmapper_geo::files::WriteError;

pub use config::SweepConfig;
pub use error::{PointError, SweepError};
pub use estimate::{Basis, Estimate};
pub use expand::{Coordinate, Point};
pub use job::SweepOptions;

use crate::metrics::Palette;
use crate::progress::{Progress, ProgressMode};
use crate::run::RunLock;
use baselines::Baselines;
use cache::{Digests, Keys};
use job::Worker;
use record::Record;
use report::Results;

/// A point and what it depends on.
#[derive(Clone, Debug)]
pub struct Planned {
    /// The point.
    pub point: Point,
    /// Its digests.
    pub keys: Keys,
    /// Its record, when it is done.
    pub record: Option<Record>,
}

/// A sweep that can begin: everything that it needs is there.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The file.
    pub config: SweepConfig,
    /// All points, in the order of the tables.
    pub points: Vec<Planned>,
}

impl Plan {
    /// Expands a sweep's file, reads what its points depend on and looks up which of them are done. Writes nothing.
    ///
    /// # Errors
    /// See [`SweepError`]; whatever can be refused is refused here.
    pub fn new(config: SweepConfig, file: &Path, options: &SweepOptions) -> Result<Self, SweepError> {
        let out = &options.out;
        let is_used = out.read_dir().is_ok_and(|mut entries| entries.next().is_some());
        if is_used && !out.join(report::CONFIG).is_file() {
            return Err(SweepError::Foreign { folder: out.clone() });
        }
        let mut digests = Digests::default();
        let mut planned = Vec::new();
        for point in config.points(file)? {
            if let Some(path) = &point.settings.evaluate.palette {
                palette(path).map_err(|error| *error)?;
            }
            let keys = digests.keys(&point.settings)?;
            let record = Record::read(&options.point(&keys), &keys.point);
            planned.push(Planned { point, keys, record });
        }
        Ok(Self { config, points: planned })
    }

    /// Points that are done.
    pub fn done(&self) -> usize {
        self.points.iter().filter(|planned| planned.record.is_some()).count()
    }

    /// Computes the points that are not done, one after another, and writes tables and plots of all that are. A point that fails
    /// does not stop the others.
    ///
    /// # Errors
    /// [`SweepError::Interrupted`], with tables and plots of what is done; [`SweepError::Write`] and [`SweepError::Run`] when the folder cannot be used. Failed
    /// points are no error here, see [`Results::failure`].
    pub fn run(mut self, options: &SweepOptions) -> Result<Results, SweepError> {
        let io = |cause| WriteError::Io { path: options.out.clone(), cause };
        fs::create_dir_all(&options.out).map_err(io)?;
        let _lock = RunLock::acquire(&options.out)?;
        report::write_config(&self.config, &options.out)?;
        let mut failures = vec![None; self.points.len()];
        let mut known = Known::new();
        let ended = self.compute(options, &mut failures, &mut known);
        let results = Results::new(self, failures, &known);
        results.write(&options.out)?;
        ended.map(|()| results)
    }

    /// Computes what is not done, until the end or an interruption.
    fn compute(
        &mut self,
        options: &SweepOptions,
        failures: &mut [Option<String>],
        known: &mut Known,
    ) -> Result<(), SweepError> {
        let of = self.points.len();
        let missing: Vec<usize> = (0..of).filter(|&index| self.points[index].record.is_none()).collect();
        // Lines, as a bar of the sweep and one of what it does now would fight over the last line of a terminal.
        let lines =
            if options.progress == ProgressMode::Silent { ProgressMode::Silent } else { ProgressMode::Lines };
        let mut progress = Progress::start(lines, "points", (of - missing.len()) as u64, of as u64);
        let mut worker = Worker::new(options);
        let interrupted = |plan: &Self| Err(SweepError::Interrupted { done: plan.done(), of });
        for planned in &self.points {
            if learn(planned, &mut worker, known).is_break() {
                return interrupted(self);
            }
        }
        for (number, &index) in missing.iter().enumerate() {
            let done = of - missing.len() + number;
            let Planned { point, keys, .. } = &self.points[index];
            if options.interrupt.requested() {
                return interrupted(self);
            }
            // An earlier point may have been the same one under another name.
            let twin =
                self.points.iter().find(|other| other.keys.point == keys.point && other.record.is_some());
            let result = match twin {
                Some(twin) => Ok(twin.record.clone().expect("it was looked at")),
                None => {
                    progress.message(&format!("point {} of {of}: {}", done + 1, point.label));
                    worker.run(&point.settings, keys)
                }
            };
            match result {
                Ok(record) => self.points[index].record = Some(record),
                Err(error) if error.is_interruption() => return interrupted(self),
                Err(error) => {
                    let text = error.to_string();
                    tracing::warn!("{}: {text}", point.label);
                    failures[index] = Some(text);
                }
            }
            progress.update(done as u64 + 1, 1, None);
            if learn(&self.points[index], &mut worker, known).is_break() {
                return interrupted(self);
            }
        }
        progress.finish();
        Ok(())
    }
}

/// Baselines by their digests, or why there are none.
type Known = BTreeMap<String, Result<Baselines, String>>;

/// Sees to the baselines of a point that is done, whose record says the side of its pictures. Breaks on interruption.
fn learn(planned: &Planned, worker: &mut Worker, known: &mut Known) -> ControlFlow<()> {
    let Planned { point, keys, record: Some(record) } = planned else { return ControlFlow::Continue(()) };
    let side = record.evaluation.side;
    let Some(key) = keys.baselines_at(side).filter(|key| !known.contains_key(key)) else {
        return ControlFlow::Continue(());
    };
    match worker.baselines(&point.settings, key.clone(), side) {
        Ok(found) => known.extend(found.map(|found| (key, Ok(found)))),
        Err(error) if error.is_interruption() => return ControlFlow::Break(()),
        Err(error) => {
            tracing::warn!("nearest training pair: {error}");
            known.insert(key, Err(error.to_string()));
        }
    }
    ControlFlow::Continue(())
}

/// Classes of maps from a JSON file.
pub(crate) fn palette(path: &Path) -> Result<Palette, Box<SweepError>> {
    let text = config::read_text(path)?;
    serde_json::from_str(&text).map_err(|error| {
        Box::new(SweepError::Input { path: path.into(), problem: format!("{error}; give a list of classes") })
    })
}
