//! `amcheck` on every table and index of a database.
//!
//! The login that restored runs it: a superuser only makes the extension and allows it. Checking an
//! index on expressions runs functions of the backup.
//! <https://www.postgresql.org/docs/current/amcheck.html>

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use backup_core::drill::{StructureProblem, StructureReport};
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;
use tokio::task::JoinSet;

use crate::session::execute;
use crate::{ConnectionConfig, Error, Rehearsal, quote_ident};

/// As in the load: what works only with another search path is broken.
const SETTINGS: &str = "
SET search_path = pg_catalog, pg_temp; SET statement_timeout = 0; SET lock_timeout = '60s';
SET idle_in_transaction_session_timeout = 0; SET jit = off; SET default_transaction_read_only = on";

/// Valid indexes of the kind that can be checked, and tables; with those of TOAST, large ones first.
const OBJECTS: &str = "
SELECT c.oid::int8, n.nspname::text, c.relname::text, c.relkind = 'i'
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_am AS am ON am.oid = c.relam
LEFT JOIN pg_index AS i ON i.indexrelid = c.oid
WHERE c.relpersistence <> 't' AND c.oid >= 16384
  AND (c.relkind = 'i' AND am.amname = 'btree' AND i.indisvalid AND i.indisready
       OR c.relkind IN ('r', 'm', 't') AND am.amname = 'heap')
ORDER BY c.relpages DESC, c.oid";

/// How many things wrong with one table are told.
const TOLD: i64 = 20;

#[derive(Debug)]
pub(super) struct Check {
    pub(super) rehearsal: Rehearsal,
    pub(super) login: ConnectionConfig,
    pub(super) database: String,
    /// A name for the extension's schema that nobody has.
    pub(super) schema: String,
    pub(super) jobs: usize,
}

#[derive(Debug)]
struct Object {
    oid: i64,
    name: String,
    is_index: bool,
}

type Queue = Arc<Mutex<VecDeque<Object>>>;

impl Check {
    pub(super) async fn run(&self) -> Result<StructureReport, Error> {
        let mut admin = self.rehearsal.admin_in(&self.database).await?;
        let Some(schema) = self.extension(&mut admin).await? else {
            return Ok(StructureReport {
                unavailable: Some("the extension amcheck is not installed".to_owned()),
                ..StructureReport::default()
            });
        };
        let objects: Vec<(i64, String, String, bool)> = sqlx::query_as(OBJECTS)
            .fetch_all(&mut admin)
            .await
            .map_err(Error::query("list tables and indexes"))?;
        let objects = objects
            .into_iter()
            .map(|(oid, schema, name, is_index)| Object {
                oid,
                name: format!("{schema}.{name}"),
                is_index,
            });
        let queue: Queue = Arc::new(Mutex::new(objects.collect()));
        let mut workers = JoinSet::new();
        for _ in 0..self.jobs {
            let (login, database) = (self.login.clone(), self.database.clone());
            let (schema, queue) = (schema.clone(), Arc::clone(&queue));
            workers.spawn(async move {
                let mut connection = login.connect(&database).await?;
                execute(&mut connection, SETTINGS, "prepare the check").await?;
                work(connection, &schema, &queue).await
            });
        }
        let mut report = StructureReport::default();
        while let Some(joined) = workers.join_next().await {
            let found =
                joined.unwrap_or_else(|e| Err(Error::corrupt(format!("a check died: {e}"))))?;
            report.indexes += found.indexes;
            report.tables += found.tables;
            report.problems.extend(found.problems);
        }
        report.problems.sort_by(|a, b| a.object.cmp(&b.object));
        Ok(report)
    }

    /// The schema of the extension, which the login may use then.
    async fn extension(&self, admin: &mut PgConnection) -> Result<Option<String>, Error> {
        let offered: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'amcheck')",
        )
        .fetch_one(&mut *admin)
        .await
        .map_err(Error::query("look for amcheck"))?;
        if !offered {
            return Ok(None);
        }
        let own = quote_ident(&self.schema);
        let sql = format!(
            "CREATE SCHEMA {own}; CREATE EXTENSION IF NOT EXISTS amcheck WITH SCHEMA {own}"
        );
        execute(admin, sql, "make the extension amcheck").await?;
        let schema: String = sqlx::query_scalar(
            "SELECT n.nspname::text FROM pg_extension AS e
             JOIN pg_namespace AS n ON n.oid = e.extnamespace WHERE e.extname = 'amcheck'",
        )
        .fetch_one(&mut *admin)
        .await
        .map_err(Error::query("look for amcheck"))?;
        let (schema, login) = (quote_ident(&schema), quote_ident(&self.login.user));
        let sql = format!(
            "GRANT USAGE ON SCHEMA {schema} TO {login};
             GRANT EXECUTE ON FUNCTION {schema}.bt_index_check(regclass, boolean) TO {login};
             GRANT EXECUTE ON FUNCTION {schema}.verify_heapam(
                 regclass, boolean, boolean, text, bigint, bigint) TO {login}"
        );
        execute(admin, sql, "allow the check").await?;
        Ok(Some(schema))
    }
}

async fn work(
    mut connection: PgConnection,
    schema: &str,
    queue: &Queue,
) -> Result<StructureReport, Error> {
    let mut report = StructureReport::default();
    loop {
        let next = queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front();
        let Some(object) = next else {
            return Ok(report);
        };
        let found = if object.is_index {
            report.indexes += 1;
            let sql = format!("SELECT {schema}.bt_index_check($1::oid::regclass, true)");
            let checked = sqlx::query(AssertSqlSafe(sql)).bind(object.oid);
            checked.execute(&mut connection).await.map(|_| Vec::new())
        } else {
            report.tables += 1;
            let sql = format!(
                "SELECT format('block %s, item %s: %s', blkno, coalesce(offnum, 0), msg)
                 FROM {schema}.verify_heapam($1::oid::regclass, false, true, 'none', NULL, NULL)
                 LIMIT {TOLD}"
            );
            let checked = sqlx::query_scalar(AssertSqlSafe(sql)).bind(object.oid);
            checked.fetch_all(&mut connection).await
        };
        let problems = match found {
            Ok(problems) => problems,
            Err(error) => match error.as_database_error() {
                Some(database) => vec![database.message().to_owned()],
                None => return Err(Error::query(format!("check {}", object.name))(error)),
            },
        };
        let told = problems.into_iter().map(|problem| StructureProblem {
            object: object.name.clone(),
            problem,
        });
        report.problems.extend(told);
    }
}
