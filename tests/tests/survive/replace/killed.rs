//! A run that is killed at any step.

use anyhow::{Result, ensure};
use backup_e2e::crash::Moments;
use backup_e2e::evidence;
use backup_e2e::pg::{quote_identifier, quote_literal};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::stage::{
    LIVE, Stage, count_databases, ensure_come_back, kill_at, sessions_in, text, watch,
};

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_run_that_is_killed_leaves_the_old_one_and_is_made_good() -> Result<()> {
    let stage = Stage::new(17)?;
    let before = stage.databases()?;
    let newcomer = "%\\_\\_new\\_%";
    kill_at(&stage, || Ok(count_databases(&stage, newcomer)? == 1))?;
    ensure!(stage.state()? == "lost lost", "{}", stage.state()?);
    ensure!(count_databases(&stage, newcomer)? == 1);
    // The server ends sessions of the killed run in its own time; until then their database cannot
    // be cleared away.
    while sessions_in(&stage, newcomer)? != "0" {
        thread::sleep(Duration::from_millis(50));
    }
    // The next run clears away what it left.
    let run = stage.swap()?.exits(0)?;
    ensure!(
        run.stderr
            .contains("which an interrupted run had left, is removed"),
        "{}",
        run.stderr
    );
    let view = run.json()?;
    ensure!(stage.state()? == "saved saved" && count_databases(&stage, newcomer)? == 0);
    stage.undo(text(&view, "run_id")?)?.exits(0)?;
    stage.cluster.drop_db(&format!("{LIVE}__before_{}", {
        let sql = "SELECT substr(datname, position('__before_' in datname) + 9)
                   FROM pg_database WHERE datname LIKE '%\\_\\_before\\_%'";
        stage.cluster.query("postgres", sql)?
    }))?;
    stage.assert_untouched(&before)
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_run_that_is_killed_while_it_waits_for_sessions_leaves_the_old_one_open() -> Result<()> {
    let stage = Stage::new(17)?;
    let properties = stage.properties(LIVE)?;
    // A session that cannot end: the rename waits for it.
    let mut command = stage.cluster.tool("psql", LIVE);
    let mut stuck = command
        .args(["-X", "-c", "SELECT pg_sleep(600)"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let pid = "SELECT pid FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)'";
    let mut backend = String::new();
    while backend.is_empty() {
        backend = stage.cluster.query("postgres", pid)?;
    }
    let backend = Pid::from_raw(backend.parse()?);
    kill(backend, Signal::SIGSTOP)?;
    let renaming = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'ALTER DATABASE%RENAME%'
                    AND state = 'active'";
    let killed = kill_at(&stage, || {
        Ok(stage.cluster.query("postgres", renaming)? == "1")
    });
    kill(backend, Signal::SIGCONT)?;
    killed?;
    let _ = stuck.kill();
    stuck.wait()?;
    ensure!(stage.state()? == "lost lost", "{}", stage.state()?);
    ensure!(
        stage.properties(LIVE)? == properties,
        "{}",
        stage.properties(LIVE)?
    );
    stage.swap()?.exits(0)?;
    ensure!(stage.state()? == "saved saved");
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_run_that_is_killed_after_the_exchange_is_recorded_by_the_next() -> Result<()> {
    let stage = Stage::new(17)?;
    let view = stage.swap()?.exits(0)?.json()?;
    let (run, kept_as) = (text(&view, "run_id")?, text(&view, "kept_as")?);
    // What the server has when the run is killed right after its commit: the note without the
    // record. That moment is too short to be met.
    let comment = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = ";
    let comment = format!("{comment}{}", quote_literal(kept_as));
    let told = stage.cluster.query("postgres", &comment)?;
    ensure!(told.contains("\"recorded\":true"), "{told}");
    let untold = told.replace("\"recorded\":true", "\"recorded\":false");
    let name = quote_identifier(kept_as);
    let sql = format!("COMMENT ON DATABASE {name} IS {}", quote_literal(&untold));
    stage.cluster.psql("postgres", &sql)?;
    let records = stage.vault.cli.local_root().join("_runs");
    std::fs::remove_dir_all(&records)?;
    stage
        .cluster
        .psql(LIVE, "UPDATE a SET state = 'written since'")?;

    // The next run tells of it, and does what it was asked for: nobody can know whether the wish
    // is the same one.
    let again = stage.swap()?.exits(0)?;
    ensure!(again.stderr.contains(run), "{}", again.stderr);
    let again = again.json()?;
    ensure!(again["run_id"] != run, "{again}");
    ensure!(stage.state()? == "saved saved", "{}", stage.state()?);
    let told = stage.cluster.query("postgres", &comment)?;
    ensure!(told.contains("\"recorded\":true"), "{told}");
    let runs = stage.runs()?;
    ensure!(
        runs[1]["id"] == run && runs[1]["result"] == "warnings",
        "{runs}"
    );
    let since = text(&again, "kept_as")?;
    let found = stage.cluster.query(since, "SELECT state FROM a")?;
    ensure!(found == "written since", "{found}");

    // And each can be undone.
    stage.undo(run)?.exits(0)?;
    ensure!(stage.state()? == "lost lost", "{}", stage.state()?);
    Ok(())
}

/// Drops what was set aside, and loses again what the backup has.
fn lose_again(stage: &Stage) -> Result<()> {
    let aside = "SELECT datname FROM pg_database WHERE datname LIKE '%\\_\\_before\\_%'";
    for name in stage.cluster.query("postgres", aside)?.lines() {
        stage.cluster.drop_db(name)?;
    }
    let lose = "BEGIN; UPDATE a SET state = 'lost'; UPDATE b SET state = 'lost'; COMMIT";
    stage.cluster.psql(LIVE, lose).map(drop)
}

/// Whether a run that dies here leaves more than a database beside the live one.
fn is_close_to_the_exchange(moment: &str) -> bool {
    ["SQL ALTER", "SQL COMMIT", "SQL COMMENT", "_runs", "_audit"]
        .iter()
        .any(|word| moment.contains(word))
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_09_an_exchange_is_killed_before_each_step() -> Result<()> {
    let (stage, moments) = (Stage::new(17)?, Moments::new()?);
    let properties = stage.properties(LIVE)?;
    let command = || {
        let arguments = stage.arguments(&["--swap", "--yes"]);
        stage.vault.cli.command(arguments)
    };
    let going = AtomicBool::new(true);
    let (mut old, mut new, mut again) = (0, 0, 0);
    let (deaths, seen, errors) = thread::scope(|scope| {
        let watcher = scope.spawn(|| watch(&stage, &going));
        let deaths = moments.each((1, 0), command, |moment| {
            stage.wait_until_free()?;
            match &*stage.state()? {
                "lost lost" => old += 1,
                "saved saved" => new += 1,
                other => anyhow::bail!("{other}"),
            }
            ensure!(
                stage.properties(LIVE)? == properties,
                "{}",
                stage.properties(LIVE)?
            );
            if is_close_to_the_exchange(moment) {
                again += 1;
                stage.swap()?.exits(0)?;
                ensure!(stage.state()? == "saved saved", "{}", stage.state()?);
                ensure!(
                    stage.properties(LIVE)? == properties,
                    "{}",
                    stage.properties(LIVE)?
                );
            }
            lose_again(&stage)
        });
        going.store(false, Ordering::Relaxed);
        let (seen, errors) = watcher.join().expect("it does not panic");
        deaths.map(|deaths| (deaths, seen, errors))
    })?;
    ensure!(stage.state()? == "saved saved", "{}", stage.state()?);
    ensure!(old > 0 && new > 0, "{old} old, {new} new");
    let left = "SELECT datname, shobj_description(oid, 'pg_database') FROM pg_database
                WHERE datname LIKE '%\\_\\_new\\_%'";
    let left = stage.cluster.query("postgres", left)?;
    ensure!(left.is_empty(), "left: {left}");
    let half = seen
        .iter()
        .find(|s| *s != "lost lost" && *s != "saved saved");
    ensure!(half.is_none(), "a client saw {half:?}");
    ensure_come_back(&errors)?;
    evidence::note(
        9,
        format!(
            "{deaths} deaths of an exchange: the name led to the old database {old} times, to the new \
             one {new} times, owner, grants and settings were the same each time, {again} runs after \
             them went through; a client saw {} changes of state and no half of one, and was told to \
             come back {} times",
            seen.len(),
            errors.len()
        ),
    );
    Ok(())
}
