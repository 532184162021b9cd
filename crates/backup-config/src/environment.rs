//! The environment, as a value.

use std::collections::BTreeMap;
use std::fmt;

/// Every variable that is read, in one list.
pub mod names {
    /// The configuration file.
    pub const CONFIG: &str = "BACKUP_CONFIG";
    /// Beginning of the variables that override the file: `BACKUP_DEFAULTS__JOBS=2`.
    pub const PREFIX: &str = "BACKUP_";
    /// The user's configuration directory.
    pub const XDG_CONFIG_HOME: &str = "XDG_CONFIG_HOME";
    /// The user's home, for `~/.config` and `~/.pgpass`.
    pub const HOME: &str = "HOME";
    /// The user's directory for what can be made anew.
    pub const XDG_CACHE_HOME: &str = "XDG_CACHE_HOME";
    /// Where client programs are looked for.
    pub const PATH: &str = "PATH";
    /// Where systemd puts credentials.
    pub const CREDENTIALS_DIRECTORY: &str = "CREDENTIALS_DIRECTORY";
    /// Log filter, as `tracing` understands it.
    pub const LOG: &str = "RUST_LOG";
    /// Where a service manager hears how we are.
    pub const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";
    /// Turns colours off, whatever its value (<https://no-color.org>).
    pub const NO_COLOR: &str = "NO_COLOR";

    /// Server host or socket directory; the first that is set counts.
    pub const PG_HOST: &[&str] = &["PGHOST", "PG_HOST", "POSTGRES_HOST"];
    /// Server port.
    pub const PG_PORT: &[&str] = &["PGPORT", "PG_PORT", "POSTGRES_PORT"];
    /// Database.
    pub const PG_DATABASE: &[&str] = &["PGDATABASE", "PG_DB", "POSTGRES_DB"];
    /// Role.
    pub const PG_USER: &[&str] = &["PGUSER", "PG_USER", "POSTGRES_USER"];
    /// Its password.
    pub const PG_PASSWORD: &[&str] = &["PGPASSWORD", "PG_PASSWORD", "POSTGRES_PASSWORD"];
    /// The user's password file.
    pub const PG_PASSFILE: &[&str] = &["PGPASSFILE"];
    /// TLS mode.
    pub const PG_SSLMODE: &[&str] = &["PGSSLMODE"];
    /// Authorities to believe.
    pub const PG_SSLROOTCERT: &[&str] = &["PGSSLROOTCERT"];
    /// Certificate to show.
    pub const PG_SSLCERT: &[&str] = &["PGSSLCERT"];
    /// Its key.
    pub const PG_SSLKEY: &[&str] = &["PGSSLKEY"];
    /// The user's connection service file.
    pub const PG_SERVICE_FILE: &str = "PGSERVICEFILE";
    /// Where the machine's is.
    pub const PG_SYSCONFDIR: &str = "PGSYSCONFDIR";
    /// Variables of libpq that decide where or as whom it connects, and that are not obeyed
    /// here: refused, because another database would be taken for the one that is meant.
    pub const PG_UNSUPPORTED: &[&str] = &["PGSERVICE", "PGHOSTADDR", "PGOPTIONS"];
    /// Seconds that connecting may take.
    pub const PG_CONNECT_TIMEOUT: &[&str] = &["PGCONNECT_TIMEOUT"];

    /// S3 access key.
    pub const ACCESS_KEY: &[&str] = &["AWS_ACCESS_KEY_ID", "MINIO_ACCESS_KEY"];
    /// S3 secret key.
    pub const SECRET_KEY: &[&str] = &["AWS_SECRET_ACCESS_KEY", "MINIO_SECRET_KEY"];
    /// Token of temporary credentials.
    pub const SESSION_TOKEN: &[&str] = &["AWS_SESSION_TOKEN"];
    /// Region.
    pub const REGION: &[&str] = &["AWS_REGION", "AWS_DEFAULT_REGION"];
    /// Endpoint of an S3 server that is not Amazon's.
    pub const ENDPOINT: &[&str] = &[
        "AWS_ENDPOINT_URL_S3",
        "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT",
        "MINIO_ENDPOINT",
    ];
    /// Whether an endpoint without TLS is meant.
    pub const ALLOW_HTTP: &[&str] = &["AWS_ALLOW_HTTP"];
    /// Bucket, when no URL is given.
    pub const BUCKET: &[&str] = &["MINIO_BUCKET"];
    /// Prefix in that bucket.
    pub const BUCKET_PATH: &[&str] = &["MINIO_BACKUP_PATH"];

    /// Google: the file with the key of a service account.
    pub const GOOGLE_CREDENTIALS_FILE: &[&str] = &[
        "GOOGLE_APPLICATION_CREDENTIALS",
        "GOOGLE_SERVICE_ACCOUNT",
        "GOOGLE_SERVICE_ACCOUNT_PATH",
    ];
    /// Google: that key itself.
    pub const GOOGLE_CREDENTIALS: &[&str] = &["GOOGLE_SERVICE_ACCOUNT_KEY"];
    /// Google: another server than Google's.
    pub const GOOGLE_ENDPOINT: &[&str] = &["GOOGLE_BASE_URL"];

    /// Azure: the storage account.
    pub const AZURE_ACCOUNT: &[&str] = &["AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT"];
    /// Azure: a key of it.
    pub const AZURE_KEY: &[&str] = &[
        "AZURE_STORAGE_ACCOUNT_KEY",
        "AZURE_STORAGE_ACCESS_KEY",
        "AZURE_STORAGE_KEY",
    ];
    /// Azure: a shared access signature.
    pub const AZURE_SAS_TOKEN: &[&str] = &["AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_SAS_KEY"];
    /// Azure: another server than that of the account.
    pub const AZURE_ENDPOINT: &[&str] = &["AZURE_STORAGE_ENDPOINT"];

    /// What programs of the operator get of our environment: enough to find others and to speak a
    /// language, and nothing that may be a secret.
    pub const HOOKS: &[&str] = &[
        PATH, HOME, "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR",
    ];

    /// Parts at the same time.
    pub const JOBS: &[&str] = &["PARALLEL_JOBS"];
}

/// Variables and their values. Values are never shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// The variables of this process. Those that are not UTF-8 are left out.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the environment"
    )]
    pub fn from_process() -> Self {
        let pairs = std::env::vars_os();
        Self(
            pairs
                .filter_map(|(name, value)| {
                    Some((name.into_string().ok()?, value.into_string().ok()?))
                })
                .collect(),
        )
    }

    /// The value of `name`; an empty one counts as not set.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .get(name)
            .map(String::as_str)
            .filter(|v| !v.is_empty())
    }

    /// The value of the first of `names` that is set.
    #[must_use]
    pub fn first(&self, names: &[&str]) -> Option<&str> {
        names.iter().find_map(|name| self.get(name))
    }

    /// All variables.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        Self(
            pairs
                .into_iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
        )
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
