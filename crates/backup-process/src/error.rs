//! What can go wrong with a child.

use std::io;

use backup_core::error::{ErrorKind, PortError};

/// A failure of a child, or of starting one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A program cannot be started.
    #[error("cannot start {tool}")]
    SpawnTool {
        /// The program.
        tool: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A program cannot be read from or waited for.
    #[error("cannot talk to {tool}")]
    ToolIo {
        /// The program.
        tool: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A program failed.
    #[error("{tool} {status}{}", said(words))]
    ToolFailed {
        /// The program.
        tool: String,
        /// How it ended.
        status: String,
        /// The last lines of its standard error.
        words: String,
    },
    /// A program hung or produced without end.
    #[error("{tool} {problem}")]
    ToolMisbehaved {
        /// The program.
        tool: String,
        /// What it did.
        problem: String,
    },
    /// The caller cancelled.
    #[error("cancelled")]
    Cancelled,
}

fn said(words: &str) -> String {
    if words.is_empty() {
        " without a word".to_owned()
    } else {
        format!(": {words}")
    }
}

impl Error {
    /// The class of the failure, as far as that is known without knowing the program.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Cancelled => ErrorKind::Cancelled,
            _ => ErrorKind::ToolFailed,
        }
    }
}

impl From<Error> for PortError {
    fn from(error: Error) -> Self {
        let port = Self::new(error.kind(), error.to_string());
        match error {
            Error::SpawnTool { source, .. } | Error::ToolIo { source, .. } => {
                port.with_source(source)
            }
            _ => port,
        }
    }
}
