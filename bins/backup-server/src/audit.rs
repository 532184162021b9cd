//! Who asked for what that changes something, and who was not let do it.

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use backup_app::who;
use backup_core::audit::{AddressClass, AuditAction, AuditEntry, AuditOutcome};
use backup_core::backup::SourceName;

use crate::access::{Caller, address};
use crate::problem::Problem;
use crate::state::Server;

/// A request that is let through.
pub(crate) fn allowed(
    caller: &Caller,
    action: AuditAction,
    source: Option<&SourceName>,
) -> AuditEntry {
    AuditEntry {
        person: Some(caller.0.name.clone()),
        source: source.cloned(),
        ..AuditEntry::new(action, AuditOutcome::Allowed, who())
    }
}

impl Server {
    /// Writes down a request that is let through. What takes something away is not done unless that
    /// is written first.
    pub(crate) async fn audited(&self, entry: &AuditEntry) -> Result<(), Problem> {
        let written = self.audit.allowed(&self.app, entry).await;
        written.map_err(|_| {
            let detail = "it cannot be written down who does this, so it is not done; \
                          the log of the server knows more";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
        })
    }
}

/// Writes down who was not let do what he asked for, and wrong tokens; what is alike is counted.
pub(crate) async fn denials(
    State(server): State<Arc<Server>>,
    request: Request,
    next: Next,
) -> Response {
    let changes = !request.method().is_safe();
    // Behind a proxy, everybody comes from there.
    let is_direct = !server.app.config().server_http.behind_tls_proxy;
    let from = is_direct.then(|| AddressClass::of(address(&server, &request)));
    let action = action(&request);
    let response = next.run(request).await;
    let action = match response.status() {
        StatusCode::UNAUTHORIZED | StatusCode::TOO_MANY_REQUESTS
            if response.extensions().get::<Caller>().is_none() =>
        {
            AuditAction::SignIn
        }
        StatusCode::FORBIDDEN | StatusCode::NOT_FOUND if changes => action,
        _ => return response,
    };
    let caller = response.extensions().get::<Caller>();
    let entry = AuditEntry {
        person: caller.map(|caller| caller.0.name.clone()),
        address: from,
        ..AuditEntry::new(action, AuditOutcome::Denied, who())
    };
    // Nobody learns from the time of the answer whether it was written.
    tokio::spawn(async move { server.audit.denied(&server.app, entry).await });
    response
}

/// What was asked for, as far as the route tells.
fn action(request: &Request) -> AuditAction {
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map_or("", MatchedPath::as_str);
    let last = route.rsplit('/').next().unwrap_or_default();
    match (request.method(), last) {
        (_, "backups" | "backup") => AuditAction::Backup,
        (_, "restores" | "restore" | "access") => AuditAction::Restore,
        (_, "drills" | "drill" | "test-restore") => AuditAction::Drill,
        (_, "verifications" | "verify") => AuditAction::Verify,
        (&Method::DELETE, "pin") | (_, "unpin") => AuditAction::Unpin,
        (_, "pin") => AuditAction::Pin,
        _ if route.contains("/runs/") => AuditAction::Cancel,
        _ if route.contains("/sandboxes/") => AuditAction::DropSandbox,
        _ => AuditAction::Other("request".to_owned()),
    }
}
