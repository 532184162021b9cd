//! From the configuration to a Redis server.

use std::path::PathBuf;

use backup_config::{Config, SourceConfig, names};
use backup_redis_process::{RedisConnection, RedisDrill, RedisDrillConfig, RedisTools};

use crate::compose::App;
use crate::error::AppError;
use crate::values::WrongValue;

/// What sources of Redis are called where others have the name of their database.
pub(crate) const DATABASE: &str = "redis";

impl App {
    /// The server of a source.
    ///
    /// # Errors
    /// When its settings make no sense, or its password cannot be fetched.
    pub(crate) fn redis_connection(
        &self,
        source: &SourceConfig,
    ) -> Result<RedisConnection, AppError> {
        let url = source.url.as_deref().unwrap_or_default();
        let mut connection = RedisConnection::parse(url).map_err(AppError::usage)?;
        if let Some(user) = &source.user {
            connection.user = Some(user.clone());
        }
        let password = source.password.as_ref();
        connection.password = password
            .map(|p| p.resolve(self.environment()))
            .transpose()?;
        if let Some(tls) = &mut connection.tls {
            tls.ca_file.clone_from(&source.ca_file);
            tls.cert_file.clone_from(&source.cert_file);
            tls.key_file.clone_from(&source.key_file);
        }
        Ok(connection)
    }

    /// Where the programs are.
    pub(crate) fn redis_tools(&self, source: Option<&SourceConfig>) -> RedisTools {
        let path = self.environment().get(names::PATH).unwrap_or_default();
        let directories = path.split(':').filter(|d| !d.is_empty()).map(PathBuf::from);
        RedisTools {
            bin_dir: source.and_then(|source| source.bin_dir.clone()),
            search_path: directories.collect(),
        }
    }

    /// Where its backups are rehearsed.
    pub(crate) fn redis_drill(&self, source: &str) -> RedisDrill {
        RedisDrill::new(RedisDrillConfig {
            tools: self.redis_tools(self.config().settings_of(source)),
            directory: self.config().drill.directory.clone(),
        })
    }
}

/// Refuses what is no address of a server, and certificates where there is no TLS.
pub(crate) fn check(config: &Config) -> Result<(), WrongValue> {
    for (name, source) in &config.source {
        let Some(url) = &source.url else {
            continue;
        };
        let connection = RedisConnection::parse(url)
            .map_err(|message| WrongValue::new(&["source", name, "url"], message))?;
        let files = [
            ("ca_file", &source.ca_file),
            ("cert_file", &source.cert_file),
            ("key_file", &source.key_file),
        ];
        let said = files.iter().find(|(_, file)| file.is_some());
        if let (None, Some((key, _))) = (&connection.tls, said) {
            let message = "certificates are for a rediss:// URL: this one has no TLS";
            return Err(WrongValue::new(&["source", name, key], message));
        }
    }
    Ok(())
}
