//! All work that a process does for others: what people asked for over HTTP, and what schedules ask
//! for. It is queued within limits, tells how far it is, and can be stopped.

mod backups;
mod due;
mod progress;
mod running;
mod view;
mod work;

use std::collections::BTreeMap;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use backup_core::backup::{BackupId, SourceName};
use backup_core::clock::Clock as _;
use backup_core::engine::VerifyLevel;
use backup_core::restorer::Selection;
use backup_core::run_record::{Operation, RunId};
use backup_core::sandbox::SandboxAccess;
use chrono::{DateTime, Utc};
use futures::FutureExt as _;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::SystemClock;
use crate::compose::App;
use running::Running;
pub use view::{JobError, JobView, SandboxView};
use view::{State, is_final};
use work::AppWorker;

pub use backup_config::SCHEDULE;

/// How many orders of people may wait.
const WAITING: usize = 64;

/// How many orders of one person may wait.
const WAITING_OF_ONE: usize = 4;

/// How many jobs that have ended are remembered.
const ENDED: usize = 200;

/// How many jobs of a kind run at once. How many backups do, [`BackupQueue`](crate::BackupQueue) says.
const DRILLS: usize = 1;
const VERIFICATIONS: usize = 2;
const SANDBOXES: usize = 2;
const PRUNES: usize = 1;

/// What somebody wants to be done.
#[derive(Debug, Clone)]
pub struct Order {
    /// What.
    pub work: Work,
    /// The person, or [`SCHEDULE`].
    pub by: String,
    /// The moment of the schedule that asks for it.
    pub slot: Option<DateTime<Utc>>,
}

/// What can be ordered.
#[derive(Debug, Clone)]
pub enum Work {
    /// A backup; of a source that stands for several databases, one of each.
    Backup {
        /// Of what.
        source: SourceName,
    },
    /// Proving one backup.
    Verify {
        /// Of what.
        source: SourceName,
        /// Which.
        backup: BackupId,
        /// How deeply.
        level: VerifyLevel,
    },
    /// Rehearsing the restore of one backup.
    Drill {
        /// Of what.
        source: SourceName,
        /// Which.
        backup: BackupId,
    },
    /// A database in which somebody can look into a backup.
    Sandbox {
        /// Of what.
        source: SourceName,
        /// Which.
        backup: BackupId,
        /// What of it.
        selection: Selection,
    },
    /// Proving some backups of each place.
    VerifyDue,
    /// Rehearsing the restore of the source that was not for the longest time.
    DrillDue,
    /// Letting old backups of all sources go.
    Prune,
}

/// Why an order is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JobRefusal {
    /// Too much waits already.
    #[error("{waiting} orders are waiting already")]
    TooMany {
        /// How much.
        waiting: usize,
    },
    /// The same is being done, or waits for its turn.
    #[error("job {id} does the same already")]
    Running {
        /// The job that does it.
        id: String,
    },
    /// Another sandbox is being made for the same person, who gets one at a time.
    #[error("job {id} makes another sandbox of the same person")]
    OneAtATime {
        /// The job that makes it.
        id: String,
    },
    /// No server for sandboxes is configured.
    #[error("no server for sandboxes is configured")]
    NoSandboxes,
    /// The process is about to end.
    #[error("the server is about to stop")]
    Stopping,
}

/// What is the same is done once at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Sameness {
    Backup(SourceName),
    Verify(SourceName, BackupId, VerifyLevel),
    Drill(SourceName, BackupId),
    /// A server makes one at a time for a person, whatever is in it.
    Sandbox {
        by: String,
        source: SourceName,
        backup: BackupId,
        selection: Selection,
    },
    ForAll(&'static str),
}

impl Work {
    /// The operation of its records.
    #[must_use]
    pub fn operation(&self) -> Operation {
        match self {
            Self::Backup { .. } => Operation::Backup,
            Self::Verify { .. } | Self::VerifyDue => Operation::Verify,
            Self::Drill { .. } | Self::DrillDue => Operation::Drill,
            Self::Sandbox { .. } => Operation::Restore,
            Self::Prune => Operation::Prune,
        }
    }

    fn source(&self) -> Option<&SourceName> {
        match self {
            Self::Backup { source }
            | Self::Verify { source, .. }
            | Self::Drill { source, .. }
            | Self::Sandbox { source, .. } => Some(source),
            Self::VerifyDue | Self::DrillDue | Self::Prune => None,
        }
    }

    fn backup(&self) -> Option<&BackupId> {
        match self {
            Self::Verify { backup, .. }
            | Self::Drill { backup, .. }
            | Self::Sandbox { backup, .. } => Some(backup),
            Self::Backup { .. } | Self::VerifyDue | Self::DrillDue | Self::Prune => None,
        }
    }

    fn sameness(&self, by: &str) -> Sameness {
        match self {
            Self::Backup { source } => Sameness::Backup(source.clone()),
            Self::Verify {
                source,
                backup,
                level,
            } => Sameness::Verify(source.clone(), backup.clone(), *level),
            Self::Drill { source, backup } => Sameness::Drill(source.clone(), backup.clone()),
            Self::Sandbox {
                source,
                backup,
                selection,
            } => Sameness::Sandbox {
                by: by.to_owned(),
                source: source.clone(),
                backup: backup.clone(),
                selection: selection.clone(),
            },
            Self::VerifyDue => Sameness::ForAll("verify"),
            Self::DrillDue => Sameness::ForAll("drill"),
            Self::Prune => Sameness::ForAll("prune"),
        }
    }
}

impl Sameness {
    /// Whether both are sandboxes of the same person.
    fn is_of_same_person(&self, other: &Self) -> bool {
        matches!(
            (self, other),
            (Self::Sandbox { by, .. }, Self::Sandbox { by: other, .. }) if by == other
        )
    }
}

/// How a job ended.
#[derive(Debug)]
struct End {
    state: State,
    error: Option<JobError>,
    sandbox: Option<(SandboxView, SandboxAccess)>,
}

impl End {
    fn new(state: State) -> Self {
        Self {
            state,
            error: None,
            sandbox: None,
        }
    }
}

/// Does what was ordered.
#[async_trait]
trait Worker: fmt::Debug + Send + Sync {
    /// Whether there is a server for sandboxes.
    fn has_sandboxes(&self) -> bool;

    /// Does one job, whose turn has come. Backups wait for theirs by themselves, since one order
    /// may be for many.
    ///
    /// # Cancellation
    /// The token of the job; it says so in its end.
    async fn work(&self, job: &Running) -> End;
}

/// One job.
#[derive(Debug)]
struct Entry {
    view: Arc<watch::Sender<JobView>>,
    sameness: Sameness,
    cancel: CancellationToken,
    access: Option<SandboxAccess>,
}

impl Entry {
    fn is_over(&self) -> bool {
        is_final(self.view.borrow().state)
    }
}

/// How many may do the same kind of work.
#[derive(Debug)]
struct Lanes {
    drills: Semaphore,
    verifications: Semaphore,
    sandboxes: Semaphore,
    prunes: Semaphore,
}

impl Lanes {
    fn of(&self, work: &Work) -> Option<&Semaphore> {
        match work {
            Work::Backup { .. } => None,
            Work::Verify { .. } | Work::VerifyDue => Some(&self.verifications),
            Work::Drill { .. } | Work::DrillDue => Some(&self.drills),
            Work::Sandbox { .. } => Some(&self.sandboxes),
            Work::Prune => Some(&self.prunes),
        }
    }
}

#[derive(Debug)]
struct Inner {
    worker: Arc<dyn Worker>,
    lanes: Lanes,
    /// By id, which sorts by age.
    entries: Mutex<BTreeMap<String, Entry>>,
    stop: CancellationToken,
    tasks: TaskTracker,
    /// How many jobs have ended.
    ends: watch::Sender<u64>,
}

/// All work that this process does for others. Clones share it.
#[derive(Debug, Clone)]
pub struct Jobs(Arc<Inner>);

impl Jobs {
    /// None yet.
    #[must_use]
    pub fn new(app: Arc<App>) -> Self {
        Self::with(Arc::new(AppWorker::new(app)))
    }

    fn with(worker: Arc<dyn Worker>) -> Self {
        Self(Arc::new(Inner {
            worker,
            lanes: Lanes {
                drills: Semaphore::new(DRILLS),
                verifications: Semaphore::new(VERIFICATIONS),
                sandboxes: Semaphore::new(SANDBOXES),
                prunes: Semaphore::new(PRUNES),
            },
            entries: Mutex::default(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            ends: watch::Sender::new(0),
        }))
    }

    /// Queues work, which begins when the limits allow it. What a schedule asks for is never too
    /// much: there is at most one such order of each.
    ///
    /// # Errors
    /// Why it is not taken.
    pub fn start(&self, order: Order) -> Result<JobView, JobRefusal> {
        let inner = &self.0;
        let mut entries = inner.entries();
        inner.admit(&entries, &order)?;
        let now = SystemClock.now();
        let id = loop {
            let id = RunId::new(now, rand::random());
            if !entries.contains_key(id.as_str()) {
                break id;
            }
        };
        let view = JobView::queued(&id, &order, now);
        let sender = Arc::new(watch::Sender::new(view.clone()));
        let cancel = inner.stop.child_token();
        let entry = Entry {
            view: Arc::clone(&sender),
            sameness: order.work.sameness(&order.by),
            cancel: cancel.clone(),
            access: None,
        };
        forget_old(&mut entries);
        entries.insert(id.to_string(), entry);
        let job = Running::new(id, order, cancel, sender);
        inner.tasks.spawn(Arc::clone(inner).run(job));
        Ok(view)
    }

    /// One job.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<JobView> {
        let entries = self.0.entries();
        entries.get(id).map(|entry| entry.view.borrow().clone())
    }

    /// All jobs that are known, newest first.
    #[must_use]
    pub fn all(&self) -> Vec<JobView> {
        let entries = self.0.entries();
        let views = entries.values().rev();
        views.map(|entry| entry.view.borrow().clone()).collect()
    }

    /// One job as it goes on. Its end is the last that is seen.
    #[must_use]
    pub fn watch(&self, id: &str) -> Option<watch::Receiver<JobView>> {
        let entries = self.0.entries();
        entries.get(id).map(|entry| entry.view.subscribe())
    }

    /// Changes whenever a job has ended.
    #[must_use]
    pub fn ends(&self) -> watch::Receiver<u64> {
        self.0.ends.subscribe()
    }

    /// Stops a job. False when there is none of that id, or none any more.
    #[must_use]
    pub fn cancel(&self, id: &str) -> bool {
        let entries = self.0.entries();
        let entry = entries.get(id).filter(|entry| !entry.is_over());
        if let Some(entry) = entry {
            entry.cancel.cancel();
        }
        entry.is_some()
    }

    /// How to get into the sandbox that a job made: given once, and only to the person who asked
    /// for it.
    #[must_use]
    pub fn take_access(&self, id: &str, person: &str) -> Option<SandboxAccess> {
        let mut entries = self.0.entries();
        let entry = entries.get_mut(id)?;
        let is_own = entry.view.borrow().by == person;
        entry.access.take_if(|_| is_own)
    }

    /// Takes no orders any more, stops everything and waits for its end.
    pub async fn stop(&self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }
}

impl Inner {
    fn entries(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        // What stands there is whole whenever the lock is given back.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn admit(&self, entries: &BTreeMap<String, Entry>, order: &Order) -> Result<(), JobRefusal> {
        if self.stop.is_cancelled() {
            return Err(JobRefusal::Stopping);
        }
        if matches!(order.work, Work::Sandbox { .. }) && !self.worker.has_sandboxes() {
            return Err(JobRefusal::NoSandboxes);
        }
        let same = order.work.sameness(&order.by);
        let under_way = || entries.iter().filter(|(_, entry)| !entry.is_over());
        if let Some((id, _)) = under_way().find(|(_, entry)| entry.sameness == same) {
            return Err(JobRefusal::Running { id: id.clone() });
        }
        let others = |entry: &Entry| entry.sameness.is_of_same_person(&same);
        if let Some((id, _)) = under_way().find(|(_, entry)| others(entry)) {
            return Err(JobRefusal::OneAtATime { id: id.clone() });
        }
        if order.by == SCHEDULE {
            return Ok(());
        }
        let views = entries.values().map(|entry| entry.view.borrow());
        let waiting = views.filter(|view| view.state == State::Queued.as_str());
        let waiting: Vec<_> = waiting.map(|view| view.by.clone()).collect();
        let own = waiting.iter().filter(|by| **by == order.by).count();
        if own >= WAITING_OF_ONE {
            return Err(JobRefusal::TooMany { waiting: own });
        }
        let waiting = waiting.iter().filter(|by| *by != SCHEDULE).count();
        if waiting >= WAITING {
            return Err(JobRefusal::TooMany { waiting });
        }
        Ok(())
    }

    /// Does a job when it is its turn.
    async fn run(self: Arc<Self>, job: Running) {
        let end = match self.lanes.of(&job.order.work) {
            None => self.worked(&job).await,
            Some(lane) => {
                let turn = tokio::select! {
                    biased;
                    () = job.cancel.cancelled() => None,
                    turn = lane.acquire() => turn.ok(),
                };
                match turn {
                    None => End::new(State::Cancelled),
                    Some(_turn) => {
                        job.begun();
                        self.worked(&job).await
                    }
                }
            }
        };
        if let Some(error) = &end.error {
            let what = job.order.work.operation();
            let source = job.order.work.source().map(SourceName::as_str);
            tracing::warn!(
                target: "backup",
                job = job.id.as_str(),
                operation = %what,
                source,
                by = job.order.by,
                "{}: {}",
                end.state.as_str(),
                error.message,
            );
        }
        let (sandbox, access) = end.sandbox.unzip();
        if let Some(entry) = self.entries().get_mut(job.id.as_str()) {
            entry.access = access;
        }
        job.ended(end.state, end.error, sandbox);
        self.ends.send_modify(|ended| *ended += 1);
    }

    /// A job that comes to no end by itself has failed, and must not look as if it went on.
    async fn worked(&self, job: &Running) -> End {
        let work = AssertUnwindSafe(self.worker.work(job)).catch_unwind();
        work.await.unwrap_or_else(|_| End {
            error: Some(JobError::panicked()),
            ..End::new(State::Failed)
        })
    }
}

/// Makes room for one more.
fn forget_old(entries: &mut BTreeMap<String, Entry>) {
    let over = |entries: &BTreeMap<String, Entry>| {
        let over = entries.iter().filter(|(_, entry)| entry.is_over());
        over.map(|(id, _)| id.clone()).collect::<Vec<_>>()
    };
    let over = over(entries);
    let many = (over.len() + 1).saturating_sub(ENDED);
    for id in over.into_iter().take(many) {
        entries.remove(&id);
    }
}

#[cfg(test)]
mod tests;
