//! What exists in the restored database.

use std::collections::{BTreeMap, HashMap};

use backup_core::facts::{Fingerprint, SequenceFacts, TableFacts, TableName};
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Row as _};

use crate::Error;
use crate::inspector::table_name;

/// How many sequences one query reads.
const SEQUENCES_AT_ONCE: usize = 200;

/// Names come twice: as the dump has them, in the database's encoding, and as SQL for us. The last
/// three columns are the topmost ancestor that is partitioned by hash, which rows of an extension's
/// table are dumped, because they are not the extension's own, and whether policies hold for us who
/// own the table.
/// <https://www.postgresql.org/docs/current/extend-extensions.html#EXTEND-EXTENSIONS-CONFIG-TABLES>
const RELATIONS: &str = "
SELECT convert_to(n.nspname, getdatabaseencoding()), convert_to(c.relname, getdatabaseencoding()),
       format('%I.%I', n.nspname, c.relname), c.relkind = 'S',
       coalesce(a.amname = 'heap', false), c.relpages::int8,
       (SELECT t.partrelid::int8 FROM pg_partition_ancestors(c.oid)
                                      WITH ORDINALITY AS p(relid, level)
        JOIN pg_partitioned_table t ON t.partrelid = p.relid AND t.partstrat = 'h'
        ORDER BY level DESC LIMIT 1),
       (SELECT e.extcondition[i] FROM pg_extension e, generate_subscripts(e.extconfig, 1) AS i
        WHERE e.extconfig[i] = c.oid LIMIT 1),
       c.relrowsecurity AND c.relforcerowsecurity AND pg_has_role(c.relowner, 'USAGE')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_am a ON a.oid = c.relam
WHERE c.relkind IN ('r', 'p', 'S', 'f', 'm') AND n.nspname !~ '^pg_(toast|temp)'";

/// One table or sequence.
#[derive(Debug)]
pub(super) struct Relation {
    /// Schema and name, quoted.
    pub(super) sql_name: String,
    /// Whether it can be read in ranges of blocks.
    pub(super) is_heap: bool,
    /// Its blocks when it was last analysed.
    pub(super) pages: u64,
    /// `WHERE` and a condition, where only some of its rows are dumped.
    pub(super) condition: Option<String>,
    /// Whether its policies would keep its owner from reading it.
    pub(super) is_forced: bool,
    hash_root: Option<i64>,
}

/// The restored tables and sequences.
#[derive(Debug)]
pub(super) struct Catalog {
    tables: HashMap<TableName, Relation>,
    sequences: HashMap<TableName, Relation>,
}

impl Catalog {
    pub(super) async fn read(connection: &mut PgConnection) -> Result<Self, Error> {
        let failed = || Error::query("list the restored tables");
        let rows = sqlx::query(RELATIONS)
            .fetch_all(connection)
            .await
            .map_err(failed())?;
        let mut catalog = Self {
            tables: HashMap::new(),
            sequences: HashMap::new(),
        };
        for row in &rows {
            let (name, is_sequence, relation) = relation(row).map_err(failed())?;
            if is_sequence {
                catalog.sequences.insert(name, relation);
            } else {
                catalog.tables.insert(name, relation);
            }
        }
        Ok(catalog)
    }

    /// A table or materialized view, if it exists.
    pub(super) fn table(&self, name: &TableName) -> Option<&Relation> {
        self.tables.get(name)
    }

    /// The state of those sequences that exist.
    pub(super) async fn sequences(
        &self,
        connection: &mut PgConnection,
        dumped: &[SequenceFacts],
    ) -> Result<Vec<SequenceFacts>, Error> {
        let existing: Vec<(&TableName, &Relation)> = dumped
            .iter()
            .filter_map(|facts| Some((&facts.sequence, self.sequences.get(&facts.sequence)?)))
            .collect();
        let failed = || Error::query("read the sequences");
        let mut states = Vec::with_capacity(existing.len());
        for chunk in existing.chunks(SEQUENCES_AT_ONCE) {
            let queries: Vec<String> = chunk
                .iter()
                .enumerate()
                .map(|(position, (_, relation))| {
                    let name = &relation.sql_name;
                    format!("SELECT {position}::int8, last_value, is_called FROM {name}")
                })
                .collect();
            let rows: Vec<(i64, i64, bool)> =
                sqlx::query_as(AssertSqlSafe(queries.join(" UNION ALL ")))
                    .fetch_all(&mut *connection)
                    .await
                    .map_err(failed())?;
            for (position, last_value, is_called) in rows {
                let position = usize::try_from(position).unwrap_or_default();
                if let Some((name, _)) = chunk.get(position) {
                    states.push(SequenceFacts {
                        sequence: (*name).clone(),
                        last_value,
                        is_called,
                    });
                }
            }
        }
        Ok(states)
    }

    /// Rows partitioned by hash can come to lie in other partitions than they were dumped from: the
    /// hash of an enum value, for one, depends on the database. `pg_dump` therefore loads them
    /// through the parent. Where the partitions of one parent differ but hold the same rows
    /// together, each is reported as it was dumped.
    pub(super) fn settle_hash_partitions(
        &self,
        dumped: &BTreeMap<TableName, TableFacts>,
        read: &mut BTreeMap<TableName, Result<Fingerprint, String>>,
    ) {
        let mut families = HashMap::<i64, Vec<&TableName>>::new();
        for name in dumped.keys() {
            if let Some(root) = self.table(name).and_then(|relation| relation.hash_root) {
                families.entry(root).or_default().push(name);
            }
        }
        for family in families.values() {
            let (mut expected, mut found) = (Fingerprint::default(), Fingerprint::default());
            let mut complete = true;
            for name in family {
                expected += dumped[*name].fingerprint;
                match read.get(*name) {
                    Some(Ok(fingerprint)) => found += *fingerprint,
                    _ => complete = false,
                }
            }
            if complete && expected == found {
                for name in family {
                    read.insert((*name).clone(), Ok(dumped[*name].fingerprint));
                }
            }
        }
    }
}

fn relation(row: &PgRow) -> Result<(TableName, bool, Relation), sqlx::Error> {
    let (schema, name): (Vec<u8>, Vec<u8>) = (row.try_get(0)?, row.try_get(1)?);
    let pages: i64 = row.try_get(5)?;
    let relation = Relation {
        sql_name: row.try_get(2)?,
        is_heap: row.try_get(4)?,
        pages: u64::try_from(pages).unwrap_or(0),
        hash_root: row.try_get(6)?,
        condition: row
            .try_get::<Option<String>, _>(7)?
            .filter(|condition| !condition.is_empty()),
        is_forced: row.try_get(8)?,
    };
    Ok((table_name(&schema, &name), row.try_get(3)?, relation))
}
