//! Letting backups go: what is deleted, in which order, and what is left when something fails.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use backup_core::catalog::ListRequest;
use backup_core::engine::{
    ExpireOutcome, ExpiryPlan, ExpiryRules, JudgedBackup, VerifyLevel, VerifyReport,
};
use backup_core::error::{Error, ErrorKind};
use backup_core::manifest::Manifest;
use backup_core::pin::{FoundPin, PinRequest};
use backup_core::retention::{Candidate, Count, KeepReason, RetentionPolicy, Verdict};
use backup_core::run_record::{Operation, RunRecord, RunResult, Who};
use backup_core::store::{Store as _, StoreKey, UnfinishedUpload};
use backup_testing::{Call, Fault, FaultyStore, MemoryStore, Op, RecordingStore};
use chrono::{DateTime, TimeDelta, Utc};
use tokio_util::sync::CancellationToken;

use super::{Bench, dumper, request, source};

/// Keeps so many of the newest.
#[derive(Debug)]
struct Last(u32);

impl RetentionPolicy for Last {
    fn evaluate(&self, candidates: &[Candidate], _now: DateTime<Utc>) -> Vec<Verdict> {
        let mut ids: Vec<_> = candidates.iter().map(|candidate| &candidate.id).collect();
        ids.sort();
        let newest: BTreeSet<_> = ids.into_iter().rev().take(self.0 as usize).collect();
        let judge = |candidate: &Candidate| Verdict {
            id: candidate.id.clone(),
            keep: newest
                .contains(&candidate.id)
                .then_some(KeepReason::Recent(Count::of(self.0)))
                .into_iter()
                .collect(),
        };
        candidates.iter().map(judge).collect()
    }
}

pub(super) fn rules(keep: u32) -> ExpiryRules {
    let mut rules = ExpiryRules::new(Arc::new(Last(keep)));
    rules.guards.min_keep = 1.try_into().unwrap();
    rules
}

fn never() -> CancellationToken {
    CancellationToken::new()
}

const DAY: Duration = Duration::from_hours(24);

/// A store whose objects are as old as the backups, with something around it.
fn bench<S: backup_core::store::Store + 'static>(
    wrap: impl FnOnce(Arc<dyn backup_core::store::Store>) -> S,
) -> (Bench, Arc<S>) {
    let mut wrapped = None;
    let bench = Bench::over(MemoryStore::new(), |memory| {
        let store = Arc::new(wrap(memory));
        wrapped = Some(Arc::clone(&store));
        store
    });
    (bench, wrapped.unwrap())
}

/// Backups of a source, one a day, oldest first; their objects are as old.
pub(super) async fn daily(bench: &Bench, name: &str, count: usize) -> Vec<Manifest> {
    let mut taken = Vec::new();
    for _ in 0..count {
        bench.clock.advance(DAY);
        let request = request(name);
        let backup = bench.engine.backup(&dumper(), &request, &never()).await;
        taken.push(backup.unwrap().manifest);
    }
    for backup in &taken {
        age(bench, backup);
    }
    taken
}

/// Makes a backup's objects as old as it is.
fn age(bench: &Bench, backup: &Manifest) {
    for key in objects(bench, backup) {
        bench.memory.set_modified(&key, backup.started_at);
    }
}

pub(super) fn objects(bench: &Bench, backup: &Manifest) -> Vec<String> {
    let mut keys = bench.memory.keys();
    let folder = format!("backups/{}/{}/", backup.source, backup.id);
    keys.retain(|key| key.starts_with(&folder));
    keys
}

async fn plan(bench: &Bench, rules: &ExpiryRules) -> ExpiryPlan {
    try_plan(bench, rules).await.unwrap()
}

async fn try_plan(bench: &Bench, rules: &ExpiryRules) -> Result<ExpiryPlan, Error> {
    let (app, never) = (source("app"), never());
    bench.engine.plan_expiry(&app, rules, &never).await
}

async fn prune(bench: &Bench, rules: &ExpiryRules) -> ExpireOutcome {
    let plan = plan(bench, rules).await;
    bench.engine.expire(&plan, &never()).await
}

pub(super) async fn listed(bench: &Bench, name: &str) -> Vec<Manifest> {
    let request = ListRequest {
        source: Some(source(name)),
        ..ListRequest::default()
    };
    let mut found = bench.engine.catalog().list(&request).await.unwrap().backups;
    found.reverse();
    found
}

fn ids(backups: &[Manifest]) -> Vec<String> {
    backups.iter().map(|backup| backup.id.to_string()).collect()
}

fn texts<T: ToString>(items: &[T]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

pub(super) async fn record(bench: &Bench, backup: &Manifest, problems: usize) {
    let problem = backup_core::engine::PartProblem {
        part: backup_core::manifest::PartName::facts(),
        problem: "is cut".to_owned(),
    };
    let mut run = bench.engine.history().begin(Operation::Verify, who());
    run.source = Some(backup.source.clone());
    run.backup = Some(backup.id.clone());
    run.verified(&VerifyReport {
        level: VerifyLevel::Hashed,
        parts: 3,
        bytes_read: 7,
        problems: vec![problem; problems],
    });
    let history = bench.engine.history();
    history.record(&mut run, &never()).await.unwrap();
}

fn who() -> Who {
    Who {
        user: "backup".to_owned(),
        host: "db1".to_owned(),
    }
}

#[tokio::test]
async fn neighbours_and_foreign_objects_are_never_touched() {
    let bench = Bench::new();
    let mut others = Vec::new();
    for name in ["app-x", "my-app", "ap", "app~20x"] {
        others.extend(daily(&bench, name, 3).await);
    }
    let app = daily(&bench, "app", 5).await;
    let old = format!("backups/app/{}", app[0].id);
    let foreign = [
        "backups/app/README.txt".to_owned(),
        "backups/app/not-a-backup/schema.dump".to_owned(),
        "backups/notes/a.dump".to_owned(),
        "_runs/note".to_owned(),
        format!("{old}/notes.txt"),
        format!("{old}/deeper/schema.dump"),
        format!("{old}x/schema.dump"),
    ];
    for key in &foreign {
        bench.memory.set(key, "foreign");
        bench.memory.set_modified(key, app[0].started_at);
    }
    // What a part that was dumped twice has left is ours, though no manifest names it.
    bench
        .memory
        .set(&format!("{old}/data-rest.r2.bin.fake"), "x");
    let before = bench.memory.keys();
    let outcome = prune(&bench, &rules(2)).await;
    assert_eq!(texts(&outcome.deleted), ids(&app[..3]));
    assert_eq!(outcome.warnings, [] as [&str; 0]);
    let bytes: u64 = app[..3].iter().map(|b| b.totals.stored_bytes).sum();
    assert_eq!(outcome.freed_bytes, bytes);
    assert_eq!(listed(&bench, "app").await, app[3..]);

    let gone = |key: &&String| {
        let of = |backup: &Manifest| key.starts_with(&format!("backups/app/{}/", backup.id));
        app[..3].iter().any(of) && !foreign.contains(key)
    };
    let expected: Vec<_> = before.iter().filter(|key| !gone(key)).cloned().collect();
    assert_eq!(bench.memory.keys(), expected);
    for other in ["app-x", "my-app", "ap", "app~20x"] {
        assert_eq!(listed(&bench, other).await.len(), 3, "{other}");
    }
    assert_eq!(others.len(), 12);
    // Foreign objects below a backup's name are no reason to come back to it.
    assert!(plan(&bench, &rules(2)).await.is_empty());
}

#[tokio::test]
async fn the_manifest_goes_first_and_the_oldest_backup_too() {
    let (bench, recording) = bench(RecordingStore::new);
    let app = daily(&bench, "app", 3).await;
    let plan = plan(&bench, &rules(1)).await;
    recording.clear();
    bench.engine.expire(&plan, &never()).await;
    let is_delete = |call: &Call| call.op == Op::Delete;
    let deleted: Vec<_> = recording.calls().into_iter().filter(is_delete).collect();
    assert_eq!(deleted.len(), 10, "{deleted:?}");
    for (index, backup) in app[..2].iter().enumerate() {
        let of = &deleted[index * 5..][..5];
        let folder = format!("backups/app/{}/", backup.id);
        assert_eq!(of[0].key, format!("{folder}manifest.json"));
        assert!(of.iter().all(|call| call.key.starts_with(&folder)));
    }
}

#[tokio::test]
async fn a_pin_wins_also_one_that_came_after_the_plan_or_cannot_be_read() {
    let bench = Bench::new();
    let app = daily(&bench, "app", 6).await;
    let pin = async |index: usize, until| {
        let request = PinRequest {
            until,
            reason: Some("legal hold".to_owned()),
            who: who(),
        };
        let backup: &Manifest = &app[index];
        let pins = bench.engine.pins();
        let set = pins.set(&backup.source, &backup.id, request).await;
        set.unwrap()
    };
    let now = app[5].started_at;
    pin(0, None).await;
    pin(1, Some(now + TimeDelta::hours(1))).await;
    bench.clock.advance(Duration::from_hours(2));
    bench
        .memory
        .set(&format!("_pins/app/{}.json", app[2].id), "{}");
    let plan = plan(&bench, &rules(1)).await;
    assert_eq!(plan.warnings.len(), 1);
    assert!(plan.warnings[0].contains(app[2].id.as_str()));
    let pinned = |index: usize| {
        let judged = &plan.backups[5 - index];
        judged.verdict.keep.contains(&KeepReason::Pinned)
    };
    assert_eq!([0, 1, 2, 3].map(pinned), [true, false, true, false]);
    let text = plan.backups[5].pin.as_ref().and_then(FoundPin::readable);
    assert_eq!(text.unwrap().reason.as_deref(), Some("legal hold"));
    // A rule without a date may outlast a pin with one; a pin without one outlasts all.
    let until = |index: usize| plan.backups[5 - index].until();
    assert_eq!([0, 1, 2, 5].map(until), [None; 4]);
    pin(3, None).await;
    let outcome = bench.engine.expire(&plan, &never()).await;
    let kept: Vec<_> = [0, 2, 3, 5].map(|index: usize| app[index].clone()).into();
    assert_eq!(listed(&bench, "app").await, kept);
    assert_eq!(
        texts(&outcome.deleted),
        [&app[1], &app[4]].map(|b| b.id.to_string())
    );
    assert_eq!(outcome.warnings.len(), 1);
    assert!(outcome.warnings[0].contains("pinned meanwhile"));
    // A pin goes with its backup, once it has ended.
    let pins = bench.engine.pins().list(&source("app")).await.unwrap();
    assert_eq!(pins.len(), 3);

    let removed = bench.engine.pins().remove(&source("app"), &app[0].id).await;
    assert!(removed.unwrap().is_some());
    let outcome = prune(&bench, &rules(1)).await;
    assert_eq!(texts(&outcome.deleted), ids(&app[..1]));
}

#[tokio::test]
async fn pins_are_set_on_what_is_there_and_replaced_whole() {
    let (bench, faulty) = bench(FaultyStore::new);
    let backup = daily(&bench, "app", 1).await.swap_remove(0);
    let pins = bench.engine.pins();
    let other = source("other");
    let set = |until, reason: &str| PinRequest {
        until,
        reason: Some(reason.to_owned()),
        who: who(),
    };
    for (result, kind) in [
        (
            pins.set(&other, &backup.id, set(None, "x")).await,
            ErrorKind::NotFound,
        ),
        (
            pins.set(
                &backup.source,
                &backup.id,
                set(Some(backup.started_at), "x"),
            )
            .await,
            ErrorKind::InvalidInput,
        ),
        (
            pins.set(&backup.source, &backup.id, set(None, &"x".repeat(1001)))
                .await,
            ErrorKind::InvalidInput,
        ),
    ] {
        assert_eq!(result.unwrap_err().kind(), kind);
    }
    assert_eq!(pins.get(&backup.source, &backup.id).await.unwrap(), None);
    faulty.inject(Fault::on(Op::Put).key("_pins").loses_the_answer());
    let until = Some(backup.started_at + TimeDelta::days(9));
    for request in [set(None, "one"), set(until, "two")] {
        let pin = pins.set(&backup.source, &backup.id, request).await.unwrap();
        let found = pins.get(&backup.source, &backup.id).await.unwrap();
        assert_eq!(found, Some(FoundPin::Readable(pin)));
    }
    assert_eq!(faulty.hits(), 2);
    let removed = pins.remove(&backup.source, &backup.id).await.unwrap();
    assert_eq!(removed.unwrap().readable().unwrap().until, until);
    assert_eq!(pins.remove(&backup.source, &backup.id).await.unwrap(), None);
    // No manifest ever changed.
    assert_eq!(listed(&bench, "app").await, [backup]);
}

#[tokio::test]
async fn what_is_proved_stays_and_what_is_damaged_stands_for_nothing() {
    let bench = Bench::new();
    let app = daily(&bench, "app", 6).await;
    record(&bench, &app[0], 0).await;
    record(&bench, &app[1], 0).await;
    record(&bench, &app[5], 1).await;
    let before = plan(&bench, &rules(1)).await;
    assert!(before.backups[0].damaged);
    let outcome = prune(&bench, &rules(1)).await;
    // The newest is damaged, so the one before it is the newest good one.
    let kept = [&app[1], &app[4], &app[5]];
    assert_eq!(listed(&bench, "app").await, kept.map(Clone::clone));
    assert_eq!(outcome.deleted.len(), 3);
    // Found good again, byte by byte.
    bench.clock.advance(Duration::from_hours(1));
    record(&bench, &app[5], 0).await;
    prune(&bench, &rules(1)).await;
    assert_eq!(listed(&bench, "app").await, app[5..]);
}

#[tokio::test]
async fn a_run_deletes_no_more_than_it_may_and_the_next_goes_on() {
    let bench = Bench::new();
    let app = daily(&bench, "app", 7).await;
    let mut rules = rules(2);
    rules.max_deletions = Count::of(3);
    let outcome = prune(&bench, &rules).await;
    assert_eq!(texts(&outcome.deleted), ids(&app[..3]));
    assert_eq!(outcome.warnings.len(), 1);
    assert!(outcome.warnings[0].starts_with("2 more may go"));
    let outcome = prune(&bench, &rules).await;
    assert_eq!(texts(&outcome.deleted), ids(&app[3..5]));
    assert_eq!(outcome.warnings, [] as [&str; 0]);
}

#[tokio::test]
async fn nothing_goes_when_the_clock_jumped_and_the_error_says_so() {
    let bench = Bench::new();
    let app = daily(&bench, "app", 5).await;
    for (now, word) in [
        (app[0].started_at, "later than the clock"),
        (app[4].started_at + TimeDelta::days(3650), "3650 days old"),
    ] {
        bench.clock.set(now);
        let planned = try_plan(&bench, &rules(1)).await;
        let error = planned.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert!(error.to_string().contains(word), "{error}");
        // To look at them is another thing.
        let judged = bench.engine.judged(&source("app"), &rules(1)).await;
        assert_eq!(judged.unwrap().len(), 5);
    }
    let mut sure = rules(1);
    sure.guards.clock_is_right = true;
    let outcome = prune(&bench, &sure).await;
    assert_eq!(outcome.deleted.len(), 4);
}

#[tokio::test]
async fn a_deletion_that_died_is_finished_by_the_next_prune() {
    let (bench, faulty) = bench(FaultyStore::new);
    let app = daily(&bench, "app", 3).await;
    let old = app[0].id.as_str();
    faulty.inject(
        Fault::on(Op::Delete)
            .key(format!("{old}/data"))
            .rejects(ErrorKind::Unavailable),
    );
    let outcome = prune(&bench, &rules(2)).await;
    assert_eq!(texts(&outcome.deleted), ids(&app[..1]));
    assert_eq!(outcome.left.len(), 2, "{:?}", outcome.left);
    let last = outcome.warnings.last().unwrap();
    assert!(
        last.starts_with("2 objects of no backup are left"),
        "{last}"
    );
    // It is no backup any more, whatever is left of it.
    assert_eq!(listed(&bench, "app").await, app[1..]);
    assert_eq!(objects(&bench, &app[0]).len(), 2);

    faulty.heal();
    let plan = plan(&bench, &rules(2)).await;
    assert_eq!(texts(&[&plan.orphans[0].id]), [old]);
    assert_eq!(plan.orphans[0].objects.len(), 2);
    let outcome = bench.engine.expire(&plan, &never()).await;
    assert_eq!(texts(&outcome.swept), [old]);
    assert!(outcome.freed_bytes > 0 && outcome.deleted.is_empty());
    assert!(objects(&bench, &app[0]).is_empty());
}

#[tokio::test]
async fn objects_of_a_run_that_may_still_go_on_are_left_alone() {
    let bench = Bench::new();
    let app = daily(&bench, "app", 2).await;
    bench.clock.advance(DAY);
    let now = app[1].started_at + TimeDelta::days(1);
    let put = |id: &str, age: TimeDelta| {
        for name in ["key.crypt", "data-0001.bin.fake"] {
            let key = format!("backups/app/{id}/{name}");
            bench.memory.set(&key, "bytes");
            bench.memory.set_modified(&key, now - age);
        }
    };
    // Begun long ago, and something was written just now.
    put("20260201T030000Z-0001", TimeDelta::days(3));
    let fresh = "backups/app/20260201T030000Z-0001/data-0002.bin.fake";
    bench.memory.set(fresh, "bytes");
    bench.memory.set_modified(fresh, now - TimeDelta::hours(1));
    // Written long ago by the store's clock, and begun now by that of the host.
    let young = format!("{}-0002", now.format("%Y%m%dT%H%M%SZ"));
    put(&young, TimeDelta::days(3));
    put("20260202T030000Z-0003", TimeDelta::days(2));
    let orphans = plan(&bench, &rules(2)).await.orphans;
    let found: Vec<_> = orphans.iter().map(|orphan| orphan.id.as_str()).collect();
    assert_eq!(found, ["20260202T030000Z-0003"]);

    // One that comes to life after the plan is a backup.
    let plan = plan(&bench, &rules(2)).await;
    let text = bench
        .memory
        .bytes(&format!("backups/app/{}/manifest.json", app[0].id));
    bench.memory.set(
        "backups/app/20260202T030000Z-0003/manifest.json",
        text.unwrap(),
    );
    let outcome = bench.engine.expire(&plan, &never()).await;
    assert!(outcome.swept.is_empty());
    let key = "backups/app/20260202T030000Z-0003/key.crypt";
    assert!(bench.memory.bytes(key).is_some());
}

#[tokio::test]
async fn an_answer_that_got_lost_is_looked_after() {
    let (bench, faulty) = bench(FaultyStore::new);
    let app = daily(&bench, "app", 3).await;
    faulty.inject(Fault::on(Op::Delete).key("manifest").loses_the_answer());
    let outcome = prune(&bench, &rules(1)).await;
    assert_eq!(faulty.hits(), 2);
    assert_eq!(texts(&outcome.deleted), ids(&app[..2]));
    assert!(objects(&bench, &app[0]).is_empty());
}

#[tokio::test]
async fn a_backup_whose_manifest_cannot_be_deleted_stays_whole() {
    for (kind, tried) in [
        (ErrorKind::Unavailable, 1),
        (ErrorKind::Internal, 3),
        (ErrorKind::PermissionDenied, 3),
    ] {
        let (bench, faulty) = bench(FaultyStore::new);
        let app = daily(&bench, "app", 4).await;
        faulty.inject(Fault::on(Op::Delete).key("manifest").rejects(kind));
        let before = bench.memory.keys();
        let outcome = prune(&bench, &rules(1)).await;
        assert_eq!(faulty.hits(), tried, "{kind}");
        assert_eq!(bench.memory.keys(), before);
        assert_eq!(listed(&bench, "app").await, app);
        assert!(outcome.deleted.is_empty() && outcome.left.is_empty());
        assert_eq!(outcome.failed_wholly(), kind != ErrorKind::PermissionDenied);
        assert_eq!(outcome.freed_bytes, 0);
        // What a store forbids is told once.
        let told = match kind {
            ErrorKind::PermissionDenied => "the store keeps 3 of the backups",
            ErrorKind::Unavailable => "2 more were not tried",
            _ => "is not deleted",
        };
        let told = |text: &&String| text.contains(told);
        let all = outcome.warnings.iter().filter(told).count();
        assert_eq!(all, if kind == ErrorKind::Internal { 3 } else { 1 });
        let denied = kind == ErrorKind::PermissionDenied;
        assert_eq!(
            outcome.warnings.len() == 1,
            denied,
            "{:?}",
            outcome.warnings
        );
    }
}

#[tokio::test]
async fn nobody_guesses_what_is_proved_or_pinned() {
    for place in ["_runs", "_pins"] {
        let (bench, faulty) = bench(FaultyStore::new);
        daily(&bench, "app", 3).await;
        faulty.inject(
            Fault::on(Op::List)
                .key(place)
                .rejects(ErrorKind::PermissionDenied),
        );
        let planned = try_plan(&bench, &rules(1)).await;
        let error = planned.unwrap_err();
        assert!(matches!(error, Error::Store { .. }), "{place}: {error}");
    }
    // A pin that cannot be asked for at the last moment holds.
    let (bench, faulty) = bench(FaultyStore::new);
    let app = daily(&bench, "app", 3).await;
    faulty.inject(
        Fault::on(Op::Read)
            .key("_pins")
            .rejects(ErrorKind::Internal),
    );
    let outcome = prune(&bench, &rules(1)).await;
    assert!(outcome.deleted.is_empty());
    assert_eq!(listed(&bench, "app").await, app);
}

#[tokio::test]
async fn a_manifest_that_cannot_be_read_is_left_alone_with_its_parts() {
    let bench = Bench::new();
    let app = daily(&bench, "app", 4).await;
    let key = format!("backups/app/{}/manifest.json", app[0].id);
    bench.memory.mutate(&key, |bytes| {
        let text = String::from_utf8(bytes.clone()).unwrap();
        *bytes = text.replace("\"format\": 1", "\"format\": 2").into();
    });
    let all = objects(&bench, &app[0]);
    let plan = plan(&bench, &rules(1)).await;
    assert_eq!(plan.warnings.len(), 1);
    assert!(plan.orphans.is_empty());
    let outcome = bench.engine.expire(&plan, &never()).await;
    assert_eq!(outcome.deleted.len(), 2);
    assert_eq!(objects(&bench, &app[0]), all);
}

#[tokio::test]
async fn a_stopped_prune_says_what_is_gone() {
    let bench = Bench::new();
    let app = daily(&bench, "app", 3).await;
    let plan = plan(&bench, &rules(1)).await;
    let stop = never();
    stop.cancel();
    let outcome = bench.engine.expire(&plan, &stop).await;
    assert!(outcome.stopped && outcome.deleted.is_empty());
    assert_eq!(listed(&bench, "app").await, app);
    let mut run = RunRecord::begin(Operation::Prune, who(), app[2].started_at);
    run.pruned(&plan, &outcome);
    assert_eq!(run.result, RunResult::Cancelled);

    let outcome = bench.engine.expire(&plan, &never()).await;
    run.pruned(&plan, &outcome);
    let facts = run.prune.clone().unwrap();
    assert_eq!((facts.kept, facts.deleted), (1, 2));
    assert_eq!(texts(&facts.backups), ids(&app[..2]));
    assert_eq!(RunRecord::decode(&run.encode().unwrap()).unwrap(), run);
    assert_eq!(run.result, RunResult::Success);
}

#[tokio::test]
async fn a_source_of_which_there_is_nothing_is_not_found() {
    let bench = Bench::new();
    daily(&bench, "app-x", 1).await;
    let planned = try_plan(&bench, &rules(1)).await;
    assert_eq!(planned.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_pin_with_an_end_is_the_earliest_end_of_what_no_rule_keeps() {
    let bench = Bench::new();
    let app = daily(&bench, "app", 3).await;
    let until = Some(app[2].started_at + TimeDelta::days(40));
    for backup in [&app[0], &app[2]] {
        let request = PinRequest {
            until,
            ..PinRequest::default()
        };
        let pins = bench.engine.pins();
        let set = pins.set(&backup.source, &backup.id, request).await;
        set.unwrap();
    }
    let plan = plan(&bench, &rules(1)).await;
    let ends: Vec<_> = plan.backups.iter().map(JudgedBackup::until).collect();
    // The newest is kept by a rule that has no date.
    assert_eq!(ends, [None, None, until]);
}

#[tokio::test]
async fn nothing_goes_from_a_place_that_may_be_somebody_elses() {
    let bench = Bench::new();
    daily(&bench, "app", 3).await;
    assert!(bench.memory.remove("repository.json"));
    let error = try_plan(&bench, &rules(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.to_string().contains("repository.json"), "{error}");
}

/// What a killed run leaves of an upload in parts is in no listing of objects.
#[tokio::test]
async fn uploads_of_dead_runs_are_ended() {
    let bench = Bench::new();
    let app = daily(&bench, "app", 2).await;
    bench.clock.advance(DAY);
    let now = app[1].started_at + TimeDelta::days(1);
    let leave = |key: &str, age: TimeDelta| {
        bench.memory.leave_upload(UnfinishedUpload {
            key: StoreKey::new(key).unwrap(),
            id: key.len().to_string(),
            begun_at: now - age,
        });
    };
    let dead = "backups/app/20260201T030000Z-0001/data-0001.bin.fake";
    let retried = format!("backups/app/{}/data-0001.bin.fake", app[0].id);
    leave(dead, TimeDelta::days(3));
    // A first try of a part of a backup that is whole.
    leave(&retried, TimeDelta::hours(25));
    // Completed, and kept by a server that forgot it: its object may be made of it.
    let complete = objects(&bench, &app[0]).remove(0);
    leave(&complete, TimeDelta::hours(25));
    leave(
        "backups/app/20260201T030000Z-0001/data-0002.bin.fake",
        TimeDelta::hours(2),
    );
    leave(
        "backups/app/20260201T030000Z-0001/notes.txt",
        TimeDelta::days(3),
    );
    leave("backups/app/else/data-0001.bin.fake", TimeDelta::days(3));
    leave(
        "backups/apple/20260201T030000Z-0001/data-0001.bin.fake",
        TimeDelta::days(3),
    );
    let plan = plan(&bench, &rules(2)).await;
    let mut keys: Vec<_> = plan
        .uploads
        .iter()
        .map(|upload| upload.key.as_str())
        .collect();
    keys.sort_unstable();
    let mut expected = [dead, retried.as_str()];
    expected.sort_unstable();
    assert_eq!(keys, expected);
    assert!(!plan.is_empty());
    // Completed since the plan was made.
    bench.memory.set(dead, "rows");
    let outcome = bench.engine.expire(&plan, &never()).await;
    assert_eq!(outcome.aborted_uploads, 1);
    assert_eq!(outcome.warnings, Vec::<String>::new());
    assert_eq!(listed(&bench, "app").await, app);
    let prefix = StoreKey::new("backups/app").unwrap();
    let left = bench.memory.unfinished_uploads(&prefix).await.unwrap();
    let left: Vec<_> = left.into_iter().map(|upload| upload.key).collect();
    let is_left = |key: &str| left.iter().any(|left| left.as_str() == key);
    assert!(
        is_left(dead) && is_left(&complete) && !is_left(&retried),
        "{left:?}"
    );
    assert!(bench.memory.remove(dead));
    let outcome = prune(&bench, &rules(2)).await;
    assert_eq!(outcome.aborted_uploads, 1);
    assert!(self::plan(&bench, &rules(2)).await.uploads.is_empty());
}

/// A store that is not there would be asked for minutes, of each upload.
#[tokio::test]
async fn a_store_that_does_not_answer_is_not_asked_of_every_upload() {
    for (kind, asked) in [
        (ErrorKind::Unavailable, 1),
        (ErrorKind::Timeout, 1),
        (ErrorKind::PermissionDenied, 3),
    ] {
        let (bench, faulty) = bench(FaultyStore::new);
        let app = daily(&bench, "app", 1).await;
        bench.clock.advance(DAY);
        for number in 1..=3 {
            let key = format!("backups/app/20260201T030000Z-0001/data-000{number}.bin.fake");
            bench.memory.leave_upload(UnfinishedUpload {
                key: StoreKey::new(key).unwrap(),
                id: number.to_string(),
                begun_at: app[0].started_at - TimeDelta::days(3),
            });
        }
        let plan = plan(&bench, &rules(2)).await;
        assert_eq!(plan.uploads.len(), 3);
        let parts = Fault::on(Op::Head).key("data-000");
        faulty.inject(parts.rejects(kind));
        let outcome = bench.engine.expire(&plan, &never()).await;
        assert_eq!(outcome.aborted_uploads, 0);
        assert_eq!(outcome.warnings.len(), asked, "{:?}", outcome.warnings);
        assert_eq!(faulty.hits(), asked, "{kind:?}");
        faulty.heal();
        let outcome = bench.engine.expire(&plan, &never()).await;
        assert_eq!(outcome.aborted_uploads, 3);
    }
}

/// Leaves an upload for an object of a backup that is there, and one of a dead run.
async fn with_uploads(bench: &Bench) -> (String, String) {
    let app = daily(bench, "app", 1).await;
    bench.clock.advance(DAY);
    let complete = objects(bench, &app[0]).remove(0);
    let dead = "backups/app/20260201T030000Z-0001/data-0001.bin.fake".to_owned();
    for key in [&dead, &complete] {
        bench.memory.leave_upload(UnfinishedUpload {
            key: StoreKey::new(key).unwrap(),
            id: key.len().to_string(),
            begun_at: app[0].started_at - TimeDelta::days(3),
        });
    }
    (complete, dead)
}

#[tokio::test]
async fn uploads_stay_where_nobody_can_look() {
    let (bench, faulty) = bench(FaultyStore::new);
    let (complete, dead) = with_uploads(&bench).await;
    let looks = Fault::on(Op::Head).key(complete.as_str());
    faulty.inject(looks.rejects(ErrorKind::Unavailable));
    let blind = plan(&bench, &rules(2)).await;
    assert!(blind.uploads.is_empty());
    let [warning] = blind.warnings.as_slice() else {
        panic!("{:?}", blind.warnings);
    };
    assert!(warning.contains(&complete), "{warning}");
    faulty.heal();
    let seeing = plan(&bench, &rules(2)).await;
    let [upload] = seeing.uploads.as_slice() else {
        panic!("{:?}", seeing.uploads);
    };
    assert_eq!(upload.key.as_str(), dead);
}

#[tokio::test]
async fn who_is_stopped_ends_no_upload() {
    let (bench, _) = bench(FaultyStore::new);
    with_uploads(&bench).await;
    let plan = plan(&bench, &rules(2)).await;
    assert_eq!(plan.uploads.len(), 1);
    let stopped = never();
    stopped.cancel();
    let outcome = bench.engine.expire(&plan, &stopped).await;
    assert!(outcome.stopped);
    assert_eq!(outcome.aborted_uploads, 0);
    assert_eq!(outcome.warnings, Vec::<String>::new());
    let prefix = StoreKey::new("backups/app").unwrap();
    let left = bench.memory.unfinished_uploads(&prefix).await.unwrap();
    assert_eq!(left.len(), 2);
}

/// Each of the others would be asked for minutes.
#[tokio::test]
async fn a_store_that_goes_away_is_not_asked_to_delete_the_rest() {
    let (bench, faulty) = bench(FaultyStore::new);
    let app = daily(&bench, "app", 3).await;
    for number in 1..=40 {
        let key = format!("backups/app/{}/data-9{number:03}.bin.fake", app[0].id);
        bench.memory.set(&key, "rows");
        bench.memory.set_modified(&key, app[0].started_at);
    }
    let all = objects(&bench, &app[0]).len();
    faulty.inject(
        Fault::on(Op::Delete)
            .key("/data-9")
            .rejects(ErrorKind::Timeout),
    );
    let outcome = prune(&bench, &rules(1)).await;
    assert_eq!(texts(&outcome.deleted), ids(&app[..1]));
    assert!((1..=8).contains(&faulty.hits()), "{}", faulty.hits());
    let left = objects(&bench, &app[0]);
    let told: Vec<_> = outcome.left.iter().map(StoreKey::as_str).collect();
    assert_eq!(told, left);
    assert!(left.len() > 30 && left.len() < all, "{}", left.len());
    assert_eq!(outcome.untried, 1);
    // The next one has all of it.
    faulty.heal();
    let outcome = prune(&bench, &rules(1)).await;
    assert_eq!(outcome.swept, std::slice::from_ref(&app[0].id));
    assert_eq!(outcome.warnings, Vec::<String>::new());
    assert_eq!(objects(&bench, &app[0]), Vec::<String>::new());
}
