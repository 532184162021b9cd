//! One long body as several bounded ones.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::Mutex as StdMutex;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream;
use tokio::sync::Mutex;

use crate::body::{BodyStream, ObjectHasher, lock};

/// Hands out a body in pieces of bounded length; every piece is hashed as it passes.
pub(super) struct Splitter {
    state: Mutex<State>,
}

struct State {
    body: BodyStream,
    waiting: VecDeque<io::Result<Bytes>>,
}

impl State {
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        match self.waiting.pop_front() {
            Some(item) => Some(item),
            None => self.body.next().await,
        }
    }
}

impl Splitter {
    pub(super) fn new(body: BodyStream) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                // Asked again after its end, by `has_more`.
                body: body.fuse().boxed(),
                waiting: VecDeque::new(),
            }),
        })
    }

    /// Whether anything, be it an error, is left.
    pub(super) async fn has_more(&self) -> bool {
        let mut state = self.state.lock().await;
        let next = state.next().await;
        let more = next.is_some();
        state.waiting.extend(next);
        more
    }

    /// The next at most `limit` bytes.
    pub(super) fn piece(
        self: &Arc<Self>,
        limit: u64,
        hasher: &Arc<StdMutex<ObjectHasher>>,
    ) -> BodyStream {
        let context = (Arc::clone(self), Arc::clone(hasher), limit);
        stream::unfold(context, |(splitter, hasher, left)| async move {
            if left == 0 {
                return None;
            }
            let item = splitter.take(left).await?;
            let taken = item.as_ref().map_or(0, |chunk| {
                lock(&hasher).update(chunk);
                chunk.len() as u64
            });
            Some((item, (splitter, hasher, left - taken)))
        })
        .fuse()
        .boxed()
    }

    async fn take(&self, limit: u64) -> Option<io::Result<Bytes>> {
        let mut state = self.state.lock().await;
        let item = state.next().await?;
        Some(item.map(|mut chunk| {
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            if chunk.len() > limit {
                let rest = chunk.split_off(limit);
                state.waiting.push_front(Ok(rest));
            }
            chunk
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::{body_of, collect};

    #[tokio::test]
    async fn pieces_join_to_the_whole() {
        let splitter = Splitter::new(body_of("0123456789"));
        let mut pieces = Vec::new();
        while splitter.has_more().await {
            let hasher = Arc::default();
            let piece = collect(splitter.piece(4, &hasher), 100).await.unwrap();
            assert_eq!(
                Arc::into_inner(hasher)
                    .unwrap()
                    .into_inner()
                    .unwrap()
                    .finish()
                    .bytes,
                piece.len() as u64
            );
            pieces.push(piece);
        }
        assert_eq!(pieces, ["0123", "4567", "89"]);
    }

    #[tokio::test]
    async fn an_exact_fit_leaves_no_empty_piece() {
        let splitter = Splitter::new(body_of("0123"));
        let piece = splitter.piece(4, &Arc::default());
        assert_eq!(collect(piece, 100).await.unwrap(), "0123");
        assert!(!splitter.has_more().await);
    }
}
