//! A drill in one line and in two sentences.

use backup_core::engine::{CompareReport, DrillLevel, DrillOutcome, LevelState};
use backup_core::error::{Error, ErrorKind};

use super::time;
use crate::text::{count, counted, duration, moment};

/// The headline, and what it rests on.
pub(super) fn verdict(outcome: &DrillOutcome) -> (String, String) {
    let (headline, summary) = match &outcome.error {
        None => ("This backup restores", good(outcome)),
        Some(error) => bad(outcome, error),
    };
    (headline.to_owned(), summary)
}

fn subject(outcome: &DrillOutcome) -> String {
    let manifest = &outcome.manifest;
    let at = moment(&time(manifest.started_at));
    format!("The backup of {} from {at}", manifest.source)
}

fn good(outcome: &DrillOutcome) -> String {
    let took = outcome.restore_time.map_or_else(String::new, |took| {
        format!(" in {}", duration(took.as_seconds_f64()))
    });
    let holds = match outcome
        .levels
        .iter()
        .find(|l| l.level == DrillLevel::Checked)
    {
        Some(found) if found.state == LevelState::Passed => checked(outcome),
        _ => String::new(),
    };
    let compared = outcome.compare.as_ref().map_or_else(String::new, |report| {
        let (tables, rows) = (report.tables as u64, report.rows);
        format!(
            ", and {} with {} are equal to what was dumped",
            counted(tables, "table"),
            counted(rows, "row")
        )
    });
    let filtered = if outcome.manifest.filtered {
        " It is filtered: what its filter left out is not proved."
    } else {
        ""
    };
    format!(
        "{} came back{took}{compared}.{holds}{filtered}",
        subject(outcome)
    )
}

fn checked(outcome: &DrillOutcome) -> String {
    let structure = outcome.structure.as_ref();
    let mut words = Vec::new();
    if let Some(found) = structure.filter(|found| found.unavailable.is_none()) {
        let indexes = match found.indexes {
            1 => "1 index".to_owned(),
            number => format!("{} indexes", count(number)),
        };
        words.push(format!("{indexes} are sound"));
    }
    match outcome.assertions.len() {
        0 => {}
        1 => words.push("the assertion holds".to_owned()),
        number => words.push(format!("all {number} assertions hold")),
    }
    match words.as_slice() {
        [] => String::new(),
        words => {
            let text = words.join(", ");
            let (first, rest) = text.split_at(1);
            format!(" {}{rest}.", first.to_uppercase())
        }
    }
}

fn bad(outcome: &DrillOutcome, error: &Error) -> (&'static str, String) {
    let subject = subject(outcome);
    match (error, error.kind()) {
        (Error::Cancelled, _) => (
            "The drill was stopped",
            format!("{subject} was not rehearsed to the end, so nothing is proved."),
        ),
        (Error::Differs(report), _) => (
            "What came back is not what was dumped",
            format!(
                "{subject} restored without an error, but {}.",
                differences(report)
            ),
        ),
        (Error::Unsound { .. }, _) => unsound(outcome, &subject),
        (Error::Corrupt { .. }, _) => (
            "This backup is damaged",
            format!("{subject} cannot be read as it was written."),
        ),
        (Error::Key { .. }, _) => (
            "This backup could not be opened",
            format!("{subject} needs a key that was not given or does not fit."),
        ),
        (Error::Store { .. }, _) => (
            "The drill could not be finished",
            format!("{subject} could not be fetched from where it is stored."),
        ),
        (_, ErrorKind::ToolMissing | ErrorKind::Unsuitable | ErrorKind::Refused) => (
            "The drill could not be run",
            format!("{subject} was not tried, because there was no fitting server to try it on."),
        ),
        _ if outcome.server.is_none() => (
            "The drill could not be run",
            format!("{subject} was not tried, because no server could be started."),
        ),
        (_, ErrorKind::PermissionDenied) => (
            "This backup does not restore",
            format!(
                "{subject} could not be restored without the rights of a superuser, which a drill \
                 does not have."
            ),
        ),
        _ if is_intact(outcome) => (
            "This backup does not restore",
            format!(
                "{subject} is stored as it was written, every byte of it; what was dumped cannot be \
                 restored. Taking another backup does not help before its cause is gone."
            ),
        ),
        _ => (
            "This backup does not restore",
            format!("{subject} could not be restored."),
        ),
    }
}

fn differences(report: &CompareReport) -> String {
    let different = report.different.iter().map(|found| &found.table);
    let unreadable = report.not_comparable.iter().map(|found| &found.table);
    let tables: Vec<_> = different.chain(&report.missing).chain(unreadable).collect();
    let all = counted(report.tables as u64, "table");
    match tables.as_slice() {
        // Large objects, sequences, and whatever else is compared.
        [] => format!("not all of it is as it was: {}", report.summary()),
        [one] => format!("of {all}, {one} is not as it was"),
        [first, others @ ..] => {
            let number = count(others.len() as u64);
            format!("of {all}, {first} and {number} more are not as they were")
        }
    }
}

fn is_intact(outcome: &DrillOutcome) -> bool {
    let decoded = outcome
        .levels
        .iter()
        .find(|l| l.level == DrillLevel::Decoded);
    decoded.is_some_and(|found| found.state == LevelState::Passed)
}

fn unsound(outcome: &DrillOutcome, subject: &str) -> (&'static str, String) {
    let damaged = outcome.structure.as_ref().map_or(0, |s| s.problems.len());
    let (failed, all) = (outcome.assertions_failed(), outcome.assertions.len());
    let assertions = match (failed, all) {
        (1, 1) => "its assertion does not hold".to_owned(),
        (failed, all) => format!("{failed} of {all} assertions do not hold"),
    };
    match (damaged, failed) {
        (0, _) => (
            "What must hold does not",
            format!("{subject} came back equal to what was dumped, but {assertions}."),
        ),
        (_, 0) => (
            "The restored database is damaged",
            format!("{subject} came back, but its tables or indexes are not sound."),
        ),
        _ => (
            "The restored database is damaged",
            format!("{subject} came back, but it is not sound, and {assertions}."),
        ),
    }
}
