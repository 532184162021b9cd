//! What to keep, and why. Policies are pure: they read neither clock nor store.

use std::fmt;

use chrono::{DateTime, Utc};

use crate::backup::BackupId;

/// What a policy may look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The backup; its age is in its name.
    pub id: BackupId,
    /// Whether somebody pinned it.
    pub pinned: bool,
    /// When it was last proved by content, if ever.
    pub verified_at: Option<DateTime<Utc>>,
}

/// Why a backup stays.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeepReason {
    /// It stands for a period: `daily 2026-02-05`.
    Slot(String),
    /// It is among the newest that must stay whatever else says.
    Newest,
    /// It is younger than the policy expires.
    Young,
    /// It is the last one that was proved.
    LastVerified,
    /// Somebody pinned it.
    Pinned,
}

/// The decision on one backup. No reason to keep it means: expire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Which backup.
    pub id: BackupId,
    /// Every reason to keep it.
    pub keep: Vec<KeepReason>,
}

impl Verdict {
    /// Whether the backup may go.
    #[must_use]
    pub fn expires(&self) -> bool {
        self.keep.is_empty()
    }
}

/// Decides what stays.
pub trait RetentionPolicy: fmt::Debug + Send + Sync {
    /// One verdict for each candidate. Only committed, complete backups are candidates.
    fn evaluate(&self, candidates: &[Candidate], now: DateTime<Utc>) -> Vec<Verdict>;
}
