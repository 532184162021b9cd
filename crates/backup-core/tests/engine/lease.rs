//! Leases: who may, who must wait, and who publishes nothing any more.

use std::sync::Arc;
use std::time::Duration;

use backup_core::backup::BackupId;
use backup_core::catalog::ListRequest;
use backup_core::clock::Clock as _;
use backup_core::engine::{BackupOutcome, Engine};
use backup_core::error::{Error, ErrorKind};
use backup_core::lease::{GivenUp, Holder, Lease, LeaseKind, LeaseSettings, Leases, SKEW, Work};
use backup_core::run_record::{Operation, Who};
use backup_core::store::Store;
use backup_testing::{
    FakeCompressor, FakeProcesses, Fault, FaultyStore, FixedClock, MemoryStore, Op, TestObserver,
};
use tokio_util::sync::CancellationToken;

use super::{dumper, request, source};

const TTL: Duration = Duration::from_mins(1);
const LEASE: &str = "_leases/backup/app.json";

/// Several processes over one store.
struct House {
    memory: Arc<MemoryStore>,
    faulty: FaultyStore,
    clock: FixedClock,
    processes: FakeProcesses,
    observer: TestObserver,
}

impl House {
    fn new() -> Self {
        let memory = Arc::new(MemoryStore::new());
        Self {
            faulty: FaultyStore::new(Arc::clone(&memory) as Arc<dyn Store>),
            memory,
            clock: FixedClock::default(),
            processes: FakeProcesses::new(1),
            observer: TestObserver::default(),
        }
    }

    /// What lies where backups do.
    fn published(&self) -> Vec<String> {
        let mut keys = self.memory.keys();
        keys.retain(|key| key.starts_with("backups/"));
        keys
    }

    fn settings(&self, pid: u32) -> LeaseSettings {
        LeaseSettings {
            who: Who {
                user: "postgres".to_owned(),
                host: format!("host-{pid}"),
            },
            processes: Arc::new(self.processes.seen_by(pid)),
            ttl: TTL,
            given_up: GivenUp::default(),
        }
    }

    /// Process 1 is the one whose store fails.
    fn store(&self, pid: u32) -> Arc<dyn Store> {
        match pid {
            1 => Arc::new(self.faulty.clone()),
            _ => Arc::clone(&self.memory) as Arc<dyn Store>,
        }
    }

    fn leases(&self, pid: u32) -> Leases {
        let clock = Arc::new(self.clock.clone());
        Leases::new(self.store(pid), clock, self.settings(pid))
    }

    async fn take(&self, pid: u32) -> Result<Lease, Error> {
        self.take_for(pid, Operation::Backup, Some(id_of(pid)))
            .await
    }

    /// As whoever notes a dead run has it.
    async fn tidy(&self, pid: u32) -> Lease {
        self.take_for(pid, Operation::Prune, None).await.unwrap()
    }

    async fn take_for(
        &self,
        pid: u32,
        operation: Operation,
        backup: Option<BackupId>,
    ) -> Result<Lease, Error> {
        let work = Work {
            operation,
            backup,
            slot: None,
        };
        let never = CancellationToken::new();
        let leases = self.leases(pid);
        leases
            .exclusive(LeaseKind::Backup, &source("app"), &work, &never)
            .await
    }

    async fn backup(&self, pid: u32) -> Result<BackupOutcome, Error> {
        let mut request = request("app");
        request.encrypt = false;
        let never = CancellationToken::new();
        self.engine(pid).backup(&dumper(), &request, &never).await
    }

    fn engine(&self, pid: u32) -> Engine {
        Engine::new(self.store(pid), Arc::new(self.clock.clone()))
            .with_compressor(Arc::new(FakeCompressor))
            .with_observer(Arc::new(self.observer.clone()))
            .with_leases(self.settings(pid))
    }

    fn lease(&self) -> serde_json::Value {
        let text = self.memory.bytes(LEASE).expect("a lease");
        serde_json::from_slice(&text).expect("JSON")
    }

    fn bar_of(&self, pid: u32) -> Option<String> {
        let key = format!("backups/app/{}/manifest.json", id_of(pid));
        let text = self.memory.bytes(&key)?;
        Some(String::from_utf8(text.to_vec()).expect("text"))
    }
}

fn id_of(pid: u32) -> BackupId {
    format!("20260205T030000Z-000{pid}").parse().unwrap()
}

fn held_by(error: Result<Lease, Error>) -> Holder {
    match error {
        Err(Error::Held { holder, .. }) => *holder,
        other => panic!("not held: {other:?}"),
    }
}

fn lost_to(error: Option<Error>) -> Option<u32> {
    match error {
        Some(Error::LeaseLost { by, .. }) => by.map(|holder| holder.pid),
        other => panic!("not lost: {other:?}"),
    }
}

#[tokio::test]
async fn one_at_a_time_has_it_and_the_other_is_told_who() {
    let house = House::new();
    let first = house.take(1).await.unwrap();
    let error = house.take(2).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(
        error.to_string(),
        "the backup lease of app is held by postgres@host-1, process 1 (backup \
         20260205T030000Z-0001), since 2026-02-05T03:00:00Z, until 2026-02-05T03:01:00Z unless \
         renewed"
    );
    first.release().await.unwrap();
    let second = house.take(2).await.unwrap();
    assert_eq!(held_by(house.take(1).await).pid, 2);
    assert_eq!(house.lease()["epoch"], 2);
    assert_eq!(house.bar_of(1), None, "who gives it back is not barred");
    second.release().await.unwrap();
    assert_eq!(house.lease()["state"], "released");
}

#[tokio::test]
async fn other_sources_and_other_work_are_not_in_the_way() {
    let house = House::new();
    let _backup = house.take(1).await.unwrap();
    let (leases, never) = (house.leases(2), CancellationToken::new());
    let work = Work {
        operation: Operation::Backup,
        backup: None,
        slot: None,
    };
    for (kind, name) in [(LeaseKind::Backup, "app2"), (LeaseKind::Prune, "app")] {
        let taken = leases.exclusive(kind, &source(name), &work, &never).await;
        assert!(taken.is_ok(), "{kind} {name}: {taken:?}");
    }
}

#[tokio::test]
async fn a_lease_that_nobody_renews_is_taken_over_and_its_run_is_barred() {
    let house = House::new();
    let _first = house.take(1).await.unwrap();
    house.clock.advance(TTL);
    assert_eq!(held_by(house.take(2).await).pid, 1);
    house.clock.advance(SKEW);
    let second = house.take(2).await.unwrap();
    let bar = house.bar_of(1).expect("a bar");
    assert!(bar.contains("barred_at"), "{bar}");
    let engine = Engine::new(house.store(9), Arc::new(house.clock.clone()));
    let barred = engine.catalog().barred(&source("app")).await.unwrap();
    assert_eq!(barred, [(id_of(1), house.clock.now())]);
    assert_eq!(house.bar_of(2), None);
    second.release().await.unwrap();
    assert_eq!(house.lease().get("unbarred"), None);
}

#[tokio::test]
async fn a_process_that_has_ended_keeps_nobody() {
    let house = House::new();
    drop(house.take(1).await.unwrap());
    house.processes.end(1);
    house.take(2).await.unwrap();
    assert!(house.bar_of(1).is_some());
}

/// The store is away when a run fails, and so the lease stays: it stops everybody but the process
/// that left it, whose next attempt begins in seconds.
#[tokio::test]
async fn what_a_process_gave_up_stops_others_and_not_itself() {
    for op in [Op::Replace, Op::Create] {
        let house = House::new();
        let leases = house.leases(1);
        let never = CancellationToken::new();
        let work = |draw: u32| Work {
            operation: Operation::Backup,
            backup: Some(id_of(draw)),
            slot: None,
        };
        let (kind, app, first) = (LeaseKind::Backup, source("app"), work(1));
        let away = Fault::on(op).rejects(ErrorKind::Unavailable);
        if op == Op::Replace {
            let lease = leases.exclusive(kind, &app, &first, &never).await.unwrap();
            // While it is held, it is held for this process as well.
            let error = leases.exclusive(kind, &app, &first, &never).await;
            assert_eq!(held_by(error).pid, 1);
            house.faulty.inject(away);
            assert!(lease.release().await.is_err());
        } else {
            // It came to be, and neither the answer nor a look at it came back.
            house.faulty.inject(Fault::on(op).loses_the_answer());
            let unread = Fault::on(Op::Read).nth(2).rejects(ErrorKind::Unavailable);
            house.faulty.inject(unread);
            let taken = leases.exclusive(kind, &app, &first, &never).await;
            assert_eq!(taken.unwrap_err().kind(), ErrorKind::Timeout);
        }
        house.faulty.heal();
        assert_eq!(house.lease()["state"], "held");
        assert_eq!(held_by(house.take(2).await).pid, 1, "{op}");
        assert_eq!(held_by(house.take(1).await).pid, 1, "another set, {op}");
        let second = leases.clone().exclusive(kind, &app, &work(3), &never).await;
        let second = second.unwrap();
        assert!(
            house.bar_of(1).is_some(),
            "it commits nothing any more: {op}"
        );
        assert_eq!(held_by(house.take(2).await).backup, Some(id_of(3)));
        second.release().await.unwrap();
        assert_eq!(house.lease()["state"], "released");
    }
}

#[tokio::test]
async fn of_many_that_come_at_once_one_gets_it() {
    let house = House::new();
    for round in 0..20 {
        let taken = futures::future::join_all((1..=6).map(|pid| house.take(pid))).await;
        let (won, others): (Vec<_>, Vec<_>) = taken.into_iter().partition(Result::is_ok);
        assert_eq!(won.len(), 1, "round {round}");
        for other in others {
            held_by(other);
        }
        // Some are given back, some are left by the dead.
        if round % 2 == 0 {
            for lease in won {
                lease.unwrap().release().await.unwrap();
            }
        } else {
            drop(won);
            house.clock.advance(TTL + SKEW);
        }
    }
}

#[tokio::test]
async fn a_backup_that_was_committed_is_not_barred() {
    let house = House::new();
    let committed = house.backup(2).await.unwrap().manifest;
    // As if it had been killed before it could give the lease back.
    house.memory.mutate(LEASE, |text| {
        let held = String::from_utf8(text.clone()).unwrap();
        *text = held.replace("released", "held").into_bytes();
    });
    house.processes.end(2);
    house.take(3).await.unwrap();
    let listing = list(&house).await;
    assert_eq!(listing, [committed.id]);
}

#[tokio::test]
async fn bars_that_could_not_be_put_are_put_by_the_next() {
    let house = House::new();
    drop(house.take(3).await.unwrap());
    house.processes.end(3);
    let fault = Fault::on(Op::Create).key("manifest.json");
    house.faulty.inject(fault.rejects(ErrorKind::Unavailable));
    let error = house.take(1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!((house.faulty.hits(), house.bar_of(3)), (1, None));
    let second = house.take(2).await.unwrap();
    assert!(house.bar_of(3).is_some());
    assert_eq!(house.bar_of(1), None, "it gave the lease back");
    second.release().await.unwrap();
    assert_eq!(house.lease().get("unbarred"), None);
}

#[tokio::test]
async fn answers_that_get_lost_change_nothing() {
    for op in [Op::Create, Op::Replace] {
        let house = House::new();
        if op == Op::Replace {
            house.take(2).await.unwrap().release().await.unwrap();
        }
        house.faulty.inject(Fault::on(op).loses_the_answer());
        let lease = house.take(1).await.unwrap();
        assert_eq!(house.faulty.hits(), 1, "{op}");
        house
            .faulty
            .inject(Fault::on(Op::Replace).loses_the_answer());
        lease.release().await.unwrap();
        assert_eq!(house.lease()["state"], "released", "{op}");
        assert!(house.faulty.hits() >= 2, "{op}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_renewed_while_it_is_held() {
    let house = House::new();
    let lease = house.take(1).await.unwrap();
    for _ in 0..10 {
        house.clock.advance(TTL / 3);
        tokio::time::sleep(TTL / 3 + Duration::from_millis(1)).await;
        assert_eq!(held_by(house.take(2).await).pid, 1);
    }
    assert_eq!(house.lease()["beat"], 10);
    // A lost answer, and one that never came.
    let fault = Fault::on(Op::Replace);
    house.faulty.inject(fault.clone().nth(1).loses_the_answer());
    house
        .faulty
        .inject(fault.nth(2).rejects(ErrorKind::Unavailable));
    house.clock.advance(TTL / 3);
    tokio::time::sleep(TTL).await;
    assert_eq!(house.faulty.hits(), 2);
    assert!(!lease.token().is_cancelled() && lease.loss().is_none());
    lease.release().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_holder_who_slept_finds_out_who_has_it_now() {
    let house = House::new();
    let first = house.take(1).await.unwrap();
    house.clock.advance(TTL + SKEW);
    let second = house.take(2).await.unwrap();
    tokio::time::sleep(TTL / 3 + Duration::from_millis(1)).await;
    assert!(first.token().is_cancelled());
    assert_eq!(lost_to(first.loss()), Some(2));
    first.release().await.unwrap();
    assert_eq!(held_by(house.take(3).await).pid, 2);
    assert!(second.loss().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_store_out_of_reach_for_longer_than_the_lease_ends_nothing_by_itself() {
    for fault in [
        Fault::on(Op::Replace).rejects(ErrorKind::Unavailable),
        Fault::on(Op::Replace).stalls(),
    ] {
        let house = House::new();
        let lease = house.take(1).await.unwrap();
        house.faulty.inject(fault);
        house.clock.advance(2 * TTL);
        tokio::time::sleep(2 * TTL).await;
        assert!(house.faulty.hits() > 3, "{}", house.faulty.hits());
        assert!(!lease.token().is_cancelled());
        house.faulty.heal();
        tokio::time::sleep(TTL / 3).await;
        assert_eq!(held_by(house.take(2).await).pid, 1, "it is renewed");
        lease.confirm().await.unwrap();
    }
}

#[tokio::test]
async fn who_cannot_renew_his_lease_commits_nothing() {
    let house = House::new();
    house
        .faulty
        .inject(Fault::on(Op::Replace).rejects(ErrorKind::Unavailable));
    let error = house.backup(1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(
        error.to_string().contains("renew the backup lease of app"),
        "{error}"
    );
    assert_eq!(house.published(), Vec::<String>::new());
    assert_eq!(
        house.observer.warnings().len(),
        1,
        "{:?}",
        house.observer.warnings()
    );
}

#[tokio::test(start_paused = true)]
async fn a_holder_who_slept_goes_on_when_nobody_came() {
    let house = House::new();
    let lease = house.take(1).await.unwrap();
    house.clock.advance(10 * TTL);
    tokio::time::sleep(TTL / 3 + Duration::from_millis(1)).await;
    assert!(lease.loss().is_none());
    assert_eq!(held_by(house.take(2).await).pid, 1);
}

/// Process 1 stands still where `fault` says, and process 2 takes its lease over meanwhile.
async fn taken_over_at(fault: Fault) -> House {
    let house = House::new();
    house
        .faulty
        // Longer than the other one needs, however much else the machine does.
        .inject(fault.delays(Duration::from_secs(3)));
    let other = async {
        while house.faulty.hits() == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(
            house.backup(2).await.unwrap_err().kind(),
            ErrorKind::Conflict
        );
        house.clock.advance(TTL + SKEW);
        house.backup(2).await
    };
    let (slow, other) = tokio::join!(house.backup(1), other);
    let published = other.unwrap().manifest;
    let text = slow.unwrap_err().to_string();
    let words = "nothing was published: the backup lease of app was lost to postgres@host-2, \
                 process 2 (backup ";
    assert!(text.starts_with(words), "{text}");
    assert_eq!(list(&house).await, std::slice::from_ref(&published.id));
    // Of the other there is the bar alone.
    let mut left = house.published();
    left.retain(|key| !key.contains(published.id.as_str()));
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(left[0].ends_with("/manifest.json"), "{left:?}");
    assert_eq!(house.lease()["state"], "released");
    house
}

#[tokio::test]
async fn who_is_taken_over_while_he_works_publishes_nothing() {
    taken_over_at(Fault::on(Op::Put).key("data-rest")).await;
}

#[tokio::test]
async fn who_is_taken_over_on_his_last_step_finds_a_bar() {
    taken_over_at(Fault::on(Op::Create).key("manifest.json")).await;
}

/// The ids that a catalog shows; nothing is damaged.
async fn list(house: &House) -> Vec<BackupId> {
    let engine = Engine::new(house.store(9), Arc::new(house.clock.clone()));
    let listing = engine
        .catalog()
        .list(&ListRequest::default())
        .await
        .unwrap();
    assert_eq!(listing.damaged, []);
    listing
        .backups
        .into_iter()
        .map(|backup| backup.id)
        .collect()
}

#[tokio::test]
async fn a_run_gives_its_lease_back_however_it_ends() {
    let house = House::new();
    house.faulty.inject(
        Fault::on(Op::Put)
            .key("data-rest")
            .nth(1)
            .rejects(ErrorKind::Refused),
    );
    house.backup(1).await.unwrap_err();
    assert_eq!(house.lease()["state"], "released");
    house.backup(1).await.unwrap();
    assert_eq!(house.lease()["state"], "released");
    assert_eq!(house.lease()["epoch"], 2);
}

/// It takes none: the backup begins once the lease is there, and is not refused for it. Nor does
/// somebody who asks beforehand have to come back.
#[tokio::test(start_paused = true)]
async fn who_sees_to_a_dead_run_is_waited_for() {
    let (house, never) = (House::new(), CancellationToken::new());
    for asks_first in [false, true] {
        let lease = house.tidy(2).await;
        let soon = async {
            tokio::time::sleep(Duration::from_secs(20)).await;
            lease.release().await.unwrap();
        };
        let app = source("app");
        let work = async {
            if asks_first {
                let engine = house.engine(1);
                engine.check_turn(&app, &never).await.unwrap();
                // It is free by now, and the backup does not wait.
                assert_eq!(house.lease()["state"], "released");
            }
            house.backup(1).await
        };
        let (taken, ()) = tokio::join!(work, soon);
        assert!(list(&house).await.contains(&taken.unwrap().manifest.id));
    }
}

#[tokio::test(start_paused = true)]
async fn who_sees_to_a_dead_run_for_ever_is_not() {
    let (house, never) = (House::new(), CancellationToken::new());
    let lease = house.tidy(2).await;
    let begun = tokio::time::Instant::now();
    let error = house.backup(1).await.unwrap_err();
    let Error::Held { holder, .. } = error else {
        panic!("{error:?}");
    };
    assert!(holder.is_tidying());
    assert_eq!(house.published(), Vec::<String>::new());
    let asked = house.engine(1).check_turn(&source("app"), &never).await;
    assert!(matches!(asked, Err(Error::Held { .. })), "{asked:?}");
    assert!(begun.elapsed() > Duration::from_mins(4));
    lease.release().await.unwrap();
}

/// A backup is not waited for.
#[tokio::test(start_paused = true)]
async fn who_takes_a_backup_keeps_others_out_at_once() {
    let (house, never) = (House::new(), CancellationToken::new());
    let turn = house.take(1).await.unwrap();
    let begun = tokio::time::Instant::now();
    let error = house.backup(2).await.unwrap_err();
    assert!(matches!(&error, Error::Held { holder, .. } if !holder.is_tidying()));
    let asked = house.engine(2).check_turn(&source("app"), &never).await;
    assert!(matches!(asked, Err(Error::Held { .. })), "{asked:?}");
    assert_eq!(begun.elapsed(), Duration::ZERO);
    turn.release().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_one_that_sees_to_a_dead_run_can_be_stopped() {
    let (house, cancel) = (House::new(), CancellationToken::new());
    let lease = house.tidy(2).await;
    let later = cancel.clone();
    let stop = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        later.cancel();
    };
    let (engine, dumper, mut request) = (house.engine(1), dumper(), request("app"));
    request.encrypt = false;
    let backup = engine.backup(&dumper, &request, &cancel);
    let (stopped, ()) = tokio::join!(backup, stop);
    assert!(matches!(stopped, Err(Error::Cancelled)), "{stopped:?}");
    lease.release().await.unwrap();
}

#[tokio::test]
async fn an_id_under_which_something_lies_is_not_written_to() {
    let house = House::new();
    house.backup(2).await.unwrap();
    for suffix in 0..=u16::MAX {
        let id = BackupId::new(house.clock.now(), suffix);
        let key = format!("backups/app/{id}/data-rest.dump.fake");
        house.memory.set(&key, "what a run that was killed left");
    }
    let before = house.memory.keys();
    let error = house.backup(2).await.unwrap_err();
    assert_eq!(
        backup_core::error::chain(&error),
        "name a backup of app: every id that was drawn is taken"
    );
    assert_eq!(house.memory.keys(), before);
    assert_eq!(house.lease()["state"], "released");
    house.clock.advance(Duration::from_secs(1));
    house.backup(2).await.unwrap();
}

#[tokio::test]
async fn a_damaged_lease_is_an_error_that_says_what_to_do() {
    let house = House::new();
    house.memory.set(LEASE, "{");
    let error = house.take(2).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.hint().unwrap().contains("remove it"));
}

#[tokio::test]
async fn what_is_read_and_written_is_in_use() {
    let house = House::new();
    let app = source("app");
    let reading = |pid| Work {
        operation: Operation::Restore,
        backup: Some(id_of(pid)),
        slot: None,
    };
    let never = CancellationToken::new();
    let readers = house.leases(2);
    let writer = house.take(1).await.unwrap();
    let first = readers.reading(&app, &reading(5), &never).await.unwrap();
    let _second = readers.reading(&app, &reading(5), &never).await.unwrap();
    let _elsewhere = readers
        .reading(&source("b"), &reading(7), &never)
        .await
        .unwrap();
    let used = async || {
        let used = house.leases(3).in_use(&app).await.unwrap();
        let count = |(id, holders): (BackupId, Vec<Holder>)| (id, holders.len());
        used.into_iter().map(count).collect::<Vec<_>>()
    };
    assert_eq!(used().await, [(id_of(1), 1), (id_of(5), 2)]);
    first.release().await.unwrap();
    writer.release().await.unwrap();
    assert_eq!(used().await, [(id_of(5), 1)]);
    house.clock.advance(TTL + SKEW);
    assert_eq!(used().await, []);
    let left = |house: &House| {
        let keys = house.memory.keys();
        keys.iter()
            .filter(|key| key.starts_with("_leases/readers/app/"))
            .count()
    };
    assert_eq!(left(&house), 1);
    house.clock.advance(Duration::from_hours(24));
    assert_eq!(used().await, []);
    assert_eq!(left(&house), 1, "who looks removes nothing");
    house.leases(3).remove_litter(&app).await.unwrap();
    assert_eq!(left(&house), 0, "what a dead reader left is removed");
}

/// A run that was killed while it tried what the store can.
#[tokio::test]
async fn probes_of_the_dead_are_removed_after_a_day() {
    let house = House::new();
    let probes = || {
        let keys = house.memory.keys().into_iter();
        keys.filter(|key| key.starts_with("_leases/probe/")).count()
    };
    let leave = async |nonce| {
        let key = backup_core::layout::probe_key(nonce);
        house.memory.create(&key, "one".into()).await.unwrap();
        house.memory.set_modified(key.as_str(), house.clock.now());
    };
    leave(1).await;
    house.clock.advance(Duration::from_hours(23));
    leave(2).await;
    let app = source("app");
    house.leases(3).remove_litter(&app).await.unwrap();
    assert_eq!(probes(), 2);
    house.clock.advance(Duration::from_hours(2));
    house.leases(3).remove_litter(&app).await.unwrap();
    assert_eq!(probes(), 1, "the one of yesterday");
}

/// Such a login leaves one with each run: whoever was refused once would be refused thousands of times.
#[tokio::test]
async fn who_may_delete_nothing_tries_once() {
    let house = House::new();
    for nonce in 1..=3 {
        let key = backup_core::layout::probe_key(nonce);
        house.memory.create(&key, "one".into()).await.unwrap();
        house.memory.set_modified(key.as_str(), house.clock.now());
    }
    house.clock.advance(Duration::from_hours(25));
    let refused = Fault::on(Op::Delete).rejects(ErrorKind::PermissionDenied);
    house.faulty.inject(refused);
    let removed = house.leases(1).remove_litter(&source("app")).await;
    assert_eq!(removed.unwrap_err().kind(), ErrorKind::PermissionDenied);
    assert_eq!(house.faulty.hits(), 1);
}

/// Whether by hand or by a rule of the bucket: as long as nobody took it, it is still ours.
#[tokio::test]
async fn a_lease_that_was_removed_is_written_again() {
    let house = House::new();
    let lease = house.take(1).await.unwrap();
    assert!(house.memory.remove(LEASE));
    lease.confirm().await.unwrap();
    assert_eq!(held_by(house.take(2).await).pid, 1);
    assert!(house.memory.remove(LEASE));
    let other = house.take(2).await.unwrap();
    let lost = lease.confirm().await;
    assert!(
        matches!(lost, Err(Error::LeaseLost { by: Some(_), .. })),
        "{lost:?}"
    );
    assert!(lease.token().is_cancelled());
    other.release().await.unwrap();
}

/// A folder that was emptied, or unmounted: there is nothing left that could be committed.
#[tokio::test]
async fn what_somebody_emptied_meanwhile_is_not_committed() {
    let house = House::new();
    // It goes between the last part and the manifest.
    let memory = Arc::clone(&house.memory);
    let fault = Fault::on(Op::Put)
        .key("facts")
        .delays(Duration::from_millis(300));
    house.faulty.inject(fault);
    let emptied = async {
        while house.faulty.hits() == 0 {
            tokio::task::yield_now().await;
        }
        for key in memory.keys() {
            assert!(memory.remove(&key));
        }
    };
    let (taken, ()) = tokio::join!(house.backup(1), emptied);
    let error = taken.unwrap_err();
    let text = backup_core::error::chain(&error);
    assert!(text.contains("gone from"), "{text}");
    assert_eq!(house.published(), Vec::<String>::new());
}

/// What a schedule asks for: a slot that was run is known to whoever comes next, and one with which
/// servers died is known by how often that was.
#[tokio::test]
async fn the_lease_of_a_schedule_tells_how_far_it_is() {
    let house = House::new();
    let never = CancellationToken::new();
    let shop = source("shop");
    let slot = house.clock.now();
    let engine = |pid: u32| {
        Engine::new(house.store(pid), Arc::new(house.clock.clone()))
            .with_leases(house.settings(pid))
    };
    let take = async |pid: u32| {
        let engine = engine(pid);
        let taken = engine.hold_slot(&shop, Operation::Backup, slot, &never);
        taken.await.unwrap().unwrap()
    };
    assert_eq!(engine(2).slot(&shop).await.unwrap(), None);
    // One dies with it, the next one ends in good order, and a third one runs it.
    let first = take(1).await;
    assert_eq!(first.slot().await.unwrap().begun, 1);
    house.processes.end(1);
    let second = take(2).await;
    let mark = second.slot().await.unwrap();
    assert_eq!((mark.begun, mark.settles(slot, slot)), (2, false));
    second.postpone(slot).await.unwrap();
    let third = take(3).await;
    assert_eq!(third.slot().await.unwrap().begun, 2);
    third.settle(slot).await.unwrap();
    let mark = engine(2).slot(&shop).await.unwrap().unwrap();
    assert!(mark.settled && mark.settles(slot, slot), "{mark:?}");
    // Looking once more does not begin it again.
    let fourth = take(3).await;
    assert_eq!(fourth.slot().await.unwrap(), mark);
    fourth.release().await.unwrap();
    assert!(engine(2).slot(&shop).await.unwrap().unwrap().settled);
    // Other leases know of no slot.
    house.take(2).await.unwrap().release().await.unwrap();
    assert!(house.lease().get("slot").is_none());
}
