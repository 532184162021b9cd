//! One part on its way into the store: dump, inspect, compress, encrypt, hash, upload.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use tokio_util::sync::CancellationToken;

use super::splitter::Splitter;
use crate::backup::{BackupId, SourceName};
use crate::body::{
    BodyStream, ObjectHasher, RawHasher, counted, hashed, in_own_task, in_own_task_until, lock,
};
use crate::cipher::BackupKey;
use crate::compressor::Compressor;
use crate::dumper::{PartPlan, PartReport, PartStream};
use crate::error::{Error, ErrorKind, PortError};
use crate::layout;
use crate::manifest::{PartRecord, StoredObject};
use crate::observer::{Event, Observer};
use crate::store::{PutOptions, Store, StoreKey};

/// How long aborting a stalled upload may take.
const ABORT_TIMEOUT: Duration = Duration::from_mins(1);
/// Chunks that a stage may be ahead of the next.
const AHEAD: usize = 4;

/// How all parts of a backup are encoded.
#[derive(Debug, Clone)]
pub(super) struct Codec {
    pub(super) compressor: Arc<dyn Compressor>,
    pub(super) level: Option<i32>,
    pub(super) key: Option<Arc<dyn BackupKey>>,
    pub(super) cipher_extension: &'static str,
}

impl Codec {
    fn encode(&self, body: BodyStream) -> BodyStream {
        let compressed = self.compressor.compress(body, self.level);
        match &self.key {
            Some(key) => key.encrypt(in_own_task(compressed, AHEAD)),
            None => compressed,
        }
    }

    fn extensions(&self, plan: &PartPlan) -> String {
        [
            plan.format.extension(),
            self.compressor.extension(),
            self.cipher_extension,
        ]
        .concat()
    }
}

/// Writes the parts of one backup and remembers what it wrote.
#[derive(Debug)]
pub(super) struct PartWriter {
    pub(super) store: Arc<dyn Store>,
    pub(super) observer: Arc<dyn Observer>,
    pub(super) codec: Codec,
    pub(super) source: SourceName,
    pub(super) id: BackupId,
    pub(super) stall_timeout: Duration,
    /// The token of all parts. Cancelled as soon as nothing can come of the backup any more: what is
    /// cleaned up then must not hold the source.
    pub(super) parts: CancellationToken,
    /// Keys that may exist because of this run; removed when it fails.
    pub(super) written: Mutex<Vec<StoreKey>>,
}

/// What a stored part turned out to be.
#[derive(Debug)]
pub(super) struct StoredPart {
    pub(super) record: PartRecord,
    pub(super) report: PartReport,
}

/// What the stages of one pipeline tell each other.
#[derive(Debug, Default)]
struct Shared {
    /// Counted from 1.
    attempt: usize,
    moved: AtomicU64,
    dump_error: Mutex<Option<PortError>>,
}

impl PartWriter {
    /// Stores one part. Every attempt has object names of its own: a request of an earlier one
    /// that the store carries out late cannot replace what a later one wrote.
    pub(super) async fn store(
        &self,
        plan: &PartPlan,
        attempt: usize,
        stream: PartStream,
        cancel: &CancellationToken,
    ) -> Result<StoredPart, Error> {
        let shared = Arc::new(Shared {
            attempt,
            ..Shared::default()
        });
        let token = cancel.child_token();
        let work = self.run(plan, stream, &shared, &token);
        tokio::pin!(work);
        tokio::select! {
            stored = &mut work => stored,
            () = stalled(&shared, self.stall_timeout) => {
                // Who was stopped because of another part, or by a signal, did not stall.
                let stopped = self.parts.is_cancelled();
                // The source is let go at once. The store is given the time to abort what it has
                // begun.
                self.parts.cancel();
                token.cancel();
                let _ = tokio::time::timeout(ABORT_TIMEOUT, work).await;
                if stopped {
                    return Err(Error::Cancelled);
                }
                Err(Error::Stalled { part: plan.name.clone(), after: self.stall_timeout })
            }
        }
    }

    async fn run(
        &self,
        plan: &PartPlan,
        stream: PartStream,
        shared: &Arc<Shared>,
        cancel: &CancellationToken,
    ) -> Result<StoredPart, Error> {
        let raw_hasher = Arc::new(Mutex::new(RawHasher::default()));
        let raw = hashed(stream.body, &raw_hasher, RawHasher::update);
        // The dump is let go as soon as it is of no use, even if the store takes its time to fail.
        let raw = in_own_task_until(raw, AHEAD, cancel.clone());
        let raw = self.watched(raw, shared);
        let encoded = self.codec.encode(raw);
        let objects = self.upload(plan, encoded, shared, cancel).await?;
        let report = stream
            .report
            .await
            .map_err(|e| Error::dump(format!("dump part {}", plan.name), e))?;
        let (raw_bytes, raw_xxh3) = lock(&raw_hasher).finish();
        if raw_bytes == 0 {
            let empty = PortError::new(ErrorKind::ToolFailed, "the dump brought no bytes");
            return Err(Error::dump(format!("dump part {}", plan.name), empty));
        }
        let record = PartRecord {
            name: plan.name.clone(),
            kind: plan.kind,
            format: plan.format,
            raw_bytes,
            raw_xxh3,
            objects,
        };
        Ok(StoredPart { record, report })
    }

    /// Counts raw bytes and keeps the dump's own error apart from what the store makes of it.
    fn watched(&self, body: BodyStream, shared: &Arc<Shared>) -> BodyStream {
        let observer = Arc::clone(&self.observer);
        let activity = Arc::clone(shared);
        let body = counted(body, move |bytes| {
            activity.moved.fetch_add(bytes, Ordering::Relaxed);
            observer.event(&Event::RawBytes(bytes));
        });
        let shared = Arc::clone(shared);
        body.map(move |item| {
            item.map_err(|e| {
                let error = PortError::from_io(e, ErrorKind::ToolFailed, "read the dump");
                let passed_on = PortError::new(error.kind(), "the dump failed").into_io();
                lock(&shared.dump_error).get_or_insert(error);
                passed_on
            })
        })
        .boxed()
    }

    async fn upload(
        &self,
        plan: &PartPlan,
        encoded: BodyStream,
        shared: &Arc<Shared>,
        cancel: &CancellationToken,
    ) -> Result<Vec<StoredObject>, Error> {
        let options = PutOptions {
            expected_bytes: Some(plan.estimated_bytes),
        };
        let extensions = layout::attempt_extension(shared.attempt) + &self.codec.extensions(plan);
        let splitter = Splitter::new(self.moving(encoded, shared));
        let mut objects = Vec::new();
        while objects.is_empty() || splitter.has_more().await {
            let name = layout::object_name(&plan.name, &extensions, objects.len());
            let hasher = Arc::new(Mutex::new(ObjectHasher::default()));
            let body = splitter.piece(self.store.capacity(&options), &hasher);
            let put = self.put(&name, body, &options, cancel).await;
            if let Some(error) = lock(&shared.dump_error).take() {
                return Err(Error::dump(format!("dump part {}", plan.name), error));
            }
            let put_bytes = put?;
            let digest = std::mem::take(&mut *lock(&hasher)).finish();
            if put_bytes != digest.bytes {
                return Err(Error::corrupt(format!(
                    "{name}: the store holds {put_bytes} bytes of {}",
                    digest.bytes
                )));
            }
            objects.push(StoredObject {
                name,
                bytes: digest.bytes,
                sha256: digest.sha256,
                crc32: digest.crc32,
            });
        }
        Ok(objects)
    }

    fn moving(&self, body: BodyStream, shared: &Arc<Shared>) -> BodyStream {
        let observer = Arc::clone(&self.observer);
        let shared = Arc::clone(shared);
        counted(body, move |bytes| {
            shared.moved.fetch_add(bytes, Ordering::Relaxed);
            observer.event(&Event::StoredBytes(bytes));
        })
    }

    /// Stores one object and asks the store afterwards how long it is.
    async fn put(
        &self,
        name: &str,
        body: BodyStream,
        options: &PutOptions,
        cancel: &CancellationToken,
    ) -> Result<u64, Error> {
        let operation = || format!("store {name}");
        let key = layout::object_key(&self.source, &self.id, name)
            .map_err(|e| Error::store(operation(), e))?;
        lock(&self.written).push(key.clone());
        self.store
            .put(&key, body, options, cancel)
            .await
            .map_err(|e| Error::store(operation(), e))?;
        let meta = tokio::select! {
            meta = self.store.head(&key) => meta,
            () = cancel.cancelled() => return Err(Error::Cancelled),
        };
        let meta = meta.map_err(|e| Error::store(format!("check {name}"), e))?;
        Ok(meta.bytes)
    }
}

/// Returns when nothing has moved for `timeout`.
async fn stalled(shared: &Shared, timeout: Duration) {
    let mut seen = shared.moved.load(Ordering::Relaxed);
    let mut since = tokio::time::Instant::now();
    loop {
        tokio::time::sleep((timeout / 10).max(Duration::from_millis(10))).await;
        let now = shared.moved.load(Ordering::Relaxed);
        if now != seen {
            seen = now;
            since = tokio::time::Instant::now();
        } else if since.elapsed() >= timeout {
            return;
        }
    }
}
