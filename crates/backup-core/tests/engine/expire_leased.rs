//! Letting backups go while others read and write them.

use std::sync::Arc;
use std::time::Duration;

use backup_core::backup::BackupId;
use backup_core::clock::Clock as _;
use backup_core::engine::{Engine, ExpireOutcome};
use backup_core::error::{Error, ErrorKind};
use backup_core::layout;
use backup_core::lease::{GivenUp, Lease, LeaseKind, LeaseSettings, Work};
use backup_core::manifest::Manifest;
use backup_core::run_record::{Operation, Who};
use backup_core::store::{StoreKey, UnfinishedUpload};
use backup_testing::{FakeProcesses, Fault, FaultyStore, MemoryStore, Op};
use chrono::TimeDelta;
use tokio_util::sync::CancellationToken;

use super::expire::{daily, listed, objects, rules};
use super::{Bench, source};

/// Two processes over one store, with three backups.
struct House {
    bench: Bench,
    processes: FakeProcesses,
    backups: Vec<Manifest>,
}

impl House {
    async fn new() -> Self {
        Self::over(Bench::new()).await
    }

    async fn over(bench: Bench) -> Self {
        let backups = daily(&bench, "app", 3).await;
        Self {
            bench,
            processes: FakeProcesses::new(1),
            backups,
        }
    }

    fn engine(&self, pid: u32) -> Engine {
        self.bench.engine.clone().with_leases(LeaseSettings {
            who: Who {
                user: "postgres".to_owned(),
                host: format!("host-{pid}"),
            },
            processes: Arc::new(self.processes.seen_by(pid)),
            ttl: Duration::from_mins(1),
            given_up: GivenUp::default(),
        })
    }

    /// The second process says that it reads a backup.
    async fn reader(&self, backup: &BackupId) -> Lease {
        let work = Work {
            operation: Operation::Restore,
            backup: Some(backup.clone()),
            slot: None,
        };
        let leases = self.engine(2).leases().unwrap();
        let (app, never) = (source("app"), CancellationToken::new());
        leases.reading(&app, &work, &never).await.unwrap()
    }

    /// The first process lets all go but the newest.
    async fn prune(&self) -> ExpireOutcome {
        let (engine, never) = (self.engine(1), CancellationToken::new());
        let app = source("app");
        let lease = engine
            .hold_stored(&app, Operation::Prune, &never)
            .await
            .unwrap();
        let plan = engine.plan_expiry(&app, &rules(1), &never).await.unwrap();
        let outcome = engine.expire(&plan, &never).await;
        lease.unwrap().release().await.unwrap();
        outcome
    }
}

#[tokio::test]
async fn what_somebody_reads_stays_until_he_has_done() {
    let house = House::new().await;
    let [oldest, second, newest] = house.backups.as_slice() else {
        panic!("three backups");
    };
    let reader = house.reader(&oldest.id).await;
    let outcome = house.prune().await;
    assert_eq!(outcome.deleted, std::slice::from_ref(&second.id));
    let [warning] = outcome.warnings.as_slice() else {
        panic!("{:?}", outcome.warnings);
    };
    let start = format!("backup {} stays for now: it is in use by", oldest.id);
    assert!(warning.starts_with(&start), "{warning}");
    assert!(warning.contains("postgres@host-2"), "{warning}");
    assert!(objects(&house.bench, oldest).len() > 3);
    assert_eq!(
        listed(&house.bench, "app").await,
        [oldest.clone(), newest.clone()]
    );
    reader.release().await.unwrap();
    let outcome = house.prune().await;
    assert_eq!(outcome.deleted, std::slice::from_ref(&oldest.id));
    assert_eq!(outcome.warnings, Vec::<String>::new());
}

/// Somebody may have begun to read just before the manifest went.
#[tokio::test]
async fn objects_stay_where_nobody_can_tell_who_reads_them() {
    let mut faulty = None;
    let bench = Bench::over(MemoryStore::new(), |memory| {
        let store = Arc::new(FaultyStore::new(memory));
        faulty = Some(Arc::clone(&store));
        store
    });
    let faulty = faulty.unwrap();
    let house = House::over(bench).await;
    let oldest = &house.backups[0];
    let (engine, never) = (house.engine(1), CancellationToken::new());
    let plan = engine
        .plan_expiry(&source("app"), &rules(1), &never)
        .await
        .unwrap();
    let second_look = Fault::on(Op::List).key("_leases/readers").nth(2);
    faulty.inject(second_look.rejects(ErrorKind::Unavailable));
    let outcome = engine.expire(&plan, &never).await;
    assert_eq!(outcome.deleted, std::slice::from_ref(&oldest.id));
    assert_eq!(outcome.freed_bytes, 0);
    let start = format!(
        "objects of backup {} are left for now: who uses them is not known: ",
        oldest.id
    );
    assert!(
        outcome.warnings[0].starts_with(&start),
        "{:?}",
        outcome.warnings
    );
    assert_eq!(outcome.untried, 1, "{:?}", outcome.warnings);
    assert_eq!(faulty.hits(), 1);
    let left = objects(&house.bench, oldest);
    assert!(left.len() > 3, "{left:?}");
    assert_eq!(listed(&house.bench, "app").await, house.backups[1..]);
}

/// The object with which a killed run tried the store goes with the next prune, whatever else does.
#[tokio::test]
async fn what_the_dead_tried_the_store_with_goes() {
    let house = House::new().await;
    let memory = &house.bench.memory;
    let now = house.bench.clock.now();
    let leave = |nonce, age| {
        let key = layout::probe_key(nonce);
        memory.set(key.as_str(), "one");
        memory.set_modified(key.as_str(), now - age);
        key
    };
    let (old, fresh) = (
        leave(1, TimeDelta::hours(25)),
        leave(2, TimeDelta::hours(1)),
    );
    let (app, never) = (source("app"), CancellationToken::new());
    house
        .engine(1)
        .plan_expiry(&app, &rules(1), &never)
        .await
        .unwrap();
    assert!(
        memory.bytes(old.as_str()).is_some(),
        "a plan removes nothing"
    );
    house.prune().await;
    assert!(memory.bytes(old.as_str()).is_none());
    assert!(memory.bytes(fresh.as_str()).is_some());
}

#[tokio::test]
async fn a_reader_that_died_protects_only_for_its_time() {
    let house = House::new().await;
    let reader = house.reader(&house.backups[0].id).await;
    // Its task renews nothing more.
    drop(reader);
    house.bench.clock.advance(Duration::from_mins(2));
    let outcome = house.prune().await;
    assert_eq!(outcome.deleted.len(), 2, "{outcome:?}");
}

#[tokio::test]
async fn one_prune_at_a_time() {
    let house = House::new().await;
    let (app, never) = (source("app"), CancellationToken::new());
    let other = house.engine(2);
    let lease = other
        .hold_stored(&app, Operation::Prune, &never)
        .await
        .unwrap();
    let error = house
        .engine(1)
        .hold_stored(&app, Operation::Prune, &never)
        .await;
    let Err(Error::Held { holder, .. }) = error else {
        panic!("{error:?}");
    };
    assert_eq!(holder.operation, Operation::Prune);
    lease.unwrap().release().await.unwrap();
    assert_eq!(house.prune().await.deleted.len(), 2);
}

/// However old what lies there is: its run may be slow.
#[tokio::test]
async fn what_is_being_written_is_no_orphan_and_a_bar_stays() {
    let house = House::new().await;
    let never = CancellationToken::new();
    let long_ago = house.backups[0].started_at - TimeDelta::days(9);
    let (writing, dead) = (BackupId::new(long_ago, 1), BackupId::new(long_ago, 2));
    let memory = &house.bench.memory;
    let put = |id: &BackupId| {
        let key = format!("backups/app/{id}/data-0001.dump");
        memory.set(&key, "rows");
        memory.set_modified(&key, long_ago);
        key
    };
    let (kept, gone) = (put(&writing), put(&dead));
    for id in [&writing, &dead] {
        memory.leave_upload(UnfinishedUpload {
            key: StoreKey::new(format!("backups/app/{id}/data-0002.dump")).unwrap(),
            id: "upload".to_owned(),
            begun_at: long_ago,
        });
    }
    let work = |id: &BackupId| Work {
        operation: Operation::Backup,
        backup: Some(id.clone()),
        slot: None,
    };
    // The one of the dead run is taken over, which bars its manifest.
    let leases = house.engine(2).leases().unwrap();
    let app = source("app");
    let dead_work = work(&dead);
    let first = leases.exclusive(LeaseKind::Backup, &app, &dead_work, &never);
    drop(first.await.unwrap());
    house.bench.clock.advance(Duration::from_mins(2));
    let leases = house.engine(3).leases().unwrap();
    let writing_work = work(&writing);
    let second = leases.exclusive(LeaseKind::Backup, &app, &writing_work, &never);
    let second = second.await.unwrap();
    let bar = format!("backups/app/{dead}/manifest.json");
    assert!(memory.bytes(&bar).is_some());

    let outcome = house.prune().await;
    assert_eq!(outcome.swept, [dead]);
    assert_eq!(outcome.aborted_uploads, 1);
    assert_eq!(outcome.warnings, Vec::<String>::new());
    assert!(memory.bytes(&kept).is_some() && memory.bytes(&gone).is_none());
    assert!(memory.bytes(&bar).is_some());
    second.release().await.unwrap();
    let outcome = house.prune().await;
    assert_eq!(outcome.swept, [writing]);
    assert_eq!(outcome.aborted_uploads, 1);
    assert!(memory.bytes(&kept).is_none());
}

/// A machine that was suspended for days wakes up and would go on where it was.
#[tokio::test]
async fn a_run_that_stood_still_is_barred_before_its_parts_go() {
    let house = House::new().await;
    let never = CancellationToken::new();
    let asleep = BackupId::new(house.backups[0].started_at - TimeDelta::days(9), 1);
    let memory = &house.bench.memory;
    let key = format!("backups/app/{asleep}/data-0001.dump");
    memory.set(&key, "rows");
    memory.set_modified(&key, asleep.started_at());
    let work = Work {
        operation: Operation::Backup,
        backup: Some(asleep.clone()),
        slot: None,
    };
    let leases = house.engine(2).leases().unwrap();
    let app = source("app");
    let lease = leases.exclusive(LeaseKind::Backup, &app, &work, &never);
    let lease = lease.await.unwrap();
    house.bench.clock.advance(Duration::from_hours(48));

    let outcome = house.prune().await;
    assert_eq!(outcome.swept, std::slice::from_ref(&asleep));
    assert!(memory.bytes(&key).is_none());
    let manifest = format!("backups/app/{asleep}/manifest.json");
    assert!(memory.bytes(&manifest).is_some(), "no bar");
    assert!(matches!(
        lease.confirm().await,
        Err(Error::LeaseLost { .. })
    ));
    // The next run is not in the way of anybody.
    let mut next = work;
    next.backup = None;
    let taken = leases.exclusive(LeaseKind::Backup, &app, &next, &never);
    taken.await.unwrap().release().await.unwrap();
}

/// It cannot bar the run, so it must not take away what that could still commit.
#[tokio::test]
async fn who_may_not_write_leaves_what_a_silent_run_wrote() {
    let house = House::new().await;
    let never = CancellationToken::new();
    let asleep = BackupId::new(house.backups[0].started_at - TimeDelta::days(9), 1);
    let memory = &house.bench.memory;
    let key = format!("backups/app/{asleep}/data-0001.dump");
    memory.set(&key, "rows");
    memory.set_modified(&key, asleep.started_at());
    let work = Work {
        operation: Operation::Backup,
        backup: Some(asleep.clone()),
        slot: None,
    };
    let leases = house.engine(2).leases().unwrap();
    let app = source("app");
    let lease = leases.exclusive(LeaseKind::Backup, &app, &work, &never);
    drop(lease.await.unwrap());
    house.bench.clock.advance(Duration::from_hours(48));

    let faulty = FaultyStore::new(memory.clone());
    for op in [Op::Create, Op::Replace] {
        faulty.inject(Fault::on(op).rejects(ErrorKind::PermissionDenied));
    }
    let engine = house.engine(1).over(Arc::new(faulty));
    let plan = engine.plan_expiry(&app, &rules(1), &never).await.unwrap();
    let outcome = engine.expire(&plan, &never).await;
    assert_eq!(outcome.swept, Vec::<BackupId>::new());
    assert!(memory.bytes(&key).is_some());
    let [warning] = outcome.warnings.as_slice() else {
        panic!("{:?}", outcome.warnings);
    };
    assert!(
        warning.starts_with("what dead runs left stays"),
        "{warning}"
    );
}
