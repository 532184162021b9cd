//! A store that remembers what it was asked.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use backup_core::body::BodyStream;
use backup_core::error::ErrorKind;
use backup_core::store::{
    Depth, Entry, ObjectMeta, PutOptions, Store, StoreError, StoreKey, UnfinishedUpload,
};
use bytes::Bytes;
use futures::stream::BoxStream;
use tokio_util::sync::CancellationToken;

use crate::faulty_store::Op;
use crate::lock;

/// One call, in the order in which they began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// What was asked.
    pub op: Op,
    /// The key or prefix; empty for a listing of everything.
    pub key: String,
    /// How it ended; `None` while it runs and when its future was dropped.
    pub outcome: Option<Result<(), ErrorKind>>,
}

impl fmt::Display for Call {
    /// `put a/b`, with ` running` or ` failed: kind` behind it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.op, self.key)?;
        match self.outcome {
            None => f.write_str(" running"),
            Some(Ok(())) => Ok(()),
            Some(Err(kind)) => write!(f, " failed: {kind}"),
        }
    }
}

/// Passes everything on to another store and records it. Clones share the record.
#[derive(Debug, Clone)]
pub struct RecordingStore {
    inner: Arc<dyn Store>,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl RecordingStore {
    /// Records what `inner` is asked.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self {
            inner,
            calls: Arc::default(),
        }
    }

    /// The calls so far.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.calls).clone()
    }

    /// The calls so far as text, for one assertion over all.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        self.calls().iter().map(ToString::to_string).collect()
    }

    /// Forgets the calls so far.
    pub fn clear(&self) {
        lock(&self.calls).clear();
    }

    fn begin(&self, op: Op, key: impl Into<String>) -> usize {
        let mut calls = lock(&self.calls);
        calls.push(Call {
            op,
            key: key.into(),
            outcome: None,
        });
        calls.len() - 1
    }

    fn end<T>(&self, call: usize, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Some(call) = lock(&self.calls).get_mut(call) {
            call.outcome = Some(result.as_ref().map(|_| ()).map_err(StoreError::kind));
        }
        result
    }
}

#[async_trait]
impl Store for RecordingStore {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn capacity(&self, options: &PutOptions) -> u64 {
        self.inner.capacity(options)
    }

    async fn put(
        &self,
        key: &StoreKey,
        body: BodyStream,
        options: &PutOptions,
        cancel: &CancellationToken,
    ) -> Result<u64, StoreError> {
        let call = self.begin(Op::Put, key.as_str());
        self.end(call, self.inner.put(key, body, options, cancel).await)
    }

    async fn create(&self, key: &StoreKey, content: Bytes) -> Result<(), StoreError> {
        let call = self.begin(Op::Create, key.as_str());
        self.end(call, self.inner.create(key, content).await)
    }

    async fn replace(
        &self,
        key: &StoreKey,
        seen: &Bytes,
        content: Bytes,
    ) -> Result<(), StoreError> {
        let call = self.begin(Op::Replace, key.as_str());
        self.end(call, self.inner.replace(key, seen, content).await)
    }

    async fn check_conditions(&self) -> Result<(), StoreError> {
        self.inner.check_conditions().await
    }

    async fn read(
        &self,
        key: &StoreKey,
        range: Option<Range<u64>>,
    ) -> Result<BodyStream, StoreError> {
        let call = self.begin(Op::Read, key.as_str());
        self.end(call, self.inner.read(key, range).await)
    }

    async fn head(&self, key: &StoreKey) -> Result<ObjectMeta, StoreError> {
        let call = self.begin(Op::Head, key.as_str());
        self.end(call, self.inner.head(key).await)
    }

    fn list(
        &self,
        prefix: Option<&StoreKey>,
        depth: Depth,
    ) -> BoxStream<'_, Result<Entry, StoreError>> {
        let call = self.begin(Op::List, prefix.map_or("", StoreKey::as_str));
        let _ = self.end(call, Ok(()));
        self.inner.list(prefix, depth)
    }

    async fn delete(&self, key: &StoreKey) -> Result<(), StoreError> {
        let call = self.begin(Op::Delete, key.as_str());
        self.end(call, self.inner.delete(key).await)
    }

    async fn unfinished_uploads(
        &self,
        prefix: &StoreKey,
    ) -> Result<Vec<UnfinishedUpload>, StoreError> {
        self.inner.unfinished_uploads(prefix).await
    }

    async fn abort_upload(&self, upload: &UnfinishedUpload) -> Result<(), StoreError> {
        self.inner.abort_upload(upload).await
    }
}
