//! From a database through a backup into another database, and nothing is lost on the way.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use backup_e2e::cli::Running;
use backup_e2e::pg::{Cluster, ClusterOptions, quote_identifier};
use backup_e2e::sample;
use backup_e2e::vault::{Vault, id_of};
use rstest::rstest;
use serde_json::{Value, json};

/// Counts that `backup --json` reports, by SQL. Members of extensions are created by them; an index
/// that a constraint makes comes with it; a partition has the triggers of its parent.
const COUNTS: &str = "
WITH relation AS (
  SELECT c.* FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass
                    AND d.objid = c.oid AND d.deptype = 'e'))
SELECT json_build_object(
  'tables', (SELECT count(*) FROM relation WHERE relkind = 'r'),
  'rows', (SELECT coalesce(sum((xpath('/row/n/text()', query_to_xml(
             format('SELECT count(*) AS n FROM ONLY %s', oid::regclass), false, true, ''
           )))[1]::text::bigint), 0) FROM relation WHERE relkind = 'r'),
  'indexes', (SELECT count(*) FROM relation WHERE relkind IN ('i', 'I') AND NOT EXISTS (
               SELECT FROM pg_constraint k
               WHERE k.conindid = relation.oid AND k.contype IN ('p', 'u', 'x'))),
  'triggers', (SELECT count(*) FROM pg_trigger t LEFT JOIN pg_trigger p ON p.oid = t.tgparentid
               WHERE CASE WHEN p.oid IS NULL THEN NOT t.tgisinternal
                          ELSE t.tgenabled <> p.tgenabled END),
  'sequences', (SELECT count(*) FROM relation WHERE relkind = 'S'))";

/// What belongs to the database itself, which no schema dump shows.
const PROPERTIES: &str = "
SELECT json_build_object(
  'owner', pg_get_userbyid(datdba), 'encoding', pg_encoding_to_char(encoding),
  'collate', datcollate, 'ctype', datctype, 'limit', datconnlimit,
  'comment', shobj_description(d.oid, 'pg_database'),
  'grants', (SELECT json_agg(g::text ORDER BY g::text) FROM unnest(datacl) AS g),
  'settings', (SELECT json_agg(json_build_array(setrole::regrole, setconfig) ORDER BY setrole)
               FROM pg_db_role_setting WHERE setdatabase = d.oid))
FROM pg_database d WHERE datname = current_database()";

const QUIET: [&str; 0] = [];

fn counts(cluster: &Cluster, database: &str) -> Result<Value> {
    Ok(serde_json::from_str(&cluster.query(database, COUNTS)?)?)
}

/// Asserts that `restored` is `original` again, by every means that shares no code with the
/// program.
fn assert_same(cluster: &Cluster, original: &str, restored: &str) -> Result<()> {
    assert_eq!(cluster.contents(original)?, cluster.contents(restored)?);
    assert_eq!(
        cluster.schema_dump(original)?,
        cluster.schema_dump(restored)?
    );
    assert_eq!(
        cluster.query(original, PROPERTIES)?,
        cluster.query(restored, PROPERTIES)?
    );
    Ok(())
}

/// Asserts that the program's own comparison found all `tables` equal.
fn assert_compared(restore: &Value, tables: &Value) {
    let compare = &restore["compare"];
    assert_eq!(
        (&compare["tables"], &compare["equal"]),
        (tables, tables),
        "{restore}"
    );
    for empty in ["different", "missing", "not_comparable", "sequences_behind"] {
        assert_eq!(compare[empty], json!([]), "{restore}");
    }
}

fn everything(cluster: &Cluster) -> Result<String> {
    let database = cluster.fresh_db("everything")?;
    cluster.psql(&database, &sample::everything_sql(cluster.major()))?;
    Ok(database)
}

#[rstest]
#[ignore = "needs servers: run ./scripts/test"]
fn every_kind_of_object_survives(#[values(14, 15, 16, 17, 18)] major: u16) -> Result<()> {
    let cluster = Cluster::shared(major)?;
    let vault = Vault::seaweedfs(cluster)?;
    let database = everything(cluster)?;
    let expected = counts(cluster, &database)?;
    assert!(expected["rows"].as_u64() > Some(8000), "{expected}");

    let backup = vault.back_up(&database, &["--jobs", "4"])?;
    for (what, number) in expected.as_object().context("counts")? {
        assert_eq!(&backup[what], number, "{what} of PostgreSQL {major}");
    }
    assert_eq!(backup["error"], Value::Null);
    let warnings = backup["warnings"].as_array().context("warnings")?;
    assert!(
        matches!(warnings.as_slice(), [one] if one.to_string().contains("foreign table")),
        "{warnings:?}"
    );
    let id = id_of(&backup)?;
    vault.verify(id)?;

    let target = format!("{database} restored");
    let restore = vault.restore(id, &target, &[])?;
    assert_same(cluster, &database, &target)?;
    assert_compared(&restore, &backup["tables"]);
    assert_eq!(restore["compare"]["rows"], backup["rows"]);
    assert_eq!(restore["compare"]["large_objects_equal"], true);
    Ok(())
}
