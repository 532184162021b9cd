//! What can be said about keeping backups.

use std::num::NonZeroUsize;
use std::time::Duration;

use backup_app::{Overrides, RetentionConfig};
use backup_core::retention::Count;
use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use clap::Args;

use super::PlaceArgs;

/// What to keep, instead of what is configured.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct PolicyArgs {
    /// The first backup of each of the newest N days that have one; N may be none or unlimited
    #[arg(long, value_name = "N")]
    keep_daily: Option<Count>,
    /// The same of ISO weeks
    #[arg(long, value_name = "N")]
    keep_weekly: Option<Count>,
    /// The same of months
    #[arg(long, value_name = "N")]
    keep_monthly: Option<Count>,
    /// The same of years. Once one of the four is said, the others are 4, 4, 4, 999
    #[arg(long, value_name = "N")]
    keep_yearly: Option<Count>,
    /// The newest N
    #[arg(long, value_name = "N")]
    keep_last: Option<Count>,
    /// All that are younger, such as 30d
    #[arg(long, value_name = "AGE", value_parser = humantime::parse_duration)]
    keep_within: Option<Duration>,
    /// The newest N good ones and the newest N proved ones, whatever else is said [default: 3]
    #[arg(long, value_name = "N")]
    min_keep: Option<NonZeroUsize>,
    /// Where midnight is [default: UTC]
    #[arg(long, value_name = "ZONE")]
    timezone: Option<String>,
}

impl PolicyArgs {
    fn retention(&self) -> RetentionConfig {
        RetentionConfig {
            daily: self.keep_daily,
            weekly: self.keep_weekly,
            monthly: self.keep_monthly,
            yearly: self.keep_yearly,
            keep_last: self.keep_last,
            keep_within: self.keep_within,
            min_keep: self.min_keep,
            timezone: self.timezone.clone(),
            max_deletions: None,
        }
    }
}

/// `prune`
#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    /// Sources [default: every configured one, or the only one there is]
    #[arg(value_name = "SOURCE")]
    sources: Vec<String>,
    /// The same; may be repeated
    #[arg(long, value_name = "NAME")]
    source: Vec<String>,
    /// Only say what would go and what stays, and why
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Delete without asking
    #[arg(long)]
    pub(crate) yes: bool,
    /// Delete at most N backups of a source; N may be unlimited [default: 100]
    #[arg(long, value_name = "N")]
    pub(crate) max_deletions: Option<Count>,
    /// Let old ones go though the newest is older than usual
    #[arg(long)]
    pub(crate) clock_is_right: bool,
    #[command(flatten)]
    policy: PolicyArgs,
    #[command(flatten)]
    place: PlaceArgs,
}

impl PruneArgs {
    pub(crate) fn overrides(&self) -> Overrides {
        Overrides {
            retention: self.policy.retention(),
            ..self.place.overrides()
        }
    }

    /// Every source that is named.
    pub(crate) fn sources(&self) -> impl Iterator<Item = &String> {
        self.sources.iter().chain(&self.source)
    }
}

/// `simulate`
#[derive(Debug, Args)]
pub(crate) struct SimulateArgs {
    /// A configured policy
    #[arg(long, value_name = "NAME")]
    pub(crate) retention: Option<String>,
    /// For how many years
    #[arg(long, value_name = "N", default_value = "5", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) years: u32,
    #[command(flatten)]
    policy: PolicyArgs,
}

impl SimulateArgs {
    pub(crate) fn overrides(&self) -> Overrides {
        Overrides {
            retention: self.policy.retention(),
            ..Overrides::default()
        }
    }
}

/// `pin`
#[derive(Debug, Args)]
pub(crate) struct PinArgs {
    /// Id, the beginning of one, latest, latest-verified or oldest
    pub(crate) backup: String,
    /// The source, where such a word needs one
    #[arg(long, value_name = "NAME")]
    pub(crate) source: Option<String>,
    /// Until the end of this day in UTC, or this moment [default: until it is taken back]
    #[arg(long, value_name = "DATE", value_parser = moment)]
    pub(crate) until: Option<DateTime<Utc>>,
    /// Why
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

/// `unpin`
#[derive(Debug, Args)]
pub(crate) struct UnpinArgs {
    /// Id, the beginning of one, latest, latest-verified or oldest
    pub(crate) backup: String,
    /// The source, where such a word needs one
    #[arg(long, value_name = "NAME")]
    pub(crate) source: Option<String>,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

/// The end of a day, or a moment.
fn moment(text: &str) -> Result<DateTime<Utc>, String> {
    if let Ok(day) = text.parse::<NaiveDate>() {
        let last = NaiveTime::from_hms_opt(23, 59, 59).unwrap_or_default();
        return Ok(day.and_time(last).and_utc());
    }
    let parsed = DateTime::parse_from_rfc3339(text);
    parsed
        .map(|moment| moment.with_timezone(&Utc))
        .map_err(|_| "not of the form 2027-01-31 or 2027-01-31T12:00:00Z".to_owned())
}
