//! A job as it is shown.

use backup_core::engine::PartProblem;
use backup_core::error::{ErrorKind, chain};
use backup_core::run_record::{RunId, recorded_text};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use super::Order;
use crate::error::AppError;
use crate::text::{shown, time};

/// How a job stands, the best end first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    Queued,
    Running,
    Success,
    /// Done, though something was not as it should be.
    Warnings,
    /// Done, but not in every place.
    Partial,
    Failed,
    Cancelled,
}

impl State {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Success => "success",
            Self::Warnings => "warnings",
            Self::Partial => "partial",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Whether a job in that state is over.
pub(super) fn is_final(state: &str) -> bool {
    ![State::Queued.as_str(), State::Running.as_str()].contains(&state)
}

/// A job. One that is over never changes any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct JobView {
    /// Its name. The first record that it leaves has the same.
    pub id: String,
    /// `backup`, `verify`, `drill`, `restore` or `prune`.
    pub operation: String,
    /// The source, if it is about one.
    pub source: Option<String>,
    /// The backup that it is about, or that it took.
    pub backup: Option<String>,
    /// Who asked for it; `schedule` if nobody did.
    pub by: String,
    /// The moment of the schedule that asked for it.
    pub slot: Option<String>,
    /// `queued`, `running`, `success`, `warnings`, `partial`, `failed` or `cancelled`.
    pub state: &'static str,
    /// What it does right now.
    pub phase: Option<String>,
    /// Raw bytes that are done.
    pub bytes_done: u64,
    /// How many there will be, as far as that is known.
    pub bytes_total: Option<u64>,
    /// When it was asked for.
    pub queued_at: String,
    /// When it began.
    pub started_at: Option<String>,
    /// When it was over.
    pub finished_at: Option<String>,
    /// The records that it left.
    pub runs: Vec<String>,
    /// Why it failed.
    pub error: Option<JobError>,
    /// What it made to be looked into.
    pub sandbox: Option<SandboxView>,
}

/// Why a job failed, in words that are in the clear in records too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct JobError {
    /// Its class.
    pub kind: String,
    /// What failed and why.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

/// A database to be looked into, without its password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct SandboxView {
    /// Its name, and that of its login.
    pub database: String,
    /// Where.
    pub host: String,
    /// Where.
    pub port: u16,
    /// When it is dropped.
    pub until: String,
    /// Tables in it.
    pub tables: u64,
    /// Rows in them.
    pub rows: u64,
    /// `equal` when its content is that of the dump; `definitions` when there are no rows.
    pub compared: &'static str,
}

impl JobView {
    /// The states of one that did all that it was for.
    pub const DONE: [&str; 3] = [
        State::Success.as_str(),
        State::Warnings.as_str(),
        State::Partial.as_str(),
    ];

    pub(super) fn queued(id: &RunId, order: &Order, now: DateTime<Utc>) -> Self {
        let work = &order.work;
        Self {
            id: id.to_string(),
            operation: work.operation().to_string(),
            source: work.source().map(ToString::to_string),
            backup: work.backup().map(ToString::to_string),
            by: order.by.clone(),
            slot: order.slot.map(time),
            state: State::Queued.as_str(),
            phase: None,
            bytes_done: 0,
            bytes_total: None,
            queued_at: time(now),
            started_at: None,
            finished_at: None,
            runs: Vec::new(),
            error: None,
            sandbox: None,
        }
    }

    /// Whether it is over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        is_final(self.state)
    }
}

impl JobError {
    /// What servers and programs say may quote rows, so it is left out as it is in records.
    pub(super) fn of(error: &AppError) -> Self {
        Self {
            kind: error.kind().as_str().to_owned(),
            message: match error {
                AppError::Engine(error) => recorded_text(error),
                error => shown(&chain(error)),
            },
            hint: error.hint(),
        }
    }

    pub(super) fn panicked() -> Self {
        Self {
            kind: ErrorKind::Internal.as_str().to_owned(),
            message: "something went wrong; the log of the server knows more".to_owned(),
            hint: None,
        }
    }
}

impl JobError {
    /// A backup is not what was stored.
    pub(super) fn damaged(first: &PartProblem, count: usize) -> Self {
        let more = match count {
            0 | 1 => String::new(),
            count => format!(" (and {} more)", count - 1),
        };
        Self {
            kind: ErrorKind::Corrupt.as_str().to_owned(),
            message: format!("part {}: {}{more}", first.part, shown(&first.problem)),
            hint: None,
        }
    }

    /// The store let nothing go.
    pub(super) fn nothing_deleted() -> Self {
        Self {
            kind: ErrorKind::Unavailable.as_str().to_owned(),
            message: "nothing could be deleted; the log of the server knows more".to_owned(),
            hint: None,
        }
    }
}
