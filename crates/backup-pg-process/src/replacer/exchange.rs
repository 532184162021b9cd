//! The one transaction.

use std::time::Duration;

use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;
use tokio_util::sync::CancellationToken;

use super::claim::{Held, try_lock};
use super::database::{Database, end_sessions, sessions};
use super::{ReplaceError, connect};
use crate::error::sqlstate;
use crate::mark::{Comment, Mark};
use crate::properties::Properties;
use crate::session::{ANSWER_LIMIT, execute, ping};
use crate::{ConnectionConfig, Error, quote_ident};

/// How often the rename is tried: the server waits five seconds each time for sessions to end.
const TRIES: u64 = 6;
/// That wait. <https://github.com/postgres/postgres/blob/master/src/backend/storage/ipc/procarray.c>
const SERVER_WAITS: u64 = 5;
/// How often sessions that came back are ended.
const END_EVERY: Duration = Duration::from_millis(50);
/// How often the server is asked what became of a commit without an answer.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// And how many times.
const ASKS: usize = 30;
/// `object_in_use`
const IN_USE: &str = "55006";

/// What has the name.
#[derive(Debug)]
pub(super) struct Old {
    pub(super) database: Database,
    pub(super) kept_as: String,
    pub(super) mark: Mark,
}

/// What gets it.
#[derive(Debug)]
pub(super) struct New {
    pub(super) database: Database,
    /// Its comment from then on.
    pub(super) comment: Comment,
}

/// Who changes places.
#[derive(Debug)]
pub(super) struct Exchange<'a> {
    pub(super) config: &'a ConnectionConfig,
    pub(super) name: &'a str,
    /// Absent when nothing has the name any more.
    pub(super) old: Option<Old>,
    pub(super) new: New,
    /// Whether both must have the same owner, grants and settings.
    pub(super) same_properties: bool,
}

impl Exchange<'_> {
    /// Does it on the connection that holds the name, so that it cannot be done without.
    pub(super) async fn run(
        &self,
        held: Held,
        cancel: &CancellationToken,
    ) -> Result<(), ReplaceError> {
        let lost = || ReplaceError::Lost {
            database: held.name.clone(),
        };
        // Dropped on every way out, which ends the transaction wherever it is.
        let mut connection = held.connection.take().await.ok_or_else(lost)?;
        let alive = tokio::time::timeout(ANSWER_LIMIT, ping(&mut connection)).await;
        if !matches!(alive, Ok(Ok(()))) {
            return Err(lost());
        }
        for _ in 0..TRIES {
            let attempt = tokio::select! {
                attempt = self.attempt(&mut connection) => attempt,
                () = cancel.cancelled() => return Err(Error::Cancelled.into()),
            };
            match attempt {
                Ok(()) => return self.commit(connection).await,
                Err(ReplaceError::Base(Error::Query { source, .. }))
                    if sqlstate(&source).as_deref() == Some(IN_USE) => {}
                Err(error) => return Err(error),
            }
            execute(&mut connection, "ROLLBACK", "take the exchange back").await?;
        }
        Err(self.busy().await?)
    }

    /// Everything up to the commit.
    async fn attempt(&self, connection: &mut PgConnection) -> Result<(), ReplaceError> {
        execute(connection, "BEGIN", "begin the exchange").await?;
        if let Some(old) = &self.old {
            self.rename(connection, &old.database, &old.kept_as).await?;
        }
        self.rename(connection, &self.new.database, self.name)
            .await?;
        self.check(connection).await?;
        if let Some(old) = &self.old {
            // As it is now, not as it was when the restore began.
            let comment = old.database.comment.clone().below(old.mark.clone());
            let sql = comment.statement(&old.kept_as);
            execute(connection, sql, "mark the database that is set aside").await?;
        }
        let sql = self.new.comment.statement(self.name);
        Ok(execute(connection, sql, "mark the new database").await?)
    }

    /// Renames a database and ends who is in it. From when the server begins to rename, newcomers
    /// wait for the end of the transaction.
    async fn rename(
        &self,
        connection: &mut PgConnection,
        database: &Database,
        name: &str,
    ) -> Result<(), ReplaceError> {
        let (from, to) = (quote_ident(&database.name), quote_ident(name));
        let sql = format!("ALTER DATABASE {from} RENAME TO {to}");
        let renaming = sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection);
        tokio::select! {
            renamed = renaming => {
                let operation = format!("rename database {:?}", database.name);
                renamed.map(drop).map_err(Error::query(operation))?;
            }
            () = self.keep_ending(database) => {}
        }
        Ok(())
    }

    /// Never returns. What it cannot do shows in the rename, which then fails.
    async fn keep_ending(&self, database: &Database) {
        if let Ok(mut connection) = connect(self.config).await {
            while end_sessions(&mut connection, database).await.is_ok() {
                tokio::time::sleep(END_EVERY).await;
            }
        }
        std::future::pending::<()>().await;
    }

    /// Whether it is these databases that were renamed, with all that belongs to them.
    async fn check(&self, connection: &mut PgConnection) -> Result<(), ReplaceError> {
        let changed = |name: &str| ReplaceError::Changed {
            what: format!("database {name:?}"),
        };
        let all = Database::all(connection).await?;
        let is = |name: &str, oid: u32| all.iter().any(|d| d.name == name && d.oid == oid);
        if !is(self.name, self.new.database.oid) {
            return Err(changed(&self.new.database.name));
        }
        let Some(old) = &self.old else {
            return Ok(());
        };
        if !is(&old.kept_as, old.database.oid) {
            return Err(changed(self.name));
        }
        if self.same_properties {
            let before = Properties::read(connection, &old.kept_as).await?;
            if before != Properties::read(connection, self.name).await? {
                return Err(ReplaceError::Changed {
                    what: format!("owner, grants or settings of database {:?}", self.name),
                });
            }
        }
        Ok(())
    }

    async fn commit(&self, mut connection: PgConnection) -> Result<(), ReplaceError> {
        let commit = execute(&mut connection, "COMMIT", "commit the exchange");
        let answer = tokio::time::timeout(ANSWER_LIMIT, commit).await;
        let failure = match answer {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error,
            Err(_) => Error::ConnectTimeout {
                server: self.config.server(),
                after: ANSWER_LIMIT,
            },
        };
        drop(connection);
        for _ in 0..ASKS {
            if let Ok(Some(committed)) = self.is_committed().await {
                return if committed {
                    Ok(())
                } else {
                    Err(failure.into())
                };
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
        Err(ReplaceError::Unknown {
            database: self.name.to_owned(),
            source: failure,
        })
    }

    /// What became of a commit without an answer; not known as long as its session lives, which is
    /// as long as it has the lock.
    async fn is_committed(&self) -> Result<Option<bool>, Error> {
        let mut connection = connect(self.config).await?;
        if !try_lock(&mut connection, self.name).await? {
            return Ok(None);
        }
        let found = Database::find(&mut connection, self.name).await?;
        Ok(Some(
            found.is_some_and(|found| found.oid == self.new.database.oid),
        ))
    }

    async fn busy(&self) -> Result<ReplaceError, ReplaceError> {
        let mut connection = connect(self.config).await?;
        let mut found = Vec::new();
        for database in self
            .old
            .iter()
            .map(|old| &old.database)
            .chain([&self.new.database])
        {
            found.extend(sessions(&mut connection, database).await?);
        }
        Ok(ReplaceError::Busy {
            database: self.name.to_owned(),
            seconds: TRIES * SERVER_WAITS,
            sessions: found.into_iter().map(|session| session.text).collect(),
        })
    }

    /// What a database takes with it when it is renamed, and somebody has to think about.
    pub(super) async fn left_behind(&self) -> Result<Vec<String>, ReplaceError> {
        let Some(old) = &self.old else {
            return Ok(Vec::new());
        };
        let mut connection = connect(self.config).await?;
        let names: Vec<String> = sqlx::query_scalar(
            "SELECT 'subscription ' || subname FROM pg_subscription WHERE subdbid = $1
             UNION ALL
             SELECT 'replication slot ' || slot_name FROM pg_replication_slots WHERE datoid = $1",
        )
        .bind(old.database.sql_oid())
        .fetch_all(&mut connection)
        .await
        .map_err(Error::query("look for what stays with the old database"))?;
        let kept_as = &old.kept_as;
        let say = |name: String| format!("{name} stays with {kept_as}");
        Ok(names.into_iter().map(say).collect())
    }
}
