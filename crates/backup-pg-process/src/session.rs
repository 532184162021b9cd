//! Connections of our own: what every one of them is told, and those that must not be lost.

use std::sync::{Arc, Weak};
use std::time::Duration;

use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::JoinHandle;

use crate::{ConnectionConfig, Error};

/// Firewalls forget connections that say nothing.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(30);
/// How long the server may take to answer `SELECT 1` or COMMIT.
pub(crate) const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// Frees the session of limits that administrators set for applications. Returns whether the server
/// notices by itself when we are gone: not every platform has that, so it is tried apart.
/// <https://www.postgresql.org/docs/current/runtime-config-client.html>
pub(crate) async fn prepare(
    connection: &mut PgConnection,
    version_num: u32,
) -> Result<bool, Error> {
    let mut settings = String::from(
        "SET statement_timeout = 0; SET lock_timeout = 0; \
         SET idle_in_transaction_session_timeout = 0; SET idle_session_timeout = 0; \
         SET search_path = pg_catalog; SET jit = off;",
    );
    if version_num >= 170_000 {
        settings.push_str(" SET transaction_timeout = 0;");
    }
    execute(connection, settings, "prepare the session").await?;
    let check = sqlx::raw_sql("SET client_connection_check_interval = '2s'");
    Ok(check.execute(connection).await.is_ok())
}

/// A session in the maintenance database that no limit of an administrator ends.
pub(crate) async fn connect(config: &ConnectionConfig) -> Result<PgConnection, Error> {
    let mut connection = config.connect(&config.maintenance_database).await?;
    let version: i32 = sqlx::query_scalar("SELECT current_setting('server_version_num')::int4")
        .fetch_one(&mut connection)
        .await
        .map_err(Error::query("ask for the server's version"))?;
    prepare(&mut connection, u32::try_from(version).unwrap_or_default()).await?;
    Ok(connection)
}

/// Runs statements whose results do not matter.
pub(crate) async fn execute(
    connection: &mut PgConnection,
    statements: impl Into<String>,
    operation: &str,
) -> Result<(), Error> {
    sqlx::raw_sql(AssertSqlSafe(statements.into()))
        .execute(connection)
        .await
        .map(drop)
        .map_err(Error::query(operation))
}

/// Which cluster it is, if the login may know. A query of its own: the right to call a function is
/// checked even where the call is in a branch that is not taken.
pub(crate) async fn system_identifier(
    connection: &mut PgConnection,
) -> Result<Option<String>, Error> {
    let failed = || Error::query("ask which cluster this is");
    let may_ask: bool = sqlx::query_scalar(
        "SELECT has_function_privilege('pg_catalog.pg_control_system()', 'execute')",
    )
    .fetch_one(&mut *connection)
    .await
    .map_err(failed())?;
    if !may_ask {
        return Ok(None);
    }
    sqlx::query_scalar("SELECT system_identifier::text FROM pg_catalog.pg_control_system()")
        .fetch_optional(connection)
        .await
        .map_err(failed())
}

/// A connection that holds something on the server for as long as it lasts: it says something now
/// and then. Dropping it closes it.
#[derive(Debug)]
pub(crate) struct KeptAlive {
    connection: Arc<Mutex<Option<PgConnection>>>,
    task: JoinHandle<()>,
}

impl KeptAlive {
    /// Keeps it from now on.
    pub(crate) fn new(connection: PgConnection) -> Self {
        let connection = Arc::new(Mutex::new(Some(connection)));
        let task = tokio::spawn(keep_alive(Arc::downgrade(&connection)));
        Self { connection, task }
    }

    /// The connection, unless it was taken.
    pub(crate) async fn lock(&self) -> MutexGuard<'_, Option<PgConnection>> {
        self.connection.lock().await
    }

    /// The connection, for good.
    pub(crate) async fn take(&self) -> Option<PgConnection> {
        self.lock().await.take()
    }
}

impl Drop for KeptAlive {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn keep_alive(connection: Weak<Mutex<Option<PgConnection>>>) {
    loop {
        tokio::time::sleep(KEEP_ALIVE_EVERY).await;
        let Some(shared) = connection.upgrade() else {
            return;
        };
        // A failure shows when the connection is used next, by whoever can report it.
        if let Some(connection) = shared.lock().await.as_mut() {
            let _ = tokio::time::timeout(ANSWER_LIMIT, ping(connection)).await;
        }
    }
}

/// Asks whether it is still there.
pub(crate) async fn ping(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::raw_sql("SELECT 1")
        .execute(connection)
        .await
        .map(drop)
}
