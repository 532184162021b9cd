//! `backup-server` as it is run: over backups that `backup-cli` took of a real server.

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use backup_e2e::cli::Cli;
use backup_e2e::http::Server;
use backup_e2e::pg::Cluster;
use backup_e2e::sample;
use backup_e2e::scene::unique;

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
    let server = Server::start(&cli, &settings, &[("test", "viewer")])?;
    let page = server.get("/api/v1/sources/shop/backups?days=30", "test")?;
    assert_eq!(page["items"][0]["id"], first.as_str());
    assert_eq!(page["items"][0]["database"], database.as_str());
    let source = server.get("/api/v1/sources/shop", "test")?;
    assert_eq!(source["status"], "ok");
    let runs = server.get("/api/v1/runs?operation=backup", "test")?;
    assert_eq!(runs["items"][0]["backup"], first.as_str());

    // Of two that begin in one second, neither is the newer one.
    thread::sleep(Duration::from_millis(1100));
    let second = take()?;
    server.wait_until(|server| {
        let latest = server.get("/api/v1/sources/shop/backups/latest", "test")?;
        Ok(latest["id"] == second.as_str())
    })?;
    let backup = server.get(&format!("/api/v1/backups/{second}"), "test")?;
    assert!(
        backup["tables"].as_u64().is_some_and(|tables| tables > 0),
        "{backup}"
    );

    let token = server.token("test").to_owned();
    let ended = server.stop()?;
    assert!(
        ended.stderr.contains("listening on http://127.0.0.1:"),
        "{}",
        ended.stderr
    );
    assert!(!ended.stderr.contains(&token), "the token is in the log");
    Ok(())
}
