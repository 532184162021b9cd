//! What would keep a database from being dumped, and what to do about it. Only asks: nothing on the
//! server is changed, and nothing is left in its sessions, which a pooler may give to others.

mod connect;
mod facts;
mod judge;

pub(crate) use judge::AROUND_POOLER;

use std::time::Duration;

use backup_core::clock::Clock;
use backup_core::doctor::{Finding, compare_clocks};
use backup_core::error::PortError;
use backup_process::Error as ProcessError;
use backup_process::child::{ToolCommand, run_briefly};
use chrono::{DateTime, Utc};
use sqlx::Connection as _;
use sqlx::postgres::PgConnection;
use tokio_util::sync::CancellationToken;

use crate::error::judged;
use crate::{ConnectionConfig, DumpFilter, Error, ToolLocator, ToolVersion, Tools, session};
use facts::{Facts, LargeObjects, Lock};
use judge::Setting;

/// What the examination is given altogether is the caller's business; no step takes longer.
const STEP_LIMIT: Duration = Duration::from_secs(20);

/// What `pg_dump` says when it has logged in and is to dump what is not there.
const NOTHING_FOUND: &str = "no matching schemas were found";

/// The oldest server that is dumped.
const OLDEST: u32 = 140_000;

/// What to look at.
#[derive(Debug, Clone)]
pub struct PgDoctorConfig {
    /// The server and the login.
    pub connection: ConnectionConfig,
    /// The database.
    pub database: String,
    /// Where the client programs are.
    pub tools: ToolLocator,
    /// Parts that a backup dumps at the same time.
    pub jobs: usize,
    /// What backups leave out on purpose.
    pub filter: DumpFilter,
}

/// Looks at one database with the eyes of the login that dumps it.
#[derive(Debug, Clone)]
pub struct PgDoctor {
    config: PgDoctorConfig,
}

impl PgDoctor {
    /// One that connects when it is asked.
    #[must_use]
    pub fn new(mut config: PgDoctorConfig) -> Self {
        let limit = config.connection.connect_timeout;
        config.connection.connect_timeout = limit.min(STEP_LIMIT);
        Self { config }
    }

    /// Looks, as far as it gets. What was found is in `findings` also when the caller gives up
    /// waiting.
    pub async fn examine(
        &self,
        clock: &dyn Clock,
        findings: &mut Vec<Finding>,
        cancel: &CancellationToken,
    ) {
        let config = &self.config;
        let mut connection = match config.connection.connect(&config.database).await {
            Ok(connection) => connection,
            Err(error) => {
                findings.push(connect::finding(error, &config.connection));
                return;
            }
        };
        if let Err(error) = self.ask(&mut connection, (clock, cancel), findings).await {
            findings.push(if connect::is_of_pooler(&error) {
                judge::pooler(&config.connection.server())
            } else {
                Finding::failure("server-question-failed", &PortError::from(error))
            });
        }
        let _ = connection.close().await;
    }

    async fn ask(
        &self,
        connection: &mut PgConnection,
        (clock, cancel): (&dyn Clock, &CancellationToken),
        findings: &mut Vec<Finding>,
    ) -> Result<(), Error> {
        let version_num = facts::version_num(connection).await?;
        let version = ToolVersion::from_num(version_num);
        findings.push(Finding::ok(
            "server-reachable",
            format!(
                "PostgreSQL {version} at {}, database {:?}, as role {}",
                self.config.connection.server(),
                self.config.database,
                self.config.connection.user,
            ),
        ));
        findings.extend(judge::version(version_num, OLDEST));
        if version_num < OLDEST {
            return Ok(());
        }
        let tools = self.tools(version_num, findings, cancel).await?;
        if self.is_pooled(connection).await? {
            // Whatever else is asked may be answered by another session, or not at all.
            findings.push(judge::pooler(&self.config.connection.server()));
            return Ok(());
        }
        self.tell_time(connection, clock, findings).await?;
        let (facts, objects, locks) = self.facts(connection).await?;
        let setting = Setting {
            jobs: self.config.jobs,
            filtered: !self.config.filter.is_empty(),
            names_all: self.config.filter.names_all(),
            version_num,
            host: &self.config.connection.host,
        };
        findings.extend(judge::judge(&facts, &objects, &locks, &setting));
        if let Some(tools) = tools {
            findings.push(self.try_tool(&tools, cancel).await?);
        }
        Ok(())
    }

    /// The client programs that a backup would use.
    async fn tools(
        &self,
        version_num: u32,
        findings: &mut Vec<Finding>,
        cancel: &CancellationToken,
    ) -> Result<Option<Tools>, Error> {
        match self.config.tools.locate(version_num, cancel).await {
            Ok(tools) => {
                findings.push(judge::tools(&tools, version_num));
                Ok(Some(tools))
            }
            Err(Error::Cancelled) => Err(Error::Cancelled),
            Err(error) => {
                let error = PortError::from(error);
                findings.push(Finding::failure("client-programs-missing", &error));
                Ok(None)
            }
        }
    }

    /// Whether something between us and the server hands one of its sessions to several clients.
    ///
    /// Two sessions that are open at the same time have different numbers, and none ever gets
    /// another, so that this is certain whenever it says yes.
    async fn is_pooled(&self, first: &mut PgConnection) -> Result<bool, Error> {
        let config = &self.config;
        let mut other = config.connection.connect(&config.database).await?;
        let before = facts::session_number(first).await?;
        session::execute(&mut other, "BEGIN READ ONLY", "begin a transaction").await?;
        let others = facts::session_number(&mut other).await?;
        let after = facts::session_number(first).await?;
        session::execute(&mut other, "ROLLBACK", "end a transaction").await?;
        let _ = other.close().await;
        Ok(before == others || before != after)
    }

    /// Everything else, from one transaction that changes nothing.
    async fn facts(
        &self,
        connection: &mut PgConnection,
    ) -> Result<(Facts, LargeObjects, Vec<Lock>), Error> {
        let begin = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; \
             SET LOCAL statement_timeout = {0}; SET LOCAL lock_timeout = {0}; \
             SET LOCAL search_path = pg_catalog; SET LOCAL jit = off",
            STEP_LIMIT.as_millis()
        );
        // Before the limits of our own transaction stand in the place of the configured ones.
        let limits = facts::limits(connection).await?;
        session::execute(connection, begin, "begin a transaction").await?;
        let mut facts = facts::read(connection).await?;
        facts.limits = limits;
        let objects = facts::large_objects(connection).await?;
        let locks = facts::locks(connection).await?;
        session::execute(connection, "ROLLBACK", "end a transaction").await?;
        Ok((facts, objects, locks))
    }

    async fn tell_time(
        &self,
        connection: &mut PgConnection,
        clock: &dyn Clock,
        findings: &mut Vec<Finding>,
    ) -> Result<(), Error> {
        let before = clock.now();
        let theirs: DateTime<Utc> = facts::clock(connection).await?;
        let ids = ("server-clock", "server-clock-differs");
        findings.push(compare_clocks(ids, theirs, (before, clock.now())));
        Ok(())
    }

    /// Lets a client program log in with everything that it is given for a dump.
    async fn try_tool(&self, tools: &Tools, cancel: &CancellationToken) -> Result<Finding, Error> {
        let config = &self.config;
        let settings = [("statement_timeout", "0"), ("bytea_output", "hex")];
        let env = config.connection.tool_env(&config.database, &settings)?;
        // It finds no such schema, and so locks nothing and reads no catalogue.
        let command = ToolCommand::new(&tools.pg_dump, env).args([
            "--schema-only",
            "--no-password",
            "--schema=\"there is no such schema\"",
        ]);
        let tried = run_briefly(&command, STEP_LIMIT, cancel).await;
        let tried = tried.and_then(|output| output.exit.into_result().map(drop));
        Ok(match tried {
            Err(ProcessError::ToolFailed { words, .. }) if words.contains(NOTHING_FOUND) => {
                logged_in()
            }
            Ok(()) => logged_in(),
            Err(ProcessError::Cancelled) => return Err(Error::Cancelled),
            Err(error) => Finding::failure("client-programs-cannot-connect", &judged(error)),
        })
    }
}

fn logged_in() -> Finding {
    let text = "the client programs can log in with the settings that a dump needs";
    Finding::ok("client-programs-connect", text)
}
