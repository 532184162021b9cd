//! Databases of a server, and who is in them.

use backup_core::backup::BackupId;
use backup_core::run_record::RunId;
use sqlx::Row as _;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgConnection, PgRow};

use crate::Error;
use crate::mark::{Comment, Mark};

/// Longer names are cut by the server: `NAMEDATALEN` less one.
/// <https://www.postgresql.org/docs/current/sql-syntax-lexical.html#SQL-SYNTAX-IDENTIFIERS>
const MAX_NAME_BYTES: usize = 63;

const DATABASES: &str = "
SELECT oid, datname::text, shobj_description(oid, 'pg_database'), datistemplate, datallowconn
FROM pg_database";

/// One database.
#[derive(Debug, Clone)]
pub(super) struct Database {
    /// What it stays while its name changes.
    pub(super) oid: u32,
    pub(super) name: String,
    pub(super) comment: Comment,
    pub(super) is_template: bool,
    pub(super) allows_connections: bool,
}

impl Database {
    /// The database of this name.
    pub(super) async fn find(
        connection: &mut PgConnection,
        name: &str,
    ) -> Result<Option<Self>, Error> {
        let all = Self::all(connection).await?;
        Ok(all.into_iter().find(|database| database.name == name))
    }

    /// All of them.
    pub(super) async fn all(connection: &mut PgConnection) -> Result<Vec<Self>, Error> {
        let failed = || Error::query("list the databases");
        let rows = sqlx::query(DATABASES)
            .fetch_all(connection)
            .await
            .map_err(failed())?;
        let databases: Result<_, sqlx::Error> = rows.iter().map(Self::from_row).collect();
        databases.map_err(failed())
    }

    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let comment: Option<String> = row.try_get(2)?;
        Ok(Self {
            oid: row.try_get::<Oid, _>(0)?.0,
            name: row.try_get(1)?,
            comment: Comment::parse(comment.as_deref()),
            is_template: row.try_get(3)?,
            allows_connections: row.try_get(4)?,
        })
    }

    pub(super) fn sql_oid(&self) -> Oid {
        Oid(self.oid)
    }

    /// Whether a restore made it and it never took the place of anything else.
    pub(super) fn is_restored(&self) -> bool {
        matches!(self.comment.mark, Some(Mark::Made(_)))
    }
}

/// A session in a database.
#[derive(Debug, Clone)]
pub(super) struct Session {
    /// Who it is, for messages.
    pub(super) text: String,
    /// Whether the login may end it.
    pub(super) may_end: bool,
}

/// Who is in a database. Autovacuum gives way by itself; a login that may not read statistics sees of
/// it neither a role nor what it is.
///
/// Who may end whom: <https://www.postgresql.org/docs/current/functions-admin.html>.
pub(super) async fn sessions(
    connection: &mut PgConnection,
    database: &Database,
) -> Result<Vec<Session>, Error> {
    let failed = || Error::query("list the sessions of the database");
    let rows = sqlx::query(
        "SELECT a.pid, coalesce(a.usename::text, a.backend_type), a.application_name,
                me.rolsuper OR NOT coalesce(r.rolsuper, true)
                  AND (pg_has_role(r.oid, 'USAGE') OR pg_has_role('pg_signal_backend', 'USAGE'))
         FROM pg_stat_activity a LEFT JOIN pg_roles r ON r.oid = a.usesysid,
              (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) me
         WHERE a.datid = $1 AND a.pid <> pg_backend_pid()
           AND coalesce(a.backend_type, a.usesysid::text, 'autovacuum worker')
               <> 'autovacuum worker'",
    )
    .bind(database.sql_oid())
    .fetch_all(connection)
    .await
    .map_err(failed())?;
    let session = |row: &PgRow| -> Result<Session, sqlx::Error> {
        let (pid, who): (i32, String) = (row.try_get(0)?, row.try_get(1)?);
        let application: Option<String> = row.try_get(2)?;
        let application = application.filter(|text| !text.is_empty());
        let application = application
            .map(|text| format!(" ({text})"))
            .unwrap_or_default();
        Ok(Session {
            text: format!("{who}{application}, pid {pid}"),
            may_end: row.try_get(3)?,
        })
    };
    let sessions: Result<_, sqlx::Error> = rows.iter().map(session).collect();
    sessions.map_err(failed())
}

/// Ends those that may be ended.
pub(super) async fn end_sessions(
    connection: &mut PgConnection,
    database: &Database,
) -> Result<(), Error> {
    sqlx::query(
        "SELECT CASE WHEN me.rolsuper OR NOT coalesce(r.rolsuper, true)
                  AND (pg_has_role(r.oid, 'USAGE') OR pg_has_role('pg_signal_backend', 'USAGE'))
                THEN pg_terminate_backend(a.pid) END
         FROM pg_stat_activity a LEFT JOIN pg_roles r ON r.oid = a.usesysid,
              (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) me
         WHERE a.datid = $1 AND a.pid <> pg_backend_pid()
           AND coalesce(a.backend_type, a.usesysid::text, 'autovacuum worker')
               <> 'autovacuum worker'",
    )
    .bind(database.sql_oid())
    .execute(connection)
    .await
    .map(drop)
    .map_err(Error::query("end the sessions of the database"))
}

/// The name under which `database` waits: with as much of its own name as fits.
pub(super) fn aside_name(database: &str, what: &str, run: &RunId) -> String {
    let suffix = format!("__{what}_{run}");
    let mut room = MAX_NAME_BYTES
        .saturating_sub(suffix.len())
        .min(database.len());
    while !database.is_char_boundary(room) {
        room -= 1;
    }
    format!("{}{suffix}", &database[..room])
}

/// How a restore made a database, for its mark.
pub(super) fn made_by(source: &str, backup: &BackupId, run: &RunId) -> Mark {
    Mark::Made(format!("restore of {source} {backup}, run {run}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit() {
        let run: RunId = "20260205T030000Z-7f3a09c2".parse().unwrap();
        let short = aside_name("shop", "before", &run);
        assert_eq!(short, "shop__before_20260205T030000Z-7f3a09c2");
        for name in ["x".repeat(63), "ы".repeat(31), String::new()] {
            let aside = aside_name(&name, "before", &run);
            assert!(aside.len() <= MAX_NAME_BYTES && aside.len() > 61 || name.is_empty());
            assert!(
                aside.ends_with("__before_20260205T030000Z-7f3a09c2"),
                "{aside}"
            );
        }
    }
}
