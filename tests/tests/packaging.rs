//! The files that put the programs on a machine, read by the tools that will read them there.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use backup_e2e::cli::{Cli, Run, Running};
use serde_json::Value;

/// What systemd gives at most to a service that it finds well confined, in tenths.
const EXPOSURE: &str = "20";

fn packaging(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging");
    root.join(name)
}

fn run(program: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> Result<Run> {
    let mut command = Command::new(program);
    command.args(arguments);
    Running::start(command)?.wait()
}

/// The unit, with a program that is there.
fn unit(folder: &Path) -> Result<String> {
    let unit = fs::read_to_string(packaging("systemd/backup-server.service"))?;
    let program = "/usr/local/bin/backup-server";
    ensure!(unit.contains(program), "the unit starts something else");
    let path = folder.join("backup-server.service");
    fs::write(&path, unit.replace(program, "/bin/true"))?;
    Ok(path.display().to_string())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn the_unit_is_understood_and_well_confined() -> Result<()> {
    let cli = Cli::without_server()?;
    let unit = unit(cli.folder())?;
    let verified = run("systemd-analyze", &["verify", "--man=no", &unit])?.exits(0)?;
    // What it does not know it only mentions.
    assert_eq!(
        (verified.text().as_str(), verified.stderr.as_str()),
        ("", "")
    );
    let threshold = format!("--threshold={EXPOSURE}");
    let security = [
        "security",
        "--offline=true",
        "--no-pager",
        &threshold,
        &unit,
    ];
    let judged = run("systemd-analyze", &security)?.exits(0)?.text();
    ensure!(judged.contains("Overall exposure level"), "{judged}");
    // Whether another run is alive is asked of /proc: it must see it.
    let unit = fs::read_to_string(&unit)?;
    ensure!(
        unit.contains("\nProtectProc=default\n"),
        "leases would be taken from the living"
    );
    ensure!(
        unit.contains("\nType=notify\n"),
        "the server says when it listens"
    );
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn the_image_is_made_as_it_should_be() -> Result<()> {
    let file = packaging("container/Containerfile").display().to_string();
    run(backup_e2e::hadolint()?, &[&file])?.exits(0)?;
    let text = fs::read_to_string(&file)?;
    let (_, last) = text.rsplit_once("\nFROM ").context("two stages")?;
    for wanted in ["\nUSER 10001:10001\n", "\nHEALTHCHECK ", "\nENTRYPOINT "] {
        ensure!(last.contains(wanted), "no {wanted}");
    }
    for line in text.lines().filter(|line| line.starts_with("FROM ")) {
        let image = line.split_whitespace().nth(1).unwrap_or_default();
        let (_, tag) = image.split_once(':').with_context(|| line.to_owned())?;
        ensure!(tag != "latest", "{line}");
    }
    Ok(())
}

/// The Compose file with what `.env` would say, read by the specification's own reader.
fn compose() -> Result<Value> {
    let file = packaging("compose/compose.yaml").display().to_string();
    let arguments = ["-no-interpolation", "-format", "json", &file];
    run(backup_e2e::compose_reader()?, &arguments)?
        .exits(0)?
        .json()
}

/// What Compose makes of `${NAME:-default}` and `${NAME:?why}`.
fn filled(text: &str, values: &BTreeMap<&str, String>) -> Result<String> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (inside, after) = after.split_once('}').context("an end")?;
        let (name, otherwise) = inside.split_once(':').unwrap_or((inside, ""));
        let default = otherwise.strip_prefix('-');
        let value = values.get(name).map(String::as_str).or(default);
        filled.push_str(before);
        filled.push_str(value.with_context(|| format!("{name} has no value"))?);
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn the_compose_file_holds_together() -> Result<()> {
    let model = compose()?;
    let services = model["services"].as_object().context("services")?;
    let names: Vec<_> = services.keys().map(String::as_str).collect();
    assert_eq!(names, ["backup", "bucket", "db", "minio"]);
    for (name, service) in services {
        for needed in service["depends_on"]
            .as_object()
            .into_iter()
            .flat_map(|map| map.keys())
        {
            ensure!(services.contains_key(needed), "{name} waits for {needed}");
        }
        for volume in service["volumes"].as_array().into_iter().flatten() {
            let source = volume["source"].as_str().unwrap_or_default();
            ensure!(model["volumes"].get(source).is_some(), "{name}: {source}");
        }
        for port in service["ports"].as_array().into_iter().flatten() {
            assert_eq!(port["host_ip"], "127.0.0.1", "{name} is open to others");
        }
        if let Some(image) = service["image"].as_str() {
            let (_, tag) = image.split_once(':').with_context(|| image.to_owned())?;
            ensure!(tag != "latest", "{image}");
        }
    }
    let example = fs::read_to_string(packaging("compose/.env.example"))?;
    let text = fs::read_to_string(packaging("compose/compose.yaml"))?;
    for part in text.split("${").skip(1) {
        let name = part.split([':', '}']).next().unwrap_or_default();
        ensure!(
            example.contains(&format!("\n{name}=")),
            "{name} is not in .env.example"
        );
    }
    Ok(())
}

/// The configuration that the Compose file gives to the server is one that we take.
#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn the_configuration_in_the_compose_file_is_good() -> Result<()> {
    let model = compose()?;
    let content = model["configs"]["backup"]["content"].as_str();
    let cli = Cli::without_server()?;
    let values = BTreeMap::from([
        ("BACKUP_RECIPIENT", cli.keys()?.recipient),
        ("BACKUP_TOKEN_SHA256", "7".repeat(64)),
    ]);
    let content = filled(content.context("a configuration")?, &values)?;
    let file = cli.private_file("backup.toml", &content)?;
    let cli = cli
        .with_env("POSTGRES_PASSWORD", "one")
        .with_env("MINIO_ROOT_USER", "two")
        .with_env("MINIO_ROOT_PASSWORD", "three");
    let checked = cli.run(["--config", &file, "config", "check", "--json"])?;
    let checked = checked.exits(0)?;
    ensure!(!checked.stderr.contains("warning"), "{}", checked.stderr);
    let found = checked.json()?;
    assert_eq!(found["status"], "ok");
    for kind in ["sources", "servers", "destinations"] {
        assert_eq!(found[kind], 1, "{kind}");
    }
    assert_eq!(found["unscheduled"], serde_json::json!([]));
    Ok(())
}
