//! What places say of slots: which were run, and whose turn it is to run one.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use backup_core::backup::SourceName;
use backup_core::clock::Clock as _;
use backup_core::error::{Error as CoreError, chain};
use backup_core::history::HistoryRequest;
use backup_core::lease::{Lease, SlotMark};
use backup_core::observer::NoopObserver;
use backup_core::run_record::{Operation, RunRecord, RunResult};
use chrono::{DateTime, TimeDelta, Utc};
use futures::future::{join_all, try_join_all};
use tokio_util::sync::CancellationToken;

use super::planner::concerns;
use crate::clock::SystemClock;
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

/// How often a slot is begun by servers that die with it.
const MOST_BEGUN: u32 = 3;

/// A slot that was run.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) operation: Operation,
    pub(super) source: Option<String>,
    pub(super) slot: DateTime<Utc>,
}

impl Record {
    /// A run that was stopped, maybe with its server, settles nothing: else the night's backup would be
    /// lost by a restart. That of one database of several does not either, nor that of one backup of
    /// all: those are settled by the lease of their schedule, when everything is over.
    fn new(run: RunRecord) -> Option<Self> {
        let slot = run.slot?;
        let is_over = !matches!(run.result, RunResult::Cancelled | RunResult::Interrupted);
        (run.operation == Operation::Backup && is_over).then_some(Self {
            operation: run.operation,
            source: run.source.map(|source| source.to_string()),
            slot,
        })
    }

    /// Whether it is about this schedule.
    fn is_of(&self, scheduled: &Scheduled) -> bool {
        concerns(scheduled, &self.operation, self.source.as_deref())
    }
}

/// Whose a slot is.
#[derive(Debug)]
pub(super) enum Claim {
    /// Ours. Without a lease, no place could give one.
    Ours(Option<Lease>),
    /// It was run.
    Done,
    /// It was begun too often by servers that died with it.
    GivenUp,
    /// Another server had it, and ended without having run it.
    Lost,
    /// Somebody wants us to stop.
    Stopped,
}

impl App {
    /// All slots that places tell of, in the order in which they were run, and the places that did
    /// not answer.
    pub(super) async fn slots_of(
        &self,
        schedules: &[Scheduled],
        places: Vec<Place>,
        now: DateTime<Utc>,
    ) -> (Vec<Record>, Vec<Place>) {
        let readings = places.iter().map(|place| async move {
            let reading = async {
                let mut slots = self.slots_run(place, now - REMEMBERED).await?;
                slots.extend(self.slots_settled(schedules, place).await?);
                Ok(slots)
            };
            let reading = tokio::time::timeout(LIMIT, reading);
            reading.await.unwrap_or(Err(AppError::Timeout(LIMIT)))
        });
        let found = join_all(readings).await;
        let (mut slots, mut unread) = (Vec::new(), Vec::new());
        for (place, found) in places.into_iter().zip(found) {
            match found {
                Ok(found) => slots.extend(found),
                Err(error) => {
                    let (name, why) = (shown(&place.name), shown(&chain(&error)));
                    tracing::debug!(target: "backup", "{name}: what ran by schedule is not known: {why}");
                    unread.push(place);
                }
            }
        }
        slots.sort_by_key(|found| found.slot);
        (slots, unread)
    }

    /// The slots of one schedule from `first` on that were run, by anybody.
    pub(super) async fn slots_since(
        &self,
        scheduled: &Scheduled,
        first: DateTime<Utc>,
    ) -> BTreeSet<DateTime<Utc>> {
        let mut slots = BTreeSet::new();
        for place in self.places_of_scheduled(scheduled) {
            let reading = tokio::time::timeout(LIMIT, self.slots_run(&place, first - APART));
            let found = reading.await.unwrap_or(Err(AppError::Timeout(LIMIT)));
            let own = found.unwrap_or_default().into_iter();
            slots.extend(
                own.filter(|found| found.is_of(scheduled))
                    .map(|found| found.slot),
            );
            let reading = tokio::time::timeout(LIMIT, self.mark_of(scheduled, &place));
            if let Ok(Ok(Some(mark))) = reading.await
                && mark.settled
            {
                slots.insert(mark.at);
            }
        }
        slots
    }

    /// The slots that the records of one place tell of.
    async fn slots_run(
        &self,
        place: &Place,
        since: DateTime<Utc>,
    ) -> Result<Vec<Record>, AppError> {
        let lister = self.lister(place).await?;
        let request = HistoryRequest {
            since: Some(since),
            operation: Some(Operation::Backup),
            ..HistoryRequest::default()
        };
        let listing = lister.engine.history().list(&request).await?;
        Ok(listing.runs.into_iter().filter_map(Record::new).collect())
    }

    /// The slots that the leases of schedules tell of at one place.
    async fn slots_settled(
        &self,
        schedules: &[Scheduled],
        place: &Place,
    ) -> Result<Vec<Record>, AppError> {
        let here = schedules.iter().filter(|scheduled| {
            let places = self.places_of_scheduled(scheduled);
            places.iter().any(|other| other.name == place.name)
        });
        let marks = try_join_all(here.map(|scheduled| async move {
            let mark = self.mark_of(scheduled, place).await?;
            Ok::<_, AppError>(mark.map(|mark| (scheduled, mark)))
        }));
        let record = |(scheduled, mark): (&Scheduled, SlotMark)| Record {
            operation: scheduled.operation.clone(),
            source: scheduled.source.clone(),
            slot: settled_until(&mark),
        };
        Ok(marks.await?.into_iter().flatten().map(record).collect())
    }

    async fn mark_of(
        &self,
        scheduled: &Scheduled,
        place: &Place,
    ) -> Result<Option<SlotMark>, AppError> {
        let Some(name) = lease_name(scheduled) else {
            return Ok(None);
        };
        let engine = self.engine(place, Keys::None, Arc::new(NoopObserver))?;
        Ok(engine.slot(&name).await?)
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
                taken = self.take_slot(scheduled, slot, stop) => taken,
                () = stop.cancelled() => return Claim::Stopped,
            };
            match lease {
                Err(CoreError::Held { .. }) => waited = true,
                Err(_) => return Claim::Stopped,
                Ok(lease) => {
                    return match self.taken(scheduled, (slot, waited), lease.as_ref()).await {
                        Taken::Ours => Claim::Ours(lease),
                        taken => end_of(taken, (lease, slot)).await,
                    };
                }
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = stop.cancelled() => return Claim::Stopped,
            }
        }
    }

    async fn taken(
        &self,
        scheduled: &Scheduled,
        (slot, waited): (DateTime<Utc>, bool),
        lease: Option<&Lease>,
    ) -> Taken {
        let mark = match lease {
            Some(lease) => lease.slot().await,
            None => None,
        };
        let is_over = mark.is_some_and(|mark| mark.settles(slot, SystemClock.now()));
        if is_over || self.slots_since(scheduled, slot).await.contains(&slot) {
            Taken::Over
        } else if mark.is_some_and(|mark| mark.at == slot && mark.begun > MOST_BEGUN) {
            Taken::TooOften
        } else if waited {
            Taken::Lost
        } else {
            Taken::Ours
        }
    }

    /// The lease of a schedule, from the first place that gives one. None where no place does: then
    /// only the lease of the work itself keeps two apart.
    async fn take_slot(
        &self,
        scheduled: &Scheduled,
        slot: DateTime<Utc>,
        stop: &CancellationToken,
    ) -> Result<Option<Lease>, CoreError> {
        let Some(name) = lease_name(scheduled) else {
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
            let taking = engine.hold_slot(&name, operation, slot, stop);
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

/// Until when everything is settled. A slot that was begun and is not over is still to be run, though
/// this process was not there when it came.
fn settled_until(mark: &SlotMark) -> DateTime<Utc> {
    if mark.settled {
        mark.at
    } else {
        mark.at - TimeDelta::milliseconds(1)
    }
}

/// What is found once the turn is taken.
enum Taken {
    Ours,
    Over,
    TooOften,
    Lost,
}

/// Gives a turn back that nothing is done with.
async fn end_of(taken: Taken, (lease, slot): (Option<Lease>, DateTime<Utc>)) -> Claim {
    let is_over = matches!(taken, Taken::Over | Taken::TooOften);
    if let Some(lease) = lease {
        let _ = if is_over {
            lease.settle(slot).await
        } else {
            lease.postpone(slot).await
        };
    }
    match taken {
        Taken::Over => Claim::Done,
        Taken::TooOften => Claim::GivenUp,
        Taken::Lost | Taken::Ours => Claim::Lost,
    }
}

/// Under which name the lease of a schedule is kept.
fn lease_name(scheduled: &Scheduled) -> Option<SourceName> {
    let name = match &scheduled.source {
        Some(source) => source.clone(),
        // No configured source has a name with a slash.
        None => format!("all/{}", scheduled.operation),
    };
    SourceName::new(name).ok()
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use backup_config::Environment;

    use super::*;
    use crate::compose::Overrides;
    use crate::who::who;

    fn slot() -> DateTime<Utc> {
        "2026-03-02T03:00:00Z".parse().unwrap()
    }

    /// What dies with a server does so every time.
    #[tokio::test]
    async fn a_slot_that_servers_die_with_is_given_up_and_one_that_was_run_is_done() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("backup.toml");
        let text = format!(
            "[encryption]\nmode = 'none'\n[destination.near]\nurl = 'file://{}'\n\
             [source.shop]\ndatabase = 'shop'\nschedule = '0 3 * * *'\n",
            folder.path().join("store").display()
        );
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        let app = App::load(Some(&file), Environment::default(), Overrides::default()).unwrap();
        let schedules = app.schedules().unwrap();
        let stop = CancellationToken::new();
        let claim = async |slot| app.claim(&schedules[0], slot, &stop).await;
        let ours = async |slot| match claim(slot).await {
            Claim::Ours(Some(lease)) => lease,
            other => panic!("{other:?}"),
        };
        // One that ends in good order counts for nothing.
        ours(slot()).await.postpone(slot()).await.unwrap();
        for _ in 0..MOST_BEGUN {
            drop(ours(slot()).await);
        }
        assert!(matches!(claim(slot()).await, Claim::GivenUp));
        assert!(matches!(claim(slot()).await, Claim::Done));
        // Until it is over, a slot is still to be run after a restart.
        let next = slot() + TimeDelta::days(1);
        let lease = ours(next).await;
        let places = || app.places().unwrap();
        let (found, unread) = app.slots_of(&schedules, places(), next).await;
        assert!(unread.is_empty() && found[0].slot < next, "{found:?}");
        lease.settle(next).await.unwrap();
        let (found, _) = app.slots_of(&schedules, places(), next).await;
        assert_eq!(found[0].slot, next);
        assert!(matches!(claim(next).await, Claim::Done));
    }

    #[test]
    fn a_run_that_was_stopped_settles_nothing() {
        let slot = slot();
        for (result, settles) in [
            (RunResult::Success, true),
            (RunResult::Warnings, true),
            (RunResult::Failed, true),
            (RunResult::Interrupted, false),
            (RunResult::Cancelled, false),
        ] {
            let mut run = RunRecord::begin(Operation::Backup, who(), slot);
            run.result = result;
            assert!(Record::new(run.clone()).is_none(), "it had no slot");
            run.slot = Some(slot);
            let found = Record::new(run.clone()).map(|record| record.slot);
            assert_eq!(found, settles.then_some(slot), "{result:?}");
            run.operation = Operation::Prune;
            assert!(Record::new(run).is_none(), "it is one of several");
        }
    }
}
