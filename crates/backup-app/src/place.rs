//! Where backups live, from flags, variables or file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use backup_config::{DestinationConfig, Environment, SecretRef, Size, names};
use backup_core::error::{ErrorKind, PortError};
use backup_core::store::Store;
use backup_store::{Scheme, Space, StoreConfig, StoreOptions};
use secrecy::SecretString;

use crate::error::AppError;
use crate::text::size;

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

    /// Where it is a directory, that.
    pub(crate) fn local_root(&self, environment: &Environment) -> Option<PathBuf> {
        let options = self.options(environment).ok()?;
        let config = StoreConfig::parse(&self.settings.url, &options).ok()?;
        config.local_root().map(Path::to_owned)
    }

    /// The room that is left where it is a directory.
    pub(crate) fn space(&self, environment: &Environment) -> Option<Space> {
        backup_store::space(&self.local_root(environment)?).ok()
    }

    /// Refuses a directory with less room than is wanted, before anything is written there. One
    /// that is not made yet is judged by where it will be; of what cannot be asked, the backup tells.
    pub(crate) fn check_room(
        &self,
        environment: &Environment,
        wanted: Option<Size>,
    ) -> Result<(), AppError> {
        let Some(wanted) = wanted else {
            return Ok(());
        };
        let options = self.options(environment)?;
        let operation = || format!("look for room in destination {}", self.name);
        let config = StoreConfig::parse(&self.settings.url, &options)
            .map_err(|e| AppError::setup(operation(), e))?;
        let root = config.local_root();
        let existing = root.and_then(|root| root.ancestors().find(|path| path.exists()));
        let Some(space) = existing.and_then(|path| backup_store::space(path).ok()) else {
            return Ok(());
        };
        if space.free >= wanted.bytes() {
            return Ok(());
        }
        let message = format!(
            "{} is free in {}, and min_free_space is {wanted}",
            size(space.free),
            without_login(&self.settings.url),
        );
        let hint =
            "make room there (backup-cli prune lets old backups go), or lower min_free_space";
        let error = PortError::new(ErrorKind::Unsuitable, message).with_hint(hint);
        Err(AppError::setup(operation(), error))
    }

    /// Whether reading many small objects of it is so cheap that nothing has to be remembered.
    pub(crate) fn is_local(&self) -> bool {
        matches!(Scheme::of(&self.settings.url), Ok(Scheme::Local))
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

    /// What the file says, and what variables say where it says nothing. A destination with a
    /// key, an account or an endpoint of its own takes nothing from them: half of two settings
    /// would send backups, or a key, to a server that nobody named.
    fn options(&self, environment: &Environment) -> Result<StoreOptions, AppError> {
        let settings = &self.settings;
        let none = Environment::default();
        let variables = if settings.is_its_own() {
            &none
        } else {
            environment
        };
        let scheme = Scheme::of(&settings.url)
            .map_err(|e| AppError::setup(format!("open destination {}", self.name), e))?;
        let given = StoreOptions {
            endpoint: settings.endpoint.clone().map(with_scheme),
            allow_http: settings.allow_http.unwrap_or(false),
            ca_certificate: settings.ca_file.clone(),
            storage_class: settings.storage_class.clone(),
            tags: settings.tags.clone(),
            region: settings.region.clone(),
            virtual_hosted_style: settings.virtual_hosted_style.unwrap_or(false),
            checksum: settings.checksums.unwrap_or(true),
            sse: settings.sse.clone(),
            sse_kms_key_id: settings.sse_kms_key_id.clone(),
            account: settings.account.clone(),
            ..self.secrets(environment)?
        };
        match scheme {
            Scheme::Local => Ok(given),
            Scheme::S3 => Ok(with_s3_variables(given, settings, variables)),
            Scheme::Gcs => with_google_variables(given, variables),
            Scheme::Azure => Ok(with_azure_variables(given, variables)),
        }
    }

    /// The secrets that the file names.
    fn secrets(&self, environment: &Environment) -> Result<StoreOptions, AppError> {
        let settings = &self.settings;
        let secret = |reference: &Option<SecretRef>| {
            let resolved = reference.as_ref().map(|r| r.resolve(environment));
            resolved.transpose()
        };
        Ok(StoreOptions {
            access_key_id: secret(&settings.access_key_id)?,
            secret_access_key: secret(&settings.secret_access_key)?,
            session_token: secret(&settings.session_token)?,
            service_account: secret(&settings.service_account)?,
            access_key: secret(&settings.access_key)?,
            sas_token: secret(&settings.sas_token)?,
            ..StoreOptions::default()
        })
    }
}

fn with_s3_variables(
    given: StoreOptions,
    settings: &DestinationConfig,
    variables: &Environment,
) -> StoreOptions {
    let variable = |names: &[&str]| variables.first(names).map(str::to_owned);
    let secret = |names: &[&str]| variables.first(names).map(SecretString::from);
    let allow_http = variable(names::ALLOW_HTTP).map(|text| text == "true" || text == "1");
    StoreOptions {
        endpoint: given
            .endpoint
            .or_else(|| variable(names::ENDPOINT).map(with_scheme)),
        region: given.region.or_else(|| variable(names::REGION)),
        access_key_id: given.access_key_id.or_else(|| secret(names::ACCESS_KEY)),
        secret_access_key: given
            .secret_access_key
            .or_else(|| secret(names::SECRET_KEY)),
        session_token: given.session_token.or_else(|| secret(names::SESSION_TOKEN)),
        allow_http: settings.allow_http.or(allow_http).unwrap_or(false),
        ..given
    }
}

fn with_google_variables(
    given: StoreOptions,
    variables: &Environment,
) -> Result<StoreOptions, AppError> {
    let service_account = match (
        given.service_account,
        variables.first(names::GOOGLE_CREDENTIALS),
    ) {
        (Some(given), _) => Some(given),
        (None, Some(key)) => Some(SecretString::from(key)),
        (None, None) => {
            let file = variables.first(names::GOOGLE_CREDENTIALS_FILE);
            let file = file.map(|path| SecretRef::File(path.into()).resolve(variables));
            file.transpose()?
        }
    };
    let endpoint = || variables.first(names::GOOGLE_ENDPOINT).map(str::to_owned);
    Ok(StoreOptions {
        service_account,
        endpoint: given.endpoint.or_else(endpoint),
        ..given
    })
}

fn with_azure_variables(given: StoreOptions, variables: &Environment) -> StoreOptions {
    let variable = |names: &[&str]| variables.first(names).map(str::to_owned);
    let secret = |names: &[&str]| variables.first(names).map(SecretString::from);
    let key = secret(names::AZURE_KEY);
    // The tools of Azure take the key too where both are set.
    let signature = match key {
        Some(_) => None,
        None => secret(names::AZURE_SAS_TOKEN),
    };
    StoreOptions {
        account: given.account.or_else(|| variable(names::AZURE_ACCOUNT)),
        access_key: given.access_key.or(key),
        sas_token: given.sas_token.or(signature),
        endpoint: given.endpoint.or_else(|| variable(names::AZURE_ENDPOINT)),
        ..given
    }
}

/// A URL as it may be said: who puts a password into one is told so, without it.
pub(crate) fn without_login(url: &str) -> String {
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
    use secrecy::ExposeSecret;

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

    fn options(settings: DestinationConfig, environment: &Environment) -> StoreOptions {
        let name = "place".to_owned();
        Place { name, settings }.options(environment).unwrap()
    }

    fn shown(secret: Option<&SecretString>) -> Option<&str> {
        secret.map(ExposeSecret::expose_secret)
    }

    fn variable(name: &str) -> SecretRef {
        SecretRef::Env(name.to_owned())
    }

    /// Variables that are meant for some other store, and some that a file points to.
    fn theirs() -> Environment {
        let pairs = [
            ("AWS_ACCESS_KEY_ID", "their id"),
            ("AWS_SECRET_ACCESS_KEY", "their key"),
            ("AWS_SESSION_TOKEN", "their token"),
            ("AWS_REGION", "their-region"),
            ("AWS_ENDPOINT_URL", "https://their.example"),
            ("AWS_ALLOW_HTTP", "true"),
            ("AZURE_STORAGE_ACCOUNT_NAME", "theirs"),
            ("AZURE_STORAGE_ACCOUNT_KEY", "their key"),
            ("AZURE_STORAGE_SAS_TOKEN", "their signature"),
            ("AZURE_STORAGE_ENDPOINT", "https://their.example"),
            ("GOOGLE_SERVICE_ACCOUNT_KEY", "their json"),
            ("GOOGLE_BASE_URL", "https://their.example"),
            ("OUR_ID", "our id"),
            ("OUR_KEY", "our key"),
        ];
        pairs.into_iter().collect()
    }

    #[test]
    fn variables_fill_a_place_that_names_neither_server_nor_keys() {
        let of = |url: &str| DestinationConfig {
            url: url.to_owned(),
            region: Some("ours".to_owned()),
            ..DestinationConfig::default()
        };
        let s3 = options(of("s3://b"), &theirs());
        assert_eq!(shown(s3.access_key_id.as_ref()), Some("their id"));
        assert_eq!(shown(s3.secret_access_key.as_ref()), Some("their key"));
        assert_eq!(shown(s3.session_token.as_ref()), Some("their token"));
        assert_eq!(s3.endpoint.as_deref(), Some("https://their.example"));
        assert_eq!((s3.region.as_deref(), s3.allow_http), (Some("ours"), true));
        assert!(s3.account.is_none() && s3.service_account.is_none());

        let gs = options(of("gs://b"), &theirs());
        assert_eq!(shown(gs.service_account.as_ref()), Some("their json"));
        assert_eq!(gs.endpoint.as_deref(), Some("https://their.example"));
        assert!(gs.access_key_id.is_none() && !gs.allow_http);

        let az = options(of("az://b"), &theirs());
        assert_eq!(az.account.as_deref(), Some("theirs"));
        assert_eq!(shown(az.access_key.as_ref()), Some("their key"));
        assert_eq!(shown(az.sas_token.as_ref()), None);
        let file = options(of("file:///b"), &theirs());
        assert!(file.access_key_id.is_none() && file.endpoint.is_none());
    }

    #[test]
    fn variables_fill_no_gap_of_a_place_with_a_server_or_a_key_of_its_own() {
        let own = |url: &str| DestinationConfig {
            url: url.to_owned(),
            ..DestinationConfig::default()
        };
        let with_endpoint = |url: &str| DestinationConfig {
            endpoint: Some("https://our.example".to_owned()),
            ..own(url)
        };
        let with_keys = DestinationConfig {
            access_key_id: Some(variable("OUR_ID")),
            secret_access_key: Some(variable("OUR_KEY")),
            ..own("s3://b")
        };
        let found = options(with_keys, &theirs());
        assert_eq!(shown(found.access_key_id.as_ref()), Some("our id"));
        assert_eq!(shown(found.secret_access_key.as_ref()), Some("our key"));
        assert!(found.session_token.is_none() && !found.allow_http);
        assert_eq!((found.endpoint, found.region), (None, None));
        for url in ["s3://b", "gs://b", "az://b"] {
            let found = options(with_endpoint(url), &theirs());
            assert_eq!(found.endpoint.as_deref(), Some("https://our.example"));
            let secrets = [
                &found.access_key_id,
                &found.secret_access_key,
                &found.session_token,
                &found.service_account,
                &found.access_key,
                &found.sas_token,
            ];
            assert!(secrets.iter().all(|secret| secret.is_none()), "{url}");
            assert!(found.account.is_none() && !found.allow_http, "{url}");
        }
        let account = DestinationConfig {
            account: Some("ours".to_owned()),
            ..own("az://b")
        };
        let found = options(account, &theirs());
        assert_eq!(
            (found.account.as_deref(), found.endpoint),
            (Some("ours"), None)
        );
        assert!(found.access_key.is_none() && found.sas_token.is_none());
    }

    #[test]
    fn a_signature_from_a_variable_is_taken_where_there_is_no_key() {
        let environment: Environment = [
            ("AZURE_STORAGE_ACCOUNT", "ours"),
            ("AZURE_STORAGE_SAS_TOKEN", "sv=1&sig=2"),
        ]
        .into_iter()
        .collect();
        let found = Place::from_url("az://b").options(&environment).unwrap();
        assert_eq!(shown(found.sas_token.as_ref()), Some("sv=1&sig=2"));
        assert!(found.access_key.is_none());
    }
}
