//! What can go wrong.

use std::time::Duration;

use backup_core::error::{ErrorKind, PortError};

/// Why a call failed. No token and no address is in it, whoever sent the words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ApiError {
    /// What is configured has not the form of a token.
    #[error("this is no token of a bot: they are digits, a colon, and letters")]
    WrongToken,
    /// What is configured is no address of a server, or the token would cross the network in the
    /// clear.
    #[error("the address of the bot API must be https://HOST, or http:// on this machine")]
    WrongAddress,
    /// The server does not know the token.
    #[error("the bot API does not know this token: {0}")]
    UnknownToken(String),
    /// Somebody else asks for the same updates, or has them sent.
    #[error("something else takes what people say to this bot: {0}")]
    Conflict(String),
    /// Too much was asked for.
    #[error("the bot API wants to be left alone for {} s", .0.as_secs())]
    TooMany(Duration),
    /// The server does not do that.
    #[error("the bot API refuses: {code} {text}")]
    Refused {
        /// Its code.
        code: u16,
        /// Its words.
        text: String,
    },
    /// There is no answer, or none for now.
    #[error("the bot API cannot be reached: {0}")]
    Unavailable(String),
    /// There is an answer, and it is none of this API.
    #[error("the answer makes no sense: {0}")]
    Senseless(String),
}

impl ApiError {
    /// The class of the failure.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::UnknownToken(_) | Self::Refused { code: 403, .. } => ErrorKind::PermissionDenied,
            Self::Conflict(_) => ErrorKind::Conflict,
            Self::WrongToken | Self::WrongAddress | Self::Refused { .. } => ErrorKind::InvalidInput,
            Self::TooMany(_) | Self::Unavailable(_) | Self::Senseless(_) => ErrorKind::Unavailable,
        }
    }

    /// Whether the same call may succeed later.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::TooMany(_) | Self::Unavailable(_) | Self::Senseless(_) | Self::Conflict(_)
        )
    }
}

impl From<ApiError> for PortError {
    fn from(error: ApiError) -> Self {
        let made = Self::new(error.kind(), error.to_string());
        match error {
            ApiError::UnknownToken(_) => {
                made.with_hint("ask @BotFather for the token of the bot, and check base_url")
            }
            ApiError::Refused { code: 403, .. } => {
                made.with_hint("who is to be told must have written to the bot first")
            }
            _ => made,
        }
    }
}
