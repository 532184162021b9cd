//! A server for drills that answers as it was told.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use backup_core::drill::{
    Answer, Assertion, DrillServer, DrillSession, ServerFacts, StructureReport,
};
use backup_core::error::{ErrorKind, PortError};
use backup_core::manifest::Manifest;
use backup_core::restorer::Restorer;
use tokio_util::sync::CancellationToken;

use crate::bodies::SCRIPTED;
use crate::{ScriptedRestorer, lock};

/// Drills on a [`ScriptedRestorer`]. Clones share whether it was stopped.
#[derive(Debug, Clone, Default)]
pub struct ScriptedDrillServer {
    restorer: ScriptedRestorer,
    structure: StructureReport,
    failing: Vec<String>,
    start_error: Option<ErrorKind>,
    check_error: Option<ErrorKind>,
    stop_error: Option<ErrorKind>,
    stopped: Arc<AtomicBool>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl ScriptedDrillServer {
    /// A server that restores through `restorer` and finds everything good.
    #[must_use]
    pub fn new(restorer: ScriptedRestorer) -> Self {
        Self {
            restorer,
            ..Self::default()
        }
    }

    /// Makes the look at tables and indexes find this.
    #[must_use]
    pub fn finds(mut self, structure: StructureReport) -> Self {
        self.structure = structure;
        self
    }

    /// Makes this assertion fail.
    #[must_use]
    pub fn denies(mut self, sql: &str) -> Self {
        self.failing.push(sql.to_owned());
        self
    }

    /// Makes `start` fail.
    #[must_use]
    pub fn fails_to_start(mut self, kind: ErrorKind) -> Self {
        self.start_error = Some(kind);
        self
    }

    /// Makes `check` fail.
    #[must_use]
    pub fn fails_to_check(mut self, kind: ErrorKind) -> Self {
        self.check_error = Some(kind);
        self
    }

    /// Makes `stop` fail.
    #[must_use]
    pub fn fails_to_stop(mut self, kind: ErrorKind) -> Self {
        self.stop_error = Some(kind);
        self
    }

    /// Whether it was stopped.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// What it was asked, in this order.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        lock(&self.asked).clone()
    }
}

fn fail(error: Option<ErrorKind>) -> Result<(), PortError> {
    error.map_or(Ok(()), |kind| Err(PortError::new(kind, SCRIPTED)))
}

#[async_trait]
impl DrillServer for ScriptedDrillServer {
    async fn start(
        &self,
        _backup: &Manifest,
        _jobs: usize,
        cancel: &CancellationToken,
    ) -> Result<Box<dyn DrillSession>, PortError> {
        if cancel.is_cancelled() {
            return Err(PortError::cancelled());
        }
        fail(self.start_error)?;
        Ok(Box::new(Session {
            server: self.clone(),
            facts: ServerFacts {
                kind: "a scripted server".to_owned(),
                ..ServerFacts::default()
            },
        }))
    }
}

#[derive(Debug)]
struct Session {
    server: ScriptedDrillServer,
    facts: ServerFacts,
}

#[async_trait]
impl DrillSession for Session {
    fn facts(&self) -> &ServerFacts {
        &self.facts
    }

    fn database(&self) -> &'static str {
        "rehearsal"
    }

    fn restorer(&self) -> &dyn Restorer {
        &self.server.restorer
    }

    fn left_out(&self) -> Vec<String> {
        vec!["something".to_owned()]
    }

    async fn check(&self, _cancel: &CancellationToken) -> Result<StructureReport, PortError> {
        fail(self.server.check_error)?;
        Ok(self.server.structure.clone())
    }

    async fn ask(
        &self,
        assertion: &Assertion,
        _cancel: &CancellationToken,
    ) -> Result<Answer, PortError> {
        lock(&self.server.asked).push(assertion.sql.clone());
        Ok(if self.server.failing.contains(&assertion.sql) {
            Answer::Fails(SCRIPTED.to_owned())
        } else {
            Answer::Holds
        })
    }

    async fn stop(&self) -> Result<(), PortError> {
        self.server.stopped.store(true, Ordering::Relaxed);
        fail(self.server.stop_error)
    }
}
