//! One process per run folder.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use super::RunError;

/// Name of the lock file.
pub(super) const FILE_NAME: &str = "run.lock";

/// Holds a run folder until dropped, or until the process ends in whatever way.
#[derive(Debug)]
pub(crate) struct RunLock {
    file: File,
}

impl RunLock {
    /// Takes the lock, or says who has it.
    ///
    /// The operating system drops the lock of a process that dies, so a stale one needs no guessing; a
    /// process number alone would mislead where numbers are reused (every container has a process 1). Where
    /// the file system knows no locks, the number inside is all there is, and `/proc` tells whether it lives.
    pub(crate) fn acquire(folder: &Path) -> Result<Self, RunError> {
        let path = folder.join(FILE_NAME);
        let failed = RunError::io(&path);
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = options.map_err(&failed)?;
        let mut holder = String::new();
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                // The number is only for the message, so failing to read it is no reason for another message.
                let _ = file.read_to_string(&mut holder);
                return Err(RunError::InUse { folder: folder.to_owned(), process: named(&holder) });
            }
            Err(TryLockError::Error(_)) => {
                file.read_to_string(&mut holder).map_err(&failed)?;
                if is_alive(&holder) {
                    return Err(RunError::InUse { folder: folder.to_owned(), process: named(&holder) });
                }
            }
        }
        file.set_len(0).map_err(&failed)?;
        file.rewind().map_err(&failed)?;
        write!(file, "{}", std::process::id()).map_err(&failed)?;
        Ok(Self { file })
    }
}

impl Drop for RunLock {
    fn drop(&mut self) {
        // The file stays: removing it would let one process lock the old file and another a new one.
        let _ = self.file.set_len(0);
        let _ = self.file.unlock();
    }
}

fn named(holder: &str) -> String {
    match holder.trim() {
        "" => "another process".to_owned(),
        number => format!("process {number}"),
    }
}

/// Whether another process of this number runs. Without `/proc` it counts as gone.
fn is_alive(holder: &str) -> bool {
    match holder.trim().parse::<u32>() {
        Ok(number) => number != std::process::id() && fs::exists(format!("/proc/{number}")).unwrap_or(false),
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_folder_is_refused_and_a_stale_lock_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        let lock = RunLock::acquire(folder.path()).unwrap();
        let error = RunLock::acquire(folder.path()).unwrap_err();
        let process = std::process::id();
        assert!(error.to_string().contains(&format!("in use by process {process}")), "{error}");
        drop(lock);

        // What a killed process leaves behind; process 1 is always alive, and yet it does not hold this lock.
        for stale in ["4194999", "1", "", "nonsense"] {
            fs::write(folder.path().join(FILE_NAME), stale).unwrap();
            let lock = RunLock::acquire(folder.path()).unwrap();
            assert_eq!(fs::read_to_string(folder.path().join(FILE_NAME)).unwrap(), process.to_string());
            drop(lock);
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn process_numbers_are_looked_up() {
        assert!(is_alive("1"));
        assert!(!is_alive("4194999"));
        assert!(!is_alive(""));
        assert!(!is_alive(&std::process::id().to_string()));
    }
}
