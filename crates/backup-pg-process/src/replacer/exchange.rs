//! The one transaction.

use std::time::Duration;

use sqlx::postgres::PgConnection;
use tokio_util::sync::CancellationToken;

use super::database::{Database, end_sessions, holders, sessions};
use super::held::{Held, try_lock};
use super::{ReplaceError, connect};
use crate::error::sqlstate;
use crate::mark::{Comment, Mark};
use crate::properties::Properties;
use crate::session::{ANSWER_LIMIT, KeptAlive, execute, ping};
use crate::{ConnectionConfig, Error, quote_ident};

/// How often it is tried. The server waits five seconds each time for sessions to end, and so long
/// we wait for a lock, with newcomers waiting behind us.
/// <https://github.com/postgres/postgres/blob/master/src/backend/storage/ipc/procarray.c>
const TRIES: u64 = 6;
/// Those waits.
const WAITS: u64 = 5;
/// Between tries, newcomers get in.
const PAUSE: Duration = Duration::from_secs(1);
/// How often sessions that came back are ended.
const END_EVERY: Duration = Duration::from_millis(50);
/// How often the server is asked what became of a commit without an answer.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// And how many times.
const ASKS: usize = 30;
/// `object_in_use` and `lock_not_available`.
const IN_USE: [&str; 2] = ["55006", "55P03"];

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
}

impl Exchange<'_> {
    /// Does it on the connection that holds the name, so that it cannot be done without, and gives
    /// that back. After an error it is gone, which ends the transaction wherever it is.
    pub(super) async fn run(
        &self,
        held: Held,
        cancel: &CancellationToken,
    ) -> Result<Held, ReplaceError> {
        let lost = || ReplaceError::Lost {
            database: self.name.to_owned(),
        };
        let mut connection = held.0.take().await.ok_or_else(lost)?;
        let alive = tokio::time::timeout(ANSWER_LIMIT, ping(&mut connection)).await;
        if !matches!(alive, Ok(Ok(()))) {
            return Err(lost());
        }
        let limit = format!("SET lock_timeout = '{WAITS}s'");
        execute(&mut connection, limit, "limit the wait for locks").await?;
        for tries in 1.. {
            let attempt = tokio::select! {
                attempt = self.attempt(&mut connection) => attempt,
                () = cancel.cancelled() => return Err(Error::Cancelled.into()),
            };
            match attempt {
                Ok(()) => return self.commit(connection).await,
                Err(error) if tries < TRIES && is_in_use(&error) => {}
                Err(error) if is_in_use(&error) => break,
                Err(error) => return Err(error),
            }
            execute(&mut connection, "ROLLBACK", "take the exchange back").await?;
            tokio::time::sleep(PAUSE).await;
        }
        // Who holds it is seen while we do not.
        drop(connection);
        Err(self.busy().await?)
    }

    /// Everything up to the commit.
    async fn attempt(&self, connection: &mut PgConnection) -> Result<(), ReplaceError> {
        let holder: i32 = sqlx::query_scalar("SELECT pg_backend_pid()")
            .fetch_one(&mut *connection)
            .await
            .map_err(Error::query("ask for the session's number"))?;
        execute(connection, "BEGIN", "begin the exchange").await?;
        if let Some(old) = &self.old {
            let renaming = rename(connection, &old.database, &old.kept_as);
            self.alone(&old.database, holder, renaming).await?;
        }
        let renaming = rename(connection, &self.new.database, self.name);
        self.alone(&self.new.database, holder, renaming).await?;
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

    /// Ends who is in a database while it is renamed, from when the server keeps newcomers waiting.
    async fn alone(
        &self,
        database: &Database,
        holder: i32,
        renaming: impl Future<Output = Result<(), Error>>,
    ) -> Result<(), ReplaceError> {
        tokio::select! {
            renamed = renaming => Ok(renamed?),
            () = self.keep_ending(database, holder) => Ok(()),
        }
    }

    /// Never returns. What it cannot do shows in the rename, which then fails.
    async fn keep_ending(&self, database: &Database, holder: i32) {
        if let Ok(mut connection) = connect(self.config).await {
            while end_sessions(&mut connection, database, holder)
                .await
                .is_ok()
            {
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
        let before = Properties::read(connection, &old.kept_as).await?;
        if before != Properties::read(connection, self.name).await? {
            return Err(ReplaceError::Changed {
                what: format!("owner, grants or settings of database {:?}", self.name),
            });
        }
        Ok(())
    }

    async fn commit(&self, mut connection: PgConnection) -> Result<Held, ReplaceError> {
        let commit = execute(&mut connection, "COMMIT", "commit the exchange");
        let answer = tokio::time::timeout(ANSWER_LIMIT, commit).await;
        let failure = match answer {
            Ok(Ok(())) => return Ok(Held(KeptAlive::new(connection))),
            Ok(Err(error)) => error,
            Err(_) => Error::ConnectTimeout {
                server: self.config.server(),
                after: ANSWER_LIMIT,
            },
        };
        drop(connection);
        for _ in 0..ASKS {
            match self.is_committed().await {
                Ok(Some((true, held))) => return Ok(held),
                Ok(Some((false, _))) => return Err(failure.into()),
                Ok(None) | Err(_) => {}
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
        Err(ReplaceError::Unknown {
            database: self.name.to_owned(),
            source: failure,
        })
    }

    /// What became of a commit without an answer, and the lock again; not known as long as its
    /// session lives, which is as long as that has the lock.
    async fn is_committed(&self) -> Result<Option<(bool, Held)>, Error> {
        let mut connection = connect(self.config).await?;
        if try_lock(&mut connection, self.name).await?.is_some() {
            return Ok(None);
        }
        let found = Database::find(&mut connection, self.name).await?;
        let committed = found.is_some_and(|found| found.oid == self.new.database.oid);
        Ok(Some((committed, Held(KeptAlive::new(connection)))))
    }

    async fn busy(&self) -> Result<ReplaceError, ReplaceError> {
        let mut connection = connect(self.config).await?;
        let mut found = Vec::new();
        let old = self.old.iter().map(|old| &old.database);
        for database in old.chain([&self.new.database]) {
            let sessions = sessions(&mut connection, database).await?;
            found.extend(sessions.into_iter().map(|session| session.text));
            found.extend(holders(&mut connection, database).await?);
        }
        Ok(ReplaceError::Busy {
            database: self.name.to_owned(),
            seconds: TRIES * WAITS,
            sessions: found,
        })
    }
}

async fn rename(
    connection: &mut PgConnection,
    database: &Database,
    name: &str,
) -> Result<(), Error> {
    let (from, to) = (quote_ident(&database.name), quote_ident(name));
    let operation = format!("rename database {:?}", database.name);
    execute(
        connection,
        format!("ALTER DATABASE {from} RENAME TO {to}"),
        &operation,
    )
    .await
}

fn is_in_use(error: &ReplaceError) -> bool {
    let ReplaceError::Base(Error::Query { source, .. }) = error else {
        return false;
    };
    sqlstate(source).is_some_and(|state| IN_USE.contains(&state.as_str()))
}
