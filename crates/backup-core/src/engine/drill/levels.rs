//! What a rehearsal proved, step by step.

use serde::{Deserialize, Serialize};

use super::DrillOutcome;
use crate::drill::Answer;
use crate::engine::VerifyLevel;

/// How deep a proof goes, each deeper than the ones before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DrillLevel {
    /// Every object is there with its length.
    Stored,
    /// Every byte is what was written.
    Hashed,
    /// It decrypts and decompresses to what was dumped.
    Decoded,
    /// It restores without an error.
    Restored,
    /// What was restored is equal to the dump.
    Compared,
    /// Tables and indexes are sound, and the assertions hold.
    Checked,
}

impl DrillLevel {
    /// All of them, in their order.
    pub const ALL: [Self; 6] = [
        Self::Stored,
        Self::Hashed,
        Self::Decoded,
        Self::Restored,
        Self::Compared,
        Self::Checked,
    ];

    /// The name used in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Hashed => "hashed",
            Self::Decoded => "decoded",
            Self::Restored => "restored",
            Self::Compared => "compared",
            Self::Checked => "checked",
        }
    }

    /// What it says, in words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Stored => "every stored object is there at its full length",
            Self::Hashed => "every stored byte is what was written",
            Self::Decoded => "it decrypts and decompresses to what was dumped",
            Self::Restored => "it restores without an error",
            Self::Compared => "what was restored is equal to what was dumped",
            Self::Checked => "tables and indexes are sound, and the assertions hold",
        }
    }
}

/// What came of one level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LevelState {
    /// Proved.
    Passed,
    /// Disproved.
    Failed,
    /// It did not come to that.
    NotReached,
    /// There was nothing to try it with.
    NotAvailable,
}

impl LevelState {
    /// The name used in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::NotReached => "not_reached",
            Self::NotAvailable => "not_available",
        }
    }
}

/// One level of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LevelResult {
    /// Which.
    pub level: DrillLevel,
    /// What came of it.
    pub state: LevelState,
}

/// What is known after a rehearsal.
#[derive(Debug, Default)]
pub(super) struct Proved {
    /// Everything loaded.
    pub(super) restored: bool,
    /// Every part was read to its end, also those that a restore does not need.
    pub(super) read: bool,
    /// What a look at the stored bytes found, after a failure.
    pub(super) verified: Vec<(VerifyLevel, bool)>,
}

pub(super) fn levels(proved: &Proved, outcome: &DrillOutcome) -> Vec<LevelResult> {
    let state = |level| match level {
        DrillLevel::Stored => bytes(proved, VerifyLevel::Stored),
        DrillLevel::Hashed => bytes(proved, VerifyLevel::Hashed),
        DrillLevel::Decoded => bytes(proved, VerifyLevel::Decoded),
        DrillLevel::Restored if proved.restored => LevelState::Passed,
        DrillLevel::Restored if outcome.server.is_some() && is_verdict(outcome) => {
            LevelState::Failed
        }
        DrillLevel::Restored => LevelState::NotReached,
        DrillLevel::Compared => match &outcome.compare {
            Some(report) if report.is_equal() => LevelState::Passed,
            Some(_) => LevelState::Failed,
            None => LevelState::NotReached,
        },
        DrillLevel::Checked => checked(outcome),
    };
    let all = DrillLevel::ALL.into_iter();
    all.map(|level| LevelResult {
        level,
        state: state(level),
    })
    .collect()
}

/// Whether the error tells something of the backup: a store that is away and a signal do not.
fn is_verdict(outcome: &DrillOutcome) -> bool {
    use crate::error::Error;
    match &outcome.error {
        None | Some(Error::Cancelled | Error::Store { .. } | Error::Key { .. }) => false,
        Some(error) => !error.kind().is_outage(),
    }
}

fn bytes(proved: &Proved, level: VerifyLevel) -> LevelState {
    if proved.read {
        return LevelState::Passed;
    }
    let found = proved.verified.iter().find(|(found, _)| *found == level);
    match found {
        Some((_, true)) => LevelState::Passed,
        Some((_, false)) => LevelState::Failed,
        None => LevelState::NotReached,
    }
}

fn checked(outcome: &DrillOutcome) -> LevelState {
    let Some(structure) = &outcome.structure else {
        return LevelState::NotReached;
    };
    let holds = outcome.assertions.iter().all(|(_, a)| *a == Answer::Holds);
    if !structure.problems.is_empty() || !holds {
        LevelState::Failed
    } else if structure.unavailable.is_some() && outcome.assertions.is_empty() {
        LevelState::NotAvailable
    } else {
        LevelState::Passed
    }
}
