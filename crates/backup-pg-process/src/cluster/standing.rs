//! A server that stands by for drills: configured, not made, and not ours alone.
//!
//! Each drill makes one database there, named at random and marked by a comment, and drops it. What
//! a killed drill left is known by name, comment and owner, and by nobody holding its lock.

use async_trait::async_trait;
use backup_core::drill::{
    Answer, Assertion, DrillServer, DrillSession, ServerFacts, StructureReport,
};
use backup_core::error::{ErrorKind, PortError};
use backup_core::manifest::Manifest;
use backup_core::restorer::{Ownership, Restorer};
use sqlx::postgres::PgConnection;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::ask;
use crate::mark::UNMARKED_LIMIT;
use crate::session::{self, execute};
use crate::{
    ConnectionConfig, Error, PgRestorer, PgRestorerConfig, ToolLocator, ToolVersion, advisory,
    logins, quote_ident,
};

/// How names of databases begin that drills made.
const PREFIX: &str = "drill_";

/// Databases that drills left: of such a name, marked by a restore of ours, and of this login.
/// Those that were not marked yet have the limit that they were made with.
const LEFT: &str = "
SELECT datname::text FROM pg_database
WHERE datname ~ '^drill_[0-9a-f]{16}$' AND datdba = current_user::regrole
  AND (shobj_description(oid, 'pg_database') LIKE 'made by backup-manager: restore of %'
       OR NOT datallowconn AND datconnlimit = $1)";

/// A configured server for drills.
#[derive(Debug, Clone)]
pub struct StandingServer {
    /// Its name in the configuration.
    pub name: String,
    /// The server and the login, which must be no superuser.
    pub connection: ConnectionConfig,
    /// Where the client programs are.
    pub tools: ToolLocator,
    /// Whether somebody depends on it. No drill runs there then.
    pub production: bool,
}

#[async_trait]
impl DrillServer for StandingServer {
    async fn start(
        &self,
        _backup: &Manifest,
        _jobs: usize,
        cancel: &CancellationToken,
    ) -> Result<Box<dyn DrillSession>, PortError> {
        let refused = |what: String| PortError::new(ErrorKind::Refused, what);
        let name = &self.name;
        if self.production {
            let what = format!("server {name:?} is marked as production");
            return Err(refused(what).with_hint("name another server in [drill], or none"));
        }
        let maintenance = &self.connection.maintenance_database;
        let mut held = self.connection.connect(maintenance).await?;
        let version: i32 = sqlx::query_scalar("SELECT current_setting('server_version_num')::int4")
            .fetch_one(&mut held)
            .await
            .map_err(Error::query("ask for the server's version"))?;
        if logins::is_powerful(&mut held).await? {
            let what = format!(
                "the login of server {name:?} is a superuser or may do what only those may"
            );
            return Err(refused(what).with_hint(
                "a restore runs code of the backup with the rights of its login: give the drill \
                 one with CREATEDB and nothing else",
            ));
        }
        session::prepare(&mut held, u32::try_from(version).unwrap_or_default()).await?;
        sweep(&mut held).await?;
        let database = format!("{PREFIX}{:016x}", rand::random::<u64>());
        if let Some(holder) = advisory::try_lock(&mut held, &lock_of(&database)).await? {
            let what = format!("{holder} has the lock of database {database}");
            return Err(PortError::new(ErrorKind::Conflict, what));
        }
        if cancel.is_cancelled() {
            return Err(PortError::cancelled());
        }
        let version = u32::try_from(version).unwrap_or_default();
        let tools = self.tools.locate(version, cancel).await?;
        let config = PgRestorerConfig::new(self.connection.clone(), self.tools.clone());
        Ok(Box::new(Session {
            facts: ServerFacts {
                kind: format!("the configured server {name}"),
                server_version: ToolVersion::from_num(version).to_string(),
                tool_version: tools.version.to_string(),
                account: None,
                network: None,
            },
            database,
            restorer: PgRestorer::new(config),
            held: Mutex::new(held),
        }))
    }
}

/// What says that the drill of this database is alive.
fn lock_of(database: &str) -> String {
    format!("drills in database {database}")
}

/// Drops what dead drills left.
async fn sweep(held: &mut PgConnection) -> Result<(), Error> {
    let left: Vec<String> = sqlx::query_scalar(LEFT)
        .bind(UNMARKED_LIMIT)
        .fetch_all(&mut *held)
        .await
        .map_err(Error::query("look for what drills left"))?;
    for database in left {
        let lock = lock_of(&database);
        if advisory::try_lock(held, &lock).await?.is_some() {
            continue;
        }
        tracing::info!(target: "backup", database, "dropping what a drill left");
        drop_database(held, &database).await?;
        advisory::unlock(held, &lock).await?;
    }
    Ok(())
}

async fn drop_database(connection: &mut PgConnection, database: &str) -> Result<(), Error> {
    let sql = format!(
        "DROP DATABASE IF EXISTS {} WITH (FORCE)",
        quote_ident(database)
    );
    execute(connection, sql, &format!("drop database {database:?}")).await
}

#[derive(Debug)]
struct Session {
    facts: ServerFacts,
    database: String,
    restorer: PgRestorer,
    /// Holds the lock that says that this drill is alive.
    held: Mutex<PgConnection>,
}

#[async_trait]
impl DrillSession for Session {
    fn facts(&self) -> &ServerFacts {
        &self.facts
    }

    fn database(&self) -> &str {
        &self.database
    }

    fn ownership(&self) -> Ownership {
        // Its roles are not ours to make.
        Ownership::Login
    }

    fn restorer(&self) -> &dyn Restorer {
        &self.restorer
    }

    fn left_out(&self) -> Vec<String> {
        vec!["owners and grants: everything belongs to the login of the drill".to_owned()]
    }

    async fn check(&self, _cancel: &CancellationToken) -> Result<StructureReport, PortError> {
        let why = "amcheck needs a superuser, whom a configured server does not lend";
        Ok(StructureReport {
            unavailable: Some(why.to_owned()),
            ..StructureReport::default()
        })
    }

    async fn ask(
        &self,
        assertion: &Assertion,
        cancel: &CancellationToken,
    ) -> Result<Answer, PortError> {
        let connection = self.restorer.connection();
        tokio::select! {
            done = ask::ask(connection, &self.database, assertion) => Ok(done?),
            () = cancel.cancelled() => Err(PortError::cancelled()),
        }
    }

    async fn stop(&self) -> Result<(), PortError> {
        // The one that holds the lock may have been lost meanwhile.
        let connection = self.restorer.connection();
        let maintenance = &connection.maintenance_database;
        let mut connection = connection.connect(maintenance).await?;
        let done = drop_database(&mut connection, &self.database).await;
        drop(self.held.lock().await);
        Ok(done?)
    }
}
