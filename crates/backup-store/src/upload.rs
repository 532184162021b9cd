//! Putting a body of any length in bounded memory, all or nothing.

use std::sync::Arc;

use backup_core::error::{ErrorKind, PortError};
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, MultipartUpload, ObjectStore, ObjectStoreExt as _, PutMultipartOptions,
    PutPayload, TagSet,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::config::BucketConfig;
use crate::error::port_error;
use crate::limits::Limits;
use crate::source::{Part, Source};

/// The budget is counted in these, since a semaphore has 32 bits.
const UNIT: u64 = 64 << 10;

/// What a service is told of the objects that are written.
#[derive(Debug, Clone, Default)]
pub(crate) struct Marks {
    storage_class: Option<String>,
    pub(crate) tags: TagSet,
}

impl Marks {
    pub(crate) fn of(config: &BucketConfig) -> Self {
        let mut tags = TagSet::default();
        for (name, value) in &config.tags {
            tags.push(name, value);
        }
        Self {
            storage_class: config.storage_class.clone(),
            tags,
        }
    }

    /// For long bodies alone: what is made by [`create`] is read to list what there is, which an
    /// archive does not allow.
    fn attributes(&self) -> Attributes {
        let class = self.storage_class.iter();
        class
            .map(|class| (Attribute::StorageClass, class.clone()))
            .collect()
    }
}

/// What all uploads of a store share.
#[derive(Debug, Clone)]
pub(crate) struct Uploader {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) limits: Arc<Limits>,
    budget: Arc<Semaphore>,
    units: u32,
    pub(crate) marks: Marks,
}

impl Uploader {
    pub(crate) fn new(store: Arc<dyn ObjectStore>, limits: Arc<Limits>, marks: Marks) -> Self {
        let units = units(limits.upload_memory);
        Self {
            store,
            limits,
            budget: Arc::new(Semaphore::new(units as usize)),
            units,
            marks,
        }
    }

    /// Writes everything of `source` to `path` and returns its length.
    pub(crate) async fn put(
        &self,
        path: &Path,
        mut source: Source<'_>,
        cancel: &CancellationToken,
    ) -> Result<u64, PortError> {
        let first = source.next_part().await?;
        if first.last {
            return self.put_whole(path, first, cancel).await;
        }
        let mut open = OpenUpload::begin(self, path, cancel).await?;
        match open.run(first, source, cancel).await {
            Ok(bytes) => Ok(bytes),
            Err(error) => Err(open.abandon(error).await),
        }
    }

    async fn put_whole(
        &self,
        path: &Path,
        part: Part,
        cancel: &CancellationToken,
    ) -> Result<u64, PortError> {
        let _permit = self.room_for(part.bytes, cancel).await?;
        let options = object_store::PutOptions {
            attributes: self.marks.attributes(),
            tags: self.marks.tags.clone(),
            ..object_store::PutOptions::default()
        };
        let put = self.store.put_opts(path, part.payload, options);
        let written = or_cancelled(cancel, put).await?;
        written.map_err(|e| port_error("write object", path, &e))?;
        Ok(part.bytes)
    }

    async fn room_for(
        &self,
        bytes: u64,
        cancel: &CancellationToken,
    ) -> Result<OwnedSemaphorePermit, PortError> {
        let wanted = units(bytes).min(self.units);
        let permit = Arc::clone(&self.budget).acquire_many_owned(wanted);
        or_cancelled(cancel, permit).await?.map_err(|e| {
            PortError::new(ErrorKind::Internal, "upload budget is closed").with_source(e)
        })
    }

    /// The tag of what is at `path` now; an error when it cannot be known.
    async fn tag(&self, path: &Path) -> Result<Option<(u64, Option<String>)>, ()> {
        match self.store.head(path).await {
            Ok(meta) => Ok(Some((meta.size, meta.e_tag))),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(_) => Err(()),
        }
    }
}

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT))
        .unwrap_or(u32::MAX / 2)
        .max(1)
}

async fn or_cancelled<T>(
    cancel: &CancellationToken,
    work: impl Future<Output = T>,
) -> Result<T, PortError> {
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(PortError::cancelled()),
        done = work => Ok(done),
    }
}

type PartOutcome = Result<object_store::Result<()>, tokio::task::JoinError>;

/// An upload whose parts the store keeps until it is completed or aborted.
struct OpenUpload<'a> {
    uploader: &'a Uploader,
    path: &'a Path,
    /// `None` when there is nothing left to abort.
    upload: Option<Box<dyn MultipartUpload>>,
    parts: JoinSet<object_store::Result<()>>,
    begun: u64,
    bytes: u64,
}

impl<'a> OpenUpload<'a> {
    async fn begin(
        uploader: &'a Uploader,
        path: &'a Path,
        cancel: &CancellationToken,
    ) -> Result<Self, PortError> {
        let (store, at) = (Arc::clone(&uploader.store), path.clone());
        let options = PutMultipartOptions {
            attributes: uploader.marks.attributes(),
            tags: uploader.marks.tags.clone(),
            ..PutMultipartOptions::default()
        };
        let mut request = tokio::spawn(async move { store.put_multipart_opts(&at, options).await });
        let begun = tokio::select! {
            biased;
            () = cancel.cancelled() => {
                // The request is on its way: whoever it opens an upload for must close it.
                let (limits, path) = (Arc::clone(&uploader.limits), path.clone());
                tokio::spawn(async move {
                    if let Ok(Ok(mut upload)) = request.await {
                        let _ = abort(&mut *upload, &limits, &path).await;
                    }
                });
                return Err(PortError::cancelled());
            }
            begun = &mut request => begun,
        };
        let upload = begun
            .map_err(|e| PortError::new(ErrorKind::Internal, "upload task died").with_source(e))?
            .map_err(|e| port_error("begin upload of", path, &e))?;
        Ok(Self {
            uploader,
            path,
            upload: Some(upload),
            parts: JoinSet::new(),
            begun: 0,
            bytes: 0,
        })
    }

    async fn run(
        &mut self,
        first: Part,
        mut source: Source<'_>,
        cancel: &CancellationToken,
    ) -> Result<u64, PortError> {
        let mut part = first;
        loop {
            let last = part.last;
            if part.bytes > 0 {
                self.send(part, cancel).await?;
            }
            if last {
                break;
            }
            part = self.next_part(&mut source).await?;
        }
        while let Some(done) = or_cancelled(cancel, self.parts.join_next()).await? {
            self.check(done)?;
        }
        self.complete(cancel).await?;
        Ok(self.bytes)
    }

    /// Fills the next part and notices at once when one on its way fails.
    async fn next_part(&mut self, source: &mut Source<'_>) -> Result<Part, PortError> {
        loop {
            tokio::select! {
                part = source.next_part() => return part,
                Some(done) = self.parts.join_next() => self.check(done)?,
            }
        }
    }

    /// Starts a part as soon as there is room for it.
    async fn send(&mut self, part: Part, cancel: &CancellationToken) -> Result<(), PortError> {
        let limits = &self.uploader.limits;
        self.begun += 1;
        self.bytes += part.bytes;
        if self.begun > limits.max_parts {
            return Err(PortError::new(
                ErrorKind::Internal,
                format!("body of {} is longer than one object can be", self.path),
            ));
        }
        while self.parts.len() >= limits.parts_in_flight.max(1) {
            if let Some(done) = or_cancelled(cancel, self.parts.join_next()).await? {
                self.check(done)?;
            }
        }
        let permit = self.uploader.room_for(part.bytes, cancel).await?;
        if let Some(upload) = &mut self.upload {
            let sending = upload.put_part(part.payload);
            self.parts.spawn(async move {
                let sent = sending.await;
                drop(permit);
                sent
            });
        }
        Ok(())
    }

    fn check(&self, done: PartOutcome) -> Result<(), PortError> {
        done.map_err(|e| PortError::new(ErrorKind::Internal, "upload task died").with_source(e))?
            .map_err(|e| port_error("upload part of", self.path, &e))
    }

    async fn complete(&mut self, cancel: &CancellationToken) -> Result<(), PortError> {
        let before = self.uploader.tag(self.path).await;
        let Some(upload) = &mut self.upload else {
            return Ok(());
        };
        let limit = self.uploader.limits.complete_timeout;
        let error = match or_cancelled(cancel, timeout(limit, upload.complete())).await? {
            Ok(Ok(_)) => {
                self.upload = None;
                return Ok(());
            }
            Ok(Err(e)) => port_error("complete upload of", self.path, &e),
            Err(_) => PortError::new(
                ErrorKind::Timeout,
                format!(
                    "no answer in {} s to complete upload of {}",
                    limit.as_secs(),
                    self.path
                ),
            ),
        };
        // The answer may have been lost, or a repeated request refused because the first had
        // done it all. A new object of the right length is the upload.
        let after = self.uploader.tag(self.path).await;
        if let (Ok(before), Ok(Some(after))) = (before, after)
            && after.0 == self.bytes
            && before.as_ref() != Some(&after)
        {
            tracing::info!(path = %self.path, "answer to a completed upload was lost");
            self.upload = None;
            return Ok(());
        }
        Err(error)
    }

    /// Ends the parts, removes the upload, and returns `error`, with a word when the upload
    /// could not be removed.
    async fn abandon(mut self, error: PortError) -> PortError {
        // A part that arrives after the abort would stay: let none be on its way.
        self.parts.shutdown().await;
        let Some(mut upload) = self.upload.take() else {
            return error;
        };
        match abort(&mut *upload, &self.uploader.limits, self.path).await {
            Ok(()) => error,
            Err(()) => PortError::new(
                error.kind(),
                format!("unfinished upload of {} could not be removed", self.path),
            )
            .with_hint("a bucket rule that ends incomplete uploads after some days removes it")
            .with_source(error),
        }
    }
}

impl Drop for OpenUpload<'_> {
    /// The net under a dropped future or a panicking body; every ordinary way has aborted
    /// before.
    fn drop(&mut self) {
        let Some(mut upload) = self.upload.take() else {
            return;
        };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let mut parts = std::mem::take(&mut self.parts);
        let (limits, path) = (Arc::clone(&self.uploader.limits), self.path.clone());
        runtime.spawn(async move {
            parts.shutdown().await;
            let _ = abort(&mut *upload, &limits, &path).await;
        });
    }
}

/// Aborts with retries until the limit; says so in the log when that was in vain.
async fn abort(upload: &mut dyn MultipartUpload, limits: &Limits, path: &Path) -> Result<(), ()> {
    let end = Instant::now() + limits.abort_timeout;
    let mut retry = 0;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        match timeout(left, upload.abort()).await {
            // Gone is what is wanted.
            Ok(Ok(()) | Err(object_store::Error::NotFound { .. })) => return Ok(()),
            Ok(Err(error)) if Instant::now() + limits.backoff(retry) < end => {
                tracing::debug!(%path, %error, "abort failed, trying again");
                sleep(limits.backoff(retry)).await;
                retry += 1;
            }
            Ok(Err(error)) => {
                tracing::warn!(%path, %error, "unfinished upload could not be removed");
                return Err(());
            }
            Err(_) => {
                tracing::warn!(%path, "unfinished upload could not be removed in time");
                return Err(());
            }
        }
    }
}

/// Writes a small object only where there is none.
pub(crate) async fn create(
    store: &dyn ObjectStore,
    path: &Path,
    payload: PutPayload,
    marks: &Marks,
) -> Result<(), PortError> {
    let options = object_store::PutOptions {
        mode: object_store::PutMode::Create,
        tags: marks.tags.clone(),
        ..object_store::PutOptions::default()
    };
    store
        .put_opts(path, payload, options)
        .await
        .map(drop)
        .map_err(|e| port_error("create object", path, &e))
}
