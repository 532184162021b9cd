//! User mappings, whose options are names and passwords at other servers.

use sqlx::postgres::PgConnection;

use crate::Error;

/// How many have options that the login is not shown. For a login that reads their table: without that right,
/// nobody can tell a hidden option from none.
pub(crate) async fn hidden(connection: &mut PgConnection) -> Result<u64, Error> {
    let failed = || Error::query("count the user mappings");
    let count: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM pg_user_mappings seen JOIN pg_user_mapping there ON there.oid = seen.umid
         WHERE seen.umoptions IS NULL AND there.umoptions IS NOT NULL",
    )
    .fetch_one(connection)
    .await
    .map_err(failed())?;
    Ok(u64::try_from(count).unwrap_or_default())
}
