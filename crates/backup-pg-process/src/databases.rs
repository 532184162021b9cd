//! [`PgDatabases`]: which databases a server has.

use async_trait::async_trait;
use backup_core::databases::{DatabaseFinder, FoundDatabase, Obstacle};
use backup_core::error::PortError;
use sqlx::Row as _;
use tokio_util::sync::CancellationToken;

use crate::{ConnectionConfig, Error, session};

/// `datconnlimit` of what a `DROP DATABASE` left that did not come to its end.
const INVALID: i32 = -2;

/// Asks in the maintenance database.
#[derive(Debug, Clone)]
pub struct PgDatabases {
    connection: ConnectionConfig,
}

impl PgDatabases {
    /// A finder that connects when it is used.
    #[must_use]
    pub fn new(connection: ConnectionConfig) -> Self {
        Self { connection }
    }

    async fn ask(&self) -> Result<Vec<FoundDatabase>, Error> {
        let mut connection = session::connect(&self.connection).await?;
        let failed = || Error::query("list the databases");
        let rows = sqlx::query(
            "SELECT namesend(datname), datistemplate, datallowconn, datconnlimit,
                    has_database_privilege(oid, 'CONNECT') FROM pg_database",
        )
        .fetch_all(&mut connection)
        .await
        .map_err(failed())?;
        rows.iter()
            .map(|row| {
                let (template, allowed): (bool, bool) = (row.try_get(1)?, row.try_get(2)?);
                let (limit, may_connect): (i32, bool) = (row.try_get(3)?, row.try_get(4)?);
                // One name that is no text must not hide all others.
                let (name, is_text) = match String::from_utf8(row.try_get(0)?) {
                    Ok(name) => (name, true),
                    Err(e) => (String::from_utf8_lossy(e.as_bytes()).into_owned(), false),
                };
                let obstacle = if !is_text {
                    Some(Obstacle::UnreadableName)
                } else if limit == INVALID {
                    Some(Obstacle::Invalid)
                } else if !allowed {
                    Some(Obstacle::Closed)
                } else if template {
                    Some(Obstacle::Template)
                } else if !may_connect {
                    Some(Obstacle::NoConnectRight)
                } else {
                    None
                };
                Ok(FoundDatabase { name, obstacle })
            })
            .collect::<Result<_, sqlx::Error>>()
            .map_err(failed())
    }
}

#[async_trait]
impl DatabaseFinder for PgDatabases {
    async fn databases(&self, cancel: &CancellationToken) -> Result<Vec<FoundDatabase>, PortError> {
        tokio::select! {
            found = self.ask() => Ok(found?),
            () = cancel.cancelled() => Err(PortError::cancelled()),
        }
    }
}
