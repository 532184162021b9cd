//! What the supervisor makes of programs that misbehave. The programs are shell scripts.
#![expect(
    clippy::unwrap_used,
    reason = "clippy takes helpers of tests for no tests"
)]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use backup_core::error::{ErrorKind, PortError};
use backup_process::ToolEnv;
use backup_process::child::{StderrLog, ToolChild, ToolCommand, run_briefly, stdout_body};
use backup_testing::write_program;
use futures::StreamExt as _;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio_util::sync::CancellationToken;

/// Much less than the ten minutes that a program sleeps whom nobody ends, and more than a busy
/// machine needs.
const PATIENCE: Duration = Duration::from_mins(2);

struct Fake {
    directory: TempDir,
}

impl Fake {
    /// A program that runs `script`. Each process it starts writes its number into a file.
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

    fn command(&self) -> ToolCommand {
        let env = ToolEnv::default().set("PATH", "/usr/bin:/bin");
        ToolCommand::new(self.path("pg_dump"), env)
    }

    /// Whether any process that the script told of is alive.
    fn is_alive(&self) -> bool {
        std::fs::read_to_string(self.pid_file())
            .unwrap_or_default()
            .lines()
            .any(is_running)
    }

    async fn is_soon_gone(&self) -> bool {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if !self.is_alive() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        false
    }

    async fn started(&self) {
        while !self.pid_file().exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// A zombie is dead.
fn is_running(pid: &str) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid).join("stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

struct Outcome {
    bytes: u64,
    error: Option<PortError>,
    stderr: Option<StderrLog>,
    elapsed: Duration,
}

async fn read(fake: &Fake) -> Outcome {
    let start = Instant::now();
    let (mut body, mut stderr) =
        stdout_body(&fake.command(), PortError::from, &CancellationToken::new()).unwrap();
    let (mut bytes, mut error) = (0, None);
    while let Some(item) = body.next().await {
        assert!(error.is_none(), "nothing comes after an error");
        match item {
            Ok(chunk) => bytes += chunk.len() as u64,
            Err(io) => error = Some(PortError::from_io(io, ErrorKind::Internal, "read")),
        }
    }
    Outcome {
        bytes,
        error,
        stderr: stderr.try_recv().ok(),
        elapsed: start.elapsed(),
    }
}

#[tokio::test]
async fn a_good_program_ends_cleanly() {
    let fake = Fake::new("echo 'pg_dump: warning: odd' >&2; head -c 3000000 /dev/zero; exit 0");
    let outcome = read(&fake).await;
    assert!(outcome.error.is_none(), "{:?}", outcome.error);
    assert_eq!(outcome.bytes, 3_000_000);
    assert_eq!(outcome.stderr.unwrap().warnings(), ["pg_dump: odd"]);
}

#[tokio::test]
async fn a_failure_is_the_last_item() {
    for (script, message) in [
        (
            "head -c 2000000 /dev/zero; echo 'oh no' >&2; exit 1",
            "pg_dump exited with 1: oh no",
        ),
        ("exit 3", "pg_dump exited with 3 without a word"),
        (
            "echo x; kill -9 $$",
            "pg_dump was killed by signal 9 (SIGKILL) without a word",
        ),
        (
            "kill -TERM $$",
            "pg_dump was killed by signal 15 (SIGTERM) without a word",
        ),
    ] {
        let fake = Fake::new(script);
        let outcome = read(&fake).await;
        let error = outcome.error.unwrap();
        assert_eq!(error.to_string(), message);
        assert_eq!(error.kind(), ErrorKind::ToolFailed);
        assert!(outcome.stderr.is_none());
        assert!(fake.is_soon_gone().await);
    }
}

#[tokio::test]
async fn floods_of_messages_neither_block_nor_fill_memory() {
    let fake = Fake::new(
        "i=0; echo first >&2; head -c 50000000 /dev/zero | tr '\\0' '\\n' >&2; echo last >&2; echo data",
    );
    let outcome = read(&fake).await;
    assert!(outcome.error.is_none(), "{:?}", outcome.error);
    let stderr = outcome.stderr.unwrap();
    assert_eq!(stderr.lines(), 50_000_002);
    assert!(stderr.text().len() < 200 << 10);
    assert!(stderr.text().starts_with("first"));
    assert_eq!(stderr.last_words(), "last");
}

#[tokio::test]
async fn a_grandchild_that_keeps_the_output_open_is_no_clean_end() {
    let fake =
        Fake::new("echo data; (echo $$; exec sleep 600) & echo $! >> \"${0%/*}/pids\"; exit 0");
    let outcome = read(&fake).await;
    assert_eq!(
        outcome.error.unwrap().to_string(),
        "pg_dump exited but left its output open"
    );
    assert!(outcome.elapsed < PATIENCE, "{:?}", outcome.elapsed);
    assert!(fake.is_soon_gone().await);
}

#[tokio::test]
async fn a_program_that_dies_ends_the_body_though_its_output_is_open() {
    let fake = Fake::new("sleep 600 & echo $! >> \"${0%/*}/pids\"; echo bad >&2; exit 4");
    let outcome = read(&fake).await;
    assert_eq!(
        outcome.error.unwrap().to_string(),
        "pg_dump exited with 4: bad"
    );
    assert!(outcome.elapsed < PATIENCE, "{:?}", outcome.elapsed);
    assert!(fake.is_soon_gone().await);
}

#[tokio::test]
async fn a_program_that_closes_its_output_and_hangs_is_killed() {
    let fake = Fake::new("echo data; exec >&-; sleep 600");
    let outcome = read(&fake).await;
    assert_eq!(
        outcome.error.unwrap().to_string(),
        "pg_dump closed its output but did not exit"
    );
    assert!(outcome.elapsed < PATIENCE, "{:?}", outcome.elapsed);
    assert!(fake.is_soon_gone().await);
}

#[tokio::test]
async fn cancelling_ends_the_program_and_then_the_body() {
    for script in [
        "sleep 600",
        "trap '' TERM; while :; do sleep 1; done",
        "exec cat /dev/zero",
    ] {
        let fake = Fake::new(script);
        let cancel = CancellationToken::new();
        let (mut body, _stderr) = stdout_body(&fake.command(), PortError::from, &cancel).unwrap();
        fake.started().await;
        let start = Instant::now();
        cancel.cancel();
        let mut last = None;
        while let Some(item) = body.next().await {
            last = Some(item);
        }
        let error = PortError::from_io(last.unwrap().unwrap_err(), ErrorKind::Internal, "read");
        assert_eq!(error.kind(), ErrorKind::Cancelled, "{script}");
        assert!(fake.is_soon_gone().await, "{script}");
        assert!(start.elapsed() < PATIENCE, "{script}");
    }
}

#[tokio::test]
async fn dropping_the_body_kills_everything() {
    let script = "trap '' TERM; sleep 600 & echo $! >> \"${0%/*}/pids\"; cat /dev/zero";
    let fake = Fake::new(script);
    let (mut body, _stderr) =
        stdout_body(&fake.command(), PortError::from, &CancellationToken::new()).unwrap();
    assert!(body.next().await.unwrap().is_ok());
    drop(body);
    assert!(fake.is_soon_gone().await);
}

#[tokio::test]
async fn nothing_is_inherited_but_what_is_given() {
    let fake = Fake::new("env; pwd; [ -t 0 ] && echo terminal; cat");
    let (command, cancel) = (fake.command(), CancellationToken::new());
    let output = run_briefly(&command, Duration::from_secs(10), &cancel)
        .await
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    // The shell makes these two itself.
    lines.retain(|line| !line.starts_with("PWD=") && !line.starts_with("_="));
    lines.sort_unstable();
    assert_eq!(lines, ["/", "PATH=/usr/bin:/bin"]);
    assert!(output.exit.success());
}

#[tokio::test]
async fn input_is_written_while_messages_are_drained() {
    let fake = Fake::new("cat > /dev/null; head -c 1000000 /dev/zero | tr '\\0' x >&2; exit 1");
    let mut child = ToolChild::spawn(&fake.command().with_stdin()).unwrap();
    let mut stdin = child.take_stdin().unwrap();
    stdin.write_all(&vec![0; 1_000_000]).await.unwrap();
    drop(stdin);
    let exit = child.wait().await.unwrap();
    assert_eq!(exit.code(), Some(1));
    assert_eq!(exit.stderr.bytes(), 1_000_000);
    assert_eq!(exit.status_words(), "exited with 1");
}

#[tokio::test]
async fn a_program_that_does_not_answer_is_given_up() {
    let fake = Fake::new("sleep 600");
    let short = Duration::from_millis(200);
    let error = run_briefly(&fake.command(), short, &CancellationToken::new()).await;
    assert!(
        error
            .unwrap_err()
            .to_string()
            .contains("did not end within")
    );
    assert!(fake.is_soon_gone().await);
}

#[tokio::test]
async fn a_missing_program_is_named() {
    let fake = Fake::new("");
    let command = ToolCommand::new(fake.path("no_such"), ToolEnv::default());
    let error = stdout_body(&command, PortError::from, &CancellationToken::new())
        .err()
        .unwrap();
    assert!(error.to_string().contains("no_such"));
}
