//! Starts what schedules ask for. Several servers may look after the same places: each slot is run
//! by the one that gets its turn in the store, and the others see its records.

mod claim;
mod planner;

use std::collections::BTreeMap;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backup_core::backup::SourceName;
use backup_core::clock::Clock;
use backup_core::run_record::Operation;
use backup_schedule::DueRun;
use chrono::{DateTime, Utc};
use futures::FutureExt as _;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::compose::App;
use crate::error::AppError;
use crate::jobs::{JobRefusal, JobView, Jobs, Order, SCHEDULE, Work};
use crate::place::Place;
use crate::schedules::Scheduled;
use crate::text::{shown, time};
use claim::Claim;
use planner::{Errand, Planner};

/// How often the clock is looked at.
const EVERY: Duration = Duration::from_secs(15);

/// How long jobs may take to end once somebody wants us to stop.
const GRACE: Duration = Duration::from_secs(40);

/// How many slots were missed, by operation and source.
pub type MissedSlots = BTreeMap<(String, Option<String>), u64>;

/// Looks at the clock, and has jobs begun.
pub struct Scheduler {
    app: Arc<App>,
    jobs: Jobs,
    clock: Arc<dyn Clock>,
    planner: Planner,
    missed: Arc<Mutex<MissedSlots>>,
}

impl fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scheduler").finish_non_exhaustive()
    }
}

/// What became of an errand.
#[derive(Debug)]
enum Done {
    /// The slot was run, here or elsewhere.
    Settled(DateTime<Utc>),
    /// There was nothing to run, or it cannot begin now.
    Later,
}

impl Scheduler {
    /// Of all that is scheduled, from now on.
    ///
    /// # Errors
    /// None: loading the configuration has found them all.
    pub fn new(app: Arc<App>, jobs: Jobs, clock: Arc<dyn Clock>) -> Result<Self, AppError> {
        let planner = Planner::new(app.schedules()?, clock.now());
        Ok(Self {
            app,
            jobs,
            clock,
            planner,
            missed: Arc::default(),
        })
    }

    /// The slots that were missed so far, for whoever shows them.
    #[must_use]
    pub fn missed(&self) -> Arc<Mutex<MissedSlots>> {
        Arc::clone(&self.missed)
    }

    /// Has everything begun that is due, until `stop`. What was run before is read from the
    /// records first. Jobs are not stopped by that.
    pub async fn run(mut self, stop: CancellationToken) {
        if self.planner.is_empty() {
            return;
        }
        let mut unread = self.recall(self.app.places().unwrap_or_default()).await;
        for place in &unread {
            let place = shown(&place.name);
            tracing::warn!(target: "backup", "{place}: what ran by schedule is not known; it is asked again");
        }
        let mut errands: JoinSet<(usize, Done)> = JoinSet::new();
        loop {
            for errand in self.planner.tick(self.clock.now()) {
                let runner = self.runner(&errand);
                let stop = stop.clone();
                errands.spawn(async move {
                    let index = errand.index;
                    let running = AssertUnwindSafe(runner.run(errand, &stop)).catch_unwind();
                    // A schedule is not switched off by a mistake of ours.
                    let done = running.await.unwrap_or_else(|_| {
                        tracing::error!(target: "backup", "a scheduled run died");
                        Done::Later
                    });
                    (index, done)
                });
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(EVERY) => unread = self.recall(unread).await,
                Some(Ok((index, done))) = errands.join_next() => {
                    self.planner.back(index, match done {
                        Done::Settled(slot) => Some(slot),
                        Done::Later => None,
                    });
                    if matches!(done, Done::Later) {
                        // Not at once again.
                        self.pause(&stop).await;
                    }
                }
            }
        }
        // Whoever stops us stops the jobs too. With their end, turns are given back.
        let back = async { while errands.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(GRACE, back).await;
    }

    /// Reads from places which slots were run; those that do not answer are given back.
    async fn recall(&mut self, places: Vec<Place>) -> Vec<Place> {
        if places.is_empty() {
            return places;
        }
        let schedules = self.planner.schedules();
        let now = self.clock.now();
        let (slots, unread) = self.app.slots_of(&schedules, places, now).await;
        for found in slots {
            let source = found.source.as_deref();
            self.planner.recall(&found.operation, source, found.slot);
        }
        unread
    }

    async fn pause(&self, stop: &CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    }

    fn runner(&self, errand: &Errand) -> Runner {
        Runner {
            app: Arc::clone(&self.app),
            jobs: self.jobs.clone(),
            scheduled: self.planner.scheduled(errand.index).clone(),
            missed: Arc::clone(&self.missed),
        }
    }
}

/// Sees to one schedule.
struct Runner {
    app: Arc<App>,
    jobs: Jobs,
    scheduled: Scheduled,
    missed: Arc<Mutex<MissedSlots>>,
}

impl Runner {
    async fn run(&self, errand: Errand, stop: &CancellationToken) -> Done {
        self.tell_missed(&errand).await;
        let Some(due) = errand.due else {
            return Done::Later;
        };
        let what = self.name();
        let claimed = self.app.claim(&self.scheduled, due.slot, stop).await;
        let lease = match claimed {
            Claim::Done => {
                tracing::info!(target: "backup", "{what} of {} was run by another server", time(due.slot));
                return Done::Settled(due.slot);
            }
            Claim::GivenUp => {
                let slot = time(due.slot);
                tracing::error!(
                    target: "backup",
                    "{what} of {slot}: given up, since every server that began it died with it",
                );
                self.count_missed(1);
                return Done::Settled(due.slot);
            }
            Claim::Stopped | Claim::Lost => return Done::Later,
            Claim::Ours(lease) => lease,
        };
        let done = self.job(due, stop).await;
        if let Some(lease) = lease {
            // Where that does not go, the slot is run once more after a restart.
            let _ = match done {
                Done::Settled(slot) => lease.settle(slot).await,
                Done::Later => lease.postpone(due.slot).await,
            };
        }
        done
    }

    /// The job, from its beginning to its end.
    async fn job(&self, due: DueRun, stop: &CancellationToken) -> Done {
        let what = self.name();
        let Some(work) = self.work() else {
            return Done::Settled(due.slot);
        };
        let order = Order {
            work,
            by: SCHEDULE.to_owned(),
            slot: Some(due.slot),
        };
        let job = match self.jobs.start(order) {
            Ok(job) => job,
            Err(JobRefusal::Running { id }) => {
                // Somebody asked for it just now. The slot is run after that, if there is time.
                tracing::info!(target: "backup", "{what} waits for job {id}");
                self.ended(&id).await;
                return Done::Later;
            }
            Err(_) => return Done::Later,
        };
        let late = if due.made_up { ", made up for" } else { "" };
        tracing::info!(target: "backup", job = job.id, "{what} of {}{late}: begun", time(due.slot));
        let state = self.ended(&job.id).await;
        if let Some(state) = state {
            tracing::info!(target: "backup", job = job.id, "{what} of {}: {state}", time(due.slot));
        }
        // What was stopped with this server is made up for; what a person stopped is not.
        let is_done = state.is_some_and(|state| JobView::DONE.contains(&state));
        if stop.is_cancelled() && !is_done {
            return Done::Later;
        }
        Done::Settled(due.slot)
    }

    /// Waits for the end of a job.
    async fn ended(&self, id: &str) -> Option<&'static str> {
        let mut watch = self.jobs.watch(id)?;
        let view = watch.wait_for(JobView::is_over).await.ok()?;
        Some(view.state)
    }

    /// Says once of each slot that it did not run, unless another server ran it.
    async fn tell_missed(&self, errand: &Errand) {
        let Some(first) = errand.missed.first() else {
            return;
        };
        let ran = self.app.slots_since(&self.scheduled, first.slot).await;
        let missed = errand.missed.iter();
        let missed: Vec<_> = missed
            .filter(|missed| !ran.contains(&missed.slot))
            .collect();
        let Some(last) = missed.last() else {
            return;
        };
        self.count_missed(missed.len() as u64);
        let more = if errand.more_missed { " and more" } else { "" };
        tracing::warn!(
            target: "backup",
            "{}: {} missed{more}, the last {}",
            self.name(),
            crate::text::counted(missed.len() as u64, "slot"),
            time(last.slot),
        );
    }

    fn count_missed(&self, slots: u64) {
        let operation = self.scheduled.operation.to_string();
        let of = (operation, self.scheduled.source.clone());
        let mut all = self.missed.lock().unwrap_or_else(PoisonError::into_inner);
        *all.entry(of).or_default() += slots;
    }

    fn name(&self) -> String {
        let operation = &self.scheduled.operation;
        match &self.scheduled.source {
            Some(source) => format!("scheduled {operation} of {}", shown(source)),
            None => format!("scheduled {operation}"),
        }
    }

    fn work(&self) -> Option<Work> {
        match (&self.scheduled.operation, &self.scheduled.source) {
            (Operation::Backup, Some(source)) => {
                let source = SourceName::new(source).ok()?;
                Some(Work::Backup { source })
            }
            (Operation::Verify, _) => Some(Work::VerifyDue),
            (Operation::Drill, _) => Some(Work::DrillDue),
            (Operation::Prune, _) => Some(Work::Prune),
            _ => None,
        }
    }
}
