//! Every error as a user sees it: what, why, what to do.

use backup_core::error::{Error as CoreError, ErrorKind, PortError, chain};
use backup_core::lease::Holder;
use serde::Serialize;

/// What a frontend has to report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppError {
    /// The configuration cannot be used.
    #[error("configuration")]
    Config(#[source] backup_config::Error),
    /// What was asked for makes no sense.
    #[error("{message}")]
    Usage {
        /// Why.
        message: String,
        /// What to say instead.
        hint: Option<String>,
    },
    /// An adapter could not be set up.
    #[error("{operation}")]
    Setup {
        /// Which.
        operation: String,
        /// Why.
        #[source]
        source: PortError,
    },
    /// An operation failed.
    #[error(transparent)]
    Engine(CoreError),
    /// A program of the operator failed that was to run before the work.
    #[error("hook {program}")]
    Hook {
        /// Which.
        program: String,
        /// How.
        #[source]
        source: PortError,
    },
    /// The time for the whole operation is up.
    #[error("not done within {}", humantime(.0))]
    Timeout(std::time::Duration),
    /// A local file cannot be read or written.
    #[error("{operation}")]
    File {
        /// What was tried.
        operation: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

/// An error, its causes and what to do about it.
pub(crate) fn on_one_line(error: &dyn std::error::Error, hint: Option<&str>) -> String {
    let hint = hint.map(|hint| format!(" (hint: {hint})"));
    format!("{}{}", chain(error), hint.unwrap_or_default())
}

fn harmless(text: &str) -> String {
    let mut harmless = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => harmless.push_str("\n    "),
            '\t' => harmless.push('\t'),
            c if c.is_control() => harmless.extend(c.escape_default()),
            c => harmless.push(c),
        }
    }
    harmless
}

fn humantime(duration: &std::time::Duration) -> String {
    format!("{} s", duration.as_secs())
}

impl AppError {
    /// A usage error.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::Usage {
            message: message.into(),
            hint: None,
        }
    }

    /// A usage error that says what to do instead.
    pub fn usage_hint(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Usage {
            message: message.into(),
            hint: Some(hint.into()),
        }
    }

    pub(crate) fn setup(operation: impl Into<String>, source: PortError) -> Self {
        Self::Setup {
            operation: operation.into(),
            source,
        }
    }

    /// The class.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Config(_) | Self::Usage { .. } => ErrorKind::InvalidInput,
            Self::Setup { source, .. } => source.kind(),
            Self::Engine(error) => error.kind(),
            // Whatever its words suggest, it is nothing of ours.
            Self::Hook { .. } => ErrorKind::ToolFailed,
            Self::Timeout(_) => ErrorKind::Timeout,
            Self::File { source, .. } => match source.kind() {
                std::io::ErrorKind::NotFound => ErrorKind::NotFound,
                std::io::ErrorKind::AlreadyExists => ErrorKind::AlreadyExists,
                std::io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
                _ => ErrorKind::Unavailable,
            },
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Config(error) => error.hint(),
            Self::Usage { hint, .. } => hint.clone(),
            Self::Setup { source, .. } => source.hint().map(str::to_owned),
            Self::Engine(error) => error.hint().map(str::to_owned),
            Self::Timeout(_) | Self::File { .. } | Self::Hook { .. } => None,
        }
    }

    /// The whole message on one line.
    pub(crate) fn line(&self) -> String {
        on_one_line(self, self.hint().as_deref())
    }

    /// Who holds what this needed, or has taken it away.
    fn holder(&self) -> Option<&Holder> {
        match self {
            Self::Engine(CoreError::Held { holder, .. }) => Some(holder),
            Self::Engine(CoreError::LeaseLost { by, .. }) => by.as_deref(),
            _ => None,
        }
    }

    /// The parts of the message, for JSON.
    #[must_use]
    pub fn report(&self) -> ErrorReport {
        let mut causes = Vec::new();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            causes.push(error.to_string());
            cause = error.source();
        }
        ErrorReport {
            kind: self.kind().as_str(),
            message: self.to_string(),
            causes,
            hint: self.hint(),
            holder: self.holder().cloned(),
        }
    }

    /// The whole message: the chain, then the hint on a line of its own.
    ///
    /// Names and the words of servers are in it, and they may hold anything: what continues a line
    /// is indented, so that it cannot pass for a message of ours, and control characters are
    /// escaped, so that they do nothing to a terminal.
    #[must_use]
    pub fn render(&self) -> String {
        let text = harmless(&chain(self));
        match self.hint() {
            Some(hint) => format!("{text}\nhint: {}", harmless(&hint)),
            None => text,
        }
    }
}

impl From<CoreError> for AppError {
    fn from(error: CoreError) -> Self {
        Self::Engine(error)
    }
}

impl From<backup_config::Error> for AppError {
    fn from(error: backup_config::Error) -> Self {
        Self::Config(error)
    }
}

/// An error in the parts that JSON output has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ErrorReport {
    /// Its class.
    pub kind: &'static str,
    /// What failed.
    pub message: String,
    /// Why, outermost first.
    pub causes: Vec<String>,
    /// What to do.
    pub hint: Option<String>,
    /// Who was in the way, if it is another run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holder: Option<Holder>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_cannot_pass_for_another() {
        let error = AppError::usage_hint("no \u{1b}[31mred\nerror: \tforged", "say so");
        assert_eq!(
            error.render(),
            "no \\u{1b}[31mred\n    error: \tforged\nhint: say so"
        );
        // Names that a server or a manifest brought are in hints, too.
        let error = AppError::usage_hint("no", "DROP DATABASE \"a\nerror: \u{1b}forged\"");
        assert_eq!(
            error.render(),
            "no\nhint: DROP DATABASE \"a\n    error: \\u{1b}forged\""
        );
    }
}
