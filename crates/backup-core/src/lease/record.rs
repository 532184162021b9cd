//! The stored form of a lease.

use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::{Holder, Leases, ProcessMark, SlotMark, Work};
use crate::backup::BackupId;
use crate::error::PortError;
use crate::run_record::{Operation, Who};
use crate::versioned;

/// The format of leases that this build writes and reads.
const FORMAT: u32 = 1;

/// No lease is longer.
pub(super) const MAX_LEASE_BYTES: usize = 64 << 10;

/// What tells one taking of a lease from all others.
pub(super) fn nonce() -> String {
    let bits: u128 = rand::random();
    format!("{bits:032x}")
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Held,
    Released,
}

/// No two contents are the same, which a replacement on a condition needs: the tag of an object
/// may be a hash of its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LeaseRecord {
    format: u32,
    /// How often the lease was taken.
    epoch: u64,
    pub(super) nonce: String,
    /// How often it was written since it was taken.
    beat: u64,
    state: State,
    #[serde(flatten)]
    pub(super) who: Who,
    pub(super) process: ProcessMark,
    pub(super) operation: Operation,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) backup: Option<BackupId>,
    pub(super) acquired_at: DateTime<Utc>,
    pub(super) renewed_at: DateTime<Utc>,
    ttl_seconds: u32,
    /// Backups of those who had it before and did not give it back, as long as it is not certain
    /// that they will not be committed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) unbarred: Vec<BackupId>,
    /// How far a schedule is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) slot: Option<SlotMark>,
}

impl LeaseRecord {
    pub(super) fn new(leases: &Leases, work: &Work, nonce: &str, before: Option<&Self>) -> Self {
        let now = leases.clock.now();
        let settings = &leases.settings;
        let unbarred = before.into_iter().flat_map(Self::uncommitted);
        let slot = before.and_then(|before| before.slot);
        Self {
            format: FORMAT,
            epoch: before.map_or(1, |before| before.epoch.saturating_add(1)),
            nonce: nonce.to_owned(),
            beat: 0,
            state: State::Held,
            who: settings.who.clone(),
            process: settings.processes.me(),
            operation: work.operation.clone(),
            backup: work.backup.clone(),
            acquired_at: now,
            renewed_at: now,
            ttl_seconds: u32::try_from(settings.ttl.as_secs()).unwrap_or(u32::MAX),
            unbarred: unbarred.cloned().collect(),
            slot: work
                .slot
                .map_or(slot, |at| Some(SlotMark::begin(at, slot, now))),
        }
    }

    /// The next content, at `now`.
    pub(super) fn renewed(&self, now: DateTime<Utc>) -> Self {
        Self {
            beat: self.beat.saturating_add(1),
            renewed_at: now,
            ..self.clone()
        }
    }

    /// The last content.
    pub(super) fn released(&self, now: DateTime<Utc>) -> Self {
        Self {
            state: State::Released,
            ..self.renewed(now)
        }
    }

    /// The last content, with another word of how far the schedule is.
    pub(super) fn released_at(
        &self,
        now: DateTime<Utc>,
        slot: impl FnOnce(SlotMark) -> SlotMark,
    ) -> Self {
        Self {
            slot: self.slot.map(slot),
            ..self.released(now)
        }
    }

    pub(super) fn is_held(&self) -> bool {
        self.state == State::Held
    }

    /// What those who had it and did not give it back may still commit.
    pub(super) fn uncommitted(&self) -> impl Iterator<Item = &BackupId> {
        let own = self.backup.as_ref().filter(|_| self.is_held());
        self.unbarred.iter().chain(own)
    }

    pub(super) fn ttl(&self) -> Duration {
        Duration::from_secs(self.ttl_seconds.into())
    }

    /// When others may take it, `late` after its time; never if that is no time at all.
    pub(super) fn ends(&self, late: Duration) -> Option<DateTime<Utc>> {
        let late = TimeDelta::from_std(late).ok()?;
        let ttl = TimeDelta::seconds(i64::from(self.ttl_seconds));
        self.renewed_at
            .checked_add_signed(ttl)?
            .checked_add_signed(late)
    }

    pub(super) fn holder(&self) -> Holder {
        Holder {
            who: self.who.clone(),
            pid: self.process.pid,
            operation: self.operation.clone(),
            backup: self.backup.clone(),
            since: self.acquired_at,
            until: self.ends(Duration::ZERO).unwrap_or(self.renewed_at),
        }
    }

    pub(super) fn encode(&self) -> Result<Bytes, PortError> {
        versioned::encode(self, "lease").map(Bytes::from)
    }

    pub(super) fn decode(text: &[u8]) -> Result<Self, PortError> {
        versioned::decode(text, FORMAT, "lease")
    }
}
