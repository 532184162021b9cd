//! [`PgSandboxes`]: databases to look into, on a configured server.
//!
//! Two logins work here. The one that restores owns everything in a sandbox, and is no superuser,
//! since code of the backup runs with its rights. The server's `admin` makes and drops the visitors'
//! roles and drops databases, and never connects to one that came out of a backup.
//!
//! What a visitor does there stays there. Up to PostgreSQL 14 he can make tables of his own in the
//! schema `public`, where everybody may. His login is one of the whole server: in other databases
//! it may do what PUBLIC may, which is to connect unless somebody revoked that. Sandboxes are
//! closed to PUBLIC; a server for them should have nothing else that is open.

mod grants;

use std::time::Duration;

use async_trait::async_trait;
use backup_core::error::{ErrorKind, PortError};
use backup_core::restorer::Restorer;
use backup_core::sandbox::{
    Sandbox, SandboxAccess, SandboxPlace, SandboxServer, Tenancy, is_sandbox_name,
};
use chrono::{DateTime, SecondsFormat, Utc};
use sqlx::Row as _;
use sqlx::postgres::{PgConnection, PgRow};

use crate::mark::{Comment, Mark};
use crate::session::execute;
use crate::{
    ConnectionConfig, Error, PgRestorer, advisory, logins, quote_ident, quote_literal, session,
};

/// What makes a password: 32 of these are 160 bits.
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
const PASSWORD_LENGTH: usize = 32;

/// How many sessions a visitor may have.
const SESSIONS: i32 = 5;

/// Databases of the login that restores, with what their comments say; whether they have a visitor;
/// and who is there. Names and comments are bytes, as in `replacer/database.rs`.
const SANDBOXES: &str = "
SELECT namesend(d.datname), textsend(shobj_description(d.oid, 'pg_database')),
       CASE WHEN has_database_privilege(d.oid, 'CONNECT') THEN pg_database_size(d.oid) END,
       EXISTS (SELECT FROM pg_roles r WHERE r.rolname = d.datname),
       (SELECT count(*) FROM pg_stat_activity a WHERE a.datid = d.oid)
FROM pg_database d
WHERE d.datdba = $1::regrole AND d.datname LIKE 'restore\\_%'
ORDER BY d.datname";

/// Logins made like those of sandboxes, for which there is no database, whose time was over at `$1`.
const LONE_LOGINS: &str = "
SELECT r.rolname::text FROM pg_roles r
WHERE r.rolname LIKE 'restore\\_%' AND r.rolvaliduntil <= $1::timestamptz AND r.rolconnlimit = $2
  AND r.rolcanlogin AND NOT (r.rolinherit OR r.rolsuper OR r.rolcreaterole OR r.rolcreatedb)
  AND NOT EXISTS (SELECT FROM pg_database d WHERE d.datname = r.rolname)
ORDER BY r.rolname";

/// Whose turn it is to have one more. Nobody has it for long: the database is made within it, not
/// filled.
const ADMISSION: &str = "the number of sandboxes";

/// How often somebody looks whether it is his turn.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// A server for sandboxes.
#[derive(Debug)]
pub struct PgSandboxes {
    /// Its name in the configuration.
    name: String,
    restorer: PgRestorer,
    /// Makes and drops roles, and drops databases.
    admin: Option<ConnectionConfig>,
    /// Whether somebody depends on it.
    production: bool,
}

/// A lock: of one person, or of everybody.
#[derive(Debug)]
struct Place {
    /// The lock goes with it.
    _held: PgConnection,
}

impl SandboxPlace for Place {}

impl PgSandboxes {
    /// The configured server `name`, where `restorer` restores.
    #[must_use]
    pub fn new(
        name: impl Into<String>,
        restorer: PgRestorer,
        admin: Option<ConnectionConfig>,
        production: bool,
    ) -> Self {
        Self {
            name: name.into(),
            restorer,
            admin,
            production,
        }
    }

    fn connection(&self) -> &ConnectionConfig {
        self.restorer.connection()
    }

    async fn connect(&self) -> Result<PgConnection, Error> {
        let config = self.connection();
        let mut connection = config.connect(&config.maintenance_database).await?;
        let version: i32 = sqlx::query_scalar("SELECT current_setting('server_version_num')::int4")
            .fetch_one(&mut connection)
            .await
            .map_err(Error::query("ask for the server's version"))?;
        session::prepare(&mut connection, u32::try_from(version).unwrap_or_default()).await?;
        Ok(connection)
    }

    async fn admin(&self) -> Result<PgConnection, PortError> {
        let Some(admin) = &self.admin else {
            let what = format!("server {:?} has no admin", self.name);
            return Err(PortError::new(ErrorKind::Refused, what).with_hint(
                "sandboxes need a role that may make logins: configure [server.NAME.admin]",
            ));
        };
        let mut connection = admin.connect(&admin.maintenance_database).await?;
        let settings = "SET search_path = pg_catalog, pg_temp; SET statement_timeout = 0; \
                        SET lock_timeout = 0";
        execute(&mut connection, settings, "prepare the session").await?;
        Ok(connection)
    }

    /// All sandboxes, as `connection` sees them.
    async fn all(&self, connection: &mut PgConnection) -> Result<Vec<Sandbox>, Error> {
        let failed = || Error::query("list the sandboxes");
        let rows = sqlx::query(SANDBOXES)
            .bind(quote_ident(&self.connection().user))
            .fetch_all(connection)
            .await
            .map_err(failed())?;
        let all: Result<Vec<_>, sqlx::Error> = rows.iter().map(sandbox).collect();
        Ok(all.map_err(failed())?.into_iter().flatten().collect())
    }

    async fn open_to(&self, database: &str, until: DateTime<Utc>) -> Result<String, PortError> {
        let password = password();
        let mut own = self.connection().connect(database).await?;
        session::prepare(&mut own, 0).await?;
        let mut admin = self.admin().await?;
        let role = quote_ident(database);
        // The server gets what it stores, so the password is in no log.
        let verifier = postgres_protocol::password::scram_sha_256(password.as_bytes());
        let until = until.to_rfc3339_opts(SecondsFormat::Secs, true);
        let sql = format!(
            "CREATE ROLE {role} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION \
             NOBYPASSRLS NOINHERIT CONNECTION LIMIT {SESSIONS} PASSWORD {} VALID UNTIL {}; \
             ALTER ROLE {role} SET default_transaction_read_only = on; \
             ALTER ROLE {role} SET search_path = '$user', public",
            quote_literal(&verifier),
            quote_literal(&until),
        );
        execute(&mut admin, sql, "make the sandbox's login").await?;
        grants::grant(&mut own, database).await?;
        Ok(password)
    }
}

#[async_trait]
impl SandboxServer for PgSandboxes {
    fn restorer(&self) -> &dyn Restorer {
        &self.restorer
    }

    async fn enter(&self, person: &str) -> Result<Box<dyn SandboxPlace>, PortError> {
        let name = &self.name;
        let refused = |what: String| PortError::new(ErrorKind::Refused, what);
        if self.production {
            let what = format!("server {name:?} is marked as production");
            return Err(refused(what).with_hint("name another server in [sandbox]"));
        }
        drop(self.admin().await?);
        let mut held = self.connect().await?;
        if logins::is_powerful(&mut held).await? {
            let what = format!(
                "the login of server {name:?} is a superuser or may do what only those may"
            );
            return Err(refused(what).with_hint(
                "a restore runs code of the backup with the rights of its login: give it one with \
                 CREATEDB and nothing else",
            ));
        }
        let lock = format!("sandboxes of {person}");
        if advisory::try_lock(&mut held, &lock).await?.is_some() {
            let what = "another sandbox is being made for the same person";
            return Err(PortError::new(ErrorKind::Conflict, what));
        }
        Ok(Box::new(Place { _held: held }))
    }

    async fn admission(&self) -> Result<Box<dyn SandboxPlace>, PortError> {
        let mut held = self.connect().await?;
        while advisory::try_lock(&mut held, ADMISSION).await?.is_some() {
            // It may be ours, while somebody connected to another database has it too.
            advisory::unlock(&mut held, ADMISSION).await?;
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(Box::new(Place { _held: held }))
    }

    async fn list(&self) -> Result<Vec<Sandbox>, PortError> {
        let mut connection = self.connect().await?;
        Ok(self.all(&mut connection).await?)
    }

    async fn open(&self, database: &str, until: DateTime<Utc>) -> Result<SandboxAccess, PortError> {
        let password = self.open_to(database, until).await?;
        let connection = self.connection();
        Ok(SandboxAccess {
            host: connection.host.clone(),
            port: connection.port,
            database: database.to_owned(),
            password,
        })
    }

    async fn remove(&self, database: &str) -> Result<(), PortError> {
        let mut admin = self.admin().await?;
        let all = self.all(&mut admin).await?;
        if !all.iter().any(|sandbox| sandbox.database == database) {
            let what = format!("there is no sandbox {database:?}");
            return Err(PortError::new(ErrorKind::NotFound, what));
        }
        let name = quote_ident(database);
        let sql = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
        execute(&mut admin, sql, "drop the sandbox").await?;
        let sql = format!("DROP ROLE IF EXISTS {name}");
        Ok(execute(&mut admin, sql, "drop the sandbox's login").await?)
    }

    async fn remove_lone_logins(&self, now: DateTime<Utc>) -> Result<Vec<String>, PortError> {
        let mut admin = self.admin().await?;
        let found: Vec<String> = sqlx::query_scalar(LONE_LOGINS)
            .bind(now.to_rfc3339())
            .bind(SESSIONS)
            .fetch_all(&mut admin)
            .await
            .map_err(Error::query("look for logins of sandboxes"))?;
        let mut removed = Vec::new();
        for role in found.into_iter().filter(|role| is_sandbox_name(role)) {
            let sql = format!("DROP ROLE IF EXISTS {}", quote_ident(&role));
            execute(&mut admin, sql, "drop a login without a sandbox").await?;
            removed.push(role);
        }
        Ok(removed)
    }
}

/// A database that is a sandbox of ours by its name and by what its comment says.
fn sandbox(row: &PgRow) -> Result<Option<Sandbox>, sqlx::Error> {
    let name: Vec<u8> = row.try_get(0)?;
    let comment: Option<Vec<u8>> = row.try_get(1)?;
    let comment = comment.map(|text| String::from_utf8_lossy(&text).into_owned());
    let database = String::from_utf8_lossy(&name).into_owned();
    let Some(Mark::Sandbox(mark)) = Comment::parse(comment.as_deref()).mark else {
        return Ok(None);
    };
    if !is_sandbox_name(&database) {
        return Ok(None);
    }
    let bytes: Option<i64> = row.try_get(2)?;
    let sessions: i64 = row.try_get(4)?;
    Ok(Some(Sandbox {
        database,
        tenancy: Tenancy {
            person: mark.person,
            until: mark.until,
        },
        source: mark.source,
        backup: mark.backup,
        bytes: bytes.and_then(|bytes| u64::try_from(bytes).ok()),
        is_open: row.try_get(3)?,
        sessions: u64::try_from(sessions).unwrap_or_default(),
    }))
}

fn password() -> String {
    let letter = |_| char::from(ALPHABET[rand::random_range(0..ALPHABET.len())]);
    (0..PASSWORD_LENGTH).map(letter).collect()
}
