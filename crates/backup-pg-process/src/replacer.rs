//! [`PgReplacer`]: one database into the place of another, in one transaction.
//!
//! Nothing that clients see changes before that transaction, and nothing after it: while the server
//! renames the old database it keeps newcomers waiting by itself, so connections need not be
//! forbidden first, and there is no moment at which a killed run would leave them forbidden. What
//! was done is written into the databases' comments by the same transaction.

mod checks;
mod claim;
mod database;
mod error;
mod exchange;
mod held;

use async_trait::async_trait;
use backup_core::error::PortError;
use backup_core::replacer::{Claim, Occupant, ReplaceRequest, Replacer};
use backup_core::run_record::RunId;
use tokio_util::sync::CancellationToken;

pub use error::ReplaceError;

use crate::session::{connect, system_identifier};
use crate::{ConnectionConfig, Error};
use claim::PgClaim;
use database::{Database, sessions};

/// Exchanges databases of one server.
#[derive(Debug, Clone)]
pub struct PgReplacer {
    connection: ConnectionConfig,
}

impl PgReplacer {
    /// A replacer that connects when it is used.
    #[must_use]
    pub fn new(connection: ConnectionConfig) -> Self {
        Self { connection }
    }

    async fn occupant(&self, name: &str) -> Result<Option<Occupant>, ReplaceError> {
        let mut connection = connect(&self.connection).await?;
        let Some(database) = Database::find(&mut connection, name).await? else {
            return Ok(None);
        };
        let bytes: Option<i64> = sqlx::query_scalar(
            "SELECT CASE WHEN has_database_privilege($1::oid, 'CONNECT')
                           OR pg_has_role('pg_read_all_stats', 'USAGE')
                    THEN pg_database_size($1::oid) END",
        )
        .bind(database.sql_oid())
        .fetch_one(&mut connection)
        .await
        .map_err(Error::query("ask for the database's size"))?;
        Ok(Some(Occupant {
            server: self.connection.server(),
            system_identifier: system_identifier(&mut connection).await?,
            bytes: bytes.and_then(|bytes| u64::try_from(bytes).ok()),
            sessions: sessions(&mut connection, &database).await?.len() as u64,
            restored: database.is_restored(),
        }))
    }
}

#[async_trait]
impl Replacer for PgReplacer {
    async fn look(&self, database: &str) -> Result<Option<Occupant>, PortError> {
        Ok(self.occupant(database).await?)
    }

    async fn claim(
        &self,
        request: &ReplaceRequest,
        _cancel: &CancellationToken,
    ) -> Result<Box<dyn Claim>, PortError> {
        let claim = PgClaim::to_replace(&self.connection, request).await?;
        Ok(Box::new(claim))
    }

    async fn claim_undo(
        &self,
        run: &RunId,
        by: &RunId,
        _cancel: &CancellationToken,
    ) -> Result<Box<dyn Claim>, PortError> {
        let claim = PgClaim::to_undo(&self.connection, run, by).await?;
        Ok(Box::new(claim))
    }
}
