//! What is counted, in the text format of Prometheus.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Upper ends of the classes of durations, in seconds.
const CLASSES: [f64; 12] = [0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0];

/// Seconds that a tile is taken to need before one was made.
const FIRST_GUESS: f64 = 0.5;

/// Everything that is counted since the start.
#[derive(Default)]
pub struct Metrics {
    /// By route and status.
    requests: Mutex<BTreeMap<(String, u16), u64>>,
    /// By route: counts per class, the last for longer ones, and the sum in microseconds.
    durations: Mutex<BTreeMap<String, ([u64; CLASSES.len() + 1], u64)>>,
    hits: AtomicU64,
    disk_hits: AtomicU64,
    misses: AtomicU64,
    joined: AtomicU64,
    refused: AtomicU64,
    dropped: AtomicU64,
    tiles: AtomicU64,
    batches: AtomicU64,
    tile_micros: AtomicU64,
    model_micros: AtomicU64,
}

/// Where a cached answer was found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Found {
    /// In memory.
    Memory,
    /// In the folder.
    Disk,
    /// Nowhere; it was made.
    Nowhere,
}

/// What is measured at the moment of asking.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gauges {
    /// Works that wait for the model.
    pub waiting: usize,
    /// Requests of clients that wait for them.
    pub asking: usize,
    /// Entries in the memory cache.
    pub cached: usize,
    /// Their bytes.
    pub cached_bytes: usize,
    /// Jobs that wait or run.
    pub jobs: usize,
    /// Whether the model has made its first picture.
    pub is_ready: bool,
}

impl Metrics {
    /// A request was answered.
    pub fn answered(&self, route: &str, status: u16, took: Duration) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *requests.entry((route.to_owned(), status)).or_default() += 1;
        drop(requests);
        let class = CLASSES.iter().position(|end| took.as_secs_f64() <= *end).unwrap_or(CLASSES.len());
        let mut durations = self.durations.lock().unwrap_or_else(PoisonError::into_inner);
        let (counts, sum) = durations.entry(route.to_owned()).or_default();
        counts[class] += 1;
        *sum += took.as_micros() as u64;
    }

    /// A tile was looked for in the caches.
    pub fn looked_up(&self, found: Found) {
        let counter = match found {
            Found::Memory => &self.hits,
            Found::Disk => &self.disk_hits,
            Found::Nowhere => &self.misses,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// A request was added to one for the same.
    pub fn joined(&self) {
        self.joined.fetch_add(1, Ordering::Relaxed);
    }

    /// A request was sent away because too much waits.
    pub fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Works were dropped because nobody waited for them any more.
    pub fn dropped(&self, works: usize) {
        self.dropped.fetch_add(works as u64, Ordering::Relaxed);
    }

    /// The model made so many tiles, or something else.
    pub fn worked(&self, tiles: usize, took: Duration) {
        self.model_micros.fetch_add(took.as_micros() as u64, Ordering::Relaxed);
        if tiles > 0 {
            self.tiles.fetch_add(tiles as u64, Ordering::Relaxed);
            self.batches.fetch_add(1, Ordering::Relaxed);
            self.tile_micros.fetch_add(took.as_micros() as u64, Ordering::Relaxed);
        }
    }

    /// What a tile took on average.
    pub fn seconds_per_tile(&self) -> f64 {
        match self.tiles.load(Ordering::Relaxed) {
            0 => FIRST_GUESS,
            tiles => self.tile_micros.load(Ordering::Relaxed) as f64 / 1e6 / tiles as f64,
        }
    }

    /// Everything as text.
    pub fn text(&self, gauges: Gauges) -> String {
        let mut text = String::new();
        let mut single = |name: &str, kind: &str, help: &str, value: f64| {
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
        };
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
        let counters = [
            ("cache_hits_total", "Answers found in memory.", count(&self.hits)),
            ("cache_disk_hits_total", "Answers found in the cache folder.", count(&self.disk_hits)),
            ("cache_misses_total", "Answers that had to be made.", count(&self.misses)),
            ("queue_joined_total", "Requests added to one for the same tile.", count(&self.joined)),
            ("queue_refused_total", "Requests sent away because too many waited.", count(&self.refused)),
            ("queue_dropped_total", "Works whose clients had all left.", count(&self.dropped)),
            ("tiles_made_total", "Tiles made by the model.", count(&self.tiles)),
            ("batches_total", "Times that tiles were made, one or several together.", count(&self.batches)),
            ("model_seconds_total", "Seconds in which the model worked.", count(&self.model_micros) / 1e6),
        ];
        for (name, help, value) in counters {
            single(&format!("earthmapper_{name}"), "counter", help, value);
        }
        let gauges = [
            ("ready", "Whether the model is warm.", f64::from(u8::from(gauges.is_ready))),
            ("queue_waiting", "Works that wait for the model.", gauges.waiting as f64),
            ("requests_waiting", "Requests of clients that wait for an answer.", gauges.asking as f64),
            ("cache_entries", "Answers kept in memory.", gauges.cached as f64),
            ("cache_bytes", "Bytes kept in memory.", gauges.cached_bytes as f64),
            ("jobs_open", "Jobs that wait or run.", gauges.jobs as f64),
            ("resident_bytes", "Memory of the process (Linux).", resident_bytes().unwrap_or(0.0)),
        ];
        for (name, help, value) in gauges {
            single(&format!("earthmapper_{name}"), "gauge", help, value);
        }
        self.add_requests(&mut text);
        self.add_durations(&mut text);
        text
    }

    fn add_requests(&self, text: &mut String) {
        let name = "earthmapper_http_requests_total";
        let _ = writeln!(text, "# HELP {name} Requests by route and status.\n# TYPE {name} counter");
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        for ((route, status), count) in requests.iter() {
            let _ = writeln!(text, "{name}{{route=\"{route}\",status=\"{status}\"}} {count}");
        }
    }

    fn add_durations(&self, text: &mut String) {
        let name = "earthmapper_http_seconds";
        let _ = writeln!(text, "# HELP {name} Seconds until a request is answered.\n# TYPE {name} histogram");
        let durations = self.durations.lock().unwrap_or_else(PoisonError::into_inner);
        for (route, (counts, sum)) in durations.iter() {
            let mut total = 0;
            let ends = CLASSES.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
            for (end, count) in ends.zip(counts) {
                total += count;
                let _ = writeln!(text, "{name}_bucket{{route=\"{route}\",le=\"{end}\"}} {total}");
            }
            let _ = writeln!(text, "{name}_sum{{route=\"{route}\"}} {}", *sum as f64 / 1e6);
            let _ = writeln!(text, "{name}_count{{route=\"{route}\"}} {total}");
        }
    }
}

/// Resident memory, where the system says it in `/proc`.
fn resident_bytes() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse::<f64>().ok().map(|kilobytes| kilobytes * 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_cumulative_and_every_name_is_explained() {
        let metrics = Metrics::default();
        metrics.answered("/{id}", 200, Duration::from_millis(3));
        metrics.answered("/{id}", 200, Duration::from_secs(100));
        metrics.answered("/{id}", 404, Duration::from_millis(30));
        metrics.worked(4, Duration::from_secs(2));
        let text = metrics.text(Gauges { waiting: 3, ..Gauges::default() });
        for line in [
            "earthmapper_http_requests_total{route=\"/{id}\",status=\"200\"} 2",
            "earthmapper_http_seconds_bucket{route=\"/{id}\",le=\"0.005\"} 1",
            "earthmapper_http_seconds_bucket{route=\"/{id}\",le=\"60\"} 2",
            "earthmapper_http_seconds_bucket{route=\"/{id}\",le=\"+Inf\"} 3",
            "earthmapper_queue_waiting 3",
            "earthmapper_tiles_made_total 4",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['{', ' ']).next().unwrap();
            let base =
                ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
            assert!(text.contains(&format!("# TYPE {base} ")), "{name}");
        }
        assert_eq!(metrics.seconds_per_tile(), 0.5);
    }
}
