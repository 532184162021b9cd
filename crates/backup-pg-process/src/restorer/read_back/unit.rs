//! One table, or a range of the blocks of a large one.

use std::collections::BTreeMap;

use backup_core::facts::{ContentHash, Fingerprint, TableFacts, TableName};
use backup_pg_archive::LineHasher;
use futures::TryStreamExt as _;
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;

use super::catalog::{Catalog, Relation};
use crate::error::sqlstate;
use crate::{Error, quote_literal};

/// A table is cut only into pieces of at least this many bytes of rows.
const SMALLEST_PIECE: u64 = 64 << 20;
/// For each connection, the rows are cut into about this many pieces, so that all end together.
const PIECES_PER_JOB: u64 = 4;

/// What one COPY reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unit {
    /// The table it is of.
    pub(super) table: TableName,
    sql_name: String,
    columns: String,
    /// Which of its rows.
    condition: Option<String>,
    blocks: Option<Blocks>,
    /// Whether its policies are to be lifted from its owner while it is read.
    pub(super) is_forced: bool,
    bytes: u64,
}

/// Blocks of a table; the last range has no end, as the table may have grown since it was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Blocks {
    first: u64,
    end: Option<u64>,
}

/// Cuts the tables that exist into pieces for `jobs` connections, the largest first.
pub(super) fn units(
    dumped: &BTreeMap<TableName, TableFacts>,
    catalog: &Catalog,
    jobs: usize,
) -> Vec<Unit> {
    let total: u64 = dumped.values().map(|facts| facts.fingerprint.bytes).sum();
    let jobs = u64::try_from(jobs).unwrap_or(1);
    let most = (total / (jobs * PIECES_PER_JOB).max(1)).max(SMALLEST_PIECE);
    let mut units = Vec::new();
    for facts in dumped.values() {
        let Some(relation) = catalog.table(&facts.table) else {
            continue;
        };
        let pieces = if jobs > 1 {
            facts.fingerprint.bytes.div_ceil(most)
        } else {
            1
        };
        units.extend(cut(facts, relation, pieces));
    }
    // Those that wait for the definitions come last.
    units.sort_by_key(|unit| (unit.is_forced, std::cmp::Reverse(unit.bytes)));
    units
}

fn cut(facts: &TableFacts, relation: &Relation, pieces: u64) -> Vec<Unit> {
    // A name that is no UTF-8 is escaped in the facts. The columns of the target stand in the same
    // order, unless a table with parents had its own ideas, so they can be left to the server.
    let plain = !facts.columns.contains("\\x");
    let columns = if plain {
        facts.columns.clone()
    } else {
        String::new()
    };
    let whole = Unit {
        table: facts.table.clone(),
        sql_name: relation.sql_name.clone(),
        columns,
        condition: relation.condition.clone(),
        blocks: None,
        is_forced: relation.is_forced,
        bytes: facts.fingerprint.bytes,
    };
    let blocks = relation.pages / pieces.max(1);
    if pieces < 2
        || whole.condition.is_some()
        || whole.is_forced
        || blocks == 0
        || !relation.is_heap
        || whole.columns.is_empty()
    {
        return vec![whole];
    }
    let piece = |number: u64| Unit {
        blocks: Some(Blocks {
            first: number * blocks,
            end: (number + 1 < pieces).then_some((number + 1) * blocks),
        }),
        bytes: whole.bytes / pieces,
        ..whole.clone()
    };
    (0..pieces).map(piece).collect()
}

impl Unit {
    /// Its rows in COPY text. The encoding is an option of COPY, so that the statement itself can
    /// stay in UTF-8. <https://www.postgresql.org/docs/current/sql-copy.html>
    fn statement(&self, encoding: &str) -> String {
        let Self {
            sql_name, columns, ..
        } = self;
        let what = match self.blocks {
            None if self.condition.is_some() => {
                let columns = if columns.is_empty() { "*" } else { columns };
                let condition = self.condition.as_deref().unwrap_or_default();
                format!("(SELECT {columns} FROM ONLY {sql_name} {condition})")
            }
            None if columns.is_empty() => sql_name.clone(),
            None => format!("{sql_name} ({columns})"),
            Some(Blocks { first, end }) => {
                let end = end.map_or_else(String::new, |end| format!(" AND ctid < '({end},0)'"));
                format!("(SELECT {columns} FROM ONLY {sql_name} WHERE ctid >= '({first},0)'{end})")
            }
        };
        let options = match encoding {
            "" => String::new(),
            encoding => format!(" (ENCODING {})", quote_literal(encoding)),
        };
        format!("COPY {what} TO STDOUT{options}")
    }

    /// Reads and hashes it. The inner error is the table's own; the outer one is the connection's.
    pub(super) async fn read(
        &self,
        connection: &mut PgConnection,
        encoding: &str,
    ) -> Result<Result<Fingerprint, String>, Error> {
        match self.hashed(connection, encoding).await {
            Ok(fingerprint) => Ok(Ok(fingerprint)),
            // The server's refusal: the session goes on, unless the server is ending it.
            Err(error) if sqlstate(&error).is_some_and(|state| !state.starts_with("57P")) => {
                Ok(Err(error.to_string()))
            }
            Err(error) => Err(Error::query(format!("read table {}", self.table))(error)),
        }
    }

    async fn hashed(
        &self,
        connection: &mut PgConnection,
        encoding: &str,
    ) -> Result<Fingerprint, sqlx::Error> {
        let statement = self.statement(encoding);
        if !self.is_forced {
            return hash(connection, &statement).await;
        }
        let name = &self.sql_name;
        let lifted = format!("{BEFORE_FORCED} {name} NO FORCE ROW LEVEL SECURITY");
        let lifting = sqlx::raw_sql(AssertSqlSafe(lifted));
        lifting.execute(&mut *connection).await?;
        let fingerprint = hash(connection, &statement).await?;
        sqlx::raw_sql("ROLLBACK").execute(connection).await?;
        Ok(fingerprint)
    }
}

/// Policies hold for owners too where that is forced. It is said otherwise in a transaction that is
/// taken back, which nobody else sees.
const BEFORE_FORCED: &str = "BEGIN; SET TRANSACTION READ WRITE; ALTER TABLE ONLY";

async fn hash(connection: &mut PgConnection, statement: &str) -> Result<Fingerprint, sqlx::Error> {
    let mut hasher = LineHasher::default();
    let mut rows = connection.copy_out_raw(statement).await?;
    while let Some(bytes) = rows.try_next().await? {
        hasher.push(&bytes);
    }
    let found = hasher.finish();
    Ok(Fingerprint {
        rows: found.rows,
        bytes: found.bytes,
        hash: ContentHash(found.hash),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(columns: &str, blocks: Option<Blocks>) -> Unit {
        Unit {
            table: TableName {
                schema: "s".to_owned(),
                name: "t".to_owned(),
            },
            sql_name: "s.t".to_owned(),
            columns: columns.to_owned(),
            condition: None,
            blocks,
            is_forced: false,
            bytes: 0,
        }
    }

    #[test]
    fn of_an_extensions_table_only_what_is_dumped_is_read() {
        let some = Unit {
            condition: Some("WHERE id > 100".to_owned()),
            ..unit("\"id\", \"name\"", None)
        };
        assert_eq!(
            some.statement(""),
            "COPY (SELECT \"id\", \"name\" FROM ONLY s.t WHERE id > 100) TO STDOUT"
        );
    }

    #[test]
    fn statements() {
        assert_eq!(
            unit("\"a\"", None).statement("LATIN1"),
            "COPY s.t (\"a\") TO STDOUT (ENCODING 'LATIN1')"
        );
        assert_eq!(unit("", None).statement(""), "COPY s.t TO STDOUT");
        let last = Blocks {
            first: 8,
            end: None,
        };
        assert_eq!(
            unit("\"a\"", Some(last)).statement("UTF8"),
            "COPY (SELECT \"a\" FROM ONLY s.t WHERE ctid >= '(8,0)') TO STDOUT (ENCODING 'UTF8')"
        );
        let first = Blocks {
            first: 0,
            end: Some(8),
        };
        assert!(
            unit("\"a\"", Some(first))
                .statement("")
                .contains("ctid >= '(0,0)' AND ctid < '(8,0)'")
        );
    }
}
