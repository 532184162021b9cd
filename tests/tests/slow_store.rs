//! A slow store costs time and nothing else.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use backup_e2e::fault::{Faults, Proxy};
use backup_e2e::pg::{Cluster, ClusterOptions};
use backup_e2e::s3::Kind;
use backup_e2e::sample;
use backup_e2e::scene::{SOURCE, Scene, Store, unique};

/// How long a run that has ended may take to be told so.
const GRACE: Duration = Duration::from_secs(10);

fn slow(bytes_per_second: u64) -> Faults {
    Faults {
        bytes_per_second: Some(bytes_per_second),
        ..Faults::default()
    }
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_slow_store_costs_neither_memory_nor_disk() -> Result<()> {
    // Of its own: a server process that waits for its client holds up each DROP DATABASE, and
    // other tests have deadlines.
    let cluster = &Cluster::start(17, &ClusterOptions::default())?;
    let database = cluster.fresh_db(&unique("slow"))?;
    for table in ["one", "two", "three", "four"] {
        cluster.psql(&database, &sample::bulk_sql("app", table, 75))?;
    }
    let mut scene = Scene::with(cluster, &database, Store::S3(Kind::SeaweedFs), |settings| {
        settings.defaults = vec!["jobs = 4".to_owned()];
    })?;
    let proxy = Proxy::start(scene.settings.store_port)?;
    scene.settings.store_port = proxy.port();
    // An upload part of 8 MiB takes longer than a minute, and is no failure for that.
    proxy.set(slow(125_000));
    let mut run = scene.start(&["backup", SOURCE, "--json"])?;
    let mut most_on_disk = 0;
    while !run.has_ended()? {
        most_on_disk = most_on_disk.max(bytes_below(&scene.tmp())?);
        std::thread::sleep(Duration::from_millis(100));
    }
    let done = run.finish(GRACE)?.expect(0, &["success"])?;
    ensure!(!done.stderr.contains("tried again"), "{}", done.stderr);
    let megabytes = done.peak_memory >> 20;
    ensure!(megabytes < 200, "{megabytes} MiB of memory");
    ensure!(
        most_on_disk < 64 << 10,
        "{most_on_disk} bytes of temporary files"
    );
    println!(
        "{megabytes} MiB, {most_on_disk} bytes on disk, {:?}",
        done.elapsed
    );
    let view: serde_json::Value = serde_json::from_str(&done.stdout)?;
    let raw = view["raw_bytes"].as_u64().context("a number")?;
    ensure!(raw > 200 << 20, "only {raw} bytes were dumped");
    scene.assert_proved(view["id"].as_str().context("an id")?)
}

fn bytes_below(folder: &std::path::Path) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(folder)?.flatten() {
        let Ok(meta) = entry.metadata() else { continue };
        sum += if meta.is_dir() {
            bytes_below(&entry.path()).unwrap_or(0)
        } else {
            meta.len()
        };
    }
    Ok(sum)
}
