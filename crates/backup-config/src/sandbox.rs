//! `[sandbox]`: databases for people who want to look into a backup.

use std::ops::RangeInclusive;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema::DurationText;
use crate::size::Size;

/// Shorter, nobody gets to look; longer, it is no sandbox any more.
pub(crate) const SANDBOX_TTL: RangeInclusive<Duration> =
    Duration::from_mins(5)..=Duration::from_hours(24 * 31);

/// `[sandbox]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SandboxConfig {
    /// The configured server that they are made on; there are none if absent. It needs an `admin`.
    pub server: Option<String>,
    /// How long one lasts.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText")]
    pub ttl: Duration,
    /// How many one person may have.
    #[schemars(range(min = 1))]
    pub per_person: usize,
    /// How many there may be.
    #[schemars(range(min = 1))]
    pub total: usize,
    /// How large a backup may be, uncompressed.
    pub max_size: Size,
}

impl Default for SandboxConfig {
    fn default() -> Self {
        Self {
            server: None,
            ttl: Duration::from_hours(24),
            per_person: 2,
            total: 10,
            max_size: Size::from_bytes(100_000_000_000),
        }
    }
}
