use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use super::*;

fn source(name: &str) -> SourceName {
    SourceName::new(name).unwrap()
}

fn backup_id() -> BackupId {
    "20260205T030000Z-7f3a".parse().unwrap()
}

fn backup_of(name: &str) -> Work {
    let source = source(name);
    Work::Backup { source }
}

fn verify_of(name: &str) -> Work {
    Work::Verify {
        source: source(name),
        backup: backup_id(),
        level: VerifyLevel::Hashed,
    }
}

fn drill_of(name: &str) -> Work {
    Work::Drill {
        source: source(name),
        backup: backup_id(),
    }
}

fn sandbox_of(name: &str) -> Work {
    Work::Sandbox {
        source: source(name),
        backup: backup_id(),
        selection: Selection::default(),
    }
}

fn order(work: Work, by: &str) -> Order {
    let by = by.to_owned();
    Order {
        work,
        by,
        slot: None,
    }
}

/// A job that waits.
pub(super) fn queued() -> JobView {
    let now = DateTime::UNIX_EPOCH;
    let order = order(backup_of("shop"), "ann");
    JobView::queued(&RunId::new(now, 7), &order, now)
}

/// Works until it is let go or stopped.
#[derive(Debug, Default)]
struct Hands {
    busy: AtomicUsize,
    most: AtomicUsize,
    go: Notify,
}

impl Hands {
    fn jobs(self: &Arc<Self>) -> Jobs {
        Jobs::with(Arc::clone(self) as Arc<dyn Worker>)
    }
}

#[async_trait]
impl Worker for Hands {
    fn has_sandboxes(&self) -> bool {
        true
    }

    async fn work(&self, job: &Running) -> End {
        job.begun();
        let busy = self.busy.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(busy, Ordering::SeqCst);
        let stopped = tokio::select! {
            () = self.go.notified() => false,
            () = job.cancel.cancelled() => true,
        };
        self.busy.fetch_sub(1, Ordering::SeqCst);
        if stopped {
            return End::new(State::Cancelled);
        }
        match &job.order.work {
            Work::Prune => panic!("no hands"),
            Work::Sandbox { .. } => {
                let access = SandboxAccess {
                    host: "db".to_owned(),
                    port: 5432,
                    database: "restore_shop".to_owned(),
                    password: "hunter2".to_owned(),
                };
                let view = SandboxView {
                    database: access.database.clone(),
                    host: access.host.clone(),
                    port: access.port,
                    until: String::new(),
                    tables: 1,
                    rows: 2,
                    compared: "equal",
                };
                End {
                    sandbox: Some((view, access)),
                    ..End::new(State::Success)
                }
            }
            _ => End::new(State::Success),
        }
    }
}

/// Waits until a job is in one of these states.
async fn until(jobs: &Jobs, id: &str, states: &[&str]) -> JobView {
    let mut watch = jobs.watch(id).unwrap();
    let view = watch.wait_for(|view| states.contains(&view.state)).await;
    view.unwrap().clone()
}

#[tokio::test]
async fn the_same_is_done_once_at_a_time() {
    let hands = Arc::new(Hands::default());
    let jobs = hands.jobs();
    for work in [
        backup_of("shop"),
        verify_of("shop"),
        drill_of("shop"),
        Work::DrillDue,
    ] {
        let first = jobs.start(order(work.clone(), "ann")).unwrap();
        let again = jobs.start(order(work.clone(), "bob")).unwrap_err();
        let id = first.id.clone();
        assert_eq!(again, JobRefusal::Running { id });
        assert!(jobs.cancel(&first.id));
        let over = until(&jobs, &first.id, &["cancelled"]).await;
        assert!(over.finished_at.is_some() && !jobs.cancel(&first.id));
        let next = jobs.start(order(work, "bob")).unwrap();
        assert_ne!(next.id, first.id);
        assert!(jobs.cancel(&next.id));
        until(&jobs, &next.id, &["cancelled"]).await;
    }
    assert!(!jobs.cancel("20260205T030000Z-7f3a09c2"));
}

#[tokio::test]
async fn each_kind_of_work_has_its_limit() {
    for (work, limit) in [
        (drill_of as fn(&str) -> Work, DRILLS),
        (verify_of, VERIFICATIONS),
    ] {
        let hands = Arc::new(Hands::default());
        let jobs = hands.jobs();
        let started: Vec<_> = ["a", "b", "c", "d"]
            .into_iter()
            .map(|name| jobs.start(order(work(name), "ann")).unwrap())
            .collect();
        for job in &started {
            until(&jobs, &job.id, &["running", "success"]).await;
            hands.go.notify_one();
        }
        for job in &started {
            until(&jobs, &job.id, &["success"]).await;
        }
        assert_eq!(hands.most.load(Ordering::SeqCst), limit);
        let all = jobs.all();
        assert!(all.is_sorted_by(|a, b| a.id > b.id) && all.len() == 4);
    }
}

#[tokio::test]
async fn only_so_much_waits_and_schedules_are_never_kept_out() {
    let hands = Arc::new(Hands::default());
    let jobs = hands.jobs();
    let running = jobs.start(order(drill_of("first"), "root")).unwrap();
    until(&jobs, &running.id, &["running"]).await;
    let mut waiting = 0;
    'all: for person in 0.. {
        for number in 0..=WAITING_OF_ONE {
            let work = drill_of(&format!("{person}-{number}"));
            let by = format!("person {person}");
            match jobs.start(order(work, &by)) {
                Ok(_) => waiting += 1,
                Err(refusal) => {
                    let is_own = number == WAITING_OF_ONE;
                    let limit = if is_own { WAITING_OF_ONE } else { WAITING };
                    assert_eq!(refusal, JobRefusal::TooMany { waiting: limit });
                    if !is_own {
                        break 'all;
                    }
                }
            }
        }
    }
    assert_eq!(waiting, WAITING);
    jobs.start(order(Work::DrillDue, SCHEDULE)).unwrap();
    jobs.stop().await;
    assert!(jobs.all().iter().all(|job| job.state == "cancelled"));
    let refusal = jobs.start(order(backup_of("shop"), "ann")).unwrap_err();
    assert_eq!(refusal, JobRefusal::Stopping);
}

#[tokio::test]
async fn access_is_given_once_and_only_to_whoever_asked() {
    let hands = Arc::new(Hands::default());
    let jobs = hands.jobs();
    let job = jobs.start(order(sandbox_of("shop"), "ann")).unwrap();
    let again = jobs.start(order(sandbox_of("shop"), "ann")).unwrap_err();
    assert!(matches!(again, JobRefusal::Running { id } if id == job.id));
    // One at a time for a person, whatever it is of; but another one is not the same.
    let another = jobs.start(order(sandbox_of("other"), "ann")).unwrap_err();
    assert!(matches!(another, JobRefusal::OneAtATime { id } if id == job.id));
    let mut part = sandbox_of("shop");
    if let Work::Sandbox { selection, .. } = &mut part {
        selection.tables.push("public.orders".to_owned());
    }
    let part = jobs.start(order(part, "ann")).unwrap_err();
    assert!(matches!(part, JobRefusal::OneAtATime { id } if id == job.id));
    let other = jobs.start(order(sandbox_of("shop"), "bob")).unwrap();
    assert!(jobs.take_access(&job.id, "ann").is_none());
    until(&jobs, &job.id, &["running"]).await;
    until(&jobs, &other.id, &["running"]).await;
    hands.go.notify_waiters();
    let view = until(&jobs, &job.id, &["success"]).await;
    assert_eq!(view.sandbox.as_ref().unwrap().database, "restore_shop");
    let text = serde_json::to_string(&view).unwrap();
    assert!(!text.contains("hunter2"), "{text}");
    assert!(jobs.take_access(&job.id, "bob").is_none());
    let access = jobs.take_access(&job.id, "ann").unwrap();
    assert_eq!(access.password, "hunter2");
    assert!(jobs.take_access(&job.id, "ann").is_none());
}

#[tokio::test]
async fn what_comes_to_no_end_has_failed() {
    let hands = Arc::new(Hands::default());
    let jobs = hands.jobs();
    let job = jobs.start(order(Work::Prune, SCHEDULE)).unwrap();
    until(&jobs, &job.id, &["running"]).await;
    hands.go.notify_one();
    let view = until(&jobs, &job.id, &["failed"]).await;
    assert_eq!(view.error.unwrap().kind, "internal");
    assert_eq!((view.operation.as_str(), view.source), ("prune", None));
}

#[tokio::test]
async fn what_is_over_is_forgotten_in_time_and_what_goes_on_is_not() {
    let hands = Arc::new(Hands::default());
    let jobs = hands.jobs();
    let kept = jobs.start(order(backup_of("kept"), "ann")).unwrap();
    until(&jobs, &kept.id, &["running"]).await;
    for _ in 0..ENDED + 10 {
        let job = jobs.start(order(backup_of("shop"), "ann")).unwrap();
        assert!(jobs.cancel(&job.id));
        until(&jobs, &job.id, &["cancelled"]).await;
    }
    assert_eq!(jobs.all().len(), ENDED + 1);
    assert_eq!(jobs.get(&kept.id).unwrap().state, "running");
}
