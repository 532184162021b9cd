//! `[source.NAME] kind`: what is backed up, and which keys that has.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::file::SourceConfig;

/// What a source is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SourceKind {
    /// A database of PostgreSQL, or several.
    #[default]
    Postgres,
    /// A server of Redis.
    Redis,
    /// How a server of PostgreSQL is configured.
    ServerConfig,
}

impl SourceConfig {
    /// A key that this kind of source does not have, or lacks, and what is wrong with that.
    pub(crate) fn check_kind(&self) -> Result<(), (&'static str, String)> {
        let of_redis = [
            ("url", self.url.is_some()),
            ("user", self.user.is_some()),
            ("password", self.password.is_some()),
            ("ca_file", self.ca_file.is_some()),
            ("cert_file", self.cert_file.is_some()),
            ("key_file", self.key_file.is_some()),
            ("bin_dir", self.bin_dir.is_some()),
        ];
        let of_databases = [
            ("database", self.database.is_some()),
            ("databases", self.is_family()),
            ("schemas", !self.schemas.is_empty()),
            ("exclude_schemas", !self.exclude_schemas.is_empty()),
            ("tables", !self.tables.is_empty()),
            ("exclude_tables", !self.exclude_tables.is_empty()),
        ];
        let said = |keys: &[(&'static str, bool)]| {
            let found = keys.iter().find(|(_, said)| *said);
            found.map(|(key, _)| *key)
        };
        let (strange, hint) = match self.kind {
            SourceKind::Postgres => (
                said(&of_redis),
                "only a source of kind = \"redis\" has it; of PostgreSQL, [server.NAME] says it",
            ),
            SourceKind::Redis => {
                if self.url.is_none() {
                    let message = "a source of kind = \"redis\" needs it: \"redis://HOST:PORT\"";
                    return Err(("url", message.to_owned()));
                }
                let server = self.server.is_some().then_some("server");
                let strange = server.or(said(&of_databases));
                (strange, "a source of kind = \"redis\" has no such thing")
            }
            SourceKind::ServerConfig => (
                said(&of_redis).or(said(&of_databases)),
                "a source of kind = \"server-config\" has no such thing",
            ),
        };
        match strange {
            Some(key) => Err((key, hint.to_owned())),
            None => Ok(()),
        }
    }
}
