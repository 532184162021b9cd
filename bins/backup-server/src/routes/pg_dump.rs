//! The paths and fields of set-ups that had one database and one file for each backup. They answer
//! for the only source that a token may see, or for `?source=`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use backup_app::access::Action;
use backup_app::{BackupEntry, RunView, Work};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::orders::{SourceQuery, start};
use super::runs::RunStatus;
use super::{Answer, DaysQuery};
use crate::answer::{Asked, Reader};
use crate::body::Unlabelled;
use crate::problem::Problem;
use crate::state::Server;

/// No list is longer.
const MOST: usize = 1000;

/// A backup, under the names that such set-ups have for it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Execution {
    id: String,
    source: String,
    /// `pg_dump`
    backup_type: &'static str,
    backup_date: String,
    /// What `test-restore` takes; a backup is several objects, and this is its id.
    filename: String,
    file_size_bytes: u64,
    /// Of the one part, if it has one; each part of a backup has its own.
    checksum_crc32: Option<String>,
    status: &'static str,
    duration_seconds: f64,
    error_message: Option<String>,
    created_at: String,
    retention_until: Option<String>,
    restore_tested_at: Option<String>,
    /// `success`, `failed` or `not_tested`
    restore_test_status: String,
}

/// A rehearsal of a restore.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Rehearsal {
    id: String,
    source: Option<String>,
    filename: Option<String>,
    restore_tested_at: String,
    restore_test_status: &'static str,
    duration_seconds: f64,
    error_message: Option<String>,
}

/// Which backup to rehearse: the newest if not said.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TestOrder {
    backup_filename: Option<String>,
}

impl Execution {
    fn new(entry: &BackupEntry) -> Self {
        let (view, details) = (&entry.view, entry.details().unwrap_or_default());
        let checksum = match details.parts.as_slice() {
            [part] => Some(part.crc32().to_owned()),
            _ => None,
        };
        let tested = view.drill_status.as_deref();
        Self {
            id: view.id.clone(),
            source: view.source.clone(),
            backup_type: "pg_dump",
            backup_date: view.started_at.clone(),
            filename: view.id.clone(),
            file_size_bytes: view.stored_bytes,
            checksum_crc32: checksum,
            status: view.status,
            duration_seconds: details.duration_seconds,
            error_message: None,
            created_at: details.finished_at.unwrap_or_default(),
            retention_until: view.retention_until.clone(),
            restore_tested_at: view.drilled_at.clone(),
            restore_test_status: tested.unwrap_or("not_tested").to_owned(),
        }
    }
}

impl From<&RunView> for Rehearsal {
    fn from(run: &RunView) -> Self {
        Self {
            id: run.id.clone(),
            source: run.source.clone(),
            filename: run.backup.clone(),
            restore_tested_at: run.finished_at.clone(),
            restore_test_status: run.result,
            duration_seconds: run.duration_seconds,
            error_message: run.error.clone(),
        }
    }
}

impl Reader {
    /// The source that is meant.
    fn only(&self, which: SourceQuery) -> Result<String, Problem> {
        if let Some(source) = which.source {
            self.caller.may(Action::View, Some(&source))?;
            return Ok(source);
        }
        let sources = self.overview.sources.iter();
        let mut seen = sources.filter(|source| self.caller.0.sees(Some(&source.name)));
        match (seen.next(), seen.next()) {
            (Some(source), None) => Ok(source.name.clone()),
            (None, _) => Err(Problem::not_found()),
            (Some(_), Some(_)) => {
                let detail = "there are several sources: say which, as ?source=";
                Err(Problem::bad_request(detail))
            }
        }
    }

    fn of<'a>(&'a self, source: &'a str) -> impl Iterator<Item = &'a BackupEntry> {
        let backups = self.overview.backups.iter();
        backups.filter(move |backup| backup.view.source == source)
    }
}

/// The newest backup
#[utoipa::path(get, path = "/api/v1/backups/pg-dump/latest", params(SourceQuery), responses(
    (status = 200, body = Execution)))]
pub(crate) async fn latest(reader: Reader, Asked(which): Asked<SourceQuery>) -> Answer {
    let source = reader.only(which)?;
    let found = reader.of(&source).find(|backup| backup.is_whole);
    let found = found.ok_or_else(Problem::not_found)?;
    Ok(reader.json(&Execution::new(found)))
}

/// Backups, newest first, at most 1000
#[utoipa::path(get, path = "/api/v1/backups/pg-dump/list", params(DaysQuery, SourceQuery), responses(
    (status = 200, body = Vec<Execution>)))]
pub(crate) async fn list(
    reader: Reader,
    Asked(days): Asked<DaysQuery>,
    Asked(which): Asked<SourceQuery>,
) -> Answer {
    let source = reader.only(which)?;
    let since = days.since();
    let lately = |entry: &&BackupEntry| {
        let began = &entry.view.started_at;
        since.as_ref().is_none_or(|since| began >= since)
    };
    let own = reader.of(&source).filter(lately).take(MOST);
    let all: Vec<_> = own.map(Execution::new).collect();
    Ok(reader.json(&all))
}

/// Rehearse the restore of a backup
#[utoipa::path(post, path = "/api/v1/backups/pg-dump/test-restore", request_body = TestOrder,
    params(SourceQuery), responses((status = 202, body = RunStatus)))]
pub(crate) async fn test_restore(
    State(server): State<Arc<Server>>,
    reader: Reader,
    Asked(which): Asked<SourceQuery>,
    Unlabelled(order): Unlabelled<TestOrder>,
) -> Result<Response, Problem> {
    let source = reader.only(which)?;
    reader.caller.may(Action::Drill, Some(&source))?;
    let newest = reader.of(&source).find(|backup| backup.is_whole);
    let newest = newest.map(|backup| backup.view.id.clone());
    let id = order.backup_filename.or(newest);
    let id = id.ok_or_else(Problem::not_found)?;
    let which = SourceQuery {
        source: Some(source),
    };
    let (source, backup) = reader.stored(Action::Drill, &id, &which)?;
    start(&server, &reader.caller, Work::Drill { source, backup }).await
}

/// Rehearsals of restores, newest first, at most 1000
#[utoipa::path(get, path = "/api/v1/backups/pg-dump/restore-history",
    params(DaysQuery, SourceQuery), responses((status = 200, body = Vec<Rehearsal>)))]
pub(crate) async fn restore_history(
    reader: Reader,
    Asked(days): Asked<DaysQuery>,
    Asked(which): Asked<SourceQuery>,
) -> Answer {
    let source = reader.only(which)?;
    let since = days.since();
    let runs = reader.overview.runs.iter().filter(|run| {
        run.operation == "drill"
            && run.source.as_ref() == Some(&source)
            && since.as_ref().is_none_or(|since| run.started_at >= *since)
    });
    let all: Vec<_> = runs.take(MOST).map(Rehearsal::from).collect();
    Ok(reader.json(&all))
}
