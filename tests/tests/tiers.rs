//! A place for some tiers gets the first backup of each of their periods, and no other: from
//! backups, from copies, and by the judgement of checks.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context as _, Result, ensure};
use backup_compress::Algorithm;
use backup_core::backup::SourceName;
use backup_core::engine::{BackupRequest, Engine};
use backup_e2e::cli::{Cli, Run};
use backup_e2e::pg::Cluster;
use backup_e2e::sample;
use backup_e2e::scene::unique;
use backup_store::{StoreConfig, StoreOptions};
use backup_testing::{FixedClock, ScriptedDumper, ScriptedPart, bodies};
use chrono::{DateTime, Datelike as _, TimeDelta, Utc};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

struct Stage {
    cli: Cli,
    config: String,
    near: String,
    far: String,
}

fn now() -> DateTime<Utc> {
    SystemTime::now().into()
}

impl Stage {
    fn new() -> Result<Self> {
        let cluster = Cluster::shared(17)?;
        let database = cluster.fresh_db(&unique("tiers"))?;
        cluster.psql(&database, &sample::bulk_sql("app", "bulk", 1))?;
        let cli = Cli::new(cluster)?;
        let folder = cli.folder().display().to_string();
        let [near, far] = ["near", "far"].map(|name| format!("file://{folder}/{name}"));
        let text = format!(
            "[encryption]\nmode = 'none'\n[alerts]\nmax_age = '3d'\n\
             [source.shop]\ndatabase = '{database}'\ndestinations = ['near', 'far']\n\
             [destination.near]\nurl = '{near}'\n\
             [destination.far]\nurl = '{far}'\ntiers = ['weekly', 'monthly']\n"
        );
        let config = cli.private_file("backup.toml", &text)?;
        Ok(Self {
            cli,
            config,
            near,
            far,
        })
    }

    fn run(&self, arguments: &[&str]) -> Result<Run> {
        self.cli
            .run([&["--config", &self.config], arguments].concat())
    }

    /// Takes a backup at each of these ages in days, into one place.
    async fn backups(&self, url: &str, ages: impl Iterator<Item = i64>) -> Result<()> {
        let store = backup_store::open(&StoreConfig::parse(url, &StoreOptions::default())?)?;
        let clock = FixedClock::default();
        let mut engine = Engine::new(store, Arc::new(clock.clone()));
        for algorithm in Algorithm::ALL {
            engine = engine.with_compressor(algorithm.compressor(0));
        }
        let part = ScriptedPart::new("data-rest", bodies::random(10_000, 7));
        let dumper = ScriptedDumper::new().part(part);
        let request = BackupRequest {
            encrypt: false,
            ..BackupRequest::new(SourceName::new("shop")?)
        };
        for age in ages {
            clock.set(now() - TimeDelta::days(age));
            let never = CancellationToken::new();
            engine.backup(&dumper, &request, &never).await?;
        }
        Ok(())
    }

    /// The ids at a place, oldest first.
    fn ids(&self, url: &str) -> Result<Vec<String>> {
        let listed = self
            .cli
            .run(["list", "--json", "--from", url])?
            .exits(0)?
            .json()?;
        let listed = listed.as_array().context("an array")?.iter().rev();
        let id = |backup: &Value| backup["id"].as_str().map(str::to_owned).context("an id");
        listed.map(id).collect()
    }

    /// What is found at the far place.
    fn findings(&self) -> Result<BTreeSet<String>> {
        let run = self.run(&["check", "--json"])?;
        let report = run.json()?;
        let sources = report["sources"].as_array().context("sources")?;
        let far = sources.iter().filter(|check| check["destination"] == "far");
        let findings = far.flat_map(|check| check["findings"].as_array().into_iter().flatten());
        let kind = |finding: &Value| finding["kind"].as_str().map(str::to_owned);
        findings.map(|f| kind(f).context("a kind")).collect()
    }
}

/// Told by hand: of these, oldest first, those that are the first of a week or of a month.
fn firsts(ids: &[String]) -> Vec<String> {
    let day = |id: &String| {
        let day = chrono::NaiveDate::parse_from_str(&id[..8], "%Y%m%d");
        day.unwrap_or_default()
    };
    let is_first = |(index, id): &(usize, &String)| {
        let Some(before) = index.checked_sub(1) else {
            return true;
        };
        let (one, other) = (day(&ids[before]), day(id));
        one.iso_week() != other.iso_week() || one.month() != other.month()
    };
    let firsts = ids.iter().enumerate().filter(is_first);
    firsts.map(|(_, id)| id.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: run ./scripts/test"]
async fn copies_bring_the_first_of_each_week_and_month() -> Result<()> {
    let stage = Stage::new()?;
    // Two days were missed, one of which may well be a Monday.
    let ages = (1..70).rev().filter(|age| ![20, 21].contains(age));
    stage.backups(&stage.near, ages).await?;
    assert_eq!(
        stage.findings()?,
        BTreeSet::from(["unreachable".to_owned()])
    );
    let copy = ["copy", "--missing", "--from", "near", "--to", "far"];
    stage.run(&copy)?.exits(0)?;
    let expected = firsts(&stage.ids(&stage.near)?);
    ensure!((9..=16).contains(&expected.len()), "{expected:?}");
    assert_eq!(stage.ids(&stage.far)?, expected);
    // What belongs there is there: for copies as for checks.
    let again = stage.run(&copy)?.exits(0)?;
    ensure!(again.stderr.contains("nothing is missing"), again.stderr);
    assert_eq!(stage.findings()?, BTreeSet::new());
    // The same, as if each had been copied on its day: no other one ever belongs there.
    let id = stage.ids(&stage.near)?.pop().context("a backup")?;
    stage
        .run(&["copy", &id, "--from", "near", "--to", "far"])?
        .exits(0)?;
    assert_eq!(stage.findings()?, BTreeSet::new());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: run ./scripts/test"]
async fn a_backup_goes_to_a_place_that_has_none_of_its_week_and_month() -> Result<()> {
    let stage = Stage::new()?;
    stage.backups(&stage.far, [70].into_iter()).await?;
    stage.backups(&stage.near, [70].into_iter()).await?;
    // Long ago: it lacks nothing, and is out of date.
    assert_eq!(stage.findings()?, BTreeSet::from(["stale".to_owned()]));
    let began = now().date_naive();
    let back_up = || stage.run(&["backup", "shop", "--json"])?.exits(0)?.json();
    let first = back_up()?;
    let second = back_up()?;
    let third = back_up()?;
    if now().date_naive() != began {
        // Midnight came in between, and maybe a new week.
        return Ok(());
    }
    let success = |name: &str| json!({ "name": name, "status": "success", "error": null });
    assert_eq!(
        first["destinations"],
        json!([success("near"), success("far")])
    );
    let week = began.format("%G-W%V and monthly %Y-%m");
    let skipped = json!({ "name": "far", "status": "skipped", "error": null,
        "reason": format!("it has a backup of weekly {week}") });
    for backup in [&second, &third] {
        assert_eq!(backup["status"], "success", "{backup}");
        assert_eq!(backup["warnings"], json!([]), "{backup}");
        assert_eq!(backup["destinations"], json!([success("near"), skipped]));
    }
    let id = first["id"].as_str().context("an id")?.to_owned();
    assert_eq!(stage.ids(&stage.far)?.pop(), Some(id));
    assert_eq!(stage.ids(&stage.near)?.len(), 4);
    assert_eq!(stage.findings()?, BTreeSet::new());
    let copy = ["copy", "--missing", "--from", "near", "--to", "far"];
    let run = stage.run(&copy)?.exits(0)?;
    ensure!(run.stderr.contains("nothing is missing"), run.stderr);
    // Also where the place is empty, or is not there at all.
    std::fs::remove_dir_all(stage.cli.folder().join("far"))?;
    assert_eq!(back_up()?["destinations"][1], success("far"));
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_place_that_cannot_be_asked_has_not_got_the_backup() -> Result<()> {
    let stage = Stage::new()?;
    std::fs::write(stage.cli.folder().join("far"), "a file")?;
    let backup = stage.run(&["backup", "shop", "--json"])?.exits(3)?.json()?;
    assert_eq!(backup["status"], "partial", "{backup}");
    assert_eq!(backup["destinations"][0]["status"], "success", "{backup}");
    assert_eq!(backup["destinations"][1]["status"], "failed", "{backup}");
    Ok(())
}
