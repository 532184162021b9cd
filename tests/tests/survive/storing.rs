//! A dump that cannot be stored publishes nothing: whatever the store and the way to it do.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use backup_e2e::evidence;
use backup_e2e::fault::{ALWAYS, Action, Direction, Faults, Proxy};
use backup_e2e::pg::Cluster;
use backup_e2e::s3::Kind;
use backup_e2e::sample;
use backup_e2e::scene::{SOURCE, Scene, Settings, Store, unique};

/// Uncompressed, so that the rows take several parts of an upload.
const PLAIN: &str = "compression = 'none'";

/// Longer than any of these failures may take, with all retries.
const BOUND: Duration = Duration::from_mins(4);

const MIB: u64 = 1 << 20;

/// How many megabytes there are, about.
const ROWS: u32 = 20;

/// What `check_11` waits for.
const STALL: Duration = Duration::from_secs(8);

/// How long a store that does not answer is asked to remove what it has.
const CLEANING: Duration = Duration::from_secs(105);

/// What a machine that does other things besides may take longer.
const SLACK: Duration = Duration::from_secs(10);

fn database(cluster: &Cluster, megabytes: u32) -> Result<String> {
    let name = cluster.fresh_db(&unique("survive_storing"))?;
    cluster.psql(&name, &sample::bulk_sql("app", "bulk", megabytes))?;
    Ok(name)
}

/// A scene whose later runs reach their bucket through a proxy.
fn behind_proxy(kind: Kind, megabytes: u32) -> Result<(Scene<'static>, Proxy)> {
    let cluster = Cluster::shared(17)?;
    let database = database(cluster, megabytes)?;
    let mut scene = Scene::with(cluster, &database, Store::S3(kind), |settings| {
        settings.defaults = vec![PLAIN.to_owned()];
    })?;
    let proxy = Proxy::start(scene.settings.store_port)?;
    scene.settings.store_port = proxy.port();
    Ok((scene, proxy))
}

fn strike(action: Action, after_bytes: u64, hits: u32) -> Faults {
    Faults::after(action, Direction::ToServer, after_bytes, hits)
}

/// One run against a misbehaving store, and what is to come of it.
fn check(scene: &mut Scene<'_>, proxy: &Proxy, codes: &[i32], words: &[&str]) -> Result<()> {
    let before = scene.state()?;
    let patient = scene.settings.defaults.clone();
    let limit = "stall_timeout = '10s'".to_owned();
    scene.settings.defaults.push(limit);
    let run = scene.start(&["backup", SOURCE])?.finish(BOUND)?;
    scene.settings.defaults = patient;
    let code = run.code;
    ensure!(codes.contains(&code), "code {code}: {}", run.text());
    let run = run.expect(code, words)?;
    let secret = &scene.settings.secret_key;
    ensure!(!run.text().contains(secret.as_str()), "{}", run.text());
    proxy.heal();
    proxy.cut();
    scene.assert_nothing_published(&before)?;
    // What went wrong is over, and the next run must not suffer from it, nor from a pause of this machine.
    let again = scene.run(&["backup", SOURCE, "--json"])?;
    again.expect(0, &["success"]).map(drop)
}

fn check_broken_ways(kind: Kind) -> Result<()> {
    let (mut scene, proxy) = behind_proxy(kind, ROWS)?;
    let rows: [(&str, Faults, &[i32], &[&str]); 4] = [
        (
            "refused connections",
            Faults {
                refuse: true,
                ..Faults::default()
            },
            &[8],
            &["repository.json"],
        ),
        (
            "a reset in each upload",
            strike(Action::Reset, 3 * MIB, ALWAYS),
            &[8, 1],
            &["data-rest"],
        ),
        (
            "an early close in each upload",
            strike(Action::Close, 3 * MIB, ALWAYS),
            &[8, 1],
            &["data-rest"],
        ),
        (
            "a black hole in each upload",
            strike(Action::Blackhole, 3 * MIB, ALWAYS),
            &[1],
            &["no bytes moved for 10 s while dumping part data-rest"],
        ),
    ];
    for (name, faults, codes, words) in rows {
        proxy.set(faults);
        check(&mut scene, &proxy, codes, words).with_context(|| name.to_owned())?;
    }
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_broken_way_to_the_store_publishes_nothing() -> Result<()> {
    check_broken_ways(Kind::SeaweedFs)
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_broken_way_to_minio_publishes_nothing() -> Result<()> {
    check_broken_ways(Kind::MinIo)
}

/// A reset of a part on its way, and one of an answer: how many runs went on all the same.
fn check_one_reset(kind: Kind) -> Result<u32> {
    let (scene, proxy) = behind_proxy(kind, ROWS)?;
    let mut good = 0;
    for direction in [Direction::ToServer, Direction::ToClient] {
        let after_bytes = match direction {
            Direction::ToServer => 5 * MIB,
            Direction::ToClient => 200,
        };
        proxy.set(Faults::after(Action::Reset, direction, after_bytes, 1));
        let struck = proxy.struck();
        let before = scene.state()?;
        let run = scene.start(&["backup", SOURCE, "--json"])?.finish(BOUND)?;
        let run = run.expect(0, &["success"])?;
        ensure!(proxy.struck() == struck + 1, "the fault did not strike");
        let view: serde_json::Value = serde_json::from_str(&run.stdout)?;
        let id = view["id"].as_str().context("an id")?;
        scene.assert_nobody_left()?;
        scene.assert_proved(id)?;
        ensure!(scene.place.uploads()? == before.uploads, "an open upload");
        let made = scene.state()?.keys.len() - before.keys.len();
        ensure!(made == scene.objects_of(id)?.len(), "{made} objects");
        good += 1;
    }
    Ok(good)
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_12_one_reset_is_made_good_by_a_retry() -> Result<()> {
    let good = check_one_reset(Kind::SeaweedFs)?;
    evidence::note(
        12,
        format!("{good} backups through a connection that was reset in the middle, each verified"),
    );
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn one_reset_before_minio_is_made_good_by_a_retry() -> Result<()> {
    check_one_reset(Kind::MinIo).map(drop)
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_store_that_dies_midway_leaves_no_backup() -> Result<()> {
    let (scene, proxy) = behind_proxy(Kind::SeaweedFs, ROWS)?;
    let before = scene.state()?;
    proxy.set(Faults {
        bytes_per_second: Some(4 << 20),
        ..Faults::default()
    });
    let start = proxy.forwarded(Direction::ToServer);
    let mut run = scene.start(&["backup", SOURCE])?;
    run.wait_until("some megabytes", || {
        Ok(proxy.forwarded(Direction::ToServer) > start + 5 * MIB)
    })?;
    proxy.set(Faults {
        refuse: true,
        ..Faults::default()
    });
    proxy.cut();
    let run = run.finish(BOUND)?.expect(8, &["data-rest"])?;
    scene.assert_nobody_left()?;
    proxy.heal();
    // The upload could not be aborted, since nobody was there to be told; the run says so.
    let after = scene.state()?;
    ensure!(
        manifests(&after.keys) == manifests(&before.keys),
        "{:?}",
        after.keys
    );
    let left = after.uploads.len() + after.keys.len() - before.uploads.len() - before.keys.len();
    let said = run.stderr.contains("could not be removed") || run.stderr.contains("left behind");
    ensure!(
        left == 0 || said,
        "{left} objects are left without a word: {}",
        run.stderr
    );
    scene.assert_proved(scene.older())?;
    let again = scene.run(&["backup", SOURCE, "--json"])?;
    again.expect(0, &["success"]).map(drop)
}

/// Starts a backup whose store falls silent once 10 MB have gone out: `faults` from then on, or
/// from the start. How long it took until the server was free again, and until the end.
fn fall_silent(faults: Faults, at_once: bool) -> Result<(Duration, Duration)> {
    let (mut scene, proxy) = behind_proxy(Kind::SeaweedFs, 80)?;
    let limit = format!("stall_timeout = '{}s'", STALL.as_secs());
    scene.settings.defaults.push(limit);
    let published = manifests(&scene.place.keys()?);
    let uploads = scene.place.uploads()?;
    // So slow that the dump is still under way.
    let slow = Faults {
        bytes_per_second: Some(4 << 20),
        ..Faults::default()
    };
    proxy.set(if at_once { faults.clone() } else { slow });
    let start = proxy.forwarded(Direction::ToServer);
    let mut run = scene.start(&["backup", SOURCE])?;
    run.wait_until("10 MB", || {
        Ok(proxy.forwarded(Direction::ToServer) > start + 10_000_000)
    })?;
    let sessions = scene.sessions()?;
    ensure!(
        sessions.contains("|active|COPY "),
        "nobody dumps: {sessions}"
    );
    if !at_once {
        proxy.set(faults);
    }
    let silent = Instant::now();
    while !scene.sessions()?.is_empty() {
        ensure!(silent.elapsed() < BOUND, "the transaction has no end");
        thread::sleep(Duration::from_millis(50));
    }
    let freed = silent.elapsed();
    let run = run.finish(BOUND)?;
    let ended = silent.elapsed();
    let words = format!(
        "no bytes moved for {} s while dumping part data-",
        STALL.as_secs()
    );
    run.expect(1, &[&words])?;
    scene.assert_nobody_left()?;
    proxy.heal();
    proxy.cut();
    ensure!(manifests(&scene.place.keys()?) == published, "published");
    if at_once {
        ensure!(scene.place.uploads()? == uploads, "an open upload");
    }
    scene.assert_proved(scene.older())?;
    let again = scene.run(&["backup", SOURCE, "--json"])?;
    again.expect(0, &["success"])?;
    Ok((freed, ended))
}

/// The connections stay and nobody answers on them: on those that have carried much, or on all, new
/// ones too, so that not even an upload can be removed.
#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_11_a_store_that_falls_silent_ends_the_run_in_time() -> Result<()> {
    for (name, after_bytes, at_once) in [
        ("connections that carried 5 MB", 5_100_000, true),
        ("every connection", 0, false),
    ] {
        let faults = strike(Action::Blackhole, after_bytes, ALWAYS);
        let (freed, ended) = fall_silent(faults, at_once).with_context(|| name.to_owned())?;
        // As 40 s are to a limit of 20 s.
        let bound = STALL * 2 + SLACK;
        ensure!(freed < bound, "{name}: freed after {freed:?}");
        let bound = if at_once { bound } else { bound + CLEANING };
        ensure!(ended < bound, "{name}: ended after {ended:?}");
        evidence::note(
            11,
            format!(
                "{name} silent after 10 MB, with a stall limit of {} s: {:.1} s later the dump's \
                 transaction was gone, {:.1} s later the run had failed with 1 and published nothing",
                STALL.as_secs(),
                freed.as_secs_f64(),
                ended.as_secs_f64()
            ),
        );
    }
    Ok(())
}

fn manifests(keys: &[String]) -> usize {
    keys.iter()
        .filter(|key| key.ends_with("/manifest.json"))
        .count()
}

type Change<'a> = &'a dyn Fn(&mut Settings);

fn check_refusals(kind: Kind) -> Result<()> {
    let cluster = Cluster::shared(17)?;
    let database = database(cluster, ROWS)?;
    let mut scene = Scene::new(cluster, &database, Store::S3(kind))?;
    let right = scene.settings.clone();
    let rows: [(&str, Change<'_>, &[&str]); 3] = [
        (
            "wrong bucket",
            &|s| "nobody-made-this".clone_into(&mut s.store),
            &["NoSuchBucket", "create the bucket"],
        ),
        (
            "wrong secret",
            &|s| "wr0ng/secret+canary".clone_into(&mut s.secret_key),
            &["SignatureDoesNotMatch", "secret access key is wrong"],
        ),
        (
            "wrong key id",
            &|s| "nobody".clone_into(&mut s.access_key),
            &["InvalidAccessKeyId"],
        ),
    ];
    for (name, change, words) in rows {
        scene.settings = right.clone();
        change(&mut scene.settings);
        let secret = scene.settings.secret_key.clone();
        let before = scene.state()?;
        for arguments in [&["backup", SOURCE][..], &["backup", SOURCE, "-v", "--json"]] {
            let run = scene.start(arguments)?.finish(BOUND);
            let check = run.and_then(|run| {
                let run = run.expect(8, words)?;
                ensure!(!run.text().contains(&secret), "{}", run.text());
                scene.assert_nothing_published(&before)
            });
            check.with_context(|| name.to_owned())?;
        }
    }
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_store_that_refuses_is_quoted() -> Result<()> {
    check_refusals(Kind::SeaweedFs)
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_refusal_of_minio_is_quoted() -> Result<()> {
    check_refusals(Kind::MinIo)
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_place_that_cannot_be_made_is_named() -> Result<()> {
    let cluster = Cluster::shared(17)?;
    let database = database(cluster, ROWS)?;
    let mut scene = Scene::new(cluster, &database, Store::Local)?;
    let before = scene.state()?;
    let file = scene.path("a-file");
    fs::write(&file, "content")?;
    for (store, words) in [
        ("/nonexistent/mount/store", ["does not exist", "is mounted"]),
        (&*file.display().to_string(), ["a-file", "directory"]),
    ] {
        store.clone_into(&mut scene.settings.store);
        let run = scene.start(&["backup", SOURCE])?.finish(BOUND)?;
        run.expect(8, &words)?;
        scene.assert_nothing_published(&before)?;
    }
    ensure!(fs::read_to_string(&file)? == "content");
    Ok(())
}
