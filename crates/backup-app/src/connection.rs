//! From flags, variables and file to a PostgreSQL connection.

use std::path::{Path, PathBuf};
use std::time::Duration;

use backup_config::{Environment, ServerConfig, names};
use backup_pg_process::{ConnectionConfig, ToolLocator};
use secrecy::SecretString;

use crate::error::AppError;

/// As in libpq.
const DEFAULT_PORT: u16 = 5432;

/// Where Debian and most others keep the socket; libpq's own default is `/tmp`.
const SOCKET_DIRECTORIES: &[&str] = &["/var/run/postgresql", "/tmp"];

/// What a user says on the command line about a server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerOverrides {
    /// `-h`.
    pub host: Option<String>,
    /// `-p`.
    pub port: Option<u16>,
    /// `-U`.
    pub user: Option<String>,
}

impl ServerOverrides {
    /// The connection: flags first, then the configured server or else libpq's variables.
    pub(crate) fn connection(
        &self,
        server: Option<&ServerConfig>,
        environment: &Environment,
    ) -> Result<ConnectionConfig, AppError> {
        if server.is_none() {
            refuse_unsupported(environment)?;
        }
        let file = server.cloned().unwrap_or_default();
        // A configured server is reached as configured, whatever libpq's variables say.
        let variable = |names: &[&str]| match server {
            Some(_) => None,
            None => environment.first(names).map(str::to_owned),
        };
        let host = self
            .host
            .clone()
            .or_else(|| file.host.clone())
            .or_else(|| variable(names::PG_HOST));
        let user = self
            .user
            .clone()
            .or_else(|| file.user.clone())
            .or_else(|| variable(names::PG_USER));
        let host = host.unwrap_or_else(default_host);
        let user = user.map_or_else(login_name, Ok)?;
        let mut connection = ConnectionConfig::new(host, user);
        if let Some(port) = self.port.or(file.port) {
            connection.port = port;
        } else if let Some(text) = variable(names::PG_PORT) {
            connection.port = text
                .parse()
                .map_err(|_| AppError::usage(format!("{text:?} is not a port")))?;
        }
        // What is configured for one server is not shown to another.
        let mut credentials = file.clone();
        if self.is_elsewhere(&file) && credentials.password.take().is_some() {
            connection.password = environment
                .first(names::PG_PASSWORD)
                .map(SecretString::from);
        }
        authenticate(&mut connection, &credentials, &variable, environment)?;
        if let Some(timeout) = file.connect_timeout {
            connection.connect_timeout = timeout;
        } else if let Some(text) = variable(names::PG_CONNECT_TIMEOUT) {
            let seconds = text
                .parse()
                .map_err(|_| AppError::usage(format!("{text:?} is not a number of seconds")))?;
            // To libpq, 0 is "as long as it takes", which nobody wants at night: our default stays.
            if seconds > 0 {
                connection.connect_timeout = Duration::from_secs(seconds);
            }
        }
        if let Some(database) = file.maintenance_database {
            connection.maintenance_database = database;
        }
        Ok(connection)
    }

    /// The same connection as the server's `admin`. A password that is configured for one server is
    /// not shown to another.
    pub(crate) fn admin(
        &self,
        connection: &ConnectionConfig,
        server: Option<&ServerConfig>,
        environment: &Environment,
    ) -> Result<Option<ConnectionConfig>, AppError> {
        let configured = server.and_then(|server| Some((server, server.admin.as_ref()?)));
        let Some((server, admin)) = configured.filter(|(server, _)| !self.is_elsewhere(server))
        else {
            return Ok(None);
        };
        let mut connection = connection.clone();
        connection.user.clone_from(&admin.user);
        connection.passfile.clone_from(&server.passfile);
        let password = admin.password.as_ref();
        connection.password = password.map(|p| p.resolve(environment)).transpose()?;
        Ok(Some(connection))
    }

    /// Whether the flags lead to another server than the configured one.
    fn is_elsewhere(&self, file: &ServerConfig) -> bool {
        (self.host.is_some() && self.host != file.host)
            || (self.port.is_some() && self.port != Some(file.port.unwrap_or(DEFAULT_PORT)))
    }
}

/// Password, certificates, and whom to believe.
fn authenticate(
    connection: &mut ConnectionConfig,
    file: &ServerConfig,
    variable: &dyn Fn(&[&str]) -> Option<String>,
    environment: &Environment,
) -> Result<(), AppError> {
    if let Some(reference) = &file.password {
        connection.password = Some(reference.resolve(environment)?);
    } else if connection.password.is_none() {
        connection.password = variable(names::PG_PASSWORD).map(SecretString::from);
    }
    connection.passfile = file
        .passfile
        .clone()
        .or_else(|| variable(names::PG_PASSFILE).map(PathBuf::from))
        .or_else(|| {
            let home = environment.get(names::HOME)?;
            Some(Path::new(home).join(".pgpass")).filter(|path| path.exists())
        });
    if let Some(text) = file.sslmode.clone().or_else(|| variable(names::PG_SSLMODE)) {
        connection.ssl_mode = text
            .parse()
            .map_err(|e: backup_pg_process::Error| AppError::usage(e.to_string()))?;
    }
    connection.ssl_root_cert = file
        .sslrootcert
        .clone()
        .or_else(|| variable(names::PG_SSLROOTCERT).map(PathBuf::from));
    connection.ssl_client_cert = file
        .sslcert
        .clone()
        .or_else(|| variable(names::PG_SSLCERT).map(PathBuf::from));
    connection.ssl_client_key = file
        .sslkey
        .clone()
        .or_else(|| variable(names::PG_SSLKEY).map(PathBuf::from));
    Ok(())
}

fn refuse_unsupported(environment: &Environment) -> Result<(), AppError> {
    let mut names = names::PG_UNSUPPORTED.iter();
    match names.find(|name| environment.get(name).is_some()) {
        Some(name) => Err(AppError::usage_hint(
            format!("{name} is set and not supported"),
            "unset it, and say -h, -p and -U",
        )),
        None => Ok(()),
    }
}

/// Where client programs are looked for.
pub(crate) fn tools(server: Option<&ServerConfig>, environment: &Environment) -> ToolLocator {
    let path = environment.get(names::PATH).unwrap_or_default();
    let directories = path.split(':').filter(|d| !d.is_empty()).map(PathBuf::from);
    let mut locator = ToolLocator::default().with_search_path(directories);
    locator.bin_dirs = server.iter().filter_map(|s| s.bin_dir.clone()).collect();
    locator
}

fn default_host() -> String {
    SOCKET_DIRECTORIES
        .iter()
        .find(|directory| Path::new(directory).is_dir())
        .unwrap_or(&"localhost")
        .to_string()
}

fn login_name() -> Result<String, AppError> {
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid());
    match user {
        Ok(Some(user)) => Ok(user.name),
        _ => Err(AppError::usage_hint("no user name is given", "say -U NAME")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use backup_config::SecretRef;
    use secrecy::ExposeSecret;

    #[test]
    fn a_configured_password_is_for_the_configured_host() {
        let server = ServerConfig {
            host: Some("db.internal".to_owned()),
            user: Some("backup".to_owned()),
            password: Some(SecretRef::Env("DB_PASSWORD".to_owned())),
            ..ServerConfig::default()
        };
        let environment = |typed: &str| -> Environment {
            [("DB_PASSWORD", "configured"), ("PGPASSWORD", typed)]
                .into_iter()
                .collect()
        };
        for (host, typed, expected) in [
            (None, "typed", Some("configured")),
            (Some("db.internal"), "typed", Some("configured")),
            (Some("elsewhere"), "typed", Some("typed")),
            (Some("elsewhere"), "", None),
        ] {
            let overrides = ServerOverrides {
                host: host.map(str::to_owned),
                ..ServerOverrides::default()
            };
            let connection = overrides
                .connection(Some(&server), &environment(typed))
                .unwrap();
            let password = connection.password.as_ref();
            let password = password.map(ExposeSecret::expose_secret);
            assert_eq!(password, expected, "{host:?} {typed:?}");
        }
    }
}
