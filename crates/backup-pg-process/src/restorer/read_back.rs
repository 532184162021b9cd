//! Reading a restored database back, so that it can be compared with what was dumped.
//!
//! Definitions are dumped again, beside everything else; see [`super::definitions`].
//!
//! Every table is printed by `COPY … TO STDOUT` with the columns and the settings of the dump, and
//! its lines are hashed as those of the dump were. Only the target is read.

mod catalog;
mod objects;
mod unit;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use backup_core::facts::{Facts, Fingerprint, LargeObjectFacts, SequenceFacts, TableName};
use backup_core::restorer::{Definitions, ReadBack};
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::definitions::TargetDump;
use super::error::RestoreError;
use super::target::Target;
use crate::session::execute;
use crate::{DatabaseDetails, Error, quote_literal};
use catalog::Catalog;
use unit::{Unit, units};

/// What the text of the rows depends on, as the dump had it, and what keeps a long read from being
/// ended or from changing anything. <https://www.postgresql.org/docs/current/runtime-config-client.html>
const SETTINGS: &str = "
SET DateStyle = ISO; SET IntervalStyle = postgres; SET extra_float_digits = 3;
SET TimeZone = 'UTC'; SET bytea_output = hex; SET xmlbinary = base64; SET search_path = '';
SET row_security = off; SET synchronize_seqscans = off; SET quote_all_identifiers = off;
SET statement_timeout = 0; SET lock_timeout = '60s'; SET jit = off;
SET idle_in_transaction_session_timeout = 0; SET idle_session_timeout = 0;
SET max_parallel_workers_per_gather = 0; SET default_transaction_read_only = on;";

/// What to read back.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    /// The restored database.
    pub(crate) target: &'a Target,
    /// What was dumped.
    pub(crate) facts: &'a Facts,
    /// What its database was like.
    pub(crate) details: &'a DatabaseDetails,
    /// The target's `server_version_num`.
    pub(crate) version_num: u32,
    /// Connections to use.
    pub(crate) jobs: usize,
    /// How to look at the definitions.
    pub(crate) definitions: Option<&'a TargetDump>,
}

/// One thing to do on any of the connections.
#[derive(Debug)]
enum Task {
    Rows(Unit),
    View(TableName, String),
    LargeObjects,
}

/// What came out of one.
#[derive(Debug)]
enum Answer {
    Rows(TableName, Result<Fingerprint, String>),
    View(TableName, Option<u64>),
    LargeObjects(LargeObjectFacts),
}

impl Job<'_> {
    /// Reads everything that the facts name.
    pub(crate) async fn run(&self, cancel: &CancellationToken) -> Result<ReadBack, RestoreError> {
        let dumped = CancellationToken::new();
        let definitions = async {
            let compared = self.compare_definitions(cancel).await;
            dumped.cancel();
            compared
        };
        let reading = async { tokio::try_join!(self.read(&dumped), definitions) };
        let (found, definitions) = tokio::select! {
            done = reading => done?,
            () = cancel.cancelled() => return Err(Error::Cancelled.into()),
        };
        Ok(ReadBack {
            definitions,
            ..found
        })
    }

    async fn compare_definitions(
        &self,
        cancel: &CancellationToken,
    ) -> Result<Option<Definitions>, RestoreError> {
        let Some(dump) = self.definitions else {
            return Ok(None);
        };
        let connection = self.target.connect().await?;
        dump.compare(connection, cancel).await.map(Some)
    }

    async fn read(&self, dumped: &CancellationToken) -> Result<ReadBack, RestoreError> {
        let session = Session {
            dumped: dumped.clone(),
            target: self.target.clone(),
            lc_monetary: self.details.lc_monetary.clone(),
            encoding: self.details.encoding.clone(),
        };
        let mut connection = session.connect().await?;
        let catalog = Catalog::read(&mut connection).await?;
        let dumped = self.facts.tables();
        let sequences = self.facts.parts.values().flat_map(|part| &part.sequences);
        let sequences: Vec<SequenceFacts> = sequences.cloned().collect();
        let sequences = catalog.sequences(&mut connection, &sequences).await?;

        let mut queue = VecDeque::new();
        if self.facts.large_objects().is_some() {
            queue.push_back(Task::LargeObjects);
        }
        let can_read_ranges = self.version_num >= 140_000;
        let jobs = if can_read_ranges { self.jobs } else { 1 };
        queue.extend(units(&dumped, &catalog, jobs).into_iter().map(Task::Rows));
        let views = self.definitions.map(|dump| dump.expected.filled_views());
        queue.extend(views.into_iter().flatten().filter_map(|view| {
            let sql_name = catalog.table(&view)?.sql_name.clone();
            Some(Task::View(view, sql_name))
        }));
        let answers = all(session, queue, connection, self.jobs).await?;

        let mut large_objects = None;
        let (mut tables, mut materialized_views) = (BTreeMap::new(), BTreeMap::new());
        for answer in answers {
            match answer {
                Answer::LargeObjects(facts) => large_objects = Some(facts),
                Answer::Rows(table, read) => add(&mut tables, table, read),
                Answer::View(view, rows) => {
                    materialized_views.insert(view, rows);
                }
            }
        }
        catalog.settle_hash_partitions(&dumped, &mut tables);
        Ok(ReadBack {
            tables,
            large_objects,
            sequences,
            definitions: None,
            materialized_views,
        })
    }
}

/// Adds up the pieces of a table; one that cannot be read spoils it.
fn add(
    tables: &mut BTreeMap<TableName, Result<Fingerprint, String>>,
    table: TableName,
    read: Result<Fingerprint, String>,
) {
    let sum = tables.entry(table).or_insert(Ok(Fingerprint::default()));
    match (sum.as_mut(), read) {
        (Ok(sum), Ok(piece)) => *sum += piece,
        (Ok(_), Err(reason)) => *sum = Err(reason),
        (Err(_), _) => {}
    }
}

/// The rows of a materialized view, if this login may count them.
async fn count(connection: &mut PgConnection, sql_name: &str) -> Result<Option<u64>, Error> {
    let sql = format!("SELECT count(*) FROM {sql_name}");
    match sqlx::query_scalar::<_, i64>(AssertSqlSafe(sql))
        .fetch_one(connection)
        .await
    {
        Ok(rows) => Ok(u64::try_from(rows).ok()),
        Err(error) if error.as_database_error().is_some() => Ok(None),
        Err(error) => Err(Error::query("count the rows of a materialized view")(error)),
    }
}

type Queue = Arc<Mutex<VecDeque<Task>>>;

/// Does everything in the queue over `jobs` connections.
async fn all(
    session: Session,
    queue: VecDeque<Task>,
    first: PgConnection,
    jobs: usize,
) -> Result<Vec<Answer>, RestoreError> {
    let extra = jobs.min(queue.len()).saturating_sub(1);
    let queue: Queue = Arc::new(Mutex::new(queue));
    let session = Arc::new(session);
    let mut workers = JoinSet::new();
    for _ in 0..extra {
        let (queue, session) = (Arc::clone(&queue), Arc::clone(&session));
        workers.spawn(async move {
            let connection = session.connect().await?;
            session.work(connection, &queue).await
        });
    }
    workers.spawn(async move { session.work(first, &queue).await });
    let mut answers = Vec::new();
    while let Some(done) = workers.join_next().await {
        let done = done.map_err(|error| RestoreError::Internal {
            what: format!("reading back died: {error}"),
        })?;
        answers.extend(done?);
    }
    Ok(answers)
}

/// How to connect for reading.
#[derive(Debug)]
struct Session {
    /// Cancelled when the definitions have been dumped.
    dumped: CancellationToken,
    target: Target,
    lc_monetary: String,
    encoding: String,
}

impl Session {
    async fn connect(&self) -> Result<PgConnection, Error> {
        let mut connection = self.target.connect().await?;
        execute(&mut connection, SETTINGS, "prepare the session").await?;
        if !self.lc_monetary.is_empty() {
            let set = format!("SET lc_monetary = {}", quote_literal(&self.lc_monetary));
            // A locale that the target lacks shows as a difference in columns of type money.
            let _ = sqlx::raw_sql(AssertSqlSafe(set))
                .execute(&mut connection)
                .await;
        }
        Ok(connection)
    }

    async fn work(
        &self,
        mut connection: PgConnection,
        queue: &Queue,
    ) -> Result<Vec<Answer>, RestoreError> {
        let mut answers = Vec::new();
        loop {
            let next = queue
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop_front();
            answers.push(match next {
                None => return Ok(answers),
                Some(Task::LargeObjects) => {
                    Answer::LargeObjects(objects::read(&mut connection).await?)
                }
                Some(Task::View(view, sql_name)) => {
                    let rows = count(&mut connection, &sql_name).await?;
                    Answer::View(view, rows)
                }
                Some(Task::Rows(unit)) => {
                    if unit.is_forced {
                        // It is locked while its policies are lifted, which `pg_dump` would not
                        // wait for, nor it for `pg_dump`.
                        self.dumped.cancelled().await;
                    }
                    let read = unit.read(&mut connection, &self.encoding).await?;
                    if read.is_err() {
                        // The driver does not read the end of a COPY that was refused.
                        connection = self.connect().await?;
                    }
                    Answer::Rows(unit.table, read)
                }
            });
        }
    }
}
