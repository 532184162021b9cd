//! Command lines of what the program under test runs, which everybody on the host can read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::{Condvar, Mutex, MutexGuard, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::{Canaries, Kind};

/// How often is looked while something runs.
const PERIOD: Duration = Duration::from_millis(100);

/// So often a new process is looked at each time, and an older one every so many times.
const YOUNG: u32 = 4;
const OLD: u32 = 20;

/// The runs under way.
static RUNS: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());
static BEGUN: Condvar = Condvar::new();

/// A run whose children are watched until this is dropped.
///
/// Its own command line is what a test made it.
#[derive(Debug)]
pub(crate) struct Watched(u32);

impl Watched {
    pub(crate) fn new(pid: u32) -> Self {
        static START: Once = Once::new();
        START.call_once(|| {
            thread::spawn(watch);
        });
        runs().insert(pid);
        BEGUN.notify_all();
        Self(pid)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        runs().remove(&self.0);
    }
}

fn runs() -> MutexGuard<'static, BTreeSet<u32>> {
    RUNS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn watch() {
    let mut known = Known::default();
    loop {
        let waited = BEGUN.wait_while(runs(), |runs| runs.is_empty());
        let roots = waited.unwrap_or_else(PoisonError::into_inner).clone();
        look(Canaries::ours(), &roots, &mut known);
        thread::sleep(PERIOD);
    }
}

/// The processes there are.
#[derive(Debug, Default)]
struct Known {
    /// Whose children they are, and how often each was seen.
    processes: BTreeMap<u32, (u32, u32)>,
}

impl Known {
    /// Those to look at: the young ones, which may still become another program, and now and then all.
    fn due(&mut self) -> Vec<u32> {
        let mut there = BTreeMap::new();
        let mut due = Vec::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let known = self.processes.get(&pid).copied();
            let (parent, seen) = known.unwrap_or_default();
            let is_due = seen < YOUNG || seen.is_multiple_of(OLD);
            // It may have ended in between.
            let parent = if is_due { parent_of(pid) } else { Some(parent) };
            if let Some(parent) = parent {
                there.insert(pid, (parent, seen + 1));
                due.extend(is_due.then_some(pid));
            }
        }
        self.processes = there;
        due
    }

    fn comes_of(&self, pid: u32, roots: &BTreeSet<u32>) -> bool {
        let parent = |pid: u32| self.processes.get(&pid).map(|(parent, _)| *parent);
        let mut next = parent(pid);
        while let Some(own) = next.filter(|own| *own > 1) {
            if roots.contains(&own) {
                return true;
            }
            next = parent(own);
        }
        false
    }
}

/// Looks once at everything that comes of `roots`.
fn look(canaries: &Canaries, roots: &BTreeSet<u32>, known: &mut Known) {
    let begun = Instant::now();
    let mut due = known.due();
    due.retain(|pid| !roots.contains(pid) && known.comes_of(*pid, roots));
    canaries.spend(begun);
    for pid in due {
        let mut line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        for byte in &mut line {
            if *byte == 0 {
                *byte = b' ';
            }
        }
        // Whoever waits for the run is told.
        let _ = canaries.look(Kind::CommandLine, "a command line", &line, true);
    }
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // "pid (name) state parent …", where the name may contain anything.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// A shell whose child has these words on its command line.
    fn shell(words: &str) -> Child {
        let script = format!("sleep 60 {words} & wait");
        let mut command = Command::new("sh");
        command.args(["-c", &script]).stdout(Stdio::null());
        command.spawn().unwrap()
    }

    fn end(mut shell: Child) {
        let mut known = Known::default();
        known.due();
        for (pid, (parent, _)) in known.processes {
            if parent == shell.id() {
                let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
                nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
            }
        }
        shell.kill().unwrap();
        shell.wait().unwrap();
    }

    #[test]
    fn a_secret_on_a_command_line_of_a_child_is_found_and_no_other() {
        let canaries = Canaries::default();
        canaries.keep("0.000000314159265");
        canaries.keep("0.000000271828182");
        let (run, stranger) = (shell("0.000000314159265"), shell("0.000000271828182"));
        let deadline = Instant::now() + Duration::from_secs(20);
        let (roots, mut known) = (BTreeSet::from([run.id()]), Known::default());
        while canaries.settle().is_ok() {
            look(&canaries, &roots, &mut known);
            assert!(Instant::now() < deadline, "nothing was found");
            thread::sleep(Duration::from_millis(10));
        }
        let found = canaries.settle().unwrap_err().to_string();
        end(run);
        end(stranger);
        assert!(found.contains("sleep 60 0.000000314159265"), "{found}");
        assert!(!found.contains("271828182"), "{found}");
        assert!(canaries.seen().command_lines > 0);
    }
}
