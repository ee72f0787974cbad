//! Baselines that need training pairs and no model: measured once for all points of the same pairs, kept as points are.

use std::fs;
use std::path::Path;

use earthmapper_geo::files::{WriteError, atomic_write};
use serde::{Deserialize, Serialize};

use super::record::{FILE, FORMAT, Record};
use crate::evaluate::Candidate;
use crate::evaluate::evaluation::{Evaluation, Row};
use crate::evaluate::measure::Measured;

/// The blank picture in the training pairs' colours, and the nearest training pair.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Baselines {
    /// [`FORMAT`].
    pub format: u32,
    /// Digest of all that they depend on.
    pub key: String,
    /// Their numbers over all pairs.
    pub evaluation: Evaluation,
    /// Their scores of every picture.
    pub measured: Measured,
}

impl Baselines {
    /// Those in a folder, if they are whole, of this format and of this key.
    pub(super) fn read(folder: &Path, key: &str) -> Option<Self> {
        let text = fs::read_to_string(folder.join(FILE)).ok()?;
        let found: Self = serde_json::from_str(&text).ok()?;
        (found.format == FORMAT && found.key == key).then_some(found)
    }

    /// Writes them.
    pub(super) fn write(&self, folder: &Path) -> Result<(), WriteError> {
        fs::create_dir_all(folder).map_err(|cause| WriteError::Io { path: folder.into(), cause })?;
        let text = serde_json::to_string(self).expect("plain data") + "\n";
        atomic_write(&folder.join(FILE), text.as_bytes(), true)
    }

    /// Puts them into a point's record, as if they had been measured with it.
    pub(super) fn join(&self, record: &mut Record) {
        if self.measured.names != record.measured.names {
            return;
        }
        record.evaluation.blank = self.evaluation.blank;
        for section in &mut record.evaluation.sections {
            let Some(found) = self.evaluation.section(section.target) else { continue };
            section.candidates.extend(&found.candidates);
            section.candidates.sort();
            section.candidates.dedup();
            for Row { metric, numbers } in &found.rows {
                let own = section.rows.iter().position(|own| own.metric.name == metric.name);
                let own = own.unwrap_or_else(|| {
                    section.rows.push(Row { metric: metric.clone(), numbers: Default::default() });
                    section.rows.len() - 1
                });
                section.rows[own].numbers.extend(numbers);
            }
            let heading = Candidate::Nearest.heading(section.target);
            section.not_computed.retain(|missing| missing.what != heading);
        }
        for section in &mut record.measured.sections {
            let Some(found) = self.measured.section(section.target) else { continue };
            section.columns.retain(|(own, _)| found.column(*own).is_none());
            section.columns.extend(found.columns.iter().cloned());
            section.columns.sort_by_key(|(candidate, _)| *candidate);
        }
    }
}
