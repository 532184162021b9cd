//! Whose rights a drill has, and whose not.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use backup_e2e::cli::{Cli, Running};
use backup_e2e::drills::{
    assert_nothing_left, assert_with, back_up, drill, processes_below, scene, states, three_sources,
};
use backup_e2e::pg::Cluster;
use backup_e2e::sample;
use backup_e2e::scene::{SOURCE, Scene, unique};
use nix::unistd::{Uid, chown};
use rstest::rstest;
use serde_json::json;

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn extensions_that_reach_out_need_a_word() -> Result<()> {
    let foreign = "
        CREATE EXTENSION file_fdw;
        CREATE SERVER elsewhere FOREIGN DATA WRAPPER file_fdw;
        ALTER SERVER elsewhere OWNER TO drill_owner;
        CREATE USER MAPPING FOR drill_reader SERVER elsewhere;
        CREATE TABLE near (a int);";
    let mut scene = scene(17, foreign)?;
    let done = scene.run(&["drill", SOURCE])?;
    done.expect(7, &["file_fdw", "[drill]", "hint"])?;
    assert_nothing_left(&scene)?;
    let lines = ["[drill]", "extensions = ['file_fdw']"];
    scene.settings.defaults.extend(lines.map(str::to_owned));
    let view = drill(&scene, 0, &[])?;
    assert_eq!(view["level"], "checked", "{view:#}");
    assert_nothing_left(&scene)
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn an_account_without_rights_drills_too() -> Result<()> {
    const NOBODY: u32 = 65_534;
    if !Uid::effective().is_root() {
        // Every other test has done it then.
        return Ok(());
    }
    let (cli, [name, ..]) = three_sources(Cluster::shared(17)?)?;
    let nobody = |path: &Path| {
        chown(
            path,
            Some(NOBODY.into()),
            Some(nix::unistd::Gid::from_raw(NOBODY)),
        )
    };
    let mut open = vec![cli.local_root()];
    while let Some(path) = open.pop() {
        nobody(&path)?;
        if path.is_dir() {
            open.extend(fs::read_dir(&path)?.flatten().map(|entry| entry.path()));
        }
    }
    let store = cli.local_store();
    let as_root = cli.command(["drill", name.as_str(), "--json", "--from", &store])?;
    let ids = [
        format!("--reuid={NOBODY}"),
        format!("--regid={NOBODY}"),
        "--clear-groups".to_owned(),
    ];
    let mut command = std::process::Command::new("setpriv");
    command
        .args(ids)
        .arg(as_root.get_program())
        .args(as_root.get_args());
    command
        .env_clear()
        .envs(cli.env())
        .current_dir(cli.folder());
    let view = Running::start(command)?.wait()?.exits(0)?.json()?;
    assert_eq!(view["level"], "checked", "{view:#}");
    assert_eq!(view["server"]["account"], "nobody");
    let left = processes_below(cli.folder());
    ensure!(left.is_empty(), "{left:?}");
    Ok(())
}

/// Lets drills run on the scene's own server, as `login`.
fn stand_by(scene: &mut Scene<'_>, login: &str, more: &str) {
    let bin_dir = scene.settings.bin_dir.display().to_string();
    let port = scene.settings.pg_port;
    let lines = format!(
        "[drill]\nserver = 'standby'\n[server.standby]\nhost = '127.0.0.1'\nport = {port}\n\
         user = '{login}'\nbin_dir = '{bin_dir}'\n{more}"
    );
    scene.settings.defaults.push(lines);
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_configured_server_is_drilled_on_and_left_as_it_was() -> Result<()> {
    let cluster = Cluster::shared(17)?;
    let sql = "CREATE TABLE t AS SELECT generate_series(1, 100) AS a; ALTER TABLE t OWNER TO drill_owner;";
    let mut scene = scene(17, sql)?;
    let role = "DO $$ BEGIN CREATE ROLE drill_stands_by LOGIN CREATEDB;
                EXCEPTION WHEN duplicate_object THEN NULL; END $$";
    cluster.psql("postgres", role)?;
    assert_with(&mut scene, &["SELECT count(*) = 100 FROM t"]);
    let assertions = scene.settings.defaults.pop().context("assertions")?;
    scene.settings.defaults.clear();
    stand_by(&mut scene, "drill_stands_by", "");
    scene.settings.defaults[0].insert_str("[drill]\n".len(), &format!("{assertions}\n"));
    // What a killed drill left, and others that only look like it.
    let mark = "made by backup-manager: restore of shop 20260205T030000Z-7f3a, run 1";
    for (name, owner, comment) in [
        ("drill_0123456789abcdef", "drill_stands_by", mark),
        ("drill_0123456789abcde0", "drill_stands_by", "mine"),
        ("drill_0123456789abcde1", "postgres", mark),
        ("drill_my_own", "drill_stands_by", mark),
    ] {
        cluster.create_db(name)?;
        let sql = format!(
            "ALTER DATABASE {name} OWNER TO {owner}; COMMENT ON DATABASE {name} IS '{comment}'"
        );
        cluster.psql("postgres", &sql)?;
    }
    // One that was killed before it could say what it had made; the limit is that of `CREATE DATABASE`.
    let unmarked = ["drill_0123456789abcde2", "drill_0123456789abcde3"];
    for (name, limit) in unmarked.into_iter().zip([1_983_472_605, -1]) {
        cluster.create_db(name)?;
        let sql = format!(
            "ALTER DATABASE {name} OWNER TO drill_stands_by;
             ALTER DATABASE {name} ALLOW_CONNECTIONS false CONNECTION LIMIT {limit}"
        );
        cluster.psql("postgres", &sql)?;
    }
    let databases = || {
        cluster.query("postgres", "SELECT datname FROM pg_database WHERE datname LIKE 'drill\\_%' AND datname !~ '_[0-9]+_[0-9]+$' ORDER BY 1")
    };
    let view = drill(&scene, 0, &[])?;
    assert_eq!(
        databases()?,
        "drill_0123456789abcde0\ndrill_0123456789abcde1\ndrill_0123456789abcde3\ndrill_my_own"
    );
    assert_eq!(states(&view), ["passed"; 6], "{view:#}");
    assert_eq!(view["server"]["kind"], "the configured server standby");
    ensure!(
        view["structure"]["unavailable"]
            .to_string()
            .contains("superuser")
    );
    for name in databases()?.lines() {
        cluster.drop_db(name)?;
    }
    scene.settings.defaults.clear();
    stand_by(&mut scene, "postgres", "");
    scene
        .run(&["drill", SOURCE])?
        .expect(12, &["is a superuser", "CREATEDB"])?;
    scene.settings.defaults.clear();
    stand_by(&mut scene, "drill_stands_by", "production = true");
    scene
        .run(&["drill", SOURCE])?
        .expect(12, &["marked as production"])?;
    assert_nothing_left(&scene)
}

/// Code that runs when a backup is restored, and tries to get out.
fn hostile_sql(proof: &Path) -> String {
    let tries = [
        format!("COPY (SELECT 1) TO PROGRAM 'touch {}'", proof.display()),
        "RESET ROLE".to_owned(),
        "RESET SESSION AUTHORIZATION".to_owned(),
        format!("COPY (SELECT 1) TO PROGRAM 'touch {}'", proof.display()),
        format!("COPY (SELECT 1) TO '{}'", proof.display()),
        "SET SESSION AUTHORIZATION postgres".to_owned(),
        "ALTER ROLE drill_owner SUPERUSER".to_owned(),
        "GRANT pg_execute_server_program TO drill_owner".to_owned(),
        format!("COPY (SELECT 1) TO PROGRAM 'touch {}'", proof.display()),
        "CREATE SUBSCRIPTION s CONNECTION 'host=127.0.0.1' PUBLICATION p".to_owned(),
    ];
    let body: Vec<_> = tries
        .iter()
        .map(|sql| format!("BEGIN EXECUTE $q${sql}$q$; EXCEPTION WHEN OTHERS THEN NULL; END;"))
        .collect();
    format!(
        "CREATE FUNCTION public.evil(a int) RETURNS boolean LANGUAGE plpgsql AS $f$
         BEGIN
           IF current_setting('application_name') = 'psql' THEN RETURN true; END IF;
           {}
           RETURN true;
         END $f$;
         GRANT pg_execute_server_program, pg_write_server_files TO drill_owner;
         CREATE TABLE public.t (a int CHECK (public.evil(a)));
         ALTER TABLE public.t OWNER TO drill_owner;
         ALTER FUNCTION public.evil OWNER TO drill_owner;
         INSERT INTO public.t VALUES (1);
         CREATE MATERIALIZED VIEW public.m AS SELECT public.evil(a) FROM public.t;
         CREATE INDEX ON public.t ((a + 1)) WHERE a > 0;
         -- Whoever comes later, and does not look where he looks, runs this.
         CREATE SCHEMA evil;
         CREATE FUNCTION evil.eq(name, name) RETURNS boolean LANGUAGE plpgsql AS $f$
         BEGIN PERFORM public.evil(1); RETURN $1 OPERATOR(pg_catalog.=) $2; END $f$;
         CREATE OPERATOR evil.= (LEFTARG = name, RIGHTARG = name, FUNCTION = evil.eq);
         DO $d$ BEGIN
           EXECUTE format('ALTER DATABASE %I SET search_path = evil, pg_catalog', current_database());
           EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = on', current_database());
         END $d$;",
        body.join("\n")
    )
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn code_out_of_a_backup_gets_no_further_than_its_database() -> Result<()> {
    let cluster = Cluster::shared(17)?;
    let folder = Cli::without_server()?;
    // Whoever runs the drill's server could write there.
    let open = fs::Permissions::from_mode(0o777);
    fs::set_permissions(folder.folder(), open)?;
    let proof = folder.folder().join("proof");
    let scene = scene(17, &hostile_sql(&proof))?;
    let database = &scene.settings.database;
    // It works where a superuser lets it.
    let spring = "SET default_transaction_read_only = off; SET application_name = 'x';
                  SELECT name 'a' OPERATOR(evil.=) name 'b'";
    cluster.psql(database, spring)?;
    ensure!(proof.exists(), "the trap is not armed");
    fs::remove_file(&proof)?;
    scene.good_backup()?;
    let view = drill(&scene, 0, &[])?;
    assert_eq!(view["level"], "checked", "{view:#}");
    ensure!(!proof.exists(), "code of the backup ran a program");
    assert_nothing_left(&scene)
}

/// What of the sample only a superuser may create; and an extension whose library needs an
/// environment that these servers have and a drill does not pass on.
const ONLY_FOR_SUPERUSERS: &str = "
SET client_min_messages = error;
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
DROP EXTENSION IF EXISTS postgres_fdw CASCADE;";

#[rstest]
#[ignore = "needs servers: run ./scripts/test"]
fn nearly_everything_restores_without_a_superuser(#[values(14, 18)] major: u16) -> Result<()> {
    let cluster = Cluster::shared(major)?;
    let cli = Cli::new(cluster)?;
    let place = cli.folder().display().to_string();
    let cli = cli.with_env("BACKUP_DRILL__DIRECTORY", &place).with_env(
        "BACKUP_DRILL__EXTENSIONS",
        "[\"file_fdw\", \"postgres_fdw\"]",
    );
    let store = cli.local_store();
    let database = cluster.fresh_db(&unique("everything"))?;
    let report = cli.folder().join("report.html").display().to_string();
    cluster.psql(&database, &sample::everything_sql(major))?;
    cluster.psql(&database, "DROP EXTENSION postgres_fdw CASCADE")?;
    back_up(&cli, &database)?;
    let failed = cli
        .run(["drill", "--from", &store, "--report", &report])?
        .exits(9)?;
    let words = "a drill restores without the rights of a superuser: cannot restore";
    ensure!(failed.stderr.contains(words), "{}", failed.stderr);
    ensure!(fs::read_to_string(&report)?.contains("without the rights of a superuser, which"));

    cluster.psql(&database, ONLY_FOR_SUPERUSERS)?;
    back_up(&cli, &database)?;
    let drill = ["drill", "--backup", "latest", "--from", &store, "--json"];
    let view = cli.run(drill)?.json()?;
    println!("{}", view["warnings"]);
    assert_eq!(view["level"], "checked", "{view:#}");
    assert_eq!(view["warnings"], json!([]));
    assert_eq!(view["compare"]["large_objects_equal"], true);
    ensure!(view["rows"].as_u64() > Some(8000));
    Ok(())
}
