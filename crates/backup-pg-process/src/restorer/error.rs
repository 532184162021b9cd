//! What can go wrong with a restore.

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;

use backup_core::error::{BoxError, ErrorKind, PortError};
use backup_core::manifest::PartName;
use backup_process::Error as ProcessError;

use crate::{Error, quote_ident};

/// A failure of a restore. At the port it becomes a [`PortError`] of the same kind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The name cannot be given to a database.
    #[error("{name:?} cannot be the name of a database: {reason}")]
    BadName {
        /// The name.
        name: String,
        /// Why not.
        reason: &'static str,
    },
    /// There is such a database already.
    #[error("database {database:?} already exists")]
    TargetExists {
        /// Its name.
        database: String,
    },
    /// There is one that is not filled yet, or never will be.
    #[error("database {database:?} already exists: a {restore} is filling it, or did not finish")]
    TargetUnfinished {
        /// Its name.
        database: String,
        /// What was restored.
        restore: String,
    },
    /// Content alone goes only into what was made for it.
    #[error("database {database:?} cannot be filled: {reason}")]
    NotFillable {
        /// Its name.
        database: String,
        /// Why not.
        reason: String,
    },
    /// The server only follows another one.
    #[error("the server is a standby, which takes no changes")]
    Standby,
    /// The server is older than the one that was dumped.
    #[error("backup of PostgreSQL {backup} cannot be restored into PostgreSQL {target}")]
    OlderServer {
        /// Version of the server that was dumped.
        backup: String,
        /// Version of the server to restore to.
        target: String,
    },
    /// Owners or grantees are missing.
    #[error("roles that the backup needs do not exist: {}", roles.join(", "))]
    MissingRoles {
        /// Their names.
        roles: Vec<String>,
    },
    /// Roles are missing that the backup needs even where the login owns everything.
    #[error("roles that policies or user mappings name do not exist: {}", roles.join(", "))]
    MissingNamedRoles {
        /// Their names.
        roles: Vec<String>,
    },
    /// Two roles of the backup would be one in the target.
    #[error("{} and {} would both be {role}", roles[0], roles[1])]
    MergedRoles {
        /// Their names in the backup.
        roles: [String; 2],
        /// The one in the target.
        role: String,
    },
    /// A role that is to be renamed is not in the backup.
    #[error("role {role} is to be renamed, but nothing in the backup is about it")]
    UnknownRole {
        /// Its name.
        role: String,
    },
    /// The login must not create the roles that are missing.
    #[error("role {login} may not create the roles that are missing: {}", roles.join(", "))]
    CannotCreateRoles {
        /// The login.
        login: String,
        /// Their names.
        roles: Vec<String>,
    },
    /// The login cannot give objects to their owners.
    #[error("role {login} cannot act as the owners {}", roles.join(", "))]
    NotMember {
        /// The login.
        login: String,
        /// The owners.
        roles: Vec<String>,
    },
    /// Extensions are not installed.
    #[error("extensions that the backup needs are not installed: {}", extensions.join(", "))]
    MissingExtensions {
        /// Their names.
        extensions: Vec<String>,
    },
    /// The login must not create extensions that the backup needs.
    #[error("role {login} may not create the extensions {}", extensions.join(", "))]
    SuperuserExtensions {
        /// The login.
        login: String,
        /// Their names.
        extensions: Vec<String>,
    },
    /// The database would not fit.
    #[error(
        "about {} MiB are needed and {} MiB are free in {}",
        needed >> 20, free >> 20, directory.display()
    )]
    NoSpace {
        /// Bytes.
        needed: u64,
        /// Bytes.
        free: u64,
        /// Where.
        directory: PathBuf,
    },
    /// The backup lacks what a restore needs, or says what cannot be.
    #[error("{what}")]
    BadBackup {
        /// What is wrong.
        what: String,
        /// The reader's words.
        #[source]
        source: Option<BoxError>,
    },
    /// A part cannot be read, or is not what was written.
    #[error("{source}")]
    Part {
        /// The part.
        part: PartName,
        /// The reader's words, which name the kind.
        source: PortError,
    },
    /// The backup does not have what was selected.
    #[error("{what}")]
    NotInBackup {
        /// Its kind and name.
        what: String,
    },
    /// A selection that could mean several things.
    #[error("{what}")]
    Ambiguous {
        /// Which.
        what: String,
    },
    /// `pg_restore` could not restore something.
    #[error("cannot restore {what}")]
    Entry {
        /// What.
        what: String,
        /// The words of the server or the program.
        #[source]
        words: Words,
    },
    /// A function works only under the `search_path` of the source's users.
    #[error(
        "cannot restore {what}: {uses} is found only through a search_path, and {function} uses it \
         without its schema"
    )]
    SearchPath {
        /// What.
        what: String,
        /// The function.
        function: String,
        /// Kind and name of what it uses.
        uses: String,
        /// The words of the server.
        #[source]
        words: Words,
    },
    /// The definitions of the restored database cannot be dumped to compare them.
    #[error("cannot dump the definitions of the restored database")]
    Definitions(
        /// Why.
        #[source]
        PortError,
    ),
    /// A file in the private directory cannot be written.
    #[error("cannot write a private file")]
    PrivateFile {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A database of that name exists, but this run did not make it.
    #[error("database {database:?} was not made by this restore, so it stays")]
    NotOurs {
        /// Its name.
        database: String,
    },
    /// A defect of ours.
    #[error("{what}")]
    Internal {
        /// What cannot be.
        what: String,
    },
    /// Whatever the foundation reports.
    #[error(transparent)]
    Base(#[from] Error),
}

/// Somebody else's message as a cause.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Words(pub String);

impl From<ProcessError> for RestoreError {
    fn from(error: ProcessError) -> Self {
        Self::Base(error.into())
    }
}

impl RestoreError {
    /// The class of the failure.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::BadName { .. }
            | Self::Ambiguous { .. }
            | Self::UnknownRole { .. }
            | Self::MergedRoles { .. } => ErrorKind::InvalidInput,
            Self::NotInBackup { .. } => ErrorKind::NotFound,
            Self::TargetExists { .. } | Self::TargetUnfinished { .. } => ErrorKind::AlreadyExists,
            Self::NotOurs { .. } | Self::NotFillable { .. } => ErrorKind::Refused,
            Self::Standby
            | Self::OlderServer { .. }
            | Self::MissingRoles { .. }
            | Self::MissingNamedRoles { .. }
            | Self::CannotCreateRoles { .. }
            | Self::NotMember { .. }
            | Self::SuperuserExtensions { .. }
            | Self::NoSpace { .. }
            | Self::MissingExtensions { .. } => ErrorKind::Unsuitable,
            Self::BadBackup { .. } => ErrorKind::Corrupt,
            Self::Part { source, .. } | Self::Definitions(source) => source.kind(),
            Self::Entry { words, .. } => kind_of(&words.0),
            Self::SearchPath { .. } => ErrorKind::ToolFailed,
            Self::PrivateFile { .. } | Self::Internal { .. } => ErrorKind::Internal,
            Self::Base(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<Cow<'static, str>> {
        if let Self::SearchPath { function, .. } = self {
            return Some(Cow::Owned(format!(
                "in the source, write the schema before the name within {function}, or ALTER \
                 FUNCTION {function} SET search_path = …, and back up again",
            )));
        }
        if let Self::TargetUnfinished { database, .. } = self {
            return Some(Cow::Owned(format!(
                "if no restore is at it, DROP DATABASE {}; or choose another name",
                quote_ident(database),
            )));
        }
        let hint = match self {
            Self::NotFillable { .. } => Some(
                "--data-only loads into a database that --schema-only has made of the same backup \
                 and that nobody has filled",
            ),
            Self::TargetExists { .. } => Some("choose another name for the restored database"),
            Self::MissingRoles { .. } => Some(
                "have them made with --create-roles, restore the part `globals` first, name others \
                 with --map-role, or let the login own everything with --no-owner",
            ),
            Self::MissingNamedRoles { .. } => {
                Some("have them made with --create-roles, or restore the part `globals` first")
            }
            Self::SuperuserExtensions { .. } => Some(
                "list them under [restore] extensions and give the server an admin who creates \
                 them",
            ),
            Self::NoSpace { .. } => Some("make room, or go on with --no-space-check"),
            Self::CannotCreateRoles { .. } => Some("ALTER ROLE … CREATEROLE, or create them first"),
            Self::NotMember { .. } => Some(
                "GRANT these roles to the login, or choose the owner with --owner or --no-owner",
            ),
            Self::MissingExtensions { .. } => {
                Some("install the packages with these extensions on the server")
            }
            Self::Standby => Some("restore into its primary"),
            Self::OlderServer { .. } => Some("restore into a server of the same major or a newer"),
            _ => None,
        };
        hint.map(Cow::Borrowed)
    }

    /// The same as a damaged backup, with nothing more to say.
    pub(crate) fn bad_backup(what: impl Into<String>) -> Self {
        Self::BadBackup {
            what: what.into(),
            source: None,
        }
    }

    /// The body of a part ended with an error.
    pub(crate) fn reading(part: &PartName, error: io::Error) -> Self {
        let message = format!("cannot read part {part}");
        Self::Part {
            part: part.clone(),
            source: PortError::from_io(error, ErrorKind::Unavailable, &message),
        }
    }

    /// A part is not what `pg_dump` writes, or not all of it.
    pub(crate) fn no_archive(part: &PartName, error: backup_pg_archive::ArchiveError) -> Self {
        Self::BadBackup {
            what: format!("part {part} is no complete archive"),
            source: Some(error.into()),
        }
    }
}

/// What the program's words suggest, for failures that are not about the backup itself.
fn kind_of(words: &str) -> ErrorKind {
    const UNAVAILABLE: [&str; 5] = [
        "connection to server",
        "server closed the connection",
        "terminating connection",
        "the database system is shutting down",
        "No space left on device",
    ];
    if UNAVAILABLE.iter().any(|text| words.contains(text)) {
        ErrorKind::Unavailable
    } else if words.contains("permission denied") || words.contains("must be owner") {
        ErrorKind::PermissionDenied
    } else {
        ErrorKind::ToolFailed
    }
}

impl From<RestoreError> for PortError {
    fn from(error: RestoreError) -> Self {
        let (kind, message, hint) = (error.kind(), error.to_string(), error.hint());
        let mut port = match error {
            RestoreError::Base(error) => return error.into(),
            RestoreError::Part { source, .. } => return source,
            RestoreError::BadBackup {
                source: Some(source),
                ..
            } => Self::new(kind, message).with_source(source),
            RestoreError::Definitions(source) => Self::new(kind, message).with_source(source),
            RestoreError::Entry { words, .. } | RestoreError::SearchPath { words, .. } => {
                Self::new(kind, message).with_source(words)
            }
            RestoreError::PrivateFile { source } => Self::new(kind, message).with_source(source),
            _ => Self::new(kind, message),
        };
        if let Some(hint) = hint {
            port = port.with_hint(hint);
        }
        port
    }
}
