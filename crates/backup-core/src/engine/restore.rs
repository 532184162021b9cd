//! Putting a backup into a new database and proving that it arrived.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use tokio_util::sync::CancellationToken;

use super::{BackupReader, CompareReport, Engine, compare, unless};
use crate::error::{Error, ErrorKind, PortError};
use crate::facts::Scope;
use crate::manifest::{Manifest, PartKind};
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
    /// Whether something was left out on purpose.
    pub partial: bool,
    /// The comparison of what was selected, unless it was not wanted.
    pub compare: Option<CompareReport>,
    /// What is worth knowing without being wrong.
    pub notes: Vec<String>,
    /// What went wrong without making the result incomplete.
    pub warnings: Vec<String>,
}

impl Engine {
    /// Restores a backup into a database that this call makes.
    ///
    /// # Errors
    /// After any error the target is removed again, unless `keep_failed`; databases that
    /// existed before are never touched. [`Error::Differs`] when the load succeeded and the
    /// comparison did not, [`Error::NotFound`] when the backup lacks what was selected.
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
        let verb = if target.selection.content_only {
            "load into"
        } else {
            "create"
        };
        self.step(format!("{verb} database {}", target.target_database));
        let session = restorer
            .create(target, parts, cancel)
            .await
            .map_err(|e| not_created(&reader, target, e))?;
        let notes = session.notes();
        for note in &notes {
            self.observer.event(&Event::Note(note.clone()));
        }
        let result = self.fill(session.as_ref(), &reader, options, cancel).await;
        match result {
            Ok((load, compare)) => Ok(RestoreOutcome {
                manifest: reader.manifest().clone(),
                started_at,
                finished_at: self.clock.now(),
                bytes_read: reader.bytes_read(),
                partial: target.selection.leaves_out(),
                compare,
                notes,
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
        let scope = session.scope();
        self.observer.event(&planned(manifest, &scope));
        let mut load = session.load(cancel).await.map_err(|e| {
            // Damage and the store are told apart from what the database says, however they came.
            reader.blame(format!("restore backup {}", manifest.id), e)
        })?;
        if !options.compare {
            return Ok((load, None));
        }
        self.step("compare with the dump".to_owned());
        let found = session
            .read_back(cancel)
            .await
            .map_err(|e| Error::restore("read the restored database back", e))?;
        let report = compare(&reader.facts().within(&scope), &found);
        load.warnings.extend(report.warnings());
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

/// Everything, or the parts with the content that was selected and the one with the definitions.
fn planned(manifest: &Manifest, scope: &Scope) -> Event {
    let Scope::Only { parts, .. } = scope else {
        return Event::Planned {
            parts: manifest.parts.len(),
            estimated_bytes: manifest.totals.raw_bytes,
        };
    };
    let read = manifest
        .parts
        .iter()
        .filter(|part| part.kind == PartKind::Schema || parts.contains(&part.name));
    Event::Planned {
        parts: read.clone().count(),
        estimated_bytes: read.map(|part| part.raw_bytes).sum(),
    }
}

/// What the restorer cannot find is what the caller asked for: objects of the backup that are
/// missing are damage.
fn not_created(reader: &BackupReader, target: &RestoreRequest, error: PortError) -> Error {
    if error.kind() == ErrorKind::NotFound && target.selection.is_partial() {
        return Error::NotFound {
            what: error.to_string(),
        };
    }
    reader.blame(format!("create {}", target.target_database), error)
}

fn warnings(manifest: &Manifest, load: LoadReport) -> Vec<String> {
    let mut warnings = load.warnings;
    if manifest.filtered {
        let text = "the backup is filtered: what its filter left out is not in this database";
        warnings.push(text.to_owned());
    }
    warnings
}
