//! `backup-server` as it is run: over backups that `backup-cli` took of a real server.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use backup_e2e::cli::{Cli, Running};
use backup_e2e::pg::Cluster;
use backup_e2e::scene::unique;
use backup_e2e::{free_port, sample};
use nix::sys::signal::Signal;
use serde_json::Value;

/// How long the server may take to do anything.
const LIMIT: Duration = Duration::from_mins(1);

struct Server {
    running: Running,
    url: String,
    token: String,
}

impl Server {
    /// Starts it with a token for all sources.
    fn start(cli: &Cli, more: &str) -> Result<Self> {
        let made = cli.run(["token", "test", "--role", "viewer", "--json"])?;
        let made = made.exits(0)?.json()?;
        let toml = made["toml"].as_str().context("the entry")?;
        let token = made["token"].as_str().context("the token")?.to_owned();
        let config = cli.private_file("server.toml", &format!("{more}\n{toml}"))?;
        let address = format!("127.0.0.1:{}", free_port()?);
        let running = start(cli, &config, &address)?;
        let server = Self {
            running,
            url: format!("http://{address}"),
            token,
        };
        server.wait_until(|server| Ok(server.get("/readyz").is_ok()))?;
        Ok(server)
    }

    fn wait_until(&self, done: impl Fn(&Self) -> Result<bool>) -> Result<()> {
        let deadline = Instant::now() + LIMIT;
        while !done(self)? {
            ensure!(Instant::now() < deadline, "the server is still not ready");
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    fn get(&self, path: &str) -> Result<Value> {
        let request = ureq::get(format!("{}{path}", self.url));
        let request = request.header("Authorization", format!("Bearer {}", self.token));
        let text = request.call()?.body_mut().read_to_string()?;
        Ok(serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }
}

fn start(cli: &Cli, config: &str, address: &str) -> Result<Running> {
    let arguments = ["--config", config, "serve", "--listen", address];
    Running::start(cli.command_of("backup-server", arguments)?)
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn it_tells_of_backups_taken_before_and_since_and_stops_in_good_order() -> Result<()> {
    let cluster = Cluster::shared(17)?;
    let database = cluster.fresh_db(&unique("server"))?;
    cluster.psql(&database, &sample::bulk_sql("app", "bulk", 1))?;
    let cli = Cli::new(cluster)?;
    let settings = format!(
        "[encryption]\nmode = 'none'\n[destination.near]\nurl = '{}'\n\
         [source.shop]\ndatabase = '{database}'\ndestinations = ['near']\n",
        cli.local_store()
    );
    let config = cli.private_file("backup.toml", &settings)?;
    let take = || -> Result<String> {
        let taken = cli.run(["--config", &config, "backup", "shop", "--json"])?;
        let taken = taken.exits(0)?.json()?;
        Ok(taken["id"].as_str().context("an id")?.to_owned())
    };
    let first = take()?;
    let server = Server::start(&cli, &settings)?;
    let page = server.get("/api/v1/sources/shop/backups?days=30")?;
    assert_eq!(page["items"][0]["id"], first.as_str());
    assert_eq!(page["items"][0]["database"], database.as_str());
    let source = server.get("/api/v1/sources/shop")?;
    assert_eq!(source["status"], "ok");
    let runs = server.get("/api/v1/runs?operation=backup")?;
    assert_eq!(runs["items"][0]["backup"], first.as_str());

    // Of two that begin in one second, neither is the newer one.
    thread::sleep(Duration::from_millis(1100));
    let second = take()?;
    server.wait_until(|server| {
        let latest = server.get("/api/v1/sources/shop/backups/latest")?;
        Ok(latest["id"] == second.as_str())
    })?;
    let backup = server.get(&format!("/api/v1/backups/{second}"))?;
    assert!(
        backup["tables"].as_u64().is_some_and(|tables| tables > 0),
        "{backup}"
    );

    let token = server.token.clone();
    server.running.signal(Signal::SIGTERM)?;
    let ended = server.running.wait_at_most(LIMIT)?.exits(0)?;
    assert!(
        ended.stderr.contains("listening on http://127.0.0.1:"),
        "{}",
        ended.stderr
    );
    assert!(!ended.stderr.contains(&token), "the token is in the log");
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn it_does_not_start_where_tokens_would_be_seen() -> Result<()> {
    let cli = Cli::without_server()?;
    let settings = "[destination.near]\nurl = 'file:///nowhere'";
    let config = cli.private_file("server.toml", settings)?;
    for address in ["0.0.0.0:0", "[::]:0"] {
        let run = start(&cli, &config, address)?;
        let run = run.wait_at_most(LIMIT)?.exits(2)?;
        if !run
            .stderr
            .contains("server_http.listen: others can reach this address")
        {
            bail!("{}", run.stderr);
        }
    }
    Ok(())
}
