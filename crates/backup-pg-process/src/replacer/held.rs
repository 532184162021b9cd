//! The lock on a name. The server drops it with the session, however that ends.

use sqlx::postgres::PgConnection;

use super::{ReplaceError, connect};
use crate::session::KeptAlive;
use crate::{ConnectionConfig, Error};

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

/// The session that has it.
#[derive(Debug)]
pub(super) struct Held(pub(super) KeptAlive);

impl Held {
    /// Takes it or fails at once.
    pub(super) async fn take(config: &ConnectionConfig, name: &str) -> Result<Self, ReplaceError> {
        let mut connection = connect(config).await?;
        match try_lock(&mut connection, name).await? {
            None => Ok(Self(KeptAlive::new(connection))),
            Some(holder) => Err(ReplaceError::Held {
                database: name.to_owned(),
                holder,
            }),
        }
    }
}

/// Takes the lock until the session ends, or says who has it.
pub(super) async fn try_lock(
    connection: &mut PgConnection,
    name: &str,
) -> Result<Option<String>, Error> {
    let failed = || Error::query("reserve the database");
    let key = format!("backup-manager replaces database {name}");
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
