//! What is going on: a bar on a terminal, a log line now and then elsewhere.

use std::fmt;
use std::io::IsTerminal as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use backup_core::observer::{Event, Observer};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{render, teamcity};

/// How often a log line says how far we are.
const LOG_EVERY: Duration = Duration::from_secs(30);

/// All bars of this process, one below the other.
static BARS: LazyLock<MultiProgress> =
    LazyLock::new(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(8)));

/// Writes to the terminal while no bar is there. Must not be used within itself.
pub(crate) fn apart<T>(write: impl FnOnce() -> T) -> T {
    BARS.suspend(write)
}

/// Shows events to whoever looks at stderr.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    raw: AtomicU64,
    stored: AtomicU64,
    expected: AtomicU64,
    last_line: Mutex<Instant>,
    what: String,
    /// What warnings begin with.
    prefix: String,
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Progress").finish_non_exhaustive()
    }
}

impl Progress {
    /// Progress of `what`; with a bar if stderr is a terminal and nobody wants quiet.
    pub(crate) fn new(what: &str, quiet: bool) -> Self {
        teamcity::progress(what);
        let bar = (std::io::stderr().is_terminal() && !quiet).then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
            let bar = BARS.add(bar);
            bar.set_style(style(false));
            bar.set_prefix(what.to_owned());
            bar.enable_steady_tick(Duration::from_millis(250));
            bar
        });
        Self {
            bar,
            raw: AtomicU64::new(0),
            stored: AtomicU64::new(0),
            expected: AtomicU64::new(0),
            last_line: Mutex::new(Instant::now()),
            what: what.to_owned(),
            prefix: String::new(),
        }
    }

    /// The same beside others: what it says names what it is about.
    pub(crate) fn among_others(mut self) -> Self {
        self.prefix = format!("{}: ", self.what);
        self
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
            BARS.remove(bar);
        }
    }

    fn planned(&self, estimated_bytes: u64) {
        // What was counted before belongs to an attempt that failed.
        self.raw.store(0, Ordering::Relaxed);
        self.stored.store(0, Ordering::Relaxed);
        self.expected.store(estimated_bytes, Ordering::Relaxed);
        if let Some(bar) = &self.bar {
            bar.set_length(estimated_bytes);
            bar.set_position(0);
            bar.set_style(style(true));
            bar.reset_eta();
        }
    }

    fn moved(&self, bytes: u64) {
        let raw = self.raw.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if let Some(bar) = &self.bar {
            // An estimate that turned out too small grows; the bar never passes its end.
            if raw > self.expected.load(Ordering::Relaxed) {
                bar.set_length(raw);
            }
            bar.set_position(raw);
            return;
        }
        let Ok(mut last) = self.last_line.try_lock() else {
            return;
        };
        if last.elapsed() >= LOG_EVERY {
            *last = Instant::now();
            tracing::info!(
                target: "backup",
                what = self.what,
                raw = %render::size(raw),
                stored = %render::size(self.stored.load(Ordering::Relaxed)),
                expected = %render::size(self.expected.load(Ordering::Relaxed)),
                "in progress"
            );
        }
    }

    fn note(&self, text: &str) {
        let prefix = &self.prefix;
        apart(|| tracing::info!(target: "backup", "{prefix}{text}"));
    }

    fn say(&self, text: &str) {
        let prefix = &self.prefix;
        apart(|| tracing::warn!(target: "backup", "{prefix}{text}"));
    }
}

impl Observer for Progress {
    fn event(&self, event: &Event) {
        match event {
            Event::Planned {
                estimated_bytes, ..
            } => self.planned(*estimated_bytes),
            Event::RawBytes(bytes) => self.moved(*bytes),
            Event::StoredBytes(bytes) => {
                self.stored.fetch_add(*bytes, Ordering::Relaxed);
            }
            Event::Step(text) => {
                if let Some(bar) = &self.bar {
                    bar.set_message(text.clone());
                }
                tracing::debug!(target: "backup", "{text}");
            }
            Event::PartStarted { part } => {
                tracing::debug!(target: "backup", %part, "part started");
            }
            Event::PartFinished { part, elapsed } => {
                tracing::debug!(target: "backup", %part, ?elapsed, "part finished");
            }
            Event::PartRetried { part, reason } => {
                self.say(&format!("part {part} is tried again: {reason}"));
            }
            Event::Warning(text) => self.say(text),
            Event::Note(text) => self.note(text),
            _ => {}
        }
    }
}

fn style(known: bool) -> ProgressStyle {
    let template = if known {
        "{prefix} {bar:30} {percent:>3}% {bytes}/{total_bytes} {bytes_per_sec} eta {eta} {msg}"
    } else {
        "{prefix} {spinner} {elapsed} {msg}"
    };
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
