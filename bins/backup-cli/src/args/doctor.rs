//! What `doctor` can be told.

use std::path::PathBuf;

use backup_app::Overrides;
use clap::Args;

use super::ServerArgs;

/// `doctor`
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Configured sources [default: all]
    #[arg(value_name = "SOURCE")]
    pub(crate) sources: Vec<String>,
    /// Database [env: PGDATABASE]
    #[arg(short, long, value_name = "NAME", conflicts_with = "sources")]
    dbname: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
    /// Where backups live
    #[arg(
        long,
        value_name = "URL",
        help = "Where backups go: file:///dir, s3://bucket/prefix"
    )]
    to: Option<String>,
    /// The public key that backups are encrypted to; may be repeated
    #[arg(long, value_name = "age1…")]
    recipient: Vec<String>,
    /// Backups are not encrypted
    #[arg(long, conflicts_with = "recipient")]
    no_encryption: bool,
    /// File with a private key; may be repeated
    #[arg(short, long, value_name = "FILE")]
    identity: Vec<PathBuf>,
    /// Parts at the same time [default: 4]
    #[arg(short, long, value_name = "N")]
    jobs: Option<usize>,
}

impl DoctorArgs {
    pub(crate) fn overrides(&self) -> Overrides {
        Overrides {
            url: self.to.clone(),
            server: self.server.overrides(),
            database: self.dbname.clone(),
            jobs: self.jobs,
            recipients: self.recipient.clone(),
            no_encryption: self.no_encryption,
            identities: self.identity.clone(),
            ..Overrides::default()
        }
    }
}
