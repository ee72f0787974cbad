//! Jobs: all tiles of an area into one file of PMTiles, made when nobody else needs the model.

mod journal;
mod runner;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use earthmapper_geo::BoundingBox;
pub use journal::{Entry, JobFormat, JobRequest, JobState, Journal};
use serde_json::{Value, json};

use crate::config::Limits;
use crate::tiles::TileService;

/// Why a job is not taken.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum JobError {
    /// No source makes this.
    #[error("there is no such source")]
    NoSource,
    /// What is asked for makes no sense; the text says what would.
    #[error("{0}")]
    Refused(String),
    /// Too many wait already.
    #[error("too many jobs are waiting; try again later")]
    Busy,
    /// It cannot be written down.
    #[error("the job could not be written down; the server's log says why")]
    NotWritten,
}

/// A job and how far it is.
struct Job {
    entry: Entry,
    /// Tiles in all; 0 until they are counted.
    total: AtomicU64,
    /// Tiles that are there.
    made: AtomicU64,
    is_cancelled: AtomicBool,
}

impl Job {
    fn new(entry: Entry) -> Self {
        Self {
            entry,
            total: AtomicU64::new(0),
            made: AtomicU64::new(0),
            is_cancelled: AtomicBool::new(false),
        }
    }
}

/// All jobs, by their order.
type Order = (u64, u64);

struct Shared {
    journal: Journal,
    limits: Limits,
    tiles: Arc<TileService>,
    jobs: Mutex<BTreeMap<Order, Arc<Mutex<Job>>>>,
    changed: Condvar,
    is_stopping: AtomicBool,
    number: AtomicU64,
}

/// Takes, shows and stops jobs.
pub struct Jobs {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Jobs {
    /// Opens the folder of jobs and goes on with those that are not finished.
    ///
    /// # Errors
    /// When the folder cannot be used.
    pub fn open(folder: &Path, limits: Limits, tiles: Arc<TileService>) -> io::Result<Self> {
        let (journal, entries) = Journal::open(folder)?;
        let number = entries.iter().map(|entry| entry.number + 1).max().unwrap_or(0);
        let jobs = entries
            .into_iter()
            .map(|entry| ((entry.created, entry.number), Arc::new(Mutex::new(Job::new(entry)))))
            .collect();
        let shared = Arc::new(Shared {
            journal,
            limits,
            tiles,
            jobs: Mutex::new(jobs),
            changed: Condvar::new(),
            is_stopping: AtomicBool::new(false),
            number: AtomicU64::new(number),
        });
        let its = shared.clone();
        let thread = std::thread::Builder::new().name("jobs".into()).spawn(move || runner::run(&its))?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Takes a job.
    ///
    /// # Errors
    /// [`JobError`].
    pub fn create(&self, request: JobRequest) -> Result<Value, JobError> {
        self.shared.check(&request)?;
        let mut jobs = self.shared.jobs();
        let open = jobs.values().filter(|job| !lock(job).entry.state.is_final()).count();
        if open >= self.shared.limits.jobs_waiting {
            return Err(JobError::Busy);
        }
        let created = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let number = self.shared.number.fetch_add(1, Ordering::Relaxed);
        let (id, state) = (unguessable(), JobState::Waiting);
        let entry = Entry { id, request, state, created, number, failed: 0 };
        self.shared.journal.write(&entry).map_err(|error| {
            tracing::error!("a job cannot be written down: {error}");
            JobError::NotWritten
        })?;
        let job = Job::new(entry);
        let shown = self.shared.shown(&job);
        jobs.insert((created, number), Arc::new(Mutex::new(job)));
        drop(jobs);
        self.shared.changed.notify_all();
        Ok(shown)
    }

    /// All jobs, the oldest first.
    pub fn list(&self) -> Vec<Value> {
        self.shared.jobs().values().map(|job| self.shared.shown(&lock(job))).collect()
    }

    /// One job.
    pub fn get(&self, id: &str) -> Option<Value> {
        let job = self.shared.find(id)?.1;
        let job = lock(&job);
        Some(self.shared.shown(&job))
    }

    /// The file of a job that is done.
    pub fn result(&self, id: &str) -> Option<PathBuf> {
        let job = self.shared.find(id)?.1;
        (lock(&job).entry.state == JobState::Done).then(|| self.shared.journal.result(id))
    }

    /// Stops a job that is not finished, or forgets one that is. Whether there was one.
    pub fn delete(&self, id: &str) -> bool {
        let Some((order, job)) = self.shared.find(id) else { return false };
        let is_final = {
            let mut job = lock(&job);
            job.is_cancelled.store(true, Ordering::Relaxed);
            if job.entry.state == JobState::Waiting {
                self.shared.settle(&mut job, JobState::Cancelled, 0);
                return true;
            }
            job.entry.state.is_final()
        };
        if is_final {
            self.shared.jobs().remove(&order);
            self.shared.journal.remove(id);
        }
        true
    }

    /// How many wait or run.
    pub fn open_jobs(&self) -> usize {
        self.shared.jobs().values().filter(|job| !lock(job).entry.state.is_final()).count()
    }

    /// Lets the running job rest where it is; it goes on after the next start.
    pub fn stop(&self) {
        self.shared.is_stopping.store(true, Ordering::Relaxed);
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = thread.join();
        }
    }
}

fn lock(job: &Mutex<Job>) -> MutexGuard<'_, Job> {
    job.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn jobs(&self) -> MutexGuard<'_, BTreeMap<Order, Arc<Mutex<Job>>>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, id: &str) -> Option<(Order, Arc<Mutex<Job>>)> {
        let jobs = self.jobs();
        jobs.iter().find(|(_, job)| lock(job).entry.id == id).map(|(order, job)| (*order, job.clone()))
    }

    /// Refuses what cannot be done, before it is written down.
    fn check(&self, request: &JobRequest) -> Result<(), JobError> {
        let refused = |text: String| Err(JobError::Refused(text));
        let source = self.tiles.find(&request.source, request.to).ok_or(JobError::NoSource)?;
        let (layer, (low, high)) =
            self.tiles.sources[source].translation(request.to).ok_or(JobError::NoSource)?;
        if request.min_zoom > request.max_zoom {
            return refused("min_zoom is above max_zoom".into());
        }
        if request.min_zoom < low || request.max_zoom > high {
            return refused(format!("the zooms of this source are {low} to {high}"));
        }
        let mut tiles = 0u64;
        for zoom in request.min_zoom..=request.max_zoom {
            let cover = |bounds: BoundingBox| {
                bounds.tiles(zoom).map_err(|error| JobError::Refused(error.to_string()))
            };
            let (asked, there) = (cover(request.bbox)?, cover(layer.bounds)?);
            tiles = tiles.saturating_add(asked.len().min(there.len()));
        }
        if tiles > self.limits.job_tiles {
            let most = self.limits.job_tiles;
            return refused(format!("this is up to {tiles} tiles; at most {most} are made in one job"));
        }
        Ok(())
    }

    fn shown(&self, job: &Job) -> Value {
        let Entry { id, request, state, created, failed, .. } = &job.entry;
        let mut shown = json!({
            "id": id,
            "request": request,
            "state": state,
            "created": created,
            "tiles": job.total.load(Ordering::Relaxed),
            "made": job.made.load(Ordering::Relaxed),
            "failed": failed,
        });
        if *state == JobState::Done {
            shown["result"] = json!(format!("v1/jobs/{id}/tiles.pmtiles"));
        }
        shown
    }

    /// Writes down what became of a job.
    fn settle(&self, job: &mut Job, state: JobState, failed: u64) {
        (job.entry.state, job.entry.failed) = (state, failed);
        if let Err(error) = self.journal.write(&job.entry) {
            tracing::error!("job {}: cannot be written down: {error}", job.entry.id);
        }
    }

    /// Forgets the oldest finished jobs beyond those that are kept.
    fn tidy(&self) {
        let mut jobs = self.jobs();
        let finished: Vec<(Order, String)> = jobs
            .iter()
            .filter_map(|(order, job)| {
                let job = lock(job);
                job.entry.state.is_final().then(|| (*order, job.entry.id.clone()))
            })
            .collect();
        let surplus = finished.len().saturating_sub(self.limits.jobs_kept);
        for (order, id) in finished.into_iter().take(surplus) {
            jobs.remove(&order);
            self.journal.remove(&id);
        }
    }
}

/// 128 bits from the operating system's randomness, which seeds the hash tables of the standard library.
fn unguessable() -> String {
    let word = || RandomState::new().hash_one(SystemTime::now());
    // Keys of one thread differ by one only, so both words go through a digest.
    crate::tiles::digest(format!("{:016x}{:016x}", word(), word()).as_bytes())
}
