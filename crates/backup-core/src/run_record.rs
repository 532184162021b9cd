//! The record of one run: what was done, by whom, and what came of it, failures too.
//!
//! A record is stored in the clear and never changed. It is a note for people and programs that
//! watch, and proves nothing against somebody who can write to the store.

use std::error::Error as StdError;
use std::fmt;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::backup::{BackupId, SourceName};
use crate::engine::{
    BackupOutcome, CompareReport, CopyOutcome, DrillLevel, DrillOutcome, ExpireOutcome, ExpiryPlan,
    LevelState, RestoreOutcome, VerifyLevel, VerifyReport,
};
use crate::error::{Error, ErrorKind, PortError, chain};
use crate::lease::DeadRun;
use crate::manifest::Manifest;
use crate::replacer::Replacement;
use crate::stamped::{stamp, stamped_name};
use crate::versioned;

/// The format of records that this build writes, and the newest it reads.
pub const RUN_FORMAT: u32 = 1;

/// No record is longer.
pub const MAX_RUN_BYTES: usize = 1 << 20;

/// How much of an error's text is kept; the middle of a longer one is left out.
const ERROR_CHARS: usize = 4000;

/// Where servers go on to quote rows.
const QUOTES: [&str; 4] = ["DETAIL:", "detail:", "CONTEXT:", "context:"];

/// How many backups the record of a prune names.
const NAMED_BACKUPS: usize = 1000;

const SUFFIX_LEN: usize = 8;

/// A run's name: UTC start time to the second and eight hex digits, `20260205T030000Z-7f3a09c2`.
///
/// Sorts by age as text. Many runs may begin in one second, so the first four digits tell its
/// fraction; the others are random. A backup's id is shorter: nobody takes one for the other.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunId(String);

impl RunId {
    /// The id of a run that begins at `started_at`; `suffix` is random.
    #[must_use]
    pub fn new(started_at: DateTime<Utc>, suffix: u16) -> Self {
        // A leap second has more than a second's worth.
        let nanos = u64::from(started_at.timestamp_subsec_nanos()).min(999_999_999);
        let fraction = (nanos << 16) / 1_000_000_000;
        Self(format!("{}-{fraction:04x}{suffix:04x}", stamp(started_at)))
    }

    /// The id under which others note the end of a run that wrote this backup.
    #[must_use]
    pub fn of_backup(backup: &BackupId, source: &SourceName) -> Self {
        let text = backup.as_str().bytes().chain(source.as_str().bytes());
        let suffix = text.fold(0_u16, |sum, byte| sum.rotate_left(5) ^ u16::from(byte));
        Self::new(backup.started_at(), suffix)
    }
}

/// The text is not a run's id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a run id (expected 20260205T030000Z-7f3a09c2)")]
pub struct ParseRunIdError(String);

stamped_name!(RunId, ParseRunIdError, SUFFIX_LEN);

/// What a run did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Operation {
    /// Took a backup.
    Backup,
    /// Made one of what another tool took.
    Adopt,
    /// Put one into a new database.
    Restore,
    /// Proved a stored one.
    Verify,
    /// Swapped back what a restore replaced.
    Undo,
    /// Rehearsed a restore.
    Drill,
    /// Put one into another place.
    Copy,
    /// Let old ones go.
    Prune,
    /// Said that one stays.
    Pin,
    /// Took that back.
    Unpin,
    /// Changed who can open one.
    Rekey,
    /// Something that only a later release does.
    #[serde(untagged)]
    Other(String),
}

impl Operation {
    /// All that this release does.
    pub const KNOWN: [Self; 11] = [
        Self::Backup,
        Self::Adopt,
        Self::Restore,
        Self::Verify,
        Self::Undo,
        Self::Drill,
        Self::Copy,
        Self::Prune,
        Self::Pin,
        Self::Unpin,
        Self::Rekey,
    ];

    /// The name used in JSON.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Backup => "backup",
            Self::Adopt => "adopt",
            Self::Restore => "restore",
            Self::Verify => "verify",
            Self::Undo => "undo",
            Self::Drill => "drill",
            Self::Copy => "copy",
            Self::Prune => "prune",
            Self::Pin => "pin",
            Self::Unpin => "unpin",
            Self::Rekey => "rekey",
            Self::Other(name) => name,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunResult {
    /// As wanted.
    Success,
    /// Complete, though something was not as it should be.
    Warnings,
    /// Not.
    Failed,
    /// Somebody stopped it.
    Cancelled,
    /// Its process ended before it did. Another one has noticed.
    Interrupted,
}

impl RunResult {
    /// The name used in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Warnings => "warnings",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Interrupted => "interrupted",
        }
    }
}

/// Who ran it; the frontend knows.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Who {
    /// The account.
    pub user: String,
    /// The machine.
    pub host: String,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.user, self.host)
    }
}

/// A comparison in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompareFacts {
    /// Tables compared.
    pub tables: u64,
    /// Of these, equal.
    pub equal: u64,
    /// Rows in the equal tables.
    pub rows: u64,
}

impl From<&CompareReport> for CompareFacts {
    fn from(report: &CompareReport) -> Self {
        Self {
            tables: report.tables as u64,
            equal: report.equal as u64,
            rows: report.rows,
        }
    }
}

/// A verification in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyFacts {
    /// How deep it was to go.
    pub level: VerifyLevel,
    /// What was found wrong.
    pub problems: u64,
}

/// A drill in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillFacts {
    /// The deepest level up to which everything passed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<DrillLevel>,
    /// From opening the backup to the end of the comparison, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restore_ms: Option<u64>,
    /// The load alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_ms: Option<u64>,
    /// What the check of tables and indexes found wrong; absent when there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub damaged: Option<u64>,
    /// Assertions that were tried.
    pub assertions: u64,
    /// Of these, how many do not hold.
    pub assertions_failed: u64,
}

impl From<&DrillOutcome> for DrillFacts {
    fn from(outcome: &DrillOutcome) -> Self {
        let ms = |span: Option<TimeDelta>| {
            span.map(|span| u64::try_from(span.num_milliseconds()).unwrap_or(0))
        };
        let structure = outcome.structure.as_ref();
        let checked = structure.filter(|found| found.unavailable.is_none());
        Self {
            level: outcome.level(),
            restore_ms: ms(outcome.restore_time),
            load_ms: ms(outcome.load_time),
            damaged: checked.map(|found| found.problems.len() as u64),
            assertions: outcome.assertions.len() as u64,
            assertions_failed: outcome.assertions_failed() as u64,
        }
    }
}

/// What a prune did, in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PruneFacts {
    /// Backups that are left.
    pub kept: u64,
    /// Backups that are no more.
    pub deleted: u64,
    /// Dead runs of which nothing is left.
    pub swept: u64,
    /// Stored bytes that are free.
    pub freed_bytes: u64,
    /// Which backups are no more; of very many, the first thousand.
    pub backups: Vec<BackupId>,
}

/// The record of one run. Fields that a later release adds are passed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Always [`RUN_FORMAT`] when written by this build.
    pub format: u32,
    /// Its name.
    pub id: RunId,
    /// What it did.
    pub operation: Operation,
    /// To which source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceName>,
    /// To which backup, or which one it took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupId>,
    /// The database that a restore was to make.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_database: Option<String>,
    /// Under which name the database that had this one before is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept_as: Option<String>,
    /// The run that an undo swapped back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undone: Option<RunId>,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// When it was over, clean-up included.
    pub finished_at: DateTime<Utc>,
    /// How it ended.
    pub result: RunResult,
    /// Why it failed, on one line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Whether it found the backup damaged.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub damaged: bool,
    /// How many warnings it gave. Their texts may name tables, so they are not here.
    #[serde(default)]
    pub warnings: u64,
    /// Who ran it.
    pub who: Who,
    /// For which moment of a schedule it ran, if one asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<DateTime<Utc>>,
    /// Bytes before compression.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raw_bytes: Option<u64>,
    /// Bytes as stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stored_bytes: Option<u64>,
    /// Stored bytes that were fetched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_read: Option<u64>,
    /// Whether a restore left something out on purpose.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
    /// What a restore's comparison found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compare: Option<CompareFacts>,
    /// What a verification found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verify: Option<VerifyFacts>,
    /// What a drill found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drill: Option<DrillFacts>,
    /// What a prune did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prune: Option<PruneFacts>,
    /// The class of the error. It is not stored: only who ran it knows.
    #[serde(skip)]
    pub kind: Option<ErrorKind>,
    /// What to do about the error, as far as the one who ran it knows.
    #[serde(skip)]
    pub hint: Option<String>,
}

impl RunRecord {
    /// The record of a run that begins at `started_at`. Until it is told otherwise, it failed.
    #[must_use]
    pub fn begin(operation: Operation, who: Who, started_at: DateTime<Utc>) -> Self {
        Self {
            format: RUN_FORMAT,
            id: RunId::new(started_at, rand::random()),
            operation,
            source: None,
            backup: None,
            target_database: None,
            kept_as: None,
            undone: None,
            started_at,
            finished_at: started_at,
            result: RunResult::Failed,
            error: None,
            damaged: false,
            warnings: 0,
            who,
            slot: None,
            raw_bytes: None,
            stored_bytes: None,
            bytes_read: None,
            partial: false,
            compare: None,
            verify: None,
            drill: None,
            prune: None,
            kind: None,
            hint: None,
        }
    }

    /// A backup was committed.
    pub fn backed_up(&mut self, outcome: &BackupOutcome) {
        let manifest = &outcome.manifest;
        self.backup = Some(manifest.id.clone());
        self.raw_bytes = Some(manifest.totals.raw_bytes);
        self.stored_bytes = Some(manifest.totals.stored_bytes);
        self.succeeded(outcome.warnings.len());
    }

    /// A backup was restored.
    pub fn restored(&mut self, outcome: &RestoreOutcome) {
        self.bytes_read = Some(outcome.bytes_read);
        self.partial = outcome.partial;
        self.compare = outcome.compare.as_ref().map(CompareFacts::from);
        if let Some(replacement) = &outcome.replaced {
            self.replaced(replacement);
        }
        self.succeeded(outcome.warnings.len());
    }

    /// A backup was copied.
    pub fn copied(&mut self, outcome: &CopyOutcome) {
        self.bytes_read = Some(outcome.bytes);
        self.succeeded(0);
    }

    /// Others can open a backup; `left` old keys could not be removed.
    pub fn rekeyed(&mut self, left: usize) {
        self.succeeded(left);
    }

    /// One database took the place of another.
    pub fn replaced(&mut self, replacement: &Replacement) {
        self.target_database = Some(replacement.database.clone());
        self.kept_as.clone_from(&replacement.kept_as);
        self.succeeded(replacement.warnings.len());
    }

    /// The record of an exchange whose run did not live to write it. What was compared is not known
    /// any more, so it is no proof.
    #[must_use]
    pub fn of_killed(replacement: &Replacement, who: Who) -> Self {
        let operation = match replacement.backup {
            Some(_) => Operation::Restore,
            None => Operation::Undo,
        };
        let mut record = Self::begin(operation, who, replacement.run.started_at());
        record.id = replacement.run.clone();
        record.source.clone_from(&replacement.source);
        record.backup.clone_from(&replacement.backup);
        record.replaced(replacement);
        record.result = RunResult::Warnings;
        record.warnings = 1;
        record
    }

    /// The record of a backup whose run did not live to write it, the same whoever writes it. What it
    /// has `committed` is a backup all the same.
    #[must_use]
    pub fn of_dead(dead: &DeadRun, committed: Option<&Manifest>) -> Self {
        let who = dead.who.clone();
        let mut record = Self::begin(Operation::Backup, who, dead.since);
        record.id = RunId::of_backup(&dead.backup, &dead.source);
        record.source = Some(dead.source.clone());
        record.finished_at = dead.seen.max(dead.since);
        if let Some(manifest) = committed {
            record.backup = Some(manifest.id.clone());
            record.raw_bytes = Some(manifest.totals.raw_bytes);
            record.stored_bytes = Some(manifest.totals.stored_bytes);
            record.succeeded(1);
        } else {
            record.result = RunResult::Interrupted;
            record.error = Some("its process ended before the backup was done".to_owned());
        }
        record
    }

    /// A backup was verified; that it is damaged is a failure.
    pub fn verified(&mut self, report: &VerifyReport) {
        self.bytes_read = Some(report.bytes_read);
        self.verify = Some(VerifyFacts {
            level: report.level,
            problems: report.problems.len() as u64,
        });
        match report.problems.as_slice() {
            [] => self.succeeded(0),
            [first, others @ ..] => {
                let more = match others.len() {
                    0 => String::new(),
                    count => format!(" (and {count} more)"),
                };
                self.result = RunResult::Failed;
                self.damaged = true;
                self.error = Some(one_line(&format!(
                    "part {}: {}{more}",
                    first.part, first.problem
                )));
            }
        }
    }

    /// A restore was rehearsed; that it did not work is a failure.
    pub fn drilled(&mut self, outcome: &DrillOutcome) {
        self.bytes_read = outcome.bytes_read;
        self.compare = outcome.compare.as_ref().map(CompareFacts::from);
        self.drill = Some(DrillFacts::from(outcome));
        match &outcome.error {
            None => self.succeeded(outcome.warnings.len()),
            Some(error) => self.failed(error),
        }
        let of_bytes = [DrillLevel::Stored, DrillLevel::Hashed, DrillLevel::Decoded];
        self.damaged |= outcome
            .levels
            .iter()
            .any(|found| found.state == LevelState::Failed && of_bytes.contains(&found.level));
    }

    /// Old backups were let go.
    pub fn pruned(&mut self, plan: &ExpiryPlan, outcome: &ExpireOutcome) {
        let deleted = outcome.deleted.len();
        self.prune = Some(PruneFacts {
            kept: (plan.backups.len() - deleted) as u64,
            deleted: deleted as u64,
            swept: outcome.swept.len() as u64,
            freed_bytes: outcome.freed_bytes,
            backups: outcome
                .deleted
                .iter()
                .take(NAMED_BACKUPS)
                .cloned()
                .collect(),
        });
        self.succeeded(plan.warnings.len() + outcome.warnings.len());
        if outcome.stopped {
            self.result = RunResult::Cancelled;
        } else if outcome.failed_wholly() {
            self.result = RunResult::Failed;
        }
    }

    /// It did what it was to do, and there is no more to say of it.
    pub fn done(&mut self) {
        self.succeeded(0);
    }

    /// The engine gave up.
    pub fn failed(&mut self, error: &Error) {
        if let Error::Differs(report) = error {
            self.compare = Some(CompareFacts::from(report.as_ref()));
        }
        // These are about what became of it.
        let restored = matches!(error, Error::Differs(_) | Error::Unsound { .. });
        self.damaged = error.kind() == ErrorKind::Corrupt && !restored;
        self.hint = error.hint().map(str::to_owned);
        self.ended(error.kind(), &told(error));
    }

    /// It ended with an error of this kind, which may be the frontend's own.
    pub fn ended_with(&mut self, error: &dyn StdError, kind: ErrorKind) {
        self.ended(kind, &chain(error));
    }

    fn ended(&mut self, kind: ErrorKind, text: &str) {
        self.kind = Some(kind);
        if kind == ErrorKind::Cancelled {
            self.result = RunResult::Cancelled;
            self.error = None;
        } else {
            self.result = RunResult::Failed;
            self.error = Some(one_line(text));
        }
    }

    fn succeeded(&mut self, warnings: usize) {
        self.kind = None;
        self.hint = None;
        self.warnings = warnings as u64;
        self.error = None;
        self.result = if warnings == 0 {
            RunResult::Success
        } else {
            RunResult::Warnings
        };
    }

    /// Whether the run did what it was to do.
    #[must_use]
    pub fn is_success(&self) -> bool {
        matches!(self.result, RunResult::Success | RunResult::Warnings)
    }

    /// The stored form.
    ///
    /// # Errors
    /// `Internal`, which JSON of plain data does not have.
    pub fn encode(&self) -> Result<Vec<u8>, PortError> {
        versioned::encode(self, "run record")
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// `Corrupt` when it is no record; `InvalidInput` when a newer build wrote it.
    pub fn decode(text: &[u8]) -> Result<Self, PortError> {
        versioned::decode(text, RUN_FORMAT, "run record")
    }
}

/// What an error says in a place that is in the clear. Servers and programs quote the rows that they
/// stumble over, so of what they say only our own words are kept.
fn told(error: &Error) -> String {
    match error {
        Error::Dump { operation, source }
        | Error::Restore { operation, source }
        | Error::Replace { operation, source }
            if quotes_rows(source.kind()) =>
        {
            // What a program said comes after a colon.
            let message = source.to_string();
            let own = message.split(": ").next().unwrap_or_default();
            format!("{operation}: {own}")
        }
        Error::Differs(report) => format!(
            "restored content differs from the dump: {} of {} tables equal",
            report.equal, report.tables
        ),
        _ => chain(error),
    }
}

/// Whether somebody else's words may be about rows.
fn quotes_rows(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::ToolFailed
            | ErrorKind::PermissionDenied
            | ErrorKind::InvalidInput
            | ErrorKind::Internal
    )
}

/// An error of the engine as its record says it: bounded, on one line, and without what servers and
/// programs quote.
#[must_use]
pub fn recorded_text(error: &Error) -> String {
    one_line(&told(error))
}

/// An error's text for a place that is in the clear: bounded, on one line, and without the detail
/// and context in which servers quote rows.
fn one_line(text: &str) -> String {
    let quote = QUOTES.iter().filter_map(|mark| text.find(mark)).min();
    let told = match quote {
        Some(at) => format!("{}; …", text[..at].trim_end_matches([' ', ';', '\n'])),
        None => text.to_owned(),
    };
    let plain: Vec<char> = told
        .split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
        .chars()
        .collect();
    if plain.len() <= ERROR_CHARS {
        return plain.into_iter().collect();
    }
    // What failed stands first, why it did stands last.
    let (head, tail) = (
        &plain[..ERROR_CHARS / 2],
        &plain[plain.len() - ERROR_CHARS / 2..],
    );
    head.iter().chain(&[' ', '…', ' ']).chain(tail).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::PartProblem;
    use crate::manifest::PartName;
    use chrono::TimeZone;

    fn record() -> RunRecord {
        let started = Utc.with_ymd_and_hms(2026, 2, 5, 3, 0, 0).unwrap();
        let who = Who {
            user: "backup".to_owned(),
            host: "db1".to_owned(),
        };
        let mut record = RunRecord::begin(Operation::Verify, who, started);
        record.source = Some(SourceName::new("my shop").unwrap());
        record.backup = Some(BackupId::new(started, 7));
        record.verified(&VerifyReport {
            level: VerifyLevel::Decoded,
            parts: 3,
            bytes_read: 10,
            problems: Vec::new(),
        });
        record
    }

    #[test]
    fn what_is_written_is_read() {
        let mut full = record();
        full.target_database = Some("shop_restored".to_owned());
        full.compare = Some(CompareFacts {
            tables: 3,
            equal: 2,
            rows: 5,
        });
        (full.raw_bytes, full.stored_bytes) = (Some(1), Some(2));
        full.error = Some("why".to_owned());
        for record in [record(), full] {
            let text = record.encode().unwrap();
            assert_eq!(RunRecord::decode(&text).unwrap(), record);
        }
    }

    #[test]
    fn later_releases_may_add_but_not_change() {
        let mut value = serde_json::to_value(record()).unwrap();
        value["new_field"] = serde_json::json!({ "a": 1 });
        value["operation"] = "polish".into();
        let decode = |value: &serde_json::Value| RunRecord::decode(value.to_string().as_bytes());
        let read = decode(&value).unwrap();
        assert_eq!(read.operation, Operation::Other("polish".to_owned()));
        value["format"] = 2.into();
        let error = decode(&value).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("format 2"), "{error}");
        for text in ["", "{}", "{\"format\": 1}", "\0\0"] {
            let error = RunRecord::decode(text.as_bytes()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{text:?}");
        }
    }

    #[test]
    fn ids_sort_by_time_and_are_no_backup_ids() {
        let early = Utc.with_ymd_and_hms(2025, 12, 31, 23, 59, 59).unwrap();
        let late = Utc.with_ymd_and_hms(2026, 1, 1, 0, 0, 0).unwrap();
        let early = early + chrono::TimeDelta::milliseconds(500);
        let (first, second) = (RunId::new(early, u16::MAX), RunId::new(late, 0));
        assert!(first < second && first.as_str() < second.as_str());
        assert_eq!(first.as_str(), "20251231T235959Z-8000ffff");
        let soon = early + chrono::TimeDelta::milliseconds(1);
        assert!(first < RunId::new(soon, 0));
        assert_eq!(first.as_str().parse::<RunId>().unwrap(), first);
        assert_eq!(second.started_at(), late);
        assert!(first.as_str().parse::<BackupId>().is_err());
        for text in [
            "",
            "20260205T030000Z-7f3a",
            "20260205T030000Z-7F3A09C2",
            "../x",
        ] {
            assert!(text.parse::<RunId>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_cancelled_run_has_no_error_and_a_failed_one_has() {
        let mut run = record();
        run.failed(&Error::Cancelled);
        assert_eq!((run.result, &run.error), (RunResult::Cancelled, &None));
        run.failed(&Error::dump(
            "dump part data-rest",
            PortError::new(
                ErrorKind::ToolFailed,
                "pg_dump exited with 1:\n lost my way",
            ),
        ));
        assert_eq!(run.result, RunResult::Failed);
        let text = "dump part data-rest: pg_dump exited with 1: lost my way";
        assert_eq!(run.error.as_deref(), Some(text));
    }

    #[test]
    fn damage_is_a_failure_that_names_the_part() {
        let mut run = record();
        let problem = |name: &str| PartProblem {
            part: PartName::new(name).unwrap(),
            problem: "is cut".to_owned(),
        };
        run.verified(&VerifyReport {
            level: VerifyLevel::Hashed,
            parts: 3,
            bytes_read: 10,
            problems: vec![problem("schema"), problem("data-rest")],
        });
        assert!(!run.is_success());
        assert_eq!(run.verify.unwrap().problems, 2);
        let text = "part schema: is cut (and 1 more)";
        assert_eq!(run.error.as_deref(), Some(text));
    }

    #[test]
    fn rows_that_a_server_quotes_are_left_out_and_floods_are_cut() {
        let text = "could not create unique index; DETAIL:  Key (mail)=(a; b) is duplicated.";
        assert_eq!(one_line(text), "could not create unique index; …");
        let flood = format!("first {} last", "word ".repeat(10_000));
        let line = one_line(&flood);
        assert!(line.starts_with("first ") && line.ends_with(" last"));
        assert!(line.chars().count() <= ERROR_CHARS + 3);
    }
}
