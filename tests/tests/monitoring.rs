//! What is told to Prometheus, and the alerts that are shipped, by Prometheus' own tool.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};
use backup_e2e::cli::{Cli, Run, Running};
use backup_e2e::pg::Cluster;

fn promtool(arguments: &[&str], folder: &Path) -> Result<Run> {
    let mut command = Command::new(backup_e2e::promtool()?);
    command.args(arguments).current_dir(folder);
    Running::start(command)?.wait()
}

/// Each alert goes off when it should, and none when all is well.
#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn alert_rules_are_what_they_say() -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/monitoring");
    promtool(&["check", "rules", "alerts.yml"], &folder)?.exits(0)?;
    let tested = promtool(&["test", "rules", "alerts.test.yml"], &folder)?.exits(0)?;
    ensure!(tested.text().contains("SUCCESS"), "{}", tested.text());
    Ok(())
}

/// Every metric that an alert names is one that is told.
#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn metrics_are_read_by_the_tool_and_have_what_alerts_need() -> Result<()> {
    let cluster = Cluster::shared(17)?;
    let database = cluster.fresh_db("metrics")?;
    cluster.psql(&database, "CREATE TABLE t AS SELECT 1 AS a")?;
    let cli = Cli::new(cluster)?;
    let url = cli.local_store();
    let backup = ["backup", "-d", &database, "--to", &url, "--no-encryption"];
    cli.run(backup)?.exits(0)?;
    let file = cli.folder().join("backup.prom");
    let path = file.display().to_string();
    cli.run(["check", "--from", &url, "--prometheus", &path])?;
    let text = std::fs::read_to_string(&file)?;
    let mut check = Command::new(backup_e2e::promtool()?);
    check.args(["check", "metrics"]);
    check.stdin(Stdio::from(std::fs::File::open(&file)?));
    Running::start(check)?.wait()?.exits(0)?;

    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/monitoring/alerts.yml");
    let rules = std::fs::read_to_string(rules)?;
    let words = rules.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let named: Vec<_> = words.filter(|word| word.starts_with("backup_")).collect();
    ensure!(named.len() >= 8, "{named:?}");
    for metric in named {
        ensure!(text.contains(&format!("# TYPE {metric} gauge")), "{metric}");
    }
    Ok(())
}
