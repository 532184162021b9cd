//! What a superuser does for a restore by a login that is none: a few statements made of names.
//!
//! He works in a database that holds what the backup's owner wrote, so nothing there may get to
//! run for him: his session looks only where the server's own things are, and extensions are made
//! while there is nothing that their scripts could take for what they mean. That has been a way to
//! become superuser, again and again: <https://www.postgresql.org/support/security/CVE-2020-14350/>.

use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;

use super::error::{RestoreError, Words};
use crate::session::execute;
use crate::{ConnectionConfig, Error, quote_ident};

/// `SET` looks nothing up itself.
const SETTINGS: &str = "
SET search_path = pg_catalog, pg_temp; SET ROLE NONE; SET default_transaction_read_only = off;
SET statement_timeout = 0; SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0;
SET client_min_messages = warning";

/// Anything in a schema but what extensions brought.
const STRANGER: &str = "
SELECT pg_describe_object(d.classid, d.objid, d.objsubid)
FROM pg_depend d JOIN pg_namespace n ON n.oid = d.refobjid
WHERE d.refclassid = 'pg_namespace'::regclass
  AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  AND NOT EXISTS (SELECT FROM pg_extension e
                  WHERE d.classid = 'pg_extension'::regclass AND e.oid = d.objid)
  AND NOT EXISTS (SELECT FROM pg_depend m
                  WHERE m.classid = d.classid AND m.objid = d.objid AND m.deptype = 'e')
LIMIT 1";

/// A superuser's session in a database that is being restored.
pub(crate) async fn session(
    superuser: &ConnectionConfig,
    database: &str,
) -> Result<PgConnection, Error> {
    let mut connection = superuser.connect(database).await?;
    execute(&mut connection, SETTINGS, "prepare the superuser's session").await?;
    Ok(connection)
}

/// Refuses to make an extension beside what a script could run by mistake.
pub(crate) async fn check_empty(
    superuser: &mut PgConnection,
    extension: &str,
) -> Result<(), RestoreError> {
    let found: Option<String> = sqlx::query_scalar(STRANGER)
        .fetch_optional(superuser)
        .await
        .map_err(Error::query("look for what extensions could trip over"))?;
    match found {
        None => Ok(()),
        Some(object) => Err(RestoreError::Entry {
            what: format!("EXTENSION {extension}"),
            words: Words(format!(
                "{object} is there before it: a superuser makes extensions only while nothing else is"
            )),
        }),
    }
}

/// Makes an extension.
pub(crate) async fn make_extension(
    superuser: &mut PgConnection,
    extension: &str,
    schema: &str,
) -> Result<(), sqlx::Error> {
    let (extension, schema) = (quote_ident(extension), quote_ident(schema));
    let sql = format!("CREATE EXTENSION IF NOT EXISTS {extension} WITH SCHEMA {schema}");
    let made = sqlx::raw_sql(AssertSqlSafe(sql)).execute(superuser);
    made.await.map(drop)
}

/// Why an extension could not be made.
pub(crate) fn not_made(extension: &str, error: sqlx::Error) -> RestoreError {
    match error.as_database_error() {
        Some(database) => RestoreError::Entry {
            what: format!("EXTENSION {extension}"),
            words: Words(database.message().to_owned()),
        },
        None => Error::query(format!("make extension {extension}"))(error).into(),
    }
}
