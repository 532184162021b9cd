//! Putting a stored backup into another store, byte by byte, without decrypting it.

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio_util::sync::CancellationToken;

use super::reader::{checked_object, read_error, wrapped_key};
use super::{Engine, unless};
use crate::body::{BodyStream, body_of, counted};
use crate::catalog::read_small;
use crate::error::{Error, ErrorKind, PortError};
use crate::fan_out::Member;
use crate::layout;
use crate::manifest::{MAX_MANIFEST_BYTES, Manifest, StoredObject};
use crate::observer::Event;
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
        let manifest_key = layout::manifest_key(&backup.source, &backup.id);
        let manifest = unless(cancel, self.manifest_text(backup, &manifest_key)).await??;
        let there = read_small(to.store.as_ref(), &manifest_key, MAX_MANIFEST_BYTES);
        match unless(cancel, there).await?? {
            Some(found) if found == manifest => return Ok(CopyOutcome::default()),
            Some(_) => {
                let place = to.store.describe();
                return Err(Error::corrupt(format!(
                    "{place} has another manifest of backup {}",
                    backup.id
                )));
            }
            None => {}
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
            for text in member.settle().await.warnings {
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
