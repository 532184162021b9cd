//! What can be wrong with a configuration.

use std::io;
use std::path::PathBuf;

/// A configuration that cannot be used. Never holds the value of a secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file that must be private is not.
    #[error("{} can be read or written by others (mode {mode:04o})", path.display())]
    Permissions {
        /// Which.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The file's content is wrong.
    #[error("{message}")]
    Invalid {
        /// Where and what.
        message: String,
        /// What was probably meant.
        suggestion: Option<String>,
    },
    /// A name that is referred to is not defined.
    #[error("{section} {name:?} is not configured")]
    Undefined {
        /// `server`, `source` or `destination`.
        section: &'static str,
        /// The name.
        name: String,
        /// Those that are.
        known: Vec<String>,
    },
    /// A secret cannot be had.
    #[error("secret {origin}: {reason}")]
    Secret {
        /// Where it should come from.
        origin: String,
        /// Why it does not.
        reason: String,
    },
}

impl Error {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Permissions { path, .. } => Some(format!("chmod 600 {}", path.display())),
            Self::Invalid { suggestion, .. } => suggestion
                .as_ref()
                .map(|name| format!("did you mean {name:?}?")),
            Self::Undefined { section, known, .. } if known.is_empty() => Some(format!(
                "no {section} is configured: is it another file (--config FILE)?"
            )),
            Self::Undefined { known, .. } => Some(format!("those that are: {}", known.join(", "))),
            _ => None,
        }
    }

    /// `name` is not among those that are configured in a section.
    pub fn undefined<'a>(
        section: &'static str,
        name: &str,
        known: impl IntoIterator<Item = &'a String>,
    ) -> Self {
        Self::Undefined {
            section,
            name: name.to_owned(),
            known: known.into_iter().cloned().collect(),
        }
    }
}
