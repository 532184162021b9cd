//! Runs that ended without giving their lease back.

use chrono::{DateTime, Utc};
use futures::TryStreamExt as _;

use super::record::LeaseRecord;
use super::{LeaseKind, Leases};
use crate::backup::{BackupId, SourceName};
use crate::error::Error;
use crate::layout;
use crate::run_record::{Operation, Who};
use crate::store::{Depth, Entry};

/// A run whose process is gone, or has not renewed its lease in time.
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
        let mut dead = Vec::new();
        for source in sources {
            dead.extend(self.dead_of(&source).await?);
        }
        Ok(dead)
    }

    /// The same of one source.
    ///
    /// # Errors
    /// What the store reports.
    pub async fn dead_of(&self, source: &SourceName) -> Result<Option<DeadRun>, Error> {
        let key = layout::lease_key(LeaseKind::Backup, source);
        let found = self.read(&key).await?;
        let left = found.filter(|(_, record)| record.is_held() && !self.is_held(record));
        Ok(left.and_then(|(_, record)| dead_run(source, record)))
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
