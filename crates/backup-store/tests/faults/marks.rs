//! What a service is told about the objects that are written.

use std::collections::BTreeMap;
use std::error::Error as _;

use backup_core::error::ErrorKind;
use backup_core::store::PutOptions;
use backup_store::{StoreConfig, StoreOptions, open};
use backup_testing::{FakeBucket, HttpFault, bodies, error_document};
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::{body, key, put, small, store};

fn marked() -> StoreOptions {
    let tags = [("team", "shop & co"), ("tier", "daily")];
    StoreOptions {
        storage_class: Some("STANDARD_IA".to_owned()),
        tags: BTreeMap::from(tags.map(|(name, value)| (name.to_owned(), value.to_owned()))),
        sse: Some("aws:kms".to_owned()),
        sse_kms_key_id: Some("key-1".to_owned()),
        access_key_id: Some("id".into()),
        secret_access_key: Some("canary".into()),
        ..StoreOptions::default()
    }
}

#[tokio::test]
async fn every_object_is_marked_and_only_long_ones_have_a_class() {
    let server = FakeBucket::start().await;
    let options = StoreOptions {
        endpoint: Some(server.endpoint.clone()),
        ..marked()
    };
    let mut config = StoreConfig::parse("s3://bucket", &options).unwrap();
    config.limits = small();
    let store = open(&config).unwrap();
    // In parts, in one piece, and what is read to list backups.
    put(&*store, body()).await.unwrap();
    let (name, cancel) = (key("small"), CancellationToken::new());
    let tiny = bodies::chunked("x", 1);
    let options = PutOptions::default();
    let whole = store.put(&name, tiny, &options, &cancel);
    whole.await.unwrap();
    let manifest = Bytes::from_static(b"{}");
    store.create(&key("manifest"), manifest).await.unwrap();
    for (name, class) in [
        ("object", Some("STANDARD_IA")),
        ("small", Some("STANDARD_IA")),
        ("manifest", None),
    ] {
        let headers = server.headers(name);
        let header = |name: &str| headers.get(name).map(String::as_str);
        assert_eq!(header("x-amz-storage-class"), class, "{name}");
        assert_eq!(header("x-amz-server-side-encryption"), Some("aws:kms"));
        assert_eq!(
            header("x-amz-server-side-encryption-aws-kms-key-id"),
            Some("key-1")
        );
        let tags = header("x-amz-tagging").unwrap_or_default();
        assert_eq!(tags, "team=shop+%26+co&tier=daily", "{name}");
    }
}

#[tokio::test]
async fn an_archived_object_is_told_apart_from_a_missing_right() {
    let server = FakeBucket::start().await;
    server.set_object("object", b"content");
    let answer = HttpFault::Answer(403, error_document("InvalidObjectState"));
    server.fault(|request| request.method == "GET", 0, usize::MAX, answer);
    let Err(error) = store(&server, small()).read(&key("object"), None).await else {
        panic!("the read begins");
    };
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    let cause = error.source().expect("a cause").to_string();
    assert!(cause.contains("InvalidObjectState"), "{cause}");
    assert!(error.hint().unwrap().contains("in an archive"), "{error:?}");
}
