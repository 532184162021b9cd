//! Service messages: what a build server of `TeamCity` makes problems, statistics and progress of.
//!
//! They are lines on stdout among the others, and only with `--log-format teamcity`.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::render;

/// Whether a build server reads what we print.
static SPOKEN: AtomicBool = AtomicBool::new(false);
/// Whether it was told a problem.
static TOLD: AtomicBool = AtomicBool::new(false);

/// A problem's description may have 4000 characters, escapes among them.
const LONGEST: usize = 2000;

/// From now on, service messages are printed.
pub(crate) fn speak() {
    SPOKEN.store(true, Ordering::Relaxed);
}

/// What is being done.
pub(crate) fn progress(what: &str) {
    if is_spoken() {
        print(&format!("##teamcity[progressMessage '{}']", escaped(what)));
    }
}

/// Why the build fails.
pub(crate) fn problem(what: &str) {
    if is_spoken() {
        TOLD.store(true, Ordering::Relaxed);
        let what: String = what.chars().take(LONGEST).collect();
        print(&message("buildProblem", &[("description", &what)]));
    }
}

/// The same for a command that ends with another code than 0 and has said no problem.
pub(crate) fn ended(code: u8) {
    if code != 0 && !TOLD.load(Ordering::Relaxed) {
        problem(&format!("backup-cli ended with code {code}"));
    }
}

/// What is not as it should be.
pub(crate) fn warning(what: &str) {
    if is_spoken() {
        let what: String = what.chars().take(LONGEST).collect();
        print(&message(
            "message",
            &[("text", &what), ("status", "WARNING")],
        ));
    }
}

/// A number of the build that can be drawn over time.
pub(crate) fn statistic(key: &str, value: &str) {
    if is_spoken() {
        print(&message(
            "buildStatisticValue",
            &[("key", key), ("value", value)],
        ));
    }
}

fn is_spoken() -> bool {
    SPOKEN.load(Ordering::Relaxed)
}

fn print(line: &str) {
    // Nobody can be told that nobody can be told.
    let _ = render::try_line(line);
}

fn message(name: &str, attributes: &[(&str, &str)]) -> String {
    let mut said = String::new();
    for (name, value) in attributes {
        // A string takes whatever is written to it.
        let _ = write!(said, " {name}='{}'", escaped(value));
    }
    format!("##teamcity[{name}{said}]")
}

/// A value as the server reads it; beyond ASCII by numbers, whatever the encoding of the agent's console.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '\'' | '|' | '[' | ']' => {
                escaped.push('|');
                escaped.push(c);
            }
            '\n' => escaped.push_str("|n"),
            '\r' => escaped.push_str("|r"),
            '\u{85}' => escaped.push_str("|x"),
            '\u{2028}' => escaped.push_str("|l"),
            '\u{2029}' => escaped.push_str("|p"),
            ' '..='~' => escaped.push(c),
            c => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(escaped, "|0x{unit:04X}");
                }
            }
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_escaped() {
        for (text, read) in [
            ("plain text", "plain text"),
            ("it's [1] | 2", "it|'s |[1|] || 2"),
            ("a\nb\r\u{85}\u{2028}\u{2029}", "a|nb|r|x|l|p"),
            ("\u{e9} \u{1f418}\t", "|0x00E9 |0xD83D|0xDC18|0x0009"),
        ] {
            assert_eq!(escaped(text), read);
        }
        assert_eq!(
            message(
                "buildProblem",
                &[("description", "it's"), ("identity", "x")]
            ),
            "##teamcity[buildProblem description='it|'s' identity='x']"
        );
    }
}
