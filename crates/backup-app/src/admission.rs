//! Which places take a backup, before anything is done for it.

use backup_core::backup::BackupId;
use backup_core::clock::Clock as _;
use backup_core::error::{Error as CoreError, ErrorKind, PortError};
use backup_core::retention::Candidate;
use tokio_util::sync::CancellationToken;

use crate::backup_run::DestinationView;
use crate::clock::SystemClock;
use crate::compose::{App, BackupJob};
use crate::error::AppError;
use crate::place::Place;

/// What is known of the places of a job before it begins.
#[derive(Debug, Default)]
pub(crate) struct Admission {
    /// Those that take the backup, in the job's order.
    pub(crate) places: Vec<Place>,
    /// Those that cannot, and why.
    refused: Vec<(String, AppError)>,
    /// Those that are for other backups, and why.
    skipped: Vec<(String, String)>,
}

impl Admission {
    /// What came of the places that do not take the backup, and what to warn of.
    pub(crate) fn left_out(&self) -> (Vec<String>, Vec<DestinationView>) {
        let refused = self.refused.iter().map(|(name, error)| {
            let text = error.line();
            let view = DestinationView::failed(name, text.clone());
            (format!("{name} has not got the backup: {text}"), view)
        });
        let (warnings, mut views): (Vec<_>, Vec<_>) = refused.unzip();
        let skipped = self.skipped.iter();
        views.extend(skipped.map(|(name, reason)| DestinationView::skipped(name, reason)));
        (warnings, views)
    }
}

impl App {
    /// Asks every place of a job whether it is for this backup, and has room.
    ///
    /// # Errors
    /// The first refusal, when no place is left.
    ///
    /// # Cancellation
    /// Nothing was done.
    pub(crate) async fn admit(
        &self,
        job: &BackupJob,
        cancel: &CancellationToken,
    ) -> Result<Admission, AppError> {
        let mut admission = Admission::default();
        for place in &job.places {
            let name = place.name.clone();
            let asked = tokio::select! {
                asked = self.skips(job, place) => asked,
                () = cancel.cancelled() => return Err(CoreError::Cancelled.into()),
            };
            let wanted = job.settings.values.min_free_space;
            match asked {
                Ok(Some(reason)) => admission.skipped.push((name, reason)),
                Ok(None) => match place.check_room(self.environment(), wanted) {
                    Ok(()) => admission.places.push(place.clone()),
                    Err(error) => admission.refused.push((name, error)),
                },
                Err(error) => admission.refused.push((name, error)),
            }
        }
        if admission.places.is_empty() {
            let first = admission.refused.into_iter().next();
            return Err(first.map_or_else(no_place, |(_, error)| error));
        }
        Ok(admission)
    }

    /// Why a place is not for this backup, if it is not.
    async fn skips(&self, job: &BackupJob, place: &Place) -> Result<Option<String>, AppError> {
        let Some(placement) = self.placement(&job.source, place)? else {
            return Ok(None);
        };
        // One that hangs must not keep the others from their backup.
        let limit = job.request.stall_timeout / 3;
        let asked = tokio::time::timeout(limit, self.has(place, &job.source)).await;
        let has = asked.map_err(|_| {
            let late = PortError::new(ErrorKind::Timeout, "it did not answer in time");
            AppError::setup(format!("ask destination {} what it has", place.name), late)
        })??;
        let now = SystemClock.now();
        let new = Candidate {
            extent: job.extent,
            ..Candidate::new(BackupId::new(now, 0))
        };
        if !placement.lacking(&[new], &has).is_empty() {
            return Ok(None);
        }
        Ok(Some(format!(
            "it has a backup of {}",
            placement.periods(now)
        )))
    }
}

fn no_place() -> AppError {
    AppError::usage_hint(
        "no place takes this backup",
        "one destination without tiers is needed, which gets every backup",
    )
}
