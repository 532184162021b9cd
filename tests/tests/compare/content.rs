//! Rows: one value, one row, two values that changed places.

use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};

use anyhow::{Context as _, Result};
use backup_e2e::pg::Cluster;
use backup_e2e::vault::{Vault, id_of};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};

use crate::Restored;

/// A type, and the value of a number as an expression; different numbers give different values.
const TYPES: [(&str, &str); 11] = [
    ("int", "$n"),
    ("bigint", "$n * 1000000000000"),
    ("numeric", "$n + 0.50"),
    ("text", "E'row\\n\\t\\\\ ' || $n"),
    ("bytea", "decode(md5($n::text), 'hex')"),
    ("float8", "$n / 7.0"),
    (
        "timestamptz",
        "timestamptz '2026-01-01 00:00Z' + $n * interval '1.5 s'",
    ),
    ("date", "date '0101-01-01' + $n"),
    ("jsonb", "jsonb_build_object('n', $n)"),
    ("uuid", "md5($n::text)::uuid"),
    ("text[]", "ARRAY[NULL, 'NULL', '{' || $n::text]"),
];

/// What is done to the table `$t`; `$v` is a value that it lacks.
const EDITS: [(&str, &str); 5] = [
    ("a changed value", "UPDATE $t SET p = $v WHERE id = 1"),
    ("a lost row", "DELETE FROM $t WHERE id = 1"),
    (
        "a doubled row",
        "INSERT INTO $t SELECT * FROM $t WHERE id = 1",
    ),
    (
        "columns that changed places",
        "UPDATE $t SET p = q, q = p WHERE id = 1",
    ),
    (
        "rows that changed values",
        "UPDATE $t AS t SET p = o.p FROM $t AS o WHERE (t.id, o.id) IN ((1, 2), (2, 1))",
    ),
];

/// One table: the type of `p` and `q`, those of more columns, and how many rows.
#[derive(Debug, Clone)]
struct Table {
    main: usize,
    others: Vec<usize>,
    rows: u32,
    first: u32,
}

fn table() -> impl Strategy<Value = Table> {
    let kind = 0..TYPES.len();
    let others = prop::collection::vec(kind.clone(), 0..5);
    (kind, others, 2_u32..60, 0_u32..1000).prop_map(|(main, others, rows, first)| Table {
        main,
        others,
        rows,
        first,
    })
}

impl Table {
    fn value(&self, number: &str) -> String {
        TYPES[self.main].1.replace("$n", number)
    }

    /// Rows whose `p` and `q` are all different, and whose other columns repeat themselves and have
    /// nulls.
    fn sql(&self, name: &str) -> String {
        let columns = self.others.iter().enumerate();
        let definitions: Vec<String> = columns
            .clone()
            .map(|(position, kind)| format!(", c{position} {}", TYPES[*kind].0))
            .collect();
        let values: Vec<String> = columns
            .map(|(position, kind)| {
                let value = TYPES[*kind]
                    .1
                    .replace("$n", &format!("(i % {})", position + 2));
                format!(", CASE WHEN i % 5 <> {position} THEN {value} END")
            })
            .collect();
        let (kind, first) = (TYPES[self.main].0, self.first);
        format!(
            "CREATE TABLE {name} (id int, p {kind}, q {kind}{definitions});
             INSERT INTO {name} SELECT i, {p}, {q}{values} FROM generate_series(1, {rows}) AS i;",
            definitions = definitions.concat(),
            p = self.value(&format!("(i * 2 + {first})")),
            q = self.value(&format!("(i * 2 + {first} + 1)")),
            values = values.concat(),
            rows = self.rows,
        )
    }
}

/// Restores the tables and changes one after the other.
fn every_edit_is_found(cluster: &Cluster, tables: &[Table]) -> Result<()> {
    let database = cluster.fresh_db("edited")?;
    let names: Vec<String> = (0..tables.len())
        .map(|number| format!("t{number}"))
        .collect();
    let pairs = || names.iter().zip(tables);
    let sql: Vec<String> = pairs().map(|(name, table)| table.sql(name)).collect();
    cluster.psql(&database, &sql.concat())?;
    let restored = Restored::new(cluster, &database)?;
    let report = restored.compare()?;
    assert!(report.is_equal(), "nothing was changed: {report:?}");

    let mut changed = BTreeSet::new();
    for ((name, table), (what, edit)) in pairs().zip(EDITS) {
        let edit = edit.replace("$t", name).replace("$v", &table.value("(-7)"));
        restored.change(&edit)?;
        changed.insert(format!("public.{name}"));
        let report = restored.compare()?;
        let found: BTreeSet<String> = report
            .different
            .iter()
            .map(|found| found.table.to_string())
            .collect();
        assert_eq!(found, changed, "{what}");
        assert!(!report.is_equal(), "{what}");
        assert_eq!(report.equal, report.tables - changed.len(), "{what}");
    }
    drop(restored);
    cluster.drop_db(&database)
}

/// `PROPTEST_RNG_SEED` repeats a run.
fn config() -> Config {
    let mut config = Config {
        cases: 24,
        // A case takes seconds, and every one of them is as simple as the others.
        max_shrink_iters: 0,
        failure_persistence: None,
        ..Config::default()
    };
    if config.rng_seed == RngSeed::Random {
        let random = RandomState::new().build_hasher().finish();
        config.rng_seed = RngSeed::Fixed(random);
    }
    config
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn every_change_of_rows_is_found() -> Result<()> {
    let config = config();
    eprintln!("seed: {:?}", config.rng_seed);
    let clusters = [Cluster::shared(14)?, Cluster::shared(18)?];
    let mut runner = TestRunner::new(config);
    let tables = prop::collection::vec(table(), EDITS.len()..EDITS.len() + 3);
    let cases = (0..clusters.len(), tables);
    let run = runner.run(&cases, |(cluster, tables)| {
        every_edit_is_found(clusters[cluster], &tables)
            .map_err(|error| TestCaseError::fail(format!("{error:#}")))
    });
    run.map_err(|error| anyhow::anyhow!("{error}"))
}

/// What the server refuses to read leaves the connection in order, and every other table is read.
#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_table_that_cannot_be_read_hides_no_other() -> Result<()> {
    let cluster = Cluster::shared(18)?;
    let vault = Vault::local(cluster)?;
    let database = cluster.fresh_db("unreadable")?;
    let login = format!("{database}_login");
    cluster.psql(
        &database,
        &format!(
            "CREATE ROLE {login} LOGIN CREATEDB;
             CREATE TABLE t1 AS SELECT 1 AS a; CREATE TABLE t3 AS SELECT 3 AS a;
             CREATE TABLE t2 AS SELECT repeat('x', 1000) AS a FROM generate_series(1, 100);
             ALTER TABLE t1 OWNER TO {login}; ALTER TABLE t3 OWNER TO {login};
             ALTER TABLE t2 OWNER TO {login}; REVOKE SELECT ON t2 FROM {login};
             ALTER DATABASE {database} OWNER TO {login}"
        ),
    )?;
    let backup = vault.back_up(&database, &[])?;
    let target = format!("--target-db={database}_restored");
    let restore = ["restore", id_of(&backup)?, &target, "--json"];
    let run = vault.read(&[&restore[..], &["--jobs", "1", "-U", &login]].concat())?;
    let compare = run.exits(6)?.json()?["compare"].take();
    assert_eq!(compare["equal"], 2, "{compare}");
    let unread = compare["not_comparable"].as_array().context("a list")?;
    assert!(
        matches!(unread.as_slice(), [one] if one.to_string().contains("permission denied")),
        "{compare}"
    );
    Ok(())
}

/// Policies hold for the owner too where that is forced, and would hide rows from the comparison.
#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_table_that_forces_its_policies_is_read_whole() -> Result<()> {
    for major in [14, 18] {
        let cluster = Cluster::shared(major)?;
        let vault = Vault::local(cluster)?;
        let database = cluster.fresh_db("forced")?;
        let login = format!("{database}_login");
        cluster.psql(
            &database,
            &format!(
                "CREATE ROLE {login} LOGIN CREATEDB;
                 CREATE TABLE t AS SELECT g AS a FROM generate_series(1, 99) g;
                 ALTER TABLE t ENABLE ROW LEVEL SECURITY; ALTER TABLE t FORCE ROW LEVEL SECURITY;
                 CREATE POLICY few ON t USING (a < 10)"
            ),
        )?;
        let backup = vault.back_up(&database, &[])?;
        let target = format!("{database}_restored");
        let into = format!("--target-db={target}");
        let restore = [
            "restore",
            id_of(&backup)?,
            &into,
            "--no-owner",
            "--json",
            "-U",
            &login,
        ];
        let compare = vault.read(&restore)?.exits(0)?.json()?["compare"].take();
        assert_eq!(compare["equal"], 1, "{compare}");
        let forced = "SELECT relforcerowsecurity FROM pg_class WHERE relname = 't'";
        assert_eq!(cluster.query(&target, forced)?.trim(), "t");
    }
    Ok(())
}
