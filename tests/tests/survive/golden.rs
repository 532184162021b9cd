//! Backups that releases before this one wrote.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use backup_e2e::cli::Cli;
use backup_e2e::golden::{self, Content, Expected, Golden};
use backup_e2e::pg::{Cluster, Contents};
use backup_e2e::redis::Redis;
use backup_e2e::vault::{Vault, id_of};
use backup_e2e::{evidence, pg};
use serde_json::{Value, json};

/// Each format, and how many golden backups it has at least: one that got lost is not passed over.
const FORMATS: [(&str, u64, usize); 1] = [("v1", 1, 7)];

/// What was seen of databases.
#[derive(Default)]
struct Seen {
    restores: usize,
    tables: usize,
    rows: u64,
    definitions: usize,
    objects: usize,
    majors: std::collections::BTreeSet<u16>,
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_30_golden_databases_are_restored_as_they_were() -> Result<()> {
    let mut seen = Seen::default();
    let mut backups = 0;
    for (format, number, least) in FORMATS {
        let all = Golden::all(format)?;
        ensure!(all.len() >= least, "only {} of {format}", all.len());
        for golden in &all {
            let expected = &golden.expected;
            let Content::Database {
                major,
                contents,
                definitions,
            } = &expected.content
            else {
                continue;
            };
            backups += 1;
            let newest = pg::MAJORS[pg::MAJORS.len() - 1];
            let mut majors = vec![*major, newest];
            majors.dedup();
            for major in majors {
                let cluster = Cluster::shared(major)?;
                golden::create_roles(cluster)?;
                let vault = golden.opened(format, Cli::new(cluster)?)?;
                is_listed_and_good(&vault, expected, number, &golden.name)?;
                let target = format!("golden_{}_{major}", golden.name);
                let restored = vault.restore(&expected.id, &target, &[])?;
                assert_eq!(
                    (
                        &cluster.contents(&target)?,
                        &golden::definitions(cluster, &target)?
                    ),
                    (contents, definitions),
                    "{target}"
                );
                seen.restored(&restored, contents, definitions.len(), major);
                cluster.drop_db(&target)?;
            }
        }
    }
    ensure!(backups >= 5, "{backups} of databases");
    let majors: Vec<_> = seen.majors.iter().map(u16::to_string).collect();
    evidence::note(
        30,
        format!(
            "{backups} golden backups of databases restored {} times on PostgreSQL {}: {} tables with {} rows, \
             {} other objects and {} definitions equal to what was committed with them",
            seen.restores,
            majors.join(", "),
            seen.tables,
            seen.rows,
            seen.objects,
            seen.definitions
        ),
    );
    Ok(())
}

impl Seen {
    fn restored(&mut self, restored: &Value, contents: &Contents, definitions: usize, major: u16) {
        let tables = contents.keys().filter(|what| what.starts_with("table "));
        let tables = tables.count();
        self.restores += 1;
        self.tables += tables;
        self.objects += contents.len() - tables;
        self.rows += restored["compare"]["rows"].as_u64().unwrap_or_default();
        self.definitions += definitions;
        self.majors.insert(major);
    }
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_30_golden_backups_of_other_forms_are_given_back() -> Result<()> {
    let (mut answers_seen, mut bytes_seen, mut backups) = (0, 0, 0);
    for (format, number, _) in FORMATS {
        for golden in &Golden::all(format)? {
            let expected = &golden.expected;
            let vault = golden.opened(format, Cli::without_server()?)?;
            let files = match &expected.content {
                Content::Database { .. } => continue,
                _ => given_back(&vault, expected, number, &golden.name)?,
            };
            backups += 1;
            let [file] = files.as_slice() else {
                anyhow::bail!("{}: {} files", golden.name, files.len());
            };
            match &expected.content {
                Content::Redis { answers } => {
                    let redis = Redis::start(&[], &[], |folder| {
                        fs::write(folder.join("dump.rdb"), file)?;
                        Ok(())
                    })?;
                    assert_eq!(&golden::answers(&redis)?, answers, "{}", golden.name);
                    answers_seen += answers.len();
                }
                Content::File { bytes, sha256 } => {
                    let found = (file.len() as u64, golden::sha256(file));
                    assert_eq!(found, (*bytes, sha256.clone()), "{}", golden.name);
                    bytes_seen += bytes;
                }
                Content::Database { .. } => {}
            }
        }
    }
    ensure!(answers_seen > 0 && bytes_seen > 0, "a form is missing");
    evidence::note(
        30,
        format!(
            "{backups} golden backups of other forms given back: {answers_seen} answers of Redis and \
             {bytes_seen} bytes of an adopted dump equal to what was committed with them"
        ),
    );
    Ok(())
}

/// The next backup goes into a place that an older release made.
#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_30_the_next_backup_joins_a_golden_one() -> Result<()> {
    let (format, number, _) = FORMATS[0];
    let all = Golden::all(format)?;
    let encrypted =
        |golden: &&Golden| golden.name.starts_with("postgresql-") && golden.expected.encrypted;
    let golden = all.iter().find(encrypted).context("one of them")?;
    let cluster = Cluster::shared(18)?;
    golden::create_roles(cluster)?;
    let vault = golden.opened(format, Cli::new(cluster)?)?;
    let target = "golden_next";
    vault.restore(&golden.expected.id, target, &[])?;
    let next = vault.back_up(target, &[])?;
    let next = id_of(&next)?;
    vault.verify(next)?;
    is_listed_and_good(&vault, &golden.expected, number, &golden.name)?;
    let listed = vault.cli.run(["list", "--from", &vault.url, "--json"])?;
    let listed = listed.exits(0)?.json()?;
    let ids: Vec<_> = listed.as_array().into_iter().flatten().map(id_of).collect();
    let ids = ids.into_iter().collect::<Result<Vec<_>>>()?;
    assert_eq!(ids.len(), 2, "{listed}");
    assert!(ids.contains(&next) && ids.contains(&&*golden.expected.id));
    cluster.drop_db(target)?;
    evidence::note(30, "a backup of today taken into a golden place, both good");
    Ok(())
}

/// What commands that read say of it, beside the repository's own words about it.
fn is_listed_and_good(vault: &Vault, expected: &Expected, format: u64, name: &str) -> Result<()> {
    let listed = vault.cli.run(["list", "--from", &vault.url, "--json"])?;
    let listed = listed.exits(0)?.json()?;
    let found = listed.as_array().context("a list")?;
    let found = found.iter().find(|backup| backup["id"] == *expected.id);
    let found = found.with_context(|| format!("{name}: {listed}"))?;
    assert_eq!(found["source"], *expected.source, "{name}");

    let shown = vault.read(&["show", &expected.id, "--json"])?;
    let shown = shown.exits(0)?.json()?;
    for (field, value) in [
        ("server_version", json!(expected.server_version)),
        ("compression", json!(expected.compression)),
        ("adopted", json!(expected.adopted)),
        ("pinned", json!(expected.pinned.is_some())),
    ] {
        assert_eq!(shown[field], value, "{field} of {name}: {shown}");
    }
    assert_eq!(shown["pin"]["reason"].as_str(), expected.pinned.as_deref());
    assert_eq!(shown["recipients"] != Value::Null, expected.encrypted);
    let manifest = format!("backups/{}/{}/manifest.json", expected.source, expected.id);
    let manifest: Value = serde_json::from_slice(&vault.object(&manifest)?)?;
    assert_eq!(manifest["format"], json!(format), "{name}");
    vault
        .verify(&expected.id)
        .with_context(|| name.to_owned())?;
    Ok(())
}

/// The files that a backup is restored as.
fn given_back(vault: &Vault, expected: &Expected, format: u64, name: &str) -> Result<Vec<Vec<u8>>> {
    is_listed_and_good(vault, expected, format, name)?;
    let folder = vault.cli.folder().join("back");
    let back = folder.display().to_string();
    let arguments = ["restore", &expected.id, "--target-dir", &back];
    vault.read(&arguments)?.exits(0)?;
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        files.push(fs::read(entry?.path())?);
    }
    Ok(files)
}
