use super::*;
use crate::engine::{PartProblem, VerifyLevel, VerifyReport};
use crate::manifest::{PartName, Totals};
use crate::run_record::Who;

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_770_260_400, 0).unwrap()
}

fn source() -> SourceName {
    SourceName::new("shop").unwrap()
}

/// A backup that ended so many hours ago and took ten minutes.
fn aged(hours: i64) -> Manifest {
    let finished_at = now() - TimeDelta::hours(hours);
    let started_at = finished_at - TimeDelta::minutes(10);
    Manifest {
        format: 1,
        id: BackupId::new(started_at, 7),
        source: source(),
        database: "shop".to_owned(),
        repository: String::new(),
        copies: Vec::new(),
        started_at,
        finished_at,
        server_version: "17.2".to_owned(),
        tool_version: "17.2".to_owned(),
        filtered: false,
        as_configured: false,
        adopted: false,
        compression: "none".to_owned(),
        encryption: None,
        parts: Vec::new(),
        totals: sized(10_000, 500, 5),
        warnings: 0,
    }
}

fn sized(raw_bytes: u64, rows: u64, tables: u64) -> Totals {
    Totals {
        tables,
        rows,
        raw_bytes,
        ..Totals::default()
    }
}

fn with(hours: i64, change: impl FnOnce(&mut Manifest)) -> Manifest {
    let mut backup = aged(hours);
    change(&mut backup);
    backup
}

fn run(hours: i64, operation: Operation, backup: Option<&Manifest>) -> RunRecord {
    let who = Who {
        user: "backup".to_owned(),
        host: "db1".to_owned(),
    };
    let mut run = RunRecord::begin(operation, who, now() - TimeDelta::hours(hours));
    run.source = Some(source());
    run.backup = backup.map(|backup| backup.id.clone());
    run
}

fn succeeded(mut run: RunRecord) -> RunRecord {
    run.done();
    run
}

fn with_end(mut run: RunRecord, at: DateTime<Utc>) -> RunRecord {
    (run.started_at, run.finished_at) = (at, at);
    run
}

fn verified(backup: &Manifest, good: bool) -> RunRecord {
    let problem = PartProblem {
        part: PartName::new("schema").unwrap(),
        problem: "is cut".to_owned(),
    };
    let mut run = run(0, Operation::Verify, Some(backup));
    run.verified(&VerifyReport {
        level: VerifyLevel::Hashed,
        parts: 1,
        bytes_read: 1,
        problems: if good { Vec::new() } else { vec![problem] },
    });
    run
}

fn copies(backups: &[Manifest], runs: &[RunRecord]) -> Copies {
    let listing = Listing {
        backups: backups.to_vec(),
        ..Listing::default()
    };
    Copies::new(&source(), &listing, runs)
}

fn limits() -> Limits {
    Limits {
        max_age: TimeDelta::hours(25),
        min_size_ratio: Ratio::percent(10),
        max_duration: None,
        undrilled_after: None,
    }
}

fn kinds(findings: &[Finding]) -> Vec<(Status, &'static str)> {
    findings.iter().map(|f| (f.severity, f.kind)).collect()
}

/// Backups, newest first, and records in, severities and kinds out.
#[track_caller]
fn check(backups: &[Manifest], runs: &[RunRecord], expected: &[(Status, &'static str)]) {
    let found = judge(&copies(backups, runs), &[], None, &limits(), now());
    assert_eq!(kinds(&found), expected, "{found:?}");
}

const NONE: (Status, &str) = (Status::Critical, "no-backup");

#[test]
fn age_counts_from_the_end_and_only_of_what_can_be_counted_on() {
    check(&[aged(25)], &[], &[]);
    check(&[aged(26), aged(50)], &[], &[(Status::Critical, "stale")]);
    check(&[], &[], &[NONE]);
    let filtered = with(1, |backup| backup.filtered = true);
    check(std::slice::from_ref(&filtered), &[], &[NONE]);
    check(&[filtered, aged(30)], &[], &[(Status::Critical, "stale")]);
    // A clock that was ahead must not make the source look fresh for ever.
    check(&[aged(-1), aged(2)], &[], &[(Status::Critical, "future")]);
    check(&[aged(-1)], &[], &[(Status::Critical, "future"), NONE]);
    let soon = with(0, |b| b.finished_at += TimeDelta::minutes(4));
    check(&[soon], &[], &[]);
}

#[test]
fn a_part_counts_where_a_part_is_meant() {
    let filtered = with(1, |backup| {
        backup.filtered = true;
        backup.as_configured = true;
        backup.totals = sized(10, 1, 1);
    });
    let copies = copies(&[filtered, aged(5)], &[]).partly(true);
    // Nor is it compared with a whole one.
    assert_eq!(judge(&copies, &[], None, &limits(), now()), []);
    // A part of the part does not count.
    let less = with(1, |backup| backup.filtered = true);
    check(&[less], &[], &[NONE]);
}

#[test]
fn what_shrinks_is_told() {
    let small = |raw, rows, tables| with(1, |b| b.totals = sized(raw, rows, tables));
    for (newest, expected) in [
        (small(1_000, 50, 5), &[][..]),
        (small(999, 50, 5), &[(Status::Critical, "shrunk")]),
        (small(10_000, 49, 5), &[(Status::Warning, "fewer-rows")]),
        (small(10_000, 500, 4), &[(Status::Warning, "fewer-tables")]),
        (
            small(0, 0, 0),
            &[
                (Status::Critical, "shrunk"),
                (Status::Warning, "fewer-rows"),
                (Status::Warning, "fewer-tables"),
            ],
        ),
    ] {
        check(&[newest, aged(25)], &[], expected);
    }
    let filtered = with(2, |b| b.filtered = true);
    check(&[small(999, 50, 5), filtered], &[], &[]);
}

#[test]
fn damaged_backups_are_critical_and_count_for_nothing() {
    let damaged = (Status::Critical, "damaged");
    let (newest, old) = (aged(1), aged(20));
    let found = |backup: &Manifest| [verified(backup, false)];
    check(&[newest.clone(), old.clone()], &found(&old), &[damaged]);
    check(
        std::slice::from_ref(&newest),
        &found(&newest),
        &[damaged, NONE],
    );
    let older = aged(30);
    let stale = (Status::Critical, "stale");
    check(&[newest.clone(), older], &found(&newest), &[damaged, stale]);
    let listing = Listing {
        backups: vec![newest.clone()],
        damaged: vec![(
            layout::manifest_key(&source(), &old.id),
            "is no JSON".to_owned(),
        )],
        ..Listing::default()
    };
    let copies = Copies::new(&source(), &listing, &[]);
    let found = judge(&copies, &[], None, &limits(), now());
    assert_eq!(kinds(&found), [damaged]);
    let neighbour = SourceName::new("shop-x").unwrap();
    let found = judge(
        &Copies::new(&neighbour, &listing, &[]),
        &[],
        None,
        &limits(),
        now(),
    );
    assert_eq!(kinds(&found), [NONE]);
}

#[test]
fn the_last_run_counts_unless_a_backup_came_after_it() {
    let failed = (Status::Warning, "failed");
    let run = |hours| run(hours, Operation::Backup, None);
    check(&[aged(5)], &[run(2)], &[failed]);
    check(&[aged(5)], &[succeeded(run(1)), run(2)], &[]);
    check(&[aged(5)], &[run(8)], &[]);
    // It would have been in the way of one that was being taken.
    let during = TimeDelta::hours(5) + TimeDelta::minutes(5);
    let refused = with_end(run(5), now() - during);
    check(&[aged(5)], &[refused], &[]);
    check(&[], &[run(2)], &[NONE, failed]);
    let mut stopped = run(1);
    stopped.result = RunResult::Cancelled;
    check(&[aged(5)], &[stopped.clone()], &[]);
    check(&[aged(5)], &[stopped, run(2)], &[failed]);
}

#[test]
fn a_copy_is_missing_where_another_place_has_a_newer_one() {
    let check = |here: &[Manifest], there: &[Manifest], expected: &[(Status, &str)]| {
        let (here, there) = (copies(here, &[]), copies(there, &[]));
        let found = judge(&here, &[&there], None, &limits(), now());
        assert_eq!(kinds(&found), expected, "{found:?}");
    };
    let missing = (Status::Warning, "missing-copy");
    check(&[aged(5)], &[aged(5), aged(10)], &[]);
    check(&[aged(5)], &[aged(1), aged(5)], &[missing]);
    check(&[], &[aged(1)], &[NONE, missing]);
    check(&[aged(5)], &[aged(-3), aged(5)], &[]);
}

#[test]
fn what_is_wanted_only_sometimes_is_off_unless_said() {
    let limits = Limits {
        max_duration: Some(TimeDelta::minutes(9)),
        undrilled_after: Some(TimeDelta::days(30)),
        ..limits()
    };
    let backup = aged(1);
    let kinds = |runs: &[RunRecord]| {
        let copies = copies(std::slice::from_ref(&backup), runs);
        let found = judge(&copies, &[], last_drill(&source(), runs), &limits, now());
        found.iter().map(|f| f.kind).collect::<Vec<_>>()
    };
    assert_eq!(kinds(&[]), ["slow", "unverified", "undrilled"]);
    let drill = |days: i64| run(days * 24, Operation::Drill, None);
    let proof = verified(&backup, true);
    let with = |drill: RunRecord| kinds(&[drill, proof.clone()]);
    assert_eq!(with(succeeded(drill(29))), ["slow"]);
    assert_eq!(with(succeeded(drill(31))), ["slow", "undrilled"]);
    assert_eq!(with(drill(1)), ["slow", "undrilled"]);
}

#[test]
fn what_is_certainly_bad_counts_most() {
    let all = [
        Status::Critical,
        Status::Warning,
        Status::Ok,
        Status::Unknown,
    ];
    assert_eq!(all.iter().max(), Some(&Status::Critical));
    assert_eq!(all[1..].iter().max(), Some(&Status::Unknown));
    assert_eq!(all.map(Status::code), [2, 1, 0, 3]);
}

#[test]
fn a_ratio_is_a_share() {
    for (number, good) in [
        (0.0, true),
        (0.1, true),
        (1.0, true),
        (-0.1, false),
        (10.0, false),
        (f64::NAN, false),
    ] {
        assert_eq!(Ratio::try_from(number).is_ok(), good, "{number}");
    }
    let tenth = Ratio::try_from(0.1).unwrap();
    assert_eq!(tenth, Ratio::percent(10));
    assert!(tenth.is_undercut(99, 1_000) && !tenth.is_undercut(100, 1_000));
    assert!(!tenth.is_undercut(0, 0) && tenth.is_undercut(0, u64::MAX));
}

#[test]
fn spans_are_for_people() {
    for (seconds, expected) in [
        (59, "59 s"),
        (600, "10 min"),
        (601, "10 min 1 s"),
        (25 * 3600, "25 h"),
        (25 * 3600 + 60, "25 h 1 min"),
        (30 * 86_400, "30 d"),
    ] {
        assert_eq!(span(TimeDelta::seconds(seconds)), expected);
    }
}
