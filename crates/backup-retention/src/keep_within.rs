//! Those that are young enough.

use backup_core::retention::{Candidate, KeepReason, RetentionPolicy, Verdict};
use chrono::{DateTime, TimeDelta, Utc};

/// Keeps every backup for so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepWithin(pub TimeDelta);

impl RetentionPolicy for KeepWithin {
    fn evaluate(&self, candidates: &[Candidate], now: DateTime<Utc>) -> Vec<Verdict> {
        crate::verdicts(candidates, |index| {
            let started = candidates[index].id.started_at();
            // Longer than time itself is for ever.
            let end = started.checked_add_signed(self.0);
            let until = end.unwrap_or(DateTime::<Utc>::MAX_UTC);
            (now < until).then_some(KeepReason::Young { until })
        })
    }
}
