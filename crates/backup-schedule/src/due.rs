//! What of a schedule is due at a moment, whatever the clock and the machine did since.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};

use crate::schedule::Schedule;

/// A scheduler that looks at the clock less often than that is late for every slot.
const LEAST_TOLERANCE: TimeDelta = TimeDelta::minutes(1);

/// A clock that is put back farther was wrong: what was done then is no reason to do nothing
/// until that time comes again.
const PLAUSIBLE: TimeDelta = TimeDelta::days(1);

/// What makes "after" of "from".
const INSTANT: TimeDelta = TimeDelta::nanoseconds(1);

/// How many missed slots are named at once.
const NAMED: usize = 100;

/// How many settled slots are remembered. More than one only matters when clocks are put back.
const REMEMBERED: usize = 64;

/// Something that is to run by a schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// When.
    pub schedule: Schedule,
    /// How much later than its slot it always runs, so that not all jobs start at once; of
    /// [`jitter_of`].
    pub jitter: TimeDelta,
    /// How late a run is on time; a minute at least.
    pub tolerance: TimeDelta,
    /// How late a run that was missed is still made up for.
    pub catch_up: TimeDelta,
}

impl Job {
    /// How late it runs at all.
    fn window(&self) -> TimeDelta {
        self.catch_up.max(self.tolerance).max(LEAST_TOLERANCE)
    }
}

/// What became of the slots of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    since: DateTime<Utc>,
    settled: BTreeSet<DateTime<Utc>>,
    told: Option<DateTime<Utc>>,
}

impl State {
    /// Of a job that is looked after from a moment on. Slots before it are none of ours unless
    /// one before them was settled: who is asked to run something every night at 3 does not mean
    /// the night before.
    #[must_use]
    pub fn new(since: DateTime<Utc>) -> Self {
        Self {
            since,
            settled: BTreeSet::new(),
            told: None,
        }
    }

    /// A slot was run, with whatever result. It and all before it are never run again. What runs
    /// left in their records is told so after a restart, in the order in which they ran.
    pub fn settle(&mut self, slot: DateTime<Utc>) {
        self.settled.retain(|other| *other - slot <= PLAUSIBLE);
        self.settled.insert(slot);
        if self.settled.len() > REMEMBERED {
            self.settled.pop_first();
        }
    }

    /// Somebody knows that this slot and those before it did not run. That is no reason not to run
    /// it when a clock that was ahead is put right.
    pub fn told(&mut self, slot: DateTime<Utc>) {
        self.told = Some(slot);
    }

    /// The moment up to which everything is settled, as a clock that shows `now` can believe it.
    fn settled_until(&self, now: DateTime<Utc>, window: TimeDelta) -> DateTime<Utc> {
        let plausible = |slot: &&DateTime<Utc>| **slot - now <= PLAUSIBLE;
        let last = self.settled.iter().rev().find(plausible).copied();
        last.unwrap_or(if self.since > now {
            // The clock was ahead when we began. Nobody knows for how long we have been here.
            now - window
        } else {
            self.since
        })
    }
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// Run this now, and settle its slot once that is over.
    pub run: Option<DueRun>,
    /// Slots that did not run in time and were not told yet, at most a hundred.
    pub missed: Vec<Missed>,
    /// Whether there are more of them, between these and the run or now.
    pub more_missed: bool,
    /// When the next slot is due, if all that is settled.
    pub next: Option<DateTime<Utc>>,
}

/// A slot to run now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DueRun {
    /// Which one.
    pub slot: DateTime<Utc>,
    /// Whether it is later than tolerated.
    pub made_up: bool,
}

/// A slot that is passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missed {
    /// Which one.
    pub slot: DateTime<Utc>,
    /// Why.
    pub reason: MissedReason,
}

/// Why a slot is passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MissedReason {
    /// A later one is run, and one run is enough for both.
    Coalesced,
    /// It is too late even to make up for it.
    TooLate,
}

/// What of a job is due.
///
/// At most one run: the newest slot that has come and is not settled, if it is not too late. The
/// older ones are missed. A slot that is settled never runs again, nor does one before it, even
/// if the clock is put back, unless that is by more than a day: then the clock was wrong before.
#[must_use]
pub fn decide(job: &Job, state: &State, now: DateTime<Utc>) -> Due {
    let window = job.window();
    let settled = state.settled_until(now, window);
    // With the jitter taken off, a slot is due when it comes.
    let shown = now - job.jitter;
    let too_late = shown - window;
    let in_time = job.schedule.slots(settled.max(too_late - INSTANT), shown);
    let run = in_time.last().map(|slot| DueRun {
        slot,
        made_up: shown - slot > job.tolerance.max(LEAST_TOLERANCE),
    });
    let until = run.map_or(too_late, |run| run.slot) - INSTANT;
    let told = state.told.filter(|told| *told - now <= PLAUSIBLE);
    let known = told.map_or(settled, |told| told.max(settled));
    let missed = job.schedule.slots(known, until).map(|slot| Missed {
        slot,
        reason: if slot < too_late {
            MissedReason::TooLate
        } else {
            MissedReason::Coalesced
        },
    });
    let mut missed: Vec<Missed> = missed.take(NAMED + 1).collect();
    let more_missed = missed.len() > NAMED;
    missed.truncate(NAMED);
    let next = job.schedule.next_after(settled.max(shown));
    Due {
        run,
        missed,
        more_missed,
        next: next.map(|slot| slot + job.jitter),
    }
}

/// How much later than its slots the job of that name runs: always the same for a name, and
/// spread over the window for many. Whole seconds.
#[must_use]
pub fn jitter_of(name: &str, window: TimeDelta) -> TimeDelta {
    let seconds = u64::try_from(window.num_seconds()).unwrap_or(0);
    let part = xxhash_rust::xxh3::xxh3_64(name.as_bytes()).checked_rem(seconds);
    let part = part.and_then(|part| i64::try_from(part).ok());
    TimeDelta::seconds(part.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: TimeDelta = TimeDelta::hours(1);

    fn at(text: &str) -> DateTime<Utc> {
        format!("2026-{text}:00Z")
            .replace(' ', "T")
            .parse()
            .unwrap()
    }

    /// Every night at 3; on time for 5 minutes, made up for within 2 hours.
    fn nightly() -> Job {
        Job {
            schedule: Schedule::parse("0 3 * * *", "UTC").unwrap(),
            jitter: TimeDelta::zero(),
            tolerance: TimeDelta::minutes(5),
            catch_up: TimeDelta::hours(2),
        }
    }

    fn state(since: &str, settled: &[&str]) -> State {
        let mut state = State::new(at(since));
        for slot in settled {
            state.settle(at(slot));
        }
        state
    }

    /// `slot`, with `!` if it is made up for, then how many are missed; and when the next is due.
    fn shown(due: &Due) -> (String, String) {
        let form = |slot: DateTime<Utc>| slot.format("%m-%d %H:%M").to_string();
        let run = due.run.map_or("-".to_owned(), |run| {
            format!("{}{}", form(run.slot), if run.made_up { "!" } else { "" })
        });
        let count = |reason| {
            due.missed
                .iter()
                .filter(|missed| missed.reason == reason)
                .count()
        };
        let late = count(MissedReason::TooLate);
        let coalesced = count(MissedReason::Coalesced);
        (format!("{run} {late}/{coalesced}"), form(due.next.unwrap()))
    }

    /// Since when, what was settled, the moment; what is due, and what next.
    const DECISIONS: &[(&str, &[&str], &str, &str, &str)] = &[
        // Never ran: nothing from before it was asked for.
        ("03-01 12:00", &[], "03-01 12:00", "- 0/0", "03-02 03:00"),
        ("03-01 12:00", &[], "03-02 02:59", "- 0/0", "03-02 03:00"),
        (
            "03-01 12:00",
            &[],
            "03-02 03:00",
            "03-02 03:00 0/0",
            "03-03 03:00",
        ),
        ("03-02 03:00", &[], "03-02 03:00", "- 0/0", "03-03 03:00"),
        // On time, late, too late.
        (
            "03-01 12:00",
            &["03-01 03:00"],
            "03-02 03:05",
            "03-02 03:00 0/0",
            "03-03 03:00",
        ),
        (
            "03-01 12:00",
            &["03-01 03:00"],
            "03-02 03:06",
            "03-02 03:00! 0/0",
            "03-03 03:00",
        ),
        (
            "03-01 12:00",
            &["03-01 03:00"],
            "03-02 05:00",
            "03-02 03:00! 0/0",
            "03-03 03:00",
        ),
        (
            "03-01 12:00",
            &["03-01 03:00"],
            "03-02 05:01",
            "- 1/0",
            "03-03 03:00",
        ),
        // Away for days, then back beside a slot and away from any.
        (
            "03-01 12:00",
            &["03-01 03:00"],
            "03-05 03:01",
            "03-05 03:00 3/0",
            "03-06 03:00",
        ),
        (
            "03-01 12:00",
            &["03-01 03:00"],
            "03-05 02:00",
            "- 3/0",
            "03-05 03:00",
        ),
        // Started again after the slot that it missed meanwhile.
        (
            "03-02 04:00",
            &["03-01 03:00"],
            "03-02 04:00",
            "03-02 03:00! 0/0",
            "03-03 03:00",
        ),
        // Settled, and settled again with the clock put back.
        (
            "03-01 12:00",
            &["03-02 03:00"],
            "03-02 03:01",
            "- 0/0",
            "03-03 03:00",
        ),
        (
            "03-01 12:00",
            &["03-02 03:00"],
            "03-02 01:00",
            "- 0/0",
            "03-03 03:00",
        ),
        (
            "03-01 12:00",
            &["03-02 03:00"],
            "03-02 03:00",
            "- 0/0",
            "03-03 03:00",
        ),
        // The clock was months ahead. What was done then is no reason to wait for months, and
        // what was done before is not done again.
        (
            "03-01 12:00",
            &["09-01 03:00"],
            "03-02 03:01",
            "03-02 03:00 0/0",
            "03-03 03:00",
        ),
        (
            "03-01 12:00",
            &["03-02 03:00", "09-01 03:00"],
            "03-02 04:00",
            "- 0/0",
            "03-03 03:00",
        ),
        (
            "09-01 12:00",
            &[],
            "03-02 03:01",
            "03-02 03:00 0/0",
            "03-03 03:00",
        ),
        ("09-01 12:00", &[], "03-02 12:00", "- 0/0", "03-03 03:00"),
    ];

    #[test]
    fn each_moment_has_its_decision() {
        for &(since, settled, now, due, next) in DECISIONS {
            let due_now = decide(&nightly(), &state(since, settled), at(now));
            let expected = (due.to_owned(), next.to_owned());
            assert_eq!(shown(&due_now), expected, "{since} {settled:?} {now}");
        }
    }

    #[test]
    fn several_missed_runs_are_made_up_for_by_one() {
        let hourly = Job {
            schedule: Schedule::parse("0 * * * *", "UTC").unwrap(),
            catch_up: TimeDelta::days(1),
            ..nightly()
        };
        let due = decide(
            &hourly,
            &state("03-01 12:00", &["03-01 12:00"]),
            at("03-02 14:30"),
        );
        // 12:00 of the day before is settled, 13:00 and 14:00 are too late.
        assert_eq!(
            shown(&due),
            ("03-02 14:00! 2/23".to_owned(), "03-02 15:00".to_owned())
        );
        assert!(!due.more_missed);
    }

    #[test]
    fn what_is_missed_is_named_a_hundred_at_a_time() {
        let often = Job {
            schedule: Schedule::parse("* * * * *", "UTC").unwrap(),
            catch_up: TimeDelta::zero(),
            ..nightly()
        };
        let mut state = state("03-01 00:00", &["03-01 00:00"]);
        let due = decide(&often, &state, at("03-20 00:00"));
        assert_eq!(due.run.unwrap().slot, at("03-20 00:00"));
        assert_eq!((due.missed.len(), due.more_missed), (100, true));
        assert_eq!(due.missed[99].slot, at("03-01 01:40"));
        state.settle(due.run.unwrap().slot);
        let due = decide(&often, &state, at("03-20 00:00"));
        assert_eq!(
            (due.run, due.missed.len(), due.more_missed),
            (None, 0, false)
        );
    }

    #[test]
    fn what_was_missed_is_told_once_and_runs_if_the_clock_was_wrong() {
        let mut state = state("03-01 12:00", &["03-01 03:00"]);
        let due = decide(&nightly(), &state, at("03-03 12:00"));
        assert_eq!(shown(&due).0, "- 2/0");
        state.told(due.missed[1].slot);
        let due = decide(&nightly(), &state, at("03-03 12:01"));
        assert_eq!(shown(&due).0, "- 0/0");
        let due = decide(&nightly(), &state, at("03-03 04:00"));
        assert_eq!(shown(&due).0, "03-03 03:00! 0/0");
        let due = decide(&nightly(), &state, at("03-04 12:00"));
        assert_eq!(shown(&due).0, "- 1/0");
        // What a clock told that was months ahead hides nothing.
        state.told(at("09-01 03:00"));
        let due = decide(&nightly(), &state, at("03-03 12:00"));
        assert_eq!(shown(&due).0, "- 2/0");
    }

    #[test]
    fn without_catching_up_what_was_not_seen_in_time_is_missed() {
        let strict = Job {
            catch_up: TimeDelta::zero(),
            tolerance: TimeDelta::zero(),
            ..nightly()
        };
        let state = state("03-01 12:00", &[]);
        // Whoever looks once a minute is never later than that.
        let half = TimeDelta::milliseconds(59_500);
        let due = decide(&strict, &state, at("03-02 03:00") + half);
        assert_eq!(shown(&due).0, "03-02 03:00 0/0");
        let due = decide(&strict, &state, at("03-02 03:01") + half);
        assert_eq!(shown(&due).0, "- 1/0");
    }

    #[test]
    fn jitter_delays_a_run_and_its_lateness() {
        let delayed = Job {
            jitter: TimeDelta::minutes(20),
            ..nightly()
        };
        let state = state("03-01 12:00", &[]);
        for (now, due) in [
            ("03-02 03:19", "- 0/0"),
            ("03-02 03:20", "03-02 03:00 0/0"),
            ("03-02 03:25", "03-02 03:00 0/0"),
            ("03-02 03:26", "03-02 03:00! 0/0"),
            ("03-02 05:20", "03-02 03:00! 0/0"),
            ("03-02 05:21", "- 1/0"),
        ] {
            assert_eq!(shown(&decide(&delayed, &state, at(now))).0, due, "{now}");
        }
        let next = decide(&delayed, &state, at("03-01 12:00")).next;
        assert_eq!(next, Some(at("03-02 03:20")));
    }

    #[test]
    fn jitter_is_the_names_own_and_spread() {
        // Another value would move everybody's runs with an update.
        assert_eq!(jitter_of("shop", HOUR), TimeDelta::seconds(1673));
        let names = (0..1000).map(|number| format!("source-{number}"));
        let mut quarters = [0; 4];
        for name in names {
            let jitter = jitter_of(&name, HOUR);
            assert!(
                jitter >= TimeDelta::zero() && jitter < HOUR,
                "{name}: {jitter}"
            );
            quarters[usize::try_from(jitter.num_minutes() / 15).unwrap()] += 1;
        }
        assert!(
            quarters.iter().all(|count| (200..300).contains(count)),
            "{quarters:?}"
        );
        for window in [TimeDelta::zero(), -HOUR, TimeDelta::milliseconds(900)] {
            assert_eq!(jitter_of("shop", window), TimeDelta::zero());
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut state = state("03-01 12:00", &[]);
        for minute in 0..10_000 {
            state.settle(at("03-01 12:00") + TimeDelta::minutes(minute));
        }
        assert_eq!(state.settled.len(), REMEMBERED);
    }
}
