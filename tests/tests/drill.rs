//! A rehearsal proves what it says, finds what is wrong, and leaves nothing behind.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use backup_e2e::cli::{Cli, Running};
use backup_e2e::fake_tools::{Calls, FakeTools};
use backup_e2e::pg::Cluster;
use backup_e2e::sample;
use backup_e2e::scene::{Run, SOURCE, Scene, Store, unique, wait_for_silence};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid, chown};
use rstest::rstest;
use serde_json::{Value, json};

/// How long an asked run may take to end, and processes of a dead one to go.
const GONE: Duration = Duration::from_secs(15);

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

/// Until they are gone.
fn wait_for_no_process(directory: &Path) -> Result<()> {
    wait_for_silence(GONE, || {
        let left = processes_below(directory);
        Ok((!left.is_empty()).then(|| format!("processes: {left:?}")))
    })
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

/// The page and the JSON that a drill wrote, which are all that it wrote.
fn report(scene: &Scene<'_>) -> Result<(String, Value)> {
    let (mut page, mut data) = (String::new(), Value::Null);
    for entry in fs::read_dir(scene.path("report"))? {
        let path = entry?.path();
        let text = fs::read_to_string(&path)?;
        match path.extension().and_then(|e| e.to_str()) {
            Some("html") if page.is_empty() => page = text,
            Some("json") if data.is_null() => data = serde_json::from_str(&text)?,
            _ => anyhow::bail!("{} is no report", path.display()),
        }
    }
    ensure!(!page.is_empty() && !data.is_null(), "no report");
    Ok((page, data))
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_report_says_it_all_and_does_nothing() -> Result<()> {
    let mut scene = scene(17, SHOP)?;
    assert_with(&mut scene, &["SELECT count(*) > 1999 FROM shop.orders"]);
    let directory = scene.path("report").display().to_string();
    let view = drill(&scene, 0, &["--report", &directory])?;
    let (page, data) = report(&scene)?;
    assert_eq!(data, view);
    for words in [
        "This backup restores",
        "3 tables with 4,001 rows are equal",
        "he assertion holds",
        "&#60;script&#62;alert(1)&#60;/script&#62;",
        "SELECT count(*) &#62; 1999 FROM shop.orders",
        "EVENT TRIGGER watch is left out",
        "without a network",
        scene.older(),
        view["run_id"].as_str().context("an id")?,
    ] {
        ensure!(page.contains(words), "no {words:?} in {page}");
    }
    for words in ["<script", "http:", "https:", "src=", "@import", "url("] {
        ensure!(!page.contains(words), "{words:?} in {page}");
    }
    let file = scene.path("one.html");
    drill(&scene, 0, &["--report", &file.display().to_string()])?;
    ensure!(fs::read_to_string(&file)?.contains("This backup restores"));
    let words = ["report", "Not a directory"];
    let nowhere = format!("{}/below", file.display());
    scene
        .run(&["drill", SOURCE, "--report", &nowhere])?
        .expect(1, &words)?;
    assert_nothing_left(&scene)
}

/// A function that is found only with a search path: the dump succeeds, and its rows are lost.
const BROKEN: &str = "
CREATE FUNCTION public.helper(t text) RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT upper(t) $$;
CREATE FUNCTION public.loud(t text) RETURNS text IMMUTABLE LANGUAGE plpgsql
  AS $$ BEGIN RETURN helper(t); END $$;
CREATE TABLE public.plain (a int);
INSERT INTO public.plain SELECT generate_series(1, 10);
CREATE TABLE public.fragile (a text, b text GENERATED ALWAYS AS (public.loud(a)) STORED);
INSERT INTO public.fragile VALUES ('one'), ('two');";

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_function_that_needs_a_search_path_fails_the_drill_by_name() -> Result<()> {
    let scene = scene(17, BROKEN)?;
    let directory = scene.path("report").display().to_string();
    let view = drill(&scene, 1, &["--report", &directory])?;
    assert_eq!(view["status"], "failed");
    assert_eq!(
        states(&view),
        [
            "passed",
            "passed",
            "passed",
            "failed",
            "not reached",
            "not reached"
        ]
    );
    let (page, _) = report(&scene)?;
    for words in [
        "This backup does not restore",
        "fragile",
        "helper(text)",
        "loud(text)",
    ] {
        ensure!(page.contains(words), "no {words:?} in {page}");
    }
    let error = view["error"].to_string();
    ensure!(
        error.contains("fragile") && error.contains("helper(text)"),
        "{error}"
    );
    assert_nothing_left(&scene)
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn an_assertion_that_does_not_hold_fails_the_drill() -> Result<()> {
    let mut scene = scene(17, SHOP)?;
    assert_with(
        &mut scene,
        &[
            "SELECT true",
            "SELECT false",
            "SELECT NULL::boolean",
            "SELECT true FROM generate_series(1, 9)",
            "SELECT true WHERE false",
            "SELECT 1",
            "SELECT true, true",
            "SELECT * FROM nowhere",
            "DELETE FROM shop.orders RETURNING true",
            "SELECT true; SELECT true",
            "SELECT pg_sleep(600) IS NULL",
            "SELECT rolsuper IS FALSE FROM pg_roles WHERE rolname = current_user",
        ],
    );
    scene
        .settings
        .defaults
        .push("assertion_timeout = '1s'".to_owned());
    let view = drill(&scene, 6, &[])?;
    let answers = view["assertions"].as_array().context("assertions")?;
    let reasons: Vec<_> = answers.iter().map(|a| a["reason"].as_str()).collect();
    assert_eq!(
        reasons,
        [
            None,
            Some("it is false"),
            Some("it is null"),
            Some("it gave several rows"),
            Some("it gave no row"),
            Some("it gave int4 instead of a boolean"),
            Some("it gave not one column"),
            Some("relation \"nowhere\" does not exist"),
            Some("cannot execute DELETE in a read-only transaction"),
            Some("cannot insert multiple commands into a prepared statement"),
            Some("no answer within 1 s"),
            None,
        ]
    );
    assert_eq!(view["compare"]["is_equal"], true);
    assert_eq!(states(&view)[5], "failed");
    assert_eq!(view["verdict"], "What must hold does not");
    let record = scene.newest_record()?;
    assert_eq!(record["drill"]["assertions_failed"], 10, "{record:#}");
    assert_eq!(record["result"], "failed");
    assert_nothing_left(&scene)
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn an_index_on_a_function_that_lies_is_found() -> Result<()> {
    let lie = "
        CREATE FUNCTION public.lie(a int) RETURNS float IMMUTABLE LANGUAGE sql AS 'SELECT random()';
        CREATE TABLE public.t (a int);
        INSERT INTO public.t SELECT generate_series(1, 100);
        CREATE INDEX liar ON public.t (public.lie(a));";
    let scene = scene(17, lie)?;
    let view = drill(&scene, 6, &[])?;
    let problems = view["structure"]["problems"]
        .as_array()
        .context("problems")?;
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(problems[0]["object"], "public.liar");
    let problem = problems[0]["problem"].to_string();
    ensure!(problem.contains("lacks matching index tuple"), "{problem}");
    assert_eq!(view["verdict"], "The restored database is damaged");
    assert_eq!(states(&view)[4..], ["passed", "failed"]);
    assert_eq!(scene.newest_record()?["drill"]["damaged"], 1);
    assert_nothing_left(&scene)
}

/// Programs that can be told to misbehave, a server's among them.
fn fakes(scene: &mut Scene<'_>) -> Result<FakeTools> {
    let fakes = FakeTools::new(&scene.settings.bin_dir)?;
    for tool in ["initdb", "postgres"] {
        fakes.misbehave(tool, Calls::All, "exec \"$real\" \"$@\"")?;
    }
    fakes.bin_dir().clone_into(&mut scene.settings.bin_dir);
    Ok(fakes)
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn what_comes_back_different_is_named_first() -> Result<()> {
    let mut scene = scene(17, SHOP)?;
    let fakes = fakes(&mut scene)?;
    // Rows come through a pipe; one of them changes on the way.
    let body = "[ -p /dev/stdin ] || exec \"$real\" \"$@\"
        exec \"$real\" \"$@\" < <(LC_ALL=C sed 's/order 1777/order 1778/')";
    fakes.misbehave("pg_restore", Calls::All, body)?;
    let directory = scene.path("report").display().to_string();
    let view = drill(&scene, 6, &["--report", &directory])?;
    assert_eq!(view["verdict"], "What came back is not what was dumped");
    assert_eq!(view["table_results"][0]["table"], "shop.orders");
    assert_eq!(view["table_results"][0]["state"], "different");
    assert_eq!(view["compare"]["equal"], 2);
    // The rest is looked at all the same.
    assert_eq!(
        states(&view),
        ["passed", "passed", "passed", "passed", "failed", "passed"]
    );
    assert_eq!(view["level"], "restored");
    let (page, _) = report(&scene)?;
    let (differences, proved) = (page.find("Differences"), page.find("What was proved"));
    ensure!(differences.context("differences")? < proved.context("levels")?);
    let listed = scene.run(&["list", "--json"])?.expect(0, &[])?;
    let listed: Value = serde_json::from_str(&listed.stdout)?;
    assert_eq!(listed[0]["drill_status"], "failed", "{listed}");
    assert_eq!(listed[0]["verified_at"], Value::Null, "{listed}");
    assert_nothing_left(&scene)
}

/// Starts a drill that stands still inside the load of rows.
fn paused_drill(scene: &Scene<'_>, fakes: &FakeTools) -> Result<Run> {
    let body = "[ -p /dev/stdin ] || exec \"$real\" \"$@\"
        exec \"$real\" \"$@\" < <(head -c 500000; touch \"$dir/paused\"
        until [ -e \"$dir/go\" ]; do sleep 0.05; done; cat)";
    fakes.misbehave("pg_restore", Calls::All, body)?;
    let mut run = scene.start(&["drill", SOURCE])?;
    run.wait_until("rows", || Ok(fakes.flag("paused").exists()))?;
    fs::remove_file(fakes.flag("paused"))?;
    ensure!(!processes_below(&place(scene)).is_empty(), "no server");
    Ok(run)
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_drill_that_is_killed_is_swept_by_the_next() -> Result<()> {
    let mut scene = scene(17, &sample::bulk_sql("app", "bulk", 5))?;
    let fakes = fakes(&mut scene)?;
    let run = paused_drill(&scene, &fakes)?;
    let place = place(&scene);
    run.signal(Signal::SIGKILL)?;
    run.finish(GONE)?.expect(137, &[])?;
    // What feeds the tool is of the test.
    fs::write(fakes.flag("go"), "")?;
    wait_for_no_process(&place)?;
    scene.assert_nobody_left()?;
    let left: Vec<_> = fs::read_dir(&place)?.flatten().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    // Of the same name, and not ours.
    let foreign = place.join("backup-drill-foreign");
    fs::create_dir(&foreign)?;
    drill(&scene, 0, &[])?;
    ensure!(!left[0].path().exists(), "{left:?} is still there");
    fs::remove_dir(foreign)?;
    assert_nothing_left(&scene)
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_drill_that_is_stopped_or_loses_its_server_leaves_nothing() -> Result<()> {
    let mut scene = scene(17, &sample::bulk_sql("app", "bulk", 5))?;
    let fakes = fakes(&mut scene)?;
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let run = paused_drill(&scene, &fakes)?;
        run.signal(signal)?;
        run.finish(GONE)?
            .expect(128 + signal as i32, &["stopped by a signal"])?;
        assert_nothing_left(&scene)?;
        assert_eq!(scene.newest_record()?["result"], "cancelled");
    }
    let run = paused_drill(&scene, &fakes)?;
    for process in processes_below(&place(&scene)) {
        let number = process.trim_start_matches("/proc/").parse()?;
        // It may have ended with the first of them.
        let _ = kill(Pid::from_raw(number), Signal::SIGKILL);
    }
    fs::write(fakes.flag("go"), "")?;
    run.finish(GONE)?.expect(9, &["failed"])?;
    assert_nothing_left(&scene)
}

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

/// Backups of three databases in one place, under the databases' names.
fn three_sources(cluster: &Cluster) -> Result<(Cli, [String; 3])> {
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

fn back_up(cli: &Cli, database: &str) -> Result<String> {
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

/// The drills that these arguments bring, one JSON a line.
fn drills(cli: &Cli, arguments: &[&str]) -> Result<Vec<Value>> {
    let store = cli.local_store();
    let all = [&["drill", "--json", "--from", &store], arguments].concat();
    let run = cli.run(all)?.exits(0)?;
    let text = run.text();
    Ok(text
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?)
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn what_was_not_proved_for_the_longest_time_is_due_first() -> Result<()> {
    let (cli, [a, b, c]) = three_sources(Cluster::shared(17)?)?;
    let sources = |arguments: &[&str]| -> Result<Vec<String>> {
        let views = drills(&cli, arguments)?;
        let names = views.iter().map(|view| view["source"].as_str());
        Ok(names
            .map(|name| name.unwrap_or_default().to_owned())
            .collect())
    };
    // Which of the three is not said.
    let store = cli.local_store();
    let unclear = cli.run(["drill", "--from", &store])?.exits(2)?;
    ensure!(unclear.stderr.contains("--all"), "{}", unclear.stderr);
    assert_eq!(sources(&[&c])?, [c.as_str()]);
    assert_eq!(sources(&[&a])?, [a.as_str()]);
    assert_eq!(sources(&["--all", "--older-than", "1d"])?, [b.as_str()]);
    assert_eq!(sources(&["--all", "--older-than", "1d"])?, [] as [&str; 0]);
    assert_eq!(
        sources(&["--all", "--older-than", "0s"])?,
        [c, a, b].map(|s| s)
    );

    let listed = cli
        .run(["list", "--json", "--from", &store])?
        .exits(0)?
        .json()?;
    let runs = cli.run(["runs", "--operation", "drill", "--json", "--from", &store])?;
    let runs = runs.exits(0)?.json()?;
    assert_eq!(runs.as_array().map(Vec::len), Some(6));
    for backup in listed.as_array().context("an array")? {
        let of = |run: &&Value| run["backup"] == backup["id"];
        let newest = runs.as_array().and_then(|runs| runs.iter().find(of));
        let newest = newest.context("a run")?;
        assert_eq!(backup["drilled_at"], newest["finished_at"]);
        assert_eq!(backup["drill_status"], "success");
        assert_eq!(backup["verified_at"], newest["finished_at"]);
        assert_eq!(backup["verified_level"], "restored");
        assert_eq!(newest["drill"]["level"], "checked");
        let id = backup["id"].as_str().context("an id")?;
        let shown = cli
            .run(["show", id, "--json", "--from", &store])?
            .exits(0)?
            .json()?;
        assert_eq!(shown["drilled_at"], newest["finished_at"]);
        assert_eq!(shown["drill_status"], "success");
    }
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn the_newest_and_an_older_backup_take_turns() -> Result<()> {
    let cluster = Cluster::shared(17)?;
    let (cli, [name, ..]) = three_sources(cluster)?;
    let newest = back_up(&cli, &name)?;
    let turn = |more: &[&str]| -> Result<(Value, Value)> {
        let mut views = drills(&cli, &[&[name.as_str()], more].concat())?;
        let mut view = views.pop().context("a drill")?;
        Ok((view["choice"].take(), view["backup"].take()))
    };
    assert_eq!(turn(&[])?, (json!("newest"), json!(newest)));
    let (choice, older) = turn(&[])?;
    assert_eq!(choice, "older");
    assert_ne!(older, newest.as_str());
    assert_eq!(turn(&[])?, (json!("newest"), json!(newest)));
    assert_eq!(turn(&["--age", "0s"])?, (json!("aged"), json!(newest)));
    assert_eq!(
        turn(&["--backup", older.as_str().context("an id")?])?,
        (json!("named"), older)
    );
    let store = cli.local_store();
    let old = cli.run(["drill", &name, "--age", "7d", "--from", &store])?;
    ensure!(old.exits(4)?.stderr.contains("old enough"));
    Ok(())
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
    let databases = || {
        cluster.query("postgres", "SELECT datname FROM pg_database WHERE datname LIKE 'drill\\_%' AND datname !~ '_[0-9]+_[0-9]+$' ORDER BY 1")
    };
    let view = drill(&scene, 0, &[])?;
    assert_eq!(
        databases()?,
        "drill_0123456789abcde0\ndrill_0123456789abcde1\ndrill_my_own"
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
