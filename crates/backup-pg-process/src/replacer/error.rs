//! Why a database cannot be replaced.

use backup_core::error::{ErrorKind, PortError};
use backup_core::run_record::RunId;

use crate::Error;

/// A failure of an exchange. At the port it becomes a [`PortError`] of the same kind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplaceError {
    /// Another run is on the way to replace it.
    #[error("another run is replacing database {database:?}: {holder}")]
    Held {
        /// Its name.
        database: String,
        /// Who that is.
        holder: String,
    },
    /// There is no such database.
    #[error("database {database:?}")]
    NotThere {
        /// Its name.
        database: String,
    },
    /// No database is kept from that run.
    #[error("a database on {server} that run {run} set aside")]
    NothingAside {
        /// The run.
        run: RunId,
        /// Where it was looked for.
        server: String,
    },
    /// It may hold what no backup has.
    #[error("database {database:?} was not made by a restore")]
    NotRestored {
        /// Its name.
        database: String,
    },
    /// It is not one that clients use.
    #[error("database {database:?} {reason}")]
    Unfit {
        /// Its name.
        database: String,
        /// What it is instead.
        reason: &'static str,
    },
    /// It is what another run is restoring.
    #[error("database {database:?} is being made to replace {replaces:?}")]
    OnItsWay {
        /// Its name.
        database: String,
        /// What it is to replace.
        replaces: String,
    },
    /// It stores or sorts text otherwise, which applications would notice.
    #[error("the restored database differs from {database:?} in {}", differing.join(", "))]
    OfAnotherKind {
        /// Its name.
        database: String,
        /// Columns of `pg_database`.
        differing: Vec<String>,
    },
    /// The login lacks a right.
    #[error("the login may not rename database {database:?}")]
    MayNotRename {
        /// Its name.
        database: String,
    },
    /// The login could not end sessions that are there now.
    #[error("the login may not end these sessions: {}", sessions.join(", "))]
    MayNotEnd {
        /// Who is connected.
        sessions: Vec<String>,
    },
    /// Prepared transactions would keep it.
    #[error("database {database:?} has prepared transactions: {}", names.join(", "))]
    Prepared {
        /// Its name.
        database: String,
        /// Their names.
        names: Vec<String>,
    },
    /// Owner, grants or settings cannot be given to the new database.
    #[error("cannot carry over what belongs to database {database:?}")]
    MayNotCarry {
        /// Its name.
        database: String,
        /// The server's words.
        #[source]
        source: Error,
    },
    /// Sessions came back, or did not end.
    #[error("database {database:?} is still in use after {seconds} s: {}", sessions.join(", "))]
    Busy {
        /// Its name.
        database: String,
        /// How long they had.
        seconds: u64,
        /// Who is connected.
        sessions: Vec<String>,
    },
    /// Somebody else did something to it.
    #[error("{what} changed meanwhile")]
    Changed {
        /// What.
        what: String,
    },
    /// The session that held the claim is gone.
    #[error("the connection that reserved database {database:?} was lost")]
    Lost {
        /// Its name.
        database: String,
    },
    /// The answer to the commit was lost, and the server does not tell.
    #[error("it is not known whether database {database:?} was replaced")]
    Unknown {
        /// Its name.
        database: String,
        /// Why not.
        #[source]
        source: Error,
    },
    /// Whatever the foundation reports.
    #[error(transparent)]
    Base(#[from] Error),
}

impl ReplaceError {
    /// The class of the failure.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Held { .. } => ErrorKind::Conflict,
            Self::NotThere { .. } | Self::NothingAside { .. } => ErrorKind::NotFound,
            Self::NotRestored { .. }
            | Self::Unfit { .. }
            | Self::OnItsWay { .. }
            | Self::Changed { .. } => ErrorKind::Refused,
            Self::OfAnotherKind { .. }
            | Self::MayNotRename { .. }
            | Self::MayNotEnd { .. }
            | Self::Prepared { .. }
            | Self::MayNotCarry { .. } => ErrorKind::Unsuitable,
            Self::Busy { .. } | Self::Lost { .. } | Self::Unknown { .. } => ErrorKind::Unavailable,
            Self::Base(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Held { .. } => Some("wait for its end; a run that was killed lets go by itself"),
            Self::NothingAside { .. } => {
                Some("say the server with --target-server, and look for the run in `runs`")
            }
            Self::NotRestored { .. } => Some(
                "only databases that a restore made are replaced so; to replace any other and \
                 keep it, say --swap",
            ),
            Self::MayNotRename { .. } => {
                Some("the login must be a superuser, or have CREATEDB and be a member of the owner")
            }
            Self::MayNotEnd { .. } => Some(
                "grant pg_signal_backend to the login; sessions of superusers can be ended by \
                 superusers alone",
            ),
            Self::OfAnotherKind { .. } => Some(
                "restore without --swap under another name, look, and rename by hand if that is meant",
            ),
            Self::Prepared { .. } => Some("commit them or roll them back"),
            Self::MayNotCarry { .. } => {
                Some("settings of other roles, and some of the database, take a superuser")
            }
            Self::Changed { .. } => Some("nothing was exchanged; run it again"),
            Self::Unknown { .. } => Some(
                "look at the names of the databases: the old one is either where it was or set \
                 aside, never between",
            ),
            _ => None,
        }
    }
}

impl From<ReplaceError> for PortError {
    fn from(error: ReplaceError) -> Self {
        let (kind, message, hint) = (error.kind(), error.to_string(), error.hint());
        let mut port = match error {
            ReplaceError::Base(error) => return error.into(),
            ReplaceError::MayNotCarry { source, .. } | ReplaceError::Unknown { source, .. } => {
                Self::new(kind, message).with_source(source)
            }
            _ => Self::new(kind, message),
        };
        if let Some(hint) = hint {
            port = port.with_hint(hint);
        }
        port
    }
}
