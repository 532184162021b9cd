//! Bytes on their way: the one body type of all ports and what wraps it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use xxhash_rust::xxh3::Xxh3;

use crate::error::{ErrorKind, PortError};

/// A stream of bytes whose **last item tells how it ended**: a body that ends
/// without an error is complete, whatever ends early ends with an `Err`. Readers may ask
/// again after the end, so what makes bodies makes them fused.
pub type BodyStream = BoxStream<'static, io::Result<Bytes>>;

/// A body of one chunk.
#[must_use]
pub fn body_of(content: impl Into<Bytes>) -> BodyStream {
    let content = content.into();
    stream::once(async move { Ok(content) }).boxed()
}

/// Reads a whole small body into memory.
///
/// # Errors
/// The body's own error; `Corrupt` when it is longer than `limit`.
pub async fn collect(mut body: BodyStream, limit: usize) -> Result<Bytes, PortError> {
    let mut content = Vec::new();
    while let Some(chunk) = body.next().await {
        let chunk =
            chunk.map_err(|e| PortError::from_io(e, ErrorKind::Unavailable, "read body"))?;
        if content.len() + chunk.len() > limit {
            return Err(PortError::new(
                ErrorKind::Corrupt,
                format!("object is larger than {limit} bytes"),
            ));
        }
        content.extend_from_slice(&chunk);
    }
    Ok(content.into())
}

/// Runs `body` in a task of its own, at most `chunks` ahead of its reader, so that
/// two stages of a pipeline can use two cores. Dropping the result ends the task.
#[must_use]
pub fn in_own_task(body: BodyStream, chunks: usize) -> BodyStream {
    in_own_task_until(body, chunks, CancellationToken::new())
}

/// As [`in_own_task`], and lets go of `body` as soon as `cancel` says so, whether its reader reads or not.
#[must_use]
pub fn in_own_task_until(
    mut body: BodyStream,
    chunks: usize,
    cancel: CancellationToken,
) -> BodyStream {
    let (sender, receiver) = tokio::sync::mpsc::channel(chunks);
    let task = AbortOnDropHandle::new(tokio::spawn(async move {
        let passed_on = async {
            while let Some(item) = body.next().await {
                let failed = item.is_err();
                if sender.send(item).await.is_err() || failed {
                    return;
                }
            }
        };
        cancel.run_until_cancelled(passed_on).await
    }));
    stream::unfold(
        (receiver, Some(task)),
        |(mut receiver, mut task)| async move {
            if let Some(item) = receiver.recv().await {
                return Some((item, (receiver, task)));
            }
            // The channel closed: what is no clean end must not look like one.
            let error = match task.take()?.await {
                Ok(Some(())) => return None,
                Ok(None) => PortError::new(ErrorKind::Cancelled, "stopped"),
                Err(e) => {
                    PortError::new(ErrorKind::Internal, "a pipeline stage died").with_source(e)
                }
            };
            Some((Err(error.into_io()), (receiver, None)))
        },
    )
    .fuse()
    .boxed()
}

/// Calls `each` with the length of every chunk that passes.
pub fn counted(body: BodyStream, each: impl Fn(u64) + Send + 'static) -> BodyStream {
    body.inspect_ok(move |chunk| each(chunk.len() as u64))
        .boxed()
}

/// Fails a body that brings more than `limit` bytes: a decoder fed with hostile input
/// must not produce without end.
#[must_use]
pub fn limited(body: BodyStream, limit: u64) -> BodyStream {
    let seen = AtomicU64::new(0);
    body.and_then(move |chunk| {
        let total = seen.fetch_add(chunk.len() as u64, Ordering::Relaxed) + chunk.len() as u64;
        futures::future::ready(if total > limit {
            Err(PortError::new(
                ErrorKind::Corrupt,
                format!("content is longer than the {limit} bytes that were written"),
            )
            .into_io())
        } else {
            Ok(chunk)
        })
    })
    .boxed()
}

/// Length and digests of the bytes of one stored object.
#[derive(Debug, Clone, Default)]
pub struct ObjectDigest {
    /// Bytes.
    pub bytes: u64,
    /// SHA-256, what `sha256sum` prints.
    pub sha256: String,
    /// CRC-32 (IEEE), eight hex digits, for tools that ask for one. No proof of integrity.
    pub crc32: String,
}

/// Computes an [`ObjectDigest`] as chunks pass.
#[derive(Debug, Default)]
pub struct ObjectHasher {
    bytes: u64,
    sha256: Sha256,
    crc32: crc32fast::Hasher,
}

impl ObjectHasher {
    /// Takes the next chunk.
    pub fn update(&mut self, chunk: &[u8]) {
        self.bytes += chunk.len() as u64;
        self.sha256.update(chunk);
        self.crc32.update(chunk);
    }

    /// The digest of everything so far.
    #[must_use]
    pub fn finish(self) -> ObjectDigest {
        ObjectDigest {
            bytes: self.bytes,
            sha256: hex(&self.sha256.finalize()),
            crc32: format!("{:08x}", self.crc32.finalize()),
        }
    }
}

/// SHA-256 of a small object, as hex digits.
pub(crate) fn sha256_hex(content: &[u8]) -> String {
    hex(&Sha256::digest(content))
}

/// Length and xxh3-128 of the raw bytes of a part: finds accidents of the codecs at no
/// cost. Attackers are the business of SHA-256 over the stored bytes and of the cipher.
#[derive(Default)]
pub struct RawHasher {
    bytes: u64,
    hash: Box<Xxh3>,
}

impl std::fmt::Debug for RawHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RawHasher")
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl RawHasher {
    /// Takes the next chunk.
    pub fn update(&mut self, chunk: &[u8]) {
        self.bytes += chunk.len() as u64;
        self.hash.update(chunk);
    }

    /// Bytes so far and their hash as 32 hex digits.
    #[must_use]
    pub fn finish(&self) -> (u64, String) {
        (self.bytes, format!("{:032x}", self.hash.digest128()))
    }
}

/// Lets `body` pass and feeds every chunk to a shared hasher, readable when it has ended.
pub(crate) fn hashed<H: Send + 'static>(
    body: BodyStream,
    hasher: &Arc<std::sync::Mutex<H>>,
    update: fn(&mut H, &[u8]),
) -> BodyStream {
    let hasher = Arc::clone(hasher);
    body.inspect_ok(move |chunk| update(&mut lock(&hasher), chunk))
        .boxed()
}

/// Locks a mutex that nobody can poison in a way that matters: its data are counters.
pub(crate) fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Lower-case hex digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn own_task_passes_everything_and_its_error() {
        let items = vec![
            Ok(Bytes::from_static(b"ab")),
            Ok(Bytes::from_static(b"c")),
            Err(io::Error::other("cut")),
        ];
        let mut body = in_own_task(stream::iter(items).boxed(), 1);
        assert_eq!(body.next().await.unwrap().unwrap(), "ab");
        assert_eq!(body.next().await.unwrap().unwrap(), "c");
        assert_eq!(body.next().await.unwrap().unwrap_err().to_string(), "cut");
        assert!(body.next().await.is_none());
    }

    #[tokio::test]
    async fn a_panic_in_a_stage_is_no_clean_end() {
        let body = stream::iter([1, 2])
            .map(|n| {
                assert!(n < 2, "boom");
                Ok(Bytes::from_static(b"x"))
            })
            .boxed();
        let items: Vec<_> = in_own_task(body, 4).collect().await;
        assert!(items.last().unwrap().is_err());
    }

    /// Nobody reads, and the source is dropped all the same.
    #[tokio::test]
    async fn a_source_is_let_go_when_it_is_of_no_use() {
        let cancel = CancellationToken::new();
        let (held, released) = tokio::sync::oneshot::channel::<()>();
        let endless = stream::repeat_with(move || {
            let _ = &held;
            Ok(Bytes::from_static(b"x"))
        });
        let body = in_own_task_until(endless.boxed(), 1, cancel.clone());
        tokio::task::yield_now().await;
        cancel.cancel();
        assert!(released.await.is_err());
        let items: Vec<_> = body.collect().await;
        let last = items.last().unwrap().as_ref().unwrap_err();
        assert_eq!(last.to_string(), "stopped");
    }

    #[tokio::test]
    async fn limited_bodies_end_with_an_error() {
        let long = collect(limited(body_of("12345"), 4), 100).await;
        assert_eq!(long.unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!(
            collect(limited(body_of("1234"), 4), 100).await.unwrap(),
            "1234"
        );
    }

    #[test]
    fn digests_are_what_stock_tools_print() {
        let mut hasher = ObjectHasher::default();
        hasher.update(b"123456789");
        let digest = hasher.finish();
        assert_eq!(digest.crc32, "cbf43926");
        assert_eq!(
            digest.sha256,
            "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225"
        );
    }
}
