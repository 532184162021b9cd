//! What is wrong with a set-up, and what to do about it, before a backup finds out at night.
//!
//! Whoever asks a server, a store or the machine makes [`Finding`]s of the answers; this module has
//! their form, and [`examine_store`], which tries a store.

mod store;

use std::fmt;

use chrono::{DateTime, TimeDelta, Utc};

use crate::error::{BoxError, PortError, chain};

pub use store::{StoreTrial, examine_store};

/// How bad something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// It is as it should be.
    Ok,
    /// Worth knowing, and nobody has to do anything.
    Note,
    /// Backups work, but not as somebody might expect.
    Warning,
    /// Backups or restores fail.
    Problem,
}

impl Level {
    /// The name used in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// A name for programs: `role-cannot-read-relations`.
    pub id: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What it is, for somebody who is no database administrator.
    pub message: String,
    /// What to run, to set or to say.
    pub remedy: Option<String>,
}

impl Finding {
    /// Something that is as it should be.
    pub fn ok(id: &'static str, message: impl Into<String>) -> Self {
        Self::new(Level::Ok, id, message)
    }

    /// Something worth knowing.
    pub fn note(id: &'static str, message: impl Into<String>) -> Self {
        Self::new(Level::Note, id, message)
    }

    /// Something that somebody should look at.
    pub fn warning(id: &'static str, message: impl Into<String>) -> Self {
        Self::new(Level::Warning, id, message)
    }

    /// Something that makes backups or restores fail.
    pub fn problem(id: &'static str, message: impl Into<String>) -> Self {
        Self::new(Level::Problem, id, message)
    }

    /// An error that was met on the way, with its own hint as the remedy.
    #[must_use]
    pub fn failure(id: &'static str, error: &PortError) -> Self {
        let finding = Self::problem(id, chain(error));
        match error.hint() {
            Some(hint) => finding.remedy(hint),
            None => finding,
        }
    }

    /// The same with what to do about it.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    fn new(level: Level, id: &'static str, message: impl Into<String>) -> Self {
        Self {
            id,
            level,
            message: message.into(),
            remedy: None,
        }
    }
}

/// Leases bear that clocks differ by so much.
const SKEW: TimeDelta = TimeDelta::seconds(5);

/// What the clock of somebody else says against ours, which said these times
/// around the question. `ids` are those of a good and of a bad answer.
#[must_use]
pub fn compare_clocks(
    ids: (&'static str, &'static str),
    theirs: DateTime<Utc>,
    (before, after): (DateTime<Utc>, DateTime<Utc>),
) -> Finding {
    let skew = if theirs < before {
        theirs - before
    } else if theirs > after {
        theirs - after
    } else {
        TimeDelta::zero()
    };
    if skew.abs() <= SKEW {
        return Finding::ok(ids.0, "its clock and that of this machine agree");
    }
    let side = if skew > TimeDelta::zero() {
        "ahead of"
    } else {
        "behind"
    };
    let seconds = skew.abs().num_seconds();
    let text =
        format!("its clock is {seconds} s {side} that of this machine, by which backups are named");
    Finding::warning(ids.1, text).remedy("let both keep time by NTP (timedatectl set-ntp true)")
}

/// The worst of several, `Ok` if there is none.
#[must_use]
pub fn worst<'a>(findings: impl IntoIterator<Item = &'a Finding>) -> Level {
    let levels = findings.into_iter().map(|finding| finding.level);
    levels.max().unwrap_or(Level::Ok)
}

/// The reason why a part of an upload is wanted to fail.
pub(crate) fn on_purpose() -> BoxError {
    "an upload that is to be given up".into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_may_differ_by_what_leases_bear() {
        let at = |seconds: i64| DateTime::from_timestamp(1_770_000_000 + seconds, 0).unwrap();
        for (theirs, expected) in [
            (1, None),
            (-5, None),
            (7, None),
            (-60, Some("60 s behind")),
            (1202, Some("1200 s ahead of")),
        ] {
            let found = compare_clocks(("good", "bad"), at(theirs), (at(0), at(2)));
            match expected {
                None => assert_eq!((found.id, found.level), ("good", Level::Ok)),
                Some(words) => {
                    assert_eq!((found.id, found.level), ("bad", Level::Warning));
                    assert!(found.message.contains(words), "{found:?}");
                }
            }
        }
    }

    #[test]
    fn the_worst_counts() {
        let all = [Finding::note("a", "b"), Finding::problem("c", "d")];
        assert_eq!(worst(&all), Level::Problem);
        assert_eq!(worst(&all[..1]), Level::Note);
        assert_eq!(worst(&[]), Level::Ok);
    }
}
