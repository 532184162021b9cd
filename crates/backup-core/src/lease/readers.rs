//! Leases of those who read, and what all leases say is in use.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::TimeDelta;
use futures::TryStreamExt as _;
use tokio_util::sync::CancellationToken;

use super::held::Form;
use super::record::{self, LeaseRecord};
use super::{Holder, Lease, LeaseKind, Leases, Work};
use crate::backup::{BackupId, SourceName};
use crate::error::Error;
use crate::layout;
use crate::store::{Depth, Entry, StoreKey};

/// The lease of a reader that was killed is removed after so long.
const LITTER: Duration = Duration::from_hours(24);

impl Leases {
    /// Tells those who remove backups that one is being read. Excludes nobody, and is never lost:
    /// a lease that cannot be renewed for its time protects no longer.
    ///
    /// Take it before the manifest is read for good: who removes backups looks at the leases, then
    /// removes the manifest, then looks once more before anything else goes.
    ///
    /// # Errors
    /// What the store reports: `PermissionDenied` for a login that may only read.
    pub async fn reading(
        &self,
        source: &SourceName,
        work: &Work,
        cancel: &CancellationToken,
    ) -> Result<Lease, Error> {
        let key = layout::reader_key(source, rand::random());
        let what = format!("the reader's lease of {source}");
        let failed = |e| Error::store(format!("take {what}"), e);
        let record = LeaseRecord::new(self, work, &record::nonce(), None);
        let text = record.encode().map_err(failed)?;
        if let Err(e) = self.store.create(&key, text.clone()).await {
            match self.read(&key).await {
                Ok(Some((found, _))) if found == text => {}
                _ => return Err(failed(e)),
            }
        }
        let form = (key, what, Form::Reader);
        Ok(Lease::begin(self.clone(), form, (text, record), cancel))
    }

    /// The backups of a source that are being read or written now, and by whom. They must not be
    /// removed, and what lies under the id of one that is being written is no orphan.
    ///
    /// Leases of readers that ended a day ago are removed on the way.
    ///
    /// # Errors
    /// What the store reports; `Corrupt` when a lease cannot be read, since it may be in use.
    pub async fn in_use(
        &self,
        source: &SourceName,
    ) -> Result<BTreeMap<BackupId, Vec<Holder>>, Error> {
        let mut keys = self.reader_keys(source).await?;
        keys.push(layout::lease_key(LeaseKind::Backup, source));
        let mut used: BTreeMap<BackupId, Vec<Holder>> = BTreeMap::new();
        for key in keys {
            let Some((_, record)) = self.read(&key).await? else {
                continue;
            };
            if self.is_held(&record) {
                if let Some(backup) = &record.backup {
                    let holders = used.entry(backup.clone()).or_default();
                    holders.push(record.holder());
                }
            } else if key != layout::lease_key(LeaseKind::Backup, source)
                && record
                    .ends(LITTER)
                    .is_some_and(|end| self.clock.now() > end)
            {
                let _ = self.store.delete(&key).await;
            }
        }
        Ok(used)
    }

    /// Removes what runs of long ago left when they tried whether the store keeps conditions. Best effort.
    pub async fn remove_probes(&self) {
        let prefix = layout::probes_prefix();
        let mut probes = self.store.list(Some(&prefix), Depth::Recursive);
        while let Ok(Some(entry)) = probes.try_next().await {
            let Entry::Object(probe) = entry else {
                continue;
            };
            if self.clock.now() - probe.modified > TimeDelta::from_std(LITTER).unwrap_or_default() {
                let _ = self.store.delete(&probe.key).await;
            }
        }
    }

    async fn reader_keys(&self, source: &SourceName) -> Result<Vec<StoreKey>, Error> {
        let prefix = layout::readers_prefix(source);
        let entries = self.store.list(Some(&prefix), Depth::Children);
        let objects = entries.try_filter_map(|entry| async move {
            Ok(match entry {
                Entry::Object(meta) => Some(meta.key),
                Entry::Prefix(_) => None,
            })
        });
        let listed = objects.try_collect().await;
        listed.map_err(|e| Error::store(format!("list {prefix}"), e))
    }
}
