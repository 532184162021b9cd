//! Numbers and names for people, the same in every frontend.

use bytesize::ByteSize;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serializer;

/// A size.
#[must_use]
pub fn size(bytes: u64) -> String {
    ByteSize(bytes).display().iec().to_string()
}

/// A duration.
#[must_use]
pub fn duration(seconds: f64) -> String {
    if seconds < 0.95 {
        return format!("{:.0} ms", seconds * 1000.0);
    }
    if seconds < 59.95 {
        return format!("{seconds:.1} s");
    }
    let whole = std::time::Duration::from_secs_f64(seconds.round()).as_secs();
    let (hours, minutes, seconds) = (whole / 3600, whole / 60 % 60, whole % 60);
    match hours {
        0 => format!("{minutes} min {seconds} s"),
        _ => format!("{hours} h {minutes} min"),
    }
}

/// A number with groups of three.
#[must_use]
pub fn count(number: u64) -> String {
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

/// So many of something: `1 table`, `2 tables`.
#[must_use]
pub fn counted(number: u64, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        number => format!("{} {what}s", count(number)),
    }
}

/// A time as everywhere: RFC 3339, UTC, seconds.
#[must_use]
pub fn time(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// A moment, `2026-02-05T03:00:00Z`, without its letters.
#[must_use]
pub fn moment(time: &str) -> String {
    time.replace('T', " ").replace('Z', " UTC")
}

/// Something whose JSON is a name of its own.
pub(crate) trait Named {
    /// The name used in JSON.
    fn name(&self) -> &'static str;
}

impl Named for backup_core::doctor::Level {
    fn name(&self) -> &'static str {
        self.as_str()
    }
}

impl Named for backup_core::check::Status {
    fn name(&self) -> &'static str {
        self.as_str()
    }
}

/// For `serialize_with`: a name.
pub(crate) fn as_word<S: Serializer>(named: &impl Named, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(named.name())
}

/// For `serialize_with`: a time, as [`time`] has it.
pub(crate) fn as_time<S: Serializer>(at: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&time(*at))
}

/// Somebody else's text: what does not show, or turns the text around it, is escaped. A page
/// escapes what HTML would take for its own.
#[must_use]
pub fn shown(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        let turns = matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{61c}');
        if c.is_control() || turns {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// A word of a shell's command line, quoted where it needs to be.
#[must_use]
pub fn shell_word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn for_people() {
        for (bytes, expected) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_300_000, "1.2 MiB"),
            (900 << 20, "900.0 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(size(bytes), expected);
        }
        for (seconds, expected) in [
            (0.0, "0 ms"),
            (0.0421, "42 ms"),
            (0.96, "1.0 s"),
            (59.9, "59.9 s"),
            (59.96, "1 min 0 s"),
            (3725.0, "1 h 2 min"),
        ] {
            assert_eq!(duration(seconds), expected);
        }
        assert_eq!(counted(1, "row"), "1 row");
        assert_eq!(counted(1_234_567, "row"), "1,234,567 rows");
        assert_eq!(moment("2026-02-05T03:00:00Z"), "2026-02-05 03:00:00 UTC");
        assert_eq!(shell_word("s3://bucket/pre-fix"), "s3://bucket/pre-fix");
        assert_eq!(shell_word("it's $x"), r"'it'\''s $x'");
        assert_eq!(shell_word(""), "''");
        assert_eq!(shown("a\u{202e}b\nc<d>"), "a\\u{202e}b\\nc<d>");
    }
}
