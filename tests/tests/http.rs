//! What people do over HTTP, with real servers behind it.

use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use backup_e2e::cli::{Cli, Running};
use backup_e2e::http::Server;
use backup_e2e::pg::{Cluster, ClusterOptions, SUPERUSER};
use backup_e2e::sample;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const ADMIN: &str = "the admin's own c4n4ry77a2";
const RESTORER: &str = "weak-c4n4ry5d1e";

struct Stage {
    cluster: Cluster,
    cli: Cli,
    settings: String,
}

impl Stage {
    fn new() -> Result<Self> {
        let cluster = Cluster::start(17, &ClusterOptions::default().scram(ADMIN))?;
        cluster.create_db("shop")?;
        cluster.psql("shop", &sample::bulk_sql("app", "bulk", 1))?;
        let login = format!("CREATE ROLE restorer LOGIN CREATEDB PASSWORD '{RESTORER}'");
        cluster.psql("postgres", &login)?;
        let cli = Cli::new(&cluster)?.with_env("PGPASSWORD", ADMIN);
        let (host, port) = (cluster.host(), cluster.port());
        let admin = cli.private_file("admin", ADMIN)?;
        let restorer = cli.private_file("restorer", RESTORER)?;
        let settings = format!(
            "[encryption]\nmode = 'none'\n[destination.near]\nurl = '{}'\n\
             [server.main]\nhost = '{host}'\nport = {port}\nuser = '{SUPERUSER}'\n\
             password = {{ file = '{admin}' }}\n\
             [server.box]\nhost = '{host}'\nport = {port}\nuser = 'restorer'\n\
             password = {{ file = '{restorer}' }}\n\
             [server.box.admin]\nuser = '{SUPERUSER}'\npassword = {{ file = '{admin}' }}\n\
             [sandbox]\nserver = 'box'\n\
             [source.shop]\nserver = 'main'\ndatabase = 'shop'\ndestinations = ['near']\n",
            cli.local_store()
        );
        Ok(Self {
            cluster,
            cli,
            settings,
        })
    }

    fn visit(&self, access: &Value, sql: &str) -> Result<String> {
        let text = |name: &str| access[name].as_str().unwrap_or_default().to_owned();
        let mut command = self.cluster.tool("psql", &text("database"));
        command
            .args(["-XAtw", "-v", "ON_ERROR_STOP=1", "-c", sql])
            .env("PGUSER", text("user"))
            .env("PGPASSWORD", text("password"));
        let run = Running::start(command)?.wait()?.exits(0)?;
        Ok(String::from_utf8_lossy(&run.stdout).trim().to_owned())
    }
}

/// What is wrong is told with what is allowed there.
fn slips_are_explained(server: &Server, id: &str) -> Result<()> {
    let verifications = format!("/api/v1/backups/{id}/verifications");
    for (method, path, body, says) in [
        (
            "POST",
            &*verifications,
            r#"{"level":"deep"}"#,
            "level: unknown variant `deep`, expected",
        ),
        (
            "POST",
            &verifications,
            r#"{"levle":"stored"}"#,
            "unknown field `levle`, expected `level`",
        ),
        (
            "POST",
            &verifications,
            r#"{"level":"stored"} {}"#,
            "goes on after its end",
        ),
        (
            "GET",
            "/api/v1/runs?operation=backpu",
            "",
            "operation: one of backup, adopt, ",
        ),
    ] {
        let refused = server.ask(method, path, "olga", body)?.is(400)?;
        ensure!(refused.text.contains(says), "{path}: {}", refused.text);
    }
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_person_orders_a_backup_looks_into_it_and_leaves_nothing() -> Result<()> {
    let stage = Stage::new()?;
    let people = [
        ("olga", "operator"),
        ("anna", "restorer"),
        ("boris", "restorer"),
    ];
    let server = Server::start(&stage.cli, &stage.settings, &people)?;
    let taken = server.order("/api/v1/sources/shop/backups", "olga", "{}")?;
    assert_eq!(taken["state"], "success", "{taken}");
    let id = taken["backup"].as_str().context("a backup")?.to_owned();
    server.wait_until(|server| {
        let latest = server.ask("GET", "/api/v1/sources/shop/backups/latest", "anna", "")?;
        Ok(latest.text.contains(&id))
    })?;

    slips_are_explained(&server, &id)?;

    let restores = format!("/api/v1/backups/{id}/restores");
    let made = server.order(&restores, "anna", r#"{"target":"archive"}"#)?;
    assert_eq!(
        (&made["state"], &made["sandbox"]["compared"]),
        (&json!("success"), &json!("equal")),
        "{made}"
    );
    let run = format!("/api/v1/runs/{}", made["id"].as_str().context("an id")?);
    let access = format!("{run}/access");
    // Only she is told, and once.
    server.ask("GET", &access, "boris", "")?.is(403)?;
    server.ask("GET", &access, "olga", "")?.is(403)?;
    let told = server.ask("GET", &access, "anna", "")?.is(200)?;
    assert_eq!(told.header("cache-control"), "no-store");
    let told = told.json()?;
    server.ask("GET", &access, "anna", "")?.is(410)?;
    let password = told["password"].as_str().context("a password")?;
    ensure!(!server.get(&run, "anna")?.to_string().contains(password));
    let rows = stage.visit(&told, "SELECT count(*) FROM app.bulk")?;
    let live = "SELECT count(*) FROM app.bulk";
    assert_eq!(rows, stage.cluster.query("shop", live)?.trim());

    let name = told["database"].as_str().context("a name")?.to_owned();
    let seen = |person: &str| -> Result<usize> {
        let page = server.get("/api/v1/sandboxes", person)?;
        Ok(page["items"].as_array().context("items")?.len())
    };
    assert_eq!((seen("anna")?, seen("boris")?, seen("olga")?), (1, 0, 1));
    let sandbox = format!("/api/v1/sandboxes/{name}");
    server.ask("DELETE", &sandbox, "boris", "")?.is(404)?;
    server.ask("DELETE", &sandbox, "olga", "")?.is(403)?;
    for other in ["shop", "postgres", "restore_shop_20260205_0000beef"] {
        let path = format!("/api/v1/sandboxes/{other}");
        server.ask("DELETE", &path, "anna", "")?.is(404)?;
    }
    server.ask("DELETE", &sandbox, "anna", "")?.is(204)?;
    ensure!(!stage.cluster.has_db(&name)?, "it is still there");
    ensure!(stage.cluster.has_db("shop")?);
    assert_eq!(seen("anna")?, 0);

    let password = password.to_owned();
    let ended = server.stop()?;
    for secret in [password.as_str(), ADMIN, RESTORER] {
        ensure!(!ended.stderr.contains(secret), "a secret is in the log");
    }
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_run_is_stopped_and_people_are_let_in_and_out_without_a_restart() -> Result<()> {
    let stage = Stage::new()?;
    stage
        .cluster
        .psql("shop", "CREATE TABLE held AS SELECT 1 AS a")?;
    let people = [("olga", "operator"), ("anna", "restorer")];
    let server = Server::start(&stage.cli, &stage.settings, &people)?;
    // Somebody holds a table, so the backup waits.
    let mut holder = stage.cluster.tool("psql", "shop");
    holder.env("PGPASSWORD", ADMIN);
    holder.args([
        "-XAtw",
        "-c",
        "BEGIN; LOCK TABLE held; SELECT pg_sleep(600)",
    ]);
    let holder = Running::start(holder)?;
    let held = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%LOCK TABLE held%'
                AND wait_event = 'PgSleep'";
    server.wait_until(|_| Ok(stage.cluster.query("postgres", held)?.trim() == "1"))?;
    let path = "/api/v1/sources/shop/backups";
    let taken = server.ask("POST", path, "olga", "{}")?.is(202)?;
    let run = taken.header("location").to_owned();
    // The same once more is refused, and said where it is.
    let again = server.ask("POST", path, "olga", "{}")?.is(409)?;
    assert_eq!(again.header("location"), run);
    server.ask("DELETE", &run, "anna", "")?.is(403)?;
    server.ask("DELETE", &run, "olga", "")?.is(202)?;
    server
        .ask("GET", &format!("{run}/events"), "olga", "")?
        .is(200)?;
    let ended = server.get(&run, "olga")?;
    assert_eq!(ended["state"], "cancelled", "{ended}");
    holder.signal(Signal::SIGTERM)?;
    holder.wait()?;

    let config = std::fs::read_to_string(&server.config)?;
    let (without, _) = config.split_once("[[access]]").context("people")?;
    std::fs::write(&server.config, "nonsense")?;
    server.signal(Signal::SIGHUP)?;
    thread::sleep(Duration::from_secs(5));
    server.ask("GET", "/api/v1/sources", "anna", "")?.is(200)?;
    std::fs::write(&server.config, without)?;
    server.signal(Signal::SIGHUP)?;
    server.wait_until(|server| {
        let asked = server.ask("GET", "/api/v1/sources", "anna", "")?;
        Ok([401, 429].contains(&asked.status))
    })?;
    let ended = server.stop()?;
    ensure!(
        ended.stderr.contains("the configuration stays as it was"),
        "{}",
        ended.stderr
    );
    Ok(())
}

/// Asks all that the description allows, and much that it does not. Whatever comes, the server
/// answers as it is described, and never by accident.
#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn it_answers_everything_as_it_is_described() -> Result<()> {
    let stage = Stage::new()?;
    let server = Server::start(&stage.cli, &stage.settings, &[("olga", "admin")])?;
    let taken = server.order("/api/v1/sources/shop/backups", "olga", "{}")?;
    let id = taken["backup"].as_str().context("a backup")?;
    let run = taken["id"].as_str().context("a run")?;
    server.wait_until(|server| {
        let latest = server.ask("GET", "/api/v1/sources/shop/backups/latest", "olga", "")?;
        Ok(latest.status == 200)
    })?;
    let known = |path: &str, name: &str, value: &str| {
        format!(
            "[[operations]]\ninclude-path-regex = '{path}'\n\
             [operations.parameters]\n'path.{name}' = '{value}'\n"
        )
    };
    let config = [
        known("^/api/v1/sources/", "source", "shop"),
        known("^/api/v1/backups/\\{", "id", id),
        known("^/api/v1/runs/\\{", "id", run),
    ]
    .concat();
    let config = stage.cli.private_file("schemathesis.toml", &config)?;
    let mut command = Command::new(backup_e2e::schemathesis()?);
    let authorization = format!("Authorization: Bearer {}", server.token("olga"));
    command
        .current_dir(stage.cli.folder())
        .args(["--config-file", &config, "run"])
        .arg(format!("{}/api/openapi.json", server.url))
        .args(["--header", &authorization, "--max-examples", "10"])
        .args(["--phases", "coverage,fuzzing", "--max-time", "120"])
        .args(["--continue-on-failure", "--request-timeout", "60"])
        .args([
            "--checks",
            "not_a_server_error,status_code_conformance,content_type_conformance,\
             response_schema_conformance",
        ]);
    let run = Running::start(command)?.wait_at_most(Duration::from_mins(8))?;
    let text = String::from_utf8_lossy(&run.stdout).into_owned();
    ensure!(run.code == Some(0), "{text}");
    ensure!(text.contains("Tested: 23"), "{text}");
    // And it is still there.
    server.get("/api/v1/sources", "olga")?;
    server.stop()?;
    Ok(())
}
