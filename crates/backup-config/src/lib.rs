//! Where settings come from: one TOML file, `BACKUP_…` variables over it, flags over both.
//!
//! The process environment is read in [`Environment::from_process`] and nowhere else in the
//! workspace; everything below takes an [`Environment`], so that a test can hand in its own.
//! Secrets are never in the file: a [`SecretRef`] says where they are.
//!
//! ```
//! use backup_config::{Config, Environment};
//!
//! let toml = r#"
//!     [encryption]
//!     mode = "none"
//!     [server.main]
//!     host = "/run/postgresql"
//!     [source.shop]
//!     server = "main"
//!     destinations = ["local"]
//!     [destination.local]
//!     url = "file:///var/lib/backups"
//! "#;
//! let config = Config::from_toml(toml, &Environment::default())?;
//! assert_eq!(config.source["shop"].database(), None);
//! # Ok::<(), backup_config::Error>(())
//! ```

mod address;
mod alerts;
mod defaults;
mod drill;
mod environment;
mod error;
mod file;
mod hooks;
mod http;
mod load;
mod log;
mod notify;
mod origin;
mod retention;
mod sandbox;
mod schedule;
mod schema;
mod secret;
mod size;
mod source_kind;
mod starter;
mod telegram;

pub use address::WrongAddress;
pub use alerts::AlertsConfig;
pub use defaults::{DefaultsConfig, RetryConfig, SourceSettings};
pub use drill::{AssertionConfig, DrillConfig};
pub use environment::{Environment, names};
pub use error::Error;
pub use file::{
    AdminConfig, Config, DestinationConfig, EncryptionConfig, EncryptionMode, RestoreConfig,
    ServerConfig, SourceConfig, SourceEncryption, TierConfig,
};
pub use hooks::{Argv, HooksConfig, SourceHooks};
pub use http::{AccessConfig, HttpConfig, Role, SCHEDULE, TELEGRAM};
pub use log::LogConfig;
pub use notify::{MailTls, NotifyConfig, NotifyEvent, NotifyKind, NotifyOperation, WebhookShape};
pub use origin::{Origin, Setting};
pub use retention::{RetentionConfig, Tiers};
pub use sandbox::SandboxConfig;
pub use schedule::UpkeepConfig;
pub use schema::schema;
pub use secret::SecretRef;
pub use size::{ParseSizeError, Size};
pub use source_kind::SourceKind;
pub use starter::starter;
pub use telegram::{TELEGRAM_API, TelegramBotConfig, TelegramLanguage, TelegramUserConfig};
