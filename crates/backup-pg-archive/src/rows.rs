//! The rows of one table.

use crate::copy::CopyBody;
use crate::unpack::Unpack;
use crate::{ArchiveError, Contents, DumpText, Limits, TocEntry, Visitor, Walker};

/// Takes the rows of one table out of an archive as it passes.
///
/// The rows are COPY text as it is in the archive, without the end mark. Other tables and large
/// objects are skipped. Memory is constant apart from the table of contents.
///
/// ```no_run
/// # fn read_piece() -> Vec<u8> { Vec::new() }
/// # fn main() -> Result<(), backup_pg_archive::ArchiveError> {
/// use backup_pg_archive::RowExtractor;
///
/// let mut extractor = RowExtractor::new("public", "customer");
/// let mut copy_text = Vec::new();
/// while !extractor.is_done() {
///     extractor.push(&read_piece(), |rows| copy_text.extend_from_slice(rows))?;
/// }
/// extractor.finish()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct RowExtractor {
    walker: Walker,
    wanted: Wanted,
}

impl RowExtractor {
    /// Looks for the table `namespace.table`, names as they are, not quoted.
    ///
    /// In an archive that is not UTF-8 give the names in its encoding.
    #[must_use]
    pub fn new(namespace: impl Into<DumpText>, table: impl Into<DumpText>) -> Self {
        Self {
            walker: Walker::new(Limits::default()),
            wanted: Wanted {
                namespace: namespace.into(),
                table: table.into(),
                entry: None,
                state: State::Before,
                body: CopyBody::default(),
                unpack: Unpack::default(),
            },
        }
    }

    /// Reads on, and calls `rows` with what belongs to the table: pieces cut anywhere, at most two
    /// for each chunk of the archive.
    ///
    /// # Errors
    /// [`TableNotFound`](ArchiveError::TableNotFound) as soon as the table of contents has passed;
    /// else as [`Inspector::push`](crate::Inspector::push).
    pub fn push(&mut self, bytes: &[u8], rows: impl FnMut(&[u8])) -> Result<(), ArchiveError> {
        let wanted = &mut self.wanted;
        self.walker.push(bytes, &mut Extraction { wanted, rows })
    }

    /// The table's entry, as soon as the table of contents has passed.
    #[must_use]
    pub fn entry(&self) -> Option<&TocEntry> {
        self.wanted.entry.as_deref()
    }

    /// Whether the last row has come out. What follows in the archive is of no use then.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.wanted.state == State::After
    }

    /// Makes sure that the table was complete. The rest of the archive need not have been pushed.
    ///
    /// # Errors
    /// [`Truncated`](ArchiveError::Truncated) if the rows have not ended.
    pub fn finish(self) -> Result<(), ArchiveError> {
        match self.wanted.state {
            State::After => Ok(()),
            _ => self.walker.finish().and(Err(ArchiveError::Truncated {
                place: "table data",
            })),
        }
    }
}

#[derive(Debug)]
struct Wanted {
    namespace: DumpText,
    table: DumpText,
    entry: Option<Box<TocEntry>>,
    state: State,
    body: CopyBody,
    unpack: Unpack,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Before,
    Inside,
    After,
}

impl Wanted {
    fn is(&self, entry: &TocEntry) -> bool {
        entry.desc == "TABLE DATA"
            && entry.had_dumper
            && entry.tag == self.table
            && entry.namespace.as_ref() == Some(&self.namespace)
    }
}

struct Extraction<'a, F> {
    wanted: &'a mut Wanted,
    rows: F,
}

impl<F: FnMut(&[u8])> Visitor for Extraction<'_, F> {
    fn contents(&mut self, contents: &Contents) -> Result<(), ArchiveError> {
        let wanted = &mut *self.wanted;
        let entry = contents.entries.iter().find(|entry| wanted.is(entry));
        let entry = entry.ok_or_else(|| ArchiveError::TableNotFound {
            namespace: wanted.namespace.clone(),
            table: wanted.table.clone(),
        })?;
        if entry.copy_columns().is_none() {
            return Err(ArchiveError::NotCopyText {
                table: entry.tag.clone(),
            });
        }
        wanted.entry = Some(Box::new(entry.clone()));
        wanted.unpack = Unpack::of(contents)?;
        Ok(())
    }

    fn data_start(&mut self, entry: &TocEntry) -> Result<(), ArchiveError> {
        let wanted = &mut *self.wanted;
        if wanted
            .entry
            .as_ref()
            .is_some_and(|e| e.dump_id == entry.dump_id)
        {
            wanted.state = State::Inside;
        }
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        let wanted = &mut *self.wanted;
        if wanted.state != State::Inside {
            return Ok(());
        }
        let (body, table, rows) = (&mut wanted.body, &wanted.table, &mut self.rows);
        wanted.unpack.push(bytes, |clear| {
            let outcome = body.push(clear, &mut *rows);
            outcome.map_err(|bad| bad.of(table.clone()))
        })
    }

    fn data_end(&mut self) -> Result<(), ArchiveError> {
        let wanted = &mut *self.wanted;
        if wanted.state == State::Inside {
            wanted.unpack.end()?;
            let ended = std::mem::take(&mut wanted.body).finish();
            ended.map_err(|bad| bad.of(wanted.table.clone()))?;
            wanted.state = State::After;
        }
        Ok(())
    }
}
