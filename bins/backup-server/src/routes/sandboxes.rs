//! Databases that people look into.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use backup_app::{Role, SandboxSetup, text};
use backup_core::audit::AuditAction;
use backup_core::error::{ErrorKind, PortError, chain};
use backup_core::sandbox::{Sandbox, SandboxServer as _, is_sandbox_name};
use serde::Serialize;
use utoipa::ToSchema;

use super::Answer;
use crate::access::Caller;
use crate::answer::Page;
use crate::audit::allowed;
use crate::body::Named;
use crate::problem::Problem;
use crate::state::Server;

/// How long the server of the sandboxes may take.
const LIMIT: Duration = Duration::from_secs(20);

/// A database to look into.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct SandboxEntry {
    /// Its name, and that of its login.
    database: String,
    /// Who asked for it.
    person: String,
    source: String,
    backup: String,
    /// When it is dropped.
    until: String,
    /// Whether its restore is over.
    ready: bool,
    bytes: Option<u64>,
    sessions: u64,
}

impl From<Sandbox> for SandboxEntry {
    fn from(sandbox: Sandbox) -> Self {
        Self {
            database: sandbox.database,
            person: sandbox.tenancy.person,
            source: sandbox.source.to_string(),
            backup: sandbox.backup.to_string(),
            until: text::time(sandbox.tenancy.until),
            ready: sandbox.is_open,
            bytes: sandbox.bytes,
            sessions: sandbox.sessions,
        }
    }
}

/// Whether somebody may know of one: it is his, or he runs the source's backups.
fn sees(caller: &Caller, sandbox: &Sandbox) -> bool {
    let source = Some(sandbox.source.as_str());
    let own = sandbox.tenancy.person == caller.0.name;
    caller.0.sees(source) && (own || caller.0.role >= Role::Operator)
}

/// Whether somebody may drop one before its time: it is his, or he may do everything.
pub(crate) fn may_drop(caller: &Caller, sandbox: &Sandbox) -> bool {
    sandbox.tenancy.person == caller.0.name || caller.0.role >= Role::Admin
}

/// Those that somebody may know of; nothing where no server makes any.
pub(crate) async fn seen_by(
    server: &Server,
    caller: &Caller,
) -> Result<Option<Vec<Sandbox>>, Problem> {
    let Some(setup) = setup(server).await? else {
        return Ok(None);
    };
    let mut there = list(server, &setup).await?;
    there.retain(|sandbox| sees(caller, sandbox));
    Ok(Some(there))
}

/// Drops one for somebody.
pub(crate) async fn drop_for(server: &Server, caller: &Caller, name: &str) -> Result<(), Problem> {
    let setup = setup(server).await?.filter(|_| is_sandbox_name(name));
    let setup = setup.ok_or_else(Problem::not_found)?;
    let there = list(server, &setup).await?;
    let found = there.into_iter().find(|sandbox| sandbox.database == name);
    let found = found.filter(|sandbox| sees(caller, sandbox));
    let sandbox = found.ok_or_else(Problem::not_found)?;
    if !may_drop(caller, &sandbox) {
        let detail = "only who asked for it, or an admin, may drop it";
        return Err(Problem::new(StatusCode::FORBIDDEN, detail));
    }
    server.turn(caller)?;
    let mut entry = allowed(caller, AuditAction::DropSandbox, Some(&sandbox.source));
    entry.database = Some(name.to_owned());
    server.audited(&entry).await?;
    within(setup.server.remove(name)).await.map(drop)
}

/// Databases to look into: one's own, and for operators those of others
#[utoipa::path(get, path = "/api/v1/sandboxes", responses(
    (status = 200, body = Page<SandboxEntry>)))]
pub(crate) async fn sandboxes(State(server): State<Arc<Server>>, caller: Caller) -> Answer {
    let seen = seen_by(&server, &caller).await?.unwrap_or_default();
    let page = Page {
        items: seen.into_iter().map(SandboxEntry::from).collect(),
        next: None,
        incomplete: Vec::new(),
    };
    Ok(Json(page).into_response())
}

/// Drop a database to look into, before its time
#[utoipa::path(delete, path = "/api/v1/sandboxes/{name}", params(("name" = String, Path)),
    responses((status = 204)))]
pub(crate) async fn remove(
    State(server): State<Arc<Server>>,
    caller: Caller,
    Named(name): Named,
) -> Answer {
    drop_for(&server, &caller, &name).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Reads secrets, which may take as long as a command that tells them.
async fn setup(server: &Server) -> Result<Option<SandboxSetup>, Problem> {
    let app = Arc::clone(&server.app);
    let setup = tokio::task::spawn_blocking(move || app.sandboxes()).await;
    setup.map_err(|_| Problem::broken())?.map_err(|error| {
        tracing::warn!(target: "backup", "sandboxes: {}", error.render());
        unknown()
    })
}

/// All that are there. A few ask at once, so that no crowd takes all connections of that server.
async fn list(server: &Server, setup: &SandboxSetup) -> Result<Vec<Sandbox>, Problem> {
    within(async {
        let _turn = server.looks.acquire().await.ok();
        setup.server.list().await
    })
    .await
}

async fn within<T>(work: impl Future<Output = Result<T, PortError>>) -> Result<T, Problem> {
    match tokio::time::timeout(LIMIT, work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) if error.kind() == ErrorKind::NotFound => Err(Problem::not_found()),
        Ok(Err(error)) => {
            tracing::warn!(target: "backup", "sandboxes: {}", chain(&error));
            Err(unknown())
        }
        Err(_) => Err(unknown()),
    }
}

fn unknown() -> Problem {
    let detail = "the server of these databases does not answer; the log knows more";
    Problem::new(StatusCode::BAD_GATEWAY, detail)
}
