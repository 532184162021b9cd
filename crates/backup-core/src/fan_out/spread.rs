//! One body into several stores, while it passes.

use std::io;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use futures::stream::{self, FuturesUnordered, StreamExt as _};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::member::Member;
use crate::body::BodyStream;
use crate::error::{ErrorKind, PortError};
use crate::store::{PutOptions, StoreKey};

/// Chunks that a member may be behind the others.
const BEHIND: usize = 4;

/// What a member's body is fed with; `None` is the end. A channel that closes without it is an
/// error, so that nobody takes a cut body for a whole one.
type Piece = Option<Bytes>;

/// One object for all.
pub(super) struct Spread<'a> {
    pub(super) key: &'a StoreKey,
    pub(super) options: &'a PutOptions,
    /// How long a member may take nothing.
    pub(super) stall: Duration,
}

/// The way to one member, as long as it goes on.
struct Way {
    sender: Option<mpsc::Sender<Piece>>,
    stop: CancellationToken,
}

impl Way {
    /// Hands over a piece. One that hangs is not waited for longer because of the others.
    async fn send(&mut self, piece: &Piece, limit: Duration) {
        let Some(sender) = &self.sender else {
            return;
        };
        match tokio::time::timeout(limit, sender.send(piece.clone())).await {
            Ok(Ok(())) => {}
            // Its upload has ended, and says why itself.
            Ok(Err(_)) => self.sender = None,
            Err(_) => self.stall(),
        }
    }

    /// Stops the upload, which has taken nothing for too long.
    fn stall(&mut self) {
        self.sender = None;
        self.stop.cancel();
    }
}

impl Spread<'_> {
    /// Stores the body everywhere and says how each upload ended.
    ///
    /// # Errors
    /// That of the body, or `Cancelled`: then it is nowhere.
    pub(super) async fn put<'m>(
        &self,
        members: Vec<&'m Member>,
        body: BodyStream,
        cancel: &CancellationToken,
    ) -> Result<Vec<(&'m Member, Result<u64, PortError>)>, PortError> {
        let mut ways = Vec::new();
        let mut uploads = FuturesUnordered::new();
        for member in members {
            let (sender, receiver) = mpsc::channel(BEHIND);
            let stop = cancel.child_token();
            ways.push(Way {
                sender: Some(sender),
                stop: stop.clone(),
            });
            uploads.push(async move {
                let body = member_body(receiver);
                let stored = member.put(self.key, body, self.options, &stop).await;
                (member, stored.map_err(|e| self.why(e, &stop, cancel)))
            });
        }
        let stops: Vec<_> = ways.iter().map(|way| way.stop.clone()).collect();
        let mut pump = pin!(self.pump(body, ways));
        let mut pumped = None;
        let mut ended = Vec::new();
        let mut last_wait = pin!(tokio::time::sleep(self.stall));
        loop {
            tokio::select! {
                biased;
                upload = uploads.next() => match upload {
                    Some(upload) => ended.push(upload),
                    None => break,
                },
                result = &mut pump, if pumped.is_none() => {
                    pumped = Some(result);
                    last_wait.as_mut().reset(tokio::time::Instant::now() + self.stall);
                }
                () = &mut last_wait, if pumped.is_some() && !stops.iter().all(CancellationToken::is_cancelled) => {
                    stops.iter().for_each(CancellationToken::cancel);
                }
            }
        }
        match pumped {
            Some(Err(error)) => Err(error),
            _ if cancel.is_cancelled() => Err(PortError::cancelled()),
            _ => Ok(ended),
        }
    }

    /// Feeds all ways until the body ends, or until there are none.
    async fn pump(&self, mut body: BodyStream, mut ways: Vec<Way>) -> Result<(), PortError> {
        loop {
            let piece = match body.next().await {
                Some(Ok(chunk)) => Some(chunk),
                Some(Err(error)) => {
                    return Err(PortError::from_io(
                        error,
                        ErrorKind::Internal,
                        "read the body",
                    ));
                }
                None => None,
            };
            let is_end = piece.is_none();
            join_all(ways.iter_mut().map(|way| way.send(&piece, self.stall))).await;
            if is_end || ways.iter().all(|way| way.sender.is_none()) {
                return Ok(());
            }
        }
    }

    fn why(
        &self,
        error: PortError,
        stop: &CancellationToken,
        cancel: &CancellationToken,
    ) -> PortError {
        if stop.is_cancelled() && !cancel.is_cancelled() {
            let what = format!("took nothing for {} s", self.stall.as_secs());
            let late = PortError::new(ErrorKind::Timeout, what);
            return match error.kind() {
                ErrorKind::Cancelled => late,
                _ => late.with_source(error),
            };
        }
        error
    }
}

fn member_body(receiver: mpsc::Receiver<Piece>) -> BodyStream {
    stream::unfold(Some(receiver), |receiver| async {
        let mut receiver = receiver?;
        match receiver.recv().await {
            Some(Some(chunk)) => Some((Ok(chunk), Some(receiver))),
            Some(None) => None,
            None => {
                let cut = PortError::new(ErrorKind::ToolFailed, "the body ended with an error");
                Some((Err::<_, io::Error>(cut.into_io()), None))
            }
        }
    })
    .boxed()
}
