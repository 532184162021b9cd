//! How far a schedule is. Its lease tells, since it is what everybody looks at who would run a slot.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

/// By how much a clock may be ahead.
const AHEAD: TimeDelta = TimeDelta::minutes(10);

/// The newest slot of a schedule that somebody began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotMark {
    /// Its time.
    pub at: DateTime<Utc>,
    /// How often it was begun by somebody who has it still, or died with it.
    pub begun: u32,
    /// Whether it was run, whatever came of it.
    pub settled: bool,
}

impl SlotMark {
    /// Whether this slot needs not be run any more, as far as a clock that shows `now` can tell: one
    /// that was ahead may have left a slot that is still to come.
    #[must_use]
    pub fn settles(&self, slot: DateTime<Utc>, now: DateTime<Utc>) -> bool {
        let is_past = self.at <= now + AHEAD;
        (slot < self.at && is_past) || (slot == self.at && self.settled)
    }

    /// Somebody begins a slot. One that is over stays so.
    pub(super) fn begin(slot: DateTime<Utc>, before: Option<Self>, now: DateTime<Utc>) -> Self {
        match before {
            Some(before) if before.settles(slot, now) => before,
            Some(before) if before.at == slot => Self {
                begun: before.begun.saturating_add(1),
                ..before
            },
            _ => Self {
                at: slot,
                begun: 1,
                settled: false,
            },
        }
    }

    /// Whoever began `slot` ends in good order without having run it. Of another one he says nothing.
    pub(super) fn given_back(self, slot: DateTime<Utc>) -> Self {
        if self.at != slot || self.settled {
            return self;
        }
        Self {
            begun: self.begun.saturating_sub(1),
            ..self
        }
    }

    /// `slot` was run. Of another one nobody knows that.
    pub(super) fn settle(self, slot: DateTime<Utc>) -> Self {
        Self {
            settled: self.settled || self.at == slot,
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hour: u32) -> DateTime<Utc> {
        format!("2026-03-02T{hour:02}:00:00Z").parse().unwrap()
    }

    #[test]
    fn only_who_dies_counts() {
        let begin = |hour, before| SlotMark::begin(at(hour), before, at(5));
        let first = begin(3, None);
        assert_eq!((first.begun, first.settles(at(3), at(5))), (1, false));
        let again = begin(3, Some(first.given_back(at(3))));
        assert_eq!(again, first);
        let died = begin(3, Some(first));
        assert_eq!(died.begun, 2);
        let next = begin(4, Some(died));
        assert_eq!((next.at, next.begun), (at(4), 1));
    }

    #[test]
    fn what_is_over_stays_so() {
        let now = at(5);
        let run = SlotMark::begin(at(3), None, now).settle(at(3));
        assert!(run.settles(at(2), now) && run.settles(at(3), now) && !run.settles(at(4), now));
        assert_eq!(SlotMark::begin(at(3), Some(run), now), run);
        // Nobody goes back to an older one.
        let newer = SlotMark::begin(at(4), Some(run), now);
        assert_eq!(SlotMark::begin(at(3), Some(newer), now), newer);
        assert!(newer.settles(at(3), now) && !newer.settles(at(4), now));
        // Nor does who comes late for an older one say anything of a newer one.
        assert_eq!(newer.settle(at(3)), newer);
        assert_eq!(newer.given_back(at(3)), newer);
        assert_eq!(run.given_back(at(3)), run);
    }

    #[test]
    fn a_clock_that_was_ahead_stops_nothing() {
        let wrong = SlotMark::begin(at(23), None, at(23)).settle(at(23));
        assert!(!wrong.settles(at(3), at(5)));
        let right = SlotMark::begin(at(3), Some(wrong), at(5));
        assert_eq!((right.at, right.begun, right.settled), (at(3), 1, false));
    }
}
