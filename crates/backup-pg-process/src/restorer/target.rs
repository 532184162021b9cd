//! The database that a restore makes: whether it can be made, making it, finishing it, removing it.

mod locale;
pub(crate) mod roles;
mod server;
mod setting;
pub(crate) mod space;

use backup_core::restorer::Ownership;
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;

use super::error::{RestoreError, Words};
use super::roles::Roles;
use crate::error::sqlstate;
use crate::{ConnectionConfig, DatabaseDetails, Error, quote_ident, quote_literal};
use locale::{is_locale_trouble, locales};
pub(crate) use server::Server;
use setting::{quote_setting, setting_value};

/// What every mark begins with.
pub(crate) const MARK: &str = "made by backup-manager: ";

/// A database that a run made, known by a comment on it.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    connection: ConnectionConfig,
    /// Its name.
    pub(crate) name: String,
    marker: String,
    /// Roles that the run makes.
    pub(crate) new_roles: Vec<String>,
}

impl Target {
    /// A database to be made. `run` tells this run from every other.
    pub(crate) fn new(connection: ConnectionConfig, name: &str, run: &str) -> Self {
        Self {
            connection,
            name: name.to_owned(),
            marker: format!("{MARK}{run}"),
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
                "CREATE DATABASE {} TEMPLATE template0 ENCODING {}{}{options}",
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

    /// Says in a comment who made it; removes it again if that is not possible.
    async fn mark(
        &self,
        connection: &mut PgConnection,
        details: &DatabaseDetails,
    ) -> Result<(), RestoreError> {
        let marked = self.comment(connection, details).await;
        if marked.is_err() {
            let sql = format!("DROP DATABASE {}", quote_ident(&self.name));
            execute(connection, sql, "remove the new database").await?;
        }
        marked.map_err(Into::into)
    }

    /// The mark, and the source's own comment after it.
    async fn comment(
        &self,
        connection: &mut PgConnection,
        details: &DatabaseDetails,
    ) -> Result<(), Error> {
        let comment = match &details.comment {
            Some(source) => format!("{}\n{source}", self.marker),
            None => self.marker.clone(),
        };
        let (name, comment) = (quote_ident(&self.name), quote_literal(&comment));
        let sql = format!("COMMENT ON DATABASE {name} IS {comment}");
        execute(connection, sql, "mark the new database").await
    }

    /// Whether a database of this name exists.
    pub(crate) async fn exists(name: &str, connection: &mut PgConnection) -> Result<bool, Error> {
        sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
            .bind(name)
            .fetch_one(connection)
            .await
            .map_err(Error::query("look for the target database"))
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
        self.comment(&mut connection, details).await?;
        Ok(warnings)
    }

    fn properties(&self, details: &DatabaseDetails, ownership: &Ownership) -> Vec<String> {
        let name = quote_ident(&self.name);
        let mut statements = Vec::new();
        let keep = Roles(ownership).are_kept();
        for setting in &details.settings {
            let scope = match &setting.role {
                Some(role) if keep => format!("ROLE {} IN DATABASE {name}", quote_ident(role)),
                Some(_) => continue,
                None => format!("DATABASE {name}"),
            };
            let value = setting_value(&setting.name, &setting.value);
            let setting = quote_setting(&setting.name);
            statements.push(format!("ALTER {scope} SET {setting} TO {value}"));
        }
        if let Some(grants) = details.grants.as_ref().filter(|_| keep) {
            statements.push(format!("REVOKE ALL ON DATABASE {name} FROM PUBLIC"));
            for grant in grants {
                let grantee = match &grant.grantee {
                    Some(role) => quote_ident(role),
                    None => "PUBLIC".to_owned(),
                };
                let option = if grant.grantable {
                    " WITH GRANT OPTION"
                } else {
                    ""
                };
                let privilege = &grant.privilege;
                if ["CONNECT", "CREATE", "TEMPORARY"].contains(&privilege.as_str()) {
                    statements.push(format!(
                        "GRANT {privilege} ON DATABASE {name} TO {grantee}{option}"
                    ));
                }
            }
        }
        if details.connection_limit >= 0 {
            statements.push(format!(
                "ALTER DATABASE {name} CONNECTION LIMIT {}",
                details.connection_limit
            ));
        }
        statements
    }

    /// Removes it, with whoever is connected, if it still carries the mark of this run.
    pub(crate) async fn discard(&self) -> Result<(), RestoreError> {
        let Some(mark) = self.read_mark().await? else {
            return Ok(());
        };
        let mut connection = self.maintenance().await?;
        if mark != self.marker {
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
    pub(crate) async fn read_mark(&self) -> Result<Option<String>, Error> {
        let mut connection = self.maintenance().await?;
        let comment: Option<Option<String>> = sqlx::query_scalar(
            "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = $1",
        )
        .bind(&self.name)
        .fetch_optional(&mut connection)
        .await
        .map_err(Error::query("look for the target database"))?;
        Ok(comment.map(|comment| {
            let comment = comment.unwrap_or_default();
            comment.lines().next().unwrap_or_default().to_owned()
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

/// Runs a statement without a result.
pub(crate) async fn execute(
    connection: &mut PgConnection,
    sql: impl Into<String>,
    operation: &str,
) -> Result<(), Error> {
    let done = sqlx::raw_sql(AssertSqlSafe(sql.into()))
        .execute(connection)
        .await;
    done.map(drop).map_err(Error::query(operation))
}

#[cfg(test)]
mod tests;
