//! A run that is stopped, in order or by force, leaves nothing that counts.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use backup_e2e::evidence;
use backup_e2e::fake_tools::{Calls, FakeTools};
use backup_e2e::fault::{ALWAYS, Action, Direction, Faults, Proxy};
use backup_e2e::pg::{Cluster, quote_literal};
use backup_e2e::s3::Kind;
use backup_e2e::sample;
use backup_e2e::scene::{Run, SOURCE, Scene, State, Store, unique};
use nix::sys::signal::Signal;

const MIB: u64 = 1 << 20;

/// How long an asked run may take to end.
const GRACE: Duration = Duration::from_secs(10);

/// Uncompressed, so that the rows take several parts of an upload.
const PLAIN: &str = "compression = 'none'";

fn slow(bytes_per_second: u64) -> Faults {
    Faults {
        bytes_per_second: Some(bytes_per_second),
        ..Faults::default()
    }
}

/// A scene whose later runs reach their bucket slowly.
fn slow_scene(kind: Kind) -> Result<(Scene<'static>, Proxy)> {
    let cluster = Cluster::shared(17)?;
    let database = cluster.fresh_db(&unique("stopped"))?;
    // The first backup is small, so that it is soon proved.
    let mut scene = Scene::with(cluster, &database, Store::S3(kind), |settings| {
        settings.defaults = vec![PLAIN.to_owned()];
    })?;
    cluster.psql(&database, &sample::bulk_sql("app", "bulk", 40))?;
    let proxy = Proxy::start(scene.settings.store_port)?;
    scene.settings.store_port = proxy.port();
    Ok((scene, proxy))
}

/// A moment of a run.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// It has been started.
    Start,
    /// It talks to the store.
    Connected,
    /// It has sent so many MiB, of about 30.
    Sent(u64),
}

/// When a run is asked to end: before it has done anything, and until so little is left that it might
/// be done before it is asked.
const MOMENTS: usize = 20;

fn moments() -> impl Iterator<Item = Moment> {
    let begun = [Moment::Start, Moment::Connected];
    begun
        .into_iter()
        .chain((0..).map(Moment::Sent))
        .take(MOMENTS)
}

/// Starts a backup and waits for the moment.
fn run_until(scene: &Scene<'_>, proxy: &Proxy, moment: Moment) -> Result<Run> {
    let (connections, sent) = (proxy.connections(), proxy.forwarded(Direction::ToServer));
    let mut run = scene.start(&["backup", SOURCE])?;
    let name = format!("{moment:?}");
    match moment {
        // Not the programs that start it: they may have been told to ignore the signal.
        Moment::Start => {
            let comm = format!("/proc/{}/comm", run.pid());
            run.wait_until(&name, || {
                Ok(fs::read_to_string(&comm)?.trim() == "backup-cli")
            })?;
        }
        Moment::Connected => {
            run.wait_until(&name, || Ok(proxy.connections() > connections))?;
        }
        Moment::Sent(megabytes) => run.wait_until(&name, || {
            Ok(proxy.forwarded(Direction::ToServer) > sent + megabytes * MIB)
        })?,
    }
    Ok(run)
}

/// Asks one run after another to end by `signal`, `step` moments apart; returns how many were
/// asked, how many of them had an upload open, and the longest that one took.
fn ask(kind: Kind, signal: Signal, step: usize) -> Result<(usize, usize, Duration)> {
    let (scene, proxy) = slow_scene(kind)?;
    let (mut asked, mut open, mut longest) = (0, 0, Duration::ZERO);
    for moment in moments().step_by(step) {
        proxy.set(slow(8 * MIB));
        let before = scene.state()?;
        let run = run_until(&scene, &proxy, moment)?;
        open += usize::from(!scene.place.uploads()?.is_empty());
        let at = Instant::now();
        run.signal(signal)?;
        let check = run.finish(GRACE).and_then(|done| {
            longest = longest.max(at.elapsed());
            let done = done.expect(128 + signal as i32, &[])?;
            // Before it listens it dies without a word, like any program.
            let early = matches!(moment, Moment::Start);
            let said = done
                .stderr
                .contains("stopped by a signal; nothing was published");
            ensure!(early || said, "{}", done.stderr);
            proxy.heal();
            assert_nothing_left(&scene, &before)
        });
        check.with_context(|| format!("{signal} at {moment:?}"))?;
        asked += 1;
    }
    scene.assert_proved(scene.older())?;
    scene.run(&["backup", SOURCE])?.expect(0, &[])?;
    Ok((asked, open, longest))
}

/// No object, no open upload, no lease, no process, no session and no file.
fn assert_nothing_left(scene: &Scene<'_>, before: &State) -> Result<()> {
    scene.assert_nobody_left()?;
    let after = scene.state()?;
    ensure!(after == *before, "{before:?}\n{after:?}");
    for key in scene.place.keys()? {
        // What a store is tried with stays for a day when its run is stopped at that moment.
        if key.contains("_leases/") && !key.contains("_leases/probe/") {
            let text = String::from_utf8(scene.place.get(&key)?)?;
            let lease: serde_json::Value =
                serde_json::from_str(&text).with_context(|| format!("{key}: {text:?}"))?;
            ensure!(lease["state"] == "released", "{key}: {lease}");
        }
    }
    assert_no_files(scene)
}

fn check_asked(kind: Kind, step: usize) -> Result<()> {
    let (asked, open, longest) = ask(kind, Signal::SIGTERM, step)?;
    ensure!(asked == MOMENTS.div_ceil(step));
    ensure!(
        open * 4 >= asked,
        "only {open} of {asked} were in an upload"
    );
    evidence::note(
        21,
        format!(
            "SIGTERM at {asked} moments of a backup into {kind:?}, {open} of them within uploads: \
             143 each time, after {:.1} s at most, no upload open, no object of a backup left, the \
             lease free",
            longest.as_secs_f64()
        ),
    );
    Ok(())
}

fn assert_no_files(scene: &Scene<'_>) -> Result<()> {
    let left: Vec<_> = fs::read_dir(scene.tmp())?.flatten().collect();
    ensure!(left.is_empty(), "temporary files: {left:?}");
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_21_an_asked_run_stops_soon_and_cleans_up() -> Result<()> {
    check_asked(Kind::SeaweedFs, 1)
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_21_an_asked_run_stops_soon_and_cleans_minio_up() -> Result<()> {
    check_asked(Kind::MinIo, 3)
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn an_interrupted_run_stops_soon_and_cleans_up() -> Result<()> {
    ask(Kind::SeaweedFs, Signal::SIGINT, 4).map(drop)
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_21_a_run_whose_store_is_away_stops_when_asked() -> Result<()> {
    let (scene, proxy) = slow_scene(Kind::SeaweedFs)?;
    let refuse = Faults {
        refuse: true,
        ..Faults::default()
    };
    let mut longest = Duration::ZERO;
    for command in ["backup", "restore", "verify", "list", "show"] {
        proxy.set(refuse.clone());
        let (older, target) = (scene.older(), scene.target());
        let arguments = match command {
            "backup" => vec![command, SOURCE],
            "restore" => vec![command, older, "--target-db", &target],
            "list" => vec![command, "--json"],
            _ => vec![command, older],
        };
        let before = scene.state()?;
        let connections = proxy.connections();
        let mut run = scene.start(&arguments)?;
        let context = || format!("a try of {command}");
        run.wait_until(&context(), || Ok(proxy.connections() > connections + 1))?;
        let at = Instant::now();
        run.signal(Signal::SIGTERM)?;
        let done = run.finish(GRACE).and_then(|run| run.expect(143, &[]));
        let done = done.with_context(|| command.to_owned())?;
        longest = longest.max(at.elapsed());
        if command == "list" {
            let error: serde_json::Value = serde_json::from_str(&done.stdout)?;
            ensure!(error["error"]["kind"] == "cancelled", "{error}");
        }
        proxy.heal();
        scene.assert_nothing_published(&before)?;
    }
    evidence::note(
        21,
        format!(
            "SIGTERM for backup, restore, verify, list and show while the store is away: 143 after \
             {:.1} s at most",
            longest.as_secs_f64()
        ),
    );
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_run_that_is_asked_twice_does_not_wait_for_the_store() -> Result<()> {
    let (scene, proxy) = slow_scene(Kind::SeaweedFs)?;
    proxy.set(slow(4 * MIB));
    let before = manifests(&scene)?;
    let mut run = run_until(&scene, &proxy, Moment::Sent(1))?;
    // Nothing that it has stored can be removed any more.
    proxy.set(Faults::after(
        Action::Blackhole,
        Direction::ToServer,
        0,
        ALWAYS,
    ));
    // Those that come right after the first mean the same.
    let deadline = Instant::now() + GRACE;
    while !run.has_ended()? {
        ensure!(Instant::now() < deadline, "it does not end");
        run.signal(Signal::SIGINT)?;
        std::thread::sleep(Duration::from_secs(1));
    }
    run.finish(GRACE)?
        .expect(130, &["once more to end at once", "without cleaning up"])?;
    scene.assert_nobody_left()?;
    proxy.heal();
    proxy.cut();
    ensure!(manifests(&scene)? == before, "a new manifest");
    scene.run(&["backup", SOURCE])?.expect(0, &[]).map(drop)
}

/// How many backups there are: what bars the manifest of a killed run is none.
fn manifests(scene: &Scene<'_>) -> Result<usize> {
    let mut count = 0;
    for key in scene.place.keys()? {
        if key.ends_with("/manifest.json") {
            let text = String::from_utf8(scene.place.get(&key)?)?;
            count += usize::from(!text.contains("\"barred_at\""));
        }
    }
    Ok(count)
}

fn check_killed(kind: Kind) -> Result<()> {
    let (scene, proxy) = slow_scene(kind)?;
    for moment in [
        Moment::Start,
        Moment::Connected,
        Moment::Sent(1),
        Moment::Sent(9),
        Moment::Sent(18),
    ] {
        proxy.set(slow(8 * MIB));
        let before = manifests(&scene)?;
        let run = run_until(&scene, &proxy, moment)?;
        run.signal(Signal::SIGKILL)?;
        let check = run.finish(GRACE).and_then(|done| {
            done.expect(137, &[])?;
            scene.assert_nobody_left()?;
            ensure!(manifests(&scene)? == before, "a new manifest");
            proxy.heal();
            scene.assert_proved(scene.older())?;
            scene.run(&["backup", SOURCE])?.expect(0, &[])
        });
        check.with_context(|| format!("SIGKILL at {moment:?}"))?;
        ensure!(manifests(&scene)? == before + 1);
    }
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_killed_run_leaves_no_child_and_no_manifest() -> Result<()> {
    check_killed(Kind::SeaweedFs)
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_killed_run_waits_for_no_lock_any_more() -> Result<()> {
    let cluster = Cluster::shared(17)?;
    let database = cluster.fresh_db(&unique("locked"))?;
    cluster.psql(&database, "CREATE TABLE t AS SELECT 1 AS a")?;
    let scene = Scene::new(cluster, &database, Store::Local)?;
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        let mut command = cluster.tool("psql", &database);
        command.args(["-X", "-q", "-c", "BEGIN; LOCK TABLE t; SELECT pg_sleep(60)"]);
        let mut holder = command.spawn()?;
        let waiting = format!(
            "SELECT count(*) FROM pg_locks AS l JOIN pg_database AS d ON d.oid = l.database
             WHERE d.datname = {} AND l.mode = 'AccessShareLock' AND NOT l.granted",
            quote_literal(&database)
        );
        let held = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)%'
                    AND wait_event = 'PgSleep'";
        while cluster.query("postgres", held)? == "0" {
            std::thread::yield_now();
        }
        let mut run = scene.start(&["backup", SOURCE])?;
        run.wait_until("the lock", || {
            Ok(cluster.query("postgres", &waiting)? == "1")
        })?;
        run.signal(signal)?;
        run.finish(GRACE)?.expect(128 + signal as i32, &[])?;
        let gone = backup_e2e::scene::wait_for_silence(GRACE, || {
            let left = cluster.query("postgres", &waiting)?;
            Ok((left != "0").then(|| "waits for the lock".to_owned()))
        });
        holder.kill()?;
        holder.wait()?;
        let ended = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                     WHERE query LIKE '%pg_sleep(60)%' AND pid <> pg_backend_pid()";
        cluster.query("postgres", ended)?;
        gone.with_context(|| format!("{signal}"))?;
        scene.assert_nobody_left()?;
    }
    Ok(())
}

/// Passes rows on, and stops after some.
const PAUSED_LOAD: &str = r#"exec "$real" "$@" < <(
    head -c 4000000; touch "$dir/paused"; until [ -e "$dir/go" ]; do sleep 0.05; done; cat)"#;

/// A scene and tools with which a restore stands still inside the load of rows.
fn paused_restore() -> Result<(Scene<'static>, FakeTools, &'static Cluster)> {
    let cluster = Cluster::shared(17)?;
    let database = cluster.fresh_db(&unique("unrestored"))?;
    cluster.psql(&database, &sample::bulk_sql("app", "bulk", 20))?;
    let mut scene = Scene::new(cluster, &database, Store::S3(Kind::SeaweedFs))?;
    let fakes = FakeTools::new(cluster.bin_dir())?;
    // Rows come through a pipe; definitions lie in a file.
    let body = format!("[ -p /dev/stdin ] || exec \"$real\" \"$@\"\n{PAUSED_LOAD}");
    fakes.misbehave("pg_restore", Calls::All, &body)?;
    fakes.bin_dir().clone_into(&mut scene.settings.bin_dir);
    Ok((scene, fakes, cluster))
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_restore_that_is_stopped_leaves_no_database() -> Result<()> {
    let (scene, fakes, cluster) = paused_restore()?;
    let target = scene.target();
    let contents = cluster.contents(&scene.settings.database)?;
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let before = scene.state()?;
        let flag = fakes.flag("paused");
        let mut run = scene.start(&["restore", scene.older(), "--target-db", &target])?;
        run.wait_until("rows", || Ok(flag.exists()))?;
        ensure!(
            cluster.has_db(&target)?,
            "the target is made before rows are loaded"
        );
        run.signal(signal)?;
        run.finish(GRACE)?
            .expect(128 + signal as i32, &["stopped by a signal"])?;
        ensure!(
            !cluster.has_db(&target)?,
            "the target is left after {signal}"
        );
        scene.assert_nothing_published(&before)?;
        assert_no_files(&scene)?;
        fs::remove_file(&flag)?;
    }
    ensure!(cluster.contents(&scene.settings.database)? == contents);
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_restore_that_is_killed_leaves_a_marked_database_at_most() -> Result<()> {
    let (scene, fakes, cluster) = paused_restore()?;
    let target = scene.target();
    let contents = cluster.contents(&scene.settings.database)?;
    let flag = fakes.flag("paused");
    let mut run = scene.start(&["restore", scene.older(), "--target-db", &target])?;
    run.wait_until("rows", || Ok(flag.exists()))?;
    run.signal(Signal::SIGKILL)?;
    run.finish(GRACE)?.expect(137, &[])?;
    // What feeds the tool is of the test; it must not outlive the tool either.
    fs::write(fakes.flag("go"), "")?;
    scene.assert_nobody_left()?;
    ensure!(cluster.contents(&scene.settings.database)? == contents);
    let mark = format!(
        "SELECT coalesce(shobj_description(oid, 'pg_database'), '') FROM pg_database
         WHERE datname = {}",
        quote_literal(&target)
    );
    let mark = cluster.query("postgres", &mark)?;
    ensure!(
        mark.contains("restore of") && mark.contains(scene.older()),
        "{mark:?}"
    );
    // It stands in the way of the next one, and nothing but its owner may remove it.
    let words = [target.as_str(), "exists"];
    scene
        .run(&["restore", scene.older(), "--target-db", &target])?
        .expect(12, &words)?;
    cluster.drop_db(&target)
}
