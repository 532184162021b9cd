//! A rehearsal proves what it says, finds what is wrong, and leaves nothing behind.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use backup_e2e::cli::Cli;
use backup_e2e::drills::{
    SHOP, assert_nothing_left, assert_with, back_up, drill, report, scene, states, three_sources,
};
use backup_e2e::pg::Cluster;
use backup_e2e::scene::SOURCE;
use serde_json::{Value, json};

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
        .push("assertion_timeout = '10s'".to_owned());
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
            Some("no answer within 10 s"),
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
