//! What store is meant, from a URL and options.

use std::collections::BTreeMap;
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
    /// A bucket, or what the service calls a container.
    Bucket(Box<BucketConfig>),
}

/// A bucket of some service.
#[derive(Debug, Clone)]
pub struct BucketConfig {
    /// Whose, and what only that service asks for.
    pub service: Service,
    /// The bucket.
    pub bucket: String,
    /// What all keys begin with.
    pub prefix: Option<StoreKey>,
    /// The server; that of the service when absent.
    pub endpoint: Option<Url>,
    /// PEM certificates to trust beside the system's.
    pub ca_certificate: Option<PathBuf>,
    /// Where the service puts the parts of backups, in its own words.
    pub storage_class: Option<String>,
    /// What every object is marked with.
    pub tags: BTreeMap<String, String>,
}

/// Who keeps a bucket.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Service {
    /// Amazon, or who speaks its protocol.
    S3(S3Config),
    /// Google Cloud Storage.
    Gcs(GcsConfig),
    /// Azure Blob Storage.
    Azure(AzureConfig),
}

/// What S3 asks for.
#[derive(Debug, Clone)]
pub struct S3Config {
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
    /// What the server encrypts with.
    pub encryption: ServerEncryption,
}

/// What an S3 server encrypts objects with before it stores them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ServerEncryption {
    /// Whatever the bucket says.
    #[default]
    Default,
    /// `AES256`: with a key of the server's.
    Aes256,
    /// `aws:kms`: with this key of the key service, or the account's own.
    Kms(Option<String>),
}

/// What Google asks for.
#[derive(Debug, Clone)]
pub struct GcsConfig {
    /// The key of a service account, as JSON.
    pub service_account: SecretString,
}

/// What Azure asks for.
#[derive(Debug, Clone)]
pub struct AzureConfig {
    /// The storage account.
    pub account: String,
    /// What proves who asks.
    pub credential: AzureCredential,
}

/// What proves to Azure who asks.
#[derive(Debug, Clone)]
pub enum AzureCredential {
    /// A key of the account, which may do everything.
    AccessKey(SecretString),
    /// A shared access signature, which may do what it says until it ends.
    SasToken(SecretString),
}

/// What a URL does not say. `Debug` prints no secret.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// The server's URL; that of the service when absent.
    pub endpoint: Option<String>,
    /// Allow an endpoint without TLS that is not on this host.
    pub allow_http: bool,
    /// A file of PEM certificates to trust beside the system's.
    pub ca_certificate: Option<PathBuf>,
    /// Where the service puts the parts of backups. What is read to list them stays in the
    /// bucket's own class.
    pub storage_class: Option<String>,
    /// S3 and Azure: what every object is marked with.
    pub tags: BTreeMap<String, String>,
    /// S3: the region; `us-east-1` when absent.
    pub region: Option<String>,
    /// S3: the public half of the credentials.
    pub access_key_id: Option<SecretString>,
    /// S3: the secret half of the credentials.
    pub secret_access_key: Option<SecretString>,
    /// S3: the third part of temporary credentials.
    pub session_token: Option<SecretString>,
    /// S3: the bucket is in the host name instead of the path.
    pub virtual_hosted_style: bool,
    /// S3: send a SHA-256 with every upload; on unless switched off for a server that refuses.
    pub checksum: bool,
    /// S3: `AES256` or `aws:kms`.
    pub sse: Option<String>,
    /// S3: which key of the key service.
    pub sse_kms_key_id: Option<String>,
    /// Google: the key of a service account, as JSON.
    pub service_account: Option<SecretString>,
    /// Azure: the storage account.
    pub account: Option<String>,
    /// Azure: a key of the account.
    pub access_key: Option<SecretString>,
    /// Azure: a shared access signature.
    pub sas_token: Option<SecretString>,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            endpoint: None,
            allow_http: false,
            ca_certificate: None,
            storage_class: None,
            tags: BTreeMap::new(),
            region: None,
            access_key_id: None,
            secret_access_key: None,
            session_token: None,
            virtual_hosted_style: false,
            checksum: true,
            sse: None,
            sse_kms_key_id: None,
            service_account: None,
            account: None,
            access_key: None,
            sas_token: None,
        }
    }
}

/// What stores there are, for who named none of them.
const FORMS: &str =
    "use file:///directory, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix";

/// Which kind of store a URL names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// A directory of this host.
    Local,
    /// `s3://`
    S3,
    /// `gs://`
    Gcs,
    /// `az://`
    Azure,
}

impl Scheme {
    /// The kind that `url` names.
    ///
    /// # Errors
    /// `InvalidInput` when it is none.
    pub fn of(url: &str) -> Result<Self, PortError> {
        if url.starts_with('/') {
            return Ok(Self::Local);
        }
        match url.split_once("://").map(|(scheme, _)| scheme) {
            Some("file") => Ok(Self::Local),
            Some("s3") => Ok(Self::S3),
            Some("gs") => Ok(Self::Gcs),
            Some("az" | "azure") => Ok(Self::Azure),
            Some("abfs" | "abfss" | "wasb" | "wasbs") => {
                Err(invalid("the store's URL is in the form of Hadoop")
                    .with_hint("write it as az://container/prefix, and set the account beside it"))
            }
            // A word before the `://` is no secret.
            Some(other) if other.chars().all(|c| c.is_ascii_alphanumeric()) => {
                Err(invalid(format!("there are no stores at {other}:// URLs")).with_hint(FORMS))
            }
            _ => Err(invalid("the store is neither a URL nor an absolute path").with_hint(FORMS)),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Local => "file",
            Self::S3 => "s3",
            Self::Gcs => "gs",
            Self::Azure => "az",
        }
    }
}

fn invalid(message: impl Into<String>) -> PortError {
    PortError::new(ErrorKind::InvalidInput, message)
}

impl StoreConfig {
    /// Reads `file:///directory`, an absolute path, `s3://bucket/prefix`, `gs://bucket/prefix` or
    /// `az://container/prefix`.
    ///
    /// # Errors
    /// `InvalidInput` for anything else, for credentials in a URL, for missing credentials, for
    /// options that this kind of store does not have, and for a plain `http` endpoint on another
    /// host without [`StoreOptions::allow_http`].
    pub fn parse(url: &str, options: &StoreOptions) -> Result<Self, PortError> {
        let scheme = Scheme::of(url)?;
        options.check(scheme)?;
        let location = match scheme {
            Scheme::Local if url.starts_with('/') => local(Path::new(url))?,
            Scheme::Local => local(&file_path(url)?)?,
            _ => Location::Bucket(Box::new(bucket(url, scheme, options)?)),
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
            Location::Bucket(_) => None,
        }
    }
}

impl BucketConfig {
    /// The URL without anything secret.
    #[must_use]
    pub(crate) fn describe(&self) -> String {
        let scheme = match self.service {
            Service::S3(_) => Scheme::S3,
            Service::Gcs(_) => Scheme::Gcs,
            Service::Azure(_) => Scheme::Azure,
        };
        let (scheme, bucket) = (scheme.name(), &self.bucket);
        match &self.prefix {
            Some(prefix) => format!("{scheme}://{bucket}/{prefix}"),
            None => format!("{scheme}://{bucket}"),
        }
    }
}

impl StoreOptions {
    /// Refuses what would be silently left out: who asks for encryption must get it or be told.
    fn check(&self, scheme: Scheme) -> Result<(), PortError> {
        use Scheme::{Azure, Gcs, S3};
        let given = [
            (
                "storage_class",
                self.storage_class.is_some(),
                &[S3, Gcs, Azure][..],
            ),
            ("tags", !self.tags.is_empty(), &[S3, Azure]),
            ("sse", self.sse.is_some(), &[S3]),
            ("sse_kms_key_id", self.sse_kms_key_id.is_some(), &[S3]),
            ("session_token", self.session_token.is_some(), &[S3]),
            ("service_account", self.service_account.is_some(), &[Gcs]),
            ("account", self.account.is_some(), &[Azure]),
            ("access_key", self.access_key.is_some(), &[Azure]),
            ("sas_token", self.sas_token.is_some(), &[Azure]),
        ];
        let foreign = given
            .into_iter()
            .find(|(_, given, schemes)| *given && !schemes.contains(&scheme));
        match foreign {
            Some((key, ..)) => Err(invalid(format!(
                "a store of {}:// has no {key}",
                scheme.name()
            ))),
            None => Ok(()),
        }
    }
}

fn file_path(url: &str) -> Result<PathBuf, PortError> {
    let bad = || invalid("the file URL names no absolute path of this host");
    let parsed = Url::parse(url).map_err(|_| bad())?;
    if parsed.query().is_some() || parsed.fragment().is_some() {
        return Err(bad().with_hint("write # and ? in a path as %23 and %3F"));
    }
    parsed.to_file_path().map_err(|()| {
        bad().with_hint("a directory of this host has three slashes: file:///srv/backups")
    })
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

fn bucket(url: &str, scheme: Scheme, options: &StoreOptions) -> Result<BucketConfig, PortError> {
    let what = format!("the {} URL", scheme.name());
    let parsed = Url::parse(url).map_err(|_| invalid(format!("{what} cannot be read")))?;
    refuse_credentials(&parsed, &what)?;
    let bucket = parsed.host_str().filter(|_| parsed.port().is_none());
    let bucket = bucket.ok_or_else(|| invalid(format!("{what} names no bucket")))?;
    let prefix = parsed.path().trim_matches('/');
    let prefix = (!prefix.is_empty())
        .then(|| StoreKey::new(prefix))
        .transpose()
        .map_err(|e| {
            invalid(format!(
                "the prefix in {what} has characters that keys cannot have"
            ))
            .with_source(e)
        })?;
    let missing = |hint: &'static str| {
        invalid(format!("no credentials for {}://{bucket}", scheme.name())).with_hint(hint)
    };
    let service = match scheme {
        Scheme::Gcs => gcs(options).map_err(missing)?,
        Scheme::Azure => azure(options).map_err(missing)?,
        _ => s3(options, missing)?,
    };
    let endpoint = options.endpoint.as_deref();
    Ok(BucketConfig {
        service,
        bucket: bucket.to_owned(),
        prefix,
        endpoint: endpoint
            .map(|e| parse_endpoint(e, options.allow_http))
            .transpose()?,
        ca_certificate: options.ca_certificate.clone(),
        storage_class: options.storage_class.clone(),
        tags: options.tags.clone(),
    })
}

fn s3(
    options: &StoreOptions,
    missing: impl FnOnce(&'static str) -> PortError,
) -> Result<Service, PortError> {
    let (Some(access_key_id), Some(secret_access_key)) =
        (&options.access_key_id, &options.secret_access_key)
    else {
        return Err(missing(
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or access_key_id and \
             secret_access_key of the destination; the variables are not looked at for one that \
             has a key or an endpoint of its own",
        ));
    };
    let region = options.region.clone();
    Ok(Service::S3(S3Config {
        region: region.unwrap_or_else(|| "us-east-1".to_owned()),
        access_key_id: access_key_id.clone(),
        secret_access_key: secret_access_key.clone(),
        session_token: options.session_token.clone(),
        virtual_hosted_style: options.virtual_hosted_style,
        checksum: options.checksum,
        encryption: encryption(options)?,
    }))
}

fn encryption(options: &StoreOptions) -> Result<ServerEncryption, PortError> {
    match (options.sse.as_deref(), &options.sse_kms_key_id) {
        (None, None) => Ok(ServerEncryption::Default),
        (Some("AES256"), None) => Ok(ServerEncryption::Aes256),
        (Some("aws:kms"), key) => Ok(ServerEncryption::Kms(key.clone())),
        (None | Some("AES256"), Some(_)) => Err(invalid("sse_kms_key_id needs sse = \"aws:kms\"")),
        (Some(_), _) => Err(invalid("sse is neither AES256 nor aws:kms")),
    }
}

fn gcs(options: &StoreOptions) -> Result<Service, &'static str> {
    let service_account = options.service_account.clone();
    let service_account = service_account.ok_or(
        "set service_account to the JSON key of a service account, or \
         GOOGLE_APPLICATION_CREDENTIALS to its file",
    )?;
    Ok(Service::Gcs(GcsConfig { service_account }))
}

fn azure(options: &StoreOptions) -> Result<Service, &'static str> {
    let account = options.account.clone();
    let account = account
        .ok_or("set account to the storage account's name, or AZURE_STORAGE_ACCOUNT_NAME")?;
    let credential = match (&options.access_key, &options.sas_token) {
        (Some(key), None) => AzureCredential::AccessKey(key.clone()),
        (None, Some(token)) => AzureCredential::SasToken(token.clone()),
        _ => {
            return Err(
                "set either access_key or sas_token; as variables, AZURE_STORAGE_ACCOUNT_KEY or \
                 AZURE_STORAGE_SAS_TOKEN",
            );
        }
    };
    Ok(Service::Azure(AzureConfig {
        account,
        credential,
    }))
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
        invalid("the endpoint is no URL").with_hint("write it as https://host:port")
    })?;
    refuse_credentials(&url, "the endpoint")?;
    match url.scheme() {
        "https" => Ok(url),
        "http" if allow_http || is_loopback(&url) => Ok(url),
        "http" => Err(PortError::new(
            ErrorKind::Refused,
            "the endpoint is not encrypted and not on this host",
        )
        .with_hint("use https, or allow http if the network is trusted")),
        _ => Err(invalid("the endpoint is neither http nor https")),
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

    fn bucket_of(url: &str, options: &StoreOptions) -> Result<BucketConfig, PortError> {
        StoreConfig::parse(url, options).map(|config| match config.location {
            Location::Bucket(bucket) => *bucket,
            Location::Local { .. } => panic!("{url} is local"),
        })
    }

    fn google() -> StoreOptions {
        StoreOptions {
            service_account: Some("canary-json".into()),
            ..StoreOptions::default()
        }
    }

    fn azure_with(key: Option<&str>, sas: Option<&str>) -> StoreOptions {
        StoreOptions {
            account: Some("shop".to_owned()),
            access_key: key.map(Into::into),
            sas_token: sas.map(Into::into),
            ..StoreOptions::default()
        }
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
        let plain = bucket_of("s3://bucket", &with_keys()).unwrap();
        assert_eq!((plain.bucket.as_str(), plain.prefix), ("bucket", None));
        assert!(matches!(plain.service, Service::S3(s3) if s3.region == "us-east-1"));
        let deep = bucket_of("s3://bucket/team/app/", &with_keys()).unwrap();
        assert_eq!(deep.prefix.unwrap().as_str(), "team/app");
        for bad in [
            "s3://",
            "s3:///x",
            "s3://b/a//b",
            "s3://b/a%20b",
            "s3://id:pw@b",
            "s3://b?x=1",
        ] {
            let outcome = bucket_of(bad, &with_keys());
            assert_eq!(
                outcome.unwrap_err().kind(),
                ErrorKind::InvalidInput,
                "{bad}"
            );
        }
        let outcome = bucket_of("s3://bucket", &StoreOptions::default());
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
                bucket_of("s3://b", &options).is_ok(),
                good,
                "{endpoint} {allow_http}"
            );
        }
    }

    #[test]
    fn buckets_of_google_and_containers_of_azure() {
        let (key, sas) = (Some("canary-key"), Some("canary-sas"));
        for (url, options, described) in [
            ("gs://bucket/team/app", google(), "gs://bucket/team/app"),
            ("gs://my.bucket_1/", google(), "gs://my.bucket_1"),
            ("az://box/team", azure_with(key, None), "az://box/team"),
            ("azure://box", azure_with(None, sas), "az://box"),
        ] {
            let found = bucket_of(url, &options).unwrap();
            assert_eq!(found.describe(), described);
            assert!(!format!("{found:?}").contains("canary"));
        }
        for (url, options, hint) in [
            ("gs://bucket", StoreOptions::default(), "service_account"),
            ("az://box", StoreOptions::default(), "account"),
            ("az://box", azure_with(None, None), "sas_token"),
            ("az://box", azure_with(key, sas), "either"),
            (
                "abfs://box@account.dfs.core.windows.net/a",
                azure_with(key, None),
                "az://",
            ),
            ("ftp://box", StoreOptions::default(), "gs://"),
            ("file://tmp", StoreOptions::default(), "file:///"),
        ] {
            let error = StoreConfig::parse(url, &options).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{url}");
            assert!(error.hint().unwrap().contains(hint), "{url}: {error:?}");
        }
    }

    #[test]
    fn what_a_store_does_not_have_is_refused() {
        let tags = BTreeMap::from([("team".to_owned(), "shop".to_owned())]);
        let sse = Some("AES256".to_owned());
        for (url, options, key) in [
            (
                "gs://b",
                StoreOptions {
                    tags: tags.clone(),
                    ..google()
                },
                "tags",
            ),
            (
                "gs://b",
                StoreOptions {
                    sse: sse.clone(),
                    ..google()
                },
                "sse",
            ),
            (
                "az://b",
                StoreOptions {
                    sse,
                    ..azure_with(Some("k"), None)
                },
                "sse",
            ),
            (
                "/var/backups",
                StoreOptions {
                    tags,
                    ..StoreOptions::default()
                },
                "tags",
            ),
            ("s3://b", azure_with(Some("k"), None), "account"),
        ] {
            let error = StoreConfig::parse(url, &options).unwrap_err().to_string();
            assert!(error.ends_with(&format!("has no {key}")), "{url}: {error}");
        }
    }

    #[test]
    fn encryption_by_the_server_is_what_was_asked_for_or_refused() {
        let id = || Some("key".to_owned());
        for (sse, key, expected) in [
            (None, None, Some(ServerEncryption::Default)),
            (Some("AES256"), None, Some(ServerEncryption::Aes256)),
            (Some("aws:kms"), None, Some(ServerEncryption::Kms(None))),
            (Some("aws:kms"), id(), Some(ServerEncryption::Kms(id()))),
            (None, id(), None),
            (Some("AES256"), id(), None),
            (Some("aes256"), None, None),
        ] {
            let options = StoreOptions {
                sse: sse.map(str::to_owned),
                sse_kms_key_id: key,
                ..with_keys()
            };
            let found = bucket_of("s3://b", &options).ok().map(|b| match b.service {
                Service::S3(s3) => s3.encryption,
                other => panic!("{other:?}"),
            });
            assert_eq!(found, expected, "{sse:?}");
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
