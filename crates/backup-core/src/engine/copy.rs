//! Putting a stored backup into another store, byte by byte, without decrypting it.

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
use crate::layout;
use crate::lease::Lease;
use crate::manifest::{MAX_MANIFEST_BYTES, Manifest, StoredObject};
use crate::observer::Event;
use crate::run_record::Operation;
use crate::store::{PutOptions, StoreKey};

/// What was copied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CopyOutcome {
    /// Objects, the manifest among them; none when the backup was there already.
    pub objects: usize,
    /// Their bytes.
    pub bytes: u64,
}

impl Engine {
    /// Copies a backup into the store of `to`. Every object is checked against the digest in the
    /// manifest while it passes, so a damaged one is never copied; the manifest comes last, and is
    /// the same to the byte. A backup that is there already stays as it is.
    ///
    /// # Errors
    /// `Corrupt` when the backup is damaged here, or when there is another one of its name there;
    /// what was written is removed again.
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
        let copied = self.copy_alone(backup, to, jobs, token).await;
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

    async fn copy_alone(
        &self,
        backup: &Manifest,
        to: &Self,
        jobs: usize,
        cancel: &CancellationToken,
    ) -> Result<CopyOutcome, Error> {
        let manifest_key = layout::manifest_key(&backup.source, &backup.id);
        let manifest = unless(cancel, self.manifest_text(backup, &manifest_key)).await??;
        if unless(cancel, is_there(backup, to, (&manifest_key, &manifest))).await?? {
            return Ok(CopyOutcome::default());
        }
        let joined = to.catalog();
        let joined = joined.join_repository(self.clock.now(), Some(&backup.repository));
        unless(cancel, joined).await??;
        self.observer.event(&Event::Planned {
            parts: backup.parts.len(),
            estimated_bytes: backup.totals.stored_bytes,
        });
        let member = Member::new(to.store.describe(), Arc::clone(&to.store));
        let copying = Copying {
            engine: self,
            member: &member,
            backup,
            cancel,
        };
        let copied = copying.run(&manifest_key, &manifest, jobs).await;
        if let Err(error) = &copied {
            member.give_up(PortError::new(error.kind(), "not copied"));
            member.settle().await;
            for text in member.outcome().warnings {
                self.observer.event(&Event::Warning(text));
            }
        }
        match copied {
            Err(_) if cancel.is_cancelled() => Err(Error::Cancelled),
            copied => copied,
        }
    }

    /// The manifest as it is stored, which is what the backup is.
    async fn manifest_text(&self, backup: &Manifest, key: &StoreKey) -> Result<Bytes, Error> {
        let text = read_small(self.store.as_ref(), key, MAX_MANIFEST_BYTES).await?;
        let text = text.ok_or_else(|| Error::NotFound {
            what: format!("backup {}", backup.id),
        })?;
        match Manifest::decode(&text) {
            Ok(found) if found == *backup => Ok(text),
            _ => Err(Error::corrupt(format!(
                "the manifest of backup {} has changed",
                backup.id
            ))),
        }
    }
}

/// Whether the other place has the backup already.
async fn is_there(
    backup: &Manifest,
    to: &Engine,
    (key, manifest): (&StoreKey, &Bytes),
) -> Result<bool, Error> {
    let place = || to.store.describe();
    match read_small(to.store.as_ref(), key, MAX_MANIFEST_BYTES).await? {
        None if to.in_use(&backup.source).await?.contains_key(&backup.id) => Err(Error::refused(
            format!("backup {} is being written to {}", backup.id, place()),
            "copy it when that has ended, if it is not there then",
        )),
        None => Ok(false),
        Some(found) if found == *manifest => Ok(true),
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
    engine: &'a Engine,
    member: &'a Member,
    backup: &'a Manifest,
    cancel: &'a CancellationToken,
}

impl Copying<'_> {
    async fn run(
        &self,
        manifest_key: &StoreKey,
        manifest: &Bytes,
        jobs: usize,
    ) -> Result<CopyOutcome, Error> {
        let mut outcome = CopyOutcome {
            objects: 1,
            bytes: manifest.len() as u64,
        };
        if let Some(record) = &self.backup.encryption {
            let wrapped = wrapped_key(self.engine, self.backup, record);
            let wrapped = unless(self.cancel, wrapped).await??;
            outcome.objects += 1;
            outcome.bytes += wrapped.len() as u64;
            let options = PutOptions::default();
            self.put(&record.key, body_of(wrapped), &options).await?;
        }
        let objects = self.backup.parts.iter().flat_map(|part| &part.objects);
        let mut copies = stream::iter(objects)
            .map(|object| self.object(object))
            .buffer_unordered(jobs.max(1));
        while let Some(bytes) = copies.try_next().await? {
            outcome.objects += 1;
            outcome.bytes += bytes;
        }
        if self.cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let created = self.member.create(manifest_key, manifest).await;
        created.map_err(|e| Error::store(format!("write {manifest_key}"), e))?;
        Ok(outcome)
    }

    async fn object(&self, object: &StoredObject) -> Result<u64, Error> {
        let key = self.key_of(&object.name)?;
        let store = self.engine.store.as_ref();
        let body = unless(self.cancel, checked_object(store, &key, object.clone())).await?;
        let body = body.map_err(|e| not_copied(&object.name, e))?;
        let observer = Arc::clone(&self.engine.observer);
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
