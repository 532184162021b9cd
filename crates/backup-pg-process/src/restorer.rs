//! [`PgRestorer`]: a backup into a new database.
//!
//! The definitions are fetched first and kept in a private file, because `pg_restore` has to read
//! them more than once. They say what is needed, so everything that can be refused is refused before
//! the database is made. Rows go from the store into `pg_restore` through a pipe; nothing of them
//! touches a disk of ours.

mod analyze;
mod choice;
mod complaints;
mod error;
mod excerpt;
mod load;
mod pg_restore;
mod read_back;
mod rehearsal;
mod schedule;
mod target;
mod toc_list;
mod workspace;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use backup_core::error::PortError;
use backup_core::facts::Scope;
use backup_core::manifest::{Manifest, PartFormat, PartKind, PartName};
use backup_core::restorer::{
    LoadReport, Ownership, PartReader, ReadBack, RestoreRequest, RestoreSession, Restorer,
};
use backup_pg_archive::{ArchiveReport, DumpText};
use tokio_util::sync::CancellationToken;

pub use error::{RestoreError, Words};
use rehearsal::Backstage;
pub use rehearsal::Rehearsal;

use crate::{ConnectionConfig, DatabaseDetails, Error, ToolLocator, Tools};
use choice::Choice;
use complaints::Names;
use load::Loader;
use pg_restore::PgRestore;
pub(crate) use target::execute;
use target::{Server, Target};
use toc_list::{LoadPlan, Omit};
use workspace::Workspace;

/// How to restore into one server.
#[derive(Debug, Clone)]
pub struct PgRestorerConfig {
    /// The server and the login.
    pub connection: ConnectionConfig,
    /// Where the client programs are.
    pub tools: ToolLocator,
    /// Memory for each index build and each check of a foreign key; the server's own setting if
    /// absent. More is not always faster: sorts outgrow the processor's cache, and foreign keys are
    /// checked by a hash join where a merge of two indexes costs a fifth.
    pub maintenance_work_mem_bytes: Option<u64>,
    /// Whether to run VACUUM on large tables and ANALYZE on all.
    pub vacuum_analyze: bool,
    /// Where the private directory for the definitions is made, if not among temporary files.
    pub work_dir: Option<PathBuf>,
    /// Set where the server was made for this restore and the login is no superuser.
    pub rehearsal: Option<Rehearsal>,
}

impl PgRestorerConfig {
    /// The server's own memory settings, and everything analysed.
    #[must_use]
    pub fn new(connection: ConnectionConfig, tools: ToolLocator) -> Self {
        Self {
            connection,
            tools,
            maintenance_work_mem_bytes: None,
            vacuum_analyze: true,
            work_dir: None,
            rehearsal: None,
        }
    }
}

/// Restores backups of databases into new databases of one server.
#[derive(Debug, Clone)]
pub struct PgRestorer {
    config: PgRestorerConfig,
}

impl PgRestorer {
    /// A restorer that connects when it is used.
    #[must_use]
    pub fn new(config: PgRestorerConfig) -> Self {
        Self { config }
    }

    /// The server and the login.
    pub(crate) fn connection(&self) -> &ConnectionConfig {
        &self.config.connection
    }

    async fn prepare(
        &self,
        request: &RestoreRequest,
        reader: Arc<dyn PartReader>,
        cancel: &CancellationToken,
    ) -> Result<Session, RestoreError> {
        let details = details(reader.as_ref())?;
        let config = &self.config;
        let maintenance = &config.connection.maintenance_database;
        let mut connection = config.connection.connect(maintenance).await?;
        let server = Server::read(&mut connection).await?;
        server.check_name(&request.target_database)?;
        let manifest = reader.manifest();
        let run = run_of(manifest);
        let target = Target::new(config.connection.clone(), &request.target_database, &run);
        let mut warnings = server.check(manifest, &details, &request.ownership)?;
        if target.exists(&mut connection).await? {
            return Err(RestoreError::TargetExists {
                database: target.name,
            });
        }
        drop(connection);

        let workspace = Workspace::create(config.work_dir.as_deref())?;
        let part = schema_part(reader.as_ref())?;
        let archive = fetch(reader.as_ref(), &part, &workspace, cancel).await?;
        let choice = Choice::new(&request.selection, &archive.entries, reader.as_ref())?;
        warnings.extend(choice.warnings);
        let tools = self.tools(&archive, &server, cancel).await?;
        let pg_restore = self.pg_restore(&tools, (&archive, &server), request, &mut warnings)?;
        let login_owns = request.ownership == Ownership::Login;
        let omit = Omit {
            all_but: choice.dump_ids.as_ref(),
            vacuum: !config.vacuum_analyze,
            privileges: login_owns,
            superuser_objects: (login_owns || config.rehearsal.is_some()) && !server.is_superuser,
        };
        let plan = LoadPlan::new(&archive.entries, &choice.parts, omit);
        warnings.extend(self.left_out(&plan));
        let backstage = self.backstage(&details, &archive, &server);
        if cancel.is_cancelled() {
            return Err(Error::Cancelled.into());
        }
        warnings.extend(target.create(&server, &details, &request.ownership).await?);
        Ok(Session {
            request: request.clone(),
            details,
            target: target.clone(),
            vacuum_analyze: config.vacuum_analyze,
            version_num: server.version_num,
            scope: choice.scope.clone(),
            pending: Mutex::new(Some(Pending {
                loader: Arc::new(Loader {
                    reader: Arc::clone(&reader),
                    target,
                    workspace,
                    pg_restore,
                    parts: choice.parts,
                    scope: choice.scope,
                    backstage,
                }),
                plan,
                warnings,
            })),
            reader,
        })
    }

    /// What the plan leaves out, as warnings, unless nobody expects it of a rehearsal.
    fn left_out(&self, plan: &LoadPlan) -> Vec<String> {
        let left_out = plan.left_out.iter();
        let words = |entry| format!("{entry} is left out: only a superuser may create it");
        let left_out: Vec<String> = left_out.map(words).collect();
        match &self.config.rehearsal {
            Some(rehearsal) => {
                rehearsal.leave_out(left_out);
                Vec::new()
            }
            None => left_out,
        }
    }

    fn backstage(
        &self,
        details: &DatabaseDetails,
        archive: &ArchiveReport,
        server: &Server,
    ) -> Option<Backstage> {
        let rehearsal = self.config.rehearsal.as_ref()?;
        Some(rehearsal.backstage(details, &archive.entries, server))
    }

    /// The tools of the target's major: a newer `pg_restore` sets what an older server does not
    /// know. But never older than what wrote the archive, or it cannot read it.
    async fn tools(
        &self,
        archive: &ArchiveReport,
        server: &Server,
        cancel: &CancellationToken,
    ) -> Result<Tools, RestoreError> {
        let reads = oldest_reader(archive);
        let wanted = server.major().max(reads);
        let located = self.config.tools.locate(wanted * 10_000, cancel).await;
        if !matches!(located, Err(Error::ToolMissing { .. })) {
            return Ok(located?);
        }
        // pg_restore talks to newer servers too, unlike pg_dump.
        let installed = self.config.tools.installed(cancel).await?;
        let newest = installed
            .into_iter()
            .filter(|tools| tools.version.major >= reads)
            .max_by_key(|tools| tools.version);
        newest.map_or_else(|| Ok(located?), Ok)
    }

    fn pg_restore(
        &self,
        tools: &Tools,
        (archive, server): (&ArchiveReport, &Server),
        request: &RestoreRequest,
        warnings: &mut Vec<String>,
    ) -> Result<PgRestore, RestoreError> {
        let memory = self.config.maintenance_work_mem_bytes;
        let memory = memory.map(|bytes| format!("{}kB", bytes >> 10));
        // All of this is for a database that nobody uses yet. A crash of the server can lose the
        // last commits of a load, but `finish` commits durably after all of them.
        let mut settings = vec![
            ("synchronous_commit", "off"),
            ("statement_timeout", "0"),
            ("idle_in_transaction_session_timeout", "0"),
            // Checking a foreign key looks expensive enough to compile, and runs once.
            ("jit", "off"),
        ];
        if let Some(memory) = &memory {
            settings.push(("maintenance_work_mem", memory));
        }
        let database = &request.target_database;
        let env = self.config.connection.tool_env(database, &settings)?;
        let mut pg_restore = PgRestore::new(tools.pg_restore.clone(), env, database)
            .with_names(Names::of(&archive.entries));
        if request.ownership == Ownership::Login {
            pg_restore = pg_restore.with_option("--no-owner").with_option("--no-acl");
        }
        let tablespaces = archive
            .entries
            .iter()
            .filter_map(|entry| entry.tablespace.as_ref());
        let missing: Option<&DumpText> = tablespaces
            .filter(|name| !name.is_empty())
            .find(|name| !server.has_tablespace(&name.to_str_lossy()));
        if let Some(missing) = missing {
            pg_restore = pg_restore.with_option("--no-tablespaces");
            warnings.push(format!(
                "tablespace {missing} does not exist on the target, so the default is used"
            ));
        }
        Ok(pg_restore)
    }
}

#[async_trait]
impl Restorer for PgRestorer {
    async fn create(
        &self,
        request: &RestoreRequest,
        parts: Arc<dyn PartReader>,
        cancel: &CancellationToken,
    ) -> Result<Box<dyn RestoreSession>, PortError> {
        let session = self.prepare(request, parts, cancel).await?;
        Ok(Box::new(session))
    }
}

/// What a load takes, and what was noticed before it.
#[derive(Debug)]
struct Pending {
    loader: Arc<Loader>,
    plan: LoadPlan,
    warnings: Vec<String>,
}

/// One database that this run made.
#[derive(Debug)]
struct Session {
    request: RestoreRequest,
    reader: Arc<dyn PartReader>,
    details: DatabaseDetails,
    target: Target,
    vacuum_analyze: bool,
    version_num: u32,
    scope: Scope,
    /// Until it is loaded.
    pending: Mutex<Option<Pending>>,
}

impl Session {
    async fn load_once(&self, cancel: &CancellationToken) -> Result<LoadReport, RestoreError> {
        let pending = self
            .pending
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(pending) = pending else {
            return Err(RestoreError::Internal {
                what: "a target is loaded once".to_owned(),
            });
        };
        let Pending {
            loader,
            plan,
            mut warnings,
        } = pending;
        let jobs = self.request.jobs.max(1);
        let vacuumed = plan.vacuumed();
        let loaded = loader.load(plan, jobs, cancel).await;
        if let Some(loader) = Arc::into_inner(loader) {
            loader.workspace.remove()?;
        }
        warnings.extend(loaded?);
        if self.vacuum_analyze {
            let started = std::time::Instant::now();
            warnings.extend(analyze::analyze(&self.target, &vacuumed, jobs, cancel).await?);
            tracing::debug!(elapsed = ?started.elapsed(), "analysed");
        }
        warnings.extend(
            self.target
                .finish(&self.details, &self.request.ownership)
                .await?,
        );
        Ok(LoadReport { warnings })
    }
}

#[async_trait]
impl RestoreSession for Session {
    fn scope(&self) -> Scope {
        self.scope.clone()
    }

    async fn load(&self, cancel: &CancellationToken) -> Result<LoadReport, PortError> {
        Ok(self.load_once(cancel).await?)
    }

    async fn read_back(&self, cancel: &CancellationToken) -> Result<ReadBack, PortError> {
        let facts = self.reader.facts().within(&self.scope);
        let job = read_back::Job {
            target: &self.target,
            facts: &facts,
            details: &self.details,
            version_num: self.version_num,
            jobs: self.request.jobs.max(1),
        };
        Ok(job.run(cancel).await?)
    }

    async fn discard(&self) -> Result<(), PortError> {
        Ok(self.target.discard().await?)
    }
}

pub(crate) fn details(reader: &dyn PartReader) -> Result<DatabaseDetails, RestoreError> {
    let details = &reader.facts().details;
    serde_json::from_value(details.clone()).map_err(|error| RestoreError::BadBackup {
        what: "the backup does not say what its database was like".to_owned(),
        source: Some(error.into()),
    })
}

/// Keeps the definitions, which `pg_restore` reads several times, in the private directory.
async fn fetch(
    reader: &dyn PartReader,
    part: &PartName,
    workspace: &Workspace,
    cancel: &CancellationToken,
) -> Result<ArchiveReport, RestoreError> {
    let body = reader
        .open(part)
        .await
        .map_err(|source| RestoreError::Part {
            part: part.clone(),
            source,
        })?;
    workspace.keep_archive(part, body, cancel).await
}

fn schema_part(reader: &dyn PartReader) -> Result<PartName, RestoreError> {
    let mut parts = reader.manifest().parts.iter();
    let part = parts
        .find(|part| part.kind == PartKind::Schema && part.format == PartFormat::Custom)
        .ok_or_else(|| RestoreError::bad_backup("the backup has no definitions"))?;
    Ok(part.name.clone())
}

/// The oldest major whose `pg_restore` reads the archive.
///
/// <https://github.com/postgres/postgres/blob/master/src/bin/pg_dump/pg_backup_archiver.h>
fn oldest_reader(archive: &ArchiveReport) -> u32 {
    match archive.header.version.minor {
        ..=14 => 12,
        15 => 16,
        _ => 17,
    }
}

/// Tells this run from every other one, also of the same backup.
fn run_of(manifest: &Manifest) -> String {
    let Manifest { source, id, .. } = manifest;
    format!("restore of {source} {id}, {}", nonce())
}

fn nonce() -> String {
    use std::hash::{BuildHasher as _, Hasher as _};
    let random = std::hash::RandomState::new();
    let mut hasher = random.build_hasher();
    hasher.write_u32(std::process::id());
    format!("run {:016x}", hasher.finish())
}
