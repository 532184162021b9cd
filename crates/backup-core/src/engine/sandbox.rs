//! A backup into a sandbox.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use chrono::TimeDelta;
use tokio_util::sync::CancellationToken;

use super::{Engine, RestoreOptions, RestoreOutcome, unless};
use crate::error::{Error, ErrorKind, PortError, chain};
use crate::manifest::Manifest;
use crate::observer::Event;
use crate::restorer::{
    Ownership, PartReader, Purpose, RestoreRequest, RestoreSession, Restorer, Selection,
};
use crate::sandbox::{
    Sandbox, SandboxAccess, SandboxLimits, SandboxPlace, SandboxServer, Tenancy, sandbox_name,
};

/// What somebody wants to look into.
#[derive(Debug, Clone)]
pub struct SandboxRequest {
    /// Who asks, as the frontend knows him.
    pub person: String,
    /// What of the backup.
    pub selection: Selection,
    /// How many parts to load at once.
    pub jobs: usize,
    /// What he may have.
    pub limits: SandboxLimits,
}

/// A sandbox that is ready.
#[derive(Debug, Clone)]
pub struct SandboxOutcome {
    /// Whose it is, and until when.
    pub tenancy: Tenancy,
    /// How to get in.
    pub access: SandboxAccess,
    /// What was restored, and how it compares with the dump.
    pub restore: RestoreOutcome,
}

impl Engine {
    /// Restores a backup into a database of a name that nobody chose, compares it, and makes a
    /// login that can read it and nothing else.
    ///
    /// # Errors
    /// `Refused` when it is not within the limits, and those of [`Engine::restore`]. After any
    /// error there is no sandbox.
    ///
    /// # Cancellation
    /// As of a restore.
    pub async fn make_sandbox(
        &self,
        server: &dyn SandboxServer,
        backup: Manifest,
        request: &SandboxRequest,
        cancel: &CancellationToken,
    ) -> Result<SandboxOutcome, Error> {
        let failed = |e| Error::restore("make a sandbox", e);
        let place = unless(cancel, server.enter(&request.person)).await?;
        let place = place.map_err(failed)?;
        let admission = unless(cancel, server.admission()).await?;
        let admission = admission.map_err(failed)?;
        let there = unless(cancel, server.list()).await?.map_err(failed)?;
        let admitted = request.limits.admit(&there, &request.person, &backup);
        admitted.map_err(|refusal| {
            let hint = "drop one that is not needed any more, or ask for higher limits";
            failed(PortError::new(ErrorKind::Refused, refusal.to_string()).with_hint(hint))
        })?;
        let ttl = TimeDelta::from_std(request.limits.ttl).unwrap_or(TimeDelta::MAX);
        let until = self.clock.now().checked_add_signed(ttl);
        let until = until.ok_or_else(|| {
            failed(PortError::new(
                ErrorKind::InvalidInput,
                "it would never end",
            ))
        })?;
        let tenancy = Tenancy {
            person: request.person.clone(),
            until,
        };
        let database = sandbox_name(&backup.source, &backup.id, rand::random());
        let options = RestoreOptions {
            target: RestoreRequest {
                target_database: database.clone(),
                purpose: Purpose::Sandbox(tenancy.clone()),
                jobs: request.jobs,
                ownership: Ownership::Login,
                selection: request.selection.clone(),
            },
            compare: true,
            keep_failed: false,
            replace: None,
        };
        let restorer = Admitted {
            restorer: server.restorer(),
            admission: Mutex::new(Some(admission)),
        };
        let work = self.restore(&restorer, backup, &options, cancel);
        let restore = Box::pin(work).await?;
        let opened = unless(cancel, server.open(&database, until)).await;
        drop(place);
        match opened.and_then(|opened| opened.map_err(failed)) {
            Ok(access) => Ok(SandboxOutcome {
                tenancy,
                access,
                restore,
            }),
            Err(error) => {
                if let Err(e) = server.remove(&database).await {
                    let text = format!("{database} is left until its time ends: {}", chain(&e));
                    self.observer.event(&Event::Warning(text));
                }
                Err(error)
            }
        }
    }

    /// Drops what has ended, and says what could not be dropped.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub async fn sweep_sandboxes(&self, server: &dyn SandboxServer) -> Result<Vec<Swept>, Error> {
        let failed = |e| Error::restore("list sandboxes", e);
        let there = server.list().await.map_err(failed)?;
        let now = self.clock.now();
        if let Err(error) = server.remove_lone_logins(now).await {
            let text = format!("logins of sandboxes are left: {}", chain(&error));
            self.observer.event(&Event::Warning(text));
        }
        let mut swept = Vec::new();
        for sandbox in there.into_iter().filter(|sandbox| sandbox.has_ended(now)) {
            let removed = server.remove(&sandbox.database).await;
            swept.push(Swept {
                left: removed.err().map(|e| chain(&e)),
                sandbox,
            });
        }
        Ok(swept)
    }
}

/// A sandbox whose time was over.
#[derive(Debug, Clone)]
pub struct Swept {
    /// What it was.
    pub sandbox: Sandbox,
    /// Why it is still there, if so.
    pub left: Option<String>,
}

/// Lets the next one count once the database is there, since then it counts itself.
#[derive(Debug)]
struct Admitted<'a> {
    restorer: &'a dyn Restorer,
    admission: Mutex<Option<Box<dyn SandboxPlace>>>,
}

#[async_trait]
impl Restorer for Admitted<'_> {
    async fn create(
        &self,
        request: &RestoreRequest,
        parts: Arc<dyn PartReader>,
        cancel: &CancellationToken,
    ) -> Result<Box<dyn RestoreSession>, PortError> {
        let made = self.restorer.create(request, parts, cancel).await;
        let mut admission = self
            .admission
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        drop(admission.take());
        made
    }
}
