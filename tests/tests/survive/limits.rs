//! Stores whose uploads have fewer parts than a backup needs, or must have equal ones; and what a
//! slow one costs.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use backup_compress::Algorithm;
use backup_core::backup::SourceName;
use backup_core::engine::{BackupOutcome, BackupRequest, Engine};
use backup_e2e::cli::Cli;
use backup_e2e::evidence;
use backup_e2e::fault::{Direction, Faults, Proxy};
use backup_e2e::pg::{Cluster, ClusterOptions};
use backup_e2e::s3::{Kind, Server};
use backup_e2e::s3_fault::{Hits, S3Proxy};
use backup_e2e::sample;
use backup_e2e::scene::{SOURCE, Scene, Store, unique};
use backup_store::{Limits, StoreConfig, StoreOptions};
use backup_testing::{FixedClock, ScriptedDumper, ScriptedPart, bodies};
use tokio_util::sync::CancellationToken;

use super::lies;

const MIB: u64 = 1 << 20;

/// The smallest part that S3 allows, and a little more.
const PART: u64 = 5 * MIB;
const MAX_PART: u64 = 6 * MIB;

const PARTS: u32 = 10;

/// A real server that takes ten parts of an upload, of which all but the last are equal.
struct Narrow {
    proxy: S3Proxy,
    beyond: Hits,
    engine: Engine,
    cli: Cli,
    url: String,
    server: &'static Server,
    bucket: String,
}

impl Narrow {
    fn new() -> Result<Self> {
        let server = Server::shared(Kind::SeaweedFs)?;
        let bucket = unique("survive-narrow").replace('_', "-");
        server.create_bucket(&bucket)?;
        let proxy = S3Proxy::start(server.port())?;
        let beyond = proxy.limit_parts(PARTS);
        proxy.demand_equal_parts();
        let options = StoreOptions {
            endpoint: Some(proxy.endpoint()),
            ..server.options()
        };
        let url = format!("s3://{bucket}/place");
        let mut config = StoreConfig::parse(&url, &options)?;
        config.limits = Limits {
            part_bytes: PART,
            max_part_bytes: MAX_PART,
            max_parts: u64::from(PARTS),
            ..Limits::default()
        };
        let store = backup_store::open(&config)?;
        let mut engine = Engine::new(store, Arc::new(FixedClock::default()));
        for algorithm in Algorithm::ALL {
            engine = engine.with_compressor(algorithm.compressor(0));
        }
        Ok(Self {
            proxy,
            beyond,
            engine,
            cli: Cli::without_server()?.with_s3(server),
            url,
            server,
            bucket,
        })
    }

    /// Backs up so many bytes that do not compress, of which `estimated` are expected.
    async fn back_up(&self, source: &str, bytes: u64, estimated: u64) -> Result<BackupOutcome> {
        let content = bodies::random(usize::try_from(bytes)?, bytes);
        let part = ScriptedPart::new("data-rest", content).estimated(estimated);
        let dumper = ScriptedDumper::new().part(part);
        let request = BackupRequest {
            encrypt: false,
            compression: "none".to_owned(),
            part_attempts: 1,
            ..BackupRequest::new(SourceName::new(source)?)
        };
        let never = CancellationToken::new();
        Ok(self.engine.backup(&dumper, &request, &never).await?)
    }
}

/// A real run of 10,000 parts would be 320 GB; the rule is the same with ten.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs servers: run ./scripts/test"]
async fn check_23_what_is_longer_than_ten_parts_is_split_before_they_are_used_up() -> Result<()> {
    let narrow = Narrow::new()?;
    let (mut uploads, mut objects) = (0, Vec::new());
    for (source, bytes, estimated, wanted) in [
        // Below the limit: one object of equal parts.
        ("below", 23 * MIB, 23 * MIB, 1),
        // As much as ten of the largest parts hold.
        ("exact", 60 * MIB, 60 * MIB, 1),
        // Above it: known before, and not known.
        ("above", 130 * MIB, 130 * MIB, 3),
        ("surprise", 104 * MIB, MIB, 3),
    ] {
        let before = narrow.proxy.part_sizes().len();
        let taken = narrow.back_up(source, bytes, estimated).await;
        let taken = taken.with_context(|| source.to_owned())?;
        let part = taken
            .manifest
            .parts
            .iter()
            .find(|p| p.name.as_str() == "data-rest");
        let part = part.context("the rows")?;
        ensure!(part.objects.len() == wanted, "{source}: {:?}", part.objects);
        ensure!(
            part.objects.iter().map(|o| o.bytes).sum::<u64>() == bytes,
            "{source}"
        );
        let sizes = narrow.proxy.part_sizes();
        ensure!(sizes.len() > before, "{source} was not uploaded in parts");
        for parts in sizes {
            ensure!(parts.len() <= PARTS as usize, "{source}: {parts:?}");
            let equal = parts.windows(3).all(|three| three[0] == three[1]);
            ensure!(equal, "{source}: {parts:?}");
        }
        uploads = narrow.proxy.part_sizes().len();
        objects.push(format!("{} MiB in {wanted}", bytes / MIB));
    }
    ensure!(narrow.beyond.count() == 0, "an eleventh part was tried");
    ensure!(
        narrow
            .server
            .list_multipart_uploads(&narrow.bucket)?
            .is_empty()
    );
    let verified = ["verify", "--all", "--from", &narrow.url];
    narrow.cli.run(verified)?.exits(0)?;
    evidence::note(
        23,
        format!(
            "against a server that takes {PARTS} parts, all but the last equal: {} objects, in \
             {uploads} uploads without a refused part, each backup verified",
            objects.join(", ")
        ),
    );
    Ok(())
}

/// A server that takes fewer than anybody knows of says so, and nothing is left of it.
#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_23_an_unknown_limit_is_quoted_and_equal_parts_are_usual() -> Result<()> {
    let (scene, proxy) = lies::behind_proxy("5s")?;
    let beyond = proxy.limit_parts(1);
    let before = scene.state()?;
    let run = scene
        .start(&["backup", SOURCE])?
        .finish(Duration::from_mins(2))?;
    run.expect(
        8,
        &[
            "data-rest",
            "Part number must be an integer between 1 and 1",
        ],
    )?;
    ensure!(beyond.count() > 0, "no second part was tried");
    proxy.clear();
    scene.assert_nothing_published(&before)?;

    proxy.demand_equal_parts();
    let uploads = proxy.part_sizes().len();
    lies::backs_up(&scene)?;
    let sizes = proxy.part_sizes();
    ensure!(sizes.len() > uploads, "no upload in parts");
    evidence::note(
        23,
        "a limit that nobody knew of ended the run with 8 and the server's words, without an open \
         upload; with the default limits a server that wants equal parts took the backup",
    );
    Ok(())
}

/// What the program may hold: less than is dumped, so that whoever keeps rows while the store is
/// slow is found, and far less than would do for two gigabytes.
const MEMORY: u64 = 256 << 20;

/// Address space, of which a program with two threads takes much more than it fills.
const ADDRESS_SPACE: u64 = 2 << 30;

/// Four tables of so many MiB each.
const TABLE: u32 = 90;

/// Seconds that the upload may take, about: a test has no hours.
const PATIENCE: u64 = 90;

/// No run of these takes longer.
const BOUND: Duration = Duration::from_mins(10);

/// Bytes a second.
fn rate(bytes: u64, time: Duration) -> u64 {
    bytes.saturating_mul(1000) / u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}

/// How many bytes the store takes in a second from one who has nothing else to do.
fn speed_of(server: &Server, bucket: &str) -> Result<u64> {
    let content = bodies::random(32 << 20, 1);
    let mut best = Duration::MAX;
    for _ in 0..3 {
        let begun = Instant::now();
        server.put_object(bucket, "object", &content)?;
        best = best.min(begun.elapsed());
    }
    Ok(rate(32 << 20, best))
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_22_a_slow_store_costs_no_memory() -> Result<()> {
    // Of its own: a server process that waits for its client holds up each DROP DATABASE.
    let cluster = &Cluster::start(17, &ClusterOptions::default())?;
    let database = cluster.fresh_db(&unique("survive_slow"))?;
    for table in ["one", "two", "three", "four"] {
        cluster.psql(&database, &sample::bulk_sql("app", table, TABLE))?;
    }
    let mut scene = Scene::with(cluster, &database, Store::S3(Kind::SeaweedFs), |settings| {
        settings.defaults = vec!["jobs = 4".to_owned(), "compression = 'none'".to_owned()];
    })?;
    let server = Server::shared(Kind::SeaweedFs)?;
    let bucket = unique("survive-speed").replace('_', "-");
    server.create_bucket(&bucket)?;
    let speed = speed_of(server, &bucket)?;
    let proxy = Proxy::start(scene.settings.store_port)?;
    scene.settings.store_port = proxy.port();
    // At most eight parts of 8 MiB are on their way at once.
    let total = (speed / 20).max(u64::from(TABLE) * 4 * MIB / PATIENCE);
    proxy.set(Faults {
        bytes_per_second: Some(total / 8),
        ..Faults::default()
    });
    let start = proxy.forwarded(Direction::ToServer);
    let mut run = scene.start(&["backup", SOURCE, "--json"])?;
    let mut prlimit = Command::new("prlimit");
    prlimit.args([
        "--pid",
        &run.pid().to_string(),
        &format!("--as={ADDRESS_SPACE}"),
    ]);
    ensure!(prlimit.status()?.success(), "no limit was set");
    let begun = Instant::now();
    while !run.has_ended()? {
        ensure!(begun.elapsed() < BOUND, "it has no end");
        std::thread::sleep(Duration::from_millis(50));
    }
    let done = run
        .finish(Duration::from_secs(1))?
        .expect(0, &["success"])?;
    ensure!(done.peak_memory < MEMORY, "{} MiB", done.peak_memory >> 20);
    let view: serde_json::Value = serde_json::from_str(&done.stdout)?;
    let raw = view["raw_bytes"].as_u64().context("a number")?;
    ensure!(raw > MEMORY, "only {raw} bytes were dumped");
    let sent = proxy.forwarded(Direction::ToServer) - start;
    ensure!(sent > raw, "{sent} bytes were sent");
    // The better of two, since others may have been at work when it was measured.
    let speed = speed.max(speed_of(server, &bucket)?);
    let slower = speed / rate(sent, done.elapsed).max(1);
    ensure!(slower >= 5, "only {slower} times slower");
    scene.assert_proved(view["id"].as_str().context("an id")?)?;
    evidence::note(
        22,
        format!(
            "{} MiB of rows, uncompressed, dumped in {:.0} s to a store made {slower} times \
             slower, under a limit of {} MiB of address space: {} MiB of memory at most",
            raw >> 20,
            done.elapsed.as_secs_f64(),
            ADDRESS_SPACE >> 20,
            done.peak_memory >> 20
        ),
    );
    Ok(())
}
