//! When things run by themselves.

use std::ops::RangeInclusive;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[verify]` and `[prune]`: what is run for all sources.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpkeepConfig {
    /// When, as cron says it; never if absent.
    pub schedule: Option<String>,
    /// Where its clock hangs, instead of the default.
    pub timezone: Option<String>,
}

/// Nobody looks at the clock more often than once a minute.
pub(crate) const TOLERANCE: RangeInclusive<Duration> =
    Duration::from_mins(1)..=Duration::from_hours(24);

/// A run that was missed longer ago is better told than made up for.
pub(crate) const CATCH_UP: RangeInclusive<Duration> =
    Duration::ZERO..=Duration::from_hours(24 * 31);

/// Longer than a day, a run would be another day's.
pub(crate) const JITTER: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_hours(24);
