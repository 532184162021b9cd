//! `[drill]`: rehearsals of restores.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema::DurationText;

/// `[drill]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DrillConfig {
    /// How old a drilled backup must be at least; the newest and an older one in turn if absent.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "Option<DurationText>")]
    pub backup_age: Option<Duration>,
    /// What must hold in a restored database.
    pub assertions: Vec<AssertionConfig>,
    /// How long one of them may take.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText")]
    pub assertion_timeout: Duration,
    /// How long a whole drill may take.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText")]
    pub timeout: Duration,
    /// Where the throw-away cluster is made, which will hold a whole database.
    pub directory: Option<PathBuf>,
    /// The account that it runs as when the drill is started by root.
    pub user: Option<String>,
    /// Where the server programs are.
    pub bin_dir: Option<PathBuf>,
    /// Extensions that a superuser may make there, besides trusted and harmless ones.
    pub extensions: Vec<String>,
    /// A configured server to drill on, instead of a throw-away cluster.
    pub server: Option<String>,
    /// When one is held by itself, as cron says it; never if absent.
    pub schedule: Option<String>,
    /// Where its clock hangs, instead of the default.
    pub timezone: Option<String>,
}

impl Default for DrillConfig {
    fn default() -> Self {
        Self {
            backup_age: None,
            assertions: Vec::new(),
            assertion_timeout: Duration::from_mins(5),
            timeout: Duration::from_hours(24),
            directory: None,
            user: None,
            bin_dir: None,
            extensions: Vec::new(),
            server: None,
            schedule: None,
            timezone: None,
        }
    }
}

/// One of `[drill] assertions`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AssertionConfig {
    /// The source whose databases it is about.
    pub source: String,
    /// One statement that gives `true`.
    pub sql: String,
}
