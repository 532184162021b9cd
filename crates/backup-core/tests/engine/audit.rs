//! Audit records: one chain for all writers, and nothing lost or written twice when answers are.

use std::collections::BTreeSet;
use std::sync::Arc;

use backup_core::audit::{
    Audit, AuditAction, AuditEntry, AuditOutcome, AuditRecord, AuditRequest, BreakKind,
};
use backup_core::error::ErrorKind;
use backup_core::run_record::Who;
use backup_core::store::Store;
use backup_testing::{Fault, FaultyStore, FixedClock, MemoryStore, Op};

use super::Bench;

fn entry(database: &str) -> AuditEntry {
    AuditEntry {
        database: Some(database.to_owned()),
        ..AuditEntry::new(AuditAction::Undo, AuditOutcome::Done, Who::default())
    }
}

fn databases(bench: &Bench) -> Vec<String> {
    let keys = bench.memory.keys().into_iter();
    keys.filter(|key| key.starts_with("_audit/"))
        .map(|key| {
            let text = bench.memory.bytes(&key).unwrap();
            AuditRecord::decode(&text).unwrap().entry.database.unwrap()
        })
        .collect()
}

fn audit(store: Arc<dyn Store>) -> Audit {
    Audit::new(store, Arc::new(FixedClock::default()))
}

#[tokio::test]
async fn records_are_linked_and_listed_newest_first() {
    let bench = Bench::new();
    bench.good().await;
    for database in ["a", "b", "c"] {
        bench.clock.advance(std::time::Duration::from_mins(1));
        // Each by a writer that knows nothing of the others.
        bench.engine.audit().append(&entry(database)).await.unwrap();
    }
    let report = bench.engine.audit().verify(None).await.unwrap();
    assert!(report.is_whole(), "{report:?}");
    assert_eq!(report.chains.len(), 1);
    assert_eq!(report.chains[0].head.number, 3);
    let request = AuditRequest {
        limit: Some(2),
        ..AuditRequest::default()
    };
    let listed = bench.engine.audit().list(&request).await.unwrap();
    let listed: Vec<_> = listed
        .iter()
        .map(|audited| audited.record.entry.database.as_deref())
        .collect();
    assert_eq!(listed, [Some("c"), Some("b")]);
}

#[tokio::test]
async fn where_there_is_no_repository_nothing_is_made() {
    let bench = Bench::new();
    let error = bench.engine.audit().append(&entry("a")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(bench.memory.keys(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_at_the_same_time_make_one_chain() {
    let bench = Bench::new();
    bench.good().await;
    let mut writers = Vec::new();
    for writer in 0..8 {
        let audit = audit(bench.memory.clone());
        writers.push(tokio::spawn(async move {
            for index in 0..20 {
                let name = format!("{writer}-{index}");
                audit.append(&entry(&name)).await.unwrap();
            }
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let report = bench.engine.audit().verify(None).await.unwrap();
    assert!(report.is_whole(), "{report:?}");
    assert_eq!(report.chains[0].head.number, 160);
    let found: BTreeSet<_> = databases(&bench).into_iter().collect();
    assert_eq!(found.len(), 160, "one is lost or was written twice");
}

#[tokio::test]
async fn an_answer_that_is_lost_makes_no_second_record() {
    let bench = Bench::new();
    bench.good().await;
    let faulty = Arc::new(FaultyStore::new(bench.memory.clone()));
    faulty.inject(
        Fault::on(Op::Create)
            .key("_audit/")
            .nth(1)
            .loses_the_answer(),
    );
    let audit = audit(faulty.clone());
    audit.append(&entry("a")).await.unwrap();
    assert_eq!(faulty.hits(), 1);
    audit.append(&entry("b")).await.unwrap();
    assert_eq!(databases(&bench), ["a", "b"]);
    assert!(audit.verify(None).await.unwrap().is_whole());
}

#[tokio::test]
async fn a_store_that_refuses_is_told_and_the_next_record_follows_the_last_one() {
    let bench = Bench::new();
    bench.good().await;
    let faulty = Arc::new(FaultyStore::new(bench.memory.clone()));
    let audit = audit(faulty.clone());
    audit.append(&entry("a")).await.unwrap();
    faulty.inject(
        Fault::on(Op::Create)
            .key("_audit/")
            .rejects(ErrorKind::PermissionDenied),
    );
    let error = audit.append(&entry("b")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    faulty.heal();
    audit.append(&entry("c")).await.unwrap();
    assert_eq!(databases(&bench), ["a", "c"]);
    assert!(audit.verify(None).await.unwrap().is_whole());
}

/// Such a store cannot keep two writers apart, so each has a chain.
#[tokio::test]
async fn without_conditions_each_writer_has_its_own_chain() {
    let bench = Bench::over(MemoryStore::new().unconditional(), |memory| memory);
    bench.good().await;
    let (one, two) = (audit(bench.memory.clone()), audit(bench.memory.clone()));
    for (writer, name) in [(&one, "a"), (&two, "b"), (&one, "c"), (&two, "d")] {
        writer.append(&entry(name)).await.unwrap();
    }
    let report = one.verify(None).await.unwrap();
    assert!(report.is_whole(), "{report:?}");
    let lengths: Vec<_> = report
        .chains
        .iter()
        .map(|chain| chain.head.number)
        .collect();
    assert_eq!(lengths, [2, 2]);
    assert!(
        report
            .chains
            .iter()
            .all(|chain| chain.chain.to_string() != "main")
    );
}

#[tokio::test]
async fn what_somebody_did_to_the_objects_shows() {
    let bench = Bench::new();
    bench.good().await;
    let audit = bench.engine.audit();
    let mut heads = Vec::new();
    for number in 0..5 {
        heads.push(audit.append(&entry(&number.to_string())).await.unwrap());
    }
    let key = |number: u64| format!("_audit/main/000000000/{number:012}.json");
    let expected = Some(heads[4].sha256.as_str());
    assert!(audit.verify(expected).await.unwrap().is_whole());

    let middle = bench.memory.bytes(&key(3)).unwrap();
    assert!(bench.memory.remove(&key(3)));
    let broken = audit.verify(None).await.unwrap().chains.remove(0);
    assert_eq!(broken.head.number, 2);
    let broken = broken.broken.unwrap();
    assert_eq!((broken.number, broken.kind), (3, BreakKind::Missing));
    bench.memory.set(&key(3), middle);
    assert!(audit.verify(None).await.unwrap().is_whole());

    bench.memory.set("_audit/main/note.txt", "foreign");
    let report = audit.verify(None).await.unwrap();
    assert_eq!(report.strangers.len(), 1);
    assert!(!report.is_whole());
    assert!(bench.memory.remove("_audit/main/note.txt"));

    // The end alone can be cut off, unless somebody knows what it was.
    assert!(bench.memory.remove(&key(5)));
    assert!(audit.verify(None).await.unwrap().is_whole());
    let report = audit.verify(expected).await.unwrap();
    assert_eq!(report.lost.as_deref(), expected);
    assert!(!report.is_whole());
    // A writer that goes on leaves a gap.
    audit.append(&entry("6")).await.unwrap();
    let report = audit.verify(None).await.unwrap();
    let broken = report.chains[0].broken.as_ref().unwrap();
    assert_eq!((broken.number, broken.kind), (5, BreakKind::Missing));
}
