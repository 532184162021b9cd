//! Drills: what is proved, what is told, and that the server always goes.

use std::sync::Arc;
use std::time::Duration;

use backup_core::drill::{Answer, Assertion, StructureProblem, StructureReport};
use backup_core::engine::{DrillLevel, DrillOptions, DrillOutcome, LevelState, TableState};
use backup_core::error::{Error, ErrorKind};
use backup_core::history::{ProofLevel, Proofs};
use backup_core::run_record::{Operation, RunRecord, RunResult, Who};
use backup_testing::{MemoryStore, ScriptedDrillServer, ScriptedInspector, ScriptedRestorer};
use tokio_util::sync::CancellationToken;

use super::{Bench, dumper};

use LevelState::{Failed, NotAvailable, NotReached, Passed};

fn options(assertions: &[&str]) -> DrillOptions {
    DrillOptions {
        jobs: 2,
        assertions: assertions
            .iter()
            .map(|sql| Assertion {
                sql: (*sql).to_owned(),
                timeout: Duration::from_mins(1),
            })
            .collect(),
        inspector: Arc::new(ScriptedInspector::of(&dumper())),
    }
}

/// A drill of a good backup that `mutilate` may change before.
async fn drill(
    server: &ScriptedDrillServer,
    assertions: &[&str],
    mutilate: impl FnOnce(&MemoryStore, &str),
) -> DrillOutcome {
    let bench = Bench::new();
    let manifest = bench.good().await.manifest;
    let prefix = format!("backups/app/{}", manifest.id);
    mutilate(&bench.memory, &prefix);
    let cancel = CancellationToken::new();
    bench
        .engine
        .drill(server, manifest, &options(assertions), &cancel)
        .await
}

fn untouched(_: &MemoryStore, _: &str) {}

fn states(outcome: &DrillOutcome) -> Vec<LevelState> {
    let levels = outcome.levels.iter();
    let (names, states): (Vec<_>, Vec<_>) = levels.map(|l| (l.level, l.state)).unzip();
    assert_eq!(names, DrillLevel::ALL);
    states
}

fn record(outcome: &DrillOutcome) -> RunRecord {
    let mut run = RunRecord::begin(Operation::Drill, Who::default(), outcome.started_at);
    run.source = Some(outcome.manifest.source.clone());
    run.backup = Some(outcome.manifest.id.clone());
    run.drilled(outcome);
    run
}

#[tokio::test]
async fn a_good_backup_is_proved_to_the_last_level() {
    let server = ScriptedDrillServer::new(ScriptedRestorer::new());
    let outcome = drill(&server, &["one", "two"], untouched).await;
    assert!(outcome.passed(), "{:?}", outcome.error);
    assert_eq!(states(&outcome), [Passed; 6]);
    assert_eq!(outcome.level(), Some(DrillLevel::Checked));
    assert_eq!(server.asked(), ["one", "two"]);
    assert_eq!(outcome.left_out, ["something"]);
    let tables: Vec<_> = outcome
        .tables
        .iter()
        .map(|t| t.table.name.as_str())
        .collect();
    assert_eq!(tables, ["lines", "orders"], "the largest first");
    assert!(outcome.tables.iter().all(|t| t.state == TableState::Equal));
    assert!(outcome.restore_time.is_some() && outcome.load_time.is_some());
    assert!(server.is_stopped());

    let run = record(&outcome);
    let facts = run.drill.unwrap();
    assert_eq!((run.result, run.warnings), (RunResult::Success, 0));
    assert_eq!((facts.assertions, facts.assertions_failed), (2, 0));
    assert_eq!(facts.level, Some(DrillLevel::Checked));
    assert_eq!(RunRecord::decode(&run.encode().unwrap()).unwrap(), run);
    let proofs = Proofs::new(vec![run.clone()]);
    let proof = proofs.newest(&outcome.manifest).unwrap();
    assert_eq!(
        (proof.level, proof.at),
        (ProofLevel::Restored, run.finished_at)
    );
    assert_eq!(proofs.newest_drill(&outcome.manifest), Some(&run));
}

#[tokio::test]
async fn equal_content_is_not_enough() {
    let problem = StructureProblem {
        object: "public.pk".to_owned(),
        problem: "is broken".to_owned(),
    };
    let damaged = StructureReport {
        indexes: 3,
        problems: vec![problem],
        ..StructureReport::default()
    };
    let server = || ScriptedDrillServer::new(ScriptedRestorer::new());
    for (server, says) in [
        (server().finds(damaged.clone()), "first public.pk"),
        (server().denies("two"), "1 of 2 assertions do not hold"),
        (server().denies("two").finds(damaged), "public.pk, 1 of 2"),
    ] {
        let outcome = drill(&server, &["one", "two"], untouched).await;
        assert_eq!(states(&outcome)[4..], [Passed, Failed]);
        assert_eq!(outcome.level(), Some(DrillLevel::Compared));
        let error = outcome.error.as_ref().unwrap();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains(says), "{error}");
        assert_eq!(record(&outcome).result, RunResult::Failed);
        let proofs = Proofs::new(vec![record(&outcome)]);
        assert_eq!(proofs.newest(&outcome.manifest), None);
        assert!(server.is_stopped());
    }
    let nothing = StructureReport {
        unavailable: Some("no amcheck".to_owned()),
        ..StructureReport::default()
    };
    let server = server().finds(nothing);
    let outcome = drill(&server, &[], untouched).await;
    assert!(outcome.passed());
    assert_eq!(states(&outcome)[5], NotAvailable);
    assert_eq!(record(&outcome).drill.unwrap().damaged, None);
    let outcome = drill(&ScriptedDrillServer::default(), &["x"], untouched).await;
    assert_eq!(outcome.assertions[0].1, Answer::Holds);
}

#[tokio::test]
async fn a_difference_does_not_end_the_look_at_the_rest() {
    let restorer = ScriptedRestorer::new().reads_back(|found| {
        let name = found.tables.keys().next_back().unwrap().clone();
        found.tables.remove(&name);
    });
    let server = ScriptedDrillServer::new(restorer).denies("one");
    let outcome = drill(&server, &["one"], untouched).await;
    assert!(matches!(outcome.error, Some(Error::Differs(_))));
    assert_eq!(
        states(&outcome),
        [Passed, Passed, Passed, Passed, Failed, Failed]
    );
    assert_eq!(outcome.tables[0].state, TableState::Missing);
    assert_eq!(
        outcome.tables[0].table.name, "orders",
        "before the larger one"
    );
    assert_eq!(outcome.assertions_failed(), 1);
    let run = record(&outcome);
    assert_eq!(run.compare.unwrap().equal, 1);
    assert!(server.is_stopped());
}

#[tokio::test]
async fn a_load_that_fails_is_told_from_damage() {
    let restorer = ScriptedRestorer::new().fails_to_load("data-rest", ErrorKind::ToolFailed);
    let server = ScriptedDrillServer::new(restorer);
    let outcome = drill(&server, &["one"], untouched).await;
    assert_eq!(
        states(&outcome),
        [Passed, Passed, Passed, Failed, NotReached, NotReached]
    );
    assert_eq!((server.asked().len(), server.is_stopped()), (0, true));
    assert!(
        outcome
            .tables
            .iter()
            .all(|t| t.state == TableState::NotCompared)
    );
    assert_eq!(outcome.restore_time, None);

    let server = ScriptedDrillServer::new(ScriptedRestorer::new());
    let outcome = drill(&server, &[], |memory, prefix| {
        let keys = memory.keys();
        let data = keys
            .iter()
            .find(|k| k.starts_with(prefix) && k.contains("data-rest"));
        memory.flip(data.unwrap(), 5);
    })
    .await;
    assert_eq!(outcome.error.as_ref().unwrap().kind(), ErrorKind::Corrupt);
    assert_eq!(
        states(&outcome),
        [Passed, Failed, NotReached, Failed, NotReached, NotReached]
    );
    assert!(server.is_stopped());
}

#[tokio::test]
async fn what_says_nothing_of_the_backup_proves_and_disproves_nothing() {
    let server = || ScriptedDrillServer::new(ScriptedRestorer::new());
    let outcome = drill(
        &server().fails_to_start(ErrorKind::ToolMissing),
        &[],
        untouched,
    )
    .await;
    assert_eq!(states(&outcome), [NotReached; 6]);
    assert_eq!(outcome.error.unwrap().kind(), ErrorKind::ToolMissing);

    let busy = ScriptedRestorer::new().fails_to_load("data-rest", ErrorKind::Unavailable);
    let outcome = drill(&ScriptedDrillServer::new(busy), &[], untouched).await;
    assert_eq!(states(&outcome)[3..], [NotReached; 3]);

    let lost = server().fails_to_check(ErrorKind::Unavailable);
    let outcome = drill(&lost, &[], untouched).await;
    assert_eq!(states(&outcome)[4..], [Passed, NotReached]);
    assert!(lost.is_stopped());
}

#[tokio::test]
async fn what_cannot_be_removed_is_a_warning() {
    let server = ScriptedDrillServer::new(ScriptedRestorer::new().warns("careful"));
    let server = server.fails_to_stop(ErrorKind::Internal);
    let outcome = drill(&server, &[], untouched).await;
    assert!(outcome.passed());
    assert_eq!(outcome.warnings.len(), 2, "{:?}", outcome.warnings);
    assert!(outcome.warnings[1].contains("left behind"));
    assert_eq!(record(&outcome).result, RunResult::Warnings);
}

#[tokio::test]
async fn a_drill_that_is_stopped_ends_its_server_and_looks_at_nothing_more() {
    let bench = Bench::new();
    let manifest = bench.good().await.manifest;
    let server = ScriptedDrillServer::new(ScriptedRestorer::new().hangs());
    let cancel = CancellationToken::new();
    let stop = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        cancel.cancel();
    };
    let options = options(&[]);
    let drill = bench.engine.drill(&server, manifest, &options, &cancel);
    let (outcome, ()) = tokio::join!(drill, stop);
    assert!(matches!(outcome.error, Some(Error::Cancelled)));
    assert_eq!(states(&outcome), [NotReached; 6]);
    assert!(server.is_stopped());
    assert_eq!(record(&outcome).result, RunResult::Cancelled);
    let proofs = Proofs::new(vec![record(&outcome)]);
    assert_eq!(proofs.newest_drill(&outcome.manifest), None);
}

#[tokio::test]
async fn a_drill_that_could_not_be_tried_says_nothing_of_the_backup() {
    let fails_to_start = |kind| {
        let server = ScriptedDrillServer::new(ScriptedRestorer::new());
        server.fails_to_start(kind)
    };
    let fails_to_load =
        |kind| ScriptedDrillServer::new(ScriptedRestorer::new().fails_to_load("data-rest", kind));
    for (server, says) in [
        (fails_to_start(ErrorKind::PermissionDenied), false),
        (fails_to_start(ErrorKind::NoRoom), false),
        (fails_to_start(ErrorKind::ToolMissing), false),
        (fails_to_start(ErrorKind::ToolFailed), false),
        (fails_to_load(ErrorKind::PermissionDenied), true),
        (fails_to_load(ErrorKind::ToolFailed), true),
        (fails_to_load(ErrorKind::Timeout), true),
    ] {
        let outcome = drill(&server, &[], untouched).await;
        let run = record(&outcome);
        assert_eq!(run.result, RunResult::Failed);
        let proofs = Proofs::new(vec![run.clone()]);
        let newest = proofs.newest_drill(&outcome.manifest);
        assert_eq!(newest, says.then_some(&run), "{run:?}");
        // What an older version noted.
        let before = RunRecord { kind: None, ..run };
        let proofs = Proofs::new(vec![before.clone()]);
        assert_eq!(proofs.newest_drill(&outcome.manifest), Some(&before));
    }
}
