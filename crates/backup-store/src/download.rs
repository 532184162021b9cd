//! Reading an object by ranges, each with its own retries.

use std::ops::Range;
use std::sync::Arc;

use backup_core::body::BodyStream;
use backup_core::error::{ErrorKind, PortError};
use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    GetOptions, GetRange, GetResult, GetResultPayload, ObjectStore, ObjectStoreExt as _,
};
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use crate::error::{is_transient, port_error};
use crate::limits::Limits;

/// No chunk of a body is longer: what comes next should not need more for one.
const CHUNK: usize = 256 << 10;

/// Reads one object.
#[derive(Debug, Clone)]
pub(crate) struct Reader {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) path: Path,
}

/// One range of an object, and what the answer said about the whole.
struct Piece {
    chunks: Vec<Bytes>,
    size: u64,
    tag: Option<String>,
}

impl Reader {
    /// The body of the whole object or of `range`.
    ///
    /// One long request would die by its client's total timeout when the consumer is slow, so
    /// there are many short ones, made in tasks of their own and tied together by the tag.
    pub(crate) async fn read(self, range: Option<Range<u64>>) -> Result<BodyStream, PortError> {
        if range.as_ref().is_some_and(|range| range.start > range.end) {
            return Err(self.no_such_range(&range.unwrap_or_default()));
        }
        let step = self.limits.read_bytes.max(1);
        let (start, wanted_end) = range.map_or((0, None), |range| (range.start, Some(range.end)));
        if wanted_end == Some(start) {
            return self.nothing(start).await;
        }
        let first_end = start.saturating_add(step);
        let first_end = wanted_end.map_or(first_end, |end| end.min(first_end));
        let first = match self.fetch(start..first_end, None).await {
            Ok(piece) => piece,
            // Servers differ in how they refuse a range of an empty object.
            Err(e) if start == 0 && wanted_end.is_none() && self.is_empty().await => {
                tracing::debug!(path = %self.path, error = %e, "object is empty");
                return Ok(stream::empty().boxed());
            }
            Err(e) => return Err(self.range_error(&(start..first_end), &e).await),
        };
        let end = wanted_end.unwrap_or(first.size);
        if end > first.size {
            return Err(self.no_such_range(&(start..end)));
        }
        let starts = (1..)
            .map(move |n| start + n * step)
            .take_while(move |at| *at < end);
        let (tag, ahead) = (first.tag, self.limits.reads_ahead.max(1));
        let pieces = stream::iter(starts)
            .map(move |at| {
                self.clone()
                    .fetch_in_task(at..end.min(at + step), tag.clone())
            })
            .buffered(ahead);
        let first = stream::iter([Ok(first.chunks)]);
        let chunks = first
            .chain(pieces)
            .map_ok(|chunks| stream::iter(chunks).map(Ok));
        Ok(chunks.try_flatten().map_err(PortError::into_io).boxed())
    }

    async fn nothing(&self, at: u64) -> Result<BodyStream, PortError> {
        match self.store.head(&self.path).await {
            Ok(meta) if at <= meta.size => Ok(stream::empty().boxed()),
            Ok(_) => Err(self.no_such_range(&(at..at))),
            Err(e) => Err(port_error("read object", &self.path, &e)),
        }
    }

    async fn is_empty(&self) -> bool {
        let meta = self.store.head(&self.path).await;
        meta.is_ok_and(|meta| meta.size == 0)
    }

    fn no_such_range(&self, range: &Range<u64>) -> PortError {
        PortError::new(
            ErrorKind::InvalidInput,
            format!(
                "object {} has no bytes {}..{}",
                self.path, range.start, range.end
            ),
        )
    }

    async fn range_error(&self, range: &Range<u64>, error: &object_store::Error) -> PortError {
        if range.start > 0
            && let Ok(meta) = self.store.head(&self.path).await
            && meta.size <= range.start
        {
            return self.no_such_range(range);
        }
        port_error("read object", &self.path, error)
    }

    async fn fetch_in_task(
        self,
        range: Range<u64>,
        tag: Option<String>,
    ) -> Result<Vec<Bytes>, PortError> {
        // In a task, so that an answer is taken while the consumer is busy.
        let path = self.path.clone();
        let expected = range.end - range.start;
        let task = tokio::spawn(async move { self.fetch(range, tag).await });
        let piece = AbortOnDropHandle::new(task)
            .await
            .map_err(|e| PortError::new(ErrorKind::Internal, "read task died").with_source(e))?
            .map_err(|e| port_error("read object", &path, &e))?;
        let found: u64 = piece.chunks.iter().map(|chunk| chunk.len() as u64).sum();
        if found == expected {
            Ok(piece.chunks)
        } else {
            Err(PortError::new(
                ErrorKind::Corrupt,
                format!("object {path} became shorter while it was read"),
            ))
        }
    }

    /// A request that fails has been repeated by the client already; here an answer that breaks
    /// off is asked for again.
    async fn fetch(&self, range: Range<u64>, tag: Option<String>) -> object_store::Result<Piece> {
        let mut retry = 0;
        loop {
            let options = GetOptions {
                range: Some(GetRange::Bounded(range.clone())),
                if_match: tag.clone(),
                ..GetOptions::default()
            };
            let answer = self.store.get_opts(&self.path, options).await?;
            match collect(answer).await {
                Err(e) if is_transient(&e) && retry + 1 < self.limits.read_attempts => {
                    tracing::debug!(path = %self.path, error = %e, "read failed, trying again");
                    sleep(self.limits.backoff(retry + 2)).await;
                    retry += 1;
                }
                done => return done,
            }
        }
    }
}

async fn collect(result: GetResult) -> object_store::Result<Piece> {
    let (size, tag) = (result.meta.size, result.meta.e_tag.clone());
    let expected = result.range.end - result.range.start;
    let chunks = match result.payload {
        // `bytes` copies a stream together, but reads a file at once.
        GetResultPayload::File(..) => pieces_of(result.bytes().await?),
        GetResultPayload::Stream(stream) => stream.try_collect().await?,
    };
    let found: u64 = chunks.iter().map(|chunk| chunk.len() as u64).sum();
    if found == expected {
        return Ok(Piece { chunks, size, tag });
    }
    Err(object_store::Error::Generic {
        store: "read",
        source: format!("{found} bytes came where {expected} were announced").into(),
    })
}

fn pieces_of(mut content: Bytes) -> Vec<Bytes> {
    let mut pieces = Vec::with_capacity(content.len().div_ceil(CHUNK));
    while content.len() > CHUNK {
        pieces.push(content.split_to(CHUNK));
    }
    pieces.push(content);
    pieces
}
