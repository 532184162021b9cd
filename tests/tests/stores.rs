//! Stores that are really there keep the contract, and share their place with others.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context as _, Result};
use backup_core::error::{ErrorKind, PortError};
use backup_core::store::{Depth, PutOptions, Store, StoreKey};
use backup_e2e::pg::Cluster;
use backup_e2e::s3::{Kind, Server};
use backup_e2e::scene::is_note;
use backup_e2e::vault::{Vault, id_of};
use backup_store::{StoreConfig, StoreOptions};
use backup_testing::{bodies, contract};
use futures::StreamExt as _;
use serde_json::json;
use tokio_util::sync::CancellationToken;

fn open(url: &str, options: &StoreOptions) -> Arc<dyn Store> {
    let config = StoreConfig::parse(url, options).expect("a store");
    backup_store::open(&config).expect("opening connects to nothing")
}

fn key(text: &str) -> StoreKey {
    StoreKey::new(text).expect("a valid key")
}

/// A bucket of its own in the shared server, where each store has a prefix that nobody has used.
struct Bucket {
    server: &'static Server,
    name: String,
    prefixes: AtomicUsize,
}

impl Bucket {
    fn new(kind: Kind) -> Result<Self> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let server = Server::shared(kind)?;
        let name = format!("stores-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        server.create_bucket(&name)?;
        let prefixes = AtomicUsize::new(0);
        Ok(Self {
            server,
            name,
            prefixes,
        })
    }

    fn fresh(&self, options: &StoreOptions) -> Arc<dyn Store> {
        let number = self.prefixes.fetch_add(1, Ordering::Relaxed);
        open(&format!("s3://{}/deep/er/{number}", self.name), options)
    }

    /// No upload is left open, whatever was aborted and cancelled.
    fn assert_tidy(&self) -> Result<()> {
        assert_eq!(self.server.list_multipart_uploads(&self.name)?, []);
        Ok(())
    }
}

async fn keeps_the_contract(kind: Kind, checksum: bool) -> Result<()> {
    let bucket = Bucket::new(kind)?;
    let options = StoreOptions {
        checksum,
        ..bucket.server.options()
    };
    contract::store::all(async || bucket.fresh(&options)).await;
    bucket.assert_tidy()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs servers: run ./scripts/test"]
async fn seaweedfs_keeps_the_contract() -> Result<()> {
    keeps_the_contract(Kind::SeaweedFs, true).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs servers: run ./scripts/test"]
async fn seaweedfs_keeps_the_contract_without_checksums() -> Result<()> {
    keeps_the_contract(Kind::SeaweedFs, false).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs servers: run ./scripts/test"]
async fn minio_keeps_the_contract() -> Result<()> {
    keeps_the_contract(Kind::MinIo, true).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs servers: run ./scripts/test"]
async fn minio_keeps_the_contract_without_checksums() -> Result<()> {
    keeps_the_contract(Kind::MinIo, false).await
}

/// Longer than a page, larger than a part.
async fn holds_much(kind: Kind) -> Result<()> {
    let bucket = Bucket::new(kind)?;
    let options = bucket.server.options();
    contract::store::list_over_many_pages(&*bucket.fresh(&options), 2500).await;
    contract::store::large_roundtrip(&*bucket.fresh(&options), 200 << 20).await;
    bucket.assert_tidy()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs servers: run ./scripts/test"]
async fn seaweedfs_holds_much() -> Result<()> {
    holds_much(Kind::SeaweedFs).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs servers: run ./scripts/test"]
async fn minio_holds_much() -> Result<()> {
    holds_much(Kind::MinIo).await
}

/// What was asked for beside the bytes is there: where the object lies, its tags, how the server
/// encrypts it.
async fn marks_what_it_writes(kind: Kind) -> Result<()> {
    let bucket = Bucket::new(kind)?;
    let (server, name) = (bucket.server, &bucket.name);
    // SeaweedFS encrypts nothing without a key that it does not have here.
    let sse = (kind == Kind::MinIo).then(|| "AES256".to_owned());
    let tags = [("team", "shop + co"), ("tier", "daily")];
    let options = StoreOptions {
        storage_class: Some("REDUCED_REDUNDANCY".to_owned()),
        tags: tags
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        sse: sse.clone(),
        ..server.options()
    };
    let store = open(&format!("s3://{name}"), &options);
    let (cancel, put) = (CancellationToken::new(), PutOptions::default());
    // One that goes up in one piece, one in parts, and one of those that listings read.
    for (object, length) in [("small", 10), ("large", 20 << 20)] {
        let body = bodies::generated(length, 1);
        store.put(&key(object), body, &put, &cancel).await?;
    }
    store.create(&key("manifest"), "{}".into()).await?;
    let header = |object: &str, header: &str| server.header(name, object, header);
    for (object, class) in [
        ("small", Some("REDUCED_REDUNDANCY")),
        ("large", Some("REDUCED_REDUNDANCY")),
        ("manifest", None),
    ] {
        let found = header(object, "x-amz-storage-class")?;
        let found = found.filter(|class| class != "STANDARD");
        assert_eq!(found.as_deref(), class, "{object}");
        let count = header(object, "x-amz-tagging-count")?;
        assert_eq!(count.as_deref(), Some("2"), "{object}");
        let encrypted = header(object, "x-amz-server-side-encryption")?;
        assert_eq!(encrypted, sse, "{object}");
    }
    let found = bodies::drain(store.read(&key("large"), None).await?).await;
    assert!(
        found.1.is_none() && found.0.len() == 20 << 20,
        "{:?}",
        found.1
    );
    Ok(())
}

#[tokio::test]
#[ignore = "needs servers: run ./scripts/test"]
async fn seaweedfs_objects_are_marked() -> Result<()> {
    marks_what_it_writes(Kind::SeaweedFs).await
}

#[tokio::test]
#[ignore = "needs servers: run ./scripts/test"]
async fn minio_objects_are_marked() -> Result<()> {
    marks_what_it_writes(Kind::MinIo).await
}

/// What each kind of request says.
async fn errors_of(store: &dyn Store) -> [(&'static str, PortError); 4] {
    let (cancel, options) = (CancellationToken::new(), PutOptions::default());
    let name = key("a");
    let create = store.create(&name, "x".into()).await.map(drop);
    let put = store
        .put(&name, bodies::chunked("x", 1), &options, &cancel)
        .await
        .map(drop);
    let list = store.list(None, Depth::Recursive).next().await;
    let read = match store.read(&name, None).await {
        Ok(mut body) => match body.next().await {
            Some(Err(error)) => Err(PortError::from_io(error, ErrorKind::Internal, "read")),
            _ => Ok(()),
        },
        Err(error) => Err(error),
    };
    let list = list.expect("an entry or an error").map(drop);
    [
        ("create", create),
        ("put", put),
        ("list", list),
        ("read", read),
    ]
    .map(|(operation, outcome)| (operation, outcome.expect_err(operation)))
}

async fn names_what_is_wrong(kind: Kind) -> Result<()> {
    let bucket = Bucket::new(kind)?;
    let wrong_secret = StoreOptions {
        secret_access_key: Some("canary-wrong-secret".into()),
        ..bucket.server.options()
    };
    let unknown_key = StoreOptions {
        access_key_id: Some("unknown".into()),
        ..bucket.server.options()
    };
    let rows = [
        (wrong_secret, "secret access key"),
        (unknown_key, "access key id"),
    ];
    for (options, words) in rows {
        for (operation, error) in errors_of(&*bucket.fresh(&options)).await {
            assert_eq!(
                error.kind(),
                ErrorKind::PermissionDenied,
                "{operation}: {error:?}"
            );
            let hint = error.hint().unwrap_or_default();
            assert!(hint.contains(words), "{operation}: {error:?}");
            assert!(!format!("{error:?}").contains("canary"), "{error:?}");
        }
    }
    // A listing, since SeaweedFS makes a missing bucket when something is put there.
    let store = open("s3://no-such-bucket-at-all", &bucket.server.options());
    let listed = store.list(None, Depth::Children).next().await;
    let error = listed.context("an error")?.expect_err("no bucket");
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
    let hint = error.hint().unwrap_or_default();
    assert!(hint.contains("create the bucket"), "{error:?}");
    Ok(())
}

#[tokio::test]
#[ignore = "needs servers: run ./scripts/test"]
async fn seaweedfs_credentials_that_are_wrong_are_named() -> Result<()> {
    names_what_is_wrong(Kind::SeaweedFs).await
}

#[tokio::test]
#[ignore = "needs servers: run ./scripts/test"]
async fn minio_credentials_that_are_wrong_are_named() -> Result<()> {
    names_what_is_wrong(Kind::MinIo).await
}

/// Keys that others have put where backups are: beside, between and below them, and some that look
/// nearly like ours.
fn foreign_keys(source: &str, id: &str) -> Vec<String> {
    let shapes: [&dyn Fn(usize) -> String; 10] = [
        &|n| format!("other/prefix/file {n}"),
        &|n| format!("some/prefix-too/backups/{n}"),
        &|n| format!("some/prefix/notes/{n:05}.txt"),
        &|n| format!("some/prefix/backups/{n:04}"),
        &|n| format!("some/prefix/backups/not encoded+{n}/readme"),
        &|n| format!("some/prefix/backups/{source}/{n}/manifest.json"),
        &|n| format!("some/prefix/backups/{source}/20260205T030000Z-{n:04x}/data-rest.dump"),
        &|n| format!("some/prefix/backups/{source}/{id}-{n}/manifest.json"),
        &|n| format!("some/prefix/backups/{source}/{id}/note é {n}%41"),
        &|n| format!("some/prefix/repository.json.{n}"),
    ];
    (0..2500).map(|n| shapes[n % shapes.len()](n)).collect()
}

fn plant(server: &Server, bucket: &str, keys: &[String]) -> Result<()> {
    thread::scope(|scope| {
        let planting = keys.chunks(keys.len().div_ceil(8)).map(|keys| {
            let each = move |key: &String| server.put_object(bucket, key, b"{}");
            scope.spawn(move || keys.iter().try_for_each(each))
        });
        let planting: Vec<_> = planting.collect();
        planting
            .into_iter()
            .try_for_each(|thread| thread.join().expect("no panic"))
    })
}

fn backups_among_others(kind: Kind) -> Result<()> {
    let cluster = Cluster::shared(18)?;
    let vault = Vault::in_bucket(cluster, kind)?;
    let (server, bucket) = vault.bucket().context("a bucket")?;
    let database = cluster.fresh_db("crowded")?;
    cluster.psql(&database, "CREATE TABLE t AS SELECT 'ours' AS a")?;
    let first = vault.back_up(&database, &[])?;
    let first = id_of(&first)?;
    let mut ours = server.list_keys(bucket, "")?;
    ours.retain(|key| !is_note(key));
    let foreign = foreign_keys(&database, first);
    plant(server, bucket, &foreign)?;

    let second = vault.back_up(&database, &[])?;
    let second = id_of(&second)?;
    let listed = vault
        .cli
        .run(["list", "--from", &vault.url, "--json"])?
        .exits(0)?;
    let listed = listed.json()?;
    let ids: Vec<_> = listed
        .as_array()
        .context("a list")?
        .iter()
        .map(|b| &b["id"])
        .collect();
    assert_eq!(ids, [&json!(second), &json!(first)]);
    assert_eq!(vault.cat("latest", "public.t")?, b"ours\n");
    for id in [first, second] {
        vault.verify(id)?;
    }
    vault.restore(first, &format!("{database}_restored"), &[])?;

    let mut expected: Vec<_> = ours.into_iter().chain(foreign).collect();
    let of_second = format!("/{second}/");
    let mut all = server.list_keys(bucket, "")?;
    all.retain(|key| !is_note(key));
    expected.extend(all.iter().filter(|key| key.contains(&of_second)).cloned());
    expected.sort();
    assert_eq!(all.len(), expected.len());
    assert!(all == expected, "what is there is not what was put there");
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn seaweedfs_backups_are_found_among_thousands_of_others() -> Result<()> {
    backups_among_others(Kind::SeaweedFs)
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn minio_backups_are_found_among_thousands_of_others() -> Result<()> {
    backups_among_others(Kind::MinIo)
}
