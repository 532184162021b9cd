//! Which step of a load may start when.
//!
//! Steps are numbered in the archive's own order, which is an order in which they could run one
//! after the other. Running them at once needs more care: a step starts when the steps it depends
//! on are done and no running step holds a relation against it. Nothing waits for a section to end,
//! so a table's indexes are built while other tables still load.
//!
//! The rules are those of `pg_restore --jobs`
//! (<https://www.postgresql.org/docs/current/app-pgrestore.html>), with two differences: what is
//! most urgent is decided by the whole chain of steps that waits for a step, and cheap steps are
//! handed out in batches, because each one alone would cost a process and a connection.

use std::collections::HashMap;

/// Costs are in bytes of COPY text, the unit in which loading a table costs its size.
const MEBIBYTE: u64 = 1 << 20;

/// A step from this cost on gets a process of its own: some tens of milliseconds of work.
const ALONE: u64 = 4 * MEBIBYTE;

/// A batch is not filled beyond this, so that the other slots do not stand idle meanwhile.
const LARGEST_BATCH: u64 = 32 * MEBIBYTE;

/// A batch may have this much even when there is too little to go round: a process costs more.
const SMALLEST_BATCH: u64 = 4 * MEBIBYTE;

/// When a step runs, whatever it depends on. As in `pg_restore`, privileges come after everything
/// that needs the owner's, and queries that may read anything come after the privileges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Pass {
    /// Data, indexes, constraints and all else.
    Main,
    /// GRANT and REVOKE.
    Privileges,
    /// Queries of materialized views.
    Refresh,
    /// Event triggers, which would fire on all the rest.
    EventTriggers,
}

impl Pass {
    const ALL: [Self; 4] = [
        Self::Main,
        Self::Privileges,
        Self::Refresh,
        Self::EventTriggers,
    ];
}

/// What a step locks while it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Locks {
    /// These relations, in company of others that share them: CREATE INDEX.
    Shared(Vec<u32>),
    /// These relations, alone.
    Exclusive(Vec<u32>),
    /// Nobody knows: nothing else may run.
    Everything,
}

/// One step.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    /// Steps that must be done before, all with lower numbers.
    pub(crate) after: Vec<usize>,
    /// When it runs.
    pub(crate) pass: Pass,
    /// What it locks.
    pub(crate) locks: Locks,
    /// How long it takes, in bytes of table data that load in the same time.
    pub(crate) cost: u64,
    /// Whether it can share a process with others.
    pub(crate) batchable: bool,
}

impl Step {
    fn is_small(&self) -> bool {
        self.batchable && self.cost < ALONE && self.locks != Locks::Everything
    }
}

/// A step depends on one that does not come before it, so that neither order is possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("step {step} depends on step {on}, which comes later")]
pub(crate) struct CycleError {
    /// The step.
    pub(crate) step: usize,
    /// What it depends on.
    pub(crate) on: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Pending,
    Running,
    Done,
}

/// Hands out steps. The caller runs what [`next`](Self::next) gives and says when it is done.
#[derive(Debug)]
pub(crate) struct Schedule {
    steps: Vec<Step>,
    states: Vec<State>,
    /// For each step, how many that it depends on are not done.
    waits: Vec<usize>,
    dependents: Vec<Vec<usize>>,
    /// Pending steps, the most urgent first.
    urgent: Vec<usize>,
    /// Steps not done, by pass.
    left: HashMap<Pass, usize>,
    held: Held,
    jobs: usize,
}

impl Schedule {
    /// Plans `steps` for `jobs` slots.
    pub(crate) fn new(steps: Vec<Step>, jobs: usize) -> Result<Self, CycleError> {
        let mut dependents = vec![Vec::new(); steps.len()];
        let mut left = HashMap::new();
        for (id, step) in steps.iter().enumerate() {
            *left.entry(step.pass).or_default() += 1;
            for &on in &step.after {
                if on >= id {
                    return Err(CycleError { step: id, on });
                }
                dependents[on].push(id);
            }
        }
        let urgency = urgencies(&steps, &dependents);
        let mut urgent: Vec<usize> = (0..steps.len()).collect();
        urgent.sort_by_key(|&id| std::cmp::Reverse(urgency[id]));
        Ok(Self {
            states: vec![State::Pending; steps.len()],
            waits: steps.iter().map(|step| step.after.len()).collect(),
            dependents,
            urgent,
            left,
            held: Held::default(),
            jobs: jobs.max(1),
            steps,
        })
    }

    /// Whether every step is done.
    pub(crate) fn is_finished(&self) -> bool {
        self.left.values().all(|&left| left == 0)
    }

    /// Takes what can start now: one step, or several small ones in the order in which one process
    /// has to run them. `None` until something running is done, or for ever when all is done.
    pub(crate) fn next(&mut self) -> Option<Vec<usize>> {
        let pass = self.pass()?;
        let first = self.urgent.iter().copied().find(|&id| {
            self.waits[id] == 0
                && self.steps[id].pass == pass
                && self.held.admits(&self.steps[id].locks)
        })?;
        let batch = if self.steps[first].is_small() {
            self.batch(first, pass)
        } else {
            vec![first]
        };
        for &id in &batch {
            self.states[id] = State::Running;
            self.held.take(&self.steps[id].locks);
        }
        let states = &self.states;
        self.urgent.retain(|&id| states[id] == State::Pending);
        Some(batch)
    }

    /// Says that what `next` gave is done.
    pub(crate) fn finish(&mut self, batch: &[usize]) {
        for &id in batch {
            debug_assert_eq!(self.states[id], State::Running, "step {id}");
            self.states[id] = State::Done;
            self.held.release(&self.steps[id].locks);
            if let Some(left) = self.left.get_mut(&self.steps[id].pass) {
                *left -= 1;
            }
            for &dependent in &self.dependents[id] {
                self.waits[dependent] -= 1;
            }
        }
    }

    /// The first pass with something left.
    fn pass(&self) -> Option<Pass> {
        Pass::ALL
            .into_iter()
            .find(|pass| self.left.get(pass).is_some_and(|&left| left > 0))
    }

    /// `first` and other small steps. They run one after the other in the archive's order, so a
    /// step may depend on another one of the batch.
    fn batch(&self, first: usize, pass: Pass) -> Vec<usize> {
        let mut small: Vec<usize> = self.urgent.clone();
        small.retain(|&id| self.steps[id].pass == pass && self.steps[id].is_small());
        small.sort_unstable();
        let total: u64 = small.iter().map(|&id| self.steps[id].cost).sum();
        let share = total / u64::try_from(self.jobs).unwrap_or(u64::MAX);
        let limit = share.clamp(SMALLEST_BATCH, LARGEST_BATCH);

        let mut chosen = vec![false; self.steps.len()];
        chosen[first] = true;
        let mut cost = self.steps[first].cost;
        for id in small {
            let step = &self.steps[id];
            let ready = |&on: &usize| self.states[on] == State::Done || chosen[on];
            let fits = cost + step.cost <= limit;
            if fits && !chosen[id] && self.held.admits(&step.locks) && step.after.iter().all(ready)
            {
                chosen[id] = true;
                cost += step.cost;
            }
        }
        (0..chosen.len()).filter(|&id| chosen[id]).collect()
    }
}

/// For each step, the cost of the longest chain of steps that starts with it.
fn urgencies(steps: &[Step], dependents: &[Vec<usize>]) -> Vec<u64> {
    let mut urgencies = vec![0; steps.len()];
    for id in (0..steps.len()).rev() {
        let longest = dependents[id].iter().map(|&next| urgencies[next]).max();
        urgencies[id] = steps[id].cost.saturating_add(longest.unwrap_or(0));
    }
    urgencies
}

/// What running steps hold.
#[derive(Debug, Default)]
struct Held {
    steps: usize,
    everything: bool,
    shared: HashMap<u32, usize>,
    exclusive: HashMap<u32, usize>,
}

impl Held {
    fn admits(&self, locks: &Locks) -> bool {
        if self.everything {
            return false;
        }
        match locks {
            Locks::Everything => self.steps == 0,
            Locks::Shared(ids) => !ids.iter().any(|id| self.exclusive.contains_key(id)),
            Locks::Exclusive(ids) => !ids
                .iter()
                .any(|id| self.exclusive.contains_key(id) || self.shared.contains_key(id)),
        }
    }

    fn take(&mut self, locks: &Locks) {
        self.steps += 1;
        match locks {
            Locks::Everything => self.everything = true,
            Locks::Shared(ids) => count_up(&mut self.shared, ids),
            Locks::Exclusive(ids) => count_up(&mut self.exclusive, ids),
        }
    }

    fn release(&mut self, locks: &Locks) {
        self.steps -= 1;
        match locks {
            Locks::Everything => self.everything = false,
            Locks::Shared(ids) => count_down(&mut self.shared, ids),
            Locks::Exclusive(ids) => count_down(&mut self.exclusive, ids),
        }
    }
}

fn count_up(counts: &mut HashMap<u32, usize>, ids: &[u32]) {
    for &id in ids {
        *counts.entry(id).or_default() += 1;
    }
}

fn count_down(counts: &mut HashMap<u32, usize>, ids: &[u32]) {
    for id in ids {
        if let Some(count) = counts.get_mut(id) {
            *count -= 1;
            if *count == 0 {
                counts.remove(id);
            }
        }
    }
}

#[cfg(test)]
mod tests;
