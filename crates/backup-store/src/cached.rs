//! A store that remembers the small records that a listing reads, in a private file.
//!
//! Records of runs are written once, and manifests again only for other keys. What was read before is taken
//! from the file only if the listing of this very process shows the object still there, with the
//! length and the time that it had: what was deleted or replaced is never shown. A file that
//! cannot be used is as good as none.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use backup_core::body::{BodyStream, collect};
use backup_core::layout;
use backup_core::store::{
    Depth, Entry, ObjectMeta, PutOptions, Store, StoreError, StoreKey, UnfinishedUpload,
};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::stream::{self, BoxStream, StreamExt as _};
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

/// Longer records are not worth it.
const MAX_RECORD: usize = 1 << 20;

/// A file that would be longer keeps only what this process has seen in a listing.
const MAX_FILE: usize = 128 << 20;

/// The form of the file; another one is thrown away.
const FORM: &str = "backup-manager cache 1";

/// A record, and what the listing said of it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Kept {
    modified: DateTime<Utc>,
    text: Bytes,
}

/// What is known of a place.
#[derive(Debug, Default)]
struct Known {
    /// From the file, and what was read since.
    kept: HashMap<StoreKey, Kept>,
    /// From the listings of this process.
    seen: HashMap<StoreKey, (u64, DateTime<Utc>)>,
}

/// A [`Store`] whose listings need not read again what they read before.
pub struct CachedStore {
    inner: Arc<dyn Store>,
    file: PathBuf,
    /// What the file must begin with: another place has another one.
    head: String,
    known: Mutex<Known>,
    changed: AtomicBool,
}

impl fmt::Debug for CachedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CachedStore").field(&self.inner).finish()
    }
}

impl CachedStore {
    /// Remembers what is read of `inner`, which holds the repository of that id, in a file of
    /// `directory`, which is made when it is needed.
    #[must_use]
    pub fn open(inner: Arc<dyn Store>, directory: &Path, repository: &str) -> Self {
        let head = format!("{FORM}\n{repository}\n{}\n", inner.describe());
        let digest = Sha256::digest(&head);
        let name = digest[..16].iter().fold(String::new(), |mut name, byte| {
            let _ = write!(name, "{byte:02x}");
            name
        });
        let file = directory.join(name);
        let kept = read_private(&file).ok();
        let kept = kept.and_then(|content| decode(&content, &head));
        let known = Known {
            kept: kept.unwrap_or_default(),
            seen: HashMap::new(),
        };
        Self {
            inner,
            file,
            head,
            known: Mutex::new(known),
            changed: AtomicBool::new(false),
        }
    }

    /// Writes what is new to the file. That it cannot be written matters to nobody.
    pub fn save(&self) {
        if !self.changed.swap(false, Ordering::Relaxed) {
            return;
        }
        let content = self.encode();
        if let Err(error) = write_private(&self.file, &content) {
            tracing::debug!(file = %self.file.display(), %error, "cache is not written");
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn encode(&self) -> Vec<u8> {
        let known = self.known();
        let all: usize = known.kept.values().map(|kept| kept.text.len()).sum();
        let mut content = self.head.clone().into_bytes();
        for (key, kept) in &known.kept {
            if all <= MAX_FILE || known.seen.contains_key(key) {
                let (modified, length) = (kept.modified.timestamp_micros(), kept.text.len());
                content.extend_from_slice(format!("{key} {modified} {length}\n").as_bytes());
                content.extend_from_slice(&kept.text);
            }
        }
        content
    }

    /// What is kept of an object, if the listing shows that it is the same still.
    fn kept(&self, key: &StoreKey) -> Option<Bytes> {
        let known = self.known();
        let (bytes, modified) = known.seen.get(key)?;
        let kept = known.kept.get(key)?;
        let is_same = kept.text.len() as u64 == *bytes && is_same_time(kept.modified, *modified);
        is_same.then(|| kept.text.clone())
    }

    fn keep(&self, key: &StoreKey, text: &Bytes) {
        let mut known = self.known();
        if let Some((bytes, modified)) = known.seen.get(key).copied()
            && bytes == text.len() as u64
        {
            let text = text.clone();
            known.kept.insert(key.clone(), Kept { modified, text });
            self.changed.store(true, Ordering::Relaxed);
        }
    }

    fn see(&self, entry: &Entry) {
        if let Entry::Object(meta) = entry
            && is_record(&meta.key)
        {
            let found = (meta.bytes, meta.modified);
            self.known().seen.insert(meta.key.clone(), found);
        }
    }
}

/// Whether this is one of the objects that are written once and read by listings.
fn is_record(key: &StoreKey) -> bool {
    layout::parse_manifest_key(key).is_some() || layout::parse_run_key(key).is_some()
}

/// The file has microseconds.
fn is_same_time(one: DateTime<Utc>, other: DateTime<Utc>) -> bool {
    one.timestamp_micros() == other.timestamp_micros()
}

fn decode(content: &Bytes, head: &str) -> Option<HashMap<StoreKey, Kept>> {
    let mut at = content.starts_with(head.as_bytes()).then_some(head.len())?;
    let mut kept = HashMap::new();
    while at < content.len() {
        let line_end = at + content[at..].iter().position(|byte| *byte == b'\n')?;
        let line = std::str::from_utf8(&content[at..line_end]).ok()?;
        let mut words = line.split(' ');
        let key = StoreKey::new(words.next()?).ok()?;
        let modified = DateTime::from_timestamp_micros(words.next()?.parse().ok()?)?;
        let length: usize = words.next()?.parse().ok()?;
        let (start, end) = (line_end + 1, line_end.checked_add(1)?.checked_add(length)?);
        if words.next().is_some() || end > content.len() {
            return None;
        }
        let text = content.slice(start..end);
        kept.insert(key, Kept { modified, text });
        at = end;
    }
    Some(kept)
}

/// A file of this user's that nobody else can write or read.
fn read_private(path: &Path) -> io::Result<Bytes> {
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .read(true)
        .custom_flags(nix::libc::O_NOFOLLOW)
        .open(path)?;
    let meta = file.metadata()?;
    let is_ours = meta.uid() == nix::unistd::geteuid().as_raw();
    if !meta.is_file() || !is_ours || meta.mode() & 0o077 != 0 {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let mut content = Vec::with_capacity(usize::try_from(meta.len()).unwrap_or(0));
    file.read_to_end(&mut content)?;
    Ok(content.into())
}

/// Whole or not at all: two processes may do it at the same time.
fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(folder)?;
    let staged = path.with_extension(std::process::id().to_string());
    let written = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(nix::libc::O_NOFOLLOW)
        .open(&staged)
        .and_then(|mut file| file.write_all(content))
        .and_then(|()| fs::rename(&staged, path));
    if written.is_err() {
        let _ = fs::remove_file(&staged);
    }
    written
}

#[async_trait]
impl Store for CachedStore {
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
        self.inner.put(key, body, options, cancel).await
    }

    async fn create(&self, key: &StoreKey, content: Bytes) -> Result<(), StoreError> {
        self.inner.create(key, content).await
    }

    async fn replace(
        &self,
        key: &StoreKey,
        seen: &Bytes,
        content: Bytes,
    ) -> Result<(), StoreError> {
        self.inner.replace(key, seen, content).await
    }

    async fn check_conditions(&self) -> Result<(), StoreError> {
        self.inner.check_conditions().await
    }

    async fn read(
        &self,
        key: &StoreKey,
        range: Option<Range<u64>>,
    ) -> Result<BodyStream, StoreError> {
        let seen = self.known().seen.get(key).copied();
        let small = seen.is_some_and(|(bytes, _)| bytes <= MAX_RECORD as u64);
        if range.is_some() || !small {
            return self.inner.read(key, range).await;
        }
        let text = if let Some(text) = self.kept(key) {
            text
        } else {
            let text = collect(self.inner.read(key, None).await?, MAX_RECORD).await?;
            self.keep(key, &text);
            text
        };
        Ok(stream::iter([Ok(text)]).boxed())
    }

    async fn head(&self, key: &StoreKey) -> Result<ObjectMeta, StoreError> {
        self.inner.head(key).await
    }

    fn list(
        &self,
        prefix: Option<&StoreKey>,
        depth: Depth,
    ) -> BoxStream<'_, Result<Entry, StoreError>> {
        let entries = self.inner.list(prefix, depth);
        let seen = entries.inspect(|entry| {
            if let Ok(entry) = entry {
                self.see(entry);
            }
        });
        seen.boxed()
    }

    async fn delete(&self, key: &StoreKey) -> Result<(), StoreError> {
        self.known().seen.remove(key);
        self.inner.delete(key).await
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
