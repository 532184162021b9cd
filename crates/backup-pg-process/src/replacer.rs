//! [`PgReplacer`]: one database into the place of another, in one transaction.
//!
//! Nothing that clients see changes before that transaction, and nothing after it: while the server
//! renames the old database it keeps newcomers waiting by itself, so connections need not be
//! forbidden first, and there is no moment at which a killed run would leave them forbidden. What
//! was done is written into the databases' comments by the same transaction.

mod claim;
mod database;
mod error;
mod exchange;

use async_trait::async_trait;
use backup_core::error::PortError;
use backup_core::replacer::{Claim, Occupant, ReplaceRequest, Replacement, Replacer};
use backup_core::run_record::RunId;
use sqlx::postgres::PgConnection;
use tokio_util::sync::CancellationToken;

pub use error::ReplaceError;

use crate::mark::{Aside, Comment, Mark};
use crate::session::{self, system_identifier};
use crate::{ConnectionConfig, Error};
use claim::{Held, PgClaim};
use database::{Database, sessions};
use exchange::{Exchange, New, Old};

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

    async fn swap_back(
        &self,
        run: &RunId,
        by: &RunId,
        cancel: &CancellationToken,
    ) -> Result<Replacement, ReplaceError> {
        let mut scout = connect(&self.connection).await?;
        let kept = Database::all(&mut scout).await?.into_iter();
        let mut kept = kept.filter_map(|database| match &database.comment.mark {
            Some(Mark::Aside(aside)) if aside.run == *run => Some((aside.clone(), database)),
            _ => None,
        });
        let Some((aside, kept)) = kept.next() else {
            return Err(ReplaceError::NothingAside {
                run: run.clone(),
                server: self.connection.server(),
            });
        };
        let name = aside.database;
        let held = Held::take(&self.connection, &name).await?;
        let current = Database::find(&mut scout, &name).await?;
        for database in current.iter().chain([&kept]) {
            claim::check_rights(&mut scout, database).await?;
        }
        let old = current.map(|database| Old {
            kept_as: database::aside_name(&name, "before", by),
            mark: Mark::Aside(Aside {
                database: name.clone(),
                run: by.clone(),
                backup: None,
                source: None,
                recorded: false,
                disposable: false,
            }),
            database,
        });
        let exchange = Exchange {
            config: &self.connection,
            name: &name,
            old,
            new: New {
                comment: kept.comment.clone().without_mark(),
                database: kept,
            },
            same_properties: false,
        };
        exchange.run(held, cancel).await?;
        Ok(Replacement {
            run: by.clone(),
            kept_as: exchange.old.as_ref().map(|old| old.kept_as.clone()),
            warnings: exchange.left_behind().await?,
            database: name,
            backup: None,
            source: None,
        })
    }

    async fn recorded(&self, replacement: &Replacement) -> Result<(), ReplaceError> {
        let Some(name) = &replacement.kept_as else {
            return Ok(());
        };
        let mut connection = connect(&self.connection).await?;
        let Some(mut database) = Database::find(&mut connection, name).await? else {
            return Ok(());
        };
        match &mut database.comment.mark {
            Some(Mark::Aside(aside)) if aside.run == replacement.run => aside.recorded = true,
            _ => return Ok(()),
        }
        let sql = database.comment.statement(name);
        let operation = "note that the exchange is recorded";
        Ok(session::execute(&mut connection, sql, operation).await?)
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
        let claim = PgClaim::new(&self.connection, request).await?;
        Ok(Box::new(claim))
    }

    async fn undo(
        &self,
        run: &RunId,
        by: &RunId,
        cancel: &CancellationToken,
    ) -> Result<Replacement, PortError> {
        Ok(self.swap_back(run, by, cancel).await?)
    }

    async fn acknowledge(&self, replacement: &Replacement) -> Result<(), PortError> {
        Ok(self.recorded(replacement).await?)
    }
}

/// A session that no limit of an administrator ends.
async fn connect(config: &ConnectionConfig) -> Result<PgConnection, Error> {
    let mut connection = config.connect(&config.maintenance_database).await?;
    let version: i32 = sqlx::query_scalar("SELECT current_setting('server_version_num')::int4")
        .fetch_one(&mut connection)
        .await
        .map_err(Error::query("ask for the server's version"))?;
    session::prepare(&mut connection, u32::try_from(version).unwrap_or_default()).await?;
    Ok(connection)
}

impl Comment {
    /// For a database that clients use from now on: what is said about it, not how it was made.
    fn in_use(self) -> Self {
        match self.mark {
            Some(_) => self.without_mark(),
            None => self,
        }
    }
}
