//! What a program's last words mean.

use backup_core::error::{ErrorKind, PortError};
use backup_process::Error as ProcessError;

const LOGIN: &str = "configure user and password of a login that may run +sync, +psync, +replconf, +ping \
                     and +info on all keys";

/// Words, what they mean, and what helps. The first that fits counts.
const RULES: [(&str, ErrorKind, Option<&str>); 13] = [
    ("WRONGPASS", ErrorKind::PermissionDenied, Some(LOGIN)),
    ("NOAUTH", ErrorKind::PermissionDenied, Some(LOGIN)),
    ("NOPERM", ErrorKind::PermissionDenied, Some(LOGIN)),
    ("AUTH failed", ErrorKind::PermissionDenied, Some(LOGIN)),
    ("invalid password", ErrorKind::PermissionDenied, Some(LOGIN)),
    (
        "DENIED Redis is running in protected mode",
        ErrorKind::PermissionDenied,
        Some("the server takes no connections from other hosts as long as it has no password"),
    ),
    ("LOADING", ErrorKind::Unavailable, None),
    (
        "NOMASTERLINK",
        ErrorKind::Unavailable,
        Some("the replica has lost its master: back up another one until it is back"),
    ),
    ("MASTERDOWN", ErrorKind::Unavailable, None),
    (
        "SSL",
        ErrorKind::Unavailable,
        Some(
            "rediss:// is for a server with TLS, whose certificate must be of an authority in ca_file",
        ),
    ),
    ("Could not connect", ErrorKind::Unavailable, None),
    ("Connection reset", ErrorKind::Unavailable, None),
    ("I/O error", ErrorKind::Unavailable, None),
];

/// What words suggest.
pub(crate) fn advice(words: &str) -> (ErrorKind, Option<&'static str>) {
    let words_lower = words.to_lowercase();
    RULES
        .iter()
        .find(|(text, _, _)| words_lower.contains(&text.to_lowercase()))
        .map_or((ErrorKind::ToolFailed, None), |(_, kind, hint)| {
            (*kind, *hint)
        })
}

/// What a program's end means at the ports.
pub(crate) fn judged(error: ProcessError) -> PortError {
    let (kind, hint) = match &error {
        ProcessError::ToolFailed { words, .. } => advice(words),
        error => (error.kind(), None),
    };
    if kind == error.kind() {
        return error.into();
    }
    let port = PortError::new(kind, error.to_string());
    match hint {
        Some(hint) => port.with_hint(hint),
        None => port,
    }
}
