//! What a policy would keep over time.

use std::collections::BTreeMap;

use backup_core::backup::BackupId;
use backup_core::error::Error;
use backup_core::retention::{
    Candidate, Guards, KeepReason, RetentionPolicy, Tier, Verdict, judge,
};
use chrono::{DateTime, Months, TimeDelta, Utc};

/// What is there at the end of a year.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimulatedYear {
    /// When it ends.
    pub ends: DateTime<Utc>,
    /// How many backups are there.
    pub total: usize,
    /// How many of them fill a slot of each tier; one may fill several.
    pub tiers: BTreeMap<Tier, usize>,
    /// How many fill none.
    pub others: usize,
    /// The start of the oldest.
    pub oldest: DateTime<Utc>,
}

/// Takes one backup a day from `start` for so many years, and says what is left at the end of
/// each. Once a year is often enough to look: how often old ones are removed changes nothing.
///
/// # Errors
/// `Internal` when the policy does not keep to its contract.
pub fn simulate(
    policy: &dyn RetentionPolicy,
    guards: &Guards,
    start: DateTime<Utc>,
    years: u32,
) -> Result<Vec<SimulatedYear>, Error> {
    let mut left: Vec<Candidate> = Vec::new();
    let mut next = start;
    let mut found = Vec::new();
    for year in 1..=years {
        let ends = start.checked_add_months(Months::new(year.saturating_mul(12)));
        let Some(ends) = ends else {
            break;
        };
        while next < ends {
            left.push(Candidate::new(BackupId::new(next, 0)));
            next += TimeDelta::days(1);
        }
        let mut verdicts = judge(policy, &left, guards, next - TimeDelta::days(1))?;
        verdicts.retain(|verdict| !verdict.expires());
        left = verdicts
            .iter()
            .map(|verdict| Candidate::new(verdict.id.clone()))
            .collect();
        found.extend(count(ends, &verdicts));
    }
    Ok(found)
}

fn count(ends: DateTime<Utc>, kept: &[Verdict]) -> Option<SimulatedYear> {
    let mut tiers = BTreeMap::new();
    let mut others = 0;
    for verdict in kept {
        let filled: Vec<_> = verdict.keep.iter().filter_map(KeepReason::tier).collect();
        others += usize::from(filled.is_empty());
        for tier in filled {
            *tiers.entry(tier).or_default() += 1;
        }
    }
    Some(SimulatedYear {
        ends,
        total: kept.len(),
        tiers,
        others,
        oldest: kept.first()?.id.started_at(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Gfs, KeepWithin};
    use backup_core::retention::Count;

    fn start() -> DateTime<Utc> {
        "2026-01-01T03:00:00Z".parse().unwrap()
    }

    #[test]
    fn years_go_by() {
        let gfs = Gfs {
            daily: Count::of(4),
            weekly: Count::of(4),
            monthly: Count::of(4),
            yearly: Count::of(2),
            ..Gfs::default()
        };
        let years = simulate(&gfs, &Guards::default(), start(), 3).unwrap();
        let seen: Vec<_> = years
            .iter()
            .map(|year| {
                let tiers: Vec<_> = year.tiers.values().copied().collect();
                let oldest = year.oldest.date_naive().to_string();
                (year.total, tiers, year.others, oldest)
            })
            .collect();
        let row =
            |total, yearly, oldest: &str| (total, vec![4, 4, 4, yearly], 0, oldest.to_owned());
        assert_eq!(
            seen,
            [
                row(12, 1, "2026-01-01"),
                row(14, 2, "2026-01-01"),
                row(14, 2, "2027-01-01")
            ]
        );
    }

    #[test]
    fn ages_fill_no_tier() {
        let within = KeepWithin(TimeDelta::days(30));
        let years = simulate(&within, &Guards::default(), start(), 1).unwrap();
        assert_eq!((years[0].total, years[0].others), (30, 30));
        assert!(years[0].tiers.is_empty());
        assert_eq!(years[0].ends.to_rfc3339(), "2027-01-01T03:00:00+00:00");
    }
}
