//! What is written down of a job, so that a process that was killed goes on where it was.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use earthmapper::Modality;
use earthmapper_geo::atomic_write;
use earthmapper_geo::store::TileFormat;
use earthmapper_geo::tile::BoundingBox;
use serde::{Deserialize, Serialize};

/// What a client asks for.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct JobRequest {
    /// Id of the source.
    pub source: String,
    /// What is made.
    pub to: Modality,
    /// West, south, east, north in degrees.
    pub bbox: BoundingBox,
    /// The lowest zoom.
    pub min_zoom: u8,
    /// The deepest zoom.
    pub max_zoom: u8,
    /// Seed of the whole pyramid.
    #[serde(default)]
    pub seed: u64,
    /// How tiles are encoded.
    #[serde(default)]
    pub format: JobFormat,
}

/// Names of [`TileFormat`].
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum JobFormat {
    /// PNG.
    #[default]
    Png,
    /// JPEG.
    Jpg,
    /// WebP.
    Webp,
}

impl From<JobFormat> for TileFormat {
    fn from(format: JobFormat) -> Self {
        match format {
            JobFormat::Png => Self::Png,
            JobFormat::Jpg => Self::Jpeg,
            JobFormat::Webp => Self::WebP,
        }
    }
}

/// How far a job is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// Others come first.
    Waiting,
    /// Tiles are made.
    Running,
    /// The result is there.
    Done,
    /// Somebody stopped it.
    Cancelled,
    /// It could not be done.
    Failed,
}

impl JobState {
    /// Whether nothing more will happen.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Cancelled | Self::Failed)
    }
}

/// What is written down.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// 32 hexadecimal digits that nobody guesses.
    pub id: String,
    /// What was asked for.
    pub request: JobRequest,
    /// How far it is.
    pub state: JobState,
    /// Seconds since 1970 at which it was asked for.
    pub created: u64,
    /// Order among those of one second.
    pub number: u64,
    /// Tiles that could not be made.
    pub failed: u64,
}

/// The folder of jobs: per job `ID.json`, while it runs `ID.mbtiles`, and in the end `ID.pmtiles`.
#[derive(Clone, Debug)]
pub struct Journal {
    folder: PathBuf,
}

impl Journal {
    /// Opens a folder, which is made if there is none, and reads what is written down, the oldest first. Files that are
    /// not understood are left alone and told of in the log.
    ///
    /// # Errors
    /// When the folder cannot be made or read.
    pub fn open(folder: &Path) -> io::Result<(Self, Vec<Entry>)> {
        fs::create_dir_all(folder)?;
        let mut entries = Vec::new();
        for file in fs::read_dir(folder)? {
            let path = file?.path();
            if path.extension().is_none_or(|ending| ending != "json") {
                continue;
            }
            match fs::read(&path).map(|bytes| serde_json::from_slice::<Entry>(&bytes)) {
                Ok(Ok(entry)) if path.file_stem().is_some_and(|stem| *stem == *entry.id) => {
                    entries.push(entry)
                }
                Ok(Ok(_)) => tracing::warn!("{}: names another job; it is left alone", path.display()),
                Ok(Err(error)) => tracing::warn!("{}: {error}; it is left alone", path.display()),
                Err(error) => tracing::warn!("{}: {error}; it is left alone", path.display()),
            }
        }
        entries.sort_by_key(|entry| (entry.created, entry.number));
        Ok((Self { folder: folder.to_owned() }, entries))
    }

    fn path(&self, id: &str, ending: &str) -> PathBuf {
        self.folder.join(format!("{id}.{ending}"))
    }

    /// Tiles of a job that runs.
    pub fn tiles(&self, id: &str) -> PathBuf {
        self.path(id, "mbtiles")
    }

    /// The result of a job.
    pub fn result(&self, id: &str) -> PathBuf {
        self.path(id, "pmtiles")
    }

    /// Writes an entry down, whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, entry: &Entry) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(entry).expect("plain data");
        atomic_write(&self.path(&entry.id, "json"), &text, true).map_err(io::Error::other)
    }

    /// Forgets the tiles of a job but not the job.
    pub fn remove_tiles(&self, id: &str) {
        for ending in ["mbtiles", "mbtiles-journal", "mbtiles-wal", "mbtiles-shm"] {
            let _ = fs::remove_file(self.path(id, ending));
        }
    }

    /// Forgets a job.
    pub fn remove(&self, id: &str) {
        // The entry first: tiles without an entry are garbage, an entry without tiles would be a job to do again.
        let _ = fs::remove_file(self.path(id, "json"));
        let _ = fs::remove_file(self.result(id));
        self.remove_tiles(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: &str, created: u64) -> Entry {
        let request = JobRequest {
            source: "town".into(),
            to: Modality::Satellite,
            bbox: "-1,-1,1,1".parse().unwrap(),
            min_zoom: 3,
            max_zoom: 4,
            seed: 5,
            format: JobFormat::Jpg,
        };
        Entry { id: id.into(), request, state: JobState::Waiting, created, number: 0, failed: 0 }
    }

    #[test]
    fn entries_come_back_in_order_and_rubbish_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (journal, found) = Journal::open(folder.path()).unwrap();
        assert!(found.is_empty());
        journal.write(&entry("b", 1)).unwrap();
        journal.write(&entry("a", 2)).unwrap();
        fs::write(folder.path().join("c.json"), "{").unwrap();
        fs::write(folder.path().join("d.json"), fs::read(folder.path().join("a.json")).unwrap()).unwrap();
        let (journal, found) = Journal::open(folder.path()).unwrap();
        assert_eq!(found, [entry("b", 1), entry("a", 2)]);
        journal.remove("a");
        assert_eq!(Journal::open(folder.path()).unwrap().1.len(), 1);
        assert!(folder.path().join("c.json").exists());
    }
}
