//! [`PgRestorer`]: a backup into a new database.
//!
//! The definitions are fetched first and kept in a private file, because `pg_restore` has to read
//! them more than once. They say what is needed, so everything that can be refused is refused before
//! the database is made. Rows go from the store into `pg_restore` through a pipe; nothing of them
//! touches a disk of ours.

mod analyze;
mod choice;
mod complaints;
mod definitions;
mod error;
mod excerpt;
mod extensions;
mod load;
mod pg_restore;
mod prepare;
mod read_back;
mod refill;
mod rehearsal;
mod roles;
mod schedule;
mod sql_text;
mod superuser;
mod target;
mod toc_list;
mod workspace;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use backup_core::error::{ErrorKind, PortError};
use backup_core::facts::Scope;
use backup_core::manifest::Content;
use backup_core::restorer::{
    LoadReport, PartReader, ReadBack, RestoreRequest, RestoreSession, Restorer,
};
use tokio_util::sync::CancellationToken;

pub use error::{RestoreError, Words};
pub(crate) use prepare::details;
pub use rehearsal::Rehearsal;

use crate::{ConnectionConfig, DatabaseDetails, ToolLocator};
use definitions::TargetDump;
use load::Loader;
use refill::Refill;
use target::Target;
use toc_list::LoadPlan;

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
    /// Whether roles that are missing are made, without the right to log in.
    pub create_roles: bool,
    /// Creates extensions that the login must not create, and does nothing else.
    pub admin: Option<ConnectionConfig>,
    /// Which extensions `admin` may create.
    pub admin_extensions: Vec<String>,
    /// How many bytes can be written to a directory of this machine, for a server that runs here;
    /// no space is asked for if absent.
    pub free_bytes: Option<fn(&Path) -> Option<u64>>,
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
            create_roles: false,
            admin: None,
            admin_extensions: Vec::new(),
            free_bytes: Some(target::space::free_bytes),
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
}

#[async_trait]
impl Restorer for PgRestorer {
    async fn create(
        &self,
        request: &RestoreRequest,
        parts: Arc<dyn PartReader>,
        cancel: &CancellationToken,
    ) -> Result<Box<dyn RestoreSession>, PortError> {
        let content = parts.manifest().content();
        if content != Content::Database {
            let what = format!("the backup is {}, which is no database", content.words());
            return Err(PortError::new(ErrorKind::Refused, what)
                .with_hint("restore --target-dir DIR writes it as files"));
        }
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

/// What a load into definitions takes beside the loader.
#[derive(Debug)]
struct Filling {
    refill: Refill,
    /// Kept for the definitions that it has.
    loader: Arc<Loader>,
    /// Dump ids of what is made again after the rows.
    aside: Vec<u32>,
}

impl Filling {
    /// Leaves the database as it was found.
    async fn undo(&self) -> Result<(), RestoreError> {
        self.refill.set_aside().await?;
        self.refill.empty().await?;
        let never = CancellationToken::new();
        self.loader.entries(&self.aside, &never).await.map(drop)
    }
}

/// One database that this run made or fills.
#[derive(Debug)]
struct Session {
    request: RestoreRequest,
    reader: Arc<dyn PartReader>,
    details: DatabaseDetails,
    target: Target,
    vacuum_analyze: bool,
    version_num: u32,
    scope: Scope,
    notes: Vec<String>,
    /// Where only content is restored.
    refill: Option<Filling>,
    /// Compares the definitions.
    definitions: Option<TargetDump>,
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
        if let Some(filling) = &self.refill {
            filling.refill.set_aside().await?;
        }
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
        // What was there has its properties, and keeps its mark, which a failed run needs.
        if self.refill.is_none() {
            let ownership = &self.request.ownership;
            warnings.extend(self.target.finish(&self.details, ownership).await?);
        }
        Ok(LoadReport { warnings })
    }
}

#[async_trait]
impl RestoreSession for Session {
    fn scope(&self) -> Scope {
        self.scope.clone()
    }

    fn notes(&self) -> Vec<String> {
        self.notes.clone()
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
            definitions: self.definitions.as_ref(),
        };
        // The limit is for those who use the database, and we want a few connections at once.
        let limit = self.details.connection_limit;
        let limited = self.refill.is_none() && limit >= 0;
        if limited {
            self.target.limit_connections(-1).await?;
        }
        let read = job.run(cancel).await;
        if limited {
            self.target.limit_connections(limit).await?;
        }
        Ok(read?)
    }

    async fn discard(&self) -> Result<(), PortError> {
        match &self.refill {
            Some(filling) => Ok(filling.undo().await?),
            None => Ok(self.target.discard().await?),
        }
    }
}
