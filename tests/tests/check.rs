//! `check` on real backups: what monitoring is told, from the places alone.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context as _, Result, ensure};
use backup_e2e::cli::{Cli, Run, WARN_USED_PERCENT};
use backup_e2e::pg::Cluster;
use backup_e2e::sample;
use backup_e2e::scene::unique;
use serde_json::{Value, json};

/// A database with a source of it, and the program with a server to take backups from.
struct Watched {
    cluster: &'static Cluster,
    cli: Cli,
    database: String,
}

impl Watched {
    fn new(name: &str) -> Result<Self> {
        let cluster = Cluster::shared(17)?;
        let database = cluster.fresh_db(&unique(name))?;
        cluster.psql(&database, &sample::bulk_sql("app", "bulk", 2))?;
        Ok(Self {
            cli: Cli::new(cluster)?,
            cluster,
            database,
        })
    }

    /// Runs with a file that says this too.
    fn run(&self, more: &str, arguments: &[&str]) -> Result<Run> {
        let text = format!(
            "{more}\n[encryption]\nmode = 'none'\n\
             [destination.near]\nurl = '{}'\n\
             [source.shop]\ndatabase = '{}'\ndestinations = ['near']\n",
            self.cli.local_store(),
            self.database
        );
        let config = self.cli.private_file("backup.toml", &text)?;
        self.cli.run([&["--config", &config], arguments].concat())
    }

    fn back_up(&self) -> Result<Value> {
        self.run("", &["backup", "shop", "--json"])?
            .exits(0)?
            .json()
    }

    fn check(&self, more: &str, code: i32) -> Result<Value> {
        self.run(more, &["check", "--json"])?.exits(code)?.json()
    }
}

/// The kinds of what was found of a source at a place.
fn kinds(report: &Value, source: &str, place: &str) -> Result<Vec<String>> {
    let checks = report["sources"].as_array().context("an array")?;
    let mut found = checks
        .iter()
        .filter(|c| c["source"] == source && c["destination"] == place);
    let check = found
        .next()
        .with_context(|| format!("{source}: {report}"))?;
    let findings = check["findings"].as_array().context("an array")?;
    let kind = |finding: &Value| finding["kind"].as_str().map(str::to_owned);
    Ok(findings.iter().filter_map(kind).collect())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_fresh_backup_is_good_until_it_is_too_old() -> Result<()> {
    let watched = Watched::new("check_fresh")?;
    let backup = watched.back_up()?;
    let report = watched.check("", 0)?;
    assert_eq!(report["status"], "ok");
    let check = &report["sources"][0];
    assert_eq!(check["last_success"], backup["finished_at"]);
    for (field, expected) in [
        ("source", json!("shop")),
        ("destination", json!("near")),
        ("status", json!("ok")),
        ("backup", backup["id"].clone()),
        ("raw_bytes", backup["raw_bytes"].clone()),
        ("rows", backup["rows"].clone()),
        ("last_verified", Value::Null),
        ("last_drill", Value::Null),
        ("findings", json!([])),
    ] {
        assert_eq!(check[field], expected, "{field}");
    }
    let said = watched.run("", &["check"])?.exits(0)?.text();
    ensure!(said.starts_with("OK - 1 newest backup looked at"), "{said}");

    // Whatever is younger than nothing is not there.
    let old = "[alerts]\nmax_age = '0s'";
    assert_eq!(kinds(&watched.check(old, 2)?, "shop", "near")?, ["stale"]);
    let said = watched.run(old, &["check", "shop"])?.exits(2)?.text();
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines[0], "CRITICAL - shop at near: stale");
    ensure!(
        lines[1].starts_with("CRITICAL shop at near: the newest backup is "),
        "{said}"
    );
    assert_eq!(lines.len(), 2);

    let slow = "[alerts]\nmax_duration = '0s'\nundrilled_after = '30d'";
    let report = watched.check(slow, 1)?;
    let expected = ["slow", "unverified", "undrilled"];
    assert_eq!(kinds(&report, "shop", "near")?, expected);
    watched.run("", &["verify", "--all"])?.exits(0)?;
    let report = watched.check(slow, 1)?;
    assert_eq!(kinds(&report, "shop", "near")?, ["slow", "undrilled"]);
    ensure!(
        report["sources"][0]["last_verified"].is_string(),
        "{report}"
    );

    let watched = Watched {
        cli: watched.cli.without_env(WARN_USED_PERCENT),
        ..watched
    };
    let report = watched.check("[defaults]\nwarn_used_percent = 0", 1)?;
    assert_eq!(report["destinations"][0]["findings"][0]["kind"], "space");
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn what_is_not_there_is_not_invisible() -> Result<()> {
    let watched = Watched::new("check_none")?;
    fs::create_dir(watched.cli.local_root())?;
    assert_eq!(
        kinds(&watched.check("", 2)?, "shop", "near")?,
        ["no-backup"]
    );
    let place = watched.cli.local_store();
    let bare = |arguments: &[&str]| {
        let all = [&["check", "--json", "--from", &*place], arguments].concat();
        watched.cli.run(all)
    };
    // Nor is a place where nothing is at all.
    let report = bare(&[])?.exits(2)?.json()?;
    assert_eq!(report["sources"], json!([]));
    assert_eq!(
        report["destinations"][0]["findings"][0]["kind"],
        "no-backup"
    );

    watched.back_up()?;
    let report = bare(&[])?.exits(0)?.json()?;
    assert_eq!(kinds(&report, "shop", &place)?, [""; 0]);
    let report = bare(&["shop", "shopp"])?.exits(2)?.json()?;
    assert_eq!(kinds(&report, "shopp", &place)?, ["no-backup"]);
    // A table is not the database.
    let table = ["backup", "-d", &watched.database, "-t", "app.bulk"];
    let to = ["--no-encryption", "--to", &place];
    watched.cli.run([&table[..], &to].concat())?.exits(0)?;
    let report = bare(&[&watched.database])?.exits(2)?.json()?;
    assert_eq!(kinds(&report, &watched.database, &place)?, ["no-backup"]);
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_database_that_lost_its_rows_is_told() -> Result<()> {
    let watched = Watched::new("check_shrunk")?;
    watched.back_up()?;
    let rows = "TRUNCATE app.bulk; CREATE TABLE app.other ();";
    watched.cluster.psql(&watched.database, rows)?;
    watched.back_up()?;
    let report = watched.check("", 2)?;
    assert_eq!(kinds(&report, "shop", "near")?, ["shrunk", "fewer-rows"]);
    assert_eq!(report["sources"][0]["status"], "critical");
    let tolerant = "[alerts]\nmin_size_ratio = 0.0";
    watched.check(tolerant, 0)?;
    let drop = "DROP TABLE app.bulk, app.other";
    watched.cluster.psql(&watched.database, drop)?;
    watched.back_up()?;
    let report = watched.check(tolerant, 1)?;
    assert_eq!(kinds(&report, "shop", "near")?, ["fewer-tables"]);
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_failure_and_damage_are_told() -> Result<()> {
    let watched = Watched::new("check_damage")?;
    let id = watched.back_up()?["id"]
        .as_str()
        .context("an id")?
        .to_owned();
    let missing = format!("[server.main]\nhost = '{}'", watched.cli.folder().display());
    let text = format!(
        "{missing}\n[encryption]\nmode = 'none'\n[destination.near]\nurl = '{}'\n\
         [source.shop]\nserver = 'main'\ndatabase = '{}'\ndestinations = ['near']\n",
        watched.cli.local_store(),
        watched.database
    );
    let config = watched.cli.private_file("broken.toml", &text)?;
    let failed = watched.cli.run(["--config", &config, "backup", "shop"])?;
    ensure!(failed.code != Some(0), "{}", failed.stderr);
    let report = watched.check("", 1)?;
    assert_eq!(kinds(&report, "shop", "near")?, ["failed"]);

    let folder = watched.cli.local_root().join("backups/shop").join(&id);
    let part = fs::read_dir(&folder)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.to_string_lossy().contains("data"))
        .context("a part with rows")?;
    let mut bytes = fs::read(&part)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&part, bytes)?;
    watched.check("", 1)?;
    watched.run("", &["verify", "--all"])?.exits(6)?;
    let found = kinds(&watched.check("", 2)?, "shop", "near")?;
    assert_eq!(found, ["damaged", "no-backup", "failed"]);
    watched.back_up()?;
    let found = kinds(&watched.check("", 2)?, "shop", "near")?;
    assert_eq!(found, ["damaged"]);
    fs::write(folder.join("manifest.json"), "{")?;
    let report = watched.check("", 2)?;
    assert_eq!(kinds(&report, "shop", "near")?, ["damaged"]);
    let message = report["sources"][0]["findings"][0]["message"].to_string();
    ensure!(
        message.contains(&format!("the manifest of {id}")),
        "{message}"
    );
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_place_that_cannot_be_asked_hides_no_other() -> Result<()> {
    let watched = Watched::new("check_far")?;
    let folder = watched.cli.folder().display().to_string();
    let two = |alerts: &str, far: &str| {
        let text = format!(
            "[alerts]\n{alerts}\n[encryption]\nmode = 'none'\n\
             [destination.near]\nurl = '{}'\n[destination.far]\n{far}\n\
             [source.shop]\ndatabase = '{}'\ndestinations = ['near', 'far']\n",
            watched.cli.local_store(),
            watched.database
        );
        watched.cli.private_file("two.toml", &text)
    };
    watched.back_up()?;
    let check = |config: &str, code: i32| {
        let run = watched.cli.run(["--config", config, "check", "--json"])?;
        run.exits(code)?.json()
    };
    for far in [
        format!("url = 'file://{folder}/unmounted'"),
        "url = 's3://bucket'\nendpoint = 'http://127.0.0.1:1'\nretry_timeout = '1s'\n\
         region = 'x'\naccess_key_id = { env = 'HOME' }\nsecret_access_key = { env = 'HOME' }"
            .to_owned(),
    ] {
        let report = check(&two("", &far)?, 3)?;
        assert_eq!(report["status"], "unknown");
        assert_eq!(kinds(&report, "shop", "near")?, [""; 0]);
        assert_eq!(kinds(&report, "shop", "far")?, ["unreachable"]);
        // What is certainly bad counts more.
        let report = check(&two("max_age = '0s'", &far)?, 2)?;
        assert_eq!(kinds(&report, "shop", "near")?, ["stale"]);
    }

    fs::create_dir(format!("{folder}/mounted"))?;
    let config = two("", &format!("url = 'file://{folder}/mounted'"))?;
    let report = check(&config, 2)?;
    assert_eq!(
        kinds(&report, "shop", "far")?,
        ["no-backup", "missing-copy"]
    );
    let copy = ["copy", "--missing", "--from", "near", "--to", "far"];
    let all = [&["--config", &config][..], &copy].concat();
    watched.cli.run(all)?.exits(0)?;
    check(&config, 0)?;
    watched.back_up()?;
    let report = check(&config, 1)?;
    assert_eq!(kinds(&report, "shop", "near")?, [""; 0]);
    assert_eq!(kinds(&report, "shop", "far")?, ["missing-copy"]);
    Ok(())
}

/// What the file says after one good backup.
const METRICS: &str = r#"# HELP backup_check_timestamp_seconds When backups were last checked.
# TYPE backup_check_timestamp_seconds gauge
backup_check_timestamp_seconds $CHECKED
# HELP backup_check_status What a check found: 0 ok, 1 warning, 2 critical, 3 unknown.
# TYPE backup_check_status gauge
backup_check_status{source="shop",destination="near"} 0
# HELP backup_last_success_timestamp_seconds End of the newest good backup; 0 if there is none.
# TYPE backup_last_success_timestamp_seconds gauge
backup_last_success_timestamp_seconds{source="shop",destination="near"} $SUCCESS
# HELP backup_last_verified_timestamp_seconds When every byte of a backup was last found good; 0 if never.
# TYPE backup_last_verified_timestamp_seconds gauge
backup_last_verified_timestamp_seconds{source="shop",destination="near"} 0
# HELP backup_last_drill_timestamp_seconds When a drill last succeeded; 0 if never.
# TYPE backup_last_drill_timestamp_seconds gauge
backup_last_drill_timestamp_seconds{source="shop"} 0
# HELP backup_duration_seconds How long the newest backup took.
# TYPE backup_duration_seconds gauge
backup_duration_seconds{source="shop"} $TOOK
# HELP backup_size_bytes Size of the newest backup.
# TYPE backup_size_bytes gauge
backup_size_bytes{source="shop",kind="raw"} $RAW
backup_size_bytes{source="shop",kind="stored"} $STORED
# HELP backup_rows Rows in the newest backup.
# TYPE backup_rows gauge
backup_rows{source="shop"} $ROWS
# HELP backup_repository_bytes Stored bytes of all committed backups at a destination.
# TYPE backup_repository_bytes gauge
backup_repository_bytes{destination="near"} $STORED
# HELP backup_destination_free_bytes Free bytes of a local destination.
# TYPE backup_destination_free_bytes gauge
backup_destination_free_bytes{destination="near"} $FREE
# HELP backup_destination_used_bytes Bytes of a local destination that are taken, by whatever.
# TYPE backup_destination_used_bytes gauge
backup_destination_used_bytes{destination="near"} $USED
# HELP backup_runs_total Runs that left a record, as far back as records are looked at.
# TYPE backup_runs_total counter
backup_runs_total{operation="backup",result="success"} 1
"#;

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn metrics_are_a_whole_file_that_others_may_read() -> Result<()> {
    let watched = Watched::new("check_metrics")?;
    let backup = watched.back_up()?;
    let folder = watched.cli.folder().join("metrics");
    fs::create_dir(&folder)?;
    let file = folder.join("backup.prom");
    fs::write(&file, "old")?;
    let path = file.display().to_string();
    let arguments = ["check", "--json", "--prometheus", &path];
    let report = watched.run("", &arguments)?.exits(0)?.json()?;
    let time = |value: &Value| -> Result<i64> {
        let text = value.as_str().context("a time")?;
        Ok(text.parse::<chrono::DateTime<chrono::Utc>>()?.timestamp())
    };
    let check = &report["sources"][0];
    let expected = METRICS
        .replace("$CHECKED", &time(&report["checked_at"])?.to_string())
        .replace("$SUCCESS", &time(&backup["finished_at"])?.to_string())
        .replace("$TOOK", &check["duration_seconds"].to_string())
        .replace("$RAW", &backup["raw_bytes"].to_string())
        .replace("$STORED", &backup["stored_bytes"].to_string())
        .replace("$ROWS", &backup["rows"].to_string())
        .replace(
            "$FREE",
            &report["destinations"][0]["free_bytes"].to_string(),
        )
        .replace(
            "$USED",
            &report["destinations"][0]["used_bytes"].to_string(),
        );
    assert_eq!(fs::read_to_string(&file)?, expected);
    assert_eq!(fs::metadata(&file)?.permissions().mode() & 0o777, 0o644);
    let files: Vec<_> = fs::read_dir(&folder)?.collect::<std::io::Result<_>>()?;
    assert_eq!(files.len(), 1, "{files:?}");

    // A file that stays old must not pass for a good check.
    let nowhere = folder.join("no/such.prom").display().to_string();
    watched
        .run("", &["check", "--prometheus", &nowhere])?
        .exits(3)?;
    Ok(())
}

#[test]
fn what_is_said_wrongly_is_unknown_to_monitoring() -> Result<()> {
    let cli = Cli::without_server()?;
    let config = cli.private_file("typo.toml", "[alerts]\nmax_agee = '1h'\n")?;
    let ratio = cli.private_file("ratio.toml", "[alerts]\nmin_size_ratio = 10\n")?;
    for (arguments, words) in [
        (&["--config", &*config, "check"][..], "max_age"),
        (&["--config", &*ratio, "check"], "between 0 and 1"),
        (&["check"], "no place for backups"),
    ] {
        let run = cli.run(arguments)?.exits(3)?;
        ensure!(run.text().starts_with("UNKNOWN - "), "{}", run.text());
        ensure!(run.stderr.contains(words), "{}", run.stderr);
    }
    cli.run(["check", "--nonsense"])?.exits(3)?;
    cli.run(["--json", "check", "--from"])?.exits(3)?;
    cli.run(["list", "check", "--nonsense"])?.exits(2)?;
    Ok(())
}
