//! What a login may not read is told before, and never missing from what passes for a whole backup.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context as _, Result, ensure};
use backup_e2e::evidence;
use backup_e2e::pg::{Cluster, ClusterOptions};
use backup_e2e::vault::{Vault, id_of};
use serde_json::Value;

/// A login that reads all that can be granted, and the one that the manual recommends.
const ROLES: &str = "
CREATE ROLE owner;
CREATE ROLE reader LOGIN;
GRANT pg_read_all_data TO reader;
CREATE ROLE backup LOGIN BYPASSRLS;
GRANT pg_read_all_data TO backup;
ALTER ROLE backup SET default_transaction_read_only = on;
ALTER ROLE backup SET lo_compat_privileges = on;
";

/// What stands in the way, what `doctor` calls it, and what a backup says to it: a failure, or the
/// warning with which it is published.
struct Gap {
    database: &'static str,
    sql: &'static str,
    finding: &'static str,
    words: &'static str,
    fails: bool,
}

const GAPS: [Gap; 5] = [
    Gap {
        database: "policies",
        sql: "CREATE TABLE orders AS SELECT generate_series(1, 1000) AS id;
              ALTER TABLE orders OWNER TO owner;
              ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
              CREATE POLICY few ON orders USING (id < 10);",
        finding: "row-security-hides-rows",
        words: "row-level security hides rows of public.orders from \"reader\"",
        fails: true,
    },
    Gap {
        database: "forced",
        sql: "CREATE TABLE orders AS SELECT generate_series(1, 1000) AS id;
              ALTER TABLE orders OWNER TO owner;
              ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
              ALTER TABLE orders FORCE ROW LEVEL SECURITY;",
        finding: "row-security-hides-rows",
        words: "row-level security hides rows of public.orders from \"reader\"",
        fails: true,
    },
    Gap {
        database: "objects",
        sql: "SELECT lo_from_bytea(4711, 'of the owner');
              ALTER LARGE OBJECT 4711 OWNER TO owner;",
        finding: "role-cannot-read-large-objects",
        words: "large object",
        fails: true,
    },
    Gap {
        database: "subscribed",
        sql: "CREATE TABLE orders AS SELECT 1 AS id;
              CREATE SUBSCRIPTION news CONNECTION 'host=127.0.0.1 port=1' PUBLICATION p
                WITH (connect = false);",
        finding: "subscriptions-not-in-backups",
        words: "1 subscriptions are not in the backup",
        fails: false,
    },
    Gap {
        database: "mapped",
        sql: "CREATE TABLE orders AS SELECT 1 AS id;
              CREATE FOREIGN DATA WRAPPER none;
              CREATE SERVER elsewhere FOREIGN DATA WRAPPER none;
              CREATE USER MAPPING FOR owner SERVER elsewhere OPTIONS (password 'of elsewhere');
              CREATE USER MAPPING FOR PUBLIC SERVER elsewhere;",
        finding: "user-mappings-without-options",
        words: "the options of 1 user mappings",
        fails: false,
    },
];

/// The ids of all that is not in order.
fn complaints(report: &Value) -> BTreeSet<String> {
    let sections = report["sections"].as_array().into_iter().flatten();
    let findings = sections.flat_map(|s| s["findings"].as_array().into_iter().flatten());
    let bad = findings.filter(|f| f["level"] == "problem" || f["level"] == "warning");
    bad.filter_map(|f| f["id"].as_str().map(str::to_owned))
        .collect()
}

fn doctor(vault: &Vault, database: &str, role: &str) -> Result<BTreeSet<String>> {
    let arguments = ["doctor", "-d", database, "-U", role, "--to", &vault.url];
    let more = ["--no-encryption", "--json"];
    let run = vault.cli.run(arguments.into_iter().chain(more))?;
    Ok(complaints(&run.json()?))
}

fn backups(vault: &Vault) -> Result<usize> {
    let keys = vault.keys_stored()?;
    Ok(keys.iter().filter(|k| k.ends_with("manifest.json")).count())
}

/// What `reader` gets of a database with this gap.
fn check_gap(vault: &Vault, gap: &Gap) -> Result<()> {
    let found = doctor(vault, gap.database, "reader")?;
    ensure!(found == [gap.finding.to_owned()].into(), "{found:?}");
    let before = backups(vault)?;
    let name = format!("--dbname={}", gap.database);
    let place = ["--to", &vault.url, "--recipient", &vault.keys.recipient];
    let backup = ["backup", &name, "-U", "reader", "--json"];
    let run = vault.cli.run(backup.into_iter().chain(place))?;
    let run = run.exits(if gap.fails { 9 } else { 3 })?;
    let said = format!("{}{}", run.text(), run.stderr);
    let words = gap.words.replace('"', "\\\"");
    ensure!(
        said.contains(gap.words) || said.contains(&words),
        "not a word of {}: {said}",
        gap.words
    );
    if gap.fails {
        ensure!(backups(vault)? == before, "something was published");
        ensure!(
            vault
                .keys_stored()?
                .iter()
                .all(|key| !key.contains(gap.database))
        );
        return Ok(());
    }
    // Who names a schema gets nothing that has none, and is told nothing of it.
    let only = ["--schema", "public"];
    let narrow = vault.cli.run(backup.into_iter().chain(place).chain(only))?;
    let narrow = narrow.exits(0)?;
    let said = format!("{}{}", narrow.text(), narrow.stderr);
    ensure!(
        !said.contains(gap.words) && !said.contains(&words),
        "{said}"
    );
    // What is published with a gap carries it with it.
    let shown = vault.read(&["show", id_of(&run.json()?)?, "--json"])?;
    let shown = shown.exits(0)?.json()?;
    ensure!(shown["warnings"].to_string().contains(gap.words), "{shown}");
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_16_what_a_login_cannot_read_is_named_and_no_part_passes_for_the_whole() -> Result<()> {
    let cluster = Cluster::start(17, &ClusterOptions::default())?;
    cluster.psql("postgres", ROLES)?;
    let mut vault = Vault::local(&cluster)?;
    // How full the disk of this machine is, is no business of the tests.
    vault.cli = vault
        .cli
        .with_env(backup_e2e::cli::WARN_USED_PERCENT, "100");
    let root = vault.cli.local_root();
    fs::create_dir(&root)?;
    fs::set_permissions(&root, fs::Permissions::from_mode(0o700))?;
    for gap in &GAPS {
        cluster.create_db(gap.database)?;
        cluster.psql(gap.database, gap.sql)?;
        check_gap(&vault, gap).with_context(|| gap.database)?;
    }
    // The recommended login has none of them but the last two, and what it takes is whole.
    for gap in &GAPS {
        let left = doctor(&vault, gap.database, "backup")?;
        let expected = if gap.fails { vec![] } else { vec![gap.finding] };
        ensure!(
            left.iter().eq(expected.iter()),
            "{}: {left:?}",
            gap.database
        );
        if gap.fails {
            let backup = vault.back_up(gap.database, &["-U", "backup"])?;
            let target = format!("{}_restored", gap.database);
            vault.restore(id_of(&backup)?, &target, &[])?;
            ensure!(cluster.contents(&target)? == cluster.contents(gap.database)?);
        }
    }
    evidence::note(
        16,
        "policies, forced policies, large objects of others, a subscription and a user mapping, before \
         a login with pg_read_all_data: doctor named each; the first three failed with 9 and \
         published nothing, the others are told in the backup itself; the recommended login's backups were whole",
    );
    Ok(())
}
