//! There and back, alone and under load.

use anyhow::{Context as _, Result, ensure};
use backup_e2e::scene::wait_for_silence;
use backup_e2e::vault::id_of;
use serde_json::Value;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::stage::{GONE_LIMIT, LIVE, Stage, ensure_come_back, text, watch_aloud};

fn check_there_and_back(major: u16) -> Result<()> {
    let stage = Stage::new(major)?;
    let properties = stage.properties(LIVE)?;
    let live = stage.cluster.contents(LIVE)?;

    let view = stage.swap()?.exits(0)?.json()?;
    ensure!(
        view["swapped"] == true && view["target_database"] == LIVE,
        "{view}"
    );
    ensure!(view["compare"]["equal"] == 3, "{view}");
    let (run, kept_as) = (text(&view, "run_id")?, text(&view, "kept_as")?);
    ensure!(kept_as == format!("{LIVE}__before_{run}"), "{kept_as}");
    ensure!(stage.state()? == "saved saved", "{}", stage.state()?);
    ensure!(
        stage.properties(LIVE)? == properties,
        "{}",
        stage.properties(LIVE)?
    );
    ensure!(
        stage.cluster.contents(kept_as)? == live,
        "the old one changed"
    );

    let undone = stage.undo(run)?.exits(0)?.json()?;
    ensure!(
        undone["database"] == LIVE && undone["undone"] == run,
        "{undone}"
    );
    ensure!(stage.cluster.contents(LIVE)? == live, "not what it was");
    ensure!(
        stage.properties(LIVE)? == properties,
        "{}",
        stage.properties(LIVE)?
    );
    let again = text(&undone, "kept_as")?;
    ensure!(again.contains("__before_") && again != kept_as, "{again}");

    // An undo is a swap like any other.
    stage.undo(text(&undone, "run_id")?)?.exits(0)?;
    ensure!(stage.state()? == "saved saved", "{}", stage.state()?);

    let runs = stage.runs()?;
    let told: Vec<_> = runs.as_array().context("runs")?.iter().collect();
    let operations: Vec<_> = told.iter().map(|run| run["operation"].as_str()).collect();
    ensure!(
        operations == [Some("undo"), Some("undo"), Some("restore"), Some("backup")],
        "{operations:?}"
    );
    ensure!(
        told[1]["undone"] == run && told[2]["kept_as"] == kept_as,
        "{runs}"
    );
    let audit = stage.audit()?;
    let story: Vec<_> = audit
        .iter()
        .map(|(action, outcome, _)| format!("{action} {outcome}"))
        .collect();
    let both = |action: &str| ["started", "done"].map(|outcome| format!("{action} {outcome}"));
    ensure!(
        story == [both("replace"), both("undo"), both("undo")].concat(),
        "{story:?}"
    );
    ensure!(audit[0].2 == run && audit[1].2 == run, "{audit:?}");
    Ok(())
}

/// What a restore prints can be typed as it is, and is written down where the restore was.
#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn the_command_that_is_printed_swaps_back_and_is_recorded() -> Result<()> {
    let stage = Stage::new(17)?;
    let arguments = stage.arguments(&["--swap", "--yes"]);
    let people = arguments.into_iter().filter(|word| *word != "--json");
    let said = stage.vault.cli.run(people)?.exits(0)?.text();
    let line = said
        .lines()
        .find_map(|line| line.strip_prefix("to swap back: backup-cli "));
    let words: Vec<_> = line.context("a command")?.split(' ').collect();
    let told = stage.vault.cli.run(&words)?.exits(0)?;
    ensure!(stage.state()? == "lost lost", "{}", stage.state()?);
    ensure!(
        !told.stderr.contains("not recorded there"),
        "{}",
        told.stderr
    );
    let again = told.text();
    let again = again.split("to swap once more: backup-cli ").nth(1);
    let again: Vec<_> = again.context("a command")?.trim_end().split(' ').collect();
    let runs = stage.runs()?;
    ensure!(runs[0]["operation"] == "undo", "{runs}");
    ensure!(runs[0]["source"] == runs[1]["source"], "{runs}");
    ensure!(runs[0]["undone"] == words[1], "{runs}");

    // Without the place it works all the same, and says what is missing.
    let alone = stage.vault.cli.run(&again[..2])?.exits(0)?;
    ensure!(stage.state()? == "saved saved", "{}", stage.state()?);
    let missing = "this undo is recorded nowhere";
    ensure!(alone.stderr.contains(missing), "{}", alone.stderr);
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_swap_takes_all_that_belongs_to_the_name_and_is_undone_14() -> Result<()> {
    check_there_and_back(14)
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_swap_takes_all_that_belongs_to_the_name_and_is_undone_18() -> Result<()> {
    check_there_and_back(18)
}

/// Writes to the database for as long as `going`, over sessions that last or new ones each time.
/// `pgbench` gives up when its session is ended, so it is started again.
fn load(stage: &Stage, more: &[&str], going: &AtomicBool) -> Result<()> {
    while going.load(Ordering::Relaxed) {
        let mut command = stage.cluster.tool("pgbench", LIVE);
        command.args(["-n", "-c", "4", "-j", "2", "-t", "40"]);
        command.args(more);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.status()?;
    }
    Ok(())
}

/// Swaps to `backup` and back while clients work, and returns what both said and all saw.
fn exchange_under_load(stage: &Stage, backup: &str) -> Result<(Value, Vec<String>, Vec<String>)> {
    let going = AtomicBool::new(true);
    let lasts: [Mutex<String>; 3] = Default::default();
    // And that others write: what the load does before says nothing of what it meets.
    let all_see = |state: &str| {
        wait_for_silence(GONE_LIMIT, || {
            let last = |last: &Mutex<String>| last.lock().expect("no panic").clone();
            let behind = lasts.iter().map(last).find(|last| last != state);
            Ok(behind.map(|last| format!("somebody sees {last:?} and not {state:?}")))
        })?;
        wait_for_silence(GONE_LIMIT, || {
            let wrote = "SELECT count(*) > 0 FROM pgbench_history";
            let wrote = stage.cluster.query(LIVE, wrote)? == "t";
            Ok((!wrote).then(|| "nobody has written".to_owned()))
        })
    };
    thread::scope(|scope| {
        let watchers: Vec<_> = lasts
            .iter()
            .map(|last| scope.spawn(|| watch_aloud(stage, &going, last)))
            .collect();
        let loads = [&["-C"][..], &[]].map(|more| scope.spawn(|| load(stage, more, &going)));
        let exchange = || -> Result<Value> {
            all_see("now now")?;
            let mut arguments = stage.arguments(&["--swap", "--yes"]);
            arguments[1] = backup;
            let swap = stage.vault.cli.run(arguments)?.exits(0)?.json()?;
            all_see("lost lost")?;
            let undo = stage.undo(text(&swap, "run_id")?)?.exits(0)?.json()?;
            all_see("now now")?;
            Ok(undo)
        };
        let undo = exchange();
        going.store(false, Ordering::Relaxed);
        let panicked = |_| anyhow::anyhow!("a client panicked");
        for load in loads {
            load.join().map_err(panicked)??;
        }
        let mut errors = Vec::new();
        let mut seen = Vec::new();
        for watcher in watchers {
            let (states, failures) = watcher.join().map_err(panicked)?;
            seen.push(states.join(", "));
            errors.extend(failures);
        }
        Ok((undo?, seen, errors))
    })
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn under_load_nobody_sees_a_half_state() -> Result<()> {
    let stage = Stage::new(17)?;
    let mut init = stage.cluster.tool("pgbench", LIVE);
    ensure!(
        init.args(["-i", "-q"])
            .stderr(Stdio::null())
            .status()?
            .success()
    );
    let backup = stage.vault.back_up(LIVE, &[])?;
    let backup = id_of(&backup)?;
    // From here on, what the backup has is 'lost', and live goes on.
    let later = "BEGIN; UPDATE a SET state = 'now'; UPDATE b SET state = 'now'; COMMIT";
    stage.cluster.psql(LIVE, later)?;
    let (undo, seen, errors) = exchange_under_load(&stage, backup)?;
    for seen in seen {
        ensure!(seen == "now now, lost lost, now now", "{seen}");
    }
    // Those in the middle of it are told to come back.
    ensure_come_back(&errors)?;
    // Every transaction of the load is in one database or the other, whole.
    for database in [LIVE, text(&undo, "kept_as")?] {
        let sums = stage.cluster.query(
            database,
            "SELECT (SELECT count(*) > 0 FROM pgbench_history),
                    (SELECT sum(abalance) FROM pgbench_accounts)
                  = (SELECT coalesce(sum(delta), 0) FROM pgbench_history)",
        )?;
        ensure!(sums == "t|t", "{database}: {sums}");
    }
    Ok(())
}
