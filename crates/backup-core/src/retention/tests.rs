use super::*;
use chrono::TimeDelta;

/// Keeps what is younger than so many days, but not what is damaged: it sees only good ones.
#[derive(Debug)]
struct Days(i64);

impl RetentionPolicy for Days {
    fn evaluate(&self, candidates: &[Candidate], now: DateTime<Utc>) -> Vec<Verdict> {
        let judge = |candidate: &Candidate| {
            let until = candidate.id.started_at() + TimeDelta::days(self.0);
            let keep = (now < until).then_some(KeepReason::Young { until });
            Verdict {
                id: candidate.id.clone(),
                keep: keep.into_iter().collect(),
            }
        };
        candidates.iter().map(judge).collect()
    }
}

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_770_260_400, 0).unwrap()
}

fn aged(days: i64) -> Candidate {
    Candidate::new(BackupId::new(now() - TimeDelta::days(days), 1))
}

fn guards(min_keep: usize) -> Guards {
    Guards {
        min_keep: min_keep.try_into().unwrap(),
        clock_is_right: false,
        witness: None,
    }
}

/// The reasons for each as text, joined.
fn reasons(verdicts: &[Verdict]) -> Vec<String> {
    let text = |verdict: &Verdict| {
        let reasons: Vec<_> = verdict.keep.iter().map(ToString::to_string).collect();
        reasons.join(", ")
    };
    verdicts.iter().map(text).collect()
}

#[test]
fn the_newest_and_the_last_verified_stay_whatever_the_policy_says() {
    let mut backups: Vec<_> = (0..8).map(aged).collect();
    backups[5].verified_at = Some(now());
    backups[7].verified_at = Some(now());
    backups[6].pinned = true;
    let verdicts = plan(&Days(1), &backups, &guards(1), now()).unwrap();
    let expected = ["until 2026-02-06T03:00:00Z, min_keep", "", "", "", ""];
    assert_eq!(reasons(&verdicts)[..5], expected);
    assert_eq!(reasons(&verdicts)[5..], ["last verified", "pinned", ""]);
    let verdicts = plan(&Days(1), &backups, &guards(2), now()).unwrap();
    assert_eq!(reasons(&verdicts)[1], "min_keep");
    assert_eq!(reasons(&verdicts)[7], "last verified");
}

#[test]
fn filtered_ones_neither_push_out_whole_ones_nor_stand_for_them() {
    let mut backups: Vec<_> = (0..6).map(aged).collect();
    for backup in &mut backups[..3] {
        backup.extent = Extent::Part;
        backup.verified_at = Some(now());
    }
    let verdicts = plan(&Days(1), &backups, &guards(1), now()).unwrap();
    assert_eq!(
        reasons(&verdicts),
        [
            "until 2026-02-06T03:00:00Z, min_keep, last verified",
            "",
            "",
            "min_keep",
            "",
            ""
        ]
    );
}

#[test]
fn a_damaged_one_stands_for_nothing_and_goes_when_it_would_have_gone() {
    let mut backups: Vec<_> = (0..4).map(aged).collect();
    backups[0].damaged = true;
    backups[3].damaged = true;
    let verdicts = plan(&Days(2), &backups, &guards(1), now()).unwrap();
    let young = "until 2026-02-07T03:00:00Z";
    let last = "until 2026-02-06T03:00:00Z, min_keep";
    assert_eq!(reasons(&verdicts), [young, last, "", ""]);
    // There may be something in it still.
    for backup in &mut backups {
        backup.damaged = true;
    }
    let verdicts = plan(&Days(2), &backups, &guards(1), now()).unwrap();
    assert_eq!(
        reasons(&verdicts)[3],
        "damaged, but nothing better is there"
    );
    assert!(verdicts.iter().all(|verdict| !verdict.expires()));
}

#[test]
fn nothing_goes_while_the_clock_cannot_be_right() {
    let daily: Vec<_> = (0..20).map(aged).collect();
    let plan_at = |backups: &[Candidate], days: i64, clock_is_right: bool| {
        let guards = Guards {
            clock_is_right,
            ..guards(1)
        };
        plan(&Days(9999), backups, &guards, now() + TimeDelta::days(days))
    };
    for (days, refused) in [(-1, true), (0, false), (4, false), (5, true), (3650, true)] {
        let planned = plan_at(&daily, days, false);
        match planned {
            Ok(_) => assert!(!refused, "{days}"),
            Err(error) => {
                assert!(refused, "{days}: {error}");
                assert_eq!(error.kind(), ErrorKind::Refused);
                assert!(error.hint().is_some());
            }
        }
        // A look at the clock cannot help where it contradicts itself.
        assert_eq!(plan_at(&daily, days, true).is_err(), days < 0, "{days}");
    }
    let minute = TimeDelta::minutes(1);
    assert!(plan(&Days(9), &daily, &guards(1), now() - minute).is_ok());
    let weekly: Vec<_> = (0..5).map(|week| aged(week * 7)).collect();
    assert!(plan_at(&weekly, 16, false).is_ok());
    assert!(plan_at(&weekly, 17, false).is_err());
    assert!(plan_at(&[aged(0)], 35, false).is_ok());
    assert!(plan_at(&[aged(0)], 36, false).is_err());
    assert!(plan_at(&[], 36, false).unwrap().is_empty());

    // Of what is gone, no newer one comes: another tells that the clock is right.
    let witnessed = |days: i64| {
        let guards = Guards {
            witness: Some(now() + TimeDelta::days(days)),
            ..guards(1)
        };
        plan(&Days(9999), &daily, &guards, now() + TimeDelta::days(100))
    };
    assert!(witnessed(99).is_ok());
    assert!(witnessed(90).is_err());
    assert!(witnessed(-10).is_err());

    // What fails to be whole does not make the old ones less needed.
    let mut failing = daily.clone();
    for backup in &mut failing[..6] {
        backup.extent = Extent::Part;
    }
    let error = plan_at(&failing, 0, false).unwrap_err();
    assert!(error.to_string().contains("6 days old"), "{error}");
}

#[test]
fn a_policy_that_keeps_nothing_is_refused() {
    let backups: Vec<_> = (1..9).map(aged).collect();
    let error = plan(&Days(1), &backups, &guards(3), now()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    let text = "the policy keeps none of 8 backups";
    assert_eq!(error.to_string(), text);
    // For a look at them that is no reason to fail.
    let verdicts = judge(&Days(1), &backups, &guards(3), now()).unwrap();
    assert_eq!(
        reasons(&verdicts)[..4],
        ["min_keep", "min_keep", "min_keep", ""]
    );
}

#[test]
fn a_policy_of_somebody_else_that_forgets_one_is_noticed() {
    #[derive(Debug)]
    struct Forgetful;
    impl RetentionPolicy for Forgetful {
        fn evaluate(&self, candidates: &[Candidate], now: DateTime<Utc>) -> Vec<Verdict> {
            Days(100).evaluate(&candidates[1..], now)
        }
    }
    let backups: Vec<_> = (0..3).map(aged).collect();
    let error = plan(&Forgetful, &backups, &guards(1), now()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
}

#[test]
fn the_end_is_that_of_the_last_reason() {
    let at = |days| now() + TimeDelta::days(days);
    let slot = |until| KeepReason::Slot {
        tier: Tier::Daily,
        period: "2026-02-05".to_owned(),
        until,
    };
    for (keep, until) in [
        (vec![], None),
        (vec![KeepReason::Newest], None),
        (vec![slot(Some(at(3))), KeepReason::Newest], Some(at(3))),
        (
            vec![slot(Some(at(3))), KeepReason::Young { until: at(9) }],
            Some(at(9)),
        ),
        (vec![slot(Some(at(3))), slot(None)], None),
        (vec![slot(Some(at(3))), KeepReason::Pinned], None),
        (
            vec![slot(Some(at(3))), KeepReason::Recent(Count::Unlimited)],
            None,
        ),
    ] {
        let id = aged(0).id;
        assert_eq!(Verdict { id, keep }.until(), until);
    }
}
