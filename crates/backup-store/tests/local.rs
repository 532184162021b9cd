//! A directory keeps the contract of a store, and its files are private and durable.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use backup_core::error::ErrorKind;
use backup_core::store::{Depth, PutOptions, Store, StoreKey};
use backup_store::{StoreConfig, StoreOptions, free_bytes, open};
use backup_testing::{bodies, contract};
use futures::StreamExt;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

fn store_at(root: &Path) -> Arc<dyn Store> {
    let url = root.to_str().expect("a path in UTF-8");
    let config = StoreConfig::parse(url, &StoreOptions::default()).expect("a local store");
    open(&config).expect("opening touches nothing")
}

fn key(text: &str) -> StoreKey {
    StoreKey::new(text).expect("a valid key")
}

async fn put(store: &dyn Store, name: &str) -> Result<u64, ErrorKind> {
    let (name, options) = (key(name), PutOptions::default());
    let body = bodies::chunked(name.to_string(), 10);
    let written = store
        .put(&name, body, &options, &CancellationToken::new())
        .await;
    written.map_err(|e| e.kind())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let count = std::sync::atomic::AtomicUsize::new(0);
    contract::store::all(async || {
        let n = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        store_at(&dir.path().join(format!("store {n}")))
    })
    .await;
    contract::store::emptied_prefixes_disappear(&*store_at(&dir.path().join("emptied"))).await;
}

#[tokio::test]
async fn a_folder_goes_with_its_last_object_also_where_one_was_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let store = store_at(dir.path());
    let (one, two) = (key("a/b/one"), key("a/b/two"));
    for name in [&one, &two] {
        store.create(name, "before".into()).await.unwrap();
    }
    let seen = "before".into();
    store.replace(&one, &seen, "after".into()).await.unwrap();
    store.delete(&one).await.unwrap();
    assert!(dir.path().join("a/b/two").exists());
    store.delete(&two).await.unwrap();
    assert!(!dir.path().join("a").exists());
}

#[tokio::test]
async fn nothing_is_left_in_the_directory_by_failed_puts() {
    let dir = tempfile::tempdir().unwrap();
    let store = store_at(dir.path());
    contract::store::failed_body_leaves_nothing(&*store).await;
    contract::store::cancelled_put_leaves_nothing(&*store).await;
    assert_eq!(all_files(dir.path()), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_that_fails_takes_no_folder_from_one_that_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let store = store_at(dir.path());
    for round in 0..200 {
        let name = format!("backups/{round}/rows");
        let good = put(&*store, &name);
        let failing = (0..4).map(|other| {
            let key = key(&format!("backups/{round}/failing-{other}"));
            let body = bodies::failing("some", ErrorKind::ToolFailed);
            let store = store_at(dir.path());
            async move {
                store
                    .put(
                        &key,
                        body,
                        &PutOptions::default(),
                        &CancellationToken::new(),
                    )
                    .await
            }
        });
        let (written, failed) = tokio::join!(good, futures::future::join_all(failing));
        written.unwrap();
        assert!(failed.iter().all(Result::is_err));
        assert!(dir.path().join(&name).is_file(), "{name}");
    }
}

#[tokio::test]
async fn a_dropped_or_panicking_put_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let store = store_at(dir.path());
    let (name, options, cancel) = (key("a"), PutOptions::default(), CancellationToken::new());
    let big = bodies::random(20 << 20, 1);
    let put = store.put(&name, bodies::stalling(big.clone()), &options, &cancel);
    assert!(
        tokio::time::timeout(Duration::from_millis(500), put)
            .await
            .is_err()
    );

    let shared = Arc::clone(&store);
    let task = tokio::spawn(async move {
        let (name, options) = (key("b"), PutOptions::default());
        let body = bodies::panicking(big);
        shared
            .put(&name, body, &options, &CancellationToken::new())
            .await
    });
    assert!(task.await.unwrap_err().is_panic());
    // The files go in the background.
    let gone = async {
        while !all_files(dir.path()).is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let gone = tokio::time::timeout(Duration::from_mins(1), gone).await;
    assert!(gone.is_ok(), "{:?}", all_files(dir.path()));
}

/// Everything in the directory, also what the store would not show.
fn all_files(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("a readable directory") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            found.extend(all_files(&path));
        } else {
            found.push(path.display().to_string());
        }
    }
    found
}

#[tokio::test]
async fn files_and_directories_are_for_the_owner_alone() {
    let outer = tempfile::tempdir().unwrap();
    let root = outer.path().join("store");
    let store = store_at(&root);
    put(&*store, "top").await.unwrap();
    put(&*store, "a/b/small").await.unwrap();
    store.create(&key("a/created"), "x".into()).await.unwrap();
    contract::store::large_roundtrip(&*store, 20 << 20).await;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    for (name, expected) in [
        ("", 0o700),
        ("a", 0o700),
        ("a/b", 0o700),
        ("large", 0o700),
        ("top", 0o600),
        ("a/b/small", 0o600),
        ("a/created", 0o600),
        ("large/object", 0o600),
    ] {
        assert_eq!(mode(&root.join(name)), expected, "{name:?}");
    }
}

#[tokio::test]
async fn foreign_files_are_left_out_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let foreign = [
        "a/with space",
        "a/b/naïve",
        "lost+found/x",
        "a/ours#1",
        "a/b/%41",
        "x y/z",
    ];
    for name in foreign {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "foreign").unwrap();
    }
    std::os::unix::fs::symlink("/etc", dir.path().join("a/link")).unwrap();
    std::os::unix::fs::symlink("nowhere", dir.path().join("dangling")).unwrap();
    let store = store_at(dir.path());
    contract::store::foreign_objects_are_left_out(&*store).await;
    for name in foreign {
        assert_eq!(
            fs::read(dir.path().join(name)).unwrap(),
            b"foreign",
            "{name}"
        );
    }
}

#[tokio::test]
async fn a_missing_directory_is_empty_until_something_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("new");
    let store = store_at(&root);
    assert_eq!(store.list(None, Depth::Recursive).count().await, 0);
    assert_eq!(
        store.head(&key("a")).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
    store.delete(&key("a")).await.unwrap();
    assert!(!root.exists());
    assert_eq!(put(&*store, "a").await, Ok(1));
    assert_eq!(store.list(None, Depth::Recursive).count().await, 1);

    let unmounted = store_at(&dir.path().join("no/disk"));
    let error = unmounted.create(&key("a"), "x".into()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.hint().unwrap().contains("mounted"));
}

#[tokio::test]
async fn what_a_killed_process_left_goes_at_the_next_write() {
    let dir = tempfile::tempdir().unwrap();
    let stale = dir.path().join("a/data#1");
    fs::create_dir(dir.path().join("a")).unwrap();
    let days_ago = SystemTime::now() - Duration::from_hours(48);
    fs::File::create(&stale)
        .unwrap()
        .set_modified(days_ago)
        .unwrap();
    let store = store_at(dir.path());
    assert_eq!(store.list(None, Depth::Children).count().await, 0);
    assert!(stale.exists(), "a reader changes nothing");
    put(&*store, "b").await.unwrap();
    assert!(!stale.exists());
}

#[tokio::test]
async fn a_change_under_a_reader_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let store = store_at(dir.path());
    let content = bodies::random(10 << 20, 1);
    for change in ["rewrite", "truncate", "delete"] {
        let options = PutOptions::default();
        let body = bodies::chunked(content.clone(), 1 << 20);
        store
            .put(&key("a"), body, &options, &CancellationToken::new())
            .await
            .unwrap();
        let mut body = store.read(&key("a"), None).await.unwrap();
        body.next().await.unwrap().unwrap();
        let path = dir.path().join("a");
        match change {
            "rewrite" => fs::write(&path, vec![0; content.len()]).unwrap(),
            "truncate" => fs::File::options()
                .write(true)
                .open(&path)
                .and_then(|file| file.set_len(5 << 20))
                .unwrap(),
            _ => fs::remove_file(&path).unwrap(),
        }
        let (_, error) = bodies::drain(body).await;
        let kind = bodies::kind_of(error.unwrap_or_else(|| panic!("{change}: read to the end")));
        let expected = if change == "delete" {
            ErrorKind::NotFound
        } else {
            ErrorKind::Corrupt
        };
        assert_eq!(kind, expected, "{change}");
    }
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let store = store_at(file.path());
    let error = store.create(&key("a"), "x".into()).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains(file.path().file_name().unwrap().to_str().unwrap())
    );
}

#[test]
fn free_space_is_known() {
    let dir = TempDir::new().unwrap();
    assert!(free_bytes(dir.path()).unwrap() > 0);
    let missing = free_bytes(&dir.path().join("missing"));
    assert_eq!(missing.unwrap_err().kind(), ErrorKind::NotFound);
}
