//! Other recipients for a stored backup ([ADR 4](../../../../docs/adr/0004-rekey.md)).
//!
//! A new wrapped key gets a name of its own; then the manifest that names it takes the place of the
//! one before, in one step; only then does the old wrapped key go. Whoever dies in between leaves a
//! backup that opens with the old key or with the new one, and at most a key that nobody names.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt as _;
use tokio_util::sync::CancellationToken;

use super::reader::{MAX_KEY_BYTES, wrapped_key};
use super::{BackupReader, Engine, unless};
use crate::body::sha256_hex;
use crate::catalog::read_small;
use crate::cipher::Cipher;
use crate::error::{Error, ErrorKind, PortError, chain};
use crate::layout;
use crate::lease::Lease;
use crate::manifest::{EncryptionRecord, MAX_MANIFEST_BYTES, Manifest};
use crate::observer::Event;
use crate::run_record::Operation;
use crate::store::{Depth, Entry, StoreKey};

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RekeyOutcome {
    /// Its record now.
    pub manifest: Manifest,
    /// Old wrapped keys that are still stored, and why: whoever has one of their private keys can
    /// still open the backup there.
    pub left: Vec<(String, String)>,
}

/// A backup as it was found: its record, that record as stored, and the names of its wrapped keys.
struct Found {
    manifest: Manifest,
    text: Bytes,
    keys: Vec<String>,
}

impl Engine {
    /// Encrypts a backup's key to the recipients of the engine's cipher instead of those that it
    /// has. No part is read but the facts, by which it is proved that the key is the right one.
    ///
    /// # Errors
    /// `Key` when no identity fits; `Corrupt` when key or facts are damaged, `InvalidInput` when
    /// the backup is not encrypted, [`Error::Held`] while others copy or remove backups of the
    /// source, [`Error::LeaseLost`] when another run took over meanwhile: what that one did counts.
    /// Without an answer to the last step it is not known which key counts: it is the old or the new
    /// one, and the same may be tried again with the identities of both.
    ///
    /// # Cancellation
    /// The token ends it before the manifest is replaced, and not after.
    pub async fn rekey(
        &self,
        backup: &Manifest,
        cancel: &CancellationToken,
    ) -> Result<RekeyOutcome, Error> {
        let held = self.hold_stored(&backup.source, Operation::Rekey, cancel);
        let held = held.await?;
        let token = held.as_ref().map_or(cancel, Lease::token);
        let rekeyed = self.rekey_alone(backup, held.as_ref(), token).await;
        let lost = match (&rekeyed, &held) {
            (Err(error), Some(lease)) if !cancel.is_cancelled() => overtaken(lease, error).await,
            _ => None,
        };
        if let Some(lease) = held
            && let Err(error) = lease.release().await
        {
            let text = format!("the lease ends by itself only: {}", chain(&error));
            self.observer.event(&Event::Warning(text));
        }
        lost.map_or(rekeyed, Err)
    }

    async fn rekey_alone(
        &self,
        backup: &Manifest,
        lease: Option<&Lease>,
        cancel: &CancellationToken,
    ) -> Result<RekeyOutcome, Error> {
        let found = unless(cancel, self.find_keys(backup)).await??;
        let (name, wrapped) = unless(cancel, self.wrap_again(&found)).await??;
        let record = EncryptionRecord {
            key: name.clone(),
            key_sha256: sha256_hex(&wrapped),
            recipients: self.cipher_for(&found.manifest)?.recipients(),
            ..encryption(&found.manifest)?.clone()
        };
        let manifest = Manifest {
            encryption: Some(record),
            ..found.manifest.clone()
        };
        let key = key_of(&found.manifest, &name)?;
        let prepared = async {
            self.write_key(&key, &wrapped).await?;
            match lease {
                Some(lease) => lease.confirm().await,
                None => Ok(()),
            }
        };
        if let Err(error) = unless(cancel, prepared).await.and_then(|done| done) {
            // No manifest was ever sent that names it.
            self.take_back(&key, &wrapped).await;
            return Err(error);
        }
        self.replace_manifest(&found, &manifest, (&key, &wrapped))
            .await?;
        let left = self.forget(&found).await;
        Ok(RekeyOutcome { manifest, left })
    }

    /// The backup as it is now, under the lease. The names are taken before anything is replaced:
    /// whoever overtakes us writes another one, which is not ours to remove.
    async fn find_keys(&self, backup: &Manifest) -> Result<Found, Error> {
        let key = layout::manifest_key(&backup.source, &backup.id);
        let text = read_small(self.store.as_ref(), &key, MAX_MANIFEST_BYTES).await?;
        let text = text.ok_or_else(|| Error::NotFound {
            what: format!("backup {}", backup.id),
        })?;
        let manifest = Manifest::decode(&text).map_err(|e| Error::Corrupt {
            what: format!("read {key}"),
            source: Some(e),
        })?;
        if !manifest.is_same_backup(backup) {
            let what = format!("the manifest of backup {} has changed", backup.id);
            return Err(Error::corrupt(what));
        }
        encryption(&manifest)?;
        let prefix = layout::backup_prefix(&backup.source, &backup.id);
        let extension = self.cipher_for(&manifest)?.extension();
        let entries = self.store.list(Some(&prefix), Depth::Children);
        let names = entries.try_filter_map(|entry| async move {
            let name = match entry {
                Entry::Object(meta) => meta.key.as_str().rsplit('/').next().map(str::to_owned),
                Entry::Prefix(_) => None,
            };
            Ok(name.filter(|name| layout::wrapped_key_number(name, extension).is_some()))
        });
        let keys = names.try_collect().await;
        let keys = keys.map_err(|e| Error::store(format!("list {prefix}"), e))?;
        Ok(Found {
            manifest,
            text,
            keys,
        })
    }

    /// The backup's key for the new recipients, under a name that nobody else draws: whoever stood
    /// still and wakes up must not touch the key of those who took over. That it opens the facts is
    /// proved first: what is damaged is not made to look new.
    async fn wrap_again(&self, found: &Found) -> Result<(String, Bytes), Error> {
        let manifest = &found.manifest;
        let cipher = self.cipher_for(manifest)?;
        let opened = BackupReader::open(self, manifest.clone()).await;
        opened.map_err(|error| explained(error, manifest, cipher.as_ref()))?;
        let old = wrapped_key(self, manifest, encryption(manifest)?).await?;
        let rewrapped = cipher.rewrap(&old);
        let failed = |e| Error::key(format!("encrypt the key of backup {}", manifest.id), e);
        let wrapped = rewrapped.map_err(failed)?;
        let is_taken = |name: &String| {
            let named = manifest.encryption.as_ref().map(|record| &record.key);
            found.keys.contains(name) || named == Some(name)
        };
        let name = loop {
            let name = layout::wrapped_key_name(cipher.extension(), rand::random::<u32>().max(2));
            if !is_taken(&name) {
                break name;
            }
        };
        Ok((name, wrapped))
    }

    /// Writes it, and sees that it is there: without it the backup would be lost.
    async fn write_key(&self, key: &StoreKey, wrapped: &Bytes) -> Result<(), Error> {
        let failed = |e| Error::store(format!("write {key}"), e);
        let written = self.store.create(key, wrapped.clone()).await;
        match (
            read_small(self.store.as_ref(), key, MAX_KEY_BYTES).await?,
            written,
        ) {
            (Some(there), _) if there == *wrapped => Ok(()),
            (_, Err(error)) => Err(failed(error)),
            (_, Ok(())) => Err(Error::corrupt(format!(
                "{key} was written and is not there as it was sent"
            ))),
        }
    }

    /// Removes a new key that no manifest will name, if it is the one that we wrote: any other is
    /// somebody's whose manifest may name it. What cannot be read stays; the next rekey removes it.
    async fn take_back(&self, key: &StoreKey, wrapped: &Bytes) {
        let there = read_small(self.store.as_ref(), key, MAX_KEY_BYTES).await;
        if there.is_ok_and(|there| there.as_ref() == Some(wrapped)) {
            let _ = self.store.delete(key).await;
        }
    }

    /// Puts the new manifest into the place of the one that was found. What is not known to have
    /// failed may still come, so the new key stays then.
    async fn replace_manifest(
        &self,
        found: &Found,
        manifest: &Manifest,
        (new_key, wrapped): (&StoreKey, &Bytes),
    ) -> Result<(), Error> {
        let key = layout::manifest_key(&manifest.source, &manifest.id);
        let failed = |e| Error::store(format!("replace {key}"), e);
        let text = Bytes::from(manifest.encode().map_err(failed)?);
        let replaced = self.store.replace(&key, &found.text, text.clone()).await;
        let Err(error) = replaced else {
            return Ok(());
        };
        match read_small(self.store.as_ref(), &key, MAX_MANIFEST_BYTES).await {
            Ok(Some(there)) if there == text => return Ok(()),
            // Ours was to replace what is no longer there, and never will be again.
            Ok(there) if there.as_ref() != Some(&found.text) => {
                self.take_back(new_key, wrapped).await;
            }
            _ => {}
        }
        Err(failed(error))
    }

    /// Removes the keys that were there before.
    async fn forget(&self, found: &Found) -> Vec<(String, String)> {
        let mut left = Vec::new();
        for name in &found.keys {
            let removed = match key_of(&found.manifest, name) {
                Ok(key) => self.store.delete(&key).await.map_err(|e| chain(&e)),
                Err(error) => Err(chain(&error)),
            };
            if let Err(why) = removed {
                left.push((name.clone(), why));
            }
        }
        left
    }

    fn cipher_for(&self, manifest: &Manifest) -> Result<&Arc<dyn Cipher>, Error> {
        let record = encryption(manifest)?;
        let cipher = self.cipher.as_ref();
        cipher
            .filter(|cipher| cipher.name() == record.cipher)
            .ok_or_else(|| {
                let text = format!("the backup is encrypted with {}", record.cipher);
                let missing = PortError::new(ErrorKind::PermissionDenied, text);
                Error::key(format!("open backup {}", manifest.id), missing)
            })
    }
}

/// That another run has taken over, if that is what is behind an error: what it changed looks like
/// damage, or like a backup that is gone, to whoever does not know.
async fn overtaken(lease: &Lease, error: &Error) -> Option<Error> {
    let lost = lease.loss();
    if lost.is_some() {
        return lost;
    }
    match error.kind() {
        ErrorKind::Corrupt | ErrorKind::Conflict | ErrorKind::NotFound => {
            let _ = lease.confirm().await;
            lease.loss()
        }
        _ => None,
    }
}

/// Says what to do when the backup is for its new recipients already, as after a command that was
/// interrupted. Only an identity of theirs proves it: whoever writes manifests names whom he likes.
fn explained(error: Error, manifest: &Manifest, cipher: &dyn Cipher) -> Error {
    let named = manifest.encryption.iter().flat_map(|e| &e.recipients);
    let wanted = cipher.recipients();
    let is_done = named.collect::<BTreeSet<_>>() == wanted.iter().collect();
    match error {
        Error::Key { operation, source } if is_done => {
            let hint = "the manifest names these recipients already, which only one of their \
                        identities proves: give the new identity too (-i OLD -i NEW)";
            Error::key(operation, source.with_hint(hint))
        }
        error => error,
    }
}

fn key_of(manifest: &Manifest, name: &str) -> Result<StoreKey, Error> {
    layout::object_key(&manifest.source, &manifest.id, name)
        .map_err(|e| Error::store(format!("name {name}"), e))
}

fn encryption(manifest: &Manifest) -> Result<&EncryptionRecord, Error> {
    manifest
        .encryption
        .as_ref()
        .ok_or_else(|| Error::InvalidInput {
            message: format!("backup {} is not encrypted", manifest.id),
        })
}
