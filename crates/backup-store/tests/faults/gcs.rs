//! Google's protocol. No server of it that takes uploads in parts can be run here, so it is the
//! fake alone that keeps the contract.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use backup_core::error::ErrorKind;
use backup_core::store::{Depth, PutOptions, Store};
use backup_store::{Limits, StoreConfig, StoreOptions, open};
use backup_testing::{FakeBucket, HttpFault, HttpRequest, bodies, contract, error_document};
use bytes::Bytes;
use futures::StreamExt as _;
use tokio_util::sync::CancellationToken;

use super::{
    assert_refused, assert_stored, body, content, impatient, in_the_midst, key, put, small,
};

/// A key with which the client asks nobody for a token.
const ACCOUNT: &str = r#"{"type": "service_account", "private_key": "canary", "private_key_id": "k",
    "client_email": "backup@example.org", "disable_oauth": true}"#;

fn gcs(server: &FakeBucket, url: &str, limits: Limits) -> Arc<dyn Store> {
    let options = StoreOptions {
        endpoint: Some(server.endpoint.clone()),
        service_account: Some(ACCOUNT.into()),
        ..StoreOptions::default()
    };
    let mut config = StoreConfig::parse(url, &options).expect("a bucket");
    config.limits = limits;
    open(&config).expect("opening connects to nothing")
}

fn store(server: &FakeBucket) -> Arc<dyn Store> {
    gcs(server, "gs://bucket", small())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_contract_is_kept() {
    let server = FakeBucket::start().await;
    let next = AtomicUsize::new(0);
    let fresh = || {
        let number = next.fetch_add(1, Ordering::Relaxed);
        gcs(
            &server,
            &format!("gs://bucket/deep/er/{number}"),
            Limits::default(),
        )
    };
    contract::store::all(async || fresh()).await;
    contract::store::list_over_many_pages(&*fresh(), 2500).await;
    contract::store::large_roundtrip(&*fresh(), 20 << 20).await;
    assert_eq!(server.open_uploads(), 0);
}

#[tokio::test]
async fn foreign_objects_are_left_out() {
    let server = FakeBucket::start().await;
    let planted = ["place/a b", "place/a/%41", "place/a/b/note é", "other/a"];
    for name in planted {
        server.set_object(name, b"theirs");
    }
    let store = gcs(&server, "gs://bucket/place", small());
    contract::store::foreign_objects_are_left_out(&*store).await;
    for name in planted {
        assert_eq!(server.object(name).as_deref(), Some(&b"theirs"[..]));
    }
}

#[tokio::test]
async fn what_goes_wrong_for_a_while_is_tried_again() {
    for (matches, times, fault) in [
        (
            HttpRequest::is_part as fn(&HttpRequest) -> bool,
            5,
            HttpFault::Answer(503, error_document("SlowDown")),
        ),
        (HttpRequest::is_part, 2, HttpFault::ResetAfter(300_000)),
        (
            HttpRequest::is_complete,
            1,
            HttpFault::Answer(503, error_document("ServiceUnavailable")),
        ),
        (HttpRequest::is_complete, 1, HttpFault::LoseAnswer),
    ] {
        let server = FakeBucket::start().await;
        server.fault(matches, 0, times, fault);
        assert_stored(&server, &*store(&server)).await;
    }
}

#[tokio::test]
async fn what_goes_wrong_for_good_ends_the_upload_and_leaves_nothing() {
    let slow = HttpFault::Answer(503, error_document("SlowDown"));
    for (matches, fault, kind) in [
        (
            HttpRequest::is_part as fn(&HttpRequest) -> bool,
            slow,
            ErrorKind::Unavailable,
        ),
        (HttpRequest::is_part, HttpFault::Stall, ErrorKind::Timeout),
        (
            HttpRequest::is_complete,
            HttpFault::Stall,
            ErrorKind::Timeout,
        ),
        (
            HttpRequest::is_part,
            HttpFault::Answer(403, error_document("AccessDenied")),
            ErrorKind::PermissionDenied,
        ),
    ] {
        let server = FakeBucket::start().await;
        server.fault(matches, 0, usize::MAX, fault);
        let store = gcs(&server, "gs://bucket", impatient());
        assert_refused(&server, &*store, kind).await;
    }
}

#[tokio::test]
async fn a_failed_body_and_a_cancelled_put_remove_their_uploads() {
    let server = FakeBucket::start().await;
    let store = store(&server);
    let failed = put(&*store, bodies::failing(content(), ErrorKind::ToolFailed)).await;
    assert_eq!(failed.unwrap_err().kind(), ErrorKind::ToolFailed);
    assert!(!server.headers("object").is_empty(), "it had begun");
    assert_eq!(server.open_uploads(), 0);

    let cancel = CancellationToken::new();
    let (name, options) = (key("object"), PutOptions::default());
    let before = server.parts_asked();
    server.fault(HttpRequest::is_part, 0, usize::MAX, HttpFault::Stall);
    let cancelling = async {
        in_the_midst(&server, before).await;
        cancel.cancel();
    };
    let (outcome, ()) = tokio::join!(store.put(&name, body(), &options, &cancel), cancelling);
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Cancelled);
    assert_eq!((server.open_uploads(), server.object("object")), (0, None));
}

#[tokio::test]
async fn parts_are_equal_but_the_last() {
    let server = FakeBucket::start().await;
    assert_stored(&server, &*store(&server)).await;
    let part = 1 << 20;
    let lengths = [part, part, part, 3_500_000 - 3 * part];
    assert_eq!(server.parts_of("object"), lengths);
}

#[tokio::test]
async fn answers_that_explain_themselves_are_passed_on() {
    for (status, code, kind, words) in [
        (
            401,
            "AuthenticationRequired",
            ErrorKind::PermissionDenied,
            "wrong",
        ),
        (403, "AccessDenied", ErrorKind::PermissionDenied, "rights"),
        (
            404,
            "NoSuchBucket",
            ErrorKind::NotFound,
            "create the bucket",
        ),
    ] {
        let server = FakeBucket::start().await;
        let answer = HttpFault::Answer(status, error_document(code));
        server.fault(|_| true, 0, usize::MAX, answer);
        let store = store(&server);
        let Err(read) = store.read(&key("object"), None).await else {
            panic!("{code}: the read begins");
        };
        let list = store.list(None, Depth::Children).next().await;
        for (name, outcome) in [
            ("put", put(&*store, body()).await.map(drop)),
            ("create", store.create(&key("object"), Bytes::new()).await),
            ("list", list.expect("an item").map(drop)),
            ("read", Err(read)),
        ] {
            let error = outcome.expect_err(name);
            assert_eq!(error.kind(), kind, "{name}, {code}: {error:?}");
            let hint = error.hint().unwrap_or_default();
            assert!(hint.contains(words), "{name}, {code}: {error:?}");
            let text = format!("{error:?}");
            assert!(text.contains(code) && !text.contains("canary"), "{text}");
        }
    }
}

#[test]
fn what_is_no_key_of_an_account_is_not_repeated() {
    for text in ["canary", "\"canary\"", r#"{"private_key": "canary"}"#] {
        let options = StoreOptions {
            service_account: Some(text.into()),
            ..StoreOptions::default()
        };
        let config = StoreConfig::parse("gs://bucket", &options).expect("a bucket");
        let error = open(&config).expect_err("no key");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(!format!("{error:?}").contains("canary"), "{error:?}");
        assert!(error.hint().is_some_and(|hint| hint.contains("JSON")));
    }
}
