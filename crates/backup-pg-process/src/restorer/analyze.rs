//! VACUUM and ANALYZE: a dump has no statistics, and without them the first queries on the restored
//! database can be slow beyond use.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::error::RestoreError;
use super::target::Target;
use crate::Error;
use crate::ident::quote_qualified;
use crate::session::execute;

/// Tables and materialized views, large ones first, and whether they have what an early ANALYZE could
/// not see: an indexed expression or extended statistics. ANALYZE of a partitioned table reads its
/// partitions too. <https://www.postgresql.org/docs/current/sql-analyze.html>
const TABLES: &str = "
SELECT n.nspname::text, c.relname::text,
       EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indexprs IS NOT NULL)
       OR EXISTS (SELECT FROM pg_statistic_ext e WHERE e.stxrelid = c.oid)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm', 'p') AND NOT c.relispartition AND c.relpersistence <> 't'
  AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
ORDER BY c.relpages DESC, c.oid";

/// Each statement analyses up to this many tables, so that thousands cost few round trips.
const AT_ONCE: usize = 50;

type Queue = Arc<Mutex<VecDeque<Vec<String>>>>;

/// Runs ANALYZE over `jobs` connections on everything but `done`. What it cannot do is a warning:
/// statistics are no content.
pub(crate) async fn analyze(
    target: &Target,
    done: &HashSet<String>,
    jobs: usize,
    cancel: &CancellationToken,
) -> Result<Vec<String>, RestoreError> {
    let mut connection = target.connect().await?;
    let tables: Vec<(String, String, bool)> = sqlx::query_as(TABLES)
        .fetch_all(&mut connection)
        .await
        .map_err(Error::query("list the tables to analyse"))?;
    let tables = tables.into_iter().filter_map(|(schema, name, again)| {
        let table = quote_qualified(&schema, &name);
        (again || !done.contains(&table)).then_some(table)
    });
    let tables: Vec<String> = tables.collect();
    let queue: Queue = Arc::new(Mutex::new(batches(&tables, jobs)));
    let mut workers = JoinSet::new();
    for _ in 1..jobs {
        let (target, queue) = (target.clone(), Arc::clone(&queue));
        workers.spawn(async move {
            let connection = target.connect().await?;
            work(connection, &queue).await
        });
    }
    workers.spawn(async move { work(connection, &queue).await });
    let mut warnings = Vec::new();
    loop {
        let done = tokio::select! {
            done = workers.join_next() => done,
            () = cancel.cancelled() => return Err(Error::Cancelled.into()),
        };
        match done {
            None => return Ok(warnings),
            Some(Ok(done)) => warnings.extend(done?),
            Some(Err(error)) => {
                return Err(RestoreError::Internal {
                    what: format!("ANALYZE died: {error}"),
                });
            }
        }
    }
}

/// Vacuums and analyses one table. Returns what is worth a warning.
pub(crate) async fn vacuum(
    target: &Target,
    table: &str,
    cancel: &CancellationToken,
) -> Result<Vec<String>, RestoreError> {
    let work = async {
        let mut connection = target.connect().await?;
        execute(
            &mut connection,
            "SET statement_timeout = 0",
            "prepare VACUUM",
        )
        .await?;
        let refusal = run(&mut connection, format!("VACUUM (ANALYZE) {table}")).await?;
        Ok(refusal.map(|refusal| format!("cannot vacuum {table}: {refusal}")))
    };
    tokio::select! {
        done = work => done.map(|warning| warning.into_iter().collect()),
        () = cancel.cancelled() => Err(Error::Cancelled.into()),
    }
}

/// The first few tables by themselves, as they may be large, the others together.
fn batches(tables: &[String], jobs: usize) -> VecDeque<Vec<String>> {
    let alone = jobs * 8;
    let mut batches: VecDeque<Vec<String>> = tables
        .iter()
        .take(alone)
        .map(|table| vec![table.clone()])
        .collect();
    let rest = tables.get(alone..).unwrap_or_default();
    batches.extend(rest.chunks(AT_ONCE).map(<[String]>::to_vec));
    batches
}

async fn work(mut connection: PgConnection, queue: &Queue) -> Result<Vec<String>, Error> {
    execute(
        &mut connection,
        "SET statement_timeout = 0",
        "prepare ANALYZE",
    )
    .await?;
    let mut warnings = Vec::new();
    loop {
        let next = queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front();
        let Some(tables) = next else {
            return Ok(warnings);
        };
        let Some(refusal) = statistics(&mut connection, &tables.join(", ")).await? else {
            continue;
        };
        if let [table] = tables.as_slice() {
            warnings.push(format!("no statistics for {table}: {refusal}"));
            continue;
        }
        // One of them spoils a statement for all.
        for table in &tables {
            if let Some(refusal) = statistics(&mut connection, table).await? {
                warnings.push(format!("no statistics for {table}: {refusal}"));
            }
        }
    }
}

async fn statistics(connection: &mut PgConnection, tables: &str) -> Result<Option<String>, Error> {
    run(connection, format!("ANALYZE {tables}")).await
}

/// Runs a statement; returns the server's refusal.
async fn run(connection: &mut PgConnection, sql: String) -> Result<Option<String>, Error> {
    let statement = sqlx::raw_sql(AssertSqlSafe(sql));
    match statement.execute(connection).await {
        Ok(_) => Ok(None),
        Err(error) if error.as_database_error().is_some() => Ok(Some(error.to_string())),
        Err(error) => Err(Error::query("VACUUM or ANALYZE")(error)),
    }
}
