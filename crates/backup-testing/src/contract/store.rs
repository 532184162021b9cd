//! The contract of [`Store`].
//!
//! Every function wants a store that is empty, or a prefix of one, and leaves its objects
//! behind.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use backup_core::body::{BodyStream, body_of};
use backup_core::error::ErrorKind;
use backup_core::store::{Depth, Entry, PutOptions, Store, StoreKey};
use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use tokio_util::sync::CancellationToken;

use crate::bodies::{chunked, drain, failing, generated, random, stalling};

/// Everything with sizes for a fast store; `fresh` gives an empty one for each property.
pub async fn all<F: AsyncFn() -> Arc<dyn Store>>(fresh: F) {
    put_is_atomic(&*fresh().await).await;
    put_replaces_the_whole_object(&*fresh().await).await;
    failed_body_leaves_nothing(&*fresh().await).await;
    cancelled_put_leaves_nothing(&*fresh().await).await;
    empty_body(&*fresh().await).await;
    create_is_exclusive(&*fresh().await).await;
    concurrent_creates_have_one_winner(&*fresh().await).await;
    replace_wants_what_was_seen(&*fresh().await).await;
    concurrent_replaces_have_one_winner(&*fresh().await).await;
    checking_conditions_leaves_nothing(&*fresh().await).await;
    read_ranges(&*fresh().await).await;
    missing_objects(&*fresh().await).await;
    head(&*fresh().await).await;
    list_children_and_recursive(&*fresh().await).await;
    neighbours_are_not_listed(&*fresh().await).await;
    delete_is_idempotent(&*fresh().await).await;
    odd_keys(&*fresh().await).await;
    concurrent_puts(&*fresh().await).await;
    large_roundtrip(&*fresh().await, 20 << 20).await;
    list_over_many_pages(&*fresh().await, 50).await;
}

fn key(text: &str) -> StoreKey {
    StoreKey::new(text).expect("a valid key")
}

async fn put(store: &dyn Store, name: &str, body: BodyStream) -> Result<u64, ErrorKind> {
    let cancel = CancellationToken::new();
    let (name, options) = (key(name), PutOptions::default());
    let written = store.put(&name, body, &options, &cancel).await;
    written.map_err(|e| e.kind())
}

async fn put_all(store: &dyn Store, names: &[&str]) {
    for name in names {
        put(store, name, body_of((*name).to_owned()))
            .await
            .unwrap_or_else(|kind| panic!("put {name}: {kind}"));
    }
}

async fn content(store: &dyn Store, name: &str) -> Result<Vec<u8>, ErrorKind> {
    let body = store.read(&key(name), None).await.map_err(|e| e.kind())?;
    match drain(body).await {
        (content, None) => Ok(content),
        (_, Some(e)) => Err(crate::bodies::kind_of(e)),
    }
}

/// Keys below `prefix`, sorted; prefixes end with a slash.
async fn names(store: &dyn Store, prefix: Option<&str>, depth: Depth) -> Vec<String> {
    let prefix = prefix.map(key);
    let entries = store
        .list(prefix.as_ref(), depth)
        .map_ok(|entry| match entry {
            Entry::Object(meta) => meta.key.to_string(),
            Entry::Prefix(prefix) => format!("{prefix}/"),
        });
    let mut names: Vec<String> = entries.try_collect().await.expect("the listing succeeds");
    names.sort();
    names
}

async fn assert_nothing(store: &dyn Store, name: &str) {
    let found = store.head(&key(name)).await.map_err(|e| e.kind());
    assert_eq!(found, Err(ErrorKind::NotFound), "{name} exists");
    let listed = names(store, None, Depth::Recursive).await;
    assert_eq!(listed, Vec::<String>::new(), "objects");
    let listed = names(store, None, Depth::Children).await;
    assert_eq!(listed, Vec::<String>::new(), "entries");
}

/// The object is not there before its put has returned, and then it is whole.
pub async fn put_is_atomic(store: &dyn Store) {
    let content_put = random(100_000, 1);
    let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
    let tail = content_put.slice(50_000..);
    let body = chunked(content_put.slice(..50_000), 1000)
        .chain(stream::once(async move {
            let _ = receiver.await;
            Ok(tail)
        }))
        .boxed();
    let writing = put(store, "a/b/object", body);
    let looking = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_nothing(store, "a/b/object").await;
        sender.send(()).expect("the put waits for its body");
    };
    let (written, ()) = tokio::join!(writing, looking);
    assert_eq!(written, Ok(100_000));
    assert!(content(store, "a/b/object").await == Ok(content_put.to_vec()));
}

/// A second put under the same key leaves nothing of the first.
pub async fn put_replaces_the_whole_object(store: &dyn Store) {
    for body in ["a longer first content", "short"] {
        assert_eq!(put(store, "k", body_of(body)).await, Ok(body.len() as u64));
    }
    assert_eq!(content(store, "k").await, Ok(b"short".to_vec()));
}

/// A body that ends with an error leaves no object and gives back that very error.
pub async fn failed_body_leaves_nothing(store: &dyn Store) {
    for len in [0, 1, 100_000, 9 << 20, 17 << 20] {
        let body = failing(random(len, 2), ErrorKind::ToolFailed);
        let outcome = put(store, "a/failed", body).await;
        assert_eq!(outcome, Err(ErrorKind::ToolFailed), "after {len} bytes");
        assert_nothing(store, "a/failed").await;
    }
}

/// A cancelled put returns soon, as `Cancelled`, and leaves no object.
pub async fn cancelled_put_leaves_nothing(store: &dyn Store) {
    for len in [0, 1000, 17 << 20] {
        let cancel = CancellationToken::new();
        let name = key("a/cancelled");
        let options = PutOptions::default();
        let writing = store.put(&name, stalling(random(len, 3)), &options, &cancel);
        let cancelling = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            cancel.cancel();
        };
        let both = async { tokio::join!(writing, cancelling).0 };
        let outcome = tokio::time::timeout(Duration::from_mins(2), both).await;
        let outcome = outcome.expect("a cancelled put returns");
        assert_eq!(
            outcome.map_err(|e| e.kind()),
            Err(ErrorKind::Cancelled),
            "{len} bytes"
        );
        assert_nothing(store, "a/cancelled").await;
    }
    let cancel = CancellationToken::new();
    cancel.cancel();
    let options = PutOptions::default();
    let outcome = store
        .put(&key("a/late"), body_of("x"), &options, &cancel)
        .await;
    assert_eq!(
        outcome.map_err(|e| e.kind()),
        Err(ErrorKind::Cancelled),
        "cancelled before"
    );
    assert_nothing(store, "a/late").await;
}

/// An empty body is an empty object.
pub async fn empty_body(store: &dyn Store) {
    assert_eq!(put(store, "empty", stream::empty().boxed()).await, Ok(0));
    assert_eq!(content(store, "empty").await, Ok(Vec::new()));
    assert_eq!(
        store.head(&key("empty")).await.map(|m| m.bytes).ok(),
        Some(0)
    );
}

/// A taken key is refused and keeps its content, whoever wrote it.
pub async fn create_is_exclusive(store: &dyn Store) {
    let first = store
        .create(&key("a/lease"), Bytes::from_static(b"first"))
        .await;
    first.expect("the first create succeeds");
    let second = store
        .create(&key("a/lease"), Bytes::from_static(b"second"))
        .await;
    assert_eq!(second.map_err(|e| e.kind()), Err(ErrorKind::AlreadyExists));
    assert_eq!(content(store, "a/lease").await, Ok(b"first".to_vec()));

    assert_eq!(put(store, "a/put", body_of("put")).await, Ok(3));
    let third = store
        .create(&key("a/put"), Bytes::from_static(b"third"))
        .await;
    assert_eq!(third.map_err(|e| e.kind()), Err(ErrorKind::AlreadyExists));
    assert_eq!(content(store, "a/put").await, Ok(b"put".to_vec()));

    store
        .delete(&key("a/lease"))
        .await
        .expect("delete succeeds");
    let again = store
        .create(&key("a/lease"), Bytes::from_static(b"again"))
        .await;
    again.expect("a freed key can be created");
}

/// Of many creates at once at most one succeeds, and the content is a winner's.
pub async fn concurrent_creates_have_one_winner(store: &dyn Store) {
    let creates = (0..8).map(|n| async move {
        let outcome = store
            .create(&key("race"), Bytes::from(format!("owner {n}")))
            .await;
        (n, outcome.map_err(|e| e.kind()))
    });
    let outcomes = futures::future::join_all(creates).await;
    let winners: Vec<_> = outcomes
        .iter()
        .filter(|(_, outcome)| outcome.is_ok())
        .collect();
    assert!(winners.len() <= 1, "several won: {outcomes:?}");
    if let Some((n, _)) = winners.first() {
        let found = content(store, "race").await;
        assert_eq!(found, Ok(format!("owner {n}").into_bytes()));
    }
}

/// Only what was seen is replaced: not another content, not an object that is gone.
pub async fn replace_wants_what_was_seen(store: &dyn Store) {
    let name = key("a/lease");
    let replace = async |seen: &'static str, content: &'static str| {
        let (seen, content) = (Bytes::from_static(seen.as_bytes()), content.into());
        let replaced = store.replace(&name, &seen, content).await;
        replaced.map_err(|e| e.kind())
    };
    assert_eq!(replace("one", "two").await, Err(ErrorKind::Conflict));
    assert_eq!(
        content(store, "a/lease").await,
        Err(ErrorKind::NotFound),
        "a replace makes nothing"
    );
    let created = store.create(&name, Bytes::from_static(b"one")).await;
    created.expect("the create succeeds");
    assert_eq!(replace("one", "two, and longer").await, Ok(()));
    for seen in ["one", "two", "", "two, and longer "] {
        assert_eq!(
            replace(seen, "bad").await,
            Err(ErrorKind::Conflict),
            "{seen}"
        );
    }
    let found = content(store, "a/lease").await;
    assert_eq!(found, Ok(b"two, and longer".to_vec()));
    assert_eq!(replace("two, and longer", "three").await, Ok(()));
    assert_eq!(content(store, "a/lease").await, Ok(b"three".to_vec()));
    assert_eq!(names(store, None, Depth::Recursive).await, ["a/lease"]);
}

/// Of many replaces of the same content at once one succeeds; a loser finds the winner's.
pub async fn concurrent_replaces_have_one_winner(store: &dyn Store) {
    let name = key("race");
    let created = store.create(&name, Bytes::from_static(b"round 0")).await;
    created.expect("the create succeeds");
    let mut seen = Bytes::from_static(b"round 0");
    let mut told = 0;
    for round in 1..=20 {
        let replaces = (0..8).map(|n| {
            let (name, seen) = (&name, &seen);
            async move {
                let content = Bytes::from(format!("round {round} of {n}"));
                let outcome = store.replace(name, seen, content.clone()).await;
                (content, outcome.map_err(|e| e.kind()))
            }
        });
        let outcomes = futures::future::join_all(replaces).await;
        let (won, lost): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(|(_, o)| o.is_ok());
        assert!(won.len() <= 1, "round {round}: {won:?}, {lost:?}");
        told += won.len();
        // Of a busy server an answer can be lost, also that to the winner, who then loses to himself.
        let lost_answer = [
            ErrorKind::Conflict,
            ErrorKind::Unavailable,
            ErrorKind::Timeout,
        ];
        let may_be = |e: &ErrorKind| lost_answer.contains(e);
        assert!(
            lost.iter().all(|(_, o)| o.as_ref().is_err_and(may_be)),
            "round {round}: {lost:?}"
        );
        let found = content(store, "race").await.expect("it is there");
        let winners = if won.is_empty() { &lost } else { &won };
        let winner = winners.iter().find(|(wanted, _)| *wanted == found);
        seen = winner.expect("somebody won").0.clone();
    }
    assert!(told >= 15, "only {told} of 20 winners know");
}

/// A store that keeps its word says so, as often as it is asked, and has no more objects for it.
pub async fn checking_conditions_leaves_nothing(store: &dyn Store) {
    for _ in 0..2 {
        let checked = store.check_conditions().await;
        assert!(checked.is_ok(), "{checked:?}");
    }
    let left = names(store, None, Depth::Recursive).await;
    assert_eq!(left, Vec::<String>::new());
}

/// Any range inside the object; one that leaves it is an error.
pub async fn read_ranges(store: &dyn Store) {
    let whole = random(300_000, 4);
    let written = put(store, "ranges", chunked(whole.clone(), 7777)).await;
    assert_eq!(written, Ok(300_000));
    for range in [
        0..0,
        0..1,
        0..300_000,
        1..2,
        299_999..300_000,
        65_535..65_537,
        7..200_000,
    ] {
        let body = store.read(&key("ranges"), Some(range.clone())).await;
        let (found, error) = drain(body.expect("the read begins")).await;
        assert!(error.is_none(), "{range:?}: {error:?}");
        let bound = |n: u64| usize::try_from(n).expect("a small number");
        let expected = &whole[bound(range.start)..bound(range.end)];
        assert!(found == expected, "{range:?}: {} other bytes", found.len());
    }
    for range in [0..300_001, 300_000..300_001, 400_000..400_001] {
        let failed = match store.read(&key("ranges"), Some(range.clone())).await {
            Err(_) => true,
            Ok(body) => drain(body).await.1.is_some(),
        };
        assert!(failed, "{range:?} is beyond the end: accepted");
    }
}

/// What does not exist is `NotFound` for read and head.
pub async fn missing_objects(store: &dyn Store) {
    assert_eq!(
        content(store, "no/such/object").await,
        Err(ErrorKind::NotFound)
    );
    let found = store
        .head(&key("no/such/object"))
        .await
        .map_err(|e| e.kind());
    assert_eq!(found, Err(ErrorKind::NotFound));
    let ranged = match store.read(&key("no/such/object"), Some(0..5)).await {
        Err(e) => e.kind(),
        Ok(body) => crate::bodies::kind_of(drain(body).await.1.expect("an error")),
    };
    assert_eq!(ranged, ErrorKind::NotFound);
    // A prefix of an existing object is no object.
    put_all(store, &["some/object"]).await;
    assert_eq!(content(store, "some").await, Err(ErrorKind::NotFound));
    let found = store.head(&key("some")).await.map_err(|e| e.kind());
    assert_eq!(found, Err(ErrorKind::NotFound));
}

/// Key, length and a plausible time.
pub async fn head(store: &dyn Store) {
    assert_eq!(put(store, "a/head", body_of("12345")).await, Ok(5));
    let meta = store.head(&key("a/head")).await.expect("it exists");
    assert_eq!((meta.key.as_str(), meta.bytes), ("a/head", 5));
    assert!(
        meta.modified.timestamp() > 1_600_000_000,
        "{}",
        meta.modified
    );
    let listed: Vec<_> = store.list(None, Depth::Recursive).collect().await;
    let [Ok(Entry::Object(listed))] = &listed[..] else {
        panic!("one object expected: {listed:?}");
    };
    assert_eq!((listed.key.as_str(), listed.bytes), ("a/head", 5));
}

/// One level as a folder shows it, or everything below.
pub async fn list_children_and_recursive(store: &dyn Store) {
    put_all(
        store,
        &["top", "a/one", "a/two", "a/b/three", "a/b/c/four", "z/five"],
    )
    .await;
    let cases: [(Option<&str>, Depth, &[&str]); 8] = [
        (None, Depth::Children, &["a/", "top", "z/"]),
        (Some("a"), Depth::Children, &["a/b/", "a/one", "a/two"]),
        (Some("a/b"), Depth::Children, &["a/b/c/", "a/b/three"]),
        (Some("a/b"), Depth::Recursive, &["a/b/c/four", "a/b/three"]),
        (Some("missing"), Depth::Children, &[]),
        (Some("missing/deep"), Depth::Recursive, &[]),
        // An object is not below itself.
        (Some("top"), Depth::Children, &[]),
        (Some("a/one"), Depth::Recursive, &[]),
    ];
    for (prefix, depth, expected) in cases {
        assert_eq!(
            names(store, prefix, depth).await,
            expected,
            "{prefix:?} {depth:?}"
        );
    }
    let all = names(store, None, Depth::Recursive).await;
    assert_eq!(
        all,
        ["a/b/c/four", "a/b/three", "a/one", "a/two", "top", "z/five"]
    );
}

/// A prefix is whole segments: `a` has nothing of `ab` or `a-b`.
pub async fn neighbours_are_not_listed(store: &dyn Store) {
    put_all(store, &["a/1", "ab/2", "a-b/3", "a.b/4", "a~20/5", "A/6"]).await;
    for depth in [Depth::Recursive, Depth::Children] {
        assert_eq!(names(store, Some("a"), depth).await, ["a/1"], "{depth:?}");
        assert_eq!(
            names(store, Some("a-b"), depth).await,
            ["a-b/3"],
            "{depth:?}"
        );
    }
    store.delete(&key("a/1")).await.expect("delete succeeds");
    let rest = names(store, None, Depth::Recursive).await;
    assert_eq!(rest, ["A/6", "a-b/3", "a.b/4", "ab/2", "a~20/5"]);
}

/// A prefix without objects is not listed, as if it were a folder. Not in [`all`]: SeaweedFS
/// shows it for a while, so who lists must take a prefix with nothing below for nothing.
pub async fn emptied_prefixes_disappear(store: &dyn Store) {
    put_all(store, &["a/b/c/one", "a/b/two"]).await;
    store
        .delete(&key("a/b/c/one"))
        .await
        .expect("delete succeeds");
    assert_eq!(
        names(store, Some("a/b"), Depth::Children).await,
        ["a/b/two"]
    );
    store
        .delete(&key("a/b/two"))
        .await
        .expect("delete succeeds");
    assert_eq!(
        names(store, None, Depth::Children).await,
        Vec::<String>::new()
    );
}

/// `planted` are objects that were put there by other means under names that are no keys;
/// they are left out of listings and survive everything that is done beside them.
pub async fn foreign_objects_are_left_out(store: &dyn Store) {
    put_all(store, &["a/ours", "a/b/ours"]).await;
    let listed = names(store, None, Depth::Recursive).await;
    assert_eq!(listed, ["a/b/ours", "a/ours"]);
    assert_eq!(
        names(store, Some("a"), Depth::Children).await,
        ["a/b/", "a/ours"]
    );
    store.delete(&key("a/ours")).await.expect("delete succeeds");
    store
        .delete(&key("a/b/ours"))
        .await
        .expect("delete succeeds");
}

/// Deleting twice, and what never was, is fine; neighbours stay.
pub async fn delete_is_idempotent(store: &dyn Store) {
    put_all(store, &["d/one", "d/two"]).await;
    for name in ["d/one", "d/one", "d/never", "no/where/at/all"] {
        let outcome = store.delete(&key(name)).await;
        assert!(outcome.is_ok(), "delete {name}: {outcome:?}");
    }
    assert_eq!(names(store, None, Depth::Recursive).await, ["d/two"]);
    assert_eq!(content(store, "d/one").await, Err(ErrorKind::NotFound));
}

/// Every character that a key may have, and long ones, come back as they were.
pub async fn odd_keys(store: &dyn Store) {
    let long = format!("{}/{}", "s".repeat(200), "n".repeat(200));
    let keys = [
        "a~20b/c~2fd",
        "..a/b..",
        "-Fp/--help",
        "~/~",
        "UPPER/lower",
        "a.b.c/.hidden",
        "20260205T030000Z-7f3a/data-0001.dump.zst.age.002",
        &long,
    ];
    put_all(store, &keys).await;
    let listed: BTreeSet<String> = names(store, None, Depth::Recursive)
        .await
        .into_iter()
        .collect();
    for name in keys {
        assert!(listed.contains(name), "{name} is not listed");
        assert_eq!(
            content(store, name).await,
            Ok(name.as_bytes().to_vec()),
            "{name}"
        );
    }
    assert_eq!(listed.len(), keys.len(), "{listed:?}");
}

/// Puts at the same time do not disturb each other.
pub async fn concurrent_puts(store: &dyn Store) {
    let bodies: Vec<Bytes> = (0..8)
        .map(|n| random(3_000_000 + n, n as u64 + 10))
        .collect();
    let puts = bodies.iter().enumerate().map(|(n, body)| async move {
        put(store, &format!("many/{n}"), chunked(body.clone(), 50_000)).await
    });
    for (n, outcome) in futures::future::join_all(puts)
        .await
        .into_iter()
        .enumerate()
    {
        assert_eq!(outcome, Ok(bodies[n].len() as u64), "put {n}");
        assert!(content(store, &format!("many/{n}")).await == Ok(bodies[n].to_vec()));
    }
}

/// A body of `len` bytes, larger than any buffer of the store, is written and read back.
pub async fn large_roundtrip(store: &dyn Store, len: u64) {
    let name = key("large/object");
    let cancel = CancellationToken::new();
    let options = PutOptions {
        expected_bytes: Some(len),
    };
    let written = store
        .put(&name, generated(len, 20), &options, &cancel)
        .await;
    assert_eq!(written.map_err(|e| e.kind()), Ok(len));
    let meta = store.head(&name).await.expect("it exists");
    assert_eq!(meta.bytes, len);
    let body = store.read(&name, None).await.expect("the read begins");
    assert_same(body, generated(len, 20)).await;
}

async fn assert_same(mut found: BodyStream, mut expected: BodyStream) {
    let (mut have, mut want, mut at) = (Bytes::new(), Bytes::new(), 0_u64);
    loop {
        if have.is_empty() {
            have = found
                .next()
                .await
                .transpose()
                .expect("no error")
                .unwrap_or_default();
        }
        if want.is_empty() {
            want = expected
                .next()
                .await
                .transpose()
                .expect("no error")
                .unwrap_or_default();
        }
        let len = have.len().min(want.len());
        if len == 0 {
            assert_eq!(have.len(), want.len(), "one body ends at byte {at}");
            return;
        }
        assert!(
            have.split_to(len) == want.split_to(len),
            "other bytes from {at} on"
        );
        at += len as u64;
    }
}

/// A listing longer than a page (1,000 for S3) is complete and has nothing twice.
pub async fn list_over_many_pages(store: &dyn Store, objects: usize) {
    let puts = stream::iter(0..objects).map(|n| async move {
        let name = key(&format!("pages/{}/{n:05}", n % 3));
        let created = store.create(&name, Bytes::from_static(b"x")).await;
        match created {
            // Of thousands of requests at once a busy server drops one, whether it did what it asks or not.
            Err(dropped) if dropped.kind() == ErrorKind::Unavailable => {
                let again = store.create(&name, Bytes::from_static(b"x")).await;
                again.or_else(|error| match error.kind() {
                    ErrorKind::AlreadyExists => Ok(()),
                    _ => Err(error),
                })
            }
            created => created,
        }
    });
    let outcomes: Vec<_> = puts.buffer_unordered(16).collect().await;
    assert!(
        outcomes.iter().all(Result::is_ok),
        "{:?}",
        outcomes.iter().find(|o| o.is_err())
    );
    let mut expected: Vec<_> = (0..objects)
        .map(|n| format!("pages/{}/{n:05}", n % 3))
        .collect();
    expected.sort();
    assert!(
        names(store, Some("pages"), Depth::Recursive).await == expected,
        "recursive"
    );
    assert!(
        names(store, None, Depth::Recursive).await == expected,
        "everything"
    );
    let mut of_one = Vec::new();
    for n in 0..3 {
        of_one.extend(names(store, Some(&format!("pages/{n}")), Depth::Children).await);
    }
    assert!(of_one == expected, "children of each prefix");
}
