//! The days of some months, with the backups that were taken on them.

use chrono::{DateTime, Datelike as _, Days, Months, NaiveDate, Utc};
use chrono_tz::Tz;

use super::words::Words;
use backup_app::ListView;

/// A month, in weeks that begin on Monday.
pub(super) struct Month {
    pub(super) title: String,
    pub(super) weeks: Vec<Vec<Day>>,
}

/// A day, or the room of one that belongs to another month.
#[derive(Default)]
pub(super) struct Day {
    pub(super) number: u32,
    /// For what its backups are kept.
    pub(super) marks: String,
    /// The same in words, for those who do not see the letters.
    pub(super) label: String,
    /// Its newest backup.
    pub(super) backup: String,
    pub(super) is_today: bool,
}

/// A backup on the clock of its source.
struct Taken<'a> {
    on: NaiveDate,
    view: &'a ListView,
}

/// The last months, the newest first. `backups` come newest first too.
pub(super) fn months<'a>(
    w: &Words,
    backups: impl Iterator<Item = &'a ListView>,
    (now, zone): (DateTime<Utc>, Tz),
    count: u32,
) -> Vec<Month> {
    let taken = backups.filter_map(|view| {
        let at: DateTime<Utc> = view.started_at.parse().ok()?;
        let on = at.with_timezone(&zone).date_naive();
        Some(Taken { on, view })
    });
    let taken: Vec<_> = taken.collect();
    let today = now.with_timezone(&zone).date_naive();
    let first = today.with_day(1).unwrap_or(today);
    let starts = (0..count).filter_map(|back| first.checked_sub_months(Months::new(back)));
    starts.map(|first| month(w, first, today, &taken)).collect()
}

fn month(w: &Words, first: NaiveDate, today: NaiveDate, taken: &[Taken<'_>]) -> Month {
    let before = first.weekday().num_days_from_monday();
    let mut days: Vec<Day> = (0..before).map(|_| Day::default()).collect();
    let dates = (0..31).map_while(|number| first.checked_add_days(Days::new(number)));
    for date in dates.take_while(|date| date.month() == first.month()) {
        let own = taken
            .iter()
            .filter(|one| one.on == date)
            .map(|one| one.view);
        days.push(Day {
            is_today: date == today,
            ..day(w, date.day(), own)
        });
    }
    let mut weeks = Vec::new();
    while !days.is_empty() {
        let rest = days.split_off(days.len().min(7));
        days.resize_with(7, Day::default);
        weeks.push(std::mem::replace(&mut days, rest));
    }
    let name = w.months[first.month0() as usize];
    Month {
        title: format!("{name} {}", first.year()),
        weeks,
    }
}

fn day<'a>(w: &Words, number: u32, backups: impl Iterator<Item = &'a ListView>) -> Day {
    let mut day = Day {
        number,
        ..Day::default()
    };
    let letters = w.tier_letters.split(' ');
    let tiers: Vec<_> = ["daily", "weekly", "monthly", "yearly"]
        .into_iter()
        .zip(letters)
        .collect();
    let (mut kept, mut count, mut pinned) = (Vec::new(), 0, false);
    let mut bad = Vec::new();
    for view in backups {
        if count == 0 {
            day.backup.clone_from(&view.id);
        }
        count += 1;
        pinned |= view.pinned;
        kept.extend(&view.tiers);
        if view.status != "success" && !bad.contains(&view.status) {
            bad.push(view.status);
        }
    }
    if count == 0 {
        return day;
    }
    let mut words = vec![w.counted(count, w.n_backups)];
    for (tier, letter) in tiers {
        if kept.iter().any(|kept| *kept == tier) {
            day.marks.push_str(letter);
            words.push(w.tier(tier).to_owned());
        }
    }
    if day.marks.is_empty() {
        day.marks.push('●');
    }
    for status in bad {
        let chip = w.chip(status);
        day.marks.push_str(chip.symbol);
        words.push(chip.word);
    }
    if pinned {
        day.marks.push('★');
        words.push(w.pinned.to_owned());
    }
    day.label = words.join(", ");
    day
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(id: &str, started_at: &str, tiers: &[&str]) -> ListView {
        ListView {
            content: backup_core::manifest::Content::Database,
            id: id.to_owned(),
            source: "shop".to_owned(),
            database: "shop".to_owned(),
            started_at: started_at.to_owned(),
            raw_bytes: 0,
            stored_bytes: 0,
            status: "success",
            filtered: false,
            encrypted: false,
            pinned: id == "b",
            tiers: tiers.iter().map(|&tier| tier.to_owned()).collect(),
            retention_until: None,
            is_kept: None,
            verified_at: None,
            verified_level: None,
            drilled_at: None,
            drill_status: None,
            destinations: Vec::new(),
        }
    }

    #[test]
    fn a_day_whose_backup_is_damaged_does_not_look_good() {
        let now = "2026-03-02T00:00:00Z".parse().unwrap();
        let damaged = ListView {
            status: "failed",
            ..view("a", "2026-03-01T12:00:00Z", &["daily"])
        };
        let months = months(Words::all()[0], [damaged].iter(), (now, Tz::UTC), 1);
        let mut days = months[0].weeks.iter().flatten();
        let day = days.find(|day| !day.backup.is_empty()).unwrap();
        let shown = (day.marks.as_str(), day.label.as_str());
        assert_eq!(shown, ("D✗", "1 backup, daily, failed"));
    }

    #[test]
    fn a_backup_is_on_the_day_that_its_clock_showed() {
        let w = Words::all()[0];
        let backups = [
            view("c", "2026-02-28T23:30:00Z", &["yearly", "daily"]),
            view("b", "2026-02-03T12:00:00Z", &["weekly"]),
            view("a", "2026-02-03T01:00:00Z", &[]),
            view("0", "2026-01-31T12:00:00Z", &[]),
        ];
        let now = "2026-03-02T00:00:00Z".parse().unwrap();
        let months = months(w, backups.iter(), (now, chrono_tz::Europe::Berlin), 3);
        let titles: Vec<_> = months.iter().map(|month| month.title.as_str()).collect();
        assert_eq!(titles, ["March 2026", "February 2026", "January 2026"]);
        let found = months.iter().flat_map(|month| month.weeks.iter().flatten());
        let found: Vec<_> = found
            .filter(|day| !day.backup.is_empty())
            .map(|day| (day.number, day.marks.as_str(), day.label.as_str()))
            .collect();
        let expected = [
            (1, "DY", "1 backup, daily, yearly"),
            (3, "W★", "2 backups, weekly, pinned"),
            (31, "●", "1 backup"),
        ];
        assert_eq!(found, expected);
        // 1 March 2026 was a Sunday.
        let first: Vec<_> = months[0].weeks[0].iter().map(|day| day.number).collect();
        assert_eq!(first, [0, 0, 0, 0, 0, 0, 1]);
        assert!(
            months
                .iter()
                .all(|month| month.weeks.iter().all(|week| week.len() == 7))
        );
        assert!(months[0].weeks[1][0].is_today);
    }
}
