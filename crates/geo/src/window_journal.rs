//! Finished windows of a large output, kept beside it until it is whole, so that an interrupted work can go on.
//!
//! One file: a line that says what is being made, then records, each a header of four little-endian `u32` (sample,
//! column, row, length) and that many bytes of zlib. Records are only ever appended; what a stop left half-written at the
//! end is cut off when the file is opened again.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use thiserror::Error;

use crate::files::WriteError;

/// Bytes of a record before its contents.
const HEADER: u64 = 16;

/// Which window of an output: sample, column, row.
pub type WindowId = [u32; 3];

/// Why windows cannot be kept or taken up.
#[derive(Debug, Error)]
pub enum WindowJournalError {
    /// There are windows of an earlier run.
    #[error(
        "{}: holds windows of an interrupted run; pass --resume to go on with them, or --overwrite to begin anew",
        path.display()
    )]
    Exists {
        /// The journal.
        path: PathBuf,
    },
    /// The windows are of another task.
    #[error(
        "{}: holds windows made with other options, another input or another model; go on with the same ones, or pass \
         --overwrite to begin anew",
        path.display()
    )]
    OtherTask {
        /// The journal.
        path: PathBuf,
    },
    /// Another program is at it.
    #[error("{}: is in use by another program; wait for it to end", path.display())]
    InUse {
        /// The journal.
        path: PathBuf,
    },
    /// It cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// What to do about the windows of an earlier run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Earlier {
    /// There must be none.
    Refuse,
    /// They are taken up.
    Continue,
    /// They are thrown away.
    Discard,
}

/// The open journal of one output. It is locked, so that no second program writes the same output.
#[derive(Debug)]
pub struct WindowJournal {
    path: PathBuf,
    file: File,
    /// Where the contents of a window begin, and how long they are.
    windows: HashMap<WindowId, (u64, u32)>,
    /// Where the last whole record ends.
    length: u64,
    /// Whether the task is this one's, so that an empty journal may be removed.
    open: bool,
}

impl WindowJournal {
    /// Where the windows of an output are kept: `scene.tif` → `scene.tif.windows`.
    pub fn path_for(output: &Path) -> PathBuf {
        let mut name = OsString::from(output);
        name.push(".windows");
        name.into()
    }

    /// Checks, before the work, that [`open`](Self::open) would not refuse because of an earlier run.
    ///
    /// # Errors
    /// [`WindowJournalError::Exists`].
    pub fn check(output: &Path, earlier: Earlier) -> Result<(), WindowJournalError> {
        let path = Self::path_for(output);
        match earlier {
            Earlier::Refuse if path.exists() => Err(WindowJournalError::Exists { path }),
            _ => Ok(()),
        }
    }

    /// Opens or begins the journal of an output. `task` is one line that says everything the windows depend on.
    ///
    /// # Errors
    /// See [`WindowJournalError`]. Nothing of an earlier run is lost by an error.
    pub fn open(output: &Path, task: &str, earlier: Earlier) -> Result<Self, WindowJournalError> {
        Self::check(output, earlier)?;
        let path = Self::path_for(output);
        let failed = |cause| WriteError::Io { path: path.clone(), cause };
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(WindowJournalError::InUse { path }),
            Err(TryLockError::Error(cause)) => return Err(failed(cause).into()),
        }
        if earlier == Earlier::Discard {
            file.set_len(0).map_err(failed)?;
        }
        let mut journal = Self { path: path.clone(), file, windows: HashMap::new(), length: 0, open: false };
        let line = format!("{}\n", task.replace('\n', " "));
        if !journal.scan(&line).map_err(failed)? {
            return Err(WindowJournalError::OtherTask { path });
        }
        let end = journal.length;
        journal.file.set_len(end).map_err(failed)?;
        if end == 0 {
            journal.append(line.as_bytes())?;
        }
        journal.open = true;
        Ok(journal)
    }

    /// Finds the records; false when the first line is another task's.
    fn scan(&mut self, task: &str) -> io::Result<bool> {
        let size = self.file.metadata()?.len();
        let mut reader = BufReader::new(&self.file);
        let mut line = Vec::new();
        // A line longer than any task is no line of this program.
        reader.by_ref().take(task.len() as u64 + 1).read_until(b'\n', &mut line)?;
        if line != task.as_bytes() {
            // Even the line may have been cut off by a stop; then nothing is lost by beginning anew.
            return Ok(task.as_bytes().starts_with(&line));
        }
        self.length = task.len() as u64;
        let mut header = [0; HEADER as usize];
        while self.length + HEADER <= size {
            reader.read_exact(&mut header)?;
            let [sample, column, row, length] = std::array::from_fn(|i| {
                u32::from_le_bytes(header[4 * i..][..4].try_into().expect("four bytes"))
            });
            let end = self.length + HEADER + u64::from(length);
            if end > size {
                break;
            }
            self.windows.insert([sample, column, row], (self.length + HEADER, length));
            reader.seek_relative(i64::from(length))?;
            self.length = end;
        }
        Ok(true)
    }

    /// How many windows there are.
    pub fn count(&self) -> usize {
        self.windows.len()
    }

    /// Whether a window is there.
    pub fn contains(&self, window: WindowId) -> bool {
        self.windows.contains_key(&window)
    }

    /// What was noted of a window; `None` when nothing was, or when it is damaged and has to be made again.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn find(&mut self, window: WindowId) -> Result<Option<Vec<u8>>, WindowJournalError> {
        let Some(&(start, length)) = self.windows.get(&window) else { return Ok(None) };
        let mut packed = vec![0; length as usize];
        let read = self.file.seek(SeekFrom::Start(start)).and_then(|_| self.file.read_exact(&mut packed));
        read.map_err(|cause| WriteError::Io { path: self.path.clone(), cause })?;
        let mut contents = Vec::new();
        // zlib ends with a checksum, so a damaged record does not decode.
        match ZlibDecoder::new(packed.as_slice()).read_to_end(&mut contents) {
            Ok(_) => Ok(Some(contents)),
            Err(_) => {
                self.windows.remove(&window);
                Ok(None)
            }
        }
    }

    /// Notes a finished window; it outlasts the program from then on.
    ///
    /// # Errors
    /// When it cannot be written, such as on a full disk; the windows before it stay usable.
    pub fn note(&mut self, window: WindowId, contents: &[u8]) -> Result<(), WindowJournalError> {
        let mut packed = ZlibEncoder::new(vec![0; HEADER as usize], Compression::fast());
        packed.write_all(contents).expect("memory takes everything");
        let mut packed = packed.finish().expect("memory takes everything");
        let length = (packed.len() - HEADER as usize) as u32;
        let [sample, column, row] = window;
        for (i, value) in [sample, column, row, length].into_iter().enumerate() {
            packed[4 * i..][..4].copy_from_slice(&value.to_le_bytes());
        }
        let start = self.length + HEADER;
        self.append(&packed)?;
        self.windows.insert(window, (start, length));
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), WindowJournalError> {
        let written = self.file.seek(SeekFrom::Start(self.length)).and_then(|_| self.file.write_all(bytes));
        written.map_err(|cause| WriteError::Io { path: self.path.clone(), cause })?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Removes the journal of an output that is whole.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn remove(mut self) -> Result<(), WindowJournalError> {
        self.open = false;
        let removed = std::fs::remove_file(&self.path);
        Ok(removed.map_err(|cause| WriteError::Io { path: self.path.clone(), cause })?)
    }
}

impl Drop for WindowJournal {
    /// A journal without windows is of no use to anybody.
    fn drop(&mut self) {
        if self.open && self.windows.is_empty() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_outlast_a_stop_and_a_broken_end_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("scene.tif");
        let open = |earlier| WindowJournal::open(&output, "task", earlier);
        let mut journal = open(Earlier::Refuse).unwrap();
        assert!(matches!(open(Earlier::Continue), Err(WindowJournalError::InUse { .. })));
        journal.note([0, 1, 2], b"first").unwrap();
        journal.note([1, 0, 0], &[7; 100_000]).unwrap();
        journal.file.write_all(&[1, 2, 3]).unwrap();
        drop(journal);

        assert!(matches!(open(Earlier::Refuse), Err(WindowJournalError::Exists { .. })));
        let other = WindowJournal::open(&output, "another task", Earlier::Continue);
        assert!(matches!(other, Err(WindowJournalError::OtherTask { .. })));

        let mut journal = open(Earlier::Continue).unwrap();
        assert_eq!(journal.count(), 2);
        assert_eq!(journal.find([0, 1, 2]).unwrap().unwrap(), b"first");
        assert_eq!(journal.find([1, 0, 0]).unwrap().unwrap(), [7; 100_000]);
        assert_eq!(journal.find([0, 0, 0]).unwrap(), None);
        journal.note([0, 0, 0], b"third").unwrap();
        drop(journal);

        let mut journal = open(Earlier::Continue).unwrap();
        assert_eq!(journal.find([0, 0, 0]).unwrap().unwrap(), b"third");
        journal.remove().unwrap();
        assert!(!WindowJournal::path_for(&output).exists());
    }

    #[test]
    fn every_cut_of_the_file_gives_a_usable_journal() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("scene.tif");
        let mut journal = WindowJournal::open(&output, "task", Earlier::Refuse).unwrap();
        journal.note([0, 0, 0], b"first").unwrap();
        let one = journal.length;
        journal.note([0, 1, 0], b"second").unwrap();
        drop(journal);
        let path = WindowJournal::path_for(&output);
        let whole = std::fs::read(&path).unwrap();
        for length in 0..=whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            let journal = WindowJournal::open(&output, "task", Earlier::Continue).unwrap();
            let expected = usize::from(length as u64 >= one) + usize::from(length == whole.len());
            assert_eq!(journal.count(), expected, "after {length} bytes");
        }
    }

    #[test]
    fn a_damaged_window_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("scene.tif");
        let mut journal = WindowJournal::open(&output, "task", Earlier::Refuse).unwrap();
        journal.note([0, 0, 0], &[9; 1000]).unwrap();
        drop(journal);
        let path = WindowJournal::path_for(&output);
        let mut bytes = std::fs::read(&path).unwrap();
        let last = bytes.len() - 2;
        bytes[last] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let mut journal = WindowJournal::open(&output, "task", Earlier::Continue).unwrap();
        assert_eq!(journal.find([0, 0, 0]).unwrap(), None);
        assert!(!journal.contains([0, 0, 0]));
    }
}
