//! `[alerts]`: what is not as it should be.

use std::time::Duration;

use backup_core::check::Ratio;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema::{DurationText, RatioNumber};

/// `[alerts]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AlertsConfig {
    /// How old the newest backup of a source may be.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText")]
    pub max_age: Duration,
    /// How small a backup may be, compared with the one before.
    #[schemars(with = "RatioNumber")]
    pub min_size_ratio: Ratio,
    /// How long a backup may take; how long is normal, only the operator knows.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "Option<DurationText>")]
    pub max_duration: Option<Duration>,
    /// How long ago a drill may have succeeded; without it nobody is told to drill.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "Option<DurationText>")]
    pub undrilled_after: Option<Duration>,
}

impl Default for AlertsConfig {
    /// A day and an hour, a tenth; of the rest, nothing.
    fn default() -> Self {
        Self {
            max_age: Duration::from_hours(25),
            min_size_ratio: Ratio::percent(10),
            max_duration: None,
            undrilled_after: None,
        }
    }
}
