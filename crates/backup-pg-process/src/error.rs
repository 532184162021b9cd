//! What can go wrong between us, the client programs and the server.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use backup_core::error::{BoxError, ErrorKind, PortError};
use backup_process::Error as ProcessError;

/// A failure inside this crate. At the ports it becomes a [`PortError`] of the same kind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The connection is described wrongly.
    #[error("connection settings are wrong: {reason}")]
    InvalidConnection {
        /// Why.
        reason: String,
    },
    /// The password has a line break.
    #[error("the password has a line break")]
    UnsafePassword,
    /// The private password file cannot be written.
    #[error("cannot write a private password file")]
    PrivateFile {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The user's password file cannot be read.
    #[error("cannot read password file {}", path.display())]
    ReadPassFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The server did not let us in.
    #[error("cannot connect to database {database:?} at {server}")]
    Connect {
        /// The database.
        database: String,
        /// Host and port.
        server: String,
        /// Which step failed, for programs.
        step: &'static str,
        /// What to do about it.
        remedy: Box<str>,
        /// The driver's words.
        #[source]
        source: Box<sqlx::Error>,
    },
    /// The server did not answer.
    #[error("no connection to {server} within {} s", after.as_secs())]
    ConnectTimeout {
        /// Host and port.
        server: String,
        /// The limit.
        after: Duration,
    },
    /// A statement failed.
    #[error("{operation} failed")]
    Query {
        /// What it was for.
        operation: String,
        /// The driver's words.
        #[source]
        source: sqlx::Error,
    },
    /// Policies would hide rows from the dump.
    #[error("row-level security hides rows of {tables} from {user:?}")]
    HiddenRows {
        /// The first few tables.
        tables: String,
        /// The login.
        user: String,
    },
    /// Tables come and go faster than they can be locked.
    #[error("tables are created, renamed or dropped while the dump begins")]
    TablesChange {
        /// The driver's words, if there are any.
        #[source]
        source: Option<sqlx::Error>,
    },
    /// A lock was not granted in time.
    #[error("{table} is locked: waited {} s for {blockers}", after.as_secs())]
    LockTimeout {
        /// The table.
        table: String,
        /// Who holds it.
        blockers: String,
        /// The limit.
        after: Duration,
    },
    /// No installed program fits the server.
    #[error("no pg_dump for server {server}: {found}")]
    ToolMissing {
        /// The server's version.
        server: String,
        /// The newest that was found and where.
        found: String,
        /// The server's major.
        major: u32,
    },
    /// A program failed, or could not be started.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The snapshot ended before the last part was done.
    #[error("the snapshot of database {database:?} was lost")]
    SnapshotLost {
        /// The database.
        database: String,
        /// The driver's words, if there are any.
        #[source]
        source: Option<sqlx::Error>,
    },
    /// What a program wrote is not what was asked for.
    #[error("{what}")]
    Corrupt {
        /// What is wrong with it.
        what: String,
        /// The reader's words.
        #[source]
        source: Option<BoxError>,
    },
    /// The request cannot be carried out.
    #[error("{message}")]
    InvalidInput {
        /// Why.
        message: String,
    },
    /// The named thing does not exist.
    #[error("{what} not found")]
    NotFound {
        /// What.
        what: String,
    },
    /// The caller cancelled.
    #[error("cancelled")]
    Cancelled,
}

impl Error {
    /// The class of the failure.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::InvalidConnection { .. }
            | Self::UnsafePassword
            | Self::ReadPassFile { .. }
            | Self::InvalidInput { .. } => ErrorKind::InvalidInput,
            Self::PrivateFile { .. } => ErrorKind::Internal,
            Self::Connect { source, .. } => kind_of(source),
            Self::Query { source, .. } => kind_of(source),
            Self::ConnectTimeout { .. } => ErrorKind::Timeout,
            Self::HiddenRows { .. } => ErrorKind::PermissionDenied,
            Self::LockTimeout { .. } | Self::TablesChange { .. } => ErrorKind::Conflict,
            Self::ToolMissing { .. } => ErrorKind::ToolMissing,
            Self::Process(ProcessError::ToolFailed { words, .. }) => advice(words).0,
            Self::Process(error) => error.kind(),
            Self::SnapshotLost { .. } => ErrorKind::Unavailable,
            Self::Corrupt { .. } => ErrorKind::Corrupt,
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::Cancelled => ErrorKind::Cancelled,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::ToolMissing { major, .. } => Some(format!(
                "install the client programs of PostgreSQL {major} \
                 (postgresql-client-{major} on Debian, postgresql{major} on Red Hat) \
                 or name their directory in bin_dirs"
            )),
            Self::Process(ProcessError::ToolFailed { words, .. }) => {
                advice(words).1.map(str::to_owned)
            }
            Self::HiddenRows { .. } => {
                Some("a backup must see every row: ALTER ROLE … BYPASSRLS".to_owned())
            }
            Self::LockTimeout { .. } => Some(
                "wait for the session that holds the lock, or raise lock_wait_timeout".to_owned(),
            ),
            Self::Connect {
                source,
                step,
                remedy,
                ..
            } => Some(match advice(&source.to_string()).1 {
                // What the driver says of certificates is finer than that they do not fit.
                Some(advice) if *step == "server-tls" => format!("{advice}; {remedy}"),
                _ => remedy.to_string(),
            }),
            Self::Query { source, .. } => advice(&source.to_string()).1.map(str::to_owned),
            Self::UnsafePassword => Some(
                "what it comes from has more than one line: put nothing but the password there"
                    .to_owned(),
            ),
            _ => None,
        }
    }

    pub(crate) fn query(operation: impl Into<String>) -> impl FnOnce(sqlx::Error) -> Self {
        let operation = operation.into();
        move |source| Self::Query { operation, source }
    }

    pub(crate) fn corrupt(what: impl Into<String>) -> Self {
        Self::Corrupt {
            what: what.into(),
            source: None,
        }
    }

    fn into_cause(self) -> Option<BoxError> {
        match self {
            Self::PrivateFile { source }
            | Self::ReadPassFile { source, .. }
            | Self::Process(
                ProcessError::SpawnTool { source, .. } | ProcessError::ToolIo { source, .. },
            ) => Some(source.into()),
            Self::Connect { source, .. } => Some(cause(*source)),
            Self::Query { source, .. } => Some(cause(source)),
            Self::TablesChange { source } | Self::SnapshotLost { source, .. } => source.map(cause),
            Self::Corrupt { source, .. } => source,
            _ => None,
        }
    }
}

/// What a program's end means at the ports.
pub(crate) fn judged(error: ProcessError) -> PortError {
    Error::from(error).into()
}

impl From<Error> for PortError {
    fn from(error: Error) -> Self {
        let (kind, message, hint) = (error.kind(), error.to_string(), error.hint());
        let mut port = Self::new(kind, message);
        if let Some(hint) = hint {
            port = port.with_hint(hint);
        }
        match error.into_cause() {
            Some(cause) => port.with_source(cause),
            None => port,
        }
    }
}

/// The server's words alone: the driver's own text repeats its cause and adds a line number of the
/// server's source.
fn cause(error: sqlx::Error) -> BoxError {
    match error.as_database_error() {
        Some(database) => {
            let state = database.code().unwrap_or_default();
            format!("{} (SQLSTATE {state})", database.message()).into()
        }
        None => error.into(),
    }
}

/// The SQLSTATE of a driver error.
pub(crate) fn sqlstate(error: &sqlx::Error) -> Option<String> {
    error
        .as_database_error()?
        .code()
        .map(std::borrow::Cow::into_owned)
}

/// Classes as in <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
fn kind_of(error: &sqlx::Error) -> ErrorKind {
    let Some(state) = sqlstate(error) else {
        return match error {
            sqlx::Error::Io(_) | sqlx::Error::Tls(_) => ErrorKind::Unavailable,
            _ => ErrorKind::ToolFailed,
        };
    };
    match state.as_str() {
        // invalid_authorization_specification, invalid_password, insufficient_privilege
        "28000" | "28P01" | "42501" => ErrorKind::PermissionDenied,
        // invalid_catalog_name, undefined_table, invalid_schema_name, undefined_object
        "3D000" | "42P01" | "3F000" | "42704" => ErrorKind::NotFound,
        // duplicate_database, duplicate_object
        "42P04" | "42710" => ErrorKind::AlreadyExists,
        // object_in_use, lock_not_available, deadlock and serialization failures
        "55006" | "55P03" | "40P01" | "40001" => ErrorKind::Conflict,
        // query_canceled also covers a recovery conflict on a standby
        "57014" => ErrorKind::ToolFailed,
        _ if state.starts_with("08") || state.starts_with("57P") || state.starts_with("53") => {
            ErrorKind::Unavailable
        }
        _ => ErrorKind::ToolFailed,
    }
}

/// Our coordinator holds the table already, but whoever asked for an exclusive lock since then stands
/// in the queue before our other sessions. Parallel `pg_dump` has the same weakness.
const QUEUED: &str = "another session wants to change a table that is being dumped: \
                      repeat the backup when it has finished";

/// One name with a slip in it, or a schema that is gone, must not pass as a backup of what was asked.
const NOT_THERE: &str =
    "the database has nothing by that name: correct schemas or tables, or create it";

/// Words of a tool, what they mean, and what helps. The first that fits counts.
const RULES: [(&str, ErrorKind, Option<&str>); 19] = [
    // What the driver says of certificates.
    (
        "CaUsedAsEndEntity",
        ErrorKind::Unavailable,
        Some(
            "the server shows the certificate of an authority (CA:TRUE) as its own: give it one \
             with basicConstraints=CA:FALSE that the authority has signed",
        ),
    ),
    (
        "UnknownIssuer",
        ErrorKind::Unavailable,
        Some("sslrootcert must hold the certificate of the authority that signed the server's"),
    ),
    (
        "invalid peer certificate: certificate not valid for name",
        ErrorKind::Unavailable,
        Some(
            "connect by a name that is in the server's certificate, or say sslmode = \
             \"verify-ca\", which does not look at names",
        ),
    ),
    // Before what libpq says of every connection that fails.
    (
        "unsupported startup parameter",
        ErrorKind::InvalidInput,
        Some("connect to the server itself, not to a connection pooler"),
    ),
    (
        "query would be affected by row-level security policy",
        ErrorKind::PermissionDenied,
        Some("give the login BYPASSRLS: it must see every row"),
    ),
    (
        "permission denied for large object",
        ErrorKind::PermissionDenied,
        Some("a superuser can run ALTER ROLE <login> SET lo_compat_privileges = on"),
    ),
    (
        "permission denied",
        ErrorKind::PermissionDenied,
        Some("grant pg_read_all_data to the login"),
    ),
    (
        "password authentication failed",
        ErrorKind::PermissionDenied,
        None,
    ),
    (
        "no password supplied",
        ErrorKind::PermissionDenied,
        Some("configure a password"),
    ),
    ("no pg_hba.conf entry", ErrorKind::PermissionDenied, None),
    ("could not connect to server", ErrorKind::Unavailable, None),
    ("connection to server", ErrorKind::Unavailable, None),
    (
        "could not translate host name",
        ErrorKind::Unavailable,
        None,
    ),
    (
        "canceling statement due to lock timeout",
        ErrorKind::Conflict,
        Some(QUEUED),
    ),
    // This is how pg_dump itself limits its waiting for locks.
    (
        "canceling statement due to statement timeout",
        ErrorKind::Conflict,
        Some(QUEUED),
    ),
    (
        "canceling statement due to conflict with recovery",
        ErrorKind::Unavailable,
        Some("raise max_standby_streaming_delay or turn hot_standby_feedback on"),
    ),
    (
        "out of shared memory",
        ErrorKind::Unavailable,
        Some("there are more tables than the server can lock: raise max_locks_per_transaction"),
    ),
    (
        "no matching schemas were found",
        ErrorKind::NotFound,
        Some(NOT_THERE),
    ),
    (
        "no matching tables were found",
        ErrorKind::NotFound,
        Some(NOT_THERE),
    ),
];

/// What a tool's last words suggest. A failure is known by the exit code; this only refines it.
fn advice(words: &str) -> (ErrorKind, Option<&'static str>) {
    RULES
        .iter()
        .find(|(text, _, _)| words.contains(text))
        .map_or((ErrorKind::ToolFailed, None), |(_, kind, hint)| {
            (*kind, *hint)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(
        "FATAL:  password authentication failed for user \"x\"",
        ErrorKind::PermissionDenied
    )]
    #[case(
        "connection to server on socket \"/x\" failed: No such file",
        ErrorKind::Unavailable
    )]
    #[case(
        "connection to server at \"::1\" failed: FATAL:  unsupported startup parameter: options",
        ErrorKind::InvalidInput
    )]
    #[case(
        "error: no matching schemas were found for pattern \"evnt\"",
        ErrorKind::NotFound
    )]
    #[case("something else", ErrorKind::ToolFailed)]
    #[case("", ErrorKind::ToolFailed)]
    fn words_refine_the_kind(#[case] words: &str, #[case] expected: ErrorKind) {
        let error = Error::from(ProcessError::ToolFailed {
            tool: "pg_dump".to_owned(),
            status: "exited with 1".to_owned(),
            words: words.to_owned(),
        });
        assert_eq!(error.kind(), expected);
        let port = PortError::from(error);
        assert_eq!(port.kind(), expected);
        assert!(port.to_string().starts_with("pg_dump exited with 1"));
    }

    #[test]
    fn missing_tools_say_what_to_install() {
        let port = PortError::from(Error::ToolMissing {
            server: "17.2".to_owned(),
            found: "newest found is 15.18 at /usr/bin".to_owned(),
            major: 17,
        });
        assert_eq!(
            port.to_string(),
            "no pg_dump for server 17.2: newest found is 15.18 at /usr/bin"
        );
        assert!(port.hint().unwrap().contains("postgresql-client-17"));
    }
}
