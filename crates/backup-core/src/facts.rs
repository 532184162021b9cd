//! What a backup holds: table names, row counts, content fingerprints.
//!
//! All of it is confidential, so it is stored as a part of its own, compressed and
//! encrypted like the data; the clear manifest carries totals only.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::AddAssign;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::backup::{BackupId, SourceName};
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
