//! The times that a cron expression means, for those who say them otherwise.

use std::collections::BTreeSet;
use std::fmt::Write as _;

const NICKNAMES: [(&str, &str); 6] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];
const MONTHS: [&str; 12] = [
    "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC",
];
const WEEKDAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];

/// One field of an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Field {
    /// Whether it was a bare `*`: it makes a difference between the two fields of days.
    any: bool,
    values: BTreeSet<u8>,
}

/// An expression as sets of numbers. The last day of a month, the nearest working day and the second Friday
/// are none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calendar {
    minutes: Field,
    hours: Field,
    days: Field,
    months: Field,
    weekdays: Field,
}

impl Calendar {
    /// Reads an expression that was found good before; none if it has more in it than sets.
    #[must_use]
    pub fn parse(expression: &str) -> Option<Self> {
        let nickname = NICKNAMES
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(expression));
        let text = nickname.map_or(expression, |(_, text)| text);
        let fields: Vec<_> = text.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields.as_slice() else {
            return None;
        };
        let mut weekdays = Field::parse(weekdays, (0, 7), &WEEKDAYS, 0)?;
        if weekdays.values.remove(&7) {
            weekdays.values.insert(0);
        }
        Some(Self {
            minutes: Field::parse(minutes, (0, 59), &[], 0)?,
            hours: Field::parse(hours, (0, 23), &[], 0)?,
            days: Field::parse(days, (1, 31), &[], 0)?,
            months: Field::parse(months, (1, 12), &MONTHS, 1)?,
            weekdays,
        })
    }

    /// In five fields of numbers, ranges and lists, which every program reads alike. Steps of `*` are
    /// spelled out: where both fields of days are limited, programs differ in what `*/2` means.
    #[must_use]
    pub fn cron(&self) -> String {
        let fields = [
            &self.minutes,
            &self.hours,
            &self.days,
            &self.months,
            &self.weekdays,
        ];
        let texts: Vec<_> = fields.iter().map(|field| field.cron()).collect();
        texts.join(" ")
    }

    /// As systemd says it: two lines where either field of days is enough.
    #[must_use]
    pub fn systemd(&self, zone: &str) -> Vec<String> {
        let both = !self.days.any && !self.weekdays.any;
        let line = |with_days: bool, with_weekdays: bool| {
            let mut line = String::new();
            if with_weekdays && !self.weekdays.any {
                let names = self.weekdays.values.iter();
                let names: Vec<_> = names.map(|day| WEEKDAYS[usize::from(*day)]).collect();
                line += &names.join(",");
                line.push(' ');
            }
            let days = if with_days {
                self.days.padded()
            } else {
                "*".to_owned()
            };
            let (months, hours) = (self.months.padded(), self.hours.padded());
            let minutes = self.minutes.padded();
            // A string takes whatever is written to it.
            let _ = write!(line, "*-{months}-{days} {hours}:{minutes}:00 {zone}");
            line
        };
        if both {
            vec![line(true, false), line(false, true)]
        } else {
            vec![line(true, true)]
        }
    }
}

impl Field {
    fn parse(text: &str, (low, high): (u8, u8), names: &[&str], first: u8) -> Option<Self> {
        let number = |text: &str| -> Option<u8> {
            let known = names
                .iter()
                .position(|name| name.eq_ignore_ascii_case(text));
            let value = match known {
                Some(index) => u8::try_from(index).ok()? + first,
                None => text.parse().ok()?,
            };
            (low..=high).contains(&value).then_some(value)
        };
        let mut values = BTreeSet::new();
        for item in text.split(',') {
            let (range, step) = match item.split_once('/') {
                Some((range, step)) => (range, step.parse().ok().filter(|step| *step > 0)?),
                None => (item, 1),
            };
            let (from, to) = match (range, range.split_once('-')) {
                // Sunday has two numbers.
                ("*", _) => (low, if high == 7 { 6 } else { high }),
                (_, Some((from, to))) => (number(from)?, number(to)?),
                (one, None) => (number(one)?, number(one)?),
            };
            values.extend((from..=to).step_by(step));
        }
        (!values.is_empty()).then(|| Self {
            any: text == "*",
            values,
        })
    }

    fn cron(&self) -> String {
        if self.any {
            return "*".to_owned();
        }
        let mut ranges: Vec<(u8, u8)> = Vec::new();
        for &value in &self.values {
            match ranges.last_mut() {
                Some((_, to)) if *to + 1 == value => *to = value,
                _ => ranges.push((value, value)),
            }
        }
        let texts = ranges.iter().map(|(from, to)| match to - from {
            0 => from.to_string(),
            1 => format!("{from},{to}"),
            _ => format!("{from}-{to}"),
        });
        texts.collect::<Vec<_>>().join(",")
    }

    fn padded(&self) -> String {
        if self.any {
            return "*".to_owned();
        }
        let texts: Vec<_> = self
            .values
            .iter()
            .map(|value| format!("{value:02}"))
            .collect();
        texts.join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_expression_is_said_in_both_forms() {
        for (text, cron, systemd) in [
            ("0 3 * * *", "0 3 * * *", vec!["*-*-* 03:00:00 UTC"]),
            ("@daily", "0 0 * * *", vec!["*-*-* 00:00:00 UTC"]),
            (
                "*/15 * * * *",
                "0,15,30,45 * * * *",
                vec!["*-*-* *:00,15,30,45:00 UTC"],
            ),
            (
                "30 2,14 * * 1-5",
                "30 2,14 * * 1-5",
                vec!["Mon,Tue,Wed,Thu,Fri *-*-* 02,14:30:00 UTC"],
            ),
            ("0 2 * * 7", "0 2 * * 0", vec!["Sun *-*-* 02:00:00 UTC"]),
            (
                "0 2 * JAN-mar sun,TUE",
                "0 2 * 1-3 0,2",
                vec!["Sun,Tue *-01,02,03-* 02:00:00 UTC"],
            ),
            (
                "5 4 1,15 * 1",
                "5 4 1,15 * 1",
                vec!["*-*-01,15 04:05:00 UTC", "Mon *-*-* 04:05:00 UTC"],
            ),
            ("0 0 29 2 *", "0 0 29 2 *", vec!["*-02-29 00:00:00 UTC"]),
            (
                "10-30/10 8-10 * * 5-7",
                "10,20,30 8-10 * * 0,5,6",
                vec!["Sun,Fri,Sat *-*-* 08,09,10:10,20,30:00 UTC"],
            ),
        ] {
            let calendar = Calendar::parse(text).unwrap();
            assert_eq!(calendar.cron(), cron, "{text}");
            assert_eq!(calendar.systemd("UTC"), systemd, "{text}");
        }
    }

    #[test]
    fn what_sets_cannot_say_is_not_said() {
        for text in [
            "0 2 L * *",
            "0 2 * * 5#2",
            "0 2 15W * *",
            "0 2 * * 5L",
            "0 3 * *",
            "0 3 ? * *",
            "61 * * * *",
        ] {
            assert_eq!(Calendar::parse(text), None, "{text}");
        }
    }
}
