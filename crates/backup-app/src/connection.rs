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
        let server = expanded(server, environment)?;
        let server = server.as_ref();
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
        connection.password = self.password(server, environment)?;
        authenticate(&mut connection, &file, &variable, environment)?;
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
        let server = expanded(server, environment)?;
        let configured = server.as_ref();
        let configured = configured.and_then(|server| Some((server, server.admin.as_ref()?)));
        let Some((server, admin)) = configured.filter(|(server, _)| self.is_at(server)) else {
            return Ok(None);
        };
        let mut connection = connection.clone();
        connection.user.clone_from(&admin.user);
        connection.passfile.clone_from(&server.passfile);
        let password = admin.password.as_ref();
        connection.password = password.map(|p| p.resolve(environment)).transpose()?;
        Ok(Some(connection))
    }

    /// The password for where we go. What is configured for one server is not shown to another:
    /// who says where to go says the password too, as for a server that is not configured.
    fn password(
        &self,
        server: Option<&ServerConfig>,
        environment: &Environment,
    ) -> Result<Option<SecretString>, AppError> {
        let Some(server) = server.filter(|server| self.is_at(server)) else {
            let typed = environment.first(names::PG_PASSWORD);
            return Ok(typed.map(SecretString::from));
        };
        let reference = server.password.as_ref();
        Ok(reference.map(|r| r.resolve(environment)).transpose()?)
    }

    /// Whether flags leave host and port of a configured server as they are.
    fn is_at(&self, server: &ServerConfig) -> bool {
        let same_host = self.host.is_none() || self.host == server.host;
        let port = server.port.unwrap_or(DEFAULT_PORT);
        same_host && self.port.is_none_or(|given| given == port)
    }
}

/// A configured server with what its URL and its service say.
fn expanded(
    server: Option<&ServerConfig>,
    environment: &Environment,
) -> Result<Option<ServerConfig>, AppError> {
    let expanded = server
        .map(|server| server.expanded(environment))
        .transpose();
    expanded.map_err(|wrong| AppError::usage(format!("{}: {}", wrong.key, wrong.message)))
}

/// Password file, certificates, and whom to believe.
fn authenticate(
    connection: &mut ConnectionConfig,
    file: &ServerConfig,
    variable: &dyn Fn(&[&str]) -> Option<String>,
    environment: &Environment,
) -> Result<(), AppError> {
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
        for (host, port, typed, expected) in [
            (None, None, "typed", Some("configured")),
            (Some("db.internal"), None, "typed", Some("configured")),
            (None, Some(5432), "typed", Some("configured")),
            (Some("elsewhere"), None, "typed", Some("typed")),
            (Some("elsewhere"), None, "", None),
            (None, Some(5433), "typed", Some("typed")),
            (Some("db.internal"), Some(5433), "", None),
        ] {
            let overrides = ServerOverrides {
                host: host.map(str::to_owned),
                port,
                ..ServerOverrides::default()
            };
            let connection = overrides
                .connection(Some(&server), &environment(typed))
                .unwrap();
            let password = connection.password.as_ref();
            let password = password.map(ExposeSecret::expose_secret);
            assert_eq!(password, expected, "{host:?} {port:?} {typed:?}");
        }
    }

    #[test]
    fn a_typed_password_is_for_the_server_that_was_typed() {
        let environment: Environment = [("PGPASSWORD", "typed")].into_iter().collect();
        let configured = ServerConfig {
            host: Some("db.internal".to_owned()),
            user: Some("backup".to_owned()),
            ..ServerConfig::default()
        };
        for (host, server, expected) in [
            ("db.internal", None, Some("typed")),
            ("db.internal", Some(&configured), None),
            ("elsewhere", Some(&configured), Some("typed")),
        ] {
            let overrides = ServerOverrides {
                host: Some(host.to_owned()),
                ..ServerOverrides::default()
            };
            let connection = overrides.connection(server, &environment).unwrap();
            let password = connection.password.as_ref();
            let password = password.map(ExposeSecret::expose_secret);
            assert_eq!(password, expected, "{host} {server:?}");
        }
    }
}
