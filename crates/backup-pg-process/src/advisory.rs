//! Locks on the server that only we look at. It drops them with the session, however that ends.

use sqlx::postgres::PgConnection;

use crate::Error;

/// Advisory locks belong to the database in which they are taken, and somebody else's work may
/// connect to another one: all of them are looked at. The key is one number in two halves.
/// <https://www.postgresql.org/docs/current/view-pg-locks.html>
const OTHERS: &str = "
SELECT coalesce(a.usename::text, 'somebody') || ', pid ' || l.pid
FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid),
     (SELECT hashtextextended($1, 0) AS key) k
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND l.pid <> pg_backend_pid()
  AND l.classid::int8 = ((k.key >> 32) & 4294967295) AND l.objid::int8 = (k.key & 4294967295)
LIMIT 1";

/// Takes the lock of who does `what` until the session ends, or says who has it.
pub(crate) async fn try_lock(
    connection: &mut PgConnection,
    what: &str,
) -> Result<Option<String>, Error> {
    let failed = || Error::query(format!("lock {what}"));
    let key = key(what);
    let locked: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock(hashtextextended($1, 0))")
        .bind(&key)
        .fetch_one(&mut *connection)
        .await
        .map_err(failed())?;
    let holder: Option<String> = sqlx::query_scalar(OTHERS)
        .bind(&key)
        .fetch_optional(connection)
        .await
        .map_err(failed())?;
    Ok(match (locked, holder) {
        (true, None) => None,
        (_, Some(holder)) => Some(holder),
        (false, None) => Some("somebody who has just gone".to_owned()),
    })
}

/// Lets go of that lock while the session goes on.
pub(crate) async fn unlock(connection: &mut PgConnection, what: &str) -> Result<(), Error> {
    sqlx::query("SELECT pg_advisory_unlock(hashtextextended($1, 0))")
        .bind(key(what))
        .execute(connection)
        .await
        .map(drop)
        .map_err(Error::query(format!("unlock {what}")))
}

/// Every version of the program has to come to the same.
fn key(what: &str) -> String {
    format!("backup-manager {what}")
}
