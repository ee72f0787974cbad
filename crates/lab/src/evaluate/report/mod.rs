//! Stage three: an evaluation as files.
//!
//! | file | holds |
//! |---|---|
//! | `evaluation.json` | all numbers, see [`Evaluation`] |
//! | `table.md` | the same as tables |
//! | `pictures.csv` | the scores of every picture of every candidate |
//! | `map-best.png` and so on | contact sheets, see [`sheets`] |
//! | `report.html` | all of it as one page, with plots |

mod html;
mod pictures;
pub mod plots;
pub mod sheets;
pub(crate) mod table;

use std::path::Path;

use earthmapper_geo::files::{WriteError, atomic_write};
use earthmapper_geo::picture::{WriteOptions, write_picture};
use earthmapper_geo::provenance::Provenance;

use crate::evaluate::EvaluateError;
use crate::evaluate::evaluation::Evaluation;
use crate::evaluate::measure::Measured;
use sheets::Sheet;

/// The files that every evaluation writes; contact sheets come on top.
pub const FILES: [&str; 4] = ["evaluation.json", "table.md", "pictures.csv", "report.html"];

/// An evaluation with its pictures.
#[derive(Clone, Debug)]
pub struct Evaluated {
    /// The numbers.
    pub evaluation: Evaluation,
    /// The scores of every picture.
    pub measured: Measured,
    /// Contact sheets.
    pub sheets: Vec<Sheet>,
    /// What pictures in the report say about where they come from.
    pub provenance: Provenance,
}

impl Evaluated {
    /// Writes everything into a folder. Sheets and page show the pairs themselves: whoever may not pass on the pairs may not
    /// pass on them.
    ///
    /// # Errors
    /// When a file exists and `overwrite` is off, or cannot be written.
    pub fn write(&self, folder: &Path, overwrite: bool) -> Result<(), EvaluateError> {
        std::fs::create_dir_all(folder).map_err(|cause| WriteError::Io { path: folder.into(), cause })?;
        let table = format!("{}\n{}", self.evaluation.table(), self.evaluation.notes());
        let texts = [self.evaluation.to_json(), table, self.pictures(), self.html()];
        for (name, text) in FILES.iter().zip(texts) {
            atomic_write(&folder.join(name), text.as_bytes(), overwrite)?;
        }
        let provenance = Some(self.provenance.clone());
        let options = WriteOptions { overwrite, provenance, ..Default::default() };
        for sheet in &self.sheets {
            write_picture(folder.join(sheet.file_name()), &sheet.picture, &options)?;
        }
        Ok(())
    }
}
