//! Which backup is due for a drill. Pure: the clock and chance are given.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};

use crate::backup::{BackupId, SourceName};
use crate::manifest::Manifest;
use crate::run_record::{Operation, RunRecord, RunResult};

/// How to choose among the backups of one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// The newest and a random older one in turn: an old key or format rots unseen, and the
    /// newest is what a disaster needs.
    InTurn,
    /// The newest that is at least so old.
    Aged(TimeDelta),
}

/// Why this backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChoiceReason {
    /// It is the newest, and its turn.
    Newest,
    /// It is an older one, picked by chance.
    Older,
    /// There is no other.
    Only,
    /// It is old enough.
    Aged,
    /// Somebody named it.
    Named,
}

impl ChoiceReason {
    /// The name used in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Newest => "newest",
            Self::Older => "older",
            Self::Only => "only",
            Self::Aged => "aged",
            Self::Named => "named",
        }
    }

    /// In words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Newest => "the newest backup, whose turn it was",
            Self::Older => "an older backup, picked by chance in turn with the newest",
            Self::Only => "the only backup there is",
            Self::Aged => "the newest backup of the age that was asked for",
            Self::Named => "the backup that was named",
        }
    }
}

/// What records tell of a source's drills.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drilled(BTreeMap<SourceName, Vec<RunRecord>>);

impl Drilled {
    /// What `runs` say; others than drills, and those that were stopped, do not count.
    #[must_use]
    pub fn new(runs: Vec<RunRecord>) -> Self {
        let mut drilled: BTreeMap<SourceName, Vec<RunRecord>> = BTreeMap::new();
        for run in runs {
            let counts = run.operation == Operation::Drill && run.result != RunResult::Cancelled;
            if let (true, Some(source)) = (counts, &run.source) {
                drilled.entry(source.clone()).or_default().push(run);
            }
        }
        for runs in drilled.values_mut() {
            runs.sort_by_key(|run| std::cmp::Reverse(run.started_at));
        }
        Self(drilled)
    }

    /// With what is known from another place too.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        for (source, runs) in &other.0 {
            let known = self.0.entry(source.clone()).or_default();
            known.extend(runs.iter().cloned());
            known.sort_by_key(|run| std::cmp::Reverse(run.started_at));
            known.dedup_by(|a, b| a.id == b.id);
        }
        self
    }

    fn last(&self, source: &SourceName) -> Option<&RunRecord> {
        self.0.get(source)?.first()
    }

    /// When this backup was last drilled, whatever came of it.
    #[must_use]
    pub fn last_of(&self, source: &SourceName, backup: &BackupId) -> Option<DateTime<Utc>> {
        let mut runs = self.0.get(source)?.iter();
        let last = runs.find(|run| run.backup.as_ref() == Some(backup))?;
        Some(last.started_at)
    }

    /// When a drill of this source last succeeded.
    #[must_use]
    pub fn last_success(&self, source: &SourceName) -> Option<DateTime<Utc>> {
        let runs = self.0.get(source)?;
        let good = runs.iter().filter(|run| run.is_success());
        good.map(|run| run.finished_at).max()
    }
}

/// The backup of one source to drill; `random` is any number.
///
/// A backup that lacks what its source is meant to have never stands for a whole one, so it is chosen only where there is no other.
#[must_use]
pub fn choose<'a>(
    backups: &'a [Manifest],
    drilled: &Drilled,
    choice: Choice,
    now: DateTime<Utc>,
    random: u64,
) -> Option<(&'a Manifest, ChoiceReason)> {
    let complete: Vec<_> = backups.iter().filter(|backup| backup.is_whole()).collect();
    let mut candidates = if complete.is_empty() {
        backups.iter().collect()
    } else {
        complete
    };
    // By more than the seconds that an id tells.
    candidates.sort_by_key(|backup| std::cmp::Reverse(backup.started_at));
    match (choice, candidates.as_slice()) {
        (_, []) => None,
        (Choice::Aged(age), candidates) => {
            let old = |backup: &&&Manifest| now - backup.started_at >= age;
            let found = candidates.iter().find(old)?;
            Some((found, ChoiceReason::Aged))
        }
        (Choice::InTurn, [only]) => Some((only, ChoiceReason::Only)),
        (Choice::InTurn, [newest, older @ ..]) => {
            let last = drilled.last(&newest.source);
            if last.is_some_and(|run| was_newest(run, &candidates)) {
                let index = usize::try_from(random % older.len() as u64).unwrap_or(0);
                Some((older[index], ChoiceReason::Older))
            } else {
                Some((newest, ChoiceReason::Newest))
            }
        }
    }
}

/// Whether the backup was the newest when the run began.
fn was_newest(run: &RunRecord, backups: &[&Manifest]) -> bool {
    let known = |backup: &&&Manifest| backup.finished_at <= run.started_at;
    let newest = backups.iter().find(known);
    newest.is_some_and(|newest| Some(&newest.id) == run.backup.as_ref())
}

/// The sources whose last successful drill is at least `age` ago, the longest ago first; those
/// that never had one come before all.
#[must_use]
pub fn due(
    sources: impl IntoIterator<Item = SourceName>,
    drilled: &Drilled,
    age: TimeDelta,
    now: DateTime<Utc>,
) -> Vec<SourceName> {
    let mut due: Vec<_> = sources
        .into_iter()
        .map(|source| (drilled.last_success(&source), source))
        .filter(|(last, _)| last.is_none_or(|last| now - last >= age))
        .collect();
    due.sort();
    due.dedup();
    due.into_iter().map(|(_, source)| source).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::BackupId;
    use crate::manifest::{FORMAT, Totals};
    use crate::run_record::Who;
    use chrono::TimeZone;

    fn day(day: i64) -> DateTime<Utc> {
        Utc.with_ymd_and_hms(2026, 2, 1, 3, 0, 0).unwrap() + TimeDelta::days(day)
    }

    fn source(name: &str) -> SourceName {
        SourceName::new(name).unwrap()
    }

    fn backup(at: i64, filtered: bool) -> Manifest {
        Manifest {
            format: FORMAT,
            id: BackupId::new(day(at), 7),
            source: source("shop"),
            database: "shop".to_owned(),
            repository: String::new(),
            copies: Vec::new(),
            started_at: day(at),
            finished_at: day(at) + TimeDelta::minutes(5),
            server_version: "17.2".to_owned(),
            tool_version: "17.2".to_owned(),
            filtered,
            as_configured: false,
            adopted: false,
            compression: "none".to_owned(),
            encryption: None,
            parts: Vec::new(),
            totals: Totals::default(),
            warnings: 0,
        }
    }

    fn drill(of: &Manifest, at: i64, result: RunResult) -> RunRecord {
        let mut run = RunRecord::begin(Operation::Drill, Who::default(), day(at));
        run.source = Some(of.source.clone());
        run.backup = Some(of.id.clone());
        run.finished_at = day(at);
        run.result = result;
        run
    }

    /// Days of backups, newest first, and of drills with the backup's day.
    fn chosen(days: &[i64], drills: &[(i64, i64, RunResult)], random: u64) -> (i64, ChoiceReason) {
        let backups: Vec<_> = days.iter().map(|at| backup(*at, false)).collect();
        let runs = drills
            .iter()
            .map(|(at, of, result)| drill(&backup(*of, false), *at, *result))
            .collect();
        let drilled = Drilled::new(runs);
        let (found, reason) = choose(&backups, &drilled, Choice::InTurn, day(100), random).unwrap();
        ((found.started_at - day(0)).num_days(), reason)
    }

    #[test]
    fn the_newest_and_an_older_one_take_turns() {
        use ChoiceReason::{Newest, Older, Only};
        use RunResult::{Cancelled, Failed, Success};
        let three = [30, 20, 10];
        assert_eq!(chosen(&[30], &[], 5), (30, Only));
        assert_eq!(chosen(&[30], &[(31, 30, Success)], 5), (30, Only));
        assert_eq!(chosen(&three, &[], 5), (30, Newest));
        let newest = (31, 30, Success);
        assert_eq!(chosen(&three, &[newest], 4), (20, Older));
        assert_eq!(chosen(&three, &[newest], 5), (10, Older));
        let older = (32, 10, Failed);
        assert_eq!(chosen(&three, &[older, newest], 4), (30, Newest));
        // A failure is a turn, a run that was stopped is none.
        assert_eq!(chosen(&three, &[(31, 30, Failed)], 4), (20, Older));
        let stopped = (33, 30, Cancelled);
        assert_eq!(chosen(&three, &[stopped, older], 4), (30, Newest));
        // It was the newest when it was drilled.
        assert_eq!(chosen(&three, &[(21, 20, Success)], 4), (20, Older));
    }

    #[test]
    fn filtered_backups_are_for_want_of_others() {
        let none = Drilled::default();
        let pick = |backups: &[Manifest]| {
            choose(backups, &none, Choice::InTurn, day(100), 0).map(|(found, _)| found.id.clone())
        };
        let (full, filtered) = (backup(1, false), backup(2, true));
        assert_eq!(pick(&[]), None);
        assert_eq!(pick(&[filtered.clone(), full.clone()]), Some(full.id));
        assert_eq!(pick(std::slice::from_ref(&filtered)), Some(filtered.id));
    }

    #[test]
    fn the_newest_is_told_by_more_than_its_id() {
        let (mut first, mut second) = (backup(1, false), backup(1, false));
        first.id = BackupId::new(day(1), 9);
        second.id = BackupId::new(day(1), 8);
        second.started_at += TimeDelta::milliseconds(10);
        let backups = [first, second.clone()];
        let found = choose(&backups, &Drilled::default(), Choice::InTurn, day(2), 0);
        assert_eq!(found, Some((&second, ChoiceReason::Newest)));
    }

    #[test]
    fn an_age_is_a_least_age() {
        let backups = [backup(30, false), backup(20, false), backup(10, false)];
        let pick = |days| {
            let choice = Choice::Aged(TimeDelta::days(days));
            let found = choose(&backups, &Drilled::default(), choice, day(31), 0);
            found.map(|(found, _)| (found.started_at - day(0)).num_days())
        };
        assert_eq!(pick(0), Some(30));
        assert_eq!(pick(7), Some(20));
        assert_eq!(pick(11), Some(20));
        assert_eq!(pick(21), Some(10));
        assert_eq!(pick(22), None);
    }

    #[test]
    fn what_was_never_drilled_is_due_first() {
        let of = |name: &str, at, result| {
            let mut run = drill(&backup(1, false), at, result);
            run.source = Some(source(name));
            run
        };
        let drilled = Drilled::new(vec![
            of("fresh", 90, RunResult::Success),
            of("old", 50, RunResult::Warnings),
            of("older", 40, RunResult::Success),
            // What failed proves nothing.
            of("broken", 99, RunResult::Failed),
        ]);
        let names = ["fresh", "old", "older", "broken", "never", "old"];
        let found = due(names.map(source), &drilled, TimeDelta::days(30), day(100));
        let found: Vec<_> = found.iter().map(SourceName::as_str).collect();
        assert_eq!(found, ["broken", "never", "older", "old"]);
    }
}
