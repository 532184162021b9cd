//! Names that mean something to a shell, a path, a connection string, a pattern or SQL.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context as _, Result, ensure};
use backup_e2e::cli::Cli;
use backup_e2e::evidence;
use backup_e2e::pg::{Cluster, ClusterOptions, quote_identifier, quote_literal};
use backup_e2e::sample;
use backup_e2e::vault::{Vault, id_of};
use rstest::rstest;
use serde_json::{Value, json};

/// Names of databases; `other` and `x` exist as well, for the names that could be taken for them.
const HOSTILE: [&str; 37] = [
    "a b",
    "it's \"quoted\"",
    "-Fp",
    "--version",
    "-f/tmp/x",
    "dbname=other",
    "dbname='other' user=nobody",
    "host=127.0.0.1 dbname=other",
    "host=192.0.2.1 dbname=other",
    "hostaddr=192.0.2.1",
    "service=other",
    "passfile=/etc/passwd",
    "postgresql://x",
    "postgres://192.0.2.1/other",
    "postgresql:///other",
    "база данных",
    "a/b",
    "../up",
    "../../etc/passwd",
    "..",
    ".",
    "/abs",
    "~",
    "other; DROP TABLE marker; --",
    "\"; DROP DATABASE other; --",
    "$HOME",
    "${x}",
    "back\\slash\\",
    "%41",
    "%s%n",
    "*",
    "?[a-z]",
    "$(touch x)`touch y`",
    "| touch z",
    "UPPER",
    " ",
    "яяяяяяяяяяяяяяяяяяяяяяяяяяяяяяя",
];

/// What a client program cannot be told on a command line, or what breaks a file of lines.
const LINES: &str = "two\nlines";

/// The name of a source as `docs/FORMAT.md` has it in keys.
fn in_keys(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    let bytes = name.bytes().map(|byte| match byte {
        byte if plain(byte) => char::from(byte).to_string(),
        byte => format!("~{byte:02x}"),
    });
    bytes.collect()
}

/// A cluster whose databases carry their own names; all hostile ones, and what they could be
/// taken for.
fn cluster_of_names() -> Result<Cluster> {
    let cluster = Cluster::start(17, &ClusterOptions::default())?;
    for name in HOSTILE.iter().chain(&["other", "x", "A", LINES]) {
        name_database(&cluster, name)?;
    }
    Ok(cluster)
}

/// A database that carries its own name.
fn name_database(cluster: &Cluster, name: &str) -> Result<()> {
    cluster.create_db(name)?;
    let marker = format!(
        "CREATE TABLE marker AS SELECT {} AS name",
        quote_literal(name)
    );
    cluster.psql(name, &marker).map(drop)
}

fn databases(cluster: &Cluster) -> Result<BTreeSet<String>> {
    let names = cluster.query("postgres", "SELECT json_agg(datname) FROM pg_database")?;
    Ok(serde_json::from_str(&names)?)
}

/// Everything in a folder and below.
fn tree(folder: &Path) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        found.insert(path.display().to_string());
        if path.is_dir() {
            found.extend(tree(&path)?);
        }
    }
    Ok(found)
}

/// A value as COPY prints it.
fn copied(value: &str) -> String {
    value.replace('\\', "\\\\").replace('\n', "\\n")
}

/// Listens on loopback, where no run has any business.
struct Bystander {
    port: u16,
    connections: Arc<AtomicUsize>,
}

impl Bystander {
    fn new() -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let port = listener.local_addr()?.port();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        // Until the test process ends.
        thread::spawn(move || {
            for stream in listener.incoming() {
                count.fetch_add(1, Ordering::SeqCst);
                drop(stream);
            }
        });
        Ok(Self { port, connections })
    }

    /// Names that lead here who reads them as a connection string.
    fn names(&self) -> [String; 3] {
        let port = self.port;
        [
            format!("host=127.0.0.1 port={port} dbname=other"),
            format!("postgresql://127.0.0.1:{port}/other"),
            format!("port={port}"),
        ]
    }

    /// How many have connected.
    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

#[rstest]
#[ignore = "needs servers: run ./scripts/test"]
fn check_06_a_database_of_any_name_is_backed_up_as_itself(
    #[values(true, false)] local: bool,
) -> Result<()> {
    let cluster = cluster_of_names()?;
    let vault = if local {
        Vault::local(&cluster)
    } else {
        Vault::seaweedfs(&cluster)
    }?;
    let before = databases(&cluster)?;
    for (count, name) in HOSTILE.iter().chain(&[LINES]).step_by(4).enumerate() {
        let backup = vault
            .back_up(name, &[])
            .with_context(|| format!("{name:?}"))?;
        assert_eq!(
            (&backup["database"], &backup["source"]),
            (&json!(name), &json!(name))
        );
        let id = id_of(&backup)?;
        let rows = vault.cat(id, "public.marker")?;
        assert_eq!(String::from_utf8(rows)?, format!("{}\n", copied(name)));

        let latest = vault.read(&["show", "latest", &format!("--source={name}"), "--json"])?;
        assert_eq!(latest.exits(0)?.json()?["id"], id, "{name:?}");
        let keys = vault.keys_stored()?;
        let own = format!("backups/{}/{id}/", in_keys(name));
        let own = keys.iter().filter(|key| key.starts_with(&own));
        assert_eq!(own.count(), 6, "{name:?}: {keys:?}");
        // The repository's own object beside those of the backups.
        assert_eq!(keys.len(), 6 * (count + 1) + 1, "{keys:?}");
    }
    assert_eq!(databases(&cluster)?, before);
    let outside = tree(vault.cli.folder())?;
    let root = vault.cli.local_root().display().to_string();
    let outside = outside.iter().filter(|path| !path.starts_with(&root));
    assert_eq!(outside.collect::<Vec<_>>(), [&vault.keys.identity]);
    evidence::note(
        6,
        format!(
            "{} databases with hostile names, each backed up in a {} as its own source, with the rows \
             of its own database and 6 objects below its own name; no database was made, and no file \
             elsewhere",
            HOSTILE.iter().chain(&[LINES]).step_by(4).count(),
            if local { "folder" } else { "bucket" }
        ),
    );
    Ok(())
}

/// The program with a file by which all databases of the cluster are one source.
fn family(cluster: &Cluster) -> Result<(Cli, String)> {
    let cli = Cli::new(cluster)?;
    let keys = cli.keys()?;
    let text = format!(
        "[encryption]\nrecipients = ['{}']\nidentities = {{ file = '{}' }}\n\
         [server.main]\nhost = '{}'\nport = {}\nuser = 'postgres'\n\
         [destination.local]\nurl = '{}'\n\
         [source.all]\nserver = 'main'\ndatabases = ['*']\n",
        keys.recipient,
        keys.identity,
        cluster.host(),
        cluster.port(),
        cli.local_store(),
    );
    let config = cli.private_file("backup.toml", &text)?;
    Ok((cli, config))
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_06_all_databases_of_hostile_names_are_backed_up_as_themselves() -> Result<()> {
    let cluster = cluster_of_names()?;
    let bystander = Bystander::new()?;
    let traps = bystander.names();
    for name in &traps {
        name_database(&cluster, name)?;
        // Stock pg_dump takes the name for a way to another server; if it did not, it would prove
        // nothing that nobody comes.
        let before = bystander.connections();
        let mut stock = cluster.tool("pg_dump", "postgres");
        stock.args(["-d", name, "--schema-only"]);
        let status = stock.stderr(Stdio::null()).status()?;
        ensure!(!status.success(), "{name}: it was dumped");
        ensure!(bystander.connections() > before, "{name}: nobody came");
    }
    let invited = bystander.connections();
    let (cli, config) = family(&cluster)?;
    let run = |arguments: &[&str]| cli.run([&["--config", &config], arguments].concat());
    let before = tree(cli.folder())?;
    let taken = run(&["backup", "all", "--json"])?.exits(0)?.text();
    let taken = taken.lines().map(serde_json::from_str);
    let taken: Vec<Value> = taken.collect::<Result<_, _>>()?;
    assert_eq!(bystander.connections(), invited, "somebody was led away");

    let names = HOSTILE.iter().copied().chain([LINES, "other", "x", "A"]);
    let names: Vec<_> = names.chain(traps.iter().map(String::as_str)).collect();
    let mut fingerprints = BTreeSet::new();
    for name in &names {
        let own = taken.iter().find(|backup| backup["database"] == *name);
        let id = id_of(own.with_context(|| format!("{name:?} of {taken:?}"))?)?;
        let shown = run(&["show", id, "--json"])?.exits(0)?.json()?;
        let facts = &shown["table_facts"][0];
        assert_eq!(facts["table"], "marker", "{shown}");
        assert_eq!(facts["bytes"], copied(name).len() + 1, "{name:?}: {shown}");
        let hash = facts["hash"].as_str().context("a fingerprint")?;
        fingerprints.insert(hash.to_owned());
        let rows = run(&["cat", id, "--table", "public.marker"])?.exits(0)?;
        assert_eq!(rows.text(), format!("{}\n", copied(name)));
    }
    assert_eq!(fingerprints.len(), names.len(), "no two are the same");
    run(&["verify", "--all", "--level", "decoded"])?.exits(0)?;
    assert_eq!(bystander.connections(), invited, "somebody was led away");
    // What is new lies in the store, and nowhere else.
    let root = cli.local_root().display().to_string();
    let new = tree(cli.folder())?;
    let new: Vec<_> = new.difference(&before).collect();
    let outside = new.iter().filter(|path| !path.starts_with(&root));
    assert_eq!(outside.count(), 0, "{new:?}");
    evidence::note(
        6,
        format!(
            "{} hostile database names in one run, each backup with the rows and the fingerprint of \
             its own database; {} of the names lead stock pg_dump to another port, where nobody came",
            HOSTILE.len() + 1 + traps.len(),
            traps.len()
        ),
    );
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_restore_makes_the_database_that_it_was_told_to() -> Result<()> {
    let cluster = cluster_of_names()?;
    let vault = Vault::local(&cluster)?;
    let mut backups = Vec::new();
    // A backup and a restore take a second each, so every third name has to do.
    let names: Vec<_> = HOSTILE.iter().copied().step_by(3).collect();
    for name in &names {
        let backup = vault.back_up(name, &[])?;
        let id = id_of(&backup)?.to_owned();
        backups.push((*name, id, cluster.contents(name)?));
    }
    for name in &names {
        cluster.drop_db(name)?;
    }
    let bystanders = databases(&cluster)?;
    for (number, (name, id, contents)) in backups.iter().enumerate() {
        let target = names[(number + 1) % names.len()];
        let restore = vault
            .restore(id, target, &[])
            .with_context(|| format!("{target:?}"))?;
        assert_eq!(restore["target_database"], target);
        assert_eq!(
            (&restore["compare"]["tables"], &restore["compare"]["equal"]),
            (&json!(1), &json!(1))
        );
        assert_eq!(
            &cluster.contents(target)?,
            contents,
            "{name:?} as {target:?}"
        );
        let marker = cluster.query(target, "SELECT name FROM marker")?;
        assert_eq!(marker, *name, "{target:?}");
        // And only that one.
        let mut now = databases(&cluster)?;
        assert!(now.remove(target));
        assert_eq!(now, bystanders, "{target:?}");
        cluster.drop_db(target)?;
    }
    for name in ["other", "x", "A", LINES] {
        assert_eq!(cluster.query(name, "SELECT name FROM marker")?, name);
    }
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_target_that_no_database_should_be_called_is_refused() -> Result<()> {
    let cluster = Cluster::shared(17)?;
    let vault = Vault::local(cluster)?;
    let database = cluster.fresh_db("plain")?;
    let backup = vault.back_up(&database, &[])?;
    let id = id_of(&backup)?;
    let before = databases(cluster)?;
    let long = "я".repeat(32);
    let rows = [
        (LINES, "\"two\\nlines\" cannot be the name of a database"),
        ("", "it is empty"),
        (&long, "it is longer than the server allows"),
    ];
    for (target, words) in rows {
        let target = format!("--target-db={target}");
        let run = vault.read(&["restore", id, &target])?.exits(2)?;
        assert!(run.stderr.contains(words), "{}", run.stderr);
    }
    assert_eq!(databases(cluster)?, before);

    // What is said about a name cannot pass for a message about something else.
    let unknown = "no such\nerror: database";
    let arguments = [
        "backup",
        "-d",
        unknown,
        "--to",
        &vault.url,
        "--no-encryption",
    ];
    let run = vault.cli.run(arguments)?.exits(9)?;
    let mut lines = run.stderr.lines();
    let first = lines.next().unwrap_or_default();
    assert!(
        first.starts_with("error: backup of no such\\nerror: database: "),
        "{first}"
    );
    assert!(run.stderr.contains("does not exist"), "{}", run.stderr);
    let hint = r#"hint: there is no database "no such\nerror: database": correct its name"#;
    assert_eq!(lines.next_back(), Some(hint), "{}", run.stderr);
    assert!(lines.all(|line| line.starts_with("    ")), "{}", run.stderr);
    Ok(())
}

/// One schema, table, column, sequence, function and role of each name.
fn objects_sql(name: &str) -> String {
    let (id, text) = (quote_identifier(name), quote_literal(name));
    format!(
        "CREATE ROLE {id};
         CREATE SCHEMA {id} AUTHORIZATION {id};
         CREATE TABLE {id}.{id} ({id} text PRIMARY KEY, \"{{1,2}}\" int DEFAULT 7);
         COMMENT ON COLUMN {id}.{id}.{id} IS {text};
         INSERT INTO {id}.{id} VALUES ({text});
         ALTER TABLE {id}.{id} OWNER TO {id};
         CREATE SEQUENCE {id}.{sequence} START 41;
         SELECT nextval({regclass});
         GRANT USAGE ON SEQUENCE {id}.{sequence} TO {id};
         CREATE INDEX {sequence_index} ON {id}.{id} ({id} text_pattern_ops);",
        sequence = quote_identifier(&format!("{name}+")),
        regclass = quote_literal(&format!("{id}.{}", quote_identifier(&format!("{name}+")))),
        sequence_index = quote_identifier(&format!("{name}#")),
    )
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn objects_may_have_any_name() -> Result<()> {
    let cluster = Cluster::start(16, &ClusterOptions::default())?;
    let vault = Vault::local(&cluster)?;
    let database = cluster.fresh_db("objects")?;
    // The longest name has no room for another character.
    let names: Vec<_> = HOSTILE
        .iter()
        .filter(|name| name.len() < 60)
        .chain(&[LINES])
        .collect();
    for name in &names {
        cluster.psql(&database, &objects_sql(name))?;
    }
    let backup = vault.back_up(&database, &["--jobs", "4"])?;
    assert_eq!(backup["tables"], names.len());
    assert_eq!(backup["rows"], names.len());
    assert_eq!(backup["sequences"], names.len());
    assert_eq!(backup["indexes"], names.len());
    let id = id_of(&backup)?;
    vault.verify(id)?;
    for name in &names {
        let arguments = ["cat", id, &format!("--table={name}.{name}")];
        let rows = vault.read(&arguments)?.exits(0)?.text();
        assert_eq!(rows, format!("{}\t7\n", copied(name)));
    }
    let restore = vault.restore(id, "restored", &[])?;
    assert_eq!(restore["compare"]["equal"], names.len(), "{restore}");
    assert_eq!(cluster.contents(&database)?, cluster.contents("restored")?);
    assert_eq!(
        cluster.schema_dump(&database)?,
        cluster.schema_dump("restored")?
    );
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn large_tables_are_not_patterns() -> Result<()> {
    // Each would match its decoy if it were taken for a pattern.
    const LARGE: [(&str, &str, u32); 3] = [
        ("Sch.e*ma", "*", 400),
        ("Sch.e*ma", "Up\"per $x|y(z)?[a-z]+\\", 100),
        ("Sch.e*ma", "it's таблица", 100),
    ];
    let cluster = Cluster::shared(15)?;
    let vault = Vault::local(cluster)?;
    let database = cluster.fresh_db("patterns")?;
    for (schema, table, megabytes) in LARGE {
        cluster.psql(&database, &sample::bulk_sql(schema, table, megabytes))?;
    }
    let decoys = "CREATE SCHEMA \"Sch.exma\"; CREATE TABLE \"Sch.exma\".\"Upper\" AS SELECT 1 AS a;
        CREATE TABLE \"Sch.e*ma\".decoy AS SELECT 2 AS a;
        CREATE TABLE \"Sch.e*ma\".\"its\" AS SELECT 3 AS a;";
    cluster.psql(&database, decoys)?;

    let backup = vault.back_up(&database, &["--jobs", "2"])?;
    let id = id_of(&backup)?;
    let parts = backup["parts"].as_array().context("parts")?;
    // Two ranges, two tables, and the rest.
    assert!(
        parts.iter().filter(|part| part["kind"] == "data").count() >= 5,
        "{parts:?}"
    );
    assert_eq!(
        (&backup["tables"], &backup["rows"]),
        (&json!(6), &json!(600 * 4096 + 3))
    );
    assert_eq!(vault.cat(id, "Sch.e*ma.decoy")?, b"2\n");
    let restore = vault.restore(id, "patterns_restored", &[])?;
    assert_eq!(restore["compare"]["equal"], 6, "{restore}");
    assert_eq!(
        cluster.contents(&database)?,
        cluster.contents("patterns_restored")?
    );
    Ok(())
}
