//! Text for people: to stdout what was asked for, to stderr everything else.

use std::io::{self, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};

use backup_app::AppError;
use bytesize::ByteSize;
use chrono::{DateTime, SecondsFormat, Utc};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

/// Whether a result could not be printed.
static LOST: AtomicBool = AtomicBool::new(false);

/// Prints a line of the result. A reader that has seen enough (`| head`) is no failure; what
/// cannot be written for another reason is remembered for the exit code.
pub(crate) fn line(text: &str) {
    if let Err(error) = try_line(text)
        && error.kind() != io::ErrorKind::BrokenPipe
        && !LOST.swap(true, Ordering::Relaxed)
    {
        complain(&format!("write the result: {error}"));
    }
}

/// Prints a line that must not get lost.
pub(crate) fn try_line(text: &str) -> io::Result<()> {
    let mut out = anstream::stdout();
    writeln!(out, "{text}")?;
    out.flush()
}

/// Whether a result could not be printed, so that the command must not seem to have succeeded.
pub(crate) fn result_is_lost() -> bool {
    LOST.load(Ordering::Relaxed)
}

/// Prints a result as JSON on one line.
pub(crate) fn json(value: &impl Serialize) {
    match serde_json::to_string(value) {
        Ok(text) => line(&text),
        Err(error) => complain(&format!("encode the result: {error}")),
    }
}

/// Prints a result as JSON that people may look at too.
pub(crate) fn pretty_json(value: &impl Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => line(&text),
        Err(error) => complain(&format!("encode the result: {error}")),
    }
}

/// Says something on stderr that is no result.
pub(crate) fn note(text: &str) {
    let _ = writeln!(anstream::stderr(), "{text}");
}

/// Asks on stderr, on the line where the answer is going to stand.
pub(crate) fn prompt(text: &str) {
    let mut stderr = anstream::stderr();
    let _ = write!(stderr, "{text}");
    let _ = stderr.flush();
}

/// Says on stderr that something is wrong.
pub(crate) fn complain(text: &str) {
    let _ = writeln!(anstream::stderr(), "error: {text}");
}

/// Says on stderr what went wrong without making the result useless.
pub(crate) fn warn(text: &str) {
    let _ = writeln!(anstream::stderr(), "warning: {text}");
}

/// Reports an error: as JSON on stdout if that was asked for, as text on stderr otherwise.
pub(crate) fn error(error: &AppError, as_json: bool) {
    if as_json {
        json(&serde_json::json!({ "error": error.report() }));
    } else {
        complain(&error.render());
    }
}

/// A table without lines: columns stay readable, and `cut` and `awk` can use them.
pub(crate) fn table(header: &[&str], right: &[usize]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header.iter().map(|name| name.to_uppercase()));
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    for index in right {
        if let Some(column) = table.column_mut(*index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// Prints a table.
pub(crate) fn print(table: &Table) {
    for text in table.to_string().lines() {
        line(text.trim_end());
    }
}

/// A size for people.
pub(crate) fn size(bytes: u64) -> String {
    ByteSize(bytes).display().iec().to_string()
}

/// A time as everywhere: RFC 3339, UTC, seconds.
pub(crate) fn time(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// A duration for people.
pub(crate) fn duration(seconds: f64) -> String {
    if seconds < 60.0 {
        format!("{seconds:.1} s")
    } else {
        let whole = std::time::Duration::from_secs_f64(seconds.round());
        humantime::format_duration(whole).to_string()
    }
}

/// A name from a database, harmless on a terminal: control characters are escaped.
pub(crate) fn name(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            if c.is_control() {
                c.escape_default().collect::<Vec<_>>()
            } else {
                vec![c]
            }
        })
        .collect()
}

/// A number with thin groups of three.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// So many of something: `1 source`, `2 sources`.
pub(crate) fn counted(number: u64, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        number => format!("{} {what}s", count(number)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_for_people() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(name("a\u{1b}[31m\nb"), "a\\u{1b}[31m\\nb");
        assert_eq!(duration(3.21), "3.2 s");
        assert_eq!(duration(125.0), "2m 5s");
    }
}
