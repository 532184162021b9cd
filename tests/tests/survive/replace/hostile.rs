//! Owners, administrators and other encodings.

use anyhow::{Context as _, Result, ensure};
use backup_e2e::cli::Cli;
use backup_e2e::pg::{quote_identifier, quote_literal};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::stage::{LIVE, Stage, count_databases, kill_at, text, watch};

/// `name` belongs to `owner`, who may log in and nothing else.
fn database_of(stage: &Stage, name: &str, owner: &str) -> Result<()> {
    stage.cluster.create_db(name)?;
    let sql = format!("CREATE ROLE {owner} LOGIN; ALTER DATABASE {name} OWNER TO {owner}");
    stage.cluster.psql("postgres", &sql).map(drop)
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn what_an_owner_writes_about_his_database_moves_no_other() -> Result<()> {
    let stage = Stage::new(17)?;
    database_of(&stage, "mal", "mallory")?;
    let says = |comment: &str| {
        let sql = format!(
            "SET ROLE mallory; COMMENT ON DATABASE mal IS {}",
            quote_literal(comment)
        );
        stage.cluster.psql("postgres", &sql)
    };
    let oid = "SELECT oid FROM pg_database WHERE datname = 'mal'";
    let oid = stage.cluster.query("postgres", oid)?;
    let view = stage.swap()?.exits(0)?.json()?;
    let run = text(&view, "run_id")?;
    let before = stage.databases()?;
    let forged = |database: &str, run: &str| {
        let mark = serde_json::json!({"database": database, "run": run, "oid": oid.parse::<u32>()?,
                                      "backup": stage.backup, "source": "live"});
        anyhow::Ok(format!("set aside by backup-manager: {mark}"))
    };
    // As if it were what the swap had set aside, and as if it were a part of everything.
    let unknown = "29991231T000000Z-00000000";
    for (database, run) in [("template1", unknown), (LIVE, unknown)] {
        says(&forged(database, run)?)?;
        stage.undo(run)?.exits(4)?;
        ensure!(stage.databases()? == before, "{}", stage.databases()?);
    }
    says(&forged(LIVE, run)?)?;
    stage.undo(run)?.exits(0)?;
    ensure!(stage.state()? == "lost lost", "{}", stage.state()?);
    // As if a swap had been done, or were under way: it neither counts nor goes.
    says(&forged(LIVE, unknown)?)?;
    let swap = stage.swap()?.exits(0)?;
    ensure!(!swap.stderr.contains(unknown), "{}", swap.stderr);
    ensure!(stage.state()? == "saved saved", "{}", stage.state()?);
    let way = serde_json::json!({"database": LIVE, "run": unknown});
    says(&format!("made by backup-manager to replace {way}: mine"))?;
    stage.swap()?.exits(0)?;
    let owner = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'mal'";
    ensure!(stage.cluster.query("postgres", owner)? == "mallory");
    let owner = format!("{} {}", owner.replace("'mal'", ""), quote_literal(LIVE));
    ensure!(stage.cluster.query("postgres", &owner)? == "app");
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn what_somebody_renamed_is_not_ours_to_drop() -> Result<()> {
    let stage = Stage::new(17)?;
    let rename = |from: &str, to: &str| {
        let from = quote_identifier(from);
        stage
            .cluster
            .psql("postgres", &format!("ALTER DATABASE {from} RENAME TO {to}"))
    };
    // On its way to replace another, when its run was killed.
    kill_at(&stage, || {
        Ok(count_databases(&stage, "%\\_\\_new\\_%")? == 1)
    })?;
    let left = "SELECT datname FROM pg_database WHERE datname LIKE '%\\_\\_new\\_%'";
    rename(&stage.cluster.query("postgres", left)?, "rescued")?;
    stage.swap()?.exits(0)?;
    ensure!(stage.cluster.has_db("rescued")?, "it was dropped");

    // Set aside by a replaced archive.
    let mut arguments = stage.arguments(&["--replace-archive"]);
    let target = arguments
        .iter()
        .position(|word| *word == LIVE)
        .context("a target")?;
    arguments[target] = "archive";
    let archive = || stage.vault.cli.run(arguments.clone())?.exits(0)?.json();
    archive()?;
    let kept = archive()?;
    rename(text(&kept, "kept_as")?, "kept_for_good")?;
    archive()?;
    archive()?;
    ensure!(stage.cluster.has_db("kept_for_good")?, "it was dropped");
    ensure!(
        count_databases(&stage, "archive\\_\\_%")? == 1,
        "{}",
        stage.databases()?
    );

    // A database that was restored to be used, not to be replaced, is kept when it is.
    arguments.pop();
    arguments[target] = "recovered";
    stage.vault.cli.run(arguments.clone())?.exits(0)?;
    stage
        .cluster
        .psql("recovered", "UPDATE a SET state = 'used'")?;
    arguments.push("--replace-archive");
    let kept = stage.vault.cli.run(arguments.clone())?.exits(0)?.json()?;
    let kept = text(&kept, "kept_as")?.to_owned();
    for _ in 0..2 {
        stage.vault.cli.run(arguments.clone())?.exits(0)?;
    }
    let found = stage.cluster.query(&kept, "SELECT state FROM a")?;
    ensure!(found == "used", "{found}");
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_lock_on_the_database_stops_the_swap_and_not_its_clients() -> Result<()> {
    let stage = Stage::new(17)?;
    let before = stage.databases()?;
    // Somebody in another database who changes something about this one and does not come to an end.
    let name = quote_identifier(LIVE);
    let mut command = stage.cluster.tool("psql", "postgres");
    let sql = format!("BEGIN; COMMENT ON DATABASE {name} IS 'mine'; SELECT pg_sleep(600)");
    let mut holder = command
        .args(["-X", "-c", &sql])
        .env("PGAPPNAME", "the holder")
        .stdout(Stdio::null())
        .spawn()?;
    let sleeps = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    while stage.cluster.query("postgres", sleeps)? == "0" {}
    let swap = stage.start_swap(&stage.vault.cli)?;
    let going = AtomicBool::new(true);
    let (swap, seen) = thread::scope(|scope| {
        let watcher = scope.spawn(|| watch(&stage, &going));
        let swap = swap.wait();
        going.store(false, Ordering::Relaxed);
        let (seen, errors) = watcher
            .join()
            .map_err(|_| anyhow::anyhow!("the watcher panicked"))?;
        anyhow::Ok((swap?, [seen, errors].concat()))
    })?;
    holder.kill()?;
    holder.wait()?;
    let swap = swap.exits(9)?;
    ensure!(swap.text().contains("the holder"), "{}", swap.text());
    // Clients waited, and not one of them was ended for nothing.
    ensure!(seen == ["lost lost"], "{seen:?}");
    stage.wait_until_free()?;
    stage.assert_untouched(&before)
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn what_belongs_to_the_name_stays_with_it_also_on_the_way_back() -> Result<()> {
    let stage = Stage::new(17)?;
    let name = quote_identifier(LIVE);
    let view = stage.swap()?.exits(0)?.json()?;
    stage.cluster.psql(
        "postgres",
        &format!(
            "REVOKE CONNECT ON DATABASE {name} FROM report;
             ALTER DATABASE {name} SET work_mem TO '9MB'"
        ),
    )?;
    let properties = stage.properties(LIVE)?;
    stage.undo(text(&view, "run_id")?)?.exits(0)?;
    ensure!(stage.state()? == "lost lost", "{}", stage.state()?);
    ensure!(
        stage.properties(LIVE)? == properties,
        "{}",
        stage.properties(LIVE)?
    );
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn other_logins_databases_and_encodings_are_no_obstacle_and_no_way_around() -> Result<()> {
    let stage = Stage::new(17)?;
    // A comment and a name that are no text here.
    stage.cluster.psql(
        "postgres",
        "CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'",
    )?;
    stage.cluster.psql(
        "latin",
        "COMMENT ON DATABASE latin IS 'Büro';
         CREATE DATABASE \"bürö\" TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C';",
    )?;
    let view = stage.swap()?.exits(0)?.json()?;
    stage.undo(text(&view, "run_id")?)?.exits(0)?;

    // A membership that does not bring the owner's rights.
    stage.cluster.psql(
        "postgres",
        "CREATE ROLE outsider LOGIN CREATEDB; GRANT app TO outsider WITH INHERIT FALSE, SET TRUE",
    )?;
    let before = stage.databases()?;
    let cli = Cli::new(&stage.cluster)?.with_env("PGUSER", "outsider");
    let run = stage.start_swap(&cli)?.wait()?.exits(7)?;
    ensure!(run.text().contains("may not rename"), "{}", run.text());

    // Somebody whose connections go to another database has the same lock.
    let key = quote_literal(&format!("backup-manager replaces database {LIVE}"));
    let sql = format!("SELECT pg_advisory_lock(hashtextextended({key}, 0)), pg_sleep(600)");
    let mut command = stage.cluster.tool("psql", "latin");
    let mut holder = command
        .args(["-X", "-c", &sql])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'";
    while stage.cluster.query("postgres", locks)? == "0" {}
    let run = stage.swap()?.exits(5);
    holder.kill()?;
    holder.wait()?;
    let run = run?;
    ensure!(run.text().contains("pid "), "{}", run.text());
    stage.assert_untouched(&before)
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_database_that_sorts_otherwise_takes_no_place() -> Result<()> {
    let stage = Stage::new(17)?;
    let name = quote_identifier(LIVE);
    stage.cluster.psql(
        "postgres",
        &format!(
            "ALTER DATABASE {name} RENAME TO other;
             CREATE DATABASE {name} TEMPLATE template0 LOCALE 'C' OWNER app"
        ),
    )?;
    let states = "CREATE TABLE a AS SELECT 'lost' AS state; CREATE TABLE b AS TABLE a";
    stage.cluster.psql(LIVE, states)?;
    let before = stage.databases()?;
    let run = stage.swap()?.exits(7)?;
    ensure!(run.text().contains("collate, ctype"), "{}", run.text());
    stage.assert_untouched(&before)?;
    let arguments = stage.arguments(&["--swap", "--yes", "--no-owner"]);
    stage.vault.cli.run(arguments)?.exits(2)?;
    Ok(())
}
