//! Runs whose process is gone: noticed once, whoever looks, and not mistaken for others.

use std::sync::Arc;
use std::time::Duration;

use backup_core::engine::Engine;
use backup_core::history::HistoryRequest;
use backup_core::lease::{GivenUp, Lease, LeaseKind, LeaseSettings, Work};
use backup_core::run_record::{Operation, RunRecord, RunResult, Who};
use backup_core::store::Store;
use backup_testing::{FakeCompressor, FakeProcesses, FixedClock, MemoryStore};
use chrono::TimeDelta;
use tokio_util::sync::CancellationToken;

use super::{dumper, request, source};

struct House {
    memory: Arc<MemoryStore>,
    clock: FixedClock,
    processes: FakeProcesses,
}

impl House {
    /// With a repository and one backup.
    async fn new() -> Self {
        let house = Self {
            memory: Arc::new(MemoryStore::new()),
            clock: FixedClock::default(),
            processes: FakeProcesses::new(1),
        };
        house.backup(7).await;
        house.clock.advance(Duration::from_mins(1));
        house
    }

    fn engine(&self, pid: u32) -> Engine {
        self.engine_of(pid, self.processes.seen_by(pid))
    }

    fn engine_of(&self, pid: u32, processes: FakeProcesses) -> Engine {
        let settings = LeaseSettings {
            who: who(pid),
            processes: Arc::new(processes),
            ttl: Duration::from_mins(1),
            given_up: GivenUp::default(),
        };
        let store = Arc::clone(&self.memory) as Arc<dyn Store>;
        Engine::new(store, Arc::new(self.clock.clone()))
            .with_compressor(Arc::new(FakeCompressor))
            .with_leases(settings)
    }

    async fn backup(&self, pid: u32) {
        let mut request = request("app");
        request.encrypt = false;
        let never = CancellationToken::new();
        let engine = self.engine(pid);
        engine.backup(&dumper(), &request, &never).await.unwrap();
    }

    /// The lease of a run in the middle of its backup.
    async fn begin(&self, pid: u32) -> Lease {
        let work = Work {
            operation: Operation::Backup,
            backup: Some("20260205T030100Z-0001".parse().unwrap()),
            slot: None,
        };
        let (leases, never) = (self.engine(pid).leases().unwrap(), CancellationToken::new());
        leases
            .exclusive(LeaseKind::Backup, &source("app"), &work, &never)
            .await
            .unwrap()
    }

    async fn note(&self, pid: u32) -> Vec<RunRecord> {
        let never = CancellationToken::new();
        self.engine(pid).note_interrupted(&never).await.unwrap()
    }

    async fn records(&self) -> Vec<RunRecord> {
        let engine = self.engine(9);
        let all = HistoryRequest::default();
        engine.history().list(&all).await.unwrap().runs
    }

    fn bar(&self) -> Option<String> {
        let bar = self
            .memory
            .bytes("backups/app/20260205T030100Z-0001/manifest.json")?;
        Some(String::from_utf8(bar.to_vec()).unwrap())
    }
}

fn who(pid: u32) -> Who {
    Who {
        user: "postgres".to_owned(),
        host: format!("host-{pid}"),
    }
}

#[tokio::test]
async fn a_killed_run_is_recorded_once_and_commits_nothing_any_more() {
    let house = House::new().await;
    let lease = house.begin(1).await;
    assert_eq!(house.note(2).await, [], "it goes on");
    drop(lease);
    house.processes.end(1);
    // Two see it at the same moment.
    let (one, two) = tokio::join!(house.note(2), house.note(3));
    assert!(one.len() + two.len() >= 1);
    let records = house.records().await;
    assert_eq!(records.len(), 1);
    let record = &records[0];
    assert_eq!(record.result, RunResult::Interrupted);
    assert_eq!(record.who, who(1));
    assert_eq!(
        (&record.source, &record.backup),
        (&Some(source("app")), &None)
    );
    assert!(record.id.as_str().starts_with("20260205T030100Z-0000"));
    assert!(record.error.is_some() && !record.is_success());
    assert!(house.bar().unwrap().contains("barred_at"));
    house.clock.advance(Duration::from_mins(5));
    assert_eq!(house.note(2).await, []);
    // The next run is none of its business.
    house.backup(2).await;
    assert_eq!(house.records().await.len(), 1);
}

/// Of a process on another machine nothing is known but that it is silent, and clocks, outages and sleep
/// make it look so.
#[tokio::test]
async fn a_run_elsewhere_that_is_silent_for_very_long_is_recorded_and_one_that_is_not_is_left_alone()
 {
    let house = House::new().await;
    let lease = house.begin(1).await;
    let afar = house.engine_of(2, house.processes.seen_from_afar(2));
    let never = CancellationToken::new();
    for minutes in [1, 2, 57] {
        house.clock.advance(Duration::from_mins(minutes));
        assert_eq!(afar.note_interrupted(&never).await.unwrap(), []);
        assert!(house.bar().is_none(), "it may go on");
    }
    // Here it is seen to be alive, however long that lasts.
    house.clock.advance(Duration::from_hours(9));
    assert_eq!(house.note(3).await, []);
    assert!(house.bar().is_none());
    let noted = afar.note_interrupted(&never).await.unwrap();
    assert_eq!(noted.len(), 1);
    assert_eq!(noted[0].finished_at, noted[0].started_at, "nobody saw more");
    assert!(house.bar().is_some());
    drop(lease);
}

#[tokio::test]
async fn the_run_that_takes_the_turn_leaves_the_record_of_the_one_before() {
    let house = House::new().await;
    drop(house.begin(1).await);
    house.processes.end(1);
    house.backup(2).await;
    let records = house.records().await;
    let results: Vec<_> = records.iter().map(|run| run.result).collect();
    assert_eq!(results, [RunResult::Interrupted]);
    assert_eq!(house.note(3).await, []);
}

/// The store was away when it gave its lease back, and it said itself how it ended.
#[tokio::test]
async fn a_run_that_left_a_record_is_not_interrupted() {
    let house = House::new().await;
    drop(house.begin(1).await);
    let engine = house.engine(1);
    let mut run = engine.history().begin(Operation::Backup, who(1));
    run.source = Some(source("app"));
    run.started_at -= TimeDelta::seconds(5);
    house.clock.advance(Duration::from_secs(5));
    let never = CancellationToken::new();
    engine.history().record(&mut run, &never).await.unwrap();
    house.processes.end(1);
    assert_eq!(house.note(2).await, []);
    assert_eq!(house.records().await, [run]);
    assert!(house.bar().is_some(), "it commits nothing any more");
}

/// Another host had the same minute in its crontab, was told that the source is held, and wrote that down.
#[tokio::test]
async fn a_run_that_was_refused_meanwhile_does_not_stand_for_the_one_that_was_killed() {
    for refused_by in [1, 2] {
        let house = House::new().await;
        let engine = house.engine(refused_by);
        let mut refused = engine.history().begin(Operation::Backup, who(refused_by));
        refused.source = Some(source("app"));
        refused.result = RunResult::Failed;
        let lease = house.begin(1).await;
        let never = CancellationToken::new();
        engine.history().record(&mut refused, &never).await.unwrap();
        // The other goes on, and is killed.
        house.clock.advance(Duration::from_secs(20));
        lease.confirm().await.unwrap();
        drop(lease);
        house.processes.end(1);
        let noted = house.note(3).await;
        assert_eq!(noted.len(), 1, "refused by {refused_by}");
        assert_eq!(noted[0].result, RunResult::Interrupted);
    }
}
