//! The generated DAGs in Apache Airflow itself: it reads them, runs them, tries again what fails, and fails
//! when a backup does.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use backup_e2e::cli::{Cli, Run, Running};
use backup_e2e::pg::{Cluster, ClusterOptions};
use backup_e2e::{airflow, binary};
use serde_json::Value;

/// What no command line, no log and no result may have.
const PASSWORD: &str = "pass%word 'with' \"quotes\" $HOME";
const HOSTILE: &str = "my 'shop' \"%d\" $HOME \\ \u{e9}";

/// Passes everything on, and notes it. The first backup ends as when the database is away.
const WRAPPER: &str = "#!/bin/sh
printf '%s\\n' \"$*\" >> calls
if env | grep -q AIRFLOW; then echo airflow >> seen; fi
case $* in *' backup '*) if mkdir failed 2> /dev/null; then exit 9; fi ;; esac
exec @PROGRAM@ \"$@\"
";

/// Airflow with a home of its own, and DAGs that are made of a configuration.
struct Stage {
    cluster: Cluster,
    cli: Cli,
    config: String,
}

impl Stage {
    fn new() -> Result<Self> {
        let cluster = Cluster::start(17, &ClusterOptions::default().scram(PASSWORD))?;
        for name in ["shop", "other"] {
            cluster.create_db(name)?;
            cluster.psql(
                name,
                "CREATE TABLE t AS SELECT g AS n FROM generate_series(1, 100) g",
            )?;
        }
        let cli = Cli::without_server()?;
        let config = format!(
            "[encryption]\nmode = 'none'\n[defaults.retry]\nattempts = 1\n\
             [server.main]\nhost = '{}'\nport = {}\nuser = 'postgres'\nbin_dir = '{}'\n\
             password = {{ env = 'PG_PASSWORD' }}\n\
             [destination.local]\nurl = '{}'\n\
             [source.shop]\nserver = 'main'\nschedule = '0 3 * * *'\n\
             [source.{HOSTILE:?}]\nserver = 'main'\ndatabase = 'other'\nschedule = '0 3 * * *'\n",
            cluster.host(),
            cluster.port(),
            cluster.bin_dir().display(),
            cli.local_store(),
        );
        let config = cli.private_file("backup.toml", &config)?;
        let wrapper = cli.folder().join("wrapper");
        let program = binary("backup-cli")?.display().to_string();
        fs::write(&wrapper, WRAPPER.replace("@PROGRAM@", &program))?;
        fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755))?;
        let connection = serde_json::json!({ "conn_type": "postgres", "password": PASSWORD });
        let (home, dags) = (cli.folder().join("airflow"), cli.folder().join("dags"));
        let cli = cli
            .with_env("AIRFLOW_HOME", &home.display().to_string())
            .with_env("AIRFLOW__CORE__DAGS_FOLDER", &dags.display().to_string())
            .with_env("AIRFLOW__CORE__LOAD_EXAMPLES", "False")
            .with_env("AIRFLOW_CONN_POSTGRES_DEFAULT", &connection.to_string());
        let stage = Self {
            cluster,
            cli,
            config,
        };
        let (program, dags) = (
            wrapper.display().to_string(),
            format!("{}/", dags.display()),
        );
        let made = [
            "generate",
            "airflow",
            "--program",
            &program,
            "--output",
            &dags,
        ];
        stage.backup_cli(&made)?.exits(0)?;
        // Once, and soon.
        let file = format!("{dags}backup_dags.py");
        let text = fs::read_to_string(&file)?;
        let said = "{\"retries\": 2, \"retry_delay\": timedelta(minutes=5)}";
        ensure!(text.contains(said), "{text}");
        let soon = "{\"retries\": 1, \"retry_delay\": timedelta(seconds=1)}";
        fs::write(&file, text.replace(said, soon))?;
        stage.airflow(&["db", "migrate"])?.exits(0)?;
        Ok(stage)
    }

    fn backup_cli(&self, arguments: &[&str]) -> Result<Run> {
        let config = ["--config", &self.config];
        let mut command = self.cli.command(config.iter().chain(arguments))?;
        command.env("PG_PASSWORD", PASSWORD);
        Running::start(command)?.wait()
    }

    fn airflow(&self, arguments: &[&str]) -> Result<Run> {
        let mut command = Command::new(airflow()?);
        command.args(arguments).env_clear().envs(self.cli.env());
        command.current_dir(self.cli.folder());
        let run = Running::start(command)?.wait()?;
        for text in [&run.text(), &run.stderr] {
            ensure!(!text.contains(PASSWORD), "the password is in the log");
        }
        Ok(run)
    }

    fn backups(&self) -> Result<Vec<Value>> {
        let listed = self.backup_cli(&["list", "--json"])?.exits(0)?.json()?;
        Ok(listed.as_array().context("an array")?.clone())
    }

    /// How often the program was called for something.
    fn calls(&self, word: &str) -> Result<usize> {
        let calls = fs::read_to_string(self.cli.folder().join("calls"))?;
        ensure!(
            !calls.contains(PASSWORD),
            "the password is on a command line"
        );
        ensure!(
            !self.cli.folder().join("seen").exists(),
            "variables of Airflow are passed on"
        );
        let word = format!(" {word} ");
        Ok(calls.lines().filter(|line| line.contains(&word)).count())
    }
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn airflow_takes_and_proves_each_backup_and_fails_when_one_fails() -> Result<()> {
    let stage = Stage::new()?;
    let ran = stage.airflow(&["dags", "test", "backup"])?.exits(0)?;
    let log = ran.text() + &ran.stderr;
    ensure!(
        log.contains("ended with code 9"),
        "the first try fails: {log}"
    );
    let backups = stage.backups()?;
    let mut sources: Vec<_> = backups
        .iter()
        .filter_map(|one| one["source"].as_str())
        .collect();
    sources.sort_unstable();
    assert_eq!(sources, [HOSTILE, "shop"]);
    for backup in &backups {
        assert_eq!(backup["verified_level"], "hashed", "{backup}");
    }
    assert_eq!(stage.calls("backup")?, 3, "two sources, one of them twice");
    assert_eq!(stage.calls("verify")?, 2);
    assert_eq!(stage.calls("check")?, 1);

    // A database is gone: its task fails as often as it is tried, and the run with it.
    stage.cluster.drop_db("other")?;
    let ran = stage.airflow(&["dags", "test", "backup"])?;
    ensure!(ran.code != Some(0), "a lie: {}", ran.text());
    let of = |source: &str, backups: &[Value]| {
        let own = backups.iter().filter(|one| one["source"] == source);
        own.count()
    };
    let backups = stage.backups()?;
    assert_eq!((of("shop", &backups), of(HOSTILE, &backups)), (2, 1));
    assert_eq!(stage.calls("backup")?, 3 + 3);
    assert_eq!(stage.calls("verify")?, 3);
    assert_eq!(
        stage.calls("check")?,
        1,
        "what comes after a failure is not begun"
    );
    Ok(())
}
