//! The folder of a training run: everything it says and everything it needs to go on after a kill.
//!
//! | path | holds |
//! |---|---|
//! | `config.toml` | the resolved configuration |
//! | `config-until-step-N.toml` | the one before, of a run that was resumed with other settings |
//! | `env.json` | a list with one [`Environment`] per start |
//! | `metrics.jsonl` | one line a step: `step`, `epoch`, `seconds`, then the numbers by name |
//! | `events.out.tfevents.*` | the same numbers and the samples for TensorBoard |
//! | `samples/step-N-NAME.png` | pictures made on the way |
//! | `checkpoints/step-N/` | the trainer's files and `state.json`, which vouches for them |
//! | `last`, `best` | the name of a checkpoint |
//! | `run.lock` | keeps a second process out |
//!
//! A run killed at any moment leaves a folder that [`Run::resume`] can continue, and the continued log has no
//! step twice.

mod checkpoints;
mod environment;
mod error;
mod lock;
mod metrics_log;
mod seal;
mod tensorboard;

use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use earthmapper_geo::files::atomic_write;
use earthmapper_geo::picture::{Picture, WriteOptions, write_picture};
use earthmapper_geo::provenance::Provenance;
use serde_json::Value;

pub use checkpoints::Checkpoint;
pub use environment::Environment;
pub use error::RunError;

use checkpoints::{Checkpoints, remove};
pub(crate) use lock::RunLock;
use metrics_log::MetricsLog;
use tensorboard::EventWriter;

/// What to do when the folder of a new run holds something.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Existing {
    /// Refuse.
    #[default]
    Keep,
    /// Remove the run that is there, never anything else.
    Overwrite,
}

/// What the file of a configuration that is no longer in force begins with.
const FORMER_CONFIG: &str = "config-until-step-";

/// An open run. Its folder is locked until this is dropped.
#[derive(Debug)]
pub struct Run {
    folder: PathBuf,
    config: String,
    metrics: MetricsLog,
    events: EventWriter,
    checkpoints: Checkpoints,
    kept_checkpoints: usize,
    started: Instant,
    seconds_before: f64,
    _lock: RunLock,
}

impl Run {
    /// Starts a run in a folder that is new or empty.
    ///
    /// # Errors
    ///
    /// [`RunError::NotEmpty`] unless `existing` says to overwrite, [`RunError::Foreign`] when overwriting would touch
    /// a folder that is no run's, [`RunError::InUse`], and those about writing.
    pub fn create(
        folder: &Path,
        config: &str,
        environment: &Environment,
        existing: Existing,
    ) -> Result<Self, RunError> {
        // Looked at before the lock as well, so that a refusal leaves nothing in somebody's folder.
        check_empty(folder, existing)?;
        let is_new = !folder.exists();
        let run = Self::create_in(folder, config, environment, existing);
        let theirs =
            matches!(run, Err(RunError::InUse { .. } | RunError::NotEmpty { .. } | RunError::Foreign { .. }));
        if run.is_err() && is_new && !theirs {
            // A disk that is full, most likely. What was made a moment ago holds nothing yet.
            let _ = fs::remove_dir_all(folder);
        }
        run
    }

    fn create_in(
        folder: &Path,
        config: &str,
        environment: &Environment,
        existing: Existing,
    ) -> Result<Self, RunError> {
        fs::create_dir_all(folder).map_err(RunError::io(folder))?;
        let lock = RunLock::acquire(folder)?;
        check_empty(folder, existing)?;
        for name in contents(folder)?.into_iter().filter(|name| is_of_a_run(name)) {
            remove(&folder.join(name))?;
        }
        for name in ["samples", "checkpoints"] {
            let path = folder.join(name);
            fs::create_dir(&path).map_err(RunError::io(&path))?;
        }
        write_environments(folder, vec![json_of(environment)])?;
        // Last, because its presence says that there is a run to resume.
        atomic_write(&folder.join("config.toml"), config.as_bytes(), true)?;
        Self::open(folder, config.to_owned(), lock, None)
    }

    /// Goes on with a run from its newest whole checkpoint; damaged ones are named in the log and set aside.
    ///
    /// Without any checkpoint the run starts again at its beginning and the second value is `None`.
    ///
    /// # Errors
    ///
    /// [`RunError::NoRun`], [`RunError::InUse`], [`RunError::AllDamaged`], and those about reading and writing.
    pub fn resume(folder: &Path, environment: &Environment) -> Result<(Self, Option<Checkpoint>), RunError> {
        let path = folder.join("config.toml");
        if !path.is_file() {
            return Err(RunError::NoRun { folder: folder.to_owned() });
        }
        let lock = RunLock::acquire(folder)?;
        let config = fs::read_to_string(&path).map_err(RunError::io(&path))?;
        let checkpoint = Checkpoints::of(folder).recover()?;
        // A list that cannot be read is no reason to stop a run; it is only a record.
        let known = fs::read_to_string(folder.join("env.json")).unwrap_or_default();
        let mut environments: Vec<Value> = serde_json::from_str(&known).unwrap_or_default();
        environments.push(json_of(environment));
        write_environments(folder, environments)?;
        let run = Self::open(folder, config, lock, checkpoint.as_ref())?;
        Ok((run, checkpoint))
    }

    fn open(
        folder: &Path,
        config: String,
        lock: RunLock,
        from: Option<&Checkpoint>,
    ) -> Result<Self, RunError> {
        let step = from.map(|checkpoint| checkpoint.step);
        Ok(Self {
            folder: folder.to_owned(),
            config,
            metrics: MetricsLog::open(&folder.join("metrics.jsonl"), step)?,
            events: EventWriter::start(folder, step.map_or(0, |step| step + 1))?,
            checkpoints: Checkpoints::of(folder),
            kept_checkpoints: 3,
            started: Instant::now(),
            seconds_before: from.map_or(0.0, |checkpoint| checkpoint.seconds),
            _lock: lock,
        })
    }

    /// Goes on from `step` with another configuration; the one before is kept as `config-until-step-N.toml`.
    ///
    /// # Errors
    ///
    /// Those about writing.
    pub fn reconfigure(&mut self, step: u64, config: &str) -> Result<(), RunError> {
        let former = self.folder.join(format!("{FORMER_CONFIG}{step}.toml"));
        // Two changes before the next step: the first one was never in force.
        if !former.exists() {
            atomic_write(&former, self.config.as_bytes(), true)?;
        }
        atomic_write(&self.folder.join("config.toml"), config.as_bytes(), true)?;
        self.config = config.to_owned();
        Ok(())
    }

    /// Sets how many of the newest checkpoints are kept beside the best one; 3 by default, at least 1.
    pub fn with_kept_checkpoints(mut self, count: usize) -> Self {
        self.kept_checkpoints = count.max(1);
        self
    }

    /// The run's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The text of `config.toml`.
    pub fn config(&self) -> &str {
        &self.config
    }

    /// Wall-clock seconds of training so far, earlier starts included.
    pub fn seconds(&self) -> f64 {
        self.seconds_before + self.started.elapsed().as_secs_f64()
    }

    /// Logs numbers of a step by name, `train/loss` for example.
    ///
    /// A step may be logged more than once (training, then validation), but steps never go back. Log
    /// everything of a step before its checkpoint, because a resumed run keeps the lines up to its checkpoint
    /// and writes the others again. The names `step`, `epoch` and `seconds` are taken.
    ///
    /// # Errors
    ///
    /// [`RunError::StepWentBack`], and those about writing.
    pub fn log(&mut self, step: u64, epoch: u64, values: &[(&str, f64)]) -> Result<(), RunError> {
        self.metrics.append(step, epoch, self.seconds(), values)?;
        self.events.scalars(step, values)
    }

    /// Writes a picture to `samples/step-N-NAME.png` and to TensorBoard; returns the file.
    ///
    /// The file says that a model made it. `name` becomes part of a file name: whatever is not a letter, a
    /// digit, `-`, `_` or `.` becomes `-`.
    ///
    /// # Errors
    ///
    /// Those about writing.
    pub fn sample(&mut self, step: u64, name: &str, picture: &Picture) -> Result<PathBuf, RunError> {
        let plain = |letter: char| letter.is_alphanumeric() || matches!(letter, '-' | '_' | '.');
        let file_name: String = name.chars().map(|letter| if plain(letter) { letter } else { '-' }).collect();
        let folder = self.folder.join("samples");
        fs::create_dir_all(&folder).map_err(RunError::io(&folder))?;
        let path = folder.join(format!("step-{step}-{file_name}.png"));
        let provenance = Provenance::new(format!("in training, step {step}"), format!("sample {name}"));
        // A resumed run makes the samples after its checkpoint again.
        let options =
            WriteOptions { overwrite: true, provenance: Some(provenance), ..WriteOptions::default() };
        write_picture(&path, picture, &options)?;
        let encoded = fs::read(&path).map_err(RunError::io(&path))?;
        self.events.image(step, name, (picture.width() as usize, picture.height() as usize), encoded)?;
        Ok(path)
    }

    /// Saves a checkpoint: `write` puts its files into the folder it is given; `state` is whatever else the
    /// trainer needs to go on as if nothing had happened. Then `last` names it and older ones are removed.
    ///
    /// Numbers in `state` that must come back bit for bit are best kept as integers or as `f32`/`f64` bits.
    ///
    /// # Errors
    ///
    /// [`RunError::CheckpointNotWritten`] when `write` fails, and those about writing. The earlier checkpoints are
    /// then as they were.
    pub fn save_checkpoint<E: Into<Box<dyn Error + Send + Sync>>>(
        &mut self,
        step: u64,
        epoch: u64,
        state: Value,
        write: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<Checkpoint, RunError> {
        let unsaved = Checkpoint { folder: PathBuf::new(), step, epoch, seconds: self.seconds(), state };
        let saved = self.checkpoints.save(unsaved, write)?;
        self.checkpoints.prune(self.kept_checkpoints)?;
        Ok(saved)
    }

    /// Sets the checkpoint of this step aside under another name, if there is one, because its weights turned out to
    /// be no good; gives back the step of the newest that is left.
    ///
    /// # Errors
    ///
    /// Those about reading and writing.
    pub fn set_aside(&mut self, step: u64) -> Result<Option<u64>, RunError> {
        let aside = self.checkpoints.set_aside(step, "spoiled")?;
        if aside.exists() {
            tracing::warn!("{}: set aside, because its weights lead to no number", aside.display());
        }
        Ok(self.checkpoints.recover()?.map(|checkpoint| checkpoint.step))
    }

    /// Lets `best` name the checkpoint of this step; call it right after saving.
    ///
    /// # Errors
    ///
    /// [`RunError::Damaged`] when there is no such checkpoint, and those about writing.
    pub fn mark_best(&mut self, step: u64) -> Result<(), RunError> {
        self.checkpoints.mark_best(step)?;
        self.checkpoints.prune(self.kept_checkpoints)
    }
}

/// Whether a run writes this name into its folder.
fn is_of_a_run(name: &str) -> bool {
    let names = ["config.toml", "env.json", "metrics.jsonl", "samples", "checkpoints", "last", "best"];
    names.contains(&name)
        || name.starts_with(FORMER_CONFIG)
        || name.starts_with(tensorboard::FILE_PREFIX)
        || is_temporary(name)
}

/// Whether this is what an interrupted atomic write leaves behind.
fn is_temporary(name: &str) -> bool {
    name.starts_with(".earthmapper-") && name.ends_with(".part")
}

fn contents(folder: &Path) -> Result<Vec<String>, RunError> {
    let entries = match fs::read_dir(folder) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(RunError::io(folder))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry.map_err(RunError::io(folder))?.file_name().to_string_lossy().into_owned());
    }
    names.retain(|name| name != lock::FILE_NAME);
    names.sort();
    Ok(names)
}

fn check_empty(folder: &Path, existing: Existing) -> Result<(), RunError> {
    let names = contents(folder)?;
    if existing == Existing::Keep && !names.is_empty() {
        return Err(RunError::NotEmpty { folder: folder.to_owned() });
    }
    // A run's folder may hold notes of its owner, which stay. Anything else could be a home folder.
    let is_a_run = ["config.toml", "env.json"].iter().all(|&name| names.iter().any(|found| found == name));
    match names.into_iter().find(|name| !is_of_a_run(name)) {
        Some(name) if !is_a_run => Err(RunError::Foreign { folder: folder.to_owned(), name }),
        _ => Ok(()),
    }
}

fn json_of(environment: &Environment) -> Value {
    serde_json::to_value(environment).expect("text, numbers and lists are always JSON")
}

fn write_environments(folder: &Path, environments: Vec<Value>) -> Result<(), RunError> {
    let text = format!("{:#}\n", Value::Array(environments));
    Ok(atomic_write(&folder.join("env.json"), text.as_bytes(), true)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn environment() -> Environment {
        Environment::current("cpu", 2)
    }

    fn weights(step: u64) -> impl FnOnce(&Path) -> io::Result<()> {
        move |folder| fs::write(folder.join("weights"), step.to_string())
    }

    /// Logs steps up to `last` and saves a checkpoint at every multiple of 10.
    fn train(run: &mut Run, steps: std::ops::RangeInclusive<u64>) {
        for step in steps {
            run.log(step, step / 100, &[("train/loss", 1.0 / step as f64)]).unwrap();
            if step % 10 == 0 {
                run.save_checkpoint(step, step / 100, json!({ "position": step }), weights(step)).unwrap();
            }
        }
    }

    /// The steps in `metrics.jsonl`.
    fn logged_steps(folder: &Path) -> Vec<u64> {
        let text = fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
        let step = |line| serde_json::from_str::<Value>(line).unwrap()["step"].as_u64().unwrap();
        text.lines().map(step).collect()
    }

    #[test]
    fn a_killed_run_goes_on_from_its_last_checkpoint() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("runs/first");
        let mut run = Run::create(&folder, "depth = 4\n", &environment(), Existing::Keep).unwrap();
        train(&mut run, 1..=27);
        drop(run);
        let log = folder.join("metrics.jsonl");
        fs::write(&log, fs::read_to_string(&log).unwrap() + "{\"step\":28,").unwrap();

        let (mut run, checkpoint) = Run::resume(&folder, &environment()).unwrap();
        let checkpoint = checkpoint.unwrap();
        assert_eq!((checkpoint.step, &checkpoint.state), (20, &json!({ "position": 20 })));
        assert_eq!(fs::read_to_string(checkpoint.folder.join("weights")).unwrap(), "20");
        assert_eq!(run.config(), "depth = 4\n");
        assert!(run.seconds() >= checkpoint.seconds);
        train(&mut run, 21..=40);
        assert_eq!(logged_steps(&folder), (1..=40).collect::<Vec<_>>());
        drop(run);

        let environments = fs::read_to_string(folder.join("env.json")).unwrap();
        let environments: Vec<Environment> = serde_json::from_str(&environments).unwrap();
        assert_eq!(environments.len(), 2);
        assert_eq!(environments[0].threads, 2);
        let event_files = contents(&folder).unwrap();
        assert_eq!(event_files.iter().filter(|name| name.starts_with(tensorboard::FILE_PREFIX)).count(), 2);
        assert_eq!(fs::read_to_string(folder.join("last")).unwrap(), "step-40\n");
        // Three are kept.
        assert_eq!(contents(&folder.join("checkpoints")).unwrap(), ["step-20", "step-30", "step-40"]);
    }

    #[test]
    fn a_run_killed_before_its_first_checkpoint_begins_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut run = Run::create(folder.path(), "", &environment(), Existing::Keep).unwrap();
        train(&mut run, 1..=5);
        drop(run);
        let (mut run, checkpoint) = Run::resume(folder.path(), &environment()).unwrap();
        assert_eq!(checkpoint, None);
        train(&mut run, 1..=3);
        assert_eq!(logged_steps(folder.path()), [1, 2, 3]);
    }

    #[test]
    fn a_damaged_checkpoint_takes_the_log_back_further() {
        let folder = tempfile::tempdir().unwrap();
        let mut run = Run::create(folder.path(), "", &environment(), Existing::Keep).unwrap();
        train(&mut run, 1..=25);
        run.mark_best(10).unwrap();
        drop(run);
        fs::write(folder.path().join("checkpoints/step-20/weights"), "21").unwrap();
        let (run, checkpoint) = Run::resume(folder.path(), &environment()).unwrap();
        let mut run = run.with_kept_checkpoints(1);
        assert_eq!(checkpoint.unwrap().step, 10);
        assert_eq!(logged_steps(folder.path()), (1..=10).collect::<Vec<_>>());
        train(&mut run, 11..=40);
        let names = contents(&folder.path().join("checkpoints")).unwrap();
        assert_eq!(names, ["damaged-step-20", "step-10", "step-40"]);
        assert_eq!(Checkpoint::best(folder.path()).unwrap().step, 10);
    }

    #[test]
    fn nothing_is_trained_over() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("run");
        let run = Run::create(&folder, "one", &environment(), Existing::Keep).unwrap();
        for existing in [Existing::Keep, Existing::Overwrite] {
            let error = Run::create(&folder, "two", &environment(), existing).unwrap_err();
            assert!(matches!(error, RunError::NotEmpty { .. } | RunError::InUse { .. }), "{error}");
        }
        assert!(matches!(Run::resume(&folder, &environment()), Err(RunError::InUse { .. })));
        drop(run);
        let error = Run::create(&folder, "two", &environment(), Existing::Keep).unwrap_err();
        assert!(
            error.to_string().contains("--resume") && error.to_string().contains("--overwrite"),
            "{error}"
        );

        fs::write(folder.join("notes.txt"), "mine").unwrap();
        fs::write(folder.join("best"), "step-7").unwrap();
        let run = Run::create(&folder, "two", &environment(), Existing::Overwrite).unwrap();
        assert_eq!(fs::read_to_string(folder.join("config.toml")).unwrap(), "two");
        assert_eq!(fs::read_to_string(folder.join("notes.txt")).unwrap(), "mine");
        assert!(!folder.join("best").exists());
        drop(run);
    }

    #[test]
    fn folders_of_others_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("samples")).unwrap();
        fs::write(folder.path().join("thesis.tex"), "").unwrap();
        let error = Run::create(folder.path(), "", &environment(), Existing::Overwrite).unwrap_err();
        assert!(error.to_string().contains("thesis.tex"), "{error}");
        let error = Run::resume(folder.path(), &environment()).unwrap_err();
        assert!(matches!(error, RunError::NoRun { .. }), "{error}");
        assert_eq!(contents(folder.path()).unwrap(), ["samples", "thesis.tex"]);
        assert!(!folder.path().join(lock::FILE_NAME).exists());
    }

    #[test]
    fn samples_are_labelled_pictures() {
        let folder = tempfile::tempdir().unwrap();
        let mut run = Run::create(folder.path(), "", &environment(), Existing::Keep).unwrap();
        let picture = Picture::filled(6, 4, [200, 10, 10]);
        let path = run.sample(5, "validation/sheet 1", &picture).unwrap();
        assert_eq!(path, folder.path().join("samples/step-5-validation-sheet-1.png"));
        let read = earthmapper_geo::picture::read_picture(&path, &Default::default()).unwrap();
        assert_eq!(read, picture);
        assert!(earthmapper_geo::provenance::read_provenance(&path).unwrap().is_some());
        run.sample(5, "validation/sheet 1", &picture).unwrap();
    }
}
