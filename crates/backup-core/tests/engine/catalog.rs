//! Finding backups.

use backup_core::catalog::{Catalog, ListRequest, Selector};
use backup_core::error::ErrorKind;
use backup_testing::RecordingStore;
use tokio_util::sync::CancellationToken;

use super::{Bench, dumper, request, source};

#[tokio::test]
async fn lists_newest_first_within_limits_and_neighbours_apart() {
    let bench = Bench::new();
    let mut ids = Vec::new();
    for name in ["app", "app-x", "app", "my-app"] {
        bench.clock.advance(std::time::Duration::from_mins(1));
        let outcome = bench
            .engine
            .backup(&dumper(), &request(name), &CancellationToken::new())
            .await
            .unwrap();
        ids.push(outcome.manifest.id);
    }
    let list = async |request: ListRequest| {
        let listing = bench.engine.catalog().list(&request).await.unwrap();
        listing
            .backups
            .into_iter()
            .map(|manifest| manifest.id)
            .collect::<Vec<_>>()
    };
    let all: Vec<_> = ids.iter().rev().cloned().collect();
    assert_eq!(list(ListRequest::default()).await, all);
    let app = ListRequest {
        source: Some(source("app")),
        ..ListRequest::default()
    };
    assert_eq!(list(app).await, [ids[2].clone(), ids[0].clone()]);
    let two = ListRequest {
        limit: Some(2),
        ..ListRequest::default()
    };
    assert_eq!(list(two).await, all[..2]);
    let since = ListRequest {
        since: Some(ids[2].started_at()),
        ..ListRequest::default()
    };
    assert_eq!(list(since).await, all[..2]);
}

/// Names tell the order, so that only what is shown is read.
#[tokio::test]
async fn what_is_not_asked_for_is_not_read() {
    let bench = Bench::new();
    let mut ids = Vec::new();
    for _ in 0..6 {
        bench.clock.advance(std::time::Duration::from_mins(1));
        ids.push(bench.good().await.manifest.id);
    }
    let newest_first: Vec<_> = ids.into_iter().rev().collect();
    // The second newest turns out to be none, so that a third is looked at.
    let gone = format!("backups/app/{}/manifest.json", newest_first[1]);
    assert!(bench.memory.remove(&gone));
    let recording = RecordingStore::new(bench.memory.clone());
    let catalog = Catalog::new(&recording);
    let request = ListRequest {
        limit: Some(2),
        ..ListRequest::default()
    };
    let listing = catalog.list(&request).await.unwrap();
    let found: Vec<_> = listing.backups.iter().map(|b| &b.id).collect();
    assert_eq!(found, [&newest_first[0], &newest_first[2]]);
    // Whatever is asked for, a folder without a manifest is named as such.
    let left = (source("app"), newest_first[1].clone());
    assert_eq!(listing.uncommitted, std::slice::from_ref(&left));
    let all = Catalog::new(&*bench.memory);
    let all = all.list(&ListRequest::default()).await.unwrap();
    assert_eq!(all.uncommitted, [left]);
    let manifests_read = || {
        let calls = recording.calls().into_iter();
        let reads = calls.filter(|call| call.key.ends_with("/manifest.json"));
        reads.count()
    };
    assert_eq!(manifests_read(), 3, "{:?}", recording.log());
    recording.clear();
    let latest = catalog.find(&Selector::Latest, Some(&source("app"))).await;
    assert_eq!(latest.unwrap().id, newest_first[0]);
    assert_eq!(manifests_read(), 1, "{:?}", recording.log());
}

#[tokio::test]
async fn what_has_no_manifest_is_no_backup_and_damage_is_named() {
    let bench = Bench::new();
    let good = bench.good().await.manifest;
    let torn = bench.good().await.manifest;
    let damaged = bench.good().await.manifest;
    assert!(
        bench
            .memory
            .remove(&format!("backups/app/{}/manifest.json", torn.id))
    );
    bench
        .memory
        .truncate(&format!("backups/app/{}/manifest.json", damaged.id), 100);
    bench.memory.set("backups/app/README.txt", "foreign");
    bench
        .memory
        .set("backups/app/not-a-backup/manifest.json", "{}");
    let listing = bench
        .engine
        .catalog()
        .list(&ListRequest::default())
        .await
        .unwrap();
    assert_eq!(listing.backups, std::slice::from_ref(&good));
    assert_eq!(listing.damaged.len(), 1);
    assert!(listing.damaged[0].0.as_str().contains(damaged.id.as_str()));
    // The newest cannot be read: an older one must not be taken for it.
    let catalog = bench.engine.catalog();
    let latest = catalog.find(&Selector::Latest, None).await;
    assert_eq!(latest.unwrap_err().kind(), ErrorKind::Corrupt);
    let oldest = catalog.find(&Selector::Oldest, None).await;
    assert_eq!(oldest.unwrap(), good);
}

#[tokio::test]
async fn a_manifest_moved_to_another_place_is_not_believed() {
    let bench = Bench::new();
    let old = bench.good().await.manifest;
    let new = bench.good().await.manifest;
    let replayed = bench
        .memory
        .bytes(&format!("backups/app/{}/manifest.json", old.id))
        .unwrap();
    bench
        .memory
        .set(&format!("backups/app/{}/manifest.json", new.id), replayed);
    let listing = bench
        .engine
        .catalog()
        .list(&ListRequest::default())
        .await
        .unwrap();
    assert_eq!(listing.backups, [old]);
    assert_eq!(listing.damaged[0].1, "manifest belongs to another backup");
}

#[tokio::test]
async fn selectors_find_one_or_say_why_not() {
    let bench = Bench::new();
    let first = bench.good().await.manifest;
    let second = bench.good().await.manifest;
    let catalog = bench.engine.catalog();
    let app = source("app");
    for (text, expected) in [
        ("latest", &second),
        ("oldest", &first),
        (first.id.as_str(), &first),
        (&second.id.as_str()[..16], &second),
    ] {
        let selector: Selector = text.parse().unwrap();
        assert_eq!(
            catalog.find(&selector, Some(&app)).await.unwrap(),
            *expected,
            "{text}"
        );
    }
    for (text, kind) in [
        ("20260205", ErrorKind::InvalidInput),
        ("20200101", ErrorKind::NotFound),
    ] {
        let selector: Selector = text.parse().unwrap();
        assert_eq!(
            catalog.find(&selector, None).await.unwrap_err().kind(),
            kind,
            "{text}"
        );
    }
    for text in ["", "newest", "../x", "2026 0205"] {
        assert!(text.parse::<Selector>().is_err(), "{text}");
    }
    let other = catalog
        .find(&Selector::Latest, Some(&source("other")))
        .await;
    assert_eq!(other.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn backups_without_a_repository_record_are_a_reason_to_stop() {
    let bench = Bench::new();
    bench.good().await;
    assert!(bench.memory.remove("repository.json"));
    let error = bench.backup(&dumper()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
}

/// What a later build has made of the repository is not for this one to add to.
#[tokio::test]
async fn a_repository_record_that_cannot_be_understood_is_a_reason_to_stop() {
    for (record, kind) in [
        (
            "{\"format\": 2, \"repository\": 7}",
            ErrorKind::InvalidInput,
        ),
        ("{\"format\": 1}", ErrorKind::Corrupt),
        ("", ErrorKind::Corrupt),
    ] {
        let bench = Bench::new();
        bench.memory.set("repository.json", record);
        let error = bench.backup(&dumper()).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{record}");
        assert_eq!(bench.memory.keys(), ["repository.json"], "{record}");
    }
}

#[tokio::test]
async fn every_backup_belongs_to_the_same_repository() {
    let bench = Bench::new();
    let first = bench.good().await.manifest;
    let second = bench.good().await.manifest;
    assert_eq!(first.repository, second.repository);
    assert_eq!(first.repository.len(), 32);
}

#[tokio::test]
async fn a_filtered_backup_is_neither_latest_nor_oldest() {
    let bench = Bench::new();
    let full = bench.good().await.manifest;
    bench.clock.advance(std::time::Duration::from_mins(1));
    let filtered = dumper().source(|source| source.filtered = true);
    let filtered = bench.backup(&filtered).await.unwrap().manifest;
    let catalog = bench.engine.catalog();
    let latest = catalog.find(&Selector::Latest, None).await.unwrap();
    assert_eq!(latest, full);
    let by_id: Selector = filtered.id.as_str().parse().unwrap();
    assert_eq!(catalog.find(&by_id, None).await.unwrap(), filtered);
}
