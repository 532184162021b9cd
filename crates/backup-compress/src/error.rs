//! What can be wrong with the name or level of a compression.

use backup_core::error::{ErrorKind, PortError};

/// A compression that cannot be used as it was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The name stands for nothing this crate knows.
    #[error("unknown compression `{name}`, known are zstd, gzip and none")]
    UnknownAlgorithm {
        /// The name as it was written.
        name: String,
    },
    /// The level is no number or outside what the algorithm has.
    #[error("level `{level}` is not possible for {algorithm}, allowed is {allowed}")]
    Level {
        /// The algorithm's name.
        algorithm: &'static str,
        /// The level as it was written.
        level: String,
        /// The levels that exist.
        allowed: &'static str,
    },
}

impl Error {
    /// Always [`ErrorKind::InvalidInput`].
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidInput
    }
}

impl From<Error> for PortError {
    fn from(error: Error) -> Self {
        Self::new(error.kind(), error.to_string())
    }
}
