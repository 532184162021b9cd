//! Work that several processes share: whoever comes first to a source takes its backup.

use std::sync::Arc;

use backup_core::backup::BackupId;
use backup_core::engine::Engine;
use backup_core::error::Error as CoreError;
use backup_core::observer::NoopObserver;
use tokio_util::sync::CancellationToken;

use super::BackupRun;
use crate::compose::{App, BackupJob};
use crate::error::AppError;

/// Whose a backup is that nobody has to take twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whose {
    /// Nobody's yet.
    Ours,
    /// Another run is at it. It may fail, or be killed.
    Anothers,
    /// It was taken.
    Taken(BackupId),
}

impl App {
    /// Whose the backup of a job is now, as far as can be told without its turn: the backup itself asks
    /// again under the lease. Always ours where the job is not shared, or a place does not answer: then the
    /// backup says what is wrong.
    ///
    /// # Errors
    /// When a place or a key cannot be used.
    ///
    /// # Cancellation
    /// `Cancelled`.
    pub async fn whose(
        &self,
        job: &BackupJob,
        cancel: &CancellationToken,
    ) -> Result<Whose, AppError> {
        let Some(since) = job.request.unless_since else {
            return Ok(Whose::Ours);
        };
        let (engine, _) = self.backup_engine(job, &job.places, Arc::new(NoopObserver))?;
        let engine: &Engine = &engine;
        match engine.taken_since(&job.source, since, cancel).await {
            Ok(Some(backup)) => return Ok(Whose::Taken(backup)),
            Err(CoreError::Cancelled) => return Err(CoreError::Cancelled.into()),
            Ok(None) | Err(_) => {}
        }
        match engine.check_turn(&job.source, cancel).await {
            Err(CoreError::Held { holder, .. }) if !holder.is_tidying() => Ok(Whose::Anothers),
            Err(CoreError::Cancelled) => Err(CoreError::Cancelled.into()),
            Ok(()) | Err(_) => Ok(Whose::Ours),
        }
    }
}

/// Whether a run ended because another one is at the source, or has been.
#[must_use]
pub fn is_anothers(run: &BackupRun) -> bool {
    match &run.result {
        Err(AppError::Engine(CoreError::Held { holder, .. })) => !holder.is_tidying(),
        Err(AppError::Engine(CoreError::Taken { .. })) => true,
        _ => false,
    }
}
