//! What a visitor of a sandbox may read: all of it, and nobody else any of it.

use sqlx::postgres::PgConnection;

use crate::session::execute;
use crate::{Error, quote_ident};

/// Statements, made by the server of names alone: what the login owns is to be read. Row level
/// security would hide rows without a word, so it does not hold here.
const STATEMENTS: &str = "
SELECT format('GRANT USAGE ON SCHEMA %I TO %I', n.nspname, $1)
FROM pg_namespace n
WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  AND pg_has_role(n.nspowner, 'USAGE')
UNION ALL
SELECT format('GRANT SELECT ON TABLE %I.%I TO %I', n.nspname, c.relname, $1)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND c.relowner = current_user::regrole
  AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
UNION ALL
SELECT format('ALTER TABLE %I.%I DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY',
              n.nspname, c.relname)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relrowsecurity AND c.relowner = current_user::regrole
UNION ALL
SELECT format('GRANT SELECT ON LARGE OBJECT %s TO %I', m.oid, $1)
FROM pg_largeobject_metadata m
WHERE m.lomowner = current_user::regrole";

/// Lets the role of the sandbox's name in, in one transaction.
pub(super) async fn grant(own: &mut PgConnection, database: &str) -> Result<(), Error> {
    let statements: Vec<String> = sqlx::query_scalar(STATEMENTS)
        .bind(database)
        .fetch_all(&mut *own)
        .await
        .map_err(Error::query("look at what is in the sandbox"))?;
    let name = quote_ident(database);
    let doors = [
        format!("REVOKE ALL ON DATABASE {name} FROM PUBLIC"),
        format!("GRANT CONNECT ON DATABASE {name} TO {name}"),
    ];
    let all: Vec<_> = statements.into_iter().chain(doors).collect();
    let sql = format!("BEGIN; {}; COMMIT", all.join("; "));
    execute(own, sql, "let the sandbox's login read it").await
}
