//! What was done so far, so that making can go on where it stopped: one line per candidate, behind the pair itself.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::DatasetError;
use super::filter::{Measures, Rule};
use super::manifest::{PairRecord, json_line};
use super::options::MakeOptions;
use crate::files::WriteError;

/// Name of the journal in the folder of a dataset that is being made.
pub(super) const JOURNAL: &str = "making.jsonl";

/// The first line: what is being made. Making goes on only with the same.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Task {
    pub options: MakeOptions,
    /// Squares to look at.
    pub cells: usize,
    /// A number that changes with the names of the squares.
    pub digest: u64,
}

/// What became of a square.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Outcome {
    /// Imagery or map show nothing there.
    Nothing,
    /// The pair is written.
    Kept(Box<PairRecord>),
    /// Some rules leave it out.
    Rejected { name: String, rules: BTreeSet<Rule>, measures: Box<Measures> },
    /// It could not be read.
    Unreadable { name: String, error: String },
}

/// The open journal. It is locked, so that no second program makes the same dataset.
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    /// Where the last whole line ends.
    length: u64,
}

impl Journal {
    /// Opens or begins the journal of a folder, and gives back what is in it.
    pub fn open(folder: &Path, task: &Task) -> Result<(Self, Vec<Outcome>), DatasetError> {
        let path = folder.join(JOURNAL);
        let failed = |cause| DatasetError::from(WriteError::Io { path: path.clone(), cause });
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DatasetError::InUse { folder: folder.to_owned() }),
            Err(TryLockError::Error(cause)) => return Err(failed(cause)),
        }
        let mut journal = Self { path: path.clone(), file, length: 0 };
        let outcomes = journal.read(folder, task)?;
        // What follows the last whole line was being written when the program stopped.
        journal.file.set_len(journal.length).map_err(failed)?;
        journal.file.seek(SeekFrom::End(0)).map_err(failed)?;
        if journal.length == 0 {
            journal.append(&json_line(task))?;
        }
        Ok((journal, outcomes))
    }

    fn read(&mut self, folder: &Path, task: &Task) -> Result<Vec<Outcome>, DatasetError> {
        let io = |cause| DatasetError::Io { path: self.path.clone(), cause };
        let mut reader = BufReader::new(&self.file);
        let mut outcomes = Vec::new();
        for line in 1.. {
            let mut text = Vec::new();
            reader.read_until(b'\n', &mut text).map_err(io)?;
            if text.last() != Some(&b'\n') {
                break;
            }
            if line == 1 {
                if serde_json::from_slice::<Task>(&text).ok().as_ref() != Some(task) {
                    return Err(DatasetError::NotContinued {
                        folder: folder.to_owned(),
                        reason: "was begun with other options or other sources",
                        cure: "go on with the same ones, or choose another folder",
                    });
                }
            } else {
                let outcome = serde_json::from_slice(&text).map_err(|error| DatasetError::Manifest {
                    path: self.path.clone(),
                    line,
                    problem: format!(
                        "is damaged ({error}); remove it and the lines below, which are then made anew"
                    ),
                })?;
                outcomes.push(outcome);
            }
            self.length += text.len() as u64;
        }
        Ok(outcomes)
    }

    /// Notes some outcomes; when this returns they outlast a stop.
    pub fn note(&mut self, outcomes: &[Outcome]) -> Result<(), DatasetError> {
        self.append(&outcomes.iter().map(json_line).collect::<String>())
    }

    fn append(&mut self, text: &str) -> Result<(), DatasetError> {
        let written = self.file.write_all(text.as_bytes()).and_then(|()| self.file.sync_data());
        Ok(written.map_err(|cause| WriteError::Io { path: self.path.clone(), cause })?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::{SourceOptions, SourcePair};

    fn task(cells: usize) -> Task {
        let source = SourcePair {
            name: "a".to_owned(),
            imagery: SourceOptions::new("imagery"),
            map: SourceOptions::new("map"),
            grid: Default::default(),
            region: None,
        };
        Task { options: MakeOptions::new(source), cells, digest: 7 }
    }

    #[test]
    fn a_broken_line_is_dropped_and_another_task_refused() {
        let folder = tempfile::tempdir().unwrap();
        let unreadable = Outcome::Unreadable { name: "a-1".to_owned(), error: "no\npicture".to_owned() };
        let (mut journal, found) = Journal::open(folder.path(), &task(2)).unwrap();
        assert_eq!(found, []);
        assert!(matches!(Journal::open(folder.path(), &task(2)), Err(DatasetError::InUse { .. })));
        journal.note(&[Outcome::Nothing, unreadable.clone()]).unwrap();
        journal.file.write_all(b"{\"kept\":{\"na").unwrap();
        drop(journal);

        let (mut journal, found) = Journal::open(folder.path(), &task(2)).unwrap();
        assert_eq!(found, [Outcome::Nothing, unreadable.clone()]);
        journal.note(&[Outcome::Nothing]).unwrap();
        drop(journal);
        assert_eq!(Journal::open(folder.path(), &task(2)).unwrap().1.len(), 3);
        let error = Journal::open(folder.path(), &task(3)).err().unwrap();
        assert!(error.to_string().contains("other options or other sources; go on"), "{error}");
    }
}
