//! [`PgDumper`]: a dump of one database as parts that share one snapshot.

mod catalog;
mod globals;
mod outside;
mod part;
mod planner;
mod range;
mod session;
mod snapshot;

use std::time::Duration;

use async_trait::async_trait;
use backup_core::dumper::{DumpRequest, DumpSession, Dumper};
use backup_core::error::PortError;
use tokio_util::sync::CancellationToken;

use crate::{ConnectionConfig, ToolLocator};

pub use planner::PartSizes;

/// What to leave out, in `pg_dump`'s own patterns. Empty means the whole database.
///
/// <https://www.postgresql.org/docs/current/app-psql.html#APP-PSQL-PATTERNS>
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DumpFilter {
    /// Only these schemas.
    pub schemas: Vec<String>,
    /// Not these schemas.
    pub exclude_schemas: Vec<String>,
    /// Only these tables.
    pub tables: Vec<String>,
    /// Not these tables.
    pub exclude_tables: Vec<String>,
}

impl DumpFilter {
    /// Whether the whole database is dumped.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.schemas.is_empty()
            && self.exclude_schemas.is_empty()
            && self.tables.is_empty()
            && self.exclude_tables.is_empty()
    }

    /// Whether only what is named is dumped, and nothing that has no schema.
    pub(crate) fn names_all(&self) -> bool {
        !self.schemas.is_empty() || !self.tables.is_empty()
    }
}

/// How to dump one database.
#[derive(Debug, Clone)]
pub struct PgDumperConfig {
    /// The server and the login.
    pub connection: ConnectionConfig,
    /// The database.
    pub database: String,
    /// Where the client programs are.
    pub tools: ToolLocator,
    /// What to leave out.
    pub filter: DumpFilter,
    /// How long to wait for a lock on a table.
    pub lock_wait_timeout: Duration,
    /// Whether roles and tablespaces of the server are a part of the backup.
    pub include_globals: bool,
    /// From which size on tables are treated apart.
    pub part_sizes: PartSizes,
}

impl PgDumperConfig {
    /// The whole database, with the server's roles.
    #[must_use]
    pub fn new(
        connection: ConnectionConfig,
        database: impl Into<String>,
        tools: ToolLocator,
    ) -> Self {
        Self {
            connection,
            database: database.into(),
            tools,
            filter: DumpFilter::default(),
            lock_wait_timeout: Duration::from_mins(1),
            include_globals: true,
            part_sizes: PartSizes::default(),
        }
    }
}

/// Dumps one database.
#[derive(Debug, Clone)]
pub struct PgDumper {
    config: PgDumperConfig,
}

impl PgDumper {
    /// A dumper that connects when it is opened.
    #[must_use]
    pub fn new(config: PgDumperConfig) -> Self {
        Self { config }
    }
}

#[async_trait]
impl Dumper for PgDumper {
    async fn open(
        &self,
        request: &DumpRequest,
        cancel: &CancellationToken,
    ) -> Result<Box<dyn DumpSession>, PortError> {
        let session = session::PgDumpSession::open(&self.config, request.jobs, cancel).await?;
        Ok(Box::new(session))
    }
}
