//! What becomes of backups that are no database, and how dumps of other tools become backups.

use std::path::PathBuf;

use backup_app::Overrides;
use chrono::{DateTime, Utc};
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
    /// Where backups live
    #[arg(
        long,
        value_name = "URL",
        help = "Where to put backups: file:///dir, s3://bucket/prefix"
    )]
    to: Option<String>,
    /// Encrypt to this public key; may be repeated
    #[arg(long, value_name = "age1…")]
    recipient: Vec<String>,
    /// Write without encryption
    #[arg(long, conflicts_with = "recipient")]
    no_encryption: bool,
    /// Compression: zstd:LEVEL, gzip:LEVEL, none [default: zstd:2]
    #[arg(short = 'Z', long, value_name = "METHOD")]
    compress: Option<String>,
}

impl AdoptArgs {
    pub(crate) fn overrides(&self) -> Overrides {
        Overrides {
            url: self.to.clone(),
            compression: self.compress.clone(),
            recipients: self.recipient.clone(),
            no_encryption: self.no_encryption,
            ..Overrides::default()
        }
    }
}
