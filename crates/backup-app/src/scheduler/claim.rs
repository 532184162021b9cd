//! What places say of slots: which were run, and whose turn it is to run one.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use backup_core::backup::SourceName;
use backup_core::error::{Error as CoreError, chain};
use backup_core::history::HistoryRequest;
use backup_core::lease::{Lease, LeaseKind};
use backup_core::observer::NoopObserver;
use backup_core::run_record::{Operation, RunRecord, RunResult};
use chrono::{DateTime, TimeDelta, Utc};
use futures::future::join_all;
use tokio_util::sync::CancellationToken;

use super::planner::concerns;
use crate::compose::App;
use crate::error::AppError;
use crate::keys::Keys;
use crate::place::Place;
use crate::schedules::Scheduled;
use crate::text::shown;

/// How far back records tell which slots were run.
const REMEMBERED: TimeDelta = TimeDelta::days(40);

/// By how much the clocks of servers may differ.
const APART: TimeDelta = TimeDelta::minutes(10);

/// How long a place may take to answer. A backup is taken also if it does not.
const LIMIT: Duration = Duration::from_secs(30);

/// How often a server that waits for another looks.
const LOOK: Duration = Duration::from_secs(15);

/// A slot that was run.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) operation: Operation,
    pub(super) source: Option<SourceName>,
    pub(super) slot: DateTime<Utc>,
}

impl Record {
    /// A run that was stopped, maybe with its server, settles nothing: else the night's backup would be
    /// lost by a restart.
    fn new(run: RunRecord) -> Option<Self> {
        let slot = run.slot?;
        (run.result != RunResult::Cancelled).then_some(Self {
            operation: run.operation,
            source: run.source,
            slot,
        })
    }
}

/// Whose a slot is.
#[derive(Debug)]
pub(super) enum Claim {
    /// Ours. Without a lease, no place could give one.
    Ours(Option<Lease>),
    /// It was run.
    Done,
    /// Another server had it, and ended without having run it.
    Lost,
    /// Somebody wants us to stop.
    Stopped,
}

impl App {
    /// All slots that the records of places tell of, in the order in which they were run, and the
    /// places that did not answer.
    pub(super) async fn records_of_slots(
        &self,
        places: Vec<Place>,
        now: DateTime<Utc>,
    ) -> (Vec<Record>, Vec<Place>) {
        let readings = places.iter().map(|place| async move {
            let reading = tokio::time::timeout(LIMIT, self.runs_since(place, now - REMEMBERED));
            reading.await.unwrap_or(Err(AppError::Timeout(LIMIT)))
        });
        let found = join_all(readings).await;
        let (mut runs, mut unread) = (Vec::new(), Vec::new());
        for (place, found) in places.into_iter().zip(found) {
            match found {
                Ok(found) => runs.extend(found),
                Err(error) => {
                    let (name, why) = (shown(&place.name), shown(&chain(&error)));
                    tracing::debug!(target: "backup", "{name}: what ran by schedule is not known: {why}");
                    unread.push(place);
                }
            }
        }
        runs.sort_by(|a, b| a.id.cmp(&b.id));
        (runs.into_iter().filter_map(Record::new).collect(), unread)
    }

    /// The slots of one schedule from `first` on that were run, by anybody.
    pub(super) async fn slots_since(
        &self,
        scheduled: &Scheduled,
        first: DateTime<Utc>,
    ) -> BTreeSet<DateTime<Utc>> {
        let mut slots = BTreeSet::new();
        for place in self.places_of_scheduled(scheduled) {
            let reading = tokio::time::timeout(LIMIT, self.runs_since(&place, first - APART));
            let runs = reading.await.unwrap_or(Err(AppError::Timeout(LIMIT)));
            let records = runs.unwrap_or_default().into_iter().filter_map(Record::new);
            let own = records
                .filter(|found| concerns(scheduled, &found.operation, found.source.as_ref()));
            slots.extend(own.map(|found| found.slot));
        }
        slots
    }

    async fn runs_since(
        &self,
        place: &Place,
        since: DateTime<Utc>,
    ) -> Result<Vec<RunRecord>, AppError> {
        let lister = self.lister(place).await?;
        let request = HistoryRequest {
            since: Some(since),
            ..HistoryRequest::default()
        };
        Ok(lister.engine.history().list(&request).await?.runs)
    }

    fn places_of_scheduled(&self, scheduled: &Scheduled) -> Vec<Place> {
        let source = scheduled.source.as_deref().map(SourceName::new);
        let places = match source {
            Some(Ok(source)) => self.places_of_source(&source),
            _ => self.places(),
        };
        places.unwrap_or_default()
    }

    /// Takes the turn to run a slot, or waits until the server that has it has run it.
    pub(super) async fn claim(
        &self,
        scheduled: &Scheduled,
        slot: DateTime<Utc>,
        stop: &CancellationToken,
    ) -> Claim {
        let mut waited = false;
        loop {
            let lease = tokio::select! {
                taken = self.take_slot(scheduled, stop) => taken,
                () = stop.cancelled() => return Claim::Stopped,
            };
            match lease {
                Err(CoreError::Held { .. }) => waited = true,
                Err(_) => return Claim::Stopped,
                Ok(lease) => {
                    let is_done = self.slots_since(scheduled, slot).await.contains(&slot);
                    if !is_done && !waited {
                        return Claim::Ours(lease);
                    }
                    if let Some(lease) = lease {
                        let _ = lease.release().await;
                    }
                    return if is_done { Claim::Done } else { Claim::Lost };
                }
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = stop.cancelled() => return Claim::Stopped,
            }
        }
    }

    /// The lease of a schedule, from the first place that gives one. None where no place does: then
    /// only the lease of the work itself keeps two apart.
    async fn take_slot(
        &self,
        scheduled: &Scheduled,
        stop: &CancellationToken,
    ) -> Result<Option<Lease>, CoreError> {
        let name = match &scheduled.source {
            Some(source) => source.clone(),
            // No configured source has a name with a slash.
            None => format!("all/{}", scheduled.operation),
        };
        let Ok(name) = SourceName::new(name) else {
            return Ok(None);
        };
        let keys = match scheduled.operation {
            // The first backup makes the place.
            Operation::Backup => Keys::Recipients,
            _ => Keys::None,
        };
        for place in self.places_of_scheduled(scheduled) {
            let Ok(engine) = self.engine(&place, keys, Arc::new(NoopObserver)) else {
                continue;
            };
            let operation = scheduled.operation.clone();
            let taking = engine.hold(LeaseKind::Schedule, &name, operation, stop);
            match tokio::time::timeout(LIMIT, taking).await {
                Ok(Ok(lease)) => return Ok(lease),
                Ok(Err(held @ (CoreError::Held { .. } | CoreError::Cancelled))) => {
                    return Err(held);
                }
                Ok(Err(error)) => {
                    let (place, why) = (shown(&place.name), shown(&chain(&error)));
                    tracing::warn!(target: "backup", "{place}: no turn for a schedule: {why}");
                }
                Err(_) => {}
            }
        }
        Ok(None)
    }
}
