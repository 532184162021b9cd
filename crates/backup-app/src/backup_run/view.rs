//! A backup as JSON, the same from every frontend; the domain's own types may change without it.

use backup_core::backup::{BackupId, SourceName};
use backup_core::error::Error as CoreError;
use backup_core::manifest::{Manifest, PartRecord, StoredObject};
use serde::Serialize;
use utoipa::ToSchema;

use super::{BackupRun, SkippedDatabase};
use crate::compose::BackupJob;
use crate::error::{AppError, ErrorReport};
use crate::text::time;

/// `backup --json`
#[derive(Debug, Default, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the names are those of the documented JSON")]
pub struct BackupView {
    pub id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// How often it was tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    pub source: String,
    pub status: &'static str,
    pub started_at: Option<String>,
    pub finished_at: Option<String>,
    pub duration_seconds: f64,
    pub database: String,
    pub filtered: bool,
    pub server_version: Option<String>,
    pub tool_version: Option<String>,
    pub raw_bytes: u64,
    pub stored_bytes: u64,
    pub parts: Vec<PartView>,
    pub tables: u64,
    pub rows: u64,
    pub indexes: u64,
    pub triggers: u64,
    pub sequences: u64,
    pub destinations: Vec<DestinationView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    pub warnings: Vec<String>,
    #[schema(value_type = Option<Object>)]
    pub error: Option<ErrorReport>,
}

/// One part of a backup. One that is stored in several objects has no digest of its own; each
/// object has.
#[derive(Debug, Serialize, ToSchema)]
pub struct PartView {
    name: String,
    kind: String,
    raw_bytes: u64,
    stored_bytes: u64,
    sha256: String,
    crc32: String,
    objects: Vec<ObjectView>,
}

impl PartView {
    /// The CRC of its stored bytes, in hexadecimal.
    #[must_use]
    pub fn crc32(&self) -> &str {
        &self.crc32
    }
}

/// One object of a part.
#[derive(Debug, Serialize, ToSchema)]
struct ObjectView {
    name: String,
    bytes: u64,
    sha256: String,
    crc32: String,
}

/// A destination and what came of it.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the names are those of the documented JSON")]
pub struct DestinationView {
    pub name: String,
    pub status: &'static str,
    pub error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl DestinationView {
    /// One that has the backup.
    #[must_use]
    pub fn good(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            status: "success",
            error: None,
            reason: None,
        }
    }

    /// One that has not got it, or not as it was.
    #[must_use]
    pub fn failed(name: &str, error: String) -> Self {
        Self {
            name: name.to_owned(),
            status: "failed",
            error: Some(error),
            reason: None,
        }
    }

    /// One that is for other backups.
    pub(crate) fn skipped(name: &str, reason: &str) -> Self {
        Self {
            name: name.to_owned(),
            status: "skipped",
            error: None,
            reason: Some(reason.to_owned()),
        }
    }
}

impl BackupView {
    /// What came of a database of a source.
    #[must_use]
    pub fn of(source: &SourceName, database: &str, run: &BackupRun) -> Self {
        let destinations = run.destinations.clone();
        let view = match &run.result {
            Ok(outcome) => {
                Self::committed(&outcome.manifest, destinations, outcome.warnings.clone())
            }
            Err(error) => Self {
                source: source.to_string(),
                database: database.to_owned(),
                status: "failed",
                destinations,
                error: Some(error.report()),
                ..Self::default()
            },
        };
        Self {
            run_id: run.run.as_ref().map(ToString::to_string),
            attempts: Some(run.attempts),
            ..view
        }
    }

    /// A database that was left out.
    #[must_use]
    pub fn skipped(skipped: &SkippedDatabase) -> Self {
        Self {
            source: skipped.source.clone(),
            database: skipped.database.clone(),
            status: "skipped",
            reason: Some(skipped.obstacle.reason()),
            warnings: skipped.warning().into_iter().collect(),
            ..Self::default()
        }
    }

    /// A backup that another run has taken.
    #[must_use]
    pub fn elsewhere(job: &BackupJob, backup: &BackupId) -> Self {
        Self {
            id: Some(backup.to_string()),
            source: job.source.to_string(),
            database: job.database.clone(),
            status: "skipped",
            reason: Some("there is a backup that is new enough"),
            ..Self::default()
        }
    }

    /// A backup that was not begun before somebody wanted all of them to stop.
    #[must_use]
    pub fn not_begun(job: &BackupJob) -> Self {
        Self {
            source: job.source.to_string(),
            database: job.database.clone(),
            status: "failed",
            error: Some(AppError::from(CoreError::Cancelled).report()),
            ..Self::default()
        }
    }

    /// A committed backup.
    #[must_use]
    pub fn committed(
        manifest: &Manifest,
        destinations: Vec<DestinationView>,
        warnings: Vec<String>,
    ) -> Self {
        let good = destinations.iter().filter(|place| place.error.is_none());
        let status = match (good.count(), destinations.len()) {
            (good, all) if good == all => "success",
            (0, _) => "failed",
            _ => "partial",
        };
        let elapsed = manifest.finished_at - manifest.started_at;
        let objects = |kind: &str| manifest.totals.objects.get(kind).copied().unwrap_or(0);
        Self {
            id: Some(manifest.id.to_string()),
            run_id: None,
            attempts: None,
            source: manifest.source.to_string(),
            status,
            started_at: Some(time(manifest.started_at)),
            finished_at: Some(time(manifest.finished_at)),
            duration_seconds: elapsed.as_seconds_f64(),
            database: manifest.database.clone(),
            filtered: manifest.filtered,
            server_version: Some(manifest.server_version.clone()),
            tool_version: Some(manifest.tool_version.clone()),
            raw_bytes: manifest.totals.raw_bytes,
            stored_bytes: manifest.totals.stored_bytes,
            parts: manifest.parts.iter().map(PartView::from).collect(),
            tables: manifest.totals.tables,
            rows: manifest.totals.rows,
            indexes: objects("indexes"),
            triggers: objects("triggers"),
            sequences: objects("sequences"),
            destinations,
            reason: None,
            warnings,
            error: None,
        }
    }
}

impl From<&PartRecord> for PartView {
    fn from(part: &PartRecord) -> Self {
        // A part of several objects has no single digest; each object has its own.
        let only = |field: fn(&StoredObject) -> &String| match part.objects.as_slice() {
            [object] => field(object).clone(),
            _ => String::new(),
        };
        Self {
            name: part.name.to_string(),
            kind: kind_text(part),
            raw_bytes: part.raw_bytes,
            stored_bytes: part.stored_bytes(),
            sha256: only(|object| &object.sha256),
            crc32: only(|object| &object.crc32),
            objects: part
                .objects
                .iter()
                .map(|object| ObjectView {
                    name: object.name.clone(),
                    bytes: object.bytes,
                    sha256: object.sha256.clone(),
                    crc32: object.crc32.clone(),
                })
                .collect(),
        }
    }
}

fn kind_text(part: &PartRecord) -> String {
    match serde_json::to_value(part.kind) {
        Ok(serde_json::Value::String(text)) => text,
        _ => "unknown".to_owned(),
    }
}
