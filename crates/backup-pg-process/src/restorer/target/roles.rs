//! Roles that a restore needs: which are missing, which the login cannot act as, and making them.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::restorer::Ownership;
use sqlx::postgres::PgConnection;

use super::{Server, execute};
use crate::restorer::error::RestoreError;
use crate::restorer::roles::NeededRoles;
use crate::{DatabaseDetails, Error, quote_ident};

/// What a restore needs, with the roles of the target.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Needs<'a> {
    /// What the database was like.
    pub(crate) details: &'a DatabaseDetails,
    /// By what is restored.
    pub(crate) needed: &'a NeededRoles,
    /// Whether not everything is restored, so that only what that needs counts.
    pub(crate) partial: bool,
    /// Who owns the database, if this run makes it.
    pub(crate) owner: Option<&'a String>,
    /// Who owns.
    pub(crate) ownership: &'a Ownership,
    /// Whether to make what is missing.
    pub(crate) create: bool,
}

impl Needs<'_> {
    /// Checks that the roles are there or can be made. Returns those to make.
    pub(crate) fn check(&self, server: &Server) -> Result<Vec<String>, RestoreError> {
        let owning = self.owning();
        let missing = |wanted: &BTreeSet<&String>| -> Vec<String> {
            let missing = wanted.iter().filter(|role| !server.roles.contains(**role));
            missing.map(|role| (*role).clone()).collect()
        };
        let named = self.among(&self.details.named_roles);
        let (mut roles, named) = (missing(&owning), missing(&named));
        if self.create {
            roles.extend(named);
            roles.sort();
            roles.dedup();
            if !roles.is_empty() && !server.creates_roles {
                return Err(RestoreError::CannotCreateRoles {
                    login: server.login.clone(),
                    roles,
                });
            }
        } else if !roles.is_empty() {
            return Err(RestoreError::MissingRoles { roles });
        } else if !named.is_empty() {
            return Err(RestoreError::MissingNamedRoles { roles: named });
        }
        self.check_membership(server, &roles)?;
        Ok(roles)
    }

    /// Roles that own or are granted something.
    fn owning(&self) -> BTreeSet<&String> {
        match self.ownership {
            Ownership::Login => BTreeSet::new(),
            Ownership::Role(role) => BTreeSet::from([role]),
            _ => self.among(&self.details.roles),
        }
    }

    /// Those that count. Names that an archive may have in another encoding always do.
    fn among<'r>(&self, roles: &'r [String]) -> BTreeSet<&'r String> {
        let counts = |role: &&String| {
            !self.partial
                || !role.is_ascii()
                || self.needed.all.contains(*role)
                || self.owner == Some(*role)
        };
        roles.iter().filter(counts).collect()
    }

    /// Objects are given away by whoever may act as their new owner.
    fn check_membership(&self, server: &Server, new: &[String]) -> Result<(), RestoreError> {
        if server.is_superuser || *self.ownership == Ownership::Login {
            return Ok(());
        }
        let owners: BTreeSet<&String> = self.needed.owners.iter().chain(self.owner).collect();
        let foreign = owners.into_iter().filter(|role| {
            server.roles.contains(*role) && !server.member_of.contains(*role) && !new.contains(role)
        });
        let roles: Vec<String> = foreign.cloned().collect();
        if roles.is_empty() {
            return Ok(());
        }
        Err(RestoreError::NotMember {
            login: server.login.clone(),
            roles,
        })
    }
}

/// Refuses renamed roles that the backup does not know: a slip of the pen would go unnoticed. And
/// two that would become one, with what neither of them was granted alone.
pub(crate) fn check_renamed(
    ownership: &Ownership,
    details: &DatabaseDetails,
) -> Result<(), RestoreError> {
    let Ownership::Renamed(names) = ownership else {
        return Ok(());
    };
    let known = |role: &&String| details.roles.contains(role) || details.named_roles.contains(role);
    if let Some(role) = names.keys().find(|role| !known(role)) {
        return Err(RestoreError::UnknownRole { role: role.clone() });
    }
    let mut renamed = BTreeMap::new();
    let everybody: BTreeSet<_> = details.roles.iter().chain(&details.named_roles).collect();
    for old in everybody {
        let new = names.get(old).unwrap_or(old);
        if let Some(other) = renamed.insert(new, old) {
            return Err(RestoreError::MergedRoles {
                roles: [other.clone(), old.clone()],
                role: new.clone(),
            });
        }
    }
    Ok(())
}

/// Makes roles that cannot log in. A login that is no superuser has to act as them.
pub(super) async fn create(
    connection: &mut PgConnection,
    roles: &[String],
    server: &Server,
) -> Result<(), Error> {
    for (made, role) in roles.iter().enumerate() {
        if let Err(error) = create_one(connection, role, server).await {
            // Never the one that failed: somebody else may have made it meanwhile. The first error
            // is the one that counts.
            let _ = remove(connection, &roles[..made]).await;
            return Err(error);
        }
    }
    Ok(())
}

/// Makes a role with all that it needs, or not at all.
async fn create_one(
    connection: &mut PgConnection,
    role: &str,
    server: &Server,
) -> Result<(), Error> {
    let operation = format!("create role {role:?}");
    let role = quote_ident(role);
    let join = if server.is_superuser {
        String::new()
    } else {
        format!("GRANT {role} TO CURRENT_USER;")
    };
    // Statements that are sent together are one transaction.
    let sql = format!("CREATE ROLE {role} NOLOGIN; {join}");
    execute(connection, sql, &operation).await
}

/// Removes roles that [`create`] made, as far as nothing has come to depend on them.
pub(super) async fn remove(connection: &mut PgConnection, roles: &[String]) -> Result<(), Error> {
    for role in roles {
        let sql = format!("DROP ROLE IF EXISTS {}", quote_ident(role));
        execute(
            connection,
            sql,
            &format!("remove role {role:?}, which this restore made"),
        )
        .await?;
    }
    Ok(())
}
