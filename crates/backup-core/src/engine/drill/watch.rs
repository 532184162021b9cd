//! Looks over a restorer's shoulder: what the backup holds, and how long each step takes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use tokio_util::sync::CancellationToken;

use super::DrillStep;
use crate::clock::Clock;
use crate::engine::CompareReport;
use crate::error::PortError;
use crate::facts::{Fingerprint, Scope, TableName};
use crate::restorer::{LoadReport, PartReader, ReadBack, RestoreRequest, RestoreSession, Restorer};

/// One table of a rehearsal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableResult {
    /// Which.
    pub table: TableName,
    /// As dumped.
    pub dumped: Fingerprint,
    /// What came of it.
    pub state: TableState,
}

/// What came of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TableState {
    /// It came back as it was.
    Equal,
    /// With other content.
    Different(Fingerprint),
    /// Not at all.
    Missing,
    /// It cannot be read.
    Unreadable(String),
    /// It did not come to a comparison.
    NotCompared,
}

/// What the backup holds with what became of it, the largest first, differences before all.
pub(super) fn tables(
    dumped: &BTreeMap<TableName, Fingerprint>,
    report: Option<&CompareReport>,
) -> Vec<TableResult> {
    let mut wrong = BTreeMap::new();
    if let Some(report) = report {
        for found in &report.different {
            wrong.insert(&found.table, TableState::Different(found.restored));
        }
        for table in &report.missing {
            wrong.insert(table, TableState::Missing);
        }
        for found in &report.not_comparable {
            wrong.insert(&found.table, TableState::Unreadable(found.reason.clone()));
        }
    }
    let good = match report {
        Some(_) => TableState::Equal,
        None => TableState::NotCompared,
    };
    let mut tables: Vec<_> = dumped
        .iter()
        .map(|(table, dumped)| TableResult {
            table: table.clone(),
            dumped: *dumped,
            state: wrong.remove(table).unwrap_or_else(|| good.clone()),
        })
        .collect();
    tables.sort_by_key(|found| (found.state == good, std::cmp::Reverse(found.dumped.bytes)));
    tables
}

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) tables: BTreeMap<TableName, Fingerprint>,
    created: Option<DateTime<Utc>>,
    /// How long the load took, also one that failed.
    pub(super) load: Option<TimeDelta>,
    /// Whether it succeeded.
    pub(super) loaded: bool,
    compare: Option<DateTime<Utc>>,
}

impl Seen {
    /// The steps of a restore that began and ended then.
    pub(super) fn steps(
        &self,
        begun: DateTime<Utc>,
        finished: DateTime<Utc>,
    ) -> impl Iterator<Item = DrillStep> {
        let step = |name, took: Option<TimeDelta>| took.map(|took| DrillStep { name, took });
        [
            step(
                "open it, create the database",
                self.created.map(|at| at - begun),
            ),
            step("load", self.load),
            step(
                "compare with the dump",
                self.compare.map(|at| finished - at),
            ),
        ]
        .into_iter()
        .flatten()
    }
}

/// A restorer that is watched.
#[derive(Debug)]
pub(super) struct Watch<'a> {
    inner: &'a dyn Restorer,
    clock: Arc<dyn Clock>,
    seen: Arc<Mutex<Seen>>,
}

impl<'a> Watch<'a> {
    pub(super) fn new(inner: &'a dyn Restorer, clock: Arc<dyn Clock>) -> Self {
        Self {
            inner,
            clock,
            seen: Arc::default(),
        }
    }

    /// What was seen until now.
    pub(super) fn into_seen(self) -> Seen {
        std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl Restorer for Watch<'_> {
    async fn create(
        &self,
        request: &RestoreRequest,
        parts: Arc<dyn PartReader>,
        cancel: &CancellationToken,
    ) -> Result<Box<dyn RestoreSession>, PortError> {
        let tables = parts.facts().tables().into_values();
        let tables = tables
            .map(|facts| (facts.table, facts.fingerprint))
            .collect();
        lock(&self.seen).tables = tables;
        let inner = self.inner.create(request, parts, cancel).await?;
        lock(&self.seen).created = Some(self.clock.now());
        Ok(Box::new(WatchedSession {
            inner,
            clock: Arc::clone(&self.clock),
            seen: Arc::clone(&self.seen),
        }))
    }
}

#[derive(Debug)]
struct WatchedSession {
    inner: Box<dyn RestoreSession>,
    clock: Arc<dyn Clock>,
    seen: Arc<Mutex<Seen>>,
}

#[async_trait]
impl RestoreSession for WatchedSession {
    fn scope(&self) -> Scope {
        self.inner.scope()
    }

    async fn load(&self, cancel: &CancellationToken) -> Result<LoadReport, PortError> {
        let begun = self.clock.now();
        let done = self.inner.load(cancel).await;
        let mut seen = lock(&self.seen);
        seen.load = Some(self.clock.now() - begun);
        seen.loaded = done.is_ok();
        done
    }

    async fn read_back(&self, cancel: &CancellationToken) -> Result<ReadBack, PortError> {
        lock(&self.seen).compare = Some(self.clock.now());
        self.inner.read_back(cancel).await
    }

    async fn discard(&self) -> Result<(), PortError> {
        self.inner.discard().await
    }
}

fn lock(seen: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
