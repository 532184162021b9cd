//! A bucket keeps the contract of a store. Needs a server: `PGB_TEST_S3_ENDPOINT` and a bucket
//! on it, `PGB_TEST_S3_BUCKET`, with `PGB_TEST_S3_KEY` and `PGB_TEST_S3_SECRET`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use backup_core::error::ErrorKind;
use backup_core::store::{Depth, PutOptions, Store, StoreKey};
use backup_store::{StoreConfig, StoreOptions, open};
use backup_testing::{bodies, contract};
use futures::StreamExt;
use tokio_util::sync::CancellationToken;

#[expect(
    clippy::disallowed_methods,
    reason = "which server to test against is for the test's environment to say"
)]
fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"))
}

fn options() -> StoreOptions {
    StoreOptions {
        endpoint: Some(variable("PGB_TEST_S3_ENDPOINT")),
        access_key_id: Some(variable("PGB_TEST_S3_KEY").into()),
        secret_access_key: Some(variable("PGB_TEST_S3_SECRET").into()),
        ..StoreOptions::default()
    }
}

fn store_with(prefix: &str, options: &StoreOptions) -> Arc<dyn Store> {
    let url = format!("s3://{}/{prefix}", variable("PGB_TEST_S3_BUCKET"));
    let config = StoreConfig::parse(&url, options).expect("a bucket");
    open(&config).expect("opening connects to nothing")
}

/// A prefix that nobody has used.
fn fresh(options: &StoreOptions) -> Arc<dyn Store> {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock after 1970");
    let n = COUNT.fetch_add(1, Ordering::Relaxed);
    store_with(&format!("t{}/{n}", now.as_micros()), options)
}

fn key(text: &str) -> StoreKey {
    StoreKey::new(text).expect("a valid key")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs an S3 server, see the top of this file"]
async fn keeps_the_contract() {
    let options = options();
    contract::store::all(async || fresh(&options)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs an S3 server, see the top of this file"]
async fn keeps_the_contract_without_checksums() {
    let options = StoreOptions {
        checksum: false,
        ..options()
    };
    contract::store::all(async || fresh(&options)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs an S3 server, see the top of this file"]
async fn lists_over_pages() {
    contract::store::list_over_many_pages(&*fresh(&options()), 2500).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs an S3 server, see the top of this file"]
async fn takes_large_objects() {
    contract::store::large_roundtrip(&*fresh(&options()), 200 << 20).await;
}

#[tokio::test]
#[ignore = "needs an S3 server, see the top of this file"]
async fn names_what_is_wrong_with_credentials_and_bucket() {
    let wrong_secret = StoreOptions {
        secret_access_key: Some("canary-wrong-secret".into()),
        ..options()
    };
    let unknown_key = StoreOptions {
        access_key_id: Some("unknown".into()),
        ..options()
    };
    for (options, words) in [
        (wrong_secret, "secret access key"),
        (unknown_key, "access key id"),
    ] {
        let store = store_with("x", &options);
        let create = store.create(&key("a"), "x".into()).await;
        let put = store
            .put(
                &key("a"),
                bodies::chunked("x", 1),
                &PutOptions::default(),
                &CancellationToken::new(),
            )
            .await
            .map(drop);
        let list = store.list(None, Depth::Recursive).next().await;
        let list = list.expect("an error").map(drop);
        for (name, outcome) in [("create", create), ("put", put), ("list", list)] {
            let error = outcome.expect_err(name);
            assert_eq!(
                error.kind(),
                ErrorKind::PermissionDenied,
                "{name}: {error:?}"
            );
            assert!(
                error.hint().is_some_and(|hint| hint.contains(words)),
                "{name}: {error:?}"
            );
            assert!(!format!("{error:?}").contains("canary"), "{error:?}");
        }
    }
    // A listing, since SeaweedFS makes a missing bucket when something is put there.
    let config = StoreConfig::parse("s3://no-such-bucket-at-all", &options()).unwrap();
    let store = open(&config).unwrap();
    let listed = store.list(None, Depth::Children).next().await;
    let error = listed.expect("an error").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
    assert!(
        error.hint().unwrap().contains("create the bucket"),
        "{error:?}"
    );
}

/// Prints what an upload costs; `PGB_TEST_S3_BENCH_MIB` says how much.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement; needs an S3 server, see the top of this file"]
async fn measure() {
    let mib: u64 = variable("PGB_TEST_S3_BENCH_MIB")
        .parse()
        .expect("a number of MiB");
    let bucket = fresh(&options());
    let dir = tempfile::tempdir().unwrap();
    let config = StoreConfig::parse(dir.path().to_str().unwrap(), &StoreOptions::default());
    let local = open(&config.unwrap()).unwrap();
    for (name, store) in [("s3", bucket), ("local", local)] {
        let options = PutOptions {
            expected_bytes: Some(mib << 20),
        };
        let (begun, cpu) = (Instant::now(), cpu_seconds());
        let body = bodies::generated(mib << 20, 1);
        store
            .put(&key("big"), body, &options, &CancellationToken::new())
            .await
            .unwrap();
        report(&format!("{name} put"), mib, begun, cpu);
        let (begun, cpu) = (Instant::now(), cpu_seconds());
        let mut body = store.read(&key("big"), None).await.unwrap();
        while let Some(chunk) = body.next().await {
            chunk.unwrap();
        }
        report(&format!("{name} read"), mib, begun, cpu);
        store.delete(&key("big")).await.unwrap();
        let (begun, cpu) = (Instant::now(), cpu_seconds());
        let puts = (0..4).map(|n| {
            let store = Arc::clone(&store);
            let options = options.clone();
            tokio::spawn(async move {
                let body = bodies::generated((mib << 20) / 4, n);
                let cancel = CancellationToken::new();
                store
                    .put(&key(&format!("big{n}")), body, &options, &cancel)
                    .await
            })
        });
        for put in futures::future::join_all(puts).await {
            put.unwrap().unwrap();
        }
        report(&format!("{name} four puts"), mib, begun, cpu);
    }
}

fn usage() -> nix::sys::resource::Usage {
    let who = nix::sys::resource::UsageWho::RUSAGE_SELF;
    nix::sys::resource::getrusage(who).expect("usage of this process")
}

fn cpu_seconds() -> f64 {
    let usage = usage();
    [usage.user_time(), usage.system_time()]
        .iter()
        .map(|t| {
            std::time::Duration::new(t.tv_sec().unsigned_abs(), 0).as_secs_f64()
                + std::time::Duration::from_micros(t.tv_usec().unsigned_abs()).as_secs_f64()
        })
        .sum()
}

#[expect(clippy::print_stdout, reason = "a measurement is for reading")]
fn report(name: &str, mib: u64, begun: Instant, cpu: f64) {
    let wall = begun.elapsed().as_secs_f64();
    let mib = f64::from(u32::try_from(mib).expect("less than a PiB"));
    println!(
        "{name}: {:.0} MiB/s, {:.2} s wall, {:.2} s CPU, peak RSS {} MiB",
        mib / wall,
        wall,
        cpu_seconds() - cpu,
        usage().max_rss() / 1024
    );
}
