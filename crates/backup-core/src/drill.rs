//! A rehearsal of a restore: the server that it happens on, what is asked there, and which
//! backup is due for one.

mod choice;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::error::PortError;
use crate::manifest::Manifest;
use crate::restorer::{Ownership, Restorer};

pub use choice::{Choice, ChoiceReason, Drilled, choose, due};

/// Gives servers that are good for one drill.
#[async_trait]
pub trait DrillServer: fmt::Debug + Send + Sync {
    /// Makes a server ready that can take the backup, with `jobs` parts at once.
    ///
    /// # Errors
    /// `ToolMissing` when no server programs of a fitting version are installed, `Refused` when a
    /// safety rule says no; nothing is left behind after an error.
    async fn start(
        &self,
        backup: &Manifest,
        jobs: usize,
        cancel: &CancellationToken,
    ) -> Result<Box<dyn DrillSession>, PortError>;
}

/// One server while a drill uses it.
#[async_trait]
pub trait DrillSession: fmt::Debug + Send + Sync {
    /// What it is.
    fn facts(&self) -> &ServerFacts;

    /// The database that the restore is to make.
    fn database(&self) -> &str;

    /// Who is to own what is restored.
    fn ownership(&self) -> Ownership {
        Ownership::Keep
    }

    /// Restores into it, never with the rights of a superuser: what is restored runs code of
    /// whoever wrote it.
    fn restorer(&self) -> &dyn Restorer;

    /// What the restore left out because this is a rehearsal, in words.
    fn left_out(&self) -> Vec<String>;

    /// Looks at every table and index of the restored database from within the server.
    ///
    /// # Errors
    /// When the server does not answer; what is found wrong is in the result.
    async fn check(&self, cancel: &CancellationToken) -> Result<StructureReport, PortError>;

    /// Puts a question to the restored database, read only.
    ///
    /// # Errors
    /// When the server cannot be reached; what the question itself runs into is an answer.
    async fn ask(
        &self,
        assertion: &Assertion,
        cancel: &CancellationToken,
    ) -> Result<Answer, PortError>;

    /// Removes whatever was made for the drill.
    ///
    /// # Errors
    /// When something is left behind, which the message names.
    async fn stop(&self) -> Result<(), PortError>;
}

/// What the server of a drill is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerFacts {
    /// In words: a throw-away cluster, or the name of a configured server.
    pub kind: String,
    /// Its version.
    pub server_version: String,
    /// Version of the programs that restore.
    pub tool_version: String,
    /// The account that it runs as, where that is known.
    pub account: Option<String>,
    /// Whether it can reach a network; `None` = not known.
    pub network: Option<bool>,
}

/// What a look at tables and indexes found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StructureReport {
    /// Why there was none, or only a part of it.
    pub unavailable: Option<String>,
    /// Indexes that were checked.
    pub indexes: u64,
    /// Tables that were checked.
    pub tables: u64,
    /// What is wrong.
    pub problems: Vec<StructureProblem>,
}

/// Something wrong with one table or index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StructureProblem {
    /// Which.
    pub object: String,
    /// What.
    pub problem: String,
}

/// SQL that must give `true` in the restored database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assertion {
    /// One statement with one row of one boolean.
    pub sql: String,
    /// How long it may take.
    pub timeout: Duration,
}

/// What came of an assertion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It holds.
    Holds,
    /// It does not, or cannot be told; in words.
    Fails(String),
}
