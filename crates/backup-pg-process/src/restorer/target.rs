//! The database that a restore makes: whether it can be made, making it, finishing it, removing it.

mod locale;
pub(crate) mod roles;
mod server;
pub(crate) mod space;

use backup_core::restorer::Ownership;
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;

use super::error::{RestoreError, Words};
use super::roles::Roles;
use crate::error::sqlstate;
use crate::mark::{Comment, Mark, UNMARKED_LIMIT};
use crate::properties::{connection_limit_statement, grant_statement, setting_statement};
use crate::session::execute;
use crate::{ConnectionConfig, DatabaseDetails, Error, quote_ident, quote_literal};
use locale::{is_locale_trouble, locales};
pub(crate) use server::Server;

/// A database that a run made, known by a comment on it.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    connection: ConnectionConfig,
    /// Its name.
    pub(crate) name: String,
    mark: Mark,
    /// Roles that the run makes.
    pub(crate) new_roles: Vec<String>,
}

impl Target {
    /// A database to be made; `mark` tells this run from every other.
    pub(crate) fn new(connection: ConnectionConfig, name: &str, mark: Mark) -> Self {
        Self {
            connection,
            name: name.to_owned(),
            mark,
            new_roles: Vec::new(),
        }
    }

    /// The same, with roles that are made before the database.
    pub(crate) fn with_new_roles(mut self, roles: Vec<String>) -> Self {
        self.new_roles = roles;
        self
    }

    /// Makes the roles and the database; all of it or nothing. Returns what is worth a warning.
    pub(crate) async fn create(
        &self,
        server: &Server,
        details: &DatabaseDetails,
        ownership: &Ownership,
    ) -> Result<Vec<String>, RestoreError> {
        let mut connection = self.maintenance().await?;
        roles::create(&mut connection, &self.new_roles, server).await?;
        let made = self
            .create_database(&mut connection, server, details, ownership)
            .await;
        if made.is_err() {
            // The first error is the one that counts.
            let _ = roles::remove(&mut connection, &self.new_roles).await;
        }
        made
    }

    /// Makes it, empty, with the locale of the source, or the nearest that the server has.
    /// Returns what is worth a warning.
    async fn create_database(
        &self,
        connection: &mut PgConnection,
        server: &Server,
        details: &DatabaseDetails,
        ownership: &Ownership,
    ) -> Result<Vec<String>, RestoreError> {
        let mut warnings = Vec::new();
        let mut options = String::new();
        if *ownership != Ownership::Login && !details.owner.is_empty() {
            options = format!(" OWNER {}", quote_ident(&details.owner));
        }
        if let Some(tablespace) = &details.tablespace {
            if server.has_tablespace(tablespace) {
                options = format!("{options} TABLESPACE {}", quote_ident(tablespace));
            } else {
                warnings.push(format!(
                    "tablespace {tablespace} does not exist on the target"
                ));
            }
        }
        let mut refusal = None;
        for locale in locales(server, details) {
            let sql = format!(
                "CREATE DATABASE {} TEMPLATE template0 ENCODING {}{}{options} \
                 ALLOW_CONNECTIONS false CONNECTION LIMIT {UNMARKED_LIMIT}",
                quote_ident(&self.name),
                quote_literal(&details.encoding),
                locale.clauses,
            );
            match sqlx::raw_sql(AssertSqlSafe(sql))
                .execute(&mut *connection)
                .await
            {
                Ok(_) => {
                    if let Some(reason) = refusal {
                        warnings.push(format!("{}: {reason}", locale.warning));
                    }
                    self.mark(connection, details).await?;
                    return Ok(warnings);
                }
                Err(error) if is_locale_trouble(&error) => {
                    refusal.get_or_insert_with(|| error.to_string());
                }
                Err(error) => return Err(self.refused(error)),
            }
        }
        Err(RestoreError::Entry {
            what: format!("database {:?}", self.name),
            words: Words(refusal.unwrap_or_default()),
        })
    }

    fn refused(&self, error: sqlx::Error) -> RestoreError {
        if sqlstate(&error).as_deref() == Some("42P04") {
            return RestoreError::TargetExists {
                database: self.name.clone(),
            };
        }
        let operation = format!("create database {:?}", self.name);
        Error::query(operation)(error).into()
    }

    /// Says in a comment who made it, and opens it, in one step: a run that dies between making and
    /// marking leaves what nobody has ever been in. Removes it again if that is not possible.
    async fn mark(
        &self,
        connection: &mut PgConnection,
        details: &DatabaseDetails,
    ) -> Result<(), RestoreError> {
        let marked = self.open(connection, details).await;
        if marked.is_err() {
            let sql = format!("DROP DATABASE {}", quote_ident(&self.name));
            execute(connection, sql, "remove the new database").await?;
        }
        marked.map_err(Into::into)
    }

    async fn open(
        &self,
        connection: &mut PgConnection,
        details: &DatabaseDetails,
    ) -> Result<(), Error> {
        let comment = self.comment(&self.mark.unfinished(), details);
        let name = quote_ident(&self.name);
        let sql =
            format!("{comment}; ALTER DATABASE {name} ALLOW_CONNECTIONS true CONNECTION LIMIT -1");
        execute(connection, sql, "mark the new database").await
    }

    /// A mark, and the source's own comment after it.
    fn comment(&self, mark: &Mark, details: &DatabaseDetails) -> String {
        let comment = Comment {
            mark: Some(mark.clone()),
            rest: details.comment.clone(),
        };
        let sql = comment.statement(&self.name);
        if matches!(self.mark, Mark::Sandbox(_)) {
            // From its first moment on: everybody with a login may connect to a new database.
            let name = quote_ident(&self.name);
            return format!("REVOKE ALL ON DATABASE {name} FROM PUBLIC; {sql}");
        }
        sql
    }

    /// Gives it the settings and grants of the source. What cannot be given is a warning: the
    /// content does not depend on it. When this returns, everything before it is on the server's
    /// disk too: a durable commit follows all those that were not.
    pub(crate) async fn finish(
        &self,
        details: &DatabaseDetails,
        ownership: &Ownership,
    ) -> Result<Vec<String>, RestoreError> {
        let mut connection = self.maintenance().await?;
        let mut warnings = Vec::new();
        for sql in self.properties(details, ownership) {
            let statement = sqlx::raw_sql(AssertSqlSafe(sql.clone()));
            match statement.execute(&mut connection).await {
                Ok(_) => {}
                Err(error) if error.as_database_error().is_some() => {
                    warnings.push(format!("{sql}: {error}"));
                }
                Err(error) => {
                    return Err(Error::query("set the database's properties")(error).into());
                }
            }
        }
        let comment = self.comment(&self.mark, details);
        execute(&mut connection, comment, "mark the new database").await?;
        Ok(warnings)
    }

    fn properties(&self, details: &DatabaseDetails, ownership: &Ownership) -> Vec<String> {
        let keep = Roles(ownership).are_kept();
        let settings = details.settings.iter();
        let mut statements: Vec<_> = settings
            .filter(|setting| keep || setting.role.is_none())
            .map(|setting| setting_statement(&self.name, setting))
            .collect();
        if let Some(grants) = details.grants.as_ref().filter(|_| keep) {
            let name = quote_ident(&self.name);
            statements.push(format!("REVOKE ALL ON DATABASE {name} FROM PUBLIC"));
            statements.extend(grants.iter().filter_map(|grant| {
                let role = grant.grantee.as_deref();
                grant_statement(&self.name, role, &grant.privilege, grant.grantable)
            }));
        }
        if details.connection_limit >= 0 {
            statements.push(connection_limit_statement(
                &self.name,
                details.connection_limit,
            ));
        }
        statements
    }

    /// How many may connect to it at once; -1 is no limit.
    pub(crate) async fn limit_connections(&self, limit: i32) -> Result<(), RestoreError> {
        let mut connection = self.maintenance().await?;
        let sql = connection_limit_statement(&self.name, limit);
        Ok(execute(&mut connection, sql, "limit the connections").await?)
    }

    /// Removes it, with whoever is connected, if it still carries the mark of this run.
    pub(crate) async fn discard(&self) -> Result<(), RestoreError> {
        let Some(mark) = self.read_mark().await? else {
            return Ok(());
        };
        let mut connection = self.maintenance().await?;
        let ours = [&self.mark, &self.mark.unfinished()];
        if mark.as_ref().is_none_or(|mark| !ours.contains(&mark)) {
            return Err(RestoreError::NotOurs {
                database: self.name.clone(),
            });
        }
        // Since 13: <https://www.postgresql.org/docs/current/sql-dropdatabase.html>
        let sql = format!("DROP DATABASE {} WITH (FORCE)", quote_ident(&self.name));
        let operation = format!("drop database {:?}", self.name);
        execute(&mut connection, sql, &operation).await?;
        Ok(roles::remove(&mut connection, &self.new_roles).await?)
    }

    /// What its comment says about who made it; absent if there is no such database.
    pub(crate) async fn read_mark(&self) -> Result<Option<Option<Mark>>, Error> {
        let mut connection = self.maintenance().await?;
        Self::mark_of(&self.name, &mut connection).await
    }

    /// The same of any database.
    pub(crate) async fn mark_of(
        name: &str,
        connection: &mut PgConnection,
    ) -> Result<Option<Option<Mark>>, Error> {
        // As bytes: it is in the encoding of whichever database it was written from.
        let comment: Option<Option<Vec<u8>>> = sqlx::query_scalar(
            "SELECT textsend(shobj_description(oid, 'pg_database')) FROM pg_database
             WHERE datname = $1",
        )
        .bind(name)
        .fetch_optional(connection)
        .await
        .map_err(Error::query("look for the target database"))?;
        Ok(comment.map(|comment| {
            let comment = comment.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
            Comment::parse(comment.as_deref()).mark
        }))
    }

    /// Connects to it.
    pub(crate) async fn connect(&self) -> Result<PgConnection, Error> {
        self.connection.connect(&self.name).await
    }

    async fn maintenance(&self) -> Result<PgConnection, Error> {
        self.connection
            .connect(&self.connection.maintenance_database)
            .await
    }
}

#[cfg(test)]
mod tests;
