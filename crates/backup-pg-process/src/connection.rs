//! How to reach a server: one description for our own connections and for the child programs.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use backup_process::ToolEnv;
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::ConnectOptions as _;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};

use crate::passfile::{Lookup, find_password, is_unsafe};
use crate::{Error, PassFile, login};

/// The `application_name` of every session of ours.
pub(crate) const APPLICATION_NAME: &str = "backup-manager";

/// The least value libpq obeys: 0 means for ever, 1 is rounded up to 2.
const MIN_CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A file that cannot exist: libpq says nothing about those, but warns of one that is no plain file.
const NO_PASSFILE: &str = "/dev/null/no-passfile";

/// A server and a login.
#[derive(Debug, Clone)]
pub struct ConnectionConfig {
    /// Host name, address, or the absolute path of the directory with its socket.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Role.
    pub user: String,
    /// Its password.
    pub password: Option<SecretString>,
    /// A password file of the user's own, asked when there is no `password`.
    pub passfile: Option<PathBuf>,
    /// The database for work that belongs to none, such as creating one.
    pub maintenance_database: String,
    /// Whether the connection is encrypted and whom we believe.
    pub ssl_mode: SslMode,
    /// Certificates of the authorities to believe.
    pub ssl_root_cert: Option<PathBuf>,
    /// Certificate to show.
    pub ssl_client_cert: Option<PathBuf>,
    /// Its key.
    pub ssl_client_key: Option<PathBuf>,
    /// How long connecting may take.
    pub connect_timeout: Duration,
}

/// libpq's `sslmode`.
///
/// <https://www.postgresql.org/docs/current/libpq-ssl.html#LIBPQ-SSL-PROTECTION>
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "libpq explains them")]
pub enum SslMode {
    Disable,
    Allow,
    #[default]
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

impl SslMode {
    fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Allow => "allow",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }

    fn for_driver(self) -> PgSslMode {
        match self {
            Self::Disable => PgSslMode::Disable,
            Self::Allow => PgSslMode::Allow,
            Self::Prefer => PgSslMode::Prefer,
            Self::Require => PgSslMode::Require,
            Self::VerifyCa => PgSslMode::VerifyCa,
            Self::VerifyFull => PgSslMode::VerifyFull,
        }
    }
}

impl std::str::FromStr for SslMode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        [
            Self::Disable,
            Self::Allow,
            Self::Prefer,
            Self::Require,
            Self::VerifyCa,
            Self::VerifyFull,
        ]
        .into_iter()
        .find(|mode| mode.as_str() == text)
        .ok_or_else(|| Error::InvalidConnection {
            reason: format!("{text:?} is not an sslmode"),
        })
    }
}

impl ConnectionConfig {
    /// A login without a password on port 5432, as libpq would try it.
    #[must_use]
    pub fn new(host: impl Into<String>, user: impl Into<String>) -> Self {
        Self {
            host: host.into(),
            port: 5432,
            user: user.into(),
            password: None,
            passfile: None,
            maintenance_database: "postgres".to_owned(),
            ssl_mode: SslMode::default(),
            ssl_root_cert: None,
            ssl_client_cert: None,
            ssl_client_key: None,
            connect_timeout: Duration::from_secs(15),
        }
    }

    /// `host:port` or the socket, for messages.
    #[must_use]
    pub fn server(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Opens a connection of our own to `database`.
    ///
    /// # Errors
    /// `Unavailable`, `PermissionDenied`, `NotFound`, or `Timeout` after `connect_timeout`.
    pub async fn connect(&self, database: &str) -> Result<PgConnection, Error> {
        let options = self.connect_options(database)?;
        let connecting = tokio::time::timeout(self.connect_timeout, options.connect());
        match connecting.await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(source)) => {
                let (step, remedy) = login::step(&source, self, database);
                Err(Error::Connect {
                    database: database.to_owned(),
                    server: self.server(),
                    step,
                    remedy: remedy.into(),
                    source: Box::new(source),
                })
            }
            Err(_) => Err(Error::ConnectTimeout {
                server: self.server(),
                after: self.connect_timeout,
            }),
        }
    }

    fn connect_options(&self, database: &str) -> Result<PgConnectOptions, Error> {
        self.check()?;
        // The driver starts from the process's own PG* variables. Whatever can be replaced is set
        // here; what it can only add to, or needs to be a real certificate, must not be there.
        if let Some(name) = self.unwanted_variable(is_in_environment) {
            return Err(Error::InvalidConnection {
                reason: format!("unset {name}: only some of the connections would obey it"),
            });
        }
        let password = self.password_for(database)?;
        if password.as_ref().is_some_and(is_unsafe) {
            return Err(Error::UnsafePassword);
        }
        let mut options = PgConnectOptions::new_without_pgpass()
            .host(&self.host)
            .port(self.port)
            .username(&self.user)
            .password(password.as_ref().map_or("", |p| p.expose_secret()))
            .database(database)
            .ssl_mode(self.ssl_mode.for_driver())
            .application_name(APPLICATION_NAME)
            .statement_cache_capacity(0)
            .disable_statement_logging();
        if self.host.starts_with('/') {
            options = options.socket(&self.host);
        }
        options = match &self.ssl_root_cert {
            Some(path) => options.ssl_root_cert(path),
            // No certificate besides the usual authorities', instead of PGSSLROOTCERT's.
            None => options.ssl_root_cert_from_pem(Vec::new()),
        };
        if let Some(path) = &self.ssl_client_cert {
            options = options.ssl_client_cert(path);
        }
        if let Some(path) = &self.ssl_client_key {
            options = options.ssl_client_key(path);
        }
        Ok(options)
    }

    /// A variable that the driver would obey, children would not, and no option replaces.
    fn unwanted_variable(&self, is_set: impl Fn(&str) -> bool) -> Option<&'static str> {
        [
            ("PGOPTIONS", true),
            ("PGSSLCERT", self.ssl_client_cert.is_none()),
            ("PGSSLKEY", self.ssl_client_key.is_none()),
        ]
        .into_iter()
        .find(|(name, counts)| *counts && is_set(name))
        .map(|(name, _)| name)
    }

    pub(crate) fn password_for(&self, database: &str) -> Result<Option<SecretString>, Error> {
        if self.password.is_some() {
            return Ok(self.password.clone());
        }
        let Some(path) = &self.passfile else {
            return Ok(None);
        };
        let content = std::fs::read_to_string(path).map_err(|source| Error::ReadPassFile {
            path: path.clone(),
            source,
        })?;
        let wanted = Lookup {
            host: &self.host,
            port: self.port,
            database,
            user: &self.user,
        };
        Ok(find_password(&content, wanted))
    }

    fn check(&self) -> Result<(), Error> {
        let invalid = |reason: &str| {
            Err(Error::InvalidConnection {
                reason: reason.to_owned(),
            })
        };
        if self.host.is_empty() {
            return invalid("host is empty");
        }
        // libpq splits host at commas, and tries them all.
        if self.host.contains(',') && !self.host.starts_with('/') {
            return invalid("more than one host");
        }
        if self.user.is_empty() {
            return invalid("user is empty");
        }
        if self.ssl_mode == SslMode::VerifyCa && self.ssl_root_cert.is_none() {
            return invalid("sslmode verify-ca needs a root certificate");
        }
        Ok(())
    }

    /// The environment of child programs that work on `database`, with server settings.
    ///
    /// # Errors
    /// `InvalidInput` for a password that cannot be handed over.
    pub fn tool_env(&self, database: &str, settings: &[(&str, &str)]) -> Result<ToolEnv, Error> {
        self.check()?;
        let passfile = match &self.password {
            Some(password) => Some(Arc::new(PassFile::create(password)?)),
            None => None,
        };
        let timeout = self.connect_timeout.max(MIN_CONNECT_TIMEOUT);
        let mut env = ToolEnv::default()
            .set("PGHOST", &self.host)
            .set("PGPORT", self.port.to_string())
            .set("PGUSER", &self.user)
            .set("PGDATABASE", database)
            .set("PGSSLMODE", self.ssl_mode.as_str())
            .set("PGCONNECT_TIMEOUT", timeout.as_secs().to_string())
            .set("PGAPPNAME", APPLICATION_NAME)
            .set("PGTZ", "UTC")
            .set("LC_ALL", "C")
            .set("PATH", "/usr/bin:/bin");
        if !settings.is_empty() {
            env = env.set("PGOPTIONS", options_value(settings));
        }
        let given = passfile.as_ref().map(|file| file.path().to_owned());
        // Without a file of ours or the user's, libpq must not find ~/.pgpass by itself: then our
        // own connections and the children could be different logins.
        let path = given.or_else(|| self.passfile.clone());
        env = env.set("PGPASSFILE", path.unwrap_or_else(|| NO_PASSFILE.into()));
        env = match (&self.ssl_root_cert, self.ssl_mode) {
            (Some(path), _) => env.set("PGSSLROOTCERT", path),
            // The driver believes the usual authorities then; libpq 16 and later can do the same.
            (None, SslMode::VerifyFull) => env.set("PGSSLROOTCERT", "system"),
            (None, _) => env,
        };
        if let Some(path) = &self.ssl_client_cert {
            env = env.set("PGSSLCERT", path);
        }
        if let Some(path) = &self.ssl_client_key {
            env = env.set("PGSSLKEY", path);
        }
        Ok(match passfile {
            Some(passfile) => env.keeping(passfile),
            None => env,
        })
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "no setting of ours: the driver reads the environment by itself"
)]
fn is_in_environment(name: &str) -> bool {
    std::env::var_os(name).is_some()
}

/// Settings as libpq's `options` wants them: `-c name=value`, blanks and backslashes escaped.
///
/// <https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNECT-OPTIONS>
fn options_value(settings: &[(&str, &str)]) -> String {
    settings
        .iter()
        .map(|(name, value)| {
            let escaped = value.replace('\\', "\\\\").replace(' ', "\\ ");
            format!("-c {name}={escaped}")
        })
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(env: &ToolEnv, name: &str) -> Option<String> {
        env.vars()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value.to_str().unwrap().to_owned())
    }

    /// It would be sent as it is, and refused without a word of why.
    #[tokio::test]
    async fn a_password_of_two_lines_is_refused_before_it_is_sent() {
        let mut config = ConnectionConfig::new("127.0.0.1", "backup");
        config.port = 1;
        config.password = Some(SecretString::from("canary\nother"));
        let error = config.connect("shop").await.unwrap_err();
        assert!(matches!(error, Error::UnsafePassword), "{error:?}");
        let port = backup_core::error::PortError::from(error);
        assert_eq!(port.kind(), backup_core::error::ErrorKind::InvalidInput);
        assert!(port.hint().unwrap().contains("more than one line"));
    }

    #[test]
    fn children_get_the_name_and_the_password_by_environment_and_file() {
        let mut config = ConnectionConfig::new("db.example", "backup");
        config.password = Some(SecretString::from("canary"));
        let env = config
            .tool_env(
                "dbname=other",
                &[("statement_timeout", "0"), ("a.b", "x \\y")],
            )
            .unwrap();
        assert_eq!(value(&env, "PGDATABASE").unwrap(), "dbname=other");
        assert_eq!(
            value(&env, "PGOPTIONS").unwrap(),
            "-c statement_timeout=0 -c a.b=x\\ \\\\y"
        );
        assert!(!format!("{env:?}").contains("canary"));
        assert!(!format!("{config:?}").contains("canary"));
        let path = PathBuf::from(value(&env, "PGPASSFILE").unwrap());
        let copy = env.clone();
        drop(env);
        assert!(path.exists());
        drop(copy);
        assert!(!path.exists());
    }

    #[test]
    fn no_other_password_file_is_found() {
        let env = ConnectionConfig::new("/run/postgresql", "backup")
            .tool_env("shop", &[])
            .unwrap();
        assert_eq!(value(&env, "PGPASSFILE").unwrap(), NO_PASSFILE);
        assert_eq!(value(&env, "PGOPTIONS"), None);
        assert_eq!(value(&env, "HOME"), None);
    }

    #[test]
    fn variables_that_the_driver_would_add_are_refused() {
        let mut config = ConnectionConfig::new("/run/postgresql", "backup");
        assert_eq!(config.unwanted_variable(|_| false), None);
        let unwanted = config.unwanted_variable(|name| name == "PGOPTIONS");
        assert_eq!(unwanted, Some("PGOPTIONS"));
        let key_is_set = |name: &str| name == "PGSSLKEY";
        assert_eq!(config.unwanted_variable(key_is_set), Some("PGSSLKEY"));
        config.ssl_client_key = Some("/etc/key.pem".into());
        assert_eq!(config.unwanted_variable(key_is_set), None);
    }

    #[test]
    fn several_hosts_are_refused() {
        for host in ["", "a,b"] {
            let config = ConnectionConfig::new(host, "backup");
            assert!(config.tool_env("shop", &[]).is_err(), "{host}");
        }
    }

    #[test]
    fn sslmodes_parse() {
        assert_eq!(
            "verify-full".parse::<SslMode>().unwrap(),
            SslMode::VerifyFull
        );
        assert!("full".parse::<SslMode>().is_err());
    }
}
