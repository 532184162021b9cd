//! Putting a backup into a new database and proving that it arrived.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use tokio_util::sync::CancellationToken;

use super::{BackupReader, CompareReport, Engine, compare, unless};
use crate::error::Error;
use crate::manifest::Manifest;
use crate::observer::Event;
use crate::restorer::{LoadReport, PartReader, RestoreRequest, RestoreSession, Restorer};

/// Where to restore and what to do around the load.
#[derive(Debug, Clone)]
pub struct RestoreOptions {
    /// The target.
    pub target: RestoreRequest,
    /// Read the target back and compare it with the dump.
    pub compare: bool,
    /// Leave a target that failed or differs, to look into.
    pub keep_failed: bool,
}

/// A finished restore.
#[derive(Debug, Clone)]
pub struct RestoreOutcome {
    /// What was restored.
    pub manifest: Manifest,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// When the last step was done.
    pub finished_at: DateTime<Utc>,
    /// Stored bytes that were fetched.
    pub bytes_read: u64,
    /// The comparison, unless it was not wanted.
    pub compare: Option<CompareReport>,
    /// What went wrong without making the result incomplete.
    pub warnings: Vec<String>,
}

impl Engine {
    /// Restores a backup into a database that this call makes.
    ///
    /// # Errors
    /// After any error the target is removed again, unless `keep_failed`; databases that
    /// existed before are never touched. [`Error::Differs`] when the load succeeded and the
    /// comparison did not.
    ///
    /// # Cancellation
    /// The token ends the tools, removes the target and returns [`Error::Cancelled`].
    pub async fn restore(
        &self,
        restorer: &dyn Restorer,
        backup: Manifest,
        options: &RestoreOptions,
        cancel: &CancellationToken,
    ) -> Result<RestoreOutcome, Error> {
        let started_at = self.clock.now();
        let target = &options.target;
        let reader = unless(cancel, self.open(backup)).await??;
        let parts: Arc<dyn PartReader> = Arc::<BackupReader>::clone(&reader);
        self.step(format!("create database {}", target.target_database));
        let session = restorer
            .create(target, parts, cancel)
            .await
            .map_err(|e| Error::restore(format!("create {}", target.target_database), e))?;
        let result = self.fill(session.as_ref(), &reader, options, cancel).await;
        match result {
            Ok((load, compare)) => Ok(RestoreOutcome {
                manifest: reader.manifest().clone(),
                started_at,
                finished_at: self.clock.now(),
                bytes_read: reader.bytes_read(),
                compare,
                warnings: warnings(reader.manifest(), load),
            }),
            Err(error) => {
                if !options.keep_failed
                    && let Err(e) = session.discard().await
                {
                    let text = format!("{} is left behind: {e}", target.target_database);
                    self.observer.event(&Event::Warning(text));
                }
                Err(error)
            }
        }
    }

    async fn fill(
        &self,
        session: &dyn RestoreSession,
        reader: &BackupReader,
        options: &RestoreOptions,
        cancel: &CancellationToken,
    ) -> Result<(LoadReport, Option<CompareReport>), Error> {
        let manifest = reader.manifest();
        self.observer.event(&Event::Planned {
            parts: manifest.parts.len(),
            estimated_bytes: manifest.totals.raw_bytes,
        });
        let load = session.load(cancel).await.map_err(|e| {
            let operation = format!("restore backup {}", manifest.id);
            // Damage and keys are told apart from what the database says, however they came.
            match e.kind() {
                crate::error::ErrorKind::Corrupt => super::reader::read_error(operation, e),
                _ => Error::restore(operation, e),
            }
        })?;
        if !options.compare {
            return Ok((load, None));
        }
        self.step("compare with the dump".to_owned());
        let found = session
            .read_back(cancel)
            .await
            .map_err(|e| Error::restore("read the restored database back", e))?;
        let report = compare(reader.facts(), &found);
        if report.is_equal() {
            Ok((load, Some(report)))
        } else {
            Err(Error::Differs(Box::new(report)))
        }
    }

    fn step(&self, text: String) {
        self.observer.event(&Event::Step(text));
    }
}

fn warnings(manifest: &Manifest, load: LoadReport) -> Vec<String> {
    let mut warnings = load.warnings;
    if manifest.filtered {
        let text = "the backup is filtered: what its filter left out is not in this database";
        warnings.push(text.to_owned());
    }
    warnings
}
