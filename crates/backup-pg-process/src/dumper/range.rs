//! Parts that we read ourselves: blocks of one table that is too large for one reader.

use std::io;

use backup_core::body::BodyStream;
use backup_core::dumper::PartStream;
use backup_core::error::PortError;
use backup_pg_archive::{ArchiveError, ArchiveWriter, CreatedAt, TableDataSpec};
use bytes::Bytes;
use chrono::{DateTime, Datelike as _, Timelike as _};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::part::{Names, check_database};
use super::planner::BlockRange;
use crate::ConnectionConfig;
use crate::error::Error;
use crate::ident::{quote_ident, quote_literal, quote_qualified};
use crate::inspector::{Archive, inspected};
use crate::session;

/// Rows are passed on in pieces of about this size: the server sends each in a message of its own.
const PIECE: usize = 256 << 10;
/// Pieces that may wait for the reader.
const AHEAD: usize = 4;

/// What `pg_dump` sets before it reads rows, and what it leaves to the defaults but a login may
/// have changed: the text of the rows depends on it.
/// <https://git.postgresql.org/gitweb/?p=postgresql.git;f=src/bin/pg_dump/pg_dump.c>, `setup_connection`.
///
/// One process reads each range, by a scan of its blocks and no other plan.
const SETTINGS: &str = "
SET DateStyle = ISO; SET IntervalStyle = postgres; SET extra_float_digits = 3;
SET TimeZone = 'UTC'; SET bytea_output = hex; SET xmlbinary = base64; SET search_path = '';
SET row_security = off; SET synchronize_seqscans = off; SET quote_all_identifiers = off;
SET enable_seqscan = off; SET max_parallel_workers_per_gather = 0;";

/// What every range of a session has in common.
#[derive(Debug, Clone)]
pub(super) struct RangeSource {
    pub(super) config: ConnectionConfig,
    pub(super) database: String,
    pub(super) snapshot: String,
    pub(super) version_num: u32,
    pub(super) server_version: String,
    pub(super) dump_version: String,
    pub(super) encoding: String,
    /// The moment of the snapshot, RFC 3339.
    pub(super) time: String,
    pub(super) lock_wait_ms: u128,
}

/// One table that is read in ranges.
#[derive(Debug, Clone)]
pub(super) struct RangeTable {
    pub(super) names: Names,
    pub(super) oid: u32,
    pub(super) owner: String,
    pub(super) columns: Vec<String>,
}

impl RangeSource {
    /// Starts to read one range.
    pub(super) async fn start(
        &self,
        table: &RangeTable,
        range: BlockRange,
        cancel: &CancellationToken,
    ) -> Result<PartStream, Error> {
        let mut connection = self.config.connect(&self.database).await?;
        session::prepare(&mut connection, self.version_num).await?;
        let begin = format!(
            "{SETTINGS} SET client_encoding = {}; SET lock_timeout = {};
             BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {}",
            quote_literal(&self.encoding),
            self.lock_wait_ms.max(1),
            quote_literal(&self.snapshot),
        );
        session::execute(&mut connection, begin, "join the snapshot").await?;
        let (sender, receiver) = mpsc::channel(AHEAD);
        let mut archive = Vec::with_capacity(PIECE * 2);
        let writer = self.header(table, &mut archive).map_err(unwritable)?;
        let reading = Reading {
            connection,
            statement: copy_statement(table, range),
            writer,
            archive,
            sender,
        };
        let cancel = cancel.clone();
        // Ends by itself when its receiver is gone: then it cannot send any more.
        tokio::spawn(async move {
            let sender = reading.sender.clone();
            let done = tokio::select! {
                done = reading.run() => done,
                () = cancel.cancelled() => Err(Error::Cancelled),
                () = sender.closed() => return,
            };
            let last = match done {
                Ok(()) => Ok(None),
                Err(error) => Err(PortError::from(error).into_io()),
            };
            // Nobody listens any more if this fails.
            let _ = sender.send(last).await;
        });
        let database = self.database.clone();
        let check = move |contents: &_| check_database(contents, &database);
        Ok(inspected(body(receiver), Archive::new(check), None))
    }

    fn header(
        &self,
        table: &RangeTable,
        archive: &mut Vec<u8>,
    ) -> Result<ArchiveWriter, ArchiveError> {
        let columns: Vec<&str> = table.columns.iter().map(String::as_str).collect();
        ArchiveWriter::start(
            &TableDataSpec {
                database: &self.database,
                server_version: &self.server_version,
                dump_version: &self.dump_version,
                encoding: &self.encoding,
                created: created(&self.time),
                namespace: &table.names.0,
                table: &table.names.1,
                table_oid: table.oid,
                owner: &table.owner,
                columns: &columns,
            },
            archive,
        )
    }
}

fn unwritable(source: ArchiveError) -> Error {
    Error::Corrupt {
        what: "cannot describe the table in an archive".to_owned(),
        source: Some(source.into()),
    }
}

/// The moment as an archive's header has it.
fn created(time: &str) -> CreatedAt {
    let time = DateTime::parse_from_rfc3339(time).unwrap_or_default();
    let number = |value: u32| i32::try_from(value).unwrap_or_default();
    CreatedAt {
        year: time.year(),
        month: number(time.month()),
        day: number(time.day()),
        hour: number(time.hour()),
        minute: number(time.minute()),
        second: number(time.second()),
    }
}

/// A scan of a range of blocks reads only those, since 14.
/// <https://www.postgresql.org/docs/current/release-14.html>
fn copy_statement(table: &RangeTable, range: BlockRange) -> String {
    let columns: Vec<String> = table.columns.iter().map(|name| quote_ident(name)).collect();
    let (schema, name) = &table.names;
    let below = range.end.map_or_else(String::new, |end| {
        format!(" AND ctid < '({end},0)'::pg_catalog.tid")
    });
    format!(
        "COPY (SELECT {} FROM ONLY {} WHERE ctid >= '({},0)'::pg_catalog.tid{below}) TO STDOUT",
        columns.join(", "),
        quote_qualified(schema, name),
        range.first,
    )
}

/// A piece, the clean end, or what went wrong. A channel that just closes is no clean end.
type Item = io::Result<Option<Bytes>>;

struct Reading {
    connection: PgConnection,
    statement: String,
    writer: ArchiveWriter,
    /// The archive so far, as far as it was not sent.
    archive: Vec<u8>,
    sender: mpsc::Sender<Item>,
}

impl Reading {
    async fn run(mut self) -> Result<(), Error> {
        let failed = || Error::query("read the rows");
        let statement = AssertSqlSafe(self.statement);
        let sql = sqlx::SqlSafeStr::into_sql_str(statement);
        let mut rows = self
            .connection
            .copy_out_raw(sql.as_str())
            .await
            .map_err(failed())?;
        let mut piece = Vec::with_capacity(PIECE + 8192);
        while let Some(row) = rows.try_next().await.map_err(failed())? {
            piece.extend_from_slice(&row);
            if piece.len() >= PIECE {
                self.writer.rows(&piece, &mut self.archive);
                piece.clear();
                let full = std::mem::replace(&mut self.archive, Vec::with_capacity(PIECE + 8192));
                if self.sender.send(Ok(Some(full.into()))).await.is_err() {
                    return Err(Error::Cancelled);
                }
            }
        }
        drop(rows);
        session::execute(&mut self.connection, "COMMIT", "end the reading").await?;
        self.writer.rows(&piece, &mut self.archive);
        self.writer.end(&mut self.archive).map_err(unwritable)?;
        // Whoever does not listen has lost interest.
        let _ = self.sender.send(Ok(Some(self.archive.into()))).await;
        let _ = sqlx::Connection::close(self.connection).await;
        Ok(())
    }
}

fn body(receiver: mpsc::Receiver<Item>) -> BodyStream {
    let body = stream::unfold(Some(receiver), |receiver| async move {
        let mut receiver = receiver?;
        match receiver.recv().await {
            Some(Ok(Some(piece))) => Some((Ok(piece), Some(receiver))),
            Some(Ok(None)) => None,
            Some(Err(error)) => Some((Err(error), None)),
            None => Some((Err(io::Error::other("reader of a range died")), None)),
        }
    });
    body.boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_from_the_table_alone() {
        let table = RangeTable {
            names: ("a\"b".to_owned(), "T".to_owned()),
            oid: 1,
            owner: "o".to_owned(),
            columns: vec!["id".to_owned(), "two words".to_owned()],
        };
        let range = |first, end| BlockRange {
            table: 0,
            first,
            end,
        };
        assert_eq!(
            copy_statement(&table, range(0, Some(8))),
            "COPY (SELECT \"id\", \"two words\" FROM ONLY \"a\"\"b\".\"T\" \
             WHERE ctid >= '(0,0)'::pg_catalog.tid AND ctid < '(8,0)'::pg_catalog.tid) TO STDOUT"
        );
        assert!(
            copy_statement(&table, range(8, None)).ends_with("'(8,0)'::pg_catalog.tid) TO STDOUT")
        );
    }

    #[test]
    fn the_moment_is_in_the_header() {
        let at = created("2026-02-05T03:04:05.678901Z");
        assert_eq!(at.to_string(), "2026-02-05 03:04:05");
    }
}
