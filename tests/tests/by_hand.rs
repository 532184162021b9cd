//! A restore without the program: the commands of `docs/FORMAT.md`, run as they stand there.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};
use backup_e2e::cli::{Cli, Run, Running};
use backup_e2e::pg::{Cluster, ClusterOptions};
use backup_e2e::sample;
use backup_e2e::vault::{Vault, id_of};
use serde_json::Value;

const DOCUMENT: &str = include_str!("../../docs/FORMAT.md");

/// The name of the new database in the document.
const TARGET: &str = "shop_restored";

/// What the document says to type.
struct Recipe {
    /// Checks the files and unwraps the key.
    unwrap: String,
    /// Restores everything.
    restore: String,
    /// Restores one table.
    one_table: String,
}

fn recipe() -> Result<Recipe> {
    let (_, section) = DOCUMENT.split_once("\n## By hand\n").context("a section")?;
    let (section, _) = section.split_once("\n## ").context("an end")?;
    let blocks = section.split("```sh\n").skip(1);
    let mut blocks = blocks.filter_map(|block| block.split_once("```").map(|(code, _)| code));
    let recipe = Recipe {
        unwrap: blocks.next().context("a first block")?.to_owned(),
        restore: blocks.next().context("a second block")?.to_owned(),
        one_table: {
            let spans = section.split('`').skip(1).step_by(2);
            let mut spans = spans.filter(|span| span.starts_with("part data-rest"));
            spans.next().context("a command for one table")?.to_owned()
        },
    };
    assert_eq!(blocks.next(), None, "a block that no test runs");
    Ok(recipe)
}

/// A machine that has a copy of a backup's directory, the private key and stock programs, and a
/// cluster that never saw the source.
struct Machine<'a> {
    cluster: &'a Cluster,
    home: Cli,
}

impl<'a> Machine<'a> {
    fn new(cluster: &'a Cluster, vault: &Vault, id: &str) -> Result<Self> {
        let machine = Self {
            cluster,
            home: Cli::new(cluster)?,
        };
        for key in vault.keys_stored()? {
            if let Some((_, name)) = key.split_once(&format!("/{id}/")) {
                fs::write(machine.path(name), vault.object(&key)?)?;
            }
        }
        fs::copy(&vault.keys.identity, machine.path("identity.txt"))?;
        Ok(machine)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.folder().join(name)
    }

    /// Runs shell commands in the copy; the first that fails ends them.
    fn sh(&self, lines: &[&str]) -> Result<Run> {
        let mut shell = Command::new("bash");
        shell.args(["-eu", "-c", &lines.join("\n")]);
        shell
            .env_clear()
            .envs(self.home.env())
            .env("LC_ALL", "C.UTF-8");
        // psql would look for a database of the user's name.
        shell
            .env("PGDATABASE", "postgres")
            .current_dir(self.home.folder());
        Running::start(shell)?.wait()?.exits(0)
    }

    /// The rows of every table that has any.
    fn filled(&self, database: &str) -> Result<BTreeMap<String, String>> {
        let mut contents = self.cluster.contents(database)?;
        contents.retain(|name, value| name.starts_with("table ") && !value.starts_with("0 rows"));
        Ok(contents)
    }
}

/// What `sha256sum` printed, by name.
fn digests(printed: &str) -> BTreeMap<&str, &str> {
    let lines = printed.lines().filter_map(|line| line.split_once("  "));
    lines.map(|(digest, name)| (name, digest)).collect()
}

/// What `manifest.json` says, by name.
fn recorded(manifest: &Value) -> BTreeMap<&str, &str> {
    let parts = manifest["parts"].as_array().into_iter().flatten();
    let objects = parts.flat_map(|part| part["objects"].as_array().into_iter().flatten());
    let pairs = objects.filter_map(|o| Some((o["name"].as_str()?, o["sha256"].as_str()?)));
    pairs.collect()
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn stock_tools_restore_everything() -> Result<()> {
    let cluster = Cluster::shared(17)?;
    let vault = Vault::seaweedfs(cluster)?;
    let database = cluster.fresh_db("shop")?;
    cluster.psql(&database, &sample::everything_sql(17))?;
    // Large enough to be stored in ranges of its pages.
    cluster.psql(&database, &sample::bulk_sql("app", "huge", 400))?;
    let backup = vault.back_up(&database, &["--jobs", "2"])?;
    let elsewhere = Cluster::start(17, &ClusterOptions::default())?;
    let machine = Machine::new(&elsewhere, &vault, id_of(&backup)?)?;
    let recipe = recipe()?;

    let checked = machine.sh(&[&recipe.unwrap])?.text();
    let manifest: Value = serde_json::from_slice(&fs::read(machine.path("manifest.json"))?)?;
    let (mut found, recorded) = (digests(&checked), recorded(&manifest));
    found.remove("key.age").context("the key is checked too")?;
    assert_eq!(found, recorded);
    assert!(
        recorded
            .keys()
            .filter(|name| name.starts_with("data-"))
            .count()
            >= 3,
        "{recorded:?}"
    );

    // The clear manifest is what anybody could have edited; the facts vouch for it.
    machine.sh(&[&recipe.unwrap, "part facts.json.zst.age > facts.json"])?;
    let facts: Value = serde_json::from_slice(&fs::read(machine.path("facts.json"))?)?;
    let mut vouched: BTreeMap<String, String> = serde_json::from_value(facts["digests"].clone())?;
    let name = "facts.json.zst.age";
    vouched.insert(name.to_owned(), recorded[name].to_owned());
    assert!(
        vouched
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .eq(recorded)
    );
    assert_eq!(facts["details"]["encoding"], "UTF8");
    let manifest_text = manifest.to_string();
    for secret in ["customer", "huge", "sample_owner", "127.0.0.1"] {
        assert!(!manifest_text.contains(secret), "{secret} is in the clear");
    }

    // The superuser is there already, so one statement fails, and psql goes on.
    machine.sh(&[
        &recipe.unwrap,
        "part globals.sql.zst.age | psql -X -q 2>globals.log",
    ])?;
    machine.sh(&[&recipe.unwrap, &recipe.restore])?;
    assert_eq!(cluster.contents(&database)?, elsewhere.contents(TARGET)?);
    assert_eq!(
        cluster.schema_dump(&database)?,
        elsewhere.schema_dump(TARGET)?
    );
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn stock_tools_restore_one_table() -> Result<()> {
    let cluster = Cluster::shared(14)?;
    let vault = Vault::local(cluster)?;
    let database = cluster.fresh_db("shop")?;
    let tables = "CREATE TABLE public.orders (id int PRIMARY KEY, note text);
        INSERT INTO orders SELECT i, E'line\\n\\t' || i FROM generate_series(1, 5000) AS i;
        CREATE TABLE public.others AS SELECT * FROM orders";
    cluster.psql(&database, tables)?;
    let backup = vault.back_up(&database, &[])?;
    let elsewhere = Cluster::start(14, &ClusterOptions::default())?;
    let machine = Machine::new(&elsewhere, &vault, id_of(&backup)?)?;
    let recipe = recipe()?;
    // As it is stored when one object cannot hold it.
    let name = "data-rest.dump.zst.age";
    let whole = fs::read(machine.path(name))?;
    let (first, rest) = whole.split_at(whole.len() / 3);
    let (second, third) = rest.split_at(rest.len() / 2);
    fs::write(machine.path(name), first)?;
    fs::write(machine.path(&format!("{name}.002")), second)?;
    fs::write(machine.path(&format!("{name}.003")), third)?;

    let (schema, _) = recipe.restore.split_once("for data in").context("a loop")?;
    machine.sh(&[&recipe.unwrap, schema, &recipe.one_table])?;
    let orders = &cluster.contents(&database)?["table public.orders"];
    let expected = BTreeMap::from([("table public.orders".to_owned(), orders.clone())]);
    assert_eq!(machine.filled(TARGET)?, expected);
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn stock_tools_restore_what_is_not_encrypted() -> Result<()> {
    let cluster = Cluster::shared(18)?;
    let vault = Vault::local(cluster)?;
    let database = cluster.fresh_db("shop")?;
    cluster.psql(&database, &sample::bulk_sql("app", "rows", 3))?;
    let backup = vault.back_up(&database, &["--no-encryption", "-Z", "gzip:6"])?;
    let elsewhere = Cluster::start(18, &ClusterOptions::default())?;
    let machine = Machine::new(&elsewhere, &vault, id_of(&backup)?)?;
    let recipe = recipe()?;

    // "Without encryption leave `age` out; with gzip use `gunzip` for `zstd -d`."
    let part = recipe.unwrap.lines().last().context("a function")?;
    let part = part
        .replace("| age -d -i backup.key", "")
        .replace("zstd -d", "gunzip");
    let restore = recipe.restore.replace(".zst.age", ".gz");
    machine.sh(&[&part, &restore])?;
    assert_eq!(cluster.contents(&database)?, elsewhere.contents(TARGET)?);
    assert_eq!(
        cluster.schema_dump(&database)?,
        elsewhere.schema_dump(TARGET)?
    );
    Ok(())
}
