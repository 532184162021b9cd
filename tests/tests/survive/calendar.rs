//! Two years in zones whose clocks are changed, day after day, as a server lives through them: what is
//! due is decided, runs leave backups, and old ones go by a policy.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use backup_core::backup::BackupId;
use backup_core::retention::{Candidate, Count, Guards, Tier, Verdict, plan};
use backup_e2e::evidence;
use backup_retention::{AnyOf, Gfs};
use backup_schedule::{Job, Schedule, State, Tz, decide};
use chrono::{DateTime, Datelike as _, NaiveDate, TimeDelta, TimeZone as _, Utc};

/// A zone, the year with which its two years begin, and how many days of them its wall never showed.
const ZONES: [(Tz, i32, usize); 6] = [
    (Tz::Europe__Berlin, 2025, 0),
    // By half an hour.
    (Tz::Australia__Lord_Howe, 2025, 0),
    (Tz::America__New_York, 2025, 0),
    // At midnight.
    (Tz::Africa__Cairo, 2025, 0),
    // Four times a year, for a month of the moon.
    (Tz::Africa__Casablanca, 2025, 0),
    // 30 December 2011 was left out, on the way over the date line.
    (Tz::Pacific__Apia, 2011, 1),
];

/// At midnight, within the hour that most zones leave out and repeat, and at the end of the day.
const SCHEDULES: [&str; 3] = ["0 0 * * *", "30 2 * * *", "45 23 * * *"];

const TIERS: [(Tier, u32); 4] = [
    (Tier::Daily, 7),
    (Tier::Weekly, 5),
    (Tier::Monthly, 12),
    (Tier::Yearly, 3),
];

/// How long a server sleeps at most before it looks at the clock again.
const LOOK: TimeDelta = TimeDelta::minutes(90);

/// How long a run takes.
const RUN: TimeDelta = TimeDelta::minutes(10);

/// A server that lives through its years.
struct Life {
    zone: Tz,
    job: Job,
    policy: AnyOf,
    state: State,
    now: DateTime<Utc>,
    /// When each run began, and what is left of their backups.
    runs: Vec<DateTime<Utc>>,
    left: Vec<Candidate>,
    /// The days of the calendar since the first run, but those that never were.
    days: Vec<NaiveDate>,
    expired: usize,
    sets: usize,
}

impl Life {
    fn begin(zone: Tz, year: i32, schedule: &str) -> Result<Self> {
        let noon = zone.with_ymd_and_hms(year, 1, 1, 12, 0, 0).single();
        let now = noon.context("a noon")?.with_timezone(&Utc);
        let count = |tier: Tier| {
            let found = TIERS.iter().find(|(known, _)| *known == tier);
            found.map_or(Count::None, |(_, count)| Count::of(*count))
        };
        let policy = AnyOf::new(vec![Box::new(Gfs {
            daily: count(Tier::Daily),
            weekly: count(Tier::Weekly),
            monthly: count(Tier::Monthly),
            yearly: count(Tier::Yearly),
            zone,
        })]);
        Ok(Self {
            zone,
            job: Job {
                schedule: Schedule::new(schedule, zone)?,
                jitter: TimeDelta::minutes(5),
                tolerance: TimeDelta::minutes(5),
                catch_up: TimeDelta::hours(6),
            },
            policy,
            state: State::new(now),
            now,
            runs: Vec::new(),
            left: Vec::new(),
            days: Vec::new(),
            expired: 0,
            sets: 0,
        })
    }

    /// Looks at the clock, does what is due, and sleeps.
    fn step(&mut self) -> Result<()> {
        let due = decide(&self.job, &self.state, self.now);
        ensure!(
            due.missed.is_empty(),
            "missed at {}: {:?}",
            self.now,
            due.missed
        );
        if let Some(run) = due.run {
            ensure!(!run.made_up, "{} is late at {}", run.slot, self.now);
            self.run(run.slot)?;
        }
        let next = due.next.context("there is always another slot")?;
        // A run may have taken until after it.
        self.now = next.clamp(self.now + TimeDelta::seconds(15), self.now + LOOK);
        Ok(())
    }

    fn run(&mut self, slot: DateTime<Utc>) -> Result<()> {
        self.runs.push(self.now);
        self.day_passed()?;
        self.left.push(Candidate::new(BackupId::new(self.now, 7)));
        self.state.settle(slot);
        self.now += RUN;
        // The program is started anew now and then, and knows what records tell.
        if self.runs.len().is_multiple_of(11) {
            self.state = State::new(self.now);
            self.state.settle(slot);
        }
        let guards = Guards {
            min_keep: 3.try_into()?,
            clock_is_right: false,
            witness: None,
        };
        let verdicts = plan(&self.policy, &self.left, &guards, self.now)?;
        self.sets_are_whole(&verdicts)?;
        let gone = verdicts.iter().filter(|verdict| verdict.expires());
        let gone: BTreeSet<_> = gone.map(|verdict| &verdict.id).collect();
        self.expired += gone.len();
        self.left.retain(|candidate| !gone.contains(&candidate.id));
        Ok(())
    }

    fn day_of(&self, moment: DateTime<Utc>) -> NaiveDate {
        moment.with_timezone(&self.zone).date_naive()
    }

    /// The day of this run is the one after that of the last run.
    fn day_passed(&mut self) -> Result<()> {
        let today = self.day_of(self.now);
        if let Some(last) = self.days.last() {
            let mut expected = last.succ_opt().context("a day")?;
            while !self.was_shown(expected) {
                expected = expected.succ_opt().context("a day")?;
            }
            ensure!(today == expected, "after {last} comes {today}");
        }
        self.days.push(today);
        Ok(())
    }

    /// Whether the wall ever showed a day: some hour of it, at least.
    fn was_shown(&self, day: NaiveDate) -> bool {
        let hours = (0..24).filter_map(|hour| day.and_hms_opt(hour, 0, 0));
        let mut shown = hours.map(|hour| self.zone.from_local_datetime(&hour).earliest().is_some());
        shown.any(|shown| shown)
    }

    /// Each tier has the newest periods of the calendar, all of them and each once, and for each the
    /// first backup.
    fn sets_are_whole(&mut self, verdicts: &[Verdict]) -> Result<()> {
        for (tier, wanted) in TIERS {
            let mut periods: Vec<(i32, u32)> =
                self.days.iter().map(|day| period(tier, *day)).collect();
            periods.dedup();
            let wanted = usize::try_from(wanted)?.min(periods.len());
            let expected = &periods[periods.len() - wanted..];
            let stands = |verdict: &&Verdict| {
                verdict
                    .keep
                    .iter()
                    .any(|reason| reason.tier() == Some(tier))
            };
            let mut found: Vec<_> = verdicts
                .iter()
                .filter(stands)
                .map(|verdict| verdict.id.started_at())
                .collect();
            found.sort_unstable();
            let days: Vec<_> = found.iter().map(|moment| self.day_of(*moment)).collect();
            let kept: Vec<_> = days.iter().map(|day| period(tier, *day)).collect();
            ensure!(
                kept == expected,
                "{tier:?} at {}: {kept:?} instead of {expected:?}",
                self.now
            );
            let firsts = expected
                .iter()
                .map(|wanted| self.days.iter().find(|day| period(tier, **day) == *wanted));
            ensure!(
                firsts.eq(days.iter().map(Some)),
                "{tier:?} at {}: not the first ones",
                self.now
            );
            self.sets += 1;
        }
        Ok(())
    }
}

/// What a calendar calls the period of a day.
fn period(tier: Tier, day: NaiveDate) -> (i32, u32) {
    match tier {
        Tier::Daily => (day.year(), day.ordinal()),
        Tier::Weekly => (day.iso_week().year(), day.iso_week().week()),
        Tier::Monthly => (day.year(), day.month()),
        Tier::Yearly => (day.year(), 0),
    }
}

#[test]
fn check_27_each_day_has_one_run_and_sets_have_no_gap() -> Result<()> {
    let (mut runs, mut sets, mut expired, mut changes) = (0, 0, 0, 0);
    for (zone, year, never_shown) in ZONES {
        for schedule in SCHEDULES {
            let place = || format!("{schedule} in {zone}");
            let mut life = Life::begin(zone, year, schedule)?;
            let end = life.now + TimeDelta::days(731);
            while life.now < end {
                life.step().with_context(place)?;
            }
            let (first, last) = (life.days[0], life.days[life.days.len() - 1]);
            let all = usize::try_from((last - first).num_days())? + 1 - never_shown;
            ensure!(
                life.runs.len() == all,
                "{}: {} runs in {all} days",
                place(),
                life.runs.len()
            );
            ensure!(all >= 729, "{}: only {all} days", place());
            ensure!(life.expired > 650, "{}: {} expired", place(), life.expired);
            runs += all;
            sets += life.sets;
            expired += life.expired;
        }
        changes += changes_of_the_clock(zone, year);
    }
    ensure!(
        changes >= 2 * ZONES.len(),
        "{changes} changes of the clock, too few to prove anything"
    );
    evidence::note(
        27,
        format!(
            "{} zones with {changes} changes of the clock in all, two years each, {} schedules: {runs} days with one run \
             each, {sets} daily, weekly, monthly and yearly sets without gap or duplicate, {expired} backups let go",
            ZONES.len(),
            SCHEDULES.len()
        ),
    );
    Ok(())
}

/// How often the clocks of a zone are changed in its two years.
fn changes_of_the_clock(zone: Tz, year: i32) -> usize {
    let at = |hours: i64| {
        let begin = Utc.with_ymd_and_hms(year, 1, 1, 12, 0, 0).single();
        let moment = begin.expect("a noon") + TimeDelta::hours(hours);
        let local = moment.with_timezone(&zone).naive_local();
        local - moment.naive_utc()
    };
    (0..731 * 24)
        .filter(|hour| at(*hour) != at(hour + 1))
        .count()
}
