//! Leases of those who read, what all leases say is in use, and what the dead left among them.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::TryStreamExt as _;
use tokio_util::sync::CancellationToken;

use super::held::Form;
use super::record::{self, LeaseRecord};
use super::{Holder, Lease, LeaseKind, Leases, Work};
use crate::backup::{BackupId, SourceName};
use crate::error::Error;
use crate::layout;
use crate::store::{Depth, Entry, StoreKey};

/// What the dead left among the leases is removed after so long.
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
            if self.is_held(&record)
                && let Some(backup) = &record.backup
            {
                let holders = used.entry(backup.clone()).or_default();
                holders.push(record.holder());
            }
        }
        Ok(used)
    }

    /// Removes leases of readers that ended a day ago, and what runs of that time left when they tried what
    /// the store can. Ends with the first that cannot be removed: many logins may delete nothing.
    ///
    /// # Errors
    /// What the store reports.
    pub async fn remove_litter(&self, source: &SourceName) -> Result<(), Error> {
        let now = self.clock.now();
        let mut litter = Vec::new();
        for key in self.reader_keys(source).await? {
            let Some((_, record)) = self.read(&key).await? else {
                continue;
            };
            if !self.is_held(&record) && record.ends(LITTER).is_some_and(|end| now > end) {
                litter.push(key);
            }
        }
        let prefix = layout::probes_prefix();
        let failed = |e| Error::store(format!("list {prefix}"), e);
        let mut probes = self.store.list(Some(&prefix), Depth::Recursive);
        while let Some(entry) = probes.try_next().await.map_err(failed)? {
            if let Entry::Object(probe) = entry
                && (now - probe.modified)
                    .to_std()
                    .is_ok_and(|age| age > LITTER)
            {
                litter.push(probe.key);
            }
        }
        for key in litter {
            let deleted = self.store.delete(&key).await;
            deleted.map_err(|e| Error::store(format!("delete {key}"), e))?;
        }
        Ok(())
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
