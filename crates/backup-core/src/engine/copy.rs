//! Putting a stored backup into another store, byte by byte, without decrypting it.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio_util::sync::CancellationToken;

use super::reader::{checked_object, read_error, wrapped_key};
use super::{Engine, unless};
use crate::body::{BodyStream, body_of, counted};
use crate::catalog::read_small;
use crate::error::{Error, ErrorKind, PortError, chain};
use crate::fan_out::Member;
use crate::history::{HistoryRequest, Proofs};
use crate::layout;
use crate::lease::Lease;
use crate::manifest::{MAX_MANIFEST_BYTES, Manifest, StoredObject};
use crate::observer::Event;
use crate::run_record::Operation;
use crate::store::{PutOptions, StoreKey};

/// What was copied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CopyOutcome {
    /// Objects, the manifest among them; none when the backup was there already, and whole.
    pub objects: usize,
    /// Their bytes.
    pub bytes: u64,
}

impl Engine {
    /// Copies a backup into the store of `to`. Every object is checked against the digest in the
    /// manifest while it passes, so a damaged one is never copied; the manifest comes last, and is
    /// the same to the byte. A backup that is there already stays as it is, except for objects that
    /// are gone or of another length, and, where a run has found it damaged, such that are not the
    /// same: those are put there once more.
    ///
    /// # Errors
    /// `Corrupt` when the backup is damaged here, or when there is another one of its name there;
    /// what was written is removed again, unless it mends a backup.
    ///
    /// # Cancellation
    /// The token ends the uploads, removes what was written and returns [`Error::Cancelled`].
    pub async fn copy(
        &self,
        backup: &Manifest,
        to: &Self,
        jobs: usize,
        cancel: &CancellationToken,
    ) -> Result<CopyOutcome, Error> {
        // Nobody else copies there, and nobody removes what is not yet a backup.
        let held = to.hold_stored(&backup.source, Operation::Copy, cancel);
        let held = held.await?;
        let token = held.as_ref().map_or(cancel, Lease::token);
        let copying = self.copy_once(backup, (to, jobs), held.as_ref(), token);
        let mut copied = copying.await;
        if let Err(Error::Corrupt { .. }) = &copied
            && let Ok(true) = unless(token, self.is_rekeyed(backup)).await
        {
            // Manifest and key are copied as one, and may have changed in between.
            copied = self
                .copy_once(backup, (to, jobs), held.as_ref(), token)
                .await;
        }
        let lost = held.as_ref().and_then(Lease::loss);
        if let Some(lease) = held
            && let Err(error) = lease.release().await
        {
            let text = format!("the lease ends by itself only: {}", chain(&error));
            self.observer.event(&Event::Warning(text));
        }
        match (copied, lost) {
            (Err(Error::Cancelled), Some(lost)) if !cancel.is_cancelled() => Err(lost),
            (copied, _) => copied,
        }
    }

    async fn copy_once(
        &self,
        backup: &Manifest,
        (to, jobs): (&Self, usize),
        lease: Option<&Lease>,
        cancel: &CancellationToken,
    ) -> Result<CopyOutcome, Error> {
        let key = layout::manifest_key(&backup.source, &backup.id);
        // Who can open it may have changed since the caller looked.
        let stored = unless(cancel, self.stored_manifest(backup, &key)).await?;
        let (backup, manifest) = &stored?;
        let copying = Copying {
            from: self,
            to,
            member: Member::new(to.store.describe(), Arc::clone(&to.store)),
            backup,
            jobs,
            lease,
            cancel,
        };
        copying.run((&key, manifest)).await
    }

    /// Whether others can open the backup than when the caller looked.
    async fn is_rekeyed(&self, backup: &Manifest) -> bool {
        let key = layout::manifest_key(&backup.source, &backup.id);
        let stored = self.stored_manifest(backup, &key).await;
        stored.is_ok_and(|(now, _)| now != *backup)
    }

    /// The names of a backup's objects that are not what the manifest says. All are read if a run
    /// has found the backup damaged.
    async fn lacking(&self, backup: &Manifest) -> Result<BTreeSet<String>, Error> {
        let mut lacking: BTreeSet<_> = self.catalog().lacking(backup).await?.into_iter().collect();
        let request = HistoryRequest {
            since: Some(backup.started_at),
            ..HistoryRequest::default()
        };
        let runs = self.history().list(&request).await?.runs;
        if !Proofs::new(runs).is_damaged(backup) {
            return Ok(lacking);
        }
        for object in backup.parts.iter().flat_map(|part| &part.objects) {
            if !lacking.contains(&object.name) && !self.is_same(backup, object).await? {
                lacking.insert(object.name.clone());
            }
        }
        if let Some(record) = &backup.encryption {
            match wrapped_key(self, backup, record).await {
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    lacking.insert(record.key.clone());
                }
                other => drop(other?),
            }
        }
        Ok(lacking)
    }

    async fn is_same(&self, backup: &Manifest, object: &StoredObject) -> Result<bool, Error> {
        let key = layout::object_key(&backup.source, &backup.id, &object.name);
        let key = key.map_err(|e| not_copied(&object.name, e))?;
        let read = match checked_object(self.store.as_ref(), &key, object.clone()).await {
            Ok(body) => {
                let read = body.try_for_each(|_| async { Ok(()) }).await;
                read.map_err(|e| PortError::from_io(e, ErrorKind::Unavailable, "read"))
            }
            Err(error) => Err(error),
        };
        match read {
            Err(e) if e.kind() == ErrorKind::Corrupt => Ok(false),
            Err(e) => Err(Error::store(format!("read {key}"), e)),
            Ok(()) => Ok(true),
        }
    }

    /// The manifest as it is stored, which is what the backup is.
    async fn stored_manifest(
        &self,
        backup: &Manifest,
        key: &StoreKey,
    ) -> Result<(Manifest, Bytes), Error> {
        let text = read_small(self.store.as_ref(), key, MAX_MANIFEST_BYTES).await?;
        let text = text.ok_or_else(|| Error::NotFound {
            what: format!("backup {}", backup.id),
        })?;
        match Manifest::decode(&text) {
            Ok(found) if found.is_same_backup(backup) => Ok((found, text)),
            _ => Err(Error::corrupt(format!(
                "the manifest of backup {} has changed",
                backup.id
            ))),
        }
    }
}

/// The record of the backup in the other place, if that has it. Others may be able to open it there.
async fn found_there(
    backup: &Manifest,
    to: &Engine,
    key: &StoreKey,
) -> Result<Option<Manifest>, Error> {
    let place = || to.store.describe();
    let text = read_small(to.store.as_ref(), key, MAX_MANIFEST_BYTES).await?;
    let there = text.as_ref().and_then(|text| Manifest::decode(text).ok());
    if let Some(there) = there.filter(|there| there.is_same_backup(backup)) {
        return Ok(Some(there));
    }
    match text {
        None if to.in_use(&backup.source).await?.contains_key(&backup.id) => Err(Error::refused(
            format!("backup {} is being written to {}", backup.id, place()),
            "copy it when that has ended, if it is not there then",
        )),
        None => Ok(None),
        Some(found) if Manifest::barred_at(&found).is_some() => Err(Error::refused(
            format!("backup {} can never be in {}", backup.id, place()),
            "another run took over there while it was written; its next backup is there",
        )),
        Some(_) => Err(Error::corrupt(format!(
            "{} has another manifest of backup {}",
            place(),
            backup.id
        ))),
    }
}

/// One backup on its way.
struct Copying<'a> {
    from: &'a Engine,
    to: &'a Engine,
    /// The store of `to`, with what is written there.
    member: Member,
    backup: &'a Manifest,
    jobs: usize,
    lease: Option<&'a Lease>,
    cancel: &'a CancellationToken,
}

impl Copying<'_> {
    async fn run(&self, manifest: (&StoreKey, &Bytes)) -> Result<CopyOutcome, Error> {
        let copied = self.copied(manifest).await;
        match copied {
            Err(_) if self.cancel.is_cancelled() => Err(Error::Cancelled),
            copied => copied,
        }
    }

    async fn copied(&self, manifest: (&StoreKey, &Bytes)) -> Result<CopyOutcome, Error> {
        let (from, to, backup) = (self.from, self.to, self.backup);
        if let Some(there) = unless(self.cancel, found_there(backup, to, manifest.0)).await?? {
            return self.mend(&there).await;
        }
        let joined = to.catalog();
        let joined = joined.join_repository(from.clock.now(), Some(&backup.repository));
        unless(self.cancel, joined).await??;
        from.observer.event(&Event::Planned {
            parts: backup.parts.len(),
            estimated_bytes: backup.totals.stored_bytes,
        });
        let copied = self.whole(manifest).await;
        if let Err(error) = &copied {
            self.member
                .give_up(PortError::new(error.kind(), "not copied"));
            self.member.settle().await;
            for text in self.member.outcome().warnings {
                from.observer.event(&Event::Warning(text));
            }
        }
        copied
    }

    /// Brings what the backup lacks that is there. What is put there belongs to a backup, and stays
    /// also when not all of it comes.
    async fn mend(&self, there: &Manifest) -> Result<CopyOutcome, Error> {
        let mut lacking = unless(self.cancel, self.to.lacking(there)).await??;
        let other_key = there.encryption.as_ref();
        let other_key = other_key.filter(|_| there.encryption != self.backup.encryption);
        let lost = other_key.is_some_and(|record| lacking.remove(&record.key));
        let copied = self.objects(Some(&lacking)).await?;
        if lost {
            let (id, place) = (&there.id, self.to.store.describe());
            let what =
                format!("backup {id} has lost its key in {place}, and the one here is another");
            return Err(Error::corrupt(what));
        }
        Ok(copied)
    }

    async fn whole(
        &self,
        (manifest_key, manifest): (&StoreKey, &Bytes),
    ) -> Result<CopyOutcome, Error> {
        let mut outcome = self.objects(None).await?;
        // Whoever stood still for long must not commit what somebody has swept meanwhile.
        if let Some(lease) = self.lease {
            unless(self.cancel, lease.confirm()).await??;
        }
        let created = self.member.create(manifest_key, manifest).await;
        created.map_err(|e| Error::store(format!("write {manifest_key}"), e))?;
        outcome.objects += 1;
        outcome.bytes += manifest.len() as u64;
        Ok(outcome)
    }

    /// Copies the objects of these names, else all.
    async fn objects(&self, names: Option<&BTreeSet<String>>) -> Result<CopyOutcome, Error> {
        let is_wanted = |name: &String| names.is_none_or(|names| names.contains(name));
        let mut outcome = CopyOutcome::default();
        let key = self.backup.encryption.as_ref();
        if let Some(record) = key.filter(|record| is_wanted(&record.key)) {
            let wrapped = wrapped_key(self.from, self.backup, record);
            let wrapped = unless(self.cancel, wrapped).await??;
            outcome.objects += 1;
            outcome.bytes += wrapped.len() as u64;
            let options = PutOptions::default();
            self.put(&record.key, body_of(wrapped), &options).await?;
        }
        let objects = self.backup.parts.iter().flat_map(|part| &part.objects);
        let objects = objects.filter(|object| is_wanted(&object.name));
        let mut copies = stream::iter(objects)
            .map(|object| self.object(object))
            .buffer_unordered(self.jobs.max(1));
        while let Some(bytes) = copies.try_next().await? {
            outcome.objects += 1;
            outcome.bytes += bytes;
        }
        if self.cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        Ok(outcome)
    }

    async fn object(&self, object: &StoredObject) -> Result<u64, Error> {
        let key = self.key_of(&object.name)?;
        let store = self.from.store.as_ref();
        let body = unless(self.cancel, checked_object(store, &key, object.clone())).await?;
        let body = body.map_err(|e| not_copied(&object.name, e))?;
        let observer = Arc::clone(&self.from.observer);
        let body = counted(body, move |bytes| observer.event(&Event::RawBytes(bytes)));
        let options = PutOptions {
            expected_bytes: Some(object.bytes),
        };
        self.put(&object.name, body, &options).await
    }

    async fn put(&self, name: &str, body: BodyStream, options: &PutOptions) -> Result<u64, Error> {
        let key = self.key_of(name)?;
        let put = self.member.put(&key, body, options, self.cancel);
        put.await.map_err(|e| not_copied(name, e))
    }

    fn key_of(&self, name: &str) -> Result<StoreKey, Error> {
        let key = layout::object_key(&self.backup.source, &self.backup.id, name);
        key.map_err(|e| not_copied(name, e))
    }
}

fn not_copied(name: &str, error: PortError) -> Error {
    match error.kind() {
        ErrorKind::Cancelled => Error::Cancelled,
        _ => read_error(format!("copy {name}"), error),
    }
}
