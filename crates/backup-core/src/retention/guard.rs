//! What holds whatever a policy says.

use std::num::NonZeroUsize;

use chrono::{DateTime, TimeDelta, Utc};

use super::{Candidate, Extent};
use crate::error::Error;

/// How far the clocks of two hosts may be apart.
pub const CLOCK_SKEW: TimeDelta = TimeDelta::minutes(5);
/// How many of the newest backups tell how often one is taken: older ones were thinned out.
const RECENT: usize = 6;
/// What is added to twice the usual distance of two backups: a weekend is no jump of the clock.
const GRACE: TimeDelta = TimeDelta::days(2);
/// How old the newest backup may be when there is no other to tell how often one is taken.
const UNKNOWN_LIMIT: TimeDelta = TimeDelta::days(35);

/// What no policy goes below.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guards {
    /// So many of the newest good backups stay, and so many of the newest that were proved.
    pub min_keep: NonZeroUsize,
    /// Somebody has looked at the clock: old backups may expire though no new ones are taken.
    pub clock_is_right: bool,
    /// A backup of something else was taken then, and of this one none is expected any more: the clock
    /// is judged by that one.
    pub witness: Option<DateTime<Utc>>,
}

impl Default for Guards {
    /// Three, and a clock that nobody has looked at.
    fn default() -> Self {
        Self {
            min_keep: NonZeroUsize::MIN.saturating_add(2),
            clock_is_right: false,
            witness: None,
        }
    }
}

impl Guards {
    /// Looks whether the clock can be right. One that jumped ahead makes everything old; and when
    /// backups have failed for long, the old ones are all there is.
    pub(super) fn check_clock(
        &self,
        candidates: &[Candidate],
        now: DateTime<Utc>,
    ) -> Result<(), Error> {
        let Some(newest) = candidates.iter().map(|candidate| &candidate.id).max() else {
            return Ok(());
        };
        if newest.started_at() > now + CLOCK_SKEW {
            return Err(Error::refused(
                format!("backup {newest} was taken later than the clock of this host says it is"),
                "set the clock right; a backup that another host dated wrongly must be moved away",
            ));
        }
        if self.clock_is_right {
            return Ok(());
        }
        let is_good =
            |candidate: &&Candidate| !candidate.damaged && candidate.extent != Extent::Part;
        let mut times: Vec<_> = candidates
            .iter()
            .filter(is_good)
            .map(|candidate| candidate.id.started_at())
            .collect();
        // Where only parts are taken on purpose, those tell.
        if times.is_empty() {
            let undamaged = candidates.iter().filter(|candidate| !candidate.damaged);
            times.extend(undamaged.map(|candidate| candidate.id.started_at()));
        }
        if times.is_empty() {
            times.extend(candidates.iter().map(|candidate| candidate.id.started_at()));
        }
        times.sort_unstable_by(|a, b| b.cmp(a));
        let age = now - self.witness.map_or(times[0], |other| other.max(times[0]));
        if age <= longest(&times) {
            return Ok(());
        }
        Err(Error::refused(
            format!(
                "the newest good backup is {} days old, which is longer than usual: backups fail, \
                 or the clock of this host has jumped",
                age.num_days()
            ),
            "take a backup first; to let old ones go though no more are taken, say --clock-is-right",
        ))
    }
}

/// How old the newest of these, newest first, may be.
fn longest(times: &[DateTime<Utc>]) -> TimeDelta {
    let recent = &times[..times.len().min(RECENT)];
    let mut gaps: Vec<_> = recent.windows(2).map(|two| two[0] - two[1]).collect();
    gaps.sort_unstable();
    match gaps.get(gaps.len() / 2) {
        Some(gap) => *gap * 2 + GRACE,
        None => UNKNOWN_LIMIT,
    }
}
