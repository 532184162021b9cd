//! What is to be begun at a moment. Pure.

use backup_core::run_record::Operation;
use backup_schedule::{DueRun, Missed, State, decide};
use chrono::{DateTime, Utc};

use crate::schedules::Scheduled;

/// What is to be seen to of one schedule.
#[derive(Debug)]
pub(super) struct Errand {
    /// Which schedule.
    pub(super) index: usize,
    /// What to run.
    pub(super) due: Option<DueRun>,
    /// What did not run.
    pub(super) missed: Vec<Missed>,
    /// Whether there is more of that.
    pub(super) more_missed: bool,
}

struct Entry {
    scheduled: Scheduled,
    state: State,
    /// Whether somebody sees to it now.
    busy: bool,
}

/// All schedules, and how far each is.
pub(super) struct Planner(Vec<Entry>);

impl Planner {
    /// Of schedules that are looked after from a moment on.
    pub(super) fn new(scheduled: Vec<Scheduled>, since: DateTime<Utc>) -> Self {
        let entry = |scheduled| Entry {
            scheduled,
            state: State::new(since),
            busy: false,
        };
        Self(scheduled.into_iter().map(entry).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn scheduled(&self, index: usize) -> &Scheduled {
        &self.0[index].scheduled
    }

    pub(super) fn schedules(&self) -> Vec<Scheduled> {
        self.0.iter().map(|entry| entry.scheduled.clone()).collect()
    }

    /// A place says that a slot was run.
    pub(super) fn recall(
        &mut self,
        operation: &Operation,
        source: Option<&str>,
        slot: DateTime<Utc>,
    ) {
        for entry in &mut self.0 {
            if concerns(&entry.scheduled, operation, source) {
                entry.state.settle(slot);
            }
        }
    }

    /// What is to be seen to now. Whoever is sent comes back, and until then nobody else is.
    pub(super) fn tick(&mut self, now: DateTime<Utc>) -> Vec<Errand> {
        let mut errands = Vec::new();
        for (index, entry) in self.0.iter_mut().enumerate() {
            if entry.busy {
                continue;
            }
            let due = decide(&entry.scheduled.job, &entry.state, now);
            if let Some(last) = due.missed.last() {
                entry.state.told(last.slot);
            }
            if due.run.is_none() && due.missed.is_empty() {
                continue;
            }
            entry.busy = true;
            errands.push(Errand {
                index,
                due: due.run,
                missed: due.missed,
                more_missed: due.more_missed,
            });
        }
        errands
    }

    /// Somebody came back, and has settled a slot or not.
    pub(super) fn back(&mut self, index: usize, settled: Option<DateTime<Utc>>) {
        let entry = &mut self.0[index];
        entry.busy = false;
        if let Some(slot) = settled {
            entry.state.settle(slot);
        }
    }
}

/// Whether what is known of a slot is about this schedule.
pub(super) fn concerns(scheduled: &Scheduled, operation: &Operation, source: Option<&str>) -> bool {
    scheduled.operation == *operation && scheduled.source.as_deref() == source
}

#[cfg(test)]
mod tests {
    use backup_config::{Config, Environment};

    use super::*;

    fn planner(since: &str) -> Planner {
        let toml = "
            [source.shop]
            schedule = '0 3 * * *'
            [source.crowd]
            schedule = '30 3 * * *'
            [prune]
            schedule = '0 3 * * *'";
        let config = Config::from_toml(toml, &Environment::default()).unwrap();
        let all = crate::schedules::schedules(&config).map_err(|wrong| wrong.message);
        Planner::new(all.unwrap(), at(since))
    }

    fn at(text: &str) -> DateTime<Utc> {
        format!("2026-03-{}:00Z", text.replace(' ', "T"))
            .parse()
            .unwrap()
    }

    /// Names of what is to be seen to, with what was missed.
    fn names(planner: &mut Planner, now: &str) -> Vec<String> {
        let errands = planner.tick(at(now));
        let name = |errand: &Errand| {
            let scheduled = planner.scheduled(errand.index);
            let source = scheduled.source.as_deref().unwrap_or("-");
            let run = if errand.due.is_some() { "" } else { " none" };
            let missed = errand.missed.len();
            format!("{} {source} {missed}{run}", scheduled.operation)
        };
        errands.iter().map(name).collect()
    }

    #[test]
    fn what_is_due_is_seen_to_once() {
        let mut planner = planner("01 12:00");
        assert!(names(&mut planner, "01 12:00").is_empty());
        let expected = ["backup shop 0", "prune - 0"];
        assert_eq!(names(&mut planner, "02 03:00"), expected);
        // It takes until after the next one.
        let busy = names(&mut planner, "02 03:31");
        assert_eq!(busy, ["backup crowd 0"]);
        planner.back(1, Some(at("02 03:00")));
        planner.back(0, None);
        planner.back(2, Some(at("02 03:00")));
        // What could not begin is tried again while there is time.
        assert_eq!(names(&mut planner, "02 03:32"), ["backup crowd 0"]);
        planner.back(0, Some(at("02 03:30")));
        assert!(names(&mut planner, "02 03:33").is_empty());
    }

    #[test]
    fn what_records_tell_is_not_run_again_after_a_restart() {
        let mut planner = planner("02 03:01");
        planner.recall(&Operation::Backup, Some("shop"), at("02 03:00"));
        planner.recall(&Operation::Backup, Some("crowd"), at("01 03:30"));
        planner.recall(&Operation::Prune, None, at("01 03:00"));
        // One of several is not all of them.
        planner.recall(&Operation::Backup, Some("crowd/a"), at("02 03:30"));
        planner.recall(&Operation::Prune, Some("shop"), at("02 03:00"));
        // The prune of today was not begun, and there is time for it.
        assert_eq!(names(&mut planner, "02 03:01"), ["prune - 0"]);
        assert_eq!(names(&mut planner, "02 03:30"), ["backup crowd 0"]);
    }

    #[test]
    fn what_was_missed_is_told_once() {
        let mut planner = planner("01 12:00");
        let expected = [
            "backup crowd 3 none",
            "backup shop 3 none",
            "prune - 3 none",
        ];
        assert_eq!(names(&mut planner, "04 12:00"), expected);
        for index in 0..3 {
            planner.back(index, None);
        }
        assert!(names(&mut planner, "04 12:01").is_empty());
        let due = names(&mut planner, "05 03:00");
        assert_eq!(due, ["backup shop 0", "prune - 0"]);
    }
}
