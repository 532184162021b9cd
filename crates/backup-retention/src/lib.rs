//! Retention policies. Each is a pure function of backups and a moment; none looks at a clock or
//! a store, and none knows of pins, proofs or damage: `backup_core::retention::plan` goes around
//! them.
//!
//! ```
//! use backup_core::retention::{Candidate, Count, Guards, plan};
//! use backup_retention::{AnyOf, Gfs, KeepWithin};
//! use chrono::TimeDelta;
//!
//! let policy = AnyOf::new(vec![
//!     Box::new(Gfs { daily: Count::of(7), ..Gfs::default() }),
//!     Box::new(KeepWithin(TimeDelta::days(2))),
//! ]);
//! let backup = Candidate::new("20260205T030000Z-7f3a".parse()?);
//! let now = "2026-02-05T04:00:00Z".parse()?;
//! let verdicts = plan(&policy, &[backup], &Guards::default(), now)?;
//! assert_eq!(verdicts[0].keep[0].to_string(), "daily 2026-02-05");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod any_of;
mod gfs;
mod keep_last;
mod keep_within;
mod period;
mod placement;
mod simulate;

pub use any_of::AnyOf;
pub use chrono_tz::Tz;
pub use gfs::Gfs;
pub use keep_last::KeepLast;
pub use keep_within::KeepWithin;
pub use placement::Placement;
pub use simulate::{SimulatedYear, simulate};

use backup_core::retention::{Candidate, KeepReason, Verdict};

/// The indices of candidates, oldest first.
fn oldest_first(candidates: &[Candidate]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    order.sort_unstable_by(|a, b| candidates[*a].id.cmp(&candidates[*b].id));
    order
}

/// One verdict for each candidate, with the reason that `keep` gives for its index.
fn verdicts(candidates: &[Candidate], keep: impl Fn(usize) -> Option<KeepReason>) -> Vec<Verdict> {
    let judge = |(index, candidate): (usize, &Candidate)| Verdict {
        id: candidate.id.clone(),
        keep: keep(index).into_iter().collect(),
    };
    candidates.iter().enumerate().map(judge).collect()
}
