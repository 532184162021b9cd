//! Backups that stay because somebody says so.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use backup_app::access::Action;
use backup_app::{AppError, ChangedPin, PinChange, Pinning, text, who};
use backup_core::audit::AuditAction;
use backup_core::backup::{BackupId, SourceName};
use backup_core::error::ErrorKind;
use backup_core::run_record::Who;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use super::Answer;
use super::orders::SourceQuery;
use crate::access::Caller;
use crate::answer::{Asked, Reader};
use crate::audit::allowed;
use crate::body::{Named, Sent};
use crate::problem::Problem;
use crate::state::Server;

/// Why a backup stays, and how long.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PinOrder {
    /// Why.
    #[serde(default)]
    #[schema(max_length = 1000)]
    reason: Option<String>,
    /// Until then; for ever if not said.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    until: Option<DateTime<Utc>>,
}

/// A pin, and the places that have it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PinView {
    id: String,
    source: String,
    pinned: bool,
    reason: Option<String>,
    until: Option<String>,
    destinations: Vec<String>,
}

/// Keep a backup, whatever its policy says
#[utoipa::path(put, path = "/api/v1/backups/{id}/pin", request_body = PinOrder,
    params(("id" = String, Path), SourceQuery), responses((status = 200, body = PinView)))]
pub(crate) async fn pin(
    State(server): State<Arc<Server>>,
    reader: Reader,
    Named(id): Named,
    Asked(which): Asked<SourceQuery>,
    Sent(order): Sent<PinOrder>,
) -> Answer {
    let of = reader.stored(Action::Pin, &id, &which)?;
    server.turn(&reader.caller)?;
    let view = PinView {
        id,
        source: of.0.to_string(),
        pinned: true,
        reason: order.reason.clone(),
        until: order.until.map(text::time),
        destinations: Vec::new(),
    };
    let set = PinChange::Set {
        until: order.until,
        reason: order.reason,
    };
    change((server, &reader.caller), of, set, view).await
}

/// Let a backup that was kept go when its policy says so
#[utoipa::path(delete, path = "/api/v1/backups/{id}/pin",
    params(("id" = String, Path), SourceQuery), responses((status = 200, body = PinView)))]
pub(crate) async fn unpin(
    State(server): State<Arc<Server>>,
    reader: Reader,
    Named(id): Named,
    Asked(which): Asked<SourceQuery>,
) -> Answer {
    let of = reader.stored(Action::Unpin, &id, &which)?;
    server.turn(&reader.caller)?;
    let view = PinView {
        id,
        source: of.0.to_string(),
        pinned: false,
        reason: None,
        until: None,
        destinations: Vec::new(),
    };
    change((server, &reader.caller), of, PinChange::Remove, view).await
}

async fn change(
    by: (Arc<Server>, &Caller),
    of: (SourceName, BackupId),
    change: PinChange,
    mut view: PinView,
) -> Answer {
    view.destinations = change_for(by, of, change).await?;
    Ok(Json(view).into_response())
}

/// Changes the pin of a backup for somebody who may; the places that have it.
pub(crate) async fn change_for(
    (server, caller): (Arc<Server>, &Caller),
    (source, backup): (SourceName, BackupId),
    change: PinChange,
) -> Result<Vec<String>, Problem> {
    let takes_away = match &change {
        PinChange::Remove => true,
        PinChange::Set { until, .. } => {
            let shortens = server.app.shortens_pin((&source, &backup), *until).await;
            shortens.map_err(|error| problem(&error))?
        }
    };
    if takes_away {
        // Who may not take a pin away may not replace it with one that ends sooner either.
        caller.may(Action::Unpin, Some(source.as_str()))?;
        let mut entry = allowed(caller, AuditAction::Unpin, Some(&source));
        entry.backups.push(backup.clone());
        server.audited(&entry).await?;
    }
    let who = Who {
        user: caller.0.name.clone(),
        ..who()
    };
    // What was begun is ended, whether or not somebody still waits for the answer.
    let work = tokio::spawn(async move {
        let pinning = Pinning {
            source: &source,
            backup: &backup,
            change: &change,
            who: &who,
            journal: &server.journal,
        };
        let mut places = Vec::new();
        let mut tell = |changed: &ChangedPin| places.push(changed.place.clone());
        let never = CancellationToken::new();
        let changed = server.app.change_pin(&pinning, &mut tell, &never).await;
        changed.map(|()| places)
    });
    let changed = work.await.map_err(|_| not_taken())?;
    let places = changed.map_err(|error| problem(&error))?;
    if places.is_empty() {
        return Err(Problem::not_found());
    }
    Ok(places)
}

fn problem(error: &AppError) -> Problem {
    match error.kind() {
        ErrorKind::InvalidInput => {
            let detail = "a pin must end in the future, and its reason be short";
            Problem::bad_request(detail)
        }
        ErrorKind::NotFound => Problem::not_found(),
        _ => {
            tracing::warn!(target: "backup", "pin: {}", error.render());
            not_taken()
        }
    }
}

fn not_taken() -> Problem {
    let detail = "a place of the backup did not take it; the log of the server knows more";
    Problem::new(StatusCode::BAD_GATEWAY, detail)
}
