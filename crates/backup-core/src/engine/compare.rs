//! Is what was restored what was dumped?

use std::collections::BTreeMap;

use crate::facts::{Facts, Fingerprint, TableName};
use crate::restorer::{Definitions, ReadBack};

/// A table whose content is not what was dumped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Which.
    pub table: TableName,
    /// As dumped.
    pub dumped: Fingerprint,
    /// As restored.
    pub restored: Fingerprint,
}

/// A table that could not be read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotComparable {
    /// Which.
    pub table: TableName,
    /// Why.
    pub reason: String,
}

/// A sequence that would hand out values again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SequenceBehind {
    /// Which.
    pub sequence: TableName,
    /// Its value when it was dumped.
    pub dumped: i64,
    /// Its value now; `None` = it does not exist.
    pub restored: Option<i64>,
}

/// The result of a comparison: content table by table, and definitions entry by entry.
///
/// The content of materialized views is not compared: they are made anew from their queries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CompareReport {
    /// Tables compared.
    pub tables: usize,
    /// Of these, equal in rows, bytes and content.
    pub equal: usize,
    /// Rows in the equal tables.
    pub rows: u64,
    /// Tables with other content.
    pub different: Vec<Difference>,
    /// Tables that are not there.
    pub missing: Vec<TableName>,
    /// Tables that could not be read.
    pub not_comparable: Vec<NotComparable>,
    /// Sequences behind their dumped value.
    pub sequences_behind: Vec<SequenceBehind>,
    /// Whether large objects are as dumped; `None` without any.
    pub large_objects_equal: Option<bool>,
    /// The definitions; `None` when they could not be compared.
    pub definitions: Option<Definitions>,
    /// Rows of materialized views as they are now, where they could be counted.
    pub materialized_views: BTreeMap<TableName, Option<u64>>,
}

impl CompareReport {
    /// Whether everything is proved equal.
    #[must_use]
    pub fn is_equal(&self) -> bool {
        self.equal == self.tables
            && self.sequences_behind.is_empty()
            && self.large_objects_equal != Some(false)
            && self.definitions.as_ref().is_none_or(Definitions::is_equal)
    }

    /// What is worth a warning although nothing is proved to differ.
    pub(crate) fn warnings(&self) -> impl Iterator<Item = String> {
        let unclear = self.definitions.iter().flat_map(|found| &found.unclear);
        unclear.map(|name| {
            format!("{name} reads otherwise than in the dump, which another minor release wrote")
        })
    }

    /// The result in a few words, naming the first thing that differs.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut words = vec![format!("{} of {} tables equal", self.equal, self.tables)];
        if let Some(first) = self.different.first() {
            words.push(format!(
                "{} has {} rows where {} were dumped",
                first.table, first.restored.rows, first.dumped.rows
            ));
        }
        words.extend(
            self.missing
                .first()
                .map(|table| format!("{table} is missing")),
        );
        if let Some(first) = self.not_comparable.first() {
            words.push(format!("{} cannot be read: {}", first.table, first.reason));
        }
        if let Some(first) = self.sequences_behind.first() {
            words.push(format!("sequence {} is behind", first.sequence));
        }
        if self.large_objects_equal == Some(false) {
            words.push("large objects differ".to_owned());
        }
        words.extend(self.definitions.as_ref().and_then(definitions_summary));
        words.join(", ")
    }
}

fn definitions_summary(found: &Definitions) -> Option<String> {
    let lists = [
        (&found.missing, "is missing"),
        (&found.different, "is not as dumped"),
        (&found.extra, "was not dumped"),
    ];
    let firsts = lists
        .iter()
        .filter_map(|(list, words)| list.first().map(|name| format!("{name} {words}")));
    let firsts: Vec<String> = firsts.collect();
    (!firsts.is_empty()).then(|| firsts.join(", "))
}

/// Compares what a backup says it holds with what was read back from a target.
#[must_use]
pub fn compare(facts: &Facts, target: &ReadBack) -> CompareReport {
    let mut report = CompareReport::default();
    for (table, dumped) in facts.tables() {
        report.tables += 1;
        match target.tables.get(&table) {
            None => report.missing.push(table),
            Some(Err(reason)) => report.not_comparable.push(NotComparable {
                table,
                reason: reason.clone(),
            }),
            Some(Ok(restored)) if *restored == dumped.fingerprint => {
                report.equal += 1;
                report.rows += restored.rows;
            }
            Some(Ok(restored)) => report.different.push(Difference {
                table,
                dumped: dumped.fingerprint,
                restored: *restored,
            }),
        }
    }
    report.sequences_behind = sequences_behind(facts, target);
    report.large_objects_equal = facts
        .large_objects()
        .map(|dumped| dumped == target.large_objects.unwrap_or_default());
    report.definitions.clone_from(&target.definitions);
    report
        .materialized_views
        .clone_from(&target.materialized_views);
    report
}

/// Sequences do not obey snapshots, so they may be ahead of the dump but never behind
/// (<https://www.postgresql.org/docs/current/functions-sequence.html>).
fn sequences_behind(facts: &Facts, target: &ReadBack) -> Vec<SequenceBehind> {
    let dumped = facts.parts.values().flat_map(|part| &part.sequences);
    dumped
        .filter_map(|dumped| {
            let restored = target
                .sequences
                .iter()
                .find(|found| found.sequence == dumped.sequence);
            let behind = restored.is_none_or(|restored| {
                (restored.last_value, restored.is_called) < (dumped.last_value, dumped.is_called)
            });
            behind.then(|| SequenceBehind {
                sequence: dumped.sequence.clone(),
                dumped: dumped.last_value,
                restored: restored.map(|restored| restored.last_value),
            })
        })
        .collect()
}
