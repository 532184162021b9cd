//! What is known of the backups that there were, from what their runs and those that prune said.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::SystemTime;

use anyhow::{Context as _, Result, ensure};
use backup_core::backup::BackupId;
use backup_e2e::cli::Run;
use nix::sys::signal::Signal;
use serde_json::Value;

/// How many backups are kept.
pub(crate) const KEPT: usize = 12;

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Backups that their runs said to be there, with the states that the database had before and after the
    /// run.
    committed: BTreeMap<String, RangeInclusive<i64>>,
    /// Backups that a prune said to have deleted.
    deleted: BTreeSet<String>,
    /// Runs that may have committed a backup and told nobody: its name is one of these.
    silent: Vec<RangeInclusive<String>>,
    /// Prunes that were killed, and told nobody what they had deleted.
    killed_prunes: usize,
}

/// A run that takes a backup.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) began: SystemTime,
    pub(crate) ended: SystemTime,
    /// What the database's state was meanwhile.
    pub(crate) states: RangeInclusive<i64>,
}

impl Attempt {
    /// The names that its backup may have.
    fn names(&self) -> RangeInclusive<String> {
        let first = BackupId::new(self.began.into(), 0).to_string();
        first..=BackupId::new(self.ended.into(), u16::MAX).to_string()
    }
}

/// Of the backups that were known before a listing began, those that are not in it though no rule let them go.
/// A prune lets go what is older than the newest ones that are kept, at its time; those are there still, or
/// still newer ones.
pub(crate) fn lost(known: &[String], listed: &[String]) -> Vec<String> {
    let is_lost = |id: &&String| {
        !listed.contains(id) && listed.iter().filter(|newer| newer > id).count() < KEPT
    };
    known.iter().filter(is_lost).cloned().collect()
}

impl Ledger {
    /// The backups that runs said to be there, whatever became of them.
    pub(crate) fn known(&self) -> Vec<String> {
        self.committed.keys().cloned().collect()
    }

    /// The states that a backup may show, if its run told of it.
    pub(crate) fn states(&self, id: &str) -> Option<RangeInclusive<i64>> {
        self.committed.get(id).cloned()
    }

    /// Notes how a run ended; `None` if that is not known.
    ///
    /// # Errors
    /// When it said that there is a backup, and not which.
    pub(crate) fn backed_up(&mut self, attempt: Attempt, run: Option<&Run>) -> Result<()> {
        let killed = Some(Signal::SIGKILL as i32);
        match run {
            Some(run) if matches!(run.code, Some(0 | 3)) => {
                let view = run.json()?;
                let id = view["id"].as_str().filter(|_| view["status"] == "success");
                let id = id.with_context(|| format!("a backup that is none: {view}"))?;
                ensure!(
                    attempt.names().contains(&id.to_owned()),
                    "{id} is not of this run"
                );
                let before = self.committed.insert(id.to_owned(), attempt.states);
                ensure!(before.is_none(), "{id} was there before");
            }
            // Whoever ended in order, and says nothing else, has published nothing.
            Some(run)
                if run.signal != killed
                    && !run.stderr.contains("it is not known whether backup") => {}
            _ => self.silent.push(attempt.names()),
        }
        Ok(())
    }

    /// Notes what a prune said; `known` is what there was before it began.
    ///
    /// # Errors
    /// When it saw less than was there, or let go what was to stay.
    pub(crate) fn pruned(&mut self, known: &[String], run: Option<&Run>) -> Result<()> {
        let Some(run) = run.filter(|run| run.signal != Some(Signal::SIGKILL as i32)) else {
            self.killed_prunes += 1;
            return Ok(());
        };
        ensure!(
            run.code != Some(4) || known.is_empty(),
            "it found none of {known:?}"
        );
        let Some(view) = view(run) else {
            ensure!(!matches!(run.code, Some(0 | 3)), "it said nothing");
            return Ok(());
        };
        let deleted = ids(&view["deleted"])?;
        self.deleted.extend(deleted.iter().cloned());
        let judged = view["backups"].as_array().context("backups")?;
        let damaged = judged.iter().filter(|backup| backup["damaged"] != false);
        ensure!(damaged.count() == 0, "damaged backups: {view}");
        let seen: Vec<_> = judged.iter().map(|backup| backup["id"].clone()).collect();
        let seen = ids(&Value::Array(seen))?;
        let left = seen.iter().filter(|id| !deleted.contains(id)).cloned();
        let (unseen, gone) = (
            lost(known, &seen),
            lost(&deleted, &left.collect::<Vec<_>>()),
        );
        ensure!(unseen.is_empty(), "it did not see {unseen:?}: {view}");
        ensure!(gone.is_empty(), "it deleted {gone:?}: {view}");
        let warnings = view["warnings"].as_array().context("warnings")?;
        // Who was asked to stop may have been at the objects of a backup.
        let stopped = run.code == Some(128 + Signal::SIGTERM as i32);
        let is_due = |warning: &Value| {
            let text = warning.as_str().unwrap_or_default();
            text.contains("in use by")
                || (stopped && text.contains("objects of no backup are left"))
        };
        ensure!(warnings.iter().all(is_due), "{warnings:?}");
        Ok(())
    }

    /// Judges what is listed when all are gone and a last prune has been; says what became of the backups.
    ///
    /// # Errors
    /// When that is not what it must be.
    pub(crate) fn settle(&self, listed: &[String]) -> Result<String> {
        let known = self.known();
        let gone = lost(&known, listed);
        ensure!(gone.is_empty(), "nobody let these go: {gone:?}");
        ensure!(
            listed.len() == KEPT || known.len() < KEPT,
            "{} are kept of {}",
            listed.len(),
            known.len()
        );
        let back: Vec<_> = listed
            .iter()
            .filter(|id| self.deleted.contains(*id))
            .collect();
        ensure!(back.is_empty(), "deleted and listed: {back:?}");
        let is_silent = |id: &String| self.silent.iter().any(|names| names.contains(id));
        let told = |id: &String| self.committed.contains_key(id);
        let strangers: Vec<_> = listed
            .iter()
            .filter(|id| !told(id) && !is_silent(id))
            .collect();
        ensure!(strangers.is_empty(), "no run told of {strangers:?}");
        let is_gone = |id: &&String| !listed.contains(id);
        let unsaid = known
            .iter()
            .filter(is_gone)
            .filter(|id| !self.deleted.contains(*id));
        let unsaid = unsaid.count();
        ensure!(
            unsaid == 0 || self.killed_prunes > 0,
            "{unsaid} are gone, and no prune was killed"
        );
        Ok(format!(
            "{} backups committed, {} deleted as prunes said and {unsaid} by {} killed ones, {} kept, {} of \
             them of runs that could not say so",
            known.len(),
            self.deleted.len(),
            self.killed_prunes,
            listed.len(),
            listed.iter().filter(|id| !told(id)).count(),
        ))
    }
}

/// What a prune printed of the backups; an error may come after it.
fn view(run: &Run) -> Option<Value> {
    let text = run.text();
    let values = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    values
        .into_iter()
        .find(|value: &Value| value["deleted"].is_array())
}

fn ids(values: &Value) -> Result<Vec<String>> {
    let values = values.as_array().context("an array of ids")?;
    let ids = values.iter().map(|id| id.as_str().map(str::to_owned));
    ids.collect::<Option<_>>().context("ids")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    fn names(numbers: std::ops::Range<usize>) -> Vec<String> {
        numbers.map(|number| format!("{number:03}")).collect()
    }

    fn run(code: Option<i32>, signal: Option<i32>, said: &Value) -> Run {
        Run {
            words: String::new(),
            code,
            signal,
            elapsed: Duration::ZERO,
            stdout: said.to_string().into_bytes(),
            stderr: String::new(),
        }
    }

    fn attempt(second: u64) -> Attempt {
        let began = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
        Attempt {
            began,
            ended: began,
            states: 1..=2,
        }
    }

    fn pruned(known: usize, seen: usize, deleted: &[&str]) -> Result<()> {
        let backups: Vec<_> = names(0..seen)
            .iter()
            .map(|id| json!({"id": id, "damaged": false}))
            .collect();
        let view = json!({"backups": backups, "deleted": deleted, "warnings": []});
        Ledger::default().pruned(&names(0..known), Some(&run(Some(0), None, &view)))
    }

    #[test]
    fn only_what_is_older_than_those_kept_may_go() {
        let known = names(0..20);
        assert!(lost(&known, &names(20 - KEPT..20)).is_empty());
        assert_eq!(lost(&known, &names(21 - KEPT..20)), names(0..21 - KEPT));
        assert_eq!(lost(&known, &names(0..19)), names(19..20));
    }

    #[test]
    fn a_prune_sees_all_and_deletes_the_oldest() {
        pruned(13, 13, &["000"]).unwrap();
        pruned(12, 13, &["000"]).unwrap();
        assert!(pruned(13, 13, &["001"]).is_err());
        assert!(pruned(13, 13, &["000", "001"]).is_err());
        assert!(pruned(13, 11, &[]).is_err());
    }

    #[test]
    fn only_a_prune_that_was_stopped_leaves_objects() {
        let view = json!({
            "backups": [],
            "deleted": [],
            "warnings": ["5 objects of no backup are left; the next prune removes them"],
        });
        let judge = |code| Ledger::default().pruned(&[], Some(&run(Some(code), None, &view)));
        judge(143).unwrap();
        assert!(judge(0).is_err());
        assert!(judge(3).is_err());
    }

    #[test]
    fn a_backup_that_vanished_or_that_nobody_took_is_noticed() {
        let mut ledger = Ledger::default();
        let id = |second: u64| BackupId::new(attempt(second).began.into(), 7).to_string();
        for second in 1..=13 {
            let said = json!({"status": "success", "id": id(second)});
            let told = run(Some(0), None, &said);
            ledger.backed_up(attempt(second), Some(&told)).unwrap();
        }
        let listed: Vec<_> = (2..=13).map(id).collect();
        // Nobody said that he deleted the oldest one.
        assert!(ledger.settle(&listed).is_err());
        ledger.deleted.insert(id(1));
        ledger.settle(&listed).unwrap();
        assert!(ledger.settle(&listed[1..]).is_err());
        let strange: Vec<_> = (3..=14).map(id).collect();
        assert!(ledger.settle(&strange).is_err());
        ledger.deleted.insert(id(2));
        let failed = run(Some(8), None, &json!({}));
        ledger.backed_up(attempt(14), Some(&failed)).unwrap();
        assert!(ledger.settle(&strange).is_err());
        let killed = run(None, Some(9), &json!({}));
        ledger.backed_up(attempt(14), Some(&killed)).unwrap();
        ledger.settle(&strange).unwrap();
    }

    #[test]
    fn a_success_names_its_backup() {
        let mut ledger = Ledger::default();
        let mut told = |said: Value| ledger.backed_up(attempt(1), Some(&run(Some(0), None, &said)));
        assert!(told(json!({"status": "success", "id": null})).is_err());
        assert!(told(json!({"status": "success", "id": "20260205T030000Z-7f3a"})).is_err());
    }
}
