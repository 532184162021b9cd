//! What must hold of every policy, for backups at any times.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::backup::BackupId;
use backup_core::retention::{
    Candidate, Count, Extent, Guards, KeepReason, RetentionPolicy, Tier, Verdict, judge, plan,
};
use backup_retention::{AnyOf, Gfs, KeepLast, KeepWithin, Tz};
use chrono::{DateTime, Datelike as _, NaiveDate, TimeDelta, Utc};
use proptest::prelude::*;

/// Zones with changes of the clock of an hour, of half an hour, at midnight, and with none; one
/// that once left out a whole day.
const ZONES: [Tz; 6] = [
    Tz::UTC,
    Tz::Europe__Berlin,
    Tz::Australia__Lord_Howe,
    Tz::America__Sao_Paulo,
    Tz::Asia__Kathmandu,
    Tz::Pacific__Apia,
];

/// 2011-11-06, so that the days that were left out and the ends of years are reached.
const BEGIN: i64 = 1_320_580_800;

fn count() -> impl Strategy<Value = Count> {
    prop_oneof![
        2 => Just(Count::None),
        6 => (1_u32..9).prop_map(Count::of),
        1 => Just(Count::Unlimited),
    ]
}

prop_compose! {
    fn gfs()(
        counts in [count(), count(), count(), count()],
        zone in 0..ZONES.len(),
    ) -> Gfs {
        let [daily, weekly, monthly, yearly] = counts;
        Gfs { daily, weekly, monthly, yearly, zone: ZONES[zone] }
    }
}

prop_compose! {
    /// Any combination, which may keep nothing at all.
    fn policy()(
        gfs in gfs(),
        last in count(),
        within in proptest::option::of(0_i64..100),
    ) -> AnyOf {
        let mut policies: Vec<Box<dyn RetentionPolicy>> = vec![Box::new(gfs)];
        if last != Count::None {
            policies.push(Box::new(KeepLast(last)));
        }
        if let Some(days) = within {
            policies.push(Box::new(KeepWithin(TimeDelta::days(days))));
        }
        AnyOf::new(policies)
    }
}

/// Hours between backups, often a day or so, sometimes months.
fn gaps() -> impl Strategy<Value = Vec<i64>> {
    let gap = prop_oneof![6 => 1_i64..40, 2 => 40_i64..400, 1 => 400_i64..3000];
    prop::collection::vec(gap, 1..80)
}

prop_compose! {
    /// Backups of all kinds, oldest first.
    fn candidates()(
        gaps in gaps(),
        kinds in prop::collection::vec((0..8_u8, any::<bool>()), 80),
    ) -> Vec<Candidate> {
        let mut hour = 0;
        gaps.iter().zip(kinds).map(|(gap, (kind, verified))| {
            hour += gap;
            let mut candidate = Candidate::new(id(hour));
            candidate.extent = match kind {
                1 => Extent::Part,
                4 => Extent::Set,
                _ => Extent::Whole,
            };
            candidate.damaged = kind == 2;
            candidate.pinned = kind == 3;
            candidate.verified_at = (verified && kind > 3).then(|| at(hour));
            candidate
        }).collect()
    }
}

fn at(hour: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(BEGIN + hour * 3600, 0).expect("a moment")
}

fn id(hour: i64) -> BackupId {
    BackupId::new(at(hour), u16::try_from(hour % 65_536).expect("16 bits"))
}

fn whole(gaps: &[i64]) -> Vec<Candidate> {
    let mut hour = 0;
    let next = |gap: &i64| {
        hour += gap;
        Candidate::new(id(hour))
    };
    gaps.iter().map(next).collect()
}

fn after(candidates: &[Candidate]) -> DateTime<Utc> {
    let newest = candidates.iter().map(|candidate| candidate.id.started_at());
    newest.max().expect("some") + TimeDelta::hours(1)
}

fn guards(min_keep: usize) -> Guards {
    Guards {
        min_keep: min_keep.try_into().expect("at least one"),
        clock_is_right: false,
        witness: None,
    }
}

fn kept(verdicts: &[Verdict]) -> BTreeSet<BackupId> {
    let kept = verdicts.iter().filter(|verdict| !verdict.expires());
    kept.map(|verdict| verdict.id.clone()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn every_backup_gets_one_verdict_whatever_the_order(
        policy in policy(),
        candidates in candidates().prop_shuffle(),
    ) {
        let now = after(&candidates);
        let verdicts = judge(&policy, &candidates, &guards(1), now).unwrap();
        let ids: Vec<_> = verdicts.iter().map(|verdict| &verdict.id).collect();
        let expected: Vec<_> = candidates.iter().map(|candidate| &candidate.id).collect();
        prop_assert_eq!(ids, expected);

        let mut sorted = candidates;
        sorted.sort_by(|a, b| b.id.cmp(&a.id));
        let again = judge(&policy, &sorted, &guards(1), now).unwrap();
        prop_assert_eq!(kept(&again), kept(&verdicts));
    }

    #[test]
    fn no_guard_is_ever_passed(
        policy in policy(),
        candidates in candidates(),
        min_keep in 1_usize..5,
        years in 0_i64..30,
    ) {
        let now = after(&candidates) + TimeDelta::days(years * 365);
        let verdicts = judge(&policy, &candidates, &guards(min_keep), now).unwrap();
        let kept = kept(&verdicts);
        for candidate in candidates.iter().filter(|candidate| candidate.pinned) {
            prop_assert!(kept.contains(&candidate.id), "pinned");
        }
        for extent in [Extent::Whole, Extent::Set, Extent::Part] {
            let mut good: Vec<_> = candidates.clone();
            good.retain(|candidate| candidate.extent == extent && !candidate.damaged);
            for candidate in good.iter().rev().take(min_keep) {
                prop_assert!(kept.contains(&candidate.id), "newest good");
            }
            let mut verified = good.iter().rev().filter(|good| good.verified_at.is_some());
            for candidate in verified.by_ref().take(min_keep) {
                prop_assert!(kept.contains(&candidate.id), "last verified");
            }
        }
    }

    /// What is judged worse than whole changes nothing for those that are.
    #[test]
    fn filtered_and_damaged_ones_never_cost_a_whole_one(
        policy in policy(),
        candidates in candidates(),
    ) {
        let now = after(&candidates);
        let verdicts = judge(&policy, &candidates, &guards(2), now).unwrap();
        let mut good = candidates.clone();
        good.retain(|candidate| candidate.extent == Extent::Whole && !candidate.damaged);
        let alone = judge(&policy, &good, &guards(2), now).unwrap();
        let ids: BTreeSet<_> = good.iter().map(|candidate| &candidate.id).collect();
        let of_good: Vec<_> = verdicts
            .into_iter()
            .filter(|verdict| ids.contains(&verdict.id))
            .collect();
        prop_assert_eq!(of_good, alone);
    }

    /// Removing old ones every day leaves what removing them once at the end does, so nothing is
    /// kept or lost by luck.
    #[test]
    fn it_makes_no_difference_how_often_old_ones_are_removed(
        policy in policy(),
        gaps in gaps(),
        min_keep in 1_usize..4,
    ) {
        let all = whole(&gaps);
        let guards = guards(min_keep);
        let mut left: Vec<Candidate> = Vec::new();
        let mut gone = BTreeSet::new();
        for candidate in &all {
            left.push(candidate.clone());
            let verdicts = judge(&policy, &left, &guards, after(&left)).unwrap();
            let kept = kept(&verdicts);
            left.retain(|candidate| {
                let stays = kept.contains(&candidate.id);
                if !stays {
                    gone.insert(candidate.id.clone());
                }
                stays
            });
        }
        let at_once = kept(&judge(&policy, &all, &guards, after(&all)).unwrap());
        let daily: BTreeSet<_> = left.iter().map(|candidate| candidate.id.clone()).collect();
        prop_assert_eq!(&daily, &at_once);
        prop_assert!(gone.is_disjoint(&at_once));
        // And once more is no more.
        prop_assert_eq!(kept(&judge(&policy, &left, &guards, after(&left)).unwrap()), daily);
    }

    /// As many periods as there are, or as are wanted: each is stood for by its first backup.
    #[test]
    fn every_period_with_a_backup_keeps_its_first(gfs in gfs(), gaps in gaps()) {
        let all = whole(&gaps);
        let verdicts = gfs.evaluate(&all, after(&all));
        for (tier, wanted) in [
            (Tier::Daily, gfs.daily),
            (Tier::Weekly, gfs.weekly),
            (Tier::Monthly, gfs.monthly),
            (Tier::Yearly, gfs.yearly),
        ] {
            // By what a calendar says, not by our own arithmetic.
            let mut firsts: BTreeMap<(i32, u32), BackupId> = BTreeMap::new();
            for candidate in &all {
                let day = candidate.id.started_at().with_timezone(&gfs.zone).date_naive();
                firsts.entry(calendar(tier, day)).or_insert_with(|| candidate.id.clone());
            }
            let newest = firsts.values().rev().take(wanted.limit());
            let expected: BTreeSet<_> = newest.cloned().collect();
            let fills = |verdict: &&Verdict| {
                verdict.keep.iter().any(|reason| reason.tier() == Some(tier))
            };
            let found: BTreeSet<_> =
                verdicts.iter().filter(fills).map(|verdict| verdict.id.clone()).collect();
            prop_assert_eq!(found, expected, "{:?}", tier);
        }
    }

    /// The date that is told is the one on which it goes when there is a backup every day.
    #[test]
    fn the_date_that_is_told_is_kept(gfs in gfs(), days in 1_i64..60) {
        let daily: Vec<_> = (0..days).map(|day| Candidate::new(id(day * 24))).collect();
        let now = after(&daily);
        let verdicts = judge(&gfs, &daily, &guards(1), now).unwrap();
        let Some(first) = verdicts.iter().find(|verdict| verdict.until().is_some()) else {
            return Ok(());
        };
        let until = first.until().expect("a date");
        prop_assume!(until < now + TimeDelta::days(400));
        let mut more = daily.clone();
        let mut gone = false;
        let mut day = days;
        while !gone {
            let taken = Candidate::new(id(day * 24));
            let begun = taken.id.started_at();
            more.push(taken);
            day += 1;
            let expires = |verdict: &Verdict| verdict.id == first.id && verdict.expires();
            let verdicts = judge(&gfs, &more, &guards(1), begun).unwrap();
            gone = verdicts.iter().any(expires);
            prop_assert_eq!(gone, begun >= until, "{} {}", begun, until);
        }
    }
}

/// Of this clock a day was left out: no backup can be of it.
#[test]
fn no_date_counts_on_a_day_that_was_left_out() {
    let gfs = Gfs {
        daily: Count::of(2),
        zone: Tz::Pacific__Apia,
        ..Gfs::default()
    };
    // The last is of 2011-12-29, in the morning.
    let daily: Vec<_> = (0..54).map(|day| Candidate::new(id(day * 24))).collect();
    let verdicts = judge(&gfs, &daily, &guards(1), after(&daily)).unwrap();
    let until = verdicts.iter().filter_map(Verdict::until);
    let until: BTreeSet<_> = until
        .map(|until| until.with_timezone(&gfs.zone).to_rfc3339())
        .collect();
    assert_eq!(
        Vec::from_iter(until),
        ["2011-12-31T00:00:00+14:00", "2012-01-01T00:00:00+14:00"]
    );
}

fn calendar(tier: Tier, day: NaiveDate) -> (i32, u32) {
    match tier {
        Tier::Daily => (day.year(), day.ordinal()),
        Tier::Weekly => (day.iso_week().year(), day.iso_week().week()),
        Tier::Monthly => (day.year(), day.month()),
        Tier::Yearly => (day.year(), 0),
    }
}

fn days(from: &str, number: i64) -> Vec<Candidate> {
    let from: DateTime<Utc> = format!("{from}T03:00:00Z").parse().expect("a day");
    let day = |day| Candidate::new(BackupId::new(from + TimeDelta::days(day), 1));
    (0..number).map(day).collect()
}

fn slots(policy: &dyn RetentionPolicy, candidates: &[Candidate]) -> Vec<String> {
    let verdicts = plan(policy, candidates, &guards(1), after(candidates));
    let verdicts = verdicts.expect("a clock that is right");
    let reasons = verdicts.iter().flat_map(|verdict| &verdict.keep);
    let slots = reasons.filter(|reason| reason.is_rule());
    slots.map(ToString::to_string).collect()
}

#[test]
fn weeks_do_not_collide_at_new_year() {
    let weekly = Gfs {
        weekly: Count::of(3),
        ..Gfs::default()
    };
    let kept = slots(&weekly, &days("2024-12-20", 20));
    assert_eq!(
        kept,
        ["weekly 2024-W52", "weekly 2025-W01", "weekly 2025-W02"]
    );
    let kept = slots(&weekly, &days("2026-12-20", 20));
    assert_eq!(
        kept,
        ["weekly 2026-W52", "weekly 2026-W53", "weekly 2027-W01"]
    );
}

#[test]
fn a_missed_monday_loses_no_week() {
    let weekly = Gfs {
        weekly: Count::of(9),
        ..Gfs::default()
    };
    let mut all = days("2026-02-02", 21);
    // The Monday of the second week, and all of the third but its Sunday.
    all.retain(|candidate| {
        let day = candidate.id.started_at().day();
        day != 9 && !(16..22).contains(&day)
    });
    let verdicts = weekly.evaluate(&all, after(&all));
    let kept: Vec<_> = kept(&verdicts)
        .iter()
        .map(|id| id.as_str()[..8].to_owned())
        .collect();
    assert_eq!(kept, ["20260202", "20260210", "20260222"]);
}

#[test]
fn one_backup_may_fill_several_slots() {
    let all = Gfs {
        daily: Count::of(1),
        weekly: Count::of(1),
        monthly: Count::of(1),
        yearly: Count::of(1),
        ..Gfs::default()
    };
    assert_eq!(
        slots(&all, &days("2026-02-05", 1)),
        [
            "daily 2026-02-05",
            "weekly 2026-W06",
            "monthly 2026-02",
            "yearly 2026"
        ]
    );
}

#[test]
fn midnight_is_that_of_the_zone() {
    let hours = |zone| {
        let daily = Gfs {
            daily: Count::Unlimited,
            zone,
            ..Gfs::default()
        };
        let evening: DateTime<Utc> = "2026-07-01T21:30:00Z".parse().expect("a moment");
        let three = (0..3).map(|hour| evening + TimeDelta::hours(hour));
        let all: Vec<_> = three
            .map(|time| Candidate::new(BackupId::new(time, 1)))
            .collect();
        slots(&daily, &all).len()
    };
    assert_eq!((hours(Tz::UTC), hours(Tz::Asia__Kathmandu)), (1, 1));
    assert_eq!(hours(Tz::Europe__Berlin), 2);
}

#[test]
fn what_is_kept_for_longer_than_time_lasts_is_kept_for_ever() {
    let within = KeepWithin(TimeDelta::MAX);
    let verdicts = within.evaluate(&days("2026-02-05", 1), at(0));
    let until = DateTime::<Utc>::MAX_UTC;
    assert_eq!(verdicts[0].keep, [KeepReason::Young { until }]);
}

/// Seven good backups, then for more than a year only what is no whole one.
#[test]
fn backups_that_fail_for_a_year_cost_none_of_the_good_ones() {
    let policy = AnyOf::new(vec![
        Box::new(KeepWithin(TimeDelta::days(3))),
        Box::new(KeepLast(Count::of(1))),
    ]);
    let mut all = days("2026-01-01", 7);
    let good: BTreeSet<_> = all.iter().map(|candidate| candidate.id.clone()).collect();
    let mut refused = 0;
    for mut candidate in days("2026-01-08", 400) {
        candidate.damaged = !candidate.id.as_str().contains('5');
        if !candidate.damaged {
            candidate.extent = Extent::Part;
        }
        all.push(candidate);
        match plan(&policy, &all, &guards(3), after(&all)) {
            Ok(verdicts) => {
                let kept = kept(&verdicts);
                all.retain(|candidate| kept.contains(&candidate.id));
            }
            Err(error) => {
                assert!(error.to_string().contains("backups fail"), "{error}");
                refused += 1;
            }
        }
        let left = all.iter().filter(|candidate| good.contains(&candidate.id));
        assert!(left.count() >= 3);
    }
    // Each day but the first few somebody is told.
    assert!(refused > 390, "{refused}");
}
