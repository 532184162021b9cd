//! How far a job is.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use backup_core::observer::{Event, Observer};
use tokio::sync::watch;

use super::view::{JobView, is_final};
use crate::text::shown;

/// How often bytes are shown to move. Steps are shown at once.
const EVERY: Duration = Duration::from_millis(100);

/// Shows the events of one part of a job, and says the others in the log.
pub(super) struct Progress {
    view: Arc<watch::Sender<JobView>>,
    about: String,
    seen: Mutex<Seen>,
}

/// What this part has done, and how much of it is shown already.
struct Seen {
    done: u64,
    total: u64,
    shown_done: u64,
    shown_total: u64,
    last: Option<Instant>,
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Progress").finish_non_exhaustive()
    }
}

impl Progress {
    pub(super) fn new(view: Arc<watch::Sender<JobView>>, about: &str) -> Self {
        Self {
            view,
            about: shown(about),
            seen: Mutex::new(Seen {
                done: 0,
                total: 0,
                shown_done: 0,
                shown_total: 0,
                last: None,
            }),
        }
    }

    /// Counts, and shows the sum if it is time. Other parts of the job add to the same sums, so what
    /// is shown changes by differences.
    fn count(&self, at_once: bool, count: impl FnOnce(&mut Seen)) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        count(&mut seen);
        let is_time = seen.last.is_none_or(|last| last.elapsed() >= EVERY);
        if !at_once && !is_time {
            return;
        }
        seen.last = Some(Instant::now());
        // An estimate that turned out too small grows.
        let total = seen.total.max(seen.done);
        let change = |sum: u64, shown: u64, now: u64| sum.saturating_sub(shown).saturating_add(now);
        self.view.send_if_modified(|view| {
            if is_final(view.state) {
                return false;
            }
            view.bytes_done = change(view.bytes_done, seen.shown_done, seen.done);
            let sum = change(view.bytes_total.unwrap_or(0), seen.shown_total, total);
            view.bytes_total = (sum > 0).then_some(sum);
            true
        });
        (seen.shown_done, seen.shown_total) = (seen.done, total);
    }

    fn step(&self, text: &str) {
        self.view.send_if_modified(|view| {
            let goes_on = !is_final(view.state);
            if goes_on {
                view.phase = Some(shown(text));
            }
            goes_on
        });
    }
}

/// What was not shown yet, since it came too soon after the last.
impl Drop for Progress {
    fn drop(&mut self) {
        self.count(true, |_| {});
    }
}

impl Observer for Progress {
    fn event(&self, event: &Event) {
        let about = &self.about;
        match event {
            // What was counted before belongs to an attempt that failed.
            Event::Planned {
                estimated_bytes, ..
            } => self.count(true, |seen| (seen.done, seen.total) = (0, *estimated_bytes)),
            Event::RawBytes(bytes) => self.count(false, |seen| seen.done += bytes),
            Event::Step(text) => self.step(text),
            Event::PartRetried { part, reason } => {
                let reason = shown(reason);
                tracing::warn!(target: "backup", "{about}: part {part} is tried again: {reason}");
            }
            Event::Note(text) => tracing::info!(target: "backup", "{about}: {}", shown(text)),
            Event::Warning(text) => tracing::warn!(target: "backup", "{about}: {}", shown(text)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::tests::queued;

    #[test]
    fn parts_of_a_job_add_up_and_an_attempt_that_failed_does_not_count() {
        let view = Arc::new(watch::Sender::new(queued()));
        let planned = |estimated_bytes| Event::Planned {
            parts: 1,
            estimated_bytes,
        };
        let one = Progress::new(Arc::clone(&view), "one");
        let two = Progress::new(Arc::clone(&view), "two");
        one.event(&planned(100));
        one.event(&Event::RawBytes(60));
        two.event(&planned(50));
        two.event(&Event::RawBytes(10));
        // Again.
        one.event(&planned(100));
        one.event(&Event::RawBytes(30));
        one.event(&Event::Step("compare".to_owned()));
        drop(one);
        for _ in 0..3 {
            two.event(&Event::RawBytes(30));
        }
        drop(two);
        let shown = view.borrow();
        assert_eq!((shown.bytes_done, shown.bytes_total), (130, Some(200)));
        assert_eq!(shown.phase.as_deref(), Some("compare"));
    }
}
