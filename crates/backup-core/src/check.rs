//! How fresh and how healthy the backups of one source at one place are. Pure: manifests, records
//! and a moment in, findings out.

mod ratio;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};

use crate::backup::{BackupId, SourceName};
use crate::catalog::Listing;
use crate::drill::Drilled;
use crate::history::Proofs;
use crate::layout;
use crate::manifest::Manifest;
use crate::retention::{CLOCK_SKEW, Candidate};
use crate::run_record::{Operation, RunRecord, RunResult};

pub use ratio::{ParseRatioError, Ratio};

/// How bad something is. What is certainly bad counts more than what is not known, and that more
/// than a warning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// Nothing is wrong.
    Ok,
    /// Somebody should look at it.
    Warning,
    /// It cannot be told.
    Unknown,
    /// There is nothing to count on.
    Critical,
}

impl Status {
    /// The name used in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Unknown => "unknown",
            Self::Critical => "critical",
        }
    }

    /// The number that monitoring knows it by.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Warning => 1,
            Self::Critical => 2,
            Self::Unknown => 3,
        }
    }
}

/// What is still good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How old the newest backup may be, from its end on.
    pub max_age: TimeDelta,
    /// How small it may be, in raw bytes and in rows, compared with the one before.
    pub min_size_ratio: Ratio,
    /// How long it may have taken.
    pub max_duration: Option<TimeDelta>,
    /// How long ago a drill may have succeeded.
    pub undrilled_after: Option<TimeDelta>,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Status,
    /// A word for programs: `stale`, `shrunk`.
    pub kind: &'static str,
    /// What it is and what to do about it.
    pub message: String,
}

impl Finding {
    /// Something critical.
    pub fn critical(kind: &'static str, message: impl Into<String>) -> Self {
        Self::new(Status::Critical, kind, message)
    }

    /// Something that somebody should look at.
    pub fn warning(kind: &'static str, message: impl Into<String>) -> Self {
        Self::new(Status::Warning, kind, message)
    }

    /// Something that cannot be told.
    pub fn unknown(kind: &'static str, message: impl Into<String>) -> Self {
        Self::new(Status::Unknown, kind, message)
    }

    fn new(severity: Status, kind: &'static str, message: impl Into<String>) -> Self {
        Self {
            severity,
            kind,
            message: message.into(),
        }
    }
}

/// What one place has of one source.
#[derive(Debug, Clone, Default)]
pub struct Copies {
    /// The committed backups, newest first.
    backups: Vec<Manifest>,
    /// Backups whose manifests cannot be read, with the reason.
    unreadable: Vec<(BackupId, String)>,
    /// Backups of which objects are gone, with their names.
    incomplete: Vec<(BackupId, Vec<String>)>,
    proofs: Proofs,
    /// The newest run that was to take a backup and was not stopped.
    last_run: Option<RunRecord>,
    /// Whether the source is meant to be backed up in part. Otherwise a filtered backup does not
    /// stand for the whole.
    partly: bool,
}

impl Copies {
    /// What a listing of a place and its records say of `source`.
    #[must_use]
    pub fn new(source: &SourceName, listing: &Listing, runs: &[RunRecord]) -> Self {
        let of_source = listing.backups.iter().filter(|b| b.source == *source);
        let mut backups: Vec<Manifest> = of_source.cloned().collect();
        // By more than the seconds that an id tells.
        backups.sort_by_key(|backup| std::cmp::Reverse(backup.started_at));
        let unreadable = listing.damaged.iter().filter_map(|(key, reason)| {
            let (of, id) = layout::parse_manifest_key(key)?;
            (of == *source).then(|| (id, reason.clone()))
        });
        let incomplete = listing.incomplete.iter().filter(|b| b.source == *source);
        let runs: Vec<_> = runs
            .iter()
            .filter(|run| run.source.as_ref() == Some(source))
            .cloned()
            .collect();
        let taken = runs
            .iter()
            .filter(|run| run.operation == Operation::Backup && run.result != RunResult::Cancelled);
        Self {
            backups,
            unreadable: unreadable.collect(),
            incomplete: incomplete
                .map(|b| (b.id.clone(), b.objects.clone()))
                .collect(),
            last_run: taken.max_by_key(|run| run.started_at).cloned(),
            proofs: Proofs::new(runs),
            partly: false,
        }
    }

    /// The same of a source that is meant to be backed up in part, or is not.
    #[must_use]
    pub fn partly(mut self, partly: bool) -> Self {
        self.partly = partly;
        self
    }

    /// What is known of each backup, for deciding what belongs where.
    #[must_use]
    pub fn candidates(&self) -> Vec<Candidate> {
        let candidate = |backup: &Manifest| Candidate {
            extent: backup.into(),
            damaged: self.proofs.is_damaged(backup) || self.lacks(backup),
            ..Candidate::new(backup.id.clone())
        };
        self.backups.iter().map(candidate).collect()
    }

    /// The same as if there were no other backups than these.
    #[must_use]
    pub fn only(&self, wanted: &BTreeSet<BackupId>) -> Self {
        let mut only = self.clone();
        only.backups.retain(|backup| wanted.contains(&backup.id));
        only
    }

    fn lacks(&self, backup: &Manifest) -> bool {
        self.incomplete.iter().any(|(id, _)| *id == backup.id)
    }

    /// The newest backup that can be counted on: whole, not known to be damaged, not of the future.
    #[must_use]
    pub fn newest(&self, now: DateTime<Utc>) -> Option<&Manifest> {
        self.good(now).next()
    }

    /// When every byte of a backup was last found good, of any that is here.
    #[must_use]
    pub fn verified_at(&self) -> Option<DateTime<Utc>> {
        let proved = self.backups.iter();
        proved.filter_map(|b| self.proofs.verified_at(b)).max()
    }

    fn good(&self, now: DateTime<Utc>) -> impl Iterator<Item = &Manifest> {
        self.backups.iter().filter(move |backup| {
            (!backup.filtered || self.partly && backup.as_configured)
                && !is_of_the_future(backup, now)
                && !self.proofs.is_damaged(backup)
                && !self.lacks(backup)
        })
    }
}

fn is_of_the_future(backup: &Manifest, now: DateTime<Utc>) -> bool {
    backup.finished_at > now + CLOCK_SKEW
}

/// What is wrong with the copies of `source` at one place, the worst first. `elsewhere` are those
/// at its other places; `drilled` is what all places tell, for a drill proves the way, whatever
/// copy it takes.
#[must_use]
pub fn judge(
    copies: &Copies,
    elsewhere: &[&Copies],
    drilled: Option<DateTime<Utc>>,
    limits: &Limits,
    now: DateTime<Utc>,
) -> Vec<Finding> {
    let mut found = damage(copies, now);
    match copies.newest(now) {
        None => found.push(Finding::critical("no-backup", nothing_good(copies))),
        Some(newest) => {
            let own = copies.good(now).find(|backup| !backup.adopted);
            found.extend(age(own.unwrap_or(newest), limits, now));
            let before = copies.good(now).skip(1);
            if let Some(before) = before.into_iter().find(|b| b.filtered == newest.filtered) {
                found.extend(shrunk(newest, before, limits));
            }
            found.extend(duration(newest, limits));
        }
    }
    found.extend(failure(copies, now));
    found.extend(missing(copies, elsewhere, now));
    found.extend(unproved(copies, drilled, limits, now));
    found.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    found
}

/// When a drill of `source` last succeeded, by the records of all places.
#[must_use]
pub fn last_drill<'a>(
    source: &SourceName,
    runs: impl IntoIterator<Item = &'a RunRecord>,
) -> Option<DateTime<Utc>> {
    let of_source = runs
        .into_iter()
        .filter(|run| run.source.as_ref() == Some(source));
    Drilled::new(of_source.cloned().collect()).last_success(source)
}

fn nothing_good(copies: &Copies) -> String {
    let why = if copies.backups.is_empty() && copies.unreadable.is_empty() {
        "there is no backup"
    } else if copies.backups.iter().any(|backup| backup.filtered) && !copies.partly {
        "there is no whole backup; filtered ones do not stand for it"
    } else {
        "there is no good backup"
    };
    format!("{why}: take one, and look at the failures in `runs`")
}

fn damage(copies: &Copies, now: DateTime<Utc>) -> Vec<Finding> {
    let unreadable = copies.unreadable.iter().map(|(id, reason)| {
        let message = format!(
            "the manifest of {id} cannot be read: {reason}: look whether another place has it"
        );
        Finding::critical("damaged", message)
    });
    let mut found: Vec<_> = unreadable.collect();
    found.extend(copies.incomplete.iter().map(|(id, objects)| {
        let (count, first) = (objects.len(), objects.first().map_or("", String::as_str));
        let message = format!(
            "backup {id} lacks {count} of its objects, {first} among them: copy it once more from \
             another place, and find out who removed them"
        );
        Finding::critical("incomplete", message)
    }));
    for backup in &copies.backups {
        let id = &backup.id;
        if copies.proofs.is_damaged(backup) {
            let message = format!("{id} was found damaged: take a backup, and verify the others");
            found.push(Finding::critical("damaged", message));
        }
        if is_of_the_future(backup, now) {
            let message = format!(
                "{id} is later than the clock of this host: set the clocks right; \
                 how fresh it is cannot be told"
            );
            found.push(Finding::critical("future", message));
        }
    }
    found
}

fn age(newest: &Manifest, limits: &Limits, now: DateTime<Utc>) -> Option<Finding> {
    // What was adopted is as old as it says, however late it came.
    let at = if newest.adopted {
        newest.started_at
    } else {
        newest.finished_at
    };
    let age = now - at;
    (age > limits.max_age).then(|| {
        let message = format!(
            "the newest backup is {} old, more than {}: look at the schedule and at `runs`",
            span(age),
            span(limits.max_age)
        );
        Finding::critical("stale", message)
    })
}

/// Compared with the one before only: what was emptied on purpose is quiet from the next on.
fn shrunk(newest: &Manifest, before: &Manifest, limits: &Limits) -> Vec<Finding> {
    let (new, old) = (&newest.totals, &before.totals);
    let ratio = limits.min_size_ratio;
    let mut found = Vec::new();
    let told = |what: &str, old: u64, new: u64| {
        format!(
            "{} has {new} {what}, {} had {old}: look whether data are lost before old backups go",
            newest.id, before.id
        )
    };
    if ratio.is_undercut(new.raw_bytes, old.raw_bytes) {
        let message = told("raw bytes", old.raw_bytes, new.raw_bytes);
        found.push(Finding::critical("shrunk", message));
    }
    if ratio.is_undercut(new.rows, old.rows) {
        let message = told("rows", old.rows, new.rows);
        found.push(Finding::warning("fewer-rows", message));
    }
    if new.tables < old.tables {
        let message = told("tables", old.tables, new.tables);
        found.push(Finding::warning("fewer-tables", message));
    }
    found
}

fn duration(newest: &Manifest, limits: &Limits) -> Option<Finding> {
    let limit = limits.max_duration?;
    let took = newest.finished_at - newest.started_at;
    (took > limit).then(|| {
        let (took, limit) = (span(took), span(limit));
        let message = format!("{} took {took}, more than {limit}", newest.id);
        Finding::warning("slow", message)
    })
}

fn failure(copies: &Copies, now: DateTime<Utc>) -> Option<Finding> {
    let run = copies.last_run.as_ref().filter(|run| !run.is_success())?;
    let newest = copies.newest(now).map(|newest| newest.finished_at);
    // One that was done since makes up for it, also one in whose way this run would have been.
    if newest.is_some_and(|newest| newest > run.finished_at) {
        return None;
    }
    let why = run.error.as_deref().unwrap_or("no reason is known");
    let message = format!("the last backup failed, run {}: {why}", run.id);
    Some(Finding::warning("failed", message))
}

/// Backups that came after the newest one here. Older ones may have been let go by another policy.
fn missing(copies: &Copies, elsewhere: &[&Copies], now: DateTime<Utc>) -> Option<Finding> {
    let newest = copies.newest(now).map(|newest| newest.started_at);
    let here = |id: &BackupId| copies.backups.iter().any(|backup| backup.id == *id);
    let others = elsewhere.iter().flat_map(|others| others.good(now));
    let mut lacking: Vec<_> = others
        .filter(|backup| newest.is_none_or(|newest| backup.started_at > newest))
        .map(|backup| &backup.id)
        .filter(|id| !here(id))
        .collect();
    lacking.sort();
    lacking.dedup();
    let last = lacking.last()?;
    let more = match lacking.len() {
        1 => String::new(),
        count => format!(" and {} more", count - 1),
    };
    let message = format!("{last}{more} is at another destination only: `copy --missing`");
    Some(Finding::warning("missing-copy", message))
}

/// Only where somebody said how often drills are wanted.
fn unproved(
    copies: &Copies,
    drilled: Option<DateTime<Utc>>,
    limits: &Limits,
    now: DateTime<Utc>,
) -> Vec<Finding> {
    let (Some(limit), Some(newest)) = (limits.undrilled_after, copies.newest(now)) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    if copies.verified_at().is_none() {
        let message = "no backup here was ever proved: `verify`, or `drill`";
        found.push(Finding::warning("unverified", message));
    }
    if !newest.content().can_be_drilled() {
        return found;
    }
    let message = match drilled {
        Some(at) if now - at > limit => format!(
            "the last good drill was {} ago, more than {}: `drill`",
            span(now - at),
            span(limit)
        ),
        Some(_) => return found,
        None => "no restore was ever drilled with success: `drill`".to_owned(),
    };
    found.push(Finding::warning("undrilled", message));
    found
}

/// A span for people: never rounded up, so that an age does not seem to be over a limit that it
/// is not over.
#[must_use]
pub fn span(span: TimeDelta) -> String {
    match (span.num_days(), span.num_hours(), span.num_minutes()) {
        (days @ 3.., _, _) => format!("{days} d"),
        (_, hours @ 1.., minutes) if minutes % 60 == 0 => format!("{hours} h"),
        (_, hours @ 1.., minutes) => format!("{hours} h {} min", minutes % 60),
        (_, _, minutes @ 1..) if span.num_seconds() % 60 == 0 => format!("{minutes} min"),
        (_, _, minutes @ 1..) => format!("{minutes} min {} s", span.num_seconds() % 60),
        _ => format!("{} s", span.num_seconds()),
    }
}
