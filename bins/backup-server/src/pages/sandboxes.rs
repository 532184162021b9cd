//! Databases that were made to be looked into.

use askama::Template;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};
use backup_app::text::shown;
use backup_core::sandbox::Sandbox;

use super::show::{When, in_path};
use super::words::Words;
use super::{Frame, Posted, Visit, render};
use crate::routes::sandboxes::{drop_for, may_drop, seen_by};

#[derive(Template)]
#[template(path = "sandboxes.html")]
struct Page {
    frame: Frame,
    w: &'static Words,
    problem: &'static str,
    rows: Vec<Row>,
}

struct Row {
    database: String,
    path: String,
    source: (String, String),
    backup: String,
    person: String,
    until: When,
    size: String,
    is_open: bool,
    may_drop: bool,
}

pub(super) async fn page(visit: Visit) -> Response {
    let w = visit.w;
    let (problem, there) = match seen_by(&visit.server, &visit.caller).await {
        Ok(Some(there)) => ("", there),
        Ok(None) => (w.no_sandbox_server, Vec::new()),
        Err(_) => (w.unreachable, Vec::new()),
    };
    let page = Page {
        frame: visit.frame("sandboxes", w.sandboxes),
        w,
        problem,
        rows: there.iter().map(|one| row(&visit, one)).collect(),
    };
    render(StatusCode::OK, &page)
}

fn row(visit: &Visit, sandbox: &Sandbox) -> Row {
    let source = sandbox.source.as_str();
    let bytes = sandbox.bytes.map(|bytes| visit.w.size(bytes));
    Row {
        database: shown(&sandbox.database),
        path: in_path(&sandbox.database),
        source: (shown(source), in_path(source)),
        backup: sandbox.backup.to_string(),
        person: shown(&sandbox.tenancy.person),
        until: visit.when(sandbox.tenancy.until, visit.zone_of(source)),
        size: bytes.unwrap_or_else(|| "–".to_owned()),
        is_open: sandbox.is_open,
        may_drop: may_drop(&visit.caller, sandbox),
    }
}

/// Drops one before its time.
pub(super) async fn remove(Path(name): Path<String>, posted: Posted) -> Response {
    let visit = posted.visit;
    match drop_for(&visit.server, &visit.caller, &name).await {
        Ok(()) => Redirect::to("/sandboxes").into_response(),
        Err(problem) => visit.problem(&problem),
    }
}
