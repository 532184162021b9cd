//! What can go wrong, in two layers: [`PortError`] is what an adapter reports,
//! [`Error`] is what the engine says it was doing when that happened.

use std::fmt;

use crate::backup::{BackupId, SourceName};
use crate::lease::Holder;
use crate::manifest::PartName;

/// A boxed cause.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// The class of a failure: what a caller can act on, whatever the layer it came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request or the configuration is wrong; repeating it changes nothing.
    InvalidInput,
    /// The named thing does not exist.
    NotFound,
    /// The name is taken.
    AlreadyExists,
    /// Credentials are missing, wrong or lack a right.
    PermissionDenied,
    /// The other side cannot be reached or asks to come back later.
    Unavailable,
    /// There is no room left.
    NoRoom,
    /// A client program of the right version is not installed.
    ToolMissing,
    /// The server lacks what the work needs: a version, a role, an extension.
    Unsuitable,
    /// A client program, or the server it talked to, reported a failure.
    ToolFailed,
    /// Bytes are not what was written.
    Corrupt,
    /// Somebody else changed or holds the same thing.
    Conflict,
    /// A safety rule says no.
    Refused,
    /// The caller cancelled.
    Cancelled,
    /// Nothing moved for too long.
    Timeout,
    /// A defect of ours.
    Internal,
}

impl ErrorKind {
    /// Whether the same call may succeed when it is repeated later.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::Unavailable | Self::Timeout | Self::Conflict | Self::ToolFailed
        )
    }

    /// Whether the other side was out of reach.
    pub(crate) fn is_outage(self) -> bool {
        matches!(self, Self::Unavailable | Self::Timeout)
    }

    /// The name used in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidInput => "invalid_input",
            Self::NotFound => "not_found",
            Self::AlreadyExists => "already_exists",
            Self::PermissionDenied => "permission_denied",
            Self::Unavailable => "unavailable",
            Self::NoRoom => "no_room",
            Self::ToolMissing => "tool_missing",
            Self::Unsuitable => "unsuitable",
            Self::ToolFailed => "tool_failed",
            Self::Corrupt => "corrupt",
            Self::Conflict => "conflict",
            Self::Refused => "refused",
            Self::Cancelled => "cancelled",
            Self::Timeout => "timeout",
            Self::Internal => "internal",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What an adapter (store, dumper, restorer, cipher, compressor) reports.
///
/// `Display` prints the adapter's own words only; the cause is in `source()`.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct PortError {
    kind: ErrorKind,
    message: String,
    hint: Option<String>,
    #[source]
    source: Option<BoxError>,
}

impl PortError {
    /// An error of `kind` that says `message` (lowercase, no period, no cause).
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            hint: None,
            source: None,
        }
    }

    /// The same with its cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The same with one sentence on what to do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The class of the failure.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What to do about it, when the adapter knows.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The cancellation that every port reports alike.
    #[must_use]
    pub fn cancelled() -> Self {
        Self::new(ErrorKind::Cancelled, "cancelled")
    }

    /// Wraps into an I/O error, so that it can travel through a body stream.
    #[must_use]
    pub fn into_io(self) -> std::io::Error {
        std::io::Error::other(self)
    }

    /// The port error that travelled through a body stream, or the I/O error itself as `kind`.
    #[must_use]
    pub fn from_io(error: std::io::Error, kind: ErrorKind, message: &str) -> Self {
        match error.downcast::<Self>() {
            Ok(port) => port,
            Err(io) => Self::new(kind, message).with_source(io),
        }
    }
}

/// An error and its causes on one line, joined by `: `. Many an error of other libraries repeats
/// its cause; that is said once.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.ends_with(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}

/// What the engine was doing when it failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The store refused, lost or could not deliver something.
    #[error("{operation}")]
    Store {
        /// What was asked of the store, with the key.
        operation: String,
        /// The store's words.
        #[source]
        source: PortError,
    },
    /// The source could not be dumped.
    #[error("{operation}")]
    Dump {
        /// What was being dumped.
        operation: String,
        /// The dumper's words.
        #[source]
        source: PortError,
    },
    /// The target database could not be made, loaded or read back.
    #[error("{operation}")]
    Restore {
        /// What was being restored.
        operation: String,
        /// The restorer's words.
        #[source]
        source: PortError,
    },
    /// A database could not be put into the place of another.
    #[error("{operation}")]
    Replace {
        /// Which was to be replaced.
        operation: String,
        /// The replacer's words.
        #[source]
        source: PortError,
    },
    /// A key is missing, wrong or cannot be used.
    #[error("{operation}")]
    Key {
        /// What the key was needed for.
        operation: String,
        /// The cipher's words.
        #[source]
        source: PortError,
    },
    /// Stored bytes are not what was written.
    #[error("{what}")]
    Corrupt {
        /// The object or part, and how it differs.
        what: String,
        /// The decoder's words, if it was a decoder that noticed.
        #[source]
        source: Option<PortError>,
    },
    /// No such backup, source or table.
    #[error("{what} not found")]
    NotFound {
        /// What was looked for.
        what: String,
    },
    /// The request cannot be carried out as it was put.
    #[error("{message}")]
    InvalidInput {
        /// Why.
        message: String,
    },
    /// A safety rule says no.
    #[error("{message}")]
    Refused {
        /// Which, and why.
        message: String,
        /// What to do about it.
        hint: &'static str,
    },
    /// Nothing moved for longer than the stall timeout.
    #[error("no bytes moved for {} s while dumping part {part}", after.as_secs())]
    Stalled {
        /// The part.
        part: PartName,
        /// The limit that was exceeded.
        after: std::time::Duration,
    },
    /// What was restored is not what was dumped.
    #[error("restored content differs from the dump: {}", .0.summary())]
    Differs(Box<crate::engine::CompareReport>),
    /// What was restored is equal to the dump, and still not as it must be.
    #[error("the restored database is not sound: {what}")]
    Unsound {
        /// What was found.
        what: String,
    },
    /// Another run holds the lease.
    #[error("{what} is held by {holder}")]
    Held {
        /// Of what.
        what: String,
        /// By whom.
        holder: Box<Holder>,
    },
    /// There is a backup already that is as new as was asked for.
    #[error("{source_name} has a backup already: {backup}")]
    Taken {
        /// Of which source.
        source_name: SourceName,
        /// Which.
        backup: BackupId,
    },
    /// The run's own lease is another's by now, or gone; nothing was published.
    #[error("nothing was published: {what} was lost{}", taken_by(by.as_deref()))]
    LeaseLost {
        /// Of what.
        what: String,
        /// Who has it, if somebody has.
        by: Option<Box<Holder>>,
    },
    /// The caller cancelled; nothing was committed.
    #[error("cancelled")]
    Cancelled,
}

fn taken_by(holder: Option<&Holder>) -> String {
    holder.map_or_else(String::new, |holder| format!(" to {holder}"))
}

impl Error {
    /// Somebody else saw to it that this run commits nothing any more.
    pub(crate) fn barred(source: &SourceName) -> Self {
        Self::LeaseLost {
            what: format!("the lease of {source}"),
            by: None,
        }
    }

    /// The class of the failure.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Store { source, .. }
            | Self::Dump { source, .. }
            | Self::Restore { source, .. }
            | Self::Replace { source, .. }
            | Self::Key { source, .. } => source.kind(),
            Self::Corrupt { .. } | Self::Differs(_) | Self::Unsound { .. } => ErrorKind::Corrupt,
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::Taken { .. } => ErrorKind::AlreadyExists,
            Self::InvalidInput { .. } => ErrorKind::InvalidInput,
            Self::Refused { .. } => ErrorKind::Refused,
            Self::Stalled { .. } => ErrorKind::Timeout,
            Self::Held { .. } | Self::LeaseLost { .. } => ErrorKind::Conflict,
            Self::Cancelled => ErrorKind::Cancelled,
        }
    }

    /// What to do about it, when somebody on the way knew.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Store { source, .. }
            | Self::Dump { source, .. }
            | Self::Restore { source, .. }
            | Self::Replace { source, .. }
            | Self::Key { source, .. } => source.hint(),
            Self::Corrupt { source, .. } => source.as_ref().and_then(PortError::hint),
            Self::Refused { hint, .. } => Some(hint),
            Self::Held { .. } => {
                Some("wait until it is done; if that process is no more, its lease ends by itself")
            }
            Self::LeaseLost { .. } => Some(
                "this process or its store stood still for longer than the lease lasts; see what \
                 was done meanwhile",
            ),
            _ => None,
        }
    }

    pub(crate) fn store(operation: impl Into<String>, source: PortError) -> Self {
        if source.kind() == ErrorKind::Cancelled {
            return Self::Cancelled;
        }
        Self::Store {
            operation: operation.into(),
            source,
        }
    }

    pub(crate) fn dump(operation: impl Into<String>, source: PortError) -> Self {
        if source.kind() == ErrorKind::Cancelled {
            return Self::Cancelled;
        }
        Self::Dump {
            operation: operation.into(),
            source,
        }
    }

    pub(crate) fn restore(operation: impl Into<String>, source: PortError) -> Self {
        if source.kind() == ErrorKind::Cancelled {
            return Self::Cancelled;
        }
        Self::Restore {
            operation: operation.into(),
            source,
        }
    }

    pub(crate) fn replace(operation: impl Into<String>, source: PortError) -> Self {
        if source.kind() == ErrorKind::Cancelled {
            return Self::Cancelled;
        }
        Self::Replace {
            operation: operation.into(),
            source,
        }
    }

    pub(crate) fn key(operation: impl Into<String>, source: PortError) -> Self {
        Self::Key {
            operation: operation.into(),
            source,
        }
    }

    pub(crate) fn refused(message: impl Into<String>, hint: &'static str) -> Self {
        Self::Refused {
            message: message.into(),
            hint,
        }
    }

    pub(crate) fn corrupt(what: impl Into<String>) -> Self {
        Self::Corrupt {
            what: what.into(),
            source: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_says_each_cause_once_and_in_order() {
        let io = std::io::Error::other("connection reset");
        let plain = PortError::new(ErrorKind::Unavailable, "read the object").with_source(io);
        let error = Error::store("verify part schema", plain);
        assert_eq!(
            chain(&error),
            "verify part schema: read the object: connection reset"
        );
        // Errors of other libraries often end with their cause.
        let io = std::io::Error::other("connection reset");
        let repeats =
            PortError::new(ErrorKind::Unavailable, "read: connection reset").with_source(io);
        let error = Error::store("verify part schema", repeats);
        assert_eq!(chain(&error), "verify part schema: read: connection reset");
        assert_eq!(chain(&Error::Cancelled), "cancelled");
    }
}
