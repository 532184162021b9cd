//! Records of runs: written beside the operation, found by month, never in its way.

use std::sync::Arc;
use std::time::Duration;

use backup_core::catalog::{ListRequest, Selector};
use backup_core::engine::{CompareReport, VerifyLevel, VerifyReport};
use backup_core::error::{Error, ErrorKind};
use backup_core::history::{HistoryListing, HistoryRequest, Proof, ProofLevel, Proofs};
use backup_core::layout;
use backup_core::manifest::Manifest;
use backup_core::run_record::{
    CompareFacts, Operation, RunId, RunRecord, RunResult, VerifyFacts, Who,
};
use backup_testing::{Fault, FaultyStore, MemoryStore, Op, RecordingStore};
use chrono::{DateTime, TimeZone, Utc};
use tokio_util::sync::CancellationToken;

use super::{Bench, source};

fn who() -> Who {
    Who {
        user: "backup".to_owned(),
        host: "db1".to_owned(),
    }
}

async fn record(bench: &Bench, run: &mut RunRecord) -> Result<(), Error> {
    let never = CancellationToken::new();
    bench.engine.history().record(run, &never).await
}

/// A verification at `day` of a month of 2026 that found nothing wrong.
async fn verified(bench: &Bench, backup: &Manifest, (month, day): (u32, u32)) -> RunRecord {
    bench.clock.set(at(month, day));
    let mut run = bench.engine.history().begin(Operation::Verify, who());
    run.source = Some(backup.source.clone());
    run.backup = Some(backup.id.clone());
    run.verified(&VerifyReport {
        level: VerifyLevel::Hashed,
        parts: 3,
        bytes_read: 7,
        problems: Vec::new(),
    });
    record(bench, &mut run).await.unwrap();
    run
}

fn at(month: u32, day: u32) -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2026, month, day, 3, 0, 0).unwrap()
}

async fn list(bench: &Bench, request: HistoryRequest) -> HistoryListing {
    bench.engine.history().list(&request).await.unwrap()
}

fn faulty() -> (Bench, Arc<FaultyStore>) {
    let mut faulty = None;
    let bench = Bench::over(MemoryStore::new(), |memory| {
        let store = Arc::new(FaultyStore::new(memory));
        faulty = Some(Arc::clone(&store));
        store
    });
    (bench, faulty.unwrap())
}

#[tokio::test]
async fn records_are_listed_newest_first_within_limits() {
    let bench = Bench::new();
    let outcome = bench.good().await;
    let backup = &outcome.manifest;
    let mut runs = Vec::new();
    for day in [(3, 1), (3, 31), (4, 1), (11, 30), (12, 1)] {
        runs.insert(0, verified(&bench, backup, day).await);
    }
    bench
        .clock
        .set(Utc.with_ymd_and_hms(2027, 1, 1, 0, 0, 0).unwrap());
    let mut taken = bench.engine.history().begin(Operation::Backup, who());
    taken.backed_up(&outcome);
    bench.clock.advance(Duration::from_secs(90));
    record(&bench, &mut taken).await.unwrap();
    assert_eq!((taken.finished_at - taken.started_at).num_seconds(), 90);
    assert_eq!(taken.raw_bytes, Some(backup.totals.raw_bytes));
    runs.insert(0, taken.clone());

    let listing = list(&bench, HistoryRequest::default()).await;
    assert_eq!((&listing.runs, listing.damaged.len()), (&runs, 0));
    let two = HistoryRequest {
        limit: Some(2),
        ..HistoryRequest::default()
    };
    assert_eq!(list(&bench, two).await.runs, runs[..2]);
    let backups = HistoryRequest {
        operation: Some(Operation::Backup),
        ..HistoryRequest::default()
    };
    assert_eq!(list(&bench, backups).await.runs, [taken]);
    let since = HistoryRequest {
        since: Some(at(3, 31)),
        ..HistoryRequest::default()
    };
    assert_eq!(list(&bench, since).await.runs, runs[..5]);
}

#[tokio::test]
async fn months_before_the_moment_are_not_looked_at() {
    let mut recording = None;
    let bench = Bench::over(MemoryStore::new(), |memory| {
        let store = Arc::new(RecordingStore::new(memory));
        recording = Some(Arc::clone(&store));
        store
    });
    let backup = bench.good().await.manifest;
    for day in [(1, 31), (2, 1), (2, 20), (3, 2)] {
        verified(&bench, &backup, day).await;
    }
    let recording = recording.unwrap();
    recording.clear();
    let request = HistoryRequest {
        since: Some(at(2, 15)),
        ..HistoryRequest::default()
    };
    assert_eq!(list(&bench, request).await.runs.len(), 2);
    let calls = recording.calls();
    let listed: Vec<_> = calls.iter().filter(|call| call.op == Op::List).collect();
    assert_eq!(
        listed
            .iter()
            .map(|call| call.key.as_str())
            .collect::<Vec<_>>(),
        ["_runs", "_runs/2026", "_runs/2026/03", "_runs/2026/02"]
    );
    assert_eq!(calls.iter().filter(|call| call.op == Op::Read).count(), 2);
}

#[tokio::test]
async fn damaged_records_are_named_and_the_others_listed() {
    let bench = Bench::new();
    let backup = bench.good().await.manifest;
    let mut runs = Vec::new();
    for day in 1..=4 {
        runs.push(verified(&bench, &backup, (2, day)).await);
    }
    let keys: Vec<_> = runs
        .iter()
        .map(|run| layout::run_key(&run.id).to_string())
        .collect();
    bench.memory.truncate(&keys[0], 50);
    let other = bench.memory.bytes(&keys[3]).unwrap();
    bench.memory.set(&keys[1], other);
    bench.memory.mutate(&keys[2], |bytes| {
        let text = String::from_utf8(bytes.clone()).unwrap();
        *bytes = text.replace("\"format\": 1", "\"format\": 2").into();
    });
    bench.memory.set("_runs/2026/02/note.txt", "foreign");
    bench.memory.set("_runs/note", "foreign");
    let listing = list(&bench, HistoryRequest::default()).await;
    assert_eq!(listing.runs, runs[3..]);
    let damaged: Vec<_> = listing
        .damaged
        .iter()
        .map(|(key, reason)| (key.as_str(), reason.as_str()))
        .collect();
    assert_eq!(damaged.len(), 3, "{damaged:?}");
    let newer = (
        keys[2].as_str(),
        "run record has format 2, this build reads 1",
    );
    assert_eq!(damaged[0], newer);
    let foreign = (keys[1].as_str(), "run record belongs to another run");
    assert_eq!(damaged[1], foreign);
    assert!(damaged[2].1.starts_with("run record cannot be read"));
    // They are no backups, and do not stand in the way of one.
    let backups = bench.engine.catalog().list(&ListRequest::default()).await;
    assert_eq!(backups.unwrap().backups, [backup]);
}

#[tokio::test]
async fn a_record_that_cannot_be_written_changes_nothing_else() {
    let (bench, faulty) = faulty();
    faulty.inject(
        Fault::on(Op::Create)
            .key("_runs/")
            .rejects(ErrorKind::PermissionDenied),
    );
    let outcome = bench.good().await;
    let mut run = bench.engine.history().begin(Operation::Backup, who());
    run.backed_up(&outcome);
    let error = record(&bench, &mut run).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert_eq!(faulty.hits(), 1);
    assert_eq!(run.result, RunResult::Success);
    let listing = bench.engine.catalog().list(&ListRequest::default()).await;
    assert_eq!(listing.unwrap().backups, [outcome.manifest]);
    assert!(
        list(&bench, HistoryRequest::default())
            .await
            .runs
            .is_empty()
    );
}

#[tokio::test]
async fn a_lost_answer_is_looked_after() {
    let (bench, faulty) = faulty();
    let backup = bench.good().await.manifest;
    faulty.inject(Fault::on(Op::Create).key("_runs/").loses_the_answer());
    let run = verified(&bench, &backup, (2, 6)).await;
    assert_eq!(faulty.hits(), 1);
    assert_eq!(list(&bench, HistoryRequest::default()).await.runs, [run]);
}

#[tokio::test]
async fn no_record_takes_the_place_of_another() {
    let bench = Bench::new();
    let backup = bench.good().await.manifest;
    let run = verified(&bench, &backup, (2, 6)).await;
    let mut other = run.clone();
    other.result = RunResult::Failed;
    let error = record(&bench, &mut other).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(list(&bench, HistoryRequest::default()).await.runs, [run]);
}

#[tokio::test(start_paused = true)]
async fn a_silent_store_is_given_up_soon() {
    let (bench, faulty) = faulty();
    bench.good().await;
    faulty.inject(Fault::on(Op::Create).key("_runs/").stalls());
    for (cancelled, seconds) in [(false, 10), (true, 2)] {
        let cancel = CancellationToken::new();
        if cancelled {
            cancel.cancel();
        }
        let started = tokio::time::Instant::now();
        let mut run = bench.engine.history().begin(Operation::Backup, who());
        let error = bench.engine.history().record(&mut run, &cancel).await;
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Timeout);
        assert_eq!(started.elapsed().as_secs(), seconds);
    }
}

#[tokio::test]
async fn the_newest_verified_one_is_found_by_its_records() {
    let bench = Bench::new();
    let find = async || {
        let selector: Selector = "latest-verified".parse().unwrap();
        let app = source("app");
        bench.engine.catalog().find(&selector, Some(&app)).await
    };
    let mut backups = Vec::new();
    for day in 1..=3 {
        bench.clock.set(at(2, day));
        backups.push(bench.good().await.manifest);
    }
    let error = find().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("verified backup"), "{error}");

    verified(&bench, &backups[0], (3, 1)).await;
    assert_eq!(find().await.unwrap(), backups[0]);
    verified(&bench, &backups[1], (3, 2)).await;
    assert_eq!(find().await.unwrap(), backups[1]);

    // That objects are there says nothing of their bytes, and takes nothing back.
    for backup in &backups[1..] {
        bench.clock.set(at(3, 3));
        let mut run = bench.engine.history().begin(Operation::Verify, who());
        run.source = Some(backup.source.clone());
        run.backup = Some(backup.id.clone());
        run.verified(&VerifyReport {
            level: VerifyLevel::Stored,
            parts: 3,
            bytes_read: 0,
            problems: Vec::new(),
        });
        record(&bench, &mut run).await.unwrap();
    }
    assert_eq!(find().await.unwrap(), backups[1]);

    // What was found damaged since is proved no more.
    let mut damaged = verified(&bench, &backups[1], (3, 4)).await;
    damaged.id = RunId::new(at(3, 5), 1);
    damaged.result = RunResult::Failed;
    damaged.verify = Some(VerifyFacts {
        level: VerifyLevel::Stored,
        problems: 1,
    });
    bench.clock.set(at(3, 5));
    record(&bench, &mut damaged).await.unwrap();
    assert_eq!(find().await.unwrap(), backups[0]);
}

#[tokio::test]
async fn a_record_makes_no_repository() {
    let bench = Bench::new();
    let mut run = bench.engine.history().begin(Operation::Backup, who());
    let error = record(&bench, &mut run).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(bench.memory.keys().is_empty());
}

#[tokio::test]
async fn the_newest_proof_counts_and_a_part_proves_nothing() {
    let bench = Bench::new();
    let backup = bench.good().await.manifest;
    let other = bench.good().await.manifest;
    let verified = verified(&bench, &backup, (2, 6)).await;
    let whole = CompareReport {
        tables: 2,
        equal: 2,
        rows: 30,
        ..CompareReport::default()
    };
    let restore = |day, report: &CompareReport| {
        let mut run = RunRecord::begin(Operation::Restore, who(), at(2, day));
        run.source = Some(source("app"));
        run.backup = Some(backup.id.clone());
        run.compare = Some(CompareFacts::from(report));
        run.result = RunResult::Success;
        run
    };
    let part = CompareReport {
        tables: 1,
        equal: 1,
        ..whole.clone()
    };
    let mut differs = restore(9, &whole);
    differs.failed(&Error::Differs(Box::new(CompareReport {
        equal: 1,
        ..whole.clone()
    })));
    let mut stopped = restore(10, &whole);
    stopped.failed(&Error::Cancelled);
    let mut selected = restore(11, &whole);
    selected.partial = true;
    let proof = |level, at| Some(Proof { at, level });

    let useless = vec![stopped, differs, restore(8, &part), selected];
    let proofs = Proofs::new([useless.clone(), vec![verified.clone()]].concat());
    let hashed = proof(ProofLevel::Hashed, verified.finished_at);
    assert_eq!(proofs.newest(&backup), hashed);
    assert_eq!(proofs.tries(&backup).len(), 5);
    assert_eq!(
        (proofs.newest(&other), proofs.tries(&other).len()),
        (None, 0)
    );

    let proofs = Proofs::new([useless, vec![restore(7, &whole), verified.clone()]].concat());
    assert_eq!(
        proofs.newest(&backup),
        proof(ProofLevel::Restored, at(2, 7))
    );

    let mut damaged = verified.clone();
    damaged.finished_at = at(2, 12);
    damaged.verify = damaged.verify.map(|found| VerifyFacts {
        problems: 1,
        ..found
    });
    let proofs = Proofs::new(vec![damaged, verified]);
    assert_eq!(proofs.newest(&backup), None, "what was true once");
}
