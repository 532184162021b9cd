//! A cron expression in a time zone.

use std::fmt;

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, TimeZone as _, Utc};
use chrono_tz::{GapInfo, Tz};
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};

/// The fields, and what may stand in each of them.
const FIELDS: [(&str, &str); 5] = [
    ("minute", "0-59"),
    ("hour", "0-23"),
    ("day of the month", "1-31, L for the last one"),
    ("month", "1-12 or JAN-DEC"),
    (
        "day of the week",
        "0-7 or SUN-SAT, 5#2 for the second Friday",
    ),
];

const NICKNAMES: [&str; 6] = [
    "@hourly",
    "@daily",
    "@weekly",
    "@monthly",
    "@yearly",
    "@annually",
];

/// An expression that names no times. What was written is not repeated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// It has not the form of one.
    #[error(
        "expected five fields (minute, hour, day of the month, month, day of the week) such as \
         \"0 3 * * *\", or one of {}",
        NICKNAMES.join(", ")
    )]
    Form,
    /// One of its fields is wrong.
    #[error("the {name} is wrong: allowed are {allowed}, with * , - and /")]
    Field {
        /// Which one.
        name: &'static str,
        /// What may stand there.
        allowed: &'static str,
    },
    /// There is no such day.
    #[error("that day never comes")]
    Never,
    /// There is no such zone.
    #[error("there is no such time zone; say one like UTC or Europe/Berlin")]
    Zone,
}

/// The times at which something is to run.
///
/// The expression speaks of the clock on the wall in its zone. Where the hour is `*`, every moment
/// at which the wall shows such a time counts: while the clocks are put back some come twice, as
/// much apart as always, and while they are put on some do not come. With anything else in the
/// hour, each time on the wall counts once: the first of two, and, if it is left out, the first
/// moment after the gap. A day that is left out as a whole has none.
#[derive(Debug, Clone)]
pub struct Schedule {
    text: String,
    cron: Cron,
    zone: Tz,
    every_hour: bool,
}

impl Schedule {
    /// Reads an expression of five fields or a nickname such as `@daily`, and a time zone.
    ///
    /// There are no seconds and no years: a backup is no matter of seconds, and a sixth field
    /// that means something else in every program is refused.
    ///
    /// # Errors
    /// What is wrong and what is allowed.
    pub fn parse(text: &str, zone: &str) -> Result<Self, ScheduleError> {
        let zone = zone.parse().map_err(|_| ScheduleError::Zone)?;
        Self::new(text, zone)
    }

    /// As [`Schedule::parse`], in a zone that is known.
    ///
    /// # Errors
    /// What is wrong and what is allowed.
    pub fn new(text: &str, zone: Tz) -> Result<Self, ScheduleError> {
        let text = text.trim();
        let fields: Vec<&str> = text.split_whitespace().collect();
        let nickname = NICKNAMES.iter().any(|name| name.eq_ignore_ascii_case(text));
        if !nickname && fields.len() != FIELDS.len() {
            return Err(ScheduleError::Form);
        }
        let cron = cron(text).ok_or_else(|| wrong_field(&fields))?;
        let every_hour = (0..24).all(|hour| cron.pattern.hour_match(hour).unwrap_or(false));
        let schedule = Self {
            text: fields.join(" "),
            cron,
            zone,
            every_hour,
        };
        // Whether a day comes does not depend on when that is asked.
        match schedule.wall_after(NaiveDateTime::default()) {
            Some(_) => Ok(schedule),
            None => Err(ScheduleError::Never),
        }
    }

    /// Where its clock hangs.
    #[must_use]
    pub fn zone(&self) -> Tz {
        self.zone
    }

    /// In words.
    #[must_use]
    pub fn describe(&self) -> String {
        let text = self.cron.describe();
        text.trim_end_matches('.').to_owned()
    }

    /// The first slot after a moment; `None` only at the end of the calendar.
    #[must_use]
    pub fn next_after(&self, moment: DateTime<Utc>) -> Option<DateTime<Utc>> {
        // Slots have no fractions of a second.
        let moment = DateTime::from_timestamp(moment.timestamp(), 0)?;
        let local = moment.with_timezone(&self.zone);
        if self.every_hour {
            let next = self.cron.find_next_occurrence(&local, false).ok()?;
            return Some(next.with_timezone(&Utc));
        }
        // No time that the wall has already shown comes later. In the hour that comes twice,
        // times that it will show again have passed.
        let mut wall = local.naive_local();
        loop {
            wall = self.wall_after(wall)?;
            let shown = self.zone.from_local_datetime(&wall).earliest();
            let slot = match shown {
                Some(shown) => shown,
                None if self.never_was(wall.date()) => continue,
                None => GapInfo::new(&wall, &self.zone)?.end?,
            };
            if slot > moment {
                return Some(slot.with_timezone(&Utc));
            }
        }
    }

    /// The slots after `from`, up to and with `to`, one after the other.
    #[must_use]
    pub fn slots(&self, from: DateTime<Utc>, to: DateTime<Utc>) -> Slots<'_> {
        Slots {
            schedule: self,
            after: from,
            to,
        }
    }

    fn wall_after(&self, wall: NaiveDateTime) -> Option<NaiveDateTime> {
        self.cron.find_next_occurrence(&wall, false).ok()
    }

    /// Whether the zone left out a whole day, as those do that move over the date line. Nobody misses its
    /// run, and the next day has one of its own.
    fn never_was(&self, day: NaiveDate) -> bool {
        let first = day.and_time(NaiveTime::MIN);
        let gap = GapInfo::new(&first, &self.zone);
        let end = gap.and_then(|gap| Some(gap.end?.naive_local()));
        end.is_some_and(|end| end.date() > day)
    }
}

impl PartialEq for Schedule {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text && self.zone == other.zone
    }
}

impl Eq for Schedule {}

/// As it was written.
impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What [`Schedule::slots`] gives.
#[derive(Debug, Clone)]
pub struct Slots<'a> {
    schedule: &'a Schedule,
    after: DateTime<Utc>,
    to: DateTime<Utc>,
}

impl Iterator for Slots<'_> {
    type Item = DateTime<Utc>;

    fn next(&mut self) -> Option<Self::Item> {
        let slot = self.schedule.next_after(self.after)?;
        if slot > self.to {
            return None;
        }
        self.after = slot;
        Some(slot)
    }
}

fn cron(text: &str) -> Option<Cron> {
    // The parser takes nothing between commas for no times.
    let mut items = text.split_whitespace().flat_map(|field| field.split(','));
    if items.any(str::is_empty) {
        return None;
    }
    let parser = CronParser::builder()
        .seconds(Seconds::Disallowed)
        .year(Year::Disallowed)
        .build();
    parser.parse(text).ok()
}

/// Which field cannot stand even alone.
fn wrong_field(fields: &[&str]) -> ScheduleError {
    for (index, (field, (name, allowed))) in fields.iter().zip(FIELDS).enumerate() {
        let mut alone = ["*"; FIELDS.len()];
        alone[index] = field;
        if cron(&alone.join(" ")).is_none() {
            return ScheduleError::Field { name, allowed };
        }
    }
    ScheduleError::Form
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(text: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
        let schedule = Schedule::parse(text, zone).unwrap();
        let after = after.parse().unwrap();
        let slots = schedule.slots(after, DateTime::<Utc>::MAX_UTC).take(count);
        let form = |slot: DateTime<Utc>| slot.format("%m-%d %H:%M").to_string();
        slots.map(form).collect()
    }

    /// An expression, a moment, and what follows it.
    const EXPRESSIONS: &[(&str, &str, [&str; 2])] = &[
        (
            "0 3 * * *",
            "2026-01-31T03:00:00Z",
            ["02-01 03:00", "02-02 03:00"],
        ),
        (
            "0 3 * * *",
            "2026-01-31T02:59:59Z",
            ["01-31 03:00", "02-01 03:00"],
        ),
        (
            "*/15 * * * *",
            "2026-01-31T23:40:00Z",
            ["01-31 23:45", "02-01 00:00"],
        ),
        (
            "0 2 * * 0",
            "2026-01-31T00:00:00Z",
            ["02-01 02:00", "02-08 02:00"],
        ),
        (
            "0 2 * * 7",
            "2026-01-31T00:00:00Z",
            ["02-01 02:00", "02-08 02:00"],
        ),
        (
            "0 2 * * sun",
            "2026-01-31T00:00:00Z",
            ["02-01 02:00", "02-08 02:00"],
        ),
        (
            "0 2 31 * *",
            "2026-01-31T02:00:00Z",
            ["03-31 02:00", "05-31 02:00"],
        ),
        (
            "0 2 L * *",
            "2026-01-31T02:00:00Z",
            ["02-28 02:00", "03-31 02:00"],
        ),
        (
            "0 2 29 2 *",
            "2026-01-31T00:00:00Z",
            ["02-29 02:00", "02-29 02:00"],
        ),
        (
            "30 2,14 * * 1-5",
            "2026-01-30T14:30:00Z",
            ["02-02 02:30", "02-02 14:30"],
        ),
        (
            "@hourly",
            "2026-01-31T23:40:00Z",
            ["02-01 00:00", "02-01 01:00"],
        ),
        (
            "@daily",
            "2026-01-31T23:40:00Z",
            ["02-01 00:00", "02-02 00:00"],
        ),
        (
            "@Weekly",
            "2026-01-31T23:40:00Z",
            ["02-01 00:00", "02-08 00:00"],
        ),
        (
            "  @monthly ",
            "2026-01-31T23:40:00Z",
            ["02-01 00:00", "03-01 00:00"],
        ),
        (
            "@yearly",
            "2026-01-31T23:40:00Z",
            ["01-01 00:00", "01-01 00:00"],
        ),
    ];

    #[test]
    fn each_expression_gives_its_times() {
        for &(text, after, slots) in EXPRESSIONS {
            assert_eq!(next(text, "UTC", after, 2), slots, "{text} after {after}");
        }
    }

    #[test]
    fn a_wrong_expression_is_refused_with_what_is_allowed_and_not_repeated() {
        for (text, zone, says) in [
            ("", "UTC", "expected five fields"),
            ("0 3 * *", "UTC", "expected five fields"),
            ("0 0 3 * * *", "UTC", "expected five fields"),
            ("0 0 3 * * * 2026", "UTC", "expected five fields"),
            ("@reboot", "UTC", "@daily, @weekly"),
            ("every night", "UTC", "expected five fields"),
            (
                "hunter2 3 * * *",
                "UTC",
                "the minute is wrong: allowed are 0-59",
            ),
            ("60 3 * * *", "UTC", "the minute is wrong"),
            ("0 24 * * *", "UTC", "the hour is wrong: allowed are 0-23"),
            (
                "0 3 32 * *",
                "UTC",
                "the day of the month is wrong: allowed are 1-31",
            ),
            ("0 3 0 * *", "UTC", "the day of the month is wrong"),
            (
                "0 3 * 13 *",
                "UTC",
                "the month is wrong: allowed are 1-12 or JAN-DEC",
            ),
            (
                "0 3 * * 8",
                "UTC",
                "the day of the week is wrong: allowed are 0-7",
            ),
            ("0 3 * * -1", "UTC", "the day of the week is wrong"),
            ("*/0 3 * * *", "UTC", "the minute is wrong"),
            // Nothing in a list is a slip, and would be no time at all.
            (", 3 * * *", "UTC", "the minute is wrong"),
            ("30 , * * *", "UTC", "the hour is wrong"),
            ("30 1, * * *", "UTC", "the hour is wrong"),
            ("30 1,,2 * * *", "UTC", "the hour is wrong"),
            ("0 3 , * *", "UTC", "the day of the month is wrong"),
            ("0 3 30 2 *", "UTC", "that day never comes"),
            (
                "0 3 * * *",
                "Europe/Berlni",
                "say one like UTC or Europe/Berlin",
            ),
            ("0 3 * * *", "", "there is no such time zone"),
        ] {
            let error = Schedule::parse(text, zone).unwrap_err().to_string();
            assert!(error.contains(says), "{text:?}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    /// An expression, a zone, a moment, and what follows it.
    const NIGHTS: &[(&str, &str, &str, [&str; 2])] = &[
        // 02:00 to 03:00 is left out on 29 March; 03:00 comes twice, from 02:00, on 25 October.
        (
            "30 2 * * *",
            "Europe/Berlin",
            "2026-03-28T12:00:00Z",
            ["03-29 01:00", "03-30 00:30"],
        ),
        (
            "30 2,14 * * *",
            "Europe/Berlin",
            "2026-03-28T22:00:00Z",
            ["03-29 01:00", "03-29 12:30"],
        ),
        (
            "0,30 2 * * *",
            "Europe/Berlin",
            "2026-03-28T12:00:00Z",
            ["03-29 01:00", "03-30 00:00"],
        ),
        (
            "0 2,3 * * *",
            "Europe/Berlin",
            "2026-03-28T12:00:00Z",
            ["03-29 01:00", "03-30 00:00"],
        ),
        (
            "30 2 * * *",
            "Europe/Berlin",
            "2026-10-24T12:00:00Z",
            ["10-25 00:30", "10-26 01:30"],
        ),
        (
            "30 2,14 * * *",
            "Europe/Berlin",
            "2026-10-24T22:00:00Z",
            ["10-25 00:30", "10-25 13:30"],
        ),
        // Asked again between the two.
        (
            "30 2 * * *",
            "Europe/Berlin",
            "2026-10-25T00:45:00Z",
            ["10-26 01:30", "10-27 01:30"],
        ),
        (
            "45 2 * * *",
            "Europe/Berlin",
            "2026-10-25T01:15:00Z",
            ["10-26 01:45", "10-27 01:45"],
        ),
        // What runs every hour is left out with its hour, and runs in both.
        (
            "30 * * * *",
            "Europe/Berlin",
            "2026-03-29T00:00:00Z",
            ["03-29 00:30", "03-29 01:30"],
        ),
        (
            "30 * * * *",
            "Europe/Berlin",
            "2026-10-25T00:00:00Z",
            ["10-25 00:30", "10-25 01:30"],
        ),
        // Half an hour, and a midnight that is left out.
        (
            "15 2 * * *",
            "Australia/Lord_Howe",
            "2026-10-03T12:00:00Z",
            ["10-03 15:30", "10-04 15:15"],
        ),
        // A whole day is left out: the 30th of December 2011.
        (
            "30 2 * * *",
            "Pacific/Apia",
            "2011-12-29T00:00:00Z",
            ["12-29 12:30", "12-30 12:30"],
        ),
        (
            "0 0 * * *",
            "America/Sao_Paulo",
            "2018-11-03T12:00:00Z",
            ["11-04 03:00", "11-05 02:00"],
        ),
    ];

    #[test]
    fn the_nights_in_which_clocks_are_changed() {
        for &(text, zone, after, slots) in NIGHTS {
            assert_eq!(next(text, zone, after, 2), slots, "{text} {zone} {after}");
        }
    }

    #[test]
    fn it_tells_what_it_is() {
        let schedule = Schedule::parse(" 0  3 * * 1-5", "Asia/Kathmandu").unwrap();
        assert_eq!(schedule.to_string(), "0 3 * * 1-5");
        assert_eq!(schedule.zone(), Tz::Asia__Kathmandu);
        assert_eq!(
            schedule.describe(),
            "At 03:00, on Monday, Tuesday, Wednesday, Thursday, and Friday"
        );
        assert_eq!(
            schedule,
            Schedule::parse("0 3 * * 1-5", "Asia/Kathmandu").unwrap()
        );
        assert_ne!(schedule, Schedule::parse("0 3 * * 1-5", "UTC").unwrap());
    }
}
