//! The server that a restore goes to.

use std::collections::BTreeSet;

use backup_core::manifest::Manifest;
use sqlx::Row as _;
use sqlx::postgres::PgConnection;

use crate::restorer::error::RestoreError;
use crate::{DatabaseDetails, Error, ExtensionDetails, ToolVersion};

/// Of the versions that are created.
const TRUSTED: &str = "
SELECT v.name::text FROM pg_available_extension_versions v
JOIN pg_available_extensions e ON e.name = v.name AND e.default_version = v.version
WHERE v.trusted OR NOT v.superuser";

/// What the target's server is and has.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    /// `server_version_num`.
    pub(crate) version_num: u32,
    /// The login.
    pub(crate) login: String,
    /// Whether the login is a superuser.
    pub(crate) is_superuser: bool,
    pub(super) creates_roles: bool,
    pub(super) is_standby: bool,
    pub(super) roles: BTreeSet<String>,
    /// Roles that the login can act as.
    pub(super) member_of: BTreeSet<String>,
    pub(super) tablespaces: BTreeSet<String>,
    pub(super) extensions: Vec<(String, Option<String>)>,
    /// Extensions that whoever owns a database may create in it.
    pub(super) trusted: BTreeSet<String>,
    pub(super) max_name_bytes: usize,
}

impl Server {
    /// Asks it.
    pub(crate) async fn read(connection: &mut PgConnection) -> Result<Self, Error> {
        let failed = || Error::query("read the target server's properties");
        let row = sqlx::query(
            "SELECT current_setting('server_version_num')::int4,
                    (SELECT rolsuper FROM pg_roles WHERE rolname = current_user),
                    current_setting('max_identifier_length')::int4,
                    current_user::text,
                    (SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user),
                    pg_is_in_recovery()",
        )
        .fetch_one(&mut *connection)
        .await
        .map_err(failed())?;
        let version: i32 = row.try_get(0).map_err(failed())?;
        let name_bytes: i32 = row.try_get(2).map_err(failed())?;
        let extensions =
            sqlx::query_as("SELECT name::text, default_version FROM pg_available_extensions")
                .fetch_all(&mut *connection)
                .await
                .map_err(failed())?;
        // Since 16, membership alone is not enough to own in a role's name.
        let member_of = if version < 160_000 {
            "SELECT rolname::text FROM pg_roles WHERE pg_has_role(oid, 'MEMBER')"
        } else {
            "SELECT rolname::text FROM pg_roles WHERE pg_has_role(oid, 'SET')"
        };
        Ok(Self {
            version_num: u32::try_from(version).unwrap_or_default(),
            login: row.try_get(3).map_err(failed())?,
            is_superuser: row.try_get(1).map_err(failed())?,
            creates_roles: row.try_get(4).map_err(failed())?,
            is_standby: row.try_get(5).map_err(failed())?,
            member_of: names(connection, member_of).await?,
            roles: names(connection, "SELECT rolname::text FROM pg_roles").await?,
            tablespaces: names(connection, "SELECT spcname::text FROM pg_tablespace").await?,
            extensions,
            trusted: names(connection, TRUSTED).await?,
            max_name_bytes: usize::try_from(name_bytes).unwrap_or(63),
        })
    }

    /// Refuses a server that takes no changes.
    pub(crate) fn check_is_primary(&self) -> Result<(), RestoreError> {
        if self.is_standby {
            return Err(RestoreError::Standby);
        }
        Ok(())
    }

    /// Major version.
    pub(crate) fn major(&self) -> u32 {
        self.version_num / 10_000
    }

    /// Whether the login may create the extension in a database of its own.
    pub(crate) fn may_create(&self, extension: &str) -> bool {
        self.is_superuser || self.trusted.contains(extension)
    }

    /// Whether a tablespace exists.
    pub(crate) fn has_tablespace(&self, name: &str) -> bool {
        self.tablespaces.contains(name)
    }

    /// Refuses a backup of a newer server.
    pub(crate) fn check_version(
        &self,
        manifest: &Manifest,
        details: &DatabaseDetails,
    ) -> Result<(), RestoreError> {
        let backup = if details.server_version_num == 0 {
            leading_number(&manifest.server_version)
        } else {
            details.server_version_num / 10_000
        };
        if backup <= self.major() {
            return Ok(());
        }
        Err(RestoreError::OlderServer {
            backup: manifest.server_version.clone(),
            target: ToolVersion::from_num(self.version_num).to_string(),
        })
    }

    /// Refuses what needs extensions that are not installed. Returns what is worth a warning.
    pub(crate) fn check_extensions<'a>(
        &self,
        wanted: impl Iterator<Item = &'a ExtensionDetails>,
    ) -> Result<Vec<String>, RestoreError> {
        let (mut missing, mut warnings) = (Vec::new(), Vec::new());
        for wanted in wanted {
            let offered = self
                .extensions
                .iter()
                .find(|(name, _)| *name == wanted.name);
            match offered {
                None => missing.push(wanted.name.clone()),
                Some((_, Some(version))) if *version != wanted.version => warnings.push(format!(
                    "extension {} is version {version} on the target, {} in the backup",
                    wanted.name, wanted.version
                )),
                Some(_) => {}
            }
        }
        if missing.is_empty() {
            Ok(warnings)
        } else {
            Err(RestoreError::MissingExtensions {
                extensions: missing,
            })
        }
    }

    /// Refuses names that the server would refuse, or worse, shorten.
    pub(crate) fn check_name(&self, name: &str) -> Result<(), RestoreError> {
        let reason = match name {
            "" => "it is empty",
            _ if name.len() > self.max_name_bytes => "it is longer than the server allows",
            _ if name.contains(['\0', '\n', '\r']) => "it has a line break or a null character",
            _ => return Ok(()),
        };
        Err(RestoreError::BadName {
            name: name.to_owned(),
            reason,
        })
    }
}

async fn names(
    connection: &mut PgConnection,
    query: &'static str,
) -> Result<BTreeSet<String>, Error> {
    let names: Vec<String> = sqlx::query_scalar(query)
        .fetch_all(connection)
        .await
        .map_err(Error::query("read the target server's properties"))?;
    Ok(names.into_iter().collect())
}

fn leading_number(version: &str) -> u32 {
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_default()
}
