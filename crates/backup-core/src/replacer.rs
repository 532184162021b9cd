//! Putting a database into the place of another that clients use, and back.
//!
//! The other one is never dropped by an exchange: it is set aside under a name of its own. Both
//! renames happen at one moment, so that whoever connects finds the one or the other, and a process
//! that is killed leaves either what was there before or what was wanted.

use std::fmt;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::backup::{BackupId, SourceName};
use crate::error::PortError;
use crate::restorer::Purpose;
use crate::run_record::RunId;

/// Which databases may be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replaceable {
    /// Whatever database has the name: somebody decided so.
    Any,
    /// Only one that a restore made. One that was made to be replaced is dropped when the next but
    /// one has taken its place.
    Restored,
}

/// What is to be replaced, and by which run.
#[derive(Debug, Clone)]
pub struct ReplaceRequest {
    /// The name that clients use.
    pub database: String,
    /// Which databases may be.
    pub replaceable: Replaceable,
    /// The run that does it.
    pub run: RunId,
    /// What it restores.
    pub backup: BackupId,
    /// Of which source.
    pub source: SourceName,
}

/// What has a name now, for whoever decides whether it may be replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Occupant {
    /// Where its server is.
    pub server: String,
    /// Which cluster that is, if the login may know.
    pub system_identifier: Option<String>,
    /// Its bytes on disk, if the login may know.
    pub bytes: Option<u64>,
    /// Sessions that would be ended.
    pub sessions: u64,
    /// Whether a restore made it.
    pub restored: bool,
}

/// A committed exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replacement {
    /// The run that did it.
    pub run: RunId,
    /// The name that clients use.
    pub database: String,
    /// Under which name the database that had it before is now; `None` if there was none.
    pub kept_as: Option<String>,
    /// The backup that was restored into the new one; of an undo, none.
    pub backup: Option<BackupId>,
    /// Its source.
    pub source: Option<SourceName>,
    /// What stayed behind with the old one, or could not be cleared away.
    pub warnings: Vec<String>,
}

/// Exchanges databases of one server.
#[async_trait]
pub trait Replacer: fmt::Debug + Send + Sync {
    /// What has this name now.
    ///
    /// # Errors
    /// When the server cannot be asked.
    async fn look(&self, database: &str) -> Result<Option<Occupant>, PortError>;

    /// Reserves the right to replace a database by one that is going to be restored, checks that it
    /// can be replaced, and removes what a killed run left behind on the way to the same goal.
    /// Nothing that clients see changes.
    ///
    /// # Errors
    /// `Conflict` while another run holds it, `NotFound` without such a database, `Refused` when it
    /// must not be replaced, `Unsuitable` when it could not be.
    async fn claim(
        &self,
        request: &ReplaceRequest,
        cancel: &CancellationToken,
    ) -> Result<Box<dyn Claim>, PortError>;

    /// Reserves the right to give the database that `run` set aside its name back; the run `by`
    /// does it.
    ///
    /// # Errors
    /// `NotFound` when nothing is set aside by that run; otherwise as [`claim`](Self::claim).
    async fn claim_undo(
        &self,
        run: &RunId,
        by: &RunId,
        cancel: &CancellationToken,
    ) -> Result<Box<dyn Claim>, PortError>;
}

/// The right to replace one database, held until it is dropped.
#[async_trait]
pub trait Claim: fmt::Debug + Send + Sync {
    /// The name of the database that takes the place: of one that is to be made, the name under
    /// which it is to be made.
    fn newcomer(&self) -> &str;

    /// The name that clients use.
    fn database(&self) -> &str;

    /// What a newcomer that is to be made is for.
    fn purpose(&self) -> Purpose;

    /// What was found on the way and is worth a warning.
    fn warnings(&self) -> &[String];

    /// Exchanges of this database that were committed by runs that did not live to record them,
    /// the newest first.
    fn unrecorded(&self) -> &[Replacement];

    /// Whether the newcomer, which need not hold anything yet, is of a kind that can take the
    /// place: text sorts and is stored the same way. Returns what is worth a warning.
    ///
    /// # Errors
    /// `Unsuitable` when it is not.
    async fn check_newcomer(&self) -> Result<Vec<String>, PortError>;

    /// Gives the newcomer the other one's owner, grants, settings and connection limit, ends the
    /// sessions, and renames both in one transaction.
    ///
    /// # Errors
    /// After any error the other one is where it was and open, unless the error says that the end
    /// is not known.
    ///
    /// # Cancellation
    /// Heeded until the transaction is committed.
    async fn replace(&self, cancel: &CancellationToken) -> Result<Replacement, PortError>;

    /// Notes that the record of an exchange of this database is written.
    ///
    /// # Errors
    /// When the server cannot be told; the next claim then names the exchange again.
    async fn acknowledge(&self, replacement: &Replacement) -> Result<(), PortError>;
}
