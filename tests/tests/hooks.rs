//! Programs of the operator around a backup: what they are told and what not, and what becomes of a
//! backup when they fail, hang or print without end.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use backup_e2e::cli::{Cli, Run};
use backup_e2e::pg::Cluster;
use backup_e2e::sample;
use backup_e2e::scene::unique;
use backup_testing::write_program;
use nix::sys::signal::Signal;

/// A source with hooks that write into the stage's folder.
struct Stage {
    cli: Cli,
    database: String,
}

/// What no hook may see.
const CANARY: &str = "canary-of-the-operator";

impl Stage {
    fn new() -> Result<Self> {
        let cluster = Cluster::shared(17)?;
        let database = cluster.fresh_db(&unique("hooks"))?;
        cluster.psql(&database, &sample::bulk_sql("app", "bulk", 1))?;
        let cli = Cli::new(cluster)?
            .with_env("PGPASSWORD", CANARY)
            .with_env("AWS_SECRET_ACCESS_KEY", CANARY)
            .with_env("SOME_TOKEN", CANARY);
        Ok(Self { cli, database })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.cli.folder().join(name)
    }

    /// A hook that runs `script`; its path in quotes.
    fn hook(&self, name: &str, script: &str) -> Result<String> {
        let path = self.path(name);
        write_program(&path, &format!("#!/bin/sh\n{script}\n"))?;
        Ok(format!("'{}'", path.display()))
    }

    /// A hook that adds its environment, and that it ran, to files.
    fn noting(&self, name: &str) -> Result<String> {
        let (facts, order) = (self.path(&format!("{name}.env")), self.path("order"));
        let (facts, order) = (facts.display(), order.display());
        self.hook(
            name,
            &format!("env > {facts}; echo {name} $1 >> {order}; echo said by {name}"),
        )
    }

    fn order(&self) -> String {
        fs::read_to_string(self.path("order")).unwrap_or_default()
    }

    fn facts(&self, name: &str) -> Result<BTreeMap<String, String>> {
        let text = fs::read_to_string(self.path(&format!("{name}.env")))?;
        ensure!(!text.contains(CANARY), "{text}");
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        Ok(pairs
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect())
    }

    fn config(&self, hooks: &str) -> Result<String> {
        let text = format!(
            "[encryption]\nmode = 'none'\n[source.shop]\ndatabase = '{}'\n\
             [destination.near]\nurl = '{}'\n{hooks}\n",
            self.database,
            self.cli.local_store(),
        );
        self.cli.private_file("backup.toml", &text)
    }

    fn back_up(&self, hooks: &str, code: i32) -> Result<Run> {
        let config = self.config(hooks)?;
        let arguments = ["--config", &config, "backup", "shop", "--json"];
        self.cli.run(arguments)?.exits(code)
    }

    fn has_backup(&self) -> bool {
        self.cli.local_root().join("backups").exists()
    }
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn hooks_are_told_what_happens_and_no_secret() -> Result<()> {
    let stage = Stage::new()?;
    let [before, after] = [stage.noting("before")?, stage.noting("after")?];
    let other = stage.noting("other")?;
    // The source's own list goes before the other one, key by key.
    let run = stage.back_up(
        &format!(
            "[hooks]\nbefore_backup = [[{other}]]\nafter_backup = [[{after}, 'a b'], [{after}]]\n\
             [source.shop.hooks]\nbefore_backup = [[{before}, '$HOME;x']]"
        ),
        0,
    )?;
    let backup = run.json()?;
    assert_eq!(stage.order(), "before $HOME;x\nafter a b\nafter\n");
    ensure!(run.stderr.contains("said by after"), run.stderr);
    let before = stage.facts("before")?;
    let after = stage.facts("after")?;
    for facts in [&before, &after] {
        assert_eq!(facts["BACKUP_SOURCE"], "shop");
        assert_eq!(facts["BACKUP_DATABASE"], stage.database);
        assert_eq!(
            facts["BACKUP_RUN_ID"],
            backup["run_id"].as_str().context("a run")?
        );
        assert_eq!(facts["BACKUP_ATTEMPT"], "1");
        assert_eq!(facts["BACKUP_ATTEMPTS"], "1");
    }
    assert_eq!(before["BACKUP_HOOK"], "before_backup");
    assert_eq!(after["BACKUP_HOOK"], "after_backup");
    assert_eq!(after["BACKUP_STATUS"], "success");
    assert_eq!(after["BACKUP_ID"], backup["id"].as_str().context("an id")?);
    for (name, key) in [
        ("BACKUP_RAW_BYTES", "raw_bytes"),
        ("BACKUP_STORED_BYTES", "stored_bytes"),
    ] {
        assert_eq!(after[name], backup[key].to_string());
    }
    let known = ["PATH", "HOME", "PWD", "OLDPWD", "SHLVL", "_"];
    let strange = after
        .keys()
        .find(|name| !name.starts_with("BACKUP_") && !known.contains(&name.as_str()));
    assert_eq!(strange, None);
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn without_the_first_hook_there_is_no_backup_and_the_last_ones_run() -> Result<()> {
    let stage = Stage::new()?;
    let after = stage.noting("after")?;
    let failure = stage.noting("failure")?;
    let fails = stage.hook("quiesce", "echo 'cannot quiesce' >&2; exit 7")?;
    let hangs = stage.hook("hangs", "trap '' TERM; sleep 600 & sleep 600")?;
    let floods = stage.hook("floods", "exec yes")?;
    let missing = format!("'{}'", stage.path("not there").display());
    for (hook, says, limit) in [
        (fails, "quiesce exited with 7: cannot quiesce", "1m"),
        // Long enough for those that are to run besides.
        (hangs, "hangs did not end within 10 s", "10s"),
        (floods, "floods prints without end", "1m"),
        (missing, "not there", "1m"),
    ] {
        let hooks = format!(
            "[hooks]\nbefore_backup = [[{hook}], [{after}]]\nafter_backup = [[{after}]]\n\
             on_failure = [[{failure}]]\ntimeout = '{limit}'"
        );
        let _ = fs::remove_file(stage.path("order"));
        let backup = stage.back_up(&hooks, 1)?.json()?;
        assert_eq!(backup["error"]["kind"], "tool_failed", "{backup}");
        ensure!(
            backup["error"].to_string().contains(says),
            "{says}: {backup}"
        );
        assert_eq!(stage.order(), "after\nfailure\n", "{says}");
        let facts = stage.facts("failure")?;
        assert_eq!(facts["BACKUP_STATUS"], "failed");
        assert_eq!(facts["BACKUP_ERROR_KIND"], "tool_failed");
        ensure!(facts["BACKUP_ERROR"].contains(says), "{facts:?}");
        ensure!(!stage.has_backup(), "something was backed up");
    }
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_hook_that_fails_afterwards_is_a_warning() -> Result<()> {
    let stage = Stage::new()?;
    let after = stage.noting("after")?;
    let fails = stage.hook("resume", "echo 'cannot resume' >&2; exit 1")?;
    let hooks = format!("[hooks]\nafter_backup = [[{fails}], [{after}]]\non_failure = [[{after}]]");
    let backup = stage.back_up(&hooks, 3)?.json()?;
    assert_eq!(backup["status"], "success", "{backup}");
    let warnings = backup["warnings"].to_string();
    ensure!(
        warnings.contains("resume exited with 1: cannot resume"),
        warnings
    );
    assert_eq!(stage.order(), "after\n");
    ensure!(stage.has_backup(), "no backup");
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_signal_ends_the_first_hook_and_not_the_last_ones() -> Result<()> {
    let stage = Stage::new()?;
    let after = stage.noting("after")?;
    let failure = stage.noting("failure")?;
    let begun = stage.path("begun");
    let hangs = stage.hook("hangs", &format!("touch {}; sleep 600", begun.display()))?;
    let config = stage.config(&format!(
        "[hooks]\nbefore_backup = [[{hangs}]]\nafter_backup = [[{after}]]\n\
         on_failure = [[{failure}]]\ntimeout = '1h'"
    ))?;
    let mut running = stage.cli.start(["--config", &config, "backup", "shop"])?;
    while !begun.exists() {
        ensure!(!running.has_ended()?, "it ended");
        std::thread::sleep(Duration::from_millis(20));
    }
    running.signal(Signal::SIGTERM)?;
    running.wait_at_most(Duration::from_mins(1))?.exits(143)?;
    assert_eq!(stage.order(), "after\nfailure\n");
    assert_eq!(stage.facts("after")?["BACKUP_STATUS"], "cancelled");
    ensure!(!stage.has_backup(), "something was backed up");
    Ok(())
}

/// What another run quiesced is not to be resumed in the middle of its dump.
#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_run_that_another_keeps_out_runs_no_hook() -> Result<()> {
    let stage = Stage::new()?;
    let [before, after] = [stage.noting("before")?, stage.noting("after")?];
    let failure = stage.noting("failure")?;
    let hooks = format!(
        "[hooks]\nbefore_backup = [[{before}]]\nafter_backup = [[{after}]]\n\
         on_failure = [[{failure}]]"
    );
    let config = stage.config(&hooks)?;
    let cluster = Cluster::shared(17)?;
    let mut psql = cluster.tool("psql", &stage.database);
    let mut locker = psql.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
    let mut input = locker.stdin.take().context("a pipe")?;
    input.write_all(b"BEGIN; LOCK TABLE app.bulk;\n")?;
    let held = "SELECT count(*) FROM pg_locks WHERE granted AND \
                  mode = 'AccessExclusiveLock' AND relation = 'app.bulk'::regclass";
    while cluster.query(&stage.database, held)?.trim() != "1" {
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut first = stage.cli.start(["--config", &config, "backup", "shop"])?;
    let lease = stage.cli.local_root().join("_leases/backup/shop.json");
    while !lease.exists() {
        ensure!(!first.has_ended()?, "it ended");
        std::thread::sleep(Duration::from_millis(20));
    }
    let second = stage.back_up(&hooks, 5)?.json()?;
    assert_eq!(second["error"]["kind"], "conflict", "{second}");
    assert_eq!(second["error"]["holder"]["pid"], first.pid(), "{second}");
    assert_eq!(stage.order(), "before\n");
    drop(input);
    locker.wait()?;
    first.wait()?.exits(0)?;
    assert_eq!(stage.order(), "before\nafter\n");
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_signal_hurries_a_hook_that_runs() -> Result<()> {
    let stage = Stage::new()?;
    let begun = stage.path("begun");
    let after = stage.noting("after")?;
    let hangs = stage.hook("hangs", &format!("touch {}; sleep 600", begun.display()))?;
    let config = stage.config(&format!(
        "[hooks]\nafter_backup = [[{hangs}], [{after}]]\ntimeout = '1h'"
    ))?;
    let mut running = stage.cli.start(["--config", &config, "backup", "shop"])?;
    while !begun.exists() {
        ensure!(!running.has_ended()?, "it ended");
        std::thread::sleep(Duration::from_millis(20));
    }
    running.signal(Signal::SIGTERM)?;
    let run = running.wait_at_most(Duration::from_mins(1))?;
    let said = "hangs: did not end within 10 s of a signal";
    ensure!(run.stderr.contains(said), "{}", run.stderr);
    assert_eq!(stage.order(), "after\n");
    assert_eq!(stage.facts("after")?["BACKUP_STATUS"], "success");
    ensure!(stage.has_backup(), "the backup was there");
    Ok(())
}
