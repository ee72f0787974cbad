//! The threads behind the loader: an ordered queue of bounded length, and the cache.

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use earthmapper_geo::pairs::{Pair, PairError, PairFolder};
use earthmapper_geo::picture::{Picture, PictureLimits};

use super::augment::{AugmentConfig, Augmentation, augmentation, epoch_order};
use super::loader::{LoaderConfig, Position};

pub(super) struct Loaded {
    pub(super) pair: Pair,
    pub(super) augmentation: Augmentation,
}

pub(super) struct Item {
    pub(super) index: usize,
    /// Boxed, because there may be many failures and they are small.
    pub(super) loaded: Result<Box<Loaded>, String>,
}

/// What the threads share.
pub(super) struct Shared {
    pub(super) folder: PairFolder,
    pub(super) augment: AugmentConfig,
    pub(super) config: LoaderConfig,
    seed: u64,
    capacity: u64,
    queue: Mutex<Queue>,
    /// Something was taken, so more may be decoded.
    pub(super) room: Condvar,
    /// Something was decoded.
    ready: Condvar,
    cache: Mutex<Cache>,
}

pub(super) struct Queue {
    /// The next item to hand out to a thread: its epoch, its place in the epoch's order, and that order.
    epoch: u64,
    item: usize,
    order: Vec<usize>,
    /// Items handed out to threads and items taken by the consumer, since the start.
    handed_out: u64,
    taken: u64,
    /// Decoded items by their number since the start.
    finished: BTreeMap<u64, Item>,
    /// Pairs that cannot be read, with the reason, in delivery order.
    pub(super) unreadable: Vec<(usize, String)>,
    pub(super) stopped: bool,
}

/// Decoded pairs. What came first stays: an epoch visits every pair once, so throwing out the oldest for the
/// newest would throw out each pair just before it is needed.
struct Cache {
    pairs: HashMap<usize, Arc<Pair>>,
    bytes: u64,
}

impl Shared {
    /// Ready to hand out what follows `from`, which lies inside the folder.
    pub(super) fn new(
        folder: PairFolder,
        augment: AugmentConfig,
        config: LoaderConfig,
        seed: u64,
        from: Position,
    ) -> Self {
        let queue = Queue {
            epoch: from.epoch,
            item: from.item,
            order: epoch_order(seed, from.epoch, folder.len()),
            handed_out: 0,
            taken: 0,
            finished: BTreeMap::new(),
            unreadable: Vec::new(),
            stopped: false,
        };
        Self {
            folder,
            augment,
            config,
            seed,
            // One batch in the making and one ahead keep every thread busy while a batch is trained on.
            capacity: (2 * config.batch_size + config.threads.max(1)) as u64,
            queue: Mutex::new(queue),
            room: Condvar::new(),
            ready: Condvar::new(),
            cache: Mutex::new(Cache { pairs: HashMap::new(), bytes: 0 }),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("no thread panics while it holds the queue")
    }

    /// What each thread does until the loader is dropped.
    pub(super) fn work(&self) {
        while let Some((number, epoch, index, known)) = self.hand_out() {
            let loaded = match known {
                Some(reason) => Err(reason),
                // A decoder that panics on a broken file must not leave the consumer waiting for ever.
                None => catch_unwind(AssertUnwindSafe(|| self.load(epoch, index))).unwrap_or_else(|_| {
                    Err(format!("{}: makes the decoder fail; replace it", self.folder.path(index).display()))
                }),
            };
            self.lock().finished.insert(number, Item { index, loaded });
            self.ready.notify_all();
        }
    }

    /// The next item's number, epoch, pair, and why that pair cannot be read if that is known.
    fn hand_out(&self) -> Option<(u64, u64, usize, Option<String>)> {
        let mut queue = self.lock();
        while !queue.stopped && queue.handed_out - queue.taken >= self.capacity {
            queue = self.room.wait(queue).expect("no thread panics while it holds the queue");
        }
        if queue.stopped {
            return None;
        }
        let (number, epoch, index) = (queue.handed_out, queue.epoch, queue.order[queue.item]);
        let known = queue.unreadable.iter().find(|(known, _)| *known == index);
        let known = known.map(|(_, reason)| reason.clone());
        queue.handed_out += 1;
        queue.item += 1;
        if queue.item == queue.order.len() {
            queue.item = 0;
            queue.epoch += 1;
            queue.order = epoch_order(self.seed, queue.epoch, queue.order.len());
        }
        Some((number, epoch, index, known))
    }

    /// The next item in order, as soon as it is decoded.
    pub(super) fn take(&self) -> Item {
        let mut queue = self.lock();
        loop {
            let number = queue.taken;
            if let Some(item) = queue.finished.remove(&number) {
                queue.taken += 1;
                self.room.notify_one();
                return item;
            }
            queue = self.ready.wait(queue).expect("no thread panics while it holds the queue");
        }
    }

    fn load(&self, epoch: u64, index: usize) -> Result<Box<Loaded>, String> {
        let pair = self.decoded(index).map_err(|error| error.to_string())?;
        let (width, height) = (pair.satellite.width(), pair.satellite.height());
        let augmentation = augmentation(self.seed, epoch, index, &self.augment, width, height);
        let changed = |picture: &Picture| augmentation.apply(picture, self.augment.picture_side);
        let (satellite, map) = (changed(&pair.satellite), changed(&pair.map));
        let pair = Pair { name: pair.name.clone(), satellite, map };
        Ok(Box::new(Loaded { pair, augmentation }))
    }

    /// A pair at its decoded size, from the cache if it is there. What is cached is what would be decoded, so
    /// that the cache changes nothing.
    fn decoded(&self, index: usize) -> Result<Arc<Pair>, PairError> {
        let cache = || self.cache.lock().expect("no thread panics while it holds the cache");
        if let Some(pair) = cache().pairs.get(&index) {
            return Ok(Arc::clone(pair));
        }
        let mut pair = self.folder.read(index, &PictureLimits::default())?;
        if let Some(side) = self.config.decoded_side {
            pair.satellite = shrunk(pair.satellite, side);
            pair.map = shrunk(pair.map, side);
        }
        let pair = Arc::new(pair);
        let bytes = (pair.satellite.rgb().len() + pair.map.rgb().len()) as u64;
        let mut cache = cache();
        // Two threads may decode one pair at once when it is near the end of one epoch and the start of the
        // next.
        if cache.bytes + bytes <= self.config.cache_bytes && !cache.pairs.contains_key(&index) {
            cache.bytes += bytes;
            cache.pairs.insert(index, Arc::clone(&pair));
        }
        Ok(pair)
    }
}

/// The picture with its shorter side at most `side`, its proportions kept.
pub(super) fn shrunk(picture: Picture, side: u32) -> Picture {
    let (width, height) = (picture.width(), picture.height());
    let shorter = width.min(height);
    if shorter <= side {
        return picture;
    }
    let scaled = |length: u32| (f64::from(length) * f64::from(side) / f64::from(shorter)).round() as u32;
    picture.resized(scaled(width), scaled(height))
}
