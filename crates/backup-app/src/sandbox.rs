//! Where sandboxes are made, and how many.

use std::sync::Arc;

use backup_core::engine::{SandboxOutcome, SandboxRequest};
use backup_core::error::Error as CoreError;
use backup_core::observer::NoopObserver;
use backup_core::restorer::Selection;
use backup_core::run_record::{Operation, RunId};
use backup_core::sandbox::SandboxLimits;
use backup_pg_process::PgSandboxes;
use tokio_util::sync::CancellationToken;

use crate::compose::App;
use crate::connection::ServerOverrides;
use crate::error::AppError;
use crate::found::Found;
use crate::journal::{Journal, Mark, Reading};
use crate::keys::Keys;
use crate::limited::within;
use crate::text::shown;

/// A server for sandboxes, with what people may have there.
#[derive(Debug)]
pub struct SandboxSetup {
    /// Makes and drops them.
    pub server: PgSandboxes,
    /// The limits.
    pub limits: SandboxLimits,
    /// Parts at the same time.
    pub jobs: usize,
}

/// A backup that somebody wants to look into.
#[derive(Debug)]
pub struct SandboxTask<'a> {
    /// Which.
    pub found: &'a Found,
    /// Who, as the frontend knows him.
    pub person: &'a str,
    /// What of it.
    pub selection: Selection,
    /// What belongs into its record.
    pub mark: Mark,
}

/// What came of it.
#[derive(Debug)]
pub struct SandboxRun {
    /// The sandbox, or why there is none.
    pub result: Result<SandboxOutcome, AppError>,
    /// The record, if it is there.
    pub run: Option<RunId>,
}

impl App {
    /// Makes a sandbox while the store says that its backup is read, within the time that a backup
    /// has, and leaves a record of it: that of a restore.
    ///
    /// # Cancellation
    /// There is no sandbox, and the run is recorded as cancelled.
    pub async fn run_sandbox(
        &self,
        setup: &SandboxSetup,
        task: &SandboxTask<'_>,
        journal: &Journal,
        cancel: &CancellationToken,
    ) -> SandboxRun {
        let (engine, manifest) = (&task.found.engine, &task.found.manifest);
        let place = &task.found.place.name;
        let in_time = cancel.child_token();
        let mut run = task.mark.begin(Operation::Restore);
        run.source = Some(manifest.source.clone());
        run.backup = Some(manifest.id.clone());
        journal.began(&run);
        let request = SandboxRequest {
            person: task.person.to_owned(),
            selection: task.selection.clone(),
            jobs: setup.jobs,
            limits: setup.limits,
        };
        let work = engine.make_sandbox(&setup.server, manifest.clone(), &request, &in_time);
        let limit = self.config().defaults.timeout;
        let work = within(limit, Box::pin(work), &in_time);
        let what = Reading {
            engine,
            place,
            backup: manifest,
            operation: Operation::Restore,
        };
        let result = match journal.reading(&what, work, cancel).await {
            Ok((Err(CoreError::Cancelled), true)) => Err(AppError::Timeout(limit)),
            Ok((made, _)) => made.map_err(AppError::from),
            Err(error) => Err(error.into()),
        };
        match &result {
            Ok(made) => {
                run.target_database = Some(made.access.database.clone());
                run.restored(&made.restore);
            }
            Err(AppError::Engine(error)) => run.failed(error),
            Err(error) => run.ended_with(error, error.kind()),
        }
        let run = journal.record(engine, place, run, cancel).await;
        SandboxRun { result, run }
    }

    /// Drops the sandboxes whose time is over, and says so in the log.
    ///
    /// # Errors
    /// When their server cannot be asked.
    pub async fn sweep_sandboxes(&self) -> Result<(), AppError> {
        let Some(setup) = self.sandboxes()? else {
            return Ok(());
        };
        let place = self.places()?.into_iter().next();
        let place = place.ok_or_else(|| AppError::usage("no place for backups is given"))?;
        // Nothing is asked of the place.
        let engine = self.engine(&place, Keys::Recipients, Arc::new(NoopObserver))?;
        for swept in engine.sweep_sandboxes(&setup.server).await? {
            let database = &swept.sandbox.database;
            match swept.left {
                None => tracing::info!(target: "backup", "sandbox {database} has ended"),
                Some(why) => {
                    let why = shown(&why);
                    tracing::warn!(target: "backup", "sandbox {database} cannot be dropped: {why}");
                }
            }
        }
        Ok(())
    }

    /// The configured server for sandboxes, if there is one.
    ///
    /// # Errors
    /// When its settings make no sense.
    pub fn sandboxes(&self) -> Result<Option<SandboxSetup>, AppError> {
        let settings = &self.config().sandbox;
        let Some(name) = &settings.server else {
            return Ok(None);
        };
        let server = self.config().server.get(name);
        let overrides = ServerOverrides::default();
        let connection = overrides.connection(server, self.environment())?;
        let admin = overrides.admin(&connection, server, self.environment())?;
        let target = self.restore_target(Some(name))?;
        let production = server.is_some_and(|server| server.production);
        Ok(Some(SandboxSetup {
            server: PgSandboxes::new(name, target.restorer, admin, production),
            limits: SandboxLimits {
                per_person: settings.per_person,
                total: settings.total,
                max_bytes: settings.max_size.bytes(),
                ttl: settings.ttl,
            },
            jobs: target.jobs,
        }))
    }
}
