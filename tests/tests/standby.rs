//! Backups of a hot standby, which keeps their load away from the primary.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use backup_e2e::pg::{Cluster, ClusterOptions, Contents};
use backup_e2e::sample;
use backup_e2e::vault::{Vault, id_of};
use rstest::rstest;
use serde_json::json;

/// Waits until the standby has all that the primary wrote.
fn wait_for(primary: &Cluster, standby: &Cluster) -> Result<()> {
    // What is written is less than what was committed: these servers commit asynchronously.
    let lsn = primary.query("postgres", "SELECT pg_current_wal_insert_lsn()")?;
    let sql = format!("SELECT pg_last_wal_replay_lsn() >= '{lsn}'");
    let deadline = Instant::now() + Duration::from_mins(1);
    while standby.query("postgres", &sql)? != "t" {
        ensure!(Instant::now() < deadline, "the standby does not follow");
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn stored(cluster: &Cluster, database: &str) -> Result<Contents> {
    let mut contents = cluster.contents(database)?;
    contents.retain(|name, _| !name.starts_with("sequence "));
    ensure!(contents.len() > 20, "{contents:?}");
    Ok(contents)
}

#[rstest]
#[case::oldest(14)]
#[case::newest(18)]
#[ignore = "needs servers: run ./scripts/test"]
fn a_standby_gives_what_the_primary_has(#[case] major: u16) -> Result<()> {
    let primary = Cluster::start(major, &ClusterOptions::default())?;
    let standby = primary.standby()?;
    let database = primary.fresh_db("followed")?;
    primary.psql(&database, &sample::everything_sql(major))?;
    primary.psql(&database, &sample::bulk_sql("public", "bulk", 8))?;
    primary.psql(
        &database,
        "CREATE UNLOGGED TABLE fleeting (a int PRIMARY KEY); INSERT INTO fleeting VALUES (1)",
    )?;
    wait_for(&primary, &standby)?;
    assert_eq!(
        standby.query("postgres", "SELECT pg_is_in_recovery()")?,
        "t"
    );

    let vault = Vault::local(&standby)?;
    let backup = vault.back_up(&database, &["--jobs", "3"])?;
    let warnings = backup["warnings"].to_string();
    ensure!(warnings.contains("unlogged"), "{backup:#}");
    let id = id_of(&backup)?;

    // It goes where rows can be written.
    let target = "restored";
    let view = vault.beside(&primary)?.restore(id, target, &[])?;
    assert_eq!(view["status"], "success", "{view:#}");
    assert_eq!(view["compare"]["different"], json!([]), "{view:#}");
    assert_eq!(primary.query(target, "SELECT count(*) FROM fleeting")?, "0");
    // Else it is what the primary has, but for sequences, which run ahead on a standby.
    primary.psql(&database, "TRUNCATE fleeting, app.unlogged")?;
    assert_eq!(stored(&primary, &database)?, stored(&primary, target)?);
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_restore_into_a_standby_is_refused() -> Result<()> {
    let primary = Cluster::start(17, &ClusterOptions::default())?;
    let standby = primary.standby()?;
    let vault = Vault::local(&primary)?;
    let database = primary.fresh_db("followed")?;
    primary.psql(
        &database,
        "CREATE TABLE a (id int); INSERT INTO a VALUES (1)",
    )?;
    let backup = vault.back_up(&database, &[])?;
    let id = id_of(&backup)?;
    let run = vault
        .beside(&standby)?
        .read(&["restore", id, "--target-db", "restored"])?;
    let said = run.exits(7)?.stderr;
    ensure!(said.contains("standby"), "{said}");
    Ok(())
}
