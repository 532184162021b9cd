//! Client programs that misbehave on request.
//!
//! A folder of shell scripts in the place of `pg_dump`, `pg_restore` and `pg_dumpall`. Each hands
//! over to the real program unless told otherwise, so that a fault strikes one part of a backup
//! while the others are made as ever.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use backup_testing::write_program;

use crate::scratch::Scratch;

const TOOLS: [&str; 3] = ["pg_dump", "pg_restore", "pg_dumpall"];

/// Which calls of a program misbehave: those with this text among their arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calls {
    /// `pg_dump` for rows.
    Data,
    /// `pg_dump` for definitions.
    Schema,
    /// All but `--version`.
    All,
}

impl Calls {
    fn pattern(self) -> &'static str {
        match self {
            Self::Data => "*--section=data*",
            Self::Schema => "*--section=pre-data*",
            Self::All => "*",
        }
    }
}

/// A folder of programs for `bin_dir`; removed on drop.
#[derive(Debug)]
pub struct FakeTools {
    scratch: Scratch,
    real: PathBuf,
}

impl FakeTools {
    /// Scripts that do what the programs in `real` do.
    ///
    /// # Errors
    ///
    /// When they cannot be written.
    pub fn new(real: &Path) -> Result<Self> {
        let fakes = Self {
            scratch: Scratch::new()?,
            real: real.to_owned(),
        };
        for tool in TOOLS {
            fakes.write(tool, Calls::All, "exec \"$real\" \"$@\"")?;
        }
        Ok(fakes)
    }

    /// The folder.
    #[must_use]
    pub fn bin_dir(&self) -> &Path {
        self.scratch.path()
    }

    /// Makes `calls` of `tool` run `body` instead, in bash: `$real` is the real program, `"$@"` are
    /// the arguments, `$dir` is this folder.
    ///
    /// # Errors
    ///
    /// When the script cannot be written.
    pub fn misbehave(&self, tool: &str, calls: Calls, body: &str) -> Result<()> {
        self.write(tool, calls, body)
    }

    /// A file in the folder, for a script and a test to tell each other something.
    #[must_use]
    pub fn flag(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn write(&self, tool: &str, calls: Calls, body: &str) -> Result<()> {
        let script = format!(
            "#!/bin/bash\n\
             PATH=/usr/bin:/bin\n\
             real='{real}/{tool}'\n\
             dir='{dir}'\n\
             case \"$*\" in *--version*) exec \"$real\" \"$@\" ;; esac\n\
             case \"$*\" in {pattern}) ;; *) exec \"$real\" \"$@\" ;; esac\n\
             {body}\n",
            real = self.real.display(),
            dir = self.scratch.path().display(),
            pattern = calls.pattern(),
        );
        let path = self.flag(tool);
        write_program(&path, &script).with_context(|| format!("replace {}", path.display()))
    }
}

/// For [`FakeTools::misbehave`]: writes the first `bytes` of what the program would write, makes
/// the file `paused`, and goes on when there is a file `go`. The first failure counts.
#[must_use]
pub fn pause_after(bytes: u64) -> String {
    format!(
        "set -o pipefail\n\
         \"$real\" \"$@\" | {{ head -c {bytes}; touch \"$dir/paused\"; \
         until [ -e \"$dir/go\" -o ! -d \"$dir\" ]; do sleep 0.05; done; cat; }}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::child;
    use std::process::Command;

    fn call(fakes: &FakeTools, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(fakes.flag("pg_dump"));
        command.args(arguments);
        child::run(command)
    }

    #[test]
    fn only_the_chosen_calls_misbehave() {
        let real = Scratch::new().unwrap();
        for tool in TOOLS {
            let path = real.path().join(tool);
            write_program(&path, "#!/bin/sh\necho real \"$@\"\n").unwrap();
        }
        let fakes = FakeTools::new(real.path()).unwrap();
        assert_eq!(
            call(&fakes, &["--section=data"]).unwrap(),
            "real --section=data\n"
        );
        let body = "echo why >&2; exit 1";
        fakes.misbehave("pg_dump", Calls::Data, body).unwrap();
        assert!(call(&fakes, &["--section=data"]).is_err());
        assert_eq!(call(&fakes, &["--version"]).unwrap(), "real --version\n");
        assert_eq!(
            call(&fakes, &["--section=pre-data"]).unwrap(),
            "real --section=pre-data\n"
        );
    }
}
