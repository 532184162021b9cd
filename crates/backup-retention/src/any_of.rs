//! Several policies: what one of them keeps, stays.

use backup_core::retention::{Candidate, RetentionPolicy, Verdict};
use chrono::{DateTime, Utc};

/// Keeps what any of its policies keeps, with the reasons of all.
#[derive(Debug)]
pub struct AnyOf(Vec<Box<dyn RetentionPolicy>>);

impl AnyOf {
    /// The combination of `policies`; of none, it keeps nothing.
    #[must_use]
    pub fn new(policies: Vec<Box<dyn RetentionPolicy>>) -> Self {
        Self(policies)
    }
}

impl RetentionPolicy for AnyOf {
    fn evaluate(&self, candidates: &[Candidate], now: DateTime<Utc>) -> Vec<Verdict> {
        let mut all = crate::verdicts(candidates, |_| None);
        for policy in &self.0 {
            let verdicts = policy.evaluate(candidates, now);
            for (verdict, more) in all.iter_mut().zip(verdicts) {
                // Two policies may give the same slot.
                for reason in more.keep {
                    if !verdict.keep.contains(&reason) {
                        verdict.keep.push(reason);
                    }
                }
            }
        }
        all
    }
}
