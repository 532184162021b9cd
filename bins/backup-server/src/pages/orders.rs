//! What people ask for with a form: it is queued like what programs ask for, and the page of the
//! run tells how it goes.

use std::sync::Arc;

use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};
use backup_app::access::Action;
use backup_app::{JobRefusal, PinChange, Work};
use backup_core::backup::{BackupId, SourceName};
use backup_core::engine::VerifyLevel;
use backup_core::restorer::Selection;

use super::show::in_path;
use super::{Posted, Visit};
use crate::problem::Problem;
use crate::routes::orders::queue;
use crate::routes::pins::change_for;

/// How many schemas and tables may be named, and how long their names may be.
const NAMES: usize = 1000;
const NAME_LENGTH: usize = 255;

/// Takes a backup now.
pub(super) async fn backup(Path(name): Path<String>, posted: Posted) -> Response {
    let visit = posted.visit;
    if let Err(problem) = visit.caller.may(Action::Backup, Some(&name)) {
        return visit.problem(&problem);
    }
    let configured = visit.server.app.config().settings_of(&name).is_some();
    match SourceName::new(name.as_str()) {
        Ok(source) if configured => start(&visit, Work::Backup { source }).await,
        _ => visit.not_found(),
    }
}

/// Reads a stored backup and compares every row with what was dumped.
pub(super) async fn verify(Path(id): Path<String>, posted: Posted) -> Response {
    let level = VerifyLevel::Decoded;
    match posted.backup(Action::Verify, &id) {
        Err(problem) => posted.visit.problem(&problem),
        Ok((source, backup)) => {
            let work = Work::Verify {
                source,
                backup,
                level,
            };
            start(&posted.visit, work).await
        }
    }
}

/// Rehearses the restore of a backup.
pub(super) async fn drill(Path(id): Path<String>, posted: Posted) -> Response {
    match posted.backup(Action::Drill, &id) {
        Err(problem) => posted.visit.problem(&problem),
        Ok((source, backup)) => start(&posted.visit, Work::Drill { source, backup }).await,
    }
}

/// Says that a backup stays.
pub(super) async fn pin(Path(id): Path<String>, posted: Posted) -> Response {
    let set = PinChange::Set {
        until: None,
        reason: None,
    };
    change_pin(&posted, Action::Pin, &id, set).await
}

/// Lets a backup that was kept go when its policy says so.
pub(super) async fn unpin(Path(id): Path<String>, posted: Posted) -> Response {
    change_pin(&posted, Action::Unpin, &id, PinChange::Remove).await
}

async fn change_pin(posted: &Posted, action: Action, id: &str, change: PinChange) -> Response {
    let visit = &posted.visit;
    let of = match posted.backup(action, id) {
        Ok(of) => of,
        Err(problem) => return posted.visit.problem(&problem),
    };
    if let Err(problem) = visit.server.turn(&visit.caller) {
        return visit.problem(&problem);
    }
    let by = (Arc::clone(&visit.server), &visit.caller);
    match change_for(by, of, change).await {
        // What was last read of the places may not know of it for some seconds.
        Ok(_) => {
            let (id, source) = (in_path(id), in_path(posted.field("source")));
            Redirect::to(&format!("/backups/{id}?source={source}")).into_response()
        }
        Err(problem) => visit.problem(&problem),
    }
}

/// Makes a database to look into.
pub(super) async fn restore(posted: Posted) -> Response {
    let visit = &posted.visit;
    let w = visit.w;
    let id = posted.field("backup");
    let (source, backup) = match posted.backup(Action::Restore, id) {
        Ok(found) => found,
        Err(problem) => return posted.visit.problem(&problem),
    };
    let mut all = visit.overview.backups.iter();
    let is_database = all.any(|one| {
        one.view.id == id && one.view.source == source.as_str() && one.view.is_database()
    });
    if !is_database {
        return visit.note(StatusCode::CONFLICT, w.refused, w.no_database);
    }
    let (Some(schemas), Some(tables)) = (
        names(posted.field("schemas")),
        names(posted.field("tables")),
    ) else {
        return visit.note(StatusCode::BAD_REQUEST, w.refused, w.wrong_names);
    };
    let selection = Selection {
        schemas,
        tables,
        definitions_only: false,
        content_only: false,
    };
    let work = Work::Sandbox {
        source,
        backup,
        selection,
    };
    start(visit, work).await
}

/// Stops a run.
pub(super) async fn cancel(Path(id): Path<String>, posted: Posted) -> Response {
    let visit = posted.visit;
    let Some(job) = visit.job(&id) else {
        return visit.not_found();
    };
    if let Err(problem) = visit.caller.may_stop(&job) {
        return visit.problem(&problem);
    }
    // One that has ended meanwhile has a page that says so.
    if let Err(problem) = visit.server.stop(&visit.caller, &job).await {
        return visit.problem(&problem);
    }
    Redirect::to(&format!("/runs/{}", in_path(&id))).into_response()
}

async fn start(visit: &Visit, work: Work) -> Response {
    let w = visit.w;
    let queued = match queue(&visit.server, &visit.caller, work).await {
        Ok(queued) => queued,
        Err(problem) => return visit.problem(&problem),
    };
    let refuse = |status, refusal| visit.note(status, w.refused, w.refusal(refusal));
    let refusal = match queued {
        Ok(job) => return Redirect::to(&format!("/runs/{}", in_path(&job.id))).into_response(),
        Err(refusal) => refusal,
    };
    match &refusal {
        // What he wants is being done: he can look at it.
        JobRefusal::Running { id } if visit.job(id).is_some() => {
            Redirect::to(&format!("/runs/{}", in_path(id))).into_response()
        }
        // That is something else: he must not take it for what he asked for.
        JobRefusal::OneAtATime { id } => visit.note_about(
            StatusCode::CONFLICT,
            (w.refused, w.refusal(&refusal)),
            Some((format!("/runs/{}", in_path(id)), w.look_at_it)),
        ),
        JobRefusal::TooMany { .. } => refuse(StatusCode::TOO_MANY_REQUESTS, &refusal),
        JobRefusal::Stopping => refuse(StatusCode::SERVICE_UNAVAILABLE, &refusal),
        JobRefusal::Running { .. } | JobRefusal::NoSandboxes => {
            refuse(StatusCode::CONFLICT, &refusal)
        }
    }
}

impl Posted {
    pub(super) fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", |text| text.trim())
    }

    /// The stored backup that a form is about, if he may do that with it.
    fn backup(&self, action: Action, id: &str) -> Result<(SourceName, BackupId), Problem> {
        let visit = &self.visit;
        let source = self.field("source");
        visit.caller.may(action, Some(source))?;
        let mut all = visit.overview.backups.iter();
        let is_there = all.any(|one| one.view.id == id && one.view.source == source);
        match (SourceName::new(source), id.parse()) {
            (Ok(source), Ok(backup)) if is_there => Ok((source, backup)),
            _ => Err(Problem::not_found()),
        }
    }
}

/// Names with commas between them.
fn names(said: &str) -> Option<Vec<String>> {
    let names = said
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty());
    let names: Vec<_> = names.map(str::to_owned).collect();
    let is_name = |name: &String| name.len() <= NAME_LENGTH && !name.chars().any(char::is_control);
    (names.len() <= NAMES && names.iter().all(is_name)).then_some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart_by_commas() {
        let expected = vec!["a".to_owned(), "b c.d".to_owned()];
        assert_eq!(names(" a, b c.d ,,"), Some(expected));
        assert_eq!(names(""), Some(Vec::new()));
        assert_eq!(names("a\nb"), None);
        assert_eq!(names(&"x".repeat(NAME_LENGTH + 1)), None);
        assert_eq!(names(&"x,".repeat(NAMES + 1)), None);
    }
}
