//! A store that fails where it is told to.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use backup_core::body::{BodyStream, body_of, collect};
use backup_core::error::{ErrorKind, PortError};
use backup_core::store::{
    Depth, Entry, ObjectMeta, PutOptions, Store, StoreError, StoreKey, UnfinishedUpload,
};
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use tokio_util::sync::CancellationToken;

use crate::bodies::{SCRIPTED, scripted};
use crate::lock;

/// An operation of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// `put`
    Put,
    /// `create`
    Create,
    /// `replace`
    Replace,
    /// `read`
    Read,
    /// `head`
    Head,
    /// `list`
    List,
    /// `delete`
    Delete,
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Put => "put",
            Self::Create => "create",
            Self::Replace => "replace",
            Self::Read => "read",
            Self::Head => "head",
            Self::List => "list",
            Self::Delete => "delete",
        })
    }
}

#[derive(Debug, Clone, Copy)]
enum Effect {
    Reject(ErrorKind),
    FailAfter(u64),
    Stall,
    StallAfter(u64),
    LoseAnswer,
    Cut(u64),
    Flip(u64),
    Delay(Duration),
    ComeLate,
}

/// One rule: which calls, and what happens to them. Starts with [`Fault::on`]; without
/// [`Fault::key`] and [`Fault::nth`] it holds for every call of the operation.
#[derive(Debug, Clone)]
pub struct Fault {
    op: Op,
    key: String,
    calls: Range<usize>,
    effect: Effect,
    seen: usize,
}

impl Fault {
    /// A rule for calls of `op`; rejects them as `Unavailable` until told otherwise.
    #[must_use]
    pub fn on(op: Op) -> Self {
        Self {
            op,
            key: String::new(),
            calls: 1..usize::MAX,
            effect: Effect::Reject(ErrorKind::Unavailable),
            seen: 0,
        }
    }

    /// Only for keys that contain `text`.
    #[must_use]
    pub fn key(mut self, text: impl Into<String>) -> Self {
        self.key = text.into();
        self
    }

    /// Only for the `n`-th matching call, counted from 1.
    #[must_use]
    pub fn nth(self, n: usize) -> Self {
        self.calls(n..n + 1)
    }

    /// Only for these matching calls, counted from 1.
    #[must_use]
    pub fn calls(mut self, calls: Range<usize>) -> Self {
        self.calls = calls;
        self
    }

    /// Refuses before anything happens.
    #[must_use]
    pub fn rejects(self, kind: ErrorKind) -> Self {
        self.effect(Effect::Reject(kind))
    }

    /// Breaks the connection (`Unavailable`) when `bytes` of the body have passed, of a put
    /// or of a read. Other operations fail at once.
    #[must_use]
    pub fn fails_after(self, bytes: u64) -> Self {
        self.effect(Effect::FailAfter(bytes))
    }

    /// Does nothing for ever; a put still heeds its token.
    #[must_use]
    pub fn stalls(self) -> Self {
        self.effect(Effect::Stall)
    }

    /// Stops moving when `bytes` of the body have passed; a put still heeds its token.
    #[must_use]
    pub fn stalls_after(self, bytes: u64) -> Self {
        self.effect(Effect::StallAfter(bytes))
    }

    /// Does the work and reports `Timeout`.
    #[must_use]
    pub fn loses_the_answer(self) -> Self {
        self.effect(Effect::LoseAnswer)
    }

    /// Lets a read end after `bytes` as if that were all.
    #[must_use]
    pub fn cuts(self, bytes: u64) -> Self {
        self.effect(Effect::Cut(bytes))
    }

    /// Changes one bit of the byte at offset `at` of a read's body.
    #[must_use]
    pub fn flips(self, at: u64) -> Self {
        self.effect(Effect::Flip(at))
    }

    /// Waits first.
    #[must_use]
    pub fn delays(self, by: Duration) -> Self {
        self.effect(Effect::Delay(by))
    }

    /// Takes all of a put or create and does not answer; what was sent turns up when the key is
    /// deleted, right after that. A put still heeds its token, which takes nothing back. Other
    /// operations never answer.
    #[must_use]
    pub fn comes_late(self) -> Self {
        self.effect(Effect::ComeLate)
    }

    fn effect(mut self, effect: Effect) -> Self {
        self.effect = effect;
        self
    }
}

/// Passes calls on to another store, except where a [`Fault`] says otherwise. The first rule
/// that applies to a call wins. Clones share the rules.
#[derive(Debug, Clone)]
pub struct FaultyStore {
    inner: Arc<dyn Store>,
    faults: Arc<Mutex<Faults>>,
}

#[derive(Debug, Default)]
struct Faults {
    rules: Vec<Fault>,
    hits: usize,
    /// Requests that are carried out late.
    late: Vec<(StoreKey, Bytes)>,
}

impl FaultyStore {
    /// A store without faults so far.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self {
            inner,
            faults: Arc::default(),
        }
    }

    /// Adds a rule, for calls from now on.
    pub fn inject(&self, fault: Fault) {
        lock(&self.faults).rules.push(fault);
    }

    /// Removes all rules.
    pub fn heal(&self) {
        lock(&self.faults).rules.clear();
    }

    /// How many calls were hit. A test whose fault never fired proves nothing.
    #[must_use]
    pub fn hits(&self) -> usize {
        lock(&self.faults).hits
    }

    /// How many requests have been sent that the store has yet to carry out.
    #[must_use]
    pub fn on_their_way(&self) -> usize {
        lock(&self.faults).late.len()
    }

    fn send_late(&self, key: &StoreKey, content: Bytes) {
        lock(&self.faults).late.push((key.clone(), content));
    }

    /// Carries out what was sent for `key` long ago.
    async fn arrive(&self, key: &StoreKey) -> Result<(), StoreError> {
        let late: Vec<_> = lock(&self.faults)
            .late
            .extract_if(.., |(sent, _)| sent == key)
            .collect();
        let (options, never) = (PutOptions::default(), CancellationToken::new());
        for (key, content) in late {
            let body = body_of(content);
            self.inner.put(&key, body, &options, &never).await?;
        }
        Ok(())
    }

    fn effect(&self, op: Op, key: &str) -> Option<Effect> {
        let mut faults = lock(&self.faults);
        let mut effect = None;
        for fault in &mut faults.rules {
            if fault.op == op && key.contains(&fault.key) {
                fault.seen += 1;
                if effect.is_none() && fault.calls.contains(&fault.seen) {
                    effect = Some(fault.effect);
                }
            }
        }
        faults.hits += usize::from(effect.is_some());
        effect
    }

    async fn before(&self, op: Op, key: &str) -> Result<bool, StoreError> {
        carry_out(self.effect(op, key)).await
    }
}

/// What happens before a call; whether its answer is to be lost.
async fn carry_out(effect: Option<Effect>) -> Result<bool, StoreError> {
    match effect {
        None | Some(Effect::Cut(_) | Effect::Flip(_)) => Ok(false),
        Some(Effect::LoseAnswer) => Ok(true),
        Some(Effect::Delay(by)) => {
            tokio::time::sleep(by).await;
            Ok(false)
        }
        Some(Effect::Reject(kind)) => Err(PortError::new(kind, SCRIPTED)),
        Some(Effect::FailAfter(_)) => Err(PortError::new(ErrorKind::Unavailable, SCRIPTED)),
        Some(Effect::Stall | Effect::StallAfter(_) | Effect::ComeLate) => {
            std::future::pending().await
        }
    }
}

fn lost<T>(lose: bool, result: Result<T, StoreError>) -> Result<T, StoreError> {
    match result {
        Ok(_) if lose => Err(PortError::new(ErrorKind::Timeout, "scripted lost answer")),
        other => other,
    }
}

/// The first `bytes` of a body, then `end`.
fn up_to(body: BodyStream, bytes: u64, end: BodyStream) -> BodyStream {
    let head = body.scan(bytes, |left, item| {
        let item = match item {
            Ok(_) if *left == 0 => None,
            Ok(chunk) => {
                let take = usize::try_from(*left)
                    .unwrap_or(usize::MAX)
                    .min(chunk.len());
                *left -= take as u64;
                Some(Ok(chunk.slice(..take)))
            }
            Err(e) => Some(Err(e)),
        };
        std::future::ready(item)
    });
    head.chain(end).boxed()
}

fn flipped(body: BodyStream, at: u64) -> BodyStream {
    body.scan(0_u64, move |seen, item| {
        let item = item.map(|chunk| {
            let start = *seen;
            *seen += chunk.len() as u64;
            if !(start..*seen).contains(&at) {
                return chunk;
            }
            let mut bytes = chunk.to_vec();
            bytes[usize::try_from(at - start).expect("within the chunk")] ^= 0x10;
            bytes.into()
        });
        std::future::ready(Some(item))
    })
    .boxed()
}

#[async_trait]
impl Store for FaultyStore {
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
        let mut lose = false;
        let body = match self.effect(Op::Put, key.as_str()) {
            None | Some(Effect::Cut(_) | Effect::Flip(_)) => body,
            Some(Effect::Reject(kind)) => return Err(PortError::new(kind, SCRIPTED)),
            Some(Effect::FailAfter(bytes)) => {
                let end = stream::once(async { Err(scripted(ErrorKind::Unavailable)) });
                up_to(body, bytes, end.boxed())
            }
            Some(Effect::Stall) => stream::pending().boxed(),
            Some(Effect::StallAfter(bytes)) => up_to(body, bytes, stream::pending().boxed()),
            Some(Effect::LoseAnswer) => {
                lose = true;
                body
            }
            Some(Effect::ComeLate) => {
                let content = collect(body, usize::MAX).await?;
                self.send_late(key, content);
                cancel.cancelled().await;
                return Err(PortError::cancelled());
            }
            Some(Effect::Delay(by)) => {
                tokio::select! {
                    () = cancel.cancelled() => return Err(PortError::cancelled()),
                    () = tokio::time::sleep(by) => body,
                }
            }
        };
        lost(lose, self.inner.put(key, body, options, cancel).await)
    }

    async fn create(&self, key: &StoreKey, content: Bytes) -> Result<(), StoreError> {
        match self.effect(Op::Create, key.as_str()) {
            Some(Effect::ComeLate) => {
                self.send_late(key, content);
                std::future::pending().await
            }
            effect => {
                let lose = carry_out(effect).await?;
                lost(lose, self.inner.create(key, content).await)
            }
        }
    }

    async fn replace(
        &self,
        key: &StoreKey,
        seen: &Bytes,
        content: Bytes,
    ) -> Result<(), StoreError> {
        let lose = self.before(Op::Replace, key.as_str()).await?;
        lost(lose, self.inner.replace(key, seen, content).await)
    }

    async fn check_conditions(&self) -> Result<(), StoreError> {
        self.inner.check_conditions().await
    }

    async fn read(
        &self,
        key: &StoreKey,
        range: Option<Range<u64>>,
    ) -> Result<BodyStream, StoreError> {
        let effect = self.effect(Op::Read, key.as_str());
        match effect {
            Some(Effect::Reject(kind)) => return Err(PortError::new(kind, SCRIPTED)),
            Some(Effect::Stall | Effect::ComeLate) => return std::future::pending().await,
            Some(Effect::Delay(by)) => tokio::time::sleep(by).await,
            _ => {}
        }
        let body = lost(
            matches!(effect, Some(Effect::LoseAnswer)),
            self.inner.read(key, range).await,
        )?;
        Ok(match effect {
            Some(Effect::FailAfter(bytes)) => {
                let end = stream::once(async { Err(scripted(ErrorKind::Unavailable)) });
                up_to(body, bytes, end.boxed())
            }
            Some(Effect::StallAfter(bytes)) => up_to(body, bytes, stream::pending().boxed()),
            Some(Effect::Cut(bytes)) => up_to(body, bytes, stream::empty().boxed()),
            Some(Effect::Flip(at)) => flipped(body, at),
            _ => body,
        })
    }

    async fn head(&self, key: &StoreKey) -> Result<ObjectMeta, StoreError> {
        let lose = self.before(Op::Head, key.as_str()).await?;
        lost(lose, self.inner.head(key).await)
    }

    fn list(
        &self,
        prefix: Option<&StoreKey>,
        depth: Depth,
    ) -> BoxStream<'_, Result<Entry, StoreError>> {
        let prefix = prefix.cloned();
        let listing = async move {
            let name = prefix.as_ref().map_or("", StoreKey::as_str);
            match self.before(Op::List, name).await {
                Ok(false) => self.inner.list(prefix.as_ref(), depth),
                Ok(true) => {
                    stream::iter([Err(PortError::new(ErrorKind::Timeout, SCRIPTED))]).boxed()
                }
                Err(e) => stream::iter([Err(e)]).boxed(),
            }
        };
        stream::once(listing).flatten().boxed()
    }

    async fn delete(&self, key: &StoreKey) -> Result<(), StoreError> {
        let lose = self.before(Op::Delete, key.as_str()).await?;
        let deleted = self.inner.delete(key).await;
        self.arrive(key).await?;
        lost(lose, deleted)
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
