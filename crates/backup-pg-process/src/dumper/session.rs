//! One dump in progress.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use backup_core::dumper::{DumpSession, PartPlan, PartStream, SourceFacts};
use backup_core::error::PortError;
use backup_core::facts::TableName;
use backup_core::manifest::{PartFormat, PartKind, PartName};
use backup_process::ToolEnv;
use sqlx::Connection as _;
use sqlx::postgres::PgConnection;
use tokio_util::sync::CancellationToken;

use super::catalog::{self, Found, Table, TableForm};
use super::outside::{self, Needs};
use super::part::{Content, Names, PgDump};
use super::planner::{self, BlockRange, DataPart, TableSize};
use super::range::{RangeSource, RangeTable};
use super::snapshot::{self, Snapshot, Taken, Taking};
use super::{PgDumperConfig, globals};
use crate::error::{Error, sqlstate};
use crate::inspector::table_name;
use crate::session;
use crate::{ToolVersion, Tools};

/// Tries to fix a moment while tables come and go.
const TRIES: usize = 3;
/// Of a block; `pg_relation_size` counts bytes.
const BLOCK: u64 = 8192;
/// A guess: what an upload is sized for before anything is known.
const SMALL_PART: u64 = 1 << 20;

/// How one part is made.
#[derive(Debug, Clone)]
enum Work {
    Globals,
    PgDump(Content),
    Range(RangeTable, BlockRange),
}

#[derive(Debug)]
pub(super) struct PgDumpSession {
    facts: SourceFacts,
    parts: Vec<PartPlan>,
    work: BTreeMap<PartName, Work>,
    snapshot: Snapshot,
    tools: Tools,
    pg_dump: PgDump,
    ranges: RangeSource,
    globals_env: ToolEnv,
    with_passwords: bool,
}

/// What [`PgDumpSession::open`] found out before it planned.
struct Opened {
    tools: Tools,
    version_num: u32,
    server_version: String,
    can_check_clients: bool,
    taken: Taken,
    found: Found,
    needs: Needs,
}

impl PgDumpSession {
    pub(super) async fn open(
        config: &PgDumperConfig,
        jobs: usize,
        cancel: &CancellationToken,
    ) -> Result<Self, Error> {
        let mut tries = 1..=TRIES;
        loop {
            tries.next();
            let opening = Self::open_once(config, jobs, cancel);
            let opened = tokio::select! {
                opened = opening => opened,
                () = dropped_after_grace(cancel) => Err(Error::Cancelled),
            };
            match opened {
                // A table went away between listing and locking it.
                Err(Error::Query { source, .. })
                    if sqlstate(&source).as_deref() == Some("42P01") =>
                {
                    tracing::debug!("a table was dropped while the dump began");
                    if tries.is_empty() {
                        return Err(Error::TablesChange {
                            source: Some(source),
                        });
                    }
                }
                other => return other,
            }
        }
    }

    async fn open_once(
        config: &PgDumperConfig,
        jobs: usize,
        cancel: &CancellationToken,
    ) -> Result<Self, Error> {
        let opened = prepare(config, cancel).await?;
        let database = &config.database;
        if opened.found.details.name != *database {
            return Err(Error::InvalidInput {
                message: format!(
                    "connected to database {:?} instead of {database:?}",
                    opened.found.details.name
                ),
            });
        }
        let whole = config.filter.is_empty();
        refuse_hidden_rows(config, &opened.taken.tables)?;
        let settings = tool_settings(opened.version_num, opened.can_check_clients);
        let env = config.connection.tool_env(database, &settings)?;
        let details = &opened.found.details;
        let snapshot = &opened.taken.snapshot;
        let pg_dump = PgDump {
            program: opened.tools.pg_dump.clone(),
            env: env.clone(),
            database: database.clone(),
            snapshot: snapshot.id().to_owned(),
            lock_wait: config.lock_wait_timeout,
            filter: config.filter.clone(),
            extensions: opened.needs.extensions.clone(),
        };
        let ranges = RangeSource {
            config: config.connection.clone(),
            database: database.clone(),
            snapshot: snapshot.id().to_owned(),
            version_num: opened.version_num,
            server_version: opened.server_version.clone(),
            dump_version: opened.tools.version.to_string(),
            encoding: details.encoding.clone(),
            time: details.snapshot.time.clone(),
            lock_wait_ms: config.lock_wait_timeout.as_millis(),
        };
        let (parts, work) = if whole {
            plan_whole(config, &opened, jobs).await?
        } else {
            plan_filtered(config, &opened.taken)?
        };
        let facts = source_facts(config, &opened)?;
        Ok(Self {
            facts,
            parts,
            work,
            pg_dump,
            ranges,
            globals_env: env,
            with_passwords: opened.found.reads_passwords,
            snapshot: opened.taken.snapshot,
            tools: opened.tools,
        })
    }
}

/// Cancelling is the business of each step, which cleans up; this is for a step that hangs.
async fn dropped_after_grace(cancel: &CancellationToken) {
    cancel.cancelled().await;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
}

async fn prepare(config: &PgDumperConfig, cancel: &CancellationToken) -> Result<Opened, Error> {
    let mut scout = tokio::select! {
        scout = config.connection.connect(&config.database) => scout?,
        () = cancel.cancelled() => return Err(Error::Cancelled),
    };
    let version_num = catalog::version_num(&mut scout).await?;
    if version_num < 140_000 {
        return Err(Error::InvalidInput {
            message: format!(
                "server {} is older than 14, the oldest supported version",
                ToolVersion::from_num(version_num)
            ),
        });
    }
    let server_version =
        catalog::text(&mut scout, "SHOW server_version", "read the version").await?;
    let tools = config.tools.locate(version_num, cancel).await?;
    let can_check_clients = session::prepare(&mut scout, version_num).await?;
    let taking = Taking {
        config: &config.connection,
        database: &config.database,
        version_num,
        lock_wait: config.lock_wait_timeout,
        skip_forbidden: !config.filter.is_empty(),
    };
    let taken = snapshot::take(taking, &mut scout, cancel).await?;
    let found = read_details(config, &mut scout, taken.snapshot.id(), version_num);
    let (found, needs) = found.await?;
    // The server notices a closed connection without this too.
    let _ = scout.close().await;
    Ok(Opened {
        tools,
        version_num,
        server_version,
        can_check_clients,
        taken,
        found,
        needs,
    })
}

/// Reads them on another connection than the coordinator's, whose transaction no failure may end.
async fn read_details(
    config: &PgDumperConfig,
    scout: &mut PgConnection,
    snapshot: &str,
    version_num: u32,
) -> Result<(Found, Needs), Error> {
    let begin = format!(
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {}",
        crate::quote_literal(snapshot)
    );
    session::execute(scout, begin, "join the snapshot").await?;
    let found = catalog::details(scout, version_num, config.filter.names_all()).await?;
    let needs = outside::needs(scout, &config.filter).await;
    session::execute(scout, "COMMIT", "leave the snapshot").await?;
    Ok((found, needs))
}

/// `pg_dump` refuses such a table too, but one by one and after minutes of work.
fn refuse_hidden_rows(config: &PgDumperConfig, tables: &[Table]) -> Result<(), Error> {
    const NAMED: usize = 5;
    let hidden: Vec<String> = tables
        .iter()
        .filter(|table| table.form != TableForm::Empty && table.hides_rows)
        .map(|table| table_name(&table.schema, &table.name).to_string())
        .collect();
    if hidden.is_empty() || !config.filter.is_empty() {
        return Ok(());
    }
    let more = match hidden.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Err(Error::HiddenRows {
        tables: hidden[..hidden.len().min(NAMED)].join(", ") + &more,
        user: config.connection.user.clone(),
    })
}

/// Server settings of `pg_dump`'s sessions: what a login or database may have changed and `pg_dump`
/// does not set itself.
fn tool_settings(version_num: u32, can_check_clients: bool) -> Vec<(&'static str, &'static str)> {
    let mut settings = vec![
        ("statement_timeout", "0"),
        ("idle_in_transaction_session_timeout", "0"),
        ("idle_session_timeout", "0"),
        ("bytea_output", "hex"),
        ("xmlbinary", "base64"),
        ("jit", "off"),
    ];
    if version_num >= 170_000 {
        settings.push(("transaction_timeout", "0"));
    }
    if can_check_clients {
        settings.push(("client_connection_check_interval", "2s"));
    }
    settings
}

fn source_facts(config: &PgDumperConfig, opened: &Opened) -> Result<SourceFacts, Error> {
    let mut warnings = opened.found.warnings.clone();
    warnings.extend(opened.needs.warnings.iter().cloned());
    if config.include_globals && !opened.found.reads_passwords {
        warnings.push(globals::NO_PASSWORDS.to_owned());
    }
    if opened.taken.unlocked > 0 {
        warnings.push(format!(
            "{} tables have names that are no text in the database's encoding and were locked late",
            opened.taken.unlocked
        ));
    }
    let details = serde_json::to_value(&opened.found.details).map_err(|e| Error::InvalidInput {
        message: format!("details of the database are not JSON: {e}"),
    })?;
    Ok(SourceFacts {
        database: config.database.clone(),
        server_version: opened.server_version.clone(),
        tool_version: opened.tools.version.to_string(),
        filtered: !config.filter.is_empty(),
        details,
        warnings,
    })
}

type Plan = (Vec<PartPlan>, BTreeMap<PartName, Work>);

struct Planning {
    parts: Vec<PartPlan>,
    work: BTreeMap<PartName, Work>,
}

impl Planning {
    /// Definitions and globals come first: they are small, and show early whether anything works.
    fn new(config: &PgDumperConfig, tables: usize) -> Result<Self, Error> {
        let mut planning = Self {
            parts: Vec::new(),
            work: BTreeMap::new(),
        };
        let estimate = SMALL_PART.max(4096 * u64::try_from(tables).unwrap_or(0));
        planning.add(
            "schema",
            PartKind::Schema,
            estimate,
            Work::PgDump(Content::Schema),
        )?;
        if config.include_globals {
            planning.add("globals", PartKind::Globals, SMALL_PART, Work::Globals)?;
        }
        Ok(planning)
    }

    fn add(
        &mut self,
        name: &str,
        kind: PartKind,
        estimated_bytes: u64,
        work: Work,
    ) -> Result<(), Error> {
        let name = PartName::new(name).map_err(|e| Error::InvalidInput {
            message: e.to_string(),
        })?;
        let format = match kind {
            PartKind::Globals => PartFormat::Sql,
            _ => PartFormat::Custom,
        };
        self.work.insert(name.clone(), work);
        self.parts.push(PartPlan {
            name,
            kind,
            format,
            estimated_bytes,
        });
        Ok(())
    }

    fn finish(self) -> Plan {
        (self.parts, self.work)
    }
}

/// With a filter only `pg_dump` knows which tables it leaves out, so one part holds all rows.
fn plan_filtered(config: &PgDumperConfig, taken: &Taken) -> Result<Plan, Error> {
    let mut planning = Planning::new(config, taken.tables.len())?;
    let bytes = taken.tables.iter().map(|table| table.bytes).sum::<u64>();
    let rest = Content::Rest {
        apart: Vec::new(),
        expected: BTreeSet::new(),
    };
    planning.add("data-rest", PartKind::Data, bytes, Work::PgDump(rest))?;
    Ok(planning.finish())
}

async fn plan_whole(config: &PgDumperConfig, opened: &Opened, jobs: usize) -> Result<Plan, Error> {
    let taken = &opened.taken;
    let encoding = &opened.found.details.encoding;
    let tables: Vec<&Table> = taken
        .tables
        .iter()
        .filter(|table| table.form != TableForm::Empty)
        .collect();
    let sizes: Vec<TableSize> = tables.iter().map(|table| size(table, encoding)).collect();
    let planned = planner::plan(&sizes, taken.large_object_bytes, jobs, config.part_sizes);
    let names = |index: usize| -> Names {
        tables[index]
            .plain_names(encoding)
            .map(|(schema, name)| (schema.to_owned(), name.to_owned()))
            .unwrap_or_default()
    };
    let mut apart = BTreeSet::new();
    for part in &planned {
        match &part.part {
            DataPart::Tables(members) => apart.extend(members.iter().copied()),
            DataPart::Range(range) => {
                apart.insert(range.table);
            }
            DataPart::Rest => {}
        }
    }
    let mut planning = Planning::new(config, tables.len())?;
    let mut number = 0;
    for data in planned {
        let (name, work) = match data.part {
            DataPart::Rest => {
                let rest = Content::Rest {
                    apart: apart.iter().map(|&index| names(index)).collect(),
                    expected: all_but(&tables, &apart),
                };
                ("data-rest".to_owned(), Work::PgDump(rest))
            }
            DataPart::Tables(members) => {
                number += 1;
                let members = members.into_iter().map(names).collect();
                (
                    format!("data-{number:04}"),
                    Work::PgDump(Content::Tables(members)),
                )
            }
            DataPart::Range(range) => {
                number += 1;
                let oid = tables[range.table].oid;
                let (columns, owner) = taken.snapshot.columns(oid).await?;
                let table = RangeTable {
                    names: names(range.table),
                    oid,
                    owner,
                    columns,
                };
                (format!("data-{number:04}"), Work::Range(table, range))
            }
        };
        planning.add(&name, PartKind::Data, data.bytes, work)?;
    }
    Ok(planning.finish())
}

fn size(table: &Table, encoding: &str) -> TableSize {
    let can_be_apart = table.plain_names(encoding).is_some();
    TableSize {
        bytes: table.bytes,
        blocks: table.heap_bytes / BLOCK,
        can_be_apart,
        // Our own statement names the columns in UTF-8 while the session speaks the archive's encoding.
        can_be_split: can_be_apart && table.plain_inside && table.form == TableForm::Blocks,
    }
}

fn all_but(tables: &[&Table], apart: &BTreeSet<usize>) -> BTreeSet<TableName> {
    tables
        .iter()
        .enumerate()
        .filter(|(index, _)| !apart.contains(index))
        .map(|(_, table)| table_name(&table.schema, &table.name))
        .collect()
}

#[async_trait]
impl DumpSession for PgDumpSession {
    fn source(&self) -> &SourceFacts {
        &self.facts
    }

    fn parts(&self) -> &[PartPlan] {
        &self.parts
    }

    async fn part(
        &self,
        part: &PartPlan,
        cancel: &CancellationToken,
    ) -> Result<PartStream, PortError> {
        let Some(work) = self.work.get(&part.name) else {
            return Err(Error::NotFound {
                what: format!("part {}", part.name),
            }
            .into());
        };
        if cancel.is_cancelled() {
            return Err(PortError::cancelled());
        }
        self.snapshot.check().await?;
        let stream = match work {
            Work::Globals => globals::start(
                &self.tools,
                self.globals_env.clone(),
                &self.facts.database,
                self.with_passwords,
                cancel,
            )?,
            Work::PgDump(content) => self.pg_dump.start(content.clone(), cancel)?,
            Work::Range(table, range) => self.ranges.start(table, *range, cancel).await?,
        };
        Ok(stream)
    }

    async fn finish(&self) -> Result<(), PortError> {
        Ok(self.snapshot.release().await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("UTF8", "größe", true, true, true)]
    #[case("LATIN1", "plain", true, true, true)]
    // A column or the owner is not ASCII.
    #[case("LATIN1", "plain", false, true, false)]
    #[case("LATIN1", "größe", true, false, false)]
    fn only_plain_names_are_read_by_us(
        #[case] encoding: &str,
        #[case] name: &str,
        #[case] plain_inside: bool,
        #[case] apart: bool,
        #[case] split: bool,
    ) {
        let table = Table {
            oid: 1,
            schema: b"public".to_vec(),
            name: name.as_bytes().to_vec(),
            sql_name: None,
            form: TableForm::Blocks,
            hides_rows: false,
            may_lock: true,
            plain_inside,
            heap_bytes: 0,
            bytes: 0,
        };
        let size = size(&table, encoding);
        assert_eq!((size.can_be_apart, size.can_be_split), (apart, split));
    }
}
