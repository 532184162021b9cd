//! Hundreds of backups of a database that changes, into one bucket, while runs are killed and stopped at
//! random, the way to the store breaks, and others prune, verify and restore there; then a look at what is
//! left.
//!
//! `soak [BACKUPS]` tries 500 unless told otherwise, prints what happened, and fails when a promise was
//! broken.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use backup_e2e::cli::{Cli, Run, Running};
use backup_e2e::fault::{Action, Direction, Faults, Proxy, Trigger};
use backup_e2e::pg::Cluster;
use backup_e2e::scene::{is_note, processes_with};
use backup_e2e::sweep::sweep;
use backup_e2e::vault::Vault;
use backup_e2e::{free_port, sample};
use nix::sys::signal::Signal;
use rand::seq::IndexedRandom as _;

/// No run takes longer, whatever is done to it.
const LIMIT: Duration = Duration::from_mins(3);

/// How many backups are kept.
const KEPT: usize = 12;

/// Longer than what dead runs leave is spared.
const LATER: Duration = Duration::from_hours(72);

/// How a run ends when nothing but the weather of this test was against it: done, failed, warnings, gone
/// meanwhile, another run, store, database, refused, time.
const ALLOWED: [i32; 9] = [0, 1, 3, 4, 5, 8, 9, 12, 124];

struct Soak {
    cluster: &'static Cluster,
    vault: Vault,
    database: String,
    backups: usize,
    begun: AtomicUsize,
    over: AtomicBool,
    restored: AtomicUsize,
    /// What happened how often: `backup killed`, `prune 0`.
    tally: Mutex<BTreeMap<String, usize>>,
    /// Promises that were broken.
    broken: Mutex<Vec<String>>,
}

/// What is done to a run.
#[derive(Clone, Copy)]
enum Fate {
    Calm,
    Signal(Signal, Duration),
}

impl Fate {
    fn random() -> Self {
        let after = Duration::from_millis(rand::random_range(0..2500));
        match rand::random_range(0..100) {
            0..20 => Self::Signal(Signal::SIGKILL, after),
            20..30 => Self::Signal(Signal::SIGTERM, after),
            _ => Self::Calm,
        }
    }
}

fn main() -> Result<()> {
    let backups = std::env::args().nth(1).map_or(Ok(500), |said| said.parse());
    let soak = Soak::new(backups.context("a number is wanted")?)?;
    let started = Instant::now();
    let server = Server::start(&soak)?;
    let before = server.costs()?;
    thread::scope(|scope| {
        let backing: Vec<_> = (0..2).map(|_| scope.spawn(|| soak.back_up())).collect();
        scope.spawn(|| soak.write());
        scope.spawn(|| soak.prune());
        scope.spawn(|| soak.verify());
        scope.spawn(|| soak.restore());
        for worker in backing {
            let _ = worker.join();
        }
        soak.over.store(true, Ordering::Relaxed);
    });
    let minutes = started.elapsed().as_secs_f64() / 60.0;
    let left = soak.look()?;
    let after = server.costs()?;
    server.stop()?;
    soak.tell(&format!(
        "{} backups in {minutes:.0} min; {left}; the server before and after: {before}, {after}",
        soak.backups
    ))
}

impl Soak {
    fn new(backups: usize) -> Result<Self> {
        let cluster = Cluster::shared(17)?;
        let database = cluster.fresh_db("soak")?;
        let rows = sample::bulk_sql("app", "bulk", 12);
        let sql = "CREATE TABLE state (seq bigint, entries bigint);
                   INSERT INTO state VALUES (0, 0);
                   CREATE TABLE log (seq bigint, text text, digest text);";
        cluster.psql(&database, &(rows + sql))?;
        Ok(Self {
            cluster,
            vault: Vault::seaweedfs(cluster)?,
            database,
            backups,
            begun: AtomicUsize::new(0),
            over: AtomicBool::new(false),
            restored: AtomicUsize::new(0),
            tally: Mutex::default(),
            broken: Mutex::default(),
        })
    }

    /// A command line whose way to the bucket can be broken.
    fn through(&self, proxy: &Proxy) -> Result<Cli> {
        let (server, _) = self.vault.bucket().context("a bucket")?;
        let endpoint = format!("http://{}", proxy.address());
        let cli = Cli::new(self.cluster)?.with_s3(server);
        Ok(cli.with_env("AWS_ENDPOINT_URL", &endpoint))
    }

    fn proxy(&self) -> Result<Proxy> {
        let (server, _) = self.vault.bucket().context("a bucket")?;
        Proxy::start(server.port())
    }

    fn count(&self, what: String) {
        let mut tally = self.tally.lock().expect("no test panics with it");
        *tally.entry(what).or_default() += 1;
    }

    fn breaks(&self, what: String) {
        let mut broken = self.broken.lock().expect("no test panics with it");
        broken.push(what);
    }

    /// Runs something under its fate, and judges how it ended.
    fn act(&self, cli: &Cli, fate: Fate, arguments: &[&str]) -> Option<Run> {
        let judged = || -> Result<Run> {
            let mut running = cli.start(arguments)?;
            if let Fate::Signal(signal, after) = fate {
                let end = Instant::now() + after;
                while Instant::now() < end && !running.has_ended()? {
                    thread::sleep(Duration::from_millis(10));
                }
                // It may have ended just now.
                let _ = running.signal(signal);
            }
            running.wait_at_most(LIMIT)
        };
        let name = arguments[0];
        match judged() {
            Err(error) => self.breaks(format!("{name}: {error:#}")),
            Ok(run) => {
                let ended = match (run.code, run.signal) {
                    (Some(code), _) => code.to_string(),
                    (None, signal) => format!("killed by {}", signal.unwrap_or(0)),
                };
                self.count(format!("{name}: {ended}"));
                let asked = matches!(fate, Fate::Signal(..));
                let allowed = match run.code {
                    Some(143) | None => asked,
                    Some(code) => ALLOWED.contains(&code),
                };
                if !allowed || run.stderr.contains("panicked") {
                    self.breaks(format!("{name} ended with {ended}: {}", run.stderr));
                }
                return Some(run);
            }
        }
        None
    }

    /// Takes backups until there were enough tries.
    fn back_up(&self) {
        let set_up = || -> Result<_> {
            let proxy = self.proxy()?;
            Ok((self.through(&proxy)?, proxy))
        };
        let (cli, proxy) = match set_up() {
            Ok(both) => both,
            Err(error) => return self.breaks(format!("{error:#}")),
        };
        let database = format!("--dbname={}", self.database);
        let recipient = &*self.vault.keys.recipient;
        while self.begun.fetch_add(1, Ordering::Relaxed) < self.backups {
            let weather = weather();
            if weather != Faults::default() {
                self.count("backups with a broken way to the store".to_owned());
            }
            proxy.set(weather);
            let to = [
                "backup",
                &database,
                "--to",
                &self.vault.url,
                "--recipient",
                recipient,
            ];
            let compress = *["zstd", "none", "gzip"]
                .choose(&mut rand::rng())
                .unwrap_or(&"zstd");
            let arguments: Vec<_> = to.into_iter().chain(["--compress", compress]).collect();
            self.act(&cli, Fate::random(), &arguments);
            proxy.heal();
            proxy.cut();
        }
    }

    /// Changes the database, so that each moment of it is another, and none fits with the next.
    fn write(&self) {
        let sql = "BEGIN; UPDATE state SET seq = seq + 1;
            INSERT INTO log SELECT seq, t, md5(t) FROM state, repeat(seq::text, 50) AS t;
            DELETE FROM log WHERE seq <= (SELECT seq FROM state) - 200;
            UPDATE state SET entries = (SELECT count(*) FROM log); COMMIT";
        while !self.over.load(Ordering::Relaxed) {
            if let Err(error) = self.cluster.psql(&self.database, sql) {
                self.breaks(format!("the writer: {error:#}"));
            }
            thread::sleep(Duration::from_millis(300));
        }
    }

    fn prune(&self) {
        let keep = KEPT.to_string();
        while !self.over.load(Ordering::Relaxed) {
            let arguments = [
                "prune",
                &self.database,
                "--keep-last",
                &keep,
                "--min-keep",
                "1",
                "--yes",
                "--from",
                &self.vault.url,
            ];
            self.act(&self.vault.cli, Fate::random(), &arguments);
            thread::sleep(Duration::from_secs(3));
        }
    }

    fn listed(&self) -> Result<Vec<String>> {
        let arguments = ["list", "--json", "--from", &self.vault.url];
        let run = self.vault.cli.run(arguments)?;
        if run.code == Some(4) {
            return Ok(Vec::new());
        }
        let views = run.exits(0)?.json()?;
        let views = views.as_array().context("an array")?;
        let ids = views.iter().filter_map(|view| view["id"].as_str());
        Ok(ids.map(str::to_owned).collect())
    }

    /// Some backup that is there now, if there is one.
    fn any(&self) -> Option<String> {
        let listed = self.listed();
        if let Err(error) = &listed {
            self.breaks(format!("list: {error:#}"));
        }
        listed.ok()?.choose(&mut rand::rng()).cloned()
    }

    fn verify(&self) {
        while !self.over.load(Ordering::Relaxed) {
            if let Some(id) = self.any() {
                let arguments = [
                    "verify",
                    &id,
                    "--level",
                    "decoded",
                    "-i",
                    &self.vault.keys.identity,
                    "--from",
                    &self.vault.url,
                ];
                self.act(&self.vault.cli, Fate::random(), &arguments);
            }
            thread::sleep(Duration::from_secs(2));
        }
    }

    fn restore(&self) {
        let mut number = 0;
        while !self.over.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_secs(2));
            let Some(id) = self.any() else { continue };
            number += 1;
            if let Err(error) = self.restore_one(&id, number, Fate::random()) {
                self.breaks(format!("restore of {id}: {error:#}"));
            }
        }
    }

    /// Restores a backup and looks whether it shows one moment of its database.
    fn restore_one(&self, id: &str, number: usize, fate: Fate) -> Result<()> {
        let target = format!("soak_restored_{number}");
        let flag = format!("--target-db={target}");
        let identity = &*self.vault.keys.identity;
        let arguments = [
            "restore",
            id,
            &flag,
            "-i",
            identity,
            "--from",
            &self.vault.url,
        ];
        let run = self.act(&self.vault.cli, fate, &arguments);
        if run.is_some_and(|run| run.code == Some(0)) {
            let sql = "SELECT (SELECT entries FROM state) = count(*)
                         AND coalesce(max(seq), 0) = (SELECT seq FROM state)
                         AND count(*) = count(DISTINCT seq)
                         AND coalesce(bool_and(md5(text) = digest), true)
                         AND (SELECT count(*) > 0 FROM app.bulk) FROM log";
            let fits = self.cluster.query(&target, sql)?;
            ensure!(fits == "t", "it does not show one moment");
            self.restored.fetch_add(1, Ordering::Relaxed);
        }
        if self.cluster.has_db(&target)? {
            self.cluster.drop_db(&target)?;
        }
        Ok(())
    }

    /// What is there in the end, when all are gone.
    fn look(&self) -> Result<String> {
        let keep = KEPT.to_string();
        let prune = [
            "prune",
            &self.database,
            "--keep-last",
            &keep,
            "--min-keep",
            "1",
            "--yes",
            "--from",
            &self.vault.url,
        ];
        self.vault.cli.run(prune)?.exits(0)?;
        let (server, bucket) = self.vault.bucket().context("a bucket")?;
        let swept = sweep(server, &self.vault.url, &self.database, LATER)?;
        let kept = self.listed()?;
        ensure!(kept.len() <= KEPT, "{} are kept", kept.len());
        // Whoever looks for the first time sees the same.
        let fresh = self.vault.beside(self.cluster)?;
        let arguments = ["list", "--json", "--from", &self.vault.url];
        let (first, again) = (fresh.cli.run(arguments)?, self.vault.cli.run(arguments)?);
        ensure!(first.json()? == again.json()?, "two lists");
        for (number, id) in kept.iter().enumerate() {
            self.vault.verify(id)?;
            let before = self.restored.load(Ordering::Relaxed);
            self.restore_one(id, 1_000_000 + number, Fate::Calm)?;
            ensure!(
                self.restored.load(Ordering::Relaxed) > before,
                "{id} does not restore"
            );
        }
        let mut keys = self.vault.keys_stored()?;
        let objects = keys.len();
        keys.retain(|key| {
            let bar = key.ends_with("/manifest.json");
            !bar && key != "repository.json"
                && !is_note(key)
                && !kept.iter().any(|id| key.contains(id))
        });
        ensure!(keys.is_empty(), "orphans: {keys:?}");
        let uploads = server.list_multipart_uploads(bucket)?;
        ensure!(uploads.is_empty(), "open uploads: {uploads:?}");
        let left = processes_with(&[format!("PGDATABASE={}", self.database)]);
        ensure!(left.is_empty(), "processes: {left:?}");
        let sessions =
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'backup-manager'";
        let sessions = self.cluster.query("postgres", sessions)?;
        ensure!(sessions == "0", "{sessions} sessions");
        Ok(format!(
            "{} kept, all verified, restored and of one moment; {} dead runs and {} uploads swept; \
             {objects} objects, no orphan, no open upload, no process, no session",
            kept.len(),
            swept.swept.len(),
            swept.aborted_uploads
        ))
    }

    fn tell(&self, summary: &str) -> Result<()> {
        let mut out = std::io::stdout();
        writeln!(out, "{summary}")?;
        writeln!(
            out,
            "{} restores looked into",
            self.restored.load(Ordering::Relaxed)
        )?;
        for (what, count) in &*self.tally.lock().expect("no test panics with it") {
            writeln!(out, "{count:6}  {what}")?;
        }
        let broken = self.broken.lock().expect("no test panics with it");
        for what in &*broken {
            writeln!(out, "BROKEN: {what}")?;
        }
        ensure!(broken.is_empty(), "{} promises were broken", broken.len());
        Ok(())
    }
}

/// How the way to the store is for one run.
fn weather() -> Faults {
    let good = Faults::default();
    let after_bytes = rand::random_range(0..12_000_000);
    let trigger = |action, direction, hits| Faults {
        trigger: Some(Trigger {
            action,
            direction,
            after_bytes,
            hits,
        }),
        ..Faults::default()
    };
    match rand::random_range(0..100) {
        0..10 => trigger(Action::Reset, Direction::ToServer, rand::random_range(1..6)),
        10..15 => trigger(Action::Close, Direction::ToClient, 2),
        15..18 => Faults {
            refuse: true,
            ..good
        },
        18..25 => Faults {
            latency: Duration::from_millis(20),
            ..good
        },
        25..30 => Faults {
            bytes_per_second: Some(4_000_000),
            ..good
        },
        _ => good,
    }
}

/// A server that looks at the bucket all the time.
struct Server {
    running: Running,
}

impl Server {
    fn start(soak: &Soak) -> Result<Self> {
        let cli = &soak.vault.cli;
        let settings = format!(
            "[encryption]\nmode = 'none'\n[destination.near]\nurl = '{}'\n\
             [source.{}]\ndatabase = '{}'\ndestinations = ['near']\n",
            soak.vault.url, soak.database, soak.database
        );
        let made = cli.run(["token", "soak", "--role", "viewer", "--json"])?;
        let made = made.exits(0)?.json()?;
        let toml = made["toml"].as_str().context("the entry")?;
        let config = cli.private_file("server.toml", &format!("{settings}\n{toml}"))?;
        let address = format!("127.0.0.1:{}", free_port()?);
        let arguments = ["--config", &config, "serve", "--listen", &address];
        let running = Running::start(cli.command_of("backup-server", arguments)?)?;
        let deadline = Instant::now() + LIMIT;
        while ureq::get(format!("http://{address}/readyz"))
            .call()
            .is_err()
        {
            ensure!(Instant::now() < deadline, "the server is not ready");
            thread::sleep(Duration::from_millis(100));
        }
        Ok(Self { running })
    }

    /// What it holds.
    fn costs(&self) -> Result<String> {
        // What it holds for its last look is gone soon.
        thread::sleep(Duration::from_secs(20));
        let process = format!("/proc/{}", self.running.pid());
        let files = fs::read_dir(format!("{process}/fd"))?.count();
        let status = fs::read_to_string(format!("{process}/status"))?;
        let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let memory = memory.context("VmRSS")?.trim();
        Ok(format!("{files} descriptors and {memory}"))
    }

    fn stop(self) -> Result<()> {
        self.running.signal(Signal::SIGTERM)?;
        self.running.wait_at_most(LIMIT)?.exits(0).map(drop)
    }
}
