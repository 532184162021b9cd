//! The report on the acceptance checks, made of what passes of the suite printed and noted.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::checks::{CHECKS, Check};
use crate::evidence::Note;

/// One run of the whole suite.
#[derive(Clone, Debug, Default)]
pub struct Pass {
    /// What came of each test, by its name in the suite.
    pub outcomes: BTreeMap<String, Outcome>,
    /// How long it took, in seconds, as the harness says.
    pub seconds: f64,
    /// What the tests saw.
    pub notes: Vec<Note>,
}

/// What came of a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It passed.
    Passed,
    /// It failed.
    Failed,
    /// It was not run, and why.
    NotRun(String),
}

impl Pass {
    /// Reads what the harness printed, and the notes, one JSON value a line.
    ///
    /// # Errors
    /// When a note is none.
    pub fn read(printed: &str, notes: &str) -> anyhow::Result<Self> {
        let mut pass = Self::default();
        for line in printed.lines() {
            if let Some((_, rest)) = line.split_once("finished in ") {
                let number = rest.trim_end_matches('s').trim();
                pass.seconds += number.parse::<f64>().unwrap_or(0.0);
            }
            let Some((name, outcome)) = result_of(line) else {
                continue;
            };
            pass.outcomes.insert(name, outcome);
        }
        for line in notes.lines() {
            pass.notes.push(serde_json::from_str(line)?);
        }
        Ok(pass)
    }
}

/// `test names::check_06_x ... ok`, or with `ignored, reason`.
fn result_of(line: &str) -> Option<(String, Outcome)> {
    let (name, said) = line.strip_prefix("test ")?.split_once(" ... ")?;
    let outcome = match said {
        "ok" => Outcome::Passed,
        "FAILED" => Outcome::Failed,
        _ => {
            let reason = said.strip_prefix("ignored")?;
            Outcome::NotRun(reason.trim_start_matches([',', ' ']).to_owned())
        }
    };
    let name = name.split(" - ").next().unwrap_or(name);
    Some((name.to_owned(), outcome))
}

/// The number of the check that a test is of: `names::check_06_x` is of 6, `check_06` of none.
#[must_use]
pub fn number_of(test: &str) -> Option<u8> {
    let function = test.split("::").find(|part| part.starts_with("check_"))?;
    let (number, rest) = function.strip_prefix("check_")?.split_once('_')?;
    number.parse().ok().filter(|_| !rest.is_empty())
}

/// The page. `day` is when the passes were made, `version` of what, `by_hand` the text about what is only
/// run by hand.
#[must_use]
pub fn page(passes: &[Pass], day: &str, version: &str, by_hand: &str) -> String {
    let mut page = format!(
        "# Reliability\n\n\
         What a release must survive: thirty checks, each automated, on real PostgreSQL and real S3 \
         servers.\nThis page is written by `scripts/reliability` from what the suite \
         (`tests/tests/survive`) printed and noted.\n\n\
         Version {version}, {day}: {}.\n\n\
         | check | result |\n|---|---|\n",
        summary(passes),
    );
    for check in &CHECKS {
        let anchor = anchor(check);
        let title = check.title;
        let _ = writeln!(
            page,
            "| [{}. {title}](#{anchor}) | {} |",
            check.number,
            verdict(passes, check)
        );
    }
    for check in &CHECKS {
        describe(&mut page, passes, check);
    }
    page.push('\n');
    page.push_str(by_hand.trim());
    page.push('\n');
    page
}

fn summary(passes: &[Pass]) -> String {
    let tests: BTreeSet<_> = passes
        .iter()
        .flat_map(|pass| pass.outcomes.keys())
        .collect();
    let each: Vec<_> = passes.iter().map(ended).collect();
    format!(
        "{} of {} tests; {}",
        passes_of(passes.len()),
        tests.len(),
        each.join(", ")
    )
}

fn passes_of(count: usize) -> String {
    format!("{count} {}", if count == 1 { "pass" } else { "passes" })
}

/// How a pass ended: one that has no end or a failure, whether of a check or not, stands out.
fn ended(pass: &Pass) -> String {
    let failed = |(name, outcome): (&String, &Outcome)| {
        (*outcome == Outcome::Failed).then(|| format!("`{name}`"))
    };
    let failed: Vec<_> = pass.outcomes.iter().filter_map(failed).collect();
    if pass.seconds == 0.0 {
        "**one that did not come to its end**".to_owned()
    } else if failed.is_empty() {
        format!("none failed in {:.0} s", pass.seconds)
    } else {
        format!("**{} failed** in {:.0} s", failed.join(", "), pass.seconds)
    }
}

/// The tests of a check, in any pass.
fn tests_of<'a>(passes: &'a [Pass], check: &Check) -> BTreeSet<&'a str> {
    let names = passes.iter().flat_map(|pass| pass.outcomes.keys());
    let of_check = names.filter(|name| number_of(name) == Some(check.number));
    of_check.map(String::as_str).collect()
}

/// In how many passes all tests of a check passed; a test that was not run proves nothing.
fn verdict(passes: &[Pass], check: &Check) -> String {
    let tests = tests_of(passes, check);
    if tests.is_empty() {
        return "**not run**".to_owned();
    }
    let all_passed = |pass: &&Pass| {
        let outcomes = tests.iter().map(|test| pass.outcomes.get(*test));
        let mut run = outcomes
            .filter(|o| !matches!(o, Some(Outcome::NotRun(_))))
            .peekable();
        run.peek().is_some() && run.all(|o| o == Some(&Outcome::Passed))
    };
    let good = passes.iter().filter(all_passed).count();
    let words = format!("{good} of {}", passes_of(passes.len()));
    if good == passes.len() {
        format!("passed, {words}")
    } else {
        format!("**passed only {words}**")
    }
}

fn describe(page: &mut String, passes: &[Pass], check: &Check) {
    let _ = write!(
        page,
        "\n## {}. {}\n\n{}\n\n",
        check.number, check.title, check.words
    );
    for test in tests_of(passes, check) {
        let _ = writeln!(page, "- `{test}`: {}", told(passes, test));
    }
}

/// What came of a test, and what it saw the last time.
fn told(passes: &[Pass], test: &str) -> String {
    let outcomes: Vec<_> = passes
        .iter()
        .filter_map(|pass| pass.outcomes.get(test))
        .collect();
    if let Some(Outcome::NotRun(reason)) = outcomes.iter().find(|o| matches!(o, Outcome::NotRun(_)))
    {
        return format!("not run: {reason}");
    }
    let good = outcomes.iter().filter(|o| ***o == Outcome::Passed).count();
    let saw = passes.iter().rev().find_map(|pass| {
        let saw: Vec<_> = pass
            .notes
            .iter()
            .filter(|note| note.test == test)
            .map(|n| &*n.saw)
            .collect();
        (!saw.is_empty()).then(|| saw.join("; "))
    });
    let missing = || "**it says nothing of what it saw**".to_owned();
    let saw = saw.unwrap_or_else(missing);
    if good == passes.len() {
        saw
    } else {
        format!("**passed {good} of {}**; {saw}", passes.len())
    }
}

/// As the usual renderers make one of a heading.
fn anchor(check: &Check) -> String {
    let heading = format!("{}. {}", check.number, check.title).to_lowercase();
    let kept = heading
        .chars()
        .filter(|c| c.is_alphanumeric() || " -".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = "\
running 3 tests
test damage::check_05_each_cut - should panic ... ok
test lease::check_14_minio ... ignored, needs MinIO
test names::a_helper ... ok
test years::check_17_clock ... ok
test keep::check_19_many ... FAILED
test result: FAILED. 1 passed; 1 failed; 0 ignored; finished in 12.50s
";

    fn pass() -> Pass {
        let note = r#"{"check":17,"test":"years::check_17_clock","saw":"2 clocks"}"#;
        Pass::read(PRINTED, note).unwrap()
    }

    #[test]
    fn results_are_read() {
        let pass = pass();
        let outcome = |name: &str| pass.outcomes.get(name).cloned();
        assert_eq!(outcome("damage::check_05_each_cut"), Some(Outcome::Passed));
        assert_eq!(outcome("keep::check_19_many"), Some(Outcome::Failed));
        assert_eq!(
            outcome("lease::check_14_minio"),
            Some(Outcome::NotRun("needs MinIO".to_owned()))
        );
        assert!((pass.seconds - 12.5).abs() < 0.01);
    }

    #[test]
    fn a_check_counts_only_when_all_its_tests_passed() {
        let passes = [pass(), pass()];
        let of = |number: u8| verdict(&passes, &CHECKS[usize::from(number) - 1]);
        assert_eq!(of(5), "passed, 2 of 2 passes");
        assert_eq!(of(14), "**passed only 0 of 2 passes**");
        assert_eq!(of(19), "**passed only 0 of 2 passes**");
        assert_eq!(of(30), "**not run**");
    }

    #[test]
    fn the_page_has_what_was_seen_and_what_was_not() {
        let page = page(&[pass()], "2026-02-05", "0.1.0", "## By hand\n\nNothing.");
        assert!(
            page.contains("- `years::check_17_clock`: 2 clocks\n"),
            "{page}"
        );
        assert!(
            page.contains("- `lease::check_14_minio`: not run: needs MinIO"),
            "{page}"
        );
        assert!(
            page.contains("[17. A wrong clock deletes nothing](#17-a-wrong-clock-deletes-nothing)")
        );
        assert!(
            page.contains("**`keep::check_19_many` failed** in "),
            "{page}"
        );
        assert!(page.ends_with("## By hand\n\nNothing.\n"));
    }

    #[test]
    fn numbers_are_read_from_names() {
        assert_eq!(number_of("names::check_06_x"), Some(6));
        assert_eq!(number_of("names::check_07_x::case_1_folder"), Some(7));
        assert_eq!(number_of("names::check_06"), None);
        assert_eq!(number_of("names::checked_06_x"), None);
    }
}
