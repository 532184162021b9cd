//! Which notices are worth telling. Pure: what was told and what is the case now in, one decision out.
//!
//! A trouble is told once, again when it becomes another one, and once a day while it lasts; that it is
//! over is told once. What is fine and was fine is told nobody: whoever wants to hear of every success
//! is told without asking here.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

/// The format that this build writes.
pub const TOLD_FORMAT: u32 = 1;

/// How often a trouble that lasts is told again. An hour less than a day: what is looked at daily
/// comes a little earlier now and then.
pub const REMINDER: TimeDelta = TimeDelta::hours(23);

/// How long nobody else tells what somebody has begun to tell.
const CLAIM: TimeDelta = TimeDelta::minutes(2);

/// What one notifier was told of one source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Always [`TOLD_FORMAT`].
    pub format: u32,
    /// Grows with every change, so that no content comes twice.
    pub revision: u64,
    /// When it was last changed.
    pub changed_at: DateTime<Utc>,
    /// What is not fine, by the topic: an operation, or `stale`.
    pub troubles: BTreeMap<String, Trouble>,
    /// Who tells something now, by the topic.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub claims: BTreeMap<String, Claim>,
}

/// Something that lasts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// When it was first seen.
    pub since: DateTime<Utc>,
    /// What was told of it: classes of errors, kinds of findings.
    pub kinds: BTreeSet<String>,
    /// When it was last told; never if that did not go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told_at: Option<DateTime<Utc>>,
}

/// Somebody tells something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// His own random text.
    pub by: String,
    /// If it is not told by then, another one may.
    pub until: DateTime<Utc>,
}

/// What is the case now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Situation {
    /// What it is about: an operation, or `stale`.
    pub topic: String,
    /// What is wrong; nothing if it is fine.
    pub kinds: BTreeSet<String>,
    /// Since when, if that is known to be earlier than when it is told.
    pub since: DateTime<Utc>,
}

/// What is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Telling {
    /// It was fine before.
    New,
    /// It was not fine, and is now wrong in another way.
    Changed {
        /// When it was first seen.
        since: DateTime<Utc>,
    },
    /// It is as it was told some time ago.
    Reminder {
        /// When it was first seen.
        since: DateTime<Utc>,
    },
    /// It is over.
    Recovered {
        /// When it was first seen.
        since: DateTime<Utc>,
    },
}

impl Told {
    /// What is to be told, if anything.
    #[must_use]
    pub fn judge(&self, now: DateTime<Utc>, situation: &Situation) -> Option<Telling> {
        let Some(trouble) = self.troubles.get(&situation.topic) else {
            return (!situation.kinds.is_empty()).then_some(Telling::New);
        };
        let since = trouble.since;
        if situation.kinds.is_empty() {
            return Some(Telling::Recovered { since });
        }
        let Some(told_at) = trouble.told_at else {
            return Some(Telling::New);
        };
        if !situation.kinds.is_subset(&trouble.kinds) {
            return Some(Telling::Changed { since });
        }
        // A clock that was ahead must not keep everybody silent.
        let age = now - told_at;
        (age >= REMINDER || age < -REMINDER).then_some(Telling::Reminder { since })
    }

    /// Whether somebody else tells of the topic right now.
    #[must_use]
    pub fn is_claimed(&self, now: DateTime<Utc>, topic: &str, me: &str) -> bool {
        let claim = self.claims.get(topic);
        claim.is_some_and(|claim| {
            claim.by != me && claim.until > now && claim.until <= now + CLAIM * 2
        })
    }

    /// The same while I tell of a topic.
    #[must_use]
    pub fn claimed(&self, now: DateTime<Utc>, topic: &str, me: &str) -> Self {
        let mut next = self.next(now);
        let claim = Claim {
            by: me.to_owned(),
            until: now + CLAIM,
        };
        next.claims.insert(topic.to_owned(), claim);
        next
    }

    /// The same after it was told, or after that did not go: then the next one tells.
    #[must_use]
    pub fn after(&self, now: DateTime<Utc>, situation: &Situation, arrived: bool) -> Self {
        let mut next = self.next(now);
        let topic = &situation.topic;
        next.claims.remove(topic);
        if situation.kinds.is_empty() {
            if arrived {
                next.troubles.remove(topic);
            }
            return next;
        }
        let trouble = next.troubles.entry(topic.clone());
        let trouble = trouble.or_insert_with(|| Trouble {
            since: situation.since,
            kinds: BTreeSet::new(),
            told_at: None,
        });
        if arrived {
            trouble.told_at = Some(now);
            trouble.kinds.extend(situation.kinds.iter().cloned());
        }
        next
    }

    fn next(&self, now: DateTime<Utc>) -> Self {
        let mut next = self.clone();
        next.format = TOLD_FORMAT;
        next.revision += 1;
        next.changed_at = now;
        // Of those who did not live to tell.
        next.claims.retain(|_, claim| claim.until > now);
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minutes: i64) -> DateTime<Utc> {
        DateTime::<Utc>::UNIX_EPOCH + TimeDelta::days(20_000) + TimeDelta::minutes(minutes)
    }

    fn situation(minute: i64, kinds: &[&str]) -> Situation {
        Situation {
            topic: "backup".to_owned(),
            kinds: kinds.iter().map(|&kind| kind.to_owned()).collect(),
            since: at(minute),
        }
    }

    /// Runs that end at these minutes with these kinds of failures, and what is told of them.
    fn told(runs: &[(i64, &[&str])]) -> Vec<(i64, Telling)> {
        let (mut state, mut all) = (Told::default(), Vec::new());
        for (minute, kinds) in runs {
            let now = situation(*minute, kinds);
            if let Some(telling) = state.judge(at(*minute), &now) {
                all.push((*minute, telling));
                let claimed = state.claimed(at(*minute), "backup", "me");
                state = claimed.after(at(*minute), &now, true);
            }
        }
        assert!(state.claims.is_empty());
        all
    }

    #[test]
    fn a_hundred_failures_are_one_notice_and_their_end_another() {
        let mut runs: Vec<(i64, &[&str])> = vec![(0, &[])];
        runs.extend((1..=100).map(|minute| (minute, &["unavailable"][..])));
        runs.extend([(101, &[][..]), (102, &[]), (103, &["unavailable"])]);
        let recovered = Telling::Recovered { since: at(1) };
        let expected = [(1, Telling::New), (101, recovered), (103, Telling::New)];
        assert_eq!(told(&runs), expected);
    }

    #[test]
    fn another_failure_is_told_and_the_first_one_not_once_more() {
        let runs: [(i64, &[&str]); 5] = [
            (0, &["unavailable"]),
            (1, &["timeout"]),
            (2, &["unavailable"]),
            (3, &["timeout"]),
            (4, &["timeout", "corrupt"]),
        ];
        let changed = Telling::Changed { since: at(0) };
        let expected = [(0, Telling::New), (1, changed), (4, changed)];
        assert_eq!(told(&runs), expected);
    }

    #[test]
    fn what_lasts_is_told_again_each_day() {
        // Daily, and now and then a little early.
        let day = 24 * 60;
        let runs: Vec<(i64, &[&str])> = [0, 60, day - 5, day + 60, 2 * day - 9]
            .map(|minute| (minute, &["timeout"][..]))
            .to_vec();
        let reminder = Telling::Reminder { since: at(0) };
        let expected = [
            (0, Telling::New),
            (day - 5, reminder),
            (2 * day - 9, reminder),
        ];
        assert_eq!(told(&runs), expected);
    }

    #[test]
    fn what_did_not_arrive_is_told_by_the_next_one_with_its_beginning() {
        let failed = situation(0, &["timeout"]);
        let state = Told::default().after(at(0), &failed, false);
        assert_eq!(state.troubles["backup"].told_at, None);
        let again = situation(9, &["timeout"]);
        assert_eq!(state.judge(at(9), &again), Some(Telling::New));
        let state = state.after(at(9), &again, true);
        assert_eq!(state.troubles["backup"].since, at(0));
        let fine = situation(10, &[]);
        let recovered = Some(Telling::Recovered { since: at(0) });
        assert_eq!(state.judge(at(10), &fine), recovered);
        let untold = state.after(at(10), &fine, false);
        assert_eq!(untold.judge(at(11), &fine), recovered);
        assert_eq!(state.after(at(10), &fine, true).judge(at(11), &fine), None);
    }

    #[test]
    fn one_tells_at_a_time_and_one_that_died_does_not_keep_others_from_it() {
        let state = Told::default().claimed(at(0), "backup", "me");
        assert!(state.is_claimed(at(1), "backup", "you"));
        assert!(!state.is_claimed(at(1), "backup", "me"));
        assert!(!state.is_claimed(at(1), "drill", "you"));
        assert!(!state.is_claimed(at(2), "backup", "you"));
        // A clock that is hours ahead has no say.
        let ahead = Told::default().claimed(at(600), "backup", "me");
        assert!(!ahead.is_claimed(at(0), "backup", "you"));
        assert!(state.revision < state.claimed(at(5), "drill", "you").revision);
        assert!(
            !state
                .claimed(at(5), "drill", "you")
                .claims
                .contains_key("backup")
        );
    }

    #[test]
    fn a_reminder_that_lies_in_the_future_silences_nobody() {
        let failed = situation(0, &["timeout"]);
        let state = Told::default().after(at(100_000), &failed, true);
        let since = at(0);
        assert_eq!(
            state.judge(at(1), &failed),
            Some(Telling::Reminder { since })
        );
    }
}
