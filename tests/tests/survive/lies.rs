//! What S3 servers do to requests, before a real one: a backup outlasts it, or fails in time and
//! leaves nothing.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use backup_core::store::StoreKey;
use backup_e2e::evidence;
use backup_e2e::fake_tools::{Calls, FakeTools};
use backup_e2e::pg::Cluster;
use backup_e2e::s3::{Kind, Server};
use backup_e2e::s3_fault::{Act, Hits, Request, Rule, S3Proxy};
use backup_e2e::sample;
use backup_e2e::scene::{SOURCE, Scene, Store, unique};
use backup_store::{Limits, StoreConfig, StoreOptions};
use backup_testing::bodies;
use chrono::TimeDelta;
use futures::StreamExt as _;

/// Uncompressed, so that the rows take several parts of an upload.
const PLAIN: &str = "compression = 'none'";

/// Longer than any of these failures may take, with all retries.
const BOUND: Duration = Duration::from_mins(2);

const MIB: u64 = 1 << 20;

/// A scene whose later runs reach their bucket through the proxy.
pub(super) fn behind_proxy(retry_timeout: &str) -> Result<(Scene<'static>, S3Proxy)> {
    behind_proxy_of(20, retry_timeout)
}

fn behind_proxy_of(megabytes: u32, retry_timeout: &str) -> Result<(Scene<'static>, S3Proxy)> {
    let cluster = Cluster::shared(17)?;
    let database = cluster.fresh_db(&unique("survive_lies"))?;
    cluster.psql(&database, &sample::bulk_sql("app", "bulk", megabytes))?;
    let mut scene = Scene::with(cluster, &database, Store::S3(Kind::SeaweedFs), |settings| {
        settings.defaults = vec![PLAIN.to_owned()];
        retry_timeout.clone_into(&mut settings.retry_timeout);
    })?;
    let proxy = S3Proxy::start(scene.settings.store_port)?;
    scene.settings.store_port = proxy.port();
    Ok((scene, proxy))
}

/// The same, whose first backup is small, so that it is soon proved; the rows of later ones take two
/// parts.
fn grown_behind_proxy(retry_timeout: &str) -> Result<(Scene<'static>, S3Proxy)> {
    let (scene, proxy) = behind_proxy_of(1, retry_timeout)?;
    let sql = sample::bulk_sql("grown", "bulk", 11);
    Cluster::shared(17)?.psql(&scene.settings.database, &sql)?;
    Ok((scene, proxy))
}

type Kinds = fn(&Request) -> bool;

/// What goes wrong in one run: which requests, how, how often.
type Mishaps = Vec<(Kinds, Act, u32)>;

/// Four runs with everything that a retry has to make good.
fn mishaps() -> [(&'static str, Mishaps); 4] {
    let slow = || Act::error(503, "SlowDown");
    let broken = || Act::error(500, "InternalError");
    let lie = || Act::error(200, "InternalError");
    [
        (
            "a server that is asked too much",
            vec![
                (Request::is_part, slow(), 5),
                (Request::is_begin, Act::error(429, "TooManyRequests"), 2),
                (Request::is_commit, slow(), 5),
            ],
        ),
        (
            "resets inside of parts, lost answers to parts, and completions that failed",
            vec![
                (Request::is_part, Act::ResetAfter(3 * MIB), 2),
                (Request::is_part, Act::LoseAnswer, 2),
                (Request::is_complete, lie(), 2),
                (Request::is_commit, Act::LoseAnswer, 1),
            ],
        ),
        (
            "completions that were done and are called failed",
            vec![
                (
                    Request::is_complete,
                    Act::error_after(200, "InternalError"),
                    1,
                ),
                (
                    Request::is_commit,
                    Act::error_after(500, "InternalError"),
                    1,
                ),
                (Request::is_get, broken(), 2),
            ],
        ),
        (
            "lost answers to what was done",
            vec![
                (Request::is_complete, Act::LoseAnswer, 1),
                (Request::is_commit, Act::error_after(503, "SlowDown"), 2),
                (Request::is_begin, broken(), 2),
            ],
        ),
    ]
}

/// A run that must succeed; the id of its backup.
pub(super) fn backs_up(scene: &Scene<'_>) -> Result<String> {
    let before = scene.state()?;
    let run = scene.start(&["backup", SOURCE, "--json"])?.finish(BOUND)?;
    let run = run.expect(0, &["success"])?;
    let view: serde_json::Value = serde_json::from_str(&run.stdout)?;
    let id = view["id"].as_str().context("an id")?;
    scene.assert_nobody_left()?;
    scene.assert_proved(id)?;
    ensure!(scene.place.uploads()? == before.uploads, "an open upload");
    let made = scene.state()?.keys.len() - before.keys.len();
    ensure!(made == scene.objects_of(id)?.len(), "{made} objects");
    Ok(id.to_owned())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_12_a_backup_outlasts_what_s3_servers_do() -> Result<()> {
    let (scene, proxy) = grown_behind_proxy("60s")?;
    let (mut runs, mut struck) = (0, 0);
    for (name, mishaps) in mishaps() {
        proxy.clear();
        let planned: Vec<(u32, Hits)> = mishaps
            .into_iter()
            .map(|(kind, act, times)| (times, proxy.add(Rule::new(kind, act).times(times))))
            .collect();
        backs_up(&scene).with_context(|| name.to_owned())?;
        for (times, hits) in &planned {
            ensure!(
                hits.count() == *times,
                "{name}: {} of {times}",
                hits.count()
            );
            struck += times;
        }
        runs += 1;
    }
    evidence::note(
        12,
        format!(
            "{runs} backups through {struck} refused, reset, unanswered or falsely failed requests \
             to a real server (503, 429, 500, 200 with an error, answers lost after the manifest \
             was written): each succeeded and verified"
        ),
    );
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_12_a_server_that_never_recovers_ends_the_run_within_its_budget() -> Result<()> {
    let (scene, proxy) = grown_behind_proxy("2s")?;
    let mut took = Vec::new();
    let rows: [(&str, Kinds, Act); 4] = [
        ("parts", Request::is_part, Act::error(503, "SlowDown")),
        (
            "completion",
            Request::is_complete,
            Act::error(503, "SlowDown"),
        ),
        (
            "lies",
            Request::is_complete,
            Act::error(200, "InternalError"),
        ),
        ("begin", Request::is_begin, Act::error(503, "SlowDown")),
    ];
    for (name, kind, act) in rows {
        let hits = proxy.add(Rule::new(kind, act));
        let before = scene.state()?;
        let run = scene.start(&["backup", SOURCE])?.finish(BOUND)?;
        took.push(format!("{:.0} s ({name})", run.elapsed.as_secs_f64()));
        let check = run.expect(8, &["data-rest"]).and_then(|_| {
            ensure!(hits.count() > 1, "{} requests", hits.count());
            proxy.clear();
            scene.assert_nothing_published(&before)
        });
        check.with_context(|| name.to_owned())?;
    }
    backs_up(&scene)?;
    evidence::note(
        12,
        format!(
            "endless 503 and endless false completions ended each of 4 runs with 8, with a budget of \
             2 s for the retries of a request, after {}, without an object or an open upload",
            took.join(", ")
        ),
    );
    Ok(())
}

/// Nobody can say then whether the manifest comes: no backup, and whatever is left is told.
#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_12_a_manifest_that_is_never_taken_is_no_backup() -> Result<()> {
    let (scene, proxy) = grown_behind_proxy("2s")?;
    let manifests = || -> Result<Vec<String>> {
        let mut keys = scene.place.keys()?;
        keys.retain(|key| key.ends_with("/manifest.json"));
        Ok(keys)
    };
    let before = manifests()?;
    proxy.add(Rule::new(Request::is_commit, Act::error(503, "SlowDown")));
    let run = scene.start(&["backup", SOURCE])?.finish(BOUND)?;
    run.expect(8, &["manifest.json", "its objects are left"])?;
    scene.assert_nobody_left()?;
    proxy.clear();
    ensure!(manifests()? == before, "published");
    let listed = scene.run(&["list", "--json"])?.expect(0, &[])?;
    let listed: serde_json::Value = serde_json::from_str(&listed.stdout)?;
    ensure!(listed.as_array().map(Vec::len) == Some(1), "{listed}");
    scene.assert_proved(scene.older())?;
    backs_up(&scene)?;
    evidence::note(
        12,
        "a manifest that was refused for ever made no backup, and the run said what it left",
    );
    Ok(())
}

/// Reads as before the write, and clocks that differ.
#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn what_a_server_forgets_or_cannot_date_is_no_backup() -> Result<()> {
    let (scene, proxy) = grown_behind_proxy("2s")?;
    let looks: Kinds = |request| request.method == "HEAD" && request.path.contains("data-rest");
    let rows: [(&str, Kinds, Act, &[&str]); 3] = [
        ("forgotten", looks, Act::Stale, &["check data-rest"]),
        (
            "a server ahead",
            |_| true,
            Act::Skewed(TimeDelta::minutes(20)),
            &["RequestTimeTooSkewed", "clock"],
        ),
        (
            "a server behind",
            Request::is_begin,
            Act::Skewed(TimeDelta::minutes(-20)),
            &["RequestTimeTooSkewed", "clock"],
        ),
    ];
    for (name, kind, act, words) in rows {
        let hits = proxy.add(Rule::new(kind, act));
        let before = scene.state()?;
        let run = scene.start(&["backup", SOURCE])?.finish(BOUND)?;
        let check = run.expect(8, words).and_then(|_| {
            ensure!(hits.count() > 0, "nothing was struck");
            proxy.clear();
            scene.assert_nothing_published(&before)
        });
        check.with_context(|| name.to_owned())?;
    }
    backs_up(&scene).map(drop)
}

/// Feeds the tool three megabytes a second.
const SLOW_LOAD: &str = r#"[ -p /dev/stdin ] || exec "$real" "$@"
exec "$real" "$@" < <(perl -e '
    $| = 1;
    while (my $n = sysread(STDIN, my $b, 65536)) { print $b; select(undef, undef, undef, $n / 3e6) }')"#;

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_13_a_restore_outlives_the_budget_of_its_requests() -> Result<()> {
    let (mut scene, proxy) = behind_proxy("1s")?;
    let cluster = Cluster::shared(17)?;
    let fakes = FakeTools::new(cluster.bin_dir())?;
    fakes.misbehave("pg_restore", Calls::All, SLOW_LOAD)?;
    fakes.bin_dir().clone_into(&mut scene.settings.bin_dir);
    // The first answers break off.
    let reads: Kinds = |request| request.is_get() && request.path.contains("data-rest");
    let hits = proxy.add(Rule::new(reads, Act::CutAnswer(MIB)).times(2));
    let target = scene.target();
    let run = scene.start(&["restore", scene.older(), "--target-db", &target])?;
    let run = run.finish(BOUND)?.expect(0, &["equal in content"])?;
    ensure!(run.elapsed > Duration::from_secs(4), "{:?}", run.elapsed);
    ensure!(hits.count() == 2, "{} answers broke off", hits.count());
    let restored = cluster.contents(&target)?;
    ensure!(restored == cluster.contents(&scene.settings.database)?);
    cluster.drop_db(&target)?;
    evidence::note(
        13,
        format!(
            "a restore of {:.0} s through requests with a budget of 1 s, {} of whose answers broke \
             off: equal in content",
            run.elapsed.as_secs_f64(),
            hits.count()
        ),
    );
    Ok(())
}

/// The same of the reads alone, whose own limits no configuration shrinks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs servers: run ./scripts/test"]
async fn check_13_a_slow_reader_outlives_every_limit_of_its_client() -> Result<()> {
    const TOTAL: Duration = Duration::from_secs(8);
    const BYTES: usize = 32_000_000;
    let server = Server::shared(Kind::SeaweedFs)?;
    let bucket = unique("survive-slow").replace('_', "-");
    server.create_bucket(&bucket)?;
    let content = bodies::random(BYTES, 13);
    server.put_object(&bucket, "object", &content)?;
    let proxy = S3Proxy::start(server.port())?;
    let hits = proxy.add(Rule::new(Request::is_get, Act::CutAnswer(60_000)).every(10));
    let options = StoreOptions {
        endpoint: Some(proxy.endpoint()),
        ..server.options()
    };
    let mut config = StoreConfig::parse(&format!("s3://{bucket}"), &options)?;
    config.limits = Limits {
        read_bytes: 128 << 10,
        request_timeout: TOTAL,
        read_timeout: TOTAL / 2,
        retry_timeout: TOTAL / 2,
        ..Limits::default()
    };
    let store = backup_store::open(&config)?;
    let begun = Instant::now();
    let mut body = store.read(&StoreKey::new("object")?, None).await?;
    let mut found = Vec::with_capacity(BYTES);
    while let Some(chunk) = body.next().await {
        let chunk = chunk?;
        found.extend_from_slice(&chunk);
        tokio::time::sleep(Duration::from_micros(chunk.len() as u64)).await;
    }
    let elapsed = begun.elapsed();
    ensure!(found == content, "other bytes");
    ensure!(elapsed > TOTAL * 3, "only {elapsed:?}");
    ensure!(hits.count() >= 6, "{} connections", hits.count());
    evidence::note(
        13,
        format!(
            "32 MB read at 1 MB/s in {:.1} s, with a limit of {} s for a request and {} s for its \
             retries, while every tenth connection was reset ({})",
            elapsed.as_secs_f64(),
            TOTAL.as_secs(),
            (TOTAL / 2).as_secs(),
            hits.count()
        ),
    );
    Ok(())
}
