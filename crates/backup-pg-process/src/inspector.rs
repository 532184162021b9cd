//! [`PgInspector`]: looks into parts as they pass, when they are written and when they are read.

use backup_core::body::BodyStream;
use backup_core::dumper::{PartReport, PartStream};
use backup_core::error::{ErrorKind, PortError};
use backup_core::facts::{
    ContentHash, Fingerprint, LargeObjectFacts, PartFacts, SequenceFacts, TableFacts, TableName,
};
use backup_core::inspector::{Inspector, RowFormat};
use backup_core::manifest::PartFormat;
use backup_pg_archive::{
    ArchiveError, ArchiveReport, Contents, CsvConverter, DumpText, RowExtractor, TocEntry,
};
use backup_process::child::StderrLog;
use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _, stream};
use tokio::sync::oneshot;

use crate::error::Error;
use crate::ident::quote_ident;

/// How `pg_dumpall` begins, and how it and `pg_dump` end what they wrote completely.
const CLUSTER_BEGIN: &[u8] = b"-- PostgreSQL database cluster dump";
const CLUSTER_END: &[u8] = b"-- PostgreSQL database cluster dump complete";
const DATABASE_END: &[u8] = b"-- PostgreSQL database dump complete";

/// Reads what [`PgDumper`](crate::PgDumper) wrote.
#[derive(Debug, Clone, Copy, Default)]
pub struct PgInspector;

impl Inspector for PgInspector {
    fn inspect(&self, format: PartFormat, body: BodyStream) -> PartStream {
        match format {
            PartFormat::Custom => inspected(body, Archive::new(|_| Ok(())), None),
            PartFormat::Sql => inspected(body, Script::default(), None),
            PartFormat::Tar => inspected(body, Tar::default(), None),
            _ => inspected(body, Opaque, None),
        }
    }

    fn rows(&self, table: &TableName, format: RowFormat, body: BodyStream) -> BodyStream {
        let extractor = RowExtractor::new(bytes_of(&table.schema), bytes_of(&table.name));
        let form = match format {
            RowFormat::Copy => RowForm::Copy,
            RowFormat::Csv => RowForm::CsvBegin { header: true },
            RowFormat::CsvRows => RowForm::CsvBegin { header: false },
        };
        rows(body, Extraction { extractor, form })
    }
}

/// Looks at bytes as they pass.
pub(crate) trait Look: Send + 'static {
    fn push(&mut self, bytes: &[u8]) -> Result<(), Error>;
    fn finish(self) -> Result<PartFacts, Error>;
}

/// An archive, with a check of its table of contents as soon as that has passed.
pub(crate) struct Archive<C> {
    inspector: backup_pg_archive::Inspector,
    check: Option<C>,
}

impl<C: FnOnce(&Contents) -> Result<(), Error> + Send + 'static> Archive<C> {
    pub(crate) fn new(check: C) -> Self {
        Self {
            inspector: backup_pg_archive::Inspector::new(),
            check: Some(check),
        }
    }
}

impl<C: FnOnce(&Contents) -> Result<(), Error> + Send + 'static> Look for Archive<C> {
    fn push(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.inspector.push(bytes).map_err(malformed)?;
        if self.check.is_some()
            && let Some(contents) = self.inspector.contents()
            && let Some(check) = self.check.take()
        {
            check(contents)?;
        }
        Ok(())
    }

    fn finish(self) -> Result<PartFacts, Error> {
        let report = self.inspector.finish().map_err(malformed)?;
        Ok(part_facts(&report))
    }
}

fn malformed(source: ArchiveError) -> Error {
    Error::Corrupt {
        what: "archive is not complete and well-formed".to_owned(),
        source: Some(source.into()),
    }
}

/// A script of `pg_dumpall`: complete if it ends as one.
#[derive(Debug, Default)]
pub(crate) struct Script {
    begin: Vec<u8>,
    end: Vec<u8>,
}

impl Look for Script {
    fn push(&mut self, bytes: &[u8]) -> Result<(), Error> {
        const KEEP: usize = 512;
        let room = KEEP - self.begin.len();
        self.begin
            .extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.end
            .extend_from_slice(&bytes[bytes.len().saturating_sub(KEEP)..]);
        let surplus = self.end.len().saturating_sub(KEEP);
        self.end.drain(..surplus);
        Ok(())
    }

    fn finish(self) -> Result<PartFacts, Error> {
        let has = |text: &[u8], mark: &[u8]| text.windows(mark.len()).any(|part| part == mark);
        // A dump of all databases has the end of one after each of them.
        let end = if has(&self.begin, CLUSTER_BEGIN) {
            CLUSTER_END
        } else {
            DATABASE_END
        };
        if has(&self.end, end) {
            Ok(PartFacts::default())
        } else {
            Err(Error::corrupt(
                "script ends early: its last line is missing",
            ))
        }
    }
}

/// A tar archive of `pg_dump`: complete if its members are, and its end is there.
#[derive(Debug, Default)]
struct Tar {
    walk: crate::tar::TarWalk,
}

impl Look for Tar {
    fn push(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.walk.push(bytes).map_err(Error::corrupt)
    }

    fn finish(self) -> Result<PartFacts, Error> {
        self.walk.finish().map_err(Error::corrupt)?;
        Ok(PartFacts::default())
    }
}

/// Bytes of a format that is not ours to read.
struct Opaque;

impl Look for Opaque {
    fn push(&mut self, _bytes: &[u8]) -> Result<(), Error> {
        Ok(())
    }

    fn finish(self) -> Result<PartFacts, Error> {
        Ok(PartFacts::default())
    }
}

struct Passing<L> {
    body: BodyStream,
    look: L,
    stderr: Option<oneshot::Receiver<StderrLog>>,
    done: oneshot::Sender<PartReport>,
}

/// Lets a body pass under `look`, and ends it with an error when that does not like it.
pub(crate) fn inspected(
    body: BodyStream,
    look: impl Look,
    stderr: Option<oneshot::Receiver<StderrLog>>,
) -> PartStream {
    let (done, report) = oneshot::channel();
    let passing = Passing {
        body,
        look,
        stderr,
        done,
    };
    let body = stream::unfold(Some(passing), |passing| async move {
        let mut passing = passing?;
        let Some(item) = passing.body.next().await else {
            return passing.end().err().map(|e| (Err(into_io(e)), None));
        };
        let looked = match item {
            Ok(chunk) => passing.look.push(&chunk).map(|()| chunk).map_err(into_io),
            Err(error) => Err(error),
        };
        let rest = looked.is_ok().then_some(passing);
        Some((looked, rest))
    });
    let report = report.map(|report| {
        report.map_err(|_| PortError::new(ErrorKind::Internal, "part has not ended well"))
    });
    PartStream {
        body: body.boxed(),
        report: report.boxed(),
    }
}

impl<L: Look> Passing<L> {
    fn end(self) -> Result<(), Error> {
        let facts = self.look.finish()?;
        let warnings = self
            .stderr
            .and_then(|mut stderr| stderr.try_recv().ok())
            .map_or_else(Vec::new, |stderr| stderr.warnings());
        // Nobody need ask.
        let _ = self.done.send(PartReport { facts, warnings });
        Ok(())
    }
}

fn into_io(error: Error) -> std::io::Error {
    PortError::from(error).into_io()
}

/// What an archive holds, in the domain's words.
fn part_facts(report: &ArchiveReport) -> PartFacts {
    let large_objects = LargeObjectFacts {
        count: report.large_objects.count,
        bytes: report.large_objects.bytes,
        hash: ContentHash(report.large_objects.hash),
    };
    PartFacts {
        tables: report.tables.iter().map(table_facts).collect(),
        large_objects: (large_objects.count > 0).then_some(large_objects),
        sequences: report.entries.iter().filter_map(sequence_facts).collect(),
        // Beside rows they are counted where a restore takes them from: in the schema part.
        objects: if report.tables.is_empty() {
            object_counts(report)
        } else {
            backup_core::facts::ObjectCounts::new()
        },
    }
}

fn table_facts(data: &backup_pg_archive::TableData) -> TableFacts {
    let columns: Vec<String> = data
        .columns
        .iter()
        .map(|column| quote_ident(&text_of(column.as_bytes())))
        .collect();
    TableFacts {
        table: table_name(data.namespace.as_bytes(), data.name.as_bytes()),
        columns: columns.join(", "),
        fingerprint: Fingerprint {
            rows: data.fingerprint.rows,
            bytes: data.fingerprint.bytes,
            hash: ContentHash(data.fingerprint.hash),
        },
    }
}

/// Reads `SELECT pg_catalog.setval('app.s', 5, true);`.
fn sequence_facts(entry: &TocEntry) -> Option<SequenceFacts> {
    if entry.desc != "SEQUENCE SET" {
        return None;
    }
    let definition = entry.defn.as_ref()?.to_str_lossy().into_owned();
    // The name can hold anything, so read from the end.
    let (rest, is_called) = definition.trim_end().strip_suffix(");")?.rsplit_once(',')?;
    let (_, last_value) = rest.rsplit_once(',')?;
    Some(SequenceFacts {
        sequence: table_name(entry.namespace.as_ref()?.as_bytes(), entry.tag.as_bytes()),
        last_value: last_value.trim().parse().ok()?,
        is_called: is_called.trim() == "true",
    })
}

/// Objects by kind; a part with data alone has none.
fn object_counts(report: &ArchiveReport) -> backup_core::facts::ObjectCounts {
    let summary = report.summary();
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    [
        ("tables", summary.tables),
        ("foreign_tables", summary.foreign_tables),
        ("indexes", summary.indexes),
        ("key_constraints", summary.key_constraints),
        ("foreign_keys", summary.foreign_keys),
        ("triggers", summary.triggers),
        ("sequences", summary.sequences),
        ("views", summary.views),
        ("materialized_views", summary.materialized_views),
        ("functions", summary.functions),
        ("extensions", summary.extensions.len()),
        ("schemas", summary.schemas.len()),
    ]
    .into_iter()
    .filter(|(_, number)| *number > 0)
    .map(|(kind, number)| (kind.to_owned(), count(number)))
    .collect()
}

pub(crate) fn table_name(schema: &[u8], name: &[u8]) -> TableName {
    TableName {
        schema: text_of(schema),
        name: text_of(name),
    }
}

/// A name as text. Archives keep the database's encoding; in one that is not UTF-8, the bytes of a
/// name that is no UTF-8 are written `\xNN`, so that different names stay different.
pub(crate) fn text_of(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    if let Ok(text) = std::str::from_utf8(bytes) {
        return text.to_owned();
    }
    bytes.iter().fold(String::new(), |mut text, byte| {
        if byte.is_ascii() && *byte != b'\\' {
            text.push(char::from(*byte));
        } else {
            let _ = write!(text, "\\x{byte:02x}");
        }
        text
    })
}

/// The bytes that [`text_of`] made a text of.
pub(crate) fn bytes_of(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    let mut high = false;
    while let Some((before, after)) = rest.split_once("\\x") {
        let Some(byte) = after
            .get(..2)
            .and_then(|hex| u8::from_str_radix(hex, 16).ok())
        else {
            return text.as_bytes().to_vec();
        };
        high |= !byte.is_ascii();
        bytes.extend_from_slice(before.as_bytes());
        bytes.push(byte);
        rest = &after[2..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    // A name can hold `\x41` itself; only what is no UTF-8 was rewritten.
    if high && std::str::from_utf8(&bytes).is_err() {
        bytes
    } else {
        text.as_bytes().to_vec()
    }
}

/// Takes one table's rows out of an archive, as they are or as CSV.
struct Extraction {
    extractor: RowExtractor,
    form: RowForm,
}

enum RowForm {
    Copy,
    /// CSV before the columns are known.
    CsvBegin {
        header: bool,
    },
    Csv(CsvConverter),
}

impl Extraction {
    fn push(&mut self, bytes: &[u8]) -> Result<Vec<u8>, Error> {
        let mut copied = Vec::new();
        let pushed = self
            .extractor
            .push(bytes, |rows| copied.extend_from_slice(rows));
        pushed.map_err(row_error)?;
        let mut out = Vec::new();
        if let (RowForm::CsvBegin { header }, Some(entry)) = (&self.form, self.extractor.entry()) {
            let columns: Vec<DumpText> = entry.copy_columns().unwrap_or_default();
            let converter = CsvConverter::new(columns.len());
            if *header {
                converter.header(&columns, &mut out);
            }
            self.form = RowForm::Csv(converter);
        }
        match &mut self.form {
            RowForm::Csv(converter) => converter.push(&copied, &mut out),
            RowForm::Copy | RowForm::CsvBegin { .. } => out = copied,
        }
        Ok(out)
    }

    fn finish(self) -> Result<Vec<u8>, Error> {
        self.extractor.finish().map_err(row_error)?;
        let mut out = Vec::new();
        if let RowForm::Csv(converter) = self.form {
            converter.finish(&mut out);
        }
        Ok(out)
    }
}

fn row_error(error: ArchiveError) -> Error {
    match error {
        ArchiveError::TableNotFound { namespace, table } => Error::NotFound {
            what: format!("table {namespace}.{table} in this part"),
        },
        other => malformed(other),
    }
}

/// The rows, and then the rest of the body: what was stored is checked against its digests when
/// it ends, and rows that are not what was dumped must not be taken for them.
fn rows(body: BodyStream, extraction: Extraction) -> BodyStream {
    let state = Some((body, Some(extraction)));
    let rows = stream::unfold(state, |state| async move {
        let (mut body, mut extraction) = state?;
        loop {
            if extraction.as_ref().is_some_and(|e| e.extractor.is_done())
                && let Some(done) = extraction.take()
            {
                match done.finish() {
                    Err(error) => return Some((Err(into_io(error)), None)),
                    Ok(out) if out.is_empty() => {}
                    Ok(out) => return Some((Ok(Bytes::from(out)), Some((body, None)))),
                }
            }
            let chunk = match body.next().await {
                None => return extraction.and_then(last),
                Some(Err(error)) => return Some((Err(error), None)),
                Some(Ok(chunk)) => chunk,
            };
            let Some(rows) = extraction.as_mut() else {
                continue;
            };
            match rows.push(&chunk) {
                Err(error) => return Some((Err(into_io(error)), None)),
                Ok(out) if out.is_empty() => {}
                Ok(out) => return Some((Ok(Bytes::from(out)), Some((body, extraction)))),
            }
        }
    });
    rows.boxed()
}

type Rows = (BodyStream, Option<Extraction>);

/// The end of a body whose rows had not ended: the extractor says whether that is an error.
fn last(extraction: Extraction) -> Option<(std::io::Result<Bytes>, Option<Rows>)> {
    match extraction.finish() {
        Err(error) => Some((Err(into_io(error)), None)),
        Ok(out) if out.is_empty() => None,
        Ok(out) => Some((Ok(Bytes::from(out)), None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use backup_core::body::{body_of, collect};
    use rstest::rstest;

    #[rstest]
    #[case(b"plain", "plain")]
    #[case("имя".as_bytes(), "имя")]
    #[case(b"gr\xf6\xdfe\\", "gr\\xf6\\xdfe\\x5c")]
    #[case(b"\\x41", "\\x41")]
    #[case(b"\\xff", "\\xff")]
    fn names_in_any_encoding(#[case] name: &[u8], #[case] expected: &str) {
        assert_eq!(text_of(name), expected);
    }

    #[rstest]
    #[case(b"plain")]
    #[case("имя".as_bytes())]
    #[case(b"gr\xf6\xdfe\\x")]
    #[case(b"\\x41")]
    fn names_come_back(#[case] name: &[u8]) {
        assert_eq!(bytes_of(&text_of(name)), name);
    }

    #[tokio::test]
    async fn a_cut_script_is_noticed() {
        let whole = "CREATE ROLE a;\n--\n-- PostgreSQL database cluster dump complete\n--\n\n";
        let passed = PgInspector.inspect(PartFormat::Sql, body_of(whole));
        assert_eq!(collect(passed.body, 1000).await.unwrap(), whole);
        assert_eq!(passed.report.await.unwrap(), PartReport::default());

        let cut = PgInspector.inspect(PartFormat::Sql, body_of(&whole.as_bytes()[..30]));
        assert_eq!(
            collect(cut.body, 1000).await.unwrap_err().kind(),
            ErrorKind::Corrupt
        );
        assert!(cut.report.await.is_err());
    }

    /// Of all databases, each has an end of its own.
    #[tokio::test]
    async fn a_dump_of_all_databases_ends_with_all_of_them() {
        let (begin, one) = (
            "--\n-- PostgreSQL database cluster dump\n--\n",
            "CREATE TABLE a ();\n",
        );
        let end_of_one = "--\n-- PostgreSQL database dump complete\n--\n";
        let end = "--\n-- PostgreSQL database cluster dump complete\n--\n";
        let cut = format!("{begin}{one}{end_of_one}\\connect b\n");
        for (text, is_whole) in [
            (cut.clone(), false),
            (format!("{cut}{one}{end_of_one}{end}"), true),
            (format!("{one}{end_of_one}"), true),
        ] {
            let passed = PgInspector.inspect(PartFormat::Sql, body_of(text.clone()));
            let read = collect(passed.body, 10_000).await;
            assert_eq!(read.is_ok(), is_whole, "{text}");
        }
    }

    #[tokio::test]
    async fn what_is_no_archive_is_refused() {
        for content in ["", "PGDMP", "hello"] {
            let passed = PgInspector.inspect(PartFormat::Custom, body_of(content));
            let error = collect(passed.body, 1000).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{content}");
        }
    }
}
