//! What is backed up: every database of a server, several sources at once, and some schemas as one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use backup_e2e::cli::{Cli, Keys, Run};
use backup_e2e::pg::{Cluster, ClusterOptions, SUPERUSER, quote_literal};
use backup_testing::write_program;
use nix::sys::signal::Signal;
use rstest::rstest;
use serde_json::{Value, json};

/// Names of databases that mean something to somebody; 63 bytes are as long as a name can be.
const HOSTILE: [&str; 14] = [
    "a b",
    "it's \"quoted\"",
    "-Fp",
    "dbname=other",
    "база данных",
    "a/b",
    "../up",
    "..",
    "%41",
    "*",
    "back\\slash\\",
    "UPPER",
    "two\nlines",
    "яяяяяяяяяяяяяяяяяяяяяяяяяяяяяяя",
];

/// A server of its own, one place, and the program with a file that says what is backed up.
struct Stage {
    cluster: Cluster,
    cli: Cli,
    keys: Keys,
    config: String,
}

impl Stage {
    fn new(major: u16, sources: &str) -> Result<Self> {
        let cluster = Cluster::start(major, &ClusterOptions::default())?;
        let cli = Cli::new(&cluster)?;
        let keys = cli.keys()?;
        let text = format!(
            "[encryption]\nrecipients = ['{}']\nidentities = {{ file = '{}' }}\n\
             [server.main]\nhost = '{}'\nport = {}\nuser = '{SUPERUSER}'\n\
             [destination.local]\nurl = '{}'\n{sources}",
            keys.recipient,
            keys.identity,
            cluster.host(),
            cluster.port(),
            cli.local_store(),
        );
        let config = cli.private_file("backup.toml", &text)?;
        Ok(Self {
            cluster,
            cli,
            keys,
            config,
        })
    }

    /// Lets a hook note each failure of a source in the file that is returned.
    fn tell_failures_of(&self, source: &str) -> Result<PathBuf> {
        let [hook, notes] = ["hook", "notes"].map(|name| self.cli.folder().join(name));
        let facts = "$BACKUP_HOOK $BACKUP_SOURCE $BACKUP_DATABASE";
        let script = format!("#!/bin/sh\necho {facts} >> {}\n", notes.display());
        write_program(&hook, &script)?;
        let config = fs::read_to_string(&self.config)?;
        let hook = hook.display();
        let hooks = format!("[source.{source}.hooks]\non_failure = [['{hook}']]\n");
        self.cli.private_file("backup.toml", &(config + &hooks))?;
        Ok(notes)
    }

    /// A database that carries its own name.
    fn create(&self, name: &str) -> Result<()> {
        self.cluster.create_db(name)?;
        let marker = format!(
            "CREATE TABLE marker AS SELECT {} AS name",
            quote_literal(name)
        );
        self.cluster.psql(name, &marker).map(drop)
    }

    fn run(&self, arguments: &[&str]) -> Result<Run> {
        self.cli
            .run([&["--config", &self.config], arguments].concat())
    }

    fn json(&self, arguments: &[&str], code: i32) -> Result<Value> {
        self.run(arguments)?.exits(code)?.json()
    }

    /// What a backup prints, by source.
    fn back_up(&self, arguments: &[&str], code: i32) -> Result<BTreeMap<String, Value>> {
        let run = self.run(&[&["backup", "--json"], arguments].concat())?;
        by_source(&run.exits(code)?)
    }

    fn listed(&self, arguments: &[&str]) -> Result<Vec<String>> {
        let list = self.json(&[&["list", "--json"], arguments].concat(), 0)?;
        let mut sources: Vec<_> = texts(&list, "source");
        sources.sort();
        Ok(sources)
    }
}

fn by_source(run: &Run) -> Result<BTreeMap<String, Value>> {
    let mut found = BTreeMap::new();
    for line in run.text().lines() {
        let value: Value = serde_json::from_str(line)?;
        let source = value["source"].as_str().context("source")?.to_owned();
        ensure!(found.insert(source, value).is_none(), "twice: {line}");
    }
    Ok(found)
}

fn texts(array: &Value, field: &str) -> Vec<String> {
    let items = array.as_array().into_iter().flatten();
    let texts = items.filter_map(|item| item[field].as_str());
    texts.map(str::to_owned).collect()
}

fn member(database: &str) -> String {
    format!("everything/{database}")
}

const EVERYTHING: &str = "[source.everything]\nserver = 'main'\ndatabases = ['*']\n\
                          exclude = ['scratch_*']\nretention = 'one'\nmax_age = '90d'\n\
                          [retention.one]\nkeep_last = 1\nmin_keep = 1\n";

/// Each backup of a database with a hostile name is found by that name alone, and is of it.
fn assert_told_apart(stage: &Stage, first: &BTreeMap<String, Value>) -> Result<()> {
    for name in HOSTILE {
        let backup = &first[&member(name)];
        assert_eq!(backup["status"], "success", "{backup}");
        assert_eq!(backup["database"], name);
        let id = backup["id"].as_str().context("id")?;
        let source = member(name);
        let cat = stage.run(&["cat", id, "--source", &source, "--table", "public.marker"])?;
        let copied = name.replace('\\', "\\\\").replace('\n', "\\n");
        assert_eq!(cat.exits(0)?.text(), format!("{copied}\n"));
        assert_eq!(stage.listed(&[&source])?, [source]);
    }
    Ok(())
}

/// What is asked of all is judged of each, also of what is gone from the server.
fn assert_kept_apart(
    stage: &Stage,
    first: &BTreeMap<String, Value>,
    expected: &BTreeSet<String>,
) -> Result<()> {
    let check = stage.json(&["check", "everything", "--json"], 0)?;
    let checked: BTreeSet<_> = texts(&check["sources"], "source").into_iter().collect();
    assert_eq!(checked, *expected);
    let verified = stage.run(&["verify", "--all", "--source", "everything", "--json"])?;
    assert_eq!(
        verified.exits(0)?.text().lines().count(),
        2 * expected.len() - 2
    );

    // Each for itself: the only backup of what is gone stays.
    let pruned = stage
        .run(&["prune", "everything", "--yes", "--json"])?
        .exits(0)?;
    assert_eq!(by_source(&pruned)?.len(), expected.len());
    assert_eq!(stage.listed(&[])?, Vec::from_iter(expected.clone()));
    let old = first[&member("postgres")]["id"].as_str().context("id")?;
    let gone = ["show", old, "--source", "everything", "--identity"];
    stage
        .run(&[&gone[..], &[&stage.keys.identity]].concat())?
        .exits(4)?;
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn every_database_is_a_source_of_its_own() -> Result<()> {
    let stage = Stage::new(17, EVERYTHING)?;
    for name in HOSTILE.iter().chain(&["shop", "scratch_1"]) {
        stage.create(name)?;
    }
    let first = stage.back_up(&["everything"], 0)?;
    let mut expected: BTreeSet<_> = HOSTILE.into_iter().map(member).collect();
    expected.extend([member("shop"), member("postgres")]);
    let templates = ["template0", "template1"].map(member);
    let done: BTreeSet<_> = first.keys().cloned().collect();
    let all: BTreeSet<_> = expected.iter().chain(&templates).cloned().collect();
    assert_eq!(done, all);
    for (name, reason) in [
        ("template0", "it allows no connections"),
        ("template1", "it is a template"),
    ] {
        let skipped = &first[&member(name)];
        assert_eq!(skipped["status"], "skipped", "{skipped}");
        assert_eq!(skipped["reason"], reason);
        assert_eq!(skipped["warnings"], json!([]));
    }
    let excluded = stage.run(&["backup", "everything/scratch_1"])?.exits(2)?;
    let why = "\"scratch_*\" under exclude leaves it out";
    ensure!(excluded.stderr.contains(why), "{}", excluded.stderr);
    assert_told_apart(&stage, &first)?;
    assert_eq!(
        stage.listed(&["everything"])?,
        Vec::from_iter(expected.clone())
    );

    // One goes, one comes, and nobody has to say so.
    let contents = stage.cluster.contents("shop")?;
    stage.cluster.drop_db("shop")?;
    stage.create("newcomer")?;
    let second = stage.back_up(&["everything"], 0)?;
    assert_eq!(second[&member("newcomer")]["status"], "success");
    assert!(!second.contains_key(&member("shop")));
    let shop = member("shop");
    let restore = [
        "restore",
        "latest",
        "--target-db",
        "back",
        "--json",
        "--source",
    ];
    let restored = stage.json(&[&restore[..], &[&shop]].concat(), 0)?;
    assert_eq!(restored["warnings"], json!([]), "{restored}");
    assert_eq!(stage.cluster.contents("back")?, contents);
    stage.cluster.drop_db("back")?;
    // Of which database cannot be guessed.
    let vague = stage
        .run(&[&restore[..], &["everything"]].concat())?
        .exits(2)?;
    ensure!(vague.text().contains("--source"), "{}", vague.text());

    expected.insert(member("newcomer"));
    assert_kept_apart(&stage, &first, &expected)
}

#[rstest]
#[ignore = "needs servers: run ./scripts/test"]
fn what_cannot_be_taken_is_told(#[values(14, 18)] major: u16) -> Result<()> {
    let stage = Stage::new(
        major,
        "[source.some]\nserver = 'main'\ndatabases = ['s*', 'gone', 'x*']\n\
         [source.all]\nserver = 'main'\ndatabases = ['*']\n\
         retry = { attempts = 2, delays = ['100ms'] }\n",
    )?;
    let notes = stage.tell_failures_of("some")?;
    for name in ["shop", "secret", "sold", "still", "standing"] {
        stage.create(name)?;
    }
    stage.cluster.psql(
        "postgres",
        "REVOKE CONNECT ON DATABASE secret FROM PUBLIC; CREATE ROLE reader LOGIN;
         GRANT pg_read_all_data TO reader; ALTER DATABASE still ALLOW_CONNECTIONS false;
         UPDATE pg_database SET datconnlimit = -2 WHERE datname = 'sold'",
    )?;
    let reader = ["-U", "reader"];
    let some = stage.back_up(&[&reader[..], &["some"]].concat(), 3)?;
    let of = |name: &str| &some[name];
    for name in ["some/shop", "some/standing"] {
        assert_eq!(of(name)["status"], "success", "{}", of(name));
    }
    let (invalid, right) = (
        "it is invalid: dropping it was interrupted, and can only be repeated",
        "the login has no right to connect to it",
    );
    for (name, reason, warns) in [
        ("some/secret", right, true),
        ("some/sold", invalid, true),
        ("some/still", "it allows no connections", false),
    ] {
        assert_eq!(of(name)["status"], "skipped", "{}", of(name));
        assert_eq!(of(name)["reason"], reason);
        let warnings = of(name)["warnings"].as_array().context("warnings")?;
        assert_eq!(warnings.len(), usize::from(warns), "{}", of(name));
    }
    for (name, cause) in [
        ("some/gone", "it is not there"),
        ("some", "no database that can be backed up matches \"x*\""),
    ] {
        assert_eq!(of(name)["status"], "failed", "{}", of(name));
        assert_eq!(of(name)["error"]["causes"], json!([cause]));
    }
    assert_eq!(some.len(), 7, "{some:?}");
    let runs = stage.json(&["runs", "--json"], 0)?;
    let failed = runs.as_array().into_iter().flatten();
    let failed = failed.filter(|run| run["result"] == "failed");
    let failed: BTreeSet<_> = failed.filter_map(|run| run["source"].as_str()).collect();
    assert_eq!(failed, ["some", "some/gone"].into());
    // What never had a backup and was to have one is missed.
    let check = stage.json(&["check", "some", "--json"], 2)?;
    let checked = texts(&check["sources"], "source");
    assert_eq!(checked, ["some", "some/gone", "some/shop", "some/standing"]);
    let of_all = texts(&check["sources"][0]["findings"], "kind");
    assert_eq!(of_all, ["failed"], "{check}");
    let told = fs::read_to_string(&notes)?;
    let mut told: Vec<_> = told.lines().collect();
    told.sort_unstable();
    assert_eq!(told, ["on_failure some", "on_failure some/gone gone"]);

    // And before any night, each is looked at.
    let doctor = stage.json(&["doctor", "some", "-U", "reader", "--json"], 7)?;
    let sections = doctor["sections"].as_array().into_iter().flatten();
    let servers = sections.filter(|section| section["section"] == "server");
    let servers: Vec<_> = servers.cloned().collect();
    let names = texts(&json!(servers), "name");
    assert_eq!(names, ["some", "some/shop", "some/standing"]);
    let ids = [
        "databases",
        "database-left-out",
        "database-left-out",
        "database-left-out",
        "database-refused",
        "nothing-matches",
    ];
    assert_eq!(texts(&servers[0]["findings"], "id"), ids);
    assert_eq!(servers[1]["status"], "ok", "{}", servers[1]);

    // By its name, too, nothing is taken that is not meant.
    for (source, why) in [
        ("some/other", "nothing under databases names it"),
        ("some/postgres", "nothing under databases names it"),
    ] {
        let refused = stage.run(&["backup", source])?.exits(2)?;
        ensure!(refused.stderr.contains(why), "{}", refused.stderr);
    }

    // As text, too, and warnings alone are no failure.
    let all = stage.run(&["backup", "-U", "reader", "all"])?.exits(3)?;
    for line in [
        "all/still: skipped: it allows no connections",
        &format!("warning: all/sold is left out: {invalid}"),
        &format!("warning: all/secret is left out: {right}"),
    ] {
        ensure!(
            all.stderr.lines().any(|said| said == line),
            "{}",
            all.stderr
        );
    }
    // A server that does not answer is one failure, after as many attempts as are configured.
    let port = ["backup", "all", "--json", "-p", "1"];
    let down = stage.run(&port)?.exits(9)?;
    assert_eq!(by_source(&down)?["all"]["status"], "failed");
    let again = "asking for the databases again in 0 s";
    assert_eq!(down.stderr.matches(again).count(), 1, "{}", down.stderr);
    let check = stage.json(&["check", "all", "--json"], 1)?;
    assert_eq!(check["sources"][0]["source"], "all");
    let findings = texts(&check["sources"][0]["findings"], "kind");
    assert_eq!(findings, ["failed"], "{check}");
    // What its databases have since makes up for it.
    stage.run(&["backup", "-U", "reader", "all"])?.exits(3)?;
    let check = stage.json(&["check", "all", "--json"], 0)?;
    assert_eq!(
        texts(&check["sources"], "source")
            .first()
            .map(String::as_str),
        Some("all/postgres")
    );
    Ok(())
}

/// Holds a lock in a database until it is dropped.
struct Locked(std::process::Child);

impl Drop for Locked {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn lock(cluster: &Cluster, database: &str) -> Result<Locked> {
    let mut psql = cluster.tool("psql", database);
    let sql = "BEGIN; LOCK TABLE marker; SELECT pg_sleep(600)";
    psql.args(["-c", sql]).stdout(Stdio::null());
    let locked = Locked(psql.spawn()?);
    wait_for(
        cluster,
        "a.state = 'active' AND mode = 'AccessExclusiveLock'",
        database,
        1,
    )?;
    Ok(locked)
}

/// Waits until so many sessions hold or want a lock of this kind.
fn wait_for(cluster: &Cluster, what: &str, database: &str, count: usize) -> Result<()> {
    let sql = format!(
        "SELECT count(DISTINCT a.datname) FROM pg_stat_activity a JOIN pg_locks l USING (pid)
         WHERE {what} AND a.datname LIKE {}",
        quote_literal(database)
    );
    for _ in 0..600 {
        if cluster.query("postgres", &sql)?.trim() == count.to_string() {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(100));
    }
    anyhow::bail!("not {count} in {database}: {what}")
}

/// Two run, one waits for its turn, and a signal ends all three; each is told.
#[rstest]
#[ignore = "needs servers: run ./scripts/test"]
fn several_run_at_once_and_a_signal_ends_all(#[values(true, false)] json: bool) -> Result<()> {
    let names = ["one", "two", "three"];
    let sources = names.map(|name| format!("[source.{name}]\nserver = 'main'\n"));
    let stage = Stage::new(17, &sources.concat())?;
    let mut locks = Vec::new();
    for name in names {
        stage.create(name)?;
        locks.push(lock(&stage.cluster, name)?);
    }
    let mut words = vec![
        "--config",
        &stage.config,
        "backup",
        "--all",
        "--concurrent",
        "2",
    ];
    words.extend(json.then_some("--json"));
    let running = stage.cli.start(words)?;
    let waiting = "NOT l.granted AND a.application_name = 'backup-manager'";
    wait_for(&stage.cluster, waiting, "%", 2)?;
    running.signal(Signal::SIGINT)?;
    let run = running.wait()?.exits(130)?;
    if json {
        let told = by_source(&run)?;
        assert_eq!(told.keys().collect::<Vec<_>>(), ["one", "three", "two"]);
        for backup in told.values() {
            assert_eq!(backup["error"]["kind"], "cancelled", "{backup}");
        }
    } else {
        let said = |text: &str| run.stderr.matches(text).count();
        assert_eq!(
            said(": stopped by a signal; nothing was published"),
            2,
            "{}",
            run.stderr
        );
        assert_eq!(said(": not begun"), 1, "{}", run.stderr);
    }
    assert_eq!(stage.listed(&[])?, Vec::<String>::new());
    // Killing its client does not end a session that sleeps.
    stage.cluster.query(
        "postgres",
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
         WHERE query LIKE '%pg_sleep(600)' AND pid <> pg_backend_pid()",
    )?;
    drop(locks);
    // And without anybody in the way, all of them.
    let all = stage.back_up(&["--all", "--concurrent", "3"], 0)?;
    assert_eq!(all.len(), 3);
    assert_eq!(stage.listed(&[])?, ["one", "three", "two"]);
    let restored = stage.json(
        &[
            "restore",
            "latest",
            "--source",
            "two",
            "--target-db",
            "again",
            "--json",
        ],
        0,
    )?;
    assert_eq!(restored["compare"]["equal"], 1);
    assert_eq!(
        stage
            .cluster
            .query("again", "SELECT name FROM marker")?
            .trim(),
        "two"
    );
    Ok(())
}

/// Schemas that know each other in a circle, types of an extension, and one schema that is not
/// meant.
const APP: &str = r#"
CREATE EXTENSION citext;
CREATE SCHEMA "user"; CREATE SCHEMA event; CREATE SCHEMA crew; CREATE SCHEMA other;
CREATE TABLE other.region (id int PRIMARY KEY);
CREATE TABLE crew.member (id int PRIMARY KEY, leader int, account int);
CREATE TABLE "user".account (id int PRIMARY KEY, email citext UNIQUE, names citext[], crew int
  REFERENCES crew.member);
CREATE TABLE event.booking (id int PRIMARY KEY, account int NOT NULL
  CONSTRAINT of_account REFERENCES "user".account);
ALTER TABLE crew.member ADD CONSTRAINT circle FOREIGN KEY (account) REFERENCES "user".account;
CREATE VIEW event.who AS SELECT b.id, a.email FROM event.booking b JOIN "user".account a
  ON a.id = b.account;
INSERT INTO crew.member (id) SELECT generate_series(1, 10);
INSERT INTO "user".account SELECT i, 'U' || i, ARRAY['a', 'B'], 1 + i % 10
  FROM generate_series(1, 100) AS i;
UPDATE crew.member SET account = id;
INSERT INTO event.booking SELECT i, 1 + i % 100 FROM generate_series(1, 1000) AS i;
INSERT INTO other.region VALUES (1);
"#;

const KEYS: &str = "SELECT string_agg(conname || convalidated, ' ' ORDER BY conname) \
                    FROM pg_constraint WHERE contype = 'f'";

#[rstest]
#[ignore = "needs servers: run ./scripts/test"]
fn schemas_are_one_set(#[values(14, 18)] major: u16) -> Result<()> {
    let stage = Stage::new(
        major,
        "[source.app]\nserver = 'main'\ndatabase = 'aquastream'\n\
         schemas = ['\"user\"', 'event', 'crew']\n",
    )?;
    let cluster = &stage.cluster;
    cluster.create_db("aquastream")?;
    cluster.psql("aquastream", APP)?;
    let set = stage.back_up(&["app"], 0)?.remove("app").context("app")?;
    assert_eq!(set["tables"], 3, "{set}");
    // What one run leaves out stands for nothing.
    let part = stage.back_up(&["app", "-t", "event.booking"], 0)?;
    assert_eq!(part["app"]["filtered"], true);
    let shown = stage.json(&["show", "latest", "--source", "app", "--json"], 0)?;
    assert_eq!(shown["id"], set["id"]);
    let check = stage.json(&["check", "app", "--json"], 0)?;
    assert_eq!(check["sources"][0]["backup"], set["id"]);

    let restore = [
        "restore",
        "latest",
        "--source",
        "app",
        "--json",
        "--target-db",
    ];
    let all = stage.json(&[&restore[..], &["all"]].concat(), 0)?;
    assert_eq!(all["compare"]["equal"], 3, "{all}");
    assert_eq!(
        all["compare"]["definitions"]["different"],
        json!([]),
        "{all}"
    );
    let note = "it has what its source is configured to have, not the whole database";
    let notes = all["notes"].as_array().context("notes")?;
    ensure!(notes.iter().any(|said| said == note), "{all}");
    let rows = "SELECT count(*), count(DISTINCT email) FROM event.who WHERE email < 'u5'";
    assert_eq!(
        cluster.query("all", rows)?,
        cluster.query("aquastream", rows)?
    );
    assert_eq!(
        cluster.query("all", KEYS)?,
        cluster.query("aquastream", KEYS)?
    );
    let one = stage.json(&[&restore[..], &["one", "--schema", "crew"]].concat(), 3)?;
    assert_eq!(one["compare"]["equal"], 1, "{one}");
    let left = one["warnings"][0].as_str().context("a warning")?;
    ensure!(left.contains("circle") && left.contains("account"), "{one}");
    // It is not what the database was.
    let swap = stage
        .run(&[&restore[..], &["aquastream", "--swap", "--yes"]].concat())?
        .exits(2)?;
    ensure!(swap.text().contains("filtered"), "{}", swap.text());
    assert_eq!(
        cluster
            .query("aquastream", "SELECT count(*) FROM other.region")?
            .trim(),
        "1"
    );

    // What leads out of the set is told while it can still be taken in.
    cluster.psql(
        "aquastream",
        "ALTER TABLE crew.member ADD region int REFERENCES other.region",
    )?;
    let leads_out = stage.back_up(&["app"], 3)?;
    assert_eq!(
        leads_out["app"]["warnings"],
        json!([
            "crew.member needs other.region, which the filter leaves out: all together cannot be \
             restored without it"
        ])
    );
    let refused = stage.run(&[&restore[..], &["broken"]].concat())?;
    ensure!(refused.code != Some(0), "{}", refused.text());
    ensure!(refused.text().contains("other"), "{}", refused.text());
    assert!(!cluster.has_db("broken")?);
    Ok(())
}

/// What is named and not there is no backup, whatever else is there.
#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn what_is_named_and_not_there_is_no_success() -> Result<()> {
    let stage = Stage::new(
        17,
        "[source.schemas]\nserver = 'main'\ndatabase = 'app'\n\
         schemas = ['\"user\"', 'evnt', 'crew']\n\
         [source.tables]\nserver = 'main'\ndatabase = 'app'\n\
         tables = ['event.booking', 'event.bokings']\n\
         [source.good]\nserver = 'main'\ndatabase = 'app'\n\
         schemas = ['\"user\"', 'ev*', 'crew']\n",
    )?;
    stage.cluster.create_db("app")?;
    stage.cluster.psql("app", APP)?;
    let good = ["good", "-n", "event", "-n", "gone"];
    let table = ["good", "-t", "event.booking", "-t", "event.gone"];
    for (arguments, says) in [
        (
            &["schemas"][..],
            "no matching schemas were found for pattern \"evnt\"",
        ),
        (
            &["tables"],
            "no matching tables were found for pattern \"event.bokings\"",
        ),
        (&good, "no matching schemas were found for pattern \"gone\""),
        (
            &table,
            "no matching tables were found for pattern \"event.gone\"",
        ),
    ] {
        let told = stage.back_up(arguments, 9)?;
        let told = &told[arguments[0]];
        assert_eq!(told["status"], "failed", "{told}");
        assert_eq!(told["error"]["kind"], "not_found", "{told}");
        let causes = told["error"]["causes"].to_string().replace('\\', "");
        ensure!(causes.contains(says), "{says}: {told}");
    }
    assert_eq!(stage.listed(&[])?, Vec::<String>::new());
    let whole = stage.back_up(&["good"], 0)?;
    assert_eq!(whole["good"]["tables"], 3, "{whole:?}");
    // To leave out what is not there leaves out nothing that is.
    let without = stage.back_up(&["good", "-N", "gone", "-T", "event.gone"], 0)?;
    assert_eq!(without["good"]["status"], "success", "{without:?}");
    Ok(())
}
