//! The JSON forms, fixed by contract; the domain's own types may change without them.

mod audit;
mod rekey;
mod retention;

use backup_app::report::DefinitionsView;
use backup_app::{AppError, ErrorReport};
use backup_core::engine::{CompareReport, CopyOutcome, RestoreOutcome, VerifyLevel, VerifyReport};
use backup_core::manifest::Manifest;
use backup_core::replacer::Replacement;
use backup_core::run_record::RunId;
use serde::Serialize;

use crate::args::RestoreArgs;

pub(crate) use audit::{AuditView, AuditedView};
pub(crate) use rekey::RekeyView;
pub(crate) use retention::{PinView, PinnedView, PruneView, SimulatedView, pin_text, reasons};

/// `restore --json`
#[derive(Debug, Serialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "these are the fields that scripts know"
)]
pub(crate) struct RestoreView {
    pub(crate) run_id: Option<String>,
    pub(crate) backup: String,
    pub(crate) target_database: String,
    pub(crate) status: &'static str,
    pub(crate) duration_seconds: f64,
    pub(crate) bytes_read: u64,
    pub(crate) partial: bool,
    pub(crate) definitions_only: bool,
    pub(crate) data_only: bool,
    pub(crate) compare: Option<CompareView>,
    pub(crate) swapped: bool,
    pub(crate) kept_as: Option<String>,
    pub(crate) notes: Vec<String>,
    pub(crate) warnings: Vec<String>,
}

impl RestoreView {
    /// A finished restore.
    pub(crate) fn new(
        outcome: &RestoreOutcome,
        arguments: &RestoreArgs,
        run: Option<&RunId>,
    ) -> Self {
        let replaced = outcome.replaced.as_ref();
        // A swap can be undone by its run whether that is recorded or not.
        let run = replaced.map(|replacement| &replacement.run).or(run);
        Self {
            run_id: run.map(ToString::to_string),
            backup: outcome.manifest.id.to_string(),
            target_database: arguments.target_db().to_owned(),
            status: "success",
            duration_seconds: (outcome.finished_at - outcome.started_at).as_seconds_f64(),
            bytes_read: outcome.bytes_read,
            partial: outcome.partial,
            definitions_only: arguments.selection().definitions_only,
            data_only: arguments.selection().content_only,
            compare: outcome.compare.as_ref().map(CompareView::from),
            swapped: replaced.is_some(),
            kept_as: replaced.and_then(|replacement| replacement.kept_as.clone()),
            notes: outcome.notes.clone(),
            warnings: outcome.warnings.clone(),
        }
    }
}

/// `undo --json`
#[derive(Debug, Serialize)]
pub(crate) struct UndoView {
    run_id: String,
    undone: String,
    database: String,
    status: &'static str,
    kept_as: Option<String>,
    warnings: Vec<String>,
}

impl UndoView {
    /// A finished one.
    pub(crate) fn new(replacement: &Replacement, undone: &RunId) -> Self {
        Self {
            run_id: replacement.run.to_string(),
            undone: undone.to_string(),
            database: replacement.database.clone(),
            status: "success",
            kept_as: replacement.kept_as.clone(),
            warnings: replacement.warnings.clone(),
        }
    }
}

/// A comparison.
#[derive(Debug, Serialize)]
pub(crate) struct CompareView {
    tables: usize,
    equal: usize,
    rows: u64,
    different: Vec<DifferenceView>,
    missing: Vec<String>,
    not_comparable: Vec<String>,
    sequences_behind: Vec<String>,
    large_objects_equal: Option<bool>,
    definitions: Option<DefinitionsView>,
    /// Filled again by their queries, so their content is not compared.
    materialized_views: Vec<MaterializedView>,
}

/// A materialized view as it is now.
#[derive(Debug, Serialize)]
struct MaterializedView {
    name: String,
    rows: Option<u64>,
}

/// A table that differs.
#[derive(Debug, Serialize)]
struct DifferenceView {
    table: String,
    dumped_rows: u64,
    restored_rows: u64,
    dumped_bytes: u64,
    restored_bytes: u64,
}

impl From<&CompareReport> for CompareView {
    fn from(report: &CompareReport) -> Self {
        Self {
            tables: report.tables,
            equal: report.equal,
            rows: report.rows,
            different: report
                .different
                .iter()
                .map(|found| DifferenceView {
                    table: found.table.to_string(),
                    dumped_rows: found.dumped.rows,
                    restored_rows: found.restored.rows,
                    dumped_bytes: found.dumped.bytes,
                    restored_bytes: found.restored.bytes,
                })
                .collect(),
            missing: report.missing.iter().map(ToString::to_string).collect(),
            not_comparable: report
                .not_comparable
                .iter()
                .map(|found| format!("{}: {}", found.table, found.reason))
                .collect(),
            sequences_behind: report
                .sequences_behind
                .iter()
                .map(|found| found.sequence.to_string())
                .collect(),
            large_objects_equal: report.large_objects_equal,
            definitions: report.definitions.as_ref().map(DefinitionsView::from),
            materialized_views: report
                .materialized_views
                .iter()
                .map(|(view, rows)| MaterializedView {
                    name: view.to_string(),
                    rows: *rows,
                })
                .collect(),
        }
    }
}

/// `verify --json`
#[derive(Debug, Serialize)]
pub(crate) struct VerifyView {
    id: String,
    source: String,
    destination: String,
    level: &'static str,
    status: &'static str,
    parts: usize,
    bytes_read: u64,
    problems: Vec<ProblemView>,
    error: Option<ErrorReport>,
}

/// `copy --json`
#[derive(Debug, Serialize)]
pub(crate) struct CopyView {
    id: String,
    source: String,
    destination: String,
    status: &'static str,
    objects: usize,
    bytes: u64,
    error: Option<ErrorReport>,
}

impl CopyView {
    /// What came of one backup.
    pub(crate) fn new(backup: &Manifest, place: &str, outcome: &CopyOutcome) -> Self {
        Self {
            id: backup.id.to_string(),
            source: backup.source.to_string(),
            destination: place.to_owned(),
            status: if outcome.objects == 0 {
                "present"
            } else {
                "success"
            },
            objects: outcome.objects,
            bytes: outcome.bytes,
            error: None,
        }
    }

    /// One of several that was not copied.
    pub(crate) fn failed(backup: &Manifest, place: &str, error: &AppError) -> Self {
        Self {
            status: "failed",
            error: Some(error.report()),
            ..Self::new(backup, place, &CopyOutcome::default())
        }
    }
}

/// Something wrong with a part.
#[derive(Debug, Serialize)]
struct ProblemView {
    part: String,
    problem: String,
}

impl VerifyView {
    /// The result for one backup at one place.
    pub(crate) fn new(manifest: &Manifest, place: &str, report: &VerifyReport) -> Self {
        Self {
            id: manifest.id.to_string(),
            source: manifest.source.to_string(),
            destination: place.to_owned(),
            level: match report.level {
                VerifyLevel::Stored => "stored",
                VerifyLevel::Hashed => "hashed",
                VerifyLevel::Decoded => "decoded",
            },
            status: if report.problems.is_empty() {
                "ok"
            } else {
                "damaged"
            },
            parts: report.parts,
            bytes_read: report.bytes_read,
            problems: report
                .problems
                .iter()
                .map(|problem| ProblemView {
                    part: problem.part.to_string(),
                    problem: problem.problem.clone(),
                })
                .collect(),
            error: None,
        }
    }

    /// A backup of which nothing can be said.
    pub(crate) fn failed(
        manifest: &Manifest,
        place: &str,
        level: VerifyLevel,
        error: &AppError,
    ) -> Self {
        let nothing = VerifyReport {
            level,
            parts: manifest.parts.len(),
            bytes_read: 0,
            problems: Vec::new(),
        };
        Self {
            status: "failed",
            error: Some(error.report()),
            ..Self::new(manifest, place, &nothing)
        }
    }
}
