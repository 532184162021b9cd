//! What the program does on days that are far away: the real one, with its clock moved.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use backup_e2e::cli::{Cli, Run};
use backup_e2e::evidence;
use backup_e2e::pg::Cluster;
use backup_e2e::receiver::Receiver;
use backup_e2e::sample;
use backup_e2e::scene::unique;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;

const SOURCE: &str = "shop";

const DAYS: usize = 400;

/// A source with a policy, one place, and a clock.
struct Years {
    cli: Cli,
    config: String,
    now: DateTime<Utc>,
}

impl Years {
    /// With a good backup on each of so many days.
    fn new(good: usize, retention: &str) -> Result<Self> {
        let cluster = Cluster::shared(17)?;
        let database = cluster.fresh_db(&unique("survive_years"))?;
        cluster.psql(&database, &sample::bulk_sql("app", "bulk", 1))?;
        let cli = Cli::new(cluster)?;
        let text = format!(
            "[defaults]\nretention = 'own'\n[encryption]\nmode = 'none'\n\
             [source.{SOURCE}]\ndatabase = '{database}'\ndestinations = ['here']\n\
             [destination.here]\nurl = '{}'\n[retention.own]\n{retention}\n",
            cli.local_store(),
        );
        let config = cli.private_file("years.toml", &text)?;
        let mut years = Self {
            cli,
            config,
            now: "2027-03-01T03:00:00Z".parse()?,
        };
        for _ in 0..good {
            years.now += TimeDelta::days(1);
            years.run(&["backup", SOURCE])?.exits(0)?;
        }
        Ok(years)
    }

    fn run(&self, arguments: &[&str]) -> Result<Run> {
        let all = [&["--config", &self.config], arguments].concat();
        self.cli.run_at(self.now, all)
    }

    fn change(&self, words: &str, others: &str) -> Result<()> {
        let text = std::fs::read_to_string(&self.config)?;
        ensure!(text.contains(words), "{text}");
        Ok(std::fs::write(&self.config, text.replace(words, others))?)
    }

    /// From now on somebody is told of every trouble.
    fn is_watched(&mut self) -> Result<Receiver> {
        let hook = Receiver::start()?;
        let text = std::fs::read_to_string(&self.config)?;
        let told = "[notify.web]\nkind = 'webhook'\nurl = { env = 'NOTIFY_URL' }\n\
                    allow_plain = true\n";
        self.config = self.cli.private_file("watched.toml", &(text + told))?;
        let cli = std::mem::replace(&mut self.cli, Cli::without_server()?);
        self.cli = cli.with_env("NOTIFY_URL", &hook.url("/"));
        Ok(hook)
    }

    /// Asks whether all is well. A backup of a day ago is not yet too old, and that the newest run
    /// failed is said all the same.
    fn asks(&self, day: usize) -> Result<()> {
        let (code, finding) = if day > 1 { (2, "stale") } else { (1, "failed") };
        let check = ["check", SOURCE, "--json", "--notify"];
        let check = self.run(&check)?.exits(code)?.json()?;
        ensure!(kinds(&check)?.contains(finding), "day {day}: {check}");
        Ok(())
    }

    /// The ids of what is there, by the folder and not by what the program says of it.
    fn backups(&self) -> Result<BTreeSet<String>> {
        let folder = self.cli.local_root().join("backups").join(SOURCE);
        let mut found = BTreeSet::new();
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            if entry.path().join("manifest.json").exists() {
                found.insert(entry.file_name().to_string_lossy().into_owned());
            }
        }
        Ok(found)
    }
}

/// Every day a backup fails, what is old is pruned, and somebody asks whether all is well. The policy
/// would leave one: what is kept is what is counted.
#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_03_while_backups_fail_for_400_days_the_good_ones_stay_and_every_day_has_its_alarm()
-> Result<()> {
    let mut years = Years::new(7, "keep_within = '3d'\nkeep_last = 1\nmin_keep = 3")?;
    let taken = years.backups()?;
    assert_eq!(taken.len(), 7);
    let newest: BTreeSet<_> = taken.iter().skip(4).cloned().collect();
    let hook = years.is_watched()?;
    // Nothing listens there.
    years.cli = years
        .cli
        .with_env("PGHOST", "127.0.0.1")
        .with_env("PGPORT", "1");
    let (mut alarms, mut refused) = (0, 0);
    for day in 1..=DAYS {
        years.now += TimeDelta::days(1);
        years.run(&["backup", SOURCE])?.exits(9)?;
        ensure!(told(&hook)? == ["failure"], "day {day}");
        let before = years.backups()?;
        if day % 20 == 0 {
            let run = years.run(&["prune", SOURCE, "--yes"])?.exits(12)?;
            ensure!(run.stderr.contains("backups fail"), "{}", run.stderr);
            ensure!(years.backups()? == before, "day {day}");
            ensure!(told(&hook)? == ["failure"], "day {day}");
            refused += 1;
        }
        let prune = ["prune", SOURCE, "--yes", "--clock-is-right"];
        years.run(&prune)?.exits(0)?;
        let left = years.backups()?;
        ensure!(left.is_superset(&newest), "day {day}: {left:?}");
        // The policy has its way as far as it may.
        ensure!(day < 4 || left == newest, "day {day}: {left:?}");
        let recovered = told(&hook)?;
        ensure!(
            recovered.len() == usize::from(day % 20 == 0),
            "{recovered:?}"
        );
        years.asks(day)?;
        let stale = told(&hook)?;
        let expected: &[&str] = if day > 1 { &["stale"] } else { &[] };
        ensure!(stale == expected, "day {day}: {stale:?}");
        alarms += 1 + stale.len();
    }
    let verified = years.run(&["verify", "--all", "--source", SOURCE, "--json"])?;
    verified.exits(0)?;
    // By age alone nothing would stay, which is not believed of any policy.
    years.change("keep_last = 1\n", "")?;
    let prune = ["prune", SOURCE, "--yes", "--clock-is-right"];
    let run = years.run(&prune)?.exits(12)?;
    let words = "the policy keeps none of 3 backups";
    ensure!(run.stderr.contains(words), "{}", run.stderr);
    assert_eq!(years.backups()?, newest);
    evidence::note(
        3,
        format!(
            "{DAYS} days of failing backups, each with a prune that was told that the clock is right, \
             by a policy that keeps one: the minimum of {} of {} good backups stayed and verifies; \
             without being told, prune refused with 12 each of {refused} times; a webhook had \
             {alarms} messages, each day one of the failed backup, and from the second day on one of \
             backups that are too old",
            newest.len(),
            taken.len(),
        ),
    );
    Ok(())
}

/// What somebody was told since he was last asked.
fn told(hook: &Receiver) -> Result<Vec<String>> {
    let requests = hook.take();
    let events = requests.iter().map(|request| {
        let body = request.json()?;
        Ok(body["event"].as_str().context("an event")?.to_owned())
    });
    events.collect()
}

fn kinds(check: &Value) -> Result<BTreeSet<&str>> {
    let findings = check["sources"][0]["findings"].as_array();
    let findings = findings.context("findings")?;
    Ok(findings.iter().filter_map(|f| f["kind"].as_str()).collect())
}

/// A clock that jumped says nothing about the age of a backup.
#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_17_a_clock_that_jumped_deletes_nothing() -> Result<()> {
    let mut years = Years::new(7, "keep_last = 1\nmin_keep = 1")?;
    let (taken, real) = (years.backups()?, years.now);
    for (now, words) in [
        // A backup takes its time, and is a little younger than that.
        (real + TimeDelta::hours(3650 * 24 + 1), "3650 days old"),
        (real - TimeDelta::days(1), "later than the clock"),
    ] {
        years.now = now;
        let run = years.run(&["prune", SOURCE, "--yes"])?.exits(12)?;
        ensure!(run.stderr.contains(words), "{}", run.stderr);
        assert_eq!(years.backups()?, taken);
        // Looking is not believed either.
        years.run(&["prune", SOURCE, "--dry-run"])?.exits(12)?;
    }
    years.now = real + TimeDelta::hours(1);
    years.run(&["prune", SOURCE, "--yes"])?.exits(0)?;
    assert_eq!(years.backups()?.len(), 1);
    evidence::note(
        17,
        format!(
            "{} backups and a policy that keeps one: none went with the clock 10 years ahead or a \
             day behind, each time exit code 12; with the right clock {} went",
            taken.len(),
            taken.len() - 1
        ),
    );
    Ok(())
}
