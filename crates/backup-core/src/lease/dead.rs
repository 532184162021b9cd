//! Runs that ended without giving their lease back.

use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::record::LeaseRecord;
use super::{LeaseKind, Leases};
use crate::backup::{BackupId, SourceName};
use crate::error::Error;
use crate::layout;
use crate::run_record::{Operation, Who};
use crate::store::{Depth, Entry};

/// How long after its time a lease of another machine is silent before its run counts as dead, at the
/// least. Whoever only looks takes no turn away because a clock is wrong, a store was away, or a
/// machine slept.
const SILENCE: Duration = Duration::from_hours(1);
/// The same, in times of the lease.
const SILENT_TIMES: u32 = 10;
/// How many leases are read at the same time.
const READERS: usize = 16;

/// A run that ended without giving its lease back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadRun {
    /// Of which source.
    pub source: SourceName,
    /// The backup that it wrote.
    pub backup: BackupId,
    /// Who ran it.
    pub who: Who,
    /// When it took the lease.
    pub since: DateTime<Utc>,
    /// When it was last known to be alive.
    pub seen: DateTime<Utc>,
}

impl Leases {
    /// The runs of backups that left their lease behind, of all sources.
    ///
    /// # Errors
    /// What the store reports.
    pub async fn dead(&self) -> Result<Vec<DeadRun>, Error> {
        let prefix = layout::leases_prefix(LeaseKind::Backup);
        let entries = self.store.list(Some(&prefix), Depth::Children);
        let sources = entries.try_filter_map(|entry| async move {
            Ok(match entry {
                Entry::Object(meta) => layout::parse_lease_key(LeaseKind::Backup, &meta.key),
                Entry::Prefix(_) => None,
            })
        });
        let sources: Vec<_> = sources
            .try_collect()
            .await
            .map_err(|e| Error::store(format!("list {prefix}"), e))?;
        // One that cannot be read hides no other.
        let read = stream::iter(sources)
            .map(|source| async move { self.dead_of(&source).await })
            .buffer_unordered(READERS)
            .filter_map(|found| async move { found.ok().flatten() });
        Ok(read.collect().await)
    }

    async fn dead_of(&self, source: &SourceName) -> Result<Option<DeadRun>, Error> {
        let key = layout::lease_key(LeaseKind::Backup, source);
        let found = self.read(&key).await?;
        let dead = found.filter(|(_, record)| record.is_held() && self.is_dead(record));
        Ok(dead.and_then(|(_, record)| dead_run(source, record)))
    }

    /// The run whose lease whoever takes the turn now takes over, dead or only late.
    ///
    /// # Errors
    /// What the store reports.
    pub(crate) async fn left_of(&self, source: &SourceName) -> Result<Option<DeadRun>, Error> {
        let key = layout::lease_key(LeaseKind::Backup, source);
        let found = self.read(&key).await?;
        let left = found.filter(|(_, record)| record.is_held() && !self.is_held(record));
        Ok(left.and_then(|(_, record)| dead_run(source, record)))
    }

    /// Whether a run goes on no more, beyond doubt: its process is gone, or nobody here can know that
    /// and it is silent for longer than clocks and outages explain.
    fn is_dead(&self, record: &LeaseRecord) -> bool {
        let processes = &self.settings.processes;
        if processes.is_gone(&record.process) {
            return true;
        }
        let table = &record.process.table;
        let is_here = !table.is_empty() && *table == processes.me().table;
        let late = SILENCE.max(record.ttl() * SILENT_TIMES);
        let is_silent = record.ends(late).is_some_and(|end| self.clock.now() >= end);
        !is_here && is_silent
    }
}

fn dead_run(source: &SourceName, record: LeaseRecord) -> Option<DeadRun> {
    let is_backup = record.operation == Operation::Backup;
    let backup = record.backup.filter(|_| is_backup)?;
    Some(DeadRun {
        source: source.clone(),
        backup,
        who: record.who,
        since: record.acquired_at,
        seen: record.renewed_at,
    })
}
