//! Jobs that take backups: of one source, which may stand for several databases.

use backup_core::backup::SourceName;
use backup_core::error::Error as CoreError;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;

use super::End;
use super::due::Sum;
use super::running::Running;
use super::view::State;
use super::work::{AppWorker, failed, with_warnings};
use crate::backup_run::{BackupRun, BackupTasks, SkippedDatabase};
use crate::compose::BackupJob;
use crate::error::AppError;
use crate::text::shown;

impl AppWorker {
    pub(super) async fn backups(
        &self,
        job: &Running,
        source: &SourceName,
    ) -> Result<End, AppError> {
        let queue = self.queue()?;
        let sources = [Some(source.to_string())];
        let mut tasks = self.app.backup_tasks(&sources, &job.cancel).await?;
        mark(&mut tasks, job);
        let mut sum = Sum::default();
        for warning in tasks.skipped.iter().filter_map(SkippedDatabase::warning) {
            tracing::warn!(target: "backup", "{}", shown(&warning));
            sum.add(End::new(State::Warnings));
        }
        if tasks.jobs.is_empty() && tasks.refused.is_empty() {
            let what = format!("database of {source} to back up");
            return Err(CoreError::NotFound { what }.into());
        }
        let only = tasks.jobs.len() == 1;
        let mut running: FuturesUnordered<_> = tasks
            .jobs
            .into_iter()
            .map(|backup| async move {
                let _turn = queue.turn(backup.server(), &job.cancel).await?;
                job.begun();
                Some(self.backup(job, &backup).await)
            })
            .collect();
        while let Some(done) = running.next().await {
            sum.add(ended(job, done, only));
        }
        // A place that is new has a repository to leave records in only now.
        for refused in tasks.refused {
            job.begun();
            let recording = self.app.record_refused(refused, &self.journal, &job.cancel);
            sum.add(ended(job, Some(recording.await), only));
        }
        Ok(sum.end())
    }

    async fn backup(&self, job: &Running, backup: &BackupJob) -> BackupRun {
        let observer = job.observer(&format!("backup of {}", backup.source));
        let run = self
            .app
            .run_backup(backup, &self.journal, observer, &job.cancel);
        let run = Box::pin(run).await;
        for warning in run.warnings() {
            let source = shown(backup.source.as_str());
            tracing::warn!(target: "backup", "backup of {source}: {}", shown(warning));
        }
        run
    }
}

/// The first of them has the name of the job.
fn mark(tasks: &mut BackupTasks, job: &Running) {
    let jobs = tasks.jobs.iter_mut().map(|job| &mut job.mark);
    let refused = tasks.refused.iter_mut().map(|refused| &mut refused.mark);
    for (index, mark) in jobs.chain(refused).enumerate() {
        *mark = match index {
            0 => job.mark(),
            _ => job.mark().unnamed(),
        };
    }
}

/// What came of one; `None` is a backup whose turn did not come before the job was stopped.
fn ended(job: &Running, done: Option<BackupRun>, only: bool) -> End {
    let Some(done) = done else {
        return failed(&CoreError::Cancelled.into());
    };
    job.recorded(&done.runs);
    match &done.result {
        Ok(outcome) => {
            if only {
                job.took(&outcome.manifest.id);
            }
            let everywhere = done.destinations.iter().all(|place| place.error.is_none());
            End::new(if everywhere {
                with_warnings(outcome.warnings.len())
            } else {
                State::Partial
            })
        }
        Err(error) => failed(error),
    }
}
