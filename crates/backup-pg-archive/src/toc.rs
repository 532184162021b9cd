//! The table of contents.

use crate::copy::parse_columns;
use crate::{DumpText, Header};

/// Header and table of contents of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Contents {
    /// What stands before the entries.
    pub header: Header,
    /// The entries in the order of the archive, which is the order of restoring.
    pub entries: Vec<TocEntry>,
}

impl Contents {
    /// The client encoding of the archive's text and rows, such as `UTF8`.
    #[must_use]
    pub fn encoding(&self) -> Option<&str> {
        encoding(&self.entries)
    }
}

/// Reads it from `SET client_encoding = 'UTF8';`.
pub(crate) fn encoding(entries: &[TocEntry]) -> Option<&str> {
    let entry = entries.iter().find(|entry| entry.desc == "ENCODING")?;
    entry.defn.as_ref()?.as_str()?.split('\'').nth(1)
}

/// One entry of the table of contents.
///
/// The optional texts are absent where `pg_dump` wrote a null pointer; it does not distinguish that
/// from an empty text consistently, so treat both alike.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct TocEntry {
    /// The entry's number, unique in the archive; what `pg_restore -L` lists first.
    pub dump_id: u32,
    /// Whether a block of data belongs to the entry.
    pub had_dumper: bool,
    /// OID of the system catalog that holds the object; 0 if none.
    pub table_oid: u32,
    /// OID of the object; 0 if none.
    pub oid: u32,
    /// The object's name, for some kinds with arguments or with its table.
    pub tag: DumpText,
    /// The kind, such as `TABLE`, `TABLE DATA` or `FK CONSTRAINT`.
    pub desc: DumpText,
    /// When it is restored.
    pub section: Section,
    /// The SQL that creates it.
    pub defn: Option<DumpText>,
    /// The SQL that drops it.
    pub drop_stmt: Option<DumpText>,
    /// `COPY schema.table (columns) FROM stdin;`, for table data.
    pub copy_stmt: Option<DumpText>,
    /// Its schema.
    pub namespace: Option<DumpText>,
    /// Its tablespace, if not the default.
    pub tablespace: Option<DumpText>,
    /// Its table access method. Since version 1.14.
    pub table_am: Option<DumpText>,
    /// `pg_class.relkind`, where `pg_dump` records it. Since version 1.16.
    pub relkind: Option<char>,
    /// Its owner.
    pub owner: Option<DumpText>,
    /// Dump ids that it needs; some may be absent from the archive.
    pub dependencies: Vec<u32>,
    /// Where its data is.
    pub data_state: DataState,
}

impl TocEntry {
    /// Columns of [`copy_stmt`](Self::copy_stmt): those that its rows hold, in their order, without
    /// generated ones. `None` without a COPY statement; empty for a table without columns.
    #[must_use]
    pub fn copy_columns(&self) -> Option<Vec<DumpText>> {
        parse_columns(self.copy_stmt.as_ref()?.as_bytes())
    }
}

/// When an entry is restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[expect(missing_docs, reason = "pg_dump --section explains them")]
pub enum Section {
    /// Comments, privileges and labels: with the object they belong to.
    #[default]
    None,
    PreData,
    Data,
    PostData,
}

impl Section {
    pub(crate) fn from_number(number: i64) -> Option<Self> {
        match number {
            1 => Some(Self::None),
            2 => Some(Self::PreData),
            3 => Some(Self::Data),
            4 => Some(Self::PostData),
            _ => None,
        }
    }

    pub(crate) fn number(self) -> i32 {
        match self {
            Self::None => 1,
            Self::PreData => 2,
            Self::Data => 3,
            Self::PostData => 4,
        }
    }
}

/// What the entry says about the position of its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum DataState {
    /// There are data, at an unknown position: `pg_dump` wrote to a pipe.
    NotSet,
    /// There are data, at this byte of the archive.
    At(u64),
    /// There are none.
    #[default]
    NoData,
}

impl DataState {
    pub(crate) fn from_parts(flag: u8, offset: u64) -> Option<Self> {
        match flag {
            1 => Some(Self::NotSet),
            2 => Some(Self::At(offset)),
            3 => Some(Self::NoData),
            _ => None,
        }
    }
}
