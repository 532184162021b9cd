//! A dump that cannot be stored publishes nothing: whatever the store and the way to it do.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use backup_e2e::fault::{ALWAYS, Action, Direction, Faults, Proxy, Trigger};
use backup_e2e::pg::Cluster;
use backup_e2e::s3::Kind;
use backup_e2e::sample;
use backup_e2e::scene::{SOURCE, Scene, Settings, Store, unique};

/// Uncompressed, so that the rows take several parts of an upload.
const PLAIN: &str = "compression = 'none'";

/// Longer than any of these failures may take, with all retries.
const BOUND: Duration = Duration::from_mins(2);

const MIB: u64 = 1 << 20;

fn database(cluster: &Cluster) -> Result<String> {
    let name = cluster.fresh_db(&unique("storing"))?;
    cluster.psql(&name, &sample::bulk_sql("app", "bulk", 20))?;
    Ok(name)
}

/// A scene whose later runs reach their bucket through a proxy.
fn behind_proxy(kind: Kind) -> Result<(Scene<'static>, Proxy)> {
    let cluster = Cluster::shared(17)?;
    let database = database(cluster)?;
    let mut scene = Scene::with(cluster, &database, Store::S3(kind), |settings| {
        settings.defaults = vec![PLAIN.to_owned()];
    })?;
    let proxy = Proxy::start(scene.settings.store_port)?;
    scene.settings.store_port = proxy.port();
    Ok((scene, proxy))
}

fn strike(action: Action, after_bytes: u64, hits: u32) -> Faults {
    let direction = Direction::ToServer;
    Faults {
        trigger: Some(Trigger {
            action,
            direction,
            after_bytes,
            hits,
        }),
        ..Faults::default()
    }
}

/// One run against a misbehaving store, and what is to come of it.
fn check(scene: &Scene<'_>, proxy: &Proxy, codes: &[i32], words: &[&str]) -> Result<()> {
    let before = scene.state()?;
    let run = scene.start(&["backup", SOURCE])?.finish(BOUND)?;
    let code = run.code;
    ensure!(codes.contains(&code), "code {code}: {}", run.text());
    let run = run.expect(code, words)?;
    let secret = &scene.settings.secret_key;
    ensure!(!run.text().contains(secret.as_str()), "{}", run.text());
    proxy.heal();
    proxy.cut();
    scene.assert_nothing_published(&before)?;
    // What went wrong is over, and the next run must not suffer from it.
    let again = scene.run(&["backup", SOURCE, "--json"])?;
    again.expect(0, &["success"]).map(drop)
}

fn check_broken_ways(kind: Kind) -> Result<()> {
    let (mut scene, proxy) = behind_proxy(kind)?;
    scene
        .settings
        .defaults
        .push("stall_timeout = '3s'".to_owned());
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
            &["no bytes moved for 3 s while dumping part data-rest"],
        ),
    ];
    for (name, faults, codes, words) in rows {
        proxy.set(faults);
        check(&scene, &proxy, codes, words).with_context(|| name.to_owned())?;
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

fn check_one_reset(kind: Kind) -> Result<()> {
    let (scene, proxy) = behind_proxy(kind)?;
    for direction in [Direction::ToServer, Direction::ToClient] {
        let after_bytes = match direction {
            Direction::ToServer => 5 * MIB,
            Direction::ToClient => 200,
        };
        let trigger = Trigger {
            action: Action::Reset,
            direction,
            after_bytes,
            hits: 1,
        };
        proxy.set(Faults {
            trigger: Some(trigger),
            ..Faults::default()
        });
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
    }
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn one_reset_is_made_good_by_a_retry() -> Result<()> {
    check_one_reset(Kind::SeaweedFs)
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn one_reset_before_minio_is_made_good_by_a_retry() -> Result<()> {
    check_one_reset(Kind::MinIo)
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_store_that_dies_midway_leaves_no_backup() -> Result<()> {
    let (scene, proxy) = behind_proxy(Kind::SeaweedFs)?;
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
    let manifests = |keys: &[String]| keys.iter().filter(|k| k.ends_with("manifest.json")).count();
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

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_store_that_falls_silent_ends_the_run_in_time() -> Result<()> {
    let (mut scene, proxy) = behind_proxy(Kind::SeaweedFs)?;
    scene
        .settings
        .defaults
        .push("stall_timeout = '3s'".to_owned());
    let before = scene.state()?;
    // Every connection, old and new, takes megabytes or nothing and never answers again.
    let mut run = scene.start(&["backup", SOURCE])?;
    let start = proxy.forwarded(Direction::ToServer);
    run.wait_until("the first megabyte", || {
        Ok(proxy.forwarded(Direction::ToServer) > start + MIB)
    })?;
    proxy.set(strike(Action::Blackhole, 0, ALWAYS));
    let run = run.finish(BOUND)?;
    let words = "no bytes moved for 3 s while dumping part data-rest";
    run.expect(1, &[words])?;
    scene.assert_nobody_left()?;
    proxy.heal();
    proxy.cut();
    let manifests = |keys: &[String]| keys.iter().filter(|k| k.ends_with("manifest.json")).count();
    ensure!(manifests(&scene.place.keys()?) == manifests(&before.keys));
    scene.assert_proved(scene.older())
}

type Change<'a> = &'a dyn Fn(&mut Settings);

fn check_refusals(kind: Kind) -> Result<()> {
    let cluster = Cluster::shared(17)?;
    let database = database(cluster)?;
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
    let database = database(cluster)?;
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
