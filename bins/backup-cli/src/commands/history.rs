//! What the notes in stores say of what was done.

use backup_core::engine::Engine;
use backup_core::error::chain;
use backup_core::history::{HistoryRequest, Proofs};
use chrono::{DateTime, Utc};

use super::listing::warn_damaged;
use crate::render;

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
