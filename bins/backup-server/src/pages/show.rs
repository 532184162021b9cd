//! Numbers, times and states, as people of one language read them.

use askama::Template;
use askama::filters::HtmlSafe;
use axum::http::StatusCode;
use backup_app::JobRefusal;
use chrono::{DateTime, Datelike as _, TimeDelta, Utc};
use chrono_tz::Tz;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::words::{Forms, Language, Words};

/// What stands in a path as it is.
const IN_PATH: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// A state in colour, symbol and word, of which any two may be missing to the reader.
#[derive(Debug, Clone, Template)]
#[template(
    source = r#"<span class="chip {{ tone }}"><span aria-hidden="true">{{ symbol }}</span> {{ word }}</span>"#,
    ext = "html"
)]
pub(crate) struct Chip {
    pub(crate) tone: &'static str,
    pub(crate) symbol: &'static str,
    pub(crate) word: String,
}

/// A moment.
#[derive(Debug, Clone, Template)]
#[template(
    source = r#"<time datetime="{{ iso }}" title="{{ zone }}">{{ text }}</time>{% if !ago.is_empty() %} <span class="ago">{{ ago }}</span>{% endif %}"#,
    ext = "html"
)]
pub(crate) struct When {
    iso: String,
    zone: &'static str,
    pub(crate) text: String,
    pub(crate) ago: String,
}

impl HtmlSafe for Chip {}
impl HtmlSafe for When {}

impl When {
    /// Without how long ago it was.
    pub(crate) fn plain(mut self) -> Self {
        self.ago.clear();
        self
    }
}

/// A name as part of a path.
pub(crate) fn in_path(name: &str) -> String {
    utf8_percent_encode(name, IN_PATH).to_string()
}

/// A moment in the form of all JSON.
pub(crate) fn parse(time: &str) -> Option<DateTime<Utc>> {
    time.parse().ok()
}

impl Words {
    /// `12.5`, in the way of the language.
    pub(crate) fn decimal(&self, number: f64, digits: usize) -> String {
        format!("{number:.digits$}").replace('.', self.decimal)
    }

    /// A number with groups of three.
    pub(crate) fn count(&self, number: u64) -> String {
        backup_app::text::count(number).replace(',', self.group)
    }

    /// So many of something.
    pub(crate) fn counted(&self, number: u64, forms: Forms) -> String {
        let (tens, ones) = (number % 100, number % 10);
        let form = match self.language {
            Language::English => usize::from(number != 1),
            Language::Russian => match (tens, ones) {
                (11..=14, _) => 2,
                (_, 1) => 0,
                (_, 2..=4) => 1,
                _ => 2,
            },
        };
        format!("{} {}", self.count(number), forms.0[form])
    }

    /// A size.
    pub(crate) fn size(&self, bytes: u64) -> String {
        let (divisor, unit) = self.unit(bytes);
        let digits = usize::from(divisor > 1.0);
        format!(
            "{}\u{a0}{unit}",
            self.decimal(number(bytes) / divisor, digits)
        )
    }

    /// The unit that suits a size, and its bytes.
    pub(crate) fn unit(&self, bytes: u64) -> (f64, &'static str) {
        let power = bytes.checked_ilog2().unwrap_or(0) / 10;
        let index = usize::try_from(power).unwrap_or(0);
        (f64::from(power * 10).exp2(), self.units[index])
    }

    /// How long something took.
    pub(crate) fn duration(&self, seconds: f64) -> String {
        if seconds < 0.95 {
            let text = self.decimal(seconds.max(0.0) * 1000.0, 0);
            return format!("{text}\u{a0}{}", self.milliseconds);
        }
        if seconds < 59.95 {
            return format!("{}\u{a0}{}", self.decimal(seconds, 1), self.seconds);
        }
        let whole = TimeDelta::try_milliseconds(milliseconds(seconds)).unwrap_or_default();
        let (hours, minutes, rest) = (
            whole.num_hours(),
            whole.num_minutes() % 60,
            whole.num_seconds() % 60,
        );
        match hours {
            0 => format!("{minutes} {} {rest} {}", self.minutes, self.seconds),
            _ => format!("{hours} {} {minutes} {}", self.hours, self.minutes),
        }
    }

    /// How long that is from now, roughly.
    pub(crate) fn span(&self, span: TimeDelta) -> String {
        let minutes = span.num_minutes().unsigned_abs();
        match minutes {
            0..=89 => self.counted(minutes.max(1), self.n_minutes),
            90..=2879 => self.counted((minutes + 30) / 60, self.n_hours),
            _ => self.counted((minutes + 720) / 1440, self.n_days),
        }
    }

    /// How long ago, or how soon.
    pub(crate) fn ago(&self, at: DateTime<Utc>, now: DateTime<Utc>) -> String {
        let since = now - at;
        if since.num_seconds().abs() < 60 {
            self.just_now.to_owned()
        } else if since > TimeDelta::zero() {
            format!("{}{}{}", self.ago_before, self.span(since), self.ago_after)
        } else {
            format!("{}{}", self.ahead, self.span(since))
        }
    }

    /// A moment on the clock of a place.
    pub(crate) fn when(&self, at: DateTime<Utc>, zone: Tz, now: DateTime<Utc>) -> When {
        let local = at.with_timezone(&zone);
        When {
            iso: backup_app::text::time(at),
            zone: zone.name(),
            text: format!("{}, {}", self.date(at, zone), local.format("%H:%M %Z")),
            ago: self.ago(at, now),
        }
    }

    /// A day.
    pub(crate) fn date(&self, at: DateTime<Utc>, zone: Tz) -> String {
        let local = at.with_timezone(&zone);
        let month = self.months_in_dates[local.month0() as usize];
        format!("{}\u{a0}{month}\u{a0}{}", local.day(), local.year())
    }

    /// A day, where there is little room.
    pub(crate) fn short_date(&self, at: DateTime<Utc>, zone: Tz) -> String {
        let local = at.with_timezone(&zone);
        let month = self.months_short[local.month0() as usize];
        format!("{} {month}", local.day())
    }

    /// How something stands or ended.
    pub(crate) fn chip(&self, state: &str) -> Chip {
        let (tone, symbol, word) = match state {
            "ok" => ("good", "✓", self.ok),
            "success" => ("good", "✓", self.success),
            "complete" => ("good", "✓", self.complete),
            "equal" => ("good", "✓", self.equal),
            "proved" => ("good", "✓", self.proof),
            "warning" => ("warn", "!", self.warning),
            "warnings" => ("warn", "!", self.warnings),
            "partial" => ("warn", "◐", self.partial),
            "critical" => ("bad", "✗", self.critical),
            "failed" => ("bad", "✗", self.failed),
            "interrupted" => ("bad", "✗", self.interrupted),
            "different" => ("bad", "✗", self.different),
            "cancelled" => ("idle", "–", self.cancelled),
            "queued" => ("idle", "…", self.queued),
            "running" => ("busy", "▶", self.running),
            _ => ("idle", "?", self.unknown),
        };
        Chip {
            tone,
            symbol,
            word: word.to_owned(),
        }
    }

    /// What was done.
    pub(crate) fn operation<'a>(&'a self, operation: &'a str) -> &'a str {
        match operation {
            "backup" => self.op_backup,
            "adopt" => self.op_adopt,
            "restore" => self.op_restore,
            "verify" => self.op_verify,
            "drill" => self.op_drill,
            "copy" => self.op_copy,
            "prune" => self.op_prune,
            "undo" => self.op_undo,
            "pin" => self.op_pin,
            "unpin" => self.op_unpin,
            "rekey" => self.op_rekey,
            other => other,
        }
    }

    /// For what a backup is kept.
    pub(crate) fn tier<'a>(&'a self, tier: &'a str) -> &'a str {
        match tier {
            "daily" => self.tier_daily,
            "weekly" => self.tier_weekly,
            "monthly" => self.tier_monthly,
            "yearly" => self.tier_yearly,
            other => other,
        }
    }

    /// How deep a proof went.
    pub(crate) fn level<'a>(&'a self, level: &'a str) -> &'a str {
        match level {
            "stored" => self.level_stored,
            "hashed" => self.level_hashed,
            "decoded" => self.level_decoded,
            "restored" => self.level_compared,
            other => other,
        }
    }

    /// How deep a drill went; there, a restore comes before its comparison.
    pub(crate) fn drill_level<'a>(&'a self, level: &'a str) -> &'a str {
        match level {
            "restored" => self.level_restored,
            "compared" => self.level_compared,
            "checked" => self.level_checked,
            other => self.level(other),
        }
    }

    /// Why something failed, for those who may not read the words of servers and stores.
    pub(crate) fn failure(&self, kind: &str) -> &'static str {
        match kind {
            "refused" => self.failure_refused,
            "not_found" => self.failure_not_found,
            "conflict" => self.failure_conflict,
            "corrupt" => self.failure_corrupt,
            "cancelled" => self.cancelled,
            "timeout" => self.failure_timeout,
            _ => self.failure_other,
        }
    }

    /// What a status of a problem means, as a title and a text.
    pub(crate) fn problem(&self, status: StatusCode) -> (&'static str, &'static str) {
        match status {
            StatusCode::NOT_FOUND => (self.not_found, self.not_found_text),
            StatusCode::FORBIDDEN => (self.forbidden, self.forbidden_text),
            StatusCode::TOO_MANY_REQUESTS => (self.refused, self.too_many_orders),
            _ => (self.refused, self.unreachable),
        }
    }

    /// Why an order is not taken.
    pub(crate) fn refusal(&self, refusal: &JobRefusal) -> &'static str {
        match refusal {
            JobRefusal::Running { .. } => self.busy,
            JobRefusal::OneAtATime { .. } => self.one_sandbox,
            JobRefusal::TooMany { .. } => self.queue_full,
            JobRefusal::NoSandboxes => self.no_sandbox_server,
            JobRefusal::Stopping => self.stopping,
        }
    }

    /// What a check found, in a few words.
    pub(crate) fn finding(&self, kind: &str) -> &'static str {
        match kind {
            "damaged" => self.found_damaged,
            "incomplete" => self.found_incomplete,
            "future" => self.found_future,
            "stale" => self.found_stale,
            "shrunk" => self.found_shrunk,
            "slow" => self.found_slow,
            "failed" => self.found_failed,
            "unverified" => self.found_unverified,
            "undrilled" => self.found_undrilled,
            "space" => self.found_space,
            "unreachable" => self.found_unreachable,
            "no-backup" => self.found_no_backup,
            "fewer-rows" => self.found_fewer_rows,
            "fewer-tables" => self.found_fewer_tables,
            "missing-copy" => self.found_missing_copy,
            "damaged-record" => self.found_damaged_record,
            _ => self.found_other,
        }
    }
}

/// Never all of it before it is over.
pub(crate) fn percent(done: u64, total: u64) -> u64 {
    let share = number(done) / number(total) * 100.0;
    super::source::bytes_of(share.floor()).min(99)
}

/// Close enough for people.
#[expect(
    clippy::cast_precision_loss,
    reason = "it is rounded for people anyway"
)]
pub(crate) fn number(value: u64) -> f64 {
    value as f64
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the cast stops at the ends"
)]
fn milliseconds(seconds: f64) -> i64 {
    (seconds.round() * 1000.0) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_the_language_writes_them() {
        let [english, russian] = Words::all();
        for (bytes, en, ru) in [
            (0, "0 B", "0 Б"),
            (1023, "1023 B", "1023 Б"),
            (1 << 10, "1.0 KiB", "1,0 КиБ"),
            (1_300_000, "1.2 MiB", "1,2 МиБ"),
            (u64::MAX, "16.0 EiB", "16,0 ЭиБ"),
        ] {
            assert_eq!(english.size(bytes).replace('\u{a0}', " "), en);
            assert_eq!(russian.size(bytes).replace('\u{a0}', " "), ru);
        }
        for (number, ru) in [
            (0, "0 копий"),
            (1, "1 копия"),
            (3, "3 копии"),
            (5, "5 копий"),
            (11, "11 копий"),
            (12, "12 копий"),
            (21, "21 копия"),
            (102, "102 копии"),
            (111, "111 копий"),
        ] {
            assert_eq!(russian.counted(number, russian.n_backups), ru);
        }
        assert_eq!(english.counted(1, english.n_backups), "1 backup");
        assert_eq!(english.counted(1234, english.n_rows), "1,234 rows");
        assert_eq!(russian.count(1_234_567), "1\u{202f}234\u{202f}567");
        for (seconds, en, ru) in [
            (0.042, "42 ms", "42 мс"),
            (1.54, "1.5 s", "1,5 с"),
            (185.0, "3 min 5 s", "3 мин 5 с"),
            (3725.0, "1 h 2 min", "1 ч 2 мин"),
        ] {
            assert_eq!(english.duration(seconds).replace('\u{a0}', " "), en);
            assert_eq!(russian.duration(seconds).replace('\u{a0}', " "), ru);
        }
    }

    #[test]
    fn times_are_on_the_clock_of_their_place_which_is_named() {
        let [english, russian] = Words::all();
        let at = parse("2026-02-05T23:30:00Z").unwrap();
        let now = at + TimeDelta::minutes(125);
        let zone = chrono_tz::Europe::Berlin;
        let shown = english.when(at, zone, now);
        assert_eq!(shown.text.replace('\u{a0}', " "), "6 Feb 2026, 00:30 CET");
        assert_eq!(shown.ago, "2 hours ago");
        let html = shown.to_string();
        assert!(html.contains("datetime=\"2026-02-05T23:30:00Z\""), "{html}");
        assert!(html.contains("title=\"Europe/Berlin\""), "{html}");
        let shown = russian.when(at, zone, now);
        assert_eq!(
            shown.text.replace('\u{a0}', " "),
            "6 февраля 2026, 00:30 CET"
        );
        assert_eq!(shown.ago, "2 часа назад");
        assert_eq!(russian.ago(now, at), "через 2 часа");
        assert_eq!(english.ago(at, at + TimeDelta::days(3)), "3 days ago");
        assert_eq!(english.ago(at, at), "just now");
    }

    #[test]
    fn names_become_one_segment_of_a_path() {
        assert_eq!(in_path("shop/a b?<é>"), "shop%2Fa%20b%3F%3C%C3%A9%3E");
        assert_eq!(in_path("20260205T030000Z-1a"), "20260205T030000Z-1a");
    }
}
