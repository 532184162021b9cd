//! Logs to stderr, as text or JSON.

use std::io::IsTerminal as _;

use backup_config::{Environment, names};
use tracing_subscriber::EnvFilter;

/// The form of a log line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines.
    Json,
}

/// How much is logged when `RUST_LOG` says nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogLevel {
    /// Errors only.
    Quiet,
    /// What a cron mail should hold.
    #[default]
    Normal,
    /// Every step.
    Verbose,
}

/// Sets up logging for the process. The second call does nothing.
pub fn init_logging(format: LogFormat, level: LogLevel, environment: &Environment) {
    let default = match level {
        LogLevel::Quiet => "error",
        LogLevel::Normal => "warn,backup=info",
        LogLevel::Verbose => "info,backup=debug",
    };
    let filter = environment
        .get(names::LOG)
        .and_then(|text| EnvFilter::try_new(text).ok())
        .unwrap_or_else(|| EnvFilter::new(default));
    let colours = std::io::stderr().is_terminal() && environment.get(names::NO_COLOR).is_none();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colours)
        .with_target(false)
        // A log that cannot be written must not end the work: saying so would panic there.
        .log_internal_errors(false)
        .with_writer(std::io::stderr);
    // An error means that logging is already set up.
    let _ = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
}
