//! Putting a backup into a new database and proving that it arrived.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use tokio_util::sync::CancellationToken;

use super::{BackupReader, CompareReport, Engine, compare, unless};
use crate::error::{Error, ErrorKind, PortError, chain};
use crate::facts::Scope;
use crate::manifest::{Manifest, PartKind};
use crate::observer::Event;
use crate::replacer::{Claim, ReplaceRequest, Replacement, Replacer};
use crate::restorer::{
    LoadReport, Ownership, PartReader, RestoreRequest, RestoreSession, Restorer,
};
use crate::run_record::RunId;

/// Where to restore and what to do around the load.
#[derive(Debug, Clone)]
pub struct RestoreOptions {
    /// The target.
    pub target: RestoreRequest,
    /// Read the target back and compare it with the dump.
    pub compare: bool,
    /// Leave a target that failed or differs, to look into.
    pub keep_failed: bool,
    /// What the target, once it is proved equal, takes the place of. It is then made under the
    /// claim's name for newcomers.
    pub replace: Option<Arc<dyn Claim>>,
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
    /// What it took the place of.
    pub replaced: Option<Replacement>,
    /// What is worth knowing without being wrong.
    pub notes: Vec<String>,
    /// What went wrong without making the result incomplete.
    pub warnings: Vec<String>,
}

/// What came of a target.
struct Filled {
    load: LoadReport,
    compare: Option<CompareReport>,
    replaced: Option<Replacement>,
}

impl Engine {
    /// Restores a backup into a database that this call makes.
    ///
    /// # Errors
    /// After any error the target is removed again, unless `keep_failed`, and databases that
    /// existed before are as they were. [`Error::Differs`] when the load succeeded and the
    /// comparison did not, [`Error::NotFound`] when the backup lacks what was selected,
    /// [`Error::InvalidInput`] when something is to be replaced by less than a whole backup that is
    /// compared, [`Error::Replace`] when the last step failed.
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
        let mut target = options.target.clone();
        if let Some(claim) = &options.replace {
            check_replaces(&backup, options)?;
            claim.newcomer().clone_into(&mut target.target_database);
            if !options.keep_failed {
                target.purpose = claim.purpose();
            }
        }
        let target = &target;
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
        let mut notes = session.notes();
        if reader.manifest().as_configured {
            notes.push(
                "it has what its source is configured to have, not the whole database".to_owned(),
            );
        }
        for note in &notes {
            self.observer.event(&Event::Note(note.clone()));
        }
        let result = match self.check_place(options).await {
            Ok(()) => self.fill(session.as_ref(), &reader, options, cancel).await,
            Err(error) => Err(error),
        };
        match result {
            Ok(filled) => Ok(RestoreOutcome {
                manifest: reader.manifest().clone(),
                started_at,
                finished_at: self.clock.now(),
                bytes_read: reader.bytes_read(),
                partial: target.selection.leaves_out(),
                compare: filled.compare,
                notes,
                warnings: warnings(reader.manifest(), filled.load, filled.replaced.as_ref()),
                replaced: filled.replaced,
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
    ) -> Result<Filled, Error> {
        let manifest = reader.manifest();
        let scope = session.scope();
        self.observer.event(&planned(manifest, &scope));
        let mut load = session.load(cancel).await.map_err(|e| {
            // Damage and the store are told apart from what the database says, however they came.
            reader.blame(format!("restore backup {}", manifest.id), e)
        })?;
        if !options.compare {
            return Ok(Filled {
                load,
                compare: None,
                replaced: None,
            });
        }
        self.step("compare with the dump".to_owned());
        let found = session
            .read_back(cancel)
            .await
            .map_err(|e| Error::restore("read the restored database back", e))?;
        let report = compare(&reader.facts().within(&scope), &found);
        load.warnings.extend(report.warnings());
        if !report.is_equal() {
            return Err(Error::Differs(Box::new(report)));
        }
        let replaced = match &options.replace {
            Some(claim) => Some(self.replace(claim.as_ref(), cancel).await?),
            None => None,
        };
        Ok(Filled {
            load,
            compare: Some(report),
            replaced,
        })
    }

    /// While the target is still empty, and so cheap to give up.
    async fn check_place(&self, options: &RestoreOptions) -> Result<(), Error> {
        let Some(claim) = &options.replace else {
            return Ok(());
        };
        let checked = claim.check_newcomer().await;
        let warnings = checked
            .map_err(|e| Error::replace(format!("replace database {}", claim.database()), e))?;
        for warning in warnings {
            self.observer.event(&Event::Warning(warning));
        }
        Ok(())
    }

    async fn replace(
        &self,
        claim: &dyn Claim,
        cancel: &CancellationToken,
    ) -> Result<Replacement, Error> {
        let database = claim.database();
        self.step(format!("put it in the place of {database}"));
        claim
            .replace(cancel)
            .await
            .map_err(|e| Error::replace(format!("replace database {database}"), e))
    }

    /// Reserves the right to replace a database by a restore that names the claim in its options.
    ///
    /// # Errors
    /// [`Error::Replace`] while another run holds it, or when it cannot or must not be replaced;
    /// [`Error::NotFound`] without such a database.
    pub async fn claim(
        &self,
        replacer: &dyn Replacer,
        request: &ReplaceRequest,
        cancel: &CancellationToken,
    ) -> Result<Arc<dyn Claim>, Error> {
        let claim = unless(cancel, replacer.claim(request, cancel)).await?;
        let claim =
            claim.map_err(|e| not_replaced(format!("replace database {}", request.database), e))?;
        Ok(Arc::from(claim))
    }

    pub(super) fn step(&self, text: String) {
        self.observer.event(&Event::Step(text));
    }
}

/// Swaps back what a restore replaced. No store is needed for that; whoever has recorded it tells
/// the claim, which is returned for that.
///
/// # Errors
/// [`Error::NotFound`] when nothing is set aside by that run, [`Error::Replace`] otherwise; every
/// database then is where it was, unless the error says that the end is not known.
pub async fn undo(
    replacer: &dyn Replacer,
    run: &RunId,
    by: &RunId,
    cancel: &CancellationToken,
) -> Result<(Replacement, Box<dyn Claim>), Error> {
    let operation = || format!("undo {run}");
    let claim = unless(cancel, replacer.claim_undo(run, by, cancel)).await?;
    let claim = claim.map_err(|e| not_replaced(operation(), e))?;
    let warnings = claim.check_newcomer().await;
    let mut replacement = claim
        .replace(cancel)
        .await
        .map_err(|e| Error::replace(operation(), e))?;
    replacement.warnings.extend(match warnings {
        Ok(warnings) => warnings,
        Err(error) => vec![format!(
            "it was not checked whether clients can use it: {}",
            chain(&error)
        )],
    });
    Ok((replacement, claim))
}

/// What is missing is what the caller named.
fn not_replaced(operation: String, error: PortError) -> Error {
    match error.kind() {
        ErrorKind::NotFound => Error::NotFound {
            what: error.to_string(),
        },
        _ => Error::replace(operation, error),
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

/// Whether grants come along, too.
fn keeps_owners(ownership: &Ownership) -> bool {
    match ownership {
        Ownership::Keep | Ownership::Renamed(_) => true,
        Ownership::Login | Ownership::Role(_) => false,
    }
}

/// Only a whole backup that is proved equal may take the place of anything.
fn check_replaces(backup: &Manifest, options: &RestoreOptions) -> Result<(), Error> {
    let selection = &options.target.selection;
    let reason = if !options.compare {
        "without the comparison"
    } else if !keeps_owners(&options.target.ownership) {
        "without its owners and grants: its clients could not read it"
    } else if selection.is_partial() || selection.definitions_only || selection.content_only {
        "by a part of a backup"
    } else if backup.filtered {
        "by a filtered backup, which is not the whole database"
    } else {
        return Ok(());
    };
    Err(Error::InvalidInput {
        message: format!("a database cannot be replaced {reason}"),
    })
}

fn warnings(manifest: &Manifest, load: LoadReport, replaced: Option<&Replacement>) -> Vec<String> {
    let mut warnings = load.warnings;
    warnings.extend(replaced.iter().flat_map(|r| r.warnings.iter().cloned()));
    if !manifest.is_whole() {
        let text = "the backup is filtered: what its filter left out is not in this database";
        warnings.push(text.to_owned());
    }
    warnings
}
