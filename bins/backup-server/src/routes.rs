//! The routes. Those for reading are here, those that do something below.

pub(crate) mod orders;
pub(crate) mod pg_dump;
pub(crate) mod pins;
pub(crate) mod runs;
pub(crate) mod sandboxes;

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{delete, get, post, put};
use axum::{Json, Router};
use backup_app::access::Action;
use backup_app::check::of_work;
use backup_app::text::time;
use backup_app::{BackupEntry, BackupView, ListView, RunView, SourceView, SystemClock};
use backup_core::clock::Clock as _;
use backup_core::run_record::Operation;
use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::IntoParams;

use crate::access::authenticate;
use crate::answer::{Asked, Page, PageQuery, Reader};
use crate::audit::denials;
use crate::body::{BODY_LIMIT, Named};
use crate::browse;
use crate::idempotency::once;
use crate::openapi;
use crate::pages;
use crate::problem::Problem;
use crate::shell::shell;
use crate::state::Server;
use orders::SourceQuery;

type Answer = Result<Response, Problem>;

/// Everything that the server answers.
pub fn router(server: Arc<Server>) -> Router {
    let api = Router::new()
        .route("/sources", get(sources))
        .route("/sources/{source}", get(source))
        .route("/sources/{source}/backups", get(backups))
        .route("/sources/{source}/backups/latest", get(latest))
        .route("/backups/{id}", get(backup))
        .route("/runs", get(runs))
        .route("/drills", get(drills))
        .merge(doing())
        .fallback(async || Problem::not_found())
        .layer(from_fn_with_state(Arc::clone(&server), once))
        .layer(from_fn_with_state(Arc::clone(&server), authenticate))
        .layer(from_fn_with_state(Arc::clone(&server), denials));
    let panicked = |_: Box<dyn std::any::Any + Send>| {
        let detail = "something went wrong; the log of the server knows more";
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail).into_response()
    };
    Router::new()
        .nest("/api/v1", api)
        .merge(pages::router(&server))
        .route("/api/openapi.json", get(async || Json(openapi::document())))
        .route("/api/docs", get(browse::page))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .fallback(async || Problem::not_found())
        .method_not_allowed_fallback(async || {
            let detail = "this cannot be asked for in that way";
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail)
        })
        .layer(CatchPanicLayer::custom(panicked))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(from_fn(shell))
        .with_state(server)
}

/// What does something, what tells how it goes, and the paths of older set-ups.
fn doing() -> Router<Arc<Server>> {
    let pg_dump = Router::new()
        .route("/latest", get(pg_dump::latest))
        .route("/list", get(pg_dump::list))
        .route("/test-restore", post(pg_dump::test_restore))
        .route("/restore-history", get(pg_dump::restore_history));
    Router::new()
        .route("/sources/{source}/backups", post(orders::backup))
        .route("/backups/{id}/restores", post(orders::restore))
        .route("/backups/{id}/drills", post(orders::drill))
        .route("/backups/{id}/verifications", post(orders::verify))
        .route("/backups/{id}/pin", put(pins::pin).delete(pins::unpin))
        .route("/runs/{id}", get(runs::run).delete(runs::cancel))
        .route("/runs/{id}/events", get(runs::events))
        .route("/runs/{id}/access", get(runs::access))
        .route("/sandboxes", get(sandboxes::sandboxes))
        .route("/sandboxes/{name}", delete(sandboxes::remove))
        .nest("/backups/pg-dump", pg_dump)
}

/// How far back.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct DaysQuery {
    /// Only what began in so many days before now.
    days: Option<u32>,
}

/// Which runs.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct RunsQuery {
    /// Only of this operation: `backup`, `restore`, `drill` and so on.
    #[param(pattern = "^(backup|adopt|restore|verify|undo|drill|copy|prune|pin|unpin|rekey)$")]
    operation: Option<String>,
    /// Only of this source.
    source: Option<String>,
}

impl DaysQuery {
    /// The moment so many days ago, in the form of all times, so that it compares as text.
    fn since(&self) -> Option<String> {
        let span = TimeDelta::days(i64::from(self.days?));
        let then = SystemClock.now().checked_sub_signed(span);
        Some(time(then.unwrap_or(DateTime::<Utc>::UNIX_EPOCH)))
    }
}

/// Sources with how they stand
#[utoipa::path(get, path = "/api/v1/sources", responses(
    (status = 200, body = Page<SourceView>)))]
pub(crate) async fn sources(reader: Reader) -> Answer {
    let overview = &reader.overview;
    let all = overview.sources.iter();
    let seen = all.filter(|source| reader.caller.0.sees(Some(&source.name)));
    let page = Page {
        items: seen.cloned().collect::<Vec<_>>(),
        next: None,
        incomplete: reader.incomplete(),
    };
    Ok(reader.json(&page))
}

/// One source with how it stands at each of its places
#[utoipa::path(get, path = "/api/v1/sources/{source}", params(("source" = String, Path)), responses(
    (status = 200, body = SourceView)))]
pub(crate) async fn source(reader: Reader, Named(name): Named) -> Answer {
    reader.caller.may(Action::View, Some(&name))?;
    let overview = &reader.overview;
    let found = overview.sources.iter().find(|source| source.name == name);
    let found = found.ok_or_else(Problem::not_found)?;
    Ok(reader.json(found))
}

/// Backups of a source, newest first
#[utoipa::path(get, path = "/api/v1/sources/{source}/backups",
    params(("source" = String, Path), DaysQuery, PageQuery), responses(
    (status = 200, body = Page<ListView>)))]
pub(crate) async fn backups(
    reader: Reader,
    Named(name): Named,
    Asked(days): Asked<DaysQuery>,
    Asked(query): Asked<PageQuery>,
) -> Answer {
    reader.caller.may(Action::View, Some(&name))?;
    let overview = &reader.overview;
    if !overview.sources.iter().any(|source| source.name == name) {
        return Err(Problem::not_found());
    }
    let since = days.since();
    let lately = |view: &&ListView| since.as_ref().is_none_or(|since| view.started_at >= *since);
    let all = overview.backups.iter().map(|backup| &backup.view);
    let own = all.filter(|view| view.source == name).filter(lately);
    let incomplete = reader.incomplete();
    let page = query.page(own, |view| view.id.clone(), incomplete)?;
    Ok(reader.json(&page))
}

/// The newest backup of a source
#[utoipa::path(get, path = "/api/v1/sources/{source}/backups/latest",
    params(("source" = String, Path)), responses(
    (status = 200, body = BackupView)))]
pub(crate) async fn latest(reader: Reader, Named(name): Named) -> Answer {
    reader.caller.may(Action::View, Some(&name))?;
    let overview = &reader.overview;
    let mut all = overview.backups.iter();
    // As everywhere, what leaves something out on purpose is not the latest.
    let found = all.find(|backup| backup.view.source == name && backup.is_whole);
    let details = found.and_then(BackupEntry::details);
    let details = details.ok_or_else(Problem::not_found)?;
    Ok(reader.json(&details))
}

/// One backup
#[utoipa::path(get, path = "/api/v1/backups/{id}", params(("id" = String, Path), SourceQuery),
    responses(
    (status = 200, body = BackupView)))]
pub(crate) async fn backup(
    reader: Reader,
    Named(id): Named,
    Asked(which): Asked<SourceQuery>,
) -> Answer {
    let details = reader.entry(&id, &which)?.details();
    let details = details.ok_or_else(Problem::not_found)?;
    Ok(reader.json(&details))
}

/// What was done, newest first
#[utoipa::path(get, path = "/api/v1/runs", params(DaysQuery, RunsQuery, PageQuery), responses(
    (status = 200, body = Page<RunView>)))]
pub(crate) async fn runs(
    reader: Reader,
    Asked(days): Asked<DaysQuery>,
    Asked(which): Asked<RunsQuery>,
    Asked(query): Asked<PageQuery>,
) -> Answer {
    if let Some(wanted) = &which.operation
        && !Operation::KNOWN
            .iter()
            .any(|known| known.as_str() == wanted)
    {
        return Err(Problem::bad_request(unknown_operation()));
    }
    let overview = &reader.overview;
    let since = days.since();
    let is = |wanted: &Option<String>, found: Option<&String>| {
        wanted.as_ref().is_none_or(|wanted| Some(wanted) == found)
    };
    let seen = overview.runs.iter().filter(|run| {
        reader.caller.0.sees(run.source.as_deref())
            && is(&which.operation, Some(&run.operation))
            && is(&which.source, run.source.as_ref())
            && since.as_ref().is_none_or(|since| run.started_at >= *since)
    });
    let incomplete = reader.incomplete();
    let page = query.page(seen, |run| run.id.clone(), incomplete)?;
    Ok(reader.json(&page))
}

fn unknown_operation() -> String {
    let known: Vec<_> = Operation::KNOWN.iter().map(Operation::as_str).collect();
    format!("operation: one of {}", known.join(", "))
}

/// Drills, newest first
#[utoipa::path(get, path = "/api/v1/drills", params(DaysQuery, PageQuery,
    ("source" = Option<String>, Query, description = "Only of this source.")), responses(
    (status = 200, body = Page<RunView>)))]
pub(crate) async fn drills(
    reader: Reader,
    days: Asked<DaysQuery>,
    Asked(which): Asked<RunsQuery>,
    query: Asked<PageQuery>,
) -> Answer {
    let drills = Asked(RunsQuery {
        operation: Some("drill".to_owned()),
        ..which
    });
    runs(reader, days, drills, query).await
}

async fn ready(State(server): State<Arc<Server>>) -> Answer {
    if server.is_ready() {
        Ok("ready\n".into_response())
    } else {
        Err(Problem::not_ready())
    }
}

async fn metrics(State(server): State<Arc<Server>>) -> Answer {
    if !server.metrics {
        return Err(Problem::not_found());
    }
    let text = server
        .overview()
        .ok_or_else(Problem::not_ready)?
        .check
        .metrics();
    let work = of_work(&server.jobs.all(), &server.missed());
    let text = format!("{text}{work}{}", server.bot.metrics());
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}
