//! Stores of Azure and of Google.

mod azure;
mod google;

use std::fmt::Write as _;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use backup_core::error::{ErrorKind, PortError, chain};
use backup_core::store::{Depth, PutOptions, Store, StoreKey};
use backup_e2e::pg::Cluster;
use backup_e2e::sample;
use backup_e2e::vault::{Vault, id_of};
use backup_store::{StoreConfig, StoreOptions};
use backup_testing::bodies;
use futures::StreamExt as _;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const MAJOR: u16 = 18;

fn open(url: &str, options: &StoreOptions) -> Arc<dyn Store> {
    let config = StoreConfig::parse(url, options).expect("a store");
    backup_store::open(&config).expect("opening connects to nothing")
}

fn key(text: &str) -> StoreKey {
    StoreKey::new(text).expect("a valid key")
}

async fn put(store: &dyn Store, name: &str, content: &'static str) -> Result<u64, PortError> {
    let (cancel, options) = (CancellationToken::new(), PutOptions::default());
    let body = bodies::chunked(content, 1000);
    store.put(&key(name), body, &options, &cancel).await
}

/// What reading an object says that cannot be read.
async fn refusal(store: &dyn Store, name: &str) -> PortError {
    match store.read(&key(name), None).await {
        Err(error) => error,
        Ok(mut body) => match body.next().await {
            Some(Err(error)) => PortError::from_io(error, ErrorKind::Internal, "read"),
            other => panic!("{name} is read: {other:?}"),
        },
    }
}

/// What each kind of request says when all of them fail.
async fn refusals(store: &dyn Store) -> [(&'static str, PortError); 4] {
    let create = store.create(&key("a"), "x".into()).await;
    let list = store.list(None, Depth::Recursive).next().await;
    [
        ("create", create.expect_err("create")),
        ("put", put(store, "a", "x").await.expect_err("put")),
        ("list", list.expect("an item").expect_err("list")),
        ("read", refusal(store, "a").await),
    ]
}

fn assert_named(operation: &str, error: &PortError, kind: ErrorKind, words: &str) {
    assert_eq!(error.kind(), kind, "{operation}: {error:?}");
    let mut text = chain(error);
    let _ = write!(text, " {}", error.hint().unwrap_or_default());
    assert!(text.contains(words), "{operation}: {text}");
    assert!(!format!("{error:?}").contains("canary"), "{error:?}");
}

fn list(vault: &Vault) -> Result<Value> {
    let run = vault.cli.run(["list", "--from", &vault.url, "--json"])?;
    run.exits(0)?.json()
}

/// The whole way through the program: a backup of everything that a database can have, its listing,
/// a deep verification, one table, a restore that is compared.
fn there_and_back(cluster: &Cluster, vault: &Vault) -> Result<()> {
    let database = cluster.fresh_db("cloud")?;
    cluster.psql(&database, &sample::everything_sql(MAJOR))?;
    // Larger than an upload part, also when it is compressed.
    cluster.psql(
        &database,
        "CREATE TABLE bulk AS SELECT i, md5(i::text) || sha256(i::text::bytea)::text AS noise
         FROM generate_series(1, 300000) AS i",
    )?;
    let backup = vault.back_up(&database, &[])?;
    let id = id_of(&backup)?;
    let listed = list(vault)?;
    assert_eq!(listed[0]["id"], id, "{listed}");
    assert_eq!(listed.as_array().context("an array")?.len(), 1);
    vault.verify(id)?;
    let rows = vault.cat(id, "public.bulk")?;
    assert!(rows.len() > 25 << 20, "{} bytes", rows.len());
    let target = format!("{database}_restored");
    let restored = vault.restore("latest", &target, &[])?;
    let compare = &restored["compare"];
    assert_eq!(compare["equal"], backup["tables"], "{compare}");
    assert_eq!(
        (&compare["different"], &compare["missing"]),
        (&json!([]), &json!([]))
    );
    assert_eq!(cluster.contents(&database)?, cluster.contents(&target)?);
    let shown = list(vault)?;
    assert_eq!(shown[0]["verified_level"], "restored", "{shown}");
    Ok(())
}
