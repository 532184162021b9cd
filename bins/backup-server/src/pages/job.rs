//! A run of this process while it goes on, and what came of it.

use askama::Template;
use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use backup_app::access::Action;
use backup_app::text::shown;
use backup_app::{JobView, Role};
use backup_core::sandbox::SandboxAccess;

use super::show::{Chip, When, in_path, percent};
use super::words::Words;
use super::{Frame, Posted, Visit, render};
use crate::routes::runs::RunStatus;

#[derive(Template)]
#[template(path = "job.html")]
struct Page {
    frame: Frame,
    w: &'static Words,
    job: Job,
    may_cancel: bool,
    may_connect: bool,
    access: Option<SandboxAccess>,
    was_told: bool,
}

/// The part of the page that changes.
#[derive(Template)]
#[template(path = "progress.html")]
struct Progress {
    w: &'static Words,
    job: Job,
}

struct Job {
    id: String,
    operation: String,
    source: Option<(String, String)>,
    backup: Option<String>,
    by: String,
    chip: Chip,
    is_over: bool,
    is_queued: bool,
    phase: Option<String>,
    done: String,
    total: Option<String>,
    percent: Option<u64>,
    started: Option<When>,
    finished: Option<When>,
    error: Option<(String, String)>,
    sandbox: Option<Sandbox>,
}

struct Sandbox {
    database: String,
    host: String,
    port: u16,
    until: Option<When>,
    chip: Chip,
    content: String,
}

impl Visit {
    /// A job that he may know of, with what he may know of it.
    pub(super) fn job(&self, id: &str) -> Option<JobView> {
        let job = self.server.job(&self.caller, id)?;
        Some(RunStatus::of_job(job, &self.caller).job)
    }
}

/// The page of a job.
pub(super) fn page(visit: &Visit, job: &JobView) -> Response {
    page_with(visit, job, None, false)
}

fn page_with(
    visit: &Visit,
    job: &JobView,
    access: Option<SandboxAccess>,
    was_told: bool,
) -> Response {
    let w = visit.w;
    let own = job.by == visit.caller.0.name;
    let page = Page {
        frame: visit.frame("runs", w.operation(&job.operation)),
        w,
        may_cancel: !job.is_over() && visit.caller.may_stop(job).is_ok(),
        may_connect: own && job.is_over() && job.sandbox.is_some(),
        job: view(visit, job),
        access,
        was_told,
    };
    render(StatusCode::OK, &page)
}

/// How it stands now, for the script.
pub(super) async fn progress(visit: Visit, Path(id): Path<String>) -> Response {
    let Some(job) = visit.job(&id) else {
        return visit.not_found();
    };
    let part = Progress {
        w: visit.w,
        job: view(&visit, &job),
    };
    render(StatusCode::OK, &part)
}

/// How to get in: told once, and only to who asked for it.
pub(super) async fn access(Path(id): Path<String>, posted: Posted) -> Response {
    let visit = posted.visit;
    let Some(job) = visit.job(&id) else {
        return visit.not_found();
    };
    let source = job.source.as_deref();
    if let Err(problem) = visit.caller.may(Action::Restore, source) {
        return visit.problem(&problem);
    }
    let access = visit.server.jobs.take_access(&id, &visit.caller.0.name);
    let was_told = access.is_none();
    let page = page_with(&visit, &job, access, was_told);
    ([(header::CACHE_CONTROL, "no-store")], page).into_response()
}

fn view(visit: &Visit, job: &JobView) -> Job {
    let w = visit.w;
    let source = job.source.as_deref();
    let zone = source.map_or(visit.server.zone, |source| visit.zone_of(source));
    let when = |time: &Option<String>| visit.when_text(time.as_deref()?, zone);
    let sandbox = job.sandbox.as_ref();
    let error = job.error.as_ref().map(|error| {
        if visit.caller.0.role >= Role::Operator {
            let hint = error.hint.as_deref().map(shown).unwrap_or_default();
            (shown(&error.message), hint)
        } else {
            (w.failure(&error.kind).to_owned(), String::new())
        }
    });
    let total = job.bytes_total.filter(|total| *total > 0);
    Job {
        id: in_path(&job.id),
        operation: shown(w.operation(&job.operation)),
        source: source.map(|source| (shown(source), in_path(source))),
        backup: job.backup.as_deref().map(in_path),
        by: shown(&job.by),
        chip: w.chip(job.state),
        is_over: job.is_over(),
        is_queued: job.state == "queued",
        phase: job.phase.as_deref().map(shown),
        done: w.size(job.bytes_done),
        total: total.map(|total| w.size(total)),
        percent: total.map(|total| percent(job.bytes_done, total)),
        started: when(&job.started_at),
        finished: when(&job.finished_at),
        error,
        sandbox: sandbox.map(|sandbox| Sandbox {
            database: shown(&sandbox.database),
            host: shown(&sandbox.host),
            port: sandbox.port,
            until: visit.when_text(&sandbox.until, zone),
            chip: w.chip(sandbox.compared),
            content: format!(
                "{}, {}",
                w.counted(sandbox.tables, w.n_tables),
                w.counted(sandbox.rows, w.n_rows)
            ),
        }),
    }
}
