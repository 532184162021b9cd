//! The newest ones, by number.

use backup_core::retention::{Candidate, Count, KeepReason, RetentionPolicy, Verdict};
use chrono::{DateTime, Utc};

use crate::oldest_first;

/// Keeps so many of the newest backups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepLast(pub Count);

impl RetentionPolicy for KeepLast {
    fn evaluate(&self, candidates: &[Candidate], _now: DateTime<Utc>) -> Vec<Verdict> {
        let mut kept = vec![false; candidates.len()];
        let newest = oldest_first(candidates).into_iter().rev();
        for index in newest.take(self.0.limit()) {
            kept[index] = true;
        }
        crate::verdicts(candidates, |index| {
            kept[index].then_some(KeepReason::Recent(self.0))
        })
    }
}
