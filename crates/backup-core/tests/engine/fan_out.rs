//! One backup into two stores: what fails at one is nobody else's trouble.

use std::sync::Arc;
use std::time::Duration;

use backup_core::catalog::ListRequest;
use backup_core::engine::{BackupOutcome, BackupRequest, Engine, VerifyLevel, VerifyRequest};
use backup_core::error::{Error, ErrorKind};
use backup_core::fan_out::{FanOut, MemberOutcome};
use backup_core::store::Store;
use backup_testing::{
    Failure, Fault, FaultyStore, FixedClock, MemoryStore, Op, ScriptedDumper, ScriptedInspector,
};
use rstest::rstest;
use tokio_util::sync::CancellationToken;

use super::{Bench, big_part, dumper, lease_settings, request, small_part};

const STALL: Duration = Duration::from_millis(80);

/// A backup goes into `near` and, through what is told to break, into `far`.
struct Pair {
    near: Bench,
    far: Bench,
    faults: Arc<FaultyStore>,
    fan_out: Arc<FanOut>,
    engine: Engine,
    clock: FixedClock,
}

impl Pair {
    fn new() -> Self {
        Self::of(MemoryStore::new(), MemoryStore::new())
    }

    fn of(near: MemoryStore, far: MemoryStore) -> Self {
        let near = Bench::over(near, |memory| memory);
        let far = Bench::over(far, |memory| memory);
        let faults = Arc::new(FaultyStore::new(far.memory.clone()));
        let stores: [(String, Arc<dyn Store>); 2] = [
            ("near".to_owned(), near.memory.clone()),
            ("far".to_owned(), faults.clone()),
        ];
        let fan_out = Arc::new(FanOut::new(stores, STALL));
        let clock = near.clock.clone();
        let engine = near.engine.clone().over(fan_out.clone());
        Self {
            near,
            far,
            faults,
            fan_out,
            engine,
            clock,
        }
    }

    async fn backup(&self, dumper: &ScriptedDumper) -> Result<BackupOutcome, Error> {
        use backup_core::clock::Clock as _;
        let repositories = self.fan_out.prepare(self.clock.now()).await?;
        let request = BackupRequest {
            repositories,
            ..request("app")
        };
        let cancel = CancellationToken::new();
        self.engine.backup(dumper, &request, &cancel).await
    }

    /// How it went at the far one, when all is over.
    fn far_outcome(&self) -> MemberOutcome {
        let [near, far] = self.fan_out.outcomes().try_into().unwrap();
        assert_eq!((near.name.as_str(), far.name.as_str()), ("near", "far"));
        assert!(
            near.failure.is_none() && near.warnings.is_empty(),
            "{near:?}"
        );
        far
    }
}

async fn assert_good(bench: &Bench, outcome: &BackupOutcome) {
    let request = VerifyRequest {
        level: VerifyLevel::Decoded,
        jobs: 2,
    };
    let inspector = Arc::new(ScriptedInspector::of(&dumper()));
    let cancel = CancellationToken::new();
    let verified = bench
        .engine
        .verify(&outcome.manifest, request, inspector, &cancel);
    let report = verified.await.unwrap();
    assert!(report.problems.is_empty(), "{report:?}");
    assert_eq!(bench.observer.warnings(), Vec::<String>::new());
    let listed = bench
        .engine
        .catalog()
        .list(&ListRequest::default())
        .await
        .unwrap();
    assert_eq!(listed.backups, std::slice::from_ref(&outcome.manifest));
    assert_eq!(bench.memory.open_uploads(), 0);
}

/// Nothing but what names the repository.
fn assert_empty(bench: &Bench) {
    let mut keys = bench.memory.keys();
    keys.retain(|key| key != "repository.json");
    assert_eq!(keys, Vec::<String>::new());
    assert_eq!(bench.memory.open_uploads(), 0);
}

#[tokio::test]
async fn both_have_the_same_and_are_one_repository() {
    let pair = Pair::of(MemoryStore::with_capacity(90_000), MemoryStore::new());
    let outcome = pair.backup(&dumper()).await.unwrap();
    let far = pair.far_outcome();
    assert!(far.failure.is_none(), "{far:?}");
    assert_eq!(pair.near.memory.keys(), pair.far.memory.keys());
    for key in pair
        .near
        .memory
        .keys()
        .iter()
        .filter(|key| *key != "repository.json")
    {
        assert_eq!(
            pair.near.memory.bytes(key),
            pair.far.memory.bytes(key),
            "{key}"
        );
    }
    assert_eq!(outcome.manifest.copies, Vec::<String>::new());
    // What one of them can hold in an object decides for both.
    assert!(
        outcome
            .manifest
            .parts
            .iter()
            .any(|part| part.objects.len() == 4)
    );
    assert_good(&pair.near, &outcome).await;
    assert_good(&pair.far, &outcome).await;
}

#[tokio::test]
async fn repositories_that_were_there_before_keep_their_ids() {
    let pair = Pair::new();
    let before = [pair.near.good().await, pair.far.good().await].map(|b| b.manifest.repository);
    let outcome = pair.backup(&dumper()).await.unwrap();
    assert_ne!(before[0], before[1]);
    let manifest = &outcome.manifest;
    assert_eq!(
        (&manifest.repository, manifest.copies.as_slice()),
        (&before[0], &before[1..])
    );
    for bench in [&pair.near, &pair.far] {
        bench.engine.open(manifest.clone()).await.unwrap();
        assert_eq!(bench.observer.warnings(), Vec::<String>::new());
    }
}

/// Wherever it breaks at the far one, the near one has the backup and the far one nothing.
#[rstest]
#[case::cannot_be_reached(Fault::on(Op::Read).key("repository.json").rejects(ErrorKind::Unavailable))]
#[case::refuses_the_key(Fault::on(Op::Create).key("key.").rejects(ErrorKind::PermissionDenied))]
#[case::refuses_an_upload(Fault::on(Op::Put).key("data-rest").rejects(ErrorKind::PermissionDenied))]
#[case::breaks_in_the_middle(Fault::on(Op::Put).key("data-rest").fails_after(200_000))]
#[case::stops_taking(Fault::on(Op::Put).key("data-rest").stalls_after(100_000))]
#[case::takes_nothing(Fault::on(Op::Put).key("data-0001").stalls())]
#[case::has_not_what_it_took(Fault::on(Op::Head).key("data-rest").rejects(ErrorKind::NotFound))]
#[case::refuses_the_facts(Fault::on(Op::Put).key("facts").rejects(ErrorKind::Unavailable))]
#[case::refuses_the_manifest(Fault::on(Op::Create).key("manifest.json").rejects(ErrorKind::PermissionDenied))]
#[tokio::test]
async fn one_that_fails_never_spoils_the_other(#[case] fault: Fault) {
    let pair = Pair::new();
    pair.faults.inject(fault);
    let outcome = pair.backup(&dumper()).await.unwrap();
    let far = pair.far_outcome();
    assert!(far.failure.is_some() && far.warnings.is_empty(), "{far:?}");
    assert!(pair.faults.hits() > 0);
    assert_good(&pair.near, &outcome).await;
    assert_empty(&pair.far);
}

/// One that only loses answers has the backup all the same.
#[rstest]
#[case::of_the_key("key.")]
#[case::of_the_manifest("manifest.json")]
#[tokio::test]
async fn lost_answers_are_found_out(#[case] key: &str) {
    let pair = Pair::new();
    let lost = Fault::on(Op::Create).key(key).loses_the_answer();
    pair.faults.inject(lost);
    let outcome = pair.backup(&dumper()).await.unwrap();
    let far = pair.far_outcome();
    assert!(far.failure.is_none(), "{far:?}");
    assert_good(&pair.near, &outcome).await;
    assert_good(&pair.far, &outcome).await;
}

/// A manifest that may still turn up keeps its parts.
#[tokio::test]
async fn what_is_uncertain_is_left_and_said() {
    let pair = Pair::new();
    let late = Fault::on(Op::Create)
        .key("manifest.json")
        .rejects(ErrorKind::Timeout);
    pair.faults.inject(late);
    let outcome = pair.backup(&dumper()).await.unwrap();
    let far = pair.far_outcome();
    assert!(far.failure.is_some(), "{far:?}");
    assert!(far.warnings[0].contains("not known whether"), "{far:?}");
    assert_good(&pair.near, &outcome).await;
    let mut expected = pair.near.memory.keys();
    expected.retain(|key| !key.ends_with("manifest.json"));
    assert_eq!(pair.far.memory.keys(), expected);
}

#[tokio::test]
async fn what_fails_everywhere_fails_and_leaves_nothing() {
    for near in ["data-rest", "manifest.json"] {
        let pair = Pair::new();
        let op = if near == "manifest.json" {
            Op::Create
        } else {
            Op::Put
        };
        let both = Arc::new(FaultyStore::new(pair.near.memory.clone()));
        let refuse = || Fault::on(op).key(near).rejects(ErrorKind::PermissionDenied);
        both.inject(refuse());
        pair.faults.inject(refuse());
        let stores: [(String, Arc<dyn Store>); 2] = [
            ("near".to_owned(), both),
            ("far".to_owned(), pair.faults.clone()),
        ];
        let fan_out = Arc::new(FanOut::new(stores, STALL));
        let pair = Pair {
            engine: pair.engine.clone().over(fan_out.clone()),
            fan_out,
            ..pair
        };
        let error = pair.backup(&dumper()).await.unwrap_err();
        assert_eq!(
            error.kind(),
            ErrorKind::PermissionDenied,
            "{near}: {error:?}"
        );
        assert_empty(&pair.near);
        assert_empty(&pair.far);
    }
}

#[tokio::test]
async fn a_dump_that_fails_is_nowhere_and_one_that_is_repeated_everywhere() {
    let pair = Pair::new();
    let broken = big_part().always_fails(Failure::After(100_000, ErrorKind::ToolFailed));
    let error = pair
        .backup(&ScriptedDumper::new().part(small_part()).part(broken))
        .await;
    assert!(matches!(error, Err(Error::Dump { .. })), "{error:?}");
    assert_empty(&pair.near);
    assert_empty(&pair.far);

    let repeated = big_part().fails(1, Failure::After(100_000, ErrorKind::ToolFailed));
    let dumper = ScriptedDumper::new().part(small_part()).part(repeated);
    let outcome = pair.backup(&dumper).await.unwrap();
    assert!(pair.far_outcome().failure.is_none());
    assert_good(&pair.near, &outcome).await;
    assert_good(&pair.far, &outcome).await;
    assert_eq!(pair.near.memory.keys(), pair.far.memory.keys());
}

/// Whoever was given up has no say in whether the others may commit, nor any object in the end.
#[tokio::test]
async fn the_lease_of_one_that_was_given_up_is_nobodys_trouble() {
    let pair = Pair::new();
    let denied = |op: Op, key: &str| {
        let fault = Fault::on(op).key(key);
        pair.faults
            .inject(fault.rejects(ErrorKind::PermissionDenied));
    };
    denied(Op::Put, "data-rest");
    denied(Op::Replace, "_leases");
    let engine = pair.engine.clone().with_leases(lease_settings(1));
    let pair = Pair { engine, ..pair };
    let outcome = pair.backup(&dumper()).await.unwrap();
    let far = pair.far_outcome();
    assert!(far.failure.is_some() && far.warnings.is_empty(), "{far:?}");
    let mut left = pair.far.memory.keys();
    left.retain(|key| key.starts_with("backups/"));
    assert_eq!(left, Vec::<String>::new());
    let listed = pair.near.engine.catalog();
    let listed = listed.list(&ListRequest::default()).await.unwrap();
    assert_eq!(listed.backups, std::slice::from_ref(&outcome.manifest));
}
