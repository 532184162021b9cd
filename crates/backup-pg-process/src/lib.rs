//! PostgreSQL for the backup manager: [`PgDumper`], [`PgRestorer`] and [`PgInspector`] over the
//! server's own client programs.
//!
//! One [`ConnectionConfig`] produces both the options of our SQL connections and the environment of
//! the child programs, so "the preflight passes" means "`pg_dump` connects". Children are started
//! by `backup_process::child` alone: no shell, a cleared environment, a process group of their own,
//! and an end of the byte stream that depends on the exit status.
//!
//! A dump is a set of parts that share one snapshot, held by a coordinator connection. Every data
//! part, whoever made it, is an archive in `pg_dump`'s custom format that stock `pg_restore` loads.
//!
//! ```
//! use backup_pg_process::{ConnectionConfig, PgDumper, PgDumperConfig, ToolLocator};
//!
//! let connection = ConnectionConfig::new("/run/postgresql", "backup");
//! let config = PgDumperConfig::new(connection, "shop", ToolLocator::default());
//! let _dumper = PgDumper::new(config);
//! ```

mod adopt;
mod advisory;
mod cluster;
mod connection;
mod databases;
mod details;
mod doctor;
mod dumper;
mod error;
mod ident;
mod inspector;
mod login;
mod logins;
mod mappings;
mod mark;
mod passfile;
mod properties;
mod replacer;
mod restorer;
mod sandbox;
mod session;
mod settings;
mod tar;
mod tools;

pub use adopt::{DumpFile, FoundDump, PgAdopter};
pub use cluster::{DrillCluster, DrillClusterConfig, StandingServer};
pub use connection::{ConnectionConfig, SslMode};
pub use databases::PgDatabases;
pub use details::{
    DatabaseDetails, DatabaseGrant, DatabaseSetting, ExtensionDetails, LocaleProvider,
    SnapshotDetails,
};
pub use doctor::{PgDoctor, PgDoctorConfig};
pub use dumper::{DumpFilter, PartSizes, PgDumper, PgDumperConfig};
pub use error::Error;
pub use ident::{conninfo_value, exact_pattern, quote_ident, quote_literal};
pub use inspector::PgInspector;
pub use passfile::PassFile;
pub use replacer::{PgReplacer, ReplaceError};
pub use restorer::{PgRestorer, PgRestorerConfig, Rehearsal, RestoreError, Words};
pub use sandbox::PgSandboxes;
pub use settings::PgSettingsDumper;
pub use tools::{ToolLocator, ToolVersion, Tools};
