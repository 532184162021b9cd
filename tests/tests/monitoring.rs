//! What is told to Prometheus, and the alerts that are shipped, by Prometheus' own tool.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use backup_e2e::cli::{Cli, Run, Running};
use backup_e2e::pg::Cluster;
use serde_json::{Value, json};

fn promtool(arguments: &[&str], folder: &Path) -> Result<Run> {
    let mut command = Command::new(backup_e2e::promtool()?);
    command.args(arguments).current_dir(folder);
    Running::start(command)?.wait()
}

fn document(name: &str) -> Result<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/monitoring");
    Ok(std::fs::read_to_string(folder.join(name))?)
}

/// What the panels of the dashboard ask for.
fn questions(dashboard: &Value) -> Result<Vec<&str>> {
    let panels = dashboard["panels"].as_array().context("panels")?;
    let targets = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    targets
        .map(|target| target["expr"].as_str().context("a question"))
        .collect()
}

/// The tool reads every question of the dashboard, and no panel is bound to somebody's data source.
#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn the_dashboard_asks_what_prometheus_understands() -> Result<()> {
    let dashboard: Value = serde_json::from_str(&document("dashboard.json")?)?;
    let questions = questions(&dashboard)?;
    ensure!(questions.len() >= 12, "{questions:?}");
    let variables = dashboard["templating"]["list"].as_array();
    let variables: Vec<_> = variables
        .into_iter()
        .flatten()
        .map(|variable| variable["name"].as_str().unwrap_or_default())
        .collect();
    assert_eq!(variables, ["datasource", "source", "destination"]);
    let (mut places, mut ids) = (BTreeSet::new(), BTreeSet::new());
    for panel in dashboard["panels"].as_array().into_iter().flatten() {
        let title = panel["title"].as_str().context("a title")?;
        ensure!(
            ids.insert(panel["id"].to_string()),
            "{title}: its id is taken"
        );
        let targets = panel["targets"].as_array().into_iter().flatten();
        for of in targets.chain([panel]) {
            assert_eq!(of["datasource"]["uid"], "${datasource}", "{title}");
        }
        let at = |key: &str| panel["gridPos"][key].as_u64().context("a place");
        ensure!(at("x")? + at("w")? <= 24, "{title} is too wide");
        for x in at("x")?..at("x")? + at("w")? {
            for y in at("y")?..at("y")? + at("h")? {
                ensure!(places.insert((x, y)), "{title} lies on another panel");
            }
        }
    }
    let rules: Vec<_> = questions
        .iter()
        .enumerate()
        .map(|(number, question)| {
            ensure!(
                question.match_indices('$').count()
                    == question.matches("\"$source\"").count()
                        + question.matches("\"$destination\"").count(),
                "{question}"
            );
            let record = format!("dashboard:question:{number}");
            Ok(json!({ "record": record, "expr": question }))
        })
        .collect::<Result<_>>()?;
    let cli = Cli::without_server()?;
    let rules = json!({ "groups": [{ "name": "dashboard", "rules": rules }] });
    // JSON is YAML.
    let file = cli.private_file("rules.yml", &rules.to_string())?;
    let checked = promtool(&["check", "rules", &file], cli.folder())?.exits(0)?;
    let found = format!("{} rules found", questions.len());
    ensure!(checked.text().contains(&found), "{}", checked.text());
    Ok(())
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

/// Every metric that an alert or the dashboard names is one that is told.
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

    let dashboard: Value = serde_json::from_str(&document("dashboard.json")?)?;
    let asked = questions(&dashboard)?.join("\n");
    let rules = format!("{}\n{asked}", document("alerts.yml")?);
    let words = rules.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let named: Vec<_> = words.filter(|word| word.starts_with("backup_")).collect();
    ensure!(named.len() >= 8, "{named:?}");
    for metric in named {
        ensure!(text.contains(&format!("# TYPE {metric} gauge")), "{metric}");
    }
    Ok(())
}
