//! `[server_http]` and `[[access]]`: the server, and who may do what.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// `[server_http]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HttpConfig {
    /// Address and port.
    #[schemars(with = "String")]
    pub listen: SocketAddr,
    /// The server's certificate, with those that lead to it, as PEM.
    pub tls_cert: Option<PathBuf>,
    /// Its private key, as PEM.
    pub tls_key: Option<PathBuf>,
    /// Whether a proxy in front of it speaks TLS, so that it may listen to others without.
    pub behind_tls_proxy: bool,
    /// Whether `/metrics` answers everybody.
    pub metrics: bool,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8000)),
            tls_cert: None,
            tls_key: None,
            behind_tls_proxy: false,
            metrics: false,
        }
    }
}

impl HttpConfig {
    /// Refuses what would send tokens in the clear.
    ///
    /// # Errors
    /// The key that is wrong, and why.
    pub fn check(&self) -> Result<(), (&'static str, &'static str)> {
        match (&self.tls_cert, &self.tls_key) {
            (Some(_), None) => Err(("tls_cert", "needs a tls_key beside it")),
            (None, Some(_)) => Err(("tls_key", "needs a tls_cert beside it")),
            (None, None) if !self.listen.ip().is_loopback() && !self.behind_tls_proxy => Err((
                "listen",
                "others can reach this address, and tokens would cross the network in the clear: \
                 say tls_cert and tls_key, or behind_tls_proxy = true, or a loopback address",
            )),
            _ => Ok(()),
        }
    }
}

/// One of `[[access]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AccessConfig {
    /// Who, in logs and records.
    pub name: String,
    /// The SHA-256 of the token, in hexadecimal. It cannot be turned back.
    pub token_sha256: String,
    /// What he may do.
    pub role: Role,
    /// Names of sources, with `*` for any characters.
    pub sources: Vec<String>,
}

impl AccessConfig {
    /// The entry as it stands in the file.
    ///
    /// # Errors
    /// When the file would be refused for it.
    pub fn to_toml(&self) -> Result<String, Error> {
        let refused = |message: String| Error::Invalid {
            message,
            suggestion: None,
        };
        check_access(std::slice::from_ref(self))
            .map_err(|(_, key, message)| refused(format!("{key}: {message}")))?;
        let file = BTreeMap::from([("access", [self])]);
        toml::to_string(&file).map_err(|e| refused(e.to_string()))
    }
}

/// What somebody may do: each may what those before may.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// See what there is.
    Viewer,
    /// Restore it beside what is in use.
    Restorer,
    /// Run backups, drills and verifications.
    Operator,
    /// Take away what protects backups.
    Admin,
}

impl Role {
    /// All of them, the least first.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Restorer, Self::Operator, Self::Admin];

    /// Its name in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Restorer => "restorer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

/// What schedules are called where people have names.
pub const SCHEDULE: &str = "schedule";

/// What stands before the number of somebody who asks by way of the bot.
pub const TELEGRAM: &str = "telegram:";

/// Which entry is wrong, which of its keys, and why.
pub(crate) type WrongAccess = (usize, &'static str, &'static str);

/// Refuses entries that would let in nobody, or somebody else.
pub(crate) fn check_access(entries: &[AccessConfig]) -> Result<(), WrongAccess> {
    let (mut names, mut tokens) = (BTreeSet::new(), BTreeSet::new());
    for (index, entry) in entries.iter().enumerate() {
        let token = entry.token_sha256.to_ascii_lowercase();
        let is_hash = token.len() == 64 && token.bytes().all(|byte| byte.is_ascii_hexdigit());
        let wrong = if entry.name.trim().is_empty() {
            Some(("name", "must not be empty"))
        } else if entry.name == SCHEDULE {
            Some(("name", "is what schedules are called; choose another one"))
        } else if entry.name.starts_with(TELEGRAM) {
            Some((
                "name",
                "is what people of the bot are called; choose another one",
            ))
        } else if !names.insert(&entry.name) {
            Some(("name", "must be another one than before"))
        } else if !is_hash {
            Some((
                "token_sha256",
                "expected 64 hexadecimal digits, as `backup-cli token` prints them",
            ))
        } else if !tokens.insert(token) {
            Some(("token_sha256", "must be another one than before"))
        } else if entry.sources.is_empty() {
            Some(("sources", "must name a source, or be [\"*\"] for all"))
        } else {
            None
        };
        if let Some((key, message)) = wrong {
            return Err((index, key, message));
        }
    }
    Ok(())
}
