//! What can be wrong with configured recipients and identities.

use backup_core::error::{ErrorKind, PortError};

/// Recipients or identities that cannot be used. Never carries any part of an identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Not an X25519 recipient.
    #[error("`{recipient}` is no age recipient")]
    Recipient {
        /// What was written.
        recipient: String,
    },
    /// A secret was given where the public recipient belongs.
    #[error("a secret identity was given as a recipient")]
    IdentityAsRecipient,
    /// A line of an identity file is neither an identity nor a comment.
    #[error("line {line} of the identity file is no age identity")]
    Identity {
        /// The line's number, from 1.
        line: usize,
    },
    /// The identity file has comments only.
    #[error("the identity file holds no identity")]
    NoIdentity,
    /// The identity file is protected by a passphrase.
    #[error("the identity file is encrypted")]
    EncryptedIdentity,
}

impl Error {
    /// Always [`ErrorKind::InvalidInput`].
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidInput
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Recipient { .. } => {
                "a recipient has 62 characters and begins with `age1`: copy all of it; \
                 `age-keygen -y identity.txt` prints it"
            }
            Self::IdentityAsRecipient => {
                "keep the identity off this host and put the `age1…` text that \
                 `age-keygen -y identity.txt` prints in its place"
            }
            Self::Identity { .. } | Self::NoIdentity => {
                "an identity is a line that starts with `AGE-SECRET-KEY-1`"
            }
            Self::EncryptedIdentity => {
                "nobody is there to type a passphrase: decrypt it first with \
                 `age -d identity.txt.age > identity.txt` and protect it by file mode"
            }
        }
    }
}

impl From<Error> for PortError {
    fn from(error: Error) -> Self {
        Self::new(error.kind(), error.to_string()).with_hint(error.hint())
    }
}
