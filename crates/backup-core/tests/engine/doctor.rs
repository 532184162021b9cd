//! What is found of stores that lack something, and what is left in them.

use std::sync::Arc;
use std::time::Duration;

use backup_core::clock::Clock;
use backup_core::doctor::{Finding, Level, StoreTrial, examine_store, worst};
use backup_core::error::ErrorKind;
use backup_testing::{Fault, FaultyStore, FixedClock, MemoryStore, Op};
use rstest::rstest;
use tokio_util::sync::CancellationToken;

use super::Bench;

/// A store whose clock is that of the machine.
fn store() -> (Arc<MemoryStore>, FaultyStore, FixedClock) {
    let clock = FixedClock::default();
    let memory = MemoryStore::new().with_clock(Arc::new(clock.clone()));
    let memory = Arc::new(memory);
    (Arc::clone(&memory), FaultyStore::new(memory), clock)
}

async fn examine(store: &FaultyStore, clock: &dyn Clock) -> (StoreTrial, Vec<Finding>) {
    let (mut findings, never) = (Vec::new(), CancellationToken::new());
    let trial = examine_store(store, clock, &mut findings, &never).await;
    (trial, findings)
}

fn bad(findings: &[Finding]) -> Vec<(&'static str, Level)> {
    let bad = findings.iter().filter(|finding| finding.level > Level::Ok);
    bad.map(|finding| (finding.id, finding.level)).collect()
}

#[tokio::test]
async fn a_good_store_has_no_finding_and_is_left_as_it_was() {
    let (memory, faulty, clock) = store();
    let (trial, findings) = examine(&faulty, &clock).await;
    assert_eq!(worst(&findings), Level::Ok, "{findings:#?}");
    assert_eq!(trial, StoreTrial::default());
    assert_eq!(memory.keys(), Vec::<String>::new());
    assert_eq!(memory.open_uploads(), 0);
    let ids: Vec<_> = findings.iter().map(|finding| finding.id).collect();
    let expected = [
        "reachable",
        "writes",
        "reads",
        "lists",
        "store-clock",
        "conditional-writes",
        "deletes",
        "uploads",
    ];
    assert_eq!(ids, expected);
}

#[tokio::test]
async fn a_repository_is_named_and_its_lack_noticed() {
    let bench = Bench::new();
    bench.good().await;
    let faulty = FaultyStore::new(bench.memory.clone());
    let before = bench.memory.keys();
    let (trial, findings) = examine(&faulty, &bench.clock).await;
    assert!(trial.repository.is_some());
    assert_eq!(bench.memory.keys(), before);
    let text = format!("holds repository {}", trial.repository.unwrap());
    assert_eq!(findings[0].message, text);

    assert!(bench.memory.remove("repository.json"));
    let (trial, findings) = examine(&faulty, &bench.clock).await;
    assert_eq!(trial.repository, None);
    let first = bad(&findings)[0];
    assert_eq!(first, ("no-repository-record", Level::Problem));
}

#[rstest]
#[case::gone(Op::List, ErrorKind::NotFound, ("not-there", Level::Problem), 1)]
#[case::silent(Op::List, ErrorKind::Unavailable, ("unreachable", Level::Problem), 1)]
#[case::listless(Op::List, ErrorKind::PermissionDenied, ("cannot-list", Level::Problem), 1)]
#[case::read_only(Op::Create, ErrorKind::PermissionDenied, ("cannot-write", Level::Problem), 2)]
#[case::in_one_piece(Op::Put, ErrorKind::InvalidInput, ("cannot-upload-parts", Level::Problem), 8)]
#[tokio::test]
async fn each_lack_has_a_name_and_a_remedy(
    #[case] op: Op,
    #[case] kind: ErrorKind,
    #[case] expected: (&'static str, Level),
    #[case] all: usize,
) {
    let (memory, faulty, clock) = store();
    faulty.inject(Fault::on(op).rejects(kind));
    let (_, findings) = examine(&faulty, &clock).await;
    assert_eq!(bad(&findings), [expected], "{findings:#?}");
    assert_eq!(findings.len(), all);
    assert!(findings.last().unwrap().remedy.is_some());
    assert_eq!(memory.keys(), Vec::<String>::new());
    assert_eq!(memory.open_uploads(), 0);
}

#[tokio::test]
async fn a_login_that_may_not_delete_is_legitimate_and_leaves_little() {
    let (memory, faulty, clock) = store();
    faulty.inject(Fault::on(Op::Delete).rejects(ErrorKind::PermissionDenied));
    let (_, findings) = examine(&faulty, &clock).await;
    assert_eq!(bad(&findings), [("cannot-delete", Level::Note)]);
    let keys = memory.keys();
    assert_eq!(keys.len(), 1, "{keys:?}");
    assert_eq!(memory.bytes(&keys[0]).unwrap(), "probe");
    let told = findings.iter().find(|f| f.id == "cannot-delete").unwrap();
    assert!(told.message.contains(&keys[0]), "{told:?}");
    // The large one was tried, and given up.
    assert_eq!(findings.last().unwrap().id, "uploads");
    assert_eq!(memory.open_uploads(), 0);
}

#[tokio::test]
async fn a_store_that_changes_what_it_has_is_found_out() {
    let (_, faulty, clock) = store();
    faulty.inject(Fault::on(Op::Read).key("_leases/probe").flips(1));
    let (_, findings) = examine(&faulty, &clock).await;
    assert_eq!(bad(&findings), [("reads-differ", Level::Problem)]);
}

#[tokio::test]
async fn a_lost_answer_is_no_lack_and_another_clock_is_one() {
    let (memory, faulty, clock) = store();
    faulty.inject(Fault::on(Op::Create).loses_the_answer());
    let ahead = FixedClock::new(clock.now() - chrono::TimeDelta::minutes(20));
    let (_, findings) = examine(&faulty, &ahead).await;
    assert_eq!(bad(&findings), [("store-clock-differs", Level::Warning)]);
    assert_eq!(memory.keys(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn what_was_found_before_a_black_hole_is_kept() {
    let (_, faulty, clock) = store();
    faulty.inject(Fault::on(Op::Head).stalls());
    let (mut findings, never) = (Vec::new(), CancellationToken::new());
    let work = examine_store(&faulty, &clock, &mut findings, &never);
    let done = tokio::time::timeout(Duration::from_secs(30), work).await;
    assert!(done.is_err());
    let ids: Vec<_> = findings.iter().map(|finding| finding.id).collect();
    assert_eq!(ids, ["reachable", "writes", "reads", "lists"]);
}
