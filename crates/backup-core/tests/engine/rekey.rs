//! Other recipients for a stored backup: whole and readable at every moment.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use backup_core::catalog::ListRequest;
use backup_core::engine::{Engine, RekeyOutcome, VerifyLevel, VerifyRequest};
use backup_core::error::{Error, ErrorKind};
use backup_core::layout;
use backup_core::lease::LeaseKind;
use backup_core::manifest::Manifest;
use backup_core::run_record::Operation;
use backup_core::store::Store;
use backup_testing::{FakeCipher, Fault, FaultyStore, MemoryStore, Op, ScriptedInspector};
use bytes::Bytes;
use rstest::rstest;
use tokio_util::sync::CancellationToken;

use super::{Bench, dumper, lease_settings, source};

/// A backup for alice, and engines of others over the same objects.
struct Vault {
    bench: Bench,
    faults: Arc<FaultyStore>,
    backup: Manifest,
}

impl Vault {
    async fn new() -> Self {
        let bench = Bench::new();
        let backup = bench.good().await.manifest;
        let faults = Arc::new(FaultyStore::new(bench.memory.clone()));
        Self {
            bench,
            faults,
            backup,
        }
    }

    fn engine(&self, recipients: &[&str], identities: &[&str]) -> Engine {
        let cipher = FakeCipher::new(recipients, identities);
        self.bench.engine.clone().with_cipher(Arc::new(cipher))
    }

    /// One that can be told to break, from alice to bob, with leases as process `pid`.
    fn rekeyer(&self, pid: u32) -> Engine {
        let engine = self.engine(&["bob"], &["alice", "bob"]);
        engine
            .over(self.faults.clone())
            .with_leases(lease_settings(pid))
    }

    async fn rekey(&self, pid: u32) -> Result<RekeyOutcome, Error> {
        let never = CancellationToken::new();
        self.rekeyer(pid).rekey(&self.backup, &never).await
    }

    /// What is stored of the backup.
    fn stored(&self) -> BTreeMap<String, Bytes> {
        let prefix = layout::backup_prefix(&self.backup.source, &self.backup.id);
        let keys = self.bench.memory.keys().into_iter();
        keys.filter_map(|key| {
            let name = key.strip_prefix(prefix.as_str())?.strip_prefix('/')?;
            Some((name.to_owned(), self.bench.memory.bytes(&key)?))
        })
        .collect()
    }

    /// The names of the wrapped keys; what is random in one is not shown.
    fn keys(&self) -> Vec<String> {
        let names = self.stored().into_keys();
        let names = names.filter(|name| name.starts_with("key."));
        names.map(|name| without_number(&name)).collect()
    }

    async fn now(&self) -> Manifest {
        let catalog = self.bench.engine.catalog();
        let mut listing = catalog.list(&ListRequest::default()).await.unwrap();
        assert_eq!(listing.damaged, []);
        assert_eq!(listing.backups.len(), 1);
        listing.backups.remove(0)
    }

    /// Who can open it, by the manifest `seen`; that nobody sees damage.
    async fn readers(&self, seen: &Manifest) -> Vec<&'static str> {
        let mut readers = Vec::new();
        for who in ["alice", "bob"] {
            match self.engine(&[], &[who]).open(seen.clone()).await {
                Ok(_) => readers.push(who),
                Err(Error::Key { .. }) => {}
                Err(error) => panic!("{who}: {error:?}"),
            }
        }
        for level in [
            VerifyLevel::Stored,
            VerifyLevel::Hashed,
            VerifyLevel::Decoded,
        ] {
            let request = VerifyRequest { level, jobs: 2 };
            let inspector = Arc::new(ScriptedInspector::of(&dumper()));
            let engine = self.engine(&[], &["alice", "bob"]);
            let never = CancellationToken::new();
            let report = engine.verify(seen, request, inspector, &never).await;
            assert_eq!(report.unwrap().problems, [], "{level:?}");
        }
        readers
    }
}

fn without_number(name: &str) -> String {
    name.chars().filter(|c| !c.is_ascii_digit()).collect()
}

#[tokio::test]
async fn the_new_key_reads_and_the_old_one_does_not() {
    let vault = Vault::new().await;
    let before = vault.stored();
    assert_eq!(vault.readers(&vault.backup).await, ["alice"]);
    let outcome = vault.rekey(1).await.unwrap();
    assert_eq!(outcome.left, []);
    let now = vault.now().await;
    assert_eq!(outcome.manifest, now);
    let record = now.encryption.as_ref().unwrap();
    assert_eq!(record.recipients, ["bob"]);
    assert_eq!(without_number(&record.key), "key.r.crypt");
    assert!(layout::is_object_name(&record.key), "{}", record.key);
    assert_eq!(vault.readers(&now).await, ["bob"]);
    // Nothing else has changed, to the byte.
    let mut after = vault.stored();
    assert!(after.remove(&record.key).is_some());
    let mut before = before;
    assert!(before.remove("key.crypt").is_some());
    before.remove("manifest.json");
    after.remove("manifest.json");
    assert_eq!(before, after);
    assert!(now.is_same_backup(&vault.backup));

    // And again, to others and back.
    let never = CancellationToken::new();
    let both = vault.engine(&["alice", "bob"], &["bob"]);
    let outcome = both.rekey(&now, &never).await.unwrap();
    assert_eq!(vault.keys(), ["key.r.crypt"]);
    let third = outcome.manifest.encryption.as_ref().unwrap();
    assert_ne!(third.key, record.key);
    assert_eq!(vault.readers(&outcome.manifest).await, ["alice", "bob"]);
    // By records of before, it is the same backup.
    assert_eq!(vault.readers(&vault.backup).await, ["alice", "bob"]);
    assert_eq!(vault.readers(&now).await, ["alice", "bob"]);
}

/// Ends the work where the store never answers, as `kill -9` does, and sees what is there.
#[rstest]
#[case::reading_the_key(Op::Read, "key.crypt", &["alice"], &["key.crypt"])]
#[case::listing(Op::List, "backups", &["alice"], &["key.crypt"])]
#[case::writing_the_key(Op::Create, "key.r", &["alice"], &["key.crypt"])]
#[case::reading_it_back(Op::Read, "key.r", &["alice"], &["key.crypt", "key.r.crypt"])]
#[case::the_commit(Op::Replace, "manifest", &["alice"], &["key.crypt", "key.r.crypt"])]
#[case::forgetting(Op::Delete, "key.crypt", &["bob"], &["key.crypt", "key.r.crypt"])]
#[tokio::test(start_paused = true)]
async fn whoever_is_killed_leaves_a_backup_that_opens(
    #[case] op: Op,
    #[case] key: &str,
    #[case] readers: &[&str],
    #[case] keys: &[&str],
) {
    let vault = Vault::new().await;
    vault.faults.inject(Fault::on(op).key(key).stalls());
    let killed = tokio::time::timeout(Duration::from_mins(10), vault.rekey(1)).await;
    assert!(killed.is_err(), "it did not get there");
    vault.faults.heal();
    assert_eq!(vault.keys(), keys);
    assert_eq!(vault.readers(&vault.now().await).await, readers);
    // Who has read the manifest before sees no damage; the old key opens it as long as it is there.
    assert_eq!(vault.readers(&vault.backup).await, ["alice"]);
    // The lease ends by itself; then somebody else does it, and removes what was left.
    vault.bench.clock.advance(Duration::from_mins(20));
    let outcome = vault.rekey(2).await.unwrap();
    assert_eq!(outcome.left, []);
    let name = &outcome.manifest.encryption.as_ref().unwrap().key;
    assert!(vault.stored().contains_key(name), "{name}");
    assert_eq!(vault.keys(), ["key.r.crypt"]);
    assert_eq!(vault.readers(&vault.now().await).await, ["bob"]);
}

#[rstest]
#[case::key(Op::Create, "key.r")]
#[case::commit(Op::Replace, "manifest")]
#[case::forgetting(Op::Delete, "key.crypt")]
#[tokio::test]
async fn a_lost_answer_is_found_out(#[case] op: Op, #[case] key: &str) {
    let vault = Vault::new().await;
    vault
        .faults
        .inject(Fault::on(op).key(key).loses_the_answer());
    let outcome = vault.rekey(1).await.unwrap();
    assert_eq!(vault.readers(&outcome.manifest).await, ["bob"]);
    assert_eq!(outcome.left.len(), usize::from(op == Op::Delete));
    assert_eq!(vault.keys(), ["key.r.crypt"]);
}

#[tokio::test]
async fn what_may_still_come_keeps_its_key() {
    let vault = Vault::new().await;
    let late = Fault::on(Op::Replace)
        .key("manifest")
        .rejects(ErrorKind::Timeout);
    vault.faults.inject(late);
    let error = vault.rekey(1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
    // Should the manifest turn up, then with its key.
    assert_eq!(vault.keys(), ["key.crypt", "key.r.crypt"]);
    assert_eq!(vault.readers(&vault.now().await).await, ["alice"]);
}

#[rstest]
#[case::refused(Op::Create, "key.r", ErrorKind::PermissionDenied)]
#[case::unconditional(Op::Replace, "manifest", ErrorKind::Unsuitable)]
#[tokio::test]
async fn a_store_that_refuses_keeps_the_backup(
    #[case] op: Op,
    #[case] key: &str,
    #[case] kind: ErrorKind,
) {
    let vault = Vault::new().await;
    let before = vault.now().await;
    vault.faults.inject(Fault::on(op).key(key).rejects(kind));
    let error = vault.rekey(1).await.unwrap_err();
    assert_eq!(error.kind(), kind, "{error:?}");
    assert_eq!(vault.now().await, before);
    assert_eq!(vault.readers(&before).await, ["alice"]);
}

#[tokio::test]
async fn an_old_key_that_stays_is_told() {
    let vault = Vault::new().await;
    let fault = Fault::on(Op::Delete).key("key.crypt");
    vault
        .faults
        .inject(fault.rejects(ErrorKind::PermissionDenied));
    let outcome = vault.rekey(1).await.unwrap();
    assert_eq!(outcome.left.len(), 1);
    assert_eq!(outcome.left[0].0, "key.crypt");
    assert_eq!(vault.readers(&outcome.manifest).await, ["bob"]);
    // A later one may be allowed to.
    vault.faults.heal();
    let never = CancellationToken::new();
    let again = vault.rekeyer(1).rekey(&vault.backup, &never).await.unwrap();
    assert_eq!(again.left, []);
    assert_eq!(vault.keys(), ["key.r.crypt"]);
}

#[tokio::test]
async fn without_a_fitting_identity_nothing_changes() {
    let vault = Vault::new().await;
    let never = CancellationToken::new();
    let before = vault.stored();
    for identities in [&[][..], &["mallory"]] {
        let engine = vault.engine(&["bob"], identities);
        let error = engine.rekey(&vault.backup, &never).await.unwrap_err();
        assert!(matches!(error, Error::Key { .. }), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    }
    let nobody = vault.engine(&[], &["alice"]);
    let error = nobody.rekey(&vault.backup, &never).await.unwrap_err();
    assert!(matches!(error, Error::Key { .. }), "{error:?}");
    assert_eq!(vault.stored(), before);
}

#[rstest]
#[case("key.crypt")]
#[case("facts.json.fake.crypt")]
#[tokio::test]
async fn what_is_damaged_is_not_made_to_look_new(#[case] name: &str) {
    let vault = Vault::new().await;
    let key = format!("backups/app/{}/{name}", vault.backup.id);
    vault.bench.memory.flip(&key, 3);
    let before = vault.stored();
    let error = vault.rekey(1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
    assert_eq!(vault.stored(), before);
}

/// One run stands still at some step until another has taken over and is done. Whatever the first
/// does then, the backup opens by the key that the manifest names, and the first says that it lost.
#[rstest]
#[case::reading_the_facts(Op::Read, "facts")]
#[case::writing_the_key(Op::Create, "key.r")]
#[case::reading_it_back(Op::Read, "key.r")]
#[case::the_commit(Op::Replace, "manifest")]
#[tokio::test(start_paused = true)]
async fn whoever_was_overtaken_takes_nothing_away(#[case] op: Op, #[case] key: &str) {
    let vault = Vault::new().await;
    let pause = Duration::from_mins(30);
    vault
        .faults
        .inject(Fault::on(op).key(key).nth(1).delays(pause));
    // Nobody renews the lease either while a machine sleeps.
    let asleep = Fault::on(Op::Replace).key("_leases").calls(1..200);
    vault.faults.inject(asleep.delays(pause));
    let first = vault.rekey(1);
    let second = async {
        tokio::time::sleep(Duration::from_mins(10)).await;
        vault.bench.clock.advance(Duration::from_mins(20));
        let awake = vault.engine(&["carol"], &["alice"]);
        let awake = awake
            .over(vault.bench.memory.clone())
            .with_leases(lease_settings(2));
        let never = CancellationToken::new();
        awake.rekey(&vault.backup, &never).await.unwrap()
    };
    let (first, second) = tokio::join!(first, second);
    let error = first.unwrap_err();
    assert!(matches!(error, Error::LeaseLost { .. }), "{error:?}");
    assert!(vault.faults.hits() >= 1);
    let now = vault.now().await;
    assert_eq!(now, second.manifest);
    let record = now.encryption.as_ref().unwrap();
    assert_eq!(record.recipients, ["carol"]);
    assert!(vault.stored().contains_key(&record.key));
    let carol = vault.engine(&[], &["carol"]);
    carol.open(now).await.unwrap();
    assert_eq!(vault.keys(), ["key.r.crypt"]);
}

/// As when a signal comes: nobody takes away a key that is not his, and his own goes.
#[tokio::test(start_paused = true)]
async fn whoever_is_stopped_takes_back_only_his_own_key() {
    let vault = Vault::new().await;
    let slow = Fault::on(Op::Read).key("key.r").nth(1);
    vault.faults.inject(slow.stalls());
    let cancel = CancellationToken::new();
    let engine = vault.rekeyer(1);
    let work = engine.rekey(&vault.backup, &cancel);
    let stop = async {
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(vault.keys(), ["key.crypt", "key.r.crypt"]);
        cancel.cancel();
    };
    let (stopped, ()) = tokio::join!(work, stop);
    let error = stopped.unwrap_err();
    assert!(matches!(error, Error::Cancelled), "{error:?}");
    assert_eq!(vault.keys(), ["key.crypt"]);
    assert_eq!(vault.readers(&vault.now().await).await, ["alice"]);
}

/// The same command once more, after one that was interrupted or not.
#[tokio::test]
async fn a_backup_that_is_done_needs_the_new_identity_too() {
    let vault = Vault::new().await;
    let never = CancellationToken::new();
    let old_alone = vault.engine(&["bob"], &["alice"]);
    old_alone.rekey(&vault.backup, &never).await.unwrap();
    let before = vault.stored();
    let error = old_alone.rekey(&vault.backup, &never).await.unwrap_err();
    assert!(matches!(error, Error::Key { .. }), "{error:?}");
    let hint = error.hint().unwrap();
    assert!(hint.contains("give the new identity too"), "{hint}");
    assert_eq!(vault.stored(), before);
    // To others, another identity is what it takes.
    let to_carol = vault.engine(&["carol"], &["alice"]);
    let error = to_carol.rekey(&vault.backup, &never).await.unwrap_err();
    assert!(!error.hint().unwrap_or_default().contains("new identity"));
    let outcome = vault.rekey(1).await.unwrap();
    assert_eq!(vault.readers(&outcome.manifest).await, ["bob"]);
}

#[tokio::test]
async fn it_waits_for_nobody_and_is_in_nobodys_way() {
    let vault = Vault::new().await;
    let (other, never) = (vault.rekeyer(7), CancellationToken::new());
    let app = source("app");
    let held = other.hold_stored(&app, Operation::Prune, &never);
    let held = held.await.unwrap().unwrap();
    let error = vault.rekey(1).await.unwrap_err();
    assert!(matches!(error, Error::Held { .. }), "{error:?}");
    held.release().await.unwrap();
    vault.rekey(1).await.unwrap();
    let lease = layout::lease_key(LeaseKind::Prune, &source("app"));
    let text = vault.bench.memory.bytes(lease.as_str()).unwrap();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(text.contains("\"operation\": \"rekey\"") || text.contains("\"operation\":\"rekey\""));
    assert!(text.contains("released"), "{text}");
}

#[tokio::test]
async fn a_copy_that_meets_it_has_the_new_key_or_the_old_and_a_whole_backup() {
    let vault = Vault::new().await;
    let there = MemoryStore::new();
    let target = vault
        .bench
        .engine
        .clone()
        .over(Arc::new(there.clone()) as Arc<dyn Store>);
    let never = CancellationToken::new();
    vault.rekey(1).await.unwrap();
    // With the record from before.
    let from = vault.engine(&[], &[]);
    from.copy(&vault.backup, &target, 2, &never).await.unwrap();
    let opened = vault.engine(&[], &["bob"]).over(Arc::new(there.clone()));
    let copied = opened
        .catalog()
        .list(&ListRequest::default())
        .await
        .unwrap();
    opened.open(copied.backups[0].clone()).await.unwrap();
    // The place that was not rekeyed has the same backup, which it can lose something of.
    let now = vault.now().await;
    let others = vault.engine(&["carol"], &["bob"]);
    others.rekey(&now, &never).await.unwrap();
    let now = vault.now().await;
    let copy = || from.copy(&now, &target, 2, &never);
    assert_eq!(copy().await.unwrap().objects, 0);
    let place = format!("backups/app/{}", now.id);
    let part = format!("{place}/data-0001.dump.fake.crypt");
    assert!(there.remove(&part));
    assert_eq!(copy().await.unwrap().objects, 1);
    assert_eq!(there.bytes(&part), vault.bench.memory.bytes(&part));
    opened.open(copied.backups[0].clone()).await.unwrap();
    // A key that is gone there cannot come from here.
    let theirs = copied.backups[0].encryption.as_ref().unwrap();
    assert!(there.remove(&format!("{place}/{}", theirs.key)));
    let error = copy().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("lost its key"), "{error}");
    assert!(!there.keys().iter().any(|key| key.contains("/key.")));
}

#[tokio::test]
async fn a_backup_that_was_removed_meanwhile_does_not_come_back() {
    let vault = Vault::new().await;
    let manifest = layout::manifest_key(&vault.backup.source, &vault.backup.id);
    assert!(vault.bench.memory.remove(manifest.as_str()));
    let error = vault.rekey(1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
    assert_eq!(vault.keys(), ["key.crypt"]);
}

#[tokio::test]
async fn clear_backups_are_left_alone() {
    let bench = Bench::new();
    let request = backup_core::engine::BackupRequest {
        encrypt: false,
        ..super::request("app")
    };
    let never = CancellationToken::new();
    let clear = bench.engine.backup(&dumper(), &request, &never).await;
    let error = bench.engine.rekey(&clear.unwrap().manifest, &never).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::InvalidInput);
}
