//! `doctor`: what is wrong is named with its remedy, and nothing else is.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context as _, Result, ensure};
use backup_e2e::cli::{Cli, Run};
use backup_e2e::pg::{Cluster, ClusterOptions};
use backup_e2e::pooler::Pooler;
use backup_e2e::s3::{Kind, Server};
use rstest::rstest;
use serde_json::Value;

/// The role that the manual recommends, with what makes its backups complete.
const GOOD_ROLE: &str = "
CREATE ROLE backup LOGIN BYPASSRLS;
GRANT pg_read_all_data TO backup;
ALTER ROLE backup SET lo_compat_privileges = on;
GRANT SELECT ON pg_catalog.pg_authid TO backup;
CREATE ROLE other;
";

/// Everything that a login without rights stumbles over.
const GAPS: &str = "
CREATE SCHEMA app;
CREATE TABLE app.orders AS SELECT 1 AS id;
CREATE TABLE app.open AS SELECT 1 AS id;
CREATE SEQUENCE app.numbers;
CREATE TABLE app.own (id int);
ALTER TABLE app.own OWNER TO other;
ALTER TABLE app.own ENABLE ROW LEVEL SECURITY;
ALTER TABLE app.own FORCE ROW LEVEL SECURITY;
SELECT lo_create(0) FROM generate_series(1, 3);
";

/// A cluster of its own, a private folder and a directory for backups.
struct Patient {
    cluster: Cluster,
    cli: Cli,
}

impl Patient {
    fn new(major: u16) -> Result<Self> {
        let options = ClusterOptions::default().set("max_prepared_transactions", "3");
        let cluster = Cluster::start(major, &options)?;
        cluster.psql("postgres", GOOD_ROLE)?;
        cluster.create_db("shop")?;
        cluster.psql("shop", GAPS)?;
        // How full the disk of this machine is, is no business of the tests.
        let cli = Cli::new(&cluster)?.with_env("BACKUP_DEFAULTS__WARN_USED_PERCENT", "100");
        let root = cli.local_root();
        fs::create_dir(&root)?;
        fs::set_permissions(&root, fs::Permissions::from_mode(0o700))?;
        Ok(Self { cluster, cli })
    }

    /// Examines the database as that role, and the directory.
    fn doctor(&self, role: &str, more: &[&str]) -> Result<Run> {
        let place = self.cli.local_store();
        let usual = ["doctor", "-d", "shop", "-U", role, "--to", &place];
        self.cli.run([&usual, more].concat())
    }

    fn report(&self, role: &str, more: &[&str], code: i32) -> Result<Value> {
        let more = [more, &["--no-encryption", "--json"]].concat();
        self.doctor(role, &more)?.exits(code)?.json()
    }
}

/// A port where nobody listens.
fn closed_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// What was found in one kind of section, by id: level and remedy.
fn found(report: &Value, section: &str) -> Result<BTreeMap<String, (String, String)>> {
    let sections = report["sections"].as_array().context("sections")?;
    let of_kind = sections.iter().filter(|s| s["section"] == section);
    let findings = of_kind.flat_map(|s| s["findings"].as_array().into_iter().flatten());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(findings
        .map(|f| (text(&f["id"]), (text(&f["level"]), text(&f["remedy"]))))
        .collect())
}

/// Those of the given level.
fn ids(report: &Value, section: &str, level: &str) -> Result<Vec<String>> {
    let found = found(report, section)?.into_iter();
    let of_level = found.filter(|(_, (found, _))| found == level);
    Ok(of_level.map(|(id, _)| id).collect())
}

#[rstest]
#[case(14)]
#[case(18)]
#[ignore = "needs servers: run ./scripts/test"]
fn a_healthy_set_up_gets_no_warning_and_is_left_as_it_was(#[case] major: u16) -> Result<()> {
    let patient = Patient::new(major)?;
    let (one, two) = (patient.cli.keys()?, patient.cli.keys()?);
    let keys = ["--recipient", &one.recipient, "--recipient", &two.recipient];
    let healthy = [&keys[..], &["--json"]].concat();
    let report = patient.doctor("backup", &healthy)?.exits(0)?.json()?;
    assert_eq!(report["status"], "ok", "{report:#}");
    let sections = report["sections"].as_array().context("sections")?;
    let named = sections.iter().map(|s| s["section"].as_str());
    let named: Option<Vec<_>> = named.collect();
    assert_eq!(
        named.context("names")?,
        ["server", "destination", "keys", "machine"]
    );
    let server = found(&report, "server")?;
    for id in [
        "server-reachable",
        "client-programs",
        "client-programs-connect",
        "role-reads-everything",
        "server-clock",
    ] {
        ensure!(server.contains_key(id), "{id}: {server:?}");
    }
    let destination = found(&report, "destination")?;
    for id in [
        "writes",
        "reads",
        "lists",
        "deletes",
        "uploads",
        "conditional-writes",
    ] {
        ensure!(destination.contains_key(id), "{id}: {destination:?}");
    }
    assert_eq!(fs::read_dir(patient.cli.local_root())?.count(), 0);
    // What it promises holds.
    let place = patient.cli.local_store();
    let backup = ["backup", "-d", "shop", "-U", "backup", "--to", &place];
    patient.cli.run([&backup[..], &keys].concat())?.exits(0)?;
    let report = patient.doctor("backup", &healthy)?.exits(0)?.json()?;
    assert_eq!(report["status"], "ok", "{report:#}");

    let text = patient.doctor("backup", &keys)?.exits(0)?.text();
    ensure!(
        text.starts_with("server shop\n  ok       PostgreSQL "),
        "{text}"
    );
    ensure!(
        text.ends_with("0 problems, 0 warnings, 0 notes\n"),
        "{text}"
    );
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn each_right_that_is_missing_is_named_and_its_remedy_helps() -> Result<()> {
    let patient = Patient::new(17)?;
    let weak = "CREATE ROLE weak LOGIN; GRANT other TO weak;
                ALTER ROLE weak SET idle_in_transaction_session_timeout = '5s'";
    patient.cluster.psql("postgres", weak)?;
    let report = patient.report("weak", &[], 7)?;
    let problems = [
        "role-cannot-read-large-objects",
        "role-cannot-read-sequences",
        "role-cannot-read-tables",
        "row-security-hides-rows",
    ];
    assert_eq!(ids(&report, "server", "problem")?, problems, "{report:#}");
    let notes = ["passwords-not-in-backups", "session-limits"];
    assert_eq!(ids(&report, "server", "note")?, notes, "{report:#}");
    let said = report.to_string();
    for words in [
        "3 tables: app.open, app.orders, app.own",
        "3 large objects of 3",
    ] {
        ensure!(said.contains(words), "{words}: {said}");
    }

    // The remedies, as they stand there.
    let run = |report: &Value, id: &str| -> Result<()> {
        let (_, remedy) = found(report, "server")?.remove(id).context("found")?;
        let (_, sql) = remedy.split_once(": ").context("a statement")?;
        patient.cluster.psql("shop", sql).map(drop)
    };
    run(&report, "role-cannot-read-tables")?;
    run(&report, "role-cannot-read-large-objects")?;
    let report = patient.report("weak", &[], 7)?;
    let hidden = ["row-security-hides-rows"];
    assert_eq!(ids(&report, "server", "problem")?, hidden, "{report:#}");
    run(&report, "row-security-hides-rows")?;
    let report = patient.report("weak", &[], 0)?;
    assert_eq!(report["status"], "note", "{report:#}");

    // Some of it may be left out on purpose.
    patient
        .cluster
        .psql("postgres", "ALTER ROLE weak NOBYPASSRLS")?;
    let place = patient.cli.local_store();
    let text = format!(
        "[encryption]\nmode = 'none'\n[server.main]\nhost = '{}'\nport = {}\nuser = 'weak'\n\
         [destination.near]\nurl = '{place}'\n\
         [source.part]\nserver = 'main'\ndatabase = 'shop'\ntables = ['app.open']\n",
        patient.cluster.host(),
        patient.cluster.port(),
    );
    let config = patient.cli.private_file("backup.toml", &text)?;
    let run = patient.cli.run(["--config", &config, "doctor", "--json"])?;
    let report = run.exits(0)?.json()?;
    ensure!(
        ids(&report, "server", "note")?.contains(&hidden[0].to_owned()),
        "{report:#}"
    );
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn the_step_that_fails_is_told_and_the_rest_is_looked_at() -> Result<()> {
    let options = ClusterOptions::default().scram("the right one, c4n4ry61b0");
    let cluster = Cluster::start(17, &options)?;
    let cli = Cli::new(&cluster)?;
    fs::create_dir(cli.local_root())?;
    let place = cli.local_store();
    let doctor = |cli: &Cli, more: &[&str]| -> Result<Value> {
        let usual = ["doctor", "--to", &place, "--no-encryption", "--json"];
        cli.run([&usual, more].concat())?.exits(7)?.json()
    };
    let problem = |report: &Value| -> Result<String> {
        let problems = ids(report, "server", "problem")?;
        ensure!(problems.len() == 1, "{report:#}");
        // What does not depend on the server is looked at all the same.
        ensure!(
            found(report, "destination")?.contains_key("uploads"),
            "{report:#}"
        );
        Ok(problems[0].clone())
    };
    let base = ["-d", "postgres"];
    let wrong = Cli::new(&cluster)?.with_env("PGPASSWORD", "the wrong one, c4n4ry92d4");
    assert_eq!(problem(&doctor(&wrong, &base)?)?, "server-password");
    let missing = doctor(&cli, &["-d", "nothing"])?;
    assert_eq!(problem(&missing)?, "database-missing");
    let closed = closed_port()?.to_string();
    let there = |host: &str, port: &str| doctor(&cli, &["-d", "x", "-h", host, "-p", port]);
    assert_eq!(
        problem(&there("127.0.0.1", &closed)?)?,
        "server-port-closed"
    );
    assert_eq!(problem(&there("/nowhere", "5432")?)?, "server-socket");
    let tls = cli.with_env("PGSSLMODE", "verify-full");
    let report = doctor(&tls, &["-d", "postgres", "-h", "127.0.0.1"])?;
    assert_eq!(problem(&report)?, "server-tls");
    Ok(())
}

#[rstest]
#[case::any("transaction", "", "pooler")]
#[case::transactions("transaction", "extra_float_digits,options", "pooler")]
#[case::statements("statement", "extra_float_digits,options", "pooler")]
#[case::sessions("session", "extra_float_digits", "client-programs-cannot-connect")]
#[ignore = "needs servers: run ./scripts/test"]
fn a_pooler_in_between_is_told(
    #[case] mode: &str,
    #[case] ignored: &str,
    #[case] expected: &str,
) -> Result<()> {
    let patient = Patient::new(17)?;
    let pooler = Pooler::start(&patient.cluster, mode, ignored)?;
    let port = pooler.port().to_string();
    let report = patient.report("backup", &["-h", "127.0.0.1", "-p", &port], 7)?;
    let problems = ids(&report, "server", "problem")?;
    assert_eq!(problems, [expected], "{report:#}");
    let (_, remedy) = found(&report, "server")?
        .remove(expected)
        .context("found")?;
    ensure!(remedy.contains("to the server itself"), "{report:#}");
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_table_that_is_locked_and_a_full_role_are_told() -> Result<()> {
    let patient = Patient::new(17)?;
    let sql = "ALTER ROLE backup CONNECTION LIMIT 4";
    patient.cluster.psql("postgres", sql)?;
    let prepare =
        "BEGIN; LOCK TABLE app.orders IN ACCESS EXCLUSIVE MODE; PREPARE TRANSACTION 'two'";
    patient.cluster.psql("shop", prepare)?;
    let report = patient.report("backup", &["--jobs", "3"], 3)?;
    let warnings = ids(&report, "server", "warning")?;
    assert_eq!(warnings, ["too-few-connections"], "{report:#}");
    let notes = ids(&report, "server", "note")?;
    assert_eq!(notes, ["table-locked"], "{report:#}");
    ensure!(report.to_string().contains("app.orders"), "{report:#}");
    Ok(())
}

#[rstest]
#[case::seaweedfs(Kind::SeaweedFs)]
#[case::minio(Kind::MinIo)]
#[ignore = "needs servers: run ./scripts/test"]
fn a_bucket_is_tried_and_left_as_it_was(#[case] kind: Kind) -> Result<()> {
    let server = Server::shared(kind)?;
    let bucket = format!("doctor-tried-{}", std::process::id());
    server.create_bucket(&bucket)?;
    let cli = Cli::without_server()?.with_s3(server);
    let run = |cli: &Cli, url: &str| -> Result<Value> {
        let arguments = ["doctor", "--to", url, "--no-encryption", "--json"];
        cli.run(arguments)?.json()
    };
    let url = format!("s3://{bucket}/some/prefix");
    let report = run(&cli, &url)?;
    let tried = found(&report, "destination")?;
    ensure!(tried.values().all(|(level, _)| level == "ok"), "{report:#}");
    ensure!(tried.contains_key("uploads"), "{report:#}");
    assert_eq!(server.list_keys(&bucket, "")?, Vec::<String>::new());
    assert_eq!(server.list_multipart_uploads(&bucket)?.len(), 0);

    let report = run(&cli, "s3://no-such-bucket-here/x")?;
    assert_eq!(ids(&report, "destination", "problem")?, ["not-there"]);
    let wrong = Cli::without_server()?.with_s3(server);
    let wrong = wrong.with_env("AWS_SECRET_ACCESS_KEY", "wrong-c4n4ry3f01");
    let report = run(&wrong, &url)?;
    assert_eq!(ids(&report, "destination", "problem")?, ["cannot-list"]);
    let silent = format!("http://127.0.0.1:{}", closed_port()?);
    let silent = Cli::without_server()?
        .with_s3(server)
        .with_env("AWS_ENDPOINT_URL", &silent);
    let report = run(&silent, &url)?;
    assert_eq!(ids(&report, "destination", "problem")?, ["unreachable"]);
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_login_that_may_only_read_cannot_take_backups() -> Result<()> {
    let server = Server::shared(Kind::SeaweedFs)?;
    let bucket = format!("doctor-read-{}", std::process::id());
    server.create_bucket(&bucket)?;
    let (id, key) = server.reader();
    let cli = Cli::without_server()?
        .with_s3(server)
        .with_env("AWS_ACCESS_KEY_ID", id)
        .with_env("AWS_SECRET_ACCESS_KEY", key);
    let url = format!("s3://{bucket}/x");
    let run = cli
        .run(["doctor", "--to", &url, "--no-encryption"])?
        .exits(7)?;
    let text = run.text();
    for words in [
        format!("destination {url}\n"),
        "  problem  ".to_owned(),
        "           -> ".to_owned(),
        "1 problem, ".to_owned(),
    ] {
        ensure!(text.contains(&words), "{words:?}: {text}");
    }
    assert_eq!(server.list_keys(&bucket, "")?, Vec::<String>::new());
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn places_are_compared_and_a_disk_that_is_not_mounted_is_told() -> Result<()> {
    let patient = Patient::new(17)?;
    let place = |name: &str| patient.cli.folder().join(name).display().to_string();
    let (one, two, gone) = (place("one"), place("two"), place("gone"));
    for to in [&one, &two] {
        let to = format!("file://{to}");
        let backup = ["backup", "-d", "shop", "--to", &to, "--no-encryption"];
        patient.cli.run(backup)?.exits(0)?;
    }
    let doctor = |places: &[&str], code: i32| -> Result<Value> {
        let named = places.iter().enumerate();
        let sections =
            named.map(|(n, place)| format!("[destination.d{n}]\nurl = 'file://{place}'\n"));
        let listed: Vec<_> = (0..places.len()).map(|n| format!("'d{n}'")).collect();
        let text = format!(
            "{}[encryption]\nmode = 'none'\n[source.shop]\ndestinations = [{}]\n",
            sections.collect::<String>(),
            listed.join(", "),
        );
        let config = patient.cli.private_file("backup.toml", &text)?;
        let doctor = ["--config", &config, "doctor", "shop", "--json"];
        patient.cli.run(doctor)?.exits(code)?.json()
    };
    let report = doctor(&[&one, &two], 0)?;
    let notes = ids(&report, "destination", "note")?;
    assert_eq!(notes, ["different-repositories"], "{report:#}");
    let report = doctor(&[&one, &gone], 3)?;
    let warnings = ids(&report, "destination", "warning")?;
    assert_eq!(warnings, ["directory-missing"], "{report:#}");
    ensure!(!std::path::Path::new(&gone).exists(), "it was made");
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn keys_that_do_not_belong_together_are_told() -> Result<()> {
    let cli = Cli::without_server()?;
    fs::create_dir(cli.local_root())?;
    let (one, two) = (cli.keys()?, cli.keys()?);
    let place = cli.local_store();
    let run = |more: &[&str]| -> Result<Value> {
        let usual = ["doctor", "--to", &place, "--json"];
        cli.run([&usual, more].concat())?.json()
    };
    let report = run(&["--recipient", &one.recipient, "-i", &two.identity])?;
    let warnings = ids(&report, "keys", "warning")?;
    assert_eq!(warnings, ["identity-not-recipient"], "{report:#}");
    ensure!(report.to_string().contains(&two.recipient), "{report:#}");
    let own = ["--recipient", &one.recipient, "-i", &one.identity];
    let report = run(&own)?;
    assert_eq!(ids(&report, "keys", "warning")?, [""; 0], "{report:#}");
    let notes = ["one-recipient", "private-key-here"];
    assert_eq!(ids(&report, "keys", "note")?, notes);
    let report = run(&[])?;
    assert_eq!(ids(&report, "keys", "problem")?, ["no-recipients"]);
    cli.run(["doctor", "nobody"])?.exits(2)?;

    // Sources with settings of their own are told apart.
    let text = format!(
        "[defaults]\nmin_free_space = '900TB'\n[encryption]\nrecipients = ['{}']\n\
         [destination.near]\nurl = '{place}'\n[source.closed]\n[source.open]\n\
         encryption = {{ mode = 'none' }}\n",
        one.recipient,
    );
    let config = cli.private_file("backup.toml", &text)?;
    let run = cli.run(["--config", &config, "doctor", "-h", "/nowhere", "--json"])?;
    let report = run.exits(7)?.json()?;
    let notes = ["encryption-off", "one-recipient"];
    assert_eq!(ids(&report, "keys", "note")?, notes, "{report:#}");
    ensure!(
        report
            .to_string()
            .contains("open: backups are not encrypted"),
        "{report:#}"
    );
    let refused = ids(&report, "destination", "problem")?;
    assert_eq!(refused, ["too-little-room"], "{report:#}");
    Ok(())
}
