//! `rekey`: the new key opens a stored backup, the old one does not, and everything is as good as
//! it was.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use backup_e2e::cli::{Keys, Run};
use backup_e2e::pg::Cluster;
use backup_e2e::s3::Kind;
use backup_e2e::sample;
use backup_e2e::vault::{Vault, id_of};
use rstest::rstest;
use serde_json::{Value, json};

/// Runs a command on the place with these keys alone.
fn with(vault: &Vault, arguments: &[&str], keys: &Keys) -> Result<Run> {
    let place = ["--from", &*vault.url, "--identity", &*keys.identity];
    vault.cli.run([arguments, &place].concat())
}

fn rekey(vault: &Vault, what: &[&str], to: &[&Keys], by: &Keys) -> Result<Run> {
    let mut arguments = vec!["rekey", "--json"];
    arguments.extend(what);
    for keys in to {
        arguments.extend(["--recipient", &*keys.recipient]);
    }
    with(vault, &arguments, by)
}

/// What is stored below a backup's name, but for manifest and keys.
fn parts(vault: &Vault, id: &str) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut parts = BTreeMap::new();
    for key in vault.keys_stored()? {
        let name = key.split_once(&format!("/{id}/")).map(|(_, name)| name);
        let is_part = |name: &str| !name.starts_with("key.") && name.contains(".age");
        if name.is_some_and(is_part) {
            let content = vault.object(&key)?;
            parts.insert(key, content);
        }
    }
    ensure!(parts.len() >= 4, "{:?}", parts.keys());
    Ok(parts)
}

fn wrapped_keys(vault: &Vault, id: &str) -> Result<Vec<String>> {
    let keys = vault.keys_stored()?.into_iter();
    let names = keys.filter_map(|key| Some(key.split_once(&format!("/{id}/"))?.1.to_owned()));
    // What is random in a name is left out.
    let unnumbered = |name: String| name.replace(|c: char| c.is_ascii_digit(), "");
    let names = names.filter(|name| name.starts_with("key."));
    Ok(names.map(unnumbered).collect())
}

fn assert_opens(vault: &Vault, id: &str, keys: &Keys, opens: bool) -> Result<()> {
    for level in ["stored", "hashed"] {
        let verify = ["verify", id, "--level", level];
        with(vault, &verify, keys)?.exits(0)?;
    }
    let decoded = with(vault, &["verify", id, "--level", "decoded"], keys)?;
    decoded.exits(if opens { 0 } else { 10 })?;
    with(vault, &["show", id], keys)?.exits(if opens { 0 } else { 10 })?;
    Ok(())
}

fn check_one(vault: &Vault, cluster: &Cluster) -> Result<()> {
    let database = cluster.fresh_db("rekeyed")?;
    cluster.psql(&database, &sample::bulk_sql("app", "bulk", 3))?;
    let before = cluster.contents(&database)?;
    let id = id_of(&vault.back_up(&database, &[])?)?.to_owned();
    let (old, new) = (vault.keys.clone(), vault.cli.keys()?);
    let stored = parts(vault, &id)?;
    assert_opens(vault, &id, &old, true)?;
    assert_opens(vault, &id, &new, false)?;
    assert_eq!(wrapped_keys(vault, &id)?, ["key.age"]);

    let done = rekey(vault, &[&id], &[&new], &old)?.exits(0)?.json()?;
    assert_eq!(done["id"], json!(id));
    assert_eq!(done["recipients"], json!([new.recipient]));
    assert_eq!(done["warnings"], json!([]));
    assert_opens(vault, &id, &old, false)?;
    assert_opens(vault, &id, &new, true)?;
    assert_eq!(wrapped_keys(vault, &id)?, ["key.r.age"]);
    assert_eq!(parts(vault, &id)?, stored);
    let shown = with(vault, &["show", &id, "--json"], &new)?
        .exits(0)?
        .json()?;
    assert_eq!(shown["recipients"], json!([new.recipient]));

    let target = format!("{database}_back");
    let target_flag = format!("--target-db={target}");
    let restored = with(vault, &["restore", &id, &target_flag, "--json"], &new)?;
    restored.exits(0)?;
    assert_eq!(cluster.contents(&target)?, before);

    // Who cannot open it cannot give it to others either, and is told so.
    let refused = rekey(vault, &[&id], &[&old], &old)?.exits(10)?.json()?;
    let said = refused["error"].to_string();
    ensure!(said.contains("does not fit"), "{said}");
    // To both, by what the first rekey left.
    rekey(vault, &["--all"], &[&old, &new], &new)?.exits(0)?;
    assert_opens(vault, &id, &old, true)?;
    assert_opens(vault, &id, &new, true)?;
    assert_eq!(wrapped_keys(vault, &id)?, ["key.r.age"]);
    let runs = [
        "runs",
        "--operation",
        "rekey",
        "--json",
        "--from",
        &vault.url,
    ];
    let runs: Value = vault.cli.run(runs)?.exits(0)?.json()?;
    let results = runs.as_array().context("runs")?.iter();
    let mut results: Vec<_> = results.filter_map(|run| run["result"].as_str()).collect();
    results.sort_unstable();
    assert_eq!(results, ["failed", "success", "success"]);
    Ok(())
}

#[rstest]
#[case::seaweedfs(Kind::SeaweedFs)]
#[case::minio(Kind::MinIo)]
#[ignore = "needs servers: run ./scripts/test"]
fn the_new_key_opens_and_the_old_one_does_not(#[case] kind: Kind) -> Result<()> {
    let cluster = Cluster::shared(17)?;
    check_one(&Vault::in_bucket(cluster, kind)?, cluster)
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn in_a_directory_too() -> Result<()> {
    let cluster = Cluster::shared(17)?;
    check_one(&Vault::local(cluster)?, cluster)
}

/// A source that goes to two directories, with a backup for the vault's key in each.
struct TwoPlaces {
    vault: Vault,
    config: String,
    one: PathBuf,
    two: PathBuf,
}

impl TwoPlaces {
    fn new(cluster: &'static Cluster, database: &str) -> Result<Self> {
        let vault = Vault::local(cluster)?;
        let database = cluster.fresh_db(database)?;
        cluster.psql(&database, "CREATE TABLE t AS SELECT 1 AS a")?;
        let folder = vault.cli.folder();
        let (one, two) = (folder.join("one"), folder.join("two"));
        let text = format!(
            "[encryption]\nrecipients = ['{}']\nidentities = {{ file = '{}' }}\n\
             [destination.one]\nurl = 'file://{}'\n[destination.two]\nurl = 'file://{}'\n\
             [source.shop]\ndatabase = '{database}'\ndestinations = ['one', 'two']\n",
            vault.keys.recipient,
            vault.keys.identity,
            one.display(),
            two.display(),
        );
        let config = vault.cli.private_file("backup.toml", &text)?;
        let places = Self {
            vault,
            config,
            one,
            two,
        };
        places.run(&["backup", "shop"])?.exits(0)?;
        Ok(places)
    }

    fn run(&self, arguments: &[&str]) -> Result<Run> {
        let config = ["--config", &*self.config];
        self.vault.cli.run([&config, arguments].concat())
    }
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn every_place_that_has_it_is_rekeyed() -> Result<()> {
    let places = TwoPlaces::new(Cluster::shared(17)?, "places")?;
    let run = |arguments: &[&str]| places.run(arguments);
    let (old, new) = (&places.vault.keys, places.vault.cli.keys()?);
    run(&["backup", "shop", "--no-encryption"])?.exits(0)?;
    // One that lacks the backup is no failure, and a clear one is passed over.
    let all = run(&["rekey", "--all", "--recipient", &new.recipient])?.exits(0)?;
    assert_eq!(all.text().lines().count(), 2, "{}", all.text());
    for place in ["one", "two"] {
        ensure!(
            all.text().contains(&format!("  {place}  opens for ")),
            "{}",
            all.text()
        );
    }
    for place in [&places.one, &places.two] {
        let place = format!("file://{}", place.display());
        let verify = ["verify", "--all", "--level", "decoded", "--from", &place];
        run(&[&verify[..], &["-i", &new.identity]].concat())?.exits(0)?;
        run(&[&verify[..], &["-i", &old.identity]].concat())?.exits(3)?;
    }
    // They are copies of each other as before.
    let copied = run(&["copy", "--missing", "--from", "one", "--to", "two"])?.exits(0)?;
    ensure!(
        copied.stderr.contains("nothing is missing"),
        "{}",
        copied.stderr
    );
    run(&["rekey", "--all", "--recipient", "age1nonsense"])?.exits(2)?;
    let vault = &places.vault;
    let none = vault.cli.run(["rekey", "--all", "--from", &vault.url])?;
    none.exits(2)?;
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn it_goes_on_where_it_ended_and_past_what_does_not_answer() -> Result<()> {
    let places = TwoPlaces::new(Cluster::shared(17)?, "again")?;
    let run = |arguments: &[&str]| places.run(arguments);
    let (old, new) = (&places.vault.keys, places.vault.cli.keys()?);
    let to_new = ["rekey", "--all", "--recipient", &new.recipient];
    run(&to_new)?.exits(0)?;
    // The same command again: what is done opens with the new key alone, which is said.
    let again = run(&to_new)?.exits(10)?;
    ensure!(
        again.stderr.contains("give the new identity too"),
        "{}",
        again.stderr
    );
    run(&["backup", "shop"])?.exits(0)?;
    let both = ["-i", &*old.identity, "-i", &*new.identity];
    let rest = run(&[&to_new[..], &both].concat())?.exits(0)?;
    assert_eq!(rest.text().lines().count(), 4, "{}", rest.text());
    // Nothing of that name is there.
    run(&[&to_new[..], &["--source", "shpo"]].concat())?.exits(4)?;
    let copy = ["copy", "--missing", "--from", "one", "--to", "two"];
    run(&[&copy[..], &["--source", "shpo"]].concat())?.exits(4)?;
    // One place that does not answer keeps nobody else from the new key.
    let shown = run(&["list", "--json"])?.exits(0)?.json()?;
    let id = shown[0]["id"].as_str().context("id")?.to_owned();
    std::fs::remove_dir_all(&places.one)?;
    std::fs::write(&places.one, "no directory")?;
    for what in ["--all", &id] {
        let to_old = ["rekey", what, "--recipient", &old.recipient];
        let done = run(&[&to_old[..], &both].concat())?.exits(3)?;
        ensure!(done.stderr.contains("one: "), "{}", done.stderr);
        ensure!(done.text().contains("  two  opens for "), "{}", done.text());
    }
    Ok(())
}

/// Else whoever may open all others would get to open the one that was kept from them.
#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_source_stays_with_those_whom_it_names_itself() -> Result<()> {
    let cluster = Cluster::shared(17)?;
    let database = cluster.fresh_db("own_keys")?;
    cluster.psql(&database, "CREATE TABLE t AS SELECT 1 AS a")?;
    let vault = Vault::local(cluster)?;
    let (all, own) = (vault.cli.keys()?, vault.cli.keys()?);
    let config = vault.cli.private_file(
        "own.toml",
        &format!(
            "[encryption]\nrecipients = ['{}']\n[destination.here]\nurl = '{}'\n\
             [source.usual]\ndatabase = '{database}'\n\
             [source.kept]\ndatabase = '{database}'\nencryption = {{ recipients = ['{}'] }}\n",
            all.recipient, vault.url, own.recipient
        ),
    )?;
    let run = |arguments: &[&str]| vault.cli.run([&["--config", &config], arguments].concat());
    run(&["backup", "--all"])?.exits(0)?;
    let keys = ["-i", &*all.identity, "-i", &*own.identity];
    run(&[&["rekey", "--all"], &keys[..]].concat())?.exits(0)?;
    for (source, recipient) in [("usual", &all.recipient), ("kept", &own.recipient)] {
        let show = ["show", "latest", "--source", source, "--json"];
        let shown = run(&[&show, &keys[..]].concat())?.exits(0)?.json()?;
        assert_eq!(shown["recipients"], json!([recipient]), "{source}");
    }
    Ok(())
}
