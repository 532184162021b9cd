//! Check 28. A rehearsal proves what it says, finds what is wrong, names it, and leaves nothing behind.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use backup_e2e::drills::{
    GONE, SHOP, assert_nothing_left, assert_with, drill, place, processes_below, report, scene,
    states, wait_for_no_process,
};
use backup_e2e::evidence;
use backup_e2e::fake_tools::{Calls, FakeTools};
use backup_e2e::sample;
use backup_e2e::scene::{Run, SOURCE, Scene};
use chrono::{DateTime, Utc};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rstest::rstest;
use serde_json::{Value, json};

/// When a drill last succeeded, as Prometheus is told: seconds, or 0 if none ever has.
fn last_drill(scene: &Scene<'_>) -> Result<f64> {
    let file = scene.path("backup.prom");
    let path = file.display().to_string();
    // Its verdict is not the question.
    scene.run(&["check", "--prometheus", &path])?;
    let text = fs::read_to_string(&file)?;
    let name = format!("backup_last_drill_timestamp_seconds{{source=\"{SOURCE}\"}} ");
    let mut values = text.lines().filter_map(|line| line.strip_prefix(&name));
    Ok(values.next().with_context(|| text.clone())?.parse()?)
}

/// The end of the newest run, in the same form.
fn newest_end(scene: &Scene<'_>) -> Result<f64> {
    let record = scene.newest_record()?;
    ensure!(record["operation"] == "drill", "{record:#}");
    let end = record["finished_at"].as_str().context("an end")?;
    let end: DateTime<Utc> = end.parse()?;
    Ok(Duration::from_millis(u64::try_from(end.timestamp_millis())?).as_secs_f64())
}

#[rstest]
#[ignore = "needs servers: run ./scripts/test"]
fn check_28_a_good_backup_passes_every_level(
    #[values(14, 15, 16, 17, 18)] major: u16,
) -> Result<()> {
    let mut scene = scene(major, SHOP)?;
    assert_with(
        &mut scene,
        &["SELECT count(*) = 2000 FROM shop.orders", "SELECT true"],
    );
    assert!(last_drill(&scene)? < 1.0, "none was made yet");
    let view = drill(&scene, 0, &[])?;
    let (told, end) = (last_drill(&scene)?, newest_end(&scene)?);
    ensure!((told - end).abs() < 1.0, "{told} instead of {end}");
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
    assert_nothing_left(&scene)?;
    evidence::note(
        28,
        format!(
            "on PostgreSQL {major} a good backup passed all {} levels, {} tables with {} rows equal, and the \
             metric told when",
            states(&view).len(),
            compare["tables"],
            compare["rows"]
        ),
    );
    Ok(())
}

/// A store that does not give back what was put there, at two lengths of the way.
#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_28_a_damaged_backup_fails_where_it_is_damaged() -> Result<()> {
    let scene = scene(17, SHOP)?;
    let keys = scene.objects_of(scene.older())?;
    let is_rows = |key: &&String| key.contains("data");
    let key = keys.iter().find(is_rows).context("an object with rows")?;
    let good = scene.place.get(key)?;
    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    let directory = scene.path("report").display().to_string();
    for damaged in [&flipped[..], &good[..good.len() - 1]] {
        scene.place.put(key, damaged)?;
        let view = drill(&scene, 6, &["--report", &directory])?;
        assert_eq!(view["status"], "failed", "{view:#}");
        let states = states(&view);
        let failed = states.iter().position(|state| *state == "failed");
        let failed = failed.context("a level that failed")?;
        ensure!(failed < 3, "damaged bytes were restored: {states:?}");
        ensure!(states[..failed].iter().all(|state| *state == "passed"));
        let rest = &states[failed + 1..];
        ensure!(!rest.contains(&"passed"), "{states:?}");
        let (page, _) = report(&scene)?;
        let name = key.rsplit('/').next().unwrap_or(key);
        ensure!(page.contains("This backup"), "{page}");
        ensure!(view["error"].to_string().contains(name), "{view:#}");
        ensure!(page.contains(name), "{name} is not in {page}");
        assert!(last_drill(&scene)? < 1.0, "a failed drill proves nothing");
        assert_nothing_left(&scene)?;
        fs::remove_dir_all(scene.path("report"))?;
    }
    scene.place.put(key, &good)?;
    drill(&scene, 0, &[])?;
    ensure!((last_drill(&scene)? - newest_end(&scene)?).abs() < 1.0);
    assert_nothing_left(&scene)?;
    let said = "an object with one flipped bit and one that was cut failed the drill where bytes are read, named in \
                the report; put back, it passed";
    evidence::note(28, said);
    Ok(())
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
fn check_28_a_function_that_needs_a_search_path_fails_by_name() -> Result<()> {
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
    assert_nothing_left(&scene)?;
    assert!(last_drill(&scene)? < 1.0, "a failed drill proves nothing");
    let said = "rows that a function without its search path loses failed the drill at its level 4 of 6, with \
                the table and the function by name in the report";
    evidence::note(28, said);
    Ok(())
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
fn check_28_what_comes_back_different_is_named_first() -> Result<()> {
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
    assert_nothing_left(&scene)?;
    assert!(last_drill(&scene)? < 1.0, "a failed drill proves nothing");
    let said = "one changed row of 4001 failed the comparison, its table named first in the report";
    evidence::note(28, said);
    Ok(())
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
fn check_28_a_drill_that_is_killed_is_swept_by_the_next() -> Result<()> {
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
    assert_nothing_left(&scene)?;
    let said = "a drill killed while it loaded rows left no process, and the next one removed its directory";
    evidence::note(28, said);
    Ok(())
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
