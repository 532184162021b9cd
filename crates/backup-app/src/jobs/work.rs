//! Jobs on what is configured.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use backup_core::backup::{BackupId, SourceName};
use backup_core::catalog::Selector;
use backup_core::engine::{SandboxOutcome, VerifyLevel, VerifyReport, VerifyRequest};
use backup_core::error::Error as CoreError;
use backup_core::manifest::Manifest;
use backup_core::observer::NoopObserver;
use backup_core::restorer::Selection;

use super::running::Running;
use super::view::{JobError, SandboxView, State};
use super::{End, Work, Worker};
use crate::backup_run::BackupQueue;
use crate::compose::App;
use crate::drill::DrillTask;
use crate::error::AppError;
use crate::extract::refuse_unless_database;
use crate::found::{Found, Wanted};
use crate::journal::{Journal, Mark, Notice};
use crate::keys::Keys;
use crate::notices::Notices;
use crate::place::Place;
use crate::sandbox::SandboxTask;
use crate::text::{shown, time};
use crate::verify::VerifyTask;

/// Does jobs as the configuration says.
#[derive(Debug)]
pub(super) struct AppWorker {
    pub(super) app: Arc<App>,
    pub(super) journal: Journal,
    queue: OnceLock<BackupQueue>,
}

impl AppWorker {
    pub(super) fn new(app: Arc<App>) -> Self {
        Self {
            journal: Journal::new(|notice| match notice {
                Notice::Warning(text) => tracing::warn!(target: "backup", "{}", shown(text)),
                Notice::Note(text) => tracing::info!(target: "backup", "{}", shown(text)),
            })
            .telling(&app),
            app,
            queue: OnceLock::new(),
        }
    }

    /// The turns of all backups of this process.
    pub(super) fn queue(&self) -> Result<&BackupQueue, AppError> {
        if let Some(queue) = self.queue.get() {
            return Ok(queue);
        }
        let queue = self.app.backup_queue()?;
        Ok(self.queue.get_or_init(|| queue))
    }

    async fn find(
        &self,
        job: &Running,
        (source, backup): (&SourceName, &BackupId),
        keys: Keys,
    ) -> Result<Found, AppError> {
        let selector = Selector::Prefix(backup.to_string());
        let wanted = Wanted::new(selector, Some(source.as_str()), keys);
        let observer = job.observer(&format!("{} of {source}", job.order.work.operation()));
        tokio::select! {
            found = self.app.find(&wanted, observer) => found,
            () = job.cancel.cancelled() => Err(CoreError::Cancelled.into()),
        }
    }

    async fn verify(
        &self,
        job: &Running,
        of: (&SourceName, &BackupId),
        level: VerifyLevel,
    ) -> Result<End, AppError> {
        let keys = match level {
            VerifyLevel::Decoded => Keys::Identities,
            VerifyLevel::Stored | VerifyLevel::Hashed => Keys::None,
        };
        let found = self.find(job, of, keys).await?;
        let task = VerifyTask {
            found: &found,
            request: VerifyRequest {
                level,
                jobs: self.app.jobs(None)?,
            },
            mark: job.mark(),
        };
        let done = Box::pin(task.run(&self.journal, &job.cancel)).await;
        job.recorded(done.run.as_slice());
        Ok(of_report(&done.result?))
    }

    async fn drill(&self, job: &Running, of: (&SourceName, &BackupId)) -> Result<End, AppError> {
        let found = self.find(job, of, Keys::None).await?;
        self.drilled(job, (&found.manifest, &found.place), job.mark())
            .await
    }

    pub(super) async fn drilled(
        &self,
        job: &Running,
        (manifest, place): (&Manifest, &Place),
        mark: Mark,
    ) -> Result<End, AppError> {
        let task = DrillTask {
            manifest,
            place,
            mark,
        };
        let observer = job.observer(&format!("drill of {}", manifest.source));
        let drill = self
            .app
            .run_drill(&task, &self.journal, observer, &job.cancel);
        let done = Box::pin(drill).await;
        if done.recorded {
            job.recorded(&[done.id]);
        }
        let outcome = done.result?;
        match outcome.error {
            Some(error) => Err(error.into()),
            None => Ok(End::new(with_warnings(outcome.warnings.len()))),
        }
    }

    async fn sandbox(
        &self,
        job: &Running,
        of: (&SourceName, &BackupId),
        selection: &Selection,
    ) -> Result<End, AppError> {
        let setup = self.app.sandboxes()?;
        let setup =
            setup.ok_or_else(|| AppError::usage("no server for sandboxes is configured"))?;
        let found = self.find(job, of, Keys::Identities).await?;
        refuse_unless_database(&found.manifest)?;
        let task = SandboxTask {
            found: &found,
            person: &job.order.by,
            selection: selection.clone(),
            mark: job.mark(),
        };
        let making = self
            .app
            .run_sandbox(&setup, &task, &self.journal, &job.cancel);
        let done = Box::pin(making).await;
        job.recorded(done.run.as_slice());
        let made = done.result?;
        let view = sandbox_view(&made, selection);
        Ok(End {
            sandbox: Some((view, made.access)),
            ..End::new(with_warnings(made.restore.warnings.len()))
        })
    }
}

impl AppWorker {
    /// Leaves the record of a job that failed before anything began that leaves one: the history would
    /// know nothing of it.
    async fn leave_record(&self, job: &Running, error: &AppError) {
        let is_cancelled = matches!(error, AppError::Engine(CoreError::Cancelled));
        if is_cancelled || job.has_recorded() {
            return;
        }
        let mark = job.mark();
        self.leave_record_of(job, (mark, job.order.work.source()), error)
            .await;
    }

    /// The same for one source, of a job that may be for several.
    pub(super) async fn leave_record_of(
        &self,
        job: &Running,
        (mark, source): (Mark, Option<&SourceName>),
        error: &AppError,
    ) {
        let work = &job.order.work;
        let mut record = mark.begin(work.operation());
        record.source = source.cloned();
        record.backup = work.backup().cloned();
        match error {
            AppError::Engine(error) => record.failed(error),
            error => record.ended_with(error, error.kind()),
        }
        let places = match source {
            Some(source) => self.app.places_of_source(source),
            None => self.app.places(),
        };
        for place in places.unwrap_or_default() {
            let observer = Arc::new(NoopObserver);
            let Ok(engine) = self.app.engine(&place, Keys::None, observer) else {
                continue;
            };
            let record = record.clone();
            let journal = &self.journal;
            let (left, _) = journal
                .note(&engine, &place.name, record, &job.cancel)
                .await;
            job.recorded(left.as_slice());
        }
        if let Some(notices) = self.journal.notices() {
            notices.ended(&record, None);
        }
    }
}

#[async_trait]
impl Worker for AppWorker {
    fn has_sandboxes(&self) -> bool {
        self.app.config().sandbox.server.is_some()
    }

    fn notices(&self) -> Option<&Notices> {
        self.journal.notices()
    }

    async fn work(&self, job: &Running) -> End {
        let done = match &job.order.work {
            Work::Backup { source } => self.backups(job, source).await,
            Work::Verify {
                source,
                backup,
                level,
            } => self.verify(job, (source, backup), *level).await,
            Work::Drill { source, backup } => self.drill(job, (source, backup)).await,
            Work::Sandbox {
                source,
                backup,
                selection,
            } => self.sandbox(job, (source, backup), selection).await,
            Work::VerifyDue => self.verify_due(job).await,
            Work::DrillDue => self.drill_due(job).await,
            Work::Prune => self.prune(job).await,
        };
        match done {
            Ok(end) => end,
            Err(error) => {
                self.leave_record(job, &error).await;
                failed(&error)
            }
        }
    }
}

/// A job that ended with an error.
pub(super) fn failed(error: &AppError) -> End {
    match error {
        AppError::Engine(CoreError::Cancelled) => End::new(State::Cancelled),
        error => End {
            error: Some(JobError::of(error)),
            ..End::new(State::Failed)
        },
    }
}

/// A verification that came to a result.
pub(super) fn of_report(report: &VerifyReport) -> End {
    match report.problems.first() {
        None => End::new(State::Success),
        Some(first) => End {
            error: Some(JobError::damaged(first, report.problems.len())),
            ..End::new(State::Failed)
        },
    }
}

pub(super) fn with_warnings(warnings: usize) -> State {
    if warnings == 0 {
        State::Success
    } else {
        State::Warnings
    }
}

fn sandbox_view(made: &SandboxOutcome, selection: &Selection) -> SandboxView {
    let access = &made.access;
    let compare = made.restore.compare.as_ref();
    SandboxView {
        database: access.database.clone(),
        host: access.host.clone(),
        port: access.port,
        until: time(made.tenancy.until),
        tables: compare.map_or(0, |report| report.tables as u64),
        rows: compare.map_or(0, |report| report.rows),
        compared: match compare {
            Some(_) if selection.definitions_only => "definitions",
            Some(_) => "equal",
            None => "not compared",
        },
    }
}
