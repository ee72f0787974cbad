//! `state.json`: the last file of a checkpoint, which vouches for the others.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use earthmapper_geo::files::atomic_write;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::RunError;
use super::checkpoints::{Checkpoint, names_in};

/// Name of the file.
pub(super) const STATE_FILE: &str = "state.json";

/// Stands in for the checksum of `state.json` while that checksum is taken.
const NO_CHECKSUM: &str = "0000000000000000000000000000000000000000000000000000000000000000";

#[derive(Deserialize, Serialize)]
struct StateFile {
    format: u32,
    step: u64,
    epoch: u64,
    seconds: f64,
    state: Value,
    files: BTreeMap<String, FileRecord>,
    /// Of this very file with zeros here; last, so that it is found at a glance.
    sha256: String,
}

#[derive(Deserialize, Eq, PartialEq, Serialize)]
struct FileRecord {
    bytes: u64,
    sha256: String,
}

/// Forces every file to the disk and writes `state.json` with their checksums as the last one.
pub(super) fn seal(folder: &Path, checkpoint: &Checkpoint) -> Result<(), RunError> {
    let mut files = BTreeMap::new();
    record_folder(folder, "", &mut files)?;
    let mut state = StateFile {
        format: 1,
        step: checkpoint.step,
        epoch: checkpoint.epoch,
        seconds: checkpoint.seconds,
        state: checkpoint.state.clone(),
        files,
        sha256: NO_CHECKSUM.to_owned(),
    };
    let path = folder.join(STATE_FILE);
    let text = |state: &StateFile| {
        let pretty = serde_json::to_string_pretty(state).map_err(|cause| RunError::io(&path)(cause.into()));
        pretty.map(|text| text + "\n")
    };
    state.sha256 = sha256_of(text(&state)?.as_bytes());
    atomic_write(&path, text(&state)?.as_bytes(), true)?;
    flush_folder(folder)
}

fn record_folder(
    folder: &Path,
    prefix: &str,
    files: &mut BTreeMap<String, FileRecord>,
) -> Result<(), RunError> {
    for name in names_in(folder)? {
        let path = folder.join(&name);
        if prefix.is_empty() && name == STATE_FILE {
            let cause = "state.json is the run's own file; choose another name".into();
            return Err(RunError::CheckpointNotWritten { folder: folder.to_owned(), cause });
        }
        if path.is_dir() {
            record_folder(&path, &format!("{prefix}{name}/"), files)?;
            flush_folder(&path)?;
        } else {
            File::open(&path).and_then(|file| file.sync_all()).map_err(RunError::io(&path))?;
            files.insert(format!("{prefix}{name}"), record_of(&path).map_err(RunError::io(&path))?);
        }
    }
    Ok(())
}

fn record_of(path: &Path) -> io::Result<FileRecord> {
    let mut digest = Sha256::new();
    let bytes = io::copy(&mut File::open(path)?, &mut digest)?;
    Ok(FileRecord { bytes, sha256: hexadecimal(&digest.finalize()) })
}

fn sha256_of(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads a checkpoint back and compares every file with its checksum; the error is the reason in words.
pub(super) fn verified(folder: &Path, step: u64) -> Result<Checkpoint, String> {
    let text =
        fs::read_to_string(folder.join(STATE_FILE)).map_err(|cause| format!("{STATE_FILE}: {cause}"))?;
    let state: StateFile =
        serde_json::from_str(&text).map_err(|cause| format!("{STATE_FILE} is damaged: {cause}"))?;
    if sha256_of(text.replacen(&state.sha256, NO_CHECKSUM, 1).as_bytes()) != state.sha256 {
        return Err(format!("{STATE_FILE} does not match its checksum"));
    }
    if state.format != 1 {
        return Err(format!("{STATE_FILE} has format {}, written by a newer version", state.format));
    }
    if state.step != step {
        return Err(format!("{STATE_FILE} is of step {}", state.step));
    }
    for (name, expected) in &state.files {
        let found = record_of(&folder.join(name)).map_err(|cause| format!("{name}: {cause}"))?;
        if found.bytes != expected.bytes {
            return Err(format!("{name} has {} of {} bytes", found.bytes, expected.bytes));
        }
        if found.sha256 != expected.sha256 {
            return Err(format!("{name} does not match its checksum"));
        }
    }
    let StateFile { epoch, seconds, state, .. } = state;
    Ok(Checkpoint { folder: folder.to_owned(), step, epoch, seconds, state })
}

/// Makes the names inside a folder survive a power cut.
pub(super) fn flush_folder(folder: &Path) -> Result<(), RunError> {
    if cfg!(unix) {
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(RunError::io(folder))?;
    }
    Ok(())
}
