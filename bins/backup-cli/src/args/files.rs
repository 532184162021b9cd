//! What becomes of backups that are no database, and how dumps of other tools become backups.

use clap::Args;

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
