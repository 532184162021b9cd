//! What store is meant, from a URL and options.

use std::path::{Component, Path, PathBuf};

use backup_core::error::{ErrorKind, PortError};
use backup_core::store::StoreKey;
use secrecy::SecretString;
use url::{Host, Url};

use crate::limits::Limits;

/// A store and how to use it. `Debug` prints no secret.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// Where it is.
    pub location: Location,
    /// Sizes and times.
    pub limits: Limits,
}

/// Where a store is.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Location {
    /// A directory.
    Local {
        /// Its absolute path.
        root: PathBuf,
    },
    /// A bucket that speaks S3.
    S3(Box<S3Config>),
}

/// A bucket that speaks S3.
#[derive(Debug, Clone)]
pub struct S3Config {
    /// The bucket.
    pub bucket: String,
    /// What all keys begin with.
    pub prefix: Option<StoreKey>,
    /// The server; AWS when absent.
    pub endpoint: Option<Url>,
    /// The region.
    pub region: String,
    /// The public half of the credentials.
    pub access_key_id: SecretString,
    /// The secret half of the credentials.
    pub secret_access_key: SecretString,
    /// The third part of temporary credentials.
    pub session_token: Option<SecretString>,
    /// The bucket is in the host name instead of the path.
    pub virtual_hosted_style: bool,
    /// A SHA-256 goes with every upload; buckets with object lock ask for it.
    pub checksum: bool,
    /// PEM certificates to trust beside the system's.
    pub ca_certificate: Option<PathBuf>,
}

/// What a URL does not say. `Debug` prints no secret.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// The server's URL; AWS when absent.
    pub endpoint: Option<String>,
    /// The region; `us-east-1` when absent.
    pub region: Option<String>,
    /// The public half of the credentials.
    pub access_key_id: Option<SecretString>,
    /// The secret half of the credentials.
    pub secret_access_key: Option<SecretString>,
    /// The third part of temporary credentials.
    pub session_token: Option<SecretString>,
    /// Allow an endpoint without TLS that is not on this host.
    pub allow_http: bool,
    /// The bucket is in the host name instead of the path.
    pub virtual_hosted_style: bool,
    /// Send a SHA-256 with every upload; on unless switched off for a server that refuses.
    pub checksum: bool,
    /// A file of PEM certificates to trust beside the system's.
    pub ca_certificate: Option<PathBuf>,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            endpoint: None,
            region: None,
            access_key_id: None,
            secret_access_key: None,
            session_token: None,
            allow_http: false,
            virtual_hosted_style: false,
            checksum: true,
            ca_certificate: None,
        }
    }
}

fn invalid(message: impl Into<String>) -> PortError {
    PortError::new(ErrorKind::InvalidInput, message)
}

impl StoreConfig {
    /// Reads `file:///directory`, an absolute path, or `s3://bucket/prefix`.
    ///
    /// # Errors
    /// `InvalidInput` for anything else, for credentials in a URL, for missing credentials, and
    /// for a plain `http` endpoint on another host without [`StoreOptions::allow_http`].
    pub fn parse(url: &str, options: &StoreOptions) -> Result<Self, PortError> {
        let location = if url.starts_with('/') {
            local(Path::new(url))?
        } else {
            match url.split_once("://").map(|(scheme, _)| scheme) {
                Some("file") => local(&file_path(url)?)?,
                Some("s3") => Location::S3(Box::new(s3(url, options)?)),
                Some(scheme @ ("gs" | "az" | "azure" | "abfs" | "abfss")) => {
                    return Err(
                        invalid(format!("stores of {scheme}:// are not supported yet"))
                            .with_hint("use file:///directory or s3://bucket/prefix"),
                    );
                }
                _ => {
                    return Err(invalid("the store is neither a URL nor an absolute path")
                        .with_hint("use file:///directory or s3://bucket/prefix"));
                }
            }
        };
        Ok(Self {
            location,
            limits: Limits::default(),
        })
    }

    /// The directory of a local store, for a look at its free space.
    #[must_use]
    pub fn local_root(&self) -> Option<&Path> {
        match &self.location {
            Location::Local { root } => Some(root),
            Location::S3(_) => None,
        }
    }
}

fn file_path(url: &str) -> Result<PathBuf, PortError> {
    let bad = || invalid("the file URL names no absolute path of this host");
    let parsed = Url::parse(url).map_err(|_| bad())?;
    if parsed.query().is_some() || parsed.fragment().is_some() {
        return Err(bad().with_hint("write # and ? in a path as %23 and %3F"));
    }
    parsed.to_file_path().map_err(|()| bad())
}

fn local(path: &Path) -> Result<Location, PortError> {
    let plain = |c: &Component<'_>| matches!(c, Component::RootDir | Component::Normal(_));
    if !path.components().all(|c| plain(&c)) || path.parent().is_none() {
        return Err(invalid(format!(
            "{} cannot be the directory of a store",
            path.display()
        )));
    }
    Ok(Location::Local {
        // Without a trailing slash and the like.
        root: path.components().collect(),
    })
}

fn s3(url: &str, options: &StoreOptions) -> Result<S3Config, PortError> {
    let parsed = Url::parse(url).map_err(|_| invalid("the s3 URL cannot be read"))?;
    refuse_credentials(&parsed, "the s3 URL")?;
    let bucket = parsed.host_str().filter(|_| parsed.port().is_none());
    let bucket = bucket.ok_or_else(|| invalid("the s3 URL names no bucket"))?;
    let prefix = parsed.path().trim_matches('/');
    let prefix = (!prefix.is_empty())
        .then(|| StoreKey::new(prefix))
        .transpose()
        .map_err(|e| {
            invalid("the prefix in the s3 URL has characters that keys cannot have").with_source(e)
        })?;
    let (Some(access_key_id), Some(secret_access_key)) =
        (&options.access_key_id, &options.secret_access_key)
    else {
        return Err(invalid(format!("no credentials for s3://{bucket}"))
            .with_hint("set both the access key id and the secret access key"));
    };
    let endpoint = options.endpoint.as_deref();
    Ok(S3Config {
        bucket: bucket.to_owned(),
        prefix,
        endpoint: endpoint
            .map(|e| parse_endpoint(e, options.allow_http))
            .transpose()?,
        region: options
            .region
            .clone()
            .unwrap_or_else(|| "us-east-1".to_owned()),
        access_key_id: access_key_id.clone(),
        secret_access_key: secret_access_key.clone(),
        session_token: options.session_token.clone(),
        virtual_hosted_style: options.virtual_hosted_style,
        checksum: options.checksum,
        ca_certificate: options.ca_certificate.clone(),
    })
}

/// The text is never repeated in an error: a password could be anywhere in it.
fn refuse_credentials(url: &Url, what: &str) -> Result<(), PortError> {
    if !url.username().is_empty() || url.password().is_some() {
        return Err(invalid(format!("{what} must not contain credentials")));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(invalid(format!("{what} must not have ? or # in it")));
    }
    Ok(())
}

fn parse_endpoint(text: &str, allow_http: bool) -> Result<Url, PortError> {
    let url = Url::parse(text).map_err(|_| {
        invalid("the s3 endpoint is no URL").with_hint("write it as https://host:port")
    })?;
    refuse_credentials(&url, "the s3 endpoint")?;
    match url.scheme() {
        "https" => Ok(url),
        "http" if allow_http || is_loopback(&url) => Ok(url),
        "http" => Err(PortError::new(
            ErrorKind::Refused,
            "the s3 endpoint is not encrypted and not on this host",
        )
        .with_hint("use https, or allow http if the network is trusted")),
        _ => Err(invalid("the s3 endpoint is neither http nor https")),
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_keys() -> StoreOptions {
        StoreOptions {
            access_key_id: Some("canary-id".into()),
            secret_access_key: Some("canary-secret".into()),
            session_token: Some("canary-token".into()),
            ..StoreOptions::default()
        }
    }

    fn s3_of(url: &str, options: &StoreOptions) -> Result<S3Config, PortError> {
        StoreConfig::parse(url, options).map(|config| match config.location {
            Location::S3(s3) => *s3,
            Location::Local { .. } => panic!("{url} is local"),
        })
    }

    #[test]
    fn directories() {
        for (url, root) in [
            ("/var/backups", "/var/backups"),
            ("/var/backups/", "/var/backups"),
            ("file:///var/backups/", "/var/backups"),
            ("file:///with%20space", "/with space"),
            ("/with space #1", "/with space #1"),
        ] {
            let config = StoreConfig::parse(url, &StoreOptions::default()).unwrap();
            assert_eq!(config.local_root(), Some(Path::new(root)), "{url}");
        }
        for bad in [
            "",
            "/",
            "relative",
            "./x",
            "file:///",
            "file://host/x",
            "/a/../b",
            "file:///a#b",
        ] {
            let outcome = StoreConfig::parse(bad, &StoreOptions::default());
            assert_eq!(
                outcome.unwrap_err().kind(),
                ErrorKind::InvalidInput,
                "{bad:?}"
            );
        }
    }

    #[test]
    fn buckets() {
        let plain = s3_of("s3://bucket", &with_keys()).unwrap();
        assert_eq!((plain.bucket.as_str(), plain.prefix), ("bucket", None));
        assert_eq!(plain.region, "us-east-1");
        let deep = s3_of("s3://bucket/team/app/", &with_keys()).unwrap();
        assert_eq!(deep.prefix.unwrap().as_str(), "team/app");
        for bad in [
            "s3://",
            "s3:///x",
            "s3://b/a//b",
            "s3://b/a%20b",
            "s3://id:pw@b",
            "s3://b?x=1",
        ] {
            let outcome = s3_of(bad, &with_keys());
            assert_eq!(
                outcome.unwrap_err().kind(),
                ErrorKind::InvalidInput,
                "{bad}"
            );
        }
        let outcome = s3_of("s3://bucket", &StoreOptions::default());
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::InvalidInput);
    }

    #[test]
    fn unencrypted_endpoints_must_be_asked_for() {
        for (endpoint, allow_http, good) in [
            ("https://s3.example.org", false, true),
            ("http://127.0.0.1:9000", false, true),
            ("http://localhost:9000", false, true),
            ("http://[::1]:9000", false, true),
            ("http://10.0.0.5:9000", false, false),
            ("http://minio:9000", false, false),
            ("http://minio:9000", true, true),
            ("http://localhost.example.org", false, false),
            ("ftp://minio", true, false),
            ("minio:9000", true, false),
            ("https://id:pw@minio", true, false),
        ] {
            let options = StoreOptions {
                endpoint: Some(endpoint.to_owned()),
                allow_http,
                ..with_keys()
            };
            assert_eq!(
                s3_of("s3://b", &options).is_ok(),
                good,
                "{endpoint} {allow_http}"
            );
        }
    }

    #[test]
    fn later_stores_are_refused_politely() {
        for url in ["gs://bucket", "az://container"] {
            let error = StoreConfig::parse(url, &with_keys()).unwrap_err();
            assert!(error.to_string().contains("not supported yet"), "{error}");
        }
    }

    #[test]
    fn secrets_are_never_printed() {
        let options = with_keys();
        let config = StoreConfig::parse("s3://bucket/prefix", &options).unwrap();
        let store = crate::open(&config).unwrap();
        for text in [
            format!("{options:?}"),
            format!("{config:#?}"),
            format!("{store:#?}"),
            store.describe(),
        ] {
            assert!(!text.contains("canary"), "{text}");
        }
        let mut inside = with_keys();
        inside.endpoint = Some("https://user:canary@host".to_owned());
        for (url, options) in [
            ("s3://user:canary@bucket", with_keys()),
            ("s3://b", inside),
            ("canary", with_keys()),
        ] {
            let error = StoreConfig::parse(url, &options).unwrap_err();
            assert!(
                !format!("{error:?} {error}").contains("canary"),
                "{error:?}"
            );
        }
    }
}
