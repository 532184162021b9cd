//! A program's standard error: drained while it runs, or it would block; bounded, or it would
//! fill our memory.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::process::ChildStderr;
use tokio::task::JoinHandle;

/// What is kept of the beginning, and of the end.
const KEEP: usize = 64 << 10;
/// How much of it goes into an error message.
const LAST_LINES: usize = 6;
const LINE_CHARS: usize = 400;
/// How many warnings are kept.
const WARNINGS: usize = 100;

/// The first and last 64 KiB of what a program wrote to standard error.
#[derive(Debug, Clone, Default)]
pub struct StderrLog {
    first: Vec<u8>,
    last: VecDeque<u8>,
    bytes: u64,
    lines: u64,
}

impl StderrLog {
    fn push(&mut self, chunk: &[u8]) {
        self.bytes += chunk.len() as u64;
        self.lines += chunk
            .iter()
            .map(|byte| u64::from(*byte == b'\n'))
            .sum::<u64>();
        let (head, tail) = chunk.split_at(chunk.len().min(KEEP - self.first.len()));
        self.first.extend_from_slice(head);
        self.last.extend(&tail[tail.len().saturating_sub(KEEP)..]);
        let surplus = self.last.len().saturating_sub(KEEP);
        self.last.drain(..surplus);
    }

    /// Lines in all, kept or not.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// Bytes in all, kept or not.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What was kept, with a mark where something is missing.
    #[must_use]
    pub fn text(&self) -> String {
        let kept = self.first.len() + self.last.len();
        let missing = self.bytes - kept as u64;
        let mut text = self.first.clone();
        if missing > 0 {
            text.extend_from_slice(format!("\n[{missing} bytes left out]\n").as_bytes());
        }
        text.extend(&self.last);
        String::from_utf8_lossy(&text).into_owned()
    }

    /// The last few lines in one, for an error message.
    #[must_use]
    pub fn last_words(&self) -> String {
        let ends = self.last.iter().filter(|byte| **byte == b'\n').count();
        // Few lines can be so long that they, or what was said before them, begin in the first part.
        let text = if ends < LAST_LINES {
            self.text()
        } else {
            let last: Vec<u8> = self.last.iter().copied().collect();
            String::from_utf8_lossy(&last).into_owned()
        };
        let mut lines: Vec<String> = text
            .lines()
            .rev()
            .filter(|line| !line.trim().is_empty())
            .take(LAST_LINES)
            .map(clean)
            .collect();
        lines.reverse();
        lines.join("; ")
    }

    /// The lines that a PostgreSQL program marks as warnings, without its name.
    ///
    /// With `LC_ALL=C` they read `pg_dump: warning: …`.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        self.text()
            .lines()
            .filter_map(|line| line.split_once(": warning: "))
            .take(WARNINGS)
            .map(|(tool, warning)| format!("{}: {}", clean(tool), clean(warning)))
            .collect()
    }
}

/// A line that can go into a message: bounded, and without control characters, since a server
/// could send some to the terminal that shows it.
fn clean(line: &str) -> String {
    let plain = line.replace(char::is_control, " ");
    let plain = plain.trim();
    let mut text: String = plain.chars().take(LINE_CHARS).collect();
    if plain.chars().nth(LINE_CHARS).is_some() {
        text.push('…');
    }
    text
}

/// Reads until the end in a task of its own.
#[derive(Debug)]
pub(super) struct StderrDrain {
    log: Arc<Mutex<StderrLog>>,
    task: Option<JoinHandle<()>>,
}

impl StderrDrain {
    pub(super) fn start(pipe: Option<ChildStderr>) -> Self {
        let log = Arc::new(Mutex::new(StderrLog::default()));
        let shared = Arc::clone(&log);
        let task = pipe.map(|pipe| tokio::spawn(drain(pipe, shared)));
        Self { log, task }
    }

    /// What came until the end, or until `limit` from now.
    pub(super) async fn finish(&mut self, limit: Duration) -> StderrLog {
        if let Some(task) = &mut self.task {
            let _ = tokio::time::timeout(limit, task).await;
        }
        if let Some(task) = self.task.take() {
            task.abort();
        }
        lock(&self.log).clone()
    }
}

impl Drop for StderrDrain {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

async fn drain(mut pipe: ChildStderr, log: Arc<Mutex<StderrLog>>) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(read @ 1..) = pipe.read(&mut buffer).await {
        lock(&log).push(&buffer[..read]);
    }
}

fn lock(log: &Mutex<StderrLog>) -> std::sync::MutexGuard<'_, StderrLog> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log_of(chunks: impl IntoIterator<Item = Vec<u8>>) -> StderrLog {
        let mut log = StderrLog::default();
        chunks.into_iter().for_each(|chunk| log.push(&chunk));
        log
    }

    #[test]
    fn keeps_both_ends_of_a_flood() {
        let lines = (0..100_000).map(|n| format!("line {n}\n").into_bytes());
        let log = log_of(lines);
        assert_eq!(log.lines(), 100_000);
        let text = log.text();
        assert!(text.starts_with("line 0\n"));
        assert!(text.ends_with("line 99999\n"));
        assert!(text.contains("bytes left out"));
        assert!(text.len() < 2 * KEEP + 100);
        assert!(log.last_words().ends_with("line 99999"));
        assert_eq!(log.last_words().matches("line").count(), LAST_LINES);
    }

    #[test]
    fn one_huge_line_is_cut() {
        let log = log_of([vec![b'x'; 10 * KEEP]]);
        assert_eq!(log.bytes(), 10 * KEEP as u64);
        assert!(log.last_words().len() < 3 * LINE_CHARS);
    }

    #[test]
    fn a_huge_last_line_does_not_hide_what_was_said_before_it() {
        let query = format!("detail: Query was: LOCK TABLE {}", "t, ".repeat(KEEP));
        let log = log_of([format!("error: out of shared memory\n{query}\n").into_bytes()]);
        let words = log.last_words();
        assert!(
            words.starts_with("error: out of shared memory; detail: Query was: LOCK TABLE t, "),
            "{words}"
        );
        assert!(words.len() < 3 * LINE_CHARS, "{words}");
    }

    #[test]
    fn control_characters_do_not_reach_a_terminal() {
        let log = log_of([b"\x1b[2Jgone\n".to_vec()]);
        assert_eq!(log.last_words(), "[2Jgone");
    }

    #[test]
    fn warnings_are_found() {
        let log = log_of([b"pg_dump: warning: subscriptions not dumped\nother\n".to_vec()]);
        assert_eq!(log.warnings(), ["pg_dump: subscriptions not dumped"]);
    }
}
