//! The moment that all parts show: a transaction that exported its snapshot and holds the locks.

use std::collections::BTreeSet;
use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _, Row as _};
use tokio_util::sync::CancellationToken;

use super::catalog::{self, Table};
use crate::ConnectionConfig;
use crate::error::{Error, sqlstate};
use crate::session::{self, ANSWER_LIMIT, KeptAlive, ping};

/// Tries to fix a moment while tables come and go.
const TRIES: usize = 3;
/// Tables locked by one statement.
const LOCK_BATCH: usize = 500;
/// How often the waiting for a lock is looked at.
const WATCH_EVERY: Duration = Duration::from_millis(300);

/// Holds the snapshot. Dropping it gives everything back: the server ends the transaction when the
/// connection closes.
#[derive(Debug)]
pub(super) struct Snapshot {
    id: String,
    database: String,
    connection: KeptAlive,
}

/// A snapshot and the tables that it shows, locked as far as they can be.
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
    /// Whether tables that the login may not lock are left out: a filter may leave them out too,
    /// and only `pg_dump` knows. A refused LOCK TABLE would end the transaction.
    pub(super) skip_forbidden: bool,
}

/// Locks every table, then fixes the moment.
///
/// In this order, since TRUNCATE and most of DDL do not obey snapshots: a table emptied between the
/// snapshot and `pg_dump`'s own lock would be dumped empty. LOCK TABLE takes no snapshot, so the
/// first SELECT after it fixes a moment that is younger than the locks. If that shows a table that
/// is not locked, all is given back and tried again, since a later lock would be younger than the
/// moment. <https://www.postgresql.org/docs/current/mvcc-caveats.html>
///
/// `scout` is another connection: it lists the tables first and watches the waiting.
pub(super) async fn take(
    taking: Taking<'_>,
    scout: &mut PgConnection,
    cancel: &CancellationToken,
) -> Result<Taken, Error> {
    let mut connection = taking.config.connect(taking.database).await?;
    session::prepare(&mut connection, taking.version_num).await?;
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()")
        .fetch_one(&mut connection)
        .await
        .map_err(Error::query("ask for the session's number"))?;
    let mut locking = Locking {
        connection: &mut connection,
        scout,
        pid,
        lock_wait: taking.lock_wait,
        cancel,
    };
    let (id, mut tables) = fix_moment(&mut locking, taking.skip_forbidden).await?;
    let large_object_bytes = catalog::measure(&mut connection, &mut tables).await?;
    let unlocked = tables
        .iter()
        .filter(|table| table.sql_name.is_none())
        .count();
    Ok(Taken {
        snapshot: Snapshot {
            id,
            database: taking.database.to_owned(),
            connection: KeptAlive::new(connection),
        },
        tables,
        large_object_bytes,
        unlocked,
    })
}

/// The snapshot's name and its tables, all of them locked before it.
async fn fix_moment(
    locking: &mut Locking<'_>,
    skip_forbidden: bool,
) -> Result<(String, Vec<Table>), Error> {
    for _ in 0..TRIES {
        let known = catalog::tables(locking.scout).await?;
        let locked = lockable(&known, skip_forbidden);
        let begin = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL lock_timeout = {}",
            locking.lock_wait.as_millis().max(1)
        );
        session::execute(locking.connection, begin, "begin the dump's transaction").await?;
        locking.lock(&locked).await?;
        let operation = "export the snapshot";
        let export = "SELECT pg_export_snapshot()";
        let id = catalog::text(locking.connection, export, operation).await?;
        let tables = catalog::tables(locking.connection).await?;
        if lockable(&tables, skip_forbidden).is_subset(&locked) {
            return Ok((id, tables));
        }
        tracing::debug!("a table was created or renamed while the dump began");
        session::execute(locking.connection, "ROLLBACK", "give the locks back").await?;
    }
    Err(Error::TablesChange { source: None })
}

/// What can be locked, in the order of numbers. With the names, since locks are taken by name: a
/// table that was renamed meanwhile may have lent its name to another.
fn lockable(tables: &[Table], skip_forbidden: bool) -> BTreeSet<(u32, &str)> {
    tables
        .iter()
        .filter(|table| table.may_lock || !skip_forbidden)
        .filter_map(|table| Some((table.oid, table.sql_name.as_deref()?)))
        .collect()
}

struct Locking<'a> {
    connection: &'a mut PgConnection,
    scout: &'a mut PgConnection,
    pid: i32,
    lock_wait: Duration,
    cancel: &'a CancellationToken,
}

impl Locking<'_> {
    async fn lock(&mut self, tables: &BTreeSet<(u32, &str)>) -> Result<(), Error> {
        let names: Vec<&str> = tables.iter().map(|(_, name)| *name).collect();
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
        let Some(mut connection) = self.connection.take().await else {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dumper::catalog::TableForm;

    fn table(oid: u32, name: &str, may_lock: bool) -> Table {
        Table {
            oid,
            schema: b"public".to_vec(),
            name: name.as_bytes().to_vec(),
            sql_name: Some(format!("public.{name}")),
            form: TableForm::Blocks,
            hides_rows: false,
            may_lock,
            plain_inside: true,
            heap_bytes: 0,
            bytes: 0,
        }
    }

    #[test]
    fn new_and_renamed_tables_are_not_locked_but_dropped_ones_do_not_matter() {
        let known = [table(1, "a", true), table(2, "b", true)];
        let locked = lockable(&known, false);
        let all_locked = |now: &[Table]| lockable(now, false).is_subset(&locked);
        assert!(all_locked(&known));
        assert!(all_locked(&known[..1]));
        assert!(!all_locked(&[table(3, "c", true)]));
        // They swapped names.
        assert!(!all_locked(&[table(1, "b", true), table(2, "a", true)]));
    }

    #[test]
    fn only_a_filtered_dump_skips_what_it_may_not_lock() {
        let tables = [table(1, "a", false), table(2, "b", true)];
        assert_eq!(lockable(&tables, true), [(2, "public.b")].into());
        assert_eq!(lockable(&tables, false).len(), 2);
        // Granted meanwhile.
        let now = [table(1, "a", true)];
        assert!(!lockable(&now, true).is_subset(&lockable(&tables, true)));
    }
}
