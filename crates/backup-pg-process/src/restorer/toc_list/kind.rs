//! What the kinds of entries say about when and how they run.

use backup_pg_archive::{DumpText, TocEntry};

use crate::restorer::schedule::Pass;

/// What every entry costs besides the work on rows: a round trip and some catalog rows, about as
/// much as this many bytes of data.
pub(super) const PER_ENTRY: u64 = 64 << 10;

/// A query of unknown cost: enough to get a process of its own.
const UNKNOWN_QUERY: u64 = 32 << 20;

/// What an entry's kind says about when and how it runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kind {
    pub(super) pass: Pass,
    pub(super) lock: Lock,
    /// Whether it works on the descendants of its table too.
    pub(super) recurses: bool,
    /// Cost as a share of the table's bytes, in percent.
    pub(super) percent: u64,
    /// Cost besides.
    pub(super) fixed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lock {
    Shared,
    Exclusive,
    /// As the object that it is about, exclusively.
    Parent,
    Privileges,
    Everything,
}

impl Kind {
    /// `cost` is the percentage of the table's bytes and what comes on top.
    const fn new(pass: Pass, lock: Lock, cost: (u64, u64)) -> Self {
        let (percent, fixed) = cost;
        Self {
            pass,
            lock,
            recurses: true,
            percent,
            fixed,
        }
    }

    /// The shares are what a table of narrow rows took; what matters is only their order of size.
    pub(super) fn of(entry: &TocEntry) -> Self {
        let main = |lock, percent| Self::new(Pass::Main, lock, (percent, PER_ENTRY));
        let last = Self::new(Pass::EventTriggers, Lock::Privileges, (0, PER_ENTRY));
        match entry.desc.as_bytes() {
            b"INDEX" => main(Lock::Shared, 45).on_one_table(),
            b"CONSTRAINT" if is_only(entry) => main(Lock::Exclusive, 30).on_one_table(),
            b"INDEX ATTACH" => main(Lock::Exclusive, 0).on_one_table(),
            b"FK CONSTRAINT" => main(Lock::Exclusive, 20),
            b"CONSTRAINT" | b"CHECK CONSTRAINT" => main(Lock::Exclusive, 5),
            b"TRIGGER"
            | b"RULE"
            | b"POLICY"
            | b"ROW SECURITY"
            | b"STATISTICS"
            | b"STATISTICS DATA"
            | b"EXTENDED STATISTICS DATA"
            | b"PUBLICATION"
            | b"PUBLICATION TABLE"
            | b"PUBLICATION TABLES IN SCHEMA"
            | b"SUBSCRIPTION"
            | b"SUBSCRIPTION TABLE" => main(Lock::Exclusive, 0),
            b"ACL" | b"DEFAULT ACL" => {
                Self::new(Pass::Privileges, Lock::Privileges, (0, PER_ENTRY / 4))
            }
            b"MATERIALIZED VIEW DATA" => {
                Self::new(Pass::Refresh, Lock::Exclusive, (0, UNKNOWN_QUERY))
            }
            b"EVENT TRIGGER" => last,
            b"COMMENT" | b"SECURITY LABEL" if starts(&entry.tag, b"EVENT TRIGGER ") => last,
            b"COMMENT" | b"SECURITY LABEL" => main(Lock::Parent, 0),
            // Whatever a later release adds: nothing is known about its locks.
            _ => main(Lock::Everything, 0),
        }
    }

    fn on_one_table(self) -> Self {
        Self {
            recurses: false,
            ..self
        }
    }
}

/// `ALTER TABLE ONLY` leaves descendants alone.
fn is_only(entry: &TocEntry) -> bool {
    let definition = entry.defn.as_ref();
    definition.is_some_and(|definition| starts(definition, b"ALTER TABLE ONLY "))
}

pub(super) fn mentions(entry: &TocEntry, words: &[u8]) -> bool {
    let definition = entry.defn.as_ref().map_or(&b""[..], DumpText::as_bytes);
    definition
        .windows(words.len())
        .any(|window| window == words)
}

pub(super) fn starts(text: &DumpText, with: &[u8]) -> bool {
    text.as_bytes().starts_with(with)
}
