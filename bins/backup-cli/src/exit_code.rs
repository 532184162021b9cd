//! Exit codes, an interface of their own: scripts act on them.

use backup_app::AppError;
use backup_core::error::{Error, ErrorKind};

/// Done.
pub(crate) const DONE: u8 = 0;
/// Failed, nothing published.
pub(crate) const FAILED: u8 = 1;
/// The command line or the configuration is wrong.
pub(crate) const USAGE: u8 = 2;
/// Done with warnings, or some of several failed.
pub(crate) const WARNINGS: u8 = 3;
/// No such backup.
pub(crate) const NOT_FOUND: u8 = 4;
/// Somebody else holds the lock.
pub(crate) const LOCKED: u8 = 5;
/// Stored or restored bytes are not what was written.
pub(crate) const INTEGRITY: u8 = 6;
/// Versions, privileges or space do not suffice.
pub(crate) const PREFLIGHT: u8 = 7;
/// The store failed.
pub(crate) const STORE: u8 = 8;
/// The database failed.
pub(crate) const DATABASE: u8 = 9;
/// A key is missing or wrong.
pub(crate) const KEY: u8 = 10;
/// A safety rule said no.
pub(crate) const REFUSED: u8 = 12;
/// The time is up.
pub(crate) const TIMEOUT: u8 = 124;
/// Added to the number of a signal.
const SIGNAL: u8 = 128;

/// `check` alone: it could not be told. It has the codes that monitoring knows.
pub(crate) const UNKNOWN: u8 = 3;

/// The code for a wrong command line.
pub(crate) fn of_usage(is_check: bool) -> u8 {
    if is_check { UNKNOWN } else { USAGE }
}

/// The code for an error.
pub(crate) fn of(error: &AppError) -> u8 {
    match error {
        AppError::Config(_) | AppError::Usage { .. } => USAGE,
        AppError::Timeout(_) => TIMEOUT,
        AppError::Setup { source, .. } => match source.kind() {
            ErrorKind::InvalidInput => USAGE,
            ErrorKind::PermissionDenied | ErrorKind::Corrupt => KEY,
            ErrorKind::Unsuitable => PREFLIGHT,
            _ => STORE,
        },
        AppError::Engine(error) => of_engine(error),
        _ => FAILED,
    }
}

/// The code for an error of the engine.
pub(crate) fn of_engine(error: &Error) -> u8 {
    match (error, error.kind()) {
        (Error::Store { .. }, ErrorKind::Refused) => REFUSED,
        (Error::Store { .. }, _) => STORE,
        (Error::Key { .. }, _) => KEY,
        // A tool that wrote nonsense: nothing that was stored or restored is in doubt. And a table
        // that is locked in the database: the lock of code 5 is that of another run, and whoever
        // lost his had it.
        (Error::LeaseLost { .. }, _)
        | (Error::Dump { .. }, ErrorKind::Corrupt)
        | (Error::Dump { .. } | Error::Restore { .. }, ErrorKind::Conflict) => FAILED,
        (_, ErrorKind::Corrupt) => INTEGRITY,
        (_, ErrorKind::NotFound) if matches!(error, Error::NotFound { .. }) => NOT_FOUND,
        (_, ErrorKind::InvalidInput) => USAGE,
        (_, ErrorKind::ToolMissing | ErrorKind::Unsuitable) => PREFLIGHT,
        (_, ErrorKind::Conflict) => LOCKED,
        (_, ErrorKind::AlreadyExists | ErrorKind::Refused) => REFUSED,
        (_, ErrorKind::PermissionDenied | ErrorKind::Unavailable | ErrorKind::NotFound)
        // The server did not answer; a part in which nothing moves is an error of its own.
        | (
            Error::Dump { .. } | Error::Restore { .. } | Error::Replace { .. },
            ErrorKind::Timeout,
        ) => DATABASE,
        _ => FAILED,
    }
}

/// One code for several: that of all, if all ended alike; else whether any was done.
pub(crate) fn of_several(codes: &[u8]) -> u8 {
    let failed = |code: &u8| !matches!(*code, DONE | WARNINGS);
    match codes {
        [] => DONE,
        [first, others @ ..] if others.iter().all(|code| code == first) => *first,
        codes if codes.iter().all(failed) => FAILED,
        _ => WARNINGS,
    }
}

/// The code for a signal that ended the command.
pub(crate) fn of_signal(signal: i32) -> u8 {
    u8::try_from(signal).map_or(FAILED, |number| SIGNAL.saturating_add(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_have_one_code() {
        for (codes, expected) in [
            (&[][..], 0),
            (&[0], 0),
            (&[9], 9),
            (&[0, 0], 0),
            (&[0, 9], 3),
            (&[0, 3], 3),
            (&[3, 3], 3),
            (&[3, 9], 3),
            (&[9, 9], 9),
            (&[9, 8], 1),
        ] {
            assert_eq!(of_several(codes), expected, "{codes:?}");
        }
    }
}
