//! Several processes share the sources of one configuration: each is backed up once in a round, and none
//! is lost when one of them is killed, here or on another machine.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use backup_e2e::cli::{Cli, Run, Running};
use backup_e2e::pg::Cluster;
use backup_e2e::s3::{Kind, Server};
use backup_e2e::scene::{unique, wait_for_silence};
use nix::sys::signal::Signal;
use serde_json::Value;

const DATABASES: usize = 10;
const SCHEMAS: usize = 20;
const SOURCES: usize = DATABASES * SCHEMAS;
const WORKERS: usize = 4;

/// The round: who has a backup from it is not taken again.
const ROUND: &[&str] = &[
    "backup",
    "--all",
    "--older-than",
    "12h",
    "--json",
    "--quiet",
];
const LIMIT: Duration = Duration::from_mins(9);
const PATIENCE: Duration = Duration::from_mins(3);

/// Small databases, each schema of which is a source, and a bucket.
struct Fleet {
    cli: Cli,
    config: String,
    server: &'static Server,
    bucket: String,
}

impl Fleet {
    fn new() -> Result<Self> {
        let cluster = Cluster::shared(17)?;
        let server = Server::shared(Kind::SeaweedFs)?;
        let bucket = unique("workers").replace('_', "-");
        server.create_bucket(&bucket)?;
        let cli = Cli::without_server()?
            .with_env("KEY_ID", server.access_key())
            .with_env("KEY", server.secret_key());
        let mut text = format!(
            "[defaults]\nlease = '5s'\njobs = 1\n\
             [encryption]\nrecipients = ['{}']\n\
             [server.main]\nhost = '{}'\nport = {}\nuser = 'postgres'\nbin_dir = '{}'\n\
             [destination.store]\nurl = 's3://{bucket}'\nendpoint = '{}'\n\
             access_key_id = {{ env = 'KEY_ID' }}\nsecret_access_key = {{ env = 'KEY' }}\n",
            cli.keys()?.recipient,
            cluster.host(),
            cluster.port(),
            cluster.bin_dir().display(),
            server.endpoint(),
        );
        for number in 0..DATABASES {
            let database = cluster.fresh_db(&unique("fleet"))?;
            let mut sql = String::new();
            for schema in 0..SCHEMAS {
                writeln!(
                    sql,
                    "CREATE SCHEMA s{schema}; CREATE TABLE s{schema}.t AS SELECT g AS n FROM generate_series(1, 10) g;"
                )?;
                writeln!(
                    text,
                    "[source.d{number}-s{schema}]\nserver = 'main'\ndatabase = '{database}'\n\
                     schemas = ['s{schema}']"
                )?;
            }
            cluster.psql(&database, &sql)?;
        }
        let config = cli.private_file("backup.toml", &text)?;
        Ok(Self {
            cli,
            config,
            server,
            bucket,
        })
    }

    fn start(&self, arguments: &[&str]) -> Result<Running> {
        let config = ["--config", &self.config];
        self.cli.start(config.iter().chain(arguments))
    }

    fn run(&self, arguments: &[&str]) -> Result<Run> {
        self.start(arguments)?.wait_at_most(LIMIT)
    }

    /// How many backups each source has.
    fn backups(&self) -> Result<BTreeMap<String, usize>> {
        let listed = self.run(&["list", "--json"])?.exits(0)?.json()?;
        let mut counts = BTreeMap::new();
        for backup in listed.as_array().context("an array")? {
            let source = backup["source"].as_str().context("a source")?;
            *counts.entry(source.to_owned()).or_default() += 1;
        }
        Ok(counts)
    }

    /// The lease that a process holds, and its key.
    fn lease_of(&self, pid: u32) -> Result<Option<(String, Value)>> {
        for key in self.server.list_keys(&self.bucket, "_leases/backup/")? {
            let lease: Value =
                serde_json::from_slice(&self.server.get_object(&self.bucket, &key)?)?;
            if lease["state"] == "held" && lease["process"]["pid"] == pid {
                return Ok(Some((key, lease)));
            }
        }
        Ok(None)
    }

    /// Kills a worker in the middle of a backup, as another machine sees it, where nobody can know
    /// whether the process lives; returns the key of its lease.
    fn kill_at_work(&self, worker: Running) -> Result<String> {
        let mut found = None;
        wait_for_silence(PATIENCE, || {
            // What does not move cannot finish between the look and the end.
            worker.signal(Signal::SIGSTOP)?;
            let committed = |lease: &(String, Value)| -> Result<bool> {
                let id = lease.1["backup"].as_str().context("an id")?;
                let keys = self.server.list_keys(&self.bucket, "backups/")?;
                Ok(keys
                    .iter()
                    .any(|key| key.ends_with(&format!("/{id}/manifest.json"))))
            };
            found = match self.lease_of(worker.pid())? {
                Some(lease) if !committed(&lease)? => Some(lease),
                _ => None,
            };
            if found.is_some() {
                return Ok(None);
            }
            worker.signal(Signal::SIGCONT)?;
            Ok(Some("the worker holds nothing".to_owned()))
        })?;
        let (key, mut lease) = found.context("a lease")?;
        lease["process"]["table"] = "another boot".into();
        let altered = serde_json::to_vec(&lease)?;
        self.server.put_object(&self.bucket, &key, &altered)?;
        worker.signal(Signal::SIGKILL)?;
        worker.wait()?;
        Ok(key)
    }
}

/// What became of each source by one worker.
fn told(run: &Run) -> Result<BTreeMap<String, String>> {
    let mut states = BTreeMap::new();
    for line in run.text().lines() {
        let view: Value = serde_json::from_str(line)?;
        let source = view["source"].as_str().context("a source")?.to_owned();
        let outcome = view["status"].as_str().context("a status")?.to_owned();
        ensure!(
            states.insert(source, outcome).is_none(),
            "told twice: {line}"
        );
    }
    Ok(states)
}

fn taken(states: &BTreeMap<String, String>) -> BTreeSet<&String> {
    let taken = states.iter().filter(|(_, status)| *status == "success");
    taken.map(|(source, _)| source).collect()
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn four_workers_share_two_hundred_sources_and_one_is_killed() -> Result<()> {
    let fleet = Fleet::new()?;
    let mut workers = Vec::new();
    for _ in 0..WORKERS {
        workers.push(fleet.start(ROUND)?);
    }
    wait_for_silence(PATIENCE, || {
        let keys = fleet.server.list_keys(&fleet.bucket, "backups/")?;
        let count = keys
            .iter()
            .filter(|key| key.ends_with("/manifest.json"))
            .count();
        Ok((count < SOURCES / 5).then(|| format!("{count} backups")))
    })?;
    let key = fleet.kill_at_work(workers.remove(0))?;

    let mut survivors = Vec::new();
    for worker in workers {
        survivors.push(told(&worker.wait_at_most(LIMIT)?.exits(0)?)?);
    }
    let backups = fleet.backups()?;
    ensure!(backups.len() == SOURCES, "{} sources", backups.len());
    let twice: Vec<_> = backups.iter().filter(|(_, count)| **count != 1).collect();
    ensure!(twice.is_empty(), "{twice:?}");
    let mut all = BTreeSet::new();
    for states in &survivors {
        // Whoever ends well knows of each source that it has its backup.
        ensure!(states.len() == SOURCES, "{} of {SOURCES}", states.len());
        let other = states
            .values()
            .find(|status| !["success", "skipped"].contains(&status.as_str()));
        ensure!(other.is_none(), "{other:?}");
        for source in taken(states) {
            ensure!(all.insert(source), "{source} was taken by two");
        }
        ensure!(!taken(states).is_empty(), "a worker did nothing");
    }
    let lost = key
        .trim_start_matches("_leases/backup/")
        .trim_end_matches(".json");
    ensure!(all.contains(&lost.to_owned()), "nobody came back to {lost}");

    // What was killed is told as that, once, and nothing else failed.
    let runs = fleet.run(&["runs", "--json"])?.exits(0)?.json()?;
    let runs = runs.as_array().context("an array")?;
    let odd: Vec<_> = runs
        .iter()
        .filter(|run| run["result"] != "success")
        .collect();
    ensure!(odd.len() == 1, "{odd:?}");
    let (result, source) = (&odd[0]["result"], &odd[0]["source"]);
    ensure!(result == "interrupted" && source == lost, "{odd:?}");

    // The round is over: nothing is left to do for whoever comes late.
    let late = told(&fleet.run(ROUND)?.exits(0)?)?;
    ensure!(taken(&late).is_empty() && late.len() == SOURCES, "{late:?}");
    ensure!(fleet.backups()? == backups);
    Ok(())
}
