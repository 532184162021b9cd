//! What the tests of drills share: scenes whose drills have a place, and what is left of them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::cli::Cli;
use crate::pg::Cluster;
use crate::scene::{SOURCE, Scene, Store, unique, wait_for_silence};

/// How long an asked run may take to end, and processes of a dead one to go.
pub const GONE: Duration = Duration::from_mins(1);

/// Two owners that may not create in each other's schemas, extensions of both kinds, forced row
/// security, and what only a superuser may make.
pub const SHOP: &str = r#"
CREATE SCHEMA shop AUTHORIZATION drill_owner;
CREATE SCHEMA ext;
CREATE EXTENSION hstore SCHEMA ext;
CREATE EXTENSION pg_stat_statements SCHEMA ext;
CREATE TABLE shop.orders (id int PRIMARY KEY, note text, size int GENERATED ALWAYS AS (length(note)) STORED);
INSERT INTO shop.orders SELECT i, 'order ' || i FROM generate_series(1, 2000) AS i;
CREATE TABLE public.lines (id bigserial PRIMARY KEY, "order" int REFERENCES shop.orders, tags ext.hstore);
INSERT INTO public.lines ("order", tags) SELECT i, 'a=>1' FROM generate_series(1, 2000) AS i;
CREATE TABLE shop."<script>alert(1)</script>" (a int);
INSERT INTO shop."<script>alert(1)</script>" VALUES (1);
CREATE INDEX ON public.lines (("order" + 1));
CREATE MATERIALIZED VIEW shop.sizes AS SELECT i AS size FROM generate_series(1, 9) AS i;
ALTER TABLE shop.orders ENABLE ROW LEVEL SECURITY;
ALTER TABLE shop.orders FORCE ROW LEVEL SECURITY;
CREATE POLICY few ON shop.orders TO drill_reader USING (id < 10);
GRANT SELECT ON shop.orders TO drill_reader;
GRANT USAGE ON SCHEMA shop TO drill_reader;
ALTER TABLE shop.orders OWNER TO drill_owner;
ALTER TABLE public.lines OWNER TO drill_owner;
ALTER MATERIALIZED VIEW shop.sizes OWNER TO drill_other;
CREATE FUNCTION public.watch() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN END $$;
CREATE EVENT TRIGGER watch ON ddl_command_end EXECUTE FUNCTION public.watch();
CREATE PUBLICATION everything FOR ALL TABLES;
SELECT lo_from_bytea(0, 'large');
"#;

/// The roles of [`SHOP`], unless another test has made them.
pub const ROLES: &str = "
DO $$ DECLARE role text; BEGIN
  FOREACH role IN ARRAY ARRAY['drill_owner', 'drill_other', 'drill_reader'] LOOP
    BEGIN EXECUTE format('CREATE ROLE %I', role);
    EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END;
  END LOOP; END $$;";

/// A scene with one backup of `sql`, whose drills have a place that the server may enter.
///
/// # Errors
///
/// When that does not work.
pub fn scene(major: u16, sql: &str) -> Result<Scene<'static>> {
    let cluster = Cluster::shared(major)?;
    let database = cluster.fresh_db(&unique("drill"))?;
    cluster.psql(&database, ROLES)?;
    cluster.psql(&database, sql)?;
    let mut scene = Scene::new(cluster, &database, Store::Local)?;
    let place = place(&scene);
    fs::create_dir(&place)?;
    fs::set_permissions(&place, fs::Permissions::from_mode(0o755))?;
    scene.settings.env.push((
        "BACKUP_DRILL__DIRECTORY".to_owned(),
        place.display().to_string(),
    ));
    Ok(scene)
}

/// Where the drills of a scene make their clusters.
pub fn place(scene: &Scene<'_>) -> PathBuf {
    scene.path("drills")
}

/// Configures assertions for the scene's source.
pub fn assert_with(scene: &mut Scene<'_>, sql: &[&str]) {
    let sql = sql
        .iter()
        .map(|sql| format!("{{ source = '{SOURCE}', sql = '''{sql}''' }}"));
    let sql: Vec<_> = sql.collect();
    scene.settings.defaults.push("[drill]".to_owned());
    let line = format!("assertions = [{}]", sql.join(", "));
    scene.settings.defaults.push(line);
}

/// Runs a drill with JSON, which must end with `code`.
///
/// # Errors
///
/// When it ends otherwise, with all that it said.
pub fn drill(scene: &Scene<'_>, code: i32, more: &[&str]) -> Result<Value> {
    let arguments = [&["drill", SOURCE, "--json"], more].concat();
    let done = scene.run(&arguments)?.expect(code, &[])?;
    serde_json::from_str(&done.stdout).with_context(|| format!("{}{}", done.stdout, done.stderr))
}

/// The processes whose working directory is below `directory`.
#[must_use]
pub fn processes_below(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let below = |entry: &fs::DirEntry| {
        let cwd = fs::read_link(entry.path().join("cwd"));
        cwd.is_ok_and(|cwd| cwd.starts_with(directory))
    };
    let found = entries.filter(below);
    found
        .map(|entry| entry.path().display().to_string())
        .collect()
}

/// Until they are gone.
///
/// # Errors
///
/// With those that are left.
pub fn wait_for_no_process(directory: &Path) -> Result<()> {
    wait_for_silence(GONE, || {
        let left = processes_below(directory);
        Ok((!left.is_empty()).then(|| format!("processes: {left:?}")))
    })
}

/// Asserts that drills of the scene left no process and no file.
///
/// # Errors
///
/// With what is left.
pub fn assert_nothing_left(scene: &Scene<'_>) -> Result<()> {
    scene.assert_nobody_left()?;
    let place = place(scene);
    let processes = processes_below(&place);
    ensure!(processes.is_empty(), "processes: {processes:?}");
    let left: Vec<_> = fs::read_dir(&place)?.flatten().collect();
    ensure!(left.is_empty(), "left behind: {left:?}");
    Ok(())
}

/// What came of each level.
#[must_use]
pub fn states(view: &Value) -> Vec<&str> {
    let levels = view["levels"].as_array().into_iter().flatten();
    levels.filter_map(|level| level["state"].as_str()).collect()
}

/// The page and the JSON that a drill wrote, which are all that it wrote.
///
/// # Errors
///
/// When there is another file, or one is missing.
pub fn report(scene: &Scene<'_>) -> Result<(String, Value)> {
    let (mut page, mut data) = (String::new(), Value::Null);
    for entry in fs::read_dir(scene.path("report"))? {
        let path = entry?.path();
        let text = fs::read_to_string(&path)?;
        match path.extension().and_then(|e| e.to_str()) {
            Some("html") if page.is_empty() => page = text,
            Some("json") if data.is_null() => data = serde_json::from_str(&text)?,
            _ => bail!("{} is no report", path.display()),
        }
    }
    ensure!(!page.is_empty() && !data.is_null(), "no report");
    Ok((page, data))
}

/// Backups of three databases in one place, under the databases' names.
///
/// # Errors
///
/// When one cannot be made.
pub fn three_sources(cluster: &Cluster) -> Result<(Cli, [String; 3])> {
    let cli = Cli::new(cluster)?;
    let place = cli.folder().display().to_string();
    let cli = cli.with_env("BACKUP_DRILL__DIRECTORY", &place);
    let mut names = [const { String::new() }; 3];
    for name in &mut names {
        *name = cluster.fresh_db(&unique("due"))?;
        cluster.psql(name, "CREATE TABLE t AS SELECT 1 AS a")?;
        back_up(&cli, name)?;
    }
    names.sort();
    Ok((cli, names))
}

/// Takes a backup of a database without encryption.
///
/// # Errors
///
/// When that does not work.
pub fn back_up(cli: &Cli, database: &str) -> Result<String> {
    let store = cli.local_store();
    let arguments = [
        "backup",
        "-d",
        database,
        "--to",
        &store,
        "--no-encryption",
        "--json",
    ];
    let view = cli.run(arguments)?.exits(0)?.json()?;
    Ok(view["id"].as_str().context("an id")?.to_owned())
}
