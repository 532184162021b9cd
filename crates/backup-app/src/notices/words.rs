//! The words of notices.

use std::collections::BTreeSet;

use backup_core::check::span;
use backup_core::notifier::Fact;
use backup_core::run_record::Operation;
use backup_core::text::Line;
use chrono::{DateTime, TimeDelta, Utc};

use crate::text::{moment, time};
use crate::who::who;

/// The machine that tells.
pub(super) fn host() -> Line {
    who().host.into()
}

/// What an operation is called at the beginning of a sentence.
pub(super) fn named(operation: &Operation) -> &str {
    match operation {
        Operation::Backup => "Backup",
        Operation::Adopt => "Adoption of a dump",
        Operation::Restore => "Restore",
        Operation::Verify => "Verification",
        Operation::Undo => "Undo of a restore",
        Operation::Drill => "Restore drill",
        Operation::Copy => "Copy of a backup",
        Operation::Prune => "Prune",
        Operation::Rekey => "Change of keys",
        _ => "Work",
    }
}

/// How a run that is not fine ended.
pub(super) fn ended(kinds: &BTreeSet<String>) -> &'static str {
    let is = |kind: &str| kinds.contains(kind);
    if is("partial") {
        "did not reach every destination"
    } else if is("warnings") {
        "has warnings"
    } else if is("interrupted") {
        "was interrupted"
    } else if is("damaged") {
        "found damage"
    } else {
        "failed"
    }
}

/// What is found of a source.
pub(super) fn found(kinds: &BTreeSet<String>) -> &'static str {
    let is = |kind: &str| kinds.contains(kind);
    if is("stale") {
        "has no fresh backup"
    } else if is("no-backup") {
        "has no good backup"
    } else if is("damaged") || is("incomplete") {
        "has damaged backups"
    } else {
        "needs a look"
    }
}

/// A fact that is its own words.
pub(super) fn fact(name: &'static str, label: &'static str, text: &str) -> Fact {
    Fact::new(name, label, text)
}

/// A moment.
pub(super) fn at(name: &'static str, label: &'static str, at: DateTime<Utc>) -> Fact {
    let at = time(at);
    fact(name, label, &moment(&at)).with_value(at)
}

/// A moment, in a sentence.
pub(super) fn when(at: DateTime<Utc>) -> String {
    moment(&time(at))
}

/// How long something lasts, in a sentence.
pub(super) fn lasting(length: TimeDelta) -> String {
    span(length.max(TimeDelta::zero()))
}
