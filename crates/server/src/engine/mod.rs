//! The one place where the model runs: a bounded queue in front of one thread.
//!
//! Requests for the same tile are joined, tiles next to each other are made together, and work whose clients have all
//! left is dropped before it begins. Tiles of jobs wait until nobody else does.

mod worker;

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use earthmapper::{EarthMapper, Modality};
use earthmapper_geo::Tile;
use tokio::sync::oneshot;

use crate::config::EngineOptions;
use crate::metrics::Metrics;
use crate::sources::Source;

/// Tiles that are kept although everybody had left when they were made: who was told to try again will.
const LEFT_OVER: usize = 32;

/// A tile to be made.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct TileRequest {
    /// Which source.
    pub source: usize,
    /// What is made.
    pub to: Modality,
    /// Seed of the whole pyramid.
    pub seed: u64,
    /// Which tile.
    pub tile: Tile,
}

/// A tile that was made, as PNG with its label.
#[derive(Clone, Debug)]
pub struct MadeTile {
    /// The picture.
    pub picture: Bytes,
    /// How undecided the model was, as a grey picture: black certain, white no idea.
    pub uncertainty: Bytes,
}

/// Why something was not made. What is wrong inside is logged, not told.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum EngineError {
    /// Too much waits already.
    #[error("too many requests are waiting; try again in {0} s")]
    Busy(u64),
    /// It took too long.
    #[error("this takes longer than allowed; try again in {0} s")]
    Late(u64),
    /// The server is about to stop.
    #[error("the server is stopping")]
    Stopping,
    /// The source has no such tile.
    #[error("there is no such tile")]
    Missing,
    /// Something is broken.
    #[error("this could not be made; the server's log says why")]
    Failed,
}

/// Who waits for a tile.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Urgency {
    /// Somebody looks at a page.
    Now,
    /// A job.
    Whenever,
}

type Answer = Result<MadeTile, EngineError>;

struct TileWork {
    request: TileRequest,
    urgency: Urgency,
    waiters: Vec<oneshot::Sender<Answer>>,
}

struct CallWork {
    call: Box<dyn FnOnce(&EarthMapper) + Send>,
    /// Whether nobody waits any more.
    is_abandoned: Box<dyn Fn() -> bool + Send>,
}

enum Work {
    Tile(TileWork),
    Call(CallWork),
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Work>,
    /// Tiles that are being made.
    running: Vec<TileWork>,
    /// Tiles that were made for nobody, the oldest first.
    left_over: VecDeque<(TileRequest, MadeTile)>,
    is_closed: bool,
}

impl Queue {
    /// Works that count against the bound.
    fn urgent(&self) -> usize {
        self.waiting
            .iter()
            .filter(|work| !matches!(work, Work::Tile(TileWork { urgency: Urgency::Whenever, .. })))
            .count()
    }
}

struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    options: EngineOptions,
    metrics: Arc<Metrics>,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A way to the thread that owns the model.
pub struct Engine {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Engine {
    /// Starts the thread. `is_ready` is called once the model has made its first picture.
    pub fn start(
        model: EarthMapper,
        sources: Arc<Vec<Source>>,
        options: EngineOptions,
        metrics: Arc<Metrics>,
        is_ready: impl FnOnce() + Send + 'static,
    ) -> Self {
        let shared = Arc::new(Shared { queue: Mutex::default(), changed: Condvar::new(), options, metrics });
        let its = shared.clone();
        let run = move || worker::run(&its, &model, &sources, is_ready);
        let thread = std::thread::Builder::new().name("model".into()).spawn(run);
        Self { shared, thread: Mutex::new(Some(thread.expect("a thread can be started"))) }
    }

    /// Makes a tile, together with others who ask for it.
    ///
    /// # Errors
    /// Every [`EngineError`].
    pub async fn tile(&self, request: TileRequest) -> Answer {
        let answer = self.submit(request, Urgency::Now)?;
        self.wait(self.shared.options.tile_seconds, answer).await?
    }

    /// Puts a tile into the queue; the answer comes when it is made. Dropping the receiver takes the request back.
    ///
    /// # Errors
    /// [`EngineError::Busy`] (never for [`Urgency::Whenever`]) and [`EngineError::Stopping`].
    pub fn submit(
        &self,
        request: TileRequest,
        urgency: Urgency,
    ) -> Result<oneshot::Receiver<Answer>, EngineError> {
        let (sender, receiver) = oneshot::channel();
        let mut queue = self.shared.queue();
        if queue.is_closed {
            return Err(EngineError::Stopping);
        }
        if let Some(index) = queue.left_over.iter().position(|(made, _)| *made == request) {
            let made = queue.left_over.remove(index).map(|(_, made)| made);
            let _ = sender.send(made.ok_or(EngineError::Failed));
            return Ok(receiver);
        }
        let waiting = queue.waiting.iter_mut().filter_map(|work| match work {
            Work::Tile(work) => Some(work),
            Work::Call(_) => None,
        });
        if let Some(work) = waiting.into_iter().find(|work| work.request == request) {
            work.waiters.push(sender);
            if urgency == Urgency::Now {
                work.urgency = urgency;
            }
            self.shared.metrics.joined();
            return Ok(receiver);
        }
        if let Some(work) = queue.running.iter_mut().find(|work| work.request == request) {
            work.waiters.push(sender);
            self.shared.metrics.joined();
            return Ok(receiver);
        }
        if urgency == Urgency::Now {
            self.check_room(&queue)?;
        }
        queue.waiting.push_back(Work::Tile(TileWork { request, urgency, waiters: vec![sender] }));
        drop(queue);
        self.shared.changed.notify_one();
        Ok(receiver)
    }

    /// Does something with the model.
    ///
    /// # Errors
    /// Every [`EngineError`] but [`EngineError::Missing`].
    pub async fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&EarthMapper) -> T + Send + 'static,
    ) -> Result<T, EngineError> {
        let (sender, receiver) = oneshot::channel();
        let sender = Arc::new(Mutex::new(Some(sender)));
        let watched = sender.clone();
        let is_abandoned = move || {
            let sender = watched.lock().unwrap_or_else(PoisonError::into_inner);
            sender.as_ref().is_none_or(oneshot::Sender::is_closed)
        };
        let call = move |model: &EarthMapper| {
            let made = call(model);
            let sender = sender.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(sender) = sender {
                let _ = sender.send(made);
            }
        };
        {
            let mut queue = self.shared.queue();
            if queue.is_closed {
                return Err(EngineError::Stopping);
            }
            self.check_room(&queue)?;
            let work = CallWork { call: Box::new(call), is_abandoned: Box::new(is_abandoned) };
            queue.waiting.push_back(Work::Call(work));
        }
        self.shared.changed.notify_one();
        self.wait(self.shared.options.task_seconds, receiver).await
    }

    fn check_room(&self, queue: &Queue) -> Result<(), EngineError> {
        if queue.urgent() < self.shared.options.queue {
            return Ok(());
        }
        self.shared.metrics.refused();
        Err(EngineError::Busy(self.patience()))
    }

    async fn wait<T>(&self, seconds: u64, answer: oneshot::Receiver<T>) -> Result<T, EngineError> {
        match tokio::time::timeout(Duration::from_secs(seconds), answer).await {
            Ok(Ok(answer)) => Ok(answer),
            // The thread panicked over this, or has ended.
            Ok(Err(_)) if self.shared.queue().is_closed => Err(EngineError::Stopping),
            Ok(Err(_)) => Err(EngineError::Failed),
            Err(_) => Err(EngineError::Late(self.patience())),
        }
    }

    /// In how many seconds there may be room again.
    fn patience(&self) -> u64 {
        let queue = self.shared.queue.try_lock().map_or(self.shared.options.queue, |queue| queue.urgent());
        let each = self.shared.metrics.seconds_per_tile();
        ((queue as f64 * each / 2.0).ceil() as u64).clamp(1, 60)
    }

    /// How much waits.
    pub fn waiting(&self) -> usize {
        self.shared.queue().waiting.len()
    }

    /// Takes no more work. Tiles of jobs are put back; everything else is still done.
    pub fn close(&self) {
        let mut queue = self.shared.queue();
        queue.is_closed = true;
        let is_job = |work: &Work| matches!(work, Work::Tile(TileWork { urgency: Urgency::Whenever, .. }));
        queue.waiting.retain(|work| !is_job(work));
        drop(queue);
        self.shared.changed.notify_all();
    }

    /// Waits until what was taken before [`Engine::close`] is done, but not for ever. Blocks.
    pub fn finish(&self, patience: Duration) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(thread) = thread else { return };
        let end = Instant::now() + patience;
        while !thread.is_finished() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        if thread.is_finished() {
            let _ = thread.join();
        }
    }
}
