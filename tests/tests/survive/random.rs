//! Databases that nobody thought of come back as well as those that somebody did.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use backup_e2e::pg::Cluster;
use backup_e2e::vault::{Vault, id_of};
use backup_e2e::{evidence, random_db};
use rstest::rstest;
use serde_json::json;

/// How many databases of each major; `PGB_TEST_RANDOM_COUNT` says another number.
const COUNT: u64 = 6;

/// The first seed; `PGB_TEST_RANDOM_SEED` says another one.
const FIRST: u64 = 1;

/// A number that whoever runs the tests by hand says.
fn said(name: &str, default: u64) -> Result<u64> {
    #[expect(
        clippy::disallowed_methods,
        reason = "whoever runs the tests says how many"
    )]
    let said = std::env::var(name);
    said.map_or(Ok(default), |said| said.parse().context(name.to_owned()))
}

/// What was seen.
#[derive(Default)]
struct Seen {
    databases: usize,
    tables: u64,
    rows: u64,
    definitions: u64,
    ways: BTreeMap<String, usize>,
}

#[rstest]
#[ignore = "needs servers: run ./scripts/test"]
fn check_04_random_databases_come_back_equal(#[values(14, 18)] major: u16) -> Result<()> {
    let count = said("PGB_TEST_RANDOM_COUNT", COUNT)?;
    let first = said("PGB_TEST_RANDOM_SEED", FIRST)?;
    let cluster = Cluster::shared(major)?;
    cluster.psql("postgres", random_db::roles_sql())?;
    let vaults = [Vault::local(cluster)?, Vault::seaweedfs(cluster)?];
    let mut seen = Seen::default();
    for seed in first..first + count {
        // As many ways as there are combinations come by.
        let number = usize::try_from(seed)?;
        let place = number % 2;
        let compression = ["zstd:3", "gzip:6", "none"][number % 3];
        let jobs = ["1", "2", "4"][number / 2 % 3];
        let options = ["-Z", compression, "--jobs", jobs];
        come_back(cluster, &vaults[place], seed, &options, &mut seen).with_context(|| {
            format!(
                "PGB_TEST_RANDOM_SEED={seed} PGB_TEST_RANDOM_COUNT=1 on PostgreSQL {major} with {options:?}"
            )
        })?;
        let way = format!("{} {compression}", ["folder", "bucket"][place]);
        *seen.ways.entry(way).or_default() += 1;
    }
    ensure!(
        seen.rows > 0 && seen.tables > seen.databases as u64,
        "too little was seen"
    );
    evidence::note(
        4,
        format!(
            "{} random databases of PostgreSQL {major} (seeds {first} to {}) with {} tables, {} rows and {} \
             definitions restored equal beside their originals by the superuser, {} combinations of place \
             and compression",
            seen.databases,
            first + count - 1,
            seen.tables,
            seen.rows,
            seen.definitions,
            seen.ways.len()
        ),
    );
    Ok(())
}

fn come_back(
    cluster: &Cluster,
    vault: &Vault,
    seed: u64,
    options: &[&str],
    sums: &mut Seen,
) -> Result<()> {
    let database = format!("random_{seed}");
    let target = format!("random_{seed}_back");
    cluster.create_db(&database)?;
    let sql = random_db::sql(seed, cluster.major());
    cluster
        .psql(&database, &sql)
        .context("the generator made what the server refuses")?;
    let contents = cluster.contents(&database)?;
    let schema = cluster.schema_dump(&database)?;

    let backup = vault.back_up(&database, options)?;
    let id = id_of(&backup)?;
    vault.verify(id)?;
    let jobs = &options[options.len() - 2..];
    let restored = vault.restore(id, &target, jobs)?;
    let found = cluster.contents(&target)?;
    for (what, says) in &contents {
        ensure!(
            found.get(what) == Some(says),
            "{what}: {says} became {:?}",
            found.get(what)
        );
    }
    ensure!(found.len() == contents.len(), "something new is there");
    let found = cluster.schema_dump(&target)?;
    if let Some((was, is)) = schema
        .lines()
        .zip(found.lines())
        .find(|(was, is)| was != is)
    {
        anyhow::bail!("{was:?} became {is:?}");
    }
    ensure!(schema == found, "one has more lines than the other");

    let compare = &restored["compare"];
    ensure!(compare["tables"] == compare["equal"], "{restored}");
    ensure!(
        compare["definitions"]["equal"] == compare["definitions"]["expected"],
        "{restored}"
    );
    for empty in ["different", "missing", "not_comparable", "sequences_behind"] {
        ensure!(compare[empty] == json!([]), "{empty}: {restored}");
    }
    let number = |value: &serde_json::Value| value.as_u64().unwrap_or_default();
    sums.databases += 1;
    sums.tables += number(&compare["tables"]);
    sums.rows += number(&compare["rows"]);
    sums.definitions += number(&compare["definitions"]["equal"]);
    cluster.drop_db(&target)?;
    cluster.drop_db(&database)
}

/// The same seed is the same database, or a seed would tell nothing.
#[test]
fn a_seed_says_all() {
    for seed in 0..50 {
        assert_eq!(random_db::sql(seed, 18), random_db::sql(seed, 18));
    }
    assert_ne!(random_db::sql(1, 18), random_db::sql(2, 18));
}
