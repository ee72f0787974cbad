//! `env.json`: what a run was started with.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// The circumstances of one start of a run. A resumed run has several.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Environment {
    /// Version of the program.
    pub version: String,
    /// The compute device, in words.
    pub device: String,
    /// Threads that the run may use.
    pub threads: usize,
    /// When it started: UTC, as in `2025-01-31T23:59:59Z`.
    pub started: String,
    /// The command line, the program first.
    pub command_line: Vec<String>,
    /// Name of the processor, or the kind of processor where the system does not say.
    pub host_cpu: String,
    /// Operating system, as in `linux x86_64`.
    pub system: String,
}

impl Environment {
    /// Describes this process, now.
    pub fn current(device: &str, threads: usize) -> Self {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            device: device.to_owned(),
            threads,
            started: utc_time(seconds),
            // Lossy, because a file name that is not Unicode must not stop a training run.
            command_line: std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect(),
            host_cpu: host_cpu(),
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        }
    }
}

fn host_cpu() -> String {
    let described = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = described.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    model.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned())
}

/// Seconds since 1970 as a date and time in UTC.
fn utc_time(seconds: u64) -> String {
    // Days are counted from 1 March of the year 0, so that the leap day is the last day of a year; 400 years
    // have 146 097 days.
    let days = seconds / 86_400 + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_calendar_times() {
        assert_eq!(utc_time(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc_time(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(utc_time(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(utc_time(1_709_251_199), "2024-02-29T23:59:59Z");
        assert_eq!(utc_time(1_709_251_200), "2024-03-01T00:00:00Z");
        assert_eq!(utc_time(4_107_542_400), "2100-03-01T00:00:00Z");
        assert_eq!(utc_time(1_735_689_599), "2024-12-31T23:59:59Z");
    }
}
