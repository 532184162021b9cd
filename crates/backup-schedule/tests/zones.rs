//! Two years in each of several zones, against every quarter of an hour that their walls showed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use backup_schedule::{Schedule, Tz};
use chrono::{
    DateTime, Datelike as _, NaiveDate, NaiveTime, TimeDelta, Timelike as _, Utc, Weekday,
};

/// A zone, and the year from which on two are looked at: some have no summer time any more.
const ZONES: [(Tz, i32); 8] = [
    (Tz::UTC, 2025),
    (Tz::Europe__Berlin, 2025),
    (Tz::America__New_York, 2025),
    // Half an hour.
    (Tz::Australia__Lord_Howe, 2025),
    // Neither whole nor half hours.
    (Tz::Asia__Kathmandu, 2025),
    (Tz::Pacific__Chatham, 2025),
    // At midnight.
    (Tz::America__Sao_Paulo, 2017),
    (Tz::Africa__Cairo, 2025),
];

static WALLS: LazyLock<Vec<(Tz, Wall)>> = LazyLock::new(|| {
    let wall = |(zone, year)| (zone, Wall::of(zone, year));
    ZONES.map(wall).into()
});

const QUARTER: TimeDelta = TimeDelta::minutes(15);

/// What the wall shows at each quarter of an hour of two years.
struct Wall {
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    shown: Vec<(DateTime<Utc>, NaiveDate, NaiveTime)>,
}

impl Wall {
    fn of(zone: Tz, year: i32) -> Self {
        let start = |year: i32| {
            let noon = format!("{year}-01-01T12:00:00Z").parse();
            noon.expect("this is a time")
        };
        let (from, to): (DateTime<Utc>, DateTime<Utc>) = (start(year), start(year + 2));
        let mut shown = Vec::new();
        let mut moment = from;
        while moment <= to {
            let local = moment.with_timezone(&zone);
            shown.push((moment, local.date_naive(), local.time()));
            moment += QUARTER;
        }
        Self { from, to, shown }
    }

    /// The first moment at which the wall shows each of `times` on each of the days, or, if it
    /// never does, the first at which it shows a later one.
    fn fixed(&self, times: &[&str], days: impl Fn(NaiveDate) -> bool) -> BTreeSet<DateTime<Utc>> {
        let mut by_day: BTreeMap<NaiveDate, Vec<(DateTime<Utc>, NaiveTime)>> = BTreeMap::new();
        for (moment, day, time) in &self.shown {
            by_day.entry(*day).or_default().push((*moment, *time));
        }
        let mut expected = BTreeSet::new();
        for (_, shown) in by_day.iter().filter(|(day, _)| days(**day)) {
            for time in times {
                let time: NaiveTime = format!("{time}:00").parse().expect("this is a time");
                let exact = shown.iter().find(|(_, shown)| *shown == time);
                let found = exact.or_else(|| shown.iter().find(|(_, shown)| *shown > time));
                expected.extend(found.map(|(moment, _)| *moment));
            }
        }
        self.whole_days(expected)
    }

    /// Every moment at which the wall shows such a time.
    fn every(&self, shows: impl Fn(NaiveDate, NaiveTime) -> bool) -> BTreeSet<DateTime<Utc>> {
        let all = self.shown.iter();
        let found = all.filter(|(_, day, time)| shows(*day, *time));
        self.whole_days(found.map(|(moment, ..)| *moment).collect())
    }

    /// Without the days at both ends, of which the wall was only seen in part.
    fn whole_days(&self, mut moments: BTreeSet<DateTime<Utc>>) -> BTreeSet<DateTime<Utc>> {
        let day = TimeDelta::days(1);
        moments.retain(|moment| *moment > self.from + day && *moment <= self.to - day);
        moments
    }

    fn slots(&self, schedule: &Schedule) -> BTreeSet<DateTime<Utc>> {
        let all: Vec<_> = schedule.slots(self.from, self.to).collect();
        assert!(all.is_sorted_by(|a, b| a < b), "{schedule}");
        self.whole_days(all.into_iter().collect())
    }
}

fn in_all_zones(text: &str, expected: impl Fn(&Wall) -> BTreeSet<DateTime<Utc>>) {
    for (zone, wall) in WALLS.iter() {
        let schedule = Schedule::new(text, *zone).expect("it is a schedule");
        let (found, expected) = (wall.slots(&schedule), expected(wall));
        let wrong: Vec<_> = found.symmetric_difference(&expected).collect();
        assert!(wrong.is_empty(), "{text} in {zone}: {wrong:?}");
        assert!(!found.is_empty(), "{text} in {zone}");
        // Asked from anywhere, the answer is the same.
        let from_anywhere = wall.shown.iter().step_by(97).map(|(moment, ..)| *moment);
        for moment in from_anywhere.filter(|moment| found.range(*moment..).nth(1).is_some()) {
            let after = moment + TimeDelta::nanoseconds(1);
            let next = found.range(after..).next().copied();
            if found.first().is_some_and(|first| *first <= moment) {
                assert_eq!(
                    schedule.next_after(moment + TimeDelta::milliseconds(1)),
                    next
                );
            }
        }
    }
}

#[test]
fn a_daily_run_happens_once_each_day() {
    for time in [
        "00:00", "00:30", "01:45", "02:00", "02:15", "02:30", "03:00", "12:00", "23:45",
    ] {
        let (hour, minute) = time.split_once(':').unwrap();
        let text = format!("{minute} {hour} * * *");
        in_all_zones(&text, |wall| wall.fixed(&[time], |_| true));
        for (zone, wall) in WALLS.iter() {
            let slots = wall.slots(&Schedule::new(&text, *zone).unwrap());
            let days = slots
                .iter()
                .map(|slot| slot.with_timezone(zone).date_naive());
            let days: Vec<_> = days.collect();
            let follow = |pair: &[NaiveDate]| pair[0].succ_opt() == Some(pair[1]);
            assert!(days.windows(2).all(follow), "{text} in {zone}");
            assert!((728..=730).contains(&days.len()), "{text} in {zone}");
        }
    }
}

#[test]
fn lists_and_ranges_of_hours_count_each_time_once() {
    in_all_zones("30 2,14 * * *", |wall| {
        wall.fixed(&["02:30", "14:30"], |_| true)
    });
    in_all_zones("0,30 0-3 * * *", |wall| {
        let times = [
            "00:00", "00:30", "01:00", "01:30", "02:00", "02:30", "03:00", "03:30",
        ];
        wall.fixed(&times, |_| true)
    });
    in_all_zones("15 */6 * * *", |wall| {
        wall.fixed(&["00:15", "06:15", "12:15", "18:15"], |_| true)
    });
}

#[test]
fn what_runs_every_hour_runs_whenever_the_wall_shows_it() {
    in_all_zones("0 * * * *", |wall| wall.every(|_, time| time.minute() == 0));
    in_all_zones("45 * * * *", |wall| {
        wall.every(|_, time| time.minute() == 45)
    });
    in_all_zones("*/15 * * * *", |wall| wall.every(|_, _| true));
    in_all_zones("30 * * * 0", |wall| {
        wall.every(|day, time| day.weekday() == Weekday::Sun && time.minute() == 30)
    });
    in_all_zones("0,30 0-23 1 * *", |wall| {
        wall.every(|day, time| day.day() == 1 && time.minute() % 30 == 0)
    });
}

#[test]
fn weeks_and_months_keep_their_days() {
    let last = |day: NaiveDate| day.succ_opt().is_some_and(|next| next.day() == 1);
    in_all_zones("30 2 * * 0", |wall| {
        wall.fixed(&["02:30"], |day| day.weekday() == Weekday::Sun)
    });
    in_all_zones("30 2 31 * *", |wall| {
        wall.fixed(&["02:30"], |day| day.day() == 31)
    });
    in_all_zones("30 2 L * *", |wall| wall.fixed(&["02:30"], last));
    in_all_zones("0 0 1 */3 *", |wall| {
        wall.fixed(&["00:00"], |day| day.day() == 1 && day.month0() % 3 == 0)
    });
    // Either of the two, as cron has it.
    in_all_zones("15 1 13 * FRI", |wall| {
        wall.fixed(&["01:15"], |day| {
            day.day() == 13 || day.weekday() == Weekday::Fri
        })
    });
}
