//! `[log]`: what is written down on this machine besides the log of the process.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[log]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// A file that gets one line of JSON for each verification and each drill.
    pub proofs: Option<PathBuf>,
}
