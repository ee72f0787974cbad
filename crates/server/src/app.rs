//! What all requests share.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use earthmapper::model::GenerationDefaults;
use earthmapper::{EarthMapper, EarthMapperConfig};

use crate::cache::MemoryCache;
use crate::config::Config;
use crate::demo;
use crate::disk::DiskCache;
use crate::engine::Engine;
use crate::jobs::Jobs;
use crate::metrics::{Gauges, Metrics};
use crate::routes::Problem;
use crate::sources::{Source, SourceError, stamp_of};
use crate::tiles::{TileService, digest};

/// How long a stop waits for what is being made.
const LAST_WORK: Duration = Duration::from_secs(20);

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A source cannot be opened.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A folder cannot be used.
    #[error("{}: cannot be used: {cause}; name another folder", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the operating system said.
        cause: std::io::Error,
    },
    /// The address cannot be listened at.
    #[error("cannot listen at {address}: {cause}; choose another with --listen")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// What the operating system said.
        cause: std::io::Error,
    },
    /// The operating system gives no threads.
    #[error("cannot start: {0}")]
    System(std::io::Error),
}

/// A model and a digest of its files.
pub struct ServedModel {
    /// The model.
    pub model: EarthMapper,
    /// Changes whenever a file of the model does.
    pub fingerprint: String,
}

impl ServedModel {
    /// A model read from a folder. The fingerprint is that of the folder's checksums and configurations, and of the
    /// lengths and times of its weights, and of how it is run (device, precision), which changes pixels as well.
    pub fn new(model: EarthMapper, folder: &std::path::Path, run: &str) -> Self {
        let mut bytes = run.as_bytes().to_vec();
        for name in ["SHA256SUMS", "config.json", "generation.json", "tokenizer/config.json"] {
            bytes.extend(std::fs::read(folder.join(name)).unwrap_or_default());
        }
        // Weights that were changed without a word in the checksums.
        for name in ["model.safetensors", "tokenizer/model.safetensors"] {
            bytes.extend(stamp_of(&folder.join(name)).into_bytes());
        }
        Self { model, fingerprint: digest(&bytes) }
    }
}

/// What requests ask of the model without running it.
pub struct ModelFacts {
    /// Name, training, architecture.
    pub config: EarthMapperConfig,
    /// Options of generation.
    pub generation: GenerationDefaults,
    /// Side of its pictures in pixels.
    pub side: u32,
}

/// Everything that is shared.
pub struct App {
    /// The configuration.
    pub config: Config,
    /// The model's facts.
    pub facts: ModelFacts,
    /// Tiles.
    pub tiles: Arc<TileService>,
    /// Jobs.
    pub jobs: Jobs,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Digest of the token that requests that change something must show.
    pub token: Option<String>,
    is_ready: Arc<AtomicBool>,
    is_stopping: AtomicBool,
    /// Requests per address that wait for the model.
    clients: Mutex<HashMap<IpAddr, usize>>,
    /// Holds files of the demo and, without a folder in the configuration, jobs.
    _scratch: tempfile::TempDir,
}

/// The state of the router.
pub type Shared = Arc<App>;

impl App {
    /// Opens the sources and starts the engine.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(config: Config, served: ServedModel, token: Option<String>) -> Result<Shared, StartError> {
        let ServedModel { model, fingerprint } = served;
        let scratch = tempfile::tempdir().map_err(StartError::System)?;
        let mut sources = Vec::new();
        if config.with_demo() {
            sources.push(demo::open(scratch.path(), &model.config)?);
        }
        let patience = Duration::from_secs(config.remote.seconds);
        for source in &config.sources {
            sources.push(Source::open(source, patience, &model.config)?);
        }
        let sources = Arc::new(sources);
        let facts = ModelFacts {
            config: model.config.clone(),
            generation: model.generation.clone(),
            side: model.tokenizer_config.picture_side as u32,
        };
        let metrics = Arc::new(Metrics::default());
        let is_ready = Arc::new(AtomicBool::new(false));
        let memory = MemoryCache::new((config.cache.memory_megabytes as usize) << 20);
        let disk = match &config.cache.folder {
            Some(folder) => Some(
                DiskCache::open(folder, config.cache.folder_megabytes << 20)
                    .map_err(|cause| StartError::Folder { path: folder.clone(), cause })?,
            ),
            None => None,
        };
        let ready = is_ready.clone();
        let engine = Engine::start(model, sources.clone(), config.engine, metrics.clone(), move || {
            ready.store(true, Ordering::Release);
        });
        let named = (facts.config.name.clone(), fingerprint);
        let tiles = Arc::new(TileService::new(sources, engine, metrics.clone(), named, (memory, disk)));
        let folder =
            config.data.as_ref().map_or_else(|| scratch.path().join("jobs"), |data| data.join("jobs"));
        let jobs = Jobs::open(&folder, config.limits, tiles.clone())
            .map_err(|cause| StartError::Folder { path: folder, cause })?;
        let token = token.map(|token| digest(token.trim().as_bytes()));
        let (is_stopping, clients) = (AtomicBool::new(false), Mutex::default());
        Ok(Arc::new(Self {
            config,
            facts,
            tiles,
            jobs,
            metrics,
            token,
            is_ready,
            is_stopping,
            clients,
            _scratch: scratch,
        }))
    }

    /// Whether requests for the model are taken.
    pub fn is_ready(&self) -> bool {
        self.is_ready.load(Ordering::Acquire) && !self.is_stopping.load(Ordering::Relaxed)
    }

    /// Says that no more requests are taken.
    pub fn announce_stop(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
    }

    /// Lets jobs rest and the engine finish. Blocks.
    pub fn stop(&self) {
        self.tiles.engine.close();
        self.jobs.stop();
        self.tiles.engine.finish(LAST_WORK);
    }

    /// Counts a request of an address that waits for the model, until the pass is dropped.
    ///
    /// # Errors
    /// [`Problem::TooMany`].
    pub fn enter(self: &Arc<Self>, address: Option<IpAddr>) -> Result<Pass, Problem> {
        let Some(address) = address else { return Ok(Pass(None)) };
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let count = clients.entry(address).or_default();
        if *count >= self.config.limits.per_client {
            return Err(Problem::TooMany(1));
        }
        *count += 1;
        Ok(Pass(Some((self.clone(), address))))
    }

    /// What is measured now.
    pub fn gauges(&self) -> Gauges {
        let (cached, cached_bytes) = self.tiles.cached();
        let clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        Gauges {
            asking: clients.values().sum(),
            waiting: self.tiles.engine.waiting(),
            cached,
            cached_bytes,
            jobs: self.jobs.open_jobs(),
            is_ready: self.is_ready(),
        }
    }
}

/// A request that is counted.
pub struct Pass(Option<(Shared, IpAddr)>);

impl Drop for Pass {
    fn drop(&mut self) {
        let Some((app, address)) = &self.0 else { return };
        let mut clients = app.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = clients.get_mut(address) {
            *count -= 1;
            if *count == 0 {
                clients.remove(address);
            }
        }
    }
}
