//! What the program does on days that are far away: the real one, with its clock moved.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use backup_e2e::cli::{Cli, Run};
use backup_e2e::evidence;
use backup_e2e::pg::Cluster;
use backup_e2e::sample;
use backup_e2e::scene::unique;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;

const SOURCE: &str = "shop";

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

/// Every day a backup fails, what is old is pruned, and somebody asks whether all is well.
#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_03_while_backups_fail_for_400_days_the_good_ones_stay_and_every_day_has_its_alarm()
-> Result<()> {
    let (mut alarms, mut least) = (0, usize::MAX);
    let mut years = Years::new(7, "daily = 7\nmin_keep = 3")?;
    let taken = years.backups()?;
    assert_eq!(taken.len(), 7);
    // Nothing listens there.
    years.cli = years
        .cli
        .with_env("PGHOST", "127.0.0.1")
        .with_env("PGPORT", "1");
    for day in 1..=400 {
        years.now += TimeDelta::days(1);
        years.run(&["backup", SOURCE])?.exits(9)?;
        let pruned = years.run(&["prune", SOURCE, "--yes", "--json"])?;
        // A day old is not yet too old, and the failure is said all the same.
        let (code, alarm) = if day > 1 { (2, "stale") } else { (1, "failed") };
        let check = years
            .run(&["check", SOURCE, "--json"])?
            .exits(code)?
            .json()?;
        ensure!(kinds(&check)?.contains(alarm), "day {day}: {check}");
        let left = years.backups()?;
        ensure!(left.len() >= 3, "day {day}: {left:?}");
        alarms += 1;
        least = least.min(left.len());
        // They fill the slots of their days, and nothing newer takes those.
        assert_eq!(left, taken, "day {day}: {}", pruned.stderr);
    }
    let verified = years.run(&["verify", "--all", "--source", SOURCE, "--json"])?;
    verified.exits(0)?;
    evidence::note(
        3,
        format!(
            "{alarms} days of failing backups with a prune on each, {alarms} alarms, never fewer than {least} of 7 good backups"
        ),
    );
    Ok(())
}

fn kinds(check: &Value) -> Result<BTreeSet<&str>> {
    let findings = check["sources"][0]["findings"].as_array();
    let findings = findings.context("findings")?;
    Ok(findings.iter().filter_map(|f| f["kind"].as_str()).collect())
}

/// By age alone all would be gone: what is kept is what is counted.
#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_03_a_policy_of_ages_goes_down_to_the_minimum_and_no_further() -> Result<()> {
    let mut years = Years::new(7, "keep_within = '3d'\nmin_keep = 3")?;
    let taken = years.backups()?;
    let newest: BTreeSet<_> = taken.iter().skip(4).cloned().collect();
    years.cli = years
        .cli
        .with_env("PGHOST", "127.0.0.1")
        .with_env("PGPORT", "1");
    for day in 1..=40 {
        years.now += TimeDelta::days(1);
        years.run(&["backup", SOURCE])?.exits(9)?;
        years.run(&["prune", SOURCE, "--yes"])?;
        let left = years.backups()?;
        ensure!(left.is_superset(&newest), "day {day}: {left:?}");
        years
            .run(&["check", SOURCE])?
            .exits(if day > 1 { 2 } else { 1 })?;
    }
    assert_eq!(years.backups()?, newest);
    evidence::note(
        3,
        format!(
            "a policy of ages alone stopped at the {} newest of 7",
            newest.len()
        ),
    );
    Ok(())
}

/// A clock that jumped says nothing about the age of a backup.
#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_17_a_clock_that_jumped_deletes_nothing() -> Result<()> {
    let mut years = Years::new(7, "keep_last = 1\nmin_keep = 1")?;
    let (taken, real) = (years.backups()?, years.now);
    for (now, words) in [
        (real + TimeDelta::days(3650), "3650 days old"),
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
