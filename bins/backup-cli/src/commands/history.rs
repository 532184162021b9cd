//! Notes of what was done, in the store where it was done. They never change how a command ends.

use backup_app::{AppError, who};
use backup_core::drill::Drilled;
use backup_core::engine::Engine;
use backup_core::error::chain;
use backup_core::history::{HistoryRequest, Proofs};
use backup_core::run_record::{Operation, RunId, RunRecord};
use chrono::{DateTime, Utc};

use super::Context;
use super::listing::warn_damaged;
use crate::render;

/// The record of a run that begins now.
pub(super) fn begin(engine: &Engine, operation: Operation) -> RunRecord {
    engine.history().begin(operation, who())
}

impl Context {
    /// Writes the record of a run that has ended; its id, if it is there.
    pub(super) async fn record(
        &self,
        engine: &Engine,
        place: &str,
        mut run: RunRecord,
    ) -> Option<RunId> {
        let stop = self.interrupt.token();
        let Err(error) = engine.history().record(&mut run, stop).await else {
            return Some(run.id);
        };
        let first = self
            .unrecorded
            .lock()
            .is_ok_and(|mut places| places.insert(place.to_owned()));
        if first {
            let why = render::name(&chain(&error));
            render::warn(&format!("{place}: this run is not recorded: {why}"));
        }
        None
    }
}

/// What the records since `oldest` say of drills, which is what a choice depends on.
pub(super) async fn drilled(
    engine: &Engine,
    place: &str,
    oldest: DateTime<Utc>,
) -> Result<Drilled, AppError> {
    let request = HistoryRequest {
        since: Some(oldest),
        operation: Some(Operation::Drill),
        limit: None,
    };
    let listing = engine.history().list(&request).await?;
    for (key, reason) in listing.damaged {
        render::warn(&format!("{place}: {key}: {reason}"));
    }
    Ok(Drilled::new(listing.runs))
}

/// What the records since `oldest` say of backups. A listing of backups is worth having without.
pub(super) async fn proofs(engine: &Engine, place: &str, oldest: DateTime<Utc>) -> Proofs {
    let request = HistoryRequest {
        since: Some(oldest),
        ..HistoryRequest::default()
    };
    match engine.history().list(&request).await {
        Ok(listing) => {
            warn_damaged(place, &listing.damaged);
            Proofs::new(listing.runs)
        }
        Err(error) => {
            let why = render::name(&chain(&error));
            render::warn(&format!("{place}: verifications are not known: {why}"));
            Proofs::default()
        }
    }
}
