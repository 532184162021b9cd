//! Days, weeks, months and years of a time zone, as numbers that follow each other.

use backup_core::retention::Tier;
use chrono::{DateTime, Datelike as _, NaiveDate, TimeDelta, TimeZone as _, Utc};
use chrono_tz::Tz;

/// The number of the period in which a day lies.
pub(crate) fn number(tier: Tier, day: NaiveDate) -> i32 {
    match tier {
        Tier::Daily => day.num_days_from_ce(),
        // Day 1 of the calendar, 0001-01-01, was a Monday.
        Tier::Weekly => (day.num_days_from_ce() - 1).div_euclid(7),
        Tier::Monthly => day.year() * 12 + day.month0().cast_signed(),
        Tier::Yearly => day.year(),
    }
}

/// What people call the period in which a day lies.
pub(crate) fn name(tier: Tier, day: NaiveDate) -> String {
    let form = match tier {
        Tier::Daily => "%Y-%m-%d",
        // The year of the week, which is not always that of the day.
        Tier::Weekly => "%G-W%V",
        Tier::Monthly => "%Y-%m",
        Tier::Yearly => "%Y",
    };
    day.format(form).to_string()
}

/// When the period of that number begins; `None` beyond the calendar.
pub(crate) fn start(tier: Tier, number: i32, zone: Tz) -> Option<DateTime<Utc>> {
    let day = match tier {
        Tier::Daily => NaiveDate::from_num_days_from_ce_opt(number)?,
        Tier::Weekly => {
            NaiveDate::from_num_days_from_ce_opt(number.checked_mul(7)?.checked_add(1)?)?
        }
        Tier::Monthly => {
            let month = u32::try_from(number.rem_euclid(12)).ok()?;
            NaiveDate::from_ymd_opt(number.div_euclid(12), month + 1, 1)?
        }
        Tier::Yearly => NaiveDate::from_ymd_opt(number, 1, 1)?,
    };
    let midnight = day.and_hms_opt(0, 0, 0)?;
    let local = zone.from_local_datetime(&midnight).earliest();
    // Some zones put their clocks on at midnight, and that day begins later; some once left out a whole day,
    // which then is where the next one begins.
    let local = local.or_else(|| {
        let mut later =
            (1..=24).filter_map(|hour| midnight.checked_add_signed(TimeDelta::hours(hour)));
        later.find_map(|time| zone.from_local_datetime(&time).earliest())
    });
    local.map(|time| time.with_timezone(&Utc))
}

/// When the period begins that is so many after the one of that number; `None` beyond the calendar. Days that the
/// zone left out do not count.
pub(crate) fn start_after(tier: Tier, number: i32, more: i32, zone: Tz) -> Option<DateTime<Utc>> {
    let later = number.checked_add(more)?;
    let begins = start(tier, later, zone)?;
    if tier != Tier::Daily {
        return Some(begins);
    }
    // Other changes of clocks are of a few hours.
    let passed = begins - start(tier, number, zone)? + TimeDelta::hours(12);
    let left_out = i64::from(more).checked_sub(passed.num_days())?;
    let left_out = i32::try_from(left_out.max(0)).ok()?;
    start(tier, later.checked_add(left_out)?, zone)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(text: &str) -> NaiveDate {
        text.parse().unwrap()
    }

    #[test]
    fn weeks_are_those_of_iso_8601_also_at_new_year() {
        for (one, name_of_both, other) in [
            ("2024-12-30", "2025-W01", "2025-01-05"),
            ("2026-12-28", "2026-W53", "2027-01-03"),
            ("2027-01-01", "2026-W53", "2026-12-31"),
            ("2021-01-01", "2020-W53", "2021-01-03"),
            ("2027-01-04", "2027-W01", "2027-01-10"),
        ] {
            let (one, other) = (day(one), day(other));
            assert_eq!(name(Tier::Weekly, one), name_of_both);
            assert_eq!(name(Tier::Weekly, other), name_of_both);
            assert_eq!(number(Tier::Weekly, one), number(Tier::Weekly, other));
        }
        let (sunday, monday) = (day("2027-01-03"), day("2027-01-04"));
        let next = number(Tier::Weekly, sunday) + 1;
        assert_eq!(number(Tier::Weekly, monday), next);
    }

    #[test]
    fn a_number_has_one_name_and_one_beginning() {
        let mut today = day("2019-12-25");
        while today < day("2028-02-01") {
            for tier in [Tier::Daily, Tier::Weekly, Tier::Monthly, Tier::Yearly] {
                let number = number(tier, today);
                let begins = start(tier, number, Tz::UTC).unwrap().date_naive();
                assert!(begins <= today, "{today}");
                assert_eq!(super::number(tier, begins), number, "{today}");
                assert_eq!(name(tier, begins), name(tier, today));
                let before = begins.pred_opt().unwrap();
                assert_eq!(super::number(tier, before), number - 1, "{today}");
            }
            today = today.succ_opt().unwrap();
        }
    }

    #[test]
    fn a_day_whose_midnight_is_left_out_begins_later() {
        let gap = day("2018-11-04");
        let number = number(Tier::Daily, gap);
        let zone = Tz::America__Sao_Paulo;
        let begins = start(Tier::Daily, number, zone).unwrap();
        assert_eq!(begins.to_rfc3339(), "2018-11-04T03:00:00+00:00");
        assert_eq!(begins.with_timezone(&zone).date_naive(), gap);
        assert_eq!(start(Tier::Yearly, i32::MAX, zone), None);
    }

    /// Samoa went to the other side of the date line: after the 29th came the 31st.
    #[test]
    fn a_day_that_was_left_out_is_no_period() {
        let zone = Tz::Pacific__Apia;
        let number = number(Tier::Daily, day("2011-12-28"));
        let begins = |more| start_after(Tier::Daily, number, more, zone).unwrap();
        let local = |more| begins(more).with_timezone(&zone).naive_local().to_string();
        assert_eq!(local(1), "2011-12-29 00:00:00");
        assert_eq!(local(2), "2011-12-31 00:00:00");
        assert_eq!(local(3), "2012-01-01 00:00:00");
        assert_eq!(local(100), "2012-04-07 00:00:00");
        assert_eq!(start(Tier::Daily, number + 2, zone), Some(begins(2)));
        assert_eq!(start_after(Tier::Daily, number, i32::MAX, zone), None);
    }
}
