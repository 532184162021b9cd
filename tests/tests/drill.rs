//! A rehearsal proves what it says, finds what is wrong, and leaves nothing behind.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use backup_e2e::pg::Cluster;
use backup_e2e::scene::{SOURCE, Scene, Store, unique};
use rstest::rstest;
use serde_json::{Value, json};

/// Two owners that may not create in each other's schemas, extensions of both kinds, forced row
/// security, and what only a superuser may make.
const SHOP: &str = r#"
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

const ROLES: &str = "
DO $$ DECLARE role text; BEGIN
  FOREACH role IN ARRAY ARRAY['drill_owner', 'drill_other', 'drill_reader'] LOOP
    BEGIN EXECUTE format('CREATE ROLE %I', role);
    EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END;
  END LOOP; END $$;";

/// A scene with one backup of `sql`, whose drills have a place that the server may enter.
fn scene(major: u16, sql: &str) -> Result<Scene<'static>> {
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

fn place(scene: &Scene<'_>) -> PathBuf {
    scene.path("drills")
}

fn assert_with(scene: &mut Scene<'_>, sql: &[&str]) {
    let sql = sql
        .iter()
        .map(|sql| format!("{{ source = '{SOURCE}', sql = '''{sql}''' }}"));
    let sql: Vec<_> = sql.collect();
    scene.settings.defaults.push("[drill]".to_owned());
    let line = format!("assertions = [{}]", sql.join(", "));
    scene.settings.defaults.push(line);
}

/// Runs a drill with JSON, which must end with `code`.
fn drill(scene: &Scene<'_>, code: i32, more: &[&str]) -> Result<Value> {
    let arguments = [&["drill", SOURCE, "--json"], more].concat();
    let done = scene.run(&arguments)?.expect(code, &[])?;
    serde_json::from_str(&done.stdout).with_context(|| format!("{}{}", done.stdout, done.stderr))
}

/// The processes whose working directory is below `directory`.
fn processes_below(directory: &Path) -> Vec<String> {
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

fn assert_nothing_left(scene: &Scene<'_>) -> Result<()> {
    scene.assert_nobody_left()?;
    let place = place(scene);
    let processes = processes_below(&place);
    ensure!(processes.is_empty(), "processes: {processes:?}");
    let left: Vec<_> = fs::read_dir(&place)?.flatten().collect();
    ensure!(left.is_empty(), "left behind: {left:?}");
    Ok(())
}

fn states(view: &Value) -> Vec<&str> {
    let levels = view["levels"].as_array().into_iter().flatten();
    levels.filter_map(|level| level["state"].as_str()).collect()
}

#[rstest]
#[ignore = "needs servers: run ./scripts/test"]
fn a_good_backup_passes_every_level(#[values(14, 15, 16, 17, 18)] major: u16) -> Result<()> {
    let mut scene = scene(major, SHOP)?;
    assert_with(
        &mut scene,
        &["SELECT count(*) = 2000 FROM shop.orders", "SELECT true"],
    );
    let view = drill(&scene, 0, &[])?;
    assert_eq!(view["status"], "passed", "{view:#}");
    assert_eq!(states(&view), ["passed"; 6], "{view:#}");
    assert_eq!(view["level"], "checked");
    assert_eq!(view["choice"], "only");
    assert_eq!(view["backup"], scene.older());
    let compare = &view["compare"];
    assert_eq!(
        (&compare["tables"], &compare["rows"]),
        (&json!(3), &json!(4001))
    );
    assert_eq!(compare["large_objects_equal"], true);
    assert_eq!(view["structure"]["problems"], json!([]));
    ensure!(view["structure"]["indexes"].as_u64() >= Some(3), "{view:#}");
    ensure!(view["rto_seconds"].as_f64() >= view["load_seconds"].as_f64());
    let server = view["server"]["server_version"]
        .as_str()
        .unwrap_or_default();
    ensure!(server.starts_with(&major.to_string()), "{view:#}");
    let left_out = view["left_out"].to_string();
    for what in ["EVENT TRIGGER", "PUBLICATION everything"] {
        ensure!(left_out.contains(what), "{left_out}");
    }
    assert_eq!(view["warnings"], json!([]));
    assert_nothing_left(&scene)
}
