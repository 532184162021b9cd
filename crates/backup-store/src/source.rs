//! A body cut into upload parts, without copying.

use backup_core::body::BodyStream;
use backup_core::error::{ErrorKind, PortError};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use object_store::PutPayload;
use tokio_util::sync::CancellationToken;

/// Chunks below this are copied together: each one costs a system call later.
const SMALL: usize = 16 << 10;

/// Cuts a body.
pub(crate) struct Source<'a> {
    body: BodyStream,
    cancel: &'a CancellationToken,
    part_bytes: usize,
    chunks: Vec<Bytes>,
    small: BytesMut,
    filled: usize,
    /// The end of a chunk that belongs to the next part.
    rest: Bytes,
    ended: bool,
}

/// One upload part.
pub(crate) struct Part {
    pub(crate) payload: PutPayload,
    pub(crate) bytes: u64,
    /// The body ended with this part, which is then shorter than the others, maybe empty.
    pub(crate) last: bool,
}

impl<'a> Source<'a> {
    pub(crate) fn new(body: BodyStream, part_bytes: u64, cancel: &'a CancellationToken) -> Self {
        Self {
            body,
            cancel,
            part_bytes: usize::try_from(part_bytes).unwrap_or(usize::MAX),
            chunks: Vec::new(),
            small: BytesMut::new(),
            filled: 0,
            rest: Bytes::new(),
            ended: false,
        }
    }

    /// The next part, of full size unless the body ended. Cancel-safe: what a dropped call
    /// had collected is there for the next.
    pub(crate) async fn next_part(&mut self) -> Result<Part, PortError> {
        while self.filled < self.part_bytes && !self.ended {
            let chunk = if self.rest.is_empty() {
                self.next_chunk().await?
            } else {
                Some(std::mem::take(&mut self.rest))
            };
            match chunk {
                Some(chunk) => self.take(chunk),
                None => self.ended = true,
            }
        }
        self.flush_small();
        let part = Part {
            bytes: self.filled as u64,
            last: self.ended,
            payload: std::mem::take(&mut self.chunks).into_iter().collect(),
        };
        self.filled = 0;
        Ok(part)
    }

    async fn next_chunk(&mut self) -> Result<Option<Bytes>, PortError> {
        let item = tokio::select! {
            biased;
            () = self.cancel.cancelled() => return Err(PortError::cancelled()),
            item = self.body.next() => item,
        };
        item.transpose()
            .map_err(|e| PortError::from_io(e, ErrorKind::Unavailable, "read body"))
    }

    fn take(&mut self, mut chunk: Bytes) {
        let room = self.part_bytes - self.filled;
        if chunk.len() > room {
            self.rest = chunk.split_off(room);
        }
        self.filled += chunk.len();
        if chunk.len() < SMALL {
            self.small.extend_from_slice(&chunk);
        } else {
            self.flush_small();
            self.chunks.push(chunk);
        }
    }

    fn flush_small(&mut self) {
        if !self.small.is_empty() {
            self.chunks.push(self.small.split().freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;

    async fn parts(chunks: &[usize], part_bytes: u64) -> Vec<(u64, bool)> {
        let chunks: Vec<_> = chunks
            .iter()
            .map(|len| Ok(Bytes::from(vec![7; *len])))
            .collect();
        let cancel = CancellationToken::new();
        let mut source = Source::new(stream::iter(chunks).boxed(), part_bytes, &cancel);
        let mut parts = Vec::new();
        loop {
            let part = source.next_part().await.unwrap();
            assert_eq!(part.payload.content_length() as u64, part.bytes);
            parts.push((part.bytes, part.last));
            if part.last {
                return parts;
            }
        }
    }

    #[tokio::test]
    async fn parts_are_equal_but_the_last() {
        assert_eq!(parts(&[], 10).await, [(0, true)]);
        assert_eq!(parts(&[0, 3, 0], 10).await, [(3, true)]);
        assert_eq!(parts(&[10], 10).await, [(10, false), (0, true)]);
        assert_eq!(
            parts(&[25], 10).await,
            [(10, false), (10, false), (5, true)]
        );
        assert_eq!(parts(&[6, 6, 6], 10).await, [(10, false), (8, true)]);
        let big = 3 * SMALL;
        let whole = 2 * SMALL as u64;
        let expected = [(whole, false), (SMALL as u64 + 5, true)];
        assert_eq!(parts(&[5, big], whole).await, expected);
    }
}
