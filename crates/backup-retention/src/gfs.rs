//! Grandfather, father, son: one backup for each day, week, month and year.

use backup_core::retention::{Candidate, Count, KeepReason, RetentionPolicy, Tier, Verdict};
use chrono::{DateTime, NaiveDate, Utc};
use chrono_tz::Tz;

use crate::{oldest_first, period};

/// Keeps the first backup of each of the newest periods that have one.
///
/// The first, because it is known when it is taken and stays what it is: a backup that fills no
/// slot at once never will, so it makes no difference how often old ones are removed. Only periods
/// with a backup count, so that neither a missed Monday loses a week nor a month without backups
/// removes older ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gfs {
    /// How many days.
    pub daily: Count,
    /// How many weeks of ISO 8601.
    pub weekly: Count,
    /// How many months.
    pub monthly: Count,
    /// How many years.
    pub yearly: Count,
    /// Where midnight is.
    pub zone: Tz,
}

impl Default for Gfs {
    /// No slots, in UTC.
    fn default() -> Self {
        Self {
            daily: Count::None,
            weekly: Count::None,
            monthly: Count::None,
            yearly: Count::None,
            zone: Tz::UTC,
        }
    }
}

impl Gfs {
    fn tiers(&self) -> [(Tier, Count); 4] {
        [
            (Tier::Daily, self.daily),
            (Tier::Weekly, self.weekly),
            (Tier::Monthly, self.monthly),
            (Tier::Yearly, self.yearly),
        ]
    }

    /// The slots of one tier: which candidate fills it, and why. `days` are oldest first.
    fn slots(&self, (tier, count): (Tier, Count), days: &[(usize, NaiveDate)]) -> Vec<Slot> {
        let mut firsts: Vec<(i32, usize, NaiveDate)> = Vec::new();
        for (index, day) in days {
            let number = period::number(tier, *day);
            if firsts.last().is_none_or(|(last, ..)| *last != number) {
                firsts.push((number, *index, *day));
            }
        }
        let Some((newest, ..)) = firsts.last().copied() else {
            return Vec::new();
        };
        let limit = count.limit();
        let kept = firsts.into_iter().rev().take(limit).enumerate();
        let slot = |(rank, (_, index, day)): (usize, (i32, usize, NaiveDate))| {
            // So many periods to come push it out.
            let more = i32::try_from(limit - rank).ok();
            let until = more.and_then(|more| period::start_after(tier, newest, more, self.zone));
            let reason = KeepReason::Slot {
                tier,
                period: period::name(tier, day),
                until,
            };
            (index, reason)
        };
        kept.map(slot).collect()
    }
}

/// A candidate's index, and what it stands for.
type Slot = (usize, KeepReason);

impl RetentionPolicy for Gfs {
    fn evaluate(&self, candidates: &[Candidate], _now: DateTime<Utc>) -> Vec<Verdict> {
        let mut verdicts = crate::verdicts(candidates, |_| None);
        let day = |index: usize| {
            let started = candidates[index].id.started_at();
            (index, started.with_timezone(&self.zone).date_naive())
        };
        let days: Vec<_> = oldest_first(candidates).into_iter().map(day).collect();
        for tier in self.tiers() {
            for (index, reason) in self.slots(tier, &days) {
                verdicts[index].keep.push(reason);
            }
        }
        verdicts
    }
}
