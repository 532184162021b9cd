//! The page: one file that needs nothing else, no network and no script.

use askama::Template;

use super::{CompareView, DefinitionsView, DrillView, TableView};
use crate::error::AppError;
use crate::text;

/// More equal tables than these are in the JSON alone.
const SHOWN_TABLES: usize = 500;

/// What the template calls: it hands numbers over by reference, at times to a reference.
mod show {
    use crate::text;
    pub(super) use crate::text::{moment, shown};

    pub(super) trait Value<T> {
        fn value(&self) -> T;
    }

    impl Value<Self> for u64 {
        fn value(&self) -> Self {
            *self
        }
    }

    impl Value<u64> for usize {
        fn value(&self) -> u64 {
            *self as u64
        }
    }

    impl Value<Self> for f64 {
        fn value(&self) -> Self {
            *self
        }
    }

    impl<T, V: Value<T>> Value<T> for &V {
        fn value(&self) -> T {
            (**self).value()
        }
    }

    pub(super) fn count(number: impl Value<u64>) -> String {
        text::count(number.value())
    }

    pub(super) fn counted(number: impl Value<u64>, what: &str) -> String {
        text::counted(number.value(), what)
    }

    pub(super) fn size(bytes: impl Value<u64>) -> String {
        text::size(bytes.value())
    }

    pub(super) fn duration(seconds: impl Value<f64>) -> String {
        text::duration(seconds.value())
    }

    /// The same of times.
    pub(super) fn share_of_time(part: impl Value<f64>, whole: impl Value<f64>) -> String {
        let whole = whole.value();
        let share = if whole > 0.0 {
            part.value() / whole
        } else {
            0.0
        };
        format!("{:.1}", share * 100.0)
    }

    /// Of a bar, in hundredths of its whole length.
    pub(super) fn share(part: impl Value<u64>, whole: impl Value<u64>) -> u64 {
        (u128::from(part.value()) * 100)
            .checked_div(u128::from(whole.value()))
            .and_then(|share| u64::try_from(share).ok())
            .unwrap_or(0)
    }
}

#[derive(Template)]
#[template(path = "drill.html")]
struct Page<'a> {
    drill: &'a DrillView,
    passed: bool,
    different: Vec<&'a TableView>,
    tables: Vec<&'a TableView>,
    unlisted: usize,
    largest: u64,
    longest: f64,
}

impl DrillView {
    /// The report as an HTML page.
    ///
    /// # Errors
    /// Never, as far as the template is concerned.
    pub fn page(&self) -> Result<String, AppError> {
        let is_wrong =
            |table: &&TableView| matches!(table.state, "different" | "missing" | "unreadable");
        let mut tables: Vec<_> = self.table_results.iter().collect();
        tables.sort_by_key(|table| std::cmp::Reverse(table.bytes));
        let largest = tables.first().map_or(0, |table| table.bytes);
        let different = tables.iter().copied().filter(is_wrong).collect();
        let unlisted = tables.len().saturating_sub(SHOWN_TABLES);
        tables.truncate(SHOWN_TABLES);
        let page = Page {
            drill: self,
            passed: self.status == "passed",
            different,
            tables,
            unlisted,
            largest,
            longest: self
                .steps
                .iter()
                .map(|step| step.seconds)
                .fold(0.0, f64::max),
        };
        page.render().map_err(|error| AppError::File {
            operation: "render the report".to_owned(),
            source: std::io::Error::other(error),
        })
    }
}

impl TableView {
    /// Whether as many rows came back as were dumped.
    fn has_all_rows(&self) -> bool {
        self.restored_rows == Some(self.rows)
    }
}

impl Page<'_> {
    /// The kind of what the verdict says, for its colour: a drill that proved nothing is no
    /// failure of the backup.
    fn tone(&self) -> &'static str {
        let disproved = self
            .drill
            .levels
            .iter()
            .any(|level| level.state == "failed");
        match (self.passed, disproved) {
            (true, _) => "good",
            (false, true) => "bad",
            (false, false) => "open",
        }
    }

    fn tone_mark(&self) -> &'static str {
        match self.tone() {
            "good" => "✓",
            "bad" => "✗",
            _ => "!",
        }
    }

    fn seconds(seconds: Option<&f64>) -> String {
        seconds.map_or_else(|| "–".to_owned(), |seconds| text::duration(*seconds))
    }

    fn definitions(compare: &CompareView) -> impl Iterator<Item = (&'static str, &str)> {
        let definitions = compare.definitions.iter();
        let differences = definitions.flat_map(DefinitionsView::differences);
        differences.map(|(what, name)| match what {
            "missing" => ("is missing", name),
            "extra" => ("was not dumped", name),
            _ => ("is not as dumped", name),
        })
    }

    fn mark(state: &str) -> &'static str {
        match state {
            "passed" => "✓",
            "failed" => "✗",
            _ => "–",
        }
    }

    fn class(state: &str) -> &'static str {
        match state {
            "passed" | "equal" => "good",
            "failed" | "different" | "missing" | "unreadable" => "bad",
            _ => "open",
        }
    }

    fn rate(&self) -> Option<String> {
        self.drill.rto_seconds?;
        let bytes: u64 = self
            .drill
            .table_results
            .iter()
            .map(|table| table.bytes)
            .sum();
        let millis = (self.drill.load_seconds? * 1000.0).round();
        let millis = std::time::Duration::try_from_secs_f64(millis / 1000.0)
            .ok()?
            .as_millis();
        let per_second = u128::from(bytes).checked_mul(1000)?.checked_div(millis)?;
        Some(format!("{}/s", text::size(u64::try_from(per_second).ok()?)))
    }
}
