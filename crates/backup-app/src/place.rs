//! Where backups live, from flags, variables or file.

use std::sync::Arc;

use backup_config::{DestinationConfig, Environment, SecretRef, names};
use backup_core::error::{ErrorKind, PortError};
use backup_core::store::Store;
use backup_store::{StoreConfig, StoreOptions};
use secrecy::SecretString;

use crate::error::AppError;

/// A destination with a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The configured name, or the URL when there is none.
    pub name: String,
    /// How to reach it.
    pub settings: DestinationConfig,
}

impl Place {
    /// A place that was given as a URL.
    #[must_use]
    pub fn from_url(url: &str) -> Self {
        Self {
            name: without_login(url),
            settings: DestinationConfig {
                url: url.to_owned(),
                ..DestinationConfig::default()
            },
        }
    }

    /// The place that `MINIO_BUCKET` and its like name, when nothing else is said.
    pub(crate) fn from_environment(environment: &Environment) -> Option<Self> {
        let bucket = environment.first(names::BUCKET)?;
        let path = environment.first(names::BUCKET_PATH).unwrap_or_default();
        let url = format!("s3://{bucket}/{}", path.trim_matches('/'));
        Some(Self::from_url(url.trim_end_matches('/')))
    }

    /// Connects, or rather: says how connections will be made.
    ///
    /// # Errors
    /// When URL or credentials make no sense; whether the place exists shows on first use.
    pub fn open(&self, environment: &Environment) -> Result<Arc<dyn Store>, AppError> {
        let operation = || format!("open destination {}", self.name);
        let options = self.options(environment)?;
        let mut config = StoreConfig::parse(&self.settings.url, &options)
            .map_err(|e| AppError::setup(operation(), e))?;
        if let Some(limit) = self.settings.retry_timeout {
            config.limits.retry_timeout = limit;
        }
        backup_store::open(&config).map_err(|e| AppError::setup(operation(), e))
    }

    /// Refuses a directory that is not there: a disk that is not mounted has no backups either,
    /// and must not look like an empty place.
    pub(crate) fn check_readable(&self, environment: &Environment) -> Result<(), AppError> {
        let operation = || format!("open destination {}", self.name);
        let options = self.options(environment)?;
        let config = StoreConfig::parse(&self.settings.url, &options)
            .map_err(|e| AppError::setup(operation(), e))?;
        match config.local_root() {
            Some(root) if !root.is_dir() => Err(AppError::setup(
                operation(),
                PortError::new(
                    ErrorKind::NotFound,
                    format!("there is no directory {}", root.display()),
                )
                .with_hint("is the disk mounted?"),
            )),
            _ => Ok(()),
        }
    }

    fn options(&self, environment: &Environment) -> Result<StoreOptions, AppError> {
        let settings = &self.settings;
        let variable = |names: &[&str]| environment.first(names).map(str::to_owned);
        let secret = |reference: &Option<SecretRef>, names: &[&str]| match reference {
            Some(reference) => reference.resolve(environment).map(Some),
            None => Ok(environment.first(names).map(SecretString::from)),
        };
        let endpoint = settings
            .endpoint
            .clone()
            .or_else(|| variable(names::ENDPOINT));
        let allow_http = variable(names::ALLOW_HTTP).map(|text| text == "true" || text == "1");
        Ok(StoreOptions {
            endpoint: endpoint.map(with_scheme),
            region: settings.region.clone().or_else(|| variable(names::REGION)),
            access_key_id: secret(&settings.access_key_id, names::ACCESS_KEY)?,
            secret_access_key: secret(&settings.secret_access_key, names::SECRET_KEY)?,
            // One from the environment belongs to a key from there.
            session_token: match (&settings.session_token, &settings.access_key_id) {
                (None, Some(_)) => None,
                (token, _) => secret(token, names::SESSION_TOKEN)?,
            },
            allow_http: settings.allow_http.or(allow_http).unwrap_or(false),
            virtual_hosted_style: settings.virtual_hosted_style.unwrap_or(false),
            checksum: settings.checksums.unwrap_or(true),
            ca_certificate: settings.ca_file.clone(),
        })
    }
}

/// A URL as it may be said: who puts a password into one is told so, without it.
fn without_login(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let host = host.rsplit('@').next().unwrap_or_default();
            format!("{scheme}://{host}{path}")
        }
        None => url.to_owned(),
    }
}

/// `MINIO_ENDPOINT` is often given as `host:9000`.
fn with_scheme(endpoint: String) -> String {
    if endpoint.contains("://") {
        endpoint
    } else {
        format!("http://{endpoint}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret as _;

    #[test]
    fn a_url_is_named_without_its_login() {
        for (url, named) in [
            ("s3://id:secret@bucket/prefix", "s3://bucket/prefix"),
            ("s3://id@bucket", "s3://bucket"),
            ("s3://id:se@cret@bucket/a", "s3://bucket/a"),
            ("s3://bucket/a@b", "s3://bucket/a@b"),
            ("file:///var/a@b", "file:///var/a@b"),
            ("/var/lib/a@b", "/var/lib/a@b"),
        ] {
            assert_eq!(Place::from_url(url).name, named, "{url}");
        }
    }

    #[test]
    fn a_session_token_goes_with_the_keys_that_it_came_with() {
        let environment: Environment = [
            ("AWS_ACCESS_KEY_ID", "their id"),
            ("AWS_SECRET_ACCESS_KEY", "their key"),
            ("AWS_SESSION_TOKEN", "their token"),
            ("OUR_ID", "our id"),
            ("OUR_KEY", "our key"),
            ("OUR_TOKEN", "our token"),
        ]
        .into_iter()
        .collect();
        let variable = |name: &str| Some(SecretRef::Env(name.to_owned()));
        let without_keys = DestinationConfig::default();
        let with_keys = DestinationConfig {
            access_key_id: variable("OUR_ID"),
            secret_access_key: variable("OUR_KEY"),
            ..DestinationConfig::default()
        };
        let with_all = DestinationConfig {
            session_token: variable("OUR_TOKEN"),
            ..with_keys.clone()
        };
        for (settings, id, token) in [
            (without_keys, "their id", Some("their token")),
            (with_keys, "our id", None),
            (with_all, "our id", Some("our token")),
        ] {
            let place = Place {
                name: "s3".to_owned(),
                settings,
            };
            let options = place.options(&environment).unwrap();
            let shown = |secret: &Option<SecretString>| {
                secret.as_ref().map(|s| s.expose_secret().to_owned())
            };
            assert_eq!(shown(&options.access_key_id).as_deref(), Some(id));
            assert_eq!(shown(&options.session_token).as_deref(), token, "{id}");
        }
    }
}
