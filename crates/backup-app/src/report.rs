//! What a drill found, in the form that JSON and the page share.

mod file;
mod page;
mod verdict;

use backup_core::drill::{Answer, ChoiceReason, ServerFacts};
use backup_core::engine::{DrillOutcome, LevelState, TableResult, TableState};
use backup_core::restorer::Definitions;
use backup_core::run_record::RunId;
use chrono::TimeDelta;
use serde::Serialize;

use crate::error::{AppError, ErrorReport};
use crate::text::time;
pub use file::ReportPath;

/// One drill.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "the names are those of the documented JSON")]
pub struct DrillView {
    pub run_id: String,
    pub recorded: bool,
    pub source: String,
    pub backup: String,
    pub backup_started_at: String,
    pub database: String,
    pub filtered: bool,
    pub destination: String,
    pub choice: &'static str,
    pub choice_reason: &'static str,
    pub status: &'static str,
    pub verdict: String,
    pub summary: String,
    pub level: Option<&'static str>,
    pub levels: Vec<LevelView>,
    pub started_at: String,
    pub finished_at: String,
    pub duration_seconds: f64,
    pub rto_seconds: Option<f64>,
    pub load_seconds: Option<f64>,
    pub steps: Vec<StepView>,
    pub bytes_read: Option<u64>,
    pub stored_bytes: u64,
    pub tables: u64,
    pub rows: u64,
    pub compare: Option<CompareView>,
    pub table_results: Vec<TableView>,
    pub structure: Option<StructureView>,
    pub assertions: Vec<AssertionView>,
    pub assertions_failed: usize,
    pub warnings: Vec<String>,
    pub left_out: Vec<String>,
    pub server: Option<ServerView>,
    pub dumped_from: String,
    pub dumped_with: String,
    pub program: String,
    pub error: Option<ErrorReport>,
}

/// What was proved at one level.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "the names are those of the documented JSON")]
pub struct LevelView {
    pub level: &'static str,
    pub state: &'static str,
    pub words: &'static str,
}

/// How long one step took.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "the names are those of the documented JSON")]
pub struct StepView {
    pub name: &'static str,
    pub seconds: f64,
}

/// The comparison in short; the tables tell the rest.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "the names are those of the documented JSON")]
pub struct CompareView {
    pub tables: usize,
    pub equal: usize,
    pub rows: u64,
    pub is_equal: bool,
    pub summary: String,
    pub sequences_behind: Vec<String>,
    pub large_objects_equal: Option<bool>,
    pub definitions: Option<DefinitionsView>,
}

/// Definitions by kind, schema and name.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "the names are those of the documented JSON")]
pub struct DefinitionsView {
    pub expected: usize,
    pub equal: usize,
    pub texts_compared: bool,
    pub missing: Vec<String>,
    pub different: Vec<String>,
    pub unclear: Vec<String>,
    pub extra: Vec<String>,
}

impl DefinitionsView {
    /// Each one that is not as it was dumped, with what is wrong.
    pub fn differences(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let lists = [
            ("missing", &self.missing),
            ("different", &self.different),
            ("extra", &self.extra),
        ];
        let all = lists.into_iter();
        all.flat_map(|(what, names)| names.iter().map(move |name| (what, name.as_str())))
    }
}

impl From<&Definitions> for DefinitionsView {
    fn from(found: &Definitions) -> Self {
        Self {
            expected: found.expected,
            equal: found.equal,
            texts_compared: found.texts_compared,
            missing: found.missing.clone(),
            different: found.different.clone(),
            unclear: found.unclear.clone(),
            extra: found.extra.clone(),
        }
    }
}

/// One table.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "the names are those of the documented JSON")]
pub struct TableView {
    pub table: String,
    pub state: &'static str,
    pub rows: u64,
    pub bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restored_rows: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restored_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The look at tables and indexes.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "the names are those of the documented JSON")]
pub struct StructureView {
    pub unavailable: Option<String>,
    pub indexes: u64,
    pub tables: u64,
    pub problems: Vec<ProblemView>,
}

/// Something wrong with a table or index.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "the names are those of the documented JSON")]
pub struct ProblemView {
    pub object: String,
    pub problem: String,
}

/// One assertion.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "the names are those of the documented JSON")]
pub struct AssertionView {
    pub sql: String,
    pub holds: bool,
    pub reason: Option<String>,
}

/// The server that it happened on.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "the names are those of the documented JSON")]
pub struct ServerView {
    pub kind: String,
    pub server_version: String,
    pub tool_version: String,
    pub account: Option<String>,
    pub network: Option<bool>,
}

/// Where a drill's backup came from and what it is called.
#[derive(Debug, Clone, Copy)]
pub struct DrillNames<'a> {
    /// The run.
    pub run: &'a RunId,
    /// Whether its record is in the store.
    pub recorded: bool,
    /// Where the backup is.
    pub place: &'a str,
    /// Why this backup.
    pub reason: ChoiceReason,
}

impl DrillView {
    /// What came of a drill.
    #[must_use]
    pub fn new(outcome: DrillOutcome, names: DrillNames<'_>) -> Self {
        let manifest = &outcome.manifest;
        let (verdict, summary) = verdict::verdict(&outcome);
        let seconds = |span: Option<TimeDelta>| span.map(TimeDelta::as_seconds_f64);
        Self {
            run_id: names.run.to_string(),
            recorded: names.recorded,
            source: manifest.source.to_string(),
            backup: manifest.id.to_string(),
            backup_started_at: time(manifest.started_at),
            database: manifest.database.clone(),
            filtered: manifest.filtered,
            destination: names.place.to_owned(),
            choice: names.reason.as_str(),
            choice_reason: names.reason.words(),
            status: if outcome.passed() { "passed" } else { "failed" },
            verdict,
            summary,
            level: outcome.level().map(backup_core::engine::DrillLevel::as_str),
            levels: levels(&outcome),
            started_at: time(outcome.started_at),
            finished_at: time(outcome.finished_at),
            duration_seconds: (outcome.finished_at - outcome.started_at).as_seconds_f64(),
            rto_seconds: seconds(outcome.restore_time),
            load_seconds: seconds(outcome.load_time),
            steps: steps(&outcome),
            bytes_read: outcome.bytes_read,
            stored_bytes: manifest.totals.stored_bytes,
            tables: manifest.totals.tables,
            rows: manifest.totals.rows,
            compare: compare(&outcome),
            table_results: outcome.tables.iter().map(TableView::from).collect(),
            structure: structure(&outcome),
            assertions_failed: outcome.assertions_failed(),
            assertions: assertions(&outcome),
            server: outcome.server.as_ref().map(ServerView::from),
            dumped_from: manifest.server_version.clone(),
            dumped_with: manifest.tool_version.clone(),
            program: format!("backup-manager {}", env!("CARGO_PKG_VERSION")),
            warnings: outcome.warnings,
            left_out: outcome.left_out,
            error: outcome.error.map(|error| AppError::from(error).report()),
        }
    }
}

fn levels(outcome: &DrillOutcome) -> Vec<LevelView> {
    let levels = outcome.levels.iter();
    let view = levels.map(|found| LevelView {
        level: found.level.as_str(),
        state: match found.state {
            LevelState::NotReached => "not reached",
            LevelState::NotAvailable => "not available",
            other => other.as_str(),
        },
        words: found.level.words(),
    });
    view.collect()
}

fn steps(outcome: &DrillOutcome) -> Vec<StepView> {
    let steps = outcome.steps.iter();
    let view = steps.map(|step| StepView {
        name: step.name,
        seconds: step.took.as_seconds_f64(),
    });
    view.collect()
}

fn compare(outcome: &DrillOutcome) -> Option<CompareView> {
    let report = outcome.compare.as_ref()?;
    let behind = report.sequences_behind.iter();
    Some(CompareView {
        tables: report.tables,
        equal: report.equal,
        rows: report.rows,
        is_equal: report.is_equal(),
        summary: report.summary(),
        sequences_behind: behind.map(|found| found.sequence.to_string()).collect(),
        large_objects_equal: report.large_objects_equal,
        definitions: report.definitions.as_ref().map(DefinitionsView::from),
    })
}

fn structure(outcome: &DrillOutcome) -> Option<StructureView> {
    let found = outcome.structure.as_ref()?;
    let problems = found.problems.iter().map(|problem| ProblemView {
        object: problem.object.clone(),
        problem: problem.problem.clone(),
    });
    Some(StructureView {
        unavailable: found.unavailable.clone(),
        indexes: found.indexes,
        tables: found.tables,
        problems: problems.collect(),
    })
}

fn assertions(outcome: &DrillOutcome) -> Vec<AssertionView> {
    let tried = outcome.assertions.iter();
    let view = tried.map(|(assertion, answer)| AssertionView {
        sql: assertion.sql.clone(),
        holds: *answer == Answer::Holds,
        reason: match answer {
            Answer::Holds => None,
            Answer::Fails(why) => Some(why.clone()),
        },
    });
    view.collect()
}

impl From<&TableResult> for TableView {
    fn from(found: &TableResult) -> Self {
        let mut view = Self {
            table: found.table.to_string(),
            state: "equal",
            rows: found.dumped.rows,
            bytes: found.dumped.bytes,
            restored_rows: None,
            restored_bytes: None,
            reason: None,
        };
        match &found.state {
            TableState::Equal => {}
            TableState::Different(restored) => {
                view.state = "different";
                view.restored_rows = Some(restored.rows);
                view.restored_bytes = Some(restored.bytes);
            }
            TableState::Missing => view.state = "missing",
            TableState::Unreadable(why) => {
                view.state = "unreadable";
                view.reason = Some(why.clone());
            }
            TableState::NotCompared => view.state = "not compared",
        }
        view
    }
}

impl From<&ServerFacts> for ServerView {
    fn from(facts: &ServerFacts) -> Self {
        Self {
            kind: facts.kind.clone(),
            server_version: facts.server_version.clone(),
            tool_version: facts.tool_version.clone(),
            account: facts.account.clone(),
            network: facts.network,
        }
    }
}
