//! A dumper whose parts and failures are written down beforehand.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use backup_core::body::BodyStream;
use backup_core::dumper::{
    DumpRequest, DumpSession, Dumper, PartPlan, PartReport, PartStream, SourceFacts,
};
use backup_core::error::{ErrorKind, PortError};
use backup_core::facts::PartFacts;
use backup_core::manifest::{PartFormat, PartKind, PartName};
use bytes::Bytes;
use futures::stream::{self, StreamExt};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::bodies::{self, SCRIPTED, chunked, scripted};
use crate::lock;

/// How a try to dump a part goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// `part` itself fails with this kind.
    Refuse(ErrorKind),
    /// The body ends with this kind of error when so many bytes have passed; with the
    /// content's length it is the tool that exits non-zero after its last byte.
    After(u64, ErrorKind),
    /// The body stops moving after so many bytes, until the token is cancelled.
    HangAfter(u64),
    /// The stage panics after so many bytes.
    PanicAfter(u64),
    /// All bytes pass, and the report is an error.
    Report(ErrorKind),
}

/// A part of a [`ScriptedDumper`].
#[derive(Debug, Clone)]
pub struct ScriptedPart {
    plan: PartPlan,
    pub(crate) content: Bytes,
    pub(crate) report: PartReport,
    failures: BTreeMap<usize, Failure>,
    always: Option<Failure>,
    chunk: usize,
}

impl ScriptedPart {
    /// A data part that holds `content`.
    ///
    /// # Panics
    /// When `name` is no part name.
    #[must_use]
    pub fn new(name: &str, content: impl Into<Bytes>) -> Self {
        let content = content.into();
        Self {
            plan: PartPlan {
                name: PartName::new(name).expect("a valid part name"),
                kind: PartKind::Data,
                format: PartFormat::Custom,
                estimated_bytes: content.len() as u64,
            },
            content,
            report: PartReport::default(),
            failures: BTreeMap::new(),
            always: None,
            chunk: 64 << 10,
        }
    }

    /// Another kind and format.
    #[must_use]
    pub fn kind(mut self, kind: PartKind, format: PartFormat) -> Self {
        self.plan.kind = kind;
        self.plan.format = format;
        self
    }

    /// A wrong estimate.
    #[must_use]
    pub fn estimated(mut self, bytes: u64) -> Self {
        self.plan.estimated_bytes = bytes;
        self
    }

    /// What it reports to hold.
    #[must_use]
    pub fn facts(mut self, facts: PartFacts) -> Self {
        self.report.facts = facts;
        self
    }

    /// Something the tool says although it succeeds.
    #[must_use]
    pub fn warns(mut self, text: &str) -> Self {
        self.report.warnings.push(text.to_owned());
        self
    }

    /// Fails the `nth` try, counted from 1.
    #[must_use]
    pub fn fails(mut self, nth: usize, failure: Failure) -> Self {
        self.failures.insert(nth, failure);
        self
    }

    /// Fails every try.
    #[must_use]
    pub fn always_fails(mut self, failure: Failure) -> Self {
        self.always = Some(failure);
        self
    }

    /// Comes in chunks of this size (64 KiB if not said).
    #[must_use]
    pub fn in_chunks_of(mut self, bytes: usize) -> Self {
        self.chunk = bytes;
        self
    }

    fn failure(&self, nth: usize) -> Option<Failure> {
        self.failures.get(&nth).copied().or(self.always)
    }
}

/// What was asked of a [`ScriptedDumper`].
#[derive(Debug, Default)]
pub struct DumpLog {
    open_sessions: AtomicUsize,
    running_bodies: AtomicUsize,
    most_bodies: AtomicUsize,
    finished: AtomicUsize,
    dropped: AtomicUsize,
    tries: Mutex<BTreeMap<String, usize>>,
}

impl DumpLog {
    /// Sessions that were opened and neither finished nor dropped.
    #[must_use]
    pub fn open_sessions(&self) -> usize {
        self.open_sessions.load(Ordering::SeqCst)
    }

    /// Sessions that were finished in order.
    #[must_use]
    pub fn finished(&self) -> usize {
        self.finished.load(Ordering::SeqCst)
    }

    /// Sessions that were dropped without `finish`.
    #[must_use]
    pub fn dropped(&self) -> usize {
        self.dropped.load(Ordering::SeqCst)
    }

    /// Bodies that are still held by somebody.
    #[must_use]
    pub fn running_bodies(&self) -> usize {
        self.running_bodies.load(Ordering::SeqCst)
    }

    /// The largest number of bodies held at one time.
    #[must_use]
    pub fn most_bodies(&self) -> usize {
        self.most_bodies.load(Ordering::SeqCst)
    }

    /// How often a part was started.
    #[must_use]
    pub fn tries(&self, part: &str) -> usize {
        lock(&self.tries).get(part).copied().unwrap_or_default()
    }
}

/// Dumps what it was told, the way it was told. Clones share script and log.
#[derive(Debug, Clone)]
pub struct ScriptedDumper {
    source: SourceFacts,
    parts: Vec<ScriptedPart>,
    open_error: Option<ErrorKind>,
    finish_error: Option<ErrorKind>,
    log: Arc<DumpLog>,
}

impl Default for ScriptedDumper {
    fn default() -> Self {
        Self {
            source: SourceFacts {
                database: "app".to_owned(),
                server_version: "18.6".to_owned(),
                tool_version: "18.6".to_owned(),
                filtered: false,
                details: serde_json::json!({}),
                warnings: Vec::new(),
            },
            parts: Vec::new(),
            open_error: None,
            finish_error: None,
            log: Arc::default(),
        }
    }
}

impl ScriptedDumper {
    /// A dumper without parts so far.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a part.
    #[must_use]
    pub fn part(mut self, part: ScriptedPart) -> Self {
        self.parts.push(part);
        self
    }

    /// Changes what it says about its source.
    #[must_use]
    pub fn source(mut self, change: impl FnOnce(&mut SourceFacts)) -> Self {
        change(&mut self.source);
        self
    }

    /// Makes `open` fail.
    #[must_use]
    pub fn fails_to_open(mut self, kind: ErrorKind) -> Self {
        self.open_error = Some(kind);
        self
    }

    /// Makes `finish` fail.
    #[must_use]
    pub fn fails_to_finish(mut self, kind: ErrorKind) -> Self {
        self.finish_error = Some(kind);
        self
    }

    /// What happened.
    #[must_use]
    pub fn log(&self) -> Arc<DumpLog> {
        Arc::clone(&self.log)
    }

    /// The parts, for an inspector that knows them.
    #[must_use]
    pub(crate) fn parts(&self) -> &[ScriptedPart] {
        &self.parts
    }
}

#[async_trait]
impl Dumper for ScriptedDumper {
    async fn open(
        &self,
        _request: &DumpRequest,
        cancel: &CancellationToken,
    ) -> Result<Box<dyn DumpSession>, PortError> {
        if cancel.is_cancelled() {
            return Err(PortError::cancelled());
        }
        if let Some(kind) = self.open_error {
            return Err(PortError::new(kind, SCRIPTED));
        }
        self.log.open_sessions.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(Session {
            plans: self.parts.iter().map(|part| part.plan.clone()).collect(),
            dumper: self.clone(),
            finished: AtomicBool::new(false),
        }))
    }
}

#[derive(Debug)]
struct Session {
    plans: Vec<PartPlan>,
    dumper: ScriptedDumper,
    finished: AtomicBool,
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.finished.load(Ordering::SeqCst) {
            self.dumper.log.open_sessions.fetch_sub(1, Ordering::SeqCst);
            self.dumper.log.dropped.fetch_add(1, Ordering::SeqCst);
        }
    }
}

#[async_trait]
impl DumpSession for Session {
    fn source(&self) -> &SourceFacts {
        &self.dumper.source
    }

    fn parts(&self) -> &[PartPlan] {
        &self.plans
    }

    async fn part(
        &self,
        plan: &PartPlan,
        cancel: &CancellationToken,
    ) -> Result<PartStream, PortError> {
        let log = self.dumper.log();
        let nth = {
            let mut tries = lock(&log.tries);
            let count = tries.entry(plan.name.to_string()).or_default();
            *count += 1;
            *count
        };
        let part = self.dumper.parts.iter().find(|part| part.plan == *plan);
        let part = part.ok_or_else(|| {
            PortError::new(
                ErrorKind::Internal,
                format!("part {} was not planned", plan.name),
            )
        })?;
        let failure = part.failure(nth);
        if let Some(Failure::Refuse(kind)) = failure {
            return Err(PortError::new(kind, SCRIPTED));
        }
        let body = until_cancelled(failing(part, failure), cancel.clone());
        let report = match failure {
            Some(Failure::Report(kind)) => Err(kind),
            _ => Ok(part.report.clone()),
        };
        Ok(reported(counting(body, log), report))
    }

    async fn finish(&self) -> Result<(), PortError> {
        if !self.finished.swap(true, Ordering::SeqCst) {
            self.dumper.log.open_sessions.fetch_sub(1, Ordering::SeqCst);
            self.dumper.log.finished.fetch_add(1, Ordering::SeqCst);
        }
        match self.dumper.finish_error {
            Some(kind) => Err(PortError::new(kind, SCRIPTED)),
            None => Ok(()),
        }
    }
}

fn failing(part: &ScriptedPart, failure: Option<Failure>) -> BodyStream {
    let whole = || chunked(part.content.clone(), part.chunk);
    let first = |bytes: u64| {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        chunked(
            part.content.slice(..bytes.min(part.content.len())),
            part.chunk,
        )
    };
    match failure {
        None | Some(Failure::Refuse(_) | Failure::Report(_)) => whole(),
        Some(Failure::After(bytes, kind)) => first(bytes)
            .chain(stream::once(async move { Err(scripted(kind)) }))
            .boxed(),
        Some(Failure::HangAfter(bytes)) => first(bytes).chain(stream::pending()).boxed(),
        Some(Failure::PanicAfter(bytes)) => {
            first(bytes).chain(bodies::panicking(Bytes::new())).boxed()
        }
    }
}

/// Ends with `Cancelled` as soon as the token says so, as a killed tool's body does.
fn until_cancelled(body: BodyStream, cancel: CancellationToken) -> BodyStream {
    stream::unfold(Some((body, cancel)), |state| async move {
        let (mut body, cancel) = state?;
        let item = tokio::select! {
            biased;
            () = cancel.cancelled() => Some(Err(PortError::cancelled().into_io())),
            item = body.next() => item,
        }?;
        let next = item.is_ok().then_some((body, cancel));
        Some((item, next))
    })
    .boxed()
}

struct Running(Arc<DumpLog>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running_bodies.fetch_sub(1, Ordering::SeqCst);
    }
}

fn counting(body: BodyStream, log: Arc<DumpLog>) -> BodyStream {
    let now = log.running_bodies.fetch_add(1, Ordering::SeqCst) + 1;
    log.most_bodies.fetch_max(now, Ordering::SeqCst);
    let running = Running(log);
    body.inspect(move |_| {
        let _ = &running;
    })
    .boxed()
}

/// A body and a report that is ready when the body has ended without an error.
pub(crate) fn reported(body: BodyStream, report: Result<PartReport, ErrorKind>) -> PartStream {
    let (sender, receiver) = oneshot::channel();
    let state = Some((body, sender));
    let body = stream::unfold(state, |state| async move {
        let (mut body, sender) = state?;
        match body.next().await {
            None => {
                let _ = sender.send(());
                None
            }
            Some(Ok(chunk)) => Some((Ok(chunk), Some((body, sender)))),
            Some(Err(e)) => Some((Err(e), None)),
        }
    });
    let report = async move {
        let unfinished =
            |_| PortError::new(ErrorKind::Internal, "the body did not end without an error");
        receiver.await.map_err(unfinished)?;
        report.map_err(|kind| PortError::new(kind, SCRIPTED))
    };
    PartStream {
        body: body.boxed(),
        report: Box::pin(report),
    }
}
