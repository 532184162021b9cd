//! What happens to a run, drawn at random, and how it may end then.

use std::time::Duration;

use backup_e2e::cli::Run;
use backup_e2e::fault::{Action, Direction, Faults};
use nix::sys::signal::Signal;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

/// What is done to a run.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fate {
    Calm,
    Signal(Signal, Duration),
}

/// What one worker draws from: the same for the same seed. Which moments of the others its draws meet is
/// not.
#[derive(Debug)]
pub(crate) struct Dice(StdRng);

impl Dice {
    pub(crate) fn new(seed: u64, worker: u64) -> Self {
        Self(StdRng::seed_from_u64(seed ^ (worker << 56)))
    }

    pub(crate) fn one_of<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        all.choose(&mut self.0)
    }

    pub(crate) fn fate(&mut self) -> Fate {
        let after = Duration::from_millis(self.0.random_range(0..2500));
        match self.0.random_range(0..100) {
            0..20 => Fate::Signal(Signal::SIGKILL, after),
            20..30 => Fate::Signal(Signal::SIGTERM, after),
            _ => Fate::Calm,
        }
    }

    /// How the way to the store is for one run.
    pub(crate) fn weather(&mut self) -> Faults {
        let good = Faults::default();
        // Of one connection. What a store answers to a backup is short.
        let sent = self.0.random_range(0..3_000_000);
        let answered = self.0.random_range(0..3000);
        let resets = self.0.random_range(1..6);
        match self.0.random_range(0..100) {
            0..10 => Faults::after(Action::Reset, Direction::ToServer, sent, resets),
            10..15 => Faults::after(Action::Close, Direction::ToClient, answered, 2),
            15..18 => Faults {
                refuse: true,
                ..good
            },
            18..25 => Faults {
                latency: Duration::from_millis(20),
                ..good
            },
            25..30 => Faults {
                bytes_per_second: Some(4_000_000),
                ..good
            },
            _ => good,
        }
    }
}

impl Fate {
    /// Whether a run of this command may end so. `fair` is the weather when the store was within reach all
    /// the time, however slow.
    pub(crate) fn allows(self, command: &str, fair: bool, run: &Run) -> bool {
        match (run.code, run.signal, self) {
            (None, Some(signal), Self::Signal(sent, _)) => signal == sent as i32,
            (Some(143), _, Self::Signal(sent, _)) => sent == Signal::SIGTERM,
            (Some(code), ..) => usual(command, fair).contains(&code),
            _ => false,
        }
    }
}

/// How a run ends to which nothing was done: well, because another run has the source (5), because the backup
/// is gone meanwhile (4), because of the store (8), or because another took the source over from one that
/// could not say for long that it is alive (1).
fn usual(command: &str, fair: bool) -> &'static [i32] {
    match (command, fair) {
        ("backup", true) => &[0, 5],
        ("backup", false) => &[0, 1, 5, 8],
        // What is being read stays, which is a warning (3). Before the first backup there is nothing (4).
        ("prune", _) => &[0, 3, 4],
        ("verify" | "restore", _) => &[0, 4],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(code: Option<i32>, signal: Option<i32>) -> Run {
        Run {
            words: String::new(),
            code,
            signal,
            elapsed: Duration::ZERO,
            stdout: Vec::new(),
            stderr: String::new(),
        }
    }

    #[test]
    fn only_the_signal_that_was_sent_excuses() {
        let killed = Fate::Signal(Signal::SIGKILL, Duration::ZERO);
        let asked = Fate::Signal(Signal::SIGTERM, Duration::ZERO);
        let by = |signal: Signal| run(None, Some(signal as i32));
        assert!(killed.allows("backup", true, &by(Signal::SIGKILL)));
        assert!(!killed.allows("backup", true, &by(Signal::SIGSEGV)));
        assert!(!Fate::Calm.allows("backup", true, &by(Signal::SIGKILL)));
        assert!(asked.allows("backup", true, &run(Some(143), None)));
        assert!(!killed.allows("backup", true, &run(Some(143), None)));
        assert!(!Fate::Calm.allows("backup", true, &run(Some(143), None)));
    }

    #[test]
    fn the_store_is_an_excuse_in_bad_weather_alone() {
        let failed = run(Some(8), None);
        assert!(Fate::Calm.allows("backup", false, &failed));
        assert!(!Fate::Calm.allows("backup", true, &failed));
        assert!(!Fate::Calm.allows("restore", true, &failed));
    }
}
