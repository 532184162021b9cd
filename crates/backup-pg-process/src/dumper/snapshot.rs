//! The moment that all parts show: a transaction that exported its snapshot and holds the locks.

use std::sync::{Arc, Weak};
use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _, Row as _};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::catalog::{self, Table};
use crate::ConnectionConfig;
use crate::error::{Error, sqlstate};

/// Tables locked by one statement.
const LOCK_BATCH: usize = 500;
/// How often the waiting for a lock is looked at.
const WATCH_EVERY: Duration = Duration::from_millis(300);
/// Firewalls forget connections that say nothing.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(30);
/// How long the server may take to answer `SELECT 1` or COMMIT.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// Holds the snapshot. Dropping it gives everything back: the server ends the transaction when the
/// connection closes.
#[derive(Debug)]
pub(super) struct Snapshot {
    id: String,
    database: String,
    connection: Arc<Mutex<Option<PgConnection>>>,
    keep_alive: JoinHandle<()>,
}

/// A snapshot and the tables that it shows, all of them locked.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) snapshot: Snapshot,
    pub(super) tables: Vec<Table>,
    pub(super) large_object_bytes: u64,
    /// Names that could not be locked by us; `pg_dump` does it later.
    pub(super) unlocked: usize,
}

/// What taking a snapshot needs to know.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taking<'a> {
    pub(super) config: &'a ConnectionConfig,
    pub(super) database: &'a str,
    pub(super) version_num: u32,
    pub(super) lock_wait: Duration,
    /// Whether all tables are dumped, so that all can be locked.
    pub(super) lock_tables: bool,
}

/// Locks every table, then fixes the moment.
///
/// In this order, since TRUNCATE and most of DDL do not obey snapshots: a table emptied between the
/// snapshot and `pg_dump`'s own lock would be dumped empty. LOCK TABLE takes no snapshot, so the
/// first SELECT after it fixes a moment that is younger than the locks. What was created meanwhile
/// is listed again and locked too. <https://www.postgresql.org/docs/current/mvcc-caveats.html>
///
/// `scout` is another connection: it lists the tables first and watches the waiting.
pub(super) async fn take(
    taking: Taking<'_>,
    scout: &mut PgConnection,
    cancel: &CancellationToken,
) -> Result<Taken, Error> {
    let mut connection = taking.config.connect(taking.database).await?;
    catalog::prepare_session(&mut connection, taking.version_num).await?;
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()")
        .fetch_one(&mut connection)
        .await
        .map_err(Error::query("ask for the session's number"))?;
    let known = catalog::tables(scout).await?;
    catalog::execute(
        &mut connection,
        format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL lock_timeout = {}",
            taking.lock_wait.as_millis().max(1)
        ),
        "begin the dump's transaction",
    )
    .await?;
    let mut locking = Locking {
        connection: &mut connection,
        scout,
        pid,
        lock_wait: taking.lock_wait,
        cancel,
    };
    if taking.lock_tables {
        locking.lock(&known).await?;
    }
    let operation = "export the snapshot";
    let id = catalog::text(locking.connection, "SELECT pg_export_snapshot()", operation).await?;
    let mut tables = catalog::tables(locking.connection).await?;
    if taking.lock_tables {
        let new = created_since(&known, &tables);
        locking.lock(&new).await?;
    }
    let large_object_bytes = catalog::measure(&mut connection, &mut tables).await?;
    let unlocked = tables
        .iter()
        .filter(|table| table.sql_name.is_none())
        .count();
    let connection = Arc::new(Mutex::new(Some(connection)));
    let keep_alive = tokio::spawn(keep_alive(Arc::downgrade(&connection)));
    Ok(Taken {
        snapshot: Snapshot {
            id,
            database: taking.database.to_owned(),
            connection,
            keep_alive,
        },
        tables,
        large_object_bytes,
        unlocked,
    })
}

fn created_since(known: &[Table], now: &[Table]) -> Vec<Table> {
    let oids: std::collections::HashSet<u32> = known.iter().map(|table| table.oid).collect();
    let new = now.iter().filter(|table| !oids.contains(&table.oid));
    new.cloned().collect()
}

struct Locking<'a> {
    connection: &'a mut PgConnection,
    scout: &'a mut PgConnection,
    pid: i32,
    lock_wait: Duration,
    cancel: &'a CancellationToken,
}

impl Locking<'_> {
    async fn lock(&mut self, tables: &[Table]) -> Result<(), Error> {
        let names: Vec<&str> = tables
            .iter()
            .filter_map(|t| t.sql_name.as_deref())
            .collect();
        for batch in names.chunks(LOCK_BATCH) {
            // ONLY: each partition is in the list itself.
            let list = batch.join(", ONLY ");
            let statement = format!("LOCK TABLE ONLY {list} IN ACCESS SHARE MODE");
            self.lock_batch(statement).await?;
        }
        Ok(())
    }

    async fn lock_batch(&mut self, statement: String) -> Result<(), Error> {
        let locking = sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut *self.connection);
        tokio::pin!(locking);
        let mut waited_for = None;
        let mut watch = tokio::time::interval(WATCH_EVERY);
        watch.tick().await;
        loop {
            tokio::select! {
                locked = &mut locking => {
                    return match locked {
                        Ok(_) => Ok(()),
                        Err(source) => Err(lock_error(source, waited_for, self.lock_wait)),
                    };
                }
                _ = watch.tick() => {
                    if let Some(waiting) = waiting_for(self.scout, self.pid).await {
                        waited_for = Some(waiting);
                    }
                }
                () = self.cancel.cancelled() => {
                    // A session that waits for a lock does not notice that its client is gone.
                    let stop = sqlx::query("SELECT pg_terminate_backend($1)").bind(self.pid);
                    let _ = tokio::time::timeout(ANSWER_LIMIT, stop.execute(&mut *self.scout)).await;
                    return Err(Error::Cancelled);
                }
            }
        }
    }
}

/// The table that a session waits for, and who stands in its way.
///
/// Without the text of their queries, which can hold data.
async fn waiting_for(scout: &mut PgConnection, pid: i32) -> Option<(String, String)> {
    let row = sqlx::query(
        "SELECT l.relation::regclass::text AS name,
                string_agg(DISTINCT format('process %s of %s (%s, %s)', a.pid, a.usename,
                           coalesce(nullif(a.application_name, ''), 'unnamed application'),
                           coalesce(a.state, 'state unknown')), ', ') AS blockers
         FROM pg_locks l
         LEFT JOIN pg_stat_activity a ON a.pid = ANY (pg_blocking_pids(l.pid))
         WHERE l.pid = $1 AND NOT l.granted AND l.relation IS NOT NULL
         GROUP BY l.relation",
    )
    .bind(pid)
    .fetch_optional(scout)
    .await
    .ok()??;
    let name = row.try_get::<Option<String>, _>("name").ok()??;
    let blockers = row.try_get::<Option<String>, _>("blockers").ok()?;
    let unknown = || "a session that this login cannot see".to_owned();
    Some((name, blockers.unwrap_or_else(unknown)))
}

fn lock_error(source: sqlx::Error, waited_for: Option<(String, String)>, after: Duration) -> Error {
    // 55P03 is lock_not_available.
    match (sqlstate(&source).as_deref(), waited_for) {
        (Some("55P03"), Some((table, blockers))) => Error::LockTimeout {
            table: format!("table {table}"),
            blockers,
            after,
        },
        _ => Error::query("lock the tables")(source),
    }
}

async fn keep_alive(connection: Weak<Mutex<Option<PgConnection>>>) {
    loop {
        tokio::time::sleep(KEEP_ALIVE_EVERY).await;
        let Some(shared) = connection.upgrade() else {
            return;
        };
        // A failure shows at the next check, which can report it.
        if let Some(connection) = shared.lock().await.as_mut() {
            let _ = tokio::time::timeout(ANSWER_LIMIT, ping(connection)).await;
        }
    }
}

async fn ping(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::raw_sql("SELECT 1")
        .execute(connection)
        .await
        .map(|_| ())
}

impl Snapshot {
    /// Its identifier for `pg_dump --snapshot`.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Makes sure that it still exists.
    ///
    /// # Errors
    /// `Unavailable` when it is lost: no further part can show the same moment.
    pub(super) async fn check(&self) -> Result<(), Error> {
        let mut guard = self.connection.lock().await;
        let Some(connection) = guard.as_mut() else {
            return Err(self.lost(None));
        };
        match tokio::time::timeout(ANSWER_LIMIT, ping(connection)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(source)) => Err(self.lost(Some(source))),
            Err(_) => Err(self.lost(None)),
        }
    }

    /// A table's columns, asked on the session that holds the locks.
    pub(super) async fn columns(&self, oid: u32) -> Result<(Vec<String>, String), Error> {
        let mut guard = self.connection.lock().await;
        match guard.as_mut() {
            Some(connection) => catalog::columns(connection, oid).await,
            None => Err(self.lost(None)),
        }
    }

    /// Gives locks and snapshot back.
    ///
    /// # Errors
    /// `Unavailable` when they had been lost before.
    pub(super) async fn release(&self) -> Result<(), Error> {
        let Some(mut connection) = self.connection.lock().await.take() else {
            return Err(self.lost(None));
        };
        let commit = async {
            ping(&mut connection).await?;
            sqlx::raw_sql("COMMIT").execute(&mut connection).await?;
            connection.close().await
        };
        match tokio::time::timeout(ANSWER_LIMIT, commit).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(source)) => Err(self.lost(Some(source))),
            Err(_) => Err(self.lost(None)),
        }
    }

    fn lost(&self, source: Option<sqlx::Error>) -> Error {
        Error::SnapshotLost {
            database: self.database.clone(),
            source,
        }
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        self.keep_alive.abort();
    }
}
