//! Backups that are copied: whole and unchanged, or not at all.

use std::sync::Arc;

use backup_core::catalog::ListRequest;
use backup_core::engine::{CopyOutcome, Engine};
use backup_core::error::{Error, ErrorKind};
use backup_core::manifest::Manifest;
use backup_core::run_record::Operation;
use backup_testing::{Fault, FaultyStore, Op};
use rstest::rstest;
use tokio_util::sync::CancellationToken;

use super::expire::record;
use super::{Bench, lease_settings};

/// From one place to another, whose store can be told to break.
struct Pair {
    from: Bench,
    to: Bench,
    faults: Arc<FaultyStore>,
    target: Engine,
}

impl Pair {
    fn new() -> Self {
        let (from, to) = (Bench::new(), Bench::new());
        let faults = Arc::new(FaultyStore::new(to.memory.clone()));
        let target = to.engine.clone().over(faults.clone());
        Self {
            from,
            to,
            faults,
            target,
        }
    }

    async fn copy(&self, backup: &Manifest) -> Result<CopyOutcome, Error> {
        let cancel = CancellationToken::new();
        self.from
            .engine
            .copy(backup, &self.target, 2, &cancel)
            .await
    }

    /// Nothing but what names the repository.
    fn assert_nothing_copied(&self) {
        let mut keys = self.to.memory.keys();
        keys.retain(|key| key != "repository.json");
        assert_eq!(keys, Vec::<String>::new());
        assert_eq!(self.to.memory.open_uploads(), 0);
    }
}

#[tokio::test]
async fn a_copy_is_the_same_to_the_byte_and_is_made_once() {
    let pair = Pair::new();
    let backup = pair.from.good().await.manifest;
    let outcome = pair.copy(&backup).await.unwrap();
    assert_eq!(pair.to.memory.keys(), pair.from.memory.keys());
    let mut bytes = 0;
    for key in pair
        .from
        .memory
        .keys()
        .iter()
        .filter(|key| *key != "repository.json")
    {
        let stored = pair.from.memory.bytes(key).unwrap();
        bytes += stored.len() as u64;
        assert_eq!(pair.to.memory.bytes(key).unwrap(), stored, "{key}");
    }
    let objects = pair.from.memory.keys().len() - 1;
    assert_eq!(outcome, CopyOutcome { objects, bytes });
    // An empty place becomes the same repository, so nobody is warned of a stranger.
    pair.to.engine.open(backup.clone()).await.unwrap();
    assert_eq!(pair.to.observer.warnings(), Vec::<String>::new());
    assert_eq!(pair.copy(&backup).await.unwrap(), CopyOutcome::default());
}

#[rstest]
#[case::changed("data-rest.dump.fake.crypt", |bench: &Bench, key: &str| bench.memory.flip(key, 99), "SHA-256")]
#[case::cut("data-rest.dump.fake.crypt", |bench: &Bench, key: &str| bench.memory.truncate(key, 99), "99 bytes")]
#[case::gone("data-0001.dump.fake.crypt", |bench: &Bench, key: &str| assert!(bench.memory.remove(key)), "missing")]
#[case::another_key("key.crypt", |bench: &Bench, key: &str| bench.memory.flip(key, 1), "key.crypt")]
#[tokio::test]
async fn what_is_damaged_is_not_copied(
    #[case] object: &str,
    #[case] damage: fn(&Bench, &str),
    #[case] words: &str,
) {
    let pair = Pair::new();
    let backup = pair.from.good().await.manifest;
    damage(&pair.from, &format!("backups/app/{}/{object}", backup.id));
    let error = pair.copy(&backup).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
    let text = backup_core::error::chain(&error);
    assert!(text.contains(words), "{text}");
    pair.assert_nothing_copied();
}

#[rstest]
#[case(Op::Put, "data-rest")]
#[case(Op::Put, "key.")]
#[case(Op::Create, "manifest.json")]
#[tokio::test]
async fn a_place_that_refuses_has_nothing_and_takes_it_later(#[case] op: Op, #[case] key: &str) {
    let pair = Pair::new();
    let backup = pair.from.good().await.manifest;
    let fault = Fault::on(op).key(key).rejects(ErrorKind::PermissionDenied);
    pair.faults.inject(fault);
    let error = pair.copy(&backup).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
    pair.assert_nothing_copied();
    pair.faults.heal();
    pair.copy(&backup).await.unwrap();
    assert_eq!(pair.to.memory.keys(), pair.from.memory.keys());
}

#[tokio::test]
async fn lost_answers_are_found_out_and_another_manifest_is_never_replaced() {
    let pair = Pair::new();
    let backup = pair.from.good().await.manifest;
    let lost = Fault::on(Op::Create)
        .key("manifest.json")
        .loses_the_answer();
    pair.faults.inject(lost);
    pair.copy(&backup).await.unwrap();

    let key = format!("backups/app/{}/manifest.json", backup.id);
    pair.to.memory.set(&key, "another");
    let before = pair.to.memory.keys();
    let error = pair.copy(&backup).await.unwrap_err();
    assert!(error.to_string().contains("another manifest"), "{error}");
    assert_eq!(pair.to.memory.keys(), before);
}

#[tokio::test]
async fn a_copy_that_is_cancelled_leaves_nothing() {
    let pair = Pair::new();
    let backup = pair.from.good().await.manifest;
    pair.faults
        .inject(Fault::on(Op::Put).key("data-rest").stalls_after(10_000));
    let cancel = CancellationToken::new();
    let copy = pair.from.engine.copy(&backup, &pair.target, 2, &cancel);
    let stop = async {
        while pair.faults.hits() == 0 {
            tokio::task::yield_now().await;
        }
        cancel.cancel();
    };
    let (copied, ()) = tokio::join!(copy, stop);
    assert!(matches!(copied, Err(Error::Cancelled)), "{copied:?}");
    pair.assert_nothing_copied();
}

/// Else one that fails would take away what the other has committed.
#[tokio::test]
async fn one_copy_or_prune_at_a_time_in_one_place() {
    let pair = Pair::new();
    let backup = pair.from.good().await.manifest;
    let target = pair.target.clone().with_leases(lease_settings(1));
    let pair = Pair { target, ..pair };
    let never = CancellationToken::new();
    let other = pair.to.engine.clone().with_leases(lease_settings(2));
    for operation in [Operation::Copy, Operation::Prune] {
        let lease = other.hold_stored(&backup.source, operation.clone(), &never);
        let lease = lease.await.unwrap().unwrap();
        let copied = pair.copy(&backup).await;
        let Err(Error::Held { holder, .. }) = copied else {
            panic!("{copied:?}");
        };
        assert_eq!(holder.operation, operation);
        lease.release().await.unwrap();
    }
    pair.copy(&backup).await.unwrap();
    assert_eq!(pair.copy(&backup).await.unwrap(), CopyOutcome::default());
}

fn of(backup: &Manifest, name: &str) -> String {
    format!("backups/app/{}/{name}", backup.id)
}

/// What is gone from a backup comes back, and nothing else is written.
#[tokio::test]
async fn what_a_copy_lacks_is_put_there_once_more() {
    let pair = Pair::new();
    let backup = pair.from.good().await.manifest;
    pair.copy(&backup).await.unwrap();
    let whole = pair.to.memory.keys();
    let (gone, cut, key) = (
        of(&backup, "data-rest.dump.fake.crypt"),
        of(&backup, "data-0001.dump.fake.crypt"),
        of(&backup, "key.crypt"),
    );
    assert!(pair.to.memory.remove(&gone) && pair.to.memory.remove(&key));
    pair.to.memory.truncate(&cut, 7);
    let listed = pair.to.engine.catalog();
    let listed = listed.list(&ListRequest::default()).await.unwrap();
    let [incomplete] = listed.incomplete.as_slice() else {
        panic!("{:?}", listed.incomplete);
    };
    assert_eq!(incomplete.id, backup.id);
    let mut objects = incomplete.objects.clone();
    objects.sort();
    let names = [
        "data-0001.dump.fake.crypt",
        "data-rest.dump.fake.crypt",
        "key.crypt",
    ];
    assert_eq!(objects, names);
    assert!(listed.lacks(&backup));

    // A source that is damaged itself mends nothing, and takes nothing away.
    pair.from.memory.flip(&cut, 3);
    let error = pair.copy(&backup).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
    assert_eq!(pair.to.memory.bytes(&cut).unwrap().len(), 7);
    pair.from.memory.flip(&cut, 3);

    pair.copy(&backup).await.unwrap();
    assert_eq!(pair.to.memory.keys(), whole);
    for key in [&gone, &cut, &key] {
        assert_eq!(
            pair.to.memory.bytes(key),
            pair.from.memory.bytes(key),
            "{key}"
        );
    }
    assert_eq!(pair.copy(&backup).await.unwrap(), CopyOutcome::default());
    let listed = pair.to.engine.catalog();
    let listed = listed.list(&ListRequest::default()).await.unwrap();
    assert_eq!(listed.incomplete, []);
}

/// Bytes that rotted are only seen by reading, which a record tells to do.
#[tokio::test]
async fn what_was_found_damaged_is_put_there_once_more() {
    let pair = Pair::new();
    let backup = pair.from.good().await.manifest;
    pair.copy(&backup).await.unwrap();
    let rotten = of(&backup, "data-rest.dump.fake.crypt");
    pair.to.memory.flip(&rotten, 9);
    assert_eq!(pair.copy(&backup).await.unwrap(), CopyOutcome::default());
    pair.to.clock.advance(std::time::Duration::from_hours(1));
    record(&pair.to, &backup, 1).await;
    let outcome = pair.copy(&backup).await.unwrap();
    assert_eq!(outcome.objects, 1);
    assert_eq!(
        pair.to.memory.bytes(&rotten),
        pair.from.memory.bytes(&rotten)
    );
}

/// Somebody swept what a copy had written, while its machine was suspended.
#[tokio::test]
async fn a_copy_that_stood_still_commits_nothing_that_was_swept() {
    let pair = Pair::new();
    let backup = pair.from.good().await.manifest;
    let target = pair.target.clone().with_leases(lease_settings(1));
    let pair = Pair { target, ..pair };
    let fault = Fault::on(Op::Put)
        .key("data-rest")
        .delays(std::time::Duration::from_millis(300));
    pair.faults.inject(fault);
    let never = CancellationToken::new();
    let other = pair.to.engine.clone().with_leases(lease_settings(2));
    let copy = pair.copy(&backup);
    let sweep = async {
        while pair.faults.hits() == 0 {
            tokio::task::yield_now().await;
        }
        pair.to.clock.advance(std::time::Duration::from_hours(48));
        let lease = other.hold_stored(&backup.source, Operation::Prune, &never);
        lease.await.unwrap().unwrap()
    };
    let (copied, lease) = tokio::join!(copy, sweep);
    assert!(matches!(copied, Err(Error::LeaseLost { .. })), "{copied:?}");
    lease.release().await.unwrap();
    let listed = pair.to.engine.catalog();
    let listed = listed.list(&ListRequest::default()).await.unwrap();
    assert_eq!(listed.backups, []);
}
