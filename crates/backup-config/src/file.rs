//! The form of the configuration file.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use backup_core::retention::Tier;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::alerts::AlertsConfig;
use crate::defaults::{DefaultsConfig, RetryConfig};
use crate::drill::DrillConfig;
use crate::error::Error;
use crate::hooks::{HooksConfig, SourceHooks};
use crate::http::{AccessConfig, HttpConfig};
use crate::log::LogConfig;
use crate::notify::NotifyConfig;
use crate::retention::RetentionConfig;
use crate::sandbox::SandboxConfig;
use crate::schedule::UpkeepConfig;
use crate::schema::DurationText;
use crate::secret::SecretRef;
use crate::size::Size;
use crate::source_kind::SourceKind;
use crate::telegram::TelegramBotConfig;

/// The whole file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What every source does unless it says otherwise.
    pub defaults: DefaultsConfig,
    /// Who can read the backups.
    pub encryption: EncryptionConfig,
    /// PostgreSQL servers.
    pub server: BTreeMap<String, ServerConfig>,
    /// What to back up.
    pub source: BTreeMap<String, SourceConfig>,
    /// Where backups go.
    pub destination: BTreeMap<String, DestinationConfig>,
    /// What to keep of them.
    pub retention: BTreeMap<String, RetentionConfig>,
    /// Rehearsals of restores.
    pub drill: DrillConfig,
    /// Databases to look into.
    pub sandbox: SandboxConfig,
    /// Reading what is stored and proving it.
    pub verify: UpkeepConfig,
    /// Letting old backups go.
    pub prune: UpkeepConfig,
    /// What restores may do.
    pub restore: RestoreConfig,
    /// What is not as it should be.
    pub alerts: AlertsConfig,
    /// Programs that run before and after backups.
    pub hooks: HooksConfig,
    /// Who is told how runs end.
    pub notify: BTreeMap<String, NotifyConfig>,
    /// What is written down on this machine.
    pub log: LogConfig,
    /// The server.
    pub server_http: HttpConfig,
    /// Who may do what there.
    pub access: Vec<AccessConfig>,
    /// The bot, if there is one.
    pub telegram_bot: Option<TelegramBotConfig>,
}

/// `[restore]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RestoreConfig {
    /// Extensions that a server's `admin` creates where the restoring role must not.
    pub extensions: Vec<String>,
}

/// A superuser that creates extensions and does nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdminConfig {
    /// Role.
    pub user: String,
    /// Its password.
    pub password: Option<SecretRef>,
}

/// `[encryption]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EncryptionConfig {
    /// Public keys that new backups are encrypted to.
    pub recipients: Vec<String>,
    /// The private keys, only where restores run.
    pub identities: Option<SecretRef>,
    /// Must be `none` to write without encryption.
    pub mode: EncryptionMode,
}

/// `[source.NAME] encryption`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SourceEncryption {
    /// Public keys that its backups are encrypted to; those of `[encryption]` if there are none.
    pub recipients: Vec<String>,
    /// Must be `none` to write without encryption.
    pub mode: EncryptionMode,
}

/// Whether to encrypt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EncryptionMode {
    /// To the recipients; without any, backups are refused.
    #[default]
    Age,
    /// Not at all, said explicitly.
    None,
}

/// `[server.NAME]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ServerConfig {
    /// Where it is, as `postgresql://USER@HOST:PORT/DATABASE`; the keys below count more.
    pub url: Option<String>,
    /// The same by libpq's connection service file.
    pub service: Option<String>,
    /// Host name, address or socket directory.
    pub host: Option<String>,
    /// Port.
    pub port: Option<u16>,
    /// Role.
    pub user: Option<String>,
    /// Its password.
    pub password: Option<SecretRef>,
    /// A password file in libpq's form.
    pub passfile: Option<PathBuf>,
    /// As in libpq.
    pub sslmode: Option<String>,
    /// As in libpq.
    pub sslrootcert: Option<PathBuf>,
    /// As in libpq.
    pub sslcert: Option<PathBuf>,
    /// As in libpq.
    pub sslkey: Option<PathBuf>,
    /// How long connecting may take.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "Option<DurationText>")]
    pub connect_timeout: Option<Duration>,
    /// The database for work that belongs to none.
    pub maintenance_database: Option<String>,
    /// Where its client programs are.
    pub bin_dir: Option<PathBuf>,
    /// Backups of it at the same time, below the limit of `[defaults]`.
    pub concurrent_backups: Option<usize>,
    /// Whether somebody depends on it: no drill runs there.
    pub production: bool,
    /// Who creates the extensions of `[restore]` here.
    pub admin: Option<AdminConfig>,
}

/// `[source.NAME]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SourceConfig {
    /// What it is: `postgres` if absent.
    pub kind: SourceKind,
    /// Redis: `redis://HOST:PORT`, `rediss://HOST:PORT` with TLS, or `unix:///path/to/socket`.
    pub url: Option<String>,
    /// Redis: an ACL user.
    pub user: Option<String>,
    /// Redis: its password.
    pub password: Option<SecretRef>,
    /// Redis: certificates of the authorities to believe.
    pub ca_file: Option<PathBuf>,
    /// Redis: the certificate to show the server.
    pub cert_file: Option<PathBuf>,
    /// Redis: the key of that.
    pub key_file: Option<PathBuf>,
    /// Redis: where `redis-cli` is.
    pub bin_dir: Option<PathBuf>,
    /// Name of its server.
    pub server: Option<String>,
    /// Its database; the source's own name if absent.
    pub database: Option<String>,
    /// Instead of one database, every one of the server that has one of these names or matches one
    /// of these patterns. Each becomes a source of its own, `NAME/DATABASE`.
    pub databases: Vec<String>,
    /// Without those that match.
    pub exclude: Vec<String>,
    /// Names of its destinations.
    pub destinations: Vec<String>,
    /// Only these schemas; the backup is then marked as filtered.
    pub schemas: Vec<String>,
    /// Without these schemas.
    pub exclude_schemas: Vec<String>,
    /// Only these tables.
    pub tables: Vec<String>,
    /// Without these tables.
    pub exclude_tables: Vec<String>,
    /// Instead of what `[defaults]` says, as all the following.
    pub compression: Option<String>,
    /// Parts at the same time.
    #[schemars(range(min = 1))]
    pub jobs: Option<usize>,
    /// How long a whole backup may take, with all its attempts.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "Option<DurationText>")]
    pub timeout: Option<Duration>,
    /// How long nothing may move.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "Option<DurationText>")]
    pub stall_timeout: Option<Duration>,
    /// How long a lock may be waited for.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "Option<DurationText>")]
    pub lock_wait_timeout: Option<Duration>,
    /// How long a run that died keeps others from it.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "Option<DurationText>")]
    pub lease: Option<Duration>,
    /// What is done when a backup failed for a reason that may pass.
    pub retry: Option<RetryConfig>,
    /// A local destination with less room gets no backup.
    pub min_free_space: Option<Size>,
    /// Name of its retention.
    pub retention: Option<String>,
    /// Who can read its backups, instead of what `[encryption]` says.
    pub encryption: Option<SourceEncryption>,
    /// Programs that run before and after its backups.
    pub hooks: SourceHooks,
    /// How old its newest backup may be, instead of what `[alerts]` says.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "Option<DurationText>")]
    pub max_age: Option<Duration>,
    /// When it is backed up by itself, as cron says it; never if absent.
    pub schedule: Option<String>,
    /// Where its clock hangs, instead of the default.
    pub timezone: Option<String>,
    /// Instead of the default.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "Option<DurationText>")]
    pub tolerance: Option<Duration>,
    /// Instead of the default.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "Option<DurationText>")]
    pub catch_up: Option<Duration>,
    /// Instead of the default.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "Option<DurationText>")]
    pub jitter: Option<Duration>,
}

impl Config {
    /// The configuration as TOML. Secrets are shown by where they are.
    ///
    /// # Errors
    /// When a value has no TOML form, which none here lacks.
    pub fn to_toml(&self) -> Result<String, Error> {
        toml::to_string(self).map_err(|e| Error::Invalid {
            message: e.to_string(),
            suggestion: None,
        })
    }
}

impl SourceConfig {
    /// The database, if the source names one.
    #[must_use]
    pub fn database(&self) -> Option<&str> {
        self.database.as_deref()
    }

    /// Whether it stands for several databases.
    #[must_use]
    pub fn is_family(&self) -> bool {
        !self.databases.is_empty()
    }

    /// Whether its backups are meant to leave something out.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        let filters = [
            &self.schemas,
            &self.exclude_schemas,
            &self.tables,
            &self.exclude_tables,
        ];
        filters.iter().any(|patterns| !patterns.is_empty())
    }
}

/// One of a destination's `tiers`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TierConfig {
    /// The first of a day.
    Daily,
    /// The first of a week, from Monday.
    Weekly,
    /// The first of a month.
    Monthly,
    /// The first of a year.
    Yearly,
}

impl From<TierConfig> for Tier {
    fn from(tier: TierConfig) -> Self {
        match tier {
            TierConfig::Daily => Self::Daily,
            TierConfig::Weekly => Self::Weekly,
            TierConfig::Monthly => Self::Monthly,
            TierConfig::Yearly => Self::Yearly,
        }
    }
}

/// `[destination.NAME]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DestinationConfig {
    /// `file:///dir`, `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix`.
    pub url: String,
    /// Another server than the service's own.
    pub endpoint: Option<String>,
    /// Whether an endpoint without TLS is meant.
    pub allow_http: Option<bool>,
    /// Certificates of the authorities to believe.
    pub ca_file: Option<PathBuf>,
    /// For how long a request that fails is repeated.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "Option<DurationText>")]
    pub retry_timeout: Option<Duration>,
    /// Name of the retention of what is there.
    pub retention: Option<String>,
    /// It gets only the first good backup of each of these periods; every backup if there are none.
    pub tiers: Vec<TierConfig>,
    /// What the service calls the place for the parts of backups: `STANDARD_IA`, `NEARLINE`, `Cool`.
    pub storage_class: Option<String>,
    /// S3 and Azure: what every object is marked with.
    pub tags: BTreeMap<String, String>,
    /// S3: region.
    pub region: Option<String>,
    /// S3: access key.
    pub access_key_id: Option<SecretRef>,
    /// S3: secret key.
    pub secret_access_key: Option<SecretRef>,
    /// S3: token of temporary credentials.
    pub session_token: Option<SecretRef>,
    /// S3: whether the bucket is in the host name instead of the path.
    pub virtual_hosted_style: Option<bool>,
    /// S3: whether uploads carry SHA-256 checksums; some servers do not know them.
    pub checksums: Option<bool>,
    /// S3: what the server encrypts with, `AES256` or `aws:kms`.
    pub sse: Option<String>,
    /// S3: which key of the key service.
    pub sse_kms_key_id: Option<String>,
    /// Google: the JSON key of a service account.
    pub service_account: Option<SecretRef>,
    /// Azure: the storage account.
    pub account: Option<String>,
    /// Azure: a key of the account.
    pub access_key: Option<SecretRef>,
    /// Azure: a shared access signature.
    pub sas_token: Option<SecretRef>,
}

impl DestinationConfig {
    /// Whether it says where the server is or who asks there. Such a destination is complete, and
    /// variables that are meant for another one must not fill its gaps.
    #[must_use]
    pub fn is_its_own(&self) -> bool {
        let secrets = [
            &self.access_key_id,
            &self.secret_access_key,
            &self.session_token,
            &self.service_account,
            &self.access_key,
            &self.sas_token,
        ];
        let named = self.endpoint.is_some() || self.account.is_some();
        named || secrets.iter().any(|secret| secret.is_some())
    }
}
