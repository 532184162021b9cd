//! A dump whose owner wants more than a restore: code that runs while it is restored, and names that
//! try to be code. Restored by a role that is no superuser.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use backup_e2e::evidence;
use backup_e2e::pg::{Cluster, ClusterOptions, Contents, quote_identifier, quote_literal};
use backup_e2e::vault::{Vault, id_of};
use backup_testing::write_program;
use rstest::rstest;

/// Where planted code writes when it runs: a directory that everybody may write to.
struct Trap {
    directory: PathBuf,
}

impl Trap {
    fn new(cluster: &Cluster) -> Result<Self> {
        let directory = cluster.socket_dir().join("trap");
        fs::create_dir(&directory)?;
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o777))?;
        Ok(Self { directory })
    }

    fn marker(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    fn sprung(&self) -> Result<BTreeSet<String>> {
        let entries = fs::read_dir(&self.directory)?;
        let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        names.collect()
    }

    fn clear(&self) -> Result<()> {
        for name in self.sprung()? {
            fs::remove_file(self.directory.join(name))?;
        }
        Ok(())
    }
}

/// The body of a function that tries everything, each by itself, and then does as it should.
fn attempts(trap: &Trap, name: &str, last: &str) -> String {
    let statements = [
        "RESET ROLE".to_owned(),
        "RESET SESSION AUTHORIZATION".to_owned(),
        format!("COPY (SELECT 1) TO PROGRAM 'touch {}'", trap.marker(name)),
        format!(
            "COPY (SELECT 1) TO '{}'",
            trap.marker(&format!("{name}-file"))
        ),
        "ALTER ROLE restorer SUPERUSER".to_owned(),
        "CREATE ROLE planted SUPERUSER".to_owned(),
        "UPDATE pg_authid SET rolcreaterole = true WHERE rolname = 'restorer'".to_owned(),
        "COMMENT ON DATABASE bystander IS 'touched'".to_owned(),
        "ALTER DATABASE bystander CONNECTION LIMIT 7".to_owned(),
    ];
    let mut body = "BEGIN ".to_owned();
    for sql in statements {
        let sql = quote_literal(&sql);
        let _ = write!(
            body,
            "BEGIN EXECUTE {sql}; EXCEPTION WHEN OTHERS THEN NULL; END; "
        );
    }
    format!("{body} {last} END")
}

/// Where code runs while a database is restored, or might.
fn planted(trap: &Trap) -> String {
    let functions = [
        ("checked", "int", "boolean", "RETURN true;"),
        ("generated", "int", "boolean", "RETURN true;"),
        ("indexed", "int", "boolean", "RETURN true;"),
        ("in_domain", "int", "boolean", "RETURN true;"),
        ("policed", "int", "boolean", "RETURN true;"),
        ("viewed", "", "boolean", "RETURN true;"),
        ("defaulted", "", "boolean", "RETURN true;"),
        ("triggered", "", "trigger", "RETURN NEW;"),
        ("on_event", "", "event_trigger", ""),
    ];
    let functions = functions.map(|(name, arguments, returns, last)| {
        let body = attempts(trap, name, last);
        // Immutable functions may do nothing of it, so this one lies about being one.
        format!(
            "CREATE FUNCTION app.do_{name}({arguments}) RETURNS {returns} LANGUAGE plpgsql
               AS $planted$ {body} $planted$;"
        )
    });
    let liars = ["checked", "generated", "indexed", "in_domain"].map(|name| {
        format!(
            "CREATE FUNCTION app.{name}(int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE
               AS $$ BEGIN RETURN app.do_{name}($1); END $$;"
        )
    });
    format!(
        "CREATE SCHEMA app; {} {}
         CREATE DOMAIN app.d AS int CHECK (app.in_domain(VALUE));
         CREATE TABLE app.t (id int CHECK (app.checked(id)), d app.d,
           g boolean GENERATED ALWAYS AS (app.generated(id)) STORED,
           b boolean DEFAULT app.do_defaulted());
         CREATE INDEX i ON app.t (app.indexed(id));
         CREATE MATERIALIZED VIEW app.m AS SELECT app.do_viewed() AS v FROM app.t;
         CREATE TRIGGER trg BEFORE INSERT ON app.t FOR EACH ROW EXECUTE FUNCTION app.do_triggered();
         CREATE POLICY p ON app.t USING (app.do_policed(id));
         ALTER TABLE app.t ENABLE ROW LEVEL SECURITY;
         INSERT INTO app.t (id, d) SELECT i, i FROM generate_series(1, 3) AS i;
         REFRESH MATERIALIZED VIEW app.m;
         CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION app.do_on_event();",
        functions.concat(),
        liars.concat()
    )
}

/// Names that end a comment, a line or a statement and go on as something else.
fn named(trap: &Trap) -> String {
    let shell = format!("\\! touch {}", trap.marker("shell"));
    let names = [
        format!("x\n{shell}\n"),
        "y\nDROP DATABASE bystander;\n--".to_owned(),
        "z\n\\c bystander\nDROP TABLE kept;\n--".to_owned(),
        "\\unrestrict `touch x`".to_owned(),
        "*/ ; DROP DATABASE bystander; /*".to_owned(),
    ];
    let mut made = String::new();
    for name in names {
        assert!(name.len() < 64, "{name}: no server takes it whole");
        let (id, text) = (quote_identifier(&name), quote_literal(&name));
        let body = quote_literal(&format!("SELECT {text}"));
        let _ = write!(
            made,
            "CREATE TABLE app.{id} ({id} int); INSERT INTO app.{id} VALUES (1);
             COMMENT ON TABLE app.{id} IS {text};
             CREATE FUNCTION app.{id}() RETURNS text LANGUAGE sql AS {body};"
        );
    }
    made
}

/// The server's programs, and those that tell that they were run in the place of others.
fn fakes(trap: &Trap, folder: &Path, bin_dir: &Path) -> Result<String> {
    let directory = folder.join("fakes");
    fs::create_dir(&directory)?;
    for tool in ["pg_dump", "pg_restore", "pg_dumpall"] {
        symlink(bin_dir.join(tool), directory.join(tool))?;
    }
    for tool in ["psql", "sh", "bash", "touch"] {
        let path = directory.join(tool);
        let marker = trap.marker(&format!("ran-{tool}"));
        write_program(&path, &format!("#!/bin/sh\n: > {marker}\n"))?;
    }
    Ok(directory.display().to_string())
}

const TABLES: &str = "SELECT count(*) FROM pg_tables WHERE schemaname = 'app'";

struct Stage {
    cluster: Cluster,
    vault: Vault,
    trap: Trap,
}

impl Stage {
    fn new(major: u16) -> Result<Self> {
        let cluster = Cluster::start(major, &ClusterOptions::default())?;
        let trap = Trap::new(&cluster)?;
        let mut vault = Vault::local(&cluster)?;
        let fakes = fakes(&trap, vault.cli.folder(), cluster.bin_dir())?;
        let path = format!("{fakes}:/usr/bin:/bin");
        vault.cli = vault.cli.with_env("PATH", &path);
        cluster.create_db("bystander")?;
        cluster.psql("bystander", "CREATE TABLE kept AS SELECT 1 AS a")?;
        cluster.psql("postgres", "CREATE ROLE restorer LOGIN CREATEDB")?;
        cluster.create_db("hostile")?;
        Ok(Self {
            cluster,
            vault,
            trap,
        })
    }

    /// What a restore must leave alone besides the content of other databases.
    fn outside(&self) -> Result<BTreeMap<&'static str, String>> {
        let query = |sql| self.cluster.query("postgres", sql);
        let roles = "SELECT string_agg(r::text, ' ' ORDER BY rolname) FROM pg_roles r";
        let databases = "SELECT string_agg(concat_ws(' ', datname, datdba, datconnlimit,
               shobj_description(oid, 'pg_database')), ', ' ORDER BY datname)
             FROM pg_database WHERE datname <> 'restored'";
        Ok(BTreeMap::from([
            ("roles", query(roles)?),
            ("databases", query(databases)?),
        ]))
    }

    fn bystander(&self) -> Result<Contents> {
        self.cluster.contents("bystander")
    }

    /// Undoes what the planted code did on its own server, where a superuser ran it.
    fn tidy(&self) -> Result<()> {
        self.trap.clear()?;
        let sql = "ALTER ROLE restorer NOSUPERUSER NOCREATEROLE; DROP ROLE IF EXISTS planted;
            COMMENT ON DATABASE bystander IS NULL; ALTER DATABASE bystander CONNECTION LIMIT -1;";
        self.cluster.psql("postgres", sql).map(drop)
    }
}

#[rstest]
#[ignore = "needs servers: run ./scripts/test"]
fn check_10_planted_code_gets_no_further_than_its_own_database(
    #[values(14, 15, 16, 17, 18)] major: u16,
) -> Result<()> {
    let stage = Stage::new(major)?;
    stage.cluster.psql("hostile", &planted(&stage.trap))?;
    // In the hands of a superuser it works, or the rest would prove nothing.
    let sprung = stage.trap.sprung()?;
    for name in [
        "checked",
        "generated",
        "triggered",
        "in_domain",
        "defaulted",
    ] {
        assert!(sprung.contains(name), "{name} not in {sprung:?}");
    }
    let outside = stage.outside()?;
    assert!(outside["roles"].contains("planted"), "{outside:?}");
    stage
        .cluster
        .psql("hostile", "ALTER EVENT TRIGGER e DISABLE")?;
    stage.cluster.psql("hostile", &named(&stage.trap))?;
    stage
        .cluster
        .psql("hostile", "ALTER EVENT TRIGGER e ENABLE")?;
    assert_eq!(stage.cluster.query("hostile", TABLES)?, "6");
    stage.tidy()?;

    let backup = stage.vault.back_up("hostile", &[])?;
    stage.tidy()?;
    let (outside, bystander) = (stage.outside()?, stage.bystander()?);
    let login = ["-U", "restorer", "--no-owner"];
    let restore = stage.vault.restore(id_of(&backup)?, "restored", &login)?;
    assert_eq!(stage.trap.sprung()?, BTreeSet::new());
    assert_eq!(stage.outside()?, outside);
    assert_eq!(stage.bystander()?, bystander);

    // It is all there nonetheless, but for what only a superuser may create.
    assert_eq!(restore["compare"]["tables"], 6, "{restore}");
    assert_eq!(restore["compare"]["equal"], 6, "{restore}");
    assert_eq!(stage.cluster.query("restored", TABLES)?, "6");
    let warnings = restore["warnings"].to_string();
    assert!(
        warnings.contains("EVENT TRIGGER e is left out"),
        "{warnings}"
    );
    evidence::note(
        10,
        format!(
            "a dump of PostgreSQL {major} with code in {} places that runs as a superuser at its \
             source, and 5 names that go on as commands: restored whole by a role that is none, no \
             marker made, no psql found by its name was started",
            sprung
                .iter()
                .filter(|name| !name.ends_with("-file"))
                .count()
        ),
    );
    Ok(())
}

/// What a shell of psql would run, in a dump in SQL.
fn commands(trap: &Trap) -> String {
    let touch = |name: &str| format!("touch {}", trap.marker(name));
    format!(
        "\\! {}\n\\unrestrict `{}`\n\\set x `{}`\n\\o | {}\n\\copy (SELECT 1) TO PROGRAM '{}'\n\
         COPY (SELECT 1) TO PROGRAM '{}';\n",
        touch("bang"),
        touch("backquote"),
        touch("set"),
        touch("pipe"),
        touch("copy"),
        touch("program"),
    )
}

/// Puts `commands` into the middle of a dump, where the header and the last line that make it one
/// stay as they are; what keeps a new psql from its own commands goes.
fn arm(plain: &Path, commands: &str) -> Result<()> {
    let text = fs::read_to_string(plain)?;
    let lines = text
        .lines()
        .filter(|line| !line.starts_with("\\restrict ") && !line.starts_with("\\unrestrict "));
    let text = lines.collect::<Vec<_>>().join("\n") + "\n";
    let (head, tail) = text.split_once("\n\nSET ").context("two pieces")?;
    Ok(fs::write(
        plain,
        format!("{head}\n\n{commands}\nSET {tail}"),
    )?)
}

/// Adopts a dump that was made elsewhere; returns the id of the backup.
fn adopt(stage: &Stage, path: &Path) -> Result<String> {
    let path = path.display().to_string();
    let place = ["--to", &stage.vault.url, "--json", "--recipient"];
    let adopt = ["adopt", &path, "--source", "foreign"];
    let recipient = stage.vault.keys.recipient.as_str();
    let run = stage
        .vault
        .cli
        .run(adopt.into_iter().chain(place).chain([recipient]))?;
    Ok(id_of(&run.exits(0)?.json()?)?.to_owned())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_10_commands_in_a_dump_that_is_adopted_are_never_run() -> Result<()> {
    let stage = Stage::new(17)?;
    stage.cluster.psql("hostile", &planted(&stage.trap))?;
    stage
        .cluster
        .psql("hostile", "ALTER EVENT TRIGGER e DISABLE")?;
    stage.cluster.psql("hostile", &named(&stage.trap))?;
    let dumped = |option: &str, name: &str| -> Result<PathBuf> {
        let path = stage.vault.cli.folder().join(name);
        let mut tool = stage.cluster.tool("pg_dump", "hostile");
        let status = tool.arg(option).arg("-f").arg(&path).status()?;
        ensure!(status.success(), "{name}: {status}");
        Ok(path)
    };
    let (plain, archive) = (dumped("-Fp", "h.sql")?, dumped("-Fc", "h.dump")?);
    arm(&plain, &commands(&stage.trap))?;
    // In the hands of psql it works, or the rest would prove nothing.
    stage.tidy()?;
    stage.cluster.create_db("careless")?;
    let mut psql = stage.cluster.tool("psql", "careless");
    psql.args(["-X", "-q", "-f"]).arg(&plain);
    psql.stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    let sprung = stage.trap.sprung()?;
    for name in ["bang", "set", "pipe", "copy", "program"] {
        ensure!(sprung.contains(name), "{name} not in {sprung:?}");
    }
    stage.cluster.drop_db("careless")?;
    stage.tidy()?;

    let (outside, bystander) = (stage.outside()?, stage.bystander()?);
    let (of_plain, of_archive) = (adopt(&stage, &plain)?, adopt(&stage, &archive)?);
    let back = stage.vault.cli.folder().join("back").display().to_string();
    let login = ["-U", "restorer", "--no-owner", "--target-db", "restored"];
    for (arguments, code) in [
        (vec!["verify", &of_plain, "--level", "decoded"], 0),
        (vec!["show", &of_plain], 0),
        (vec!["cat", &of_plain, "--part", "dump"], 0),
        (vec!["restore", &of_plain, "--target-dir", &back], 0),
        ([&["restore", &of_plain], &login[..]].concat(), 2),
        (vec!["drill", "--backup", &of_plain], 2),
        (vec!["verify", &of_archive, "--level", "decoded"], 0),
        (vec!["show", &of_archive], 0),
        // Event triggers are left out, with a warning.
        ([&["restore", &of_archive], &login[..]].concat(), 3),
    ] {
        stage.vault.read(&arguments)?.exits(code)?;
        ensure!(stage.trap.sprung()?.is_empty(), "{arguments:?} set it off");
    }
    assert_eq!(stage.cluster.query("restored", TABLES)?, "6");
    assert_eq!(stage.outside()?, outside);
    assert_eq!(stage.bystander()?, bystander);
    evidence::note(
        10,
        format!(
            "a dump in SQL with {} commands for psql and its shell, and an archive of the same \
             database, adopted: verified, shown, given back and, where that is possible, restored, \
             and nothing of it was run",
            commands(&stage.trap).lines().count()
        ),
    );
    Ok(())
}

/// A label is for a provider that the server has loaded. One that it has not is an error, and what
/// was restored until then goes.
#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_label_for_a_provider_that_is_not_there_leaves_nothing() -> Result<()> {
    let stage = Stage::new(18)?;
    stage.cluster.psql(
        "hostile",
        "CREATE TABLE t AS SELECT 1 AS a;
         INSERT INTO pg_seclabel VALUES ('t'::regclass, 'pg_class'::regclass, 0, 'planted', 'x');",
    )?;
    let backup = stage.vault.back_up("hostile", &[])?;
    let outside = stage.outside()?;
    let restore = ["restore", id_of(&backup)?, "--target-db=restored"];
    let login = ["-U", "restorer", "--no-owner"];
    let run = stage
        .vault
        .read(&[&restore[..], &login].concat())?
        .exits(1)?;
    let words = "security label provider \"planted\" is not loaded";
    assert!(run.stderr.contains(words), "{}", run.stderr);
    assert!(!stage.cluster.has_db("restored")?);
    assert_eq!(stage.outside()?, outside);
    assert_eq!(stage.trap.sprung()?, BTreeSet::new());
    Ok(())
}
