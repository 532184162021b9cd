//! What the restoring role may do, and what is said or done about it.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use backup_e2e::cli::{Run, Running};
use backup_e2e::fake_tools::{Calls, FakeTools};
use backup_e2e::pg::{Cluster, ClusterOptions};
use backup_e2e::vault::{Vault, id_of};
use rstest::rstest;
use serde_json::json;

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_superuser_is_told_what_that_means() -> Result<()> {
    let cluster = Cluster::shared(17)?;
    let vault = Vault::local(cluster)?;
    let database = cluster.fresh_db("told")?;
    cluster.psql(&database, "CREATE TABLE t AS SELECT 1 AS a")?;
    cluster.psql("postgres", "CREATE ROLE told_login LOGIN CREATEDB")?;
    let id = id_of(&vault.back_up(&database, &[])?)?.to_owned();
    let run = |target: &str, more: &[&str]| {
        let target = format!("--target-db={database}_{target}");
        let restore = ["restore", &id, &target, "--json"];
        vault.read(&[&restore, more].concat())?.exits(0)
    };
    let words = "role postgres is a superuser, so functions inside the backup run with all rights";
    let told = run("told", &[])?;
    assert_eq!(told.stderr.matches(words).count(), 1, "{}", told.stderr);
    let notes = told.json()?["notes"].take();
    let notes = notes.as_array().context("notes")?;
    assert!(
        matches!(notes.as_slice(), [one] if one.to_string().contains(words)),
        "{notes:?}"
    );
    assert_eq!(told.json()?["warnings"], json!([]));

    let other = run("other", &["-U", "told_login", "--no-owner"])?;
    assert_eq!(other.json()?["notes"], json!([]));
    assert!(!other.stderr.contains("superuser"), "{}", other.stderr);
    Ok(())
}

const EXTENDED: &str = "
CREATE SCHEMA ext;
CREATE EXTENSION hstore SCHEMA ext;
CREATE EXTENSION dblink SCHEMA ext;
CREATE EXTENSION pageinspect;
CREATE TABLE t AS SELECT 'a=>1'::ext.hstore AS h;
CREATE FUNCTION far() RETURNS text LANGUAGE sql AS $$ SELECT ext.dblink_exec('', '') $$;
";

const LOGIN: &str = "weak-c4n4ry5d1e";
const ADMIN: &str = "the admin's own c4n4ry77a2";

struct Extended {
    cluster: Cluster,
    vault: Vault,
    id: String,
}

impl Extended {
    fn new(major: u16) -> Result<Self> {
        let cluster = Cluster::start(major, &ClusterOptions::default().scram(ADMIN))?;
        let vault = Vault::local(&cluster)?;
        cluster.create_db("extended")?;
        cluster.psql("extended", EXTENDED)?;
        let login = format!("CREATE ROLE restorer LOGIN CREATEDB PASSWORD '{LOGIN}'");
        cluster.psql("postgres", &login)?;
        let id = id_of(&vault.back_up("extended", &[])?)?.to_owned();
        Ok(Self { cluster, vault, id })
    }

    fn restore(&self, target: &str, extensions: &str, admin: &str) -> Result<Run> {
        self.restore_by(target, extensions, admin, self.cluster.bin_dir())
    }

    fn restore_by(
        &self,
        target: &str,
        extensions: &str,
        admin: &str,
        bin_dir: &Path,
    ) -> Result<Run> {
        let (cli, cluster) = (&self.vault.cli, &self.cluster);
        let text = format!(
            "[restore]\nextensions = [{extensions}]\n[server.main]\nhost = '{}'\nport = {}\n\
             user = 'restorer'\npassword = {{ env = 'LOGIN_PASSWORD' }}\nbin_dir = '{}'\n{admin}\n",
            cluster.host(),
            cluster.port(),
            bin_dir.display(),
        );
        let path = cli.folder().join(format!("{target}.toml"));
        let mut options = fs::OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        file.write_all(text.as_bytes())?;
        let (path, target) = (path.display().to_string(), format!("--target-db={target}"));
        let mut command = cli.command(["--config", &path, "restore", &self.id, &target])?;
        command.args(["--target-server", "main", "--no-owner", "--json"]);
        command.args(["--from", &self.vault.url, "-i", &self.vault.keys.identity]);
        command.env("ADMIN", ADMIN).env("LOGIN_PASSWORD", LOGIN);
        Running::start(command)?.wait()
    }
}

const AS_ADMIN: &str = "admin = { user = 'postgres', password = { env = 'ADMIN' } }";

/// What an extension's script could run with the rights of the admin must not be there before.
#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn no_extension_is_created_beside_what_a_backup_brought() -> Result<()> {
    let extended = Extended::new(17)?;
    let fakes = FakeTools::new(extended.cluster.bin_dir())?;
    // As if the definition of a schema did more than make one.
    let body = r#""$real" "$@"; status=$?
        trap='CREATE FUNCTION ext.trap() RETURNS int LANGUAGE sql AS $$ SELECT 1 $$'
        [ -e "$dir/set" ] || { "${real%/*}/psql" -Xqc "$trap" && touch "$dir/set"; } >&2
        exit $status"#;
    fakes.misbehave("pg_restore", Calls::All, body)?;
    let listed = "'dblink', 'pageinspect'";
    let run = extended.restore_by("trapped", listed, AS_ADMIN, fakes.bin_dir())?;
    let error = run.exits(1)?.json()?["error"].take();
    assert!(fakes.flag("set").exists());
    let causes = error["causes"].to_string();
    assert!(
        causes.contains("function ext.trap() is there before it"),
        "{error}"
    );
    assert!(!extended.cluster.has_db("trapped")?);
    Ok(())
}

#[rstest]
#[ignore = "needs servers: run ./scripts/test"]
fn listed_extensions_are_created_by_the_admin(#[values(14, 18)] major: u16) -> Result<()> {
    let extended = Extended::new(major)?;
    let cluster = &extended.cluster;
    for (target, extensions, admin, refused) in [
        ("none", "", "", "dblink, pageinspect"),
        (
            "nobody",
            "'dblink', 'pageinspect'",
            "",
            "dblink, pageinspect",
        ),
        ("one", "'dblink'", AS_ADMIN, "pageinspect"),
    ] {
        let run = extended.restore(target, extensions, admin)?.exits(7)?;
        let error = run.json()?["error"].take();
        let words = format!("role restorer may not create the extensions {refused}");
        assert!(error["causes"].to_string().contains(&words), "{error}");
        let hint = error["hint"].as_str().unwrap_or_default();
        assert!(hint.contains("[restore] extensions"), "{error}");
        assert!(!cluster.has_db(target)?);
    }

    let listed = "'dblink', 'pageinspect', 'hstore'";
    let run = extended.restore("restored", listed, AS_ADMIN)?.exits(3)?;
    let view = run.json()?;
    let compare = &view["compare"];
    assert_eq!(
        (&compare["tables"], &compare["equal"]),
        (&json!(1), &json!(1)),
        "{view}"
    );
    let definitions = &compare["definitions"];
    assert_eq!(definitions["expected"], definitions["equal"], "{view}");
    // An extension brings its own comment, which only its owner may change.
    let warnings = view["warnings"].as_array().context("warnings")?;
    let about = |text: &str| text.contains("must be owner of extension");
    assert!(
        warnings.iter().all(|text| text.as_str().is_some_and(about)),
        "{view}"
    );
    let owners = "SELECT string_agg(extname || ' ' || nspname || ' ' || pg_get_userbyid(extowner),
                    ', ' ORDER BY extname)
                  FROM pg_extension e JOIN pg_namespace n ON n.oid = extnamespace
                  WHERE extname <> 'plpgsql'";
    assert_eq!(
        cluster.query("restored", owners)?,
        "dblink ext postgres, hstore ext restorer, pageinspect public postgres"
    );
    let owner = "SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = 't'";
    assert_eq!(cluster.query("restored", owner)?, "restorer");
    Ok(())
}
