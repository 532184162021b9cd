//! What becomes of backups that are no database, and how dumps of other tools become backups.

use std::path::PathBuf;

use backup_app::Overrides;
use chrono::{DateTime, Utc};
use clap::Args;

use super::StoringArgs;

/// What `cat` prints.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct PartsArgs {
    /// The table
    #[arg(long, value_name = "SCHEMA.TABLE")]
    pub(crate) table: Option<String>,
    /// Instead of rows, a whole part as it was dumped: a snapshot, a dump, a configuration
    #[arg(long, value_name = "NAME")]
    pub(crate) part: Option<String>,
}

/// `adopt`
#[derive(Debug, Args)]
pub(crate) struct AdoptArgs {
    /// The dumps
    #[arg(
        required = true,
        value_name = "FILE",
        help = "Dumps that pg_dump made: custom, tar or SQL, packed by gzip or zstd or not at all"
    )]
    pub(crate) files: Vec<PathBuf>,
    /// The source whose backups they become
    #[arg(long, value_name = "NAME")]
    pub(crate) source: String,
    /// When the dump was taken [default: what it says itself, else the file's time]
    #[arg(long, value_name = "TIME")]
    pub(crate) at: Option<DateTime<Utc>>,
    #[command(flatten)]
    storing: StoringArgs,
}

impl AdoptArgs {
    pub(crate) fn overrides(&self) -> Overrides {
        self.storing.overrides()
    }
}
