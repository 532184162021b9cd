//! Putting a backup back, always into something new.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::body::BodyStream;
use crate::error::PortError;
use crate::facts::{Facts, Fingerprint, LargeObjectFacts, SequenceFacts, TableName};
use crate::manifest::{Manifest, PartName};

/// Who owns what is restored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Ownership {
    /// As in the source; the roles must exist.
    #[default]
    Keep,
    /// The login that restores; grants are left out too.
    Login,
}

/// Where and how to restore.
#[derive(Debug, Clone)]
pub struct RestoreRequest {
    /// The database to make. It must not exist.
    pub target_database: String,
    /// How many parts to load at once.
    pub jobs: usize,
    /// Who owns the objects.
    pub ownership: Ownership,
}

/// Gives the raw bytes of a backup's parts.
#[async_trait]
pub trait PartReader: fmt::Debug + Send + Sync {
    /// The backup's record.
    fn manifest(&self) -> &Manifest;

    /// What it holds.
    fn facts(&self) -> &Facts;

    /// A part's raw bytes: fetched, checked, decrypted, decompressed. Ends with an error when
    /// anything is not what was written, possibly after most of it has passed.
    ///
    /// # Errors
    /// `NotFound` for an unknown part or a missing object.
    async fn open(&self, part: &PartName) -> Result<BodyStream, PortError>;
}

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// What went wrong without making the result incomplete.
    pub warnings: Vec<String>,
}

/// What the target holds after a load.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadBack {
    /// Tables as they are now; what is absent is missing in the target.
    pub tables: BTreeMap<TableName, Result<Fingerprint, String>>,
    /// Large objects, when they were asked for.
    pub large_objects: Option<LargeObjectFacts>,
    /// Sequences as they are now.
    pub sequences: Vec<SequenceFacts>,
}

/// Restores backups of one kind into one server.
#[async_trait]
pub trait Restorer: fmt::Debug + Send + Sync {
    /// Checks that the backup can go there and makes the empty target.
    ///
    /// # Errors
    /// `AlreadyExists` when the target exists, `ToolMissing` or `Unsuitable` when versions do
    /// not fit or roles are missing; nothing was made after an error.
    async fn create(
        &self,
        request: &RestoreRequest,
        parts: Arc<dyn PartReader>,
        cancel: &CancellationToken,
    ) -> Result<Box<dyn RestoreSession>, PortError>;
}

/// One target that this run made.
#[async_trait]
pub trait RestoreSession: fmt::Debug + Send + Sync {
    /// Loads everything.
    ///
    /// # Errors
    /// Names the object that failed. The target then holds a part of the backup.
    async fn load(&self, cancel: &CancellationToken) -> Result<LoadReport, PortError>;

    /// Reads the target's content back.
    ///
    /// # Errors
    /// When the target cannot be read; a single table that cannot is in the result.
    async fn read_back(&self, cancel: &CancellationToken) -> Result<ReadBack, PortError>;

    /// Removes the target.
    ///
    /// # Errors
    /// When it cannot be removed; it then still exists under its name.
    async fn discard(&self) -> Result<(), PortError>;
}
