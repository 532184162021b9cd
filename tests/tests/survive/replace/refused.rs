//! What is not replaced, and what may be replaced again.

use anyhow::{Context as _, Result, ensure};
use backup_e2e::cli::{Cli, Running};
use backup_e2e::pg::{ClusterOptions, quote_identifier};
use nix::pty::openpty;
use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs::File;
use std::io::Write as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::stage::{LIVE, Stage, count_databases, sessions_in, text};

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn one_name_is_replaced_by_one_run_at_a_time() -> Result<()> {
    let stage = Stage::new(17)?;
    let before = stage.databases()?;
    let mut first = stage.start_swap(&stage.vault.cli)?;
    first.signal(Signal::SIGCONT)?;
    let deadline = Instant::now() + Duration::from_mins(1);
    while count_databases(&stage, "%\\_\\_new\\_%")? == 0 {
        ensure!(
            !first.has_ended()? && Instant::now() < deadline,
            "it does not begin"
        );
    }
    first.signal(Signal::SIGSTOP)?;
    let second = stage.swap()?.exits(5)?;
    ensure!(
        second.text().contains("another run is replacing database"),
        "{}",
        second.text()
    );
    first.signal(Signal::SIGCONT)?;
    first.signal(Signal::SIGTERM)?;
    let first = first.wait()?;
    ensure!(first.code == Some(143), "{first:?}");
    stage.assert_untouched(&before)
}

/// What is typed where `--yes` is not said: another name, a part of the name, the name.
#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn the_typed_name_is_the_confirmation() -> Result<()> {
    let stage = Stage::new(17)?;
    let before = stage.databases()?;
    let typed = |text: &str| -> Result<_> {
        let terminal = openpty(None, None)?;
        File::from(terminal.master.try_clone()?).write_all(text.as_bytes())?;
        let mut command = stage.vault.cli.command(stage.arguments(&["--swap"]))?;
        command.stdin(terminal.slave);
        Running::start(command)?.wait()
    };
    for wrong in [
        "yes\n",
        "\n",
        "\u{4}",
        "live\n",
        &format!("{LIVE} \n{LIVE}\n"),
    ] {
        let run = typed(wrong)?.exits(12)?;
        ensure!(run.text().contains("nobody confirmed it"), "{}", run.text());
        stage.assert_untouched(&before)?;
    }
    let swapped = typed(&format!("{LIVE}\n"))?.exits(0)?.json()?;
    ensure!(swapped["swapped"] == true, "{swapped}");
    ensure!(stage.state()? == "saved saved", "{}", stage.state()?);
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn nothing_is_replaced_that_nobody_confirmed_or_nobody_has() -> Result<()> {
    let stage = Stage::new(17)?;
    let before = stage.databases()?;
    let run = stage
        .vault
        .cli
        .run(stage.arguments(&["--swap"]))?
        .exits(12)?;
    ensure!(run.text().contains("nobody confirmed it"), "{}", run.text());
    ensure!(
        run.stderr.contains("cluster ") && run.stderr.contains("0 sessions"),
        "{}",
        run.stderr
    );
    let mut arguments = stage.arguments(&["--swap", "--yes"]);
    let target = arguments
        .iter()
        .position(|word| *word == LIVE)
        .context("a target")?;
    arguments[target] = "no such";
    let run = stage.vault.cli.run(arguments.clone())?.exits(4)?;
    ensure!(run.text().contains("no such"), "{}", run.text());
    arguments[target] = "postgres";
    let run = stage.vault.cli.run(arguments.clone())?.exits(12)?;
    ensure!(run.text().contains("connects to"), "{}", run.text());
    arguments[target] = "template1";
    stage.vault.cli.run(arguments)?.exits(12)?;
    for more in [
        &["--no-compare"][..],
        &["--schema-only"],
        &["--table", "a"],
        &["--replace-archive"],
    ] {
        let arguments = stage.arguments(&[&["--swap", "--yes"], more].concat());
        stage.vault.cli.run(arguments)?.exits(2)?;
    }
    let unknown = stage.undo("20200101T000000Z-00000000")?.exits(4)?;
    ensure!(unknown.text().contains("set aside"), "{}", unknown.text());
    stage.assert_untouched(&before)
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn what_would_fail_at_the_end_is_refused_before_the_work() -> Result<()> {
    let options = ClusterOptions::default().set("max_prepared_transactions", "2");
    let stage = Stage::with(17, &options)?;
    stage.cluster.psql(
        "postgres",
        "CREATE ROLE restorer LOGIN CREATEDB; GRANT pg_read_all_data TO restorer",
    )?;
    let before = stage.databases()?;
    let cli = Cli::new(&stage.cluster)?.with_env("PGUSER", "restorer");
    let swap = || stage.start_swap(&cli)?.wait();
    let refused = |code: i32, words: &str| -> Result<()> {
        let run = swap()?.exits(code)?;
        ensure!(run.text().contains(words), "{}", run.text());
        stage.assert_untouched(&before)
    };
    refused(7, "may not rename")?;
    stage.cluster.psql("postgres", "GRANT app TO restorer")?;
    // Settings of another role take a superuser.
    refused(7, "cannot carry over")?;
    let name = quote_identifier(LIVE);
    let reset = format!("ALTER ROLE report IN DATABASE {name} RESET ALL");
    stage.cluster.psql("postgres", &reset)?;
    // A superuser is connected, whom this login may not send away.
    let mut command = stage.cluster.tool("psql", LIVE);
    let mut superuser = command
        .args(["-X", "-c", "SELECT pg_sleep(600)"])
        .env("PGAPPNAME", "the boss")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    while sessions_in(&stage, LIVE)? == "0" {}
    let checked = refused(7, "the boss");
    superuser.kill()?;
    superuser.wait()?;
    checked?;
    while sessions_in(&stage, LIVE)? != "0" {
        stage.cluster.psql(
            "postgres",
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'the boss'",
        )?;
    }
    stage.cluster.psql(
        LIVE,
        "BEGIN; INSERT INTO b VALUES ('x'); PREPARE TRANSACTION 'two phases'",
    )?;
    refused(7, "two phases")?;
    stage.cluster.psql(LIVE, "ROLLBACK PREPARED 'two phases'")?;

    // And without all that, this login can.
    let properties = stage.properties(LIVE)?;
    let run = swap()?.exits(0)?.json()?;
    ensure!(
        run["swapped"] == true && stage.state()? == "saved saved",
        "{run}"
    );
    ensure!(
        stage.properties(LIVE)? == properties,
        "{}",
        stage.properties(LIVE)?
    );
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn an_archive_is_replaced_and_nothing_else_is() -> Result<()> {
    let stage = Stage::new(17)?;
    let before = stage.databases()?;
    let arguments = stage.arguments(&["--replace-archive"]);
    let run = stage.vault.cli.run(arguments.clone())?.exits(12)?;
    ensure!(
        run.text().contains("was not made by a restore"),
        "{}",
        run.text()
    );
    stage.assert_untouched(&before)?;

    let archive = |expected: &str| -> Result<Value> {
        let mut arguments = arguments.clone();
        let target = arguments
            .iter()
            .position(|word| *word == LIVE)
            .context("a target")?;
        arguments[target] = "archive";
        let view = stage.vault.cli.run(arguments)?.exits(0)?.json()?;
        let found = stage.cluster.query("archive", "SELECT state FROM a")?;
        ensure!(found == expected, "{found}");
        Ok(view)
    };
    let first = archive("saved")?;
    ensure!(
        first["swapped"] == false && first["kept_as"].is_null(),
        "{first}"
    );
    let mut kept = String::new();
    for round in 0..3 {
        stage
            .cluster
            .psql("archive", "UPDATE a SET state = 'played with'")?;
        let second = archive("saved")?;
        ensure!(second["swapped"] == true, "{second}");
        // What was replaced before is gone, what was replaced now is not.
        ensure!(
            count_databases(&stage, "archive\\_\\_%")? == 1,
            "round {round}"
        );
        text(&second, "kept_as")?.clone_into(&mut kept);
        let found = stage.cluster.query(&kept, "SELECT state FROM a")?;
        ensure!(found == "played with", "{found}");
    }
    // A database that clients use since a swap is none that a restore may throw away.
    stage.swap()?.exits(0)?;
    stage.vault.cli.run(arguments)?.exits(12)?;
    ensure!(stage.state()? == "saved saved" && count_databases(&stage, &kept)? == 1);
    Ok(())
}
