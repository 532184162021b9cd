//! Which backups a command means, before any is taken: a source may stand for every database of
//! a server, and those are known only when the server is asked.

use std::collections::BTreeSet;
use std::sync::Arc;

use backup_config::SourceConfig;
use backup_core::backup::SourceName;
use backup_core::databases::{DatabaseFinder as _, FoundDatabase, Obstacle, choose, stranger};
use backup_core::error::{Error as CoreError, ErrorKind, PortError, chain};
use backup_core::observer::NoopObserver;
use backup_core::run_record::Operation;
use futures::future::join_all;
use tokio_util::sync::CancellationToken;

use super::{BackupRun, failed_at};
use crate::compose::{App, BackupJob};
use crate::error::AppError;
use crate::hooks::Hooks;
use crate::journal::{Journal, Mark};
use crate::place::Place;
use crate::text::shown;

/// What a command means.
#[derive(Debug, Default)]
pub struct BackupTasks {
    /// Backups to take, in this order.
    pub jobs: Vec<Box<BackupJob>>,
    /// What was asked for and cannot be begun: it has failed already, and is to be recorded after
    /// the others, for the first of those makes the repository.
    pub refused: Vec<RefusedBackup>,
    /// Databases that a pattern matches and that are left out.
    pub skipped: Vec<SkippedDatabase>,
}

/// What cannot be begun.
#[derive(Debug)]
pub struct RefusedBackup {
    /// The database's source, or that which stands for several.
    pub source: SourceName,
    /// The database, if it is about one.
    pub database: String,
    /// Where the backup was to go.
    pub places: Vec<Place>,
    /// Why.
    pub error: AppError,
    /// What belongs into its record.
    pub mark: Mark,
}

/// What is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkippedDatabase {
    /// What its source would be called.
    pub source: String,
    /// The database.
    pub database: String,
    /// Why.
    pub obstacle: Obstacle,
}

impl SkippedDatabase {
    /// What to warn of, unless somebody meant it to be so.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let text = || format!("{} is left out: {}", self.source, self.obstacle.reason());
        (!self.obstacle.is_by_design()).then(text)
    }
}

/// A configured source that stands for several.
struct Family<'a> {
    name: &'a str,
    settings: &'a SourceConfig,
}

impl Family<'_> {
    fn member(&self, database: &str) -> String {
        format!("{}/{database}", self.name)
    }
}

impl App {
    /// Finds out which backups are meant by these sources; `None` is the database that flags and
    /// variables name. What can be known to be wrong without asking a server is an error of all,
    /// before anything is touched; a server that cannot be asked is one of its source. Every
    /// source is there once.
    ///
    /// # Errors
    /// When settings make no sense.
    ///
    /// # Cancellation
    /// `Cancelled`; nothing was begun.
    pub async fn backup_tasks(
        &self,
        sources: &[Option<String>],
        cancel: &CancellationToken,
    ) -> Result<BackupTasks, AppError> {
        for source in sources {
            self.check_backup(source.as_deref())?;
        }
        let mut all = BackupTasks::default();
        // Side by side: one server that is away holds up no more than itself.
        let found = join_all(sources.iter().map(|source| async {
            let family = self.family(source.as_deref())?;
            let found = self.ask_for_databases(&family, cancel).await;
            Some((family, found))
        }));
        for (source, found) in sources.iter().zip(found.await) {
            if let Some((family, found)) = found {
                self.add_members(&family, found?, &mut all)?;
            } else {
                let job = self.backup_job(source.as_deref())?;
                all.jobs.push(Box::new(job));
            }
        }
        let mut seen = BTreeSet::new();
        all.jobs.retain(|job| seen.insert(job.source.clone()));
        Ok(all)
    }

    /// Whether backups of a source could be begun: what is wrong with its settings, keys and
    /// places is said before anything is touched.
    ///
    /// # Errors
    /// When something is.
    pub fn check_backup(&self, source: Option<&str>) -> Result<(), AppError> {
        self.refuse_stranger(source)?;
        // One database is as good as any.
        let member = self.family(source).map(|family| family.member("postgres"));
        let job = self.backup_job(member.as_deref().or(source))?;
        self.backup_engine(&job, &job.places, Arc::new(NoopObserver))
            .map(drop)
    }

    fn family<'a>(&'a self, source: Option<&'a str>) -> Option<Family<'a>> {
        let name = source?;
        let settings = self.config().source.get(name)?;
        let family = Family { name, settings };
        settings.is_family().then_some(family)
    }

    /// A member of a source that stands for several is backed up by its name too, but not one that
    /// the source leaves out.
    fn refuse_stranger(&self, source: Option<&str>) -> Result<(), AppError> {
        let member = source.and_then(|name| name.split_once('/'));
        let Some((name, database)) = member else {
            return Ok(());
        };
        let is_own = source.is_some_and(|name| self.config().source.contains_key(name));
        let family = self.family(Some(name)).filter(|_| !is_own);
        let Some(Family { settings, .. }) = family else {
            return Ok(());
        };
        match stranger(&settings.databases, &settings.exclude, database) {
            None => Ok(()),
            Some(why) => Err(AppError::usage(format!(
                "source {name:?} does not stand for database {database:?}: {why}"
            ))),
        }
    }

    /// Asks the server, as often as a backup from it would be tried.
    ///
    /// The outer error ends the command, the inner one is the source's own.
    async fn ask_for_databases(
        &self,
        family: &Family<'_>,
        cancel: &CancellationToken,
    ) -> Result<Result<Vec<FoundDatabase>, PortError>, AppError> {
        let finder = self.database_finder(family.settings)?;
        let settings = self.settings(Some(family.settings));
        let mut attempts = 0;
        loop {
            attempts += 1;
            let error = match finder.databases(cancel).await {
                Ok(found) => return Ok(Ok(found)),
                Err(error) if error.kind() == ErrorKind::Cancelled => {
                    return Err(CoreError::Cancelled.into());
                }
                Err(error) => error,
            };
            let delay = settings.values.retry.delay_after(attempts);
            let Some(delay) = delay.filter(|_| error.kind().is_retryable()) else {
                return Ok(Err(error));
            };
            let reason = shown(&chain(&error));
            tracing::warn!(
                target: "backup",
                source = %shown(family.name),
                "asking for the databases again in {} s: {reason}",
                delay.as_secs(),
            );
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = cancel.cancelled() => return Err(CoreError::Cancelled.into()),
            }
        }
    }

    fn add_members(
        &self,
        family: &Family<'_>,
        found: Result<Vec<FoundDatabase>, PortError>,
        all: &mut BackupTasks,
    ) -> Result<(), AppError> {
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                all.refused.push(self.refuse(family, None, error)?);
                return Ok(());
            }
        };
        let chosen = choose(&family.settings.databases, &family.settings.exclude, &found);
        for (database, obstacle) in chosen.skip {
            all.skipped.push(SkippedDatabase {
                source: family.member(&database),
                database,
                obstacle,
            });
        }
        for (database, reason) in chosen.refuse {
            let error = PortError::new(ErrorKind::NotFound, reason);
            all.refused
                .push(self.refuse(family, Some(&database), error)?);
        }
        for pattern in chosen.unmatched {
            let message = format!("no database that can be backed up matches {pattern:?}");
            let error = PortError::new(ErrorKind::NotFound, message);
            all.refused.push(self.refuse(family, None, error)?);
        }
        for database in chosen.take {
            let job = self.backup_job(Some(&family.member(&database)))?;
            all.jobs.push(Box::new(job));
        }
        Ok(())
    }

    fn refuse(
        &self,
        family: &Family<'_>,
        database: Option<&str>,
        source: PortError,
    ) -> Result<RefusedBackup, AppError> {
        let operation = match database {
            Some(database) => format!("find database {database:?}"),
            None => "find the databases of the server".to_owned(),
        };
        let name = database.map_or_else(|| family.name.to_owned(), |name| family.member(name));
        let name = SourceName::new(name).map_err(|e| AppError::usage(e.to_string()))?;
        Ok(RefusedBackup {
            places: self.places_of_source(&name)?,
            source: name,
            database: database.unwrap_or_default().to_owned(),
            error: CoreError::Dump { operation, source }.into(),
            mark: Mark::default(),
        })
    }

    /// Leaves the record of a backup that could not be begun, so that its failure is known where
    /// its backups would be, and runs the hooks for a failure.
    ///
    /// # Cancellation
    /// `cancel` leaves the writing two seconds.
    pub async fn record_refused(
        &self,
        refused: RefusedBackup,
        journal: &Journal,
        cancel: &CancellationToken,
    ) -> BackupRun {
        let mut record = refused.mark.begin(Operation::Backup);
        let settings = self.settings(self.config().settings_of(refused.source.as_str()));
        let of = (&refused.source, refused.database.as_str());
        let hooks = Hooks::new(of, &settings, self.environment(), Arc::new(NoopObserver));
        record.source = Some(refused.source.clone());
        match &refused.error {
            AppError::Engine(error) => record.failed(error),
            error => record.ended_with(error, error.kind()),
        }
        let mut done = failed_at(&refused.places, refused.error);
        let of = (&record, &done);
        done.run = self.record(&refused.places, journal, of, cancel).await;
        done.runs.extend(done.run.clone());
        for warning in hooks.failures(&done, cancel).await {
            tracing::warn!(target: "backup", "{warning}");
        }
        if let Some(notices) = journal.notices() {
            let of = (&refused.source, refused.database.as_str());
            notices.backed_up(of, &done, record.started_at);
        }
        done
    }
}
