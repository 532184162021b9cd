//! A backup that fails for a reason that may pass is tried again, and each attempt is on record. A
//! place without room gets nothing.

use std::fs::{self, File};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use backup_e2e::cli::{ATTEMPTS, Cli, Run};
use backup_e2e::fault::{Faults, Proxy};
use backup_e2e::pg::{Cluster, ClusterOptions};
use backup_e2e::s3::{Kind, Server};
use backup_e2e::sample;
use backup_e2e::scene::unique;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// A program that is configured by a file and obeys what it says of attempts.
struct Stage {
    cli: Cli,
    config: String,
}

impl Stage {
    fn new(cli: Cli, text: &str) -> Result<Self> {
        let text = format!("[encryption]\nmode = 'none'\n{text}");
        let config = cli.private_file("backup.toml", &text)?;
        let cli = cli.without_env(ATTEMPTS);
        Ok(Self { cli, config })
    }

    fn arguments<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        [&["--config", &self.config], more].concat()
    }

    fn run(&self, arguments: &[&str]) -> Result<Run> {
        self.cli.run(self.arguments(arguments))
    }

    /// What is on record of backups, oldest first: how each ended, and why.
    fn history(&self) -> Result<Vec<(String, Value)>> {
        let runs = self.run(&["runs", "--operation", "backup", "--json"])?;
        let runs = runs.exits(0)?.json()?;
        let runs = runs.as_array().context("an array")?.iter().rev();
        let fact = |run: &Value| {
            let result = run["result"].as_str().unwrap_or_default().to_owned();
            (result, run["error"].clone())
        };
        Ok(runs.map(fact).collect())
    }
}

const LATER: &str = "retry = { attempts = 3, delays = ['10s'] }";

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_database_that_comes_back_is_backed_up_at_a_later_attempt() -> Result<()> {
    let mut cluster = Cluster::start(17, &ClusterOptions::default())?;
    let database = cluster.fresh_db("again")?;
    cluster.psql(&database, &sample::bulk_sql("app", "bulk", 1))?;
    let cli = Cli::new(&cluster)?;
    let text = format!(
        "[source.shop]\ndatabase = '{database}'\n\
         retry = {{ attempts = 60, delays = ['1s'] }}\n[destination.near]\nurl = '{}'\n",
        cli.local_store()
    );
    let stage = Stage::new(cli, &text)?;
    // A repository, so that failures can be recorded.
    stage.run(&["backup", "shop"])?.exits(0)?;
    cluster.crash()?;
    let running = stage
        .cli
        .start(stage.arguments(&["backup", "shop", "--json"]))?;
    // It is not tried again before this says so.
    wait_for_failure(&stage)?;
    cluster.restart()?;
    let run = running.wait_at_most(Duration::from_mins(3))?.exits(0)?;
    let backup = run.json()?;
    assert_eq!(backup["status"], "success");
    let attempts = backup["attempts"].as_u64().context("attempts")?;
    ensure!(attempts > 1, "{backup}");
    let text = run.stderr;
    let said = "backup of shop: attempt 2 of 60 in 1 s: ";
    ensure!(text.contains(said), "{text}");
    let history = stage.history()?;
    // The first, the failed ones and the good one.
    assert_eq!(history.len() as u64, attempts + 1, "{history:?}");
    for (index, (result, kind)) in history.iter().enumerate() {
        let good = index == 0 || index + 1 == history.len();
        let expected = if good { "success" } else { "failed" };
        assert_eq!(result, expected, "{history:?}");
        assert_eq!(kind.is_null(), good, "{history:?}");
    }
    Ok(())
}

fn wait_for_failure(stage: &Stage) -> Result<()> {
    for _ in 0..600 {
        if stage
            .history()?
            .iter()
            .any(|(result, _)| result == "failed")
        {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    anyhow::bail!("no attempt failed within a minute")
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_store_that_refuses_once_has_the_backup_after_the_second_attempt() -> Result<()> {
    let cluster = Cluster::shared(17)?;
    let server = Server::shared(Kind::SeaweedFs)?;
    let database = cluster.fresh_db(&unique("again"))?;
    cluster.psql(&database, &sample::bulk_sql("app", "bulk", 1))?;
    let bucket = database.replace('_', "-");
    server.create_bucket(&bucket)?;
    let proxy = Proxy::start(server.port())?;
    let cli = Cli::new(cluster)?
        .with_env("FAR_ID", server.access_key())
        .with_env("FAR_KEY", server.secret_key());
    let text = format!(
        "[defaults]\n{LATER}\n[source.shop]\ndatabase = '{database}'\n[destination.far]\n\
         url = 's3://{bucket}/backups'\nendpoint = 'http://{}'\nregion = '{}'\n\
         allow_http = true\nretry_timeout = '1s'\naccess_key_id = {{ env = 'FAR_ID' }}\n\
         secret_access_key = {{ env = 'FAR_KEY' }}\n",
        proxy.address(),
        server.region(),
    );
    let stage = Stage::new(cli, &text)?;
    proxy.set(Faults {
        refuse: true,
        ..Faults::default()
    });
    let [out, err] = ["out", "err"].map(|name| stage.cli.folder().join(name));
    let mut child = stage
        .cli
        .command(stage.arguments(&["backup", "shop", "--json"]))?
        .stdout(File::create(&out)?)
        .stderr(File::create(&err)?)
        .spawn()?;
    let says = "backup of shop: attempt 2 of 3 in 10 s: ";
    while !fs::read_to_string(&err)?.contains(says) {
        ensure!(child.try_wait()?.is_none(), fs::read_to_string(&err)?);
        std::thread::sleep(Duration::from_millis(20));
    }
    proxy.heal();
    let status = child.wait()?;
    ensure!(status.success(), "{status}: {}", fs::read_to_string(&err)?);
    let backup: Value = serde_json::from_slice(&fs::read(&out)?)?;
    assert_eq!(backup["status"], "success", "{backup}");
    assert_eq!(backup["attempts"], 2, "{backup}");
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn what_will_not_pass_is_not_tried_again_and_a_signal_ends_the_wait() -> Result<()> {
    let cluster = Cluster::shared(17)?;
    let cli = Cli::new(cluster)?;
    let text = format!(
        "[defaults]\nretry = {{ attempts = 3, delays = ['1h'] }}\n\
         [source.gone]\ndatabase = 'no such database'\n\
         [source.down]\ndatabase = 'postgres'\nserver = 'down'\n\
         [server.down]\nhost = '127.0.0.1'\nport = 1\n[destination.near]\nurl = '{}'\n",
        cli.local_store()
    );
    let stage = Stage::new(cli, &text)?;
    let backup = stage.run(&["backup", "gone", "--json"])?.exits(9)?.json()?;
    assert_eq!(backup["attempts"], 1, "{backup}");
    // A login without a configured source waits for nothing.
    let to = stage.cli.local_store();
    let zero = [
        "backup",
        "-h",
        "127.0.0.1",
        "-p",
        "1",
        "-d",
        "x",
        "--to",
        &to,
    ];
    let zero = [&zero[..], &["--no-encryption", "--json"]].concat();
    assert_eq!(stage.cli.run(zero)?.exits(9)?.json()?["attempts"], 1);
    let running = stage
        .cli
        .start(stage.arguments(&["backup", "down", "--json"]))?;
    std::thread::sleep(Duration::from_secs(3));
    running.signal(Signal::SIGTERM)?;
    let run = running.wait_at_most(Duration::from_secs(30))?.exits(143)?;
    let backup = run.json()?;
    assert_eq!(backup["error"]["kind"], "cancelled", "{backup}");
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_place_without_room_is_refused_before_any_work() -> Result<()> {
    let cluster = Cluster::shared(17)?;
    let server = Server::shared(Kind::SeaweedFs)?;
    let database = cluster.fresh_db(&unique("room"))?;
    cluster.psql(&database, &sample::bulk_sql("app", "bulk", 1))?;
    let bucket = database.replace('_', "-");
    server.create_bucket(&bucket)?;
    let cli = Cli::new(cluster)?
        .with_env("FAR_ID", server.access_key())
        .with_env("FAR_KEY", server.secret_key());
    let near = cli.local_store();
    let text = format!(
        "[defaults]\nmin_free_space = '9EB'\n\
         [source.both]\ndatabase = '{database}'\ndestinations = ['near', 'far']\n\
         [source.full]\ndatabase = '{database}'\ndestinations = ['near']\nserver = 'down'\n\
         [source.easy]\ndatabase = '{database}'\ndestinations = ['near']\nmin_free_space = '1kB'\n\
         [server.down]\nhost = '127.0.0.1'\nport = 1\n\
         [destination.near]\nurl = '{near}'\n[destination.far]\nurl = 's3://{bucket}/b'\n\
         endpoint = '{}'\nregion = '{}'\nallow_http = true\n\
         access_key_id = {{ env = 'FAR_ID' }}\nsecret_access_key = {{ env = 'FAR_KEY' }}\n",
        server.endpoint(),
        server.region(),
    );
    let stage = Stage::new(cli, &text)?;
    // Nothing was asked of the server, which is not there, and nothing was made.
    let run = stage.run(&["backup", "full"])?.exits(7)?;
    let text = run.stderr;
    for says in [
        "near",
        "is free in file://",
        "min_free_space is 9EB",
        "make room there",
    ] {
        ensure!(text.contains(says), "{says}: {text}");
    }
    ensure!(!stage.cli.local_root().exists(), "something was made");

    let backup = stage.run(&["backup", "both", "--json"])?.exits(3)?.json()?;
    assert_eq!(backup["status"], "partial", "{backup}");
    assert_eq!(backup["destinations"][0]["name"], "near", "{backup}");
    assert_eq!(backup["destinations"][0]["status"], "failed", "{backup}");
    let far = json!({ "name": "far", "status": "success", "error": null });
    assert_eq!(backup["destinations"][1], far, "{backup}");
    ensure!(!stage.cli.local_root().exists(), "something was made");

    stage.run(&["backup", "easy"])?.exits(0)?;
    Ok(())
}
