//! When runs are due. Everything here is a pure function of a schedule, what was done and a
//! moment; nothing looks at a clock.
//!
//! ```
//! use backup_schedule::Schedule;
//!
//! let nightly = Schedule::parse("30 2 * * *", "Europe/Berlin")?;
//! // In that night the clocks are put on from 02:00 to 03:00.
//! let evening = "2026-03-28T20:00:00Z".parse()?;
//! let run = nightly.next_after(evening).map(|slot| slot.to_rfc3339());
//! assert_eq!(run.as_deref(), Some("2026-03-29T01:00:00+00:00"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod due;
mod schedule;

pub use chrono_tz::Tz;
pub use due::{Due, DueRun, Job, Missed, MissedReason, State, decide, jitter_of};
pub use schedule::{Schedule, ScheduleError, Slots};
