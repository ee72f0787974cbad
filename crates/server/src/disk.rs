//! What was made, kept in a folder, bounded in bytes; what was written first goes first. It outlasts the process.
//!
//! Files are named by their key, a digest of everything that they depend on, so none is ever wrong, and several
//! processes may share a folder (each then counts only what it saw).

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use axum::body::Bytes;
use earthmapper_geo::atomic_write;

/// A cache in a folder.
pub struct DiskCache {
    folder: PathBuf,
    limit: u64,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// Files, the oldest first, each with its bytes.
    files: VecDeque<(PathBuf, u64)>,
    bytes: u64,
}

impl DiskCache {
    /// Opens a folder, which is made if there is none.
    ///
    /// # Errors
    /// When the folder cannot be made or read.
    pub fn open(folder: &Path, limit: u64) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let mut found: Vec<(SystemTime, PathBuf, u64)> = Vec::new();
        for part in fs::read_dir(folder)? {
            let part = part?.path();
            // Folders of two letters are ours; nothing else in the folder is touched.
            if part.file_name().is_none_or(|name| name.len() != 2) || !part.is_dir() {
                continue;
            }
            for file in fs::read_dir(part)? {
                let file = file?;
                let metadata = file.metadata()?;
                if metadata.is_file() {
                    let time = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                    found.push((time, file.path(), metadata.len()));
                }
            }
        }
        found.sort();
        let mut kept = Kept::default();
        for (_, path, bytes) in found {
            kept.bytes += bytes;
            kept.files.push_back((path, bytes));
        }
        Ok(Self { folder: folder.to_owned(), limit, kept: Mutex::new(kept) })
    }

    /// Keys are digests in hexadecimal.
    fn path(&self, key: &str) -> PathBuf {
        self.folder.join(&key[..2]).join(key)
    }

    /// What is kept under a key.
    pub fn get(&self, key: &str) -> Option<Bytes> {
        fs::read(self.path(key)).ok().map(Bytes::from)
    }

    /// Keeps bytes. A full or broken disk is no reason to refuse a tile: it is logged.
    pub fn put(&self, key: &str, bytes: &[u8]) {
        let path = self.path(key);
        if path.exists() {
            return;
        }
        let folder = path.parent().expect("a folder of two letters");
        let written = fs::create_dir_all(folder).map_err(|error| error.to_string());
        let written =
            written.and_then(|()| atomic_write(&path, bytes, true).map_err(|error| error.to_string()));
        if let Err(error) = written {
            tracing::warn!("the cache keeps nothing: {error}");
            return;
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.bytes += bytes.len() as u64;
        kept.files.push_back((path, bytes.len() as u64));
        while kept.bytes > self.limit {
            let Some((oldest, bytes)) = kept.files.pop_front() else { break };
            kept.bytes -= bytes;
            let _ = fs::remove_file(oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_outlast_the_process_and_stay_within_the_bound() {
        let folder = tempfile::tempdir().unwrap();
        let cache = DiskCache::open(folder.path(), 250).unwrap();
        cache.put("aa01", &[1; 100]);
        cache.put("bb02", &[2; 100]);
        assert_eq!(cache.get("aa01").unwrap(), vec![1; 100]);
        let again = DiskCache::open(folder.path(), 250).unwrap();
        assert_eq!(again.get("bb02").unwrap(), vec![2; 100]);
        again.put("cc03", &[3; 100]);
        let left = ["aa01", "bb02", "cc03"].iter().filter(|key| again.get(key).is_some()).count();
        assert_eq!(left, 2);
        assert!(again.get("cc03").is_some());
    }

    #[test]
    fn what_is_not_ours_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("letter.txt"), [0; 1000]).unwrap();
        let cache = DiskCache::open(folder.path(), 10).unwrap();
        cache.put("aa01", &[1; 5]);
        cache.put("aa02", &[1; 9]);
        assert!(folder.path().join("letter.txt").exists());
    }
}
