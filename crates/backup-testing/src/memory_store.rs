//! A store in memory that can be looked into and damaged.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use backup_core::body::BodyStream;
use backup_core::clock::Clock;
use backup_core::error::{ErrorKind, PortError};
use backup_core::store::{
    Depth, Entry, ObjectMeta, PutOptions, Store, StoreError, StoreKey, UnfinishedUpload,
};
use bytes::{Bytes, BytesMut};
use chrono::{DateTime, Utc};
use futures::stream::{self, BoxStream, StreamExt};
use tokio_util::sync::CancellationToken;

use crate::bodies::chunked;
use crate::{FixedClock, lock};

type Objects = BTreeMap<StoreKey, (Bytes, DateTime<Utc>)>;

/// Objects in a map. Clones share it.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    objects: Arc<Mutex<Objects>>,
    open_uploads: Arc<AtomicUsize>,
    left_uploads: Arc<Mutex<Vec<UnfinishedUpload>>>,
    capacity: u64,
    clock: Arc<dyn Clock>,
    unconditional: bool,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self {
            objects: Arc::default(),
            open_uploads: Arc::default(),
            left_uploads: Arc::default(),
            capacity: u64::MAX,
            clock: Arc::new(FixedClock::default()),
            unconditional: false,
        }
    }
}

impl MemoryStore {
    /// An empty store without limits.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty store whose objects hold at most `bytes`.
    #[must_use]
    pub fn with_capacity(bytes: u64) -> Self {
        Self {
            capacity: bytes,
            ..Self::default()
        }
    }

    /// The same with another clock for modification times.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// The same, and it says that it cannot keep two writers apart.
    #[must_use]
    pub fn unconditional(mut self) -> Self {
        self.unconditional = true;
        self
    }

    /// All keys, sorted.
    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        let objects = lock(&self.objects);
        objects.keys().map(ToString::to_string).collect()
    }

    /// The bytes of an object.
    #[must_use]
    pub fn bytes(&self, key: &str) -> Option<Bytes> {
        let objects = lock(&self.objects);
        let (_, (content, _)) = objects.iter().find(|(k, _)| k.as_str() == key)?;
        Some(content.clone())
    }

    /// Puts an object there without going through the port.
    ///
    /// # Panics
    /// When `key` is no key.
    pub fn set(&self, key: &str, content: impl Into<Bytes>) {
        let key = StoreKey::new(key).expect("a valid key");
        self.write(&key, content.into());
    }

    /// Changes an object's bytes and leaves its time alone.
    ///
    /// # Panics
    /// When there is no such object.
    pub fn mutate(&self, key: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut objects = lock(&self.objects);
        let found = objects.iter_mut().find(|(k, _)| k.as_str() == key);
        let (_, (content, _)) = found.unwrap_or_else(|| panic!("no object {key}"));
        let mut bytes = content.to_vec();
        change(&mut bytes);
        *content = bytes.into();
    }

    /// Cuts an object to `len` bytes.
    pub fn truncate(&self, key: &str, len: usize) {
        self.mutate(key, |bytes| bytes.truncate(len));
    }

    /// Changes one bit of the byte at `at`.
    pub fn flip(&self, key: &str, at: usize) {
        self.mutate(key, |bytes| bytes[at] ^= 0x10);
    }

    /// Removes an object; says whether it was there.
    #[must_use]
    pub fn remove(&self, key: &str) -> bool {
        let mut objects = lock(&self.objects);
        let before = objects.len();
        objects.retain(|k, _| k.as_str() != key);
        objects.len() < before
    }

    /// Sets an object's modification time.
    pub fn set_modified(&self, key: &str, time: DateTime<Utc>) {
        let mut objects = lock(&self.objects);
        for (_, (_, modified)) in objects.iter_mut().filter(|(k, _)| k.as_str() == key) {
            *modified = time;
        }
    }

    /// Uploads that were begun and neither completed nor aborted. As with S3, one whose
    /// future was dropped stays open for ever.
    #[must_use]
    pub fn open_uploads(&self) -> usize {
        self.open_uploads.load(Ordering::SeqCst)
    }

    /// Leaves an upload there, as somebody who died does.
    pub fn leave_upload(&self, upload: UnfinishedUpload) {
        lock(&self.left_uploads).push(upload);
    }

    fn write(&self, key: &StoreKey, content: Bytes) {
        let now = self.clock.now();
        lock(&self.objects).insert(key.clone(), (content, now));
    }

    fn find(&self, key: &StoreKey) -> Result<(Bytes, DateTime<Utc>), StoreError> {
        let objects = lock(&self.objects);
        objects.get(key).cloned().ok_or_else(|| {
            PortError::new(ErrorKind::NotFound, format!("object {key} does not exist"))
        })
    }

    async fn receive(
        &self,
        key: &StoreKey,
        mut body: BodyStream,
        cancel: &CancellationToken,
    ) -> Result<Bytes, StoreError> {
        let mut content = BytesMut::new();
        loop {
            let next = tokio::select! {
                biased;
                () = cancel.cancelled() => return Err(PortError::cancelled()),
                next = body.next() => next,
            };
            match next {
                None => return Ok(content.freeze()),
                Some(Ok(chunk)) => content.extend_from_slice(&chunk),
                Some(Err(e)) => {
                    return Err(PortError::from_io(e, ErrorKind::Unavailable, "read body"));
                }
            }
            if content.len() as u64 > self.capacity {
                return Err(PortError::new(
                    ErrorKind::Internal,
                    format!("body of {key} is longer than one object can be"),
                ));
            }
        }
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn describe(&self) -> String {
        "memory:".to_owned()
    }

    fn capacity(&self, _options: &PutOptions) -> u64 {
        self.capacity
    }

    async fn put(
        &self,
        key: &StoreKey,
        body: BodyStream,
        _options: &PutOptions,
        cancel: &CancellationToken,
    ) -> Result<u64, StoreError> {
        self.open_uploads.fetch_add(1, Ordering::SeqCst);
        let received = self.receive(key, body, cancel).await;
        self.open_uploads.fetch_sub(1, Ordering::SeqCst);
        let content = received?;
        let bytes = content.len() as u64;
        self.write(key, content);
        Ok(bytes)
    }

    async fn create(&self, key: &StoreKey, content: Bytes) -> Result<(), StoreError> {
        let now = self.clock.now();
        let mut objects = lock(&self.objects);
        if objects.contains_key(key) {
            return Err(PortError::new(
                ErrorKind::AlreadyExists,
                format!("object {key} exists"),
            ));
        }
        objects.insert(key.clone(), (content, now));
        Ok(())
    }

    async fn replace(
        &self,
        key: &StoreKey,
        seen: &Bytes,
        content: Bytes,
    ) -> Result<(), StoreError> {
        let now = self.clock.now();
        let mut objects = lock(&self.objects);
        match objects.get_mut(key) {
            Some(object) if object.0 == seen => {
                *object = (content, now);
                Ok(())
            }
            _ => Err(PortError::new(
                ErrorKind::Conflict,
                format!("object {key} is another by now"),
            )),
        }
    }

    async fn check_conditions(&self) -> Result<(), StoreError> {
        if self.unconditional {
            let message = "it writes on no condition";
            return Err(PortError::new(ErrorKind::Unsuitable, message));
        }
        Ok(())
    }

    async fn read(
        &self,
        key: &StoreKey,
        range: Option<Range<u64>>,
    ) -> Result<BodyStream, StoreError> {
        let (content, _) = self.find(key)?;
        let range = range.unwrap_or(0..content.len() as u64);
        if range.start > range.end || range.end > content.len() as u64 {
            return Err(PortError::new(
                ErrorKind::InvalidInput,
                format!("object {key} has no bytes {}..{}", range.start, range.end),
            ));
        }
        let bound = |n: u64| usize::try_from(n).expect("an object in memory");
        Ok(chunked(
            content.slice(bound(range.start)..bound(range.end)),
            64 << 10,
        ))
    }

    async fn head(&self, key: &StoreKey) -> Result<ObjectMeta, StoreError> {
        let (content, modified) = self.find(key)?;
        Ok(ObjectMeta {
            key: key.clone(),
            bytes: content.len() as u64,
            modified,
        })
    }

    fn list(
        &self,
        prefix: Option<&StoreKey>,
        depth: Depth,
    ) -> BoxStream<'_, Result<Entry, StoreError>> {
        let start = prefix.map(|p| format!("{p}/")).unwrap_or_default();
        let objects = lock(&self.objects);
        let mut entries = Vec::new();
        for (key, (content, modified)) in objects.iter() {
            let Some(rest) = key.as_str().strip_prefix(&start) else {
                continue;
            };
            let entry = match (depth, rest.split_once('/')) {
                (Depth::Children, Some((child, _))) => Entry::Prefix(
                    StoreKey::new(format!("{start}{child}")).expect("a piece of a key"),
                ),
                _ => Entry::Object(ObjectMeta {
                    key: key.clone(),
                    bytes: content.len() as u64,
                    modified: *modified,
                }),
            };
            if !matches!(entry, Entry::Prefix(_)) || !entries.contains(&entry) {
                entries.push(entry);
            }
        }
        stream::iter(entries.into_iter().map(Ok)).boxed()
    }

    async fn delete(&self, key: &StoreKey) -> Result<(), StoreError> {
        lock(&self.objects).remove(key);
        Ok(())
    }

    async fn unfinished_uploads(
        &self,
        prefix: &StoreKey,
    ) -> Result<Vec<UnfinishedUpload>, StoreError> {
        let mut uploads = lock(&self.left_uploads).clone();
        uploads.retain(|upload| upload.key.as_str().starts_with(prefix.as_str()));
        Ok(uploads)
    }

    async fn abort_upload(&self, upload: &UnfinishedUpload) -> Result<(), StoreError> {
        lock(&self.left_uploads).retain(|left| left != upload);
        Ok(())
    }
}
