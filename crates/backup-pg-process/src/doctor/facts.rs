//! What the server says of the login, the database and itself.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Deserialize;
use sqlx::Row as _;
use sqlx::postgres::PgConnection;

use crate::{Error, mappings};

/// Names that are given as examples.
const NAMED: usize = 5;

/// The relations whose rows or values `pg_dump` reads, then everything in one row of JSON.
/// Members of extensions are left to `pg_dump`, which knows which of them hold configuration.
const FACTS: &str = "
WITH db AS (SELECT * FROM pg_database WHERE datname = current_database()),
me AS (SELECT * FROM pg_roles WHERE rolname = current_user),
rel AS MATERIALIZED (
  SELECT c.oid, c.relkind, c.relpersistence, format('%I.%I', n.nspname, c.relname) AS name,
         coalesce(has_schema_privilege(n.oid, 'USAGE')
                  AND CASE c.relkind WHEN 'S' THEN has_sequence_privilege(c.oid, 'SELECT')
                      ELSE has_table_privilege(c.oid, 'SELECT') END, false) AS readable,
         c.relkind = 'r' AND row_security_active(c.oid) AS hides
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind IN ('r', 'p', 'S') AND c.relpersistence <> 't'
    AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    AND NOT EXISTS (SELECT FROM pg_depend d
                    WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                      AND d.objsubid = 0 AND d.deptype = 'e'))
SELECT jsonb_build_object(
  'user', current_user,
  'database', current_database(),
  'database_bytes', pg_database_size(current_database()),
  'is_superuser', (SELECT rolsuper FROM me),
  'reads_all', pg_has_role('pg_read_all_data', 'USAGE'),
  'reads_passwords', has_table_privilege('pg_authid', 'SELECT'),
  'password_days', (SELECT CASE WHEN isfinite(rolvaliduntil) THEN
       floor(extract(epoch FROM rolvaliduntil - now()) / 86400)::int8 END FROM me),
  'tables', (SELECT count(*) FROM rel WHERE relkind <> 'S'),
  'unreadable', (SELECT jsonb_build_object('count', count(*), 'names',
       coalesce(jsonb_agg(name ORDER BY name), '[]')) FROM rel
       WHERE NOT readable AND relkind <> 'S'),
  'unreadable_sequences', (SELECT jsonb_build_object('count', count(*), 'names',
       coalesce(jsonb_agg(name ORDER BY name), '[]')) FROM rel
       WHERE NOT readable AND relkind = 'S'),
  'hidden', (SELECT jsonb_build_object('count', count(*), 'names',
       coalesce(jsonb_agg(name ORDER BY name), '[]')) FROM rel WHERE hides),
  'unlogged', (SELECT count(*) FROM rel WHERE relkind = 'r' AND relpersistence = 'u'),
  'foreign_tables', (SELECT count(*) FROM pg_foreign_table),
  'subscriptions', (SELECT count(s.subname) FROM pg_subscription s, db WHERE s.subdbid = db.oid),
  'bare_mappings', (SELECT count(*) FROM pg_user_mappings WHERE umoptions IS NULL),
  'reads_mappings', has_table_privilege('pg_user_mapping', 'SELECT'),
  'tablespaces', (SELECT coalesce(jsonb_agg(DISTINCT t.spcname), '[]') FROM pg_tablespace t
       WHERE t.spcname NOT IN ('pg_default', 'pg_global')
         AND (t.oid IN (SELECT reltablespace FROM pg_class)
              OR t.oid = (SELECT dattablespace FROM db))),
  'frozen_age', (SELECT age(datfrozenxid) FROM db),
  'in_recovery', pg_is_in_recovery(),
  'encrypted', (SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()),
  'prepared', (SELECT coalesce(jsonb_agg(jsonb_build_object('gid', gid, 'minutes',
       floor(extract(epoch FROM now() - prepared) / 60)::int8)), '[]')
       FROM pg_prepared_xacts WHERE database = current_database()
         AND prepared < now() - interval '1 hour'),
  'sessions', (SELECT coalesce(sum(numbackends), 0) FROM pg_stat_database),
  'role_limit', (SELECT rolconnlimit FROM me),
  'role_sessions', (SELECT count(*) FROM pg_stat_activity WHERE usename = current_user),
  'database_limit', (SELECT datconnlimit FROM db),
  'database_sessions', (SELECT coalesce(sum(numbackends), 0) FROM pg_stat_database
       WHERE datname = current_database()),
  'settings', (SELECT jsonb_object_agg(name, setting) FROM pg_settings WHERE name IN (
       'max_connections', 'superuser_reserved_connections', 'reserved_connections',
       'max_locks_per_transaction', 'max_prepared_transactions', 'hot_standby_feedback',
       'max_standby_streaming_delay', 'lo_compat_privileges'))
)::text";

/// What the query above returns.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Facts {
    pub(super) user: String,
    pub(super) database: String,
    pub(super) database_bytes: u64,
    #[serde(flatten)]
    pub(super) role: Role,
    pub(super) password_days: Option<i64>,
    pub(super) tables: u64,
    pub(super) unreadable: Named,
    pub(super) unreadable_sequences: Named,
    pub(super) hidden: Named,
    pub(super) unlogged: u64,
    pub(super) foreign_tables: u64,
    pub(super) subscriptions: u64,
    /// User mappings whose options the login does not see, or that have none.
    pub(super) bare_mappings: u64,
    pub(super) reads_mappings: bool,
    pub(super) tablespaces: Vec<String>,
    pub(super) frozen_age: u64,
    pub(super) in_recovery: bool,
    pub(super) encrypted: Option<bool>,
    pub(super) prepared: Vec<Prepared>,
    pub(super) sessions: i64,
    pub(super) role_limit: i64,
    pub(super) role_sessions: i64,
    pub(super) database_limit: i64,
    pub(super) database_sessions: i64,
    pub(super) settings: BTreeMap<String, String>,
    /// Limits of the session as it was given to us: name and milliseconds.
    #[serde(skip)]
    pub(super) limits: Vec<(String, i64)>,
}

/// What the login is.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct Role {
    pub(super) is_superuser: bool,
    pub(super) reads_all: bool,
    pub(super) reads_passwords: bool,
}

/// Some relations.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Named {
    pub(super) count: u64,
    pub(super) names: Vec<String>,
}

impl Named {
    /// The first few, and how many more.
    pub(super) fn examples(&self) -> String {
        let shown = self.names.iter().take(NAMED).cloned();
        let shown = shown.collect::<Vec<_>>().join(", ");
        match self.names.len().saturating_sub(NAMED) {
            0 => shown,
            more => format!("{shown} and {more} more"),
        }
    }
}

/// A transaction that waits for its second phase.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Prepared {
    pub(super) gid: String,
    pub(super) minutes: i64,
}

/// Large objects of the database.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct LargeObjects {
    pub(super) all: i64,
    /// Those that neither belong to a role of ours nor were opened to one.
    pub(super) foreign: i64,
}

/// A table that nobody can read now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lock {
    pub(super) table: String,
    /// None for a transaction that waits for its second phase.
    pub(super) pid: Option<i32>,
    /// Since when, if the login may see that.
    pub(super) seconds: Option<i64>,
}

/// `server_version_num`.
pub(super) async fn version_num(connection: &mut PgConnection) -> Result<u32, Error> {
    let failed = || Error::query("read the version");
    let answer = sqlx::raw_sql("SHOW server_version_num").fetch_one(connection);
    let version: String = answer
        .await
        .and_then(|row| row.try_get(0))
        .map_err(failed())?;
    version.parse().map_err(|_| Error::InvalidInput {
        message: format!("server version {version:?} is not a number"),
    })
}

/// Without a prepared statement: a pooler would leave it in the session of somebody else.
pub(super) async fn session_number(connection: &mut PgConnection) -> Result<i32, Error> {
    let answer = sqlx::raw_sql("SELECT pg_backend_pid()").fetch_one(connection);
    let number = answer.await.and_then(|row| row.try_get(0));
    number.map_err(Error::query("ask for the session's number"))
}

pub(super) async fn clock(connection: &mut PgConnection) -> Result<DateTime<Utc>, Error> {
    let failed = || Error::query("ask for the time");
    let micros: i64 =
        sqlx::query_scalar("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8")
            .fetch_one(connection)
            .await
            .map_err(failed())?;
    DateTime::from_timestamp_micros(micros).ok_or_else(|| Error::InvalidInput {
        message: format!("the server's time {micros} is none"),
    })
}

/// Limits of sessions and transactions that are switched on.
pub(super) async fn limits(connection: &mut PgConnection) -> Result<Vec<(String, i64)>, Error> {
    let failed = || Error::query("read the limits of the session");
    let rows = sqlx::query(
        "SELECT name, setting::int8 AS limit_ms FROM pg_settings WHERE setting <> '0' AND name IN (
           'statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout',
           'idle_session_timeout', 'transaction_timeout') ORDER BY name",
    )
    .fetch_all(connection)
    .await
    .map_err(failed())?;
    let limit = |row: &sqlx::postgres::PgRow| Ok((row.try_get("name")?, row.try_get("limit_ms")?));
    let limits: Result<_, sqlx::Error> = rows.iter().map(limit).collect();
    limits.map_err(failed())
}

pub(super) async fn read(connection: &mut PgConnection) -> Result<Facts, Error> {
    let operation = "read the rights of the login";
    let json: String = sqlx::query_scalar(FACTS)
        .fetch_one(&mut *connection)
        .await
        .map_err(Error::query(operation))?;
    let mut facts: Facts = serde_json::from_str(&json).map_err(|source| Error::Query {
        operation: operation.to_owned(),
        source: sqlx::Error::Decode(source.into()),
    })?;
    if facts.bare_mappings > 0 && facts.reads_mappings {
        facts.bare_mappings = mappings::hidden(connection).await?;
    }
    Ok(facts)
}

/// Counts them. No function tells it in all versions.
pub(super) async fn large_objects(connection: &mut PgConnection) -> Result<LargeObjects, Error> {
    let failed = || Error::query("count the large objects");
    let row = sqlx::query(
        "SELECT count(*) AS all, count(*) FILTER (WHERE NOT (
           pg_has_role(lomowner, 'USAGE') OR EXISTS (
             SELECT FROM aclexplode(lomacl) a WHERE a.privilege_type = 'SELECT'
               AND (a.grantee = 0 OR pg_has_role(a.grantee, 'USAGE'))))) AS foreign
         FROM pg_largeobject_metadata",
    )
    .fetch_one(connection)
    .await
    .map_err(failed())?;
    Ok(LargeObjects {
        all: row.try_get("all").map_err(failed())?,
        foreign: row.try_get("foreign").map_err(failed())?,
    })
}

/// Whoever keeps a table from being read, and so from being dumped.
pub(super) async fn locks(connection: &mut PgConnection) -> Result<Vec<Lock>, Error> {
    let failed = || Error::query("list the locks");
    let rows = sqlx::query(
        "SELECT format('%I.%I', n.nspname, c.relname) AS name, l.pid,
                extract(epoch FROM clock_timestamp() - a.xact_start)::int8 AS seconds
         FROM pg_locks l
         JOIN pg_class c ON c.oid = l.relation AND c.relkind IN ('r', 'p')
         JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname !~ '^pg_'
         LEFT JOIN pg_stat_activity a ON a.pid = l.pid
         WHERE l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock' AND l.granted
           AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
         ORDER BY 1 LIMIT 20",
    )
    .fetch_all(connection)
    .await
    .map_err(failed())?;
    let lock = |row: &sqlx::postgres::PgRow| {
        Ok(Lock {
            table: row.try_get("name")?,
            pid: row.try_get("pid")?,
            seconds: row.try_get("seconds")?,
        })
    };
    let locks: Result<_, sqlx::Error> = rows.iter().map(lock).collect();
    locks.map_err(failed())
}
