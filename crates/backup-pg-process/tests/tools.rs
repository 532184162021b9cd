//! Which of the installed client programs are used. The programs are shell scripts.
#![expect(
    clippy::unwrap_used,
    reason = "clippy takes helpers of tests for no tests"
)]

use std::path::PathBuf;

use backup_core::error::{ErrorKind, PortError};
use backup_pg_process::ToolLocator;
use backup_testing::write_program;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

struct Fake {
    directory: TempDir,
}

impl Fake {
    /// A `pg_dump` that runs `script`. Each process it starts writes its number into a file.
    fn new(script: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let fake = Self { directory };
        fake.write("pg_dump", script);
        fake
    }

    fn write(&self, name: &str, script: &str) {
        let pids = self.pid_file();
        let text = format!("#!/bin/sh\necho $$ >> {}\n{script}\n", pids.display());
        write_program(&self.path(name), &text).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn pid_file(&self) -> PathBuf {
        self.path("pids")
    }
}

#[tokio::test]
async fn tools_are_chosen_by_the_version_they_print() {
    let old = Fake::new("echo 'pg_dump (PostgreSQL) 15.18'");
    let new = Fake::new("echo 'pg_dump (PostgreSQL) 18.6'");
    let mute = Fake::new("exit 1");
    let dirs = [&old, &new, &mute].map(|fake| fake.directory.path().to_owned());
    let locator = ToolLocator::only_in(dirs);
    let cancel = CancellationToken::new();

    let tools = locator.locate(150_010, &cancel).await.unwrap();
    assert_eq!(tools.pg_dump, old.path("pg_dump"));
    let tools = locator.locate(160_001, &cancel).await.unwrap();
    assert_eq!(tools.pg_restore, new.path("pg_restore"));

    let error = PortError::from(locator.locate(190_000, &cancel).await.unwrap_err());
    assert_eq!(error.kind(), ErrorKind::ToolMissing);
    let expected = format!(
        "no pg_dump for server 19.0: newest pg_dump found is 18.6 at {}",
        new.path("pg_dump").display()
    );
    assert_eq!(error.to_string(), expected);

    // Each program was asked once.
    let asked = std::fs::read_to_string(old.pid_file()).unwrap();
    assert_eq!(asked.lines().count(), 1);
    new.write("pg_dump", "echo 'pg_dump (PostgreSQL) 19.1 (replaced)'");
    assert!(locator.locate(190_000, &cancel).await.is_ok());
}

#[tokio::test]
async fn a_program_that_could_not_be_asked_is_asked_again() {
    let fake = Fake::new("[ -e \"${0%/*}/ready\" ] && echo 'pg_dump (PostgreSQL) 18.6'");
    let locator = ToolLocator::only_in([fake.directory.path().to_owned()]);
    let cancel = CancellationToken::new();
    assert!(locator.locate(180_006, &cancel).await.is_err());
    std::fs::write(fake.path("ready"), "").unwrap();
    let tools = locator.locate(180_006, &cancel).await.unwrap();
    assert_eq!(tools.version.major, 18);
}
