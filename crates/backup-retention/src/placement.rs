//! Which backups belong where, when a place is for some tiers only.

use std::collections::BTreeSet;

use backup_core::retention::{Candidate, Extent, Tier};
use chrono::{DateTime, Utc};
use chrono_tz::Tz;

use crate::{oldest_first, period};

/// A place that gets the first good backup of each day, week, month or year.
///
/// What fills a period there is what lies there: when the place was out of reach on Monday, the week
/// gets Tuesday's backup, and then no other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    tiers: Vec<Tier>,
    zone: Tz,
}

/// A period, and how much what stands for it has: only the same stands for it.
type Slot = (Extent, Tier, i32);

impl Placement {
    /// A place for these tiers; midnight is that of `zone`.
    #[must_use]
    pub fn new(tiers: impl IntoIterator<Item = Tier>, zone: Tz) -> Self {
        let mut tiers: Vec<_> = tiers.into_iter().collect();
        tiers.sort_unstable();
        tiers.dedup();
        Self { tiers, zone }
    }

    /// The shortest of its tiers.
    #[must_use]
    pub fn shortest(&self) -> Option<Tier> {
        self.tiers.first().copied()
    }

    /// The indices of those of `offered` that belong to a place which has `there`, oldest first:
    /// the first good one of each period of which no good one is there.
    #[must_use]
    pub fn lacking(&self, offered: &[Candidate], there: &[Candidate]) -> Vec<usize> {
        let good = there.iter().filter(|candidate| !candidate.damaged);
        let mut filled: BTreeSet<Slot> = good.flat_map(|c| self.slots(c)).collect();
        let mut lacking = Vec::new();
        for index in oldest_first(offered) {
            let candidate = &offered[index];
            let is_there = there.iter().any(|c| c.id == candidate.id && !c.damaged);
            if candidate.damaged || is_there {
                continue;
            }
            let slots: Vec<_> = self.slots(candidate).collect();
            if slots.iter().any(|slot| !filled.contains(slot)) {
                lacking.push(index);
                filled.extend(slots);
            }
        }
        lacking
    }

    /// The periods of a moment, by the names that people give them.
    #[must_use]
    pub fn periods(&self, at: DateTime<Utc>) -> String {
        let day = at.with_timezone(&self.zone).date_naive();
        let name = |tier: &Tier| format!("{} {}", tier.as_str(), period::name(*tier, day));
        let names: Vec<_> = self.tiers.iter().map(name).collect();
        names.join(" and ")
    }

    fn slots(&self, candidate: &Candidate) -> impl Iterator<Item = Slot> {
        let started = candidate.id.started_at();
        let day = started.with_timezone(&self.zone).date_naive();
        let slot = move |tier: &Tier| (candidate.extent, *tier, period::number(*tier, day));
        self.tiers.iter().map(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backup(day: &str) -> Candidate {
        let day = day.replace('-', "");
        Candidate::new(format!("{day}T030000Z-0000").parse().unwrap())
    }

    fn backups(days: &[&str]) -> Vec<Candidate> {
        days.iter().map(|day| backup(day)).collect()
    }

    fn weekly_and_monthly() -> Placement {
        Placement::new([Tier::Monthly, Tier::Weekly], Tz::UTC)
    }

    fn lacking(offered: &[Candidate], there: &[Candidate]) -> Vec<String> {
        let lacking = weekly_and_monthly().lacking(offered, there);
        let day = |index: usize| offered[index].id.started_at().date_naive().to_string();
        lacking.into_iter().map(day).collect()
    }

    #[test]
    fn the_first_of_each_week_and_month_belongs_there() {
        let days = [
            "2026-01-26",
            "2026-01-27",
            "2026-01-31",
            "2026-02-01",
            "2026-02-02",
            "2026-02-03",
            // A Monday was missed.
            "2026-02-10",
            "2026-02-11",
        ];
        let expected = ["2026-01-26", "2026-02-01", "2026-02-02", "2026-02-10"];
        assert_eq!(lacking(&backups(&days), &[]), expected);
        // One after the other, as they are taken, gives the same.
        let mut there = Vec::new();
        for day in days {
            if !lacking(&[backup(day)], &there).is_empty() {
                there.push(backup(day));
            }
        }
        assert_eq!(there, backups(&expected));
        assert_eq!(lacking(&backups(&days), &there), Vec::<String>::new());
    }

    #[test]
    fn what_lies_there_fills_the_period() {
        // Monday's never came, Tuesday's did.
        let there = backups(&["2026-02-10"]);
        let offered = backups(&["2026-02-09", "2026-02-10", "2026-02-11", "2026-02-16"]);
        assert_eq!(lacking(&offered, &there), ["2026-02-16"]);
        let mut damaged = there.clone();
        damaged[0].damaged = true;
        assert_eq!(lacking(&offered, &damaged), ["2026-02-09", "2026-02-16"]);
    }

    #[test]
    fn a_filtered_one_stands_for_no_whole_one_and_a_damaged_one_for_nothing() {
        let mut offered = backups(&["2026-02-09", "2026-02-10", "2026-02-11"]);
        offered[0].extent = Extent::Part;
        offered[1].damaged = true;
        assert_eq!(lacking(&offered, &[]), ["2026-02-09", "2026-02-11"]);
    }

    #[test]
    fn days_are_those_of_the_zone() {
        let zone = Tz::Pacific__Kiritimati;
        let daily = Placement::new([Tier::Daily], zone);
        let id = |text: &str| Candidate::new(text.parse().unwrap());
        // Noon in UTC is two in the morning of the next day there.
        let [one, other] = ["20260205T090000Z-0000", "20260205T120000Z-0000"].map(id);
        let both = [one, other];
        assert_eq!(daily.lacking(&both, &[]), [0, 1]);
        assert_eq!(
            Placement::new([Tier::Daily], Tz::UTC).lacking(&both, &[]),
            [0]
        );
        let at = both[1].id.started_at();
        assert_eq!(daily.periods(at), "daily 2026-02-06");
        assert_eq!(
            weekly_and_monthly().periods(at),
            "weekly 2026-W06 and monthly 2026-02"
        );
        assert_eq!(weekly_and_monthly().shortest(), Some(Tier::Weekly));
    }
}
