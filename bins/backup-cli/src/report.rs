//! The JSON forms, fixed by contract; the domain's own types may change without them.

mod rekey;
mod retention;

use backup_app::report::DefinitionsView;
use backup_app::{AppError, DestinationView, ErrorReport};
use backup_core::catalog::Incomplete;
use backup_core::engine::{
    CompareReport, CopyOutcome, JudgedBackup, RestoreOutcome, VerifyLevel, VerifyReport,
};
use backup_core::history::Proof;
use backup_core::manifest::Manifest;
use backup_core::replacer::Replacement;
use backup_core::run_record::{
    CompareFacts, DrillFacts, PruneFacts, RunId, RunRecord, VerifyFacts, Who,
};
use serde::Serialize;

use crate::args::RestoreArgs;
use crate::render;

pub(crate) use rekey::RekeyView;
pub(crate) use retention::{PinView, PinnedView, PruneView, SimulatedView, pin_text, reasons};

/// What a committed backup has lost, in words.
pub(crate) fn lacking(incomplete: &Incomplete) -> String {
    let count = incomplete.objects.len();
    let first = incomplete.objects.first().map_or("", String::as_str);
    match count {
        1 => format!("1 object is not as written: {first}"),
        _ => format!("{count} objects are not as written, {first} among them"),
    }
}

/// `list --json`
#[derive(Debug, Serialize)]
pub(crate) struct ListView {
    pub(crate) id: String,
    pub(crate) source: String,
    pub(crate) database: String,
    pub(crate) started_at: String,
    pub(crate) raw_bytes: u64,
    pub(crate) stored_bytes: u64,
    pub(crate) status: &'static str,
    pub(crate) filtered: bool,
    pub(crate) encrypted: bool,
    pub(crate) pinned: bool,
    pub(crate) tiers: Vec<String>,
    pub(crate) retention_until: Option<String>,
    pub(crate) verified_at: Option<String>,
    pub(crate) verified_level: Option<&'static str>,
    pub(crate) drilled_at: Option<String>,
    pub(crate) drill_status: Option<String>,
    pub(crate) destinations: Vec<DestinationView>,
}

impl ListView {
    /// A backup that is committed at `place`.
    pub(crate) fn new(manifest: &Manifest, place: &str) -> Self {
        Self {
            id: manifest.id.to_string(),
            source: manifest.source.to_string(),
            database: manifest.database.clone(),
            started_at: render::time(manifest.started_at),
            raw_bytes: manifest.totals.raw_bytes,
            stored_bytes: manifest.totals.stored_bytes,
            status: "success",
            filtered: manifest.filtered,
            encrypted: manifest.encryption.is_some(),
            pinned: false,
            tiers: Vec::new(),
            retention_until: None,
            verified_at: None,
            verified_level: None,
            drilled_at: None,
            drill_status: None,
            destinations: Vec::new(),
        }
        .also_at(place)
    }

    /// The same, with the newest proof of several places.
    pub(crate) fn proved(mut self, proof: Option<Proof>) -> Self {
        if let Some(proof) = proof {
            // Of one form, so that they compare as text.
            let at = render::time(proof.at);
            if self.verified_at.as_ref().is_none_or(|known| *known < at) {
                self.verified_at = Some(at);
                self.verified_level = Some(proof.level.as_str());
            }
        }
        self
    }

    /// The same, with the newest drill of several places.
    pub(crate) fn drilled(mut self, drill: Option<&RunRecord>) -> Self {
        if let Some(run) = drill {
            let at = render::time(run.finished_at);
            if self.drilled_at.as_ref().is_none_or(|known| *known < at) {
                self.drilled_at = Some(at);
                self.drill_status = Some(run.result.as_str().to_owned());
            }
        }
        self
    }

    /// The same, with what keeps it at one of several places: what keeps it at any, counts.
    pub(crate) fn kept(mut self, backup: &JudgedBackup) -> Self {
        for tier in retention::tiers(&backup.verdict) {
            if !self.tiers.iter().any(|known| known == tier) {
                self.tiers.push(tier.to_owned());
            }
        }
        // Of one form, so that they compare as text. Where it has no end, it has none at all.
        let until = backup.until().map(render::time);
        self.retention_until = match (self.destinations.len(), self.retention_until) {
            (1, _) => until,
            (_, known) => known.zip(until).map(|(known, until)| known.max(until)),
        };
        self
    }

    /// The same, with a pin at one of several places.
    pub(crate) fn pinned(mut self, pinned: bool) -> Self {
        self.pinned |= pinned;
        self
    }

    /// The same, with what is missing at the place that was named last.
    pub(crate) fn lacking(mut self, incomplete: Option<&Incomplete>) -> Self {
        if let (Some(incomplete), Some(place)) = (incomplete, self.destinations.last_mut()) {
            place.status = "failed";
            place.error = Some(lacking(incomplete));
        }
        let good = |place: &&DestinationView| place.error.is_none();
        self.status = match self.destinations.iter().filter(good).count() {
            0 => "failed",
            count if count < self.destinations.len() => "partial",
            _ => "success",
        };
        self
    }

    /// The same, also found at another place.
    pub(crate) fn also_at(mut self, place: &str) -> Self {
        self.destinations.push(DestinationView::good(place));
        self
    }
}

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
            target_database: arguments.target_db.clone(),
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

/// `runs --json`
#[derive(Debug, Serialize)]
pub(crate) struct RunView {
    pub(crate) id: String,
    pub(crate) operation: String,
    pub(crate) source: Option<String>,
    pub(crate) backup: Option<String>,
    pub(crate) target_database: Option<String>,
    pub(crate) kept_as: Option<String>,
    pub(crate) undone: Option<String>,
    pub(crate) started_at: String,
    pub(crate) finished_at: String,
    pub(crate) duration_seconds: f64,
    pub(crate) result: &'static str,
    pub(crate) error: Option<String>,
    pub(crate) warnings: u64,
    pub(crate) who: Who,
    pub(crate) raw_bytes: Option<u64>,
    pub(crate) stored_bytes: Option<u64>,
    pub(crate) bytes_read: Option<u64>,
    pub(crate) compare: Option<CompareFacts>,
    pub(crate) verify: Option<VerifyFacts>,
    pub(crate) drill: Option<DrillFacts>,
    pub(crate) prune: Option<PruneFacts>,
    pub(crate) destination: String,
}

impl RunView {
    /// A run whose record is at `place`.
    pub(crate) fn new(run: &RunRecord, place: &str) -> Self {
        Self {
            id: run.id.to_string(),
            operation: run.operation.to_string(),
            source: run.source.as_ref().map(ToString::to_string),
            backup: run.backup.as_ref().map(ToString::to_string),
            target_database: run.target_database.clone(),
            kept_as: run.kept_as.clone(),
            undone: run.undone.as_ref().map(ToString::to_string),
            started_at: render::time(run.started_at),
            finished_at: render::time(run.finished_at),
            duration_seconds: (run.finished_at - run.started_at).as_seconds_f64(),
            result: run.result.as_str(),
            error: run.error.clone(),
            warnings: run.warnings,
            who: run.who.clone(),
            raw_bytes: run.raw_bytes,
            stored_bytes: run.stored_bytes,
            bytes_read: run.bytes_read,
            compare: run.compare,
            verify: run.verify,
            drill: run.drill,
            prune: run.prune.clone(),
            destination: place.to_owned(),
        }
    }
}
