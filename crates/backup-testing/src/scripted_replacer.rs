//! A replacer that notes what it is asked for.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use backup_core::error::{ErrorKind, PortError};
use backup_core::replacer::{Claim, Occupant, ReplaceRequest, Replacement, Replacer};
use backup_core::restorer::Purpose;
use backup_core::run_record::RunId;
use tokio_util::sync::CancellationToken;

use crate::bodies::SCRIPTED;
use crate::lock;

/// Exchanges nothing. Clones share what they noted.
#[derive(Debug, Clone, Default)]
pub struct ScriptedReplacer {
    replaced: Arc<Mutex<Vec<Replacement>>>,
    claim_error: Option<ErrorKind>,
    kind_error: Option<ErrorKind>,
    replace_error: Option<ErrorKind>,
    warnings: Vec<String>,
}

impl ScriptedReplacer {
    /// A server on which everything can be replaced.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes `claim` and `undo` fail.
    #[must_use]
    pub fn fails_to_claim(mut self, kind: ErrorKind) -> Self {
        self.claim_error = Some(kind);
        self
    }

    /// Makes `check_newcomer` fail.
    #[must_use]
    pub fn refuses_newcomers(mut self, kind: ErrorKind) -> Self {
        self.kind_error = Some(kind);
        self
    }

    /// Makes `replace` fail.
    #[must_use]
    pub fn fails_to_replace(mut self, kind: ErrorKind) -> Self {
        self.replace_error = Some(kind);
        self
    }

    /// Something an exchange says although it is done.
    #[must_use]
    pub fn warns(mut self, text: &str) -> Self {
        self.warnings.push(text.to_owned());
        self
    }

    /// What was exchanged.
    #[must_use]
    pub fn replaced(&self) -> Vec<Replacement> {
        lock(&self.replaced).clone()
    }

    fn note(&self, replacement: Replacement) -> Replacement {
        lock(&self.replaced).push(replacement.clone());
        replacement
    }
}

fn fail(error: Option<ErrorKind>) -> Result<(), PortError> {
    error.map_or(Ok(()), |kind| Err(PortError::new(kind, SCRIPTED)))
}

#[async_trait]
impl Replacer for ScriptedReplacer {
    async fn look(&self, _database: &str) -> Result<Option<Occupant>, PortError> {
        Ok(None)
    }

    async fn claim(
        &self,
        request: &ReplaceRequest,
        _cancel: &CancellationToken,
    ) -> Result<Box<dyn Claim>, PortError> {
        fail(self.claim_error)?;
        Ok(Box::new(ScriptedClaim {
            replacer: self.clone(),
            newcomer: format!("{} new", request.database),
            replacement: Replacement {
                run: request.run.clone(),
                database: request.database.clone(),
                kept_as: Some(format!("{} before", request.database)),
                backup: Some(request.backup.clone()),
                source: Some(request.source.clone()),
                warnings: self.warnings.clone(),
            },
        }))
    }

    async fn claim_undo(
        &self,
        run: &RunId,
        by: &RunId,
        _cancel: &CancellationToken,
    ) -> Result<Box<dyn Claim>, PortError> {
        fail(self.claim_error)?;
        let name = format!("what {run} replaced");
        Ok(Box::new(ScriptedClaim {
            replacer: self.clone(),
            newcomer: format!("{name} before"),
            replacement: Replacement {
                run: by.clone(),
                database: name,
                kept_as: None,
                backup: None,
                source: None,
                warnings: self.warnings.clone(),
            },
        }))
    }
}

#[derive(Debug)]
struct ScriptedClaim {
    replacer: ScriptedReplacer,
    newcomer: String,
    replacement: Replacement,
}

#[async_trait]
impl Claim for ScriptedClaim {
    fn newcomer(&self) -> &str {
        &self.newcomer
    }

    fn database(&self) -> &str {
        &self.replacement.database
    }

    fn purpose(&self) -> Purpose {
        Purpose::Replace {
            database: self.replacement.database.clone(),
            run: self.replacement.run.clone(),
        }
    }

    fn warnings(&self) -> &[String] {
        &[]
    }

    fn unrecorded(&self) -> &[Replacement] {
        &[]
    }

    async fn check_newcomer(&self) -> Result<Vec<String>, PortError> {
        fail(self.replacer.kind_error)?;
        Ok(Vec::new())
    }

    async fn replace(&self, cancel: &CancellationToken) -> Result<Replacement, PortError> {
        if cancel.is_cancelled() {
            return Err(PortError::cancelled());
        }
        fail(self.replacer.replace_error)?;
        Ok(self.replacer.note(self.replacement.clone()))
    }

    async fn acknowledge(&self, _replacement: &Replacement) -> Result<(), PortError> {
        Ok(())
    }
}
