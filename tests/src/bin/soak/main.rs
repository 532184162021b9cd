//! Hundreds of backups of a database that changes, into one bucket, while runs are killed and stopped at
//! random, the way to the store breaks, others prune, verify and restore there, and a server is asked what
//! it sees; then a look at what is left.
//!
//! `soak [BACKUPS [SEED]]` tries 500 unless told otherwise, prints what happened, and fails when a promise was
//! broken. The seed says what is done to the runs of each worker, and not when they meet.

mod end;
mod fate;
mod ledger;
mod onlooker;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, bail, ensure};
use backup_e2e::cli::{Cli, Run};
use backup_e2e::fault::{Action, Faults, Proxy};
use backup_e2e::pg::Cluster;
use backup_e2e::sample;
use backup_e2e::scene::{unique, wait_for_silence};
use backup_e2e::vault::Vault;

use fate::{Dice, Fate};
use ledger::{Attempt, KEPT, Ledger, lost};
use onlooker::Onlooker;

/// No run takes longer, whatever is done to it: a request to a store that is away is repeated for almost five
/// minutes.
const LIMIT: Duration = Duration::from_mins(10);

/// Nor does one that was asked to end, from then on: it may clean up for a minute.
const ASKED: Duration = Duration::from_mins(2);

/// How long processes and sessions may outlive a run.
const GONE: Duration = Duration::from_mins(1);

/// How often a listing is made that may have been overtaken.
const LOOKS: usize = 3;

/// The table that stays as it is.
const BULK: &str = "table app.bulk";

struct Soak {
    cluster: &'static Cluster,
    vault: Vault,
    database: String,
    /// What [`BULK`] holds.
    bulk: String,
    backups: usize,
    seed: u64,
    started: Instant,
    begun: AtomicUsize,
    over: AtomicBool,
    /// Restores that were begun, and those whose result was looked into.
    restores: AtomicUsize,
    restored: AtomicUsize,
    ledger: Mutex<Ledger>,
    /// What happened how often: `backup: 0`, `prune: killed by 9`.
    tally: Mutex<BTreeMap<String, usize>>,
    /// Promises that were broken.
    broken: Mutex<Vec<String>>,
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let backups = arguments.next().map_or(Ok(500), |said| said.parse());
    let seed = arguments
        .next()
        .map_or(Ok(rand::random()), |said| said.parse());
    let soak = Soak::new(
        backups.context("a number of backups is wanted")?,
        seed.context("a number is wanted to draw from")?,
    )?;
    soak.say(&format!("{} backups, seed {}", soak.backups, soak.seed));
    let onlooker = Onlooker::start(&soak.vault, &soak.database)?;
    // What it holds for its first look is gone soon.
    thread::sleep(Duration::from_secs(20));
    let before = onlooker.costs()?;
    soak.run(&onlooker);
    let minutes = soak.started.elapsed().as_secs_f64() / 60.0;
    let left = soak.look(&onlooker);
    let costs = match onlooker.costs_after(before) {
        Ok(after) => format!("the server before and after: {before}, {after}"),
        Err(error) => {
            soak.breaks(format!("{error:#}"));
            String::new()
        }
    };
    soak.note("the server's end", onlooker.stop());
    soak.tell(&format!(
        "{} backups begun in {minutes:.0} min; {left}; {costs}",
        soak.backups
    ))
}

/// What the tally calls a way that was struck.
fn struck_by(action: Action) -> String {
    format!("backups whose way to the store was struck: {action:?}")
}

/// The database that a restore makes.
fn restored_name(database: &str, number: usize) -> String {
    format!("{database}_restored_{number}")
}

impl Soak {
    fn new(backups: usize, seed: u64) -> Result<Self> {
        let cluster = Cluster::shared(17)?;
        let database = cluster.fresh_db(&unique("soak"))?;
        let rows = sample::bulk_sql("app", "bulk", 12);
        let sql = "CREATE TABLE state (seq bigint, entries bigint);
                   INSERT INTO state VALUES (0, 0);
                   CREATE TABLE log (seq bigint, text text, digest text);";
        cluster.psql(&database, &(rows + sql))?;
        let bulk = cluster.contents(&database)?.remove(BULK);
        Ok(Self {
            cluster,
            vault: Vault::seaweedfs(cluster)?,
            database,
            bulk: bulk.context(BULK)?,
            backups,
            seed,
            started: Instant::now(),
            begun: AtomicUsize::new(0),
            over: AtomicBool::new(false),
            restores: AtomicUsize::new(0),
            restored: AtomicUsize::new(0),
            ledger: Mutex::default(),
            tally: Mutex::default(),
            broken: Mutex::default(),
        })
    }

    /// Lets all do their work until there were enough backups.
    fn run(&self, onlooker: &Onlooker) {
        let dice = |worker| Dice::new(self.seed, worker);
        thread::scope(|scope| {
            let backing: Vec<_> = (0..2)
                .map(|worker| scope.spawn(move || self.back_up(dice(worker))))
                .collect();
            scope.spawn(|| self.write());
            scope.spawn(|| self.prune(dice(2)));
            scope.spawn(|| self.verify(dice(3)));
            scope.spawn(|| self.restore(dice(4)));
            scope.spawn(|| self.ask(onlooker));
            scope.spawn(|| self.tell_progress());
            for worker in backing {
                if worker.join().is_err() {
                    self.breaks("a worker of the soak died".to_owned());
                }
            }
            self.over.store(true, Ordering::Relaxed);
        });
    }

    fn goes_on(&self) -> bool {
        !self.over.load(Ordering::Relaxed)
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

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().expect("no worker panics with it")
    }

    fn count(&self, what: String) {
        let mut tally = self.tally.lock().expect("no worker panics with it");
        *tally.entry(what).or_default() += 1;
    }

    fn say(&self, text: &str) {
        let minutes = self.started.elapsed().as_secs() / 60;
        // Whoever closed it reads no more.
        let _ = writeln!(std::io::stdout(), "{minutes:3} min  {text}");
    }

    fn breaks(&self, what: String) {
        let mut broken = self.broken.lock().expect("no worker panics with it");
        if !broken.contains(&what) {
            self.say(&format!("BROKEN: {what}"));
            broken.push(what);
        }
    }

    fn note(&self, what: &str, result: Result<()>) {
        if let Err(error) = result {
            self.breaks(format!("{what}: {error:#}"));
        }
    }

    /// Runs something under its fate, and judges how it ended. `fair` is the weather when the store is within
    /// reach.
    fn act(&self, cli: &Cli, (fate, fair): (Fate, bool), arguments: &[&str]) -> Option<Run> {
        let name = arguments[0];
        let ran = || -> Result<Run> {
            let mut running = cli.start(arguments)?;
            let Fate::Signal(signal, after) = fate else {
                return running.wait_at_most(LIMIT);
            };
            let end = Instant::now() + after;
            while Instant::now() < end && !running.has_ended()? {
                thread::sleep(Duration::from_millis(10));
            }
            // It may have ended just now.
            let _ = running.signal(signal);
            running.wait_at_most(ASKED)
        };
        let run = match ran() {
            Ok(run) => run,
            Err(error) => {
                self.breaks(format!("{name} ({fate:?}, fair: {fair}): {error:#}"));
                return None;
            }
        };
        let ended = match (run.code, run.signal) {
            (Some(code), _) => code.to_string(),
            (None, signal) => format!("killed by {}", signal.unwrap_or(0)),
        };
        self.count(format!("{name}: {ended}"));
        if !fate.allows(name, fair, &run) || run.stderr.contains("panicked") {
            let said = format!("{}{}", run.text(), run.stderr);
            self.breaks(format!(
                "{name} ({fate:?}, fair: {fair}) ended with {ended}: {said}"
            ));
        }
        Some(run)
    }

    /// Takes backups until there were enough tries.
    fn back_up(&self, mut dice: Dice) {
        let set_up = || -> Result<_> {
            let proxy = self.proxy()?;
            Ok((self.through(&proxy)?, proxy))
        };
        let (cli, proxy) = match set_up() {
            Ok(both) => both,
            Err(error) => return self.breaks(format!("{error:#}")),
        };
        while self.begun.fetch_add(1, Ordering::Relaxed) < self.backups {
            let (weather, fate) = (dice.weather(), dice.fate());
            let compress = dice.one_of(&["zstd", "none", "gzip"]).unwrap_or(&"zstd");
            let fair = !weather.refuse && weather.trigger.is_none();
            if weather != Faults::default() {
                self.count("backups with a broken or slow way to the store".to_owned());
            }
            let struck = proxy.struck();
            proxy.set(weather.clone());
            match self.back_up_once(&cli, (fate, fair), compress) {
                Ok(run) => self.pause_after(run.as_ref(), &weather),
                Err(error) => self.breaks(format!("backup: {error:#}")),
            }
            if let Some(trigger) = weather.trigger
                && proxy.struck() > struck
            {
                self.count(struck_by(trigger.action));
            }
            proxy.heal();
            proxy.cut();
        }
    }

    /// Lets the other worker have its turn, and says what took long.
    fn pause_after(&self, run: Option<&Run>, weather: &Faults) {
        let Some(run) = run else { return };
        if run.elapsed > Duration::from_mins(1) {
            let seconds = run.elapsed.as_secs();
            self.say(&format!(
                "a backup took {seconds} s, and ended with {:?}: {weather:?}",
                run.code
            ));
        }
        if run.code == Some(5) {
            thread::sleep(Duration::from_secs(3));
        }
    }

    /// Takes one backup, and notes what it says.
    fn back_up_once(&self, cli: &Cli, fate: (Fate, bool), compress: &str) -> Result<Option<Run>> {
        let database = format!("--dbname={}", self.database);
        let (url, recipient) = (&*self.vault.url, &*self.vault.keys.recipient);
        let (began, before) = (SystemTime::now(), self.state(&self.database)?);
        let run = self.act(
            cli,
            fate,
            &[
                "backup",
                &database,
                "--to",
                url,
                "--recipient",
                recipient,
                "--compress",
                compress,
                "--json",
            ],
        );
        let attempt = Attempt {
            began,
            ended: SystemTime::now(),
            states: before..=self.state(&self.database)?,
        };
        self.ledger().backed_up(attempt, run.as_ref())?;
        Ok(run)
    }

    /// How often a database was changed.
    fn state(&self, database: &str) -> Result<i64> {
        let seq = self.cluster.query(database, "SELECT seq FROM state")?;
        seq.parse().context(seq)
    }

    /// Changes the database, so that each moment of it is another, and none fits with the next.
    fn write(&self) {
        let sql = "BEGIN; UPDATE state SET seq = seq + 1;
            INSERT INTO log SELECT seq, t, md5(t) FROM state, repeat(seq::text, 50) AS t;
            DELETE FROM log WHERE seq <= (SELECT seq FROM state) - 200;
            UPDATE state SET entries = (SELECT count(*) FROM log); COMMIT";
        while self.goes_on() {
            let written = self.cluster.psql(&self.database, sql);
            self.note("the writer", written.map(drop));
            thread::sleep(Duration::from_millis(300));
        }
    }

    fn prune(&self, mut dice: Dice) {
        while self.goes_on() {
            let pruned = self.prune_once(dice.fate());
            self.note("prune", pruned.map(drop));
            thread::sleep(Duration::from_secs(3));
        }
    }

    /// Prunes, and judges what that says.
    fn prune_once(&self, fate: Fate) -> Result<Option<Run>> {
        let (keep, url) = (KEPT.to_string(), &*self.vault.url);
        let known = self.ledger().known();
        let run = self.act(
            &self.vault.cli,
            (fate, true),
            &[
                "prune",
                &self.database,
                "--keep-last",
                &keep,
                "--min-keep",
                "1",
                "--yes",
                "--from",
                url,
                "--json",
            ],
        );
        self.ledger().pruned(&known, run.as_ref())?;
        Ok(run)
    }

    fn listed(&self) -> Result<Vec<String>> {
        let arguments = ["list", "--json", "--from", &self.vault.url];
        let views = self.vault.cli.run(arguments)?.exits(0)?.json()?;
        let views = views.as_array().context("an array")?;
        let ids = views
            .iter()
            .map(|view| view["id"].as_str().map(str::to_owned));
        ids.collect::<Option<_>>().context("ids")
    }

    /// Some backup that is there now, if there is one; none may be missing.
    fn any(&self, dice: &mut Dice) -> Result<Option<String>> {
        let known = self.ledger().known();
        let mut missing = Vec::new();
        // A listing shows no one moment: the backup that lets another go may have come after its place was
        // passed. One that begins later has both.
        for _ in 0..LOOKS {
            let listed = self.listed()?;
            missing = lost(&known, &listed);
            if missing.is_empty() {
                return Ok(dice.one_of(&listed).cloned());
            }
        }
        bail!("not listed: {missing:?}")
    }

    /// Does something with some backup, again and again.
    fn again(&self, what: &str, dice: &mut Dice, act: impl Fn(&str, Fate) -> Result<()>) {
        while self.goes_on() {
            thread::sleep(Duration::from_secs(2));
            let fate = dice.fate();
            let acted = self
                .any(dice)
                .and_then(|id| id.map_or(Ok(()), |id| act(&id, fate)));
            self.note(what, acted);
        }
    }

    fn verify(&self, mut dice: Dice) {
        let (identity, url) = (&*self.vault.keys.identity, &*self.vault.url);
        self.again("verify", &mut dice, |id, fate| {
            let arguments = [
                "verify", id, "--level", "decoded", "-i", identity, "--from", url,
            ];
            self.act(&self.vault.cli, (fate, true), &arguments);
            Ok(())
        });
    }

    fn restore(&self, mut dice: Dice) {
        self.again("restore", &mut dice, |id, fate| {
            self.restore_one(id, fate).with_context(|| id.to_owned())
        });
    }

    /// Restores a backup, looks whether it shows its database, and drops it.
    fn restore_one(&self, id: &str, fate: Fate) -> Result<()> {
        let number = self.restores.fetch_add(1, Ordering::Relaxed) + 1;
        let target = restored_name(&self.database, number);
        let flag = format!("--target-db={target}");
        let (identity, url) = (&*self.vault.keys.identity, &*self.vault.url);
        let arguments = ["restore", id, &flag, "-i", identity, "--from", url];
        let run = self.act(&self.vault.cli, (fate, true), &arguments);
        let looked = match run.and_then(|run| run.code) {
            Some(0) => self.compare(id, &target),
            Some(_) => self.cluster.has_db(&target).and_then(|is_there| {
                ensure!(!is_there, "{target} is left");
                Ok(())
            }),
            // Its last statement may go on for a moment.
            None => self.wait_for_sessions(&target),
        };
        if self.cluster.has_db(&target)? {
            self.cluster.drop_db(&target)?;
        }
        looked
    }

    /// Whether a restored database shows one moment of the time when its backup was taken.
    fn compare(&self, id: &str, target: &str) -> Result<()> {
        let sql = "SELECT (SELECT entries FROM state) = count(*)
                     AND coalesce(max(seq), 0) = (SELECT seq FROM state)
                     AND count(*) = count(DISTINCT seq)
                     AND coalesce(bool_and(md5(text) = digest), true) FROM log";
        let fits = self.cluster.query(target, sql)?;
        ensure!(fits == "t", "it does not show one moment");
        let state = self.state(target)?;
        if let Some(states) = self.ledger().states(id) {
            ensure!(states.contains(&state), "it shows {state} of {states:?}");
        }
        let bulk = self.cluster.contents(target)?.remove(BULK);
        ensure!(bulk.as_ref() == Some(&self.bulk), "{BULK}: {bulk:?}");
        self.restored.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Waits until nobody works in a database, or makes it.
    fn wait_for_sessions(&self, target: &str) -> Result<()> {
        let sql = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE pid <> pg_backend_pid()
             AND (datname = '{target}' OR state <> 'idle' AND strpos(query, '{target}') > 0)"
        );
        wait_for_silence(GONE, || {
            let left = self.cluster.query("postgres", &sql)?;
            Ok((left != "0").then(|| format!("{left} sessions in {target}")))
        })
    }

    /// Asks the server what it sees.
    fn ask(&self, onlooker: &Onlooker) {
        while self.goes_on() {
            let looked = onlooker.look();
            if looked.is_ok() {
                self.count("looks at the server".to_owned());
            }
            self.note("the server", looked);
            thread::sleep(Duration::from_millis(500));
        }
    }

    /// Says each minute how far it is.
    fn tell_progress(&self) {
        for second in 1.. {
            thread::sleep(Duration::from_secs(1));
            if !self.goes_on() {
                return;
            }
            if second % 60 == 0 {
                let begun = self.begun.load(Ordering::Relaxed).min(self.backups);
                let mut text = format!("{begun} of {} begun", self.backups);
                for (what, count) in &*self.tally.lock().expect("no worker panics with it") {
                    let _ = write!(text, ", {count} {what}");
                }
                self.say(&text);
            }
        }
    }

    fn tell(&self, summary: &str) -> Result<()> {
        let mut out = std::io::stdout();
        writeln!(out, "{summary}")?;
        let (looked, begun) = (&self.restored, &self.restores);
        let (looked, begun) = (
            looked.load(Ordering::Relaxed),
            begun.load(Ordering::Relaxed),
        );
        writeln!(
            out,
            "{looked} of {begun} restores ended well and were looked into"
        )?;
        for (what, count) in &*self.tally.lock().expect("no worker panics with it") {
            writeln!(out, "{count:6}  {what}")?;
        }
        let broken = self.broken.lock().expect("no worker panics with it").len();
        ensure!(broken == 0, "{broken} promises were broken");
        Ok(())
    }
}
