//! Work that is asked for: it is queued, and the answer says where to look for it.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use backup_app::access::Action;
use backup_app::{BackupEntry, JobRefusal, JobView, Order, Work};
use backup_core::audit::{AuditAction, AuditEntry};
use backup_core::backup::{BackupId, SourceName};
use backup_core::engine::VerifyLevel;
use backup_core::restorer::Selection;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::Answer;
use super::runs::RunStatus;
use crate::access::Caller;
use crate::answer::{Asked, Reader};
use crate::audit::allowed;
use crate::body::{Named, Sent};
use crate::problem::Problem;
use crate::state::Server;

/// How many schemas and tables may be named, and how long their names may be.
const NAMES: usize = 1000;
const NAME_LENGTH: usize = 255;

/// Nothing to say.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Nothing {}

/// What to restore. Where to is never said: the server makes a database of its own and names it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RestoreOrder {
    target: Target,
    /// These schemas only.
    #[serde(default)]
    #[schema(max_items = 1000)]
    schemas: Vec<String>,
    /// These tables only, as `schema.table`.
    #[serde(default)]
    #[schema(max_items = 1000)]
    tables: Vec<String>,
}

/// What kind of restore.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Target {
    /// A database to look into, for a time.
    Archive,
}

/// How deep to look.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct VerifyOrder {
    level: Level,
}

/// `stored`: everything is there; `hashed`: every byte is as written; `decoded`: every row is.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Level {
    Stored,
    Hashed,
    Decoded,
}

/// Which of several sources, where their backups have the same id.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct SourceQuery {
    /// The source, if that is not clear.
    pub(crate) source: Option<String>,
}

/// Take a backup now
#[utoipa::path(post, path = "/api/v1/sources/{source}/backups", request_body = Nothing,
    params(("source" = String, Path)), responses((status = 202, body = RunStatus)))]
pub(crate) async fn backup(
    State(server): State<Arc<Server>>,
    caller: Caller,
    Named(name): Named,
    Sent(Nothing {}): Sent<Nothing>,
) -> Answer {
    caller.may(Action::Backup, Some(&name))?;
    let source = SourceName::new(name.as_str()).map_err(|_| Problem::not_found())?;
    if server.app.config().settings_of(source.as_str()).is_none() {
        return Err(Problem::not_found());
    }
    start(&server, &caller, Work::Backup { source }).await
}

/// Restore a backup into a database to look into
#[utoipa::path(post, path = "/api/v1/backups/{id}/restores", request_body = RestoreOrder,
    params(("id" = String, Path), SourceQuery), responses((status = 202, body = RunStatus)))]
pub(crate) async fn restore(
    State(server): State<Arc<Server>>,
    reader: Reader,
    Named(id): Named,
    Asked(which): Asked<SourceQuery>,
    Sent(order): Sent<RestoreOrder>,
) -> Answer {
    let (source, backup) = reader.stored(Action::Restore, &id, &which)?;
    if !reader.entry(&id, &which)?.view.is_database() {
        let detail = "this backup is of no database: restore --target-dir writes it as files";
        return Err(Problem::new(StatusCode::CONFLICT, detail));
    }
    let RestoreOrder {
        target: Target::Archive,
        schemas,
        tables,
    } = order;
    let selection = Selection {
        schemas: names(schemas)?,
        tables: names(tables)?,
        definitions_only: false,
        content_only: false,
    };
    let work = Work::Sandbox {
        source,
        backup,
        selection,
    };
    start(&server, &reader.caller, work).await
}

/// Rehearse the restore of a backup
#[utoipa::path(post, path = "/api/v1/backups/{id}/drills", request_body = Nothing,
    params(("id" = String, Path), SourceQuery), responses((status = 202, body = RunStatus)))]
pub(crate) async fn drill(
    State(server): State<Arc<Server>>,
    reader: Reader,
    Named(id): Named,
    Asked(which): Asked<SourceQuery>,
    Sent(Nothing {}): Sent<Nothing>,
) -> Answer {
    let (source, backup) = reader.stored(Action::Drill, &id, &which)?;
    start(&server, &reader.caller, Work::Drill { source, backup }).await
}

/// Prove that a stored backup is good
#[utoipa::path(post, path = "/api/v1/backups/{id}/verifications", request_body = VerifyOrder,
    params(("id" = String, Path), SourceQuery), responses((status = 202, body = RunStatus)))]
pub(crate) async fn verify(
    State(server): State<Arc<Server>>,
    reader: Reader,
    Named(id): Named,
    Asked(which): Asked<SourceQuery>,
    Sent(order): Sent<VerifyOrder>,
) -> Answer {
    let (source, backup) = reader.stored(Action::Verify, &id, &which)?;
    let level = match order.level {
        Level::Stored => VerifyLevel::Stored,
        Level::Hashed => VerifyLevel::Hashed,
        Level::Decoded => VerifyLevel::Decoded,
    };
    let work = Work::Verify {
        source,
        backup,
        level,
    };
    start(&server, &reader.caller, work).await
}

/// Queues work and says where to look for it.
pub(crate) async fn start(server: &Arc<Server>, caller: &Caller, work: Work) -> Answer {
    match queue(server, caller, work).await? {
        Ok(job) => Ok(accepted(caller, job)),
        Err(refusal) => refused(&refusal),
    }
}

/// Queues work, and writes down who wants it, whether or not he still waits for the answer.
pub(crate) async fn queue(
    server: &Arc<Server>,
    caller: &Caller,
    work: Work,
) -> Result<Result<JobView, JobRefusal>, Problem> {
    server.turn(caller)?;
    let mut entry = ordered(caller, &work);
    let order = Order {
        work,
        by: caller.0.name.clone(),
        slot: None,
    };
    let server = Arc::clone(server);
    let queued = tokio::spawn(async move {
        let started = server.jobs.start(order);
        if let Ok(job) = &started {
            entry.run = job.id.parse().ok();
            server.audited(&entry).await?;
        }
        Ok(started)
    });
    queued.await.unwrap_or_else(|_| Err(Problem::broken()))
}

/// Work that is asked for, as it is written down.
fn ordered(caller: &Caller, work: &Work) -> AuditEntry {
    let (action, source, backup) = match work {
        Work::Backup { source } => (AuditAction::Backup, Some(source), None),
        Work::Verify { source, backup, .. } => (AuditAction::Verify, Some(source), Some(backup)),
        Work::Drill { source, backup } => (AuditAction::Drill, Some(source), Some(backup)),
        Work::Sandbox { source, backup, .. } => (AuditAction::Restore, Some(source), Some(backup)),
        Work::VerifyDue => (AuditAction::Verify, None, None),
        Work::DrillDue => (AuditAction::Drill, None, None),
        Work::Prune => (AuditAction::Prune, None, None),
    };
    let mut entry = allowed(caller, action, source);
    entry.backups.extend(backup.cloned());
    entry
}

fn accepted(caller: &Caller, job: JobView) -> Response {
    let id = job.id.clone();
    let body = axum::Json(RunStatus::of_job(job, caller));
    at_run(&id, (StatusCode::ACCEPTED, body).into_response())
}

/// An answer that says where a run is looked at.
pub(crate) fn at_run(id: &str, mut response: Response) -> Response {
    if let Ok(location) = HeaderValue::from_str(&format!("/api/v1/runs/{id}")) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

fn refused(refusal: &JobRefusal) -> Answer {
    match refusal {
        JobRefusal::TooMany { .. } => {
            let detail = "too much is waiting already; try again later";
            Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, detail))
        }
        JobRefusal::Running { id } => {
            let detail = "the same is being done already; Location says where";
            let problem = Problem::new(StatusCode::CONFLICT, detail);
            Ok(at_run(id, problem.into_response()))
        }
        JobRefusal::OneAtATime { id } => {
            let detail =
                "another database of yours is being made; wait for it: Location says where";
            let problem = Problem::new(StatusCode::CONFLICT, detail);
            Ok(at_run(id, problem.into_response()))
        }
        JobRefusal::NoSandboxes => {
            let detail = "there is no server for databases to look into: configure [sandbox]";
            Err(Problem::new(StatusCode::CONFLICT, detail))
        }
        JobRefusal::Stopping => {
            let detail = "the server is about to stop";
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail))
        }
    }
}

impl Reader {
    /// The one stored backup of this id that he may know of, if he may do that with it.
    pub(crate) fn stored(
        &self,
        action: Action,
        id: &str,
        which: &SourceQuery,
    ) -> Result<(SourceName, BackupId), Problem> {
        let entry = self.entry(id, which)?;
        self.caller.may(action, Some(&entry.view.source))?;
        let source = SourceName::new(entry.view.source.as_str());
        let (Ok(source), Ok(backup)) = (source, id.parse()) else {
            return Err(Problem::not_found());
        };
        Ok((source, backup))
    }

    /// The one stored backup of this id that he may know of.
    pub(crate) fn entry(&self, id: &str, which: &SourceQuery) -> Result<&BackupEntry, Problem> {
        let backups = self.overview.backups.iter();
        let mut found = backups.filter(|backup| {
            let source = &backup.view.source;
            let meant = which.source.as_ref().is_none_or(|wanted| wanted == source);
            backup.view.id == id && meant && self.caller.0.sees(Some(source))
        });
        match (found.next(), found.next()) {
            (Some(entry), None) => Ok(entry),
            (None, _) => Err(Problem::not_found()),
            (Some(_), Some(_)) => {
                let detail = "several sources have a backup of this id: say which, as ?source=";
                Err(Problem::bad_request(detail))
            }
        }
    }
}

fn names(names: Vec<String>) -> Result<Vec<String>, Problem> {
    let is_name = |name: &String| {
        !name.is_empty() && name.len() <= NAME_LENGTH && !name.chars().any(char::is_control)
    };
    if names.len() > NAMES || !names.iter().all(is_name) {
        let detail = "names of schemas and tables are not empty, not long, and not many";
        return Err(Problem::bad_request(detail));
    }
    Ok(names)
}
