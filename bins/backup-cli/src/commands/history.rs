//! What the notes in stores say of what was done.

use backup_app::AppError;
use backup_core::drill::Drilled;
use backup_core::engine::Engine;
use backup_core::error::chain;
use backup_core::history::{HistoryRequest, Proofs};
use backup_core::run_record::Operation;
use chrono::{DateTime, Utc};

use super::listing::warn_damaged;
use crate::render;

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
