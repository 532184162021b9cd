//! What a database holds, read without any of the code under test.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};

use super::Cluster;

/// The stored data of a database: one entry for each table, materialised view, sequence and large
/// object, in words that differ when the data do.
///
/// Tables and populated materialised views: the number of rows and a hash over the sorted rows,
/// which does not depend on their order in the file. A partitioned table stands for its partitions:
/// a restore may move a row to another one, as with hashes of enum values. In inheritance a parent
/// stands for the rows of its own. Sequences: the last value and whether it was handed out. Large
/// objects: size, hash and owner. Foreign tables hold nothing of their own and are left out; the
/// tables of extensions are in.
pub type Contents = BTreeMap<String, String>;

/// Writes one `SELECT` for each relation, which psql's `\gexec` then runs. Each prints one JSON
/// array, because a name may contain any separator.
///
/// Generated columns are part of the rows: they have to be the same after a restore, too.
const SCRIPT: &str = r#"
SET search_path = pg_catalog;
SET TimeZone = 'UTC';
SET DateStyle = 'ISO, YMD';
SET IntervalStyle = 'postgres';
SET extra_float_digits = 3;
SET bytea_output = 'hex';
SET row_security = off;
SELECT CASE
  WHEN c.relkind = 'S' THEN format(
    'SELECT json_build_array(%L, last_value || '' '' || is_called) FROM %I.%I',
    format('sequence %I.%I', n.nspname, c.relname), n.nspname, c.relname)
  WHEN NOT c.relispopulated THEN format(
    'SELECT json_build_array(%L, ''unpopulated'')', format('table %I.%I', n.nspname, c.relname))
  ELSE format(
    'SELECT json_build_array(%L, '
    'count(*) || '' rows '' || coalesce(md5(string_agg(h, '''' ORDER BY h)), ''-'')) '
    'FROM (SELECT md5(CAST(ROW(t.*) AS text)) COLLATE "C" AS h FROM %s %I.%I AS t) AS hashes',
    format('table %I.%I', n.nspname, c.relname),
    CASE c.relkind WHEN 'r' THEN 'ONLY' END, n.nspname, c.relname)
  END
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'm', 'S') AND NOT c.relispartition
  AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\_t%'
ORDER BY n.nspname, c.relname
\gexec
SELECT json_build_array('large object ' || oid,
       length(lo_get(oid)) || ' bytes ' || md5(lo_get(oid)) || ' of ' || pg_get_userbyid(lomowner))
FROM pg_largeobject_metadata ORDER BY oid;
"#;

pub(super) fn read(cluster: &Cluster, database: &str) -> Result<Contents> {
    let output = cluster.psql(database, SCRIPT)?;
    output
        .lines()
        .map(|line| {
            serde_json::from_str::<(String, String)>(line)
                .with_context(|| format!("psql printed {line:?}"))
        })
        .collect()
}
