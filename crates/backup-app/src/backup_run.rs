//! One backup from its job to its record, the same for every frontend.

mod view;

use std::sync::Arc;

use backup_core::clock::Clock as _;
use backup_core::engine::{BackupOutcome, Engine};
use backup_core::error::{Error as CoreError, chain};
use backup_core::fan_out::{FanOut, MemberOutcome};
use backup_core::observer::{NoopObserver, Observer};
use backup_core::run_record::{Operation, RunId, RunRecord};
use tokio_util::sync::CancellationToken;

use crate::clock::SystemClock;
use crate::compose::{App, BackupJob, Keys};
use crate::error::AppError;
use crate::journal::{self, Journal};
use crate::place::Place;

pub use view::{BackupView, DestinationView};

/// What came of a job.
#[derive(Debug)]
pub struct BackupRun {
    /// The backup, or why there is none. Its warnings name the places that have not got it.
    pub result: Result<BackupOutcome, AppError>,
    /// What came of every place, in the order of the job.
    pub destinations: Vec<DestinationView>,
    /// The record, if any place has it.
    pub run: Option<RunId>,
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

impl App {
    /// Whether `job` can be begun: what is wrong with its keys and places is said before anything
    /// is touched.
    ///
    /// # Errors
    /// When a place or the keys cannot be used.
    pub fn check_backup_job(&self, job: &BackupJob) -> Result<(), AppError> {
        self.backup_engine(job, Arc::new(NoopObserver)).map(drop)
    }

    /// Takes one backup within the time that it has, into all of its places, and leaves the
    /// record of the run in each of them.
    ///
    /// # Cancellation
    /// Nothing is published, and the run is recorded as cancelled.
    pub async fn run_backup(
        &self,
        job: &BackupJob,
        journal: &Journal,
        observer: Arc<dyn Observer>,
        cancel: &CancellationToken,
    ) -> BackupRun {
        let (engine, fan_out) = match self.backup_engine(job, observer) {
            Ok(ready) => ready,
            Err(error) => return failed(job, error),
        };
        let mut record = journal::begin(&engine, Operation::Backup);
        record.source = Some(job.source.clone());
        let mut done = match within_time(job, &engine, fan_out.as_deref(), cancel).await {
            Ok(outcome) => committed(job, outcome, fan_out.as_deref()),
            Err(error) => failed(job, error),
        };
        match &done.result {
            Ok(outcome) => record.backed_up(outcome),
            Err(AppError::Engine(error)) => record.failed(error),
            Err(error) => record.ended_with(error, error.kind()),
        }
        done.run = self.record(job, journal, (&record, &done), cancel).await;
        done
    }

    /// Leaves the record in every place that has the backup, or else in all that take it.
    async fn record(
        &self,
        job: &BackupJob,
        journal: &Journal,
        (record, done): (&RunRecord, &BackupRun),
        cancel: &CancellationToken,
    ) -> Option<RunId> {
        let mut recorded = None;
        for (place, destination) in job.places.iter().zip(&done.destinations) {
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
    engine: &Engine,
    fan_out: Option<&FanOut>,
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
        Box::pin(engine.backup(&job.dumper, &request, &cancel)).await
    };
    tokio::pin!(work);
    let mut timed_out = false;
    let result = tokio::select! {
        result = &mut work => result,
        () = tokio::time::sleep(job.timeout) => {
            timed_out = true;
            cancel.cancel();
            work.await
        }
    };
    match result {
        Err(CoreError::Cancelled) if timed_out => Err(AppError::Timeout(job.timeout)),
        result => result.map_err(AppError::from),
    }
}

/// A backup that is there, in one place at least.
fn committed(job: &BackupJob, mut outcome: BackupOutcome, fan_out: Option<&FanOut>) -> BackupRun {
    let destinations = if let Some(fan_out) = fan_out {
        settled(&mut outcome, fan_out.outcomes())
    } else {
        let places = job.places.iter();
        places.map(|p| DestinationView::good(&p.name)).collect()
    };
    BackupRun {
        result: Ok(outcome),
        destinations,
        run: None,
    }
}

/// No place has a backup.
fn failed(job: &BackupJob, error: AppError) -> BackupRun {
    let without = |place: &Place| DestinationView::failed(&place.name, error.render());
    BackupRun {
        destinations: job.places.iter().map(without).collect(),
        result: Err(error),
        run: None,
    }
}

/// What came of every place, also as warnings of the backup.
fn settled(outcome: &mut BackupOutcome, members: Vec<MemberOutcome>) -> Vec<DestinationView> {
    let mut destinations = Vec::new();
    for member in members {
        let name = &member.name;
        destinations.push(match member.failure {
            Some(failure) => {
                let hint = failure.hint().map(|hint| format!(" (hint: {hint})"));
                let text = format!("{}{}", chain(&failure), hint.unwrap_or_default());
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
