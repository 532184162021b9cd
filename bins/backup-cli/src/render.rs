//! Text for people: to stdout what was asked for, to stderr everything else.

use std::io::{self, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};

use backup_app::AppError;
pub(crate) use backup_app::text::{count, counted, duration, shown as name, size, time};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::progress::apart;
use crate::teamcity;

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
    apart(|| {
        let mut out = anstream::stdout();
        writeln!(out, "{text}")?;
        out.flush()
    })
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
    let _ = apart(|| writeln!(anstream::stderr(), "{text}"));
}

/// Asks on stderr, on the line where the answer is going to stand.
pub(crate) fn prompt(text: &str) {
    let mut stderr = anstream::stderr();
    let _ = write!(stderr, "{text}");
    let _ = stderr.flush();
}

/// Says on stderr that something is wrong.
pub(crate) fn complain(text: &str) {
    let _ = apart(|| writeln!(anstream::stderr(), "error: {text}"));
    teamcity::problem(text);
}

/// Says on stderr what went wrong without making the result useless.
pub(crate) fn warn(text: &str) {
    let _ = apart(|| writeln!(anstream::stderr(), "warning: {text}"));
    teamcity::warning(text);
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
