//! What was read before is not read again, and never shown once it is gone or another.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backup_core::body::collect;
use backup_core::error::ErrorKind;
use backup_core::store::{Depth, PutOptions, Store, StoreKey};
use backup_store::CachedStore;
use backup_testing::{MemoryStore, RecordingStore, bodies, contract};
use chrono::{DateTime, Utc};
use futures::TryStreamExt as _;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

const MANIFEST: &str = "backups/app/20260205T030000Z-7f3a/manifest.json";
const RUN: &str = "_runs/2026/02/20260205T030000Z-7f3a09c2.json";
const PART: &str = "backups/app/20260205T030000Z-7f3a/data-rest.dump";
const REPOSITORY: &str = "00112233445566778899aabbccddeeff";

struct Bench {
    folder: TempDir,
    memory: Arc<MemoryStore>,
}

impl Bench {
    fn new() -> Self {
        let memory = Arc::new(MemoryStore::new());
        for key in [MANIFEST, RUN, PART] {
            memory.set(key, key.as_bytes().to_vec());
        }
        let folder = tempfile::tempdir().expect("it works");
        Self { folder, memory }
    }

    fn directory(&self) -> PathBuf {
        self.folder.path().join("caches/backup")
    }

    fn file(&self) -> PathBuf {
        let mut files = fs::read_dir(self.directory()).expect("it works");
        let file = files.next().expect("it works").expect("it works").path();
        assert!(files.next().is_none(), "one file");
        file
    }

    /// What a process finds that lists everything and reads all objects, and which of them it
    /// asked the store for.
    async fn read_all(&self) -> (Vec<String>, Vec<String>) {
        let recording = RecordingStore::new(self.memory.clone());
        let store = CachedStore::open(Arc::new(recording.clone()), &self.directory(), REPOSITORY);
        let listed: Vec<_> = store
            .list(None, Depth::Recursive)
            .try_collect()
            .await
            .expect("it works");
        assert_eq!(listed.len(), self.memory.keys().len());
        let mut found = Vec::new();
        for key in self.memory.keys() {
            found.push(read(&store, &key).await.expect("it works"));
        }
        store.save();
        let calls = recording.calls().into_iter();
        let asked = calls.filter(|call| call.op.to_string() == "read");
        (found, asked.map(|call| call.key).collect())
    }
}

async fn read(store: &dyn Store, key: &str) -> Result<String, ErrorKind> {
    let key = StoreKey::new(key).expect("it works");
    let body = store.read(&key, None).await.map_err(|e| e.kind())?;
    let text = collect(body, 1000).await.map_err(|e| e.kind())?;
    Ok(String::from_utf8(text.to_vec()).expect("it works"))
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it works").permissions().mode() & 0o777
}

#[tokio::test]
async fn records_are_read_once_and_parts_always() {
    let bench = Bench::new();
    let (first, asked) = bench.read_all().await;
    assert_eq!(asked, [RUN, PART, MANIFEST]);
    let (second, asked) = bench.read_all().await;
    assert_eq!((second, asked), (first, vec![PART.to_owned()]));
    assert_eq!(mode(&bench.file()), 0o600);
    assert_eq!(mode(&bench.directory()), 0o700);
    let text = String::from_utf8(fs::read(bench.file()).unwrap()).unwrap();
    assert!(text.contains(RUN) && !text.contains(PART), "{text}");
}

#[tokio::test]
async fn what_is_gone_or_another_is_not_shown() {
    let bench = Bench::new();
    bench.read_all().await;
    assert!(bench.memory.remove(RUN));
    let (found, _) = bench.read_all().await;
    assert_eq!(found, [PART, MANIFEST]);
    // Of the same length, written at another time; then of another length, at the same time.
    let other = "x".repeat(MANIFEST.len());
    bench.memory.set(MANIFEST, other.clone());
    let later: DateTime<Utc> = "2027-01-01T00:00:00Z".parse().unwrap();
    bench.memory.set_modified(MANIFEST, later);
    let (found, asked) = bench.read_all().await;
    assert_eq!(
        (&found[1], asked.contains(&MANIFEST.to_owned())),
        (&other, true)
    );
    bench.memory.set(MANIFEST, "short");
    bench.memory.set_modified(MANIFEST, later);
    let (found, _) = bench.read_all().await;
    assert_eq!(found[1], "short");
}

#[tokio::test]
async fn what_no_listing_showed_is_asked_for() {
    let bench = Bench::new();
    bench.read_all().await;
    let store = CachedStore::open(bench.memory.clone(), &bench.directory(), REPOSITORY);
    assert_eq!(read(&store, MANIFEST).await.as_deref(), Ok(MANIFEST));
    assert!(bench.memory.remove(MANIFEST));
    assert_eq!(read(&store, MANIFEST).await, Err(ErrorKind::NotFound));
}

#[tokio::test]
async fn a_file_that_cannot_be_used_is_as_good_as_none() {
    let bench = Bench::new();
    bench.read_all().await;
    let good = fs::read(bench.file()).unwrap();
    let cut = good[..good.len() - 3].to_vec();
    let garbled = String::from_utf8(good.clone()).unwrap().replace(' ', "  ");
    for bad in [Vec::new(), b"{}".to_vec(), cut, garbled.into_bytes()] {
        fs::write(bench.file(), bad).unwrap();
        let (found, asked) = bench.read_all().await;
        assert_eq!((found.len(), asked.len()), (3, 3));
    }
    // Whoever else could write there could say anything.
    fs::set_permissions(bench.file(), fs::Permissions::from_mode(0o620)).unwrap();
    let (_, asked) = bench.read_all().await;
    assert_eq!(asked.len(), 3);
    // A place that cannot be written to is no error.
    let file = bench.folder.path().join("file");
    fs::write(&file, "").unwrap();
    let store = CachedStore::open(bench.memory.clone(), &file.join("below"), REPOSITORY);
    let _: Vec<_> = store
        .list(None, Depth::Recursive)
        .try_collect()
        .await
        .unwrap();
    assert_eq!(read(&store, RUN).await.as_deref(), Ok(RUN));
    store.save();
}

#[tokio::test]
async fn another_repository_in_the_same_place_has_a_file_of_its_own() {
    let bench = Bench::new();
    bench.read_all().await;
    let recording = RecordingStore::new(bench.memory.clone());
    let inner = Arc::new(recording.clone());
    let store = CachedStore::open(inner, &bench.directory(), &"f".repeat(32));
    let _: Vec<_> = store
        .list(None, Depth::Recursive)
        .try_collect()
        .await
        .unwrap();
    read(&store, MANIFEST).await.unwrap();
    assert!(recording.log().contains(&format!("read {MANIFEST}")));
}

#[tokio::test]
async fn it_is_a_store_like_any_other() {
    let folder = tempfile::tempdir().unwrap();
    let fresh = || -> Arc<dyn Store> {
        let memory = Arc::new(MemoryStore::new());
        Arc::new(CachedStore::open(memory, folder.path(), REPOSITORY))
    };
    contract::store::all(async || fresh()).await;
    let store = fresh();
    let (key, cancel) = (StoreKey::new(MANIFEST).unwrap(), CancellationToken::new());
    let body = bodies::chunked("{}", 1);
    let options = PutOptions::default();
    store.put(&key, body, &options, &cancel).await.unwrap();
    assert_eq!(read(&*store, MANIFEST).await.as_deref(), Ok("{}"));
}
