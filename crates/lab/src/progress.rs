//! What a person sees while something long goes on, and how they stop it.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Least time between two plain lines.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Speed is measured over this much of the recent past.
const SPEED_WINDOW: Duration = Duration::from_secs(60);

/// How progress is shown.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum ProgressMode {
    /// A bar on a terminal, plain lines elsewhere.
    #[default]
    Automatic,
    /// Plain lines, at most one every ten seconds.
    Lines,
    /// Nothing.
    Silent,
}

/// Shows how far something has come: on standard error, since results go to standard output.
///
/// A bar on a terminal; elsewhere lines such as `step 120/4000 loss 3.21 2.4 items/s eta 12 min`.
pub struct Progress {
    unit: String,
    total: u64,
    done: u64,
    loss: Option<f64>,
    speed: Speed,
    shown: Shown,
}

enum Shown {
    Bar(ProgressBar),
    Lines { output: Box<dyn Write + Send>, interval: Duration, last: Option<Instant>, is_current: bool },
    Nothing,
}

impl Progress {
    /// Begins at `done` of `total` steps (or whatever `unit` says; `done` is not 0 when a run resumes).
    pub fn start(mode: ProgressMode, unit: &str, done: u64, total: u64) -> Self {
        let shown = match mode {
            ProgressMode::Silent => Shown::Nothing,
            ProgressMode::Automatic if io::stderr().is_terminal() => {
                let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
                let style = ProgressStyle::with_template("{prefix} {pos}/{len} {wide_bar} {msg}");
                bar.set_style(style.expect("the template is well formed"));
                bar.set_prefix(unit.to_owned());
                bar.set_position(done);
                Shown::Bar(bar)
            }
            ProgressMode::Automatic | ProgressMode::Lines => {
                let output = Box::new(io::stderr());
                Shown::Lines { output, interval: LINE_INTERVAL, last: None, is_current: false }
            }
        };
        let speed = Speed::start(Instant::now(), done);
        Self { unit: unit.to_owned(), total, done, loss: None, speed, shown }
    }

    /// Says that `done` steps are done in all, the latest of which took `items` items and had this loss.
    pub fn update(&mut self, done: u64, items: u64, loss: Option<f64>) {
        self.update_at(Instant::now(), done, items, loss);
    }

    fn update_at(&mut self, now: Instant, done: u64, items: u64, loss: Option<f64>) {
        self.done = done;
        self.loss = loss;
        self.speed.add(now, done, items);
        let numbers = self.numbers();
        match &mut self.shown {
            Shown::Bar(bar) => {
                bar.set_message(numbers);
                bar.set_position(done);
            }
            Shown::Lines { interval, last, is_current, .. } => {
                // The first line comes at once: it shows that things work.
                let is_due = last.is_none_or(|last| now.saturating_duration_since(last) >= *interval);
                *is_current = is_due;
                if is_due {
                    *last = Some(now);
                    self.write_line();
                }
            }
            Shown::Nothing => {}
        }
    }

    /// Shows a line of text without disturbing the bar.
    pub fn message(&mut self, text: &str) {
        match &mut self.shown {
            Shown::Bar(bar) => bar.suspend(|| drop(writeln!(io::stderr(), "{text}"))),
            Shown::Lines { output, .. } => print(output, text),
            Shown::Nothing => {}
        }
    }

    /// Runs something that writes to the terminal by itself, with the bar out of the way.
    pub fn suspend<R>(&self, action: impl FnOnce() -> R) -> R {
        match &self.shown {
            Shown::Bar(bar) => bar.suspend(action),
            _ => action(),
        }
    }

    /// Ends the display; the last state stays visible.
    pub fn finish(mut self) {
        match &mut self.shown {
            Shown::Bar(bar) => bar.abandon(),
            Shown::Lines { last: Some(_), is_current: false, .. } => self.write_line(),
            Shown::Lines { .. } | Shown::Nothing => {}
        }
    }

    /// Items per second, recently.
    pub fn items_per_second(&self) -> Option<f64> {
        self.speed.items_per_second()
    }

    fn write_line(&mut self) {
        let mut line = format!("{} {}/{}", self.unit, self.done, self.total);
        let numbers = self.numbers();
        if !numbers.is_empty() {
            line.push(' ');
            line.push_str(&numbers);
        }
        if let Shown::Lines { output, .. } = &mut self.shown {
            print(output, &line);
        }
    }

    fn numbers(&self) -> String {
        let mut text = String::new();
        if let Some(loss) = self.loss {
            let _ = write!(text, "loss {} ", short(loss));
        }
        if let Some(speed) = self.speed.items_per_second() {
            let _ = write!(text, "{} items/s ", short(speed));
        }
        if let Some(speed) = self.speed.steps_per_second().filter(|_| self.done < self.total) {
            let _ = write!(text, "eta {}", in_words((self.total - self.done) as f64 / speed));
        }
        text.truncate(text.trim_end().len());
        text
    }
}

/// A closed standard error must not stop what goes on, so failures are passed over.
fn print(output: &mut impl Write, line: &str) {
    let _ = writeln!(output, "{line}").and_then(|()| output.flush());
}

/// Speed over the recent past, so that a slow start or a pause does not spoil the estimate for ever.
struct Speed {
    /// Time, steps and items so far, the oldest first.
    marks: VecDeque<(Instant, u64, u64)>,
}

impl Speed {
    fn start(now: Instant, done: u64) -> Self {
        Self { marks: VecDeque::from([(now, done, 0)]) }
    }

    fn add(&mut self, now: Instant, done: u64, items: u64) {
        let so_far = self.marks.back().map_or(0, |mark| mark.2);
        self.marks.push_back((now, done, so_far + items));
        // Slow steps may be further apart than the window; two marks are always needed.
        while self.marks.len() > 2 && now.saturating_duration_since(self.marks[0].0) > SPEED_WINDOW {
            self.marks.pop_front();
        }
    }

    fn steps_per_second(&self) -> Option<f64> {
        self.per_second(|mark| mark.1)
    }

    fn items_per_second(&self) -> Option<f64> {
        self.per_second(|mark| mark.2)
    }

    fn per_second(&self, count: impl Fn(&(Instant, u64, u64)) -> u64) -> Option<f64> {
        let (first, last) = (self.marks.front()?, self.marks.back()?);
        let seconds = last.0.saturating_duration_since(first.0).as_secs_f64();
        let counted = count(last).saturating_sub(count(first));
        (seconds > 0.0 && counted > 0).then(|| counted as f64 / seconds)
    }
}

/// Three significant digits where there are that many: `0.0123`, `3.21`, `45.7`, `1234`.
fn short(value: f64) -> String {
    let magnitude = value.abs();
    let digits = match magnitude {
        _ if !value.is_finite() => return value.to_string(),
        _ if magnitude >= 100.0 => 0,
        _ if magnitude >= 10.0 => 1,
        _ if magnitude >= 1.0 || magnitude == 0.0 => 2,
        _ if magnitude >= 0.1 => 3,
        _ if magnitude >= 0.01 => 4,
        _ => return format!("{value:.2e}"),
    };
    format!("{value:.digits$}")
}

/// A time as people say it: `45 s`, `12 min`, `3 h 20 min`, `2 d 4 h`.
fn in_words(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    let (minutes, hours, days) = ((seconds + 30) / 60, (seconds + 30) / 3600, (seconds + 1800) / 86_400);
    match seconds {
        0..90 => format!("{seconds} s"),
        90..5400 => format!("{minutes} min"),
        5400..86_400 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", (seconds + 1800) / 3600 % 24),
    }
}

/// A wish to stop, shared by everyone who holds a clone: the program's Ctrl-C handler sets it, the training
/// loop looks at it between steps.
#[derive(Clone, Debug, Default)]
pub struct Interrupt {
    flag: Arc<AtomicBool>,
}

impl Interrupt {
    /// No wish to stop yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks to stop at the next good moment.
    pub fn request(&self) {
        self.flag.store(true, Ordering::SeqCst);
    }

    /// Whether somebody asked to stop.
    pub fn requested(&self) -> bool {
        self.flag.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Shared {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_come_seldom_and_at_the_end() {
        let output = Shared::default();
        let start = Instant::now();
        let mut progress = Progress {
            unit: "step".to_owned(),
            total: 400,
            done: 100,
            loss: None,
            speed: Speed::start(start, 100),
            shown: Shown::Lines {
                output: Box::new(output.clone()),
                interval: LINE_INTERVAL,
                last: None,
                is_current: false,
            },
        };
        for step in 1..=25 {
            let now = start + Duration::from_secs(step);
            progress.update_at(now, 100 + step, 8, Some(3.2 - 0.01 * step as f64));
        }
        assert_eq!(progress.items_per_second(), Some(8.0));
        progress.message("validation");
        progress.finish();
        let expected = "\
            step 101/400 loss 3.19 8.00 items/s eta 5 min\n\
            step 111/400 loss 3.09 8.00 items/s eta 5 min\n\
            step 121/400 loss 2.99 8.00 items/s eta 5 min\n\
            validation\n\
            step 125/400 loss 2.95 8.00 items/s eta 5 min\n";
        assert_eq!(output.text(), expected);
    }

    #[test]
    fn speed_forgets_a_slow_start() {
        let start = Instant::now();
        let mut speed = Speed::start(start, 0);
        speed.add(start + Duration::from_secs(600), 1, 4);
        for step in 2..=100 {
            speed.add(start + Duration::from_secs(600 + step), step, 4);
        }
        assert_eq!(speed.steps_per_second(), Some(1.0));
        assert_eq!(speed.items_per_second(), Some(4.0));
        assert!(speed.marks.len() <= 62);
    }

    #[test]
    fn numbers_and_times_are_short() {
        let shorts = [0.0, 3.214, -3.214, 45.67, 1234.5, 0.1234, 0.01234, 0.000_123].map(short);
        assert_eq!(shorts, ["0.00", "3.21", "-3.21", "45.7", "1234", "0.123", "0.0123", "1.23e-4"]);
        assert_eq!(short(f64::NAN), "NaN");
        let words = [0.4, 45.0, 720.0, 5399.0, 12_000.0, 190_000.0].map(in_words);
        assert_eq!(words, ["0 s", "45 s", "12 min", "90 min", "3 h 20 min", "2 d 5 h"]);
    }

    #[test]
    fn an_interrupt_reaches_every_clone() {
        let interrupt = Interrupt::new();
        let other = interrupt.clone();
        assert!(!interrupt.requested());
        other.request();
        assert!(interrupt.requested());
    }

    #[test]
    fn every_mode_starts_and_ends() {
        for mode in [ProgressMode::Automatic, ProgressMode::Silent] {
            let mut progress = Progress::start(mode, "pair", 0, 0);
            progress.message("");
            assert_eq!(progress.suspend(|| 7), 7);
            progress.finish();
        }
    }
}
