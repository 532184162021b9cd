//! A rehearsal proves what it says, finds what is wrong, and leaves nothing behind.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use backup_e2e::cli::Cli;
use backup_e2e::drills::{
    GONE, SHOP, assert_nothing_left, assert_with, back_up, drill, place, processes_below, report,
    scene, states, three_sources, wait_for_no_process,
};
use backup_e2e::fake_tools::{Calls, FakeTools};
use backup_e2e::pg::Cluster;
use backup_e2e::sample;
use backup_e2e::scene::{Run, SOURCE, Scene};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rstest::rstest;
use serde_json::{Value, json};

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
fn every_copy_is_proved_and_a_place_that_is_away_stops_nothing() -> Result<()> {
    let (cli, [name, other, ..]) = three_sources(Cluster::shared(17)?)?;
    let (first, second) = (cli.local_root(), cli.folder().join("second"));
    let copied = Command::new("cp")
        .arg("-a")
        .args([&first, &second])
        .status()?;
    ensure!(copied.success());
    let config = cli.folder().join("places.toml");
    let url = |path: &Path| format!("url = \"file://{}\"", path.display());
    let text = format!(
        "[destination.first]\n{}\n[destination.second]\n{}\n",
        url(&first),
        url(&second)
    );
    fs::write(&config, text)?;
    fs::set_permissions(&config, fs::Permissions::from_mode(0o600))?;
    let config = config.display().to_string();
    let drill = |arguments: &[&str], code: i32| -> Result<(Vec<Value>, String)> {
        let all = [&["--config", &config, "drill", "--json"], arguments].concat();
        let run = cli.run(all)?.exits(code)?;
        let views = run.text();
        let views = views
            .lines()
            .map(serde_json::from_str)
            .collect::<Result<_, _>>()?;
        Ok((views, run.stderr))
    };
    for place in ["first", "second", "first"] {
        assert_eq!(drill(&[&name], 0)?.0[0]["destination"], place);
    }
    fs::rename(&second, cli.folder().join("away"))?;
    let (views, stderr) = drill(&["--all"], 3)?;
    assert_eq!(views.len(), 3);
    for view in &views {
        assert_eq!(
            (&view["status"], &view["destination"]),
            (&json!("passed"), &json!("first"))
        );
    }
    ensure!(stderr.contains("warning: second: left out: "), "{stderr}");
    // A drill that cannot be done does not keep the others from theirs.
    let backups = first.join("backups").join(&other);
    for backup in fs::read_dir(&backups)? {
        for object in fs::read_dir(backup?.path())? {
            let object = object?.path();
            if !object.ends_with("manifest.json") {
                fs::write(object, "damaged")?;
            }
        }
    }
    let (views, _) = drill(&["--all"], 6)?;
    let states: Vec<_> = views
        .iter()
        .map(|view| (&view["source"], &view["status"]))
        .collect();
    assert_eq!(
        states
            .iter()
            .filter(|(_, status)| **status == "passed")
            .count(),
        2,
        "{states:?}"
    );
    // What is nowhere to be seen may lie in the place that is away.
    let gone = cli.run(["--config", &config, "drill", "elsewhere"])?;
    ensure!(gone.exits(8)?.stderr.contains("second"));
    Ok(())
}
