//! A notice as plain text.

use std::fmt::Write as _;

use backup_core::notifier::{Notice, Tone};

/// The colour of a notice, as in style sheets.
pub(crate) fn colour(tone: Tone) -> &'static str {
    match tone {
        Tone::Good => "#1a7f37",
        Tone::Neutral => "#4a5568",
        Tone::Warning => "#b45309",
        Tone::Bad => "#b42318",
    }
}

/// The colour as a number.
pub(crate) fn colour_number(tone: Tone) -> u32 {
    u32::from_str_radix(&colour(tone)[1..], 16).unwrap_or_default()
}

/// What it says, without its title: one line a fact, with its words in a column.
pub(crate) fn body(notice: &Notice) -> String {
    let mut text = String::new();
    for remark in &notice.remarks {
        let _ = writeln!(text, "{remark}");
    }
    if let Some(error) = &notice.error {
        let _ = writeln!(text, "Error: {error}");
    }
    if let Some(hint) = &notice.hint {
        let _ = writeln!(text, "What to do: {hint}");
    }
    if !text.is_empty() && !notice.facts.is_empty() {
        text.push('\n');
    }
    let lengths = notice.facts.iter().map(|fact| fact.label.chars().count());
    let width = lengths.max().unwrap_or_default();
    for fact in &notice.facts {
        let _ = writeln!(text, "{:<width$}  {}", fact.label, fact.text);
    }
    text
}

/// All of a notice as plain text, its title first.
#[must_use]
pub fn plain_text(notice: &Notice) -> String {
    let title = &notice.title;
    let mut text = format!("{title}\n\n{}", body(notice));
    text.truncate(text.trim_end().len());
    text
}

/// At most `limit` characters of a text; that some are missing shows.
pub(crate) fn cut(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.to_owned();
    }
    let kept: String = text.chars().take(limit.saturating_sub(1)).collect();
    format!("{kept}…")
}

#[cfg(test)]
pub(crate) mod tests {
    use backup_core::backup::SourceName;
    use backup_core::notifier::{Fact, NoticeEvent};
    use backup_core::run_record::Operation;
    use chrono::{DateTime, TimeDelta};

    use super::*;

    /// A name that tries everything.
    pub(crate) const HOSTILE: &str =
        "sh\r\nBcc: eve@x\n<img src=x onerror=1>&*_`[a](b) @channel \u{202e}";

    /// A failure of a source with that name.
    pub(crate) fn failure(name: &str) -> Notice {
        let at = DateTime::UNIX_EPOCH + TimeDelta::days(20_000);
        let title = format!("Backup of {name} failed");
        Notice {
            operation: Some(Operation::Backup),
            source: Some(SourceName::new(name).unwrap()),
            host: "db1".into(),
            remarks: vec!["The last good backup is 2 d old.".into()],
            error: Some(format!("dump {name}: connection refused").into()),
            hint: Some("start the server".into()),
            facts: vec![
                Fact::new("source", "Source", name),
                Fact::new("duration_seconds", "Duration", "1.5 s").with_value(1.5),
            ],
            ..Notice::new(NoticeEvent::Failure, Tone::Bad, at, title)
        }
    }

    #[test]
    fn a_text_has_all_that_is_known() {
        let expected = "Backup of shop failed\n\n\
                        The last good backup is 2 d old.\n\
                        Error: dump shop: connection refused\n\
                        What to do: start the server\n\n\
                        Source    shop\n\
                        Duration  1.5 s";
        assert_eq!(plain_text(&failure("shop")), expected);
        assert_eq!(cut(&plain_text(&failure("shop")), 9), "Backup o…");
    }

    #[test]
    fn a_name_makes_no_lines_of_its_own() {
        let text = plain_text(&failure(HOSTILE));
        assert_eq!(
            text.lines().count(),
            plain_text(&failure("a")).lines().count()
        );
        assert!(text.contains("sh\\r\\nBcc: eve@x\\n<img"), "{text}");
        assert!(!text.contains('\u{202e}'), "{text}");
    }
}
