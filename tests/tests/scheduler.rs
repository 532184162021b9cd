//! `backup-server` runs what its schedules ask for, each slot once, and what was killed is known.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, ensure};
use backup_e2e::cli::{Cli, Running};
use backup_e2e::fake_tools::{Calls, FakeTools, pause_after};
use backup_e2e::pg::Cluster;
use backup_e2e::s3::{Kind, Server as S3};
use backup_e2e::scene::unique;
use backup_e2e::{free_port, sample};
use chrono::{DateTime, TimeDelta, Utc};
use nix::sys::signal::Signal;
use serde_json::Value;

/// How long anything may take; a slot comes every minute.
const LIMIT: Duration = Duration::from_mins(4);

/// One configuration, and what runs with it.
struct Stage {
    cli: Cli,
    config: String,
}

impl Stage {
    /// `more` goes into `[source.shop]`.
    fn new(cli: Cli, database: &str, url: &str, more: &str) -> Result<Self> {
        let settings = format!(
            "[encryption]\nmode = 'none'\n[destination.near]\nurl = '{url}'\n\
             [source.shop]\ndatabase = '{database}'\ndestinations = ['near']\n{more}\n"
        );
        let config = cli.private_file("backup.toml", &settings)?;
        Ok(Self { cli, config })
    }

    fn serve(&self) -> Result<Running> {
        let address = format!("127.0.0.1:{}", free_port()?);
        let arguments = ["--config", &self.config, "serve", "--listen", &address];
        Running::start(self.cli.command_of("backup-server", arguments)?)
    }

    fn json(&self, arguments: &[&str]) -> Result<Vec<Value>> {
        let all = ["--config", &self.config].into_iter();
        let all = all.chain(arguments.iter().copied()).chain(["--json"]);
        let text = self.cli.run(all)?.exits(0)?.text();
        Ok(serde_json::from_str(&text)?)
    }

    fn backups(&self) -> Vec<Value> {
        // A place that is not there yet has none.
        self.json(&["list"]).unwrap_or_default()
    }

    /// Records of backups, newest first.
    fn runs(&self) -> Vec<Value> {
        let backups = self.json(&["runs", "--operation", "backup"]);
        backups.unwrap_or_default()
    }
}

fn wait_until(what: &str, done: impl Fn() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    while !done()? {
        ensure!(Instant::now() < deadline, "{what}: still not");
        thread::sleep(Duration::from_millis(500));
    }
    Ok(())
}

fn stop(server: Running) -> Result<String> {
    server.signal(Signal::SIGTERM)?;
    Ok(server.wait_at_most(LIMIT)?.exits(0)?.stderr)
}

/// Every record has a slot, and no two have the same, but for runs that a server stopped when it ended
/// and that were made up for.
fn assert_once_each(runs: &[Value]) {
    let ended = runs.iter().filter(|run| run["result"] != "cancelled");
    let slots: Vec<_> = ended.filter_map(|run| run["slot"].as_str()).collect();
    let different: BTreeSet<_> = slots.iter().collect();
    assert_eq!(different.len(), slots.len(), "{runs:?}");
    assert!(runs.iter().all(|run| run["slot"].is_string()), "{runs:?}");
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_schedule_is_kept_and_a_restart_runs_nothing_twice() -> Result<()> {
    let cluster = Cluster::shared(17)?;
    let database = cluster.fresh_db(&unique("scheduler"))?;
    cluster.psql(&database, &sample::bulk_sql("app", "bulk", 1))?;
    let cli = Cli::new(cluster)?;
    let url = cli.local_store();
    let more = "schedule = '* * * * *'\n[verify]\nschedule = '* * * * *'";
    let stage = Stage::new(cli, &database, &url, more)?;
    let server = stage.serve()?;
    wait_until("the first backup", || Ok(!stage.runs().is_empty()))?;
    wait_until("a verification", || {
        let runs = stage.json(&["runs", "--operation", "verify"])?;
        Ok(runs.iter().any(|run| run["slot"].is_string()))
    })?;
    let log = stop(server)?;
    ensure!(log.contains("scheduled backup of shop"), "{log}");
    // Whatever was run just now is not run again by the next one.
    let server = stage.serve()?;
    let count = stage.runs().len();
    wait_until("the next slot", || Ok(stage.runs().len() > count))?;
    stop(server)?;
    let runs = stage.runs();
    let good = runs.iter().filter(|run| run["result"] == "success");
    ensure!(good.count() >= 2, "{runs:?}");
    assert_once_each(&runs);
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn two_servers_on_one_bucket_take_one_backup_a_slot() -> Result<()> {
    let cluster = Cluster::shared(17)?;
    let database = cluster.fresh_db(&unique("two_servers"))?;
    cluster.psql(&database, &sample::bulk_sql("app", "bulk", 1))?;
    let s3 = S3::shared(Kind::SeaweedFs)?;
    let bucket = unique("two-servers").replace('_', "-");
    s3.create_bucket(&bucket)?;
    let cli = Cli::new(cluster)?.with_s3(s3);
    let url = format!("s3://{bucket}");
    let stage = Stage::new(cli, &database, &url, "schedule = '* * * * *'")?;
    let servers = [stage.serve()?, stage.serve()?];
    wait_until("three slots", || Ok(stage.runs().len() >= 3))?;
    for server in servers {
        stop(server)?;
    }
    let runs = stage.runs();
    let good = runs.iter().filter(|run| run["result"] == "success");
    let taken = stage.backups().len();
    assert_eq!(good.count(), taken, "{runs:?}");
    let failed = runs.iter().find(|run| run["result"] == "failed");
    assert_eq!(failed, None, "nobody was in anybody's way");
    assert_once_each(&runs);
    Ok(())
}

/// Where the run stands when it is killed: before any row, in the middle, and after all of them.
#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_killed_server_leaves_an_interrupted_run_and_no_half_backup() -> Result<()> {
    let cluster = Cluster::shared(17)?;
    let database = cluster.fresh_db(&unique("killed_server"))?;
    cluster.psql(&database, &sample::bulk_sql("app", "bulk", 4))?;
    let fakes = FakeTools::new(cluster.bin_dir())?;
    let path = format!("{}:/usr/bin:/bin", fakes.bin_dir().display());
    let cli = Cli::new(cluster)?.with_env("PATH", &path);
    let url = cli.local_store();
    let slow = Stage::new(cli, &database, &url, "schedule = '* * * * *'")?;
    // What nobody stops makes the repository.
    slow.cli
        .run(["--config", &slow.config, "backup", "shop", "--json"])?
        .exits(0)?;
    for (number, bytes) in [1_u64, 500_000, 3_000_000].into_iter().enumerate() {
        for flag in ["paused", "go"] {
            let _ = std::fs::remove_file(fakes.flag(flag));
        }
        fakes.misbehave("pg_dump", Calls::Data, &pause_after(bytes))?;
        let server = slow.serve()?;
        let paused = fakes.flag("paused");
        wait_until("the dump of rows", || Ok(paused.exists()))?;
        server.signal(Signal::SIGKILL)?;
        server.wait_at_most(LIMIT)?;
        let runs = slow.runs();
        let interrupted = runs.iter().filter(|run| run["result"] == "interrupted");
        let interrupted: Vec<_> = interrupted.collect();
        assert_eq!(interrupted.len(), number + 1, "{runs:?}");
        ensure!(interrupted[0]["error"].is_string(), "{runs:?}");
        assert_eq!(interrupted[0]["source"], "shop");
        assert_eq!(interrupted[0]["backup"], Value::Null);
        let check = ["--config", &slow.config, "check", "--json"];
        let check = slow.cli.run(check)?;
        ensure!(check.text().contains("failed"), "{}", check.text());
        // Looking again finds no more.
        assert_eq!(slow.runs().len(), runs.len());
        let listed = slow.backups();
        assert_eq!(listed.len(), number + 1, "{listed:?}");
        for backup in &listed {
            let id = backup["id"].as_str().context("an id")?;
            let verify = ["--config", &slow.config, "verify", id];
            slow.cli.run(verify)?.exits(0)?;
        }
        fakes.misbehave("pg_dump", Calls::Data, "exec \"$real\" \"$@\"")?;
        let next = ["--config", &slow.config, "backup", "shop"];
        slow.cli.run(next)?.exits(0)?;
    }
    Ok(())
}

/// A slot that stands for two databases: it is over when both are, whoever dies meanwhile.
#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn what_a_killed_server_left_undone_is_made_up_for() -> Result<()> {
    let cluster = Cluster::shared(17)?;
    let name = unique("killed_family");
    for member in ["a", "b"] {
        let database = cluster.fresh_db(&format!("{name}_{member}"))?;
        cluster.psql(&database, &sample::bulk_sql("app", "bulk", 1))?;
    }
    let fakes = FakeTools::new(cluster.bin_dir())?;
    let path = format!("{}:/usr/bin:/bin", fakes.bin_dir().display());
    let cli = Cli::new(cluster)?.with_env("PATH", &path);
    // One slot today, soon, and not before the server is there.
    let slot = DateTime::<Utc>::from(SystemTime::now()) + TimeDelta::seconds(95);
    let settings = format!(
        "[encryption]\nmode = 'none'\n[destination.near]\nurl = '{}'\n[server.main]\n\
         host = '{}'\nport = {}\nuser = '{}'\n\
         [source.all]\nserver = 'main'\ndatabases = ['{name}_*']\ndestinations = ['near']\n\
         schedule = '{}'\ncatch_up = '30m'\n",
        cli.local_store(),
        cluster.host(),
        cluster.port(),
        cli.env()["PGUSER"],
        slot.format("%-M %-H * * *"),
    );
    let config = cli.private_file("backup.toml", &settings)?;
    let stage = Stage { cli, config };
    fakes.misbehave("pg_dump", Calls::Data, &pause_after(1))?;
    let server = stage.serve()?;
    let paused = fakes.flag("paused");
    let waited = wait_until("the dump of rows", || Ok(paused.exists()));
    server.signal(Signal::SIGKILL)?;
    let killed = server.wait_at_most(LIMIT)?;
    waited.context(killed.stderr)?;
    fakes.misbehave("pg_dump", Calls::Data, "exec \"$real\" \"$@\"")?;
    let server = stage.serve()?;
    let waited = wait_until("both backups", || Ok(stage.backups().len() >= 2));
    let log = stop(server)?;
    waited.with_context(|| format!("{log}\n{:#?}", stage.runs()))?;
    // The same slot, though this server was not there when it came.
    let begun = format!(
        "scheduled backup of all of {}",
        slot.format("%Y-%m-%dT%H:%M:00Z")
    );
    ensure!(log.contains(&begun), "{begun}: {log}");
    let sources: BTreeSet<_> = stage
        .backups()
        .iter()
        .map(|b| b["source"].to_string())
        .collect();
    assert_eq!(sources.len(), 2, "{sources:?}");
    // Whoever comes next knows that it is over.
    let runs = stage.runs().len();
    let server = stage.serve()?;
    thread::sleep(Duration::from_secs(20));
    let log = stop(server)?;
    assert_eq!(stage.runs().len(), runs, "{log}");
    Ok(())
}

/// A job that could not even ask for the databases is in the history.
#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn what_could_not_begin_is_known() -> Result<()> {
    let cluster = Cluster::shared(17)?;
    let database = cluster.fresh_db(&unique("no_begin"))?;
    let cli = Cli::new(cluster)?;
    let url = cli.local_store();
    let gone = format!(
        "schedule = '0 3 1 1 *'\n[defaults]\nretry = {{ attempts = 1 }}\n\
         [server.gone]\nhost = '127.0.0.1'\nport = {}\n\
         [source.all]\nserver = 'gone'\ndatabases = ['*']\ndestinations = ['near']\n\
         schedule = '* * * * *'\n",
        free_port()?
    );
    let stage = Stage::new(cli, &database, &url, &gone)?;
    // Records go where there is a repository.
    let config = ["--config", &stage.config];
    stage
        .cli
        .run([config[0], config[1], "backup", "shop"])?
        .exits(0)?;
    let server = stage.serve()?;
    let failed = || -> Vec<Value> {
        let runs = stage.runs().into_iter();
        runs.filter(|run| run["source"] == "all").collect()
    };
    wait_until("the record", || Ok(!failed().is_empty()))?;
    stop(server)?;
    let runs = failed();
    assert_eq!(runs[0]["result"], "failed", "{runs:?}");
    ensure!(runs[0]["slot"].is_string(), "{runs:?}");
    let why = runs[0]["error"].as_str().context("why")?;
    ensure!(why.contains("databases"), "{why}");
    Ok(())
}
