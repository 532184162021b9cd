//! The database that a restore makes: whether it can be made, making it, finishing it, removing it.

use std::collections::BTreeSet;

use backup_core::manifest::Manifest;
use backup_core::restorer::Ownership;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row as _};

use super::error::{RestoreError, Words};
use crate::error::sqlstate;
use crate::{
    ConnectionConfig, DatabaseDetails, Error, LocaleProvider, ToolVersion, quote_ident,
    quote_literal,
};

/// What the target's server is and has.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    /// `server_version_num`.
    pub(crate) version_num: u32,
    /// Whether the login is a superuser.
    pub(crate) is_superuser: bool,
    roles: BTreeSet<String>,
    tablespaces: BTreeSet<String>,
    extensions: Vec<(String, Option<String>)>,
    max_name_bytes: usize,
}

impl Server {
    /// Asks it.
    pub(crate) async fn read(connection: &mut PgConnection) -> Result<Self, Error> {
        let failed = || Error::query("read the target server's properties");
        let row = sqlx::query(
            "SELECT current_setting('server_version_num')::int4,
                    (SELECT rolsuper FROM pg_roles WHERE rolname = current_user),
                    current_setting('max_identifier_length')::int4",
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
        Ok(Self {
            version_num: u32::try_from(version).unwrap_or_default(),
            is_superuser: row.try_get(1).map_err(failed())?,
            roles: names(connection, "SELECT rolname::text FROM pg_roles").await?,
            tablespaces: names(connection, "SELECT spcname::text FROM pg_tablespace").await?,
            extensions,
            max_name_bytes: usize::try_from(name_bytes).unwrap_or(63),
        })
    }

    /// Major version.
    pub(crate) fn major(&self) -> u32 {
        self.version_num / 10_000
    }

    /// Whether a tablespace exists.
    pub(crate) fn has_tablespace(&self, name: &str) -> bool {
        self.tablespaces.contains(name)
    }

    /// Refuses what cannot end well, before anything is made. Returns what is worth a warning.
    pub(crate) fn check(
        &self,
        manifest: &Manifest,
        details: &DatabaseDetails,
        ownership: &Ownership,
    ) -> Result<Vec<String>, RestoreError> {
        let backup = if details.server_version_num == 0 {
            leading_number(&manifest.server_version)
        } else {
            details.server_version_num / 10_000
        };
        if backup > self.major() {
            return Err(RestoreError::OlderServer {
                backup: manifest.server_version.clone(),
                target: ToolVersion::from_num(self.version_num).to_string(),
            });
        }
        let missing = |wanted: &[String]| -> Vec<String> {
            let missing = wanted.iter().filter(|role| !self.roles.contains(*role));
            missing.cloned().collect()
        };
        let roles = missing(&details.roles);
        if *ownership == Ownership::Keep && !roles.is_empty() {
            return Err(RestoreError::MissingRoles { roles });
        }
        let roles = missing(&details.named_roles);
        if !roles.is_empty() {
            return Err(RestoreError::MissingNamedRoles { roles });
        }
        self.check_extensions(details)
    }

    fn check_extensions(&self, details: &DatabaseDetails) -> Result<Vec<String>, RestoreError> {
        let (mut missing, mut warnings) = (Vec::new(), Vec::new());
        for wanted in &details.extensions {
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

/// A database that a run made, known by a comment on it.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    connection: ConnectionConfig,
    /// Its name.
    pub(crate) name: String,
    marker: String,
}

impl Target {
    /// A database to be made. `run` tells this run from every other.
    pub(crate) fn new(connection: ConnectionConfig, name: &str, run: &str) -> Self {
        Self {
            connection,
            name: name.to_owned(),
            marker: format!("made by backup-manager: {run}"),
        }
    }

    /// Makes it, empty, with the locale of the source, or the nearest that the server has.
    /// Returns what is worth a warning.
    pub(crate) async fn create(
        &self,
        server: &Server,
        details: &DatabaseDetails,
        ownership: &Ownership,
    ) -> Result<Vec<String>, RestoreError> {
        let mut connection = self.maintenance().await?;
        let mut warnings = Vec::new();
        let mut options = String::new();
        if *ownership == Ownership::Keep && !details.owner.is_empty() {
            options += &format!(" OWNER {}", quote_ident(&details.owner));
        }
        if let Some(tablespace) = &details.tablespace {
            if server.has_tablespace(tablespace) {
                options += &format!(" TABLESPACE {}", quote_ident(tablespace));
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
                .execute(&mut connection)
                .await
            {
                Ok(_) => {
                    if let Some(reason) = refusal {
                        warnings.push(format!("{}: {reason}", locale.warning));
                    }
                    self.mark(&mut connection, details).await?;
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
    pub(crate) async fn exists(&self, connection: &mut PgConnection) -> Result<bool, Error> {
        sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
            .bind(&self.name)
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
        let keep = *ownership == Ownership::Keep;
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
        let mut connection = self.maintenance().await?;
        let comment: Option<Option<String>> = sqlx::query_scalar(
            "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = $1",
        )
        .bind(&self.name)
        .fetch_optional(&mut connection)
        .await
        .map_err(Error::query("look for the target database"))?;
        let Some(comment) = comment else {
            return Ok(());
        };
        if comment.unwrap_or_default().lines().next() != Some(self.marker.as_str()) {
            return Err(RestoreError::NotOurs {
                database: self.name.clone(),
            });
        }
        // Since 13: <https://www.postgresql.org/docs/current/sql-dropdatabase.html>
        let sql = format!("DROP DATABASE {} WITH (FORCE)", quote_ident(&self.name));
        let operation = format!("drop database {:?}", self.name);
        Ok(execute(&mut connection, sql, &operation).await?)
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

/// One way to say how the new database sorts.
struct Locale {
    clauses: String,
    /// Why it is not the first.
    warning: &'static str,
}

/// The source's locale, then the server's own, then the one that fits every encoding.
fn locales(server: &Server, details: &DatabaseDetails) -> Vec<Locale> {
    let libc = |collate: &str, ctype: &str| {
        let (collate, ctype) = (quote_literal(collate), quote_literal(ctype));
        format!(" LC_COLLATE {collate} LC_CTYPE {ctype}")
    };
    let mut source = libc(&details.collate, &details.ctype);
    let locale = quote_literal(details.locale.as_deref().unwrap_or_default());
    source += &match details.locale_provider {
        LocaleProvider::Libc if server.major() >= 15 => " LOCALE_PROVIDER libc".to_owned(),
        LocaleProvider::Libc => String::new(),
        LocaleProvider::Icu => {
            let rules = details.icu_rules.as_deref().map(quote_literal);
            let rules = rules.map_or_else(String::new, |rules| format!(" ICU_RULES {rules}"));
            format!(" LOCALE_PROVIDER icu ICU_LOCALE {locale}{rules}")
        }
        LocaleProvider::Builtin => format!(" LOCALE_PROVIDER builtin BUILTIN_LOCALE {locale}"),
    };
    vec![
        Locale {
            clauses: source,
            warning: "",
        },
        Locale {
            clauses: String::new(),
            warning: "the source's locale does not exist on the target, so its default is used",
        },
        Locale {
            clauses: libc("C", "C"),
            warning: "the source's locale does not exist on the target, so C is used",
        },
    ]
}

/// `wrong_object_type` and `invalid_parameter_value` for unknown names, `feature_not_supported` for
/// a server without ICU.
fn is_locale_trouble(error: &sqlx::Error) -> bool {
    matches!(
        sqlstate(error).as_deref(),
        Some("42809" | "22023" | "0A000")
    )
}

/// The name of a setting may have dots, each piece an identifier.
fn quote_setting(name: &str) -> String {
    name.split('.')
        .map(quote_ident)
        .collect::<Vec<_>>()
        .join(".")
}

/// Settings that are lists are stored as they are written, with quoted elements: quoting the whole
/// would make one element of it. `pg_dump` knows the same names.
/// <https://github.com/postgres/postgres/blob/master/src/bin/pg_dump/dumputils.c>
fn setting_value(name: &str, value: &str) -> String {
    const LISTS: [&str; 8] = [
        "local_preload_libraries",
        "oauth_validator_libraries",
        "search_path",
        "session_preload_libraries",
        "shared_preload_libraries",
        "temp_tablespaces",
        "unix_socket_directories",
        "restrict_nonsystem_relation_kind",
    ];
    if !LISTS.contains(&name.to_ascii_lowercase().as_str()) {
        return quote_literal(value);
    }
    let elements: Vec<String> = list_elements(value)
        .iter()
        .map(|e| quote_literal(e))
        .collect();
    if elements.is_empty() {
        "''".to_owned()
    } else {
        elements.join(", ")
    }
}

/// Splits `"$user", public` into its elements, unquoted.
fn list_elements(value: &str) -> Vec<String> {
    let (mut elements, mut element, mut quoted) = (Vec::new(), String::new(), false);
    let mut chars = value.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                element.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => elements.push(std::mem::take(&mut element)),
            c if c.is_whitespace() && !quoted => {}
            c => element.push(c),
        }
    }
    if !element.is_empty() || !elements.is_empty() {
        elements.push(element);
    }
    elements
}

#[cfg(test)]
mod tests;
