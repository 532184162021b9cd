//! One drill from its backup to its record, the same for every frontend: what it runs on, and what
//! it asks.

mod choose;

use std::sync::Arc;
use std::time::Duration;

use backup_core::backup::SourceName;
use backup_core::drill::{Assertion, DrillServer};
use backup_core::engine::{DrillOptions, DrillOutcome};
use backup_core::error::Error as CoreError;
use backup_core::manifest::{Content, Manifest};
use backup_core::observer::Observer;
use backup_core::run_record::{Operation, RunId, RunRecord};
use backup_pg_process::{DrillCluster, DrillClusterConfig, StandingServer};
use tokio_util::sync::CancellationToken;

use crate::App;
use crate::connection::{ServerOverrides, tools};
use crate::error::AppError;
use crate::families::is_about;
use crate::inspector::AnyInspector;
use crate::journal::{Journal, Mark, Reading};
use crate::keys::Keys;
use crate::limited::within;
use crate::place::Place;

pub use choose::{ChosenDrill, ChosenDrills, DrillWish};

/// One drill, ready to run.
#[derive(Debug)]
pub struct DrillSetup {
    /// Gives the server.
    pub server: Box<dyn DrillServer>,
    /// How.
    pub options: DrillOptions,
    /// How long it may take altogether.
    pub timeout: Duration,
}

/// A backup to drill.
#[derive(Debug)]
pub struct DrillTask<'a> {
    /// Which.
    pub manifest: &'a Manifest,
    /// Where it is read.
    pub place: &'a Place,
    /// What belongs into its record.
    pub mark: Mark,
}

/// What came of it.
#[derive(Debug)]
pub struct DrillRun {
    /// What was found, also of a backup that cannot be restored; an error when it was not found
    /// out.
    pub result: Result<DrillOutcome, AppError>,
    /// The run.
    pub id: RunId,
    /// Whether there is a record of it.
    pub recorded: bool,
}

impl App {
    /// Drills a backup while the store says so, within the time that drills have, and leaves a
    /// record of it.
    ///
    /// # Cancellation
    /// Everything that was made for it is removed, and it is recorded as cancelled.
    pub async fn run_drill(
        &self,
        task: &DrillTask<'_>,
        journal: &Journal,
        observer: Arc<dyn Observer>,
        cancel: &CancellationToken,
    ) -> DrillRun {
        let mut run = task.mark.begin(Operation::Drill);
        run.source = Some(task.manifest.source.clone());
        run.backup = Some(task.manifest.id.clone());
        journal.began(&run);
        let (id, mut ended) = (run.id.clone(), run.clone());
        let (result, recorded) = match self.drilled(task, (run, journal), observer, cancel).await {
            Ok((outcome, recorded)) => (outcome, recorded),
            Err(error) => {
                // There is no record of one that did not begin, and it is told all the same.
                ended.ended_with(&error, error.kind());
                if let Some(notices) = journal.notices() {
                    notices.ended(&ended, None);
                }
                (Err(error), false)
            }
        };
        DrillRun {
            result,
            id,
            recorded,
        }
    }

    /// The outer error is one of a drill that did not begin, of which there is no record.
    async fn drilled(
        &self,
        task: &DrillTask<'_>,
        (mut run, journal): (RunRecord, &Journal),
        observer: Arc<dyn Observer>,
        cancel: &CancellationToken,
    ) -> Result<(Result<DrillOutcome, AppError>, bool), AppError> {
        if cancel.is_cancelled() {
            return Err(CoreError::Cancelled.into());
        }
        let in_time = cancel.child_token();
        let manifest = task.manifest;
        let engine = self.engine(task.place, Keys::Identities, observer)?;
        let setup = self.drill(manifest)?;
        let server = setup.server.as_ref();
        let work = Box::pin(engine.drill(server, manifest.clone(), &setup.options, &in_time));
        let work = within(setup.timeout, work, &in_time);
        let place = &task.place.name;
        let what = Reading {
            engine: &engine,
            place,
            backup: manifest,
            operation: Operation::Drill,
        };
        let (outcome, late) = journal.reading(&what, work, cancel).await?;
        let stopped = matches!(outcome.error, Some(CoreError::Cancelled));
        let timeout = AppError::Timeout(setup.timeout);
        run.drilled(&outcome);
        if late && stopped {
            run.ended_with(&timeout, timeout.kind());
        }
        let recorded = journal.record(&engine, place, run, cancel).await.is_some();
        let result = match (stopped, late) {
            (true, true) => Err(timeout),
            (true, false) => Err(CoreError::Cancelled.into()),
            (false, _) => Ok(outcome),
        };
        Ok((result, recorded))
    }

    /// The server and the questions for a drill of a backup.
    ///
    /// # Errors
    /// When the settings make no sense, or nothing can be made of such a backup but files.
    pub fn drill(&self, backup: &Manifest) -> Result<DrillSetup, AppError> {
        let (source, content) = (&backup.source, backup.content());
        if !content.can_be_drilled() {
            let what = format!(
                "backup {} is {}: there is nothing to rehearse",
                backup.id,
                content.words()
            );
            let hint = "verify --level decoded reads all of it, restore --target-dir gives it back";
            return Err(AppError::usage_hint(what, hint));
        }
        let settings = &self.config().drill;
        let about = settings.assertions.iter();
        let about = about.filter(|assertion| is_about(&assertion.source, source.as_str()));
        let options = DrillOptions {
            jobs: self.jobs(None)?,
            assertions: about
                .map(|assertion| Assertion {
                    sql: assertion.sql.clone(),
                    timeout: settings.assertion_timeout,
                })
                .collect(),
            inspector: Arc::new(AnyInspector),
        };
        Ok(DrillSetup {
            server: match content {
                Content::Redis => Box::new(self.redis_drill(source.as_str())),
                _ => self.drill_server(source)?,
            },
            options,
            timeout: settings.timeout,
        })
    }

    fn drill_server(&self, source: &SourceName) -> Result<Box<dyn DrillServer>, AppError> {
        let settings = &self.config().drill;
        let servers = &self.config().server;
        if let Some(name) = &settings.server {
            let server = servers.get(name);
            let connection = ServerOverrides::default().connection(server, self.environment())?;
            return Ok(Box::new(StandingServer {
                name: name.clone(),
                connection,
                tools: tools(server, self.environment()),
                production: server.is_some_and(|server| server.production),
            }));
        }
        let own = self.server_of(source.as_str());
        let own = own.and_then(|name| servers.get(&name));
        let mut locator = tools(own, self.environment());
        if let Some(directory) = &settings.bin_dir {
            locator.bin_dirs.insert(0, directory.clone());
        }
        Ok(Box::new(DrillCluster::new(DrillClusterConfig {
            tools: locator,
            directory: settings.directory.clone(),
            account: settings.user.clone(),
            extensions: settings.extensions.clone(),
        })))
    }
}
