//! Runs that die at a chosen moment.
//!
//! A moment is whatever a program is about to change outside of itself: a file that it makes, renames or
//! removes, a request that puts or deletes an object, a statement to PostgreSQL. `crash.c` counts them
//! inside the program as it is shipped, and kills it before the one that is asked for. So nothing has to be
//! built for it, no place can be forgotten, and each has a name.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, ensure};

use crate::cli::{Run, Running};
use crate::scratch::Scratch;

/// No command changes so many things; a run that never gets to its end is an error.
const MOST: usize = 500;

/// The library that kills.
#[derive(Debug)]
pub struct Moments {
    scratch: Scratch,
    library: PathBuf,
    runs: AtomicU32,
}

/// A run that was watched.
#[derive(Debug)]
pub struct Watched {
    /// How it ended.
    pub run: Run,
    /// What it did, or was about to do when it died.
    pub moments: Vec<String>,
}

impl Watched {
    /// What it was about to do when it was killed; `None` if it got to its end.
    #[must_use]
    pub fn death(&self) -> Option<&str> {
        let killed = self.run.signal == Some(9);
        self.moments.last().map(String::as_str).filter(|_| killed)
    }
}

impl Moments {
    /// Compiles the library.
    ///
    /// # Errors
    /// When there is no compiler.
    pub fn new() -> Result<Self> {
        let scratch = Scratch::new()?;
        let library = scratch.path().join("crash.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/crash.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]);
        compiler.arg(&library).arg(source);
        Running::start(compiler)?.wait()?.exits(0)?;
        Ok(Self {
            scratch,
            library,
            runs: AtomicU32::new(0),
        })
    }

    /// Runs a command of [`crate::cli::Cli::command`] to its end, or to the moment number `at`, from 1.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn run(&self, mut command: Command, at: Option<usize>) -> Result<Watched> {
        let number = self.runs.fetch_add(1, Ordering::Relaxed);
        let log = self.scratch.path().join(format!("moments-{number}"));
        command
            .env("LD_PRELOAD", &self.library)
            .env("TEST_CRASH_PROGRAM", "backup-cli")
            .env("TEST_CRASH_LOG", &log);
        if let Some(at) = at {
            command.env("TEST_CRASH_AT", at.to_string());
        }
        let run = Running::start(command)?.wait()?;
        let lines = fs::read_to_string(&log).unwrap_or_default();
        let moments: Vec<_> = lines.lines().map(str::to_owned).collect();
        Ok(Watched { run, moments })
    }

    /// Lets a command die before each `step`th of its moments, until it gets to its end with `code`.
    /// After each death, `check` looks at what it left and makes it ready for the next one. How many
    /// deaths there were.
    ///
    /// # Errors
    /// With the moment, when a check fails.
    pub fn each(
        &self,
        (step, code): (usize, i32),
        command: impl Fn() -> Result<Command>,
        mut check: impl FnMut(&str) -> Result<()>,
    ) -> Result<usize> {
        for (deaths, at) in (1..MOST).step_by(step).enumerate() {
            let watched = self.run(command()?, Some(at))?;
            let Some(moment) = watched.death() else {
                watched.run.exits(code)?;
                ensure!(deaths > 0, "it was not killed once");
                return Ok(deaths);
            };
            check(moment).with_context(|| format!("killed before {moment}"))?;
        }
        anyhow::bail!("it has not come to its end after {MOST} moments")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shell is not the program that is meant.
    #[test]
    fn another_program_is_left_alone() {
        let moments = Moments::new().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "> made; rm made; echo done"]);
        command.current_dir(moments.scratch.path());
        let watched = moments.run(command, Some(1)).unwrap();
        assert_eq!(watched.run.text(), "done\n");
        assert!(watched.moments.is_empty(), "{:?}", watched.moments);
    }

    /// Under the program's name, it dies before it makes the second file.
    #[test]
    fn the_moment_that_is_asked_for_is_the_last() {
        let moments = Moments::new().unwrap();
        let program = moments.scratch.path().join("backup-cli");
        fs::copy("/bin/mkdir", &program).unwrap();
        let make = |at| {
            let mut command = Command::new(&program);
            command.args(["one", "two", "three"]);
            command.current_dir(moments.scratch.path());
            moments.run(command, at).unwrap()
        };
        let killed = make(Some(2));
        assert_eq!(killed.death(), Some("2 make two"));
        let there = |name: &str| moments.scratch.path().join(name).exists();
        assert_eq!((there("one"), there("two")), (true, false));
        let whole = make(None);
        assert_eq!(whole.death(), None);
        assert!(there("three"));
    }
}
