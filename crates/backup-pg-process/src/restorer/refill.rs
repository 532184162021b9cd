//! Content into definitions that are there already: what has to be taken out of the way, and what
//! is to be undone.
//!
//! Only a database that a restore of the definitions of the same backup has made is filled, and only
//! while all its tables are empty. It was there before this run, so this run never drops it: when it
//! fails, the tables are emptied again.

use std::collections::{BTreeSet, HashSet};
use std::sync::Mutex;

use backup_core::facts::{Facts, TableName};
use backup_pg_archive::{DumpText, TocEntry};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _};

use super::error::RestoreError;
use super::target::Target;
use crate::inspector::{table_name, text_of};
use crate::mark::Mark;
use crate::session::execute;
use crate::{Error, advisory, quote_ident, quote_literal};

/// How many tables one query looks at.
const TABLES_AT_ONCE: usize = 200;

/// Tables that a dump may have rows of, as SQL. Members of extensions come with rows of theirs.
const TABLES: &str = "
SELECT format('%I.%I', n.nspname, c.relname)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname !~ '^pg_'
  AND n.nspname <> 'information_schema'
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass
                  AND d.objid = c.oid AND d.deptype = 'e')
ORDER BY 1";

/// What acts on rows, as archives name it, and how to take it away. Event triggers go first: they
/// would see the rest.
const ACTING: &str = "
SELECT kind, convert_to(schema, getdatabaseencoding()), convert_to(name, getdatabaseencoding()), sql
FROM (
  SELECT 1 AS rank, 'EVENT TRIGGER' AS kind, '' AS schema, evtname::text AS name,
         format('DROP EVENT TRIGGER %I', evtname) AS sql
  FROM pg_event_trigger
  UNION ALL
  SELECT 2, CASE k.contype WHEN 'f' THEN 'FK CONSTRAINT' ELSE 'CHECK CONSTRAINT' END, n.nspname,
         c.relname || ' ' || k.conname,
         format('ALTER TABLE %I.%I DROP CONSTRAINT %I', n.nspname, c.relname, k.conname)
  FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
  JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE k.contype IN ('f', 'c') AND k.conparentid = 0 AND k.conislocal
  UNION ALL
  SELECT 2, 'CHECK CONSTRAINT', n.nspname, t.typname || ' ' || k.conname,
         format('ALTER DOMAIN %I.%I DROP CONSTRAINT %I', n.nspname, t.typname, k.conname)
  FROM pg_constraint k JOIN pg_type t ON t.oid = k.contypid
  JOIN pg_namespace n ON n.oid = t.typnamespace
  WHERE k.contype = 'c'
  UNION ALL
  SELECT 2, 'TRIGGER', n.nspname, c.relname || ' ' || t.tgname,
         format('DROP TRIGGER %I ON %I.%I', t.tgname, n.nspname, c.relname)
  FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
  JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE NOT t.tgisinternal AND t.tgparentid = 0
  UNION ALL
  SELECT 2, 'ROW SECURITY', n.nspname, c.relname,
         format('ALTER TABLE %I.%I DISABLE ROW LEVEL SECURITY', n.nspname, c.relname)
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relrowsecurity
) AS acting ORDER BY rank, kind, schema, name";

/// Kind, schema and name of something that acts on rows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct SetAside {
    kind: String,
    schema: String,
    name: String,
}

impl SetAside {
    /// What the entry makes, if that acts on rows.
    pub(crate) fn of(entry: &TocEntry) -> Option<Self> {
        let acts = matches!(
            entry.desc.as_bytes(),
            b"EVENT TRIGGER"
                | b"TRIGGER"
                | b"FK CONSTRAINT"
                | b"CHECK CONSTRAINT"
                | b"ROW SECURITY"
        );
        let schema = entry.namespace.as_ref();
        acts.then(|| Self {
            kind: entry.desc.to_string(),
            schema: text_of(schema.map_or(&b""[..], DumpText::as_bytes)),
            name: text_of(entry.tag.as_bytes()),
        })
    }
}

/// A database that is filled.
#[derive(Debug)]
pub(crate) struct Refill {
    target: Target,
    aside: HashSet<SetAside>,
    /// Tables with content, and whether there are large objects.
    tables: Vec<TableName>,
    large_objects: bool,
    views: Vec<TableName>,
    sequences: Vec<TableName>,
    /// Holds the right to fill it, for as long as it lives.
    _claim: Mutex<PgConnection>,
}

impl Refill {
    /// Claims the target, and refuses one that is not to be filled.
    pub(crate) async fn new(
        target: &Target,
        made_by: &str,
        facts: &Facts,
        entries: impl Iterator<Item = &TocEntry> + Clone,
    ) -> Result<Self, RestoreError> {
        let refused = |reason: &str| RestoreError::NotFillable {
            database: target.name.clone(),
            reason: reason.to_owned(),
        };
        match target.read_mark().await? {
            None => return Err(refused("it does not exist")),
            Some(Some(mark)) if mark.unfinished_restore().is_some() => {
                return Err(refused("the restore that made it did not finish"));
            }
            Some(Some(Mark::Made(made))) if made.starts_with(made_by) => {}
            Some(_) => {
                return Err(refused(
                    "it was not made by a restore of the definitions of this backup",
                ));
            }
        }
        let mut connection = target.connect().await?;
        // Released with the connection.
        let lock = format!("fills database {}", target.name);
        if let Some(holder) = advisory::try_lock(&mut connection, &lock).await? {
            return Err(refused(&format!("another restore is filling it: {holder}")));
        }
        execute(
            &mut connection,
            // A policy that hides rows would make a table look empty: without this right the
            // server refuses instead.
            "SET idle_session_timeout = 0; SET row_security = off",
            "keep the claim",
        )
        .await?;
        if let Some(user) = other_user(&mut connection).await? {
            return Err(refused(&format!("{user} is connected to it")));
        }
        let members = members(&mut connection).await?;
        if let Some(filled) = filled(&mut connection, facts).await? {
            return Err(refused(&format!("{filled} is not empty")));
        }
        Ok(Self {
            target: target.clone(),
            aside: entries.clone().filter_map(SetAside::of).collect(),
            // Rows of an extension's own are not ours to remove.
            tables: facts
                .tables()
                .into_keys()
                .filter(|table| !members.contains(&quoted(table)))
                .collect(),
            large_objects: facts.large_objects().is_some(),
            views: entries
                .filter(|entry| entry.desc == "MATERIALIZED VIEW DATA")
                .map(super::toc_list::name_of)
                .collect(),
            sequences: facts
                .parts
                .values()
                .flat_map(|part| &part.sequences)
                .map(|facts| facts.sequence.clone())
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect(),
            _claim: Mutex::new(connection),
        })
    }

    /// Takes away what acts on rows and is made again after them; nothing else.
    pub(crate) async fn set_aside(&self) -> Result<(), RestoreError> {
        let mut connection = self.target.connect().await?;
        let acting: Vec<(String, Vec<u8>, Vec<u8>, String)> = sqlx::query_as(ACTING)
            .fetch_all(&mut connection)
            .await
            .map_err(Error::query("list what acts on rows"))?;
        let mut statements = Vec::new();
        for (kind, schema, name, sql) in acting {
            let TableName { schema, name } = table_name(&schema, &name);
            if self.aside.contains(&SetAside { kind, schema, name }) {
                statements.push(sql);
            }
        }
        // What is sent together is one transaction.
        if !statements.is_empty() {
            let operation = "set aside what acts on rows";
            execute(&mut connection, statements.join(";\n"), operation).await?;
        }
        Ok(connection
            .close()
            .await
            .map_err(Error::query("disconnect"))?)
    }

    /// Empties what was loaded. What acts on rows must be set aside.
    pub(crate) async fn empty(&self) -> Result<(), RestoreError> {
        let mut connection = self.target.connect().await?;
        let operation = "empty the tables again";
        let names: Vec<String> = self.tables.iter().map(quoted).collect();
        if !names.is_empty() {
            // A table that is not selected may refer to one that is.
            let truncate = format!("TRUNCATE ONLY {}", names.join(", ONLY "));
            if execute(&mut connection, truncate, operation).await.is_err() {
                let deletes = names.iter().map(|name| format!("DELETE FROM ONLY {name};"));
                execute(&mut connection, deletes.collect::<String>(), operation).await?;
            }
        }
        let sequences = self.sequences.iter().map(quoted);
        let restart = sequences.map(|sequence| format!("ALTER SEQUENCE {sequence} RESTART;"));
        let views = self.views.iter().map(quoted);
        let views = views.map(|view| format!("REFRESH MATERIALIZED VIEW {view} WITH NO DATA;"));
        let mut rest: String = views.chain(restart).collect();
        if self.large_objects {
            rest.push_str("SELECT lo_unlink(oid) FROM pg_largeobject_metadata;");
        }
        if !rest.is_empty() {
            execute(&mut connection, rest, operation).await?;
        }
        Ok(())
    }
}

/// Somebody else in the database, who could write to it while it is filled.
async fn other_user(connection: &mut PgConnection) -> Result<Option<String>, Error> {
    sqlx::query_scalar(
        "SELECT coalesce(usename::text, 'somebody') || ', pid ' || pid FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid()
           AND coalesce(backend_type, usesysid::text, 'autovacuum worker') <> 'autovacuum worker'
         LIMIT 1",
    )
    .fetch_optional(connection)
    .await
    .map_err(Error::query("see who is connected"))
}

/// Tables of extensions, as SQL.
async fn members(connection: &mut PgConnection) -> Result<HashSet<String>, Error> {
    let names: Vec<(String, String)> = sqlx::query_as(
        "SELECT n.nspname::text, c.relname::text
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid
         WHERE d.deptype = 'e'",
    )
    .fetch_all(connection)
    .await
    .map_err(Error::query("list the tables of extensions"))?;
    let names = names.into_iter();
    let names = names.map(|(schema, name)| quoted(&TableName { schema, name }));
    Ok(names.collect())
}

/// The first thing that is not empty.
async fn filled(connection: &mut PgConnection, facts: &Facts) -> Result<Option<String>, Error> {
    let failed = || Error::query("see whether the tables are empty");
    let tables: Vec<String> = sqlx::query_scalar(TABLES)
        .fetch_all(&mut *connection)
        .await
        .map_err(failed())?;
    for chunk in tables.chunks(TABLES_AT_ONCE) {
        let queries: Vec<String> = chunk
            .iter()
            .map(|name| {
                let literal = quote_literal(name);
                format!("SELECT {literal} WHERE EXISTS (SELECT FROM ONLY {name})")
            })
            .collect();
        let sql = format!("{} LIMIT 1", queries.join(" UNION ALL "));
        let filled: Option<String> = sqlx::query_scalar(AssertSqlSafe(sql))
            .fetch_optional(&mut *connection)
            .await
            .map_err(failed())?;
        if let Some(table) = filled {
            return Ok(Some(format!("table {table}")));
        }
    }
    if facts.large_objects().is_none() {
        return Ok(None);
    }
    let objects: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_largeobject_metadata)")
        .fetch_one(connection)
        .await
        .map_err(failed())?;
    Ok(objects.then(|| "its store of large objects".to_owned()))
}

fn quoted(table: &TableName) -> String {
    format!(
        "{}.{}",
        quote_ident(&table.schema),
        quote_ident(&table.name)
    )
}
