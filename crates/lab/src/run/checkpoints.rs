//! `checkpoints/step-N`: written whole or not at all, checked before use, the old ones cleared away.

use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use earthmapper_geo::files::atomic_write;
use serde_json::Value;

use super::RunError;
use super::seal::{flush_folder, seal, verified};

/// Begins the name of whatever is being written or removed. A crash leaves such names behind; they mean
/// nothing.
const TEMPORARY_PREFIX: &str = ".tmp-";

/// A checkpoint that has been read back and found whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// Its folder, which holds the files that the trainer wrote.
    pub folder: PathBuf,
    /// The last step that it includes.
    pub step: u64,
    /// The epoch of that step.
    pub epoch: u64,
    /// Wall-clock seconds of training up to that step.
    pub seconds: f64,
    /// What the trainer saved beside its files: random states, data position, best value.
    pub state: Value,
}

impl Checkpoint {
    /// The newest whole checkpoint of a run that may still be going on.
    ///
    /// # Errors
    ///
    /// [`RunError::NoCheckpoint`] when there is none, [`RunError::AllDamaged`] when none is whole.
    pub fn newest(run_folder: &Path) -> Result<Self, RunError> {
        let found = Checkpoints::of(run_folder).newest_whole()?.0;
        found.ok_or_else(|| RunError::NoCheckpoint { folder: run_folder.to_owned() })
    }

    /// The best checkpoint of a run that may still be going on; the newest if none was named the best.
    ///
    /// # Errors
    ///
    /// [`RunError::Damaged`] when the best one is not whole, and as [`newest`](Self::newest).
    pub fn best(run_folder: &Path) -> Result<Self, RunError> {
        let checkpoints = Checkpoints::of(run_folder);
        match checkpoints.best_step() {
            None => Self::newest(run_folder),
            Some(step) => verified(&checkpoints.folder_of(step), step)
                .map_err(|reason| RunError::Damaged { folder: checkpoints.folder_of(step), reason }),
        }
    }
}

/// The step of a damaged checkpoint and what is wrong with it.
type Damage = (u64, String);

/// The checkpoints of one run.
#[derive(Debug)]
pub(super) struct Checkpoints {
    run_folder: PathBuf,
    folder: PathBuf,
}

impl Checkpoints {
    pub(super) fn of(run_folder: &Path) -> Self {
        Self { run_folder: run_folder.to_owned(), folder: run_folder.join("checkpoints") }
    }

    pub(super) fn folder_of(&self, step: u64) -> PathBuf {
        self.folder.join(format!("step-{step}"))
    }

    /// Writes `checkpoint` (whose folder is still to be set) with the files that `write` puts into the folder
    /// it is given, and points `last` at it.
    pub(super) fn save<E: Into<Box<dyn Error + Send + Sync>>>(
        &self,
        mut checkpoint: Checkpoint,
        write: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<Checkpoint, RunError> {
        let name = format!("step-{}", checkpoint.step);
        let target = self.folder.join(&name);
        let temporary = self.folder.join(format!("{TEMPORARY_PREFIX}{name}"));
        remove(&temporary)?;
        fs::create_dir_all(&temporary).map_err(RunError::io(&temporary))?;
        let written = write(&temporary)
            .map_err(|cause| RunError::CheckpointNotWritten { folder: target.clone(), cause: cause.into() })
            .and_then(|()| seal(&temporary, &checkpoint));
        if let Err(error) = written {
            // The error tells more than a failure to clean up would; the next start cleans up again.
            let _ = fs::remove_dir_all(&temporary);
            return Err(error);
        }
        self.discard(&target)?;
        fs::rename(&temporary, &target).map_err(RunError::io(&target))?;
        flush_folder(&self.folder)?;
        atomic_write(&self.run_folder.join("last"), format!("{name}\n").as_bytes(), true)?;
        checkpoint.folder = target;
        Ok(checkpoint)
    }

    /// Points `best` at a checkpoint.
    pub(super) fn mark_best(&self, step: u64) -> Result<(), RunError> {
        let folder = self.folder_of(step);
        if !folder.is_dir() {
            return Err(RunError::Damaged { folder, reason: "it does not exist".to_owned() });
        }
        Ok(atomic_write(&self.run_folder.join("best"), format!("step-{step}\n").as_bytes(), true)?)
    }

    /// The step that `best` names.
    pub(super) fn best_step(&self) -> Option<u64> {
        fs::read_to_string(self.run_folder.join("best")).ok().and_then(|name| step_of(name.trim()))
    }

    /// Removes all but the newest `keep` and the best.
    pub(super) fn prune(&self, keep: usize) -> Result<(), RunError> {
        let best = self.best_step();
        for step in self.steps()?.into_iter().rev().skip(keep.max(1)) {
            if Some(step) != best {
                self.discard(&self.folder_of(step))?;
            }
        }
        Ok(())
    }

    /// The newest whole checkpoint, and the damaged ones that are newer, each with the reason.
    ///
    /// Whole ones are judged by their contents, not by `last`, which a crash may have left one behind.
    pub(super) fn newest_whole(&self) -> Result<(Option<Checkpoint>, Vec<Damage>), RunError> {
        let mut damaged = Vec::new();
        for step in self.steps()?.into_iter().rev() {
            match verified(&self.folder_of(step), step) {
                Ok(checkpoint) => return Ok((Some(checkpoint), damaged)),
                Err(reason) => damaged.push((step, reason)),
            }
        }
        if damaged.is_empty() {
            return Ok((None, damaged));
        }
        let reasons: Vec<_> = damaged.iter().map(|(step, reason)| format!("step-{step}: {reason}")).collect();
        Err(RunError::AllDamaged { folder: self.folder.clone(), reasons: reasons.join("; ") })
    }

    /// Finds where to resume and leaves the folder as if the run had just saved that checkpoint: what a crash
    /// left behind is removed, what is damaged is set aside under another name and reported.
    pub(super) fn recover(&self) -> Result<Option<Checkpoint>, RunError> {
        self.remove_leftovers()?;
        let (found, damaged) = self.newest_whole()?;
        for (step, reason) in damaged {
            let aside = self.set_aside(step, "damaged")?;
            tracing::warn!("{}: damaged checkpoint passed over: {reason}", aside.display());
        }
        match &found {
            Some(checkpoint) => {
                let name = format!("step-{}\n", checkpoint.step);
                atomic_write(&self.run_folder.join("last"), name.as_bytes(), true)?;
            }
            None => remove(&self.run_folder.join("last"))?,
        }
        if let Some(step) = self.best_step().filter(|&step| !self.folder_of(step).is_dir()) {
            tracing::warn!("the best checkpoint, step-{step}, is gone; the next best will take its place");
            remove(&self.run_folder.join("best"))?;
        }
        Ok(found)
    }

    /// Gives the checkpoint of a step, if there is one, a name under which nothing looks for it.
    pub(super) fn set_aside(&self, step: u64, why: &str) -> Result<PathBuf, RunError> {
        let (folder, aside) = (self.folder_of(step), self.folder.join(format!("{why}-step-{step}")));
        if folder.exists() {
            remove(&aside)?;
            fs::rename(&folder, &aside).map_err(RunError::io(&folder))?;
        }
        Ok(aside)
    }

    fn remove_leftovers(&self) -> Result<(), RunError> {
        for name in names_in(&self.folder)? {
            if name.starts_with(TEMPORARY_PREFIX) {
                remove(&self.folder.join(name))?;
            }
        }
        Ok(())
    }

    /// Steps that have a checkpoint, ascending.
    fn steps(&self) -> Result<Vec<u64>, RunError> {
        let mut steps: Vec<_> = names_in(&self.folder)?.iter().filter_map(|name| step_of(name)).collect();
        steps.sort_unstable();
        Ok(steps)
    }

    /// Removes a checkpoint. It loses its name first, so that a crash midway leaves no half checkpoint under
    /// it.
    fn discard(&self, folder: &Path) -> Result<(), RunError> {
        let Some(name) = folder.file_name().filter(|_| folder.exists()) else { return Ok(()) };
        let doomed = self.folder.join(format!("{TEMPORARY_PREFIX}remove-{}", name.to_string_lossy()));
        remove(&doomed)?;
        fs::rename(folder, &doomed).map_err(RunError::io(folder))?;
        remove(&doomed)
    }
}

fn step_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("step-")?;
    digits.parse().ok().filter(|step: &u64| step.to_string() == digits)
}

/// Names in a folder; none if it does not exist.
pub(super) fn names_in(folder: &Path) -> Result<Vec<String>, RunError> {
    let entries = match fs::read_dir(folder) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(RunError::io(folder))?,
    };
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    names.collect::<io::Result<_>>().map_err(RunError::io(folder))
}

/// Removes a file or a folder if it is there.
pub(super) fn remove(path: &Path) -> Result<(), RunError> {
    let removed = match fs::symlink_metadata(path) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(()),
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        _ => fs::remove_file(path),
    };
    removed.map_err(RunError::io(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::seal::STATE_FILE;
    use serde_json::json;

    fn save(checkpoints: &Checkpoints, step: u64) -> Checkpoint {
        let checkpoint = Checkpoint {
            folder: PathBuf::new(),
            step,
            epoch: step / 10,
            seconds: 0.1 * step as f64,
            state: json!({ "random": [step, u64::MAX], "best": 0.1 + 0.2 }),
        };
        let write = |folder: &Path| -> io::Result<()> {
            fs::write(folder.join("model.safetensors"), vec![step as u8; 1000])?;
            fs::create_dir(folder.join("optimizer"))?;
            fs::write(folder.join("optimizer/moments.bin"), b"moments")
        };
        checkpoints.save(checkpoint, write).unwrap()
    }

    fn names(checkpoints: &Checkpoints) -> Vec<String> {
        let mut names = names_in(&checkpoints.folder).unwrap();
        names.sort();
        names
    }

    #[test]
    fn what_is_saved_is_recovered() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::of(folder.path());
        assert_eq!(checkpoints.recover().unwrap(), None);
        assert!(matches!(Checkpoint::newest(folder.path()), Err(RunError::NoCheckpoint { .. })));
        save(&checkpoints, 9);
        let saved = save(&checkpoints, 10);
        assert_eq!(checkpoints.recover().unwrap().unwrap(), saved);
        assert_eq!(Checkpoint::newest(folder.path()).unwrap(), saved);
        assert_eq!(fs::read_to_string(folder.path().join("last")).unwrap(), "step-10\n");
        // Saving a step again replaces it.
        assert_eq!(save(&checkpoints, 10), saved);
        assert_eq!(names(&checkpoints), ["step-10", "step-9"]);
    }

    #[test]
    fn old_ones_are_cleared_away_but_not_the_best() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::of(folder.path());
        for step in [1, 2, 3, 10, 11] {
            save(&checkpoints, step);
            if step == 2 {
                checkpoints.mark_best(step).unwrap();
            }
            checkpoints.prune(2).unwrap();
        }
        assert_eq!(names(&checkpoints), ["step-10", "step-11", "step-2"]);
        assert_eq!(Checkpoint::best(folder.path()).unwrap().step, 2);
        assert!(checkpoints.mark_best(5).unwrap_err().to_string().contains("step-5"));
    }

    #[test]
    fn a_failed_write_leaves_the_older_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::of(folder.path());
        let saved = save(&checkpoints, 1);
        let write = |folder: &Path| -> Result<(), io::Error> {
            fs::write(folder.join("model.safetensors"), b"half")?;
            Err(io::Error::from(io::ErrorKind::StorageFull))
        };
        let error = checkpoints.save(Checkpoint { step: 2, ..saved.clone() }, write).unwrap_err();
        assert!(matches!(error, RunError::CheckpointNotWritten { .. }), "{error}");
        assert!(error.to_string().contains("step-2"), "{error}");
        assert_eq!(names(&checkpoints), ["step-1"]);
        assert_eq!(checkpoints.recover().unwrap().unwrap(), saved);
    }

    #[test]
    fn leftovers_of_a_crash_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::of(folder.path());
        let saved = save(&checkpoints, 1);
        // Killed while writing step 2, and while removing step 0.
        fs::create_dir(checkpoints.folder.join(".tmp-step-2")).unwrap();
        fs::write(checkpoints.folder.join(".tmp-step-2/model.safetensors"), b"half").unwrap();
        fs::create_dir(checkpoints.folder.join(".tmp-remove-step-0")).unwrap();
        // Killed between saving step 1 and saying so.
        fs::write(folder.path().join("last"), "step-0\n").unwrap();
        assert_eq!(checkpoints.recover().unwrap().unwrap(), saved);
        assert_eq!(names(&checkpoints), ["step-1"]);
        assert_eq!(fs::read_to_string(folder.path().join("last")).unwrap(), "step-1\n");
    }

    type Harm = fn(&Path);

    #[test]
    fn a_damaged_one_is_named_and_an_older_one_used() {
        let damages: [(Harm, &str); 6] = [
            (|folder| fs::write(folder.join("model.safetensors"), vec![9; 1000]).unwrap(), "its checksum"),
            (|folder| fs::write(folder.join("model.safetensors"), b"short").unwrap(), "5 of 1000 bytes"),
            (
                |folder| fs::remove_file(folder.join("optimizer/moments.bin")).unwrap(),
                "optimizer/moments.bin",
            ),
            (|folder| fs::remove_file(folder.join(STATE_FILE)).unwrap(), STATE_FILE),
            (|folder| fs::write(folder.join(STATE_FILE), b"{\"format\":1").unwrap(), "is damaged"),
            (
                |folder| {
                    let path = folder.join(STATE_FILE);
                    let text = fs::read_to_string(&path).unwrap().replacen("\"epoch\": 0", "\"epoch\": 5", 1);
                    fs::write(path, text).unwrap();
                },
                "state.json does not match its checksum",
            ),
        ];
        for (damage, reason) in damages {
            let folder = tempfile::tempdir().unwrap();
            let checkpoints = Checkpoints::of(folder.path());
            let older = save(&checkpoints, 1);
            damage(&save(&checkpoints, 2).folder);
            checkpoints.mark_best(2).unwrap();

            let (_, damaged) = checkpoints.newest_whole().unwrap();
            assert_eq!(damaged[0].0, 2);
            assert!(damaged[0].1.contains(reason), "{}", damaged[0].1);
            let error = Checkpoint::best(folder.path()).unwrap_err();
            assert!(error.to_string().contains(reason), "{error}");
            assert_eq!(Checkpoint::newest(folder.path()).unwrap(), older);

            assert_eq!(checkpoints.recover().unwrap().unwrap(), older);
            assert_eq!(names(&checkpoints), ["damaged-step-2", "step-1"]);
            assert_eq!(checkpoints.best_step(), None);

            damage(&older.folder);
            let error = checkpoints.recover().unwrap_err();
            assert!(matches!(error, RunError::AllDamaged { .. }), "{error}");
            assert!(error.to_string().contains("step-1: "), "{error}");
        }
    }
}
