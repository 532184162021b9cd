//! What is known of runs, with words and values.

use std::fmt::Write as _;

use backup_core::manifest::Manifest;
use backup_core::notifier::Fact;
use backup_core::run_record::{Operation, RunRecord, Who};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::super::background::Background;
use super::super::words::{at, fact, lasting, when};
use crate::backup_run::BackupRun;
use crate::text::{count, counted, duration, size};

fn number(name: &'static str, label: &'static str, value: u64) -> Fact {
    fact(name, label, &count(value)).with_value(value)
}

fn bytes(name: &'static str, label: &'static str, value: u64) -> Fact {
    let text = match value {
        0..1024 => size(value),
        _ => format!("{} ({} bytes)", size(value), count(value)),
    };
    fact(name, label, &text).with_value(value)
}

fn seconds(name: &'static str, label: &'static str, length: TimeDelta) -> Fact {
    let seconds = length.as_seconds_f64().max(0.0);
    fact(name, label, &duration(seconds)).with_value(seconds)
}

fn times(begun: DateTime<Utc>, ended: DateTime<Utc>) -> [Fact; 3] {
    [
        at("started_at", "Started", begun),
        at("finished_at", "Finished", ended),
        seconds("duration_seconds", "Duration", ended - begun),
    ]
}

/// Who runs it.
pub(super) fn who(who: &Who) -> Vec<Fact> {
    vec![fact("by", "Run by", &who.to_string())]
}

/// What stays of raw bytes when they are stored.
fn ratio(manifest: &Manifest) -> Option<Fact> {
    let (raw, stored) = (manifest.totals.raw_bytes, manifest.totals.stored_bytes);
    #[expect(clippy::cast_precision_loss, reason = "a ratio has a few digits")]
    let share = (raw > 0).then(|| stored as f64 / raw as f64)?;
    let percent = share * 100.0;
    let text = format!("{percent:.1} % of the raw size");
    Some(fact("stored_ratio", "Compression", &text).with_value(share))
}

/// The digest of the manifest, which names those of all objects.
fn checksum(manifest: &Manifest) -> Option<Fact> {
    let text = manifest.encode().ok()?;
    let mut digest = String::new();
    for byte in Sha256::digest(text) {
        let _ = write!(digest, "{byte:02x}");
    }
    let shown = format!("SHA-256 of the manifest: {digest}");
    Some(fact("manifest_sha256", "Checksum", &shown).with_value(digest))
}

fn destinations(run: &BackupRun) -> Fact {
    let places = run.destinations.iter();
    let texts: Vec<_> = places
        .map(|place| match (&place.error, &place.reason) {
            (Some(error), _) => format!("{}: {} ({error})", place.name, place.status),
            (None, Some(reason)) => format!("{}: {} ({reason})", place.name, place.status),
            (None, None) => format!("{}: {}", place.name, place.status),
        })
        .collect();
    let value = json!(run.destinations);
    fact("destinations", "Destinations", &texts.join("; ")).with_value(value)
}

/// Of a backup that is there, at one place at least.
pub(super) fn of_backup(manifest: &Manifest, run: &BackupRun) -> Vec<Fact> {
    let totals = &manifest.totals;
    let objects = |kind: &str| totals.objects.get(kind).copied().unwrap_or(0);
    let mut facts = vec![
        fact("source", "Source", manifest.source.as_str()),
        fact("database", "Database", &manifest.database),
        fact("backup", "Backup", manifest.id.as_str()),
        fact("server_version", "Server version", &manifest.server_version),
        fact("tool_version", "Tool version", &manifest.tool_version),
    ];
    facts.extend(times(manifest.started_at, manifest.finished_at));
    facts.extend([
        number("tables", "Tables", totals.tables),
        number("rows", "Rows", totals.rows),
        number("indexes", "Indexes", objects("indexes")),
        number("triggers", "Triggers", objects("triggers")),
        number("sequences", "Sequences", objects("sequences")),
        bytes("raw_bytes", "Raw size", totals.raw_bytes),
        bytes("stored_bytes", "Stored size", totals.stored_bytes),
    ]);
    facts.extend(ratio(manifest));
    let encrypted = manifest.encryption.is_some();
    let words = if encrypted { "yes" } else { "no" };
    facts.push(fact("encrypted", "Encrypted", words).with_value(encrypted));
    facts.extend(checksum(manifest));
    facts.push(destinations(run));
    facts.extend(attempts(run));
    facts
}

fn attempts(run: &BackupRun) -> Option<Fact> {
    let attempts = run.attempts;
    (attempts > 1).then(|| number("attempts", "Attempts", attempts.into()))
}

/// Of a backup that is nowhere.
pub(super) fn of_failed_backup(database: &str, record: &RunRecord, run: &BackupRun) -> Vec<Fact> {
    let source = record.source.as_ref().map_or("", |source| source.as_str());
    let mut facts = vec![fact("source", "Source", source)];
    if !database.is_empty() {
        facts.push(fact("database", "Database", database));
    }
    facts.extend(times(record.started_at, record.finished_at));
    if let Some(run) = &run.run {
        facts.push(fact("run", "Run", run.as_str()));
    }
    facts.extend(attempts(run));
    facts.extend(who(&record.who));
    facts
}

/// Of any other run.
pub(super) fn of_run(run: &RunRecord) -> Vec<Fact> {
    let mut facts = Vec::new();
    if let Some(source) = &run.source {
        facts.push(fact("source", "Source", source.as_str()));
    }
    if let Some(backup) = &run.backup {
        facts.push(fact("backup", "Backup", backup.as_str()));
    }
    if let Some(database) = &run.target_database {
        facts.push(fact("target_database", "Target database", database));
    }
    facts.extend(times(run.started_at, run.finished_at));
    if let Some(found) = &run.verify {
        let level = json!(found.level);
        facts.push(fact(
            "verify_level",
            "Level",
            level.as_str().unwrap_or_default(),
        ));
        facts.push(number("problems", "Problems", found.problems));
    }
    facts.extend(of_drill(run));
    if let Some(compare) = &run.compare {
        let tables = counted(compare.tables, "table");
        let rows = counted(compare.rows, "row");
        let text = format!("{} of {tables} equal, {rows}", count(compare.equal));
        facts.push(fact("compare", "Comparison", &text).with_value(json!(compare)));
    }
    if let Some(prune) = &run.prune {
        facts.push(number("kept", "Backups kept", prune.kept));
        facts.push(number("deleted", "Backups let go", prune.deleted));
        facts.push(bytes("freed_bytes", "Freed", prune.freed_bytes));
    }
    if let Some(read) = run.bytes_read {
        facts.push(bytes("bytes_read", "Read", read));
    }
    if run.operation != Operation::Backup || run.raw_bytes.is_none() {
        facts.push(fact("run", "Run", run.id.as_str()));
    }
    facts.extend(who(&run.who));
    facts
}

fn of_drill(run: &RunRecord) -> Vec<Fact> {
    let Some(drill) = &run.drill else {
        return Vec::new();
    };
    let length = |ms: u64| TimeDelta::milliseconds(i64::try_from(ms).unwrap_or(i64::MAX / 2));
    let mut facts = Vec::new();
    if let Some(level) = drill.level {
        facts.push(fact("drill_level", "Proved up to", level.as_str()));
    }
    if let Some(ms) = drill.restore_ms {
        facts.push(seconds("rto_seconds", "Recovery time", length(ms)));
    }
    if let Some(ms) = drill.load_ms {
        facts.push(seconds("load_seconds", "Of that, loading", length(ms)));
    }
    if let Some(damaged) = drill.damaged {
        facts.push(number("damaged", "Damaged tables or indexes", damaged));
    }
    if drill.assertions > 0 {
        let held = drill.assertions - drill.assertions_failed.min(drill.assertions);
        let text = format!("{held} of {} hold", drill.assertions);
        let value = json!({ "asked": drill.assertions, "failed": drill.assertions_failed });
        facts.push(fact("assertions", "Assertions", &text).with_value(value));
    }
    facts
}

/// What is known beside; `taken` is whether there is a backup of right now.
pub(super) fn of_background(known: &Background, taken: bool) -> Vec<Fact> {
    let mut facts = Vec::new();
    if !taken {
        facts.push(match &known.newest {
            Some((id, done, age)) => {
                let text = format!("{id}, {}, {} old", when(*done), lasting(*age));
                let value = json!({ "id": id, "finished_at": when(*done), "age_seconds": age.num_seconds() });
                fact("last_good_backup", "Last good backup", &text).with_value(value)
            }
            None => fact("last_good_backup", "Last good backup", "none is known")
                .with_value(json!(null)),
        });
    }
    let proved = [
        ("last_verified", "Last verified", known.verified),
        ("last_drill", "Last good drill", known.drilled),
    ];
    for (name, label, moment) in proved {
        facts.push(match moment {
            Some(moment) => at(name, label, moment),
            None => fact(name, label, "never, as far as is known").with_value(json!(null)),
        });
    }
    if let Some(until) = known.kept_until {
        facts.push(at("retention_until", "Kept at least until", until));
    }
    if let Some(next) = known.next {
        facts.push(at("next_run", "Next backup", next));
    }
    facts
}
