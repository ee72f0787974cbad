//! Batches of pairs, decoded ahead on worker threads and delivered in order.

use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use earthmapper_geo::pairs::{Pair, PairError, PairFolder};
use earthmapper_geo::picture::{Picture, PictureLimits};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::augment::{AugmentConfig, Augmentation};
use super::workers::{Loaded, Shared};

/// How many unreadable files an error lists.
const LISTED: usize = 5;

/// Why there is no batch.
#[derive(Clone, Debug, Error)]
pub enum DataError {
    /// A setting makes no sense.
    #[error("{0}")]
    Config(String),
    /// More files than allowed cannot be read.
    #[error(
        "{count} of {total} pairs cannot be read, more than the limit of {limit}; repair or remove them, or raise \
         skip_limit:\n{}", first.join("\n")
    )]
    TooManyUnreadable {
        /// How many so far.
        count: usize,
        /// How many pairs there are.
        total: usize,
        /// How many may be skipped.
        limit: usize,
        /// The reasons of the first few; each starts with the path.
        first: Vec<String>,
    },
    /// Not one pair can be read.
    #[error("none of the {total} pairs can be read; check the folder:\n{}", first.join("\n"))]
    NothingReadable {
        /// How many pairs there are.
        total: usize,
        /// The reasons of the first few; each starts with the path.
        first: Vec<String>,
    },
    /// The system gave no thread.
    #[error("cannot start a thread to read pictures: {0}; ask for fewer threads")]
    NoThread(String),
}

/// How pairs are loaded.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoaderConfig {
    /// Pairs per batch.
    pub batch_size: usize,
    /// Threads that read and decode. Never changes what comes out.
    pub threads: usize,
    /// The fraction of the pairs that may be unreadable before it is an error; one always may.
    pub skip_limit: f64,
    /// Pictures whose shorter side is longer than this are shrunk to it before anything else, in pixels.
    /// Choose it so that the smallest crop still has enough pixels; without it pictures stay as they are.
    pub decoded_side: Option<u32>,
    /// Bytes of memory for decoded pictures, so that later epochs need not decode them again; 0 is off.
    pub cache_bytes: u64,
}

impl Default for LoaderConfig {
    fn default() -> Self {
        Self { batch_size: 8, threads: 2, skip_limit: 0.01, decoded_side: None, cache_bytes: 0 }
    }
}

impl LoaderConfig {
    fn problem(&self) -> Option<String> {
        if self.batch_size == 0 {
            return Some("batch_size is 0; give at least 1".to_owned());
        }
        if self.decoded_side == Some(0) {
            return Some("decoded_side is 0; give a side in pixels or leave it out".to_owned());
        }
        if !(0.0..=1.0).contains(&self.skip_limit) {
            return Some(format!("skip_limit is {}; give a fraction between 0 and 1", self.skip_limit));
        }
        None
    }
}

/// Where a loader stands: what it delivers next. Save it to resume there.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// The epoch, from 0.
    pub epoch: u64,
    /// The batch within the epoch, from 0.
    pub batch: u64,
    /// The place in the epoch's order where the batch begins. Not always `batch · batch_size`: unreadable
    /// pairs are passed over.
    pub item: usize,
}

/// Some pairs, ready for training. The lists run in parallel.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// The epoch that it belongs to.
    pub epoch: u64,
    /// Where the loader stands after it.
    pub position: Position,
    /// Positions of the pairs in the folder.
    pub indices: Vec<usize>,
    /// Names of the pairs.
    pub names: Vec<String>,
    /// What was done to each pair.
    pub augmentations: Vec<Augmentation>,
    /// The satellite photographs.
    pub satellite: Vec<Picture>,
    /// The maps.
    pub map: Vec<Picture>,
}

impl Batch {
    fn empty(epoch: u64, position: Position) -> Self {
        let (indices, names, augmentations) = (Vec::new(), Vec::new(), Vec::new());
        Self { epoch, position, indices, names, augmentations, satellite: Vec::new(), map: Vec::new() }
    }

    /// How many pairs.
    pub fn len(&self) -> usize {
        self.indices.len()
    }

    /// Whether there is no pair; the loader delivers no such batch.
    pub fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }

    fn push(&mut self, index: usize, loaded: Loaded) {
        self.indices.push(index);
        self.names.push(loaded.pair.name);
        self.augmentations.push(loaded.augmentation);
        self.satellite.push(loaded.pair.satellite);
        self.map.push(loaded.pair.map);
    }
}

/// Delivers batches without end, epoch after epoch, each epoch in its own order.
///
/// What comes out depends on the folder, the configs, the seed and the position only: not on the number of
/// threads, not on the cache, not on whether the run was interrupted. Pairs that cannot be read are named in
/// the log and passed over; the batch is filled with those that follow. The rest of an epoch that fills no
/// batch is dropped, unless it is all there is.
pub struct PairLoader {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    position: Position,
}

impl PairLoader {
    /// Starts the threads, which begin to decode what follows `from`.
    ///
    /// # Errors
    ///
    /// [`DataError::Config`] and [`DataError::NoThread`].
    pub fn start(
        folder: PairFolder,
        augment: AugmentConfig,
        config: LoaderConfig,
        seed: u64,
        from: Position,
    ) -> Result<Self, DataError> {
        if let Some(problem) = augment.problem().or_else(|| config.problem()) {
            return Err(DataError::Config(problem));
        }
        let len = folder.len();
        let from =
            if from.item < len { from } else { Position { epoch: from.epoch + 1, ..Position::default() } };
        let shared = Arc::new(Shared::new(folder, augment, config, seed, from));
        let mut loader = Self { shared, workers: Vec::new(), position: from };
        for _ in 0..config.threads.max(1) {
            let shared = Arc::clone(&loader.shared);
            let spawned = Builder::new().name("pair-loader".to_owned()).spawn(move || shared.work());
            loader.workers.push(spawned.map_err(|cause| DataError::NoThread(cause.to_string()))?);
        }
        Ok(loader)
    }

    /// The next batch. Waits for the threads if need be.
    ///
    /// # Errors
    ///
    /// [`DataError::TooManyUnreadable`] and [`DataError::NothingReadable`].
    pub fn next_batch(&mut self) -> Result<Batch, DataError> {
        self.check_limit()?;
        let (len, batch_size) = (self.shared.folder.len(), self.shared.config.batch_size);
        let mut batch = Batch::empty(self.position.epoch, self.position);
        loop {
            let item = self.shared.take();
            self.position.item += 1;
            match item.loaded {
                Ok(loaded) => batch.push(item.index, *loaded),
                Err(reason) => self.skip(item.index, reason)?,
            }
            let epoch_ends = self.position.item == len;
            let is_full = batch.len() == batch_size;
            let is_all_there_is = epoch_ends && self.position.batch == 0 && !batch.is_empty();
            let nothing_was_readable = epoch_ends && self.position.batch == 0 && batch.is_empty();
            if is_full {
                self.position.batch += 1;
            }
            if epoch_ends {
                self.position = Position { epoch: self.position.epoch + 1, batch: 0, item: 0 };
            }
            if is_full || is_all_there_is {
                batch.position = self.position;
                return Ok(batch);
            }
            if nothing_was_readable {
                return Err(DataError::NothingReadable { total: len, first: self.first_reasons() });
            }
            if epoch_ends {
                batch = Batch::empty(self.position.epoch, self.position);
            }
        }
    }

    /// Where the loader stands.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Batches in an epoch when every pair can be read.
    pub fn batches_per_epoch(&self) -> u64 {
        (self.shared.folder.len() / self.shared.config.batch_size).max(1) as u64
    }

    /// Remembers a pair that cannot be read. Runs in delivery order, so the limit is reached at the same
    /// batch for any number of threads.
    fn skip(&self, index: usize, reason: String) -> Result<(), DataError> {
        let mut queue = self.shared.lock();
        if queue.unreadable.iter().any(|(known, _)| *known == index) {
            return Ok(());
        }
        tracing::warn!("skipped: {reason}");
        queue.unreadable.push((index, reason));
        drop(queue);
        self.check_limit()
    }

    fn check_limit(&self) -> Result<(), DataError> {
        let total = self.shared.folder.len();
        let limit = ((total as f64 * self.shared.config.skip_limit) as usize).max(1);
        let count = self.shared.lock().unreadable.len();
        if count <= limit {
            return Ok(());
        }
        Err(DataError::TooManyUnreadable { count, total, limit, first: self.first_reasons() })
    }

    fn first_reasons(&self) -> Vec<String> {
        self.shared.lock().unreadable.iter().take(LISTED).map(|(_, reason)| reason.clone()).collect()
    }
}

impl Drop for PairLoader {
    fn drop(&mut self) {
        self.shared.lock().stopped = true;
        self.shared.room.notify_all();
        for worker in self.workers.drain(..) {
            // A worker catches its own panics, so there is nothing to pass on.
            let _ = worker.join();
        }
    }
}

/// Reads one pair for validation: the largest square from the middle, resized.
///
/// # Errors
///
/// As [`PairFolder::read`].
///
/// # Panics
///
/// When there is no such pair or `picture_side` is 0.
pub fn read_square(folder: &PairFolder, index: usize, picture_side: u32) -> Result<Pair, PairError> {
    let Pair { name, satellite, map } = folder.read(index, &PictureLimits::default())?;
    let centred = Augmentation::centred(satellite.width(), satellite.height());
    let (satellite, map) = (centred.apply(&satellite, picture_side), centred.apply(&map, picture_side));
    Ok(Pair { name, satellite, map })
}

/// Reads pairs for validation as [`read_square`] does; those that cannot be read are named in the log and left out, as
/// long as they are no more than `skip_limit` allows (one always is).
///
/// # Errors
///
/// [`DataError::TooManyUnreadable`] and [`DataError::NothingReadable`].
///
/// # Panics
///
/// As [`read_square`].
pub fn read_squares(
    folder: &PairFolder,
    indices: &[usize],
    picture_side: u32,
    skip_limit: f64,
) -> Result<Vec<Pair>, DataError> {
    let mut skipped = Skipped::new(indices.len(), skip_limit);
    let mut pairs = Vec::with_capacity(indices.len());
    for &index in indices {
        match read_square(folder, index, picture_side) {
            Ok(pair) => pairs.push(pair),
            Err(error) => skipped.push(&error)?,
        }
    }
    if pairs.is_empty() { Err(skipped.nothing_readable()) } else { Ok(pairs) }
}

/// Pairs that were passed over, and how many may be.
pub(crate) struct Skipped {
    total: usize,
    limit: usize,
    reasons: Vec<String>,
}

impl Skipped {
    /// None yet, of `total` pairs.
    pub(crate) fn new(total: usize, skip_limit: f64) -> Self {
        Self { total, limit: ((total as f64 * skip_limit) as usize).max(1), reasons: Vec::new() }
    }

    /// One more, named in the log; an error when it is one too many.
    pub(crate) fn push(&mut self, error: &PairError) -> Result<(), DataError> {
        tracing::warn!("skipped: {error}");
        self.reasons.push(error.to_string());
        let (count, total, limit) = (self.reasons.len(), self.total, self.limit);
        match count > limit {
            true => Err(DataError::TooManyUnreadable { count, total, limit, first: self.first_reasons() }),
            false => Ok(()),
        }
    }

    /// The error when nothing is left.
    pub(crate) fn nothing_readable(&self) -> DataError {
        DataError::NothingReadable { total: self.total, first: self.first_reasons() }
    }

    fn first_reasons(&self) -> Vec<String> {
        self.reasons.iter().take(LISTED).cloned().collect()
    }
}

#[cfg(test)]
#[path = "loader_tests.rs"]
mod tests;
