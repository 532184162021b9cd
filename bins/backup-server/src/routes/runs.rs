//! One run: how it goes, what it made, and its end before its time.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use backup_app::access::Action;
use backup_app::{JobView, Role, RunView};
use backup_core::audit::AuditAction;
use backup_core::backup::SourceName;
use futures::{Stream, stream};
use serde::Serialize;
use tokio::sync::watch;
use utoipa::ToSchema;

use super::Answer;
use super::orders::at_run;
use crate::access::Caller;
use crate::audit::allowed;
use crate::body::Named;
use crate::problem::Problem;
use crate::state::Server;
use crate::turns::Turn;

/// How often a stream says that it is still there.
const ALIVE_EVERY: Duration = Duration::from_secs(15);

/// How a run goes, or went.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RunStatus {
    #[serde(flatten)]
    pub(crate) job: JobView,
    /// What the run left in the store, once it is read there.
    pub(crate) record: Option<RunView>,
}

/// One change of a run, as an event.
#[derive(Debug, ToSchema)]
#[expect(
    dead_code,
    reason = "for the description: events are written by the framework"
)]
pub(crate) struct RunEvent {
    /// The state.
    event: String,
    /// A `RunStatus`, as JSON.
    data: String,
}

/// How to get into a database to look into. The password is told once.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AccessView {
    host: String,
    port: u16,
    database: String,
    user: String,
    password: String,
}

impl RunStatus {
    /// What this person may read of it.
    pub(crate) fn of_job(mut job: JobView, caller: &Caller) -> Self {
        if caller.0.role < Role::Operator && job.by != caller.0.name {
            job.sandbox = None;
        }
        Self { job, record: None }
    }

    fn of_record(record: &RunView) -> Self {
        let job = JobView {
            id: record.id.clone(),
            operation: record.operation.clone(),
            source: record.source.clone(),
            backup: record.backup.clone(),
            by: record.who.user.clone(),
            slot: None,
            state: record.result,
            phase: None,
            bytes_done: record.bytes_read.or(record.raw_bytes).unwrap_or_default(),
            bytes_total: None,
            queued_at: record.started_at.clone(),
            started_at: Some(record.started_at.clone()),
            finished_at: Some(record.finished_at.clone()),
            runs: vec![record.id.clone()],
            error: None,
            sandbox: None,
        };
        Self {
            job,
            record: Some(record.clone()),
        }
    }
}

impl Caller {
    /// Whether he may stop this: it is his own, or his role says so.
    pub(crate) fn may_stop(&self, job: &JobView) -> Result<(), Problem> {
        if job.by == self.0.name {
            return Ok(());
        }
        self.may(Action::Cancel, job.source.as_deref())
    }
}

impl Server {
    /// A job that this person may know of.
    pub(crate) fn job(&self, caller: &Caller, id: &str) -> Option<JobView> {
        let job = self.jobs.get(id)?;
        caller.0.sees(job.source.as_deref()).then_some(job)
    }

    /// Stops a job for somebody who may, and writes down who; false if it is over.
    pub(crate) async fn stop(&self, caller: &Caller, job: &JobView) -> Result<bool, Problem> {
        if !self.jobs.cancel(&job.id) {
            return Ok(false);
        }
        let source = job.source.as_deref();
        let source = source.and_then(|name| SourceName::new(name).ok());
        let mut entry = allowed(caller, AuditAction::Cancel, source.as_ref());
        entry.run = job.id.parse().ok();
        self.audited(&entry).await?;
        Ok(true)
    }
}

/// How a run goes, or went
#[utoipa::path(get, path = "/api/v1/runs/{id}", params(("id" = String, Path)), responses(
    (status = 200, body = RunStatus)))]
pub(crate) async fn run(
    State(server): State<Arc<Server>>,
    caller: Caller,
    Named(id): Named,
) -> Answer {
    let overview = server.overview();
    let seen = |run: &&RunView| run.id == id && caller.0.sees(run.source.as_deref());
    let record = overview.as_ref();
    let record = record.and_then(|overview| overview.runs.iter().find(seen));
    let status = match (server.job(&caller, &id), record) {
        (Some(job), record) => {
            let mut status = RunStatus::of_job(job, &caller);
            status.record = record.cloned();
            status
        }
        (None, Some(record)) => RunStatus::of_record(record),
        (None, None) => return Err(Problem::not_found()),
    };
    Ok(Json(status).into_response())
}

/// Stop a run
#[utoipa::path(delete, path = "/api/v1/runs/{id}", params(("id" = String, Path)), responses(
    (status = 202, body = RunStatus)))]
pub(crate) async fn cancel(
    State(server): State<Arc<Server>>,
    caller: Caller,
    Named(id): Named,
) -> Answer {
    let Some(job) = server.job(&caller, &id) else {
        let overview = server.overview().ok_or_else(Problem::not_ready)?;
        let seen = |run: &&RunView| run.id == id && caller.0.sees(run.source.as_deref());
        let record = overview.runs.iter().find(seen);
        let record = record.ok_or_else(Problem::not_found)?;
        caller.may(Action::Cancel, record.source.as_deref())?;
        return Err(ended());
    };
    caller.may_stop(&job)?;
    if !server.stop(&caller, &job).await? {
        return Err(ended());
    }
    let job = server.jobs.get(&id).unwrap_or(job);
    let status = Json(RunStatus::of_job(job, &caller));
    Ok(at_run(&id, (StatusCode::ACCEPTED, status).into_response()))
}

fn ended() -> Problem {
    Problem::new(StatusCode::CONFLICT, "it is over, or not of this server")
}

/// How a run goes, as events: one per change, the last one says how it ended
#[utoipa::path(get, path = "/api/v1/runs/{id}/events", params(("id" = String, Path)), responses(
    (status = 200, body = RunEvent, content_type = "text/event-stream")))]
pub(crate) async fn events(
    State(server): State<Arc<Server>>,
    caller: Caller,
    Named(id): Named,
) -> Answer {
    server.job(&caller, &id).ok_or_else(Problem::not_found)?;
    let changes = server.jobs.watch(&id).ok_or_else(Problem::not_found)?;
    let turn = server.turns.stream(&caller.0.name).ok_or_else(|| {
        let detail = "too many streams at the same time; close one";
        Problem::new(StatusCode::TOO_MANY_REQUESTS, detail)
    })?;
    let alive = KeepAlive::new().interval(ALIVE_EVERY);
    let sse = Sse::new(stream_of(changes, caller, turn)).keep_alive(alive);
    Ok(sse.into_response())
}

/// What is sent, and to whom.
struct Sending {
    changes: watch::Receiver<JobView>,
    caller: Caller,
    sent: bool,
    over: bool,
    _turn: Turn,
}

fn stream_of(
    changes: watch::Receiver<JobView>,
    caller: Caller,
    turn: Turn,
) -> impl Stream<Item = Result<Event, Infallible>> {
    let sending = Sending {
        changes,
        caller,
        sent: false,
        over: false,
        _turn: turn,
    };
    stream::unfold(sending, async |mut sending| {
        if sending.over || (sending.sent && sending.changes.changed().await.is_err()) {
            return None;
        }
        sending.sent = true;
        let job = sending.changes.borrow_and_update().clone();
        sending.over = job.is_over();
        let state = job.state;
        let status = RunStatus::of_job(job, &sending.caller);
        let event = Event::default().event(state).json_data(status);
        Some((Ok(event.unwrap_or_default()), sending))
    })
}

/// How to get into what a restore made: told once, to who asked for it
#[utoipa::path(get, path = "/api/v1/runs/{id}/access", params(("id" = String, Path)), responses(
    (status = 200, body = AccessView)))]
pub(crate) async fn access(
    State(server): State<Arc<Server>>,
    caller: Caller,
    Named(id): Named,
) -> Answer {
    let job = server.job(&caller, &id).ok_or_else(Problem::not_found)?;
    caller.may(Action::Restore, job.source.as_deref())?;
    if job.by != caller.0.name {
        let detail = "only who asked for it is told";
        return Err(Problem::new(StatusCode::FORBIDDEN, detail));
    }
    if !job.is_over() {
        let detail = "it is not ready yet";
        return Err(Problem::new(StatusCode::CONFLICT, detail));
    }
    if job.sandbox.is_none() {
        return Err(Problem::not_found());
    }
    let Some(access) = server.jobs.take_access(&id, &caller.0.name) else {
        let detail = "it was told already, and is told once";
        return Err(Problem::new(StatusCode::GONE, detail));
    };
    let view = AccessView {
        host: access.host,
        port: access.port,
        user: access.database.clone(),
        database: access.database,
        password: access.password,
    };
    Ok(private(Json(view).into_response()))
}

/// An answer that nobody on the way keeps.
fn private(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
