//! What `notify` can be told.

use clap::{Args, Subcommand};

/// `notify`
#[derive(Debug, Args)]
pub(crate) struct NotifyArgs {
    #[command(subcommand)]
    pub(crate) command: NotifyCommand,
}

/// What to do with those who are told how runs end.
#[derive(Debug, Subcommand)]
pub(crate) enum NotifyCommand {
    /// Send a notice, and say whether the other side took it
    ///
    /// Exit codes: 0 all were taken, 1 none was, 3 some were.
    Test {
        /// Only these [default: all that are configured]
        #[arg(value_name = "NAME")]
        names: Vec<String>,
    },
}
