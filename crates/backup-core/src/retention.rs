//! What to keep, and why. Policies are pure: they read neither clock nor store.
//!
//! A policy knows slots and ages, and nothing of safety. What no policy may get wrong is here, for
//! every policy alike: the newest good backups and the last verified ones stay, what is pinned
//! stays, what lacks something never stands for a whole backup, and nothing goes while the clock
//! cannot be right.

mod count;
mod guard;

use std::fmt;

use chrono::{DateTime, SecondsFormat, Utc};

use crate::backup::BackupId;
use crate::error::{Error, ErrorKind, PortError};
use crate::manifest::Manifest;

pub use count::{Count, ParseCountError};
pub use guard::{CLOCK_SKEW, Guards};

/// How much of a database a backup has. Only what has the same can stand for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Extent {
    /// All.
    Whole,
    /// What its source is configured to have.
    Set,
    /// Less than that.
    Part,
}

impl Extent {
    const ALL: [Self; 3] = [Self::Whole, Self::Set, Self::Part];
}

impl From<&Manifest> for Extent {
    fn from(backup: &Manifest) -> Self {
        match (backup.filtered, backup.as_configured) {
            (false, _) => Self::Whole,
            (true, true) => Self::Set,
            (true, false) => Self::Part,
        }
    }
}

/// What a policy may look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The backup; its age is in its name.
    pub id: BackupId,
    /// How much of its database it has.
    pub extent: Extent,
    /// Whether it was found damaged, and not proved since.
    pub damaged: bool,
    /// Whether somebody pinned it.
    pub pinned: bool,
    /// When every byte of it was last found good, if ever.
    pub verified_at: Option<DateTime<Utc>>,
}

impl Candidate {
    /// A whole backup of which nothing else is known.
    #[must_use]
    pub fn new(id: BackupId) -> Self {
        Self {
            id,
            extent: Extent::Whole,
            damaged: false,
            pinned: false,
            verified_at: None,
        }
    }
}

/// The length of a period that one backup stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// A day.
    Daily,
    /// A week of ISO 8601, from Monday.
    Weekly,
    /// A month.
    Monthly,
    /// A year.
    Yearly,
}

impl Tier {
    /// The name used in JSON and in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
            Self::Yearly => "yearly",
        }
    }
}

/// Why a backup stays.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeepReason {
    /// It stands for a period: `daily 2026-02-05`.
    Slot {
        /// How long the period is.
        tier: Tier,
        /// Which one it is.
        period: String,
        /// When it can lose its slot, if there is a backup in every period to come.
        until: Option<DateTime<Utc>>,
    },
    /// It is among so many newest ones.
    Recent(Count),
    /// It is younger than the policy expires.
    Young {
        /// Until then.
        until: DateTime<Utc>,
    },
    /// It is among the newest good ones, which stay whatever the policy says.
    Newest,
    /// It is among the newest ones that were proved.
    LastVerified,
    /// It is damaged, and there is no good one.
    NothingBetter,
    /// Somebody pinned it.
    Pinned,
}

impl KeepReason {
    /// Whether a policy says so, and not a guard around it.
    #[must_use]
    pub fn is_rule(&self) -> bool {
        matches!(
            self,
            Self::Slot { .. } | Self::Recent(_) | Self::Young { .. }
        )
    }

    /// The tier whose slot it fills.
    #[must_use]
    pub fn tier(&self) -> Option<Tier> {
        match self {
            Self::Slot { tier, .. } => Some(*tier),
            _ => None,
        }
    }
}

impl fmt::Display for KeepReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slot { tier, period, .. } => write!(f, "{} {period}", tier.as_str()),
            Self::Recent(count) => write!(f, "keep_last {count}"),
            Self::Young { until } => {
                write!(
                    f,
                    "until {}",
                    until.to_rfc3339_opts(SecondsFormat::Secs, true)
                )
            }
            Self::Newest => f.write_str("min_keep"),
            Self::LastVerified => f.write_str("last verified"),
            Self::NothingBetter => f.write_str("damaged, but nothing better is there"),
            Self::Pinned => f.write_str("pinned"),
        }
    }
}

/// The decision on one backup. No reason to keep it means: expire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Which backup.
    pub id: BackupId,
    /// Every reason to keep it.
    pub keep: Vec<KeepReason>,
}

impl Verdict {
    /// Whether the backup may go.
    #[must_use]
    pub fn expires(&self) -> bool {
        self.keep.is_empty()
    }

    /// When the rules let it go at the earliest, if there is a backup in every period to come.
    /// `None` when they never do, or when what keeps it has no date.
    #[must_use]
    pub fn until(&self) -> Option<DateTime<Utc>> {
        let mut latest = None;
        for reason in &self.keep {
            let until = match reason {
                KeepReason::Slot { until, .. } => *until,
                KeepReason::Young { until } => Some(*until),
                // Those that are taken later push it out.
                KeepReason::Recent(Count::Newest(_))
                | KeepReason::Newest
                | KeepReason::LastVerified
                | KeepReason::NothingBetter => continue,
                KeepReason::Recent(_) | KeepReason::Pinned => None,
            };
            latest = Some(until?).max(latest);
        }
        latest
    }
}

/// Decides what stays, of backups that are all alike: [`judge`] sees to that.
pub trait RetentionPolicy: fmt::Debug + Send + Sync {
    /// One verdict for each candidate, in their order, which may be any.
    ///
    /// What expires once must not be kept later because more backups were taken: how often
    /// somebody prunes must not change what is left.
    fn evaluate(&self, candidates: &[Candidate], now: DateTime<Utc>) -> Vec<Verdict>;
}

/// What may go: every candidate with every reason to keep it, in their order.
///
/// # Errors
/// `Refused` when the clock cannot be right, or when the policy keeps none of them.
pub fn plan(
    policy: &dyn RetentionPolicy,
    candidates: &[Candidate],
    guards: &Guards,
    now: DateTime<Utc>,
) -> Result<Vec<Verdict>, Error> {
    guards.check_clock(candidates, now)?;
    let verdicts = judge(policy, candidates, guards, now)?;
    let kept_by_rule = |verdict: &Verdict| verdict.keep.iter().any(KeepReason::is_rule);
    if !verdicts.is_empty() && !verdicts.iter().any(kept_by_rule) {
        return Err(Error::refused(
            format!("the policy keeps none of {} backups", verdicts.len()),
            "correct the policy, or take a new backup first",
        ));
    }
    Ok(verdicts)
}

/// As [`plan`], for looking only: it trusts the clock.
///
/// Backups with a filter are a group of their own, and those with that of their source another: no
/// group pushes out or stands for what is of another. A damaged backup stands for nothing; the next good one of its period is kept instead, and
/// it goes itself when it would have gone anyway.
///
/// # Errors
/// `Internal` when the policy does not keep to its contract.
pub fn judge(
    policy: &dyn RetentionPolicy,
    candidates: &[Candidate],
    guards: &Guards,
    now: DateTime<Utc>,
) -> Result<Vec<Verdict>, Error> {
    let mut verdicts: Vec<_> = candidates
        .iter()
        .map(|candidate| Verdict {
            id: candidate.id.clone(),
            keep: Vec::new(),
        })
        .collect();
    for extent in Extent::ALL {
        let mut group: Vec<usize> = (0..candidates.len())
            .filter(|index| candidates[*index].extent == extent)
            .collect();
        // By age; equal names cannot be.
        group.sort_unstable_by(|a, b| candidates[*a].id.cmp(&candidates[*b].id));
        let group = Group {
            policy,
            candidates,
            members: group,
            now,
        };
        group.judge(guards, &mut verdicts)?;
    }
    for (candidate, verdict) in candidates.iter().zip(&mut verdicts) {
        if candidate.pinned {
            verdict.keep.push(KeepReason::Pinned);
        }
    }
    Ok(verdicts)
}

/// Backups that can stand for each other, oldest first.
struct Group<'a> {
    policy: &'a dyn RetentionPolicy,
    candidates: &'a [Candidate],
    members: Vec<usize>,
    now: DateTime<Utc>,
}

impl Group<'_> {
    fn judge(&self, guards: &Guards, verdicts: &mut [Verdict]) -> Result<(), Error> {
        let is_good = |index: &usize| !self.candidates[*index].damaged;
        let good: Vec<usize> = self.members.iter().copied().filter(is_good).collect();
        for (index, keep) in self.ask(&good)? {
            verdicts[index].keep = keep;
        }
        let least = guards.min_keep.get();
        for index in good.iter().rev().take(least) {
            verdicts[*index].keep.push(KeepReason::Newest);
        }
        let verified = good.iter().rev();
        let verified = verified.filter(|index| self.candidates[**index].verified_at.is_some());
        for index in verified.take(least) {
            verdicts[*index].keep.push(KeepReason::LastVerified);
        }
        if good.len() == self.members.len() {
            return Ok(());
        }
        // As if they were good.
        for (index, keep) in self.ask(&self.members)? {
            if !is_good(&index) {
                verdicts[index].keep = keep;
                if good.is_empty() {
                    verdicts[index].keep.push(KeepReason::NothingBetter);
                }
            }
        }
        Ok(())
    }

    /// What the policy says of these, by index.
    fn ask(&self, members: &[usize]) -> Result<Vec<(usize, Vec<KeepReason>)>, Error> {
        let candidates: Vec<_> = members
            .iter()
            .map(|index| self.candidates[*index].clone())
            .collect();
        let verdicts = self.policy.evaluate(&candidates, self.now);
        let ids = candidates.iter().map(|candidate| &candidate.id);
        if !ids.eq(verdicts.iter().map(|verdict| &verdict.id)) {
            let broken = PortError::new(
                ErrorKind::Internal,
                "the policy does not give one verdict for each backup in their order",
            );
            return Err(Error::store("judge backups", broken));
        }
        let reasons = verdicts.into_iter().map(|verdict| verdict.keep);
        Ok(members.iter().copied().zip(reasons).collect())
    }
}

#[cfg(test)]
mod tests;
