//! What logins may do that run, or meet, code of whoever owned a backup.

use sqlx::postgres::PgConnection;

use crate::Error;

/// Whether the login of a session is a superuser, or can become what only a superuser should be:
/// code of a backup can become every role that the login is a member of.
pub(crate) async fn is_powerful(connection: &mut PgConnection) -> Result<bool, Error> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM pg_roles r WHERE pg_has_role(r.oid, 'MEMBER')
                  AND (r.rolsuper OR r.rolcreaterole OR r.rolreplication OR r.rolbypassrls
                       OR r.rolname IN ('pg_execute_server_program', 'pg_write_server_files',
                                        'pg_read_server_files')))",
    )
    .fetch_one(connection)
    .await
    .map_err(Error::query("ask what the login may do"))
}
