//! One backup from its job to its record, the same for every frontend.

mod queue;
mod retry;
mod shared;
mod tasks;
mod view;

use std::sync::Arc;
use std::time::Duration;

use backup_core::clock::Clock as _;
use backup_core::engine::{BackupOutcome, Engine};
use backup_core::error::Error as CoreError;
use backup_core::fan_out::{FanOut, MemberOutcome};
use backup_core::observer::{Event, NoopObserver, Observer};
use backup_core::run_record::{Operation, RunId, RunRecord};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::admission::Admission;
use crate::clock::SystemClock;
use crate::compose::{App, BackupJob};
use crate::error::{AppError, on_one_line};
use crate::hooks::Hooks;
use crate::journal::Journal;
use crate::keys::Keys;
use crate::place::Place;
use crate::text::shown;

pub use queue::{BackupQueue, Turn};
pub use shared::{Whose, is_anothers};
pub use tasks::{BackupTasks, RefusedBackup, SkippedDatabase};
pub use view::{BackupView, DestinationView};

/// What came of a job.
#[derive(Debug)]
pub struct BackupRun {
    /// The backup, or why there is none. Its warnings name the places that have not got it.
    pub result: Result<BackupOutcome, AppError>,
    /// What came of every place, in the order of the job.
    pub destinations: Vec<DestinationView>,
    /// The record of the last attempt, if any place has it.
    pub run: Option<RunId>,
    /// The records of all attempts.
    pub runs: Vec<RunId>,
    /// How often it was tried.
    pub attempts: u32,
}

impl BackupRun {
    /// Whether a signal, or whoever asked for it, ended it.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        matches!(self.result, Err(AppError::Engine(CoreError::Cancelled)))
    }

    /// The warnings of a backup that is there.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        self.result.as_ref().map_or(&[], |done| &done.warnings)
    }
}

/// One try of a job.
struct Attempt<'a> {
    job: &'a BackupJob,
    journal: &'a Journal,
    observer: Arc<dyn Observer>,
    hooks: &'a Hooks<'a>,
    number: u32,
    /// What is left of the time that the job has.
    left: Duration,
}

impl App {
    /// Takes one backup within the time that it has, into all of its places. What fails for a
    /// reason that may pass is tried again, as the job says; each attempt leaves a record of its
    /// own.
    ///
    /// # Cancellation
    /// Nothing is published, and the run is recorded as cancelled. Nothing is tried again.
    pub async fn run_backup(
        &self,
        job: &BackupJob,
        journal: &Journal,
        observer: Arc<dyn Observer>,
        cancel: &CancellationToken,
    ) -> BackupRun {
        let begun = SystemClock.now();
        // What is adopted says nothing of how backups go.
        let is_own = job.request.adopted.is_none();
        if let Some(notices) = journal.notices().filter(|_| is_own) {
            notices.began(&Operation::Backup, &job.source);
        }
        let done = Box::pin(self.tried(job, journal, observer, cancel)).await;
        // What another run has, or has taken, is no failure of those that share with it.
        let is_news = is_own && (job.request.unless_since.is_none() || !is_anothers(&done));
        if let Some(notices) = journal.notices().filter(|_| is_news) {
            notices.backed_up((&job.source, &job.database), &done, begun);
        }
        done
    }

    /// All attempts of a backup.
    async fn tried(
        &self,
        job: &BackupJob,
        journal: &Journal,
        observer: Arc<dyn Observer>,
        cancel: &CancellationToken,
    ) -> BackupRun {
        let begun = Instant::now();
        let of = (&job.source, job.database.as_str());
        let hooks = Hooks::new(of, &job.settings, self.environment(), Arc::clone(&observer));
        let mut attempts = 0;
        let mut runs = Vec::new();
        loop {
            attempts += 1;
            let attempt = Attempt {
                job,
                journal,
                observer: Arc::clone(&observer),
                hooks: &hooks,
                number: attempts,
                left: job.settings.values.timeout.saturating_sub(begun.elapsed()),
            };
            let mut done = self.recorded(attempt, cancel).await;
            done.attempts = attempts;
            runs.extend(done.run.clone());
            done.runs.clone_from(&runs);
            let left = job.settings.values.timeout.saturating_sub(begun.elapsed());
            let delay = retry::delay(job, &done, left);
            let Some((delay, reason)) = delay else {
                hooks.failed(&done, cancel).await;
                return done;
            };
            let source = shown(job.source.as_str());
            observer.event(&Event::Warning(format!(
                "backup of {source}: attempt {} of {} in {} s: {}",
                attempts + 1,
                job.settings.values.retry.attempts,
                delay.as_secs(),
                shown(&reason),
            )));
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = cancel.cancelled() => {
                    let stopped = failed(job, CoreError::Cancelled.into());
                    let stopped = BackupRun { run: done.run, runs, attempts, ..stopped };
                    hooks.failed(&stopped, cancel).await;
                    return stopped;
                }
            }
        }
    }

    /// One attempt, and the record of it.
    async fn recorded(&self, attempt: Attempt<'_>, cancel: &CancellationToken) -> BackupRun {
        let (job, journal) = (attempt.job, attempt.journal);
        let mark = match attempt.number {
            1 => &job.mark,
            _ => &job.mark.unnamed(),
        };
        let mut record = mark.begin(match job.request.adopted {
            None => Operation::Backup,
            Some(_) => Operation::Adopt,
        });
        record.source = Some(job.source.clone());
        let hooks = attempt.hooks.of_attempt(&record.id, attempt.number);
        let mut done = match self.attempt(attempt, &hooks, cancel).await {
            Ok(done) => done,
            Err(error) => failed(job, error),
        };
        match &done.result {
            Ok(outcome) => record.backed_up(outcome),
            Err(AppError::Engine(error)) => record.failed(error),
            Err(error) => record.ended_with(error, error.kind()),
        }
        // What another run has, or has taken, is no failure of those that share with it.
        if !(job.request.unless_since.is_some() && is_anothers(&done)) {
            let of = (&record, &done);
            done.run = self.record(&job.places, journal, of, cancel).await;
        }
        done
    }

    /// Takes the backup into the places that can take it, between the hooks. Once the first of
    /// them was begun, those after it run however it ends.
    async fn attempt(
        &self,
        attempt: Attempt<'_>,
        hooks: &Hooks<'_>,
        cancel: &CancellationToken,
    ) -> Result<BackupRun, AppError> {
        let job = attempt.job;
        let admission = self.admit(job, cancel).await?;
        let (engine, fan_out) = self.backup_engine(job, &admission.places, attempt.observer)?;
        // What another run has quiesced is not ours to resume. Only a run that comes between this
        // look and the backup's own lease is still seen too late.
        if hooks.surround() {
            engine.check_turn(&job.source, cancel).await?;
        }
        let taken = match hooks.before(cancel).await {
            Ok(()) => {
                let into = (&engine, fan_out.as_deref());
                within_time(job, into, attempt.left, cancel).await
            }
            Err(error) => Err(error),
        };
        let mut done = match taken {
            Ok(outcome) => committed(job, outcome, fan_out.as_deref(), &admission),
            Err(error) => failed(job, error),
        };
        hooks.after(&mut done, cancel).await;
        Ok(done)
    }

    /// Leaves the record in every place that has the backup, or else in all that take it.
    async fn record(
        &self,
        places: &[Place],
        journal: &Journal,
        (record, done): (&RunRecord, &BackupRun),
        cancel: &CancellationToken,
    ) -> Option<RunId> {
        let mut recorded = None;
        for (place, destination) in places.iter().zip(&done.destinations) {
            if done.result.is_ok() && destination.error.is_some() {
                continue;
            }
            let Ok(engine) = self.engine(place, Keys::Recipients, Arc::new(NoopObserver)) else {
                continue;
            };
            let written = journal.record(&engine, &place.name, record.clone(), cancel);
            recorded = recorded.or(written.await);
        }
        recorded
    }
}

/// Takes the backup, unless `cancel` or the time limit ends it.
async fn within_time(
    job: &BackupJob,
    (engine, fan_out): (&Engine, Option<&FanOut>),
    left: Duration,
    cancel: &CancellationToken,
) -> Result<BackupOutcome, AppError> {
    let cancel = cancel.child_token();
    let work = async {
        let mut request = job.request.clone();
        if let Some(fan_out) = fan_out {
            tokio::select! {
                ids = fan_out.prepare(SystemClock.now()) => request.repositories = ids?,
                () = cancel.cancelled() => return Err(CoreError::Cancelled),
            }
        }
        Box::pin(engine.backup(job.dumper.as_ref(), &request, &cancel)).await
    };
    tokio::pin!(work);
    let mut timed_out = false;
    let result = tokio::select! {
        result = &mut work => result,
        () = tokio::time::sleep(left) => {
            timed_out = true;
            cancel.cancel();
            work.await
        }
    };
    match result {
        Err(CoreError::Cancelled) if timed_out => {
            Err(AppError::Timeout(job.settings.values.timeout))
        }
        result => result.map_err(AppError::from),
    }
}

/// A backup that is there, in one place at least.
fn committed(
    job: &BackupJob,
    mut outcome: BackupOutcome,
    fan_out: Option<&FanOut>,
    admission: &Admission,
) -> BackupRun {
    let mut destinations = if let Some(fan_out) = fan_out {
        settled(&mut outcome, fan_out.outcomes())
    } else {
        let places = admission.places.iter();
        places.map(|p| DestinationView::good(&p.name)).collect()
    };
    let (warnings, left_out) = admission.left_out();
    outcome.warnings.extend(warnings);
    destinations.extend(left_out);
    destinations.sort_by_key(|view| job.places.iter().position(|p| p.name == view.name));
    BackupRun {
        result: Ok(outcome),
        destinations,
        run: None,
        runs: Vec::new(),
        attempts: 1,
    }
}

/// No place has a backup.
fn failed(job: &BackupJob, error: AppError) -> BackupRun {
    failed_at(&job.places, error)
}

fn failed_at(places: &[Place], error: AppError) -> BackupRun {
    let without = |place: &Place| DestinationView::failed(&place.name, error.render());
    BackupRun {
        destinations: places.iter().map(without).collect(),
        result: Err(error),
        run: None,
        runs: Vec::new(),
        attempts: 1,
    }
}

/// What came of every place, also as warnings of the backup.
fn settled(outcome: &mut BackupOutcome, members: Vec<MemberOutcome>) -> Vec<DestinationView> {
    let mut destinations = Vec::new();
    for member in members {
        let name = &member.name;
        destinations.push(match member.failure {
            Some(failure) => {
                let text = on_one_line(&failure, failure.hint());
                let warnings = &mut outcome.warnings;
                warnings.push(format!("{name} has not got the backup: {text}"));
                DestinationView::failed(name, text)
            }
            None => DestinationView::good(name),
        });
        outcome.warnings.extend(member.warnings);
    }
    destinations
}
