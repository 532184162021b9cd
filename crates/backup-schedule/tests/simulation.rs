//! A scheduler over years, with restarts, a machine that sleeps and a clock that jumps.

use std::collections::BTreeSet;

use backup_schedule::{Job, MissedReason, Schedule, State, decide};
use chrono::{DateTime, TimeDelta, Utc};

/// Numbers that are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % sides
    }

    fn once_in(&mut self, sides: u64) -> bool {
        self.below(sides) == 0
    }

    fn minutes(&mut self, most: u64) -> TimeDelta {
        TimeDelta::minutes(i64::try_from(self.below(most)).unwrap_or(0))
    }
}

/// What goes wrong, and how often: once in so many looks at the clock.
#[derive(Clone, Copy)]
struct Weather {
    restarts: u64,
    sleeps: u64,
    clock_jumps: u64,
    crashes: u64,
}

struct Scheduler {
    job: Job,
    dice: Dice,
    /// What time it is.
    truth: DateTime<Utc>,
    /// How wrong the clock is.
    error: TimeDelta,
    state: State,
    /// What runs left in the store: their slots, in the order in which they ran.
    records: Vec<DateTime<Utc>>,
    made_up: usize,
    coalesced: usize,
    /// What the clock showed each time that it was looked at.
    looks: Vec<DateTime<Utc>>,
}

impl Scheduler {
    fn new(job: Job, seed: u64) -> Self {
        let noon = "2025-01-01T12:00:00Z".parse();
        let truth = noon.expect("this is a time");
        Self {
            job,
            dice: Dice(seed),
            truth,
            error: TimeDelta::zero(),
            state: State::new(truth),
            records: Vec::new(),
            made_up: 0,
            coalesced: 0,
            looks: Vec::new(),
        }
    }

    fn clock(&self) -> DateTime<Utc> {
        self.truth + self.error
    }

    fn restart(&mut self) {
        self.state = State::new(self.clock());
        for slot in &self.records {
            self.state.settle(*slot);
        }
    }

    /// One look at the clock and what follows from it.
    fn step(&mut self, weather: Weather) {
        let next = decide(&self.job, &self.state, self.clock()).next;
        let next = next.expect("there is always another slot");
        let half_an_hour = TimeDelta::minutes(30);
        self.truth += (next - self.clock()).clamp(TimeDelta::seconds(1), half_an_hour);
        if self.dice.once_in(weather.sleeps) {
            self.truth += self.dice.minutes(3 * 24 * 60);
        }
        if self.dice.once_in(weather.clock_jumps) {
            // Never back by more than a day in all.
            self.error = self.dice.minutes(12 * 60) - TimeDelta::hours(6);
        }
        if self.dice.once_in(weather.restarts) {
            self.truth += self.dice.minutes(300);
            self.restart();
        }
        self.looks.push(self.clock());
        let due = decide(&self.job, &self.state, self.clock());
        self.coalesced += due
            .missed
            .iter()
            .filter(|m| m.reason == MissedReason::Coalesced)
            .count();
        let Some(run) = due.run else {
            if let Some(missed) = due.missed.last() {
                self.state.told(missed.slot);
            }
            self.nothing_is_lost();
            return;
        };
        self.truth += self.dice.minutes(90);
        if self.dice.once_in(weather.crashes) {
            self.restart();
            return;
        }
        self.records.push(run.slot);
        self.made_up += usize::from(run.made_up);
        self.state.settle(run.slot);
    }

    /// Nothing is left to do: no slot within the window is newer than all that was run.
    fn nothing_is_lost(&self) {
        let shown = self.clock() - self.job.jitter;
        let slots = self.job.schedule.slots(shown - self.job.catch_up, shown);
        let (Some(newest), Some(last)) = (slots.last(), self.records.iter().max()) else {
            return;
        };
        assert!(
            newest <= *last,
            "{newest} is lost at {shown}, last was {last}"
        );
    }
}

fn simulate(text: &str, zone: &str, weather: Weather, seed: u64) -> Scheduler {
    let job = Job {
        schedule: Schedule::parse(text, zone).expect("it is a schedule"),
        jitter: TimeDelta::seconds(97 * i64::try_from(seed % 5).unwrap_or(0)),
        tolerance: TimeDelta::minutes(5),
        catch_up: TimeDelta::hours(2),
    };
    let mut scheduler = Scheduler::new(job, seed);
    // What runs often sees as much in less time.
    let days = if text.ends_with(" * * * *") { 15 } else { 200 };
    let end = scheduler.truth + TimeDelta::days(days);
    while scheduler.truth < end {
        scheduler.step(weather);
    }
    let different: BTreeSet<_> = scheduler.records.iter().collect();
    assert_eq!(
        different.len(),
        scheduler.records.len(),
        "a slot ran twice: {text} {seed}"
    );
    scheduler
}

const NEVER: u64 = u64::MAX;

#[test]
fn in_fair_weather_every_slot_runs_on_time_and_once() {
    let fair = Weather {
        restarts: NEVER,
        sleeps: NEVER,
        clock_jumps: NEVER,
        crashes: NEVER,
    };
    for zone in [
        "UTC",
        "Europe/Berlin",
        "Australia/Lord_Howe",
        "America/New_York",
    ] {
        let scheduler = simulate("30 2 * * *", zone, fair, 1);
        let slots = scheduler
            .job
            .schedule
            .slots(scheduler.records[0], scheduler.truth);
        assert!(slots.eq(scheduler.records[1..].iter().copied()), "{zone}");
        assert!((199..=201).contains(&scheduler.records.len()), "{zone}");
        assert_eq!((scheduler.made_up, scheduler.coalesced), (0, 0), "{zone}");
    }
}

#[test]
fn in_bad_weather_no_slot_runs_twice_and_none_is_lost_that_could_be_made_up_for() {
    let storms = [
        Weather {
            restarts: 70,
            sleeps: 170,
            clock_jumps: NEVER,
            crashes: 10,
        },
        Weather {
            restarts: 100,
            sleeps: 170,
            clock_jumps: 35,
            crashes: 5,
        },
        Weather {
            restarts: 10,
            sleeps: 40,
            clock_jumps: 5,
            crashes: 2,
        },
    ];
    for (seed, text, zone) in [
        (1, "30 2 * * *", "Europe/Berlin"),
        (2, "0 0 * * *", "America/New_York"),
        (3, "*/15 * * * *", "Australia/Lord_Howe"),
        (4, "0 * * * *", "UTC"),
        (5, "30 2,14 * * 1-5", "Europe/Berlin"),
    ] {
        for weather in storms {
            let scheduler = simulate(text, zone, weather, seed);
            assert!(
                scheduler.records.len() > 40,
                "{text}: {}",
                scheduler.records.len()
            );
            assert!(scheduler.made_up > 0, "{text}: {}", scheduler.made_up);
        }
    }
}

#[test]
fn with_a_right_clock_a_day_is_lost_only_by_sleeping_through_it() {
    let sleepy = Weather {
        restarts: 100,
        sleeps: 130,
        clock_jumps: NEVER,
        crashes: NEVER,
    };
    let scheduler = simulate("30 2 * * *", "Europe/Berlin", sleepy, 7);
    let slots = scheduler
        .job
        .schedule
        .slots(scheduler.records[0], scheduler.truth);
    let slots: Vec<_> = slots.collect();
    let (ran, lost): (Vec<DateTime<Utc>>, Vec<_>) = slots
        .into_iter()
        .partition(|slot| scheduler.records.contains(slot));
    for slot in &lost {
        let begin = *slot + scheduler.job.jitter;
        let window = begin..=begin + scheduler.job.catch_up;
        let looks = scheduler.looks.iter();
        let awake: Vec<_> = looks.filter(|look| window.contains(look)).collect();
        assert!(awake.is_empty(), "{slot} is lost, looked at {awake:?}");
    }
    assert!(
        ran.len() > 50 && lost.len() > 10,
        "{} {}",
        ran.len(),
        lost.len()
    );
}
