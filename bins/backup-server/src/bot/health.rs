//! How the bot is: for metrics, and for the log, which must not say the same again and again.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use backup_app::check::of_bot;
use backup_telegram::ApiError;

/// How soon after a failure the next try is, and how late at most. A token that is not known there
/// gets known by somebody's hand.
const FIRST: Duration = Duration::from_secs(1);
const LATEST: Duration = Duration::from_mins(1);
const BY_HAND: Duration = Duration::from_mins(5);

/// Nobody waits longer, whatever the API says.
const LONGEST: Duration = Duration::from_hours(1);

/// How often strangers are told of.
const QUIET: Duration = Duration::from_mins(1);

/// How the bot is.
#[derive(Debug, Default)]
pub(crate) struct Health {
    is_wanted: AtomicBool,
    is_up: AtomicBool,
    heard: AtomicU64,
    ignored: AtomicU64,
}

impl Health {
    /// There is to be a bot.
    pub(super) fn want(&self) {
        self.is_wanted.store(true, Ordering::Relaxed);
    }

    pub(super) fn set_up(&self, is_up: bool) {
        self.is_up.store(is_up, Ordering::Relaxed);
    }

    pub(super) fn is_up(&self) -> bool {
        self.is_up.load(Ordering::Relaxed)
    }

    pub(super) fn hear(&self) {
        self.heard.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn ignore(&self) {
        self.ignored.fetch_add(1, Ordering::Relaxed);
    }

    /// Metrics, if there is to be a bot.
    pub(crate) fn metrics(&self) -> String {
        if !self.is_wanted.load(Ordering::Relaxed) {
            return String::new();
        }
        let heard = self.heard.load(Ordering::Relaxed);
        let ignored = self.ignored.load(Ordering::Relaxed);
        of_bot(self.is_up(), heard, ignored)
    }
}

/// Why nothing is heard, told once, and when to try again.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    told: Option<String>,
    pause: Duration,
}

impl Trouble {
    /// Tells a failure, unless it is the same as before; how long to wait then.
    pub(super) fn note(&mut self, problem: &str, error: Option<&ApiError>) -> Duration {
        if self.told.as_deref() != Some(problem) {
            tracing::error!(target: "backup", "telegram bot: {problem}");
            self.told = Some(problem.to_owned());
        }
        let latest = match error {
            Some(ApiError::TooMany(wait)) => return (*wait).min(LONGEST),
            Some(ApiError::UnknownToken(_)) | None => BY_HAND,
            Some(_) => LATEST,
        };
        self.pause = (self.pause * 2).clamp(FIRST, latest);
        self.pause
    }

    /// It goes on.
    pub(super) fn is_over(&mut self) {
        if self.told.take().is_some() {
            tracing::info!(target: "backup", "telegram bot: it is heard again");
        }
        self.pause = Duration::ZERO;
    }
}

/// Tells of people who are not on the list, not more often than somebody reads.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    told: Option<Instant>,
    since: u64,
}

impl Strangers {
    /// Somebody who is not on the list said something, and gets no answer.
    pub(super) fn note(&mut self, id: i64, now: Instant) {
        self.since += 1;
        let is_time = self
            .told
            .is_none_or(|told| now.duration_since(told) >= QUIET);
        if is_time {
            let count = self.since;
            tracing::warn!(target: "backup", user_id = id, count,
                           "telegram bot: somebody who is not in allow gets no answer");
            (self.told, self.since) = (Some(now), 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_api_that_is_away_is_asked_less_and_less_often() {
        let mut trouble = Trouble::default();
        let away = ApiError::Unavailable("connection refused".to_owned());
        let waits: Vec<_> = (0..9)
            .map(|_| trouble.note("away", Some(&away)).as_secs())
            .collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        trouble.is_over();
        assert_eq!(trouble.note("away", Some(&away)), FIRST);
        let unknown = ApiError::UnknownToken("401".to_owned());
        let wait = (0..20)
            .map(|_| trouble.note("unknown", Some(&unknown)))
            .last();
        assert_eq!(wait, Some(BY_HAND));
        let told = ApiError::TooMany(Duration::from_secs(7));
        assert_eq!(trouble.note("told", Some(&told)), Duration::from_secs(7));
        let mad = ApiError::TooMany(Duration::MAX);
        assert_eq!(trouble.note("told", Some(&mad)), LONGEST);
    }
}
