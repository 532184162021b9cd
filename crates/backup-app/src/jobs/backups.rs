//! Jobs that take backups: of one source, which may stand for several databases.

use backup_core::backup::SourceName;
use backup_core::error::Error as CoreError;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;

use super::End;
use super::running::Running;
use super::view::{JobError, State};
use super::work::{AppWorker, failed, with_warnings};
use crate::backup_run::{BackupRun, BackupTasks};
use crate::compose::BackupJob;
use crate::error::AppError;
use crate::text::shown;

/// What came of all backups of a job so far.
#[derive(Default)]
struct Sum {
    ends: Vec<End>,
}

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
        for warning in tasks.skipped.iter().filter_map(|skipped| skipped.warning()) {
            tracing::warn!(target: "backup", "{}", shown(&warning));
            sum.ends.push(End::new(State::Warnings));
        }
        let only = tasks.jobs.len() == 1;
        let mut running: FuturesUnordered<_> = tasks
            .jobs
            .into_iter()
            .map(|backup| async move {
                let Some(_turn) = queue.turn(backup.server(), &job.cancel).await else {
                    return None;
                };
                job.begun();
                Some(self.backup(job, &backup).await)
            })
            .collect();
        while let Some(done) = running.next().await {
            sum.add(job, done, only);
        }
        // A place that is new has a repository to leave records in only now.
        for refused in tasks.refused {
            job.begun();
            let recording = self.app.record_refused(refused, &self.journal, &job.cancel);
            sum.add(job, Some(recording.await), only);
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

impl Sum {
    /// `None` is a backup whose turn did not come before the job was stopped.
    fn add(&mut self, job: &Running, done: Option<BackupRun>, only: bool) {
        let Some(done) = done else {
            self.ends.push(failed(&CoreError::Cancelled.into()));
            return;
        };
        job.recorded(&done.runs);
        self.ends.push(match &done.result {
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
        });
    }

    /// The worst of all; of several that failed, the error says how many.
    fn end(self) -> End {
        let count = self.ends.len();
        let failed = |end: &&End| end.state == State::Failed;
        let missing = self.ends.iter().filter(failed).count();
        let worst = self.ends.into_iter().max_by_key(|end| end.state);
        let mut end = worst.unwrap_or_else(|| End {
            error: Some(JobError::nothing_to_do()),
            ..End::new(State::Failed)
        });
        if let Some(error) = &mut end.error
            && count > 1
        {
            error.message = format!("{missing} of {count} failed: {}", error.message);
        }
        end
    }
}
