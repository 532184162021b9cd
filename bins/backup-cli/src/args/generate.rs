//! `generate`

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// `generate`
#[derive(Debug, Args)]
pub(crate) struct GenerateArgs {
    /// Who is to run the backups
    #[arg(value_enum)]
    pub(crate) orchestrator: OrchestratorArg,
    /// Write into this directory, or this file where it is one file, instead of stdout
    #[arg(short, long, value_name = "PATH")]
    pub(crate) output: Option<PathBuf>,
    /// Write over files that are there
    #[arg(long, requires = "output")]
    pub(crate) force: bool,
    /// Where backup-cli is installed on the machines that run it
    #[arg(long, value_name = "PATH", default_value = "/usr/local/bin/backup-cli")]
    pub(crate) program: String,
    /// The image, for kubernetes and compose
    #[arg(long, value_name = "NAME", default_value = concat!("backup:", env!("CARGO_PKG_VERSION")))]
    pub(crate) image: String,
}

/// Who runs backups.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum OrchestratorArg {
    /// A crontab
    Cron,
    /// Units and timers
    Systemd,
    /// A script for build steps
    Teamcity,
    /// A file of DAGs
    Airflow,
    /// Manifests
    Kubernetes,
    /// A Compose file
    Compose,
    /// A Makefile
    Makefile,
}
