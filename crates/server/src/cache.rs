//! What was made, kept in memory, bounded in bytes; what was not used for longest goes first.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Bytes;

/// Bytes that an entry takes beside its own.
const OVERHEAD: usize = 256;

/// The name of what is kept: a digest of everything that it depends on.
pub type CacheKey = Arc<str>;

/// A cache in memory.
pub struct MemoryCache {
    limit: usize,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    entries: HashMap<CacheKey, (Bytes, u64)>,
    /// Keys by when they were last used.
    used: BTreeMap<u64, CacheKey>,
    now: u64,
    bytes: usize,
}

impl MemoryCache {
    /// A cache of at most so many bytes.
    pub fn new(limit: usize) -> Self {
        Self { limit, kept: Mutex::default() }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is kept under a name.
    pub fn get(&self, key: &str) -> Option<Bytes> {
        let mut kept = self.kept();
        kept.now += 1;
        let now = kept.now;
        let (bytes, used) = kept.entries.get_mut(key)?;
        let (bytes, before) = (bytes.clone(), std::mem::replace(used, now));
        let key = kept.used.remove(&before).expect("every entry has a time");
        kept.used.insert(now, key);
        Some(bytes)
    }

    /// Keeps bytes, unless they alone are more than the cache may hold.
    pub fn put(&self, key: CacheKey, bytes: Bytes) {
        let size = bytes.len() + OVERHEAD;
        if size > self.limit {
            return;
        }
        let mut kept = self.kept();
        kept.now += 1;
        let now = kept.now;
        if let Some((old, before)) = kept.entries.insert(key.clone(), (bytes, now)) {
            kept.used.remove(&before);
            kept.bytes -= old.len() + OVERHEAD;
        }
        kept.used.insert(now, key);
        kept.bytes += size;
        while kept.bytes > self.limit {
            let (_, oldest) = kept.used.pop_first().expect("there are bytes, so there are entries");
            let (bytes, _) = kept.entries.remove(&oldest).expect("every time has an entry");
            kept.bytes -= bytes.len() + OVERHEAD;
        }
    }

    /// Entries and bytes that are kept.
    pub fn size(&self) -> (usize, usize) {
        let kept = self.kept();
        (kept.entries.len(), kept.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(length: usize) -> Bytes {
        Bytes::from(vec![7; length])
    }

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let cache = MemoryCache::new(3 * (100 + OVERHEAD));
        for key in ["a", "b", "c"] {
            cache.put(key.into(), bytes(100));
        }
        assert!(cache.get("a").is_some());
        cache.put("d".into(), bytes(100));
        assert!(cache.get("b").is_none());
        assert!(["a", "c", "d"].iter().all(|key| cache.get(key).is_some()));
        assert_eq!(cache.size(), (3, 3 * (100 + OVERHEAD)));
    }

    #[test]
    fn sizes_are_counted_through_replacement() {
        let cache = MemoryCache::new(2000);
        cache.put("a".into(), bytes(500));
        cache.put("a".into(), bytes(10));
        assert_eq!(cache.size(), (1, 10 + OVERHEAD));
        cache.put("too large".into(), bytes(2000));
        assert_eq!(cache.size().0, 1);
        for i in 0..1000 {
            cache.put(i.to_string().into(), bytes(i));
            assert!(cache.size().1 <= 2000);
        }
    }
}
