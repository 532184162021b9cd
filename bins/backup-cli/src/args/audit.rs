//! `runs --audit`

use clap::{Args, ValueEnum};

/// What `runs` does with audit records.
#[derive(Debug, Args)]
pub(crate) struct AuditArgs {
    /// List who changed or removed what, or asked for it; with `verify`, look whether somebody
    /// changed that list
    #[arg(
        long = "audit",
        value_name = "MODE",
        value_enum,
        num_args = 0..=1,
        default_missing_value = "list",
        conflicts_with = "operation"
    )]
    pub(crate) mode: Option<AuditMode>,
    /// A hash that was noted before, which the list must still have: without one it does not show
    /// that the newest records are gone
    #[arg(long, value_name = "HASH", requires = "mode", value_parser = hash)]
    pub(crate) expect_head: Option<String>,
}

/// What is wanted of audit records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum AuditMode {
    /// Show them, newest first.
    List,
    /// Follow the chain.
    Verify,
}

fn hash(text: &str) -> Result<String, &'static str> {
    if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err("a SHA-256 has 64 hexadecimal digits")
    }
}
