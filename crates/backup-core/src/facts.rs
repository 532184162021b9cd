//! What a backup holds: table names, row counts, content fingerprints.
//!
//! All of it is confidential, so it is stored as a part of its own, compressed and
//! encrypted like the data; the clear manifest carries totals only.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::AddAssign;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::backup::{BackupId, SourceName};
use crate::error::Error;
use crate::manifest::PartName;

/// Rows, bytes and an order-independent hash of a table's COPY text lines.
///
/// Fingerprints of pieces of a table add up to that of the whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Lines.
    pub rows: u64,
    /// Bytes with line ends.
    pub bytes: u64,
    /// Sum modulo 2^128 of the xxh3-128 of each line without its line end.
    pub hash: ContentHash,
}

impl AddAssign for Fingerprint {
    fn add_assign(&mut self, other: Self) {
        self.rows += other.rows;
        self.bytes += other.bytes;
        self.hash = ContentHash(self.hash.0.wrapping_add(other.hash.0));
    }
}

/// 128 bits, written as 32 hex digits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContentHash(pub u128);

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The text is not 32 hex digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a content hash of 32 hex digits")]
pub struct ParseContentHashError;

impl FromStr for ContentHash {
    type Err = ParseContentHashError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() != 32 {
            return Err(ParseContentHashError);
        }
        u128::from_str_radix(text, 16)
            .map(Self)
            .map_err(|_| ParseContentHashError)
    }
}

impl TryFrom<String> for ContentHash {
    type Error = ParseContentHashError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ContentHash> for String {
    fn from(hash: ContentHash) -> Self {
        hash.to_string()
    }
}

/// A table's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TableName {
    /// Schema, unquoted.
    pub schema: String,
    /// Table, unquoted.
    pub name: String,
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

/// Finds the table that somebody means by `schema.name`, or by the bare name where only one table
/// has it. Names may hold dots themselves, so the text is never taken apart.
///
/// # Errors
/// When no table or more than one is meant.
pub fn find_table(
    tables: impl IntoIterator<Item = TableName>,
    text: &str,
) -> Result<TableName, FindTableError> {
    let (mut whole, mut bare) = (BTreeSet::new(), BTreeSet::new());
    for table in tables {
        if table.to_string() == text {
            whole.insert(table);
        } else if table.name == text {
            bare.insert(table);
        }
    }
    let mut found = if whole.is_empty() { bare } else { whole };
    match (found.pop_first(), found.len()) {
        (Some(table), 0) => Ok(table),
        (Some(_), others) => Err(FindTableError::Ambiguous {
            text: text.to_owned(),
            count: others + 1,
        }),
        (None, _) => Err(FindTableError::NotFound {
            text: text.to_owned(),
        }),
    }
}

/// A text that names no table, or several.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FindTableError {
    /// None.
    #[error("table {text} not found")]
    NotFound {
        /// The text.
        text: String,
    },
    /// Several.
    #[error("{count} tables are called {text}; say SCHEMA.TABLE")]
    Ambiguous {
        /// The text.
        text: String,
        /// How many.
        count: usize,
    },
}

impl From<FindTableError> for Error {
    fn from(error: FindTableError) -> Self {
        match error {
            FindTableError::NotFound { text } => Self::NotFound {
                what: format!("table {text}"),
            },
            FindTableError::Ambiguous { .. } => Self::InvalidInput {
                message: error.to_string(),
            },
        }
    }
}

/// Of which content something is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Scope {
    /// All that was dumped.
    #[default]
    Everything,
    /// These tables and sequences, as these parts have them, and no large objects.
    Only {
        /// Tables and sequences; they share one space of names.
        relations: BTreeSet<TableName>,
        /// The parts that are read.
        parts: BTreeSet<PartName>,
    },
}

/// A table's rows in one part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableFacts {
    /// The table.
    #[serde(flatten)]
    pub table: TableName,
    /// The column list as the dump wrote it, quoted, without parentheses: the order of the
    /// columns in the lines. Empty for a table without columns.
    pub columns: String,
    /// Its content in this part.
    pub fingerprint: Fingerprint,
}

/// Large objects, counted and hashed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LargeObjectFacts {
    /// How many.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Order-independent hash over object id and content.
    pub hash: ContentHash,
}

/// A sequence's state when it was dumped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SequenceFacts {
    /// The sequence.
    #[serde(flatten)]
    pub sequence: TableName,
    /// `last_value`.
    pub last_value: i64,
    /// `is_called`.
    pub is_called: bool,
}

/// How many objects of a kind the schema has (`tables`, `indexes`, `triggers`, …).
pub type ObjectCounts = BTreeMap<String, u64>;

/// What one part was found to hold while it passed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartFacts {
    /// Table data, one entry a table.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<TableFacts>,
    /// Large objects, if this part holds them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub large_objects: Option<LargeObjectFacts>,
    /// Sequence states.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sequences: Vec<SequenceFacts>,
    /// Schema objects by kind.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub objects: ObjectCounts,
}

/// The content of the part named `facts`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// The backup this belongs to: a part moved to another backup is noticed.
    pub backup: BackupId,
    /// The source likewise.
    pub source: SourceName,
    /// The database that was dumped.
    pub database: String,
    /// Whether a filter left something out.
    pub filtered: bool,
    /// As in the manifest.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub as_configured: bool,
    /// SHA-256 of every stored object of the other parts: ties the clear manifest, which
    /// anybody with write access could edit, to the encrypted content.
    pub digests: BTreeMap<String, String>,
    /// What each part holds.
    pub parts: BTreeMap<PartName, PartFacts>,
    /// What the dumper wants its restorer to know; each has its own form.
    pub details: serde_json::Value,
    /// What was not as it should be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl Facts {
    /// Whole tables: pieces in several parts added up.
    #[must_use]
    pub fn tables(&self) -> BTreeMap<TableName, TableFacts> {
        let mut tables = BTreeMap::<TableName, TableFacts>::new();
        for facts in self.parts.values().flat_map(|part| &part.tables) {
            tables
                .entry(facts.table.clone())
                .and_modify(|sum| sum.fingerprint += facts.fingerprint)
                .or_insert_with(|| facts.clone());
        }
        tables
    }

    /// The parts that hold rows of `table`.
    #[must_use]
    pub fn parts_of(&self, table: &TableName) -> Vec<PartName> {
        self.parts
            .iter()
            .filter(|(_, part)| part.tables.iter().any(|facts| facts.table == *table))
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// What of this lies within `scope`.
    #[must_use]
    pub fn within(&self, scope: &Scope) -> Cow<'_, Self> {
        let Scope::Only { relations, parts } = scope else {
            return Cow::Borrowed(self);
        };
        let mut some = self.clone();
        some.parts.retain(|name, _| parts.contains(name));
        for part in some.parts.values_mut() {
            part.tables.retain(|facts| relations.contains(&facts.table));
            part.sequences
                .retain(|facts| relations.contains(&facts.sequence));
            part.large_objects = None;
        }
        Cow::Owned(some)
    }

    /// Large objects of all parts.
    #[must_use]
    pub fn large_objects(&self) -> Option<LargeObjectFacts> {
        let parts = self.parts.values().filter_map(|part| part.large_objects);
        parts.reduce(|sum, objects| LargeObjectFacts {
            count: sum.count + objects.count,
            bytes: sum.bytes + objects.bytes,
            hash: ContentHash(sum.hash.0.wrapping_add(objects.hash.0)),
        })
    }

    /// Schema objects by kind, over all parts.
    #[must_use]
    pub fn objects(&self) -> ObjectCounts {
        let mut counts = ObjectCounts::new();
        for (kind, count) in self.parts.values().flat_map(|part| &part.objects) {
            *counts.entry(kind.clone()).or_default() += count;
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_a_table_add_up() {
        let piece = |rows, hash| Fingerprint {
            rows,
            bytes: rows * 10,
            hash: ContentHash(hash),
        };
        let mut sum = piece(2, u128::MAX);
        sum += piece(3, 2);
        assert_eq!(sum, piece(5, 1));
    }

    fn table(schema: &str, name: &str) -> TableName {
        TableName {
            schema: schema.to_owned(),
            name: name.to_owned(),
        }
    }

    #[test]
    fn a_table_is_found_by_what_people_call_it() {
        let all = [
            table("a", "orders"),
            table("b", "orders"),
            table("a", "b.c"),
            table("a.b", "c"),
            table("x", "a.orders"),
            table("b", "lines"),
        ];
        let find = |text: &str| find_table(all.clone(), text);
        assert_eq!(find("lines"), Ok(table("b", "lines")));
        assert_eq!(find("b.orders"), Ok(table("b", "orders")));
        assert_eq!(find("a.orders"), Ok(table("a", "orders")), "whole first");
        assert_eq!(find("x.a.orders"), Ok(table("x", "a.orders")));
        for text in ["orders", "a.b.c"] {
            let expected = FindTableError::Ambiguous {
                text: text.to_owned(),
                count: 2,
            };
            assert_eq!(find(text), Err(expected));
        }
        let error = Error::from(find("c.orders").unwrap_err());
        assert_eq!(error.to_string(), "table c.orders not found");
    }

    #[test]
    fn hashes_print_and_parse() {
        let hash = ContentHash(0xabc);
        assert_eq!(hash.to_string(), "00000000000000000000000000000abc");
        assert_eq!(hash.to_string().parse(), Ok(hash));
        assert!("abc".parse::<ContentHash>().is_err());
        assert!(
            "zz00000000000000000000000000000a"
                .parse::<ContentHash>()
                .is_err()
        );
    }
}
