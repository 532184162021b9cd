//! Databases of a server, and who is in them.

use backup_core::run_record::RunId;
use sqlx::Row as _;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgConnection, PgRow};

use crate::Error;
use crate::mark::{Aside, Comment, Mark, UNMARKED_LIMIT, Way, kept_name, newcomer_name};

/// Names and comments are stored in the encoding of whichever database they were written from, and
/// nobody converts them: what is no text here must not keep us from seeing the others. So they are
/// sent as bytes.
const DATABASES: &str = "
SELECT oid, namesend(datname), textsend(shobj_description(oid, 'pg_database')),
       datistemplate, datallowconn, datconnlimit
FROM pg_database ORDER BY oid";

/// One database.
#[derive(Debug, Clone)]
pub(super) struct Database {
    /// What it stays while its name changes.
    pub(super) oid: u32,
    pub(super) name: String,
    pub(super) comment: Comment,
    pub(super) is_template: bool,
    pub(super) allows_connections: bool,
    connection_limit: i32,
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
        let name: Vec<u8> = row.try_get(1)?;
        let comment: Option<Vec<u8>> = row.try_get(2)?;
        let comment = comment.map(|text| String::from_utf8_lossy(&text).into_owned());
        Ok(Self {
            oid: row.try_get::<Oid, _>(0)?.0,
            name: String::from_utf8_lossy(&name).into_owned(),
            comment: Comment::parse(comment.as_deref()),
            is_template: row.try_get(3)?,
            allows_connections: row.try_get(4)?,
            connection_limit: row.try_get(5)?,
        })
    }

    pub(super) fn sql_oid(&self) -> Oid {
        Oid(self.oid)
    }

    /// Whether a restore made it and it never took the place of anything else.
    pub(super) fn is_restored(&self) -> bool {
        matches!(self.comment.mark, Some(Mark::Made(_) | Mark::Archive(_)))
    }

    /// Whether it was made to be replaced.
    pub(super) fn is_archive(&self) -> bool {
        matches!(self.comment.mark, Some(Mark::Archive(_)))
    }

    /// How it was set aside, if it still has the name that it got then.
    pub(super) fn aside(&self) -> Option<&Aside> {
        let Some(Mark::Aside(aside)) = &self.comment.mark else {
            return None;
        };
        let is_it = aside.oid == self.oid && self.name == kept_name(&aside.database, &aside.run);
        is_it.then_some(aside)
    }

    /// Whether a run that was to replace `name` died before it could mark what it had made: it has a name
    /// that only we give, no comment, and the limit that it was made with. Where the name was cut it may be
    /// on the way to another one.
    pub(super) fn is_unmarked_for(&self, name: &str) -> bool {
        let run = self.name.strip_prefix(name);
        let run = run.and_then(|rest| rest.strip_prefix("__new_"));
        !self.allows_connections
            && self.connection_limit == UNMARKED_LIMIT
            && self.comment == Comment::default()
            && run.is_some_and(|run| run.parse::<RunId>().is_ok())
    }

    /// What it is to replace, if it still has the name that it was made under.
    pub(super) fn way(&self) -> Option<&Way> {
        match &self.comment.mark {
            Some(Mark::Newcomer { way, .. })
                if self.name == newcomer_name(&way.database, &way.run) =>
            {
                Some(way)
            }
            _ => None,
        }
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
        Ok(Session {
            text: who(row)?,
            may_end: row.try_get(3)?,
        })
    };
    let sessions: Result<_, sqlx::Error> = rows.iter().map(session).collect();
    sessions.map_err(failed())
}

/// Who has a lock on the database itself, other than by being in it.
pub(super) async fn holders(
    connection: &mut PgConnection,
    database: &Database,
) -> Result<Vec<String>, Error> {
    let failed = || Error::query("list who holds the database");
    let rows = sqlx::query(
        "SELECT a.pid, coalesce(a.usename::text, a.backend_type), a.application_name
         FROM pg_locks l JOIN pg_stat_activity a USING (pid)
         WHERE l.locktype = 'object' AND l.classid = 'pg_database'::regclass AND l.objid = $1
           AND l.granted AND a.pid <> pg_backend_pid()",
    )
    .bind(database.sql_oid())
    .fetch_all(connection)
    .await
    .map_err(failed())?;
    let holders: Result<_, sqlx::Error> = rows.iter().map(who).collect();
    holders.map_err(failed())
}

fn who(row: &PgRow) -> Result<String, sqlx::Error> {
    let (pid, who): (i32, Option<String>) = (row.try_get(0)?, row.try_get(1)?);
    let who = who.unwrap_or_else(|| "somebody".to_owned());
    let application: Option<String> = row.try_get(2)?;
    let application = application.filter(|text| !text.is_empty());
    let application = application.map(|text| format!(" ({text})"));
    Ok(format!(
        "{who}{}, pid {pid}",
        application.unwrap_or_default()
    ))
}

/// Ends those in the database that may be ended, if `holder` keeps newcomers out by now.
pub(super) async fn end_sessions(
    connection: &mut PgConnection,
    database: &Database,
    holder: i32,
) -> Result<(), Error> {
    sqlx::query(
        "SELECT CASE WHEN me.rolsuper OR NOT coalesce(r.rolsuper, true)
                  AND (pg_has_role(r.oid, 'USAGE') OR pg_has_role('pg_signal_backend', 'USAGE'))
                THEN pg_terminate_backend(a.pid) END
         FROM pg_stat_activity a LEFT JOIN pg_roles r ON r.oid = a.usesysid,
              (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) me
         WHERE a.datid = $1 AND a.pid <> pg_backend_pid()
           AND coalesce(a.backend_type, a.usesysid::text, 'autovacuum worker')
               <> 'autovacuum worker'
           AND EXISTS (SELECT FROM pg_locks l WHERE l.pid = $2 AND l.locktype = 'object'
                       AND l.classid = 'pg_database'::regclass AND l.objid = $1
                       AND l.mode = 'AccessExclusiveLock' AND l.granted)",
    )
    .bind(database.sql_oid())
    .bind(holder)
    .execute(connection)
    .await
    .map(drop)
    .map_err(Error::query("end the sessions of the database"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: &str = "20260205T030000Z-0123abcd";

    fn unmarked(name: String) -> Database {
        Database {
            oid: 20_000,
            name,
            comment: Comment::default(),
            is_template: false,
            allows_connections: false,
            connection_limit: UNMARKED_LIMIT,
        }
    }

    #[test]
    fn only_what_nobody_was_ever_in_is_unmarked() {
        let made = unmarked(format!("shop__new_{RUN}"));
        assert!(made.is_unmarked_for("shop"));
        assert!(!made.is_unmarked_for("sho"));
        assert!(!made.is_unmarked_for("shop__new"));
        // Somebody kept a restored database, took away its mark and closed it.
        let closed = Database {
            connection_limit: -1,
            ..made.clone()
        };
        assert!(!closed.is_unmarked_for("shop"));
        let open = Database {
            allows_connections: true,
            ..made.clone()
        };
        assert!(!open.is_unmarked_for("shop"));
        let told = Database {
            comment: Comment::parse(Some("mine")),
            ..made
        };
        assert!(!told.is_unmarked_for("shop"));
        assert!(!unmarked("shop__new_one".to_owned()).is_unmarked_for("shop"));
    }

    #[test]
    fn a_name_that_was_cut_may_be_on_the_way_to_another() {
        let run = RUN.parse().unwrap();
        let (one, other) = ("a".repeat(60) + "1", "a".repeat(60) + "2");
        assert_eq!(newcomer_name(&one, &run), newcomer_name(&other, &run));
        let made = unmarked(newcomer_name(&one, &run));
        assert!(!made.is_unmarked_for(&one) && !made.is_unmarked_for(&other));
    }
}
