//! What the acceptance checks saw, for the report on reliability.

use std::fmt::Display;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Where the notes go, if somebody wants them; `scripts/reliability` does.
const FILE: &str = "PGB_TEST_EVIDENCE";

/// One line of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// The number of the check.
    pub check: u8,
    /// The test that saw it, as libtest names it.
    pub test: String,
    /// What it saw, as a piece of a sentence with figures: `118 damaged objects, each refused with 6`.
    pub saw: String,
}

/// Notes what a test of check number `check` saw. Call it at the end, when it is true.
///
/// # Panics
///
/// When the file cannot be written: a report must not lack what was seen.
pub fn note(check: u8, saw: impl Display) {
    let thread = std::thread::current();
    let note = Note {
        check,
        test: thread.name().unwrap_or("unnamed").to_owned(),
        saw: saw.to_string(),
    };
    #[expect(
        clippy::print_stdout,
        reason = "the test runner shows it with --nocapture"
    )]
    {
        println!("check {check}: {}", note.saw);
    }
    #[expect(
        clippy::disallowed_methods,
        reason = "the test runner says whether it wants a report"
    )]
    let file = std::env::var_os(FILE);
    if let Some(path) = file {
        append(Path::new(&path), &note).expect("the file of evidence takes a line");
    }
}

fn append(path: &Path, note: &Note) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(note)?;
    line.push(b'\n');
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    Ok(file.write_all(&line)?)
}
