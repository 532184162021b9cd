//! A restorer whose server has the roles that the backup names.

use std::sync::Arc;

use async_trait::async_trait;
use backup_core::error::{ErrorKind, PortError, chain};
use backup_core::facts::Scope;
use backup_core::restorer::{
    LoadReport, PartReader, ReadBack, RestoreRequest, RestoreSession, Restorer,
};
use sqlx::postgres::PgConnection;
use tokio_util::sync::CancellationToken;

use super::globals::Globals;
use crate::restorer::details;
use crate::session::execute;
use crate::{ConnectionConfig, DatabaseDetails, Error, PgRestorer, Rehearsal, quote_ident};

/// Warnings that a rehearsal brings with it: what they name is left out, and nothing is lost.
const EXPECTED: [&str; 2] = ["tablespace ", "permission denied"];
/// Not worth a word: extensions are made by somebody else here.
const SILENT: &str = "must be owner of extension ";

/// The server's own roles that those of the backup may be members of. Others run programs, read the
/// server's files or reach out of it, and the login that restores would have their rights too.
const LENT: [&str; 2] = ["pg_read_all_data", "pg_write_all_data"];

#[derive(Debug)]
pub(super) struct WithOwners {
    pub(super) inner: PgRestorer,
    pub(super) rehearsal: Rehearsal,
    pub(super) login: String,
}

impl WithOwners {
    /// The login that restores.
    pub(super) fn connection(&self) -> &ConnectionConfig {
        self.inner.connection()
    }

    async fn prepare(&self, parts: &dyn PartReader) -> Result<(), PortError> {
        let details = details(parts)?;
        let admin = &self.rehearsal.admin;
        let mut admin = admin.connect(&admin.maintenance_database).await?;
        self.check_extensions(&mut admin, &details).await?;
        let globals = Globals::read(parts).await?;
        self.make_roles(&mut admin, &details, &globals).await?;
        Ok(())
    }

    /// Roles own things and are granted things; nobody can log in as one of them.
    async fn make_roles(
        &self,
        admin: &mut PgConnection,
        details: &DatabaseDetails,
        globals: &Globals,
    ) -> Result<(), Error> {
        let known: Vec<String> = sqlx::query_scalar("SELECT rolname::text FROM pg_roles")
            .fetch_all(&mut *admin)
            .await
            .map_err(Error::query("list the roles"))?;
        let settings = details.settings.iter().filter_map(|set| set.role.as_ref());
        let owners = details.roles.iter().chain(&details.named_roles);
        let mut names: Vec<&String> = owners.chain(settings).chain([&details.owner]).collect();
        names.sort();
        names.dedup();
        // Those of the server itself exist, or cannot be made.
        names.retain(|name| !name.is_empty() && !name.starts_with("pg_"));
        let (login, helper) = (
            quote_ident(&self.login),
            quote_ident(&self.rehearsal.helper),
        );
        for name in &names {
            let role = quote_ident(name);
            let mut sql = format!("GRANT {role} TO {login}; GRANT {helper} TO {role}");
            if !known.contains(name) {
                sql = format!("CREATE ROLE {role} NOLOGIN; {sql}");
            }
            // Whoever could read everything, views and functions of his rely on it.
            if globals.superusers.contains(*name) {
                sql = format!(
                    "{sql}; ALTER ROLE {role} BYPASSRLS;
                     GRANT pg_read_all_data, pg_write_all_data TO {role}"
                );
            }
            execute(admin, sql, &format!("make role {name:?}")).await?;
        }
        let is_made = |name: &String| names.contains(&name);
        for (role, member) in &globals.memberships {
            let may_have = is_made(role) || LENT.contains(&role.as_str());
            if may_have && is_made(member) {
                let sql = format!("GRANT {} TO {}", quote_ident(role), quote_ident(member));
                execute(admin, sql, "make the roles members of each other").await?;
            }
        }
        Ok(())
    }

    /// Extensions run code as a superuser when they are made, and some reach out of the server.
    async fn check_extensions(
        &self,
        admin: &mut PgConnection,
        details: &DatabaseDetails,
    ) -> Result<(), PortError> {
        let untrusted: Vec<String> = sqlx::query_scalar(
            "SELECT e.name::text FROM pg_available_extensions AS e
             JOIN pg_available_extension_versions AS v
               ON v.name = e.name AND v.version = e.default_version
             WHERE v.superuser AND NOT v.trusted",
        )
        .fetch_all(admin)
        .await
        .map_err(Error::query("list the extensions"))?;
        let wanted = details.extensions.iter().map(|e| e.name.clone());
        let refused: Vec<String> = wanted
            .filter(|name| untrusted.contains(name) && !self.rehearsal.extensions.contains(name))
            .collect();
        if refused.is_empty() {
            return Ok(());
        }
        let what = format!(
            "extensions that a drill makes only when told so: {}",
            refused.join(", ")
        );
        Err(PortError::new(ErrorKind::Unsuitable, what)
            .with_hint("add them to extensions of [drill] if they may run there"))
    }
}

#[async_trait]
impl Restorer for WithOwners {
    async fn create(
        &self,
        request: &RestoreRequest,
        parts: Arc<dyn PartReader>,
        cancel: &CancellationToken,
    ) -> Result<Box<dyn RestoreSession>, PortError> {
        self.prepare(parts.as_ref()).await?;
        let inner = self.inner.create(request, parts, cancel).await?;
        Ok(Box::new(Session {
            inner,
            rehearsal: self.rehearsal.clone(),
            database: request.target_database.clone(),
        }))
    }
}

#[derive(Debug)]
struct Session {
    inner: Box<dyn RestoreSession>,
    rehearsal: Rehearsal,
    database: String,
}

/// The same, saying so where it may be no fault of the backup.
fn explained(error: PortError) -> PortError {
    let lacks_rights =
        error.kind() == ErrorKind::PermissionDenied || chain(&error).contains("must be superuser");
    if !lacks_rights {
        return error;
    }
    let why = "a drill restores without the rights of a superuser";
    PortError::new(ErrorKind::PermissionDenied, why).with_source(error)
}

#[async_trait]
impl RestoreSession for Session {
    fn scope(&self) -> Scope {
        self.inner.scope()
    }

    async fn load(&self, cancel: &CancellationToken) -> Result<LoadReport, PortError> {
        let report = self.inner.load(cancel).await.map_err(explained)?;
        self.rehearsal.clear(&self.database).await?;
        let is_expected = |text: &String| EXPECTED.iter().any(|words| text.contains(words));
        let told = report.warnings.into_iter();
        let told = told.filter(|text| !text.contains(SILENT));
        let (expected, warnings): (Vec<_>, Vec<_>) = told.partition(is_expected);
        self.rehearsal.leave_out(expected);
        Ok(LoadReport { warnings })
    }

    async fn read_back(&self, cancel: &CancellationToken) -> Result<ReadBack, PortError> {
        self.inner.read_back(cancel).await
    }

    async fn discard(&self) -> Result<(), PortError> {
        self.inner.discard().await
    }
}
