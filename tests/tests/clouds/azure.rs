//! Azurite keeps what Azure promises.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use backup_core::error::ErrorKind;
use backup_core::store::{PutOptions, Store};
use backup_e2e::azure::Azurite;
use backup_e2e::cli::Cli;
use backup_e2e::fault::{Action, Direction, Faults, Proxy};
use backup_e2e::pg::Cluster;
use backup_e2e::vault::Vault;
use backup_store::StoreOptions;
use backup_testing::{bodies, contract};
use tokio_util::sync::CancellationToken;

use super::{MAJOR, assert_named, key, open, put, refusal, refusals, there_and_back};

/// A container of its own.
fn container() -> Result<(&'static Azurite, String)> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let server = Azurite::shared()?;
    let name = format!("box-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    server.create_container(&name)?;
    Ok((server, name))
}

fn by_key(server: &Azurite) -> StoreOptions {
    StoreOptions {
        endpoint: Some(server.endpoint()),
        account: Some(server.account().to_owned()),
        access_key: Some(server.access_key().into()),
        ..StoreOptions::default()
    }
}

fn by_signature(server: &Azurite, permissions: &str) -> Result<StoreOptions> {
    Ok(StoreOptions {
        access_key: None,
        sas_token: Some(server.sas_token(permissions)?.into()),
        ..by_key(server)
    })
}

/// Stores under prefixes that nobody has used.
fn fresh(container: String, options: StoreOptions) -> impl Fn() -> Arc<dyn Store> {
    let next = AtomicUsize::new(0);
    move || {
        let number = next.fetch_add(1, Ordering::Relaxed);
        open(&format!("az://{container}/deep/er/{number}"), &options)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs servers: run ./scripts/test"]
async fn azurite_keeps_the_contract() -> Result<()> {
    let (server, name) = container()?;
    let fresh = fresh(name, by_key(server));
    contract::store::all(async || fresh()).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs servers: run ./scripts/test"]
async fn azurite_takes_a_signature_for_everything_but_deletion() -> Result<()> {
    let (server, name) = container()?;
    let fresh = fresh(name, by_signature(server, "rwdlac")?);
    // The client deletes by a batch, and with a signature the emulator answers that with 500.
    contract::store::put_is_atomic(&*fresh()).await;
    contract::store::put_replaces_the_whole_object(&*fresh()).await;
    contract::store::failed_body_leaves_nothing(&*fresh()).await;
    contract::store::concurrent_creates_have_one_winner(&*fresh()).await;
    contract::store::read_ranges(&*fresh()).await;
    contract::store::list_children_and_recursive(&*fresh()).await;
    contract::store::odd_keys(&*fresh()).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs servers: run ./scripts/test"]
async fn azurite_holds_much() -> Result<()> {
    let (server, name) = container()?;
    let fresh = fresh(name, by_key(server));
    // A page has 5000 entries.
    contract::store::list_over_many_pages(&*fresh(), 5200).await;
    contract::store::large_roundtrip(&*fresh(), 100 << 20).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs servers: run ./scripts/test"]
async fn azurite_keeps_what_others_put_there() -> Result<()> {
    let (server, name) = container()?;
    let planted = ["place/a b", "place/a/%41", "place/a/b/note é", "other/a"];
    for blob in planted {
        server.put(&name, blob, b"theirs")?;
    }
    let store = open(&format!("az://{name}/place"), &by_key(server));
    contract::store::foreign_objects_are_left_out(&*store).await;
    for blob in planted {
        assert_eq!(server.get(&name, blob)?, b"theirs", "{blob}");
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs servers: run ./scripts/test"]
async fn azurite_says_what_is_wrong() -> Result<()> {
    let (server, name) = container()?;
    let url = format!("az://{name}");
    let wrong_key = StoreOptions {
        // "a canary key" in the form of a key.
        access_key: Some("YSBjYW5hcnkga2V5".into()),
        ..by_key(server)
    };
    for (operation, error) in refusals(&*open(&url, &wrong_key)).await {
        assert_named(operation, &error, ErrorKind::PermissionDenied, "wrong");
    }
    let reader = by_signature(server, "rl")?;
    let error = put(&*open(&url, &reader), "a", "x")
        .await
        .expect_err("it may not");
    assert_named("put", &error, ErrorKind::PermissionDenied, "rights");
    let ended = StoreOptions {
        sas_token: Some(
            "sv=2020-08-04&ss=b&srt=sco&sp=rl&se=2020-01-01T00:00:00Z&sig=canary".into(),
        ),
        access_key: None,
        ..by_key(server)
    };
    for (operation, error) in refusals(&*open(&url, &ended)).await {
        assert_named(operation, &error, ErrorKind::PermissionDenied, "wrong");
    }
    for (operation, error) in refusals(&*open("az://no-such-box", &by_key(server))).await {
        assert_named(
            operation,
            &error,
            ErrorKind::NotFound,
            "create the container",
        );
    }
    Ok(())
}

/// The emulator behind a proxy that breaks every so many bytes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs servers: run ./scripts/test"]
async fn azurite_uploads_outlive_broken_connections() -> Result<()> {
    let (server, name) = container()?;
    let proxy = Proxy::start(server.port())?;
    let options = StoreOptions {
        endpoint: Some(format!("http://{}/{}", proxy.address(), server.account())),
        ..by_key(server)
    };
    for (action, direction) in [
        (Action::Reset, Direction::ToServer),
        (Action::Close, Direction::ToServer),
        (Action::Reset, Direction::ToClient),
    ] {
        let store = open(&format!("az://{name}/{direction:?}/{action:?}"), &options);
        let after_bytes = match direction {
            Direction::ToServer => 5 << 20,
            Direction::ToClient => 20_000,
        };
        proxy.set(Faults::after(action, direction, after_bytes, 3));
        contract::store::large_roundtrip(&*store, 50 << 20).await;
    }
    assert!(proxy.struck() >= 3, "{} faults", proxy.struck());
    Ok(())
}

/// There is nothing like an abort: blocks that no list names end by themselves after a week, and
/// until then they are no blob.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs servers: run ./scripts/test"]
async fn azurite_shows_nothing_of_a_body_that_failed() -> Result<()> {
    let (server, name) = container()?;
    let store = open(&format!("az://{name}"), &by_key(server));
    let content = bodies::random(20 << 20, 1);
    let failed = bodies::failing(content, ErrorKind::ToolFailed);
    let (cancel, options) = (CancellationToken::new(), PutOptions::default());
    let error = store.put(&key("a"), failed, &options, &cancel).await;
    assert_eq!(error.expect_err("it fails").kind(), ErrorKind::ToolFailed);
    assert_eq!(server.list(&name)?, Vec::<String>::new());
    let head = store.head(&key("a")).await;
    assert_eq!(head.expect_err("no blob").kind(), ErrorKind::NotFound);
    // The next one under that name is whole, whatever blocks are left.
    put(&*store, "a", "whole").await?;
    assert_eq!(server.get(&name, "a")?, b"whole");
    Ok(())
}

#[tokio::test]
#[ignore = "needs servers: run ./scripts/test"]
async fn azurite_keeps_parts_in_the_tier_that_was_asked_for() -> Result<()> {
    let (server, name) = container()?;
    let of = |class: &str| StoreOptions {
        storage_class: Some(class.to_owned()),
        ..by_key(server)
    };
    let url = format!("az://{name}");
    let cool = open(&url, &of("Cool"));
    put(&*cool, "part", "content").await?;
    cool.create(&key("manifest"), "{}".into()).await?;
    let tier = |blob: &str| server.header(&name, blob, "x-ms-access-tier");
    assert_eq!(tier("part")?.as_deref(), Some("Cool"));
    assert_eq!(tier("manifest")?.as_deref(), Some("Hot"));

    let archive = open(&url, &of("Archive"));
    put(&*archive, "frozen", "content").await?;
    let error = refusal(&*archive, "frozen").await;
    assert_named("read", &error, ErrorKind::PermissionDenied, "in an archive");
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn azurite_backups_restore() -> Result<()> {
    let cluster = Cluster::shared(MAJOR)?;
    let (server, name) = container()?;
    let cli = Cli::new(cluster)?.with_azure(server);
    let vault = Vault::at(cli, &format!("az://{name}/some/prefix"))?;
    there_and_back(cluster, &vault)?;
    let blobs = server.list_with_uncommitted(&name)?;
    let ours = blobs.iter().all(|blob| blob.starts_with("some/prefix/"));
    assert!(ours && blobs.len() > 5, "{blobs:?}");
    Ok(())
}

/// A destination of the file, with its secret in a variable of another name than the usual, while
/// the usual ones name an account that does not exist.
#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn azurite_as_a_configured_destination_takes_nothing_from_variables() -> Result<()> {
    let cluster = Cluster::shared(MAJOR)?;
    let (server, name) = container()?;
    let cli = Cli::new(cluster)?
        .with_env("OUR_SIGNATURE", &server.sas_token("rwdlac")?)
        .with_env("AZURE_STORAGE_ACCOUNT_NAME", "nobody")
        .with_env("AZURE_STORAGE_ACCOUNT_KEY", "bm9ib2R5")
        .with_env("AZURE_STORAGE_ENDPOINT", "http://127.0.0.1:9/nobody");
    let database = cluster.fresh_db("configured")?;
    cluster.psql(&database, "CREATE TABLE t AS SELECT 'ours' AS a")?;
    let (endpoint, account) = (server.endpoint(), server.account());
    let file = cli.private_file("backup.toml", &format!(
        "[encryption]\nmode = 'none'\n[source.{database}]\ndestinations = ['cloud']\n\
         [destination.cloud]\nurl = 'az://{name}/a'\nendpoint = '{endpoint}'\naccount = '{account}'\n\
         sas_token = {{ env = 'OUR_SIGNATURE' }}\nstorage_class = 'Cool'\n\
         tags = {{ team = 'shop' }}\n"
    ))?;
    cli.run(["--config", &file, "backup", &database])?
        .exits(0)?;
    let shown = cli.run(["--config", &file, "cat", "latest", "--table", "public.t"])?;
    assert_eq!(shown.exits(0)?.stdout, b"ours\n");
    let blobs = server.list(&name)?;
    let part = blobs
        .iter()
        .find(|blob| blob.contains("/data"))
        .expect("a part");
    let header = |header: &str| server.header(&name, part, header);
    assert_eq!(header("x-ms-access-tier")?.as_deref(), Some("Cool"));
    assert_eq!(header("x-ms-tag-count")?.as_deref(), Some("1"));
    Ok(())
}
