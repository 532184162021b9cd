//! The chain, pure: what may come after what.

use std::fmt;

use super::entry::AuditRecord;
use crate::body::sha256_hex;
use crate::error::{ErrorKind, PortError, chain};

/// Where a chain ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The number of its newest record; 0 if there is none.
    pub number: u64,
    /// The SHA-256 of that record as it is stored, in hexadecimal.
    pub sha256: String,
}

impl Default for Head {
    fn default() -> Self {
        Self {
            number: 0,
            sha256: "0".repeat(64),
        }
    }
}

/// In what way a chain is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakKind {
    /// A record is not there, and later ones are.
    Missing,
    /// It cannot be read.
    Unreadable,
    /// It says another number than its name.
    Misplaced,
    /// It does not follow the one before: one of the two was changed.
    Unlinked,
    /// It belongs to another repository than the one before.
    Foreign,
}

impl BreakKind {
    /// The name used in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Unreadable => "unreadable",
            Self::Misplaced => "misplaced",
            Self::Unlinked => "unlinked",
            Self::Foreign => "foreign",
        }
    }
}

/// Where a chain is broken, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Break {
    /// The number of the record.
    pub number: u64,
    /// How.
    pub kind: BreakKind,
    /// What else is known.
    pub reason: Option<String>,
}

impl fmt::Display for Break {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.number;
        match self.kind {
            BreakKind::Missing => write!(f, "record {number} is missing, and later ones are there"),
            BreakKind::Unreadable => write!(f, "record {number} cannot be read"),
            BreakKind::Misplaced => write!(f, "record {number} says that it is another"),
            BreakKind::Unlinked if number == 1 => {
                write!(f, "record 1 is not the first that was written")
            }
            BreakKind::Unlinked => {
                let before = number - 1;
                write!(
                    f,
                    "record {number} does not follow record {before}: one of them was changed"
                )
            }
            BreakKind::Foreign => write!(f, "record {number} belongs to another repository"),
        }?;
        self.reason
            .iter()
            .try_for_each(|reason| write!(f, ": {reason}"))
    }
}

/// Follows a chain from its first record.
#[derive(Debug, Clone, Default)]
pub struct Walk {
    head: Head,
    repository: Option<String>,
}

impl Walk {
    /// The last record that is as it should be.
    #[must_use]
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Takes the next record as it is stored, or that it is not there.
    ///
    /// # Errors
    /// `InvalidInput` for a record of a later release, which is not for this build to judge.
    pub fn follow(&mut self, text: Option<&[u8]>) -> Result<Result<(), Break>, PortError> {
        let number = self.head.number + 1;
        let broken = |kind, reason| {
            Ok(Err(Break {
                number,
                kind,
                reason,
            }))
        };
        let Some(text) = text else {
            return broken(BreakKind::Missing, None);
        };
        let record = match AuditRecord::decode(text) {
            Ok(record) => record,
            Err(error) if error.kind() == ErrorKind::InvalidInput => return Err(error),
            Err(error) => return broken(BreakKind::Unreadable, Some(chain(&error))),
        };
        if record.number != number {
            return broken(
                BreakKind::Misplaced,
                Some(format!("number {}", record.number)),
            );
        }
        if record.previous != self.head.sha256 {
            return broken(BreakKind::Unlinked, None);
        }
        let known = self.repository.get_or_insert(record.repository.clone());
        if *known != record.repository {
            return broken(BreakKind::Foreign, Some(record.repository));
        }
        self.head = Head {
            number,
            sha256: sha256_hex(text),
        };
        Ok(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, TimeDelta, Utc};

    use super::super::entry::{AuditAction, AuditEntry, AuditOutcome};
    use super::*;
    use crate::run_record::Who;

    fn entry() -> AuditEntry {
        AuditEntry::new(AuditAction::Unpin, AuditOutcome::Done, Who::default())
    }

    fn records(count: u64) -> Vec<Vec<u8>> {
        let mut head = Head::default();
        let start = DateTime::<Utc>::UNIX_EPOCH;
        (0..count)
            .map(|index| {
                let time = start + TimeDelta::seconds(index.try_into().unwrap());
                let record = AuditRecord::new(&entry(), &head, "here", time);
                let text = record.encode().unwrap();
                head = Head {
                    number: record.number,
                    sha256: sha256_hex(&text),
                };
                text
            })
            .collect()
    }

    fn walk(records: &[Vec<u8>]) -> (Head, Option<(u64, BreakKind)>) {
        let mut walk = Walk::default();
        for text in records {
            let text = Some(text.as_slice()).filter(|text| !text.is_empty());
            if let Err(broken) = walk.follow(text).unwrap() {
                return (walk.head, Some((broken.number, broken.kind)));
            }
        }
        (walk.head, None)
    }

    #[test]
    fn a_whole_chain_is_followed_to_its_end() {
        let records = records(5);
        let (head, broken) = walk(&records);
        assert_eq!((head.number, broken), (5, None));
        assert_eq!(head.sha256, sha256_hex(&records[4]));
        assert_eq!(walk(&[]), (Head::default(), None));
    }

    #[test]
    fn any_change_of_a_line_shows() {
        let whole = records(4);
        for index in 0..3 {
            let text = String::from_utf8(whole[index].clone()).unwrap();
            for (line, _) in text.lines().enumerate() {
                let mut lines: Vec<_> = text.lines().collect();
                lines.remove(line);
                let mut changed = whole.clone();
                changed[index] = lines.join("\n").into_bytes();
                let (_, broken) = walk(&changed);
                let (number, _) = broken.expect("it shows");
                let number = usize::try_from(number).unwrap();
                assert!((index + 1..=index + 2).contains(&number));
            }
        }
        let mut changed = whole.clone();
        let text = String::from_utf8(changed[1].clone()).unwrap();
        changed[1] = text.replace("unpin", "pin").into_bytes();
        assert_eq!(walk(&changed).1, Some((3, BreakKind::Unlinked)));
    }

    #[test]
    fn what_is_taken_out_put_in_or_moved_shows() {
        let whole = records(5);
        let mut gap = whole.clone();
        gap[2].clear();
        assert_eq!(walk(&gap).1, Some((3, BreakKind::Missing)));
        let mut closed = whole.clone();
        closed.remove(2);
        assert_eq!(walk(&closed).1, Some((3, BreakKind::Misplaced)));
        let mut swapped = whole.clone();
        swapped.swap(1, 2);
        assert_eq!(walk(&swapped).1, Some((2, BreakKind::Misplaced)));
        // One that says the right number.
        let mut inserted = whole.clone();
        let stranger = Head {
            number: 2,
            sha256: "7".repeat(64),
        };
        let record = AuditRecord::new(&entry(), &stranger, "here", DateTime::UNIX_EPOCH);
        inserted.insert(2, record.encode().unwrap());
        assert_eq!(walk(&inserted).1, Some((3, BreakKind::Unlinked)));
        let mut torn = whole.clone();
        torn[4].truncate(20);
        assert_eq!(walk(&torn).1, Some((5, BreakKind::Unreadable)));
        let headless = &whole[1..];
        assert_eq!(walk(headless).1, Some((1, BreakKind::Misplaced)));
    }

    #[test]
    fn a_record_of_another_repository_shows() {
        let mut records = records(2);
        let (head, _) = walk(&records);
        let foreign = AuditRecord::new(&entry(), &head, "there", DateTime::UNIX_EPOCH);
        records.push(foreign.encode().unwrap());
        assert_eq!(walk(&records).1, Some((3, BreakKind::Foreign)));
    }

    #[test]
    fn a_record_of_a_later_release_is_not_judged() {
        let later = br#"{"format": 2, "number": 1}"#;
        let error = Walk::default().follow(Some(later)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
}
