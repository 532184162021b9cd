//! Runs of the program under test, and what is left of them in the process table.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use nix::sys::signal::Signal;

use crate::cli::Running;

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(20);

/// A run in progress; killed on drop.
#[derive(Debug)]
pub struct Run {
    running: Running,
    peak_memory: u64,
}

/// A run that has ended.
#[derive(Debug)]
pub struct Done {
    /// The exit code, as a shell tells it: 128 and the signal's number after a signal.
    pub code: i32,
    /// What it printed.
    pub stdout: String,
    /// What it said beside.
    pub stderr: String,
    /// How long it took.
    pub elapsed: Duration,
    /// The most memory that it was seen to hold at one time, in bytes.
    pub peak_memory: u64,
}

impl Done {
    /// Both outputs, for a search.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    /// The run, if it ended with `code` and said all of `words`.
    ///
    /// # Errors
    ///
    /// Otherwise; the error has all that the run said.
    pub fn expect(self, code: i32, words: &[&str]) -> Result<Self> {
        let text = self.text();
        let missing = words.iter().find(|word| !text.contains(**word));
        if self.code != code || missing.is_some() {
            let missing = missing.map_or(String::new(), |word| format!(" and the word {word:?}"));
            bail!(
                "wanted code {code}{missing}; the run ended with {} after {:?}, saying:\n{text}",
                self.code,
                self.elapsed
            );
        }
        Ok(self)
    }
}

impl Run {
    pub(super) fn start(command: Command) -> Result<Self> {
        Ok(Self {
            running: Running::start(command)?,
            peak_memory: 0,
        })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// Sends it a signal.
    ///
    /// # Errors
    ///
    /// When it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.running.signal(signal)
    }

    /// Waits until `condition` holds while it runs.
    ///
    /// # Errors
    ///
    /// When the run ends before, or a minute passes.
    pub fn wait_until(
        &mut self,
        what: &str,
        mut condition: impl FnMut() -> Result<bool>,
    ) -> Result<()> {
        let deadline = Instant::now() + Duration::from_mins(1);
        while !condition()? {
            ensure!(!self.has_ended()?, "the run ended before {what}");
            ensure!(Instant::now() < deadline, "a minute passed without {what}");
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Waits for its end.
    ///
    /// # Errors
    ///
    /// When it takes longer than `limit` from now; it is killed then.
    pub fn finish(mut self, limit: Duration) -> Result<Done> {
        let deadline = Instant::now() + limit;
        while !self.has_ended()? {
            ensure!(
                Instant::now() < deadline,
                "the run has not ended within {limit:?}"
            );
            thread::sleep(POLL);
        }
        let run = self.running.wait()?;
        let signal = run.signal.map(|number| 128 + number);
        Ok(Done {
            code: run.code.or(signal).unwrap_or(-1),
            stdout: run.text(),
            elapsed: run.elapsed,
            stderr: run.stderr,
            peak_memory: self.peak_memory,
        })
    }

    /// Whether it has ended; looks at its memory, too.
    ///
    /// # Errors
    ///
    /// When the system does not say.
    pub fn has_ended(&mut self) -> Result<bool> {
        let peak = memory_peak(self.pid()).unwrap_or(0);
        self.peak_memory = self.peak_memory.max(peak);
        self.running.has_ended()
    }
}

/// `VmHWM`: the most resident memory that a process has had, in bytes.
fn memory_peak(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kilobytes << 10)
}

/// A process that is not of the test itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// Its arguments.
    pub command_line: String,
    /// Its environment, as `NAME=value`.
    pub environment: Vec<String>,
}

/// The living processes that have one of `variables`, as `NAME=value`, in their environment.
///
/// The children of the program under test get an environment of its making and a session of their
/// own, so that after its death nothing else tells whose they are.
#[must_use]
pub fn processes_with(variables: &[String]) -> Vec<Process> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // It may have ended in between; a dead one that nobody has waited for has none.
        let Ok(environment) = fs::read(entry.path().join("environ")) else {
            continue;
        };
        let environment = fields(&environment);
        if environment.iter().any(|field| variables.contains(field)) {
            let arguments = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            found.push(Process {
                pid,
                command_line: fields(&arguments).join(" "),
                environment,
            });
        }
    }
    found
}

fn fields(bytes: &[u8]) -> Vec<String> {
    let fields = bytes.split(|byte| *byte == 0).filter(|f| !f.is_empty());
    fields
        .map(|field| String::from_utf8_lossy(field).into_owned())
        .collect()
}

/// Waits until `condition` says nothing any more.
///
/// # Errors
///
/// With its last words, when it still says something after `limit`.
pub fn wait_for_silence(
    limit: Duration,
    mut condition: impl FnMut() -> Result<Option<String>>,
) -> Result<()> {
    let deadline = Instant::now() + limit;
    loop {
        match condition()? {
            None => return Ok(()),
            Some(words) if Instant::now() > deadline => bail!("after {limit:?} still {words}"),
            Some(_) => thread::sleep(POLL),
        }
    }
}
