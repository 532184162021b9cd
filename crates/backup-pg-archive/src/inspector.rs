//! Inspection of an archive as it passes.

use crate::copy::CopyBody;
use crate::toc;
use crate::unpack::Unpack;
use crate::{
    ArchiveError, Contents, DumpText, Fingerprint, Header, LargeObjectHasher, LargeObjects, Limits,
    LineHasher, Summary, TocEntry, Visitor, Walker,
};

/// Reads an archive as it passes and reports what is in it.
///
/// Push every byte, then [`finish`](Self::finish): only then it is known that nothing is missing.
/// Apart from the table of contents memory is constant.
#[derive(Debug)]
pub struct Inspector {
    walker: Walker,
    tally: Tally,
}

impl Default for Inspector {
    fn default() -> Self {
        Self::new()
    }
}

impl Inspector {
    /// Expects the first byte of an archive, with default [`Limits`].
    #[must_use]
    pub fn new() -> Self {
        Self::with_limits(Limits::default())
    }

    /// Expects the first byte of an archive.
    #[must_use]
    pub fn with_limits(limits: Limits) -> Self {
        Self {
            walker: Walker::new(limits),
            tally: Tally::default(),
        }
    }

    /// Reads on. `bytes` may end anywhere.
    ///
    /// # Errors
    /// Any [`ArchiveError`]: the bytes are no archive, are damaged, or are of a kind whose rows
    /// cannot be read, namely compressed by LZ4 or written as INSERT statements.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        self.walker.push(bytes, &mut self.tally)
    }

    /// Header and table of contents, as soon as they have passed.
    #[must_use]
    pub fn contents(&self) -> Option<&Contents> {
        self.walker.contents()
    }

    /// Ends the archive.
    ///
    /// # Errors
    /// [`Truncated`](ArchiveError::Truncated) or [`MissingData`](ArchiveError::MissingData) if the
    /// archive is not complete, [`Refused`](ArchiveError::Refused) after an earlier error.
    pub fn finish(self) -> Result<ArchiveReport, ArchiveError> {
        let raw_bytes = self.walker.position();
        let contents = self.walker.finish()?;
        Ok(ArchiveReport {
            header: contents.header,
            entries: contents.entries,
            tables: self.tally.tables,
            large_objects: self.tally.objects.finish(),
            raw_bytes,
        })
    }
}

/// What a complete archive holds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ArchiveReport {
    /// What stands before the table of contents.
    pub header: Header,
    /// The table of contents in the order of the archive.
    pub entries: Vec<TocEntry>,
    /// The tables that have a block of data, in the order of the blocks, empty ones included.
    pub tables: Vec<TableData>,
    /// All large objects together.
    pub large_objects: LargeObjects,
    /// Size of the archive.
    pub raw_bytes: u64,
}

impl ArchiveReport {
    /// The client encoding of the archive's text and rows, such as `UTF8`.
    #[must_use]
    pub fn encoding(&self) -> Option<&str> {
        toc::encoding(&self.entries)
    }

    /// Numbers and names by kind of object.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary::of(&self.entries)
    }

    /// The data of one table, if the archive holds them.
    #[must_use]
    pub fn table(&self, namespace: &str, name: &str) -> Option<&TableData> {
        let mut tables = self.tables.iter();
        tables.find(|table| table.namespace == namespace && table.name == name)
    }
}

/// The data of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TableData {
    /// The dump id of the `TABLE DATA` entry.
    pub dump_id: u32,
    /// The table's schema.
    pub namespace: DumpText,
    /// The table.
    pub name: DumpText,
    /// The statement that loads the rows.
    pub copy_stmt: DumpText,
    /// The columns that the rows hold, in their order; without generated ones.
    pub columns: Vec<DumpText>,
    /// Rows, bytes and hash.
    pub fingerprint: Fingerprint,
}

impl TableData {
    /// Refuses what is not COPY text: without a COPY statement the lines are no rows.
    fn new(entry: &TocEntry) -> Result<Self, ArchiveError> {
        let (Some(copy_stmt), Some(columns)) = (&entry.copy_stmt, entry.copy_columns()) else {
            return Err(ArchiveError::NotCopyText {
                table: entry.tag.clone(),
            });
        };
        Ok(Self {
            dump_id: entry.dump_id,
            namespace: entry.namespace.clone().unwrap_or_default(),
            name: entry.tag.clone(),
            copy_stmt: copy_stmt.clone(),
            columns,
            fingerprint: Fingerprint::default(),
        })
    }
}

#[derive(Debug, Default)]
struct Tally {
    tables: Vec<TableData>,
    body: CopyBody,
    lines: LineHasher,
    objects: LargeObjectHasher,
    object: u32,
    unpack: Unpack,
}

impl Visitor for Tally {
    fn contents(&mut self, contents: &Contents) -> Result<(), ArchiveError> {
        self.unpack = Unpack::of(contents)?;
        Ok(())
    }

    fn data_start(&mut self, entry: &TocEntry) -> Result<(), ArchiveError> {
        self.tables.push(TableData::new(entry)?);
        Ok(())
    }

    #[inline]
    fn data(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        let (lines, body, tables) = (&mut self.lines, &mut self.body, &self.tables);
        self.unpack.push(bytes, |clear| {
            let outcome = body.push(clear, |rows| lines.push(rows));
            outcome.map_err(|bad| bad.of(table_name(tables)))
        })
    }

    fn data_end(&mut self) -> Result<(), ArchiveError> {
        self.unpack.end()?;
        let ended = std::mem::take(&mut self.body).finish();
        ended.map_err(|bad| bad.of(table_name(&self.tables)))?;
        let fingerprint = std::mem::take(&mut self.lines).finish();
        if let Some(table) = self.tables.last_mut() {
            table.fingerprint = fingerprint;
        }
        Ok(())
    }

    fn large_object_start(&mut self, oid: u32) -> Result<(), ArchiveError> {
        self.object = oid;
        Ok(())
    }

    fn large_object_data(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        let objects = &mut self.objects;
        self.unpack.push(bytes, |clear| {
            objects.push(clear);
            Ok(())
        })
    }

    fn large_object_end(&mut self) -> Result<(), ArchiveError> {
        self.unpack.end()?;
        self.objects.end_object(self.object);
        Ok(())
    }
}

fn table_name(tables: &[TableData]) -> DumpText {
    tables.last().map(|t| t.name.clone()).unwrap_or_default()
}
