//! From a bucket and a private key alone, on a machine that knows nothing, as the manual says.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context as _, Result, ensure};
use backup_e2e::cli::Cli;
use backup_e2e::evidence;
use backup_e2e::pg::{Cluster, ClusterOptions, Contents};
use backup_e2e::s3::{Kind, Server};
use backup_e2e::sample;
use backup_e2e::vault::{Vault, id_of};
use rstest::rstest;
use serde_json::{Value, json};

/// The superuser's, on either machine.
const PASSWORD: &str = "of the superuser";

/// The role that takes backups, as the manual has it.
const BACKUP: &str = "
CREATE ROLE backup LOGIN PASSWORD 'of backup' BYPASSRLS;
GRANT pg_read_all_data TO backup;
ALTER ROLE backup SET default_transaction_read_only = on;
ALTER ROLE backup SET lo_compat_privileges = on;
";

/// The role that restores, as the manual has it for whoever wants `--create-roles`.
const RESTORER: &str = "CREATE ROLE restorer LOGIN CREATEDB CREATEROLE PASSWORD 'of restorer'";

/// What of the sample only a superuser may create.
const ONLY_FOR_SUPERUSERS: &str = r#"
SET client_min_messages = error;
DO $$ DECLARE name text; BEGIN
  FOR name IN SELECT evtname FROM pg_event_trigger LOOP EXECUTE format('DROP EVENT TRIGGER %I', name);
  END LOOP;
  FOR name IN SELECT pubname FROM pg_publication LOOP EXECUTE format('DROP PUBLICATION %I', name);
  END LOOP;
END $$;
DROP ACCESS METHOD sample_heap CASCADE;
DROP TEXT SEARCH TEMPLATE app.template CASCADE;
DROP TEXT SEARCH PARSER app.parser CASCADE;
DROP TRANSFORM FOR int LANGUAGE sql CASCADE;
DROP FUNCTION app.sample_handler, app.sample_inline(internal), app.sample_validator(oid) CASCADE;
DROP OPERATOR CLASS app.backwards USING btree CASCADE;
DROP OPERATOR FAMILY app.backwards_family USING btree CASCADE;
DROP TYPE app.label, app.shell CASCADE;
DROP AGGREGATE app.middle(float8 ORDER BY float8) CASCADE;
DROP FOREIGN DATA WRAPPER sample_wrapper CASCADE;
DROP EXTENSION file_fdw, postgres_fdw CASCADE;
CREATE PUBLICATION of_one FOR TABLE app.product;
-- A materialized view of rows that its owner may not see cannot be filled.
ALTER TABLE app.customer NO FORCE ROW LEVEL SECURITY;
ALTER MATERIALIZED VIEW app.per_mood OWNER TO sample_owner;
ALTER TABLE app.employee ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY nobody ON app.employee TO sample_reader USING (id < 0);
-- Of two roles that may grant the server takes either, if a login is a member of both.
REVOKE GRANT OPTION FOR ALL ON app.customer FROM "sample_O'Dd ""role""";
"#;

/// A server of `major` that asks for passwords, on the machine that is lost or the new one.
fn machine(major: u16, roles: &str) -> Result<Cluster> {
    let cluster = Cluster::start(major, &ClusterOptions::default().scram(PASSWORD))?;
    cluster.psql("postgres", roles)?;
    Ok(cluster)
}

/// Backs both databases up as the role for it; returns the bucket's URL and the private key.
fn back_up(cluster: &Cluster) -> Result<(String, String)> {
    let major = cluster.major();
    for database in ["everything", "most"] {
        cluster.create_db(database)?;
        cluster.psql(database, &sample::everything_sql(major))?;
    }
    // Its options are for superusers alone to read, and so in no dump of another login.
    let mapping = "ALTER USER MAPPING FOR sample_reader SERVER sample_remote
                   OPTIONS (DROP password, DROP \"user\")";
    cluster.psql("everything", mapping)?;
    cluster.psql("most", ONLY_FOR_SUPERUSERS)?;
    let mut vault = Vault::seaweedfs(cluster)?;
    let cli = vault.cli.with_env("PGUSER", "backup");
    vault.cli = cli.with_env("PGPASSWORD", "of backup");
    for database in ["everything", "most"] {
        let backup = vault.back_up(database, &[])?;
        ensure!(id_of(&backup)?.len() > 10, "{backup}");
    }
    Ok((vault.url, fs::read_to_string(&vault.keys.identity)?))
}

/// All that is there: what leads to the bucket, the key in a file, and a login of the new server.
fn bare(cluster: &Cluster, key: &str, user: &str, password: &str) -> Result<Cli> {
    let cli = Cli::new(cluster)?.with_s3(Server::shared(Kind::SeaweedFs)?);
    let cli = cli
        .with_env("PGUSER", user)
        .with_env("PGPASSWORD", password);
    cli.private_file("identity.txt", key)?;
    Ok(cli)
}

/// Lists, verifies and restores one database under its name; the commands of the manual.
fn restore(cli: &Cli, url: &str, database: &str, more: &[&str]) -> Result<Value> {
    let listed = cli.run(["list", "--from", url, "--json"])?;
    let listed = listed.exits(0)?.json()?;
    let of_source = |b: &&Value| b["source"] == database;
    let listed = listed.as_array().context("a list")?;
    ensure!(listed.iter().filter(of_source).count() == 1, "{listed:?}");
    let latest = ["latest", "--source", database, "--from", url];
    let key = ["--identity", "identity.txt"];
    let verify = ["verify"].into_iter().chain(latest).chain(key);
    cli.run(verify.chain(["--level", "decoded"]))?.exits(0)?;
    let restore = ["restore"].into_iter().chain(latest).chain(key);
    let into = ["--create-roles", "--target-db", database, "--json"];
    let run = cli.run(restore.chain(into).chain(more.iter().copied()))?;
    let view = run.json().with_context(|| run.stderr.clone())?;
    let warnings = view["warnings"].as_array().context("warnings")?;
    // The sample has a type that no server can sort.
    let about = |text: &Value| text.to_string().contains("no statistics for");
    assert!(warnings.iter().all(about), "{warnings:?}");
    run.exits(if warnings.is_empty() { 0 } else { 3 })?;
    assert_eq!(
        view["compare"]["tables"], view["compare"]["equal"],
        "{view}"
    );
    Ok(view)
}

/// The kinds of objects that a dump of definitions names.
fn kinds(dump: &str) -> BTreeSet<&str> {
    let lines = dump.lines().filter(|line| line.starts_with("-- Name: "));
    let kinds = lines.filter_map(|line| line.split("; Type: ").nth(1)?.split(';').next());
    kinds.collect()
}

/// What belongs to the old machine's superuser is `heir`'s on the new one.
fn inherited(text: &str, heir: &str) -> String {
    let places = ["Owner: ", "OWNER TO ", "FROM ", "TO ", "FOR ROLE "];
    let mut text = text.to_owned();
    for place in places {
        for end in ["\n", ";", " "] {
            let of = |role: &str| format!("{place}{role}{end}");
            text = text.replace(&of("postgres"), &of(heir));
        }
    }
    text
}

/// Asserts that what is on the new machine is what was on the old one; returns what there is.
fn assert_same(old: &Cluster, new: &Cluster, database: &str, heir: &str) -> Result<String> {
    let contents = old.contents(database)?;
    let expected = contents.iter().map(|(key, value)| {
        let value = value
            .strip_suffix(" of postgres")
            .map(|value| format!("{value} of {heir}"));
        (key.clone(), value.unwrap_or_else(|| contents[key].clone()))
    });
    assert_eq!(
        expected.collect::<Contents>(),
        new.contents(database)?,
        "{database}"
    );
    let definitions = inherited(&old.schema_dump(database)?, heir);
    assert_eq!(definitions, new.schema_dump(database)?, "{database}");
    let kinds = kinds(&definitions);
    ensure!(kinds.len() > 25, "{kinds:?}");
    let tables = contents.keys().filter(|key| key.starts_with("table "));
    let tables = tables.count();
    Ok(format!(
        "{} kinds of objects and the fingerprints of {tables} tables and {} sequences and large \
         objects",
        kinds.len(),
        contents.len() - tables
    ))
}

#[rstest]
#[ignore = "needs servers: run ./scripts/test"]
fn check_04_a_bucket_and_a_key_are_enough(#[values(14, 18)] major: u16) -> Result<()> {
    let (old, new) = (machine(major, BACKUP)?, machine(major, RESTORER)?);
    let (url, key) = back_up(&old)?;

    let cli = bare(&new, &key, "restorer", "of restorer")?;
    ensure!(fs::read_dir(cli.folder())?.count() == 1, "it knows more");
    let heir = ["--map-role", "postgres=restorer"];
    let view = restore(&cli, &url, "most", &heir)?;
    assert_eq!(view["warnings"], json!([]));
    let most = assert_same(&old, &new, "most", "restorer")?;

    // What only a superuser may create needs one.
    let cli = bare(&new, &key, "postgres", PASSWORD)?;
    restore(&cli, &url, "everything", &[])?;
    let all = assert_same(&old, &new, "everything", "postgres")?;
    evidence::note(
        4,
        format!(
            "PostgreSQL {major}, backed up by the documented role and restored on a bare machine: by \
             a role that is no superuser {most}; by a superuser {all}; no difference in definitions, \
             owners, grants or content"
        ),
    );
    Ok(())
}
