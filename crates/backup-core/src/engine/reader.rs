//! A stored backup, readable again: every byte checked against what was written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};

use super::Engine;
use crate::body::{
    BodyStream, ObjectHasher, RawHasher, collect, counted, hashed, in_own_task, limited, lock,
    sha256_hex,
};
use crate::catalog::read_small;
use crate::cipher::BackupKey;
use crate::compressor::Compressor;
use crate::error::{Error, ErrorKind, PortError};
use crate::facts::Facts;
use crate::layout;
use crate::manifest::{
    EncryptionRecord, MAX_MANIFEST_BYTES, Manifest, PartKind, PartName, PartRecord, StoredObject,
};
use crate::observer::{Event, Observer};
use crate::restorer::PartReader;
use crate::store::{Store, StoreKey};

/// Chunks that fetching may be ahead of decoding.
const AHEAD: usize = 4;
/// No wrapped key is longer.
pub(super) const MAX_KEY_BYTES: usize = 1 << 20;
/// No facts part is longer: a million tables have about 300 MB.
const MAX_FACTS_BYTES: usize = 1 << 30;

/// A committed backup with its key unwrapped and its facts read.
#[derive(Debug)]
pub struct BackupReader {
    decoder: Decoder,
    facts: Facts,
    observer: Arc<dyn Observer>,
}

/// What it takes to decode parts.
#[derive(Debug)]
struct Decoder {
    store: Arc<dyn Store>,
    compressor: Arc<dyn Compressor>,
    key: Option<Arc<dyn BackupKey>>,
    manifest: Manifest,
    bytes_read: Arc<AtomicU64>,
    /// Whether the store could not deliver, for whoever gets the error from somewhere else.
    store_failed: Arc<AtomicBool>,
}

impl BackupReader {
    pub(super) async fn open(engine: &Engine, manifest: Manifest) -> Result<Self, Error> {
        let name = manifest.compression.split(':').next().unwrap_or_default();
        let compressor = engine.compressor(name)?;
        let key = unwrap_key(engine, &manifest).await?;
        let decoder = Decoder {
            store: Arc::clone(&engine.store),
            compressor,
            key,
            manifest,
            bytes_read: Arc::default(),
            store_failed: Arc::default(),
        };
        let facts = decoder.facts().await?;
        check_binding(&decoder.manifest, &facts)?;
        let observer = Arc::clone(&engine.observer);
        Ok(Self {
            decoder,
            facts,
            observer,
        })
    }

    /// Stored bytes fetched so far.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        self.decoder.bytes_read.load(Ordering::Relaxed)
    }

    /// The error of somebody who was reading parts and doing something with them.
    pub(super) fn blame(&self, operation: String, error: PortError) -> Error {
        match error.kind() {
            ErrorKind::Corrupt => read_error(operation, error),
            _ if self.decoder.store_failed.load(Ordering::Relaxed) => {
                Error::store(operation, error)
            }
            _ => Error::restore(operation, error),
        }
    }
}

#[async_trait]
impl PartReader for BackupReader {
    fn manifest(&self) -> &Manifest {
        &self.decoder.manifest
    }

    fn facts(&self) -> &Facts {
        &self.facts
    }

    async fn open(&self, part: &PartName) -> Result<BodyStream, PortError> {
        let record = self
            .decoder
            .manifest
            .part(part)
            .ok_or_else(|| PortError::new(ErrorKind::NotFound, format!("no part {part}")))?;
        let observer = Arc::clone(&self.observer);
        let body = self.decoder.part(record)?;
        let tell = move |bytes| observer.event(&Event::RawBytes(bytes));
        Ok(counted(body, tell))
    }
}

impl Decoder {
    fn part(&self, record: &PartRecord) -> Result<BodyStream, PortError> {
        let stored = stored_part(&self.store, &self.manifest, record)?;
        let bytes_read = Arc::clone(&self.bytes_read);
        let store_failed = Arc::clone(&self.store_failed);
        let stored = stored.inspect_err(move |error| {
            let port = error.get_ref().and_then(|e| e.downcast_ref::<PortError>());
            if port.is_none_or(|error| error.kind() != ErrorKind::Corrupt) {
                store_failed.store(true, Ordering::Relaxed);
            }
        });
        let stored = counted(stored.boxed(), move |bytes| {
            bytes_read.fetch_add(bytes, Ordering::Relaxed);
        });
        let clear = match &self.key {
            Some(key) => decrypted(key.as_ref(), stored),
            None => stored,
        };
        let raw = self.compressor.decompress(in_own_task(clear, AHEAD));
        let raw = checked_raw(limited(raw, record.raw_bytes), record);
        Ok(in_own_task(named(raw, &record.name), AHEAD))
    }

    async fn facts(&self) -> Result<Facts, Error> {
        let name = PartName::facts();
        let record = self
            .manifest
            .part(&name)
            .ok_or_else(|| Error::corrupt("the manifest names no part facts"))?;
        let text = match self.part(record) {
            Ok(body) => collect(body, MAX_FACTS_BYTES).await,
            Err(e) => Err(e),
        };
        let text = text.map_err(|e| read_error("read part facts", e))?;
        serde_json::from_slice(&text).map_err(|e| Error::Corrupt {
            what: "part facts cannot be read".to_owned(),
            source: Some(
                PortError::new(ErrorKind::Corrupt, "not the expected JSON").with_source(e),
            ),
        })
    }
}

/// The error of reading a part, in the class that tells what to do: damage, store.
pub(super) fn read_error(operation: impl Into<String>, error: PortError) -> Error {
    match error.kind() {
        ErrorKind::Corrupt | ErrorKind::NotFound => Error::Corrupt {
            what: operation.into(),
            source: Some(error),
        },
        // Keys are tried when a backup is opened: here it is the store that denies.
        _ => Error::store(operation, error),
    }
}

async fn unwrap_key(
    engine: &Engine,
    manifest: &Manifest,
) -> Result<Option<Arc<dyn BackupKey>>, Error> {
    let Some(record) = &manifest.encryption else {
        return Ok(None);
    };
    let cipher = engine
        .cipher
        .as_ref()
        .filter(|cipher| cipher.name() == record.cipher)
        .ok_or_else(|| {
            let missing = PortError::new(
                ErrorKind::PermissionDenied,
                format!("the backup is encrypted with {}", record.cipher),
            )
            .with_hint(whose_identity(record));
            Error::key(format!("open backup {}", manifest.id), missing)
        })?;
    let (record, wrapped) = current_key(engine, manifest, record).await?;
    let operation = || format!("open {} of backup {}", record.key, manifest.id);
    let key = cipher.open(&wrapped).map_err(|e| match e.kind() {
        ErrorKind::Corrupt => read_error(format!("read {}", record.key), e),
        ErrorKind::PermissionDenied => {
            Error::key(operation(), e.with_hint(whose_identity(&record)))
        }
        _ => Error::key(operation(), e),
    })?;
    Ok(Some(key))
}

fn whose_identity(record: &EncryptionRecord) -> String {
    format!(
        "give the identity file of one of its recipients: {}",
        record.recipients.join(", ")
    )
}

/// The backup's wrapped key, as it was written or not at all: one bit of it lost, and all is lost.
pub(super) async fn wrapped_key(
    engine: &Engine,
    manifest: &Manifest,
    record: &EncryptionRecord,
) -> Result<Bytes, Error> {
    let fetched = match layout::object_key(&manifest.source, &manifest.id, &record.key) {
        Ok(key) => match engine.store.read(&key, None).await {
            Ok(body) => collect(body, MAX_KEY_BYTES).await,
            Err(e) => Err(e),
        },
        Err(e) => Err(e),
    };
    let wrapped = fetched.map_err(|e| read_error(format!("read {}", record.key), e))?;
    if sha256_hex(&wrapped) == record.key_sha256 {
        Ok(wrapped)
    } else {
        let what = format!("{} is damaged or not of this backup", record.key);
        Err(Error::corrupt(what))
    }
}

/// The wrapped key of a backup whose manifest was read some time ago: others may be able to open it
/// since then, by another key, and that is no damage.
pub(super) async fn current_key(
    engine: &Engine,
    manifest: &Manifest,
    record: &EncryptionRecord,
) -> Result<(EncryptionRecord, Bytes), Error> {
    let damage = match wrapped_key(engine, manifest, record).await {
        Ok(wrapped) => return Ok((record.clone(), wrapped)),
        Err(damage @ Error::Corrupt { .. }) => damage,
        Err(other) => return Err(other),
    };
    let key = layout::manifest_key(&manifest.source, &manifest.id);
    let text = read_small(engine.store.as_ref(), &key, MAX_MANIFEST_BYTES).await?;
    let now = text.and_then(|text| Manifest::decode(&text).ok());
    let now = now.filter(|now| now.is_same_backup(manifest));
    match now.and_then(|now| now.encryption) {
        Some(newer) if newer != *record => {
            let wrapped = wrapped_key(engine, manifest, &newer).await?;
            Ok((newer, wrapped))
        }
        _ => Err(damage),
    }
}

/// The facts say which backup and which objects they belong to; the manifest, which anybody
/// who can write to the store could have edited, must say the same.
fn check_binding(manifest: &Manifest, facts: &Facts) -> Result<(), Error> {
    if facts.backup != manifest.id || facts.source != manifest.source {
        return Err(Error::corrupt(format!(
            "part facts belongs to backup {} of {:?}",
            facts.backup,
            facts.source.as_str()
        )));
    }
    let of_facts = (&facts.database, facts.filtered, facts.as_configured);
    let of_manifest = (
        &manifest.database,
        manifest.filtered,
        manifest.as_configured,
    );
    if of_facts != of_manifest {
        return Err(Error::corrupt(
            "the manifest names another database or extent than part facts",
        ));
    }
    let others = || {
        manifest
            .parts
            .iter()
            .filter(|part| part.name != PartName::facts())
    };
    let mut found = BTreeMap::new();
    for object in others().flat_map(|part| &part.objects) {
        if facts.digests.get(&object.name) != Some(&object.sha256)
            || found.insert(&object.name, &object.sha256).is_some()
        {
            return Err(Error::corrupt(format!(
                "{} is not the object that was backed up",
                object.name
            )));
        }
    }
    if found.len() != facts.digests.len() {
        return Err(Error::corrupt("the manifest lacks objects of the backup"));
    }
    let names: BTreeSet<_> = others().map(|part| &part.name).collect();
    if others().count() != names.len() || !names.into_iter().eq(facts.parts.keys()) {
        return Err(Error::corrupt(
            "the manifest names other parts than the facts",
        ));
    }
    for part in others() {
        if !layout::are_objects_of(&part.name, part.objects.iter().map(|o| o.name.as_str())) {
            return Err(Error::corrupt(format!(
                "the manifest gives part {} objects of others",
                part.name
            )));
        }
        let holds = facts.parts.get(&part.name);
        let rows = holds.is_some_and(|part| {
            !part.tables.is_empty() || !part.sequences.is_empty() || part.large_objects.is_some()
        });
        if rows && part.kind != PartKind::Data {
            let what = format!("the manifest takes part {} for something else", part.name);
            return Err(Error::corrupt(what));
        }
    }
    Ok(())
}

/// A part's stored bytes: its objects one after another, each checked when it ends.
pub(super) fn stored_part(
    store: &Arc<dyn Store>,
    manifest: &Manifest,
    record: &PartRecord,
) -> Result<BodyStream, PortError> {
    let mut keys = Vec::new();
    for object in &record.objects {
        let key = layout::object_key(&manifest.source, &manifest.id, &object.name)?;
        keys.push((key, object.clone()));
    }
    let store = Arc::clone(store);
    Ok(stream::iter(keys)
        .then(move |(key, object)| {
            let store = Arc::clone(&store);
            async move { checked_object(store.as_ref(), &key, object).await }
        })
        .map_err(PortError::into_io)
        .try_flatten()
        .fuse()
        .boxed())
}

/// One stored object, which ends with an error unless it is what was written.
pub(super) async fn checked_object(
    store: &dyn Store,
    key: &StoreKey,
    object: StoredObject,
) -> Result<BodyStream, PortError> {
    let body = store.read(key, None).await.map_err(|e| {
        let (kind, text) = match e.kind() {
            // The manifest says that it is there.
            ErrorKind::NotFound => (
                ErrorKind::Corrupt,
                format!("object {} is missing", object.name),
            ),
            kind => (kind, format!("object {}", object.name)),
        };
        PortError::new(kind, text).with_source(e)
    })?;
    let hasher = Arc::new(Mutex::new(ObjectHasher::default()));
    let body = hashed(limited(body, object.bytes), &hasher, ObjectHasher::update);
    Ok(ended_by(body, move || {
        let digest = std::mem::take(&mut *lock(&hasher)).finish();
        if digest.bytes != object.bytes {
            return Err(PortError::new(
                ErrorKind::Corrupt,
                format!(
                    "object {} has {} bytes, {} were written",
                    object.name, digest.bytes, object.bytes
                ),
            ));
        }
        if digest.sha256 != object.sha256 {
            return Err(PortError::new(
                ErrorKind::Corrupt,
                format!(
                    "object {} has another SHA-256 than was written",
                    object.name
                ),
            ));
        }
        Ok(())
    }))
}

fn checked_raw(body: BodyStream, record: &PartRecord) -> BodyStream {
    let hasher = Arc::new(Mutex::new(RawHasher::default()));
    let body = hashed(body, &hasher, RawHasher::update);
    let (bytes, xxh3) = (record.raw_bytes, record.raw_xxh3.clone());
    ended_by(body, move || {
        if lock(&hasher).finish() == (bytes, xxh3) {
            Ok(())
        } else {
            Err(PortError::new(
                ErrorKind::Corrupt,
                "content is not what was dumped",
            ))
        }
    })
}

/// Lets a body pass and, when it ended well, asks `check` whether it really did.
fn ended_by(
    body: BodyStream,
    check: impl FnOnce() -> Result<(), PortError> + Send + 'static,
) -> BodyStream {
    let last = stream::once(async move { check() })
        .filter_map(|result| async move { result.err().map(|e| Err(e.into_io())) });
    // A body that failed has told so; what follows its error would only confuse.
    let failed = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&failed);
    body.inspect_err(move |_| seen.store(true, Ordering::Relaxed))
        .chain(last)
        .scan(false, move |ended, item| {
            let go_on = !*ended;
            *ended = failed.load(Ordering::Relaxed);
            futures::future::ready(go_on.then_some(item))
        })
        .fuse()
        .boxed()
}

/// An object that the backup's own key does not fit has come from somewhere else: that key was
/// unwrapped, so it is the right one.
fn decrypted(key: &dyn BackupKey, stored: BodyStream) -> BodyStream {
    let store_failed = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&store_failed);
    let stored = stored.inspect_err(move |_| seen.store(true, Ordering::Relaxed));
    let clear = key.decrypt(stored.boxed()).map_err(move |e| {
        if store_failed.load(Ordering::Relaxed) {
            return e;
        }
        let error = PortError::from_io(e, ErrorKind::Corrupt, "cannot be decrypted");
        match error.kind() {
            ErrorKind::PermissionDenied => {
                let text = "an object is not of this backup";
                PortError::new(ErrorKind::Corrupt, text)
                    .with_source(error)
                    .into_io()
            }
            _ => error.into_io(),
        }
    });
    clear.boxed()
}

fn named(body: BodyStream, part: &PartName) -> BodyStream {
    let part = part.clone();
    body.map_err(move |e| {
        let error = PortError::from_io(e, ErrorKind::Corrupt, "cannot be decoded");
        PortError::new(error.kind(), format!("part {part}"))
            .with_source(error)
            .into_io()
    })
    .boxed()
}
